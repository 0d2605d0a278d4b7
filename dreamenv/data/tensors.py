"""All episodes as a few flat tensors, so that a batch is one gather."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dreamenv.data.episode import Episode
from dreamenv.data.storage import FrameStore, MemoryStore
from dreamenv.errors import InputError

Split = Literal["train", "held_out"]

PADDING_ROW = 0
PADDING_LEVEL = 128  # mid grey: within one half of a level of 0 in [-1, 1], the published padding


@dataclass(frozen=True)
class Rows:
    """Every frame of every episode, each with the step that was taken from it.

    Row `PADDING_ROW` is a grey frame without a step. After it come the T + 1 rows of each episode,
    oldest first. An episode's last row is its final frame: no step was taken from it.

    Attributes:
        frames: uint8 [N, C, H, W], on the device, or mapped from the disk where it does not fit.
        actions: int64 [N], on the device; 0 without a step.
        rewards: float32 [N], on the device; 0 without a step.
        ends: bool [N], on the device; whether the step terminated the episode.
        is_step: bool [N], on the device; whether a step was taken from the frame.
        first_rows: int64 [E], on the CPU; the row of each episode's first frame.
        lengths: int64 [E], on the CPU; the number of steps of each episode.
        held_out: bool [E], on the CPU; whether the episode is kept for validation.
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    is_step: Tensor
    first_rows: Tensor
    lengths: Tensor
    held_out: Tensor

    @property
    def device(self) -> torch.device:
        """The device that batches are wanted on."""
        return self.actions.device

    def episodes(self, split: Split) -> Tensor:
        """Returns the places of the episodes of a split, oldest first: int64 [E], on the CPU.

        Raises:
            InputError: There are none.
        """
        chosen = torch.nonzero(self.held_out == (split == "held_out")).flatten()
        if len(chosen) == 0:
            raise InputError(f"the replay has no {split} episode yet; collect more episodes")
        return chosen


class ReplayTensors:
    """The rows of a replay, growing by episodes.

    `rows` is replaced after each append and never changed, so that whoever holds one reads on
    undisturbed.

    Args:
        frame_shape: Channels, height and width.
        device: The device that batches are wanted on.
        folder: The folder on whose disk frames go that do not fit in memory.
        max_memory: The bytes of the device that frames may take; None measures.
    """

    def __init__(
        self,
        frame_shape: tuple[int, int, int],
        device: torch.device,
        folder: Path,
        max_memory: int | None = None,
    ):
        cpu = torch.device("cpu")
        self._frames = FrameStore(frame_shape, device, folder, max_memory)
        self._actions = MemoryStore((), torch.int64, device)
        self._rewards = MemoryStore((), torch.float32, device)
        self._ends = MemoryStore((), torch.bool, device)
        self._is_step = MemoryStore((), torch.bool, device)
        self._first_rows = MemoryStore((), torch.int64, cpu)
        self._lengths = MemoryStore((), torch.int64, cpu)
        self._held_out = MemoryStore((), torch.bool, cpu)
        self._append_rows(
            frames=torch.full((1, *frame_shape), PADDING_LEVEL, dtype=torch.uint8),
            actions=torch.zeros(0, dtype=torch.int64),
            rewards=torch.zeros(0),
            terminated=False,
        )
        self._rows = self._current_rows()

    @property
    def rows(self) -> Rows:
        """The rows of the episodes appended so far."""
        return self._rows

    @property
    def in_memory(self) -> bool:
        """Whether the frames are in the device's memory, and not mapped from the disk."""
        return self._frames.in_memory

    def reserve(self, num_frames: int) -> None:
        """Makes room for so many frames of episodes, so that appending them copies nothing."""
        self._frames.reserve(num_frames + 1)

    def append(self, episode: Episode, held_out: bool) -> None:
        """Makes `episode` part of the next `rows`.

        Raises:
            OSError: Its frames go to the disk, and the disk is full.
        """
        first_row = len(self._actions.tensor)
        self._append_rows(
            frames=torch.from_numpy(episode.obs),
            actions=torch.from_numpy(episode.actions),
            rewards=torch.from_numpy(episode.rewards),
            terminated=episode.terminated,
        )
        self._first_rows.append(torch.tensor([first_row]))
        self._lengths.append(torch.tensor([len(episode)]))
        self._held_out.append(torch.tensor([held_out]))
        self._rows = self._current_rows()

    def _append_rows(
        self, frames: Tensor, actions: Tensor, rewards: Tensor, terminated: bool
    ) -> None:
        """Appends T + 1 frames with T steps; the last frame's row gets the zeros of no step."""
        no_step = torch.zeros(1, dtype=torch.int64)
        steps = torch.arange(len(frames))
        self._frames.append(frames)
        self._actions.append(torch.cat([actions, no_step]))
        self._rewards.append(torch.cat([rewards, no_step.float()]))
        self._ends.append((steps == len(actions) - 1) & terminated)
        self._is_step.append(steps < len(actions))

    def _current_rows(self) -> Rows:
        return Rows(
            frames=self._frames.tensor,
            actions=self._actions.tensor,
            rewards=self._rewards.tensor,
            ends=self._ends.tensor,
            is_step=self._is_step.tensor,
            first_rows=self._first_rows.tensor,
            lengths=self._lengths.tensor,
            held_out=self._held_out.tensor,
        )
