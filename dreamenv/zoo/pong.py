"""Pong: where the ball is in a frame, and players that return it."""

import numpy as np
import numpy.typing as npt

from dreamenv.zoo.spots import Flags, Frames, Light, Spots, bounces, brightest_spot

Actions = npt.NDArray[np.int64]  # [N]
Places = npt.NDArray[np.float64]  # [N], in pixels of a frame of 64x64
Weights = npt.NDArray[np.float64]  # [T]

_SERVE, _UP, _DOWN = 1, 2, 3

# Rows and columns of a frame of 64x64. The ball is alone between the paddles.
_COURT = slice(11, 58)
_BETWEEN = slice(9, 55)
_PADDLE = slice(56, 58)
_LONG = 5  # rows of it
_TOP_WALL, _BOTTOM_WALL = 10.5, 58.0
_LANDING = 55.0

_GROUND_BLUE, _GROUND_GREEN = 17, 72
# Of what a real ball adds in blue, which a wall may half hide. A dream can leave a cloud where one
# was: that is none.
_LEAST_LIGHT, _LEAST_PEAK = 60.0, 74.0
_BENT = 1.2  # pixels off the straight flight
_BY_OTHER_PADDLE, _BY_PADDLE = 18.0, 46.0
# Of steps with a bounce from the paddle, the other paddle, a wall; in which the ball appears or was
# not there long; is gone behind the paddle, or the other one; is not there.
_WEIGHTS = [20.0, 12.0, 8.0, 12.0, 12.0, 8.0, 2.0]
# A push moves the paddle by 6.3 pixels over four steps, of which so many are left after one step,
# and after two.
_LEFT_AFTER_ONE, _LEFT_AFTER_TWO = 4.8, 1.8
_OUTSIDE = 3.2  # from where the paddle comes to rest: a push brings it nearer
_A_LONG_TIME = 12.0  # steps
_BETWEEN_POINTS = 8  # steps without a ball, fewer than from a point to the next serve
_IN_FLIGHT = 3  # frames with a ball, after which it is still far from the paddles
_SOON = 16  # frames without a ball, after which one is served any time
# Of a step in which a ball may be served, after a serve, behind the paddles or near them.
_CHANCE_WEIGHTS = [30.0, 10.0, 4.0, 4.0]


def find_ball(frames: Frames) -> tuple[Flags, Spots]:
    """Finds the ball between the paddles; at their columns it is not looked for.

    Args:
        frames: uint8 [N, 3, 64, 64].

    Returns:
        Whether it is there, bool [N], and where.
    """
    light: Light = np.zeros((len(frames), 64, 64), np.int16)
    blue = frames[:, 2, _COURT, _BETWEEN].astype(np.int16)
    light[:, _COURT, _BETWEEN] = (blue - _GROUND_BLUE).clip(0)
    spots = brightest_spot(light)
    return (spots.light >= _LEAST_LIGHT) & (spots.peak >= _LEAST_PEAK), spots


def weigh_steps(frames: Frames) -> Weights:
    """Says how often each step of an episode is to be predicted, beside a free flight of the ball.

    What a dream of Pong fails at first is what is rare: bounces, and points.

    Args:
        frames: uint8 [T + 1, 3, 64, 64].

    Returns:
        float64 [T].
    """
    there, ball = find_ball(frames)
    before, now, then = slice(None, -2), slice(1, -1), slice(2, None)
    bent = bounces(there, ball, _BENT)
    right, left = np.maximum(ball.x[now], ball.x[then]), np.minimum(ball.x[now], ball.x[then])
    gone = there[now] & ~there[then]
    kinds = [
        bent & (right > _BY_PADDLE),
        bent & (left < _BY_OTHER_PADDLE),
        bent,
        there[then] & ~(there[now] & there[before]),
        gone & (ball.x[now] > _BY_PADDLE),
        gone,
        ~there[then],
    ]
    later = np.select(kinds, _WEIGHTS, default=1.0)
    return np.concatenate([[1.0], later])


def weigh_serves(frames: Frames) -> Weights:
    """Says where dreams begin: where rallies do, the ball just served.

    Args:
        frames: uint8 [T + 1, 3, 64, 64].

    Returns:
        float64 [T], of the frame after each step.
    """
    there, served = _serves(frames)
    flown = np.convolve(served, np.ones(_IN_FLIGHT))[: len(frames)]
    return (there & (flown > 0))[1:].astype(np.float64)


