"""GCML: Generalized Clustering and Multi-manifold Learning (Wu et al. 2021), also known as DCRL.

An autoencoder's latent space is clustered while its geometry is kept.
    pretrain   MSE of a denoising autoencoder
    finetune   by batch       AE + alpha(e) KL(P || Q) + ranking        eq. 9
               by epoch       beta(e) isometry + alignment              eq. 10, on all samples
alpha falls and beta rises with the epoch e. Q is the Student-t assignment to trainable centres, P its sharpened target
(of the epoch's start), and a point's cluster is the largest q. The ranking keeps the centres kappa times as far apart
as the clusters' means are in the input, the isometry each point's distances to its neighbours in its own cluster.
DEC and IDEC are the same computation without structure, AE + k-means without `finetune`, and k-means, GMM and
normalised cuts of the samples themselves with `backbone: identity`.

Where paper and published code part, `loss_scales` says whose losses are computed (docs/gcml.md).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from raymc.clusterers import FOR_POINTS
from raymc.config import Config, StageConfig
from raymc.distributed import first_row, gather_rows, row_counts, sum_over_workers
from raymc.errors import InputError
from raymc.methods.base import Batch, Group, Method, Stage, Step
from raymc.methods.gcml_presets import PRESETS
from raymc.methods.gcml_settings import Finetune, Pretrain
from raymc.methods.gcml_state import (
    alpha_share,
    beta_share,
    centers_of,
    first_centers,
    has_structure,
    joins,
    observe,
    ranks,
    reconstruction_weight,
    shapes_batches,
    updates_batches,
)
from raymc.nets.autoencoder import AUTOENCODERS, Centers, build_decoder, build_encoder
from raymc.ops import (
    alignment_loss,
    assignment_divergence,
    cluster_means,
    isometry_loss,
    neighbours_within,
    ranking_loss,
    student_t_assignment,
)

WHOLE_ROWS = 16384  # samples whose activations are held at a time where all samples have a gradient

STAGES: dict[str, type[StageConfig]] = {"pretrain": Pretrain, "finetune": Finetune}


def denoising_loss(
    model: nn.ModuleDict, batch: Batch, config: Pretrain, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean squared error between the clean samples and those decoded from noisy ones."""
    x = batch.views[0].flatten(1)
    noisy = x + config.noise * batch.normal("noise", x.shape[1]).to(x.dtype) if config.noise else x
    loss = _mean_square(model["decoder"](model["encoder"](noisy)) - x, batch, group)
    return loss, {"reconstruction": loss}


