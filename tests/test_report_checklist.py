"""The reporting checklists: filled from facts of the run alone, changed by them, never by a feature that exists."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest
from test_tables import results  # noqa: F401  (the made-up study)

from mtdlr.errors import StudyError
from mtdlr.nomogram.fit import fit_nomogram
from mtdlr.report.checklist import (
    Fact,
    checklist_tables,
    checklists_csv,
    counts,
    fact_names,
    fill_checklists,
    metrics_score,
    statement_names,
)
from mtdlr.report.documents import write_word
from mtdlr.report.facts import FACTS, facts_of
from mtdlr.report.methods import REFERENCES, SENTENCES, bibtex, methods_text
from mtdlr.report.results import Results
from mtdlr.study import Study, models_of
from mtdlr.study.sections import STATEMENTS

ALL = {name: Fact(f"value of {name}", "stage", "anchor", "0000") for name in fact_names()}


def test_the_lists_are_whole() -> None:
    """TRIPOD+AI has 52 items, CLEAR 58, METRICS 30 whose weights add up to 100; each is filled in order."""
    items = fill_checklists(ALL, {})
    assert {name: sum(found.values()) for name, found in counts(items).items()} == {
        "TRIPOD+AI": 52, "CLEAR": 58, "METRICS": 30}
    assert sum(i.weight for i in items) == pytest.approx(100.0, abs=0.05)
    assert [i.number for i in items if i.checklist == "CLEAR"] == [str(k) for k in range(1, 59)]


def test_without_facts_everything_is_the_authors() -> None:
    """A run that recorded nothing has nothing done, whatever this package can do."""
    items = fill_checklists({}, {})
    assert {i.status for i in items} <= {"yours", "not applicable"}
    assert metrics_score(items).certain == 0.0


@pytest.mark.slow
def test_every_done_item_hangs_on_its_facts() -> None:
    """Mutation: without any one of its facts a done item is not done, and with another value its text changes."""
    done = [i for i in fill_checklists(ALL, {}) if i.status == "done"]
    assert len(done) >= 60
    used = set()
    for item in done:
        names = [name for name in ALL if f"value of {name};" in f"{item.value};"]
        assert names, f"{item.checklist} {item.number} is done by no fact"
        used |= set(names)
        for name in names:
            without = {key: fact for key, fact in ALL.items() if key != name}
            other = ALL | {name: replace(ALL[name], value="something else")}
            find = {True: without, False: other}
            lost, changed = (next(i for i in fill_checklists(facts, {}) if
                                  (i.checklist, i.number) == (item.checklist, item.number)) for facts in find.values())
            assert lost.status != "done" and changed.value != item.value, f"{item.checklist} {item.number}: {name}"
    assert len(used) > 40


def test_a_statement_completes_what_people_know() -> None:
    """Ethics is yours until it is stated; treatments are part with columns alone and done with a statement as well."""
    def status(number: str, facts: dict[str, Fact], statements: dict[str, str]) -> str:
        return next(i.status for i in fill_checklists(facts, statements) if (i.checklist, i.number) ==
                    ("TRIPOD+AI", number))

    assert status("17", ALL, {}) == "yours" and status("17", ALL, {"ethics": "Approved, 2020-1."}) == "done"
    assert status("6c", ALL, {}) == "part" and status("6c", ALL, {"treatment": "IMRT."}) == "done"
    assert status("6c", {}, {"treatment": "IMRT."}) == "part" and status("17", ALL, {"ethics": " "}) == "yours"


def test_the_study_file_takes_every_statement_and_no_other() -> None:
    """`[report.statements]` knows the names that items have; another name is an error that lists them."""
    assert statement_names() == STATEMENTS
    assert Study.of({"report": {"statements": {"ethics": "Approved."}}}).report.statements["ethics"] == "Approved."
    with pytest.raises(StudyError) as error:
        Study.of({"report": {"statements": {"ethic": "Approved."}}})
    assert "ethics" in str(error.value)


def test_metrics_is_an_interval() -> None:
    """Certain is what is done, possible adds what is done in part, the rest is the authors'; together 100."""
    score = metrics_score(fill_checklists(ALL, {}))
    assert 60 < score.certain < score.possible < 100
    assert score.possible + score.yours == pytest.approx(100.0)
    everything = dict.fromkeys(statement_names(), "stated")
    assert metrics_score(fill_checklists(ALL, everything)).certain == pytest.approx(100.0)


def test_an_item_that_does_not_apply_has_no_weight() -> None:
    """Without a network METRICS 17 does not apply, and its weight leaves the total."""
    without = {name: fact for name, fact in ALL.items() if name != "network"}
    items = fill_checklists(without, {})
    assert next(i for i in items if (i.checklist, i.number) == ("METRICS", "17")).status == "not applicable"


