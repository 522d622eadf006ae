"""What a study is asked to do, settled before anything runs: `study.json`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from raymc import clusterers, datasets, provenance
from raymc.config import Config, Value, nearest
from raymc.datasets import Dataset
from raymc.datasets.scaling import WORDS
from raymc.errors import InputError
from raymc.masking import masked
from raymc.methods import METHODS
from raymc.metrics.names import LABEL_METRICS
from raymc.program import own_command
from raymc.space import pruner, sampler
from raymc.space.names import word_of
from raymc.space.objective import several_seeds
from raymc.space.seeds import seeds_from
from raymc.space.settled import clustering_epochs, fidelity_of, grid_size, settled_pruner, settled_sampler
from raymc.space.space import Space
from raymc.study import files
from raymc.study.limits import Limits
from raymc.study.records import Row
from raymc.training.features import data
from raymc.training.features.data import Setting
from raymc.training.progress import progress
from raymc.training.smoke import limited, shorten
from raymc.training.stages import check_sizes, clusters_of
from raymc.training.training import pick_device

T = TypeVar("T")

SMOKE_TRIALS, SMOKE_TOP, SMOKE_FRESH = 4, 1, 2


@dataclass(frozen=True)
class StudyBudget:
    """How much a study runs; `top` of 0 means no confirmation."""

    trials: int
    seeds: tuple[int, ...]
    top: int
    fresh: tuple[int, ...]
    fidelity: str
    pruner: pruner.Options
    epochs: int
    limits: Limits = Limits()


def with_search(space: Space, sampler_name: str | None, pruner_name: str | None) -> Space:
    """The space with the sampler and the pruner of the command line, and its sampler settled. Raises InputError.

    What is named again keeps the options that the space gives it.
    """
    drawn, stops = space.sampler, space.pruner
    if sampler_name is not None and sampler_name != drawn.name:
        drawn = _named("--sampler", sampler_name, sampler.SAMPLERS)()
    if pruner_name is not None and (stops is None or pruner_name != stops.name):
        stops = _named("--pruner", pruner_name, pruner.PRUNERS)()
    drawn = settled_sampler(drawn, space.params, space.objective)
    return replace(space, sampler=drawn, pruner=stops)


def _named(option: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise InputError(f"{option} {name}: unknown{nearest(name, known)} (known: {', '.join(known)})")
    return known[name]


def plan_budget(space: Space, seed: int, trials: int | None, seeds: int | None, smoke: bool) -> StudyBudget:
    """The space's budget, with what the command line says instead, shortened for a smoke run.

    The seeds of the search are `seed`, `seed` + 1, …; the fresh ones begin a thousand later, or after the last of
    the search if it has more. Without anything to search there is one trial. Raises InputError.
    """
    confirm = space.budget.confirm
    top, fresh = (confirm.top, confirm.seeds) if confirm is not None else (0, 0)
    planned = space.budget.trials
    if smoke:  # shortens, and lengthens nothing
        planned, seeds = min(planned, SMOKE_TRIALS), seeds or min(space.budget.seeds, 2 if _several(space) else 1)
        top, fresh = min(top, SMOKE_TOP), min(fresh, SMOKE_FRESH)
    count = seeds or space.budget.seeds
    _check_seeds(space, count, fresh)
    if not space.params and trials not in (None, 1) and not smoke:
        raise InputError(f"{space.name} searches nothing: there is one trial, not {trials}")
    fidelity = fidelity_of(space.pruner, space.budget.fidelity, space.config().workers)
    if smoke and space.pruner is not None:  # few seeds of few epochs give it nothing to compare
        fidelity = "none"
    epochs = max(1, sum(clustering_epochs(space, {}, smoke).values()))
    return StudyBudget(
        trials=_trials(space, trials, planned) if space.params else 1,
        seeds=tuple(range(seed, seed + count)),
        top=top,
        fresh=fresh_seeds(seed, count, fresh),
        fidelity=fidelity,
        pruner=settled_pruner(space.pruner, fidelity, space.objective, count, epochs),
        epochs=epochs,
    )


def _trials(space: Space, asked: int | None, planned: int) -> int:
    """Trials that are asked for, else as planned; of a grid at most its points. Raises InputError."""
    if not isinstance(space.sampler, sampler.Grid):
        return asked or planned
    points = grid_size(space.params)
    if asked is not None and asked > points:
        raise InputError(f"sampler grid: {space.name} has {points} points, fewer than --trials {asked}")
    return asked or min(planned, points)


def _several(space: Space) -> str:
    goal = space.objective
    return several_seeds(goal.metric, goal.second, goal.aggregate, goal.constraint)


def _check_seeds(space: Space, searched: int, fresh: int) -> None:
    """Raises InputError where the objective compares seeds and there is one."""
    if _several(space) and (searched < 2 or fresh == 1):
        raise InputError(f"objective {_several(space)} needs two seeds or more, in the search and on fresh seeds")


def fresh_seeds(seed: int, searched: int, count: int) -> tuple[int, ...]:
    """`count` seeds that a search with `searched` seeds from `seed` on has not seen."""
    first = seed + max(1000, searched)
    return tuple(range(first, first + count))


def load_data(space: Space, root: str, storage: str, smoke: bool, params: Mapping[str, Value] | None = None) -> Dataset:
    """The samples that the space's trainings use at a point of it (None: the default). Raises InputError.

    An encoder's features are computed here, if `storage` lacks them, before trainings are handed out.
    """
    config = space.config(params=params)
    with progress() if space.own and space.own.encoder else nullcontext(lambda row: None) as report:
        setting = Setting(storage, device=pick_device(None), report=report)
        dataset = limited(data.load_data(config, root, setting, smoke, keep=False), config)
    return shorten(config, dataset)[1] if smoke else dataset


def check_data(space: Space, config: Config, dataset: Dataset, objective: bool = True) -> None:
    """Raises InputError where the objective needs labels that there are not, or clusters are unknown or too many."""
    goal = space.objective
    if objective and goal.uses_labels and dataset.train.y is None:
        bounded = goal.constraint and goal.constraint.metric
        metric = next(name for name in (goal.metric, goal.second, bounded) if name in LABEL_METRICS)
        raise InputError(f"objective {metric} needs labels, and {dataset.name} has none")
    if objective and not goal.uses_labels and config.n_clusters is None and dataset.train.y is not None:
        which = f"objective {goal.metric} looks at no labels"
        raise InputError(f"{which}, and the number of clusters would come from them: give n_clusters")
    if objective and goal.gates and goal.gates.rank > config.feature_dim:
        raise InputError(f"objective.gates.rank {goal.gates.rank} is above feature_dim {config.feature_dim}")
    check_sizes(METHODS[space.method], config, dataset, clusters_of(config, dataset))


def make_manifest(
    name: str,
    space: Space,
    overrides: Mapping[str, Value],
    budget: StudyBudget,
    dataset: Dataset,
    *,
    seed: int,
    smoke: bool,
    tracking_uri: str,
) -> Row:
    """The content of a new study's `study.json`; `space` has the overrides pinned."""
    config = space.config()
    flat = config.flat()
    return {
        "study": name,
        "space": {"name": space.name, "path": word_of(space.path), "content": dict(space.content)},
        "question": space.question,
        "method": space.method,
        "dataset": space.dataset,
        "preset": space.preset,
        "overrides": dict(overrides),
        "fixed": {key: value for key, value in flat.items() if key not in space.params and key != "seed"},
        "searched": {key: parameter.as_dict() for key, parameter in space.params.items()},
        "default": space.default_point(),
        "first": [dict(point) for point in space.first],
        "seed": seed,
        "seeds": list(budget.seeds),
        "seeds_from": seeds_from(space, config),
        "varies": config.varies,
        "confirm": {"top": budget.top, "seeds": list(budget.fresh)},
        "objective": space.objective.model_dump(),
        "budget": {
            **{"trials": budget.trials, "seeds": len(budget.seeds), "fidelity": budget.fidelity},
            **{name: value for name, value in vars(budget.limits).items() if value},
        },
        "sampler": space.sampler.model_dump(),
        "pruner": budget.pruner.model_dump(),
        "asked": {"sampler": space.sampler.name, "pruner": space.pruner and space.pruner.name},
        "resources": space.resources.model_dump(),
        "data": datasets.data_facts(dataset) | _scaled_as_searched(space, dataset),
        "clusters_by": clusterers.described(config, len(dataset.train), METHODS[config.method].unit_rows),
        "versions": provenance.versions(),
        "git": provenance.revision(),
        "hardware": provenance.hardware(),
        "command": own_command(),
        "created": files.now(),
        "smoke": smoke,
        "tracking_uri": masked(tracking_uri),
        "experiment_id": None,
        "run_id": None,
        "sittings": [],
    }


