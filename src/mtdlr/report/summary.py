"""The first page in ten lines: does it work, outside, against what simpler model, how sure, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from mtdlr.errors import Problem
from mtdlr.estimate import Estimate
from mtdlr.evaluate import Evaluation
from mtdlr.evaluate.appraise import Appraisal, Development
from mtdlr.report.tables import SPLIT_LABELS, estimate_text, p_text
from mtdlr.study import TRUTH

FEW, ENOUGH = 20, 100
"""Events below which nothing firm can be said, and from which a validation is usually called adequate."""
NARROW = 1.25
"""An interval of O/E within a factor of this around 1 shows good calibration; a wider one leaves it open."""
GRAVE = ("W-NEGATIVEWEIGHT", "W-RIVAL", "W-NOSIGNATURE", "W-EMPTYFOLD", "W-NOGAIN", "W-NOEVENTS", "W-NOPAIRS",
         "W-EPV")
"""Warnings that touch what the model is worth: they are named first."""
APART = ("Were there enough patients?", "What is wrong?")
"""Lines that do not rest on the events of the cohort where the model is judged."""
OUTSIDE = ("external", "internal", "training")
"""Where a model is judged, the best place first."""


@dataclass(frozen=True)
class Line:
    """One line of the summary: the question, the answer, and whether it is good, bad or open."""

    question: str
    answer: str
    mark: str


@dataclass(frozen=True)
class Judged:
    """What the summary is made from.

    Args:
        main, reference: names of the study's model and of the one that every other is compared with.
        labels: printed names, of the models that may be called rivals and of these two.
        evaluations, appraisals: by (model, cohort).
        development: of the main nomogram; None where it could not be appraised.
        problems: of the run.
        out_of_fold: whether training patients were scored by networks that never saw them.
        parts: names of the scores that enter the main model.
    """

    main: str
    reference: str
    labels: Mapping[str, str]
    evaluations: Mapping[tuple[str, str], Evaluation]
    appraisals: Mapping[tuple[str, str], Appraisal]
    development: Development | None
    problems: Sequence[Problem]
    out_of_fold: bool
    parts: tuple[str, ...] = ()


def summary_lines(judged: Judged) -> list[Line]:
    """At most ten lines. What cannot be computed is said, and why."""
    place = next((s for s in OUTSIDE if (e := judged.evaluations.get((judged.main, s))) and e.concordance), None)
    if place is None:
        return [Line("Does it work?", "No cohort has an event and a patient followed for longer: nothing can be said.",
                     "bad"), _wrong(judged)]
    lines = [_works(judged, place), _over_stage(judged, place), _rival(judged, place), _training(judged, place),
             _calibrated(judged, place), _useful(judged, place), _groups(judged, place), _sure(judged, place),
             _size(judged), _wrong(judged)]
    few = judged.evaluations[judged.main, place].n_events < FEW
    return [replace(line, mark="open") if few and line.mark == "good" and line.question not in APART else line
            for line in lines if line is not None]


def _works(judged: Judged, place: str) -> Line:
    found = judged.evaluations[judged.main, place]
    name = judged.labels[judged.main]
    where = {"external": "outside", "internal": "in the internal validation cohort",
             "training": "in the training cohort, the only one that can be judged"}[place]
    text = f"{name} has a C-index of {estimate_text(found.c)} {where} ({found.n} patients, {found.n_events} events)."
    truth = judged.evaluations.get((TRUTH, place))
    text += f" The simulated patients' true risk has {truth.c.value:.3f}." if truth and isfinite(truth.c.value) else ""
    blind = [(SPLIT_LABELS[s].lower(), e) for s in OUTSIDE[:OUTSIDE.index(place)]
             if (e := judged.evaluations.get((judged.main, s)))]
    text += "".join(f" The {cohort} ({e.n} {'patient' if e.n == 1 else 'patients'}, {e.n_events} "
                    f"{'event' if e.n_events == 1 else 'events'}) cannot tell." for cohort, e in blind)
    if not isfinite(found.c.low):
        return Line("Does it work?", text + " Its error cannot be estimated.", "open")
    uno = judged.appraisals[judged.main, place].uno if (judged.main, place) in judged.appraisals else found.c
    if found.c.low > 0.5 and isfinite(uno.low) and uno.low <= 0.5:
        return Line("Does it work?", f"{text} Better than chance by Harrell's C, not shown by Uno's, "
                    f"{estimate_text(uno)}, which censoring moves less.", "open")
    if found.c.low > 0.5:
        sure = found.n_events >= FEW and place != "training"
        return Line("Does it work?", f"{text} Better than chance.", "good" if sure else "open")
    return Line("Does it work?", f"{text} Not shown to be better than chance.", "bad")


def _over_stage(judged: Judged, place: str) -> Line | None:
    """The comparison with the stage; it says so where the nomogram holds no score, and both are nearly one."""
    line = _against(judged, place, judged.reference, "Better than the stage?")
    if line is None or judged.parts:
        return line
    return replace(line, answer=f"{line.answer} No score has a weight in the nomogram: none adds to the stage.")


def _against(judged: Judged, place: str, other: str, question: str) -> Line | None:
    appraisal = judged.appraisals.get((judged.main, place))
    if appraisal is None or other not in appraisal.versus or not isfinite(appraisal.versus[other].value):
        return None
    difference, name = appraisal.versus[other], judged.labels.get(other, other)
    name += ", one of its own parts," if other in judged.parts else ""
    text = f"C {difference.value:+.3f} against {name} ({interval_of(difference)}, P {p_text(difference.p)})"
    if isfinite(difference.low) and difference.low > 0:
        return Line(question, f"Yes: {text}.", "good")
    if isfinite(difference.high) and difference.high < 0:
        return Line(question, f"No, worse: {text}.", "bad")
    return Line(question, f"Not shown: {text}.", "open")


def strongest_rival(judged: Judged, place: str) -> str | None:
    """The model with the highest C in a cohort that is neither the main one, the reference, nor a simulated truth.

    Args:
        judged: the evaluations of all models.
        place: name of the cohort.
    """
    rivals = {model: e.c.value for (model, split), e in judged.evaluations.items()
              if split == place and model in judged.labels and model not in (judged.main, judged.reference, TRUTH)
              and isfinite(e.c.value)}
    return max(rivals, key=lambda model: rivals[model]) if rivals else None


def _rival(judged: Judged, place: str) -> Line | None:
    """Of rivals that are ahead, else of the strongest other model."""
    ahead = [problem for problem in judged.problems if problem.code == "W-RIVAL"]
    if ahead:
        told = "; ".join(f"{problem.what} ({problem.found})" for problem in ahead)
        return Line("Would a simpler model do?", f"Yes: {told}. Table 10 has all of them.", "bad")
    rival = strongest_rival(judged, place)
    return None if rival is None else _against(judged, place, rival, "Better than the strongest other model?")


def _training(judged: Judged, place: str) -> Line | None:
    found = judged.evaluations.get((judged.main, "training"))
    if found is None or place == "training" or not isfinite(found.c.value):
        return None
    drop = found.c.value - judged.evaluations[judged.main, place].c.value
    how = "out of fold" if judged.out_of_fold else "in sample, and so too good"
    corrected = judged.development.corrected if judged.development else None
    boot = (f"; {corrected.c.value:.3f} after bootstrapping the nomogram step, slope "
            f"{corrected.row('slope')['corrected']:.2f}" if corrected else "")
    return Line("Does it keep what it promised?", f"C {estimate_text(found.c)} in training ({how}){boot}; "
                f"{abs(drop):.3f} {'lower' if drop > 0 else 'higher'} in the other cohort.",
                "good" if drop < 0.05 else "open" if drop < 0.1 else "bad")


def _calibrated(judged: Judged, place: str) -> Line | None:
    calibrations = judged.evaluations[judged.main, place].calibration
    known = {month: c for month, c in calibrations.items() if isfinite(c.oe.value)}
    if not known:
        return Line("Are its probabilities right?", "Cannot be said: no event before a horizon, or follow-up ends "
                    "before it.", "open") if calibrations else None
    month, found = max(known.items())
    oe = found.oe.value
    tone = ("as many events as predicted" if abs(oe - 1) < 0.1 else
            f"{abs(oe - 1):.0%} {'more' if oe > 1 else 'fewer'} events than predicted")
    covers = isfinite(found.oe.low) and found.oe.low <= 1 <= found.oe.high
    text = f"At {month:g} months {tone} (O/E {estimate_text(found.oe)}); slope {estimate_text(found.slope)}."
    narrow = covers and found.oe.low > 1 / NARROW and found.oe.high < NARROW
    ipa = _gain(judged, place, month)
    text += "" if not isfinite(ipa) else f" IPA {ipa:.1%}" + (": no better than no model." if ipa <= 0 else ".")
    mark = "good" if narrow and not ipa <= 0 else "open" if covers else "bad"
    return Line("Are its probabilities right?", text, mark)


def _gain(judged: Judged, place: str, month: float) -> float:
    """The index of prediction accuracy at a horizon; nan where there is none."""
    appraisal = judged.appraisals.get((judged.main, place))
    return appraisal.brier[month].ipa if appraisal and month in appraisal.brier else float("nan")


def _useful(judged: Judged, place: str) -> Line | None:
    appraisal = judged.appraisals.get((judged.main, place))
    known = {m: c for m, c in (appraisal.over_all if appraisal else {}).items() if np.isfinite(c.value).any()}
    if not known:
        return None
    month, found = max(known.items())
    own = appraisal.benefit[month] if appraisal else found
    better = found.thresholds[(found.low > 0) & (own.low > 0)]  # at high risks, treating nobody beats everybody too
    if better.size > 1:
        return Line("Would it help decisions?", f"Net benefit at {month:g} months is above treating everybody and "
                    f"nobody at thresholds from {better.min():.0%} to {better.max():.0%}.", "good")
    where = f", except at {better[0]:.0%}" if better.size else " at any threshold"
    return Line("Would it help decisions?", f"Net benefit at {month:g} months is not shown to be above treating "
                f"everybody and nobody{where}.", "open")


def _groups(judged: Judged, place: str) -> Line | None:
    groups = judged.evaluations[judged.main, place].groups
    appraisal = judged.appraisals.get((judged.main, place))
    if groups is None:
        return Line("Do the risk groups differ?", "The frozen cut-off does not split this cohort.", "open")
    mean = appraisal.restricted_mean if appraisal else Estimate(float("nan"))
    months = (f"; {mean.value:+.1f} event-free months ({interval_of(mean, 1)})" if isfinite(mean.value) else "")
    known = isfinite(groups.hazard_ratio.low)
    text = f"High against low risk: HR {estimate_text(groups.hazard_ratio)}{months}."
    return Line("Do the risk groups differ?", text, "good" if known and groups.hazard_ratio.low > 1 else "open")


def _sure(judged: Judged, place: str) -> Line:
    found = judged.evaluations[judged.main, place]
    events, where = found.n_events, SPLIT_LABELS[place].lower()
    if events < FEW:
        return Line("How sure is this?", f"Not at all: {events} events in the {where}. Every figure here can be "
                    "chance; the intervals are optimistic with so few.", "bad")
    width = f"; the interval of C is {found.c.high - found.c.low:.2f} wide" if isfinite(found.c.low) else ""
    if events < ENOUGH:
        return Line("How sure is this?", f"Moderately: {events} events in the {where}{width}. "
                    f"{ENOUGH} or more are asked of a validation.", "open")
    return Line("How sure is this?", f"{events} events in the {where}{width}.", "good")


def _size(judged: Judged) -> Line | None:
    found = judged.development
    if found is None or found.by_parameters is None:
        return None
    lasso = (f" and {found.by_candidates.n:,} for all {found.candidates:,} candidate features" if found.by_candidates
             else "")
    epp = found.n_events / found.parameters
    return Line("Were there enough patients?", f"{found.n} with {found.n_events} events in training, {epp:.1f} events "
                f"per parameter of the nomogram; Riley's criteria ask for {found.by_parameters.n:,} patients for these "
                f"{found.parameters} parameters{lasso}.", "good" if found.n >= found.by_parameters.n else "open")


def _wrong(judged: Judged) -> Line:
    errors = sorted({p.code for p in judged.problems if p.is_error})
    warnings = sorted({p.code for p in judged.problems if not p.is_error}, key=lambda code: (code not in GRAVE, code))
    if not errors and not warnings:
        return Line("What is wrong?", "Nothing was noticed.", "good")
    told = [_kinds(errors, "error", 4)] if errors else []
    told += [_kinds(warnings, "warning", 6)] if warnings else []
    return Line("What is wrong?", f"{' and '.join(told)}: read them below.", "bad" if errors else "open")


def _kinds(codes: Sequence[str], what: str, most: int) -> str:
    """How many kinds of errors or warnings there are, and the first codes."""
    more = ", ..." if len(codes) > most else ""
    return f"{len(codes)} {'kind' if len(codes) == 1 else 'kinds'} of {what} ({', '.join(codes[:most])}{more})"


def interval_of(estimate: Estimate, digits: int = 3) -> str:
    """The interval of a difference as text, with signs; "no interval" without one.

    Args:
        estimate: the difference.
        digits: decimals.
    """
    if not isfinite(estimate.low):
        return "no interval"
    return f"{estimate.low:+.{digits}f} to {estimate.high:+.{digits}f}"


def difference_text(estimate: Estimate | None, digits: int = 3) -> str:
    """A difference with its interval and P; a dash where there is none.

    Args:
        estimate: the difference, or None.
        digits: decimals.
    """
    if estimate is None or not isfinite(estimate.value):
        return "-"
    p = f", P {p_text(estimate.p)}" if isfinite(estimate.p) else ""
    return f"{estimate.value:+.{digits}f} ({interval_of(estimate, digits)}){p}"