def test_each_fact_of_the_lists_has_a_finder_or_waits_for_its_stage() -> None:
    """Every fact that an item needs is found by a run, but for the updating of a model, which `validate` does."""
    assert set(fact_names()) - set(FACTS) == {"by_centre", "subgroups", "decision", "updating"}


def test_facts_are_those_of_the_run(results: Results) -> None:  # noqa: F811
    """A made-up study without images fills patients, models and results, and nothing about images."""
    facts = facts_of(results)
    assert facts["patients"].value.startswith("training cohort 100 patients")
    assert facts["preparation"].value == facts["mask_overlap"].value == facts["multicentre"].value == ""
    assert "mtdlr" not in facts["nomogram"].value and "auto_radio +" in facts["nomogram"].value
    assert facts["external"].value.startswith("60 patients")
    items = {(i.checklist, i.number): i for i in fill_checklists(facts, {})}
    assert items["METRICS", "27"].status == "done" and items["METRICS", "4"].status == "yours"
    assert items["CLEAR", "21"].status == "yours", "no image was prepared"


def test_a_score_without_a_weight_is_named_beside_the_nomogram(results: Results) -> None:  # noqa: F811
    """The fact that describes the nomogram names the candidate that added nothing."""
    main = next(model for model in models_of(results.study) if model.name == "mtdlr")
    only = replace(main, scores=("deepmts",))
    fewer = fit_nomogram(results.cohort.table.join(results.scores), only, results.study)
    model = replace(results.model, nomograms={**results.model.nomograms, "mtdlr": fewer})
    found = facts_of(replace(results, model=model))["nomogram"].value
    assert found.startswith("tnm=IVa") and found.endswith("; candidates without a weight: auto_radio")


def test_facts_change_with_the_run(results: Results) -> None:  # noqa: F811
    """Another horizon, another cohort and in-sample scores change the facts that name them, and their hashes."""
    before = facts_of(results)
    study = Study.of({**results.study.model_dump(), "score": {"training": "in_sample"},
                      "nomogram": {"months": [12]}})
    table = results.cohort.table.assign(center="B")
    table.loc[table.index[:20], "center"] = "A"
    after = facts_of(replace(results, study=study, cohort=replace(results.cohort, table=table)))
    assert after["horizons"].value == "12 months" != before["horizons"].value
    assert before["multicentre"].value == "" != after["multicentre"].value
    assert after["folds"].value == "" != before["folds"].value
    assert after["settings"].key != before["settings"].key and after["centres"].key != before["centres"].key


def test_methods_say_what_was_done_and_nothing_else(results: Results) -> None:  # noqa: F811
    """Gray's test is in the methods of a study with competing events and in no other; so is Firth's penalty."""
    plain = methods_text(facts_of(results))
    assert "Gray" not in plain and ("Firth" in plain) == any(one.penalised for one in results.associations.univariate)
    table = results.cohort.table.assign(cause=results.cohort.table["event"].astype(int))
    table.loc[~table["event"], "cause"] = 2
    facts = facts_of(replace(results, cohort=replace(results.cohort, table=table)))
    censored = int((~table.loc[table["split"] == "training", "event"]).sum())
    assert facts["competing"].value.startswith(f"{censored} in the training cohort")
    assert "@gray1988" in methods_text(facts)


@pytest.mark.slow
def test_the_lists_are_written_for_people(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """CSV has a row an item with safe cells, Word a table a list."""
    items = fill_checklists(ALL | {"endpoint": replace(ALL["endpoint"], value="=cmd")}, {})
    rows = list(csv.DictReader(checklists_csv(items).splitlines()))
    assert len(rows) == 140 and rows[0]["list"] == "TRIPOD+AI"
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    docx = pytest.importorskip("docx")
    path = write_word(checklist_tables(items), tmp_path / "checklists.docx", heading="Checklists")
    assert [len(t.rows) for t in docx.Document(str(path)).tables] == [53, 59, 31]
    first = path.read_bytes()
    assert write_word(checklist_tables(items), path, heading="Checklists").read_bytes() == first


def test_the_draft_of_the_methods_says_what_was_done_and_nothing_else(results: Results) -> None:  # noqa: F811
    """A sentence for each recorded fact, none for what the run did not do; every citation has its BibTeX entry."""
    text = methods_text(facts_of(results))
    assert "training cohort 100 patients" in text and "5-fold cross-fitting" in text
    assert "prepared on a common grid" not in text and "not robust" not in text
    cited = set(re.findall(r"@(\w+)", text))
    assert cited and cited <= set(REFERENCES)
    assert {key for _, _, keys in SENTENCES for key in keys} == set(REFERENCES)
    assert bibtex().count("@article{") == len(REFERENCES) == bibtex().count("doi = {10.")
