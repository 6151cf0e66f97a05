"""One new patient through a frozen model: the same stage functions as in a run, in the same order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from mtdlr.bundle import read_bundle
from mtdlr.errors import Problem, ScanError, StoreError
from mtdlr.explain import explain_patient
from mtdlr.imaging import nifti
from mtdlr.imaging.grid import mask_onto
from mtdlr.imaging.layout import ScanSet, discover, given_files
from mtdlr.infer import Networks, load_networks, score_patient
from mtdlr.model import FrozenModel, lower_bounds
from mtdlr.nets.device import Name
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.scores import IN_SAMPLE, combine_scores
from mtdlr.prepare import Prepared, prepare, read_patient
from mtdlr.prepared import PatientScore, load_mean_image, narrower
from mtdlr.radiomics.extract import patient_features, patient_pet_parameters
from mtdlr.report.figures import attribution_figure, nomogram_figure, save, scan_figure
from mtdlr.report.model_card import model_card
from mtdlr.report.patient_page import patient_page
from mtdlr.report.pdf import can_write_pdf, write_pdf
from mtdlr.report.prediction import Prediction
from mtdlr.shift import Shift, image_hashes, patient_numbers, physical_values, scanner_labels
from mtdlr.shift.aggregates import Aggregates
from mtdlr.shift.network import judge_networks
from mtdlr.store import disk_problem
from mtdlr.study import MAIN
from mtdlr.volume import Volume

_LESS_MM = 15.0
_MOVED = float(np.log(1.5))  # of the log hazard


class PredictionOptions(TypedDict, total=False):
    """Keywords of `Bundle.predict` and `Bundle.predict_prepared`: those of the latter."""

    explain: bool
    accept_shift: bool
    center: str


@dataclass(frozen=True)
class _Options:
    """Those keywords with their defaults: a misspelt one fails here, before minutes of work."""

    explain: bool = False
    accept_shift: bool = False
    center: str = ""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A frozen model, ready to predict on a device."""

    frozen: FrozenModel
    device: Name = "auto"

    @classmethod
    def load(cls, folder: str | Path, *, device: Name = "auto") -> Bundle:
        """The model in a folder.

        Args:
            folder: made by a run.
            device: where its networks score; `auto` is the first NVIDIA card if there is one, else the processor.

        Raises:
            BundleError: as `read_bundle`.
        """
        return cls(read_bundle(folder), device)

    @cached_property
    def networks(self) -> Networks:
        """The networks, loaded once."""
        return load_networks(self.frozen.networks, device=self.device)

    def predict(
        self, patient: str | Path | None = None, *, pet: str | Path | None = None, ct: str | Path | None = None,
        clinical: Mapping[str, Any] | None = None, series: Sequence[str] = (), uptake_min: float | None = None,
        **options: Unpack[PredictionOptions],
    ) -> Prediction:
        """The prediction for one patient.

        Args:
            patient: a DICOM folder or zip, or a folder with NIfTI files; or give `pet` and `ct`.
            pet: a NIfTI file, or a folder or zip of DICOM files.
            ct: likewise.
            clinical: every clinical covariate of the nomogram, under its column's name.
            series: DICOM series to take instead of those chosen (UID, key or pattern of the description).
            uptake_min: minutes from injection to scan, where the headers lack them.
            explain: also say where in the images the DeepMTS-Score came from (minutes, on the full grid); False by
                default.
            accept_shift: predict a scan unlike the training scans too; the refusal stays as a warning, on record. False
                by default.
            center: name of the patient's centre where it is one of training; a model with harmonised features needs it.

        Raises:
            ScanError: what reading and preparing raise; E-MANYPATIENTS where the folder holds several.
            TableError: E-CLINICAL when a clinical value is missing or not one the model knows.
        """
        chosen, row = _Options(**options), self.frozen.clinical(clinical or {})
        settings = self.frozen.study.prepare
        settings = settings.model_copy(update={"uptake_min": uptake_min or settings.uptake_min})
        scan = read_patient(one_scan(patient, pet, ct), settings, series=series)
        return self._predicted(prepare(scan, settings, patient_id="patient"), row, chosen)

    def predict_prepared(self, prepared: Prepared, clinical: Mapping[str, Any],
                         **options: Unpack[PredictionOptions]) -> Prediction:
        """The prediction for a patient that is prepared already.

        Args:
            prepared: the patient's images.
            clinical: clinical values, by column name.
            explain: as `predict`.
            accept_shift: as `predict`.
            center: as `predict`.

        Raises:
            MtdlrError: as `predict`.
        """
        return self._predicted(prepared, clinical, _Options(**options))

    def _predicted(self, prepared: Prepared, clinical: Mapping[str, Any], options: _Options) -> Prediction:
        shift, study = self._shift(prepared, options.accept_shift), self.frozen.study
        scored = score_patient(prepared, self.networks, None, study.score)
        if shift is not None and self.frozen.aggregates is not None:
            shift = shift.joined(_fit(judge_networks(self.frozen.aggregates.reference, scored.bottlenecks),
                                      options.accept_shift))
        deep = deep_scores(self.frozen, scored)
        features, found = patient_features(prepared, scored.mask, study.radiomics)
        signature, measured = self.frozen.signatures["auto"], pd.DataFrame([features], index=["patient"])
        where = pd.Series([options.center], index=["patient"])
        row = deep.assign(auto_radio=signature.score(measured, where), **dict(clinical))
        if shift is not None and self.frozen.aggregates is not None:
            shift = shift.joined(*self.frozen.aggregates.later(row, signature.measured(measured, where)))
        prediction = replace(
            self._read_off(row, prepared, scored.mask, clinical, (
                *(() if shift is None else shift.problems), *trained_on(self.frozen.aggregates, prepared),
                *prepared.problems, *field_doubt(self.frozen, self.networks, prepared, row), *scored.problems, *found,
                *signature.noticed(measured, where))),
            shift=shift, lower_bound_months=float(lower_bounds(self.frozen, row).iloc[0]), model=self.frozen.digest,
            card=model_card(self.frozen), uptake=patient_pet_parameters(prepared, scored.mask))
        return prediction if not options.explain else replace(prediction, attribution=explain_patient(
            prepared.image, scored.mask, self.networks["deepmts"], self.frozen.scales["deepmts"],
            load_mean_image(self.frozen.mean_image)))

    def _shift(self, prepared: Prepared, accept: bool) -> Shift | None:
        """How far the scan lies from the training scans.

        Raises:
            ScanError: E-SHIFT, E-PHYSICAL where it lies too far and is not accepted.
        """
        if self.frozen.aggregates is None:
            return None
        reference = self.frozen.aggregates.reference
        return _fit(reference.judge(patient_numbers(prepared), physical_values(prepared), scanner_labels(prepared)),
                    accept)

    def _read_off(
        self, row: pd.DataFrame, prepared: Prepared, mask: Volume, clinical: Mapping[str, Any],
        problems: tuple[Problem, ...]
    ) -> Prediction:
        """Points and survival from the nomogram.

        Raises:
            ScanError: E-NOSCORE when a score could not be computed.
        """
        nomogram = self.frozen.nomograms[MAIN]
        missing = [name for name in _scores_of(nomogram, row) if row[name].isna().any()]
        if missing:
            raise ScanError([Problem("E-NOSCORE", "a score of the nomogram could not be computed",
                                     found=", ".join(missing)), *problems])
        risk, curve = float(nomogram.log_hazard(row)[0]), nomogram.survival(row)
        survival = {month: curve.estimate(0, month) for month in nomogram.months}
        cutoff = self.frozen.cutoffs.get(MAIN)
        scores = {str(name): float(value) for name, value in row.iloc[0].items()
                  if name not in clinical and not str(name).endswith(IN_SAMPLE)}
        return Prediction(risk, survival, "" if cutoff is None else ("high" if risk >= cutoff else "low"),
                          {str(k): float(v) for k, v in nomogram.points(row).iloc[0].items()}, scores, clinical, mask,
                          prepared, nomogram, (*self.frozen.problems, *problems, *nomogram.outside(row)))


