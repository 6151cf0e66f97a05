"""The printed page: journal widths, type, colours, text that is measured before it is placed, byte-stable files.

Everything is laid out in millimetres. No pyplot, no global state: a figure is a value that its caller saves or drops.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from io import BytesIO
from math import isfinite
from pathlib import Path
from threading import RLock
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.textpath import TextToPath

from mtdlr.errors import Problem, StudyError
from mtdlr.estimate import Estimate

Width = Literal["single", "double"]
P = ParamSpec("P")

MM = 1.0 / 25.4
WIDTH_MM = {"single": 84.0, "double": 174.0}
SMALL, NORMAL = 6.5, 7.5  # points
# Okabe and Ito (2008): told apart with every kind of colour blindness, and in grey by their order.
BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, BLACK, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#F0E442",
)
WINE = "#882255"  # an eighth that is seen on white, which their yellow is not (Tol)
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, WINE)
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)),
    (0, (7, 1)),
)
_CAPITAL = 0.72  # height of a capital over the type size
GREY, PALE = "#6e6e6e", "#e4e4e4"
_MODELS = {"MTDLR": VERMILLION, "Stage": BLACK, "DeepMTS": BLUE, "AutoRadio": GREEN, "ManualRadio": ORANGE,
           "SingleTask": PURPLE, "True risk (simulated)": GREY, "Treat all": GREY}
_SANS = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")
_OTHER_SCRIPTS = ("DejaVu Sans", "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC",
                  "WenQuanYi Micro Hei", "SimHei", "Noto Sans")
_METADATA: dict[str, dict[str, Any]] = {  # nothing that changes from one day or version to the next
    ".svg": {"Date": None, "Creator": "mtdlr"},
    ".pdf": {"CreationDate": None, "ModDate": None, "Creator": "mtdlr", "Producer": "mtdlr"},
    ".png": {"Software": "mtdlr"}, ".jpg": {}, ".tiff": {},
}
FORMATS = (".svg", ".pdf", ".png")
"""What every figure is written as; each needs its metadata above."""
_DRAWING = RLock()  # matplotlib's settings are one per process, so figures are drawn one at a time


def drawn(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """The function, run under the house style."""
    @wraps(function)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _DRAWING, mpl.rc_context(_style()):
            return function(*args, **kwargs)
    return styled


def page(width: Width, height_mm: float) -> Figure:
    """An empty figure of a journal's column width.

    Args:
        width: a column width of `WIDTH_MM`.
        height_mm: height of the page.
    """
    figure = Figure(figsize=(WIDTH_MM[width] * MM, height_mm * MM), dpi=300)
    FigureCanvasAgg(figure)
    return figure


def sheet(figure: Figure) -> Axes:
    """Axes over the whole page in millimetres from its lower left corner, for what is drawn by hand."""
    width, height = (float(inches) / MM for inches in figure.get_size_inches())
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, width), ylim=(0.0, height))
    axes.set_axis_off()
    return axes


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes with their frame at a place given in millimetres.

    Args:
        figure: the page.
        left: mm from the left edge.
        bottom: mm from the lower edge.
        width: mm.
        height: mm.
    """
    page_width, page_height = (float(inches) / MM for inches in figure.get_size_inches())
    return figure.add_axes((left / page_width, bottom / page_height, width / page_width, height / page_height))


def text_width(text: str, size: float = SMALL, *, bold: bool = False) -> float:
    """Width in mm of the longest line of a text.

    Args:
        text: one or several lines.
        size: type size in points.
        bold: whether it is printed bold.
    """
    return max(_line_width(line, size, bold) for line in text.split("\n"))


def line_height(size: float = SMALL) -> float:
    """Height in mm of a line of text, with its leading."""
    return size * 1.2 / 72.0 / MM


def wrap(text: str, width_mm: float, size: float = SMALL, *, bold: bool = False) -> str:
    """The text broken at blanks (within a word where one is too long) into lines that fit a width.

    Args:
        text: the text.
        width_mm: width of a line.
        size: type size in points.
        bold: whether it is printed bold.
    """
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size, bold=bold) <= width_mm:
            lines[-1] = joined
        else:
            lines += _pieces(word, width_mm, size, bold)
    return "\n".join(lines)


