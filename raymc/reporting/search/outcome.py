"""How a study stands: the winner on fresh seeds, the JSON of `tune`, and the lines that say it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from raymc.errors import InputError, TrainingError
from raymc.masking import masked
from raymc.reporting.baseline import sentence
from raymc.reporting.search.cautions import DATA, EMPTY
from raymc.reporting.search.facts import gather
from raymc.reporting.search.page import write_report
from raymc.reporting.search.sentences import against_default
from raymc.reporting.words import consensus
from raymc.study import files
from raymc.study.folder import read_space, write_manifest
from raymc.study.queue import TrialQueue
from raymc.study.reader import Study, read_study
from raymc.study.records import BAD, FINISHED, Row
from raymc.study.request import report_folder
from raymc.study.winner import WINNER, write_winner
from raymc.study.words import configured
from raymc.tracking.model import log_model
from raymc.tracking.outcome import log_outcome
from raymc.tracking.projection import run_name
from raymc.tracking.study import StudyTracker
from raymc.training.model_files import FOLDER as MODEL

FLUSH_SECONDS = 30.0


def finish(
    folder: Path,
    manifest: Row,
    queue: TrialQueue,
    tracker: StudyTracker,
    tracking_uri: str,
    place: str,
    register: str | None = None,
) -> Row:
    """Write the report of a study whose tasks have all ended, print its outcome, return the JSON of `tune`.

    `place` is where the study is, which may be a URI; `register` is the name under which the winner's model is
    registered in MLflow. Raises TrainingError, with that JSON, when no trial finished.
    """
    study = read_study(folder)
    facts = gather(study)
    counts = queue.counts()
    chosen = _confirmed(facts)
    log_outcome(study, facts, chosen, counts, tracker)
    sent = tracker.flush(FLUSH_SECONDS)
    _note_runs(folder, manifest, tracker)
    picked = write_winner(study, read_space(folder, manifest))
    logged = log_winner(folder, picked, tracker, tracking_uri, register)
    page = write_report(folder, report_folder(folder.name))
    tracker.artifact(page, folder="report")
    if not sent:
        why = f"takes nothing: {tracker.refusal}" if tracker.refusal else "has not answered"
        print(f"MLflow at {masked(tracking_uri)} {why}; --resume sends what it lacks", file=sys.stderr)
    best = facts["winner"]
    result = {
        "study": folder.name,
        "space": manifest["space"]["name"],
        "trials": counts,
        "best": best and {key: best[key] for key in ("trial", "params", "metrics")},
        "stages": {key: facts["stages"][key] for key in ("computed", "reused")},
        "confirm": chosen and _confirm(chosen, facts),
        "default": facts["default"],
        "winner": picked and {**picked, "folder": f"{place}/{WINNER}"},
        "baseline": facts["baseline"],
        "smoke": manifest["smoke"],
        "folder": place,
        "report": str(page),
        "tracking_uri": masked(tracking_uri),
        **logged,
    }
    if best is None:
        error = TrainingError(_why(study, counts))
        error.result = result
        raise error
    _tell(facts, result)
    return result


def log_winner(folder: Path, picked: Row | None, tracker: StudyTracker, tracking_uri: str, register: str | None) -> Row:
    """Log the winner's model with its run in MLflow; what the JSON says of that. A study that is done stays done."""
    model = folder / WINNER / MODEL
    if picked is None or not model.is_dir():
        if register is not None:
            print(f"--register {register}: the study has no {model}", file=sys.stderr)
        return {}
    known = tracker.run_ids()
    runs = [known.get(run_name(picked["trial"], kind=kind)) for kind in ("confirm", "search")]
    run = next((one for one in runs if one), None)
    if run is None:
        why = tracker.refusal or "it has not answered"
        print(f"the model is not in MLflow at {masked(tracking_uri)}: {why}", file=sys.stderr)
        return {}
    try:
        logged = log_model(model, tracking_uri, run, register)
    except InputError as error:
        print(f"the model is not in MLflow: {error}", file=sys.stderr)
        return {}
    named = {} if register is None else {"registered": {"name": register, "version": logged.version}}
    return {"model_id": logged.model_id, **named}


def _confirmed(facts: Row) -> Row | None:
    """The winner on fresh seeds."""
    best = facts["winner"]
    return next((one for one in facts["confirmation"] if best and one["trial"] == best["trial"]), None)


