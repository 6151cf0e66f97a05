"""Facts of models and results from numbers made up by hand: change what the run did, and fact and hash change."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import one_study as made
import pytest
from scipy.stats import spearmanr

from mtdlr.associate import Associations
from mtdlr.estimate import Estimate
from mtdlr.evaluate.appraise import Subgroup
from mtdlr.evaluate.arms import Arm
from mtdlr.report.facts import FACTS, KEY_LENGTH, facts_of, review_facts
from mtdlr.report.results import Results
from mtdlr.report.summary import Judged


@pytest.fixture(scope="module")
def results() -> Results:
    """Six training patients and four external ones."""
    return made.results()


def told(results: Results, name: str) -> str:
    """The value of one fact."""
    return FACTS[name][2](results)


def with_main(results: Results, split: str, **changes: Any) -> Results:
    """The same study with another evaluation of the nomogram in one cohort."""
    known = {**results.findings.evaluations, ("mtdlr", split): made.evaluation("mtdlr", split, **changes)}
    return replace(results, findings=replace(results.findings, evaluations=known))


# ---- models ----------------------------------------------------------------------------------------------------------

def test_networks_and_their_training(tmp_path: Path) -> None:
    """How many of each network, its width, loss and seed; the fewest and most epochs that the logs hold."""
    for name, epochs in (("a", 3), ("b", 5)):
        made.write_json(tmp_path / name, "log.csv", "epoch,dice\n" + "1,0.5\n" * epochs)
    networks = {"deepmts": (tmp_path / "a", tmp_path / "b"), "no-mask": (tmp_path / "gone",)}
    own = made.results({"deepmts": {"width": 0.5, "survival_loss": "cox-efron", "epochs": 9, "batch_size": 4,
                                    "learning_rate": 0.002}, "score": {"seed": 5}}, model=made.model(networks=networks))
    assert told(own, "network") == "deepmts x 2, no-mask x 1; width 0.5, cox-efron, seed 5"
    assert told(own, "training") == ("at most 9 epochs of batches of 4, peak rate 0.002; 3 to 5 epochs trained; loss "
                                     "curves shown")
    unlogged = made.results(model=made.model(networks={"deepmts": (tmp_path / "gone",)}))
    assert told(unlogged, "training") == "" != told(unlogged, "network")


def test_cross_fitting_is_told_as_it_was_cut() -> None:
    """Folds with their seed, centres left out one at a time, or nothing for in-sample scores, which are then no
    internal validation either, unless there is an internal cohort."""
    assert told(made.results({"score": {"folds": 7, "seed": 3}}), "folds") == "7-fold cross-fitting, seed 3"
    assert told(made.results({"score": {"folds": "center"}}), "folds").startswith("leave-one-centre-out cross-fitting")
    sample = {"score": {"training": "in_sample"}}
    assert told(made.results(sample), "folds") == told(made.results(sample), "internal_performance") == ""
    rows = made.table().assign(split=["training"] * 6 + ["internal"] * 4)
    internal = told(made.results(sample, rows=rows), "internal_performance")
    assert internal == ("training cohort C 0.720 (0.660-0.780); internal validation cohort C 0.720 (0.660-0.780)")


def test_signatures_are_told_with_what_they_chose(results: Results) -> None:
    """Candidates, penalty, features kept, how often each is chosen, and what was scaled."""
    own = "auto: 900 candidates, lasso penalty 0.04321, 2 kept; manual: 900 candidates, lasso penalty 0.04321, 2 kept"
    assert told(results, "selection") == own
    assert told(results, "stability").startswith("auto: pet_original_glcm_Contrast 80%, ct_original_shape_Volume 55%; "
                                                 "man")
    assert told(results, "signature") == "auto: 2 features; manual: 2 features"
    assert told(results, "scaling").endswith("features {'auto': 2, 'manual': 2}, 3 network scales")
    assert told(results, "candidates") == "900 features by lasso, 2 clinical columns"
    empty = made.results(model=made.model(signatures={"auto": made.signature(features=(), n_candidates=12)}))
    assert told(empty, "stability") == "" and told(empty, "selection") == ("auto: 12 candidates, lasso penalty "
                                                                           "0.04321, 0 kept")
    assert told(made.results(model=made.model(signatures={})), "candidates") == ""


def test_coding_names_levels_and_units(results: Results) -> None:
    """Factors stand with their levels, continuous columns per unit."""
    assert told(results, "coding") == "tnm (III, IVa); age per unit"


def test_the_nomogram_is_told_by_its_coefficients(results: Results) -> None:
    """Each variable with its log hazard and sign; events per parameter are those of training; the digest is the
    model's."""
    assert told(results, "nomogram") == "tnm=IVa +0.500, auto_radio +0.750, deepmts -0.250"
    assert told(results, "events_per_parameter") == "1.0 events per parameter of the nomogram (3)"
    assert told(results, "model") == told(results, "calculator") == "frozen model 0123456789abcdef"


