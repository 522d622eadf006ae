"""Feature banks: what is kept, how views are drawn from it, and trainings behind it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import ProcessGroup

from raymc.config import Config, resolve
from raymc.datasets import Dataset, load
from raymc.distributed import Workers
from raymc.errors import InputError, Interrupted
from raymc.estimators.model import load_model
from raymc.methods import METHODS
from raymc.methods.base import Batch
from raymc.storage.stage_store import Store
from raymc.training import model_files
from raymc.training.feature_bank import Bank, BankedStage, bank_key
from raymc.training.feed import Feed
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import check_sizes, enter, seeds_of, stage_key
from raymc.training.training import Training
from tests.worker_pool import on_workers

ROWS = 200
ALONE = Workers()


def few() -> Dataset:
    return limit(load("digits"), ROWS)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = few()
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: digits)


def make_config(method: str = "nmce", **overrides: Any) -> Config:
    """Small, with a few epochs of stage 1 and of the heads behind it."""
    of = METHODS[method]
    small: dict[str, Any] = {"pre_feature_dim": 32, "feature_dim": 16, "pretrain.epochs": 3, "heads.epochs": 3}
    small |= {"pretrain.batch_size": 64, "heads.batch_size": 64, "heads.feature_bank": 3}
    small |= {"finetune.epochs": 0} if method == "nmce" else {}
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve(method, "digits", "paper", of.stage_settings, of.presets["digits"]["paper"], small | keys)


def train(config: Config, storage: Path, out: Path, seed: int = 0, **more: Any) -> dict[str, Any]:
    seeds = seeds_of(tuple(METHODS[config.method].stage_settings), seed, 0, "heads")
    return run(config, storage=str(storage), out=out, stage_seeds=seeds, **more)


def banked(storage: Path, workers: Workers = ALONE, config: Config | None = None) -> BankedStage:
    """The bank of an untrained net."""
    config = config or make_config()
    method = METHODS[config.method]
    first, heads = method.stages(config)[:2]
    model = enter(method, first, config, (1, 8, 8), 10, {}, 0)
    feed = Feed.build(few(), config.augmentation, torch.device("cpu"), torch.float32, False, workers)
    bank = Bank(model, config, config.stages[heads.name], feed, Store(str(storage)), None)
    return BankedStage(model, feed, bank)


def batches(seen: BankedStage, seed: int = 0, epoch: int = 0, views: int = 2) -> list[Batch]:
    return list(seen.feed.epoch("heads", seed, epoch, 64, views))


def test_a_bank_holds_the_frozen_backbones_outputs(tmp_path: Path) -> None:
    seen = banked(tmp_path)
    backbone, images = seen.bank._whole["backbone"].eval(), seen.bank._samples
    with torch.no_grad():
        plain = backbone(images.plain(few().train.x))
        augmented = backbone(images.augmented(few().train.x, "bank", 1, 0))
    torch.testing.assert_close(seen.data.train.x, plain)
    assert seen.data.train.x.dtype == torch.float32 and seen.data.test is not None
    torch.testing.assert_close(seen.feed.stored[1].float(), augmented, rtol=2**-8, atol=1e-3)
    assert seen.feed.stored[1].dtype == torch.bfloat16
    assert not torch.equal(seen.feed.stored[0], seen.feed.stored[1])


def test_a_step_takes_kept_views_of_its_own_samples_no_two_the_same(tmp_path: Path) -> None:
    seen = banked(tmp_path)
    stored = torch.stack(seen.feed.stored)
    counts = torch.zeros(3)
    for batch in batches(seen):
        own = stored[:, batch.index]  # [V, b, p]
        which = [(own == view.to(torch.bfloat16)).all(2).int() for view in batch.views]
        assert all(bool((one.sum(0) == 1).all()) for one in which)  # one of the sample's own, exactly
        assert not bool((which[0] * which[1]).any())
        counts += which[0].sum(1)
    assert float(counts.min()) > 0.2 * float(counts.sum())


def test_views_in_one_tensor_as_on_a_gpu_are_taken_alike(tmp_path: Path) -> None:
    seen = banked(tmp_path)
    stacked = dataclasses.replace(seen.feed)
    stacked.__dict__["stored"] = torch.stack(tuple(seen.feed.stored))
    for one, other in zip(batches(seen), stacked.epoch("heads", 0, 0, 64), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def test_the_draws_follow_seed_and_epoch_and_no_view_is_the_plain_sample(tmp_path: Path) -> None:
    seen = banked(tmp_path)
    first, again, other, later = (batches(seen, s, e)[0].views[0] for s, e in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, later)
    plain = batches(seen, views=0)[0]
    assert torch.equal(plain.views[0], seen.data.train.x[plain.index])


@pytest.mark.parametrize("method", ["nmce", "mlc"])
def test_the_head_behind_a_bank_labels_images_as_the_whole_net_does(tmp_path: Path, method: str) -> None:
    config = make_config(method)
    train(config, tmp_path / "s", tmp_path / "o", keep_model=True)
    model = load_model(tmp_path / "o", device="cpu")
    assert "backbone" in model.trained.modules
    data, found = few(), np.load(tmp_path / "o" / "labels.npz")
    assert data.test is not None and len(set(found["test_labels"])) > 1
    assert np.array_equal(model.predict(data.test.x), found["test_labels"])
    if method == "nmce":  # MLC's clusters are found among the samples, not by the assigner
        assert np.array_equal(model.predict(data.train.x), found["labels"])


def test_seeds_and_settings_share_a_bank_and_a_second_run_is_the_first(tmp_path: Path) -> None:
    config = make_config()
    first = train(config, tmp_path / "s", tmp_path / "a")
    folders = {path.parent.name for path in (tmp_path / "s").rglob("view0.json")}
    train(make_config(heads__eps_sq=0.4), tmp_path / "s", tmp_path / "b", seed=7)
    assert {path.parent.name for path in (tmp_path / "s").rglob("view0.json")} == folders and len(folders) == 1
    again = train(config, tmp_path / "s", tmp_path / "c")
    assert [stage["cached"] for stage in again["stages"][:2]] == [True, True]
    assert again["metrics"] == first["metrics"]


def test_finetuning_follows_a_stage_behind_a_bank(tmp_path: Path) -> None:
    result = train(make_config(finetune__epochs=1, finetune__batch_size=64), tmp_path / "s", tmp_path / "a")
    assert result["metrics"]["clusters_used"] >= 2
    store = Store(str(tmp_path / "s"))
    before, after = (store.load(result["stages"][at]["key"]) for at in (0, 2))
    assert before is not None and after is not None
    pairs = [(entry.state["weights"]["backbone"]["net.0.weight"]) for entry in (before, after)]
    assert not torch.equal(*pairs), "it trains the backbone itself, not what the bank has of it"
    only = train(make_config(), tmp_path / "s", tmp_path / "b")
    assert [stage["cached"] for stage in only["stages"]] == [True, True, False]


def test_a_result_holds_what_its_stage_changed(tmp_path: Path) -> None:
    result = train(make_config(), tmp_path / "s", tmp_path / "a")
    keys = {stage["name"]: stage["key"] for stage in result["stages"]}
    entries = {name: Store(str(tmp_path / "s")).load(keys[name]) for name in ("pretrain", "heads")}
    held = {name: set(entry.state["weights"]) for name, entry in entries.items() if entry is not None}
    assert held == {"pretrain": {"backbone", "pre_feature", "projection"}, "heads": {"subspace", "cluster"}}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What banks compute: the number of a view, or None for samples as they are."""
    made: list[int | None] = []
    honest = Bank._outputs

    def counted(self: Bank, x: torch.Tensor, view: int | None = None) -> torch.Tensor:
        if view == 1 and 1 not in made:
            made.append(view)
            raise Interrupted("")
        made.append(view)
        return honest(self, x, view)

    monkeypatch.setattr(Bank, "_outputs", counted)
    return made


