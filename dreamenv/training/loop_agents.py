"""Making the agent that a run of the loop names."""

import torch

from dreamenv.environment import EnvironmentSpec
from dreamenv.training.agents import ALGORITHMS
from dreamenv.training.diamond_agent import DiamondAgent
from dreamenv.training.loop_agent import LoopAgent
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.sb3_agent import Imagination, Sb3Agent


def make_loop_agent(
    config: TrainConfig, environment: EnvironmentSpec, device: torch.device
) -> LoopAgent:
    """Makes an agent that has learned nothing yet.

    Args:
        config: Of the run. The weights of DIAMOND's actor-critic come from torch's own generator.
        environment: The real game.
        device: Where it learns.

    Raises:
        ConfigError: Its network does not fit the frames.
    """
    training = config.imagination
    if config.agent == "diamond":
        return DiamondAgent(config.actor_critic, training, environment, device, config.seed)
    imagination = Imagination(training.num_envs, training.rollout_length, config.frame_stack)
    algorithm = ALGORITHMS[config.agent]
    return Sb3Agent(algorithm, imagination, environment, device, config.seed)
