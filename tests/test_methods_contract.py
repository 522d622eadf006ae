"""What every method of METHODS keeps to; a new method is tested by being listed there."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn

from raymc.clusterers import find
from raymc.config import Config, Value, resolve
from raymc.datasets import NAMES, POLICIES, load
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.methods.base import ASSIGNER, Method, labels_of, preset_values
from raymc.nets import BACKBONES
from raymc.nets.autoencoder import AUTOENCODERS
from raymc.training.feed import Feed
from raymc.training.inference import heads
from raymc.training.loop import Hooks, fit
from raymc.training.optim import Optimisers
from raymc.training.smoke import limit
from raymc.training.stages import Weights, enter, module_names, weights_of
from raymc.validation import Key

PRESETS = [(m, d, p) for m, method in METHODS.items() for d in method.presets for p in method.presets[d]]
SHORT = [
    (m, d)
    for m, method in METHODS.items()
    for d in ("digits", "double_spiral", "manifolds", "sphere")
    if d in method.presets
]
CLUSTERS = 3


def resolved(name: str, dataset: str, preset: str, **over: Value) -> Config:
    method = METHODS[name]
    return resolve(name, dataset, preset, method.stage_settings, preset_values(method.presets[dataset][preset]), over)


def short(config: Config, epochs: int = 1) -> Config:
    stages = {
        name: dataclasses.replace(stage, epochs=min(stage.epochs, epochs), batch_size=16)
        for name, stage in config.stages.items()
    }
    return dataclasses.replace(config, stages=MappingProxyType(stages))


def train(method: Method, config: Config, seed: int, dtype: torch.dtype = torch.float32) -> tuple[nn.ModuleDict, Feed]:
    data = limit(load(config.dataset), 48)
    feed = Feed.build(data, config.augmentation, torch.device("cpu"), dtype, False, Workers())
    hooks = Hooks(report=lambda row: None, save=None, evaluate=None, evaluate_every=1)
    weights: Weights = {}
    for stage in method.stages(config):
        shape = tuple(data.train.x.shape[1:])
        model = enter(method, stage, config, shape, CLUSTERS, weights, seed).to(dtype=dtype)
        fit(model, stage, config.stages[stage.name], feed, seed, hooks)
        weights = weights_of(model)
    return model.eval(), feed


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_stage_is_in_its_key(name):
    """But for one without effect under another, and one that came later as long as it is what it always was."""
    method, config = METHODS[name], resolved(name, *next((d, p) for m, d, p in PRESETS if m == name))
    for stage, of in method.stage_settings.items():
        settings = config.stages[stage]
        for field in dataclasses.fields(of):
            other = dataclasses.replace(
                settings, **{field.name: another(Key(of, field.name), vars(settings)[field.name])}
            )
            assert (other.keyed() != settings.keyed()) == (field.name not in settings.unread()), field.name
        assert {"epochs", "batch_size", "learning_rate", "weight_decay"} <= settings.keyed().keys()


def another(key: Key, value: Value) -> Value:
    """Another value of the key."""
    if key.choices:
        return next(choice for choice in key.choices if choice != value)
    if isinstance(value, bool):
        return not value
    if value is None:
        return 3
    least = next((one.ge for one in key.field.metadata if hasattr(one, "ge")), 0)
    return value + 1 if key.kind == "int" else 0.75 * value + 0.25 * least if value > least else value + 0.5


@pytest.mark.parametrize(("name", "dataset", "preset"), PRESETS)
def test_presets_resolve_and_hand_over_every_module(name, dataset, preset):
    method, config = METHODS[name], resolved(name, dataset, preset)
    assert dataset in (*NAMES, "own") and {method.default_preset, "own"} & method.presets[dataset].keys()
    assert config.augmentation in POLICIES and config.backbone in {**BACKBONES, **AUTOENCODERS}
    living: set[str] = set()
    for stage in method.stages(config):
        names = module_names(stage)
        assert type(config.stages[stage.name]) is method.stage_settings[stage.name]
        assert len(set(names)) == len(names)
        fresh = set(stage.fresh) or (set(names) - living if not living else set())
        copies = dict(stage.copies)
        assert set(copies.values()) <= living and not fresh & set(copies)
        assert (living - set(stage.drop)) | fresh | set(copies) == set(names)
        living = set(names)
    assert stage.clusters or config.clustering != "head"


@pytest.mark.parametrize(("name", "dataset"), SHORT)
def test_every_trained_parameter_has_one_optimiser_group(name, dataset):
    method, config = METHODS[name], short(resolved(name, dataset, METHODS[name].default_preset))
    weights: Weights = {}
    shape = tuple(load(dataset).train.x.shape[1:])
    for stage in method.stages(config):
        model = enter(method, stage, config, shape, CLUSTERS, weights, 0)
        weights = weights_of(model)
        state = Optimisers(model, stage.step, config.stages[stage.name]).state_dict()
        grouped = sum(len(g["params"]) for one in state.values() for g in one["param_groups"])
        trained = [p for module in stage.step.modules for p in model[module].parameters()]
        assert grouped == len(trained) == len(set(trained)) > 0
        if stage.last is not None:
            after = Optimisers(model, stage.last, config.stages[stage.name]).state_dict()
            grouped = sum(len(g["params"]) for one in after.values() for g in one["param_groups"])
            assert grouped == sum(1 for module in stage.last.modules for _ in model[module].parameters()) > 0


@pytest.mark.parametrize(("name", "dataset"), SHORT)
def test_a_training_depends_on_its_seed_alone(name, dataset):
    method, config = METHODS[name], short(resolved(name, dataset, METHODS[name].default_preset))
    runs = [train(method, config, seed)[0].state_dict() for seed in (4, 4, 5)]
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())
    assert any(not torch.equal(value, runs[2][key]) for key, value in runs[0].items())


@pytest.mark.parametrize(("name", "dataset"), SHORT)
def test_new_points_are_assigned_one_by_one(name, dataset):
    method, config = METHODS[name], short(resolved(name, dataset, METHODS[name].default_preset))
    model, feed = train(method, config, 0, torch.float64)
    if config.clustering != "head":
        known = heads(method, model, feed, feed.data.train.x)
        model[ASSIGNER] = find(config, *known, CLUSTERS, 0).assigner.double()
    x = feed.plain(load(dataset).train.x[100:140])
    with torch.no_grad():
        z, c = method.heads(model, x)
        part, own = method.heads(model, x[7:20])
        labels, again = labels_of(model, z, c), labels_of(model, part, own)
        features = method.features(model, x)
    assert labels.shape == (40,) and labels.dtype == torch.int64
    assert 0 <= int(labels.min()) and int(labels.max()) < CLUSTERS
    assert z.shape == (40, config.feature_dim) and bool(z.isfinite().all())
    assert torch.equal(again, labels[7:20])
    torch.testing.assert_close(part, z[7:20], rtol=1e-10, atol=1e-12)
    assert features
    assert all(_is_matrix(value, 40) for value in features.values())


def _is_matrix(value: Tensor, rows: int) -> bool:
    return value.ndim == 2 and len(value) == rows and bool(value.isfinite().all())
