"""How fast dreams are, beside the reference path of the same weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import Self

from dreamenv.config import Config
from dreamenv.dream.core import Dream
from dreamenv.errors import ConfigError
from dreamenv.evaluation.dream_path import DreamPath
from dreamenv.evaluation.peak_memory import telling_want_of_memory
from dreamenv.evaluation.timing import Stopwatch, Timing, alternate

MeasureMemory = Callable[[DreamPath, int], float | None]
"""Returns the memory that so many dreams take, in MB; None where it cannot be known."""


@dataclass(frozen=True)
class DreamSpeedConfig(Config):
    """Which dreams are timed.

    Attributes:
        num_envs: How many at once, one row of figures each.
        denoising_steps: How many noise levels a frame is drawn with; the world model's own if None.
        seconds: How long each row is timed, all paths together; at least one step of each.
        compile: Whether the fast path is compiled; its figures without that are then told as well.
    """

    num_envs: tuple[int, ...] = (1, 8, 32)
    denoising_steps: int | None = None
    seconds: float = 10.0
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.num_envs or min(self.num_envs) < 1:
            raise ConfigError(f"num_envs is {self.num_envs}; give numbers of at least 1")
        if self.denoising_steps is not None and self.denoising_steps < 1:
            raise ConfigError(f"denoising_steps is {self.denoising_steps}; it must be at least 1")
        if not self.seconds > 0:
            raise ConfigError(f"seconds is {self.seconds}; it must be above 0")


@dataclass(frozen=True)
class Work(Config):
    """What one frame of a dream takes, and what the machine could do.

    Attributes:
        flops_per_frame: See `count_flops`.
        ceiling: FLOP/s of products of matrices.
    """

    flops_per_frame: int
    ceiling: float


@dataclass(frozen=True)
class DreamSpeed(Config):
    """How fast N dreams are. Times are of a step of all of them; all rates are of the median.

    Attributes:
        num_envs: N.
        fps: Frames a second, those of all dreams together.
        reference_fps: The same of the reference path: float32, contiguous, eager, no graph.
        ratio: The one by the other.
        ms_per_step: The median, in milliseconds.
        ms_per_step_p10: The 10th percentile.
        ms_per_step_p90: The 90th percentile.
        reference_ms_per_step: The median of the reference path.
        reference_ms_per_step_p10: Its 10th percentile.
        reference_ms_per_step_p90: Its 90th percentile.
        timed_steps: How many steps of each path were timed.
        peak_memory_mb: See `dream_memory`.
        reference_peak_memory_mb: The same of the reference path.
        flops_per_second: Achieved FLOP/s.
        share_of_ceiling: What they are of those of products of matrices.
        eager_fps: Of the fast path where it is not compiled; None where it is not in any case.
        compile_seconds: How long its first step took, which compiles, or finds in torch's cache on
            the disk what was compiled before; None likewise.
    """

    num_envs: int
    fps: float
    reference_fps: float
    ratio: float
    ms_per_step: float
    ms_per_step_p10: float
    ms_per_step_p90: float
    reference_ms_per_step: float
    reference_ms_per_step_p10: float
    reference_ms_per_step_p90: float
    timed_steps: int
    peak_memory_mb: float | None
    reference_peak_memory_mb: float | None
    flops_per_second: float
    share_of_ceiling: float
    eager_fps: float | None = None
    compile_seconds: float | None = None

    @classmethod
    def of(
        cls,
        num_envs: int,
        fast: Timing,
        reference: Timing,
        *,
        memory: tuple[float | None, float | None],
        work: Work,
        eager: Timing | None = None,
        compile_seconds: float | None = None,
    ) -> Self:
        """Works the rates out.

        Args:
            num_envs: N.
            fast: Of a step of the fast path.
            reference: Of one of the reference path.
            memory: In MB, of the fast and of the reference path.
            work: Of a frame.
            eager: Of a step of the fast path, not compiled, where it is compiled.
            compile_seconds: How long its first step took, likewise.
        """
        fps = num_envs * fast.per_second
        flops = fps * work.flops_per_frame
        return cls(
            num_envs=num_envs,
            fps=fps,
            reference_fps=num_envs * reference.per_second,
            ratio=reference.median / fast.median,
            ms_per_step=fast.median,
            ms_per_step_p10=fast.p10,
            ms_per_step_p90=fast.p90,
            reference_ms_per_step=reference.median,
            reference_ms_per_step_p10=reference.p10,
            reference_ms_per_step_p90=reference.p90,
            timed_steps=fast.calls,
            peak_memory_mb=memory[0],
            reference_peak_memory_mb=memory[1],
            flops_per_second=flops,
            share_of_ceiling=flops / work.ceiling,
            eager_fps=None if eager is None else num_envs * eager.per_second,
            compile_seconds=compile_seconds,
        )


def time_dreams(
    path: DreamPath, num_envs: int, seconds: float, work: Work, memory: MeasureMemory
) -> DreamSpeed:
    """Times steps of so many dreams, by the fast path and the reference path in turn.

    Args:
        path: The fast one.
        num_envs: How many dreams.
        seconds: For how long, all paths together. What compiling takes comes on top.
        work: Of a frame.
        memory: Measures the memory of each path.

    Raises:
        DreamenvError: Memory does not suffice for so many dreams.
    """
    with telling_want_of_memory(num_envs):
        stopwatch = Stopwatch.of(torch.device(path.device))
        paths = [path, path.reference, *([path.eager] if path.compile else [])]
        steps = [_stepping(each.open(num_envs)) for each in paths]
        compile_seconds = stopwatch.seconds(steps[0]) if path.compile else None
        fast, reference, *eager = alternate(steps, seconds, stopwatch)
        # Afterwards: what is compiled for it is kept on the disk, and would not be compiled again.
        measured = memory(path, num_envs), memory(path.reference, num_envs)
    return DreamSpeed.of(
        num_envs,
        fast,
        reference,
        memory=measured,
        work=work,
        eager=next(iter(eager), None),
        compile_seconds=compile_seconds,
    )


def count_flops(path: DreamPath) -> int:
    """Counts the FLOPs of one dream's step, those of products and convolutions, two an addition.

    They are those of the reference path, on which the others compute the same by other means.
    """
    step = _stepping(path.reference.open(1))
    # The counter does not know the libraries' own LSTMs, but the products that torch makes of one.
    counter = FlopCounterMode(display=False)
    with _without_mkldnn(), torch.backends.cudnn.flags(enabled=False), counter:
        step()
    return int(counter.get_total_flops())


def _stepping(dream: Dream) -> Callable[[], object]:
    dream.reset(seed=0)
    actions = torch.zeros(dream.num_envs, dtype=torch.int64, device=dream.device)
    return partial(dream.step, actions)


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    # torch's own context manager sets more than is asked for, and warns of it.
    before, *_ = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before)
