"""The sections of a study file: every setting of every stage, with unit, default, range and source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SingletaskNetwork = Literal["no-mask", "csn-only", "densenet121-3d"]
NetworkName = Literal["deepmts", SingletaskNetwork]
"""Every network that can be trained; `nets/weights.py` says how each is built."""
FEWEST_EVENTS = 2  # that a subfold holds in the mean
PAPER = "paper"
OURS = "ours"


def setting(default: Any, text: str, *, unit: str = "", source: str = OURS, **limits: Any) -> Any:
    """A field: what it means, its unit, and whether the default is the paper's or ours.

    Args:
        default: the default, or a function that makes it.
        text: what the setting is, in one line.
        unit: its unit; "" for none.
        source: where the default comes from.
        **limits: pydantic's limits of the value: ge, le, gt, lt.
    """
    extra: dict[str, Any] = {"unit": unit, "source": source}
    if callable(default):
        return Field(default_factory=default, description=text, json_schema_extra=extra, **limits)
    return Field(default=default, description=text, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """One table of the study file: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CohortSettings(Section):
    """Who is in the study: the clinical table, the scans, the split."""

    images: Path = setting(Path("images"), "folder of scans, or a manifest CSV (patient_id, pet, ct, mask)")
    table: Path = setting(Path("clinical.csv"), "clinical table, one row a patient (CSV)")
    layout: Literal["auto", "manifest", "hecktor", "bids", "patient-folders", "dicom"] = setting(
        "auto", "how the scans are laid out; recognised by itself unless forced")
    series: tuple[str, ...] = setting((), "DICOM series to take instead of those chosen: SeriesInstanceUIDs, keys of "
                                      "`mtdlr check --scans`, patterns of SeriesDescription")
    mask_name: str = setting("*", "name pattern of the tumour contour in an RTSTRUCT or SEG")
    mask_label: int | None = setting(None, "label of the tumour in NIfTI masks with several; by default 1", ge=1)
    keep_ids: bool = setting(False, "let folders pass that bear the patient's name or number in the DICOM headers")
    id: str = setting("patient_id", "column of the patient's id, the same in table and scans")
    time: str = setting("time_months", "column of the follow-up time")
    time_unit: Literal["months", "days", "years"] = setting("months", "unit of the follow-up time in the table")
    start: str | None = setting(None, "column of the date that follow-up counts from, instead of time; with end")
    end: str | None = setting(None, "column of the date of the event or of the last contact; with start")
    date_order: Literal["auto", "dmy", "mdy"] = setting(
        "auto", "whether 3/4/2020 is in April (dmy) or March (mdy); auto looks for a date that shows it")
    event: str = setting("event", "column of the event status, 1 = event, 0 = censored", source=PAPER)
    competing: tuple[str, ...] = setting((), "values of the event column that mean another event which precludes this "
                                         "one, such as 2 or death: a competing risk")
    endpoint: str = setting("PFS", "what event-free survival is called in figures", source=PAPER)
    center: str | None = setting(None, "column of the centre, if there is more than one")
    split: Literal["given", "random", "center"] = setting(
        "random", "how cohorts are made: a column, at random 4:1 (the paper), or by centre")
    split_column: str = setting("split", "column with training / internal / external when split = 'given'")
    internal_fraction: float = setting(0.2, "share held out as the internal cohort when split at random",
                                       source=PAPER, gt=0, lt=1)
    external_centers: tuple[str, ...] = setting((), "centres kept apart as the external cohort")
    stage: str = setting("tnm_stage", "the factor that stands for the stage in the nomogram", source=PAPER)
    continuous: tuple[str, ...] = setting((), "continuous clinical columns for Tables 1 and 2")
    factors: dict[str, tuple[str, ...]] = setting(dict, "categorical columns and their levels, in printed order")
    references: dict[str, str] = setting(dict, "reference level of a factor in the Cox tables (default: the first)")
    described: tuple[str, ...] = setting((), "0/1 columns described in Table 1 only, such as treatments")
    seed: int = setting(0, "seed of the random split", ge=0)

    @model_validator(mode="after")
    def _references_are_levels(self) -> CohortSettings:
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end go together: name both columns of dates, or neither")
        for name, level in self.references.items():
            if level not in self.factors.get(name, ()):
                raise ValueError(f"references.{name} = {level!r} is not a level of factors.{name}")
        return self


