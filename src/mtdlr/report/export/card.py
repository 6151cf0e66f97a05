"""The model card: what a reader must know before using a frozen model, from the facts that its folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from mtdlr.estimate import Estimate
from mtdlr.model import FrozenModel
from mtdlr.report.model_card import ModelCard, model_card
from mtdlr.report.prediction import RESEARCH
from mtdlr.shift.distance import LABELS, REFUSE, WARN
from mtdlr.study import MAIN

PAPER = ("Gu B, Meng M, Xu M, Feng DD, Bi L, Kim J, Song S. Multi-task deep learning-based radiomic nomogram for "
         "prognostic prediction in locoregionally advanced nasopharyngeal carcinoma. Eur J Nucl Med Mol Imaging 2023. "
         "doi:10.1007/s00259-023-06399-7")
NOT_STATED = "not stated; ask those who trained the model"
COHORTS = {"training": "training", "internal": "internal validation", "external": "external validation"}


@dataclass(frozen=True)
class Terms:
    """What no model folder holds: under which terms it is given away, and by whom.

    Args:
        licence: SPDX identifier of the licence of the model, such as CC-BY-4.0; "" where it is not stated.
        authors: of the model; empty where they are not stated.
    """

    licence: str = ""
    authors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """The facts of one model that every format shows, as words and numbers.

    Args:
        model: the frozen model.
        terms: licence and authors.
        facts: C-index by cohort, numbers of patients, digest.
    """

    model: FrozenModel
    terms: Terms
    facts: ModelCard

    @property
    def endpoint(self) -> str:
        """What is predicted, such as PFS."""
        return self.model.nomograms[MAIN].endpoint

    @property
    def months(self) -> str:
        """The horizons, as in a sentence."""
        return " and ".join(f"{month:g}" for month in self.model.nomograms[MAIN].months)

    @property
    def title(self) -> str:
        """One line that names the model."""
        return f"MTDLR nomogram for {self.endpoint} from FDG-PET/CT, model {self.facts.digest}"

    @property
    def use(self) -> str:
        """Intended use, in a paragraph."""
        return (f"Research on prognosis. From one patient's FDG-PET/CT and the values of {_listed(self.variables)}, "
                f"the model predicts a tumour mask, a risk (log hazard) and the probability of {self.endpoint} at "
                f"{self.months} months. It is meant for patients like the training patients below, scanned before "
                "treatment. It is not a medical device, and no decision on a patient may rest on it.")

    @property
    def variables(self) -> tuple[str, ...]:
        """Clinical columns that a user gives."""
        scores = {"deepmts", "single_task", *(f"{source}_radio" for source in self.model.signatures)}
        return tuple(name for name in self.model.nomograms[MAIN].design.variables if name not in scores)

    @property
    def c_index(self) -> dict[str, Estimate]:
        """C-index by cohort in words; empty where the folder holds none."""
        return {name: self.facts.c[split] for split, name in COHORTS.items() if split in self.facts.c}

    def text(self) -> str:
        """The card in Markdown."""
        parts = (("Intended use", [self.use]), ("How it predicts", self._method()), ("Training data", self._data()),
                 ("Performance by cohort", self._performance()), ("Limits", self._limits()),
                 ("Scans unlike the training scans", self._outside()), ("Licence", self._licence()),
                 ("Citation", [PAPER, "", "And the software, mtdlr: see CITATION.cff of its source."]),
                 ("Identity", self._identity()))
        lines = [f"# {self.title}", RESEARCH]
        for head, body in parts:
            lines += ["", f"## {head}", *body]
        return "\n".join(lines) + "\n"

    def _method(self) -> list[str]:
        model = self.model
        networks = ", ".join(f"{name} ({len(folders)})" for name, folders in sorted(model.networks.items()))
        cutoff = (f"Patients with a log hazard from {self.facts.cutoff:.3f} on are at high risk."
                  if isfinite(self.facts.cutoff) else "The model has no cut-off between risk groups.")
        return [f"- Networks, with the number of each: {networks}. A new patient's score is the mean over them.",
                *(f"- Radiomics signature of the {source} mask: {len(s.features)} features."
                  for source, s in sorted(model.signatures.items())),
                f"- Nomogram (Cox model) of {_listed(model.nomograms[MAIN].design.variables)}.",
                "- Training scores are cross-fitted: no patient was scored by a network that saw the patient."
                if self.facts.cross_fitted else
                "- Training scores are in-sample, as in the paper: training figures are too good.", f"- {cutoff}"]

    def _data(self) -> list[str]:
        lines = [f"{self.facts.n} patients, {self.facts.events} with the event."]
        if self.facts.parent:
            lines.append(f"This model updates model {self.facts.parent}.")
        aggregates = self.model.aggregates
        if aggregates is not None and aggregates.margins:
            lines += ["", "| | patients |", "|---|---|"]
            for row in aggregates.margins:
                what = " ".join(_cell(row[key]) for key in ("label", "level") if key in row)
                shown = ("fewer than 5, or hidden with them" if row["n"] is None else str(row["n"]))
                quartiles = row.get("quartiles")
                lines.append(f"| {what} | {shown}" + (
                    "; quartiles " + ", ".join(f"{value:g}" for value in quartiles) if quartiles else "") + " |")
        if aggregates is not None:
            for kind, counts in aggregates.reference.counts.items():
                lines += ["", f"{kind}: " + ", ".join(f"{_cell(label)} {n}" for label, n in counts.items()) + "."]
        return [*lines, "", "The folder does not say which hospitals and years the patients come from, nor who gave "
                            "leave to use their data: whoever gives the model away must add it."]

    def _performance(self) -> list[str]:
        if not self.c_index:
            return ["The folder holds no figure. `mtdlr validate` measures the model on patients of your own."]
        return ["| cohort | C-index | 95 % interval |", "|---|---|---|",
                *(f"| {name} | {c.value:.3f} | " + (f"{c.low:.3f} to {c.high:.3f}" if isfinite(c.low + c.high) else
                                                   "not known") + " |" for name, c in self.c_index.items()),
                "", "Calibration, decision curves and subgroups stand in the study's report, not in the model folder."]

    def _limits(self) -> list[str]:
        design = self.model.nomograms[MAIN].design
        return [f"- {self.facts.events} events in training, for a nomogram of {len(design.variables)} variables. Its "
                "scores were themselves learned from these patients.",
                f"- Nothing is predicted beyond {max(self.model.nomograms[MAIN].months):g} months.",
                "- Another tracer, scanner protocol, treatment or tumour than in training was not tested unless the "
                "table above shows an external cohort.",
                f"- `predict` needs every value ({_listed(self.variables)}): it fills nothing in.",
                "- No row of a patient is in the folder. What it keeps of patients are counts, means and covariances "
                "of at least five.",
                *(f"- {problem}" for problem in self.model.problems)]

    def _outside(self) -> list[str]:
        aggregates = self.model.aggregates
        if aggregates is None:
            return ["This model keeps no reference of its training scans: it predicts any scan without a warning."]
        groups = [LABELS.get(name, name) for name in aggregates.reference.groups]
        return [f"A new scan is compared with the training scans by {_listed(groups)}.",
                f"- Beyond percentile {100 * WARN:g} of the training patients: a warning (W-SHIFT).",
                f"- Beyond percentile {100 * REFUSE:g}: refused (E-SHIFT), unless the user insists, which the output "
                "records. Scores and signature features warn, and do not refuse.",
                "- Values that no living patient has: refused (E-PHYSICAL).",
                "- A training patient's scan is recognised and said to be one."]

    def _licence(self) -> list[str]:
        return [f"- Model: {self.terms.licence or NOT_STATED}.",
                f"- Authors: {', '.join(self.terms.authors) or NOT_STATED}.", "- Software, mtdlr: MIT."]

    def _identity(self) -> list[str]:
        return [f"- Digest: {self.facts.digest}. Two models with one digest predict the same.",
                f"- Made by mtdlr {self.facts.version or 'of an unknown version'}.",
                "- `bundle.json` lists the SHA-256 of every file, and mtdlr refuses a folder that differs."]


def card_of(model: FrozenModel, terms: Terms) -> Card:
    """The card of a frozen model.

    Args:
        model: as `read_bundle` returns it.
        terms: licence and authors.
    """
    return Card(model, terms, model_card(model))


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`; "nothing" for no words."""
    *most, last = words or ("nothing",)
    return f"{', '.join(most)} and {last}" if most else last


def _cell(value: object) -> str:
    """A word from the clinical table, safe in a table of Markdown."""
    return str(value).replace("|", "/").replace("\n", " ")
