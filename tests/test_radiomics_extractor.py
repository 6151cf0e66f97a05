"""PyRadiomics' extractor by its own names: what it accepts, switches, refuses and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr import texture
from mtdlr.errors import MtdlrError
from mtdlr.imaging import itk, nifti
from mtdlr.radiomics import RadiomicsFeatureExtractor
from mtdlr.texture.patterns import local_patterns
from mtdlr.texture.profile import LocalPattern
from mtdlr.volume import Volume

SPACING = (3.0, 1.5, 2.0)


def block(labels: tuple[int, ...] = (1,)) -> tuple[NDArray, NDArray]:
    """(noise, a label map with a block for each label)."""
    image = np.random.default_rng(0).normal(size=(8, 9, 5 * len(labels) + 2)) * 50
    mask = np.zeros(image.shape, np.uint8)
    for k, label in enumerate(labels):
        mask[2:6, 2:7, 5 * k + 1:5 * k + 5] = label
    return image.astype(np.float32), mask


def means(**settings: Any) -> RadiomicsFeatureExtractor:
    """An extractor of the mean alone."""
    extractor = RadiomicsFeatureExtractor(additionalInfo=False, **settings)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(firstorder=["Mean"])
    return extractor


def test_paths_arrays_volumes_and_images_agree(tmp_path: Path) -> None:
    """A NIfTI path, an array, a volume, a SimpleITK image and a NRRD path of one image give the same number."""
    sitk = pytest.importorskip("SimpleITK")
    image, mask = block()
    volumes = [Volume.on_grid(array, SPACING, (3.0, -7.0, 11.0)) for array in (image, mask)]
    images = [itk.image(volume) for volume in volumes]
    for name, volume, one in zip(("image", "mask"), volumes, images, strict=True):
        nifti.write(tmp_path / f"{name}.nii.gz", volume)
        sitk.WriteImage(one, str(tmp_path / f"{name}.nrrd"))
    pairs: list[tuple[Any, Any]] = [(*volumes,), (*images,)]
    pairs += [(str(tmp_path / f"image{end}"), tmp_path / f"mask{end}") for end in (".nii.gz", ".nrrd")]
    expected = means().execute(image, mask, spacing_mm=SPACING)
    assert expected["original_firstorder_Mean"] == pytest.approx(image[mask == 1].mean())
    assert all(means().execute(*pair) == expected for pair in pairs)


def test_a_turned_image_goes_to_simpleitk_and_back() -> None:
    """Spacing, origin and direction of an oblique volume survive SimpleITK, and points lie where SimpleITK has them."""
    pytest.importorskip("SimpleITK")
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * SPACING, (5.0, -8.0, 2.0)
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), affine)
    image = itk.image(volume)
    assert itk.volume(image).affine == pytest.approx(affine)
    assert image.TransformIndexToPhysicalPoint((3, 2, 1)) == pytest.approx(volume.points_mm((1, 2, 3)))
    assert itk.volume(image[:, :, 0]).shape == (1, 3, 4)


def test_labels_and_channels() -> None:
    """`label` chooses the region, `label_channel` the mask, and a missing label is refused with those found."""
    image, mask = block((1, 2))
    for label in (1, 2):
        found = means().execute(image, mask, label=label, spacing_mm=SPACING)
        assert found["original_firstorder_Mean"] == pytest.approx(image[mask == label].mean())
    both = np.stack([mask, mask == 2], axis=-1).astype(np.uint8)
    second = means(label_channel=1).execute(image, both, spacing_mm=SPACING)
    assert second["original_firstorder_Mean"] == pytest.approx(image[mask == 2].mean())
    with pytest.raises(MtdlrError, match=r"E-NOLABEL.*labels 1, 2.*expected 7"):
        means().execute(image, mask, label=7, spacing_mm=SPACING)


def test_switches() -> None:
    """Classes, features and image types are switched one by one or together, as in PyRadiomics."""
    extractor = RadiomicsFeatureExtractor(additionalInfo=False)
    assert "shape2D" not in extractor.enabledFeatures and extractor.enabledImagetypes == {"Original": {}}
    extractor.enableAllFeatures()
    assert sorted(extractor.enabledFeatures) == extractor.featureClassNames == sorted(texture.CLASSES)
    extractor.disableAllFeatures()
    extractor.enableFeatureClassByName("ngtdm")
    extractor.enableFeatureClassByName("glcm")
    extractor.enableFeatureClassByName("glcm", False)
    extractor.enableAllImageTypes()
    extractor.enableImageTypeByName("Wavelet", False)
    extractor.enableImageTypeByName("LoG", customArgs={"sigma": [2.0]})
    found = extractor.execute(*block(), spacing_mm=SPACING)
    assert {name.split("_")[1] for name in found} == {"ngtdm"}
    assert {name.split("_")[0] for name in found} == {"exponential", "gradient", "lbp-2D", "log-sigma-2-0-mm-3D",
                                                      "logarithm", "original", "square", "squareroot"}
    extractor.disableAllImageTypes()
    assert not extractor.execute(*block(), spacing_mm=SPACING)


def test_values_are_numbers_and_facts_keep_their_types() -> None:
    """A feature is a numpy number; diagnostics are tuples, numbers and mappings as in PyRadiomics, or left out."""
    extractor = means(binWidth=5)
    extractor.addProvenance()
    found = extractor.execute(*block(), spacing_mm=SPACING)
    assert found["original_firstorder_Mean"].item() == float(found["original_firstorder_Mean"])
    assert found["diagnostics_Image-original_Spacing"] == (2.0, 1.5, 3.0)
    assert found["diagnostics_Configuration_Settings"]["binWidth"] == 5
    assert list(found)[-1] == "original_firstorder_Mean"
    extractor.addProvenance(False)
    assert list(extractor.execute(*block(), spacing_mm=SPACING)) == ["original_firstorder_Mean"]


def test_parameters_from_everywhere(tmp_path: Path) -> None:
    """A file, a mapping and JSON text give the same features; a keyword goes before them."""
    content = {"setting": {"binWidth": 7, "additionalInfo": False}, "featureClass": {"glcm": ["Contrast"]}}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(content))
    from_json = RadiomicsFeatureExtractor()
    from_json.loadJSONParams(path.read_text())
    ways = [RadiomicsFeatureExtractor(str(path)), RadiomicsFeatureExtractor(content), from_json]
    found = [way.execute(*block(), spacing_mm=SPACING) for way in ways]
    assert found[0] == found[1] == found[2] and list(found[0]) == ["original_glcm_Contrast"]
    assert RadiomicsFeatureExtractor(path, binWidth=9).execute(*block(), spacing_mm=SPACING) != found[0]


@pytest.mark.parametrize(("content", "words"), [
    ({"imageType": {"LBP3D": {}}}, "LBP3D.*scipy before 1.17"),
    ({"featureClass": {"shape": ["Volume"]}}, "MeshVolume"),
    ({"inputImage": {"Original": {}}}, "imageType"),
    ({"voxelSetting": {"kernelRadius": 0}}, "kernelRadius"),
    ({"setting": {"lbp2DMethod": "nonuniform"}}, "lbp2DMethod"),
    ({"voxelSetting": {"initValue": "none"}}, "initValue"),
])
def test_what_is_not_made_is_refused_by_name(content: dict[str, Any], words: str) -> None:
    """LBP3D, names of old versions and settings out of range are E-PARAMETERS, with what to write instead."""
    with pytest.raises(MtdlrError, match=f"E-PARAMETERS.*{words}"):
        RadiomicsFeatureExtractor(content)


def test_arrays_need_a_voxel_size() -> None:
    """Arrays without spacing, and a file that is no image, are one typed line."""
    with pytest.raises(MtdlrError, match="E-GEOMETRY.*spacing_mm"):
        means().execute(*block())


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    """A file that SimpleITK cannot read, and one that does not exist, are named."""
    pytest.importorskip("SimpleITK")
    (tmp_path / "image.nrrd").write_text("nothing")
    for name, code in (("image.nrrd", "E-NOTIMAGE"), ("none.nrrd", "E-NOFILE")):
        with pytest.raises(MtdlrError, match=code):
            means().execute(tmp_path / name, tmp_path / name)


def test_local_patterns() -> None:
    """Patterns of whole numbers, where ties abound, equal scikit-image's in every method and along every axis."""
    stored = json.loads((Path(__file__).parent / "reference" / "lbp2d.json").read_text())
    plane = np.array(stored["image"], float)
    for case in stored["cases"]:
        for axis in range(3):
            image = np.stack([plane, plane]).swapaxes(0, axis)
            pattern = LocalPattern(case["radius"], case["samples"], case["method"], axis)
            whole = local_patterns(image, tuple(slice(0, n) for n in image.shape), pattern)
            assert whole.swapaxes(0, axis)[1] == pytest.approx(np.array(case["pattern"]), abs=1e-11)
            box = tuple(slice(0, 2) if a == axis else slice(2, 5) for a in range(3))
            assert np.array_equal(local_patterns(image, box, pattern), whole[box])


