"""MLC's presets: section 3 and appendix D of the paper, and what it leaves open.

- `paper`: the paper's own stage 1 (eq. 5, its augmentation, 1000 epochs). The paper gives neither lambda nor weight
  decay nor warm-up: these are those of NMCE's published command. The weight of eq. 5's similarity is NMCE's lambda,
  30; on eq. 5's own scale, a sum under rates without 1/2, that is 60/n.
- `shared`: the same second stage after NMCE's stage 1 with NMCE's augmentation, so that both methods search from one
  stored result.
- `fast`, `emp_ssl`: the same after NMCE's of that name; of `fast` it shares the heads' bank too.
The paper does not say how long stage 2 is: 100 epochs as in Table 6. Its heads are "a few affine layers" on the
backbone: here the pre-feature layer of NMCE and a linear one; which of them the cluster head has of its own is
`heads.cluster_net`. It has no rows for the digits; their settings are raymc's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from raymc.methods import nmce_presets
from raymc.methods.base import Facts, Sized
from raymc.methods.nmce_presets import Preset, in_stages, own_net
from raymc.methods.own_sizes import batch_of, epochs_of, neighbours_of

_HEADS: Preset = {
    "clustering": "membership",
    "heads.epochs": 100,
    "heads.optimizer": "sgd",
    "heads.schedule": "constant",
    "heads.learning_rate": 1e-2,
    "heads.cluster_learning_rate": 1e-2,
    "heads.weight_decay": 5e-4,
    "heads.eps_sq": 0.1,
    "heads.gamma": 0.05,
    "heads.eta": 0.175,
}
_IMAGES: Preset = {
    "backbone": "resnet18_cifar",
    "augmentation": "mlc",
    "feature_dim": 128,
    "pre_feature_dim": 4096,
    "pretrain.epochs": 1000,
    "pretrain.warmup_epochs": 10,
    "pretrain.views": "average",
    "pretrain.similarity_weight": 30.0,
}


def _stage1(preset: Preset) -> Preset:
    """Net, augmentation and stage 1 of an NMCE preset."""
    return {key: value for key, value in preset.items() if not key.startswith(("heads.", "finetune."))}


def _with_nmce(own: Preset, nmce: Preset, second: Preset) -> dict[str, Preset]:
    return {"paper": own | second, "shared": _stage1(nmce) | second}


def _images(nmce: str | None) -> dict[str, Preset]:
    """The presets of a set of images, with NMCE's stage 1 for the dataset `nmce` where it has one."""
    if nmce is None:
        return {"paper": _IMAGES | _HEADS}
    presets = _with_nmce(_IMAGES, nmce_presets.KNOWN[nmce]["paper"], _HEADS)
    many, fast = (_stage1(nmce_presets.KNOWN[nmce][name]) | _HEADS for name in ("emp_ssl", "fast"))
    return presets | {"emp_ssl": many, "fast": fast | {"heads.feature_bank": 20}}


_NMCE_DIGITS = nmce_presets.KNOWN["digits"]["paper"]
# The paper's second stage but for batch and length, which were set for two cores.
_DIGITS_HEADS: Preset = _HEADS | {"heads.batch_size": 256, "heads.epochs": 20, "evaluate_every": 5}
# Full batches. The paper says nothing of stage 1, optimiser and lengths of its toy: they are raymc's own.
_SPHERE: Preset = {
    "precision": "float32",
    "backbone": "relu_100",
    "pre_feature_dim": 0,
    "feature_dim": 3,
    "augmentation": "noise_sphere",
    "clustering": "membership",
    **in_stages(
        "pretrain", "heads", optimizer="adam", schedule="constant", learning_rate=1e-3, weight_decay=0.0, batch_size=200
    ),
    "pretrain.epochs": 200,
    "pretrain.eps_sq": 0.2,
    "pretrain.views": "average",
    "pretrain.similarity_weight": 30.0,
    "heads.epochs": 1000,
    "heads.eps_sq": 0.1,
    "heads.gamma": 0.05,
    "heads.eta": 0.175,
    "heads.cluster_net": "whole",
}


def _own(facts: Facts) -> Preset:
    """Vectors and images of any size."""
    batch = batch_of(facts, 256)
    heads = epochs_of(facts, 40, batch)
    return {
        **own_net(facts),
        **in_stages("pretrain", "heads", batch_size=batch),
        "pretrain.epochs": epochs_of(facts, 300, batch),
        "pretrain.views": "average",
        "clustering": "membership",
        **in_stages("heads", optimizer="adam", weight_decay=1e-5, learning_rate=1e-3, epochs=heads),
        "heads.eps_sq": 0.1,
        "heads.gamma": 0.05,
        "heads.eta": 0.175,
        "heads.cluster_net": "pre_feature",
        "evaluate_every": heads,
    }


def _features(facts: Facts) -> Preset:
    """Rows that a frozen encoder made: the net, objective and optimisers of the authors' later code, CPP.

    The heads and the net that they share train on the rows as they are, by two SGDs. What differs from CPP: the warm-up
    is by Adam and sees a row's neighbours as its second view (after 50 steps of SGD by -R(Z) alone k-means of z had an
    ACC of .32 where the features themselves had .45, on 5,000 of CIFAR-100 by EfficientNet-Lite2), rates are ten times
    CPP's, eta is 0.13, and net, z and batch are smaller: 5,000 rows take ten seconds of one core.
    """
    batch = batch_of(facts, 256)
    heads = epochs_of(facts, 60, batch)
    return {
        "backbone": "mlp_bn",
        "mlp_width": 512,
        "mlp_depth": 2,
        "pre_feature_dim": 0,
        "feature_dim": 32,
        "precision": "float32",
        **neighbours_of(facts, 10),
        "clustering": "membership",
        **in_stages("pretrain", "heads", batch_size=batch, weight_decay=1e-4, schedule="constant"),
        **in_stages("pretrain", optimizer="adam", learning_rate=1e-3, epochs=epochs_of(facts, 190, batch)),
        "pretrain.eps_sq": 0.2,
        "heads.eps_sq": 0.1,
        "pretrain.views": "average",
        "pretrain.similarity_weight": 30.0,
        **in_stages("heads", optimizer="sgd", learning_rate=1e-3, cluster_learning_rate=1e-3, epochs=heads),
        "heads.cluster_weight_decay": 5e-3,
        "heads.gamma": 0.05,
        "heads.eta": 0.13,
        "heads.rate_factor": 0.5,
        "heads.projection_iterations": 5,
        "heads.cluster_net": "shared_whole",
        "heads.augmentations": 0,
        "evaluate_every": heads,
    }


_KNOWN: dict[str, dict[str, Preset]] = {
    "sphere": {"paper": _SPHERE},
    "sphere_sd05": {"paper": _SPHERE},
    "cifar10": _images("cifar10"),
    "cifar20": _images("cifar20"),
    "cifar100": _images("cifar100"),
    "imb_cifar10": _images("cifar10"),
    "imb_cifar100": _images("cifar100"),
    "tiny_imagenet": _images(None),
    "digits": _with_nmce(
        _stage1(_NMCE_DIGITS) | {"pretrain.views": "average"},
        _NMCE_DIGITS,
        _DIGITS_HEADS,
    ),
}
PRESETS: Mapping[str, Mapping[str, Preset | Sized]] = {**_KNOWN, "own": {"own": _own, "features": _features}}
