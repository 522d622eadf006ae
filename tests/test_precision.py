"""What a training is computed in: on which device, under which key, and what its results say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raymc.datasets import load
from raymc.errors import DeviceMemoryError, InputError
from raymc.reporting import words
from raymc.space.space import load_space
from raymc.study.records import SeedRun
from raymc.training import training as shared
from raymc.training.checkpoints.export import export
from raymc.training.precision import as_computed, as_recorded, exact_float32, on_device
from raymc.training.run import run
from raymc.training.smoke import limited

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
PLACES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)


@pytest.mark.parametrize(
    ("space", "asked", "device", "capability", "kept", "computed"),
    [
        ("nmce_digits", "auto", CPU, 9, "auto", "float32"),
        ("nmce_digits", "auto", CUDA, 9, "bfloat16", "bfloat16"),
        ("nmce_digits", "auto", CUDA, 7, "auto", "float32"),  # torch would emulate bfloat16 there
        ("gcml_digits", "auto", CUDA, 9, "auto", "float32"),  # it loses by bfloat16
        ("nmce_digits", "float32", CUDA, 9, "float32", "float32"),
        ("nmce_digits", "float64", CUDA, 9, "float64", "float64"),
        ("gcml_digits", "bfloat16", CPU, 9, "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_what_the_device_has(space, asked, device, capability, kept, computed, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda at: (capability, 0))
    config = on_device(load_space(space).pinned({"precision": asked}).config(), device)
    assert (config.precision, as_computed(config).precision) == (kept, computed)


def test_results_say_it_and_another_device_s_result_is_another_one(tmp_path: Path, monkeypatch) -> None:
    config = load_space("mlc_digits").config()
    seeds, keys, real = {"pretrain": 0, "heads": 0}, {}, on_device
    for name, device in (("cpu", CPU), ("gpu", CUDA), ("again", CPU)):
        # The device decides, the CPU computes: a resume on the other one finds nothing of the first.
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda at: (9, 0))
        monkeypatch.setattr(shared, "on_device", lambda one, _, device=device: real(one, device))
        out = tmp_path / name
        out.mkdir()
        result = run(
            config, storage=str(tmp_path / "s"), out=out, stage_seeds=seeds, device="cpu", smoke=True, keep_model=True
        )
        written = json.loads((out / "config.json").read_text())["precision"]
        model = json.loads((out / "model" / "config.json").read_text())["configuration"]["precision"]
        assert result["precision"] == written == model == ("bfloat16" if name == "gpu" else "float32")
        keys[name] = [stage["key"] for stage in result["stages"]]
        assert all(stage["cached"] == (name == "again") for stage in result["stages"] if stage["epochs"])
    assert keys["cpu"] == keys["again"] and not set(keys["cpu"]) & set(keys["gpu"])


def test_a_gpu_s_result_is_found_by_the_configuration_that_says_auto(tmp_path: Path, monkeypatch) -> None:
    space, store = (
        load_space("mlc_digits").pinned({"pretrain.epochs": 1, "heads.epochs": 0, "n_samples": 300}),
        str(tmp_path / "s"),
    )
    seeds, config, said = {"pretrain": 0, "heads": 0}, space.config(), {"space": "mlc_digits", "command": "train"}
    monkeypatch.setattr(shared, "on_device", lambda one, _: as_recorded(one, "bfloat16"))
    result = run(config, storage=store, out=tmp_path, stage_seeds=seeds, device="cpu")
    card = export(config, "pretrain", seeds, tmp_path / "c", storage=store, data=None, origin=said)
    assert card["key"] == result["stages"][0]["key"] and card["configuration"]["precision"] == "bfloat16"
    with pytest.raises(InputError, match="not in the store"):
        export(config, "pretrain", {"pretrain": 1, "heads": 0}, tmp_path / "d", storage=store, data=None, origin=said)
    earlier = pytest.importorskip("raymc.study.earlier")
    manifest = {"smoke": False, "seed": 0, "seeds_from": None}
    data = limited(load("digits"), config)
    keys = [earlier.stage_keys(space, manifest, {}, 0, data, name)["pretrain"] for name in ("bfloat16", "")]
    assert keys[0] == card["key"] != keys[1]


def test_float32_is_float32_within_and_as_before_behind() -> None:
    before = [place.fp32_precision for place in PLACES]
    try:
        torch.set_float32_matmul_precision("medium")  # the other way of saying it
        asked = [place.fp32_precision for place in PLACES]
        assert asked != ["ieee"] * 3
        with pytest.raises(ZeroDivisionError), exact_float32():
            with exact_float32():
                pass
            assert [place.fp32_precision for place in PLACES] == ["ieee"] * 3
            raise ZeroDivisionError
        assert [place.fp32_precision for place in PLACES] == asked
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [place.fp32_precision for place in PLACES][1] == before[1]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), DeviceMemoryError),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"), DeviceMemoryError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), DeviceMemoryError),
        (RuntimeError("CUDA error: out of memory"), DeviceMemoryError),
        (RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED"), RuntimeError),
    ],
)
def test_libraries_without_memory_are_out_of_memory(error, raised, tmp_path: Path, monkeypatch) -> None:
    def fails(*words: object) -> None:
        raise error

    monkeypatch.setattr("raymc.training.run.Training", fails)
    with pytest.raises(RuntimeError if raised is RuntimeError else raised, match=str(error)[:9]):
        run(load_space("gcml_digits").config(), storage=str(tmp_path), out=tmp_path, stage_seeds={}, device="cpu")


def test_reports_name_every_precision_that_records_have(tmp_path: Path) -> None:
    rows = [{"seed": at, "precision": kind} for at, kind in enumerate(("float32", "bfloat16", "float32", ""))]
    runs = [SeedRun.of(row, tmp_path) for row in rows]
    assert words.precisions(runs) == "bfloat16 and float32"
    assert [SeedRun.of(run.row, tmp_path) for run in runs] == runs
