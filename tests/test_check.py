"""`raymc.check`: what it says of good, bad and unchecked spaces, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raymc.cli import execute
from raymc.commands import check, matrix
from raymc.datasets import load
from raymc.errors import DivergedError
from raymc.methods import METHODS
from raymc.space.space import load_space, space_names

HEAD = "method: nmce\ndataset: digits\n"


def checked(*words: str) -> int:
    return execute(check.parser(), check.run, list(words))


def test_a_good_space_takes_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked("nmce_digits", "--json") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    (verdict,) = json.loads(out)["spaces"]
    assert verdict["name"] == "nmce_digits" and verdict["valid"] and verdict["stepped"]
    assert verdict["why"] is None
    assert verdict["points"] == ["preset", "low", "high", "first 1"]
    assert "nmce_digits  ok       one step of each stage at preset, low, high" in err


def test_every_point_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = load_space("nmce_digits")
    seen: list[Any] = []
    monkeypatch.setattr("raymc.training.smoke.one_step", lambda config, dataset: seen.append(config))
    titles = check.take_steps(space, load("digits"))
    assert titles[:3] == ["preset", "low", "high"] and len(titles) == len(set(titles))
    wanted = {title: space.config(params=point) for title, point in space.corners().items()}
    assert seen == [wanted[title] for title in titles]
    assert all(config in seen for config in wanted.values())
    assert len(seen) == sum(config not in seen[:at] for at, config in enumerate(seen))


def test_bad_spaces_are_named_and_the_others_are_checked_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(HEAD + "space: {heads.eps_sq: {low: 2, high: 1}}\n")
    assert checked(str(bad), "no_such_space", "nmce_digits", "--json") == 2
    out, err = capsys.readouterr()
    verdicts = json.loads(out)["spaces"]
    assert [verdict["valid"] for verdict in verdicts] == [False, False, True]
    assert verdicts[0]["why"] == f"{bad}: space.heads.eps_sq: low 2 is not below high 1"
    assert verdicts[1]["why"].startswith("unknown search space no_such_space")
    assert err.splitlines()[-1] == f"raymc: 2 of 3 spaces are invalid: {bad}, no_such_space"


def test_without_the_data_a_space_is_only_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked("nmce_coil20", "--data", str(tmp_path), "--json") == 0
    (verdict,) = json.loads(capsys.readouterr().out)["spaces"]
    assert verdict["valid"] and not verdict["stepped"]
    assert str(tmp_path) in verdict["why"], "it names the file that is missing"


def test_a_point_that_does_not_train_makes_a_space_invalid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    high = load_space("nmce_digits")
    wrong = high.config(params=high.corners()["high"])

    def one_step(config: Any, dataset: Any) -> None:
        if config == wrong:
            raise DivergedError("stage heads: the loss is not finite")

    monkeypatch.setattr("raymc.training.smoke.one_step", one_step)
    assert checked("nmce_digits") == 2
    told = capsys.readouterr().out
    assert "nmce_digits  INVALID  at high (" in told and "the loss is not finite" in told


def test_a_backbone_that_does_not_fit_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + "fixed: {backbone: no_such_net}\n")
    assert checked(str(path)) == 2
    assert "no_such_net" in capsys.readouterr().out


def test_remarks_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + "fixed: {seeds_from: finetune}\nspace: {heads.eps_sq: {low: 0.001, high: 100}}\n")
    assert checked(str(path)) == 0
    assert "note     seeds_from finetune comes after heads" in capsys.readouterr().out


def test_all_spaces_by_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def examine(name: str, data: str | None, storage: str) -> dict[str, Any]:
        asked.append(name)
        return {"name": name, "valid": True, "stepped": False, "why": "not looked at", "remarks": []}

    monkeypatch.setattr(check, "examine", examine)
    monkeypatch.setattr(check, "_matrix", lambda data, out: print("the matrix", file=out) or [])
    assert checked() == 0
    assert asked == space_names()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(asked) + 1 and lines[-1] == "the matrix"


def test_the_matrix_of_methods_and_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs no files is present; what cannot be says why in one line, and is no error."""
    known = matrix.present(str(tmp_path))
    assert {"digits", "sphere"} <= set(known) and "usps" not in known
    monkeypatch.setattr(matrix, "present", lambda data: ["digits", "sphere"])
    assert checked("--matrix", "--data", str(tmp_path), "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    cells = {(cell["dataset"], cell["method"]): cell for cell in result["matrix"]}
    assert result["spaces"] == [] and set(cells) == {(d, m) for d in ("digits", "sphere") for m in METHODS}
    assert all(cells["digits", method]["ok"] for method in ("nmce", "mlc", "gcml")) and cells["sphere", "mlc"]["ok"]
    assert all(cell["ok"] == (cell["why"] is None) for cell in cells.values())
    told = err.splitlines()
    assert told[0].split() == ["dataset", *METHODS] and told[1].split()[0] == "digits"
    failed = [f"{m} on {d}: {cell['why']}" for (d, m), cell in cells.items() if not cell["ok"]]
    assert sorted(told[3:]) == sorted(failed), "one line each"
    assert checked("--matrix", "nmce_digits") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_one_step_of_every_space_whose_data_are_here(
    name: str, need_data: Callable[[str], Path], tmp_path: Path
) -> None:
    verdict = check.examine(name, str(need_data(".")), str(tmp_path))
    assert verdict["valid"], verdict["why"]
    if not verdict["stepped"]:
        pytest.skip(verdict["why"])
