"""Seeds of dreams."""

from typing import Any

import numpy as np

from dreamenv.errors import InputError

SEEDS = 2**63  # torch takes more of them, numpy's integers do not
_HEEDED = 2**32


def to_seed(seed: Any) -> int:
    """Checks a seed.

    Raises:
        InputError: It is no integer from 0 to 2**63 - 1.
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < SEEDS:
        raise InputError(f"seed is {seed!r}; it must be one integer from 0 to {SEEDS - 1}")
    return int(seed)


def generator_seed(seed: int) -> int:
    """Turns a seed into one that torch heeds all of: on a CPU it looks at the last 32 bits only."""
    if seed < _HEEDED:
        return seed
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
