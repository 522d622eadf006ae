"""Checkpoints of stages: there and back, shared by methods and labels, and refused where they are not what they say."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import load_torch_model
from safetensors.torch import load_file, save
from torch import nn

from raymc import datasets, train
from raymc.cli import execute
from raymc.commands import checkpoint as command
from raymc.config import Config, resolve
from raymc.datasets import Dataset, load
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space.space import load_space
from raymc.storage.stage_store import Entry, Store
from raymc.training.checkpoints import find, weights
from raymc.training.checkpoints.export import export
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import seeds_of
from tests.fabricated_data import small, write_compact

SMALL = {"pre_feature_dim": 32, "feature_dim": 16, "pretrain.batch_size": 64, "heads.batch_size": 64}
SMALL |= {"pretrain.epochs": 3, "pretrain.warmup_epochs": 0, "heads.epochs": 2}
WORDS = ["mlc_digits", *(f"{key}={value}" for key, value in SMALL.items())]
ORIGIN = {"space": "mlc_digits", "command": "python -m raymc.train mlc_digits"}
ABSENT = "stage pretrain of this configuration is not in the store: train "
Row = dict[str, Any]


def config_of(**overrides: Any) -> Config:
    mlc = METHODS["mlc"]  # whose clusters cannot collapse, however short the training
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return resolve("mlc", "digits", "shared", mlc.stage_settings, mlc.presets["digits"]["shared"], SMALL, keys)


def nmce_config() -> Config:
    """Three stages, of which the second keeps in the store only what it changed."""
    nmce = METHODS["nmce"]
    few = SMALL | {"finetune.batch_size": 64, "finetune.epochs": 1}
    return resolve("nmce", "digits", "paper", nmce.stage_settings, nmce.presets["digits"]["paper"], few, {})


def seeds(config: Config) -> Row:
    return dict(seeds_of(tuple(METHODS[config.method].stage_settings), config.seed, 0, config.seeds_from))


def go(config: Config, start_from: str | None = None, out: str = "out", storage: str = "storage") -> Row:
    return run(config, storage=storage, out=Path(out), stage_seeds=seeds(config), start_from=start_from)


def write(config: Config, name: str = "stage-1", stage: str = "pretrain", storage: str = "storage") -> Path:
    out = Path("checkpoints").resolve() / name
    export(config, stage, seeds(config), out, storage=storage, data=None, origin=ORIGIN)
    return out


def card_of(folder: Path) -> Row:
    return dict(json.loads((folder / "card.json").read_text()))


def edit(folder: Path, **changes: Any) -> None:
    (folder / "card.json").write_text(json.dumps(card_of(folder) | changes))


def of_stages(result: Row, key: str) -> list[Any]:
    return [stage.get(key) for stage in result["stages"]]


def stored(key: str, storage: str = "storage") -> Entry:
    entry = Store(storage).load(key)
    assert entry is not None
    return entry


@pytest.fixture(scope="module", autouse=True)
def digits() -> Iterator[None]:
    """300 digits: enough to see bookkeeping go wrong."""
    few = limit(load("digits"), 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_once", lambda config, root: few)
        yield


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own, whose checkpoints are the only ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "folders", lambda: [Path("checkpoints").resolve()])


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Row]]:
    """The store and the result of a training of each method."""
    folder, configs = tmp_path_factory.mktemp("trainings"), (config_of(), nmce_config())
    stores = [folder / config.method for config in configs]
    return {c.method: (at, go(c, None, f"{at}-out", str(at))) for c, at in zip(configs, stores, strict=True)}


@pytest.fixture
def first(trainings: dict[str, tuple[Path, Row]]) -> Row:
    """What was trained where `whole` is the store; there is none in `storage`."""
    shutil.copytree(trainings["mlc"][0], "whole")
    return trainings["mlc"][1]


@pytest.fixture
def stage_1(first: Row) -> Path:
    """A checkpoint of stage 1."""
    return write(config_of(), storage="whole")


@pytest.fixture
def three(trainings: dict[str, tuple[Path, Row]]) -> list[Row]:
    """The stages of a training of three, whose store is `storage`."""
    shutil.copytree(trainings["nmce"][0], "storage")
    return list(trainings["nmce"][1]["stages"])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_there_and_back(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(precision=precision)
    first = go(config, out="first", storage="whole")
    out = write(config, storage="whole")
    again = go(config, "heads")
    assert capsys.readouterr().err == f"pretrain: weights of checkpoint {out} (float16), now in the store\n"
    assert of_stages(again, "cached") == [True, False] and of_stages(again, "key") == of_stages(first, "key")
    kept = load_file(out / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float16, torch.float32, torch.int64}
    before, after = (stored(first["stages"][0]["key"], place).state["weights"] for place in ("whole", "storage"))
    assert {f"{module}.{name}" for module, state in before.items() for name in state} == kept.keys()
    for module, state in before.items():
        for name, value in state.items():  # biases and BatchNorm are exact in float32
            want = value.half() if value.dim() > 1 else value.float()
            assert torch.equal(after[module][name], want.to(value.dtype))
    curves = [Path(at, "curve.jsonl").read_text().splitlines() for at in ("first", "out")]
    losses = [[json.loads(row)["loss"] for row in curve] for curve in curves]
    assert losses[0][:3] == losses[1][:3], "the curve of stage 1 came along"
    assert losses[1][3:] == pytest.approx(losses[0][3:], rel=1e-3), "stage 2 goes where it would have"
    assert again["metrics"]["acc"] == pytest.approx(first["metrics"]["acc"], abs=0.03)
    assert again["metrics"]["rate_reduction"] == pytest.approx(first["metrics"]["rate_reduction"], rel=0.01)


def test_all_that_follows_says_that_weights_were_float16(first: Row, stage_1: Path) -> None:
    anew = go(config_of(), "pretrain", storage="other")
    assert of_stages(anew, "checkpoint") == [None] * 2 and of_stages(anew, "cached") == [False] * 2
    marks = [of_stages(go(config_of()), "checkpoint") for _ in range(2)]
    assert marks == [["stage-1"] * 2] * 2, "computed from it, and then taken from the store"
    assert of_stages(json.loads(Path("out/metrics.json").read_text()), "checkpoint")[1] == "stage-1"
    whole = go(config_of(), storage="whole")
    assert of_stages(whole, "checkpoint") == [None] * 2, "a store that has the stage needs none"
    shutil.rmtree("checkpoints")
    write(config_of(), "later", "heads", storage="whole")
    again = go(config_of(), storage="another")
    assert of_stages(again, "checkpoint") == [None, "later"], "a later stage can be kept too"
    assert again["metrics"]["acc"] == pytest.approx(first["metrics"]["acc"], abs=0.02)


def test_the_card_says_how_it_was_trained(first: Row, stage_1: Path) -> None:
    card, page = card_of(stage_1), (stage_1 / "README.md").read_text()
    assert card["key"] == first["stages"][0]["key"] and card["chain"] == [{"stage": "pretrain", "key": card["key"]}]
    assert (card["seed"], card["epochs"], card["stage"], card["next"]) == (0, 3, "pretrain", "heads")
    assert [row["epoch"] for row in card["curve"]] == [1, 2, 3]
    assert card["configuration"]["pretrain.epochs"] == 3 and "heads.epochs" not in card["configuration"]
    assert card["data"]["fingerprint"] == card["facts"]["data"] and card["data"]["n"] == 300
    assert card["made"]["versions"]["torch"] and card["made"]["hardware"]["cores"]
    for file in card["files"]:
        content = (stage_1 / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
        assert f"| {file['name']} | {file['bytes']:,} | `{file['sha256']}` |" in page
    assert "python -m raymc.train mlc_digits --from heads" in page and card["key"] in page and "must have" not in page
    assert str(Path.cwd()) not in page + json.dumps(card), "no path of the machine"


def test_a_later_stage_needs_those_before_it_and_belongs_to_their_weights(three: list[Row]) -> None:
    config, keys, chain = nmce_config(), [stage["key"] for stage in three], []
    for stage in three:
        folder = write(config, stage["name"], stage["name"])
        card, needs = card_of(folder), " and ".join(f"{one['stage']} {one['key']}" for one in chain)
        assert card["needs"] == chain and card["key"] == stage["key"]
        assert f"must have {needs} too" in (folder / "README.md").read_text() or not chain
        chain = [*chain, {"stage": stage["name"], "key": stage["key"]}]
        assert card["chain"] == chain
    shutil.rmtree("checkpoints/finetune")
    shutil.move("checkpoints/pretrain", "pretrain")
    shutil.rmtree("storage")
    with pytest.raises(InputError, match=ABSENT):
        go(config, "finetune")
    with pytest.raises(InputError, match=ABSENT):
        write(config, "other", "heads")
    shutil.move("pretrain", "checkpoints/pretrain")
    again = go(config, "finetune")
    assert of_stages(again, "cached") == [True, True, False] and of_stages(again, "key") == keys
    assert of_stages(again, "checkpoint") == ["pretrain", "heads", "heads"] and stored(keys[1]).meta["read"]
    shutil.rmtree("checkpoints")
    marks = [of_stages(go(config, stage), "cached")[1] for stage in ("finetune", "pretrain")]
    assert marks == [True, False], "what was computed anew is not what they were trained behind"


def test_a_later_stage_is_not_taken_behind_other_weights(three: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 1 trained again, on another device say, lies under the same key with other weights."""
    config, store, key = nmce_config(), Store("storage"), three[0]["key"]
    folder, entry = write(config, "heads", "heads"), stored(key)
    for state in entry.state["weights"].values():
        state |= {name: value * 1.01 for name, value in state.items() if value.is_floating_point()}
    store.save(key, entry.state, entry.meta)
    with pytest.raises(InputError, match="stage heads of this configuration is not in the store"):
        write(config, "other", "heads")
    for read, told in (
        (True, "other weights of backbone, pre_feature"),
        (False, "weights that its card does not name"),
    ):
        edit(folder, read=card_of(folder)["read"] if read else None)
        assert of_stages(go(config, storage=shutil.copytree("storage", f"storage-{read}")), "cached")[:2] == [
            True,
            False,
        ]
        assert f"trained behind {told}: not taken" in capsys.readouterr().err


