"""raymc: hyperparameter search for manifold clustering, distributed with Ray."""

import os
import sys
from importlib import import_module


def _installed_first() -> None:
    """Put the working folder last where modules are looked for.

    Python has it first for `-m`, and for an empty part of PYTHONPATH: a user's torch.py or random.py there would take
    the place of the real one. Above, nothing is imported that Python has not loaded by then.
    """
    try:
        here = ("", os.getcwd())
    except FileNotFoundError:  # it was deleted
        return
    sys.path.sort(key=here.__contains__)  # stable: True comes last


if sys.argv[0] == "-m" or os.path.basename(sys.argv[0]) == "raymc":  # a command begins, no program of the user's
    _installed_first()

__version__ = "0.1.0"

PUBLIC = {
    "MLC": "estimators.mlc",
    "NMCE": "estimators.nmce",
    "GCML": "estimators.gcml",
    "load_model": "estimators.model",
    "Model": "estimators.model",
    "run_study": "estimators.study",
    "load_study": "estimators.study",
    "Study": "estimators.study",
    "Trial": "estimators.study",
    "encode": "estimators.encode",
}
"""What `raymc.NAME` is, by the module below `raymc` that has it, which is imported when it is first asked for.

Type checkers read `__init__.pyi`, which has the same names.
"""


def __getattr__(name: str) -> object:
    if name in PUBLIC:
        return getattr(import_module(f"raymc.{PUBLIC[name]}"), name)
    raise AttributeError(f"module raymc has no attribute {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
