import pytest
import torch

from dreamenv.data import Replay
from dreamenv.errors import InputError
from dreamenv.evaluation.windows import Windows, spread_windows

from .conftest import MakeReplay
from .counting import LENGTH, counting


def spread_over(replay: Replay, horizon: int, max_windows: int) -> list[tuple[int, int, int]]:
    """Episode, start and length of each window."""
    windows = spread_windows(replay.tensors("cpu").rows, LENGTH, horizon, max_windows)
    columns = (windows.episodes, windows.starts, windows.lengths)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_where_all_fit_every_context_begins_one(replay: Replay) -> None:
    # 20 steps: contexts at 0, ..., 17 are followed by a step. 5 steps: at 0, 1, 2.
    expected = [(1, start, 1) for start in range(18)] + [(2, start, 1) for start in range(3)]
    assert spread_over(replay, 1, 1000) == expected


def test_windows_go_on_for_the_horizon_or_begin_where_the_episode_does(replay: Replay) -> None:
    windows = spread_over(replay, 10, 1000)
    # Frames 8, 9, 10 lead to ten steps more, the last frame being the twentieth.
    assert windows == [*((1, start, 10) for start in range(9)), (2, 0, 3)]


def test_fewer_stand_at_equal_distances(replay: Replay) -> None:
    # 21 places, 18 of them in the first of the two episodes: each third of all, from the middle.
    assert spread_over(replay, 1, 7) == [
        *((1, start, 1) for start in (1, 4, 7, 10, 13, 16)),
        (2, 1, 1),
    ]
    assert spread_over(replay, 1, 1) == [(1, 10, 1)]


def test_there_are_never_more_than_asked_for_and_no_two_alike(replay: Replay) -> None:
    for most in range(1, 25):
        for horizon in (1, 4, 17, 100):
            windows = spread_over(replay, horizon, most)
            assert 0 < len(windows) <= most
            assert len(set(windows)) == len(windows)


def test_only_held_out_episodes_have_windows(replay: Replay) -> None:
    assert {episode for episode, _, _ in spread_over(replay, 2, 1000)} == {1, 2}


def test_an_episode_without_a_step_after_a_context_has_none(make_replay: MakeReplay) -> None:
    replay = make_replay(counting(10, [0] * 9), counting(20, [0] * 2))
    with pytest.raises(InputError, match="no held-out episode has the 3 steps"):
        spread_over(replay, 5, 10)
    replay.extend([counting(30, [0] * 3), counting(10, [0] * 9)])
    assert spread_over(replay, 5, 10) == [(2, 0, 1)]


def test_without_held_out_episodes_there_are_none(make_replay: MakeReplay) -> None:
    with pytest.raises(InputError, match="no held_out episode"):
        spread_over(make_replay(counting(10, [0] * 9)), 5, 10)


def test_those_that_are_shown_are_long_and_apart() -> None:
    zeros = torch.zeros(6, dtype=torch.int64)
    windows = Windows(zeros, zeros, torch.tensor([5, 3, 5, 5, 5, 2]))
    assert windows.horizon == 5
    assert windows.spread(10).tolist() == [0, 2, 3, 4]
    assert windows.spread(2).tolist() == [2, 4]
    assert windows.rows(torch.tensor([1, 5])).lengths.tolist() == [3, 2]
    assert [len(part) for part in windows.split(4)] == [4, 2]
