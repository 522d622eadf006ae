"""The optimisers of a stage and their learning rates.

LARS is set as in NMCE's published code: trust coefficient 0.02, clipped at the learning rate,
momentum 0.9; biases and BatchNorm parameters (one-dimensional) are neither adapted nor decayed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raymc.config import StageConfig
from raymc.methods.base import Group, Step
from raymc.training.lars import Lars
from raymc.training.transfer import fetched

MOMENTUM = 0.9
LARS_TRUST = 0.02
NEGLIGIBLE = {"momentum_buffer": 1e-30, "exp_avg": 1e-30, "exp_avg_sq": 1e-36}
"""Averages below which an update adds nothing to a weight, nor the last one's root to Adam's 1e-8 in float32."""

FORGET_EVERY = 100
"""Steps between two looks at the averages: by 0.9 a step 1e-30 takes 173 to become denormal."""


def learning_rate(epoch: int, epochs: int, base: float, warmup: int, schedule: str) -> float:
    """Learning rate in `epoch`, counted from 0.

    Linear to `base` over the first `warmup` epochs, (epoch + 1) / warmup of it; then constant, or the cosine
    of the whole stage scaled to leave the warm-up at `base`:
    base * (1 + cos(pi epoch / epochs)) / (1 + cos(pi (warmup - 1) / epochs)).
    That is what NMCE's published code does (it overwrites the rate of a running CosineAnnealingLR); without
    warm-up it is the usual half cosine. Never 0, since the last epoch is `epochs` - 1.
    """
    if epoch < warmup:
        return base * (epoch + 1) / warmup
    if schedule == "constant":
        return base
    start = max(warmup - 1, 0)
    return base * (1 + math.cos(math.pi * epoch / epochs)) / (1 + math.cos(math.pi * start / epochs))


class Optimisers:
    """One optimiser per group of a step.

    A group without prefix follows `config.optimizer` and the schedule; one with prefix `whole_` likewise at
    `whole_learning_rate`; one with `cluster_` is SGD at the constant rate `cluster_learning_rate`. A group whose
    modules have no parameters gets no optimiser.
    Raises ValueError when a parameter is in two groups.
    """

    def __init__(self, model: nn.ModuleDict, step: Step, config: StageConfig) -> None:
        self._config = config
        self._steps = 0
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        seen: set[nn.Parameter] = set()
        for group in step.groups:
            parameters = [p for name in group.modules for p in model[name].parameters()]
            if len(seen | set(parameters)) < len(seen) + len(parameters):
                raise ValueError(f"a parameter of {', '.join(group.modules)} is in two optimiser groups")
            seen |= set(parameters)
            if parameters:
                self._optimisers[_title(group)] = _make(parameters, group, config)
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rates of `epoch`, counted from 0."""
        for title, optimiser in self._optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self._rate(title, epoch)
        self._forget()

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each group: `main`, `cluster`."""
        return {title: float(o.param_groups[0]["lr"]) for title, o in self._optimisers.items()}

    def zero_grad(self) -> None:
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One update; the gradients are used up."""
        self._steps += 1
        if self._steps % FORGET_EVERY == 0:
            self._forget()
        for optimiser in self._optimisers.values():
            for parameter in (p for group in optimiser.param_groups for p in group["params"]):
                if parameter.grad is not None:
                    parameter.grad = _laid_out(parameter.grad, parameter)
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each group on the CPU: of a device all in one copy, for which is waited once."""
        states = {title: optimiser.state_dict() for title, optimiser in self._optimisers.items()}
        tensors = {
            (title, at, name): value
            for title, state in states.items()
            for at, values in state["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        for state in states.values():  # the dictionaries in it are the optimiser's own
            state["state"] = {at: dict(values) for at, values in state["state"].items()}
        for (title, at, name), value in fetched(tensors).items():
            states[title]["state"][at][name] = value
        return states

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of the same groups; raises ValueError when the groups differ."""
        if set(state) != set(self._optimisers):
            raise ValueError(f"optimiser state of {sorted(state)}, wanted {sorted(self._optimisers)}")
        for title, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state[title])
            for parameter, values in optimiser.state.items():
                for name, value in values.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        values[name] = _laid_out(value, parameter)

    @torch.no_grad()
    def _forget(self) -> None:
        """Make averages 0 that have faded: those of units that a ReLU has shut would become denormal numbers.

        At these a CPU is ten times slower; a GPU is not.
        """
        for optimiser in self._optimisers.values():
            for values in optimiser.state.values():
                for name, least in NEGLIGIBLE.items():
                    average = values.get(name)
                    if not isinstance(average, Tensor) or average.device.type != "cpu":
                        continue
                    if name != "exp_avg_sq" or average.dtype == torch.float32:
                        average.mul_(average.abs() >= least)

    def _rate(self, title: str, epoch: int) -> float:
        config, settings = self._config, vars(self._config)
        if title == "cluster":
            return float(settings["cluster_learning_rate"])
        base = config.learning_rate
        if title == "whole" and settings["whole_learning_rate"] is not None:
            base = settings["whole_learning_rate"]
        return learning_rate(epoch, config.epochs, base, config.warmup_epochs, config.schedule)


def _title(group: Group) -> str:
    return group.prefix.removesuffix("_") or "main"


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A gradient or a state with the strides of its parameter, which the fused kernels ask for on a GPU.

    Under channels_last a 1x1 convolution's gradient has others: two names of the same layout.
    """
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)


def _make(parameters: Sequence[nn.Parameter], group: Group, config: StageConfig) -> torch.optim.Optimizer:
    if group.prefix == "cluster_":
        decay = vars(config)["cluster_weight_decay"]
        return _sgd(parameters, config.weight_decay if decay is None else decay)
    if group.prefix not in ("", "whole_"):
        raise ValueError(f"no optimiser settings have the prefix {group.prefix!r}")
    if config.optimizer == "adam":
        return torch.optim.Adam(
            parameters, betas=(MOMENTUM, config.adam_beta2), weight_decay=config.weight_decay, fused=True
        )
    if config.optimizer == "sgd":
        return _sgd(parameters, config.weight_decay)
    return _lars(parameters, config.weight_decay)


def _sgd(parameters: Sequence[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)


def _lars(parameters: Sequence[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    weights = [p for p in parameters if p.ndim != 1]
    others = [p for p in parameters if p.ndim == 1]
    # The published code adapts all weights, also those without weight decay.
    groups = [
        {"params": weights, "weight_decay": weight_decay, "always_adapt": True},
        {"params": others, "weight_decay": 0.0, "always_adapt": False},
    ]
    return Lars([group for group in groups if group["params"]], MOMENTUM, LARS_TRUST)
