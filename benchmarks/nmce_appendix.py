"""NMCE's appendices A.4 (few labels) and A.6 (TCR's features beside those of VICReg and SimCLR).

    python -m benchmarks.nmce_appendix OUT --seeds 1 --smoke                                # a minute
    python -m benchmarks.nmce_appendix OUT                                                  # digits, 3 seeds
    python -m benchmarks.nmce_appendix OUT n_samples=10000 --space nmce_cifar20 --views 16

Stage 1 of a space is trained by each loss with the same net, views, optimiser, length and seeds: TCR as it is (eq. 5),
VICReg and SimCLR as lightly has them, with its default weights; nothing is tuned. VICReg sees the projection before it
is scaled to length 1, the others after; figures are of unit rows for all. Features are means over `--views` augmented
passes. A.4: accuracy on the held-out split of a linear SVM on 10 to 1,000 labelled rows, ten draws, on TCR's features.
A.6: covariance, singular values and SVM of each loss's projections. OUT/storage keeps each training and epoch: the
same command goes on where it stopped. OUT has `appendix.json` and three pictures, of the first seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from benchmarks.machine import facts
from benchmarks.samplers import shown
from raymc.atomic import write_json
from raymc.config import parse_overrides
from raymc.datasets import Dataset, load
from raymc.methods.base import Batch
from raymc.methods.nmce import tcr_loss
from raymc.metrics.probes import svm_accuracy
from raymc.rng import generator
from raymc.space.space import load_space
from raymc.training.inference import features
from raymc.training.obtain import obtain
from raymc.training.smoke import limited, shorten
from raymc.training.stages import stage_key
from raymc.training.training import ALONE, Training

SIZES = (10, 20, 50, 100, 200, 500, 1000)
DRAWS = 10
FIRST_SEED = 700
SHOWN = 128  # of a covariance, as in the paper


@cache
def _lightly(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    import lightly.loss  # here: it takes seconds, and TCR needs none of it

    made: Callable[[Tensor, Tensor], Tensor] = getattr(lightly.loss, name)()
    return made


def _projected(model: nn.ModuleDict, batch: Batch, unit: bool) -> Sequence[Tensor]:
    """The projections of two views."""
    h = model["pre_feature"](model["backbone"](torch.cat(batch.views)))
    head = model["projection"]
    assert isinstance(head, nn.Linear)
    z = head(h) if unit else functional.linear(h, head.weight, head.bias)
    return z.float().chunk(2)


def vicreg_loss(
    model: nn.ModuleDict, batch: Batch, config: Any, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    return _lightly("VICRegLoss")(*_projected(model, batch, unit=False)), {}


def simclr_loss(
    model: nn.ModuleDict, batch: Batch, config: Any, group: ProcessGroup | None
) -> tuple[Tensor, dict[str, Tensor]]:
    return _lightly("NTXentLoss")(*_projected(model, batch, unit=True)), {}


LOSSES = {"tcr": tcr_loss, "vicreg": vicreg_loss, "simclr": simclr_loss}


def train(args: argparse.Namespace, loss: str, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Dataset]:
    """Features by name of the training and the held-out split after stage 1 by a loss, and the dataset."""
    config = load_space(args.space).config(parse_overrides(args.overrides))
    data = limited(load(config.dataset), config)
    if args.smoke:
        config, data = shorten(config, data)
    training = Training(config, data, str(args.out / "storage"), {"pretrain": seed}, ALONE, args.device, _quiet, False)
    stage = training.method.stages(training.config)[0]
    stage = dataclasses.replace(stage, step=dataclasses.replace(stage.step, loss=LOSSES[loss]))
    model = training.enter(stage, {})
    training.begin(stage, model)
    key = stage_key(stage, training.config, model, f"{data.fingerprint}/{loss}", seed, None)
    obtain(training, stage, model, key, anew=False, needed=False)
    assert data.test is not None
    splits = [features(training.method, model, training.feed, x, args.views) for x in (data.train.x, data.test.x)]
    fitted, asked = ({name: x.cpu() for name, x in split.items()} for split in splits)
    return fitted, asked, data


def _quiet(row: dict[str, Any]) -> None:
    if row["event"] == "epoch" and (row["epoch"] + 1) % 10 == 0:
        print(f"  epoch {row['epoch'] + 1}: loss {row['loss']:.4f}", flush=True)


def few_labels(fitted: Tensor, y: Tensor, asked: Tensor, asked_y: Tensor, seed: int) -> dict[str, list[float]]:
    """A.4: accuracy of each draw, by the number of labelled rows; the draws of a seed are the same for all features.

    A draw has a row of every class at least.
    """
    found: dict[str, list[float]] = {}
    classes = sorted(set(y.tolist()))
    for size in (size for size in SIZES if len(classes) <= size <= len(y)):
        accuracies = []
        for draw in range(DRAWS):
            order = torch.randperm(len(y), generator=generator(seed, "labelled", size, draw))
            first = torch.stack([order[y[order] == label][0] for label in classes])
            rest = order[~torch.isin(order, first)][: size - len(classes)]
            rows = torch.cat([first, rest])
            accuracies.append(svm_accuracy(fitted[rows], y[rows], asked, asked_y))
        found[str(size)] = accuracies
    return found


def covariance(z: Tensor) -> Tensor:
    """`[d, d]`, of rows as they are."""
    return torch.cov(z.double().T)


def spectrum(z: Tensor) -> list[float]:
    """Singular values of `[n, d]`, falling, the largest as 1."""
    values = torch.linalg.svdvals(z.double())
    return [float(value) for value in values / values[0]]


def effective_rank(values: Sequence[float]) -> float:
    """exp of the entropy of the squared singular values' shares: d where all are equal."""
    shares = np.square(np.asarray(values))
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def off_diagonal(matrix: Tensor) -> float:
    """Root mean square of a covariance's entries off the diagonal, as a share of the diagonal's mean."""
    d = len(matrix)
    off = matrix - torch.diag(matrix.diag())
    return float((off.square().sum() / (d * (d - 1))).sqrt() / matrix.diag().mean())


