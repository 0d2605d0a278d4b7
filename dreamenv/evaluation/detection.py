"""Precision and recall, and those of the rewards and ends that a world model predicts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamenv.config import Config
from dreamenv.data import Replay, consecutive_segments
from dreamenv.models.world_model import WorldModel

_BATCH_SIZE = 32
_BURN_IN = 8  # steps of memory that the heads are given before those that are judged
_LENGTH = 32


@dataclass(frozen=True)
class Detection(Config):
    """How well a rare thing is told from the rest.

    Attributes:
        hits: Steps at which it was predicted and was there.
        predicted: Steps at which it was predicted.
        actual: Steps at which it was there.
    """

    hits: int
    predicted: int
    actual: int

    @property
    def precision(self) -> float | None:
        """The share of the predictions that were right; None where there were none."""
        return self.hits / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """The share of what was there that was predicted; None where nothing was."""
        return self.hits / self.actual if self.actual else None

    def __str__(self) -> str:
        """Precision, recall, and how many times the thing was there."""
        shares = (self.precision, self.recall)
        precision, recall = ("-" if share is None else f"{share:.3f}" for share in shares)
        return f"{precision} / {recall} ({self.actual})"


@dataclass(frozen=True)
class Detections(Config):
    """How well what a world model says of steps is told.

    Attributes:
        rewards: For the reward signs -1, 0 and 1, taking the likeliest.
        end: For the ends of episodes, likewise.
    """

    rewards: tuple[Detection, Detection, Detection]
    end: Detection


@torch.no_grad()
def detect(
    world_model: WorldModel,
    replay: Replay,
    device: torch.device,
    on_steps: Callable[[int], None] = lambda _: None,
) -> Detections:
    """Judges the rewards and ends that are predicted from real frames, at every held-out step.

    Args:
        world_model: On the device.
        replay: Where the episodes are.
        device: Where to compute.
        on_steps: Called now and then with the number of steps judged so far.
    """
    counts = torch.zeros(4, 3, dtype=torch.int64, device=device)
    judged_steps = 0
    batches = consecutive_segments(replay, _LENGTH, _BATCH_SIZE, device, context=_BURN_IN, ahead=1)
    for batch in batches:
        output = world_model.reward_and_end(
            batch.obs[:, :-1], batch.actions[:, :-1], batch.obs[:, 1:]
        )
        judged = batch.mask[:, _BURN_IN:-1]
        counts += count_outcomes(
            output.reward_logits[:, _BURN_IN:].argmax(dim=2),
            batch.rewards[:, _BURN_IN:-1].sign().long() + 1,
            output.end_logits[:, _BURN_IN:].argmax(dim=2) == 1,
            batch.ends[:, _BURN_IN:-1],
            judged,
        )
        judged_steps += int(judged.sum())
        on_steps(judged_steps)
    return as_detections(counts)


def count_outcomes(
    predicted_signs: Tensor,
    signs: Tensor,
    predicted_ends: Tensor,
    ends: Tensor,
    judged: Tensor,
) -> Tensor:
    """Counts hits, predictions and occurrences.

    Args:
        predicted_signs: int64 [N, T], 0 for the reward sign -1, 1 for 0, 2 for 1.
        signs: The real ones, likewise.
        predicted_ends: bool [N, T].
        ends: The real ones, likewise.
        judged: bool [N, T], the steps that count.

    Returns:
        int64 [4, 3]. Rows: the reward signs -1, 0, 1, and the end. Columns: hits, predicted,
        actual. Counts of several batches add up.
    """
    rows = [(predicted_signs == sign, signs == sign) for sign in range(3)]
    return torch.stack([_count(*row, judged) for row in [*rows, (predicted_ends, ends)]])


def as_detections(counts: Tensor) -> Detections:
    """Names the counts, int64 [4, 3], that `count_outcomes` made."""
    negative, zero, positive, end = (Detection(*row) for row in counts.tolist())
    return Detections((negative, zero, positive), end)


def _count(predicted: Tensor, actual: Tensor, judged: Tensor) -> Tensor:
    hits = predicted & actual & judged
    return torch.stack([hits.sum(), (predicted & judged).sum(), (actual & judged).sum()])
