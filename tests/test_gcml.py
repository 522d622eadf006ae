"""GCML's losses against plain formulas, its schedules and stages, its edges, and the same on any number of workers."""

from __future__ import annotations

import copy
import dataclasses
import math
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from raymc import datasets
from raymc.clusterers.tsne import tsne
from raymc.config import Config, Value, resolve
from raymc.datasets import Dataset
from raymc.datasets.base import Split, stored
from raymc.distributed import Workers
from raymc.errors import InputError
from raymc.methods import METHODS, gcml, gcml_settings, gcml_state
from raymc.methods.base import Batch
from raymc.nets.autoencoder import AUTOENCODERS
from raymc.ops import cluster_means, neighbours_within, student_t_assignment, target_distribution
from raymc.training.feed import Feed
from raymc.training.loop import Hooks, Progress, fit
from raymc.training.smoke import one_step, shorten
from raymc.training.stages import Weights, check_sizes, enter, stage_key, weights_of
from tests import worker_functions as work
from tests.worker_pool import on_workers

METHOD = METHODS["gcml"]
C, D, M = 3, 6, 2
QUIET = Hooks(report=lambda row: None, save=None, evaluate=None, evaluate_every=1)


def config_of(dataset: str = "digits", preset: str = "tuned", **over: Value) -> Config:
    keys = {key.replace("__", "."): value for key, value in over.items()}
    return resolve("gcml", dataset, preset, METHOD.stage_settings, METHOD.presets[dataset][preset], keys)


def short(**over: Value) -> Config:
    """Three epochs of fine-tuning, in which structure counts from the second on."""
    given: dict[str, Value] = {
        "feature_dim": M,
        "backbone": "dense_256",
        "pretrain__epochs": 1,
        "finetune__epochs": 3,
        "finetune__start_epoch": 1,
        "finetune__continuation_epochs": 2,
        "finetune__batch_size": 16,
        "finetune__neighbours": 2,
    }
    return config_of(**(given | over))


def blobs(n: int = 48, classes: int = C, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = 4 * torch.randn(classes, D, generator=generator)[y] + torch.randn(n, D, generator=generator)
    return stored("blobs", Split(x, y), None, n_classes=classes, split="all", source="drawn")


def train(
    config: Config, data: Dataset, n_clusters: int = C, hooks: Hooks = QUIET, progress: Progress | None = None
) -> tuple[nn.ModuleDict, Feed, list[dict[str, Any]]]:
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers())
    weights: Weights = {}
    curve: list[dict[str, Any]] = []
    for stage in METHOD.stages(config):
        model = enter(METHOD, stage, config, tuple(data.train.x.shape[1:]), n_clusters, weights, 0).double()
        last = stage.name == "finetune"
        settings = config.stages[stage.name]
        curve = fit(model, stage, settings, feed, 0, hooks if last else QUIET, None, progress if last else None)
        weights = weights_of(model)
    return model, feed, curve


def tiny() -> tuple[nn.ModuleDict, Batch]:
    """A small net on 12 points in float64, as the fourth epoch sees a batch of 8 of them."""
    config = config_of(feature_dim=M, backbone="dense_256")
    model = nn.ModuleDict()
    torch.manual_seed(3)
    for name in ("encoder", "decoder", "centers"):
        model[name] = gcml.build_module(name, config, (D,), C).double()
    x = torch.randn(12, D, dtype=torch.float64)
    with torch.no_grad():
        z = model["encoder"](x)
        q = student_t_assignment(z, model["centers"]())
    labels = torch.arange(12) % C
    means, sizes = cluster_means(x, labels, C)
    near = neighbours_within(z, labels, 2)
    state = {
        "target": target_distribution(q),
        "labels": labels,
        "input_means": means,
        "sizes": sizes,
        "neighbours": near,
        "distances": torch.linalg.vector_norm(x.unsqueeze(1) - x[near], dim=2),
    }
    index = torch.tensor([3, 1, 7, 11, 0, 5, 4, 9])
    return model, Batch((x[index],), index, epoch=4, steps=5, state=state)


@dataclass(frozen=True, kw_only=True)
class Settings(gcml_settings.Finetune, gcml_settings.Pretrain):
    """Those of both stages, for all losses."""


