"""What a simple model would have found: rivals of the deep score, cross-fitted like it, from the same patients.

`fit_rivals` gives one log-hazard a patient and rival, ready to stand beside the scores of `models`:

| rival | what it is |
|---|---|
| `volume_stage` | Cox model of the log tumour volume and the stage |
| `clinical_ridge` | ridge Cox model of every clinical factor and continuous column |
| `image_pca` | ridge Cox model of the leading principal components of the PET on a coarse grid |
| `equal_weights` | radiomics features that repeat no earlier one, each with its sign and the same weight (as ICARE) |
| `embedding` | ridge Cox model of a table of vectors made elsewhere, such as a foundation model's |

A training patient's risk comes from a model that never saw the patient's fold; anybody else's from the model of the
whole training cohort. `rivals_ahead` says which of them beat the study's own models out of fold (W-RIVAL).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mtdlr.cohort.cells import is_missing
from mtdlr.cohort.clinical import read_csv_text
from mtdlr.errors import FitError, Problem, TableError
from mtdlr.nomogram.scores import DEEP_PLAIN
from mtdlr.stats.concordance import concordance
from mtdlr.stats.ranks import midranks
from mtdlr.stats.ridge import PENALTIES, cross_validate_ridge, ridge_path
from mtdlr.survival import Survival

RIVALS = {"volume_stage": "Volume + stage", "clinical_ridge": "Clinical ridge Cox", "image_pca": "Image-PCA ridge Cox",
          "equal_weights": "Equal-weight radiomics", "embedding": "Embedding ridge Cox"}
"""Every rival and the name it is printed with."""
BESIDE = {DEEP_PLAIN: "DeepMTS without measures"} | RIVALS
"""Everything that is judged beside the study's own models."""
JUDGED = {"deepmts": "DeepMTS", "mtdlr": "MTDLR"}
"""The study's own models that rivals are held against."""
COMPONENTS = 40
INNER_FOLDS, SEED = 5, 0
MIN_EVENTS = 10
NEARLY_FREE = 0.01  # a penalty that only keeps separated levels finite
LIMIT_SPEARMAN = 0.8

Matrix = NDArray[np.float64]
Model = Callable[[Matrix], NDArray[np.float64]]
Fit = Callable[[Matrix, Survival], Model]


@dataclass(frozen=True, eq=False)
class Rivals:
    """The rivals' log-hazards (patients, rivals), NaN where an input is missing, and which were left out, and why."""

    risks: pd.DataFrame
    problems: tuple[Problem, ...] = ()


def fit_rivals(
    table: pd.DataFrame, folds: pd.Series, *, stage: str, factors: Mapping[str, Sequence[str]],
    continuous: Sequence[str], inputs: Mapping[str, pd.DataFrame],
) -> Rivals:
    """The rivals of one study.

    Args:
        table: (patients) split, time_months, event and the clinical columns.
        folds: the subfold of each training patient: no fit that scores one has seen the others of it.
        stage: the stage's column.
        factors: levels of the categorical columns, the reference first.
        continuous: the continuous columns.
        inputs: what else there is, a row a patient: `volume` (one column, ml, of the out-of-fold masks), `image`
            (PET of `coarse_pet`), `radiomics` (features in those masks), `embedding` (`read_embedding`).

    Returns:
        Rivals; one without its input is not there, and one that cannot be fitted is left out with W-NORIVAL.
    """
    clinical = clinical_matrix(table, factors, continuous)
    columns = [name for name in clinical if str(name).startswith(f"{stage}=")]
    work: dict[str, tuple[pd.DataFrame, Fit]] = {"clinical_ridge": (clinical, fit_ridge)}
    if "volume" in inputs:
        volume = inputs["volume"].iloc[:, 0]
        work["volume_stage"] = (clinical[columns].assign(log_volume=np.log(volume.where(volume > 0))), fit_free)
    for name, source, fit in (("image_pca", "image", fit_components), ("equal_weights", "radiomics", fit_equal_weights),
                              ("embedding", "embedding", fit_components)):
        if source in inputs:
            work[name] = (inputs[source], fit)
    risks, problems = {}, []
    for name in RIVALS:
        if name not in work:
            continue
        try:
            risks[name] = cross_fitted(work[name][0].reindex(table.index), table, folds, work[name][1])
        except FitError as error:
            problems.append(Problem("W-NORIVAL", f"{RIVALS[name]} cannot be fitted: {error.problems[0].what}",
                                    where="rivals", found=error.problems[0].found))
    return Rivals(pd.DataFrame(risks, index=table.index), tuple(problems))


