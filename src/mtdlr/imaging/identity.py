"""Whether a folder or a structure is called by the patient's name or number, in any usual spelling.

Identifiers are compared as digests, so that no name is kept.
"""

from __future__ import annotations

import re
import unicodedata

from pydicom.dataset import Dataset

from mtdlr.imaging.dicom_tags import decoded, secret, text

_SHORTEST = 4
# Words that structures are called by. A name is printed if all its words are among these, so that no person's is.
_ANATOMY = frozenset("""
    ALL AND ANTERIOR ARTERY AUTO AXILLA AXILLARY BED BLADDER BODY BONE BOOST BRACHIAL BRAIN BRAINSTEM BREAST
    CANAL CAVITY CERVICAL CHIASM COCHLEA CONTOUR CONTOURS CORD COUCH CT CTV CTVHR CTVLR CTVN CTVP DISEASE DISTAL
    EAR EDEMA ESOPHAGUS EXT EXTERNAL EYE FDG FINAL GLAND GLOTTIS GROSS GTV GTVLN GTVN GTVND GTVNODE GTVNX GTVP
    GTVT HEAD HEART HIGH I II III ILIAC INFERIOR INNER INTERNAL ITV IV JAW JOINT KIDNEY KNOTEN L LARYNX LATERAL
    LEFT LEG LENS LESION LESIONS LEVEL LINKS LIP LIVER LN LOBE LOW LT LUNG LYMPH LYMPHKNOTEN MANDIBLE MANUAL
    MARGIN MASK MASS MEDIAL METASTASIS MR MRI MUSCLE N NASAL NASOPHARYNX ND NECK NECROSIS NERVE NODAL NODE NODES
    NPC NRRT NX OEDEMA OF OPTIC ORAL ORBIT OROPHARYNX OUTER P PAROTID PAROTIS PART PET PHARYNX PITUITARY POST
    POSTERIOR PRE PRIM PRIMARIUS PRIMARY PROXIMAL PTV PTVN PTVP R RAW RECHTS RECTUM REGION RIGHT RIND ROI RT
    SARCOMA SEG SEGMENT SHELL SIDE SKIN SKULL SPINAL SPINE SPLEEN STOMACH SUBMANDIBULAR SUPERIOR SUV T TARGET
    TEMPORAL THE THORAX THYROID TISSUE TMJ TONGUE TONSIL TUMOR TUMOUR V VESSEL VI VOLUME WITH
    """.split())
_CHINESE = re.compile("(肿瘤|原发灶|原发|病灶|转移灶|转移|淋巴结|鼻咽|咽后|颈部|靶区|左|右|侧|上|下|区|头|"
                      "颈|腮腺|脑干|脊髓|勾画|阳性)+")
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


def shown(name: str, people: frozenset[str]) -> str:
    """A structure's name as a message may show it: withheld unless all its words are of anatomy or planning.

    Args:
        name: ROIName or SegmentLabel.
        people: `names_of` the file that it stands in.

    >>> shown("GTVp 1 [PET]", frozenset()), shown("GTV Doe", frozenset())
    ('GTVp 1 [PET]', '(name withheld)')
    """
    words = [_plain(w) for w in re.findall(r"[^\W\d_]+|\d+", name)]
    tame = all(w in _ANATOMY or _CHINESE.fullmatch(w) or (w.isdigit() and len(w) < 4) or len(w) == 1 for w in words)
    return name if words and len(name) <= 64 and tame and not is_named(name, people) else "(name withheld)"
