"""A frozen model as a repository of Hugging Face: README.md, the card under a YAML header, beside the model folder."""

from __future__ import annotations

from typing import Any

import yaml

from mtdlr.report.export.card import Card

PLACE = "model"
"""Where the model folder lies: it has a README.md of its own, which its header lists."""


def hugging_face_readme(card: Card) -> str:
    """README.md: the header that the hub reads, then the card."""
    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True)
    return (f"---\n{header}---\n{card.text()}\n## How to use it\n```\nmtdlr predict {PLACE} PATIENT "
            + " ".join(f"--clinical {name}=..." for name in card.variables) + "\n```\n")


def _header(card: Card) -> dict[str, Any]:
    results = [{"task": {"type": "survival-analysis", "name": f"{card.endpoint} from FDG-PET/CT"},
                "dataset": {"type": "private", "name": f"{name} cohort"},
                "metrics": [{"type": "c-index", "value": round(c.value, 6), "name": "C-index"}]}
               for name, c in card.c_index.items()]
    return {
        "license": card.terms.licence.lower() or "unknown", "library_name": "mtdlr",
        "tags": ["medical", "radiomics", "pet-ct", "survival-analysis", "nomogram", "research-only"],
        **({"model-index": [{"name": card.title, "results": results}]} if results else {}),
    }
