"""The parts of a report one by one: edges, stage reuse, importance, commands, curves, gallery, confusion, axes."""

from __future__ import annotations

import base64
import io
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymc.bare_keys import BareKeys
from raymc.config import known_keys, parse_overrides
from raymc.errors import InputError
from raymc.methods import METHODS
from raymc.metrics.seeds import detectable, summary
from raymc.reporting.charts.confusion import confusion_matrix
from raymc.reporting.charts.curves import learning_curves
from raymc.reporting.charts.gallery import build_gallery
from raymc.reporting.charts.svg import Axis, axis, thinned
from raymc.reporting.search.cautions import cautions, edge
from raymc.reporting.search.commands import reproduce
from raymc.reporting.search.cost import stage_use, time_spent
from raymc.reporting.search.importance import parameter_importance
from raymc.reporting.search.sentences import cost
from raymc.reporting.words import count, empty_clusters, listing, score, seeds_varied
from raymc.study.reader import Study, read_study, winner
from raymc.study.records import Record, Resources, SeedRun, StageRun
from raymc.study.words import duration
from raymc.validation import Key
from tests.fabricated_study import SEARCHED, fabricate


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(fabricate(tmp_path_factory.mktemp("parts") / "digits", 40, confirm=1))


@pytest.mark.parametrize("value, low, high, log, side", [
    (1e-5, 1e-5, 1e-1, True, "lower"),
    (10**-4.81, 1e-5, 1e-1, True, "lower"),  # 4.75 % of the four decades
    (10**-4.79, 1e-5, 1e-1, True, None),
    (0.0949, 1e-5, 1e-1, True, "upper"),
    (0.0949, 1e-5, 1e-1, False, None),  # linear: 94.9 %
    (0.0951, 1e-5, 1e-1, False, "upper"),
    (0.5, 0.0, 1.0, False, None),
    (True, 0, 1, False, None),
    ("x", 0, 1, False, None),
])  # fmt: skip
def test_edge_is_five_per_cent_of_the_range_on_its_scale(
    value: object, low: float, high: float, log: bool, side: str | None
) -> None:
    assert edge(value, {"low": low, "high": high, "log": log}) == side


def test_choices_have_no_edge() -> None:
    assert edge(30, {"choices": [30, 40]}) is None


def test_a_value_at_the_end_of_what_its_key_can_be_is_not_told_to_widen_the_range(study: Study) -> None:
    """The ends of every number of every method are values of it, and what lies beyond is none."""
    ends = 0
    for method in METHODS.values():
        for key, known in known_keys(method.stage_settings).items():
            if known.kind not in ("int", "float"):
                continue
            for sign, end in zip((-1, 1), known.limits, strict=True):
                at = 5 if end is None else end
                assert end is None or known.check(key, end) == end
                spec = {"low": at if sign < 0 else at - 1, "high": at + 1 if sign < 0 else at, "log": False}
                own = replace(study, manifest={**study.manifest, "method": method.name}, searched={key: spec})
                found = cautions(own, replace(record_of(0), params={key: at}), None)
                texts = {one["kind"]: one["text"] for one in found}
                assert ("limit" in texts, "edge" in texts) == (end is not None, end is None)
                if end is not None:
                    ends += 1
                    assert "widen the" not in texts["limit"].lower()
                    with pytest.raises(InputError):
                        known.check(key, end + sign)
    assert ends > 100
    assert Key(BareKeys, "ensc_tau").limits == (None, 1), "0 bounds it and is no value of it"
    assert texts["limit" if end is not None else "edge"].startswith(f"{key} = {at} lies at the upper edge of its range")


