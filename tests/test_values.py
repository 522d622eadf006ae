"""Values as text: two that differ never read alike, and what is printed is read back as the same value."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from raymc.config import parse_overrides
from raymc.errors import InputError
from raymc.reporting.search.commands import reproduce
from raymc.reporting.search.trials_table import trial_table, write_csv
from raymc.reporting.words import searched_range
from raymc.space.parameter import Parameter
from raymc.space.space import load_space
from raymc.study.reader import Study, read_study
from raymc.study.resume import check_words
from raymc.study.words import configured
from raymc.training.cards import settings_table
from raymc.validation import Value
from raymc.values import setting, written
from tests.fabricated_study import fabricate

ALIKE: tuple[Value, ...] = (
    *(None, "null", "none", "None", "~", "", "nan", "inf"),
    *(True, "true", "True", False, "false"),
    *(1, 1.5, "1", "1.5", 0, "0", "00", "01", "1e-5", 1e-5, "1_000", 1000),
    *(1000.4, 1000.3, 0.12341, 0.12342, 123456.7, 123456.8, '"', '"1"', "a b", "é"),
)
"""Values of which people mistake one for another: every two differ."""


def test_two_values_never_read_alike_and_are_read_back() -> None:
    for say in (written, setting):
        for one, other in combinations(ALIKE, 2):
            assert say(one) != say(other), (one, other)
    for value in ALIKE:
        back = parse_overrides([f"k={written(value)}"])["k"]
        assert back == value and type(back) is type(value)
    shown = {"null": None, "none": "none", "true": True, "a b": "a b", "0.2": 0.2, "600": 600.0, "0.3": 0.1 + 0.2}
    assert [setting(value) for value in shown.values()] == list(shown)
    draw = random.Random(0)
    for number in (draw.uniform(-1, 1) * 10 ** draw.randint(-9, 9) for _ in range(200)):
        assert parse_overrides([f"k={written(number)}"]) == {"k": number}
        assert float(setting(number)) == pytest.approx(number, rel=6e-4)  # drawn: its first four digits


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Trial 0 has the text `none`, trial 1 null, trial 2 not the key at all."""
    found = read_study(fabricate(tmp_path_factory.mktemp("values") / "s", 3, confirm=1))
    values: list[dict[str, Any]] = [{"scaling": "none"}, {"scaling": None}, {}]
    trials = [replace(one, params=one.params | more) for one, more in zip(found.trials, values, strict=True)]
    searched = found.searched | {"scaling": {"choices": ["none", None]}}
    return replace(found, trials=tuple(trials), searched=searched)


def test_null_and_the_text_none_are_apart_wherever_a_value_is_printed(study: Study, tmp_path: Path) -> None:
    from raymc.reporting.charts.search import slices
    from raymc.reporting.search.facts import gather

    assert [configured({"scaling": value}) for value in ("none", None)] == ["scaling=none", "scaling=null"]
    headers, rows = trial_table(study, gather(study))
    cells = [row.cells[headers.index("scaling")] for row in rows]
    assert [(cell.text, cell.sort) for cell in cells] == [("none", "none"), ("null", "null"), ("–", None)]
    write_csv(study, tmp_path / "trials.csv")
    assert [row["param.scaling"] for row in csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())] == [
        "none",
        "null",
        "",
    ]
    chart = slices(study, 0)[-1]
    assert ">none<" in chart and ">null<" in chart
    assert searched_range(study.searched["scaling"]) == "one of none, null"
    assert str(Parameter("str", choices=("none", None))) == "the choices none, null"
    lines = [reproduce(study, trial)["train"] for trial in study.trials]
    assert ["scaling=none" in lines[0], "scaling=null" in lines[1], "scaling" in lines[2]] == [True, True, False]
    for before, now in (("none", None), (None, "none")):
        began = {"study": "s", "method": "nmce", "overrides": {"scaling": before}}
        with pytest.raises(InputError, match=f"with scaling={setting(before)}, not scaling={setting(now)};"):
            check_words(began, {"scaling": now}, None, None)
    card = settings_table({"a": None, "b": "none", "c": "null"})
    assert "`null`" in card and '`"none"`' in card and '`"null"`' in card


def test_refusals_say_which_value(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for keys, told in {
        "scaling: {choices: [none, minmax]}}\nfirst: [{scaling: null}]": "null is outside the choices none, minmax",
        "scaling: {choices: [null, minmax]}}\nfirst: [{scaling: none}]": "none is outside the choices null, minmax",
        "scaling: {choices: [none, null, null]}}": "null stands twice",
        "heads.eps_sq: {low: 0.12345678, high: 0.12345671}}": "low 0.12345678 is not below high 0.12345671",
    }.items():
        file.write_text(f"method: nmce\ndataset: usps\nspace: {{{keys}\n")
        with pytest.raises(InputError, match=re.escape(told)):
            load_space(file)
