"""NMCE's presets: Table B.1 of the paper, what its published code sets differently, and what neither says.

`paper` is meant to give the paper's figures. Where the published commands (CIFAR-10, ResNet-18) or scripts (COIL,
double spiral) differ from Table B.1, `paper` follows them and `table` is the table to the letter:
- LARS of stage 1 at 0.3 with weight decay 1e-4 (table: 1 and 1e-6), of stage 2 at 0.3; the table's 0.5 in stage
  2 is the rate of the cluster head there, which the code fixes for stages 2 and 3.
- CIFAR-10, ResNet-18: lambda 30, 0, 0 (table: 50, 50, 50) and weight decay 1e-4 in stage 3 (table: 5e-3).
- Adam with weight decay 1e-5 (table: 1e-6) for COIL and the double spiral.
The table's epsilon is eps^2 in the code. `resnet34` and `resnet34_table` are the same for the larger net. The
paper has no row for ImageNet-10 and -Dogs (here: STL-10's), nor for CIFAR-100's 100 classes (here: CIFAR-20's).
MNIST, Fashion-MNIST and the digits are not in the paper; their settings are raymc's own.
`emp_ssl` has the stage 1 of EMP-SSL (Tong et al., arXiv 2304.03977) on NMCE's net: 20 small crops in 10 epochs, before
stages 2 and 3 of `paper` with the same crops. Its own projector has two layers and 1024 dimensions, and its SGD
Nesterov's momentum; it publishes no clustering. `fast` is `paper` with as many views of an image in stage 1 as that
(200, in 100 epochs of two), and stages 2 and 3 in minutes; at equal compute on a CPU two views were the better
(reports/2026-11-29-gpu-readiness). No tensor of it is above 5 MiB in float16. Its clusters were not measured.
`own` and `features` are for any data, of sizes made for them; see `raymc.methods.own_sizes`. They were chosen with
labels, on seeds from 100 on of sets that the reports name.
"""

from __future__ import annotations

from collections.abc import Mapping

from raymc.config import Value
from raymc.methods.base import Facts, Sized
from raymc.methods.own_sizes import batch_of, epochs_of, net_of

Preset = dict[str, Value]
Row = tuple[float, float, float, int]
"""Learning rate, weight decay, lambda and epochs of one stage, as in Table B.1."""

STAGES = ("pretrain", "heads", "finetune")

TABLE: dict[tuple[str, int], tuple[Row, Row, Row]] = {
    ("cifar10", 18): ((1, 1e-6, 50, 600), (0.5, 0.005, 50, 100), (0.003, 0.005, 50, 100)),
    ("cifar10", 34): ((1, 1e-6, 50, 1000), (0.5, 0.001, 0, 100), (0.003, 0.001, 0, 100)),
    ("cifar20", 18): ((1, 1e-6, 50, 600), (0.5, 0.001, 0, 100), (0.003, 0.001, 0, 100)),
    ("cifar20", 34): ((1, 1e-6, 50, 1000), (0.5, 0.002, 0, 100), (0.003, 0.002, 0, 100)),
    ("stl10", 18): ((1, 1e-6, 30, 1000), (0.5, 0.002, 0, 400), (0.0005, 0.002, 30, 400)),
    ("stl10", 34): ((1, 1e-6, 30, 2000), (0.5, 0.002, 0, 400), (0.0005, 0.002, 30, 400)),
}
PUBLISHED_CIFAR10: Preset = {
    **{f"{stage}.similarity_weight": weight for stage, weight in zip(STAGES, (30.0, 0.0, 0.0), strict=True)},
    "finetune.weight_decay": 1e-4,
}

# Stage 1 of 33 PFLOP, a sixth of the paper's; heads behind a bank of views, and a tenth of the paper's stage 3.
FAST: Preset = {"pretrain.epochs": 100, "heads.feature_bank": 20, "heads.epochs": 100, "finetune.epochs": 10}


def _staged(rows: tuple[Row, Row, Row]) -> Preset:
    names = ("learning_rate", "weight_decay", "similarity_weight", "epochs")
    return {
        f"{stage}.{name}": value
        for stage, row in zip(STAGES, rows, strict=True)
        for name, value in zip(names, row, strict=True)
    }


