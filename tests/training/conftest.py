"""A toy game, replays of it, and a world model small enough for a test."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from rich.console import Console

from dreamenv.data import Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel, WorldModelConfig
from dreamenv.real import describe
from dreamenv.training.collect import CollectConfig, collect

Frame = npt.NDArray[np.uint8]
NewReplay = Callable[..., Replay]
TinyModel = Callable[..., WorldModel]

SIDE = 16


@pytest.fixture
def console() -> Console:
    """Keeps what is printed."""
    return Console(file=io.StringIO(), width=200)


class Catch(gymnasium.Env[Frame, np.int64]):
    """A ball falls, and a bat under it moves left, stays or moves right: +1 caught, -1 missed."""

    observation_space = Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    action_space = Discrete(3)

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._row = int(self.np_random.integers(0, 9))
        self._column, self._bat = (int(place) for place in self.np_random.integers(2, 14, 2))
        return self._frame(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._row += 1
        self._bat = int(np.clip(self._bat + 2 * (int(action) - 1), 2, 13))
        landed = self._row == SIDE - 1
        caught = abs(self._bat - self._column) <= 2
        return self._frame(), (1.0 if caught else -1.0) * landed, landed, False, {}

    def _frame(self) -> Frame:
        frame = np.zeros((SIDE, SIDE, 3), np.uint8)
        frame[-1, self._bat - 2 : self._bat + 3, 1] = 255
        frame[self._row, self._column] = 255
        return frame


@pytest.fixture(scope="session")
def catch() -> Iterator[EnvironmentSpec]:
    """The toy game. Half of its games end by its rules, half by its limit of 10 steps."""
    gymnasium.register("Test/Catch-v0", Catch, max_episode_steps=10)
    yield describe("Test/Catch-v0", SIDE)
    del gymnasium.registry["Test/Catch-v0"]


@pytest.fixture
def new_replay(tmp_path: Path, catch: EnvironmentSpec) -> NewReplay:
    """Opens the replay of that name, or makes it: of the toy game, if of no other."""

    def make(name: str = "replay", environment: EnvironmentSpec = catch) -> Replay:
        return Replay.open_or_create(tmp_path / name, environment)

    return make


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory, catch: EnvironmentSpec) -> Replay:
    """300 random steps of the toy game. Not to be changed."""
    replay = Replay.create(tmp_path_factory.mktemp("played"), catch)
    collect(replay, CollectConfig(steps=300, num_envs=4))
    return replay


@pytest.fixture(scope="session")
def assert_same_replays() -> Callable[[Replay, Replay], None]:
    """Asserts that two replays have the same episodes, bit for bit, under the same numbers."""

    def check(one: Replay, other: Replay) -> None:
        assert one.infos == other.infos
        for mine, yours in zip(one.episodes(), other.episodes(), strict=True):
            np.testing.assert_array_equal(mine.obs, yours.obs)
            np.testing.assert_array_equal(mine.actions, yours.actions)
            np.testing.assert_array_equal(mine.rewards, yours.rewards)

    return check


@pytest.fixture(scope="session")
def tiny_model() -> TinyModel:
    """Makes world models of the toy game, of a few thousand weights, learning frames or changes."""
    levels: dict[str, Any] = {"channels": (8, 8), "depths": (1, 1), "attention": (False, False)}
    config = WorldModelConfig(
        num_actions=3,
        obs_shape=(3, SIDE, SIDE),
        denoiser=DenoiserConfig(context_length=2, cond_channels=16, **levels),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=16, **levels),
    )
    change = replace(
        config,
        denoiser=replace(config.denoiser, target="change", sigma_data=1.0, sigma_offset=0.0),
        sampler=SamplerConfig(sigmas=(20.0, 5.0), scale_start=True),
    )

    def make(target: str = "frame", seed: int = 0) -> WorldModel:
        torch.manual_seed(seed)
        return WorldModel(config if target == "frame" else change)

    return make
