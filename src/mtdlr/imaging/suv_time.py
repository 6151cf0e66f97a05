"""When the activity was injected and to which moment the scanner corrected it for decay.

Half of the published errors in SUV (up to 33 %) come from these two times, so every candidate is computed, one is
chosen by a fixed order, and what each of the others would have changed is kept for the audit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from mtdlr.errors import Problem, ScanError

MAX_UPTAKE = timedelta(hours=6)
_HALF_DAY = timedelta(hours=12)
_DAY = timedelta(days=1)
_AGREE = timedelta(seconds=60)


@dataclass(frozen=True)
class Acquisition:
    """When one plane was measured: start, seconds from the reference time to its mean decay, seconds of duration."""

    start: datetime | None
    frame_reference_s: float | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class Clock:
    """The times of a series as its headers give them; None where a header is silent.

    Args:
        decay_reference: (0018,9701), the standard's own statement of the reference time.
        ge: (0009,100D) GE, `siemens`: (0071,1022) Siemens, the same fact in private tags.
        series: series date and time.
        injection: (0018,1078), injection_time: (0018,1072), date unknown.
    """

    decay_reference: datetime | None = None
    ge: datetime | None = None
    siemens: datetime | None = None
    series: datetime | None = None
    injection: datetime | None = None
    injection_time: time | None = None


@dataclass(frozen=True)
class Reference:
    """The moment decay was corrected to, where it came from, and the other candidates."""

    moment: datetime
    source: str
    candidates: tuple[tuple[str, datetime], ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Injection:
    """When the dose was given, and where that came from."""

    moment: datetime
    source: str
    problems: tuple[Problem, ...]


def first_start(acquisitions: Sequence[Acquisition]) -> datetime | None:
    """The earliest acquisition start, None where no plane has one."""
    return min((a.start for a in acquisitions if a.start is not None), default=None)


def mean_decay_s(decay_per_s: float, duration_s: float) -> float:
    """Seconds from the start of a frame to the moment at which its activity equals its mean.

    Args:
        decay_per_s: decay constant of the nuclide, 1/s.
        duration_s: length of the frame, s.

    References:
        DICOM PS3.3 C.8.9.4.1.5: T = ln(x / (1 - exp(-x))) / decay with x = decay * duration.
    """
    x = decay_per_s * duration_s
    return math.log(x / -math.expm1(-x)) / decay_per_s if x > 1e-9 else duration_s / 2.0


def reference_time(clock: Clock, acquisitions: Sequence[Acquisition], decay_per_s: float) -> Reference:
    """The moment a series with DecayCorrection START was corrected to.

    The order is: (0018,9701), the GE and Siemens private tags, the series time where it does not lie after the first
    acquisition, the time computed back from FrameReferenceTime, the first acquisition.

    Args:
        clock: times of the series.
        acquisitions: one for each plane.
        decay_per_s: decay constant in 1/s.

    Raises:
        ScanError: E-NOTIME where no header gives any of them.
    """
    started = first_start(acquisitions)
    backs = _computed_back(acquisitions, decay_per_s)
    named = [("DecayCorrectionDateTime (0018,9701)", clock.decay_reference), ("GE (0009,100D)", clock.ge),
             ("Siemens (0071,1022)", clock.siemens)]
    late = clock.series is not None and started is not None and clock.series > started
    if not late:
        named.append(("series time", clock.series))
    named += [("acquisition time minus FrameReferenceTime", min(backs, default=None)), ("first acquisition", started)]
    if late:
        named.append(("series time", clock.series))
    candidates = [(source, moment) for source, moment in named if moment is not None]
    if not candidates:
        raise ScanError(Problem("E-NOTIME", "the series has neither a series time nor an acquisition time",
                                where="SeriesTime (0008,0031), AcquisitionTime (0008,0032)",
                                remedy="Export the series again without removing times"))
    candidates, problems = _same_days(candidates, started or clock.series)
    source, moment = candidates[0]
    problems += [*_blank_reference(acquisitions), *_doubts(candidates, backs, late, decay_per_s)]
    return Reference(moment, source, tuple(candidates), tuple(problems))


def _computed_back(acquisitions: Sequence[Acquisition], decay_per_s: float) -> list[datetime]:
    """Reference times that follow from each plane's start, duration and FrameReferenceTime.

    A FrameReferenceTime of 0 would put the reference into the middle of a frame: scanners write it for "not known".
    """
    found = []
    for a in acquisitions:
        if a.start is not None and a.frame_reference_s and a.duration_s is not None and a.duration_s > 0:
            back_s = mean_decay_s(decay_per_s, a.duration_s) - a.frame_reference_s
            if abs(back_s) < _DAY.total_seconds():
                found.append(a.start + timedelta(seconds=back_s))
    return found


def _blank_reference(acquisitions: Sequence[Acquisition]) -> list[Problem]:
    """W-FRAMEREF where planes that last some time state 0 for their reference time."""
    blank = sum(1 for a in acquisitions if a.frame_reference_s == 0 and a.duration_s)
    if not blank:
        return []
    return [Problem("W-FRAMEREF", "the frame reference time is 0 although the frame has a duration; it was not used",
                    where="FrameReferenceTime (0054,1300)", found=f"{blank} of {len(acquisitions)} slices")]


def _same_days(
    candidates: list[tuple[str, datetime]], anchor: datetime | None
) -> tuple[list[tuple[str, datetime]], list[Problem]]:
    """Candidates on the anchor's day: de-identification shifts public dates and forgets private ones."""
    moved = []
    for source, moment in candidates:
        near = nearest_day(moment, anchor) if anchor is not None and abs(moment - anchor) > _HALF_DAY else moment
        moved.append((source, near))
    shifted = [source for (source, a), (_, b) in zip(candidates, moved, strict=True) if a != b]
    if not shifted:
        return moved, []
    return moved, [_date_shift(", ".join(shifted))]


