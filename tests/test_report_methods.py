"""The methods draft and its references: a sentence for each fact, and BibTeX that a parser of the format reads."""

from __future__ import annotations

import re

import one_study as made
import pytest

from mtdlr.report.checklist import (
    Fact,
    Item,
    checklist_tables,
    checklists_csv,
    counts,
    fact_names,
    fill_checklists,
    metrics_score,
    statement_names,
)
from mtdlr.report.facts import FACTS, facts_of
from mtdlr.report.methods import REFERENCES, SENTENCES, bibtex, methods_text

ALL = {name: Fact(f"the {name}", "stage", "anchor", "0000") for name in {*fact_names(), *FACTS}}


def fields(text: str) -> dict[str, dict[str, str]]:
    """Entries of a BibTeX file, read as the format has it: a brace ends where as many closed as opened."""
    found: dict[str, dict[str, str]] = {}
    for entry in re.finditer(r"@(\w+)\{([^,]+),", text):
        at, values = entry.end(), {}
        while match := re.compile(r"\s*(\w+)\s*=\s*\{").match(text, at):
            depth, at = 1, match.end()
            begin = at
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            values[match[1]] = text[begin:at - 1]
            at += text[at:at + 1] == ","
        assert text[at:].lstrip().startswith("}"), f"{entry[2]} is not closed"
        assert entry[2] not in found, f"{entry[2]} twice"
        found[entry[2]] = values | {"kind": entry[1]}
    return found


# ---- references ------------------------------------------------------------------------------------------------------

def test_bibtex_is_read_back_whole() -> None:
    """Each reference is an article with authors, title, journal, year and DOI, as it was given."""
    found = fields(bibtex())
    assert set(found) == set(REFERENCES) and list(found) == sorted(found)
    for key, (authors, title, journal, year, doi) in REFERENCES.items():
        assert found[key] == {"kind": "article", "author": authors, "title": f"{{{title}}}", "journal": journal,
                              "year": str(year), "doi": doi}


def test_bibtex_authors_are_names_joined_by_and() -> None:
    """Each author is `Last, F.` or `others`, which BibTeX prints as et al.; no comma joins two of them."""
    for authors, *_ in REFERENCES.values():
        for name in authors.split(" and "):
            assert name == "others" or re.fullmatch(r"[\w '-]+, (\w\.[ -]?)+", name), name


def test_a_key_is_the_first_author_and_the_year() -> None:
    """The key of each reference ends with its year and begins with the first author's last name, without blanks."""
    for key, (authors, _, _, year, doi) in REFERENCES.items():
        last = authors.split(",")[0].split()[-1].lower()
        assert key == f"{last}{year}" and re.fullmatch(r"10\.\d{4,}/\S+", doi)


# ---- sentences -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("place", range(len(SENTENCES)))
def test_each_sentence_rests_on_its_fact(place: int) -> None:
    """With its fact alone a sentence is there, ends with one full stop after its citations, and names the fact; without
    it the sentence is missing."""
    name, sentence, cited = SENTENCES[place]
    needed = {key: ALL[key] for key in re.findall(r"\{(\w+)\}", sentence)} | {name: ALL[name]}
    lines = [line for line in methods_text(needed).splitlines()[2:] if line]
    (own,) = [line for line in lines if line.startswith(sentence.split("{")[0].rstrip("."))]
    assert own.endswith("." if not cited else f"[{'; '.join(f'@{key}' for key in cited)}].") and ".." not in own
    assert all(f"the {key}" in own for key in re.findall(r"\{(\w+)\}", sentence))
    empty = {key: Fact("", "stage", "anchor", "0000") for key in ALL}
    assert methods_text(empty | {key: fact for key, fact in ALL.items() if key != name}).count(own) == 0


def test_a_value_that_ends_with_a_stop_gets_no_second_one() -> None:
    """A fact of whole sentences stays a sentence."""
    text = methods_text({"endpoint": Fact("PFS, from the end of treatment.", "settings", "summary", "0")})
    assert text.endswith("The endpoint was PFS, from the end of treatment.\n")


