"""NMCE's losses against plain formulas, its stages, and its presets against the paper's Table B.1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymc.config import Config, Value, resolve
from raymc.errors import InputError
from raymc.methods import nmce
from raymc.methods.base import Batch
from raymc.nets import UnitLinear, pre_feature_layer
from raymc.training.stages import prepare

EPS_SQ, WEIGHT, TEMPERATURE = 0.3, 7.0, 0.6


def tiny_model(statistics: bool = False) -> nn.ModuleDict:
    torch.manual_seed(5)
    model = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Linear(3, 4), nn.ELU()),
            "pre_feature": pre_feature_layer(4, 6),
            "projection": UnitLinear(6, 3),
            "subspace": UnitLinear(6, 3),
            "cluster": nn.Linear(6, 2),
        }
    )
    # Smooth and without running statistics, so that finite differences are those of the loss.
    model["pre_feature"][2] = nn.Softplus()
    if not statistics:
        model["pre_feature"][1] = nn.BatchNorm1d(6, track_running_stats=False)
    return model.double()


def tiny_batch(rows: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    views = (draw(rows, 3), draw(rows, 3))
    noise = {f"gumbel{v}": draw(rows, 2).float() for v in range(2)}

    def uniform(name: str, width: int) -> Tensor:
        assert width == 2
        return noise[name]

    return Batch(views, torch.arange(rows), uniform)


@dataclass(frozen=True, kw_only=True)
class Settings(nmce.Finetune, nmce.Pretrain):
    """Those of both losses."""


def config_of(**settings: Value) -> Settings:
    fixed = {"eps_sq": EPS_SQ, "similarity_weight": WEIGHT, "temperature": TEMPERATURE}
    return Settings(**(fixed | settings))


def plain_rate(z: np.ndarray, weights: np.ndarray) -> float:
    """Mass times the rate of weighted unit rows: tr/(2n) logdet(I + d/(tr eps^2) sum_i w_i z_i z_i^T)."""
    n, d = z.shape
    covariance = sum(w * np.outer(row, row) for w, row in zip(weights, z, strict=True))
    eigenvalues = np.linalg.eigvalsh(np.eye(d) + d / (weights.sum() * EPS_SQ) * covariance)
    return float(weights.sum() / (2 * n) * np.log(eigenvalues).sum())


def plain_views(model: nn.ModuleDict, batch: Batch, head: str) -> list[np.ndarray]:
    """A linear head's output by the pre-feature layer's own formula, BatchNorm over both views together."""
    x = torch.cat(batch.views)
    linear, norm, activation = model["pre_feature"]
    h = linear(model["backbone"](x))
    h = (h - h.mean(0)) / (h.var(0, correction=0) + norm.eps).sqrt()
    out = activation(h) @ model[head].weight.T + model[head].bias
    return [half.detach().numpy() for half in out.chunk(2)]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("views", ["separate", "mean"])
def test_tcr_loss_is_equation_5(views):
    model, batch = tiny_model(), tiny_batch()
    loss, terms = nmce.tcr_loss(model, batch, config_of(views=views), None)
    z1, z2 = map(unit, plain_views(model, batch, "projection"))
    ones = np.ones(len(z1))
    separate = (plain_rate(z1, ones) + plain_rate(z2, ones)) / 2
    rate = separate if views == "separate" else plain_rate(unit(z1 + z2), ones)
    similarity = float((z1 * z2).sum(1).mean())
    assert float(loss.detach()) == pytest.approx(-rate - WEIGHT * similarity, rel=1e-12)
    assert float(terms["rate"].detach()) == pytest.approx(-rate, rel=1e-12)


def test_nmce_loss_is_equation_4_with_one_gumbel_sample_per_view():
    model, batch = tiny_model(), tiny_batch()
    loss, terms = nmce.nmce_loss(model, batch, config_of(), None)
    z1, z2 = map(unit, plain_views(model, batch, "subspace"))
    z, pi = unit(z1 + z2), np.zeros((len(z1), 2))
    for view, logits in enumerate(plain_views(model, batch, "cluster")):
        u = batch.uniform(f"gumbel{view}", 2).double().numpy()
        weights = (np.exp(logits) / -np.log(u)) ** (1 / TEMPERATURE)
        pi += weights / weights.sum(1, keepdims=True) / 2
    cluster_rate = sum(plain_rate(z, pi[:, j]) for j in range(2))
    wanted = cluster_rate - plain_rate(z, np.ones(len(z))) - WEIGHT * float((z1 * z2).sum(1).mean())
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-10)
    assert float(terms["cluster_rate"].detach()) == pytest.approx(cluster_rate, rel=1e-10)


@pytest.mark.parametrize("loss", [nmce.tcr_loss, nmce.nmce_loss])
def test_losses_have_the_gradients_that_finite_differences_say(loss):
    model, batch = tiny_model(), tiny_batch(5)
    names = [name for name, _ in model.named_parameters()]

    def value(*parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(_Lossy(model, loss, batch), {f"model.{n}": p for n, p in given.items()}, ())

    assert torch.autograd.gradcheck(value, tuple(p.detach().requires_grad_() for p in model.parameters()))


class _Lossy(nn.Module):
    def __init__(self, model: nn.ModuleDict, loss: Callable[..., tuple[Tensor, dict]], batch: Batch) -> None:
        super().__init__()
        self.model, self.loss, self.batch = model, loss, batch

    def forward(self) -> Tensor:
        return self.loss(self.model, self.batch, config_of(), None)[0]


@pytest.mark.parametrize("loss", [nmce.tcr_loss, nmce.nmce_loss])
@pytest.mark.parametrize("settings", [{}, {"views": "mean"}, {"straight_through": True}, {"similarity_weight": 0.0}])
def test_terms_add_up_to_the_loss(loss, settings):
    value, terms = loss(tiny_model(), tiny_batch(), config_of(**settings), None)
    torch.testing.assert_close(sum(terms.values()), value, rtol=1e-14, atol=0)


def test_uniform_memberships_give_no_gradient_but_the_similaritys():
    """The paper's reason for stages: where every point is in every cluster alike, R_c = R cancels R."""
    model, batch = tiny_model(), tiny_batch()
    nn.init.zeros_(model["cluster"].weight)
    nn.init.zeros_(model["cluster"].bias)
    even = Batch(batch.views, batch.index, lambda name, width: torch.full((9, width), 0.5))
    loss, _ = nmce.nmce_loss(model, even, config_of(similarity_weight=0.0), None)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    gradients = [p.grad for name, p in model.named_parameters() if not name.startswith("projection")]
    assert max(float(g.abs().max()) for g in gradients) < 1e-12


