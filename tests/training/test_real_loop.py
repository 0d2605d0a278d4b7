import io
import json
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3.common.save_util import load_from_zip_file
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor

from dreamenv.cli import evaluate_agent as evaluate_agent_command
from dreamenv.cli import train as train_command
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.actor_critic_file import load_actor_critic
from dreamenv.real import RealVectorEnv
from dreamenv.training import checkpoint, loop_report
from dreamenv.training.actor_critic import ActorCriticTrainer, ActorCriticTrainingConfig
from dreamenv.training.agents import ALGORITHMS
from dreamenv.training.completion import complete, read_results
from dreamenv.training.loop import train
from dreamenv.training.loop_config import AgentName, ScheduleConfig, TrainConfig
from dreamenv.training.loop_dry_run import loop_dry_run
from dreamenv.training.loop_report import TrainResults
from dreamenv.training.policies import load_policy
from dreamenv.training.real_games import RealGames
from dreamenv.training.real_loop import RealLoop
from dreamenv.training.sb3_agent import Sb3Agent
from dreamenv.training.stopping import Stopped

from .interrupting import Killed, interrupt, kill

# Five training steps of 18 real steps, with tests after the second, the fourth and the last.
SCHEDULE = ScheduleConfig(
    first_steps=1,
    first_steps_limit=1,
    epoch_steps=15,
    steps=80,
    test_every=2,
    test_episodes=2,
    final_episodes=3,
)
TESTS = [36, 72, 90]


