"""Cells of a table (`stability --table`) with a training that does nothing: what is run, kept, extended, skipped."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from raymc.cli import execute
from raymc.commands import stability as door
from raymc.commands.stability import table
from raymc.errors import CollapsedError, InputError
from raymc.stability import configurations, queue, seed_group
from raymc.stability.cells import read_cells
from raymc.stability.paper_tables import load_table
from raymc.stability.request import StabilityRequest
from raymc.stability.tables import make_cells
from tests.mlflow_database import new_database
from tests.search_fakes import FakeTracker, FakeTrainable, Killed, driver_here
from tests.test_tables import TINY


class CellTrainable(FakeTrainable):
    """Scores a cell by its epsilon and the seed; `before(cell, seed)` may raise."""

    def __init__(self, real: Any, before: Any, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.real, self.first, self.calls = real, before, calls

    def __call__(self, params: Any, seed: int, out: Path, report: Any) -> dict[str, Any]:
        row, dataset = out.parts[-6:-4]
        name = f"{row}/{dataset}"
        self.calls.append((name, seed))
        self.first(name, seed)
        config = self.real.space.config()
        assert config.dataset == dataset and self.real.base_seed == 0
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "labels.npz", labels=np.arange(20) % 4)
        metrics = {"acc": config.stages["heads"].eps_sq / 10 + 0.1 * seed, "nmi": 0.5, "rate_reduction": 3.0}
        return {"metrics": metrics, "stages": []}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    return []


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]) -> Callable[[Any], None]:
    """The tiny table in the working folder; its seeds run here, and `calls` lists them."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    monkeypatch.setattr(seed_group, "StudyTracker", FakeTracker)
    monkeypatch.setattr(queue, "ray_session", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(FakeTracker, "begun", [])

    def use(before: Any = lambda name, seed: None, **changes: Any) -> None:
        monkeypatch.setattr(
            queue, "run_on_ray", driver_here(lambda real: CellTrainable(real, before, calls), **changes)
        )

    use()
    return use


def _fill(*only: str, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"overrides": {}, "storage": "storage", "data": "data", "only": only}
    return table(StabilityRequest("tiny.yaml", **settings | changes))


DIGITS = ("*/digits",)


def test_what_has_a_result_is_not_run_again(run_with: Any, calls: list[tuple[str, int]]) -> None:
    result = _fill(*DIGITS)
    json.dumps(result, allow_nan=False)
    assert calls == [(f"{row}/digits", seed) for row in ("plain", "whole") for seed in (0, 1)]
    plain, whole = result["cells"]
    assert (plain["row"], plain["dataset"], plain["seeds"], plain["acc"]["n"]) == ("plain", "digits", [0, 1], 2)
    assert plain["acc"]["values"] == pytest.approx([0.02, 0.12]) and plain["seeds_from"] == "heads"
    assert result["table"] == "tiny" and result["skipped"] == []
    assert Path(result["report"]) == Path("reports/table-tiny/table.md").resolve()
    assert "| Plain | 0.0700 ± 0.0707 / 0.5000 ± 0.0000 (2) \\| 0.500/0.400*" in Path(result["report"]).read_text()
    del calls[:]
    assert _fill(*DIGITS)["cells"] == result["cells"] and calls == []
    assert [facts["tags"]["raymc.kind"] for facts in FakeTracker.begun] == ["stability"] * 2
    assert {facts["space"] for facts in FakeTracker.begun} == {"tiny"}
    assert FakeTracker.begun[0]["study"].startswith("tiny-plain-digits-")


def test_no_slot_idles_at_the_end_of_a_cell(run_with: Any) -> None:
    flights: list[list[Any]] = []
    run_with(slots=3, flights=flights)
    _fill(*DIGITS)
    begun = [[task.name for task in flight] for flight in flights]
    assert begun[0] == ["plain/digits stage pretrain 0"], "what all seeds need is trained once, before them"
    assert begun[3] == ["plain/digits seed 0", "plain/digits seed 1", "whole/digits seed 0"], "a cell after the other"
    assert [task[-1] for task in begun[1:]] == [*begun[3], "whole/digits seed 1"]


def test_more_seeds_extend_a_cell(run_with: Any, calls: list[tuple[str, int]]) -> None:
    _fill("plain/digits")
    result = _fill("plain/digits", seeds=4)
    assert [seed for _, seed in calls] == [0, 1, 2, 3] and result["cells"][0]["acc"]["n"] == 4
    assert _fill("plain/digits", seeds=3)["cells"][0]["seeds"] == [0, 1, 2, 3] and len(calls) == 4
    assert _fill("plain/digits", seeds=1, first_seed=9)["cells"][0]["seeds"] == [0, 1, 2, 3, 9]
    (one,) = read_cells(Path("storage/tables/tiny/plain/digits"))
    assert len(one.facts["sittings"]) == 3 and one.missing == []


def test_other_configurations_do_not_mix(run_with: Any, calls: list[tuple[str, int]]) -> None:
    first = _fill("plain/digits")["cells"][0]
    second = _fill("plain/digits", overrides={"heads.eps_sq": 0.4})["cells"][0]
    third = _fill("plain/digits", overrides={"seeds_from": "pretrain"})["cells"][0]
    smoke = _fill("plain/digits", smoke=True, seeds=2)["cells"][0]
    assert len(calls) == 8 and len({one["folder"] for one in (first, second, third, smoke)}) == 4
    assert second["acc"]["mean"] == pytest.approx(0.09) and second["overrides"] == {"heads.eps_sq": 0.4}
    assert third["seeds_from"] == "pretrain" and (first["smoke"], smoke["smoke"]) == (False, True)
    assert _fill("plain/digits", overrides={"heads.eps_sq": 0.2})["cells"][0]["folder"] == first["folder"], "its own"
    assert len(calls) == 8


def test_probes_and_a_bank_s_numbers_are_of_the_configuration(
    run_with: Any, calls: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _fill("plain/digits")["cells"][0]
    probed = _fill("plain/digits", overrides={"probes": True})["cells"][0]
    bank = {"heads.feature_bank": 4}
    banked = _fill("plain/digits", overrides=bank)["cells"][0]
    assert len({one["folder"] for one in (plain, probed, banked)}) == 3 and len(calls) == 6
    _fill("plain/digits", overrides=bank)
    assert len(calls) == 6
    monkeypatch.setattr(configurations, "BANK_NUMERICS", 99)
    _fill("plain/digits")
    assert len(calls) == 6, "it has no bank"
    _fill("plain/digits", overrides=bank)
    assert len(calls) == 8


def test_a_key_that_came_later_does_not_orphan_results(run_with: Any, calls: list[tuple[str, int]]) -> None:
    made = Path(_fill("plain/digits")["cells"][0]["folder"])
    folder = made.rename(made.with_name("of-an-older-raymc"))
    facts = json.loads((folder / "cell.json").read_text())
    del facts["settings"]["heads.temperature"]  # an older raymc did not have it: the default was what it did
    facts["settings"]["heads.gone"] = 3
    (folder / "cell.json").write_text(json.dumps(facts))
    _fill("plain/digits")
    assert len(calls) == 4, "a key that is gone had a say"
    del facts["settings"]["heads.gone"]
    (folder / "cell.json").write_text(json.dumps(facts))
    assert _fill("plain/digits")["cells"][0]["folder"].endswith(made.name) and len(calls) == 4
    made.rename(Path("aside"))
    assert _fill("plain/digits")["cells"][0]["folder"].endswith(folder.name) and len(calls) == 4


def test_a_killed_command_goes_on(run_with: Any, calls: list[tuple[str, int]]) -> None:
    def kill(name: str, seed: int) -> None:
        if (name, seed) == ("whole/digits", 1):
            raise Killed

    with pytest.raises(InputError, match="--resume: nothing has been run of what is asked for of tiny"):
        _fill(*DIGITS, resume=True)
    run_with(kill)
    with pytest.raises(Killed):
        _fill(*DIGITS)
    assert "| Plain | 0.0700 ±" in Path("reports/table-tiny/table.md").read_text(), "what is done is in the table"
    run_with()
    result = _fill(*DIGITS, resume=True)
    assert [call for call in calls if calls.count(call) > 1] == [("whole/digits", 1)] * 2 and len(calls) == 5
    assert [cell["seeds"] for cell in result["cells"]] == [[0, 1]] * 2


def test_a_fault_is_tried_again_and_a_collapse_is_a_result(run_with: Any, calls: list[tuple[str, int]]) -> None:
    def fall(name: str, seed: int) -> None:
        raise CollapsedError("one cluster") if seed else RuntimeError("a fault of ours")

    run_with(fall)
    assert _command("--table", "tiny.yaml", "--only", "plain/digits") == 3
    run_with()
    result = _fill("plain/digits")
    assert [seed for _, seed in calls] == [0, 1, 0] and result["cells"][0]["states"] == {"finished": 1, "collapsed": 1}
    assert "1 of 2 seeds collapsed: not in these figures" in Path(result["report"]).read_text()


def test_absent_data_are_skipped_and_told(run_with: Any, calls: list[tuple[str, int]], capsys: Any) -> None:
    result = _fill()
    assert [(one["row"], one["dataset"]) for one in result["skipped"]] == [("plain", "coil20"), ("whole", "coil20")]
    assert "coil-20-proc is missing" in result["skipped"][0]["reason"]
    assert "plain/coil20 skipped: coil20: " in capsys.readouterr().err and len(calls) == 4
    assert [cell["dataset"] for cell in result["cells"]] == ["digits", "digits"]


def test_other_samples_do_not_extend_a_cell(run_with: Any, calls: list[tuple[str, int]]) -> None:
    folder = Path(_fill("plain/digits")["cells"][0]["folder"])
    facts = json.loads((folder / "cell.json").read_text())
    facts["data"]["fingerprint"] = "other"
    (folder / "cell.json").write_text(json.dumps(facts))
    result = _fill("plain/digits", seeds=3)
    assert "the samples are not those that" in result["skipped"][0]["reason"] and len(calls) == 2


def test_a_cell_that_another_process_runs_is_skipped(run_with: Any, calls: list[tuple[str, int]]) -> None:
    folder = Path(_fill("plain/digits", seeds=1)["cells"][0]["folder"])
    with FileLock(folder / "driver.lock"):
        result = _fill(*DIGITS)
    assert result["skipped"] == [{"row": "plain", "dataset": "digits", "reason": "another process is running it"}]
    assert calls[1:] == [("whole/digits", 0), ("whole/digits", 1)]


def test_small_datasets_come_first(run_with: Any) -> None:
    request = StabilityRequest("tiny.yaml", {}, "storage", "data")
    names = [cell.name for cell in make_cells(load_table("tiny.yaml"), request)]
    assert names == ["plain/coil20", "whole/coil20", "plain/digits", "whole/digits"]  # 1440 and 1437 + 360 samples


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"only": ("plan/digits",)}, "--only plan/digits: no cell; did you mean plain/digits?"),
    (
        {"only": ("other/*",)},
        "--only other/*: no cell but what is quoted (rows: plain, whole; datasets: digits, coil20",
    ),
    ({"overrides": {"heads.eps": 0.1}}, "unknown key heads.eps of nmce; did you mean heads.eps_sq?"),
    ({"overrides": {"finetune.epochs": 1}}, "plain/coil20: finetune.epochs is what the row is about (0)"),
    ({"overrides": {"heads.eps_sq": -1}}, "heads.eps_sq: -1 is not above 0"),
    ({"overrides": {"seed": 1}}, "the first one is --seed"),
    ({"seeds": 0}, "--seeds 0: at least 1 is needed"),
    ({"storage": "s3://bucket"}, "the results of tables may not; give a folder"),
]


