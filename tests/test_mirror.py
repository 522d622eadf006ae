"""A folder and the one in an object store that it stands for: what is given and got, in which order, what is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raymc.errors import InputError, StorageError, StorageLostError
from raymc.storage import lease as lease_module
from raymc.storage import mirror as mirror_module
from raymc.storage import objects
from raymc.storage.mirror import Mirror, fetched, mirror_of
from raymc.storage.objects import filesystem, home, listing
from raymc.storage.stage_store import Store


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/study"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(uri: str) -> list[str]:
    fs, root = filesystem(uri)
    return sorted(path[len(root) + 1 :] for path in listing(fs, root))


def test_what_one_pushes_another_pulls(tmp_path: Path, uri: str) -> None:
    one, other = Mirror(uri, tmp_path / "one"), Mirror(uri, tmp_path / "other")
    write(one.folder, trials__0007__seed_3__x="arrays", trials__0007__record_json="{}")
    one.push()
    other.pull()
    assert (other.folder / "trials/0007/seed_3/x").read_text() == "arrays"
    write(other.folder, trials__0007__record_json="changed")
    other.push()
    one.pull("trials/0007/")
    assert (one.folder / "trials/0007/record.json").read_text() == "changed"


def test_only_what_is_new_travels(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Mirror(uri, tmp_path / "one"), Mirror(uri, tmp_path / "other")
    write(one.folder, a="1", b="2")
    one.push()
    other.pull()
    moved: list[str] = []
    for each in (one, other):
        for word in ("_get", "_put"):
            monkeypatch.setattr(each, word, lambda name, mark, word=word: moved.append(f"{word} {name}"))
    one.push()
    one.pull()
    other.push()
    other.pull()
    assert moved == []
    write(one.folder, b="22")
    one.push()
    assert moved == ["_put b"]


def test_a_pull_takes_the_paths_that_begin_as_asked(tmp_path: Path, uri: str) -> None:
    one, other = Mirror(uri, tmp_path / "one"), Mirror(uri, tmp_path / "other")
    write(one.folder, trials__t7="a", trials__t7_more="b", trials__t8="c", runs__1="d")
    one.push()
    other.pull("trials/t7")
    assert sorted(p.name for p in other.folder.rglob("*") if p.is_file()) == ["t7", "t7_more"]


def test_what_names_others_comes_after_them(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Mirror(uri, tmp_path / "one")
    write(one.folder, study_json="", t__record_json="", t__s__result_json="", t__s__labels="", t__z="")
    order: list[str] = []
    put = one._put
    monkeypatch.setattr(one, "_put", lambda name, stamp: (order.append(name), put(name, stamp)))
    one.push()
    assert set(order[:2]) == {"t/s/labels", "t/z"}
    assert order[2:] == ["t/s/result.json", "t/record.json", "study.json"]


def test_what_is_of_one_machine_stays_there(tmp_path: Path, uri: str) -> None:
    one = Mirror(uri, tmp_path / "one")
    write(one.folder, spool__sent__x="", mlflow_id="")
    for name in ("driver.lock", ".half.tmp", "optuna.db-journal", "optuna.db"):
        (one.folder / name).touch()
    one.push()
    assert names(uri) == ["mlflow_id", "optuna.db"]


def test_a_store_that_answers_again_is_waited_for(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Mirror(uri, tmp_path / "one")
    write(one.folder, a="1")
    pipe, failures = one._fs.pipe_file, iter([OSError("away"), OSError("away")])

    def sometimes(path: str, content: bytes) -> None:
        for error in failures:
            raise error
        pipe(path, content)

    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(one._fs, "pipe_file", sometimes)
    one.push()
    assert names(uri) == ["a"]


def test_a_store_that_stays_away_is_named(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Mirror(uri, tmp_path / "one")
    write(one.folder, a="1")

    def never(path: str, content: bytes) -> None:
        raise OSError("no route")

    monkeypatch.setattr(objects, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(one._fs, "pipe_file", never)
    with pytest.raises(StorageError, match=f"{uri}.*no route"):
        one.push()


def test_pushing_gives_what_is_written_while_the_block_runs(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_module, "SECONDS", 0.01)
    one, other = Mirror(uri, tmp_path / "one"), Mirror(uri, tmp_path / "other")
    with one.pushing():
        write(one.folder, early="1")
        for _ in range(500):
            other.pull()
            if (other.folder / "early").exists():
                break
            time.sleep(0.01)
        assert (other.folder / "early").exists()
        write(one.folder, late="2")
    other.pull()
    assert (other.folder / "late").exists()


def test_a_folder_needs_no_mirror(tmp_path: Path) -> None:
    assert mirror_of(str(tmp_path), tmp_path / "studies" / "a") is None
    with fetched(str(tmp_path), "studies/a") as folder:
        assert folder == tmp_path / "studies" / "a"


def test_a_uri_has_a_folder_here_and_a_copy_to_read(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = home(uri) / "studies" / "a"
    assert folder.is_relative_to(tmp_path) and home(uri) == home(f"{uri}/") != home(f"{uri}2")
    write(folder, study_json="{}")
    found = mirror_of(uri, folder)
    assert found is not None
    found.push()
    with fetched(uri, "studies/a") as copy:
        assert copy.name == "a" and (copy / "study.json").read_text() == "{}" and not copy.is_relative_to(home(uri))
    assert not copy.exists()


@pytest.mark.parametrize("bad", ["s3://", "s4://bucket/x"])
def test_a_storage_that_cannot_be_is_named(bad: str) -> None:
    with pytest.raises(InputError, match=bad):
        filesystem(bad)


def test_a_stage_waits_for_its_store_too(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(uri)
    store.save("key", {"w": torch.ones(2)}, {"a": 1})
    pipe, cat = store.fs.pipe_file, store.fs.cat_file
    failures = iter([OSError("away")] * 4)

    def sometimes(do: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            for error in failures:
                raise error
            return do(*args)

        return call

    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(store.fs, "pipe_file", sometimes(pipe))
    monkeypatch.setattr(store.fs, "cat_file", sometimes(cat))
    entry = store.load("key")
    assert entry is not None and entry.meta == {"a": 1} and next(failures, None) is None
    failures = iter([OSError("away")] * 3)
    store.save("key", {"w": torch.ones(2)}, {"a": 2})
    again = store.load("key")
    assert again is not None and again.meta == {"a": 2}
    failures = iter([OSError("away")])
    assert store.lease("key").try_acquire()


def test_what_another_has_taken_over_is_not_written(tmp_path: Path, uri: str) -> None:
    one = Mirror(uri, tmp_path / "one")
    write(one.folder, a="1")
    one.is_lost = lambda: True
    with pytest.raises(StorageError, match="another process has taken it over"):
        one.push()
    assert names(uri) == []


def test_a_driver_begins_with_what_the_store_has_and_nothing_else(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from raymc.execution.remote import driving

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = home(uri) / "studies" / "s"
    write(folder, study_json="{}", trials__0001__record_json="new")
    made = mirror_of(uri, folder)
    assert made is not None
    made.push()
    write(folder, trials__0001__record_json="never given", trials__0009__record_json="of another study")
    (folder / "optuna.db-journal").write_text("of a database that is ahead")
    with driving(uri, folder) as mirror:
        assert mirror is not None
        kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert kept == ["study.json", "trials/0001/record.json"]
        assert (folder / "trials/0001/record.json").read_text() == "new"


def test_silence_while_the_store_is_away_is_no_sign_of_death(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(objects.time, "sleep", lambda seconds: None)
    holder, waiter = Store(uri).lease("key"), Store(uri).lease("key")
    assert holder.try_acquire() and not waiter.try_acquire()
    seen, find, failures = time.monotonic(), waiter.fs.find, iter([OSError("away")])

    def back_later(*words: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return find(*words, **options)

    while time.monotonic() - seen < 0.4:
        pass
    monkeypatch.setattr(waiter.fs, "find", back_later)
    assert not waiter.try_acquire(), "it was not heard of, but could not be"
    while time.monotonic() - seen < 0.9:
        pass
    assert waiter.try_acquire()


def test_what_one_removes_does_not_come_back(tmp_path: Path, uri: str) -> None:
    one, other = Mirror(uri, tmp_path / "one"), Mirror(uri, tmp_path / "other")
    write(one.folder, runs__0000__x="failed", runs__0000__y="finished")
    one.push()
    for _ in range(2):
        one.remove("runs/0000/x")  # the second time there is nothing
    one.pull()
    other.pull("runs/0000/")
    assert [path.name for mirror in (one, other) for path in (mirror.folder / "runs/0000").iterdir()] == ["y", "y"]
    write(one.folder, runs__0000__x="finished")
    one.push()
    other.pull("runs/0000/")
    assert (other.folder / "runs/0000/x").read_text() == "finished"


def test_one_object_is_written_once_a_second_and_in_the_end_whole(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, now, given = Mirror(uri, tmp_path / "one"), [100.0], list[tuple[float, str]]()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(mirror_module, "time", clock)
    put = one._fs.pipe_file
    monkeypatch.setattr(
        one._fs, "pipe_file", lambda path, content: (given.append((now[0], path[-4:])), put(path, content))
    )
    for beat in range(20):  # reports of trials, four a second
        write(one.folder, **{"x__db": "d" * (beat + 1), f"new{beat:02d}": ""})
        one.push(whole=False)
        now[0] += 0.25
    times = [when for when, name in given if name == "x/db"]
    assert len(times) == 5 and min(b - a for a, b in zip(times, times[1:], strict=False)) >= 1
    assert len([name for _, name in given if name != "x/db"]) == 20, "others go at once"
    one.push()
    fs, root = filesystem(uri)
    assert fs.cat_file(f"{root}/x/db") == b"d" * 20 and given[-1][0] - times[-1] >= 1


def test_a_bucket_that_is_gone_is_said_in_a_line(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(uri, tmp_path / "one")
    write(mirror.folder, a="1")

    def gone(path: str, content: bytes) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(mirror._fs, "pipe_file", gone)
    with pytest.raises(StorageLostError, match=f"{uri}: its bucket is not there; if it was deleted, what was stored"):
        mirror.push()
    with pytest.raises(StorageLostError), mirror.pushing():
        pass
