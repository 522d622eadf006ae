"""Seconds from cluster features to labels: the projection, spectral clustering, and new points.

    python -m benchmarks.membership_clusters --json

Features are those of a union of k random subspaces of 10 dimensions in R^128 with noise, half as long as the points, so
that every accuracy means something. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import facts
from raymc.clusterers import find
from raymc.config import Value, resolve
from raymc.methods import METHODS
from raymc.methods.base import preset_values
from raymc.metrics import clustering_scores
from raymc.ops import affinity_rows
from raymc.ops.sinkhorn import symmetric_scaling

D, RANK, NOISE = 128, 10, 0.5


def points(n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit rows `[n, 128]` and the subspace of each; the subspaces depend on k alone."""
    generator = torch.Generator().manual_seed(k)
    bases = torch.linalg.qr(torch.randn(k, D, RANK, generator=generator))[0]
    generator.manual_seed(seed)
    y = torch.randint(k, (n,), generator=generator)
    inside = torch.einsum("ndr,nr->nd", bases[y], torch.randn(n, RANK, generator=generator)) / RANK**0.5
    outside = torch.randn(n, D, generator=generator) / D**0.5
    return functional.normalize(inside + NOISE * outside, dim=1), y


def row(n: int, k: int, eta: float, device: str) -> dict[str, Any]:
    """One size: seconds of each part, and how good the labels are."""
    method = METHODS["mlc"]
    over: dict[str, Value] = {"heads.eta": eta}
    config = resolve(
        "mlc", "cifar10", "shared", method.stage_settings, preset_values(method.presets["cifar10"]["shared"]), over
    )
    c, y = points(n, k, 1)
    new, y_new = points(4096, k, 2)
    c, new = c.to(device), new.to(device)
    begun = time.perf_counter()
    symmetric_scaling(affinity_rows(c), eta)[1].sum().item()
    projected = time.perf_counter()
    found = find(config, c, c, k, 0)
    done = time.perf_counter()
    labels = found.assigner(new, new).cpu()
    assigned = time.perf_counter()
    return {
        "n": n,
        "k": k,
        "eta": eta,
        "projection_s": projected - begun,
        "projection_and_spectral_s": done - projected,
        "new_points_per_s": len(new) / (assigned - done),
        "acc": clustering_scores(y, found.labels)["acc"],
        "new_acc": clustering_scores(y_new, labels)["acc"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = facts(args.device, args.threads)
    rows = [row(args.points, k, eta, args.device) for k, eta in ((10, 0.175), (20, 0.175), (100, 0.1), (200, 0.1))]
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    for one in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in one.items()))


if __name__ == "__main__":
    main()
