"""Time and memory of GCML's six scores of an embedding.

    python -m benchmarks.geometry                          # 10,000 points
    python -m benchmarks.geometry --points 70000 --json    # minutes

The input is of as many features as an image of MNIST has, on a manifold of ten dimensions with noise, and the
embedding is those ten, bent. The peak is that of the process, with the data: one size a process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import facts
from raymc.metrics.geometry import geometry_scores

D, M, K, NOISE = 784, 10, 10, 0.1


def points(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input `[n, 784]`, embedding `[n, 10]` and the cluster of each point."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (n,), generator=generator)
    inside = 3 * torch.randn(K, M, generator=generator)[labels] + torch.randn(n, M, generator=generator)
    x = torch.sin(inside @ torch.randn(M, D, generator=generator) / M**0.5)
    return x.add_(torch.randn(n, D, generator=generator), alpha=NOISE), inside.tanh(), labels


def row(n: int, device: str) -> dict[str, Any]:
    """One size: seconds, peak memory and the scores."""
    x, z, labels = (part.to(device) for part in points(n))
    begun = time.perf_counter()
    scores = geometry_scores(x, z, labels)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    on_device = {"device_peak_mib": torch.cuda.max_memory_allocated() / 2**20} if device.startswith("cuda") else {}
    return {"n": n, "d": D, "m": M, "seconds": seconds, "peak_mib": peak, **on_device, **scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = facts(args.device, args.threads)
    measured = row(args.points, args.device)
    if args.json:
        print(json.dumps({"machine": machine, "row": measured}, indent=1))
        return
    print("  ".join(f"{name} {value:.4g}" for name, value in measured.items()))


if __name__ == "__main__":
    main()