def test_clusters_that_every_seed_left_empty_are_said() -> None:
    for shares, used, said in (
        ((0.0, 0.0), (7.0, 8.0), "each of 2 fresh seeds left clusters empty (7 to 8 of 10 have samples): ask for"),
        ((0.0,), (9.0,), "the one fresh seed left clusters empty (9 of 10 have samples): ask for"),
    ):
        found = {"smallest_share": summary(shares), "clusters_used": summary(used)}
        assert empty_clusters(found, 10, "fresh seed").startswith(said)
        assert " of 10" not in empty_clusters(found, "auto", "fresh seed")
    assert empty_clusters({"smallest_share": summary([0.0, 0.1]), "clusters_used": summary([9, 10])}, 10, "seed") == ""
    assert empty_clusters({"clusters_used": summary([2.0])}, 3, "seed") == "", "records of before do not say"


def run_of(*stages: StageRun) -> SeedRun:
    return SeedRun(0, "finished", {}, stages, 0.0, Path())


def record_of(trial: int, *runs: SeedRun) -> Record:
    return Record(trial, "search", "finished", {}, 0.5, {}, runs, "", 0.0, None, None)


def test_reuse_saves_what_the_study_spent_on_the_key() -> None:
    first = run_of(StageRun("pretrain", 9, False, 60.0, "a"), StageRun("heads", 3, False, 7.0, "b"))
    second = run_of(StageRun("pretrain", 9, True, 0.5, "a"), StageRun("heads", 3, False, 8.0, "c"))
    other = run_of(StageRun("pretrain", 9, True, 0.5, "of another study"))
    found = stage_use([record_of(0, first, second), record_of(1, other)])
    assert (found["computed"], found["reused"], found["unknown"]) == (3, 2, 1)
    assert found["seconds_saved"] == pytest.approx(59.5)
    assert found["by_stage"]["heads"] == {
        "computed": 2, "reused": 0, "seconds": 15.0, "waited": 0.0, "seconds_saved": 0.0, "unknown": 0,
    }  # fmt: skip


def test_waiting_for_a_stage_is_no_training_and_keeps_what_the_reuse_saved() -> None:
    first = run_of(StageRun("pretrain", 9, False, 60.0, "a"))
    found = stage_use([record_of(0, first, run_of(StageRun("pretrain", 9, True, 40.5, "a", waited=40.0)))])
    assert (found["seconds"], found["waited"], found["seconds_saved"]) == (60.5, 40.0, 59.5)


HOUR = 3600.0
QUARTER = Resources(2, cpus_per_worker=0.5, gpus_per_worker=0.25)


@pytest.mark.parametrize(("had", "seconds", "hours", "waiting", "words"), [
    ([QUARTER, QUARTER], 2 * HOUR, (1.5, 0.75), (0.5, 0.25), "by what each training had."),
    ([QUARTER, None], 2 * HOUR, (6.75, 3.375), (2.25, 1.125), "for 1 of 2 trainings that do not say it"),
    ([None, None], 2 * HOUR, (12.0, 6.0), (4.0, 2.0), "by what was asked for: the trainings do not say"),
    ([QUARTER], 3 * HOUR, (2.75, 1.375), (0.25, 0.125), "by what each training had."),  # one was stopped, after 2 h
])  # fmt: skip
def test_hours_are_of_what_each_training_had_and_waiting_stands_apart(
    study: Study,
    had: list[Resources | None],
    seconds: float,
    hours: tuple[float, float],
    waiting: tuple[float, float],
    words: str,
) -> None:
    """Each seed took an hour and waited a quarter of it; asked for were 4 workers with 2 CPUs and a GPU."""
    stage = StageRun("pretrain", 9, True, HOUR / 2, "a", waited=HOUR / 4)
    runs = tuple(SeedRun(i, "finished", {}, (stage,), HOUR, Path(), resources=one) for i, one in enumerate(had))
    asked = {"workers": 4, "cpus_per_worker": 2.0, "gpus_per_worker": 1.0}
    own = replace(
        study,
        manifest={**study.manifest, "resources": asked},
        trials=(replace(record_of(0, *runs), seconds=seconds),),
        confirmations=(),
    )
    found = time_spent(own)
    assert (found["core_hours"], found["gpu_hours"]) == pytest.approx(hours)
    assert (found["waiting_core_hours"], found["waiting_gpu_hours"]) == pytest.approx(waiting)
    assert found["waited_seconds"] == len(had) * HOUR / 4
    lines = cost({"time": found, "stages": stage_use(own.trials)})
    for text in (words, "of waiting for stages that other processes"):
        assert sum(text in line for line in lines) == 1