def test_nothing_done_is_a_heading_alone() -> None:
    """Without facts the draft has its heading and no sentence."""
    assert methods_text({}).splitlines() == [
        "# Methods (draft from the settings and results of this run; edit it)", "", ""]


@pytest.mark.parametrize(("settings", "there", "gone"), [
    ({"score": {"training": "in_sample"}}, "", "out of fold"),
    ({"score": {"folds": 9}}, "9-fold cross-fitting", "5-fold"),
    ({"radiomics": {"perturbations": 4}}, "Features that were not robust were removed: 4 perturbations", "5 perturb"),
    ({"radiomics": {"pet_bin_width": 0.5}}, "PET 0.5 g/ml", "PET 0.25 g/ml"),
    ({"evaluate": {"comparison": "jackknife"}}, "Harrell's C (jackknife)", "compareC"),
    ({"cohort": {"endpoint": "DMFS"}}, "The endpoint was DMFS.", "PFS")])
def test_a_setting_changes_its_sentence(settings: dict[str, dict[str, object]], there: str, gone: str) -> None:
    """What was set is written, and what was not is gone."""
    plain, text = (methods_text(facts_of(made.results(one))) for one in (None, settings))
    assert there in text and gone not in text and text != plain


def test_the_draft_counts_what_the_run_had() -> None:
    """Patients, centres, those left out and the coefficients of the nomogram stand in the draft of the made-up
    study."""
    text = methods_text(facts_of(made.results()))
    assert "The study had training cohort 6 patients, 3 events; external validation cohort 4 patients, 2 ev" in text
    assert "Patients came from 2 centres: A 6, B 4." in text
    assert "log hazards tnm=IVa +0.500, auto_radio +0.750, deepmts -0.250 [@gu2023]." in text
    assert "PET and CT were prepared" not in text and "@gray1988" not in text and "@heinze2001" not in text


# ---- checklists ------------------------------------------------------------------------------------------------------

def item(items: tuple[Item, ...], checklist: str, number: str) -> Item:
    """One item of a list."""
    return next(i for i in items if (i.checklist, i.number) == (checklist, number))


def test_an_item_names_where_it_came_from() -> None:
    """Values are joined, stages with their hashes are named once each, and the first section is linked."""
    facts = {"sample_size": Fact("200 needed", "cohort", "summary", "aa11"),
             "events_per_parameter": Fact("12.0 a parameter", "nomogram", "optimism", "bb22")}
    found = item(fill_checklists(facts, {}), "TRIPOD+AI", "10")
    assert (found.status, found.value, found.source, found.anchor, found.missing) == (
        "done", "200 needed; 12.0 a parameter", "cohort aa11, nomogram bb22", "summary", ())
    same = {name: Fact("x", "cohort", "flow", "cc33") for name in facts}
    assert item(fill_checklists(same, {}), "TRIPOD+AI", "10").source == "cohort cc33"


def test_an_item_done_in_part_names_what_is_missing() -> None:
    """One of two facts is a part, and the other is named; a statement that is asked for is named as the setting."""
    found = item(fill_checklists({"sample_size": ALL["sample_size"]}, {}), "TRIPOD+AI", "10")
    assert (found.status, found.missing) == ("part", ("events_per_parameter",))
    ethics = item(fill_checklists({}, {}), "TRIPOD+AI", "17")
    assert (ethics.status, ethics.missing, ethics.source) == ("yours", ("report.statements.ethics",), "")
    stated = item(fill_checklists({}, {"ethics": " Approved. "}), "TRIPOD+AI", "17")
    assert (stated.status, stated.value, stated.source) == ("done", "Approved.", "authors")


def test_facts_without_the_word_that_is_asked_for_are_a_part() -> None:
    """What a run knows of the outcome is a part until the authors say how it was assessed."""
    facts = {name: ALL[name] for name in ("endpoint", "horizons")}
    found = item(fill_checklists(facts, {}), "TRIPOD+AI", "8a")
    assert (found.status, found.missing) == ("part", ("report.statements.outcome",))
    stated = item(fill_checklists(facts, {"outcome": "Every three months."}), "TRIPOD+AI", "8a")
    assert (stated.status, stated.value) == ("done", "the endpoint; the horizons; Every three months.")


