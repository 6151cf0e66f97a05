"""A frozen model as others keep models: MONAI, Hugging Face, BIDS, FHIR. Files only; nothing is sent anywhere."""
