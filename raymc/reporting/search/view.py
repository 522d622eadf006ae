"""What the page's template shows: the facts with their sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymc.metrics.names import LABEL_METRICS
from raymc.reporting import baseline, words
from raymc.reporting.charts.coding_lengths import length_curves
from raymc.reporting.charts.confusion import confusion_matrix
from raymc.reporting.charts.curves import learning_curves
from raymc.reporting.charts.gallery import build_gallery
from raymc.reporting.charts.rank_isometry import build_rank_isometry
from raymc.reporting.charts.rates import rate_charts
from raymc.reporting.charts.search import against_acc, course, fresh_seeds, importance_bars, slices
from raymc.reporting.charts.similarity import build_similarity
from raymc.reporting.charts.stages import build_stages
from raymc.reporting.search import sentences
from raymc.reporting.search.cautions import at_limit, edge
from raymc.reporting.search.label_free import words_of
from raymc.reporting.search.pareto import pareto_plot, pareto_words
from raymc.reporting.search.trials_table import trial_table
from raymc.study.reader import Study, confirmation_of
from raymc.study.records import Record, SeedRun
from raymc.study.words import setting
from raymc.training.outputs import Arrays, read_gallery, read_geometry, read_labels, read_similarity, read_snapshots

Facts = Mapping[str, Any]


def build_view(study: Study, facts: Facts) -> dict[str, Any]:
    """Every name that `report.html.j2` uses, beside its style and script."""
    best = facts["winner"]["trial"] if facts["winner"] else None
    mine = next((one for one in facts["confirmation"] if one["trial"] == best), None)
    headers, rows = trial_table(study, facts)
    shares = facts["importance"]["values"]
    shown = -1 if best is None else best
    return {
        "f": facts,
        "data_name": data_name(facts),
        "mine": mine,
        "verdict": " ".join(filter(None, (sentences.verdict(facts, mine), baseline.sentence(facts["baseline"])))),
        "cards": _cards(study, mine),
        "settings": _settings(study, facts),
        "chosen": sentences.chosen(facts) if best is not None else "",
        "fresh_plot": fresh_seeds(study, facts["confirmation"], shown),
        "drops": sentences.drops(facts),
        "statistics": _statistics(mine),
        "baseline_words": baseline.lines(facts["baseline"]),
        "objective": words.objective(study),
        "asked": _asked(study, facts),
        "importance_plot": importance_bars(shares) if shares else None,
        "pareto_plot": pareto_plot(study, facts["pareto"], shown) if facts["pareto"] else None,
        "pareto_words": pareto_words(facts["pareto"]) if facts["pareto"] and facts["pareto"]["front"] else "",
        "course_plot": course(study, shown),
        "slice_plots": list(zip(study.searched, slices(study, shown), strict=False)),
        "label_free_words": words_of(facts["label_free"]),
        "label_free_plots": against_acc(study, facts["label_free"]),
        "trials_words": sentences.trials(facts),
        "headers": headers,
        "rows": rows,
        "tracking_words": sentences.tracking(facts),
        "errors": [(f"trial {trial.trial}", trial.error) for trial in study.trials if trial.error],
        "curve_plots": learning_curves(study, best),
        "counts": length_curves(_runs(study, best), study.get("data", "n_classes")),
        "rates": rate_charts(_runs(study, best)),
        "cost_words": sentences.cost(facts),
        "manifest": _manifest(study, facts),
        **_clusters(study, best),
    }


def _statistics(mine: Facts | None) -> list[dict[str, Any]]:
    return [{"metric": name, **found} for name, found in (mine or {}).get("statistics", {}).items()]


def _cards(study: Study, mine: Facts | None) -> list[dict[str, Any]]:
    """The objective and the label metrics."""
    wanted = (study.objective.metric, *LABEL_METRICS)
    return [one for one in _statistics(mine) if one["metric"] in wanted]


def _settings(study: Study, facts: Facts) -> list[dict[str, Any]]:
    params = (facts["winner"] or {}).get("params", {})
    return [
        {
            "key": key,
            "value": setting(params[key]) if key in params else "–",
            "range": words.searched_range(spec),
            "edge": _edge(study, key, params),
        }
        for key, spec in study.searched.items()
    ]


def _edge(study: Study, key: str, params: Mapping[str, Any]) -> str:
    """`at the lower edge`, where the winner's value is."""
    side = edge(params.get(key), study.searched[key])
    if side is None:
        return ""
    return f"at the {side} {'end of what is possible' if at_limit(study, key, side) else 'edge'}"


