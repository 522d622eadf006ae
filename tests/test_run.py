"""Whole trainings on the digits, shortened: reuse, interruption, divergence, workers."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from raymc.commands.training import _minutes
from raymc.config import Config, known_keys, resolve
from raymc.datasets import load
from raymc.errors import DivergedError, InputError
from raymc.methods import METHODS
from raymc.storage.stage_store import Store
from raymc.training import loop, model_files, smoke
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import digest_of, seeds_of

NMCE = METHODS["nmce"]
STAGES = tuple(NMCE.stage_settings)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 digits are enough to see bookkeeping go wrong."""
    few = limit(load("digits"), 300)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: few)


def make_config(overrides: Mapping[str, Any] | None = None) -> Config:
    """NMCE on the digits, small and with a few epochs a stage."""
    small = {"pre_feature_dim": 32, "feature_dim": 16}
    small |= {f"{stage}.epochs": epochs for stage, epochs in zip(STAGES, (3, 3, 2), strict=True)}
    small |= {f"{stage}.batch_size": 64 for stage in STAGES}
    layers = (NMCE.presets["digits"]["paper"], small, overrides or {})
    return resolve("nmce", "digits", "paper", NMCE.stage_settings, *layers)


def train(config: Config, storage: Path, out: Path, **more: Any) -> dict[str, Any]:
    seeds = seeds_of(STAGES, config.seed, 0, config.seeds_from)
    return run(config, storage=str(storage), out=out, stage_seeds=seeds, **more)


def weights(storage: Path, key: str) -> dict[str, torch.Tensor]:
    entry = Store(str(storage)).load(key)
    assert entry is not None
    return {f"{m}.{k}": v for m, module in entry.state["weights"].items() for k, v in module.items()}


def test_a_second_run_reuses_every_stage_and_gives_the_same_result(tmp_path: Path) -> None:
    config = make_config()
    first = train(config, tmp_path / "s", tmp_path / "a")
    second = train(config, tmp_path / "s", tmp_path / "b")
    assert [stage["cached"] for stage in first["stages"]] == [False] * 3
    assert [stage["cached"] for stage in second["stages"]] == [True] * 3
    assert first["metrics"] == second["metrics"]
    curves = [(tmp_path / name / "curve.jsonl").read_text().splitlines() for name in ("a", "b")]
    without = [[{k: v for k, v in json.loads(line).items() if k != "cached"} for line in c] for c in curves]
    assert without[0] == without[1] and len(without[0]) == 8


def test_what_a_training_leaves(tmp_path: Path) -> None:
    config = make_config({"heads.weight_decay": 2e-3})
    result = train(config, tmp_path / "s", tmp_path / "a", keep_model=True)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == result
    effective = json.loads((tmp_path / "a" / "config.json").read_text())
    assert effective["heads.weight_decay"] == 2e-3 and effective["method"] == "nmce"
    arrays = np.load(tmp_path / "a" / "labels.npz")
    assert arrays["labels"].shape == (300,) and arrays["test_labels"].shape == (300,)
    assert {"acc", "nmi", "ari", "test_acc", "rate_reduction", "clusters_used"} <= set(result["metrics"])
    gallery = np.load(tmp_path / "a" / "gallery.npz")
    assert gallery["images"].dtype == np.uint8 and gallery["images"].shape[3:] == (8, 8, 1)
    assert gallery["shares"].sum() == pytest.approx(1.0)
    similar = np.load(tmp_path / "a" / "similarity.npz")
    assert similar["map"].shape == (300, 300) and similar["bounds"][-1] == 300
    assert set(similar["clusters"]) == set(arrays["labels"]) and result["clusters_by"] == "argmax of the cluster head"
    model = model_files.load(tmp_path / "a" / "model")
    assert model.config == dataclasses.replace(config, precision="float32") and set(model.modules) == {
        "backbone",
        "pre_feature",
        "subspace",
        "cluster",
    }


