"""Breakout: where the ball is in a frame, and players that keep it in play."""

import numpy as np
import numpy.typing as npt

from dreamenv.zoo.spots import Flags, Frames, Light, Spots, bounces, brightest_spot

Actions = npt.NDArray[np.int64]  # [N]
Places = npt.NDArray[np.float64]  # [N], in pixels of a frame of 64x64
Weights = npt.NDArray[np.float64]  # [T]

_FIRE, _RIGHT, _LEFT = 1, 2, 3

# Rows and columns of a frame of 64x64. The ball is alone above and below the bricks.
_ABOVE_BRICKS = slice(11, 17)
_BRICKS = slice(17, 29)
_BELOW_BRICKS = slice(29, 57)
_PADDLE = 58
_LONG = 8  # columns of it
_COURT = slice(4, 60)
_LEFT_WALL, _RIGHT_WALL = 3.6, 60.0
_LANDING = 56.0

# Of a real ball, which a wall may half hide. A dream can leave a cloud where one was: that is none.
_LEAST_LIGHT, _LEAST_PEAK = 90.0, 45.0

_BENT = 1.2  # pixels off the straight flight
_BY_PADDLE, _BY_LEFT_WALL, _BY_RIGHT_WALL = 50.0, 8.0, 56.0
_LOW = 45.0
# Of steps with a bounce from the paddle, a wall, bricks; in which the ball appears or was not there
# long; passes the paddle; goes in among the bricks; is not there.
_WEIGHTS = [24.0, 12.0, 20.0, 3.0, 12.0, 4.0, 5.0]

_A_LONG_WAIT = 100  # steps; even who plays at random has launched the ball by then
_BRICK_LIGHT = 40
_NEARLY_WHOLE = 0.85  # of the pixels of the wall are bricks; all bricks together are 0.92
_IN_FLIGHT = 3  # frames with a ball, after which it is still far above the paddle

_PUSH = 4.4  # how far the paddle moves in the step of an action, and again in the next one
_FAR = 6.0  # from the paddle's middle: not reached in the last step, so set out now
_OUTSIDE = 2.4  # from the paddle's middle: no longer surely on it
_A_LONG_TIME = 9.0  # steps


def find_ball(frames: Frames) -> tuple[Flags, Spots]:
    """Finds the ball above or below the bricks; among them it is not looked for.

    Args:
        frames: uint8 [N, 3, 64, 64].

    Returns:
        Whether it is there, bool [N], and where.
    """
    light: Light = np.zeros((len(frames), 64, 64), np.int16)
    for rows in (_ABOVE_BRICKS, _BELOW_BRICKS):
        light[:, rows, _COURT] = frames[:, 0, rows, _COURT]
    spots = brightest_spot(light)
    return (spots.light >= _LEAST_LIGHT) & (spots.peak >= _LEAST_PEAK), spots


def weigh_steps(frames: Frames) -> Weights:
    """Says how often each step of an episode is to be predicted, beside a free flight of the ball.

    What a dream of Breakout fails at first is what is rare: bounces.

    Args:
        frames: uint8 [T + 1, 3, 64, 64].

    Returns:
        float64 [T].
    """
    there, ball = find_ball(frames)
    before, now, then = slice(None, -2), slice(1, -1), slice(2, None)
    bent = bounces(there, ball, _BENT)
    lowest = np.maximum(ball.y[now], ball.y[then])
    left, right = np.minimum(ball.x[now], ball.x[then]), np.maximum(ball.x[now], ball.x[then])
    by_wall = (left < _BY_LEFT_WALL) | (right > _BY_RIGHT_WALL)
    kinds = [
        bent & (lowest > _BY_PADDLE),
        bent & by_wall,
        bent,
        there[then] & ~(there[now] & there[before]),
        there[now] & ~there[then] & (ball.y[now] > _LOW),
        there[now] & ~there[then],
        ~there[then],
    ]
    later = np.select(kinds, _WEIGHTS, default=1.0)
    return np.concatenate([[1.0], later])


