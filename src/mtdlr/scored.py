"""PatientScore: what the networks say of one patient, and how it lies on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtdlr.errors import Problem
from mtdlr.imaging import nifti
from mtdlr.volume import Volume

MASK = "mask.nii.gz"


@dataclass(frozen=True, eq=False)
class PatientScore:
    """What the networks say of one patient.

    Args:
        risks: raw log-hazards of each network, in the order of the folds.
        mask: predicted tumour on the network grid.
        agreement: dice, hausdorff95_mm and volumes against the manual mask; empty where there is none.
        problems: warnings, such as an empty prediction replaced by uptake.
    """

    risks: Mapping[str, tuple[float, ...]]
    mask: Volume
    agreement: Mapping[str, float]
    problems: tuple[Problem, ...]

    def save(self, folder: Path) -> None:
        """Write score.json and mask.nii.gz, and its affine also there: NIfTI keeps no more than single precision."""
        nifti.write(folder / MASK, self.mask)
        header = {"risks": dict(self.risks), "agreement": dict(self.agreement), "affine": self.mask.affine.tolist(),
                  "problems": [p.as_dict() for p in self.problems]}
        (folder / "score.json").write_text(json.dumps(header, indent=1))


def load_mask(folder: Path) -> Volume:
    """The predicted mask that `PatientScore.save` wrote, as it was to the last bit."""
    volume, _ = nifti.read(folder / MASK)
    return Volume(volume.array > 0, json.loads((folder / "score.json").read_text())["affine"])
