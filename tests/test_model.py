"""Models that label new samples: what a training leaves, read back, asked about samples in every form, and refused."""

from __future__ import annotations

import csv
import json
import shutil
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

import raymc
from raymc import encoders
from raymc.clusterers import ASSIGNERS
from raymc.clusterers.base import Assigner
from raymc.commands import predict
from raymc.datasets import load
from raymc.errors import InputError
from raymc.estimators.model import Model, load_model
from raymc.space.space import load_space, make_space
from raymc.training import model_files
from raymc.training.run import run as train
from tests.own_data import TEXTS, D, N, X, frame, run
from tests.small_encoder import small

SHORT = {
    "nmce": {},
    "mlc": {},
    "gcml": {"finetune.centers_by": "kmeans"},
    "turtle": {"task.epochs": 1},
    **dict.fromkeys(("kmeans", "gmm", "spectral", "agglomerative", "hdbscan"), {}),
}
"""By method, or by the preset of a plain one: what keeps its training short, beside --smoke."""

BY_THE_MODEL = ("nmce", "gcml", "turtle", "kmeans", "gmm")
"""Whose training's labels come from the rule by which the model labels new samples."""


def trained(folder: Path, content: dict[str, Any], **more: Any) -> Path:
    space = make_space(folder / "space.yaml", content)
    seeds = dict.fromkeys(space.stage_settings, 0)
    train(space.config(), storage=str(folder / "store"), out=folder / "out", stage_seeds=seeds, smoke=True,
          keep_model=True, keep_rows=True, **more)  # fmt: skip
    return folder / "out"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The out folder of a short training of each method on some of the digits, trained when first asked for."""
    known: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in known:
            method = name if name in ("nmce", "mlc", "gcml", "turtle") else "plain"
            preset = "own" if method != "plain" else name
            content = {"method": method, "dataset": "digits", "preset": preset, "fixed": SHORT[name]}
            known[name] = trained(tmp_path_factory.mktemp(name), content)
        return known[name]

    return of


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a table with a column of labels and one of names."""
    folder = tmp_path_factory.mktemp("rows")
    frame(kind=TEXTS, id=[f"n{i}" for i in range(N)]).to_csv(folder / "rows.csv", index=False)
    path = folder / "mine.yaml"
    path.write_text("method: plain\ndataset: {path: rows.csv, label: kind, id: id}\n")
    space = load_space(str(path))
    train(space.config(), storage=str(folder / "store"), out=folder / "out", stage_seeds={"samples": 0},
          keep_model=True, keep_rows=True)  # fmt: skip
    return folder


