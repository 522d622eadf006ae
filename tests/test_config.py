"""Configuration: every key's bounds, the round trip through dotted names, the words of a command line."""

from __future__ import annotations

import dataclasses
import math
import random
import re
from typing import Any

import pytest
import yaml

from raymc.config import Config, known_keys, nearest, parse_overrides, resolve
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.validation import Key, Value, number_hint

STAGES = METHODS["nmce"].stage_settings
KNOWN = known_keys(STAGES)
EVERY = {f"{name} {key}": one for name, m in METHODS.items() for key, one in known_keys(m.stage_settings).items()}
KEYS = list(dict.fromkeys(EVERY.values()))
NUMBERS = [key for key in KEYS if key.kind in ("int", "float")]


def resolved(*layers: dict[str, Any]) -> Config:
    return resolve("nmce", "digits", "paper", STAGES, *layers)


def bound(key: Key, name: str) -> Any:
    """The key's bound `ge`, `gt` or `le`; None: it has none."""
    return next((getattr(one, name) for one in key.field.metadata if hasattr(one, name)), None)


def value_of(key: Key, rng: random.Random) -> Any:
    """Some value that the key may take."""
    if key.choices:
        return rng.choice(key.choices)
    if key.kind == "bool":
        return rng.random() < 0.5
    if key.kind == "str":
        # Texts with a rule of their own.
        known = {"seeds_from": None, "varies": "order,noise", "probe_features": "pool,subspace"}
        return known.get(key.name, f"name{rng.randrange(99)}")
    least = bound(key, "ge") if bound(key, "ge") is not None else bound(key, "gt")
    most = bound(key, "le")
    if most is not None:
        return rng.uniform(math.nextafter(least, most), most)
    return least + rng.randrange(1, 9) if key.kind == "int" else least + 10 ** rng.uniform(-6, 3)


def test_a_default_is_a_value_that_its_own_key_takes() -> None:
    for key in KEYS:
        assert key.check(key.name, key.default) == key.default, key
        assert key.field.description


def test_bounds_hold_to_the_last_digit() -> None:
    for key in NUMBERS:
        low, above, high, whole = bound(key, "ge"), bound(key, "gt"), bound(key, "le"), key.kind == "int"
        assert (low is None) != (above is None), f"{key.name} has one lower bound"
        if low is not None:
            assert key.check("k", low) == low
            with pytest.raises(InputError, match="k: .* is below"):
                key.check("k", low - 1 if whole else math.nextafter(low, -math.inf))
        else:
            assert key.check("k", math.nextafter(above, math.inf)) > above
            with pytest.raises(InputError, match="k: .* is not above"):
                key.check("k", above)
        if high is not None:
            assert key.check("k", high) == high
            with pytest.raises(InputError, match="k: .* is above"):
                key.check("k", high + 1 if whole else math.nextafter(high, math.inf))


@pytest.mark.parametrize("wrong", [True, "7", math.nan, math.inf, -math.inf, [7], {}])
def test_what_is_no_number_is_refused(wrong: object) -> None:
    words = "is not finite" if isinstance(wrong, float) else "is not a (whole )?number|is a text, not a number"
    for key in NUMBERS:
        with pytest.raises(InputError, match=rf"^some\.key: .*({words})"):
            key.check("some.key", wrong)


def test_whole_numbers() -> None:
    epochs, eps_sq = KNOWN["heads.epochs"], KNOWN["heads.eps_sq"]
    assert epochs.check("epochs", 3.0) == 3
    assert isinstance(epochs.check("epochs", 3.0), int)
    assert isinstance(eps_sq.check("eps_sq", 1), float)
    with pytest.raises(InputError, match="whole"):
        epochs.check("epochs", 3.5)


@pytest.mark.parametrize(
    ("key", "wrong", "words"),
    [
        ("compile", 1, "1 is not true or false"),
        ("compile", "true", "'true' is not true or false"),
        ("backbone", 3, "3 is not a text"),
        ("backbone", True, "true is not a text"),
        ("clustering", "heads", f"'heads' is not one of {', '.join(KNOWN['clustering'].choices)}"),
        ("scaling", "max", "'max' is not one of standardise, minmax, unit, none"),
        ("heads.cluster_weight_decay", -1, "-1 is below 0"),
    ],
)
def test_texts_choices_and_switches(key: str, wrong: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        KNOWN[key].check(key, wrong)
    assert str(caught.value) == f"{key}: {words}"


def test_null_is_for_keys_that_may_be_left_open() -> None:
    for key in KEYS:
        if key.optional:
            assert key.check("k", None) is None
        else:
            with pytest.raises(InputError, match="not null"):
                key.check("k", None)


@pytest.mark.parametrize("of", list(dict.fromkeys(key.of for key in KEYS)), ids=lambda of: of.__qualname__)
def test_settings_of_one_s_own_making_are_checked_too(of: type) -> None:
    with pytest.raises(ValueError, match="unexpected|Unexpected"):
        of(epoch=1)
    name = {KNOWN["seed"].of: "seed", KNOWN["augment.noise"].of: "noise"}.get(of, "epochs")
    with pytest.raises(ValueError, match="greater than or equal"):
        dataclasses.replace(of(), **{name: -1})


@pytest.mark.parametrize("seed", range(20))
def test_dotted_names_go_round(seed: int) -> None:
    rng = random.Random(seed)
    chosen = {key: value_of(field, rng) for key, field in KNOWN.items() if rng.random() < 0.7}
    config = resolved(chosen)
    flat = config.flat()
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


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"device": "cuda"}, "unknown key device of nmce; a GPU is used where there is one"),
        ({"preset": "fast"}, "unknown key preset of nmce; it is no hyperparameter, and stands beside fixed:"),
        ({"resources.workers": 2}, "unknown key resources.workers of nmce; it is no hyperparameter"),
        ({"channels_last": 1}, "channels_last: 1 is not one of auto, true, false"),
        ({"channels_last": "yes"}, "channels_last: 'yes' is not one of auto, true, false"),
    ],
)
def test_what_is_set_otherwise_is_told(values: dict[str, Value], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        resolved(values)


def test_seeds_from_is_a_stage() -> None:
    assert resolved({"seeds_from": "heads"}).seeds_from == "heads"
    with pytest.raises(InputError, match="'head' is not one of pretrain, heads, finetune"):
        resolved({"seeds_from": "head"})


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
