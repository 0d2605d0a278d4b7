"""`dreamenv train-agent`: train an agent in a dream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import arg

from dreamenv.training.train_agent import TrainAgentConfig, train_agent


@dataclass(frozen=True)
class Options:
    """Train an agent in a dream, and have it play the real game before and after.

    It leaves the agent as stable-baselines3 saves it, its curves, its scores, and a film of it.

    Attributes:
        config: Which agent, and in which dream.
        overwrite: Replace an agent in the folder.
    """

    config: Annotated[TrainAgentConfig, arg(name="")]
    overwrite: bool = False


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv train-agent`."""
    options = tyro.cli(Options, prog="dreamenv train-agent", args=list(arguments))
    train_agent(options.config, Console(), overwrite=options.overwrite)
