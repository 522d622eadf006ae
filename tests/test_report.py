"""Reports of made-up studies: their figures against independent ones, and everything that may be missing or hostile."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raymc import report
from raymc.cli import execute
from raymc.reporting.search.page import write_report
from tests.fabricated_study import SEARCHED, Fabricator, fabricate

EVIL = "<script>window.taken = 1</script>\"'><img src=x onerror='window.taken = 1'>"


def report_of(study: Path) -> tuple[str, dict[str, Any]]:
    """The page and the summary of a study's report."""
    out = study.parent / f"{study.name}-report"
    page = write_report(study, out)
    assert page == out / "index.html"
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "summary.json", "trials.csv"]
    return page.read_text(encoding="utf-8"), json.loads((out / "summary.json").read_text(encoding="utf-8"))


def words_of(page: str) -> str:
    """The page's text without tags, style and script."""
    bare = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


def kinds(summary: dict[str, Any]) -> set[str]:
    return {warning["kind"] for warning in summary["warnings"]}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("studies") / "digits-a", 14)


def test_one_file_without_network_or_holes(usual: Path) -> None:
    page, _ = report_of(usual)
    loaded = re.findall(r"<(?:link|script|iframe|object|embed)\b[^>]*(?:src|href)=|@import|url\(", page)
    assert not loaded
    pictures = re.findall(r'<(?:img src|image[^>]*href)="([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert "default-src 'none'" in page
    assert not re.search(r"\b(nan|NaN|None|inf|undefined)\b", words_of(page))
    targets = {name for name in re.findall(r'href="#([^"]+)"', page)}
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_confirmation_statistics_are_those_of_the_fresh_seeds(usual: Path) -> None:
    page, summary = report_of(usual)
    winner = summary["winner"]["trial"]
    record = json.loads((usual / "confirm" / f"{winner:04d}" / "record.json").read_text(encoding="utf-8"))
    mine = next(one for one in summary["confirmation"] if one["trial"] == winner)
    for metric in ("acc", "nmi", "ari"):
        values = [run["metrics"][metric] for run in record["per_seed"]]
        found = mine["statistics"][metric]
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert found["n"] == 10
        assert found["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert found["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
        assert (found["min"], found["max"]) == (min(values), max(values))
        assert found["ci95"] == pytest.approx([low, high], rel=1e-9)
        assert f"{found['mean']:.4f}" in words_of(page)
    assert mine["drop"] == pytest.approx(mine["search_score"] - mine["score"], rel=1e-12)


def test_winner_is_the_best_on_fresh_seeds_else_in_the_search(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "chosen", 8, confirm=2)
    paths = sorted((study / "confirm").glob("*/record.json"))
    for path, score in zip(paths, (0.4, 0.6), strict=True):
        record = json.loads(path.read_text())
        figures = {"score": score, "metrics": record["metrics"] | {"acc": score}}
        path.write_text(json.dumps(record | figures | {"state": "finished"}))
    _, summary = report_of(study)
    assert summary["winner"]["trial"] == int(paths[1].parent.name)
    assert summary["winner"]["chosen_by"] == "confirmation"
    assert [one["score"] for one in summary["confirmation"]] == [0.6, 0.4]
    for path in paths:
        path.unlink()
    _, summary = report_of(study)
    scores = {r["trial"]: r["score"] for r in records(study) if r["score"] is not None}
    assert summary["winner"]["trial"] == max(scores, key=lambda trial: scores[trial])
    assert summary["winner"]["chosen_by"] == "search"
    assert "unconfirmed" in kinds(summary)


def test_smaller_is_better_where_the_objective_says_so(tmp_path: Path) -> None:
    objective = {"metric": "acc", "mode": "min", "uses_labels": True}
    study = fabricate(tmp_path / "least", 8, confirm=1, study={"objective": objective})
    (worse,) = (study / "confirm").glob("*/record.json")
    _, summary = report_of(study)
    (one,) = summary["confirmation"]
    assert one["drop"] == pytest.approx(one["score"] - one["search_score"])
    worse.unlink()
    _, summary = report_of(study)
    assert summary["winner"]["search_score"] == min(r["score"] for r in records(study) if r["score"] is not None)


def test_nothing_of_the_users_runs_as_markup(tmp_path: Path) -> None:
    changes = dict.fromkeys(("study", "question", "command", "git", "seeds_from"), EVIL)
    study = fabricate(tmp_path / "evil", 6, confirm=1, study=changes)
    path = study / "trials" / "0001" / "record.json"
    content = json.loads(path.read_text()) | {"state": EVIL, "error": EVIL, "run_id": EVIL}
    content["params"]["finetune.similarity_weight"] = EVIL
    path.write_text(json.dumps(content))
    page, summary = report_of(study)
    assert summary["study"] == EVIL
    assert "<img src=x" not in page
    assert page.count("<script>") == 1


def test_passwords_of_a_tracking_server_stay_out(tmp_path: Path) -> None:
    command = "python -m raymc.tune nmce_digits --tracking-uri https://user:secret@example.org/mlflow"
    study = fabricate(tmp_path / "private", 4, confirm=0, study={"command": command})
    report_of(study)
    written = "".join(path.read_text() for path in (tmp_path / "private-report").iterdir())
    assert "secret" not in written
    assert "https://example.org/mlflow" in written
    assert "http://127.0.0.1:5000/#/experiments/7/runs/" in written


def test_runs_are_linked_on_their_server_without_the_password(tmp_path: Path) -> None:
    server = {"tracking_uri": "https://me:secret@host:5000/ml/"}
    page, _ = report_of(fabricate(tmp_path / "served", 4, confirm=0, study=server))
    assert f'href="https://host:5000/ml/#/experiments/7/runs/{0:032x}"' in page and "secret" not in page


def test_a_store_that_is_a_file_is_linked_through_mlflow_ui(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "local", 4, confirm=0, study={"tracking_uri": "sqlite:////data/mlflow.db"})
    page, _ = report_of(study)
    assert "mlflow ui --backend-store-uri sqlite:////data/mlflow.db" in words_of(page)
    assert f'href="http://127.0.0.1:5000/#/experiments/7/runs/{0:032x}"' in page


def test_csv_holds_every_trial_with_all_digits(usual: Path) -> None:
    report_of(usual)
    with (usual.parent / "digits-a-report" / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    for row, record in zip(rows, records(usual), strict=True):
        assert row["state"] == record["state"]
        assert (float(row["score"]) if row["score"] else None) == record["score"]
        for key, value in record["params"].items():
            assert float(row[f"param.{key}"]) == value


def test_a_study_without_any_trial(tmp_path: Path) -> None:
    Fabricator(tmp_path / "empty").study()
    page, summary = report_of(tmp_path / "empty")
    assert summary["winner"] is None
    assert "nothing_finished" in kinds(summary)
    assert "No trial was started." in words_of(page)


def test_a_manifest_with_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "study.json").write_text('{"hardware": {"memory_gib": NaN}}')
    page, summary = report_of(tmp_path / "bare")
    assert summary["study"] == "bare"
    assert not re.search(r"\b(NaN|None)\b", words_of(page))


def test_vectors_without_labels(tmp_path: Path) -> None:
    objective = {"metric": "rate_reduction", "mode": "max", "uses_labels": False}
    data = {"name": "rows", "n": 100, "n_classes": None, "split": "all, 100", "test_n": 0, "fingerprint": "ab"}
    changes = {"objective": objective, "data": data, "dataset": "rows"}
    study = fabricate(tmp_path / "rows", 8, classes=0, images=False, study=changes)
    page, summary = report_of(study)
    free = {"rate_reduction", "probe", "silhouette", "clusters_used", "largest_share"}
    assert set(summary["confirmation"][0]["statistics"]) == free
    assert "No label took part in choosing the winner" in words_of(page)
    assert "left a gallery" in words_of(page)
    assert "left labels to compare with" in words_of(page)
    assert "<img" not in page


def test_one_fresh_seed_has_no_spread(tmp_path: Path) -> None:
    page, summary = report_of(fabricate(tmp_path / "single", 6, confirm=1, confirm_seeds=1))
    found = summary["confirmation"][0]["statistics"]["acc"]
    assert found["n"] == 1
    assert found["std"] is None
    assert {"few_seeds", "confirmation_incomplete"} <= kinds(summary)
    assert "one fresh seed" in words_of(page)
    assert not re.search(r"\b(nan|None)\b", words_of(page))


def test_equal_and_wildly_different_seeds_are_told_as_such(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "spread", 6, confirm=1, confirm_seeds=2)
    (path,) = (study / "confirm").glob("*/record.json")
    for values, said in (
        ((0.8, 0.8), "All 2 fresh seeds gave acc 0.8000 exactly"),
        ((0.5, 0.9), "on the logit scale, since else it passes what acc can be"),
    ):
        content = json.loads(path.read_text())
        for run, value in zip(content["per_seed"], values, strict=True):
            run["metrics"]["acc"] = value
        path.write_text(json.dumps(content))
        assert said in words_of(report_of(study)[0])


def test_clusters_that_are_empty_on_every_fresh_seed_are_a_warning_of_page_and_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: no search")
    from raymc.reporting.search.outcome import _tell

    study = fabricate(tmp_path / "empty", 6, confirm=1, confirm_seeds=2)
    (path,) = (study / "confirm").glob("*/record.json")
    content = json.loads(path.read_text())
    said = "Each of 2 fresh seeds left clusters empty (7 to 8 of 10 have samples)"
    for seeds in (1, 2):  # one of two seeds is no warning
        for run in content["per_seed"][:seeds]:
            run["metrics"] |= {"smallest_share": 0.0, "clusters_used": 6.0 + seeds}
        for run in content["per_seed"][seeds:]:
            run["metrics"] |= {"smallest_share": 0.02, "clusters_used": 10.0}
        content["per_seed"][0]["metrics"]["clusters_used"] = 7.0
        path.write_text(json.dumps(content))
        page, summary = report_of(study)
        assert ("empty_clusters" in kinds(summary)) == (said in words_of(page)) == (seeds == 2)
    summary["warnings"].append({"kind": "data", "text": "About the data: 9 of 9 rows repeat another one."})
    result = {"study": "empty", "smoke": True, "report": "", "trials": {"finished": 6}, "confirm": None}
    picked = {"agreement": None, "seed": 1000, "folder": "", "consensus": None}
    _tell(summary, result | {"best": summary["winner"], "winner": picked, "stages": summary["stages"]})
    shown = capsys.readouterr().out
    assert f"  warning: {said}: ask for" in shown and "  warning: About the data: 9 of 9 rows repeat" in shown
    assert shown.startswith("study empty (smoke: every length shortened, the figures mean nothing): ")


def test_torn_files_are_named_or_left_out(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "torn", 6, confirm=1)
    (study / "trials" / "0002" / "record.json").write_text('{"trial": 2, "sta')
    with (study / "trials" / "0000" / "seed-0" / "curve.jsonl").open("a") as file:
        file.write('{"event": "epo')
    for name in ("labels.npz", "gallery.npz", "similarity.npz"):
        for path in study.glob(f"confirm/*/*/{name}"):
            path.write_bytes(path.read_bytes()[:100])
    page, summary = report_of(study)
    assert "unreadable" in kinds(summary)
    assert "trials/0002/record.json" in words_of(page)
    assert len(re.findall(r'<tr id="trial-', page)) == 5


def test_a_study_that_still_runs(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "running", 6, confirm=0)
    path = study / "trials" / "0004" / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running", "score": None}))
    page, summary = report_of(study)
    assert "unfinished" in kinds(summary)
    assert summary["trials"]["running"] == 1


def test_collapsed_fresh_seeds_leave_no_score(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "fallen", 6, confirm=1)
    (path,) = (study / "confirm").glob("*/record.json")
    content = json.loads(path.read_text())
    content["per_seed"][4] |= {"state": "collapsed", "metrics": {}}
    path.write_text(json.dumps(content | {"state": "collapsed", "score": None}))
    page, summary = report_of(study)
    assert {"collapsed", "few_seeds"} <= kinds(summary)
    assert summary["confirmation"][0]["statistics"]["acc"]["n"] == 9
    assert summary["winner"]["chosen_by"] == "search"
    assert "9 fresh seeds (of 10; the others did not finish)" in words_of(page)


def test_two_hundred_trials_stay_small(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "large", 200)
    page, summary = report_of(study)
    assert len(page.encode()) < 1_500_000
    assert len(re.findall(r'<tr id="trial-', page)) == 200
    assert sum(n for state, n in summary["trials"].items() if state != "planned") == 200


@pytest.mark.parametrize("given, code, text", [
    ("digits-b", 2, "did you mean digits-a?"),
    ("digits-a", 0, "index.html"),
])  # fmt: skip
def test_command(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, code: int, text: str
) -> None:
    (tmp_path / "storage" / "studies").mkdir(parents=True)
    (tmp_path / "storage" / "studies" / "digits-a").symlink_to(usual)
    arguments = [given, "--storage", str(tmp_path / "storage"), "--out", str(tmp_path / "out"), "--json"]
    assert execute(report.parser(), report.run, arguments) == code
    out, err = capsys.readouterr()
    assert text in err
    assert "Traceback" not in err
    if code == 0:
        assert Path(json.loads(out)["report"]).is_file()


@pytest.mark.parametrize("storage", ["foo://bucket/raymc", "nowhere"])
def test_command_without_studies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(report.parser(), report.run, ["digits-a", "--storage", storage]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_command_with_an_output_folder_that_is_a_file(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "digits-a").symlink_to(usual)
    (tmp_path / "taken").write_text("")
    arguments = ["digits-a", "--storage", str(tmp_path), "--out", str(tmp_path / "taken")]
    assert execute(report.parser(), report.run, arguments) == 2
    assert "cannot be written" in capsys.readouterr().err


def records(study: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((study / "trials").glob("*/record.json"))]


def test_the_made_up_study_has_what_the_tests_need(usual: Path) -> None:
    assert {"finished", "pruned", "diverged", "collapsed"} <= {record["state"] for record in records(usual)}
    assert all(math.isfinite(r["score"]) for r in records(usual) if r["score"] is not None)
    assert all(set(record["params"]) == set(SEARCHED) for record in records(usual))
