"""NMCE, MLC and GCML as scikit-learn estimators: its checks, the labels of `raymc train`, kinds of input, Ctrl-C."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import raymc
from raymc.commands import train
from raymc.estimators.base import ManifoldClusterer
from tests.own_data import run

pytestmark = pytest.mark.filterwarnings("ignore:about the data", "ignore:.*others are empty")
SMALL = {"mlp_width": 16, "mlp_depth": 1, "pre_feature_dim": 16, "feature_dim": 8}
QUICK: dict[str, dict[str, Any]] = {
    "NMCE": SMALL | {"pretrain.epochs": 4, "heads.epochs": 12, "finetune.epochs": 2},
    "MLC": SMALL | {"pretrain.epochs": 2, "heads.epochs": 1},
    "GCML": {"pretrain.epochs": 2, "finetune.epochs": 2, "finetune.centers_by": "kmeans"},
}
"""So short that a training of few samples takes a moment."""

LONGER = {"mlp_width": 64, "pre_feature_dim": 64, "pretrain.epochs": 60, "heads.epochs": 60, "finetune.epochs": 5}
"""What it takes until NMCE's head leaves no cluster empty, as a check of scikit-learn wants it."""

ONE_CLUSTER = "asks for one cluster, and n_clusters is 2 or more"
EXPECTED = dict.fromkeys(
    (
        "check_dont_overwrite_parameters",
        "check_methods_subset_invariance",
        "check_fit2d_1feature",
        "check_fit2d_predict1d",
    ),
    ONE_CLUSTER,
)
"""Checks of scikit-learn that no estimator of raymc can pass, each with the reason."""

X, Y = make_blobs(n_samples=60, centers=3, n_features=4, random_state=1)
IMAGES = (np.random.default_rng(0).integers(0, 60, (40, 8, 8)) + 190 * (np.arange(40) % 2)[:, None, None]).astype(
    "uint8"
)


def quick(name: str = "MLC", n_clusters: int = 3, **arguments: Any) -> ManifoldClusterer:
    estimator = getattr(raymc, name)
    return estimator(**{"n_clusters": n_clusters, "params": QUICK[name], "random_state": 0} | arguments)


@pytest.fixture(scope="module")
def fitted() -> ManifoldClusterer:
    """MLC on `X`; nobody may change it."""
    return quick().fit(X)


@pytest.mark.parametrize(
    "name", ["MLC", pytest.param("NMCE", marks=pytest.mark.slow), pytest.param("GCML", marks=pytest.mark.slow)]
)
def test_scikit_learns_own_checks(name: str) -> None:
    longer = LONGER if name == "NMCE" else {}
    estimator = quick(name, params=QUICK[name] | longer)
    check_estimator(estimator, expected_failed_checks=EXPECTED, on_skip=None)
    # The exceptions are for one cluster only: with two in its place the same checks pass.
    two = type(f"Two{name}", (type(estimator),), {"__setattr__": _two_at_least})
    done = set()
    for instance, check in estimator_checks_generator(two(**estimator.get_params())):
        if (called := getattr(check, "func", check).__name__) in EXPECTED:
            check(instance)
            done.add(called)
    assert done == set(EXPECTED)


def _two_at_least(self: Any, name: str, value: Any) -> None:
    object.__setattr__(self, name, max(2, value) if name == "n_clusters" else value)