def test_files_have_a_bounded_size_and_are_those_of_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tensors of the sizes that the papers' nets have, and odd ones."""
    shapes = {"conv": (512, 512, 3, 3), "linear": (4096, 512), "odd": (7, 13), "bias": (4096,)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()} | {"count": torch.tensor(12345678901)}
    for most, shards in ((weights.FILE_BYTES, 1), (5_000_000, 2)):
        monkeypatch.setattr(weights, "FILE_BYTES", most)
        folder = Path(f"of-{most}")
        files = weights.write({"net": state}, folder)
        assert {path.name: path.stat().st_size for path in folder.iterdir()} == {f["name"]: f["bytes"] for f in files}
        assert max(file["bytes"] for file in files) <= most and len(files) == (shards if shards == 1 else shards + 1)
        net = nn.ModuleDict({"net": nn.Module()})
        for name, value in state.items():
            net["net"].register_buffer(name, torch.zeros_like(value))
        load_torch_model(net, folder, strict=True)
        for back in (weights.read(folder, files, {"net": state})["net"], net["net"].state_dict()):
            for name, value in state.items():
                assert torch.equal(back[name], value.half().float() if value.dim() > 1 else value), name
    monkeypatch.setattr(weights, "FILE_BYTES", 4_700_000)
    with pytest.raises(InputError, match=r"net.conv has 4,718,592 bytes, a file of a checkpoint has room for 4,69"):
        weights.write({"net": state}, Path("none"))
    assert not Path("none").exists()


