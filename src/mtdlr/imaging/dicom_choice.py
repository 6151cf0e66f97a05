"""Which of a patient's DICOM series are the PET, its CT and the contours, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mtdlr.errors import Problem
from mtdlr.imaging.dicom import Series
from mtdlr.imaging.dicom_tags import secret

_MODALITIES = ("PT", "CT", "RTSTRUCT", "SEG")
_ASK = "choose one with cohort.series (predict: --series)"
_NECK_MM = (50.0, 250.0)  # below the top of the highest scan
_NECK_SHARE = 0.7  # a bed of 20 cm holds three quarters of it, a brain scan half


@dataclass(frozen=True)
class Choice:
    """The series to read, None where there is none; why in one line; what is wrong."""

    pet: Series | None
    ct: Series | None
    mask: Series | None
    why: str
    problems: tuple[Problem, ...]


def choose(series: Sequence[Series], wanted: Sequence[str] = ()) -> Choice:
    """The PET, its CT and the contours among a patient's series, and why.

    PET: attenuation corrected, static or whole body, covers the neck, smallest voxel. CT: in the PET's frame of
    reference, original, covers the PET best, smallest voxel. Contours: drawn on the CT, else on the PET, else on
    another image in the same frame of reference. PETs of several days are an error: nothing says which one is meant.

    Args:
        series: of one patient.
        wanted: SeriesInstanceUIDs, eight-letter keys or patterns of SeriesDescription that replace the choice, also
            for a series that is otherwise never taken.
    """
    asked, problems = _asked_for(series, wanted)
    pet, why, pet_problems = _choose_pet([s for s in series if s.modality == "PT"], asked.get("PT"))
    ct, ct_why, ct_problems = _choose_ct([s for s in series if s.modality == "CT"], pet, asked.get("CT"))
    contours = asked.get("RTSTRUCT") or asked.get("SEG")
    mask, mask_problems = _choose_mask([s for s in series if s.modality in ("RTSTRUCT", "SEG")], pet, ct, contours)
    problems += _identity(series, [s for s in (pet, ct) if s is not None])
    return Choice(pet, ct, mask, "; ".join(filter(None, (why, ct_why))),
                  (*problems, *pet_problems, *ct_problems, *_other_day(pet, ct), *mask_problems))


def _identity(series: Sequence[Series], taken: Sequence[Series]) -> list[Problem]:
    """E-PATIENTMIX where image headers name several patients, W-BURNEDIN where pixels are said to show text."""
    problems = []
    if len({p for s in series if s.modality in ("PT", "CT") for p in s.patients}) > 1:
        problems.append(Problem("E-PATIENTMIX", "the image headers name more than one patient",
                                remedy="Put each patient's files into their own folder"))
    if any(s.burned_in for s in taken):
        problems.append(Problem("W-BURNEDIN", "the images are said to show text, which may name the patient",
                                where="BurnedInAnnotation (0028,0301)", remedy="Look at them before sharing figures"))
    return problems


def answers_to(series: Series, name: str) -> bool:
    """Whether a SeriesInstanceUID, a key or a pattern of SeriesDescription means this series.

    Args:
        series: one series of a patient.
        name: SeriesInstanceUID, eight-letter key, or shell pattern of SeriesDescription, case ignored.
    """
    return series.key in (name, secret(name)) or fnmatchcase(series.description.upper(), name.upper())


def _asked_for(series: Sequence[Series], wanted: Sequence[str]) -> tuple[dict[str, Series], list[Problem]]:
    """The requested series, by modality. A name that fits several usable series is an error."""
    asked: dict[str, Series] = {}
    problems = []
    for name in wanted:
        by_key = [s for s in series if s.key in (name, secret(name))]
        found = by_key or [s for s in series if answers_to(s, name)]
        if not found:
            problems.append(Problem("E-NOSERIES", "the requested series is not there", found=_labels(series),
                                    expected="a SeriesInstanceUID, a key or a description pattern"))
        for modality in _MODALITIES:
            hits = [s for s in found if s.modality == modality]
            hits = [s for s in hits if not s.purpose] or hits
            if len(hits) > 1:
                problems.append(Problem("E-SERIESTIE", "several series answer to the requested name",
                                        found=_labels(hits), remedy="Ask for it by its key"))
            elif hits:
                asked[modality] = hits[0]
    return asked, problems


def _labels(series: Sequence[Series]) -> str:
    return ", ".join(f"{s.label}: {s.purpose}" if s.purpose else s.label for s in series) or "no series"


def _choose_pet(pets: list[Series], asked: Series | None) -> tuple[Series | None, str, tuple[Problem, ...]]:
    """The PET series, why, and problems."""
    if asked is not None:
        notice = Problem("W-SERIES", f"the requested PET series is {asked.purpose}", found=asked.label)
        return asked, f"{asked.label}: asked for", (notice,) if asked.purpose else ()
    usable = [s for s in pets if not s.purpose]
    if not usable:
        only = {s.purpose for s in pets}
        code = "E-NAC" if only == {"not corrected for attenuation"} else "E-NOPET"
        return None, "", (Problem(code, "no PET series that can be used", found=_labels(pets),
                                  expected="an attenuation-corrected, static PET image series",
                                  remedy=f"Add it, or {_ASK}"),)
    if exams := _examinations(usable):
        return None, "", exams
    top = max((s.z_mm[1] for s in usable if math.isfinite(s.z_mm[1])), default=math.nan)
    ranked = sorted(usable, key=lambda s: _pet_rank(s, top))
    best, tied = ranked[0], [s for s in ranked if _pet_rank(s, top) == _pet_rank(ranked[0], top)]
    if len(tied) > 1:
        return None, "", (Problem("E-SERIESTIE", "several PET series are equally good", found=_labels(tied),
                                  expected="one", remedy=_ASK.capitalize()),)
    why = f"{best.label}: attenuation corrected" + (", covers the neck" if _covers_neck(best, top) else "")
    why += f", smallest voxel of {len(usable)}" if len(usable) > 1 else ", the only one that can be used"
    left = [s for s in pets if s is not best]
    return best, why + (f"; left: {_labels(left)}" if left else ""), _field_of_view(best)


def _examinations(usable: Sequence[Series]) -> tuple[Problem, ...]:
    """E-EXAMS where the PET series were taken on different days, or, without dates, in different studies."""
    exams: list[Series] = []
    for s in sorted(usable, key=lambda s: (s.day or 0, s.study)):
        if all(_apart(s, other) for other in exams):
            exams.append(s)
    if len(exams) < 2:
        return ()
    days = [s.day for s in exams]
    apart = "unknown days" if None in days else f"{(days[-1] or 0) - (days[0] or 0)} days"
    return (Problem("E-EXAMS", "the folder holds several examinations of the patient",
                    found=f"{len(exams)} with PET, {apart} apart: {_labels(exams)}", expected="one",
                    remedy=f"Keep the one that the follow-up counts from, or {_ASK}"),)


def _apart(a: Series, b: Series) -> bool:
    """Whether two series belong to different examinations; one may go on past midnight."""
    if a.day is None or b.day is None:
        return a.study != b.study
    return abs(a.day - b.day) >= (1 if a.study != b.study else 2)


def _other_day(pet: Series | None, ct: Series | None) -> tuple[Problem, ...]:
    """W-EXAMDAYS where PET and CT were taken on different days."""
    if pet is None or ct is None or pet.day is None or ct.day is None or not _apart(pet, ct):
        return ()
    days = f"{abs(pet.day - ct.day)} days apart"
    return (Problem("W-EXAMDAYS", "PET and CT were taken on different days", found=days,
                    expected="one examination", remedy=f"Add the CT of the PET/CT, or {_ASK}"),)


def _pet_rank(s: Series, top: float) -> tuple[bool, bool, float, int]:
    volume = math.prod(s.voxel_mm)
    return (not _covers_neck(s, top), s.series_type not in ("STATIC", "WHOLE BODY", "WHOLEBODY"),
            round(abs(volume), 3) if math.isfinite(volume) else math.inf, -s.slices)


def _covers_neck(s: Series, top: float) -> bool:
    """Whether the series is named for the neck or spans 70 % of the part 5 to 25 cm below the highest scan's top."""
    high, low = top - _NECK_MM[0], top - _NECK_MM[1]
    return s.head_neck or min(s.z_mm[1], high) - max(s.z_mm[0], low) >= _NECK_SHARE * (high - low)


