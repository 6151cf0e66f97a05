"""What this run recorded of its patients, scans, masks and features, in sentences for the checklists."""

from __future__ import annotations

from collections import Counter
from math import isfinite

from mtdlr.errors import FitError, TableError
from mtdlr.report.acquisition import acquired, audits_of
from mtdlr.report.masks import mask_table, overlap_rows
from mtdlr.report.results import Results
from mtdlr.report.tables import SPLIT_LABELS
from mtdlr.stats.groups import standardised_difference
from mtdlr.stats.kaplan_meier import median_follow_up


def patients(results: Results) -> str:
    """Patients and events by cohort."""
    parts = []
    for split in results.cohort.splits:
        cohort = results.cohort.of(split)
        parts.append(f"{SPLIT_LABELS[split].lower()} {len(cohort.table)} patients, {cohort.survival.n_events} events")
    return "; ".join(parts)


def centres(results: Results) -> str:
    """Patients by centre."""
    counts = results.cohort.table["center"].value_counts().sort_index()
    return f"{len(counts)} centre{'s' * (len(counts) > 1)}: " + ", ".join(f"{c} {n}" for c, n in counts.items())


def multicentre(results: Results) -> str:
    """Patients by centre; empty with one centre."""
    return centres(results) if results.cohort.table["center"].nunique() > 1 else ""


def follow_up(results: Results) -> str:
    """Median follow-up by cohort."""
    known = {s: median_follow_up(results.cohort.of(s).survival).value for s in results.cohort.splits}
    parts = [f"{SPLIT_LABELS[s].lower()} " + (f"{month:.1f}" if isfinite(month) else "not reached")
             for s, month in known.items()]
    return f"median follow-up in months (reverse Kaplan-Meier): {', '.join(parts)}"


def censoring(results: Results) -> str:
    """Share of censored patients by cohort."""
    shares = [f"{SPLIT_LABELS[s].lower()} {1 - results.cohort.of(s).survival.event.mean():.0%}"
              for s in results.cohort.splits]
    return f"censored: {', '.join(shares)}; no patient was weighted by the outcome in the Cox models"


def left_out(results: Results) -> str:
    """Patients analysed, and errors by code."""
    codes = Counter(p.code for p in results.problems if p.is_error)
    told = ", ".join(f"{code} {n}" for code, n in sorted(codes.items()))
    return f"{len(results.cohort.table)} patients analysed; left out by code: {told or 'none'}"


def missing(results: Results) -> str:
    """Missing values by column, and what was imputed."""
    settings, table = results.study.cohort, results.cohort.table
    names = [n for n in (*settings.continuous, *settings.factors, *settings.described) if n in table]
    lost = {n: int(table[n].isna().sum()) for n in names}
    told = ", ".join(f"{n} {k}" for n, k in lost.items() if k)
    imputed = lost.get(settings.stage, 0)
    return (f"missing values of {len(names)} columns: {told or 'none'}; {imputed} values of {settings.stage} imputed "
            "for the nomograms, other columns complete case")


def split(results: Results) -> str:
    """How the cohorts were made."""
    settings = results.study.cohort
    return f"by {settings.split}, seed {settings.seed}: {patients(results)}"


def treatments(results: Results) -> str:
    """Patients with each described treatment."""
    table = results.cohort.table
    return ", ".join(f"{n} {int((table[n] == 1).sum())} of {int(table[n].notna().sum())}"
                     for n in results.study.cohort.described if n in table)


def differences(results: Results) -> str:
    """Standardised differences of the continuous columns, training against external."""
    if not {"training", "external"} <= set(results.cohort.splits):
        return ""
    training, external = (results.cohort.of(s).table for s in ("training", "external"))
    parts = []
    for name in results.study.cohort.continuous:
        pair = [t[name].dropna().to_numpy(float) for t in (training, external)]
        try:
            found = standardised_difference(*pair).value
        except (FitError, TableError):
            continue
        parts += [f"{name} {found:+.2f}"] if isfinite(found) else []
    shares = [f"{1 - 1 * t['event'].mean():.0%}" for t in (training, external)]
    return f"event-free {shares[0]} in training, {shares[1]} outside; standardised differences: {', '.join(parts)}"


