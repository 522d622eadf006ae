"""Studies on the user's own data: what they keep of where the data are, how they are scaled, and when they go on."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raymc.datasets.scaling import WORDS
from raymc.errors import InputError
from raymc.space.space import load_space
from raymc.stability.request import StabilityRequest
from raymc.stability.runs import run_stability
from raymc.study import folder as study
from raymc.study.manifest import load_data
from raymc.study.request import Request, new_study, take_up
from tests.mlflow_database import new_database

N = 30
X, Y = np.random.default_rng(0).normal(size=(N, 4)), np.arange(N) % 3
SEARCH = "space: {finetune.kappa: {low: 1.5, high: 6.0}}\n"
SCALING = "space: {scaling: {choices: [minmax, none]}}\n"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows in `data/`, and a working folder beside it."""
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "data/rows.npz", x=X, y=Y)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def space(folder: Path, rest: str = "", name: str = "mine", data: str = "data/rows.npz") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(f"method: gcml\ndataset: {{path: {data}}}\n{rest}")
    return os.path.relpath(path)


def begin(folder: Path, rest: str = SEARCH, data: str = "data/rows.npz") -> tuple[Request, Path]:
    request = Request(space(folder, rest, data=data), {}, str(folder / "store"), str(folder), name="s")
    return request, new_study(request, "sqlite:///mlflow.db")


def go_on(request: Request, folder: Path) -> None:
    manifest = study.read_manifest(folder)
    take_up(request, folder, manifest, study.read_space(folder, manifest))


