import numpy as np
import numpy.typing as npt
import pytest

from dreamenv.real import make_single
from dreamenv.training.policies import load_policy
from dreamenv.zoo.breakout import (
    BoldPlayer,
    Player,
    RashPlayer,
    find_ball,
    weigh_launches,
    weigh_steps,
)

_BALL_X, _BALL_Y = 99, 101  # in the emulator's RAM
_STEPS = 600

Frames = npt.NDArray[np.uint8]


def to_pixels(
    ram_x: npt.NDArray[np.int64], ram_y: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Where the ball is in a frame of 64x64; measured once, right to half a pixel on average."""
    return ram_x * 0.4 - 19.4, ram_y * 0.303 + 3.0


@pytest.fixture(scope="module")
def played() -> tuple[Frames, npt.NDArray[np.int64], float]:
    """Frames of a game played by `Player`, the RAM at each, and the score."""
    env = make_single("ALE/Breakout-v5", training=False)
    obs, info = env.reset(seed=0)
    player, frames, rams = Player(), [], []
    for step in range(_STEPS):
        frames.append(obs.transpose(2, 0, 1))
        rams.append(env.game.ale.getRAM().astype(np.int64))  # type: ignore[attr-defined]
        action = player.act(frames[-1][None], np.array([step == 0]))[0]
        obs, _, terminated, _, info = env.step(action)
        if terminated:
            break
    env.close()
    return np.stack(frames), np.stack(rams), float(info["score"])


def test_the_player_scores(played: tuple[Frames, npt.NDArray[np.int64], float]) -> None:
    assert played[2] >= 15  # a random player makes one or two points


def test_the_ball_is_found_where_the_emulator_has_it(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames, rams, _ = played
    found, spots = find_ball(frames)
    x, y = to_pixels(rams[:, _BALL_X], rams[:, _BALL_Y])
    # Away from walls, bricks and paddle, where it is hidden or not looked for.
    in_sight = (rams[:, _BALL_Y] > 0) & (y > 30) & (y < 56) & (x > 5) & (x < 58)
    assert in_sight.sum() > 300
    assert found[in_sight].mean() > 0.99
    assert np.abs(spots.x - x)[in_sight & found].mean() < 0.5
    assert np.abs(spots.y - y)[in_sight & found].mean() < 0.5


def test_no_ball_is_found_where_there_is_none(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames, rams, _ = played
    absent = rams[:, _BALL_Y] == 0
    without = frames[absent | (to_pixels(rams[:, _BALL_X], rams[:, _BALL_Y])[1] > 59)]
    assert len(without) > 0
    assert not find_ball(without)[0].any()


def test_bounces_weigh_more_than_free_flight(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames, rams, _ = played
    weights = weigh_steps(frames)
    assert weights.shape == (len(frames) - 1,)
    ball_x, ball_y = rams[:, _BALL_X], rams[:, _BALL_Y]
    x, y = to_pixels(ball_x, ball_y)
    in_sight = (ball_y > 0) & (y > 32) & (y < 54) & (x > 6) & (x < 57)
    seen = in_sight[:-2] & in_sight[1:-1] & in_sight[2:]
    turn = np.abs(np.diff(ball_x, 2)) + np.abs(np.diff(ball_y, 2))
    free = weights[1:][seen & (turn == 0)]
    assert len(free) > 100
    assert (free == 1).mean() > 0.95
    # It comes down to the paddle, and leaves it upwards.
    rises = (np.diff(ball_y)[:-1] > 0) & (np.diff(ball_y)[1:] < 0) & (y[1:-1] > 50)
    hits = weights[1:][rises & (ball_y[:-2] > 0) & (ball_y[2:] > 0)]
    assert len(hits) > 5
    assert (hits > 1).mean() > 0.8


def test_dreams_begin_with_a_ball_just_launched(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames, rams, _ = played
    weights = weigh_launches(frames)
    assert weights.shape == (len(frames) - 1,)
    ball_y = rams[:, _BALL_Y]
    launch = int((ball_y > 0).argmax())
    assert launch > 0
    chosen = np.flatnonzero(weights) + 1
    assert list(chosen - launch) in ([0, 1, 2], [1, 2, 3])
    # It falls, and is not down yet.
    assert (np.diff(ball_y[launch : chosen[-1] + 1]) > 0).all()
    assert to_pixels(rams[:, _BALL_X], ball_y)[1][chosen[-1]] < 52


def test_a_life_that_begins_with_the_ball_launched_is_begun_there(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames = played[0]
    launch = int(np.flatnonzero(weigh_launches(frames))[0]) + 1
    assert list(np.flatnonzero(weigh_launches(frames[launch:]))) == [0, 1, 2]
    assert not weigh_launches(np.zeros_like(frames[:5])).any()


def test_dreams_begin_before_a_wall_that_is_nearly_whole(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames = played[0].copy()
    frames[:, :, 17:29, 4:10] = 0
    assert not weigh_launches(frames).any()
    frames[:, :, 17:29, 4:10] = played[0][:, :, 17:29, 4:10]
    frames[:, :, 27:29, 4:10] = 0  # one brick, or two
    assert np.array_equal(weigh_launches(frames), weigh_launches(played[0]))


def test_faint_traces_in_a_dream_do_not_lead_the_player_astray(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames = played[0]
    traces = np.random.default_rng(0).integers(0, 12, (3, 56))
    traced = frames.copy()
    traced[:, :, 58, 4:60] = np.minimum(frames[:, :, 58, 4:60].astype(int) + traces, 255)
    clean, astray = Player(), Player()
    same = [
        clean.act(frames[step, None], np.array([step == 0]))
        == astray.act(traced[step, None], np.array([step == 0]))
        for step in range(len(frames))
    ]
    assert np.mean(same) > 0.95


def test_players_differ_in_what_they_dare() -> None:
    assert Player.spread < BoldPlayer.spread < RashPlayer.spread


def test_each_game_is_played_by_itself(
    played: tuple[Frames, npt.NDArray[np.int64], float],
) -> None:
    frames = played[0]
    alone, together = Player(), Player()
    for step in range(40):
        starts = np.array([step == 0])
        pair = np.stack([frames[step], frames[2 * step]])
        action = alone.act(pair[:1], starts)[0]
        assert together.act(pair, np.repeat(starts, 2))[0] == action


def test_collecting_takes_the_player_by_name() -> None:
    env = make_single("ALE/Breakout-v5", training=False)
    policy = load_policy("dreamenv.zoo.breakout:Player", env.environment)
    env.close()
    assert isinstance(policy, Player)
