"""Frames as one picture: what was real above what was dreamt."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import torch
from torch import Tensor

from dreamenv.dream.rendering import to_picture
from dreamenv.files import atomic_file

_GAP = 4  # pixels between strips
_GAP_LEVEL = 255


def strip(rows: Sequence[Tensor]) -> Tensor:
    """Puts rows of frames below each other.

    Args:
        rows: R of them, each uint8 [T, C, H, W].

    Returns:
        uint8 [C, R * H, T * W].
    """
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def stack(strips: Sequence[Tensor]) -> Tensor:
    """Puts strips, each uint8 [C, H, W], below each other, a white line between them."""
    channels, _, width = strips[0].shape
    gap = strips[0].new_full((channels, _GAP, width), _GAP_LEVEL)
    parts = [part for picture in strips for part in (gap, picture)]
    return torch.cat(parts[1:], dim=1)


def save_picture(path: Path, picture: Tensor) -> None:
    """Writes a picture, uint8 [C, H, W], as PNG, whole or not at all."""
    with atomic_file(path) as beside:
        imageio.imwrite(beside, to_picture(picture), extension=".png")
