"""Train a model, then label new samples by it, in Python: `python examples/new_points.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sklearn.datasets import load_digits

import raymc

OUT = Path("runs/new_points")

# Train: GCML on the first 1437 of the 1797 digits that come with scikit-learn. `--smoke` keeps it short; leave it out.
train = [sys.executable, "-m", "raymc.train", "gcml_digits", "--seed", "0", "--out", str(OUT)]
subprocess.run([*train, *(["--smoke"] if "--full" not in sys.argv else [])], check=True)

model = raymc.load_model(OUT)
print(model)

# The last 360 digits are new to it. Pixels 0..16 become bytes, as raymc's own reader has them.
new = (load_digits().images[1437:] * 255 / 16).round().astype("uint8")
labels, sure = model.predict(new), model.confidence(new)
print("cluster of the first ten:", labels[:10].tolist())
print("least certain:", int(sure.argmin()), "with confidence", round(float(sure.min()), 3))
print("embedding:", model.transform(new).shape)
