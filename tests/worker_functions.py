"""What the distributed tests run on every worker: losses of a small net, gradients averaged as in training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import FileStore, ProcessGroup
from torch.nn import functional

from raymc import ops, pulse
from raymc.datasets.base import Split, stored
from raymc.distributed import (
    GradientAverage,
    Workers,
    barrier,
    broadcast_object,
    first_row,
    gather_rows,
    row_counts,
    sum_over_workers,
    world,
)
from raymc.methods import gcml, gcml_settings, gcml_state
from raymc.methods.base import Batch
from raymc.nets.autoencoder import Centers
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.ops.sinkhorn import sinkhorn_columns
from raymc.training.feed import Feed

Result = tuple[float, list[np.ndarray]]


def net(dtype: torch.dtype = torch.float64, norm: bool = False) -> nn.Sequential:
    """Weights that are the same wherever it is called: 5 features to 6 for z and 4 for the clusters."""
    torch.manual_seed(1)
    middle = [nn.BatchNorm1d(7)] if norm else []
    return nn.Sequential(nn.Linear(5, 7), *middle, nn.ELU(), nn.Linear(7, 10)).to(dtype)


def objectives() -> dict[str, Callable[[list[Tensor], list[Tensor], ProcessGroup | None], Tensor]]:
    """Losses of two views' z and pi, by name."""
    return {
        "coding_rate": lambda z, pi, group: ops.coding_rate(z[0], 0.2, group),
        "cluster_coding_rate": lambda z, pi, group: ops.cluster_coding_rate(z[0], pi[0], 0.2, group),
        "cosine": lambda z, pi, group: ops.cosine_similarity_mean(z[0], z[1], group),
        "tcr_separate": lambda z, pi, group: ops.tcr_objective(z, 0.2, 3.0, "separate", group)[0],
        "tcr_mean": lambda z, pi, group: ops.tcr_objective(z, 0.2, 3.0, "mean", group)[0],
        "tcr_average": lambda z, pi, group: ops.tcr_objective(z, 0.2, 3.0, "average", group)[0],
        "tcr_many": lambda z, pi, group: ops.tcr_objective([*z, z[0].roll(1, 1)], 0.2, 3.0, "separate", group)[0],
        "nmce": lambda z, pi, group: ops.nmce_objective(z, pi, 0.2, 3.0, group)[0],
        "mlc": lambda z, pi, group: ops.mlc_objective(z, _heads(pi), 0.2, 3.0, 0.3, group=group)[0],
        "mlc_published": lambda z, pi, group: ops.mlc_objective(z, _heads(pi), 0.2, 3.0, 0.3, 5, 0.5, group)[0],
        "turtle": lambda z, pi, group: ops.turtle_objective(pi[0], z[0], 10.0, 3, 0.1, group)[0],
        "sinkhorn_rows": lambda z, pi, group: _rows(z, None, group),
        "sinkhorn_rows_5": lambda z, pi, group: _rows(z, 5, group),
        "sinkhorn_rows_4": lambda z, pi, group: _rows(z, 4, group),
        "sinkhorn_symmetric": lambda z, pi, group: _symmetric_rows(z[0], group),
        "sinkhorn_alike": lambda z, pi, group: _symmetric_rows(z[0], group, vouched=False),
        "sinkhorn_columns": lambda z, pi, group: _columns(z[0], None, group),
        "sinkhorn_columns_5": lambda z, pi, group: _columns(z[0], 5, group),
        "sinkhorn_columns_4": lambda z, pi, group: _columns(z[0], 4, group),
    }


def _heads(pi: list[Tensor]) -> list[Tensor]:
    """Cluster features whose cosines have both signs."""
    return [functional.normalize(part - 0.25, dim=1) for part in pi]


def _rows(z: list[Tensor], iterations: int | None, group: ProcessGroup | None) -> Tensor:
    """Of an affinity that is not symmetric: between the points of one view and those of another."""
    return _by_place(ops.sinkhorn(z[0] @ gather_rows(z[1], group).mT, 0.3, iterations, group), group)


def _symmetric_rows(z: Tensor, group: ProcessGroup | None, vouched: bool = True) -> Tensor:
    return _by_place(ops.sinkhorn(ops.affinity_rows(z, group), 0.3, group=group, symmetric=vouched), group)


def _columns(z: Tensor, iterations: int | None, group: ProcessGroup | None) -> Tensor:
    return _by_place(sinkhorn_columns(ops.affinity_rows(z[None], group), 0.3, iterations, group)[0].mT, group)


