"""The sentences of a report that are about this one study: verdict, choice, drop, trials, cost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from raymc.metrics.names import LABEL_FREE_METRICS
from raymc.program import beside_python
from raymc.reporting import words
from raymc.reporting.words import count, listing, score
from raymc.study.words import duration

Facts = Mapping[str, Any]


def verdict(facts: Facts, mine: Facts | None) -> str:
    """The report in one or two sentences."""
    best, metric = facts["winner"], facts["objective"]["metric"]
    if best is None:
        bound = " and keeps to the constraint" if facts["objective"]["constraint"] else ""
        return f"No winner: of {count(_trials(facts), 'trial')} none finished with a score{bound}."
    found = (mine or {}).get("statistics", {}).get(metric)
    if found is None and mine and mine["score"] is not None and mine["drop"] is None:
        means = [f"{name} {score(mine['statistics'][name]['mean'])}" for name in LABEL_FREE_METRICS]
        agreement = [f"stability {score(mine['pairwise_ari']['mean'])}"] if mine["pairwise_ari"] else []
        fresh = count(len(mine["seeds"]), "fresh seed")
        return (
            f"The configuration of trial {best['trial']} leads by its mean rank. On {fresh} that the search never saw "
            f"it has {listing([*agreement, *means])}."
        )
    if found is None and (mine is None or mine["score"] is None):
        return (
            f"Trial {best['trial']} has the best search score, {metric} {score(best['search_score'])} "
            f"of {count(_trials(facts), 'trial')}. It has no result on fresh seeds."
        )
    ran = len((mine or {})["seeds"])
    value, n, spread = (found["mean"], found["n"], found["std"]) if found else ((mine or {})["score"], ran, None)
    but = f" (of {ran}; the others did not finish)" if n < ran else ""
    return (
        f"The configuration of trial {best['trial']} reaches {metric} {score(value)}"
        f"{'' if spread is None else f' ± {score(spread)}'} on {count(n, 'fresh seed')}{but} that the search never saw."
        f"{against_default(facts) or _against_first(facts)}"
    )


def against_default(facts: Facts) -> str:
    """What the search gained over the default configuration, on the same fresh seeds; empty where it was not run."""
    default, best = facts["default"], facts["winner"]
    if default is None or default["score"] is None:
        return ""
    if best["trial"] == default["trial"]:
        return " It is the default configuration: the search found no better one."
    gap = default["advantage"]
    there = f"the default configuration, which reaches {score(default['score'])} there"
    if gap is None:
        return f" Beside it stands {there}."
    verb = "better" if gap["mean"] > 0 else "worse" if gap["mean"] < 0 else "equal"
    if gap["ci95"] is None or verb == "equal":
        return f" It is {verb} than {there}." if verb != "equal" else f" It equals {there}."
    low, high = gap["ci95"]
    but = "" if low > 0 or high < 0 else ", which includes 0: no difference is shown"
    return (
        f" It is {verb} by {score(abs(gap['mean']))} than {there} (the difference on {gap['n']} common seeds has the "
        f"95 % interval {score(low)} to {score(high)}{but})."
    )


def _against_first(facts: Facts) -> str:
    first, best = facts["tried_first"], facts["winner"]
    if first is None or first["score"] is None or first["trial"] == best["trial"]:
        return ""
    values = f"The values tried first (trial {first['trial']})"
    fresh = next((one["score"] for one in facts["confirmation"] if one["trial"] == first["trial"]), None)
    if fresh is not None:
        return f" {values} reach {score(fresh)} there."
    return f" {values} scored {score(first['score'])} in the search, this configuration {score(best['search_score'])}."


def chosen(facts: Facts) -> str:
    """By what the winner was picked, which decides how far its figures flatter it."""
    n = facts["winner"]["candidates"]
    if facts["winner"]["chosen_by"] == "search":
        why = " No configuration finished on all of its fresh seeds." if facts["confirmation"] else ""
        return f"Chosen by its search score, the best of all trials: that score is optimistic.{why}"
    if n == 1:
        return "Chosen by its search score and then run on fresh seeds, whose figures are therefore unbiased."
    return (
        f"The best on fresh seeds of the {n} configurations that led the search. Being the best of {n}, its mean is "
        "still slightly optimistic."
    )


def drops(facts: Facts) -> list[str]:
    """Search score against confirmation for each confirmed configuration, and winner against runner-up."""
    lines = [_drop(one) for one in facts["confirmation"]]
    said = [(one["trial"], words.consensus(one["consensus"])) for one in facts["confirmation"]]
    lines += [f"Trial {trial}: {text}." for trial, text in said if text]
    if facts["comparison"] is not None:
        lines.append(_rivalry(facts["comparison"]))
    return lines or ["There is no result on fresh seeds to compare the search with."]


def _drop(one: Facts) -> str:
    change = one["drop"]
    if change is None and one["score"] is not None:
        return f"Trial {one['trial']}: {score(one['score'])} among the configurations that were run on fresh seeds."
    if change is None:
        ended = listing([f"{n} {words.state(name)}" for name, n in one["states"].items()])
        return f"Trial {one['trial']}: no score on its fresh seeds ({ended or 'none has ended'})."
    verb = f"a drop of {score(change)}" if change > 0 else f"a gain of {score(-change)}" if change < 0 else "no change"
    before, after = score(one["search_score"]), score(one["score"])
    return f"Trial {one['trial']}: {before} in the search, {after} on fresh seeds, {verb}."


def _rivalry(rival: Facts) -> str:
    gap = rival["advantage"]
    if gap["mean"] < 0 or gap["ci95"] is None:  # behind: chosen by another aggregate than the mean
        place = "behind" if gap["mean"] < 0 else "ahead of"
        size = score(abs(gap["mean"]))
        return f"Trial {rival['a']} is {place} trial {rival['b']} by {size} on {gap['n']} common seeds."
    low, high = gap["ci95"]
    apart = "so they can be told apart" if low > 0 or high < 0 else "which includes 0: they cannot be told apart"
    return (
        f"On {gap['n']} common seeds trial {rival['a']} is ahead of trial {rival['b']} by {score(gap['mean'])} "
        f"(95 % interval {score(low)} to {score(high)}), {apart}."
    )


def trials(facts: Facts) -> str:
    """How many trials ended how."""
    states = {name: n for name, n in facts["trials"].items() if name != "planned"}
    ended = listing([f"{n} {words.state(name)}" for name, n in sorted(states.items(), key=lambda pair: -pair[1])])
    planned = facts["trials"]["planned"]
    total = _trials(facts)
    asked = f" of {planned} planned" if planned and planned != total else ""
    if not facts["searched"] and total:
        return f"Nothing was searched, so there is one trial, of the preset: {ended}."
    taken = facts["taken"]
    known = f" The sampler knew {count(taken['trials'], 'trial')} of {taken['study']} from the start." if taken else ""
    why = f" No more were begun, since {facts['ended_early']}." if facts["ended_early"] else ""
    return f"{count(total, 'trial')}{asked}: {ended}.{why}{known}" if total else "No trial was started."


def cost(facts: Facts) -> list[str]:
    """Wall clock, seconds of training, and what the stage store gave back."""
    time, stages = facts["time"], facts["stages"]
    lines = []
    if time["sittings"]:
        each = [duration(s["seconds"]) for s in time["sittings"]]
        several = f" in {len(each)} sessions ({listing(each)})" if len(each) > 1 else ""
        lines.append(f"Wall clock: {duration(time['wall_seconds'])}{several}.")
    before = (
        f"Shared stages took {duration(time['stage_seconds'])} before the trials. " if time["stage_seconds"] else ""
    )
    lines.append(
        f"{before}Trials took {duration(time['trial_seconds'])} in sum, "
        f"confirmation {duration(time['confirmation_seconds'])}: "
        "from the start of each training to its end, so what ran at the same time counts in full."
    )
    lines += held(time)
    if stages["reused"]:
        lines.append(f"{words.reused(stages)}, which saved {duration(stages['seconds_saved'])} of training.")
    elif stages["computed"]:
        lines.append(f"All {count(stages['computed'], 'stage')} were computed: none could be reused.")
    return lines


def held(time: Facts) -> list[str]:
    """The hours of `raymc.reporting.search.cost.held`: of training, of waiting, and by type of machine."""
    lines = [f"That is {_hours(time['core_hours'], time['gpu_hours'])} of training, {_by_what(time)}."]
    if time["waited_seconds"]:
        hours = _hours(time["waiting_core_hours"], time["waiting_gpu_hours"])
        lines.append(
            f"A further {hours} were held in {duration(time['waited_seconds'])} of waiting for stages that other "
            f"processes computed: {_share_of_waiting(time)} of all that was held."
        )
    if len(time["by_machine"]) > 1 or "" not in time["by_machine"]:
        lines.append(f"Held, waiting included: {listing([_of_machine(*one) for one in time['by_machine'].items()])}.")
    return lines


def _hours(cores: float, gpus: float) -> str:
    return f"{cores:.3g} core-hours" + (f" and {gpus:.3g} GPU-hours" if gpus else "")


def _share_of_waiting(time: Facts) -> str:
    """Of the GPU-hours that were held, of the core-hours where there was no GPU."""
    of = "gpu_hours" if time["gpu_hours"] + time["waiting_gpu_hours"] else "core_hours"
    share = time[f"waiting_{of}"] / (time[of] + time[f"waiting_{of}"])
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"


def _of_machine(name: str, hours: Facts) -> str:
    """`12 core-hours and 3 GPU-hours on NVIDIA H200`."""
    held = [hours[of] + hours[f"waiting_{of}"] for of in ("core_hours", "gpu_hours")]
    return f"{_hours(*held)} on {name or 'machines that are not named'}"


def _by_what(time: Facts) -> str:
    if not time["assumed"]:
        return "by what each training had"
    some = f"{time['assumed']} of {count(time['trainings'], 'training')}"
    if not time["asked"]:
        return f"by what each training had; {some} do not say it, and are not counted"
    if time["assumed"] == time["trainings"]:
        return "by what was asked for: the trainings do not say what they had"
    return f"by what each training had, for {some} that do not say it by what was asked for"


def tracking(facts: Facts) -> str:
    """Where the links to MLflow lead; markup, where a command is to be typed."""
    place = facts["tracking"]
    if place["runs"] is None:
        return "The study names no MLflow experiment, so its runs are not linked."
    if place["served"]:
        return f"Links lead to the MLflow server {place['uri']}."
    command = shlex.join([*beside_python("mlflow"), "ui", "--backend-store-uri", place["uri"]])
    return Markup("Links lead to MLflow's pages while this serves them: <code>{}</code>.").format(command)


def _trials(facts: Facts) -> int:
    return sum(n for name, n in facts["trials"].items() if name != "planned")
