"""A trained model in Python: `raymc.load_model(path)` labels and embeds new samples as its training did."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raymc import encoders
from raymc.datasets.augmentation import POLICIES
from raymc.datasets.own_found import Array
from raymc.encoders import Encoder
from raymc.errors import InputError
from raymc.estimators.inputs import for_encoder, for_net
from raymc.methods import METHODS
from raymc.methods.base import ASSIGNER
from raymc.ops.blocks import ROWS
from raymc.storage.stage_store import Store
from raymc.training import inference, model_files
from raymc.training.features.data import ALONE, encoder_facts
from raymc.training.features.inputs import Inputs
from raymc.training.features.stage import CHUNK, Features, Report
from raymc.training.feed import Inputs as NetInputs
from raymc.training.inference import Assigned
from raymc.training.model_files import FOLDER, Record, TrainedModel
from raymc.training.precision import exact_float32
from raymc.training.stages import autocast_of, channels_last_of, dtype_of, place
from raymc.training.training import pick_device

WHOLE_FEATURES = ROWS // CHUNK
"""Chunks of features that the net sees together: as many samples as in the training's evaluation."""


def load_model(
    path: str | Path,
    *,
    allow_code: bool = False,
    encoder_weights: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """The model of a folder `model/`, or of one that has it: what `train` or `cluster` left, a study's.

    Reading it runs no code of the folder's author: JSON and safetensors. The encoder of a training on images or texts
    is loaded by name when it is first needed.

    Args:
        path: the folder.
        allow_code: import and call a backbone `package.module:function`, with your rights; else such a model is
            refused.
        encoder_weights: a file or folder of the encoder's weights, in place of its package's or the cache's. One that
            the model itself names is used only with `allow_code`.
        device: where it computes (default: the current GPU, else the CPU). A training's labels are had to the last
            one on the kind of device that it was trained on.

    Raises InputError, in one line, for a folder that holds no model, and for files that are missing, torn or foreign.
    """
    folder = model_folder(Path(path).expanduser())
    trained = model_files.load(folder, allow_code)
    try:
        return Model(_with_weights(trained, encoder_weights, allow_code), device)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def model_folder(path: Path) -> Path:
    """The folder of the model in a folder that has one. Raises InputError where there is nothing."""
    if not path.is_dir():
        raise InputError(f"{path} is {'no folder' if path.exists() else 'missing'}; expected: the folder of a model")
    return path / FOLDER if (path / FOLDER).is_dir() else path


def _with_weights(trained: TrainedModel, given: str | Path | None, allowed: bool) -> TrainedModel:
    """The model with these weights of its encoder; with those that its own files name only where that is allowed."""
    own = trained.config.own
    if given is not None and (own is None or trained.record["encoder"] is None):
        raise InputError("encoder_weights: it has no encoder")
    if own is None:
        return trained
    weights = own.weights if allowed and own.weights and Path(own.weights).is_absolute() else None
    if given is not None:
        weights = str(Path(given).expanduser().resolve())
        if not Path(weights).exists():
            raise InputError(f"encoder_weights: {weights} is missing")
    config = dataclasses.replace(trained.config, own=dataclasses.replace(own, weights=weights))
    return dataclasses.replace(trained, config=config)


class Model:
    """A trained model that labels and embeds samples `X`, some at a time.

    X are n samples of the kind that it was trained on: rows `[n, d]` of numbers (an array, a tensor or a DataFrame,
    whose columns are compared by name; those of the training's labels and names are left out), images
    `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]` (uint8, or floats in 0..1), or texts. Rows are scaled and
    encoders applied as in the training. Methods raise InputError, in one line, for others.

    Where the cluster head assigns, the samples of the training get the very labels that it gave them. Where clusters
    were found among samples (k-means, spectral clustering, …), a new sample follows the rule that `clusters_by` and
    the card say, which can differ from the clustering itself: `ruled` is the share of the training's samples on which
    both agree.
    """

    def __init__(self, trained: TrainedModel, device: str | torch.device | None = None) -> None:
        """Raises InputError where the parts of `trained` do not fit each other."""
        self.trained = trained
        self._method = METHODS[trained.config.method]
        self._device = pick_device(device)
        config, modules = trained.config, trained.modules
        assigner = modules.pop(ASSIGNER) if ASSIGNER in modules else None
        place(modules, config, self._device, dtype_of(config))
        if assigner is not None:  # it keeps its own type
            modules[ASSIGNER] = assigner.to(self._device)
        policy = POLICIES[config.augmentation]  # what its strength scales are draws, and here are none
        half, by_pixel = autocast_of(config, self._device), channels_last_of(config, self._device)
        self._net = NetInputs(policy, self._device, dtype_of(config), by_pixel, half)
        self.embedding_dim = self._probe()

    @property
    def record(self) -> Record:
        """The content of `config.json`."""
        return self.trained.record

    @property
    def n_clusters(self) -> int:
        return int(self.record["n_clusters"])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What the training's labels 0, 1, … are called; None where it had none, or they are numbers."""
        names = self.record["classes"]
        return None if names is None else tuple(names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of a sample as the net sees it: `(d,)` or `(c, h, w)`; with an encoder, of its features."""
        return self.trained.input_shape

    @property
    def n_features_in_(self) -> int:
        """The numbers of a sample."""
        return int(np.prod(self.input_shape))

    @property
    def feature_names_in_(self) -> NDArray[np.object_] | None:
        """The names of the columns, where the training's had some."""
        names = self.record["input"]["columns"]
        return None if names is None else np.asarray(names, object)

    @property
    def ruled(self) -> float:
        """The share of the training's samples that get the label which the training gave them."""
        return float(self.record["training"]["ruled"])

    def predict(self, X: Any) -> NDArray[np.int64]:
        """The cluster of each sample, `[n]`."""
        labels: NDArray[np.int64] = self.assign(X).labels.numpy()
        return labels

    def confidence(self, X: Any) -> NDArray[np.float32]:
        """How clearly each sample belongs to its cluster, `[n]` in 0..1."""
        sure: NDArray[np.float32] = self.assign(X).confidence.numpy()
        return sure

    def transform(self, X: Any) -> NDArray[np.float32]:
        """The embedding `[n, m]`: unit rows for NMCE and MLC, points for GCML and the plain methods."""
        z: NDArray[np.float32] = self._mapped(X, lambda x: {"z": self._embed(x)})["z"].numpy()
        return z

    def assign(self, X: Any, report: Report = lambda row: None, storage: str | None = None) -> Assigned:
        """Labels, confidence and embedding in one pass.

        Args:
            X: see the class.
            report: is told how many samples the encoder has seen, as `raymc.training.run.run` tells it.
            storage: the store in which an encoder's features are looked for and kept; None: nowhere.
        """
        return Assigned(**self._mapped(X, self._assign, report, storage))

    def save(self, path: str | Path) -> None:
        """Write the model's folder, whole or not at all. Raises InputError where `path` holds anything else."""
        try:
            model_files.save(Path(path).expanduser(), self.trained)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error

    def __reduce__(self) -> tuple[type[Model], tuple[TrainedModel]]:
        """A pickle holds the weights on the CPU; where it is read, the model is on the current GPU, else the CPU."""
        return Model, (dataclasses.replace(self.trained, modules=copy.deepcopy(self.trained.modules).cpu()),)

    def __repr__(self) -> str:
        kind = "x".join(map(str, self.input_shape))
        of = f"{self.trained.config.method} on {self.record['dataset']}"
        return f"<raymc model: {of}, {self.n_clusters} clusters, samples of {kind}>"

    def _assign(self, x: Tensor) -> dict[str, Tensor]:
        return vars(inference.assign(self._method, self.trained.modules, self._net, x).cpu())

    def _embed(self, x: Tensor) -> Tensor:
        return inference.heads(self._method, self.trained.modules, self._net, x)[0].float().cpu()

    def _mapped(
        self,
        X: Any,
        function: Callable[[Tensor], dict[str, Tensor]],
        report: Report = lambda row: None,
        storage: str | None = None,
    ) -> dict[str, Tensor]:
        with exact_float32(), ExitStack() as stack:
            if self.record["encoder"] is None:
                blocks = self._scaled(_blocks(for_net(self.trained, X)))
            else:
                place = storage or stack.enter_context(tempfile.TemporaryDirectory(prefix="raymc-"))
                blocks = self._scaled(self._features(for_encoder(self.trained, X), place, report))
            parts = [function(block) for block in blocks]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _scaled(self, blocks: Iterator[Array]) -> Iterator[Tensor]:
        """Samples as the training saw them, of blocks as they are stored."""
        scaling = self.trained.scaling
        for block in blocks:
            if block.dtype == np.uint8 and len(self.input_shape) == 3:
                yield _tensor(block)
            else:
                yield scaling(block) if scaling else _tensor(block, np.float32)

    def _features(self, x: Inputs, storage: str, report: Report) -> Iterator[Array]:
        """What the encoder gives for samples, as many rows at a time as the net sees together."""
        if not len(x):
            yield np.zeros((0, *self.input_shape), np.float32)
            return
        features = Features(self._encoder, x, Store(storage), self.record["encoder"]["precision"], self._device)
        features.obtain(ALONE, report)
        for first in range(0, features.chunks, WHOLE_FEATURES):
            some = range(first, min(first + WHOLE_FEATURES, features.chunks))
            yield torch.cat([features.chunk(number).float() for number in some]).numpy()

    @cached_property
    def _encoder(self) -> Encoder:
        """The encoder of the training. Raises InputError where it is not here, or has other weights here."""
        known, own = self.record["encoder"], self.trained.config.own
        side = own.side if own else None
        encoder = encoders.load(str(known["name"]), own.weights if own else None, side)
        found = encoder_facts(encoder)
        for key, value in found.items():
            if known[key] != value:
                what = "weights of sha256" if key == "sha256" else key
                raise InputError(
                    f"encoder {known['name']} has {what} {value} here; the model's had {known[key]} (give its weights: "
                    "load_model(path, encoder_weights=FILE), or --weights FILE)"
                )
        return encoder

    def _probe(self) -> int:
        """The width m of the embedding, of a batch of two zeros: weights that do not fit each other end here."""
        kind = model_files.KINDS[self.record["input"]["dtype"]]
        try:
            return self._assign(torch.zeros(2, *self.input_shape, dtype=kind))["z"].shape[1]
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"the parts of the model do not fit each other: {reason}") from error


def _tensor(block: Array, dtype: type[np.generic] = np.uint8) -> Tensor:
    """The array as a tensor, without a copy unless it has another type or layout, or cannot be written to."""
    return torch.from_numpy(np.require(block, dtype, ["C", "W"]))


def _blocks(x: Array) -> Iterator[Array]:
    """As many rows at a time as the net sees together in the training's evaluation; of no rows, one block of none."""
    return (x[start : start + ROWS] for start in range(0, max(1, len(x)), ROWS))
