"""Measuring how fast a world model dreams and trains: from its name, or a preset's, to figures."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console

from dreamenv.devices import computes_in_bf16, resolve_device
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.dream_speed import MeasureMemory, Work, count_flops, time_dreams
from dreamenv.evaluation.face_speed import FaceSpeed, time_faces
from dreamenv.evaluation.machine import Machine, measure_ceiling
from dreamenv.evaluation.peak_memory import dream_memory
from dreamenv.evaluation.world_folder import world_folder
from dreamenv.models.presets import ATARI_SHAPE
from dreamenv.models.world_model import WorldModel, WorldModelConfig
from dreamenv.progress import say
from dreamenv.training.noise import noise_contexts
from dreamenv.training.presets import Preset, preset
from dreamenv.training.speed import Speed, SpeedConfig
from dreamenv.training.training_speed import TrainingPlan, TrainingSpeed, check_plan, time_training

_PRESET_ACTIONS = 4  # as many as Breakout has
_PRESET_CONTEXTS = 64
_CEILING_SECONDS = 2.0


def measure_speed(
    config: SpeedConfig,
    progress: Console,
    *,
    command: str = "",
    memory: MeasureMemory = dream_memory,
) -> Speed:
    """Times dreams and training steps, each beside the reference path of the same weights.

    Args:
        config: What is timed.
        progress: Where is shown what is done at the moment.
        command: The command line, for the figures.
        memory: Measures the memory of dreams.

    Raises:
        FormatError: There is no such world model, or it is damaged.
        ConfigError: The settings do not fit the world model.
        InputError: The device is not there.
        DreamenvError: Memory does not suffice for so many dreams.
    """
    device = resolve_device(config.device)
    chosen = preset(config.preset)
    with _opened(config, chosen) as folder:
        path = DreamPath(
            folder,
            str(device),
            denoising_steps=config.dream.denoising_steps,
            compile=config.dream.compile,
        )
        plan = TrainingPlan(chosen.training) if config.training else None
        return _measure(config, path, plan, progress, command, memory)


def _measure(
    config: SpeedConfig,
    path: DreamPath,
    plan: TrainingPlan | None,
    progress: Console,
    command: str,
    memory: MeasureMemory,
) -> Speed:
    one = path.reference.open(1)
    architecture = one.world_model.config
    if plan is not None:
        check_plan(architecture, plan)
    device = torch.device(path.device)
    dtype = torch.bfloat16 if computes_in_bf16(device) else torch.float32
    seconds = config.dream.seconds
    say(progress, "products of matrices")
    ceiling = measure_ceiling(device, dtype, min(seconds, _CEILING_SECONDS))
    work = Work(count_flops(path), ceiling.flops)
    dreams = []
    for num_envs in config.dream.num_envs:
        say(progress, f"dreams, {num_envs} at once")
        row = time_dreams(path, num_envs, seconds, work, memory)
        # At once: whoever stops it, or runs out of time, keeps the rows so far.
        say(progress, f"{row.fps:.1f} frames a second, reference {row.reference_fps:.1f}")
        dreams.append(row)
    faces: tuple[FaceSpeed, ...] = ()
    if config.faces is not None:
        say(progress, f"the faces of {config.faces} dreams")
        faces = tuple(time_faces(path, config.faces, seconds))
    training: tuple[TrainingSpeed, ...] = ()
    if plan is not None:
        say(progress, "steps of training")
        training = tuple(time_training(path, plan, seconds))
    return Speed(
        dreamenv=version("dreamenv"),
        command=command,
        name=config.name,
        settings=config,
        machine=Machine.of(device),
        dtype=ceiling.dtype,
        obs_shape=architecture.obs_shape,
        num_actions=architecture.num_actions,
        parameters=sum(weights.numel() for weights in one.world_model.parameters()),
        denoiser_evaluations=one.sampler.num_evaluations,
        flops_per_frame=work.flops_per_frame,
        ceiling=ceiling,
        dream=tuple(dreams),
        training=training,
        faces=faces,
    )


@contextmanager
def _opened(config: SpeedConfig, chosen: Preset) -> Iterator[Path]:
    """Yields the folder of the world model; that of a preset is gone afterwards."""
    if config.world_model is not None:
        yield world_folder(config.world_model)
        return
    architecture = WorldModelConfig(
        num_actions=_PRESET_ACTIONS,
        obs_shape=ATARI_SHAPE,
        denoiser=chosen.denoiser,
        reward_end=chosen.reward_end,
        sampler=chosen.sampler,
    )
    contexts = noise_contexts(architecture, _PRESET_CONTEXTS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / config.preset
        WorldModel(architecture).save(folder, also=contexts.save)
        yield folder
