"""What a world model is fitted to: episodes that are played for it, or a dataset."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from dreamenv.data import Replay, from_minari
from dreamenv.data.disk import naming_disk_errors
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.real import describe
from dreamenv.training.beginning import check_networks
from dreamenv.training.collect_run import collect_with_progress, print_damaged
from dreamenv.training.fit_config import FitModelConfig
from dreamenv.training.policies import load_policy
from dreamenv.training.run_folder import RunFolder
from dreamenv.training.stopping import StopRequest

_PLAYING = ("collect_steps", "policy", "epsilon", "num_envs", "size", "sticky_actions")


def check_source(config: FitModelConfig) -> None:
    """Checks that there is one thing to learn from.

    Raises:
        ConfigError: Neither an environment nor a dataset is named, or a dataset together with
            how to play.
    """
    if config.env is None and config.dataset is None:
        raise ConfigError("there is nothing to learn from; give --env or --dataset")
    if config.dataset is None:
        return
    for name in _PLAYING:
        if getattr(config, name) != getattr(FitModelConfig, name):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is for playing; leave it out, or leave out --dataset")


def find_environment(config: FitModelConfig) -> EnvironmentSpec:
    """Describes the environment to play, and checks that the player can play it.

    Raises:
        GameError: There is no such environment, or dreamenv cannot learn from it.
        InputError: There is no such player, or it plays something else.
    """
    assert config.env is not None
    environment = describe(config.env, config.height_width, sticky_actions=config.sticky_actions)
    load_policy(config.policy, environment)
    return environment


def obtain_replay(
    config: FitModelConfig, console: Console, stop: StopRequest, *, resume: bool
) -> Replay:
    """Begins a run, or goes on with it, and returns what it learns from.

    A run that is there is removed only once it is sure that the new one has a source, and networks
    that go with its frames.

    Args:
        config: Names the run and its source.
        console: Where progress is shown.
        stop: Asked at every step of collecting.
        resume: Whether the run goes on.

    Raises:
        Stopped: It was asked to stop.
        DreamenvError: There is no such source, or it cannot be kept.
    """
    run = config.run_folder

    def begin(environment: EnvironmentSpec) -> None:
        if resume:
            run.go_on()
            return
        check_networks(config, environment)
        run.begin(config)

    if config.dataset is not None:
        replay = _obtain_dataset(config, run, begin, resume=resume)
        print_damaged(replay, console)
        return replay
    environment = find_environment(config)
    begin(environment)
    replay = Replay.open_or_create(run.replay, environment)
    print_damaged(replay, console)
    collect_with_progress(replay, config.collection, console, stop, "add --resume to go on")
    return replay


def _obtain_dataset(
    config: FitModelConfig,
    run: RunFolder,
    begin: Callable[[EnvironmentSpec], None],
    *,
    resume: bool,
) -> Replay:
    if resume:
        run.go_on()
        return open_dataset(config, run.replay)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.path.parent, prefix=".import-") as imported:
        replay = open_dataset(config, Path(imported) / "replay")
        begin(replay.environment)
        if replay.folder.parent == Path(imported):
            replay.folder.rename(run.replay)
            replay = Replay.open(run.replay)
    return replay


def open_dataset(config: FitModelConfig, imported: Path) -> Replay:
    """Opens the dataset to learn from.

    Args:
        config: Names it.
        imported: Where a Minari dataset is imported to, once. A replay is read where it is.

    Raises:
        InputError: There is no such dataset, or it has not images and discrete actions.
        FormatError: It is damaged, or of another environment.
        DreamenvError: The disk does not let it be read.
    """
    assert config.dataset is not None
    folder = Path(config.dataset)
    with naming_disk_errors(folder):
        if (folder / "index.json").exists():
            replay = Replay.open(folder)
        elif (imported / "index.json").exists():
            replay = Replay.open(imported)
        else:
            replay = from_minari(config.dataset, imported)
    if config.env is not None and config.env != replay.environment.id:
        raise FormatError(
            f"{config.dataset} is a dataset of another environment, {replay.environment.id}; name "
            f"one of {config.env}, or leave out --env"
        )
    return replay
