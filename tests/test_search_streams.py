"""Results go to standard output, progress and remarks to standard error, whatever the command."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raymc import encoders
from raymc.__main__ import COMMANDS, whole_parser
from raymc.cli import execute
from tests.small_encoder import small

SPACE = """
method: gcml
dataset: {path: rows.csv, label: species}
fixed: {backbone: dense_256, pretrain.epochs: 1, finetune.epochs: 1, finetune.centers_by: kmeans, n_clusters: 3}
space: {scaling: {choices: [none, null]}}
objective: {metric: acc, mode: max, uses_labels: true}
budget: {trials: 1, seeds: 1, confirm: {top: 1, seeds: 1}}
"""
RAN: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "train": ("mine.yaml --out run", ("gcml on rows", "minutes: ", "run"), ("pretrain 1/1",)),
    "predict": ("run rows.csv", ("60 samples by ", "labels: "), ()),
    "checkpoint": ("mine.yaml --out weights --stage pretrain", ("checkpoint: ",), ()),
    "tune": ("mine.yaml --name a", ("winner: trial 0: scaling=", "report: "), ("trial 0 started",)),
    "stability": ("a --seeds 2", ("acc", "report: "), ("started",)),
    "report": ("a", ("report: ",), ()),
    "studies": ("list", ("a ", "finished"), ()),
    "cluster": (
        "rows.csv --clusters 3 --methods kmeans --seeds 2 --label species",
        ("report: ",),
        ("clustering 60 samples",),
    ),
    "check": ("mine.yaml", ("ok", "one step of each stage"), ()),
    "data": ("list", ("usps",), ()),
    "embed": ("photos --encoder efficientnet_lite2", ("2 x 12 features",), ()),
}
"""Each command with what is to be on its standard output, and what on its standard error."""
AGAIN = {"checkpoint": ("--out", "other")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYMC_STORAGE", str(tmp_path / "store"))
    monkeypatch.setattr(encoders, "load", lambda *_: small())
    x = np.random.default_rng(0).normal(size=(60, 3)) + 4 * (np.arange(60)[:, None] % 3)
    pd.DataFrame(x, columns=list("abc")).assign(species=["uvw"[i % 3] for i in range(60)]).to_csv(
        "rows.csv", index=False
    )
    Path("photos").mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (20, 20), (200, 30, 20)).save(f"photos/{name}.png")
    Path("mine.yaml").write_text(SPACE)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's and MLflow's own
def test_results_to_standard_output_and_the_rest_to_standard_error(
    here: Path, ray_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RAN.keys() == COMMANDS.keys() - {"completion"}
    for name, (line, results, progress) in RAN.items():
        door = importlib.import_module(f"raymc.commands.{name}")
        # With --json on the shared Ray many tests run these.
        for more in ((),) if name in ("tune", "stability", "cluster") else ((), ("--json",)):
            capsys.readouterr()
            again = AGAIN.get(name, ()) if more else ()
            assert execute(door.parser(), door.run, [*line.split(), *again, *more]) == 0, capsys.readouterr().err
            out, err = capsys.readouterr()
            if more:
                assert isinstance(json.loads(out.splitlines()[-1]), dict), f"{name} {out}"
                continue
            assert [words for words in results if words not in out] == [], f"{name}\n{out}\n--\n{err}"
            assert [words for words in progress if words not in err] == [], f"{name}\n{out}\n--\n{err}"
            assert [row for row in out.splitlines() if row.strip() and row in err.splitlines()] == []
            assert [words for words in progress if words in out] == []


def test_completion_is_a_result(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab")
    from raymc.commands import completion

    assert execute(completion.parser(), lambda args: completion.run(args, whole_parser()), ["bash"]) == 0
    out, err = capsys.readouterr()
    assert "tune" in out and not err
