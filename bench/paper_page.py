"""docs/evidence.md: the paper at its own size, on synthetic patients, beside the paper's figures and the truth.

It prints what bench_paper.py kept (bench/paper/*.json, one file a study) and computes nothing but means over seeds and
their P. `tests/test_evidence.py` holds the page to the kept numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Any

import numpy as np
from scipy import stats

COHORTS = ("training", "internal", "external")
Row = tuple[float | None, float | None, float | None]
PAPER_C = {
    "stage": (0.538, 0.526, 0.554), "manual_radio": (0.720, 0.680, 0.642), "manual_radio_stage": (0.725, 0.693, 0.655),
    "single_task": (0.767, 0.705, 0.655), "single_task_stage": (0.770, 0.708, 0.662), "deepmts": (0.780, 0.731, 0.695),
    "auto_radio": (0.728, 0.702, 0.669), "mtdlr": (0.818, 0.752, 0.717),
}
"""Table 4 of the paper: C-index by cohort."""
LABELS = {"stage": "TNM stage", "manual_radio": "ManualRadio-Score", "manual_radio_stage": "ManualRadio-Score + TNM",
          "single_task": "SingleTask-Score", "single_task_stage": "SingleTask-Score + TNM", "deepmts": "DeepMTS-Score",
          "auto_radio": "AutoRadio-Score", "mtdlr": "MTDLR nomogram"}
PAPER_UNIVARIATE = {"stage": (1.541, 1.457, 1.839), "manual_radio": (2.304, 1.577, 1.703),
                    "single_task": (4.365, 2.669, 1.724), "deepmts": (5.409, 2.633, 1.771),
                    "auto_radio": (1.818, 2.000, 1.615)}
"""Table 2: hazard ratios of the stage and the scores."""
PAPER_MULTIVARIATE = {"stage": (1.464, 1.229, 1.786), "auto_radio": (1.491, 1.679, 1.489),
                      "deepmts": (4.193, 2.455, 1.520)}
"""Table 3."""
PAPER_DICE: Row = (0.826, 0.775, 0.765)
PAPER_GROUPS = {"stage": (1.541, 1.457, 1.839), "mtdlr": (10.25, 7.519, 4.812)}
"""Hazard ratios of the Kaplan-Meier groups, Fig. 4."""
PAPER_TABLE_1 = (("patients", (522, 130, 234)), ("events", (127, 24, 45)), ("age, median", (45, 48, 48)),
                 ("stage IVa, %", (20.3, 25.4, 19.2)), ("N3, %", (11.9, 15.4, 15.8)),
                 ("SUVmax, mean, g/ml", (12.19, 12.14, 14.82)),
                 ("MTV, mean, ml", (35.70, 33.84, 24.92)))
CLAIMS = (("MTDLR ranks better than the stage", "mtdlr", "stage"),
          ("MTDLR ranks better than DeepMTS-Score alone", "mtdlr", "deepmts"),
          ("MTDLR ranks better than AutoRadio-Score alone", "mtdlr", "auto_radio"),
          ("DeepMTS-Score ranks better than SingleTask-Score", "deepmts", "single_task"),
          ("AutoRadio-Score ranks better than ManualRadio-Score", "auto_radio", "manual_radio"),
          ("ManualRadio-Score ranks better than the stage", "manual_radio", "stage"),
          ("The stage adds to ManualRadio-Score", "manual_radio_stage", "manual_radio"),
          ("The stage adds to SingleTask-Score", "single_task_stage", "single_task"))
Kept = Mapping[str, Any]
Value = Callable[[Kept], float | None]


def page(studies: Sequence[Kept], figures: Mapping[str, str]) -> str:
    """The page in Markdown.

    Args:
        studies: what was kept of each study, in the order of the page.
        figures: caption of each figure of the first study, by name.
    """
    out = [_HEAD.format(studies=_studies(studies))]
    for driven_by, mode in dict.fromkeys((one["driven_by"], one["mode"]) for one in studies):
        own = [one for one in studies if (one["driven_by"], one["mode"]) == (driven_by, mode)]
        out += [f"## {_TRUTHS.get(driven_by, driven_by)}, `{mode}`", _summary(own), ""]
        for title, part in (("Which claims hold", _claims), ("Table 1", _table_1),
                            ("Table 2 (univariate) and Table 3 (multivariate)", _hazard_ratios),
                            ("Table 4 and the truth", _table_4),
                            ("What each score knows of the true risk", _of_truth), ("Risk groups", _groups)):
            out += [f"### {title}", part(own), ""]
        if own[0] is studies[0]:
            out += ["### Figures 2 to 4", f"Of seed {own[0]['seed']}, as the report draws them.", "",
                    *(f"![{caption}](evidence/figure{name}.png)\n" for name, caption in figures.items())]
    return "\n".join(out).rstrip() + "\n"


_TRUTHS = {"burden": "Hazard driven by tumour burden", "mixed": "Hazard driven by places, shapes and uptake (`mixed`)"}
_HEAD = """# Evidence: the paper at its own size
The paper's study, done again on made-up patients: as many patients, the same cohorts, the whole chain from scans to
report, through shards and folds as on a cluster. The patients come from the project's own generator. So this page shows
what the method can find in such images, and which of the paper's claims that bears out. It says nothing about real
patients. What else was measured is in [measurements](measurements.md).