def deep_scores(model: FrozenModel, scored: PatientScore) -> pd.DataFrame:
    """The networks' scores of one new patient on the model's scales, in a row "patient".

    Args:
        model: whose networks scored the patient.
        scored: what they gave.
    """
    return combine_scores({"patient": {"risks": scored.risks}}, pd.Series(dtype=int), model.study.singletask.network,
                          model.scales).table


def field_doubt(
    model: FrozenModel, networks: Networks, prepared: Prepared, row: pd.DataFrame
) -> tuple[Problem, ...]:
    """W-FIELDRISK where the risk depends on where the scan ends.

    Where PET or CT end inside the region, the networks score the patient once more without the scan's last 15 mm. The
    warning stands where that changes the risk group, or the hazard by half.

    Args:
        model: the frozen model.
        networks: its networks, loaded.
        prepared: the patient.
        row: the patient's scores and clinical values; the radiomic score keeps its value.
    """
    less, nomogram = narrower(prepared, _LESS_MM), model.nomograms[MAIN]
    if less is None or row[_scores_of(nomogram, row)].isna().to_numpy().any():
        return ()
    needed = {name: found for name, found in networks.items()
              if name == "deepmts" or "single_task" in nomogram.design.variables}
    again = score_patient(less, needed, None, model.study.score)
    absent = {name: (float("nan"),) * len(found) for name, found in networks.items()}
    scored = deep_scores(model, replace(again, risks={**absent, **again.risks}))
    before, after = (float(nomogram.log_hazard(one)[0]) for one in (row, row.assign(**scored)))
    cutoff = model.cutoffs.get(MAIN)
    crossed = cutoff is not None and (before >= cutoff) != (after >= cutoff)
    if not crossed and abs(after - before) < _MOVED:
        return ()
    return (Problem("W-FIELDRISK", "the risk depends on where the scan ends", where="region",
                    found=f"log hazard {before:.2f}, and {after:.2f} without the scan's last {_LESS_MM:g} mm"
                    + ", in the other risk group" * crossed,
                    expected=f"the same risk group, and a hazard that moves by less than {np.expm1(_MOVED):.0%}",
                    remedy="Use a scan that covers the region, before anybody cropped it"),)