class PrepareSettings(Section):
    """From scans to network input: units, alignment, region, grid, intensities."""

    spacing_mm: float = setting(2.0, "isotropic voxel of the network grid", unit="mm", gt=0.2, le=10)
    size: int = setting(128, "voxels along each axis of the network grid; a multiple of 16", source=PAPER,
                        ge=32, le=256, multiple_of=16)
    roi: Literal["auto", "template", "center", "mask", "box"] = setting(
        "auto", "PET-guided head-and-neck locator, likeness to a template, middle of PET or mask, or a fixed point")
    box_center_mm: tuple[float, float, float] | None = setting(None, "(x, y, z) in LPS when roi = 'box'", unit="mm")
    template: Path | None = setting(None, "folder of a prepared patient that roi = 'template' looks for")
    ct_window_hu: tuple[float, float] = setting((-1024.0, 1024.0), "CT is clipped here and scaled to [-1, 1]",
                                                unit="HU", source="METHOD 2")
    pet_scaling: Literal["clip", "zscore"] = setting(
        "clip", "PET: clipped SUV over a constant keeps absolute uptake; z-score is the paper group's habit")
    pet_clip_suv: float = setting(25.0, "upper clip of SUV when pet_scaling = 'clip'", unit="g/ml", gt=0)
    pet_units: Literal["auto", "suv"] = setting("auto", "NIfTI PET already is SUV; DICOM says its own units")
    uptake_min: float | None = setting(None, "uptake time, for series whose injection time is lost", unit="min", gt=0)
    assume_geometry: bool = setting(False, "read NIfTI without sform and qform as right, anterior, superior")
    alignment: Literal["off", "check", "rigid", "affine", "auto"] = setting(
        "check", "PET-CT alignment: only measured, corrected always, or corrected when the check demands it (auto)")
    alignment_limit_mm: float = setting(5.0, "misalignment reported, or corrected by 'auto'", unit="mm", gt=0)
    margin_mm: float = setting(20.0, "margin kept at native resolution for radiomics", unit="mm", ge=0)

    @model_validator(mode="after")
    def _complete(self) -> PrepareSettings:
        for roi, key, value in (("box", "box_center_mm", self.box_center_mm), ("template", "template", self.template)):
            if self.roi == roi and value is None:
                raise ValueError(f"roi = '{roi}' needs {key}")
        if self.ct_window_hu[0] >= self.ct_window_hu[1]:
            raise ValueError("ct_window_hu is (low, high) with low < high")
        return self