SETTINGS = Settings(start_epoch=2, continuation_epochs=10, alpha=0.3, beta=0.7, neighbours=2, kappa=2.0)


@pytest.mark.parametrize("scales", ["published", "paper", "mean"])
def test_the_loss_of_a_batch_is_equation_9(scales: str) -> None:
    model, batch = tiny()
    config = dataclasses.replace(SETTINGS, loss_scales=scales)
    loss, terms = gcml.clustering_loss(model, batch, config, None)
    x = batch.views[0]
    with torch.no_grad():
        z, mu = model["encoder"](x), model["centers"]().detach()
        y = model["decoder"](z)
    q = 1 / (1 + (z.unsqueeze(1) - mu).square().sum(2))
    q = (q / q.sum(1, keepdim=True)).numpy()
    p = batch.state["target"][batch.index].numpy()
    divergence = float((p * np.log(p / q)).sum())
    share = 1 - 2 / 8
    rank = [
        math.dist(mu[i], mu[j]) - 2 * math.dist(batch.state["input_means"][i], batch.state["input_means"][j])
        for i in range(C)
        for j in range(C)
    ]
    error = float((y - x).square().mean())
    paper = scales == "paper"
    wanted = {
        "clustering": 0.3 * share * divergence / {"published": 8 * C, "paper": 1, "mean": 8}[scales],
        "reconstruction": error * (1 if paper else share),
        "ranking": sum(map(abs, rank)) if paper else math.hypot(*rank) / C / 5,
    }
    assert {k: float(v.detach()) for k, v in terms.items()} == pytest.approx(wanted, rel=1e-9)
    assert float(loss.detach()) == pytest.approx(sum(wanted.values()), rel=1e-9)


@pytest.mark.parametrize("scales", ["published", "paper", "mean"])
def test_the_loss_of_all_samples_is_equation_10(scales: str) -> None:
    model, batch = tiny()
    config = dataclasses.replace(SETTINGS, loss_scales=scales)
    everything = dataclasses.replace(batch, views=(_all_rows(batch),), index=torch.arange(12))
    loss, terms = gcml.structure_loss(model, everything, config, None)
    x, state = everything.views[0], batch.state
    with torch.no_grad():
        z, mu = model["encoder"](x), model["centers"]().detach()
    pairs = [(i, int(j)) for i in range(12) for j in state["neighbours"][i] if j >= 0]
    norm = (D**0.5, M**0.5) if scales == "published" else (1.0, 1.0)
    local = [math.dist(x[i], x[j]) / norm[0] - math.dist(z[i], z[j]) / norm[1] for i, j in pairs]
    align = sum(math.dist(mu[c], z[state["labels"] == c].mean(0)) for c in range(C))
    wanted = {
        "isometry": 0.7 * 0.2 * (sum(map(abs, local)) if scales == "paper" else math.hypot(*local)),
        "alignment": align if scales == "paper" else align / C,
    }
    assert {k: float(v.detach()) for k, v in terms.items()} == pytest.approx(wanted, rel=1e-9)
    assert float(loss.detach()) == pytest.approx(sum(wanted.values()), rel=1e-9)


def _all_rows(batch: Batch) -> Tensor:
    torch.manual_seed(3)
    config = config_of(feature_dim=M, backbone="dense_256")
    for name in ("encoder", "decoder", "centers"):
        gcml.build_module(name, config, (D,), C)
    x = torch.randn(12, D, dtype=torch.float64)
    assert torch.equal(x[batch.index], batch.views[0])
    return x


