"""What the estimators have in common: scikit-learn's interface around the training that `raymc train` runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from raymc.config import OwnData, Value
from raymc.datasets.own import of_array
from raymc.datasets.own_tensors import array_of
from raymc.errors import DataWarning, InputError
from raymc.estimators.bars import bars
from raymc.estimators.model import Model, load_model
from raymc.space.sized import sized_for
from raymc.space.space import make_space
from raymc.training.loop import Report
from raymc.training.model_files import FOLDER
from raymc.training.outputs import read_curve, read_labels
from raymc.training.rows import EMBEDDING
from raymc.training.run import run
from raymc.training.stages import seeds_of

Array = NDArray[Any]
NAME = "X"  # what messages call the data
ARGUMENTS = {
    "n_clusters": "it is an argument of its own",
    "seed": "it is the argument random_state",
    "workers": "fit trains in one process; a training from a space file takes several",
}
"""Keys that `params` may not have."""


@contextmanager
def as_value_errors() -> Iterator[None]:
    """What is wrong with the user's input as scikit-learn's users expect it."""
    try:
        yield
    except InputError as error:
        raise ValueError(str(error)) from error


class ManifoldClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """A method of raymc as a scikit-learn clusterer and transformer. Subclasses name the method."""

    _method: ClassVar[str]

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        params: Mapping[str, Value] | None = None,
        preset: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        storage: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.params = params
        self.preset = preset
        self.random_state = random_state
        self.storage = storage
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on `X` and cluster it.

        Ctrl-C in a stage that has clusters ends the training after the last whole epoch: the estimator is fitted
        with the model as it stood then, `partial_` is True, and a `ConvergenceWarning` says where it stopped. Before
        there are clusters, while they are evaluated, and where it comes a second time, the KeyboardInterrupt goes on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Rows of numbers: an array, a DataFrame or a tensor. Or images, uint8 or floats from 0 to 1, of shape
            (n_samples, height, width), (n_samples, height, width, channels) or (n_samples, channels, height, width),
            with 1 or 3 channels.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            For data or parameters that are wrong.
        raymc.errors.TrainingError
            Where the training diverged, or all samples fell into one cluster.

        Warns
        -----
        raymc.errors.DataWarning
            What is odd about the data and no mistake: a column of ids, codes for missing values, repeated rows, …
        ConvergenceWarning
            Where clusters are empty, and after Ctrl-C.
        """
        if hasattr(self, "model_"):
            del self.model_  # a fit that fails leaves an estimator that is not fitted
        with as_value_errors(), TemporaryDirectory(prefix="raymc-") as folder, bars(bool(self.verbose)) as report:
            x = self._samples(X, reset=True)
            result = self._train(x, Path(folder), report)
            self._keep(result, Path(folder) / "out")
        if remarks := result.get("remarks"):
            warnings.warn(f"about the data: {'; '.join(remarks)}", DataWarning, stacklevel=2)
        used = int(self.metrics_["clusters_used"])
        if used < self.n_clusters_:
            some = f"{used} of {self.n_clusters_} clusters have samples, the others are empty"
            warnings.warn(some, ConvergenceWarning, stacklevel=2)
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Cluster new samples by the rule of the fitted model, which stays as it is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Samples of the kind and size of those of `fit`; they are scaled as those were.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            The cluster of each sample.
        """
        labels: NDArray[np.int64] = self._assigned("predict", X)
        return labels

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed samples, new or old.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or images
            Samples of the kind and size of those of `fit`; they are scaled as those were.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components), float32
            Of NMCE and MLC rows of length 1, of GCML points.
        """
        embedding: NDArray[np.float32] = self._assigned("transform", X)
        return embedding

    def save(self, path: str | Path) -> None:
        """Write the fitted model to the folder `path`, for `raymc.load_model` and `raymc predict`.

        It holds safetensors and JSON only: whoever loads it runs no code of it.

        Parameters
        ----------
        path : str or Path
            A folder that is new or empty, or holds a model, which is replaced.
        """
        check_is_fitted(self, "model_")
        with as_value_errors():
            self.model_.save(path)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the embedding is float32
        return tags

    @property
    def _n_features_out(self) -> int:
        """The columns that `get_feature_names_out` names."""
        return self.model_.embedding_dim

    def _assigned(self, method: str, X: Any) -> Array:
        """What a method of the model says of samples. Raises ValueError for those of another size than in `fit`."""
        check_is_fitted(self, "model_")
        with as_value_errors():
            found: Array = getattr(self.model_, method)(self._samples(X, reset=False))
        return found

    def _samples(self, X: Any, reset: bool) -> Array:
        """The samples as an array, checked in scikit-learn's words; what they are to `fit`, with `reset`, is noted."""
        if isinstance(X, torch.Tensor):
            X = array_of(X, NAME, NAME)
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        images = len(shape) in (3, 4)
        if len(shape) > 4:
            kinds = "2 (rows), 3 or 4 (images)"
            raise ValueError(f"Found array with dim {len(shape)}, while {type(self).__name__} takes dim {kinds}")
        x: Array
        if images and not reset:
            x = check_array(X, allow_nd=True, estimator=self, input_name=NAME)
        else:
            x = validate_data(self, X, reset=reset, allow_nd=images, ensure_min_samples=2 if reset else 1)
        if images and reset:
            self.n_features_in_ = x[0].size
        return x

    def _train(self, x: Array, folder: Path, report: Report) -> Mapping[str, Any]:
        """What `raymc train` does for an .npz of these samples; the results are in `folder`."""
        own = OwnData(name=NAME, path=NAME, features=self.preset == "features")
        content = {"method": self._method, "dataset": NAME} | ({"preset": self.preset} if self.preset else {})
        space = make_space(Path(type(self).__name__), content, own=own).pinned(self._overrides())
        columns = list(getattr(self, "feature_names_in_", ()))
        dataset = of_array(own, x, columns, space.config().scaling)
        config = sized_for(space, dataset).config({"seed": self._seed()})
        stages = tuple(space.stage_settings)
        result = run(
            config,
            storage=self._storage(folder),
            out=folder / "out",
            stage_seeds=seeds_of(stages, config.seed, 0, config.seeds_from, config.varies),
            dataset=dataset,
            report=report,
            keep_model=True,
            keep_rows=True,
            keep_interrupted=True,
        )
        return result | {"params": config.flat() | {"precision": result["precision"]}}

    def _keep(self, result: Mapping[str, Any], out: Path) -> None:
        """Set the attributes of a fitted estimator."""
        self.labels_ = read_labels(out)["labels"]
        self.embedding_ = np.load(out / EMBEDDING, allow_pickle=False)
        self.metrics_ = dict(result["metrics"])
        self.curve_ = pd.DataFrame(read_curve(out))
        self.params_ = result["params"]
        self.n_clusters_ = int(result["n_clusters"])
        self.model_ = _model_of(out)
        last = result["stages"][-1]
        self.partial_ = "interrupted" in last
        if self.partial_:
            at = f"{last['interrupted']} of {last['epochs']} epochs of stage {last['name']}"
            warnings.warn(f"interrupted: fitted after {at}", ConvergenceWarning, stacklevel=3)

    @classmethod
    def of_training(cls, out: Path, seed: int, metrics: Mapping[str, float]) -> Self:
        """The estimator, fitted, that a training left in `out` with its model, labels and embedding.

        Raises InputError where it left no model.
        """
        model = _model_of(out)
        config = model.trained.config
        values = config.flat()
        params = {key: value for key, value in values.items() if key not in ARGUMENTS}
        found = cls(config.n_clusters or model.n_clusters, params=params, random_state=seed)
        found.n_features_in_ = model.n_features_in_
        if (names := model.feature_names_in_) is not None:
            found.feature_names_in_ = names
        done = {"metrics": metrics, "params": values, "n_clusters": model.n_clusters, "stages": [{}]}
        found._keep(done, out)
        return found

    def _overrides(self) -> dict[str, Value]:
        """`params` and the number of clusters as dotted keys. Raises InputError for keys that are arguments."""
        params = dict(self.params or {})
        for key, why in ARGUMENTS.items():
            if key in params:
                raise InputError(f"params: {key} does not belong here: {why}")
        given = params | {"n_clusters": self.n_clusters}
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in given.items()}

    def _seed(self) -> int:
        """`random_state` as the seed of a training, drawn where it is no number."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _storage(self, folder: Path) -> str:
        if self.storage is None:
            return str(folder / "storage")
        place = str(self.storage)
        return place if "://" in place else str(Path(place).expanduser().resolve())


def _model_of(out: Path) -> Model:
    """The model of a training in the user's own storage: code that it names, and weights of an encoder, are theirs."""
    path = out / "config.json"
    own = json.loads(path.read_text(encoding="utf-8")).get("own") if path.is_file() else None
    weights = own.get("weights") if own else None
    here = weights if weights and Path(weights).exists() else None
    return load_model(out / FOLDER, allow_code=True, encoder_weights=here)