def test_a_training_goes_on_from_shards_whose_index_cannot_be_changed(
    first: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FILE_BYTES", 200_000)
    out = write(config_of(), storage="whole")
    assert len(list(out.glob("model-0000?-of-0000?.safetensors"))) > 1
    assert go(config_of(), "heads")["stages"][0]["checkpoint"] == "stage-1"
    index = out / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("-00001-", "-00002-"))
    with pytest.raises(InputError, match=r"index.json is not the file that its card was written for \(sha256\)"):
        go(config_of(), "heads", storage="other")


def test_what_float16_cannot_hold() -> None:
    for values, told in (
        ([[7e4]], "net.a has a weight of 70000: float16 ends at 65504"),
        ([torch.nan], "net.a is not finite"),
        ([1.0, torch.inf], "net.a is not finite"),
    ):
        with pytest.raises(InputError, match=told):
            weights.write({"net": {"a": torch.tensor(values)}}, Path("none"))
    tiny = {"net": {"tiny": torch.full((3, 3), 1.3e-7), "zero": torch.zeros(2, 2), "bias": torch.tensor([7e4])}}
    weights.write(tiny, Path("tiny"))
    kept = load_file("tiny/model.safetensors")
    assert torch.equal(kept["net.tiny"], tiny["net"]["tiny"]), "float16 has 2 digits there: it stays as it is"
    assert kept["net.zero"].dtype == torch.float16 and torch.equal(kept["net.bias"], tiny["net"]["bias"])


