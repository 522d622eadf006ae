"""MLC's loss against a plain formula, its stages, its presets against the paper, and the stage 1 shared with NMCE."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raymc.config import Config, Value, resolve
from raymc.datasets import POLICIES, load
from raymc.distributed import Workers
from raymc.errors import InputError
from raymc.methods import METHODS, mlc, nmce
from raymc.methods.base import Batch, Group, Loss, Stage, Step
from raymc.nets import UnitLinear, pre_feature_layer
from raymc.ops import mlc_objective
from raymc.rng import derive_seed
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, fit
from raymc.training.optim import Optimisers
from raymc.training.smoke import limit, one_step
from raymc.training.stages import Weights, enter, prepare, stage_key, weights_of

EPS_SQ, GAMMA, ETA = 0.3, 0.7, 0.4
NETS = ("linear", "shared_pre_feature", "pre_feature", "whole")
DIGITS = (1, 8, 8)
PATHS = {
    "linear": ("backbone", "pre_feature"),
    "shared_pre_feature": ("backbone", "pre_feature"),
    "pre_feature": ("backbone", "cluster_pre_feature"),
    "whole": ("cluster_backbone", "cluster_pre_feature"),
}
"""What stands before the cluster head."""
HEADS = ("projection", "cluster")
TRAINED = {
    "linear": {*HEADS},
    "shared_pre_feature": {*HEADS, "pre_feature"},
    "pre_feature": {*HEADS, "pre_feature", "cluster_pre_feature"},
    "whole": {*HEADS, "backbone", "pre_feature", "cluster_backbone", "cluster_pre_feature"},
}


def tiny_model(net: str = "linear", statistics: bool = False) -> nn.ModuleDict:
    torch.manual_seed(5)
    bodies = {"backbone", "pre_feature", *PATHS[net]}
    model = nn.ModuleDict({name: _body(name) for name in sorted(bodies)})
    model.update({name: UnitLinear(6, 3) for name in HEADS})
    # Smooth and without running statistics, so that finite differences are those of the loss.
    for name in bodies:
        if name.endswith("pre_feature"):
            model[name][2] = nn.Softplus()
        if not statistics:
            model[name][1] = nn.BatchNorm1d(model[name][1].num_features, track_running_stats=False)
    return model.double()


def _body(name: str) -> nn.Module:
    if name.endswith("backbone"):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ELU())
    return pre_feature_layer(4, 6)


def tiny_batch(views: int = 2, rows: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(3)
    drawn = tuple(torch.rand(rows, 3, generator=generator, dtype=torch.float64) for _ in range(views))
    return Batch(drawn, torch.arange(rows), lambda name, width: torch.empty(0))


def config_of(**settings: Value) -> mlc.Heads:
    return mlc.Heads(**({"eps_sq": EPS_SQ, "gamma": GAMMA, "eta": ETA} | settings))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain_normed(h: Tensor) -> Tensor:
    return (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()


def plain_views(model: nn.ModuleDict, batch: Batch, path: tuple[str, str], head: str) -> list[np.ndarray]:
    """A head's unit rows layer by layer, BatchNorm over all views together."""
    body, wide = model[path[0]], model[path[1]]
    pool = body[2](plain_normed(body[0](torch.cat(batch.views))))
    h = wide[2](plain_normed(wide[0](pool)))
    out = h @ model[head].weight.T + model[head].bias
    return [unit(part.detach().numpy()) for part in out.chunk(len(batch.views))]


def plain_projection(c: np.ndarray, eta: float = ETA) -> np.ndarray:
    """P(|C C^T|) by dividing rows and columns in turn by their sums."""
    pi = np.exp(np.abs(c @ c.T) / eta)
    for _ in range(500):
        pi /= pi.sum(1, keepdims=True)
        pi /= pi.sum(0, keepdims=True)
    return pi


def plain_logdet(z: np.ndarray, weights: np.ndarray) -> float:
    """log det(I + d / eps^2 sum_i w_i z_i z_i^T)."""
    d = z.shape[1]
    covariance = sum(w * np.outer(row, row) for w, row in zip(weights, z, strict=True))
    return float(np.log(np.linalg.eigvalsh(np.eye(d) + d / EPS_SQ * covariance)).sum())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("views", [1, 2])
