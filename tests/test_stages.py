"""Hand-off between stages and the names of their results."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest
import torch

from raymc.config import Config, resolve
from raymc.datasets import load
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.training.stages import Weights, check_sizes, enter, prepare, seeds_of, stage_key, weights_of

NMCE = METHODS["nmce"]
SHAPE = (1, 8, 8)


def _config(**overrides: object) -> Config:
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    base = NMCE.presets["digits"]["paper"]
    return resolve("nmce", "digits", "paper", NMCE.stage_settings, base, {"pre_feature_dim": 32}, keys)


def _keys(config: Config, clusters: int = 10, fingerprint: str = "f", seed: int = 0) -> dict[str, str]:
    keys: dict[str, str] = {}
    weights: Weights = {}
    key = None
    for stage in NMCE.stages(config):
        model = enter(NMCE, stage, config, SHAPE, clusters, weights, seed)
        key = keys[stage.name] = stage_key(stage, config, model, fingerprint, seed, key)
        weights = weights_of(model)
    return keys


def _changed(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in one if one[name] != other[name]]


def test_a_change_reaches_its_stage_and_the_later_ones_only() -> None:
    base = _keys(_config())
    assert _changed(base, _keys(_config(pretrain__weight_decay=0.5))) == ["pretrain", "heads", "finetune"]
    assert _changed(base, _keys(_config(heads__eps_sq=0.35))) == ["heads", "finetune"]
    assert _changed(base, _keys(_config(finetune__learning_rate=0.77))) == ["finetune"]
    assert _changed(base, _keys(_config(), fingerprint="g")) == ["pretrain", "heads", "finetune"]
    assert _changed(base, _keys(_config(), seed=1)) == ["pretrain", "heads", "finetune"]


def test_stage_1_is_shared_over_clusters_names_and_workers() -> None:
    base = _keys(_config())
    assert _changed(base, _keys(_config(), clusters=7)) == ["heads", "finetune"]
    other = dataclasses.replace(_config(workers=4, compile=True, evaluate_every=3), dataset="other", preset="x")
    assert _changed(base, _keys(other)) == []


@pytest.mark.parametrize(
    ("backbone", "told"),
    [("resnet_nope", "unknown backbone resnet_nope"), ("resnet18_cifar", "takes")],
)
def test_a_net_that_does_not_take_the_samples_is_told_before_anything_trains(backbone: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_sizes(NMCE, _config(backbone=backbone), load("digits"), 10)


def test_weights_in_float64_are_handed_on_unrounded() -> None:
    config = _config(precision="float64")
    pretrain, heads, _ = NMCE.stages(config)
    single = weights_of(enter(NMCE, pretrain, _config(), SHAPE, 10, {}, 0))
    double = enter(NMCE, pretrain, config, SHAPE, 10, {}, 0)
    drawn = weights_of(double)
    for module, state in single.items():
        for name, value in state.items():
            assert torch.equal(drawn[module][name].to(value.dtype), value), "drawn as in float32"
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.mul_(1 + torch.rand_like(parameter))
    before = weights_of(double)
    after = weights_of(enter(NMCE, heads, config, SHAPE, 10, before, 5))
    for name, value in before["backbone"].items():
        assert torch.equal(after["backbone"][name], value)


def test_carried_modules_keep_their_weights_and_fresh_ones_depend_on_the_stage_seed() -> None:
    config = _config()
    pretrain, heads, finetune = NMCE.stages(config)
    first = weights_of(enter(NMCE, pretrain, config, SHAPE, 10, {}, 0))
    second = weights_of(enter(NMCE, heads, config, SHAPE, 10, first, 5))
    again = weights_of(enter(NMCE, heads, config, SHAPE, 10, first, 5))
    other = weights_of(enter(NMCE, heads, config, SHAPE, 10, first, 6))
    assert "projection" not in second
    for name, value in first["backbone"].items():
        assert torch.equal(value, second["backbone"][name])
    for head in ("subspace", "cluster"):
        assert all(torch.equal(second[head][k], again[head][k]) for k in second[head])
        assert any(not torch.equal(second[head][k], other[head][k]) for k in second[head])


def test_a_module_that_is_neither_carried_nor_fresh_nor_dropped_is_a_fault() -> None:
    config = _config()
    pretrain, heads, _ = NMCE.stages(config)
    first = weights_of(enter(NMCE, pretrain, config, SHAPE, 10, {}, 0))
    with pytest.raises(RuntimeError, match="projection"):
        enter(NMCE, dataclasses.replace(heads, drop=()), config, SHAPE, 10, first, 0)
    del first["backbone"]
    with pytest.raises(RuntimeError, match="backbone"):
        enter(NMCE, heads, config, SHAPE, 10, first, 0)


def test_every_parameter_is_trained_or_frozen_and_frozen_statistics_stand_still() -> None:
    config = _config()
    pretrain, heads, _ = NMCE.stages(config)
    weights = weights_of(enter(NMCE, pretrain, config, SHAPE, 10, {}, 0))
    model = enter(NMCE, heads, config, SHAPE, 10, weights, 0)
    prepare(model, heads, frozen_statistics=True)
    assert not any(p.requires_grad for p in model["backbone"].parameters())
    assert all(p.requires_grad for p in model["cluster"].parameters())
    assert not model["backbone"].training and model["subspace"].training
    prepare(model, heads, frozen_statistics=False)
    assert model["backbone"].training


def test_seeds_vary_from_the_named_stage_on() -> None:
    names = ("pretrain", "heads", "finetune")
    assert seeds_of(names, 7, 0, "heads") == {"pretrain": 0, "heads": 7, "finetune": 7}
    assert seeds_of(names, 7, 0, None) == {"pretrain": 7, "heads": 7, "finetune": 7}


def test_a_configuration_is_frozen() -> None:
    config = _config()
    assert isinstance(config.stages, MappingProxyType)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
