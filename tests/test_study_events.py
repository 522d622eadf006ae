"""What a training reports: nothing complete is ever lost or mixed, whatever happens to its writers; and no MLflow."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raymc.errors import InputError
from raymc.study.events import EventLog, is_event, read_events

WRITER = """
import sys
from pathlib import Path
from raymc.study.events import EventLog
log = EventLog(Path(sys.argv[1]))
for epoch in range(int(sys.argv[2]), int(sys.argv[3])):
    log.append({"event": "epoch", "stage": sys.argv[4], "epoch": epoch, "loss": epoch / 10})
    if epoch == 20:
        print("going", flush=True)
"""


def writer(path: Path, first: int, behind: int, stage: str = "heads") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(behind), stage]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def epoch(number: int, **values: Any) -> dict[str, Any]:
    return {"event": "epoch", "stage": "heads", "epoch": number, **values}


def epochs(path: Path) -> list[int]:
    return [event["epoch"] for event in read_events(path) if event["event"] == "epoch"]


def test_events_are_written_in_order_with_their_times_and_finite_numbers_only(tmp_path: Path) -> None:
    before = int(time.time() * 1000)
    with EventLog(tmp_path / "a") as log:
        log.append(epoch(3, loss=0.5, bad=float("nan"), worse=float("-inf"), note="x", nothing=None))
        log.append({"event": "stage", "name": "heads", "key": "k", "cached": True})
        log.append({"event": "done", "metrics": {"acc": 1.0}, "seconds": 2.5})
    begin, row, stage, done = (json.loads(line) for line in (tmp_path / "a").read_text().splitlines())
    assert begin["event"] == "begin" and before <= row.pop("time") <= int(time.time() * 1000)
    assert row == epoch(3, loss=0.5, note="x") and stage["cached"] is True and done["seconds"] == 2.5
    with pytest.raises(ValueError, match="closed"):
        log.append(epoch(4))


def test_a_resumed_stage_brings_the_epochs_that_it_goes_on_from(tmp_path: Path) -> None:
    with EventLog(tmp_path / "a") as log:
        curve = [{"stage": "heads", "epoch": number, "loss": 1.0} for number in (1, 2)]
        log.append({"event": "resumed", "stage": "heads", "epoch": 2, "curve": curve})
        log.append(epoch(3))
    events = read_events(tmp_path / "a")
    assert [event["event"] for event in events] == ["begin", "epoch", "epoch", "resumed", "epoch"]
    assert epochs(tmp_path / "a") == [1, 2, 3]


FOREIGN: list[Any] = [
    [1],
    {"event": "epoch", "time": 1},
    {"event": "epoch", "time": 1, "stage": 3, "epoch": 1},
    {"event": "epoch", "time": 1, "stage": "heads", "epoch": "1"},
    {"event": "epoch", "time": "now", "stage": "heads", "epoch": 1},
    {"event": "stage", "time": 1, "name": "heads"},
    {"event": ["done"], "time": 1},
    {"event": "run", "time": 1},
    {"time": 1},
]


@pytest.mark.parametrize("torn", [b"", b'{"event":"ep', b"\n\n", *(json.dumps(row).encode() for row in FOREIGN)])
def test_a_line_that_is_torn_or_no_event_spoils_nothing_behind_it(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a"
    first = EventLog(path)
    first.append(epoch(1))
    with path.open("ab") as file:
        file.write(torn)
    EventLog(path).append(epoch(2))
    assert epochs(path) == [1, 2]
    assert not any(is_event(row) for row in FOREIGN if isinstance(row, dict))


def test_every_cut_of_the_last_line_is_survived(tmp_path: Path) -> None:
    with EventLog(tmp_path / "whole") as log:
        for number in range(3):
            log.append(epoch(number))
    content = (tmp_path / "whole").read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")][1:]
    path = tmp_path / "cut"
    for cut in range(ends[0], len(content) + 1):
        path.write_bytes(content[:cut])
        whole = [number for number, end in enumerate(ends) if cut >= end - 1]  # once its last brace is there
        assert epochs(path) == whole
        with EventLog(path) as again:
            again.append(epoch(9))
        assert epochs(path) == [*whole, 9]


def test_a_killed_writer_leaves_whole_lines_and_its_successor_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = writer(path, 0, 10**9)
    assert first.stdout is not None and first.stdout.readline() == "going\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    written = len(epochs(path))
    assert written > 20
    EventLog(path).append(epoch(written, loss=0.5))
    assert epochs(path) == list(range(written + 1))


def test_several_processes_may_append_to_one_file(tmp_path: Path) -> None:
    writers = [writer(tmp_path / "a", 0, 300, stage) for stage in "xyz"]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    found = [(event["stage"], event["epoch"]) for event in read_events(tmp_path / "a") if event["event"] == "epoch"]
    assert sorted(found) == [(stage, number) for stage in "xyz" for number in range(300)]


def test_a_full_disk_stops_no_training_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, real = EventLog(tmp_path / "a"), os.write
    behaviour = iter(["full", "half", "full", "well", "well"])

    def write(file: int, data: bytes) -> int:
        kind = next(behaviour)
        if kind == "full":
            raise OSError(28, "No space left on device")
        return real(file, data[: len(data) // 2] if kind == "half" else data)

    monkeypatch.setattr(os, "write", write)
    with caplog.at_level(logging.WARNING, "raymc.study"):
        for number in range(5):
            log.append(epoch(number))
    monkeypatch.undo()
    assert sorted(set(epochs(log.path))) == list(range(5))
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_opened_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        EventLog(tmp_path / "file" / "a")
    assert read_events(tmp_path / "file" / "a") == []
