"""Clinical table + scans -> patients (`patients`, `clinical`), and what is wrong with them (`check`, `check_table`)."""

from mtdlr.cohort.headers import HeaderReader
from mtdlr.cohort.patients import (
    Cohort,
    Patient,
    find_scans,
    imputation,
    impute,
    leakage,
    raise_errors,
    read_cohort,
    require_events,
    shared_images,
    split_patients,
    unreadable,
)

__all__ = ["Cohort", "HeaderReader", "Patient", "find_scans", "imputation", "impute", "leakage", "raise_errors",
           "read_cohort", "require_events", "shared_images", "split_patients", "unreadable"]
