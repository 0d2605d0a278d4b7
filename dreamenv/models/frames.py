"""Frames: bytes outside the models, floats in [-1, 1] inside; one function each way."""

import torch
from torch import Tensor


def to_float(frames: Tensor) -> Tensor:
    """Turns stored frames into what the models compute on: `u8 / 255 * 2 - 1`.

    Args:
        frames: uint8, any shape.

    Returns:
        float32 in [-1, 1], the same shape.
    """
    # In place: a quarter of the time, the same numbers.
    return frames.float().div_(255).mul_(2).sub_(1)


def to_uint8(frames: Tensor) -> Tensor:
    """Turns the models' frames into bytes: the nearest of the 256 levels.

    It inverts `to_float` exactly.

    Args:
        frames: Floating point, any shape. Values outside [-1, 1] are clamped.

    Returns:
        uint8, the same shape.
    """
    return frames.float().clamp(-1, 1).add_(1).div_(2).mul_(255).round_().to(torch.uint8)


def quantise(frames: Tensor) -> Tensor:
    """Clamps frames to [-1, 1] and moves each value to the nearest of the 256 levels."""
    return to_float(to_uint8(frames))


def quantise_down(frames: Tensor) -> Tensor:
    """Clamps frames to [-1, 1] and moves each value to the next lower of the 256 levels.

    The truncation of the published DIAMOND code, which its weights were trained with.
    """
    levels = frames.float().clamp(-1, 1).add_(1).div_(2).mul_(255).to(torch.uint8)
    return to_float(levels)
