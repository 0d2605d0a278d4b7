"""`dreamenv evaluate-agent`: have an agent play the real game."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from dreamenv.evaluation.real_scores import PlayConfig
from dreamenv.real import describe
from dreamenv.training.evaluate_agent import evaluate_agent


@dataclass(frozen=True)
class Options:
    """Have an agent play whole games of a real environment, and random play beside it.

    The scores are raw, and the loss of a life ends no game.

    Attributes:
        agent: Who plays: the .zip of a saved agent, the folder of an actor-critic (by itself or
            with its world model), module:function, or random.
        env: The id of the environment, such as ALE/Breakout-v5.
        config: How many games, and how.
        sample: Play as an agent does at the end of its training: draw actions from its
            distribution, or take random ones with its final ε. Without, always the likeliest
            action, by which some agents stand still for ever.
        size: Height and width of the frames that it was trained on, or one number for both.
        sticky_actions: Probability that the emulator repeats the last action. Atari only.
        out: File for the scores, as JSON.
    """

    agent: Positional[Annotated[str, arg(metavar="AGENT")]]
    env: str
    config: Annotated[PlayConfig, arg(name="")]
    sample: bool = True
    size: tuple[int, int] | tuple[int] = (64,)
    sticky_actions: float = 0.0
    out: Path | None = None


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv evaluate-agent`."""
    options = tyro.cli(Options, prog="dreamenv evaluate-agent", args=list(arguments))
    size = (options.size[0], options.size[-1])
    environment = describe(options.env, size, sticky_actions=options.sticky_actions)
    evaluate_agent(
        options.agent,
        environment,
        options.config,
        Console(),
        sample=options.sample,
        out=options.out,
    )