@pytest.mark.parametrize("name", QUICK)
def test_labels_are_those_of_train_to_the_bit(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = load_digits(return_X_y=True)
    np.savez("rows.npz", x=x, y=y)
    Path("mine.yaml").write_text(f"method: {name.lower()}\ndataset: {{path: rows.npz}}\n")
    params: dict[str, Any] = QUICK[name]
    words = [f"{key}={value}" for key, value in (params | {"n_clusters": 10}).items()]
    code, _, err = run(capsys, train, "mine.yaml", *words, "--seed", "3", "--storage", "store", "--out", "out")
    assert code == 0, err
    model = quick(name, n_clusters=10, random_state=3).fit(x)
    assert np.array_equal(model.labels_, np.load("out/labels.npz")["labels"])
    assert np.array_equal(model.embedding_, np.load("out/embedding.npy"))
    assert np.array_equal(model.predict(x[:50]), raymc.load_model("out/model").predict(x[:50]))
    # The settings of before in a store of its own: nothing is trained anew, nothing is left elsewhere.
    stored = quick(name, n_clusters=10, random_state=3, storage="store").fit(x)
    assert stored.curve_["cached"].all() and np.array_equal(stored.labels_, model.labels_)
    assert not model.partial_ and model.n_clusters_ == 10 and model.params_["seed"] == 3
    assert {"silhouette", "probe"} <= set(model.metrics_) and "acc" not in model.metrics_
    assert list(model.curve_["epoch"][:2]) == [1, 2] and np.isfinite(model.curve_["loss"]).all()


def test_kinds_of_input_say_the_same(fitted: ManifoldClusterer) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    for given in (X.tolist(), torch.from_numpy(X), torch.tensor(X, requires_grad=True), np.asfortranarray(X)):
        model = quick().fit(given)
        assert np.array_equal(model.labels_, fitted.labels_) and not hasattr(model, "feature_names_in_")
        assert np.array_equal(model.predict(given), fitted.predict(X))
    named = quick().set_output(transform="pandas").fit(frame)
    assert list(named.feature_names_in_) == list("abcd") and np.array_equal(named.labels_, fitted.labels_)
    z = named.transform(frame)
    assert list(z.columns[:2]) == ["mlc0", "mlc1"] == list(named.get_feature_names_out()[:2])
    assert np.array_equal(z.to_numpy(), fitted.transform(X))
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(frame[list("dcba")])


def test_images_of_every_layout_say_the_same() -> None:
    params = {"feature_dim": 8, "pre_feature_dim": 16, "pretrain.epochs": 1, "heads.epochs": 1}
    fixed = IMAGES.copy()
    fixed.flags.writeable = False
    layouts = [IMAGES, IMAGES[:, None], IMAGES[..., None], torch.from_numpy(IMAGES), IMAGES.astype(float) / 255, fixed]
    models = [quick(n_clusters=2, params=params).fit(x) for x in layouts]
    for model, x in zip(models, layouts, strict=True):
        assert np.array_equal(model.labels_, models[0].labels_) and model.n_features_in_ == 64
        assert np.array_equal(model.predict(x[:7]), models[0].predict(IMAGES[:7]))
    with pytest.raises(ValueError, match="images of 4x8 grey; expected: images of 8x8 grey"):
        models[0].predict(IMAGES[:, :, :4])


def test_the_number_of_clusters_is_looked_for_and_rows_of_an_encoder_have_length_one() -> None:
    found = quick(n_clusters="2..4").fit(X)
    assert found.n_clusters_ == len(set(found.labels_)) and found.params_["n_clusters"] == "2..4"
    rows = quick(preset="features").fit(X).model_.trained.scaling
    assert rows.how == "unit"


@pytest.mark.parametrize(
    ("arguments", "x", "told"),
    [
        ({"n_clusters": 1}, X, "n_clusters: 1 is below 2"),
        ({"n_clusters": 61}, X, "60 points cannot have 61 clusters"),
        ({"params": {"heads.etaa": 1}}, X, "unknown key heads.etaa of mlc; did you mean heads.eta?"),
        ({"params": {"heads.eta": -1.0}}, X, "heads.eta"),
        ({"params": {"n_clusters": 3}}, X, "params: n_clusters does not belong here: it is an argument"),
        ({"params": {"seed": 3}}, X, "it is the argument random_state"),
        ({"params": {"workers": 2}}, X, "a training from a space file takes several"),
        ({"preset": "owm"}, X, "unknown preset owm; did you mean own?"),
        ({"random_state": -1}, X, "seed: -1 is below 0"),
        ({"random_state": "a"}, X, "cannot be used to seed"),
        ({}, np.full((9, 2), 1e39), "X holds 18 values that are missing, NaN, infinite or beyond float32"),
        ({}, X[:1], "1 sample"),
        ({}, np.where(X > 0, X, np.nan), "Input X contains NaN"),
        ({}, X.astype(str).tolist(), "could not convert|not compatible"),
        ({}, IMAGES.astype(int), "holds x of 40x8x8 values .int64.; expected: rows"),
        ({}, torch.zeros(9, 2, dtype=torch.complex64), "expected: plain floats"),
    ],
)
def test_what_is_wrong_is_a_value_error(arguments: dict[str, Any], x: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        quick(**arguments).fit(x)


def test_it_is_an_estimator_among_others(fitted: ManifoldClusterer, tmp_path: Path) -> None:
    assert repr(raymc.MLC(3)) == "MLC(n_clusters=3)" and clone(fitted).get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        quick().save(tmp_path)
    pipeline = make_pipeline(StandardScaler(), quick("NMCE"))
    labels = pipeline.fit_predict(X)
    assert labels.shape == (60,) and pipeline.predict(X[:3]).shape == (3,)
    assert np.array_equal(clone(pipeline).fit(X).predict(X), pipeline.predict(X))
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(X), fitted.predict(X)) and repr(again) == repr(fitted)
    fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model")
    assert np.array_equal(raymc.load_model(tmp_path / "model").transform(X), fitted.transform(X))
    drawn = quick(random_state=np.random.RandomState(5)).fit(X)
    assert drawn.params_["seed"] == np.random.RandomState(5).randint(np.iinfo(np.int32).max)


def interrupting(monkeypatch: pytest.MonkeyPatch, stage: str, epoch: int) -> None:
    """Ctrl-C in the middle of the epoch after `epoch` of a stage, counted from 1."""
    from raymc.training import loop

    train_epoch = loop.train_epoch

    def interrupted(updates: Any, feed: Any, seed: Any, at: int) -> Any:
        numbers = train_epoch(updates, feed, seed, at)  # its updates are made, and do not count
        if (updates.stage.name, at) == (stage, epoch):
            raise KeyboardInterrupt
        return numbers

    monkeypatch.setattr(loop, "train_epoch", interrupted)


def test_ctrl_c_leaves_the_model_of_the_last_whole_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = QUICK["NMCE"] | {"heads.schedule": "constant", "evaluate_every": 100}
    whole = quick("NMCE", params=params | {"heads.epochs": 7, "finetune.epochs": 0}).fit(X)
    with monkeypatch.context() as patch:
        interrupting(patch, "heads", 7)
        with pytest.warns(ConvergenceWarning, match="interrupted: fitted after 7 of 12 epochs of stage heads"):
            cut = quick("NMCE", params=params, storage=tmp_path).fit(X)
    assert cut.partial_ and np.array_equal(cut.labels_, whole.labels_)
    assert np.array_equal(cut.embedding_, whole.embedding_) and np.array_equal(cut.predict(X), whole.predict(X))
    assert list(cut.curve_["loss"]) == list(whole.curve_["loss"])
    again = quick("NMCE", params=params, storage=tmp_path).fit(X)  # goes on, as if there had been no interrupt
    assert not again.partial_ and list(again.curve_["cached"])[:4] == [True] * 4 and len(again.curve_) == 18
    assert np.array_equal(again.labels_, quick("NMCE", params=params).fit_predict(X))
    with monkeypatch.context() as patch:  # before an epoch of its own the stage has the clusters of the one before
        interrupting(patch, "finetune", 0)
        with pytest.warns(ConvergenceWarning, match="after 0 of 2 epochs of stage finetune"):
            cut = quick("NMCE", params=params | {"heads.epochs": 7}).fit(X)
    assert np.array_equal(cut.labels_, whole.labels_)


def test_ctrl_c_before_there_are_clusters_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupting(monkeypatch, "pretrain", 1)
    model = quick()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.predict(X)
    vars(model)["model_"] = "of an earlier fit"
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert not hasattr(model, "model_")


def test_bars_show_epochs_where_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quick(storage=tmp_path).fit(X)
    assert capsys.readouterr() == ("", "")
    quick(verbose=1).fit(X)
    shown = capsys.readouterr().err
    assert "pretrain: 100%" in shown and "2/2" in shown and "heads: 100%" in shown and "loss=" in shown


BLOCKED = """
import sys, time
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "optuna", "mlflow"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
begun = time.process_time()  # others may be busy on this machine
import raymc
seconds = time.process_time() - begun
heavy = {"torch", "sklearn", "pandas", "numpy", "ray"} & set(sys.modules)
assert not heavy and seconds < 0.3, (heavy, seconds)
assert {"MLC", "load_model"} <= set(dir(raymc))
from sklearn.datasets import load_iris
raymc.MLC(3, params={"pretrain.epochs": 1, "heads.epochs": 1}).fit(load_iris().data).predict(load_iris().data)
"""


def test_importing_is_light_and_fitting_needs_no_engine(tmp_path: Path) -> None:
    root = Path(raymc.__file__).parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert not list(tmp_path.iterdir())


def test_names_and_docstrings_agree() -> None:
    stub = (Path(raymc.__file__).parent / "__init__.pyi").read_text()
    assert {line.split(" as ")[1] for line in stub.splitlines() if " as " in line} == set(raymc.PUBLIC)
    with pytest.raises(AttributeError, match="no attribute nothing"):
        _ = raymc.nothing  # type: ignore[attr-defined]
    sections = [getattr(raymc, name).__doc__.partition("Parameters\n")[2] for name in QUICK]
    names = [[line for line in text.splitlines() if line[4:5].strip() and " : " in line] for text in sections]
    assert len(names[0]) == 16
    for others in names[1:]:
        assert [line.split()[0] for line in others] == [line.split()[0] for line in names[0]]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_examples_in_docstrings_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"raymc.estimators.{name.lower()}"))
    assert found.attempted and not found.failed
