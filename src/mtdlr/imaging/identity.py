"""Whether a folder or a structure is called by the patient's name or number, in any usual spelling.

Identifiers are compared as digests, so that no name is kept.
"""

from __future__ import annotations

import re
import unicodedata

from pydicom.dataset import Dataset

from mtdlr.imaging.dicom_tags import decoded, secret, text

_SHORTEST = 4
_SPELLED_OUT = str.maketrans({"Ä": "AE", "Ö": "OE", "Ü": "UE", "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe"})
_PIECES = re.compile(r"[A-ZÀ-Þ]?[a-zß-ÿ]+|[A-ZÀ-Þ]+(?![a-zß-ÿ])|\d+|[^\W\d_A-Za-zÀ-ÿ]+")


def names_of(ds: Dataset) -> frozenset[str]:
    """Digests of what the patient may be called: id, names, names joined, a name with the other's initial.

    None where the file says that identity was removed.
    """
    if (text(ds, "PatientIdentityRemoved") or "").upper() == "YES":
        return frozenset()
    number = _plain(text(ds, "PatientID") or "")
    words = {number, number.lstrip("0")}
    for spelling in _spellings(decoded(ds, "PatientName")):
        parts = [p for p in map(_plain, re.split(r"[\^=,\s]+", spelling)) if p]
        words |= set(parts)
        words |= {form for a in parts for b in parts if a != b for form in (a + b, a + b[:1], b[:1] + a)}
    return frozenset(secret(w) for w in words if len(w) >= _SHORTEST or (len(w) > 1 and not w.isascii()))


def is_named(label: str, names: frozenset[str]) -> bool:
    """Whether a label holds one of the names, whatever stands around and between its parts.

    Args:
        label: name of a folder or of a structure.
        names: of `names_of`.
    """
    for spelling in _spellings(label):
        pieces = [_plain(p) for p in _PIECES.findall(spelling)]
        joined = {"".join(pieces[i:j]) for i in range(len(pieces)) for j in range(i + 1, len(pieces) + 1)}
        if names & {secret(form) for word in joined for form in (word, word.lstrip("0"))}:
            return True
    return False


def _spellings(stated: str) -> set[str]:
    """The text as it stands, and with umlauts spelled out."""
    return {stated, stated.translate(_SPELLED_OUT)}


def _plain(stated: str) -> str:
    """Letters and digits alone, in capitals without accents."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", stated) if not unicodedata.combining(c))
    return "".join(c for c in bare.upper() if c.isalnum())
