"""Optimisers against plain implementations of what the papers' code does, written out here."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from raymc.config import StageConfig
from raymc.methods.base import Group, Step, trained_parameters
from raymc.methods.settings import ClusterHead
from raymc.training.lars import Lars
from raymc.training.optim import Optimisers, learning_rate

MAIN = Group(("body", "head"))
CLUSTER = Group(("cluster",), prefix="cluster_")


def no_loss(*_: object) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError("not called")


def make_model() -> nn.ModuleDict:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU(), nn.Flatten(1))
    return nn.ModuleDict(
        {"body": body, "empty": nn.Identity(), "head": nn.Linear(64, 3), "cluster": nn.Linear(64, 2)}
    ).double()


def give_gradients(model: nn.ModuleDict, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 1, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    h = model["body"](x)
    (model["head"](h) - y).square().mean().backward()
    model["cluster"](h.detach()).square().mean().backward()


def train(model: nn.ModuleDict, optimisers: Optimisers, steps: range, per_epoch: int = 5) -> None:
    for step in steps:
        optimisers.start_epoch(step // per_epoch)
        optimisers.zero_grad()
        give_gradients(model, step)
        optimisers.step()


def plain_lars(p: Tensor, g: Tensor, velocity: Tensor | None, lr: float, decay: float) -> tuple[Tensor, Tensor]:
    """One step of SGD behind the published wrapper: 1-d parameters are neither adapted nor decayed."""
    if p.ndim != 1:
        trust = 0.02 * p.norm() / (g.norm() + decay * p.norm() + 1e-8)
        g = min(float(trust) / lr, 1.0) * (g + decay * p)
    velocity = g if velocity is None else 0.9 * velocity + g
    return p - lr * velocity, velocity


@pytest.mark.parametrize("rate", [0.3, 0.01])
@pytest.mark.parametrize("decay", [0.0, 1e-4, 5e-2])
def test_lars_is_the_published_wrapper(rate, decay):
    config = StageConfig(epochs=4, learning_rate=rate, weight_decay=decay, warmup_epochs=2)
    model = make_model()
    mirror = make_model()
    state: dict[str, Tensor | None] = dict.fromkeys(dict(mirror.named_parameters()))
    train(model, Optimisers(model, Step(no_loss, (MAIN,)), config), range(20))
    for step in range(20):
        mirror.zero_grad()
        give_gradients(mirror, step)
        lr = learning_rate(step // 5, 4, rate, 2, "cosine")
        for name, p in mirror.named_parameters():
            if not name.startswith("cluster"):
                p.data, state[name] = plain_lars(p.data, p.grad, state[name], lr, decay)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, dict(mirror.named_parameters())[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("foreach", [False, True])
def test_lars_is_timms_up_to_rounding_and_goes_on_from_its_state(dtype, close, foreach):
    """With a weight and a gradient of nothing, at rates where the trust is clipped and where it is not."""
    timm = pytest.importorskip("timm.optim.lars")
    generator = torch.Generator().manual_seed(3)
    shapes = [(7, 5), (4, 3, 3, 3), (6,), (5, 5), (3, 2)]

    def parameters() -> list[nn.Parameter]:
        draws = torch.Generator().manual_seed(0)
        found = [nn.Parameter(torch.randn(shape, generator=draws, dtype=torch.float64).to(dtype)) for shape in shapes]
        found[3].data.zero_()
        return found

    def groups(p: list[nn.Parameter]) -> list[dict[str, object]]:
        weights, others = [w for w in p if w.ndim != 1], [w for w in p if w.ndim == 1]
        return [
            {"params": weights, "weight_decay": 5e-3, "always_adapt": True},
            {"params": others, "weight_decay": 0.0, "always_adapt": False},
        ]

    ours, theirs, resumed = parameters(), parameters(), parameters()
    mine = Lars(groups(ours), 0.9, 0.02)
    other = timm.Lars(groups(theirs), momentum=0.9, trust_coeff=0.02, trust_clip=True, eps=1e-8, foreach=foreach)
    after = Lars(groups(resumed), 0.9, 0.02)
    for step in range(12):
        rate = (0.01, 0.3, 1e-4)[step % 3]
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype) for p in ours]
        gradients[4].zero_()
        if step == 6:
            after.load_state_dict(copy.deepcopy(other.state_dict()))
            for p, q in zip(resumed, theirs, strict=True):
                p.data.copy_(q)
        for optimiser, some in ((mine, ours), (other, theirs), (after, resumed)):
            for p, gradient in zip(some, gradients, strict=True):
                p.grad = gradient.clone()
            for group in optimiser.param_groups:
                group["lr"] = rate
            if optimiser is not after or step >= 6:
                optimiser.step()
    for p, q, r in zip(ours, theirs, resumed, strict=True):
        torch.testing.assert_close(p, q, rtol=close, atol=close)
        torch.testing.assert_close(r, q, rtol=close, atol=close)


def test_a_parameter_without_gradient_stays_where_it_is():
    model = make_model()
    optimisers = Optimisers(model, Step(no_loss, (MAIN,)), StageConfig(learning_rate=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model["head"](torch.ones(2, 64, dtype=torch.float64)).sum().backward()
    optimisers.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("optimizer", ["lars", "adam", "sgd"])
def test_gradients_lie_in_memory_as_their_parameters_do(optimizer):
    """Else the fused kernels refuse them on a GPU: a 1x1 convolution's do not under channels_last."""
    model, mirror = (nn.ModuleDict({"body": nn.Conv2d(8, 8, 1), "head": nn.Linear(8, 2)}) for _ in range(2))
    mirror.load_state_dict(model.state_dict())
    for one in (model, mirror):
        one["head"](one["body"](torch.ones(2, 8, 2, 2)).mean((2, 3))).square().sum().backward()
    weight = model["body"].weight
    weight.grad = weight.grad.as_strided(weight.shape, (8, 1, 8, 8))  # as cuDNN and torch's own convolutions leave it
    for one in (model, mirror):
        Optimisers(one, Step(no_loss, (MAIN,)), StageConfig(optimizer=optimizer)).step()
    for p, q in zip(model.parameters(), mirror.parameters(), strict=True):
        assert p.grad.stride() == p.stride()
        assert torch.equal(p, q)


