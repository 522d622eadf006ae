"""A pretend GPU: its tensors say that they are on `cuda:0`, and their numbers lie in the CPU's memory.

What mixes them with the CPU's tensors raises as CUDA does, and `Log` counts what is launched, copied and waited for. So
a path that runs here runs on a GPU as far as devices go; it says nothing of speed, of rounding or of memory. Left out:
CUDA graphs and streams; autocast is in `autocast.py`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.device.autocast import autocast, is_enabled

GPU = torch.device("cuda", 0)
UNDER = torch.device("lazy", 0)
"""What torch's own code takes the tensors to be on: no device guard and no thread of autograd belongs to it."""

PACKAGE = str(Path(__file__).parents[2] / "raymc")

WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_linalg_check_errors"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
    *(
        "_linalg_eigh",
        "_linalg_svd",
        "_linalg_eigvals",
        "linalg_eig",
        "linalg_lstsq",
    ),  # these check a status themselves
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
    """The innermost line of the package, or the innermost outside of torch and of this file."""
    frame, first = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return f"{name[len(PACKAGE) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name}"
        if not first and name != __file__ and "/torch/" not in name and "/contextlib" not in name:
            first = f"{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return first


def is_gpu(device: Any) -> bool:
    return torch.device(device).type in ("cuda", "lazy")


def beneath(value: Any) -> Any:
    """A device as torch's own code is to see it."""
    if isinstance(value, torch.device | str) and str(value).split(":")[0] == "cuda":
        return UNDER
    return value


class OnGpu(Tensor):
    """A tensor on the pretend device; `held` has its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=UNDER,
        )
        made.held = held
        return made

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)

    @property
    def data(self) -> Any:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: Any) -> None:
        Tensor.data.__set__(self, value)
        self.held = value.held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {}, ACTIVE[-1] if ACTIVE else Log())

    def __repr__(self) -> str:
        return f"OnGpu({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy = OnGpu(self.held.clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if is_parameter else copy
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As it comes back by `map_location="cpu"`."""
        return self.detach().cpu().__reduce_ex__(protocol)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return super().to(*map(beneath, args), **{name: beneath(value) for name, value in kwargs.items()})

    def cuda(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def is_pinned(self, *args: Any) -> bool:
        return False


@functools.cache
def facts(func: Any) -> tuple[str, bool, bool, tuple[bool, ...], tuple[str, ...]]:
    """Of an operation: name, whether it launches something and takes numbers, and which arguments it writes to."""
    name = func._schema.name.removeprefix("aten::")
    aliases = [argument.alias_info for argument in func._schema.arguments]
    written = [alias is not None and alias.is_write for alias in aliases]
    view = any(alias is not None and not alias.is_write for alias in aliases) and not any(written)
    positional = tuple(w for a, w in zip(func._schema.arguments, written, strict=True) if not a.kwarg_only)
    named = tuple(a.name for a, w in zip(func._schema.arguments, written, strict=True) if w)
    return (
        name,
        not view and name not in UNLAUNCHED,
        torch.Tag.pointwise in func.tags or name in NUMBERS,
        positional,
        named,
    )


def refuse(name: str, tensors: list[Tensor], detail: str) -> None:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found cuda:0 and cpu, in {name}: {detail} {shapes}"
    )


