"""`dreamenv evaluate-model`: measure how faithful a world model is."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, UseAppendAction, arg

from dreamenv.cli.options import Counts, Levels
from dreamenv.devices import AUTO
from dreamenv.evaluation.evaluate_model import evaluate_model
from dreamenv.evaluation.fidelity import FidelityConfig
from dreamenv.training.policies import load_player


@dataclass(frozen=True)
class Options:
    """Measure how faithful a world model is, on the held-out episodes of a replay.

    Windows of them are dreamt open loop, along their own actions. Told are the PSNR of the frames
    by horizon, how often the ball is there when the real frame has one (in the games where that is
    known), and the precision and recall of rewards and ends. The figures go to fidelity.json, and
    real frames above dreamt ones to fidelity.png.

    Attributes:
        world_model: Folder of the world model; or its name or id, such as Breakout.
        data: Folder of a replay, as collect and fit-model make it.
        out: Folder of the figures and the picture, which replace older ones; by default
            evaluation/NAME.
        horizons: After how many dreamt steps figures are told.
        max_windows: At most so many windows are dreamt, spread over the held-out episodes.
        denoising_steps: Numbers of noise levels to compare with the world model's own, as in 1,2,3.
        denoising_levels: Noise levels to compare with them, falling, as in 80,20,5; may be
            given several times.
        pictured: How many windows are in the picture.
        players: Who plays dreams and the real game, so that what happens to them can be compared:
            random, module:function, the .zip of a saved agent, the folder of an actor-critic.
        seed: Of all chance.
        device: Where to compute: auto (CUDA, then MPS, then the CPU) or one by its name.
    """

    world_model: Positional[Annotated[str, arg(metavar="FOLDER")]]
    data: Path
    out: Path | None = None
    horizons: Counts = FidelityConfig.horizons
    max_windows: int = FidelityConfig.max_windows
    denoising_steps: Counts | None = None
    denoising_levels: UseAppendAction[tuple[Levels, ...]] = ()
    pictured: int = FidelityConfig.pictured
    players: tuple[str, ...] = ()
    seed: int = FidelityConfig.seed
    device: str = AUTO


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv evaluate-model`."""
    options = tyro.cli(Options, prog="dreamenv evaluate-model", args=list(arguments))
    config = FidelityConfig(
        horizons=options.horizons,
        max_windows=options.max_windows,
        denoising_steps=options.denoising_steps or (),
        denoising_levels=options.denoising_levels,
        pictured=options.pictured,
        seed=options.seed,
    )
    evaluate_model(
        options.world_model,
        options.data,
        config,
        Console(),
        out=options.out,
        device=options.device,
        players={name: partial(load_player, name, sample=True) for name in options.players},
        command=shlex.join(["dreamenv", "evaluate-model", *arguments]),
    )
