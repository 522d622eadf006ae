"""Each sampler and pruner over a training that does nothing: a resumed search draws what an unbroken one would."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from raymc.errors import InputError
from raymc.execution import session
from raymc.execution.trial import Plan
from raymc.space import pruner, sampler
from raymc.space.parameter import Parameter
from raymc.space.space import load_space
from raymc.study import files
from raymc.study.distributions import compile_space, enqueue
from raymc.study.manifest import plan_budget, with_search
from raymc.study.pruner import make_pruner
from raymc.study.queue import TrialQueue
from raymc.study.reader import read_study
from raymc.study.sampler import LEFT_OUT, make_sampler
from tests.search_fakes import FakeTrainable, Killed, driver_here, make_queue, new_study, run_here, tune
from tests.test_search_study import Tracker, _request

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
    "cmaes with margin": (
        sampler.CMAES(popsize=4, with_margin=True),
        PARAMS | {"heads.epochs": Parameter("int", 2, 4)},
    ),
}
SIDE_BY_SIDE = ("tpe", "grid", "nsga2", "cmaes", "cmaes with margin")
"""Those that note something of a trial, or heed trials that are running."""
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


@pytest.mark.parametrize(("name", "slots"), [*((name, 1) for name in SAMPLERS), *((name, 3) for name in SIDE_BY_SIDE)])
def test_a_search_that_is_killed_draws_what_an_unbroken_one_draws(
    name: str, slots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = new_study(), new_study()

    def run(queue: TrialQueue, trainable: FakeTrainable) -> None:
        plans = {"": (Plan(queue.folder, queue.objective), None)}
        driver_here(lambda real: trainable, slots)(queue, lambda slots: plans, None, "")

    run(_queue(tmp_path / "whole", whole, name), FakeTrainable())
    folder, suggest = tmp_path / "broken", optuna.trial.Trial._suggest
    for moment in (3, 5, 1):  # in the middle of trainings
        with pytest.raises(Killed):
            run(_queue(folder, broken, name), _dying(moment))
    asked: list[str] = []

    def killed(self: Any, key: str, distribution: BaseDistribution) -> Any:
        asked.append(key)
        if len(asked) == 2:  # in the middle of asking
            raise Killed
        return suggest(self, key, distribution)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "_suggest", killed)
        with pytest.raises(Killed):
            run(_queue(folder, broken, name), FakeTrainable())
    run(_queue(folder, broken, name), FakeTrainable())
    params = [trial.params for trial in whole.get_trials()]
    assert [trial.params for trial in broken.get_trials()] == params, "the same draws"
    assert len(params) == TRIALS and all(("heads.epochs" in one) or one["clustering"] == "kmeans" for one in params)
    if slots == 3:
        notes = [[trial.system_attrs for trial in study.get_trials()] for study in (whole, broken)]
        assert notes[0] == notes[1] and len({str(one) for one in params}) == TRIALS
        return
    if name == "grid":
        assert len({tuple(sorted(one.items())) for one in params}) == TRIALS == 3 * (3 + 1), "each point once"
    else:
        assert name == "cmaes with margin" or any("heads.epochs" not in one for one in params)
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
        for trial in stopped:
            record = files.read_record(tmp_path / "a", "search", trial.number)
            assert record is not None and trial.value == pytest.approx(record.metrics["acc"]), "not its last seed's"


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


def test_every_argument_of_optuna_s_is_given_or_named_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that another version of Optuna, with other defaults, draws the same."""
    given: dict[str, set[str]] = {}

    def note(kind: type) -> None:
        taken, init = inspect.signature(kind.__init__), kind.__init__  # type: ignore[misc]

        def noted(self: Any, *args: Any, **options: Any) -> None:
            given.setdefault(kind.__name__, set()).update(taken.bind(self, *args, **options).arguments)
            init(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", noted)

    samplers, pruners = optuna.samplers, optuna.pruners
    kinds = (samplers.TPESampler, samplers.GPSampler, samplers.CmaEsSampler, samplers.NSGAIISampler)
    kinds += (samplers.QMCSampler, samplers.BruteForceSampler, samplers.RandomSampler)
    kinds += (pruners.SuccessiveHalvingPruner, pruners.WilcoxonPruner, pruners.MedianPruner, pruners.HyperbandPruner)
    expected = {kind.__name__: set(inspect.signature(kind.__init__).parameters) for kind in kinds}
    for kind in kinds:
        note(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for options, _ in SAMPLERS.values():
            make_sampler(options, 0, 0, {})
    for stops, seeds in PRUNERS.values():
        make_pruner(stops, seeds)
    missing = {name: names - given[name] - set(LEFT_OUT) for name, names in expected.items()}
    assert not any(missing.values()), missing


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
    (
        {
            "sampler": {"name": "cmaes", "with_margin": True},
            "space": {
                "heads.weight_decay": {"low": 1e-4, "high": 1e-1, "when": {"heads.batch_size": 128}},
                "heads.cluster_weight_decay": {"low": 1e-4, "high": 1e-1},
                "heads.batch_size": {"choices": [128, 256]},
            },
        },
        {},
        "with_margin needs keys that all exist",
    ),
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
    budget = plan_budget(space, 0, asked.get("trials"), asked.get("seeds"), smoke=asked.get("smoke", False))
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
    two = {"space": {"heads.batch_size": {"choices": [64, 256]}}}  # fewer than the trials of a smoke run
    assert _settled(tmp_path, two, sampler_name="grid", smoke=True)[1].trials == 2
    _, budget = _settled(tmp_path, {"space": ONLY_CHOICES}, sampler_name="grid")
    assert budget.trials == 4


CONDITIONAL = """
method: nmce
dataset: digits
space:
  heads.cluster_weight_decay: {low: 3.0e-4, high: 0.1, log: true, when: {heads.batch_size: 128}}
  heads.weight_decay: {low: 1.0e-4, high: 0.1, log: true}
  heads.batch_size: {choices: [128, 256]}
budget: {trials: 10, seeds: 1, confirm: {top: 2, seeds: 2}}
"""
KEY = "heads.cluster_weight_decay"


def test_a_conditional_space_from_its_file_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CONDITIONAL)
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: FakeTrainable()))
    result = tune(_request(trials=6))
    study = read_study(Path("storage/studies/s"))
    assert study.get("sampler") == {"name": "tpe", **vars(sampler.TPE(multivariate=True, group=True))}
    assert study.searched[KEY]["when"] == {"heads.batch_size": 128}
    assert all((KEY in trial.params) == (trial.params["heads.batch_size"] == 128) for trial in study.trials)
    assert study.trials[0].params == {"heads.weight_decay": 1e-3, "heads.batch_size": 256}, "the default comes first"
    assert any(KEY in trial.params for trial in study.trials)
    summary = json.loads((Path(result["report"]).parent / "summary.json").read_text())
    assert KEY not in summary["importance"]["values"] and f"Left out: {KEY}" in summary["importance"]["note"]
    assert "where heads.batch_size is 128" in Path(result["report"]).read_text()
    assert tune(_request(trials=6, resume=True))["best"] == result["best"]
    tune(_request(name="pinned", trials=2, overrides={"heads.batch_size": 256}))
    assert set(read_study(Path("storage/studies/pinned")).searched) == {"heads.weight_decay"}
    tune(_request(name="free", trials=2, overrides={"heads.batch_size": 128}))
    assert KEY in read_study(Path("storage/studies/free")).trials[0].params


