"""Tables of the user's own: columns, labels, names, embeddings, and one line for whatever is no table of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymc.datasets import own_csv, own_parquet
from raymc.datasets.own import read_found
from tests.own_data import RNG, TEXTS, D, N, X, Y, complaint, frame, npz, own, read


def test_a_csv_that_is_read_in_parts_is_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column's kind, and that of the labels, is that of all its parts."""
    monkeypatch.setattr(own_csv, "BLOCK", 6)  # two rows at a time
    path = tmp_path / "rows.csv"
    for labels, classes in (
        (["1", "2", "03", "1"], 3),
        (["1", "2", "03", "a"], 4),
        (["true", "false"] * 2, 2),
        (["x, 1", "y", "y", "y"], 2),
    ):
        rows = [f'{i},{i / 7!r},"{label}"' for i, label in enumerate(labels)]
        path.write_text("\n".join(["a,b,kind", *rows]) + "\n")
        found = read(path, "none", label="kind")
        assert found.n_classes == classes and found.train.x[:, 0].tolist() == [0, 1, 2, 3]
    for column in ("1 2 3 x", "true true 1 2"):
        path.write_text("\n".join(["a,b,kind", *(f"{word},0,{i % 2}" for i, word in enumerate(column.split()))]) + "\n")
        assert f"row {3 if 'x' in column else 0} (counted from 0), column a holds" in complaint(path, label="kind")
    path.write_text("a,b,kind\n1,2,x\n1,2,y\n1,2,x\n,2,x\n")
    assert "row 3, column a" in complaint(path, label="kind")


def test_labels_of_a_table_are_numbers_or_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for y, wanted in ((Y * 2 + 9, Y), (np.asarray(["NA", "None", "no"])[Y], Y), (Y.astype(float), Y)):
        frame(kind=y).to_csv(path, index=False)
        found = read(path, label="kind")
        assert found.train.y is not None and found.train.y.tolist() == wanted.tolist()
    table = frame(kind=pd.array(TEXTS, dtype="string"), number=pd.array(Y, dtype="Int64"))
    table.to_parquet(tmp_path / "rows.parquet")
    frame(kind=pd.Categorical(TEXTS), number=Y).to_parquet(tmp_path / "more.parquet")
    for dtype in ("boolean", "Int64", "int64[pyarrow]"):
        given = pd.Series([value > 0 for value in Y], dtype="boolean").astype(dtype)
        frame(kind=given).to_parquet(tmp_path / "b.parquet")
        assert read(tmp_path / "b.parquet", label="kind").n_classes == 2, dtype
    table.drop(columns="kind").to_parquet(tmp_path / "numbers.parquet")
    assert read(tmp_path / "numbers.parquet", label="number").n_classes == 3
    assert read(tmp_path / "numbers.parquet").train.x.shape == (N, D + 1), "without label: it is a column like others"
    assert "no numbers in kind" in complaint(tmp_path / "rows.parquet", label="number")
    assert "no numbers in kind" in complaint(tmp_path / "more.parquet", label="number")


def test_names_in_a_parquet_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame(site=Y).set_index("site").to_parquet(path)
    for label in (None, "site"):
        assert "has site as its index; write the table after reset_index() to have it" in complaint(path, label=label)
    frame().set_index(Y).to_parquet(path)
    assert read(path).train.x.shape == (N, D), "an index without a name numbers the rows"
    pq.write_table(pa.table([X[:, 0], X[:, 1], X[:, 2]], names=["a", "b", "a"]), path)
    assert "several columns are called a; expected: a name of its own for each" in complaint(path)


@pytest.mark.parametrize("rows", ["\na\n1\n2\n3\n", "\n \na,b\n1,2\n3,4\n5,6\n"])
def test_blank_lines_before_the_names_are_none(tmp_path: Path, rows: str) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    assert len(read(tmp_path / "rows.csv").train) == 3


GOOD = "a,b,kind\n1,2,x\n3,5,y\n4,4,x\n"