def test_maps_of_the_region_alone() -> None:
    """A map holds each voxel's own neighbourhood inside the region and `initValue` outside; a Volume for arrays."""
    image, mask = block()
    extractor = means(kernelRadius=1, initValue=-1.0)
    found = extractor.execute(image, mask, voxelBased=True, spacing_mm=SPACING)["original_firstorder_Mean"]
    assert found.shape == (6, 7, 6) and found.spacing_mm == SPACING
    inside = found.array[1:-1, 1:-1, 1:-1]
    assert np.count_nonzero(found.array != -1.0) == inside.size == np.count_nonzero(mask)
    assert inside[0, 0, 0] == pytest.approx(image[2:4, 2:4, 1:3].mean())


def test_outline_does_not_know_its_axis() -> None:
    """A plane region has the same outline whichever axis it lies across; one that is no plane has none."""
    flat = np.random.default_rng(2).random((7, 8)) > 0.4
    found = []
    for axis in range(3):
        extractor = RadiomicsFeatureExtractor(additionalInfo=False, force2D=True, force2Ddimension=axis)
        extractor.disableAllFeatures()
        extractor.enableFeatureClassByName("shape2D")
        thick = np.zeros((3, *flat.shape), bool)
        thick[1] = flat
        turned = np.moveaxis(thick, 0, axis)
        found.append(extractor.execute(turned * 1.0, turned, spacing_mm=(1.0, 1.0, 1.0)))
        turned = np.moveaxis(np.stack([flat] * 3), 0, axis)
        assert np.isnan(list(extractor.execute(turned * 1.0, turned, spacing_mm=(1.0, 1.0, 1.0)).values())).all()
    assert found[0] == found[1] == found[2] and len(found[0]) == 9
    in_space = RadiomicsFeatureExtractor({"featureClass": {"shape2D": None}, "setting": {"additionalInfo": False}})
    assert not in_space.execute(flat[None] * 1.0, flat[None], spacing_mm=(1.0, 1.0, 1.0))
