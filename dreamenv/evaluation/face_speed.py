"""What the faces of a dream cost: their steps beside those of the core."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from dreamenv.config import Config
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.gymnasium import DreamVectorEnv
from dreamenv.dream.opening import DreamOptions
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.timing import Act, Stopwatch, alternate


@dataclass(frozen=True)
class FaceSpeed(Config):
    """How long a step of N dreams takes by one of their faces; times are medians.

    Attributes:
        face: Which.
        num_envs: N.
        ms_per_step: In milliseconds.
        core_ms_per_step: The same of `Dream`, timed in turn.
        cost: By what share of the core's the face's steps take longer; below 0 where the machine
            was quicker for them.
        timed_steps: How many steps of each were timed.
    """

    face: str
    num_envs: int
    ms_per_step: float
    core_ms_per_step: float
    cost: float
    timed_steps: int


def time_faces(path: DreamPath, num_envs: int, seconds: float) -> Iterator[FaceSpeed]:
    """Times steps of so many dreams by the core and by each of their faces in turn.

    Args:
        path: How dreams are computed.
        num_envs: How many dreams.
        seconds: For how long, all together. What compiling takes comes on top.
    """
    from dreamenv.dream.sb3 import DreamVecEnv  # Stable-Baselines3: seconds to import

    core = path.open(num_envs)
    core.reset(seed=0)
    options: DreamOptions = {
        "world_model": core.world_model,
        "contexts": Contexts.load(path.folder),
        "denoising_steps": path.denoising_steps,
        "compile": path.compile,
    }
    vector, tensors = (
        DreamVectorEnv(num_envs=num_envs, output=output, **options) for output in ("numpy", "torch")
    )
    for_sb3 = DreamVecEnv(num_envs=num_envs, **options)
    for env in (vector, tensors, for_sb3):
        env.dream.bank.burn_in_all()
    for env in (vector, tensors):
        env.reset(seed=0)
    for_sb3.seed(0)
    for_sb3.reset()
    on_device = torch.zeros(num_envs, dtype=torch.int64, device=core.device)
    on_host = np.zeros(num_envs, np.int64)
    steps: dict[str, Act] = {
        "DreamVectorEnv": partial(vector.step, on_host),
        "DreamVectorEnv, tensors": partial(tensors.step, on_device),
        "DreamVecEnv": partial(for_sb3.step, on_host),
    }
    stopwatch = Stopwatch.of(core.device)
    alone, *by_face = alternate(
        [partial(core.step, on_device), *steps.values()], seconds, stopwatch
    )
    for face, timing in zip(steps, by_face, strict=True):
        yield FaceSpeed(
            face=face,
            num_envs=num_envs,
            ms_per_step=timing.median,
            core_ms_per_step=alone.median,
            cost=timing.median / alone.median - 1,
            timed_steps=timing.calls,
        )