def test_what_is_odd_about_the_data_is_a_warning(study: Study) -> None:
    assert "data" not in [one["kind"] for one in cautions(study, None, None)]
    data = {**study.manifest["data"], "remarks": ["2 of 4 columns are constant", "every label is different"]}
    found = cautions(replace(study, manifest={**study.manifest, "data": data}), None, None)
    texts = {one["kind"]: one["text"] for one in found}
    assert texts["data"] == "About the data: 2 of 4 columns are constant; every label is different."


def test_hours_are_told_by_machine_and_have_the_stages_before_the_trials(study: Study) -> None:
    """A stage of two hours on four GPUs, and two trials of an hour on a quarter of one, of which one waited half."""
    whole, quarter = Resources(4, gpus_per_worker=1.0), Resources(1, gpus_per_worker=0.25)
    wait = StageRun("pretrain", 9, True, HOUR / 2, "a", waited=HOUR / 2)
    shared = SeedRun(0, "finished", {}, (StageRun("pretrain", 9, False, 2 * HOUR, "a"),), 2 * HOUR, Path(), None, whole)
    runs = [SeedRun(0, "finished", {}, stages, HOUR, Path(), None, quarter) for stages in ((), (wait,))]
    on = [replace(run, machine=name) for run, name in zip((shared, *runs), ("H200", "L4", "L4"), strict=True)]
    records = [replace(record_of(i, run), seconds=run.seconds) for i, run in enumerate(on)]
    own = replace(study, stages=(records[0],), trials=(records[1], records[2]), confirmations=())
    found = time_spent(own)
    assert found["gpu_hours"] == pytest.approx(8.0 + 0.375) and found["waiting_gpu_hours"] == pytest.approx(0.125)
    assert {name: one["gpu_hours"] for name, one in found["by_machine"].items()} == pytest.approx(
        {"H200": 8.0, "L4": 0.375}
    )
    assert found["by_machine"]["L4"]["waiting_gpu_hours"] == pytest.approx(0.125)
    use = stage_use([*own.records, *own.stages])
    assert (use["computed"], use["reused"], use["unknown"]) == (1, 1, 0)
    text = " ".join(cost({"time": found, "stages": use}))
    assert "Shared stages took 2 h 00 min before the trials. Trials took 2 h 00 min in sum" in text
    assert "8 core-hours and 8 GPU-hours on H200 and 2 core-hours and 0.5 GPU-hours on L4." in text
    assert "for stages that other processes computed: 1 % of all that was held." in text
    assert "on L4" not in " ".join(cost({"time": time_spent(study), "stages": use})), "older studies name no machine"


def test_weights_of_a_checkpoint_are_named(study: Study) -> None:
    assert "float16" not in [one["kind"] for one in cautions(study, None, None)]
    first = run_of(StageRun("pretrain", 9, True, 0.1, "a", "cifar"), StageRun("heads", 3, False, 7.0, "b", "cifar"))
    other = record_of(1, first, run_of(StageRun("pretrain", 9, True, 0.1, "a", "other")))
    found = cautions(replace(study, trials=(*study.trials, other)), None, None)
    texts = {one["kind"]: one["text"] for one in found}
    assert texts["float16"] == (
        "Trainings started from weights that were rounded to float16: checkpoints cifar and other."
    )


