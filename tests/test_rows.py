"""What a training leaves of every sample: names that are no plain words, confidences, the embedding; the file that
trains it again; and the seed that stands for a study's winner."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn import functional

from raymc import cli
from raymc.clusterers.base import Assigner
from raymc.clusterers.kmeans import CentreAssigner
from raymc.clusterers.membership import MembershipAssigner
from raymc.clusterers.mixture import MixtureAssigner, gaussian_mixture
from raymc.clusterers.voting import NEIGHBOURS, NeighbourAssigner, PointAssigner
from raymc.commands import train as door
from raymc.datasets import Dataset, Split
from raymc.methods import METHODS
from raymc.methods.base import Facts, confidence_of
from raymc.methods.gcml_presets import own
from raymc.metrics.labellings import ari_matrix, most_agreeing
from raymc.space.again import same_again, write_config
from raymc.space.space import Space, load_space
from raymc.training import rows
from raymc.training.smoke import limit

NAMES = ("a,b.png", 'say "x"', "two\nlines", "car\rriage", "12", "=1+1", "ünï/ß.jpg", " spaces ", "bad\udcff.png")


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_any_name_comes_back_from_the_table(tmp_path: Path) -> None:
    sure = torch.linspace(0, 1, len(NAMES))
    rows.write_labels(tmp_path / "l.csv", NAMES, torch.arange(len(NAMES)), sure)
    header, *lines = read(tmp_path / "l.csv")
    assert header == ["sample", "cluster", "confidence"]
    assert tuple(line[0] for line in lines) == NAMES and [int(line[1]) for line in lines] == list(range(len(NAMES)))
    np.testing.assert_allclose([float(line[2]) for line in lines], sure, atol=1e-6)
    rows.write_labels(tmp_path / "n.csv", None, torch.tensor([1, 0]), torch.tensor([0.25, 1 + 1e-6]))
    assert read(tmp_path / "n.csv")[1:] == [["0", "1", "0.25"], ["1", "0", "1.0"]]


@pytest.mark.parametrize("n", [1, rows.ROWS, 2 * rows.ROWS + 3])
def test_the_embedding_is_the_one_that_was_found(n: int, tmp_path: Path) -> None:
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows.write_embedding(tmp_path / "z.npy", z)
    found = np.load(tmp_path / "z.npy")
    assert found.dtype == np.float32 and [path.name for path in tmp_path.iterdir()] == ["z.npy"]
    np.testing.assert_array_equal(found, z.float().numpy())


def dataset(n: int = 6, classes: tuple[str, ...] | None = ("cat", "dog, old")) -> Dataset:
    split = Split(torch.zeros(n, 2), torch.arange(n) % 2)
    return Dataset("d", split, None, 2, "all", "f", None, n, "here", samples=NAMES[:n], classes=classes)


def test_the_confusion_names_the_classes_and_what_is_left_of_before_goes(tmp_path: Path) -> None:
    arrays = {"labels": torch.tensor([4, 0, 4, 0, 0, 0]), "confidence": torch.ones(6)}
    both = arrays | {"test_labels": torch.tensor([1]), "test_confidence": torch.tensor([0.5])}
    rows.write_rows(tmp_path, replace(dataset(), test_samples=NAMES[1:2]), both, torch.ones(6, 2))
    assert read(tmp_path / rows.CONFUSION) == [["cluster", "cat", "dog, old"], ["0", "1", "3"], ["4", "2", "0"]]
    assert read(tmp_path / rows.TEST_LABELS)[1:] == [[NAMES[1], "1", "0.5"]]
    rows.write_rows(tmp_path, replace(dataset(), classes=None), arrays, torch.ones(6, 2))
    assert read(tmp_path / rows.CONFUSION)[0] == ["cluster", "0", "1"] and not (tmp_path / rows.TEST_LABELS).exists()


def test_samples_keep_their_names_where_only_some_are_taken() -> None:
    few = limit(replace(dataset(), train=Split(torch.arange(6.0)[:, None], None)), 4)
    assert few.samples == tuple(NAMES[int(x)] for x in few.train.x.squeeze(1))
    held = replace(dataset(), test=few.train, test_samples=tuple("wxyz"))
    cut = limit(held, 2)
    assert (
        cut.test is not None
        and cut.test_samples is not None
        and limit(held, 2, test=False).test_samples == tuple("wxyz")
    )
    assert torch.equal(few.train.x[["wxyz".index(name) for name in cut.test_samples]], cut.test.x)
    bare = limit(replace(dataset(), samples=None, train=Split(torch.arange(6.0)[:, None], None)), 4)
    assert bare.samples == tuple(str(int(x)) for x in bare.train.x.squeeze(1))


def assigners() -> dict[str, Assigner]:
    """Of three clouds about `CORNERS`, forty points each."""
    mixture = gaussian_mixture(POINTS.numpy(), 3, 0)
    names = {int(mixture.labels[40 * k]): k for k in range(3)}
    order = torch.tensor([next(at for at, k in names.items() if k == j) for j in range(3)])
    parts = {name: torch.as_tensor(getattr(mixture, name))[order] for name in ("means", "roots", "logs")}
    directions = functional.normalize(POINTS, dim=1)
    known = {"anchors": directions, "potential": torch.zeros(120), "labels": LABELS, "eta": torch.tensor(0.1)}
    return {
        "kmeans": CentreAssigner(centres=CORNERS),
        "gmm": MixtureAssigner(**parts),
        "points": PointAssigner(points=POINTS, labels=LABELS),
        "directions": NeighbourAssigner(anchors=directions, labels=LABELS),
        "membership": MembershipAssigner(**known),
    }


CORNERS = 5.0 * torch.eye(3)
LABELS = torch.arange(3).repeat_interleave(40)
POINTS = CORNERS[LABELS] + 0.5 * torch.randn(120, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(assigners()))
def test_confidence_is_high_in_a_cluster_and_low_between_two(name: str) -> None:
    assigner = assigners()[name]

    def of(z: Tensor, labels: Tensor) -> Tensor:
        return assigner.confidence(z, functional.normalize(z, dim=1), labels)

    inside, between = CORNERS, (CORNERS + CORNERS.roll(1, 0)) / 2
    here, there = of(inside, torch.arange(3)), of(between, torch.arange(3))
    assert (here >= 0.9).all() and (here <= 1 + 1e-6).all()
    assert (there >= 0).all() and (there < here).all()
    assert name == "gmm" or there.mean() < 0.7  # a posterior is sharp wherever two Gaussians part
    assert (of(inside, torch.tensor([1, 2, 0])) < 0.1).all(), "in a cluster that is not its own"
    assert torch.equal(assigner(POINTS, functional.normalize(POINTS, dim=1)), LABELS)


def test_the_confidence_of_a_mixture_is_its_posterior() -> None:
    weights, means = torch.tensor([0.2, 0.8], dtype=torch.float64), torch.tensor([[0.0, 0.0], [2.0, 1.0]]).double()
    covariances = torch.tensor([[[1.0, 0.3], [0.3, 2.0]], [[0.5, 0.0], [0.0, 1.5]]], dtype=torch.float64)
    roots = torch.linalg.cholesky(torch.linalg.inv(covariances))
    logs = weights.log() + roots.diagonal(dim1=1, dim2=2).log().sum(1)
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    densities = MultivariateNormal(means, covariances).log_prob(z[:, None]).exp() * weights
    found = MixtureAssigner(means=means, roots=roots, logs=logs).confidence(z, None, torch.zeros(20, dtype=torch.long))
    torch.testing.assert_close(found, densities[:, 0] / densities.sum(1))


@pytest.mark.parametrize("name", ["points", "directions", "membership"])
def test_a_clustered_point_has_no_say_in_its_own_cluster(name: str) -> None:
    labels = LABELS.clone()
    labels[5] = 2
    assigner = assigners()[name]
    assigner.labels = labels
    one = POINTS[5:6]
    sure = assigner.confidence(one, functional.normalize(one, dim=1), labels[5:6])
    assert float(sure) == pytest.approx(0, abs=1e-6)


def test_the_margin_of_k_means_by_hand() -> None:
    assigner = CentreAssigner(centres=torch.tensor([[0.0], [4.0], [20.0]]))
    z = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    np.testing.assert_allclose(assigner.confidence(z, None, torch.zeros(4, dtype=torch.long)), [1, 2 / 3, 0, 0])
    twice = CentreAssigner(centres=torch.zeros(2, 1))
    assert float(twice.confidence(z[:1], None, torch.zeros(1, dtype=torch.long))) == 0
    few = PointAssigner(points=z, labels=torch.tensor([0, 0, 1, 1]))
    assert len(z) < NEIGHBOURS and float(few.confidence(z[:1], None, torch.tensor([0]))) == pytest.approx(1 / 3)


def test_a_heads_confidence_is_the_probability_of_the_label() -> None:
    output = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    labels, z, bare = torch.tensor([0, 1]), torch.zeros(2, 3), nn.ModuleDict()
    expected = [1 / (1 + np.exp(-2.0)), 0.5]
    np.testing.assert_allclose(confidence_of(METHODS["nmce"], bare, z, output, labels), expected, rtol=1e-6)
    q = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    np.testing.assert_allclose(confidence_of(METHODS["gcml"], bare, z, q, labels), [0.7, 0.6])


def test_the_seed_that_agrees_most_stands_for_all() -> None:
    a, b = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2]
    found, agreement = most_agreeing([[0, 1, 0, 1, 0, 1], a, [2, 2, 0, 0, 1, 1], b])
    matrix = np.array(ari_matrix([[0, 1, 0, 1, 0, 1], a, [2, 2, 0, 0, 1, 1], b]))
    means = (matrix.sum(1) - 1) / 3
    assert found == int(means.argmax()) == 1 and agreement == pytest.approx(means.max())
    assert most_agreeing([a]) == (0, None)
    with pytest.raises(ValueError, match="no labellings"):
        most_agreeing([])


SPACES = [
    ("nmce_digits", {"heads.weight_decay": 1e-5, "seed": 3}),
    ("mlc_digits", {"heads.epochs": 3, "clustering": "kmeans", "seeds_from": "heads", "workers": 2}),
    ("gcml_digits", {"finetune.whole_learning_rate": None, "n_clusters": 7}),
]


@pytest.mark.parametrize(("name", "over"), SPACES)
def test_the_file_that_trains_it_again_has_the_same_configuration(
    name: str, over: dict[str, Any], tmp_path: Path
) -> None:
    space: Space = load_space(name)
    config = space.config(over)
    write_config(tmp_path / "config.yaml", space, config)
    assert load_space(tmp_path / "config.yaml").config() == config
    assert set(same_again(space, config)) <= {"method", "dataset", "preset", "fixed", "resources"}


def execute(*words: str) -> int:
    return cli.execute(door.parser(), door.run, [*words, "--json"])


def test_a_training_leaves_it_all_and_is_repeated_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    np.savez(tmp_path / "rows.npz", x=6 * np.eye(3)[y] + rng.normal(size=(90, 3)), y=np.array(["a", "b,c", "d"])[y])
    (tmp_path / "mine.yaml").write_text("method: gcml\ndataset: {path: rows.npz}\n")
    small = ("pretrain.epochs=4", "finetune.epochs=4", "finetune.start_epoch=1", "finetune.continuation_epochs=4")
    common = ("--storage", str(tmp_path / "store"))
    assert execute(str(tmp_path / "mine.yaml"), *small, "--seed", "100", "--out", str(tmp_path / "out"), *common) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = read(tmp_path / "out" / rows.LABELS)[1:]
    arrays = np.load(tmp_path / "out" / "labels.npz")
    assert [int(line[1]) for line in lines] == arrays["labels"].tolist()
    np.testing.assert_allclose([float(line[2]) for line in lines], arrays["confidence"], atol=1e-6)
    assert np.load(tmp_path / "out" / rows.EMBEDDING).shape == (90, 10)
    assert len(read(tmp_path / "out" / rows.CONFUSION)) == 4

    assert execute(str(tmp_path / "out" / "config.yaml"), "--out", str(tmp_path / "again"), *common) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [stage["cached"] for stage in again["stages"]] == [True, True] and again["metrics"] == first["metrics"]
    for name in (rows.LABELS, rows.EMBEDDING):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("shape", [(4,), (64,), (768,), (3, 64, 64)])
@pytest.mark.parametrize("n", [2, 150, 1437, 5_000, 10_992, 70_000])
def test_gcmls_own_preset_is_made_for_the_data(n: int, shape: tuple[int, ...]) -> None:
    found: dict[str, Any] = dict(own(Facts(n, shape)))
    steps = -(-n // found["pretrain.batch_size"])
    assert found["pretrain.epochs"] * steps <= max(3_200, 20 * steps)
    assert found["finetune.epochs"] * steps <= max(2_600, 20 * steps)
    assert found["finetune.start_epoch"] < found["finetune.continuation_epochs"] == found["finetune.epochs"]
    METHODS["gcml"].stages(load_space("gcml_digits").config(found))
