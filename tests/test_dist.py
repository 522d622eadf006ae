"""Several workers against one process: different, unequal rows on each worker, compared in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raymc import distributed as dist
from raymc.nets.batchnorm import GlobalBatchNorm, synchronise_batchnorm
from tests import worker_functions as work
from tests.worker_pool import on_workers

SIZES = (1, 2, 3)


def views(n: int = 41, seed: int = 0) -> np.ndarray:
    """Two views `[2, n, 5]` whose rows drift along n, so that shards differ in mean and in spread."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)) * np.linspace(0.3, 3, n)[:, None] + np.linspace(-2, 2, n)[:, None]
    return np.stack([x, x + 0.1 * rng.normal(size=(n, 5))])


def shards(x: np.ndarray, size: int, axis: int = 0) -> list[np.ndarray]:
    n = x.shape[axis]
    return [np.take(x, range(*dist.rows_of(n, rank, size).indices(n)), axis) for rank in range(size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batchnorm"])
@pytest.mark.parametrize("name", sorted(work.objectives()))
def test_loss_and_averaged_gradient_equal_one_process(name: str, norm: bool, size: int) -> None:
    x = views()
    loss, gradients = work.loss_and_gradients(None, x, name, norm=norm)
    for found, grads in on_workers(work.loss_and_gradients, shards(x, size, 1), name=name, norm=norm):
        assert found == pytest.approx(loss, rel=1e-12)
        for mine, expected in zip(grads, gradients, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["mlc", "nmce", "tcr_separate"])
def test_distributed_data_parallel_averages_to_one_process_s_gradient(name: str, size: int) -> None:
    x = views()
    _, gradients = work.loss_and_gradients(None, x, name)
    for found in on_workers(work.distributed_data_parallel, shards(x, size, 1), name=name):
        for mine, expected in zip(found, gradients, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["mlc", "mlc_published", "nmce", "sinkhorn_alike", "sinkhorn_columns", "sinkhorn_rows"]
)
def test_a_worker_with_few_rows_and_one_with_none(name: str) -> None:
    x = views()
    loss, gradients = work.loss_and_gradients(None, x, name)
    for found, grads in on_workers(work.loss_and_gradients, np.split(x, [38, 41], 1), name=name):
        assert found == pytest.approx(loss, rel=1e-12)
        for mine, expected in zip(grads, gradients, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mlc", "nmce"])
def test_shards_without_the_group_would_be_another_loss(name: str) -> None:
    """The check above has power: a loss per shard is nine orders of magnitude further off than its tolerance."""
    x = views()
    whole, _ = work.loss_and_gradients(None, x, name)
    parts = [work.loss_and_gradients(None, part, name)[0] for part in shards(x, 2, 1)]
    assert abs(np.mean(parts) - whole) > 1e-3


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [(11, 3), (7, 3, 4), (5, 3, 2, 3)], ids=["rows", "series", "images"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batchnorm_is_that_of_the_global_batch(shape: tuple[int, ...], momentum: float | None, size: int) -> None:
    x = np.random.default_rng(3).normal(size=shape) + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    one = work.batch_norm(None, x, momentum)
    several = on_workers(work.batch_norm, shards(x, size), momentum=momentum)
    for name, expected in (("out", one["out"]), ("rows", size * one["rows"]), ("eval", one["eval"])):
        found = np.concatenate([result[name] for result in several])
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for result in several:
        assert result["state"].keys() == one["state"].keys()
        for key, expected in one["state"].items():
            np.testing.assert_allclose(result["state"][key], expected, rtol=1e-12)
        for mine, expected in zip(result["gradients"], one["gradients"], strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


def test_synchronising_keeps_parameters_and_refuses_a_bare_norm() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)))
    before = [id(p) for p in model.parameters()]
    group = object()
    synchronise_batchnorm(model, group)  # type: ignore[arg-type]
    assert isinstance(model[1][0], GlobalBatchNorm)
    assert [id(p) for p in model.parameters()] == before
    with pytest.raises(ValueError, match="holds the BatchNorm"):
        synchronise_batchnorm(nn.BatchNorm1d(3), group)  # type: ignore[arg-type]


def test_global_batchnorm_without_rows_to_compare() -> None:
    norm = GlobalBatchNorm(3)
    with pytest.raises(ValueError, match="more than one value"):
        norm(torch.ones(1, 3))
    with pytest.raises(ValueError, match="axes"):
        norm(torch.ones(3))


@pytest.mark.parametrize("size", SIZES)
def test_gathered_rows_and_their_gradient(size: int) -> None:
    x = np.random.default_rng(1).normal(size=(8, 2))
    one = work.gathered(None, x)
    several = on_workers(work.gathered, shards(x, size))
    for result in several:
        np.testing.assert_array_equal(result["rows"], x)
    found = np.concatenate([result["gradient"] for result in several])
    np.testing.assert_allclose(found, size * one["gradient"], rtol=1e-12)


def test_gathering_labels_when_a_worker_has_none() -> None:
    for result in on_workers(work.gathered_labels, [np.arange(3), np.arange(0)]):
        np.testing.assert_array_equal(result, [0, 1, 2])


def test_average_of_gradients_of_several_types() -> None:
    values = np.arange(5.0)
    for result in on_workers(work.averaged, [values, values + 4]):
        np.testing.assert_array_equal(result[0], values + 2)
        np.testing.assert_array_equal(result[1], values + 2)
        assert result[2] is None
        np.testing.assert_array_equal(result[3], np.full((3, 2), 2.0))


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_averaged_during_backward(size: int) -> None:
    """Also where layers have none, in two passes, after a failure, and by two updates of the same weights."""
    x = views()[0]
    one = work.averaged_during_backward(None, x)
    for found in on_workers(work.averaged_during_backward, shards(x, size)):
        for name in ("whole", "partial", "partial_of_all", "twice"):
            for mine, expected in zip(found[name], one[name], strict=True):
                assert (mine is None) == (expected is None)
                if mine is not None:
                    np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)
        assert found["unused"] == [None, None] and found["refused"]
    for twice, once in zip(one["twice"], one["whole"], strict=True):
        np.testing.assert_allclose(twice, 2 * once)


def test_counts_that_are_known_are_checked() -> None:
    assert dist.shard_sizes(7, 3) == (3, 2, 2)
    for said in on_workers(work.wrong_counts, [np.ones((2, 1)), np.ones((2, 1))]):
        assert said == "this worker holds 2 rows, not 3"


def test_buckets_keep_order_and_part_by_size_and_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "BUCKET_BYTES", 20)
    grads = [torch.zeros(4), torch.zeros(4), torch.zeros(1), torch.zeros(1, dtype=torch.float64)]
    assert [len(bucket) for bucket in dist._buckets(grads)] == [2, 1, 1]


