"""What a full disk and its like become: told apart from faults of a training, in one line, nothing half written."""

from __future__ import annotations

import argparse
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from raymc.atomic import write_json
from raymc.cli import Parser, execute
from raymc.errors import InputError, StorageError, storage_error
from raymc.storage.stage_store import Store
from raymc.study.events import EventLog, read_events

FULL = OSError(errno.ENOSPC, "No space left on device")


def _caused(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception:
            raise outer  # noqa: B904  as libraries do
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FULL, "/study: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: Permission denied"),
        (_caused(RuntimeError("Tune"), OSError(errno.EROFS, "Read-only file system", "a")), "a: Read-only file system"),
        (_caused(ValueError("a"), sqlite3.OperationalError("database or disk is full")), "/study: database or disk"),
        (StorageError("storage x cannot be written: why"), "storage x cannot be written: why"),
    ],
)
def test_a_refused_file_is_named_with_its_cause(error: Exception, told: str) -> None:
    found = storage_error(error, "/study")
    assert found is not None and str(found).startswith(told) and found.exit_code == 2


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a fault"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        sqlite3.OperationalError("no such table: trials"),
        InputError("a bad value"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert storage_error(error) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/reports/a.html"), "/reports/a.html: Read-only file system"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (RuntimeError("Could not determine home directory."), "no home folder: set HOME"),
        (RuntimeError("could not determine the home directory for '~/.cache', set HOME"), "no home folder: set HOME"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "the working folder is gone"),
    ],
)
def test_a_command_tells_it_in_one_line(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(args: argparse.Namespace) -> None:
        raise error

    if "gone" in told:
        (gone := tmp_path / "gone").mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
    assert execute(Parser(prog="x"), run, []) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"raymc: {told}") and printed.count("\n") == 1


@pytest.mark.parametrize("writer", ["json", "store"])
def test_what_does_not_fit_leaves_nothing_and_names_its_file(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as told:
        if writer == "json":
            write_json(tmp_path / "a" / "record.json", {})
        else:
            store.save("key", {}, {})
    assert told.value.filename.startswith(str(tmp_path)) and not told.value.filename.endswith(".tmp")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_events_are_not_closed_with_lines_that_were_never_written(caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    log = EventLog(Path("/dev/full"))
    log.append({"event": "done"})
    assert len(caplog.records) == 1, "told once"
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        log.close()
    log.close()


def test_lines_that_wait_are_written_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = os.write, [False]

    def small(file: int, lines: bytes) -> int:
        if room[0]:
            return write(file, lines)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", small)
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append({"event": "done"})
        room[0] = True
    assert [event["event"] for event in read_events(log.path)] == ["begin", "done"]
