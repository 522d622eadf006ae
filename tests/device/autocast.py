"""Autocast on the pretend GPU: by the lists of CUDA, as far as Python sees the calls.

Where types clash there (a result in bfloat16 is put among float32, a factorisation is of bfloat16) they do here.
Each use of a weight casts it anew, where CUDA keeps the cast: kernels are not to be counted under it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

LOWER = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm"),
    *("addmm", "addmv", "addbmm", "baddbmm", "mv", "einsum", "prelu", "scaled_dot_product_attention"),
}
SINGLE = {
    *(
        "exp",
        "log",
        "log2",
        "log1p",
        "pow",
        "__pow__",
        "__rpow__",
        "rsqrt",
        "reciprocal",
        "acos",
        "asin",
        "sum",
        "prod",
    ),
    *("prod", "cumsum", "cumprod", "norm", "vector_norm", "dist", "cdist", "renorm", "softmax", "log_softmax"),
    *("normalize", "layer_norm", "group_norm", "cosine_similarity", "cross_entropy", "nll_loss", "kl_div", "mse_loss"),
    *("logsumexp", "l1_loss", "smooth_l1_loss", "triplet_margin_loss", "linalg_vector_norm", "linalg_matrix_norm"),
}
WIDEST = {"cat", "stack", "addcmul", "addcdiv", "atan2", "dot", "cross", "index_put", "scatter_add", "tensordot"}


class Casting(TorchFunctionMode):
    """Casts what calls are given, while `Autocast` says so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if Autocast.dtype is None or name not in LOWER | SINGLE | WIDEST:
            return func(*args, **kwargs)
        floats = [one.dtype for one in tree_leaves((args, kwargs)) if _eligible(one)]
        wide = torch.float32 if torch.float32 in floats else Autocast.dtype
        to = Autocast.dtype if name in LOWER else torch.float32 if name in SINGLE else wide

        def cast(value: Any) -> Any:
            return value.to(to) if _eligible(value) else value

        return func(*tree_map(cast, args), **tree_map(cast, kwargs))


def _eligible(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_cuda and value.dtype in (torch.float32, torch.bfloat16, torch.float16)


class Autocast:
    """What `with torch.autocast("cuda", …)` does."""

    dtype: torch.dtype | None = None

    def __init__(self, dtype: torch.dtype | None, enabled: bool) -> None:
        self._to = (dtype or Autocast.dtype or torch.float16) if enabled else None

    def __enter__(self) -> None:
        self._before, Autocast.dtype = Autocast.dtype, self._to
        self._casting = Casting() if self._to is not None else None
        if self._casting:
            self._casting.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._casting:
            self._casting.__exit__(*error)
        Autocast.dtype = self._before


def autocast(plain: Any) -> Callable[..., Any]:
    """`torch.autocast`, for the pretend device too."""

    def make(device_type: str, dtype: Any = None, enabled: bool = True, **more: Any) -> Any:
        if device_type == "cuda":
            return Autocast(dtype, enabled)
        return plain(device_type, dtype=dtype, enabled=enabled, **more)

    return make


def is_enabled(plain: Any) -> Callable[..., bool]:
    """`torch.is_autocast_enabled`, likewise."""
    return lambda *kind: Autocast.dtype is not None if kind == ("cuda",) else plain(*kind)
