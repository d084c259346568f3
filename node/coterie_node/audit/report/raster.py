"""A figure as PNG for print: the SVG drawn by resvg, on white, at 300 dots an inch on a page of 180 mm."""

from __future__ import annotations

from coterie_node.errors import ConfigError

# Dots of a figure that is 180 mm wide, two columns of a journal, at 300 an inch.
PRINT_WIDTH = 2126
_INK, _PRINT_INK = "#6b7785", "#1f2933"


def rasterise(picture: str) -> bytes:
    """The PNG of one of our SVG figures; ConfigError (CO-F368) without the package resvg-py.

    Text is darker than on a screen, whose background may be dark.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        message = "PNG files need the package resvg-py, which is not installed"
        raise ConfigError("CO-F368", f"{message}. Install coterie[plot], or write an .svg file.") from None
    png: bytes = svg_to_bytes(
        svg_string=picture.replace(_INK, _PRINT_INK), width=PRINT_WIDTH, background="white", dpi=300
    )
    return bytes(png)
