"""Ray Train gives what one process gives, on different data per worker; errors keep their kind."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import ProcessGroup

pytest.importorskip("ray")

from raymc.config import Config, resolve  # noqa: E402
from raymc.distributed import Workers, world  # noqa: E402
from raymc.errors import DivergedError  # noqa: E402
from raymc.execution import cluster, driver  # noqa: E402
from raymc.execution.needs import Needs  # noqa: E402
from raymc.execution.worker import Job, run_workers  # noqa: E402
from raymc.methods import METHODS  # noqa: E402
from raymc.training.run import run  # noqa: E402
from raymc.training.stages import seeds_of  # noqa: E402
from tests.test_checkpoint import WORDS  # noqa: E402
from tests.worker_pool import on_workers  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own


def _config(name: str = "nmce", **more: Any) -> Config:
    method = METHODS[name]
    small = {"pre_feature_dim": 32, "feature_dim": 16, "precision": "float64"}
    small |= {f"{stage}.epochs": 2 for stage in method.stage_settings} | {"evaluate_every": 1}
    layers = (
        method.presets["digits"][method.default_preset],
        small,
        {k.replace("__", "."): v for k, v in more.items()},
    )
    return resolve(name, "digits", method.default_preset, method.stage_settings, *layers)


def _job(config: Config, folder: Path) -> Job:
    seeds = seeds_of(tuple(METHODS[config.method].stage_settings), config.seed, 0, None)
    return Job(config=config, storage=str(folder / "s"), data=None, out=folder / "out", stage_seeds=seeds)


def _curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "curve.jsonl").read_text().splitlines()]


def _assert_same(one: dict[str, Any], several: dict[str, Any], left: Path, right: Path, stages: int) -> None:
    """Losses, metrics and stage keys of two trainings; `left` and `right` are their folders."""
    for a, b in zip(_curve(left), _curve(right), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            expected = b[key] if isinstance(value, str) else pytest.approx(b[key], rel=1e-9, abs=1e-9)
            assert value == expected, (key, a, b)
    assert len(_curve(left)) == 2 * stages
    assert one["metrics"] == pytest.approx(several["metrics"], rel=1e-9)
    assert [s["key"] for s in one["stages"]] == [s["key"] for s in several["stages"]]


def _trained(group: ProcessGroup | None, folder: str, config: Config) -> dict[str, Any]:
    rank, size = world(group)
    job = _job(config, Path(folder))
    return run(
        config, storage=job.storage, out=job.out, stage_seeds=job.stage_seeds, workers=Workers(rank, size, group)
    )


def test_two_workers_under_ray_train_give_the_losses_and_metrics_of_one(tmp_path: Path, ray_here: None) -> None:
    config = _config(heads__cluster_init="kmeans")
    one = _trained(None, str(tmp_path / "one"), config)
    two = run_workers(_job(config, tmp_path / "two"), Needs(2, 0.0, 0.5))
    _assert_same(one, two, tmp_path / "one", tmp_path / "two", len(config.stages))


@pytest.mark.parametrize(
    "more", [{}, {"heads__cluster_net": "pre_feature", "heads__projection_iterations": 5}], ids=["exact", "published"]
)
def test_two_workers_of_a_group_give_what_one_gives_by_mlc(more: dict[str, Any], tmp_path: Path) -> None:
    """Under Ray Train workers are such a group; also with the projection that was published."""
    config = _config("mlc", **more)
    one = _trained(None, str(tmp_path / "one"), config)
    for found in on_workers(_trained, [str(tmp_path / "two")] * 2, config=config):
        _assert_same(one, found, tmp_path / "one", tmp_path / "two", len(config.stages))


def test_a_divergence_on_a_worker_is_a_divergence_here(tmp_path: Path, ray_here: None) -> None:
    config = _config(pretrain__optimizer="sgd", pretrain__learning_rate=1e200)
    with pytest.raises(DivergedError, match="pretrain"):
        run_workers(_job(config, tmp_path), Needs(2, 0.0, 0.5))


def test_workers_find_checkpoints_that_lie_in_the_commands_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    """Theirs is another: that in which Ray was started."""
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "n_samples=300"]
    command("train", *words, "--out", "one")
    command("checkpoint", *words, "--out", "checkpoints/two")
    shutil.rmtree("raymc-storage")
    again = command("train", *words, "--out", "other", "--workers", "2", "--from", "heads")
    assert "started from the float16 weights of checkpoint two" in again["told"]
    assert [stage["cached"] for stage in again["stages"]] == [True, False]


def test_a_training_joins_a_running_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any) -> None:
    """Also one with one worker, which trains under Ray as it does without; a cluster's machines are not cut to fit."""
    monkeypatch.chdir(tmp_path)
    joined: list[str | None] = []
    cut: list[bool] = []
    session, plan = cluster.ray_session, driver.plan_slots

    def join(address: str | None, dashboard: bool) -> AbstractContextManager[None]:
        joined.append(address)
        return session(address, dashboard)

    def planned(*words: Any, fixed: bool) -> driver.Slots:
        cut.append(fixed)
        return plan(*words, fixed=fixed)

    monkeypatch.setattr(cluster, "ray_session", join)
    monkeypatch.setattr(driver, "plan_slots", planned)
    words = [*WORDS, "n_samples=300", "precision=float64"]
    alone = command("train", *words, "--out", "one", "--storage", "a")
    assert joined == []
    there = command("train", *words, "--out", "two", "--storage", "b", "--address", "auto")
    assert (joined, cut) == (["auto"], [False]) and "1 worker under Ray Train" in there["told"]
    assert there["metrics"] == pytest.approx(alone["metrics"], rel=1e-9)
    assert (tmp_path / "two" / "model" / "weights.safetensors").is_file()
