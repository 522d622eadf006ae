"""The report's similarity map and its charts of coding rates and ranks: what they show, and when they are absent."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raymc.reporting.charts.rates import rate_charts
from raymc.reporting.charts.similarity import RAMP, build_similarity, png
from raymc.reporting.search.page import write_report
from raymc.study.records import SeedRun
from raymc.training.outputs import read_similarity
from tests.fabricated_study import fabricate


def run_in(folder: Path) -> SeedRun:
    return SeedRun(5, "finished", {}, (), 0.0, folder)


def curve(folder: Path, rows: list[dict[str, Any]]) -> SeedRun:
    (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_in(folder)


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"), dtype=int)


def test_shades_are_one_ramp_that_rises_in_lightness() -> None:
    shown = pixels(png(np.arange(256, dtype=np.uint8)[None]))[0]
    assert tuple(shown[0]) == RAMP[0] and tuple(shown[-1]) == RAMP[-1]
    assert (np.diff(shown, axis=0) >= 0).all()
    light = shown @ [0.2126, 0.7152, 0.0722]
    assert np.diff(light[::16]).min() > 0


def test_the_map_shows_its_values_and_its_clusters() -> None:
    arrays = {
        "map": np.kron(np.eye(3), np.full((4, 4), 255)).astype(np.uint8),
        "bounds": np.array([0, 4, 8, 12]),
        "clusters": np.array([7, 2, 11]),
    }
    found = build_similarity(arrays)
    assert found is not None
    assert (found.points, found.clusters) == (12, 3)
    drawn = str(found.plot)
    shown = pixels(re.findall(r'href="([^"]*)"', drawn)[0])
    assert shown.shape == (12, 12, 3)
    assert tuple(shown[0, 3]) == RAMP[-1] and tuple(shown[0, 4]) == RAMP[0]
    assert drawn.count('class="bound"') == 2
    assert re.findall(r'<text class="tick end"[^>]*>([^<]*)<', drawn) == ["7", "2", "11"]
    assert "sharp" in drawn


def test_names_of_small_clusters_are_left_out_and_a_noisy_map_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    found = build_similarity({"map": noise, "bounds": np.arange(0, 514, 2).clip(max=512), "clusters": np.arange(256)})
    assert found is not None
    drawn = str(found.plot)
    assert drawn.count('class="tick end"') < 40
    assert len(drawn) < 400_000


@pytest.mark.parametrize("change", [
    {"map": np.zeros((4, 3), np.uint8)},
    {"map": np.zeros((4, 4))},
    {"bounds": np.array([0, 2, 3])},
    {"bounds": np.array([0, 5, 4])},
    {"bounds": np.array([0, 4])},
    {"clusters": np.array([], np.int64)},
    {"clusters": np.array(["a", "b"])},
])  # fmt: skip
def test_a_map_that_does_not_fit_itself_is_not_shown(tmp_path: Path, change: dict[str, Any]) -> None:
    whole = {"map": np.zeros((4, 4), np.uint8), "bounds": np.array([0, 2, 4]), "clusters": np.array([0, 1])}
    np.savez(tmp_path / "similarity.npz", **whole)
    assert build_similarity(read_similarity(tmp_path)) is not None
    np.savez(tmp_path / "similarity.npz", **(whole | change))
    assert read_similarity(tmp_path) == {}
    assert build_similarity({}) is None


def test_rates_are_turned_to_what_they_mean(tmp_path: Path) -> None:
    rows = [
        {"stage": "pretrain", "epoch": 1, "rate": -1.0},
        {"stage": "pretrain", "epoch": 2, "rate": -2.0},
        {"stage": "heads", "epoch": 1, "rate": -100.0, "cluster_rate": 80.0},
        {"stage": "heads", "epoch": 2, "rate": -90.0, "cluster_rate": 0.0},
        {"stage": "heads", "epoch": 3, "rate": -95.0},
    ]
    found = rate_charts([run_in(tmp_path / "nothing"), curve(tmp_path, rows)])
    assert found is not None
    seed, (chart,) = found
    assert (seed, chart.caption) == (5, "heads: coding rates by epoch")
    assert [name for name, _ in chart.legend] == ["all", "parts", "gain"]
    lines = dict(re.findall(r'class="term (\w+)" d="([^"]*)"', str(chart.plot)))
    ends = {name: [float(y) for y in re.findall(r" ([\d.]+)(?:L|$)", path)] for name, path in lines.items()}
    assert all(len(heights) == 2 for heights in ends.values())
    nat = (ends["parts"][1] - ends["all"][1]) / 90  # pixels of a nat: zero is where R_c ends
    zero = ends["parts"][1]
    assert [(zero - y) / nat for y in ends["all"]] == pytest.approx([100, 90], abs=0.2)
    assert [(zero - y) / nat for y in ends["gain"]] == pytest.approx([20, 90], abs=0.2)


def test_ranks_are_drawn_where_they_were_measured(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"stage": "heads", "epoch": epoch, "loss": 1.0} for epoch in range(1, 7)]
    for row in rows[1::2]:
        row |= {"rank_all": 100 - row["epoch"], "rank_clusters": 20.5}
    found = rate_charts([curve(tmp_path, rows)])
    assert found is not None
    (chart,) = found[1]
    assert chart.caption == "heads: numerical rank by epoch"
    assert [text for _, text in chart.legend] == ["all features", "the found clusters, their mean"]
    for row in rows[1::2]:
        row["rank_classes"] = 30.0
    found = rate_charts([curve(tmp_path, rows)])
    assert found is not None and len(found[1][0].legend) == 3
    assert rate_charts([curve(tmp_path, [{"stage": "heads", "epoch": 1, "loss": 1.0}])]) is None
    assert rate_charts([curve(tmp_path, [{"stage": "heads", "epoch": 1, "rank_all": 1.0}])]) is None


def test_the_page_has_both_parts_or_neither(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "digits", 6, confirm=1)
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "How alike the embeddings are" in page and "bright blocks on the diagonal" in page
    assert "finetune: coding rates by epoch" in page and "finetune: numerical rank by epoch" in page
    assert '<li class="parts">' in page
    for path in (*study.rglob("similarity.npz"), *study.rglob("curve.jsonl")):
        path.unlink()
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "How alike the embeddings are" not in page and "<image" not in page
    assert "coding rates" not in page and '<ul class="legend">' not in page