def test_a_condition_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for when, words in (
        ("{heads.batch_siz: 128}", "did you mean heads.batch_size"),
        ("{heads.batch_size: 64}", "heads.batch_size is never 64"),
        ("{heads.epochs: 3}", "heads.epochs is 20 and not searched, so heads.cluster_weight_decay never exists"),
        ("{heads.cluster_weight_decay: 0.1}", "has a `when` itself"),
        ("{heads.batch_size: big}", "is a text, not a number"),
    ):
        (tmp_path / "mine.yaml").write_text(CONDITIONAL.replace("{heads.batch_size: 128}", when))
        with pytest.raises(InputError) as error:
            load_space(tmp_path / "mine.yaml")
        assert words in str(error.value)
    first = "first: [{heads.weight_decay: 1.0e-3, heads.batch_size: %s}]\n"
    (tmp_path / "mine.yaml").write_text(CONDITIONAL + first % 128)
    with pytest.raises(InputError, match=f"first, entry 1: {KEY} is missing"):
        load_space(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(CONDITIONAL + first % f"256, {KEY}: 0.01")
    with pytest.raises(InputError, match=f"{KEY} exists only where heads.batch_size is 128; leave it out"):
        load_space(tmp_path / "mine.yaml")


def test_a_resume_takes_the_words_that_a_study_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(BASE | {"budget": {"trials": 2, "seeds": 2, "confirm": None}}))
    monkeypatch.setattr(session, "StudyTracker", Tracker)
    monkeypatch.setattr(session, "run_on_ray", driver_here(lambda real: FakeTrainable()))
    tune(_request(smoke=True, pruner="median", trials=2))
    tune(_request(smoke=True, pruner="median", resume=True))
    with pytest.raises(InputError, match="began with --pruner median, and cannot go on with asha"):
        tune(_request(smoke=True, pruner="asha", resume=True))
    place = Path("storage/studies/s/study.json")
    manifest = json.loads(place.read_text())
    for key in ("sampler", "pruner", "asked"):  # as of before there was a choice
        del manifest[key]
    place.write_text(json.dumps(manifest))
    tune(_request(smoke=True, sampler="tpe", pruner="none", resume=True))
    with pytest.raises(InputError, match="began with --sampler tpe, and cannot go on with gp"):
        tune(_request(smoke=True, sampler="gp", resume=True))
