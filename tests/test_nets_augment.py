"""Augmentation moves PET, CT and mask together; the paper's flaws are kept only where they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mtdlr.nets.augment import augment, augment_paper, rescanned


def _patient(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright ball in air of -1 (CT) and 0 (PET); the mask is the ball."""
    z, y, x = np.mgrid[:size, :size, :size] - (size - 1) / 2
    ball = torch.from_numpy((z**2 + y**2 + (x - 3) ** 2 < 25).astype(np.float32))
    return torch.stack([ball * 5.0, ball * 1.5 - 1.0])[None], ball[None]


def _batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = _patient()
    return image.repeat(n, 1, 1, 1, 1), mask.repeat(n, 1, 1, 1)


def _moves(mask: torch.Tensor) -> np.ndarray:
    """Centre of mass (z, y, x) of each mask."""
    return np.array([ndimage.center_of_mass(m) for m in mask.numpy()])


@pytest.mark.parametrize("way", [augment, augment_paper])
def test_image_and_mask_move_together(way):
    """After the move the mask still lies on the ball: its Dice with the bright voxels stays above 0.85."""
    image, mask = _batch(8)
    moved, where = way(image, mask, torch.Generator().manual_seed(0))
    bright = (moved[:, 0] > 2.5).float()
    dice = 2 * (bright * where).sum((1, 2, 3)) / (bright + where).sum((1, 2, 3))
    assert dice.min() > 0.7 and dice.mean() > 0.85
    assert not torch.equal(moved[0], moved[1]), "every patient moves its own way"


@pytest.mark.parametrize("way", [augment, augment_paper])
def test_a_seed_makes_the_same_moves(way):
    """The same generator seed gives the same bytes, another seed others; the input is left alone."""
    image, mask = _batch(2)
    before = image.clone()
    first, again, other = (way(image, mask, torch.Generator().manual_seed(s))[0] for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(image, before)


@pytest.mark.slow
def test_modern_shifts_are_spread_evenly_and_small():
    """Shifts lie within 10 of 128 voxels, on both sides, with values in between."""
    image, mask = _batch(64)
    _, moved = augment(image, mask, torch.Generator().manual_seed(0))
    shift = (_moves(moved) - 15.5)[:, 0]
    assert np.abs(shift).max() <= 2.5 + 0.6  # the ball is 3 voxels off axis; 5 degrees move it by 0.3 more
    assert shift.min() < -1.0 and shift.max() > 1.0 and (np.abs(shift) < 1.0).any()


@pytest.mark.slow
def test_paper_shifts_are_all_or_nothing():
    """The published augmentation shifts every sample along every axis by 10 of 128 voxels, never less."""
    image, mask = _batch(32)
    _, moved = augment_paper(image, mask, torch.Generator().manual_seed(0))
    shift = (_moves(moved) - 15.5)[:, 0]
    assert np.abs(np.abs(shift) - 2.0).max() < 0.6 and (shift < 0).any() and (shift > 0).any()


@pytest.mark.slow
def test_left_right_flips_are_along_x_at_one_half():
    """About half of the patients are mirrored: the ball, 3 voxels off the midline, changes sides."""
    image, mask = _batch(64)
    _, moved = augment(image, mask, torch.Generator().manual_seed(1))
    right = (_moves(moved)[:, 2] - 15.5 > 0).mean()
    assert 0.3 < right < 0.7


def test_what_enters_is_air_now_and_zero_in_the_paper():
    """CT from outside is -1 by default; the published fill of 0 puts soft tissue there."""
    image, mask = _batch(4)
    new = augment(image, mask, torch.Generator().manual_seed(0))[0][:, 1]
    old = augment_paper(image, mask, torch.Generator().manual_seed(0))[0][:, 1]
    corners = [(a, b, c) for a in (0, -1) for b in (0, -1) for c in (0, -1)]
    assert all((new[:, a, b, c] == -1.0).all() for a, b, c in corners)
    assert any((old[:, a, b, c] == 0.0).any() for a, b, c in corners)


def test_paper_masks_grow_and_modern_ones_keep_their_size():
    """A threshold of 0.2 dilates the labels by some percent; one half keeps the volume."""
    image, mask = _batch(16)
    volume = float(mask[0].sum())
    new = float(augment(image, mask, torch.Generator().manual_seed(0))[1].sum()) / 16
    old = float(augment_paper(image, mask, torch.Generator().manual_seed(0))[1].sum()) / 16
    assert new == pytest.approx(volume, rel=0.03) and old > 1.05 * volume
    assert set(augment(image, mask, torch.Generator().manual_seed(0))[1].unique().tolist()) <= {0.0, 1.0}


def test_another_scanner_scales_and_blurs_the_pet_and_leaves_the_rest():
    """Total uptake moves by the scale alone, within a factor of e^0.25, for a blur takes nothing away; half of the
    patients lose height against that scale and half gain it; CT and the input keep their bytes, air stays lowest."""
    image, _ = _batch(64)
    image[:, 0] -= 0.5  # air that is not 0
    before = image.clone()
    other = rescanned(image, torch.Generator().manual_seed(0), 2)
    assert torch.equal(image, before) and torch.equal(other[:, 1], image[:, 1])
    uptake, was = other[:, 0] + 0.5, image[:, 0] + 0.5
    scale = uptake.sum((1, 2, 3)) / was.sum((1, 2, 3))
    assert scale.log().abs().max() < 0.25 + 0.03 and scale.log().min() < -0.15 and scale.log().max() > 0.15
    edge = (uptake - scale[:, None, None, None] * was).abs().amax((1, 2, 3)) / was.max()
    peak = uptake.amax((1, 2, 3)) / (scale * was.max())
    assert edge.min() > 0.001 and 0.3 < (peak > 1.001).float().mean() < 0.7
    assert other[:, 0].min() >= -0.5 - 1e-6


def test_a_blur_is_scipys():
    """Where a patient is blurred it is by a Gaussian between 0.15 and 0.45 reaches, as scipy makes it."""
    image, _ = _batch(16)
    other = rescanned(image, torch.Generator().manual_seed(3), 2)
    best = []
    for one in other[:, 0].numpy():
        peak = np.array([np.abs(ndimage.gaussian_filter(image[0, 0].numpy().astype(float), sd, mode="nearest",
                                                        radius=2) * one.sum() / image[0, 0].sum().item() - one).max()
                         for sd in np.linspace(0.3, 0.9, 61)])
        best.append(peak.min())
    assert (np.array(best) < 0.02).sum() >= 4  # the others are sharpened


def test_another_scanner_is_repeated_by_its_seed():
    """The same generator seed gives the same bytes, another seed others, and every patient a scanner of its own."""
    image, _ = _batch(2)
    first, again, other = (rescanned(image, torch.Generator().manual_seed(s), 2) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first[0], first[1])
