"""Which method and seed `raymc cluster` takes without labels, and what all seeds agree on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.errors import InputError
from raymc.metrics.clustering import adjusted_rand
from raymc.reporting.cluster.samples import cluster_views
from raymc.stability.choice import choose, make_candidates
from raymc.stability.side_by_side import Source, check_names
from raymc.study.records import SeedRun
from tests.mlflow_database import DEPRECATED, new_database

TRUE = np.repeat(np.arange(4), 30)


def noisy(share: float, seed: int, shift: int = 0) -> np.ndarray:
    """The true clusters under other numbers, with a share of the samples put anywhere."""
    rng = np.random.default_rng(seed)
    labels = (TRUE + shift) % 4
    wrong = rng.random(len(labels)) < share
    return np.where(wrong, rng.integers(0, 4, len(labels)), labels)


def runs(folder: Path, *labels: np.ndarray) -> list[SeedRun]:
    made = []
    for seed, one in enumerate(labels):
        place = folder / f"seed-{seed}"
        place.mkdir(parents=True)
        np.savez(place / "labels.npz", labels=one)
        made.append(SeedRun.of({"seed": seed, "state": "finished", "metrics": {"probe": 0.5 + seed / 10}}, place))
    return made


def test_the_method_that_others_agree_with_and_its_steadiest_seed(tmp_path: Path) -> None:
    found = {
        "wild": runs(tmp_path / "wild", *(np.random.default_rng(s).integers(0, 4, 120) for s in range(3))),
        "good": runs(tmp_path / "good", noisy(0.5, 1), noisy(0.02, 2, 1), noisy(0.05, 3, 2)),
        "fair": runs(tmp_path / "fair", noisy(0.3, 4), noisy(0.2, 5), noisy(0.25, 6)),
        "none": [],
    }
    candidates = make_candidates(found)
    assert [one.name for one in candidates] == ["wild", "good", "fair"]
    best = choose(candidates)
    assert best.name == "good" and best.seed != 0
    mine = best.labels[best.seed]
    others = [adjusted_rand(mine, one.labels[one.seed]) for one in candidates if one is not best]
    assert best.scores["agreement"] == pytest.approx(np.mean(others))
    assert best.scores["probe"] == pytest.approx(0.6) and "silhouette" not in best.scores
    (alone,) = make_candidates({"good": found["good"][:1]})
    assert choose([alone]) is alone and set(alone.scores) == {"probe"}


def test_the_data_of_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Source.of("digits") == Source("digits", "digits")
    rows = Source.of("flowers.csv", label="kind", encoder=None, features=False)
    assert rows.name == "flowers"
    assert rows.dataset == {"path": str(tmp_path / "flowers.csv"), "name": "flowers", "label": "kind"}
    (tmp_path / "digits").mkdir()
    assert Source.of("digits").name == "digits-data"  # the folder, not the known dataset
    assert Source.of("photos", encoder="timm:resnet18").name == "photos-timm"


@pytest.mark.parametrize(
    ("names", "told"),
    [(["kmean"], "unknown method kmean; did you mean kmeans?"), (["mlc", "mlc"], "mlc stands twice")],
)
def test_names_of_methods(names: list[str], told: str) -> None:
    with pytest.raises(InputError, match="--methods: ") as error:
        check_names(names)
    assert told in str(error.value)


@pytest.mark.slow
@pytest.mark.filterwarnings(DEPRECATED)
def test_a_file_of_rows_without_a_space_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., dict[str, Any]]
) -> None:
    """Three methods really run, one of them stopped by its own data; labels by name, and the same words again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new_database(tmp_path)}")
    rng = np.random.default_rng(0)
    lines = [f"s{i},{','.join(f'{x:.3f}' for x in rng.normal(6 * (i % 3), 1, 4))},kind {i % 3}" for i in range(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["name,a,b,c,d,kind", *lines]))
    words = ["rows.csv", "--id", "name", "--label", "kind", "--clusters", "3", "--seeds", "2", "--out", "out"]
    words += ["--methods", "kmeans,agglomerative,nmce", "--storage", "store", "--smoke"]
    found = command("cluster", *words)
    assert [one["name"] for one in found["arms"]][:2] == ["kmeans", "agglomerative"]
    assert found["chosen"] == "kmeans" and found["n"] == 90 and found["clusters"] == 3
    plain = found["arms"][0]
    assert plain["acc"] == plain["stability"] == 1.0 and plain["seeds"] == [0, 1]
    with (tmp_path / "out" / "labels.csv").open() as file:
        labels = {row["sample"]: row["cluster"] for row in csv.DictReader(file)}
    assert len(labels) == 90 and len({(i % 3, labels[f"s{i}"]) for i in range(90)}) == 3
    assert np.load(tmp_path / "out" / "embedding.npy").shape == (90, 4)
    new = command("predict", "out", "rows.csv", "--out", "new.csv")
    assert new["n"] == 90 and new["clusters"] == {"0": 30, "1": 30, "2": 30}
    both = [(tmp_path / file).read_text().splitlines() for file in ("new.csv", "out/labels.csv")]
    assert sorted(both[0]) == sorted(both[1]), "--smoke draws the samples, in an order of its own"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "kmeans puts 90 samples in 3 clusters." in page and "Most doubtful" in page
    again = command("train", str(tmp_path / "out" / "config.yaml"), "--storage", "store", "--out", "again", "--smoke")
    assert again["metrics"]["acc"] == 1.0
    told = command("cluster", *words)["told"]
    assert "going on with cluster-rows-" in told and "started" not in told


def test_methods_with_the_same_clusters_have_one_voice(tmp_path: Path) -> None:
    good, other = noisy(0.02, 1), noisy(0.4, 2)
    found = {
        "a": runs(tmp_path / "a", good),
        "b": runs(tmp_path / "b", (good + 1) % 4),  # under other numbers
        "c": runs(tmp_path / "c", other),
    }
    scores = {one.name: one.scores["agreement"] for one in make_candidates(found)}
    assert scores == pytest.approx(dict.fromkeys("abc", adjusted_rand(good, other)))
    assert [one.scores["agreement"] for one in make_candidates({"a": found["a"], "b": found["b"]})] == [1.0, 1.0]


def test_of_equally_confident_samples_the_nearer_to_the_mean_is_the_more_typical() -> None:
    z = np.array([[0.0], [4.0], [1.0], [1.2], [9.0]])
    confidence = np.array([1.0, 1.0, 1.0, 1.0, 0.5])
    (one,) = cluster_views(list("abcde"), np.zeros(5, np.int64), confidence, z, lambda row: None)
    assert [shown.name for shown in one.typical] == ["b", "d", "c", "a"]
    assert [shown.name for shown in one.doubtful] == ["e"]
