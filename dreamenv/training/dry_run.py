"""What fitting a world model would do, and how long it would take here."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dreamenv.devices import resolve_device
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.world_model import WorldModel
from dreamenv.progress import format_seconds
from dreamenv.real import make_vector
from dreamenv.registration import home
from dreamenv.training.beginning import check_networks
from dreamenv.training.dreamt_past import DreamtPast
from dreamenv.training.fit_config import FitModelConfig, architecture
from dreamenv.training.fit_model import check_plan
from dreamenv.training.noise import noise_segments
from dreamenv.training.source import find_environment, open_dataset
from dreamenv.training.world_model import WorldModelTrainer

_TIMED_STEPS = 3
_TIMED_PLAY = 100


def dry_run(
    config: FitModelConfig, console: Console, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Prints the plan, the sizes, and an estimate from a few timed steps; leaves nothing behind.

    Args:
        config: What would be fitted.
        resume: Whether it would go on with the run that is there.
        overwrite: Whether it would replace what is there.
        console: Where to print.
    """
    check_plan(config, resume=resume, overwrite=overwrite)
    device = resolve_device(config.device)
    table = Table("what", "how much", title=f"fit-model: {config.world_name}")
    environment, collecting = _plan_data(config, table)
    check_networks(config, environment)
    model = WorldModel(architecture(config, environment))
    for part in ("denoiser", "reward_end"):
        count = sum(parameter.numel() for parameter in model.get_submodule(part).parameters())
        table.add_row(f"parameters, {part}", f"{count:,}")
    fitting = 0.0
    for part, steps, seconds in _time_steps(model, config, device):
        table.add_row(f"a step of {part} on {device}", f"{seconds:.3f} s, {steps:,} times")
        fitting += steps * seconds
    table.add_row(f"fitting, {config.training.steps:,} steps", format_seconds(fitting))
    table.add_row("in all, about", format_seconds(collecting + fitting))
    table.add_row("run", str(config.run_folder.path))
    table.add_row("world model", str(home() / config.world_name))
    console.print(table)


def _plan_data(config: FitModelConfig, table: Table) -> tuple[EnvironmentSpec, float]:
    """Describes where the episodes come from; returns also the seconds that takes."""
    if config.dataset is not None:
        with tempfile.TemporaryDirectory() as imported:
            replay = open_dataset(config, Path(imported) / "replay")
        table.add_row("dataset", f"{replay.num_steps:,} steps, {replay.num_episodes:,} episodes")
        return replay.environment, 0.0
    environment = find_environment(config)
    seconds = config.collect_steps / _steps_a_second(environment, config.num_envs)
    size = config.collect_steps * torch.Size(environment.obs_shape).numel() / 1e6
    table.add_row("environment", environment.id)
    table.add_row("frames", "x".join(str(length) for length in environment.obs_shape))
    table.add_row("actions", ", ".join(environment.action_meanings))
    table.add_row(f"collecting, {config.collect_steps:,} steps", format_seconds(seconds))
    table.add_row("their frames in memory", f"{size:,.0f} MB")
    return environment, seconds


def _steps_a_second(environment: EnvironmentSpec, num_envs: int) -> float:
    env = make_vector(environment, num_envs, training=True)
    try:
        env.reset(seed=0)
        started = time.perf_counter()
        for _ in range(_TIMED_PLAY):
            env.step(env.action_space.sample())
        return _TIMED_PLAY * num_envs / (time.perf_counter() - started)
    finally:
        env.close()


class _TimedSteps(NamedTuple):
    """What is done again and again: how often in all, and the seconds it takes."""

    part: str
    steps: int
    seconds: float


def _time_steps(
    model: WorldModel, config: FitModelConfig, device: torch.device
) -> Iterator[_TimedSteps]:
    training = config.training
    trainer = WorldModelTrainer(model, training, device)
    context, rows = config.denoiser.context_length, training.batch_size
    single_steps = training.single_step_count
    other_steps = training.steps - single_steps
    noise = partial(noise_segments, model.config, device=device)
    segments = noise(rows, context + training.predictions)
    dreamt = DreamtPast(
        model, 1.0, device, seed=0, levels=training.dreamt_levels, compile=training.compile
    )
    if single_steps > 0:
        single = noise(training.singles, context + 1, size=_square(training.crop))
        seconds = _time(lambda: trainer.step(single, None).denoiser)
        yield _TimedSteps("the denoiser, single frames", single_steps, seconds)
    later = segments
    if training.unrolled_crop is not None:
        seconds = _time(lambda: dreamt.windows(segments).obs.sum())
        yield _TimedSteps("dreaming what the denoiser learns from", other_steps, seconds)
        later = noise(
            rows * training.predictions + training.unrolled_singles,
            context + 1,
            size=_square(training.unrolled_crop),
        )
    alone = _time(lambda: trainer.step(later, None).denoiser)
    yield _TimedSteps("the denoiser", other_steps, alone)
    for_heads = noise(training.reward_end_batch_size, training.reward_end_length)
    every = training.reward_end_every
    if training.dreamt_for_heads > 0:
        seconds = _time(lambda: dreamt.frames(for_heads, training.dreamt_for_heads).obs.sum())
        yield _TimedSteps(
            "dreaming what the heads learn from", math.ceil(other_steps / every), seconds
        )
    both = _time(lambda: trainer.step(later, for_heads).denoiser)
    yield _TimedSteps("the heads", math.ceil(training.steps / every), max(0.0, both - alone))


def _square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)


def _time(act: Callable[[], Tensor]) -> float:
    """Returns the seconds of what ends in a tensor, []; the first time allocates, and compiles."""
    act().item()
    started = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        act().item()
    return (time.perf_counter() - started) / _TIMED_STEPS
