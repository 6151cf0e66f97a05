"""The printed page: numbers as text, texts that fit, labels that do not touch, colours that stay with their model."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from mtdlr.errors import StudyError
from mtdlr.estimate import Estimate
from mtdlr.report.figures.page import (
    CYCLE,
    FORMATS,
    MM,
    NORMAL,
    SMALL,
    VERMILLION,
    WIDTH_MM,
    Lettering,
    drawn,
    embedded,
    interval_text,
    line_height,
    model_colors,
    number,
    p_text,
    page,
    panel,
    percent,
    ratio_text,
    save,
    sheet,
    spaced,
    text_width,
    wrap,
    write,
)

NAN, INF = float("nan"), float("inf")
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (-0.0, "0"), (1.50, "1.5"), (-2.25, f"{MINUS}2.25"), (1234567.0, "1.23457e+06"), (1e-7, f"1e{MINUS}07"),
    (100.0, "100")])
def test_numbers_have_no_needless_digits(value: float, text: str) -> None:
    """A zero has no sign, a negative number a true minus sign, and six digits are enough."""
    assert number(value) == text


def test_digits_are_significant_digits() -> None:
    """`digits` counts from the first digit that is not zero."""
    assert [number(0.0123456, digits) for digits in (1, 2, 3)] == ["0.01", "0.012", "0.0123"]


@pytest.mark.parametrize(("share", "text"), [
    (0.0, "<1 %"), (0.0049, "<1 %"), (0.0051, "1 %"), (0.5, "50 %"), (0.994, "99 %"), (0.9951, ">99 %"),
    (1.0, ">99 %"), (NAN, "not known")])
def test_nothing_is_certain(share: float, text: str) -> None:
    """A probability is never printed as 0 or 100 % where it is beyond the last whole percent."""
    assert percent(share) == text


@pytest.mark.parametrize(("estimate", "text"), [
    (Estimate(0.8184, 0.785, 0.851), f"0.82 (0.79{DASH}0.85)"), (Estimate(0.5), "0.50"),
    (Estimate(NAN), "not available"), (Estimate(0.1, -0.2, 0.4), f"0.10 ({MINUS}0.20 to 0.40)"),
    (Estimate(-0.3, -0.5, -0.1), f"{MINUS}0.30 ({MINUS}0.50 to {MINUS}0.10)")])
def test_intervals_can_be_read(estimate: Estimate, text: str) -> None:
    """Two limits have a dash between them, or `to` where a dash would look like a minus."""
    assert interval_text(estimate, 2) == text


@pytest.mark.parametrize("estimate", [Estimate(0.0, 0.0, 1.0), Estimate(INF, 1.0, INF), Estimate(2.0), Estimate(NAN)])
def test_a_ratio_that_is_not_known_is_not_printed(estimate: Estimate) -> None:
    """A hazard ratio of 0, of infinity or without an interval is `not estimable`."""
    assert ratio_text(estimate) == "not estimable"


@pytest.mark.parametrize(("p", "text"), [
    (0.0, "P < 0.001"), (0.00099, "P < 0.001"), (0.001, "P = 0.001"), (0.0999, "P = 0.100"), (0.1, "P = 0.10"),
    (1.0, "P = 1.00"), (NAN, "P not available")])
def test_p_values_have_the_journals_digits(p: float, text: str) -> None:
    """Three decimals below 0.1, two above, and nothing smaller than 0.001."""
    assert p_text(p) == text


def test_text_is_as_wide_as_its_longest_line() -> None:
    """Width grows with the letters and with the size, and of several lines the longest counts."""
    assert text_width("") == 0.0
    assert text_width("iii") < text_width("mmm")
    assert text_width("a\nmmm\nb") == text_width("mmm")
    assert text_width("mmm", 2 * SMALL) == pytest.approx(2 * text_width("mmm", SMALL), rel=0.02)
    assert text_width("mmm", bold=True) > text_width("mmm")


def test_a_line_is_a_fifth_higher_than_its_type() -> None:
    """10 points of type stand on 12 points of line: 4.23 mm."""
    assert line_height(10.0) == pytest.approx(12.0 / 72.0 * 25.4)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.text("abcm", min_size=1, max_size=30), min_size=1, max_size=6), st.floats(8.0, 40.0))
def test_wrapped_text_keeps_every_letter_and_fits(words: list[str], width: float) -> None:
    """No letter is lost, their order is kept, and no line of more than one letter is wider than allowed."""
    text = " ".join(words)
    lines = wrap(text, width).split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(text_width(line) <= width or len(line) == 1 for line in lines)


def test_a_word_is_kept_whole_where_it_fits() -> None:
    """Lines break at blanks before they break within a word."""
    assert wrap("tumour volume", text_width("tumour volume")) == "tumour volume"
    assert wrap("tumour volume", text_width("tumour vo")) == "tumour\nvolume"
    assert "\n" in wrap("heterogeneity", text_width("hetero"))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 20)), min_size=1, max_size=12), st.randoms())
def test_labels_that_are_kept_do_not_touch(labels: list[tuple[float, float]], random) -> None:  # type: ignore[no-untyped-def]
    """Between any two kept labels lies the gap; the most important one is always kept; one left out had no room."""
    centres, widths = zip(*labels, strict=True)
    order = list(range(len(labels)))
    random.shuffle(order)
    kept = spaced(centres, widths, order, 1.0)
    assert order[0] in kept and kept == sorted(kept)

    def apart(i: int, j: int) -> bool:
        return abs(centres[i] - centres[j]) >= (widths[i] + widths[j]) / 2 + 1.0

    assert all(apart(i, j) for i in kept for j in kept if i < j)
    assert all(any(not apart(i, j) for j in kept) for i in order if i not in kept)


def test_a_score_and_its_nomogram_share_a_colour() -> None:
    """A model keeps its colour beside any other, with the stage and without; the emphasised one stands out."""
    labels = ["DeepMTS", "Stage", "SingleTask + stage", "SingleTask"]
    deep, stage, with_stage, alone = model_colors(labels)
    assert with_stage == alone and len({deep, stage, alone}) == 3
    assert model_colors(["SingleTask"]) == [alone]
    assert model_colors(labels, emphasised=["Stage"])[1] == VERMILLION


def test_models_nobody_knows_take_what_is_left() -> None:
    """Others get colours that no named model of the figure has, in order, and begin again after the last."""
    labels = ["MTDLR", *(f"other {k}" for k in range(9))]
    main, *others = model_colors(labels)
    assert main == VERMILLION and VERMILLION not in others
    assert len(set(others)) == len(CYCLE) - 1 and others[len(CYCLE) - 1] == others[0]


@pytest.mark.parametrize("width", ["single", "double"])
def test_a_panel_lies_where_it_was_put(width) -> None:  # type: ignore[no-untyped-def]
    """A page has the journal's width; a panel's corners are where they were asked for, in mm."""
    figure = page(width, 60.0)
    assert figure.get_size_inches() / MM == pytest.approx([WIDTH_MM[width], 60.0])
    box = panel(figure, 12.0, 10.0, 50.0, 40.0).get_position()
    size = np.array([WIDTH_MM[width], 60.0])
    assert np.array([box.x0, box.y0]) * size == pytest.approx([12.0, 10.0])
    assert np.array([box.width, box.height]) * size == pytest.approx([50.0, 40.0])


def test_a_sheet_is_measured_in_millimetres() -> None:
    """A sheet's axes run from its lower left corner to the width and height of the page."""
    axes = sheet(page("single", 33.0))
    assert axes.get_xlim() == pytest.approx((0.0, 84.0)) and axes.get_ylim() == pytest.approx((0.0, 33.0))
    assert not axes.axison