def test_a_folder_is_written_whole_or_not_at_all(first: Row) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as good as a full disk
    try:
        with pytest.raises(InputError, match=r"^--out .*stage-1 cannot be written: .*File too large"):
            write(config_of(), storage="whole")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(Path("checkpoints").iterdir())
    assert list(write(config_of(), storage="whole").parent.iterdir()) == [Path("checkpoints/stage-1").resolve()]


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
        result = go(config, "heads", storage=f"of-{at}")
        assert result["stages"][0]["key"] == first["stages"][0]["key"]
        assert of_stages(result, "checkpoint") == ["cifar", "cifar"]
    assert capsys.readouterr().err.count("pretrain: weights of checkpoint") == 2
    own = load_space("mlc_cifar20_paper").config(few)
    told = r"checkpoint cifar is of pretrain.similarity_weight=50.*augmentation=cifar, ask"
    with pytest.raises(InputError, match=told):
        go(own, "heads", storage="own")


WEIGHT = "projection.weight"
CHANGED = "model.safetensors is not the file that its card was written for (sha256)"
NO_ROWS = "its curve is no list of rows of words and numbers"
NOT_FINITE = "a number in its card.json is not finite"
UNSAID = "does not say name, bytes and sha256"
REFUSED: list[tuple[str, Any, str]] = [
    ("bytes", lambda content: content[:-1] + bytes([content[-1] ^ 1]), CHANGED),
    ("bytes", lambda content: content[:-9], "bytes, its card says"),
    ("known bytes", lambda content: b"\x80\x04K\x01.", "model.safetensors is no safetensors file"),  # a pickle
    ("folder", lambda out: (out / "model.safetensors").unlink(), "model.safetensors: No such file or directory"),
    ("folder", lambda out: shutil.copy(out / "model.safetensors", out / "b.safetensors"), "b.safetensors is not one "),
    ("folder", lambda out: edit(out, files=card_of(out)["files"] * 2), "stands twice"),
    ("folder", lambda out: spoil("file", {"name": f"{out}/model.safetensors"}, out), "is no name of a shard"),
    ("file", {"name": "../model.safetensors"}, "'../model.safetensors' is no name of a shard"),
    ("file", {"name": "model.pt"}, "'model.pt' is no name of a shard"),
    ("file", {"bytes": float("inf")}, UNSAID),
    ("card", {"files": ["model.safetensors"]}, UNSAID),
    ("card", {"facts": {"settings": {"epochs": 600}}}, "the key in its card.json is not that of the facts in it"),
    ("card", {"curve": [1, 2]}, NO_ROWS),
    ("card", {"curve": [{"epoch": 1, "loss": [2.0]}]}, NO_ROWS),
    ("card", {"curve": [{"epoch": 1, "loss": None}]}, NO_ROWS),
    ("card", {"curve": [{"loss": float("nan")}]}, NOT_FINITE),
    ("card", {"made": {"cores": float("inf")}}, NOT_FINITE),
    ("card", {"scored": "digits"}, "`scored` in its card.json is neither null nor a list"),
    ("card", {"made": ["2026"]}, "`made` in its card.json is neither null nor a dict"),
    ("card", {"format": 3}, "its format is 3, this raymc reads 2"),
    ("card", {"format": 1}, "its format is 1, this raymc reads 2: write it again with "),
    ("tensors", lambda held: held.pop(WEIGHT), f"{WEIGHT} is missing"),
    ("tensors", lambda held: held.update({f"{WEIGHT}#1": held.pop(WEIGHT)}), f"{WEIGHT} is missing"),
    ("tensors", lambda held: held.update({"x.y": torch.ones(1)}), "x.y is no tensor of this net"),
    ("weight", lambda value: value.fill_(torch.nan), f"{WEIGHT} is not finite"),
    ("weight", lambda value: value.mT.contiguous(), f"{WEIGHT} is of shape [32, 16], this net's of [16, 32]"),
    ("weight", lambda value: value.int(), f"{WEIGHT} is of type torch.int32, this net's of torch.float32"),
    ("weight", lambda value: value.double(), f"{WEIGHT} is of type torch.float64, this net's of torch.float32"),
    ("weight", lambda value: value.to(torch.float8_e4m3fn), f"{WEIGHT} is of type torch.float8_e4m3fn, "),
]  # fmt: skip


