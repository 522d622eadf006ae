"""Milliseconds of the TCR, NMCE and MLC losses, forward and backward, beside the plain formula in the same run.

    python -m benchmarks.losses --device cpu --threads 1 --json

Plain is what one writes down from the paper: broadcast the memberships over the features, multiply in a batch, torch's
logdet, autograd. MLC (n clusters, eq. 4 with Pi given) also stands beside the batched product of MCR2's published code.
They take turns, so that all meet the same load; the medians are compared, and so are the values and gradients. On a
CPU the time is the process's own (all threads together), which other programs disturb least; wall time stands beside
it.

MLC's row also has the memory that one forward and backward needs: each way runs once in a fresh process, and on a CPU
the figure is by how much the largest resident size (`ru_maxrss`) rises above its value before the call; on a GPU it is
the peak of torch's allocator above what was allocated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.machine import facts
from raymc.ops import cluster_coding_rate, coding_rate, coding_rates

Loss = Callable[[Tensor, Tensor], Tensor]

MLC_EPS_SQ, GAMMA = 0.1, 0.05


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


def published_cluster_rate(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    """As MCR2's code has it: W `[1, d, n]` times Pi `[k, 1, n]`, and a product with W in a batch."""
    n, d = z.shape
    features, members = z.T.reshape(1, d, n), pi.T.reshape(-1, 1, n)
    mass = members.sum(2) + 1e-8
    gram = features.mul(members).matmul(features.transpose(1, 2))
    rates = torch.logdet(torch.eye(d, device=z.device) + (d / (mass * eps_sq)).view(-1, 1, 1) * gram)
    return (mass.squeeze(1) * rates / (2 * n)).sum()


def raymc_nmce(z: Tensor, pi: Tensor, eps_sq: float) -> Tensor:
    rate, cluster_rate = coding_rates(z, pi, eps_sq)
    return cluster_rate - rate


def mlc(cluster_rate: Tensor, rate: Tensor, pi: Tensor) -> Tensor:
    return 2 * (cluster_rate - rate) + GAMMA / 2 * pi.square().sum()


def ways(loss: str, eps_sq: float) -> dict[str, Loss]:
    """A loss of z `[n, d]` and pi `[n, k]` by each way: -R for TCR, R_c - R for NMCE, eq. 4 for MLC."""
    if loss == "tcr":
        return {"plain": lambda z, pi: -plain_rate(z, eps_sq), "raymc": lambda z, pi: -coding_rate(z, eps_sq)}
    if loss == "nmce":
        return {
            "plain": lambda z, pi: plain_cluster_rate(z, pi, eps_sq) - plain_rate(z, eps_sq),
            "raymc": lambda z, pi: raymc_nmce(z, pi, eps_sq),
        }
    return {
        "plain": lambda z, pi: mlc(plain_cluster_rate(z, pi, eps_sq), plain_rate(z, eps_sq), pi),
        "published": lambda z, pi: mlc(published_cluster_rate(z, pi, eps_sq), plain_rate(z, eps_sq), pi),
        "raymc": lambda z, pi: mlc(cluster_coding_rate(z, pi, eps_sq), coding_rate(z, eps_sq), pi),
    }


def batch(n: int, d: int, k: int, device: str, of_pi: bool = True) -> list[Tensor]:
    """Features and memberships that want gradients."""
    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(n, d, generator=generator), dim=1).to(device).requires_grad_()
    return [z, torch.randn(n, k, generator=generator).softmax(1).to(device).requires_grad_(of_pi)]


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


def compare(loss: str, n: int, d: int, k: int, eps_sq: float, repeats: int, device: str) -> dict[str, Any]:
    """One row: all ways in turns, after one round to warm up."""
    inputs = batch(n, d, k, device, of_pi=loss != "tcr")
    by_name = ways(loss, eps_sq)
    runs = [[timed(way, inputs) for way in by_name.values()] for _ in range(repeats + 1)][1:]
    (_, _, value, gradients), (_, _, ours, our_gradients) = runs[0][0], runs[0][-1]
    row: dict[str, Any] = {"loss": loss, "k": None if loss == "tcr" else k, "eps_sq": eps_sq}
    for i, name in enumerate(by_name):
        own, wall = statistics.median(run[i][0] for run in runs), statistics.median(run[i][1] for run in runs)
        row |= {f"{name}_ms": wall if device.startswith("cuda") else own, f"{name}_wall_ms": wall}
    row["times_faster"] = row["plain_ms"] / row["raymc_ms"]
    row["times_faster_by_wall"] = row["plain_wall_ms"] / row["raymc_wall_ms"]
    if "published" in by_name:
        row["times_faster_than_published"] = row["published_ms"] / row["raymc_ms"]
    row["difference"] = float((ours - value).abs() / value.abs())
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(our_gradients, gradients, strict=True)]
    return row | {"gradient_difference": max(apart), "repeats": repeats}


def extra_memory(n: int, d: int, device: str, threads: int) -> dict[str, float]:
    """MiB that MLC's loss and gradients need by each way, and ours as a share of the plain formula's."""
    found = {}
    for name in ways("mlc", MLC_EPS_SQ):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found[f"{name}_extra_mib"] = fresh.submit(peak, name, n, d, device, threads).result()
    return found | {"share_of_plain_memory": found["raymc_extra_mib"] / found["plain_extra_mib"]}


def peak(name: str, n: int, d: int, device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    inputs = batch(n, d, n, device)
    before = held(device)
    timed(ways("mlc", MLC_EPS_SQ)[name], inputs)
    return held(device) - before


def held(device: str) -> float:
    """MiB at most so far, in this process or on its GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=1024, help="n, rows of the batch, and MLC's clusters")
    parser.add_argument("--features", type=int, default=128, help="d")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 20, 100], help="k of NMCE")
    parser.add_argument("--eps-sq", type=float, default=0.2, help=f"of TCR and NMCE; MLC's is {MLC_EPS_SQ}")
    parser.add_argument("--repeats", type=int, default=15, help="MLC's is a third of it")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n, d, device = args.rows, args.features, args.device
    machine = facts(device, args.threads)
    # Memory first: a process inherits the largest size that its parent has had so far.
    memory = extra_memory(n, d, device, args.threads)
    rows = [compare("tcr", n, d, 1, args.eps_sq, args.repeats, device)]
    rows += [compare("nmce", n, d, k, args.eps_sq, args.repeats, device) for k in args.clusters]
    rows.append(compare("mlc", n, d, n, MLC_EPS_SQ, max(1, args.repeats // 3), device) | memory)
    if args.json:
        shape = {"n": n, "d": d, "dtype": "float32", "gamma": GAMMA}
        print(json.dumps({"machine": machine, "shape": shape, "rows": rows}, indent=1))
        return
    print(f"n={n} d={d} on {device}, {args.threads} threads, load {machine['load']:.1f}")
    for row in rows:
        print(
            f"{row['loss']:5} k={row['k'] or '-':<5} plain {row['plain_ms']:8.1f} ms  raymc {row['raymc_ms']:8.1f} ms  "
            f"{row['times_faster']:5.2f}x  gradients differ by {row['gradient_difference']:.0e}"
        )
    print(
        f"mlc published {rows[-1]['published_ms']:.0f} ms; memory plain {memory['plain_extra_mib']:.0f} MiB, published "
        f"{memory['published_extra_mib']:.0f}, raymc {memory['raymc_extra_mib']:.0f}, "
        f"{memory['share_of_plain_memory']:.2f} of plain"
    )


if __name__ == "__main__":
    main()
