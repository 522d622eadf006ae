"""A linear layer with its ReLU, by the fastest product of the processor at hand."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from raymc.ops.gram import product


def dense(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """x W^T + b `[n, o]` for x `[n, i]`, W `[o, i]`, b `[o]`, and the larger of that and 0 where `relu`.

    In float32 on a CPU by oneDNN (see `raymc.ops.gram.product`) with the ReLU in the same pass, once differentiable;
    else as torch does it.
    """
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if plain or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        y = functional.linear(x, weight, bias)
        return functional.relu(y) if relu else y
    return cast(Tensor, _Dense.apply(x, weight, bias, relu))


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        y = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "relu" if relu else "none", [], "")
        return cast(Tensor, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
        x, weight, _, relu = inputs
        ctx.save_for_backward(x, weight, output if relu else None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        grad = grads[0] if y is None else torch.ops.aten.threshold_backward(grads[0], y, 0)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            product(grad, weight) if of_x else None,
            product(grad.mT, x) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )
