"""Atari 100k: a run for each game and seed, and the paper's table of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from dreamenv.config import Config
from dreamenv.devices import AUTO
from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.atari100k import Atari100k, Run, references, summarise
from dreamenv.evaluation.atari100k_report import tables, write_report
from dreamenv.evaluation.stratified import scipy_stats
from dreamenv.progress import say
from dreamenv.training.completion import complete, read_results, results_file
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_presets import LoopPresetName, loop_preset
from dreamenv.training.sweep import FailedRun, RayConfig, failed_error, sweep


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """Which games, how often, and how.

    Attributes:
        games: Their names, with commas between them; all 26 if empty.
        seeds: Runs of each game, of the seeds 0, 1, 2 and so on.
        preset: How they are trained.
        out: Folder for the runs, one at GAME/seed-N, and for the report.
        device: Where to learn: auto (CUDA, then MPS, then the CPU) or one by its name.
        ray: Whether the runs are tasks of a Ray cluster. `out` must then be on a disk that all its
            machines share.
    """

    games: str = ""
    seeds: int = 5
    preset: LoopPresetName = "atari100k"
    out: str = "runs/atari100k"
    device: str = AUTO
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1")
        known = [reference.game for reference in references()]
        unknown = [game for game in self.chosen if game not in known]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no game of Atari 100k; give any of {known}")
        if len(set(self.chosen)) < len(self.chosen):
            raise ConfigError(f"games is {self.games!r}; name each game once")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of the games."""
        named = tuple(name.strip() for name in self.games.split(",") if name.strip())
        return named or tuple(reference.game for reference in references())

    @property
    def runs(self) -> tuple[TrainConfig, ...]:
        """The run of each game and seed."""
        return tuple(
            replace(
                loop_preset(self.preset, f"ALE/{game}-v5"),
                seed=seed,
                out=str(Path(self.out) / game / f"seed-{seed}"),
                device=self.device,
            )
            for game in self.chosen
            for seed in range(self.seeds)
        )


def benchmark_atari100k(
    config: BenchmarkConfig, console: Console, *, collect_only: bool = False, command: str = ""
) -> Atari100k:
    """Runs what has not been run yet, and reports on all of it.

    There is one run after the other, or, with Ray, as many at once as the cluster has room for.
    Stopped or killed, it goes on where it was when it is called again.

    Args:
        config: Which games, how often, and how.
        console: Where progress and the tables are shown.
        collect_only: Run nothing; report on the runs that are finished.
        command: The command line, for the model cards.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: A run cannot be made, one was made with other settings, or there is none to
            report on. Where tasks of Ray failed, the others are finished and reported on first.
    """
    if collect_only and config.ray.address is not None:
        raise ConfigError("collect_only runs nothing; leave out --ray")
    # What is wrong is better known before the first run than after the last.
    scipy_stats()
    for run in config.runs:
        if results_file(run).exists():
            read_results(run)
    failed = () if collect_only else _make_runs(config, console, command)
    finished = [run for run in config.runs if results_file(run).exists()]
    if failed and not finished:
        raise failed_error(failed, config.ray)
    result = _report(config, finished, console)
    if failed:
        raise failed_error(failed, config.ray)
    return result


def _make_runs(config: BenchmarkConfig, console: Console, command: str) -> tuple[FailedRun, ...]:
    """Makes the runs that are not finished, and returns those that tasks of Ray failed at."""
    left = [run for run in config.runs if not results_file(run).exists()]
    if config.ray.address is not None:
        return sweep(left, config.ray, console, command)
    for run in left:
        say(console, f"{run.env}, seed {run.seed}:")
        complete(run, console, command)
    return ()


def _report(
    config: BenchmarkConfig, finished: Sequence[TrainConfig], console: Console
) -> Atari100k:
    if not finished:
        raise FormatError(f"{config.out} has no finished run; leave out --collect-only")
    result = summarise([_scores(run) for run in finished])
    for table in tables(result):
        console.print(table)
    say(
        console,
        f"{len(finished)} of {len(config.runs)} runs: {write_report(result, Path(config.out))}",
    )
    return result


def _scores(run: TrainConfig) -> Run:
    games = read_results(run).agent.games
    return Run(run.game, run.seed, tuple(game.score for game in games))