def clustering_loss(
    model: nn.ModuleDict, batch: Batch, config: Finetune, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 9 on a batch; without alternating updates eq. 10 too, with neighbours from the batch."""
    x, centers = batch.views[0].flatten(1), centers_of(model)
    share, joint = alpha_share(config, batch.epoch), joins(config, batch.epoch)
    terms = {}
    # What has no weight any more is left out: Adam's averages of exact zeros would fade into denormal numbers, at which
    # a CPU is ten times slower.
    if shapes_batches(config, batch.epoch):
        z = model["encoder"](x)
        if share * config.alpha:
            terms["clustering"] = config.alpha * share * _divergence(z, centers, batch, config, group)
        if reconstruction_weight(config, batch.epoch):
            error = _mean_square(model["decoder"](z) - x, batch, group)
            terms["reconstruction"] = reconstruction_weight(config, batch.epoch) * error
        if joint:
            terms |= _joint_structure(x, z, centers, batch, config, group)
    if ranks(config, batch.epoch):
        terms["ranking"] = config.rank_weight * _ranking(centers, batch, config)
    return torch.stack(tuple(terms.values())).sum(), terms


def structure_loss(
    model: nn.ModuleDict, batch: Batch, config: Finetune, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 10 on all samples by a forward pass of its own; clusters and neighbours are those of the epoch's start."""
    x, state = batch.views[0].flatten(1), batch.state
    z = embedded(model["encoder"], x)
    index = batch.index.to(z.device)
    labels, near = state["labels"][index], state["neighbours"][index]
    centers = centers_of(model)
    terms = _structure(z, centers, labels, near, state["distances"], x.shape[1], batch, config, group)
    return torch.stack(tuple(terms.values())).sum(), terms


def embedded(encoder: nn.Module, x: Tensor) -> Tensor:
    """z `[n, m]` of samples x `[n, d]`, keeping the activations of no more than `WHOLE_ROWS` of them for the gradient.

    Those of a block of rows are computed again when the gradient comes to it, which costs one more forward pass.
    """
    if len(x) <= WHOLE_ROWS:
        z: Tensor = encoder(x)
        return z

    def block(rows: Tensor) -> Tensor:
        kind = rows.device.type
        # A cast of the weights for each block: one for all would sum up their gradients in bfloat16.
        with torch.autocast(kind, enabled=torch.is_autocast_enabled(kind), cache_enabled=False):
            out: Tensor = encoder(rows)
            return out

    # Encoders draw nothing, so that there is no random state to keep.
    again = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(rows) for rows in torch.split(x, WHOLE_ROWS)])


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages that a configuration runs.

    `finetune` without reconstruction drops the decoder (DEC). Without `finetune.epochs` the autoencoder's z is
    clustered as `clustering` says. Raises InputError for a backbone that is none of GCML's, where the centres would
    be trained but not used, where there are none to assign by, for clusterings that are of directions, and for epochs
    in which alpha cannot fall.
    """
    pretrain, finetune = (config.stages[name] for name in STAGES)
    assert isinstance(finetune, Finetune)
    if config.backbone not in AUTOENCODERS:
        raise InputError(f"backbone: gcml has {', '.join(AUTOENCODERS)}, not {config.backbone}")
    if config.clustering not in ("head", *FOR_POINTS):
        raise InputError(f"clustering: gcml has head, {', '.join(FOR_POINTS)}; {config.clustering} is of directions")
    for name, stage in (("pretrain", pretrain), ("finetune", finetune)):
        if stage.epochs and stage.augmentations > 1:
            raise InputError(f"{name}.augmentations: gcml reads one view of a sample; it is 0 or 1")
    if config.backbone == "identity":
        if pretrain.epochs or finetune.epochs:
            raise InputError("backbone identity has nothing to train: pretrain.epochs and finetune.epochs must be 0")
        parts: tuple[str, ...] = ("encoder",)
    else:
        parts = ("encoder", "decoder")
    first = Stage("pretrain", Step(denoising_loss, (Group(parts),)))
    if config.clustering != "head":
        if finetune.epochs:
            raise InputError(f"clustering {config.clustering} is on pretrain's z: finetune.epochs must be 0")
        return (first,)
    if not finetune.epochs:
        raise InputError(
            f"finetune.epochs: 0 leaves no centres to assign by; clustering must be one of {', '.join(FOR_POINTS)}"
        )
    _check_epochs(finetune)
    decodes = finetune.reconstruction_weight > 0
    trained = ("encoder", *(("decoder",) if decodes else ()), "centers")
    whole = Step(structure_loss, (Group(("encoder", "centers"), "whole_"),), lambda c, epoch: epoch >= c.start_epoch)
    return (
        first,
        Stage(
            "finetune",
            Step(clustering_loss, (Group(trained),), updates_batches),
            fresh=("centers",),
            drop=() if decodes else ("decoder",),
            clusters=True,
            begin=first_centers,
            observe=observe,
            last=whole if finetune.alternating and has_structure(finetune) else None,
        ),
    )


def _check_epochs(finetune: Finetune) -> None:
    """Raises InputError where alpha would have no epoch in which to fall."""
    start, end = finetune.start_epoch, finetune.continuation_epochs
    if end and end <= start:
        raise InputError(
            f"finetune.continuation_epochs: alpha cannot fall from epoch {start} (finetune.start_epoch) to 0 at epoch "
            f"{end}; 0 keeps both weights as they are"
        )


def build_module(name: str, config: Config, input_shape: tuple[int, ...], n_clusters: int) -> nn.Module:
    """One module of the model, untrained, from torch's global generator.

    `encoder` `[b, ...]` -> `[b, feature_dim]`, `decoder` back to the flat sample, `centers` -> `[n_clusters,
    feature_dim]`.
    """
    size = math.prod(input_shape)
    if name == "encoder":
        return build_encoder(config.backbone, size, config.feature_dim)
    if name == "decoder":
        return build_decoder(config.backbone, size, config.feature_dim)
    if name == "centers":
        return Centers(n_clusters, config.feature_dim)
    raise ValueError(f"GCML has no module {name}")


def features(model: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    """`embedding`: z `[n, feature_dim]` of samples `[n, ...]`."""
    return {"embedding": model["encoder"](x)}


def heads(model: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """z `[n, m]` and q `[n, k]`, None where there are no centres, of samples `[n, ...]`."""
    z = model["encoder"](x)
    return z, student_t_assignment(z, centers_of(model)) if "centers" in model else None


def _divergence(z: Tensor, centers: Tensor, batch: Batch, config: Finetune, group: ProcessGroup | None) -> Tensor:
    target = batch.state["target"][batch.index.to(z.device)]
    divergence = assignment_divergence(target, student_t_assignment(z, centers), group)
    if config.loss_scales != "paper":
        divergence = divergence / sum(row_counts(z, group, batch.counts))
    if config.loss_scales == "published":
        divergence = divergence / len(centers)
    return divergence


def _joint_structure(
    x: Tensor, z: Tensor, centers: Tensor, batch: Batch, config: Finetune, group: ProcessGroup | None
) -> dict[str, Tensor]:
    """Eq. 10 on a batch, with neighbours from the batch."""
    counts = row_counts(z, group, batch.counts)
    begin = first_row(counts, group)
    mine = slice(begin, begin + len(z))
    labels = gather_rows(batch.state["labels"][batch.index.to(z.device)], group, counts)
    near = neighbours_within(gather_rows(z.detach(), group, counts), labels, config.neighbours)[mine]
    apart: Tensor = torch.linalg.vector_norm(x.unsqueeze(1) - gather_rows(x, group, counts)[near.clamp_min(0)], dim=2)
    return _structure(z, centers, labels[mine], near, apart, x.shape[1], batch, config, group)


def _ranking(centers: Tensor, batch: Batch, config: Finetune) -> Tensor:
    state, scales = batch.state, _scales(config)
    loss = ranking_loss(centers, state["input_means"], state["sizes"], config.kappa, scales)
    return loss / batch.steps if scales == "published" else loss


def _structure(
    z: Tensor,
    centers: Tensor,
    labels: Tensor,
    near: Tensor,
    apart: Tensor,
    input_dim: int,
    batch: Batch,
    config: Finetune,
    group: ProcessGroup | None,
) -> dict[str, Tensor]:
    """The terms of eq. 10 for this worker's z `[n, m]` with their neighbours `[n, k]` among all rows."""
    scales = _scales(config)
    others = gather_rows(z, group, batch.counts)[near.clamp_min(0)]
    # The published code divides distances in either space by the root of its dimension, the paper does not (eq. 5).
    dims = (input_dim, z.shape[1]) if config.loss_scales == "published" else (1, 1)
    isometry = isometry_loss(apart, z, others, near >= 0, dims, scales, group)
    terms = {"isometry": config.beta * beta_share(config, batch.epoch) * isometry}
    if config.align_weight:
        means, sizes = cluster_means(z, labels, len(centers), group)
        terms["alignment"] = config.align_weight * alignment_loss(centers, means, sizes, scales)
    return terms


def _scales(config: Finetune) -> str:
    return "paper" if config.loss_scales == "paper" else "published"


def _mean_square(x: Tensor, batch: Batch, group: ProcessGroup | None) -> Tensor:
    """Over the rows `[n, d]` of all workers."""
    total = sum_over_workers(x.float().square().sum() if x.dtype != torch.float64 else x.square().sum(), group)
    return total / (sum(row_counts(x, group, batch.counts)) * x.shape[1])


METHOD = Method(
    name="gcml",
    stages=stages,
    stage_settings=STAGES,
    build=build_module,
    presets=PRESETS,
    features=features,
    heads=heads,
    probabilities=lambda q: q,  # Student's t has made them
    unit_rows=False,
    # On ten seeds of the digits ACC was .9405 in float32 and .9314 in bfloat16, where two seeds were near .90.
    autocasts=False,
    default_preset="tuned",
    renamed_presets={"paper": "tuned"},
)
