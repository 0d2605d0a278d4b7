"""`dreamenv zoo`: make a world model again from nothing."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

from dreamenv.training.build_world import BuildConfig, build_world


@dataclass(frozen=True)
class Options:
    """Make a world model of the zoo again from nothing, by its recipe.

    It goes on where it was stopped when the same command is run again. What a GPU does in minutes
    would take a CPU a day: on a CPU a recipe may have other fits, of hours.

    Attributes:
        action: What to do.
        name: Of the recipe, such as Breakout, and of the world model.
        out: Folder of the episodes and of the run; by default runs/zoo/NAME.
        steps: Training steps of each fit, where they are not to be the recipe's.
        compile: Whether to compile the networks, which takes a C++ compiler, where that is not to
            be as in the recipe.
        device: Where to fit: auto (CUDA, then MPS, then the CPU) or one by its name.
        overwrite: Fit anew where that was begun, and replace a world model of that name; episodes
            that were collected are kept.
    """

    action: Positional[Literal["build"]]
    name: Positional[str]
    out: str | None = None
    steps: int | None = None
    compile: bool | None = None
    device: str = BuildConfig.device
    overwrite: bool = False


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv zoo`."""
    options = tyro.cli(Options, prog="dreamenv zoo", args=list(arguments))
    config = BuildConfig(options.name, options.out, options.steps, options.compile, options.device)
    kept = [word for word in arguments if word != "--overwrite"]
    build_world(
        config,
        Console(),
        overwrite=options.overwrite,
        command=shlex.join(["dreamenv", "zoo", *kept]),
    )
