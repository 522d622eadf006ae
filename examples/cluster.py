"""Clusters of a table by one command, and its labels by the table's own ids; a minute on two cores.

Of k-means, spectral clustering and MLC one is taken without a label.

    python examples/cluster.py
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from sklearn.datasets import load_wine

METHODS = "kmeans,spectral,mlc"


def main() -> None:
    wine = load_wine(as_frame=True)
    bottles = [f"wine {i}" for i in range(len(wine.frame))]
    table = wine.frame.assign(target=wine.target_names[wine.target], bottle=bottles)
    with TemporaryDirectory() as name:
        folder = Path(name)
        table.to_csv(folder / "wine.csv", index=False)
        command = [sys.executable, "-m", "raymc.cluster", "wine.csv", "--id", "bottle", "--label", "target"]
        options = ["--clusters", "3", "--methods", METHODS, "--seeds", "2", "--out", "found"]
        subprocess.run(command + options, cwd=folder, check=True)
        labels = pd.read_csv(folder / "found" / "labels.csv")  # sample, cluster, confidence; report.html is beside it
    both = labels.merge(table[["bottle", "target"]], left_on="sample", right_on="bottle")
    print(pd.crosstab(both["target"], both["cluster"]))
    print("least certain:", ", ".join(labels.nsmallest(3, "confidence")["sample"]))


if __name__ == "__main__":
    main()
