"""Noise in the shapes of data: enough to time what learns, and to dream without a world."""

import torch

from dreamenv.data import Segments
from dreamenv.dream.contexts import Contexts
from dreamenv.models.world_model import WorldModelConfig


def noise_segments(
    config: WorldModelConfig,
    rows: int,
    length: int,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> Segments:
    """Makes a batch of segments of noise frames, in which nothing happens.

    Args:
        config: Of the world model that would learn from it.
        rows: Segments.
        length: Steps of each.
        device: Where the batch is wanted.
        size: Height and width of the frames; those of the world model if None.
    """
    shape = (rows, length)
    channels, *whole = config.obs_shape
    frames = (*shape, channels, *(size or whole))
    return Segments(
        obs=torch.randint(0, 256, frames, dtype=torch.uint8).to(device),
        actions=torch.zeros(shape, dtype=torch.int64, device=device),
        rewards=torch.zeros(shape, device=device),
        ends=torch.zeros(shape, dtype=torch.bool, device=device),
        mask=torch.ones(shape, dtype=torch.bool, device=device),
        since_reward=torch.zeros(shape, dtype=torch.int64, device=device),
        corner=torch.zeros(rows, 2, dtype=torch.int64, device=device),
    )


def noise_contexts(config: WorldModelConfig, count: int) -> Contexts:
    """Makes contexts of noise frames.

    Args:
        config: Of the world model that dreams from them.
        count: How many.
    """
    length = config.denoiser.context_length
    segments = noise_segments(config, count, length, torch.device("cpu"))
    return Contexts(segments.obs, segments.actions)
