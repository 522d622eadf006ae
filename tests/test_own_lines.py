"""A .csv that is no table is one line, in words of ours, with the line of the file and the likely cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.own_data import complaint, read

GOOD = "a,b,kind\n1,2,x\n3,5,é\n4,4,x\n"
WESTERN = "; read as cp1252 (Windows' latin-1), as line 3 is no UTF-8"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        *((name, "") for name in ("utf-8", "utf-8-sig", "utf-16", "utf-32")),
        *((name, f"; read as {name}") for name in ("utf-16-le", "utf-16-be")),
        *((name, WESTERN) for name in ("latin-1", "cp1252")),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, encoding: str, said: str) -> None:
    """By a mark at the file's start it is known; without one it is said."""
    path = tmp_path / "rows.csv"
    path.write_bytes(GOOD.encode(encoding))
    data = read(path, label="kind")
    assert data.classes == ("x", "é") and data.columns == ("a", "b") and len(data.train) == 3
    assert data.split.endswith(f"deviation 1{said}")


ROWS = "1,2,x\n3,5,y\n"
WRONG: list[tuple[str, str | bytes, str]] = [
    (
        "R's write.table",
        f'a,b,kind\n"1",{ROWS}'.replace("\n3", '\n"2",3'),
        "line 2 has 4 values under 3 names, as every",
    ),
    ("R's row names", "a,b,kind\nMazda,1,2,x\nFiat,3,5,y\n", "the first column has no name (R's row names?)"),
    ("R's write.csv", '"","a","kind"\n"1",1,x\n"2",2,y\n', "column 0 (counted from 0) has no name; numbers of rows"),
    ("commas at the ends", "a,b,kind\n1,2,x,\n3,5,y,\n", "line 2 has 4 values under 3 names, as every line has: each"),
    ("a comment", f"# mine\na,b,kind\n{ROWS}", "line 1 is a comment (# mine); expected: the names of the columns"),
    ("with commas", f"\n% a, b\na,b,kind\n{ROWS}", "line 2 is a comment (% a,b)"),
    ("a comment below", f"a,b,kind\n{ROWS}# end\n", "row 2 (counted from 0), column a holds '# end' (a comment?"),
    ("Excel's sep", f"sep=,\na,b,kind\n{ROWS}", "line 1 is Excel's sep=,; leave it out"),
    ("a title", f"My table\na,b,kind\n{ROWS}", "line 1 has one value (My table) and the next 3"),
    ("a title with commas", f"My table,,\na,b,kind\n{ROWS}", "2 of 3 columns have no name"),
    ("an open quotation", 'a,b,kind\n1,2,x\n3,5,"y\n4,4,x\n', "a quotation mark opens in line 3, and none closes it"),
    ("in the names", f'a,b,"kind\n{ROWS}', "a quotation mark opens in line 1"),
    (
        "a comma in a number",
        "a,b,kind\n1,2,x\n1,234.50,5,y\n",
        "line 3 has 4 values under 3 names: a comma inside",
    ),
    ("names once more", f"a,b,kind\n{ROWS}a,b,kind\n", "row 2 (counted from 0), column a holds 'a' (the names of"),
    ("spaces between", "a b kind\n1 2 x\n3 5 y\n", "has no column kind"),
    ("a byte of 0", "a,b,kind\n1,2,x\n3,\0005,y\n", "holds a byte of 0 in line 3: it is no text"),
    ("two encodings", GOOD.encode() + b"4,5,\xe9\n", "line 5 has the byte 0xe9, which is no UTF-8"),
    ("no letter", b"a,b,kind\n1,2,x\n3,4,\x81\n", "line 3 has the byte 0x81, which is no UTF-8"),
    ("torn UTF-16", GOOD.encode("utf-16")[:-1], "begins as utf-16 and is none at its end: it is torn"),
    ("nothing", b"", "is empty; expected: comma-separated values"),
    ("blank lines", b"\n\n \n", "is empty"),
    ("HTML", " <!DOCTYPE html>\n", "is a page of HTML, as a failed download leaves"),
    (
        "Git LFS",
        "version https://git-lfs.github.com/spec/v1\n",
        "is a pointer of Git LFS; get the file by",
    ),
    ("Excel", b"PK\x03\x04\0\0", "is a .zip or .xlsx archive"),
    ("gzip", b"\x1f\x8b\x08\0", "is packed by gzip; unpack it"),
]


@pytest.mark.parametrize(("text", "told"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_no_table_is_told_with_its_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = complaint(path, label="kind")
    assert told in found
    assert not any(word in found for word in ("codec", "tokenizing", "header or names", "index_col", "C error"))


@pytest.mark.parametrize(
    ("names", "keys", "told"),
    [
        ("5.1,3.5,1.4,x", {}, "the first line (5.1,3.5,1.4,x) is a sample: x is among the values of its column too"),
        ("5.1,3.5,1.4,x", {"label": "x"}, "is a sample: x is among the values of its column too; expected: the names"),
        ("5.1,3.5,1.4,x", {"label": "kind"}, "has no column kind; is the first line (5.1,3.5,1.4,x) a sample?"),
        ("5.1,3.5,1.4,s7", {}, "or left out; is the first line (5.1,3.5,1.4,s7) a sample? Then write the names of the"),
        ("5.1,5.1,1.4,x", {}, "a name of its own for each; is the first line (5.1,5.1,1.4,x) a sample?"),
        ("5.1,,1.4,x", {}, "column 1 (counted from 0) has no name; is the first line (5.1,,1.4,x) a sample?"),
        ("400,410,420,kind", {}, "or left out"),
        ("400,410,420,kind", {"label": "kind"}, ""),
        ("400.1,407.3,419.9,kind", {"label": "kind"}, ""),
        ("0,1,2,kind", {"label": "kin"}, "has no column kin; did you mean kind?"),
    ],
)
def test_a_first_line_that_is_a_sample_is_told_and_wavelengths_are_names(
    tmp_path: Path, names: str, keys: dict[str, str], told: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{names}\n" + "".join(f"{i},{i * i},{i % 5},{'xyz'[i % 3]}\n" for i in range(9)))
    if told:
        found = complaint(path, **keys)
        assert told in found and ("sample" in told) == ("a sample" in found)
    else:
        assert read(path, **keys).columns == tuple(names.split(",")[:3])


def test_other_line_ends_and_marks_are_read(tmp_path: Path) -> None:
    for text in (GOOD.replace("\n", "\r"), GOOD.replace("\n", "\r\n"), GOOD.replace("a,", "#a,", 1)):
        (tmp_path / "rows.csv").write_bytes(text.encode())
        assert len(read(tmp_path / "rows.csv", label="kind").train) == 3


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "safetensors", "pt"])
def test_a_failed_download_is_told_as_such(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    for text, told in (
        ("<!doctype html><html>", "is a page of HTML"),
        ("", "is empty"),
        ("version https://git-lfs", "LFS"),
    ):
        path.write_text(text)
        assert told in complaint(path)
