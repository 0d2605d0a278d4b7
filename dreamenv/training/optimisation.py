"""Learning with one network: AdamW, its decay, its warm-up, its schedule, its clipping."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.training.ranks import ALONE, Ranks

_DECAYED = (nn.Conv2d, nn.Linear, nn.LSTM, nn.LSTMCell)


@dataclass(frozen=True)
class OptimiserConfig(Config):
    """How one network is optimised. The defaults are those of `atari100k`'s denoiser.

    Attributes:
        learning_rate: After the warm-up.
        epsilon: Of AdamW.
        weight_decay: On the weights of convolutions, Linears and LSTMs only.
        max_grad_norm: Gradients of a larger norm are scaled down to it.
        warmup_steps: Steps over which the learning rate grows linearly.
        schedule: What the learning rate does after: stay (`constant`), or fall to 0 at the last
            step, as half a `cosine` or in a `linear` way, which leaves more of it for what is
            learned last.
    """

    learning_rate: float = 1e-4
    epsilon: float = 1e-8
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    warmup_steps: int = 100
    schedule: Literal["constant", "cosine", "linear"] = "constant"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")


class Learner:
    """A network with its optimiser and schedule.

    Args:
        network: What learns, on its device already.
        config: How.
        total_steps: How many steps the schedule spans.
        ranks: Who learns it together.
    """

    def __init__(
        self,
        network: nn.Module,
        config: OptimiserConfig,
        total_steps: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._parameters = list(network.parameters())
        self._max_grad_norm = config.max_grad_norm
        self._optimiser, self._schedule = make_optimiser(network, config, total_steps)

    def learn(self, loss: Tensor) -> None:
        """Takes one step down the gradient of a loss, float32 []; those of all ranks add up."""
        self._optimiser.zero_grad()
        loss.backward()
        self._ranks.add_up_gradients(self._parameters)
        nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimiser.step()
        self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for the weights."""
        return {
            "optimiser": self._optimiser.state_dict(),
            "schedule": {"last_epoch": self._schedule.last_epoch},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.last_epoch = state["schedule"]["last_epoch"]


def make_optimiser(
    network: nn.Module, config: OptimiserConfig, total_steps: int
) -> tuple[AdamW, LambdaLR]:
    """Returns the optimiser of a network, and the schedule of its learning rate.

    Args:
        network: What is learned.
        config: How.
        total_steps: How many steps the schedule spans.
    """
    decayed, plain = split_by_decay(network)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimiser = AdamW(groups, lr=config.learning_rate, eps=config.epsilon, fused=True)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
        if config.schedule == "constant":
            return warm
        done = min(1.0, step / total_steps)
        if config.schedule == "linear":
            return warm * (1 - done)
        return warm * (1 + math.cos(math.pi * done)) / 2

    return optimiser, LambdaLR(optimiser, factor)


def split_by_decay(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Splits the parameters of a network into those that decay and those that do not.

    The weights of convolutions, Linears and LSTMs decay; biases, norms and embeddings do not.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            decays = isinstance(module, _DECAYED) and name.startswith("weight")
            (decayed if decays else plain).append(parameter)
    return decayed, plain
