"""ComBat against neuroCombat 0.2.12 (MIT), and what fit and transform promise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtdlr.errors import FitError
from mtdlr.stats.combat import Combat, fit_combat

# neuroCombat(dat=x.T, batch_col="b", ref_batch=None or "a") with its convergence set to 1e-13: rows 0, 6 and 13.
NEUROCOMBAT = {
    None: [[0.36225211, 4.17349545, 1.92547564, 0.83883552, 7.40543649],
           [0.29818465, 3.34456447, 2.78723292, -0.81829128, 6.71994465],
           [0.8821689, 0.98590619, 2.22667043, 8.1189386, 5.69007137]],
    "a": [[0.0, 2.98332962, 1.23337669, -0.70325873, 6.47056676],
          [0.01850546, 2.358422, 1.90128835, -0.10935725, 5.31869162],
          [0.28068376, 0.33205659, 1.60867251, 6.31275792, 4.65262847]],
}
BATCH = np.array(["a"] * 6 + ["b"] * 5 + ["c"] * 3)


def _features() -> np.ndarray:
    i, j = np.arange(14)[:, None], np.arange(5)[None, :]
    x = np.sin(3.1 * i + 1.7 * j) * (1 + j) + j + 0.05 * i
    x[BATCH == "b"] = x[BATCH == "b"] * 1.5 + 1
    x[BATCH == "c"] -= 0.8
    return np.asarray(x)


def _transformed(fit: Combat, x: np.ndarray) -> np.ndarray:
    moved = np.empty_like(x)
    for name in fit.batches:
        moved[name == BATCH] = fit.transform(x[name == BATCH], name)
    return moved


@pytest.mark.parametrize("reference", [None, "a"])
def test_equals_neurocombat(reference: str | None) -> None:
    """Harmonised values are those of neuroCombat, with and without a reference batch."""
    x = _features()
    np.testing.assert_allclose(_transformed(fit_combat(x, BATCH, reference=reference), x)[[0, 6, 13]],
                               NEUROCOMBAT[reference], atol=1e-8)


def test_new_batch_equals_a_joint_fit_against_the_reference() -> None:
    """A batch that arrives later is harmonised as if it had been there, without the reference's rows."""
    x = _features()
    joint = fit_combat(x, BATCH, reference="a")
    first = BATCH != "c"
    later = Combat.from_dict(json.loads(json.dumps(fit_combat(x[first], BATCH[first], reference="a").as_dict())))
    np.testing.assert_allclose(later.with_batch("c", x[~first]).transform(x[~first], "c"),
                               joint.transform(x[~first], "c"), rtol=1e-12)


def test_reference_batch_stays_as_it_is() -> None:
    """Patients of the reference batch are not touched."""
    x = _features()
    np.testing.assert_array_equal(fit_combat(x, BATCH, reference="b").transform(x[BATCH == "b"], "b").round(12),
                                  x[BATCH == "b"].round(12))


def test_a_shift_and_a_scale_of_a_whole_batch_are_taken_off() -> None:
    """Two large batches of one population that differ by shift and scale have equal moments afterwards."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 30))
    batch = np.repeat(["a", "b"], 300)
    x[300:] = 2.0 * x[300:] + 3.0
    fit = fit_combat(x, batch, reference="a")
    moved = fit.transform(x[300:], "b")
    np.testing.assert_allclose(moved.mean(axis=0), x[:300].mean(axis=0), atol=0.12)
    np.testing.assert_allclose(moved.std(axis=0), x[:300].std(axis=0), rtol=0.1)


def test_a_flat_feature_passes_unchanged() -> None:
    """A feature without variance in the reference has no scale: it is left alone."""
    x = _features()
    x[:, 2] = 7.0
    x[BATCH == "c", 2] = 9.0
    assert (fit_combat(x, BATCH, reference="a").transform(x[BATCH == "c"], "c")[:, 2] == 9.0).all()


def test_one_patient_is_never_harmonised() -> None:
    """A batch of one patient, and a new batch below the minimum, are refused by name."""
    x = _features()
    fit = fit_combat(x[:11], BATCH[:11], reference="a")
    with pytest.raises(FitError, match="E-BATCHSIZE batch c.*1 patient"):
        fit.with_batch("c", x[11:12])
    with pytest.raises(FitError, match="at least 30"):
        fit.with_batch("c", x[11:], minimum=30)
    with pytest.raises(FitError, match="E-BATCHSIZE"):
        fit_combat(x[:12], BATCH[:12])


def test_bad_input_is_named() -> None:
    """An unknown batch, a missing value and other columns have their codes."""
    x = _features()
    fit = fit_combat(x, BATCH)
    with pytest.raises(FitError, match="E-BATCH "):
        fit.transform(x, "z")
    with pytest.raises(FitError, match="E-BATCH "):
        fit_combat(x, BATCH, reference="z")
    with pytest.raises(FitError, match="E-LENGTH"):
        fit.transform(x[:, :3], "a")
    with pytest.raises(FitError, match="E-LENGTH"):
        fit_combat(x, BATCH[:5])
    x[3, 1] = np.nan
    with pytest.raises(FitError, match="E-MISSING"):
        fit_combat(x, BATCH)
