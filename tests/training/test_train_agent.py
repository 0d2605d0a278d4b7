import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch
from rich.console import Console
from stable_baselines3 import PPO

from dreamenv import Contexts, WorldModel
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, GameError, InputError
from dreamenv.evaluation.real_scores import PlayConfig
from dreamenv.models.world_model import Origin
from dreamenv.real.policy import RandomPolicy
from dreamenv.training import agent_film
from dreamenv.training import train_agent as module
from dreamenv.training.evaluate_agent import AgentScores, evaluate_agent
from dreamenv.training.stopping import Stopped
from dreamenv.training.train_agent import TrainAgentConfig, TrainAgentResults, train_agent

from .printing import printed

TinyModel = Callable[..., WorldModel]
NewWorld = Callable[..., str]


@pytest.fixture
def new_world(tmp_path: Path, tiny_model: TinyModel) -> NewWorld:
    """Saves a tiny world model of that environment, and returns its folder."""

    def make(environment: EnvironmentSpec | None) -> str:
        model, folder = tiny_model(), tmp_path / "worlds" / "Tiny"
        model.origin = Origin(environment=environment)
        frames = torch.randint(0, 256, (4, 2, 3, 16, 16), dtype=torch.uint8)
        contexts = Contexts(frames, torch.zeros(4, 2, dtype=torch.int64))
        model.eval().save(folder, also=contexts.save)
        return str(folder)

    return make


@pytest.fixture
def config(tmp_path: Path, new_world: NewWorld, catch: EnvironmentSpec) -> TrainAgentConfig:
    """An agent that learns next to nothing of the toy game."""
    return TrainAgentConfig(
        world_model=new_world(catch),
        steps=256,
        num_envs=2,
        horizon=5,
        frame_stack=2,
        episodes=4,
        device="cpu",
        out=str(tmp_path / "out"),
    )


@pytest.fixture(autouse=True)
def _short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_film, "_LENGTH", 6)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_leaves_an_agent_its_results_its_curves_and_a_film(
    config: TrainAgentConfig, console: Console, catch: EnvironmentSpec
) -> None:
    results = train_agent(config, console)
    out = Path(str(config.out))
    # TensorBoard's names end in how many such files the process has opened.
    kept = sorted(path.name for path in out.iterdir() if "tfevents" not in path.name)
    assert kept == ["agent.gif", "agent.zip", "results.json"]
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    read = json.loads((out / "results.json").read_text())
    assert TrainAgentResults.from_dict(read, "results.json") == results
    assert (results.steps, results.environment, results.settings) == (256, catch, config)
    players = (results.random, results.before, results.after)
    assert [each.player for each in players] == ["random", "untrained agent", "trained agent"]
    assert all(each.score.count == 4 for each in players)
    frames = imageio.imread(out / "agent.gif")
    assert frames.shape == (6, 256, 520, 3)
    for shown in ("train: 256/256", "reward a dream", "trained agent", str(out / "agent.zip")):
        assert shown in printed(console)


def test_the_agent_that_is_left_is_the_one_that_was_measured(
    config: TrainAgentConfig, console: Console, catch: EnvironmentSpec, tmp_path: Path
) -> None:
    results = train_agent(config, console)
    agent, out = str(config.folder.agent), tmp_path / "scores" / "scores.json"
    scores = evaluate_agent(agent, catch, config.play, console, out=out)
    player, random = scores.players
    assert player.games == results.after.games
    assert random == results.random
    assert AgentScores.from_dict(json.loads(out.read_text()), "scores.json") == scores


def test_nothing_is_compiled_for_a_dream_of_no_game(
    config: TrainAgentConfig, console: Console, new_world: NewWorld
) -> None:
    nameless = replace(config, world_model=new_world(None), compile=True)
    with pytest.raises(FormatError, match="does not say what it dreams of"):
        train_agent(nameless, console)
    assert printed(console) == ""


