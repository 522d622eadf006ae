"""Datasets of vectors: each layout on a few rows, what can be wrong with its files, the real files where they are."""

from __future__ import annotations

import bz2
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raymc.datasets import load
from raymc.datasets.catalogue import SOURCES
from raymc.datasets.source import Source
from raymc.errors import InputError
from tests.fabricated_data import small, write_har, write_libsvm, write_pendigits, write_reuters

HAR = small("har", (4, 3))
LIBSVM = small("usps_libsvm", (5, 2))
PENDIGITS = small("pendigits", (4, 3))
REUTERS = small("reuters10k", (6,))
USPS = small("usps", (7,))


def complaint(source: Source, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        source.load(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_usps(root: Path, **changed: np.ndarray) -> Path:
    (root / "usps").mkdir(exist_ok=True)
    arrays = {"x": np.random.default_rng(0).random((7, 256), np.float32), "y": np.arange(7)} | changed
    np.savez(root / "usps/usps.npz", **arrays)
    return root


def test_usps_has_every_row_in_its_order(tmp_path: Path) -> None:
    data = USPS.load(write_usps(tmp_path))
    assert data.train.x.dtype == torch.float32 and data.test is None and data.split == "train and test together, 7"
    assert np.array_equal(data.train.x.numpy(), np.load(tmp_path / "usps/usps.npz")["x"])
    assert data.train.y is not None and data.train.y.tolist() == list(range(7))


@pytest.mark.parametrize("folder", ["usps_libsvm", "usps", "."])
def test_libsvm_s_usps_is_scaled_to_0_1_where_torchvision_puts_it(tmp_path: Path, folder: str) -> None:
    from torchvision import datasets

    place = write_libsvm(tmp_path / folder)
    data = LIBSVM.load(tmp_path)
    theirs = [datasets.USPS(str(place), train=train) for train in (True, False)]
    pixels = np.concatenate([part.data.reshape(-1, 256) for part in theirs])
    assert np.abs(data.train.x.numpy() * 255 - pixels).max() <= 1, "torchvision rounds to whole numbers"
    assert data.train.y is not None and data.train.y.tolist() == theirs[0].targets + theirs[1].targets
    assert 0 <= data.train.x.min() and data.train.x.max() <= 1 and "libsvm's pixels" in data.split


@pytest.mark.parametrize("folder", ["UCI HAR Dataset", "har"])
def test_har_is_train_then_test(tmp_path: Path, folder: str) -> None:
    data = HAR.load(write_har(tmp_path, folder))
    rows = [np.loadtxt(tmp_path / folder / part / f"X_{part}.txt") for part in ("train", "test")]
    assert np.array_equal(data.train.x.numpy(), np.concatenate(rows).astype(np.float32))
    assert data.train.y is not None and data.train.y.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert data.n_classes == 6 and data.test is None and data.epoch_size == 7


def test_pendigits_are_divided_by_100(tmp_path: Path) -> None:
    data = PENDIGITS.load(write_pendigits(tmp_path))
    rows = [np.loadtxt(tmp_path / f"pendigits/pendigits.{part}", delimiter=",") for part in ("tra", "tes")]
    assert np.array_equal(data.train.x.numpy(), (np.concatenate(rows)[:, :16] / 100).astype(np.float32))
    assert data.train.y is not None and data.train.y.tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_reuters_of_a_pickled_dict_and_of_an_npz_are_the_same(tmp_path: Path) -> None:
    pickled = REUTERS.load(write_reuters(tmp_path))
    place = tmp_path / "reuters10k"
    found = np.load(place / "reutersidf10k.npy", allow_pickle=True).item()
    assert np.array_equal(pickled.train.x.numpy(), found["data"].astype(np.float32))
    (place / "reutersidf10k.npy").unlink()
    np.savez(place / "reuters10k.npz", x=found["data"][:, :, None, None], y=found["label"][:, None])
    plain = REUTERS.load(tmp_path)
    assert plain.fingerprint == pickled.fingerprint and plain.split == "all, 6"
    assert plain.train.y is not None and plain.train.y.tolist() == [0, 1, 2, 3, 0, 1]
    (place / "reuters10k.npz").rename(tmp_path / "reuters10k.npz")
    assert REUTERS.load(tmp_path).fingerprint == pickled.fingerprint


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reuters_pickled_by_any_python_is_read(tmp_path: Path, protocol: int) -> None:
    path = write_reuters(tmp_path) / "reuters10k/reutersidf10k.npy"
    whole = REUTERS.load(tmp_path).fingerprint
    found = np.load(path, allow_pickle=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(found))
        content = pickle.dumps(found, protocol=protocol)
        # Older numpy called its modules by another name.
        file.write(content.replace(b"numpy._core.", b"numpy.core.") if protocol < 4 else content)
    assert REUTERS.load(tmp_path).fingerprint == whole


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm"),))


def test_a_pickle_of_reuters_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_reuters(tmp_path) / "reuters10k/reutersidf10k.npy"
    np.save(path, {"data": Harm(), "label": []}, allow_pickle=True)
    text = complaint(REUTERS, tmp_path)
    assert str(path) in text and "it names pathlib" in text and "expected: the deep-clustering papers' array" in text
    assert not (tmp_path / "harm").exists()
    whole = path.read_bytes()
    for torn in (b"", whole[:40], b"no pickle", np.arange(3).tobytes()):
        path.write_bytes(torn)
        assert "is torn or no such pickle" in complaint(REUTERS, tmp_path)
    for wrong in ([1], {"data": 1}):
        path.write_bytes(pickle.dumps(wrong))
        assert "lacks data or label" in complaint(REUTERS, tmp_path)


def test_files_that_are_missing_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    for name, words in (
        ("har", "UCI HAR Dataset"),
        ("usps", "usps.npz"),
        ("reuters10k", "reutersidf10k.npy or reuters10k.npz in"),
        ("usps_libsvm", f"python -m raymc.data get usps_libsvm --data {tmp_path} fetches it"),
        ("pendigits", "https://archive.ics.uci.edu"),
    ):
        text = complaint(SOURCES[name], tmp_path)
        assert text.startswith(f"{name}: ") and str(tmp_path) in text and words in text
    write_har(tmp_path)
    (tmp_path / "UCI HAR Dataset/test/y_test.txt").unlink()
    assert "y_test.txt is missing; expected: 3 lines of 1 numbers" in complaint(HAR, tmp_path)
    write_libsvm(tmp_path)
    (tmp_path / "usps.t.bz2").unlink()
    assert f"{tmp_path / 'usps.t.bz2'} is missing" in complaint(LIBSVM, tmp_path)


@pytest.mark.parametrize(
    ("torn", "words"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text[: len(text) * 3 // 5], "is torn"),
        (lambda text: text.replace("\n", " 1.0\n"), "holds 4 lines of 562 numbers"),
        (lambda text: text.split("\n", 1)[1], "holds 3 lines of 561 numbers"),
        (lambda text: text.replace("e", "x"), "is torn"),
    ],
)
def test_a_torn_table_is_named(tmp_path: Path, torn: Callable[[str], str], words: str) -> None:
    path = write_har(tmp_path) / "UCI HAR Dataset/train/X_train.txt"
    path.write_text(torn(path.read_text()))
    text = complaint(HAR, tmp_path)
    assert str(path) in text and words in text and "expected: 4 lines of 561 numbers" in text


def test_labels_that_are_none_of_the_classes_are_named(tmp_path: Path) -> None:
    path = write_har(tmp_path) / "UCI HAR Dataset/train/y_train.txt"
    for labels, words in (("1 2 3 7", "labels 0 to 6; expected: 0 to 5"), ("1 2 3.5 1", "no whole numbers")):
        path.write_text(labels.replace(" ", "\n"))
        assert words in complaint(HAR, tmp_path)
    write_usps(tmp_path, y=np.arange(6))
    assert "labels of shape (6,)" in complaint(USPS, tmp_path)


def test_wrong_counts_and_numbers_are_named(tmp_path: Path) -> None:
    write_usps(tmp_path)
    text = complaint(SOURCES["usps"], tmp_path)
    assert "usps.npz holds samples of shape (7, 256) (float32); expected: 9298x256 numbers" in text
    write_usps(tmp_path, x=np.full((7, 256), np.nan, np.float32))
    assert "numbers that are not finite" in complaint(USPS, tmp_path)
    np.savez(tmp_path / "usps/usps.npz", x=np.zeros((7, 256)))
    assert "lacks an array" in complaint(USPS, tmp_path)
    with pytest.raises(InputError, match="usps.npz has sha256 .*; expected: sha256 b6f3a9ac"):
        SOURCES["usps"].check(tmp_path)
    assert "holds 4 lines of 17 numbers; expected: 5 lines" in complaint(
        small("pendigits", (5, 3)), write_pendigits(tmp_path)
    )
    assert "(6, 2000)" in complaint(SOURCES["reuters10k"], write_reuters(tmp_path))


@pytest.mark.parametrize(
    ("torn", "words"),
    [
        (lambda whole: whole[:-30], "is torn"),
        (lambda whole: b"1 1:0.5", "is torn"),
        (lambda whole: bz2.compress(b"1 1:0.5 257:0\n" * 5), "is torn"),
        (lambda whole: bz2.compress(b"1 1:x\n" * 5), "is torn"),
        (lambda whole: bz2.compress(b"1 1:0.5\n"), "holds 1 lines"),
    ],
)
def test_a_torn_libsvm_file_is_named(tmp_path: Path, torn: Callable[[bytes], bytes], words: str) -> None:
    path = write_libsvm(tmp_path) / "usps.bz2"
    path.write_bytes(torn(path.read_bytes()))
    text = complaint(LIBSVM, tmp_path)
    assert str(path) in text and words in text and "expected: 5 lines of libsvm's format with 256 values" in text


def test_checksums_of_libsvm_s_files_are_torchvision_s(tmp_path: Path) -> None:
    from torchvision import datasets

    known = {name: f"md5:{md5}" for _, name, md5 in datasets.USPS.split_list.values()}
    found = {Path(path).name: digest for path, digest in SOURCES["usps_libsvm"].digests.items()}
    assert found == known and len(SOURCES["usps_libsvm"].digests) == 6
    for folder in ("usps_libsvm", "."):
        write_libsvm(tmp_path / folder)
        with pytest.raises(InputError, match="usps.bz2 has md5 .*; expected: md5 ec16c51d"):
            LIBSVM.check(tmp_path)
        (tmp_path / folder / "usps.bz2").unlink()


@pytest.mark.parametrize(
    ("name", "needs", "n", "counts"),
    [
        ("usps", "usps/usps.npz", 9298, [1553, 1269, 929, 824, 852, 716, 834, 792, 708, 821]),
        ("pendigits", "pendigits", 10992, [1143, 1143, 1144, 1055, 1144, 1055, 1056, 1142, 1055, 1055]),
    ],
)
def test_real_vectors(need_data: Callable[[str], Path], name: str, needs: str, n: int, counts: list[int]) -> None:
    need_data(needs)
    root = need_data("")
    result, data = SOURCES[name].check(root), load(name, str(root))
    assert result["files_verified"] and result["train"] == len(data.train) == n and result["test"] == 0
    assert data.train.y is not None and data.train.y.bincount().tolist() == counts
    assert data.train.x.min() == 0 and data.train.x.max() == 1
