"""Settings: one file, every mistake at once, presets below and overrides above."""

import os
from pathlib import Path

import pytest

from mtdlr.errors import StudyError
from mtdlr.study import PRESETS, Study, field_of
from mtdlr.study.template import settings_page, study_template


def _write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_every_mistake_comes_back_at_once(tmp_path: Path) -> None:
    """Unknown keys suggest the nearest one, values out of range say so, and all of them are reported together."""
    path = _write(tmp_path, "[prepare]\nspacing = 3\nsize = 33\n[nomogramm]\nx = 1\n[score]\nfolds = 'five'\n")
    with pytest.raises(StudyError) as caught:
        Study.load(path)
    lines = str(caught.value)
    assert "prepare.spacing: unknown setting. Did you mean `spacing_mm`?" in lines
    assert "prepare.size" in lines and "multiple of 16" in lines and "found 33" in lines
    assert "nomogramm: unknown setting. Did you mean `nomogram`?" in lines
    assert "score.folds" in lines and len(lines.splitlines()) == 4


def test_a_preset_lies_below_the_file_and_overrides_above(tmp_path: Path) -> None:
    """The file changes the preset's defaults, and `--set` changes the file."""
    path = _write(tmp_path, 'preset = "quick"\n[prepare]\nspacing_mm = 5\n')
    assert Study.load(path).prepare.size == PRESETS["quick"]["prepare"]["size"]
    assert Study.load(path).prepare.spacing_mm == 5
    changed = Study.load(path, ["prepare.spacing_mm=3", "report.title=A title", "prepare.roi=center"])
    assert (changed.prepare.spacing_mm, changed.report.title, changed.prepare.roi) == (3, "A title", "center")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_is_valid(preset: str) -> None:
    """Each preset makes a study."""
    assert Study.of({"preset": preset}).preset == preset


def test_paper_is_the_paper() -> None:
    """The preset `paper` has the published choices: in-sample scores, Breslow ties, O/E hazard ratios, status ROC."""
    paper = Study.of({"preset": "paper"})
    assert (paper.score.training, paper.nomogram.ties, paper.evaluate.group_hr, paper.evaluate.roc) == (
        "in_sample", "breslow", "logrank_oe", "status")
    assert (paper.prepare.size, paper.deepmts.width, paper.deepmts.detach_probability) == (128, 1.0, False)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    """Paths of a study file are taken from its own folder, not from where the command runs."""
    study = Study.load(_write(tmp_path, '[cohort]\nimages = "scans"\n'))
    assert study.cohort.images == tmp_path.resolve() / "scans"
    assert study.cohort.table == tmp_path.resolve() / "clinical.csv"


@pytest.mark.parametrize(("text", "code"), [("preset = ", "E-TOML"), ("[cohort]\nreferences = {a = 'b'}", "E-SETTING")])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, code: str) -> None:
    """What is not TOML, or contradicts itself, is one line with its code."""
    with pytest.raises(StudyError, match=code) as caught:
        Study.load(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_override() -> None:
    """A missing file and a malformed override are errors with a remedy."""
    with pytest.raises(StudyError, match="E-NOSTUDY"):
        Study.load("nowhere.toml")
    with pytest.raises(StudyError, match="E-OVERRIDE"):
        Study.load(Path(__file__).parents[1] / "examples" / "sts.toml", ["folds"])


def test_the_template_is_a_study_with_every_key(tmp_path: Path) -> None:
    """What `mtdlr init` writes is valid, names every key, and says what it means."""
    text = study_template({"cohort": {"stage": "grade", "factors": {"grade": ("1", "2")}}})
    study = Study.load(_write(tmp_path, text))
    assert study.cohort.factors == {"grade": ("1", "2")}
    for section, field in Study.model_fields.items():
        if section != "preset":
            for key in field.annotation.model_fields:
                assert f"{key} = " in text
                assert field_of(f"{section}.{key}")[0]


def test_the_settings_page_is_up_to_date() -> None:
    """docs/settings.md is what the settings say; `python -m mtdlr.study.template > docs/settings.md` writes it anew."""
    assert (Path(__file__).parents[1] / "docs" / "settings.md").read_text() == settings_page()


def test_a_study_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A study file that is locked, a pipe or a link to itself is one typed problem; nothing waits for the pipe."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    for name in ("pipe.toml", "loop.toml", "x" * 300):
        with pytest.raises(StudyError, match="E-NOSTUDY"):
            Study.load(tmp_path / name)


def test_a_locked_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study file that may not be read is E-NOACCESS."""
    (tmp_path / "study.toml").write_text("")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(StudyError, match="E-NOACCESS"):
        Study.load(tmp_path / "study.toml")