def test_importance_finds_the_key_that_matters(study: Study) -> None:
    pytest.importorskip("optuna")
    found = parameter_importance(study)
    assert set(found["values"]) == set(SEARCHED)
    assert sum(found["values"].values()) == pytest.approx(1)
    assert next(iter(found["values"])) == "heads.weight_decay"


def test_importance_says_why_it_is_missing(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = parameter_importance(read_study(fabricate(tmp_path / "few", 4, confirm=0)))
    assert few["values"] == {}
    assert "3 finished trials" in few["note"]
    monkeypatch.delitem(sys.modules, "raymc.study.importance", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    absent = parameter_importance(study)
    assert absent["values"] == {}
    assert "Optuna is not installed" in absent["note"]


def test_the_winner_is_trained_again_with_every_digit(study: Study) -> None:
    best = winner(study)
    assert best is not None
    lines = reproduce(study, best)
    assert lines["search"] == study.get("command")
    words = shlex.split(lines["train"])
    assert words[:4] == [sys.executable, "-m", "raymc.train", "nmce_digits"]
    settings = parse_overrides(word for word in words[4:] if "=" in word)
    assert {key: settings[key] for key in best.params} == best.params
    assert settings["pretrain.epochs"] == 24  # the study's own override
    assert settings["seeds_from"] == "heads"
    storage = ["--storage", str(study.folder.parents[1])]
    assert words[-4:] == ["--seed", "1000", *storage]
    assert shlex.split(lines["stability"]) == [sys.executable, "-m", "raymc.stability", "digits", *storage]


def test_a_space_of_the_users_own_is_named_by_its_file_also_where_the_study_is_called_like_it(study: Study) -> None:
    best = winner(study)
    own = {"name": "digits", "path": "/my place/digits.yaml", "content": {"dataset": {"path": "/rows.csv"}}}
    known = {**own, "content": {"dataset": "digits"}}
    for space, places, smoke, options in (
        (own, {"storage": "/s t", "data": "/d a"}, True, ["--storage", str(study.folder.parents[1]), "--smoke"]),
        (known, {"storage": "s3://a", "data": "/d a"}, False, ["--storage", "s3://a", "--data", "/d a"]),
    ):
        manifest = {**study.manifest, "space": space, "places": places, "smoke": smoke, "command": "raymc tune digits"}
        lines = reproduce(replace(study, manifest=manifest), best)
        assert shlex.split(lines["train"])[3] == "/my place/digits.yaml"
        assert shlex.split(lines["train"])[-len(options) :] == options
        assert shlex.split(lines["stability"])[3:] == ["digits", *options]


def test_curves_show_every_trial_and_the_winner_last(study: Study) -> None:
    best = winner(study)
    assert best is not None
    panels = dict(learning_curves(study, best.trial))
    assert list(panels) == ["heads: acc", "heads: loss", "finetune: acc", "finetune: loss"]
    drawn = str(panels["heads: loss"])
    assert drawn.count('<path class="curve') == len(study.trials)
    assert drawn.rindex("curve best") > drawn.rindex('class="curve"')


def test_seeds_varied_names_what_is_shared(study: Study) -> None:
    said = seeds_varied(study)
    assert "vary the stages heads and finetune" in said
    assert "the stage pretrain keeps the base seed 0" in said


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_gallery_keeps_grey_levels_and_clear_gaps() -> None:
    images = np.zeros((2, 3, 4, 8, 8, 1), dtype=np.uint8)
    images[1, 2, 3] = 255
    gallery = build_gallery({"images": images, "shares": np.array([0.75, np.nan]), "clusters": np.array([5, 2])})
    assert gallery is not None
    first, second = gallery.sprites
    assert (first.cluster, first.share, second.cluster, second.share) == (5, 0.75, 2, None)
    pixels = np.asarray(decoded(second.source).convert("LA"))
    assert pixels.shape[:2] == (3 * 32 + 2 * 8, 4 * 32 + 3 * 2) == (second.height, second.width)
    assert pixels[-1, -1].tolist() == [255, 255]
    assert pixels[0, 0].tolist() == [0, 255]
    assert pixels[0, 33, 1] == 0 and pixels[33, 0, 1] == 0  # between samples, between components


def test_gallery_shrinks_until_it_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 6, 8, 32, 32, 3), dtype=np.uint8)
    arrays = {"images": noise, "shares": np.full(20, 0.05), "clusters": np.arange(20)}
    gallery = build_gallery(arrays, budget=700_000)
    assert gallery is not None
    assert sum(len(sprite.source) for sprite in gallery.sprites) <= 700_000
    assert len(gallery.sprites) == 20
    assert gallery.components == 4
    assert "the first 4 of 6 components" in gallery.note


