"""From searched keys to Optuna: distributions, points that are tried first, and draws that a resume repeats."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from raymc.errors import InputError
from raymc.space.parameter import Parameter
from raymc.study.distributions import check_point, compile_space, enqueue, next_number, reseed, sampler_seed
from tests.search_fakes import FIRST, SPACE, new_study


def test_each_kind_of_parameter_has_its_distribution() -> None:
    compiled = compile_space(
        {
            "heads.weight_decay": Parameter("float", 1e-5, 1e-2, log=True),
            "heads.temperature": Parameter("float", 0.5, 2.0, step=0.5),
            "heads.epochs": Parameter("int", 10, 100),
            "feature_dim": Parameter("int", 16, 256, log=True),
            "heads.batch_size": Parameter("int", 64, 512, step=64),
            "heads.optimizer": Parameter("str", choices=("lars", "adam")),
        }
    )
    assert compiled == {
        "heads.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
        "heads.temperature": FloatDistribution(0.5, 2.0, step=0.5),
        "heads.epochs": IntDistribution(10, 100),
        "feature_dim": IntDistribution(16, 256, log=True),
        "heads.batch_size": IntDistribution(64, 512, step=64),
        "heads.optimizer": CategoricalDistribution(("lars", "adam")),
    }


SPACE_2 = SPACE | {"heads.similarity_weight": CategoricalDistribution([0, 30, 50])}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"heads.weight_decai": 1e-3}, "not searched; did you mean heads.weight_decay"),
        ({"heads.epochs": 7}, "outside 2 to 6"),
        ({"heads.epochs": 2.5}, "outside 2 to 6"),
        ({"heads.weight_decay": 0.1}, "outside 1e-05 to 0.01"),
        ({"heads.weight_decay": "1e-3"}, "not a number"),
        ({"heads.epochs": True}, "not a number"),
        ({"heads.similarity_weight": 40}, "not one of 0, 30, 50"),
        ({"heads.similarity_weight": False}, "not one of 0, 30, 50"),
        (None, "heads.similarity_weight is missing"),
    ],
)
def test_a_point_that_does_not_fit_is_refused_before_any_is_queued(change: Any, told: str) -> None:
    good = FIRST | {"heads.similarity_weight": 30}
    bad = FIRST if change is None else good | change
    study = new_study()
    with pytest.raises(InputError, match=told):
        enqueue(study, [good, bad], SPACE_2)
    assert study.get_trials() == []


def test_a_point_gets_the_types_of_its_keys() -> None:
    point = check_point(
        {"heads.weight_decay": 0.01, "heads.epochs": 4.0, "heads.similarity_weight": 30.0}, SPACE_2
    )  # fmt: skip
    assert point == {"heads.weight_decay": 0.01, "heads.epochs": 4, "heads.similarity_weight": 30}
    assert [type(value) for value in point.values()] == [float, int, int]


def test_queued_points_come_first_and_in_order() -> None:
    study = new_study()
    points = [FIRST, FIRST | {"heads.epochs": 6}]
    enqueue(study, points, SPACE)
    assert next_number(study) == 0
    assert [study.ask(SPACE).params for _ in range(2)] == points
    assert next_number(study) == 2


def _search(seed: int, trials: int, study: optuna.Study) -> list[dict[str, Any]]:
    for _ in range(trials):
        reseed(study, seed, next_number(study))
        trial = study.ask(SPACE)
        study.tell(trial, trial.params["heads.weight_decay"])
    return [trial.params for trial in study.get_trials()]


def test_what_is_asked_depends_on_the_seed_the_number_and_the_past_alone() -> None:
    assert _search(1, 14, new_study()) == _search(1, 14, new_study())
    assert _search(1, 3, new_study()) != _search(2, 3, new_study())
    halves = new_study()
    _search(1, 12, halves)
    assert _search(1, 2, halves) == _search(1, 14, new_study())
    assert len({sampler_seed(1, number) for number in range(1000)}) == 1000
