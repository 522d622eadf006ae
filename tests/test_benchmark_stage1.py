"""The benchmark of stage 1: both loops compute the same, operations are counted right, and a profile adds up."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from benchmarks.plain_loop import PlainLoop, pil_transforms, plain_loss
from benchmarks.stage1 import RaymcLoop, measure, prepared, printed, usable_cores
from benchmarks.step_profile import PARTS, covered, profile, table
from raymc.datasets.augmentation import POLICIES, ImagePolicy
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.methods.nmce import Pretrain
from raymc.ops import tcr_objective
from raymc.training.stages import enter

pytest.importorskip("timm")  # the plain loop's LARS

CPU = torch.device("cpu")


@pytest.mark.parametrize("views", ["separate", "mean", "average"])
def test_the_plain_loss_is_raymcs(views: str) -> None:
    draws = torch.Generator().manual_seed(0)
    z = [functional.normalize(torch.randn(40, 6, generator=draws), dim=1) for _ in range(2)]
    settings = Pretrain(eps_sq=0.3, similarity_weight=7.0, views=views)
    expected, _ = tcr_objective(z, 0.3, 7.0, views)
    torch.testing.assert_close(plain_loss(*z, settings), expected, rtol=1e-5, atol=1e-5)


def both(steps: int) -> tuple[PlainLoop, RaymcLoop, nn.ModuleDict, nn.Sequential]:
    config, data = prepared("nmce_digits", {}, 8, 32)
    stage = METHODS["nmce"].stages(config)[0]
    model = enter(METHODS["nmce"], stage, config, (1, 8, 8), 10, {}, 0)
    parts = ("backbone", "pre_feature", "projection")
    net = nn.Sequential(OrderedDict((part, copy.deepcopy(model[part])) for part in parts))
    policy = POLICIES[config.augmentation]
    assert isinstance(policy, ImagePolicy)
    plain = PlainLoop(net, data.train.x, policy, config.stages["pretrain"], CPU, 0)
    return plain, RaymcLoop(config, data, model, steps, CPU), model, net


def test_both_loops_take_the_same_step_from_the_same_views() -> None:
    plain, ours, model, net = both(1)
    batch = next(ours.feed.epoch("pretrain", 0, 0, 32))
    ours.updates.start_epoch(0)
    loss = ours.updates.make(ours.updates.stage.step, batch)["loss"]
    assert plain.step(list(batch.views)) == pytest.approx(float(loss), rel=1e-4)
    for name, weight in net.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_operations_are_those_of_the_products() -> None:
    """A net of two linear layers: forward, and backward twice that, but for the input's gradient of the first."""
    plain, _, _, _ = both(1)
    plain.net = nn.Sequential(nn.Flatten(1), nn.Linear(64, 16, bias=False), nn.Linear(16, 5, bias=False))
    plain.settings = replace(plain.settings, batch_size=10)
    layers = 2 * 20 * (64 * 16 * 2 + 16 * 5 * 3)
    rates = 2 * 2 * 10 * 5 * 5  # z^T z of either view, and two products in its backward
    assert plain.operations() == layers + rates * 3


@pytest.mark.parametrize("name", ["cifar", "mlc", "stl", "coil", "digits", "mnist"])
def test_every_image_policy_has_pil_transforms(name: str) -> None:
    policy = POLICIES[name]
    assert isinstance(policy, ImagePolicy)
    channels = 3 if policy.grey else 1
    pixels = torch.randint(0, 256, (24, 24, 3), dtype=torch.uint8).numpy()
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    view = pil_transforms(policy, 24)(image)
    assert view.shape == (channels, *[policy.side or 24] * 2) and view.dtype == torch.float32


def test_a_union_of_intervals_has_its_length() -> None:
    assert covered([]) == 0
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == pytest.approx(4)


def test_the_parts_of_a_profile_add_up_to_the_epoch() -> None:
    _, ours, _, _ = both(2)
    seconds = []

    def epoch() -> float:
        seconds.append(ours.run().wall)
        return seconds[-1]

    found = profile(epoch, 2, CPU)
    assert set(found["ms_per_step"]) == {*PARTS, "rest"}
    assert sum(found["ms_per_step"].values()) == pytest.approx(1e3 * seconds[0] / 2)
    assert all(found["ms_per_step"][name] > 0 for name in PARTS)
    assert "optimiser" in table(found) and len(found["operations"]) == 12


def test_a_measurement_states_both_loops_and_their_ratio() -> None:
    row = measure("nmce_digits", {}, CPU, steps=2, repeats=1, batch=32, workers=0)
    assert row["steps_per_epoch"] == 1437 // 32
    for side in ("raymc", "plain"):
        found = row[side]
        assert found["seconds_per_epoch_extrapolated"] == pytest.approx(44 * found["seconds_per_step"])
        assert found["images_per_second"] == pytest.approx(32 / found["seconds_per_step"])
    assert row["ratio"] == pytest.approx(row["plain"]["seconds_per_step"] / row["raymc"]["seconds_per_step"])
    assert "extrapolated" in printed(row, {"measured float32 peak": 1e12})


def test_a_space_without_images_is_refused() -> None:
    with pytest.raises(InputError, match="plain loop"):
        measure("nmce_double_spiral", {}, CPU, steps=1, repeats=1, batch=32, workers=0)


def test_the_plain_loop_has_a_worker_for_every_core_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3, 19)), raising=False)
    assert usable_cores() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(), raising=False)
    assert usable_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
