"""The lease of a study's driver in an object store: of many one has it, however slow their requests are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from raymc.storage import exclusive_lease
from raymc.storage import lease as lease_module
from raymc.storage.exclusive_lease import ExclusiveLease, driver_lease
from raymc.storage.lease import STALE_SECONDS, Lease, ObjectLease
from raymc.storage.objects import filesystem, listing
from raymc.storage.stage_store import Store
from tests import object_store
from tests.fake_gcs import BUCKET, FakeGcs, fake_gcs
from tests.slow_proxy import slow_proxy

GONE = 2**22 + 1  # a process number above all that Linux gives


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the leases take for the time: `now`, in seconds."""
    found = SimpleNamespace(now=0.0)
    found.monotonic = lambda: found.now
    monkeypatch.setattr(lease_module, "time", found)
    monkeypatch.setattr(exclusive_lease, "time", found)
    return found


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], ExclusiveLease]:
    fs, root = filesystem(f"memory://{tmp_path.name}")
    return lambda: ExclusiveLease(fs, f"{root}/driver.lease")


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    with fake_gcs() as server:
        for name, value in server.env(tmp_path).items():
            monkeypatch.setenv(name, value)
        exclusive_lease._store.cache_clear()
        yield server


def write(lease: ExclusiveLease, number: int, content: str) -> None:
    lease.fs.pipe_file(lease._path(number), content.encode())


def test_one_after_the_other_has_it_and_the_dead_are_followed(make: Callable[[], ExclusiveLease], clock: Any) -> None:
    first, second, third = make(), make(), make()
    assert first.try_acquire() and first.try_acquire(), "an answer that was lost is asked for again"
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire() and not first.try_acquire()
    for beat in range(3):
        second._beat = beat
        second._renew()
        assert not third.try_acquire()
        clock.now += STALE_SECONDS
    assert not third.try_acquire()
    clock.now += 1
    assert third.try_acquire(), "it was silent"
    assert not second.is_ours() and third.is_ours()
    write(third, 1, f"{second.name} 9")  # a request that comes late
    third._renew()
    assert third.is_ours() and [*listing(third.fs, third.path)] == [third._file]
    third.fs.pipe_file(f"{third.path}/abc.elsewhere.1", b"3")  # of a former version
    third._renew()
    assert [*listing(third.fs, third.path)] == [third._file]
    write(third, 3, f"dead.{lease_module._machine()}.{GONE} 1")
    assert make().try_acquire(), "its process is gone from this machine"


def test_of_two_that_reach_for_it_at_once_one_has_it(make: Callable[[], ExclusiveLease]) -> None:
    first, second, held = make(), make(), list[bool]()
    claim = first._claim

    def between() -> bool:
        held.append(second.try_acquire())
        return claim()

    first._claim = between  # type: ignore[method-assign]
    assert [first.try_acquire(), *held] == [False, True]


def test_whose_request_was_too_slow_looks_again(make: Callable[[], ExclusiveLease], clock: Any) -> None:
    """Its file was there at once, so others saw it stand still; the answer came after they had followed it."""
    first, second, make_file = make(), make(), exclusive_lease.create

    def slow(*words: Any) -> bool:
        done = make_file(*words)
        if words[1] == first._path(1):
            assert not second.try_acquire()
            clock.now += STALE_SECONDS + 1
            assert second.try_acquire()
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exclusive_lease, "create", slow)
        assert not first.try_acquire()
    assert second.is_ours()