def test_the_curve_has_coding_rates_and_numerical_ranks(tmp_path: Path) -> None:
    train(make_config({"evaluate_every": 2}), tmp_path / "s", tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a" / "curve.jsonl").read_text().splitlines()]
    heads, pretrain = ([row for row in rows if row["stage"] == stage] for stage in ("heads", "pretrain"))
    assert all({"rate", "cluster_rate"} <= set(row) for row in heads) and all("rate" in row for row in pretrain)
    ranks = {"rank_all", "rank_clusters", "rank_classes"}
    assert [ranks & set(row) for row in heads] == [set(), ranks, ranks], "at every second epoch and the last"
    assert all(1 <= row["rank_clusters"] <= row["rank_all"] <= 16 for row in heads[1:])
    assert not any(ranks & set(row) for row in pretrain)


def test_a_batch_smaller_than_the_clusters_is_named_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finetune.batch_size: 9 points cannot show 10 clusters"):
        train(make_config({"finetune.batch_size": 9}), tmp_path / "s", tmp_path / "a")
    assert not (tmp_path / "s" / "stages").exists()


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_an_interrupted_training_goes_on_to_the_unbroken_result(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SHARE", 0)
    config = make_config()
    whole = train(config, tmp_path / "whole", tmp_path / "a")

    class Killed(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["event"] == "epoch" and row["stage"] == stage:
            time.sleep(0.3)
            if row["epoch"] == 2:
                raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path / "broken", tmp_path / "b", report=kill)
    seen: list[int] = []

    def note(row: dict[str, Any]) -> None:
        if row["event"] == "epoch" and row["stage"] == stage:
            seen.append(row["epoch"])

    resumed = train(config, tmp_path / "broken", tmp_path / "b", report=note)
    assert seen[0] == 2
    assert resumed["metrics"] == whole["metrics"]
    again = {one["name"]: one for one in resumed["stages"]}
    assert again[stage]["trained"] > again[stage]["seconds"] + 0.2, "what the killed sitting saved counts"
    assert all(one["trained"] <= one["seconds"] for name, one in again.items() if name != stage and not one["cached"])
    said, now = re.findall(r"trained (.*), (.*) of it now", line := _minutes(resumed["stages"]))[0]
    assert float(said) >= float(now)
    assert line.count("(from the store)") == sum(one["cached"] for one in again.values())
    assert " of it now" not in _minutes(whole["stages"])
    for one, other in zip(whole["stages"], resumed["stages"], strict=True):
        assert one["key"] == other["key"]
        left, right = weights(tmp_path / "whole", one["key"]), weights(tmp_path / "broken", other["key"])
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_from_a_stage_needs_the_earlier_ones_and_computes_the_later_ones_anew(tmp_path: Path) -> None:
    config = make_config()
    with pytest.raises(InputError, match="pretrain of this configuration is not in the store"):
        train(config, tmp_path / "s", tmp_path / "a", start_from="heads")
    train(config, tmp_path / "s", tmp_path / "a")
    again = train(config, tmp_path / "s", tmp_path / "b", start_from="heads")
    assert [stage["cached"] for stage in again["stages"]] == [True, False, False]


def test_seeds_vary_the_later_stages_and_share_the_earlier(tmp_path: Path) -> None:
    base = make_config({"seeds_from": "heads"})
    one = train(base, tmp_path / "s", tmp_path / "a")
    other = train(dataclasses.replace(base, seed=1), tmp_path / "s", tmp_path / "b")
    assert [stage["cached"] for stage in other["stages"]] == [True, False, False]
    assert one["stages"][1]["key"] != other["stages"][1]["key"]


def test_the_next_stage_reads_the_stored_weights_to_the_last_bit_in_float64_too(tmp_path: Path) -> None:
    config = make_config({"precision": "float64"})
    for out in ("computed", "stored"):
        first, second, _ = train(config, tmp_path / "s", tmp_path / out)["stages"]
        store = Store(str(tmp_path / "s"))
        before, after = store.load(first["key"]), store.load(second["key"])
        assert before is not None and after is not None
        reads = {name: before.state["weights"][name] for name in ("backbone", "pre_feature")}
        assert digest_of({name: _holding(state) for name, state in reads.items()}) == after.meta["read"]
        Store(str(tmp_path / "s")).discard(second["key"], "result")  # computed again, behind a stored one


def _holding(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """A module whose state is this."""
    module = torch.nn.Module()
    module.state_dict = lambda: dict(state)  # type: ignore[method-assign,assignment]
    return module


def test_a_stage_of_no_epochs_hands_over_and_trains_nothing(tmp_path: Path) -> None:
    config = make_config({"pretrain.epochs": 0, "heads.epochs": 0, "finetune.learning_rate": 0.3})
    result = train(config, tmp_path / "s", tmp_path / "a")
    assert [stage["epochs"] for stage in result["stages"]] == [0, 0, 2]
    assert len((tmp_path / "a" / "curve.jsonl").read_text().splitlines()) == 2


def test_a_loss_that_is_not_finite_is_a_divergence_and_stores_nothing(tmp_path: Path) -> None:
    config = make_config({"pretrain.optimizer": "sgd", "pretrain.learning_rate": 1e30})
    with pytest.raises(DivergedError, match="pretrain"):
        train(config, tmp_path / "s", tmp_path / "a")
    assert not list((tmp_path / "s" / "stages").glob("*/result.json"))


def test_a_stage_says_how_long_it_waited_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    key = train(config, tmp_path / "s", tmp_path / "a")["stages"][2]["key"]
    theirs = Store(str(tmp_path / "s")).load(key)
    assert theirs is not None
    Store(str(tmp_path / "s")).discard(key, "result")
    with Store(str(tmp_path / "s")).lease(key) as lease:
        assert lease.try_acquire()
        # They have it when we look for the second time.
        monkeypatch.setattr("time.sleep", lambda s: Store(str(tmp_path / "s")).save(key, theirs.state, theirs.meta))
        stages = train(config, tmp_path / "s", tmp_path / "b")["stages"]
    assert [stage["cached"] for stage in stages] == [True] * 3
    assert [stage["waited"] > 0 for stage in stages] == [False, False, True]
    assert stages[2]["waited"] <= stages[2]["seconds"]


def test_smoke_shortens_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "LIGHT_ROWS", 64)
    config = make_config({"pretrain.epochs": 500})
    result = train(config, tmp_path / "s", tmp_path / "a", smoke=True)
    assert result["smoke"] and result["n"] == 64 and "cut to 64" in result["split"]
    assert all(stage["epochs"] <= 2 for stage in result["stages"])


@pytest.mark.parametrize("method", METHODS)
def test_smoke_lengthens_no_training(method: str) -> None:
    settings, few = METHODS[method].stage_settings, limit(load("digits"), 40)
    known = known_keys(settings)
    least = {key: one.limits.low for key, one in known.items() if one.kind == "int" and one.limits.low is not None}
    for values in ({"n_clusters": 2}, least, {key: int(low) + 1 for key, low in least.items()}):
        config = resolve(method, "digits", "paper", settings, values | {"seed": 0})
        short, data = smoke.shorten(config, few)
        longer = {key for key, value in short.flat().items() if known[key].kind == "int" and value is not None}
        assert [key for key in longer if short.flat()[key] > config.flat()[key]] == []
        assert len(data.train) <= 40 and data.epoch_size <= few.epoch_size


def test_no_clusters_given_and_no_labels_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = limit(load("digits"), 300)
    bare = dataclasses.replace(digits, n_classes=None, train=dataclasses.replace(digits.train, y=None), test=None)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: bare)
    with pytest.raises(InputError, match="n_clusters"):
        train(make_config(), tmp_path / "s", tmp_path / "a")
    result = train(make_config({"n_clusters": 4}), tmp_path / "s", tmp_path / "b")
    assert "acc" not in result["metrics"] and result["metrics"]["clusters_used"] <= 4


def test_a_configuration_maps_stages_read_only() -> None:
    assert isinstance(make_config().stages, MappingProxyType)


def test_probes_are_figures_by_name_of_the_features_asked_for(tmp_path: Path) -> None:
    config = make_config({"probes": True, "probe_views": 2})
    result = train(config, tmp_path / "s", tmp_path / "a")
    for name in ("pool", "pre_feature", "subspace"):
        assert {f"{probe}_{name}" for probe in ("svm", "knn", "nearest_subspace")} <= set(result["metrics"])
        assert result["metrics"][f"svm_{name}_averaged"] == result["probes"]["average_2"][name]["svm"]
    few = make_config({"probes": True, "probe_views": 0, "probe_features": "subspace, pool"})
    result = train(few, tmp_path / "s", tmp_path / "b")
    assert all(stage["cached"] for stage in result["stages"]), "probes are not of the stages"
    assert list(result["probes"]) == ["plain"] and set(result["probes"]["plain"]) == {"subspace", "pool"}
    with pytest.raises(InputError, match="probe_features: 'pol' is not one of all, pool.*did you mean pool"):
        make_config({"probe_features": "subspace,pol"})