def weigh_launches(frames: Frames) -> Weights:
    """Says where dreams begin: where games do, the ball just launched and hardly a brick gone.

    There is one launch in an episode, which is a life, and all are from one of four places. Who
    learns meets the same few beginnings again and again, as in the game.

    Args:
        frames: uint8 [T + 1, 3, 64, 64].

    Returns:
        float64 [T], of the frame after each step.
    """
    first = frames[1 : _A_LONG_WAIT + 1]
    there, _ = find_ball(first)
    bricks = (first[:, 0, _BRICKS, _COURT] > _BRICK_LIGHT).mean(axis=(1, 2))
    weights = np.zeros(len(frames) - 1)
    weights[: len(first)] = there & (there.cumsum() <= _IN_FLIGHT) & (bricks > _NEARLY_WHOLE)
    return weights


class Player:
    """Goes where the ball will land, as the last two frames tell, and plays on for hours.

    The place on the paddle where it wants the ball changes with the bricks that are left, so that
    balls fly at all angles and no two games are alike for long.
    """

    spread = 1.5
    """How far from the paddle's middle it may want the ball, in pixels."""

    def __init__(self) -> None:
        self._seen: Flags | None = None
        self._x = self._y = self._pushed = np.zeros(0)

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """Chooses an action for each of N games.

        Args:
            obs: uint8 [N, 3, 64, 64], the frame each game shows.
            starts: bool [N], whether it is the first frame of an episode.
        """
        if self._seen is None or len(self._seen) != len(obs):
            self._seen = np.zeros(len(obs), bool)
            self._x = self._y = self._pushed = np.zeros(len(obs))
        there, ball = find_ball(obs)
        velocity_x, velocity_y = ball.x - self._x, ball.y - self._y
        falls = there & self._seen & ~starts & (velocity_y > 0.5)
        steps = np.where(falls, (_LANDING - ball.y) / np.maximum(velocity_y, 0.5), _A_LONG_TIME)
        steps = steps.clip(0, _A_LONG_TIME)
        lands = _reflect(np.where(falls, ball.x + velocity_x * steps, ball.x))
        # The push of the last action still has half its way to go.
        paddle = _find_paddle(obs) + _PUSH * np.where(starts, 0, self._pushed)
        distance = lands + self.spread * _aim(obs) - paddle
        is_out = np.abs(distance) > np.where(steps <= 1.2, _OUTSIDE, _FAR)
        push = np.where(there & is_out, np.sign(distance), 0.0)
        self._seen, self._x, self._y, self._pushed = there, ball.x, ball.y, push
        actions = np.select([~there, push > 0, push < 0], [_FIRE, _RIGHT, _LEFT])
        return actions.astype(np.int64)


class BoldPlayer(Player):
    """Plays the ball near the edges of the paddle, and misses some."""

    spread = 2.5


class RashPlayer(Player):
    """Plays the ball beyond the edges of the paddle at times, and misses many."""

    spread = 4.0


def _find_paddle(obs: Frames) -> Places:
    light = obs[:, 0, _PADDLE, _COURT].astype(np.float64)
    places = np.arange(_COURT.start, _COURT.stop)
    # Dreams leave traces where it was, which are faint, but many.
    brightest = places[light.argmax(axis=1), None]
    light = np.where(np.abs(places - brightest) <= _LONG, light, 0)
    middle: Places = (light * places).sum(axis=1) / np.maximum(light.sum(axis=1), 1)
    return middle


def _reflect(x: Places) -> Places:
    """Folds a straight flight at the side walls, once at each."""
    x = _LEFT_WALL + np.abs(x - _LEFT_WALL)
    folded: Places = _RIGHT_WALL - np.abs(_RIGHT_WALL - x)
    return folded


def _aim(obs: Frames) -> Places:
    """Draws one of seven places from -1 to 1 out of what the bricks look like."""
    light = obs[:, :, _BRICKS].astype(np.int64).sum(axis=(1, 2, 3))
    aim: Places = (light // 64 % 7 - 3) / 3
    return aim
