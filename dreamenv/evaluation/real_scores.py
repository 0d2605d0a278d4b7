"""How well a player plays the real game: raw scores of whole games."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from dreamenv.config import Config
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError
from dreamenv.evaluation.bootstrap import Estimate, estimate_mean
from dreamenv.real import RealVectorEnv, make_vector
from dreamenv.real.policy import Policy, to_channels_first


@dataclass(frozen=True)
class PlayConfig(Config):
    """What is played for scores.

    Attributes:
        episodes: How many whole games.
        num_envs: How many are played at once.
        seed: Of the games, and of the players' chance.
    """

    episodes: int = 30
    num_envs: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.num_envs < 1:
            raise ConfigError(
                f"episodes is {self.episodes} and num_envs {self.num_envs}; both must be at least 1"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")

    @property
    def games_of_slots(self) -> tuple[int, ...]:
        """How many games each of the slots plays, one after the other."""
        slots = min(self.num_envs, self.episodes)
        return tuple(len(range(slot, self.episodes, slots)) for slot in range(slots))


@dataclass(frozen=True)
class Game(Config):
    """A game that was played to its end.

    Attributes:
        score: The sum of its raw rewards, over all its lives.
        steps: How many it took.
        truncated: Whether the step limit ended it.
    """

    score: float
    steps: int
    truncated: bool


@dataclass(frozen=True)
class RealScores(Config):
    """The scores of one player.

    Attributes:
        player: Who.
        score: The mean score with its interval.
        games: All that it played.
    """

    player: str
    score: Estimate
    games: tuple[Game, ...]


def play_games(
    environment: EnvironmentSpec,
    policy: Policy,
    config: PlayConfig,
    *,
    player: str,
    on_step: Callable[[int], None] = lambda _: None,
) -> RealScores:
    """Plays whole games of the real environment; the loss of a life ends none.

    Which games count is fixed before any is played, a number for each slot: the first N to finish
    of all slots would be the short ones.

    Args:
        environment: What is played.
        policy: Who plays. It is told that an episode starts where a game does.
        config: How many games, and how.
        player: The player's name.
        on_step: Called at every step with the number of games that are finished; what it raises
            ends the playing.

    Raises:
        GameError: The environment cannot be made.
        InputError: The policy gave no actions of it.
    """
    env = make_vector(environment, len(config.games_of_slots), training=False)
    try:
        slots = _play(env, policy, config, on_step)
    finally:
        env.close()
    games = tuple(game for slot in slots for game in slot)
    return RealScores(player, estimate_mean([game.score for game in games]), games)


def scores_table(title: str, players: Sequence[RealScores]) -> Table:
    """Returns a table with a row for each player; scores and steps are means over its games."""
    columns = ("player", "games", "score [95% interval]", "lowest", "highest", "steps")
    table = Table(*columns, title=title)
    for each in players:
        scores = [game.score for game in each.games]
        table.add_row(
            each.player,
            str(len(scores)),
            str(each.score),
            f"{min(scores):g}",
            f"{max(scores):g}",
            f"{np.mean([game.steps for game in each.games]):.0f}",
        )
    return table


def _play(
    env: RealVectorEnv, policy: Policy, config: PlayConfig, on_step: Callable[[int], None]
) -> list[list[Game]]:
    """Plays until every slot has its games."""
    slots: list[list[Game]] = [[] for _ in config.games_of_slots]
    begun_at = np.zeros(len(slots), np.int64)
    frames, _ = env.reset(seed=config.seed)
    starts = np.ones(len(slots), np.bool_)
    step = finished = 0
    while finished < config.episodes:
        actions = policy.act(to_channels_first(frames), starts)
        frames, _, _, truncated, info = env.step(actions)
        step += 1
        starts = info["game_over"]
        for slot in np.flatnonzero(starts):
            # A slot that has its games plays on beside the others, and does not count.
            if len(slots[slot]) < config.games_of_slots[slot]:
                steps = int(step - begun_at[slot])
                game = Game(float(info["score"][slot]), steps, bool(truncated[slot]))
                slots[slot].append(game)
                finished += 1
        begun_at[starts] = step
        on_step(finished)
    return slots