def weigh_chances(frames: Frames) -> Weights:
    """Says how often each step of an episode is to be predicted to learn what may come.

    It looks at the past alone: of all that may come, each comes as often as in the game.

    Args:
        frames: uint8 [T + 1, 3, 64, 64].

    Returns:
        float64 [T].
    """
    there, ball = find_ball(frames)
    _, served = _serves(frames)
    numbers = np.arange(len(frames))
    waited = numbers - np.maximum.accumulate(np.where(there, numbers, -1))
    flown = np.convolve(served, np.ones(_IN_FLIGHT))[: len(frames)]
    near = (ball.x < _BY_OTHER_PADDLE) | (ball.x > _BY_PADDLE)
    kinds = [waited >= _SOON, flown > 0, ~there, near]
    weights = np.select(kinds, _CHANCE_WEIGHTS, default=1.0)
    return weights[:-1]


def _serves(frames: Frames) -> tuple[Flags, Flags]:
    """Tells in which frames the ball is, and in which it has just been served."""
    there, _ = find_ball(frames)
    unseen = np.concatenate([np.zeros(_BETWEEN_POINTS, bool), there])
    windows = np.lib.stride_tricks.sliding_window_view(unseen, _BETWEEN_POINTS)[:-1]
    return there, there & ~windows.any(axis=1)


class Player:
    """Goes where the ball will arrive, as the last two frames tell.

    The place on the paddle where it wants the ball changes from flight to flight, so that balls
    fly back at all angles and points are scored on both sides.
    """

    spread = 2.6
    """How far from the paddle's middle it may want the ball, in pixels."""

    def __init__(self) -> None:
        self._seen: Flags | None = None
        self._x = self._y = self._pushed = self._pushed_before = np.zeros(0)

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """Chooses an action for each of N games.

        Args:
            obs: uint8 [N, 3, 64, 64], the frame each game shows.
            starts: bool [N], whether it is the first frame of an episode.
        """
        if self._seen is None or len(self._seen) != len(obs):
            self._seen = np.zeros(len(obs), bool)
            self._x = self._y = self._pushed = self._pushed_before = np.zeros(len(obs))
        there, ball = find_ball(obs)
        velocity_x, velocity_y = ball.x - self._x, ball.y - self._y
        comes = there & self._seen & ~starts & (velocity_x > 0.3)
        steps = (_LANDING - ball.x) / np.maximum(velocity_x, 0.3)
        steps = np.where(comes, steps, 0.0).clip(0, _A_LONG_TIME)
        arrives = _reflect(ball.y + velocity_y * steps)
        glides = _LEFT_AFTER_ONE * self._pushed + _LEFT_AFTER_TWO * self._pushed_before
        rests = _find_paddle(obs) + np.where(starts, 0.0, glides)
        distance = arrives + self.spread * _aim(velocity_y) - rests
        push = np.where(there & (np.abs(distance) > _OUTSIDE), np.sign(distance), 0.0)
        self._seen, self._x, self._y = there, ball.x, ball.y
        self._pushed, self._pushed_before = push, self._pushed
        actions = np.select([~there, push > 0, push < 0], [_SERVE, _DOWN, _UP])
        return actions.astype(np.int64)


class BoldPlayer(Player):
    """Plays the ball with the edges of the paddle, and misses many."""

    spread = 3.5


def _find_paddle(obs: Frames) -> Places:
    green = obs[:, 1, _COURT, _PADDLE].astype(np.float64).sum(axis=2)
    light = (green - 2 * _GROUND_GREEN).clip(0)
    places = np.arange(_COURT.start, _COURT.stop)
    # Dreams leave traces where it was, which are faint, but many.
    brightest = places[light.argmax(axis=1), None]
    light = np.where(np.abs(places - brightest) <= _LONG, light, 0)
    middle: Places = (light * places).sum(axis=1) / np.maximum(light.sum(axis=1), 1)
    return middle


def _reflect(y: Places) -> Places:
    """Folds a straight flight at the walls, once at each."""
    y = _TOP_WALL + np.abs(y - _TOP_WALL)
    folded: Places = _BOTTOM_WALL - np.abs(_BOTTOM_WALL - y)
    return folded


def _aim(velocity_y: Places) -> Places:
    """Draws a place from -1 to 1 out of how steeply the ball flies."""
    return np.sin(7 * velocity_y)
