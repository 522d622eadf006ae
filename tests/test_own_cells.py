"""One bad cell among numbers is named, by row, column and value; a column of texts is not taken for one of those."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymc.datasets.own_cells import form_of
from raymc.errors import InputError
from raymc.estimators.inputs import _numbers
from tests.own_data import TEXTS, N, X, complaint, frame, npz, own

MISSING = "a missing value? Fill it in, or leave the row out"
THOUSANDS, DECIMAL, DATE = "thousands separators: write", "a decimal comma: write 1.5", "a date: write a number"
FORMS = [
    *((text, MISSING) for text in ("?", "-", ".", "n.d.", "N/D", "missing", "#N/A", "<NA>")),
    *((text, THOUSANDS) for text in ("1,234.50", "-12,345,678", "1'234'567.5", "1 234 567", "1.234.567", "12,34,567")),
    ("1.234,50", "thousands separators and a decimal comma"),
    ("1\u202f234", "a thousands separator: write 1234"),
    ("1,234", "a thousands separator or a decimal comma: write 1234, or 1.234"),
    *((text, DECIMAL) for text in ("3,5", "1234,5", "0,123456")),
    *((text, "a percent sign") for text in ("12%", "12.5 %", "3‰")),
    *((text, "a sign of a currency") for text in ("$12.50", "12 €", "USD 3")),
    *((text, DATE) for text in ("2024-03-01", "2024-03-01T10:00:00Z", "1/3/2024", "1.3.24", "3 Mar 2024")),
    *((text, "a time: write a number") for text in ("12:30", "1:02:03.5", "3:15 pm")),
    *((text, "an error of a spreadsheet") for text in ("#DIV/0!", "#REF!", "#VALUE!")),
    *((text, "a bound") for text in ("<0.5", ">= 3")),
    *((text, "a unit behind the number") for text in ("12 kg", "3.5mm")),
    ("\u22123.5", "a minus sign that is no hyphen"),
    ("0x1F", "a hexadecimal number"),
    ("[0.1, 0.2]", "a list: give each number a column"),
    ("1 2 3", "several numbers: columns are separated by commas"),
    ("1_000", "underscores between digits"),
    ("1.5d3", "an exponent with a d"),
    ("'3'", "single quotation marks"),
    ("2 days 00:00:01", "a time: write a number"),
    ("\uff11\uff12", "digits of another script"),
    ("1.2.3", "digits of another script, or more points"),
    ("true", "true and false among numbers"),
    ("# batch 2", "a comment?"),
    ("c2", "the names of the columns once more"),
    ("seven", ""),
]


@pytest.mark.parametrize(("text", "form"), FORMS, ids=[text for text, _ in FORMS])
def test_one_bad_cell_among_numbers_is_named(tmp_path: Path, text: str, form: str) -> None:
    """In a .csv and a .parquet, in an array of texts, and in a DataFrame in memory; also where all are so."""
    cells: list[object] = list(X[:, 2])
    cells[17] = text
    shown = f"row 17 (counted from 0), column c2 holds {text!r}" + (f" ({form}" if form else "; expected: a number")
    frame(c2=cells).to_csv(tmp_path / "rows.csv", index=False)
    assert shown in complaint(tmp_path / "rows.csv")
    as_texts = frame(c2=[str(cell) for cell in cells])
    as_texts.to_parquet(tmp_path / "rows.parquet")
    assert shown in complaint(tmp_path / "rows.parquet")
    told = complaint(npz(tmp_path / "rows.npz", as_texts.to_numpy(object).astype(str)))
    assert f"texts, and row 17, column 2 (counted from 0) holds {text!r}" in told
    with pytest.raises(InputError) as caught:
        _numbers(as_texts, as_texts.columns)
    assert shown in str(caught.value)
    if form and form != MISSING and text not in ("true", "c2"):
        frame(c2=[text] * N).to_csv(tmp_path / "rows.csv", index=False)
        assert f"row 0 (counted from 0), column c2 holds {text!r} ({form}" in complaint(tmp_path / "rows.csv")
        assert f"; {N} cells of the column are none" in complaint(tmp_path / "rows.csv")


def test_a_column_of_texts_is_still_one(tmp_path: Path) -> None:
    """Also where its first cell is a number or a word for a missing value; beside a bad cell both are told."""
    hint = "no numbers in kind; a column of text is named by label: (its classes), id: (the samples' names), text: ("
    for first in ("3", "?", "unknown", "iris"):
        frame(kind=[first, *TEXTS[1:]]).to_csv(tmp_path / "rows.csv", index=False)
        told = complaint(tmp_path / "rows.csv")
        assert told.startswith(f"{tmp_path / 'rows.csv'}: {hint}")
    frame(c1=["?", *X[1:, 1]], kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    told = complaint(tmp_path / "rows.csv")
    assert "row 0 (counted from 0), column c1 holds '?'" in told and f"; besides, {hint}" in told
    assert "holds '?'" in complaint(tmp_path / "rows.csv", label="kind")


def test_numbers_of_another_type_are_named(tmp_path: Path) -> None:
    for column, told in (
        ([Decimal("1.5")] * N, "holds '1.5' (a number as a text: write the column as floats)"),
        ([str(i) for i in range(N)], "holds '0' (a number as a text: write the column as floats)"),
        (pd.date_range("2024", periods=N), "holds '2024-01-01 00:00:00' (a date: write a number"),
    ):
        frame(c2=column).to_parquet(tmp_path / "rows.parquet")
        assert f"column c2 {told}" in complaint(tmp_path / "rows.parquet")
    frame(c2=[10**20 + i for i in range(N)]).to_csv(tmp_path / "rows.csv", index=False)
    told = "holds '100000000000000000000' (a whole number beyond 2^63: an id?)"
    assert f"row 0 (counted from 0), column c2 {told}" in complaint(tmp_path / "rows.csv")
    frame(c2=[-1, *(2**63 + i for i in range(N - 1))]).to_csv(tmp_path / "rows.csv", index=False)
    assert "row 1 (counted from 0), column c2 holds '9223372036854775808'" in complaint(tmp_path / "rows.csv")
    assert "numbers as texts; save x.astype(float)" in complaint(npz(tmp_path / "rows.npz", X.astype(str)))
    assert form_of("1.5e3") and not form_of("iris") and own(tmp_path / "a.csv").name == "a"
    assert "column 2" in complaint(npz(tmp_path / "rows.npz", np.where(X == X[4, 2], "?", X.astype(str))))
