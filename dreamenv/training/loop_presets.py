"""The presets of DIAMOND's loop: networks and schedule together."""

from dataclasses import replace
from typing import Literal

from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.training import presets
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.optimisation import OptimiserConfig

LoopPresetName = Literal["atari100k", "small", "tiny"]


def atari100k(env: str) -> TrainConfig:
    """Returns the published settings (Alonso et al. 2024): days on a GPU, and for one."""
    return TrainConfig(env)


def small(env: str) -> TrainConfig:
    """Returns the published schedule with a world model for a CPU.

    Its rates are those of the published settings, since a schedule of falling ones knows where
    fitting ends, and here it begins again with every epoch's new steps.
    """
    fit = presets.small()
    training = replace(
        fit.training,
        quarters=TrainConfig(env).world_model.quarters,
        denoiser_optimiser=OptimiserConfig(learning_rate=3e-4),
        reward_end_optimiser=OptimiserConfig(learning_rate=3e-4),
    )
    return TrainConfig(
        env,
        world_model=training,
        denoiser=fit.denoiser,
        reward_end=fit.reward_end,
        sampler=fit.sampler,
    )


def tiny(env: str) -> TrainConfig:
    """Returns a run of two minutes on two cores: for tests and first tries, not for scores."""
    start = small(env)
    return replace(
        start,
        contexts=32,
        schedule=ScheduleConfig(
            first_steps=300,
            first_steps_limit=400,
            first_rewards=1,
            epoch_steps=50,
            steps=500,
            epochs_after=1,
            world_model_steps=10,
            agent_steps=5,
            test_every=2,
            test_episodes=1,
            final_episodes=3,
        ),
        world_model=replace(
            start.world_model, steps=60, batch_size=8, reward_end_batch_size=4, reward_end_length=6
        ),
        denoiser=replace(start.denoiser, cond_channels=64, channels=(16, 32, 32)),
        reward_end=replace(start.reward_end, cond_channels=32, channels=(16, 32, 32), lstm_dim=64),
        imagination=ActorCriticTrainingConfig(steps=20, num_envs=8, rollout_length=8),
        actor_critic=ActorCriticConfig(channels=(16, 16, 32, 32), lstm_dim=64),
    )


def loop_preset(name: LoopPresetName, env: str) -> TrainConfig:
    """Returns the preset of that name, for a real environment."""
    return {"atari100k": atari100k, "small": small, "tiny": tiny}[name](env)
