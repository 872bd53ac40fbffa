"""How figures look: a paper's widths, colours that all can tell apart, fonts; and their files."""

import contextlib
import functools
import io
import warnings
from pathlib import Path
from unicodedata import east_asian_width

from matplotlib import style
from matplotlib.font_manager import findfont, fontManager, get_font

from tools.results_folder import write_whole

COLUMN, PAGE = 3.5, 7.2    # inches, widths of a paper's column and page
# Okabe & Ito, Color Universal Design, 2008; without the yellow, which is faint on white
BLUE, ORANGE, GREEN, VERMILLION, SKY, _ = COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
SYNTHETIC = "synthetic demo data"
# What Macs and Linux have for Chinese, Japanese and Korean, which the first lacks; TrueType before
# OpenType, as PDFs embed the former. Only those at hand: matplotlib warns of each that is not
FONTS = ["DejaVu Sans", *(name for name in (
    "Arial Unicode MS", "Heiti TC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "Noto Sans CJK SC", "Noto Sans CJK JP")
    if name in fontManager.get_font_names())]
STYLE = {
    "font.family": FONTS, "font.size": 9, "axes.titlesize": 9, "figure.titlesize": 9,
    "legend.frameon": False, "legend.fontsize": 9, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.2,
    "text.parse_math": False,    # a class name may hold a $
    "pdf.fonttype": 42, "savefig.dpi": 200}


@contextlib.contextmanager
def styled():
    """Draw so whatever the user's own style, without warnings of letters that no font has."""
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def breadth(text):
    """Count letters, a Chinese, Japanese or Korean one as two."""
    return len(text) + sum(east_asian_width(letter) in "WF" for letter in text)


def short(name, most):
    """Cut off what is broader than `most` letters."""
    if breadth(name) <= most:
        return name
    while breadth(name) >= most:
        name = name[:-1]
    return name.rstrip() + "…"


def drawable(classes):
    """Return the names of the classes, of those that no font at hand can write their number."""
    known = set().union(*(get_font(findfont(font)).get_charmap() for font in FONTS))
    return [name if known.issuperset(map(ord, name)) else f"class {number}"
            for number, name in enumerate(classes, start=1)]


@styled()
def save(figure, stem, kinds=("pdf", "png"), dpi=STYLE["savefig.dpi"]):
    """Write a figure as `stem`.pdf and .png, the same bytes each time; return the paths."""
    options = {"png": {"dpi": dpi}, "pdf": {"metadata": {"CreationDate": None}}}
    paths = {kind: Path(f"{stem}.{kind}") for kind in kinds}
    for kind in sorted(kinds, reverse=True):    # PNG first
        how = options[kind]
        content = io.BytesIO()    # on a full disk, Matplotlib would raise anything
        figure.savefig(content, format=kind, **how)
        write_whole(paths[kind], functools.partial(Path.write_bytes, data=content.getvalue()))
        figure.set_layout_engine("none")    # what is laid out stays so: half of the time
    return list(paths.values())