def _images(row: str, net: str, augmentation: str) -> dict[str, Preset]:
    """Four presets from a dataset's two rows; `net` is the kind of first layer."""
    as_published: Preset = {
        "pretrain.learning_rate": 0.3,
        "pretrain.weight_decay": 1e-4,
        "heads.learning_rate": 0.3,
    }
    presets = {}
    for depth, name in ((18, "paper"), (34, "resnet34")):
        literal: Preset = {
            "backbone": f"resnet{depth}_{net}",
            "augmentation": augmentation,
            "feature_dim": 128,
            "pre_feature_dim": 4096,
            "pretrain.warmup_epochs": 10,
            **_staged(TABLE[row, depth]),
        }
        own = PUBLISHED_CIFAR10 if (row, depth) == ("cifar10", 18) else {}
        presets[name] = literal | as_published | own
        presets["table" if depth == 18 else "resnet34_table"] = literal
    return presets


def _coloured(row: str) -> dict[str, Preset]:
    """Those of CIFAR, with EMP-SSL's stage 1 too."""
    presets = _images(row, "cifar", "cifar")
    many: Preset = {
        "augmentation": "emp_ssl",
        "pretrain.views_per_sample": 20,
        "pretrain.batch_size": 100,
        "pretrain.epochs": 10,
        "pretrain.warmup_epochs": 0,
        "pretrain.learning_rate": 0.3,
        "pretrain.weight_decay": 1e-4,
        "pretrain.eps_sq": 0.2,
        "pretrain.similarity_weight": 200.0,
    }
    return presets | {"emp_ssl": presets["paper"] | many, "fast": presets["paper"] | FAST}


def in_stages(*stages: str, **settings: Value) -> Preset:
    """The settings under the dotted key of each stage; without stages, of all three."""
    return {f"{stage}.{name}": value for stage in stages or STAGES for name, value in settings.items()}


def _adam(eps_sq: float, similarity_weight: float, batch_size: int) -> Preset:
    """What the experiments under Adam share; the published code trains them in float32."""
    return {
        "precision": "float32",
        **in_stages(
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=1e-5,
            eps_sq=eps_sq,
            similarity_weight=similarity_weight,
            batch_size=batch_size,
        ),
    }


def _with_table(preset: Preset, **differences: Value) -> dict[str, Preset]:
    return {"paper": preset, "table": preset | in_stages(weight_decay=1e-6) | differences}


def _coil(net: str, dim: int, eps_sq: float, samples: int, steps: int, gamma: float, tau: float) -> dict[str, Preset]:
    """TCR alone on all samples as one batch, so that an epoch is a step; then EnSC on z (section 4.1)."""
    preset: Preset = {
        **_adam(eps_sq, 20.0, samples),
        "backbone": net,
        "augmentation": "coil",
        "feature_dim": dim,
        "pretrain.views": "mean",
        "pretrain.epochs": steps,
        "heads.epochs": 0,
        "finetune.epochs": 0,
        "clustering": "ensc",
        "ensc_gamma": gamma,
        "ensc_tau": tau,
    }
    return _with_table(preset)


