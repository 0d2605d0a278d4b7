"""Which parts of held-out episodes are dreamt again."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self

from dreamenv.data.tensors import Rows
from dreamenv.errors import InputError


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows: a context of real frames each, and the steps that are dreamt on from it.

    Attributes:
        episodes: int64 [W], the place of each one's episode among those of the rows.
        starts: int64 [W], the step of the context's first frame.
        lengths: int64 [W], for how many steps the episode goes on, at most those that are dreamt.
    """

    episodes: Tensor
    starts: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        """W."""
        return len(self.starts)

    @property
    def horizon(self) -> int:
        """For how many steps the longest goes on."""
        return int(self.lengths.max())

    def split(self, size: int) -> Iterator[Self]:
        """Goes through the windows in order, so many at once."""
        parts = (tensor.split(size) for tensor in (self.episodes, self.starts, self.lengths))
        return (type(self)(*part) for part in zip(*parts, strict=True))

    def rows(self, indices: Tensor) -> Self:
        """Picks the windows of those indices, int64 [M]."""
        return type(self)(self.episodes[indices], self.starts[indices], self.lengths[indices])

    def spread(self, count: int) -> Tensor:
        """Returns the indices of at most `count` of the longest windows, at equal distances."""
        longest = torch.nonzero(self.lengths == self.horizon).flatten()
        return longest[spread(len(longest), count)]


def spread_windows(rows: Rows, context_length: int, horizon: int, max_windows: int) -> Windows:
    """Spreads windows over the held-out episodes, at equal distances.

    Each lies in one episode, with its whole context. One that begins too near the end to go on
    for the horizon is moved back until it does, or to the beginning of an episode that is too
    short. So every horizon is measured on the same windows, but for such episodes.

    Args:
        rows: The episodes.
        context_length: The frames of a context.
        horizon: For how many steps a window is dreamt on.
        max_windows: At most so many windows; fewer where some would be the same.

    Raises:
        InputError: No episode is held out, or none is long enough for a context and a step.
    """
    chosen = rows.episodes("held_out")
    # [E], at how many steps a context may begin that at least one step follows.
    places = (rows.lengths[chosen] - context_length + 1).clamp(min=0)
    total = int(places.sum())
    if total == 0:
        raise InputError(
            f"no held-out episode has the {context_length} steps that a context and a dreamt frame "
            f"take; collect longer ones"
        )
    spots = spread(total, max_windows)
    ends = places.cumsum(0)
    index = torch.searchsorted(ends, spots, right=True)
    starts = spots - (ends - places)[index]
    starts = torch.minimum(starts, (places[index] - horizon).clamp(min=0))
    index, starts = torch.stack([index, starts], dim=1).unique(dim=0).unbind(1)
    return Windows(chosen[index], starts, (places[index] - starts).clamp(max=horizon))


def spread(total: int, count: int) -> Tensor:
    """Returns at most `count` of the numbers below `total`, at equal distances."""
    count = min(count, total)
    return (2 * torch.arange(count) + 1) * total // (2 * count)