def test_mlc_loss_is_equation_4_with_the_means_of_equation_6(views: int, net: str) -> None:
    model, batch = tiny_model(net), tiny_batch(views)
    loss, terms = mlc.mlc_loss(model, batch, config_of(), None)
    z = unit(np.mean(plain_views(model, batch, PATHS["linear"], "projection"), 0))
    pi = np.mean([plain_projection(c) for c in plain_views(model, batch, PATHS[net], "cluster")], 0)
    n = len(z)
    rate, cluster_rate = plain_logdet(z, np.ones(n) / n), sum(plain_logdet(z, column) for column in pi.T) / n
    found = {name: float(term.detach()) for name, term in terms.items()}
    wanted = {"cluster_rate": cluster_rate, "rate": -rate, "regulariser": GAMMA / 2 * float(np.square(pi).sum())}
    assert found == pytest.approx(wanted, rel=1e-10)
    assert float(loss.detach()) == pytest.approx(sum(wanted.values()), rel=1e-10)


def test_the_loss_hands_on_every_setting_of_the_objective() -> None:
    model, batch = tiny_model(), tiny_batch()
    short = config_of(projection_iterations=5, rate_factor=0.5)
    z, c = (rows.chunk(2) for rows in mlc.heads(model, torch.cat(batch.views)))
    expected, _ = mlc_objective(z, c, EPS_SQ, GAMMA, ETA, iterations=5, rate_factor=0.5)
    assert torch.equal(mlc.mlc_loss(model, batch, short, None)[0], expected)
    _, terms = mlc.mlc_loss(model, batch, config_of(), None)
    _, halves = mlc.mlc_loss(model, batch, config_of(rate_factor=0.5), None)
    assert float(halves["rate"].detach()) == float(terms["rate"].detach()) / 2


