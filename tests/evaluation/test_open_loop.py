import numpy as np
import pytest
import torch

from dreamenv.data import Replay, Segments
from dreamenv.evaluation import open_loop
from dreamenv.evaluation.ball import Detector
from dreamenv.evaluation.open_loop import OpenLoop, count_steps, dream_along, dream_windows
from dreamenv.evaluation.windows import Windows, spread_windows

from .counting import CONFIG, LENGTH, SHAPE, CountingWorld, at_even_level

NONE = torch.zeros(0, dtype=torch.int64)


def windows_of(replay: Replay, horizon: int, most: int = 1000) -> Windows:
    return spread_windows(replay.tensors("cpu").rows, LENGTH, horizon, most)


def dream(
    world: CountingWorld,
    replay: Replay,
    windows: Windows,
    *,
    seed: int = 0,
    shown: torch.Tensor = NONE,
    detector: Detector | None = None,
) -> OpenLoop:
    rows = replay.tensors("cpu").rows
    return dream_windows(
        world,
        rows,
        windows,
        sampler=CONFIG.sampler,
        seed=seed,
        shown=shown,
        detector=detector,
    )


def test_dreaming_along_goes_on_from_what_was_dreamt() -> None:
    levels = torch.tensor([[10, 20, 30, 1, 1], [40, 50, 60, 1, 1]], dtype=torch.uint8)
    segment = Segments(
        obs=levels[:, :, None, None, None].expand(2, 5, *SHAPE),
        actions=torch.tensor([[0, 0, 1, 2, 0], [0, 0, 2, 0, 0]]),
        rewards=torch.zeros(2, 5),
        ends=torch.zeros(2, 5, dtype=torch.bool),
        mask=torch.ones(2, 5, dtype=torch.bool),
        since_reward=torch.tensor([[0, 0, 7, 90, 90], [0, 0, -3, 90, 90]]),
        corner=torch.zeros(2, 2, dtype=torch.int64),
    )
    world = CountingWorld(drift=3)
    frames = [step.frame[:, 0, 0, 0].tolist() for step in dream_along(world, segment)]
    assert frames == [[35, 66], [41, 70]]
    assert world.context_levels == [10, 40, 20, 50]
    # The first of the dreamt rewards are 0 and 1.
    assert world.told == [[7, -3], [8, 1]]


def test_a_perfect_dream_has_no_error(replay: Replay) -> None:
    dreamt = dream(CountingWorld(ends=[130]), replay, windows_of(replay, 6))
    assert dreamt.squared_errors[dreamt.within].eq(0).all()
    assert torch.equal(dreamt.dreamt_signs[dreamt.within], dreamt.real_signs[dreamt.within])
    assert torch.equal(dreamt.dreamt_ends[dreamt.within], dreamt.real_ends[dreamt.within])
    assert dreamt.real_ends.sum() == 1


@pytest.mark.parametrize("drift", [1, 4])
def test_a_drift_adds_up_step_by_step(replay: Replay, drift: int) -> None:
    dreamt = dream(CountingWorld(drift=drift), replay, windows_of(replay, 6))
    expected = (drift * torch.arange(1, 7)).square().float()
    assert dreamt.squared_errors.shape == dreamt.within.shape
    assert (dreamt.squared_errors == expected)[dreamt.within].all()


def test_what_lies_beyond_an_episode_does_not_count(replay: Replay) -> None:
    windows = windows_of(replay, 6)
    dreamt = dream(CountingWorld(), replay, windows)
    assert dreamt.within.sum(dim=1).tolist() == windows.lengths.tolist()
    assert dreamt.within[-1].tolist() == [True] * 3 + [False] * 3
    assert not dreamt.real_ends[~dreamt.within].any()


def test_no_more_is_dreamt_than_the_longest_window_has(replay: Replay) -> None:
    dreamt = dream(CountingWorld(), replay, windows_of(replay, 50))
    assert dreamt.within.shape == (2, 18)


