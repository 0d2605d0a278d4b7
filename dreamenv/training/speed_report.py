"""The figures of speed as tables."""

from collections.abc import Iterator

from rich.table import Table

from dreamenv.training.speed import Speed

_UNKNOWN = "-"


def tables(speed: Speed) -> Iterator[Table]:
    """Lays the figures out for people."""
    yield _dreams(speed)
    yield _resources(speed)
    if speed.settings.dream.compile:
        yield _compiling(speed)
    if speed.faces:
        yield _faces(speed)
    if speed.training:
        yield _training(speed)


def _dreams(speed: Speed) -> Table:
    table = Table(
        *("dreams", "frames a second", "reference", "ratio", "ms a step [10%, 90%]", "steps timed"),
        title=f"Dreams of {speed.name}",
        caption=f"{speed.machine}; products in {speed.dtype}. Reference: the same weights in "
        "float32, contiguous, eager, no graph, timed in turn; medians",
    )
    for row in speed.dream:
        table.add_row(
            f"{row.num_envs:,}",
            f"{row.fps:,.1f}",
            f"{row.reference_fps:,.1f}",
            f"{row.ratio:.2f}",
            f"{row.ms_per_step:,.1f} [{row.ms_per_step_p10:,.1f}, {row.ms_per_step_p90:,.1f}]",
            f"{row.timed_steps:,}",
        )
    return table


def _resources(speed: Speed) -> Table:
    ceiling, frame = speed.ceiling, "x".join(str(length) for length in speed.obs_shape)
    table = Table(
        *("dreams", "peak memory, MB", "reference", "GFLOP/s", "of the ceiling"),
        title=f"What they take, a frame {speed.flops_per_frame / 1e9:,.2f} GFLOP",
        caption=f"{_memory(speed)} Frames: {frame}, actions: {speed.num_actions}, parameters: "
        f"{speed.parameters:,}, evaluations of the denoiser a frame: "
        f"{speed.denoiser_evaluations}. Ceiling: {ceiling.flops / 1e9:,.1f} GFLOP/s, of products "
        f"of {ceiling.dtype} matrices {ceiling.size} x {ceiling.size}",
    )
    for row in speed.dream:
        table.add_row(
            f"{row.num_envs:,}",
            _number(row.peak_memory_mb),
            _number(row.reference_peak_memory_mb),
            f"{row.flops_per_second / 1e9:,.1f}",
            f"{row.share_of_ceiling:.1%}",
        )
    return table


def _compiling(speed: Speed) -> Table:
    table = Table(
        *("dreams", "frames a second", "not compiled", "compiling, s"), title="What compiling gives"
    )
    for row in speed.dream:
        eager, seconds = _number(row.eager_fps, 1), _number(row.compile_seconds, 1)
        table.add_row(f"{row.num_envs:,}", f"{row.fps:,.1f}", eager, seconds)
    return table


def _faces(speed: Speed) -> Table:
    table = Table(
        *("face", "dreams", "ms a step", "without it", "cost", "steps timed"),
        title="What the faces cost",
        caption="without it: the same dreams by their core, timed in turn; medians",
    )
    for row in speed.faces:
        table.add_row(
            row.face,
            f"{row.num_envs:,}",
            f"{row.ms_per_step:,.2f}",
            f"{row.core_ms_per_step:,.2f}",
            f"{row.cost:+.1%}",
            f"{row.timed_steps:,}",
        )
    return table


def _training(speed: Speed) -> Table:
    is_compiled = speed.settings.dream.compile
    rates = "steps a second", *(["not compiled"] if is_compiled else []), "reference"
    table = Table(
        *("network", "a step is of", *rates, "ratio", "steps timed"),
        title=f"Training, with the settings of {speed.settings.preset}",
        caption="segments of the world model and their frames, dreams of the actor-critic and the "
        "steps of its rollout",
    )
    for row in speed.training:
        eager = [_number(row.eager_steps_per_second, 3)] if is_compiled else []
        table.add_row(
            row.part,
            f"{row.batch_size:,} x {row.length:,}",
            f"{row.steps_per_second:,.3f}",
            *eager,
            f"{row.reference_steps_per_second:,.3f}",
            f"{row.ratio:.2f}",
            f"{row.timed_steps:,}",
        )
    return table


def _memory(speed: Speed) -> str:
    if any(row.peak_memory_mb is None for row in speed.dream):
        return "How much memory they take cannot be told here."
    if speed.machine.device.startswith("cuda"):
        return "Memory: the peak of all tensors there."
    return "Memory: the peak of a process while it dreams, with Python and torch in it."


def _number(value: float | None, digits: int = 0) -> str:
    return _UNKNOWN if value is None else f"{value:,.{digits}f}"
