"""The presets: configurations that are known to work, by name."""

from dreamenv.models.denoiser import DenoiserConfig
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

    Frames are folded by 2, and the denoiser learns the change from the last frame, with noise
    levels in units of that change.

    Args:
        num_actions: The number of actions of the game.
        obs_shape: C, H, W of a frame.
    """
    return WorldModelConfig(
        num_actions=num_actions,
        obs_shape=obs_shape,
        denoiser=DenoiserConfig(
            channels=(48, 96, 128),
            depths=(1, 1, 1),
            attention=(False, False, False),
            fold=2,
            target="change",
            sigma_data=1.0,
            sigma_offset=0.0,
            log_sigma_mean=1.0,
            log_sigma_std=1.6,
            sigma_min=0.02,
            sigma_max=80.0,
        ),
        reward_end=RewardEndConfig(lstm_dim=256, fold=2),
        sampler=SamplerConfig(
            # The ends of the schedule are those of the levels, for who asks for another number.
            sigma_min=2.0,
            sigma_max=80.0,
            sigmas=(80.0, 40.0, 20.0, 10.0, 5.0, 2.0),
            scale_start=True,
        ),
    )
