"""The moving average of a model's weights, which is what is saved."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """An exponential moving average of the weights of a module.

    Its first steps weigh less, as the least of `decay` and (1 + n) / (10 + n) at the n-th, so
    that a short run is not dominated by the weights it began with.

    Args:
        module: What is averaged.
        decay: How much of the average stays at a step.

    Attributes:
        module: A module with the averaged weights, in evaluation mode.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes in the weights of the module after a step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        average = get_ema_multi_avg_fn(decay)
        average(list(self.module.parameters()), list(module.parameters()), self._updates)
        for copied, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            copied.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on."""
        return {"module": self.module.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.module.load_state_dict(state["module"])
        self._updates = state["updates"]
