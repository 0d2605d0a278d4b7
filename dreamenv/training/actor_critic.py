"""Training the actor-critic: one rollout, one step of its optimiser."""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from dreamenv.config import Config
from dreamenv.errors import ConfigError, InputError
from dreamenv.models.actor_critic import ActorCritic, actor_critic_losses, lambda_returns
from dreamenv.training.optimisation import Learner, OptimiserConfig
from dreamenv.training.ranks import ALONE, Ranks
from dreamenv.training.rollout import Rollout


@dataclass(frozen=True)
class ActorCriticTrainingConfig(Config):
    """How an actor-critic is trained. The defaults are `atari100k`'s, its first epoch.

    Attributes:
        steps: Training steps; each is one rollout in all dreams.
        num_envs: Dreams side by side, or real games.
        rollout_length: Steps of a rollout, after which the last value is bootstrapped with.
        gamma: γ, the discount.
        lambda_: λ, between one-step (0) and Monte Carlo (1) returns.
        entropy_weight: What the entropy of the policy counts in the loss.
        value_weight: What the squared error of the value counts in the loss.
        optimiser: Of policy and value.
    """

    steps: int = 5_000
    num_envs: int = 32
    rollout_length: int = 15
    gamma: float = 0.985
    lambda_: float = 0.95
    entropy_weight: float = 0.001
    value_weight: float = 1.0
    optimiser: OptimiserConfig = field(
        default_factory=functools.partial(OptimiserConfig, weight_decay=0.0, max_grad_norm=100.0)
    )

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "rollout_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("gamma", "lambda_"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("entropy_weight", "value_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")


class ActorCriticStatistics(NamedTuple):
    """What one step was like, each float32 [] on the device: reading one waits for it.

    Attributes:
        policy: The loss of the policy.
        value: The squared error of the value.
        entropy: Of the policy, in nats.
        reward: The mean reward of a step.
        lambda_return: The mean λ-return.
    """

    policy: Tensor
    value: Tensor
    entropy: Tensor
    reward: Tensor
    lambda_return: Tensor


class Collector(Protocol):
    """Lets the actor-critic that is trained act, in dreams or in real games.

    Attributes:
        num_envs: How many of them, on this rank.
    """

    num_envs: int

    def collect(self, length: int) -> Rollout:
        """Goes on with all of them for as many steps.

        Args:
            length: T.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for the network.

        All ranks have to ask for it together.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""


class ActorCriticTrainer:
    """Trains an actor-critic (Alonso et al. 2024, Algorithm 1).

    Args:
        network: What is trained.
        collector: It lets the network act, and is asked by nobody else.
        config: How.
        ranks: Who trains it together: `num_envs` dreams in all, of which the collector has this
            one's share.

    Attributes:
        step_count: Steps done so far.

    Raises:
        InputError: The configuration is not made for the collector.
    """

    def __init__(
        self,
        network: ActorCritic,
        collector: Collector,
        config: ActorCriticTrainingConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        num_envs = collector.num_envs * ranks.count
        if num_envs != config.num_envs:
            raise InputError(
                f"num_envs is {config.num_envs}, and rollouts are of {num_envs}; make them equal"
            )
        self.step_count = 0
        self._ranks = ranks
        self._config = config
        self._network = network.train()
        self._collector = collector
        self._learner = Learner(self._network, config.optimiser, config.steps, ranks)

    def step(self) -> ActorCriticStatistics:
        """Goes on for one rollout, and learns from it. In dreams it waits for no device.

        With several ranks the statistics are those of all.
        """
        config = self._config
        rollout = self._collector.collect(config.rollout_length)
        returns = lambda_returns(
            rollout.rewards,
            rollout.terminated,
            rollout.truncated,
            rollout.next_values,
            gamma=config.gamma,
            lambda_=config.lambda_,
        )
        losses = actor_critic_losses(rollout.logits, rollout.values, rollout.actions, returns)
        # A mean over one of equal shares; what all ranks learn from adds up to that over all.
        total = losses.total(config.entropy_weight, config.value_weight)
        self._learner.learn(total / self._ranks.count)
        self.step_count += 1
        means = ActorCriticStatistics(
            policy=losses.policy,
            value=losses.value,
            entropy=losses.entropy,
            reward=rollout.rewards.mean(),
            lambda_return=returns.mean(),
        )
        return ActorCriticStatistics(*self._ranks.average(means))

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, in the same dreams or games.

        World models, contexts and real games are not in it: they are kept with what makes them. The
        dreams of all ranks are, who have to ask for it together.
        """
        return {
            "network": self._network.state_dict(),
            "learner": self._learner.state_dict(),
            "collector": self._collector.state_dict(),
            "step_count": self.step_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._network.load_state_dict(state["network"])
        self._learner.load_state_dict(state["learner"])
        self._collector.load_state_dict(state["collector"])
        self.step_count = state["step_count"]
