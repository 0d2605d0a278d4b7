"""Finding the steps that matter, or are hard to predict, so that more is learned from them.

Most steps of a game are alike: a ball flies on. What decides whether a dream holds together are
the few where it bounces. Drawing what is predicted badly more often is prioritised replay (Schaul
et al., 2016) with the squared error of the next frame as priority.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamenv.data import Replay, Segments
from dreamenv.data.segments import segments_at
from dreamenv.data.tensors import Rows
from dreamenv.errors import InputError
from dreamenv.models.world_model import WorldModel

_MOST_MEASURED = 40_000  # frames: minutes on a CPU, and more than are drawn from them later
_BATCH_SIZE = 64
_LARGEST = 0.99  # quantile: a screen that flashes is not to be all that is learned


def favour_the_hardest(
    world_model: WorldModel,
    replay: Replay,
    share: float,
    *,
    seed: int = 0,
    on_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns with which probability each step is to be drawn.

    A share of the draws is in proportion to the squared error of the frame of the step, as it is
    predicted from the real frames before it in one evaluation: a mean of what may come. The rest is
    uniform over all steps to train on.

    Args:
        world_model: On the device of the replay's tensors.
        replay: Where the episodes are.
        share: Of the draws, in [0, 1].
        seed: Of the frames that are measured, where there are more than can be, and of the noise.
        on_batch: Called again and again; what it raises ends the measuring.

    Returns:
        float64 [N], on the CPU, one a row of the replay (see `Rows`); they sum to 1.
    """
    rows = replay.tensors(world_model.device).rows
    episodes, steps = _training_steps(rows)
    places = rows.first_rows[episodes] + steps
    probabilities = torch.zeros(len(rows.is_step), dtype=torch.float64)
    probabilities[places] = (1 - share) / len(places)
    generator = torch.Generator().manual_seed(seed)
    measured = torch.randperm(len(places), generator=generator)[:_MOST_MEASURED]
    errors: list[Tensor] = []
    for batch in _windows(world_model, rows, episodes[measured], steps[measured]):
        errors.append(_squared_errors(world_model, batch, seed + len(errors)))
        on_batch()
    error = torch.cat(errors)
    error = error.clamp(max=error.quantile(_LARGEST).item()) + torch.finfo(torch.float64).tiny
    probabilities[places[measured]] += share * error / error.sum()
    return probabilities


def favour_by_weight(
    replay: Replay,
    weigh: Callable[[Any], Any],
    setting: str,
    *,
    on_episode: Callable[[], None] = lambda: None,
) -> Tensor:
    """Returns with which probability each step is to be drawn, where someone knows what matters.

    Args:
        replay: Where the episodes are.
        weigh: Maps the frames of an episode of T steps, uint8 [T + 1, C, H, W], to how often what
            each step leads to is to be drawn, beside the others: T numbers of at least 0.
        setting: What names that function, for errors.
        on_episode: Called again and again; what it raises ends the weighing.

    Returns:
        float64 [N], on the CPU, one a row of the replay (see `Rows`), whose frame is predicted;
        they sum to 1.

    Raises:
        InputError: The weights are none, or all 0.
    """
    rows = replay.tensors("cpu").rows
    probabilities = torch.zeros(len(rows.is_step), dtype=torch.float64)
    for episode in rows.episodes("train").tolist():
        first, length = int(rows.first_rows[episode]), int(rows.lengths[episode])
        weights = np.asarray(weigh(rows.frames[first : first + length + 1].numpy()))
        _check_weights(weights, length, setting)
        # No step is taken from the last frame, so that it ends no window.
        probabilities[first + 1 : first + length] = torch.as_tensor(weights[:-1]).double()
        on_episode()
    total = probabilities.sum()
    if total == 0:
        raise InputError(f"{setting} gave every step the weight 0; give some of them more")
    return probabilities / total


def favour_outcomes(replay: Replay, share: float) -> Tensor:
    """Returns with which probability each step is to be drawn, where those that pay or end matter.

    A share of the draws is of steps that end an episode, and of steps with a reward, half of it
    each, or all of it where there is but one of the two. The rest is uniform over all steps.

    Args:
        replay: Where the episodes are.
        share: Of the draws, in [0, 1].

    Returns:
        float64 [N], on the CPU, one a row of the replay (see `Rows`); they sum to 1.

    Raises:
        InputError: Nothing ever pays or ends.
    """
    rows = replay.tensors("cpu").rows
    is_ours = torch.zeros(len(rows.is_step), dtype=torch.bool)
    for episode in rows.episodes("train").tolist():
        first = int(rows.first_rows[episode])
        is_ours[first : first + int(rows.lengths[episode])] = True
    kinds = [kind for kind in (is_ours & rows.ends, is_ours & (rows.rewards != 0)) if kind.any()]
    if not kinds:
        raise InputError(
            f"{replay.folder}: no step pays or ends an episode; leave reward_end_favoured at 0"
        )
    probabilities = (1 - share) * is_ours.double() / is_ours.sum()
    for kind in kinds:
        probabilities += share / len(kinds) * kind.double() / kind.sum()
    return probabilities


def _check_weights(weights: Any, length: int, setting: str) -> None:
    if weights.shape != (length,) or weights.dtype.kind not in "fiu":
        raise InputError(
            f"{setting} returned {weights.dtype} {list(weights.shape)} for an episode of {length} "
            f"steps; it must return as many numbers"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"{setting} returned weights that are not finite or below 0; mend them")


def _training_steps(rows: Rows) -> tuple[Tensor, Tensor]:
    """Lists the steps to train on but each episode's first: their episodes, and which of it."""
    chosen = rows.episodes("train")
    counts = (rows.lengths[chosen] - 1).clamp(min=0)
    episodes = torch.repeat_interleave(chosen, counts)
    firsts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return episodes, torch.arange(len(episodes)) - firsts + 1


def _windows(
    world_model: WorldModel, rows: Rows, episodes: Tensor, steps: Tensor
) -> Iterator[Segments]:
    """Cuts windows that end with the frames of those steps, a context before each."""
    length = world_model.config.denoiser.context_length
    for some, those in zip(episodes.split(_BATCH_SIZE), steps.split(_BATCH_SIZE), strict=True):
        yield segments_at(rows, some, those - length, length + 1)


def _squared_errors(world_model: WorldModel, windows: Segments, seed: int) -> Tensor:
    """Predicts the last frame of each window: float64 [B] on the CPU, of levels to 255."""
    generator = torch.Generator(world_model.device).manual_seed(seed)
    sampler = world_model.config.sampler
    frame = world_model.next_obs(
        windows.obs[:, :-1],
        windows.actions[:, :-1],
        since_reward=windows.since_reward[:, -2],
        sampler=sampler.with_denoising(sampler.levels[:1]),
        generator=generator,
    )
    errors = (frame.float() - windows.obs[:, -1].float()).square().mean(dim=(1, 2, 3))
    return errors.cpu().double()  # MPS has no float64
