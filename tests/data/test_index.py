import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamenv.data import Episode, EpisodeInfo, RewardSigns
from dreamenv.data.index import ReplayIndex
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError


@pytest.fixture
def index(environment: EnvironmentSpec) -> ReplayIndex:
    rewards = np.array([-1, 0, 2, 0.5, 0, 0], np.float32)
    episode = Episode(
        np.zeros((7, *environment.obs_shape), np.uint8), np.zeros(6, np.int64), rewards, True, False
    )
    info = EpisodeInfo.of(episode, number=3, held_out=True)
    return ReplayIndex(environment, held_out_every=7, episodes=(info,))


def test_an_episode_is_summed_up(index: ReplayIndex) -> None:
    assert index.episodes[0] == EpisodeInfo(
        number=3,
        length=6,
        total_reward=1.5,
        terminated=True,
        truncated=False,
        held_out=True,
        reward_signs=RewardSigns(negative=1, zero=3, positive=2),
    )


def test_the_index_comes_back_from_its_file_as_it_was(tmp_path: Path, index: ReplayIndex) -> None:
    index.write(tmp_path / "index.json")
    assert ReplayIndex.read(tmp_path / "index.json") == index


def test_a_folder_without_an_index_is_no_replay(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"{tmp_path}: not a replay"):
        ReplayIndex.read(tmp_path / "index.json")


def test_an_index_that_the_disk_does_not_give_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").mkdir()
    with pytest.raises(FormatError, match=r"index\.json: cannot be read \(Is a directory\); make"):
        ReplayIndex.read(tmp_path / "index.json")


def test_a_file_is_no_replay(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FormatError, match=f"{tmp_path}/file: not a replay"):
        ReplayIndex.read(tmp_path / "file" / "index.json")


def later_version(data: dict[str, Any]) -> str:
    return json.dumps(data | {"format_version": 2})


def unknown_field(data: dict[str, Any]) -> str:
    return json.dumps(data | {"colour": "red"})


def cut_short(data: dict[str, Any]) -> str:
    return json.dumps(data)[:-20]


def something_else(data: dict[str, Any]) -> str:
    return json.dumps(list(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (later_version, "format version 2, but this dreamenv reads 1"),
        (unknown_field, "colour: unknown field"),
        (cut_short, "not JSON"),
        (something_else, "not the index of a replay"),
    ],
)
def test_an_index_that_cannot_be_read_is_named(
    tmp_path: Path,
    index: ReplayIndex,
    change: Callable[[dict[str, Any]], str],
    message: str,
) -> None:
    path = tmp_path / "index.json"
    path.write_text(change(index.to_dict()))
    with pytest.raises(FormatError, match=rf"index\.json: .*{message}"):
        ReplayIndex.read(path)


@pytest.mark.parametrize("every", [1, 0, -3])
def test_holding_out_everything_is_refused(environment: EnvironmentSpec, every: int) -> None:
    with pytest.raises(ConfigError, match="held_out_every"):
        ReplayIndex(environment, held_out_every=every)


@pytest.mark.parametrize("lives", [3, 4, 5])
def test_each_life_of_a_game_is_held_out_sometime(environment: EnvironmentSpec, lives: int) -> None:
    index = ReplayIndex(environment, held_out_turns=True)
    held_out = [number for number in range(200) if index.holds_out(number)]
    assert held_out[:4] == [1, 12, 23, 34]
    assert [number // 10 for number in held_out] == list(range(20))
    assert {number % lives for number in held_out} == set(range(lives))


def test_without_a_turn_the_second_of_every_block_is_held_out(
    environment: EnvironmentSpec,
) -> None:
    index = ReplayIndex(environment)
    assert [number for number in range(30) if index.holds_out(number)] == [1, 11, 21]
