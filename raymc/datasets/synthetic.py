"""Sources without files: double spiral, two random manifolds, a curve on the sphere, scikit-learn's digits.

The first two are streams: every batch is drawn anew from the generator that the caller gives, and
`Dataset.train` is a fixed set of 4096 labelled points for evaluation. Row i belongs to class i mod 2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from raymc.datasets.base import Dataset, Split, stored

EVALUATION_POINTS = 4096
EPOCH_POINTS = 100 * 4096  # what a stream counts as an epoch: 100 steps at the papers' batch size
EVALUATION_SEED = 20_211_115
NETWORK_SEED = 2022
MANIFOLD_DIMS = (3, 6)
HIDDEN = 64
AMBIENT = 16
SPHERE_POINTS = 100  # of each of the two manifolds
SPHERE_WAVE = (0.2, 5)  # MLC's A and ω


def spiral_points(generator: torch.Generator, n: int, noise: float) -> Tensor:
    """`[n, 2]` float32: an Archimedean spiral (even rows) and its mirror image through 0 (odd rows).

    Angle t = 3π/2 (1 + 2u), u uniform, which is also the radius (4.7 to 14.1), as columns 0 and 2 of
    scikit-learn's `make_swiss_roll` have it; N(0, noise²) is added to each coordinate.
    """
    t = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=generator))
    arm = torch.stack([t * t.cos(), t * t.sin()], 1) + noise * torch.randn(n, 2, generator=generator)
    return arm * sides(n)[:, None]


def sides(n: int) -> Tensor:
    """+1 for even, -1 for odd rows, float32 `[n]`."""
    return 1.0 - 2.0 * labels(n)


def labels(n: int) -> Tensor:
    """Class of each row of a stream: 0 for even, 1 for odd rows, int64 `[n]`."""
    return torch.arange(n) % 2


def manifold_points(generator: torch.Generator, n: int, networks: list[list[tuple[Tensor, Tensor]]]) -> Tensor:
    """`[n, AMBIENT]` float32: N(0, I) of 3 (even rows) or 6 dimensions (odd rows) through its network."""
    out = torch.empty(n, AMBIENT)
    for k, (dims, network) in enumerate(zip(MANIFOLD_DIMS, networks, strict=True)):
        rows = out[k::2]
        h = torch.randn(len(rows), dims, generator=generator)
        for depth, (weight, bias) in enumerate(network):
            h = torch.addmm(bias, leaky_relu(h, 0.2) if depth else h, weight)
        rows.copy_(h)
    return out


def random_networks(seed: int, biases: bool) -> list[list[tuple[Tensor, Tensor]]]:
    """One leaky-ReLU net per manifold: dims -> 64 -> 64 -> 16, weights N(0, 1/inputs), biases N(0, 1) or 0.

    The paper (A.1) names neither widths, depth, ambient dimension nor scale; these are ours. With biases the
    means of the two are 6 apart and each is 2 wide. Without, both are cones with their apex in 0, where they meet, and
    weights have a third of the variance, that of `torch.nn.Linear`: of each most points are then as near to 0 as the
    augmentation's noise is long (0.4), the high density there that the paper speaks of.
    """
    variance = 1.0 if biases else 1 / 3
    generator = torch.Generator().manual_seed(seed)
    networks = []
    for dims in MANIFOLD_DIMS:
        network = []
        for rows, columns in ((dims, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, AMBIENT)):
            weight = torch.randn(rows, columns, generator=generator) * (variance / rows) ** 0.5
            bias = torch.randn(columns, generator=generator)
            network.append((weight, bias if biases else torch.zeros_like(bias)))
        networks.append(network)
    return networks


def double_spiral(noise: float, name: str) -> Dataset:
    """Two interleaved spiral arms, Figure 1 of NMCE; noise 0.1 in the published code, 0.05 in the paper."""
    return _streamed(
        name,
        lambda generator, n: spiral_points(generator, n, noise),
        f"double spiral, t = 3/2 pi (1 + 2 u), noise {noise}",
    )


def manifolds(biases: bool, name: str) -> Dataset:
    """Manifolds of 3 and 6 dimensions in 16-space, Appendix A.1 of NMCE; identifiable with biases only."""
    networks = random_networks(NETWORK_SEED, biases)
    words = "with biases" if biases else "without biases, weights of variance 1/(3 inputs)"
    shape = f"{MANIFOLD_DIMS}-{HIDDEN}-{HIDDEN}-{AMBIENT}"
    text = f"leaky-ReLU(0.2) networks {shape}, seed {NETWORK_SEED}, {words}"
    return _streamed(name, lambda generator, n: manifold_points(generator, n, networks), text)


def sphere(noise: float, name: str) -> Dataset:
    """Figure 1 and appendix D.1 of MLC: a curve that winds around the equator (class 0), and its pole (class 1).

    N(0, noise²) is added to each coordinate. The paper's "0.05 I" is a covariance, noise √0.05; its figure looks
    like 0.05. Its text says 200 points each; its formula (7) and figure have 100, as here.
    """
    height, turns = SPHERE_WAVE
    p = 2 * math.pi * torch.arange(1, SPHERE_POINTS + 1) / SPHERE_POINTS
    a = height * (turns * p).sin()
    curve = torch.stack([a.cos() * p.cos(), a.cos() * p.sin(), a.sin()], 1)
    pole = torch.tensor([0.0, 0.0, 1.0]).expand(SPHERE_POINTS, 3)
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    x = torch.cat([curve, pole]) + noise * torch.randn(2 * SPHERE_POINTS, 3, generator=generator)
    text = f"{SPHERE_POINTS} points of a curve on the sphere (A {height}, omega {turns}) and {SPHERE_POINTS} "
    text += f"around its pole, noise {noise:.4f}, seed {EVALUATION_SEED}"
    return Dataset(
        name=name,
        train=Split(x, torch.arange(2).repeat_interleave(SPHERE_POINTS)),
        test=None,
        n_classes=2,
        split=f"all, {len(x)}",
        fingerprint=_hashed(text),
        stream=None,
        epoch_size=len(x),
        source=text,
    )


def digits() -> Dataset:
    """The 8x8 handwritten digits inside scikit-learn; v of 0..16 is stored as uint8 round(255/16 v)."""
    from sklearn.datasets import load_digits  # half a second that no other dataset needs

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    y = torch.from_numpy(bunch.target).to(torch.int64)
    return stored(
        "digits",
        Split(x[:1437], y[:1437]),
        Split(x[1437:], y[1437:]),
        n_classes=10,
        split="train, 1437 (the first 1437 of 1797 digits; the last 360 are held out)",
        source="scikit-learn's load_digits (UCI Optical Recognition of Handwritten Digits, test part)",
    )


def _streamed(name: str, draw: Callable[[torch.Generator, int], Tensor], text: str) -> Dataset:
    x = draw(torch.Generator().manual_seed(EVALUATION_SEED), EVALUATION_POINTS)
    return Dataset(
        name=name,
        train=Split(x, labels(EVALUATION_POINTS)),
        test=None,
        n_classes=2,
        split=f"evaluation set, {EVALUATION_POINTS} fixed points; training draws fresh ones",
        fingerprint=_hashed(text),
        stream=draw,
        epoch_size=EPOCH_POINTS,
        source=text,
    )


def _hashed(text: str) -> str:
    # The parameters, not the numbers, are hashed: those may differ in the last bit between processors.
    return hashlib.sha256(text.encode()).hexdigest()
