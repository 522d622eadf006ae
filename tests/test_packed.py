"""Packed seeds: each gets what a training of its own gives, stages are shared, and what cannot be packed is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymc import ops
from raymc.config import Config, StageConfig, Value, resolve
from raymc.datasets import load
from raymc.errors import DivergedError
from raymc.execution.train_seed import TrainSeed, _pack
from raymc.methods import METHODS, gcml
from raymc.space.space import load_space
from raymc.storage.stage_store import Store
from raymc.training import loop, packed, stacked
from raymc.training.packed import fill_store, packs
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import seeds_of

METHOD = METHODS["gcml"]
STAGES = tuple(METHOD.stage_settings)
SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few = limit(load("digits"), 60)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: few)


def config_of(**over: Value) -> Config:
    """A few epochs, in which every loss has its turn."""
    given: dict[str, Value] = {
        "feature_dim": 3,
        "precision": "float64",
        "evaluate_every": 2,
        "finetune__centers_by": "kmeans",
        "pretrain__epochs": 2,
        "pretrain__batch_size": 16,
        "finetune__epochs": 4,
        "finetune__start_epoch": 1,
        "finetune__continuation_epochs": 3,
        "finetune__anchor_epochs": 2,
        "finetune__batch_size": 16,
        "finetune__neighbours": 2,
        "finetune__rank_weight": 1.0,  # the preset's weights throw so few points together within four epochs
        "finetune__align_weight": 1.0,
    }
    keys = {key.replace("__", "."): value for key, value in (given | over).items()}
    return resolve("gcml", "digits", "tuned", METHOD.stage_settings, METHOD.presets["digits"]["tuned"], keys)


def stage_seeds(seeds: Sequence[int] = SEEDS, seeds_from: str = "pretrain") -> list[dict[str, int]]:
    return [seeds_of(STAGES, seed, 0, seeds_from) for seed in seeds]


def separate(config: Config, folder: Path, seeds: Sequence[dict[str, int]], **more: Any) -> list[dict[str, Any]]:
    """The runs of the seeds, one after another."""
    return [
        run(
            dataclasses.replace(config, seed=at),
            storage=str(folder / "store"),
            out=folder / str(at),
            stage_seeds=one,
            **more,
        )
        for at, one in enumerate(seeds)
    ]


def pack(config: Config, folder: Path, seeds: Sequence[dict[str, int]], **more: Any) -> None:
    fill_store([(config, one) for one in seeds], storage=str(folder / "store"), **more)


def cached(results: list[dict[str, Any]]) -> list[list[bool]]:
    return [[stage["cached"] for stage in result["stages"]] for result in results]


def flat(weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{module}.{name}": value for module, state in weights.items() for name, value in state.items()}


def assert_same_stage(one: Path, other: Path, key: str, rtol: float = 1e-9) -> None:
    left, right = (Store(str(folder / "store")).load(key) for folder in (one, other))
    assert left is not None and right is not None and left.state.keys() == right.state.keys()
    pairs = [(flat(left.state["weights"]), flat(right.state["weights"]))]
    pairs.append((left.state["snapshots"], right.state["snapshots"]))
    for before, after in pairs:
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=rtol, atol=rtol * 1e-2, msg=name)
    assert left.meta["scored"] == right.meta["scored"] and left.meta["stage"] == right.meta["stage"]
    for before, after in zip(left.meta["curve"], right.meta["curve"], strict=True):
        assert list(before) == list(after)
        numbers = {name: value for name, value in before.items() if isinstance(value, float)}
        assert {name: after[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"pretrain__optimizer": "sgd", "finetune__optimizer": "sgd", "finetune__loss_scales": "paper"},
        {"finetune__loss_scales": "published", "finetune__reconstruction_weight": 0.0, "pretrain__augmentations": 0},
        {"finetune__alternating": False, "finetune__beta": 0.0, "finetune__align_weight": 0.0},
    ],
)
def test_a_packed_seed_equals_its_own_run(tmp_path: Path, over: dict[str, Value]) -> None:
    config, seeds = config_of(**over), stage_seeds()
    alone = separate(config, tmp_path / "a", seeds)
    pack(config, tmp_path / "b", seeds)
    together = separate(config, tmp_path / "b", seeds)
    assert cached(alone) == [[False, False]] * 3 and cached(together) == [[True, True]] * 3
    for one, other in zip(alone, together, strict=True):
        assert [stage["key"] for stage in one["stages"]] == [stage["key"] for stage in other["stages"]]
        assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
        for stage in one["stages"]:
            assert_same_stage(tmp_path / "a", tmp_path / "b", stage["key"])
    store = Store(str(tmp_path / "b" / "store"))
    ends = [store.load(result["stages"][1]["key"]) for result in together]
    first, *others = (end.state["weights"]["encoder"]["1.weight"] for end in ends if end is not None)
    assert all(float((first - other).abs().max()) > 1e-2 for other in others)


def test_in_float32_by_onednn_too(tmp_path: Path) -> None:
    config, seeds = config_of(precision="float32"), stage_seeds((0, 1))
    alone = separate(config, tmp_path / "a", seeds)
    pack(config, tmp_path / "b", seeds)
    for result in alone:
        for stage in result["stages"]:
            left, right = (Store(str(tmp_path / f / "store")).load(stage["key"]) for f in "ab")
            assert left is not None and right is not None
            before, after = (flat(entry.state["weights"]) for entry in (left, right))
            for name in before:
                torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3, msg=name)


def test_a_shared_stage_is_computed_once_and_the_first_seed_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    whole = packed._train

    def counted(members: list[Any], *rest: Any) -> list[str]:
        trained.append(len(members))
        return whole(members, *rest)

    monkeypatch.setattr(packed, "_train", counted)
    config, seeds = config_of(), stage_seeds(seeds_from="finetune")
    told: list[dict[str, Any]] = []
    pack(config, tmp_path, seeds, report=told.append)
    assert trained == [3]
    assert [(row["stage"], row["epoch"]) for row in told] == [
        *(("pretrain", 1), ("pretrain", 2)),
        *(("finetune", epoch) for epoch in (1, 2, 3, 4)),
    ]
    assert "acc" in told[-1] and len(list((tmp_path / "store" / "stages").iterdir())) == 4
    assert cached(separate(config, tmp_path, seeds)) == [[True, True]] * 3


def test_what_a_pack_computed_counts_as_computed_once(tmp_path: Path) -> None:
    config, seeds = config_of(), stage_seeds(seeds_from="finetune")
    made = fill_store([(config, one) for one in seeds], storage=str(tmp_path / "store"))
    assert len(made) == 4 and all(seconds > 0 for seconds in made.values())
    expected = dict(made)
    results = separate(config, tmp_path, seeds, made=made)
    assert cached(results) == [[False, False], [True, False], [True, False]] and not made
    told = {stage["key"]: stage["seconds"] for result in results for stage in result["stages"] if not stage["cached"]}
    assert told == expected
    assert fill_store([(config, one) for one in seeds], storage=str(tmp_path / "store")) == {}


def test_what_is_stored_or_held_or_begun_by_others_is_left_out(tmp_path: Path) -> None:
    config, seeds = config_of(finetune__epochs=2), stage_seeds((0, 1, 2, 3))
    first = separate(config, tmp_path, seeds[:1])[0]
    held, begun = (separate(config, tmp_path / "other", [seeds[at]])[0]["stages"][1]["key"] for at in (1, 2))
    store = Store(str(tmp_path / "store"))
    lease = store.lease(held)
    assert lease.try_acquire()
    store.save(begun, {}, {"epoch": 1}, "epoch")
    pack(config, tmp_path, [*seeds, *stage_seeds((4,))])
    lease.release()
    store.discard(begun, "epoch")
    found = separate(config, tmp_path, [*seeds, *stage_seeds((4,))])
    assert [result["stages"][1]["cached"] for result in found] == [True, False, False, True, True]
    assert all(result["stages"][0]["cached"] for result in found)
    assert found[0]["metrics"] == pytest.approx(first["metrics"], rel=1e-6)
    assert not list((tmp_path / "store").rglob("lease"))


@pytest.mark.parametrize(
    ("over", "left"),
    [
        ({"compile": True}, [False, False]),
        ({"finetune__alternating": False}, [True, False]),
    ],
)
def test_what_does_not_pack_is_left_to_the_runs(tmp_path: Path, over: dict[str, Value], left: list[bool]) -> None:
    config, seeds = config_of(**over), stage_seeds((0, 1))
    pack(config, tmp_path, seeds, smoke=True)
    config = dataclasses.replace(config, compile=False)
    assert cached(separate(config, tmp_path, seeds, smoke=True)) == [left] * 2


def test_batchnorm_and_compile_do_not_pack() -> None:
    config = config_of()
    stage = METHOD.stages(config)[0]
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in stage.trained})
    assert packs(stage, config, model)
    assert not packs(stage, dataclasses.replace(config, compile=True), model)
    model["encoder"] = nn.Sequential(nn.BatchNorm1d(2))
    assert not packs(stage, config, model)
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in stage.trained} | {"read": nn.BatchNorm1d(2)})
    read = dataclasses.replace(stage, reads=("read",))
    assert packs(read, config, model)  # frozen, with its statistics
    pretrain = dataclasses.replace(config.stages["pretrain"], frozen_statistics=False)
    assert not packs(read, dataclasses.replace(config, stages={**config.stages, "pretrain": pretrain}), model)


def test_a_seed_that_diverges_leaves_the_stage_to_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, seeds = config_of(), stage_seeds((0, 1))
    true = loop.train_epoch

    def broken(updates: Any, feed: Any, seed: int, epoch: int) -> dict[str, Tensor]:
        numbers = true(updates, feed, seed, epoch)
        if updates.stage.name == "finetune" and epoch == 2:
            raise DivergedError("stage finetune: the loss is not finite")
        return numbers

    monkeypatch.setattr(packed, "train_epoch", broken)
    pack(config, tmp_path, seeds)
    assert cached(separate(config, tmp_path, seeds)) == [[True, False]] * 2


def test_a_smoke_pack_is_found_by_smoke_runs(tmp_path: Path) -> None:
    config, seeds = config_of(), stage_seeds((0, 1))
    pack(config, tmp_path, seeds, smoke=True)
    assert cached(separate(config, tmp_path, seeds, smoke=True)) == [[True, True]] * 2


def test_a_stage_without_epochs_is_handed_on(tmp_path: Path) -> None:
    config, seeds = config_of(pretrain__epochs=0), stage_seeds((0, 1))
    alone = separate(config, tmp_path / "a", seeds, smoke=True)
    pack(config, tmp_path / "b", seeds, smoke=True)
    assert cached(separate(config, tmp_path / "b", seeds, smoke=True)) == [[False, True]] * 2
    for result in alone:
        assert_same_stage(tmp_path / "a", tmp_path / "b", result["stages"][1]["key"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dense_layer_under_vmap_is_that_layer_many_times(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, w, b = (torch.randn(*shape, dtype=dtype) for shape in ((3, 7, 5), (3, 4, 5), (3, 4)))
    for dims, rows in (((0, 0, 0), x), ((None, 0, 0), x[0])):
        ours, theirs = ([t.clone().requires_grad_() for t in (rows, w, b)] for _ in range(2))
        found = torch.func.vmap(lambda *one: ops.dense(*one, True), in_dims=dims)(*ours)
        each = theirs[0] if dims[0] == 0 else [theirs[0]] * 3
        wanted = torch.stack([ops.dense(*one, True) for one in zip(each, *theirs[1:], strict=True)])
        torch.testing.assert_close(found, wanted)
        found.square().sum().backward()
        wanted.square().sum().backward()
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left.grad, right.grad)


def test_seeds_of_a_pack() -> None:
    seeds = (5, 6, 7, 8, 9)
    assert [_pack(seeds, seed, 2) for seed in seeds] == [(5, 6), (6,), (7, 8), (8,), (9,)]
    assert _pack(seeds, 5, 9) == seeds and _pack(seeds, 5, 1) == () and _pack(seeds, 1, 2) == _pack((), 1, 2) == ()


def test_a_trial_packs_the_seeds_that_its_process_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    space = load_space("gcml_digits")
    space = dataclasses.replace(space, fixed={**space.fixed, "packed_seeds": 2})
    body = TrainSeed(space, str(tmp_path / "store"), "", 0, "finetune", smoke=True, seeds=(0, 1, 2))
    told: list[dict[str, Any]] = []
    found = [body({}, seed, tmp_path / str(seed), told.append) for seed in (0, 1, 2)]
    assert cached(found) == [[False, False], [True, False], [True, False]]
    assert [row["epoch"] for row in told if row["event"] == "epoch"] == [1, 2] * 3


def test_draws_are_asked_for_once_and_made_for_each_seed() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2)}).double()
    twin = nn.ModuleDict({"encoder": nn.Linear(2, 2)}).double()
    asked: list[str] = []

    def loss(model: Any, batch: Any, config: Any, group: Any) -> tuple[Tensor, dict[str, Tensor]]:
        found = (model["encoder"](batch.views[0]) * batch.normal("a", 2) + batch.uniform("b", 2)).square().mean()
        return found, {}

    def draw(name: str, width: int) -> Tensor:
        asked.append(name)
        return torch.arange(2 * 3 * width, dtype=torch.float64).view(2, 3, width)

    x = torch.randn(2, 3, 2, dtype=torch.float64)
    batch = gcml.Batch((x,), torch.arange(6).view(2, 3), draw, draw)
    both = stacked.stack([model, twin])
    step = stacked.packed_loss(loss, [StageConfig()] * 2, shared=False)
    total, terms = step(both, batch, StageConfig(), None)
    each = terms["loss"].detach()
    asked.clear()
    step(both, batch, StageConfig(), None)
    assert sorted(asked) == ["a", "b"]
    for at, own in enumerate((model, twin)):
        mine = dataclasses.replace(batch, views=(x[at],), uniform=lambda n, w, at=at: draw(n, w)[at])
        mine = dataclasses.replace(mine, normal=lambda n, w, at=at: draw(n, w)[at])
        assert float(each[at]) == pytest.approx(float(loss(own, mine, None, None)[0].detach()), rel=1e-12)
    assert math.isclose(float(total.detach()), float(each.sum()), rel_tol=1e-12)
