"""Every dataset's files: each layout on a small folder of random content, the real files where they are."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raymc.datasets import load, tiny_imagenet
from raymc.datasets.catalogue import SOURCES
from raymc.errors import InputError
from tests.fabricated_data import bytes_of, small, write_batches


def test_idx_files_train_and_test_together(mnist: Path) -> None:
    data = small("mnist", (12, 5)).load(mnist)
    raw = np.frombuffer((mnist / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    assert data.train.x.shape == (17, 1, 28, 28) and data.train.x.dtype == torch.uint8
    assert np.array_equal(data.train.x[12:].numpy().ravel(), raw)
    assert data.train.y is not None and data.train.y.tolist() == [*range(10), 0, 1, *range(5)]
    assert data.test is None and "17" in data.split and data.epoch_size == 17
    alone = small("mnist_test", (5,)).load(mnist)
    assert torch.equal(alone.train.x, data.train.x[12:])


def test_the_split_of_mnist_cuts_train_and_test_together(mnist: Path) -> None:
    whole = small("mnist", (12, 5)).load(mnist)
    data = small("mnist_split", (9, 8), in_files=(12, 5)).load(mnist)
    assert data.test is not None and data.split == "the first 9 of train and test together, 8 held out"
    assert (
        torch.equal(torch.cat([data.train.x, data.test.x]), whole.train.x) and len(data.train) == data.epoch_size == 9
    )
    assert data.train.y is not None and data.test.y is not None and whole.train.y is not None
    assert torch.equal(torch.cat([data.train.y, data.test.y]), whole.train.y)
    with pytest.raises(InputError, match="MNIST/raw: 17 images; expected: 16"):
        small("mnist_split", (9, 7), in_files=(12, 5)).load(mnist)


def test_cifar_pickles_in_the_order_of_their_batches(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    rows = [bytes_of(2, 3072) for _ in names]
    for i, (name, data) in enumerate(zip(names, rows, strict=True)):
        # The published files name numpy's modules as they were called in 2009.
        old = pickle.dumps({"data": data, "labels": [i, 9]}, protocol=2).replace(b"numpy._core.", b"numpy.core.")
        (folder / name).write_bytes(old)
    data = small("cifar10", (10, 2)).load(tmp_path)
    assert data.train.y is not None and data.train.y.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert np.array_equal(data.train.x.numpy().reshape(10, 3072), np.concatenate(rows[:5]))
    assert data.test is not None and np.array_equal(data.test.x.numpy().reshape(2, 3072), rows[5])


def test_cifar_100_pickles_hold_fine_and_coarse_labels(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    batch = {"data": bytes_of(3, 3072), "fine_labels": [99, 5, 0], "coarse_labels": [19, 1, 0]}
    for part in ("train", "test"):
        (tmp_path / "cifar-100-python" / part).write_bytes(pickle.dumps(batch, protocol=2))
    fine, coarse = (small(name, (3, 3)).load(tmp_path) for name in ("cifar100", "cifar20"))
    assert fine.train.y is not None and fine.train.y.tolist() == [99, 5, 0] and fine.n_classes == 100
    assert coarse.train.y is not None and coarse.train.y.tolist() == [19, 1, 0] and coarse.n_classes == 20
    # What is trained on is the same, so stage results of one serve the other.
    assert fine.fingerprint == coarse.fingerprint


def test_cifar_webp_strips_in_name_order(compact: Path) -> None:
    data = small("cifar100", (7, 2)).load(compact)
    strips = [np.asarray(Image.open(p)).reshape(-1, 32, 32, 3) for p in sorted((compact / "cifar100/train").iterdir())]
    assert np.array_equal(data.train.x.permute(0, 2, 3, 1).numpy(), np.concatenate(strips))
    assert data.train.y is not None and data.train.y.tolist() == list(range(7))
    assert data.test is not None and len(data.test) == 2


def test_half_of_each_odd_numbered_class_is_removed_in_the_order_of_the_files(tmp_path: Path) -> None:
    labels = [1, 0, 3, 1, 1, 3, 0, 1, 2, 3]
    write_batches(tmp_path, labels, [1, 1, 4, 1, 9, 1])
    whole = small("cifar10", (10, 6)).load(tmp_path)
    data = small("imb_cifar10", (7, 4), in_files=(10, 6)).load(tmp_path)
    # Of four the first two stay; of three, the first two.
    left = [0, 1, 2, 3, 5, 6, 8]
    assert torch.equal(data.train.x, whole.train.x[left])
    assert data.train.y is not None and data.train.y.tolist() == [labels[i] for i in left]
    assert data.test is not None and data.test.y is not None and data.test.y.tolist() == [1, 1, 4, 9]
    assert whole.test is not None and torch.equal(data.test.x, whole.test.x[[0, 1, 2, 4]])
    assert data.split == "train, 7 (half of the odd-numbered classes removed)" and data.epoch_size == 7
    assert data.fingerprint != whole.fingerprint


def test_imbalanced_cifar_100_is_thinned_by_its_fine_labels(compact: Path) -> None:
    numbers = {"train_fine": [5, 5, 4, 4, 5, 99, 5], "test_fine": [99, 99]}
    np.savez(compact / "cifar100/labels.npz", **numbers)
    whole = small("cifar100", (7, 2)).load(compact)
    source = small("imb_cifar100", (5, 1), in_files=(7, 2))
    data = source.load(compact)
    assert data.train.y is not None and data.train.y.tolist() == [5, 5, 4, 4, 99]
    assert torch.equal(data.train.x, whole.train.x[[0, 1, 2, 3, 5]])
    assert data.test is not None and len(data.test) == 1 and data.n_classes == 100
    # The checksums are those of the files: the labels here are not the published ones.
    with pytest.raises(InputError, match="labels.npz has sha256 .*; expected: sha256 c6d5ab9b"):
        source.check(compact)


def test_tiny_imagenet_is_labelled_by_wnid_and_its_validation_part_is_the_test(tiny: Path) -> None:
    data = small("tiny_imagenet", (6, 4), classes=2).load(tiny)
    assert data.train.x.shape == (6, 3, 64, 64) and data.train.x.dtype == torch.uint8
    assert data.train.y is not None and data.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test is not None and data.test.y is not None and data.test.y.tolist() == [1, 0, 1, 0]
    folder = tiny / "tiny-imagenet-200"
    for x, path in (
        (data.train.x[4], folder / "train/n20/images/n20_1.JPEG"),
        (data.test.x[3], folder / "val/images/val_3.JPEG"),
    ):
        assert np.array_equal(x.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    grey = np.asarray(Image.open(folder / "train/n20/images/n20_0.JPEG"))
    assert grey.ndim == 2 and np.array_equal(data.train.x[3].numpy(), np.stack([grey] * 3))


def test_tiny_imagenet_in_several_chunks_is_the_same(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small("tiny_imagenet", (6, 4), classes=2)
    whole = source.load(tiny)
    monkeypatch.setattr(tiny_imagenet, "CHUNK", 4)
    assert source.load(tiny).fingerprint == whole.fingerprint


def test_coil_is_halved_by_means_and_ordered_by_object_and_view(coil: Path) -> None:
    data = small("coil20", (144,), classes=2).load(coil)
    assert data.train.x.shape == (144, 1, 64, 64)
    raw = np.asarray(Image.open(coil / "coil-20-proc/obj2__10.png")).astype(int)
    mean = (raw[::2, ::2] + raw[1::2, ::2] + raw[::2, 1::2] + raw[1::2, 1::2]) / 4
    assert np.abs(data.train.x[72 + 10, 0].numpy() - mean).max() <= 0.5
    assert data.train.y is not None and data.train.y.tolist() == [0] * 72 + [1] * 72


def test_coil_colour_originals_are_reduced_like_the_small_grey_ones(tmp_path: Path) -> None:
    for root in ("colour", "grey"):
        (tmp_path / root / "coil-100").mkdir(parents=True)
    for view in range(72):
        name = f"coil-100/obj1__{5 * view}.png"
        colour = bytes_of(128, 128, 3)
        grey = np.rint(colour.reshape(64, 2, 64, 2, 3).mean((1, 3, 4))).astype(np.uint8)
        Image.fromarray(colour).save(tmp_path / "colour" / name, compress_level=0)
        Image.fromarray(grey).save(tmp_path / "grey" / name, compress_level=0)
    colour_set, grey_set = (small("coil100", (72,), 1).load(tmp_path / root) for root in ("colour", "grey"))
    assert colour_set.fingerprint == grey_set.fingerprint
    assert "colour" in colour_set.source and "grey" in grey_set.source


def test_stl_files_are_read_column_by_column(tmp_path: Path) -> None:
    (tmp_path / "stl10_binary").mkdir()
    images = bytes_of(3, 3, 96, 96)
    for part, x in (("train", images[:2]), ("test", images[2:])):
        (tmp_path / f"stl10_binary/{part}_X.bin").write_bytes(x.transpose(0, 1, 3, 2).tobytes())
        (tmp_path / f"stl10_binary/{part}_y.bin").write_bytes(bytes([1, 10][: len(x)]))
    data = small("stl10", (2, 1)).load(tmp_path)
    assert np.array_equal(data.train.x.numpy(), images)
    assert data.train.y is not None and data.train.y.tolist() == [0, 9, 0] and data.test is None


def test_image_folders_are_resized_and_labelled_by_folder_name(tmp_path: Path) -> None:
    for name, value in (("b", 40), ("a", 200)):
        (tmp_path / "imagenet10" / name).mkdir(parents=True)
        for i, size in enumerate(((50, 120), (200, 96))):
            Image.new("RGB", size, (value, 0, 255)).save(tmp_path / "imagenet10" / name / f"{i}.png")
    data = small("imagenet10", (4,), classes=2).load(tmp_path)
    assert data.train.x.shape == (4, 3, 96, 96)
    assert data.train.x[:, 0, 0, 0].tolist() == [200, 200, 40, 40]
    assert data.train.y is not None and data.train.y.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "needs", "n", "per_class"),
    [
        ("coil20", "coil-20-proc", 1440, 72),
        ("coil100", "coil-100", 7200, 72),
        ("mnist", "MNIST/raw", 70000, 6313),
        ("mnist_test", "MNIST/raw", 10000, 892),
        ("mnist_split", "MNIST/raw", 50000, 4506),
        ("fashion_mnist", "FashionMNIST/raw", 70000, 7000),
        ("cifar10", "cifar-10-batches-py", 50000, 5000),
        ("imb_cifar10", "cifar-10-batches-py", 37500, 2500),
        ("imb_cifar100", "cifar100/labels.npz", 37500, 250),
        ("stl10", "stl10_binary", 13000, 1300),
    ],
)
def test_real_files(need_data: Callable[[str], Path], name: str, needs: str, n: int, per_class: int) -> None:
    need_data(needs)
    result = SOURCES[name].check(need_data(""))
    assert result["files_verified"] or result["samples_verified"]
    assert result["train"] == n and result["per_class"][0] == per_class


def test_real_cifar_100_and_its_superclasses(need_data: Callable[[str], Path]) -> None:
    need_data("cifar100/labels.npz")
    data = load("cifar20", str(need_data("")))
    assert data.test is not None and data.fingerprint == SOURCES["cifar100"].pixels[data.source]
    for part, known in (
        (data.train, "2aa2e92a742ec0fbd361b0b1386394899dfac5a05c448330d3371fd9b63b3e87"),
        (data.test, "2716d826d85ee9ca7f948fb4dc3b3d7515225d1a436d1c4b7e6975855da3d9ee"),
    ):
        assert hashlib.sha256(part.x.permute(0, 2, 3, 1).contiguous().numpy().data).hexdigest() == known
        assert part.y is not None and part.y.bincount().unique().numel() == 1
