"""What GCML's losses know of the whole data: how their weights move, the first centres, each epoch's observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymc.clusterers.kmeans import kmeans
from raymc.clusterers.mixture import gaussian_mixture
from raymc.clusterers.tsne import tsne
from raymc.distributed import sum_over_workers
from raymc.methods.base import Whole
from raymc.methods.gcml_settings import Finetune
from raymc.ops import cluster_means, neighbours_within, student_t_assignment, target_distribution
from raymc.ops.blocks import in_blocks
from raymc.ops.neighbours import nearest_to
from raymc.rng import derive_seed, generator, seed32

KMEANS_STARTS = 20
MIXTURE_STARTS = 100


def centers_of(model: nn.ModuleDict) -> Tensor:
    """mu `[k, m]`."""
    centers: Tensor = model["centers"]()
    return centers


def first_clusters(model: nn.ModuleDict) -> Tensor:
    """The cluster `[n]` by which the centres were found, of no samples once it is no longer needed."""
    first = model["centers"].first
    assert isinstance(first, Tensor)
    return first


def alpha_share(config: Finetune, epoch: int) -> float:
    """What is left of alpha in `epoch`: 1 until `start_epoch`, then linearly to 0 at `continuation_epochs`."""
    if not config.continuation_epochs or epoch < config.start_epoch:
        return 1.0
    span = max(1, config.continuation_epochs - config.start_epoch)
    return max(0.0, 1 - (epoch - config.start_epoch) / span)


def beta_share(config: Finetune, epoch: int) -> float:
    """What has come of beta in `epoch`: 0 at `start_epoch`, 1 from `continuation_epochs` later on."""
    if epoch < config.start_epoch:
        return 0.0
    if not config.continuation_epochs:
        return 1.0
    return min(1.0, (epoch - config.start_epoch) / config.continuation_epochs)


def ranks(config: Finetune, epoch: int) -> bool:
    """Whether the ranking loss counts in `epoch`."""
    return config.rank_weight > 0 and epoch >= config.start_epoch


def has_structure(config: Finetune) -> bool:
    """Whether any of eq. 10 has a weight."""
    return config.beta > 0 or config.align_weight > 0


def reconstruction_weight(config: Finetune, epoch: int) -> float:
    """That of the reconstruction in `epoch`: it decays with alpha, but for the paper's own losses."""
    share = 1.0 if config.loss_scales == "paper" else alpha_share(config, epoch)
    return config.reconstruction_weight * share


def joins(config: Finetune, epoch: int) -> bool:
    """Whether eq. 10 counts in the batches of `epoch`, since updates do not alternate."""
    return not config.alternating and has_structure(config) and epoch >= config.start_epoch


def shapes_batches(config: Finetune, epoch: int) -> bool:
    """Whether a loss of batches reaches the encoder in this epoch."""
    clusters = config.alpha * alpha_share(config, epoch) > 0
    return clusters or reconstruction_weight(config, epoch) > 0 or joins(config, epoch)


def updates_batches(config: Finetune, epoch: int) -> bool:
    """Whether any loss of batches counts in `epoch`."""
    return shapes_batches(config, epoch) or ranks(config, epoch)


def first_centers(model: nn.ModuleDict, whole: Whole, config: Finetune, seed: int) -> None:
    """The means in the latent space of clusters that were found in a t-SNE of it (section 4.1) or in itself."""
    z = whole.map(model["encoder"])
    centers = centers_of(model)
    found = whole.workers.by_first(lambda: _found_centers(z, len(centers), config, seed))
    with torch.no_grad():
        centers.copy_(found[0].to(centers))
    model["centers"].first = found[1].to(z.device)


@torch.no_grad()
def observe(model: nn.ModuleDict, whole: Whole, config: Finetune, epoch: int) -> dict[str, Tensor]:
    """Of all samples: target and cluster, the clusters' means in the input, and each one's neighbours.

    In the first `anchor_epochs` the target is the clusters by which the centres were found: to the nearest centre many
    samples would change their cluster at once, and what t-SNE had found would be lost.

    `distances` in the input are of this worker's samples alone.
    """
    z = whole.map(model["encoder"])
    centers = centers_of(model)
    q = in_blocks(lambda rows: student_t_assignment(rows, centers), z)
    labels = q.argmax(1)
    if epoch < config.anchor_epochs:
        target = functional.one_hot(first_clusters(model), len(centers)).to(q)
    else:
        target = target_distribution(q)
        model["centers"].first = labels.new_empty(0)
    state = {"target": target, "labels": labels}
    if ranks(config, epoch):
        state["input_means"], state["sizes"] = _input_means(whole, labels, len(centers))
    if config.alternating and has_structure(config) and epoch >= config.start_epoch:
        near = neighbours_within(z, labels, config.neighbours)
        apart = [_distances_to(whole, index, x.flatten(1), near) for index, x in whole.blocks()]
        state |= {"neighbours": near, "distances": torch.cat(apart)}
    return state


def _found_centers(z: Tensor, n_clusters: int, config: Finetune, seed: int) -> tuple[Tensor, Tensor]:
    """Centres `[k, m]` and the cluster of each sample `[n]`; samples left out follow the nearest that was not."""
    chosen = torch.randperm(len(z), generator=generator(seed, "centers"))[: config.center_points].sort().values
    everyone = z.double().cpu()
    points = everyone[chosen]
    number = seed32(derive_seed(seed, "centers"))
    space = points.numpy() if config.centers_by == "kmeans" else tsne(points, number, exaggeration=config.exaggeration)
    if config.centers_by == "tsne_mixture":
        found = gaussian_mixture(space, n_clusters, number, MIXTURE_STARTS).labels
    else:
        found = kmeans(space, n_clusters, number, KMEANS_STARTS)[0]
    labels = torch.as_tensor(found)
    centers, _ = cluster_means(points, labels, n_clusters)
    if len(points) < len(everyone):
        labels = labels[nearest_to(everyone, points, 1)[0].squeeze(1)]
    return centers, labels


def _input_means(whole: Whole, labels: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    """v^X `[C, d]` and sizes `[C]`, in float64 while it is summed up."""
    total: Tensor | None = None
    size = torch.zeros(n_clusters, dtype=torch.float64, device=labels.device)
    for index, x in whole.blocks():
        flat = x.flatten(1)
        means, count = cluster_means(flat.double(), labels[index.to(labels.device)], n_clusters)
        part = means * count.unsqueeze(1)
        total = part if total is None else total + part
        size += count
    assert total is not None
    total, size = sum_over_workers(total, whole.group), sum_over_workers(size, whole.group)
    return (total / size.clamp_min(1).unsqueeze(1)).to(flat.dtype), size


def _distances_to(whole: Whole, index: Tensor, x: Tensor, near: Tensor) -> Tensor:
    """Distances `[b, k]` in the input of flat samples x `[b, d]` to their neighbours; 0 where there is none."""
    chosen = near[index.to(near.device)]
    others = whole.rows(chosen.clamp_min(0).flatten()).view(*chosen.shape, -1)
    distances: Tensor = torch.linalg.vector_norm(x.unsqueeze(1) - others, dim=2)
    return distances
