"""What a seed changes can be chosen: `varies` lets the named draws differ and keeps every other one as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raymc.config import Config, parts_of, resolve
from raymc.datasets import load
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.rng import PARTS, PartSeeds, seed_facts
from raymc.space.seeds import seeds_from
from raymc.space.space import load_space
from raymc.training.feed import Feed
from raymc.training.run import run
from raymc.training.smoke import limit
from raymc.training.stages import enter, seeds_of, stage_key
from raymc.training.training import ALONE

NMCE = METHODS["nmce"]
STAGES = ("pretrain", "heads", "finetune")


def _config(**more: object) -> Config:
    small = {"pre_feature_dim": 32, "feature_dim": 16}
    small |= {f"{stage}.{key}": value for stage in STAGES for key, value in (("epochs", 1), ("batch_size", 64))}
    return resolve("nmce", "digits", "paper", NMCE.stage_settings, NMCE.presets["digits"]["paper"], small, more)


def _batches(seed: int | PartSeeds) -> dict[str, torch.Tensor]:
    feed = Feed.build(limit(load("digits"), 128), "digits", torch.device("cpu"), torch.float32, False, ALONE)
    batch = next(feed.epoch("heads", seed, 0, 64))
    assert batch.uniform is not None
    return {"order": batch.index, "augmentation": batch.views[0], "noise": batch.uniform("gumbel", 10)}


@pytest.mark.parametrize("varied", ["order", "augmentation", "noise"])
def test_a_batch_differs_in_what_varies_alone(varied: str) -> None:
    plain, one = _batches(0), _batches(seeds_of(STAGES, 7, 0, None, varied)["heads"])
    same = {name for name in plain if torch.equal(plain[name], one[name])}
    # Other samples are other views, though the operations on them are drawn alike.
    assert same == {"order", "augmentation", "noise"} - {varied} - ({"augmentation"} if varied == "order" else set())


def test_all_parts_together_are_the_seed_itself() -> None:
    assert seeds_of(STAGES, 7, 0, "heads", "all") == {"pretrain": 0, "heads": 7, "finetune": 7}
    assert seeds_of(STAGES, 7, 0, "heads", ",".join(PARTS)) == {"pretrain": 0, "heads": 7, "finetune": 7}
    split = PartSeeds(7, 7, 7, 7)
    assert seed_facts(split) == seed_facts(7) == 7
    for name, value in _batches(split).items():
        assert torch.equal(value, _batches(7)[name])


def test_first_weights_follow_the_part_of_the_initialisation() -> None:
    config, (stage, *_) = _config(), NMCE.stages(_config())

    def weights(seed: int | PartSeeds) -> torch.Tensor:
        return next(enter(NMCE, stage, config, (1, 8, 8), 10, {}, seed).parameters())

    varied, kept = (seeds_of(STAGES, 7, 0, None, name)["pretrain"] for name in ("initialisation", "order"))
    assert torch.equal(weights(varied), weights(7)) and torch.equal(weights(kept), weights(0))
    assert not torch.equal(weights(0), weights(7))


def test_stage_keys_tell_parts_apart_and_know_equal_ones() -> None:
    config, (stage, *_) = _config(), NMCE.stages(_config())
    model = enter(NMCE, stage, config, (1, 8, 8), 10, {}, 0)
    keys = {
        words: stage_key(stage, config, model, "data", seeds_of(STAGES, 7, 0, None, words)["pretrain"], None)
        for words in ("all", *PARTS, ",".join(PARTS))
    }
    assert len(set(keys.values())) == 5 and keys["all"] == keys[",".join(PARTS)]
    assert stage_key(stage, config, model, "data", PartSeeds(3, 3, 3, 3), None) == stage_key(
        stage, config, model, "data", 3, None
    )


def test_a_training_says_what_varied_and_shares_what_did_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = limit(load("digits"), 200)
    monkeypatch.setattr("raymc.datasets.load_once", lambda name, root: few)
    config = _config(varies="noise")
    results = [
        run(
            config,
            storage=str(tmp_path / "s"),
            out=tmp_path / str(seed),
            smoke=True,  # one epoch may leave one cluster
            stage_seeds=seeds_of(STAGES, seed, 0, "heads", config.varies),
        )
        for seed in (1, 2)
    ]
    assert [found["seeds"] for found in results] == [
        {"pretrain": 0, "heads": [0, 0, 0, seed], "finetune": [0, 0, 0, seed]} for seed in (1, 2)
    ]
    assert [[stage["cached"] for stage in found["stages"]] for found in results] == [[False] * 3, [True, False, False]]
    assert results[0]["stages"][1]["key"] != results[1]["stages"][1]["key"]


def test_seeds_that_would_change_nothing_are_refused() -> None:
    space = load_space("gcml_digits")
    for varies in ("noise", "augmentation,noise"):
        pinned = space.pinned({"varies": varies})
        told = rf"varies: {varies} changes nothing from finetune on \(there are: initialisation, order\)"
        with pytest.raises(InputError, match=told):
            seeds_from(pinned, pinned.config())
    whole = space.pinned({"varies": "noise", "seeds_from": "pretrain"})
    assert seeds_from(whole, whole.config()) == "pretrain"
    assert space.pinned({"varies": " noise,order, noise"}).config().varies == "order,noise"
    assert space.pinned({"varies": ",".join(reversed(PARTS))}).config().varies == "all"


@pytest.mark.parametrize(
    ("words", "told"),
    [("ordr", "'ordr' is not all or some of .*did you mean order"), ("", "'' is not"), ("all,order", "'all' is not")],
)
def test_unknown_parts_are_named(words: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        _config(varies=words)
    assert parts_of("noise, order") == ("order", "noise")