def cross_fitted(x: pd.DataFrame, table: pd.DataFrame, folds: pd.Series, fit: Fit) -> pd.Series:
    """One log-hazard a patient: of training patients by a fit without their fold, of others by a fit of all.

    Args:
        x: (patients, p); a patient with a value missing gets NaN.
        table: split, time_months, event of the same patients.
        folds: the fold of each training patient.
        fit: from features (n, p) and follow-up to a function of features.

    Raises:
        FitError: E-FEWEVENTS with fewer than ten events among the training patients; what `fit` raises.
    """
    x = x.loc[:, x.notna().any()]  # a column that nobody has says nothing
    whole = x.notna().all(axis=1).to_numpy() if x.shape[1] else np.zeros(len(x), bool)
    values, training = x.to_numpy(float), (table["split"] == "training").to_numpy()
    fold = folds.reindex(table.index).to_numpy()
    surv = Survival(table["time_months"].to_numpy(float), table["event"].to_numpy(bool))
    if (events := int(surv.event[whole & training].sum())) < MIN_EVENTS:
        raise FitError(Problem("E-FEWEVENTS", "too few events to learn from", found=f"{events} events",
                               expected=f"at least {MIN_EVENTS}"))
    risk = np.full(len(x), np.nan)
    parts = [(training & (fold != k), training & (fold == k)) for k in np.unique(fold[training])]
    for inside, outside in [*(parts if len(parts) > 1 else [(training, training)]), (training, ~training)]:
        if (outside & whole).any():
            model = fit(values[inside & whole], surv.take(inside & whole))
            risk[outside & whole] = model(values[outside & whole])
    return pd.Series(risk, index=x.index)


def fit_ridge(x: Matrix, surv: Survival) -> Model:
    """A ridge Cox model of standardised columns, the penalty by inner cross-validation.

    Args:
        x: (n, p), complete.
        surv: follow-up of the n patients.

    Returns:
        The model: (m, p) -> (m,) log-hazards.
    """
    center, scale = _standard(x)
    found = cross_validate_ridge((x - center) / scale, surv, n_folds=INNER_FOLDS, seed=SEED)
    return _linear(center, scale, found.coef[found.best])


def fit_free(x: Matrix, surv: Survival) -> Model:
    """A Cox model of standardised columns with hardly any penalty.

    Args:
        x: (n, p), complete.
        surv: follow-up of the n patients.

    Returns:
        The model: (m, p) -> (m,) log-hazards.
    """
    center, scale = _standard(x)
    return _linear(center, scale, ridge_path((x - center) / scale, surv, np.array([1.0, NEARLY_FREE]))[-1])


def fit_components(x: Matrix, surv: Survival) -> Model:
    """A ridge Cox model of the 40 leading principal components of the columns, which are not standardised.

    Args:
        x: (n, p), complete.
        surv: follow-up of the n patients.

    Returns:
        The model: (m, p) -> (m,) log-hazards.
    """
    center = x.mean(axis=0)
    _, _, basis = np.linalg.svd(x - center, full_matrices=False)
    basis = basis[:COMPONENTS]
    parts = (x - center) @ basis.T
    size = np.sqrt(parts.var(axis=0).sum()) or 1.0
    found = cross_validate_ridge(parts / size, surv, penalties=PENALTIES, n_folds=INNER_FOLDS, seed=SEED)
    return _linear(center, np.full(x.shape[1], size), found.coef[found.best] @ basis)


def fit_equal_weights(x: Matrix, surv: Survival) -> Model:
    """The mean of standardised columns that repeat no earlier one, each with the sign of its own association.

    A column repeats an earlier one when Spearman's correlation of the two is beyond +-0.8.

    Args:
        x: (n, p), complete.
        surv: follow-up of the n patients.

    Returns:
        The model: (m, p) -> (m,) log-hazards.

    Raises:
        FitError: E-NOFEATURES when no column varies.
    """
    varying = np.flatnonzero(x.std(axis=0) > 1e-9 * np.maximum(1.0, np.abs(x).max(axis=0)))
    if not varying.size:
        raise FitError(Problem("E-NOFEATURES", "no feature is complete and varies between patients"))
    ranks = midranks(x[:, varying])
    apart = np.abs(np.atleast_2d(np.corrcoef(ranks, rowvar=False))) <= LIMIT_SPEARMAN
    kept: list[int] = []
    for j in range(varying.size):
        if apart[j, kept].all():
            kept.append(j)
    chosen = x[:, varying[kept]]
    center, scale = _standard(chosen)
    sign = np.sign(_scores((chosen - center) / scale, surv))
    weights = np.zeros(x.shape[1])
    weights[varying[kept]] = sign / scale / len(kept)
    middle = np.zeros(x.shape[1])
    middle[varying[kept]] = center
    return _linear(middle, np.ones(x.shape[1]), weights)


def clinical_matrix(table: pd.DataFrame, factors: Mapping[str, Sequence[str]],
                    continuous: Sequence[str]) -> pd.DataFrame:
    """An indicator for each level but the first, and the continuous columns, (patients, columns).

    A missing value takes the mean of the training cohort.

    Args:
        table: one row a patient, with `split`.
        factors: the levels of each factor; the first is the reference.
        continuous: names of columns of numbers.
    """
    columns: dict[str, pd.Series] = {}
    for name, levels in factors.items():
        known = table[name].isin(levels)
        for level in levels[1:]:
            columns[f"{name}={level}"] = (table[name] == level).astype(float).where(known)
    for name in continuous:
        columns[name] = table[name].astype(float)
    found = pd.DataFrame(columns, index=table.index)
    means = found[(table["split"] == "training").to_numpy()].mean()
    return found.fillna(means)  # a missing value says nothing, and leaves nobody without a risk


