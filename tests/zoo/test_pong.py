import numpy as np
import numpy.typing as npt
import pytest

from dreamenv.real import make_single
from dreamenv.zoo.pong import (
    BoldPlayer,
    Player,
    find_ball,
    weigh_chances,
    weigh_serves,
    weigh_steps,
)

_BALL_X, _BALL_Y = 49, 54  # in the emulator's RAM
_STEPS = 500

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def played() -> tuple[Frames, npt.NDArray[np.int64], list[float]]:
    """Frames of a game played by `Player`, the RAM at each, and the points."""
    env = make_single("ALE/Pong-v5", training=False)
    obs, _ = env.reset(seed=0)
    player, frames, rams, points = Player(), [], [], []
    for step in range(_STEPS):
        frames.append(obs.transpose(2, 0, 1))
        rams.append(env.game.ale.getRAM().astype(np.int64))  # type: ignore[attr-defined]
        action = player.act(frames[-1][None], np.array([step == 0]))[0]
        obs, reward, _, _, _ = env.step(action)
        points.append(reward)
    env.close()
    return np.stack(frames), np.stack(rams), points


def test_the_ball_is_found_where_the_emulator_has_it(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames, rams, _ = played
    found, spots = find_ball(frames)
    # Where the ball is in a frame of 64x64; measured once, right to half a pixel on average.
    x, y = rams[:, _BALL_X] * 0.4 - 19.7, rams[:, _BALL_Y] * 0.304 - 3.8
    between = (rams[:, _BALL_Y] > 0) & (x > 10) & (x < 53) & (y > 12) & (y < 56)
    assert between.sum() > 200
    assert found[between].mean() > 0.99
    assert np.abs(spots.x - x)[between & found].mean() < 0.5
    assert np.abs(spots.y - y)[between & found].mean() < 0.5
    out = (x < 6) | (x > 58)
    assert not found[out].any()


def test_bounces_and_points_weigh_more_than_free_flight(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames, rams, _ = played
    weights = weigh_steps(frames)
    assert weights.shape == (len(frames) - 1,)
    ball_x, ball_y = rams[:, _BALL_X], rams[:, _BALL_Y]
    x, y = ball_x * 0.4 - 19.7, ball_y * 0.304 - 3.8
    in_sight = (ball_y > 0) & (x > 12) & (x < 51) & (y > 14) & (y < 54)
    seen = in_sight[:-2] & in_sight[1:-1] & in_sight[2:]
    turn = np.abs(np.diff(ball_x, 2)) + np.abs(np.diff(ball_y, 2))
    free = weights[1:][seen & (turn == 0)]
    assert len(free) > 50
    assert (free == 1).mean() > 0.95
    # It comes to the player's paddle, and leaves it to the left.
    there = ball_y > 0
    turns = (np.diff(ball_x)[:-1] > 0) & (np.diff(ball_x)[1:] < 0) & (x[1:-1] > 45)
    hits = weights[1:][turns & there[:-2] & there[1:-1] & there[2:]]
    assert len(hits) > 3
    assert (hits > 1).mean() > 0.8


def test_dreams_begin_in_the_steps_after_a_serve(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames, rams, points = played
    weights = weigh_serves(frames)
    assert weights.shape == (len(frames) - 1,)
    chosen = np.flatnonzero(weights) + 1
    in_court = rams[:, _BALL_Y] > 0
    serves = np.flatnonzero(in_court[1:] & ~in_court[:-1]) + 1
    # The first, and one after each point but perhaps the last.
    scored = sum(point != 0 for point in points)
    assert scored > 2
    assert len(serves) in (scored, scored + 1)
    assert len(chosen) == 3 * len(serves)
    # A ball that is served at the net, at 32, has not come to a paddle.
    first, last = chosen.reshape(-1, 3)[:, 0], chosen.reshape(-1, 3)[:, -1]
    assert (last - first == 2).all()
    assert ((first - serves >= 0) & (first - serves <= 1)).all()
    x = rams[last, _BALL_X] * 0.4 - 19.7
    assert (np.abs(x - 32) < 8).all()


def test_what_may_come_weighs_most_where_a_serve_is_due(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames, _, _ = played
    weights = weigh_chances(frames)
    assert weights.shape == (len(frames) - 1,)
    serves = np.flatnonzero(weigh_serves(frames))[::3]  # the steps that serve
    inner = [serve for serve in serves if 20 <= serve < len(weights) - 4]
    assert len(inner) > 2
    for serve in inner:
        assert weights[serve - 1 : serve + 4].tolist() == [30, 30, 10, 10, 10]
        assert (weights[serve - 12 : serve - 5] == 4).all()
    assert (weights == 30).sum() <= 8 * len(serves)
    there = find_ball(frames)[0][:-1]
    assert (weights[there] == 1).mean() > 0.3


def test_how_much_a_step_weighs_is_told_by_its_past_alone(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames, _, _ = played
    weights = weigh_chances(frames)
    for step in range(0, len(weights), 7):
        other = np.concatenate([frames[: step + 1], np.zeros_like(frames[:1])])
        assert weigh_chances(other)[-1] == weights[step]


def test_without_a_ball_no_dream_begins() -> None:
    assert not weigh_serves(np.zeros((20, 3, 64, 64), np.uint8)).any()


def test_a_faint_cloud_is_no_ball() -> None:
    frames = np.zeros((2, 3, 64, 64), np.uint8)
    frames[:] = np.array([144, 72, 17], np.uint8)[:, None, None]
    frames[:, 2, 30:33, 40:43] += 40  # in all as much light as a ball
    frames[1, 2, 31, 41] += 60
    assert find_ball(frames)[0].tolist() == [False, True]


def test_the_player_keeps_the_ball_in_play(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    # A random player loses a point every 45 steps or so.
    assert sum(point < 0 for point in played[2]) <= 3


def test_faint_traces_in_a_dream_do_not_lead_the_player_astray(
    played: tuple[Frames, npt.NDArray[np.int64], list[float]],
) -> None:
    frames = played[0]
    traces = np.random.default_rng(0).integers(0, 12, (3, 47, 2))
    traced = frames.copy()
    traced[:, :, 11:58, 56:58] = np.minimum(frames[:, :, 11:58, 56:58].astype(int) + traces, 255)
    clean, astray = Player(), Player()
    same = [
        clean.act(frames[step, None], np.array([step == 0]))
        == astray.act(traced[step, None], np.array([step == 0]))
        for step in range(_STEPS)
    ]
    assert np.mean(same) > 0.95


def test_players_differ_in_what_they_dare() -> None:
    assert Player.spread < BoldPlayer.spread
