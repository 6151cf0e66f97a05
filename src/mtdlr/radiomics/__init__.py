"""Radiomics of a study: features inside a mask, their robustness and agreement, and tables of many patients."""
