"""What `raymc cluster` says, shows and refuses; how it looks for the number of clusters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raymc import datasets
from raymc.cli import execute
from raymc.clusterers import FOR_POINTS, find
from raymc.commands import cluster as door
from raymc.config import OwnData
from raymc.datasets import Dataset, Split
from raymc.errors import CollapsedError, InputError
from raymc.reporting.cluster import folder, page, sentences
from raymc.reporting.cluster.pictures import thumbnails
from raymc.space.space import make_space
from raymc.stability import cluster
from raymc.stability.choice import Candidate
from raymc.stability.side_by_side import Source, configuration_of, space_of
from raymc.study.manifest import load_data
from raymc.study.records import SeedRun
from raymc.training.features.data import read_raw
from raymc.training.model_files import effective
from raymc.training.smoke import limit

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


def seed_run(seed: int, state: str = "finished", **metrics: float) -> SeedRun:
    return SeedRun.of({"seed": seed, "state": state, "metrics": metrics}, Path())


def dataset(x: torch.Tensor, y: torch.Tensor | None = None) -> Dataset:
    return Dataset("mine", Split(x, y), None, None, "all", "print", None, len(x), "here")


def found(own: OwnData | None, data: Dataset) -> Any:
    return SimpleNamespace(space=SimpleNamespace(own=own), dataset=data, data="root")


def test_pictures_of_drawn_photos_are_those_of_their_names(tmp_path: Path) -> None:
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (90, 70), colour).save(tmp_path / f"{number}.png")
    own = OwnData(name="mine", path=str(tmp_path), encoder="small")
    raw = read_raw(own, None, most=4)
    assert raw.found is not None and raw.found.samples is not None
    names = list(raw.found.samples)
    assert len(names) == 4 and names != sorted(names)
    (tmp_path / "5.png").write_bytes(b"torn")  # nobody reads what is not shown
    shown = thumbnails(found(own, dataset(torch.zeros(4, 3))))
    for name in {*names} - {"5.png"}:
        image = shown(name)
        assert image is not None and image.shape == (64, 64, 3)
        assert np.abs(image[32, 32].astype(int) - COLOURS[int(name[0])]).max() <= 1
    assert shown("5.png") is None and shown("gone\\xff.png") is None
    texts = OwnData(name="mine", path=str(tmp_path), encoder="small", text="words")
    assert thumbnails(found(texts, dataset(torch.zeros(4, 3))))("0.png") is None


def test_pictures_of_arrays_are_those_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images, of a known dataset behind an encoder, and of an .npz behind one, each cut to a few samples."""
    x = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 1, 8, 8).contiguous()
    whole = dataset(x)
    few = limit(whole, 7)
    assert few.samples is not None
    monkeypatch.setattr(datasets, "load", lambda name, root: whole)
    np.savez(tmp_path / "images.npz", x=x.numpy())
    features = limit(dataset(torch.zeros(30, 4)), 7)
    known = OwnData(name="mine", path="digits", encoder="small")
    file = OwnData(name="mine", path=str(tmp_path / "images.npz"), encoder="small")
    for own, data in ((None, few), (None, whole), (known, features), (file, features)):
        shown = thumbnails(found(own, data))
        for name in few.samples:
            image = shown(name)
            assert image is not None and image.shape == (8, 8) and int(image[0, 0]) == int(name)
        assert shown("30") is None
    assert thumbnails(found(None, features))("0") is None


def test_the_number_of_clusters_is_the_median_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of MLC's finished ones, of two in the middle the smaller; without one, or without MLC, a line."""
    asked: list[Any] = []
    runs: tuple[SeedRun, ...] = ()

    def fitting(names: list[str], source: Source, data: object, clusters: object, smoke: bool) -> Any:
        asked.append((names, clusters))
        if clusters == "2..9":
            raise InputError("two samples")
        return SimpleNamespace(configurations=(SimpleNamespace(name="mlc"),))

    group = SimpleNamespace(folder=Path())
    monkeypatch.setattr(cluster, "fitting", fitting)
    monkeypatch.setattr(cluster, "_run", lambda request, title, some: SimpleNamespace(groups=(group,)))
    monkeypatch.setattr(cluster, "ended_seeds", lambda folder: runs)

    def count(clusters: int | str) -> cluster.Count:
        request: Any = SimpleNamespace(smoke=False)
        return cluster._count(request, Source("mine", "digits"), dataset(torch.zeros(2, 2)), clusters)

    assert count(4) == cluster.Count(4) and not asked
    runs = tuple(seed_run(seed, clusters_found=n) for seed, n in enumerate((9, 3, 5, 7, 6)))
    assert count("auto") == cluster.Count(6, runs) and asked == [(["mlc"], "auto")]
    runs = (seed_run(0, clusters_found=9), seed_run(1, "failed"), seed_run(2, clusters_found=4))
    assert count("auto").n == 4 and [one.seed for one in count("auto").runs] == [0, 2]
    runs = (seed_run(0, "failed"),)
    with pytest.raises(InputError, match="--clusters auto: no seed of MLC came to an end"):
        count("auto")
    with pytest.raises(InputError, match=r"--clusters 2..9: MLC, .* cannot take the data \(two samples\)"):
        count("2..9")