def test_a_bank_that_was_interrupted_goes_on(tmp_path: Path, made: list[int | None]) -> None:
    with pytest.raises(Interrupted):
        _ = banked(tmp_path).feed.stored
    assert len(banked(tmp_path).feed.stored) == 3
    assert made == [None, None, 0, 1, 1, 2]  # the samples, the held-out ones, the views


def test_to_evaluate_a_stored_stage_no_views_are_made(tmp_path: Path, made: list[int | None]) -> None:
    made.append(1)  # none is interrupted
    first = train(make_config(), tmp_path / "s", tmp_path / "a")
    (bank,) = {path.parent for path in (tmp_path / "s").rglob("view0.json")}
    shutil.rmtree(bank)
    del made[1:]
    again = train(make_config(), tmp_path / "s", tmp_path / "b")
    assert made[1:] == [None, None] and again["metrics"] == first["metrics"]


def test_a_torn_output_is_made_again(tmp_path: Path, made: list[int | None]) -> None:
    made.append(1)
    before = banked(tmp_path).feed.stored
    (file,) = tmp_path.rglob("view1-*.pt")
    file.write_bytes(file.read_bytes()[:-64])
    del made[1:]
    after = banked(tmp_path).feed.stored
    assert made[1:] == [1] and all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_output_that_cannot_be_read_back_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "load", lambda *args, **kwargs: None)
    with pytest.raises(InputError, match="cannot be read back"):
        _ = banked(tmp_path).data


def rows_by_worker(group: ProcessGroup | None, storage: str) -> list[np.ndarray]:
    """This worker's first batch behind a bank: view, index; and the plain outputs."""
    torch.set_num_threads(1)
    workers = Workers(group.rank(), group.size(), group) if group else Workers()
    seen = banked(Path(storage), workers)
    batch = batches(seen)[0]
    return [batch.views[0].numpy(), batch.index.numpy(), seen.data.train.x.numpy()]


def test_two_workers_make_and_read_the_bank_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = rows_by_worker(None, str(tmp_path / "one"))
    both = on_workers(rows_by_worker, [str(tmp_path / "two")] * 2)
    for at in (0, 1):
        assert np.allclose(np.concatenate([worker[at] for worker in both]), alone[at], atol=1e-5)
    assert all(np.allclose(worker[2], alone[2], atol=1e-6) for worker in both)


