"""The tumour mask of one patient as bool voxels on the grid of its CT or PET, from NIfTI, RTSTRUCT or DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtdlr.errors import Problem, ScanError
from mtdlr.imaging import grid, nifti
from mtdlr.imaging.contours import choose_rois, rtstruct_mask, seg_mask
from mtdlr.imaging.dicom_rois import kind_of, structure_names
from mtdlr.imaging.images import Image, grid_facts
from mtdlr.imaging.layout import ScanSet
from mtdlr.volume import Volume

_SMALL_MASK_VOXELS = 8
_MAX_LABEL = 255


def inspect_mask(path: Path, pattern: str, *, assume_geometry: bool = False) -> tuple[Problem, ...]:
    """Doubts about a mask's header, or about the names of its structures.

    Args:
        path: NIfTI, RTSTRUCT or DICOM SEG file.
        pattern: name or shell pattern of the structure that is the tumour; not used for NIfTI.
        assume_geometry: as `nifti.read`.

    Raises:
        ScanError: E-ROINAME, and the errors of `nifti.read_header` and `structure_names`.
    """
    if nifti.is_nifti(path):
        return nifti.read_header(path, assume_geometry=assume_geometry).problems
    return choose_rois(structure_names(path), pattern)[1]


def read_mask(
    scan: ScanSet, pet: Image, ct: Image, *, label: int | None = None, assume_geometry: bool = False
) -> tuple[Volume | None, dict[str, object] | None, tuple[Problem, ...]]:
    """(mask on the grid of CT or PET, its facts, its doubts); None for a patient without one.

    Args:
        scan: names the file and the structure meant.
        pet: the PET it belongs to.
        ct: the CT it belongs to.
        label: which label of a NIfTI mask is the tumour; None takes 1 where there are several.
        assume_geometry: as `nifti.read`.

    Raises:
        ScanError: E-MASKVALUES, E-MASKLABEL, and the errors of `nifti.read`, `rtstruct_mask` and `seg_mask`.
    """
    if scan.mask is None:
        return None, None, ()
    try:
        if nifti.is_nifti(scan.mask):
            mask, problems = _nifti_mask(scan.mask, pet.volume, ct.volume, label, assume_geometry)
            source = "NIfTI"
        else:
            source, frames = kind_of(scan.mask)
            read = seg_mask if source == "SEG" else rtstruct_mask
            mask, problems = read(scan.mask, _drawn_on(scan, pet, ct, frames).volume, scan.mask_pattern)
            problems = (*problems, *_frame_doubt(frames, pet, ct))
    except ScanError as error:
        raise error.at("mask") from None
    voxels = int(np.count_nonzero(mask.array))
    facts = {"source": source, **grid_facts(mask), "voxels": voxels, "volume_ml": round(voxels * mask.voxel_ml, 3)}
    return mask, facts, tuple(p.at("mask") for p in (*problems, *_size_doubts(voxels)))


def _drawn_on(scan: ScanSet, pet: Image, ct: Image, frames: frozenset[str]) -> Image:
    """The image that contours belong to: the CT, unless they name the PET's series or its frame of reference only."""
    keys = {m: {s.key for s in scan.candidates if s.modality == m and s.files == f} for m, f in
            (("PT", scan.pet), ("CT", scan.ct))}
    refers = {k for s in scan.candidates if scan.mask in s.files for k in s.refers_to}
    named = bool(refers & keys["PT"]) and not refers & keys["CT"]
    return pet if named or (pet.frame in frames and ct.frame not in frames) else ct


def _frame_doubt(frames: frozenset[str], pet: Image, ct: Image) -> tuple[Problem, ...]:
    """W-MASKFRAME for contours in a frame of reference that is neither image's."""
    known = {pet.frame, ct.frame} - {""}
    if not frames or not known or frames & known:
        return ()
    return (Problem("W-MASKFRAME", "the contours lie in another frame of reference than PET and CT",
                    where="FrameOfReferenceUID (0020,0052)", remedy="Check that they were drawn on these images"),)


def _nifti_mask(
    path: Path, pet: Volume, ct: Volume, label: int | None, assume_geometry: bool
) -> tuple[Volume, tuple[Problem, ...]]:
    """A NIfTI mask as bool; on a third grid it is brought to the CT's."""
    found, problems = nifti.read(path, assume_geometry=assume_geometry)
    mask, doubts = _binary(found, label)
    if any(mask.same_grid(image, tolerance_mm=0.01) for image in (ct, pet)):
        return mask, (*problems, *doubts)
    moved = grid.resample(mask, ct, interpolation="nearest")
    kept = np.count_nonzero(moved.array) * moved.voxel_ml / max(np.count_nonzero(mask.array) * mask.voxel_ml, 1e-9)
    notice = Problem("W-MASKGRID", "the mask lies on another grid; each CT voxel took the nearest mask voxel",
                     found=f"{100 * kept:.1f} % of its volume kept")
    return moved, (*problems, *doubts, notice)


def _binary(mask: Volume, label: int | None) -> tuple[Volume, tuple[Problem, ...]]:
    """The mask of one label."""
    labels = _labels(mask.array)
    if label is not None or len(labels) > 1:
        chosen = 1 if label is None else label
        if labels and chosen not in labels:
            raise ScanError(Problem("E-MASKLABEL", "the mask does not hold the label",
                                    found=", ".join(map(str, labels)), expected=str(chosen),
                                    remedy="Set cohort.mask_label"))
        several = Problem("W-MASKLABELS", f"the mask holds several labels; {chosen} is taken as the tumour",
                          found=", ".join(map(str, labels)), remedy="Set cohort.mask_label if another is meant")
        return mask.with_array(mask.array == chosen), (several,) if len(labels) > 1 else ()
    unusual = Problem("W-MASKVALUES", "the mask's foreground is not 1", found=str(labels[0] if labels else ""))
    return mask.with_array(mask.array != 0), (unusual,) if labels and labels != [1] else ()


def _labels(array: np.ndarray) -> list[int]:
    """The labels above 0 that a mask holds."""
    low, high = float(array.min()), float(array.max())
    seen = np.zeros(_MAX_LABEL + 1, dtype=bool)
    for slab in array:
        whole = np.clip(slab, 0, _MAX_LABEL).astype(np.uint16)
        if low < 0 or high > _MAX_LABEL or not np.array_equal(whole, slab):
            odd = low if low < 0 else high if high > _MAX_LABEL else float(slab[whole != slab][0])
            raise ScanError(Problem("E-MASKVALUES", "a mask holds whole labels only", found=f"the value {odd:g}",
                                    expected="0 and 1", remedy="Threshold it and save it as labels"))
        seen[whole] = True
    return [int(n) for n in np.flatnonzero(seen) if n]


def _size_doubts(voxels: int) -> tuple[Problem, ...]:
    """W-MASKEMPTY and W-MASKSMALL."""
    if voxels == 0:
        return (Problem("W-MASKEMPTY", "the mask is empty: no radiomics feature can be measured in it",
                        remedy="Check the contour, or leave the mask out"),)
    if voxels < _SMALL_MASK_VOXELS:
        return (Problem("W-MASKSMALL", "the mask is too small for most texture features", found=f"{voxels} voxels"),)
    return ()
