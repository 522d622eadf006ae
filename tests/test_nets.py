"""Backbones against torchvision's own, heads, and the text that names an architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet34

from raymc.errors import InputError
from raymc.nets import (
    BACKBONES,
    UnitLinear,
    architecture,
    backbone_width,
    build_backbone,
    pre_feature_layer,
)
from raymc.nets.resnet import pooled_resnet

SHAPES = {name: (5,) if net.channels is None else (net.channels, 16, 16) for name, net in BACKBONES.items()}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "own"), [("resnet18_cifar", resnet18), ("resnet34_cifar", resnet34)])
def test_the_cifar_net_is_torchvisions_but_for_stem_and_classifier(name, own):
    net = build_backbone(name, (3, 32, 32))
    reference = own(weights=None)
    wanted = count(reference) - count(reference.fc) - count(reference.conv1) + 3 * 64 * 9
    assert count(net) == wanted
    names = {key.removeprefix("net.") for key in net.state_dict()}
    assert names == {key for key in reference.state_dict() if not key.startswith("fc.")}


def test_the_pooled_net_computes_what_torchvisions_does():
    net = pooled_resnet((2, 2, 2, 2), channels=3, width=64).double().eval()
    reference = resnet18(weights=None)
    reference.conv1 = nn.Conv2d(3, 64, kernel_size=5, stride=2, padding=2, bias=False)
    reference.fc = nn.Identity()
    reference = reference.double().eval()
    reference.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(net(x), reference(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "blocks"), [("resnet10_grey", (1, 1, 1, 1)), ("resnet18_grey", (2, 2, 2, 2))])
def test_the_grey_nets_have_the_weights_that_their_description_says(name, blocks):
    wanted, planes = 25 * 32 + 2 * 32, 32
    for wide, n in zip((32, 64, 128, 256), blocks, strict=True):
        block = 2 * 9 * wide * wide + 4 * wide
        shortcut = planes * wide + 2 * wide if wide != planes else 0
        wanted += n * block - 9 * wide * (wide - planes) + shortcut
        planes = wide
    assert count(build_backbone(name, (1, 64, 64))) == wanted


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_its_width_in_every_precision_and_memory_format(name):
    torch.manual_seed(0)
    net = build_backbone(name, SHAPES[name]).eval()
    x = torch.randn(3, *SHAPES[name])
    out = net(x)
    assert out.shape == (3, net.out_dim) and net.out_dim == backbone_width(name, SHAPES[name])
    assert net.double()(x.double()).dtype == torch.float64
    net.float()
    if x.ndim == 4:
        net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), out, atol=1e-5, rtol=1e-4)


def test_the_elu_net_is_elu_of_each_linear_layer():
    net = build_backbone("mlp_spiral", (2,)).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    wanted = x
    weights = list(net.state_dict().values())
    assert [list(w.shape) for w in weights[::2]] == [[128, 2]] + 4 * [[128, 128]]
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        h = wanted @ weight.T + bias
        wanted = torch.where(h > 0, h, h.exp() - 1)
    torch.testing.assert_close(net(x), wanted)


def test_a_net_depends_on_torchs_seed_alone():
    def make(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_backbone("conv_digits", (1, 8, 8)).parameters())

    assert torch.equal(make(3), make(3)) and not torch.equal(make(3), make(4))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet18_cifr", (3, 32, 32), "did you mean resnet18_cifar"),
        ("resnet18_cifar", (2,), "takes colour images"),
        ("resnet10_grey", (3, 32, 32), "takes grey images"),
        ("mlp_spiral", (1, 8, 8), "takes vectors; the samples are 1x8x8"),
    ],
)
def test_a_wrong_backbone_is_told_in_one_line(name, shape, words):
    with pytest.raises(InputError, match=words):
        build_backbone(name, shape)


def test_unit_rows_are_exact_to_float32_under_autocast():
    head = UnitLinear(32, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(torch.randn(64, 32))
    assert z.dtype == torch.float32
    assert float((z.detach().norm(dim=1) - 1).abs().max()) < 1e-6
    assert head.double()(torch.randn(2, 32, dtype=torch.float64)).dtype == torch.float64


def test_unit_rows_have_the_gradient_of_their_formula():
    head = UnitLinear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (x,))
    h = x @ head.weight.T + head.bias
    torch.testing.assert_close(head(x), h / h.square().sum(1, keepdim=True).sqrt())


def test_the_pre_feature_layer_is_linear_batchnorm_relu_or_nothing():
    layer = pre_feature_layer(7, 5).double()
    x = torch.randn(20, 7, dtype=torch.float64)
    h = x @ layer[0].weight.T + layer[0].bias
    wanted = ((h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(layer(x), wanted)
    assert count(pre_feature_layer(512, 4096)) == 512 * 4096 + 3 * 4096
    assert isinstance(pre_feature_layer(7, 0), nn.Identity)


def test_the_text_of_an_architecture_is_what_it_always_was():
    """Stored stages are found by it: a change here makes every stored stage unreachable."""
    text = architecture(nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.BatchNorm2d(2), nn.ELU()))
    assert text.splitlines() == [
        ".: Sequential",
        "0: Conv2d kernel_size=(3, 3) stride=(2, 2) padding=(0, 0) dilation=(1, 1) groups=1",
        "1: BatchNorm eps=1e-05 momentum=0.1",
        "2: ELU alpha=1.0",
        *("0.weight [2, 1, 3, 3]", "0.bias [2]", "1.weight [2]", "1.bias [2]"),
        *("1.running_mean [2]", "1.running_var [2]", "1.num_batches_tracked []"),
    ]


def test_architectures_differ_where_nets_do_and_not_where_workers_do():
    texts = {name: architecture(build_backbone(name, SHAPES[name])) for name in BACKBONES}
    same = {("mlp", "mlp_synthetic")}
    pairs = [(a, b) for a in texts for b in texts if a < b]
    assert {(a, b) for a, b in pairs if texts[a] == texts[b]} == same
    net = build_backbone("conv_digits", (1, 8, 8))
    before = architecture(net)
    assert architecture(nn.SyncBatchNorm.convert_sync_batchnorm(net)) == before
