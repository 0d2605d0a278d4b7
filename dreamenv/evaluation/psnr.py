"""How far frames are from others, in decibels."""

import math

_PEAK = 255  # the largest level of a byte


def psnr(mean_squared_error: float) -> float | None:
    """Returns the peak signal-to-noise ratio, in dB.

    Args:
        mean_squared_error: Of levels from 0 to 255.

    Returns:
        None where there is no error at all: JSON has no infinity.
    """
    return 10 * math.log10(_PEAK**2 / mean_squared_error) if mean_squared_error > 0 else None