def _asked(study: Study, facts: Facts) -> list[tuple[str, str]]:
    data = facts["data"] or {}
    classes = f", {data['n_classes']} classes" if data.get("n_classes") else ", no labels"
    held_out = f"; held out: {data['test_n']:,}" if data.get("test_n") else ""
    seeds = study.get("seeds") or ()
    fresh = study.get("confirm", "seeds") or ()
    found = [
        ("search space", facts["space"]),
        ("method", f"{facts['method']}, preset {facts['preset']}" if facts["method"] else None),
        ("data", f"{data_name(facts)}: {data.get('split') or data.get('n')}{classes}{held_out}" if data else None),
        ("clusters", facts["clusters_by"]),
        ("trials", facts["trials"]["planned"]),
        ("no trial begins after", _limits(study)),
        ("sampler", _options(study, "sampler")),
        ("pruner", _options(study, "pruner")),
        ("search seeds", _seeds(seeds)),
        ("fresh seeds", f"{_seeds(fresh)}, for the best {study.get('confirm', 'top')}" if fresh else None),
    ]
    return [(name, str(value)) for name, value in found if value]


def _limits(study: Study) -> str:
    """`2 hours or 10 trials without a gain`; empty where there is no limit but the number of trials."""
    budget, names = study.get("budget") or {}, {"hours": "hours", "gpu_hours": "GPU-hours"}
    found = [f"{budget[key]:g} {name}" for key, name in names.items() if budget.get(key)]
    found += [f"{budget['patience']} trials in a row without a gain"] if budget.get("patience") else []
    return " or ".join(found)


def _options(study: Study, section: str) -> str:
    """`tpe (n_startup_trials=10, …)`; empty in studies of before, and of no pruner."""
    given = dict(study.get(section) or {})
    name = str(given.pop("name", ""))
    options = ", ".join(f"{key}={setting(value)}" for key, value in given.items())
    return "" if name in ("", "none") else f"{name} ({options})" if options else name


def data_name(facts: Facts) -> str:
    """The dataset's name, or where the user's own data lie."""
    dataset = facts["dataset"]
    return str(dataset.get("path") or "own data") if isinstance(dataset, Mapping) else str(dataset)


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} ({words.listing([str(seed) for seed in seeds])})" if seeds else ""


def _clusters(study: Study, best: int | None) -> dict[str, Any]:
    """Pictures of the winner's clusters, from its first fresh seed that finished, else its first search seed."""
    runs = _runs(study, best)
    gallery, similarity, stages, geometry = (
        next(((run, arrays) for run in runs if (arrays := read(run.folder))), None)
        for read in (read_gallery, read_similarity, read_snapshots, read_geometry)
    )
    confusion = next((found for run in runs if (found := confusion_matrix(run))), None)
    where = "No training of the winner" if best is not None else "There is no winner, so no training"
    return {
        "gallery": build_gallery(gallery[1]) if gallery else None,
        "gallery_of": _gallery_of(*gallery) if gallery else "",
        "no_gallery": f"{where} left a gallery: it is drawn for image data only.",
        "similarity": build_similarity(similarity[1]) if similarity else None,
        "similarity_seed": similarity[0].seed if similarity else None,
        "stages": build_stages(stages[1]) if stages else None,
        "stages_seed": stages[0].seed if stages else None,
        "geometry": build_rank_isometry(geometry[1]) if geometry else None,
        "geometry_seed": geometry[0].seed if geometry else None,
        "confusion": confusion,
        "no_confusion": f"{where} left labels to compare with: the data has none, or nothing finished.",
    }


def _gallery_of(run: SeedRun, arrays: Arrays) -> str:
    drawn, found = len(arrays["images"]), len(set(read_labels(run.folder).get("labels", [])))
    return f"From seed {run.seed}" + (f", the {drawn} largest of {found} clusters." if found > drawn else ".")


def _runs(study: Study, best: int | None) -> list[SeedRun]:
    if best is None:
        return []
    records: list[Record | None] = [confirmation_of(study, best), *(t for t in study.trials if t.trial == best)]
    return [run for record in records if record is not None for run in record.seeds if run.state == "finished"]


def _manifest(study: Study, facts: Facts) -> list[tuple[str, str]]:
    manifest, data = facts["manifest"], facts["data"] or {}
    return words.manifest_rows(
        manifest,
        ("data fingerprint", data.get("fingerprint")),
        ("study's seed", manifest["seed"]),
        ("computed in", words.precisions(run for record in study.records for run in record.seeds)),
        ("tracking", facts["tracking"]["uri"]),
    )
