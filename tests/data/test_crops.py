from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.data import Cropper, Episode, Replay, Segments
from dreamenv.data.statistics import mean_squared_change
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError

MakeReplay = Callable[..., Replay]

CPU = torch.device("cpu")
SIZE, HEIGHT, WIDTH = 4, 12, 16


@pytest.fixture
def environment(environment: EnvironmentSpec) -> EnvironmentSpec:
    """Frames wider than high, so that no one takes rows for columns."""
    return replace(environment, obs_shape=(3, HEIGHT, WIDTH))


@pytest.fixture
def usual_change(make_replay: MakeReplay, environment: EnvironmentSpec) -> Tensor:
    """Of an episode in which the top row blinks in every step, and every other pixel once."""
    channels, height, width = environment.obs_shape
    steps = (height - 1) * width
    obs = np.zeros((steps + 1, channels, height, width), np.uint8)
    obs[1::2, :, 0] = 200
    for step in range(steps):
        obs[step + 1 :, :, 1 + step // width, step % width] = 200
    episode = Episode(obs, np.zeros(steps, np.int64), np.zeros(steps, np.float32), True, False)
    replay = make_replay()
    replay.append(episode)
    return mean_squared_change(replay, CPU)


def segments(obs: Tensor) -> Segments:
    """Segments of those frames, uint8 [B, T, C, H, W]."""
    shape = obs.shape[:2]
    nothing = torch.zeros(shape)
    return Segments(
        obs=obs,
        actions=nothing.long(),
        rewards=nothing,
        ends=nothing.bool(),
        mask=~nothing.bool(),
        since_reward=nothing.long(),
        corner=torch.zeros(len(obs), 2, dtype=torch.int64),
    )


def numbered(rows: int) -> Tensor:
    """Frames that say where each pixel is: its row, its column, and the frame's place."""
    obs = torch.zeros(rows, 3, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    obs[:, :, 0] = torch.arange(HEIGHT)[:, None]
    obs[:, :, 1] = torch.arange(WIDTH)
    obs[:, :, 2] = torch.arange(3)[:, None, None]
    return obs


def corners(squares: Tensor) -> Iterator[tuple[int, int]]:
    return ((int(square[0, 0, 0, 0]), int(square[0, 1, 0, 0])) for square in squares)


def test_a_square_is_the_same_part_of_every_frame(usual_change: Tensor) -> None:
    whole = numbered(50)
    cropped = Cropper(usual_change, SIZE, 2).crop(segments(whole))
    assert cropped.obs.shape == (50, 3, 3, SIZE, SIZE)
    assert cropped.obs.dtype == torch.uint8
    for square, (top, left) in zip(cropped.obs, corners(cropped.obs), strict=True):
        assert torch.equal(square, whole[0, :, :, top : top + SIZE, left : left + SIZE])
    assert cropped.mask.shape == (50, 3)
    assert cropped.corner.tolist() == [list(corner) for corner in corners(cropped.obs)]


def test_a_square_of_a_square_knows_its_place_in_the_frame(usual_change: Tensor) -> None:
    batch = segments(numbered(50))
    cropped = Cropper(usual_change, SIZE, 2).crop(replace(batch, corner=torch.full((50, 2), 100)))
    assert (cropped.corner - 100).tolist() == [list(corner) for corner in corners(cropped.obs)]


def test_squares_begin_at_multiples_and_reach_every_part_of_a_frame(usual_change: Tensor) -> None:
    cropped = Cropper(usual_change, SIZE, 4).crop(segments(numbered(600)))
    found = set(corners(cropped.obs))
    assert found == {(top, left) for top in (0, 4, 8) for left in (0, 4, 8, 12)}


def test_squares_lie_around_what_changed_last(usual_change: Tensor) -> None:
    obs = numbered(400)
    obs[:, 1, :, 3, 3] += 100  # what changed earlier does not count
    obs[:, 2] = obs[:, 1]
    obs[:, 2, :, 9, 13] += 100
    tops, lefts = zip(*corners(Cropper(usual_change, SIZE, 1).crop(segments(obs)).obs), strict=True)
    inside = [
        top <= 9 < top + SIZE and left <= 13 < left + SIZE
        for top, left in zip(tops, lefts, strict=True)
    ]
    # A tenth lies anywhere, and some of that around it by chance.
    assert 0.87 < np.mean(inside) < 0.97
    # The change is not always at the same place in its square.
    assert len({top for top, yes in zip(tops, inside, strict=True) if yes}) > 1


def test_what_changes_rarely_counts_for_more_than_what_always_does(usual_change: Tensor) -> None:
    obs = numbered(400)
    obs[:, 2] = obs[:, 1]
    obs[:, 2, :, 0, 2] += 200  # of the row that blinks
    obs[:, 2, :, 9, 13] += 200
    found = list(corners(Cropper(usual_change, SIZE, 1).crop(segments(obs)).obs))
    around_rare = [top + SIZE > 9 and left + SIZE > 13 for top, left in found]
    around_common = [top == 0 and left <= 2 for top, left in found]
    assert np.mean(around_rare) > 0.85
    assert np.mean(around_common) < 0.1


def test_the_state_gives_the_very_next_squares(usual_change: Tensor) -> None:
    one, other = (Cropper(usual_change, SIZE, 1, seed=seed) for seed in (0, 1))
    batch = segments(numbered(20))
    first = one.crop(batch).obs
    assert not torch.equal(first, other.crop(batch).obs)
    other.load_state_dict(one.state_dict())
    second = one.crop(batch).obs
    assert torch.equal(second, other.crop(batch).obs)
    assert not torch.equal(first, second)


def test_what_is_usual_stays_what_it_was_when_the_replay_grows(usual_change: Tensor) -> None:
    before = Cropper(usual_change, SIZE, 1)
    grown = usual_change.clone()
    grown[9, 13] = 200**2  # what was rare is common now
    after = Cropper(grown, SIZE, 1)
    after.load_state_dict(before.state_dict())
    obs = numbered(50)
    obs[:, 2] = obs[:, 1]
    obs[:, 2, :, 3, 3] += 100
    obs[:, 2, :, 9, 13] += 100
    assert torch.equal(before.crop(segments(obs)).obs, after.crop(segments(obs)).obs)


def test_a_square_has_to_fit_in_a_frame(usual_change: Tensor) -> None:
    Cropper(usual_change, HEIGHT, 1)
    with pytest.raises(ConfigError, match="crop is 13; the frames are 12x16: give no more"):
        Cropper(usual_change, HEIGHT + 1, 1)