def _fit(shift: Shift, accept: bool) -> Shift:
    """The shift of a patient who may have a prognosis.

    Raises:
        ScanError: E-SHIFT, E-PHYSICAL where the patient lies too far outside and is not accepted.
    """
    if accept:
        return shift.accepted()
    if shift.refused:
        raise ScanError(shift.problems)
    return shift


def trained_on(aggregates: Aggregates | None, prepared: Prepared) -> tuple[Problem, ...]:
    """W-TRAINED where the model saw this scan in training, by the salted hashes of its images.

    Args:
        aggregates: of the model's training patients; None where it keeps none.
        prepared: the patient.
    """
    if aggregates is None or not aggregates.holds(image_hashes(prepared)):
        return ()
    return (Problem("W-TRAINED", "the model was trained on this very scan: the prediction looks better than it is",
                    where="scan", remedy="Use its cross-fitted scores, in scores.csv of the run"),)


def write_prediction(prediction: Prediction, folder: Path) -> None:
    """Write report.html, prediction.json, mask.nii.gz, nomogram.svg and overview.png; report.pdf where WeasyPrint is
    installed, attribution.png where the prediction is explained.

    mask.nii.gz lies on the CT's own grid, within the region; mask_network.nii.gz is the network's own.

    Args:
        prediction: of `predict`.
        folder: a folder that is empty or does not exist.

    Raises:
        StoreError: as `claim_folder`; E-DISKFULL, E-READONLY: the folder is then as empty as before.
    """
    claim_folder(folder)
    try:
        _write_files(prediction, folder)
    except BaseException as error:
        for path in folder.iterdir():  # half a prediction could be taken for a whole one
            path.unlink(missing_ok=True)
        if isinstance(error, PermissionError):
            raise StoreError(_not_writable(folder, error)) from None
        if isinstance(error, OSError) and (problem := disk_problem(error)):
            raise StoreError(replace(problem, where=folder.name, remedy="Choose another disk with -o")) from None
        raise