def test_the_heads_stage_moves_nothing_but_the_heads():
    stage = nmce.stages(config("cifar10"))[1]
    model, batch = tiny_model(statistics=True), tiny_batch()
    del model["projection"]
    prepare(model, stage, frozen_statistics=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage.step.loss(model, batch, config_of(), None)[0].backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"subspace", "cluster"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def config(dataset: str, preset: str = "paper", **over: Value) -> Config:
    dotted = {key.replace("__", "."): value for key, value in over.items()}
    return resolve("nmce", dataset, preset, nmce.STAGES, nmce.PRESETS[dataset][preset], dotted)


def groups(config: Config) -> list[list[tuple[str, ...]]]:
    return [[group.modules for group in stage.step.groups] for stage in nmce.stages(config)]


def test_stages_train_what_the_published_code_trains():
    body = ("backbone", "pre_feature", "projection")
    assert groups(config("cifar10")) == [
        [body],
        [("subspace",), ("cluster",)],
        [("backbone", "subspace"), ("cluster",)],
    ]
    whole = ("backbone", "pre_feature", "subspace")
    assert groups(config("cifar10", finetune__train_pre_feature=True))[2] == [whole, ("cluster",)]
    assert groups(config("double_spiral"))[2] == [(*whole, "cluster")]
    assert groups(config("manifolds"))[1:] == [[("subspace", "cluster")], [("backbone", "subspace", "cluster")]]
    assert groups(config("coil20")) == [[body]]


def test_under_adam_the_cluster_heads_own_settings_are_not_read():
    adam, lars = (config(name).stages["finetune"] for name in ("manifolds", "cifar10"))
    assert adam.unread() == {"cluster_learning_rate", "cluster_weight_decay"} and lars.unread() == {"adam_beta2"}
    assert lars.keyed().keys() - adam.keyed().keys() == adam.unread()


def test_ensc_with_later_stages_is_told():
    with pytest.raises(InputError, match="finetune.epochs must be 0"):
        nmce.stages(config("coil20", finetune__epochs=3))


TABLE_B1 = """
cifar10 table           S1 1 1e-6 0.2 128 50 1024 600       cifar10 resnet34_table  S1 1 1e-6 0.2 128 50 1024 1000
cifar10 table           S2 0.5 0.005 0.2 128 50 1024 100    cifar10 resnet34_table  S2 0.5 0.001 0.2 128 0 1024 100
cifar10 table           S3 0.003 0.005 0.2 128 50 1024 100  cifar10 resnet34_table  S3 0.003 0.001 0.2 128 0 1024 100
cifar20 table           S1 1 1e-6 0.2 128 50 1024 600       cifar20 resnet34_table  S1 1 1e-6 0.2 128 50 1024 1000
cifar20 table           S2 0.5 0.001 0.2 128 0 1024 100     cifar20 resnet34_table  S2 0.5 0.002 0.2 128 0 1024 100
cifar20 table           S3 0.003 0.001 0.2 128 0 1024 100   cifar20 resnet34_table  S3 0.003 0.002 0.2 128 0 1024 100
stl10 table             S1 1 1e-6 0.2 128 30 1024 1000      stl10 resnet34_table    S1 1 1e-6 0.2 128 30 1024 2000
stl10 table             S2 0.5 0.002 0.2 128 0 1024 400     stl10 resnet34_table    S2 0.5 0.002 0.2 128 0 1024 400
stl10 table             S3 0.0005 0.002 0.2 128 30 1024 400 stl10 resnet34_table    S3 0.0005 0.002 0.2 128 30 1024 400
coil20 table            S1 1e-3 1e-6 0.01 40 20 1440 2000   coil100 table           S1 1e-3 1e-6 0.001 200 20 7200 10000
double_spiral table     S3 1e-3 1e-6 0.01 6 4000 4096 300   manifolds paper         S1 1e-3 1e-6 0.01 12 100 4096 30
manifolds paper         S3 1e-3 1e-6 0.01 12 100 4096 30
"""


def table_rows() -> list[list[str]]:
    words = TABLE_B1.split()
    return [words[at : at + 10] for at in range(0, len(words), 10)]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: "-".join(row[:3]))
