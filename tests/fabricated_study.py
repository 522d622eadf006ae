"""A made-up study's folder, as a search would have left it: for tests of what reads studies.

Its numbers follow a plausible landscape (a best weight decay, noise between seeds, a region that collapses), from a
fixed generator. Nothing here was trained.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from raymc.metrics.rank_isometry import rank_and_isometry
from raymc.training.outputs import similarity_map, write_arrays

SEARCHED: dict[str, dict[str, Any]] = {
    "heads.weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "heads.learning_rate": {"low": 0.05, "high": 1.0, "log": True},
    "heads.eps_sq": {"low": 0.05, "high": 0.5, "log": True},
    "heads.temperature": {"low": 0.3, "high": 2.0, "log": False},
    "finetune.similarity_weight": {"choices": [0, 30, 50]},
}
STAGES = ("pretrain", "heads", "finetune")
KIND = {"pretrain": 24, "heads": 12, "finetune": 8}
"""Epochs of each stage."""


class Fabricator:
    """Writes one study; `classes` 0 means data without labels, `images` False vector data."""

    def __init__(self, folder: Path, *, classes: int = 10, images: bool = True, seed: int = 0) -> None:
        self.folder, self.classes, self.images = folder, classes, images
        self.random = np.random.default_rng(seed)
        self.computed: set[str] = set()

    def study(self, **changes: Any) -> None:
        """`study.json`; `changes` replace its entries."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.loads((Path(__file__).parent / "fabricated_study.json").read_text(encoding="utf-8"))
        content |= {"study": self.folder.name, "searched": SEARCHED, **changes}
        self._write(self.folder / "study.json", content)

    def params(self, trial: int) -> dict[str, Any]:
        if trial == 0:  # the values that the space tries first
            return {
                "heads.weight_decay": 1e-3, "heads.learning_rate": 0.3, "heads.eps_sq": 0.2,
                "heads.temperature": 1.0, "finetune.similarity_weight": 0,
            }  # fmt: skip
        drawn: dict[str, Any] = {}
        for key, spec in SEARCHED.items():
            if "choices" in spec:
                drawn[key] = int(self.random.choice(spec["choices"]))
            elif spec["log"]:
                drawn[key] = float(math.exp(self.random.uniform(math.log(spec["low"]), math.log(spec["high"]))))
            else:
                drawn[key] = float(self.random.uniform(spec["low"], spec["high"]))
        return drawn

    def record(
        self, trial: int, params: dict[str, Any], seeds: list[int], kind: str = "search", **changes: Any
    ) -> dict[str, Any]:
        """One record with its seed folders; `changes` replace entries of the record."""
        place = self.folder / ("trials" if kind == "search" else "confirm") / f"{trial:04d}"
        state = changes.get("state", "finished")
        runs = [self._seed(place, trial, params, seed, state) for seed in seeds]
        done = [run["metrics"] for run in runs if run["state"] == "finished"]
        means = {key: float(np.mean([metrics[key] for metrics in done])) for key in (done[0] if done else ())}
        if len(done) > 1:  # as agreement between seeds: better configurations agree more, not exactly
            means["stability"] = means["rate_reduction"] / 60 + 0.05 * math.sin(trial)
        metric = "acc" if self.classes else "rate_reduction"
        record = {
            "trial": trial, "kind": kind, "state": state, "params": params,
            "score": means.get(metric), "metrics": means,
            "per_seed": runs, "started": f"2026-01-05T10:{trial % 60:02d}:00+00:00",
            "seconds": sum(run["seconds"] for run in runs), "error": None, "run_id": f"{trial:032x}", "new_key": 1,
        }  # fmt: skip
        lost = [run["state"] for run in runs if run["state"] != "finished"]
        if lost and state == "finished":  # one bad seed names the state of its group
            record |= {"state": lost[0], "score": None}
        record |= changes
        self._write(place / "record.json", record)
        return record

    def _seed(self, place: Path, trial: int, params: dict[str, Any], seed: int, state: str) -> dict[str, Any]:
        folder = place / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        collapsed = state != "finished" or (params["heads.temperature"] > 1.7 and self.random.random() < 0.4)
        ended = (state if state != "finished" else "collapsed") if collapsed else "finished"
        quality = self._quality(params)
        metrics = self._metrics(quality) if ended == "finished" else {}
        self._curve(folder, quality, len(STAGES) if ended == "finished" else 2)
        if ended == "finished":
            self._labels(folder, quality)
        stages = [self._stage(name, trial, seed) for name in (STAGES if ended == "finished" else STAGES[:2])]
        seconds = sum(stage["seconds"] for stage in stages) + 0.8
        return {"seed": seed, "state": ended, "metrics": metrics, "stages": stages, "seconds": seconds}

    def _quality(self, params: dict[str, Any]) -> float:
        decay = math.log10(params["heads.weight_decay"]) + 2.6
        rate = math.log10(params["heads.learning_rate"]) + 0.4
        bonus = 0.05 if params["finetune.similarity_weight"] == 30 else 0.0
        return float(np.clip(0.84 - 0.08 * decay**2 - 0.2 * rate**2 + bonus + self.random.normal(0, 0.015), 0.2, 0.97))

    def _metrics(self, quality: float) -> dict[str, float]:
        free = {"rate_reduction": 20 + 30 * quality, "clusters_used": 10.0, "largest_share": 0.14}
        free |= {"probe": 0.9 + 0.1 * quality**2, "silhouette": 0.4 - 0.5 * abs(quality - 0.7)}
        if not self.classes:
            return free
        return {"acc": quality, "nmi": quality * 0.95, "ari": quality * 0.88, "test_acc": quality - 0.02, **free}

    def _stage(self, name: str, trial: int, seed: int) -> dict[str, Any]:
        key = name if name == "pretrain" else f"{name}-{trial}-{seed}"
        cached = key in self.computed
        self.computed.add(key)
        seconds = 0.05 if cached else {"pretrain": 61.0, "heads": 7.5, "finetune": 12.25}[name]
        return {"name": name, "epochs": KIND[name], "cached": cached, "seconds": seconds, "key": key}

    def _curve(self, folder: Path, quality: float, stages: int) -> None:
        lines = []
        for name in STAGES[1:stages]:
            for epoch in range(1, KIND[name] + 1):
                rise = 1 - math.exp(-4 * epoch / KIND[name])
                event: dict[str, Any] = {"event": "epoch", "stage": name, "epoch": epoch, "epochs": KIND[name]}
                event["loss"] = -40 * quality * rise + float(self.random.normal(0, 0.4))
                if self.classes and epoch % 2 == 0:
                    event["acc"] = 0.1 + (quality - 0.1) * rise
                event |= self._rates(quality * rise, epoch)
                lines.append(json.dumps(event))
        (folder / "curve.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _rates(self, done: float, epoch: int) -> dict[str, float]:
        """Terms of the loss of a clustering stage, and numerical ranks where the epoch was evaluated."""
        rates = {"rate": -94.0 + 3 * done, "cluster_rate": 90 - 40 * done}
        if epoch % 2:
            return rates
        ranks = {"rank_all": 118.0 - epoch % 3, "rank_clusters": 60 - 40 * done}
        return rates | ranks | ({"rank_classes": 62 - 34 * done} if self.classes else {})

    def _labels(self, folder: Path, quality: float, n: int = 600) -> None:
        k = self.classes or 10
        truth = np.arange(n) % k
        wrong = self.random.random(n) > quality
        found = np.where(wrong, (truth + self.random.choice([1, 1, 3, 5], n)) % k, truth)
        arrays = {"labels": (found + 3) % k} | ({"y": truth} if self.classes else {})
        np.savez(folder / "labels.npz", split=np.array("train"), **arrays)

    def gallery(self, folder: Path, components: int = 6, samples: int = 8) -> None:
        """The digits that scikit-learn ships, one class as a cluster."""
        if not self.images:
            return
        digits = load_digits()
        found = [np.flatnonzero(digits.target == k)[: components * samples] for k in range(10)]
        images = (digits.images[np.stack(found)] * 15.9).astype(np.uint8)
        np.savez(
            folder / "gallery.npz",
            images=images.reshape(10, components, samples, 8, 8, 1),
            shares=np.full(10, 0.1),
            clusters=np.arange(10),
        )

    def similarity(self, folder: Path, n: int = 700, rank: int = 4, d: int = 64) -> None:
        """A noisy union of nearly orthogonal subspaces, one a cluster, and a few points in the wrong one."""
        draw = torch.Generator().manual_seed(0)
        axes = torch.linalg.qr(torch.randn(d, 10 * rank, generator=draw))[0].T.reshape(10, rank, d)
        true = (torch.rand(n, generator=draw) ** 1.4 * 10).long()
        z = torch.einsum("nr,nrd->nd", torch.randn(n, rank, generator=draw), axes[true])
        z += 0.1 * torch.randn(n, d, generator=draw)
        found = torch.where(torch.rand(n, generator=draw) < 0.1, (true + 1) % 10, true)
        write_arrays(folder / "similarity.npz", similarity_map(z, found))

    def points(self, folder: Path, n: int = 500, epochs: tuple[int, ...] = (0, 9, 21, 30, 69, 120, 159)) -> None:
        """Groups that part and then stretch, in pictures and in ten dimensions, and the data that they came from."""
        draw = torch.Generator().manual_seed(0)
        y = torch.arange(n) % 10
        centres, noise = torch.randn(10, 2, generator=draw), torch.randn(n, 2, generator=draw)
        pictures = [(0.4 + at) * centres[y] + noise * (0.3 + 0.1 * at) for at in range(len(epochs))]
        labels = torch.where(torch.rand(n, generator=draw) < 0.1, (y + 1) % 10, y)
        known = {"y": y} if self.classes else {}
        arrays = {"epochs": torch.tensor(epochs), "points": torch.stack(pictures), "labels": labels, **known}
        write_arrays(folder / "snapshots.npz", arrays)
        x = 2 * torch.randn(10, 30, generator=draw)[y] + torch.randn(n, 30, generator=draw)
        z = x[:, :10] + 0.2 * torch.randn(n, 10, generator=draw)
        write_arrays(folder / "geometry.npz", rank_and_isometry(x, z, labels))

    @staticmethod
    def _write(path: Path, content: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def fabricate(folder: Path, trials: int = 12, *, confirm: int = 2, confirm_seeds: int = 10, **options: Any) -> Path:
    """A study of `trials` trials in all states, its `confirm` best ones confirmed on `confirm_seeds` seeds each."""
    manifest = {"budget": {"trials": trials, "seeds": 3}} | options.pop("study", {})
    study = Fabricator(folder, **options)
    study.study(**manifest)
    states = {3: "pruned", 5: "diverged", 7: "collapsed", 9: "out_of_memory"}
    records = []
    for trial in range(trials):
        state = states.get(trial % 20, "pruned" if trial % 4 == 2 and trial > 20 else "finished")
        extra: dict[str, Any] = {} if state == "finished" else {"state": state, "score": None, "metrics": {}}
        if state == "diverged":
            extra["error"] = "the loss was not finite in epoch 4 of heads"
        records.append(study.record(trial, study.params(trial), [0, 1, 2] if state == "finished" else [0], **extra))
    scored = sorted((r for r in records if r["score"] is not None), key=lambda r: -r["score"])
    for record in scored[:confirm]:
        seeds = list(range(1000, 1000 + confirm_seeds))
        done = study.record(record["trial"], record["params"], seeds, kind="confirm")
        first = next(run["seed"] for run in done["per_seed"] if run["state"] == "finished")
        pictured = folder / "confirm" / f"{record['trial']:04d}" / f"seed-{first}"
        study.gallery(pictured)
        study.similarity(pictured)
        study.points(pictured)
    return folder