@pytest.mark.parametrize(
    ("loss", "trained"),
    [
        (gcml.denoising_loss, ("encoder", "decoder")),
        (gcml.clustering_loss, ("encoder", "decoder", "centers")),
        (gcml.structure_loss, ("encoder", "centers")),
    ],
)
@pytest.mark.parametrize("scales", ["published", "paper", "mean"])
def test_losses_by_finite_differences(
    monkeypatch: pytest.MonkeyPatch, loss: Any, trained: tuple[str, ...], scales: str
) -> None:
    monkeypatch.setitem(AUTOENCODERS, "dense_256", (4,))
    model, batch = tiny()
    noise = torch.randn(8, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch = dataclasses.replace(batch, normal=lambda name, width: noise)
    if loss is gcml.structure_loss:
        batch = dataclasses.replace(batch, views=(_all_rows(batch),), index=torch.arange(12))
    names = [name for name, _ in model.named_parameters() if name.startswith(trained)]
    assert len(names) == sum({"encoder": 4, "decoder": 4, "centers": 1}[module] for module in trained)

    def value(*values: Tensor) -> Tensor:
        given = {f"model.{n}": v for n, v in zip(names, values, strict=True)}
        found: Tensor = torch.func.functional_call(_Lossy(model, loss, batch, scales), given, ())
        return found

    start = tuple(dict(model.named_parameters())[n].detach().clone().requires_grad_() for n in names)
    assert torch.autograd.gradcheck(value, start)
    assert all(bool(g.any()) for g in torch.autograd.grad(value(*start), start))  # 0 would pass where it must be


class _Lossy(nn.Module):
    def __init__(self, model: nn.ModuleDict, loss: Any, batch: Batch, scales: str) -> None:
        super().__init__()
        self.model, self.loss, self.batch = model, loss, batch
        self.config = dataclasses.replace(SETTINGS, loss_scales=scales)

    def forward(self) -> Tensor:
        value: Tensor = self.loss(self.model, self.batch, self.config, None)[0]
        return value


def test_weights_move_as_in_the_published_code() -> None:
    usps = config_of("usps").stages["finetune"]
    assert (usps.start_epoch, usps.continuation_epochs, usps.epochs) == (20, 150, 150)
    usps = config_of("usps", "published").stages["finetune"]
    assert (usps.start_epoch, usps.continuation_epochs, usps.epochs) == (50, 150, 300)
    alpha = [gcml_state.alpha_share(usps, epoch) for epoch in (0, 50, 75, 100, 150, 299)]
    beta = [gcml_state.beta_share(usps, epoch) for epoch in (0, 50, 125, 200, 299)]
    assert alpha == [1, 1, 0.75, 0.5, 0, 0] and beta == [0, 0, 0.5, 1, 1]
    literal = config_of("usps", "literal").stages["finetune"]
    assert [gcml_state.alpha_share(literal, e) for e in (0, 75, 150)] == [1, 0.5, 0]
    assert [gcml_state.beta_share(literal, e) for e in (0, 75, 150)] == [0, 0.5, 1]
    constant = dataclasses.replace(usps, continuation_epochs=0)
    assert {gcml_state.alpha_share(constant, e) for e in (0, 49, 50, 299)} == {1.0}
    assert [gcml_state.beta_share(constant, e) for e in (0, 49, 50, 299)] == [0, 0, 1, 1]


def test_the_presets_are_those_of_the_published_settings() -> None:
    starts = {"mnist": 10, "mnist_test": 30, "usps": 50, "fashion_mnist": 30, "har": 30, "reuters10k": 30}
    for name, start in (starts | {"pendigits": 50}).items():
        found = config_of(name)
        assert found.backbone == "dense_2000" and found.feature_dim == 10
        mixture = name in ("usps", "pendigits")
        assert found.stages["finetune"].centers_by == ("tsne_mixture" if mixture else "tsne")
        assert {config_of(name, other).stages["finetune"].centers_by for other in ("published", "literal")} == {"tsne"}
        assert config_of(name, "published").stages["finetune"].start_epoch == start
        assert (found.stages["finetune"].kappa, found.stages["finetune"].neighbours) == (3, 5)
        assert found.stages["pretrain"].epochs == (500 if name == "pendigits" else 200)
        assert found.stages["pretrain"].noise == (0.23 if name == "usps" else 0.2)
    shape = [list(p.shape) for p in gcml.build_module("encoder", config_of("mnist"), (1, 28, 28), 10).parameters()]
    assert [s[0] for s in shape[::2]] == [500, 500, 500, 2000, 10] and shape[0][1] == 784
    mirror = gcml.build_module("decoder", config_of("mnist"), (1, 28, 28), 10)
    assert [list(p.shape)[0] for p in list(mirror.parameters())[::2]] == [2000, 500, 500, 500, 784]


def test_ablations_are_overrides_of_one_preset() -> None:
    off = {"finetune__rank_weight": 0.0, "finetune__beta": 0.0, "finetune__align_weight": 0.0}
    for over, terms, last in (
        ({}, {"clustering", "reconstruction", "ranking"}, {"isometry", "alignment"}),
        (off, {"clustering", "reconstruction"}, set()),
        ({"finetune__alpha": 0.0}, {"reconstruction", "ranking"}, {"isometry", "alignment"}),
        ({"finetune__continuation_epochs": 0}, {"clustering", "reconstruction", "ranking"}, {"isometry", "alignment"}),
        (
            {"finetune__alternating": False},
            {"clustering", "reconstruction", "ranking", "isometry", "alignment"},
            set(),
        ),
    ):
        _, _, curve = train(short(**over), blobs())
        seen = set(curve[1]) & {"clustering", "reconstruction", "ranking", "isometry", "alignment"}
        assert seen == terms | last, over
        assert ("whole_loss" in curve[1]) == bool(last)


def test_dec_has_no_decoder_and_idec_no_structure() -> None:
    dec, idec = (METHOD.stages(config_of(preset=preset))[1] for preset in ("dec", "idec"))
    assert dec.drop == ("decoder",) and "decoder" not in dec.trained and dec.last is None
    assert "decoder" in idec.trained and idec.last is None
    for preset in ("dec", "idec"):
        given = {"pretrain__epochs": 1, "finetune__epochs": 2, "backbone": "dense_256", "feature_dim": M}
        model, feed, curve = train(config_of(preset=preset, **given), blobs())
        z, q = gcml.heads(model, feed.plain(feed.data.train.x))
        assert z.shape == (48, M) and q is not None and len(curve) == 2 and "clustering" in curve[1]


def test_what_has_no_weight_any_more_is_not_computed() -> None:
    _, _, curve = train(short(finetune__epochs=5), blobs())
    assert {"clustering", "reconstruction"} <= set(curve[1]) and not {"clustering", "reconstruction"} & set(curve[3])
    assert {"ranking", "isometry"} <= set(curve[4])
    none = short(finetune__epochs=4, finetune__rank_weight=0.0, finetune__beta=0.0, finetune__align_weight=0.0)
    assert train(none, blobs())[2][3]["loss"] == 0


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every epoch, however short."""
    monkeypatch.setattr("raymc.training.loop.SAVE_SHARE", 0)


@pytest.mark.usefixtures("every_epoch")
def test_a_killed_training_goes_on_to_the_unbroken_result() -> None:
    kept: list[Progress] = []
    copied = dataclasses.replace(QUIET, save=lambda at: kept.append(copy.deepcopy(at)))
    whole, _, curve = train(short(finetune__epochs=5), blobs(), hooks=copied)
    for at in kept:
        again, _, told = train(short(finetune__epochs=5), blobs(), progress=at)
        assert told == curve
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    assert len(kept) == 4


def test_duplicates_tiny_clusters_and_empty_ones_leave_numbers() -> None:
    same = blobs(40)
    same.train.x[:] = same.train.x[0]
    lonely = blobs(40)
    lonely.train.x[0] = 50.0
    for data in (same, lonely):
        for over in ({}, {"finetune__alternating": False}, {"finetune__loss_scales": "paper"}):
            model, feed, curve = train(short(finetune__epochs=4, **over), data, n_clusters=7)
            numbers = [v for row in curve for v in row.values() if isinstance(v, float)]
            assert all(map(math.isfinite, numbers))
            z, q = gcml.heads(model, feed.plain(data.train.x))
            labels = q.argmax(1)
            assert bool(z.isfinite().all()) and bool(labels.ge(0).all() & labels.lt(7).all())


def test_first_centers_are_the_means_of_clusters_in_the_latent_space() -> None:
    data = blobs(60)
    config = short(finetune__epochs=1, finetune__centers_by="kmeans")
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers())
    for by in ("kmeans", "tsne", "tsne_mixture"):
        settings = dataclasses.replace(config.stages["finetune"], centers_by=by)
        model = nn.ModuleDict({"encoder": nn.Flatten(1), "centers": gcml.Centers(C, D).double()})
        gcml_state.first_centers(model, feed, settings, 0)
        true, _ = cluster_means(data.train.x.double(), data.train.y, C)
        nearest = torch.cdist(true, model["centers"]()).min(1)
        assert sorted(nearest.indices.tolist()) == [0, 1, 2]
        torch.testing.assert_close(nearest.values, torch.zeros(C).double(), atol=1e-4, rtol=0)
        before = model["centers"]().clone()
        gcml_state.first_centers(model, feed, settings, 0)
        assert torch.equal(before, model["centers"]())


@pytest.mark.parametrize("by", ["tsne", "tsne_mixture", "kmeans"])
def test_exaggeration_is_that_of_the_t_sne_in_which_first_centers_are_found(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    asked: list[float] = []

    def watched(z: torch.Tensor, seed: int, init: None = None, exaggeration: float = 1.0) -> object:
        asked.append(exaggeration)
        return tsne(z, seed, init, exaggeration)

    monkeypatch.setattr(gcml_state, "tsne", watched)
    train(short(finetune__epochs=1, finetune__centers_by=by, finetune__exaggeration=2.5), blobs(40))
    assert asked == ([] if by == "kmeans" else [2.5])


@pytest.mark.usefixtures("every_epoch")
def test_the_first_target_is_the_clusters_of_the_first_centers_and_outlives_a_kill() -> None:
    data = blobs(60)
    config = short(finetune__epochs=5, finetune__anchor_epochs=3, finetune__centers_by="kmeans")
    kept: list[Progress] = []
    whole, _, curve = train(
        config, data, hooks=dataclasses.replace(QUIET, save=lambda at: kept.append(copy.deepcopy(at)))
    )
    assert [len(at.weights["centers"]["first"]) for at in kept[:4]] == [60, 60, 60, 0]
    assert len(whole["centers"].first) == 0
    for at in kept:
        again, _, told = train(config, data, progress=at)
        assert told == curve
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers())
    model = nn.ModuleDict({"encoder": nn.Flatten(1), "centers": gcml.Centers(C, D).double()})
    settings = dataclasses.replace(config.stages["finetune"], center_points=30)
    gcml_state.first_centers(model, feed, settings, 0)
    first = model["centers"].first
    assert len(first) == 60 and all(len(set(first[data.train.y == c].tolist())) == 1 for c in range(C))
    target = gcml_state.observe(model, feed, settings, 2)["target"]
    assert torch.equal(target.argmax(1), first) and float(target.max(1).values.min()) == 1
    assert float(gcml_state.observe(model, feed, settings, 3)["target"].max()) < 1


def test_more_clusters_than_classes_split_classes() -> None:
    config = short(finetune__epochs=10, pretrain__epochs=30, finetune__start_epoch=5, finetune__continuation_epochs=8)
    data = blobs(120)
    model, feed, _ = train(config, data, n_clusters=5)
    labels = gcml.heads(model, feed.plain(data.train.x))[1].argmax(1)
    pure = sum(int(torch.bincount(data.train.y[labels == c]).max()) for c in torch.unique(labels))
    assert pure >= 0.95 * 120 and len(torch.unique(labels)) > C


def test_observation_leaves_no_gradient_and_counts_no_structure_before_its_start() -> None:
    data = blobs()
    feed = Feed.build(data, "none", torch.device("cpu"), torch.float64, False, Workers())
    model, _ = tiny()
    early, late = (gcml_state.observe(model, feed, SETTINGS, epoch) for epoch in (1, 2))
    assert set(early) == {"target", "labels"}
    assert set(late) == {"target", "labels", "input_means", "sizes", "neighbours", "distances"}
    assert not any(t.requires_grad for t in late.values())
    unranked = gcml_state.observe(model, feed, dataclasses.replace(SETTINGS, rank_weight=0.0), 2)
    assert set(late) - set(unranked) == {"input_means", "sizes"}
    x = data.train.x.double()
    for i, j in ((0, 0), (17, 1)):
        other = int(late["neighbours"][i, j])
        assert float(late["distances"][i, j]) == pytest.approx(math.dist(x[i], x[other]), rel=1e-12)
        assert late["labels"][i] == late["labels"][other] and other != i


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("alternating", [True, False])
def test_several_workers_give_the_losses_and_gradients_of_one(size: int, alternating: bool) -> None:
    alone = work.gcml_losses(None, np.arange(23), alternating=alternating)
    # Contiguous and uneven, as `rows_of` deals them.
    shards = np.array_split(np.arange(23), size)
    for found in on_workers(work.gcml_losses, shards, alternating=alternating):
        for name, (value, gradients) in alone.items():
            assert found[name][0] == pytest.approx(value, rel=1e-12), name
            for one, other in zip(gradients, found[name][1], strict=True):
                np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12, err_msg=name)


def test_bad_settings_are_named() -> None:
    for over, words in (
        ({"backbone": "resnet18_grey"}, "backbone"),
        ({"clustering": "ensc"}, "of directions"),
        ({"clustering": "kmeans"}, "finetune.epochs must be 0"),
        ({"finetune__epochs": 0}, "centres"),
        ({"backbone": "identity"}, "nothing to train"),
        ({"pretrain__augmentations": 2}, "one view"),
        ({"finetune__continuation_epochs": 8}, r"alpha cannot fall from epoch 8 .* to 0 at epoch 8; 0 keeps"),
        ({"finetune__start_epoch": 59, "finetune__continuation_epochs": 20}, "from epoch 59 .* to 0 at epoch 20"),
    ):
        with pytest.raises(InputError, match=words):
            METHOD.stages(config_of(**over))
    METHOD.stages(config_of(finetune__continuation_epochs=9))
    METHOD.stages(config_of(finetune__continuation_epochs=0))
    plain = {"backbone": "identity", "pretrain__epochs": 0, "finetune__epochs": 0, "clustering": "kmeans"}
    assert [stage.name for stage in METHOD.stages(config_of(**plain))] == ["pretrain"]


def test_too_few_points_for_the_geometry_are_named_before_training() -> None:
    with pytest.raises(InputError, match="geometry: 14 points are too few"):
        check_sizes(METHOD, short(), blobs(14), C)
    check_sizes(METHOD, short(geometry=False), blobs(14), C)
    check_sizes(METHOD, short(), blobs(16), C)
    with pytest.raises(InputError, match="finetune.center_points: 2 points cannot have 3"):
        check_sizes(METHOD, short(finetune__center_points=2), blobs(), C)


def test_what_changes_numbers_changes_the_key_and_n_clusters_not_that_of_the_autoencoder() -> None:
    def keys(n_clusters: int = C, **over: Value) -> list[str]:
        config, weights, found, key = short(**over), {}, [], None
        for stage in METHOD.stages(config):
            model = enter(METHOD, stage, config, (D,), n_clusters, weights, 0)
            key = stage_key(stage, config, model, "data", 0, key)
            weights = weights_of(model)
            found.append(key)
        return found

    plain = keys()
    assert keys(n_clusters=4)[0] == plain[0] and keys(n_clusters=4)[1] != plain[1]
    for over in ({"finetune__kappa": 2.0}, {"finetune__alternating": False}, {"finetune__neighbours": 3}):
        assert keys(**over)[0] == plain[0] and keys(**over)[1] != plain[1]
    assert keys(pretrain__noise=0.1)[0] != plain[0]


def test_check_and_smoke_reach_every_loss() -> None:
    data = datasets.load("digits")
    one_step(config_of(), data)
    config, few = shorten(config_of(), data)
    feed = Feed.build(few, "none", torch.device("cpu"), torch.float32, False, Workers())
    weights: Weights = {}
    for stage in METHOD.stages(config):
        model = enter(METHOD, stage, config, (1, 8, 8), 10, weights, 0)
        curve = fit(model, stage, config.stages[stage.name], feed, 0, QUIET)
        weights = weights_of(model)
    assert {"ranking", "isometry", "alignment"} <= set(curve[-1])


def test_stage_configs_of_a_frozen_configuration_are_not_shared() -> None:
    assert isinstance(config_of().stages, MappingProxyType)
