"""A received model at another centre: judged as it is (`performance`), and updated on request (`update`)."""

from mtdlr.validate.performance import AtMonth, CenterResult, TableValidation, judged_rows, numbers, validate_table
from mtdlr.validate.update import NomogramUpdate, update_nomogram, update_numbers

__all__ = ["AtMonth", "CenterResult", "NomogramUpdate", "TableValidation", "judged_rows", "numbers", "update_nomogram",
           "update_numbers", "validate_table"]
