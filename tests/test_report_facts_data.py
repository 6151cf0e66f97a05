"""Facts of patients, images, masks and features from numbers made up by hand: change the run, and the fact changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import one_study as made
import pandas as pd
import pytest

from mtdlr.errors import Problem
from mtdlr.report.checklist import fill_checklists
from mtdlr.report.facts import FACTS, facts_of
from mtdlr.report.facts_data import feature_classes, image_types
from mtdlr.report.results import Results


@pytest.fixture(scope="module")
def results() -> Results:
    """Six training patients and four external ones."""
    return made.results()


def told(results: Results, name: str) -> str:
    """The value of one fact."""
    return FACTS[name][2](results)


# ---- patients --------------------------------------------------------------------------------------------------------

def test_patients_and_events_are_counted_by_cohort(results: Results) -> None:
    """Patients and events of every cohort, in order; Table 1 is named with them."""
    assert told(results, "patients") == ("training cohort 6 patients, 3 events; external validation cohort 4 patients, "
                                         "2 events")
    assert told(results, "characteristics") == f"Table 1: {told(results, 'patients')}"
    assert told(results, "split") == f"by random, seed 0: {told(results, 'patients')}"
    given = made.results({"cohort": {"split": "center", "seed": 7}})
    assert told(given, "split").startswith("by center, seed 7: ")


def test_centres_are_counted_in_the_order_of_their_names(results: Results) -> None:
    """Two centres are a multicentre study; one is not, and is in the singular."""
    assert told(results, "centres") == told(results, "multicentre") == "2 centres: A 6, B 4"
    one = made.results(rows=made.table().assign(center="A"))
    assert told(one, "centres") == "1 centre: A 10" and told(one, "multicentre") == ""


def test_follow_up_is_the_reverse_median(results: Results) -> None:
    """The median of censoring, by hand: 4/5 at 4 months, 4/5 of 2/3 at 8, 0 at 14; outside a half from 9 to 13 months.
    Where everybody has the event it is not reached."""
    assert told(results, "follow_up").endswith("training cohort 14.0, external validation cohort 11.0")
    everybody = made.results(rows=made.table().assign(event=True))
    assert told(everybody, "follow_up").endswith("training cohort not reached, external validation cohort not reached")


def test_censoring_is_the_share_without_the_event(results: Results) -> None:
    """3 of 6 and 2 of 4 are a half each; with one event fewer outside it is three quarters there."""
    assert told(results, "censoring").startswith("censored: training cohort 50%, external validation cohort 50%;")
    fewer = made.table()
    fewer.loc["X1", "event"] = False
    assert "external validation cohort 75%" in told(made.results(rows=fewer), "censoring")


def test_who_was_left_out_is_counted_by_code(results: Results) -> None:
    """Errors count, warnings do not; without errors nobody was left out."""
    assert told(results, "left_out") == "10 patients analysed; left out by code: none"
    problems = (Problem("E-SUV", "x"), Problem("E-GRID", "x"), Problem("E-SUV", "y"), Problem("W-ROI", "z"))
    found = replace(results, problems=problems)
    assert told(found, "left_out") == "10 patients analysed; left out by code: E-GRID 1, E-SUV 2"
    assert told(found, "warnings") == "codes raised: E-GRID 1, E-SUV 2, W-ROI 1"
    assert told(results, "warnings") == "codes raised: none"


def test_missing_values_are_counted_by_column(results: Results) -> None:
    """One age, one stage (which is imputed) and one treatment are missing; a column that the table lacks is not
    told."""
    assert told(results, "missing") == ("missing values of 3 columns: age 1, tnm 1, ic 1; 1 values of tnm imputed for "
                                        "the "
                                        "nomograms, other columns complete case")
    whole = made.results({"cohort": {"continuous": ["age", "weight"]}},
                         rows=made.table().assign(age=50.0, tnm="III", ic=1.0))
    assert told(whole, "missing").startswith("missing values of 3 columns: none; 0 values of tnm")


def test_treatments_are_counted_among_those_of_whom_they_are_known(results: Results) -> None:
    """Five of the nine known had it; without described columns there is no such fact."""
    assert told(results, "treatments") == "ic 5 of 9"
    assert told(made.results({"cohort": {"described": []}}), "treatments") == ""


def test_differences_need_both_cohorts(results: Results) -> None:
    """Event-free shares and the standardised difference of age: the pooled-SD difference of means, training
    less outside; a constant column has none, and one cohort has no differences."""
    training, outside = np.array([40.0, 50, 60, 45, 55, 65]), np.array([70.0, 60, 50])
    expected = (training.mean() - outside.mean()) / np.sqrt((training.var(ddof=1) + outside.var(ddof=1)) / 2)
    found = told(results, "differences")
    assert found.startswith("event-free 50% in training, 50% outside; standardised differences: age ")
    assert float(found.rsplit(" ", 1)[1]) == pytest.approx(expected, abs=0.005)
    assert told(made.results(rows=made.table()[:6]), "differences") == ""
    assert told(made.results(rows=made.table().assign(age=50.0)), "differences").endswith("differences: ")


# ---- images, masks and features --------------------------------------------------------------------------------------

def test_without_images_nothing_is_said_of_them(results: Results) -> None:
    """No prepared patient, no mask, no network: their facts are empty, and the items that need them stay open."""
    names = ("acquisition", "scan_dates", "preparation", "automatic", "mask_overlap", "blind", "network", "training",
             "explained", "pipeline")
    assert {told(results, name) for name in names} == {""}
    items = {(i.checklist, i.number): i.status for i in fill_checklists(facts_of(results), {})}
    assert items["CLEAR", "21"] == "yours" and items["METRICS", "17"] == "not applicable"


def test_preparation_names_grid_and_intensities(results: Results) -> None:
    """Size, voxel, CT window, PET scaling, region and alignment are those of the settings."""
    own = {"size": 96, "spacing_mm": 2.5, "ct_window_hu": [-200, 300], "pet_scaling": "zscore", "roi": "center",
           "alignment": "rigid"}
    found = made.results({"prepare": own}, prepared={"P1": Path("a"), "P2": Path("b")})
    assert told(found, "preparation") == ("2 patients on 96 cubed voxels of 2.5 mm, CT -200 to 300 HU, PET zscore, "
                                          "region "
                                          "center, alignment rigid")


def test_masks_are_told_with_their_threshold() -> None:
    """Threshold and smallest part are the settings'; in-sample scores were not blind to the outcome."""
    scored = {"P1": Path("a"), "P2": Path("b"), "P3": Path("c")}
    own = made.results({"score": {"mask_threshold": 0.4, "min_component_ml": 2.5}}, scored=scored)
    assert told(own, "automatic") == ("masks of 3 patients by DeepMTS, probability above 0.4, parts under 2.5 ml "
                                      "dropped, "
                                      "no operator")
    assert told(own, "blind").startswith("masks, scores and features of 3 patients were computed by networks that had "
                                         "not")
    assert told(made.results({"score": {"training": "in_sample"}}, scored=scored), "blind") == ""


