"""Time and cost of the papers' searches from one GPU to 64: counted, measured and modelled figures, kept apart.

    python -m benchmarks.scaling                       # counted and modelled, a minute
    python -m benchmarks.scaling --measured --json     # and measured on this machine's CPU, minutes

Counted: by running the code (`counts`). Measured: on this machine (`measure`). Modelled: from what was counted and the
assumptions that `model` names; no GPU was measured. Prices are the user's to give: clusters/*.yaml state the formula.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import Any

from benchmarks.machine import facts
from benchmarks.scaling import counts, model, tables
from benchmarks.scaling.counts import StageCounts
from benchmarks.scaling.model import GPUS, NETWORKS, SHARES, Network, Part, Search

BANK_VIEWS = 8
GPU_HOUR, HEAD_HOUR = 3.0, 0.4
"""Assumed prices of a GPU with its share of a machine, and of the head; no price list was consulted."""

WORKERS = (2, 8, 64)


def counted() -> dict[str, Any]:
    """All that is counted, for ResNet-18 and ResNet-34 on CIFAR; the traffic of MLC's heads by number of workers."""
    found: dict[str, Any] = {"nets": {}, "mlc_heads": {}}
    for name in ("paper", "resnet34"):
        config = counts.preset("nmce", "cifar20", name)
        found["nets"][config.backbone] = {
            "stages": counts.count_stages(config),
            "banked": counts.count_stages(config, bank=True)[1],
            "traffic": {stage: counts.count_traffic(config, stage, 2) for stage in config.stages},
            "forward": counts.forward_flop(config),
            "evaluate_every": config.evaluate_every,
            "stored": counts.stored_bytes(config),
        }
    mlc = counts.preset("mlc", "cifar20", "paper")
    found["mlc_heads"] = {workers: counts.count_traffic(mlc, "heads", workers) for workers in WORKERS}
    found["bank"] = {views: counts.bank_bytes(views) for views in (1, BANK_VIEWS, 64)}
    return found


def modelled(net: dict[str, Any], gpu_hour: float, head_hour: float) -> dict[str, Any]:
    """Seconds of an epoch of stage 1 by GPUs, and the searches, for every assumed share of the peak and network."""
    parts = [part(stage, net) for stage in net["stages"]]
    # The images as they are and the held-out ones (1.2 of the others) are kept too, and evaluations read them.
    bank = model.forward_flop(net["forward"], BANK_VIEWS + 1.2)
    found = model.searches(parts, part(net["banked"], net, forward=0), bank)
    return {
        "epoch": [epoch_row(parts[0], share, network) for share in SHARES for network in NETWORKS],
        "searches": [
            row
            for share in SHARES
            for search in found
            for row in search_rows(search, share, NETWORKS[0], gpu_hour, head_hour)
        ],
    }


def part(stage: StageCounts, net: dict[str, Any], forward: float = 1) -> Part:
    """The stage with its traffic and, where there are clusters, its evaluations, one every `evaluate_every` epochs.

    `forward`: passes of the backbone over all images that an evaluation takes.
    """
    evaluations = 0.0 if stage.stage == "pretrain" else stage.epochs / net["evaluate_every"]
    return Part(stage, net["traffic"][stage.stage], evaluations, model.forward_flop(net["forward"], forward))


def epoch_row(first: Part, share: float, network: Network) -> dict[str, Any]:
    """Seconds of an epoch by number of GPUs, data-parallel; the last entry is the limit of ever more GPUs."""
    counted, traffic = first.counts, first.traffic
    seconds = {
        str(gpus): counted.steps * model.step_seconds(counted, traffic, gpus, share, network)
        for gpus in (*GPUS, math.inf)
    }
    return {"share": share, "network": network.name, "seconds": seconds}


def search_rows(
    search: Search, share: float, network: Network, gpu_hour: float, head_hour: float
) -> list[dict[str, Any]]:
    rows = []
    for gpus in GPUS:
        found = model.outcome(search, gpus, share, network)
        rows.append(
            {
                "search": search.name,
                "share": share,
                "gpus": gpus,
                "workers": found.workers,
                "wall_hours": found.wall / 3600,
                "gpu_hours_busy": found.busy / 3600,
                "gpu_hours_held": found.held / 3600,
                "cost": found.cost(gpu_hour, head_hour),
                "least_hours": model.least_wall(search, share, network) / 3600,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", action="store_true", help="also measure here: two workers against one, scores")
    parser.add_argument("--share", type=float, nargs="+", choices=SHARES, default=[0.25], help="printed searches")
    parser.add_argument("--gpu-hour", type=float, default=GPU_HOUR, help="price of a GPU, an hour")
    parser.add_argument("--head-hour", type=float, default=HEAD_HOUR, help="price of the head, an hour")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    machine = facts("cpu", 1)
    found = {"machine": machine, "counted": counted()}
    net = found["counted"]["nets"]["resnet18_cifar"]
    found["modelled"] = modelled(net, args.gpu_hour, args.head_hour)
    if args.measured:
        from benchmarks.scaling.measure import measured

        found["measured"] = measured()
    if args.json:
        print(json.dumps(found, indent=1, default=dataclasses.asdict))
        return
    tables.counted(found["counted"])
    if args.measured:
        tables.measured(found["measured"])
    tables.modelled(found["modelled"], tuple(args.share))


if __name__ == "__main__":
    main()
