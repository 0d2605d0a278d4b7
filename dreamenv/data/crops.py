"""Cropping segments to squares around what changes in them.

In a game nearly all of a frame stands still. What moves, and what it meets, is in a small part of
it, and a network of convolutions learns it there for less work.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dreamenv.data.segments import Segments
from dreamenv.errors import ConfigError

_ANYWHERE = 0.1  # share of the squares that lie anywhere: what stands still is to be learned too
_FLOOR = 0.1  # of the mean: a pixel that changed once is not all that counts


def check_crop(size: int, height: int, width: int) -> None:
    """Checks the side of squares that are cut out of frames.

    Raises:
        ConfigError: They are larger than the frames.
    """
    if size > min(height, width):
        raise ConfigError(f"crop is {size}; the frames are {height}x{width}: give no more")


class Cropper:
    """Cuts one square out of each segment, around a place where its last frame changes.

    The place is drawn in proportion to the squared change of the last frame from the one before,
    over how large it is at that pixel on average: what rarely changes counts for more. Where in
    the square that place lies varies by half its side.

    The same state gives the same squares on any device: the random numbers are drawn on the CPU.

    Args:
        usual_change: float32 [H, W], on the device of the segments, how much each pixel changes on
            average; see `mean_squared_change`.
        size: The side of the squares, in pixels.
        multiple: Squares begin at multiples of so many pixels, so that what stands still has the
            same place in the grid of a network that halves its input.
        seed: Of the random numbers.

    Raises:
        ConfigError: The squares are larger than the frames.
    """

    def __init__(self, usual_change: Tensor, size: int, multiple: int, seed: int = 0) -> None:
        check_crop(size, *usual_change.shape)
        self._size = size
        self._multiple = multiple
        self._usual = usual_change + _FLOOR * usual_change.mean()
        self._generator = torch.Generator().manual_seed(seed)

    def crop(self, segments: Segments) -> Segments:
        """Returns the segments with frames of the squares' size, [B, T, C, size, size]."""
        obs = segments.obs
        draws = torch.rand(4, len(obs), generator=self._generator).to(obs.device)
        places = self._draw_places(obs, draws[0], draws[1])
        height, width = obs.shape[-2:]
        tops = self._begin(places // width, draws[2], height)
        lefts = self._begin(places % width, draws[3], width)
        side = torch.arange(self._size, device=obs.device)
        rows, columns = tops[:, None] + side, lefts[:, None] + side  # [B, size] each
        first = torch.arange(len(obs), device=obs.device)[:, None, None]
        # Indices around slices put what they index in front: [B, size, size, T, C].
        squares = obs[first, :, :, rows[:, :, None], columns[:, None, :]]
        return replace(
            segments,
            obs=squares.permute(0, 3, 4, 1, 2).contiguous(),
            corner=segments.corner + torch.stack([tops, lefts], dim=1),
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on with the very next squares."""
        return {"generator": self._generator.get_state(), "usual": self._usual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())
        # Not measured anew: the replay may have grown.
        self._usual = state["usual"].to(self._usual.device)

    def _draw_places(self, obs: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Draws a pixel of each segment's frames, int64 [B], numbered row by row."""
        change = (obs[:, -1].float() - obs[:, -2].float()).square().mean(dim=1)  # [B, H, W]
        cumulative = (change / self._usual).flatten(1).cumsum(dim=1)
        pixels = cumulative.shape[1]
        total = cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, second[:, None] * total, right=True)[:, 0]
        anywhere = (first < _ANYWHERE) | (total[:, 0] == 0)
        return torch.where(anywhere, (second * pixels).long(), drawn).clamp(max=pixels - 1)

    def _begin(self, centres: Tensor, draws: Tensor, length: int) -> Tensor:
        """Tells where squares begin along one side of the frame, int64 [B]."""
        firsts = centres - self._size * (0.25 + 0.5 * draws)
        firsts = firsts.clamp(0, length - self._size)
        return (firsts / self._multiple).floor().long() * self._multiple
