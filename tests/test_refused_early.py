"""A name that is none is refused before anything large is imported: within two seconds, not ten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raymc.cli import execute
from raymc.commands import stability, train
from raymc.study.names import check_target

HEAVY = ("torch", "optuna", "ray", "mlflow", "sklearn")
SCRIPT = f"""
import importlib, json, sys
from raymc.cli import execute
for words in json.loads(sys.argv[1]):
    command = importlib.import_module("raymc.commands." + words[0])
    code = execute(command.parser(), command.run, words[1:])
    print(json.dumps([code, [name for name in {HEAVY} if name in sys.modules]]))
"""


def test_a_study_that_is_called_like_a_space_is_taken_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mlc_digits", "some"):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.json").write_text("{}")
    monkeypatch.setattr("raymc.commands.stability.stability", lambda request: {})
    monkeypatch.setattr("raymc.commands.training.train_one", lambda args: {})
    for command in (train, stability):
        for words, said in ((["mlc_digits"], True), (["some"], False), (["nmce_digits"], False)):
            assert execute(command.parser(), command.run, [*words, "--storage", str(tmp_path)]) == 0
            assert ("the study's winner is taken, not" in capsys.readouterr().err) == said
            assert check_target(words[0], str(tmp_path)) == (words != ["nmce_digits"]), "one rule for both"


def test_a_name_that_is_none_costs_no_large_import(tmp_path: Path) -> None:
    (tmp_path / "studies/some").mkdir(parents=True)
    (tmp_path / "studies/some/study.json").write_text('{"space": {"name": "mlc_digits"}}')
    torn = str(tmp_path / "torn.yaml")
    Path(torn).write_text("method: plain\ndataset: digits\nspace: [\n")
    lines = {
        ("studies", "delete", "sone"): "no study sone in",
        ("studies", "show", "sone"): "did you mean some?",
        ("studies", "export", "sone"): "no study sone in",
        ("report", "sone"): "no study sone in",
        ("tune", "nosuchspace", "--name", "sone", "--resume"): "no study sone in",
        ("tune", "nosuchspace", "--resume"): "no study of nosuchspace in",
        ("tune", "mlc_digits", "--resume=auto"): "--resume=auto needs --name",
        ("train", "sone"): "is called sone; did you mean some?",
        ("stability", "sone"): "is called sone; did you mean some?",
        ("stability", "mlc_digits", "--vs", "hdbscn"): "is called hdbscn; did you mean hdbscan",
        ("tune", torn): f"{torn}: line 4: ",
        ("train", torn): f"{torn}: line 4: ",
        ("stability", torn): f"{torn}: line 4: ",
        ("checkpoint", torn, "--out", "x"): f"{torn}: line 4: ",
        ("train", "mlc_digits", "heads.eta"): "heads.eta",
        ("cluster", "none.csv"): "none.csv is missing; expected: ",
        ("embed", "none.csv", "--encoder", "y"): "none.csv is missing; expected: ",
        ("embed", "x", "--encoder", "y", "--out", "z.csv"): "z.csv: expected: ",
        ("embed", "x", "--encoder", "y", "--precision", "z"): "--precision: invalid choice",
        ("data", "get"): "get: which dataset?",
    }
    words = json.dumps([[*line, *([] if line[0] == "data" else ["--storage", str(tmp_path)])] for line in lines])
    done = subprocess.run([sys.executable, "-c", SCRIPT, words], capture_output=True, text=True, check=True)
    told = done.stderr.splitlines()
    for command, found, said in zip(lines, done.stdout.splitlines(), told, strict=True):
        assert json.loads(found) == [2, []] and lines[command] in said, (command, found, said)


def test_what_is_named_without_its_module_is_what_that_has() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: no search")
    from raymc.commands import embed
    from raymc.stability.configurations import PLAIN
    from raymc.training.features.stage import TYPES

    assert stability.PLAIN == tuple(PLAIN) and embed.PRECISIONS == tuple(TYPES)
