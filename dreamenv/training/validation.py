"""How good a world model is on episodes that it was not fitted to."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreamenv.config import Config
from dreamenv.data import Replay, Segments, consecutive_segments
from dreamenv.evaluation.detection import Detection, detect
from dreamenv.evaluation.open_loop import dream_along
from dreamenv.evaluation.psnr import psnr
from dreamenv.evaluation.strip import strip
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.frames import to_float
from dreamenv.models.world_model import WorldModel

_BATCH_SIZE = 32
_DEVIATIONS = (-2, -1, 0, 1, 2)  # of log σ, in the training noise


@dataclass(frozen=True)
class Validation(Config):
    """The figures of one validation, on held-out episodes.

    Attributes:
        frames: How many frames were denoised for the next two.
        losses: The denoising loss at noise levels σ, of those that were trained: at the start of
            sampling, or two, one and no standard deviations of log σ off its mean. None where it
            is no number, or infinite.
        psnr: Of the next frame, in dB: the mean squared error is pooled over the frames. None
            where every frame was right to the byte, or none was denoised.
        rewards: For the reward signs -1, 0 and 1, taking the likeliest.
        end: For the ends of episodes, likewise.
    """

    frames: int
    losses: tuple[tuple[float, float | None], ...]
    psnr: float | None
    rewards: tuple[Detection, Detection, Detection]
    end: Detection


def validate(
    world_model: WorldModel, replay: Replay, device: torch.device, *, max_frames: int = 512
) -> Validation:
    """Judges a world model on the held-out episodes of a replay.

    Args:
        world_model: On the device.
        replay: Where the episodes are.
        device: Where to compute.
        max_frames: At most so many frames are denoised, spread over the episodes. Rewards and
            ends are judged at every step.
    """
    batches = _spread(_denoiser_batches(world_model, replay, device), replay, max_frames)
    generator = torch.Generator(device).manual_seed(0)
    detections = detect(world_model, replay, device)
    return Validation(
        frames=sum(len(batch.obs) for batch in batches),
        losses=_losses_by_level(world_model, batches, generator),
        psnr=_psnr(world_model, batches, generator),
        rewards=detections.rewards,
        end=detections.end,
    )


def side_by_side(
    world_model: WorldModel, replay: Replay, device: torch.device, *, length: int = 10
) -> Tensor:
    """Dreams along the actions of a held-out episode, where most happens in it.

    Args:
        world_model: On the device.
        replay: Where the episodes are.
        device: Where to compute.
        length: Frames to dream.

    Returns:
        uint8 [C, 2 * H, length * W]: real frames above, dreamt ones below.
    """
    context_length = world_model.config.denoiser.context_length
    windows = consecutive_segments(replay, context_length + length, 1, device)
    segment = max(windows, key=_activity)
    dreamt = dream_along(world_model, segment, generator=torch.Generator(device).manual_seed(0))
    frames = torch.cat([step.frame for step in dreamt])
    return strip([segment.obs[0, context_length:], frames]).cpu()


def _activity(segment: Segments) -> float:
    """How much changes in a window, [1, T, ...]; less than nothing where it is not whole."""
    if not segment.mask.all():
        return float(segment.mask.sum()) - segment.mask.numel()
    frames = segment.obs.float()
    return float((frames[:, 1:] - frames[:, :-1]).abs().sum())


def _denoiser_batches(
    world_model: WorldModel, replay: Replay, device: torch.device
) -> Iterator[Segments]:
    """Goes through windows of a context and one frame more, of which neither is padding."""
    length = world_model.config.denoiser.context_length
    for batch in consecutive_segments(replay, length + 1, _BATCH_SIZE, device, context=length):
        whole = batch.mask.all(dim=1)
        if whole.any():
            yield Segments(*(tensor[whole] for tensor in vars(batch).values()))


def _spread(batches: Iterator[Segments], replay: Replay, max_frames: int) -> list[Segments]:
    """Keeps batches at equal distances, of about `max_frames` windows in all."""
    steps = sum(info.length for info in replay.infos if info.held_out)
    return list(itertools.islice(batches, 0, None, math.ceil(steps / max_frames)))


@torch.no_grad()
def _losses_by_level(
    world_model: WorldModel, batches: list[Segments], generator: torch.Generator
) -> tuple[tuple[float, float | None], ...]:
    denoiser, config = world_model.denoiser, world_model.config.denoiser
    levels = _trained_levels(config)
    totals = [0.0] * len(levels)
    for batch in batches:
        obs = to_float(batch.obs)
        noise = replace(denoiser.draw_noise(obs, generator), starts=None)
        for index, (level, is_start) in enumerate(levels):
            noise.sigma.fill_(level)
            starts = torch.ones_like(noise.sigma, dtype=torch.bool) if is_start else None
            losses = denoiser.losses(
                obs,
                batch.actions,
                batch.mask,
                replace(noise, starts=starts),
                since_reward=batch.since_reward,
            )
            totals[index] += losses.denoising.item() * len(obs)
    count = sum(len(batch.obs) for batch in batches)
    means = [total / max(1, count) if math.isfinite(total) else None for total in totals]
    return tuple((level, mean) for (level, _), mean in zip(levels, means, strict=True))


def _trained_levels(config: DenoiserConfig) -> list[tuple[float, bool]]:
    """Lists noise levels that are trained, rising, and whether sampling starts there."""
    drawn = [math.exp(config.log_sigma_mean + k * config.log_sigma_std) for k in _DEVIATIONS]
    levels = [(min(max(level, config.sigma_min), config.sigma_max), False) for level in drawn]
    if config.start_share == 0:
        return levels
    start = (config.sigma_max, True)
    return [start] if config.start_share == 1 else [*levels, start]


def _psnr(
    world_model: WorldModel, batches: list[Segments], generator: torch.Generator
) -> float | None:
    squares, count = 0.0, 0
    for batch in batches:
        context, actions = batch.obs[:, :-1], batch.actions[:, :-1]
        since = batch.since_reward[:, -2]
        frame = world_model.next_obs(context, actions, since_reward=since, generator=generator)
        errors = frame.float() - batch.obs[:, -1].float()
        squares += errors.square().sum().item()
        count += errors.numel()
    return psnr(squares / count) if count else None
