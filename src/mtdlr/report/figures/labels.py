"""Where the labels of a nomogram's axis go, so that none touches another whatever the lengths and the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtdlr.nomogram.axes import runs_back
from mtdlr.report.figures.page import SMALL, line_height, spaced, text_width, wrap

GAP = 1.1  # mm between neighbouring labels
TICK = 1.3  # mm
_SAME = 0.3  # mm within which two levels stand on one tick
_NEAR = 0.4  # mm a label that stands to one side of its tick reaches over it
_SHARE = 0.4  # of the axis that a line of a label may take
_LANES = 2  # per side, before labels become a staircase


@dataclass(frozen=True)
class Label:
    """A text beside an axis.

    Args:
        tick: mm along the page of what it names.
        left: mm of its left edge.
        text: one or more lines.
        side: -1 below the axis, 1 above.
        lane: 0 next to the axis, then outwards.
        align: how its lines stand under one another, "center", "left" or "right".
    """

    tick: float
    left: float
    text: str
    side: int
    lane: int
    align: str = "center"

    @property
    def anchor(self) -> float:
        """mm at which its lines are aligned."""
        share = {"left": 0.0, "center": 0.5, "right": 1.0}[self.align]
        return self.left + share * text_width(self.text)

    @property
    def right(self) -> float:
        """mm of the right edge."""
        return self.left + text_width(self.text)

    @property
    def height(self) -> float:
        """mm."""
        return line_height() * (self.text.count("\n") + 1)


def level_labels(
    ticks: Sequence[float], texts: Sequence[str], low: float, high: float, sides: Sequence[int] = (-1, 1)
) -> list[Label]:
    """Every text beside its tick: in lanes below and above the axis, else as a staircase.

    Args:
        ticks: (n,) places along the axis in mm.
        texts: (n,) labels.
        low: left limit of the labels in mm.
        high: right limit of the labels in mm.
        sides: -1 below the axis, 1 above it, the preferred side first.
    """
    marks = _merged(ticks, texts)
    placed: list[Label] = []
    for tick, text in marks:
        lines = wrap(text, _SHARE * (high - low))
        width = text_width(lines)
        places = [min(max(left, low), max(high - width, low))
                  for left in (tick - width / 2.0, tick - _NEAR, tick - width + _NEAR)]
        options = (Label(tick, left, lines, side, lane) for lane in range(_LANES) for side in sides for left in places)
        free = next((label for label in options if not any(_conflict(label, other) for other in placed)), None)
        if free is None:
            return _staircase(marks, low, high, sides)
        placed.append(free)
    return placed


def number_labels(
    ticks: Sequence[float], texts: Sequence[str], low: float, high: float, side: int = -1
) -> list[Label]:
    """As many of the numbers at evenly spaced values as fit, beside an axis with even ticks.

    Args:
        ticks: (n,) places along the axis in mm, ascending.
        texts: (n,) numbers as text.
        low: left limit of the labels in mm.
        high: right limit of the labels in mm.
        side: -1 below the axis, 1 above it.
    """
    widths = [text_width(text) for text in texts]
    zero = next((i for i, text in enumerate(texts) if text == "0"), 0)
    for stride in (1, 2, 5, 10, 20, 50):
        kept = [i for i in range(len(ticks)) if (i - zero) % stride == 0]
        if len(kept) > 1 and len(spaced(ticks, widths, kept, GAP)) == len(kept):
            return [_centred(ticks[i], texts[i], side, low, high) for i in kept]
    return level_labels([ticks[0], ticks[-1]], [texts[0], texts[-1]], low, high, (side,))


def ranked_labels(
    ticks: Sequence[float], texts: Sequence[str], order: Sequence[int], low: float, high: float
) -> list[Label]:
    """As many numbers as fit, in the order of their importance, beside a curved axis; where it turns back, below as it
    runs to the right and above as it runs to the left.

    Args:
        ticks: (n,) places along the axis in mm.
        texts: (n,) numbers as text.
        order: positions 0 to n - 1, the most important first.
        low: left limit of the labels in mm.
        high: right limit of the labels in mm.
    """
    side = [1 if back else -1 for back in runs_back(ticks)]
    widths = [text_width(text) for text in texts]
    return [_centred(ticks[i], texts[i], place, low, high) for place in (-1, 1)
            for i in spaced(ticks, widths, [i for i in order if side[i] == place], GAP)]


def _centred(tick: float, text: str, side: int, low: float, high: float) -> Label:
    width = text_width(text, SMALL)
    return Label(tick, min(max(tick - width / 2.0, low), max(high - width, low)), text, side, 0)


def _merged(ticks: Sequence[float], texts: Sequence[str]) -> list[tuple[float, str]]:
    """Ticks from left to right; texts on one spot joined."""
    marks: list[tuple[float, str]] = []
    for tick, text in sorted(zip(ticks, texts, strict=True), key=lambda mark: mark[0]):
        if marks and tick - marks[-1][0] < _SAME:
            marks[-1] = (marks[-1][0], f"{marks[-1][1]}, {text}")
        else:
            marks.append((tick, text))
    return marks


def _conflict(a: Label, b: Label) -> bool:
    """Whether two labels on one side touch, or the leader of the outer one crosses the inner one."""
    if a.side != b.side:
        return False
    if a.lane == b.lane:
        return a.left < b.right + GAP and b.left < a.right + GAP
    inner, outer = (a, b) if a.lane < b.lane else (b, a)
    return inner.left - GAP / 2.0 < outer.tick < inner.right + GAP / 2.0


def _staircase(marks: list[tuple[float, str]], low: float, high: float, sides: Sequence[int]) -> list[Label]:
    """One lane per label: the outer ones start further to the left (or end further to the right), so that no leader
    crosses a label; labels take the sides in turn."""
    placed = []
    rightward = sum(high - tick for tick, _ in marks) >= sum(tick - low for tick, _ in marks)
    for turn, side in enumerate(sides):
        mine = marks[turn :: len(sides)]
        ordered = mine[::-1] if rightward else mine
        for lane, (tick, text) in enumerate(ordered):
            lines = wrap(text, 0.9 * (high - tick if rightward else tick - low))
            width = text_width(lines)
            left = tick - _NEAR if rightward else tick - width + _NEAR
            placed.append(Label(tick, max(min(left, high - width), low), lines, side, lane,
                                "left" if rightward else "right"))
    return placed