@pytest.mark.parametrize(("changes", "told"), WRONG)
def test_all_is_checked_before_anything_is_written(run_with: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        _fill(**{"only": (), **changes} if "only" not in changes else changes)
    assert told in str(refused.value)
    assert not Path("storage").exists() and not Path("reports").exists() and not FakeTracker.begun


def _command(*words: str) -> int:
    return execute(door.parser(), door.run, [*words, "--storage", "storage", "--data", "data", "--json"])


def test_the_command(run_with: Any, capsys: Any, calls: list[tuple[str, int]]) -> None:
    words = ["heads.eps_sq=0.3", "--table", "tiny.yaml", "--seeds", "1", "--only", "plain/digits", "wh*/digits"]
    assert _command(*words, "seeds_from=pretrain") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    assert [cell["overrides"] for cell in result["cells"]] == [{"heads.eps_sq": 0.3, "seeds_from": "pretrain"}] * 2
    assert "with `heads.eps_sq=0.3`" in shown.out and "vary every stage from `pretrain` on" in shown.out
    assert "tiny: whole/digits, cell 2 of 2" in shown.err and len(calls) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nmce_digits", "--table", "gcml1"), "give nmce_digits or --table gcml1, not both"),
        (("--table", "tiny.yaml", "--vs", "nmce_digits"), "give --vs or --table tiny.yaml, not both"),
        ((), "name a search space or a study, or a table by --table"),
        (("nmce_digits", "--only", "*/usps"), "--only picks cells of a table"),
        (("--table", "gcml9"), "unknown table gcml9; did you mean gcml"),
    ],
)
def test_what_the_command_refuses(run_with: Any, capsys: Any, words: tuple[str, ...], told: str) -> None:
    assert _command(*words) == 2
    shown = capsys.readouterr()
    assert told in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_ctrl_c_tells_the_command_that_goes_on(run_with: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str, seed: int) -> None:
        raise KeyboardInterrupt

    run_with(stop)
    monkeypatch.delenv("RAYMC_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["stability", "--table", "tiny.yaml"])
    assert _command("--table", "tiny.yaml", "--only", "*/digits") == 130
    assert (
        f"go on with: cd {Path.cwd()} && {sys.executable} -m raymc.stability --table tiny.yaml"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_two_cells_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    new_database(tmp_path)
    common = ("--table", "tiny.yaml", "--storage", "storage")
    words = ("stability", "--smoke", "--seeds", "2", "--only", "*/digits", *common)
    result = command(*words)
    assert [(cell["row"], cell["seeds"], cell["smoke"]) for cell in result["cells"]] == [
        ("plain", [0, 1], True), ("whole", [0, 1], True)
    ]  # fmt: skip
    again = command(*words)
    assert again["cells"] == result["cells"] and "started" not in again["told"]
    told = command("report", *common)
    assert told["cells"] == {"run": 2, "of": 4} and "(2, smoke)" in told["told"]
    mean = result["cells"][0]["acc"]["mean"]
    assert f"{mean:.4f} ± " in Path(told["report"]).read_text()
