from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamenv.data import Episode, Replay, Segments, consecutive_segments
from dreamenv.data.segments import segments_at
from dreamenv.errors import InputError

MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]

LENGTHS = (3, 9, 1, 14)
GREY = 128


@pytest.fixture(scope="module")
def episodes(make_episode: MakeEpisode) -> list[Episode]:
    return [make_episode(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def replay(
    tmp_path_factory: pytest.TempPathFactory, environment: Any, episodes: list[Episode]
) -> Replay:
    replay = Replay.create(tmp_path_factory.mktemp("segments") / "replay", environment)
    replay.extend(episodes)
    return replay


def check_segment(segments: Segments, row: int, episode: Episode, start: int) -> None:
    """Compares one segment, place by place, with the episode it was cut from."""
    for place in range(segments.actions.shape[1]):
        step = start + place
        is_step = 0 <= step < len(episode)
        obs = episode.obs[step] if 0 <= step <= len(episode) else np.full_like(episode.obs[0], GREY)
        ended = episode.terminated and step == len(episode) - 1
        assert np.array_equal(segments.obs[row, place].numpy(), obs)
        assert segments.actions[row, place] == (episode.actions[step] if is_step else 0)
        assert segments.rewards[row, place] == (episode.rewards[step] if is_step else 0)
        assert segments.ends[row, place] == ended
        assert segments.mask[row, place] == is_step


@settings(deadline=None)
@given(
    windows=st.lists(
        st.tuples(st.integers(0, len(LENGTHS) - 1), st.integers(-8, 18)), min_size=1, max_size=5
    ),
    length=st.integers(1, 8),
)
def test_a_segment_is_the_episode_between_grey_padding(
    replay: Replay, episodes: list[Episode], windows: list[tuple[int, int]], length: int
) -> None:
    chosen, starts = torch.tensor(windows).T
    segments = segments_at(replay.tensors("cpu").rows, chosen, starts, length)
    for row, (number, start) in enumerate(windows):
        check_segment(segments, row, episodes[number], start)


def test_segments_have_the_documented_shapes_and_types(replay: Replay) -> None:
    places = torch.tensor([0, 1])
    segments = segments_at(replay.tensors("cpu").rows, places, places, length=5)
    assert (segments.obs.shape, segments.obs.dtype) == ((2, 5, 2, 3, 4), torch.uint8)
    assert (segments.actions.shape, segments.actions.dtype) == ((2, 5), torch.int64)
    assert (segments.rewards.shape, segments.rewards.dtype) == ((2, 5), torch.float32)
    assert (segments.ends.shape, segments.ends.dtype) == ((2, 5), torch.bool)
    assert (segments.mask.shape, segments.mask.dtype) == ((2, 5), torch.bool)


def test_the_true_final_frame_follows_the_last_step_and_is_no_step(
    replay: Replay, episodes: list[Episode]
) -> None:
    rows = replay.tensors("cpu").rows
    segments = segments_at(rows, torch.tensor([0]), torch.tensor([1]), length=4)
    assert segments.mask.tolist() == [[True, True, False, False]]
    assert segments.ends.tolist() == [[False, True, False, False]]
    assert np.array_equal(segments.obs[0, 2].numpy(), episodes[0].obs[-1])
    assert (segments.obs[0, 3] == GREY).all()


def test_a_truncation_is_no_end(make_replay: MakeReplay, make_episode: MakeEpisode) -> None:
    replay = make_replay()
    replay.append(make_episode(3, terminated=False, truncated=True))
    rows = replay.tensors("cpu").rows
    assert not segments_at(rows, torch.tensor([0]), torch.tensor([0]), length=4).ends.any()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize(("length", "context"), [(4, 0), (4, 3), (6, 4), (1, 0), (30, 0)])
def test_validation_meets_every_held_out_step_once_and_in_order(
    make_replay: MakeReplay, length: int, context: int, batch_size: int
) -> None:
    replay = make_replay(3, 9, *[2] * 10, 14)
    met: list[tuple[int, int]] = []
    for segments in consecutive_segments(replay, length, batch_size, "cpu", context=context):
        assert len(segments.obs) <= batch_size
        judged = segments.obs[:, context:][segments.mask[:, context:]]
        met += [(int(frame[0, 0, 0]), int(frame[0, 0, 1])) for frame in judged]
    assert met == [(1, step) for step in range(9)] + [(12, step) for step in range(14)]


def test_validation_gives_each_step_the_steps_before_it(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 9)
    (segments,) = consecutive_segments(replay, 6, 8, "cpu", context=4)
    for row, start in enumerate([-4, -2, 0, 2, 4]):
        check_segment(segments, row, make_episode(9, seed=1), start)


def test_the_episodes_trained_on_can_be_gone_through_too(make_replay: MakeReplay) -> None:
    replay = make_replay(3, 9, 4)
    batches = consecutive_segments(replay, 4, 2, "cpu", split="train")
    assert sum(int(segments.mask.sum()) for segments in batches) == 7


@pytest.mark.parametrize(
    ("length", "batch_size", "context", "message"),
    [(4, 1, 4, "context is 4"), (4, 1, -1, "context is -1"), (4, 0, 0, "batch_size is 0")],
)
def test_sizes_that_cannot_work_are_refused(
    replay: Replay, length: int, batch_size: int, context: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        next(consecutive_segments(replay, length, batch_size, "cpu", context=context))
