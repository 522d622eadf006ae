"""`compile=true`: augmentation and nets by torch.compile give what they give without, up to rounding."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from raymc.config import resolve
from raymc.datasets import POLICIES, augmentation, load
from raymc.distributed import Workers
from raymc.methods import METHODS
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, fit
from raymc.training.smoke import limit
from raymc.training.stages import compile_nets, enter

# Of torch's own: the first it hides from users itself, the second comes from the import of its compiler.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

SHAPES = {
    "cifar": (3, 16, 16),
    "mlc": (3, 40, 40),
    "emp_ssl": (3, 32, 32),
    "stl": (3, 16, 16),
    "coil": (1, 16, 16),
    "digits": (1, 8, 8),
}

if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
    pytest.skip("torch.compile needs a C++ compiler, and there is none", allow_module_level=True)


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    augmentation.compiled_apply.cache_clear()
    yield
    torch._dynamo.reset()


def check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, shape = POLICIES[name], SHAPES[name]
    x = torch.randint(0, 256, (6, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    params = policy.draw(torch.Generator().manual_seed(0), 6, shape)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, fullgraph=True))  # an operation left out would raise
    torch.testing.assert_close(
        augmentation.compiled_apply(policy)(x, params), policy.apply(x, params), rtol=1e-4, atol=2e-5
    )


def test_the_digits_augmentation_compiles_to_the_same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    check("digits", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "digits"])
def test_augmentations_compile_as_a_whole_to_the_same_views(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nmce", "mlc"])
def test_a_compiled_stage_learns_the_same(method: str) -> None:
    """Losses of three epochs, compiled and not; the weights keep their names."""
    made = METHODS[method]
    small = {"pre_feature_dim": 16, "feature_dim": 8, "pretrain.epochs": 3, "pretrain.batch_size": 20}
    preset = made.presets["digits"][made.default_preset]
    config = resolve(method, "digits", made.default_preset, made.stage_settings, preset, small)
    stage, data = made.stages(config)[0], limit(load("digits"), 40)
    curves, names = [], []
    for compiled in (False, True):
        feed = Feed.build(data, "digits", torch.device("cpu"), torch.float32, False, Workers(), compiled)
        model = enter(made, stage, config, (1, 8, 8), 10, {}, 0)
        if compiled:
            compile_nets(model)
        curve = fit(model, stage, config.stages["pretrain"], feed, 0, Hooks(lambda row: None, None, None, 1))
        curves.append([row["loss"] for row in curve])
        names.append(list(model.state_dict()))
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert names[0] == names[1]
