"""SimpleITK images to volumes and back, and files that only SimpleITK reads (NRRD, MetaImage); an optional package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtdlr.errors import Problem, ScanError
from mtdlr.versions import require_extra
from mtdlr.volume import Volume


def is_image(thing: object) -> bool:
    """Whether a thing is a SimpleITK image; SimpleITK is not loaded for it."""
    return type(thing).__module__.startswith("SimpleITK")


def is_installed() -> bool:
    """Whether SimpleITK can be imported."""
    return find_spec("SimpleITK") is not None


def read(path: str | Path, *, channel: int = 0) -> tuple[Volume, tuple[Problem, ...]]:
    """The volume in a file, and warnings: NIfTI by our own reader, any other format by SimpleITK.

    Args:
        path: file.
        channel: of a file with several values a voxel.

    Raises:
        ScanError: what `nifti.read` raises; E-NOFILE, E-NOTIMAGE.
        MtdlrError: E-EXTRA where SimpleITK is needed and not installed.
    """
    from mtdlr.imaging import nifti  # nibabel brings pydicom, 18 MB that an image in memory does not need

    path = Path(path)
    if nifti.is_nifti(path):
        return nifti.read(path)
    if not path.is_file():
        raise ScanError(Problem("E-NOFILE", "a file does not exist", found=str(path)))
    require_extra("itk", f"reading {path.suffix or 'this format'}")
    import SimpleITK as sitk

    try:
        return volume(sitk.ReadImage(str(path)), channel=channel), ()
    except RuntimeError:
        raise ScanError(Problem("E-NOTIMAGE", "SimpleITK cannot read this file as an image", where=path.name)) from None


def volume(image: Any, *, channel: int = 0) -> Volume:
    """A SimpleITK image as a volume; an image of one plane becomes a volume of one plane.

    Args:
        image: SimpleITK.Image in two or three dimensions.
        channel: of an image with several values a voxel.
    """
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    dimensions = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array[..., channel]
    direction, spacing, origin = np.eye(3), np.ones(3), np.zeros(3)
    direction[:dimensions, :dimensions] = np.reshape(image.GetDirection(), (dimensions, dimensions))
    spacing[:dimensions], origin[:dimensions] = image.GetSpacing(), image.GetOrigin()
    affine = np.eye(4)
    affine[:3, :3] = (direction * spacing)[:, ::-1]
    affine[:3, 3] = origin
    return Volume(array[None] if dimensions == 2 else array, affine)


def image(found: Volume) -> Any:
    """A volume as a SimpleITK image on the same grid.

    Args:
        found: any volume.
    """
    import SimpleITK as sitk

    made = sitk.GetImageFromArray(_known(found.array))
    spacing = np.array(found.spacing_mm[::-1])
    made.SetSpacing(spacing.tolist())
    made.SetOrigin(found.affine[:3, 3].tolist())
    made.SetDirection((found.affine[:3, 2::-1] / spacing).ravel().tolist())
    return made


def _known(array: NDArray) -> NDArray:
    """An array of a type that SimpleITK holds."""
    return array.astype(np.uint8) if array.dtype == np.bool_ else np.array(array)
