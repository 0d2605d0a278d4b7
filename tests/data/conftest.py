from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dreamenv.data import Episode, Replay
from dreamenv.environment import EnvironmentSpec

MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]

OBS_SHAPE = (2, 3, 4)
NUM_ACTIONS = 5


@pytest.fixture(scope="session")
def environment() -> EnvironmentSpec:
    return EnvironmentSpec(
        id="Test/Grid-v0",
        obs_shape=OBS_SHAPE,
        action_meanings=tuple(f"action {number}" for number in range(NUM_ACTIONS)),
    )


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    """Random episodes whose frames say where they belong: their first bytes are seed and step."""

    def make(
        length: int, seed: int = 0, terminated: bool = True, truncated: bool = False
    ) -> Episode:
        rng = np.random.default_rng(seed)
        obs = rng.integers(0, 256, (length + 1, *OBS_SHAPE), dtype=np.uint8)
        obs[:, 0, 0, 0] = seed
        obs[:, 0, 0, 1] = np.arange(length + 1)
        return Episode(
            obs=obs,
            actions=rng.integers(0, NUM_ACTIONS, length),
            rewards=rng.integers(-1, 2, length).astype(np.float32),
            terminated=terminated,
            truncated=truncated,
        )

    return make


@pytest.fixture
def make_replay(
    tmp_path: Path, environment: EnvironmentSpec, make_episode: MakeEpisode
) -> MakeReplay:
    """A replay whose episode number n has `lengths[n]` steps and the seed n."""

    def make(*lengths: int, name: str = "replay", max_memory: int | None = None) -> Replay:
        replay = Replay.create(tmp_path / name, environment, max_memory=max_memory)
        replay.extend(make_episode(length, seed) for seed, length in enumerate(lengths))
        return replay

    return make


@pytest.fixture(scope="session")
def same_episodes() -> Callable[[Episode, Episode], None]:
    """Asserts that two episodes are equal, types included."""

    def check(one: Episode, other: Episode) -> None:
        for name in ("obs", "actions", "rewards"):
            expected, got = getattr(one, name), getattr(other, name)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
        assert (one.terminated, one.truncated) == (other.terminated, other.truncated)

    return check