def test_the_sample_size_is_asked_for_both_counts(results: Results) -> None:
    """Riley's criteria are told for the nomogram's parameters and for the candidates; without an event they cannot
    be."""
    found = told(results, "sample_size")
    assert found.startswith("6 patients; the criteria of Riley et al. ask for ") and " for 3 parameters, " in found
    assert " for 900 parameters (R2 of 15 %" in found
    assert told(made.results(rows=made.table().assign(event=False)), "sample_size") == ""
    assert "900" not in told(made.results(model=made.model(signatures={})), "sample_size")


def test_the_cut_off_is_that_of_training(results: Results) -> None:
    """The frozen cut-off, or nothing where training could not be split."""
    assert told(results, "cutoff") == "log hazard 0.250, Youden's index in the training cohort"
    assert told(with_main(results, "training", groups=None), "cutoff") == ""


# ---- results ---------------------------------------------------------------------------------------------------------

def test_performance_is_told_by_cohort(results: Results) -> None:
    """C of the nomogram in every cohort; the external one with its patients and events."""
    other = with_main(results, "external", c=Estimate(0.6, 0.5, 0.7), n=44, n_events=12)
    assert told(other, "performance") == ("training cohort C 0.720 (0.660-0.780); external validation cohort C 0.600 "
                                          "(0.500-0.700)")
    assert told(other, "external") == "44 patients, 12 events, C 0.600 (0.500-0.700)"
    assert told(made.results(rows=made.table()[:6]), "external") == ""


def test_calibration_is_told_where_it_is_known(results: Results) -> None:
    """Each cohort and horizon with O/E and slope; a horizon without an estimate is left out."""
    found = told(results, "calibration").split("; ")
    assert len(found) == 4
    assert found[0] == "training cohort 6 months O/E 1.100 (0.900-1.300), slope 0.900 (0.600-1.200)"
    blind = {6.0: made.calibration(6.0, Estimate(nan)), 12.0: made.calibration(12.0)}
    assert len(told(with_main(results, "training", calibration=blind), "calibration").split("; ")) == 3


def test_the_comparison_is_the_paired_one(results: Results) -> None:
    """The difference from the stage with its sign and P, by cohort; none where none was computed."""
    assert told(results, "comparison") == ("training cohort C +0.080 against the stage, P 0.011; external validation "
                                           "cohort "
                                           "C +0.080 against the stage, P 0.011")
    for nothing in (None, Estimate(nan)):
        assert told(with_main(results, "training", concordance_vs_stage=nothing), "comparison").startswith("external")
    assert told(results, "simple_models").startswith("Stage training cohort C 0.720 (0.660-0.780); Stage external")


def test_arms_are_facts_where_they_were_fitted(results: Results) -> None:
    """A modality alone with its C and what the full signature has more; without arms no such fact."""
    arm = Arm("auto", "PET", "external", 400, 3, Estimate(0.61, 0.5, 0.72), Estimate(0.05, -0.01, 0.11))
    assert told(replace(results, arms=(arm,)), "arms") == (
        "auto PET alone, external validation cohort C 0.610 (0.500-0.720), full less it 0.050 (-0.010 to 0.110)")
    assert told(results, "arms") == ""


def test_measures_are_those_of_the_settings() -> None:
    """Each setting of `evaluate` stands in the sentence on how models were judged."""
    own = {"comparison": "bootstrap", "roc": "status", "calibration_test": "hl_binary", "group_hr": "logrank_oe"}
    found = told(made.results({"evaluate": own}), "measures")
    assert all(f"({value})" in found for value in own.values())
    assert "(compareC)" in told(made.results(), "measures") and "(gnd)" in told(made.results(), "measures")


def test_the_risk_is_compared_with_the_volume(results: Results) -> None:
    """Spearman's correlation with the manual volume, as SciPy has it; nothing below five pairs, for a constant risk, or
    without a manual volume."""
    volume = results.pet_parameters["manual"]["mtv_ml_2_5"].sample(frac=1.0, random_state=3).to_numpy()
    manual = results.pet_parameters["manual"].assign(mtv_ml_2_5=volume)
    expected = spearmanr(results.findings.risks["mtdlr"], volume)
    found = replace(results, pet_parameters={"manual": manual})
    assert told(found, "volume_correlation").startswith(
        f"rank correlation of the MTDLR risk with MTV {expected.statistic:.2f} (P ")
    few = manual.assign(mtv_ml_2_5=np.where(np.arange(10) < 4, volume, nan))
    assert told(replace(results, pet_parameters={"manual": few}), "volume_correlation") == ""
    assert told(replace(results, pet_parameters={"manual": manual.assign(mtv_ml_2_5=5.0)}), "volume_correlation") == ""
    assert told(replace(results, pet_parameters={}), "volume_correlation") == ""


def test_limits_are_few_events_one_centre_and_no_outside(results: Results) -> None:
    """What is small is told; with two centres and an external cohort only the events are."""
    assert told(results, "limits") == "3 events in the training cohort; 2 events in the external validation cohort"
    alone = made.results(rows=made.table()[:6])
    assert told(alone, "limits") == "3 events in the training cohort; one centre; no external cohort"


