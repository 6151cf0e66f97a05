"""mtdlr as a BIDS App: run.py BIDS_DIR OUTPUT_DIR participant|group --model MODEL [--participant_label 01 02]

`participant` predicts every subject with a PET and a CT (sub-01/[ses-1/]pet/*_pet.nii.gz with its JSON, and
.../ct/*_ct.nii.gz; BIDS has no CT yet) whose clinical values stand in participants.tsv, and writes a derivative with
the mask and the prediction of each. `group` joins the predictions into group_prediction.tsv. A subject that fails is
named, and does not stop the others.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mtdlr
from mtdlr.imaging import nifti

DESCRIPTION = "dataset_description.json"


def participants(source: Path) -> dict[str, dict[str, str]]:
    """The rows of participants.tsv by participant_id, without empty cells."""
    with (source / "participants.tsv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["participant_id"]: {k: v for k, v in row.items() if v not in ("", "n/a", None)} for row in rows}


def one_scan(subject: Path, kind: str) -> Path:
    """The subject's only file of a kind, `pet` or `ct`, in any session.

    Raises:
        ValueError: where there is none, or more than one.
    """
    found = sorted(subject.glob(f"**/{kind}/*_{kind}.nii.gz"))
    if len(found) != 1:
        raise ValueError(f"{len(found)} {kind} images, expected one")
    return found[0]


def predict_one(model: mtdlr.Bundle, subject: Path, row: Mapping[str, str], target: Path) -> None:
    """Write one subject's mask and prediction."""
    wanted = clinical_columns(model)
    prediction = model.predict(pet=one_scan(subject, "pet"), ct=one_scan(subject, "ct"),
                               clinical={name: value for name, value in row.items() if name in wanted})
    place = target / subject.name / "anat"
    place.mkdir(parents=True, exist_ok=True)
    stem = f"{subject.name}_desc-mtdlr"
    nifti.write(place / f"{stem}_mask.nii.gz", prediction.mask)
    (place / f"{stem}_mask.json").write_text(json.dumps(
        {"Type": "ROI", "Description": "tumour, predicted by mtdlr", "Prediction": prediction.as_dict()}, indent=1),
        encoding="utf-8")


def clinical_columns(model: mtdlr.Bundle) -> set[str]:
    """Clinical columns that the model takes."""
    study = model.frozen.study
    return {study.cohort.stage, *study.nomogram_covariates}


def participant(source: Path, target: Path, model: Path, labels: Sequence[str]) -> int:
    """Predict the subjects; how many failed."""
    bundle, rows, failed = mtdlr.Bundle.load(model), participants(source), 0
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in labels} or set(rows)
    target.mkdir(parents=True, exist_ok=True)
    (target / DESCRIPTION).write_text(json.dumps({
        "Name": "mtdlr predictions", "BIDSVersion": "1.11.1", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "mtdlr", "Version": mtdlr.__version__,
                         "Description": f"model {bundle.frozen.digest}"}]}, indent=1), encoding="utf-8")
    (target / ".bidsignore").write_text("group_prediction.tsv\n", encoding="utf-8")
    for name in sorted(wanted):
        try:
            predict_one(bundle, source / name, rows.get(name, {}), target)
        except (mtdlr.MtdlrError, ValueError) as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
    return failed


def group(target: Path) -> None:
    """Join the predictions of all subjects into one table."""
    rows = []
    for path in sorted(target.glob("sub-*/anat/*_desc-mtdlr_mask.json")):
        made = json.loads(path.read_text(encoding="utf-8"))["Prediction"]
        rows.append({"participant_id": path.name.partition("_")[0], "risk": made["risk"], "group": made["group"],
                     "mask_ml": made["mask_ml"],
                     **{f"survival_{month}_months": one["value"] for month, one in made["survival"].items()}})
    if not rows:
        sys.exit("no predictions; run participant first")
    with (target / "group_prediction.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", restval="n/a", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


def main(words: Sequence[str] | None = None) -> int:
    """The command line of a BIDS App; the exit status."""
    parser = argparse.ArgumentParser(description="Predict prognosis from PET/CT. For research only.")
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("level", choices=["participant", "group"])
    parser.add_argument("--participant_label", nargs="+", default=[])
    parser.add_argument("--model", type=Path, default=Path("/model"), help="model folder made by `mtdlr run`")
    given = parser.parse_args(words)
    if given.level == "group":
        group(given.output_dir)
        return 0
    return 1 if participant(given.bids_dir, given.output_dir, given.model, given.participant_label) else 0


if __name__ == "__main__":
    sys.exit(main())
