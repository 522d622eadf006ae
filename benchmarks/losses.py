"""Milliseconds of the TCR and NMCE losses, forward and backward, beside the plain formula in the same run.

    python -m benchmarks.losses --device cpu --threads 1 --json

Plain is what one writes down from the paper: broadcast the memberships over the features, multiply in a batch, torch's
logdet, autograd. The two take turns, so that both meet the same load; the medians are compared, and so are
the values and gradients. On a CPU the time is the process's own (all threads together), which other
programs disturb least; wall time stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import facts
from raymc.ops import coding_rate, coding_rates

Loss = Callable[[Tensor, Tensor], Tensor]


def plain_rate(z: Tensor, eps_sq: float) -> Tensor:
    n, d = z.shape
    return torch.logdet(torch.eye(d, device=z.device) + d / (n * eps_sq) * z.T @ z) / 2


def plain_cluster_rate(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    n, d = z.shape
    mass = pi.sum(0) + 1e-8
    weighted = z.T.unsqueeze(0) * pi.T.unsqueeze(1)  # [k, d, n]
    gram = weighted @ z
    rates = torch.logdet(torch.eye(d, device=z.device) + (d / (mass * eps_sq)).view(-1, 1, 1) * gram)
    return (mass / (2 * n) * rates).sum()


def plain_nmce(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    return plain_cluster_rate(z, pi, eps_sq) - plain_rate(z, eps_sq)


def raymc_nmce(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    rate, cluster_rate = coding_rates(z, pi, eps_sq)
    return cluster_rate - rate


def losses(eps_sq: float, clusters: bool) -> tuple[Loss, Loss]:
    """`(plain, raymc)`: the rate part of NMCE, R_c - R, or of TCR, -R, of z `[n, d]` and pi `[n, k]`."""
    if clusters:
        return lambda z, pi: plain_nmce(z, pi, eps_sq), lambda z, pi: raymc_nmce(z, pi, eps_sq)
    return lambda z, pi: -plain_rate(z, eps_sq), lambda z, pi: -coding_rate(z, eps_sq)


def timed(loss: Loss, inputs: list[Tensor]) -> tuple[float, float, Tensor, tuple[Tensor, ...]]:
    """Milliseconds (the process's and the wall's) of the loss with its gradients, and these."""
    wanted = [x for x in inputs if x.requires_grad]
    wait: Callable[[], None] = torch.cuda.synchronize if inputs[0].is_cuda else lambda: None
    wait()
    cpu, wall = time.process_time(), time.perf_counter()
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, wanted)
    wait()
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall), value.detach(), gradients


def compare(n: int, d: int, k: int | None, eps_sq: float, repeats: int, device: str) -> dict[str, Any]:
    """One row: both ways in turns; k None is TCR."""
    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(n, d, generator=generator), dim=1).to(device).requires_grad_()
    pi = torch.randn(n, k or 1, generator=generator).softmax(1).to(device).requires_grad_(k is not None)
    pair = losses(eps_sq, k is not None)
    runs = [[timed(loss, [z, pi]) for loss in pair] for _ in range(repeats + 1)][1:]
    (_, _, value, gradients), (_, _, ours, our_gradients) = runs[0]
    wall = [statistics.median(run[i][1] for run in runs) for i in (0, 1)]
    own = [statistics.median(run[i][0] for run in runs) for i in (0, 1)]
    plain_ms, raymc_ms = wall if device.startswith("cuda") else own
    return {
        "loss": "tcr" if k is None else "nmce",
        "k": k,
        "plain_ms": plain_ms,
        "raymc_ms": raymc_ms,
        "times_faster": plain_ms / raymc_ms,
        "plain_wall_ms": wall[0],
        "raymc_wall_ms": wall[1],
        "difference": float((ours - value).abs() / value.abs()),
        "gradient_difference": max(
            float((a - b).norm() / b.norm()) for a, b in zip(our_gradients, gradients, strict=True)
        ),
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=1024, help="n, rows of the batch")
    parser.add_argument("--features", type=int, default=128, help="d")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 20, 100], help="k; MLC's is n")
    parser.add_argument("--eps-sq", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = {"n": args.rows, "d": args.features, "eps_sq": args.eps_sq, "dtype": "float32"}
    machine = facts(args.device, args.threads)
    rows = [
        compare(args.rows, args.features, k, args.eps_sq, args.repeats, args.device) for k in (None, *args.clusters)
    ]
    if args.json:
        print(json.dumps({"machine": machine, "shape": shape, "rows": rows}, indent=1))
        return
    print(f"n={args.rows} d={args.features} on {args.device}, {args.threads} threads, load {machine['load']:.1f}")
    for row in rows:
        print(
            f"{row['loss']:5} k={row['k'] or '-':<5} plain {row['plain_ms']:8.1f} ms  raymc {row['raymc_ms']:8.1f} ms  "
            f"{row['times_faster']:5.2f}x  gradients differ by {row['gradient_difference']:.0e}"
        )


if __name__ == "__main__":
    main()
