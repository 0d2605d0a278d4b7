"""`dreamenv bench`: measure how fast a world model dreams and trains."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.constructors import PrimitiveConstructorSpec

from dreamenv.cli.options import Counts
from dreamenv.devices import AUTO
from dreamenv.evaluation.dream_speed import DreamSpeedConfig
from dreamenv.evaluation.speed_figure import check_figure_path, save_speed_figure
from dreamenv.progress import say
from dreamenv.training.measure_speed import measure_speed
from dreamenv.training.presets import PresetName
from dreamenv.training.speed import SpeedConfig
from dreamenv.training.speed_report import tables


def _file_of(words: list[str]) -> tuple[Path, ...]:
    if len(words) > 1:
        raise ValueError(f"one file, not {len(words)}")
    return tuple(map(Path, words))


# An option that may stand alone; then it is ().
_Plot = Annotated[
    tuple[Path, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[FILE]",
        instance_from_str=_file_of,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda files: [str(file) for file in files],
    ),
]


@dataclass(frozen=True)
class Options:
    """Measure how fast a world model dreams, and how fast its networks train.

    Every figure stands beside that of the reference path of the same weights (float32, contiguous,
    eager, no graph), timed in turn with it in the same run: medians and their ratio.

    Attributes:
        preset: Whose architecture, with random weights, for frames of 64 x 64 and 4 actions; and
            with whose settings training steps are timed.
        world_model: A world model in the place of that architecture: a name or id, such as
            Breakout, or a folder.
        num_envs: Numbers of dreams at once.
        denoising_steps: How many noise levels a frame of the timed dreams is drawn with; by default
            those of the world model.
        compile: Compile the networks of the fast path, minutes for each number of dreams and for
            each kind of training step, and tell its figures without that beside those with it.
        seconds: How long each row of figures is timed, at least one step of each path.
        training: Whether to time training steps as well.
        faces: Time the faces of so many dreams, too, as Gymnasium and Stable-Baselines3 see them,
            beside the dreams alone.
        device: Where to compute: auto (CUDA, then MPS, then the CPU) or one by its name.
        json: Print the figures as one JSON object instead of tables.
        plot: Draw frames a second and peak memory over the number of dreams, as PNG; without a
            file, to bench-NAME.png.
    """

    preset: PresetName = SpeedConfig.preset
    world_model: str | None = None
    num_envs: Counts = DreamSpeedConfig.num_envs
    denoising_steps: int | None = None
    compile: bool = False
    seconds: float = DreamSpeedConfig.seconds
    training: bool = True
    faces: int | None = None
    device: str = AUTO
    json: bool = False
    plot: _Plot | None = None


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv bench`."""
    options = tyro.cli(Options, prog="dreamenv bench", args=list(arguments))
    config = SpeedConfig(
        preset=options.preset,
        world_model=options.world_model,
        dream=DreamSpeedConfig(
            options.num_envs, options.denoising_steps, options.seconds, options.compile
        ),
        training=options.training,
        faces=options.faces,
        device=options.device,
    )
    plot = _plot_file(options.plot, config)
    progress = Console(stderr=True)
    command = shlex.join(["dreamenv", "bench", *arguments])
    speed = measure_speed(config, progress, command=command)
    if options.json:
        sys.stdout.write(json.dumps(speed.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        console = Console()
        for table in tables(speed):
            console.print(table)
    if plot is not None:
        save_speed_figure(plot, speed.dream, f"{speed.name}: {speed.machine}")
        say(progress, f"figure: {plot}")


def _plot_file(plot: tuple[Path, ...] | None, config: SpeedConfig) -> Path | None:
    if plot is None:
        return None
    file = next(iter(plot), Path(f"bench-{config.name}.png"))
    check_figure_path(file)
    return file