def _date_shift(which: str) -> Problem:
    return Problem("W-DATESHIFT", "dates of one series lie more than 12 hours apart; times of day were used",
                   where=which, remedy="Check that de-identification shifted all dates alike")


def nearest_day(moment: datetime, anchor: datetime) -> datetime:
    """The moment's time of day on the day that brings it nearest to the anchor.

    Args:
        moment: only its time of day counts.
        anchor: the moment to come near to.
    """
    same_day = datetime.combine(anchor.date(), moment.time())
    return min((same_day + d * _DAY for d in (-1, 0, 1)), key=lambda m: abs(m - anchor))


def _doubts(
    candidates: list[tuple[str, datetime]], backs: list[datetime], late: bool, decay_per_s: float
) -> list[Problem]:
    """Warnings about a reference time that other headers contradict."""
    source, moment = candidates[0]
    problems = []
    if late:
        problems.append(Problem("W-SERIESLATE", "the series time lies after the first acquisition and was not used as "
                                "reference time", where="SeriesTime (0008,0031)", found=f"{source} used instead"))
    if source == "first acquisition":
        problems.append(Problem("W-REFACQ", "no header gives the decay reference time; the first acquisition was used",
                                where="DecayCorrection START", remedy="Ask the scanner's vendor for (0018,9701)"))
    spread = max(backs) - min(backs) if backs else timedelta()
    if spread > _AGREE:
        problems.append(Problem("W-BEDTIMES", "the planes' own reference times disagree", where="FrameReferenceTime "
                                "(0054,1300)", found=f"{spread.total_seconds():.0f} s", expected="at most 60 s"))
    # A start that differs from the reference is normal where a plane's own reference time explains it.
    others = [(s, m) for s, m in candidates[1:] if not (s == "first acquisition" and backs)]
    for other, at in others:
        if abs(at - moment) > _AGREE and not (late and other == "series time"):
            percent = suv_change_percent(moment, at, decay_per_s)
            problems.append(Problem("W-REFTIMES", f"{other} gives another reference time than {source}", where=other,
                                    found=f"{(at - moment).total_seconds():+.0f} s, which would change SUV by "
                                    f"{percent:+.1f} %"))
    return problems


def suv_change_percent(used: datetime, instead: datetime, decay_per_s: float) -> float:
    """By how many per cent SUV would change with another reference time: a later one raises it.

    Args:
        used: the reference time that was used.
        instead: the other one.
        decay_per_s: decay constant of the nuclide, 1/s.
    """
    return 100.0 * math.expm1(decay_per_s * (instead - used).total_seconds())