def _write_files(prediction: Prediction, folder: Path) -> None:
    (folder / "prediction.json").write_text(json.dumps(prediction.as_dict(), indent=1, allow_nan=False, default=str))
    (folder / "report.html").write_text(page := patient_page(prediction), encoding="utf-8")
    if can_write_pdf():
        write_pdf(page, folder / "report.pdf")
    nifti.write(folder / "mask.nii.gz", mask_onto(prediction.mask, prediction.prepared.ct_hu))
    nifti.write(folder / "mask_network.nii.gz", prediction.mask)
    save(nomogram_figure(prediction.nomogram, patient={**prediction.clinical, **prediction.scores}),
         folder / "nomogram.svg")
    prepared, contours = prediction.prepared, {"predicted": prediction.mask}
    save(scan_figure(prepared.pet_suv, prepared.ct_hu, contours), folder / "overview.png")
    if prediction.attribution is not None:
        maps = [Volume(one, prepared.affine) for one in prediction.attribution.maps]
        save(attribution_figure(prepared.pet_suv, prepared.ct_hu, maps, contours), folder / "attribution.png")


def claim_folder(folder: Path) -> None:
    """Make an empty folder for one patient's prediction.

    Raises:
        StoreError: as `require_empty`; E-READONLY for a folder that cannot be made.
    """
    require_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(_not_writable(folder, error)) from None


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something: it may be another patient's. Nothing is made.

    Raises:
        StoreError: E-EXISTS for a folder that is not empty, E-READONLY for a file or a folder that cannot be read.
    """
    try:
        held = next(folder.iterdir(), None) if folder.exists() else None
    except OSError as error:
        raise StoreError(_not_writable(folder, error)) from None
    if held is not None:
        raise StoreError(Problem("E-EXISTS", "the folder is not empty: it may hold another patient's prediction",
                                 where=folder.name, remedy="Choose another with -o, or empty it"))


def _not_writable(folder: Path, error: OSError) -> Problem:
    return Problem("E-READONLY", "the prediction's folder cannot be written", where=folder.name,
                   found=error.strerror or "", remedy="Choose another with -o")


def _scores_of(nomogram: Nomogram, row: pd.DataFrame) -> list[str]:
    """The scores that a nomogram needs: its variables that are computed, not given."""
    return [name for name in nomogram.design.variables if name in row]


def require_one_scan(patient: str | Path | None, pet: str | Path | None, ct: str | Path | None) -> None:
    """Refuse what does not name one PET and one CT.

    Args:
        patient: folder or zip of the whole scan; None where the images are named one by one.
        pet: the PET; None where a folder is given.
        ct: the CT; None where a folder is given.

    Raises:
        ScanError: E-NOSCAN where one is missing; E-OPTION where a folder is given beside them.
    """
    given = [name for name, value in (("pet", pet), ("ct", ct)) if value is not None]
    if patient is not None and given:
        raise ScanError(Problem("E-OPTION", "the scan is given twice", found=f"a folder and {' and '.join(given)}",
                                remedy="Give either the folder, or both pet and ct"))
    if patient is None and len(given) != 2:
        raise ScanError(Problem("E-NOSCAN", "no scan given" if not given else "one of two images is missing",
                                found=f"{given[0]} alone" if given else "",
                                remedy="Give a folder or zip, or both pet and ct"))


def one_scan(patient: str | Path | None, pet: str | Path | None, ct: str | Path | None) -> ScanSet:
    """One patient's files, under the id "patient".

    Args:
        patient: folder or zip of the whole scan; None where the images are named one by one.
        pet: the PET; None where a folder is given.
        ct: the CT; None where a folder is given.

    Raises:
        ScanError: as `require_one_scan`; E-NOSCAN and E-MANYPATIENTS where a folder holds none or several.
    """
    require_one_scan(patient, pet, ct)
    if pet is not None and ct is not None:
        return given_files("patient", Path(pet), Path(ct))
    assert patient is not None
    found = discover(Path(patient))
    if len(found) != 1:
        raise ScanError(Problem("E-NOSCAN" if not found else "E-MANYPATIENTS",
                                "one patient's PET and CT are needed", where=Path(patient).name,
                                found=f"{len(found)} patients", expected="1",
                                remedy="Give one patient's folder or zip"))
    quiet = tuple(p for p in found[0].problems if p.code != "W-IDFOLDER")  # the folder's name stands in no output
    return replace(found[0], patient_id="patient", problems=quiet)