def race(lease: Callable[[], Lease], threads: int, rounds: int) -> int:
    """Take the lease and give it back, in many threads; how often. Two that have it at once fail."""
    inside, taken, wrong = threading.Lock(), list[int](), list[str]()

    def run() -> None:
        for _ in range(rounds):
            one = lease()
            while not one.try_acquire():
                time.sleep(0.01)
            if not inside.acquire(blocking=False):
                wrong.append("two have it")
                return
            taken.append(1)
            inside.release()
            one.release()

    running = [threading.Thread(target=run) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert not wrong
    return len(taken)


def test_google_needs_rights_to_objects_alone_and_makes_a_file_once(google: FakeGcs) -> None:
    storage = f"gs://anonymous@{BUCKET}/x"
    store = Store(storage)
    store.save("k" * 32, {"w": torch.ones(2)}, {}, "epoch")
    assert store.load("k" * 32, "epoch") is not None
    fs, root = filesystem(storage)
    path = f"{root}/driver.lease"
    assert race(lambda: driver_lease(fs, path), 4, 4) == 16
    assert not [one for one in google.requests if f"/b/{BUCKET}?" in one or one.endswith(f"/b/{BUCKET}")]


SLOW_OBSTORE = {
    "__init__": "import time\nfrom . import exceptions, store\ntime.sleep(1)\nput = lambda: None",
    "exceptions": "class BaseError(Exception): ...\nAlreadyExistsError = NotSupportedError = BaseError",
    "store": "import obstore\nclass Store:\n    put = lambda self, *words, **more: obstore.put()\n"
    "from_url = lambda *words, **more: Store()",
}
THREADS = """
import threading
from types import SimpleNamespace
from raymc.storage.exclusive_lease import create

fs, made = SimpleNamespace(fs=SimpleNamespace(type_name="gcs"), protocol=("gs",)), []
threads = [threading.Thread(target=lambda: made.append(create(fs, "bucket/key", b""))) for _ in range(3)]
for number, thread in enumerate(threads):
    thread.start()
    threads[0].join(0.5)  # the others come while obstore is being imported
for thread in threads:
    thread.join()
print(made)
"""


def test_threads_that_need_obstore_first_wait_until_it_is_whole(tmp_path: Path) -> None:
    package = tmp_path / "obstore"
    package.mkdir()
    for name, text in SLOW_OBSTORE.items():
        (package / f"{name}.py").write_text(text)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    done = subprocess.run([sys.executable, "-c", THREADS], env=env, text=True, capture_output=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[True, True, True]\n", "")


def test_a_store_that_does_not_refuse_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Ignorant(MemoryFileSystem):  # type: ignore[misc]
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **words: Any) -> None:
            super().pipe_file(path, value)

    assert isinstance(driver_lease(*filesystem(f"memory://{tmp_path.name}")), ExclusiveLease)
    assert capsys.readouterr().err == ""
    for fs in (Ignorant(skip_instance_cache=True), SimpleNamespace(protocol="hdfs", rm_file=lambda path: None)):
        assert isinstance(driver_lease(fs, f"/{tmp_path.name}/lease"), ObjectLease)
        said = capsys.readouterr().err
        assert "start one driver of this study at a time" in said and said.count("\n") == 1


def test_keys_of_a_profile_are_found_where_the_environment_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("[default]\naws_access_key_id = a\n[two]\naws_access_key_id = b\nregion = x\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    assert exclusive_lease._profile() == {"access_key_id": "a"}
    monkeypatch.setenv("AWS_PROFILE", "two")
    assert exclusive_lease._profile() == {"access_key_id": "b"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "c")
    assert exclusive_lease._profile() == {}


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [True, False])
def test_two_drivers_of_a_real_store_whose_writes_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """One's second write takes longer than the others' patience. By listing alone both have it for a moment."""
    if object_store.program() is None:
        pytest.skip("SeaweedFS (weed) is not installed: make servers")
    for module in (lease_module, exclusive_lease):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.1)
    with object_store.object_store(tmp_path / "s3") as server, slow_proxy(server.port, "PUT", 0.0) as slow:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        fs, root = filesystem(f"s3://{object_store.BUCKET}/x")
        if exclusive:
            assert race(lambda: ExclusiveLease(fs, f"{root}/race"), 4, 4) == 16
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{slow.port}")
        exclusive_lease._store.cache_clear()
        far, _ = filesystem(f"s3://{object_store.BUCKET}/x")
        kind, path, both = ExclusiveLease if exclusive else ObjectLease, f"{root}/driver.lease", list[float]()
        one, two, stop, inside = kind(far, path), kind(fs, path), threading.Event(), set[str]()
        survey, asked = one._survey, list[int]()

        def survey_then_slow() -> tuple[bool, set[str]]:
            asked.append(1)
            slow.seconds = 4.0 if exclusive or len(asked) == 2 else slow.seconds
            return survey()

        def drive(lease: Lease, name: str) -> None:
            while not stop.is_set():
                if lease.try_acquire():
                    with lease:
                        while not stop.wait(0.01) and not lease.lost:
                            inside.add(name)
                            both.extend([time.monotonic()] if len(inside) > 1 else [])
                        inside.discard(name)
                    return

        one._survey = survey_then_slow  # type: ignore[method-assign]
        drivers = [threading.Thread(target=drive, args=pair) for pair in ((one, "slow"), (two, "fast"))]
        for driver in drivers:
            driver.start()
            time.sleep(0.5)
        time.sleep(8)
        stop.set()
        for driver in drivers:
            driver.join()
        assert bool(both) != exclusive
    exclusive_lease._store.cache_clear()
