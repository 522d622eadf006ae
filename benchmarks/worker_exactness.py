"""How far losses and gradients on 1, 2 and 3 workers are from one process's on the same global batch.

    python -m benchmarks.worker_exactness --json

Every worker holds different rows of unlike distribution (gloo, CPU). A net with BatchNorm gives z and pi; its gradients
are averaged over workers as in training. Figures are the largest relative difference over workers and, for
gradients, over parameters (norm of the difference by norm of the gradient). `rounding` is the yardstick: how far one
process's own gradient in float32 is from that in float64. MLC has as many clusters as rows; `mlc` projects until
converged, `mlc_published` takes the five half-steps of its authors' code.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from benchmarks.machine import facts
from raymc.distributed import GradientAverage, rows_of
from raymc.nets.batchnorm import synchronise_batchnorm
from raymc.ops import gumbel_softmax, mlc_objective, nmce_objective, tcr_objective
from tests.worker_pool import on_workers

ROWS, FEATURES, CLUSTERS, EPS_SQ, WEIGHT = 768, 64, 10, 0.2, 30.0
LOSSES = ("tcr_separate", "tcr_mean", "nmce", "mlc", "mlc_published")
MLC = {"eps_sq": 0.1, "gamma": 0.05, "eta": 0.175}


def loss_and_gradients(
    group: ProcessGroup | None, shard: dict[str, np.ndarray], loss: str, dtype: str
) -> tuple[float, list[np.ndarray]]:
    """One loss on this worker's rows and the averaged gradients of the net's parameters."""
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    net = nn.Sequential(nn.Linear(16, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, FEATURES + CLUSTERS)).to(kind)
    synchronise_batchnorm(net, group)
    views = torch.as_tensor(shard["views"]).to(kind)
    out = net(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    value = objective(loss, out, torch.as_tensor(shard["uniform"]).to(kind), group)
    value.backward()  # type: ignore[no-untyped-call]
    with GradientAverage(net.parameters(), group):
        pass
    gradients = [p.grad.double().numpy() for p in net.parameters() if p.grad is not None]
    return float(value.detach()), gradients


def objective(loss: str, out: Tensor, uniform: Tensor, group: ProcessGroup | None) -> Tensor:
    z = list(functional.normalize(out[:, :, :FEATURES], dim=2))
    if loss.startswith("mlc"):
        c = list(functional.normalize(out[:, :, FEATURES:], dim=2))
        half_steps = 5 if loss == "mlc_published" else None
        return mlc_objective(z, c, MLC["eps_sq"], MLC["gamma"], MLC["eta"], half_steps, group=group)[0]
    if loss != "nmce":
        return tcr_objective(z, EPS_SQ, WEIGHT, loss.removeprefix("tcr_"), group)[0]
    logits = out[:, :, FEATURES:]
    pi = [gumbel_softmax(row, noise, 1.0) for row, noise in zip(logits, uniform, strict=True)]
    return nmce_objective(z, pi, EPS_SQ, WEIGHT, group)[0]


def batch() -> dict[str, np.ndarray]:
    """Two views and Gumbel noise of the global batch; mean and spread drift along the rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 16)) * np.linspace(0.5, 2, ROWS)[:, None] + np.linspace(-1, 1, ROWS)[:, None]
    views = np.stack([x + 0.1 * rng.normal(size=x.shape) for _ in range(2)])
    return {"views": views, "uniform": rng.uniform(size=(2, ROWS, CLUSTERS))}


def row(loss: str, dtype: str, workers: int) -> dict[str, Any]:
    whole = batch()
    value, gradients = loss_and_gradients(None, whole, loss, dtype)
    _, exact = loss_and_gradients(None, whole, loss, "float64")
    spans = [rows_of(ROWS, rank, workers) for rank in range(workers)]
    shards = [{name: array[:, span] for name, array in whole.items()} for span in spans]
    found = on_workers(loss_and_gradients, shards, loss=loss, dtype=dtype)
    return {
        "loss": loss,
        "dtype": dtype,
        "workers": workers,
        "loss_difference": max(abs(v - value) / abs(value) for v, _ in found),
        "gradient_difference": max(apart(grads, gradients) for _, grads in found),
        "rounding": apart(gradients, exact),
    }


def apart(mine: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest relative difference of a parameter's gradient.

    The bias before BatchNorm is left out: its gradient is 0 but for rounding.
    """
    norms = [float(np.linalg.norm(g)) for g in theirs]
    pairs = [(a, b, norm) for a, b, norm in zip(mine, theirs, norms, strict=True) if norm > 1e-5 * max(norms)]
    return max(float(np.linalg.norm(a - b)) / norm for a, b, norm in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(loss, dtype, workers) for dtype in ("float64", "float32") for loss in LOSSES for workers in (1, 2, 3)]
    shape = {"n": ROWS, "d": FEATURES, "k": CLUSTERS, "eps_sq": EPS_SQ, "similarity_weight": WEIGHT, "mlc": MLC}
    if args.json:
        print(json.dumps({"machine": facts("cpu", 1), "shape": shape, "rows": rows}, indent=1))
        return
    for found in rows:
        print(
            f"{found['dtype']} {found['loss']:13} {found['workers']} workers  loss {found['loss_difference']:.1e}  "
            f"gradient {found['gradient_difference']:.1e}  (rounding {found['rounding']:.1e})"
        )


if __name__ == "__main__":
    main()
