"""How a text file of the user's own is written: its encoding, and the line where it is no table."""

from __future__ import annotations

import codecs
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from raymc.errors import InputError

MARKS = (  # longer ones first: that of UTF-32 begins with one of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OTHERS = (
    (b"PK\x03\x04", "a .zip or .xlsx archive; save it as comma-separated text, or unpack it"),
    (b"\x1f\x8b", "packed by gzip; unpack it"),
    (b"BZh", "packed by bzip2; unpack it"),
    (b"\xfd7zXZ", "packed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd; unpack it"),
    (b"\xd0\xcf\x11\xe0", "an .xls of Excel; save it as comma-separated text"),
    (b"PAR1", "a .parquet; give it that ending"),
    (b"\x89HDF", "an HDF5 file; write its arrays as .npz"),
    (b"\x93NUMPY", "an .npy; give it that ending"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a database of SQLite; export the table as .csv"),
    (b"version https://git-lfs", "a pointer of Git LFS; get the file by git lfs pull"),
    (b"<!doctype html", "a page of HTML, as a failed download leaves; fetch the file again"),
    (b"<html", "a page of HTML, as a failed download leaves; fetch the file again"),
    (b"<?xml", "XML"),
)
CHUNK = 1 << 20
EXPECTED = "expected: text in UTF-8, UTF-16 or cp1252; save it as UTF-8"


class Encoding(NamedTuple):
    """What text is decoded by, and "; " and words for it where it was guessed."""

    name: str
    words: str = ""


def other_kind(path: str | Path) -> str:
    """What the file is by its first bytes, where that is no table of text and no array's container; or nothing."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    if not head:
        return "empty"
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    return next((words for mark, words in OTHERS if head.startswith(mark) or start.lower().startswith(mark)), "")


def encoding_of(path: str | Path) -> Encoding:
    """By what the file's text is decoded: a mark at its start, else UTF-8, else Windows' Western one (cp1252).

    Raises InputError, with the line and the byte, where it is none of them; and OSError.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
        marked = next((name for mark, name in MARKS if head.startswith(mark)), None)
        found = Encoding(marked) if marked else _without_mark(head) if b"\0" in head else Encoding("utf-8")
        file.seek(0)
        decoder, done = codecs.getincrementaldecoder(found.name)(), 0
        try:
            for part in iter(lambda: file.read(CHUNK), b""):
                if "\0" in decoder.decode(part):
                    raise InputError(f"{path} holds a byte of 0 {_at(path)}: it is no text; {EXPECTED}")
                done += len(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            if found.name != "utf-8":
                where = "at its end: it is torn" if done + 4 >= file.tell() else f"after byte {done}"
                raise InputError(f"{path} begins as {found.name} and is none {where}; {EXPECTED}") from error
            file.seek(0)
            return _western(enumerate(file, 1), path)
    return found


def _at(path: str | Path) -> str:
    """In which line the first byte of 0 is."""
    with open(path, "rb") as file:
        return next(f"in line {number}" for number, line in enumerate(file, 1) if b"\0" in line)


def _without_mark(head: bytes) -> Encoding:
    """UTF-16 without its mark, in which every second byte of Latin text is 0; else UTF-8."""
    odd, even = head[1::2].count(0), head[::2].count(0)
    if max(odd, even) < len(head) // 4:
        return Encoding("utf-8")
    name = "utf-16-le" if odd > even else "utf-16-be"
    return Encoding(name, f"; read as {name}")


def _western(lines: Iterator[tuple[int, bytes]], path: str | Path) -> Encoding:
    """cp1252, if all of the text is that; raises InputError where a part is UTF-8, or a byte is none of its letters."""
    wrong: tuple[int, bytes] | None = None
    utf_8 = False
    for number, line in lines:
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
            utf_8 = True
        except UnicodeDecodeError as error:
            wrong = wrong or (number, line[error.start : error.start + 1])
            if not _is_western(line):
                wrong, utf_8 = (number, line[error.start : error.start + 1]), True
        if wrong and utf_8:
            break
    assert wrong is not None
    if utf_8:
        where = f"line {wrong[0]} has the byte 0x{wrong[1].hex()}, which is no UTF-8"
        raise InputError(f"{path}: {where}; {EXPECTED}")
    return Encoding("cp1252", f"; read as cp1252 (Windows' latin-1), as line {wrong[0]} is no UTF-8")


def _is_western(line: bytes) -> bool:
    try:
        line.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return True


def blank_lines(path: str | Path, encoding: str) -> int:
    """How many lines before the first that is not blank there are."""
    with open(path, encoding=encoding) as file:
        return sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), file))


