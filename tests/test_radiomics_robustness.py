"""Perturbations and the intraclass correlation that filters features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mtdlr.radiomics.robustness as robustness_module
from mtdlr.radiomics.extract import extract
from mtdlr.radiomics.robustness import perturbed_features, robust_features, robustness
from mtdlr.radiomics.stored import perturbed_tables
from mtdlr.study import RadiomicsSettings
from mtdlr.texture.robustness import intraclass_correlation, noise_level, noisy, perturbed_mask
from mtdlr.volume import Volume


def ball(radius: float = 8.0) -> Volume:
    z, y, x = np.indices((26, 28, 30)) - 13.5
    return Volume.on_grid(z**2 + y**2 + x**2 < radius**2, (2.0, 2.0, 2.0))


def test_icc_of_shrout_and_fleiss() -> None:
    """Shrout and Fleiss' (1979) six targets and four judges have ICC(1,1) = .17, printed interval -.13 to .72."""
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    assert intraclass_correlation(ratings) == pytest.approx((0.166, -0.133, 0.723), abs=1e-3)


def test_icc_limits() -> None:
    """Equal repeats give 1; patients that do not differ, or a missing value, give nan."""
    assert intraclass_correlation(np.array([[1.0, 1.0], [2.0, 2.0]])) == (1.0, 1.0, 1.0)
    assert all(np.isnan(intraclass_correlation(np.ones((3, 2)))))
    assert all(np.isnan(intraclass_correlation(np.array([[1.0, np.nan], [2.0, 2.0]]))))


def test_perturbed_mask() -> None:
    """The contour moves by about what was asked, differently for each seed, the same for the same; never to nothing."""
    mask = ball()
    moved = [perturbed_mask(mask.array, (2.0, 2.0, 2.0), contour_mm=2.0, seed=seed) for seed in (1, 2, 1)]
    assert np.array_equal(moved[0], moved[2]) and not np.array_equal(moved[0], moved[1])
    overlap = 2 * (moved[0] & mask.array).sum() / (moved[0].sum() + mask.array.sum())
    assert 0.7 < overlap < 0.98
    assert perturbed_mask(ball(1.0).array, (2.0, 2.0, 2.0), contour_mm=50.0, seed=3).any()
    assert not perturbed_mask(np.zeros(mask.shape, bool), (2.0, 2.0, 2.0), contour_mm=2.0, seed=0).any()


def test_noise_level() -> None:
    """The level of white noise on a smooth image is found within 5 %, and noise of that level is added."""
    z, y, x = np.indices((30, 30, 30))
    smooth = 50 * np.sin(z / 9) + 30 * np.cos(y / 7) + x
    image = smooth + np.random.default_rng(0).normal(scale=4.0, size=smooth.shape)
    assert noise_level(image) == pytest.approx(4.0, rel=0.05)
    added = noisy(image, (slice(5, 25),) * 3, seed=1) - image
    assert added.std() == pytest.approx(4.0, rel=0.05)


@pytest.mark.slow
def test_robust_features() -> None:
    """Over perturbed patients, volume and mean are robust and a feature of pure noise is not."""
    tables: list[dict[str, dict[str, float]]] = [{} for _ in range(4)]
    for patient in range(6):
        mask = ball(5.0 + patient)
        random = np.random.default_rng(patient)
        uptake = mask.array * (2.0 + patient) + random.gamma(2, 0.2, mask.shape)
        pet = Volume.on_grid(uptake.astype(np.float32), (2.0, 2.0, 2.0))
        settings = RadiomicsSettings(spacing_mm=4.0)
        rows = [extract(pet, None, mask, settings),
                *perturbed_features(pet, None, mask, settings, seeds=(1, 2, 3))]
        for table, row in zip(tables, rows, strict=True):
            table[f"P{patient}"] = {name: row[name] for name in ("shape_MeshVolume", "PET_original_firstorder_Mean")}
            table[f"P{patient}"]["noise"] = random.normal()
    found = [pd.DataFrame.from_dict(table, orient="index") for table in tables]
    assert robust_features(found, 0.75) == ["shape_MeshVolume", "PET_original_firstorder_Mean"]
    assert robustness(found).loc["noise", "icc"] < 0.75


def test_patients_without_a_value() -> None:
    """A patient whose perturbed mask gave no value takes no part; a feature of fewer than two patients has no ICC."""
    given = pd.DataFrame({"a": [1.0, 2.0, 4.0, 8.0], "b": [np.nan, np.nan, np.nan, 1.0]}, index=list("pqrs"))
    rows = {p: [{"a": float(a) * 1.001, "b": float(b)}] for p, a, b in given.itertuples()} | {"s": []}
    (again,) = perturbed_tables(rows, given.columns)
    assert again.loc["s"].isna().all() and list(again.columns) == ["a", "b"]
    found = robustness([given, again])
    assert found.loc["a", "icc"] == pytest.approx(1.0, abs=1e-3) and np.isnan(found.loc["b", "icc"])
    assert robust_features([given, again], 0.75) == ["a"]


def test_contour_and_noise_do_not_share_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contour, PET and CT of every perturbation have a seed of their own, none of them used twice."""
    used: list[int] = []
    monkeypatch.setattr("mtdlr.radiomics.robustness.noisy", lambda image, box, *, seed: used.append(seed) or image)
    moved = robustness_module.perturbed_mask
    monkeypatch.setattr("mtdlr.radiomics.robustness.perturbed_mask",
                        lambda *a, seed, **k: used.append(seed) or moved(*a, seed=seed, **k))
    pet = Volume.on_grid(np.random.default_rng(0).random((24, 24, 24)).astype(np.float32), (2.0, 2.0, 2.0))
    perturbed_features(pet, pet, ball(8.0), RadiomicsSettings(spacing_mm=6.0), seeds=(0, 1))
    assert len(used) == 6 == len(set(used))
