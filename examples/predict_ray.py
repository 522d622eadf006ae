"""Label many samples by Ray's batch inference, on this machine or a cluster; under a minute on two cores.

python examples/predict_ray.py
"""

from __future__ import annotations

import subprocess
import sys
from tempfile import TemporaryDirectory
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
    with TemporaryDirectory() as name:
        words = ["gcml_digits", "--smoke", "--out", f"{name}/gcml", "--storage", f"{name}/store"]
        subprocess.run([sys.executable, "-m", "raymc.train", *words], check=True)
        # On a cluster: address="auto", and the model's folder where all machines see it.
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        images = (load_digits().images * 255 / 16).round().astype("uint8")
        data = ray.data.from_numpy(images)  # of files: ray.data.read_images, read_parquet, …
        labelled = data.map_batches(
            Labels,
            fn_constructor_kwargs={"path": f"{name}/gcml"},
            batch_size=512,
            compute=ray.data.ActorPoolStrategy(size=1),  # with GPUs: num_gpus=1, and an actor for each
        )
        print(labelled.to_pandas().groupby("cluster")["confidence"].agg(["count", "mean"]))
        ray.shutdown()


if __name__ == "__main__":
    main()
