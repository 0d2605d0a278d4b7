"""How a player fares in a dream beside the real game: what it is paid, how often it ends.

Frames may look right and the game be wrong. Where a dream loses the ball as it bounces, a player
that follows the ball is worse off than chance, and nobody learns to follow it there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dreamenv.config import Config
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import Dream
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.bootstrap import Estimate, estimate_mean
from dreamenv.models.world_model import WorldModel
from dreamenv.real import make_vector
from dreamenv.real.policy import Flags, Policy, as_actions, to_channels_first

MakePolicy = Callable[[EnvironmentSpec], Policy]

_DREAMS, _GAMES = 64, 16  # at once


@dataclass(frozen=True)
class Rates(Config):
    """What happened to a player, each per 100 steps.

    Attributes:
        positive: Rewards above 0.
        negative: Rewards below 0.
        ends: Ends of episodes: in the game of a life, if it has lives; in a dream those that are
            predicted, its horizon not counted.
    """

    positive: Estimate
    negative: Estimate
    ends: Estimate


@dataclass(frozen=True)
class PlayerRates(Config):
    """How a player fares.

    Attributes:
        player: Who.
        steps: How many it played of either, all games or dreams together.
        dreamt: In dreams, which begin in the world model's contexts.
        real: In real games, from their beginnings on.
    """

    player: str
    steps: int
    dreamt: Rates
    real: Rates


def check_players(environment: EnvironmentSpec, players: Mapping[str, MakePolicy]) -> None:
    """Makes each player, and the real game where there is one to play it.

    Raises:
        DreamenvError: The game or a player cannot be made.
    """
    for make_policy in players.values():
        make_policy(environment)
    if players:
        make_vector(environment, 1, training=True).close()


def compare_play(
    world_model: WorldModel,
    contexts: Contexts,
    environment: EnvironmentSpec,
    player: str,
    make_policy: MakePolicy,
    *,
    horizon: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> PlayerRates:
    """Has a player play dreams of two horizons, and as many steps of the real game.

    Args:
        world_model: What is dreamt.
        contexts: Where dreams begin.
        environment: The real game.
        player: The player's name.
        make_policy: Makes the player anew, for the dreams and for the game.
        horizon: Steps after which a dream is truncated.
        seed: Of dreams and games.
        on_step: Called after every step, `count_play_steps` times in all.

    Raises:
        DreamenvError: The game cannot be made, or the player gave no actions of it.
    """
    dreams = _dream(world_model, contexts, make_policy(environment), horizon, seed)
    games = _play(environment, make_policy(environment), _game_steps(horizon), seed)
    steps = _DREAMS * 2 * horizon
    return PlayerRates(player, steps, _rates(dreams, on_step), _rates(games, on_step))


def count_play_steps(horizon: int) -> int:
    """Returns how often `compare_play` calls `on_step`."""
    return 2 * horizon + _game_steps(horizon)


class _Outcome(NamedTuple):
    """What a step came to, for each of N dreams or games."""

    rewards: npt.NDArray[np.floating]
    ends: Flags


def _dream(
    world_model: WorldModel, contexts: Contexts, policy: Policy, horizon: int, seed: int
) -> Iterator[_Outcome]:
    dream = Dream(world_model, contexts, _DREAMS, horizon=horizon)
    obs, starts = dream.reset(seed=seed), np.ones(_DREAMS, np.bool_)
    for _ in range(2 * horizon):
        actions = as_actions(policy.act(obs.cpu().numpy(), starts), _DREAMS)
        step = dream.step(torch.from_numpy(actions))  # on the CPU, where their range is checked
        obs, ends = step.obs, step.terminated.cpu().numpy()
        starts = ends | step.truncated.cpu().numpy()
        yield _Outcome(step.reward.cpu().numpy(), ends)


def _play(
    environment: EnvironmentSpec, policy: Policy, steps: int, seed: int
) -> Iterator[_Outcome]:
    env = make_vector(environment, _GAMES, training=True)
    try:
        frames, _ = env.reset(seed=seed)
        starts = np.ones(_GAMES, np.bool_)
        for _ in range(steps):
            actions = as_actions(policy.act(to_channels_first(frames), starts), _GAMES)
            frames, rewards, terminated, truncated, _ = env.step(actions)
            starts = terminated | truncated
            yield _Outcome(rewards, terminated)
    finally:
        env.close()


def _game_steps(horizon: int) -> int:
    """As many as those of the dreams, shared among the games."""
    return _DREAMS * 2 * horizon // _GAMES


def _rates(outcomes: Iterator[_Outcome], on_step: Callable[[], None]) -> Rates:
    rewards, ends = [], []
    for outcome in outcomes:
        rewards.append(outcome.rewards)
        ends.append(outcome.ends)
        on_step()
    paid = np.stack(rewards)  # [T, N]
    happened = (paid > 0, paid < 0, np.stack(ends))
    # A dream or a game, with all that began anew in it, is what was drawn by itself.
    return Rates(*(estimate_mean(100 * each.mean(axis=0)) for each in happened))