# An epoch of a stream is 100 steps of 4096 samples.
_SPIRAL: Preset = {
    **_adam(0.01, 4000.0, 4096),
    **in_stages(schedule="constant"),
    "backbone": "mlp_spiral",
    "augmentation": "noise_spiral",
    "feature_dim": 6,
    "pre_feature_dim": 0,
    "pretrain.epochs": 0,
    "heads.epochs": 0,
    "finetune.epochs": 300,
    "finetune.temperature": 0.2,
}
# Two stages, TCR and then the full objective (A.1), 3000 steps each. The paper is silent on the schedule, the
# temperature (here the published default, 1) and the way that the views enter TCR (here section 4's).
_MANIFOLDS: Preset = {
    **_adam(0.01, 100.0, 4096),
    **in_stages(schedule="constant", weight_decay=1e-6),
    "backbone": "mlp_synthetic",
    "augmentation": "noise_synthetic",
    "feature_dim": 12,
    "pre_feature_dim": 0,
    "pretrain.views": "mean",
    "pretrain.epochs": 30,
    "heads.epochs": 0,
    "finetune.epochs": 30,
}
# Rates and decays of stages 2 and 3 as for CIFAR-20: they are what the search is for. Architecture, augmentation and
# lengths were chosen for a minute on two cores, with the labels in view.
_DIGITS: Preset = {
    **in_stages(batch_size=256),
    "backbone": "conv_digits",
    "augmentation": "digits",
    "feature_dim": 64,
    "pre_feature_dim": 512,
    "pretrain.epochs": 30,
    "pretrain.warmup_epochs": 3,
    "pretrain.similarity_weight": 20.0,
    "heads.epochs": 20,
    "heads.weight_decay": 1e-3,
    "finetune.epochs": 10,
    "finetune.learning_rate": 0.003,
    "finetune.weight_decay": 1e-3,
}
_MNIST: Preset = {
    "backbone": "resnet10_grey",
    "augmentation": "mnist",
    "feature_dim": 128,
    "pre_feature_dim": 1024,
    **_staged(((0.3, 1e-4, 30, 100), (0.3, 1e-3, 0, 50), (0.003, 1e-3, 0, 50))),
    "pretrain.warmup_epochs": 5,
}


def own_net(facts: Facts) -> Preset:
    """Net, views and the width of z for any data, and stage 1 by Adam."""
    return {
        **net_of(facts),
        "precision": "float32",
        "feature_dim": 32,
        "pre_feature_dim": 256,
        **in_stages("pretrain", optimizer="adam", weight_decay=1e-5, learning_rate=3e-3, eps_sq=0.2),
        "pretrain.similarity_weight": 30.0,
    }


def _own(facts: Facts) -> Preset:
    """Vectors and images of any size."""
    batches = {"pretrain": batch_of(facts, 256), "heads": batch_of(facts, 512), "finetune": batch_of(facts, 512)}
    steps = {"pretrain": 300, "heads": 200, "finetune": 100}
    lengths = {name: epochs_of(facts, steps[name], batch) for name, batch in batches.items()}
    return {
        **own_net(facts),
        **{f"{name}.batch_size": batch for name, batch in batches.items()},
        **in_stages("heads", "finetune", optimizer="adam", weight_decay=1e-5, similarity_weight=20.0, eps_sq=0.2),
        "heads.learning_rate": 1e-2,
        "heads.cluster_init": "kmeans",
        "finetune.learning_rate": 1e-3,
        **{f"{name}.epochs": count for name, count in lengths.items()},
        "evaluate_every": max(1, lengths["heads"] // 3),
    }


def _features(facts: Facts) -> Preset:
    """Rows that a frozen encoder made: no net but the pre-feature layer and the heads, neighbours as second views."""
    return _own(facts) | {"backbone": "identity", "pre_feature_dim": 512, "augment.noise": 0.0}


KNOWN: dict[str, dict[str, Preset]] = {
    "double_spiral": _with_table(_SPIRAL, augmentation="noise_spiral_paper"),
    "double_spiral_paper": _with_table(_SPIRAL, augmentation="noise_spiral_paper"),
    "manifolds": {"paper": _MANIFOLDS},
    "manifolds_unidentifiable": {"paper": _MANIFOLDS},
    "digits": {"paper": _DIGITS},
    "coil20": _coil("resnet18_grey", 40, 0.01, 1440, 2000, 400.0, 1.0),
    "coil100": _coil("resnet10_grey", 200, 0.001, 7200, 10000, 200.0, 0.5),
    "cifar10": _coloured("cifar10"),
    "cifar20": _coloured("cifar20"),
    "cifar100": _coloured("cifar20"),
    "stl10": _images("stl10", "stl", "stl"),
    "imagenet10": _images("stl10", "stl", "imagenet"),
    "imagenet_dogs": _images("stl10", "stl", "imagenet"),
    "mnist": {"paper": _MNIST},
    "fashion_mnist": {"paper": _MNIST},
}
PRESETS: Mapping[str, Mapping[str, Preset | Sized]] = {**KNOWN, "own": {"own": _own, "features": _features}}
