"""The keys `augment.…` and `pretrain.views_per_sample`: what they do to views, and where they are refused."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from raymc import ops
from raymc.bare_keys import Augment
from raymc.config import Config, Value, resolve
from raymc.datasets import POLICIES, Dataset, load
from raymc.datasets.augmentation import ImagePolicy
from raymc.datasets.base import Split, stored
from raymc.datasets.policy import build_policy, scaled
from raymc.distributed import Workers
from raymc.errors import InputError
from raymc.former_keys import say_once
from raymc.methods import METHODS
from raymc.ops.neighbours import nearest
from raymc.space.seeds import drawn, remarks, seeds_from
from raymc.space.space import load_space
from raymc.storage.stage_store import Store
from raymc.training import neighbours as module
from raymc.training.feature_bank import BankFeed, bank_key
from raymc.training.feed import Feed
from raymc.training.neighbours import Neighbours
from raymc.training.run import run
from raymc.training.smoke import limit, one_step, shorten
from raymc.training.stages import check_sizes, enter, seeds_of, stage_facts
from tests.worker_pool import on_workers

CPU, ALONE = torch.device("cpu"), Workers()
N, D = 120, 6
IMAGES = {name: policy for name, policy in POLICIES.items() if isinstance(policy, ImagePolicy)}
SHAPES = {"coil": (1, 64, 64), "digits": (1, 8, 8), "mnist": (1, 28, 28)}
NMCE: dict[str, Any] = {
    "backbone": "mlp", "pre_feature_dim": 0, "feature_dim": 4,
    "pretrain.epochs": 1, "heads.epochs": 1, "finetune.epochs": 0,
    "pretrain.batch_size": 40, "heads.batch_size": 40, "pretrain.similarity_weight": 5.0,
}  # fmt: skip


def vectors(n: int = N, stream: bool = False) -> Dataset:
    """Three blobs; columns of very different deviations, of which the last has none."""
    rows = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    x = torch.randn(n, D, generator=rows) + 4 * torch.nn.functional.one_hot(y, D)
    x = x * torch.tensor([1.0, 100.0, 0.01, 1.0, 5.0, 0.0]) + torch.arange(D)
    data = stored("blobs", Split(x, y), None, n_classes=3, split="all", source="drawn")
    return dataclasses.replace(data, stream=lambda generator, m: x[:m]) if stream else data


def config_of(method: str = "nmce", dataset: str = "usps", **over: Any) -> Config:
    keys = {key.replace("__", "."): value for key, value in over.items()}
    return resolve(method, dataset, "own", METHODS[method].stage_settings, NMCE if method == "nmce" else {}, keys)


def feed_of(data: Dataset, augment: Augment, workers: Workers = ALONE, store: Store | None = None) -> Feed:
    return Feed.build(data, "none", CPU, torch.float32, False, workers, augment=augment, store=store)


def many(data: Dataset, augment: Augment, times: int = 50) -> tuple[Tensor, Tensor]:
    """Samples, each so many times, and as many views of them."""
    policy, x = build_policy("none", augment, data, CPU), data.train.x.repeat(times, 1)
    kept = x.clone()
    view = policy.apply(x, policy.draw(torch.Generator().manual_seed(1), len(x), (D,)))
    assert torch.equal(x, kept) and torch.equal(policy.plain(x), kept)
    return x, view


def test_noise_is_in_units_of_a_column_s_deviation() -> None:
    data = vectors()
    x, view = many(data, Augment(noise=0.3))
    error = (view - x).double()
    wanted = 0.3 * data.train.x.double().std(0, correction=0)
    torch.testing.assert_close(error.std(0)[:-1], wanted[:-1], rtol=0.05, atol=0)
    assert float((error.mean(0)[:-1] / wanted[:-1]).abs().max()) < 0.05
    assert torch.equal(view[:, -1], x[:, -1]), "a constant column has no deviation"


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_dropout_sets_its_share_of_columns_to_their_mean(noise: float) -> None:
    data = vectors()
    x, view = many(data, Augment(dropout=0.2, noise=noise))
    mean = torch.from_numpy(data.train.x.numpy().astype(np.float64).mean(0)).float()
    dropped = (view == mean)[:, :-1]
    torch.testing.assert_close(dropped.double().mean(0), torch.full((D - 1,), 0.2).double(), rtol=0.1, atol=0)
    columns = dropped.double()
    joint = (columns[:, 0] * columns[:, 1]).mean()
    assert float(joint) == pytest.approx(0.04, rel=0.25), "columns are dropped each for itself"
    left = (view == x)[:, :-1] | dropped
    assert bool(left.all()) == (noise == 0)


def test_nothing_asked_is_the_policy_itself_bit_for_bit() -> None:
    data = vectors()
    for name in ("none", "noise_sphere"):
        assert build_policy(name, Augment(neighbours=3), data, CPU) is POLICIES[name]
    grey, colour = limit(load("digits"), 9), Split(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), None)
    coloured = stored("colour", colour, None, n_classes=2, split="all", source="drawn")
    assert all(
        build_policy(name, Augment(), coloured if policy.mean else grey, CPU) is policy
        for name, policy in IMAGES.items()
    )
    feed = feed_of(data, Augment())
    plain = Feed.build(data, "none", CPU, torch.float32, False, Workers())
    for one, other in zip(feed.epoch("pretrain", 0, 0, 40), plain.epoch("pretrain", 0, 0, 40), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def brute_force(x: Tensor, k: int) -> Tensor:
    """Distances float64 `[n, k]` to the k nearest others."""
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).sort(1).values[:, :k]


@pytest.mark.parametrize("k", [1, 5, 40, N - 1])
def test_neighbours_are_the_nearest_by_brute_force(k: int, tmp_path: Path) -> None:
    data = vectors()
    x = data.train.x
    table = Neighbours(data, x, k, Workers(), Store(str(tmp_path))).table
    assert table.shape == (N, k) and table.dtype == torch.int64
    assert not (table == torch.arange(N)[:, None]).any() and all(len(set(row.tolist())) == k for row in table)
    found = (x[table].double() - x[:, None].double()).norm(dim=2)
    torch.testing.assert_close(found, brute_force(x, k), rtol=1e-4, atol=1e-3)
    shares = torch.cat([nearest(x, k, rows)[0] for rows in torch.arange(N).split(50)])
    assert torch.equal(shares, nearest(x, k)[0])


def test_duplicates_by_the_hundred_are_neighbours_of_each_other() -> None:
    x = torch.cat([torch.full((300, D), 7.0), torch.randn(50, D, generator=torch.Generator().manual_seed(0))])
    data = stored("copies", Split(x, None), None, n_classes=2, split="all", source="drawn")
    table = Neighbours(data, x, 9, Workers(), None).table
    assert int(table[:300].max()) < 300 and not (table == torch.arange(350)[:, None]).any()
    feed = feed_of(data, Augment(neighbours=9))
    assert all(view.isfinite().all() for batch in feed.epoch("pretrain", 0, 0, 50) for view in batch.views)


def test_neighbours_are_found_once_and_again_where_the_file_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, searches = vectors(), []

    def counted(points: Tensor, k: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        searches.append(k)
        return nearest(points, k, rows)

    monkeypatch.setattr(module, "nearest", counted)

    def table(k: int, dataset: Dataset = data) -> Tensor:
        return Neighbours(dataset, dataset.train.x, k, Workers(), Store(str(tmp_path))).table

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(table, [5, 5])
    assert torch.equal(one, other) and searches == [32], "who meets another at it waits for that one"
    assert torch.equal(table(3), one[:, :3]) and searches == [32]
    assert table(40).shape == (N, 40) and searches == [32, 64]
    for file in tmp_path.rglob("*.pt"):
        file.write_bytes(b"torn")
    assert torch.equal(table(5), one) and len(searches) == 3
    table(5, dataclasses.replace(data, fingerprint="of others"))
    assert len(searches) == 4


def test_the_first_view_is_of_the_sample_and_later_ones_of_drawn_neighbours() -> None:
    data = vectors()
    x, feed = data.train.x, feed_of(data, Augment(neighbours=4))
    assert feed.neighbours is not None
    table, drawn_columns = feed.neighbours.table, []
    for epoch in range(20):
        for batch in feed.epoch("pretrain", 0, epoch, 40, 3):
            assert torch.equal(batch.views[0], x[batch.index])
            for view in batch.views[1:]:
                same = (x[table[batch.index]] == view[:, None]).all(2)
                assert bool((same.sum(1) == 1).all())
                drawn_columns.append(same.int().argmax(1))
            assert not torch.equal(batch.views[1], batch.views[2])
    shares = torch.cat(drawn_columns).bincount(minlength=4) / len(torch.cat(drawn_columns))
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0.1, atol=0)
    noisy, alone = (feed_of(data, Augment(noise=0.1, neighbours=k)) for k in (4, 0))
    for one, other in zip(noisy.epoch("pretrain", 0, 0, 40), alone.epoch("pretrain", 0, 0, 40), strict=True):
        assert torch.equal(one.views[0], other.views[0]) and not torch.equal(one.views[1], other.views[1])
    plain = next(iter(feed.epoch("pretrain", 0, 0, 40, 0)))
    assert len(plain.views) == 1 and torch.equal(plain.views[0], x[plain.index])


def views_by_worker(group: ProcessGroup | None, storage: str) -> list[list[np.ndarray]]:
    """The views of each step of two epochs."""
    workers = Workers(group.rank(), group.size(), group) if group else Workers()
    augment = Augment(noise=0.2, dropout=0.1, neighbours=6)
    feed = feed_of(vectors(), augment, workers, Store(storage))
    steps = [batch for epoch in (0, 1) for batch in feed.epoch("pretrain", 3, epoch, 41)]
    return [[view.numpy() for view in batch.views] for batch in steps]


def test_two_workers_see_the_views_of_one(tmp_path: Path) -> None:
    alone = views_by_worker(None, str(tmp_path / "one"))
    both = on_workers(views_by_worker, [str(tmp_path / "two")] * 2)
    again = on_workers(views_by_worker, [str(tmp_path / "two")] * 2)  # now from the store
    for found in (both, again):
        for step, views in enumerate(alone):
            for at, view in enumerate(views):
                assert np.array_equal(np.concatenate([worker[step][at] for worker in found]), view)


@dataclasses.dataclass(frozen=True)
class TwoViews:
    """A bank whose second view of a sample x is -1 - x."""

    data: Dataset

    @property
    def views(self) -> tuple[Tensor, ...]:
        x = self.data.train.x.to(torch.bfloat16)
        return x, -1 - x


@pytest.mark.parametrize("stacked", [False, True])
def test_views_of_a_bank_are_of_neighbours_too(stacked: bool) -> None:
    x = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:, None].float()  # exact in bfloat16
    data = stored("line", Split(x, None), None, n_classes=2, split="all", source="drawn")
    feed = BankFeed.of(feed_of(data, Augment(neighbours=2)), TwoViews(data))
    if stacked:
        feed.__dict__["stored"] = torch.stack(TwoViews(data).views)
    for batch in feed.epoch("heads", 0, 0, 50):
        far = [(torch.where(view < 0, -1 - view, view) - x[batch.index]).abs() for view in batch.views]
        assert bool((far[0] == 0).all()) and bool(((far[1] > 0) & (far[1] <= 2)).all())


@pytest.mark.parametrize("name", IMAGES)
def test_strength_scales_a_policy_between_none_and_twice(name: str) -> None:
    policy, shape = IMAGES[name], SHAPES.get(name, (3, 32, 32))
    x = torch.randint(0, 256, (7, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert scaled(policy, 1.0) is policy
    none = scaled(policy, 0.0)
    assert torch.equal(none.apply(x, none.draw(torch.Generator().manual_seed(0), 7, shape)), policy.plain(x))
    # The limit at 0 is no other policy: what is drawn last fades.
    weak = scaled(policy, 1e-4)
    weak = dataclasses.replace(weak, flip=0.0, grey=0.0, solarise=0.0)
    view = weak.apply(x, weak.draw(torch.Generator().manual_seed(0), 7, shape))
    torch.testing.assert_close(view, policy.plain(x), rtol=0, atol=0.05)
    strong = scaled(policy, 2.0)
    params = strong.draw(torch.Generator().manual_seed(0), 7, shape)
    assert strong.apply(x, params).isfinite().all()
    moves = [
        float((p.apply(x, p.draw(torch.Generator().manual_seed(2), 7, shape)) - p.plain(x)).abs().mean())
        for p in (none, scaled(policy, 0.3), policy)
    ]
    assert moves[0] == 0 < moves[1] < moves[2]


def test_how_each_parameter_is_scaled() -> None:
    half = scaled(IMAGES["cifar"], 0.5)
    assert half.crop == pytest.approx((0.54, 1.0)) and half.aspect == pytest.approx(math.sqrt(4 / 3))
    assert (half.flip, half.grey, half.jitter_share) == (0.25, 0.1, 0.8)
    assert half.jitter == pytest.approx((0.2, 0.2, 0.2, 0.05)) and half.mean == IMAGES["cifar"].mean
    double = scaled(IMAGES["cifar"], 2.0)
    assert double.crop == pytest.approx((0.02, 1.0)) and double.flip == 0.5 and double.grey == pytest.approx(0.4)
    assert scaled(IMAGES["digits"], 0.5).affine == pytest.approx((7.5, 0.06, 0.9, 1.1, 7.5))
    assert scaled(IMAGES["digits"], 0.5).noise == pytest.approx(0.05)
    assert scaled(IMAGES["coil"], 0.5).perspective == pytest.approx((0.15, 0.6))
    emp = scaled(IMAGES["emp_ssl"], 0.5)
    assert emp.crop == pytest.approx((0.625, 0.625)) and (emp.solarise, emp.blur_share) == (0.05, 0.1)
    assert emp.blur == pytest.approx((0.05, 1.0)) and emp.aspect == 1


def test_crops_of_emp_ssl_are_quarters_and_solarise_is_torchvision_s() -> None:
    F = pytest.importorskip("torchvision.transforms.v2.functional")
    policy, n = IMAGES["emp_ssl"], 4000
    params = policy.draw(torch.Generator().manual_seed(0), n, (3, 32, 32))
    assert bool((params["box"][:, 2:] == 16).all()) and set(params["box"][:, 0].tolist()) == set(range(17))
    shares = {name: float(params[name].double().mean()) for name in ("flip", "grey", "solarise")}
    assert shares == {"flip": pytest.approx(0.5, abs=0.03), "grey": pytest.approx(0.2, abs=0.03),
                      "solarise": pytest.approx(0.1, abs=0.02)}  # fmt: skip
    assert float((params["sigma"] > 0).double().mean()) == pytest.approx(0.1, abs=0.02)
    from raymc.datasets import image_ops

    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    found = image_ops.solarise(x.float() / 255, torch.tensor([True, False]))
    wanted = torch.stack([F.solarize(x[0], 128), x[1]])
    torch.testing.assert_close(found, wanted.float() / 255, rtol=0, atol=1e-6)


def test_two_views_are_bit_for_bit_what_they_were() -> None:
    rows = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(30, 5, generator=rows), dim=1) for _ in range(2))
    rate = torch.stack([ops.coding_rate(view, 0.2) for view in (a, b)]).mean()
    pair = ops.cosine_similarity_mean(a, b)
    loss, terms = ops.tcr_objective((a, b), 0.2, 30.0)
    assert torch.equal(terms["similarity"], -30.0 * torch.stack([pair]).mean()) and torch.equal(terms["rate"], -rate)
    assert torch.equal(loss, torch.stack([-rate, -30.0 * pair]).sum())


def test_many_views_are_compared_with_their_mean() -> None:
    rows = np.random.default_rng(0)
    z = rows.normal(size=(5, 12, 4))
    z /= np.linalg.norm(z, axis=2, keepdims=True)
    mean = z.mean(0)
    cosines = (z * mean).sum(2) / (np.linalg.norm(z, axis=2) * np.linalg.norm(mean, axis=1))
    rates = [0.5 * np.linalg.slogdet(np.eye(4) + 4 / (12 * 0.2) * v.T @ v)[1] for v in z]
    views = [torch.from_numpy(v) for v in z]
    loss, terms = ops.tcr_objective(views, 0.2, 200.0)
    assert float(terms["similarity"]) == pytest.approx(-200 * cosines.mean(), rel=1e-12)
    assert float(loss) == pytest.approx(-200 * cosines.mean() - np.mean(rates), rel=1e-12)
    absolute = ops.tcr_objective(views, 0.2, 200.0, "average")[1]["similarity"]
    assert float(absolute) == pytest.approx(-200 * np.abs(cosines).mean(), rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda *v: ops.tcr_objective(v, 0.2, 3.0)[0], [v.clone().requires_grad_() for v in views]
    )
    order = [views[i] for i in (3, 0, 4, 1, 2)]
    assert float(ops.tcr_objective(order, 0.2, 200.0)[0]) == pytest.approx(float(loss), rel=1e-12)
    half = ops.similarity_to_mean([v.bfloat16() for v in views])
    assert half.dtype == torch.float32 and float(half) == pytest.approx(cosines.mean(), abs=1e-2)


def facts_of(config: Config, at: int = 0, data: Dataset | None = None) -> dict[str, object]:
    data = data or vectors()
    stage = METHODS[config.method].stages(config)[at]
    of = dataclasses.replace(stage, fresh=(), copies=(), drop=())
    model = enter(METHODS[config.method], of, config, tuple(data.train.x.shape[1:]), 3, {}, 0)
    return stage_facts(stage, config, model, data.fingerprint, 0, None)


def test_a_stage_s_key_has_what_differs_and_acts() -> None:
    assert Augment().keyed(2) == {} and Augment(noise=0.1, neighbours=3, strength=0.5).keyed(0) == {}
    assert Augment(noise=0.1, neighbours=3).keyed(1) == {"noise": 0.1}
    assert Augment(dropout=0.1, neighbours=3).keyed(2) == {"dropout": 0.1, "neighbours": 3}
    plain = facts_of(config_of(augmentation="noise_sphere"))
    assert "augment" not in plain and "views_per_sample" not in plain["settings"]  # type: ignore[operator]
    with_noise = facts_of(config_of(augmentation="noise_sphere", augment__noise=0.1))
    assert with_noise == plain | {"augment": {"noise": 0.1}}
    three = facts_of(config_of(augmentation="noise_sphere", pretrain__views_per_sample=3))
    assert three["settings"] == plain["settings"] | {"views_per_sample": 3}  # type: ignore[operator]
    net = torch.nn.Linear(2, 2)
    configs = [config_of(**{f"augment__{key}": value}) for key, value in
               {"noise": 0.0, "neighbours": 5, "dropout": 0.1, "strength": 0.5}.items()]  # fmt: skip
    keys = [bank_key(config, vectors(), net) for config in configs]
    assert keys[0] == keys[1] and len(set(keys)) == 3, "a bank's views are of the samples themselves"


def test_a_seed_varies_views_that_differ() -> None:
    first = METHODS["nmce"].stages(config_of(pretrain__similarity_weight=0))[0]
    for over, varies in (({}, False), ({"augment__neighbours": 3}, True), ({"augment__noise": 0.1}, True)):
        assert ("augmentation" in drawn(first, config_of(**over))) == varies


def test_trainings_on_vectors_and_their_short_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors()
    monkeypatch.setattr("raymc.datasets.load_once", lambda config, root: data)
    config = config_of(augment__neighbours=20, augment__noise=0.1, augment__dropout=0.1, heads__feature_bank=2)
    seeds = seeds_of(tuple(METHODS["nmce"].stage_settings), 0, 0, None)

    def train(name: str, **more: Any) -> dict[str, Any]:
        return run(config, storage=str(tmp_path / "store"), out=tmp_path / name, stage_seeds=seeds, **more)

    first = train("a")
    assert math.isfinite(first["metrics"]["acc"])
    monkeypatch.setattr(module, "nearest", lambda *args: pytest.fail("searched for again"))
    again = train("b")
    assert [stage["cached"] for stage in again["stages"][:2]] == [True, True]
    assert again["metrics"] == first["metrics"]
    monkeypatch.undo()
    one_step(dataclasses.replace(config, augment=Augment(neighbours=N - 1)), data)
    short, few = shorten(dataclasses.replace(config, augment=Augment(neighbours=N - 1)), limit(data, 50))
    assert short.augment.neighbours == len(few.train) - 1 == 49


VIEWS = "nothing augments the samples, so that their views are the same and their similarity is a constant"
REFUSED: list[tuple[str, Dataset, dict[str, Value], str]] = [
    ("nmce", vectors(), {"augment__neighbours": N}, f"augment.neighbours: {N} is more than the {N - 1} others of a"),
    ("nmce", vectors(), {"augment__strength": 0.5, "augment__noise": 1}, "augment.strength scales a policy of images"),
    ("nmce", vectors(stream=True), {"augment__neighbours": 3}, "augment.neighbours: the samples of blobs are made wh"),
    *(
        ("nmce", limit(load("digits"), 50), {f"augment__{key}": 0.5 if key != "neighbours" else 3}, f"augment.{key} is")
        for key in ("noise", "dropout", "neighbours")
    ),
    ("nmce", limit(load("digits"), 50), {"augment__strength": 0.5, "pretrain__similarity_weight": 0}, "has nothing th"),
    *(
        (name, vectors(), {"augmentation": "cifar", **over}, "augmentation: cifar is for images, and blobs holds vec")
        for name, over in (("nmce", {}), ("nmce", {"augment__strength": 0.5}), ("gcml", {}))
    ),
    ("nmce", limit(load("digits"), 50), {"augmentation": "cifar"}, "cifar is for 3 colours, and digits has 1"),
    ("nmce", vectors(), {"augmentation": "cifr"}, "augmentation: 'cifr' is not one of none, cifar"),
    ("nmce", vectors(), {}, f"pretrain.similarity_weight: {VIEWS}; set augmentation (vectors: or augment.noise, "),
    ("nmce", vectors(), {"pretrain__epochs": 0, "heads__similarity_weight": 1}, f"heads.similarity_weight: {VIEWS}"),
    ("nmce", limit(load("digits"), 50), {"augmentation": "digits", "augment__strength": 0}, f"_weight: {VIEWS}"),
    ("mlc", vectors(), {"clustering": "membership", "pretrain__similarity_weight": 1}, f"similarity_weight: {VIEWS}"),
    ("gcml", vectors(), {"augment__neighbours": 3, "pretrain__augmentations": 1, "finetune__augmentations": 1},
     "augment.neighbours: no stage of this training takes a second view of a sample"),
    ("gcml", vectors(), {"augment__noise": 0.1, "pretrain__augmentations": 0, "finetune__augmentations": 0},
     "augment.noise: no stage of this training takes augmented views (augmentations: 0)"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "data", "over", "told"), REFUSED, ids=[f"{one[0]}-{one[2]}" for one in REFUSED])
def test_what_cannot_be_is_one_line(method: str, data: Dataset, over: dict[str, Value], told: str) -> None:
    base = {"backbone": "dense_256", "finetune__continuation_epochs": 0} if method == "gcml" else {}
    with pytest.raises(InputError) as caught:
        check_sizes(METHODS[method], config_of(method, **base, **over), data, 3)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("augment.nois", 0.1, "unknown key augment.nois of nmce; did you mean augment.noise?"),
        ("augment.noise", -0.1, "augment.noise: -0.1 is below 0"),
        ("augment.dropout", 1.0, "augment.dropout: 1.0 is above 0.99"),
        ("augment.neighbours", 2.5, "augment.neighbours: 2.5 is not a whole number"),
        ("augment.strength", 3, "augment.strength: 3 is above 2"),
        ("pretrain.views_per_sample", 1, "pretrain.views_per_sample: 1 is below 2"),
        ("pretrain.augmentations", 1, "pretrain.views_per_sample: 1 is below 2"),
        ("seeds_from", "augment", "seeds_from: 'augment' is not one of pretrain, heads, finetune"),
    ],
)
def test_values_are_checked(key: str, value: Value, words: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve("nmce", "digits", "paper", METHODS["nmce"].stage_settings, {key: value})
    assert str(caught.value).startswith(words)


def test_keys_are_searched_fixed_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "method: nmce\ndataset: digits\nfixed: {pretrain.views_per_sample: 3}\n"
        "space: {augment.strength: {low: 0.25, high: 1.5}, heads.eps_sq: {low: 0.1, high: 0.5}}\n"
    )
    space = load_space(path)
    assert space.first == ({"augment.strength": 1.0, "heads.eps_sq": 0.2},) and not remarks(space)
    assert seeds_from(space, space.config()) == "pretrain"
    config = space.config(params={"augment.strength": 0.5})
    assert config.augment.strength == 0.5 and config.flat()["augment.strength"] == 0.5
    assert config.stages["pretrain"].augmentations == 3
    pinned = space.pinned({"augment.strength": 0.7})
    assert list(pinned.params) == ["heads.eps_sq"] and pinned.config().augment.strength == 0.7


def test_the_former_name_of_views_per_sample_is_accepted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="seed groups need it")
    from raymc.stability.configurations import overrides_by_method

    say_once.cache_clear()
    head, searched = "method: nmce\ndataset: digits\n", "{choices: [2, 4]}"
    texts = []
    for name in ("pretrain.views_per_sample", "pretrain.augmentations"):
        texts += [f"{head}fixed: {{{name}: 4}}", f"{head}space: {{{name}: {searched}}}\nfirst: [{{{name}: 4}}]"]
    spaces = []
    for text in texts:
        (tmp_path / "mine.yaml").write_text(text)
        spaces.append(load_space(tmp_path / "mine.yaml"))
    for now, before in zip(spaces[:2], spaces[2:], strict=True):
        assert (now.fixed, now.params, now.first) == (before.fixed, before.params, before.first)
    assert spaces[3].pinned({"pretrain.augmentations": 4}).config().stages["pretrain"].augmentations == 4
    told = capsys.readouterr().err.splitlines()
    assert told == ["raymc: pretrain.augmentations is called pretrain.views_per_sample now; the old name is accepted"]
    found = overrides_by_method({"pretrain.augmentations": 2}, ["nmce", "gcml"])
    assert found == {"nmce": {"pretrain.views_per_sample": 2}, "gcml": {"pretrain.augmentations": 2}}
    with pytest.raises(InputError, match=r"unknown key pretrain\.augmentation of nmce"):
        overrides_by_method({"pretrain.augmentation": 2}, ["nmce"])


def test_a_run_of_before_has_the_settings_that_its_key_was_called_by(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="seed groups need it")
    from raymc.stability.configurations import configuration

    one = configuration("nmce_digits", {}, str(tmp_path))
    before = {key: value for key, value in one.settings.items() if not key.startswith("augment.")}
    before["pretrain.augmentations"] = before.pop("pretrain.views_per_sample")
    assert one.has(one.settings) and one.has(before)
    assert not one.has(before | {"pretrain.augmentations": 3}) and not one.has(before | {"augment.strength": 0.5})
