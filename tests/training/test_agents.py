from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN

from dreamenv import Contexts, DreamVecEnv, WorldModel
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModelConfig
from dreamenv.training.agents import ALGORITHMS, AlgorithmName, make_agent
from dreamenv.training.policies import load_policy

CPU = torch.device("cpu")
EVERY = pytest.mark.parametrize("name", get_args(AlgorithmName))


def dreams(side: int, num_envs: int = 2, **options: Any) -> DreamVecEnv:
    shape = (3, side, side)
    level: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,), "fold": 4}
    config = WorldModelConfig(
        num_actions=3,
        obs_shape=shape,
        denoiser=DenoiserConfig(context_length=2, cond_channels=8, **level),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **level),
        sampler=SamplerConfig(num_steps=1),
    )
    environment = EnvironmentSpec("Test/Dream-v0", shape, ("NOOP", "LEFT", "RIGHT"))
    frames = torch.randint(0, 256, (4, 2, *shape), dtype=torch.uint8)
    return DreamVecEnv(
        num_envs=num_envs,
        world_model=WorldModel(config, Origin(environment=environment)).eval(),
        contexts=Contexts(frames, torch.zeros(4, 2, dtype=torch.int64)),
        horizon=5,
        **options,
    )


@EVERY
def test_every_algorithm_learns_in_a_dream_and_its_agent_plays_the_game(
    name: AlgorithmName, tmp_path: Path
) -> None:
    env = dreams(40, frame_stack=2)
    agent = make_agent(ALGORITHMS[name], env, device=CPU, seed=0)
    if isinstance(agent, OffPolicyAlgorithm):
        agent.learning_starts = 0
    before = [weights.clone() for weights in agent.policy.parameters()]
    agent.learn(8)
    assert any(
        (one != other).any() for one, other in zip(before, agent.policy.parameters(), strict=True)
    )
    agent.save(tmp_path / "agent.zip")
    assert env.environment is not None
    policy = load_policy(str(tmp_path / "agent.zip"), env.environment, sample=True)
    assert policy is not None
    actions = policy.act(np.zeros((5, 3, 40, 40), np.uint8), np.ones(5, np.bool_))
    assert set(actions.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("name", ["ppo", "recurrent-ppo", "trpo"])
def test_a_short_rollout_is_cut_into_no_single_steps(name: AlgorithmName) -> None:
    algorithm = ALGORITHMS[name]
    short = replace(algorithm, settings={**algorithm.settings, "n_steps": 5})
    assert short.arguments(1)["batch_size"] == 2
    single = replace(algorithm, settings={**algorithm.settings, "n_steps": 1})
    with pytest.raises(ConfigError, match="learns from rollouts of 1 step; give it more dreams"):
        single.arguments(1)


@EVERY
@pytest.mark.parametrize("num_envs", [1, 3, 32])
def test_settings_fit_any_number_of_dreams(name: AlgorithmName, num_envs: int) -> None:
    arguments = ALGORITHMS[name].arguments(num_envs)
    if "gradient_steps" in arguments:
        steps = arguments["train_freq"] * num_envs
        assert 2 <= steps / arguments["gradient_steps"] <= 4
    elif "batch_size" in arguments:
        minibatches = ALGORITHMS[name].minibatches or 0
        assert arguments["n_steps"] * num_envs == minibatches * arguments["batch_size"]


@pytest.mark.parametrize(("side", "extractor"), [(40, NatureCNN), (16, FlattenExtractor)])
def test_frames_too_small_to_be_convolved_are_flattened(side: int, extractor: type) -> None:
    agent = make_agent(ALGORITHMS["ppo"], dreams(side), device=CPU, seed=0)
    assert isinstance(agent.policy.features_extractor, extractor)


def test_a_seed_decides_how_an_agent_begins() -> None:
    def first_weights(seed: int) -> torch.Tensor:
        agent = make_agent(ALGORITHMS["ppo"], dreams(16), device=CPU, seed=seed)
        return next(iter(agent.policy.parameters()))

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))