def test_the_same_seed_gives_the_same_agent(
    config: TrainAgentConfig, console: Console, tmp_path: Path
) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        settings = replace(config, out=str(tmp_path / name), seed=seed)
        train_agent(settings, console)
        state: dict[str, torch.Tensor] = PPO.load(settings.folder.agent).policy.state_dict()
        return state

    first, again, other = weights("first", 3), weights("again", 3), weights("other", 4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_folder_that_may_not_be_read_is_told_in_one_line(
    config: TrainAgentConfig, console: Console, locked: set[Path]
) -> None:
    locked.add(config.folder.path)
    with pytest.raises(DreamenvError, match="out: Permission denied; name another"):
        train_agent(config, console)


def test_an_agent_that_is_there_is_replaced_only_where_that_is_asked_for(
    config: TrainAgentConfig, console: Console
) -> None:
    folder = Path(str(config.out))
    folder.mkdir()
    for name in ("agent.zip", "notes.txt", "events.out.tfevents.1.old"):
        (folder / name).write_text("old")
    with pytest.raises(FormatError, match=r"out is there already; add --overwrite"):
        train_agent(config, console)
    assert (folder / "agent.zip").read_text() == "old"
    train_agent(config, console, overwrite=True)
    assert (folder / "notes.txt").read_text() == "old"
    assert not (folder / "events.out.tfevents.1.old").exists()
    assert PPO.load(folder / "agent.zip").num_timesteps == 256


def test_a_file_in_the_place_of_the_folder_is_named(
    config: TrainAgentConfig, console: Console
) -> None:
    Path(str(config.out)).write_text("")
    with pytest.raises(FormatError, match="out is a file; add --out"):
        train_agent(config, console, overwrite=True)


def test_stopped_while_training_it_keeps_the_agent_so_far(
    config: TrainAgentConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(callback: Any) -> bool:
        if callback.num_timesteps == 100:
            interrupt()
        return on_step(callback)

    on_step = module._Callback._on_step
    monkeypatch.setattr(module._Callback, "_on_step", step)
    with pytest.raises(Stopped, match=r"after 100 of 1000 steps; .* so far is .*agent\.zip"):
        train_agent(replace(config, steps=1000), console)
    assert PPO.load(config.folder.agent).num_timesteps == 100
    assert not config.folder.results.exists()


def test_stopped_before_training_it_leaves_nothing(
    config: TrainAgentConfig, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomPolicy, "__init__", lambda *_: interrupt())
    monkeypatch.setattr(RandomPolicy, "act", lambda *_: [0, 0, 0, 0])
    with pytest.raises(Stopped, match="nothing to keep"):
        train_agent(config, console)
    assert not config.folder.path.exists()


def test_a_world_that_does_not_say_what_it_dreams_of_is_refused(
    config: TrainAgentConfig, console: Console, new_world: NewWorld
) -> None:
    new_world(None)
    with pytest.raises(FormatError, match="Tiny does not say what it dreams of"):
        train_agent(config, console)


def test_a_real_environment_that_is_not_there_is_named_before_anything_is_written(
    config: TrainAgentConfig, console: Console, new_world: NewWorld, catch: EnvironmentSpec
) -> None:
    new_world(replace(catch, id="Test/Nowhere-v0"))
    with pytest.raises(GameError, match="Test/Nowhere-v0"):
        train_agent(config, console)
    assert not config.folder.path.exists()


def test_a_world_model_that_is_not_there_is_named(console: Console) -> None:
    with pytest.raises(FormatError, match="there is no world model 'Nowhere'"):
        train_agent(TrainAgentConfig(env="DreamEnv/Nowhere-v0"), console)


def test_more_frames_than_a_context_has_are_refused(
    config: TrainAgentConfig, console: Console
) -> None:
    with pytest.raises(ConfigError, match="frame_stack is 3; it must be from 1 to 2"):
        train_agent(replace(config, frame_stack=3), console)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"world_model": None}, "give --env or --world-model"),
        ({"steps": 0}, "steps is 0"),
        ({"episodes": 0}, "episodes is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    config: TrainAgentConfig, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(config, **settings)


@pytest.mark.parametrize(
    ("settings", "out"),
    [
        ({"env": "DreamEnv/Pong-v0"}, "runs/Pong-ppo"),
        ({"env": "Pong", "algo": "dqn"}, "runs/Pong-dqn"),
        ({"world_model": "worlds/Mine"}, "runs/Mine-ppo"),
        ({"world_model": "runs/Pong/world_model"}, "runs/Pong-ppo"),
        ({"world_model": "runs/Pong/best"}, "runs/Pong-best-ppo"),
        ({"env": "Pong", "out": "there"}, "there"),
    ],
)
def test_the_folder_is_named_after_the_world_and_the_algorithm(
    settings: dict[str, Any], out: str
) -> None:
    assert TrainAgentConfig(**settings).folder.path == Path(out)


def test_random_play_is_measured_once(catch: EnvironmentSpec, console: Console) -> None:
    scores = evaluate_agent("random", catch, PlayConfig(3, 2), console)
    assert [each.player for each in scores.players] == ["random"]
    assert printed(console).count("│ random") == 1


def test_an_agent_of_another_game_is_refused(
    config: TrainAgentConfig, console: Console, catch: EnvironmentSpec
) -> None:
    train_agent(config, console)
    other = replace(catch, obs_shape=(3, 20, 20))
    with pytest.raises(InputError, match=r"agent\.zip plays .*Catch-v0 has frames \[3, 20, 20\]"):
        evaluate_agent(str(config.folder.agent), other, PlayConfig(3, 2), console)