@dataclass(frozen=True)
class Lettering:
    """How a text is printed.

    Args:
        size: points.
        weight: "normal" or "bold".
        color: of the text.
    """

    size: float = SMALL
    weight: str = "normal"
    color: str = BLACK


PLAIN, BOLD = Lettering(), Lettering(weight="bold")


def write(
    axes: Axes, x: float, y: float, text: str, lettering: Lettering = PLAIN, *, ha: str = "left", backed: bool = False,
) -> None:
    """Write lines of text on a sheet, their capitals centred on (x, y) mm whatever hangs below them.

    Args:
        axes: a `sheet`.
        x: mm of the left edge, the middle or the right edge.
        y: mm of the middle.
        text: one or more lines.
        lettering: of all lines.
        ha: "left", "center" or "right".
        backed: whether a white ground hides lines that pass behind.
    """
    lines, size = text.split("\n"), lettering.size
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5} if backed else None
    for i, line in enumerate(lines):
        middle = y + line_height(size) * ((len(lines) - 1) / 2.0 - i)
        axes.text(x, middle - _CAPITAL * size / 72.0 / MM / 2.0, line, ha=ha, va="baseline", fontsize=size,
                  weight=lettering.weight, color=lettering.color, bbox=ground, zorder=5)


def number(value: float, digits: int = 6) -> str:
    """A number for print: no needless digits, a true minus sign.

    Args:
        value: the number.
        digits: significant digits at the most.
    """
    return f"{value + 0.0:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A probability in whole percents, never 0 or 100 for what is not certain.

    Args:
        share: 0 to 1, or nan.

    >>> percent(0.7124), percent(0.003), percent(0.998), percent(float("nan"))
    ('71 %', '<1 %', '>99 %', 'not known')
    """
    if share != share:
        return "not known"
    return "<1 %" if share < 0.005 else ">99 %" if share > 0.995 else f"{100 * share:.0f} %"


def interval_text(estimate: Estimate, digits: int) -> str:
    """A value with its interval for print.

    Args:
        estimate: a value with its limits; without limits the value stands alone.
        digits: decimals.

    >>> interval_text(Estimate(0.8184, 0.785, 0.851), 2)
    '0.82 (0.79–0.85)'
    """
    value, low, high = (f"{each:.{digits}f}".replace("-", "\N{MINUS SIGN}")
                        for each in (estimate.value, estimate.low, estimate.high))
    if estimate.low != estimate.low:
        return "not available" if estimate.value != estimate.value else value
    to = " to " if estimate.low < 0 else "\N{EN DASH}"
    return f"{value} ({low}{to}{high})"


def ratio_text(estimate: Estimate) -> str:
    """A hazard ratio with its interval for print; one without an interval, 0 or infinite could not be estimated.

    >>> ratio_text(Estimate(0.0)), ratio_text(Estimate(1.5, 1.1, 2.04))
    ('not estimable', '1.50 (1.10–2.04)')
    """
    known = isfinite(estimate.value) and estimate.value > 0 and estimate.low == estimate.low
    return interval_text(estimate, 2) if known else "not estimable"


def p_text(p: float) -> str:
    """A p value for print.

    >>> p_text(0.00002), p_text(0.0312), p_text(0.412)
    ('P < 0.001', 'P = 0.031', 'P = 0.41')
    """
    if p != p:
        return "P not available"
    if p < 0.001:
        return "P < 0.001"
    return f"P = {p:.3f}" if p < 0.1 else f"P = {p:.2f}"


def spaced(centres: Sequence[float], widths: Sequence[float], order: Iterable[int], gap: float) -> list[int]:
    """Which labels fit beside one another without touching, taken in the order of their importance.

    Args:
        centres: (n,) middle of each label in mm.
        widths: (n,) width of each label in mm.
        order: positions 0 to n - 1, the most important first.
        gap: free space between two labels in mm.

    Returns:
        Positions of those that fit, ascending.
    """
    kept: list[int] = []
    for i in order:
        if all(abs(centres[i] - centres[j]) >= (widths[i] + widths[j]) / 2.0 + gap for j in kept):
            kept.append(i)
    return sorted(kept)


def save(figure: Figure, path: str | Path, *, dpi: int = 300) -> Path:
    """Write a figure as SVG, PDF, PNG, TIFF or JPEG (by the suffix); the same figure gives the same bytes. The path.

    Args:
        figure: the figure.
        path: the file; its suffix gives the format.
        dpi: dots per inch of a PNG, a JPEG, and of pictures in the others.

    Raises:
        StudyError: E-FIGUREFORMAT for another suffix.
    """
    target = Path(path)
    metadata = _METADATA.get(target.suffix.lower())
    if metadata is None:
        raise StudyError(Problem("E-FIGUREFORMAT", "figures are written as other kinds of file", where=target.name,
                                 found=target.suffix or "no suffix", expected=" or ".join(_METADATA)))
    with _DRAWING, mpl.rc_context(_style()):
        if target.suffix.lower() == ".jpg":
            figure.savefig(target, dpi=dpi, pil_kwargs={"quality": 85})
        elif target.suffix.lower() == ".tiff":
            figure.savefig(target, dpi=dpi, pil_kwargs={"compression": "tiff_lzw"})
        else:
            figure.savefig(target, metadata=metadata, dpi=dpi)
    return target


def embedded(figure: Figure, kind: Literal["svg", "png"] = "svg", *, dpi: int = 200) -> str:
    """A figure as a `data:` address for a page that loads nothing; the same figure gives the same text.

    Args:
        figure: the figure.
        kind: "svg" or "png".
        dpi: dots per inch of a PNG, and of pictures in an SVG.
    """
    out = BytesIO()
    with _DRAWING, mpl.rc_context(_style()):
        figure.savefig(out, format=kind, metadata=_METADATA[f".{kind}"], dpi=dpi)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64,{b64encode(out.getvalue()).decode()}"


def _pieces(word: str, width_mm: float, size: float, bold: bool) -> list[str]:
    """A word cut into pieces that fit."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size, bold=bold) > width_mm:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def model_colors(labels: Sequence[str], emphasised: Sequence[str] = ()) -> list[str]:
    """A colour for each model: the emphasised one and the paper's models keep theirs in every figure.

    A score with the stage has the colour of the score. Others take what is left, in order; past eight, colours come
    again and dashes tell the curves apart.

    Args:
        labels: printed names of the models.
        emphasised: those drawn in the emphasised colour.

    Returns:
        One colour for each label, in order.

    >>> model_colors(["Stage", "Other", "MTDLR"])[2] == VERMILLION
    True
    """
    fixed = [VERMILLION if label in emphasised else _MODELS.get(label.split(" + ")[0], "") for label in labels]
    free = [color for color in CYCLE if color not in fixed] or list(CYCLE)
    others = [label for label, color in zip(labels, fixed, strict=True) if not color]
    left = {label: free[k % len(free)] for k, label in enumerate(others)}
    return [color or left[label] for label, color in zip(labels, fixed, strict=True)]


