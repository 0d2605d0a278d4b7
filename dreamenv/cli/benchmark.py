"""`dreamenv benchmark`: compare with published methods."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from dreamenv.training.benchmark import BenchmarkConfig, benchmark_atari100k


@dataclass(frozen=True)
class Options:
    """Train agents on a benchmark's games, and compare them with published methods.

    What is finished is not run again, and what was interrupted is gone on with.

    Attributes:
        benchmark: Which one.
        config: Which games, how often, and how.
        collect_only: Run nothing; report on the runs that are finished.
    """

    benchmark: Positional[Literal["atari100k"]]
    config: Annotated[BenchmarkConfig, arg(name="")]
    collect_only: bool = False


def run(arguments: Sequence[str]) -> None:
    """Runs `dreamenv benchmark`."""
    options = tyro.cli(Options, prog="dreamenv benchmark", args=list(arguments))
    command = shlex.join(["dreamenv", "benchmark", *arguments])
    benchmark_atari100k(
        options.config, Console(), collect_only=options.collect_only, command=command
    )