def acquisition(results: Results) -> str:
    """Scanner, reconstruction, voxels, uptake time and dose by centre; empty where no scan is from DICOM."""
    audits = audits_of(results)
    if all((audit.get("pet") or {}).get("source") != "DICOM" for audit in audits.values()):
        return ""
    centre = results.cohort.table["center"]
    own = {name: [audits[i] for i in centre.index[centre == name] if audits.get(i)] for name in sorted(centre.unique())}
    return "; ".join(f"{name}: " + ", ".join(f"{what} {found}" for what, found in acquired(known).items()
                                             if found != "-") for name, known in own.items() if known)


def scan_dates(results: Results) -> str:
    """Years of the examinations by centre; empty where no header states one that was left as it was."""
    audits, centre = audits_of(results), results.cohort.table["center"]
    years = {name: acquired([audits[i] for i in centre.index[centre == name] if audits.get(i)])["Years"]
             for name in sorted(centre.unique())}
    told = ", ".join(f"{name} {when}" for name, when in years.items() if when != "-")
    return f"examinations by centre: {told}" if told else ""


def preparation(results: Results) -> str:
    """Grid and intensities of the network input."""
    p = results.study.prepare
    low, high = p.ct_window_hu
    return (f"{len(results.prepared)} patients on {p.size} cubed voxels of {p.spacing_mm:g} mm, "
            f"CT {low:g} to {high:g} HU, PET {p.pet_scaling}, region {p.roi}, alignment {p.alignment}"
            if results.prepared else "")


def warnings(results: Results) -> str:
    """Codes raised, with counts."""
    codes = Counter(p.code for p in results.problems)
    return "codes raised: " + (", ".join(f"{code} {n}" for code, n in sorted(codes.items())) or "none")


def automatic(results: Results) -> str:
    """How the masks were made."""
    s = results.study.score
    return (f"masks of {len(results.scored)} patients by DeepMTS, probability above {s.mask_threshold:g}, parts under "
            f"{s.min_component_ml:g} ml dropped, no operator" if results.scored else "")


def mask_overlap(results: Results) -> str:
    """Predicted against manual masks, by cohort."""
    if not results.scored or "auto" not in results.pet_parameters:
        return ""
    rows = overlap_rows(mask_table(results), results.cohort.splits)
    return "; ".join(f"{row[0].lower()}: {row[1]} patients, Dice {row[3]}, HD95 {row[4]} mm" for row in rows)


def blind(results: Results) -> str:
    """What was computed without the outcome; empty for in-sample scores."""
    if results.study.score.training != "out_of_fold" or not results.scored:
        return ""
    return (f"masks, scores and features of {len(results.scored)} patients were computed by networks that had not seen "
            "their outcome")


def features(results: Results) -> str:
    """Features by source of the mask."""
    counts = {source: table.shape[1] for source, table in results.features.items()}
    return ", ".join(f"{n} features in the {source} masks" for source, n in counts.items()) + (
        f" (profile {results.study.radiomics.profile})" if counts else "")


def feature_names(results: Results) -> list[str]:
    """Names of the features."""
    return [str(name) for name in next(iter(results.features.values())).columns] if results.features else []


def feature_classes(results: Results) -> str:
    """Features by class."""
    found = Counter(name.split("_")[-2] for name in feature_names(results) if name.count("_") >= 2)
    return ", ".join(f"{kind} {n}" for kind, n in sorted(found.items()))


def image_types(results: Results) -> str:
    """Features by image and filter."""
    found = Counter("_".join(name.split("_")[:-2]) for name in feature_names(results) if name.count("_") >= 2)
    return ", ".join(f"{kind} {n}" for kind, n in sorted(found.items()))


def resampling(results: Results) -> str:
    """Voxels of the features."""
    return f"features on voxels of {results.study.radiomics.spacing_mm:g} mm" if results.features else ""


def discretisation(results: Results) -> str:
    """Bins of the features."""
    r = results.study.radiomics
    return f"fixed bins: PET {r.pet_bin_width:g} g/ml, CT {r.ct_bin_width:g} HU" if results.features else ""


def robustness(results: Results) -> str:
    """Filter by perturbations; empty without."""
    settings = results.study
    if not settings.radiomics.perturbations:
        return ""
    return (f"{settings.radiomics.perturbations} perturbations a training patient; features with a lower ICC limit "
            f"under {settings.signature.min_icc:g} removed")


def feature_tables(results: Results) -> str:
    """Size of the feature tables."""
    return ", ".join(f"{source}: {table.shape[0]} x {table.shape[1]}" for source, table in results.features.items())
