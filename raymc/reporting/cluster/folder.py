"""The folder that `raymc cluster` writes into: made, or refused, before anything is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raymc.errors import InputError, unwritable
from raymc.stability.side_by_side import Source
from raymc.study.files import load_json

SCORES_FILE = "arms.json"


def make_folder(out: Path, source: Source, default: bool) -> None:
    """Make the folder `out` before anything is trained.

    Raises InputError where it cannot be made or written in, or where the user did not name it (`default`) and it has
    the results of other data.
    """
    before = load_json(out / SCORES_FILE) or {}
    theirs = {key: before.get(key) for key in source.origin}
    if default and theirs["data"] is not None and theirs != source.origin:
        by = f" by {theirs['encoder']}" if theirs["encoder"] else ""
        raise InputError(f"{out} holds the results of {theirs['data']}{by}; give --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise unwritable(out, error, not default) from error
