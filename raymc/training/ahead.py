"""Draws that are made one step ahead, in a thread, while the device works on the step before; the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from raymc.training.transfer import buffered, sent

Key = TypeVar("Key", bound=Hashable)


def in_thread(device: torch.device) -> bool:
    """Whether draws for a device are made ahead: a CPU's cores have the training to do."""
    return device.type != "cpu"


class Ahead:
    """The draws of an epoch of so many steps, by name; used in a `with`, after which no thread is left.

    Who takes those of a step has those of the next one begun, so names need not be known before they are asked for.
    A thread draws and packs; copies to the device are queued by who takes. Closed, it draws when it is asked.
    """

    def __init__(self, device: torch.device, steps: int) -> None:
        self._steps = steps
        self._pool = ThreadPoolExecutor(1, "draws") if in_thread(device) else None
        self._pending: dict[Hashable, tuple[int, Future[Any]]] = {}

    def take(
        self, name: Hashable, draw: Callable[[int], Mapping[Key, Tensor]], step: int, device: torch.device
    ) -> dict[Key, Tensor]:
        """What `draw(step)` gives, on `device`. Raises what the draw raised, if it was made ahead too."""

        def packed(of: int) -> tuple[Mapping[Key, Tensor], Tensor | None]:
            drawn = draw(of)
            return drawn, buffered(drawn, device)

        begun = self._pending.get(name)
        if begun is not None and begun[0] == step:
            del self._pending[name]
            drawn, buffer = begun[1].result()
        else:
            drawn, buffer = packed(step)
        if self._pool is not None and drawn and name not in self._pending and step + 1 < self._steps:
            self._pending[name] = step + 1, self._pool.submit(packed, step + 1)
        return sent(drawn, buffer, device)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        self._pending.clear()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
