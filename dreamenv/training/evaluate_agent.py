"""How well a player plays the real game, beside random play."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from dreamenv.config import Config
from dreamenv.data.disk import naming_disk_errors
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.real_scores import PlayConfig, RealScores, scores_table
from dreamenv.files import atomic_file
from dreamenv.progress import say
from dreamenv.training.policies import RANDOM, load_player
from dreamenv.training.train_agent import play_with_progress


@dataclass(frozen=True)
class AgentScores(Config):
    """The scores of a player in the real game.

    Attributes:
        dreamenv: The version.
        environment: The real game.
        settings: How it was played.
        sample: Whether the player drew its actions.
        players: The player, and random play; or that alone.
    """

    dreamenv: str
    environment: EnvironmentSpec
    settings: PlayConfig
    sample: bool
    players: tuple[RealScores, ...]


def evaluate_agent(
    player: str,
    environment: EnvironmentSpec,
    config: PlayConfig,
    console: Console,
    *,
    sample: bool = True,
    out: Path | None = None,
) -> AgentScores:
    """Has a player play whole real games, and random play as many.

    Args:
        player: See `load_policy`.
        environment: The real game.
        config: How many games, and how.
        console: Where progress and the table are shown.
        sample: Whether an agent draws its actions; see `AgentPolicy`.
        out: File for the scores, as JSON.

    Raises:
        DreamenvError: There is no such player or game, or the file cannot be written.
    """
    policies = {
        name: load_player(name, environment, sample=sample, seed=config.seed)
        for name in dict.fromkeys((player, RANDOM))
    }
    if out is not None:
        with naming_disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
    players = tuple(
        play_with_progress(environment, policy, config, console, player=name)
        for name, policy in policies.items()
    )
    scores = AgentScores(version("dreamenv"), environment, config, sample, players)
    console.print(scores_table(f"{environment.id}, raw scores", players))
    if out is not None:
        with naming_disk_errors(out), atomic_file(out) as beside:
            beside.write_text(json.dumps(scores.to_dict(), indent=2) + "\n")
        say(console, f"scores: {out}")
    return scores