def _field_of_view(s: Series) -> tuple[Problem, ...]:
    """W-SHORTFOV for a PET too short to hold a head and a neck, such as a brain scan."""
    span = s.z_mm[1] - s.z_mm[0]
    if not span < 150.0:
        return ()
    return (Problem("W-SHORTFOV", "the PET covers little of the body", where=s.label, found=f"{span:.0f} mm",
                    expected="150 mm or more for head and neck"),)


def _choose_ct(
    cts: list[Series], pet: Series | None, asked: Series | None
) -> tuple[Series | None, str, tuple[Problem, ...]]:
    """The CT series of a PET, why, and problems."""
    if asked is not None:
        return asked, f"{asked.label}: asked for", ()
    usable = [s for s in cts if not s.purpose]
    if not usable:
        return None, "", (Problem("E-NOCT", "no CT series that can be used", found=_labels(cts),
                                  expected="an axial CT image series", remedy=f"Add it, or {_ASK}"),)
    usable = [s for s in usable if not s.derived] or usable
    ranked = sorted(usable, key=lambda s: (*_ct_rank(s, pet), s.number, s.key))
    best = ranked[0]
    tied = [s for s in ranked if _ct_rank(s, pet) == _ct_rank(best, pet)]
    notice = Problem("W-CTTIE", "several CT series are equally good; the lowest series number was taken",
                     found=_labels(tied), remedy=f"If another is meant, {_ASK}")
    how = "in the PET's frame of reference" if pet is not None and best.frame == pet.frame else "the nearest there is"
    computed = Problem("W-CTDERIVED", "the only CT is marked as computed from other images", found=best.label,
                       remedy="Check that it holds HU, or add the original CT")
    return best, f"{best.label}: {how}", (notice,) * (len(tied) > 1) + (computed,) * best.derived


