"""Tables of the papers: the shipped files, and reports of cells that were made up."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from raymc import report
from raymc.cli import execute
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.reporting.tables.page import table_facts, text, write_table
from raymc.stability.cells import choose, read_cells, tables_root
from raymc.stability.paper_tables import PaperTable, load_table, table_names

TINY = """
title: A tiny table
source: nobody's paper, Table 0
method: nmce
metrics: [acc, nmi]
seeds: 2
seeds_from: heads
columns: [digits, coil20]
rows:
  plain: {name: Plain, fixed: {finetune.epochs: 0}, paper: {digits: 0.500/0.400*}}
  other: {name: Other, quoted: true, paper: {coil20: 0.600/0.700}}
  whole: {name: Whole, by_dataset: {coil20: {heads.eps_sq: 0.5}}, paper: {digits: 0.8/-}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PaperTable:
    """A table in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return load_table("tiny.yaml")


def cell(
    place: str, values: list[float | str], key: str = "a", day: int = 1, asked: int | None = None, **facts: Any
) -> None:
    """Results of a cell of the tiny table: an accuracy per seed, or the state of one that went wrong."""
    folder = Path("storage/tables/tiny") / place / key
    for seed, value in enumerate(values):
        done = isinstance(value, float)
        row = {"seed": seed, "state": "finished" if done else value, "metrics": {}, "stages": [], "seconds": 2.0}
        row |= {"metrics": {"acc": value, "nmi": value - 0.1}} if isinstance(value, float) else {}
        (folder / f"runs/0000/seed-{seed}").mkdir(parents=True)
        (folder / f"runs/0000/seed-{seed}/result.json").write_text(json.dumps(row))
    session = {
        "hardware": {"cpu": "Abacus", "cores": 2, "gpus": []},
        "versions": {"raymc": "1", "torch": "2", "python": "3"},
        "git": None,
    }
    known: dict[str, Any] = {
        "settings": {"workers": 1, "pretrain.epochs": 2, "heads.epochs": 2},
        "smoke": False,
        "overrides": {},
        "seeds_from": "heads",
        "seeds": list(range(asked or len(values))),
        "data": {"name": place.split("/")[1], "split": "all", "n": 1440, "test_n": 0, "fingerprint": "f"},
        "clusters_by": "argmax of the cluster head",
        "updated": f"2026-01-{day:02d}T00:00:00+00:00",
        "sittings": [session],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_text(json.dumps(known | facts))


def page_of(table: PaperTable) -> str:
    return write_table(table, "storage", Path("out")).read_text()


@pytest.mark.parametrize("name", table_names())
def test_the_tables_that_ship_are_valid(name: str) -> None:
    table = load_table(name)
    assert table.cells() and table.title and table.source
    for row, dataset in table.cells():
        config = table.space(row, dataset).config()
        assert config.seeds_from == table.seeds_from
        trained = [stage.name for stage in METHODS[row.method].stages(config) if config.stages[stage.name].epochs]
        # Tables of probes and of EnSC have nothing but stage 1 to vary; k-means of the samples trains nothing.
        assert table.seeds_from in trained or not trained
    assert any(row.paper for row in table.rows.values())


def test_the_tables_of_nmce_and_mlc() -> None:
    cells = {name: [f"{row.key}/{dataset}" for row, dataset in load_table(name).cells()] for name in table_names()}
    assert cells["coil"] == ["nmce/coil20", "nmce/coil100", "nmce_94/coil100"]
    assert len(cells["nmce3"]) == 10 and len(load_table("nmce3").rows) == 14
    assert "mlc_shared/tiny_imagenet" not in cells["mlc2"] and "mlc/tiny_imagenet" in cells["mlc2"]
    assert len(load_table("nmce2").metrics) == 18 and len(load_table("nmce_a3").rows) == 6
    assert [row.key for row in load_table("mlc6").rows.values()] == ["mlc", "nmce", "nmce_kept_head"]


def test_both_parts_of_a_table_share_what_they_can() -> None:
    """MLC's row on NMCE's stage 1, and the rows of table 6, have the stage 1 of NMCE's tables."""

    def first(name: str, row: str) -> dict[str, object]:
        table = load_table(name)
        flat = (
            table.space(table.rows[row], "cifar20")
            .config()
            .flat({"pretrain": METHODS["nmce"].stage_settings["pretrain"]})
        )
        own = ("backbone", "feature_dim", "pre_feature_dim", "augmentation", "precision")
        return {key: value for key, value in flat.items() if key in own or key.startswith("pretrain.")}

    shared = [("nmce_a2", "before"), ("nmce2", "nmce_r18"), ("mlc2", "mlc_shared"), ("mlc6", "mlc"), ("mlc6", "nmce")]
    for name, row in shared:
        assert first(name, row) == first("nmce3", "nmce_r18"), (name, row)
    assert first("mlc2", "mlc") != first("nmce3", "nmce_r18")


def test_rows_of_table_6_differ_in_what_they_are_named_for() -> None:
    table = load_table("mlc6")
    nmce, kept = (table.space(table.rows[key], "cifar10").config() for key in ("nmce", "nmce_kept_head"))
    keys = METHODS["nmce"].stage_settings
    changed = {key for key, value in nmce.flat(keys).items() if value != kept.flat(keys)[key]}
    assert changed == {"heads.keep_feature_head"} and nmce.stages["finetune"].epochs == 0
    mlc = table.space(table.rows["mlc"], "cifar10").config()
    same = "epochs eps_sq optimizer learning_rate schedule cluster_learning_rate weight_decay batch_size".split()
    assert [getattr(mlc.stages["heads"], k) for k in same] == [getattr(nmce.stages["heads"], k) for k in same]


def test_the_tables_of_gcml() -> None:
    assert [name for name in table_names() if name.startswith("gcml")] == [f"gcml{i}" for i in range(1, 6)]
    for name in (f"gcml{i}" for i in range(1, 6)):
        assert (load_table(name).seeds, load_table(name).seeds_from) == (5, "pretrain")
    one = load_table("gcml1")
    assert len(one.columns) == 7 and len(one.rows) == 14
    assert [row.key for row in one.rows.values() if not row.quoted] == [
        *("kmeans", "spectral", "gmm", "ae_kmeans", "dec", "idec", "gcml")
    ]


@pytest.mark.parametrize(
    ("name", "row", "dataset", "metric", "value", "starred"),
    [
        ("gcml1", "gcml", "mnist_test", "acc", 0.972, False),
        ("gcml1", "kmeans", "pendigits", "nmi", 0.681, False),
        ("gcml1", "idec", "har", "acc", 0.786, True),
        ("gcml1", "dsc", "mnist_test", "nmi", 0.946, False),
        ("gcml2", "dec", "mnist_split", "test_acc", 0.748, False),
        ("gcml2", "idec", "mnist_split", "nmi", 0.860, False),
        ("gcml3", "gcml", "usps", "d_rmse", 6.498, False),
        ("gcml3", "dec", "reuters10k", "cra", 0.63, False),
        ("gcml3", "ae", "fashion_mnist", "downstream_rfc", 0.9932, False),
        ("gcml3", "n2d", "har", "lgd", 0.64296, False),
        ("gcml4", "wo_cl", "mnist", "acc", 0.814, False),
        ("gcml4", "wo_at", "har", "d_rmse", 15.726, False),
        ("gcml4", "full", "fashion_mnist", "rre", 0.0083, False),
        ("gcml5", "k1_kappa3", "mnist_test", "acc", 0.975, False),
        ("gcml5", "k5_kappa10", "mnist_test", "lgd", 3.1434, False),
        ("nmce3", "nmce_r18", "cifar20", "ari", 0.322, False),
        ("nmce3", "nmce_r18", "imagenet10", "acc", 0.906, False),
        ("nmce3", "nmce_r34", "cifar10", "acc", 0.891, False),
        ("nmce3", "nmce_r34", "stl10", "nmi", 0.600, False),
        ("nmce3", "tcc", "imagenet_dogs", "ari", 0.409, False),
        ("nmce3", "moco", "imagenet_dogs", "acc", 0.338, False),
        ("nmce3", "mcr2_ensc", "stl10", "acc", 0.491, False),
        ("nmce2", "nmce_r34", "cifar10", "svm_projection", 0.911, False),
        ("nmce2", "nmce_r34", "cifar10", "svm_pool_averaged", 0.929, False),
        ("nmce2", "nmce_r34", "cifar10", "knn_pool", 0.105, False),
        ("nmce2", "nmce_r34", "cifar10", "knn_pre_feature_averaged", 0.800, False),
        ("nmce2", "nmce_r34", "cifar10", "nearest_subspace_projection", 0.898, False),
        ("nmce_a2", "before", "cifar10", "nmi", 0.743, False),
        ("nmce_a2", "after", "cifar20", "acc", 0.437, False),
        ("nmce_a3", "lambda20", "cifar10", "svm_projection", 0.899, False),
        ("nmce_a3", "lambda70", "cifar10", "knn_projection", 0.897, False),
        ("coil", "nmce", "coil20", "error_rate", 0.0, False),
        ("coil", "nmce_94", "coil100", "error_rate", 0.1153, False),
        ("coil", "mlrdsc_da", "coil20", "error_rate", 0.0179, False),
        ("mlc2", "mlc", "cifar100", "nmi", 0.683, False),
        ("mlc2", "mlc", "tiny_imagenet", "acc", 0.335, False),
        ("mlc2", "imc_swav", "cifar20", "nmi", 0.503, False),
        ("mlc6", "nmce", "cifar10", "acc", 0.796, False),
    ],
)
def test_figures_are_the_papers(name: str, row: str, dataset: str, metric: str, value: float, starred: bool) -> None:
    table = load_table(name)
    figure = table.rows[row].paper[dataset][table.metrics.index(metric)]
    assert figure is not None and (figure.value, figure.starred) == (pytest.approx(value), starred)


def test_what_a_paper_does_not_print_is_absent() -> None:
    table = load_table("gcml3")
    assert table.rows["ae"].paper["mnist"][0] is None and "har" not in table.rows["jule"].paper
    assert all("pendigits" not in row.paper for row in load_table("gcml4").rows.values())


def test_ablations_change_what_they_are_named_for() -> None:
    table = load_table("gcml4")
    full, *others = (
        table.space(table.rows[key], "usps").config() for key in ("full", "wo_sl", "wo_cl", "wo_wc", "wo_at")
    )
    keys = table.space(table.rows["full"], "usps").stage_settings
    changed = [{key for key, value in one.flat(keys).items() if value != full.flat(keys)[key]} for one in others]
    assert changed == [
        {"finetune.rank_weight", "finetune.beta", "finetune.align_weight"},
        {"finetune.alpha"},
        {"finetune.continuation_epochs"},
        {"finetune.alternating"},
    ]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("columns: [digits, coil20]", "columns: [digits, coil21]", "unknown dataset coil21; did you mean coil20?"),
        ("metrics: [acc, nmi]", "metrics: [acc, nmj]", "unknown metric nmj; did you mean nmi?"),
        ("0.500/0.400*", "0.500", "rows.plain.paper.digits: 1 figures for 2 metrics"),
        ("0.500/0.400*", "0.500/0.4OO", "0.4OO is neither a figure nor -"),
        ("0.500/0.400*", "0.5/0.4±", "0.4± is neither a figure nor -"),
        (
            "name: Whole,",
            "name: Whole, datasets: [coil2],",
            "rows.whole.datasets: coil2 is no column; did you mean coil",
        ),
        ("{coil20: 0.600/0.700}", "{coil2: 0.600/0.700}", "rows.other.paper: coil2 is no column; did you mean coil20?"),
        ("finetune.epochs: 0", "finetun.epochs: 0", "plain/digits: unknown key in fixed: finetun.epochs; did you mean"),
        ("seeds_from: heads", "seeds_from: head", "seeds_from: 'head' is not one of pretrain, heads, finetune"),
        ("name: Whole,", "name: Whole, preset: papre,", "unknown preset papre"),
        ("seeds: 2", "seed: 2", "unknown key seed; did you mean seeds?"),
        ("  whole:", "  Whole/x:", "rows.Whole/x: a row's key"),
        ("source: nobody's paper, Table 0\n", "", "source: is missing"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, before: str, after: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    assert before in TINY
    path.write_text(TINY.replace(before, after))
    with pytest.raises(InputError) as wrong:
        load_table(path)
    assert told in str(wrong.value) and str(wrong.value).startswith(str(path)) and "\n" not in str(wrong.value)


def test_an_override_does_not_change_what_a_row_is(tiny: PaperTable) -> None:
    with pytest.raises(InputError, match="plain/digits: finetune.epochs is what the row is about"):
        tiny.space(tiny.rows["plain"], "digits", {"finetune.epochs": 3})
    assert tiny.space(tiny.rows["whole"], "digits", {"finetune.epochs": 3}).config().stages["finetune"].epochs == 3
    own = [tiny.space(tiny.rows["whole"], name).config().stages["heads"].eps_sq for name in tiny.columns]
    assert own[1] == 0.5 != own[0]


def test_what_has_not_been_run_is_blank(tiny: PaperTable) -> None:
    page = page_of(tiny)
    assert "| Plain | \\| 0.500/0.400* |  |" in page and "| Whole | \\| 0.8/– |  |" in page
    assert "| ACC/NMI | digits | coil20 |" in page and "| Other (quoted, not run) |  | \\| 0.600/0.700 |" in page
    assert "Blank: not run (0 of 4 cells are)" in page and "Quoted from the paper, not run: Other." in page
    facts = json.loads(Path("out/table.json").read_text())
    assert all(one["ours"] is None for row in facts["rows"] for one in row["cells"].values())
    assert facts["rows"][0]["cells"]["digits"]["paper"]["metrics"] == {"acc": 0.5, "nmi": 0.4}


def test_ours_stand_beside_the_papers(tiny: PaperTable) -> None:
    values = [0.81, 0.84, 0.86]
    cell("whole/digits", [*values])
    cell("whole/coil20", [0.5])
    page = page_of(tiny)
    mean, std = statistics.fmean(values), statistics.stdev(values)
    shown = f"{mean:.4f} ± {std:.4f} / {mean - 0.1:.4f} ± {std:.4f} (3) \\| 0.8/– |"
    assert f"| Whole | {shown} 0.5000 / 0.4000 (1) \\| |" in page
    assert "- The seeds vary every stage from `heads` on; the stages before were computed once and are shared" in page
    assert "Run on Abacus, 2 cores; raymc 1, torch 2, Python 3." in page and "The seeds took 8.0 s in sum" in page
    assert "- digits: all, 1,440 samples" in page and "[a]" not in page
    ours = json.loads(Path("out/table.json").read_text())["rows"][2]["cells"]["digits"]["ours"]
    assert ours["metrics"]["acc"]["values"] == values and ours["folder"] == "tables/tiny/whole/digits/a"


def test_smoke_runs_are_marked_and_never_mixed_in(tiny: PaperTable) -> None:
    cell("whole/digits", [0.8, 0.9])
    cell("whole/digits", [0.1], key="b", day=2, smoke=True)
    cell("plain/digits", [0.2], smoke=True)
    page = page_of(tiny)
    assert "| Whole | 0.8500 ± 0.0707 / 0.7500 ± 0.0707 (2) \\|" in page, "the newer smoke run does not replace it"
    assert "| Plain | 0.2000 / 0.1000 (1, smoke)[a] \\| 0.500/0.400* |" in page
    assert "- [a] A smoke run: every length is shortened, and the figures mean nothing." in page
    assert "not shown" not in page


def test_of_several_configurations_the_newest_complete_one_is_shown(tiny: PaperTable) -> None:
    cell("whole/digits", [0.6], day=1, asked=2)
    cell("whole/digits", [0.7, 0.7], key="b", day=2, overrides={"heads.eps_sq": 0.3, "seeds_from": "pretrain"})
    cell("whole/digits", [0.9], key="c", day=3, asked=2, overrides={"heads.eps_sq": 0.4})
    page = page_of(tiny)
    assert "| Whole | 0.7000 ± 0.0000 /" in page
    assert "Not the table's own configuration, but with `heads.eps_sq=0.3`." in page
    assert (
        "Results of other configurations are in the storage and not shown: without changes by the command line "
        "(1 seed) and `heads.eps_sq=0.4` (1 seed)."
    ) in page
    assert json.loads(Path("out/table.json").read_text())["rows"][2]["cells"]["digits"]["ours"]["overrides"]
    root = tables_root("storage") / "tiny/whole/digits"
    chosen = choose([one for one in read_cells(root) if one.folder.name == "c"])
    assert chosen is not None and chosen.missing == [1], "where none is complete, the newest one"


def test_the_tables_own_configuration_is_not_displaced_by_a_newer_one_with_overrides(tiny: PaperTable) -> None:
    cell("whole/digits", [0.6, 0.6], day=1, overrides={"seeds_from": "pretrain"})
    cell("whole/digits", [0.7, 0.7], key="b", day=2, overrides={"heads.eps_sq": 0.3})
    assert "| Whole | 0.6000 ± 0.0000 /" in page_of(tiny)


def test_seeds_that_are_missing_or_went_wrong_are_told(tiny: PaperTable) -> None:
    cell("whole/digits", [0.8, "collapsed", 0.9], asked=5)
    cell("plain/digits", [0.5, 0.5], seeds_from="pretrain", clusters_by="k-means on z")
    cell("plain/coil20", ["diverged", "diverged"])
    page = page_of(tiny)
    notes = json.loads(Path("out/table.json").read_text())["notes"]
    told = {text: mark for mark, text in notes.items()}
    for said, mark in told.items():
        where = "Plain" if "pretrain" in said or "k-means" in said else "Whole"
        line = next(line for line in page.splitlines() if line.startswith(f"| {where} "))
        assert f"[{mark}]" in line
    assert {"3 of 5 seeds so far.", "1 of 3 seeds collapsed: not in these figures.", "Clusters: k-means on z."} <= set(
        told
    )
    assert "| Plain | 0.5000 ± 0.0000 / 0.4000 ± 0.0000 (2)" in page
    plain = json.loads(Path("out/table.json").read_text())["rows"][0]["cells"]
    assert plain["coil20"]["ours"] is None, "a cell without a finished seed has no figures"


def test_many_metrics_have_a_column_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wide = TINY.replace("[acc, nmi]", "[acc, nmi, rre]").replace("0.400*", "0.400/0.01*")
    Path("tiny.yaml").write_text(wide.replace("0.600/0.700", "0.6 0.7 0.00891").replace("0.8/-", '"- - 0.002"'))
    table = load_table("tiny.yaml")
    cell("whole/digits", [0.8, 0.9])
    page = page_of(table)
    assert "| dataset | algorithm | seeds | ACC | NMI | RRE |" in page
    assert "| digits | Plain |  | \\| 0.500* | \\| 0.400* | \\| 0.01* |" in page
    assert "| digits | Whole | (2) | 0.8500 ± 0.0707 \\| | 0.7500 ± 0.0707 \\| | \\| 0.002 |" in page
    assert "| coil20 | Other (quoted, not run) |  | \\| 0.6 | \\| 0.7 | \\| 0.00891 |" in page
    assert "| digits | Other" not in page
    shown = text(table, table_facts(table, "storage"), width=60)
    blocks = [line for line in shown.splitlines() if line.startswith("algorithm")]
    assert len(blocks) == 3 and all(len(line) <= 60 for line in blocks)
    assert "Whole      (2)    0.8500 ± 0.0707" in shown


def test_percent_and_spreads_and_error_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = TINY.replace("[acc, nmi]", "[acc, error_rate]\npercent: true").replace("0.500/0.400*", "79.6±3.69/20.4")
    Path("tiny.yaml").write_text(shown)
    table = load_table("tiny.yaml")
    figure = table.rows["plain"].paper["digits"][0]
    assert figure is not None and (figure.value, figure.std) == (pytest.approx(0.796), pytest.approx(0.0369))
    cell("plain/digits", [0.81, 0.84, 0.86])
    page = page_of(table)
    assert (
        "| Plain | 83.67 ± 2.52 / 16.33 ± 2.52 (3) \\| 79.6±3.69/20.4 |" in page and "the paper's, in percent." in page
    )
    facts = json.loads(Path("out/table.json").read_text())
    both = facts["rows"][0]["cells"]["digits"]
    assert both["ours"]["metrics"]["error_rate"]["values"] == pytest.approx([0.19, 0.16, 0.14]), (
        "fractions for programs"
    )
    assert both["paper"]["metrics"]["error_rate"] == pytest.approx(0.204) and facts["percent"]
    assert both["paper"]["std"] == {"acc": pytest.approx(0.0369)} and both["paper"]["printed"]["acc"] == "79.6±3.69"


def test_a_row_may_be_run_on_some_columns_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY.replace("name: Plain,", "name: Plain, datasets: [digits],"))
    table = load_table("tiny.yaml")
    names = [f"{row.key}/{dataset}" for row, dataset in table.cells()]
    assert names == ["plain/digits", "whole/digits", "whole/coil20"]
    page = page_of(table)
    assert "(0 of 3 cells are)" in page
    assert "- Plain: `plain`, nmce with preset `paper`, `finetune.epochs=0`, on digits alone" in page
    shown = text(table, table_facts(table, "storage"))
    assert "Plain" in shown.partition("coil20")[0] and "Plain" not in shown.partition("\ncoil20")[2]


def test_weights_of_a_checkpoint_are_told(tiny: PaperTable) -> None:
    cell("whole/digits", [0.8, 0.9])
    path = Path("storage/tables/tiny/whole/digits/a/runs/0000/seed-1/result.json")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"stages": [{"name": "pretrain", "checkpoint": "cifar"}, {"name": "heads"}]}))
    assert "Started from the float16 weights of checkpoint `cifar`." in page_of(tiny)


