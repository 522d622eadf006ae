"""No password and no token in what is printed or recorded, however oddly it is written."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raymc.cli import execute, make_parser
from raymc.errors import InputError, Interrupted
from raymc.masking import masked, masked_words
from raymc.reporting.search.facts import without_secrets
from raymc.tracking.client import _line
from raymc.tracking.uri import resolve

ODD = ["plain", "p%40ss%2Fword", "p@ss", "p@ss/w:rd", "a?b=c", "a#b", "$'!\"", "s" * 400]
"""Passwords, percent-encoded and as nobody should write them."""

PLACES = [
    "http://me:{}@host:5000/mlflow",
    "postgresql+psycopg2://me:{}@host:5432/mlflow?sslmode=require",
    "mysql+pymysql://me:{}@host/db",
    "s3://KEYID:{}@bucket/raymc",
    "--tracking-uri=https://me:{}@host",
]
WITHOUT_QUOTES = [
    "http://{}@host/p",
    "s3://bucket/x?token={}&region=eu",
    "postgresql+psycopg2:///m?host=/run&password={}",
]
WITHOUT_QUOTES += ["https://host/x?X-Amz-Signature={}#top", "gs://bucket?api_key={}", "abfs://c@account?sig={}"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", ODD)
def test_a_password_goes_and_the_rest_stays(place: str, secret: str) -> None:
    uri, shown = place.format(secret), place.format("***")
    assert masked(uri) == shown and masked(shown) == shown
    assert masked(f"no answer from {uri} today") == f"no answer from {shown} today"
    assert masked_words(["tune", uri]) == ["tune", shown]


@pytest.mark.parametrize("place", WITHOUT_QUOTES)
def test_a_token_goes(place: str) -> None:
    assert masked(place.format("hunter2")) == place.format("***")


def test_figures_before_a_slash_are_a_port_of_a_web_server_and_a_password_of_a_database() -> None:
    assert masked("http://host:5000/runs@x") == "http://host:5000/runs@x"
    assert masked("postgresql+psycopg2://me:12/34@host/db") == "postgresql+psycopg2://me:***@host/db"


def test_a_word_of_a_command_line_may_hold_spaces() -> None:
    assert masked_words(["postgresql://me:pass word@host/db", "a b"]) == ["postgresql://me:***@host/db", "a b"]


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/@x", "http://[::1]:5000/@x", "https://host/a@b", "sqlite:////data/a@b:c.db", "me@example.org",
        "postgresql+psycopg2://me@host/db", "s3://bucket/raymc", "first: a@b, second: c:d@e", "ratio 3:4@5",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text and masked_words([text]) == [text]


def test_reports_show_no_user_either() -> None:
    assert without_secrets("mlflow at http://me:p@ss/w@host/x?token=t") == "mlflow at http://host/x?token=***"


def test_an_error_that_is_cut_off_is_masked_first() -> None:
    error = RuntimeError(f"{'x' * 120} API request to http://me:{'hunter2' * 20}@host:5000/api failed")
    assert "hunter2" not in _line(error)


@pytest.mark.parametrize(
    "given",
    ["me:hunter2@host:5000", "ftp://me:hunter2@host", "http://me:hunter2@host:x", "postgresql://me:hunter2 @host/db"],
)
def test_a_refused_tracking_uri_is_told_without_its_password(given: str) -> None:
    with pytest.raises(InputError) as refused:
        resolve(given)
    assert "hunter2" not in str(refused.value)


def test_a_masked_uri_is_not_taken_for_one() -> None:
    with pytest.raises(InputError, match="put the password in the place of"):
        resolve("http://me:***@host:5000")


SECRET = "http://me:hunter2@host:5000"


@pytest.mark.parametrize("error", [InputError(f"1 {SECRET}"), RuntimeError(f"1 {SECRET}"), Interrupted(f"1 {SECRET}")])
def test_commands_tell_errors_without_passwords(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: Any) -> None:
        raise error

    assert execute(make_parser("tune", ""), fails, []) in (1, 2, 130)
    shown = capsys.readouterr()
    assert "hunter2" not in shown.err + shown.out and "me:***@host" in shown.err


def test_lines_that_resume_leave_the_password_to_be_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from raymc.commands import train, training
    from raymc.commands.stability import interrupted

    monkeypatch.setattr(sys, "argv", ["raymc", "digits", "--tracking-uri", "http://me:p@ss/w@host"])
    assert "p@ss" not in str(interrupted()) and "http://me:***@host" in str(interrupted())

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_train", stopped)
    out = Path(sys.argv[0])
    words = {"space": "nmce_digits", "overrides": [], "seed": 0, "out": out}
    mlflow = {"tracking_uri": None, "register": None}
    args = SimpleNamespace(
        **words, workers=None, start_from=None, data=None, storage=None, smoke=False, address=None, **mlflow
    )
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(Interrupted) as stopping:
        train.run(args)  # type: ignore[arg-type]
    assert shlex.split(str(stopping.value))[-1] == "http://me:***@host"


def test_a_resume_asks_for_the_password_and_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: no search")
    from raymc.study.request import Request, resume_line

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    request = Request("mine", {}, "storage", "data", tracking_uri="http://me:p@ss/w@host", resume=True)
    assert shlex.split(resume_line(request, "s"))[-1] == "http://me:***@host"
    with pytest.raises(InputError, match="put the password in the place of"):
        resolve(None, "http://me:***@host")
    assert resolve(None, "http://host:5000") == "http://host:5000"
