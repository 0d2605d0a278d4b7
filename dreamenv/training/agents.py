"""The algorithms that agents learn by in a dream, and their settings."""

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from dreamenv.config import Config
from dreamenv.errors import ConfigError

AlgorithmName = Literal["ppo", "a2c", "dqn", "recurrent-ppo", "qrdqn", "trpo"]

_LEAST_BATCH = 2  # steps that SB3 normalises advantages over
_LEAST_SIDE = 36  # pixels: no less goes through the convolutions of SB3's network


@dataclass(frozen=True)
class AlgorithmConfig(Config):
    """An algorithm of stable-baselines3 or sb3-contrib, and how it learns.

    Attributes:
        package: Which of the two.
        name: Of its class.
        settings: Arguments of its class.
        recurrent: Whether its network remembers.
        minibatches: Into how many a rollout is cut, whatever the number of dreams; None where the
            algorithm does not cut it.
        steps_a_gradient: Steps of a single dream for each step of the optimiser; None where the
            algorithm learns from rollouts.
        log_interval: Rollouts, or for those that learn from single steps ended dreams, between
            the points of its curves.
    """

    package: Literal["stable_baselines3", "sb3_contrib"]
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    recurrent: bool = False
    minibatches: int | None = None
    steps_a_gradient: int | None = None
    log_interval: int = 1

    def arguments(self, num_envs: int) -> dict[str, Any]:
        """Returns all arguments of the class but the policy and the environment.

        Args:
            num_envs: How many dreams it learns in at once.

        Raises:
            ConfigError: There is nothing to normalise advantages over.
        """
        arguments = dict(self.settings)
        if self.minibatches is not None:
            rollout = arguments["n_steps"] * num_envs
            if rollout < _LEAST_BATCH:
                raise ConfigError(
                    f"{self.name} learns from rollouts of {rollout} step; give it more dreams or "
                    f"games, or longer rollouts"
                )
            arguments["batch_size"] = max(_LEAST_BATCH, rollout // self.minibatches)
        if self.steps_a_gradient is not None:
            arguments["train_freq"] = max(1, self.steps_a_gradient // num_envs)
            arguments["gradient_steps"] = max(1, num_envs // self.steps_a_gradient)
        return arguments


# RL Baselines3 Zoo's settings for Atari, for tens of thousands of steps instead of ten million:
# exploration that ends, a replay buffer that fits. PPO has a higher rate, more epochs, a nearer
# horizon and less of a bonus for entropy; its rollouts are longer than the 31 to 41 steps from the
# launch to Breakout's first brick.
_PPO = {
    "learning_rate": 7e-4,
    "n_steps": 64,
    "n_epochs": 6,
    "clip_range": 0.2,
    "ent_coef": 0.003,
    "vf_coef": 0.5,
    "gamma": 0.98,
}
_A2C = {"learning_rate": 7e-4, "n_steps": 5, "ent_coef": 0.01, "vf_coef": 0.25}
_TRPO = {"learning_rate": 1e-3, "n_steps": 64, "target_kl": 0.01}
_DQN = {
    "learning_rate": 1e-4,
    "buffer_size": 20_000,
    "learning_starts": 1_000,
    "batch_size": 32,
    "target_update_interval": 1_000,
    "exploration_fraction": 0.3,
    "exploration_final_eps": 0.05,
}
_LSTM = {"policy_kwargs": {"lstm_hidden_size": 128, "enable_critic_lstm": False}}

ALGORITHMS: dict[AlgorithmName, AlgorithmConfig] = {
    "ppo": AlgorithmConfig("stable_baselines3", "PPO", _PPO, minibatches=8),
    "a2c": AlgorithmConfig("stable_baselines3", "A2C", _A2C, log_interval=6),
    "dqn": AlgorithmConfig("stable_baselines3", "DQN", _DQN, steps_a_gradient=4, log_interval=20),
    "recurrent-ppo": AlgorithmConfig(
        "sb3_contrib", "RecurrentPPO", _PPO | _LSTM, recurrent=True, minibatches=4
    ),
    "qrdqn": AlgorithmConfig("sb3_contrib", "QRDQN", _DQN, steps_a_gradient=4, log_interval=20),
    "trpo": AlgorithmConfig("sb3_contrib", "TRPO", _TRPO, minibatches=4),
}


def make_agent(
    config: AlgorithmConfig, env: VecEnv, *, device: torch.device, seed: int
) -> BaseAlgorithm:
    """Makes an agent that has learned nothing yet.

    Its network convolves frames as Mnih et al. (2015) do; those too small for it are flattened.

    Args:
        config: Its algorithm.
        env: Where it will learn; observations uint8 [N, H, W, C].
        device: Where its network is.
        seed: Of all its chance, and of the environment's.
    """
    height, width, _ = env.observation_space.shape or (0, 0, 0)
    kind = "Cnn" if min(height, width) >= _LEAST_SIDE else "Mlp"
    policy = f"{kind}LstmPolicy" if config.recurrent else f"{kind}Policy"
    agent_class = getattr(importlib.import_module(config.package), config.name)
    agent: BaseAlgorithm = agent_class(
        policy, env, seed=seed, device=device, **config.arguments(env.num_envs)
    )
    return agent
