"""One synthetic patient: a head painted, made ill, and scanned by PET and CT on two grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtdlr.synthetic.anatomy import draw_pose, head_and_neck, shoulders, trunk
from mtdlr.synthetic.canvas import Canvas, Grid, Point, Pose, blur, smooth_noise
from mtdlr.synthetic.truth import Disease
from mtdlr.synthetic.tumour import grow
from mtdlr.volume import Volume

FieldOfView = Literal["head", "whole_body"]


@dataclass(frozen=True)
class Scanner:
    """How a centre's scanner sees: voxels (z, y, x), sharpness, noise, and the scale of its SUV.

    Args:
        ct_spacing_mm, pet_spacing_mm: voxel sizes of the head protocol, mm.
        ct_fwhm_mm, pet_fwhm_mm: full widths at half maximum of the point spread.
        ct_noise_hu: standard deviation of the CT noise.
        pet_noise: standard deviation of the PET noise relative to the signal at SUV 1 (it goes with the root of SUV).
        uptake_scale: factor on every SUV.
    """

    ct_spacing_mm: Point
    pet_spacing_mm: Point
    ct_fwhm_mm: float
    pet_fwhm_mm: float
    ct_noise_hu: float
    pet_noise: float
    uptake_scale: float


SCANNERS = {
    "A": Scanner((3.0, 2.0, 2.0), (4.0, 4.0, 4.0), 1.6, 5.5, ct_noise_hu=14, pet_noise=0.13, uptake_scale=1.0),
    "B": Scanner((3.75, 2.2, 2.2), (3.75, 4.7, 4.7), 2.2, 6.8, ct_noise_hu=22, pet_noise=0.18, uptake_scale=1.2),
}
# Size (z, y, x) in mm and middle (x, y, z) in mm from the nasopharynx, of the CT and of the PET.
FIELDS: dict[str, dict[str, tuple[Point, Point]]] = {
    "head": {"ct": ((243, 220, 220), (0, 6, 2)), "pet": ((236, 212, 212), (0, 6, 2))},
    "whole_body": {"ct": ((900, 500, 500), (0, 40, -315)), "pet": ((900, 814, 814), (0, 40, -315))},
}
WHOLE_BODY_SPACING: dict[str, Point] = {"ct": (3.0, 500 / 512, 500 / 512), "pet": (3.0, 4.07, 4.07)}
SCENE_SPACING_MM = 2.0
SLAB = 40  # CT slices made at a time: a whole body at once would take 2 GB


@dataclass(frozen=True, eq=False)
class SyntheticPatient:
    """Scans, masks and truth of one patient. Masks lie on the CT grid.

    Args:
        patient_id: its name.
        pet: SUVbw in g/ml, float32, on its own grid.
        ct: HU, int16.
        true_mask: the primary tumour.
        manual_mask: the primary as an observer contoured it.
        invasion_mask, node_mask: disease outside both masks.
        row: its row of the clinical table, if any.
        truth: its row of the truth table, or its disease.
    """

    patient_id: str
    pet: Volume
    ct: Volume
    true_mask: Volume
    manual_mask: Volume
    invasion_mask: Volume
    node_mask: Volume
    row: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    truth: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_patient(
    disease: Disease | None = None, *, patient_id: str = "A001", center: str = "A", field: FieldOfView = "head",
    voxel_scale: float = 1.0, seed: int = 0
) -> SyntheticPatient:
    """A synthetic patient; the same arguments give the same voxels.

    Args:
        disease: what it has; an average T3 N2 by default.
        patient_id: its name.
        center: A or B, whose scanner is used.
        field: `head` (vertex to shoulders, voxels of the scanner times `voxel_scale`) or `whole_body` (CT 512x512x300).
        voxel_scale: factor on the voxel sizes of the head protocol; 0.5 is near clinical.
        seed: source of pose, shape, texture and noise.

    >>> patient = make_patient(voxel_scale=3, seed=1)
    >>> patient.ct.array.dtype, patient.pet.array.dtype, patient.ct.same_grid(patient.manual_mask)
    (dtype('int16'), dtype('float32'), True)
    """
    disease, scanner = disease or Disease(), SCANNERS[center]
    rng = np.random.default_rng([seed, 20231])
    pose = draw_pose(rng)
    ct_grid, pet_grid = (_scan_grid(kind, scanner, field, voxel_scale, rng) for kind in ("ct", "pet"))
    scene = ct_grid if field == "head" else _coarser(ct_grid)
    canvas = Canvas.of_air(scene)
    upright = Pose(np.eye(3), pose.shift_mm)
    canvas.paint((*shoulders(), *(trunk() if field == "whole_body" else ())), upright)
    marrow = 1.0 if disease.layout is None else float(np.exp(0.35 * disease.layout.marrow))
    canvas.paint(head_and_neck(marrow), pose)
    lesions = grow(canvas, disease, pose, rng)
    pet = pet_grid.volume(_scan_pet(canvas, pet_grid, scanner, rng))
    ct = ct_grid.volume(_scan_ct(canvas, ct_grid, scanner, rng))
    true, manual, invasion, nodes = (
        ct_grid.volume(_on_grid(mask, scene, ct_grid))
        for mask in (lesions.primary, lesions.manual, lesions.invasion, lesions.nodes)
    )
    return SyntheticPatient(patient_id, pet, ct, true, manual, invasion, nodes, truth=vars(disease))


def _scan_grid(kind: str, scanner: Scanner, field: FieldOfView, voxel_scale: float, rng: np.random.Generator) -> Grid:
    """The grid of one scan, its origin off by a part of a voxel so that no two grids coincide."""
    size, middle = FIELDS[field][kind]
    if field == "whole_body":
        return Grid.around(np.array(middle, float) + rng.uniform(-2, 2, 3), size, WHOLE_BODY_SPACING[kind])
    z, y, x = scanner.ct_spacing_mm if kind == "ct" else scanner.pet_spacing_mm
    spacing = (z * voxel_scale, y * voxel_scale, x * voxel_scale)
    return Grid.around(np.array(middle, float) + rng.uniform(-2, 2, 3), size, spacing)


def _coarser(grid: Grid) -> Grid:
    """The same field in voxels of about 2 mm, for painting a whole body in reasonable time."""
    size = tuple(n * step for n, step in zip(grid.shape, grid.spacing_mm, strict=True))
    center = np.array(grid.origin_mm) + (np.array(grid.shape[::-1]) - 1) * grid.spacing_mm[::-1] / 2
    spacing = tuple(max(step, SCENE_SPACING_MM) for step in grid.spacing_mm)
    return Grid.around(center, (size[0], size[1], size[2]), (spacing[0], spacing[1], spacing[2]))


def _scan_pet(canvas: Canvas, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.float32]:
    """SUV on the PET grid: biological variation, point spread, sampling, correlated noise growing with the signal."""
    sigma = scanner.pet_fwhm_mm / 2.3548
    seen = blur(canvas.suv, [sigma / step for step in canvas.grid.spacing_mm])
    signal = _sample(seen, canvas.grid, grid, outside=0.0)
    signal *= 1 + 0.08 * smooth_noise(grid.shape, grid.spacing_mm, 25.0, rng)
    noise = smooth_noise(grid.shape, grid.spacing_mm, 0.8 * scanner.pet_fwhm_mm, rng)
    signal += np.float32(scanner.pet_noise) * np.sqrt(np.maximum(signal, 0.05)) * noise
    return np.asarray(np.maximum(signal, 0) * np.float32(scanner.uptake_scale), np.float32)


def _scan_ct(canvas: Canvas, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """HU on the CT grid: point spread, sampling, noise with a little correlation."""
    sigma = scanner.ct_fwhm_mm / 2.3548
    seen = blur(canvas.hu, [sigma / step for step in canvas.grid.spacing_mm])
    stored = np.empty(grid.shape, np.int16)
    for first in range(0, grid.shape[0], SLAB):
        slices = slice(first, min(first + SLAB, grid.shape[0]))
        slab = grid.part((slices, slice(0, grid.shape[1]), slice(0, grid.shape[2])))
        hu = _sample(seen, canvas.grid, slab, outside=-1000.0)
        hu += np.float32(scanner.ct_noise_hu) * smooth_noise(slab.shape, grid.spacing_mm, scanner.ct_fwhm_mm, rng)
        stored[slices] = np.clip(np.rint(hu), -1024, 3071)
    return stored


def _sample(array: NDArray[np.float32], source: Grid, target: Grid, *, outside: float) -> NDArray[np.float32]:
    """Linear interpolation from one axis-aligned grid to another, axis by axis."""
    for axis in range(3):
        place = (target.origin_mm[2 - axis] - source.origin_mm[2 - axis]
                 + target.spacing_mm[axis] * np.arange(target.shape[axis])) / source.spacing_mm[axis]
        last = array.shape[axis] - 1
        low = np.clip(np.floor(place).astype(int), 0, max(last - 1, 0))
        along = [-1 if a == axis else 1 for a in range(3)]
        weight = np.clip(place - low, 0, 1).astype(np.float32).reshape(along)
        beyond = ((place < -0.5) | (place > last + 0.5)).reshape(along)
        array = np.take(array, low, axis) * (1 - weight) + np.take(array, np.minimum(low + 1, last), axis) * weight
        array = np.where(beyond, np.float32(outside), array) if beyond.any() else array
    return array


def _on_grid(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.bool_]:
    """A mask on another grid: where the interpolated mask reaches one half."""
    if source is target or not mask.any():
        return mask if source is target else np.zeros(target.shape, dtype=bool)
    corners = source.points_mm(np.array([[where.min() - 1, where.max() + 1] for where in np.nonzero(mask)]).T)
    window, moved = target.window(*corners), np.zeros(target.shape, dtype=bool)
    moved[window] = _sample(mask.astype(np.float32), source, target.part(window), outside=0.0) >= 0.5
    return moved
