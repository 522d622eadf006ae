"""Search spaces: those that come with raymc, and one clear line for every mistake in a file."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raymc.config import parse_overrides
from raymc.errors import InputError
from raymc.former_keys import say_once
from raymc.methods import METHODS
from raymc.methods.base import Facts
from raymc.space import docs as space_docs
from raymc.space.seeds import remarks, seeds_from
from raymc.space.space import Space, load_space, space_names
from raymc.space.yaml_text import parse_yaml

SPACES = Path(__file__).parent.parent / "search_spaces"
SHIPPED = {
    "nmce_double_spiral",
    "nmce_manifolds",
    "nmce_digits",
    "nmce_coil20",
    "nmce_coil100",
    "nmce_cifar10",
    "nmce_cifar20",
    "nmce_stl10",
    "nmce_imagenet10",
    "nmce_imagenet_dogs",
    "nmce_mnist",
    "nmce_fashion_mnist",
}
EPS = "space: {heads.eps_sq: {low: 0.02, high: 1.0, log: true}}"


def load(tmp_path: Path, text: str, head: str = "method: nmce\ndataset: digits\n") -> Space:
    path = tmp_path / "mine.yaml"
    path.write_text(head + text, encoding="utf-8")
    return load_space(path)


def complaint(tmp_path: Path, text: str, head: str = "method: nmce\ndataset: digits\n") -> str:
    """What is said of a file, without its path."""
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, head)
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"{tmp_path / 'mine.yaml'}: ")
    return told.removeprefix(f"{tmp_path / 'mine.yaml'}: ")


def test_every_experiment_of_the_paper_has_its_space() -> None:
    assert set(space_names()) >= SHIPPED


@pytest.mark.parametrize("name", space_names())
def test_a_shipped_space(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    space = load_space(name)
    base = f"{space.method}_{space.dataset}"
    assert space.name == name and (name == base or name.startswith(f"{base}_"))
    assert space.question.endswith("?")
    assert space.params and space.first and space.budget.confirm
    assert not remarks(space)
    for point in space.corners().values():
        flat = space.config(params=point).flat(space.stage_settings)
        assert {key: flat[key] for key in point} == point
    default = space.config().flat(space.stage_settings)
    set_values = {key: default[key] for key in space.params if default[key] is not None}
    assert space.first[0] | set_values == space.first[0], "the preset's values come first"
    content = yaml.safe_load((SPACES / f"{name}.yaml").read_text())
    jsonschema.validate(content, json.loads(space_docs.SCHEMA.read_text()))
    assert content == space.content


def test_the_schema_and_the_documented_keys_are_those_of_the_code() -> None:
    advice = "out of date: run python -m raymc.space.docs"
    assert space_docs.SCHEMA.read_text(encoding="utf-8") == space_docs.schema_text(), advice
    docs = space_docs.DOCS.read_text(encoding="utf-8")
    assert docs == space_docs.with_tables(docs), advice
    schema = json.loads(space_docs.schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for wrong in ({"spacee": {}}, {"space": {"heads.eps_s": {"low": 1, "high": 2}}}, {"dataset": "digit"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"method": "nmce", "dataset": "digits"} | wrong, schema)


def test_two_lines_are_enough(tmp_path: Path) -> None:
    space = load(tmp_path, "")
    assert (space.name, space.preset, space.params, space.first) == ("mine", "paper", {}, ())
    assert space.objective.metric == "acc" and space.objective.uses_labels is True
    assert space.config() == space.config()
    assert list(space.corners()) == ["preset"]


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, EPS)
    monkeypatch.chdir(tmp_path)
    assert load_space("mine.yaml").params == load_space(tmp_path / "mine.yaml").params
    with pytest.raises(InputError, match=r"unknown search space nmce_digit; did you mean nmce_digits\?"):
        load_space("nmce_digit")
    with pytest.raises(InputError, match=r"^absent\.yaml: no such file$"):
        load_space("absent.yaml")
    with pytest.raises(InputError, match="no such file"):
        load_space(tmp_path / "absent" / "mine.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="binary.yaml"):
        load_space("binary.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("# only a comment", "the file is empty"),
        ("- nmce", "the file is not a mapping of keys to values"),
        ("nmce", "the file is not a mapping of keys to values"),
        ("method: nmce\nmethod: mlc", "line 2: method stands twice"),
        ("a: {b: 1, b: 2}", "line 1: b stands twice"),
        ("? [a]\n: 1", "line 1: a key is not a single word"),
        ("method: [", "line 1: expected the node content"),
        ("method: a: b", "line 1: mapping values are not allowed here"),
        ("\tmethod: nmce", "line 1: "),
        ("question: 2026-13-45", "not YAML: month must be in 1..12"),
        ("method: !!python/name:os.system", "line 1: could not determine a constructor"),
        ("method: nmce", "dataset: is missing"),
        ("dataset: digits", "method: is missing"),
        ("method: nmc\ndataset: digits", "unknown method nmc; did you mean nmce?"),
        ("method: nmce\ndataset: digts", "unknown dataset digts; did you mean digits?"),
        ("method: nmce\ndataset: {pth: rows.npz}", "dataset: unknown key pth; did you mean path?"),
        ("method: nmce\ndataset: {label: y}", "dataset.path: is missing"),
        ("method: nmce\ndataset: {path: 3, sid: 9}", "dataset: unknown key sid; did you mean side?"),
        ("method: gcml\ndataset: {path: rows, side: 4}", "dataset.side: 4 is below 8"),
        ("method: gcml\ndataset: {path: rows, side: '64'}", "dataset.side: '64' is a text, not a number (write 64)"),
        ("method: gcml\ndataset: {path: rows.csv, label: 3}", "dataset.label: 3 is not a text"),
        ("method: gcml\ndataset: [rows.csv]", 'dataset: ["rows.csv"] is not a text'),
        ("method: 3\ndataset: true", "method: 3 is not a text; dataset: true is not a text"),
    ],
)
def test_a_file_that_is_no_space(text: str, told: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, text, head="").startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("spce: {}", "unknown key spce; did you mean space?"),
        ("preset: papr", "unknown preset papr; did you mean paper?"),
        ("question: 5", "question: 5 is not a text"),
        ("3: 4", "unknown key 3"),
        ("budget: {trails: 3}", "budget: unknown key trails; did you mean trials?"),
        ("budget: {confirm: {topp: 3}}", "budget.confirm: unknown key topp; did you mean top?"),
        ("budget: {trials: '8'}", "budget.trials: '8' is a text, not a number (write 8)"),
        ("budget: {trials: 0, seeds: 1.5}", "budget.trials: 0 is below 1; budget.seeds: 1.5 is not a whole number"),
        ("budget: {trials: true}", "budget.trials: true is not a whole number"),
        ("budget: {fidelity: epoch}", "budget.fidelity: 'epoch' is not one of none, epochs, seeds"),
        ("budget: null", "budget: null is not a mapping"),
        ("resources: {gpus_per_worker: -1}", "resources.gpus_per_worker: -1 is below 0"),
        ("resources: {gpus_per_worker: 1.5}", "resources: gpus_per_worker 1.5: a part of a GPU is below 1, and more"),
        ("resources: {workers: 2, min_workers: 0}", "resources.min_workers: 0 is below 1"),
        ("resources: {workers: 2, min_workers: 3}", "resources: min_workers 3 is above workers 2"),
        ("resources: {cpus_per_worker: 0}", "resources.cpus_per_worker: 0 is not above 0"),
        ("resources: {cpus_per_worker: .nan}", "resources.cpus_per_worker: NaN is not finite"),
        ("objective: acc", "objective: 'acc' is not a mapping"),
        ("objective: {metric: accuracy}", "objective: unknown metric accuracy; did you mean acc?"),
        ("objective: {metric: 3}", "objective.metric: 3 is not a text"),
        ("objective: {mode: up}", "objective.mode: 'up' is not one of max, min"),
        ("objective: {uses_labels: 1}", "objective.uses_labels: 1 is not true or false"),
        ("objective: {metric: acc, uses_labels: false}", "objective: acc needs labels: write uses_labels: true"),
        (
            "objective: {metric: rate_reduction, uses_labels: true}",
            "objective: rate_reduction looks at no labels: write uses_labels: false",
        ),
    ],
)
def test_sections(text: str, told: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, text).startswith(told)


@pytest.mark.parametrize(
    ("key", "spec", "told"),
    [
        ("heads.eps", "{low: 1, high: 2}", "unknown key in space: heads.eps; did you mean heads.eps_sq?"),
        ("heads.eps_sq", "{low: 1e-4, high: 1.0}", ".low: '1e-4' is a text, not a number (write 1.0e-4)"),
        ("heads.eps_sq", "{low: 0.1, high: 2e0}", ".high: '2e0' is a text, not a number (write 2.0e+0)"),
        ("heads.eps_sq", "{low: 0.1}", ".high: is missing"),
        ("heads.eps_sq", "{low: 0.1, hihg: 1}", ": unknown key hihg; did you mean high?"),
        ("heads.eps_sq", "{low: 1, high: 1}", ": low 1 is not below high 1"),
        ("heads.eps_sq", "{low: 2, high: 1}", ": low 2 is not below high 1"),
        ("heads.eps_sq", "{low: 0.1, high: .inf}", ".high: Infinity is not finite"),
        ("heads.weight_decay", "{low: 0, high: 1, log: true}", ": log needs low above 0, not 0"),
        ("heads.eps_sq", "{low: 0, high: 1}", ".low: 0.0 is not above 0"),
        ("heads.eps_sq", "{low: 0.1, high: 1, log: 1}", ".log: 1 is not true or false"),
        ("heads.eps_sq", "{low: 0.1, high: 1, log: true, step: 0.1}", ": step and log exclude each other"),
        ("heads.eps_sq", "{low: 0.1, high: 1, step: 0.2}", ": high 1 is not low 0.1 plus a multiple of step 0.2"),
        ("heads.epochs", "{low: 1, high: 9.5}", ".high: 9.5 is not a whole number"),
        ("heads.epochs", "{low: 1, high: 2, step: 0.5}", ".step: 0.5 is not a whole number"),
        ("heads.epochs", "{low: -3, high: 20000}", ".low: -3 is below 0"),
        ("heads.eps_sq", "[0.2]", ".choices: [0.2] has not 2 values or more"),
        ("heads.eps_sq", "[0.2, [0.1]]", ".choices.1: [0.1] is not a single number or text"),
        ("heads.eps_sq", "[99, 100]", ": the preset's "),
        ("heads.eps_sq", "0.1", ": 0.1 is not a mapping"),
        ("heads.eps_sq", "{choices: 0.1}", ".choices: 0.1 is not a list"),
        ("heads.eps_sq", "{choices: [0.2]}", ".choices: [0.2] has not 2 values or more"),
        ("heads.eps_sq", "{choices: [[0.1], 0.2]}", ".choices.0: [0.1] is not a single number or text"),
        ("heads.eps_sq", "{choices: [{a: 0.1}, 0.2]}", ".choices.0: {'a': 0.1} is not a single number or text"),
        ("heads.eps_sq", "{choices: [1, 1.0]}", ".choices: 1.0 stands twice"),
        ("heads.eps_sq", "{choices: [0.2, 3e-1]}", ".choices: '3e-1' is a text, not a number (write 3.0e-1)"),
        ("heads.eps_sq", "{choices: [0.2, null]}", ".choices: a value is needed, not null"),
        ("heads.eps_sq", "{choices: [0.2, -1]}", ".choices: -1 is not above 0"),
        ("heads.eps_sq", "{choices: [0.2, 0.3], log: true}", ": unknown key log"),
        ("clustering", "{low: 1, high: 2}", ": is a text; give choices, not a range"),
        ("compile", "{low: 0, high: 1}", ": is true or false; give choices, not a range"),
        ("clustering", "{choices: [head, guess]}", ".choices: 'guess' is not one of head, membership"),
        ("seed", "{low: 0, high: 9}", ": is not searched"),
        ("workers", "{low: 1, high: 9}", ": is not searched"),
        ("heads.eps_sq", "{low: 99, high: 100}", ": the preset's "),
        ("heads.eps_sq", "{choices: [99, 100]}", ": the preset's "),
    ],
)
def test_searched_keys(key: str, spec: str, told: str, tmp_path: Path) -> None:
    said = complaint(tmp_path, f"space: {{{key}: {spec}}}")
    assert said.removeprefix(f"space.{key}").startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("first: {heads.eps_sq: 0.2}", 'first: {"heads.eps_sq": 0.2} is not a list'),
        ("first: [0.2]", "first, entry 1: 0.2 is not a mapping"),
        ("first: [{heads.eps_sq: 0.2}, {}]", "first, entry 2: heads.eps_sq is missing"),
        ("first: [{heads.eps_sq: 0.2, heads.epochs: 3}]", "first, entry 1: heads.epochs is not searched"),
        ("first: [{heads.eps: 0.2}]", "unknown key in first: heads.eps; did you mean heads.eps_sq?"),
        ("first: [{heads.eps_sq: 1.5}]", "first, entry 1: heads.eps_sq 1.5 is outside the range 0.02 to 1"),
        (
            "first: [{heads.eps_sq: 2e-1}]",
            "first, entry 1: heads.eps_sq: '2e-1' is a text, not a number (write 2.0e-1)",
        ),
        ("first: [{heads.eps_sq: [0.2]}]", "first, entry 1.heads.eps_sq: [0.2] is not a single number or text"),
        ("fixed: {heads.eps_sq: 0.2}", "heads.eps_sq: is both fixed and searched; leave one of them out"),
        ("fixed: {heads.eps: 0.2}", "unknown key in fixed: heads.eps; did you mean heads.eps_sq?"),
        (
            "fixed: {heads.weight_decay: 1e-3}",
            "fixed.heads.weight_decay: '1e-3' is a text, not a number (write 1.0e-3)",
        ),
        ("fixed: {heads.weight_decay: -1}", "fixed.heads.weight_decay: -1 is below 0"),
        ("fixed: {heads.epochs: [1, 2]}", "fixed.heads.epochs: [1, 2] is not a single number or text"),
        ("fixed: {workers: 2}", "fixed.workers: belongs under resources, as workers"),
        ("fixed: {seeds_from: head}", "seeds_from: 'head' is not one of pretrain, heads, finetune"),
        ("fixed: {n_clusters: 1}", "fixed.n_clusters: 1 is below 2"),
    ],
)
def test_first_and_fixed(text: str, told: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, f"{EPS}\n{text}").startswith(told)


def test_whole_numbers_make_whole_ranges(tmp_path: Path) -> None:
    epochs = load(tmp_path, "space: {heads.epochs: {low: 0, high: 20000, step: 1}}").params["heads.epochs"]
    assert (epochs.kind, epochs.low, epochs.high, epochs.step) == ("int", 0, 20000, 1)
    assert all(isinstance(bound, int) for bound in (epochs.low, epochs.high, epochs.step))
    assert epochs.contains(7) and not epochs.contains(-1)
    eps = load(tmp_path, "space: {heads.eps_sq: {low: 0.1, high: 1, step: 0.1}}").params["heads.eps_sq"]
    assert eps.as_dict() == {"low": 0.1, "high": 1.0, "log": False, "step": 0.1}
    assert eps.contains(0.1 + 0.1 + 0.1) and not eps.contains(0.25)


def test_choices_take_the_type_of_their_key(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        "space:\n  heads.similarity_weight: {choices: [0, 30, 50]}\n  clustering: {choices: [head, ensc]}\n"
        "  heads.cluster_weight_decay: {choices: [null, 0.1]}",
    )
    assert space.params["heads.similarity_weight"].choices == (0.0, 30.0, 50.0)
    assert isinstance(space.params["heads.similarity_weight"].choices[1], float)
    assert space.params["heads.cluster_weight_decay"].contains(None)
    assert not space.params["heads.cluster_weight_decay"].contains(0.0)
    assert space.params["clustering"].as_dict() == {"choices": ["head", "ensc"]}
    assert space.corners()["high"]["heads.similarity_weight"] == 50.0
    short = load(tmp_path, "space:\n  heads.similarity_weight: [0, 30, 50]")
    assert short.params["heads.similarity_weight"] == space.params["heads.similarity_weight"]


def test_what_is_tried_first(tmp_path: Path) -> None:
    default = load(tmp_path, EPS).config().stages["heads"].eps_sq
    assert load(tmp_path, EPS).first == ({"heads.eps_sq": default},), "left out: the preset's own"
    assert load(tmp_path, f"{EPS}\nfirst: []").first == ()
    twice = load(tmp_path, f"{EPS}\nfirst: [{{heads.eps_sq: 1}}, {{heads.eps_sq: 1.0}}]")
    assert twice.first == ({"heads.eps_sq": 1.0},), "the same point again says nothing new"


def test_a_null_of_the_default_is_the_value_that_it_stands_for(tmp_path: Path) -> None:
    """So that a trial which is the default is known to be."""
    digits = load_space("nmce_digits")
    assert digits.config().flat()["heads.cluster_weight_decay"] is None
    assert digits.default_point() == digits.first[0]
    decay = "space: {heads.cluster_weight_decay: {low: 1.0e-5, high: 0.1}}\nfixed: {heads.weight_decay: 0.003}"
    assert load(tmp_path, decay).first == ({"heads.cluster_weight_decay": 0.003},)
    rate = "space: {finetune.whole_learning_rate: {low: 1.0e-5, high: 0.1}}\nfixed: {finetune.learning_rate: 0.002}"
    gcml = load(tmp_path, rate, "method: gcml\ndataset: usps\npreset: published\n")
    assert gcml.default_point() == {"finetune.whole_learning_rate": 0.002}


def test_layers_of_a_configuration(tmp_path: Path) -> None:
    space = load(tmp_path, f"{EPS}\nfixed: {{heads.epochs: 3, heads.temperature: 2}}\nresources: {{workers: 2}}")
    config = space.config({"heads.epochs": 5, "workers": 3}, {"heads.eps_sq": 0.5})
    heads = config.stages["heads"]
    assert (heads.epochs, heads.temperature, heads.eps_sq, config.workers) == (5, 2.0, 0.5, 3)
    assert space.config().workers == 2
    with pytest.raises(InputError, match=r"unknown key heads\.eps of nmce; did you mean heads\.eps_sq"):
        space.config({"heads.eps": 1})


def test_a_key_given_on_the_command_line_is_no_longer_searched(tmp_path: Path) -> None:
    text = "space: {heads.eps_sq: {low: 0.02, high: 1.0}, heads.temperature: {low: 0.1, high: 5.0}}\n"
    first = "first: [{heads.eps_sq: 0.1, heads.temperature: 1}, {heads.eps_sq: 0.5, heads.temperature: 1}]"
    space = load(tmp_path, text + first).pinned({"heads.eps_sq": 7.0, "heads.epochs": 3})
    assert list(space.params) == ["heads.temperature"]
    assert space.first == ({"heads.temperature": 1.0},)
    assert space.fixed["heads.eps_sq"] == 7.0
    assert space.config().stages["heads"].epochs == 3
    assert space.pinned({"heads.temperature": 1.0}).first == ()
    with pytest.raises(InputError, match="did you mean"):
        space.pinned({"heads.epoch": 3})


def test_a_retired_key_is_accepted_and_said_once_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a space, on the command line, and as a study made before holds the command line's."""
    say_once.cache_clear()
    plain, space = load(tmp_path, ""), load(tmp_path, "fixed: {packed_seeds: 3, feature_dim: 8}")
    before = space.pinned({"packed_seeds": 2, "feature_dim": plain.config().feature_dim})
    assert space.fixed == {"feature_dim": 8} and before.config() == plain.config()
    assert parse_overrides(["packed_seeds=4", "seed=5"]) == {"seed": 5}
    said = "raymc: packed_seeds is accepted and has no effect any more: every seed trains by itself"
    assert capsys.readouterr().err.splitlines() == [said]
    assert "packed_seeds" in complaint(tmp_path, "space: {packed_seeds: {choices: [1, 2]}}")