def test_a_study_keeps_the_absolute_path_and_goes_on_from_anywhere(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, folder = begin(work)
    kept = yaml.safe_load((folder / "mine.yaml").read_text())
    manifest: dict[str, Any] = json.loads((folder / "study.json").read_text())
    path = str(work / "data/rows.npz")
    assert kept["dataset"] == manifest["space"]["content"]["dataset"] == {"path": path}
    assert manifest["dataset"] == "rows" and path in manifest["data"]["source"]
    assert manifest["data"]["split"] == f"all, {N}; {WORDS['standardise']}"
    monkeypatch.chdir(folder)
    (work / "mine.yaml").unlink()
    go_on(request, folder)


def test_a_study_does_not_go_on_with_other_samples_or_labels(work: Path) -> None:
    request, folder = begin(work)
    for arrays, words in (
        ({"x": X + Y[:, None], "y": Y}, "the samples of rows are not those that study s began with"),
        ({"x": X, "y": Y[::-1]}, "the labels of rows are not those that study s began with"),
    ):
        np.savez(work / "data/rows.npz", **arrays)
        with pytest.raises(InputError, match=words):
            go_on(request, folder)
    manifest = study.read_manifest(folder)
    del manifest["data"]["labels"]  # as in a study of an earlier version
    with study.locked(folder):
        study.write_manifest(folder, manifest)
    go_on(request, folder)


def test_a_study_does_not_go_on_with_another_part_held_out(work: Path) -> None:
    np.savez(work / "data/late.npz", x=X[:9], y=Y[:9])
    request, folder = begin(work, data="data/rows.npz, test: data/late.npz")
    go_on(request, folder)
    for arrays in ({"x": X[1:10], "y": Y[:9]}, {"x": X[:9], "y": Y[1:10]}):
        np.savez(work / "data/late.npz", **arrays)
        with pytest.raises(InputError, match="the held-out samples of rows are not those that study s began with"):
            go_on(request, folder)


def test_a_study_of_before_keeps_the_preset_that_was_the_default(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = load_space(space(work, SEARCH + "preset: tuned\n")).config()
    request, folder = begin(work)
    manifest = study.read_manifest(folder)
    own = study.read_space(folder, manifest)
    assert own.preset == "own" and own.config().flat().items() >= manifest["fixed"].items()
    fixed = {key: value for key, value in tuned.flat().items() if key in manifest["fixed"]}
    manifest |= {"preset": "paper", "fixed": fixed | {"packed_seeds": 1}}
    del manifest["data"]["shape"]
    with study.locked(folder):
        study.write_manifest(folder, manifest)
    found = study.read_space(folder, manifest)
    assert found.preset == "tuned" and found.config() == tuned
    go_on(request, folder)
    assert "paper" not in capsys.readouterr().err, "nobody has written that name"


def test_a_study_whose_preset_has_changed_does_not_go_on_and_can_be_read(work: Path) -> None:
    request, folder = begin(work)
    manifest = study.read_manifest(folder)
    manifest["fixed"]["pretrain.batch_size"] = 7
    with study.locked(folder):
        study.write_manifest(folder, manifest)
    study.read_space(folder, manifest)
    with pytest.raises(InputError, match=r"pretrain.batch_size: study s began with 7, and preset own has 32 now"):
        go_on(request, folder)


def test_a_space_may_set_and_search_the_scaling(work: Path) -> None:
    found = load_space(space(work, "fixed: {scaling: minmax}\n"))
    assert load_data(found, "", "", smoke=False).split == f"all, {N}; {WORDS['minmax']}"
    searched = load_space(space(work, SCALING))
    for how in ("minmax", "none"):
        assert load_data(searched, "", "", smoke=False, params={"scaling": how}).split == f"all, {N}; {WORDS[how]}"
    with pytest.raises(InputError, match="scaling: 'max' is not one of standardise, minmax, unit, none"):
        found.config({"scaling": "max"})
    _, folder = begin(work, SCALING)
    facts = study.read_manifest(folder)["data"]
    assert facts["split"] == f"all, {N}; columns scaled as searched" and "as searched" in facts["source"]


def test_arms_must_have_the_same_rows_scaled_alike(work: Path) -> None:
    np.savez(work / "data/more.npz", x=X, y=Y)
    first = space(work, name="a")
    others = {
        space(work, name="b", data="data/more.npz"): "data/more.npz: two datasets cannot be compared by seed",
        space(work, "fixed: {scaling: none}\n", "c"): "train on different samples: scaling is None and none",
    }
    request = StabilityRequest(first, {}, str(work / "store"), str(work))
    for other, words in others.items():
        with pytest.raises(InputError, match=words):
            run_stability(dataclasses.replace(request, vs=(other,)))
    assert not (work / "store").exists()


def test_without_labels_the_objective_must_do_without(work: Path) -> None:
    np.savez(work / "data/rows.npz", x=X)
    fixed = "fixed: {n_clusters: 3}\n"
    with pytest.raises(InputError, match="objective acc needs labels, and rows has none"):
        begin(work, fixed + SEARCH)
    with pytest.raises(InputError, match="rows has no labels: give n_clusters"):
        begin(work, SEARCH + "objective: {metric: rate_reduction}\n")
    begin(work, fixed + SEARCH + "objective: {metric: rate_reduction}\n")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_own_data_go_all_the_way(work: Path, command: Any) -> None:
    """`tune`, `--resume`, `stability` of the study on two workers' worth of processes, and the report."""
    quick = "fixed: {backbone: dense_256, pretrain.epochs: 1, finetune.centers_by: kmeans}\n"
    path = space(work, quick + SEARCH + "budget: {trials: 1, seeds: 1, confirm: {top: 1, seeds: 2}}\n")
    new_database(Path.cwd())
    common = ("--smoke", "--storage", "store")
    assert command("tune", path, "--name", "s", "--trials", "1", *common)["trials"]["finished"] == 1
    result = command("tune", path, "--name", "s", "--resume", "--trials", "2", *common)
    assert result["trials"]["finished"] == 2
    page = Path(result["report"]).read_text()
    assert WORDS["standardise"] in page and "rows" in page
    steady = command("stability", "s", "--seeds", "2", "--concurrent", "2", *common)
    assert steady["dataset"] == "rows" and WORDS["standardise"] in steady["split"] and steady["acc"]["n"] == 2
    assert command("train", path, "workers=2", "--out", "out", *common)["dataset"] == "rows"
