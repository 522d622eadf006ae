"""A pretend GPU: its tensors say that they are on `cuda:0`, and their numbers lie in the CPU's memory.

What mixes them with the CPU's tensors raises as CUDA does, and `Log` counts what is launched, copied and waited for. So
a path that runs here runs on a GPU as far as devices go; it says nothing of speed, of rounding or of memory. Left out:
CUDA graphs and streams; the rules are in `rules.py`, autocast in `autocast.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.device.autocast import autocast, is_enabled
from tests.device.rules import COPIES, WAITING, Log, check, check_types, count_copy, facts

GPU = torch.device("cuda", 0)
UNDER = torch.device("lazy", 0)
"""What torch's own code takes the tensors to be on: no device guard and no thread of autograd belongs to it."""


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
            "get_device_capability": lambda device=None: (8 if bfloat16 else 7, 0),
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
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes it here and moves it, which the mode sees
        ACTIVE.append(log)
        try:
            yield log
        finally:
            ACTIVE.pop()
            torch._C._set_only_lift_cpu_tensors(lifted)
            torch.__future__.set_overwrite_module_params_on_conversion(off)
