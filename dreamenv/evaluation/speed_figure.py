"""Speed and memory over the number of dreams, as a figure."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import InputError
from dreamenv.evaluation.dream_speed import DreamSpeed
from dreamenv.files import atomic_file

Pick = Callable[[DreamSpeed], float | None]

_PLAIN = StrMethodFormatter("{x:,g}")


def check_figure_path(path: Path) -> None:
    """Checks that a figure can be written there, before anything is measured for it.

    Raises:
        InputError: Its folder is not there, or it is one itself.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not there; make the folder, or name another file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")


def save_speed_figure(path: Path, rows: Sequence[DreamSpeed], title: str) -> None:
    """Writes the figure as PNG, whole or not at all.

    Args:
        path: The file to create or replace.
        rows: At least one.
        title: Of what, and where it was measured.

    Raises:
        DreamenvError: The file cannot be written.
    """
    with naming_disk_errors(path.parent), atomic_file(path) as beside:
        speed_figure(rows, title).savefig(beside, format="png")


def speed_figure(rows: Sequence[DreamSpeed], title: str) -> Figure:
    """Draws frames a second, and beside them peak memory where it is known, over the dreams.

    Args:
        rows: At least one.
        title: Of what, and where it was measured.
    """
    rows = sorted(rows, key=lambda row: row.num_envs)
    knows_memory = any(row.peak_memory_mb is not None for row in rows)
    figure = Figure(figsize=(10 if knows_memory else 5, 4.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    fps, *memory = figure.subplots(1, 2 if knows_memory else 1, squeeze=False)[0]
    _draw(fps, rows, lambda row: row.fps, lambda row: row.reference_fps)
    fps.set(ylabel="frames a second", yscale="log")
    fps.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    fps.yaxis.set_minor_locator(NullLocator())
    fps.yaxis.set_major_formatter(_PLAIN)
    fps.legend()
    for axes in memory:
        _draw(axes, rows, lambda row: row.peak_memory_mb, lambda row: row.reference_peak_memory_mb)
        axes.set(ylabel="peak memory, MB")
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    return figure


def _draw(axes: Axes, rows: Sequence[DreamSpeed], fast: Pick, reference: Pick) -> None:
    paths: tuple[tuple[str, Pick, str], ...] = (
        ("fast", fast, "-"),
        ("reference: float32, contiguous, eager", reference, "--"),
    )
    for label, pick, style in paths:
        points = [(row.num_envs, value) for row in rows if (value := pick(row)) is not None]
        numbers, values = [x for x, _ in points], [y for _, y in points]
        axes.plot(numbers, values, style, color="black", marker="o", markersize=4, label=label)
    axes.set(xlabel="dreams at once", xscale="log")
    axes.xaxis.set_major_locator(FixedLocator([row.num_envs for row in rows]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.grid(alpha=0.3)