def _by_place(part: Tensor, group: ProcessGroup | None) -> Tensor:
    """The sum of all squared entries, of which this worker has rows `[m, n]`, each with a weight of its own."""
    start = first_row(row_counts(part, group), group)
    rows, columns = (torch.arange(length, dtype=part.dtype) for length in part.shape)
    weights = (1 + start + rows.unsqueeze(1) + 2.7 * columns).sin()
    return sum_over_workers((weights * part.square()).sum(), group)


def loss_and_gradients(
    group: ProcessGroup | None, x: np.ndarray, name: str, dtype: torch.dtype = torch.float64, norm: bool = False
) -> Result:
    """An objective of the net on two views `[2, n, 5]` of this worker's rows, and the averaged gradients."""
    model = net(dtype, norm)
    synchronise_batchnorm(model, group)
    views = torch.as_tensor(x).to(dtype)
    out = model(views.reshape(-1, 5)).reshape(2, -1, 10)
    z = functional.normalize(out[:, :, :6], dim=2)
    pi = out[:, :, 6:].softmax(2)
    loss = objectives()[name](list(z), list(pi), group)
    loss.backward()
    with GradientAverage(model.parameters(), group):
        pass
    return float(loss.detach()), [p.grad.numpy() for p in model.parameters()]


def distributed_data_parallel(group: ProcessGroup, x: np.ndarray, name: str) -> list[np.ndarray]:
    """Gradients that torch's own DistributedDataParallel averages."""
    model = nn.parallel.DistributedDataParallel(net(), process_group=group)
    out = model(torch.as_tensor(x).reshape(-1, 5)).reshape(2, -1, 10)
    z, pi = functional.normalize(out[:, :, :6], dim=2), out[:, :, 6:].softmax(2)
    objectives()[name](list(z), list(pi), group).backward()
    return [p.grad.numpy() for p in model.parameters()]


def batch_norm(group: ProcessGroup | None, x: np.ndarray, momentum: float | None) -> dict[str, Any]:
    """A training step of BatchNorm on rows `[n, 3, ...]`: output, gradients, buffers, and the output in eval mode."""
    kind = nn.BatchNorm1d if x.ndim < 4 else nn.BatchNorm2d
    model = nn.Sequential(kind(3, momentum=momentum)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    synchronise_batchnorm(model, group)
    rows = torch.as_tensor(x).requires_grad_()
    out = model(rows)
    sum_over_workers((out.sin() * torch.linspace(0, 1, 3).view(-1, *[1] * (x.ndim - 2))).sum(), group).backward()
    with GradientAverage(model.parameters(), group):
        pass
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    gradients = [p.grad.numpy() for p in model.parameters()]
    model.eval()
    return {
        "out": out.detach().numpy(),
        "rows": rows.grad.numpy(),
        "gradients": gradients,
        "state": state,
        "eval": model(torch.as_tensor(x)).detach().numpy(),
    }


def gathered(group: ProcessGroup | None, x: np.ndarray) -> dict[str, Any]:
    """All rows on every worker, and the gradient of a loss that weights them by their place."""
    rows = torch.as_tensor(x).requires_grad_()
    everything = gather_rows(rows, group)
    weights = torch.arange(everything.numel(), dtype=everything.dtype).view_as(everything)
    (everything.square() * weights).sum().backward()
    return {"rows": everything.detach().numpy(), "gradient": rows.grad.numpy()}


def gathered_labels(group: ProcessGroup | None, x: np.ndarray) -> np.ndarray:
    return gather_rows(torch.as_tensor(x), group).numpy()


def averaged(group: ProcessGroup | None, values: np.ndarray) -> list[np.ndarray | None]:
    """`GradientAverage` of parameters of two types, of which one has no gradient."""
    parameters = [nn.Parameter(torch.zeros(len(values), dtype=t)) for t in (torch.float32, torch.float64)]
    parameters += [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3, 2))]
    for parameter in (parameters[0], parameters[1]):
        parameter.grad = torch.as_tensor(values).to(parameter.dtype)
    parameters[3].grad = torch.full((2, 3), float(values[0])).mT  # not contiguous
    with GradientAverage(parameters, group):
        pass
    return [None if p.grad is None else p.grad.numpy() for p in parameters]


def wrong_counts(group: ProcessGroup, x: np.ndarray) -> str:
    try:
        gather_rows(torch.as_tensor(x), group, (3, 3))
    except ValueError as error:
        return str(error)
    return ""


