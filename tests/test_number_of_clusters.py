"""`n_clusters: auto`: what a number of clusters costs, and which one MLC's membership chooses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymc import clusterers
from raymc.bare_keys import cluster_range
from raymc.config import Config, Value, resolve
from raymc.datasets import load
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.metrics import clustering_scores
from raymc.ops import coding_length
from raymc.reporting.charts.coding_lengths import length_curves
from raymc.space.space import load_space
from raymc.study.records import SeedRun
from raymc.training.stages import check_sizes, clusters_of

MLC = METHODS["mlc"]


def configured(**keys: Value) -> Config:
    dotted = {key.replace("__", "."): value for key, value in keys.items()}
    return resolve("mlc", "digits", "shared", MLC.stage_settings, dict(MLC.presets["digits"]["shared"]), dotted)


def planes(k: int, n: int, dim: int = 24, rank: int = 2) -> tuple[Tensor, Tensor]:
    """Unit rows `[n, dim]` on k orthogonal subspaces, and which one each lies in."""
    generator = torch.Generator().manual_seed(7)
    y = torch.arange(n) % k
    x = torch.zeros(n, dim)
    for one in range(k):
        x[y == one, one * rank : (one + 1) * rank] = torch.randn(int((y == one).sum()), rank, generator=generator)
    return functional.normalize(x + 0.02 * torch.randn(n, dim, generator=generator), dim=1), y


def test_coding_length_is_the_formula() -> None:
    x, y = planes(3, 50)
    n, d = x.shape
    expected = 0.0
    for one in range(3):
        z = x[y == one].double().numpy()
        m = len(z)
        expected += (m + d) / 2 * np.linalg.slogdet(np.eye(d) + d / (0.1 * m) * z.T @ z)[1] - m * math.log(m / n)
    assert coding_length(x, y, 0.1) == pytest.approx(expected, rel=1e-12)
    assert coding_length(x[torch.randperm(n)], torch.zeros(n).long(), 0.1) > expected


@pytest.mark.parametrize("k", [3, 7])
def test_as_many_clusters_as_there_are_subspaces(k: int) -> None:
    x, y = planes(k, 420)
    found = clusterers.find(configured(n_clusters="2..12", heads__eta=0.1), x, x, 2, 0)
    assert list(found.coding_lengths) == list(range(2, 13))
    assert min(found.coding_lengths, key=found.coding_lengths.__getitem__) == k == len(torch.unique(found.labels))
    assert clustering_scores(y, found.labels)["acc"] > 0.98
    assert torch.equal(found.assigner(x, x), found.labels)
    given = clusterers.find(configured(n_clusters=k, heads__eta=0.1), x, x, k, 0)
    assert not given.coding_lengths
    pairs = torch.unique(torch.stack([given.labels, found.labels]), dim=1)
    assert pairs.shape[1] == k  # the same clusters by other numbers
    few = clusterers.find(configured(n_clusters="auto", heads__eta=0.1), x[:20], x[:20], 2, 0)
    assert max(few.coding_lengths) == 20


def test_words_of_a_space_file(tmp_path: Path) -> None:
    def loaded(text: str, method: str = "mlc") -> Value:
        path = tmp_path / "space.yaml"
        path.write_text(f"method: {method}\ndataset: digits\nfixed: {{n_clusters: {text}}}")
        return load_space(path).config().n_clusters

    assert (loaded("auto"), loaded("{low: 3, high: 9}"), loaded("4")) == ("auto", "3..9", 4)
    assert (cluster_range("auto"), cluster_range("3..9"), cluster_range(4), cluster_range(None)) == (
        *((2, 50), (3, 9)),
        *(None, None),
    )
    for text, told in {
        "many": "fixed.n_clusters: 'many' is a text, not a number",
        "1": "fixed.n_clusters: 1 is below 2",
        "{low: 9, high: 3}": "fixed.n_clusters: 9 to 3 is no range",
        "{low: 1, high: 3}": "fixed.n_clusters: 1 to 3 is no range",
        "{from: 2, to: 9}": "fixed.n_clusters: ",
    }.items():
        with pytest.raises(InputError) as error:
            loaded(text)
        assert told in str(error.value)


def test_methods_with_a_head_for_each_cluster_are_told_how_many() -> None:
    data = load("digits")
    config = configured(n_clusters="auto", clustering="kmeans")
    with pytest.raises(InputError, match="n_clusters: auto is for MLC's membership, not for kmeans"):
        clusters_of(config, data)
    check_sizes(MLC, configured(n_clusters="auto"), data, clusters_of(configured(n_clusters="auto"), data))


def test_the_report_draws_the_curve_of_every_seed(tmp_path: Path) -> None:
    runs = []
    for seed, lengths in enumerate(({"2": 9.0, "3": 5.0, "4": 6.0}, {"2": 9.0, "3": 6.0, "4": 5.5}, None)):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps({"coding_lengths": lengths} if lengths else {}))
        runs.append(SeedRun.of({"seed": seed, "state": "finished"}, folder))
    drawn = length_curves(runs, 3)
    assert drawn is not None and drawn["words"].endswith("least coding length: 3, 4. The labels have 3.")
    assert drawn["plot"].count('class="curve"') == 2 and "seed 1: 4 clusters" in drawn["plot"]
    assert length_curves(runs[2:]) is None
