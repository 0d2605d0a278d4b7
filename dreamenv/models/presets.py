"""The presets: configurations that are known to work, by name."""

from typing import Any

from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModelConfig

ATARI_SHAPE = (3, 64, 64)


def atari100k(num_actions: int, obs_shape: tuple[int, int, int] = ATARI_SHAPE) -> WorldModelConfig:
    """Returns the published architecture and sampler (Alonso et al. 2024, appendix D).

    Args:
        num_actions: The number of actions of the game.
        obs_shape: C, H, W of a frame.
    """
    return WorldModelConfig(num_actions=num_actions, obs_shape=obs_shape)


def small(num_actions: int, obs_shape: tuple[int, int, int] = ATARI_SHAPE) -> WorldModelConfig:
    """Returns the architecture for a CPU and for the bundled worlds.

    Frames are folded into channels; the denoiser sees and learns changes, in units of their
    standard deviation, and draws a frame with one evaluation, from noise that it is trained on;
    the heads see the change that a step made.

    Args:
        num_actions: The number of actions of the game.
        obs_shape: C, H, W of a frame.
    """
    levels: dict[str, Any] = {"depths": (1, 1, 1), "attention": (False, False, False)}
    return WorldModelConfig(
        num_actions=num_actions,
        obs_shape=obs_shape,
        denoiser=DenoiserConfig(
            channels=(32, 64, 128),
            fold=2,
            target="change",
            past="changes",
            sigma_data=1.0,
            sigma_offset=0.0,
            log_sigma_mean=2.1,
            log_sigma_std=1.0,
            sigma_min=0.02,
            sigma_max=80.0,
            start_share=0.9,
            **levels,
        ),
        reward_end=RewardEndConfig(
            cond_channels=64,
            channels=(32, 64, 64),
            lstm_dim=256,
            fold=4,
            next_obs="change",
            **levels,
        ),
        # The ends of the schedule are for who asks for another number of levels.
        sampler=SamplerConfig(sigma_min=2.0, sigma_max=80.0, sigmas=(80.0,), renoise=True),
    )
