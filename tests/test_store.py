"""The stage store: what it returns is whole and ours, whatever was killed while writing."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from raymc.errors import InputError
from raymc.storage import lease as lease_module
from raymc.storage.lease import Lease
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


def _hold(root: str, ready: object, seconds: float) -> None:
    lease = Store(root).lease(KEY)
    assert lease.try_acquire()
    with lease:
        ready.set()  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_one_of_two_processes_holds_the_lease_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), ready, 120.0))
    holder.start()
    try:
        assert ready.wait(60)
        lease = Store(str(tmp_path)).lease(KEY)
        assert not lease.try_acquire()
        holder.kill()
        holder.join()
        assert lease.try_acquire()
    finally:
        holder.kill()


def test_a_silent_holder_elsewhere_is_taken_over_and_a_beating_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.3)
    store = Store(str(tmp_path))
    waiter = store.lease(KEY)
    path = Path(waiter.path)
    path.parent.mkdir(parents=True)

    def beat(number: int) -> None:
        path.write_text(json.dumps({"owner": "far", "beat": number, "place": "elsewhere", "pid": os.getpid()}))

    for number in range(5):
        beat(number)
        assert not waiter.try_acquire()
        time.sleep(0.15)
    time.sleep(0.3)
    assert waiter.try_acquire()


def test_a_lease_is_given_back_once_and_only_by_its_owner(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first, second = store.lease(KEY), store.lease(KEY)
    assert first.try_acquire()
    with first:
        second.release()
        assert not second.try_acquire()
    assert isinstance(second, Lease) and second.try_acquire()