def _confirm(chosen: Row, facts: Row) -> Row:
    """The confirmation as `tune --json` prints it: the winner's statistics, and how all candidates did."""
    keys = ("trial", "state", "search_score", "score", "drop")
    agreement = {"pairwise_ari": chosen["pairwise_ari"]} if chosen["pairwise_ari"] else {}
    return {
        **{key: chosen[key] for key in (*keys, "seeds", "states")},
        **chosen["statistics"],
        **agreement,
        "candidates": [{key: one[key] for key in keys} for one in facts["confirmation"]],
    }


def _note_runs(folder: Path, manifest: Row, tracker: StudyTracker) -> None:
    """Write MLflow's ids beside what they are of, for the report's links; those of before where it is away."""
    known = tracker.run_ids()
    if tracker.run_id is None:
        return
    manifest |= {"experiment_id": tracker.experiment_id, "run_id": tracker.run_id}
    write_manifest(folder, manifest)
    for kind in ("search", "confirm", "default"):
        for path in sorted((folder / files.FOLDERS[kind]).glob("*/record.json")):
            record = files.read_record(folder, kind, int(path.parent.name))
            run = known.get(run_name(int(path.parent.name), kind=kind))
            if record is not None and run is not None and record.run_id != run:
                files.write_record(folder, replace(record, run_id=run))


def _why(study: Study, counts: dict[str, int]) -> str:
    """One line: how the trials ended, and the first error."""
    if study.finished and study.objective.constraint:
        return f"of {len(study.finished)} finished trials none has {study.objective.constraint}"
    bad = [record for record in study.trials if record.state in BAD]
    states = Counter(record.state for record in bad)
    ended = ", ".join(f"{count} {state}" for state, count in states.items()) or f"{counts['pruned']} pruned"
    errors = [record.error.strip().splitlines()[-1] for record in bad if record.error]
    early = study.get("budget", "ended_early")
    why = f": {early} before" if early and not study.trials else ""
    return f"no trial finished ({ended}){why}" + (f"; the first error: {errors[0]}" if errors else "")


def _tell(facts: Row, result: Row) -> None:
    counts, best, confirm = result["trials"], result["best"], result["confirm"]
    metric = facts["objective"]["metric"]
    mark = " (smoke: every length shortened, the figures mean nothing)" if result["smoke"] else ""
    print(f"study {result['study']}{mark}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
    if facts["ended_early"]:
        print(f"  no more trials were begun, since {facts['ended_early']}")
    print(f"winner: trial {best['trial']}: {configured(best['params'])}")
    print(f"  {metric} in the search: {facts['winner']['search_score']:.4f}")
    for one in facts["confirmation"]:
        print(f"  {_fresh(one, metric)}")
    if confirm is None:
        print("  not confirmed on fresh seeds: the search score flatters it")
    if gained := against_default(facts).strip():
        print(f"  {gained}")
    if said := sentence(facts["baseline"]):
        print(f"  {said}")
    if together := consensus(result["winner"]["consensus"]):
        print(f"  {together}")
    for one in facts["warnings"]:
        if one["kind"] in (EMPTY, DATA):
            print(f"  warning: {one['text']}")
    print(_left(result["winner"]))
    stages = result["stages"]
    print(f"stages: {stages['computed']} computed, {stages['reused']} taken from the store")
    if named := result.get("registered"):
        print(f"model: version {named['version']} of {named['name']} in MLflow at {result['tracking_uri']}")
    print(f"report: {result['report']}")


def _left(picked: Row) -> str:
    """Of which seed there are labels, and where."""
    agreement = picked["agreement"]
    why = "" if agreement is None else f", which agrees most with the others (ARI {agreement:.4f})"
    return f"labels and configuration of seed {picked['seed']}{why}: {picked['folder']}"


def _fresh(one: Row, metric: str) -> str:
    """A confirmed trial in one line."""
    found = one["statistics"].get(metric) or {"n": len(one["seeds"]), "mean": one["score"]}
    if one["state"] != FINISHED or found["mean"] is None:
        states = ", ".join(f"{count} {state}" for state, count in one["states"].items())
        return f"trial {one['trial']} on fresh seeds: {states}"
    mean = f"{metric} {found['mean']:.4f}{_spread(found)}"
    return f"trial {one['trial']} on {found['n']} fresh seeds: {mean}{_change(one)}"


def _change(one: Row) -> str:
    """How the mean differs from the search's: what the search flattered it by."""
    drop = one["drop"]
    return "" if drop is None else f", {abs(drop):.4f} {'worse' if drop > 0 else 'better'} than the search's"


def _spread(found: dict[str, Any]) -> str:
    return f" ± {found['std']:.4f} (min {found['min']:.4f})" if found.get("std") is not None else ""