def seed_row(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Both appendices for one seed."""
    row: dict[str, Any] = {"seed": seed, "losses": {}}
    for loss in args.losses:
        fitted, asked, data = train(args, loss, seed)
        assert data.train.y is not None and data.test is not None and data.test.y is not None
        y, asked_y = data.train.y, data.test.y
        z = fitted["projection"]
        matrix, values = covariance(z), spectrum(z)
        row["losses"][loss] = {
            "svm": {name: svm_accuracy(fitted[name], y, asked[name], asked_y) for name in ("projection", "pool")},
            "effective_rank": effective_rank(values),
            "off_diagonal": off_diagonal(matrix),
            "singular_values": values,
            "covariance": matrix[:SHOWN, :SHOWN].tolist(),
        }
        if loss == "tcr":
            row["few_labels"] = {
                name: few_labels(fitted[name], y, asked[name], asked_y, seed) for name in ("projection", "pool")
            }
    return row


def draw(out: Path, row: dict[str, Any]) -> None:
    """The pictures: few labels, covariances, singular values."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if few := row.get("few_labels"):
        figure, panel = pyplot.subplots(figsize=(5, 3.4))
        for name, found in few.items():
            means, spreads = ([of(found[size]) for size in found] for of in (np.mean, _std))
            panel.errorbar([int(size) for size in found], means, spreads, marker="o", capsize=3, label=name)
        panel.set(xscale="log", xlabel="labelled rows", ylabel="accuracy of the SVM")
        panel.legend()
        _save(figure, out / "few_labels.png")
    losses = row["losses"]
    figure, panels = pyplot.subplots(1, len(losses), figsize=(3.4 * len(losses), 3.4), squeeze=False)
    for panel, (name, found) in zip(panels[0], losses.items(), strict=True):
        matrix: NDArray[np.float64] = np.asarray(found["covariance"])
        most = np.abs(matrix).max()
        panel.imshow(matrix, cmap="RdBu", vmin=-most, vmax=most)
        panel.set_title(name)
    _save(figure, out / "covariance.png")
    figure, panel = pyplot.subplots(figsize=(5, 3.4))
    for name, found in losses.items():
        panel.plot(found["singular_values"], label=name)
    panel.set(xlabel="component", ylabel="singular value, the largest as 1", ylim=(0, 1.02))
    panel.legend()
    _save(figure, out / "singular_values.png")


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: A.4 over seeds and draws, A.6 over seeds."""
    lines = []
    first = rows[0].get("few_labels")
    if first:
        sizes = list(first["projection"])
        lines += ["| A.4, labelled rows | " + " | ".join(sizes) + " |", "|---|" + "---:|" * len(sizes)]
        for name in first:
            means = [np.mean([np.mean(row["few_labels"][name][size]) for row in rows]) for size in sizes]
            spreads = [np.mean([_std(row["few_labels"][name][size]) for row in rows]) for size in sizes]
            cells = [f"{mean:.3f} ± {std:.3f}" for mean, std in zip(means, spreads, strict=True)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["| A.6 | SVM, projection | SVM, pool | effective rank | off the diagonal |", "|---|---:|---:|---:|---:|"]
    for loss in rows[0]["losses"]:
        found = [row["losses"][loss] for row in rows]
        svm = [shown([one["svm"][name] for one in found], (0.0, 1.0)) for name in ("projection", "pool")]
        rest = [shown([one[name] for one in found]) for name in ("effective_rank", "off_diagonal")]
        lines.append(f"| {loss} | {' | '.join(svm + rest)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the space, e.g. pretrain.epochs=20")
    parser.add_argument("--space", default="nmce_digits")
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=list(LOSSES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=int, default=16, help="augmented passes that features are averaged over")
    parser.add_argument("--device")
    parser.add_argument("--smoke", action="store_true", help="an epoch on few samples")
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        rows.append(seed_row(args, seed))
        machine = facts(args.device or "cpu", torch.get_num_threads())
        setting = {"space": args.space, "overrides": args.overrides, "views": args.views, "smoke": args.smoke}
        write_json(args.out / "appendix.json", {"machine": machine, **setting, "rows": rows})
        if len(rows) == 1:
            draw(args.out, rows[0])
        print(tables(rows), flush=True)


if __name__ == "__main__":
    main()
