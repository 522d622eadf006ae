"""What every command shares: exit codes, one line per complaint, the JSON line, storage, the console script."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import raymc
from raymc import cli
from raymc.__main__ import COMMANDS, main
from raymc.atomic import folder_name
from raymc.commands import data
from raymc.encoders.files import elsewhere
from raymc.errors import (
    CollapsedError,
    DeviceMemoryError,
    DivergedError,
    InputError,
    Interrupted,
    RaymcError,
    TrainingError,
)
from raymc.program import HEEDED, command_line, own_command


def run_with(outcome: Mapping[str, Any] | BaseException | None, argv: list[str]) -> int:
    """The exit code of a command that ends with `outcome`."""
    parser = cli.make_parser("train", "A command.")
    parser.add_argument("space")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seed", type=int)

    def run(args: argparse.Namespace) -> Mapping[str, Any] | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return cli.execute(parser, run, argv)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"a": 1}, 0),
        (None, 0),
        (RuntimeError("a fault"), 1),
        (RaymcError("a fault"), 1),
        (InputError("a bad value"), 2),
        (TrainingError("no trial"), 3),
        (DivergedError("nan"), 3),
        (CollapsedError("one cluster"), 3),
        (DeviceMemoryError("memory"), 3),
        (Interrupted("raymc tune x --resume"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(outcome: Any, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(outcome, ["x", "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ('{"a": 1}\n' if code == 0 and outcome else "")
    assert ("Traceback" in err) == isinstance(outcome, RuntimeError)
    if isinstance(outcome, RaymcError | KeyboardInterrupt):
        assert len(err.splitlines()) == 1


def test_a_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(InputError("first\n  second"), ["x"]) == 2
    assert capsys.readouterr().err == "raymc: first second\n"


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    run_with(Interrupted("raymc tune x --resume"), ["x"])
    assert capsys.readouterr().err == "interrupted; go on with: raymc tune x --resume\n"


def test_json_is_printed_when_asked_for_and_keeps_every_digit(capsys: pytest.CaptureFixture[str]) -> None:
    run_with({"acc": 1 / 3}, ["x"])
    assert capsys.readouterr().out == ""
    run_with({"acc": 1 / 3}, ["x", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"acc": 1 / 3}


def test_a_failing_command_may_still_have_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError("2 are invalid")
    error.result = {"invalid": 2}
    assert run_with(error, ["x"]) == 2
    assert capsys.readouterr().out == ""
    assert run_with(error, ["x", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"invalid": 2}


def test_json_knows_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        run_with({"acc": float("nan")}, ["x", "--json"])


@pytest.mark.parametrize("argv", [[], ["x", "--unknown"], ["x", "--seed", "three"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with({"a": 1}, argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "--help" in err


@pytest.mark.parametrize(
    "argv",
    [["x", "a=1", "b=2", "--seed", "3"], ["x", "--seed", "3", "a=1", "b=2"], ["x", "a=1", "--seed", "3", "b=2"]],
)
def test_options_and_overrides_may_mix(argv: list[str]) -> None:
    parser = cli.make_parser("train", "A command.")
    parser.add_argument("space")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seed", type=int)
    seen: list[argparse.Namespace] = []
    assert cli.execute(parser, lambda args: seen.append(args), argv) == 0
    assert (seen[0].space, seen[0].overrides, seen[0].seed) == ("x", ["a=1", "b=2"], 3)


def test_a_termination_is_as_orderly_as_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run(args: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt as error:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
            raise Interrupted("raymc tune x --resume") from error

    assert cli.execute(cli.make_parser("train", "A command."), run, []) == 143
    assert capsys.readouterr().err == "interrupted; go on with: raymc tune x --resume\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_comes_in_a_finalizer_is_not_lost(number: int, code: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it

    class Finalized:
        def __del__(self) -> None:  # what is raised here Python prints and drops
            os.kill(os.getpid(), number)
            time.sleep(1)

    def run(args: argparse.Namespace) -> None:
        Finalized()
        time.sleep(60)

    try:
        assert cli.execute(cli.make_parser("train", "A command."), run, []) == code
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_line_to_paste_names_the_program_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "raymc"
    script.parent.mkdir()
    script.touch(0o755)
    python, words = sys.executable, ["a b", "--tracking-uri", "http://me:secret@host"]
    told = "'a b' --tracking-uri 'http://me:***@host'"
    for started, path, expected in (
        ([python, str(script), "tune"], str(script.parent), f"raymc tune {told}"),
        ([python, str(script), "tune"], "/nowhere", f"{script} tune {told}"),
        ([python, "-u", str(script), "tune"], str(script.parent), f"raymc tune {told}"),
        ([python, "-m", "raymc.tune"], str(script.parent), f"{python} -m raymc.tune {told}"),
        ([python, "-m", "raymc", "tune"], "/nowhere", f"{python} -m raymc.tune {told}"),
        ([python, "-c", "…"], "/nowhere", f"{python} -m raymc.tune {told}"),
    ):
        monkeypatch.setattr(sys, "orig_argv", started)
        monkeypatch.setenv("PATH", path)
        assert command_line("tune", words) == expected


def test_the_own_command_is_for_any_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, python = tmp_path / "raymc", sys.executable
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    for name in HEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYMC_STORAGE", "a b")
    monkeypatch.setenv("RAYMC_DATABASE", "postgresql://me:secret@host/db")
    monkeypatch.setenv("PATH", "/nowhere")
    for started, expected in (
        ([python, str(script), "tune", "x y"], f"{script} tune 'x y'"),
        ([python, "-m", "raymc.tune", "--name", "-m"], f"{python} -m raymc.tune --name -m"),
        ([python, "-m", "raymc", "tune", "x"], f"{python} -m raymc.tune x"),
        ([python, "-m", "pytest", "raymc"], ""),
        ([python, "mine.py", "tune"], ""),
        ([python], ""),
    ):
        monkeypatch.setattr(sys, "orig_argv", started)
        assert own_command() == (expected and f"cd {tmp_path} && RAYMC_STORAGE='a b' {expected}")


PORTABLE = {  # pages that go to others, and the names of commands in usage lines
    "raymc/training/cards.py",
    "raymc/commands/checkpoint.py",
    "raymc/commands/completion.py",
}


def test_no_command_is_printed_but_by_the_program_that_was_started() -> None:
    """No text of the source or of a page's template spells a command out: `raymc.program` does."""
    spelled = re.compile(rf"\b(?:python -m raymc|raymc[ .](?:{'|'.join(COMMANDS)})(?![\w.]))")
    found = []
    for path in sorted(Path(raymc.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        doc = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in doc)
        found += [path for node in texts if isinstance(node.value, str) and spelled.search(node.value)]
    pages = Path(raymc.__file__).parent.glob("reporting/templates/*")
    lines = [(path, line) for path in pages for line in path.read_text().splitlines()]
    found += [path for path, line in lines if spelled.search(line) and not re.search("block title|eyebrow", line)]
    assert {path.relative_to(Path(raymc.__file__).parents[1]).as_posix() for path in found} == PORTABLE


def test_a_hint_names_the_program_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "raymc.embed", "a"])
    start = f"{sys.executable} -m raymc"
    assert elsewhere("timm:a").endswith(f": {start}.embed DATA --encoder timm:a --download")
    with pytest.raises(InputError, match=re.escape(f"({start}.data --help lists the options)")):
        cli.make_parser("data", "").parse_args(["--nope"])


