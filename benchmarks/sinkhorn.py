"""The projection onto doubly stochastic matrices: milliseconds, and how exact it and its gradient are.

    python -m benchmarks.sinkhorn --device cpu --threads 1 --json

The affinity is |C C^T| of unit vectors near ten random subspaces of dimension 10, which hold equally many of them
(`even`) or 40 % down to 1 % (`uneven`). Five ways, in turns:

implicit            `sinkhorn(..., symmetric=True)`, as MLC uses it: iterations until the sums are 1 to 1e-5, and the
                    gradient from one linear system
unrolled            the same iterations on logarithms, as many as they take, and autograd through all of them
implicit_general    `sinkhorn(...)`, which knows nothing of symmetry: rows and columns in turn
unrolled_general    the same on logarithms with autograd
published           the five half-steps of MLC's authors, `sinkhorn(..., iterations=5)`

The upstream gradient is that of MLC's loss (eq. 4, Z = C) at the exact projection. Gradients with respect to C are
compared with the exact one, which is implicit and in float64. Deviations are the largest of a row's or a column's sum
from 1. Times are medians of the process's own time on a CPU, wall time on a GPU.
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
from raymc.ops import affinity_rows, cluster_coding_rate, sinkhorn
from raymc.ops.sinkhorn import TOLERANCE
from raymc.ops.sinkhorn_gradient import CHECK_EVERY

EPS_SQ, GAMMA = 0.1, 0.05
DIMENSION, NOISE = 10, 0.1
SHARES = {"even": (10,) * 10, "uneven": (40, 20, 10, 10, 5, 5, 4, 3, 2, 1)}
"""Per cent of the points in each subspace."""

Projection = Callable[[Tensor], Tensor]


def features(n: int, d: int, data: str) -> Tensor:
    """C `[n, d]` in float64: unit vectors of ten subspaces, with noise of a tenth of their length."""
    generator = torch.Generator().manual_seed(0)
    bases = torch.linalg.qr(torch.randn(len(SHARES[data]), d, DIMENSION, generator=generator).double()).Q
    inside = torch.randn(n, DIMENSION, generator=generator).double()
    subspace = torch.arange(len(bases)).repeat_interleave(torch.tensor(SHARES[data]))[torch.arange(n) % 100]
    points = functional.normalize(torch.einsum("nk,ndk->nd", inside, bases[subspace]), dim=1)
    noise = functional.normalize(torch.randn(n, d, generator=generator).double(), dim=1)
    return functional.normalize(points + NOISE * noise, dim=1)


def halving(affinity: Tensor, eta: float, iterations: int) -> Tensor:
    logs = affinity / eta
    f = logs.new_zeros(len(logs))
    for _ in range(iterations):
        f = (f - (logs + f).logsumexp(1)) / 2
    return (logs + f[:, None] + f).exp()


def alternating(affinity: Tensor, eta: float, iterations: int) -> Tensor:
    logs = affinity / eta
    g = logs.new_zeros(1, len(logs))
    for _ in range(iterations):
        f = -(logs + g).logsumexp(1, keepdim=True)
        g = -(logs + f).logsumexp(0, keepdim=True)
    return (logs + f + g).exp()


def needed(way: Callable[[Tensor, float, int], Tensor], affinity: Tensor, eta: float) -> int:
    """Iterations until the sums are 1 to raymc's tolerance, looked at as often as there."""
    for iterations in range(CHECK_EVERY, 100 * CHECK_EVERY, CHECK_EVERY):
        if max(deviations(way(affinity, eta, iterations))) <= TOLERANCE[affinity.dtype]:
            return iterations
    raise SystemExit(f"eta {eta}: not settled after {iterations} iterations")


def deviations(pi: Tensor) -> tuple[float, float]:
    """Of the rows' and the columns' sums."""
    rows, columns = (float((pi.sum(axis) - 1).abs().max()) for axis in (1, 0))
    return rows, columns


def timed(project: Projection, affinity: Tensor, upstream: Tensor) -> tuple[list[float], list[float], Tensor, Tensor]:
    """Milliseconds (the process's and the wall's) at the end of forward and of backward, Pi and the gradient."""
    x = affinity.detach().requires_grad_()
    own, wall = [clock(x, time.process_time)], [time.perf_counter()]
    pi = project(x)
    own.append(clock(x, time.process_time))
    wall.append(time.perf_counter())
    (slope,) = torch.autograd.grad(pi, x, upstream)
    own.append(clock(x, time.process_time))
    wall.append(time.perf_counter())
    spans = [[1e3 * (b - a) for a, b in zip(times, times[1:], strict=False)] for times in (own, wall)]
    return spans[0], spans[1], pi.detach(), slope


