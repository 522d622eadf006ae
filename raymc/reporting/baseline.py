"""k-means beside what a report is about: figures of both, and the sentence that says which is better."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from raymc.metrics.names import LABEL_METRICS, bounds
from raymc.metrics.seeds import paired, summary
from raymc.reporting.words import count, score
from raymc.study.records import Record, Row
from raymc.training import baseline as kmeans

SHOWN = (*LABEL_METRICS, "silhouette")
DECIDES = "acc"


def beside(record: Record, agreement: Mapping[str, float] | None, baseline: Row | None) -> Row | None:
    """The figures of a configuration's seeds and of k-means on the same samples; None without such a record.

    `rows` have of each metric both `summary`s and, of those that need labels, the paired `difference` over the common
    seeds. `beats`: whether ACC's 95 % interval of the difference lies above 0; None without labels, and where a single
    seed is ahead, which says nothing.
    """
    if baseline is None or not record.finished:
        return None
    rows = [row for name in SHOWN if (row := _row(name, record.values(name), _values(baseline, name)))]
    agreed = [one and one["mean"] for one in (agreement, baseline.get("pairwise_ari"))]
    return {
        **{key: baseline[key] for key in ("n_clusters", "n", "clustered", "starts", "seeds")},
        "rows": rows,
        "stability": dict(zip(("own", "kmeans"), agreed, strict=True)),
        "seconds": {
            "own": statistics.fmean(run.seconds for run in record.finished),
            "kmeans": statistics.fmean(one["seconds"] for one in baseline["per_seed"]),
        },
        "beats": _beats(rows),
    }


def sentence(found: Row | None) -> str:
    """What the first paragraph says of k-means; empty where nothing is known of it."""
    if found is None:
        return ""
    row = next((row for row in found["rows"] if row["metric"] == DECIDES), None)
    if row is None:
        return _without_labels(found)
    gap, low_high = row["difference"], row["difference"]["ci95"]
    over = f"ACC {score(row['kmeans']['mean'])} over {count(row['kmeans']['n'], 'seed')}"
    who = _named(found)
    apart = f"a difference of {score(gap['mean'])}"
    if low_high is not None and low_high[0] < low_high[1]:  # a few seeds may differ by the very same amount
        apart += f", 95 % interval {score(low_high[0])} to {score(low_high[1])}"
    if found["beats"]:
        return f"{who} reaches {over}: it is beaten, by {apart}."
    if found["beats"] is None:
        return f"{who} reaches {over}, {apart}: one seed does not tell them apart."
    return f"It does not beat {who}, which reaches {over} ({apart})."


def lines(found: Row | None) -> list[str]:
    """By what k-means was run, and how long both took."""
    if found is None:
        return []
    part = f" of {found['clustered']:,} of {found['n']:,} samples, the others by their nearest centre"
    return [
        f"k-means with {found['n_clusters']} clusters, the best of {count(found['starts'], 'start')} on each of "
        f"{count(len(found['seeds']), 'seed')}{part if found['clustered'] < found['n'] else ''}. It took "
        f"{found['seconds']['kmeans']:.3g} s a seed, the configuration {found['seconds']['own']:.3g} s, without what "
        "the store had of it."
    ]


def _named(found: Row) -> str:
    """k-means, with its starts where they are fewer than usual: the best of few is easier to beat."""
    few = f", best of {count(found['starts'], 'start')}," if found["starts"] < kmeans.STARTS else ""
    return f"k-means{few} on the same samples"


def _without_labels(found: Row) -> str:
    figures = [
        f"{name} {score(both['own'])} against {score(both['kmeans'])}"
        for name, both in (("agreement of seeds", found["stability"]), *_means(found["rows"]))
        if None not in both.values()
    ]
    if not figures:
        return ""
    return f"Beside {_named(found)}: {', '.join(figures)}; without labels that does not say which is better."


def _means(rows: Sequence[Row]) -> list[tuple[str, dict[str, float]]]:
    return [(row["metric"], {who: row[who]["mean"] for who in ("own", "kmeans")}) for row in rows]


def _row(name: str, own: Mapping[int, float], kmeans: Mapping[int, float]) -> Row | None:
    if not own or not kmeans:
        return None
    of = {"own": own, "kmeans": kmeans}
    row: Row = {"metric": name} | {who: summary(list(values.values()), bounds(name)) for who, values in of.items()}
    common = sorted(own.keys() & kmeans.keys())
    gap: dict[str, Any] = paired([own[seed] for seed in common], [kmeans[seed] for seed in common])
    if gap["mean"] is None:  # other seeds: the means alone
        gap["mean"] = row["own"]["mean"] - row["kmeans"]["mean"]
    return row | {"difference": {key: gap[key] for key in ("n", "mean", "ci95")} if name in LABEL_METRICS else None}


def _beats(rows: Sequence[Row]) -> bool | None:
    gap = next((row["difference"] for row in rows if row["metric"] == DECIDES), None)
    if gap is None:
        return None
    if gap["ci95"] is None:
        return None if gap["mean"] > 0 else False
    return bool(gap["ci95"][0] > 0)


def _values(baseline: Row, name: str) -> dict[int, float]:
    return {one["seed"]: one["metrics"][name] for one in baseline["per_seed"] if name in one["metrics"]}