def injection_time(clock: Clock, reference: datetime, *, uptake_min: float | None = None) -> Injection:
    """When the dose was given, from the headers or from the uptake time that was given.

    Args:
        clock: times of the series.
        reference: moment that uptake is counted to.
        uptake_min: minutes from injection to the reference; replaces the headers.

    Raises:
        ScanError: E-NOINJECTION where neither says it, E-NEGUPTAKE, E-LONGUPTAKE (over 6 h).
    """
    if uptake_min is not None:
        found = _asked(clock, reference, uptake_min)
    elif _blank(clock, reference):
        raise ScanError(Problem("E-NOINJECTION", "the times of injection and scan were removed: both are 00:00:00",
                                where="RadiopharmaceuticalStartTime (0018,1072), AcquisitionTime (0008,0032)",
                                remedy="Export the series with its times, or give the uptake time: prepare.uptake_min "
                                "(predict: --uptake-min)"))
    elif clock.injection is not None:
        found = _dated(clock, clock.injection, reference)
    elif clock.injection_time is not None:
        found = _undated(clock.injection_time, reference)
    else:
        raise ScanError(Problem("E-NOINJECTION", "the injection time is missing",
                                where="RadiopharmaceuticalStartTime (0018,1072), RadiopharmaceuticalStartDateTime "
                                "(0018,1078)",
                                remedy="Add it, or give the uptake time: prepare.uptake_min (predict: --uptake-min)"))
    _check_uptake(reference - found.moment)
    return found


def _blank(clock: Clock, reference: datetime) -> bool:
    """Whether injection and scan both stand at midnight to the second, as after de-identification."""
    injection = clock.injection.time() if clock.injection is not None else clock.injection_time
    return injection == time() == reference.time()


def _asked(clock: Clock, reference: datetime, uptake_min: float) -> Injection:
    """The injection the reader states, with a warning where the header differs."""
    moment = reference - timedelta(minutes=uptake_min)
    header = clock.injection.time() if clock.injection is not None else clock.injection_time
    if header is None:
        return Injection(moment, "uptake time given", ())
    at = nearest_day(datetime.combine(moment.date(), header), moment)
    if abs(at - moment) <= _AGREE:
        return Injection(moment, "uptake time given", ())
    contradicted = Problem("W-UPTAKEGIVEN", "the uptake time given replaces the header's",
                           found=f"{_minutes(reference - at):.1f} min in the header", expected=f"{uptake_min:g} min")
    return Injection(moment, "uptake time given", (contradicted,))


def _dated(clock: Clock, injection: datetime, reference: datetime) -> Injection:
    """The injection from its full date and time."""
    problems = []
    if clock.injection_time is not None:
        other = nearest_day(datetime.combine(injection.date(), clock.injection_time), injection)
        if abs(other - injection) > _AGREE:
            problems.append(Problem("W-STARTTIMES", "injection time and injection date-time contradict each other; the "
                                    "date-time is used", where="(0018,1072), (0018,1078)",
                                    found=f"{(other - injection).total_seconds():+.0f} s"))
    moment = injection
    if abs(reference - injection) > _HALF_DAY:
        moment = datetime.combine(reference.date(), injection.time())
        moment = moment - _DAY if moment > reference else moment
        problems.append(_date_shift("RadiopharmaceuticalStartDateTime (0018,1078)"))
    return Injection(moment, "RadiopharmaceuticalStartDateTime (0018,1078)", tuple(problems))


def _undated(at: time, reference: datetime) -> Injection:
    """The injection from its time of day: on the reference's day, or the evening before."""
    source = "RadiopharmaceuticalStartTime (0018,1072)"
    moment = datetime.combine(reference.date(), at)
    evening_before = moment - _DAY
    if moment > reference and reference - evening_before <= MAX_UPTAKE:
        midnight = Problem("W-MIDNIGHT", "the injection was taken to lie before midnight, the scan after it",
                           where=source, found=f"uptake {_minutes(reference - evening_before):.0f} min")
        return Injection(evening_before, source, (midnight,))
    return Injection(moment, source, ())


def _check_uptake(uptake: timedelta) -> None:
    """Refuse what no examination can be."""
    if uptake < timedelta():
        raise ScanError(Problem("E-NEGUPTAKE", "the injection lies after the scan", found=f"{_minutes(uptake):.0f} min",
                                expected="30 to 120 min", remedy="Correct the times, or give prepare.uptake_min"))
    if uptake > MAX_UPTAKE:
        raise ScanError(Problem("E-LONGUPTAKE", "the uptake time is too long", found=f"{_minutes(uptake):.0f} min",
                                expected="30 to 120 min", remedy="Correct the times, or give prepare.uptake_min"))


def uptake_warning(uptake_min: float) -> tuple[Problem, ...]:
    """W-UPTAKE for an uptake time outside 30 to 120 min (EANM 2.0 aims at 60)."""
    if 30.0 <= uptake_min <= 120.0:
        return ()
    return (Problem("W-UPTAKE", "the uptake time is unusual: SUVs do not compare with those at 60 min",
                    found=f"{uptake_min:.0f} min", expected="30 to 120 min"),)


def _minutes(delta: timedelta) -> float:
    return delta.total_seconds() / 60.0