def trained_by_worker(group: ProcessGroup | None, storage: str) -> list[dict[str, float]]:
    """Metrics of a training and of a second one, which finds every stage in the store."""
    torch.set_num_threads(1)
    workers = Workers(group.rank(), group.size(), group) if group else Workers()
    config = make_config(precision="float64")
    out = Path(storage) / f"out{workers.rank}"
    with patch("raymc.datasets.load_once", lambda config, root: few()):
        return [train(config, Path(storage), out, workers=workers)["metrics"] for _ in range(2)]


def test_trainings_by_two_workers_behind_a_bank_are_those_of_one(tmp_path: Path) -> None:
    alone = trained_by_worker(None, str(tmp_path / "one"))
    for metrics in on_workers(trained_by_worker, [str(tmp_path / "two")] * 2):
        assert metrics == [pytest.approx(one, abs=1e-6) for one in alone]


def test_a_bank_is_named_by_what_decides_its_numbers() -> None:
    config, data, net, other = make_config(), few(), *(nn.Linear(2, 2) for _ in range(2))
    base = bank_key(config, data, net)
    assert bank_key(make_config(heads__eps_sq=0.3, n_clusters=7), data, net) == base
    assert base not in {
        bank_key(config, data, other),
        bank_key(dataclasses.replace(config, augmentation="mnist"), data, net),
        bank_key(dataclasses.replace(config, precision="bfloat16"), data, net),
        bank_key(config, dataclasses.replace(data, fingerprint="other"), net),
    }


def test_what_was_trained_behind_other_weights_is_not_taken(tmp_path: Path) -> None:
    """Stage 1 made again, on another device say, lies under the same key with other weights."""
    config = make_config()
    first = train(config, tmp_path / "s", tmp_path / "a", keep_model=True)
    store, key = Store(str(tmp_path / "s")), first["stages"][0]["key"]
    entry = store.load(key)
    assert entry is not None
    moved = {k: v * 1.01 if v.is_floating_point() else v for k, v in entry.state["weights"]["backbone"].items()}
    store.save(key, entry.state | {"weights": entry.state["weights"] | {"backbone": moved}}, entry.meta)
    second = train(config, tmp_path / "s", tmp_path / "b", keep_model=True)
    assert [stage["cached"] for stage in second["stages"][:2]] == [True, False]
    saved = model_files.load(tmp_path / "b" / "model").modules
    assert torch.equal(saved["backbone"].state_dict()["net.0.weight"], moved["net.0.weight"])
    assert len({path.parent.name for path in (tmp_path / "s").rglob("view0.json")}) == 2
    third = train(config, tmp_path / "s", tmp_path / "c")
    assert third["stages"][1]["cached"] and third["metrics"] == second["metrics"]


def test_the_size_of_the_bank_is_a_setting_of_the_stage_and_no_bank_is_none() -> None:
    method, keys = METHODS["nmce"], {}
    for size in (0, 3, 4):
        config = make_config(heads__feature_bank=size)
        heads = method.stages(config)[1]
        model = enter(method, heads, config, (1, 8, 8), 10, {}, 0)
        keys[size] = stage_key(heads, config, model, "f", 0, "p")
        assert ("feature_bank" in config.stages["heads"].keyed()) == (size > 0)
    assert len(set(keys.values())) == 3


@pytest.mark.parametrize(
    ("method", "overrides", "words"),
    [
        ("nmce", {"heads__feature_bank": 1}, "takes 2 views"),
        ("nmce", {"heads__frozen_statistics": False}, "frozen_statistics: true"),
        ("mlc", {"heads__cluster_net": "whole"}, "trains its backbone"),
        ("mlc", {"heads__augmentations": 5}, "takes 5 views"),
    ],
)
def test_what_cannot_have_a_bank_is_told(method: str, overrides: Mapping[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_sizes(METHODS[method], make_config(method, **overrides), few(), 10)


def test_a_stream_has_no_bank() -> None:
    data = dataclasses.replace(few(), stream=lambda generator, n: torch.zeros(n, 64))
    with pytest.raises(InputError, match="made while training"):
        check_sizes(METHODS["nmce"], make_config(), data, 10)


def test_views_are_kept_in_half_precision_by_the_training_s_own_autocast(tmp_path: Path) -> None:
    config = make_config(precision="bfloat16")
    training = Training(
        config, few(), str(tmp_path), {"pretrain": 0, "heads": 0, "finetune": 0}, Workers(), None, lambda r: None, False
    )
    assert training.autocast == torch.bfloat16
    seen, exact = banked(tmp_path / "a", config=config), banked(tmp_path / "b")
    seen.bank._autocast = training.autocast
    assert torch.equal(seen.data.train.x, exact.data.train.x)  # what evaluation sees does not depend on it
    assert not torch.equal(seen.feed.stored[0], exact.feed.stored[0])
    torch.testing.assert_close(seen.feed.stored[0].float(), exact.feed.stored[0].float(), rtol=0.1, atol=0.05)