def _scaled_as_searched(space: Space, dataset: Dataset) -> Row:
    """Where the scaling is searched, the words of the samples at the default do not hold for every trial."""
    if "scaling" not in space.params or dataset.scaling is None:
        return {}
    words, known = "columns scaled as searched", WORDS[dataset.scaling.how]
    return {"split": dataset.split.replace(known, words), "source": dataset.source.replace(known, words)}


def budget_of(manifest: Row, space: Space) -> StudyBudget:
    """The budget of an existing study; one of before there was a choice of pruners halved where it had a fidelity."""
    asked, seeds = manifest["budget"], tuple(manifest["seeds"])
    confirm = manifest["confirm"]
    fidelity = fidelity_of(None, asked["fidelity"], space.config().workers)
    epochs = max(1, sum(clustering_epochs(space, {}, manifest["smoke"]).values()))
    before = manifest.get("pruner")
    stops = (
        pruner.PRUNERS[before["name"]].model_validate(before)
        if before
        else settled_pruner(None, fidelity, space.objective, len(seeds), epochs)
    )
    fresh, limits = tuple(confirm["seeds"]), Limits.of(asked)
    return StudyBudget(asked["trials"], seeds, confirm["top"], fresh, fidelity, stops, epochs, limits)


def sampler_of(manifest: Row, space: Space) -> sampler.Options:
    """The sampler of an existing study; one of before there was a choice drew by TPE with the defaults of now."""
    before = manifest.get("sampler")
    asked = sampler.SAMPLERS[before["name"]].model_validate(before) if before else sampler.TPE()
    return settled_sampler(asked, space.params, space.objective)
