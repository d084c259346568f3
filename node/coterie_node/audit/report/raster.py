"""A figure as PNG for print: the SVG drawn by resvg, on white, at 300 dots an inch on a page of 180 mm."""

from __future__ import annotations

from functools import cache

from coterie_node.errors import ConfigError

# Dots of a figure that is 180 mm wide, two columns of a journal, at 300 an inch.
PRINT_WIDTH = 2126
_INK, _PRINT_INK = "#6b7785", "#1f2933"
_WORD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 20"><text x="4" y="14">word</text></svg>'
# Fonts of common systems. resvg asks fontconfig for one name alone, which need not be installed where another font is.
_FAMILIES = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "FreeSans", "Arial", "Helvetica")


def rasterise(picture: str) -> bytes:
    """The PNG of one of our SVG figures; ConfigError (CO-F368) without the package resvg-py, or without a font.

    Text is darker than on a screen, whose background may be dark.
    """
    ink = picture.replace(_INK, _PRINT_INK)
    return _draw(ink, _find_family(), width=PRINT_WIDTH, background="white")


@cache
def _find_family() -> str:
    """The first font family with which a word is seen."""
    for family in _FAMILIES:
        if _draw(_WORD, family) != _draw(_WORD.replace("word", ""), family):
            return family
    message = "A PNG file needs a font, and this machine has none of " + ", ".join(_FAMILIES)
    raise ConfigError("CO-F368", f"{message}. Install one, as fonts-dejavu-core, or write an .svg file.")


def _draw(picture: str, family: str, width: int | None = None, background: str | None = None) -> bytes:
    """The PNG of a picture whose text has this family where it names none that is installed."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        message = "PNG files need the package resvg-py, which is not installed"
        raise ConfigError("CO-F368", f"{message}. Install coterie[plot], or write an .svg file.") from None
    png = svg_to_bytes(
        svg_string=picture,
        font_family=family,
        serif_family=family,
        sans_serif_family=family,
        width=width,
        background=background,
    )
    return bytes(png)
