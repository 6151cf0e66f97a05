"""One patient of a Grand Challenge algorithm: images in /input, results in /output, the model in /opt/ml/model.

    /input/images/pet/*.mha  /input/images/ct/*.mha  /input/clinical-information.json {"tnm_stage": "IVa"}
    /output/images/tumour-segmentation/mask.mha   /output/prognosis.json

PET is in SUV. Change the names of the sockets to those of your challenge. No network is used. The container's entry
point becomes ["/opt/mtdlr/entry", "python", "/opt/mtdlr/grand_challenge.py"].
"""

import json
import sys
import tempfile
from pathlib import Path

import mtdlr
from mtdlr.imaging import itk, nifti

PET, CT, MASK = "images/pet", "images/ct", "images/tumour-segmentation"


def one_image(folder: Path, scratch: Path) -> Path:
    """The only image in a socket's folder, as a NIfTI file in `scratch`.

    Raises:
        SystemExit: where there is none, or more than one.
    """
    found = sorted(path for path in folder.glob("*") if path.name.endswith((".mha", ".nii.gz", ".nii", ".tif")))
    if len(found) != 1:
        sys.exit(f"{folder}: {len(found)} images, expected one")
    volume, _ = itk.read(found[0])
    nifti.write(scratch / f"{folder.name}.nii.gz", volume)
    return scratch / f"{folder.name}.nii.gz"


def main(source: Path, target: Path, model: Path) -> None:
    """Predict the patient in `source`, and write mask and prognosis into `target`."""
    import SimpleITK as sitk

    clinical = json.loads((source / "clinical-information.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        pet, ct = (one_image(source / socket, Path(name)) for socket in (PET, CT))
        prediction = mtdlr.Bundle.load(model).predict(pet=pet, ct=ct, clinical=clinical)
    (target / MASK).mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(itk.image(prediction.mask), str(target / MASK / "mask.mha"), True)
    (target / "prognosis.json").write_text(json.dumps(prediction.as_dict(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path("/input"), Path("/output"), Path("/opt/ml/model"))
    except mtdlr.MtdlrError as error:
        sys.exit("\n".join(map(str, error.problems)))
