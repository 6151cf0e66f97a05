"""Where jobs run (`pool`), which are left (`planning`), how far they are (`progress`), on many machines (`cluster`)."""

from mtdlr.workers.pool import MACHINE, Outcome, Workers, aside, beside, run_jobs, values_of

__all__ = ["MACHINE", "Outcome", "Workers", "aside", "beside", "run_jobs", "values_of"]