def test_frames_go_on_where_an_end_is_dreamt(replay: Replay) -> None:
    world = CountingWorld(ends=range(256))
    dreamt = dream(world, replay, windows_of(replay, 6))
    assert dreamt.dreamt_ends.all()
    assert dreamt.squared_errors[dreamt.within].eq(0).all()


def test_the_heads_begin_with_the_memory_of_the_context(replay: Replay) -> None:
    world = CountingWorld()
    dream(world, replay, windows_of(replay, 3))
    assert world.memories == [0, 2, 3, 4]


def test_only_held_out_episodes_are_dreamt(replay: Replay) -> None:
    world = CountingWorld()
    dream(world, replay, windows_of(replay, 3))
    assert min(world.context_levels) >= 100


def test_balls_are_told_in_both(replay: Replay) -> None:
    windows = windows_of(replay, 4, most=1)
    start = int(windows.starts[0])
    dreamt = dream(CountingWorld(drift=1), replay, windows, detector=at_even_level)
    real = replay.load(1).obs[start + LENGTH : start + LENGTH + 4, 0, 0, 0].astype(int)
    assert dreamt.real_balls[0].tolist() == (real % 2 == 0).tolist()
    assert dreamt.dreamt_balls[0].tolist() == ((real + np.arange(1, 5)) % 2 == 0).tolist()


def test_balls_are_near_by_where_the_detector_says_they_are(replay: Replay) -> None:
    windows = windows_of(replay, 4)
    # Two pixels further off at every step, and less than four only at the first.
    dreamt = dream(CountingWorld(drift=2), replay, windows, detector=at_even_level)
    assert torch.equal(dreamt.dreamt_balls, dreamt.real_balls)
    assert torch.equal(dreamt.near_balls[:, 0], dreamt.real_balls[:, 0])
    assert dreamt.near_balls[:, 0].any()
    assert dreamt.real_balls[:, 1:].any()
    assert not dreamt.near_balls[:, 1:].any()


def test_without_a_detector_there_are_no_balls(replay: Replay) -> None:
    dreamt = dream(CountingWorld(), replay, windows_of(replay, 4))
    assert not dreamt.real_balls.any()
    assert not dreamt.dreamt_balls.any()
    assert not dreamt.near_balls.any()


def test_the_frames_of_windows_that_are_shown_are_kept(replay: Replay) -> None:
    windows = windows_of(replay, 4)
    dreamt = dream(CountingWorld(drift=2), replay, windows, shown=torch.tensor([0, 3]))
    assert dreamt.frames.shape == (2, 4, *SHAPE)
    for kept, start in zip(dreamt.frames, (0, 3), strict=True):
        real = replay.load(1).obs[start + LENGTH : start + LENGTH + 4].astype(np.int64)
        off = kept.numpy() - real
        assert (off == 2 * np.arange(1, 5)[:, None, None, None]).all()


def test_the_same_seed_gives_the_same_dream(replay: Replay) -> None:
    windows = windows_of(replay, 4)
    world = CountingWorld(noise=5)
    first, second = (dream(world, replay, windows).squared_errors for _ in range(2))
    other = dream(world, replay, windows, seed=1).squared_errors
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_batches_are_joined_in_order(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, shown = windows_of(replay, 4), torch.tensor([1, 5, 15])
    world = CountingWorld(drift=1)
    whole = dream(world, replay, windows, shown=shown, detector=at_even_level)
    monkeypatch.setattr(open_loop, "_WINDOWS_AT_ONCE", 4)
    parts = dream(world, replay, windows, shown=shown, detector=at_even_level)
    for name, tensor in vars(whole).items():
        assert torch.equal(getattr(parts, name), tensor), name


def test_every_step_of_every_batch_is_told(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "_WINDOWS_AT_ONCE", 5)
    windows, told = windows_of(replay, 4), []
    dream_windows(
        CountingWorld(),
        replay.tensors("cpu").rows,
        windows,
        sampler=CONFIG.sampler,
        seed=0,
        shown=NONE,
        on_step=lambda: told.append(1),
    )
    assert len(windows) == 16
    assert len(told) == count_steps(windows) == 4 * 4