Training figures are of two kinds. Ours are out of fold, by networks and fits that never saw the patient. The paper's
are of the patients that its networks learned from. The validation cohorts compare like with like.

`python bench/bench_paper.py FOLDER` makes the page. A study that is kept in `bench/paper/` is not done again; without
that folder the command does all of them (`--truth` names another truth). CPU hours are from scans to report, without
making the patients.

{studies}
**Not measured (2026-11-29): the `paper` preset.** Its 15,000 steps a network take 163 h of two cores on 128^3 voxels,
or about 2 h of one NVIDIA H200 ([computed](cluster.md)). On the grid of this page they would take 12 CPU hours a study
(computed from a timed step). No such card was at hand. `--modes paper` adds its part to this page.
"""


def _studies(studies: Sequence[Kept]) -> str:
    lines = ["| hazard | preset | seed | patients | grid | events | CPU hours | date |", "|---|" + "---|" * 7]
    for one in studies:
        events = " + ".join(str(one["performance"]["mtdlr"][cohort]["events"]) for cohort in COHORTS)
        cells = (one["driven_by"], f"`{one['mode']}`", one["seed"], " + ".join(map(str, one["sizes"])),
                 f"{one['grid']}^3, {one['spacing_mm']:g} mm", events, f"{_cpu_hours(one):.2f}",
                 one["date"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _cpu_hours(study: Kept) -> float:
    """From scans to report, without making the patients."""
    return sum(seconds for stage, seconds in study["cpu_s"].items() if stage != "patients") / 3600


def _summary(studies: Sequence[Kept]) -> str:
    """The section's result in sentences."""
    external = {name: _mean(studies, _c(name, "external")) or 0.0 for name in LABELS}
    best = max(external, key=external.__getitem__)
    rho = [stats.spearmanr([_mean(studies, _c(name, cohort)) for name in LABELS],
                           [PAPER_C[name][k] for name in LABELS]).statistic for k, cohort in enumerate(COHORTS)]
    return (f"Outside, {LABELS[best]} ranks best (C {external[best]:.3f}). The risk that made the events has "
            f"{_mean(studies, _c('truth', 'external')):.3f}. The eight rows of Table 4 stand in an order that "
            f"agrees with the paper's by Spearman's rho {rho[0]:.2f} (training), {rho[1]:.2f} (internal), "
            f"{rho[2]:.2f} (external). {_not_borne_out(studies)}")


def _claims(studies: Sequence[Kept]) -> str:
    """Each claim by cohort: how much, P over the studies, and in how many it holds."""
    lines = ["Differences of the C-index, in the mean; P is one-sided, over three seeds or more (paired t-test); in "
             "how many studies the claim holds.", "", f"| claim | {' | '.join(COHORTS)} |", "|---|" + "---|" * 3]
    for claim, better, worse in CLAIMS:
        differences = [_differences(studies, better, worse, cohort) for cohort in COHORTS]
        cells = [f"{np.mean(found):+.3f}, P {p_over_seeds(found)}, {sum(d > 0 for d in found)} of {len(found)}"
                 for found in differences]
        lines.append(f"| {claim} | {' | '.join(cells)} |")
    groups = [[one["performance"]["mtdlr"][cohort]["groups"] for one in studies] for cohort in COHORTS]
    cells = [f"{_geometric([g[0] for g in found if g]) or 0.0:.2f}, "
             f"{sum(g is not None and g[1] > 1 for g in found)} of {len(found)}" for found in groups]
    lines.append(f"| MTDLR's risk groups differ: hazard ratio, interval above 1 | {' | '.join(cells)} |")
    fits = [[one["calibration"][cohort]["60"] for one in studies] for cohort in COHORTS]
    cells = [f"{np.mean([f['slope'] for f in found]):.2f}, {np.mean([f['oe'] for f in found]):.2f}, "
             f"{sum((f['gnd_p'] or 0.0) > 0.05 for f in found)} of {len(found)}" for found in fits]
    lines.append(f"| MTDLR is calibrated at 60 months: slope, O/E, test not significant | {' | '.join(cells)} |")
    fits = [[one["of_truth"]["calibration"][cohort] for one in studies] for cohort in COHORTS]
    cells = [f"{np.mean([f['slope'] for f in found]):.2f}, {np.mean([f['oe'] for f in found]):.2f}" for found in fits]
    lines.append(f"| to compare: a model that knows the true risk, slope, O/E | {' | '.join(cells)} |")
    return "\n".join(lines)


def _not_borne_out(studies: Sequence[Kept]) -> str:
    """A sentence on the claims that fail in at least half of the studies, by cohort."""
    failed = {cohort: [claim for claim, better, worse in CLAIMS
                       if 2 * sum(d > 0 for d in (_differences(studies, better, worse, cohort))) <= len(studies)]
              for cohort in COHORTS}
    told = [f"{cohort}: {'; '.join(claims)}" for cohort, claims in failed.items() if claims]
    return f"Not borne out in at least half of the studies: {'. '.join(told)}." if told else "Every claim is borne out."


