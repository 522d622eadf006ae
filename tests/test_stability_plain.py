"""Plain methods as arms of `stability`, and k-means beside a run or a study."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raymc import datasets
from raymc.errors import InputError
from raymc.reporting.baseline import beside, sentence
from raymc.reporting.stability.page import write_stability
from raymc.reporting.stability.text import markdown, terminal_text
from raymc.space.space import load_space
from raymc.stability import runs
from raymc.stability.configurations import Configuration, configurations
from raymc.stability.reader import read_stability
from raymc.stability.request import StabilityRequest
from raymc.study.baseline import FILE, keep_baseline, read_baseline
from raymc.study.records import Record, SeedRun
from raymc.training import baseline
from tests.fabricated_stability import fabricate_run
from tests.mlflow_database import new_database


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three blobs of 40 rows, and a space on 90 of them, in the working folder."""
    monkeypatch.chdir(tmp_path)
    y = np.repeat(np.arange(3), 40)
    x = np.random.default_rng(0).normal(size=(120, 5)) + 15 * np.eye(5)[y]
    np.savez("rows.npz", x=x, y=y)
    fixed = "{n_samples: 90, scaling: minmax, n_clusters: 3, cluster_points: 80}"
    Path("mine.yaml").write_text(
        f"method: plain\ndataset: {{path: rows.npz, name: blobs}}\npreset: gmm\nfixed: {fixed}\n"
    )
    return tmp_path


def request(*vs: str, target: str = "mine.yaml", **overrides: Any) -> StabilityRequest:
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return StabilityRequest(target, given, "storage", "data", seeds=2, vs=vs)


def test_a_plain_arm_is_on_the_samples_of_the_first(rows: Path) -> None:
    arms = configurations(request("kmeans", "hdbscan", "turtle", "kmeans", cluster_points=70, task__inner_steps=3))
    assert [arm.name for arm in arms] == ["mine", "kmeans", "hdbscan", "turtle", "kmeans-2"]
    assert [arm.space.method for arm in arms] == ["plain", "plain", "plain", "turtle", "plain"]
    for arm in arms[1:]:
        config = arm.config
        assert (config.n_samples, config.scaling, config.n_clusters, config.cluster_points) == (90, "minmax", 3, 70)
        assert arm.space.own == arms[0].space.own and arm.space.dataset == "blobs"
    assert vars(arms[3].config.stages["task"])["inner_steps"] == 3
    assert arms[1].config.clustering == "kmeans", "an override of the first arm's clustering is not theirs"
    changed = configurations(request("kmeans", clustering="spectral"))
    assert [arm.config.clustering for arm in changed] == ["spectral", "kmeans"]


def test_a_plain_name_alone_and_an_unknown_one_are_one_line(rows: Path) -> None:
    with pytest.raises(InputError, match="kmeans is on the data of what it is compared with: name a space or a study"):
        configurations(request(target="kmeans"))
    with pytest.raises(InputError, match="is called kmean; did you mean"):
        configurations(request("kmean"))