def coarse_pet(image: NDArray[np.float32], cells: int = 8) -> NDArray[np.float64]:
    """(cells^3,) mean PET of a prepared image (2, z, y, x) in each cell of a coarse grid.

    Args:
        image: (2, z, y, x), PET first.
        cells: cells along each axis, at most its voxels.

    >>> coarse_pet(np.ones((2, 32, 32, 32), np.float32), 2).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    means = np.asarray(image[0], dtype=np.float64)
    for axis, n in enumerate(means.shape):
        edges = np.linspace(0, n, cells + 1).astype(int)
        means = np.add.reduceat(means, edges[:-1], axis=axis)
        means /= np.diff(edges).reshape([-1 if a == axis else 1 for a in range(3)])
    return means.ravel()


def read_embedding(path: Path, ids: Sequence[str]) -> pd.DataFrame:
    """The vectors of the given patients from a table: patient_id, then numbers; any delimiter, decimal commas too.

    Patients without a row, and rows with a value missing, are NaN: they get no such score.

    Args:
        path: the CSV.
        ids: patients of the study.

    Returns:
        One row for each id, in the order given.

    Raises:
        TableError: those of `read_csv_text`; E-EMBEDDING without patient_id, with columns that are no numbers, a
            patient twice, or nobody of the study.
    """
    table = read_csv_text(path)
    if "patient_id" not in table or table["patient_id"].duplicated().any():
        raise TableError(Problem("E-EMBEDDING", "a table of embeddings has one row a patient, named by patient_id",
                                 where=path.name, remedy="Give each patient one row"))
    text = table.set_index("patient_id")
    table = text.apply(pd.to_numeric, errors="coerce")
    strange = [str(name) for name in text if (table[name].isna() & ~text[name].map(is_missing)).any()]
    if strange or not table.shape[1]:
        raise TableError(Problem("E-EMBEDDING", "the columns of an embedding are numbers", where=path.name,
                                 found=", ".join(strange[:5]) or "no column"))
    known = table.index.intersection(pd.Index(ids))
    if known.empty:
        raise TableError(Problem("E-EMBEDDING", "no patient of the study has an embedding", where=path.name))
    return table.replace([np.inf, -np.inf], np.nan).reindex(list(ids))


def rivals_ahead(risks: pd.DataFrame, table: pd.DataFrame, how: str = "out of fold") -> tuple[Problem, ...]:
    """W-RIVAL for each of DeepMTS and MTDLR that a rival is ahead of in the training cohort.

    Each pair is compared on the patients that have both.

    Args:
        risks: (patients, models and rivals), cross-fitted log-hazards.
        table: split, time_months, event.
        how: how the training cohort was scored.
    """
    problems = []
    for model, label in JUDGED.items():
        pairs = {name: _pair(risks[[model, name]], table) for name in RIVALS if {model, name} <= set(risks)}
        ahead = sorted((name for name, (own, other) in pairs.items() if other > own), key=lambda name: -pairs[name][1])
        if ahead:
            names = ", ".join(f"{RIVALS[name]} {pairs[name][1]:.3f} to {pairs[name][0]:.3f}" for name in ahead)
            problems.append(Problem("W-RIVAL", f"a simpler model is ahead of {label} {how}", where=f"rivals of {label}",
                                    found=f"C-index: {names}",
                                    remedy="Prefer the simpler model unless other cohorts say otherwise"))
    return tuple(problems)


def _pair(risks: pd.DataFrame, table: pd.DataFrame) -> tuple[float, float]:
    """C-index of two risks in the training patients that have both; nan where none can be ordered."""
    rows = ((table["split"] == "training") & risks.notna().all(axis=1)).to_numpy()
    surv = Survival(table["time_months"].to_numpy(float)[rows], table["event"].to_numpy(bool)[rows])
    if not surv.orderable:
        return float("nan"), float("nan")
    first, second = (concordance(risks.iloc[:, k].to_numpy(float)[rows], surv).c.value for k in (0, 1))
    return first, second


def _scores(x: Matrix, surv: Survival) -> NDArray[np.float64]:
    """(p,) derivative of the log partial likelihood of each column at 0: above 0 where higher values are worse."""
    order = np.argsort(-surv.time_months, kind="stable")
    time, event, sorted_x = -surv.time_months[order], surv.event[order], x[order]
    last = np.searchsorted(time, time[event], side="right")
    means = np.cumsum(sorted_x, axis=0)[last - 1] / last[:, None]
    total: NDArray[np.float64] = (sorted_x[event] - means).sum(axis=0)
    return total


def _standard(x: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, SD) of each column; the SD of one that does not vary is 1."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-12 * np.maximum(1.0, np.abs(x).max(axis=0)), scale, 1.0)


def _linear(center: Matrix, scale: Matrix, weights: Matrix) -> Model:
    """The log-hazard of features, summed row by row: who else is in the table rounds nobody's risk."""
    return lambda x: (((x - center) / scale) * weights).sum(axis=1)
