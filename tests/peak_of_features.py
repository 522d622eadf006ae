"""`python peak_of_features.py FOLDER`: MiB at the peak of embedding 60,000 texts as 768 numbers each, into an .npy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raymc.distributed import Workers
from raymc.encoders.base import Encoder
from raymc.storage.stage_store import Store
from raymc.training.features.stage import Features

WIDTH = 768


class Numbers:
    """Texts "0", "1", … that are made when they are read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Any:
        return (str(i) for i in range(self.n))

    def __getitem__(self, rows: slice) -> list[str]:
        return [str(i) for i in range(*rows.indices(self.n))]


def encode(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(text)] for text in texts]).expand(-1, WIDTH)


def memory(name: str) -> float:
    """`RssAnon`, or the peak `VmHWM`, of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def embedded(n: int, place: Path) -> None:
    net = torch.nn.Linear(1, 1)
    encoder = Encoder("numbers", net, encode, None, "nowhere")
    features = Features(encoder, Numbers(n), Store(str(place)), "bfloat16", torch.device("cpu"))  # type: ignore[arg-type]
    features.obtain(Workers(), lambda row: None)
    with (place / f"{n}.npy").open("wb") as file:
        features.write_npy(file)
    written = np.load(place / f"{n}.npy", mmap_mode="r")
    assert written.shape == (n, WIDTH) and float(written[n - 1, 5]) == float(torch.tensor(float(n - 1)).bfloat16())


def main(place: str) -> None:
    embedded(3000, Path(place))  # imports and threads
    before = memory("VmRSS")
    embedded(60_000, Path(place))
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
