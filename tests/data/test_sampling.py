import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamenv.data import PUBLISHED_WEIGHTS, Episode, Replay, Segments, SegmentSampler, Split
from dreamenv.data.sampling import episode_weights
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError

MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]

Weights = tuple[float, float, float, float]


def equal(one: Segments, other: Segments) -> bool:
    names = ("obs", "actions", "rewards", "ends", "mask")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def episodes_of(segments: Segments) -> list[int]:
    """The number of the episode that each segment was cut from."""
    return [
        int(obs[mask][0, 0, 0, 0]) for obs, mask in zip(segments.obs, segments.mask, strict=True)
    ]


def starts_of(segments: Segments) -> list[int]:
    """The step at which each segment begins, below 0 where it begins with padding."""
    starts = []
    for obs, mask in zip(segments.obs, segments.mask, strict=True):
        place = int(mask.int().argmax())
        starts.append(int(obs[place, 0, 0, 1]) - place)
    return starts


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=50))
def test_quarters_by_age_share_the_published_weights(lengths: list[int]) -> None:
    weights = episode_weights(torch.tensor(lengths)).tolist()
    size = len(lengths) // 4
    bounds = [0, size, 2 * size, 3 * size, len(lengths)]
    for start, stop, weight in zip(bounds, bounds[1:], PUBLISHED_WEIGHTS, strict=False):
        assert weights[start:stop] == pytest.approx([weight / (stop - start)] * (stop - start))


@pytest.mark.parametrize("weights", [PUBLISHED_WEIGHTS, None])
def test_few_episodes_are_weighted_by_their_steps(weights: Weights | None) -> None:
    assert episode_weights(torch.tensor([1, 2, 5]), weights).tolist() == [0.125, 0.25, 0.625]


def test_without_weights_episodes_are_weighted_by_their_steps() -> None:
    assert episode_weights(torch.tensor([1, 2, 4, 8, 1]), None).tolist() == [
        0.0625,
        0.125,
        0.25,
        0.5,
        0.0625,
    ]


def test_batches_follow_the_weights_of_the_quarters(make_replay: MakeReplay) -> None:
    # Episode 1 is held out, which leaves 0, 2 | 3, 4 | 5, 6 | 7, 8, 9 to train on.
    replay = make_replay(2, 5, 20, 1, 7, 3, 3, 9, 2, 4)
    sampler = SegmentSampler(replay, 4, 20_000, "cpu", beyond_end=True)
    counts = np.bincount(episodes_of(sampler.sample()), minlength=10) / 20_000
    expected = [0.05, 0, 0.05, 0.05, 0.05, 0.05, 0.05, 0.7 / 3, 0.7 / 3, 0.7 / 3]
    np.testing.assert_allclose(counts, expected, atol=0.015)


def test_without_weights_every_step_is_drawn_equally_often(make_replay: MakeReplay) -> None:
    replay = make_replay(2, 5, 4, 6, 8)
    sampler = SegmentSampler(replay, 1, 20_000, "cpu", weights=None, beyond_end=False)
    segments = sampler.sample()
    pairs = list(zip(episodes_of(segments), starts_of(segments), strict=True))
    counts = [pairs.count((number, 0)) for number in (0, 2, 3, 4)] + [pairs.count((4, 7))]
    np.testing.assert_allclose(np.array(counts) / 20_000, 1 / 20, atol=0.008)


@pytest.mark.parametrize(("split", "expected"), [("train", {0, *range(2, 11)}), ("held_out", {1})])
def test_no_batch_mixes_the_splits(
    make_replay: MakeReplay, split: Split, expected: set[int]
) -> None:
    sampler = SegmentSampler(make_replay(*[4] * 11), 3, 2000, "cpu", beyond_end=True, split=split)
    assert set(episodes_of(sampler.sample())) == expected


def test_beyond_the_end_a_step_stands_anywhere_in_the_window(make_replay: MakeReplay) -> None:
    sampler = SegmentSampler(make_replay(5), 3, 20_000, "cpu", beyond_end=True)
    starts = np.array(starts_of(sampler.sample()))
    # start = t - k with t in 0..4 and k in 0..2, each uniform
    counts = np.bincount(starts + 2, minlength=7) / 20_000
    np.testing.assert_allclose(counts, np.array([1, 2, 3, 3, 3, 2, 1]) / 15, atol=0.015)


def test_not_beyond_the_end_only_the_left_is_padded(make_replay: MakeReplay) -> None:
    sampler = SegmentSampler(make_replay(5), 3, 20_000, "cpu", beyond_end=False)
    segments = sampler.sample()
    assert segments.mask[:, -1].all()
    # stop = min(5, t + 1 + k) with t in 0..4 and k in 0..2, each uniform
    counts = np.bincount(np.array(starts_of(segments)) + 2, minlength=5) / 20_000
    np.testing.assert_allclose(counts, np.array([1, 2, 3, 3, 6]) / 15, atol=0.015)


def test_the_same_seed_gives_the_same_batches(make_replay: MakeReplay) -> None:
    replay = make_replay(5, 3, 8, 2, 9)
    one, same, other = (
        SegmentSampler(replay, 4, 16, "cpu", beyond_end=True, seed=seed) for seed in (3, 3, 4)
    )
    first = one.sample()
    assert equal(first, same.sample())
    assert equal(one.sample(), same.sample())
    assert not equal(first, other.sample())


