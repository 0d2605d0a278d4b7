"""The dreams that an agent is trained in, compiled where that pays for itself."""

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console

from dreamenv.dream.sb3 import DreamVecEnv
from dreamenv.errors import ConfigError
from dreamenv.progress import format_seconds, say

# Compiling Breakout had saved as much as it took after about 30,000 on two cores, in float32.
_ENOUGH_STEPS = 60_000


def compile_where_it_pays(
    dreams: DreamVecEnv,
    open_compiled: Callable[[], DreamVecEnv],
    steps: int,
    console: Console,
    *,
    compile: bool | None = None,
) -> DreamVecEnv:
    """Gives dreams in the place of others: the same, or compiled ones that are ready to step.

    Args:
        dreams: Not compiled.
        open_compiled: Opens the same, to be compiled at their first step.
        steps: How many steps of single dreams they will dream.
        console: Where it is told that they are compiled, and how long that took.
        compile: Whether to; None for where it pays: on a CPU, for 60,000 steps or more, if
            compiling works there.

    Raises:
        ConfigError: They are to be compiled in any case, and cannot be.
    """
    pays = dreams.dream.device.type == "cpu" and steps >= _ENOUGH_STEPS
    if not (pays if compile is None else compile):
        return dreams
    say(console, "compiling the world model: a minute or so")
    started = time.perf_counter()
    compiled = open_compiled()
    try:
        compiled.reset()
        compiled.step(np.zeros(compiled.num_envs, np.int64))
    except ConfigError as error:
        if compile:
            raise
        say(console, f"going on uncompiled: {error}")
        return dreams
    say(console, f"compiling took {format_seconds(time.perf_counter() - started)}")
    return compiled