class NetworkSettings(Section):
    """What a network and its training share."""

    width: float = setting(1.0, "factor on every channel count; 1 is the published network", source=PAPER, gt=0, le=2)
    epochs: int = setting(60, "epochs at most (an epoch is one pass over the training patients)", ge=1)
    steps_per_epoch: int | None = setting(None, "steps an epoch; by default one pass (the paper: 50)", ge=1)
    batch_size: int = setting(8, "patients a step", source=PAPER, ge=2)
    accumulate: int = setting(1, "micro-batches of a batch, computed one after another to save memory; the risk set "
                              "stays the whole batch", ge=1)
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW", gt=0)
    schedule: Literal["one-cycle", "paper"] = setting(
        "one-cycle", "learning rate: a short rise and a cosine fall, or the paper's steps at epochs 50, 100 and 200")
    weight_decay: float = setting(1e-4, "AdamW weight decay", ge=0)
    head_l2: float = setting(0.1, "L2 penalty on the dense kernels of the risk head", source=PAPER, ge=0)
    head_rate: float = setting(3.0, "learning-rate multiplier of the risk head (the paper: 1)", gt=0)
    head_dropout: float = setting(0.5, "share dropped before each dense layer of the risk head", source=PAPER, ge=0,
                                  lt=1)
    dropout: float = setting(0.05, "share dropped inside the survival network", source=PAPER, ge=0, lt=1)
    pooling: Literal["average", "regional", "spatial"] = setting(
        "spatial", "what the risk sees: where disease lies and how it looks, solved exactly (spatial); grid averages "
        "(the paper); or those standardised and, in DeepMTS, ten measures in and around the tumour (regional)")
    norm_momentum: float = setting(0.1, "share of a batch's statistics entering the running ones (the paper: 0.01)",
                                   gt=0, lt=1)
    sampling: Literal["balanced", "uniform", "paper"] = setting(
        "balanced", "half of every batch are events, shuffled ('paper': drawn with replacement), or as they come; "
        "where steps learn masks alone (spatial) patients always come shuffled, whatever their event")
    augmentation: Literal["modern", "paper", "none"] = setting(
        "modern", "'paper' keeps the published flaws: shifts of exactly +-10 voxels, dilated masks; 'modern' also "
        "scales and blurs uptake where steps learn masks alone (spatial)")
    survival_loss: Literal["cox-breslow", "cox-efron", "discrete"] = setting("cox-breslow", "the survival loss")
    intervals: int = setting(10, "time intervals of the discrete survival loss", ge=2, le=50)
    risk_memory: int = setting(64, "patients in the memory bank: their risks enlarge risk sets; 0 = the batch alone",
                               ge=0)
    patience: int = setting(20, "epochs without improvement before training stops", ge=1)
    validation_fraction: float = setting(0.15, "share of a network's own training patients kept to choose the epoch",
                                         gt=0, lt=0.5)


class DeepmtsSettings(NetworkSettings):
    """DeepMTS: segmentation and survival together (METHOD 3)."""

    segmentation_epochs: int = setting(20, "first epochs with the segmentation loss alone (METHOD 3g)", ge=0)
    detach_probability: bool = setting(
        True, "the tumour probability enters the survival network without gradient (the paper: false)")
    near_voxels: int = setting(4, "how far around the tumour its surroundings reach", unit="voxels", ge=1, le=32)
    survival_weight: float = setting(1.0, "weight of the survival loss beside Dice", source=PAPER, gt=0)

    @property
    def solved(self) -> bool:
        """Whether the risk is solved when training ends: steps learn masks alone, and no event decides any of them."""
        return self.pooling == "spatial"


class SingletaskSettings(NetworkSettings):
    """The single-task survival network, no mask (METHOD 4)."""

    network: SingletaskNetwork = setting(
        "no-mask", "which single-task model: the embedding of DeepMTS without a mask, or a network trained on survival")
    near_voxels: int = setting(4, "voxels that make about 8 mm (no-mask)", unit="voxels", ge=1, le=32)

    @property
    def solved(self) -> bool:
        """Whether the risk is solved; nothing is trained by steps then."""
        return self.network == "no-mask"