def run(func: Any, args: Any, kwargs: Any, log: Log) -> Any:
    """One operation on the numbers beneath, after the rules of devices; its results are where they belong."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [one for one in tensors if isinstance(one, OnGpu)]
    device = kwargs.get("device")
    to_gpu = bool(there) if device is None else is_gpu(device)
    if not there and not to_gpu and not kwargs.get("pin_memory"):
        return func(*args, **kwargs)
    name, launches, pointwise, positional, named = facts(func)
    written = [leaf for arg, w in zip(args, positional, strict=False) if w for leaf in tree_leaves(arg)]
    written += [leaf for key in named if key in kwargs for leaf in tree_leaves(kwargs[key])]
    if name in COPIES:
        to_gpu = count_copy(name, args, kwargs, to_gpu, log)
    elif there:
        check_types(name, there, kwargs)
        check(name, pointwise, args, [one for one in tensors if not isinstance(one, OnGpu)], written, log)
        log.launch(name, launches)
        if name in WAITING or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            log.wait(name)
    elif to_gpu:
        check_types(name, there, kwargs)
        log.launch(name, launches)
    beneath_args, beneath_kwargs = tree_map(held_of, args), tree_map(held_of, kwargs)
    if device is not None:
        beneath_kwargs["device"] = torch.device("cpu")
    if "pin_memory" in kwargs:
        beneath_kwargs["pin_memory"] = False
    if "non_blocking" in kwargs:
        beneath_kwargs["non_blocking"] = False
    out = func(*beneath_args, **beneath_kwargs)
    if torch.Tag.inplace_view in func.tags:
        reshape_alike(func, args, kwargs)
    same = {id(held_of(one)): one for one in written}
    if name == "_local_scalar_dense":
        return out
    return tree_map(lambda one: same[id(one)] if id(one) in same else wrapped(one, to_gpu), out)


def reshape_alike(func: Any, args: Any, kwargs: Any) -> None:
    """What changes a shape in place does so on the outside too, which has no numbers."""
    before = torch._C._meta_in_tls_dispatch_include()
    with no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            func(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def held_of(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def wrapped(value: Any, to_gpu: bool) -> Any:
    return OnGpu(value) if to_gpu and isinstance(value, Tensor) and not isinstance(value, OnGpu) else value


def count_copy(name: str, args: Any, kwargs: Any, to_gpu: bool, log: Log) -> bool:
    """Count a copy, from the first tensor or to it; whether the result is on the device."""
    if name == "_to_copy":
        source, to = isinstance(args[0], OnGpu), to_gpu
    else:
        to, source = (any(isinstance(leaf, OnGpu) for leaf in tree_leaves(arg)) for arg in args[:2])
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
        if not isinstance(args[0], OnGpu):
            refuse(name, [args[0]], "indices on the GPU of a tensor on the CPU")
        # A number that is put at a mask is filled in, without looking for the places.
        put = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None
        filled = put is not None and not isinstance(put, OnGpu) and put.numel() == 1 and len(indices) == 1
        for one in indices:
            if not isinstance(one, OnGpu):
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
    if lost := [one for one in written if isinstance(one, Tensor) and not isinstance(one, OnGpu)]:
        refuse(name, lost, "the result on the CPU")


ACTIVE: list[Log] = []
"""The log of the device that is installed."""


class Mode(TorchDispatchMode):
    """Sees what is made on the device, and what leaves the CPU for it."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {}, self._log)


@contextlib.contextmanager
def installed(memory: int = 10**11, bfloat16: bool = False) -> Iterator[Log]:
    """A GPU with so many free bytes, for torch and who asks it, in this thread and those that are started meanwhile.

    `bfloat16`: whether it says that it has that type; else `precision: auto` is float32, which the CPU can be compared
    with.
    """
    log, plain_run = Log(), threading.Thread.run

    def run_thread(self: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)
        with Mode(log):
            plain_run(self)

    off = torch.__future__.get_overwrite_module_params_on_conversion()
    lifted = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch, Mode(log):
        cuda = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_initialized": lambda: False,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_name": lambda device=None: "pretend GPU",
            "get_device_properties": lambda device=None: None,
            "mem_get_info": lambda device=None: (memory, memory),
            "is_bf16_supported": lambda *args, **kwargs: bfloat16,
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: log.wait("synchronize"),
        }
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            if hasattr(torch.optim.Optimizer, name):  # both ask the driver
                patch.setattr(torch.optim.Optimizer, name, lambda self: None)
        patch.setattr(threading.Thread, "run", run_thread)
        patch.setattr(torch, "autocast", autocast(torch.autocast))
        patch.setattr(torch, "is_autocast_enabled", is_enabled(torch.is_autocast_enabled))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # what `torch.tensor` makes is made here and moved, which the mode sees
        ACTIVE.append(log)
        try:
            yield log
        finally:
            ACTIVE.pop()
            torch._C._set_only_lift_cpu_tensors(lifted)
            torch.__future__.set_overwrite_module_params_on_conversion(off)
