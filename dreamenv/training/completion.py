"""A run brought to its end: what is finished stays, what was begun is gone on with."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dreamenv.errors import ConfigError, FormatError
from dreamenv.training.loop import train
from dreamenv.training.loop_config import TrainConfig
from dreamenv.training.loop_report import TrainResults


def results_file(run: TrainConfig) -> Path:
    """Returns the file that a run leaves when it is finished."""
    return run.run_folder.results


def read_results(run: TrainConfig) -> TrainResults:
    """Reads what came of a finished run.

    Raises:
        FormatError: The file is damaged.
        ConfigError: The run was made with other settings.
    """
    path = results_file(run)
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path} is not JSON ({error}); delete it, and run again") from None
    results = TrainResults.from_dict(data, str(path))
    # Where it was made, and on what, is of no concern.
    made_with = replace(results.settings, out=run.out, device=run.device)
    difference = made_with.first_difference(run)
    if difference is not None:
        raise ConfigError(
            f"{path.parent} was made with {difference}; give the settings it was made with, or "
            f"name another --out"
        )
    return results


def complete(run: TrainConfig, console: Console, command: str = "") -> TrainResults:
    """Makes a run, or goes on with it, unless it is finished.

    Args:
        run: What learns to play what, and how.
        console: Where progress is shown.
        command: The command line, for the model cards.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    if results_file(run).exists():
        return read_results(run)
    return train(
        run,
        console,
        resume=run.run_folder.config.exists(),
        command=command,
        to_go_on="run the same command to go on",
    )
