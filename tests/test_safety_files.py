"""Files that a stranger could hand over: none runs anything, reads or writes elsewhere, or stops what is good."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymc.errors import InputError
from raymc.space.space import load_space
from raymc.storage.stage_store import Store
from raymc.study.files import read_json
from raymc.training.outputs import read_labels

KEY = "0" * 16


class Harm:
    """Makes the file `harm` in the working folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm"),))


@pytest.fixture(autouse=True)
def unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harm").exists()


def _publish(root: Path, payload: bytes, file: str = "result-0.pt") -> Path:
    """A stage's result as a stranger would put it into the store, with the hash that belongs to it."""
    folder = root / "stages" / KEY
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"file": file, "sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload), "meta": {}}
    (folder / "result.json").write_text(json.dumps(facts))
    return folder


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("content", [Harm(), {"weights": Harm()}, {"weights": torch.nn.Linear(1, 1)}])
def test_a_stage_that_holds_more_than_tensors_is_not_loaded_and_is_replaced(tmp_path: Path, content: object) -> None:
    payload = _saved(content)
    (_publish(tmp_path, payload) / "result-0.pt").write_bytes(payload)
    store = Store(str(tmp_path))
    assert store.load(KEY) is None
    store.save(KEY, {"weights": {"w": torch.ones(2)}}, {})
    entry = store.load(KEY)
    assert entry is not None and not (tmp_path / "stages" / KEY / "result-0.pt").exists()


@pytest.mark.parametrize("file", ["../../mine.pt", "../result.json", "..", "/mine.pt", "a\\..\\b"])
def test_a_stage_leads_to_no_file_elsewhere(tmp_path: Path, file: str) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(_saved({"weights": {"w": torch.zeros(1)}}))
    _publish(tmp_path, mine.read_bytes(), file)
    store = Store(str(tmp_path))
    assert store.load(KEY) is None
    store.discard(KEY, "result")
    store.save(KEY, {"weights": {"w": torch.ones(1)}}, {})
    assert mine.exists() and store.load(KEY) is not None


@pytest.mark.parametrize("name", ["labels.npz", "gallery.npz"])
def test_objects_among_a_trainings_arrays_are_not_made(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / name, allow_pickle=True, labels=np.asarray([Harm()], object))
    assert read_labels(tmp_path) == {}


@pytest.mark.parametrize(
    "text",
    [
        "dataset: !!python/object/apply:pathlib.Path.touch [harm]",
        "dataset: !!python/object/apply:os.system ['touch harm']",
        "dataset: !!python/name:os.system",
        "dataset: !!python/module:os",
    ],
)
def test_a_space_file_makes_no_objects(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"method: nmce\n{text}\n")
    with pytest.raises(InputError, match="could not determine a constructor for the tag"):
        load_space("mine.yaml")


def test_a_manifest_is_json_and_nothing_else(tmp_path: Path) -> None:
    for content in (b"\x80\x04\x95", b"[1]", b'{"a": ', b"!!python/name:os.system"):
        (tmp_path / "study.json").write_bytes(content)
        assert read_json(tmp_path / "study.json") is None
