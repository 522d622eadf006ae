"""Runs of `stability` as they lie in the storage, of seeds that were never trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = {
    "created": "2026-11-24T10:00:00+00:00",
    "wall_seconds": 125.0,
    "command": "python -m raymc.stability mlc_digits --vs nmce_digits --storage 'my place'",
    "versions": {"python": "3.11.7", "torch": "2.9.0", "mlflow": None},
    "git": "0123abc",
    "hardware": {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "gpus": []},
    "data": {"name": "digits", "n": 60, "fingerprint": "f00d"},
}
EPOCHS = 12
POINTS = 60
CLASSES = np.arange(POINTS) % 3


def fabricate_run(folder: Path, name: str, groups: Mapping[str, Sequence[float]], **changes: Any) -> Path:
    """A run of `groups`, each with the ACC of its seeds; one alone stands in the run's own folder.

    `labels=False` leaves the true labels away; `states` are those of seeds that did not finish; others go to the facts.
    """
    place = folder / "stability" / name
    facts = {"name": name, "smoke": False, "tracking_uri": "sqlite:///mlflow.db", "manifest": MANIFEST}
    only = len(groups) == 1
    for group, values in groups.items():
        own = {"overrides": {}, **(facts if only else {"name": group, "smoke": False})}
        fabricate_group(place if only else place / group, group, values, own, **changes)
    if not only:
        write(
            place / "stability.json",
            facts | {"arms": list(groups), "seeds": list(range(len(next(iter(groups.values())))))},
        )
    return place


def fabricate_group(
    place: Path,
    group: str,
    values: Sequence[float],
    own: Mapping[str, Any],
    *,
    labels: bool = True,
    states: Mapping[int, str] | None = None,
    **facts: Any,
) -> None:
    write(
        place / "stability.json",
        {
            "space": group, "method": "mlc", "dataset": "digits", "split": "train, 60", "n": POINTS, "params": {},
            "clusters_by": "argmax of the cluster head", "seeds": list(range(len(values))), "seeds_from": "heads",
            "config": {"heads.eps_sq": 0.2}, **own, **facts,
        },
    )  # fmt: skip
    for seed, acc in enumerate(values):
        fabricate_seed(
            place / "runs" / "0000" / f"seed-{seed}", seed, acc, labels, (states or {}).get(seed, "finished")
        )


def fabricate_seed(folder: Path, seed: int, acc: float, labels: bool, state: str) -> None:
    """Of the 60 samples, a share of 1 - `acc` is in a cluster of another class."""
    wrong = round((1 - acc) * POINTS)
    found = CLASSES.copy()
    moved = np.random.default_rng(seed).permutation(POINTS)[:wrong]
    found[moved] = (found[moved] + 1) % 3
    metrics = {"acc": acc, "nmi": acc**2} if labels else {}
    metrics |= {"silhouette": acc / 4, "rate_reduction": 10 * acc, "clusters_used": 3.0}
    stages = [
        {"name": "pretrain", "epochs": 5, "cached": seed > 0, "seconds": 4.0, "key": "952111b2"},
        {"name": "heads", "epochs": EPOCHS, "cached": False, "seconds": 1.0, "key": f"heads-{seed}-{acc}"},
    ]
    bad = state != "finished"
    row = {"seed": seed, "state": state, "metrics": {} if bad else metrics, "stages": [] if bad else stages}
    write(folder / "result.json", row | {"seconds": 1.5 + seed, "error": f"{state}: of one cluster" if bad else None})
    if not bad:
        np.savez(folder / "labels.npz", labels=found, **({"y": CLASSES} if labels else {}))
        lines = [{"stage": "pretrain", "epoch": e, "epochs": 5, "loss": -e} for e in range(1, 6)]
        for epoch in range(1, EPOCHS + 1):
            line: dict[str, Any] = {"stage": "heads", "epoch": epoch, "epochs": EPOCHS, "loss": -epoch * acc}
            lines.append(line | ({"acc": acc * epoch / EPOCHS} if labels and epoch % 4 == 0 else {}))
        (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