def spoil(what: str, change: Any, out: Path) -> None:
    """Change a checkpoint's card, its shard, or the shard's tensors with what the card says of the file."""
    path = out / "model.safetensors"
    if what == "folder":
        change(out)
    elif what == "card":
        edit(out, **change)
    elif what == "file":
        edit(out, files=[card_of(out)["files"][0] | change])
    elif what == "weight":
        spoil("tensors", lambda held: held.update({WEIGHT: change(held[WEIGHT])}), out)
    elif what == "tensors":
        held = load_file(path)
        change(held)
        spoil("known bytes", lambda content: save(held), out)
    else:
        path.write_bytes(content := change(path.read_bytes()))
        if what == "known bytes":
            spoil("file", {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, out)


@pytest.mark.parametrize(("what", "change", "told"), REFUSED)
def test_what_is_not_what_it_says_is_refused(first: Row, stage_1: Path, what: str, change: Any, told: str) -> None:
    spoil(what, change, stage_1)
    for start in ("heads", None):
        with pytest.raises(InputError) as refused:
            go(config_of(), start)
        assert str(refused.value).startswith(f"checkpoint {stage_1}: ") and told in str(refused.value)
        assert "\n" not in str(refused.value)
    assert Store("storage").load(first["stages"][0]["key"]) is None, "nothing of it is in the store"


def test_another_configuration_says_how_the_nearest_checkpoint_differs(stage_1: Path) -> None:
    far = shutil.copytree(stage_1, stage_1.parent / "far")
    edit(far, facts=card_of(stage_1)["facts"] | {"settings": 3, "loss": ["other", 1]})
    for changes, told in (
        ({"pretrain__epochs": 5}, "pretrain.epochs=3, asked 5"),
        ({"pretrain__epochs": 5, "pretrain__eps_sq": 1}, "pretrain.epochs=3, asked 5; pretrain.eps_sq=0.2, asked 1.0"),
        ({"seed": 7}, "seed=0, asked 7"),
        ({"augmentation": "mnist"}, "augmentation=digits, asked mnist"),
        ({"feature_dim": 8}, "another net"),
    ):
        with pytest.raises(InputError) as refused:
            go(config_of(**changes), "heads")
        assert str(refused.value) == f"{ABSENT}without --from first; checkpoint stage-1 is of {told}"


def test_cards_of_others_are_passed_over(stage_1: Path) -> None:
    cards = {"torn": '{"format": 2, "sta', "list": "[]", "deep": "[" * 100_000, "other": '{"stage": "pretrain"}'}
    for name, text in cards.items():
        (stage_1.parent / name).mkdir()
        (stage_1.parent / name / "card.json").write_text(text)
    edit(stage_1, dataset="other", facts={"data": "others"}, key="0" * 32)
    with pytest.raises(InputError, match="train without --from first$"):
        go(config_of(), "heads")
    assert go(config_of())["stages"][0]["cached"] is False


def test_where_checkpoints_are_looked_for(
    stage_1: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A worker looks where the command does and nowhere else."""
    monkeypatch.undo()
    here, there = tmp_path_factory.mktemp("here"), stage_1.parent
    monkeypatch.chdir(here)
    assert find.folders() == [here / "checkpoints", Path(find.__file__).parents[3] / "checkpoints"]
    own = (f"{stage_1}", [stage_1])  # a checkpoint itself
    for value, folders in (own, (f"{there}", [there]), (f"{there}{os.pathsep}.", [there, Path(".")])):
        monkeypatch.setenv("RAYMC_CHECKPOINTS", value)
        assert find.folders() == folders and [one.folder for one in find.checkpoints()] == [stage_1]
    handed = find.handed_on()
    assert handed == f"{there}{os.pathsep}{here}"
    monkeypatch.setenv("RAYMC_CHECKPOINTS", "nowhere")
    with pytest.raises(InputError, match="RAYMC_CHECKPOINTS: nowhere is no folder"):
        find.folders()
    monkeypatch.setenv("RAYMC_CHECKPOINTS", "")
    monkeypatch.chdir(there.parent)
    assert there in find.folders(), "it lies where one looks without RAYMC_CHECKPOINTS"
    for given, found in (("/gone/a", []), ("", []), (os.pathsep.join(["/gone/a", str(here), "/gone/b"]), [here])):
        find.take_over(given)
        assert find.folders() == found and not list(find.checkpoints())
    find.take_over(os.pathsep.join(["/gone/a", handed]))
    assert [one.folder for one in find.checkpoints()] == [stage_1]


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    def ended(module: Any, *words: str) -> tuple[int, str, Row]:
        words = (*WORDS, "--seed", "3", "--storage", "storage", "--data", "data", "--json", *words)
        code, shown = execute(module.parser(), module.run, list(words)), capsys.readouterr()
        return code, shown.err, json.loads(shown.out or "{}")

    ended(train, "--out", "a")
    code, told, result = ended(command, "--out", "checkpoints/one")
    assert code == 0 and "stage pretrain, 3 epochs: 1 files" in told and "must have" not in told
    assert (result["stage"], result["files"], result["needs"]) == ("pretrain", 1, [])
    assert Path(result["checkpoint"]).is_dir()
    _, told, later = ended(command, "--out", "two", "--stage", "heads")
    assert f"must have pretrain {result['key']} too" in told.splitlines()[-1]
    assert later["needs"] == [{"stage": "pretrain", "key": result["key"]}]
    shutil.rmtree("storage")
    code, told, _ = ended(train, "--out", "b", "--from", "heads")
    assert code == 0 and "pretrain: weights of checkpoint" in told
    assert "started from the float16 weights of checkpoint one" in told
    spoil("bytes", lambda content: content[:-1], Path("checkpoints/one"))
    shutil.rmtree("storage")
    for module, words, why in (
        (train, ("--out", "c", "--from", "heads"), "bytes, its card says"),
        (command, ("--out", "c"), f"{ABSENT}it first"),
        (command, ("--out", "c", "--smoke"), "--smoke: weights of a shortened training are no start for anyone"),
        (command, ("--out", "c", "--stage", "finetune"), "--stage: finetune is not one of the stages that train: "),
        (command, ("--out", "."), "is there already"),
        (command, (), "the following arguments are required: --out"),
    ):
        code, told, _ = ended(module, *words)
        assert code == 2 and why in told and told.count("\n") == 1 and not Path("c").exists()