def test_adam_has_the_published_betas_and_coupled_decay():
    config = StageConfig(optimizer="adam", learning_rate=1e-2, weight_decay=1e-2, schedule="constant")
    model = make_model()
    mirror = make_model()
    train(model, Optimisers(model, Step(no_loss, (MAIN,)), config), range(8))
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in mirror.named_parameters()}
    for step in range(8):
        mirror.zero_grad()
        give_gradients(mirror, step)
        for name, p in mirror.named_parameters():
            if name.startswith("cluster"):
                continue
            g = p.grad + 1e-2 * p.data
            m, v = 0.9 * moments[name][0] + 0.1 * g, 0.99 * moments[name][1] + 0.01 * g * g
            moments[name] = (m, v)
            scale = (v / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
            p.data = p.data - 1e-2 * m / (1 - 0.9 ** (step + 1)) / scale
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, dict(mirror.named_parameters())[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("own_decay", [None, 0.0, 3e-2])
def test_the_cluster_head_has_its_own_sgd_at_a_constant_rate(own_decay):
    config = ClusterHead(epochs=4, weight_decay=1e-2, cluster_learning_rate=0.25, cluster_weight_decay=own_decay)
    decay = 1e-2 if own_decay is None else own_decay
    model = make_model()
    optimisers = Optimisers(model, Step(no_loss, (MAIN, CLUSTER)), config)
    p, velocity = model["cluster"].weight.detach().clone(), None
    for step in range(20):
        optimisers.start_epoch(step // 5)
        optimisers.zero_grad()
        give_gradients(model, step)
        g = model["cluster"].weight.grad + decay * p
        velocity = g if velocity is None else 0.9 * velocity + g
        p = p - 0.25 * velocity
        optimisers.step()
        assert optimisers.learning_rates()["cluster"] == 0.25
    torch.testing.assert_close(model["cluster"].weight.detach(), p, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("optimizer", ["lars", "adam", "sgd"])
def test_every_trained_parameter_is_in_exactly_one_group_and_no_other_moves(optimizer):
    model = make_model()
    step = Step(no_loss, (Group(("body", "empty")), CLUSTER))
    optimisers = Optimisers(model, step, ClusterHead(optimizer=optimizer))
    groups = [g for state in optimisers.state_dict().values() for g in state["param_groups"]]
    assert sum(len(g["params"]) for g in groups) == len(trained_parameters(model, step.modules)) == 6
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimisers, range(2))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.split(".")[0] in step.modules}


def test_a_parameter_in_two_groups_is_refused():
    with pytest.raises(ValueError, match="two optimiser groups"):
        Optimisers(make_model(), Step(no_loss, (MAIN, Group(("head",), "cluster_"))), ClusterHead())
    with pytest.raises(ValueError, match="prefix"):
        Optimisers(make_model(), Step(no_loss, (Group(("head",), "other_"),)), StageConfig())


@pytest.mark.parametrize("optimizer", ["lars", "adam", "sgd"])
def test_a_restored_optimiser_goes_on_as_if_unbroken(optimizer):
    config = ClusterHead(epochs=4, optimizer=optimizer, learning_rate=0.05, cluster_learning_rate=0.05)
    step = Step(no_loss, (MAIN, CLUSTER))
    whole = make_model()
    train(whole, Optimisers(whole, step, config), range(20))
    first, second = make_model(), make_model()
    begun = Optimisers(first, step, config)
    train(first, begun, range(10))
    second.load_state_dict(first.state_dict())
    resumed = Optimisers(second, step, config)
    resumed.load_state_dict(begun.state_dict())
    train(second, resumed, range(10, 20))
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    with pytest.raises(ValueError, match="optimiser state"):
        resumed.load_state_dict({"main": begun.state_dict()["main"]})


@pytest.mark.parametrize(("epochs", "warmup"), [(30, 10), (12, 0), (12, 1), (600, 10)])
def test_the_schedule_is_that_of_the_published_loop(epochs, warmup):
    """The published loop overwrites the rate of torch's recursive cosine scheduler while it warms up."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    for epoch in range(epochs):
        if epoch < warmup:
            optimiser.param_groups[0]["lr"] = 0.3 * (epoch + 1) / warmup
        rate = learning_rate(epoch, epochs, 0.3, warmup, "cosine")
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        assert rate > 0
        optimiser.step()
        scheduler.step()


def test_the_schedule_in_figures():
    def rates(warmup: int, schedule: str) -> list[float]:
        return [learning_rate(epoch, 4, 2.0, warmup, schedule) for epoch in range(4)]

    half = math.sqrt(0.5)
    assert rates(0, "cosine") == pytest.approx([2, 1 + half, 1, 1 - half])
    assert rates(2, "cosine") == pytest.approx([1, 2, 2 / (1 + half), 2 * (1 - half) / (1 + half)])
    assert rates(2, "constant") == [1, 2, 2, 2]
    assert rates(8, "cosine") == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("optimizer", "decay", "dtype"),
    [
        ("adam", 0.0, torch.float32),
        ("adam", 1e-4, torch.float32),
        ("adam", 0.0, torch.float64),
        ("sgd", 0.0, torch.float32),
        ("lars", 0.0, torch.float32),
        ("lars", 1e-4, torch.float32),
    ],
)
def test_averages_of_a_unit_that_is_shut_do_not_become_denormal_and_no_weight_notices(
    optimizer, decay, dtype, monkeypatch
):
    ends, faded = [], []
    for forgets in (True, False):
        if not forgets:
            monkeypatch.setattr("raymc.training.optim.NEGLIGIBLE", {})
        torch.manual_seed(0)
        model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(5, 8), nn.ReLU()), "head": nn.Linear(8, 3)}).to(dtype)
        config = StageConfig(epochs=2, optimizer=optimizer, learning_rate=1e-2, weight_decay=decay)
        optimisers = Optimisers(model, Step(no_loss, (MAIN,)), config)
        bias = model["body"][0].bias
        generator = torch.Generator().manual_seed(1)
        for step in range(1300):
            if step % 700 == 0:
                optimisers.start_epoch(step // 700)
            if step in (100, 1200):  # some units are shut, and wake up again at the end
                with torch.no_grad():
                    bias[:4] += -100 if step == 100 else 100
            optimisers.zero_grad()
            x = torch.randn(16, 5, generator=generator).to(dtype)
            (model["head"](model["body"](x)) - x[:, :3]).square().mean().backward()
            optimisers.step()
            if step == 1140:
                state = [value for one in optimisers._optimisers["main"].state.values() for value in one.values()]
                averages = [value for value in state if isinstance(value, Tensor) and value.dim()]
                faded.append(sum(int(((a != 0) & (a.abs() < 1e-37)).sum()) for a in averages))
        ends.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    assert faded[0] <= faded[1]
    if not decay:  # by which even the gradients of weights that are shut fade
        assert faded[0] == 0 < faded[1]
