"""Where the time of an epoch goes: by the parts of a step, by operation, and what a GPU spends on copies and idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity

from raymc.training import feed, loop

PARTS = ("samples", "draws", "augmentation", "forward", "backward", "optimiser")


class Spans:
    """Stands in for `record_function` in the loop and the feed: seconds by the name of a part.

    On a GPU they are from event to event on its own line of time, with its pauses; "draws" holds their copies.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = self._now()
        yield
        self.marks.append((name, begin, self._now()))

    def seconds(self) -> dict[str, float]:
        """Sums by name; the device has been waited for."""
        sums = dict.fromkeys(PARTS, 0.0)
        for name, begin, end in self.marks:
            sums[name] += begin.elapsed_time(end) / 1e3 if self.device.type == "cuda" else end - begin
        return sums

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def profile(epoch: Callable[[], float], steps: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds a step by part, and the largest operations, each from one call of `epoch`, which gives its seconds.

    `rest` is what is in no part: Python between them and, on a CPU, the reading of the loss.
    """
    spans = Spans(device)
    with mock.patch.object(loop, "record_function", spans), mock.patch.object(feed, "record_function", spans):
        whole = epoch()
    parts = spans.seconds()
    parts["rest"] = whole - sum(parts.values())
    found: dict[str, Any] = {"ms_per_step": {name: 1e3 * value / steps for name, value in parts.items()}}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        whole = epoch()
    if device.type == "cuda":
        found["device_ms_per_step"] = _device(profiler.events(), whole, steps)
    found["operations"] = _largest(profiler.key_averages(), steps, device.type == "cuda")
    return found


def _device(events: Any, whole: float, steps: int) -> dict[str, float]:
    """What a GPU did in the profiled epoch, which is slower than others: kernels, copies, nothing."""
    on_gpu = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
    there = [e for e in events if e.device_type == on_gpu and not e.is_user_annotation]
    spans = [(e.time_range.start / 1e3, e.time_range.end / 1e3) for e in there]
    copies = [span for span, e in zip(spans, there, strict=True) if e.name.startswith("Memcpy HtoD")]
    busy, moving = covered(spans), covered(copies)
    sums = {"kernels": busy - moving, "transfers": moving, "idle": 1e3 * whole - busy}
    return {name: ms / steps for name, ms in sums.items()}


def _largest(averages: Any, steps: int, on_gpu: bool, count: int = 12) -> list[dict[str, Any]]:
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    chosen = sorted((a for a in averages if a.key not in PARTS), key=lambda a: -getattr(a, name))[:count]
    return [{"name": a.key, "ms": getattr(a, name) / 1e3 / steps, "calls": a.count / steps} for a in chosen]


def table(found: dict[str, Any]) -> str:
    """The profile as text."""
    lines = []
    for title in ("ms_per_step", "device_ms_per_step"):
        if title in found:
            total = sum(found[title].values())
            lines += [f"  {title.replace('_', ' ')}"]
            lines += [f"    {name:40} {ms:10.3f} {100 * ms / total:6.1f} %" for name, ms in found[title].items()]
    lines += ["  operations, ms and calls a step"]
    lines += [f"    {row['name'][:40]:40} {row['ms']:10.3f} {row['calls']:8.1f}" for row in found["operations"]]
    return "\n".join(lines)
