import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamenv.data import Episode, Replay
from dreamenv.data.replay import first_steps
from dreamenv.data.storage import MappedStore
from dreamenv.data.tensors import PADDING_ROW, ReplayTensors, Rows
from dreamenv.errors import DreamenvError, InputError
from dreamenv.padding import PADDING_LEVEL

MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]

in_memory_and_mapped = pytest.mark.parametrize("max_memory", [None, 100])


def columns(rows: Rows) -> dict[str, torch.Tensor]:
    return {name: column.clone() for name, column in vars(rows).items()}


def assert_same_rows(rows: Rows, expected: dict[str, torch.Tensor]) -> None:
    for name, column in expected.items():
        torch.testing.assert_close(getattr(rows, name), column, rtol=0, atol=0)


def test_rows_hold_every_frame_and_the_step_taken_from_it(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    tensors = ReplayTensors((2, 3, 4), torch.device("cpu"), tmp_path)
    terminated, truncated = make_episode(3), make_episode(2, terminated=False, truncated=True)
    tensors.append(terminated, held_out=False)
    tensors.append(truncated, held_out=True)
    rows = tensors.rows
    assert rows.first_rows.tolist() == [1, 5]
    assert rows.lengths.tolist() == [3, 2]
    assert rows.held_out.tolist() == [False, True]
    assert np.array_equal(rows.frames[1:5].numpy(), terminated.obs)
    assert np.array_equal(rows.frames[5:8].numpy(), truncated.obs)
    assert rows.actions.tolist() == [0, *terminated.actions, 0, *truncated.actions, 0]
    assert rows.rewards.tolist() == [0, *terminated.rewards, 0, *truncated.rewards, 0]
    assert rows.ends.nonzero().flatten().tolist() == [3]
    assert rows.is_step.tolist() == [False, True, True, True, False, True, True, False]


def test_rows_count_the_steps_since_the_last_reward_of_their_episode(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    def paying(*rewards: float) -> Episode:
        return replace(make_episode(len(rewards)), rewards=np.array(rewards, np.float32))

    tensors = ReplayTensors((2, 3, 4), torch.device("cpu"), tmp_path)
    for rewards in [(0, 5, 0, -0.5, 0), (0, 0), (-1, 1)]:
        tensors.append(paying(*rewards), held_out=False)
    padding, first, second, third = [0], [0, 0, 1, 2, -1, -2], [0, 0, 0], [0, -1, 1]
    assert tensors.rows.since_reward.tolist() == [*padding, *first, *second, *third]
    # The frame before the first step that is dropped keeps its count.
    tensors.truncate(1, 4)
    assert tensors.rows.since_reward.tolist() == [*padding, *first[:5]]


def test_the_padding_row_is_grey_and_empty(make_replay: MakeReplay) -> None:
    rows = make_replay(3).tensors("cpu").rows
    assert (rows.frames[PADDING_ROW] == PADDING_LEVEL).all()
    assert not rows.is_step[PADDING_ROW]
    assert not rows.ends[PADDING_ROW]


def test_rows_stay_as_they_were_while_episodes_are_appended(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 4)
    tensors = replay.tensors("cpu")
    early = tensors.rows
    frames = early.frames.clone()
    for seed in range(2, 30):
        replay.append(make_episode(5, seed))
    assert torch.equal(early.frames, frames)
    assert early.lengths.tolist() == [3, 4]
    assert tensors.rows.lengths.tolist() == [3, 4, *[5] * 28]


def test_a_split_without_episodes_is_refused_by_name(make_replay: MakeReplay) -> None:
    rows = make_replay(3).tensors("cpu").rows
    assert rows.episodes("train").tolist() == [0]
    with pytest.raises(InputError, match="no held_out episode"):
        rows.episodes("held_out")


def test_rows_are_the_same_in_memory_and_on_the_disk(make_replay: MakeReplay) -> None:
    lengths = (3, 9, 1, 14)
    in_memory = make_replay(*lengths).tensors("cpu")
    mapped = make_replay(*lengths, name="mapped", max_memory=100).tensors("cpu")
    assert in_memory.in_memory
    assert not mapped.in_memory
    assert torch.equal(in_memory.rows.frames, mapped.rows.frames)
    assert torch.equal(in_memory.rows.actions, mapped.rows.actions)


def test_a_disk_that_is_full_of_frames_is_one_line_and_the_replay_is_whole(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    replay = make_replay(3, 4, max_memory=100)
    tensors = replay.tensors("cpu")
    monkeypatch.setattr(MappedStore, "append", no_space)
    with pytest.raises(DreamenvError, match="the disk is full"):
        replay.append(make_episode(5))
    assert tensors.rows.lengths.tolist() == [3, 4]
    assert Replay.open(replay.folder).lengths == (3, 4, 5)


@in_memory_and_mapped
def test_rows_of_an_episode_that_grew_are_those_of_one_appended_whole(
    make_replay: MakeReplay, make_episode: MakeEpisode, max_memory: int | None
) -> None:
    whole = make_episode(20, seed=1)
    replay = make_replay(3, max_memory=max_memory)
    tensors = replay.tensors("cpu")
    replay.append(first_steps(whole, 5))
    for steps in (6, 19):
        replay.grow_last(first_steps(whole, steps))
        assert not tensors.rows.ends[5:].any()
    replay.grow_last(whole)
    replay.append(make_episode(4, seed=2))
    assert tensors.in_memory == (max_memory is None)
    assert_same_rows(tensors.rows, columns(make_replay(3, 20, 4, name="whole").tensors("cpu").rows))


@in_memory_and_mapped
def test_rows_stay_as_they_were_while_an_episode_grows(
    make_replay: MakeReplay, make_episode: MakeEpisode, max_memory: int | None
) -> None:
    whole = make_episode(60, seed=1)
    replay = make_replay(3, max_memory=max_memory)
    replay.append(first_steps(whole, 5))
    early = replay.tensors("cpu").rows
    expected = columns(early)
    for steps in range(6, 60):
        replay.grow_last(first_steps(whole, steps))
        assert replay.tensors("cpu").rows is not early
    assert_same_rows(early, expected)


def test_growing_seldom_moves_the_frames_that_are_there(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    whole = make_episode(255)
    tensors = ReplayTensors((2, 3, 4), torch.device("cpu"), tmp_path)
    tensors.append(first_steps(whole, 1), held_out=False)
    places = set()
    for steps in range(2, 255):
        tensors.grow_last(first_steps(whole, steps))
        places.add(tensors.rows.frames.data_ptr())
    assert len(places) <= 9


@in_memory_and_mapped
@pytest.mark.parametrize("steps", [0, 1, 3, 5, 7])
def test_rows_of_a_replay_that_went_back_are_those_of_one_that_had_not_gone_on(
    make_replay: MakeReplay, make_episode: MakeEpisode, max_memory: int | None, steps: int
) -> None:
    replay = make_replay(3, 4, 5, max_memory=max_memory)
    tensors = replay.tensors("cpu")
    early = tensors.rows
    before, kept = columns(early), steps + 1 + (steps > 3)
    replay.truncate(steps)
    assert_same_rows(tensors.rows, columns(Replay.open(replay.folder).tensors("cpu").rows))
    replay.append(make_episode(6, seed=9))
    assert_same_rows(tensors.rows, columns(Replay.open(replay.folder).tensors("cpu").rows))
    # Only frames that were dropped were overwritten.
    before["frames"] = before["frames"][:kept]
    assert torch.equal(early.frames[:kept], before.pop("frames"))
    assert_same_rows(early, before)
