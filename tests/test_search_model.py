"""Models in MLflow: logged with signature, example and pins, registered, loaded without a pickle, and served."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raymc.commands import predict, train
from raymc.datasets import load
from raymc.errors import InputError
from raymc.estimators.model import load_model
from raymc.reporting.search.outcome import log_winner
from raymc.space.space import load_space
from raymc.tracking.client import Away, Client, Known
from raymc.tracking.model import log_model, log_training
from raymc.training import model_files
from tests.mlflow_database import DEPRECATED
from tests.own_data import TEXTS, X, frame, run
from tests.server_process import ServerProcess, free_port

pytestmark = pytest.mark.filterwarnings(DEPRECATED)
MINE = "method: plain\ndataset: {path: rows.csv, label: kind}\n"
SECONDS = 180.0


def registered(folder: Path, capsys: pytest.CaptureFixture[str], space: str, name: str) -> dict[str, Any]:
    """What `train --register` says of a short training with its files in `folder`."""
    words = (space, "--smoke", "--storage", str(folder / "store"), "--out", str(folder / name), "--register", name)
    code, out, told = run(capsys, train, *words, "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}", "--json")
    assert code == 0, told
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_model_in_mlflow_has_signature_example_and_pins_and_no_pickle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame(kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "mine.yaml").write_text(MINE)
    found = registered(tmp_path, capsys, str(tmp_path / "mine.yaml"), "rows")
    assert found["registered"] == {"name": "rows", "version": 1}
    # Only now: where raymc imports it, MLflow's warnings of its own types are silent.
    from mlflow import MlflowClient
    from mlflow.pyfunc import load_model as load_pyfunc

    client = MlflowClient(tracking_uri=found["tracking_uri"])
    ended = client.get_run(found["run_id"])
    assert ended.info.status == "FINISHED" and ended.data.params["clustering"] == "kmeans"
    assert ended.data.metrics["ari"] == pytest.approx(found["metrics"]["ari"])
    assert found["model_id"] in client.get_model_version("rows", "1").source
    place = Path(client.get_logged_model(found["model_id"]).artifact_location.removeprefix("file://"))
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert {"MLmodel", "served.py", "artifacts/model/weights.safetensors", "input_example.json"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt"))]
    pins = (place / "requirements.txt").read_text().split()
    assert all("==" in pin for pin in pins) and {"torch", "raymc"} <= {pin.partition("==")[0] for pin in pins}
    served, model = load_pyfunc(str(place)), load_model(tmp_path / "rows")
    assert [column.name for column in served.metadata.signature.inputs] == ["c0", "c1", "c2", "c3"]
    assert np.array_equal(served.predict(frame()), model.predict(X))
    assert served.predict(served.input_example).shape == (1,)
    again = log_model(tmp_path / "rows" / "model", found["tracking_uri"], found["run_id"], "rows")
    assert (again.model_id, again.version) == (found["model_id"], 2), "a run has one model of the same weights"
    with pytest.raises(InputError, match="does not take the model"):
        log_model(tmp_path / "rows" / "model", found["tracking_uri"], "no such run")


NET = "from torch import nn\ndef net(shape):\n    return nn.Sequential(nn.Flatten(1), nn.Linear(64, 8))\n"


def test_a_model_that_is_not_taken_leaves_an_ended_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A net of the user's own is code: its training is recorded, its model is not, and is not registered."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_for_mlflow.py").write_text(NET)
    (tmp_path / "mine.yaml").write_text(
        "method: nmce\ndataset: digits\npreset: own\nfixed: {backbone: 'mine_for_mlflow:net'}\n"
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = [str(tmp_path / "mine.yaml"), "--smoke", "--storage", str(tmp_path / "store"), "--tracking-uri", uri]
    code, _, told = run(capsys, train, *words, "--out", str(tmp_path / "a"), "--register", "mine")
    assert code == 2 and not (tmp_path / "a").exists() and not (tmp_path / "store").exists()
    assert told.count("\n") == 1 and "--register mine" in told and "mine_for_mlflow:net is code" in told
    code, out, told = run(capsys, train, *words, "--out", str(tmp_path / "b"), "--json")
    assert code == 0 and (tmp_path / "b" / "labels.csv").is_file(), told
    assert "the model is not in MLflow: " in told and "acc" in json.loads(out)["metrics"]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    ended = client.search_runs([experiment.experiment_id])
    assert [one.info.status for one in ended] == ["FINISHED"] and "acc" in ended[0].data.metrics


def test_a_run_that_breaks_off_is_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def away(*words: Any) -> None:
        raise Away("gone")

    monkeypatch.setattr(Client, "connect", lambda client: None)
    monkeypatch.setattr(Client, "create_run", lambda client, *words: Known("r"))
    monkeypatch.setattr(Client, "deliver", away)
    monkeypatch.setattr(Client, "set_status", lambda client, run_id, status, end_ms: ended.append(status))
    config = load_space("nmce_digits").config()
    result = {
        "method": "nmce",
        "dataset": "digits",
        "seed": 0,
        "smoke": True,
        "metrics": {"acc": 0.5},
        "precision": "float32",
    }
    with pytest.raises(InputError, match="does not take the run of"):
        log_training(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", "mine", config, result)
    assert ended == ["FAILED"]


def test_a_studys_winner_is_registered_and_labels_new_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its model lies in the study's folder; a study without one says so, and is done all the same."""
    frame(kind=TEXTS).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "mine.yaml").write_text(MINE)
    found = registered(tmp_path, capsys, str(tmp_path / "mine.yaml"), "rows")
    study = tmp_path / "store" / "studies" / "won"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    tracker: Any = SimpleNamespace(run_ids=lambda: {"confirm-0003": found["run_id"]}, refusal=None)
    picked = {"trial": 3, "seed": 0}
    assert log_winner(study, picked, tracker, found["tracking_uri"], "won") == {}
    assert f"--register won: the study has no {study / 'winner' / 'model'}" in capsys.readouterr().err
    words = ("won", str(tmp_path / "rows.csv"), "--storage", str(tmp_path / "store"), "--out", str(tmp_path / "l.csv"))
    code, _, told = run(capsys, predict, *words)
    assert code == 2 and told.count("\n") == 1 and "study won has no" in told
    model_files.copy(tmp_path / "rows" / "model", study / "winner" / "model")
    logged = log_winner(study, picked, tracker, found["tracking_uri"], "won")
    assert logged == {"model_id": found["model_id"], "registered": {"name": "won", "version": 1}}
    silent: Any = SimpleNamespace(run_ids=dict, refusal=None)
    assert log_winner(study, picked, silent, found["tracking_uri"], None) == {}
    assert "it has not answered" in capsys.readouterr().err
    code, out, told = run(capsys, predict, *words, "--json")
    assert code == 0 and json.loads(out)["model"] == str(study / "winner" / "model"), told
    code, _, told = run(capsys, predict, "wom", *words[1:])
    assert code == 2 and "wom is no folder; no study wom in" in told and "did you mean won?" in told