@pytest.mark.parametrize(("n", "size"), [(10, 3), (2, 3), (0, 2), (9, 3), (7, 1)])
def test_shards_cover_all_rows_once_and_evenly(n: int, size: int) -> None:
    parts = [list(range(n))[dist.rows_of(n, rank, size)] for rank in range(size)]
    assert sum(parts, []) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_needs_no_group() -> None:
    x = torch.ones(2, 3)
    assert dist.world(None) == (0, 1)
    assert dist.sum_over_workers(x, None) is x
    assert dist.gather_rows(x, None) is x
    assert dist.broadcast_object("a", None) == "a"
    dist.barrier(None)
    assert dist.Workers() == dist.Workers(0, 1, None)


def test_objects_reach_every_worker() -> None:
    assert on_workers(work.agreed, [1, 2, 3]) == [("said by 1", rank, 3) for rank in range(3)]


@pytest.mark.parametrize(("how", "found"), [("computes", "there"), ("asks", "there"), ("blocked", "worker 0 hangs: ")])
def test_a_worker_that_is_blocked_is_found_and_one_that_computes_for_long_is_waited_for(
    how: str, found: str, tmp_path: Path
) -> None:
    told = on_workers(work.waiting, [how] * 3, store=str(tmp_path / "store"))
    assert told[0] == "there" and all(one.startswith(found) for one in told[1:]), told
