"""What one cell of a clinical table means: numbers, dates and yes or no as hospitals write them.

What is written in one of the usual ways is understood; what could mean two things is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from typing import Literal

Order = Literal["dmy", "mdy"]

MISSING = {"", "na", "n/a", "n.a.", "nan", "null", "none", ".", "-", "--", "?", "#n/a", "#nv", "k.a.", "k. a.", "nd",
           "n.d.", "unknown", "missing", "unbekannt", "fehlt", "inconnu", "desconocido", "sconosciuto", "未知",
           "不详"}
_YES = """1 yes y true event progression progress progressed relapse relapsed recurrence recurred dead died
    deceased death
    ja j wahr ereignis rezidiv progredient progredienz verstorben tot gestorben
    oui o vrai evenement rechute recidive decede decedee mort morte deces
    si verdadero evento recaida recidiva progresion fallecido fallecida muerto muerta exitus
    vero progressione deceduto deceduta morto morta
    sim obito 是 有 真 事件 进展 复发 死亡 死"""
_NO = """0 no n false censored censor alive living none
    nein falsch zensiert lebt lebend am leben kein ereignis
    non faux censure censuree vivant vivante
    falso censurado censurada vivo viva
    censurato censurata vivente nao 否 无 没有 假 删失 存活 生存"""
_PHRASES = {"am leben": 0, "kein ereignis": 0, "no event": 0, "event free": 0, "no progression": 0, "no recurrence": 0,
            "en vie": 0, "pas d'evenement": 0, "sin evento": 0, "nessun evento": 0}
EVENT_WORDS = {word: status for words, status in ((_YES, 1), (_NO, 0)) for word in words.split()
               if word not in ("am", "leben", "kein", "none")} | {"ereignis": 1} | _PHRASES
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}([ .]\d{3})+),\d+")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}( \d{3})+(\.\d+)?")
_TIME = re.compile(r"[ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?$")
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\.?|((?:19|20)\d{2})(\d{2})(\d{2})|"
                         r"(\d{4})年(\d{1,2})月(\d{1,2})日?")
_DAY_FIRST = re.compile(r"(\d{1,2})\. ?(\d{1,2})\. ?(\d{4}|\d{2})")
_EITHER = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4}|\d{2})")
_NAMED = re.compile(r"(\d{1,2})\.?[ -]+(?:de )?([^\W\d]{3,10})\.?,?[ -]+(?:de )?(\d{4}|\d{2})")
_NAMED_FIRST = re.compile(r"([^\W\d]{3,10})\.? +(\d{1,2})(?:st|nd|rd|th)?,? +(\d{4})")
_DAY_AND_MONTH = re.compile(r"\d{1,2}-[A-Za-z]{3}")
_MONTHS = {  # how months begin in English, German, French, Spanish and Italian: none begins another
    "jan": 1, "ene": 1, "gen": 1, "feb": 2, "fev": 2, "mar": 3, "maerz": 3, "mrz": 3, "apr": 4, "avr": 4, "abr": 4,
    "may": 5, "mai": 5, "mag": 5, "jun": 6, "juin": 6, "giu": 6, "jul": 7, "juil": 7, "lug": 7, "aug": 8, "aou": 8,
    "ago": 8, "sep": 9, "set": 9, "oct": 10, "okt": 10, "ott": 10, "nov": 11, "dec": 12, "dez": 12, "dic": 12,
}  # fmt: skip


def plain(text: str) -> str:
    """A word without case, accents and doubled blanks.

    >>> plain("  Décédé "), plain("SÍ"), plain("Männlich")
    ('decede', 'si', 'mannlich')
    """
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(bare.casefold().split())


def is_missing(cell: str) -> bool:
    """Whether a cell states that nothing is known."""
    return plain(cell) in MISSING


def number_in(cell: str, *, decimal_comma: bool = False) -> float | None:
    """The number in a cell, None where there is none or where it could be two.

    Args:
        cell: text.
        decimal_comma: whether 1,500 can only be one and a half.

    >>> number_in("1.5"), number_in("1,5"), number_in("1,500"), number_in("1.234,5"), number_in("1,234.5")
    (1.5, 1.5, None, 1234.5, 1234.5)
    """
    if _NUMBER.fullmatch(cell):
        return float(cell)
    if _DECIMAL_COMMA.fullmatch(cell) and (decimal_comma or not re.fullmatch(r"[+-]?\d{1,3},\d{3}", cell)):
        return float(cell.replace(" ", "").replace(".", "").replace(",", "."))
    return float(cell.replace(",", "").replace(" ", "")) if _THOUSANDS.fullmatch(cell) else None


def event_in(cell: str) -> int | None:
    """1 for an event, 0 for none, in figures or in words of six languages; None for anything else.

    >>> [event_in(word) for word in ("1", "0.0", "ja", "non", "Sí", "décédé", "复发", "2")]
    [1, 0, 1, 0, 1, 1, 1, None]
    """
    number = number_in(cell)
    return int(number) if number in (0.0, 1.0) else EVENT_WORDS.get(plain(cell))


def order_of(cells: Iterable[str]) -> Order | None:
    """Whether 3/4/2020 is in April or in March, as other dates of the table show; None where none shows it."""
    parts = [(int(found[1]), int(found[3])) for cell in cells if (found := _EITHER.fullmatch(_TIME.sub("", cell)))]
    day_first, month_first = any(a > 12 for a, _ in parts), any(b > 12 for _, b in parts)
    return None if day_first == month_first else "dmy" if day_first else "mdy"


def is_two_dates(cell: str) -> bool:
    """Whether a date is another one when day and month are swapped."""
    found = _EITHER.fullmatch(_TIME.sub("", cell))
    return found is not None and int(found[1]) <= 12 and int(found[3]) <= 12 and found[1] != found[3]


def date_in(cell: str, order: Order | None = None) -> date | None:
    """The date in a cell, None where there is none.

    Args:
        cell: text; a time of day is passed over. Years of two figures lie between 1951 and 2050.
        order: what 3/4/2020 means.

    >>> str(date_in("03.04.2020")), str(date_in("2020-04-03 00:00:00")), str(date_in("3. März 2020"))
    ('2020-04-03', '2020-04-03', '2020-03-03')
    >>> str(date_in("3/4/20", "mdy")), date_in("3/4/2020"), str(date_in("2020年4月3日"))
    ('2020-03-04', None, '2020-04-03')
    """
    cell = _TIME.sub("", cell.strip())
    if found := _YEAR_FIRST.fullmatch(cell):
        year, month, day = (int(part) for part in found.groups() if part)
        return _date(year, month, day)
    if found := _DAY_FIRST.fullmatch(cell):
        return _date(int(found[3]), int(found[2]), int(found[1]))
    if found := _EITHER.fullmatch(cell):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        if first == second:
            return _date(year, first, first)
        return None if order is None else _date(year, *((second, first) if order == "dmy" else (first, second)))
    if found := _NAMED.fullmatch(cell):
        return _date(int(found[3]), _month(found[2]), int(found[1]))
    if found := _NAMED_FIRST.fullmatch(cell):
        return _date(int(found[3]), _month(found[1]), int(found[2]))
    return None


def looks_like_a_date(cell: str) -> bool:
    """Whether a cell is a date, complete or, as spreadsheets make them, without its year."""
    return date_in(cell, "dmy") is not None or date_in(cell, "mdy") is not None or bool(_DAY_AND_MONTH.fullmatch(cell))


def _month(name: str) -> int:
    word = plain(name)
    return next((n for start, n in _MONTHS.items() if word.startswith(start)), 0)


def _date(year: int, month: int, day: int) -> date | None:
    year += (1900 if year > 50 else 2000) if year < 100 else 0
    try:
        return date(year, month, day)
    except ValueError:
        return None
