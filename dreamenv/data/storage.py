"""One growing tensor of frames: in memory while it fits, else in a mapped file."""

import mmap
import os
import tempfile
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


class Store(Protocol):
    """Rows in one tensor that grows at its end.

    A tensor handed out stays as it was: later appends never change its rows. Only after a
    `truncate` do they change those of its rows that were dropped.
    """

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` rows in all."""

    def append(self, rows: Tensor) -> None:
        """Puts `rows` after those that are there."""

    def truncate(self, length: int) -> None:
        """Drops the rows from `length` on, and keeps their room."""

    @property
    def tensor(self) -> Tensor:
        """The rows that are there. [N, ...]."""


class MemoryStore:
    """Rows in the memory of a device, doubled when full: an append costs its own length."""

    def __init__(self, row_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device):
        self._room = torch.empty((1, *row_shape), dtype=dtype, device=device)
        self._length = 0

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` rows in all."""
        if capacity <= len(self._room):
            return
        room = self._room.new_empty((capacity, *self._room.shape[1:]))
        room[: self._length] = self.tensor
        self._room = room

    def append(self, rows: Tensor) -> None:
        """Puts `rows` after those that are there."""
        end = self._length + len(rows)
        if end > len(self._room):
            self.reserve(max(end, 2 * len(self._room)))
        self._room[self._length : end] = rows.to(self._room.device)
        self._length = end

    def truncate(self, length: int) -> None:
        """Drops the rows from `length` on, and keeps their room."""
        self._length = length

    def rewrite(self, start: int, rows: Tensor) -> None:
        """Puts `rows` in the place of those from `start` on, at the cost of a copy of all rows.

        Tensors handed out keep the rows they had.
        """
        self._room = self._room.clone()
        self.truncate(start)
        self.append(rows)

    @property
    def tensor(self) -> Tensor:
        """The rows that are there. [N, ...]."""
        return self._room[: self._length]


class MappedStore:
    """uint8 rows in a file without a name: the system drops it with the process, killed or not.

    Args:
        row_shape: The shape of one row.
        folder: The folder on whose disk the file lives.
    """

    def __init__(self, row_shape: tuple[int, ...], folder: Path):
        self._row_shape = row_shape
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the store)
        self._length = 0
        self._room = torch.empty((0, *row_shape), dtype=torch.uint8)
        self.reserve(1)

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` rows in all. The file stays sparse: it takes no disk yet."""
        if capacity <= len(self._room):
            return
        size = capacity * prod(self._row_shape)
        self._file.truncate(size)
        mapped = mmap.mmap(self._file.fileno(), size)
        self._room = torch.frombuffer(mapped, dtype=torch.uint8).view(capacity, *self._row_shape)

    def append(self, rows: Tensor) -> None:
        """Puts `rows` after those that are there.

        Raises:
            OSError: The disk is full.
        """
        end = self._length + len(rows)
        if end > len(self._room):
            self.reserve(max(end, 2 * len(self._room)))
        # Written, not assigned to the mapping: on a full disk a write raises, where touching a
        # page that cannot be had kills the process.
        self._file.seek(self._length * prod(self._row_shape))
        self._file.write(rows.cpu().contiguous().numpy().data)
        self._file.flush()
        self._length = end

    def truncate(self, length: int) -> None:
        """Drops the rows from `length` on, and keeps their room."""
        self._length = length

    @property
    def tensor(self) -> Tensor:
        """The rows that are there. [N, ...]."""
        return self._room[: self._length]


class FrameStore:
    """Frames in the memory of a device while they fit, and in a mapped file from then on.

    Args:
        frame_shape: Channels, height and width.
        device: Where the frames are wanted.
        folder: The folder on whose disk they go when they do not fit.
        max_memory: The bytes of the device that frames may take. None measures: room is taken
            only while it is at most half of what is free then.
    """

    def __init__(
        self,
        frame_shape: tuple[int, int, int],
        device: torch.device,
        folder: Path,
        max_memory: int | None = None,
    ):
        self._frame_shape = frame_shape
        self._device = device
        self._folder = folder
        self._max_memory = max_memory
        self._capacity = 1
        self._store: Store = MemoryStore(frame_shape, torch.uint8, device)

    @property
    def in_memory(self) -> bool:
        """Whether the frames are in the device's memory."""
        return isinstance(self._store, MemoryStore)

    @property
    def tensor(self) -> Tensor:
        """The frames that are there: uint8 [N, C, H, W], on the device or mapped."""
        return self._store.tensor

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` frames in all."""
        if capacity <= self._capacity:
            return
        if self.in_memory and not self._fits(capacity):
            mapped = MappedStore(self._frame_shape, self._folder)
            mapped.append(self._store.tensor)
            self._store = mapped
        self._store.reserve(capacity)
        self._capacity = capacity

    def append(self, frames: Tensor) -> None:
        """Puts frames, uint8 [N, C, H, W], after those that are there.

        Raises:
            OSError: They go to the mapped file, and the disk is full.
        """
        end = len(self._store.tensor) + len(frames)
        if end > self._capacity:
            self.reserve(max(end, 2 * self._capacity))
        self._store.append(frames)

    def truncate(self, length: int) -> None:
        """Drops the frames from `length` on, and keeps their room."""
        self._store.truncate(length)

    def _fits(self, capacity: int) -> bool:
        size = capacity * prod(self._frame_shape)
        if self._max_memory is not None:
            return size <= self._max_memory
        return size <= free_memory(self._device) // 2


def free_memory(device: torch.device) -> int:
    """Returns how many bytes of the device's memory can be had now.

    In a container it is no more than its limit leaves. On a CPU outside Linux, which has no such
    number at hand, it is the memory there is in all.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not _MEMINFO.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    available = int(fields["MemAvailable"].removesuffix("kB")) * 1024
    left = _left_to_container()
    return available if left is None else min(available, left)


def _left_to_container() -> int | None:
    """Returns how many bytes cgroup v2 lets this container have besides those in use, if it says.

    As Kubernetes counts them, those of files that were not read of late are not in use.
    """
    try:
        limit = int((_CGROUP / "memory.max").read_text())
    except (OSError, ValueError):  # there is no such file, or no limit: "max"
        return None
    stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    used = int((_CGROUP / "memory.current").read_text()) - int(stat["inactive_file"])
    return max(0, limit - used)
