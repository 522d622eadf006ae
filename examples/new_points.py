"""Train a model by the command line, then label new samples by it in Python; half a minute on two cores.

python examples/new_points.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_digits

import raymc


def main() -> None:
    with TemporaryDirectory() as name:
        out = Path(name) / "gcml"
        # GCML on the first 1437 of scikit-learn's 1797 digits. --smoke keeps it short; leave it out.
        words = ["gcml_digits", "--smoke", "--out", str(out), "--storage", f"{name}/store"]
        subprocess.run([sys.executable, "-m", "raymc.train", *words], check=True)
        model = raymc.load_model(out)  # all is read: the folder may go
    print(model)

    # The last 360 digits are new to it. Their 0..16 become bytes, as raymc's own reader of the digits has them.
    new = (load_digits().images[1437:] * 255 / 16).round().astype("uint8")
    labels, sure = model.predict(new), model.confidence(new)
    print("clusters of the first ten:", labels[:10].tolist())
    print(f"least certain: number {sure.argmin()}, confidence {sure.min():.2f}")
    print("embedding:", model.transform(new).shape)


if __name__ == "__main__":
    main()