def test_mask_overlap_is_that_of_the_scores(results: Results, tmp_path: Path) -> None:
    """Dice and distance of the patients with a manual mask, by cohort; without predicted parameters nothing."""
    for i, dice in zip(results.cohort.ids, np.linspace(0.5, 0.95, 10), strict=True):
        made.write_json(tmp_path / i, "score.json", json.dumps({"agreement": {
            "dice": dice, "hausdorff95_mm": 4.0, "volume_ml": 11.0, "reference_ml": 10.0}}))
    found = replace(results, scored={i: tmp_path / i for i in results.cohort.ids})
    first, second = told(found, "mask_overlap").split("; ")
    assert first == "training cohort: 6 patients, Dice 0.625 (0.562 to 0.688), HD95 4.0 (4.0 to 4.0) mm"
    assert second.startswith("external validation cohort: 4 patients, Dice 0.875")
    assert told(replace(found, pet_parameters={"manual": found.pet_parameters["manual"]}), "mask_overlap") == ""


def test_features_are_counted_by_source_class_and_image(results: Results) -> None:
    """Names are modality, image, class and feature: the class is last but one, what stands before it is the image."""
    assert told(results, "features") == ("2 features in the auto masks, 2 features in the manual masks (profile "
                                         "paper1456)")
    assert told(results, "feature_tables") == "auto: 10 x 2, manual: 10 x 2"
    assert feature_classes(results) == "glcm 1, shape 1" and image_types(results) == "ct_original 1, pet_original 1"
    names = ["pet_wavelet-LLH_glcm_Contrast", "pet_wavelet-LLH_glcm_Energy", "ct_log-sigma-2_ngtdm_Busyness", "plain"]
    more = replace(results, features={"auto": pd.DataFrame(np.zeros((1, 4)), columns=names)})
    assert told(more, "feature_classes") == "glcm 2, ngtdm 1"
    assert told(more, "image_types") == "ct_log-sigma-2 1, pet_wavelet-LLH 2"
    none = replace(results, features={})
    assert [told(none, name) for name in ("features", "feature_classes", "image_types", "resampling", "discretisation",
                                          "feature_tables")] == [""] * 6


def test_voxels_and_bins_are_those_of_the_settings() -> None:
    """Each number of the settings stands in its sentence, and the perturbations only where there were some."""
    own = made.results({"radiomics": {"spacing_mm": 1.5, "pet_bin_width": 0.3, "ct_bin_width": 20, "perturbations": 3},
                        "signature": {"min_icc": 0.8}})
    assert told(own, "resampling") == "features on voxels of 1.5 mm"
    assert told(own, "discretisation") == "fixed bins: PET 0.3 g/ml, CT 20 HU"
    assert told(own, "robustness") == ("3 perturbations a training patient; features with a lower ICC limit under 0.8 "
                                       "removed")
    assert told(made.results(), "robustness") == ""
