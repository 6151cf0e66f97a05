"""A page as PDF through WeasyPrint (extra `docs-out`), loading nothing; the same page gives the same bytes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mtdlr.errors import Problem, StudyError


def can_write_pdf() -> bool:
    """Whether WeasyPrint is installed and finds the system's Pango."""
    try:
        _weasyprint()
    except StudyError:
        return False
    return True


def require_pdf() -> None:
    """Refuse, before minutes of work, what cannot be written here.

    Raises:
        StudyError: E-PDF where WeasyPrint, or a library it needs, is absent.
    """
    _weasyprint()


def write_pdf(html: str, path: Path) -> Path:
    """Write a self-contained page as PDF; the path.

    Args:
        html: the page; only `data:` addresses are followed.
        path: the file to write.

    Raises:
        StudyError: as `require_pdf`.
    """
    path.write_bytes(pdf_bytes(html))
    return path


def pdf_bytes(html: str) -> bytes:
    """The PDF of a page, as `write_pdf` writes it.

    Args:
        html: the page; only `data:` addresses are followed.

    Raises:
        StudyError: as `require_pdf`.
    """
    weasyprint = _weasyprint()
    fetcher = weasyprint.URLFetcher(allowed_protocols=("data",))
    document = weasyprint.HTML(string=html, url_fetcher=fetcher, media_type="print")
    return bytes(document.write_pdf(pdf_identifier=b"mtdlr"))


def _weasyprint() -> Any:
    """WeasyPrint, which needs Pango from the system."""
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        raise StudyError(Problem("E-PDF", "a PDF cannot be written here", found=type(error).__name__,
                                 expected="WeasyPrint and the system's Pango",
                                 remedy="pip install 'mtdlr[docs-out]', and Pango from the system's packages; the HTML "
                                        "can be printed as PDF by any browser")) from None
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of every rule that is meant for screens
    return weasyprint
