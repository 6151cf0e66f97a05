"""A synthetic study with a known truth: two centres, head-and-neck PET/CT, clinical table, follow-up."""

from mtdlr.synthetic.patient import SyntheticPatient, make_patient
from mtdlr.synthetic.study import simulate_study, write_study
from mtdlr.synthetic.truth import TRUTHS, Disease

__all__ = ["TRUTHS", "Disease", "SyntheticPatient", "make_patient", "simulate_study", "write_study"]
