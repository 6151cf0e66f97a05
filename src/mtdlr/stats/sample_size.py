"""How many patients a survival model needs: to be developed without overfitting, and to be judged with precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, inf, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import FitError, Problem, TableError
from mtdlr.stats.concordance import concordance
from mtdlr.stats.cox import fit_cox
from mtdlr.stats.decision import decision_curve
from mtdlr.stats.inference import normal_quantile
from mtdlr.stats.kaplan_meier import kaplan_meier
from mtdlr.survival import Survival

Vector = NDArray[np.float64]

SHRINKAGE = 0.9
"""Global shrinkage factor that criterion 1 asks for: predictions at most 10 % too extreme."""
OPTIMISM = 0.05
"""Largest difference of apparent and adjusted Nagelkerke R2 in criterion 2."""
MARGIN = 0.05
"""Largest error of the overall risk at the horizon in criterion 3."""
USUAL_SHARE = 0.15
"""Share of the largest possible R2 that a model is expected to explain when nothing is known (Riley, BMJ 2020)."""
TARGETS = {"c": 0.1, "oe": 0.2, "slope": 0.2, "net_benefit": 0.2}
"""Widths of the 95 % intervals that are usually asked of an external validation (Riley et al. 2021; pmvalsampsize)."""
LABELS = {"c": "C-index", "oe": "O/E", "slope": "slope", "net_benefit": "net benefit"}
"""What the measures are called in print; the net benefit is standardised."""
SIZES = (50, 100, 200, 400, 800, 1600)

_QUADRATURE = np.polynomial.hermite_e.hermegauss(64)
_PATIENTS = 10_000  # pmsampsize counts whole events in this many
_LARGEST_SD = 8.0  # a concordance of 0.95
_FEWEST_SAMPLES = 0.9  # share of the simulated cohorts in which a measure must be computable


@dataclass(frozen=True)
class DevelopmentSize:
    """Patients that the development of a survival model asks for.

    Args:
        parameters: candidate predictor parameters.
        r2, largest_r2: Cox-Snell R2 that is expected, and the largest that the event rate allows.
        by_shrinkage: patients by criterion 1, a shrinkage factor of 0.9.
        by_optimism: patients by criterion 2, a difference of 0.05 between apparent and adjusted Nagelkerke R2.
        by_risk: patients by criterion 3, the overall risk at the horizon within 0.05.
        n: the largest of the three.
        events: expected events in `n` patients.
        events_per_parameter: `events / parameters`.
    """

    parameters: int
    r2: float
    largest_r2: float
    by_shrinkage: int
    by_optimism: int
    by_risk: int
    n: int
    events: float
    events_per_parameter: float

    def __str__(self) -> str:
        return "\n".join((
            f"{self.by_shrinkage:>8,} patients for a shrinkage factor of {SHRINKAGE:g} (criterion 1)",
            f"{self.by_optimism:>8,} patients for an optimism in R2 of at most {OPTIMISM:g} (criterion 2)",
            f"{self.by_risk:>8,} patients for an overall risk within {MARGIN:g} (criterion 3)",
            f"{self.n:>8,} patients in all, {self.events:,.0f} events, {self.events_per_parameter:.2f} events per "
            f"parameter ({self.parameters:,} parameters; Cox-Snell R2 {self.r2:.3f} of at most {self.largest_r2:.3f})"))


@dataclass(frozen=True, eq=False)
class ValidationSize:
    """Precision of an external validation as the cohort grows.

    Args:
        sizes: (k,), patients.
        events: (k,), mean events by the horizon.
        widths: of each measure `c`, `oe`, `slope`, `net_benefit` (standardised: over the event risk), (k,) expected
            widths of the 95 % interval; nan where more than 10 % of the simulated cohorts could not carry it.
        needed: of each measure, patients for the width in `TARGETS`, interpolated; infinite beyond the largest size.
        c, risk, lost, threshold: what was assumed.
        sd: standard deviation of the log hazard that gives `c`.
        samples: simulated cohorts of each size.
    """

    sizes: tuple[int, ...]
    events: tuple[float, ...]
    widths: Mapping[str, tuple[float, ...]]
    needed: Mapping[str, float]
    c: float
    risk: float
    lost: float
    threshold: float
    sd: float
    samples: int

    @property
    def n(self) -> float:
        """Patients for all four targets; infinite beyond the largest size."""
        return max(self.needed.values())

    def __str__(self) -> str:
        head = f"{'patients':>8} {'events':>7}" + "".join(f"{label:>13}" for label in LABELS.values())
        rows = [f"{n:>8,} {e:>7,.0f}" + "".join(f"{self.widths[name][i]:>13.3f}" for name in TARGETS)
                for i, (n, e) in enumerate(zip(self.sizes, self.events, strict=True))]
        goal = f"{'target':>16}" + "".join(f"{target:>13.3f}" for target in TARGETS.values())
        need = f"{'patients needed':>16}" + "".join(
            f"{n:>13,.0f}" if n < inf else f"{'> ' + format(self.sizes[-1], ','):>13}" for n in self.needed.values())
        return "\n".join(("Width of the 95 % interval:", head, *rows, goal, need))


def largest_r2(rate: float, mean_follow_up: float) -> float:
    """The largest Cox-Snell R2 of a survival model: 1 - exp(2 lnL0 / n) with lnL0 = E ln(E / n) - E.

    Args:
        rate: events per patient and unit of time, > 0.
        mean_follow_up: mean follow-up of the patients in the same unit, > 0.

    References:
        Riley et al. Stat Med 2019 (part II), eq. 23, with E / n as in pmsampsize (the paper prints person-time).

    >>> round(largest_r2(0.065, 2.07), 3)
    0.555
    """
    events = ceil(rate * mean_follow_up * _PATIENTS) / _PATIENTS
    return 1.0 - exp(2.0 * (events * log(events) - events))


def development_size(
    parameters: int, *, rate: float, horizon: float, mean_follow_up: float, r2: float | None = None
) -> DevelopmentSize:
    """Patients for the development of a survival model by the three criteria of Riley et al.

    Args:
        parameters: candidate predictor parameters, >= 1; for penalised models all candidates count.
        rate: events per patient and unit of time, > 0.
        horizon: time of prediction in the same unit, > 0.
        mean_follow_up: mean follow-up in the same unit, > 0.
        r2: expected Cox-Snell R2, of an earlier model after adjustment for optimism; by default 15 % of the largest.

    Raises:
        TableError: E-SAMPLESIZE for a value out of range.

    References:
        Riley et al. Stat Med 2019 (part II: binary and time-to-event); Riley et al. BMJ 2020; R: pmsampsize.

    >>> size = development_size(25, rate=0.065, horizon=2, mean_follow_up=2.07, r2=0.051)
    >>> size.by_shrinkage, size.by_optimism, round(size.events_per_parameter, 2)
    (4286, 866, 23.07)
    """
    for name, value in {"rate": rate, "horizon": horizon, "mean_follow_up": mean_follow_up}.items():
        _within(name, value, 0.0, inf)
    _within("parameters", parameters, 0.0, inf)
    most = largest_r2(rate, mean_follow_up)
    expected = USUAL_SHARE * most if r2 is None else r2
    _within("r2", expected, 0.0, min(most, SHRINKAGE))
    shrinkage = expected / (expected + OPTIMISM * most)
    sizes = (_shrunk(parameters, expected, SHRINKAGE), _shrunk(parameters, expected, shrinkage),
             _for_risk(rate, horizon, mean_follow_up))
    events = max(sizes) * rate * mean_follow_up
    return DevelopmentSize(parameters, expected, most, *sizes, max(sizes), events, events / parameters)


def spread_of(c: float) -> float:
    """Standard deviation of a normal log hazard whose concordance is `c`, uncensored, under proportional hazards.

    A patient with a log hazard d higher has the event first with probability 1 / (1 + exp(-d)).

    Args:
        c: concordance, above 0.5 and below 0.95.

    Raises:
        TableError: E-SAMPLESIZE.

    >>> round(spread_of(0.752), 2)
    1.19
    """
    _within("c", c, 0.5, _concordance_of(_LARGEST_SD))
    return _bisect(_concordance_of, c, 0.0, _LARGEST_SD)


def validation_size(
    c: float,
    risk: float,
    *,
    lost: float = 0.2,
    threshold: float | None = None,
    sizes: Sequence[int] = SIZES,
    samples: int = 500,
    seed: int = 0,
) -> ValidationSize:
    """Precision of C, O/E, calibration slope and net benefit in external cohorts of given sizes, by simulation.

    The model is taken to be right: its log hazard is normal with the spread that gives `c`, event times are
    exponential, patients are lost at a constant rate, follow-up ends at the horizon. Events before a horizon are
    ordered more easily than all events, so the C of such a cohort lies .01 to .03 above `c`.

    Args:
        c: concordance that the model is expected to have there, above 0.5.
        risk: share of patients with the event by the horizon, within (0, 1).
        lost: share of patients lost to follow-up before the horizon, within [0, 1).
        threshold: risk at which one would treat; by default `risk`.
        sizes: numbers of patients, ascending.
        samples: simulated cohorts of each size.
        seed: of the simulation.

    Raises:
        TableError: E-SAMPLESIZE.

    References:
        Riley et al. Stat Med 2022 (external validation, time-to-event); Riley et al. Stat Med 2021; Marsh et al. 2020
        (standardised net benefit).
    """
    at = risk if threshold is None else threshold
    for name, value in {"risk": risk, "threshold": at}.items():
        _within(name, value, 0.0, 1.0)
    _within("lost", lost, -1e-12, 1.0)
    sd = spread_of(c)
    base = _base_hazard(risk, sd)
    found, events = [], []
    for n in sizes:
        rng = np.random.default_rng([seed, n])
        rows = [_simulated(n, sd, base, lost, at, rng) for _ in range(samples)]
        found.append(_widths(np.array([row[1:] for row in rows]), risk))
        events.append(float(np.mean([row[0] for row in rows])))
    widths = {name: tuple(float(row[i]) for row in found) for i, name in enumerate(TARGETS)}
    needed = {name: _crossing(sizes, widths[name], TARGETS[name]) for name in TARGETS}
    return ValidationSize(tuple(sizes), tuple(events), widths, needed, c, risk, lost, at, sd, samples)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        above = f"above {max(low, 0.0):g}" + (f" and below {high:.3g}" if high < inf else "")
        raise TableError(Problem("E-SAMPLESIZE", f"`{name}` is out of range", found=f"{value:g}", expected=above))


def _shrunk(parameters: int, r2: float, shrinkage: float) -> int:
    """Patients for an expected shrinkage factor: p / ((S - 1) ln(1 - R2 / S)) (Riley 2019, eq. 11)."""
    return ceil(parameters / ((shrinkage - 1.0) * log(1.0 - r2 / shrinkage)))


def _for_risk(rate: float, horizon: float, mean_follow_up: float) -> int:
    """Patients for an upper limit of the overall risk at the horizon that is at most `MARGIN` above it."""
    left = 1.0 - MARGIN * exp(rate * horizon)
    if left <= 0.0:
        return 1
    distance = -log(left) / horizon
    return ceil(rate * (1.96 / distance) ** 2 / mean_follow_up)


def _concordance_of(sd: float) -> float:
    """Mean of 1 / (1 + exp(-|d|)) over the difference d of two normal log hazards."""
    grid = np.linspace(0.0, 10.0, 4001)  # |d| has a corner at 0, so one half is integrated
    density = np.exp(-0.5 * grid**2) * sqrt(2.0 / np.pi)
    return float(np.trapezoid(density / (1.0 + np.exp(-sqrt(2.0) * sd * grid)), grid))


def _base_hazard(risk: float, sd: float) -> float:
    """Cumulative hazard at the horizon of a log hazard of 0, so that the mean risk is `risk`."""
    points, weights = _QUADRATURE
    share = weights / weights.sum()

    def mean_risk(log_hazard: float) -> float:
        return float(share @ -np.expm1(-np.exp(log_hazard + sd * points)))

    return exp(_bisect(mean_risk, risk, -60.0, 60.0))


def _bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function reaches a value."""
    while high - low > 1e-12:
        middle = (low + high) / 2.0
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _simulated(
    n: int, sd: float, base: float, lost: float, threshold: float, rng: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """Events, C, log O/E, slope and net benefit of the right model in one cohort; the horizon is 1."""
    lp = rng.normal(0.0, sd, n)
    hazard = base * np.exp(lp)
    leaves = rng.exponential(1.0, n) / -np.log1p(-lost) if lost > 0 else np.full(n, inf)
    event_time = rng.exponential(1.0, n) / hazard
    time = np.maximum(np.minimum(np.minimum(event_time, leaves), 1.0), 1e-9)
    surv = Survival(time, event_time <= np.minimum(leaves, 1.0))
    predicted = np.exp(-hazard)
    try:
        c = concordance(lp, surv).c.value
        fit = fit_cox(lp, surv)
    except FitError:
        return float(surv.n_events), nan, nan, nan, nan
    observed = 1.0 - kaplan_meier(surv).at(1.0)[0].value
    benefit = decision_curve(predicted, surv, 1.0, thresholds=[threshold]).net_benefit[0]
    return (float(surv.n_events), c, log(observed / float((1.0 - predicted).mean())),
            nan if fit.monotone else float(fit.coef[0]), float(benefit))


def _widths(found: NDArray[np.float64], risk: float) -> Vector:
    """Widths of the 95 % intervals of C, O/E (around 1, on the log scale), slope and standardised net benefit."""
    z = normal_quantile(0.95)
    known = np.isfinite(found).mean(axis=0) >= _FEWEST_SAMPLES
    half = np.array([z * np.nanstd(column, ddof=1) if ok else nan for column, ok in zip(found.T, known, strict=True)])
    return np.array([2 * half[0], np.exp(half[1]) - np.exp(-half[1]), 2 * half[2], 2 * half[3] / risk])


def _crossing(sizes: Sequence[int], widths: Sequence[float], target: float) -> float:
    """Patients at which the falling widths reach the target, on logarithmic scales."""
    known = [(log(n), log(w)) for n, w in zip(sizes, widths, strict=True) if w > 0]
    if not known or known[-1][1] > log(target):
        return inf
    x, y = zip(*reversed(known), strict=True)
    return float(ceil(exp(np.interp(log(target), np.maximum.accumulate(y), x))))
