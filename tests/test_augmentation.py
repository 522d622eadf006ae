"""Policies: what they draw, that rows of a global batch are augmented alike wherever they are, and what stays."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from raymc.datasets import POLICIES, augmentation, draws, image_ops, load
from raymc.datasets.augmentation import ImagePolicy
from raymc.distributed import rows_of
from raymc.errors import InputError

SHAPES = {
    "cifar": (3, 32, 32),
    "mlc": (3, 64, 64),
    "emp_ssl": (3, 32, 32),
    "stl": (3, 96, 96),
    "imagenet": (3, 96, 96),
    "coil": (1, 64, 64),
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "none": (3, 9, 9),
    "noise_spiral": (2,),
    "noise_spiral_paper": (2,),
    "noise_synthetic": (16,),
    "noise_sphere": (3,),
}
N = 13


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def viewed(name: str) -> tuple[int, ...]:
    return (3, 32, 32) if name == "mlc" else SHAPES[name]


def samples(shape: tuple[int, ...], n: int = N) -> Tensor:
    if len(shape) == 1:
        return torch.randn(n, *shape, generator=generator(1))
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator(1))


def test_every_policy_is_tested() -> None:
    assert set(SHAPES) == set(POLICIES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_view_depends_on_generator_and_sample_alone(name: str) -> None:
    policy, x = POLICIES[name], samples(SHAPES[name])
    kept = x.clone()
    params = policy.draw(generator(), N, SHAPES[name])
    view = policy.apply(x, params)
    assert view.dtype == torch.float32 and view.shape == (N, *viewed(name)) and view.isfinite().all()
    assert torch.equal(x, kept), "the samples themselves stay"
    again = policy.apply(x, policy.draw(generator(), N, SHAPES[name]))
    assert torch.equal(view, again)
    other = policy.apply(x, policy.draw(generator(7), N, SHAPES[name]))
    assert torch.equal(view, other) == (name == "none")
    assert policy.plain(x).dtype == torch.float32 and policy.plain(x).shape == view.shape


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("name", SHAPES)
def test_workers_together_see_the_views_that_one_would(name: str, size: int) -> None:
    policy, x = POLICIES[name], samples(SHAPES[name])
    params = policy.draw(generator(), N, SHAPES[name])
    assert all(len(value) == N for value in params.values())
    whole = policy.apply(x, params)
    parts = []
    for rank in range(size):
        rows = rows_of(N, rank, size)
        # Each worker draws for itself, with the same words for the generator.
        mine = {key: value[rows] for key, value in policy.draw(generator(), N, SHAPES[name]).items()}
        parts.append(policy.apply(x[rows], mine))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("name", ["cifar", "mlc", "coil"])
def test_chunks_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, x = POLICIES[name], samples(SHAPES[name])
    params = policy.draw(generator(), N, SHAPES[name])
    whole = policy.apply(x, params)
    monkeypatch.setattr(augmentation, "CHUNK", 3 * x[0].numel())
    assert torch.equal(policy.apply(x, params), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", SHAPES)
def test_a_gpu_makes_the_same_views_without_waiting(name: str) -> None:
    policy, x = POLICIES[name], samples(SHAPES[name])
    params = policy.draw(generator(), N, SHAPES[name])
    there, moved = x.cuda(), {key: value.cuda() for key, value in params.items()}
    policy.apply(there, moved)
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = policy.apply(there, moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(view.cpu(), policy.apply(x, params), rtol=0, atol=1e-4)


def test_cifar_is_the_published_policy_step_by_step() -> None:
    F = pytest.importorskip("torchvision.transforms.v2.functional")
    policy, x = POLICIES["cifar"], samples(SHAPES["cifar"])
    p = policy.draw(generator(), N, SHAPES["cifar"])
    wanted = []
    for i, image in enumerate(x):
        left, top, width, height = (int(v) for v in p["box"][i])
        y = F.resized_crop(image.float() / 255, top, left, height, width, [32, 32], antialias=True)
        y = F.horizontal_flip(y) if p["flip"][i] else y
        y = F.adjust_brightness(y, float(p["brightness"][i]))
        y = F.adjust_contrast(y, float(p["contrast"][i]))
        y = F.adjust_saturation(y, float(p["saturation"][i]))
        y = F.adjust_hue(y, float(p["hue"][i]))
        y = F.rgb_to_grayscale(y, 3) if p["grey"][i] else y
        wanted.append(F.normalize(y, [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]))
    # Resampled white can be a rounding error above 1, where hue is steep; 1e-4 is a fortieth of a grey level.
    torch.testing.assert_close(policy.apply(x, p), torch.stack(wanted), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [32, 64])
def test_mlc_is_the_papers_policy_step_by_step(size: int) -> None:
    F = pytest.importorskip("torchvision.transforms.v2.functional")
    policy, x = POLICIES["mlc"], samples((3, size, size), 60)
    p = policy.draw(generator(), 60, (3, size, size))
    assert 0 < (p["sigma"] > 0).sum() < 20 and p["grey"].any()
    wanted = []
    for i, image in enumerate(x):
        left, top, width, height = (int(v) for v in p["box"][i])
        y = F.resized_crop(image.float() / 255, top, left, height, width, [32, 32], antialias=True)
        y = F.horizontal_flip(y) if p["flip"][i] else y
        y = F.adjust_brightness(y, float(p["brightness"][i]))
        y = F.adjust_contrast(y, float(p["contrast"][i]))
        y = F.adjust_saturation(y, float(p["saturation"][i]))
        y = F.adjust_hue(y, float(p["hue"][i]))
        y = F.rgb_to_grayscale(y, 3) if p["grey"][i] else y
        wanted.append(F.gaussian_blur(y, [9, 9], [float(p["sigma"][i])] * 2) if p["sigma"][i] else y)
    torch.testing.assert_close(policy.apply(x, p), torch.stack(wanted), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [32, 64])
def test_a_sample_that_is_not_blurred_is_as_without_blur(size: int) -> None:
    policy, x = POLICIES["mlc"], samples((3, size, size), 60)
    assert isinstance(policy, ImagePolicy)
    p = policy.draw(generator(), 60, (3, size, size))
    sharp = dataclasses.replace(policy, blur=None)
    q = sharp.draw(generator(), 60, (3, size, size))
    # What is drawn before the blur does not know of it.
    assert all(torch.equal(p[name], q[name]) for name in q) and p.keys() - q.keys() == {"sigma"}
    same = (policy.apply(x, p) == sharp.apply(x, q)).flatten(1).all(1)
    assert torch.equal(same, p["sigma"] == 0)


def test_the_share_of_blurred_samples() -> None:
    sigma = draws.blurs(generator(), 20000, (0.1, 2.0), 0.1)
    assert abs((sigma > 0).float().mean() - 0.1) < 0.01
    assert sigma[sigma > 0].min() >= 0.1 and sigma.max() <= 2 and abs(sigma[sigma > 0].mean() - 1.05) < 0.05


def test_a_share_of_one_draws_what_it_drew_before_there_were_shares() -> None:
    mine, before = generator(), generator()
    assert torch.equal(draws.blurs(mine, 50, (0.1, 2.0), 1.0), draws.between(before, (50,), 0.1, 2.0))
    assert torch.equal(mine.get_state(), before.get_state())


def test_noise_and_plain_input_have_the_side_of_the_crop() -> None:
    F = pytest.importorskip("torchvision.transforms.v2.functional")
    policy = ImagePolicy(crop=(0.5, 1.0), side=20, noise=0.1)
    for shape in ((1, 32, 32), (3, 20, 20)):
        x = samples(shape)
        assert policy.apply(x, policy.draw(generator(), N, shape)).shape == (N, shape[0], 20, 20)
        wanted = F.resize(x.float() / 255, [20, 20], antialias=True)
        torch.testing.assert_close(policy.plain(x), wanted, rtol=0, atol=2e-6)


def test_plain_input_is_scaled_and_normalised() -> None:
    x = samples(SHAPES["cifar"])
    means = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
    stds = torch.tensor([0.2023, 0.1994, 0.2010])[:, None, None]
    torch.testing.assert_close(POLICIES["cifar"].plain(x), (x / 255 - means) / stds)
    for name in ("mlc", "stl", "coil", "digits", "mnist", "none"):
        torch.testing.assert_close(POLICIES[name].plain(x), x / 255)
    points = samples((2,))
    assert torch.equal(POLICIES["noise_spiral"].plain(points), points)


def test_grey_images_keep_their_range_and_are_not_coloured() -> None:
    view = POLICIES["coil"].apply(samples((1, 64, 64)), POLICIES["coil"].draw(generator(), N, (1, 64, 64)))
    assert view.min() >= 0 and view.max() <= 1
    assert "grey" not in ImagePolicy(grey=1.0).draw(generator(), N, (1, 8, 8))


def test_a_policy_for_other_samples_is_refused() -> None:
    with pytest.raises(InputError, match="for images, not for samples of shape"):
        POLICIES["cifar"].draw(generator(), 2, (5,))
    with pytest.raises(InputError, match="for vectors, not for samples of shape"):
        POLICIES["noise_spiral"].draw(generator(), 2, (1, 8, 8))


@pytest.mark.parametrize(
    ("name", "sigma"),
    [("noise_spiral", 0.2), ("noise_spiral_paper", 0.05), ("noise_synthetic", 0.1), ("noise_sphere", 0.1)],
)
def test_noise_has_its_size(name: str, sigma: float) -> None:
    x = torch.zeros(20000, 2)
    view = POLICIES[name].apply(x, POLICIES[name].draw(generator(), 20000, (2,)))
    assert abs(view.std().item() / sigma - 1) < 0.02


# ---------------------------------------------------------------- what is drawn


def test_boxes_are_drawn_as_torchvision_draws_them() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    box = draws.boxes(generator(), 20000, 32, 32, (0.08, 1.0))
    left, top, width, height = box.unbind(1)
    assert torch.equal(box, box.round()) and (width >= 1).all() and (height >= 1).all()
    assert (left >= 0).all() and (top >= 0).all()
    assert (left + width <= 32).all() and (top + height <= 32).all()
    torch.manual_seed(0)
    image = torch.zeros(3, 32, 32)
    params = [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    high, wide, y, x = (torch.tensor([p[i] for p in params], dtype=torch.float32) for i in (2, 3, 0, 1))
    for mine, theirs in ((width, wide), (height, high), (left, x), (top, y), (width * height, wide * high)):
        # Five standard errors of the smaller sample's mean.
        assert abs(mine.mean() - theirs.mean()) < 5 * theirs.std() / math.sqrt(4000)
        assert abs(mine.std() / theirs.std() - 1) < 0.1


def test_a_box_that_never_fits_is_the_whole_image() -> None:
    box = draws.boxes(generator(), 50, 8, 8, (1.6, 1.6))
    assert torch.equal(box, torch.tensor([[0.0, 0, 8, 8]]).expand(50, 4))


def test_jitter_is_drawn_in_its_range_or_neutral() -> None:
    p = draws.jitter(generator(), 20000, (0.4, 0.8, 1.5, 0.1), 0.8)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.2, 1.8), ("saturation", 0.0, 2.5)):
        assert low <= p[name].min() and p[name].max() <= high
        assert abs((p[name] == 1).float().mean() - 0.2) < 0.02
    assert p["hue"].abs().max() <= 0.1 and abs((p["hue"] == 0).float().mean() - 0.2) < 0.02


def test_perspectives_move_corners_inwards_or_nothing() -> None:
    matrix = draws.perspectives(generator(), 4000, 64, 64, 0.3, 0.6)
    still = (matrix == torch.eye(3, dtype=torch.float64)).flatten(1).all(1)
    assert abs(still.float().mean() - 0.4) < 0.04
    # The corners of the input image, seen in the output, are whole pixels within 9 of where they were.
    corners = torch.tensor([[0.0, 63, 63, 0], [0, 0, 63, 63], [1, 1, 1, 1]], dtype=torch.float64)
    seen = torch.linalg.solve(matrix, corners)
    moved = (seen[:, :2] / seen[:, 2:] - corners[:2]) * torch.tensor([[1.0, -1, -1, 1], [1, 1, -1, -1]])
    assert (moved - moved.round()).abs().max() < 1e-9
    assert moved.min() > -1e-9 and moved.max() < 9 + 1e-9 and moved.max() > 8


def test_affine_maps_turn_scale_and_shift_about_the_centre() -> None:
    scaled = draws.affines(generator(), 1, 8, 8, 0.0, 0.0, 2.0, 2.0, 0.0).float()
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3:5, 3:5] = 1.0
    found = image_ops.warp(x, scaled)
    assert (found[..., 3:5, 3:5] == 1).all() and found.sum() == pytest.approx(16.0, abs=1e-4)
    turned = draws.affines(generator(), 500, 8, 6, 15.0, 0.0, 1.0, 1.0, 0.0)
    centre = torch.tensor([3.0, 4.0, 1.0], dtype=torch.float64)
    assert (turned @ centre - centre).abs().max() < 1e-12
    linear = turned[:, :2, :2]
    eye = torch.eye(2, dtype=torch.float64)
    assert (linear @ linear.mT - eye).abs().max() < 1e-12
    assert torch.rad2deg(linear[:, 1, 0].asin()).abs().max() == pytest.approx(15.0, abs=0.2)
    shifted = draws.affines(generator(), 500, 8, 6, 0.0, 0.1, 1.0, 1.0, 0.0)
    assert shifted[:, 0, 2].abs().max() == pytest.approx(0.6, abs=0.02)
    assert shifted[:, 1, 2].abs().max() == pytest.approx(0.8, abs=0.02)


def test_a_digit_stays_near_its_image() -> None:
    """Two views of a digit are closer to it than to the mean digit, in nearly all cases: views carry identity."""
    data = load("digits")
    x = data.train.x[:500]
    policy = POLICIES["digits"]
    plain = policy.plain(x).flatten(1)
    view = policy.apply(x, policy.draw(generator(), 500, (1, 8, 8))).flatten(1)
    correlation = torch.nn.functional.cosine_similarity(plain - plain.mean(0), view - plain.mean(0))
    assert (correlation > 0).float().mean() > 0.9
    assert (view - plain).abs().mean() > 0.03
