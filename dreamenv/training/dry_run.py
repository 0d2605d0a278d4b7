"""What fitting a world model would do, and how long it would take here."""

import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dreamenv.data import Segments
from dreamenv.devices import resolve_device
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.world_model import WorldModel
from dreamenv.progress import format_seconds
from dreamenv.real import make_vector
from dreamenv.registration import home
from dreamenv.training.fit_config import FitModelConfig, architecture
from dreamenv.training.fit_model import check_plan
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
    model = WorldModel(architecture(config, environment))
    for part in ("denoiser", "reward_end"):
        count = sum(parameter.numel() for parameter in model.get_submodule(part).parameters())
        table.add_row(f"parameters, {part}", f"{count:,}")
    seconds = _time_a_step(model, config, device)
    training = config.training
    table.add_row(f"a training step on {device}", f"{seconds:.3f} s")
    table.add_row(f"fitting, {training.steps:,} steps", format_seconds(seconds * training.steps))
    table.add_row("in all, about", format_seconds(collecting + seconds * training.steps))
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


def _time_a_step(model: WorldModel, config: FitModelConfig, device: torch.device) -> float:
    training = config.training
    trainer = WorldModelTrainer(model, training, device)
    length = config.denoiser.context_length + training.predictions
    batches = (
        _noise_segments(model, training.batch_size, length, device),
        _noise_segments(model, training.reward_end_batch_size, training.reward_end_length, device),
    )
    _wait_for(trainer, batches)  # The first step allocates, and compiles where asked to.
    started = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        _wait_for(trainer, batches)
    return (time.perf_counter() - started) / _TIMED_STEPS


def _wait_for(trainer: WorldModelTrainer, batches: tuple[Segments, Segments]) -> None:
    trainer.step(*batches).denoiser.item()


def _noise_segments(model: WorldModel, rows: int, length: int, device: torch.device) -> Segments:
    shape = (rows, length)
    return Segments(
        obs=torch.randint(0, 256, (*shape, *model.config.obs_shape), dtype=torch.uint8).to(device),
        actions=torch.zeros(shape, dtype=torch.int64, device=device),
        rewards=torch.zeros(shape, device=device),
        ends=torch.zeros(shape, dtype=torch.bool, device=device),
        mask=torch.ones(shape, dtype=torch.bool, device=device),
    )
