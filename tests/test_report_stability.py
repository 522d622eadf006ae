"""The report of a run of `stability`, made from what it left in the storage."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from raymc import report
from raymc.cli import execute
from raymc.errors import InputError
from raymc.reporting.charts.seed_curves import seed_curves
from raymc.reporting.charts.seeds import heat_map, seed_strips
from raymc.reporting.stability.page import write_stability
from raymc.reporting.stability.sentences import may, may_not, varied
from raymc.reporting.stability.text import markdown, terminal_text
from raymc.stability.reader import read_stability
from tests.fabricated_stability import fabricate_run, write
from tests.test_metrics_seeds import MLC, NMCE

TABLE6 = {"mlc": [value / 100 for value in MLC], "nmce": [value / 100 for value in NMCE]}


def page_of(folder: Path, out: Path) -> str:
    return write_stability(folder, out).read_text(encoding="utf-8")


def drawn(svg: Any) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


def test_one_group_has_all_its_figures_in_every_file(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "nmce-stability-20261124-100000", {"nmce": TABLE6["nmce"]})
    page = page_of(run, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "stability.json").read_text())
    assert set(content) >= {"method", "dataset", "seeds", "acc", "nmi", "pairwise_ari", "report", "manifest"}
    assert content["report"] == str(tmp_path / "out" / "stability.html") and content["collapsed_share"] == 0
    assert content["acc"]["iqm"] == pytest.approx(0.8082, abs=5e-5) and len(content["per_seed"]) == 10
    matrix = np.asarray(content["agreement"]["ari"])
    assert content["agreement"]["seeds"] == list(range(10)) and matrix.shape == (10, 10)
    above = matrix[np.triu_indices(10, 1)]
    assert content["pairwise_ari"] == {"mean": pytest.approx(above.mean()), "min": above.min()}
    assert content["acc"]["mean"] <= content["certificate"]["acc_at_most"]
    text = (tmp_path / "out" / "stability.md").read_text()
    row = "| acc | nmce | 10 | 0.7961 | 0.0369 | 0.7270 |"
    assert row in text
    for figure in ("0.7961", "0.0369", "0.8082"):
        assert figure in page and figure in text
    rows = list(csv.reader((tmp_path / "out" / "stability.csv").read_text().splitlines()))
    assert rows[0] == ["seed", "state", "acc", "nmi", "rate_reduction", "silhouette", "seconds"] and len(rows) == 11
    assert "<h1>nmce</h1>" in page and "python -m raymc.report nmce-stability-20261124-100000 --storage" in page


def test_what_may_be_concluded_and_what_may_not(tmp_path: Path) -> None:
    run = read_stability(fabricate_run(tmp_path, "n-stability-1", {"nmce": TABLE6["nmce"]}))
    yes, no = " ".join(may(run)), " ".join(may_not(run))
    assert "The mean acc lies between 0.7697 and 0.8225 (95 % interval by Student's t)" in yes
    assert "from a difference of 0.0462 on, 1.25 standard deviations." in yes
    assert "measured with the labels: 0.7961" in yes
    assert "All seeds share one result of the stage pretrain: what another seed of it would change" in no
    assert "weak" not in no and "smoke" not in no and "no labels" not in no
    assert varied(run.groups[0]) == "The seeds vary the stage heads."


def test_clusters_that_every_seed_left_empty_are_named(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "n-stability-1", {"n": [0.5, 0.6]}, config={"n_clusters": 4})
    for path in folder.rglob("result.json"):
        facts = json.loads(path.read_text())
        write(path, facts | {"metrics": facts["metrics"] | {"smallest_share": 0.0}})
    run, said = read_stability(folder), "ach of 2 seeds left clusters empty (3 of 4 have samples): ask for"
    assert any(line.startswith(f"E{said}") for line in may_not(run)) and f"\ne{said}" in terminal_text(run)


def test_a_smoke_run_and_what_is_odd_about_the_data_are_said_before_the_figures(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "n-stability-1", {"n": [0.5, 0.6]})
    plain = terminal_text(read_stability(folder))
    assert "smoke" not in plain and "about the data" not in plain
    facts = json.loads((folder / "stability.json").read_text())
    facts["manifest"]["data"]["remarks"] = ["2 of 4 columns are constant"]
    write(folder / "stability.json", facts | {"smoke": True})
    run = read_stability(folder)
    first, second, *rest = terminal_text(run).splitlines()
    assert first == "This is a smoke run: every length is shortened, and the figures mean nothing."
    assert second == "about the data: 2 of 4 columns are constant" and "\n".join(rest) == plain
    assert f"\n{second}\n" in markdown(run)


def test_weights_of_a_checkpoint_are_named(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "n-stability-1", {"n": [0.5, 0.6]})
    path = next(folder.rglob("seed-1/result.json"))
    facts = json.loads(path.read_text())
    write(path, facts | {"stages": [stage | {"checkpoint": "cifar"} for stage in facts["stages"]]})
    line = "Trainings started from weights that were rounded to float16: checkpoint cifar."
    assert line in may_not(read_stability(folder))


def test_few_seeds_smoke_and_lost_seeds_are_named(tmp_path: Path) -> None:
    states = {1: "collapsed", 2: "diverged"}
    folder = fabricate_run(tmp_path, "n-stability-1", {"n": [0.5, 0.6, 0.7, 0.8]}, states=states, smoke=True)
    facts = json.loads((folder / "stability.json").read_text())
    write(folder / "stability.json", facts | {"seeds": list(range(5)), "smoke": True, "varies": "order,noise"})
    run = read_stability(folder)
    no = may_not(run)
    assert no[0].startswith("This is a smoke run") and no[1].startswith("2 seeds are weak evidence")
    assert "1 of 5 seeds collapsed: not in these figures." in no and "1 of 5 seeds unfinished" in " ".join(no)
    assert "The seeds have initialisation and augmentation in common: what others would change" in " ".join(no)
    assert "in their order and noise alone" in varied(run.groups[0])
    assert run.result["collapsed_share"] == 0.25 and run.result["missing"] == [4]
    facts = json.loads((folder / "stability.json").read_text())
    write(folder / "stability.json", facts | {"varies": "all", "chosen_by": {"metric": "acc", "uses_labels": True}})
    assert "Labels chose this configuration (its study searched by acc)" in " ".join(may_not(read_stability(folder)))
    page = page_of(folder, tmp_path / "out")
    assert "the figures mean nothing" in page and "What stopped 2 of them" in page


def test_nothing_that_needs_labels_is_there_without_them(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "n-stability-1", {"n": [0.5, 0.6, 0.7]}, labels=False)
    page = page_of(folder, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "stability.json").read_text())
    assert not {"acc", "nmi", "ari", "test_acc"} & set(content) and content["rate_reduction"]["n"] == 3
    assert content["certificate"]["acc_at_most"] < 1 and "Measured" not in page
    assert "There are no labels: nothing here says whether the clusters are the right ones." in page
    assert not re.search(r">(acc|nmi|ari)<", page)


def test_groups_are_compared_and_stand_side_by_side(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "mlc-vs-nmce-stability-1", TABLE6)
    run = read_stability(folder)
    (row,) = run.result["comparisons"]
    assert row["p_wilcoxon"] == pytest.approx(2 / 1024) and row["p_t"] == row["p_t_holm"] == pytest.approx(0.0023, 0.05)
    page = page_of(folder, tmp_path / "out")
    assert "mlc has better acc than nmce, beyond the luck of the seeds." in page
    assert "mlc against nmce: mlc is better, beyond the luck of its seeds (5 % level)." in may(run)[0]
    assert page.count("<h3>mlc</h3>") == 2 and "<code>pretrain</code>" in page
    assert all(arm["report"] == str(tmp_path / "out" / "stability.html") for arm in _json(tmp_path)["arms"])


def test_three_groups_that_no_test_tells_apart(tmp_path: Path) -> None:
    arms = {name: [0.5 + shift, 0.6 + shift, 0.55] for name, shift in (("a", 0.0), ("b", 0.01), ("c", 0.02))}
    run = read_stability(fabricate_run(tmp_path, "a-vs-b-and-1-more-stability-1", arms))
    assert "Not told apart: a and b, a and c, b and c." in page_of(Path(run.result["folder"]), tmp_path / "out")
    assert sum("does not tell them apart" in line for line in may_not(run)) == 3


def _json(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "out" / "stability.json").read_text())


def test_the_figures_show_every_seed(tmp_path: Path) -> None:
    run = read_stability(fabricate_run(tmp_path, "r-stability-1", TABLE6))
    strip = drawn(seed_strips(run.groups, "acc"))
    dots = [mark for mark in strip.iter("circle")]
    assert len(dots) == 2 * (10 + 1) and "mlc: mean 0.8448 of 10" in strip.attrib["aria-label"]
    assert len({(dot.attrib["cx"], dot.attrib["cy"]) for dot in dots}) == len(dots), "no dot hides another"
    assert str(seed_strips(run.groups, "acc")) == str(seed_strips(run.groups, "acc"))
    cells = list(drawn(heat_map(run.groups[0])).iter("rect"))
    assert len(cells) == 90 + 1  # all pairs, both ways, and the frame
    ((caption, panel),) = seed_curves(run.groups[0], "acc")  # not pretrain: it is one result for all
    assert caption.startswith("heads: acc, 10 seeds") and "middle half" in caption
    assert len(drawn(panel).findall("path[@class='curve']")) == 10
    assert (
        len(drawn(panel).findall("path[@class='band']")) == len(drawn(panel).findall("path[@class='curve best']")) == 1
    )
    ((caption, _),) = seed_curves(run.groups[0], "ari")
    assert caption.startswith("heads: loss"), "where the metric has no curve, the loss"


def test_hundreds_of_seeds_have_a_heat_map_without_figures(tmp_path: Path) -> None:
    run = read_stability(fabricate_run(tmp_path, "r-stability-1", {"many": [0.5 + i / 100 for i in range(40)]}))
    plot = drawn(heat_map(run.groups[0]))
    assert len(list(plot.iter("text"))) < 90 and float(plot.attrib["width"]) < 800


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "r-stability-1", {"one": [0.5]})
    page = page_of(folder, tmp_path / "out")
    assert "on one seed: nothing is known of its spread" in page and "Nothing: no two seeds finished." in page
    assert not {"pairwise_ari", "agreement", "certificate"} & set(_json(tmp_path))


def test_a_run_that_was_interrupted_and_one_that_lost_every_seed_have_a_report(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, "x-vs-y-stability-1", {"x": [0.5, 0.6], "y": [0.6, 0.7]})
    (folder / "y" / "stability.json").unlink()
    assert "The run was interrupted before it came to y." in page_of(folder, tmp_path / "out")
    folder = fabricate_run(tmp_path, "z-stability-1", {"z": [0.5, 0.6]}, states=dict.fromkeys((0, 1), "collapsed"))
    page = page_of(folder, tmp_path / "out")
    assert "no seed finished." in page and _json(tmp_path)["collapsed_share"] == 1
    (folder / "stability.json").write_text("{")
    with pytest.raises(InputError, match=r"no readable stability\.json"):
        read_stability(folder)


def test_report_writes_it_again_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fabricate_run(tmp_path / "st", "n-stability-1", {"n": [0.5, 0.6]})
    monkeypatch.chdir(tmp_path)
    assert execute(report.parser(), report.run, ["n-stability-1", "--storage", "st", "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"])
    assert page == (tmp_path / "reports" / "n-stability-1" / "stability.html").resolve() and page.is_file()
    assert execute(report.parser(), report.run, ["n-stability-2", "--storage", "st"]) == 2
    assert "did you mean n-stability-1" in capsys.readouterr().err


def test_hours_are_told_by_machine_with_those_of_shared_stages(tmp_path: Path) -> None:
    """Two seeds of an hour on a quarter of an L4, one of which waited half of it; before them a stage on an H200."""
    run = fabricate_run(tmp_path, "nmce-stability-20261124-100000", {"nmce": [0.9, 0.8, 0.7]})
    assert "core-hours" not in page_of(run, tmp_path / "out"), "older runs say nothing of what they had"
    quarter, whole = {"workers": 1, "gpus_per_worker": 0.25}, {"workers": 1, "gpus_per_worker": 1}
    waiting = [{"name": "pretrain", "epochs": 5, "cached": True, "seconds": 1800.0, "waited": 1800.0, "key": "9"}]
    for seed, stages in ((0, []), (1, waiting)):
        path = run / "runs" / "0000" / f"seed-{seed}" / "result.json"
        content = json.loads(path.read_text()) | {"seconds": 3600.0, "stages": stages}
        write(path, content | {"resources": quarter, "machine": "L4"})
    row = {"seed": 0, "state": "finished", "seconds": 7200.0, "resources": whole, "machine": "H200"}
    write(
        run / "stages" / "0000" / "record.json", {"trial": 0, "state": "finished", "seconds": 7200.0, "per_seed": [row]}
    )
    page = page_of(run, tmp_path / "out")
    words = "by what each training had; 1 of 4 trainings do not say it, and are not counted"
    assert f"That is 3.5 core-hours and 2.38 GPU-hours of training, {words}." in page
    assert "A further 0.5 core-hours and 0.125 GPU-hours were held in 30 min 00 s of waiting" in page
    assert "2 core-hours and 2 GPU-hours on H200 and 2 core-hours and 0.5 GPU-hours on L4." in page
