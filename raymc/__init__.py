"""raymc: hyperparameter search for manifold clustering, distributed with Ray."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

PUBLIC = {
    "encode": "estimators.encode",
    "GCML": "estimators.gcml",
    "load_model": "estimators.model",
    "load_study": "estimators.study",
    "MLC": "estimators.mlc",
    "Model": "estimators.model",
    "NMCE": "estimators.nmce",
    "run_study": "estimators.study",
    "Study": "estimators.study",
    "Trial": "estimators.study",
}
"""What `raymc.NAME` is, by the module below `raymc` that has it, which is imported when it is first asked for.

Type checkers read `__init__.pyi`, which has the same names.
"""


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(f"raymc.{PUBLIC[name]}"), name)
    raise AttributeError(f"module raymc has no attribute {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
