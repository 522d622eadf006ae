"""Backbones that a user brings: what is taken, what stands in keys, and one line for whatever is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from raymc.errors import InputError
from raymc.nets import architecture, backbone_width, build_backbone, check_backbone

NETS = """
import torch
from torch import nn

class Twice(nn.Module):
    def __init__(self, d, times=2):
        super().__init__()
        self.times, self.layer = times, nn.Linear(d, 7)
    def forward(self, x):
        return self.times * self.layer(x.flatten(1))

class Squared(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.times, self.layer = 2, nn.Linear(d, 7)
    def forward(self, x):
        return self.layer(x.flatten(1)) ** 2

def numbers(shape):
    return int(torch.tensor(shape).prod())

def twice(shape): return Twice(numbers(shape))
def thrice(shape): return Twice(numbers(shape), 3)
def squared(shape): return Squared(numbers(shape))
def plain(shape): return nn.Linear(shape[0], 7)
def word(shape): return "a net"
def falls(shape): raise ValueError("no such\\nwidth")
def three(shape): return nn.Unflatten(1, (1, shape[0]))
def whole(shape): return nn.Sequential(nn.Flatten(0))
def images_only(shape): return nn.Conv2d(3, 4, 3)
def pair(shape): return nn.LSTM(shape[0], 4)
NUMBER = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package in the working folder, which Python does not look into, as for the command `raymc`."""
    name = f"brought_{abs(hash(tmp_path))}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NETS)
    (package / "torn.py").write_text("def broken(:\n")
    (package / "needs.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    return name


def test_a_function_of_the_working_folder_gives_the_net(here: str) -> None:
    name = f"{here}.nets:twice"
    before = torch.get_rng_state()
    check_backbone(name, (5,))
    assert backbone_width(name, (5,)) == 7 and torch.equal(torch.get_rng_state(), before)
    net = build_backbone(name, (1, 4, 4))
    assert net.out_dim == 7 and net(torch.zeros(3, 1, 4, 4)).shape == (3, 7)
    torch.manual_seed(3)
    one = build_backbone(name, (5,)).state_dict()
    torch.manual_seed(3)
    assert all(torch.equal(value, one[key]) for key, value in build_backbone(name, (5,)).state_dict().items())


def test_nets_that_compute_other_things_have_other_keys(here: str) -> None:
    texts = {name: architecture(build_backbone(f"{here}.nets:{name}", (5,))) for name in ("twice", "thrice", "squared")}
    assert len(set(texts.values())) == 3, "by an attribute, and by the class"
    assert f"{here}.nets.Twice@" in texts["twice"] and "times=2" in texts["twice"]
    own = architecture(build_backbone(f"{here}.nets:plain", (5,)))
    assert own == architecture(nn.ModuleDict({"net": nn.Linear(5, 7)})).replace("ModuleDict", "Backbone")
    assert architecture(build_backbone(f"{here}.nets:twice", (5,))) == texts["twice"]


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("no_such_package_here.nets:twice", (5,), "no module no_such_package_here in .* or where Python looks"),
        ("{}.nots:twice", (5,), "no module {}.nots in"),
        ("{}.nets:twise", (5,), "{}.nets has no twise"),
        ("{}.nets:NUMBER", (5,), "NUMBER must be a function; it is int"),
        ("{}.nets:", (5,), "neither a net of raymc's nor package.module:function"),
        ("../nets:twice", (5,), "neither a net of raymc's nor package.module:function"),
        ("{}.torn:broken", (5,), "importing {}.torn failed: SyntaxError"),
        ("{}.needs:any", (5,), "importing {}.needs failed: ModuleNotFoundError: No module named 'no_such_package'"),
        ("{}.nets:word", (5,), "must return a torch.nn.Module; it returned str"),
        ("{}.nets:falls", (5,), "failed for samples 5: ValueError: no such width"),
        ("{}.nets:images_only", (1, 8, 8), "does not take samples 1x8x8: RuntimeError"),
        ("{}.nets:pair", (5,), "its output must be a tensor .b, m.; it is tuple"),
        ("{}.nets:three", (5,), r"must be \[2, m\] of floats; it is \[2, 1, 5\] of float32"),
        ("{}.nets:whole", (5,), r"must be \[2, m\] of floats; it is \[10\] of float32"),
        ("timm:resnet18", (5,), "takes images; the samples are 5"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, shape: tuple[int, ...], words: str, here: str) -> None:
    with pytest.raises(InputError, match=words.replace("{}", here)) as error:
        check_backbone(name.replace("{}", here), shape)
    assert len(str(error.value).splitlines()) == 1 and str(error.value).startswith("backbone ")


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_that_is_not_installed_is_one_line() -> None:
    with pytest.raises(InputError, match="backbone timm:resnet18: the package timm is not installed"):
        check_backbone("timm:resnet18", (3, 32, 32))


def test_a_timm_net_is_built_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    class Timm:
        @staticmethod
        def create_model(name: str, **words: object) -> nn.Module:
            asked.append({"name": name, **words})
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 6))

    monkeypatch.setitem(sys.modules, "timm", Timm)  # type: ignore[arg-type]
    net = build_backbone("timm:tiny_net_of_a_test", (1, 16, 16))
    assert net.out_dim == 6 and "keyed_as=timm:tiny_net_of_a_test" in architecture(net)
    assert asked[-1] == {"name": "tiny_net_of_a_test", "pretrained": False, "num_classes": 0, "in_chans": 1}


def test_a_training_with_a_net_of_ones_own(here: str, tmp_path: Path) -> None:
    """By the console script's way in, in a process of its own."""
    words = [sys.executable, "-c", "import sys; sys.path.pop(0); from raymc.__main__ import main; sys.exit(main())"]
    keys = [f"backbone={here}.nets:twice", "augmentation=digits", "pre_feature_dim=0"]
    ran = subprocess.run(
        [*words, "train", "nmce_digits", "--smoke", "--out", str(tmp_path / "out"), *keys],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
