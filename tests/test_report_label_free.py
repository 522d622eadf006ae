"""The report's section on choosing without labels: its figures, the gates, and what may be said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from benchmarks import label_free as benchmark
from raymc.reporting.search.label_free import chance_bound, label_free, words_of
from raymc.reporting.search.page import write_report
from raymc.study.reader import read_study
from tests.fabricated_study import fabricate

SCORES = ("stability", "rate_reduction", "probe", "silhouette")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("free") / "digits", 24, confirm=0)


def change(study: Path, trial: int, **metrics: float) -> None:
    """Set metrics of a trial and of all its seeds."""
    path = study / "trials" / f"{trial:04d}" / "record.json"
    record = json.loads(path.read_text())
    for one in (record, *record["per_seed"]):
        one["metrics"] |= metrics
    path.write_text(json.dumps(record))


def finished(study: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((study / "trials").glob("*/record.json"))]
    return [record for record in found if record["state"] == "finished"]


def section_of(study: Path) -> tuple[str, dict[str, Any]]:
    out = study.parent / f"{study.name}-report"
    page = write_report(study, out).read_text(encoding="utf-8")
    section = re.search(r'<section id="label-free".*?</section>', page, flags=re.DOTALL)
    assert section
    return section[0], json.loads((out / "summary.json").read_text(encoding="utf-8"))["label_free"]


def text(section: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", section).split())


def test_correlations_and_regrets_are_those_of_the_trials(usual: Path) -> None:
    section, facts = section_of(usual)
    records = finished(usual)
    acc = np.array([record["metrics"]["acc"] for record in records])
    table = {name: np.array([record["metrics"][name] for record in records]) for name in SCORES}
    table["rank_mean"] = np.mean([rankdata(values) for values in table.values()], axis=0)
    assert [row["score"] for row in facts["scores"]] == [*SCORES, "rank_mean"]
    assert facts["best"] == {"trial": records[acc.argmax()]["trial"], "acc": acc.max()} and facts["gated"] == []
    assert facts["chance_regret"] == pytest.approx(acc.max() - acc.mean())
    for row in facts["scores"]:
        values = table[row["score"]]
        assert row["trial"] == records[values.argmax()]["trial"] and row["trials"] == len(records) == facts["trials"]
        assert row["rank_correlation"] == pytest.approx(spearmanr(values, acc).statistic)
        assert row["acc"] == pytest.approx(acc[values.argmax()])
        assert row["regret"] == pytest.approx(acc.max() - acc[values.argmax()])
        assert f"trial {row['trial']}" in text(section) and f"{row['regret']:.4f}" in text(section)


def test_a_panel_per_score_says_in_words_what_it_shows(usual: Path) -> None:
    section, facts = section_of(usual)
    titles = re.findall(r'<svg role="img" aria-label="([^"]+)"', section)
    assert len(titles) == 5 and len(set(titles)) == 5
    for title, row in zip(titles, facts["scores"], strict=True):
        assert f"against {row['score']} of 15 trials" in title and f"would have chosen trial {row['trial']}" in title
    assert section.count("<circle") == 5 * 15 and section.count('class="search open"') == 5
    assert section.count('<circle class="best"') == 5
    assert "may be chance" in text(section) and f"{chance_bound(15):.2f}" in text(section)


def test_few_trials_allow_no_conclusion(tmp_path: Path) -> None:
    section, facts = section_of(fabricate(tmp_path / "few", 8, confirm=0))
    assert facts["trials"] < 10 and all(row["interval"] is None for row in facts["scores"])
    assert f"With {facts['trials']} trials nothing may be concluded" in text(section)


def test_without_labels_the_scores_choose_and_nothing_is_compared(tmp_path: Path) -> None:
    objective = {"metric": "stability", "mode": "max", "uses_labels": False}
    section, facts = section_of(fabricate(tmp_path / "rows", 12, confirm=0, classes=0, study={"objective": objective}))
    assert facts["best"] is None and facts["chance_regret"] is None
    assert [row["score"] for row in facts["scores"]] == [*SCORES, "rank_mean"]
    assert all(
        row["acc"] is row["regret"] is row["rank_correlation"] is row["interval"] is None for row in facts["scores"]
    )
    assert "There are no labels to compare with" in text(section) and "<svg" not in section
    assert not re.search(r"\b(None|nan)\b|acc\b", text(section))


def test_a_collapsed_clustering_is_not_chosen_however_well_it_scores(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "gates", 14, confirm=0)
    change(study, 0, probe=1.0, smallest_share=0.0, clusters_used=4.0)
    facts = label_free(read_study(study))
    assert facts["gated"] == [0] and all(row["trial"] != 0 for row in facts["scores"])
    assert "1 trial (0) would have counted as collapsed" in " ".join(words_of(facts))
    change(study, 0, acc=0.99)
    facts = label_free(read_study(study))
    assert facts["best"] == {"trial": 0, "acc": 0.99} and all(row["regret"] > 0 for row in facts["scores"])
    own = json.loads((study / "study.json").read_text())
    gates = {"smallest_share": 0.0, "largest_share": 9.0, "rank": 1}
    (study / "study.json").write_text(json.dumps(own | {"objective": own["objective"] | {"gates": gates}}))
    assert label_free(read_study(study))["gated"] == []
    free = {"metric": "probe", "mode": "max", "uses_labels": False, "gates": None}
    (study / "study.json").write_text(json.dumps(own | {"objective": free}))
    assert label_free(read_study(study))["gated"] == [], "a search without labels whose gates were switched off"


def test_equal_scores_have_no_correlation_and_the_mean_regret(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "equal", 14, confirm=0)
    for record in finished(study):
        change(study, record["trial"], probe=1.0)
    section, facts = section_of(study)
    (row,) = [row for row in facts["scores"] if row["score"] == "probe"]
    assert row["tied"] == facts["trials"] and row["rank_correlation"] is None
    assert row["regret"] == pytest.approx(facts["chance_regret"])
    assert f"and {row['tied'] - 1} with the same score" in text(section)


def test_an_older_study_has_rows_for_what_it_recorded(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "older", 12, confirm=0)
    for path in (study / "trials").glob("*/record.json"):
        record = json.loads(path.read_text())
        for one in (record, *record["per_seed"]):
            one["metrics"] = {k: v for k, v in one["metrics"].items() if k not in ("stability", "probe", "silhouette")}
        path.write_text(json.dumps(record))
    _, facts = section_of(study)
    assert [row["score"] for row in facts["scores"]] == ["rate_reduction"]


def test_a_study_without_finished_trials_says_so(tmp_path: Path) -> None:
    section, facts = section_of(fabricate(tmp_path / "none", 0, confirm=0))
    assert facts["scores"] == [] and "No finished trial has a score" in text(section)
    assert "<table" not in section


def test_searched_sizes_are_named(tmp_path: Path) -> None:
    searched = {"feature_dim": {"choices": [16, 64]}}
    facts = label_free(read_study(fabricate(tmp_path / "sizes", 6, confirm=0, study={"searched": searched})))
    assert any("not comparable here: feature_dim was searched" in line for line in words_of(facts))


def test_the_documents_tables_come_from_studies_or_their_reports(
    usual: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, facts = section_of(usual)
    report = usual.parent / f"{usual.name}-report"
    for path in (usual, report, report / "summary.json"):
        monkeypatch.setattr("sys.argv", ["label_free", str(path)])
        benchmark.main()
        correlations, regrets = capsys.readouterr().out.split("\n\n", 2)[1:]
        stability = facts["scores"][0]
        assert f"{stability['rank_correlation']:.2f} ({stability['interval'][0]:.2f} to" in correlations
        assert f"| {100 * stability['regret']:.1f} |" in regrets and f"{100 * facts['best']['acc']:.1f} %" in regrets
    monkeypatch.setattr("sys.argv", ["label_free", str(usual), "--json"])
    benchmark.main()
    (row,) = json.loads(capsys.readouterr().out)
    assert row["label_free"] == facts
    monkeypatch.setattr("sys.argv", ["label_free", str(usual / "trials")])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "neither a study's folder" in capsys.readouterr().err