def wrong_line(path: str | Path, encoding: str) -> str:
    """The first line with more or other values than the names above, and the likely cause; or nothing."""
    with open(path, encoding=encoding, newline="") as file:
        rows = csv.reader(file, skipinitialspace=True)
        filled = ((rows.line_num, row) for row in rows if any(cell.strip() for cell in row))
        first = next(filled, None)
        if first is None:
            return "is empty"
        names = first[1]
        odd, others, longer, ended, count = None, 0, 0, 0, 0
        for number, row in filled:
            count += 1
            if len(row) > len(names):
                odd = odd or (number, row)
                longer += len(row) == len(names) + 1
                ended += len(row) == len(names) + 1 and not row[-1].strip()
                others += 1
    if odd is None:
        return ""
    number, row = odd
    why = f"line {number} has {len(row)} values under {len(names)} names"
    if count > 1 and ended == count:
        return f"{why}, as every line has: each ends with a comma; leave these out"
    if count > 1 and longer == count:
        return f"{why}, as every line has: the first column has no name (R's row names?); name it, or leave it out"
    if _is_comment(names):
        return (
            f"{why}: line {first[0]} is a comment ({_short(names)}); expected: the names of the columns; leave it out"
        )
    many = f"; {others} lines are so" if others > 1 else ""
    return f"{why}{many}: a comma inside a text or a number? Put such a value between quotation marks"


def check_start(path: str | Path, encoding: str) -> None:
    """Raises InputError where a comment or Excel's `sep=` stands above the names of the columns."""
    with open(path, encoding=encoding, newline="") as file:
        rows = csv.reader(file, skipinitialspace=True)
        filled = ((rows.line_num, row) for row in rows if any(cell.strip() for cell in row))
        try:
            (number, names), (_, values) = itertools.islice(filled, 2)
        except (ValueError, csv.Error):
            return
    if len(names) == 1 < len(values) and not set(names[0]) & set(";\t|#%/="):
        raise InputError(
            f"{path}: line {number} has one value ({_short(names)}) and the next {len(values)}; expected: the names of "
            "the columns; is it a title? Leave it out"
        )
    if names[0].lower().startswith("sep="):
        raise InputError(f"{path}: line {number} is Excel's {_short(names)}; leave it out")
    if _is_comment(names) and len(names) != len(values):
        what = f"line {number} is a comment ({_short(names)})"
        raise InputError(f"{path}: {what}; expected: the names of the columns; leave it out")


def _is_comment(cells: list[str]) -> bool:
    return cells[0].lstrip().startswith(("#", "%", "//"))


def _short(cells: list[str]) -> str:
    text = ",".join(cells)
    return text if len(text) <= 40 else f"{text[:40]}…"


def open_quotation(path: str | Path, encoding: str) -> str:
    """The line in which a quotation mark opens that none closes; or nothing."""
    with open(path, encoding=encoding, newline="") as file:
        rows, begun = csv.reader(file, skipinitialspace=True, strict=True), 1
        try:
            for _ in rows:
                begun = rows.line_num + 1
        except csv.Error:
            return f"a quotation mark opens in line {begun}, and none closes it"
    return ""
