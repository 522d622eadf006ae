"""Packed configurations of stages behind a frozen backbone: each gets what its own training gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raymc import ops
from raymc.config import Config, resolve
from raymc.datasets import load
from raymc.errors import CollapsedError
from raymc.methods import METHODS
from raymc.storage.stage_store import Store
from raymc.training.packed import fill_store
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import seeds_of

NUMBERS = {
    "nmce": [
        {},
        {"heads.learning_rate": 0.03, "heads.weight_decay": 1e-2, "heads.cluster_learning_rate": 0.1},
        {"heads.eps_sq": 0.6, "heads.temperature": 2.0, "heads.cluster_weight_decay": 1e-2},
        {"heads.similarity_weight": 7.0, "heads.eps_sq": 0.1},
    ],
    "mlc": [
        {},
        {"heads.learning_rate": 0.1, "heads.weight_decay": 1e-2, "heads.gamma": 0.5},
        {"heads.eps_sq": 0.6, "heads.eta": 0.3},
    ],
}


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    few = limit(load("digits"), 160)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: few)


def config_of(method: str, *layers: Mapping[str, Any], precision: str = "float64") -> Config:
    of = METHODS[method]
    small: dict[str, Any] = {"pre_feature_dim": 32, "feature_dim": 8, "precision": precision, "evaluate_every": 2}
    small |= {
        "pretrain.epochs": 5,
        "pretrain.warmup_epochs": 0,
        "pretrain.similarity_weight": 0.0,
        "pretrain.batch_size": 64,
        "heads.epochs": 3,
        "heads.batch_size": 64,
    }
    small |= {"finetune.epochs": 0} if method == "nmce" else {}
    return resolve(method, "digits", "paper", of.stage_settings, of.presets["digits"]["paper"], small, *layers)


def trainings(method: str, seeds: Sequence[int] = (0,), **more: Any) -> list[tuple[Config, dict[str, Any]]]:
    names = tuple(METHODS[method].stage_settings)
    layer = {name.replace("__", "."): value for name, value in more.items()}
    return [
        (config_of(method, numbers, layer), seeds_of(names, seed, 0, "heads"))
        for numbers in NUMBERS[method]
        for seed in seeds
    ]


def runs(many: Sequence[tuple[Config, dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    """Stages and metrics of each; so short a training may end with all points in one cluster, and has none then."""
    found = []
    for at, (config, seeds) in enumerate(many):
        result: dict[str, Any] = {"stages": [], "metrics": {}}
        told: list[dict[str, Any]] = []
        with suppress(CollapsedError):
            result |= run(
                config, storage=str(folder / "store"), out=folder / str(at), stage_seeds=seeds, report=told.append
            )
        found.append(result | {"stages": [event for event in told if event["event"] == "stage"]})
    return found


def heads_of(folder: Path, result: Mapping[str, Any]) -> dict[str, Tensor]:
    entry = Store(str(folder / "store")).load(result["stages"][1]["key"])
    assert entry is not None
    return {f"{m}.{k}": value for m, state in entry.state["weights"].items() for k, value in state.items()}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("nmce", {"heads__feature_bank": 3}),
        ("nmce", {}),
        ("nmce", {"heads__optimizer": "adam", "heads__straight_through": True}),
        ("mlc", {"heads__feature_bank": 3, "heads__cluster_net": "linear"}),
        ("mlc", {"heads__projection_iterations": 5, "heads__cluster_net": "linear"}),
    ],
)
def test_a_packed_configuration_equals_its_own_training(tmp_path: Path, method: str, more: dict[str, Any]) -> None:
    many = trainings(method, **more)
    alone = runs(many, tmp_path / "a")
    fill_store(many, storage=str(tmp_path / "b" / "store"))
    together = runs(many, tmp_path / "b")
    assert all([stage["cached"] for stage in result["stages"][:2]] == [True, True] for result in together)
    ends = [heads_of(tmp_path / "b", result) for result in together]
    for one, other, end in zip(alone, together, ends, strict=True):
        wanted = heads_of(tmp_path / "a", one)
        assert end.keys() == wanted.keys()
        for name in end:
            torch.testing.assert_close(end[name], wanted[name], rtol=1e-7, atol=1e-9, msg=name)
        if method == "nmce":  # MLC's spectral clustering of so little is not steady to the last digit
            assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    apart = [max(float((end[name] - ends[0][name]).abs().max()) for name in end) for end in ends[1:]]
    assert min(apart) > 1e-6


def test_configurations_and_seeds_in_one_pack(tmp_path: Path) -> None:
    many = trainings("nmce", seeds=(0, 1), heads__feature_bank=3)
    alone = runs(many, tmp_path / "a")
    fill_store(many, storage=str(tmp_path / "b" / "store"))
    for one, other in zip(alone, runs(many, tmp_path / "b"), strict=True):
        assert other["stages"][1]["cached"]
        wanted = heads_of(tmp_path / "a", one)
        for name, value in heads_of(tmp_path / "b", other).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-7, atol=1e-9, msg=name)


def test_in_half_precision_packing_moves_weights_no_more_than_that_precision_does(tmp_path: Path) -> None:
    exact, half = (trainings("nmce", heads__feature_bank=3, precision=p) for p in ("float32", "bfloat16"))
    alone = runs(half, tmp_path / "a")
    fill_store(half, storage=str(tmp_path / "b" / "store"))
    together = runs(half, tmp_path / "b")
    assert all(result["stages"][1]["cached"] for result in together)
    for of, *results in zip(runs(exact, tmp_path / "c"), alone, together, strict=True):
        wanted, one, other = (
            torch.cat([value.flatten() for value in heads_of(tmp_path / at, result).values()])
            for at, result in zip("cab", (of, *results), strict=True)
        )
        assert float((other - one).norm()) < 0.3 * float((one - wanted).norm())


def test_one_that_diverges_does_not_take_the_others_along(tmp_path: Path) -> None:
    many = trainings("nmce", heads__feature_bank=3)
    many[1] = (
        config_of("nmce", {"heads.feature_bank": 3, "heads.optimizer": "lars", "heads.cluster_learning_rate": 1e308}),
        many[1][1],
    )
    fill_store(many, storage=str(tmp_path / "store"))
    found = runs([many[0], *many[2:]], tmp_path)
    assert [result["stages"][1]["cached"] for result in found] == [True] * 3
    assert len(list((tmp_path / "store").rglob("result.json"))) == 4  # stage 1, and three heads


def test_of_memberships_too_one_may_diverge(tmp_path: Path) -> None:
    rates = {"heads.learning_rate": 1e38, "heads.cluster_learning_rate": 1e38}
    common = {"heads.feature_bank": 3, "heads.cluster_net": "linear"}
    many = trainings("mlc", heads__feature_bank=3, heads__cluster_net="linear", precision="float32")
    many[1] = (config_of("mlc", common, rates, precision="float32"), many[1][1])
    fill_store(many, storage=str(tmp_path / "store"))
    found = runs([many[0], many[2]], tmp_path)
    assert [result["stages"][1]["cached"] for result in found] == [True] * 2
    assert len(list((tmp_path / "store").rglob("result.json"))) == 3  # stage 1, and two heads


def test_another_stage_1_is_not_shared(tmp_path: Path) -> None:
    many = trainings("nmce", heads__feature_bank=3)[:2]
    many[1] = (many[1][0], many[1][1] | {"pretrain": 5})
    fill_store(many, storage=str(tmp_path / "store"))
    assert [result["stages"][1]["cached"] for result in runs(many, tmp_path)] == [False, False]


def test_a_pack_is_of_configurations_that_differ_in_numbers_only(tmp_path: Path) -> None:
    (config, seeds), *_ = trainings("nmce")
    other = dataclasses.replace(config, feature_dim=9)
    with pytest.raises(ValueError, match="differ in no more"):
        fill_store([(config, seeds), (other, seeds)], storage=str(tmp_path))


@pytest.mark.parametrize("symmetric", [False, True])
def test_rates_and_projections_under_vmap_are_those_one_by_one(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(3, 12, 4, generator=generator, dtype=torch.float64), dim=2)
    pi = torch.rand(12, 5, generator=generator, dtype=torch.float64).softmax(1)
    numbers = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64)

    def value(one: Tensor, member: Tensor, number: Any) -> Tensor:
        belongs = ops.sinkhorn((one @ one.mT).abs(), number, symmetric=symmetric)
        rates = ops.cluster_coding_rate(one, member, number) - ops.coding_rate(one, number)
        return rates + ops.cluster_coding_rate(one, belongs, number)

    together, alone = (z.clone().requires_grad_() for _ in range(2))
    found = torch.func.vmap(value, in_dims=(0, None, 0))(together, pi, numbers)
    wanted = torch.stack([value(one, pi, float(number)) for one, number in zip(alone, numbers, strict=True)])
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(together.grad, alone.grad)
