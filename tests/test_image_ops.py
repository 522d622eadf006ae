"""Image operations with one parameter per sample: each equals torchvision's functional, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from raymc.datasets import draws, image_ops

torchvision = pytest.importorskip("torchvision.transforms.v2.functional")

N = 24


def images(channels: int = 3, size: int = 32) -> Tensor:
    """Noise, and what is special in colour space: black, white, grey, pure and flat colours, few levels."""
    generator = torch.Generator().manual_seed(channels * size)
    x = torch.rand(N, channels, size, size, generator=generator)
    x[0], x[1], x[2] = 0.0, 1.0, 0.4
    x[3] = (3 * x[3]).floor() / 2
    x[4] = x[4].mean(0, keepdim=True)
    x[5:8] = x[5:8].round()
    return x


def values(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, N)


def per_sample(x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([function(image, i) for i, image in enumerate(x)])


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "low", "high"), [("brightness", 0.0, 2.0), ("contrast", 0.0, 2.0), ("saturation", 0.0, 2.0)]
)
def test_jitter_factors(channels: int, name: str, low: float, high: float) -> None:
    x, factor = images(channels), values(low, high)
    reference = getattr(torchvision, f"adjust_{name}")
    found = getattr(image_ops, f"adjust_{name}")(x.clone(), factor)
    assert_close(found, per_sample(x, lambda image, i: reference(image, float(factor[i]))))


def test_hue() -> None:
    x, shift = images(), values(-0.5, 0.5)
    found = image_ops.adjust_hue(x.clone(), shift)
    wanted = per_sample(x, lambda image, i: torchvision.adjust_hue(image, float(shift[i])))
    assert_close(found, wanted, 1e-5)
    assert torch.equal(image_ops.adjust_hue(images(1), shift), images(1))


def test_neutral_values_leave_an_image_as_it_is() -> None:
    x, one, zero = images(), torch.ones(N), torch.zeros(N)
    y = image_ops.adjust_contrast(image_ops.adjust_brightness(x.clone(), one), one)
    assert_close(image_ops.adjust_hue(image_ops.adjust_saturation(y, one), zero), x, 1e-6)


def test_grey_for_the_chosen_only() -> None:
    x, chosen = images(), torch.arange(N) % 2 == 0
    found = image_ops.to_grey(x.clone(), chosen)
    wanted = per_sample(
        x, lambda image, i: torchvision.rgb_to_grayscale(image, num_output_channels=3) if chosen[i] else image
    )
    assert_close(found, wanted)


def test_crop_resize_and_flip() -> None:
    x = images()
    box = draws.boxes(torch.Generator().manual_seed(0), N, 32, 32, (0.08, 1.0))
    box[0], box[1] = torch.tensor([0.0, 0, 32, 32]), torch.tensor([31.0, 30, 1, 2])
    flip = torch.arange(N) % 3 == 0

    def wanted(image: Tensor, i: int) -> Tensor:
        left, top, width, height = (int(v) for v in box[i])
        cut = torchvision.resized_crop(image, top, left, height, width, [32, 32], antialias=True)
        return torchvision.horizontal_flip(cut) if flip[i] else cut

    assert_close(image_ops.crop_resize(x, box, flip), per_sample(x, wanted))


@pytest.mark.parametrize("size", [64, 48, 20])
def test_crop_resize_to_another_size(size: int) -> None:
    x = images(size=size)
    box = draws.boxes(torch.Generator().manual_seed(0), N, size, size, (0.04, 1.0))
    box[0], box[1] = torch.tensor([0.0, 0, size, size]), torch.tensor([size - 1.0, size - 2, 1, 2])
    flip = torch.arange(N) % 3 == 0

    def wanted(image: Tensor, i: int) -> Tensor:
        left, top, width, height = (int(v) for v in box[i])
        cut = torchvision.resized_crop(image, top, left, height, width, [32, 32], antialias=True)
        return torchvision.horizontal_flip(cut) if flip[i] else cut

    found = image_ops.crop_resize(x, box, flip, 32)
    assert_close(found, per_sample(x, wanted), 5e-6)
    assert torch.equal(image_ops.crop_resize(x[3:5], box[3:5], flip[3:5], 32), found[3:5])
    assert torch.equal(image_ops.crop_resize(x, box, flip, size), image_ops.crop_resize(x, box, flip))


@pytest.mark.parametrize("size", [64, 48, 20])
def test_resize(size: int) -> None:
    x = images(size=size)
    wanted = per_sample(x, lambda image, i: torchvision.resize(image, [32, 32], antialias=True))
    assert_close(image_ops.resize(x, 32), wanted)
    assert image_ops.resize(x, size) is x


def test_a_crop_never_reads_outside_its_box() -> None:
    x = torch.full((1, 3, 32, 32), 1000.0)
    x[:, :, 5:15, 8:20] = 0.5
    box, flip = torch.tensor([[8.0, 5, 12, 10]]), torch.tensor([False])
    assert_close(image_ops.crop_resize(x, box, flip), torch.full_like(x, 0.5), 5e-3)
    for side in (6, 40):
        assert_close(image_ops.crop_resize(x, box, flip, side), torch.full((1, 3, side, side), 0.5), 5e-3)


def test_perspective() -> None:
    x = images(1, 20)
    generator = torch.Generator().manual_seed(5)
    start = [[0, 0], [19, 0], [19, 19], [0, 19]]
    end = torch.tensor(start) + torch.randint(-3, 4, (N, 4, 2), generator=generator)
    matrix = draws.homography(end.double(), torch.tensor(start).double().expand(N, 4, 2))
    found = image_ops.warp(x, matrix.float())
    wanted = per_sample(x, lambda image, i: torchvision.perspective(image, start, end[i].tolist()))
    assert_close(found, wanted, 2e-5)


@pytest.mark.parametrize("size", [5, 9])
def test_gaussian_blur(size: int) -> None:
    x, sigma = images(), values(0.1, 2.0)
    wanted = per_sample(x, lambda image, i: torchvision.gaussian_blur(image, [size, size], [float(sigma[i])] * 2))
    assert_close(image_ops.gaussian_blur(x, sigma, size), wanted)


def test_a_blur_of_nothing_leaves_an_image_exactly_as_it_is() -> None:
    x, sigma = images(), values(0.1, 2.0)
    sigma[::2] = 0.0
    found = image_ops.gaussian_blur(x, sigma, 9)
    assert torch.equal(found[::2], x[::2])
    assert torch.equal(found[1::2], image_ops.gaussian_blur(x[1::2], sigma[1::2], 9))


def test_a_warp_by_the_identity_and_by_whole_pixels_is_exact() -> None:
    x = images()
    eye = torch.eye(3).repeat(N, 1, 1)
    assert_close(image_ops.warp(x, eye), x, 5e-6)
    eye[:, 0, 2] = 4.0
    found = image_ops.warp(x, eye)
    assert_close(found[..., :-4], x[..., 4:], 5e-6)
    assert_close(found[..., -4:], torch.zeros_like(x[..., -4:]), 5e-6)


def test_a_mirror_matrix_is_a_horizontal_flip() -> None:
    x = images()
    matrix = draws.mirrors(torch.Generator().manual_seed(0), N, 32, 1.0).float()
    assert_close(image_ops.warp(x, matrix), x.flip(-1), 5e-6)
