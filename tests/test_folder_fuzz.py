"""`mtdlr check` on whole folders with something wrong in them: it always ends in a table, never in a traceback."""

from __future__ import annotations

from pathlib import Path

import folder_fuzz as folders
import pytest

CASES = 60


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return folders.bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.slow
def test_the_bases_are_right(bases: list[Path]) -> None:
    """Nothing stands in the way of the unspoiled folder with enough patients; the small ones lack events alone."""
    told = [folders.check_study(base / "study.toml") for base in bases]
    assert [checked.is_fine for checked in told] == [True, False, False]
    assert all({p.code for p in checked.problems if p.is_error} <= {"E-FEWEVENTS"} for checked in told)


@pytest.mark.slow
def test_check_survives_any_folder(bases: list[Path], tmp_path: Path) -> None:
    """Sixty seeded folders: zips, links, permissions, tables, manifests, DICOM, NIfTI and study files with something
    wrong. `bench/bench_fuzz.py` runs three thousand."""
    outcomes = {folders.run_one(bases[seed % 3], tmp_path / "case", seed) for seed in range(CASES)}
    assert len(outcomes) > 20
