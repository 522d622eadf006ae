"""The stage store: what it returns is whole and ours, whatever was killed while writing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as pa_fs

from raymc.errors import InputError, StorageLostError
from raymc.storage import lease as lease_module
from raymc.storage import objects, stage_store
from raymc.storage.objects import write
from raymc.storage.stage_store import Store

KEY = "0123456789abcdef"


def _state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"w": torch.full((3,), value)}}


def _payload(root: Path) -> Path:
    (payload,) = (root / "stages" / KEY).glob("result-*.pt")
    return payload


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.load(KEY) is None
    store.save(KEY, _state(2.0), {"stage": "pretrain", "curve": [{"loss": 1.5}]})
    entry = Store(str(tmp_path)).load(KEY)
    assert entry is not None
    assert torch.equal(entry.state["weights"]["w"], torch.full((3,), 2.0))
    assert entry.meta == {"stage": "pretrain", "curve": [{"loss": 1.5}]}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "facts"])
def test_a_torn_or_foreign_result_is_never_loaded(tmp_path: Path, damage: str) -> None:
    store = Store(str(tmp_path))
    store.save(KEY, _state(2.0), {})
    payload = _payload(tmp_path)
    content = payload.read_bytes()
    if damage == "truncate":
        payload.write_bytes(content[:-7])
    elif damage == "flip":
        payload.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "remove":
        payload.unlink()
    else:
        (payload.parent / "result.json").write_text(json.dumps(["not", "ours"]))
    assert store.load(KEY) is None
    store.save(KEY, _state(3.0), {})
    entry = store.load(KEY)
    assert entry is not None and float(entry.state["weights"]["w"][0]) == 3.0


def test_a_newer_checkpoint_replaces_the_older_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for epoch in range(4):
        store.save(KEY, _state(float(epoch)), {"epoch": epoch}, "epoch")
    entry = store.load(KEY, "epoch")
    assert entry is not None and entry.meta["epoch"] == 3
    assert len(list((tmp_path / "stages" / KEY).glob("*.pt"))) == 1
    store.discard(KEY, "epoch")
    assert list((tmp_path / "stages" / KEY).iterdir()) == []


def test_a_store_in_an_object_store_uri(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    store.save(KEY, _state(1.0), {"a": 1})
    entry = store.load(KEY)
    assert entry is not None and entry.meta == {"a": 1}
    first, second = store.lease(KEY), store.lease(KEY)
    assert first.try_acquire() and not second.try_acquire()
    first.release()
    assert second.try_acquire()


def test_unwritable_storage_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Store(str(tmp_path / "file"))
    with pytest.raises(InputError, match="foo"):
        Store("foo://bucket")


@pytest.fixture(params=["folder", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}"


def _take_over(store: Store) -> None:
    """The lease, from a process of this machine that is gone."""
    lease = store.lease(KEY)
    write(store.fs, f"{lease.path}/dead.{lease_module._machine()}.{2**22 + 1}", b"0")
    assert lease.try_acquire()
    lease.release()


def test_who_takes_a_lease_over_takes_nothing_that_another_is_about_to_publish(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, moments = stage_store.write, ["result.json", "result.json", "epoch.json"]

    def late(fs: AbstractFileSystem, path: str, content: bytes) -> None:
        if moments and path.endswith(moments[0]):
            del moments[0]
            _take_over(Store(root))
        put(fs, path, content)

    monkeypatch.setattr(stage_store, "write", late)
    store = Store(root)
    for name in ("result", "epoch"):
        store.save(KEY, _state(2.0), {}, name)
        assert store.load(KEY, name) is not None
    assert not moments
    assert sum(path.endswith(".pt") for path in store.fs.ls(f"{store.root}/{KEY}", detail=False)) == 2


def test_what_is_published_while_it_is_swept_away_comes_back(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sweeper, seen = Store(root), Store(root), iter([None])
    store.save(KEY, _state(2.0), {})
    # What it saw the first time was a moment before it was published.
    monkeypatch.setattr(sweeper, "_published", lambda *words: next(seen, store._published(*words)))
    _take_over(sweeper)
    assert next(seen, "asked") == "asked" and store.load(KEY) is not None


def test_a_store_that_refuses_without_its_bucket_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow says of a bucket that is gone what it says of a store that is away: an OSError."""
    inner, tries = pa_fs._MockFileSystem(), list[int]()

    def refused() -> None:
        tries.append(1)
        raise OSError("AWS Error ACCESS_DENIED during CreateMultipartUpload operation")

    fs = ArrowFSWrapper(inner, skip_instance_cache=True)
    monkeypatch.setattr(objects, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: inner.delete_dir("b")))
    inner.create_dir("b")  # it is waited for while it has its bucket, here for one pause
    for storage in ("s3://b/study", "b/study/stages"):
        with pytest.raises(StorageLostError, match=f"^{storage}: its bucket is not there"):
            objects.patiently(refused, fs, storage)
    assert len(tries) == 3
