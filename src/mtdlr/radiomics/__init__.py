"""Radiomics of a study: features inside a mask, their robustness and agreement, and tables of many patients."""

PET_LABELS = {"max_diameter_cm": "Maximum diameter (cm)", "suv_max": "SUVmax (g/ml)", "suv_mean_2_5": "SUVmean (g/ml)",
              "mtv_ml_2_5": "MTV (ml)", "tlg_g_2_5": "TLG (g)"}
"""The PET parameters of the paper's Tables 1 and 2; SUVmean, MTV and TLG at SUV >= 2.5."""
