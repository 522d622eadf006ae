"""Several configurations on the same seeds (`stability --vs`), with a training that does nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from raymc.cli import execute
from raymc.commands import stability as door
from raymc.commands.stability import stability
from raymc.config import Config
from raymc.errors import CollapsedError, InputError
from raymc.methods import METHODS, nmce
from raymc.reporting.stability.comparison_sentences import comparison_lines, sharing_lines
from raymc.stability import queue, runs, seed_group
from raymc.stability.comparison import compare_groups, shared_stages
from raymc.stability.configurations import Configuration
from raymc.stability.request import StabilityRequest
from raymc.study.records import Record
from tests.mlflow_database import new_database
from tests.search_fakes import FakeTracker, FakeTrainable, Killed, driver_here
from tests.test_metrics_seeds import MLC, NMCE

FILES = {
    "good": "method: short\ndataset: digits\nspace: {heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}}\n",
    "bad": "method: nmce\ndataset: digits\nspace: {heads.weight_decay: {low: 1.0e-5, high: 1.0e-2, log: true}}\n",
    "all": "method: nmce\ndataset: digits\nfixed: {seeds_from: pretrain}\n",
    "coil": "method: nmce\ndataset: coil20\n",
}
SCORES = {"good": MLC, "bad": NMCE, "all": NMCE}


class Scored(FakeTrainable):
    """Gives the seeds of a space their scores of `SCORES`, from a pretraining that is named by its seed."""

    def __init__(self, real: Any, before: Any) -> None:
        super().__init__(before)
        self.real = real

    def __call__(self, params: Mapping[str, Any], seed: int, out: Path, report: Any) -> dict[str, Any]:
        name = self.real.space.name
        self.before(name, seed, 1)
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "labels.npz", labels=np.arange(20) % 4)
        first = seed if self.real.seeds_from == "pretrain" else self.real.base_seed
        keys = {"pretrain": f"pretrain-of-seed-{first}", "heads": f"{name}-{seed}"}
        stages = [{"name": stage, "epochs": 1, "cached": False, "seconds": 0.0, "key": keys[stage]} for stage in keys]
        return {"metrics": {"acc": SCORES[name][seed % 10] / 100, "rate_reduction": 3.0}, "stages": stages}


def _short() -> Any:
    """NMCE without its last stage: a method that knows fewer keys."""

    def stages(config: Config) -> Any:
        whole = dataclasses.replace(config, stages={**config.stages, "finetune": nmce.Finetune()})
        return nmce.METHOD.stages(whole)[:2]

    keys = {name: keys for name, keys in nmce.STAGES.items() if name != "finetune"}
    paper = nmce.PRESETS["digits"]["paper"]
    preset = {key: value for key, value in paper.items() if not key.startswith("finetune.")}
    presets = {"digits": {"paper": preset}}
    return dataclasses.replace(nmce.METHOD, name="short", stages=stages, stage_settings=keys, presets=presets)


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Four spaces in the working folder; their seeds run here, `before(space, seed, epoch)` may raise."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "short", _short())
    monkeypatch.setattr(seed_group, "StudyTracker", FakeTracker)
    monkeypatch.setattr(queue, "ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(FakeTracker, "begun", [])
    monkeypatch.setattr(FakeTracker, "artifacts", [])

    def use(before: Any = lambda name, seed, epoch: None, **changes: Any) -> None:
        monkeypatch.setattr(queue, "run_on_ray", driver_here(lambda real: Scored(real, before), **changes))

    use()
    return use


def _request(*targets: str, **changes: Any) -> StabilityRequest:
    settings: dict[str, Any] = {"overrides": {}, "storage": "storage", "data": "data"}
    return StabilityRequest(targets[0], vs=targets[1:], **settings | changes)


def test_two_arms_from_one_pretraining(run_with: Any) -> None:
    result = stability(_request("good.yaml", "bad.yaml"))
    json.dumps(result, allow_nan=False)
    assert [arm["name"] for arm in result["arms"]] == ["good", "bad"] and result["seeds"] == list(range(10))
    for arm, method, values in zip(result["arms"], ("short", "nmce"), (MLC, NMCE), strict=True):
        assert (arm["method"], arm["dataset"], arm["seeds"]) == (method, "digits", result["seeds"])
        assert arm["acc"]["values"] == [value / 100 for value in values] and arm["pairwise_ari"]["mean"] == 1
        assert arm["report"] == result["report"] and Path(arm["folder"]).is_dir()
    (row,) = result["comparisons"]
    assert (row["a"], row["b"], row["metric"], row["n"]) == ("good", "bad", "acc", 10)
    assert row["p_better"] == 1.0 and row["p_wilcoxon"] == row["p_holm"] == pytest.approx(2 / 1024)
    assert row["mean_difference"] == pytest.approx(0.0487) and row["common_seeds"] == result["seeds"]
    assert result["shared_stages"] == ["pretrain"]
    begun = [(facts["study"], facts["space"], facts["tags"]["raymc.kind"]) for facts in FakeTracker.begun[:2]]
    assert begun == [(f"{result['name']}-{name}", name, "stability") for name in ("good", "bad")]
    # When both have ended, the run of each is gone on with: the report of both is with it.
    files = ("stability.html", "stability.json", "stability.csv")
    assert FakeTracker.artifacts == [(run, file) for run, _, _ in begun for file in files]


def test_the_report_has_a_row_per_arm_and_metric_and_a_column_per_seed(run_with: Any) -> None:
    result = stability(_request("good.yaml", "bad.yaml"))
    page = Path(result["report"])
    assert page.name == "stability.html"
    text = page.with_suffix(".md").read_text()
    assert "| arm | metric | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | mean | std |" in text
    assert "| bad | acc | 0.8370 | 0.8210 |" in text and "| 0.7961 | 0.0369 |" in text
    assert "All arms start from one stage `pretrain` (key pretrain…)" in text
    assert "P(good better) = 1.000: the share of all pairs of a seed of each, ties half" in text
    assert "good is better, beyond the luck of its seeds (5 % level)" in text
    # s = sqrt((0.24² + 3.69²) / 2) = 2.61 percent: 10 seeds resolve 1.25 of it.
    assert "s = 0.0261) resolve a difference of the means of about 0.0327" in text and "not smaller" in text
    assert text.count("agreement between seeds (ARI): 1.0000") == 2
    rows = (page.parent / "stability.csv").read_text().splitlines()
    assert rows[0] == "arm,seed,state,acc,rate_reduction,seconds" and len(rows) == 21
    content = json.loads((page.parent / "stability.json").read_text())
    assert content["comparisons"] == result["comparisons"] and len(content["arms"][1]["per_seed"]) == 10


def test_an_override_goes_to_the_arms_that_know_its_key(run_with: Any) -> None:
    overrides = {"heads.eps_sq": 0.3, "finetune.epochs": 0}
    result = stability(_request("good.yaml", "bad.yaml", overrides=overrides, seeds=2))
    assert [arm["overrides"] for arm in result["arms"]] == [{"heads.eps_sq": 0.3}, overrides]
    good, bad = (facts["params"] for facts in FakeTracker.begun[:2])
    assert good["heads.eps_sq"] == bad["heads.eps_sq"] == 0.3 and bad["finetune.epochs"] == 0
    assert "finetune.epochs" not in good


def test_arms_that_are_given_twice_get_names_of_their_own(run_with: Any) -> None:
    result = stability(_request("bad.yaml", "bad.yaml", "./bad.yaml", seeds=2))
    assert [arm["name"] for arm in result["arms"]] == ["bad", "bad-2", "bad-3"]
    pairs = [(row["a"], row["b"]) for row in result["comparisons"]]
    assert pairs == [("bad", "bad-2"), ("bad", "bad-3"), ("bad-2", "bad-3")]
    assert {(row["p_better"], row["p_wilcoxon"]) for row in result["comparisons"]} == {(0.5, 1.0)}
    assert result["shared_stages"] == ["pretrain", "heads"]
    assert all("nothing tells them apart" in row[1] for row in comparison_lines(result))


def test_arms_that_vary_different_stages_are_told(run_with: Any) -> None:
    result = stability(_request("bad.yaml", "all.yaml", seeds=2))
    assert result["shared_stages"] == []
    shared, varied = sharing_lines(result)
    assert shared.startswith("The arms do not share their first stage: their differences are not due to the later")
    assert "bad from `heads` on and all from `pretrain` on" in varied
    result = stability(_request("all.yaml", "all.yaml", seeds=3))
    assert sharing_lines(result)[0].startswith(
        "All arms start from the same stage `pretrain`, seed by seed (3 results)"
    )


WRONG: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    (("good.yaml", "nmce_digit"), {}, "did you mean nmce_digits"),
    (("good.yaml", "coil.yaml"), {}, "good is on digits, coil on coil20: two datasets cannot be compared by seed"),
    (
        ("good.yaml", "bad.yaml"),
        {"finetun.epochs": 0},
        "unknown key finetun.epochs of short and nmce; did you mean fine",
    ),
    (("good.yaml", "good.yaml"), {"finetune.epochs": 0}, "unknown key finetune.epochs of short"),
    (("good.yaml", "bad.yaml"), {"finetune.epochs": -1}, "finetune.epochs: -1 is below 0"),
    (("good.yaml", "bad.yaml"), {"seed": 1}, "the first one is --seed"),
]


@pytest.mark.parametrize(("targets", "overrides", "text"), WRONG)
def test_all_arms_are_checked_before_anything_is_written(
    run_with: Any, targets: tuple[str, ...], overrides: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError) as refused:
        stability(_request(*targets, overrides=overrides))
    assert text in str(refused.value)
    assert not Path("storage").exists() and not Path("reports").exists() and not FakeTracker.begun


def test_the_seeds_are_ones_that_no_study_has_used(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def used(request: StabilityRequest) -> list[Configuration]:
        found = zip(configurations(request), ((11, 12), (40, 41)), strict=True)
        return [dataclasses.replace(one, used=seeds) for one, seeds in found]

    configurations = runs.configurations
    monkeypatch.setattr(runs, "configurations", used)
    result = stability(_request("good.yaml", "bad.yaml", seeds=2))
    assert [arm["seeds"] for arm in result["arms"]] == [[42, 43]] * 2


def test_no_slot_idles_while_a_configuration_has_seeds(run_with: Any) -> None:
    flights: list[list[Any]] = []
    run_with(slots=2, flights=flights)
    result = stability(_request("good.yaml", "bad.yaml", "all.yaml", seeds=3))
    pairs = [{task.name for task in flight} for flight in flights]
    both = [{"good stage pretrain 0"}, {"good stage pretrain 0", "all seed 2"}]
    assert pairs[:2] == both, "good and bad have one pretraining, of their base seed; all has another for each seed"
    assert all(len(pair) == 2 for pair in pairs[1:]) and len(pairs) == 10
    handed_out = [flight[-1].configuration for flight in flights if not flight[-1].stage]
    assert [sorted(handed_out[i : i + 3]) for i in (0, 3, 6)] == [["all", "bad", "good"]] * 3, "each in turn"
    assert [arm["acc"]["n"] for arm in result["arms"]] == [3, 3, 3]


@pytest.mark.parametrize("stop", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("others", [("bad.yaml",), ()])
def test_the_same_words_go_on_with_what_is_missing(run_with: Any, others: tuple[str, ...], stop: Any) -> None:
    calls: list[tuple[str, int]] = []

    def interrupt(name: str, seed: int, epoch: int) -> None:
        calls.append((name, seed))
        if len(calls) == 4:
            raise stop

    request = _request("good.yaml", *others, seeds=4)
    run_with(interrupt)
    with pytest.raises(stop):
        stability(request)
    (begun,) = os.listdir("storage/stability")
    run_with(lambda name, seed, epoch: calls.append((name, seed)))
    with pytest.raises(InputError, match="--resume: no run of good"):
        stability(dataclasses.replace(request, seeds=5, resume=True))
    result = stability(dataclasses.replace(request, resume=True))
    assert result["name"] == begun and "missing" not in result and result["manifest"]["wall_seconds"] > 0
    twice = [call for call in calls if calls.count(call) > 1]
    assert twice == [calls[3]] * 2 and len(calls) == 4 * (1 + len(others)) + 1
    again = stability(request)
    assert len(calls) == 4 * (1 + len(others)) + 1 and again == result, "and once more: nothing is missing"


def test_what_is_not_the_same_is_not_gone_on_with(run_with: Any) -> None:
    calls: list[int] = []

    def fall(name: str, seed: int, epoch: int) -> None:
        calls.append(seed)
        if len(calls) == 2:
            raise RuntimeError("a fault of ours")

    run_with(fall)
    first = stability(_request("bad.yaml", seeds=2))
    place = Path(first["folder"])
    assert stability(_request("bad.yaml", seeds=2))["states"] == {"finished": 2} and calls == [0, 1, 1], "a fault is"
    facts = json.loads((place / "stability.json").read_text())
    assert "numerics" in facts and "numerics" not in first
    gone = [{"numerics": {"loop": -1}}, {"config": facts["config"] | {"heads.eps_sq": 9}}, {"smoke": True}]
    gone += [{"manifest": facts["manifest"] | {"data": {"fingerprint": "other"}}}, {"seeds_from": "pretrain"}]
    for change in gone:
        (place / "stability.json").write_text(json.dumps(facts | change))
        with pytest.raises(InputError, match="--resume: no run of bad with these words in storage/stability"):
            stability(_request("bad.yaml", seeds=2, resume=True))
    old = {key: value for key, value in facts.items() if key not in ("numerics", "varies")}
    del old["config"]["heads.temperature"]  # a run of before: the default was what it did
    (place / "stability.json").write_text(json.dumps(old))
    (place / "runs/0000/seed-0/result.json").unlink()
    with FileLock(place / "driver.lock"), pytest.raises(InputError, match=f"{place.name} is being run by another"):
        stability(_request("bad.yaml", seeds=2))
    assert json.loads((place / "stability.json").read_text()) == old, "it is the other process's to write"
    assert stability(_request("bad.yaml", seeds=2, resume=True))["acc"]["n"] == 2 and calls == [0, 1, 1, 0]


def _command(*words: str) -> int:
    shared = ["--storage", "storage", "--data", "data", "--json"]
    return execute(door.parser(), door.run, [*words, *shared])


def test_a_failed_arm_ends_the_command_with_3_and_the_others_are_kept(run_with: Any, capsys: Any) -> None:
    def fall(name: str, seed: int, epoch: int) -> None:
        if name == "bad" or (name == "good" and seed == 1):
            raise CollapsedError("one cluster")

    run_with(fall)
    assert _command("good.yaml", "--vs", "bad.yaml", "--vs", "all.yaml", "heads.eps_sq=0.3", "--seeds", "3") == 3
    shown = capsys.readouterr()
    assert "no seed of bad finished; the first error: one cluster; report: " in shown.err
    assert "good: acc: 0.8465 ±" in shown.out and "good: 1 of 3 seeds collapsed: not in these figures" in shown.out
    result = json.loads(shown.out.splitlines()[-1])
    assert result["arms"][0]["acc"]["n"] == 2 and "acc" not in result["arms"][1]
    lost, kept, _ = result["comparisons"]
    assert (lost["p_better"], lost["p_wilcoxon"], lost["mean_difference"], lost["n"]) == (None, None, None, 0)
    assert (kept["b"], kept["p_better"], kept["common_seeds"]) == ("all", 1.0, [0, 2])
    assert (
        "good and all do not share their first stage" in shown.out
        and "good against bad: no seed that both" in shown.out
    )
    assert "| good | acc | 0.8450 | collapsed | 0.8480 |" in Path(result["report"]).with_suffix(".md").read_text()


def test_ctrl_c_tells_the_command_that_goes_on(run_with: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str, seed: int, epoch: int) -> None:
        if name == "bad":
            raise KeyboardInterrupt

    run_with(stop)
    monkeypatch.delenv("RAYMC_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["stability", "good.yaml", "--vs", "bad.yaml"])
    assert _command("good.yaml", "--vs", "bad.yaml") == 130
    assert (
        f"go on with: cd {Path.cwd()} && {sys.executable} -m raymc.stability good.yaml --vs bad.yaml"
        in capsys.readouterr().err
    )


def test_without_other_arms_the_json_is_that_of_one(run_with: Any, capsys: Any) -> None:
    assert _command("bad.yaml", "--seeds", "2") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "arms" not in result and result["method"] == "nmce" and result["acc"]["n"] == 2


def _record(values: Mapping[int, Mapping[str, float]], key: str = "k") -> Record:
    stages = [{"name": "pretrain", "key": key}]
    rows = [{"seed": s, "state": "finished", "metrics": found, "stages": stages} for s, found in values.items()]
    return Record.of({"trial": 0, "per_seed": rows}, Path(), "stability")


def test_without_labels_a_metric_that_needs_none_decides() -> None:
    labelled = _record({0: {"acc": 0.5, "silhouette": 2.0}, 1: {"acc": 0.6, "silhouette": 3.0}})
    blind = _record({1: {"silhouette": 1.0}, 2: {"silhouette": 2.0}})
    (row,) = compare_groups(["a", "b"], [labelled, blind])
    assert row["metric"] == "silhouette" and row["p_better"] == (0.5 + 1 + 1 + 1) / 4
    assert (row["n"], row["common_seeds"], row["mean_difference"], row["p_wilcoxon"]) == (1, [1], 2.0, None)
    told = " ".join(comparison_lines({"comparisons": [row]})[0])
    assert "over 1 common seed." in told and "Nothing can be concluded from fewer than two common seeds" in told
    (row,) = compare_groups(["a", "b"], [labelled, _record({0: {"other": 1.0}})])
    assert row["metric"] is None and row["p_better"] is None
    assert "no seed that both finished with a metric in common" in comparison_lines({"comparisons": [row]})[0][0]


def test_too_few_seeds_cannot_tell_arms_apart_and_several_tests_count() -> None:
    few = [_record({seed: {"acc": 0.5 + shift + 0.01 * seed} for seed in range(5)}) for shift in (0.3, 0.2, 0.0)]
    rows = compare_groups(["a", "b", "c"], few)
    assert [row["p_wilcoxon"] for row in rows] == pytest.approx([2 / 32] * 3)
    assert [row["p_holm"] for row in rows] == pytest.approx([6 / 32] * 3)
    told = comparison_lines({"comparisons": rows})[0]
    assert "p = 0.062, 0.19 with all 3 tests taken into account (Holm)" in told[0]
    assert told[1].endswith("which 5 seeds could not do: p cannot fall below 0.19 here.")


def test_a_stage_is_shared_only_where_each_seed_had_the_same() -> None:
    same, other = _record({0: {"acc": 0.5}, 1: {"acc": 0.5}}), _record({0: {"acc": 0.5}}, "other")
    assert shared_stages([same, same]) == {"pretrain": ["k"]} and shared_stages([same, other]) == {}
    assert shared_stages([same, _record({})]) == {}, "one arm has nothing to share with"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_two_arms_for_real_share_their_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    new_database(tmp_path)
    text = "method: nmce\ndataset: digits\nfixed: {heads.epochs: 1, seeds_from: heads, heads.eps_sq: 0.5}\n"
    (tmp_path / "mine.yaml").write_text(text)
    words = "nmce_digits --vs mine.yaml finetune.epochs=0 --seeds 2 --smoke --storage storage"
    result = command("stability", *words.split())
    assert [arm["name"] for arm in result["arms"]] == ["nmce_digits", "mine"]
    assert result["shared_stages"] == ["pretrain"] and result["comparisons"][0]["n"] == 2
    content = json.loads(Path(result["report"]).with_suffix(".json").read_text())
    first = [row["stages"][0]["cached"] for arm in content["arms"] for row in arm["per_seed"]]
    assert first == [True] * 4, "it was trained once, before all of them"
    (stage,) = (tmp_path / "storage" / "stability").glob("*/*/stages/*/seed-0/result.json")
    assert [(one["name"], one["cached"]) for one in json.loads(stage.read_text())["stages"]] == [("pretrain", False)]
    assert "Shared stages took " in Path(result["report"]).read_text()


def test_a_run_of_one_is_not_gone_on_with_as_one_of_several() -> None:
    """Where the title names none of them, as that of `cluster`."""
    data = {"manifest": {"data": {"fingerprint": "f"}}, "seeds": [0]}
    one, two = {**data, "method": "plain"}, {**data, "arms": ["kmeans", "gmm"]}
    assert runs._same(one, one) and runs._same(two, two)
    assert not runs._same(one, two) and not runs._same(two, one)
    assert not runs._same(two, {**two, "arms": ["kmeans", "gmm", "mlc"]})