def test_table_presets_are_table_b1(row):
    """Columns: lr, wd, epsilon, d_z, lambda, batch, epochs; 100 steps of a stream count as one epoch."""
    made = config(row[0], row[1])
    stage = made.stages[("pretrain", "heads", "finetune")[int(row[2][1]) - 1]]
    found = (stage.learning_rate, stage.weight_decay, stage.eps_sq, made.feature_dim)
    assert (*found, stage.similarity_weight, stage.batch_size, stage.epochs) == tuple(map(float, row[3:]))
    assert ("resnet34" in made.backbone) == ("resnet34" in row[1])


def test_paper_presets_follow_the_published_commands_where_there_are_some():
    stages = config("cifar10").stages
    figures = [(s.learning_rate, s.weight_decay, s.similarity_weight, s.epochs) for s in stages.values()]
    assert figures == [(0.3, 1e-4, 30, 600), (0.3, 5e-3, 0, 100), (0.003, 1e-4, 0, 100)]
    assert stages["heads"].cluster_learning_rate == stages["finetune"].cluster_learning_rate == 0.5
    assert config("cifar20").stages["heads"].weight_decay == 1e-3
    spiral = config("double_spiral").stages["finetune"]
    assert (spiral.temperature, spiral.weight_decay, spiral.schedule) == (0.2, 1e-5, "constant")
    coil = config("coil100")
    assert (coil.clustering, coil.ensc_gamma, coil.ensc_tau, coil.stages["pretrain"].views) == (
        "ensc",
        200,
        0.5,
        "mean",
    )


def test_cifar20_and_cifar100_share_stage_1():
    a, b = config("cifar20"), config("cifar100")
    assert a.stages["pretrain"] == b.stages["pretrain"] and a.backbone == b.backbone


def test_the_loss_of_an_even_sphere_is_the_closed_form():
    """z evenly on the sphere: R = d/2 ln(1 + 1/eps^2), the most that stage 1 can reach."""
    z = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    model = nn.ModuleDict({"backbone": nn.Identity(), "pre_feature": nn.Identity(), "projection": nn.Identity()})
    batch = Batch((z, z), torch.arange(6), lambda name, width: torch.empty(0))
    loss, terms = nmce.tcr_loss(model, batch, config_of(), None)
    assert float(terms["rate"]) == pytest.approx(-1.5 * math.log(1 + 1 / EPS_SQ), rel=1e-12)
    assert float(loss) == pytest.approx(float(terms["rate"]) - WEIGHT, rel=1e-12)


@pytest.mark.parametrize("loss", [nmce.tcr_loss, nmce.nmce_loss])
def test_under_autocast_the_rates_are_float32(loss):
    model, batch = tiny_model(), tiny_batch(64)
    exact, _ = loss(model, batch, config_of(), None)
    single = Batch(tuple(view.float() for view in batch.views), batch.index, batch.uniform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, terms = loss(model.float(), single, config_of(), None)
    assert {term.dtype for term in terms.values()} == {value.dtype} == {torch.float32}
    assert float(value.detach()) == pytest.approx(float(exact.detach()), rel=0.02)