def test_presets_are_those_that_the_documentation_names(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n3,4\n" * 9)
    rows, of = str(tmp_path / "rows.csv"), ("nmce", "mlc", "gcml")
    for source, presets in (
        (Source.of(rows), ["own", "own", "own"]),
        (Source.of(rows, features=True), ["features", "features", "own"]),
        (Source.of("digits"), ["paper", "paper", "tuned"]),
        (Source.of("usps"), ["own", "own", "tuned"]),
    ):
        configs = [configuration_of(name, source, 2, smoke=False).config for name in of]
        assert [effective(config)["preset"] for config in configs] == presets


def test_a_shortened_run_needs_no_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(600, 3)))
    space = space_of(Source.of(str(tmp_path / "rows.npy")), 3)
    assert len(load_data(space, "root", str(tmp_path), smoke=True).train) == 512


def candidate(name: str, **scores: float) -> Candidate:
    return Candidate(name, {0: np.array([0, 0, 1, 1])}, 0, scores)


def told(*names: str, ran: int, left_out: dict[str, str] | None = None) -> str:
    candidates = tuple(candidate(name, agreement=0.7) for name in names)
    runs = {name: () for name in range(ran)}
    some: Any = SimpleNamespace(candidates=candidates, chosen=candidates[0], runs=runs, left_out=left_out or {})
    return sentences.how_chosen(some)


def test_why_a_method_was_taken() -> None:
    assert told("kmeans", ran=1) == "No other method was asked for, so nothing was chosen."
    assert told("kmeans", ran=2) == "No other method came to an end, so nothing was chosen."
    assert told("kmeans", ran=1, left_out={"gcml": "no"}) == "No other method takes these data, so nothing was chosen."
    assert "the first of two" in told("kmeans", "gmm", ran=2)  # each agrees with the other as much
    assert "agree most with those of gmm and mlc" in told("kmeans", "gmm", "mlc", ran=3)


@pytest.mark.parametrize(
    ("mine", "its", "words"),
    [
        ((0.90, 0.91, 0.92), (0.80, 0.82, 0.81), "it beats k-means: ACC 0.9100, k-means 0.8100; the 95 % interval"),
        ((0.90, 0.60, 0.75), (0.70, 0.72, 0.71), "It does not beat k-means"),  # the better mean, by luck
        ((0.50, 0.51, 0.52), (0.80, 0.82, 0.81), "It is worse than k-means"),
        ((0.90,), (0.80,), "too few to say that it beats k-means"),
        ((0.70,), (0.80,), "It does not beat k-means"),
        ((0.90, 0.91), (), ""),
    ],
)
def test_k_means_is_beaten_where_the_seeds_say_so(mine: tuple[float], its: tuple[float], words: str) -> None:
    said = sentences.by_accuracy(dict(enumerate(mine)), dict(enumerate(its)))
    assert words in said and bool(said) == bool(words)


def test_agreement_is_no_proof() -> None:
    chosen = candidate("kmeans", agreement=0.9)
    some: Any = SimpleNamespace(chosen=chosen, count=cluster.Count(2), labelled=True)
    (line,) = sentences.trust(some)
    assert "no proof" in line and "without any clusters" in line


def test_equal_rows_have_no_clusters() -> None:
    """The same end for every plain method: exit code 3, one line."""
    for name in FOR_POINTS:
        content = {"method": "plain", "preset": name, "dataset": "digits", "fixed": {"n_clusters": 3}}
        config = make_space(Path("mine.yaml"), content).config()
        with pytest.raises(CollapsedError, match="all 40 samples are equal: there are no clusters"):
            find(config, torch.ones(40, 3), None, 3, 0, unit_rows=False)


def test_bad_input_is_one_line_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*args: object) -> None:
        raise AssertionError("it began")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "cluster", never)
    Path("file").write_text("")
    table = {
        ("",): "DATA is empty",
        ("usps", "--features"): "--features is for files of your own, and usps is a known dataset",
        ("usps", "--label", "folder"): "--label is for files of your own, and usps is a known dataset",
        ("usps", "--id", "name"): "--id is for files of your own",
        ("usps", "--text", "words"): "--text is for an encoder, and none is named",
        ("usps", "--methods", ""): "--methods: a name is missing",
        ("usps", "--methods", "kmeans,"): "--methods: a name is missing",
        ("usps", "--out", "file"): "cannot be written",
        ("usps", "--out", "file/below"): "cannot be written",
    }
    for words, expected in table.items():
        assert execute(door.parser(), door.run, [*words, "--storage", "store"]) == 2, words
        line = capsys.readouterr().err.strip()
        assert expected in line and line.count("\n") == 0, (words, line)
    assert not Path("runs").exists()


def test_results_of_other_data_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a/data.csv` and `b/data.csv` have one default folder."""
    monkeypatch.chdir(tmp_path)
    mine, other = Source.of("a/data.csv"), Source.of("b/data.csv")
    assert mine.name == other.name
    out = tmp_path / "out"
    folder.make_folder(out, mine, default=True)
    page.write_json(out / folder.SCORES_FILE, {**mine.origin, "chosen": "kmeans", "arms": []})
    folder.make_folder(out, Source.of("a/data.csv", label="kind"), default=True)
    folder.make_folder(out, other, default=False)
    with pytest.raises(InputError, match=r"out holds the results of .*a/data.csv; give --out"):
        folder.make_folder(out, other, default=True)
    seen, again = (Source.of("a", encoder=f"timm:{net}") for net in ("one", "two"))
    page.write_json(out / folder.SCORES_FILE, {**seen.origin, "chosen": "kmeans", "arms": []})
    with pytest.raises(InputError, match=r"/a by timm:one; give --out"):
        folder.make_folder(out, again, default=True)
    page.write_json(out / folder.SCORES_FILE, {"chosen": "kmeans", "arms": []})  # of an earlier version
    folder.make_folder(out, mine, default=True)
