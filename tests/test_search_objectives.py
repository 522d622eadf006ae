"""What trials are judged by: aggregates, group and study metrics, two metrics, collapse gates, and their bad inputs."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import create_trial
from sklearn.metrics import adjusted_rand_score

from raymc.atomic import write_json
from raymc.errors import InputError
from raymc.execution.trial import Plan, run_task
from raymc.metrics.gates import Gates
from raymc.metrics.ranking import rank_means
from raymc.reporting.search.pareto import pareto
from raymc.space.space import load_space
from raymc.study import files, groups
from raymc.study.manifest import check_data, load_data, plan_budget
from raymc.study.objective import Objective
from raymc.study.reader import read_study, winner
from raymc.study.records import Task
from raymc.study.sampler import sampler_seed
from tests.search_fakes import SPACE, FakeTrainable, Killed, make_queue, new_study, run_here

VALUES = [0.9, 0.7, 0.8, 0.4]


def test_aggregates_are_mean_lower_and_worst_seed() -> None:
    mean, error = statistics.fmean(VALUES), np.std(VALUES, ddof=1) / 2
    assert Objective("acc").scores({"acc": VALUES}, {}) == pytest.approx([mean])
    assert Objective("acc", aggregate="lower").scores({"acc": VALUES}, {}) == pytest.approx([mean - error])
    assert Objective("acc", aggregate="min").scores({"acc": VALUES}, {}) == [0.4]
    assert Objective("acc", "min", "lower").scores({"acc": VALUES}, {}) == pytest.approx([mean + error])
    assert Objective("acc", "min", "min").scores({"acc": VALUES}, {}) == [0.9]
    assert Objective("acc", aggregate="lower").scores({"acc": [0.5]}, {}) == [0.5]


def test_two_metrics_have_two_scores_and_a_missing_one_has_none() -> None:
    objective = Objective("acc", second="stability")
    assert objective.scores({"acc": [0.5, 0.7]}, {"stability": 0.3}) == pytest.approx([0.6, 0.3])
    assert objective.scores({"acc": [0.5, 0.7]}, {}) is None
    assert objective.scores({}, {"stability": 0.3}) is None
    assert Objective("rank_mean").scores({"probe": [0.5]}, {"stability": 0.3}) is None
    assert objective.needed == ("acc",) and Objective("stability").needed == ()
    assert set(Objective("rank_mean").needed) == {"rate_reduction", "probe", "silhouette"}


def test_gates_close_on_small_large_and_empty_clusters_and_low_rank() -> None:
    even = {"clusters_used": 10.0, "smallest_share": 0.1, "largest_share": 0.1, "embedding_rank": 9.0}
    gates = Gates()
    assert gates.closed(even, 10) is None
    assert gates.closed({}, 10) is None
    assert gates.closed(even | {"smallest_share": 0.009}, 10) == (
        "the smallest cluster has 0.90% of the points, below 0.1/10"
    )
    assert gates.closed(even | {"smallest_share": 0.0, "clusters_used": 7.0}, 10) == "3 of 10 clusters are empty"
    assert "largest cluster has 51.00%" in str(gates.closed(even | {"largest_share": 0.51}, 10))
    assert "rank 1" in str(gates.closed(even | {"embedding_rank": 1.0}, 10))
    assert Gates(smallest_share=0.0).closed(even | {"smallest_share": 0.0, "clusters_used": 7.0}, 10) is None


class Clusterer(FakeTrainable):
    """Leaves labels of three clusters: with a small weight decay the same for every seed, else its own."""

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        result = super().__call__(params, seed, out, report)
        decay = params["heads.weight_decay"]
        rng = np.random.default_rng(seed)
        labels = np.arange(60) % 3
        moved = rng.random(60) < min(1.0, decay * 20)
        labels[moved] = rng.integers(0, 3, moved.sum())
        np.savez(out / "labels.npz", labels=labels)
        shares = np.bincount(labels, minlength=3) / 60
        result["metrics"] |= {
            "rate_reduction": -decay,
            "probe": 0.5,
            "silhouette": 1 - decay,
            "clusters_used": 3.0,
            "smallest_share": float(shares.min()),
            "largest_share": float(shares.max()),
        }
        return result | {"n_clusters": 3}


def _agreements(folder: Path, trial: int, seeds: tuple[int, ...]) -> list[float]:
    found = [np.load(files.seed_folder(folder, "search", trial, seed) / "labels.npz")["labels"] for seed in seeds]
    return [adjusted_rand_score(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]


def test_stability_is_the_mean_agreement_of_the_seeds_and_chooses_the_steadiest(tmp_path: Path) -> None:
    study = new_study()
    queue = make_queue(tmp_path, study, trials=8, seeds=(0, 1, 2), objective=Objective("stability"))
    run_here(queue, tmp_path, Clusterer(), objective=Objective("stability"))
    for trial in study.get_trials():
        record = files.read_record(tmp_path, "search", trial.number)
        expected = statistics.fmean(_agreements(tmp_path, trial.number, (0, 1, 2)))
        assert record is not None
        assert record.score == trial.value == pytest.approx(expected)
        assert record.metrics["stability"] == record.score
    best = queue.best(1)[0]
    assert best.value == max(trial.value for trial in study.get_trials())


def test_stability_is_judged_from_the_second_seed_on(tmp_path: Path) -> None:
    queue = make_queue(tmp_path, new_study(), trials=1, seeds=(0, 1, 2, 3), objective=Objective("stability"), top=0)
    heard: list[dict[str, Any]] = []
    run_here(
        queue, tmp_path, Clusterer(), "seeds", lambda task, row: heard.append(row), objective=Objective("stability")
    )
    assert [row["resource"] for row in heard if "resource" in row] == [2, 3]  # the fourth ends the trial


def test_a_mean_rank_is_told_as_it_stands_and_chosen_by_as_it_ends(tmp_path: Path) -> None:
    study = new_study()
    objective = Objective("rank_mean")
    queue = make_queue(tmp_path, study, trials=7, objective=objective, top=2)
    run_here(queue, tmp_path, Clusterer(), objective=objective)
    found = [trial.user_attrs["metrics"] for trial in study.get_trials()]
    for n, trial in enumerate(study.get_trials(), start=1):
        assert trial.value == pytest.approx(rank_means(found[:n])[-1])
    final = rank_means(found)
    order = sorted(range(7), key=lambda n: (-final[n], n))
    assert [trial.number for trial in queue.best(7)] == order
    _as_study(tmp_path, {"metric": "rank_mean", "mode": "max", "uses_labels": False})
    read = read_study(tmp_path)
    assert [trial.score for trial in read.trials] == pytest.approx(final)
    assert {record.trial for record in read.confirmations} == set(order[:2])
    assert all(record.score is not None for record in read.confirmations)


def test_the_sampler_knows_ranks_as_they_are_and_not_as_they_were_told(tmp_path: Path) -> None:
    study, objective = new_study(), Objective("rank_mean")
    queue = make_queue(tmp_path, study, trials=24, objective=objective, top=0)
    run_here(queue, tmp_path, Clusterer(), objective=objective)
    trials = study.get_trials()

    def asked(number: int, scores: Sequence[float | None]) -> dict[str, Any]:
        sampler = TPESampler(seed=sampler_seed(0, number))
        again = optuna.create_study(direction="maximize", sampler=sampler)
        for trial, score in zip(trials[:number], scores, strict=True):
            again.add_trial(create_trial(value=score, params=trial.params, distributions=trial.distributions))
        return again.ask(SPACE).params

    drawn = [trial.params for trial in trials[12:]]
    ranks = [rank_means([trial.user_attrs["metrics"] for trial in trials[:n]]) for n in range(12, 24)]
    assert drawn == [asked(n, scores) for n, scores in enumerate(ranks, start=12)]
    assert drawn != [asked(n, [trial.value for trial in trials[:n]]) for n in range(12, 24)]


def test_two_metrics_confirm_the_front_first_and_the_report_names_it(tmp_path: Path) -> None:
    study = new_study(["maximize", "maximize"])
    objective = Objective("acc", second="stability")
    queue = make_queue(tmp_path, study, trials=8, objective=objective, top=3)
    run_here(queue, tmp_path, Clusterer(), objective=objective)
    trials = {trial.number: tuple(trial.values) for trial in study.get_trials()}
    front = {
        n
        for n, own in trials.items()
        if not any(all(np.greater_equal(other, own)) and other != own for other in trials.values())
    }
    assert front == {trial.number for trial in study.best_trials}
    best = [trial.number for trial in queue.best(8)]
    assert set(best[: len(front)]) == front
    assert [trials[n][0] for n in best[: len(front)]] == sorted((trials[n][0] for n in front), reverse=True)
    objective = {"metric": "acc", "mode": "max", "second": "stability", "uses_labels": True}
    _as_study(tmp_path, objective)
    read = read_study(tmp_path)
    facts = pareto(read)
    assert facts is not None and {one["trial"] for one in facts["front"]} == front
    assert facts["dominated"] == 8 - len(front)
    assert winner(read) is not None


def test_a_closed_gate_is_a_collapsed_trial_without_a_score(tmp_path: Path) -> None:
    objective = Objective("stability", gates=Gates(smallest_share=1.0))
    study = new_study()
    run_here(
        make_queue(tmp_path, study, trials=4, objective=objective, top=0), tmp_path, Clusterer(), objective=objective
    )
    found = [files.read_record(tmp_path, "search", n) for n in range(4)]
    assert {record.state for record in found if record} >= {"collapsed"}
    for record in found:
        assert record is not None
        if record.state == "collapsed":
            assert record.score is None and record.metrics == {}
            assert "smallest cluster" in record.error and "gates of the objective" in record.error


def _as_study(folder: Path, objective: dict[str, Any]) -> None:
    write_json(folder / "study.json", {"study": "s", "objective": objective, "seeds": [0, 1]})


def _space(folder: Path, text: str) -> Any:
    path = folder / "s.yaml"
    path.write_text(f"method: nmce\ndataset: digits\nspace: {{heads.eps_sq: {{low: 0.1, high: 0.4}}}}\n{text}\n")
    return load_space(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("objective: {metric: stability, uses_labels: true}", "stability looks at no labels"),
        ("objective: {metric: stability, second: acc, uses_labels: false}", "stability and acc needs labels"),
        ("objective: {metric: stability, mode: min}", "of stability more is better"),
        ("objective: {metric: stability, aggregate: lower}", "aggregate lower has nothing to choose from"),
        ("objective: {metric: acc, second: acc}", "second is acc too"),
        ("objective: {metric: acc, second: stabilty}", "unknown metric stabilty; did you mean stability?"),
        ("objective: {metric: rank_mean, second: acc}", "rank_mean ranks by all label-free metrics already"),
        ("objective: {metric: acc, aggregate: median}", "'median' is not one of mean, lower, min"),
        ("objective: {metric: stability}\nbudget: {seeds: 1}", "budget.seeds: stability needs two seeds or more"),
        ("objective: {metric: acc, aggregate: lower}\nbudget: {seeds: 1}", "aggregate lower needs two seeds"),
        ("objective: {metric: stability}\nbudget: {confirm: {seeds: 1}}", "budget.confirm.seeds: stability needs two"),
        ("objective: {metric: rank_mean}\nbudget: {fidelity: seeds}", "rank_mean compares finished trials"),
        ("objective: {metric: acc, second: stability}\nbudget: {fidelity: seeds}", "the objective has two"),
        ("objective: {metric: probe}\nbudget: {fidelity: epochs}", "probe is not known before a training ends"),
        ("objective: {metric: stability, gates: {smallest: 0.1}}", "unknown key smallest; did you mean smallest_share"),
        ("objective: {metric: stability, gates: {largest_share: 0.5}}", "0.5 is below 1"),
        ("objective: {metric: test_acc}", "unknown metric test_acc"),
    ],
)
def test_objectives_that_make_no_sense_are_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        _space(tmp_path, text)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_gates_are_on_without_labels_off_with_them_and_can_be_set(tmp_path: Path) -> None:
    def gates(text: str) -> Gates | None:
        return Objective.of(_space(tmp_path, f"objective: {text}").objective.model_dump()).gates

    assert gates("{metric: acc}") is None
    assert gates("{metric: stability}") == Gates()
    assert gates("{metric: stability, gates: null}") is None
    assert gates("{metric: acc, gates: {rank: 3}}") == Gates(rank=3)


@pytest.mark.parametrize("metric", ["probe", "silhouette", "rank_mean"])
def test_the_scaling_is_not_searched_by_what_it_changes(tmp_path: Path, metric: str) -> None:
    path = tmp_path / "s.yaml"
    text = (
        "method: gcml\ndataset: usps\nspace: {{scaling: {{choices: [none, standardise]}}}}\nobjective: {{metric: {}}}\n"
    )
    path.write_text(text.format(metric))
    with pytest.raises(InputError, match=f"space.scaling: {metric} compares trials among the samples as they are"):
        load_space(path)
    path.write_text(text.format("stability"))
    assert "scaling" in load_space(path).params


def test_without_labels_the_clusters_are_not_counted_among_them(tmp_path: Path) -> None:
    space = _space(tmp_path, "objective: {metric: stability}")
    data = load_data(space, "", "", False)
    with pytest.raises(InputError, match="objective stability looks at no labels, .* give n_clusters"):
        check_data(space, space.config(), data)
    given = space.pinned({"n_clusters": 10})
    check_data(given, given.config(), data)
    strict = _space(tmp_path, "fixed: {n_clusters: 10}\nobjective: {metric: stability, gates: {rank: 65}}")
    with pytest.raises(InputError, match="gates.rank 65 is above feature_dim 64"):
        check_data(strict, strict.config(), data)


def test_an_objective_over_seeds_gets_two_in_a_smoke_run_and_no_fewer(tmp_path: Path) -> None:
    space = _space(tmp_path, "objective: {metric: stability}")
    assert len(plan_budget(space, 0, None, None, smoke=True).seeds) == 2
    with pytest.raises(InputError, match="stability needs two seeds or more"):
        plan_budget(space, 0, None, 1, smoke=False)


def test_studies_of_before_have_the_mean_and_no_gates() -> None:
    assert Objective.of({"metric": "acc", "mode": "max", "uses_labels": True}) == Objective("acc")


def test_a_smoke_run_has_no_gates() -> None:
    objective = {"metric": "stability", "mode": "max", "gates": {"smallest_share": 0.1, "largest_share": 5, "rank": 2}}
    assert Objective.of(objective).gates == Gates() and Objective.of(objective, smoke=True).gates is None


def test_a_record_of_before_that_was_not_told_yet_is_told_on_resume(tmp_path: Path) -> None:
    study = new_study()
    queue = make_queue(tmp_path, study, trials=1, top=0)
    task = queue.next()
    assert task is not None
    run_task(Plan(tmp_path, Objective("acc")), task, FakeTrainable(), lambda row: None)
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None
    score = record.score
    before = {key: value for key, value in record.row.items() if key != "scores"}
    write_json(files.trial_folder(tmp_path, "search", 0) / "record.json", before)
    make_queue(tmp_path, study, trials=1, top=0)  # as after a kill between the record and Optuna
    assert study.get_trials()[0].value == score


def test_seeds_without_a_common_figure_are_a_failed_trial_not_a_fault(tmp_path: Path) -> None:
    objective = Objective("stability")
    queue = make_queue(tmp_path, new_study(), trials=1, objective=objective, top=0)
    run_here(queue, tmp_path, FakeTrainable(), objective=objective)
    record = files.read_record(tmp_path, "search", 0)
    assert record is not None and record.state == "failed"
    assert record.error == "the seeds give no stability together"


def test_torn_labels_are_no_agreement_of_the_others(tmp_path: Path) -> None:
    objective = Objective("stability")
    queue = make_queue(tmp_path, new_study(), trials=1, objective=objective, top=0, seeds=(0, 1, 2))
    run_here(queue, tmp_path, Clusterer(), objective=objective)
    task = Task("search", 0, {}, (0, 1, 2), (0, 1, 2))
    assert groups.make_record(tmp_path, task, objective).state == "finished"
    (files.seed_folder(tmp_path, "search", 0, 1) / "labels.npz").write_bytes(b"torn")
    record = groups.make_record(tmp_path, task, objective)
    assert record.state == "failed" and "stability" not in record.metrics


KILLED = {
    "stability": (Objective("stability"), "maximize"),
    "lower": (Objective("acc", aggregate="lower"), "maximize"),
    "worst, smallest": (Objective("acc", "min", "min"), "minimize"),
    "rank_mean": (Objective("rank_mean"), "maximize"),
    "two": (Objective("acc", second="stability"), ["maximize", "maximize"]),
    "gates": (Objective("silhouette", gates=Gates(smallest_share=0.8)), "maximize"),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_again_and_again_a_study_tells_what_an_unbroken_one_does(tmp_path: Path, name: str) -> None:
    objective, modes = KILLED[name]
    rng, kills = random.Random(3), 0

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        if rng.random() < 0.04:
            raise Killed

    def told(folder: Path, trainable: FakeTrainable, storage: str | None) -> Any:
        nonlocal kills
        study = new_study(modes, storage)
        while True:
            queue = make_queue(folder, study, trials=6, objective=objective, top=2, seeds=(0, 1, 2))
            if storage:
                _kill_before_telling(queue, rng)
            try:
                run_here(queue, folder, trainable, objective=objective)
                break
            except Killed:
                kills += 1
                study = optuna.load_study(study_name="s", storage=storage)
        best = [trial.number for trial in queue.best(4)]
        return [(trial.state, trial.values, trial.params) for trial in study.get_trials()], best

    unbroken = told(tmp_path / "a", Clusterer(), None)
    (tmp_path / "b").mkdir()
    broken = told(tmp_path / "b", Clusterer(before), f"sqlite:///{tmp_path / 'b' / 'o.db'}")
    assert kills and broken == unbroken


def _kill_before_telling(queue: Any, rng: random.Random) -> None:
    tell = queue._tell

    def perhaps(number: int, record: Mapping[str, Any]) -> None:
        if rng.random() < 0.15:
            raise Killed
        tell(number, record)

    queue._tell = perhaps