def asked(port: int, body: dict[str, Any]) -> list[int]:
    """The labels that the server answers with, as soon as it listens."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    begun = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                predictions: list[int] = json.load(answer)["predictions"]
                return predictions
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert time.monotonic() - begun < SECONDS, "it does not listen"
            time.sleep(0.5)


@pytest.mark.slow
def test_a_registered_model_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row in both forms that MLflow takes, labelled as `predict` and the training label it."""
    found = registered(tmp_path, capsys, "gcml_digits", "digits")
    with (tmp_path / "digits" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:3]
    x, wanted = load("digits").train.x[[int(row["sample"]) for row in rows]], [int(row["cluster"]) for row in rows]
    assert load_model(tmp_path / "digits").predict(x).tolist() == wanted
    port, server = free_port(), ServerProcess(tmp_path / "served.log")
    words = ["-m", "mlflow", "models", "serve", "-m", "models:/digits/1", "--env-manager", "local"]
    settings = {"MLFLOW_TRACKING_URI": found["tracking_uri"], "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings["PYTHONPATH"] = str(Path(__file__).parents[1])
    settings["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it calls uvicorn
    try:
        server.start([sys.executable, *words, "--host", "127.0.0.1", "--port", str(port)], tmp_path, settings)
        assert asked(port, {"inputs": x.tolist()}) == wanted
        flat = [[image.flatten().tolist()] for image in x]
        assert asked(port, {"dataframe_split": {"columns": ["image"], "data": flat}}) == wanted
    finally:
        server.kill()
