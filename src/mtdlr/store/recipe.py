"""What a result is made of, and which code makes it: the one table of stage versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mtdlr.store.files import digest, file_hash
from mtdlr.versions import package_version

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """A stage's version, raised when its code changes its results, and the source files that make them."""

    version: int
    sources: tuple[str, ...]


_NETS = ("nets/*.py", "train.py")
_SCORING = ("nets/*.py", "infer.py", "prepared.py")
_TEXTURE = ("texture/*.py", "radiomics/*.py")
_REPORT = ("report/**/*", "stats/*.py", "evaluate/*.py", "model.py", "associate.py", "nomogram/*")
STAGES: Mapping[str, Stage] = {
    "prepare": Stage(3, ("imaging/*.py", "prepare.py", "prepared.py", "volume.py")),
    "mean": Stage(1, ("prepared.py",)),
    "train": Stage(8, (*_NETS, "stats/ridge.py")),
    "score": Stage(5, _SCORING),
    "radiomics": Stage(4, _TEXTURE),
    "features": Stage(3, (*_TEXTURE, "imaging/*.py")),
    "signature": Stage(4, ("signature.py", "stats/lasso*.py", "stats/cox*.py")),
    "arm": Stage(1, ("evaluate/arms.py", "signature.py", "stats/lasso*.py", "stats/cox*.py")),
    "rivals": Stage(1, ("evaluate/rivals.py", "evaluate/simple.py", "stats/ridge.py")),
    "picture": Stage(2, ("report/pictures.py", "report/figures/*.py")),
    "explain": Stage(5, ("explain.py", *_SCORING)),
    "report": Stage(8, _REPORT),
    "bundle": Stage(7, ("bundle.py", *_REPORT)),
}
"""Every stage that leaves stored results. Raise a version when a change of its code changes a stored number."""


@dataclass(frozen=True)
class Recipe:
    """What a result is made of: nothing else may influence it.

    Args:
        stage: the folder it is kept in; its version in `STAGES` is part of the key.
        settings: plain JSON values.
        inputs: key or content hash of each input, by name.
        resumable: the build goes on from what an interrupted one left in its scratch folder.

    >>> Recipe("prepare", {"size": 32}, {"scan": "ab12"}).key == Recipe("prepare", {"size": 48}, {"scan": "ab12"}).key
    False
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    resumable: bool = False

    @property
    def version(self) -> int:
        """Of the stage's code."""
        return STAGES[self.stage].version if self.stage in STAGES else 1

    @property
    def key(self) -> str:
        """Sixteen hex digits."""
        return digest([self.stage, self.version, self.settings, self.inputs])

    @property
    def name(self) -> str:
        """`stage/key`."""
        return f"{self.stage}/{self.key}"


def made_by(stage: str) -> dict[str, str]:
    """The code that makes a stage's results now: package version, and a hash of the stage's source files."""
    return {"mtdlr": package_version(), "source": source_of(stage)}


@cache
def source_of(stage: str) -> str:
    """Sixteen hex digits of the stage's source files."""
    patterns = STAGES[stage].sources if stage in STAGES else ()
    files = sorted({path for pattern in patterns for path in PACKAGE.glob(pattern)
                    if path.is_file() and "__pycache__" not in path.parts})
    return digest([[path.relative_to(PACKAGE).as_posix(), file_hash(path)] for path in files])


def without_paths(values: Any) -> Any:
    """Settings without absolute paths: a file stands for its content, a folder for its name."""
    if isinstance(values, dict):
        return {name: without_paths(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_paths(value) for value in values]
    if isinstance(values, str) and Path(values).is_absolute():
        return file_hash(Path(values)) if Path(values).is_file() else Path(values).name
    return values
