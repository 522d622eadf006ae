"""Checkpoints of stages: there and back, shared by methods and labels, and refused where they are not what they say."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raymc import checkpoint as command
from raymc import datasets, train
from raymc.cli import execute
from raymc.config import Config, resolve
from raymc.datasets import Dataset, load
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space.space import load_space
from raymc.storage.stage_store import Entry, Store
from raymc.training import checkpoint, shards
from raymc.training.export import export
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import Weights, enter, seeds_of, weights_of
from tests.fabricated_data import small, write_compact

MLC = METHODS["mlc"]  # whose clusters cannot collapse, however short the training
STAGES = tuple(MLC.stage_settings)
SMALL = {"pre_feature_dim": 32, "feature_dim": 16} | {f"{stage}.batch_size": 64 for stage in STAGES}
SMALL |= {"pretrain.epochs": 3, "pretrain.warmup_epochs": 0, "heads.epochs": 2}
MADE_BY = {"space": "mlc_digits", "command": "python -m raymc.train mlc_digits"}

Train = Callable[..., dict[str, Any]]


def config_of(**overrides: Any) -> Config:
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve("mlc", "digits", "shared", MLC.stage_settings, MLC.presets["digits"]["shared"], SMALL, keys)


def go(config: Config, out: str = "out", storage: str = "storage", **more: Any) -> dict[str, Any]:
    stages = tuple(METHODS[config.method].stage_settings)
    seeds = seeds_of(stages, config.seed, 0, config.seeds_from)
    return run(config, storage=storage, out=Path(out), stage_seeds=seeds, **more)


def write(config: Config, name: str = "stage-1", stage: str = "pretrain", **more: Any) -> Path:
    out = Path("checkpoints").resolve() / name
    stages = tuple(METHODS[config.method].stage_settings)
    seeds = seeds_of(stages, config.seed, 0, config.seeds_from)
    export(config, stage, seeds, out, storage="storage", data=None, made_by=MADE_BY, **more)
    return out


def stored(key: str, storage: str = "storage") -> Entry:
    entry = Store(storage).load(key)
    assert entry is not None
    return entry


def flat(weights: Weights) -> dict[str, torch.Tensor]:
    return {f"{module}.{key}": value for module, state in weights.items() for key, value in state.items()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own, and 300 digits: enough to see bookkeeping go wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "folders", lambda: [Path("checkpoints").resolve()])
    few = limit(load("digits"), 300)
    monkeypatch.setattr(datasets, "load_once", lambda config, root: few)


@pytest.fixture
def made() -> Iterator[Path]:
    """A checkpoint of stage 1; the store that it came from is gone, and `before.json` has what was trained there."""
    first = go(config_of(), "first")
    shutil.copytree("storage", "whole")
    out = write(config_of())
    shutil.rmtree("storage")
    Path("before.json").write_text(json.dumps(first))
    yield out


def test_there_and_back(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(Path("before.json").read_text())
    key = first["stages"][0]["key"]
    again = go(config_of(), start_from="heads")
    told = f"pretrain: weights of checkpoint {made} (float16), now in the store\n"
    assert capsys.readouterr().err == told
    assert [stage["cached"] for stage in again["stages"]] == [True, False]
    assert [stage["key"] for stage in again["stages"]] == [stage["key"] for stage in first["stages"]]
    before, after = flat(stored(key, "whole").state["weights"]), flat(stored(key).state["weights"])
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype and after[name].shape == value.shape
        if value.dim() < 2:
            assert torch.equal(after[name], value), "biases and BatchNorm are exact"
        else:
            assert torch.equal(after[name], value.half().float())
    rows = [
        [json.loads(line) for line in Path(out, "curve.jsonl").read_text().splitlines()] for out in ("first", "out")
    ]
    losses = [[row["loss"] for row in curve] for curve in rows]
    assert losses[0][:3] == losses[1][:3], "the curve of stage 1 came along"
    assert losses[1][3:] == pytest.approx(losses[0][3:], rel=1e-3), "stage 2 goes where it would have"
    assert again["metrics"]["acc"] == pytest.approx(first["metrics"]["acc"], abs=0.03)
    assert again["metrics"]["rate_reduction"] == pytest.approx(first["metrics"]["rate_reduction"], rel=0.01)


def test_of_a_training_in_float64_too() -> None:
    config = config_of(precision="float64")
    first = go(config)
    out = write(config)
    kinds = {value.dtype for value in load_file(shard(out)).values()}
    assert kinds == {torch.float16, torch.float32, torch.int64}
    shutil.rmtree("storage")
    again = go(config, start_from="heads")
    assert again["stages"][0]["checkpoint"] == "stage-1"
    assert again["metrics"]["rate_reduction"] == pytest.approx(first["metrics"]["rate_reduction"], rel=0.01)


def test_that_weights_were_float16_is_told_by_all_that_follows(made: Path) -> None:
    marks = [[stage.get("checkpoint") for stage in go(config_of())["stages"]] for _ in range(2)]
    assert marks == [["stage-1"] * 2] * 2, "computed from it, and then taken from the store"
    assert json.loads(Path("out/metrics.json").read_text())["stages"][1]["checkpoint"] == "stage-1"
    whole = go(config_of(), storage="whole")
    assert not any("checkpoint" in stage for stage in whole["stages"]), "a store that has the stage needs none"


def test_a_stage_that_is_computed_anew_is_not_imported(made: Path) -> None:
    result = go(config_of(), start_from="pretrain")
    assert not any(stage["cached"] or "checkpoint" in stage for stage in result["stages"])


def test_the_card_says_how_it_was_made(made: Path) -> None:
    first = json.loads(Path("before.json").read_text())
    card = json.loads((made / "card.json").read_text())
    assert card["key"] == first["stages"][0]["key"] and card["chain"] == [{"stage": "pretrain", "key": card["key"]}]
    assert (card["seed"], card["epochs"], card["stage"], card["next"]) == (0, 3, "pretrain", "heads")
    assert [row["epoch"] for row in card["curve"]] == [1, 2, 3]
    assert card["configuration"]["pretrain.epochs"] == 3 and "heads.epochs" not in card["configuration"]
    assert card["data"]["fingerprint"] == card["facts"]["data"] and card["data"]["n"] == 300
    assert card["made"]["versions"]["torch"] and card["made"]["hardware"]["cores"]
    for file in card["files"]:
        content = (made / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    page = (made / "README.md").read_text()
    assert "python -m raymc.train mlc_digits --from heads" in page and card["key"] in page
    assert str(Path.cwd()) not in page + json.dumps(card), "no path of the machine"


def test_later_stages_can_be_kept_too() -> None:
    config = config_of()
    first = go(config)
    write(config, stage="heads")
    shutil.rmtree("storage")
    write_of_stage_1 = pytest.raises(InputError, match="stage pretrain of this configuration is not in the store")
    with write_of_stage_1:
        write(config, "other")
    again = go(config)
    assert [stage.get("checkpoint") for stage in again["stages"]] == [None, "stage-1"]
    assert again["metrics"]["acc"] == pytest.approx(first["metrics"]["acc"], abs=0.02)


def nmce_config() -> Config:
    """Three stages, of which the second keeps in the store only what it changed."""
    nmce = METHODS["nmce"]
    few = SMALL | {"finetune.batch_size": 64, "finetune.epochs": 1}
    return resolve("nmce", "digits", "paper", nmce.stage_settings, nmce.presets["digits"]["paper"], few, {})


def test_each_of_three_stages_can_be_kept() -> None:
    config = nmce_config()
    first = go(config)
    for stage in first["stages"]:
        card = json.loads((write(config, stage["name"], stage["name"]) / "card.json").read_text())
        assert card["key"] == stage["key"] and card["chain"][-1] == {"stage": stage["name"], "key": card["key"]}


def test_a_later_stage_needs_those_before_it() -> None:
    config = nmce_config()
    first = go(config)
    keys = [stage["key"] for stage in first["stages"]]
    before = [{"stage": name, "key": key} for name, key in zip(("pretrain", "heads"), keys, strict=False)]
    cards = []
    for stage in first["stages"]:
        folder = write(config, stage["name"], stage["name"])
        cards.append((json.loads((folder / "card.json").read_text()), (folder / "README.md").read_text()))
    assert [card["needs"] for card, _ in cards] == [[], before[:1], before]
    assert "must have" not in cards[0][1]
    assert f"must have pretrain {keys[0]} too" in cards[1][1]
    assert f"must have pretrain {keys[0]} and heads {keys[1]} too" in cards[2][1]
    shutil.rmtree("checkpoints/finetune")
    shutil.move("checkpoints/pretrain", "pretrain")
    shutil.rmtree("storage")
    with pytest.raises(InputError, match="stage pretrain of this configuration is not in the store"):
        go(config, start_from="finetune")
    shutil.move("pretrain", "checkpoints/pretrain")
    again = go(config, start_from="finetune")
    assert [stage["cached"] for stage in again["stages"]] == [True, True, False]
    assert [stage["key"] for stage in again["stages"]] == keys
    assert [stage["checkpoint"] for stage in again["stages"]] == ["pretrain", "heads", "heads"]


def test_a_later_stage_belongs_from_then_on_to_the_weights_that_it_was_put_beside() -> None:
    config = nmce_config()
    key = go(config)["stages"][1]["key"]
    for stage in ("pretrain", "heads"):
        write(config, stage, stage)
    shutil.rmtree("storage")
    go(config)
    entry = Store("storage").load(key)
    assert entry is not None and entry.meta["checkpoint"] == "heads" and entry.meta["read"]
    shutil.rmtree("checkpoints")
    marks = [go(config, start_from=stage)["stages"][1]["cached"] for stage in ("finetune", "pretrain")]
    assert marks == [True, False], "what was computed anew is not what they were trained behind"


def test_a_later_stage_is_not_taken_behind_other_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 1 made again, on another device say, lies under the same key with other weights."""
    config = nmce_config()
    first = go(config)["stages"]
    card = json.loads((write(config, "heads", "heads") / "card.json").read_text())
    assert card["read"] and card["needs"] == [{"stage": "pretrain", "key": first[0]["key"]}]
    store = Store("storage")
    entry = store.load(first[0]["key"])
    assert entry is not None
    for module in entry.state["weights"].values():
        for value in module.values():
            value.mul_(1.01) if value.is_floating_point() else None
    store.save(first[0]["key"], entry.state, entry.meta)
    again = go(config)["stages"]
    assert [stage["cached"] for stage in again] == [True, False, False]
    assert "trained behind other weights of backbone, pre_feature: not taken" in capsys.readouterr().err
    with pytest.raises(InputError, match="stage heads of this configuration is not in the store"):
        store.save(first[0]["key"], entry.state | {"weights": start(config)}, entry.meta)
        write(config, "other", "heads")


