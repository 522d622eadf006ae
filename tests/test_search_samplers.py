"""Each sampler and pruner over a training that does nothing: a resumed search draws what an unbroken one would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from raymc.errors import InputError
from raymc.space import pruner, sampler
from raymc.space.parameter import Parameter
from raymc.space.space import load_space
from raymc.study import files
from raymc.study.distributions import compile_space, enqueue
from raymc.study.manifest import plan_budget, with_search
from raymc.study.pruner import make_pruner
from raymc.study.queue import TrialQueue
from tests.search_fakes import FakeTrainable, Killed, make_queue, new_study, run_here

PARAMS = {
    "heads.weight_decay": Parameter("float", 1e-5, 1e-2, log=True),
    "heads.eps_sq": Parameter("float", 0.1, 1.0),
    "clustering": Parameter("str", choices=("head", "kmeans")),
    "heads.epochs": Parameter("int", 2, 4, when=(("clustering", "head"),)),
}
FINITE = {
    "heads.epochs": Parameter("int", 2, 4),
    "clustering": Parameter("str", choices=("head", "kmeans")),
    "heads.eps_sq": Parameter("float", 0.1, 0.3, step=0.1, when=(("clustering", "head"),)),
}
SAMPLERS: dict[str, tuple[sampler.Options, Mapping[str, Parameter]]] = {
    "tpe": (sampler.TPE(n_startup_trials=4, multivariate=True, group=True), PARAMS),
    "gp": (sampler.GP(n_startup_trials=4), PARAMS),
    "cmaes": (sampler.CMAES(popsize=4), PARAMS),
    "random": (sampler.Random(), PARAMS),
    "qmc": (sampler.QMC(), PARAMS),
    "grid": (sampler.Grid(), FINITE),
    "nsga2": (sampler.NSGA2(population_size=4), PARAMS),
}
TRIALS = 12


def _queue(folder: Path, study: optuna.Study, name: str, **changes: Any) -> TrialQueue:
    options, params = SAMPLERS[name]
    settings: dict[str, Any] = {"trials": TRIALS, "seeds": (0,), "top": 1, "fresh": (1000,)}
    return make_queue(
        folder, study, compile_space(params), **settings | {"params": params, "sampler": options} | changes
    )


def _dying(moment: int) -> FakeTrainable:
    """Dies in the middle of training number `moment`."""
    passed = [0]

    def before(params: Mapping[str, Any], seed: int, epoch: int) -> None:
        passed[0] += epoch == 2
        if passed[0] == moment:
            raise Killed

    return FakeTrainable(before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_that_is_killed_draws_what_an_unbroken_one_draws(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = new_study(), new_study()
    run_here(_queue(tmp_path / "whole", whole, name), tmp_path / "whole", FakeTrainable())
    folder, suggest = tmp_path / "broken", optuna.trial.Trial._suggest
    for moment in (3, 5, 1):  # in the middle of trainings
        with pytest.raises(Killed):
            run_here(_queue(folder, broken, name), folder, _dying(moment))
    asked: list[str] = []

    def killed(self: Any, key: str, distribution: BaseDistribution) -> Any:
        asked.append(key)
        if len(asked) == 2:  # in the middle of asking
            raise Killed
        return suggest(self, key, distribution)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "_suggest", killed)
        with pytest.raises(Killed):
            run_here(_queue(folder, broken, name), folder, FakeTrainable())
    run_here(_queue(folder, broken, name), folder, FakeTrainable())
    params = [trial.params for trial in whole.get_trials()]
    assert [trial.params for trial in broken.get_trials()] == params
    assert len(params) == TRIALS and all(("heads.epochs" in one) or one["clustering"] == "kmeans" for one in params)
    if name == "grid":
        assert len({tuple(sorted(one.items())) for one in params}) == TRIALS == 3 * (3 + 1), "each point once"
    else:
        assert any("heads.epochs" not in one for one in params)
        model_free = new_study()
        run_here(_queue(tmp_path / "free", model_free, "random"), tmp_path / "free", FakeTrainable())
        assert name == "random" or params != [trial.params for trial in model_free.get_trials()]


PRUNERS: dict[str, tuple[pruner.Options, int]] = {
    "asha": (pruner.ASHA(min_resource=1, reduction_factor=2), 4),
    "wilcoxon": (pruner.Wilcoxon(), 6),
    "median": (pruner.Median(n_startup_trials=2), 4),
    "hyperband": (pruner.Hyperband(min_resource=1, reduction_factor=2), 4),
}


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_stops_bad_trials_and_judges_by_what_was_before_a_kill(name: str, tmp_path: Path) -> None:
    options, seeds = PRUNERS[name]
    stops = make_pruner(options, seeds)
    changes = {"seeds": tuple(range(seeds)), "pruner": stops}
    whole, broken = new_study(), new_study()
    trained = FakeTrainable()
    run_here(_queue(tmp_path / "a", whole, "random", **changes), tmp_path / "a", trained, "seeds")
    states = [trial.state for trial in whole.get_trials()]
    assert TrialState.PRUNED in states and TrialState.COMPLETE in states
    with pytest.raises(Killed):
        run_here(_queue(tmp_path / "b", broken, "random", **changes), tmp_path / "b", _dying(15), "seeds")
    run_here(_queue(tmp_path / "b", broken, "random", **changes), tmp_path / "b", FakeTrainable(), "seeds")
    assert [trial.state for trial in broken.get_trials()] == states
    best = max(trial.value for trial in whole.get_trials() if trial.state == TrialState.COMPLETE)
    for trial in whole.get_trials():
        record = files.read_record(tmp_path / "a", "search", trial.number)
        assert (
            record is not None and (record.state == "pruned") == files.stop_mark(tmp_path / "a", trial.number).exists()
        )
        if record.state == "pruned":
            assert max(run.metrics["acc"] for run in record.seeds) < best and len(record.seeds) < seeds
    if name == "wilcoxon":
        stopped = [trial for trial in whole.get_trials() if trial.state == TrialState.PRUNED]
        assert {len(trial.intermediate_values) for trial in stopped} == {4}, "four pairs are the fewest with p < 0.1"


def test_without_a_pruner_every_seed_runs(tmp_path: Path) -> None:
    assert make_pruner(pruner.Unpruned(), 3) is None
    study = new_study()
    run_here(_queue(tmp_path, study, "random", seeds=(0, 1)), tmp_path, FakeTrainable(), "seeds")
    assert {trial.state for trial in study.get_trials()} == {TrialState.COMPLETE}


def test_a_point_that_is_tried_first_lacks_the_keys_that_do_not_exist_there() -> None:
    study = new_study()
    points = [
        {"heads.epochs": 2, "clustering": "kmeans"},
        {"heads.epochs": 2, "clustering": "head", "heads.eps_sq": 0.2},
    ]
    enqueue(study, points, compile_space(FINITE), FINITE)
    assert [trial.system_attrs["fixed_params"] for trial in study.get_trials()] == points


def test_integers_have_steps() -> None:
    found = compile_space({"a": Parameter("int", 64, 512, step=64), "b": Parameter("int", choices=(1, 5))})
    assert found == {"a": IntDistribution(64, 512, step=64), "b": CategoricalDistribution((1, 5))}


BASE: dict[str, Any] = {
    "method": "nmce",
    "dataset": "digits",
    "space": {
        "heads.weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
        "heads.batch_size": {"choices": [128, 256]},
    },
    "budget": {"trials": 8, "seeds": 2},
}
ONLY_CHOICES = {"heads.batch_size": {"choices": [128, 256]}, "clustering": {"choices": ["head", "kmeans"]}}
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"sampler": "gpp"}, {}, "sampler: unknown name gpp; did you mean gp"),
    ({"sampler": {"name": "gp", "popsize": 3}}, {}, "sampler: unknown key popsize"),
    ({"sampler": {"name": "tpe", "n_startup_trials": -1}}, {}, "sampler.n_startup_trials: -1 is below 0"),
    ({"sampler": {"name": "tpe", "group": True, "multivariate": False}}, {}, "needs multivariate: true"),
    ({}, {"sampler_name": "bayes"}, "--sampler bayes: unknown"),
    ({}, {"sampler_name": "grid"}, "sampler grid: heads.weight_decay is the range 0.0001 to 0.1 without a step"),
    ({"space": ONLY_CHOICES}, {"sampler_name": "cmaes"}, "sampler cmaes: a key with a range"),
    ({"sampler": {"name": "cmaes", "lr_adapt": True, "with_margin": True}}, {}, "with_margin and lr_adapt exclude"),
    ({"objective": {"metric": "acc", "second": "nmi"}}, {"sampler_name": "cmaes"}, "sampler cmaes: it has one metric"),
    ({"space": ONLY_CHOICES, "sampler": "grid"}, {"trials": 9}, "has 4 points, fewer than --trials 9"),
    ({"pruner": "ashaa"}, {}, "pruner: unknown name ashaa; did you mean asha"),
    ({}, {"pruner_name": "best"}, "--pruner best: unknown"),
    ({}, {"pruner_name": "wilcoxon"}, "5 seeds or more are needed, not 2"),
    ({"pruner": {"name": "wilcoxon", "p_threshold": 0.01}}, {"seeds": 6}, "before seed 7: 8 seeds or more are needed"),
    ({"pruner": "wilcoxon", "budget": {"fidelity": "epochs"}}, {"seeds": 8}, "it pairs seeds; write fidelity: seeds"),
    ({"pruner": "median"}, {"seeds": 1}, "pruner median: it compares trials seed by seed; two seeds or more"),
    ({"pruner": {"name": "asha", "min_resource": 2}}, {}, "min_resource 2 is not below a trial's 2 seeds"),
    ({"pruner": "asha", "objective": {"metric": "acc", "second": "nmi"}}, {}, "the objective has two metrics"),
]


def _settled(folder: Path, content: dict[str, Any], **asked: Any) -> Any:
    (folder / "mine.yaml").write_text(yaml.safe_dump(BASE | content))
    names = {key: asked.pop(key, None) for key in ("sampler_name", "pruner_name")}
    space = with_search(load_space(folder / "mine.yaml"), **names)
    budget = plan_budget(space, 0, asked.get("trials"), asked.get("seeds"), smoke=False)
    return space.sampler, budget


def test_what_cannot_be_searched_so_is_told_in_one_line(tmp_path: Path) -> None:
    for content, asked, words in BAD:
        with pytest.raises(InputError) as told:
            _settled(tmp_path, content, **asked)
        assert words in str(told.value) and "\n" not in str(told.value), (content, asked)


def test_every_value_is_settled_before_a_study_begins(tmp_path: Path) -> None:
    drawn, budget = _settled(tmp_path, {})
    assert drawn == sampler.TPE(multivariate=True, group=False) and budget.pruner == pruner.Unpruned()
    drawn, _ = _settled(tmp_path, {"objective": {"metric": "acc", "second": "nmi"}})
    assert drawn.multivariate is False
    drawn, budget = _settled(tmp_path, {"sampler": {"name": "gp", "n_startup_trials": 3}}, sampler_name="gp", seeds=4)
    assert drawn == sampler.GP(n_startup_trials=3), "named again, it keeps the file's options"
    _, budget = _settled(tmp_path, {"budget": {"seeds": 4, "fidelity": "seeds"}})
    assert budget.pruner == pruner.ASHA(min_resource=1, reduction_factor=2)
    _, budget = _settled(tmp_path, {"budget": {"seeds": 4, "fidelity": "seeds"}}, pruner_name="none")
    assert (budget.fidelity, budget.pruner) == ("none", pruner.Unpruned())
    _, budget = _settled(tmp_path, {"budget": {"fidelity": "epochs"}})
    assert budget.pruner == pruner.ASHA(min_resource=max(1, budget.epochs // 9), reduction_factor=3)
    _, budget = _settled(tmp_path, {}, pruner_name="hyperband", seeds=4)
    assert (budget.fidelity, budget.pruner) == ("seeds", pruner.Hyperband(min_resource=1, reduction_factor=2))
    _, budget = _settled(tmp_path, {"space": ONLY_CHOICES}, sampler_name="grid")
    assert budget.trials == 4