def labels_csv(path: Path) -> tuple[list[str], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with path.open(newline="") as file:
        found = list(csv.reader(file))[1:]
    return [row[0] for row in found], np.array([int(row[1]) for row in found]), np.array([row[2] for row in found])


@pytest.mark.parametrize("name", SHORT)
def test_what_a_training_leaves_labels_its_samples_alike(name: str, runs: Callable[[str], Path]) -> None:
    out = runs(name)
    sample, labels, confidence = labels_csv(out / "labels.csv")
    model, x = load_model(out, device="cpu"), load("digits").train.x[[int(one) for one in sample]]
    found = model.assign(x)
    alike = found.labels.numpy() == labels
    assert model.ruled == float(alike.mean()) > 0.9 and (name not in BY_THE_MODEL or alike.all())
    assert np.array_equal(model.predict(x), found.labels) and np.array_equal(model.transform(x), found.z)
    assert np.array_equal(model.transform(x), np.load(out / "embedding.npy"))
    assert np.array_equal(np.round(model.confidence(x)[alike].astype(float), 6), confidence[alike].astype(float))
    assert model.n_features_in_ == 64 and model.embedding_dim == found.z.shape[1] and model.feature_names_in_ is None
    assert model.predict(x[:0]).shape == (0,) and model.predict(x[:1]).tolist() == [found.labels[0]]


def test_whatever_labels_new_samples_can_be_saved() -> None:
    assert set(Assigner.__subclasses__()) == set(ASSIGNERS.values())


@pytest.mark.parametrize("name", ("mlc", "gmm"))
def test_a_model_saved_again_is_the_same_to_the_byte_and_holds_no_pickle(
    name: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    first = runs(name) / "model"
    assert {path.name for path in first.iterdir()} == set(model_files.FILES)
    assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"PK") for path in first.iterdir())
    for _ in range(2):  # also in place of one that is there
        load_model(first).save(tmp_path / "again")
    assert all((first / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in model_files.FILES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt, which is no part of a model"):
        load_model(first).save(tmp_path / "mine")
    model_files.copy(tmp_path / "absent", tmp_path / "again")
    assert not (tmp_path / "again").exists() and (tmp_path / "mine" / "notes.txt").exists()


def test_samples_in_every_form_get_the_same_labels(runs: Callable[[str], Path], rows: Path) -> None:
    model, x = load_model(runs("kmeans")), load("digits").train.x[:50]
    grey, wanted = x[:, 0].numpy(), model.predict(x)
    for given in (x.numpy(), grey, grey[..., None], x / 255, torch.from_numpy(grey)):
        assert np.array_equal(model.predict(given), wanted)
    locked = grey.copy()
    locked.flags.writeable = False  # as Ray's batches are
    assert np.array_equal(model.predict(locked), wanted)
    model = load_model(rows / "out")
    _, wanted, _ = labels_csv(rows / "out" / "labels.csv")
    assert model.classes == ("iris", "lily", "rose") and list(model.feature_names_in_) == ["c0", "c1", "c2", "c3"]
    for given in (X, frame(), frame(kind=TEXTS, id=0), torch.from_numpy(X), X.tolist(), np.asfortranarray(X)):
        assert np.array_equal(model.predict(given), wanted)


def test_rows_are_labelled_some_at_a_time(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(rows / "out")
    wanted, seen = model.predict(X), []
    monkeypatch.setattr("raymc.estimators.model.ROWS", 7)
    monkeypatch.setattr(Model, "_assign", lambda self, x, of=Model._assign: seen.append(len(x)) or of(self, x))
    assert np.array_equal(model.predict(X), wanted) and seen == [7, 7, 7, 7, 2]


def changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = json.loads((folder / "config.json").read_text())
        for key, value in values.items():
            place, parts = record, key.split("__")
            for part in parts[:-1]:
                place = place[part]
            place[parts[-1]] = value
        (folder / "config.json").write_text(json.dumps(record))

    return change


def torn(name: str, content: bytes | None) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink() if content is None else _write(folder / name, content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


BAD = [
    (torn("config.json", None), "config.json: No such file"),
    (torn("config.json", b"{"), "config.json is torn or no JSON"),
    (torn("config.json", b"[]"), "is not that of a model"),
    (torn("weights.safetensors", None), "weights.safetensors: No such file"),
    (torn("weights.safetensors", b"x"), "has 1 bytes, its card says"),
    (changed(format=2), "is of format 2, this raymc reads 1"),
    (changed(weights__sha256="0" * 64), "is not the file that its card was written for"),
    (changed(weights__name="../weights.safetensors"), "is no name of a shard"),
    (changed(configuration__method="dbscan"), "unknown method dbscan"),
    (changed(configuration__n_clusers=3), "unknown key n_clusers of gcml; did you mean n_clusters?"),
    (changed(configuration__feature_dim=11), "no whole model"),
    (changed(configuration__backbone="os:system"), "backbone os:system is code, which is run only where you allow it"),
    (changed(modules=["encoder"]), "holds tensors of centers, which is no module of it"),
    (changed(modules=["encoder", "decoder", "centers", "other"]), "GCML has no module other"),
    (changed(modules=7), "no whole model"),
    (changed(assigner="CentreAssigner"), "lacks assigner"),
    (changed(scaling="unit"), "lacks shift"),
    (changed(input__shape=[1, 9, 9]), "no whole model"),
    (changed(input__shape=[64]), "neither images nor vectors"),
    (changed(input=None), "no whole model"),
    (changed(training={}), "lacks n"),
    (changed(encoder={"name": "timm:x"}), "lacks sha256"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_model_that_is_torn_foreign_or_another_is_one_line(
    change: Callable[[Path], None], said: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(runs("gcml") / "model", tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path)
    text = str(caught.value)
    assert said in text and "\n" not in text and str(tmp_path / "model") in text


NET = """
from torch import nn
from pathlib import Path
Path("ran").touch()
def net(shape):
    return nn.Sequential(nn.Flatten(1), nn.Linear(64, 8))
"""


def test_a_net_of_the_users_own_is_code_that_runs_only_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_for_models.py").write_text(NET)
    fixed = {"backbone": "mine_for_models:net"}
    out = trained(tmp_path, {"method": "nmce", "dataset": "digits", "preset": "own", "fixed": fixed})
    del sys.modules["mine_for_models"]
    (tmp_path / "ran").unlink()
    code, _, told = run(capsys, predict, str(out), "digits", "--smoke")
    assert code == 2 and told.count("\n") == 1 and "or --allow-code" in told and not Path("ran").exists()
    code, _, told = run(capsys, predict, str(out), "digits", "--smoke", "--allow-code")
    assert code == 0, told


def test_predict_on_files_and_known_data(
    rows: Path, runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training's file, its rows without labels and names or with labels that are missing, and a known set."""
    names, wanted, _ = labels_csv(rows / "out" / "labels.csv")
    frame().to_csv(tmp_path / "bare.csv", index=False)
    frame(kind=[None] * N, id=names).to_parquet(tmp_path / "unlabelled.parquet")
    np.savez(tmp_path / "x.npz", x=X, y=np.zeros(N))
    here = [str(row) for row in range(N)]
    frame()[["c3", "c1", "c0", "c2"]].to_csv(tmp_path / "order.csv", index=False)
    table = {rows / "rows.csv": names, "unlabelled.parquet": names}
    table |= dict.fromkeys(("bare.csv", "order.csv", "x.npz"), here)
    for file, called in table.items():
        words = (str(tmp_path / file), "--out", str(tmp_path / "l.csv"), "--embedding", str(tmp_path / "z.npy"))
        code, out, told = run(capsys, predict, str(rows / "out"), *words, "--json")
        result = json.loads(out)
        assert code == 0 and result["n"] == N == sum(result["clusters"].values()), told
        assert result["model"] == str(rows / "out" / "model") and result["out"] == str(tmp_path / "l.csv")
        sample, labels, _ = labels_csv(tmp_path / "l.csv")
        assert sample == called and np.array_equal(labels, wanted)
        assert np.load(tmp_path / "z.npy").shape == (N, D)
    assert (tmp_path / "l.csv").read_text().splitlines()[0] == "sample,cluster,confidence"
    code, out, _ = run(capsys, predict, str(runs("gcml")), "digits", "--out", str(tmp_path / "d.csv"), "--json")
    sample, labels, _ = labels_csv(runs("gcml") / "labels.csv")
    assert code == 0 and np.array_equal(labels_csv(tmp_path / "d.csv")[1][[int(one) for one in sample]], labels)


def test_what_predict_refuses(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame().rename(columns={"c2": "d2"}).to_csv(tmp_path / "other.csv", index=False)
    frame(more=1.0).to_csv(tmp_path / "more.csv", index=False)
    frame().drop(columns="c3").to_csv(tmp_path / "fewer.csv", index=False)
    frame().assign(c1=np.nan).to_csv(tmp_path / "nan.csv", index=False)
    frame().assign(c1="word").to_csv(tmp_path / "text.csv", index=False)
    (tmp_path / "torn.csv").write_text("")
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "empty").mkdir()
    model = str(rows / "out")
    table = {
        (model, "other.csv"): "has d2 as column 2 (counted from 0); expected: c2",
        (model, "rows.csv", "--out", str(tmp_path / "more.csv")): "holds something else than labels; give another",
        (model, "more.csv"): "has 5 columns; expected: 4, not more, the first of them more",
        (model, "fewer.csv"): "has 3 columns; expected: 4, not fewer, the first of them c3",
        (model, "nan.csv"): "the first is in row 0, column c1",
        (model, "text.csv"): "no numbers in c1",
        (model, "torn.csv"): "torn.csv is empty; expected: ",
        (model, "images.npy"): "holds images of 8x8 grey; expected: rows of 4 numbers",
        (model, "absent.csv"): "is missing, and no known dataset is called so",
        (model, "digits"): "holds images of 8x8 grey; expected: rows of 4 numbers",
        (model, "more.csv", "--out", "x.txt"): "expected: a name that ends in .csv",
        (model, "more.csv", "--embedding", "z.npz"): "expected: a name that ends in .npy",
        (str(tmp_path / "empty"), "more.csv"): "config.json: No such file",
        (str(rows / "rows.csv"), "more.csv"): "is no folder; expected: the folder of a model",
    }
    for (where, file, *words), said in table.items():
        place = tmp_path / file
        given = str(place) if place.suffix else file
        code, out, told = run(capsys, predict, where, given, *words)
        assert (code, out, told.count("\n")) == (2, "", 1) and said in told, (file, told)


def test_arrays_and_frames_of_other_kinds_are_one_line(rows: Path, runs: Callable[[str], Path]) -> None:
    table = {"rows": load_model(rows / "out"), "images": load_model(runs("kmeans"))}
    given = [
        ("rows", X[:, :3], "has 3 columns; expected: 4, not fewer"),
        ("rows", X[0], "expected: rows [n, d] of numbers"),
        ("rows", [["a"] * D], "expected: numbers"),
        ("rows", frame().rename(columns={"c2": "d2"}), "has d2 as column 2 (counted from 0); expected: c2"),
        ("rows", frame().assign(c1="word"), "has no numbers in column c1"),
        ("rows", np.full((2, D), np.inf), "holds 8 values that are missing, NaN, infinite"),
        ("rows", np.zeros((2, 8, 8), np.uint8), "holds images of 8x8 grey; expected: rows of 4 numbers"),
        ("images", X, "expected: images [n, h, w]"),
        ("images", np.zeros((2, 9, 8), np.uint8), "holds images of 8x9 grey; expected: images of 8x8 grey"),
        ("images", np.zeros((2, 8, 8, 3), np.uint8), "holds images of 8x8 colour; expected: images of 8x8 grey"),
        ("images", np.full((2, 8, 8), 2.0), "expected: floats in 0..1, or uint8"),
    ]
    for name, x, said in given:
        with pytest.raises(InputError) as caught:
            table[name].predict(x)
        assert said in str(caught.value) and str(caught.value).startswith("X") and "\n" not in str(caught.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for kind, base in {"dark": 0, "light": 190}.items():
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(base, base + 60, (14, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{number}.png")
    return tmp_path / "photos"


def test_the_encoder_of_the_training_sees_new_samples_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoders, "load", lambda *words, **more: small())
    path = tmp_path / "mine.yaml"
    path.write_text(f"method: plain\ndataset: {{path: {photos}, encoder: efficientnet_lite2}}\n")
    space, out = load_space(str(path)), tmp_path / "out"
    train(space.config(), storage=str(tmp_path / "store"), out=out, stage_seeds={"samples": 0}, keep_model=True,
          keep_rows=True)  # fmt: skip
    names, wanted, _ = labels_csv(out / "labels.csv")
    code, _, told = run(capsys, predict, str(out), str(photos), "--out", str(tmp_path / "l.csv"))
    assert code == 0, told
    assert labels_csv(tmp_path / "l.csv")[0] == names and np.array_equal(labels_csv(tmp_path / "l.csv")[1], wanted)
    shutil.copytree(photos / "dark", tmp_path / "one" / "dark")
    for path in sorted((tmp_path / "one" / "dark").iterdir())[1:]:
        path.unlink()
    code, _, told = run(capsys, predict, str(out), str(tmp_path / "one"), "--out", str(tmp_path / "l.csv"))
    assert code == 0 and labels_csv(tmp_path / "l.csv")[1].tolist() == [wanted[0]], told
    model = load_model(out)
    x = np.stack([np.asarray(Image.open(photos / name)) for name in names])
    assert model.n_features_in_ == 12 and np.array_equal(model.predict(x), wanted)
    assert model.predict(x[:0]).shape == (0,)
    with pytest.raises(InputError, match="expected: images, which the model's encoder small takes"):
        model.predict(np.zeros((2, 12)))
    other = small()
    other.module.weight.data.fill_(2)
    monkeypatch.setattr(encoders, "load", lambda *words, **more: other)
    with pytest.raises(InputError, match="encoder small has weights of sha256 .* here; the model's had"):
        load_model(out).predict(x)


def test_images_of_a_folder_get_the_trainings_size(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Grey ones too, where the training's have colours."""
    fixed = {"n_clusters": 2}
    out = trained(tmp_path, {"method": "plain", "dataset": {"path": str(photos), "side": 10}, "fixed": fixed})
    names, wanted, _ = labels_csv(out / "labels.csv")
    (tmp_path / "grey").mkdir()
    for number, name in enumerate(names):
        Image.open(photos / name).convert("L").resize((30, 30)).save(tmp_path / "grey" / f"{number}.png")
    for folder in (photos, tmp_path / "grey"):
        code, _, told = run(capsys, predict, str(out), str(folder), "--out", str(tmp_path / "l.csv"))
        assert code == 0, told
        assert sorted(labels_csv(tmp_path / "l.csv")[1]) == sorted(wanted)


def test_importing_raymc_imports_none_of_the_large_packages() -> None:
    """By what is loaded, since seconds are those of the machine."""
    heavy = {"torch", "ray", "mlflow", "optuna", "sklearn", "pandas", "scipy", "numpy"}
    code = f"import raymc, sys; raymc.__version__, dir(raymc); print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert raymc.load_model is load_model and "load_model" in dir(raymc)
    with pytest.raises(AttributeError, match="no attribute nothing"):
        raymc.nothing  # noqa: B018


def test_a_frame_is_read_by_columns_and_not_by_its_index(rows: Path) -> None:
    model = load_model(rows / "out")
    assert np.array_equal(model.predict(frame().set_index(pd.Index(range(100, 100 + N)))), model.predict(X))


def test_a_strangers_model_names_no_weights_and_fetches_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the user's paths a model has the last parts; weights are the caller's to name; other names are refused."""
    asked: list[Any] = []
    monkeypatch.setattr(encoders, "load", lambda name, weights=None, side=None: asked.append(weights) or small())
    mine = tmp_path / "mine.safetensors"
    mine.touch()
    (tmp_path / "mine.yaml").write_text(
        f"method: plain\ndataset: {{path: {photos}, encoder: 'timm:resnet18', weights: {mine}, label: folder}}\n"
    )
    out, seeds = tmp_path / "out", {"samples": 0}
    train(load_space(str(tmp_path / "mine.yaml")).config(), storage=str(tmp_path / "store"), out=out,
          stage_seeds=seeds, keep_model=True, keep_rows=True)  # fmt: skip
    folder = out / "model"
    own = json.loads((folder / "config.json").read_text())["configuration"]["own"]
    assert (own["path"], own["weights"], own["label"]) == ("photos", mine.name, "folder")
    for name in ("config.json", "README.md"):
        assert str(tmp_path) not in (folder / name).read_text()
    x = np.zeros((2, 14, 12, 3), np.uint8)
    monkeypatch.chdir(tmp_path)  # where the model's name of them is a file
    changed(configuration__own__path=str(photos))(folder)  # as models were written before
    for written in (mine.name, str(mine)):
        changed(configuration__own__weights=written)(folder)
        asked.clear()
        wanted = load_model(out).predict(x)
        assert np.array_equal(load_model(out, encoder_weights=mine).predict(x), wanted)
        load_model(out, allow_code=True).predict(x)
        assert asked == [None, str(mine), str(mine) if written == str(mine) else None]
        words = ("--out", str(tmp_path / "l.csv"))
        code, _, told = run(capsys, predict, str(out), str(photos), *words, "--weights", mine.name)
        assert code == 0 and asked[-1] == str(mine), told
    code, _, told = run(capsys, predict, str(out), str(photos), *words, "--weights", "none")
    assert code == 2 and told.count("\n") == 1 and "none is missing" in told
    names = {
        "configuration__backbone": ("timm:hf-hub:stranger/net", "timm:stranger/net", "timm:local-dir:net"),
        "encoder__name": ("timm:hf-hub:stranger/net", "timm:local-dir:net", "open_clip:hf-hub:stranger/net"),
    }
    for key, values in names.items():
        for value in values:
            shutil.copytree(folder, tmp_path / "changed", dirs_exist_ok=True)
            changed(**{key: value})(tmp_path / "changed")
            with pytest.raises(InputError, match="allow_code=True") as caught:
                load_model(tmp_path / "changed")
            assert value in str(caught.value) and "\n" not in str(caught.value)