def test_where_either_will_do_a_statement_completes_the_item() -> None:
    """An item that facts or authors can fill is done by a word of the authors, whatever facts are missing."""
    arms = next(i for i in fill_checklists(ALL, {}) if (i.checklist, i.number) == ("METRICS", "23"))
    without = {name: fact for name, fact in ALL.items() if name != "arms"}
    bare = item(fill_checklists(without, {}), "METRICS", "23")
    words = dict.fromkeys(statement_names(), "Said.")
    assert arms.status == "done" and bare.status != "done"
    assert item(fill_checklists(without, words), "METRICS", "23").status == "done"


def test_an_item_that_does_not_apply_is_empty() -> None:
    """Without an external cohort the comparison with the development data does not apply, whatever else is known."""
    without = {name: fact for name, fact in ALL.items() if name != "external"}
    found = item(fill_checklists(without, {}), "TRIPOD+AI", "20c")
    assert (found.status, found.value, found.source, found.missing) == ("not applicable", "", "", ())
    assert item(fill_checklists(ALL, {}), "TRIPOD+AI", "20c").status == "done"
    blank = ALL | {"external": Fact("", "evaluate", "x", "0")}
    assert item(fill_checklists(blank, {}), "TRIPOD+AI", "20c").status == "not applicable"


def test_the_score_of_metrics_is_a_share_of_what_applies() -> None:
    """2 of the 8 applicable percent are done and 3 in part: 25 certain, 62.5 possible, 37.5 the authors'."""
    def one(weight: float, status: str, checklist: str = "METRICS") -> Item:
        return Item(checklist, "1", "t", weight, status, "", "", "")  # type: ignore[arg-type]

    score = metrics_score((one(2.0, "done"), one(3.0, "part"), one(3.0, "yours"), one(90.0, "not applicable"),
                           one(50.0, "done", "CLEAR")))
    assert (score.certain, score.possible, score.yours) == pytest.approx((25.0, 62.5, 37.5))


def test_items_are_counted_by_list_and_state() -> None:
    """The states of a list add up to its items, and a fact moves its items alone."""
    before, after = (counts(fill_checklists(facts, {})) for facts in ({}, {"measures": ALL["measures"]}))
    assert {name: sum(states.values()) for name, states in before.items()} == {"TRIPOD+AI": 52, "CLEAR": 58,
                                                                               "METRICS": 30}
    moved = {name: after[name]["done"] - before[name]["done"] for name in before}
    assert moved["TRIPOD+AI"] >= 1 and all(sum(after[name].values()) == sum(before[name].values()) for name in before)


def test_checklist_tables_and_csv_hold_the_same_items() -> None:
    """A table a list, with a dash for what is empty and its source as a footnote; the CSV has weights of METRICS
    alone."""
    items = fill_checklists(ALL, {})
    tables = checklist_tables(items)
    assert [(table.number, table.title, len(table.rows)) for table in tables] == [
        (0, "TRIPOD+AI", 52), (0, "CLEAR", 58), (0, "METRICS", 30)]
    assert all("doi 10." in table.footnotes[0] and "CC BY 4.0" in table.footnotes[0] for table in tables)
    ethics = next(row for row in tables[0].rows if row[0] == "17")
    assert ethics[2:] == ("yours", "-", "-", "report.statements.ethics")
    lines = checklists_csv(items).splitlines()
    assert lines[0] == "list,item,title,weight,status,value,source,section,missing" and len(lines) == 141
    weights = [float(line.split(",")[3]) for line in lines if re.match(r"METRICS,\d+,[^\",]*,[\d.]+,", line)]
    assert weights and all(re.search(r",,(done|part|yours|not applicable),", line) for line in lines
                           if line.startswith("TRIPOD"))
