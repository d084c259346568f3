"""A figure as PNG for print: the SVG drawn by resvg, on white, at 300 dots an inch on a page of 180 mm."""

from __future__ import annotations

from coterie_node.errors import ConfigError

# Dots of a figure that is 180 mm wide, two columns of a journal, at 300 an inch.
PRINT_WIDTH = 2126
_INK, _PRINT_INK = "#6b7785", "#1f2933"
_WORD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 20"><text x="4" y="14">word</text></svg>'


def rasterise(picture: str) -> bytes:
    """The PNG of one of our SVG figures; ConfigError (CO-F368) without the package resvg-py, or without a font.

    Text is darker than on a screen, whose background may be dark.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        message = "PNG files need the package resvg-py, which is not installed"
        raise ConfigError("CO-F368", f"{message}. Install coterie[plot], or write an .svg file.") from None
    if bytes(svg_to_bytes(svg_string=_WORD)) == bytes(svg_to_bytes(svg_string=_WORD.replace("word", ""))):
        message = "A PNG file needs a font, and this machine has none"
        raise ConfigError("CO-F368", f"{message}. Install one, as fonts-dejavu-core, or write an .svg file.")
    ink = picture.replace(_INK, _PRINT_INK)
    return bytes(svg_to_bytes(svg_string=ink, width=PRINT_WIDTH, background="white"))
