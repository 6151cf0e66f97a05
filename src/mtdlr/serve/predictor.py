"""What the worker loads and makes: the prediction that `mtdlr predict` writes, and what the page shows beside it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtdlr.imaging import nifti
from mtdlr.imaging.grid import canonical, isotropic_grid, mask_onto, resample
from mtdlr.imaging.slices import eroded
from mtdlr.nets.session import torch_session
from mtdlr.nomogram import Nomogram
from mtdlr.nomogram.axes import main_terms
from mtdlr.nomogram.calculator import calculator_parts
from mtdlr.predict import Bundle, write_prediction
from mtdlr.radiomics.extract import extract
from mtdlr.report.patient_page import is_outside, likeness, notices
from mtdlr.report.pdf import can_write_pdf
from mtdlr.report.prediction import Prediction
from mtdlr.serve.dicom_results import examination, write_zip
from mtdlr.serve.jobs import Job
from mtdlr.serve.worker import Predictor
from mtdlr.stats.terms import Factor
from mtdlr.study import MAIN
from mtdlr.versions import is_installed
from mtdlr.volume import Volume

_PLANE_MM = 2.0
_WINDOW_HU = (-160.0, 240.0)
_OUTLINE = np.array([0.34, 0.71, 0.91], np.float32)
_AXES = {"axial": 0, "coronal": 1, "sagittal": 2}


def load_predictor(bundle: Path) -> Predictor:
    """What a worker does for the model in a folder; all that a first prediction would wait for is loaded now.

    Args:
        bundle: made by a run.

    Raises:
        BundleError: as `Bundle.load`.
    """
    model = Bundle.load(bundle)
    return replace(predictor_of(model), copies=_warmed(model))


def predictor_of(model: Bundle) -> Predictor:
    """What a worker does for a model."""
    nomogram = model.frozen.nomograms[MAIN]
    facts = {"endpoint": nomogram.endpoint, "months": list(nomogram.months), "digest": model.frozen.digest,
             "n": nomogram.cox.n, "events": nomogram.cox.n_events,
             "fields": fields(nomogram, model.frozen.study.nomogram_covariates),
             "centers": list(model.frozen.harmonised_centers), "dicom": is_installed("dicom")}
    return Predictor(facts, partial(_predict, model))


def _warmed(model: Bundle) -> bool:
    """Load networks, compiled loops and the PDF's library; whether everything lies on the processor.

    torch gets one thread meanwhile: it must start none, which a copy of this process would miss.
    """
    with torch_session(threads=1):
        networks = [network for folds in model.networks.values() for network in folds]
        for network in networks:
            assert network.scorer
    can_write_pdf()
    ramp = Volume(np.arange(12.0**3).reshape(12, 12, 12), np.eye(4))
    ball = ramp.with_array(np.linalg.norm(np.indices((12, 12, 12)) - 5.5, axis=0) < 4.0)
    extract(ramp, ramp, ball, model.frozen.study.radiomics)
    return all(network.place.type == "cpu" for network in networks)


def fields(nomogram: Nomogram, covariates: Collection[str]) -> list[dict[str, Any]]:
    """What the upload form asks: the nomogram's clinical covariates and nothing else.

    Args:
        nomogram: of the model.
        covariates: names of its variables that are clinical.
    """
    asked: list[dict[str, Any]] = []
    for name, term in main_terms(nomogram.design).items():
        if name in covariates:
            limits = nomogram.limits[name]
            levels = ([[level, nomogram.label(name, level)] for level in term.levels]
                      if isinstance(term, Factor) else [])
            hint = "" if levels else f"Model built on {limits.low:.4g} to {limits.high:.4g}."
            asked.append({"name": name, "label": nomogram.label(name), "levels": levels, "hint": hint})
    return asked


def _predict(model: Bundle, scan: Path, job: Job, folder: Path) -> None:
    """Write the prediction of a job and its view; raises as `Bundle.predict`."""
    source = examination(scan, job.series) if job.dicom else None
    prediction = model.predict(scan, clinical=job.clinical, series=job.series, uptake_min=job.uptake_min,
                               accept_shift=job.accept_shift, center=job.center)
    write_prediction(prediction, folder / "result")
    write_view(prediction, folder / "view", model.frozen.cutoffs.get(MAIN))
    if source is not None:
        write_zip(prediction, source, folder)


def write_view(prediction: Prediction, folder: Path, cutoff: float | None) -> None:
    """Write what the result page shows: images for the viewer, planes without it, and the nomogram to change.

    Args:
        prediction: of the patient.
        folder: to make.
        cutoff: log hazard above which the risk group is high; None where the model has none.
    """
    folder.mkdir()
    prepared = prediction.prepared
    pet, ct = canonical(prepared.pet_suv), canonical(prepared.ct_hu)
    nifti.write(folder / "ct.nii.gz", ct.with_array(np.rint(np.clip(ct.array, -1024, 3071)).astype(np.int16)))
    nifti.write(folder / "pet.nii.gz", pet.with_array(np.asarray(pet.array, np.float32)))
    nifti.write(folder / "outline.nii.gz", ct.with_array(_surface(mask_onto(prediction.mask, ct).array)))
    values = dict(prediction.clinical) | dict(prediction.scores)
    page, model = calculator_parts(prediction.nomogram, values, cutoff=cutoff)
    (folder / "nomogram.html").write_text(page, encoding="utf-8")
    (folder / "model.json").write_text(model, encoding="utf-8")
    planes, top = fused(pet, ct, prediction.mask)
    marked = np.argwhere(mask_onto(prediction.mask, isotropic_grid(ct, _PLANE_MM)).array)
    middle = (marked.mean(axis=0) if len(marked) else np.array(planes.shape[:3]) / 2.0).astype(int)
    shown = {}
    for name, axis in _AXES.items():
        for k in range(planes.shape[axis]):
            picture = np.take(planes, k, axis=axis)
            (folder / f"{name}-{k:03d}.png").write_bytes(png(picture if axis == 0 else picture[::-1]))
        shown[name] = {"n": planes.shape[axis], "start": int(middle[axis])}
    view = {"planes": shown, "suv_top": round(top, 1), "empty": not prediction.mask.array.any(),
            "outside": is_outside(prediction), "likeness": likeness(prediction),
            "problems": [problem.as_dict() for problem in notices(prediction)]}
    (folder / "view.json").write_text(json.dumps(view), encoding="utf-8")


def fused(pet: Volume, ct: Volume, mask: Volume) -> tuple[NDArray[np.uint8], float]:
    """((z, y, x, 3) colours on a 2 mm grid, SUV of the brightest): CT in grey, PET over it, the mask's outline.

    Args:
        pet: SUV; any grid.
        ct: HU; its axes are those of the planes.
        mask: the tumour; any grid.
    """
    grid = isotropic_grid(ct, _PLANE_MM)
    low, high = _WINDOW_HU
    grey = np.clip((resample(ct, grid, outside=-1000.0).array - low) / (high - low), 0.0, 1.0).astype(np.float32)
    suv = np.asarray(resample(pet, grid, outside=0.0).array, np.float32)
    warm = suv[suv > 0.5]
    top = max(5.0, float(np.quantile(warm, 0.999))) if warm.size else 5.0
    share = np.clip(suv / top, 0.0, 1.0)
    alpha = np.clip((share - 0.12) / 0.4, 0.0, 0.62)[..., None]
    hot = np.clip(3.0 * share[..., None] - np.arange(3.0, dtype=np.float32), 0.0, 1.0)
    colors = (1.0 - alpha) * grey[..., None] + alpha * hot
    colors[_surface(mask_onto(mask, grid).array)] = _OUTLINE
    return np.asarray(np.rint(255.0 * colors), np.uint8), top


def _surface(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The voxels of a mask that touch what lies outside it."""
    inside = np.asarray(mask, bool)
    return np.asarray(inside & ~eroded(inside))


def png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of (rows, columns, 3) colours.

    >>> png(np.zeros((2, 3, 3), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    rows, columns, _ = picture.shape
    lines = np.zeros((rows, 1 + 3 * columns), np.uint8)
    lines[:, 1:] = picture.reshape(rows, -1)
    parts: Mapping[bytes, bytes] = {b"IHDR": struct.pack(">2I5B", columns, rows, 8, 2, 0, 0, 0),
                                    b"IDAT": zlib.compress(lines.tobytes(), 1), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items())
