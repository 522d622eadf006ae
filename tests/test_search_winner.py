"""What a study's winner leaves: the files of the seed that agrees most with the others, and how to train it again."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymc.metrics.clustering import adjusted_rand
from raymc.metrics.consensus import evidence_accumulation, renamed
from raymc.metrics.labellings import ari_matrix
from raymc.space.space import load_space
from raymc.study import baseline, files, groups
from raymc.study import folder as study_folder
from raymc.study.manifest import budget_of
from raymc.study.objective import Objective
from raymc.study.reader import read_study
from raymc.study.records import FINISHED, Record, SeedRun, Task
from raymc.study.request import Request, new_study
from raymc.study.winner import WINNER, winner_kind, write_winner
from raymc.training import rows
from raymc.training.stages import seeds_of

N = 30
SPACE = """method: gcml
dataset: {path: rows.npz}
fixed: {pretrain.epochs: 3, seeds_from: finetune}
space: {finetune.kappa: {low: 1.5, high: 6.0}}
"""
PARAMS = [{"finetune.kappa": 2.0}, {"finetune.kappa": 4.0}]
FRESH = (1000, 1001, 1002)


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0, rest: str = "") -> Path:
    """A new study of 30 rows."""
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", x=np.random.default_rng(0).normal(size=(N, 4)), y=np.arange(N) % 3)
    Path("mine.yaml").write_text(SPACE + rest)
    request = Request(os.path.relpath("mine.yaml"), {}, str(tmp_path / "store"), str(tmp_path), name="s", seed=seed)
    return new_study(request, "sqlite:///mlflow.db")


def labels(seed: int) -> Any:
    """Classes, with as many errors as the seed's last digit says."""
    found = np.arange(N) % 3
    found[: 4 * (seed % 10)] = np.random.default_rng(seed).integers(0, 3, 4 * (seed % 10))
    return found


def record(
    folder: Path, kind: str, trial: int, seeds: tuple[int, ...], acc: float, keep: bool = True, **more: float
) -> Record:
    for seed in seeds:
        out = files.seed_folder(folder, kind, trial, seed)
        out.mkdir(parents=True)
        np.savez(out / "labels.npz", labels=labels(seed))
        if keep:
            samples = [f"{kind} {trial} {seed} {row}" for row in range(N)]
            rows.write_labels(out / rows.LABELS, samples, torch.tensor(labels(seed)), torch.ones(N))
            (out / rows.EMBEDDING).write_bytes(b"z")
        row = {"seed": seed, "state": FINISHED, "metrics": {"acc": acc, **more}, "stages": []}
        files.write_seed(folder, Task(kind, trial, PARAMS[trial], seeds, seeds), SeedRun.of(row, out))
    found = groups.make_record(folder, Task(kind, trial, PARAMS[trial], seeds, seeds), Objective("acc"))
    files.write_record(folder, found)
    return found


def write(folder: Path) -> Any:
    return write_winner(read_study(folder), study_folder.read_space(folder, study_folder.read_manifest(folder)))


def test_the_fresh_seed_that_agrees_most_is_the_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, monkeypatch)
    assert write(folder) is None and not (folder / WINNER).exists()
    record(folder, "search", 0, (0,), 0.9, keep=False)
    record(folder, "search", 1, (0,), 0.8, keep=False)
    record(folder, "confirm", 0, FRESH, 0.5)
    record(folder, "confirm", 1, FRESH, 0.7)
    found = write(folder)
    matrix = np.array(ari_matrix([labels(seed) for seed in FRESH]))
    means = (matrix.sum(1) - 1) / 2
    best = FRESH[int(means.argmax())]
    consensus = found.pop("consensus")
    assert found == {"trial": 1, "seed": best, "agreement": pytest.approx(means.max()), "folder": str(folder / WINNER)}
    samples, _ = rows.read_samples(folder / WINNER / rows.LABELS)
    assert samples == [f"confirm 1 {best} {row}" for row in range(N)]
    left = ["config.yaml", "consensus.csv", "embedding.npy", "labels.csv"]
    assert sorted(path.name for path in (folder / WINNER).iterdir()) == left

    with (folder / WINNER / rows.CONSENSUS).open() as file:
        lines = list(csv.DictReader(file))
    together, agreement = evidence_accumulation([labels(seed) for seed in FRESH])
    assert [line["sample"] for line in lines] == samples
    assert [float(line["agreement"]) for line in lines] == pytest.approx(agreement, abs=1e-6)
    clusters = np.array([int(line["cluster"]) for line in lines])
    assert adjusted_rand(clusters, together) == 1 and np.array_equal(clusters, renamed(clusters, labels(best)))
    assert (consensus["n"], consensus["clusters"]) == (3, 3) and "acc" not in consensus, "these seeds say no classes"

    space = load_space(folder / WINNER / "config.yaml")
    config, stages = space.config(), tuple(space.stage_settings)
    assert config.stages["finetune"].kappa == 4.0 and config.stages["pretrain"].epochs == 3  # type: ignore[attr-defined]
    assert seeds_of(stages, config.seed, 0, config.seeds_from) == {"pretrain": 0, "finetune": best}
    assert config.own is not None and config.own.path == str(tmp_path / "rows.npz")


def test_without_fresh_seeds_the_searchs_own_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, monkeypatch, rest="budget: {confirm: null}\n")
    record(folder, "search", 1, (0, 1), 0.8)
    manifest = study_folder.read_manifest(folder)
    assert winner_kind(budget_of(manifest, study_folder.read_space(folder, manifest))) == "search"
    found = write(folder)
    assert (found["trial"], found["seed"]) == (1, 0)
    assert rows.read_samples(folder / WINNER / rows.LABELS)[0][0] == "search 1 0 0"


def test_a_study_of_an_earlier_version_has_the_configuration_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path, monkeypatch, seed=7)
    record(folder, "search", 0, (7,), 0.9, keep=False)
    record(folder, "confirm", 0, (1007,), 0.9, keep=False)
    found = write(folder)
    assert (found["seed"], found["agreement"], found["consensus"]) == (1007, None, None)
    text = (folder / WINNER / "config.yaml").read_text()
    assert [path.name for path in (folder / WINNER).iterdir()] == ["config.yaml"]
    assert "seed 7" in text and "seeds_from: finetune" not in text, "that training is not in reach of raymc train"


def test_kinds_are_known_by_their_folders(tmp_path: Path) -> None:
    for kind in files.FOLDERS:
        assert files.kind_of(files.seed_folder(tmp_path, kind, 3, 5)) == kind
    assert files.kind_of(tmp_path / "out") is None


def test_k_means_beside_it_is_told_what_the_winners_fresh_seeds_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path, monkeypatch)
    for kind, seeds, found in (("search", (0,), 9.0), ("confirm", FRESH, 3.0)):
        record(folder, kind, 0, seeds, 0.9, clusters_found=found)
    told: list[int | None] = []
    monkeypatch.setattr(baseline, "keep_baseline", lambda *args: told.append(baseline.clusters_found(args[-1])))
    manifest = study_folder.read_manifest(folder)
    baseline.keep_studys_baseline(folder, manifest, study_folder.read_space(folder, manifest), "", "")
    shutil.rmtree(folder / files.FOLDERS["confirm"])
    baseline.keep_studys_baseline(folder, manifest, study_folder.read_space(folder, manifest), "", "")
    assert told == [3, 9]