@pytest.fixture(autouse=True)
def learning_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets DQN learn from its first steps on, not from its thousandth."""
    dqn = ALGORITHMS["dqn"]
    settings = dqn.settings | {"learning_starts": 20, "target_update_interval": 10}
    monkeypatch.setitem(ALGORITHMS, "dqn", replace(dqn, settings=settings))


@pytest.fixture
def config(catch: EnvironmentSpec, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        env=catch.id,
        out=str(tmp_path / "run"),
        size=(16,),
        checkpoint_every=3,
        device="cpu",
        frame_stack=2,
        real=True,
        schedule=SCHEDULE,
        imagination=ActorCriticTrainingConfig(num_envs=3, rollout_length=6),
        actor_critic=ActorCriticConfig(channels=(8, 8), downsample=(True, True), lstm_dim=16),
    )


def run(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False
) -> tuple[TrainResults, str]:
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    return train(config, console, resume=resume, overwrite=overwrite), printed.getvalue()


def curve(config: TrainConfig, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(config.run_folder.path)).Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def counted(folder: Path) -> dict[str, int]:
    """Returns what SB3 counted; nothing for an actor-critic."""
    if not (folder / "agent.zip").exists():
        return {}
    data = load_from_zip_file(folder / "agent.zip", device="cpu")[0] or {}
    return {name: data[name] for name in ("num_timesteps", "_n_updates", "_episode_num")}


def weights(folder: Path) -> dict[str, Tensor]:
    if (folder / "agent.zip").exists():
        loaded = load_from_zip_file(folder / "agent.zip", device="cpu")[1]
        return cast("dict[str, Tensor]", loaded["policy"])
    return load_actor_critic(folder).state_dict()


def assert_same_runs(one: TrainConfig, other: TrainConfig) -> None:
    mine, yours = one.run_folder, other.run_folder
    for folder, twin in ((mine.agent, yours.agent), (mine.best, yours.best)):
        a, b = weights(folder), weights(twin)
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert torch.equal(tensor, b[name]), name
        assert counted(folder) == counted(twin)
    tests = [f"evaluation/steps-{steps:09d}.json" for steps in TESTS]
    for name in ("results.json", *tests):
        a, b = (json.loads((run.path / name).read_text()) for run in (mine, yours))
        for data in (a, b):
            data.pop("settings", None)  # they name the folder
        assert a == b, name


# What a run does, and leaves.


@pytest.mark.parametrize("agent", ["diamond", "ppo", "dqn"])
def test_an_agent_learns_in_the_real_game_and_plays_what_it_leaves(
    config: TrainConfig, catch: EnvironmentSpec, agent: AgentName
) -> None:
    config = replace(config, agent=agent)
    results, printed = run(config)
    folder = config.run_folder
    assert results.real_steps == 90
    assert len(results.agent.games) == len(results.random.games) == 3
    assert read_results(config) == results
    tested = [line for line in printed.splitlines() if "best" in line and "score" in line]
    assert [int(line.split()[0]) for line in tested] == TESTS
    for shown in ("Test/Catch-v0, raw scores", "real steps: 90", f"--logdir {folder.path}"):
        assert shown in printed
    name = str(folder.best if agent == "diamond" else folder.best / "agent.zip")
    assert f"next: dreamenv evaluate-agent {name} --env Test/Catch-v0 --size 16" in printed
    assert counted(folder.agent).get("num_timesteps", 90) == 90
    assert counted(folder.agent).get("_n_updates", 1) > 0
    policy = load_policy(name, catch, sample=True)
    assert policy is not None
    frames = np.zeros((2, 3, 16, 16), np.uint8)
    assert set(policy.act(frames, np.array([True, True]))) <= {0, 1, 2}
    left = {path.name for path in folder.path.iterdir() if not path.name.startswith("events")}
    assert left == {"config.json", "results.json", "agent", "best", "checkpoint", "evaluation"}


def test_the_command_names_another_that_plays_what_it_leaves(
    catch: EnvironmentSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        f"--real --env {catch.id} --preset tiny --size 16 --device cpu "
        "--imagination.num-envs 4 --imagination.rollout-length 125"
    )
    train_command.run(words.split())
    told = capsys.readouterr().out.splitlines()[-1]
    best = "runs/Test-Catch-real/best"
    assert told == f"next: dreamenv evaluate-agent {best} --env Test/Catch-v0 --size 16"
    evaluate_agent_command.run([*told.split()[3:], "--episodes", "2"])
    assert best in capsys.readouterr().out


def test_its_curves_tell_steps_scores_and_losses(config: TrainConfig) -> None:
    run(config)
    assert curve(config, "real/steps") == [(step, 18 * step) for step in range(1, 6)]
    assert [step for step, _ in curve(config, "test/score")] == [2, 4, 5]
    assert [step for step, _ in curve(config, "agent/entropy")] == [1, 2, 3, 4, 5]
    scores = curve(config, "real/score")
    assert scores
    assert all(-1 <= score <= 1 for _, score in scores)


def test_the_best_agent_is_that_of_the_best_test(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.25, 0.5])
    saved: list[dict[str, Tensor]] = []

    def test(_self: Any, agent: Any, *_: Any) -> float:
        saved.append({name: each.clone() for name, each in agent._network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(loop_report.LoopReport, "test", test)
    _, printed = run(config)
    assert "72 real steps: score 0.25, best 0.50" in printed
    for folder, number in ((config.run_folder.best, 0), (config.run_folder.agent, 2)):
        for name, tensor in weights(folder).items():
            assert torch.equal(tensor, saved[number][name]), (folder, name)


def test_rollouts_of_an_algorithm_that_do_not_end_with_a_step_are_rounded_up(
    config: TrainConfig,
) -> None:
    # Seven steps of 12 real steps, from rollouts of 15: the fifth has them already.
    imagination = replace(config.imagination, rollout_length=4)
    config = replace(config, agent="a2c", imagination=imagination)
    results, _ = run(config)
    assert results.real_steps == 90
    made = [(1, 15), (2, 30), (3, 45), (4, 60), (6, 75), (7, 90)]
    assert curve(config, "real/steps") == made


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    config: TrainConfig, tmp_path: Path
) -> None:
    one, twin, other = (
        replace(config, out=str(tmp_path / name), seed=seed)
        for name, seed in (("one", 0), ("twin", 0), ("other", 1))
    )
    for each in (one, twin, other):
        run(each)
    assert_same_runs(one, twin)
    mine, yours = weights(one.run_folder.agent), weights(other.run_folder.agent)
    assert any(not torch.equal(tensor, yours[name]) for name, tensor in mine.items())


# Interrupted.


def ask_to_stop() -> None:
    signal.raise_signal(signal.SIGINT)


KILLS: dict[AgentName, list[tuple[Any, str, int]]] = {
    "diamond": [
        (ActorCriticTrainer, "step", 1),  # before there is any checkpoint
        (RealGames, "step", 16),  # in a rollout, after a test
        (ActorCriticTrainer, "step", 4),  # after a checkpoint between tests
        (loop_report, "play_games", 2),  # a test
        (RealLoop, "_save_agent", 3),  # between the two folders
        (checkpoint, "atomic_file", 2),
        (loop_report, "play_games", 4),  # the games at the end
    ],
    "dqn": [(RealGames, "step", 16), (Sb3Agent, "step", 4)],
    "ppo": [(RealGames, "step", 16)],
}


@pytest.mark.parametrize("agent", list(KILLS))
def test_killed_anywhere_it_goes_on_to_the_same_numbers(
    config: TrainConfig, tmp_path: Path, agent: AgentName
) -> None:
    whole = replace(config, agent=agent)
    run(whole)
    for number, (owner, name, call) in enumerate(KILLS[agent]):
        killed = replace(whole, out=str(tmp_path / f"killed-{number}"))
        with pytest.raises(Killed):
            interrupt(partial(run, killed), owner, name, call, kill)
        run(killed, resume=True)
        assert_same_runs(whole, killed)


@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"),
    [
        (RealGames, "step", 3, 18),
        (RealVectorEnv, "step", 16, 36),  # the first test
    ],
)
def test_asked_to_stop_it_goes_on_to_the_same_numbers(
    config: TrainConfig, tmp_path: Path, owner: Any, name: str, call: int, steps: int
) -> None:
    whole = replace(config, out=str(tmp_path / "whole"))
    run(whole)
    with pytest.raises(Stopped, match=f"^stopped after {steps} real steps: add --resume to go on"):
        interrupt(partial(run, config), owner, name, call, ask_to_stop)
    state = checkpoint.load_checkpoint(config.run_folder.checkpoint)
    assert state is not None
    assert state["games"]["steps"] == steps
    run(config, resume=True)
    assert_same_runs(whole, config)


def test_what_is_to_be_completed_is_gone_on_with_by_the_same_command(config: TrainConfig) -> None:
    completing = partial(complete, config, Console(file=io.StringIO()))
    with pytest.raises(Stopped, match=r"18 real steps: run the same command to go on$"):
        interrupt(completing, RealGames, "step", 3, ask_to_stop)


def test_a_run_is_neither_lost_nor_mixed_up(config: TrainConfig) -> None:
    with pytest.raises(FormatError, match="leave out --resume"):
        run(config, resume=True)
    run(config)
    with pytest.raises(FormatError, match=r"holds a run already; add --resume .* --overwrite"):
        run(config)
    with pytest.raises(ConfigError, match="was begun with real True, not False"):
        run(replace(config, real=False), resume=True)
    first = (config.run_folder.results).read_text()
    run(config, resume=True)
    assert (config.run_folder.results).read_text() == first
    run(config, overwrite=True)
    assert (config.run_folder.results).read_text() == first
    assert complete(config, Console(file=io.StringIO())) == read_results(config)


# What it would cost.


def test_a_dry_run_times_steps_in_real_games_and_leaves_nothing(config: TrainConfig) -> None:
    printed = io.StringIO()
    loop_dry_run(config, Console(file=printed, width=120))
    rows = [line.split("│") for line in printed.getvalue().splitlines() if "│" in line]
    times = {row[1].strip(): row[2].strip() for row in rows}
    # Three tests of two games, and three games of two players at the end.
    assert times["steps of the agent in real games"] == "5"
    assert times["games of tests"] == "12"
    assert not config.run_folder.path.exists()
