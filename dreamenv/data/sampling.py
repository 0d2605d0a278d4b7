"""Random segments for training, with newer episodes drawn more often."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dreamenv.data.replay import Replay
from dreamenv.data.segments import Segments, segments_at
from dreamenv.data.tensors import Rows, Split
from dreamenv.errors import InputError

PUBLISHED_WEIGHTS = (0.1, 0.1, 0.1, 0.7)
_QUARTERS = 4


class SegmentSampler:
    """Draws batches of segments as DIAMOND does (Alonso et al. 2024).

    An episode is drawn by its weight (see `episode_weights`), then one of its steps uniformly,
    then where in the window that step stands, uniformly. Episodes appended to the replay take
    part from the next batch on.

    The same state over the same replay gives the same batches, bit for bit, on any device: the
    random numbers are drawn on the CPU.

    Args:
        replay: Where the episodes are.
        segment_length: The number of steps of a segment.
        batch_size: The number of segments a batch.
        device: Where the batches are wanted.
        weights: The probabilities of the quarters of the episodes by age, oldest first; None
            draws every step equally often.
        beyond_end: Whether windows may run over the end of an episode (for the reward and
            termination heads). If not, they stop at its last step at the latest, and only the
            left is padded (for the denoiser, and for the contexts of dreams).
        split: Draw from the episodes to train on, or from those held out.
        seed: Of the random numbers.

    Raises:
        InputError: A size is below 1, or the weights are no probabilities.
        FormatError: An episode file was damaged or removed after the replay was opened.
    """

    def __init__(
        self,
        replay: Replay,
        segment_length: int,
        batch_size: int,
        device: torch.device | str,
        weights: tuple[float, float, float, float] | None = PUBLISHED_WEIGHTS,
        *,
        beyond_end: bool,
        split: Split = "train",
        seed: int = 0,
    ):
        _check_sizes(segment_length, batch_size)
        _check_weights(weights)
        self._tensors = replay.tensors(device)
        self._segment_length = segment_length
        self._batch_size = batch_size
        self._weights = weights
        self._beyond_end = beyond_end
        self._split: Split = split
        self._generator = torch.Generator().manual_seed(seed)
        self._rows: Rows | None = None
        self._favoured: Tensor | None = None
        self._places = segment_length

    @property
    def favours(self) -> bool:
        """Whether some steps are drawn more often than `weights` say."""
        return self._favoured is not None

    def favour(self, probabilities: Tensor, places: int) -> None:
        """Draws steps with given probabilities from now on, instead of by episodes.

        For a replay that does not grow.

        Args:
            probabilities: float64 [N], of the step taken from each row; see `Rows`. They sum to 1,
                and are 0 where no step is to be drawn.
            places: At how many places, the last of the window or the first of one that may run
                beyond the end, a step that was drawn may stand.

        Raises:
            InputError: There are not as many as rows, or not as many places in a window.
        """
        rows = self._tensors.rows
        if probabilities.shape != rows.is_step.shape:
            raise InputError(
                f"probabilities are {list(probabilities.shape)}; they must be one a row of the "
                f"replay, {list(rows.is_step.shape)}"
            )
        if not 1 <= places <= self._segment_length:
            raise InputError(f"places is {places}; it must be from 1 to {self._segment_length}")
        self._favoured, self._places = probabilities, places
        self._favoured_cumulative = probabilities.cumsum(0)

    def sample(self) -> Segments:
        """Draws a batch.

        Raises:
            InputError: The replay has no episode to draw from yet.
        """
        rows = self._tensors.rows
        if rows is not self._rows:
            self._weigh(rows)
        draws = torch.rand(3, self._batch_size, generator=self._generator, dtype=torch.float64)
        episodes, timesteps = self._draw_steps(rows, draws[0], draws[1])
        lengths = rows.lengths[episodes]
        offsets = (draws[2] * self._places).long()
        if self._beyond_end:
            starts = timesteps - offsets
        else:
            starts = torch.minimum(lengths, timesteps + 1 + offsets) - self._segment_length
        return segments_at(rows, episodes, starts, self._segment_length)

    def __iter__(self) -> Iterator[Segments]:
        """Draws batches without end."""
        while True:
            yield self.sample()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on with the very next batch."""
        return {
            "generator": self._generator.get_state(),
            "favoured": self._favoured,
            "places": self._places,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())
        if state["favoured"] is not None:
            self.favour(state["favoured"].cpu(), state["places"])

    def _draw_steps(self, rows: Rows, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Turns two uniform draws [B] into an episode and a step of it, int64 [B] each."""
        if self._favoured is None:
            # The last cumulative weight is exactly 1, every draw below 1, so is in range.
            episodes = self._episodes[torch.searchsorted(self._cumulative, first, right=True)]
            return episodes, (second * rows.lengths[episodes]).long()
        cumulative = self._favoured_cumulative
        drawn = torch.searchsorted(cumulative, first * cumulative[-1], right=True)
        episodes = torch.searchsorted(rows.first_rows, drawn, right=True) - 1
        return episodes, drawn - rows.first_rows[episodes]

    def _weigh(self, rows: Rows) -> None:
        episodes = rows.episodes(self._split)
        cumulative = episode_weights(rows.lengths[episodes], self._weights).cumsum(0)
        self._episodes = episodes
        self._cumulative = cumulative / cumulative[-1]
        self._rows = rows


def episode_weights(
    lengths: Tensor, weights: tuple[float, float, float, float] | None = PUBLISHED_WEIGHTS
) -> Tensor:
    """Returns the probability of drawing each episode, float64 [E].

    The episodes are cut into quarters by age, E // 4 in each and the remainder in the newest. Each
    quarter shares its weight equally among its episodes. Without weights, or with fewer than four
    episodes, an episode's probability is its share of the steps.

    Args:
        lengths: int64 [E]; the number of steps of each episode, oldest first. E >= 1.
        weights: The probabilities of the quarters, oldest first.
    """
    if weights is None or len(lengths) < _QUARTERS:
        return lengths.double() / lengths.sum()
    size = len(lengths) // _QUARTERS
    sizes = torch.tensor([size, size, size, len(lengths) - 3 * size])
    shares = torch.tensor(weights, dtype=torch.float64) / sizes
    return torch.repeat_interleave(shares / sum(weights), sizes)


def _check_sizes(segment_length: int, batch_size: int) -> None:
    for name, size in (("segment_length", segment_length), ("batch_size", batch_size)):
        if size < 1:
            raise InputError(f"{name} is {size}; it must be at least 1")


def _check_weights(weights: tuple[float, ...] | None) -> None:
    if weights is None:
        return
    usable = all(math.isfinite(weight) and weight >= 0 for weight in weights) and sum(weights) > 0
    if len(weights) != _QUARTERS or not usable:
        raise InputError(
            f"weights are {weights}; give four numbers of at least 0, one of them above 0"
        )
