"""Label many samples on a Ray cluster by batch inference: `python examples/predict_ray.py [MODEL]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ray
from sklearn.datasets import load_digits

import raymc


class Labels:
    """Loads the model once in each of Ray's actors, then labels batch after batch."""

    def __init__(self, path: str) -> None:
        self.model = raymc.load_model(path)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = self.model.assign(batch["data"])
        return {"cluster": found.labels.numpy(), "confidence": found.confidence.numpy()}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/predict_ray").resolve()
    if not folder.exists():
        words = ["-m", "raymc.train", "gcml_digits", "--smoke", "--out", str(folder)]
        subprocess.run([sys.executable, *words], check=True)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)  # on a cluster: ray.init(address="auto")
    images = (load_digits().images * 255 / 16).round().astype("uint8")
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_numpy(images)  # for files: ray.data.read_images, read_parquet, …
    labelled = data.map_batches(
        Labels,
        fn_constructor_kwargs={"path": str(folder)},
        batch_size=512,
        compute=ray.data.ActorPoolStrategy(size=1),  # with GPUs: num_gpus=1, and as many actors as there are
    )
    print(labelled.to_pandas().groupby("cluster").confidence.agg(["count", "mean"]))


if __name__ == "__main__":
    main()