@cache
def _line_width(line: str, size: float, bold: bool) -> float:
    font = FontProperties(family=list(_families()), size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(line, font, ismath=False)
    return float(width) / 72.0 / MM


@cache
def _families() -> tuple[str, ...]:
    """The first of the usual journal typefaces that is installed, then what else has glyphs it lacks."""
    installed = {font.name for font in fontManager.ttflist}
    first = next(name for name in _SANS if name in installed)  # DejaVu Sans comes with matplotlib
    return (first, *(name for name in _OTHER_SCRIPTS if name in installed and name != first))


def _style() -> Any:
    """Matplotlib's settings for one figure."""
    return {
        "font.family": list(_families()), "font.size": NORMAL, "axes.labelsize": NORMAL, "axes.titlesize": NORMAL,
        "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": SMALL, "axes.linewidth": 0.6,
        "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
        "xtick.major.pad": 2.0, "ytick.major.pad": 2.0, "axes.labelpad": 2.5, "lines.linewidth": 1.1,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "legend.handlelength": 2.2,
        "legend.borderaxespad": 0.0, "legend.labelspacing": 0.3, "text.hinting": "none", "text.parse_math": False,
        "axes.unicode_minus": True, "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "mtdlr",
        "savefig.facecolor": "white", "figure.facecolor": "white",
    }
