"""What a value becomes on its way in: kept to the digit that counts, refused, or said; the same in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raymc.datasets import Dataset
from raymc.datasets.own import of_array
from raymc.errors import InputError
from tests.own_data import N, X, complaint, frame, npz, own, read

FORMATS = ("csv", "parquet", "npz", "pt", "lists")


def write(folder: Path, kind: str, whole: np.ndarray) -> Path:
    """A column `c0` of whole numbers; beside it one of floats, where a format has a type for each column."""
    path = folder / f"rows.{'parquet' if kind == 'lists' else kind}"
    if kind in ("csv", "parquet"):
        table = frame(X[: len(whole), :2]).assign(c0=whole)
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    elif kind == "lists":
        frame(X[: len(whole), :1]).assign(c0=[[value, 1] for value in whole]).to_parquet(path)
    elif kind == "npz":
        np.savez(path, x=np.stack([whole, whole * 0], 1))
    else:
        torch.save(torch.as_tensor(np.stack([whole, whole * 0], 1)), path)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_numbers_that_floats_cannot_tell_apart_are_refused(tmp_path: Path, kind: str) -> None:
    close = 2**60 + 10 * np.arange(N)
    path = write(tmp_path, kind, close)
    name = {"npz": "0 (counted from 0)", "pt": "0 (counted from 0)", "lists": "c0[0]"}.get(kind, "c0")
    told = f"column {name} holds whole numbers from {close.min()} to {close.max()}, which floats tell apart in"
    assert told in complaint(path)
    for kept in (
        close - 2**60,
        2**60 * np.ones(N, int),
        1_700_000_000 * 10**9 + 10**12 * np.arange(N),
        2**52 + np.arange(N),
    ):
        data = read(write(tmp_path, kind, kept))
        assert len(np.unique(data.train.x[:, 0])) == len(np.unique(kept)), "times in nanoseconds keep their digits"


def test_what_a_csv_writes_as_a_real_number_or_a_code_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1152921504606846977.0,1\n1152921504606846987.5,2\n")
    told = "column a holds whole numbers from 1152921504606846977 to 1152921504606846987, which floats tell apart in"
    assert told in complaint(path)
    path.write_text("a,b\n1e300,1\n3e300,2\n".replace("300", "30"))
    assert len(read(path).train) == 2
    path.write_text("zip,b,c\n01234,1,00.5\n1234,2,0.5\n12345,0,1\n")
    assert read(path).split.endswith("; without the zeros in front of the numbers in zip")


def test_numbers_that_are_too_small_or_large_for_a_float_are_said_or_refused(tmp_path: Path) -> None:
    path, lines = tmp_path / "rows.csv", [["1", "2.5", "0", "0e-400"][i % 4] for i in range(N)]

    def told(cells: list[str]) -> str:
        path.write_text("a,b\n" + "".join(f"{i % 7},{cell}\n" for i, cell in enumerate(cells)))
        return read(path).split

    assert "in place" not in told(lines)
    assert told([*lines[:-2], "1e-330", "-2E-0400"]).endswith("; 0 in place of numbers below 1e-323 (2 in b)")
    with pytest.raises(InputError, match=r"column b holds only numbers that are too small for a float"):
        told([f"{i}e-400" for i in range(N)])
    with pytest.raises(InputError, match="beyond float32; the first is in row 0, column b"):
        told(["1e400", *lines[1:]])


@pytest.mark.parametrize("power", [-60, -160, -200, -300])
def test_small_columns_are_scaled_as_others_are(tmp_path: Path, power: int) -> None:
    """Also those whose squares a float64 does not hold; unscaled they are 0 in float32, which is said."""
    small = npz(tmp_path / "rows.npz", np.c_[X, X[:, 1] * 10.0**power])
    for how in ("standardise", "minmax"):
        data = read(small, how)
        assert torch.allclose(data.train.x[:, 4], data.train.x[:, 1], rtol=1e-5, atol=1e-6) and data.remarks == ()
    said = "column 4 (counted from 0): too small for float32, which has no digits below 1e-38"
    assert said in read(small, "none").remarks


def test_an_array_in_memory_is_looked_at_as_well() -> None:
    with pytest.raises(InputError, match=r"column 1 \(counted from 0\) holds whole numbers from"):
        of_array(own(Path("x")), np.stack([np.arange(9), 2**60 + np.arange(9)], 1))


def every_way(folder: Path, labels: list[str]) -> list[Dataset | str]:
    """The dataset of these texts as labels in each format, or why there is none."""
    n = len(labels)
    frame(X[:n], kind=labels).to_csv(folder / "rows.csv", index=False)
    frame(X[:n], kind=labels).to_parquet(folder / "rows.parquet")
    npz(folder / "rows.npz", X[:n], y=np.asarray(labels))
    found: list[Dataset | str] = []
    for kind in ("csv", "parquet", "npz"):
        keys: dict[str, Any] = {} if kind == "npz" else {"label": "kind"}
        try:
            found.append(read(folder / f"rows.{kind}", **keys))
        except InputError as error:
            found.append(str(error).split(": ", 1)[1].replace("kind", "label"))
    return found


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "10", "2"], ("2", "9", "10")),
        (["01", "1", "01", "1"], ("01", "1")),
        (["007", "07", "7"], ("007", "07", "7")),
        (["1.0", "2.0", "1.0"], ("1", "2")),
        (["1e3", "2e3"], ("1000", "2000")),
        (["-1", "1"], ("-1", "1")),
        (["1", "2", "b"], ("1", "2", "b")),
        (["9007199254740993", "9007199254740992"], ("9007199254740992", "9007199254740993")),
        (["99999999999999999999", "99999999999999999998"], ("99999999999999999998", "99999999999999999999")),
        (["True", "False", "True"], ("False", "True")),
        (["True", "true", "False"], ("false", "true")),
    ],
)
def test_labels_are_the_same_classes_in_every_format(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...]
) -> None:
    for data in every_way(tmp_path, labels):
        assert isinstance(data, Dataset) and data.classes == classes and data.train.y is not None
        if data.n_classes == len(set(labels)) and "1e3" not in labels:
            names = [data.classes[int(label)] for label in data.train.y]
            assert names == [text.removesuffix(".0") for text in labels]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            ["1", "1.0", "2"],
            "the label '1' (row 0) and '1.0' (row 1) are one number; expected: each class",
        ),
        (["1", "2", "+1"], "the label '1' (row 0) and '+1' (row 2) are one number"),
        (["0.5", "1.5"], "the label of row 0 is 0.5; expected: a whole number"),
        (["1e300", "2"], "the label of row 0 is 1.0000000000000001e+300, a float beyond 2^53, which may be several"),
    ],
)
def test_labels_that_are_no_classes_are_refused_in_every_format(tmp_path: Path, labels: list[str], told: str) -> None:
    assert all(isinstance(found, str) and told in found for found in every_way(tmp_path, labels))


def test_a_float_label_that_may_be_several_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "rows.npz", y=(2**60 + np.arange(N)).astype(float))
    assert "the label of row 0 is 1.152921504606847e+18, a float beyond 2^53" in complaint(path)
    assert read(npz(tmp_path / "whole.npz", y=2**60 + np.arange(N) % 3)).n_classes == 3


def test_held_out_labels_are_compared_as_they_are_written(tmp_path: Path) -> None:
    """`01` of the training rows is no `1` of the held-out ones, and texts of numbers are those numbers."""
    for train, test, known in ((["01", "02"], ["1", "2"], False), (["1", "2"], ["1", "1"], True)):
        frame(X[:2], kind=train).to_csv(tmp_path / "rows.csv", index=False)
        frame(X[:2], kind=test).to_csv(tmp_path / "test.csv", index=False)
        keys = {"label": "kind", "test": str(tmp_path / "test.csv")}
        if known:
            data = read(tmp_path / "rows.csv", **keys)
            assert data.test is not None and data.test.y is not None and data.test.y.tolist() == [0, 0]
        else:
            with pytest.raises(InputError, match="the label of row 0 is 1, which no training row has"):
                read(tmp_path / "rows.csv", **keys)


def test_names_keep_their_digits_and_a_short_line_has_none(tmp_path: Path) -> None:
    names = ["001", "1", "1.0", str(2**60), str(2**60 + 1)]
    frame(X[:5], site=names).to_csv(tmp_path / "rows.csv", index=False)
    assert read(tmp_path / "rows.csv", id="site").samples == tuple(names)
    (tmp_path / "rows.csv").write_text("a,site\n1,x\n2\n")
    assert "1 rows have no site; the first is row 1" in complaint(tmp_path / "rows.csv", id="site")


def test_a_missing_number_is_shown_as_it_was_read(tmp_path: Path) -> None:
    for value, shown in ((np.nan, "nan"), (np.inf, "inf"), (1e39, "1e+39")):
        x = X.copy()
        x[4, 1] = value
        assert complaint(npz(tmp_path / "rows.npz", x)).endswith(f"row 4, column 1 (counted from 0): {shown}")


@pytest.mark.parametrize(
    ("largest", "said"), [(65_535, ""), (4_095, ", of whose 256 levels 16 are used: the largest is 4,095")]
)
def test_greys_of_16_bits_that_lose_their_levels_are_said(tmp_path: Path, largest: int, said: str) -> None:
    for name in "ab":
        pixels = np.linspace(0, largest, 81).reshape(9, 9).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert read(tmp_path).split.endswith(f"; greys of 16 bits of 2 files divided by 257{said}")
