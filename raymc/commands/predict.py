"""`python -m raymc.predict RUN|STUDY|MODEL DATA`: the clusters of new samples by a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymc.cli import Parser, make_parser, results, storage_root
from raymc.errors import InputError
from raymc.storage.objects import is_uri
from raymc.study.names import WINNER, find_study

if TYPE_CHECKING:
    import torch

    from raymc.estimators.model import Model

SMOKE_SAMPLES = 64
HEADER = "sample,cluster,confidence"  # as raymc.training.rows writes it, which imports torch
MODEL = "model"  # as raymc.training.model_files has it, which imports torch


def parser() -> Parser:
    """The options of `predict`."""
    parser = make_parser("predict", "Label new samples by a model that a training, a search or `cluster` left.")
    parser.add_argument("model", metavar="RUN|STUDY|MODEL", help="a folder that has a model, or a study's name")
    parser.add_argument("source", metavar="DATA", help="a file of rows, a folder of images, or a known dataset's name")
    parser.add_argument("--out", type=Path, default=Path("labels.csv"), help="default: labels.csv")
    parser.add_argument("--embedding", type=Path, metavar="FILE", help="also write the embedding, an .npy [n, m]")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the encoder, where they were your own")
    parser.add_argument("--allow-code", action="store_true", help="run a backbone package.module:function of the model")
    return parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Label, write the file, and return what `--json` prints."""
    out, embedding = _checked(args.out, "--out", ".csv"), args.embedding
    _check_ours(out)
    embedding = None if embedding is None else _checked(embedding, "--embedding", ".npy")
    storage = storage_root(args)
    with find_model(args.model, storage) as (place, name):  # what is wrong with it is said before torch is imported
        from raymc.estimators.model import load_model

        model = load_model(place, allow_code=args.allow_code, encoder_weights=args.weights)
    from raymc.datasets import data_root
    from raymc.estimators.new_data import read_new
    from raymc.training.progress import progress
    from raymc.training.rows import write_embedding, write_labels

    new = read_new(model.trained, args.source, str(data_root(args.data)), SMOKE_SAMPLES if args.smoke else None)
    with progress() as report:
        found = model.assign(new.x, report, storage)
    try:
        write_labels(out, new.names, found.labels, found.confidence)
        if embedding is not None:
            write_embedding(embedding, found.z)
    except OSError as error:
        raise InputError(f"{error.filename or out} cannot be written: {error.strerror}") from error
    counts = _counts(model, found.labels)
    shown = ", ".join(f"{cluster}: {count:,}" for cluster, count in counts.items())
    mark = "  (smoke: shortened)" if args.smoke else ""
    mark += "  (the model is of a smoke run: its clusters mean nothing)" if model.trained.record.get("smoke") else ""
    print(f"{len(found.labels):,} samples by {name}; in clusters {shown}{mark}", file=results(args))
    print(f"labels: {out}", file=results(args))
    return {
        "model": name,
        "n": len(found.labels),
        "clusters": counts,
        "out": str(out),
        **({} if embedding is None else {"embedding": str(embedding)}),
        "smoke": args.smoke,
    }


@contextmanager
def find_model(asked: str, storage: str) -> Iterator[tuple[Path, str]]:
    """The folder that `asked` names, and what to call it: one that is or has a model, else that of a study's winner.

    Of a storage that is a URI a copy, which goes with the block. Raises InputError where there is none.
    """
    place = Path(asked).expanduser()
    if place.exists():
        inner = place.resolve() / MODEL
        place = inner if inner.is_dir() else place.resolve()
        yield place, str(place)
        return
    try:
        folder = find_study(storage, asked)
    except InputError as error:
        raise InputError(f"{asked} is no folder; {error}") from error
    from raymc.storage.mirror import fetched

    part = f"studies/{asked}/{WINNER}/{MODEL}"
    name = f"{storage.rstrip('/')}/{part}" if is_uri(storage) else str(folder / WINNER / MODEL)
    with fetched(storage, part) as model:
        if not any(model.glob("*")):
            raise InputError(f"study {asked} has no {name}: a search leaves it when it ends")
        yield model, name


def _counts(model: Model, labels: torch.Tensor) -> dict[str, int]:
    counts = labels.bincount(minlength=model.n_clusters)
    return {str(cluster): int(count) for cluster, count in enumerate(counts)}


def _check_ours(out: Path) -> None:
    """Raises InputError where the file is there and was not written by a training, `cluster` or `predict`."""
    try:
        with out.open(encoding="utf-8", errors="replace") as file:
            ours = file.readline().strip() in ("", HEADER)
    except OSError:  # absent; what else it may be is told where it is written
        return
    if not ours:
        raise InputError(f"--out {out} holds something else than labels; give another name, or remove it")


def _checked(path: Path, option: str, kind: str) -> Path:
    """Raises InputError where no file of the kind can be written there."""
    place = path.expanduser().resolve()
    if place.suffix.lower() != kind:
        raise InputError(f"{option} {path}: expected: a name that ends in {kind}")
    if place.is_dir():
        raise InputError(f"{option} {place} cannot be written: it is a folder")
    return place
