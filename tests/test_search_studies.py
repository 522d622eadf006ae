"""Studies that are kept, compared and thrown away: one small real study, asked everything by its commands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from raymc.cli import execute
from raymc.commands import report, studies, train, tune
from raymc.execution import session
from raymc.space.space import load_space
from raymc.stability import queue
from raymc.storage.objects import filesystem, listing
from raymc.study import folder as study_folder
from raymc.study.resume import changed_since
from tests.mlflow_database import new_database
from tests.object_store import BUCKET, object_store, program
from tests.search_fakes import driver_here

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own

SPACE = """
method: gcml
dataset: digits
fixed: {n_samples: 120, pretrain.epochs: 1, finetune.epochs: 1, finetune.centers_by: kmeans}
space:
  finetune.kappa: {low: 1.0, high: 5.0}
objective: {metric: acc, mode: max, uses_labels: true}
budget: {trials: 2, seeds: 2, confirm: {top: 1, seeds: 2}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the study `s` of two trials, trained here and tracked in a database of MLflow."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "mine.yaml").write_text(SPACE)
    new_database(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for module in (session, queue):
            patch.setattr(module, "run_on_ray", driver_here(lambda real: real))
        patch.setattr(queue, "ray_session", lambda *_, **__: nullcontext())
        patch.setattr("raymc.training.baseline.STARTS", 2)
        words = ["mine.yaml", "pretrain.epochs=2", "--name", "s", "--storage", "store"]
        tune.run(tune.parser().parse_intermixed_args(words))
        yield folder


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to be written and thrown away."""
    folder = tmp_path / "copy"
    shutil.copytree(home, folder)
    monkeypatch.chdir(folder)
    return folder


class Door:
    """Calls a command: its exit code, its JSON and what it told."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, module: Any, *words: str) -> tuple[int, dict[str, Any], str]:
        self.capsys.readouterr()
        code = execute(module.parser(), module.run, [*words, "--json"])
        out, err = self.capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out.strip() else {}, err


@pytest.fixture
def door(capsys: pytest.CaptureFixture[str]) -> Door:
    return Door(capsys)


STORE = ("--storage", "store")


def test_list_and_show_say_how_studies_stand(here: Path, door: Door) -> None:
    shutil.copytree("store/studies/s", "store/studies/cut")
    shutil.rmtree("store/studies/cut/confirm")
    shutil.copytree("store/studies/s", "store/studies/torn")
    Path("store/studies/torn/study.json").write_text("{")
    shutil.copytree("store/studies/s", "store/studies/busy")
    with study_folder.locked(Path("store/studies/busy").resolve()):
        code, found, told = door(studies, "list", *STORE)
    assert code == 0 and len(told.splitlines()) == 5
    states = {one["name"]: one["state"] for one in found["studies"]}
    assert states == {"s": "finished", "cut": "interrupted", "torn": "unreadable", "busy": "running"}
    code, shown, _ = door(studies, "show", "s", *STORE)
    assert code == 0 and shown == next(one for one in found["studies"] if one["name"] == "s")
    assert shown["trials"] == {"planned": 2, "finished": 2, "pruned": 0, "failed": 0}
    summary = json.loads(Path("reports/s/summary.json").read_text())
    assert shown["best"]["trial"] == summary["winner"]["trial"] and shown["best"]["fresh_seeds"] == 2
    assert shown["best"]["value"] == summary["confirmation"][0]["score"]
    size = sum(path.stat().st_size for path in Path("store/studies/s").rglob("*") if path.is_file())
    assert shown["bytes"] == size and shown["dataset"] == "digits"


def test_the_exported_file_and_the_study_train_the_winner_from_the_store(here: Path, door: Door) -> None:
    code, exported, _ = door(studies, "export", "s", "--out", "best.yaml", *STORE)
    assert code == 0 and load_space("best.yaml").config().seed == exported["seed"]
    assert door(studies, "export", "s", "--out", "best.yaml", *STORE)[0] == 2, "a file that is there stays"
    assert door(studies, "clean", "--older", "0s", *STORE)[1]["bytes"] == 0, "a study needs all that it has"
    results = {}
    for target, out in (("best.yaml", "a"), ("s", "b")):
        code, results[out], told = door(train, target, "--out", out, *STORE)
        assert code == 0 and all(stage["cached"] for stage in results[out]["stages"]), told
    assert results["a"]["metrics"] == results["b"]["metrics"]
    again = {name: load_space(f"{name}/config.yaml").config() for name in ("a", "b")}
    assert again["a"] == again["b"] == load_space("best.yaml").config()
    code, other, told = door(train, "s", "--seed", "7", "pretrain.epochs=1", "--out", "c", *STORE)
    assert code == 0 and other["seed"] == 7 and "7 here" in told and not other["stages"][0]["cached"]


def test_winners_are_compared_on_seeds_that_none_has_used(here: Path, door: Door) -> None:
    shutil.copytree("store/studies/s", "store/studies/t")
    code, found, told = door(studies, "compare", "s", "t", "--seeds", "2", *STORE)
    assert code == 0, told
    assert [one["name"] for one in found["arms"]] == ["s", "t"] and found["common_seeds"] == [1002, 1003]
    assert found["comparisons"][0]["mean_difference"] == 0 and Path(found["report"]).is_file()
    stages = sorted(Path("store/stages").iterdir())
    code, found, told = door(studies, "compare", "s", "t", "--seed", "1000", "--seeds", "2", *STORE)
    assert code == 0 and found["common_seeds"] == [1000, 1001], told
    assert sorted(Path("store/stages").iterdir()) == stages, "what both were confirmed on is not trained again"
    kinds = {one["name"]: one["kind"] for one in door(studies, "list", *STORE)[1]["studies"]}
    assert sorted(kinds.values()) == ["stability", "stability", "study", "study"]


def test_after_a_clean_the_same_words_compute_nothing(here: Path, door: Door) -> None:
    words = ("mine.yaml", "pretrain.epochs=2", "--seeds", "2", "--seed", "0", "--trials", "2", *STORE)
    stray = Path("store/stages") / ("f" * 32)
    shutil.copytree(next(path for path in Path("store/stages").iterdir() if path.is_dir()), stray)
    assert door(studies, "clean", "--yes", *STORE)[1]["bytes"] == 0, "it is young"
    for path in stray.iterdir():
        os.utime(path, (1, 1))
    before = sorted(path for path in Path("store").rglob("*"))
    assert door(studies, "clean", "--dry-run", *STORE)[1]["results"]["entries"] == 1
    assert sorted(path for path in Path("store").rglob("*")) == before
    assert door(studies, "clean", *STORE)[0] == 2 and stray.exists(), "nobody is there to be asked"
    code, cleaned, _ = door(studies, "clean", "--yes", *STORE)
    assert code == 0 and cleaned["results"]["entries"] == 1 and not stray.exists()
    # Trained anew, by another study and by the same one, every stage comes from the store.
    code, resumed, told = door(tune, "--resume", *words, "--name", "s")
    assert code == 0 and resumed["trials"]["finished"] == 2, told
    code, anew, told = door(tune, "--resume=auto", *words, "--name", "again")
    assert code == 0 and anew["stages"]["computed"] == 0 and anew["best"] == resumed["best"], told
    assert door(tune, "--resume=auto", *words, "--name", "again")[1]["stages"] == anew["stages"]


def test_delete_tells_what_goes_and_takes_it(here: Path, door: Door) -> None:
    from mlflow import MlflowClient

    code, plan, told = door(studies, "delete", "s", "--mlflow", "--dry-run", *STORE)
    assert code == 0 and not plan["deleted"] and Path("store/studies/s/study.json").is_file()
    assert "its report" in told and "its runs in MLflow" in told
    with study_folder.locked(Path("store/studies/s").resolve()):
        code, _, told = door(studies, "delete", "s", "--yes", *STORE)
    assert code == 2 and "s is running; stop it first" in told and Path("store/studies/s/study.json").is_file()
    database = f"sqlite:///{here}/mlflow.db"
    code, done, told = door(studies, "delete", "s", "--yes", "--mlflow", "--tracking-uri", database, *STORE)
    assert code == 0 and done["deleted"] and done["mlflow_runs"] == 1 + (1 + 1) + (2 + 2 * 2) + (1 + 2), told
    assert not Path("store/studies/s").exists() and not Path("reports/s").exists()
    found = MlflowClient(tracking_uri=database)
    assert not found.search_runs([one.experiment_id for one in found.search_experiments()])
    code, cleaned, _ = door(studies, "clean", "--older", "0s", *STORE)
    assert code == 0 and cleaned["results"]["entries"] > 0 and not list(Path("store/stages").iterdir())


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a place in an object store: in this process's memory, and in a real server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "memory":
        yield f"memory://{tmp_path.name}/x"
        return
    if program() is None:
        pytest.skip("SeaweedFS (weed) is not installed: make servers")
    with object_store(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/x"


def test_an_object_store_is_listed_and_cleaned_alike(
    here: Path, door: Door, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fs, root), place = filesystem(bucket), bucket
    for path in Path("store").rglob("*"):
        if path.is_file() and path.name != "driver.lock":
            fs.pipe_file(f"{root}/{path.relative_to('store').as_posix()}", path.read_bytes())
    listed = door(studies, "list", *STORE)[1]["studies"]
    code, found, told = door(studies, "list", "--storage", place)
    assert code == 0, told
    for mine, its in zip(listed, found["studies"], strict=True):
        assert {**mine, "written": None, "bytes": 0, "files": 0} == {**its, "written": None, "bytes": 0, "files": 0}
    fs.pipe_file(f"{root}/stages/notes.txt", b"foreign")
    assert door(studies, "clean", "--older", "0s", "--storage", place)[1]["bytes"] == 0
    code, exported, told = door(studies, "export", "s", "--out", "cloud.yaml", "--storage", place)
    assert code == 0 and exported["seed"] == door(studies, "export", "s", *STORE)[1]["seed"], told
    fs.pipe_file(f"{root}/studies/s/driver.lease/other.machine.1", b"1")
    assert "s is running; stop it first" in door(studies, "delete", "s", "--yes", "--storage", place)[2]
    shutil.rmtree("reports/s")
    monkeypatch.setattr(
        "raymc.commands.report.sleep", lambda _: fs.rm_file(f"{root}/studies/s/driver.lease/other.machine.1")
    )
    code, found, told = door(report, "s", "--watch", "--storage", place)
    assert code == 0 and found["state"] == "finished" and Path("reports/s/index.html").is_file(), told
    code, _, told = door(studies, "delete", "s", "--yes", "--storage", place)
    assert code == 0 and door(studies, "list", "--storage", place)[1]["studies"] == [], told
    code, cleaned, told = door(studies, "clean", "--older", "0s", "--storage", place)
    assert code == 0 and cleaned["results"]["entries"] > 0, told
    assert list(listing(fs, root)) == [f"{root}/stages/notes.txt"]


def test_the_watched_page_says_what_runs_and_at_last_stays(
    here: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("store/studies/s").resolve()
    record = folder / "trials/0001/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "running", "score": None}))
    (folder / "trials/0001/seed-1/result.json").unlink()
    pages = []

    def wait(seconds: float) -> None:
        pages.append(Path("reports/s/index.html").read_text())
        if len(pages) == 2:
            at_work.close()

    with ExitStack() as at_work:
        at_work.enter_context(study_folder.locked(folder))
        monkeypatch.setattr("raymc.commands.report.sleep", wait)
        code, found, told = door(report, "s", "--watch", *STORE)
    assert code == 0 and found["state"] == "interrupted" and "study s is interrupted" in told
    for page in pages:
        assert '<meta http-equiv="refresh" content="5">' in page and "Left: 1 of 2 trials" in page
        assert "<td>trial 1</td>" in page and "finetune 1 of 1" in page and "Best so far: trial 0, acc" in page
    assert "refresh" not in Path("reports/s/index.html").read_text()


def test_what_differs_is_said_and_bad_words_are_refused(here: Path, door: Door) -> None:
    Path("mine.yaml").write_text(SPACE.replace("high: 5.0", "high: 6.0").replace("n_samples: 120, ", ""))
    code, _, told = door(tune, "--resume", "mine.yaml", "--name", "s", *STORE)
    assert code == 0 and "mine.yaml has changed since study s began: fixed.n_samples is gone (120); " in told
    assert "space.finetune.kappa.high was 5.0 and is 6.0. Study s goes on with its own copy; for the file as " in told
    manifest = Path("store/studies/s/study.json")
    content = json.loads(manifest.read_text())
    for text, words in {
        SPACE.replace("trials: 2", "trials: 5"): "was 2 and is 5. Study s goes on with its own copy; --trials 5",
        SPACE.replace("kappa", "kapa"): "own copy of the space: mine.yaml: unknown key in space: finetune.kapa",
        "method: [": "study s goes on with its own copy of the space: mine.yaml: ",
        "": "study s goes on with its own copy of the space: mine.yaml: no such file",
    }.items():
        Path("mine.yaml").unlink()
        if text:
            Path("mine.yaml").write_text(text)
        assert words in str(changed_since(content, "mine.yaml"))
    Path("mine.yaml").write_text(SPACE)
    assert changed_since(content, "mine.yaml") is None
    manifest.write_text(json.dumps(content | {"smoke": True}))
    assert "study s is a smoke run, and goes on as one" in door(tune, "--resume", "mine.yaml", "--name", "s", *STORE)[2]
    manifest.write_text(json.dumps(content))
    Path("full.yaml").write_text("method: gcml")
    wrong: list[tuple[Any, tuple[str, ...], str]] = [
        (studies, ("show", "x"), "no study x in "),
        (studies, ("delete", "x"), "no study x in "),
        (studies, ("shwo",), "invalid choice: 'shwo'"),
        (studies, ("export", "s", "--out", "best.txt"), "a name that ends in .yaml"),
        (studies, ("export", "t"), "no study t in "),
        (studies, ("compare", "s"), "name two studies or more"),
        (studies, ("compare", "s", "nobody"), "is called nobody"),
        (studies, ("clean", "--older", "soon"), "--older soon: expected: a number and s, m, h, d or w"),
        (studies, ("delete", "s"), "delete needs --yes, or --dry-run"),
        (train, ("ss",), "is called ss; did you mean s?"),
        (report, ("x", "--watch"), "no study x in "),
        (tune, ("mine.yaml", "--resume=auto"), "--resume=auto needs --name"),
        (tune, ("mine.yaml", "--resume=never"), "ignored explicit argument 'never'"),
        (tune, ("mine.yaml", "--resume", "--name", "s", "pretrain.epochs=3"), "with pretrain.epochs=2, not pretrain.e"),
    ]
    for module, words, line in wrong:
        code, _, told = door(module, *words, *(() if words == ("shwo",) else STORE))
        assert code == 2 and line in told and "Traceback" not in told, (words, told)


def test_a_study_is_named_after_any_file(here: Path, door: Door) -> None:
    for name in ("мой поиск 🎉", "-x" * 110):
        path = Path(f"{name}.yaml")
        path.write_text(SPACE)
        code, found, told = door(tune, "--trials", "1", *STORE, "--", str(path.resolve()))
        assert code == 0 and (here / "store/studies" / found["study"] / "study.json").is_file(), told
        assert len(found["study"].encode()) < 90 and not found["study"].startswith(("-", "."))
        code, again, _ = door(tune, "--resume", *STORE, "--", str(path.resolve()))
        assert code == 0 and again["study"] == found["study"]