def averaged_during_backward(group: ProcessGroup | None, x: np.ndarray) -> dict[str, Any]:
    """Gradients of steps that leave layers out, of one in two passes, of one after a failure, and what is refused."""
    model, unused = net(), nn.Linear(2, 2)
    average = GradientAverage([*model.parameters(), *unused.parameters()], group)
    last = GradientAverage(model[2].parameters(), group)  # of another update, of the same weights
    rows = torch.as_tensor(x)

    def loss() -> Tensor:
        return sum_over_workers(model(rows).square().sum(), group)

    def gradients(used: GradientAverage, *passes: Callable[[], Tensor]) -> list[np.ndarray | None]:
        model.zero_grad()
        for one in passes[:-1]:
            one().backward()
        with used:
            passes[-1]().backward()
        return [None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()]

    def partial_loss() -> Tensor:
        return sum_over_workers(model[2](rows.new_ones(len(rows), 7)).square().sum(), group)

    found: dict[str, Any] = {"whole": gradients(average, loss), "partial": gradients(last, partial_loss)}
    found["partial_of_all"] = gradients(average, partial_loss)
    try:
        with average:
            raise KeyError("a failure before the pass")
    except KeyError:
        pass
    found["twice"] = gradients(average, loss, loss)
    found["unused"] = [p.grad for p in unused.parameters()]
    try:
        with last:
            partial_loss().backward()
            partial_loss().backward()
        found["refused"] = False
    except RuntimeError:
        found["refused"] = True
    return found


def agreed(group: ProcessGroup, n: int) -> tuple[str, int, int]:
    """Worker 0's word, and this worker's place."""
    barrier(group)
    return broadcast_object(f"said by {n}", group), *world(group)


def waiting(group: ProcessGroup, how: str, store: str) -> str:
    """Worker 0 is at work alone for longer than one may be silent: it computes, asks, or is blocked."""
    rank, size = world(group)
    pulse.BEAT, pulse.SILENT = timedelta(seconds=0.05), timedelta(seconds=1.5)
    own = pulse.Pulse(FileStore(f"{store}-{how}", size), rank, size)
    own.meet()
    begun = time.monotonic()
    while rank == 0 and time.monotonic() - begun < 4.0:
        if how == "blocked":
            threading.Event().wait(4.0)
        elif how == "asks":
            time.sleep(0.05)
    try:
        own.meet()
    except RuntimeError as error:
        return str(error)
    return "there"


def gcml_losses(group: ProcessGroup | None, rows: np.ndarray, alternating: bool) -> dict[str, Result]:
    """GCML's three losses on this worker's positions of 23 samples, the target and neighbours seen by all together."""
    model = nn.ModuleDict({"encoder": net_of(6, 2), "decoder": net_of(2, 6), "centers": Centers(3, 2).double()})
    torch.manual_seed(7)
    x, noise = torch.randn(23, 6).double(), torch.randn(23, 6).double()
    with torch.no_grad():
        model["centers"].weight.copy_(model["encoder"](x[:3]))
    data = stored("drawn", Split(x.float(), None), None, n_classes=3, split="all", source="drawn")
    rank, size = world(group)
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers(rank, size, group))
    config = gcml_settings.Finetune(
        start_epoch=1, continuation_epochs=4, neighbours=3, alternating=alternating, kappa=2.0
    )
    state = gcml_state.observe(model, feed, config, 2)
    index = torch.as_tensor(rows)
    mine = feed.rows(index)
    drawn = noise[index]
    batch = Batch((mine,), index, normal=lambda name, width: drawn, epoch=2, steps=4, state=state)
    found = {}
    for loss in (gcml.denoising_loss, gcml.clustering_loss, *([gcml.structure_loss] if alternating else [])):
        model.zero_grad()
        settings = gcml_settings.Pretrain() if loss is gcml.denoising_loss else config
        value, _ = loss(model, batch, settings, group)
        value.backward()
        with GradientAverage(model.parameters(), group):
            pass
        found[loss.__name__] = (
            float(value.detach()),
            [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None],
        )
    return found


def net_of(inputs: int, outputs: int) -> nn.Sequential:
    """The same small net wherever it is built."""
    torch.manual_seed(inputs)
    return nn.Sequential(nn.Linear(inputs, 5), nn.ELU(), nn.Linear(5, outputs)).double()
