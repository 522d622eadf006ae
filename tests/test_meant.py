"""A name that is none, data in a space file's place, a folder that cannot be written: what exists, what was meant."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from raymc.cli import execute
from raymc.config import LISTED, hint

SPACE = """
method: gcml
dataset: {path: rows.csv, label: kind}
fixed: {backbone: dense_256, pretrain.epochs: 1, finetune.epochs: 1, n_clusters: 2}
"""
CHANGED = {
    "method": ("method: gcml", "method: mcl", "unknown method mcl; did you mean mlc?"),
    "far": ("method: gcml", "method: xxxxxx", "unknown method xxxxxx (there are: nmce, mlc, gcml, plain, turtle)"),
    "plain": ("method: gcml", "method: hdbscan", "unknown method hdbscan; write method: plain and preset: hdbscan"),
    "preset": ("fixed:", "preset: xyz\nfixed:", "unknown preset xyz (there are: tuned, published,"),
    "data": ("{path: rows.csv, label: kind}", "rows.csv", "a file of your own is named by its path: {path: rows.csv}"),
    "photos": ("{path: rows.csv, label: kind}", "photos", "a file of your own is named by its path: {path: photos}"),
    "dataset": ("{path: rows.csv, label: kind}", "qqqq", "unknown dataset qqqq (there are: "),
    "section": ("fixed:", "qqqq: 1\nfixed:", "unknown key qqqq (there are: method, dataset, "),
    "column": ("label: kind", "label: zzzz", "rows.csv has no column zzzz (there are: a, b, kind)"),
    "point": ("n_clusters: 2", "n_clusters: 500", "at the preset: 12 points cannot have 500 clusters"),
    "corner": (", n_clusters: 2}", "}\nspace: {n_clusters: {low: 2, high: 500}}", "at high (n_clusters=500): 12"),
}  # fmt: skip
"""What is changed in the space file, and what `check` says of it."""
ASKED = {
    "train rows.csv": "rows.csv is data, not a search space: ",
    "tune rows.csv": "raymc.cluster rows.csv clusters data, and a space file names them by dataset: {path: rows.csv}",
    "stability iris.csv": "iris.csv is not there, and would be data, not a search space: ",
    "train photos": "photos is a folder, not a search space: ",
    "report zzz --storage some": "no study zzz in some/studies (there are: alpha, beta)",
    "studies show zzz --storage some": "some/studies (there are: alpha, beta)",
    "tune mine.yaml --resume --name zzz --storage some": "some/studies (there are: alpha, beta)",
    "report zzz --storage none": "no study zzz: there is none in none/studies; --storage or RAYMC_STORAGE says where",
    "predict zzz rows.csv --storage none": "there is none in none/studies",
    "train mine.yaml": "without --out results go to the working folder",
    "cluster rows.csv --clusters 2": "without --out results go to the working folder",
    "train mine.yaml --out taken/x": "--out ",
    "report alpha --storage some": "reports/alpha cannot be written: Not a directory; without --out",
    "stability mine.yaml --seeds 1 --storage taken": "reports are written to the working folder, and reports cannot",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYMC_STORAGE", raising=False)
    Path("rows.csv").write_text("a,b,kind\n" + "".join(f"{i % 5}.5,{i * i % 7},{'uv'[i % 2]}\n" for i in range(12)))
    Path("mine.yaml").write_text(SPACE)
    Path("photos").mkdir()
    for taken in ("runs", "reports", "taken"):
        Path(taken).touch()  # no folder can be made there; permissions do not bind an administrator
    for name in ("alpha", "beta"):
        Path("some/studies", name).mkdir(parents=True)
        Path("some/studies", name, "study.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("what", CHANGED)
def test_check_says_what_there_is(what: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, told = CHANGED[what]
    Path("mine.yaml").write_text(SPACE.replace(before, after))
    check = importlib.import_module("raymc.commands.check")
    assert execute(check.parser(), check.run, ["mine.yaml"]) == 2
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("line", ASKED)
def test_a_refusal_says_what_was_meant(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *words = line.split()
    if name in ("cluster", "stability"):
        pytest.importorskip("optuna", reason="optuna is not installed: no search")
    door = importlib.import_module(f"raymc.commands.{name}")
    assert execute(door.parser(), door.run, words) == 2
    out, err = capsys.readouterr()
    assert ASKED[line] in err.replace(f"{here}/", "") and err.count("\n") == 1 and not out


def test_long_lists_are_cut() -> None:
    many = [f"c{i}" for i in range(LISTED + 1)]
    assert hint("zz", many[:1]) == " (there is: c0)" and hint("zz", []) == ""
    assert hint("zz", many) == f" (there are: {', '.join(many[:12])}, and {LISTED - 11} more)"
    assert hint("c1", many) == "; did you mean c1?"