def test_torn_and_foreign_files_are_passed_over(tiny: PaperTable) -> None:
    cell("whole/digits", [0.8, 0.9])
    folder = Path("storage/tables/tiny/whole/digits")
    (folder / "a/runs/0000/seed-1/result.json").write_text('{"seed": 1, "sta')
    (folder / "b").mkdir()
    (folder / "b/cell.json").write_text('{"settings"')
    (one,) = read_cells(folder)
    assert [run.seed for run in one.seeds] == [0] and one.missing == [1]


def _report(*words: str) -> int:
    return execute(report.parser(), report.run, [*words, "--storage", "storage", "--json"])


def test_the_command(tiny: PaperTable, capsys: pytest.CaptureFixture[str]) -> None:
    cell("whole/digits", [0.8, 0.9])
    assert _report("--table", "tiny.yaml") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    assert result["cells"] == {"run": 1, "of": 4} and result["table"] == "tiny"
    assert Path(result["report"]) == Path("reports/table-tiny/table.md").resolve() and "report: " in shown.err
    assert "0.8500 ± 0.0707 | 0.8" in shown.err
    assert _report("--table", "tiny.yaml", "--out", "elsewhere") == 0 and Path("elsewhere/table.json").is_file()
    assert str(Path.cwd()) not in Path("elsewhere/table.json").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--table", "gcm1"), "unknown table gcm1; did you mean gcml1?"),
        (("--table", "nothere.yaml"), "nothere.yaml: no such file"),
        (("mine", "--table", "gcml1"), "give mine or --table gcml1, not both"),
        ((), "name a study, or a table by --table"),
    ],
)
def test_what_the_command_refuses(tiny: PaperTable, capsys: Any, words: tuple[str, ...], told: str) -> None:
    assert _report(*words) == 2
    shown = capsys.readouterr()
    assert told in shown.err and shown.err.count("\n") == 1 and not shown.out
    elsewhere = ["--table", "tiny.yaml", "--storage", "s3://bucket"]
    assert execute(report.parser(), report.run, elsewhere) == 2 and "give a folder" in capsys.readouterr().err