def _differences(studies: Sequence[Kept], better: str, worse: str, cohort: str) -> list[float]:
    pairs = [(_c(better, cohort)(one), _c(worse, cohort)(one)) for one in studies]
    return [a - b for a, b in pairs if a is not None and b is not None]


def p_over_seeds(differences: Sequence[float]) -> str:
    """One-sided P that the mean difference is above 0; "-" with fewer than three seeds: two can agree by chance."""
    if len(differences) < 3 or np.ptp(differences) == 0:
        return "-"
    p = stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table_1(studies: Sequence[Kept]) -> str:
    """The margins are the paper's by design; PET parameters are the generator's."""
    lines = [_heading("characteristic")]
    for name, paper in PAPER_TABLE_1:
        digits = 1 if "%" in name else 2 if "mean" in name else 0
        ours = [_mean(studies, lambda one, key=name, where=cohort: one["characteristics"][where].get(key))
                for cohort in COHORTS]
        lines.append(_row(name, ours, paper, digits))
    return "\n".join(lines)


def _hazard_ratios(studies: Sequence[Kept]) -> str:
    """Geometric means over studies."""
    lines = ["Hazard ratio of stage IVa against III, and of one unit of a score. A score's unit is its method's own: "
             "compare sides with the paper's, not sizes.", ""]
    for kind, paper in (("univariate", PAPER_UNIVARIATE), ("multivariate", PAPER_MULTIVARIATE)):
        lines.append(_heading(kind))
        for name, known in paper.items():
            ratios = [[ratio for one in studies if (ratio := one[kind].get(name, {}).get(cohort))]
                      for cohort in COHORTS]
            lines.append(_row(LABELS[name], [_geometric(found) for found in ratios], known, 2))
        lines.append("")
    return "\n".join(lines[:-1])


def _table_4(studies: Sequence[Kept]) -> str:
    """C-index beside the paper's, of every model; the truth; Dice."""
    names = list(studies[0]["performance"])
    order = [*PAPER_C, *(name for name in names if name not in PAPER_C and name != "truth"), "truth"]
    labels = studies[0]["labels"] | LABELS | {"truth": "**the risk that made the events**"}
    lines = [_heading("C-index")]
    lines += [_row(labels[name], [_mean(studies, _c(name, cohort)) for cohort in COHORTS], PAPER_C.get(name, _NONE), 3)
              for name in order]
    dice = [_mean(studies, lambda one, where=cohort: one["dice"][where]) for cohort in COHORTS]
    return "\n".join([*lines, _row("Dice of the predicted mask", dice, PAPER_DICE, 3)])


def _of_truth(studies: Sequence[Kept]) -> str:
    """Correlation with the true log hazard: it does not hang on who of few patients had an event."""
    lines = ["Correlation with the log hazard that made the events. It is surer than a C-index of few events.", "",
             f"| score | {' | '.join(COHORTS)} |", "|---|" + "---|" * 3]
    labels = studies[0]["labels"] | LABELS
    for name in [*PAPER_C, *(name for name in studies[0]["performance"] if name not in PAPER_C and name != "truth")]:
        cells = [f"{np.mean([one['of_truth']['correlation'][name][cohort] for one in studies]):.3f}"
                 for cohort in COHORTS]
        lines.append(f"| {labels[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(studies: Sequence[Kept]) -> str:
    lines = [_heading("hazard ratio of high against low (Fig. 4)")]
    for name, paper in PAPER_GROUPS.items():
        found = [[g[0] for one in studies if (g := one["performance"][name][cohort]["groups"])] for cohort in COHORTS]
        lines.append(_row(LABELS[name], [_geometric(ratios) for ratios in found], paper, 2))
    return "\n".join(lines)


_NONE: Row = (None, None, None)


def _heading(first: str) -> str:
    return f"| {first} | " + " | ".join(f"{cohort} | paper" for cohort in COHORTS) + " |\n|---|" + "---|" * 6


def _row(name: str, ours: Sequence[float | None], paper: Sequence[float | None], digits: int) -> str:
    pairs = zip(ours, paper, strict=True)
    cells = ("-" if value is None else f"{value:.{digits}f}" for pair in pairs for value in pair)
    return f"| {name} | {' | '.join(cells)} |"


def _c(model: str, cohort: str) -> Value:
    """The C-index of a model in a cohort of one study; None where it has none."""
    return lambda one: one["performance"].get(model, {}).get(cohort, {}).get("c")


def _mean(studies: Sequence[Kept], value: Value) -> float | None:
    found = [number for one in studies if (number := value(one)) is not None]
    return float(np.mean(found)) if found else None


def _geometric(ratios: Sequence[float]) -> float | None:
    """Mean of hazard ratios."""
    return exp(float(np.mean([log(ratio) for ratio in ratios]))) if ratios else None
