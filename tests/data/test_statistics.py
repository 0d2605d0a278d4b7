from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.data import Episode, Replay, change_std, statistics
from dreamenv.data.statistics import mean_squared_change
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError

MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]


@pytest.mark.parametrize("max_memory", [None, 0])
def test_the_change_is_measured_within_the_episodes_trained_on(
    make_replay: MakeReplay, make_episode: MakeEpisode, max_memory: int | None
) -> None:
    lengths = (3, 200, 1, 300, 70)
    replay = make_replay(*lengths, max_memory=max_memory)
    changes = [
        np.diff(make_episode(length, seed).obs.astype(np.float64) / 255 * 2 - 1, axis=0).ravel()
        for seed, length in enumerate(lengths)
        if seed != 1
    ]
    assert change_std(replay, "cpu") == pytest.approx(np.concatenate(changes).std(), rel=1e-9)


def test_frames_that_never_change_have_no_spread(
    make_replay: MakeReplay, environment: EnvironmentSpec
) -> None:
    replay = make_replay()
    still = np.full((4, *environment.obs_shape), 7, np.uint8)
    replay.append(Episode(still, np.zeros(3, np.int64), np.zeros(3, np.float32), True, False))
    assert change_std(replay, "cpu") == 0


def test_there_must_be_an_episode_to_measure(make_replay: MakeReplay) -> None:
    with pytest.raises(InputError, match="no train episode"):
        change_std(make_replay(), "cpu")


def test_each_pixel_has_its_own_mean_squared_change(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 200, 300)  # the second is held out
    squares = [
        np.diff(make_episode(length, seed).obs.astype(np.float64), axis=0) ** 2
        for seed, length in ((0, 3), (2, 300))
    ]
    expected = np.concatenate(squares).mean(axis=(0, 1))  # over steps and channels
    measured = mean_squared_change(replay, "cpu")
    assert measured.numpy() == pytest.approx(expected, rel=1e-6)


def test_a_device_needs_no_float64(
    on_mps: type[Tensor], make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = make_replay(3, 20, 30)
    expected = mean_squared_change(replay, "cpu")
    total, squares, count = statistics._sums(replay, "cpu")
    there = total.as_subclass(on_mps), squares.as_subclass(on_mps), count
    monkeypatch.setattr(statistics, "_sums", lambda *_: there)
    assert torch.equal(mean_squared_change(replay, "cpu"), expected)
