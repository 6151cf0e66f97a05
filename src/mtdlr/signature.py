"""Features -> Lasso-Cox signature -> score (METHOD 6): AutoRadio from predicted masks, ManualRadio from manual ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.errors import BundleError, FitError, Problem
from mtdlr.radiomics.harmonise import CenterPolicy, Harmonisation, fit_harmonisation, large_centers
from mtdlr.radiomics.robustness import robust_features
from mtdlr.spreadsheet import notebook_table
from mtdlr.stats.lasso import LassoCV, Penalties, cross_validate_lasso, stratified_folds
from mtdlr.stats.ranks import midranks
from mtdlr.store import strict_json
from mtdlr.study import SignatureSettings
from mtdlr.survival import Survival


@dataclass(frozen=True)
class Signature:
    """A frozen linear score: sum of coef x (feature - center) / scale over the selected features, over `spread`.

    Args:
        features: names of the selected features.
        center, scale: their mean and SD in the training cohort.
        coef: log-hazard per SD.
        penalty: the lambda that was chosen.
        selected_in: share of the repeated cross-validations' penalties that keep each feature.
        n, n_events, n_candidates: patients, events and features that went in.
        problems: warnings of the fit.
        spread: SD of the sum in the training cohort, so that scores of every fold's signature have one scale; 1 where
            nothing is selected.
        harmonisation: what puts features of several centres on one scale before they are summed; None for no such step.
    """

    features: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[float, ...]
    penalty: float
    selected_in: tuple[float, ...]
    n: int
    n_events: int
    n_candidates: int
    problems: tuple[Problem, ...] = ()
    spread: float = 1.0
    harmonisation: Harmonisation | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return (f"Signature({len(self.features)} of {self.n_candidates} features, {self.n} patients, {self.n_events} "
                f"events, penalty {self.penalty:.4g})")

    def __str__(self) -> str:
        return self.summary()

    @property
    def identity(self) -> str:
        """Every number of the signature but the harmonisation's, unrounded: what a model's digest stands on."""
        kept = [one.name for one in fields(self) if one.name != "harmonisation"]
        return f"Signature({', '.join(f'{name}={getattr(self, name)!r}' for name in kept)})"

    def summary(self) -> str:
        """The features with their log hazard per SD as text, the largest first, and what was noticed."""
        width = max([7, *map(len, self.features)])
        rows = [f"{name:{width}} {coef:+.4f}  in {share:.0%} of the repeats"
                for name, coef, share in self.to_frame()[["coef", "selected_in"]].itertuples()]
        return "\n".join([repr(self), *rows, *map(str, self.problems)])

    def to_frame(self) -> pd.DataFrame:
        """One row a selected feature, the largest coefficient first: coef (log hazard per SD), center, scale,
        selected_in."""
        frame = pd.DataFrame({"coef": self.coef, "center": self.center, "scale": self.scale,
                              "selected_in": self.selected_in}, index=list(self.features), dtype=float)
        return frame.sort_values("coef", key=abs, ascending=False, kind="stable")

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), self.to_frame())

    def measured(self, features: pd.DataFrame, centers: pd.Series | None = None) -> pd.DataFrame:
        """(n, selected) the selected features, harmonised as in `score`.

        Args:
            features: as in `score`.
            centers: as in `score`.

        Raises:
            FitError: E-FEATURE when a selected feature has no column.
        """
        if self.harmonisation is not None and centers is not None:
            features = self.harmonisation.apply(features, centers)
        absent = [name for name in self.features if name not in features.columns]
        if absent:
            raise FitError(Problem("E-FEATURE", "the feature table lacks selected features", found=", ".join(absent)))
        return features[list(self.features)]

    def score(self, features: pd.DataFrame, centers: pd.Series | None = None) -> pd.Series:
        """The score of every row in SD of the training cohort, 0 its mean; NaN where a selected feature is missing.

        Args:
            features: (n, p), one row a patient.
            centers: (n,) name of each patient's centre, which decides how its features are harmonised; None harmonises
                nothing.

        Raises:
            FitError: E-FEATURE when a selected feature has no column.
        """
        values = np.ascontiguousarray(self.measured(features, centers).to_numpy(float))
        terms = (values - np.array(self.center)) / np.array(self.scale) * np.array(self.coef)
        # Summed row by row: a matrix product may round a patient's score by who else is in the table.
        return pd.Series(terms.sum(axis=1) / self.spread, index=features.index)

    def policies(self, features: pd.DataFrame, centers: pd.Series) -> tuple[CenterPolicy, ...]:
        """What `score` does with the features of each centre; nothing where the signature harmonises none.

        Args:
            features: as in `score`.
            centers: as in `score`.
        """
        return () if self.harmonisation is None else self.harmonisation.policies(features, centers)

    def noticed(self, features: pd.DataFrame, centers: pd.Series) -> list[Problem]:
        """W-TRANSDUCTIVE and W-NOTHARMONISED of the centres.

        Args:
            features: as in `score`.
            centers: as in `score`.
        """
        return [one.problem for one in self.policies(features, centers) if one.problem is not None]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        values = asdict(replace(self, harmonisation=None))
        values["penalty"] = self.penalty if isfinite(self.penalty) else None  # none was chosen
        del values["harmonisation"]
        if self.harmonisation is not None:
            values["harmonisation"] = self.harmonisation.as_dict()
        path.write_text(json.dumps(values, indent=1))

    @classmethod
    def load(cls, path: Path) -> Signature:
        """Read it back, equal to what was saved.

        Raises:
            BundleError: E-SIGNATURE for a file that is not a signature.
        """
        try:
            values = strict_json(path.read_text(encoding="utf-8"))
            problems = tuple(Problem(**problem) for problem in values.pop("problems"))
            values["penalty"] = float("nan" if values["penalty"] is None else values["penalty"])
            kept = values.pop("harmonisation", None)  # models that harmonise nothing have none
            harmonisation = None if kept is None else Harmonisation.from_dict(kept)
            values_of: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            read = cls(**values_of, problems=problems, harmonisation=harmonisation)
            rows = [np.array(one, dtype=np.float64) for one in (read.center, read.scale, read.coef, read.selected_in)]
            whole = all(row.shape == (len(read.features),) and np.isfinite(row).all() for row in rows)
            if not whole or not (rows[1] > 0).all() or not (isfinite(read.spread) and read.spread > 0):
                raise ValueError("numbers that no fit gives")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise BundleError(Problem("E-SIGNATURE", "this is not a signature", where=path.name,
                                      found=f"{type(error).__name__}: {error}"[:120],
                                      remedy="Ask the sender for the whole folder again")) from None
        return read


def fit_signature(features: pd.DataFrame, surv: Survival, settings: SignatureSettings,
                  perturbed: Sequence[pd.DataFrame] = ()) -> Signature:
    """The Lasso-Cox (or elastic-net) signature of the given (training) patients alone.

    Rows without features (an empty mask) take no part. The penalty is the median over repeated cross-validations.
    With `perturbed` tables of the same patients, features that these change too much (`settings.min_icc`) take no part.

    Args:
        features: (n, p), one row a patient.
        surv: follow-up of the n patients.
        settings: of the study (`signature`).
        perturbed: tables like `features` of the same patients, from perturbed images; none skips the test of
            robustness.

    Raises:
        FitError: E-NOEVENTS when none of the patients has an event, E-NOFEATURES when no usable feature is left.
    """
    rows = features.notna().mean(axis=1).to_numpy() > 0.5
    table, surv = features[rows], surv.take(rows)
    if surv.n_events == 0:
        raise FitError(Problem("E-NOEVENTS", "no event among the patients with features", where="signature"))
    if perturbed:
        table = table[robust_features([table, *(again[rows] for again in perturbed)], settings.min_icc)]
    names = _candidates(table, settings.max_correlation)
    x = table[names].to_numpy(float)
    center, scale = x.mean(axis=0), x.std(axis=0)
    fits = _repeated(x, surv, settings)
    penalty = _median_penalty(fits, settings.choose)
    coef = _coefficients_at(fits[0], penalty) * scale
    kept = np.flatnonzero(coef)
    spread = float(((x[:, kept] - center[kept]) / scale[kept] @ coef[kept]).std())
    often = np.mean([_coefficients_at(fit, _choice(fit, settings.choose)) != 0 for fit in fits], axis=0)
    return Signature(
        features=tuple(names[j] for j in kept), center=tuple(center[kept].tolist()), scale=tuple(scale[kept].tolist()),
        coef=tuple(coef[kept].tolist()), penalty=float(penalty), selected_in=tuple(often[kept].tolist()),
        n=len(surv), n_events=surv.n_events, n_candidates=len(names), problems=tuple(_warnings(kept, x, surv)),
        spread=spread if spread > 0 else 1.0,
    )


def cross_fit_signature(
    features: pd.DataFrame, surv: Survival, folds: NDArray[np.int64], settings: SignatureSettings,
    perturbed: Sequence[pd.DataFrame] = (), centers: pd.Series | None = None,
) -> tuple[Signature, pd.Series]:
    """(signature of all patients, out-of-fold scores): each score from a signature that never saw its patient.

    Where features are harmonised, the transform of a fold is fitted without its patients too.

    Args:
        features: (n, p) of the training cohort.
        surv: follow-up of the n patients.
        folds: (n,) subfold of each patient: what scores one has seen no other of it.
        settings: of the study (`signature`).
        perturbed: as in `fit_signature`.
        centers: (n,) name of each patient's centre, for `settings.harmonise`.
    """
    scores, empty = pd.Series(np.nan, index=features.index), []
    centers = pd.Series("", index=features.index) if centers is None else centers
    among = large_centers(centers, settings)
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        fitted = fit_or_empty(features[inside], surv.take(inside), settings, [again[inside] for again in perturbed],
                              centers=centers[inside], among=among)
        scores[outside] = fitted.score(features[outside], centers[outside]).to_numpy()
        if not fitted.features:
            empty.append(Problem(
                "W-EMPTYFOLD", "the signature of a fold keeps no feature: its patients score 0, the training mean",
                where=f"signature, subfold {fold}", found=f"{outside.sum()} patients"))
    whole = fit_or_empty(features, surv, settings, perturbed, centers=centers, among=among)
    return replace(whole, problems=(*whole.problems, *empty)), scores


def fit_with_scores(
    features: pd.DataFrame, training: pd.DataFrame, folds: pd.Series, settings: SignatureSettings,
    perturbed: Sequence[pd.DataFrame] = (),
) -> tuple[Signature, pd.Series]:
    """(signature of all training patients, their scores): out of fold, or in sample where there is one fold.

    Args:
        features: (n, p) of the training cohort.
        training: time_months, event and center of the n patients.
        folds: (n,) subfold of each patient: what scores one has seen no other of it.
        settings: of the study (`signature`).
        perturbed: as in `fit_signature`.
    """
    surv = Survival(training["time_months"].to_numpy(float), training["event"].to_numpy(bool))
    centers = training["center"].astype(str)
    if folds.nunique() > 1:
        return cross_fit_signature(features, surv, folds.to_numpy(), settings, perturbed, centers)
    signature = fit_or_empty(features, surv, settings, perturbed, centers=centers,
                             among=large_centers(centers, settings))
    return signature, signature.score(features, centers)


def fit_or_empty(
    features: pd.DataFrame, surv: Survival, settings: SignatureSettings, perturbed: Sequence[pd.DataFrame], *,
    centers: pd.Series | None = None, among: Collection[str] = (),
) -> Signature:
    """`fit_signature` of harmonised features; where it cannot fit one, a signature without features with W-NOSIGNATURE.

    The score of such a signature is 0.

    Args:
        features: (n, p), one row a patient.
        surv: follow-up of the n patients.
        settings: of the study (`signature`).
        perturbed: as in `fit_signature`; harmonised as the features are.
        centers: (n,) name of each patient's centre.
        among: centres that are harmonised, see `large_centers`.
    """
    harmonisation = None if centers is None else fit_harmonisation(features, centers, settings, among)
    try:
        if harmonisation is None or centers is None:
            return fit_signature(features, surv, settings, perturbed)
        fitted = fit_signature(harmonisation.apply(features, centers), surv, settings,
                               [harmonisation.apply(again, centers) for again in perturbed])
        return replace(fitted, harmonisation=harmonisation)
    except FitError as error:
        cause = error.problems[0]
        notice = Problem("W-NOSIGNATURE", "no signature can be fitted: every score is 0", where="signature",
                         found=f"{cause.code} {cause.what}")
        return Signature((), (), (), (), float("nan"), (), len(surv), surv.n_events, 0, (notice,))


def harmonised(
    table: pd.DataFrame, features: Mapping[str, pd.DataFrame], signatures: Mapping[str, Signature]
) -> dict[str, tuple[CenterPolicy, ...]]:
    """By source of the mask, what was done with the features of each centre of one cohort; sources that have features.

    Args:
        table: (patients) of one cohort, with `center`.
        features: (patients, features) by mask source.
        signatures: by mask source.
    """
    found = {source: signature.policies(features[source].loc[table.index], table["center"])
             for source, signature in signatures.items() if features[source].notna().any(axis=None)}
    return {source: policies for source, policies in found.items() if policies}


def unharmonised(
    table: pd.DataFrame, features: Mapping[str, pd.DataFrame], signatures: Mapping[str, Signature]
) -> list[Problem]:
    """W-TRANSDUCTIVE and W-NOTHARMONISED of the cohorts that did not train, once for each centre.

    Args:
        table: (patients) with `split` and `center`.
        features: as in `harmonised`.
        signatures: as in `harmonised`.
    """
    others = table[table["split"] != "training"].groupby("split")
    return list(dict.fromkeys(one.problem for _, rows in others for policies in harmonised(
        rows, features, signatures).values() for one in policies if one.problem is not None))


def _candidates(table: pd.DataFrame, max_correlation: float | None) -> list[str]:
    """Features that vary, are complete, and do not repeat an earlier one."""
    values = table.to_numpy(float)
    complete = np.isfinite(values).all(axis=0)
    spread = np.zeros(values.shape[1])
    spread[complete] = values[:, complete].std(axis=0)
    usable = np.flatnonzero(complete & (spread > 1e-10 * np.maximum(1.0, np.abs(np.nan_to_num(values)).max(axis=0))))
    if not usable.size:
        raise FitError(Problem("E-NOFEATURES", "no feature is complete and varies between patients"))
    if max_correlation is not None and max_correlation < 1:
        usable = usable[_not_redundant(values[:, usable], max_correlation)]
    return [str(table.columns[int(j)]) for j in usable]


def _not_redundant(x: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """Columns whose |Spearman| with every kept earlier column is at most `limit`."""
    ranks = midranks(x)
    correlation = np.abs(np.corrcoef(ranks, rowvar=False))
    correlation = np.atleast_2d(correlation)
    kept: list[int] = []
    for j in range(x.shape[1]):
        if not kept or correlation[j, kept].max() <= limit:
            kept.append(j)
    return np.array(kept, dtype=np.int64)


def _repeated(x: NDArray[np.float64], surv: Survival, settings: SignatureSettings) -> list[LassoCV]:
    """One cross-validation a repeat, each with its own folds."""
    n_folds = max(3, min(settings.folds, surv.n_events))
    return [
        cross_validate_lasso(x, surv, folds=stratified_folds(surv.event, n_folds, settings.seed + repeat),
                             penalties=Penalties(alpha=settings.alpha, n=settings.lambdas))
        for repeat in range(settings.repeats)
    ]


def _choice(fit: LassoCV, choose: str) -> float:
    return float(fit.lambda_1se if choose == "1se" else fit.lambda_min)


def _median_penalty(fits: list[LassoCV], choose: str) -> float:
    """The middle one of the repeats' penalties (the lower of two, so that it is on the path)."""
    penalties = sorted((_choice(fit, choose) for fit in fits), reverse=True)
    return penalties[len(penalties) // 2]


def _coefficients_at(fit: LassoCV, penalty: float) -> NDArray[np.float64]:
    """Coefficients on the features' own scale at a penalty."""
    return fit.path.coef_at(penalty)[0]


def _warnings(kept: NDArray[np.int64], x: NDArray[np.float64], surv: Survival) -> list[Problem]:
    problems = []
    if not kept.size:
        problems.append(Problem("W-NOSIGNATURE", "the Lasso keeps no feature: every score is 0", where="signature"))
    if x.shape[1] > x.shape[0]:
        problems.append(Problem("W-MANYFEATURES", "more features than patients", where="signature",
                                found=f"{x.shape[1]} features, {len(surv)} patients, {surv.n_events} events"))
    return problems
