"""What `studies delete` takes, and what keeps it from taking anything. Nothing here was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymc.cli import execute
from raymc.commands import studies
from raymc.errors import InputError
from raymc.storage.exclusive_lease import driver_lease
from raymc.storage.objects import filesystem
from raymc.study import removal
from raymc.study.folder import Busy, locked
from raymc.study.inventory import find_entry
from raymc.study.needs import needs_of_storage
from tests.fabricated_stability import fabricate_run
from tests.fabricated_study import Fabricator

CREATED = "2026-01-05T10:00:00+00:00"


def study(storage: Path, name: str = "s") -> Path:
    Fabricator(storage / "studies" / name).study(created=CREATED)
    return storage / "studies" / name


def delete(storage: Path | str, name: str) -> None:
    removal.delete(str(storage), removal.plan_deletion(str(storage), find_entry(str(storage), name), None))


def test_no_arm_of_a_run_is_taken_from_under_its_driver(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "x", {"a": [0.5, 0.6], "b": [0.5, 0.6]})
    plan = removal.plan_deletion(str(tmp_path), find_entry(str(tmp_path), "x"), None)
    for arm in ("a", "b"):
        with locked(run / arm), pytest.raises(InputError, match="x is running; stop it first"):
            removal.delete(str(tmp_path), plan)  # since it was planned a driver has begun
        with locked(run / arm), pytest.raises(Busy), removal._alone(str(tmp_path), plan.entry):
            pass
    with removal._alone(str(tmp_path), plan.entry):
        for place in (run, run / "a", run / "b"):
            with pytest.raises(Busy), locked(place):
                pass
    delete(tmp_path, "x")
    assert not run.exists()


def test_no_arm_in_an_object_store_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(removal, "STALE_SECONDS", -1.0)
    storage = f"memory://{tmp_path.name}"
    fs, root = filesystem(storage)
    run = fabricate_run(tmp_path, "x", {"a": [0.5], "b": [0.5]})
    for path in run.rglob("*.json"):
        fs.pipe_file(f"{root}/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    plan = removal.plan_deletion(storage, find_entry(storage, "x"), None)
    lease = driver_lease(fs, f"{root}/stability/x/b/driver.lease")
    assert lease.try_acquire()
    with pytest.raises(Busy), removal._alone(storage, plan.entry):
        pass
    lease.release()
    delete(storage, "x")
    assert not fs.find(f"{root}/stability")


def test_only_its_own_report_goes_and_no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = Path("reports/s")
    report.mkdir(parents=True)
    for created, own in (("2026-02-01T00:00:00+00:00", False), (None, False), (CREATED, True)):
        study(tmp_path)
        for name in ("index.html", "trials.csv", "notes.txt"):
            (report / name).write_text("x")
        (report / "summary.json").write_text(json.dumps({"study": "s", "created": created}))
        delete(tmp_path, "s")
        left = ["notes.txt"] if own else ["index.html", "notes.txt", "summary.json", "trials.csv"]
        assert sorted(path.name for path in report.iterdir()) == left, created
    (report / "notes.txt").unlink()
    run = fabricate_run(tmp_path, "s-stability", {"a": [0.5]})
    facts = json.loads((run / "stability.json").read_text())
    report = report.rename("reports/s-stability")
    (report / "stability.json").write_text(json.dumps(facts | {"folder": str(run)}))
    (report / "stability.md").write_text("x")
    delete(tmp_path, "s-stability")
    assert not report.exists(), "an empty folder goes too"


def test_runs_in_mlflow_stay_while_the_study_cannot_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study(tmp_path)
    (folder / "spool").mkdir()
    (folder / "spool/id").write_text("abc")
    calls: list[object] = []
    monkeypatch.setattr("raymc.tracking.removal.delete_runs", lambda *words: calls.append(words) or 3)
    words = ["delete", "s", "--yes", "--mlflow", "--tracking-uri", "sqlite:///x.db", "--storage", str(tmp_path)]
    at_work = locked(folder)

    def then_a_driver_begins(*_: object) -> bool:
        at_work.__enter__()
        return True

    with monkeypatch.context() as patch:
        patch.setattr(studies, "_agreed", then_a_driver_begins)
        assert execute(studies.parser(), studies.run, words) == 2 and not calls and folder.exists()
    assert "s is running; stop it first" in capsys.readouterr().err
    at_work.__exit__(None, None, None)
    assert execute(studies.parser(), studies.run, words) == 0 and len(calls) == 1 and not folder.exists()


def test_a_study_that_is_a_link_is_refused_in_one_line(tmp_path: Path) -> None:
    real = study(tmp_path / "elsewhere")
    link = tmp_path / "here/studies/s"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    seed = real / "trials/0000/seed-0"
    seed.mkdir(parents=True)
    (seed / "result.json").write_text(json.dumps({"seed": 0, "state": "finished", "stages": [{"key": "f" * 32}]}))
    assert needs_of_storage(str(tmp_path / "here"))[0].results == {"f" * 32}, "`clean` leaves what it needs"
    with pytest.raises(InputError, match="is a link to"):
        delete(tmp_path / "here", "s")
    assert link.is_symlink() and (real / "study.json").is_file()


def test_a_study_that_was_begun_anew_meanwhile_stays(tmp_path: Path) -> None:
    folder = study(tmp_path)
    plan = removal.plan_deletion(str(tmp_path), find_entry(str(tmp_path), "s"), None)
    Fabricator(folder).study(created="2026-03-01T00:00:00+00:00")
    with pytest.raises(InputError, match="s is another study by now"):
        removal.delete(str(tmp_path), plan)
    assert (folder / "study.json").is_file()
