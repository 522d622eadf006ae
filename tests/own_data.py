"""Data of a user's own for the tests: the same rows, written and read in every way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raymc.cli import execute
from raymc.config import OwnData
from raymc.datasets import Dataset
from raymc.datasets.own import read_own
from raymc.errors import InputError

RNG = np.random.default_rng(0)
N, D = 30, 4
X = RNG.normal(size=(N, D)) * [1, 10, 0.1, 1] + [0, 50, -3, 1]
TEXTS = np.asarray(["iris", "lily", "rose"])[np.arange(N) % 3]
Y = np.arange(N) % 3
# Short ones of the preset's, so that a training takes a moment.
QUICK = "fixed: {backbone: dense_256, pretrain.epochs: 1, finetune.epochs: 1, finetune.centers_by: kmeans}\n"


def frame(x: np.ndarray = X, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])]).assign(**columns)


def own(path: Path, **keys: Any) -> OwnData:
    return OwnData(**{"name": path.stem, "path": str(path)} | keys)


def read(path: Path, scaling: str | None = None, **keys: Any) -> Dataset:
    return read_own(own(path, **keys), scaling)


def npz(path: Path, x: np.ndarray = X, **arrays: Any) -> Path:
    np.savez(path, x=x, **arrays)
    return path


def complaint(path: Path, scaling: str | None = None, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, scaling, **keys)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def space(folder: Path, dataset: str, rest: str = QUICK) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"method: gcml\ndataset: {dataset}\n{rest}")
    return path


def write_images(folder: Path, **kinds: tuple[str, tuple[int, int]]) -> Path:
    for name, (mode, size) in kinds.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path)
    return folder


def bad(x: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    x = x.copy()
    x[row:, column] = value
    return x


def run(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], *words: str) -> tuple[int, str, str]:
    code = execute(command.parser(), command.run, list(words))  # type: ignore[attr-defined]
    return code, *capsys.readouterr()
