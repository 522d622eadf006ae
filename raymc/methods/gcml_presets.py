"""GCML's presets: section 4.1 of the paper, and what its published code sets without the paper saying so.

kappa 3, k 5, weights that stop moving at epoch 150, and the code's noise and lengths of pretraining are common to three
readings of the rest (docs/gcml.md has figures of each):
- `published`: the losses at the scales of the published code, and its start epochs.
- `literal`: the paper to the letter: sums for losses, reconstruction throughout, weights that move from epoch 0.
- `tuned`, the default, since it alone comes near the paper's figures here: ten first epochs that keep the clusters of
  the t-SNE, divergence per point, distances as they are, structure from epoch 20 on with weights at which it is
  reached, updates on all samples at a tenth of the rate, and an end at epoch 150, where alpha would be 0. On USPS and
  Pendigits the first clusters are those of a mixture, on USPS in a t-SNE whose attraction stays doubled, elsewhere
  those of k-means in a t-SNE, as in the paper. Keys were chosen with labels, on seeds 100 to 102 of USPS, Pendigits and
  the digits, that of the t-SNE on seeds 102 to 109 of USPS.
The columns beside GCML in its tables are presets too: `dec`, `idec` (the same autoencoder, first centres by k-means,
the target renewed once an epoch), `ae_kmeans`, and `kmeans`, `gmm`, `spectral` of the samples themselves. DEC's and
IDEC's rates and weights are those of their papers; layerwise pretraining and the stop by changed labels are left out.

`own`, the default for own data, sizes net, epochs and batches to the data (see `own`); its figures are in
reports/2026-11-28-gcml-own.

Reuters: the published code pretrains by SGD with momentum 0.99, ours has 0.9. Settings for the digits are ours, and so
are those for own data. Of the digits' fine-tuning `epochs`, `start_epoch` and `continuation_epochs` are 0.4 of the
others'; `anchor_epochs` stays at 10, with which their figures were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from raymc.config import Value
from raymc.methods.base import Facts, Sized
from raymc.methods.nmce_presets import Preset, in_stages
from raymc.methods.plain import of_samples

EPOCHS, CONTINUATION, START = 300, 150, 20

OF_SAMPLES: Preset = {
    "pretrain.epochs": 0,
    "finetune.epochs": 0,
}


def _presets(
    start: int,
    noise: float = 0.2,
    pretrain: int = 200,
    centers_by: str = "tsne",
    exaggeration: float = 1.0,
    **pretraining: Value,
) -> dict[str, Preset]:
    """All presets of a dataset: the published start epoch, noise of the pretraining, its epochs, other keys.

    `centers_by` and `exaggeration` are those of `tuned` alone.
    """
    net: Preset = {
        **in_stages(
            "pretrain",
            "finetune",
            optimizer="adam",
            learning_rate=1e-3,
            adam_beta2=0.999,
            weight_decay=0.0,
            schedule="constant",
            batch_size=256,
            augmentations=0,
        ),
        "backbone": "dense_2000",
        "feature_dim": 10,
        "pretrain.epochs": pretrain,
        "pretrain.noise": noise,
        **in_stages("pretrain", **pretraining),
        "geometry": True,
    }
    tuned: Preset = net | {
        "finetune.loss_scales": "mean",
        "finetune.centers_by": centers_by,
        "finetune.exaggeration": exaggeration,
        "finetune.anchor_epochs": 10,
        "finetune.whole_learning_rate": 1e-4,
        "finetune.epochs": CONTINUATION,
        "finetune.alpha": 0.1,
        "finetune.beta": 1.0,
        "finetune.kappa": 3.0,
        "finetune.neighbours": 5,
        "finetune.rank_weight": 10.0,
        "finetune.align_weight": 1000.0,
        "finetune.start_epoch": START,
        "finetune.continuation_epochs": CONTINUATION,
    }
    code: Preset = {
        "finetune.centers_by": "tsne",
        "finetune.exaggeration": 1.0,
        "finetune.rank_weight": 1.0,
        "finetune.align_weight": 1.0,
        "finetune.start_epoch": start,
        "finetune.anchor_epochs": 0,
        "finetune.whole_learning_rate": None,
        "finetune.epochs": EPOCHS,
    }
    plain: Preset = net | {
        "finetune.epochs": 200,
        "finetune.rank_weight": 0.0,
        "finetune.beta": 0.0,
        "finetune.align_weight": 0.0,
        "finetune.continuation_epochs": 0,
        "finetune.loss_scales": "mean",
        "finetune.centers_by": "kmeans",
    }
    return {
        "tuned": tuned,
        "published": tuned | code | {"finetune.loss_scales": "published"},
        "literal": tuned | code | {"finetune.loss_scales": "paper", "finetune.start_epoch": 0},
        "dec": plain
        | {
            "finetune.alpha": 1.0,
            "finetune.reconstruction_weight": 0.0,
            "finetune.optimizer": "sgd",
            "finetune.learning_rate": 0.01,
        },
        "idec": plain | {"finetune.alpha": 0.1},
        "ae_kmeans": net | {"finetune.epochs": 0, "clustering": "kmeans"},
        **{name: of_samples(name) | OF_SAMPLES | {"feature_dim": 10} for name in ("kmeans", "gmm", "spectral")},
    }


def _shortened(presets: dict[str, Preset], pretrain: int, share: float, **changed: Value) -> dict[str, Preset]:
    """The same with so many epochs of pretraining and a share of those of fine-tuning; __ is the dot of a key."""
    counts = ("finetune.epochs", "finetune.continuation_epochs", "finetune.start_epoch")
    short = {}
    for name, preset in presets.items():
        given = {key.replace("__", "."): value for key, value in changed.items()}
        own: Preset = {"pretrain.epochs": pretrain, **given}
        own |= {key: round(int(preset[key] or 0) * share) for key in counts if key in preset}
        short[name] = preset | own if preset.get("pretrain.epochs") else preset
    return short


PRETRAIN_STEPS, FINETUNE_STEPS = 3_000, 2_400
FINETUNE_EPOCHS = 60
LIGHT = 1_024  # numbers of a sample up to which a step costs what the net's other layers cost


def own(facts: Facts) -> Preset:
    """`tuned` with a net, batches and epochs for n samples of d numbers: 5,000 x 64 take 40 s on one core.

    What a training needs is a number of updates, not of passes: about 3,000 of the autoencoder, as on the digits, and
    up to 2,400 of fine-tuning, where 60 epochs give its weights time to move. Few samples get small batches, so that
    they have as many; samples of more than 1,024 numbers, images mostly, fewer updates, down to a third, since each
    costs more. `geometry` is left out: its scores take longer than the training.
    """
    n, d = facts.n, math.prod(facts.shape)
    batch = min(256, max(32, 2 ** round(math.log2(max(1, n / 24)))))
    steps, share = math.ceil(n / batch), min(1.0, max(1 / 3, LIGHT / d))
    pretrain = min(200, max(20, round(PRETRAIN_STEPS * share / steps)))
    epochs = min(FINETUNE_EPOCHS, max(20, round(FINETUNE_STEPS * share / steps)))
    return OWN["tuned"] | {
        **in_stages("pretrain", "finetune", batch_size=batch),
        "backbone": "dense_256",
        "pretrain.epochs": pretrain,
        "finetune.epochs": epochs,
        "finetune.continuation_epochs": epochs,
        "finetune.start_epoch": round(epochs * START / CONTINUATION),
        "finetune.anchor_epochs": max(1, epochs // 6),
        "geometry": False,
    }


OWN = _presets(start=30)

PRESETS: dict[str, Mapping[str, Preset | Sized]] = {
    "mnist": _presets(start=10),
    "mnist_split": _presets(start=10),
    "mnist_test": _presets(start=30),
    "fashion_mnist": _presets(start=30),
    "usps": _presets(start=50, noise=0.23, centers_by="tsne_mixture", exaggeration=2.0),
    "usps_libsvm": _presets(start=50, noise=0.23, centers_by="tsne_mixture", exaggeration=2.0),
    "pendigits": _presets(start=50, pretrain=500, centers_by="tsne_mixture"),
    "har": _presets(start=30),
    "reuters10k": _presets(start=30, optimizer="sgd", learning_rate=0.1),
    "digits": _shortened(
        _presets(start=50), 120, 0.4, backbone="dense_256", pretrain__batch_size=64, finetune__batch_size=64
    ),
    "own": {**OWN, "own": own},
}
