"""Atari 100k: a run for each game and seed, and the paper's table of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from dreamenv.config import Config
from dreamenv.devices import AUTO
from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.atari100k import Atari100k, Run, references, summarise
from dreamenv.evaluation.atari100k_report import tables, write_report
from dreamenv.evaluation.stratified import scipy_stats
from dreamenv.progress import say
from dreamenv.training.loop import RESULTS_FILE, TrainResults, train
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_presets import LoopPresetName, loop_preset


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """Which games, how often, and how.

    Attributes:
        games: Their names, with commas between them; all 26 if empty.
        seeds: Runs of each game, of the seeds 0, 1, 2 and so on.
        preset: How they are trained.
        out: Folder for the runs, one at GAME/seed-N, and for the report.
        device: Where to learn: auto (CUDA, then MPS, then the CPU) or one that torch knows.
    """

    games: str = ""
    seeds: int = 5
    preset: LoopPresetName = "atari100k"
    out: str = "runs/atari100k"
    device: str = AUTO

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
    """Runs what has not been run yet, one after the other, and reports on all of it.

    Stopped or killed, it goes on where it was when it is called again.

    Args:
        config: Which games, how often, and how.
        console: Where progress and the tables are shown.
        collect_only: Run nothing; report on the runs that are finished.
        command: The command line, for the model cards.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: A run cannot be made, or there is none to report on.
    """
    scipy_stats()  # That it is missing is better known before the first run than after the last.
    if not collect_only:
        for run in config.runs:
            _complete(run, console, command)
    finished = [run for run in config.runs if _results(run).exists()]
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


def _complete(run: TrainConfig, console: Console, command: str) -> None:
    """Makes a run, or goes on with it, unless it is finished."""
    if _results(run).exists():
        return
    say(console, f"{run.env}, seed {run.seed}:")
    train(run, console, resume=run.run_folder.config.exists(), command=command)


def _results(run: TrainConfig) -> Path:
    return run.run_folder.path / RESULTS_FILE


def _scores(run: TrainConfig) -> Run:
    path = _results(run)
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path} is not JSON ({error}); delete it, and run again") from None
    results = TrainResults.from_dict(data, str(path))
    return Run(run.game, run.seed, tuple(game.score for game in results.agent.games))