def test_lines_are_centred_on_their_place() -> None:
    """Three lines are written one line height apart, the middle one's capitals centred on the place."""
    figure = page("single", 40.0)
    axes = sheet(figure)
    write(axes, 10.0, 20.0, "one\ntwo\nthree", Lettering(NORMAL), backed=True)
    found = [text.get_position()[1] for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["one", "two", "three"]
    assert np.diff(found) == pytest.approx([-line_height(NORMAL)] * 2)
    figure.canvas.draw()
    box = axes.texts[1].get_window_extent()
    middle = axes.transData.inverted().transform((box.x0, (box.y0 + box.y1) / 2))
    assert middle == pytest.approx([10.0, 20.0], abs=0.8)
    assert axes.texts[0].get_bbox_patch() is not None


def _figure() -> Figure:
    axes = panel(figure := page("single", 30.0), 10.0, 8.0, 60.0, 18.0)
    axes.plot([0.0, 1.0], [0.0, 1.0])
    return figure


def test_the_house_style_is_gone_after_drawing() -> None:
    """A drawing function sees the house style, and matplotlib's own settings are as before."""
    before = mpl.rcParams["axes.linewidth"]

    @drawn
    def probe() -> Figure:
        assert mpl.rcParams["axes.linewidth"] == 0.6 != before
        return _figure()

    assert isinstance(probe(), Figure) and mpl.rcParams["axes.linewidth"] == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [*FORMATS, ".jpg", ".tiff"])
def test_every_format_begins_as_its_kind_does(suffix: str, tmp_path: Path) -> None:
    """Each kind of file is what its name says, in upper case too, and names no date."""
    first = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".tiff": b"II*\0"}[suffix]
    path = save(_figure(), tmp_path / f"a{suffix}", dpi=60)
    assert path.read_bytes().startswith(first)
    assert save(_figure(), tmp_path / f"b{suffix.upper()}", dpi=60).read_bytes().startswith(first)
    assert not re.search(rb"CreationDate|<dc:date>", path.read_bytes())


@pytest.mark.parametrize("name", ["a.gif", "a", "a.svg.exe"])
def test_an_unknown_format_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """The error names the suffix and the formats that can be written; nothing is."""
    with pytest.raises(StudyError) as caught:
        save(_figure(), tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.code == "E-FIGUREFORMAT" and all(suffix in problem.expected for suffix in FORMATS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "mime"), [("svg", "image/svg+xml"), ("png", "image/png")])
def test_an_embedded_figure_is_the_file(kind, mime: str) -> None:  # type: ignore[no-untyped-def]
    """A figure as an address holds its file, and twice the same figure is twice the same text."""
    text = embedded(_figure(), kind, dpi=60)
    head, _, data = text.partition(",")
    assert head == f"data:{mime};base64" and text == embedded(_figure(), kind, dpi=60)
    assert base64.b64decode(data)[:5] in (b"<?xml", b"\x89PNG\r")
