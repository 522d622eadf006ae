"""What a study is asked to do, settled before anything runs: `study.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from raymc import clusterers, datasets, provenance
from raymc.config import Config, Value
from raymc.datasets import Dataset
from raymc.datasets.scaling import WORDS
from raymc.errors import InputError
from raymc.masking import masked
from raymc.methods import METHODS
from raymc.metrics.names import LABEL_METRICS
from raymc.space.objective import several_seeds
from raymc.space.seeds import seeds_from
from raymc.space.space import Space
from raymc.study import files
from raymc.study.records import Row
from raymc.training.features import data
from raymc.training.features.data import Setting
from raymc.training.progress import progress
from raymc.training.smoke import limited, shorten
from raymc.training.stages import check_sizes, clusters_of
from raymc.training.training import pick_device

SMOKE_TRIALS, SMOKE_TOP, SMOKE_FRESH = 4, 1, 2


@dataclass(frozen=True)
class StudyBudget:
    """How much a study runs; `top` of 0 means no confirmation."""

    trials: int
    seeds: tuple[int, ...]
    top: int
    fresh: tuple[int, ...]
    fidelity: str


def plan_budget(space: Space, seed: int, trials: int | None, seeds: int | None, smoke: bool) -> StudyBudget:
    """The space's budget, with what the command line says instead, shortened for a smoke run.

    The seeds of the search are `seed`, `seed` + 1, …; the fresh ones begin a thousand later, or after the last of
    the search if it has more. Without anything to search there is one trial. Raises InputError.
    """
    confirm = space.budget.confirm
    top, fresh = (confirm.top, confirm.seeds) if confirm is not None else (0, 0)
    if smoke:
        trials, seeds = trials or SMOKE_TRIALS, seeds or (2 if _several(space) else 1)
        top, fresh = min(top, SMOKE_TOP), min(fresh, SMOKE_FRESH)
    count = seeds or space.budget.seeds
    _check_seeds(space, count, fresh)
    if not space.params and trials not in (None, 1) and not smoke:
        raise InputError(f"{space.name} searches nothing: there is one trial, not {trials}")
    return StudyBudget(
        trials=(trials or space.budget.trials) if space.params else 1,
        seeds=tuple(range(seed, seed + count)),
        top=top,
        fresh=fresh_seeds(seed, count, fresh),
        fidelity=space.budget.fidelity,
    )


def _several(space: Space) -> str:
    goal = space.objective
    return several_seeds(goal.metric, goal.second, goal.aggregate)


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
        metric = next(name for name in (goal.metric, goal.second) if name in LABEL_METRICS)
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
    words: Sequence[str] | None = None,
) -> Row:
    """The content of a new study's `study.json`; `space` has the overrides pinned."""
    config = space.config()
    flat = config.flat()
    return {
        "study": name,
        "space": {"name": space.name, "path": str(space.path), "content": dict(space.content)},
        "question": space.question,
        "method": space.method,
        "dataset": space.dataset,
        "preset": space.preset,
        "overrides": dict(overrides),
        "fixed": {key: value for key, value in flat.items() if key not in space.params and key != "seed"},
        "searched": {key: parameter.as_dict() for key, parameter in space.params.items()},
        "first": [dict(point) for point in space.first],
        "seed": seed,
        "seeds": list(budget.seeds),
        "seeds_from": seeds_from(space, config),
        "varies": config.varies,
        "confirm": {"top": budget.top, "seeds": list(budget.fresh)},
        "objective": space.objective.model_dump(),
        "budget": {"trials": budget.trials, "seeds": len(budget.seeds), "fidelity": budget.fidelity},
        "resources": space.resources.model_dump(),
        "data": datasets.data_facts(dataset) | _scaled_as_searched(space, dataset),
        "clusters_by": clusterers.described(config, len(dataset.train), METHODS[config.method].unit_rows),
        "versions": provenance.versions(),
        "git": provenance.revision(),
        "hardware": provenance.hardware(),
        "command": provenance.command("tune", words),
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


def budget_of(manifest: Row) -> StudyBudget:
    """The budget of an existing study."""
    asked = manifest["budget"]
    confirm = manifest["confirm"]
    return StudyBudget(
        asked["trials"], tuple(manifest["seeds"]), confirm["top"], tuple(confirm["seeds"]), asked["fidelity"]
    )