class _Lossy(nn.Module):
    def __init__(self, model: nn.ModuleDict, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch

    def forward(self) -> Tensor:
        return mlc.mlc_loss(self.model, self.batch, config_of(), None)[0]


@pytest.mark.parametrize(("net", "views"), [("linear", 2), ("whole", 1)])
def test_the_loss_has_the_gradients_that_finite_differences_say(net: str, views: int) -> None:
    model, batch = tiny_model(net), tiny_batch(views, rows=5)
    names = [f"model.{name}" for name, _ in model.named_parameters()]

    def value(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(_Lossy(model, batch), dict(zip(names, parameters, strict=True)), ())

    assert torch.autograd.gradcheck(value, tuple(p.detach().requires_grad_() for p in model.parameters()))


@pytest.mark.parametrize("settings", [{}, {"projection_iterations": 5}, {"rate_factor": 0.5}, {"gamma": 0.0}])
def test_terms_add_up_to_the_loss(settings: dict[str, Value]) -> None:
    value, terms = mlc.mlc_loss(tiny_model(), tiny_batch(), config_of(**settings), None)
    torch.testing.assert_close(sum(terms.values()), value, rtol=1e-14, atol=0)


@pytest.mark.parametrize("net", ["linear", "whole"])
def test_under_autocast_the_loss_is_float32(net: str) -> None:
    model, batch = tiny_model(net), tiny_batch(rows=64)
    exact, _ = mlc.mlc_loss(model, batch, config_of(), None)
    single = dataclasses.replace(batch, views=tuple(view.float() for view in batch.views))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, terms = mlc.mlc_loss(model.float(), single, config_of(), None)
    assert {term.dtype for term in terms.values()} == {value.dtype} == {torch.float32}
    assert float(value.detach()) == pytest.approx(float(exact.detach()), rel=0.02)


def config(dataset: str, preset: str = "paper", method: str = "mlc", **over: Value) -> Config:
    dotted = {key.replace("__", "."): value for key, value in over.items()}
    made = METHODS[method]
    return resolve(method, dataset, preset, made.stage_settings, made.presets[dataset][preset], dotted)


@pytest.mark.parametrize("net", NETS)
def test_the_heads_stage_moves_what_cluster_net_says(net: str) -> None:
    stage = mlc.stages(config("cifar10", heads__cluster_net=net))[1]
    model = tiny_model(net, statistics=True)
    assert set(model) == {*stage.step.modules, *stage.reads}
    prepare(model, stage, frozen_statistics=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage.step.loss(model, tiny_batch(), config_of(), None)[0].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == TRAINED[net]
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == TRAINED[net] - {*HEADS}, "statistics of BatchNorm move with what trains, and nothing else does"


def test_frozen_statistics_may_be_told_to_move() -> None:
    stage = mlc.stages(config("cifar10"))[1]
    model = tiny_model(statistics=True)
    prepare(model, stage, frozen_statistics=False)
    before = model["backbone"][1].running_mean.clone()
    stage.step.loss(model, tiny_batch(), config_of(), None)[0].backward()
    assert not torch.equal(model["backbone"][1].running_mean, before)
    assert all(p.grad is None for p in model["backbone"].parameters())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(value, other[name]) for name, value in one.items())


def small(**over: Value) -> Config:
    """The digits, narrow and with one epoch a stage."""
    short = {"pre_feature_dim": 32, "feature_dim": 16, "pretrain__epochs": 1, "heads__epochs": 1}
    return config("digits", "shared", **(short | over))


@lru_cache(maxsize=1)
def few_digits() -> Any:
    return limit(load("digits"), 64)


def trained(model: nn.ModuleDict, stage: Stage, made: Config) -> nn.ModuleDict:
    feed = Feed.build(few_digits(), made.augmentation, torch.device("cpu"), torch.float32, False, Workers())
    fit(model, stage, made.stages[stage.name], feed, 0, Hooks(lambda row: None, None, None, 1))
    return model


@pytest.mark.parametrize("net", NETS)
def test_the_cluster_head_starts_as_a_copy_of_the_feature_head_and_goes_its_own_way(net: str) -> None:
    made = small(heads__cluster_net=net)
    first, second = mlc.stages(made)
    stage1 = weights_of(trained(enter(mlc.METHOD, first, made, DIGITS, 10, {}, 0), first, made))
    model = enter(mlc.METHOD, second, made, DIGITS, 10, stage1, 5)
    after = weights_of(model)
    for name, source in zip(("cluster", *PATHS[net]), ("projection", "backbone", "pre_feature"), strict=True):
        assert same(after[name], stage1[source])
    views = torch.rand(2, 20, *DIGITS, generator=torch.Generator().manual_seed(0))
    model.double().train()
    batch = Batch(tuple(views.double()), torch.arange(20), lambda name, width: torch.empty(0))
    z, c = mlc.heads(model, torch.cat(batch.views))
    assert torch.equal(z, c)
    pi = np.mean([plain_projection(rows) for rows in z.detach().view(2, 20, -1).numpy()], 0)
    _, terms = mlc.mlc_loss(model, batch, config_of(), None)
    assert float(terms["regulariser"].detach()) == pytest.approx(GAMMA / 2 * float(np.square(pi).sum()), rel=1e-9)
    again = weights_of(trained(enter(mlc.METHOD, second, made, DIGITS, 10, stage1, 5), second, made))
    for name in {*PATHS[net], "cluster"} & TRAINED[net] - {"pre_feature"}:
        source = "projection" if name == "cluster" else name.removeprefix("cluster_")
        assert not same(again[name], again[source])


def test_the_heads_stage_starts_from_stage_1_whatever_its_seed() -> None:
    made = small()
    first, second = mlc.stages(made)
    stage1 = weights_of(enter(mlc.METHOD, first, made, DIGITS, 10, {}, 0))
    one, other = (enter(mlc.METHOD, second, made, DIGITS, 10, stage1, seed) for seed in (1, 2))
    assert same(one.state_dict(), other.state_dict())
    copying = [dataclasses.replace(second, copies=copies) for copies in (second.copies, ())]
    assert len({stage_key(stage, made, one, "the same samples", 0, None) for stage in copying}) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_each_head_has_an_optimiser_of_its_own(optimizer: str) -> None:
    made = config("cifar10", heads__optimizer=optimizer, heads__cluster_learning_rate=0.4)
    stage = mlc.stages(made)[1]
    assert stage.step.groups == (Group(("projection",)), Group(("cluster",), prefix="cluster_"))
    assert made.stages["heads"].unread() == {"adam_beta2"}
    assert Optimisers(tiny_model(), stage.step, made.stages["heads"]).learning_rates() == {"main": 0.01, "cluster": 0.4}


def test_under_adam_both_heads_have_one_optimiser_and_the_cluster_heads_settings_are_not_read() -> None:
    made = config("cifar10", heads__optimizer="adam")
    stage = mlc.stages(made)[1]
    assert stage.step.groups == (Group(("projection", "cluster")),)
    assert made.stages["heads"].unread() == {"cluster_learning_rate", "cluster_weight_decay"}
    assert set(Optimisers(tiny_model(), stage.step, made.stages["heads"]).learning_rates()) == {"main"}


def test_groups_by_cluster_net() -> None:
    def groups(net: str) -> list[tuple[str, ...]]:
        return [group.modules for group in mlc.stages(config("cifar10", heads__cluster_net=net))[1].step.groups]

    assert groups("shared_pre_feature") == [("pre_feature", "projection"), ("cluster",)]
    assert groups("pre_feature") == [("pre_feature", "projection"), ("cluster", "cluster_pre_feature")]
    whole = [("backbone", "pre_feature", "projection"), ("cluster", "cluster_backbone", "cluster_pre_feature")]
    assert groups("whole") == whole


def test_without_a_heads_stage_there_is_only_pretrain() -> None:
    (stage,) = mlc.stages(config("cifar10", heads__epochs=0))
    assert stage.name == "pretrain" and stage.step == Step(nmce.tcr_loss, (Group((*mlc.NET, "projection")),))


def test_mlc_has_no_head_that_assigns_and_nmce_no_membership() -> None:
    with pytest.raises(InputError, match="clustering: mlc has no head that assigns"):
        mlc.stages(config("digits", clustering="head"))
    with pytest.raises(InputError, match="clustering: membership is MLC's"):
        nmce.stages(config("digits", method="nmce", clustering="membership"))


def stage1_key(method: str, dataset: str, preset: str, seed: int = 0) -> str:
    made, shape = config(dataset, preset, method), DIGITS if dataset == "digits" else (3, 32, 32)
    stage = METHODS[method].stages(made)[0]
    model = enter(METHODS[method], stage, made, shape, 10, {}, seed)
    return stage_key(stage, made, model, "the same samples", seed, None)


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar20", "cifar100"])
def test_stage_1_is_nmces_but_for_the_papers_own(dataset: str) -> None:
    theirs = stage1_key("nmce", dataset, "paper")
    assert stage1_key("mlc", dataset, "shared") == theirs
    assert stage1_key("mlc", dataset, "paper") != theirs
    assert stage1_key("mlc", dataset, "shared", seed=1) != theirs


def test_cifar20_and_cifar100_share_stage_1() -> None:
    assert stage1_key("mlc", "cifar20", "shared") == stage1_key("mlc", "cifar100", "shared")
    assert stage1_key("mlc", "cifar20", "shared") != stage1_key("mlc", "cifar10", "shared")


@pytest.mark.parametrize(("dataset", "shape"), [("digits", DIGITS), ("cifar10", (3, 32, 32))])
def test_both_methods_start_stage_1_from_the_same_weights(dataset: str, shape: tuple[int, ...]) -> None:
    starts = []
    for name, preset in (("mlc", "shared"), ("nmce", "paper")):
        made = config(dataset, preset, name)
        starts.append(enter(METHODS[name], METHODS[name].stages(made)[0], made, shape, 10, {}, 3).state_dict())
    assert same(*starts)


@pytest.mark.parametrize("name", ["cifar10", "cifar20", "cifar100", "imb_cifar10", "imb_cifar100", "tiny_imagenet"])
def test_paper_presets_are_appendix_d(name: str) -> None:
    made = config(name)
    first, second = made.stages["pretrain"], made.stages["heads"]
    assert (first.eps_sq, first.batch_size, first.epochs, first.views) == (0.2, 1024, 1000, "average")
    assert (first.optimizer, first.learning_rate) == ("lars", 0.3)
    assert (second.eps_sq, second.gamma, second.eta, second.batch_size) == (0.1, 0.05, 0.175, 1024)
    assert (second.projection_iterations, second.rate_factor, second.augmentations) == (None, 1.0, 2)
    assert (second.cluster_net, made.feature_dim, made.backbone) == ("linear", 128, "resnet18_cifar")
    assert made.clustering == "membership" and made.augmentation == "mlc"
    state = Optimisers(tiny_model(), mlc.stages(made)[1].step, second).state_dict()
    figures = [{k: group[k] for k in ("lr", "momentum", "weight_decay")} for group in _param_groups(state)]
    assert figures == [{"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4}] * 2


def _param_groups(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for one in state.values() for group in one["param_groups"]]


def test_the_papers_augmentation_crops_from_a_twenty_fifth_of_the_area() -> None:
    policy: Any = POLICIES["mlc"]
    assert (policy.crop, policy.side, policy.flip, policy.grey) == ((0.04, 1.0), 32, 0.5, 0.2)
    assert (policy.jitter, policy.jitter_share, policy.blur_share) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.1)


TABLE_6: dict[str, Value] = {"heads__eps_sq": 0.2, "heads__optimizer": "lars", "heads__learning_rate": 0.3}
TABLE_6 |= {"heads__schedule": "cosine", "heads__cluster_learning_rate": 0.5}


@pytest.mark.parametrize(("name", "decay"), [("cifar10", 5e-3), ("cifar20", 1e-3), ("cifar100", 1e-3)])
def test_table_6_is_nmces_settings_as_overrides(name: str, decay: float) -> None:
    made, theirs = config(name, "shared", **TABLE_6, heads__weight_decay=decay), config(name, method="nmce")
    assert made.stages["pretrain"] == theirs.stages["pretrain"] and made.augmentation == theirs.augmentation
    for stage in (made.stages["heads"], theirs.stages["heads"]):
        assert (stage.eps_sq, stage.optimizer, stage.learning_rate) == (0.2, "lars", 0.3)
        assert (stage.schedule, stage.epochs, stage.batch_size) == ("cosine", 100, 1024)
        assert (stage.cluster_learning_rate, stage.weight_decay, stage.cluster_weight_decay) == (0.5, decay, None)
    assert (made.stages["heads"].gamma, made.stages["heads"].eta) == (0.05, 0.175)


TABLE_5: dict[str, dict[str, Value]] = {
    "full": {},
    "random initialisation": {"pretrain__epochs": 0},
    "EnSC instead of stage 2": {"heads__epochs": 0, "clustering": "ensc"},
    "no augmentation in stage 2": {"heads__augmentations": 0},
}


@pytest.mark.parametrize(("row", "trains"), list(zip(TABLE_5, [(2, 2), (0, 2), (2,), (2, 1)], strict=True)))
def test_the_ablations_of_table_5_are_overrides(
    row: str, trains: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trains`: views of a batch of each stage, 0 where it takes no step."""
    seen: dict[str, int] = {}

    def noting(stage: str, loss: Loss) -> Loss:
        def noted(model: nn.ModuleDict, batch: Batch, *rest: Any) -> Any:
            seen[stage] = len(batch.views)
            return loss(model, batch, *rest)

        return noted

    monkeypatch.setattr(nmce, "tcr_loss", noting("pretrain", nmce.tcr_loss))
    monkeypatch.setattr(mlc, "mlc_loss", noting("heads", mlc.mlc_loss))
    made = small(**TABLE_5[row])
    one_step(made, few_digits())
    names = [stage.name for stage in mlc.stages(made)]
    assert tuple(seen.get(name, 0) for name in names) == trains
    assert [stage.name for stage in mlc.stages(config("cifar10", **TABLE_5[row]))] == names


def test_no_augmentations_are_one_plain_view_and_more_begin_with_the_same() -> None:
    data = few_digits()
    feed = Feed.build(data, "digits", torch.device("cpu"), torch.float32, False, Workers())
    plain, one, three = (next(iter(feed.epoch("heads", 0, 0, 16, views))) for views in (0, 1, 3))
    assert [len(batch.views) for batch in (plain, one, three)] == [1, 1, 3]
    assert torch.equal(plain.views[0], feed.plain(data.train.x[plain.index]))
    assert torch.equal(plain.index, one.index) and torch.equal(one.views[0], three.views[0])
    assert not torch.equal(one.views[0], plain.views[0])


@pytest.mark.parametrize(
    "over",
    [
        {"heads__projection_iterations": 5, "heads__rate_factor": 0.5},
        *({"heads__cluster_net": net} for net in NETS[1:]),
        {"heads__optimizer": "adam"},
        {"heads__optimizer": "lars", "heads__augmentations": 1},
    ],
    ids=lambda over: "-".join(map(str, over.values())),
)
def test_what_a_space_may_override_takes_a_step(over: dict[str, Value]) -> None:
    one_step(small(**over), few_digits())


def nmce_heads(keep: bool) -> tuple[Weights, Weights, Stage, str]:
    """Stage 1's weights, those that NMCE's heads stage starts with, the stage, and the name of its result."""
    made = config("digits", method="nmce", pre_feature_dim=32, heads__keep_feature_head=keep)
    first, second, _ = nmce.stages(made)
    before = weights_of(enter(nmce.METHOD, first, made, DIGITS, 10, {}, 0))
    model = enter(nmce.METHOD, second, made, DIGITS, 10, before, 4)
    return before, weights_of(model), second, stage_key(second, made, model, "the same samples", 4, "stage 1")


def test_nmce_may_keep_the_feature_head_and_draws_the_cluster_head_as_ever() -> None:
    before, kept, stage, key = nmce_heads(keep=True)
    _, drawn, default, other = nmce_heads(keep=False)
    assert same(kept["subspace"], before["projection"]) and not same(drawn["subspace"], before["projection"])
    assert set(kept) == set(drawn) == {"backbone", "pre_feature", "subspace", "cluster"}
    assert all(same(kept[name], drawn[name]) for name in set(kept) - {"subspace"})
    assert key != other and stage.step == default.step and stage.copies and not default.copies
    torch.manual_seed(derive_seed(4, "heads", "init", "subspace"))
    alone = nmce.build_module("subspace", config("digits", method="nmce", pre_feature_dim=32), DIGITS, 10)
    assert same(drawn["subspace"], alone.state_dict())