def test_the_others_get_the_number_of_clusters_that_mlc_finds(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLC runs alone first, on the seeds of all; a number that was given stays; no finding is one line."""
    text = "method: mlc\ndataset: {path: rows.npz, name: blobs}\nfixed: {n_clusters: auto}\n"
    Path("auto.yaml").write_text(text)
    found: list[float | None] = [3.0, 7.0, None]
    asked: list[tuple[list[Configuration], StabilityRequest]] = []

    def run(request: StabilityRequest, some: list[Configuration], title: str | None = None) -> Any:
        asked.append((some, request))
        return SimpleNamespace(groups=[SimpleNamespace(folder=rows)])

    monkeypatch.setattr(runs, "run_configurations", run)
    monkeypatch.setattr(runs, "ended_seeds", lambda folder: seeds_that_found(rows, *found))
    runs.run_stability(request("kmeans", "mine.yaml", "gmm", target="auto.yaml"))
    (alone, before), (arms, _) = asked
    assert [one.name for one in alone] == ["auto"] and before.vs == () and before.first_seed == 0
    assert [(one.name, one.config.n_clusters, one.n_clusters_by) for one in arms] == [
        ("auto", "auto", ""), ("kmeans", 3, "auto"), ("mine", 3, ""), ("gmm", 3, "auto"),
    ]  # fmt: skip
    runs.run_stability(request(target="auto.yaml"))
    assert len(asked) == 3, "nobody needs to be told"
    found[:] = [None]
    with pytest.raises(InputError, match="no seed of auto found a number of clusters; give one by n_clusters=K"):
        runs.run_stability(request("kmeans", target="auto.yaml"))


def test_who_found_the_number_of_clusters_is_said(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "mlc-stability-20261124-100000", {"mlc": [0.8, 0.81], "kmeans": [0.7, 0.7]})
    place = run / "kmeans" / "stability.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"n_clusters_by": "mlc", "config": {"n_clusters": 3}}))
    for seed, n in enumerate((3.0, 4.0)):
        result = next((run / "mlc").glob(f"runs/0000/seed-{seed}/result.json"))
        content = json.loads(result.read_text())
        content["metrics"]["clusters_found"] = n
        result.write_text(json.dumps(content))
    said = "kmeans was given 3 clusters, the median of what the seeds of mlc found by coding length (3, 4)."
    assert said in terminal_text(read_stability(run)) and said in markdown(read_stability(run))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_plain_arms_for_real_and_k_means_beside_one_configuration(rows: Path, command: Any) -> None:
    new_database(rows)
    words = ["--seeds", "2", "--storage", "storage"]
    result = command("stability", "mine.yaml", "--vs", "kmeans", "--vs", "agglomerative", *words)
    assert [arm["name"] for arm in result["arms"]] == ["mine", "kmeans", "agglomerative"] and "baseline" not in result
    assert all(arm["acc"]["mean"] == 1 and arm["acc"]["std"] == 0 for arm in result["arms"])
    assert [row["p_wilcoxon"] for row in result["comparisons"]] == [1.0] * 3
    alone = command("stability", "mine.yaml", *words)
    assert alone["baseline"]["beats"] is False and alone["baseline"]["seconds"]["kmeans"] > 0
    page = Path(alone["report"]).read_text(encoding="utf-8")
    first = page.split('<p class="verdict">')[1].split("</p>")[0]
    assert "It does not beat k-means on the same samples, which reaches ACC 1.0000 over 2 seeds" in first
    assert "Beside k-means" in page and "It does not beat k-means" in alone["shown"]
    assert json.loads(Path(alone["report"]).with_suffix(".json").read_text())["baseline"] == alone["baseline"]


def test_k_means_is_kept_once_and_anew_for_other_seeds(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_space("mine.yaml").config()
    data = datasets.load_once(config, None)
    assert read_baseline(rows) is None
    keep_baseline(rows, config, data, (5, 6), smoke=False)
    found = read_baseline(rows)
    assert found is not None and (found["n"], found["clustered"], found["starts"]) == (120, 80, baseline.STARTS)
    assert found["pairwise_ari"]["mean"] == 1 and {one["metrics"]["acc"] for one in found["per_seed"]} == {1.0}
    before = (rows / FILE).stat().st_mtime_ns
    keep_baseline(rows, config, data, (5, 6), smoke=False)
    assert (rows / FILE).stat().st_mtime_ns == before
    keep_baseline(rows, config, data, (5, 7), smoke=False)
    assert (read_baseline(rows) or {})["seeds"] == [5, 7]
    (rows / FILE).write_text("{torn")
    assert read_baseline(rows) is None
    keep_baseline(rows, replace(config, clustering="kmeans"), data, (5, 6), smoke=False)
    assert read_baseline(rows) is None, "k-means beside itself"
    unlabelled = replace(data, train=replace(data.train, y=None), n_classes=None)
    keep_baseline(rows, replace(config, n_clusters=None), unlabelled, (5,), smoke=False)
    assert "no k-means beside it" in capsys.readouterr().err


def seeds_that_found(folder: Path, *found: float | None) -> list[SeedRun]:
    """Seeds that found so many clusters; None: one that failed."""
    seen = [
        {"state": "failed"} if one is None else {"state": "finished", "metrics": {"clusters_found": one}}
        for one in found
    ]
    return [SeedRun.of({"seed": seed, **row}, folder) for seed, row in enumerate(seen)]


def seeds(folder: Path, **metrics: list[float]) -> Record:
    """A record of seeds 0, 1, … with these values."""
    rows = [
        {"seed": seed, "state": "finished", "seconds": 2.0, "metrics": dict(zip(metrics, values, strict=True))}
        for seed, values in enumerate(zip(*metrics.values(), strict=True))
    ]
    return Record.of({"trial": 0, "per_seed": rows}, folder, "confirm")


def test_k_means_has_as_many_clusters_as_the_seeds_found(rows: Path) -> None:
    config = replace(load_space("mine.yaml").config(), method="mlc", clustering="membership", n_clusters="auto")
    data = datasets.load_once(config, None)

    found_by = partial(seeds_that_found, rows)
    keep_baseline(rows, config, data, (5, 6), False, found_by(None))
    assert read_baseline(rows) is None, "two clusters, where the search begins, are nobody's finding"
    for found, asked in ((found_by(3.0, None, 2.0, 3.0), 3), (found_by(4.0, 7.0), 4)):
        keep_baseline(rows, config, data, (5, 6), False, found)
        kept = read_baseline(rows)
        assert kept is not None and kept["n_clusters"] == asked
        assert (kept["pairwise_ari"]["mean"] == 1) == (asked == 3)
    keep_baseline(rows, replace(config, n_clusters=5), data, (5, 6), False, found_by())
    assert (read_baseline(rows) or {})["n_clusters"] == 5


def test_k_means_of_few_starts_is_said_in_the_first_paragraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "STARTS", 20)
    for metric in ("acc", "silhouette"):
        own, its = seeds(tmp_path, **{metric: [0.9, 0.91]}), kmeans_row(**{metric: [0.1, 0.1]})
        assert "k-means, best of 1 start, on the same samples" in sentence(beside(own, None, its | {"starts": 1}))
        assert "best of" not in sentence(beside(own, None, its))


def kmeans_row(**metrics: list[float]) -> dict[str, Any]:
    per_seed = [
        {"seed": seed, "seconds": 0.5, "metrics": dict(zip(metrics, values, strict=True))}
        for seed, values in enumerate(zip(*metrics.values(), strict=True))
    ]
    shared = {"n_clusters": 3, "n": 90, "clustered": 90, "starts": 20, "seeds": list(range(len(per_seed)))}
    return {**shared, "per_seed": per_seed, "pairwise_ari": {"mean": 0.9, "min": 0.8}}


SAID = [
    ([0.9, 0.92, 0.91], [0.7, 0.71, 0.7], True, "it is beaten, by a difference of 0.2067, 95 % interval"),
    ([0.7, 0.72, 0.9], [0.7, 0.71, 0.7], False, "It does not beat k-means"),
    ([0.6, 0.6, 0.6], [0.7, 0.7, 0.7], False, "(a difference of -0.1000)."),
    ([0.9], [0.7], None, "one seed does not tell them apart"),
    ([0.6], [0.7], False, "It does not beat k-means"),
]


@pytest.mark.parametrize(("own", "other", "beats", "words"), SAID)
def test_the_first_paragraph_says_who_is_ahead(
    own: list[float], other: list[float], beats: bool | None, words: str, tmp_path: Path
) -> None:
    found = beside(seeds(tmp_path, acc=own), None, kmeans_row(acc=other))
    assert found is not None and found["beats"] is beats and words in sentence(found).replace("−", "-")
    assert found["seconds"] == {"own": 2.0, "kmeans": 0.5}


def test_the_pages_show_k_means_where_it_was_kept(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "mlc-stability-20261124-100000", {"mlc": [0.8, 0.81, 0.8]})
    without = write_stability(run, tmp_path / "out").read_text(encoding="utf-8")
    assert "k-means" not in without
    (run / FILE).write_text(json.dumps(kmeans_row(acc=[0.85, 0.86, 0.84])))
    page = write_stability(run, tmp_path / "out").read_text(encoding="utf-8")
    first = page.split('<p class="verdict">')[1].split("</p>")[0]
    assert "It does not beat k-means on the same samples, which reaches ACC 0.8500 over 3 seeds" in first
    assert "Beside k-means" in page and "the best of 20 starts on each of 3 seeds" in page
    assert "It does not beat k-means" in (tmp_path / "out" / "stability.md").read_text(encoding="utf-8")


def test_without_labels_nothing_is_claimed_and_without_a_record_nothing_said(tmp_path: Path) -> None:
    own = seeds(tmp_path, silhouette=[0.2, 0.3])
    found = beside(own, {"mean": 0.5, "min": 0.5}, kmeans_row(silhouette=[0.1, 0.1]))
    assert found is not None and found["beats"] is None and "does not say which is better" in sentence(found)
    assert "agreement of seeds 0.5000 against 0.9000, silhouette 0.2500 against 0.1000" in sentence(found)
    assert beside(own, None, None) is None and sentence(None) == ""
