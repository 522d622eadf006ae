"""What a machine must have for a training: the samples of the driver, CUDA that starts, raymc's version, space."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

import raymc
from raymc.config import Config
from raymc.errors import InputError, MachineError, StorageError, TrainingError
from raymc.training.features.data import Setting, load_data
from raymc.training.training import pick_device

FREE_BYTES = 256 * 2**20
"""Of the folder for temporary files: a study in an object store is worked on there, and so are Ray's logs."""


@dataclass(frozen=True)
class Requirements:
    """What every machine of a study must have.

    Args:
        config: by which the samples are read, from the datasets' folder `data`; `storage` has an encoder's features.
        fingerprint: of the samples as the driver read them; None where it has not yet.
        version: of raymc on the driver's machine.
    """

    config: Config
    storage: str
    data: str | None
    fingerprint: str | None
    smoke: bool = False
    version: str = raymc.__version__

    def check(self, gpu: bool) -> None:
        """Raises MachineError where this machine lacks something; `gpu` says that a training takes one."""
        check_version(self.version)
        check_space()
        if gpu:
            check_cuda()
        self._check_samples(pick_device(None if gpu else "cpu"))

    def _check_samples(self, device: torch.device) -> None:
        try:
            dataset = load_data(self.config, self.data, Setting(self.storage, device=device), self.smoke)
        except StorageError:
            raise
        except (InputError, OSError) as error:
            raise MachineError(f"no data there: {error}") from error
        # What follows "/" is to how many samples the driver cut them.
        if self.fingerprint and dataset.fingerprint.partition("/")[0] != self.fingerprint.partition("/")[0]:
            raise MachineError(f"the samples of {dataset.name} there are not those of the driver")


@contextmanager
def required(requirements: Requirements | None, gpu: bool) -> Iterator[None]:
    """Check this machine before a training, and again where it went wrong for no reason of its own.

    Raises MachineError. Without `requirements` nothing is checked.
    """
    if requirements is None:
        yield
        return
    requirements.check(gpu)
    try:
        yield
    except (TrainingError, StorageError, torch.AcceleratorError):
        raise  # CUDA does not work in this process any more: the next one finds out whether it does on the machine
    except Exception:
        requirements.check(gpu)
        raise


def check_version(version: str) -> None:
    """Raises MachineError where this machine has another raymc."""
    if raymc.__version__ != version:
        raise MachineError(f"it has raymc {raymc.__version__}, and the driver has {version}")


def lacking(error: ImportError) -> MachineError:
    """What an import that went wrong says of this machine, in one line."""
    return MachineError(f"a package is missing or broken: {' '.join(str(error).split())}")


def check_space() -> None:
    """Raises MachineError where the folder for temporary files is nearly full."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise MachineError(f"{free / 2**20:.0f} MiB are free in {folder}, and {FREE_BYTES / 2**20:.0f} are needed")


def check_cuda() -> None:
    """Raises MachineError where the GPU that Ray gave this process does not compute."""
    if not torch.cuda.is_available():
        raise MachineError("CUDA does not start there: torch sees no GPU")
    try:
        square = torch.ones(64, 64, device="cuda")
        (square @ square).sum().item()
    except torch.OutOfMemoryError:  # others share it
        return
    except RuntimeError as error:
        raise MachineError(f"CUDA does not start there: {str(error).splitlines()[0]}") from error
