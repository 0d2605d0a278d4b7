"""What `dreamenv train` would cost on the machine at hand."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dreamenv.data import Replay
from dreamenv.devices import resolve_device
from dreamenv.environment import EnvironmentSpec
from dreamenv.evaluation.real_scores import PlayConfig, play_games
from dreamenv.models.world_model import WorldModel
from dreamenv.progress import format_seconds
from dreamenv.real import describe
from dreamenv.training.experience import Experience
from dreamenv.training.learning import Learning
from dreamenv.training.loop_agent import LoopAgent
from dreamenv.training.loop_agents import make_loop_agent
from dreamenv.training.loop_config import TrainConfig, architecture
from dreamenv.training.real_games import RealGames

_TIMED_PLAY = 100
_TIMED_STEPS = 3
_LONG = 5.0  # seconds


@dataclass(frozen=True)
class _Part:
    """Something that is done again and again.

    Attributes:
        name: What.
        times: How often in all.
        seconds: How long each time.
    """

    name: str
    times: int
    seconds: float

    @property
    def total(self) -> float:
        return self.times * self.seconds


def loop_dry_run(config: TrainConfig, console: Console) -> None:
    """Prints an estimate from a few timed steps, with the share of each part; leaves nothing.

    Args:
        config: What would learn to play what, and how.
        console: Where to print.

    Raises:
        DreamenvError: The environment cannot be made, or the settings do not fit it.
    """
    environment = describe(config.env, config.height_width, sticky_actions=config.sticky_actions)
    parts = (_time_real if config.real else _time_loop)(config, environment)
    total = sum(part.total for part in parts)
    columns = ("part", "times", "seconds each", "in all", "share")
    table = Table(*columns, title=f"train: {config.env} on {resolve_device(config.device)}")
    for part in parts:
        share = f"{part.total / total:.1%}"
        hours = format_seconds(part.total)
        table.add_row(part.name, f"{part.times:,}", f"{part.seconds:.4f}", hours, share)
    table.add_row("all", "", "", format_seconds(total), "100%")
    console.print(table)


def _time_loop(config: TrainConfig, environment: EnvironmentSpec) -> tuple[_Part, ...]:
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay.create(Path(folder) / "replay", environment, held_out_every=None)
        return _time_parts(config, environment, replay)


def _time_real(config: TrainConfig, environment: EnvironmentSpec) -> tuple[_Part, ...]:
    schedule, steps = config.schedule, config.real_training_steps
    torch.manual_seed(config.seed)
    agent = make_loop_agent(config, environment, resolve_device(config.device))
    games = RealGames(environment, config.imagination.num_envs, config.seed)
    try:
        agent.enter_games(games, steps)
        act = _time(lambda: agent.step()["reward"].item(), _TIMED_STEPS)
    finally:
        games.close()
    tests = min(steps, -(-schedule.steps // (schedule.test_every * schedule.epoch_steps)))
    return (
        _Part("steps of the agent in real games", steps, act),
        _games_of_tests(config, environment, agent, tests),
    )


def _time_parts(
    config: TrainConfig, environment: EnvironmentSpec, replay: Replay
) -> tuple[_Part, ...]:
    device, schedule = resolve_device(config.device), config.schedule
    torch.manual_seed(config.seed)
    world_model = WorldModel(architecture(config, environment)).to(device)
    agent = make_loop_agent(config, environment, device)
    experience = Experience(replay)
    try:
        play = _time(partial(experience.collect, agent.player, _TIMED_PLAY), 1) / _TIMED_PLAY
    finally:
        experience.close()
    epochs = schedule.epochs(schedule.first_steps)
    learning = Learning(config, world_model, agent, replay, device, epochs)
    fit = _time(lambda: learning.fit_step()["denoiser"].item(), _TIMED_STEPS)
    act = _time(lambda: agent.step()["reward"].item(), _TIMED_STEPS)
    tests = -(-epochs // schedule.test_every)
    return (
        _Part("real steps", schedule.steps, play),
        _Part("steps of the world model", learning.fit_steps, fit),
        _Part("steps of the agent", learning.agent_steps, act),
        _games_of_tests(config, environment, agent, tests),
    )


def _games_of_tests(
    config: TrainConfig, environment: EnvironmentSpec, agent: LoopAgent, tests: int
) -> _Part:
    schedule, policy = config.schedule, agent.new_player(config.seed)
    game = _time(lambda: play_games(environment, policy, PlayConfig(episodes=1), player="agent"), 1)
    games = tests * schedule.test_episodes + 2 * schedule.final_episodes
    return _Part("games of tests", games, game)


def _time(act: Callable[[], object], times: int) -> float:
    """Returns the seconds of one call.

    The first one, which allocates, does not count, but where it takes so long that it is the one.
    """
    started = time.perf_counter()
    act()
    first = time.perf_counter() - started
    if first > _LONG:
        return first
    started = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - started) / times
