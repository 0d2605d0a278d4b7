"""Dreaming along the actions of real episodes, each frame from the dreamt ones before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from dreamenv.data import Segments
from dreamenv.data.segments import segments_at
from dreamenv.data.tensors import Rows
from dreamenv.evaluation.ball import Balls, Detector
from dreamenv.evaluation.windows import Windows
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_memory import later
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel

_WINDOWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class OpenLoop:
    """W windows dreamt on for H steps, and what the episodes have there; tensors on the CPU.

    Attributes:
        within: bool [W, H], whether the episode goes on so far. Nothing else counts.
        squared_errors: float32 [W, H], the mean over the pixels of a frame, of levels to 255.
        dreamt_signs: int64 [W, H], of rewards, the likeliest: 0 for -1, 1 for 0, 2 for 1.
        real_signs: Likewise.
        dreamt_ends: bool [W, H], likewise the likeliest.
        real_ends: bool [W, H].
        dreamt_balls: bool [W, H], whether there is a ball in the frame; False where nothing tells.
        real_balls: Likewise.
        near_balls: bool [W, H], whether there is one in both frames, and at nearly the same place.
        frames: uint8 [K, H, C, h, w], the dreamt frames of the windows that are shown.
    """

    within: Tensor
    squared_errors: Tensor
    dreamt_signs: Tensor
    real_signs: Tensor
    dreamt_ends: Tensor
    real_ends: Tensor
    dreamt_balls: Tensor
    real_balls: Tensor
    near_balls: Tensor
    frames: Tensor

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Puts the windows of several parts after each other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


class DreamtStep(NamedTuple):
    """A step of N dreams.

    Attributes:
        frame: uint8 [N, C, H, W].
        signs: int64 [N], of rewards, the likeliest: 0 for -1, 1 for 0, 2 for 1.
        ends: bool [N], likewise the likeliest.
    """

    frame: Tensor
    signs: Tensor
    ends: Tensor


@torch.no_grad()
def dream_along(
    world_model: WorldModel,
    segment: Segments,
    *,
    sampler: SamplerConfig | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[DreamtStep]:
    """Dreams on from the first L frames of N windows, along the actions of all.

    Frames go on whether an end is predicted or not. The likeliest rewards are those that the world
    model remembers.

    Args:
        world_model: What is dreamt.
        segment: The windows, of L + T frames.
        sampler: The noise levels; the model's own if None.
        generator: Where chance comes from, on the model's device.

    Yields:
        T steps.
    """
    length = world_model.config.denoiser.context_length
    context, since_reward = segment.obs[:, :length], segment.since_reward[:, length - 1]
    state = _remember(world_model, segment, length)
    for taken in segment.actions[:, :-1].unfold(1, length, 1).unbind(1):  # T times [N, L]
        frame = world_model.next_obs(
            context, taken, since_reward=since_reward, sampler=sampler, generator=generator
        )
        outcome = world_model.reward_and_end(context[:, -1:], taken[:, -1:], frame[:, None], state)
        signs = outcome.reward_logits[:, 0].argmax(dim=1)
        ends = outcome.end_logits[:, 0].argmax(dim=1) == 1
        state, since_reward = outcome.state, later(since_reward, signs - 1)
        context = torch.cat([context[:, 1:], frame[:, None]], dim=1)
        yield DreamtStep(frame, signs, ends)


def dream_windows(
    world_model: WorldModel,
    rows: Rows,
    windows: Windows,
    *,
    sampler: SamplerConfig,
    seed: int,
    shown: Tensor,
    detector: Detector | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> OpenLoop:
    """Dreams windows of real episodes along their own actions, and compares step by step.

    Args:
        world_model: What is dreamt, on the device of the rows.
        rows: The episodes.
        windows: Which parts of them.
        sampler: The noise levels.
        seed: Of all chance.
        shown: int64 [K], falling nowhere: the windows whose frames are kept.
        detector: Finds the ball in a frame.
        on_step: Called after every step of every batch, `count_steps` times in all.
    """
    generator = torch.Generator(world_model.device).manual_seed(seed)
    context_length, horizon = world_model.config.denoiser.context_length, windows.horizon
    is_shown = torch.zeros(len(windows), dtype=torch.bool).index_fill(0, shown, True)
    parts = []
    for batch, kept in zip(
        windows.split(_WINDOWS_AT_ONCE), is_shown.split(_WINDOWS_AT_ONCE), strict=True
    ):
        # At the last of these frames no action is taken.
        segment = segments_at(rows, batch.episodes, batch.starts, context_length + horizon)
        dreamt = dream_along(world_model, segment, sampler=sampler, generator=generator)
        compared = _compare(
            segment, context_length, dreamt, kept.to(rows.device), detector, on_step
        )
        parts.append(compared)
    return OpenLoop.joined(parts)


def count_steps(windows: Windows) -> int:
    """Returns how many steps of batches it takes to dream the windows."""
    return -(-len(windows) // _WINDOWS_AT_ONCE) * windows.horizon


class _Step(NamedTuple):
    """A step of N windows: what `OpenLoop` has of it."""

    squared_errors: Tensor
    signs: Tensor
    ends: Tensor
    dreamt_balls: Tensor
    real_balls: Tensor
    near_balls: Tensor
    frames: Tensor


@torch.no_grad()
def _compare(
    segment: Segments,
    length: int,
    dreamt_steps: Iterator[DreamtStep],
    kept: Tensor,
    detector: Detector | None,
    on_step: Callable[[], None],
) -> OpenLoop:
    steps = []
    for real, (frame, signs, ends) in zip(
        segment.obs[:, length:].unbind(1), dreamt_steps, strict=True
    ):
        dreamt_balls, real_balls = _find_balls(detector, frame), _find_balls(detector, real)
        compared = _Step(
            squared_errors=(frame.float() - real.float()).square().mean(dim=(1, 2, 3)),
            signs=signs,
            ends=ends,
            dreamt_balls=torch.from_numpy(dreamt_balls.there),
            real_balls=torch.from_numpy(real_balls.there),
            near_balls=torch.from_numpy(dreamt_balls.near(real_balls)),
            frames=frame[kept],
        )
        steps.append(compared)
        on_step()
    dreamt = _Step(*(torch.stack(column, dim=1).cpu() for column in zip(*steps, strict=True)))
    acted = slice(length - 1, -1)  # the actions that the dreamt frames follow
    return OpenLoop(
        within=segment.mask[:, acted].cpu(),
        squared_errors=dreamt.squared_errors,
        dreamt_signs=dreamt.signs,
        real_signs=segment.rewards[:, acted].sign().long().cpu() + 1,
        dreamt_ends=dreamt.ends,
        real_ends=segment.ends[:, acted].cpu(),
        dreamt_balls=dreamt.dreamt_balls,
        real_balls=dreamt.real_balls,
        near_balls=dreamt.near_balls,
        frames=dreamt.frames,
    )


def _remember(world_model: WorldModel, segment: Segments, length: int) -> LSTMState:
    """Returns what the heads remember of contexts at their last frame, as at a dream's reset."""
    obs, actions = segment.obs[:, :length], segment.actions[:, : length - 1]
    if length == 1:
        return world_model.reward_end.initial_state(len(obs))
    return world_model.reward_and_end(obs[:, :-1], actions, obs[:, 1:]).state


def _find_balls(detector: Detector | None, frames: Tensor) -> Balls:
    if detector is None:
        nowhere = np.zeros(len(frames))
        return Balls(np.zeros(len(frames), np.bool_), nowhere, nowhere)
    return detector(frames.cpu().numpy())
