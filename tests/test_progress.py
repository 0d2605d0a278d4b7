import io
import re

import pytest
from rich.console import Console

from dreamenv.progress import ProgressBar, format_seconds


class Clock:
    """A clock that goes on when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dreamenv.progress.time.monotonic", clock)
    return clock


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_without_a_terminal_a_line_comes_at_intervals_and_at_the_end(
    clock: Clock, console: Console
) -> None:
    with ProgressBar(console, "fit", 100) as bar:
        for step in range(1, 101):
            clock.now += 0.25
            bar.update(step, f"loss {step}")
    assert lines(console) == [
        "fit: 40/100, 4.0/s, 0:00:15 left, loss 40",
        "fit: 80/100, 4.0/s, 0:00:05 left, loss 80",
        "fit: 100/100, 4.0/s, loss 100",
    ]


def test_what_was_done_before_does_not_count_as_speed(clock: Clock, console: Console) -> None:
    with ProgressBar(console, "collect", 1000, done=900) as bar:
        clock.now += 10
        bar.update(950)
        clock.now += 10
        bar.update(1000)
    assert lines(console) == [
        "collect: 950/1000, 5.0/s, 0:00:10 left",
        "collect: 1000/1000, 5.0/s",
        "collect: 1000/1000, 5.0/s",
    ]


def test_while_nothing_is_done_no_time_is_promised(clock: Clock, console: Console) -> None:
    with ProgressBar(console, "collect", 1000, done=900) as bar:
        clock.now += 10
        bar.update(900)
        assert lines(console) == ["collect: 900/1000, 0.0/s"]


def test_an_error_is_not_followed_by_a_line(console: Console) -> None:
    bar = ProgressBar(console, "fit", 10)
    with pytest.raises(KeyError), bar:
        raise KeyError
    assert lines(console) == []


def test_a_terminal_gets_a_bar() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with ProgressBar(console, "fit", 10) as bar:
        bar.update(7, "loss 0.5")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "\n".join(lines(console)))
    assert re.search(r"fit .*7/10 .*/s .*loss 0\.5", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.4, "0:00:59"),
        (59.6, "0:01:00"),
        (3725, "1:02:05"),
        (360000, "100:00:00"),
    ],
)
def test_a_duration_is_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