def test_confusion_puts_each_cluster_under_its_class(tmp_path: Path) -> None:
    y = np.repeat(np.arange(4), 25)
    labels = np.array([2, 0, 3, 1])[y]
    labels[:5] = 0  # a fifth of class 0 falls into the cluster of class 1
    np.savez(tmp_path / "labels.npz", labels=labels, y=y)
    found = confusion_matrix(SeedRun(3, "finished", {}, (), 0.0, tmp_path))
    assert found is not None
    assert "20 % of class 0 in cluster 0" in found.words
    assert str(found.plot).count("100.0 %") == 3
    (tmp_path / "labels.npz").unlink()
    np.savez(tmp_path / "labels.npz", labels=labels)
    assert confusion_matrix(SeedRun(3, "finished", {}, (), 0.0, tmp_path)) is None


def test_confusion_with_more_clusters_than_classes(tmp_path: Path) -> None:
    y = np.repeat(np.arange(3), 20)
    labels = np.where(np.arange(60) % 4 == 0, 3, y)
    np.savez(tmp_path / "labels.npz", labels=labels, y=y)
    found = confusion_matrix(SeedRun(0, "finished", {}, (), 0.0, tmp_path))
    assert found is not None
    assert "3 classes and 4 clusters" in str(found.plot)


def test_axes_hold_their_values() -> None:
    assert Axis(1e-5, 1e-1, log=True).place(1e-3) == pytest.approx(0.5)
    assert Axis(0, 1).place(7) == 1.0
    assert [label for _, label in Axis(1e-5, 1e-1, log=True).ticks()] == ["1e−5", "1e−4", "0.001", "0.01", "0.1"]
    assert [label for _, label in Axis(0.05, 0.5, log=True).ticks()] == ["0.05", "0.1", "0.2", "0.5"]
    assert [value for value, _ in Axis(0, 1).ticks()] == [0.0, 0.5, 1.0]
    flat = axis([0.7, 0.7])
    assert flat.low < 0.7 < flat.high
    assert axis([0.0]).high > 0


def test_thinning_keeps_the_ends() -> None:
    points = [(float(i), float(i)) for i in range(1000)]
    thin = thinned(points, 50)
    assert len(thin) == 50
    assert (thin[0], thin[-1]) == (points[0], points[-1])


def test_words() -> None:
    assert (score(0.12345), score(-0.5), score(1234.5678), score(None)) == ("0.1235", "−0.5000", "1234.6", "–")
    assert (duration(4.21), duration(59.99), duration(200), duration(7500)) == (
        "4.2 s", "1 min 00 s", "3 min 20 s", "2 h 05 min",
    )  # fmt: skip
    assert (listing([]), listing(["a"]), listing(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert (count(1, "seed"), count(1200, "seed")) == ("1 seed", "1,200 seeds")


def test_detectable_difference_agrees_with_the_sample_size_rule() -> None:
    # n = 15.7 (std / difference)^2 per arm at 5 % and 80 % power: std 3.69 and a difference of 1 need 213 seeds.
    assert detectable(3.69, 213) == pytest.approx(1.0, abs=5e-3)