def test_a_sampler_goes_on_where_its_state_was_taken(
    make_replay: MakeReplay, tmp_path: Path
) -> None:
    replay = make_replay(5, 3, 8, 2, 9)
    sampler = SegmentSampler(replay, 4, 16, "cpu", beyond_end=False)
    sampler.sample()
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    expected = list(islice(sampler, 3))
    resumed = SegmentSampler(Replay.open(replay.folder), 4, 16, "cpu", beyond_end=False, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(map(equal, islice(resumed, 3), expected))


def test_favoured_steps_are_drawn_as_often_as_they_are_favoured(make_replay: MakeReplay) -> None:
    replay = make_replay(6, 5, 9, 7)
    rows = replay.tensors("cpu").rows
    probabilities = torch.zeros(len(rows.is_step), dtype=torch.float64)
    probabilities[rows.first_rows[0] + 4], probabilities[rows.first_rows[2] + 5] = 0.25, 0.75
    sampler = SegmentSampler(replay, 3, 4000, "cpu", beyond_end=False)
    sampler.favour(probabilities, places=1)
    assert sampler.favours
    batch = sampler.sample()
    # The step that was drawn is the last of its window.
    assert {*zip(episodes_of(batch), starts_of(batch), strict=True)} == {(0, 2), (2, 3)}
    assert episodes_of(batch).count(2) / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_favoured_step_stands_at_the_last_places_of_a_window(make_replay: MakeReplay) -> None:
    replay = make_replay(20)
    rows = replay.tensors("cpu").rows
    probabilities = torch.zeros(len(rows.is_step), dtype=torch.float64)
    probabilities[rows.first_rows[0] + 10] = 1.0
    sampler = SegmentSampler(replay, 6, 300, "cpu", beyond_end=False)
    sampler.favour(probabilities, places=2)
    assert {*starts_of(sampler.sample())} == {5, 6}


def test_a_sampler_that_favours_goes_on_where_its_state_was_taken(make_replay: MakeReplay) -> None:
    replay = make_replay(20, 4, 11)
    steps = replay.tensors("cpu").rows.is_step.double()
    sampler = SegmentSampler(replay, 4, 5, "cpu", beyond_end=False)
    sampler.favour(steps / steps.sum(), places=3)
    sampler.sample()
    state = sampler.state_dict()
    again = SegmentSampler(replay, 4, 5, "cpu", beyond_end=False, seed=8)
    again.load_state_dict(state)
    assert all(equal(sampler.sample(), again.sample()) for _ in range(3))


@pytest.mark.parametrize(("rows", "places"), [(3, 1), (None, 0), (None, 5)])
def test_what_cannot_be_favoured_is_refused(
    make_replay: MakeReplay, rows: int | None, places: int
) -> None:
    replay = make_replay(6, 5)
    count = rows or len(replay.tensors("cpu").rows.is_step)
    sampler = SegmentSampler(replay, 4, 5, "cpu", beyond_end=False)
    with pytest.raises(InputError, match="probabilities" if rows else "places"):
        sampler.favour(torch.ones(count, dtype=torch.float64), places)


def test_memory_and_disk_give_the_same_batches(make_replay: MakeReplay) -> None:
    lengths = (5, 3, 8, 2, 9)
    samplers = [
        SegmentSampler(replay, 4, 16, "cpu", beyond_end=True)
        for replay in (make_replay(*lengths), make_replay(*lengths, name="disk", max_memory=0))
    ]
    assert equal(samplers[0].sample(), samplers[1].sample())


def test_an_episode_appended_while_training_is_in_the_next_batch(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(4, 4)
    sampler = SegmentSampler(replay, 3, 200, "cpu", beyond_end=True)
    before = sampler.sample()
    frames = before.obs.clone()
    assert set(episodes_of(before)) == {0}
    for seed in range(2, 40):
        replay.append(make_episode(4, seed))
        assert seed in episodes_of(sampler.sample()) or seed in (12, 23, 34)
    assert torch.equal(before.obs, frames)


def test_a_sampler_may_be_made_before_there_is_an_episode(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay()
    sampler = SegmentSampler(replay, 3, 2, "cpu", beyond_end=True)
    with pytest.raises(InputError, match="no train episode"):
        sampler.sample()
    replay.append(make_episode(4))
    assert len(sampler.sample().obs) == 2


@pytest.mark.parametrize(("length", "batch_size"), [(0, 1), (1, 0)])
def test_sizes_below_one_are_refused(make_replay: MakeReplay, length: int, batch_size: int) -> None:
    with pytest.raises(InputError, match="is 0; it must be at least 1"):
        SegmentSampler(make_replay(3), length, batch_size, "cpu", beyond_end=True)


@pytest.mark.parametrize(
    "weights", [(0.0, 0.0, 0.0, 0.0), (-0.1, 0.4, 0.4, 0.3), (float("nan"), 1.0, 1.0, 1.0)]
)
def test_weights_that_are_no_probabilities_are_refused(
    make_replay: MakeReplay, weights: Weights
) -> None:
    with pytest.raises(InputError, match="weights are"):
        SegmentSampler(make_replay(3), 2, 1, "cpu", weights=weights, beyond_end=True)


@pytest.mark.parametrize("max_memory", [None, 0])
def test_a_batch_from_20000_frames_takes_less_than_5_milliseconds(
    tmp_path: Path, environment: EnvironmentSpec, max_memory: int | None
) -> None:
    shape = (3, 64, 64)
    spec = EnvironmentSpec("Test/Frames-v0", shape, environment.action_meanings)
    replay = Replay.create(tmp_path / "replay", spec, max_memory=max_memory)
    steps = 1999
    blank = Episode(
        np.zeros((steps + 1, *shape), np.uint8),
        np.zeros(steps, np.int64),
        np.zeros(steps, np.float32),
        terminated=True,
        truncated=False,
    )
    replay.extend([blank] * 10)
    sampler = SegmentSampler(replay, 6, 32, "cpu", beyond_end=False)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        sampler.sample()
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3  # the machine may be busy with other things
