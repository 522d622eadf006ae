"""What a training is computed in: the precision on its device, float32 that is float32, memory that ran out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from raymc.config import Config
from raymc.methods import METHODS

AMPERE = 8  # the first compute capability with bfloat16; torch counts what it emulates below as supported

ALLOCATION_FAILED = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What the message of a RuntimeError holds where a library of CUDA's had no memory."""


def on_device(config: Config, device: torch.device) -> Config:
    """`config` with `precision: auto` as bfloat16 where the device has it and the method is meant for it.

    Where `auto` means float32 it stays, as the keys of stored stages have it: see `as_computed`.
    """
    if config.precision != "auto" or not METHODS[config.method].autocasts or device.type != "cuda":
        return config
    able = torch.cuda.get_device_capability(device)[0] >= AMPERE
    return replace(config, precision="bfloat16") if able else config


def as_computed(config: Config) -> Config:
    """A configuration that `on_device` gave as results have it: `auto`, where it is left, is float32."""
    return replace(config, precision="float32") if config.precision == "auto" else config


def as_recorded(config: Config, precision: str) -> Config:
    """`config` as `on_device` gave it where a result says that it was computed in `precision`: its keys are of that."""
    return replace(config, precision="bfloat16") if (config.precision, precision) == ("auto", "bfloat16") else config


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no memory left, for torch itself or for cuBLAS, cuSOLVER, cuSPARSE or cuDNN."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ALLOCATION_FAILED)


@contextmanager
def fastest_convolutions(device: torch.device) -> Iterator[None]:
    """Within, on a GPU, cuDNN times its kernels at the first step of each shape and keeps the fastest.

    For training, whose batches have one shape. Another run may find another kernel, with other last digits.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


_lock = threading.Lock()
_within = 0
_before: tuple[str, ...] = ()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within, products and convolutions of float32 are computed in it: no TF32 on a GPU, no bfloat16 by oneDNN.

    torch's default is TF32 for convolutions. Its settings are the process's: the first of several threads in here
    changes them, the last one puts them back. Only `fp32_precision` is read and written, which torch 2.11 to 2.15
    have: torch refuses a mix with `allow_tf32`.
    """
    global _within, _before
    places = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    )
    with _lock:
        if not _within:
            _before = tuple(place.fp32_precision for place in places)
            for place in places:
                place.fp32_precision = "ieee"
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                for place, value in zip(places, _before, strict=True):
                    place.fp32_precision = value
