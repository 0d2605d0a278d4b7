"""All episodes as a few flat tensors, so that a batch is one gather."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dreamenv.data.episode import Episode
from dreamenv.data.storage import FrameStore, MemoryStore
from dreamenv.errors import InputError
from dreamenv.padding import PADDING_LEVEL

Split = Literal["train", "held_out"]

PADDING_ROW = 0


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
        since_reward: int64 [N], on the device; how many steps before the frame the last reward of
            the episode came, with its sign (1 or -1 for the step that led to it), 0 for none.
        first_rows: int64 [E], on the CPU; the row of each episode's first frame.
        lengths: int64 [E], on the CPU; the number of steps of each episode.
        held_out: bool [E], on the CPU; whether the episode is kept for validation.
    """

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    is_step: Tensor
    since_reward: Tensor
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


class _Steps(NamedTuple):
    """What `Rows` has of the T + 1 rows of an episode beside their frames."""

    actions: Tensor
    rewards: Tensor
    ends: Tensor
    is_step: Tensor


_NO_STEP = _Steps(
    actions=torch.zeros(1, dtype=torch.int64),
    rewards=torch.zeros(1),
    ends=torch.zeros(1, dtype=torch.bool),
    is_step=torch.zeros(1, dtype=torch.bool),
)


class ReplayTensors:
    """The rows of a replay, growing by episodes.

    `rows` is replaced after each change and never changed, so that whoever holds one reads on
    undisturbed; but of rows taken before a `truncate`, the frames that it dropped are overwritten
    later. What grows costs its own frames; the few bytes a step beside them are copied.

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
        self._since_reward = MemoryStore((), torch.int64, device)
        self._first_rows = MemoryStore((), torch.int64, cpu)
        self._lengths = MemoryStore((), torch.int64, cpu)
        self._held_out = MemoryStore((), torch.bool, cpu)
        self._frames.append(torch.full((1, *frame_shape), PADDING_LEVEL, dtype=torch.uint8))
        self._put_steps(0, _NO_STEP)
        self._since_reward.append(torch.zeros(1, dtype=torch.int64))
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
        self._frames.append(torch.from_numpy(episode.obs))
        for column, steps in zip(self._columns, _steps(episode), strict=True):
            column.append(steps)
        self._since_reward.append(_since_reward(episode))
        self._first_rows.append(torch.tensor([first_row]))
        self._lengths.append(torch.tensor([len(episode)]))
        self._held_out.append(torch.tensor([held_out]))
        self._rows = self._current_rows()

    def grow_last(self, episode: Episode) -> None:
        """Makes `episode`, which begins with the last one, take its place in the next `rows`.

        Raises:
            OSError: Its frames go to the disk, and the disk is full.
        """
        place = len(self._lengths.tensor) - 1
        length = int(self._lengths.tensor[place])
        self._frames.append(torch.from_numpy(episode.obs[length + 1 :]))
        first_row = int(self._first_rows.tensor[place])
        self._put_steps(first_row, _steps(episode))
        self._since_reward.rewrite(first_row, _since_reward(episode))
        self._lengths.rewrite(place, torch.tensor([len(episode)]))
        self._rows = self._current_rows()

    def truncate(self, num_episodes: int, last_length: int) -> None:
        """Leaves only the first episodes, and of the last of them only its first steps.

        Args:
            num_episodes: How many; with 0, `last_length` does not matter.
            last_length: How many steps of the last, at least 1.
        """
        last_row = PADDING_ROW
        kept = self._lengths.tensor[:num_episodes].clone()
        if num_episodes > 0:
            kept[-1] = last_length
            last_row = int(self._first_rows.tensor[num_episodes - 1]) + last_length
        self._frames.truncate(last_row + 1)
        self._put_steps(last_row, _NO_STEP)
        self._since_reward.rewrite(last_row + 1, self._since_reward.tensor[:0])
        self._lengths.rewrite(0, kept)
        for column in (self._first_rows, self._held_out):
            column.rewrite(num_episodes, column.tensor[:0])
        self._rows = self._current_rows()

    @property
    def _columns(self) -> tuple[MemoryStore, MemoryStore, MemoryStore, MemoryStore]:
        return self._actions, self._rewards, self._ends, self._is_step

    def _put_steps(self, first_row: int, steps: _Steps) -> None:
        """Puts steps in the place of all from `first_row` on, and leaves older rows as they are."""
        for column, values in zip(self._columns, steps, strict=True):
            column.rewrite(first_row, values)

    def _current_rows(self) -> Rows:
        return Rows(
            frames=self._frames.tensor,
            actions=self._actions.tensor,
            rewards=self._rewards.tensor,
            ends=self._ends.tensor,
            is_step=self._is_step.tensor,
            since_reward=self._since_reward.tensor,
            first_rows=self._first_rows.tensor,
            lengths=self._lengths.tensor,
            held_out=self._held_out.tensor,
        )


def _steps(episode: Episode) -> _Steps:
    """Returns the steps of an episode; the row of its final frame has none."""
    steps = torch.arange(len(episode) + 1)
    return _Steps(
        actions=torch.cat([torch.from_numpy(episode.actions), _NO_STEP.actions]),
        rewards=torch.cat([torch.from_numpy(episode.rewards), _NO_STEP.rewards]),
        ends=(steps == len(episode) - 1) & episode.terminated,
        is_step=steps < len(episode),
    )


def _since_reward(episode: Episode) -> Tensor:
    """Returns what `Rows` has of the T + 1 frames of an episode: int64 [T + 1]."""
    signs = torch.from_numpy(episode.rewards).sign().long()
    after = torch.arange(1, len(signs) + 1)
    # The frame after the last reward up to each frame; 0 where there was none.
    last = torch.where(signs != 0, after, 0).cummax(dim=0).values
    since = (after - last + 1) * signs[(last - 1).clamp(min=0)]
    since = torch.where(last > 0, since, 0)
    return torch.cat([torch.zeros(1, dtype=torch.int64), since])
