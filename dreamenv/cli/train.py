"""`dreamenv train`: learn to play in imagination."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

import tyro
from rich.console import Console
from tyro.conf import arg

from dreamenv.training.loop import train
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_dry_run import loop_dry_run
from dreamenv.training.loop_presets import LoopPresetName, loop_preset


@dataclass(frozen=True)
class Options:
    """Learn to play in imagination: collect, refresh the world model, train the agent in it.

    Attributes:
        config: Who learns to play what, and how.
        preset: Where the settings start from.
        resume: Go on with the run that was begun with the same settings.
        overwrite: Replace the run.
        dry_run: Print what it would cost here, from timed steps, and leave nothing behind.
    """

    config: Annotated[TrainConfig, arg(name="")]
    preset: LoopPresetName = "atari100k"
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """Reads the options of `train`; the preset named among them sets the defaults."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", default=Options.preset)
    finder.add_argument("--env")
    found = finder.parse_known_args(arguments)[0]
    # What is unknown or missing is left to the parser below, which says what there is.
    name = found.preset if found.preset in get_args(LoopPresetName) else Options.preset
    default = Options(loop_preset(name, found.env or tyro.MISSING))
    return tyro.cli(Options, prog="dreamenv train", args=list(arguments), default=default)


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv train`."""
    options, console = parse(arguments), Console()
    if options.dry_run:
        loop_dry_run(options.config, console)
        return
    kept = [word for word in arguments if word not in ("--resume", "--overwrite")]
    train(
        options.config,
        console,
        resume=options.resume,
        overwrite=options.overwrite,
        command=shlex.join(["dreamenv", "train", *kept]),
    )
