"""What is odd about data of one's own is said in a line, and not refused; and what is usual is not remarked on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import ConvergenceWarning

import raymc
from raymc.commands import predict, train
from raymc.errors import DataWarning
from tests.own_data import frame, npz, read, run, space

N = 200
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 4)) + [0, 5, 50, -3]
KINDS = np.asarray(["iris", "lily"])[np.arange(N) % 2]


def rows(x: np.ndarray = X, **columns: Any) -> dict[str, Any]:
    return {f"c{at}": x[:, at] for at in range(x.shape[1])} | columns


def where(values: np.ndarray, value: float, share: int = 20, at: int = 0) -> np.ndarray:
    return np.where(np.arange(N) % share == at, value, values)


CODE = "far from the rest: a missing value?"
TABLES: list[tuple[str, dict[str, Any], str]] = [
    ("numbers of rows", rows(n=np.arange(N)), "column n tells rows apart as ids do: named by id:, it is no data"),
    ("from 1000, shuffled", rows(n=RNG.permutation(N) + 1000), "column n tells rows apart as ids do"),
    ("ids with gaps", rows(user_id=RNG.permutation(N) * 7 + 3), "column user_id tells rows apart as ids do"),
    ("-999", rows(c1=where(X[:, 1], -999)), f"-999 stands 10 times in column c1, {CODE}"),
    ("one -9999", rows(c1=where(X[:, 1], -9999, N)), f"-9999 stands once in column c1, {CODE}"),
    ("in two columns", rows(c0=where(X[:, 0], -99), c1=where(X[:, 1], -99)), "-99 stands 20 times in columns c0, c1"),
    ("999 of ages", rows(c2=where(RNG.integers(20, 70, N), 999)), f"999 stands 10 times in column c2, {CODE}"),
    ("0 of weights", rows(c2=where(X[:, 2], 0)), f"0 stands 10 times in column c2, {CODE}"),
    ("a fill value", rows(c2=where(X[:, 2], 1e20)), f"1e+20 stands 10 times in column c2, {CODE}"),
    ("a large column", rows(c3=X[:, 3] * 5e4), "column c3 varies"),
    (
        "a far value",
        rows(c1=X[:, 1] + (np.arange(N) == 7) * 1e9),
        "column c1: few far values leave float32 no",
    ),
    ("constant columns", rows(c1=X[:, 1] * 0, c2=X[:, 2] * 0), "2 of 4 columns are constant"),
    ("repeated rows", rows(X[np.arange(N) % 60]), "140 of 200 rows repeat another one"),
]


@pytest.mark.parametrize(("columns", "said"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_what_is_odd_about_a_table_is_said(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    frame(X[:, :0]).assign(**columns).to_csv(tmp_path / "rows.csv", index=False)
    remarks = read(tmp_path / "rows.csv").remarks
    assert any(remark.startswith(said) for remark in remarks) and len(remarks) <= 3, remarks


USUAL: list[tuple[str, dict[str, Any]]] = [
    ("normal", rows()),
    ("a label", rows(kind=KINDS)),
    ("shares and counts", rows(a=RNG.random(N), b=RNG.poisson(3, N), c=RNG.exponential(5, N))),
    ("one-hot", rows(*[X], **{f"is_{k}": (np.arange(N) % 9 == k).astype(int) for k in range(9)})),
    ("a rare flag", rows(flag=(np.arange(N) == 5).astype(int))),
    ("ages", rows(age=RNG.integers(0, 99, N), year=RNG.integers(1990, 2020, N))),
    ("pixels", {f"p{at}": np.clip(RNG.normal(0, 100, N), 0, 255).round() for at in range(20)}),
    ("heavy tails", rows(a=RNG.lognormal(0, 1.5, N), b=RNG.standard_t(3, N))),
]


@pytest.mark.parametrize("columns", [row[1] for row in USUAL], ids=[row[0] for row in USUAL])
def test_what_is_usual_is_not_remarked_on(tmp_path: Path, columns: dict[str, Any]) -> None:
    frame(X[:, :0]).assign(**columns).to_csv(tmp_path / "rows.csv", index=False)
    assert read(tmp_path / "rows.csv", label="kind" if "kind" in columns else None).remarks == ()


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.arange(N), ("every label is different: are they ids?",)),
        (np.asarray([*KINDS[:-1], "rose"]), ("1 of 3 classes has one row",)),
        (np.asarray([*KINDS[:-2], "nan", "nan"]), ("a class is called nan: a missing label?",)),
        (np.where(np.arange(N) % 3 == 0, "Iris", KINDS), ("classes Iris, iris differ in capitals alone",)),
        (np.arange(N) % 2, ()),
    ],
)
def test_what_is_odd_about_labels_is_said(tmp_path: Path, y: np.ndarray, said: tuple[str, ...]) -> None:
    assert read(npz(tmp_path / "rows.npz", X, y=y)).remarks == said


def test_features_and_images_are_looked_at_for_what_holds_of_them(tmp_path: Path) -> None:
    wide = RNG.normal(size=(12, 200))
    assert read(npz(tmp_path / "rows.npz", wide)).remarks == ("200 columns and 12 rows: is the table transposed?",)
    assert read(tmp_path / "rows.npz", features=True).remarks == ()
    assert read(npz(tmp_path / "ids.npz", np.stack([np.arange(N), X[:, 0]], 1))).remarks == (
        "column 0 (counted from 0) tells rows apart as ids do: named by id:, it is no data",
    )
    scaled = read(npz(tmp_path / "large.npz", X * [1, 1, 1, 1e6]), "none").remarks
    assert len(scaled) == 1 and scaled[0].endswith("times as much as the others, and nearly alone decides distances")
    for at in range(30):
        (tmp_path / "all" / f"{at % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), at % 3, np.uint8)).save(tmp_path / "all" / f"{at % 2}" / f"{at}.png")
    assert read(tmp_path / "all").remarks == ("27 of 30 images repeat another one",)


def test_fit_warns_of_it() -> None:
    """In Python: of the data by a category of their own, of empty clusters as scikit-learn's k-means does."""
    params = {"pretrain.epochs": 1, "finetune.epochs": 1, "finetune.centers_by": "kmeans", "backbone": "dense_256"}
    three = np.repeat(X[:3], 20, 0)
    with pytest.warns(UserWarning) as caught:
        model = raymc.GCML(5, params=params | {"finetune.epochs": 0, "clustering": "kmeans"}, random_state=0).fit(three)
    said = {warning.category: str(warning.message) for warning in caught}
    assert said[DataWarning] == "about the data: 57 of 60 rows repeat another one"
    assert said[ConvergenceWarning] == "3 of 5 clusters have samples, the others are empty"
    assert all(warning.filename == __file__ for warning in caught) and len(set(model.labels_)) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raymc.GCML(2, params=params, random_state=0).fit(X)


def test_train_says_it_with_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that a smoke run's figures mean nothing, and how many clusters are empty."""
    few = RNG.normal(size=(3, 4))[np.arange(120) % 3] * 50
    npz(tmp_path / "rows.npz", few, y=np.asarray(["a", "b", "nan"])[np.arange(120) % 3])
    keys = "preset: kmeans\nfixed: {n_clusters: 10}\n"
    path = space(tmp_path, "{path: rows.npz}", keys)
    path.write_text(path.read_text().replace("method: gcml", "method: plain"))
    words = [str(path), "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "s"), "--smoke"]
    code, out, err = run(capsys, train, *words)
    assert code == 0, err
    told = (out + err).splitlines()
    assert "about the data: 117 of 120 rows repeat another one; a class is called nan: a missing label?" in told
    assert any(line.startswith("smoke run, every length shortened, the figures mean nothing: plain") for line in told)
    assert any(line.startswith("clusters: ") and "3 of 10 have samples, the others are empty" in line for line in told)
    words = [str(tmp_path / "out"), str(tmp_path / "rows.npz"), "--out", str(tmp_path / "labels.csv")]
    code, out, err = run(capsys, predict, *words)
    assert code == 0 and "(the model is of a smoke run: its clusters mean nothing)" in out + err, err
