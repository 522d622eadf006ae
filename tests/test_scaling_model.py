"""The arithmetic behind docs/scaling.md: counts against sums by hand, the model against its limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.profiler import record_function

from benchmarks.scaling import model
from benchmarks.scaling.__main__ import part
from benchmarks.scaling.counts import (
    Kernels,
    StageCounts,
    Traffic,
    bank_bytes,
    count_stages,
    count_traffic,
    forward_flop,
    preset,
    ring_bytes,
    stored_bytes,
)
from benchmarks.scaling.measure import Case, epoch
from benchmarks.scaling.model import GPUS, LARGE, SMALL, Part, Phase, Search, least_wall, outcome, step_seconds
from benchmarks.scaling.scores import measured_scores
from raymc.datasets.augmentation import POLICIES, ImagePolicy
from raymc.space.space import load_space
from tests.worker_pool import on_workers

# ResNet-18 with CIFAR's stem, by hand. Multiplications of one image: the first layer, four 3x3 layers of 64 filters on
# 32x32 pixels, and in each of three further stages one layer that halves the image, three others and a 1x1 shortcut.
FIRST = 32 * 32 * 64 * 27
STAGES = [16 * 16 * 128 * (64 * 9 + 3 * 128 * 9 + 64)] * 3
BACKBONE = FIRST + 4 * 32 * 32 * 64 * 64 * 9 + sum(STAGES)
LINEAR = 512 * 4096 + 4096 * 128
RESNET_18 = 11_689_512 - 513_000 - 64 * 3 * 49 + 64 * 3 * 9  # torchvision's, less classifier and 7x7 layer, with a 3x3
PARAMETERS = RESNET_18 + 512 * 4096 + 4096 + 2 * 4096 + 4096 * 128 + 128
CHANNELS, NORMS = 5 * (64 + 128 + 256 + 512) + 4096, 21

A = StageCounts("pretrain", 10, 1000, 2, 79 * 10**12, 1000, 10, 10)
SENT = Traffic(gradients=8 * 10**7, covariances=10**7, batchnorm=10**7, gathered=0, collectives=100)


@pytest.fixture(scope="module")
def pretrain() -> StageCounts:
    return count_stages(preset("nmce", "cifar20", "paper"))[0]


def test_flop_of_a_step_are_those_by_hand(pretrain: StageCounts) -> None:
    """Backward costs twice the forward pass, but that nobody asks for the gradient of the images."""
    rows = 2 * 1024
    layers = rows * 2 * (3 * (BACKBONE + LINEAR) - FIRST)
    gram = 2 * 2 * (2 * 1024 * 128**2)  # two views, forward and backward
    inverse = 2 * (2 * 128**3)
    assert pretrain.flop == layers + gram + inverse
    assert forward_flop(preset("nmce", "cifar20", "paper")) == 2 * BACKBONE
    assert 2 * 3 * 2 * BACKBONE * 50_000 == pytest.approx(0.33e15, rel=0.01)  # an epoch of two views
    assert pretrain.flop_per_epoch == pytest.approx(0.33e15, rel=0.02)


def test_only_what_a_gpu_is_given_to_do_counts() -> None:
    with Kernels() as kernels, record_function("not on the device"):
        x = torch.empty(4, 6, device="meta")
        torch.zeros(3) + 1
        torch.promote_types(torch.float32, torch.int64)
        y = x.view(24)[2:]
        assert kernels.count == 0 and torch.empty_like(y).new_empty(2).is_meta and kernels.count == 0
        torch.zeros(3).to("meta")  # a copy
        (y + 1).mul_(2)
    assert kernels.count == 3


def test_of_a_batch_the_gather_the_copy_of_its_draws_and_each_view_count(pretrain: StageCounts) -> None:
    policy, rows = POLICIES["cifar"], torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    assert isinstance(policy, ImagePolicy)
    drawn = policy.draw(torch.Generator().manual_seed(0), 4, (3, 32, 32))
    with Kernels() as kernels:
        policy.apply(rows.to("meta"), {name: values.to("meta") for name, values in drawn.items()})
    view = kernels.count - 1 - len(drawn)  # less the copies here
    assert view > 50 and pretrain.making == 2 + 2 * view
    banked = count_stages(preset("nmce", "cifar20", "paper"), bank=True)[1]
    assert banked.making < 10


def test_parameters_and_what_two_workers_send_are_those_by_hand(pretrain: StageCounts) -> None:
    found = count_traffic(preset("nmce", "cifar20", "paper"), "pretrain", 2)
    assert pretrain.parameters == pretrain.trained == PARAMETERS == 13_802_688
    assert found.gradients == 4 * PARAMETERS
    # Two views: the covariance and the number of rows, both ways; the similarity's two sums both ways.
    assert found.covariances == 2 * 2 * (4 * 128**2 + 4) + 2 * 2 * 4
    assert found.batchnorm == 4 * (4 * CHANNELS + 2 * NORMS)  # sums and a count, squares; both ways
    assert found.gathered == 0


@pytest.mark.parametrize("stage", ["pretrain", "heads", "finetune"])
def test_what_nmce_sends_does_not_depend_on_the_number_of_workers(stage: str) -> None:
    config = load_space("nmce_digits").config({})
    assert count_traffic(config, stage, 2, (1, 8, 8)) == count_traffic(config, stage, 64, (1, 8, 8))


def test_two_real_workers_send_what_is_counted() -> None:
    counted = count_traffic(load_space("nmce_digits").config({}), "pretrain", 2, (1, 8, 8))
    for found in on_workers(epoch, [None, None], case=Case("nmce_digits", 64, 128, 1), threads=1):
        assert (found["bytes"], found["calls"]) == (counted.reduced, counted.collectives)


def test_mlc_gathers_its_heads() -> None:
    """c of two views and the mean z, of all rows, and their gradients back; beside them vectors of the projection."""
    config = preset("mlc", "cifar20", "paper")
    heads = 3 * 1024 * 128 * 4
    for workers in (2, 8):
        assert 2 * heads <= count_traffic(config, "heads", workers).gathered < 2.25 * heads


def test_a_ring_sends_each_byte_nearly_twice() -> None:
    traffic = Traffic(gradients=600, covariances=300, batchnorm=100, gathered=400, collectives=3)
    assert ring_bytes(traffic, 1) == 0
    assert ring_bytes(traffic, 2) == 1000 + 200
    assert ring_bytes(traffic, 4) == 1500 + 300
    assert ring_bytes(traffic, math.inf) == 2000 + 400


def test_bytes_on_disk() -> None:
    assert bank_bytes(8) == 8 * 50_000 * 512 * 2
    stored = stored_bytes(preset("nmce", "cifar20", "paper"))
    weights = 4 * (PARAMETERS + 2 * CHANNELS)
    assert weights < stored["pretrain"] < 1.01 * weights
    momentum = 4 * PARAMETERS
    assert weights + momentum < stored["pretrain checkpoint"] < 1.01 * (weights + momentum)


def test_a_step_by_hand() -> None:
    assert step_seconds(A, SENT, 1, 0.25, LARGE) == pytest.approx(0.4)
    # Two GPUs in a machine: half the work, 1e8 bytes over 3e11 a second, a hundred calls of 20 microseconds.
    assert step_seconds(A, SENT, 2, 0.25, LARGE) == pytest.approx(0.2 + 1e8 / 3e11 + 0.002)
    assert step_seconds(A, SENT, 16, 0.25, LARGE) == pytest.approx(0.025 + 1.875e8 / 1e10 + 0.006)
    assert step_seconds(A, SENT, 2, 0.25, SMALL) == pytest.approx(0.2 + 0.1 + 0.01)
    # However many there are, the kernels' launches and what is sent remain.
    assert step_seconds(A, SENT, math.inf, 0.25, LARGE) == pytest.approx(0.005 + 2e8 / 1e10 + 0.006)


def test_evaluations_and_the_end_are_the_first_workers_and_take_the_same_on_any_number_of_gpus() -> None:
    tune = Part(A, SENT, evaluations=4, alone_flop=79e12)
    for gpus in (1, 8):
        steps = 10 * 50 * step_seconds(A, SENT, gpus, 0.25, LARGE)
        assert tune.seconds(gpus, 0.25, LARGE) == pytest.approx(steps + 4 * (0.4 + model.EVALUATION))
    ended = Phase("s", 1, (tune,), end=5.0).training(1, 0.25, LARGE)
    assert ended == pytest.approx(tune.seconds(1, 0.25, LARGE) + model.TRIAL + 5)


def test_behind_a_bank_an_evaluation_takes_no_forward_pass_but_its_scores() -> None:
    net = {"traffic": {"heads": SENT}, "forward": 10**9, "evaluate_every": 5}
    heads = replace(A, stage="heads")
    whole, banked = part(heads, net), part(heads, net, forward=0)
    assert whole.evaluations == banked.evaluations == 2
    assert (whole.alone_flop, banked.alone_flop) == (5e13, 0)
    assert part(A, net | {"traffic": {"pretrain": SENT}}).evaluations == 0


def test_scores_are_measured_by_part() -> None:
    found = measured_scores(rows=400)
    assert set(found) == {"evaluation", "end"} and set(found["evaluation"]) == {"ranks and coding rates", "labels"}
    assert all(seconds >= 0 for parts in found.values() for seconds in parts.values())


def searched(trainings: int) -> Search:
    return Search("s", (Phase("stage 1", 1, (Part(A, SENT),)), Phase("configurations", trainings, (Part(A, SENT),))))


def test_on_one_gpu_a_search_takes_the_sum_of_its_parts() -> None:
    one = outcome(searched(100), 1, 0.25, LARGE)
    training = 10 * 50 * 0.4 + model.TRIAL
    assert one.wall == pytest.approx(model.START + 101 * training)
    assert one.busy == pytest.approx(101 * training)
    assert one.workers == (1, 1)


def test_on_any_number_of_gpus_the_serial_part_remains() -> None:
    """One training of stage 1, then one of a configuration, each at its best number of workers.

    That is 128 here: on fewer the arithmetic takes longer than the launches, on more only the ring grows.
    """
    best = 10 * 50 * (0.005 + 2e8 * (1 - 1 / 128) / 1e10 + 0.006) + model.WORKER_GROUP
    assert least_wall(searched(100), 0.25, LARGE) == pytest.approx(model.START + 2 * best)


@pytest.mark.parametrize("network", [LARGE, SMALL])
def test_more_gpus_never_take_longer_and_never_cost_less_gpu_time(network: model.Network) -> None:
    found = [outcome(searched(100), gpus, 0.25, network) for gpus in GPUS]
    walls = [one.wall for one in found]
    assert walls == sorted(walls, reverse=True)
    assert walls[-1] >= least_wall(searched(100), 0.25, network)
    assert all(one.held >= one.busy for one in found)
    assert all(one.held >= found[0].held * (1 - 1e-9) for one in found)


def test_over_a_slow_network_no_training_is_shared_by_workers() -> None:
    assert outcome(searched(64), 64, 0.25, SMALL).workers[1] == 1


def test_cost_is_the_formula_of_the_cluster_files() -> None:
    found = model.Outcome("s", 4, (1,), wall=7200.0, busy=0.0)
    assert found.cost(gpu_hour=3.0, head_hour=0.5) == pytest.approx(2 * (4 * 3.0 + 0.5))
