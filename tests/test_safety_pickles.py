"""Pickles that a stranger could hand over: only arrays, numbers and texts come out, and no pointer is made of bytes."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymc.datasets.unpickling import unpickle

GOOD: list[Any] = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i4"),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([True, False]),
    np.array({"data": np.arange(3), "label": [1, "x", None]}, dtype=object),
    np.float64(0.1),
    np.int64(-7),
    {"data": np.arange(5)[::2], b"bytes": b"\xff\x00", "labels": [0, 1], "nested": ({"a": 1.5},)},
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", GOOD, ids=range(len(GOOD)))
def test_arrays_numbers_and_texts_are_what_they_were(content: Any, protocol: int) -> None:
    pickled = pickle.dumps(content, protocol=protocol)
    found, trusted = unpickle(io.BytesIO(pickled)), pickle.loads(pickled)
    assert getattr(found, "dtype", None) == getattr(trusted, "dtype", None)
    assert type(found) is type(trusted) or isinstance(found, np.ndarray)
    assert repr(np.asarray(found)).replace("_Array(", "array(") == repr(np.asarray(trusted))


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


POINTERS = b"A" * 8
FALSE_STATE = (3, "|", None, None, None, -1, -1, 0)
"""Says of a dtype that it holds no objects."""

HARMFUL: dict[str, Any] = {
    "a function of the system": Calls(Path.touch, Path("harm")),
    "eval": Calls(eval, "open('harm', 'w')"),
    "a function of numpy": Calls(np.fromfile, "/dev/zero", "u1", 1),
    "numpy's own loading": Calls(np.save, "harm.npy", [1]),
    "pointers of bytes": Calls(np.ndarray, (1,), "O", POINTERS),
    "an array that runs": {"data": np.array(Calls(Path.touch, Path("harm")), dtype=object)},
    "a dtype with parts": np.zeros(2, dtype=[("a", "O")]),
    "a dtype with false flags": Calls(
        np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        np.ndarray,
        (0,),
        b"b",
        state=(1, (1,), Calls(np.dtype, "O8", False, True, state=FALSE_STATE), False, POINTERS),
    ),
    "an object as a number": Calls(np._core.multiarray.scalar, np.dtype("O"), POINTERS),  # type: ignore[attr-defined]
    "a buffer of pointers": Calls(
        np._core.numeric._frombuffer,  # type: ignore[attr-defined]
        POINTERS,
        np.dtype("O"),
        (1,),
        "C",
    ),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("what", HARMFUL)
def test_nothing_else_is_made(what: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(HARMFUL[what], protocol=protocol)
    assert pickletools.genops(content)
    with pytest.raises((pickle.UnpicklingError, TypeError, ValueError)):
        unpickle(io.BytesIO(content))
    assert not list(tmp_path.iterdir())


def test_a_name_with_a_path_in_it_leads_nowhere() -> None:
    for module, name in (("numpy", "ndarray.tofile"), ("numpy.f2py", "dtype.__init__"), ("_codecs", "lookup")):
        words = b"".join(b"\x8c%c%s" % (len(word), word.encode()) for word in (module, name))
        with pytest.raises(pickle.UnpicklingError, match="it names"):
            unpickle(io.BytesIO(b"\x80\x04" + words + b"\x93."))
