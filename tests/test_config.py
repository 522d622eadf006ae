"""Configuration: every key's bounds, the round trip through dotted names, the words of a command line."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import yaml

from raymc.config import (
    BARE,
    STAGE,
    Config,
    check_value,
    known_keys,
    nearest,
    number_hint,
    parse_overrides,
    resolve,
)
from raymc.errors import InputError

STAGE_KEYS = {
    "pretrain": ("epochs", "learning_rate", "weight_decay", "eps_sq", "views", "frozen_statistics"),
    "heads": ("epochs", "weight_decay", "eps_sq", "cluster_weight_decay", "temperature"),
}
KNOWN = known_keys(STAGE_KEYS)
FIELDS = [*BARE.values(), *STAGE.values()]
NUMBERS = [field for field in FIELDS if str(field.type).startswith(("int", "float"))]


def resolved(*layers: dict[str, Any]) -> Config:
    return resolve("nmce", "digits", "paper", STAGE_KEYS, *layers)


def value_of(field: dataclasses.Field[Any], rng: random.Random) -> Any:
    """Some value that the field may take."""
    kind = str(field.type)
    if field.metadata["choices"]:
        return rng.choice(field.metadata["choices"])
    if kind.startswith("bool"):
        return rng.random() < 0.5
    if kind.startswith("str"):
        # Texts with a rule of their own.
        known = {"seeds_from": None, "varies": "order,noise", "probe_features": "pool,subspace"}
        return known.get(field.name, f"name{rng.randrange(99)}")
    least = field.metadata["low"] if field.metadata["low"] is not None else field.metadata["above"]
    most = field.metadata["high"]
    if most is not None:
        return rng.uniform(math.nextafter(least, most), most)
    return least + rng.randrange(1, 9) if kind.startswith("int") else least + 10 ** rng.uniform(-6, 3)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_default_is_a_value_that_its_own_key_takes(field: dataclasses.Field[Any]) -> None:
    assert check_value(field.name, field.default, field) == field.default
    assert field.metadata["help"]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_bounds_hold_to_the_last_digit(field: dataclasses.Field[Any]) -> None:
    low, above = field.metadata["low"], field.metadata["above"]
    whole = str(field.type).startswith("int")
    assert (low is None) != (above is None), "every number has one lower bound"
    if low is not None:
        assert check_value("k", low, field) == low
        with pytest.raises(InputError, match="k: .* is below"):
            check_value("k", low - 1 if whole else math.nextafter(low, -math.inf), field)
    else:
        assert check_value("k", math.nextafter(above, math.inf), field) > above
        with pytest.raises(InputError, match="k: .* is not above"):
            check_value("k", above, field)
    high = field.metadata["high"]
    if high is not None:
        assert check_value("k", high, field) == high
        with pytest.raises(InputError, match="k: .* is above"):
            check_value("k", high + 1 if whole else math.nextafter(high, math.inf), field)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("wrong", [True, "7", math.nan, math.inf, -math.inf, [7], {}])
def test_what_is_no_number_is_refused(field: dataclasses.Field[Any], wrong: object) -> None:
    with pytest.raises(InputError, match=r"^some\.key: "):
        check_value("some.key", wrong, field)


def test_whole_numbers() -> None:
    assert check_value("epochs", 3.0, STAGE["epochs"]) == 3
    assert isinstance(check_value("epochs", 3.0, STAGE["epochs"]), int)
    assert isinstance(check_value("eps_sq", 1, STAGE["eps_sq"]), float)
    with pytest.raises(InputError, match="whole"):
        check_value("epochs", 3.5, STAGE["epochs"])


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("compile", 1), ("compile", "true"), ("backbone", 3), ("backbone", True), ("clustering", "heads")],
)
def test_texts_choices_and_switches(key: str, wrong: object) -> None:
    with pytest.raises(InputError, match=f"^{key}: "):
        check_value(key, wrong, BARE[key])


def test_null_is_for_keys_that_may_be_left_open() -> None:
    for field in FIELDS:
        if "None" in str(field.type):
            assert check_value("k", None, field) is None
        else:
            with pytest.raises(InputError, match="not null"):
                check_value("k", None, field)


@pytest.mark.parametrize("seed", range(20))
def test_dotted_names_go_round(seed: int) -> None:
    rng = random.Random(seed)
    chosen = {key: value_of(field, rng) for key, field in KNOWN.items() if rng.random() < 0.7}
    config = resolved(chosen)
    flat = config.flat(STAGE_KEYS)
    assert set(flat) == set(KNOWN)
    assert {key: flat[key] for key in chosen} == chosen
    assert resolved(flat) == config
    untouched = set(KNOWN) - set(chosen)
    assert {key: flat[key] for key in untouched} == {key: KNOWN[key].default for key in untouched}


def test_later_layers_win_and_nothing_else_changes() -> None:
    first, second = {"heads.eps_sq": 0.1, "heads.epochs": 3}, {"heads.eps_sq": 0.3}
    assert resolved(first, second) == resolved({**first, **second})
    assert resolved(second, first) == resolved({**second, **first})
    assert resolved({"heads.eps_sq": 0.1}).stages["pretrain"] == resolved().stages["pretrain"]


def test_a_configuration_does_not_change() -> None:
    config = resolved()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.stages["heads"].epochs = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.stages["heads"] = config.stages["pretrain"]  # type: ignore[index]


@pytest.mark.parametrize("key", KNOWN)
def test_a_slip_of_the_finger_names_the_key(key: str) -> None:
    for at in (1, len(key) // 2, len(key) - 1):
        slip = key[:at] + key[at + 1 :]
        if slip in KNOWN:
            continue
        with pytest.raises(InputError) as caught:
            resolved({slip: 1})
        assert str(caught.value).startswith(f"unknown key {slip} of nmce; did you mean ")
        assert str(caught.value).removesuffix("?").split()[-1] in KNOWN
    with pytest.raises(InputError, match=f"did you mean {key}"):
        resolved({f"{key}_": 1})


def test_a_key_of_another_stage_is_unknown() -> None:
    with pytest.raises(InputError, match=r"unknown key pretrain\.temperature"):
        resolved({"pretrain.temperature": 1.0})
    assert nearest("zzzzzz", KNOWN) == ""


def test_seeds_from_is_a_stage() -> None:
    assert resolved({"seeds_from": "heads"}).seeds_from == "heads"
    with pytest.raises(InputError, match="'finetune' is not one of pretrain, heads"):
        resolved({"seeds_from": "finetune"})


@pytest.mark.parametrize("seed", range(50))
def test_numbers_of_a_command_line_keep_every_digit(seed: int) -> None:
    rng = random.Random(seed)
    number = rng.choice([-1, 1]) * 10 ** rng.uniform(-12, 12)
    assert parse_overrides([f"a.b={number!r}"]) == {"a.b": number}
    assert parse_overrides([f"a={number:e}"])["a"] == float(f"{number:e}")
    whole = parse_overrides([f"a={int(number)}"])["a"]
    assert isinstance(whole, int) and whole == int(number)


def test_words_of_a_command_line() -> None:
    words = ["heads.weight_decay=1e-3", "compile=true", "probes=false", "n_clusters=null", "backbone=a=b", "x="]
    assert parse_overrides(words) == {
        "heads.weight_decay": 1e-3,
        "compile": True,
        "probes": False,
        "n_clusters": None,
        "backbone": "a=b",
        "x": "",
    }
    assert parse_overrides(["a=1", "a=2"]) == {"a": 2}
    for text in ("--5", "²", "1e", "0x10", "1,5", "True"):
        assert parse_overrides([f"a={text}"]) == {"a": text}


@pytest.mark.parametrize("word", ["heads.eps_sq", "=3", "="])
def test_a_word_that_is_no_assignment(word: str) -> None:
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_overrides([word])


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "2e5", "-3e-2", "1.5e3", "1.e3", " 1e-4 ", "8", "0.5", "1_000"])
def test_the_hint_is_a_number_to_yaml(text: str) -> None:
    hint = number_hint(text).removeprefix(" (write ").removesuffix(")")
    assert yaml.safe_load(hint) == float(text)


def test_the_hint_that_the_documentation_promises() -> None:
    assert isinstance(yaml.safe_load("1e-4"), str), "why the hint is needed"
    with pytest.raises(InputError, match=r"eps_sq: '1e-4' is a text, not a number \(write 1\.0e-4\)"):
        resolved({"heads.eps_sq": "1e-4"})
    assert number_hint("many") == number_hint("nan") == number_hint("inf") == ""
