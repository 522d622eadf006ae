"""Files and folders that appear whole or not at all. Used by every room, also by those below `storage/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LONGEST = 200
"""Bytes of a name that still has one beside it for what is half written: file systems take 255."""


def folder_name(text: str, longest: int = 60) -> str:
    """`text`, such as a file's name, as a word that a folder, a URI and a command line take: letters, digits, `._-`.

    Letters of any alphabet stay; it begins with one, or with a digit, and has at most `longest` bytes of UTF-8.
    """
    word = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", text))
    short = word.lstrip("._-").encode()[:longest].decode(errors="ignore")
    return short.rstrip("._-") or "study"


def write_json(path: Path, content: object) -> None:
    """Write strict JSON (no NaN)."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def json_rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of lines; what is none is passed over, such as the last line of a killed process."""
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def write_text(path: Path, text: str) -> None:
    """Write UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replaced(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all; where there is none, there is none in the end."""
    if not source.is_file():
        target.unlink(missing_ok=True)
        return
    with replaced(target) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, for a file or a folder, which gets the name `path` at the end of the block.

    A folder replaces no folder that holds anything. Nothing half written stays. An OSError names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        put(temporary, path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)


def put(finished: Path, path: Path) -> None:
    """Give a finished file or folder of the same file system its name; a file is on the disk before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if finished.is_file():
        with finished.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(finished, path)