def test_separated_levels_are_named_once(results: Results) -> None:
    """A level with Firth's ratio in both tables is named once; without one the fact is empty."""
    one = made.association("t", "T", "training", penalised=("T4",))
    score = made.association("s", "Score", "training", penalised=("",))
    found = replace(results, associations=Associations((one, score), (one,)))
    assert told(found, "separated") == "T T4, Score" and told(results, "separated") == ""


def test_competing_events_are_counted_by_cohort(results: Results) -> None:
    """Causes above 1 are competing; a study without causes has no such fact."""
    causes = made.table().assign(cause=[1, 2, 1, 0, 1, 3, 1, 1, 0, 0])
    found = made.results(rows=causes)
    assert told(found, "competing") == "2 in the training cohort, 0 in the external validation cohort"
    assert told(results, "competing") == ""


def test_settings_name_what_was_changed() -> None:
    """Only what differs from the defaults is named, by section; the preset stands first."""
    found = told(made.results({"cohort": {}, "radiomics": {"ct_bin_width": 10}}), "settings")
    assert found.startswith("preset modern; changed: cohort.") and "radiomics.ct_bin_width" in found
    assert "pet_bin_width" not in found and found.endswith("; all others default")


def test_purpose_endpoint_and_horizons_are_the_studys(results: Results) -> None:
    """One cohort is development alone; the endpoint is the study's own word, and horizons are in months."""
    own = made.results({"cohort": {"endpoint": "LRRFS"}}, rows=made.table()[:6])
    assert told(own, "purpose") == "development of a model of LRRFS" and told(own, "endpoint") == "LRRFS"
    assert told(results, "purpose") == "development and evaluation of a model of PFS"
    assert told(results, "horizons") == "6, 12 months" and told(results, "inputs") == "PET, CT and tnm"


def test_pipeline_and_explanations_are_counted() -> None:
    """How many were prepared, scored and explained, and how many networks there are."""
    networks = {"deepmts": (Path("a"), Path("b")), "no-mask": (Path("c"),)}
    found = made.results(prepared={"P1": Path("x")}, scored={"P1": Path("x"), "P2": Path("y")},
                         explained={"P1": Path("x")}, model=made.model(networks=networks))
    assert told(found, "pipeline") == "1 prepared, 2 scored, 3 networks" and told(found, "explained") == "1 patients"


# ---- hashes and the review -------------------------------------------------------------------------------------------

def test_a_fact_has_the_hash_of_its_stage(results: Results) -> None:
    """Facts of one stage share a hash of eight letters; another setting changes that of the settings alone, another
    table that of the cohort, another risk that of the evaluation."""
    def keys(found: Results) -> dict[str, str]:
        facts = facts_of(found)
        assert all(len(fact.key) == KEY_LENGTH for fact in facts.values())
        return {fact.stage: fact.key for fact in facts.values()}

    before = keys(results)
    assert all(before[fact.stage] == fact.key for fact in facts_of(results).values())
    changed = {stage for stage, key in keys(made.results({"radiomics": {"ct_bin_width": 10}})).items()
               if key != before[stage]}
    assert changed == {"settings"}
    risks = results.findings.risks.assign(mtdlr=0.0)
    other = keys(replace(results, findings=replace(results.findings, risks=risks)))
    assert {stage for stage, key in other.items() if key != before[stage]} == {"evaluate", "report"}
    older = replace(results, cohort=replace(results.cohort, table=results.cohort.table.assign(age=1.0)))
    assert {stage for stage, key in keys(older).items() if key != before[stage]} == {"cohort"}


def subgroup(variable: str, level: str, c: float) -> Subgroup:
    """A subgroup with a C, or with none."""
    return Subgroup("external", variable, level, 40, 12, Estimate(c, 0.5, 0.9), made.OE, Estimate(1.0))


def test_the_review_tells_centres_subgroups_and_decisions(results: Results) -> None:
    """Two centres with figures are told with C and O/E; subgroups with their range and their columns, once each;
    figures that are not known do not count."""
    judged = Judged("mtdlr", "stage", {}, {}, {("mtdlr", "external"): made.appraisal(),
                                              ("deepmts", "external"): made.appraisal("deepmts")}, None, (), True)
    parts = [subgroup("center", "A", 0.7), subgroup("center", "B", 0.65), subgroup("tnm", "III", 0.61),
             subgroup("tnm", "IVa", 0.74), subgroup("age", "> 50", 0.66), subgroup("sex", "Male", nan)]
    facts = review_facts(results, judged=judged, parts=parts)
    assert facts["by_centre"].value == ("external A C 0.700 (0.500-0.900), O/E 1.100 (0.900-1.300); external B C 0.650 "
                                        "(0.500-0.900), O/E 1.100 (0.900-1.300)")
    assert facts["subgroups"].value == "C from 0.610 to 0.740 in 3 subgroups with ten events, by tnm, age"
    assert facts["decision"].value == ("net benefit, with its difference to treating everybody: external validation "
                                       "cohort "
                                       "at 12 months")
    one = review_facts(results, judged=judged, parts=parts[:1])
    assert one["by_centre"].value == one["subgroups"].value == "" and one["decision"].key != facts["decision"].key
