"""What a dataset's record holds, and the sources without files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raymc.datasets import Split, fingerprint, load
from raymc.datasets.catalogue import SOURCES
from raymc.datasets.synthetic import labels, random_networks, spiral_points


def test_a_fingerprint_follows_bytes_shape_and_type() -> None:
    x = torch.arange(24, dtype=torch.uint8)
    shapes = {fingerprint(x), fingerprint(x.view(4, 6)), fingerprint(x.view(6, 4)), fingerprint(x.view(6, 4).float())}
    assert len(shapes) == 4
    assert fingerprint(x.view(4, 6).t()) == fingerprint(x.view(4, 6).t().contiguous())


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 4, dtype=torch.uint8), None),
        (torch.zeros(3, 4, dtype=torch.float64), None),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(3, 4), torch.zeros(3)),
    ],
)
def test_a_split_holds_images_or_vectors(x: torch.Tensor, y: torch.Tensor | None) -> None:
    with pytest.raises(ValueError):
        Split(x, y)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data = load("digits")
    assert data.test is not None and data.test.y is not None and data.train.y is not None
    x = torch.cat([data.train.x, data.test.x])
    assert (len(data.train), len(data.test), data.n_classes) == (1437, 360, 10)
    assert np.abs(x[:, 0].numpy() / 255 * 16 - bunch.images).max() <= 0.5 / 255 * 16 + 1e-9
    assert torch.cat([data.train.y, data.test.y]).tolist() == bunch.target.tolist()
    assert fingerprint(data.train.x) == data.fingerprint


def test_spiral_arms_lie_on_their_curve_and_mirror_each_other() -> None:
    x = spiral_points(torch.Generator().manual_seed(1), 2000, 0.0)
    arm = x * (1 - 2 * labels(2000))[:, None]
    radius = arm.norm(dim=1)
    turned = torch.remainder(torch.atan2(arm[:, 1], arm[:, 0]) - radius, 2 * math.pi)
    assert torch.minimum(turned, 2 * math.pi - turned).max() < 1e-4
    assert 1.5 * math.pi <= radius.min() and radius.max() <= 4.5 * math.pi + 1e-4
    noise = spiral_points(torch.Generator().manual_seed(1), 2000, 0.1) - x
    assert abs(noise.std() - 0.1) < 0.01


@pytest.mark.parametrize("name", ["double_spiral", "manifolds", "manifolds_unidentifiable"])
def test_a_stream_is_fresh_and_repeatable(name: str) -> None:
    data = load(name)
    assert data.stream is not None and data.train.y is not None
    first = data.stream(torch.Generator().manual_seed(3), 64)
    assert torch.equal(first, data.stream(torch.Generator().manual_seed(3), 64))
    assert not torch.equal(first, data.stream(torch.Generator().manual_seed(4), 64))
    assert first.shape[1:] == data.train.x.shape[1:] == SOURCES[name].shape
    assert len(data.train) == 4096 and data.epoch_size == 409_600 and data.train.y.bincount().tolist() == [2048, 2048]
    assert torch.equal(load(name).train.x, data.train.x)


def test_streams_differ_in_their_fingerprints() -> None:
    names = ("double_spiral", "double_spiral_paper", "manifolds", "manifolds_unidentifiable")
    assert len({load(name).fingerprint for name in names}) == 4


@pytest.mark.parametrize(("name", "noise"), [("sphere", 0.05**0.5), ("sphere_sd05", 0.05)])
def test_the_sphere_has_a_curve_around_its_equator_and_its_pole(name: str, noise: float) -> None:
    data = load(name)
    x, y = data.train.x, data.train.y
    assert x.shape == (200, 3) and y is not None and y.tolist() == [0] * 100 + [1] * 100
    assert data.test is None and data.stream is None and data.split == "all, 200" and data.epoch_size == 200
    wanted = []
    for i in range(1, 101):
        p = 2 * math.pi * i / 100
        a = 0.2 * math.sin(5 * p)
        wanted.append([math.cos(a) * math.cos(p), math.cos(a) * math.sin(p), math.sin(a)])
    clean = torch.tensor(wanted + [[0.0, 0.0, 1.0]] * 100)
    for part in (x - clean)[:100], (x - clean)[100:]:
        assert abs(part.std() / noise - 1) < 0.1 and part.mean(0).abs().max() < 0.3 * noise
    assert torch.equal(load(name).train.x, x)


def test_the_two_spheres_differ_in_their_fingerprints() -> None:
    assert load("sphere").fingerprint != load("sphere_sd05").fingerprint


def test_manifolds_are_apart_with_biases_and_meet_in_zero_without() -> None:
    def gap(name: str) -> tuple[float, float]:
        data = load(name)
        x, y = data.train.x, data.train.y
        assert y is not None
        return float(torch.cdist(x[y == 0], x[y == 1]).min()), float(x.norm(dim=1).min())

    apart, _ = gap("manifolds")
    near, origin = gap("manifolds_unidentifiable")
    # Augmentation noise of 0.1 in 16 dimensions has length 0.4.
    assert apart > 3 and near < 0.2 and origin < 0.1
    crossing = load("manifolds_unidentifiable").train
    for label in (0, 1):  # half of each is no farther from 0 than the noise is long
        assert crossing.y is not None and crossing.x[crossing.y == label].norm(dim=1).median() < 0.4
    for network in random_networks(2022, biases=False):
        assert all(not bias.any() for _, bias in network)