@pytest.mark.parametrize(
    ("keys", "fixed", "stage"),
    [
        ([], "", "pretrain"),
        (["heads.eps_sq"], "", "heads"),
        (["finetune.eps_sq"], "", "finetune"),
        (["finetune.eps_sq", "heads.eps_sq"], "", "heads"),
        (["heads.eps_sq", "pretrain.eps_sq"], "", "pretrain"),
        (["n_clusters"], "", "heads"),
        (["finetune.eps_sq", "n_clusters"], "", "heads"),
        (["feature_dim"], "", "pretrain"),
        (["heads.eps_sq"], "pretrain", "pretrain"),
        (["heads.eps_sq"], "finetune", "finetune"),
    ],
)
def test_where_seeds_begin_to_differ(keys: list[str], fixed: str, stage: str, tmp_path: Path) -> None:
    searched = "".join(f"\n  {key}: {{low: 0.001, high: 1000}}" for key in keys if "." in key)
    searched += "".join(f"\n  {key}: {{low: 2, high: 10000}}" for key in keys if "." not in key)
    text = (f"space:{searched}\n" if keys else "") + (f"fixed: {{seeds_from: {fixed}}}" if fixed else "")
    space = load(tmp_path, text)
    assert seeds_from(space, space.config()) == stage
    late = fixed == "finetune"
    assert len(remarks(space)) == late and all("one seed only" in remark for remark in remarks(space))


