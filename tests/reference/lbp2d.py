"""Writes lbp2d.json: local binary patterns of a small image of whole numbers by scikit-image (made with 0.26.0)."""

import json
from pathlib import Path

import numpy as np
from skimage.feature import local_binary_pattern

CASES = [("uniform", 8, 1.0), ("default", 8, 1.0), ("ror", 6, 2.0), ("var", 8, 1.0), ("uniform", 12, 1.5)]
image = np.random.default_rng(3).integers(-4, 5, (7, 9))
found = [{"method": method, "samples": samples, "radius": radius,
          "pattern": np.round(local_binary_pattern(image, samples, radius, method), 12).tolist()}
         for method, samples, radius in CASES]
Path(__file__).with_suffix(".json").write_text(json.dumps({"image": image.tolist(), "cases": found}) + "\n")
