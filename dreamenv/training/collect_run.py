"""Collecting with its progress shown, for `fit-model` and by itself."""

from pathlib import Path

from rich.console import Console

from dreamenv.data import Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.environment import EnvironmentSpec
from dreamenv.progress import ProgressBar, say
from dreamenv.training.collect import CollectConfig, collect, steps_collected
from dreamenv.training.stopping import Stopped, StopRequest, stop_on_signal


def collect_into(
    folder: Path, environment: EnvironmentSpec, config: CollectConfig, console: Console
) -> Replay:
    """Collects into a folder: a new replay, or one of the same environment.

    Args:
        folder: Of the replay.
        environment: What is played.
        config: What to collect.
        console: Where progress is shown.

    Raises:
        Stopped: SIGINT or SIGTERM came; what was collected is kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    with stop_on_signal() as stop, naming_disk_errors(folder):
        replay = Replay.open_or_create(folder, environment)
        print_damaged(replay, console)
        collect_with_progress(replay, config, console, stop, "run the same command to go on")
    say(console, f"next: dreamenv fit-model --dataset {folder}")
    return replay


def print_damaged(replay: Replay, console: Console) -> None:
    """Names the episodes that were skipped."""
    for problem in replay.damaged:
        say(console, f"skipped: {problem}")


def collect_with_progress(
    replay: Replay,
    config: CollectConfig,
    console: Console,
    stop: StopRequest,
    how_to_go_on: str,
) -> None:
    """Collects, and shows how far it has come.

    Args:
        replay: Where the episodes go.
        config: What to collect.
        console: Where progress is shown.
        stop: Asked at every step.
        how_to_go_on: What to say of it when it is stopped.

    Raises:
        Stopped: It was asked to stop.
    """
    done = steps_collected(replay, config)
    if done >= config.steps:
        say(console, f"{done} steps with these settings are in {replay.folder} already")
        return
    with ProgressBar(console, "collect", config.steps, done) as bar:
        if not collect(replay, config, on_step=bar.update, should_stop=stop):
            raise Stopped(
                f"stopped while collecting; {replay.num_steps} steps are kept in {replay.folder}: "
                f"{how_to_go_on}"
            )
    signs = replay.reward_signs
    say(
        console,
        f"collected {replay.num_steps} steps in {replay.num_episodes} episodes, "
        f"{replay.size_on_disk / 1e6:.1f} MB; rewards below 0: {signs.negative}, above: "
        f"{signs.positive}",
    )