class ScoreSettings(Section):
    """How the training cohort's own scores and masks are made."""

    training: Literal["out_of_fold", "in_sample"] = setting(
        "out_of_fold", "training patients are scored by networks that never saw them; the paper: in_sample")
    folds: int | Literal["center"] = setting(
        5, "folds of the cross-fitting, 2 to 20; 'center' leaves out one centre at a time (three or more must train)")
    subfolds: int = setting(
        3, "parts of a fold (at most; each keeps two events): what is fitted to outcomes does without one part, masks "
        "without the whole fold; 1 with folds = 'center'", ge=1, le=20)
    mask_threshold: float = setting(0.5, "tumour where the mean probability exceeds this", source=PAPER, gt=0, lt=1)
    min_component_ml: float = setting(1.0, "smaller components of a predicted mask are dropped", unit="ml", ge=0)
    seed: int = setting(0, "seed of folds, weights and sampling", ge=0)

    @field_validator("folds", mode="plain")
    @classmethod
    def _folds(cls, value: object) -> object:
        """One message for both kinds of value."""
        if value == "center" or (type(value) is int and 2 <= value <= 20):
            return value
        raise ValueError("a whole number from 2 to 20, or 'center'")

    def n_folds(self, centers: int) -> int:
        """How many networks of each kind are trained.

        Args:
            centers: how many centres train.
        """
        if self.training == "in_sample":
            return 1
        return max(1, centers) if self.folds == "center" else self.folds

    def n_subfolds(self, events: int, folds: int) -> int:
        """Into how many parts a fold is cut.

        Args:
            events: of the training cohort.
            folds: how many there are.

        >>> [ScoreSettings().n_subfolds(events, folds=5) for events in (100, 29, 19)]
        [3, 2, 1]
        """
        if folds < 2 or self.folds == "center":
            return 1
        return max(1, min(self.subfolds, events // (FEWEST_EVENTS * folds)))


class RadiomicsSettings(Section):
    """Features inside the mask (METHOD 5)."""

    profile: str = setting("paper1456", "paper1456, ibsi, or the path of a PyRadiomics parameter file (YAML)")
    spacing_mm: float = setting(2.0, "isotropic voxel for the features", unit="mm", source="METHOD 5", gt=0.2)
    pet_bin_width: float = setting(0.25, "grey-level bin of PET", unit="g/ml", source="METHOD 5", gt=0)
    ct_bin_width: float = setting(25.0, "grey-level bin of CT", unit="HU", source="METHOD 5", gt=0)
    perturbations: int = setting(0, "perturbed extractions a training patient, for signature.min_icc; 0: none", ge=0)


class SignatureSettings(Section):
    """Lasso-Cox (METHOD 6)."""

    alpha: float = setting(1.0, "1 is the lasso, towards 0 ridge, between them the elastic net", source=PAPER, gt=0,
                           le=1)
    lambdas: int = setting(100, "penalties along the path", ge=10)
    folds: int = setting(10, "folds of the inner cross-validation", ge=3)
    repeats: int = setting(10, "repeats of the cross-validation; the median penalty is taken", ge=1)
    choose: Literal["min", "1se"] = setting("min", "penalty at the smallest deviance, or one standard error above")
    max_correlation: float | None = setting(0.95, "features correlated more with an earlier one go", gt=0, le=1)
    min_icc: float = setting(0.75, "least lower limit of the ICC over perturbations", source="Zwanenburg 2019")
    harmonise: Literal["off", "combat"] = setting(
        "off", "'combat': features of several centres on the largest one's scale, fitted inside the folds, no outcomes")
    harmonise_patients: int = setting(30, "patients from which a centre is harmonised; smaller ones stay as they are",
                                      ge=5)
    seed: int = setting(0, "seed of the folds", ge=0)


class NomogramSettings(Section):
    """The Cox model that becomes the nomogram (METHOD 7b)."""

    months: tuple[float, ...] = setting((36.0, 60.0), "horizons of the survival axes", unit="months", source=PAPER,
                                        min_length=1)
    ties: Literal["efron", "breslow"] = setting("efron", "tied event times (the paper's SPSS: breslow)")
    covariates: tuple[str, ...] = setting((), "clinical columns that enter beside the scores, factors or continuous; "
                                          "by default the stage alone", source=PAPER)
    splines: dict[str, int] = setting(dict, "knots of a restricted cubic spline, by continuous covariate: 3 to 7")
    select: Literal["off", "gain", "p"] = setting(
        "gain", "'gain': cross-fitted scores enter where they add to the stage (W-NOGAIN names the others); 'off': "
        "every score enters; 'p': the paper's way, univariate then multivariate Cox, P < 0.05; done inside the folds")

    @field_validator("splines")
    @classmethod
    def _knots(cls, splines: dict[str, int]) -> dict[str, int]:
        for name, knots in splines.items():
            if not 3 <= knots <= 7:
                raise ValueError(f"splines.{name} = {knots} is not a number of knots from 3 to 7")
        return splines


class EvaluateSettings(Section):
    """How models are judged (METHOD 7c-7f)."""

    roc: Literal["status", "cumulative"] = setting(
        "cumulative", "AUC at the horizons with censoring weights, or of the event status (the paper)")
    comparison: Literal["compareC", "jackknife", "bootstrap"] = setting("compareC", "paired C-index test")
    group_hr: Literal["cox", "logrank_oe"] = setting("cox", "hazard ratio of the risk groups (the paper: logrank_oe)")
    calibration_groups: int | None = setting(None, "groups of the calibration curve; by default 10, fewer when events "
                                             "are few", ge=2, le=20)
    calibration_test: Literal["gnd", "hl_binary"] = setting("gnd", "GND, or the paper's Hosmer-Lemeshow")
    known_risk: Path | None = setting(None, "CSV (patient_id, log_hazard) of a synthetic study's true risk, shown "
                                      "beside the models")
    embedding: Path | None = setting(None, "CSV (patient_id, then numbers) of vectors made elsewhere, such as a "
                                     "foundation model's: their ridge Cox score stands among the rivals")
    arms: bool = setting(False, "signatures of the PET features alone and of the CT features alone, beside the full "
                         "ones in Table 14")
    bootstrap: int = setting(1000, "resamples when comparison = 'bootstrap'", ge=50)
    seed: int = setting(0, "seed of the resamples", ge=0)


STATEMENTS = (
    "abstract", "accrual", "background", "blinding", "clinical_imaging", "code_sharing", "conflicts", "confounders",
    "data_overlap", "data_sharing", "data_source", "eligibility", "eligibility_flow", "ethics", "fairness", "funding",
    "heterogeneity", "image_sharing", "imaging_interval", "implications", "inequalities", "intended_use",
    "interpretation", "keywords", "limitations", "network_robustness", "next_steps", "objectives", "outcome",
    "outcome_assessors", "predictor_assessors", "preselection", "previous_work", "protocol", "public_involvement",
    "rationale", "registration", "robustness_reviewed", "segmentation_reliability", "setting", "setting_differences",
    "single_modality", "study_nature", "title", "treatment", "use")
"""What only the authors know of a reporting checklist; the names of `report.statements`."""


class ReportSettings(Section):
    """What people see."""

    title: str = setting("MTDLR study", "title of the report")
    thumbnails: int = setting(24, "patients shown with contours in the report", ge=0)
    pages: bool = setting(True, "a page of pictures, SUV audit and geometry for every patient (0.4 s each, once)")
    pdf: bool = setting(False, "the whole report also as report.pdf (extra docs-out)")
    tiff: bool = setting(False, "figures also as TIFF of 600 dpi, for journals that ask for it")
    statements: dict[str, str] = setting(dict, "what only the authors know, for the reporting checklists, such as "
                                         "ethics or funding; docs/report.md lists the names")

    @model_validator(mode="after")
    def _statements_have_names(self) -> ReportSettings:
        unknown = sorted(set(self.statements) - set(STATEMENTS))
        if unknown:
            raise ValueError(f"no item of the checklists takes the statement {unknown[0]}; the names are "
                             f"{', '.join(STATEMENTS)}")
        return self


class RunSettings(Section):
    """Where the work runs."""

    workers: int = setting(2, "processes side by side; one more may train small networks", ge=1)
    threads: int = setting(1, "threads of each process", ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "where networks train and score; auto: the first NVIDIA card if there is one, else the processor")
    deterministic: bool = setting(
        False, "whether an NVIDIA card gives the same bytes again, at the price of speed; the processor always does")
    folder: Path | None = setting(None, "where results go; by default runs/<study file's name>")
