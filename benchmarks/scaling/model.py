"""Modelled: seconds of a step on several GPUs, and wall time, GPU hours and cost of the papers' searches.

Nothing here was measured on a GPU. FLOP, kernels and bytes are counted (`counts`), a trial's overhead and the scores of
an embedding were measured on a CPU; the other constants are assumptions. A step takes
    max(FLOP / (N share PEAK), kernels * LAUNCH) + collectives * latency + ring bytes / bandwidth
since raymc averages gradients after the backward pass, and nothing overlaps. The share of the peak is taken to stay
the same for a worker's smaller batch, which flatters many workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scaling.counts import IMAGES, StageCounts, Traffic, ring_bytes

PEAK = 790e12
"""FLOP/s in bf16 that large products are said to reach on an H200, whose cores an H100 has; not measured here."""

SHARES = (0.35, 0.25, 0.10)
"""Assumed shares of it that a stage reaches: the aim, what well-made public code reaches, what is easily lost."""

LAUNCH = 5e-6
"""Assumed seconds from one kernel to the next where each is too short to hide it; no capture of the step in a graph."""

GPUS = (1, 2, 4, 8, 16, 32, 64)
MANY = 2**14


@dataclass(frozen=True)
class Link:
    """Assumed: bytes/s that an all-reduce attains of a worker's link one way, and seconds of one collective."""

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Network:
    """Machines of `machine` GPUs each: within one machine a ring runs at `inside`, across several at `between`."""

    name: str
    machine: int
    inside: Link
    between: Link

    def link(self, gpus: float) -> Link:
        return self.inside if gpus <= self.machine else self.between


NVLINK = Link(300e9, 20e-6)
ETHERNET_100G = Link(10e9, 60e-6)
ETHERNET_10G = Link(1e9, 100e-6)
LARGE = Network("8 GPUs a machine, NVLink; 100 Gbit/s between", 8, NVLINK, ETHERNET_100G)
SMALL = Network("1 GPU a machine, 10 Gbit/s between", 1, ETHERNET_10G, ETHERNET_10G)
NETWORKS = (LARGE, SMALL)

START = 15.3 + 13.7
"""Measured on a busy CPU: Ray's start and a first trial's process (reports/2026-11-22-trial-overhead)."""

TRIAL = 0.032
"""Measured there: a further trial with one worker, through Ray Tune."""

WORKER_GROUP = 12.4
"""Measured by `measure.worker_group`: a training on several workers, from asking Ray Train to its end."""

EVALUATION, END = 0.3, 1.1
"""Measured by `scores`: CPU seconds, on one thread, of an evaluation and of the end of a training, without a forward
pass. The first worker computes them while the others wait, on a GPU in less time, which was not measured."""


def step_seconds(stage: StageCounts, traffic: Traffic, gpus: float, share: float, network: Network) -> float:
    """Of one step data-parallel on `gpus`, which may be infinite; on one nothing is communicated."""
    compute = max(stage.flop / gpus / (share * PEAK), stage.kernels * LAUNCH)
    if gpus == 1:
        return compute
    link = network.link(gpus)
    return compute + traffic.collectives * link.latency + ring_bytes(traffic, gpus) / link.bandwidth


@dataclass(frozen=True)
class Part:
    """One stage of a training: its counts, what a step sends, and its evaluations, which the first worker makes.

    `alone_flop` are those of an evaluation's forward pass: none behind a bank, whose features are kept.
    """

    counts: StageCounts
    traffic: Traffic
    evaluations: float = 0.0
    alone_flop: float = 0.0

    def seconds(self, gpus: float, share: float, network: Network) -> float:
        steps = self.counts.epochs * self.counts.steps
        alone = self.alone_flop / (share * PEAK) + EVALUATION
        return steps * step_seconds(self.counts, self.traffic, gpus, share, network) + self.evaluations * alone


