"""A study from Python: run, listened to, ended early, looked at again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import raymc
from raymc.errors import InputError
from raymc.estimators.study_data import _content, data_section
from raymc.execution import session
from raymc.study.request import Request
from raymc.training.rows import read_samples
from tests.mlflow_database import DEPRECATED, new_database

ROWS, CENTRES = 90, 8 * np.eye(3, 5)
X = np.concatenate([np.random.default_rng(i).normal(CENTRES[i], 1, (ROWS // 3, 5)) for i in range(3)])
Y = np.repeat(np.arange(3), ROWS // 3)
SPACE = {
    "method": "mlc",
    "dataset": "digits",
    "fixed": {"n_clusters": 3},
    "space": {"heads.eta": {"low": 0.08, "high": 0.2}},
    "budget": {"trials": 4, "seeds": 1, "confirm": {"top": 1, "seeds": 2}},
}


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_study_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[raymc.Trial] = []

    def listen(study: raymc.Study, trial: raymc.Trial) -> None:
        heard.append(trial)
        assert trial.number in list(study.trials["trial"])
        if len(heard) == 2:
            study.stop()

    words: dict[str, Any] = {"data": X, "labels": Y, "name": "mine", "storage": "store", "smoke": True}
    words |= {"tracking_uri": f"sqlite:///{new_database(tmp_path)}", "concurrent": 1}
    study = raymc.run_study(SPACE, callbacks=[listen], **words)
    assert [trial.number for trial in heard] == [0, 1] == list(study.trials["trial"])
    assert [dict(trial.params)["heads.eta"] for trial in heard] == list(study.trials["param.heads.eta"])
    assert list(study.trials["state"]) == ["finished"] * 2 and list(study.trials["seeds"]) == [[0], [0]]
    assert study.best_params in [dict(trial.params) for trial in heard]
    assert list(study.confirmation["seed"]) == [1000, 1001]
    assert study.best_score == pytest.approx(study.confirmation["acc"].mean())
    samples, _ = read_samples(tmp_path / "store" / "studies" / "mine" / "winner" / "labels.csv")
    assert set(samples) <= {str(row) for row in range(ROWS)}  # a smoke run draws some
    assert study.report == tmp_path / "reports" / "mine" / "index.html" and study.report.exists()
    shown = study._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "All trials" in shown

    best = study.best_estimator()
    assert isinstance(best, raymc.MLC) and best.params_["heads.eta"] == (study.best_params or {})["heads.eta"]
    rows = [int(sample) for sample in samples]
    assert np.array_equal(best.predict(X[rows]), best.labels_) and best.embedding_.shape[0] == len(rows)
    assert np.array_equal(raymc.load_model(tmp_path / "store/studies/mine/winner").predict(X), best.predict(X))
    other = clone(best).set_params(params=best.params | {"pretrain.epochs": 1, "heads.epochs": 1}).fit(X)
    assert set(other.labels_) <= {0, 1, 2}

    again = raymc.run_study(SPACE, resume="auto", **words)  # to the trials that it was made for
    assert list(again.trials["trial"]) == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(raymc.load_study("mine", "store").trials, again.trials)
    with pytest.raises(InputError, match="did you mean mine"):
        raymc.load_study("mime", "store")


def test_a_study_without_a_name_cannot_be_gone_on_with() -> None:
    with pytest.raises(InputError, match="needs a name"):
        raymc.run_study(SPACE, resume="auto")


def test_a_space_without_a_dataset_is_named_by_its_method() -> None:
    assert _content({"method": "mlc"}) == ({"method": "mlc"}, "mlc")
    assert _content({"method": "mlc", "dataset": {"path": "a b"}})[1] == "mlc"


def test_the_words_of_tune_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []

    def tune(request: Request, finish: Any, listener: Any) -> None:
        assert finish.keywords == {"register": "won"}
        asked.append(request)
        raise InputError("far enough")

    monkeypatch.setattr(session, "tune", tune)
    words: dict[str, Any] = {"sampler": "gp", "pruner": "median", "hours": 1.0, "gpu_hours": 2.0, "retry": "failed"}
    words |= {"database": "postgresql://there/one"}
    for resume, retry in ((True, "failed"), ("auto", None)):
        with pytest.raises(InputError, match="far enough"):
            raymc.run_study(
                "nmce_digits", name="a", storage=str(tmp_path), resume=resume, register="won", from_study="b", **words
            )
        found = vars(asked[-1])
        assert {key: found[key] for key in words} == words | {"retry": retry} and found["source"] == "b"
    with pytest.raises(InputError, match="'failed' or None"):
        raymc.run_study("nmce_digits", retry="all")  # type: ignore[arg-type]


def test_data_in_memory_are_written_once_under_a_name_by_their_content(tmp_path: Path) -> None:
    first, again = (data_section(X, Y, str(tmp_path)) for _ in range(2))
    assert isinstance(first, dict) and first == again and list(first) == ["path"]
    with np.load(first["path"]) as stored:
        assert np.array_equal(stored["x"], X) and np.array_equal(stored["y"], Y)
    assert data_section(X + 1, Y, str(tmp_path)) != first
    frame = pd.DataFrame(X, columns=list("abcde"))
    table = data_section(frame, Y, str(tmp_path))
    assert isinstance(table, dict)
    assert list(pd.read_parquet(table["path"]).columns) == [*"abcde", table["label"]]
    assert data_section("digits", None, str(tmp_path)) == "digits"


@pytest.mark.parametrize(
    ("data", "labels", "storage", "said"),
    [
        (X, None, "s3://bucket/place", "cannot go to s3://bucket/place"),
        (np.array([[object()]]), None, "", "the array holds objects"),
        (pd.DataFrame(X), Y[:3], "", "labels: 3 for 90 rows"),
        (pd.DataFrame({"raymc_label": [1]}), None, "", "rename it"),
        ("digits", Y, "", "labels: only beside data in memory"),
    ],
)
def test_data_that_no_study_takes(data: Any, labels: Any, storage: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        data_section(data, labels, storage or str(tmp_path))