def _ct_rank(s: Series, pet: Series | None) -> tuple[bool, bool, float, float]:
    volume = math.prod(s.voxel_mm)
    size = round(abs(volume), 3) if math.isfinite(volume) else math.inf
    if pet is None:
        return False, False, 0.0, size
    return s.frame != pet.frame, s.study != pet.study, -round(_coverage(s, pet), 1), size


def _coverage(s: Series, pet: Series) -> float:
    """Share of the PET's height that another series spans."""
    height = pet.z_mm[1] - pet.z_mm[0]
    shared = min(s.z_mm[1], pet.z_mm[1]) - max(s.z_mm[0], pet.z_mm[0])
    return max(0.0, shared) / height if height > 0 and math.isfinite(shared) else 0.0


def _choose_mask(
    masks: list[Series], pet: Series | None, ct: Series | None, asked: Series | None
) -> tuple[Series | None, tuple[Problem, ...]]:
    """The contours that belong to the images, and problems."""
    if asked is not None:
        return asked, ()
    for image in (ct, pet):
        drawn = [s for s in masks if image is not None and image.key in s.refers_to]
        drawn = drawn or [s for s in masks if image is not None and image.frame in s.frames and not s.refers_to]
        if len(drawn) == 1:
            return drawn[0], ()
        if drawn:
            return None, (Problem("W-MASKCHOICE", "several sets of contours belong to the images; none was taken",
                                  found=_labels(drawn), remedy=_ASK.capitalize()),)
    near = [s for s in masks if s.frames & {i.frame for i in (ct, pet) if i is not None and i.frame}]
    if len(near) == 1:
        return near[0], (Problem("W-MASKSERIES", "the contours were drawn on another series in the same frame of "
                                 "reference and were taken", found=near[0].label,
                                 remedy="Check that they fit these images"),)
    if not masks:
        return None, ()
    return None, (Problem("W-MASKOTHER", "the contours were drawn on other images; none was taken",
                          found=_labels(masks), remedy=f"If it belongs here, {_ASK}"),)
