"""`dreamenv fit-model`: fit a world model to a real environment."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

import tyro
from rich.console import Console
from tyro.conf import arg

from dreamenv.evaluation.world_folder import world_folder
from dreamenv.models.world_model import WorldModelConfig, read_description
from dreamenv.training.dry_run import dry_run
from dreamenv.training.fit_config import FitModelConfig
from dreamenv.training.fit_model import fit_model
from dreamenv.training.presets import Preset, PresetName, preset


@dataclass(frozen=True)
class Options:
    """Fit a world model to a real environment.

    Attributes:
        config: What is fitted, and how.
        preset: Where the settings of the networks and of their training start from.
        resume: Go on with the run that was begun with the same settings.
        overwrite: Replace the run, and the world model of that name.
        dry_run: Print what would be done and how long it would take, and leave nothing behind.
    """

    config: Annotated[FitModelConfig, arg(name="")]
    preset: PresetName = "small"
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """Reads the options of `fit-model`.

    The preset named among them sets the defaults; those of the networks a world model to begin
    with, where there is one.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", default=Options.preset)
    finder.add_argument("--begin-with", "--begin_with")
    named = finder.parse_known_args(arguments)[0]
    # An unknown name is left to the parser below, which lists the known ones.
    start = preset(named.preset if named.preset in get_args(PresetName) else Options.preset)
    networks: Preset | WorldModelConfig = start
    if named.begin_with is not None:
        networks = read_description(world_folder(named.begin_with))[0]
    config = FitModelConfig(
        training=start.training,
        denoiser=networks.denoiser,
        reward_end=networks.reward_end,
        sampler=networks.sampler,
    )
    return tyro.cli(
        Options, prog="dreamenv fit-model", args=list(arguments), default=Options(config)
    )


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv fit-model`."""
    options, console = parse(arguments), Console()
    if options.dry_run:
        dry_run(options.config, console, resume=options.resume, overwrite=options.overwrite)
        return
    kept = [word for word in arguments if word not in ("--resume", "--overwrite")]
    fit_model(
        options.config,
        console,
        resume=options.resume,
        overwrite=options.overwrite,
        command=shlex.join(["dreamenv", "fit-model", *kept]),
    )
