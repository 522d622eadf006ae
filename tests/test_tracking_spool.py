"""The spool: nothing complete is ever lost or mixed, whatever happens to its writers; and it needs no MLflow."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raymc.errors import InputError, Interrupted
from raymc.metrics.seeds import summary
from raymc.tracking import runs
from raymc.tracking.sender import merged, parts
from raymc.tracking.spool import Spool, ending, texts
from raymc.tracking.tail import Tail

WRITER = """
import sys
from pathlib import Path
from raymc.tracking.spool import Spool
spool = Spool(Path(sys.argv[1]))
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    spool.metrics({f"{sys.argv[4]}.{i}": step + i / 10 for i in range(10)}, step)
    if step == 20:
        print("going", flush=True)
"""


def writer(path: Path, first: int, behind: int, prefix: str = "m") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(behind), prefix]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def tail_of(path: Path) -> Tail:
    return Tail(path, path.parent / "sent" / f"{path.stem}.json")


def everything(tail: Tail) -> list[dict[str, object]]:
    """All records, read and committed chunk by chunk."""
    found = []
    while tail.pending():
        records, end = tail.read()
        if end == tail.offset:
            break
        tail.commit(end)
        found += records
    return found


def points(path: Path) -> list[tuple[str, int, float]]:
    records = [r for r in everything(tail_of(path)) if r["kind"] == "metrics"]
    return [(key, r["step"], value) for r in records for key, value in r["values"].items()]  # type: ignore[attr-defined]


def test_a_run_is_written_in_order_with_its_times(tmp_path: Path) -> None:
    before = int(time.time() * 1000)
    with Spool(tmp_path / "trial-0001.jsonl") as spool:
        spool.start(parent="study", tags={"raymc.trial": 1}, params={"heads.eps_sq": 1e-5, "compile": True})
        spool.metrics({"loss": 0.5}, step=3)
        spool.metrics({"loss": 0.25}, step=4, timestamp_ms=77)
    records = [json.loads(line) for line in (tmp_path / "trial-0001.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["start", "metrics", "metrics", "end"]
    assert records[0]["params"] == {"heads.eps_sq": "1e-05", "compile": "true"}
    assert records[0]["name"] == "trial-0001"
    assert before <= records[1]["time"] <= int(time.time() * 1000)
    assert records[2] | {"kind": "metrics"} == {"kind": "metrics", "time": 77, "step": 4, "values": {"loss": 0.25}}
    assert records[3]["status"] == "FINISHED"


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    spool.metrics({"nan": float("nan"), "inf": float("inf"), "good": 1.0}, step=0)
    spool.metrics({"minus": float("-inf")}, step=1)
    spool.end()
    assert points(spool.path) == [("good", 0, 1.0)]


@pytest.mark.parametrize("torn", [b"", b'{"kind":"metr', b'{"kind":"metrics"}', b"[1]", b"\n\n"])
def test_a_torn_line_spoils_nothing_behind_it(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    first = Spool(path)
    first.metrics({"a": 0.0}, step=0)
    with path.open("ab") as file:
        file.write(torn)
    second = Spool(path)
    second.metrics({"b": 2.0}, step=2)
    found = points(path)
    assert found[0] == ("a", 0, 0.0) and found[-1] == ("b", 2, 2.0)
    assert {key for key, *_ in found} == {"a", "b"}


def test_every_cut_of_the_last_line_is_survived(tmp_path: Path) -> None:
    whole = Spool(tmp_path / "whole.jsonl")
    for step in range(3):
        whole.metrics({"a": float(step)}, step)
    content = whole.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "cut.jsonl"
    for cut in range(ends[0], len(content) + 1):
        path.write_bytes(content[:cut])
        with Spool(path) as again:
            again.metrics({"a": 9.0}, 9)
        # A line is whole once its last brace is there: the successor gives it its line break.
        whole_steps = [step for step, end in enumerate(ends) if cut >= end - 1]
        assert [r["step"] for r in tail_of(path).read()[0] if r["kind"] == "metrics"] == [*whole_steps, 9]


def test_a_killed_writer_leaves_whole_lines_and_its_successor_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = writer(path, 0, 10**9)
    assert first.stdout is not None and first.stdout.readline() == "going\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    written = path.read_bytes().count(b"\n")
    assert written > 20
    successor = Spool(path)
    successor.metrics({f"m.{i}": written - 5 + i / 10 for i in range(10)}, written - 5)  # an epoch again
    successor.metrics({"m.0": -1.0}, 10**9)
    found = points(path)
    steps = {step for _, step, _ in found}
    assert steps == set(range(max(steps - {10**9}) + 1)) | {10**9}
    assert all(value == step + int(key[2:]) / 10 for key, step, value in found if step < 10**9)
    assert len({(key, step) for key, step, _ in found}) == len(found)


def test_several_processes_may_append_to_one_spool(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writers = [writer(path, 0, 300, prefix) for prefix in "xyz"]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    found = points(path)
    assert len(found) == 3 * 300 * 10
    assert {(key, step) for key, step, _ in found} == {
        (f"{p}.{i}", step) for p in "xyz" for i in range(10) for step in range(300)
    }


def test_of_two_values_at_a_step_the_first_stands_also_in_a_later_sitting(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    spool.metrics({"loss": 1.0}, step=1)
    spool.metrics({"loss": 2.0, "acc": 0.5}, step=1)
    assert points(spool.path) == [("loss", 1, 1.0), ("acc", 1, 0.5)]
    spool.metrics({"loss": 3.0}, step=1)
    spool.metrics({"loss": 4.0}, step=2)
    again = tail_of(spool.path)
    assert [r["values"] for r in everything(again)] == [{}, {"loss": 4.0}]


def test_a_full_disk_stops_no_training_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    real = os.write
    behaviour = iter(["full", "half", "full", "well", "well"])

    def write(file: int, data: bytes) -> int:
        kind = next(behaviour)
        if kind == "full":
            raise OSError(28, "No space left on device")
        return real(file, data[: len(data) // 2] if kind == "half" else data)

    monkeypatch.setattr(os, "write", write)
    with caplog.at_level(logging.WARNING, "raymc.tracking"):
        for step in range(5):
            spool.metrics({"a": float(step)}, step)
    monkeypatch.undo()
    assert sorted(points(spool.path)) == [("a", step, float(step)) for step in range(5)]
    assert len(caplog.records) == 1


def test_a_spool_that_cannot_be_opened_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Spool(tmp_path / "file" / "a.jsonl")


def test_a_line_in_the_making_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"kind":"metrics","time":1,"step":0,"values":{"a":1}}\n{"kind":"met')
    tail = tail_of(path)
    assert len(everything(tail)) == 1
    with path.open("ab") as file:
        file.write(b'rics","time":1,"step":1,"values":{"a":2}}\n')
    assert [r["step"] for r in everything(tail)] == [1]


def test_a_torn_memory_of_what_was_sent_only_means_sending_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    spool.metrics({"a": 1.0}, step=1)
    tail = tail_of(spool.path)
    tail.attach("run")
    everything(tail)
    state = tmp_path / "sent" / "a.json"
    assert tail_of(spool.path).offset == spool.path.stat().st_size
    for broken in ("", '{"run_id": "ru', "[]", '{"run_id": "run"}'):
        state.write_text(broken)
        assert (tail_of(spool.path).run_id, tail_of(spool.path).offset) == (None, 0)


def test_how_a_run_ends_follows_from_how_its_block_is_left(tmp_path: Path) -> None:
    assert ending(None) == "FINISHED"
    assert [ending(kind) for kind in (KeyboardInterrupt, SystemExit, GeneratorExit, Interrupted)] == ["KILLED"] * 4
    assert ending(ValueError) == "FAILED"
    with pytest.raises(ValueError, match="oops"), Spool(tmp_path / "a.jsonl") as spool:
        raise ValueError("oops")
    assert json.loads(spool.path.read_text())["status"] == "FAILED"
    with pytest.raises(ValueError, match="ended"):
        spool.metrics({"a": 1.0}, step=0)


def test_names_and_parents_of_runs(tmp_path: Path) -> None:
    names = [runs.run_name(7), runs.run_name(7, 3), runs.run_name(7, 3, "confirm"), runs.run_name(None, 3)]
    assert names == ["trial-0007", "trial-0007.seed-3", "confirm-0007.seed-3", "seed-3"]
    runs.open_trial(tmp_path, 7, params={"a.b": 0.1}).end()
    runs.open_seed(tmp_path, 3, trial=7).end()
    runs.open_seed(tmp_path, 3).end()
    heads = {path.stem: tail_of(path).head() for path in (tmp_path / "spool").glob("*.jsonl")}
    assert {name: head["parent"] for name, head in heads.items()} == {
        "trial-0007": "study",
        "trial-0007.seed-3": "trial-0007",
        "seed-3": "study",
    }
    assert heads["trial-0007.seed-3"]["tags"] == {"raymc.seed": "3", "raymc.trial": "7", "raymc.kind": "search"}


def test_events_and_statistics_become_metrics(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    epoch = {"event": "epoch", "stage": "heads", "epoch": 4, "epochs": 9, "loss": 1.5, "learning_rate.cluster": 0.5}
    runs.log_event(spool, epoch | {"note": "text", "nothing": None})
    runs.log_event(spool, {"event": "stage", "name": "heads", "epochs": 9, "cached": True, "seconds": 2.5, "key": "k"})
    runs.log_event(spool, {"event": "done", "metrics": {"acc": 0.9}})
    of_acc = {"n": 2, "mean": 0.5, "std": None, "ci95": [0.4, 0.6], "ci95_bootstrap": None, "values": [0.4, 0.6]}
    runs.log_statistics(spool, {"acc": of_acc, "pairwise_ari": {"mean": 1}}, 3)
    assert points(spool.path) == [
        ("heads.loss", 4, 1.5),
        ("heads.learning_rate.cluster", 4, 0.5),
        ("heads.seconds", 0, 2.5),
        ("heads.cached", 0, 1.0),
        ("heads.epochs", 0, 9.0),
        ("acc", 0, 0.9),
        ("acc_n", 3, 2.0),
        ("acc_mean", 3, 0.5),
        ("acc_ci95_low", 3, 0.4),
        ("acc_ci95_high", 3, 0.6),
        ("pairwise_ari_mean", 3, 1.0),
    ]


def test_statistics_of_seeds_become_metrics_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a.jsonl")
    for values in ([0.5], [0.5, 0.7]):
        runs.log_statistics(spool, {"acc": summary(values)}, len(values))
    names = {(name.removeprefix("acc_"), step) for name, step, _ in points(spool.path)}
    single = {"n", "mean", "std", "min", "max", "median", "iqm"}
    ends = {f"{interval}_{end}" for interval in ("ci95", "ci95_bootstrap") for end in ("low", "high")}
    assert {name for name, step in names if step == 1} == single
    assert {name for name, step in names if step == 2} == single | ends


def test_rows_of_records_keep_starts_and_ends_in_their_places() -> None:
    start = {"kind": "start", "params": {"a": "1"}, "tags": {"t": "1"}}
    metrics = {"kind": "metrics", "time": 5, "step": 2, "values": {"loss": 0.5}}
    tags = {"kind": "tags", "values": {"t": "2"}}
    params = {"kind": "params", "values": {"a": "2", "b": "3"}}
    end = {"kind": "end", "status": "FINISHED", "time": 6}
    rows = parts([start, metrics, tags, params, end, metrics, start])
    assert [len(row) for row in rows] == [4, 1, 1, 1]
    assert merged(rows[0]) == ([("loss", 0.5, 5, 2)], {"a": "1", "b": "3"}, {"t": "2"})


def test_values_are_written_as_on_the_command_line() -> None:
    values = {"a": None, "b": False, "c": 1e-5, "d": "relu", "e": [1, 2], "f": Path("x")}
    assert texts(values) == {"a": "null", "b": "false", "c": "1e-05", "d": "relu", "e": "[1, 2]", "f": '"x"'}


def test_a_training_process_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, raymc.tracking.runs, raymc.tracking.study, raymc.tracking.uri; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"mlflow", "torch", "ray", "optuna", "sqlalchemy"} & set(done.stdout.split())
