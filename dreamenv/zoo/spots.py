"""Finding a small bright thing, such as a ball, on a dark ground."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]  # [N]
Frames = npt.NDArray[np.uint8]  # [N, C, H, W]
Light = npt.NDArray[np.int16]  # [N, H, W]


class Spots(NamedTuple):
    """The brightest spot of each of N pictures.

    Attributes:
        light: float64 [N], the light in the 3x3 pixels around it.
        peak: float64 [N], the light of the brightest of these pixels.
        x: float64 [N], its centre, in pixels.
        y: Likewise.
    """

    light: npt.NDArray[np.float64]
    peak: npt.NDArray[np.float64]
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


def brightest_spot(light: Light) -> Spots:
    """Finds the 3x3 pixels with the most light in each picture, and the centre of their light.

    Args:
        light: int16 [N, H, W], from 0 to 3640, so that nine add up, 0 wherever the thing cannot be.
    """
    count, width = len(light), light.shape[2]
    padded = np.pad(light, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    # With sums over the windows themselves, weighing an episode took almost four times as long.
    upright = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    sums = upright[:, :, :-2] + upright[:, :, 1:-1] + upright[:, :, 2:]
    sums = sums.reshape(count, -1)
    best = sums.argmax(axis=1)
    row, column = np.divmod(best, width)
    chosen = windows[np.arange(count), row, column]
    total = np.maximum(chosen.sum(axis=(1, 2)), 1)
    around = np.array([-1.0, 0.0, 1.0])
    x = column + (chosen.sum(axis=1) @ around) / total
    y = row + (chosen.sum(axis=2) @ around) / total
    lights = sums[np.arange(count), best].astype(np.float64)
    return Spots(lights, chosen.max(axis=(1, 2)).astype(np.float64), x, y)


def bounces(there: Flags, ball: Spots, least: float) -> Flags:
    """Tells where the flight of a ball bends: bool [T - 2], of frames 2 to T - 1 of an episode.

    Args:
        there: bool [T], whether the ball is there.
        ball: Where it is.
        least: How many pixels off the straight flight count.
    """
    off_x = ball.x[2:] - 2 * ball.x[1:-1] + ball.x[:-2]
    off_y = ball.y[2:] - 2 * ball.y[1:-1] + ball.y[:-2]
    bent: Flags = there[:-2] & there[1:-1] & there[2:] & (np.hypot(off_x, off_y) >= least)
    return bent