def test_a_card_that_does_not_say_behind_what_it_was_trained_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    config = nmce_config()
    go(config)
    for stage in ("pretrain", "heads"):
        folder = write(config, stage, stage)
    card = json.loads((folder / "card.json").read_text())
    del card["read"]
    (folder / "card.json").write_text(json.dumps(card))
    shutil.rmtree("storage")
    assert [stage["cached"] for stage in go(config)["stages"]] == [True, False, False]
    assert "trained behind weights that its card does not name: not taken" in capsys.readouterr().err


def start(config: Config) -> Weights:
    """What stage 1 begins with."""
    method = METHODS[config.method]
    return weights_of(enter(method, method.stages(config)[0], config, (1, 8, 8), 10, {}, 0))


def tensors() -> Weights:
    """Of the sizes that the papers' nets have, and odd ones."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv": (512, 512, 3, 3), "linear": (4096, 512), "odd": (7, 13), "bias": (4096,)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {"net": state | {"count": torch.tensor(12345678901)}}


@pytest.mark.parametrize("most", [1_000_000, 300_000, shards.SHARD_BYTES])
def test_no_file_is_larger_than_asked_and_all_are_safetensors(tmp_path: Path, most: int) -> None:
    weights, files = tensors(), []
    for at, content in enumerate(shards.written(weights, most)):
        path = tmp_path / f"w-{at}.safetensors"
        path.write_bytes(content)
        assert len(content) <= most
        with safe_open(path, "pt") as file:
            assert list(file.keys())
        files.append({"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    payload = sum(value.numel() * (2 if value.dim() > 1 else 4) for value in weights["net"].values())
    assert len(files) <= -(-payload // most) + 2, "they are filled"
    back = shards.read(tmp_path, files, weights)
    for name, value in weights["net"].items():
        want = value.half().float() if value.dim() > 1 else value
        assert torch.equal(back["net"][name], want), name


def test_a_limit_applies_to_a_checkpoint_of_a_net() -> None:
    config = config_of()
    go(config)
    out = write(config, limit=3000)
    sizes = [path.stat().st_size for path in out.glob("*.safetensors")]
    assert len(sizes) > 3 and max(sizes) <= 3000
    assert any("#" in name for path in out.glob("*.safetensors") for name in load_file(path)), "a tensor was cut"
    shutil.rmtree("storage")
    assert go(config, start_from="heads")["stages"][0]["checkpoint"] == "stage-1"


def test_what_float16_cannot_hold() -> None:
    with pytest.raises(InputError, match=r"net.a has a weight of 70000: float16 ends at 65504"):
        shards.written({"net": {"a": torch.full((2, 2), 7e4)}})
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(InputError, match=r"net.a is not finite"):
            shards.written({"net": {"a": torch.tensor([1.0, wrong])}})
    tiny = {"net": {"tiny": torch.full((3, 3), 1.3e-7), "zero": torch.zeros(2, 2), "bias": torch.tensor([7e4])}}
    (content,) = shards.written(tiny)
    Path("w.safetensors").write_bytes(content)
    kept = load_file("w.safetensors")
    assert torch.equal(kept["net.tiny"], tiny["net"]["tiny"]), "float16 has 2 digits there: it stays as it is"
    assert kept["net.zero"].dtype == torch.float16 and torch.equal(kept["net.bias"], tiny["net"]["bias"])


def test_cifar_20_and_100_and_both_methods_share_a_stage_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_compact(tmp_path)
    known = {name: small(name, (7, 2)).load(tmp_path) for name in ("cifar20", "cifar100")}

    def found(config: Config, root: str | None) -> Dataset:
        return known[config.dataset]

    monkeypatch.setattr(datasets, "load_once", found)
    few = {"backbone": "conv_colour", "pre_feature_dim": 16, "feature_dim": 8, "n_clusters": 2, "pretrain.epochs": 1}
    few |= {"heads.epochs": 1, "pretrain.batch_size": 7, "heads.batch_size": 7}
    nmce = load_space("nmce_cifar20").config(few | {"heads.epochs": 0, "finetune.epochs": 0, "clustering": "kmeans"})
    first = go(nmce)
    write(nmce, "cifar")
    mlc = [load_space(name).config(few) for name in ("mlc_cifar20", "mlc_cifar100")]
    for at, config in enumerate(mlc):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree("storage")
        result = go(config, f"mlc-{at}", start_from="heads", smoke=False)
        assert result["stages"][0]["key"] == first["stages"][0]["key"]
        assert [stage["checkpoint"] for stage in result["stages"]] == ["cifar", "cifar"]
    assert capsys.readouterr().err.count("pretrain: weights of checkpoint") == 2
    own = load_space("mlc_cifar20_paper").config(few)
    with pytest.raises(
        InputError, match=r"checkpoint cifar is of pretrain.similarity_weight=50.*augmentation=cifar, ask"
    ):
        go(own, start_from="heads")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of the shard and what the card says of the file."""
    (path,) = folder.glob("*.safetensors")
    held = load_file(path)
    change(held)
    save_file(held, path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    edit(folder, files=[{"name": path.name, "bytes": len(content), "sha256": digest}])


def shard(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def flip(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[-1] ^= 1
    shard(folder).write_bytes(content)


def rename(folder: Path, name: str) -> None:
    (file,) = json.loads((folder / "card.json").read_text())["files"]
    edit(folder, files=[file | {"name": name}])


def other_file(folder: Path) -> None:
    content = b"\x80\x04K\x01."  # a pickle
    shard(folder).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit(folder, files=[{"name": shard(folder).name, "bytes": len(content), "sha256": digest}])


def facts_changed(folder: Path) -> None:
    facts = json.loads((folder / "card.json").read_text())["facts"]
    edit(folder, facts=facts | {"settings": facts["settings"] | {"epochs": 600}})


def halves(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The first in float16, the second in a type of which nothing is written."""
    first, second = tensor.reshape(-1).chunk(2)
    return {f"{WEIGHT}#0": first.clone(), f"{WEIGHT}#1": second.to(torch.float8_e4m3fn)}


WEIGHT = "projection.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip, "weights-00.safetensors is not the file that its card was written for (sha256)"),
    "torn": (lambda f: shard(f).write_bytes(shard(f).read_bytes()[:-9]), "bytes, its card says"),
    "missing": (lambda f: shard(f).unlink(), "weights-00.safetensors: No such file or directory"),
    "foreign": (
        lambda f: shutil.copy(shard(f), f / "weights-01.safetensors"),
        "weights-01.safetensors is not one of the shards that its card names",
    ),
    "above": (lambda f: rename(f, "../weights-00.safetensors"), "'../weights-00.safetensors' is no name of a shard"),
    "absolute": (lambda f: rename(f, str(shard(f))), "is no name of a shard"),
    "pickle's name": (lambda f: rename(f, "model.pt"), "'model.pt' is no name of a shard"),
    "no safetensors": (other_file, "weights-00.safetensors is no safetensors file"),
    "unsaid": (lambda f: edit(f, files=["weights-00.safetensors"]), "does not say name, bytes and sha256"),
    "facts": (facts_changed, "the key in its card.json is not that of the facts in it"),
    "curve": (lambda f: edit(f, curve=[1, 2]), "its curve is no list of rows of words and numbers"),
    "a row in a row": (lambda f: edit(f, curve=[{"epoch": 1, "loss": [2.0]}]), "its curve is no list of rows of words"),
    "no number": (lambda f: edit(f, curve=[{"epoch": 1, "loss": None}]), "its curve is no list of rows of words"),
    "nan": (lambda f: edit(f, curve=[{"loss": float("nan")}]), "a number in its card.json is not finite"),
    "infinite": (lambda f: edit(f, made={"cores": float("inf")}), "a number in its card.json is not finite"),
    "scored": (lambda f: edit(f, scored="digits"), "`scored` in its card.json is neither null nor a list"),
    "made": (lambda f: edit(f, made=["2026"]), "`made` in its card.json is neither null nor a dict"),
    "endless": (
        lambda f: edit(f, files=[{"name": "weights-00.safetensors", "bytes": float("inf"), "sha256": ""}]),
        "does not say name, bytes and sha256",
    ),
    "format": (lambda f: edit(f, format=2), "its format is 2, this raymc reads 1"),
    "a tensor less": (lambda f: rewrite(f, lambda held: held.pop(WEIGHT)), f"{WEIGHT} is missing"),
    "a tensor more": (
        lambda f: rewrite(f, lambda held: held.update({"x.y": torch.ones(1)})),
        "x.y is no tensor of this net",
    ),
    "shape": (
        lambda f: rewrite(f, lambda held: held.update({WEIGHT: held[WEIGHT].mT.contiguous()})),
        f"{WEIGHT} is of shape [32, 16], this net's of [16, 32]",
    ),
    "a piece": (
        lambda f: rewrite(f, lambda held: held.update({f"{WEIGHT}#1": held.pop(WEIGHT)})),
        f"{WEIGHT} lacks a piece",
    ),
    "type": (
        lambda f: rewrite(f, lambda held: held.update({WEIGHT: held[WEIGHT].int()})),
        f"{WEIGHT} is of type torch.int32, this net's of torch.float32",
    ),
    "float8": (
        lambda f: rewrite(f, lambda held: held.update({WEIGHT: held[WEIGHT].to(torch.float8_e4m3fn)})),
        f"{WEIGHT} is of type torch.float8_e4m3fn, this net's of torch.float32",
    ),
    "a piece of float8": (
        lambda f: rewrite(f, lambda held: held.update(halves(held.pop(WEIGHT)))),
        f"{WEIGHT} is of type torch.float8_e4m3fn, this net's of torch.float32",
    ),
    "float64": (
        lambda f: rewrite(f, lambda held: held.update({WEIGHT: held[WEIGHT].double()})),
        f"{WEIGHT} is of type torch.float64, this net's of torch.float32",
    ),
    "not finite": (
        lambda f: rewrite(f, lambda held: held[WEIGHT].fill_(torch.nan)),
        f"{WEIGHT} is not finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_what_it_says_is_refused(made: Path, what: str) -> None:
    spoil, told = REFUSED[what]
    spoil(made)
    for start in ("heads", None):
        with pytest.raises(InputError) as refused:
            go(config_of(), start_from=start)
        assert str(refused.value).startswith(f"checkpoint {made}: ") and told in str(refused.value)
        assert "\n" not in str(refused.value)
    key = json.loads(Path("before.json").read_text())["stages"][0]["key"]
    assert Store("storage").load(key) is None, "nothing of it is in the store"


NEAR = [
    ({"pretrain__epochs": 5}, "pretrain.epochs=3, asked 5"),
    ({"pretrain__epochs": 5, "pretrain__eps_sq": 0.3}, "pretrain.epochs=3, asked 5; pretrain.eps_sq=0.2, asked 0.3"),
    ({"seed": 7}, "seed=0, asked 7"),
    ({"augmentation": "none"}, "augmentation=digits, asked none"),
    ({"feature_dim": 8}, "another net"),
]


@pytest.mark.parametrize(("changes", "told"), NEAR)
def test_another_configuration_is_told_how_it_differs(made: Path, changes: dict[str, Any], told: str) -> None:
    shutil.copytree(made, made.parent / "far")
    card = json.loads((made / "card.json").read_text())
    edit(made.parent / "far", facts=card["facts"] | {"settings": 3, "loss": ["other", 1]})
    with pytest.raises(InputError) as refused:
        go(config_of(**changes), start_from="heads")
    missing = "stage pretrain of this configuration is not in the store: train without --from first"
    assert str(refused.value) == f"{missing}; checkpoint stage-1 is of {told}", "the nearest one is named"


def test_cards_of_others_are_passed_over(made: Path) -> None:
    for name, text in (
        ("torn", '{"format": 1, "sta'),
        ("list", "[]"),
        ("deep", "[" * 100_000),
        ("other", '{"stage": "pretrain"}'),
    ):
        (made.parent / name).mkdir()
        (made.parent / name / "card.json").write_text(text)
    edit(made, dataset="other", facts={"data": "others"}, key="0" * 32)
    with pytest.raises(InputError, match="train without --from first$"):
        go(config_of(), start_from="heads")
    assert go(config_of())["stages"][0]["cached"] is False


def test_where_checkpoints_are_looked_for(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.undo()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    tree = Path(checkpoint.__file__).parents[2] / "checkpoints"
    assert checkpoint.folders() == [elsewhere / "checkpoints", tree]
    monkeypatch.setenv("RAYMC_CHECKPOINTS", str(made.parent))
    assert checkpoint.folders() == [made.parent]
    assert [one.name for one in checkpoint.checkpoints()] == ["stage-1"]
    monkeypatch.setenv("RAYMC_CHECKPOINTS", f"{made.parent}{os.pathsep}.")
    assert checkpoint.folders() == [made.parent, Path(".")]
    assert checkpoint.handed_on() == f"{made.parent}{os.pathsep}{elsewhere}"
    monkeypatch.setenv("RAYMC_CHECKPOINTS", "nowhere")
    with pytest.raises(InputError, match="RAYMC_CHECKPOINTS: nowhere is no folder"):
        checkpoint.folders()


def test_a_worker_looks_where_the_command_does_and_nowhere_else(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(made.parents[1])
    assert made.parent in checkpoint.folders(), "it lies where one looks without RAYMC_CHECKPOINTS"
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setenv("RAYMC_CHECKPOINTS", "")
    for handed, found in (("/gone/a", []), ("", []), (os.pathsep.join(["/gone/a", str(other), "/gone/b"]), [other])):
        checkpoint.take_over(handed)
        assert checkpoint.folders() == found and not list(checkpoint.checkpoints())
    checkpoint.take_over(os.pathsep.join(["/gone/a", str(made.parent)]))
    assert [one.name for one in checkpoint.checkpoints()] == ["stage-1"]


def _command(module: Any, *words: str) -> int:
    return execute(module.parser(), module.run, [*words, "--storage", "storage", "--data", "data", "--json"])


WORDS = ["mlc_digits", *(f"{key}={value}" for key, value in SMALL.items())]


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert _command(train, *WORDS, "--out", "a", "--seed", "3") == 0
    capsys.readouterr()
    assert _command(command, *WORDS, "--out", "checkpoints/one", "--seed", "3") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert (result["stage"], result["files"]) == ("pretrain", 1) and Path(result["checkpoint"]).is_dir()
    assert "stage pretrain, 3 epochs: 1 files" in shown.err
    assert result["needs"] == [] and "must have" not in shown.err
    assert _command(command, *WORDS, "--out", "two", "--seed", "3", "--stage", "heads") == 0
    shown = capsys.readouterr()
    assert f"must have pretrain {result['key']} too" in shown.err.splitlines()[-1]
    assert json.loads(shown.out)["needs"] == [{"stage": "pretrain", "key": result["key"]}]
    shutil.rmtree("storage")
    assert _command(train, *WORDS, "--out", "b", "--seed", "3", "--from", "heads") == 0
    shown = capsys.readouterr()
    assert "pretrain: weights of checkpoint" in shown.err
    assert "started from the float16 weights of checkpoint one" in shown.err
    labels = [np.load(f"{out}/labels.npz")["labels"] for out in "ab"]
    assert labels[0].shape == labels[1].shape
    flip(Path("checkpoints/one"))
    shutil.rmtree("storage")
    assert _command(train, *WORDS, "--out", "c", "--seed", "3", "--from", "heads") == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "(sha256)" in shown.err and not Path("c").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--out", "x"), "stage pretrain of this configuration is not in the store: train it first"),
        (("--out", "x", "--smoke"), "--smoke: weights of a shortened training are no start for anyone"),
        (
            ("--out", "x", "--stage", "finetune"),
            "--stage: finetune is not one of the stages that train: pretrain, heads",
        ),
        (("--out", "."), "is there already"),
        ((), "the following arguments are required: --out"),
    ],
)
def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str) -> None:
    assert _command(command, *WORDS, *words) == 2
    shown = capsys.readouterr()
    assert told in shown.err and shown.err.count("\n") == 1 and not Path("x").exists()


@pytest.mark.slow
def test_workers_under_ray_train_find_it_too() -> None:
    """In another working folder than that of the command."""
    pytest.importorskip("ray")
    words = [sys.executable, "-m", "raymc.train", *WORDS, "n_samples=300"]
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1])}

    def ended(*more: str) -> Any:
        return subprocess.run([*words, *more, "--json"], env=environment, capture_output=True, text=True, timeout=600)

    first = ended("--out", "one")
    assert first.returncode == 0, first.stderr
    exported = [*words[:2], "raymc.checkpoint", *words[3:], "--out", "checkpoints/two"]
    subprocess.run(exported, env=environment, check=True, capture_output=True, timeout=600)
    shutil.rmtree("raymc-storage")
    again = ended("--out", "other", "--workers", "2", "--from", "heads")
    assert again.returncode == 0, again.stderr
    assert "started from the float16 weights of checkpoint two" in again.stderr
    assert [stage["cached"] for stage in json.loads(again.stdout.splitlines()[-1])["stages"]] == [True, False]