def clock(x: Tensor, read: Callable[[], float]) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
    return read()


def of_features(slope: Tensor, c: Tensor) -> Tensor:
    """The gradient with respect to C of what has this one with respect to |C C^T|."""
    signed = slope.double() * torch.sign(c @ c.mT)
    return (signed + signed.mT) @ c


def compare(n: int, d: int, data: str, eta: float, repeats: int, device: str) -> list[dict[str, Any]]:
    """A row for each way."""
    c = features(n, d, data).to(device)
    exact = affinity_rows(c).requires_grad_()
    projected = sinkhorn(exact, eta, symmetric=True)
    pi = projected.detach().requires_grad_()
    loss = 2 * cluster_coding_rate(c, pi, EPS_SQ) + GAMMA / 2 * pi.square().sum()
    (upstream,) = torch.autograd.grad(loss, pi)
    target = of_features(torch.autograd.grad(projected, exact, upstream)[0], c)
    affinity, weight = affinity_rows(c.float()), upstream.float()
    few, many = (needed(way, affinity, eta) for way in (halving, alternating))
    by_name: dict[str, tuple[int, Projection]] = {
        "implicit": (few, lambda x: sinkhorn(x, eta, symmetric=True)),
        "unrolled": (few, lambda x: halving(x, eta, few)),
        "implicit_general": (many, lambda x: sinkhorn(x, eta)),
        "unrolled_general": (many, lambda x: alternating(x, eta, many)),
        "published": (5, lambda x: sinkhorn(x, eta, 5)),
    }
    runs = [[timed(project, affinity, weight) for _, project in by_name.values()] for _ in range(repeats + 1)][1:]
    rows = []
    for i, (name, (iterations, _)) in enumerate(by_name.items()):
        row = {"data": data, "eta": eta, "way": name, "iterations": iterations, "repeats": repeats}
        for j, phase in enumerate(("forward", "backward")):
            own, wall = statistics.median(run[i][0][j] for run in runs), statistics.median(run[i][1][j] for run in runs)
            row |= {f"{phase}_ms": wall if device.startswith("cuda") else own, f"{phase}_wall_ms": wall}
        rows.append(row | quality(runs[0][i][2], of_features(runs[0][i][3], c), target))
    return rows


def quality(pi: Tensor, found: Tensor, target: Tensor) -> dict[str, float]:
    rows, columns = deviations(pi.double())
    return {
        "row_deviation": rows,
        "column_deviation": columns,
        "square": float(pi.double().square().sum()),
        "gradient_cosine": float(functional.cosine_similarity(found.flatten(), target.flatten(), dim=0)),
        "gradient_error": float((found - target).norm() / target.norm()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=1024, help="n, points of the batch")
    parser.add_argument("--features", type=int, default=128, help="d")
    parser.add_argument("--eta", type=float, nargs="+", default=[0.175, 0.1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = facts(args.device, args.threads)
    cases = [(data, eta) for data in SHARES for eta in args.eta]
    rows = [row for case in cases for row in compare(args.rows, args.features, *case, args.repeats, args.device)]
    if args.json:
        shape = {"n": args.rows, "d": args.features, "dtype": "float32", "eps_sq": EPS_SQ, "gamma": GAMMA}
        print(json.dumps({"machine": machine, "shape": shape, "rows": rows}, indent=1))
        return
    print(f"n={args.rows} d={args.features} on {args.device}, {args.threads} threads, load {machine['load']:.1f}")
    for row in rows:
        off = max(row["row_deviation"], row["column_deviation"])
        print(
            f"{row['data']:6} eta {row['eta']:<5} {row['way']:16} {row['iterations']:3} iterations  "
            f"forward {row['forward_ms']:6.1f} ms  backward {row['backward_ms']:6.1f} ms  sums off by {off:.0e}  "
            f"gradient's cosine {row['gradient_cosine']:.4f}, error {row['gradient_error']:.0e}"
        )


if __name__ == "__main__":
    main()
