"""What MLflow has of a study when it has ended: enough to compare studies by, on the study's run and on its trials'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.atomic import write_json
from raymc.reporting.search.facts import gather
from raymc.study.objective import Objective
from raymc.study.reader import read_study
from raymc.tracking.outcome import log_outcome, study_tags
from raymc.tracking.study import StudyTracker
from tests.mlflow_database import DEPRECATED, new_database, query, table
from tests.search_fakes import FakeBody, make_ledger, new_study, run_here

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to ship to")

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


class FullBody(FakeBody):
    """Has all that a label-free objective asks for; two of three seeds agree in every label."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        result = super().__call__(params, seed, out, report)
        acc = result["metrics"]["acc"]
        result["metrics"] |= {"rate_reduction": 20 * acc, "probe": acc, "silhouette": 1 - acc}
        np.savez(out / "labels.npz", labels=np.arange(24) % (4 if seed % 3 else 3))
        return result


def _ended(folder: Path, **objective: Any) -> dict[str, dict[str, float]]:
    """Search, confirm and ship; the newest value of each metric by run."""
    goal = Objective(**objective)
    database = new_database(folder)
    manifest = {"study": "a study", "objective": goal.row}
    facts = dict.fromkeys(("method", "dataset", "preset"), "x") | {"smoke": False}
    write_json(folder / "study.json", manifest)
    tags = study_tags(manifest | facts)
    uri = f"sqlite:///{database}"
    ledger = make_ledger(folder, new_study(["maximize"] * len(goal.metrics)), objective=goal, fresh=(1000, 1001, 1002))
    run_here(ledger, folder, FullBody(), objective=goal)
    for _ in range(2):  # the second time as a resume of a complete study: nothing is doubled
        study = read_study(folder)
        facts = gather(study)
        chosen = next(one for one in facts["confirmation"] if one["trial"] == facts["winner"]["trial"])
        with StudyTracker(folder, study="a study", space="space", tracking_uri=uri, tags=tags) as tracker:
            log_outcome(study, facts, chosen, ledger.counts(), tracker)
    found: dict[str, dict[str, float]] = {}
    sql = "select r.name, m.key, m.value from latest_metrics m join runs r using (run_uuid)"
    for run, key, value in query(database, sql):
        found.setdefault(run, {})[key] = value
    assert max(n for _, n in query(database, "select key, count(*) from metrics group by run_uuid, key, step")) == 1
    return found


def test_the_outcome_is_on_the_study_and_the_scores_on_its_trials(tmp_path: Path) -> None:
    found = _ended(tmp_path, metric="acc", aggregate="lower")
    best = gather(read_study(tmp_path))["winner"]["trial"]
    whole, trial, fresh = found["a study"], found[f"trial-{best:04d}"], found[f"confirm-{best:04d}"]
    assert whole["search_score"] == trial["search_score"] < trial["acc_mean"], "the score is the lower one"
    assert whole["confirmed_score"] == fresh["confirmed_score"] < fresh["acc_mean"]
    assert whole["acc_mean"] == fresh["acc_mean"] and whole["acc_std"] > 0
    assert whole["drop"] == pytest.approx(trial["acc_mean"] - fresh["acc_mean"])
    assert (
        whole["pairwise_ari_mean"] == pytest.approx(fresh["pairwise_ari_mean"]) and 0 < fresh["pairwise_ari_mean"] < 1
    )
    assert (whole["trials_finished"], whole["trials_pruned"], whole["trials_failed"]) == (5, 0, 0)
    assert sum("search_score" in values for name, values in found.items() if name.startswith("trial")) == 5
    tags = table(tmp_path / "mlflow.db", "tags")
    names = ("", ".mode", ".aggregate", ".uses_labels", ".second")
    stated = [tags.get(("a study", f"raymc.objective{name}")) for name in names]
    assert stated == ["acc", "max", "lower", "true", None]
    params = table(tmp_path / "mlflow.db", "params")
    assert tags["a study", "raymc.winner"] == str(best) and tags["a study", "raymc.winner.chosen_by"] == "confirmation"
    chosen = tags["a study", "raymc.winner.heads.weight_decay"]
    assert chosen == params[f"trial-{best:04d}", "heads.weight_decay"]
    states = set(query(tmp_path / "mlflow.db", "select status from runs where name != 'a study'"))
    assert states == {("FINISHED",)}, "a score that comes late leaves a run ended"


def test_a_rank_is_the_one_among_all_trials(tmp_path: Path) -> None:
    found = _ended(tmp_path, metric="rank_mean")
    ranks = {record.trial: record.score for record in read_study(tmp_path).trials}
    assert {n: found[f"trial-{n:04d}"]["search_score"] for n in ranks} == pytest.approx(ranks)
    assert "drop" not in found["a study"], "a rank among others is not the search's"


def test_two_metrics_are_two_scores(tmp_path: Path) -> None:
    found = _ended(tmp_path, metric="acc", second="stability")
    for name, values in found.items():
        if name.startswith("trial") and "seed" not in name:
            assert values["search_score"] == pytest.approx(values["acc_mean"])
            assert values["search_score_second"] == pytest.approx(values["pairwise_ari_mean"])
    assert found["a study"]["confirmed_score_second"] == pytest.approx(found["a study"]["pairwise_ari_mean"])
    assert table(tmp_path / "mlflow.db", "tags")["a study", "raymc.objective.second"] == "stability"
