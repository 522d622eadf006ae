"""BatchNorm over the rows of all workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from raymc.distributed import on_gpus, sum_over_workers


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the rows of all workers, for any device; made by `synchronise_batchnorm`."""

    group: ProcessGroup | None = None

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [n, channels, ...], got {input.dim()} axes")

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        sums = torch.cat([wide.sum(axes), wide.new_tensor([x.numel() // x.shape[1]])])
        totals = sum_over_workers(sums, self.group)
        count = totals[-1].detach()
        if count < 2:
            raise ValueError("BatchNorm needs more than one value per channel in training")
        mean = totals[:-1] / count
        centred = wide - mean.view(shape)
        variance = sum_over_workers(centred.square().sum(axes), self.group) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synchronise_batchnorm(module: nn.Module, group: ProcessGroup | None) -> None:
    """Let every BatchNorm1d/2d below `module` take its training statistics from the global batch.

    Replaces them in place with the same parameters, buffers, names and state-dict keys: on a GPU by
    torch's `SyncBatchNorm`, elsewhere by `GlobalBatchNorm`. `module` itself must not be a BatchNorm (ValueError).
    """
    if group is None:
        return
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        raise ValueError("give the module that holds the BatchNorm, so that it can be replaced")
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, _synchronised(child, group))
        else:
            synchronise_batchnorm(child, group)


def _synchronised(norm: nn.BatchNorm1d | nn.BatchNorm2d, group: ProcessGroup) -> nn.Module:
    tensors = [*norm.parameters(), *norm.buffers()]
    if tensors and tensors[0].is_cuda:
        return on_gpus(norm, group)
    twin = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.group = group
    twin._parameters = norm._parameters
    twin._buffers = norm._buffers
    twin.training = norm.training
    return twin