@pytest.mark.parametrize(
    ("text", "label", "told"),
    [
        (GOOD, "kin", "has no column kin; did you mean kind?"),
        (GOOD, None, "no numbers in kind; a column of text is named by label: (its classes), "),
        (GOOD.replace(",2,", ",two,"), "kind", "row 0 (counted from 0), column b holds 'two'; expected: a number"),
        (
            GOOD.replace("b,kind", "site,kind").replace(",2,", ",two,"),
            None,
            "holds 'two'; expected: a number; besides, no numbers in kind; a",
        ),
        (GOOD.replace(",2,", ",,"), "kind", "holds 1 values that are missing"),
        (GOOD.replace(",2,", ",NA,").replace(",4,", ",inf,"), "kind", "holds 2 values"),
        (GOOD.replace(",5,", ",NaN,"), "kind", "row 1, column b (counted from 0)"),
        (GOOD.replace("5,y", "5,"), "kind", "1 rows have no kind; the first is row 1"),
        (GOOD.replace("5,y", "5"), "kind", "1 rows have no kind; the first is row 1"),
        (GOOD.replace("5,y", "5,y,7"), "kind", "line 3 has 4 values under 3 names"),
        (GOOD.replace("2,x", "2,x,7"), "kind", "line 2 has 4 values under 3 names"),
        (GOOD.replace("y", "x"), "kind", "all labels are x; at least two classes"),
        ("a,kind\n1,0.5\n2,1\n", "kind", "the label of row 0 is 0.5"),
        ("a,kind\n1,true\n2,false\n3,NA\n", "kind", "1 rows have no kind; the first is row 2 (NA)"),
        (
            "a\n1\n\n3\n",
            None,
            "holds 1 values that are missing, NaN, infinite or beyond float32; the first is in row 1",
        ),
        ("", None, "is empty"),
        ("a,b\n", None, "holds 0 rows of 2 columns"),
        ("kind\nx\ny\n", "kind", "holds 2 rows of 0 columns"),
        *(
            (f"{first}\n3,4,5\n5,6,8\n", None, "the first line holds numbers; expected: the names of the columns")
            for first in ("1.5,2,3", "0.0,0.0,0.0", "1.5,,2", "1,NA,2", "1,1,nan")
        ),
        ("k,k,c\n0,0,1\n1,1,2\n", "k", "several columns are called k; expected: a name of its own for each"),
        ("k,c, k \n0,1,0\n1,2,1\n", "k", "several columns are called k"),
        ("a;b\n1;2\n3;4\n", None, "columns are separated by commas, and the first line has none: 'a;b'"),
        ("a\tb\n1\t2\n3\t4\n", None, "the first line has none: 'a\\tb'"),
        ("a;b\n1,5;2\n3,2;4\n", None, "columns are separated by commas"),
        (
            ",a,b\n0,1,2\n1,3,4\n",
            None,
            "column 0 (counted from 0) has no name; numbers of rows would be taken for data",
        ),
    ],
)
def test_a_csv_that_is_no_table_of_numbers_is_one_line(tmp_path: Path, text: str, label: str | None, told: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    assert told in complaint(path, label=label)


def test_a_csv_with_numbered_columns_and_one_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame(X).to_csv(path, index=False)
    assert read(path).train.x.shape == (N, D)
    path.write_bytes(b"a,b\xff\n1,2\n3,4\n")
    assert read(path).columns == ("a", "bÿ") and "; read as cp1252" in read(path).split


def test_many_columns_of_text_are_not_all_named(tmp_path: Path) -> None:
    frame(**{f"t{i}": TEXTS for i in range(9)}).to_parquet(tmp_path / "rows.parquet")
    assert "no numbers in t0, t1, t2, t3, t4 and 4 more" in complaint(tmp_path / "rows.parquet")
    frame(when=pd.Timestamp(0)).to_parquet(tmp_path / "rows.parquet")
    assert "column when holds '1970-01-01 00:00:00' (a date: write a number" in complaint(tmp_path / "rows.parquet")


def test_rows_are_called_by_the_column_id(tmp_path: Path) -> None:
    names = [f"00{i}" for i in range(N)]
    frame(site=names, kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    frame(site=names, kind=TEXTS).to_parquet(tmp_path / "rows.parquet")
    frame(kind=TEXTS).to_csv(tmp_path / "bare.csv", index=False)
    bare = read(tmp_path / "bare.csv", label="kind")
    for kind in ("csv", "parquet"):
        data = read(tmp_path / f"rows.{kind}", label="kind", id="site")
        assert data.samples == tuple(names) and data.fingerprint == bare.fingerprint
    frame(site=Y * 100 + np.arange(N)).to_parquet(tmp_path / "rows.parquet")
    found = read(tmp_path / "rows.parquet", id="site").samples
    assert found == tuple(str(number) for number in Y * 100 + np.arange(N))
    assert bare.samples is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "b", "a", "b"], "2 rows repeat a name in site: row 2 is 'a', as row 0 is; expected: each name once"),
        (["a", "", "c", " "], "2 rows have no site; the first is row 1"),
    ],
)
def test_names_that_repeat_or_are_blank_are_one_line(tmp_path: Path, names: list[str], told: str) -> None:
    frame(X[:4], site=names).to_csv(tmp_path / "rows.csv", index=False)
    frame(X[:4], site=[name or None for name in names]).to_parquet(tmp_path / "rows.parquet")
    for kind in ("csv", "parquet"):
        assert told in complaint(tmp_path / f"rows.{kind}", id="site")
        assert "has no column sites; did you mean site?" in complaint(tmp_path / f"rows.{kind}", id="sites")


def test_classes_are_called_as_the_user_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for written, wanted in ((["10", "02", "10"], ("02", "10")), (["true", "false", "true"], ("false", "true"))):
        path.write_text("a,kind\n" + "".join(f"{i}, {word}\n" for i, word in enumerate(written)))
        data = read(path, label="kind")
        assert data.classes == wanted and data.train.y is not None and data.train.y.tolist() == [1, 0, 1]
    frame(kind=Y * 1.0).to_parquet(tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", label="kind").classes == ("0", "1", "2")


@pytest.mark.parametrize("value", ["float", "double", "halffloat", "int32"])
def test_lists_in_a_parquet_are_columns(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind of list, beside columns of numbers, read in parts over several row groups."""
    monkeypatch.setattr(own_parquet, "BLOCK", 64)
    x = RNG.integers(-50, 50, (N, D)).astype({"float": "f4", "double": "f8", "halffloat": "f2", "int32": "i4"}[value])
    flat = pa.array(x.ravel())
    offsets = np.arange(0, N * D + 1, D)
    lists = {
        "fixed": pa.FixedSizeListArray.from_arrays(flat, D),
        "list": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat),
        "large": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat),
    }
    wanted = read_found(own(npz(tmp_path / "rows.npz", np.column_stack([Y, x, 2 * Y])))).x
    for kind, emb in lists.items():
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(pa.table({"first": Y, "emb": emb, "last": 2 * Y}), path, row_group_size=11)
        found = read_found(own(path))
        assert np.array_equal(found.x, wanted) and found.columns == ["first", *(f"emb[{i}]" for i in range(D)), "last"]


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], "row 1 of emb holds 1 numbers; expected: 2, as row 0 has"),
        ([[1.0, 2.0], [3.0, 4.0], None], "row 2 of emb is missing; expected: 2"),
        ([None, [3.0, 4.0], [3.0, 4.0]], "row 0 has no emb; expected: a list of numbers"),
        ([[], [], []], "row 0 of emb holds an empty list; expected: numbers"),
        ([[1.0, 2.0], [3.0, None], [3.0, 4.0]], "row 1, column emb[1] (counted from 0)"),
        ([["a", "b"]] * 3, "no numbers in emb"),
        ([[[1.0], [2.0]]] * 3, "no numbers in emb"),
    ],
)
def test_lists_that_are_no_rows_of_numbers_are_one_line(tmp_path: Path, lists: list[Any], told: str) -> None:
    path = tmp_path / "rows.parquet"
    emb = pa.array(lists) if any(lists) else pa.array(lists, pa.list_(pa.float32()))
    pq.write_table(pa.table({"emb": emb}), path)
    assert told in complaint(path)
