"""Arms of the radiomics: the full signature's fit on the columns of one modality, only judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_tables import results  # noqa: F401  (the made-up study)

from mtdlr.evaluate import arms as module
from mtdlr.evaluate.arms import Arm, study_arms
from mtdlr.report.checklist import fill_checklists
from mtdlr.report.facts import facts_of
from mtdlr.report.results import Results
from mtdlr.report.rivals import arms_numbers, arms_table
from mtdlr.signature import fit_with_scores
from mtdlr.stats.concordance import compare_concordance, concordance
from mtdlr.store import Store, open_store
from mtdlr.study import Study
from mtdlr.survival import Survival
from mtdlr.workers.planning import Stored

N = 90
STUDY = Study.of({"signature": {"lambdas": 10, "folds": 3, "repeats": 1}, "evaluate": {"arms": True}})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A run folder."""
    with open_store(tmp_path_factory.mktemp("run")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made() -> tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.DataFrame]:
    """60 training and 30 external patients, folds, features whose PET part drives the hazard, and full scores."""
    rng = np.random.default_rng(3)
    ids = [f"P{k:02d}" for k in range(N)]
    names = [f"{one}_original_glcm_{k}" for one in ("PET", "CT") for k in range(4)] + ["shape_MeshVolume"]
    features = pd.DataFrame(rng.standard_normal((N, 9)), index=ids, columns=names)
    time = rng.exponential(30 * np.exp(-1.5 * features["PET_original_glcm_1"].to_numpy()))
    table = pd.DataFrame({"split": ["training"] * 60 + ["external"] * 30, "center": "A",
                          "time_months": np.minimum(time, 60.0) + 0.1, "event": time < 60.0}, index=ids)
    folds = pd.Series(np.arange(60) % 3, index=ids[:60])
    full = pd.DataFrame({"auto_radio": rng.standard_normal(N)}, index=ids)
    return table, folds, features, full


def _arms(store: Store, made: tuple, study: Study = STUDY) -> tuple[Arm, ...]:
    table, folds, features, full = made
    stored = {"auto": Stored({}, {i: f"k{i}" for i in table.index})}
    return study_arms(store, study, table, folds, stored=stored, features={"auto": features}, scores=full)


def _survival(table: pd.DataFrame) -> Survival:
    return Survival(table["time_months"].to_numpy(float), table["event"].to_numpy(bool))


def test_an_arm_is_the_signature_of_its_columns(store: Store, made: tuple) -> None:
    """C, kept features and paired difference are those of a fit on the modality's columns and shape, out of fold in
    training; the modality that drives the hazard is ahead outside."""
    found = {(arm.modality, arm.split): arm for arm in _arms(store, made)}
    assert set(found) == {(one, split) for one in ("PET", "CT") for split in ("training", "external")}
    table, folds, features, full = made
    training = table[table["split"] == "training"]
    for modality in ("PET", "CT"):
        own = features[[name for name in features if name.startswith((f"{modality}_", "shape"))]]
        signature, score = fit_with_scores(own.loc[training.index], training, folds, STUDY.signature)
        inside, outside = found[modality, "training"], found[modality, "external"]
        assert (inside.candidates, inside.kept) == (5, len(signature.features))
        assert inside.c.value == pytest.approx(concordance(score.to_numpy(), _survival(training)).c.value)
        rows = table[table["split"] == "external"]
        risk, surv = signature.score(own.loc[rows.index]).to_numpy(), _survival(rows)
        assert outside.c.value == pytest.approx(concordance(risk, surv).c.value)
        lost = compare_concordance(full.loc[rows.index, "auto_radio"].to_numpy(), risk, surv).difference
        assert (outside.lost.value, outside.lost.p) == pytest.approx((lost.value, lost.p))
    assert found["PET", "external"].c.value > 0.7 > found["CT", "external"].c.value


def test_arms_are_fitted_once_and_only_when_wanted(
    store: Store, made: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is read back equal; without the setting, or with features of one modality, there is no arm."""
    before = _arms(store, made)
    monkeypatch.setattr(module, "fit_with_scores", lambda *_: pytest.fail("fitted again"))
    assert _arms(store, made) == before
    assert _arms(store, made, Study()) == ()
    table, folds, features, full = made
    assert _arms(store, (table, folds, features.filter(like="PET"), full)) == ()


def test_the_report_has_the_arms_in_a_table_and_a_checklist(
    results: Results, store: Store, made: tuple  # noqa: F811
) -> None:
    """Table 14 has the full signature and below it its arms; METRICS 23 hangs on them, or on the authors' word."""
    with_arms = replace(results, arms=_arms(store, made))
    judged = SimpleNamespace(evaluations=results.findings.evaluations)
    table = arms_table(with_arms.arms, judged)  # type: ignore[arg-type]
    assert [row[0] for row in table.rows[:3]] == ["AutoRadio-Score, PET and CT", "AutoRadio-Score, PET alone",
                                                  "AutoRadio-Score, CT alone"]
    assert len(table.rows) == 6 and {len(row) for row in table.rows} == {len(table.header)}
    facts = facts_of(with_arms)
    assert "auto PET alone" in facts["arms"].value and facts_of(results)["arms"].value == ""
    said = {"single_modality": "The CT has low dose."}
    status = [next(i.status for i in fill_checklists(known, stated) if (i.checklist, i.number) == ("METRICS", "23"))
              for known, stated in ((facts, {}), ({}, {}), ({}, said))]
    assert status == ["done", "yours", "done"]
    numbers = arms_numbers(with_arms.arms)
    assert numbers[0]["modality"] == "PET" and numbers[0]["c"]["value"] == with_arms.arms[0].c.value
