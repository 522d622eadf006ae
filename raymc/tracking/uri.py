"""Where MLflow is: a tracking URI from the command line, the environment or the working folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from raymc.errors import InputError, check_parent
from raymc.masking import DATABASES, HIDDEN, masked

_EXAMPLES = "sqlite:///mlflow.db, http://host:5000, postgresql+psycopg2://user@host/mlflow"


def default_uri() -> str:
    """A SQLite file in the working folder, by its absolute path."""
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def resolve(given: str | None, before: str | None = None) -> str:
    """The tracking URI: `given`, else MLFLOW_TRACKING_URI, else `before`, else `default_uri`.

    A SQLite path becomes absolute. `before` is where a study was tracked, without its password, which is not kept.
    Nothing is contacted and nothing written. Raises InputError for a URI that MLflow would not understand, or a SQLite
    file that cannot be written.
    """
    Path.home()  # MLflow asks for it when it is imported: what is wrong is said before anything is written
    uri = (given or os.environ.get("MLFLOW_TRACKING_URI") or before or default_uri()).strip()
    scheme, mark, _ = uri.partition("://")
    if not mark:
        raise InputError(_no_scheme(masked(f"http://{uri}").removeprefix("http://")))
    if HIDDEN in uri:
        raise InputError(f"tracking URI {masked(uri)}: put the password in the place of {HIDDEN}, which is not kept")
    if scheme == "sqlite":
        return _checked_sqlite(uri, asked=uri != (before or default_uri()).strip())
    if scheme in ("http", "https"):
        return _checked_server(uri)
    if scheme.partition("+")[0] in DATABASES or scheme == "databricks":
        if any(c.isspace() for c in uri):
            raise InputError(f"tracking URI {scheme}://…: it holds a space (write %20)")
        return uri
    raise InputError(f"tracking URI {masked(uri)}: unknown scheme {scheme} (known: {_EXAMPLES})")


def database_file(uri: str) -> Path | None:
    """The file of a `sqlite:///` URI, None for any other."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _no_scheme(uri: str) -> str:
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"tracking URI {uri}: write http://{uri}"
    return f"tracking URI {uri}: MLflow keeps runs in a database or on a server (for instance {_EXAMPLES})"


def _checked_server(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or any(c.isspace() for c in uri):
        raise InputError(f"tracking URI {masked(uri)}: not a server's address (write http://host:5000)")
    return uri.rstrip("/")


def _checked_sqlite(uri: str, asked: bool) -> str:
    text = uri.removeprefix("sqlite:///")
    if text == uri or not text or text.endswith("/") or ":memory:" in text:
        raise InputError(f"tracking URI {uri}: not a SQLite file (write sqlite:///mlflow.db)")
    file = Path(os.path.abspath(Path(text).expanduser()))
    if set("?%") & set(str(file)):
        raise InputError(f"tracking URI {uri}: MLflow opens no database whose path has a ? or %")
    _check_writable(file)
    if asked:
        check_parent(file, f"tracking URI {uri}")
    return f"sqlite:///{file}"


def _check_writable(file: Path) -> None:
    if file.exists():
        if not file.is_file() or not os.access(file, os.R_OK | os.W_OK):
            raise InputError(f"tracking: {file} is not a file that can be written")
        with file.open("rb") as content:
            if content.read(15) not in (b"", b"SQLite format 3"):
                raise InputError(f"tracking: {file} is not an SQLite database")
    folder = next(parent for parent in file.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"tracking: {folder} cannot be written, so no {file.name} there")
