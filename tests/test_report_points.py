"""The report's pictures of an embedding's points over the epochs, and of the ranks and distances that it keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raymc.metrics.rank_isometry import rank_and_isometry
from raymc.reporting.charts.rank_isometry import build_rank_isometry
from raymc.reporting.charts.stages import BUDGET, FINE, MARGIN, SIDE, build_stages
from raymc.reporting.search.page import write_report
from raymc.study.records import SeedRun
from raymc.training.outputs import read_geometry, read_snapshots, write_arrays
from tests.fabricated_study import fabricate

STYLE = (Path(__file__).parents[1] / "raymc" / "reporting" / "templates" / "report.css").read_text(encoding="utf-8")


def run_in(folder: Path) -> SeedRun:
    return SeedRun(5, "finished", {}, (), 0.0, folder)


def snapshots(n: int = 60, e: int = 3, k: int = 4, classes: int = 0) -> dict[str, np.ndarray]:
    points = np.random.default_rng(0).normal(size=(e, n, 2)).astype(np.float32)
    known = {"y": np.arange(n) % classes} if classes else {}
    return {"epochs": 10 * np.arange(e), "points": points, "labels": np.arange(n) % k + 3, **known}


def geometry(k: int = 5, n: int = 200) -> dict[str, np.ndarray]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(k))
    return {name: array.numpy() for name, array in rank_and_isometry(x, x[:, :2], torch.arange(n) % k).items()}


def places(drawn: object) -> np.ndarray:
    """`[n, 2]` in pixels, in the order of the groups."""
    return np.array(re.findall(r"M(-?\d+) (-?\d+)h0", str(drawn)), dtype=float) / FINE


def test_each_epoch_has_a_picture_that_holds_its_points_on_one_scale() -> None:
    arrays = snapshots()
    arrays["points"][1] *= (1, 5)
    found = build_stages(arrays)
    assert found is not None
    assert [caption for caption, _ in found.panels] == ["Before fine-tuning", "Epoch 10", "Epoch 20"]
    assert (found.points, found.by, found.note) == (60, "cluster", "")
    order = np.argsort(arrays["labels"], kind="stable")
    for (_, plot), flat in zip(found.panels, arrays["points"][:, order], strict=True):
        drawn = places(plot)
        assert drawn.shape == (60, 2) and drawn.min() >= MARGIN and drawn.max() <= SIDE - MARGIN
        assert np.ptp(drawn, axis=0).max() == pytest.approx(SIDE - 2 * MARGIN, abs=1)
        ratio = np.ptp(drawn, axis=0) / np.ptp(flat, axis=0)
        assert ratio[0] == pytest.approx(ratio[1], rel=0.02)
        assert np.corrcoef(drawn[:, 1], flat[:, 1])[0, 1] == pytest.approx(-1, abs=1e-3)  # up is up
    first = str(found.panels[0][1])
    assert 'aria-label="The embedding before fine-tuning: 60 points, 4 clusters"' in first
    assert re.findall(r'<path class="(\w+)"', first) == ["hue0", "hue1", "hue2", "hue3"]
    assert re.findall(r'<text class="name mid"[^>]*>(\d+)<', first) == ["3", "4", "5", "6"]
    assert first == str(build_stages(snapshots()).panels[0][1])  # type: ignore[union-attr]


def test_true_classes_give_the_colours_where_they_are_known() -> None:
    found = build_stages(snapshots(classes=2))
    assert found is not None and found.by == "class"
    assert re.findall("<title>([^<]*)</title>", str(found.panels[0][1])) == ["class 0", "class 1"]


def test_a_thousand_points_in_ten_pictures_stay_small_and_more_are_thinned() -> None:
    found = build_stages(snapshots(1000, 10, 10))
    assert found is not None and found.points == 1000 and not found.note
    assert sum(len(plot) for _, plot in found.panels) < 150_000
    found = build_stages(snapshots(5000, 20, 100))
    assert found is not None and found.points == BUDGET // 20
    assert found.note.startswith("Shown: 600 of 5,000 points. 100 clusters share 10 colours")
    assert "<text" not in found.panels[0][1]
    assert sum(len(plot) for _, plot in found.panels) < 300_000


@pytest.mark.parametrize("points", [np.zeros((1, 5, 2), np.float32), np.full((1, 1, 2), 1e30, np.float32)])
def test_points_in_one_place_stand_in_the_middle(points: np.ndarray) -> None:
    n = points.shape[1]
    found = build_stages({"epochs": np.array([0]), "points": points, "labels": np.zeros(n, int)})
    assert found is not None and (places(found.panels[0][1]) == SIDE / 2).all()


@pytest.mark.parametrize("change", [
    {"points": np.zeros((3, 60, 1), np.float32)},
    {"points": np.full((3, 60, 2), np.nan, np.float32)},
    {"points": np.zeros((2, 60, 2), np.float32)},
    {"points": np.zeros((3, 60, 2), int)},
    {"labels": np.zeros(59, int)},
    {"labels": np.zeros(60)},
    {"y": np.zeros(61, int)},
    {"y": np.zeros((60, 1), int)},
    {"epochs": np.array([0, 20, 10])},
    {"epochs": np.array([-1, 0, 10])},
    {"epochs": np.zeros(0, int), "points": np.zeros((0, 60, 2), np.float32)},
])  # fmt: skip
def test_snapshots_that_do_not_fit_are_not_shown(tmp_path: Path, change: dict[str, Any]) -> None:
    np.savez(tmp_path / "snapshots.npz", **snapshots())
    assert build_stages(read_snapshots(tmp_path)) is not None
    np.savez(tmp_path / "snapshots.npz", **(snapshots() | change))
    assert read_snapshots(tmp_path) == {}
    assert build_stages({}) is None


@pytest.mark.parametrize("k", [1, 5, 12, 13, 100])
def test_the_grid_is_filled_where_ranks_agree(k: int) -> None:
    arrays = geometry(k)
    found = build_rank_isometry(arrays)
    assert found is not None
    same = arrays["rank_input"] == arrays["rank_latent"]
    assert (found.same, found.cells, found.cra) == (same.sum(), k * k, same.mean())
    drawn = str(found.grid)
    cell = 300 / k
    if k <= 12:
        cells = re.findall(r'class="(same|moved)" x="([\d.]+)" y="([\d.]+)"', drawn)
        filled = {
            (round((float(y) - 24) // cell), round((float(x) - 34) // cell)) for css, x, y in cells if css == "same"
        }
        assert len(cells) == k * k and drawn.count("<title>") == k * k
    else:
        filled = set()
        for x, y, width in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v", drawn):
            first, row = round((float(x) - 34) / cell), round((float(y) - 24) / cell)
            filled |= {(row, first + step) for step in range(round(float(width) / cell))}
    assert filled == {(int(i), int(j)) for i, j in np.argwhere(same)}
    assert len(drawn) < 150_000
    assert f'aria-label="{same.sum()} of {k * k} ranks between {k} clusters' in drawn


def test_a_hundred_scattered_cells_stay_small_and_names_do_not_collide() -> None:
    arrays = geometry(100)
    checks = np.indices((100, 100)).sum(0) % 2
    found = build_rank_isometry(arrays | {"rank_input": checks, "rank_latent": np.zeros_like(checks)})
    assert found is not None and found.same == 5000 and len(found.grid) < 200_000
    named = [float(y) for y in re.findall(r'<text class="tick end" x="[\d.]+" y="([\d.]+)"', str(found.grid))]
    assert len(named) >= 10 and np.diff(named).min() >= 15


def test_the_histogram_has_its_shares_and_says_what_they_mean() -> None:
    arrays = geometry() | {
        "difference_edges": np.array([-1, 0, 1, 2], np.float32), "difference_counts": np.array([1, 0, 3]),
        "difference_quartiles": np.array([-0.5, 1.25, 2], np.float32), "input_distance": np.array(0.75, np.float32),
    }  # fmt: skip
    found = build_rank_isometry(arrays)
    assert found is not None
    bars = re.findall(r'class="bar" x="([\d.]+)" y="[\d.]+" width="[\d.]+" height="([\d.]+)"><title>([^<]*)<',
                      str(found.histogram))  # fmt: skip
    assert [title for *_, title in bars] == ["-1 to 0: 25.0 %", "1 to 2: 75.0 %"]
    assert float(bars[1][1]) == pytest.approx(3 * float(bars[0][1]), rel=0.01)
    assert 'class="zero"' in found.histogram
    assert found.differences.startswith("4 pairs") and "0.75 apart" in found.differences
    assert "Median difference 1.25, half of them between −0.5 and 2." in found.differences


@pytest.mark.parametrize("change", [
    {"rank_input": np.zeros((5, 4), int)},
    {"rank_latent": np.zeros((4, 4), int)},
    {"rank_latent": np.zeros((5, 5))},
    {"rank_input": np.array(0)},
    {"clusters": np.arange(4)},
    {"difference_counts": np.zeros(7, int)},
    {"difference_edges": np.zeros(61, np.float32)},
    {"difference_quartiles": np.zeros(2, np.float32)},
    {"input_distance": np.zeros(1, np.float32)},
    {name: array[:0] for name, array in geometry().items() if name in ("clusters", "rank_input", "rank_latent")},
])  # fmt: skip
def test_a_geometry_that_does_not_fit_is_not_shown(tmp_path: Path, change: dict[str, Any]) -> None:
    write_arrays(tmp_path / "geometry.npz", {name: torch.as_tensor(array) for name, array in geometry().items()})
    assert build_rank_isometry(read_geometry(tmp_path)) is not None
    np.savez(tmp_path / "geometry.npz", **(geometry() | change))
    assert read_geometry(tmp_path) == {}
    assert build_rank_isometry({}) is None


def test_the_page_has_the_pictures_or_neither(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "digits", 6, confirm=1)
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "The embedding at the stages of training" in page and "in the colour of their true class" in page
    assert page.count("<figcaption>Epoch ") == 6 and "<figcaption>Before fine-tuning" in page
    assert "Rank and isometry" in page and re.search(r"CRA [01]\.\d{4}", page)
    for name in ("snapshots.npz", "geometry.npz"):
        for path in study.rglob(name):
            path.unlink()
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "stages of training" not in page and "Rank and isometry" not in page and '<g class="dots"' not in page


def test_without_labels_the_page_shows_final_clusters(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "own", 6, confirm=1, classes=0, study={"n_classes": 0})
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "in the colour of their final cluster" in page


def test_every_colour_stands_out_from_its_ground_in_both_themes() -> None:
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
    for theme in (light, dark.split("* {")[0]):
        found = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for number in range(10):
            assert f"svg .hue{number} {{ stroke: var(--hue{number}); }}" in STYLE
            assert contrast(found[f"hue{number}"], found["card"]) >= 3


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, section 1.4.3."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
