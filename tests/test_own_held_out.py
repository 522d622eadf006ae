"""The part of the user's own data that is held out: of the training's kind, scaled and numbered by its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymc.commands import train
from raymc.config import Config
from raymc.datasets import load_once
from raymc.datasets.scaling import fit
from raymc.errors import InputError
from tests.own_data import QUICK, RNG, TEXTS, D, N, X, Y, frame, npz, own, read, run, space, write_images

HALF = N // 2


def complaint(path: Path, test: Path, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, test=str(test), **keys)
    text = str(caught.value)
    assert "\n" not in text and str(test) in text
    return text


def test_the_held_out_rows_are_scaled_and_numbered_by_the_training_rows(tmp_path: Path) -> None:
    texts = np.asarray(["lily", "rose", "iris"])[Y]
    frame(X[:HALF], kind=texts[:HALF]).to_csv(tmp_path / "a.csv", index=False)
    frame(X[HALF:], kind=np.asarray(["rose", "lily"])[Y[HALF:] % 2]).to_csv(tmp_path / "b.csv", index=False)
    for how in (None, "minmax", "none"):
        data = read(tmp_path / "a.csv", how, label="kind", test=str(tmp_path / "b.csv"))
        alone = read(tmp_path / "a.csv", how, label="kind")
        assert data.fingerprint == alone.fingerprint and data.split == alone.split and data.classes == alone.classes
        assert data.test is not None and data.test.y is not None and len(data.test) == HALF
        assert torch.equal(data.test.x, fit(X[:HALF], how or "standardise")(X[HALF:]))
        assert [data.classes[i] for i in data.test.y] == [["rose", "lily"][i] for i in Y[HALF:] % 2]  # type: ignore[index]
        named = read(tmp_path / "a.csv", how, label="kind", test=str(tmp_path / "b.csv"), id="c0")
        assert named.test_samples is not None and [float(one) for one in named.test_samples] == X[HALF:, 0].tolist()
    assert data.source.endswith(f"; held out: 15 of {tmp_path / 'b.csv'}")


def test_labels_that_are_numbers_in_one_part_alone_are_still_the_same_classes(tmp_path: Path) -> None:
    for train_labels, test_labels, wanted in (
        (["2", "02", "x", "1"], ["02", "1"], [0, 1]),
        (["10", "9", "10", "9"], ["9.0", "10"], [0, 1]),
    ):
        for name, labels in (("a", train_labels), ("b", test_labels)):
            rows = "".join(f"{i},{label}\n" for i, label in enumerate(labels))
            (tmp_path / f"{name}.csv").write_text("v,kind\n" + rows)
        data = read(tmp_path / "a.csv", label="kind", test=str(tmp_path / "b.csv"))
        assert data.test is not None and data.test.y is not None and data.test.y.tolist() == wanted


def test_held_out_photos_have_the_size_and_the_colours_of_the_others(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "all", a__x=("RGB", (30, 30)), b__y=("RGB", (30, 30)))
    test = write_images(tmp_path / "test", b__x=("L", (44, 20)))
    data = read(folder, test=str(test))
    assert data.test is not None and data.test.x.shape == (1, 3, 30, 30) and data.train.x.shape[1:] == (3, 30, 30)
    assert data.test.y is not None and data.test.y.tolist() == [1] and data.samples == ("a/x.png", "b/y.png")
    assert data.test_samples == ("b/x.png",)
    grey = write_images(tmp_path / "grey", a__x=("L", (30, 30)), b__y=("L", (30, 30)))
    assert "holds images of 30x30 colour; expected: images of 30x30 grey" in complaint(grey, folder)
    unlabelled = write_images(tmp_path / "flat", x=("RGB", (30, 30)), y=("RGB", (30, 30)))
    assert "has labels; expected: none" in complaint(unlabelled, test)
    flat = read(folder, test=str(unlabelled)).test
    assert flat is not None and flat.y is None and len(flat) == 2
    other = write_images(tmp_path / "other", c__x=("L", (9, 9)))
    assert "the label of row 0 is c, which no training row has; 1 rows have such labels" in complaint(folder, other)


def test_a_held_out_part_of_another_kind_is_told_by_its_first_difference(tmp_path: Path) -> None:
    frame(kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    npz(tmp_path / "rows.npz", y=Y)
    images = np.zeros((4, 9, 9), np.uint8)
    npz(tmp_path / "images.npz", images)
    for name, table, told in (
        ("few", frame(X[:, :3], kind=TEXTS), "has 3 columns; expected: 4, not fewer, the first of them c3"),
        ("more", frame(np.tile(X, 2), kind=TEXTS), "has 8 columns; expected: 4, not more, the first of them c4"),
        ("names", frame(kind=TEXTS).rename(columns={"c1": "d"}), "has d as column 1 (counted from 0); expected: c1"),
        ("text", frame(kind=TEXTS).assign(c1=TEXTS), "no numbers in c1"),
        ("nan", frame(X * np.nan, kind=TEXTS), "holds 120 values that are missing"),
        (
            "class",
            frame(kind=np.where(Y == 1, "weed", TEXTS)),
            "the label of row 1 is weed, which no training row has; 10",
        ),
        ("bare", frame(), "has no column kind"),
    ):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        assert told in complaint(tmp_path / "rows.csv", tmp_path / f"{name}.csv", label="kind")
    rows, pictures = tmp_path / "rows.npz", tmp_path / "images.npz"
    assert "holds images of 9x9 grey; expected: rows of 4 numbers" in complaint(rows, pictures)
    assert "holds rows of 4 numbers; expected: images of 9x9 grey" in complaint(pictures, rows)
    larger = npz(tmp_path / "larger.npz", np.zeros((4, 9, 10), np.uint8))
    assert "holds images of 10x9 grey; expected: images of 9x9 grey" in complaint(pictures, larger)
    wide = npz(tmp_path / "wide.npz", np.tile(X, 2))
    told = f"{wide}, compared with the training rows of {rows}, has 8 columns; expected: 4, not more"
    assert told in complaint(rows, wide)
    assert f"is .csv, and {rows} is .npz; expected: the same kind" in complaint(rows, tmp_path / "rows.csv")
    assert "has labels; expected: none" in complaint(npz(tmp_path / "bare.npz"), rows)
    assert "is missing; expected: .npz" in complaint(rows, tmp_path / "absent.npz")


def test_a_held_out_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    test = npz(tmp_path / "test.npz", X[:9])
    config = Config(method="gcml", dataset="rows", own=own(npz(tmp_path / "rows.npz"), test=str(test)))
    before = load_once(config)
    assert load_once(config) is before and before.test is not None and len(before.test) == 9
    npz(test, X[:7])
    after = load_once(config)
    assert after.test is not None and len(after.test) == 7


def test_held_out_rows_are_scored_and_never_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "rows.npz", y=TEXTS)
    npz(tmp_path / "late.npz", X[:7] + RNG.normal(size=(7, D)), y=TEXTS[:7])
    results = []
    for dataset in ("{path: rows.npz}", "{path: rows.npz, test: late.npz}"):
        path = space(tmp_path, dataset, QUICK.replace("}", ", finetune.batch_size: 8}"))
        code, out, _ = run(capsys, train, str(path), "--storage", "store", "--out", "out", "--json")
        assert code == 0
        results.append(json.loads(out))
    without, with_ = results
    assert [stage["cached"] for stage in with_["stages"]] == [True, True]
    assert json.loads((tmp_path / "out/metrics.json").read_text())["test_n"] == 7
    assert {"test_acc", "test_nmi"} <= set(with_["metrics"])
    assert {key: with_["metrics"][key] for key in without["metrics"]} == without["metrics"]
