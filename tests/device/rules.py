"""The rules of the pretend GPU: what is a kernel, a copy or a wait, and what CUDA would refuse."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

PACKAGE = str(Path(__file__).parents[2] / "raymc")
OWN = {str(Path(__file__).with_name(name)) for name in ("pretend.py", "rules.py", "autocast.py")}

WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_linalg_check_errors"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
    # These check a status themselves.
    *("_linalg_eigh", "_linalg_svd", "_linalg_eigvals", "linalg_eig", "linalg_lstsq"),
}
"""Operations of ATen at whose end a GPU is waited for: the CPU must know a number, a size or a status."""

COPIES = {"copy_", "_to_copy", "_copy_from", "_foreach_copy_"}
INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
NUMBERS = {"masked_fill", "masked_fill_", "index_fill", "index_fill_", "fill_"}
"""They take a number of the CPU's as a tensor, and are not tagged as pointwise, which all do."""

FLOATING = {"mm", "addmm", "bmm", "baddbmm", "dot", "mv", "addmv", "convolution", "_upsample_bilinear2d_aa"}
FLOATING |= {"_upsample_bicubic2d_aa", "upsample_bicubic2d", "upsample_bilinear2d"}
"""They take integers on a CPU alone."""

UNLAUNCHED = {
    *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"),
    *("_unsafe_view", "_reshape_alias", "lift_fresh", "is_same_size", "is_pinned", "_local_scalar_dense"),
}


class Log:
    """What the device was asked for.

    Attributes:
        kernels: operations that launch something, by their names; a fused one counts once, a view does not.
        waits: what the device is waited for at, by operation and place (`training/loop.py:112 end_epoch`).
        uploads: copies from the CPU to the device.
        downloads: copies back; each is a wait too, unless it asks not to be.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads = self.downloads = 0

    def launch(self, name: str, launches: bool) -> None:
        if launches:
            self.kernels[name] += 1

    def wait(self, name: str) -> None:
        self.waits[name, place()] += 1

    @property
    def totals(self) -> tuple[int, int, int]:
        """Kernels, waits, uploads."""
        return self.kernels.total(), self.waits.total(), self.uploads


def place() -> str:
    """The innermost line of the package, or the innermost outside of torch and of the pretence."""
    frame, first = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{name[len(PACKAGE) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name}"
        if not first and name not in OWN and "/torch/" not in name and "/contextlib" not in name:
            first = f"{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return first


@functools.cache
def facts(func: Any) -> tuple[str, bool, bool, tuple[bool, ...], tuple[str, ...]]:
    """Of an operation: name, whether it launches something and takes numbers, and which arguments it writes to."""
    name = func._schema.name.removeprefix("aten::")
    aliases = [argument.alias_info for argument in func._schema.arguments]
    written = [alias is not None and alias.is_write for alias in aliases]
    view = any(alias is not None and not alias.is_write for alias in aliases) and not any(written)
    positional = tuple(w for a, w in zip(func._schema.arguments, written, strict=True) if not a.kwarg_only)
    named = tuple(a.name for a, w in zip(func._schema.arguments, written, strict=True) if w)
    numbers = torch.Tag.pointwise in func.tags or name in NUMBERS
    return name, not view and name not in UNLAUNCHED, numbers, positional, named


def refuse(name: str, tensors: list[Tensor], detail: str) -> None:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found cuda:0 and cpu, in {name}: {detail} {shapes}"
    )


def count_copy(name: str, args: Any, kwargs: Any, to_gpu: bool, log: Log) -> bool:
    """Count a copy, from the first tensor or to it; whether the result is on the device."""
    if name == "_to_copy":
        source, to = args[0].is_cuda, to_gpu
    else:
        to, source = (any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(arg)) for arg in args[:2])
    if source == to:
        log.launch(name, to)
        return to
    log.uploads += to
    log.downloads += source
    asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
    if not asynchronous:
        log.wait("upload" if to else "download")
    return to


def check_types(name: str, there: list[Tensor], kwargs: Any) -> None:
    """Raises what CUDA does for integers in what it has for floats alone, and for a generator of the CPU's."""
    if name in FLOATING and not there[0].is_floating_point():
        raise NotImplementedError(f'"{name}_cuda" not implemented for {there[0].dtype}')
    draws = kwargs.get("generator")
    if draws is not None and draws.device.type == "cpu":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def check(name: str, pointwise: bool, args: Any, on_cpu: list[Tensor], written: list[Any], log: Log) -> None:
    """Raises RuntimeError for what CUDA would not take, beside tensors that are on it; counts what indices cost."""
    if name in INDEXING:
        indices = [one for one in tree_leaves(args[1]) if isinstance(one, Tensor)]
        if not args[0].is_cuda:
            refuse(name, [args[0]], "indices on the GPU of a tensor on the CPU")
        # A number that is put at a mask is filled in, without looking for the places.
        put = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None
        filled = put is not None and not put.is_cuda and put.numel() == 1 and len(indices) == 1
        for one in indices:
            if not one.is_cuda:
                log.uploads += 1
                log.wait("upload of an index")
            if one.dtype in (torch.bool, torch.uint8) and not filled:
                log.wait("index by a mask")
        on_cpu = [one for one in on_cpu if not any(one is index for index in indices)]
        pointwise = True  # a value may be a number of the CPU's
    foreach = name.startswith("_foreach")
    large = [one for one in on_cpu if one.dim() or not (pointwise or foreach)]
    if large:
        refuse(name, large, "on the CPU")
    if lost := [one for one in written if isinstance(one, Tensor) and not one.is_cuda]:
        refuse(name, lost, "the result on the CPU")
