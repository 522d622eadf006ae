"""Hand-off between stages: which modules exist, which start fresh, what a stage's result is named by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import torch
from torch import nn

from raymc.bare_keys import cluster_range
from raymc.config import Config, StageConfig, parts_of
from raymc.datasets import Dataset
from raymc.datasets.policy import check_augment
from raymc.errors import InputError
from raymc.methods.base import Method, Stage
from raymc.metrics.downstream import check_labels
from raymc.metrics.geometry import MOST
from raymc.nets import architecture, check_backbone
from raymc.rng import PARTS, PartSeeds, Seed, derive_seed, part, seed_facts
from raymc.training.precision import on_device
from raymc.training.transfer import fetched

BANK_NUMERICS = 1  # raised when a feature bank's outputs or the draws of its views change their numbers
LOOP_NUMERICS = 2  # raised when the loop, the optimisers or the draws change their numbers

Weights = dict[str, dict[str, torch.Tensor]]


def module_names(stage: Stage) -> tuple[str, ...]:
    """Modules that live in a stage: those that it trains, then those that it only reads."""
    return (*stage.trained, *stage.reads)


def seeds_of(
    stages: tuple[str, ...], seed: int, base_seed: int, seeds_from: str | None, varies: str = "all"
) -> dict[str, Seed]:
    """The seed of each stage: `seed` from stage `seeds_from` on (None: from the first), `base_seed` before it.

    `varies` names the parts of a stage's draws that have `seed` there (see `raymc.config.parts_of`); the others keep
    `base_seed`.
    """
    first = stages.index(seeds_from) if seeds_from else 0
    asked = parts_of(varies)
    own: Seed = seed
    if asked != PARTS:
        own = PartSeeds(**{name: seed if name in asked else base_seed for name in PARTS})
    return {name: own if at >= first else base_seed for at, name in enumerate(stages)}


def clusters_of(config: Config, dataset: Dataset) -> int:
    """The number of clusters: the configured one, else that of the labels (InputError without either).

    Where MLC looks for it, the smallest; raises InputError where only MLC could. HDBSCAN finds its own: 1 there.
    """
    if among := cluster_range(config.n_clusters):
        if config.clustering != "membership":
            raise InputError(f"n_clusters: {config.n_clusters} is for MLC's membership, not for {config.clustering}")
        return among[0]
    count = config.n_clusters or dataset.n_classes
    if count is None and config.clustering == "hdbscan":
        return 1
    if count is None:
        raise InputError(f"{config.dataset} has no labels: give n_clusters")
    return int(count)


def check_sizes(method: Method, config: Config, dataset: Dataset, n_clusters: int) -> None:
    """Raises InputError where there are too few points, for the clusters, a clustering stage's batch, geometry or the
    classifiers, where a net does not take the samples, and where a key of the augmentation is not for them.
    """
    check_augment(config.augmentation, config.augment, dataset)
    _check_acts(method, config)
    points = len(dataset.train)
    if points < n_clusters:
        raise InputError(f"{points} points cannot have {n_clusters} clusters: n_clusters is too large")
    if config.geometry and points <= 2 * MOST:
        raise InputError(f"geometry: {points} points are too few for its neighbours; geometry=false leaves it out")
    if config.downstream and dataset.train.y is not None:
        check_labels(dataset.train.y, dataset.test.y if dataset.test is not None else None)
    if config.clustering != "head" and config.cluster_points < n_clusters:
        raise InputError(f"cluster_points: {config.cluster_points} points cannot have {n_clusters} clusters")
    for stage in method.stages(config):
        settings = config.stages[stage.name]
        points = getattr(settings, "center_points", n_clusters)
        if stage.begin and settings.epochs and points < n_clusters:
            raise InputError(f"{stage.name}.center_points: {points} points cannot have {n_clusters} centres")
        check_bank(stage, settings, dataset)
        batch = min(config.stages[stage.name].batch_size, dataset.epoch_size)
        if stage.clusters and config.stages[stage.name].epochs and batch < n_clusters:
            raise InputError(f"{stage.name}.batch_size: {batch} points cannot show {n_clusters} clusters")
        if "backbone" in module_names(stage):
            check_backbone(config.backbone, tuple(dataset.train.x.shape[1:]))


def _check_acts(method: Method, config: Config) -> None:
    """Raises InputError where a key of the augmentation has no effect: no stage takes as many views."""
    settings = [config.stages[stage.name] for stage in method.stages(config)]
    most = max((one.augmentations for one in settings if one.epochs), default=0)
    for key in config.augment.keyed(2).keys() - config.augment.keyed(most).keys():
        needed = "a second view of a sample" if key == "neighbours" else "augmented views (augmentations: 0)"
        raise InputError(f"augment.{key}: no stage of this training takes {needed}")


def uses_bank(settings: StageConfig) -> bool:
    """Whether a stage with these settings trains from a bank."""
    return settings.feature_bank > 0 and settings.epochs > 0


def check_bank(stage: Stage, settings: StageConfig, data: Dataset) -> None:
    """Raises InputError where a stage that asks for a bank cannot have one."""
    key = f"{stage.name}.feature_bank"
    if not uses_bank(settings):
        return
    if "backbone" not in stage.reads:
        raise InputError(f"{key}: this stage trains its backbone, and a bank is of a frozen one")
    if not settings.frozen_statistics:
        raise InputError(f"{key}: a bank needs {stage.name}.frozen_statistics: true")
    if data.stream is not None:
        raise InputError(f"{key}: the samples of {data.name} are made while training, a bank is of kept ones")
    if settings.feature_bank < settings.augmentations:
        raise InputError(
            f"{key}: a step takes {settings.augmentations} views of a sample, the bank has {settings.feature_bank}"
        )


def enter(
    method: Method,
    stage: Stage,
    config: Config,
    shape: tuple[int, ...],
    n_clusters: int,
    weights: Weights,
    seed: Seed,
) -> nn.ModuleDict:
    """The stage's modules: carried over strictly from the stage before, or fresh from the stage's seed.

    A module of `copies` has its source's weights. Fresh ones are drawn in float32, whatever the precision.
    Raises RuntimeError when a module is neither carried over, nor copied, nor fresh, nor dropped: the method's fault.
    """
    names = module_names(stage)
    carried = set(weights) - set(stage.drop)
    fresh = set(names) if not weights else set(stage.fresh)
    copies = dict(stage.copies)
    if (carried - fresh) | fresh | set(copies) != set(names) or len(set(names)) != len(names):
        raise RuntimeError(f"stage {stage.name}: has {sorted(names)}, got {sorted(carried)}, fresh {sorted(fresh)}")
    model = nn.ModuleDict()
    for name in names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(part(seed, "initialisation"), stage.name, "init", name))
            model[name] = method.build(name, config, shape, n_clusters).to(dtype_of(config))
        if name not in fresh:
            model[name].load_state_dict(weights[copies.get(name, name)], strict=True)
    return model


def dtype_of(config: Config) -> torch.dtype:
    """The type of weights and samples: in bfloat16 only operations are, by autocast."""
    return torch.float64 if config.precision == "float64" else torch.float32


def autocast_of(config: Config, device: torch.device) -> torch.dtype | None:
    """The type of the operations that autocast knows; None: off."""
    return torch.bfloat16 if on_device(config, device).precision == "bfloat16" else None


def channels_last_of(config: Config, device: torch.device) -> bool:
    """Whether image batches and the weights of convolutions lie in memory by pixel, their channels side by side."""
    if config.channels_last != "auto":
        return config.channels_last
    with_amx = torch.cpu.get_capabilities().get("amx_bf16", False)
    return device.type == "cuda" or (bool(with_amx) and autocast_of(config, device) is not None)


def place(model: nn.ModuleDict, config: Config, device: torch.device, dtype: torch.dtype) -> None:
    """Move the modules to their device, type and memory format, in place."""
    model.to(device, dtype)
    if channels_last_of(config, device):
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def compile_nets(model: nn.ModuleDict) -> None:
    """torch.compile each module that takes a batch, in place: the weights keep their names.

    In the default mode. The loss stays as it is: it is mostly factorisations, which nothing can be fused with.
    """
    for name, module in model.items():
        if name != "centers":
            module.compile()


def prepare(model: nn.ModuleDict, stage: Stage, frozen_statistics: bool) -> None:
    """Train what the stage trains and freeze the rest; frozen modules are in eval mode unless told otherwise."""
    for name, module in model.items():
        trained = name in stage.trained
        module.requires_grad_(trained)
        module.train(trained or not frozen_statistics)


def weights_of(model: nn.ModuleDict) -> Weights:
    """A copy of the state of each module, on the CPU: of a device all in one, for which is waited once."""
    own = {(name, key): value.detach() for name, module in model.items() for key, value in module.state_dict().items()}
    there = fetched(own)
    copies = {at: value.clone() if value is own[at] else value for at, value in there.items()}
    return {name: {key: value for (of, key), value in copies.items() if of == name} for name in model}


def stage_facts(
    stage: Stage, config: Config, model: nn.ModuleDict, fingerprint: str, seed: Seed, previous: str | None
) -> dict[str, object]:
    """All that decides the numbers of a stage's result and nothing else (design section 5), in what JSON can hold.

    Not in it: names of the method, the space and the dataset, labels, device, workers, library versions.
    """
    settings = config.stages[stage.name]
    return {
        "loop": LOOP_NUMERICS,
        "loss": [stage.step.loss.__name__, stage.numerics],
        "groups": [[list(group.modules), group.prefix] for group in stage.step.groups],
        "settings": settings.keyed(),
        "augmentation": config.augmentation,
        **({"augment": augment} if (augment := config.augment.keyed(settings.augmentations)) else {}),
        "precision": config.precision,
        "architecture": {name: architecture(module) for name, module in sorted(model.items())},
        "data": fingerprint,
        "seed": seed_facts(seed),
        "previous": previous,
        **({"bank": BANK_NUMERICS} if uses_bank(settings) else {}),
        **({"copies": [list(pair) for pair in stage.copies]} if stage.copies else {}),
        **({"begin": stage.begin.__name__} if stage.begin else {}),
        **({"observe": stage.observe.__name__} if stage.observe else {}),
        **({"last": [stage.last.loss.__name__, list(stage.last.modules)]} if stage.last else {}),
    }


def digest_of(
    modules: Mapping[str, nn.Module], convert: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, value: value
) -> str:
    """A hash of modules' weights, each as `convert` gives it: what reads them names by it which ones they were."""
    digest = hashlib.sha256()
    for module, weights in sorted(modules.items()):
        for key, tensor in sorted(weights.state_dict().items()):
            name = f"{module}.{key}"
            value = convert(name, tensor.detach().cpu()).contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def key_of(facts: Mapping[str, object]) -> str:
    """The name of the result that has these `stage_facts`: a hash of them."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def stage_key(
    stage: Stage, config: Config, model: nn.ModuleDict, fingerprint: str, seed: Seed, previous: str | None
) -> str:
    """Name of a stage's result."""
    return key_of(stage_facts(stage, config, model, fingerprint, seed, previous))
