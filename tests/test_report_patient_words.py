"""The sentences of a patient's page, one number changed at a time; the prediction as JSON, frame and lines."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from one_prediction import card, prediction

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.report import patient_page as module
from mtdlr.report.model_card import ModelCard, model_card
from mtdlr.report.patient_page import (
    bound_words,
    endpoint_words,
    group_words,
    is_outside,
    likeness,
    notices,
    standing_words,
)
from mtdlr.report.prediction import RESEARCH
from mtdlr.shift import Shift, TrainingRisks

RISKS = TrainingRisks((10,) * 10, tuple(np.linspace(-2.0, 2.0, 10)))


def facts(**changes: Any) -> Any:
    """What the sentences read of a prediction."""
    known: dict[str, Any] = {
        "problems": (), "risk": 0.5, "group": "high", "shift": Shift({"together": 0.5}), "lower_bound_months": 12.0,
        "nomogram": SimpleNamespace(endpoint="PFS", months=(36.0, 60.0)), "survival": {}, "uptake": {}, "mask_ml": 10.0,
        "model": "feed", "card": ModelCard("feed", "0.1.0", 120, 29, True, 0.25, {"training": Estimate(0.7, 0.6, 0.8)},
                                           RISKS)} | changes
    return SimpleNamespace(**known)


# ---- sentences -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("endpoint", "words"), [
    ("PFS", ("progression-free survival", "alive without progression")), (" os ", ("overall survival", "alive")),
    ("Overall Survival", ("overall survival", "alive")), ("LRRFS", ("LRRFS", "free of the event")),
    ("DMFS", ("distant metastasis-free survival", "alive without distant metastasis"))])
def test_an_endpoint_is_told_in_full(endpoint: str, words: tuple[str, str]) -> None:
    """Known abbreviations and full names, in any case; another endpoint keeps its own word."""
    assert endpoint_words(endpoint) == words


@pytest.mark.parametrize(("percentile", "begins"), [
    (0.5, "The scan looks like the training scans: 50 % of them"), (0.95, "The scan looks like"),
    (0.991, "The scan lies at the edge of the training scans: 99 %"), (0.9991, "The scan lies outside the training "
                                                                               "scans"),
    (nan, "The model keeps no description")])
def test_likeness_has_three_degrees(percentile: float, begins: str) -> None:
    """Like, at the edge beyond the limit of a warning, outside beyond that of a refusal; unknown is said."""
    assert likeness(facts(shift=Shift({"together": percentile}))).startswith(begins)
    assert likeness(facts(shift=None)).startswith("The model keeps no description")


def test_a_group_is_told_with_its_cut_off() -> None:
    """High is at or above, low below; a true minus sign; without a group or a card there is none."""
    group, meaning = group_words(facts())
    assert group == "High risk" and meaning.startswith("The risk of 0.50 lies at or above the cut-off of 0.25, which "
                                                       "was")
    low, why = group_words(facts(group="low", risk=-0.5))
    assert low == "Low risk" and "The risk of \N{MINUS SIGN}0.50 lies below the cut-off" in why
    for nothing in (facts(group=""), facts(card=None)):
        assert group_words(nothing) == ("", "The model has no cut-off, so it names no risk group.")


def test_close_to_the_cut_off_is_said() -> None:
    """A patient within a twentieth of the training patients of the cut-off is told so; one further away, or in a model
    without risks, is not."""
    assert "close to the cut-off" in group_words(facts(risk=0.26))[1]
    assert "close to the cut-off" not in group_words(facts(risk=1.9))[1]
    bare = replace(facts().card, risks=None)
    assert "close to the cut-off" not in group_words(facts(risk=0.26, card=bare))[1]


@pytest.mark.parametrize(("risk", "words"), [
    (-2.0, "The risk is among the lowest of the 120 training patients."),
    (2.0, "The risk is among the highest of the 120 training patients."), (-9.0, "The risk is among the lowest"),
    (0.0, "About 50 of 100 training patients had a lower risk.")])
def test_the_standing_is_a_share_of_the_training_patients(risk: float, words: str) -> None:
    """Below the lowest and above the highest group a patient is among them; between, a share of 100."""
    assert standing_words(facts(risk=risk)).startswith(words)
    assert standing_words(facts(card=None)) == standing_words(facts(card=replace(facts().card, risks=None))) == ""


@pytest.mark.parametrize(("months", "words"), [
    (12.0, "Lower bound: alive without progression until 12 months at least."), (0.0, "No lower bound above 0 months"),
    (nan, ""), (inf, "")])
def test_a_bound_is_a_sentence_or_nothing(months: float, words: str) -> None:
    """The bound in months with the state of the endpoint; one of 0 says that there is none; an unknown one says
    nothing."""
    assert bound_words(facts(lower_bound_months=months)).startswith(words)
    assert (bound_words(facts(lower_bound_months=months)) == "") == (words == "")


def test_warnings_that_doubt_every_number_come_first() -> None:
    """A scan unlike the training ones comes first, others keep their order; twins are told once, without the row."""
    problems = (Problem("W-UPTAKE", "late", where="row 0, PET"), Problem("W-ROI", "unsure"), Problem("W-SHIFT", "far"),
                Problem("W-UPTAKE", "late", where="PET", patients=("X",)))
    found = notices(facts(problems=problems))
    assert [p.code for p in found] == ["W-SHIFT", "W-UPTAKE", "W-ROI"] and found[1].place == "PET"
    assert not any(p.patients for p in found)


def test_outside_is_what_was_accepted() -> None:
    """A refusal that was accepted makes the page say so; the same warning without the acceptance does not."""
    assert is_outside(facts(problems=(Problem("W-SHIFT", "x", remedy="Accepted on request"),)))
    assert is_outside(facts(problems=(Problem("W-PHYSICAL", "x", remedy="Accepted"),)))
    plain = (Problem("W-SHIFT", "x", remedy="Look"), Problem("W-ROI", "x", remedy="Accepted"))
    assert not is_outside(facts(problems=plain))


def test_survival_is_told_as_a_frequency() -> None:
    """Percents with their interval; 1 to 99 of 100 patients, never none or all; an unknown horizon says why."""
    survival = {12.0: Estimate(0.714, 0.6, 0.8), 24.0: Estimate(0.999), 36.0: Estimate(0.001, 0.0, nan),
                60.0: Estimate(nan)}
    rows = module._horizons(facts(survival=survival), "alive")
    assert rows[0].text == "71\N{NO-BREAK SPACE}%"
    assert rows[0].interval == "60 to 80 %".replace(" ", "\N{NO-BREAK SPACE}")
    assert rows[0].meaning == "Of 100 patients with these values, the model expects about 71 to be alive."
    assert [row.meaning.split("about ")[-1][:2].strip() for row in rows[1:3]] == ["99", "1"]
    assert rows[1].text == ">99\N{NO-BREAK SPACE}%" and rows[1].interval == rows[2].interval == ""
    assert rows[3].text == "not known" and rows[3].meaning == "The training patients were not followed that long."


def test_the_tumour_is_told_in_the_words_of_nuclear_medicine() -> None:
    """Volume, SUVmax, peak and mean in this order, MTV and TLG; an empty mask was not seen."""
    uptake = {"suv_max": 12.34, "suv_peak": 10.0, "suv_mean": 5.55, "mtv_ml_2_5": 20.06, "tlg_g_2_5": 111.4}
    assert module._uptake(facts(uptake=uptake)) == [
        ("Volume of the predicted tumour", "10.0 ml"), ("SUVmax, SUVpeak, SUVmean", "12.3 / 10.0 / 5.5 g/ml"),
        ("MTV and TLG at SUV 2.5 and above", "20.1 ml and 111 g")]
    for none in ({}, uptake | {"suv_max": nan}):
        assert module._uptake(facts(uptake=none)) == [("Predicted tumour", "none was seen")]


def test_the_card_says_how_training_was_scored() -> None:
    """C by cohort; that of training with how it was scored; what is not recorded is said; an update names its
    parent."""
    rows = dict(module._card(facts()))
    assert rows["C-index, training cohort"].startswith("0.70, 95 % interval 0.60 to 0.80 (cross-fitted: by networks")
    assert rows["Trained on"] == "120 patients with 29 events" and rows["Made by"] == "mtdlr 0.1.0"
    own = ModelCard("feed", "", 120, 29, False, c={"external": Estimate(0.6), "training": Estimate(0.8)}, parent="beef")
    bare = dict(module._card(facts(card=own)))
    assert bare["C-index, external validation"] == "0.60" and bare["C-index, training cohort"] == ("0.80 (in sample: "
                                                                                                   "too good)")
    assert bare["Made by"] == "not recorded" and bare["Update of the model"] == "beef"
    assert dict(module._card(facts(card=replace(own, c={}))))["C-index"] == "not recorded in this model"
    assert module._card(facts(card=None)) == [("Model", "feed")]
    assert module._card(facts(card=None, model="")) == [("Model", "not known")]


# ---- the prediction as a value ---------------------------------------------------------------------------------------

def test_json_of_a_prediction_has_no_nan() -> None:
    """An unknown limit, score, bound or cut-off is null, and the note on research is always there."""
    found = prediction(survival={36.0: Estimate(0.7), 60.0: Estimate(nan)}, scores={"deepmts": 0.5, "deepmts_sd": nan},
                       lower_bound_months=nan, card=replace(card(), cutoff=nan, risks=None), uptake={"suv_max": inf})
    own = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert own["survival"] == {"36": {"value": 0.7, "low": None, "high": None},
                               "60": {"value": None, "low": None, "high": None}}
    assert own["scores"]["deepmts_sd"] is None and own["lower_bound_months"] is None and own["note"] == RESEARCH
    assert own["training"]["cutoff"] is None and own["training"]["share_below"] is None
    assert own["uptake"] == {"suv_max": None} and "attribution" not in own


def test_what_is_not_known_has_no_key() -> None:
    """Without a card, a shift or an attribution their keys are missing; with them they are there."""
    assert not {"training", "shift", "attribution"} & set(prediction(card=None, shift=None).as_dict())
    assert {"training", "shift"} <= set(prediction().as_dict())


def test_the_mask_is_measured_in_millilitres() -> None:
    """Voxels of 4 mm are 0.064 ml each."""
    found = prediction()
    assert found.mask_ml == pytest.approx(found.mask.array.sum() * 0.064) == found.as_dict()["mask_ml"]


def test_lines_of_a_terminal_begin_with_warnings() -> None:
    """Each warning, then survival at each horizon with its limits, group, points and the note, a line each."""
    found = prediction(problems=(Problem("W-ROI", "unsure"),), survival={36.0: Estimate(0.714, 0.6, 0.8)}, group="")
    lines = found.summary().splitlines()
    assert lines[0].startswith("W-ROI unsure") and lines[1] == "PFS at 36 months: 71.4 % (60.0-80.0)"
    assert lines[2] == "risk group: none" and lines[3].startswith("points: ") and lines[4] == RESEARCH


def test_a_card_is_read_from_the_models_facts() -> None:
    """C by cohort, null limits as unknown, a cohort without a C left out; versions and parent as far as they are
    kept."""
    known = SimpleNamespace(
        digest="feed", aggregates=None, cutoffs={}, study=SimpleNamespace(score=SimpleNamespace(training="in_sample")),
        facts={"n": 100, "events": "30", "c": {"training": [0.7, None, None], "external": [None, None, None]}})
    found = model_card(known)  # type: ignore[arg-type]
    assert list(found.c) == ["training"] and np.isnan(found.c["training"].low) and np.isnan(found.cutoff)
    assert (found.n, found.events, found.cross_fitted, found.version, found.parent) == (100, 30, False, "", "")
    assert found.as_dict(0.3)["c"] == {"training": [0.7, None, None]} and found.as_dict(0.3)["share_below"] is None
