"""Small folders laid out as each dataset's files are, with random content."""

from __future__ import annotations

import bz2
import dataclasses
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from raymc.datasets.catalogue import SOURCES
from raymc.datasets.source import Source

RNG = np.random.default_rng(0)


def small(
    name: str, samples: tuple[int, ...], classes: int | None = None, in_files: tuple[int, ...] | None = None
) -> Source:
    """A known source as if it, and its files, had fewer samples."""
    source = SOURCES[name]
    in_files = source.in_files if in_files is None else in_files
    return dataclasses.replace(source, samples=samples, classes=classes or source.classes, in_files=in_files)


def bytes_of(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes())


def write_mnist(root: Path) -> Path:
    """12 and 5 images; labels count up from 0."""
    for part, n in (("train", 12), ("t10k", 5)):
        write_idx(root / "MNIST/raw" / f"{part}-images-idx3-ubyte", bytes_of(n, 28, 28))
        write_idx(root / "MNIST/raw" / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return root


def write_coil(root: Path) -> Path:
    """Two objects of COIL-20."""
    folder = root / "coil-20-proc"
    folder.mkdir()
    for n in (1, 2):
        for view in range(72):
            Image.fromarray(bytes_of(128, 128)).save(folder / f"obj{n}__{view}.png", compress_level=0)
    return root


def write_batches(root: Path, train: list[int], test: list[int]) -> Path:
    """CIFAR-10 in pickles: images with these labels, a fifth of `train` in each batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    parts = [train[i * len(train) // 5 : (i + 1) * len(train) // 5] for i in range(5)]
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name, labels in zip(names, [*parts, test], strict=True):
        batch = {"data": bytes_of(len(labels), 3072), "labels": labels}
        # The published files name numpy's modules as they were called in 2009.
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2).replace(b"numpy._core.", b"numpy.core."))
    return root


def write_tiny(root: Path) -> Path:
    """Tiny-ImageNet of two classes: 6 and 4 images; the first of each class is grey."""
    folder = root / "tiny-imagenet-200"
    lines = []
    for label, wnid in enumerate(("n01", "n20")):
        places = [folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG" for i in range(3)]
        names = [f"val_{2 * i + 1 - label}.JPEG" for i in range(2)]
        places += [folder / "val" / "images" / name for name in names]
        lines += [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name in names]
        for i, path in enumerate(places):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(bytes_of(64, 64, 3) if i else bytes_of(64, 64)).save(path)
    (folder / "val" / "val_annotations.txt").write_text("".join(sorted(lines)))
    return root


def write_compact(root: Path) -> Path:
    """CIFAR-100 in strips: 7 and 2 images; labels count up from 0."""
    for part, strips in (("train", (4, 3)), ("test", (2,))):
        (root / "cifar100" / part).mkdir(parents=True)
        for i, n in enumerate(strips):
            path = root / "cifar100" / part / f"{part}_{i:03}.webp"
            Image.fromarray(bytes_of(32 * n, 32, 3)).save(path, lossless=True)
    numbers = {f"{part}_{kind}": np.arange(n) for part, n in (("train", 7), ("test", 2)) for kind in ("fine", "coarse")}
    np.savez(root / "cifar100/labels.npz", **numbers)
    return root


def write_har(root: Path, folder: str = "UCI HAR Dataset") -> Path:
    """HAR: 4 and 3 rows, as UCI writes them; labels count up from 1."""
    for part, n in (("train", 4), ("test", 3)):
        place = root / folder / part
        place.mkdir(parents=True)
        lines = ("".join(f" {value: .7e}" for value in row) for row in RNG.uniform(-1, 1, (n, 561)))
        (place / f"X_{part}.txt").write_text("\n".join(lines) + "\n")
        (place / f"y_{part}.txt").write_text("".join(f"{i + 1}\n" for i in range(n)))
    return root


def write_libsvm(folder: Path) -> Path:
    """USPS as libsvm has it: 5 and 2 rows; labels count up from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("usps.bz2", 5), ("usps.t.bz2", 2)):
        rows = RNG.uniform(-1, 1, (n, 256)).round(6)
        lines = (f"{i + 1} " + " ".join(f"{j}:{v:g}" for j, v in enumerate(row, 1)) for i, row in enumerate(rows))
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode() + b"\n"))
    return folder


def write_pendigits(root: Path) -> Path:
    """Pendigits: 4 and 3 rows; labels count up from 0."""
    (root / "pendigits").mkdir()
    for part, n in (("tra", 4), ("tes", 3)):
        rows = np.concatenate([RNG.integers(0, 101, (n, 16)), np.arange(n)[:, None]], 1)
        lines = (", ".join(f"{value:3d}" for value in row) for row in rows)
        (root / "pendigits" / f"pendigits.{part}").write_text("\n".join(lines) + "\n")
    return root


def write_reuters(root: Path) -> Path:
    """Reuters-10k as the code of DEC saves it: 6 rows."""
    (root / "reuters10k").mkdir()
    rows = {"data": RNG.uniform(0, 1, (6, 2000)), "label": np.arange(6) % 4}
    np.save(root / "reuters10k/reutersidf10k.npy", rows, allow_pickle=True)
    return root
