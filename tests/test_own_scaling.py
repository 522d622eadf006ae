"""How vectors are scaled: by the training rows alone, the same everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymc.config import Config
from raymc.datasets import Split, load, load_for
from raymc.datasets.scaling import WORDS, fit, scaled
from raymc.errors import InputError
from tests.own_data import RNG, D, N, X, Y, npz, read


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [1, 2, 50])
def test_figures_taken_by_blocks_are_numpy_s_to_the_last_bit(columns: int, order: Any) -> None:
    x = np.asarray(RNG.normal(size=(20_000, columns)) * 7 + 3, np.float32, order=order)
    found, whole = fit(x, "standardise"), x.astype(np.float64)
    assert np.array_equal(found.shift, whole.mean(0)) and np.array_equal(found.width, whole.std(0))
    assert found(x).numpy().tobytes() == ((whole - found.shift) / found.width).astype(np.float32).tobytes()


def test_vectors_are_standardised_unless_told_otherwise(tmp_path: Path) -> None:
    path = npz(tmp_path / "rows.npz")
    data = read(path)
    assert data.train.x.dtype == torch.float32 and len(data.train) == data.epoch_size == N and data.test is None
    x = data.train.x.double()
    torch.testing.assert_close(x.mean(0), torch.zeros(D).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(x.std(0, unbiased=False), torch.ones(D).double(), rtol=0, atol=1e-6)
    assert data.split == f"all, {N}; {WORDS['standardise']}" and WORDS["standardise"] in data.source
    small = read(path, "minmax")
    assert torch.equal(small.train.x.amin(0), torch.zeros(D)) and torch.equal(small.train.x.amax(0), torch.ones(D))
    plain = read(path, "none")
    assert np.array_equal(plain.train.x.numpy(), X.astype(np.float32)) and plain.split.endswith("columns as they are")
    assert len({one.fingerprint for one in (data, small, plain)}) == 3
    assert read(path, "standardise").fingerprint == data.fingerprint


@pytest.mark.parametrize("how", ["standardise", "minmax"])
def test_constant_columns_become_0_and_coarse_ones_keep_their_digits(tmp_path: Path, how: str) -> None:
    seconds = 1.7e9 + np.arange(N) / 8  # float32 knows them to 128 only
    x = np.stack([np.full(N, 0.1), np.full(N, 1e-300), 1e-300 * Y, seconds, seconds - 1.7e9], 1)
    data = read(npz(tmp_path / "rows.npz", x), how)
    assert bool(data.train.x.isfinite().all())
    assert not data.train.x[:, :2].any()
    torch.testing.assert_close(data.train.x[:, 3], data.train.x[:, 4], rtol=0, atol=1e-5)


def test_new_rows_are_scaled_by_the_figures_of_the_training_rows(tmp_path: Path) -> None:
    data = read(npz(tmp_path / "rows.npz"))
    assert data.scaling is not None
    assert torch.equal(data.scaling(X[3:5]), data.train.x[3:5])
    assert torch.equal(data.scaling(X[:1] + 1), fit(X, "standardise")(X[:1] + 1))


def test_known_vectors_may_be_scaled_and_images_may_not() -> None:
    sphere = load("sphere")
    data = load_for(Config(method="mlc", dataset="sphere", scaling="standardise"))
    assert data.train.x.mean(0).abs().max() < 1e-6 and data.fingerprint != sphere.fingerprint
    for how in (None, "none"):
        assert load_for(Config(method="mlc", dataset="sphere", scaling=how)).fingerprint == sphere.fingerprint
    with pytest.raises(InputError, match="scaling: minmax is for vectors, and digits holds images; leave it null"):
        load_for(Config(method="nmce", dataset="digits", scaling="minmax"))


def test_a_stream_is_scaled_as_its_evaluation_set_is() -> None:
    plain = load("double_spiral")
    data = scaled(plain, "minmax")
    assert data.stream is not None and plain.stream is not None and data.scaling is not None
    drawn, raw = (one(torch.Generator().manual_seed(0), 50) for one in (data.stream, plain.stream))
    assert torch.equal(drawn, data.scaling(raw.numpy())) and not torch.equal(drawn, raw)
    assert len({one.fingerprint for one in (plain, data, scaled(plain, "standardise"))}) == 3


def test_scaling_uses_the_training_rows_alone() -> None:
    sphere = load("sphere")
    parts = [Split(sphere.train.x[rows], None) for rows in (slice(0, 150), slice(150, 200))]
    data = scaled(dataclasses.replace(sphere, train=parts[0], test=parts[1]), "standardise")
    assert data.train.x.mean(0).abs().max() < 1e-6 and data.test is not None
    assert torch.equal(data.test.x, fit(parts[0].x.numpy(), "standardise")(parts[1].x.numpy()))
