"""A space file with data of the user's own: its paths and sections, and what is checked and trained."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from raymc.commands import check, train
from raymc.datasets import load_for
from raymc.datasets.scaling import WORDS, fit
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.space.space import load_space
from raymc.training import model_files
from tests.own_data import QUICK, TEXTS, N, X, Y, frame, npz, own, read, run, space


def test_a_relative_path_is_taken_from_the_space_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    npz(tmp_path / "data/rows.npz", y=Y)
    path = space(tmp_path, "{path: data/rows.npz}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in (path, os.path.relpath(path)):
        found = load_space(name)
        assert found.own == own(tmp_path / "data/rows.npz") and found.dataset == found.config().dataset == "rows"
        assert load_for(found.config()).fingerprint == read(tmp_path / "data/rows.npz").fingerprint
        # What a study keeps can be read anywhere.
        (tmp_path / "elsewhere/kept.yaml").write_text(json.dumps(dict(found.content)))
        assert load_space("kept.yaml").own == found.own
    npz(tmp_path / "data/late.npz")
    held = load_space(space(tmp_path, "{path: data/rows.npz, test: data/late.npz}"))
    assert held.own == own(tmp_path / "data/rows.npz", test=str(tmp_path / "data/late.npz"))
    (tmp_path / "elsewhere/kept.yaml").write_text(json.dumps(dict(held.content)))
    assert load_space("kept.yaml").own == held.own
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_space(space(tmp_path, "{path: ~/data/rows.npz, name: flowers}")).own == own(
        tmp_path / "data/rows.npz", name="flowers"
    )


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ("{path: images, side: 100000}", "dataset.side: 100000 is above 1024"),
        ("{path: rows.csv, label: ''}", "dataset.label: is empty"),
        ("{path: ''}", "dataset.path: is empty"),
        ("{path: rows.csv, name: usps}", "dataset: the name usps is that of a known dataset; give another as name"),
        ("{path: mine/usps.npz}", "dataset: the name usps, from its path, is that of a known dataset; give another"),
        ("{path: rows.csv, name: a/b}", "dataset: name 'a/b' is no plain name"),
        ('{path: rows.csv, name: "a\\nb"}', "dataset: name 'a\\nb' is no plain name"),
        ("{path: rows.csv, name: ' '}", "dataset: name ' ' is no plain name"),
    ],
)
def test_a_section_that_cannot_be_meant_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str, told: str
) -> None:
    code, out, err = run(capsys, train, str(space(tmp_path, dataset)))
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1


def test_a_method_without_presets_for_own_data_names_those_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = space(tmp_path, "{path: rows.npz}", "")
    known_only = {name: of for name, of in METHODS["nmce"].presets.items() if name != "own"}
    methods = dict(METHODS) | {"nmce": dataclasses.replace(METHODS["nmce"], presets=known_only)}
    able = [name for name, method in methods.items() if "own" in method.presets]
    assert "gcml" in able and "mlc" in able
    path.write_text(path.read_text().replace("gcml", "nmce"))
    with pytest.raises(
        InputError, match=f"nmce has no presets for data of your own .methods that have: {', '.join(able)}"
    ):
        load_space(path, methods)


def test_own_data_are_checked_and_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame(kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    path = str(space(tmp_path, "{path: rows.csv, label: kind, name: flowers}"))
    code, out, _ = run(capsys, check, path)
    assert code == 0 and "ok       one step of each stage at preset" in out
    code, out, _ = run(capsys, train, path, "finetune.batch_size=8", "--storage", "store", "--out", "out", "--json")
    result = json.loads(out)
    assert (
        code == 0 and result["dataset"] == "flowers" and result["n"] == N and {"acc", "nmi"} <= set(result["metrics"])
    )
    assert result["split"] == f"all, {N}; {WORDS['standardise']}"
    assert json.loads((tmp_path / "out/metrics.json").read_text())["split"] == result["split"]
    told = json.loads((tmp_path / "out/config.json").read_text())
    assert told["own"] == dataclasses.asdict(own(tmp_path / "rows.csv", name="flowers", label="kind"))
    model, scale = model_files.load(tmp_path / "out/model"), fit(X, "standardise")
    assert model.scaling is not None and model.scaling.how == "standardise"
    assert all(np.array_equal(getattr(model.scaling, name), getattr(scale, name)) for name in ("shift", "width"))


def test_other_labels_of_the_same_samples_share_the_stages_but_no_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(space(tmp_path, "{path: rows.npz}", QUICK.replace("}", ", finetune.batch_size: 8, evaluate_every: 1}")))
    curves, cached = [], []
    for y in (Y, Y, (Y + (np.arange(N) > 14)) % 3):
        npz(tmp_path / "rows.npz", y=y)
        _, out, _ = run(capsys, train, path, "--storage", "store", "--out", "out", "--json")
        cached.append([stage["cached"] for stage in json.loads(out)["stages"]])
        curves.append([json.loads(line) for line in (tmp_path / "out/curve.jsonl").read_text().splitlines()])
    assert cached == [[False, False], [True, True], [True, True]]
    scored = [any("acc" in row for row in curve) for curve in curves]
    assert scored == [True, True, False]


def test_what_is_missing_is_said_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "rows.npy", X)
    for dataset, told in (
        ("{path: rows.npy}", "rows has no labels: give n_clusters"),
        ("{path: absent.npy}", f"{tmp_path / 'absent.npy'} is missing"),
    ):
        path = str(space(tmp_path, dataset))
        code, out, err = run(capsys, train, path, "--storage", "store", "--out", "out")
        assert (code, out) == (2, "") and err.startswith("raymc: ") and told in err and err.count("\n") == 1
        code, out, err = run(capsys, check, path)
        assert code == 2 and "INVALID" in out and told in out
        assert not (tmp_path / "store").exists() and not (tmp_path / "out").exists()
    path = str(space(tmp_path, "{path: rows.npy}"))
    code, _, err = run(capsys, train, path, "n_clusters=31", "--storage", "store")
    assert code == 2 and "30 points cannot have 31 clusters" in err
    path = str(space(tmp_path, "{path: rows.npy}", QUICK.replace("{", "{n_clusters: 3, ")))
    code, out, _ = run(capsys, check, path)
    assert code == 0 and "note     tune: acc needs labels, which are not there" in out
