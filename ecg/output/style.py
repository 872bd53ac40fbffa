"""How figures look: a paper's widths, colours that all can tell apart, fonts; and their files."""

import contextlib
import functools
import io
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from ecg.files import write_whole

COLUMN, PAGE = 3.5, 7.2    # inches, widths of a paper's column and page
# Okabe & Ito, Color Universal Design, 2008; without the yellow, which is faint on white
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILLION = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
GREY = "#7F7F7F"
COLOURS = [BLUE, ORANGE, GREEN, VERMILLION, PURPLE, GREY]    # of classes: no two alike

# What Macs and Linux have for Chinese, Japanese and Korean, which DejaVu lacks; TrueType before
# OpenType, as PDFs embed the former. Only those installed: matplotlib warns of each that is not
ASIAN_FONTS = [
    "Arial Unicode MS",
    "Heiti TC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
]
INSTALLED = fontManager.get_font_names()
FONTS = ["DejaVu Sans", *(name for name in ASIAN_FONTS if name in INSTALLED)]

DPI = 300
OPTIONS: dict[str, Any] = {    # of files, by kind
    "png": {"pil_kwargs": {"compress_level": 3}},    # in two thirds of the time of level 6
    "pdf": {"metadata": {"CreationDate": None}},     # the same bytes each time
}
STYLE = {
    "font.family": FONTS,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "text.parse_math": False,    # a class name may hold a $
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in this style whatever the user's own, without warnings of letters that no font has."""
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def wrap(text: str, width: int, **options: Any) -> list[str]:
    """Break text as `textwrap.wrap` does; a Chinese, Japanese or Korean letter counts as two."""
    doubled = "".join(
        letter + "\0" * (east_asian_width(letter) in "WF") for letter in text)
    return [line.replace("\0", "") for line in textwrap.wrap(doubled, width, **options)]


def short(text: str, most: int) -> str:
    """Cut off what is broader than `most` letters."""
    return "".join(wrap(text, most, max_lines=1, placeholder="…"))


@styled()
def as_png(figure: Figure, dpi: int) -> bytes:
    """Return a figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, **OPTIONS["png"])
    return content.getvalue()


@styled()
def save(figure: Figure, stem: str | os.PathLike[str], kinds: Sequence[str] = ("pdf", "png"),
         dpi: int = DPI) -> list[Path]:
    """Write a figure as `stem`.pdf and .png, the same bytes each time; return the paths.

    `UserError` if a file cannot be written.
    """
    paths = [Path(f"{stem}.{kind}") for kind in kinds]
    for path, kind in zip(paths, kinds, strict=True):
        write_whole(path, functools.partial(figure.savefig, dpi=dpi, **OPTIONS[kind]))
    return paths
