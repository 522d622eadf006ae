"""A study in a real S3-compatible server, killed and taken up on another machine, and its trials on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import optuna
import pytest

from raymc.commands import tune
from tests import shared_ray
from tests.chaos.mlflow_away import Outcome, recorded
from tests.mlflow_database import new_database
from tests.mlflow_server import Server, wait_for
from tests.object_store import BUCKET, ObjectStore, object_store, program
from tests.postgres import PASSWORD, Postgres, binaries, postgres

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's and MLflow's own

PATIENCE = 600.0  # seconds, on a machine that is busy with other things
SPACE = """
method: gcml
dataset: digits
fixed: {n_samples: 400, pretrain.epochs: 5, finetune.epochs: 5, finetune.centers_by: kmeans}
space:
  finetune.kappa: {low: 1.0, high: 5.0}
objective: {metric: acc, mode: max, uses_labels: true}
budget: {trials: 4, seeds: 2, confirm: {top: 1, seeds: 2}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if program() is None:
        pytest.skip("SeaweedFS (weed) is not installed: make servers")
    with object_store(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg2")
    with postgres() as one:
        yield one


class Machine:
    """A working folder and a cache of its own: all that a process finds of earlier ones is in the storage."""

    def __init__(self, folder: Path, storage: str, env: Mapping[str, str], *words: str) -> None:
        folder.mkdir(parents=True)
        (folder / "tiny.yaml").write_text(SPACE)
        self.folder, self.storage, self.words = folder, storage, words
        own = {"XDG_CACHE_HOME": str(folder / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        self.env = os.environ | env | own

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "raymc.tune", "tiny.yaml", "--name", "one", "--concurrent", "1", "--json"]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [*command, "--storage", self.storage, *self.words, *words],
                cwd=self.folder,
                env=self.env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def kill_when_told(self, what: str) -> None:
        """Start, and end the whole process group at once when the line appears for the first time."""
        process = self.start()
        try:
            wait_for(lambda: what in self.log() or process.poll() is not None, PATIENCE, what)
            assert process.poll() is None, self.log()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def report(self) -> dict[str, object]:
        command = [sys.executable, "-m", "raymc.report", "one", "--storage", self.storage, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return dict(json.loads((self.folder / "reports/one/summary.json").read_text()))

    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The same search in a folder, never interrupted: its result."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(SPACE)
    new_database(folder)
    shared_ray.start()
    words = ["tiny.yaml", "--name", "one", "--concurrent", "1", "--storage", str(folder / "st")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result: dict[str, object] = json.loads(json.dumps(tune.run(tune.parser().parse_intermixed_args(words))))
    return result


def same(found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    assert found["trials"] == expected["trials"] == {"finished": 4, "pruned": 0, "failed": 0}
    assert found["best"] == expected["best"]
    assert found["confirm"] == expected["confirm"]
    mine, its = (dict(one["winner"]) for one in (found, expected))  # type: ignore[call-overload]
    assert mine.pop("folder") and its.pop("folder") and mine == its


def outlived(machine: Machine, server: ObjectStore | Postgres, when: str, *words: str) -> dict[str, object]:
    """The result of a search; when it says `when`, the server is killed and, seconds later, started again."""
    process = machine.start(*words)
    while when not in machine.log():
        assert process.poll() is None, machine.log()
        time.sleep(0.2)
    server.stop()
    time.sleep(4)
    server.start()
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, machine.log()
    return dict(json.loads(out.splitlines()[-1]))


def test_a_study_in_an_object_store_goes_on_on_another_machine_while_the_store_is_away(
    tmp_path: Path, store: ObjectStore, unbroken: dict[str, object]
) -> None:
    storage = f"s3://{BUCKET}/{tmp_path.name}"
    first = Machine(tmp_path / "first", storage, store.env)
    first.kill_when_told("trial 1 finished")
    second = Machine(tmp_path / "second", storage, store.env)
    same(outlived(second, store, "trial 2 finished", "--resume"), unbroken)
    assert second.report()["winner"]["trial"] == unbroken["best"]["trial"]  # type: ignore[index]
    log = second.log()
    assert "trial 0 started" not in log and "trial 1 started" not in log
    again = subprocess.run(
        [sys.executable, "-m", "raymc.tune", "tiny.yaml", "--name", "one", "--storage", storage],
        cwd=second.folder, env=second.env, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert again.returncode == 2 and "study one exists" in again.stderr


def test_a_bucket_that_is_deleted_while_a_search_runs_ends_it_with_a_line(tmp_path: Path) -> None:
    if program() is None:
        pytest.skip("SeaweedFS (weed) is not installed: make servers")
    with object_store(tmp_path / "s3") as server:
        machine = Machine(tmp_path / "one", f"s3://{BUCKET}/study", server.env)
        process = machine.start()
        wait_for(lambda: "trial 0 finished" in machine.log() or process.poll() is not None, PATIENCE, "a trial")
        server.remove_bucket()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, machine.log()
        told = machine.log()
        assert "Traceback" not in told and "its bucket is not there; if it was deleted" in told.splitlines()[-1]
        more = subprocess.run(
            [sys.executable, "-m", "raymc.tune", "tiny.yaml", "--resume", "--name=one", "--storage", machine.storage],
            cwd=machine.folder, env=machine.env, text=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert more.returncode in (1, 2) and more.stderr.count("\n") == 1, more.stderr


@pytest.fixture
def mlflow(tmp_path: Path, server: Postgres) -> Iterator[Server]:
    """MLflow's server on the same PostgreSQL, in a database of its own."""
    server.rows("create database mlflow")
    one = Server(tmp_path, backend=server.url_of("mlflow"))
    one.start()
    try:
        wait_for(one.answers, 120, "MLflow's server")
        yield one
    finally:
        one.kill()


def test_a_search_and_its_mlflow_outlive_a_restart_of_their_database(
    tmp_path: Path, server: Postgres, mlflow: Server, unbroken: dict[str, object]
) -> None:
    words = ("--database", server.url, "--tracking-uri", mlflow.uri)
    machine = Machine(tmp_path / "one", str(tmp_path / "st"), {}, *words)
    same(outlived(machine, server, "trial 0 finished"), unbroken)
    found = server.rows("select r.name, m.key, m.step from metrics m join runs r using (run_uuid)", "mlflow")
    study = tmp_path / "st" / "studies" / "one"
    wanted = recorded(study) | Outcome(study, {"finished": 4, "pruned": 0, "failed": 0}).points
    assert sorted(found) == sorted((run, key, step) for run, key, step, _ in wanted)
    trials = optuna.load_study(study_name="one", storage=server.url).get_trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3] and all(t.state.is_finished() for t in trials)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()], "the password is in a file"
    more = subprocess.run(
        [sys.executable, "-m", "raymc.tune", "tiny.yaml", "--resume", "--name=one", f"--storage={tmp_path / 'st'}"],
        cwd=machine.folder, env=machine.env, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert more.returncode == 2 and "give --database with the password" in more.stderr
