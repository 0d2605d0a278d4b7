"""How far a run has come: a bar on a terminal, a line at intervals elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import Self

_SECONDS_A_LINE = 10.0


class ProgressBar:
    """Shows how many of a number of steps are done, their rate, and the time that remains.

    Args:
        console: Where to.
        label: What is done, in a word.
        total: How many steps there are.
        done: How many were done before.
    """

    def __init__(self, console: Console, label: str, total: int, done: int = 0) -> None:
        self._console, self._label, self._total = console, label, total
        self._first, self._done, self._figures = done, done, ""
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, rate="", figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is None and not self._console.is_terminal:
            self._print_line()

    def update(self, done: int, figures: str = "") -> None:
        """Shows the state.

        Args:
            done: How many steps are done.
            figures: What else to show, such as losses.
        """
        self._done, self._figures = done, figures
        self._bar.update(self._task, completed=done, rate=f"{self._rate:.1f}/s", figures=figures)
        due = time.monotonic() - self._last_line >= _SECONDS_A_LINE
        if due and not self._console.is_terminal:
            self._print_line()

    @property
    def _rate(self) -> float:
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._started)

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        line = f"{self._label}: {self._done}/{self._total}, {self._rate:.1f}/s"
        if 0 < self._done < self._total and self._rate > 0:
            line += f", {format_seconds((self._total - self._done) / self._rate)} left"
        say(self._console, f"{line}, {self._figures}" if self._figures else line)


def say(console: Console, line: str) -> None:
    """Prints a line as it is: not coloured, and not broken, so that others can read it."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def format_seconds(seconds: float) -> str:
    """Formats a duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
