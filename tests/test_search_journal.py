"""Trials in a journal, as on a folder of the network: the same search as in SQLite, killed at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from raymc.execution import session
from raymc.storage.shared_folder import is_network
from raymc.study import database, request
from raymc.study.distributions import enqueue
from raymc.study.request import Request
from tests.search_fakes import FIRST, SPACE, FakeTrainable, Killed, driver_here, make_queue, run_here, tune
from tests.test_search_study import Tracker

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
host:/export /shared nfs4 rw 0 0
tmpfs /shared/tmp tmpfs rw 0 0
scratch /scratch\\040of\\040all lustre rw 0 0
me@there: /home/me/there fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    "folder, expected",
    {
        "/home/me/x": False,
        "/home/me/there/x": True,
        "/shared": True,
        "/shared/raymc/studies": True,
        "/shared/tmp/x": False,
        "/shared2": False,
        "/scratch of all/x": True,
    }.items(),
)
def test_a_folder_of_the_network_is_known_by_its_mount(tmp_path: Path, folder: str, expected: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert is_network(Path(folder), tmp_path / "mounts") is expected
    assert not is_network(Path(folder), tmp_path / "none")


class KilledAt(FakeTrainable):
    def __init__(self, moment: int) -> None:
        super().__init__()
        self.left = moment

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        self.left -= 1
        if not self.left:
            raise Killed
        return super().__call__(params, seed, out, report)


def opened(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=database.open_journal(path))


@pytest.mark.parametrize("moment", [2, 5, 8])
def test_a_search_in_a_journal_is_that_in_sqlite_and_outlives_a_kill(tmp_path: Path, moment: int) -> None:
    """Also one that cut a line short; each session opens the file anew, as another process does."""
    storage = database.connect(database.file_url(tmp_path / "optuna.db"))
    whole = database.create(storage, "s", "max", ["acc"])
    enqueue(whole, [FIRST], SPACE)
    run_here(make_queue(tmp_path / "whole", whole, trials=3), tmp_path / "whole", FakeTrainable())
    path, folder = tmp_path / "optuna.log", tmp_path / "broken"
    study = database.create(database.open_journal(path), "s", "max", ["acc"])
    enqueue(study, [FIRST], SPACE)
    with pytest.raises(Killed):
        run_here(make_queue(folder, opened(path), trials=3), folder, KilledAt(moment))
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    again = FakeTrainable()
    run_here(make_queue(folder, opened(path), trials=3), folder, again)
    assert len(again.ended) == 10 - (moment - 1), "a finished training was run again"
    for facts in ("params", "value", "state", "user_attrs", "number"):
        assert [getattr(t, facts) for t in opened(path).get_trials()] == [getattr(t, facts) for t in whole.get_trials()]
    storage.engine.dispose()


@pytest.mark.parametrize("where", ["here", "network", "cluster"])
def test_where_a_study_keeps_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "mine.yaml").write_text(
        "method: nmce\ndataset: digits\nspace: {heads.weight_decay: [1.0e-3, 1.0e-2]}\n"
        "budget: {trials: 2, seeds: 1, confirm: null}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: FakeTrainable()))
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    monkeypatch.setattr(request, "is_network", lambda folder: where == "network")
    asked: dict[str, Any] = {"overrides": {}, "storage": "storage", "data": "data", "name": "s"}
    address = "head:6379" if where == "cluster" else None
    result = tune(Request(space="mine.yaml", **asked, address=address))
    assert result["trials"]["finished"] == 2
    journal = where != "here"
    folder = tmp_path / "storage/studies/s"
    assert [(folder / name).exists() for name in ("optuna.log", "optuna.db")] == [journal, not journal]
    more = tune(Request(space="mine.yaml", **asked, resume=True, trials=3))
    assert more["trials"]["finished"] == 3, "it goes on in the file that it has, wherever it is asked from"