@dataclass(frozen=True)
class Phase:
    """`trainings` equal ones, all independent of each other; the phases of a search follow each other.

    `extra_flop` are those of a training beside its steps, on one GPU: the making of a feature bank. `end`: seconds of
    its last scores and files.
    """

    name: str
    trainings: int
    parts: tuple[Part, ...]
    extra_flop: float = 0.0
    end: float = 0.0

    def training(self, workers: int, share: float, network: Network) -> float:
        """Seconds of one training on so many workers, with what starting it costs."""
        overhead = TRIAL if workers == 1 else WORKER_GROUP
        steps = sum(part.seconds(workers, share, network) for part in self.parts)
        return overhead + steps + self.extra_flop / (share * PEAK) + self.end

    def wall(self, gpus: int, workers: int, share: float, network: Network) -> float:
        """Seconds of the phase where as many trainings of `workers` run at once as fit on `gpus`."""
        rounds = math.ceil(self.trainings / (gpus // workers))
        return rounds * self.training(workers, share, network)

    def best_workers(self, gpus: int, share: float, network: Network) -> int:
        """How many workers a training should have, of 1, 2, 4, … up to `gpus`; the fewest where it makes no odds."""
        choices = (1 << power for power in range(gpus.bit_length()))
        return min(choices, key=lambda workers: self.wall(gpus, workers, share, network))


@dataclass(frozen=True)
class Search:
    name: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Outcome:
    """Modelled figures of a search on `gpus`.

    Attributes:
        workers: of a training, by phase.
        wall: seconds.
        busy: GPU seconds in which a training ran.
    """

    search: str
    gpus: int
    workers: tuple[int, ...]
    wall: float
    busy: float

    @property
    def held(self) -> float:
        """GPU seconds paid for where all machines stay from the beginning to the end."""
        return self.gpus * self.wall

    def cost(self, gpu_hour: float, head_hour: float) -> float:
        """By the formula of clusters/aws.yaml without disks and addresses: the head and the GPUs, by the hour."""
        return (self.held * gpu_hour + self.wall * head_hour) / 3600


def outcome(search: Search, gpus: int, share: float, network: Network) -> Outcome:
    """The search on so many GPUs, each phase with the number of workers that ends it first."""
    workers = tuple(phase.best_workers(gpus, share, network) for phase in search.phases)
    chosen = tuple(zip(search.phases, workers, strict=True))
    wall = sum(phase.wall(gpus, w, share, network) for phase, w in chosen)
    busy = sum(phase.trainings * w * phase.training(w, share, network) for phase, w in chosen)
    return Outcome(search.name, gpus, workers, START + wall, busy)


def least_wall(search: Search, share: float, network: Network) -> float:
    """Seconds however many GPUs there are: the start, then each phase in one round at its best number of workers."""
    return outcome(search, MANY, share, network).wall


def searches(
    stages: Sequence[Part], banked: Part, bank_flop: float, configurations: int = 100, seeds: int = 10
) -> tuple[Search, ...]:
    """The papers' searches: `configurations` of one seed, and the winner on `seeds` fresh ones.

    `stages` are pretrain, heads and finetune; `banked` is heads from a feature bank of `bank_flop`.
    """
    first, heads, tune = stages
    later = (heads, tune)
    once = Phase("stage 1", 1, (first,))

    def both(parts: tuple[Part, ...], confirmed: tuple[Part, ...]) -> tuple[Phase, Phase]:
        searched = Phase("configurations", configurations, parts, end=END)
        return searched, Phase("confirmation", seeds, confirmed, end=END)

    with_bank = Phase("stage 1 and bank", 1, (first,), bank_flop)
    return (
        Search("stages 2 and 3, shared", (once, *both(later, later))),
        Search("the same, stage 2 from a bank", (with_bank, *both((banked, tune), (banked, tune)))),
        Search("stage 2 from a bank, 3 for the winner", (with_bank, *both((banked,), (banked, tune)))),
        Search("stages 2 and 3, nothing shared", both((first, *later), (first, *later))),
        Search("keys of stage 1, seeds from stage 2", both((first, *later), later)),
    )


def forward_flop(forward: int, passes: float, images: int = IMAGES) -> float:
    """Of so many forward passes of the backbone over all images: a bank's views, or an evaluation."""
    return float(forward) * passes * images
