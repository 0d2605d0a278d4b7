"""Segments: windows of an equal number of steps, cut from episodes, padded where they overhang."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamenv.data.replay import Replay
from dreamenv.data.tensors import PADDING_ROW, Rows, Split
from dreamenv.errors import InputError
from dreamenv.share import Share


@dataclass(frozen=True)
class Segments:
    """A batch of B windows of T steps, all tensors on one device.

    Before an episode's first step, and after its final frame, a window is padding: frames of
    mid grey (128: zero in [-1, 1], as published), actions and rewards 0, no end. The frame right
    after the last step is the episode's true final one, with the mask False like padding.

    Attributes:
        obs: uint8 [B, T, C, H, W].
        actions: int64 [B, T].
        rewards: float32 [B, T].
        ends: bool [B, T]; whether the episode terminated (not: was truncated) at that step.
        mask: bool [B, T]; whether it is a step of the episode.
        since_reward: int64 [B, T]; how many steps before the frame the episode's last reward came,
            with its sign (1 or -1 for the step that led to it), 0 for none.
        corner: int64 [B, 2]; row and column of the whole frame at which these begin: 0 and 0, but
            of squares that were cut out.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    mask: Tensor
    since_reward: Tensor
    corner: Tensor

    def part(self, share: Share) -> "Segments":
        """Returns a share of the windows."""
        return Segments(*(share.of(tensor) for tensor in vars(self).values()))


def joined(first: Segments, second: Segments) -> Segments:
    """Puts the windows of two batches, of equal length and on one device, after each other."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Segments(*(torch.cat(pair) for pair in pairs))


def segments_at(rows: Rows, episodes: Tensor, starts: Tensor, length: int) -> Segments:
    """Cuts one segment from each of B episodes.

    The windows are found on the CPU, and only their row numbers go to the device: there is then
    one transfer and one gather a tensor, and no arithmetic of a few hundred numbers on a GPU.

    Args:
        rows: The episodes.
        episodes: int64 [B], on the CPU; the places of the episodes among the rows' episodes.
        starts: int64 [B], on the CPU; the first step of each window, below 0 for left padding.
        length: The number of steps T of a window.
    """
    steps = starts[:, None] + torch.arange(length)  # [B, T]
    inside = (steps >= 0) & (steps <= rows.lengths[episodes, None])
    index = torch.where(inside, rows.first_rows[episodes, None] + steps, PADDING_ROW)
    near = index.to(rows.device)
    frames = rows.frames.index_select(0, near.to(rows.frames.device).flatten())
    return Segments(
        obs=frames.view(*index.shape, *frames.shape[1:]).to(rows.device),
        actions=rows.actions[near],
        rewards=rows.rewards[near],
        ends=rows.ends[near],
        mask=rows.is_step[near],
        since_reward=rows.since_reward[near],
        corner=torch.zeros(len(starts), 2, dtype=torch.int64, device=rows.device),
    )


def consecutive_segments(
    replay: Replay,
    segment_length: int,
    batch_size: int,
    device: torch.device | str,
    *,
    context: int = 0,
    ahead: int = 0,
    split: Split = "held_out",
) -> Iterator[Segments]:
    """Goes through the held-out episodes in order, once, for validation.

    Every step stands exactly once at a place from `context` on and before the last `ahead`,
    oldest episode first. Each window begins with the `context` steps before those (padding before
    the first step of an episode) and ends with the `ahead` steps after them. The true final frame
    follows the last step where the window has room for it.

    Args:
        replay: Where the episodes are.
        segment_length: The number of steps of a window.
        batch_size: The number of windows a batch; the last batch may have fewer.
        device: Where the batches are wanted.
        context: How many steps at the start of a window only lead up to the others.
        ahead: How many steps at the end of a window only follow the others.
        split: Go through the episodes held out, or through those to train on.

    Raises:
        InputError: `context` and `ahead` leave no place in a window, a size is below 1, or there
            is no episode to go through.
    """
    if min(context, ahead) < 0 or context + ahead >= segment_length:
        raise InputError(
            f"context is {context} and ahead {ahead}; both must be at least 0, and leave a place "
            f"in segments of {segment_length}"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    rows = replay.tensors(device).rows
    stride = segment_length - context - ahead
    chosen = rows.episodes(split)
    windows = (rows.lengths[chosen] + stride - 1) // stride  # [E], windows an episode
    episodes = torch.repeat_interleave(chosen, windows)
    firsts = torch.repeat_interleave(windows.cumsum(0) - windows, windows)
    starts = (torch.arange(len(episodes)) - firsts) * stride - context
    for first in range(0, len(episodes), batch_size):
        batch = slice(first, first + batch_size)
        yield segments_at(rows, episodes[batch], starts[batch], segment_length)
