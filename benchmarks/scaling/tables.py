"""The figures of `benchmarks.scaling` as Markdown tables; every heading says whence its numbers are."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.scaling.counts import StageCounts, Traffic, ring_bytes
from benchmarks.scaling.model import GPUS


def counted(found: dict[str, Any]) -> None:
    print("COUNTED by running the code. A step is of 1024 images in two views, over all workers; bytes are a worker's.")
    print("| net | stage | GFLOP/step | PFLOP/epoch | kernels/step | of them for the batch | parameters | trained |")
    print("|---|---|---|---|---|---|---|---|")
    for net, one in found["nets"].items():
        for stage in (*one["stages"], dataclasses.replace(one["banked"], stage="heads from a bank")):
            print(f"| {net} | {_counts(stage)} |")
    print("\n| step of | gradients (B) | covariances, sums (B) | BatchNorm (B) | gathered (B) | collectives |")
    print("|---|---|---|---|---|---|")
    for net, one in found["nets"].items():
        for name, traffic in one["traffic"].items():
            print(f"| NMCE {name}, {net} | {_traffic(traffic)} |")
    for workers, traffic in found["mlc_heads"].items():
        print(f"| MLC heads, {workers} workers | {_traffic(traffic)} |")
    print("\n| ring, bytes that a worker sends in a step of stage 1 |", " | ".join(map(str, GPUS)), "|")
    print("|---|" + "---|" * len(GPUS))
    for net, one in found["nets"].items():
        sent = [f"{ring_bytes(one['traffic']['pretrain'], n) / 1e6:.1f} MB" for n in GPUS]
        print(f"| {net} |", " | ".join(sent), "|")
    for net, one in found["nets"].items():
        print(f"stage store, {net} (MB):", {name: round(size / 1e6, 1) for name, size in one["stored"].items()})
    print("feature bank (MB) by views:", {views: size / 1e6 for views, size in found["bank"].items()})


def _counts(stage: StageCounts) -> str:
    return (
        f"{stage.stage} | {stage.flop / 1e9:,.0f} | {stage.flop_per_epoch / 1e15:.4f} | {stage.kernels} | "
        f"{stage.making} | {stage.parameters:,} | {stage.trained:,}"
    )


def _traffic(traffic: Traffic) -> str:
    sent = (traffic.gradients, traffic.covariances, traffic.batchnorm, traffic.gathered)
    return " | ".join([*(f"{one:,}" for one in sent), str(traffic.collectives)])


def measured(found: dict[str, Any]) -> None:
    print("\nMEASURED here, on the CPU. Stage 1; medians, the slowest worker's; CPU seconds are all workers'.")
    print("| space | batch | side | s/step | least to most | speed-up | in collectives | CPU s/step | bytes/step |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in found["steps"]:
        print(
            f"| {row['space']} | {row['batch']} | {row['side']} | {row['seconds']:.3f} | {row['least']:.3f} to "
            f"{row['most']:.3f} | {row['speed_up']:.2f} | {row['collectives'] / row['seconds']:.0%} | "
            f"{row['cpu']:.3f} | {row['bytes']:,.0f} |"
        )
    group = found["group"]
    times = ", ".join(f"{one['up']:.1f} s until it works, {one['whole']:.1f} s in all" for one in group["groups"])
    print(f"Ray up in {group['ray']:.1f} s; a group of {group['workers']} workers of Ray Train: {times}")
    for side, parts in found["scores"].items():
        told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
        print(f"scores of an embedding, {side}: {sum(parts.values()):.2f} CPU s ({told})")


def modelled(found: dict[str, Any], shares: tuple[float, ...]) -> None:
    print("\nMODELLED: no GPU was measured. Seconds of an epoch of stage 1 on so many GPUs, data-parallel.")
    print("| share of the peak | network |", " | ".join([*map(str, GPUS), "limit"]), "|")
    print("|---|---|" + "---|" * (len(GPUS) + 1))
    for row in found["epoch"]:
        print(
            f"| {row['share']:.0%} | {row['network']} |", " | ".join(f"{s:.2f}" for s in row["seconds"].values()), "|"
        )
    for share in shares:
        print(
            f"\nMODELLED at {share:.0%} of the peak: hours from start to end / GPU hours held / cost (workers by phase)"
        )
        print("| search |", " | ".join(map(str, GPUS)), "| any number |")
        print("|---|" + "---|" * (len(GPUS) + 1))
        rows = [row for row in found["searches"] if row["share"] == share]
        for name in dict.fromkeys(row["search"] for row in rows):
            own = [row for row in rows if row["search"] == name]
            print(f"| {name} |", " | ".join(map(_outcome, own)), f"| {own[0]['least_hours']:.2f} |")


def _outcome(row: dict[str, Any]) -> str:
    workers = ", ".join(map(str, row["workers"]))
    return f"{row['wall_hours']:.2f} / {row['gpu_hours_held']:.1f} / {row['cost']:.0f} ({workers})"
