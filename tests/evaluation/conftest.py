"""Replays of the game of `counting`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamenv.data import Episode, Replay
from dreamenv.environment import EnvironmentSpec

from .counting import ENVIRONMENT, counting

MakeReplay = Callable[..., Replay]


@pytest.fixture
def make_replay(tmp_path: Path) -> MakeReplay:
    """Makes a replay of which the second and third of every four episodes are held out."""

    def make(*episodes: Episode, environment: EnvironmentSpec = ENVIRONMENT) -> Replay:
        replay = Replay.create(tmp_path / "replay", environment, held_out_every=2)
        replay.extend(episodes)
        return replay

    return make


@pytest.fixture
def replay(make_replay: MakeReplay) -> Replay:
    """Held out are levels 100 to 130 (20 steps, 10 of them jumps of 2) and 200 to 205 (5 steps)."""
    return make_replay(
        counting(10, [0] * 12),
        counting(100, [0, 1] * 10),
        counting(200, [0] * 5, terminated=False),
        counting(30, [1] * 12),
    )