def clusters_told(facts: Facts) -> dict[str, Any]:
    return {"backbone": "mlp", "feature_dim": 2 + (facts.clusters or 0)}


def test_labels_do_not_size_what_looks_for_its_clusters(tmp_path: Path) -> None:
    methods = {"nmce": replace(METHODS["nmce"], presets={"own": {"own": clusters_told}})}
    for keys, told in (
        ("", 9),  # as many clusters as the labels have: that is asked for
        ("fixed: {n_clusters: 5}", 5),
        ("fixed: {n_clusters: auto}", 0),
        ("space: {n_clusters: {low: 2, high: 9}}", 0),
    ):
        path = tmp_path / "space.yaml"
        path.write_text(f"method: nmce\ndataset: {{path: rows.npz}}\n{keys}")
        space = load_space(path, methods).sized(Facts(100, (7,), 9))
        assert space.config().feature_dim == 2 + told, keys
        assert space.pinned({"n_clusters": 4}).config().feature_dim == 6


def sizes(facts: Facts) -> dict[str, Any]:
    return {"backbone": "mlp", "pretrain.epochs": facts.n // 10, "feature_dim": facts.shape[-1]}


def test_a_preset_that_is_made_for_the_data(tmp_path: Path) -> None:
    methods = {"nmce": replace(METHODS["nmce"], presets=dict(METHODS["nmce"].presets) | {"own": {"own": sizes}})}

    def loaded(text: str) -> Space:
        path = tmp_path / "space.yaml"
        path.write_text(f"method: nmce\n{text}")
        return load_space(path, methods)

    def values(space: Space) -> tuple[int, int]:
        config = space.config()
        return config.stages["pretrain"].epochs, config.feature_dim

    searched = "space: {pretrain.epochs: {low: 10, high: 40}}"
    own = loaded("dataset: {path: rows.npz}\nfixed: {heads.epochs: 3}").sized(Facts(200, (7,)))
    assert values(own) == (20, 7) and own.preset == "own" and own.config().stages["heads"].epochs == 3
    assert values(own.pinned({"feature_dim": 5}).sized(Facts(300, (8,)))) == (30, 5)
    known = loaded("dataset: usps\nfixed: {n_samples: 500}")
    assert values(known) == (50, 256) == values(known.sized(Facts(9, (9,))))  # its size is known without reading it
    assert loaded("dataset: digits").preset == "paper" and loaded("dataset: digits\npreset: own").preset == "own"
    assert values(loaded("dataset: usps").pinned({"n_samples": 300})) == (30, 256)
    unread = loaded(f"dataset: {{path: rows.npz}}\npreset: own\n{searched}")  # its range may fit the data yet
    assert unread.sized(Facts(300, (7,))).first == ({"pretrain.epochs": 30},)
    space = loaded(f"dataset: {{path: rows.npz}}\npreset: own\nfixed: {{}}\n{searched.replace('40', '4000')}")
    assert space.sized(Facts(150, (7,))).first == ({"pretrain.epochs": 15},)
    with pytest.raises(InputError, match="space.pretrain.epochs: the preset's 9 is outside"):
        space.sized(Facts(90, (7,)))


def test_a_space_travels_between_processes() -> None:
    space = load_space("nmce_digits")
    assert pickle.loads(pickle.dumps(space)) == space
    json.dumps({key: parameter.as_dict() for key, parameter in space.params.items()})
    json.dumps(space.content)


def test_yaml_keeps_what_is_not_wrong() -> None:
    text = "a: &x {low: 1.0e-3, high: 2}\nb: *x\nc: [1, two, null, true]\nd: .inf\ne: {<<: *x, high: 3}"
    content: Any = parse_yaml(text)
    assert content["a"] == content["b"] == {"low": 1.0e-3, "high": 2}
    assert content["e"] == {"low": 1.0e-3, "high": 3}
    assert content["c"] == [1, "two", None, True] and math.isinf(content["d"])
    assert all(name == method.name for name, method in METHODS.items())


def test_seeds_vary_a_stage_that_trains() -> None:
    """Keys that are fixed, or a last stage of no epochs, must not leave seeds that change nothing."""
    space = load_space("nmce_cifar10")
    fixed = {"heads.eps_sq": 0.2, "heads.weight_decay": 5e-3, "finetune.epochs": 0}
    pinned = space.pinned(fixed)
    assert seeds_from(pinned, pinned.config()) == "heads"
    mlc = load_space("mlc_digits").pinned({"heads.epochs": 0, "clustering": "kmeans"})
    assert seeds_from(mlc, mlc.config()) == "pretrain"
    own = mlc.pinned({"seeds_from": "heads"})
    assert seeds_from(own, own.config()) == "heads"


def test_gcml_s_preset_has_a_new_name_and_the_old_one_means_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    found = [load(tmp_path, "", f"method: gcml\ndataset: digits\n{line}") for line in ("", "preset: tuned")]
    assert not capsys.readouterr().err
    found += [load(tmp_path, "", "method: gcml\ndataset: digits\npreset: paper") for _ in range(2)]
    assert {space.preset for space in found} == {"tuned"} and len({str(space.config()) for space in found}) == 1
    told = capsys.readouterr().err
    assert told == "gcml: the preset paper is called tuned now; the old name goes with the next version\n"
    assert load(tmp_path, "", "method: nmce\ndataset: digits\npreset: paper").preset == "paper"
    assert not capsys.readouterr().err
