"""Tracking URIs: where they come from, what is refused in one line, what is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymc.errors import InputError
from raymc.masking import masked
from raymc.tracking.uri import database_file, resolve


def test_the_default_is_a_database_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/")
    assert resolve(None) == "http://host:5000"
    assert resolve("sqlite:///runs/a b.db") == f"sqlite:///{tmp_path}/runs/a b.db"
    gone = "sqlite:////nonexistent/dir/x.db"
    with pytest.raises(InputError, match=f"^tracking URI {gone}: there is no folder /nonexistent; make"):
        resolve(gone)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert resolve(None, gone) == gone, "where a study was tracked before"
    assert database_file(resolve("sqlite:///x.db")) == tmp_path / "x.db"


@pytest.mark.parametrize(
    "uri", ["http://host:5000/mlflow", "https://me:secret@host", "postgresql+psycopg2://u:p@h/db", "databricks://me"]
)
def test_servers_and_databases_are_taken_as_they_are(uri: str) -> None:
    assert resolve(uri) == uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("localhost:5000", "write http://localhost:5000"),
        ("mlruns", "a database or on a server"),
        ("http://", "not a server's address"),
        ("http://:5000", "not a server's address"),
        ("http://host:port", "not a server's address"),
        ("http://host name", "not a server's address"),
        ("ftp://host", "unknown scheme ftp"),
        ("file:///tmp/mlruns", "unknown scheme file"),
        ("sqlite://mlflow.db", "not a SQLite file"),
        ("sqlite:///", "not a SQLite file"),
        ("sqlite:///:memory:", "not a SQLite file"),
        ("sqlite:///a%20b.db", "a . or %"),
    ],
)
def test_what_mlflow_would_not_understand_is_refused(uri: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        resolve(uri)


def test_a_database_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        resolve(f"sqlite:///{tmp_path}/file/mlflow.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a file"):
        resolve(f"sqlite:///{tmp_path}/folder")
    (tmp_path / "text.db").write_text("no database, no database")
    with pytest.raises(InputError, match="not an SQLite database"):
        resolve(f"sqlite:///{tmp_path}/text.db")
    # Whoever runs the tests as root may write everywhere, so the system's answer is put in.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written, so no mlflow.db there"):
        resolve(f"sqlite:///{tmp_path}/new/mlflow.db")


def test_passwords_are_not_shown() -> None:
    assert masked("at postgresql://me:secret@host/db and http://a:b@c:5000/d") == (
        "at postgresql://me:***@host/db and http://a:***@c:5000/d"
    )
    assert masked("http://host:5000/@x") == "http://host:5000/@x"
