"""`dreamenv collect`: collect episodes of a real environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import arg

from dreamenv.real import describe
from dreamenv.training.collect import CollectConfig
from dreamenv.training.collect_run import collect_into


@dataclass(frozen=True)
class Options:
    """Collect episodes of a real environment into a replay.

    Run again with the same settings, it goes on where it was stopped; run with others, it adds to
    what is there.

    Attributes:
        env: The id of the environment, such as ALE/Pong-v5.
        out: Folder of the replay.
        config: What is collected.
        size: Height and width of a frame, or one number for both.
        sticky_actions: Probability that the emulator repeats the last action. Atari only.
    """

    env: str
    out: Path
    config: Annotated[CollectConfig, arg(name="")]
    size: tuple[int, int] | tuple[int] = (64,)
    sticky_actions: float = 0.0


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv collect`."""
    options = tyro.cli(Options, prog="dreamenv collect", args=list(arguments))
    size = (options.size[0], options.size[-1])
    environment = describe(options.env, size, sticky_actions=options.sticky_actions)
    collect_into(options.out, environment, options.config, Console())
