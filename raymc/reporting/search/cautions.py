"""What a reader of a report must be warned of: `{"kind", "text"}` each, the gravest first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from raymc.config import known_keys
from raymc.methods import METHODS
from raymc.reporting.search.label_free import clusters_asked
from raymc.reporting.words import count, empty_clusters, from_checkpoints, listing, score, state
from raymc.study.reader import Study
from raymc.study.records import BAD, Record
from raymc.study.words import about_the_data, setting

EDGE = 0.05
"""Share of a range's width that counts as its edge."""

END = {"lower": "low", "upper": "high"}
"""The end of a range on a side."""

ENOUGH_SEEDS = 10
"""Confirmation seeds below which an interval is called weak."""

EMPTY, DATA = "empty_clusters", "data"
"""The kinds of the warnings that are also printed when a search ends."""

Caution = tuple[str, str]


def cautions(study: Study, best: Record | None, confirmed: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The warnings of a study; `confirmed` is the winner's entry of `confirmed.confirmation`, if there is one."""
    found = [*_of_the_study(study), *_of_confirmation(study, best, confirmed)]
    if best is not None:
        found += _edges(study, best)
    found += _of_trials(study)
    return [{"kind": kind, "text": text} for kind, text in found]


def edge(value: object, spec: Mapping[str, Any]) -> str | None:
    """`lower` or `upper` where a number lies within 5 % of its range's end (in the logarithm on a log scale)."""
    low, high = spec.get("low"), spec.get("high")
    if isinstance(value, bool) or not isinstance(value, int | float) or low is None or high is None or low >= high:
        return None
    if spec.get("log"):
        if min(value, low) <= 0:
            return None
        value, low, high = math.log(value), math.log(low), math.log(high)
    place = (value - low) / (high - low)
    return "lower" if place <= EDGE else "upper" if place >= 1 - EDGE else None


def at_limit(study: Study, key: str, side: str) -> bool:
    """Whether the range of a searched key ends, on that side, where the values end that the key can have."""
    method = METHODS.get(str(study.get("method")))
    known = known_keys(method.stage_settings).get(key) if method else None
    return known is not None and getattr(known.limits, END[side]) == study.searched[key][END[side]]


def _of_the_study(study: Study) -> Iterator[Caution]:
    if study.get("smoke"):
        yield "smoke", "Smoke run: every length was shortened. It shows that the path works; its figures mean nothing."
    if said := about_the_data(study.get("data") or {}):
        yield DATA, f"{said[0].upper()}{said[1:]}."
    unfinished = sum(trial.state == "running" for trial in (*study.trials, *study.confirmations))
    if unfinished:
        yield "unfinished", f"{count(unfinished, 'record')} unfinished: the study runs still, or waits for --resume."
    if study.unreadable:
        yield "unreadable", f"Left out as unreadable: {listing(study.unreadable)}."
    halved = {name: None for record in (*study.trials, *study.confirmations) for name in record.checkpoints}
    if halved:
        names = from_checkpoints(list(halved))
        yield "float16", f"Trainings started from weights that were rounded to float16: {names}."
    if not study.finished:
        yield "nothing_finished", "No trial finished with a score, so there is no winner."


def _of_confirmation(study: Study, best: Record | None, confirmed: Mapping[str, Any] | None) -> Iterator[Caution]:
    if best is None:
        return
    if confirmed is None:
        optimistic = "Its search score is the best of many, so optimistic."
        yield "unconfirmed", f"The winner was not run on fresh seeds. {optimistic}"
        return
    lost = {name: n for name, n in confirmed["states"].items() if name in BAD}
    for name, n in lost.items():
        among = count(len(confirmed["seeds"]), "fresh seed")
        yield name, f"{n} of the winner's {among} ended {state(name)}. The statistics leave them out and flatter it."
    empty = empty_clusters(confirmed["statistics"], clusters_asked(study, best), "fresh seed")
    if empty:
        yield EMPTY, f"{empty[0].upper()}{empty[1:]}."
    yield from _few_seeds(study, confirmed)
    reused = sorted(set(study.get("seeds") or ()) & set(confirmed["seeds"]))
    if reused:
        yield "seeds_reused", f"Not fresh: the search also used {listing([f'seed {seed}' for seed in reused])}."
    before, ends = confirmed["search_score"], confirmed["statistics"].get(study.objective.metric, {}).get("ci95")
    if ends and (confirmed["drop"] or 0) > 0 and not ends[0] <= before <= ends[1]:
        outside = f"The search score {score(before)} lies outside the interval of the fresh seeds"
        yield "optimistic", f"{outside}: the search flattered the winner."


def _few_seeds(study: Study, confirmed: Mapping[str, Any]) -> Iterator[Caution]:
    n, asked = confirmed["states"].get("finished", 0), study.get("confirm", "seeds") or ()
    if len(confirmed["seeds"]) < len(asked):
        missing = len(asked) - len(confirmed["seeds"])
        yield "confirmation_incomplete", f"{count(missing, 'fresh seed')} of {len(asked)} not run yet."
    if n < ENOUGH_SEEDS:
        only = count(n, "fresh seed") + " finished"
        yield "few_seeds", f"Only {only}: with fewer than {ENOUGH_SEEDS} the spread is itself uncertain."


def _edges(study: Study, best: Record) -> Iterator[Caution]:
    for key, spec in study.searched.items():
        side = edge(best.params.get(key), spec)
        if side is None:
            continue
        end = setting(spec[END[side]])
        where = f"{key} = {setting(best.params[key])} lies at the {side} edge of its range ({end})"
        if at_limit(study, key, side):
            yield "limit", f"{where}, which is the end of what is possible: the range cannot be widened there."
        else:
            yield "edge", f"{where}: better values may lie beyond it. Widen the range and search again."


def _of_trials(study: Study) -> Iterator[Caution]:
    infeasible = sum(not study.feasible(trial) for trial in study.finished)
    if infeasible:
        some = count(infeasible, "finished trial")
        yield "infeasible", f"{some} could not win for want of {study.objective.constraint}."
    n = len(study.trials)
    states = Counter(trial.state for trial in study.trials)
    lost = [f"{states[name]} {state(name)}" for name in BAD if states[name]]
    if lost:
        yield "lost_trials", f"Of {count(n, 'trial')}, {listing(lost)}: the space reaches where training breaks down."
    if n and states["pruned"] / n > 0.5:
        share = round(100 * states["pruned"] / n)
        early = f"{share} % of the trials were stopped early"
        yield "pruned", f"{early}: slow starters may have been judged by their first epochs."