def test_completion_knows_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    monkeypatch.setattr(sys, "argv", ["raymc", "completion", "bash"])
    assert main() == 0
    out = capsys.readouterr().out
    assert all(f"'{name}'" in out or f"_{name}_" in out for name in COMMANDS) and "--resume" in out


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nmce_digits", "nmce_digits"),
        ("my search (2)", "my-search-2"),
        ("мой поиск 🎉", "мой-поиск"),
        ("🎉", "study"),
        ("-_.x", "x"),
        ("é" * 100, "é" * 30),
        ("a/b\nc", "a-b-c"),
    ],
)
def test_a_name_of_any_text(text: str, name: str) -> None:
    assert folder_name(text) == name


def test_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYMC_STORAGE", raising=False)
    asked = argparse.Namespace(storage=None)
    assert cli.storage_root(asked) == str(tmp_path.resolve() / "raymc-storage")
    monkeypatch.setenv("RAYMC_STORAGE", "elsewhere")
    assert cli.storage_root(asked) == str(tmp_path.resolve() / "elsewhere")
    assert cli.storage_root(argparse.Namespace(storage="s3://bucket/place")) == "s3://bucket/place"
    deep = argparse.Namespace(storage="new/and/deep")
    assert cli.storage_root(deep) == str(tmp_path.resolve() / "new/and/deep"), "below the working folder"
    with pytest.raises(InputError, match="^--storage /no/deep/dir: there is no folder /no; make it, or name"):
        cli.storage_root(argparse.Namespace(storage="/no/deep/dir"))
    monkeypatch.setenv("RAYMC_STORAGE", "/no/deep/dir")
    with pytest.raises(InputError, match="^RAYMC_STORAGE /no/deep/dir: there is no folder /no"):
        cli.storage_root(asked)
    with pytest.raises(InputError, match="^--data /no/deep/dir: there is no folder /no"):
        data.run(data.parser().parse_args(["get", "mnist", "--data", "/no/deep/dir"]))


@pytest.mark.parametrize("word", [word for word in COMMANDS if word != "completion"])
def test_every_command_has_its_entry_point(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"raymc.commands.{word}")
    assert callable(module.run)
    parser = module.parser()
    assert parser.prog == f"python -m raymc.{word}"
    with pytest.raises(SystemExit) as ended:
        cli.execute(parser, module.run, ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown and "--version" in shown
    assert ("--smoke" in shown) == (word in "cluster tune train predict stability embed checkpoint".split())
    assert ("--data " in shown) == (word not in ("studies", "report"))
    assert ("--storage" in shown) == (word != "data")


def test_the_console_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def called(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raymc", *words])
        return main(), *capsys.readouterr()

    code, out, err = called("tuen", "nmce_digits")
    assert code == 2 and out == "" and err.startswith("raymc: unknown command tuen; did you mean tune?\nusage: ")
    code, out, err = called()
    assert code == 2 and err.startswith("usage: raymc {cluster,tune,") and out == ""
    code, out, err = called("--help")
    assert code == 0 and out.startswith("usage: raymc {cluster,tune,") and err == ""
    assert all(f"\n  {name} " in out and words in out for name, words in COMMANDS.items())
    assert called("--version") == (0, f"raymc {raymc.__version__}\n", "")
    code, out, err = called("check", "no_such_space", "--json")
    assert code == 2 and json.loads(out.splitlines()[-1])["spaces"][0]["valid"] is False
