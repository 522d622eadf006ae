"""The benchmark beside other libraries, with a library that is not there: what it counts, and that it goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import peers
from raymc.space.space import load_space

CLUSTPY = """
from sklearn.cluster import KMeans

def DEC(n_clusters, random_state, device, pretrain_epochs, clustering_epochs):
    return KMeans(n_clusters, random_state=random_state)

def IDEC(**options):
    raise ValueError("no IDEC today")
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A peers' environment whose ClustPy is k-means."""
    package = tmp_path / "packages" / "clustpy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "deep.py").write_text(CLUSTPY)
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python.parents[1]


def test_each_fit_is_measured_once_and_what_failed_is_tried_again(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--environment", str(environment), "--datasets", "digits", "--seeds", "1", "--smoke"]
    monkeypatch.setattr(sys, "argv", ["peers", str(out), *words, "--methods", "dec", "idec"])
    peers.main()
    dec, idec = json.loads((out / "results.json").read_text())["rows"]
    assert (dec["library"], dec["method"], dec["dataset"], dec["seed"]) == ("clustpy", "dec", "digits", 0)
    assert 0.5 < dec["acc"] <= 1 and 0.5 < dec["nmi"] <= 1 and dec["clusters"] == 10
    assert 0 < dec["cpu_seconds"] < 60 and dec["seconds"] > 0.1 and dec["peak_mb"] > 20
    assert idec["acc"] is None and idec["error"] == "ValueError: no IDEC today"
    (environment.parent / "packages" / "clustpy" / "deep.py").write_text(CLUSTPY + "IDEC = DEC\nDEC = None\n")
    peers.main()
    again, mended = json.loads((out / "results.json").read_text())["rows"]
    assert again == dec and mended["acc"] == dec["acc"] and "error" not in mended
    assert "| digits | dec | clustpy | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "dataset", "preset"),
    [("gcml", "digits", "tuned"), ("gcml_own", "digits", "own"), ("nmce", "digits", "paper"), ("mlc", "x", "features")],
)
def test_raymc_has_the_preset_of_the_dataset(
    method: str, dataset: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presets = []

    def measured(command: Sequence[str], threads: int) -> dict[str, float]:
        space = load_space(command[3])
        presets.append((space.method, space.preset))
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        (out / "metrics.json").write_text('{"metrics": {"acc": 0.5, "nmi": 0.25, "clusters_used": 10.0}}')
        return {"seconds": 1.0, "cpu_seconds": 1.0, "peak_mb": 1.0}

    monkeypatch.setattr(peers, "measured", measured)
    file = peers.export(tmp_path, "digits", True)
    fit = peers.Fit(tmp_path, method, dataset, file, 3, True)
    peers.make(fit, Path("none"), 1)
    row = json.loads(fit.row.read_text())
    assert presets == [(method.split("_")[0], preset)] and row["library"] == "raymc" and row["acc"] == 0.5
