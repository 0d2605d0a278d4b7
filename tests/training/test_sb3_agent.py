import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.save_util import load_from_zip_file
from torch import Tensor

from dreamenv.data import Replay
from dreamenv.dream.sb3 import DreamVecEnv
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.training.actor_critic import ActorCriticTrainingConfig
from dreamenv.training.agents import ALGORITHMS as LEARNED_BY
from dreamenv.training.agents import AlgorithmName
from dreamenv.training.experience import Experience
from dreamenv.training.loop import train
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.loop_report import TrainResults
from dreamenv.training.policies import load_policy
from dreamenv.training.sb3_agent import Sb3Agent
from dreamenv.training.training_config import TrainingConfig

from .interrupting import Killed, interrupt, kill

LEVELS: dict[str, Any] = {"channels": (8, 8), "depths": (1, 1), "attention": (False, False)}
ALGORITHMS: tuple[AlgorithmName, ...] = ("ppo", "a2c", "dqn", "recurrent-ppo", "qrdqn", "trpo")
RESUMED: tuple[AlgorithmName, ...] = ("dqn", "recurrent-ppo")  # a buffer, and a memory


@pytest.fixture
def config(catch: EnvironmentSpec, tmp_path: Path) -> TrainConfig:
    """Three epochs: 60, 20 and 0 real steps."""
    return TrainConfig(
        env=catch.id,
        out=str(tmp_path / "run"),
        size=(16,),
        contexts=4,
        checkpoint_every=1,
        device="cpu",
        frame_stack=2,
        schedule=ScheduleConfig(
            first_steps=60,
            first_steps_limit=60,
            first_rewards=0,
            epoch_steps=20,
            steps=80,
            epochs_after=1,
            world_model_steps=1,
            agent_steps=2,
            test_every=2,
            test_episodes=2,
            final_episodes=2,
        ),
        world_model=TrainingConfig(
            steps=2, batch_size=2, reward_end_batch_size=2, reward_end_length=3
        ),
        imagination=ActorCriticTrainingConfig(steps=2, num_envs=3, rollout_length=8),
        denoiser=DenoiserConfig(context_length=2, cond_channels=16, **LEVELS),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=16, **LEVELS),
        sampler=SamplerConfig(num_steps=1),
    )


def run(config: TrainConfig, *, resume: bool = False) -> TrainResults:
    return train(config, Console(file=io.StringIO(), width=120), resume=resume)


def learned(config: TrainConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the weights of the agent of the last epoch, and what SB3 counted."""
    agent = config.run_folder.world_model / "agent.zip"
    data, weights, _ = load_from_zip_file(agent, device="cpu")
    return cast("dict[str, Tensor]", weights["policy"]), data or {}


def assert_same_runs(one: TrainConfig, other: TrainConfig) -> None:
    (mine, counted), (yours, recounted) = learned(one), learned(other)
    for name, tensor in mine.items():
        assert torch.equal(tensor, yours[name]), name
    for name in ("num_timesteps", "_n_updates", "_episode_num"):
        assert counted[name] == recounted[name], name
    worlds = [WorldModel.load(each.run_folder.world_model, bf16=False) for each in (one, other)]
    for a, b in zip(*(world.state_dict().values() for world in worlds), strict=True):
        assert torch.equal(a, b)
    assert Replay.open(one.run_folder.replay).infos == Replay.open(other.run_folder.replay).infos


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm_learns_in_the_loop_and_plays_what_it_leaves(
    config: TrainConfig, catch: EnvironmentSpec, algorithm: AlgorithmName
) -> None:
    config = replace(config, agent=algorithm)
    results = run(config)
    assert results.real_steps == 80
    _, counted = learned(config)
    # Two training steps in each of three epochs, and no more than its own rollouts round them up.
    assert 6 * 3 * 8 <= counted["num_timesteps"] < 7 * 3 * 8
    policy = load_policy(str(config.run_folder.world_model / "agent.zip"), catch, sample=True)
    assert policy is not None
    frames = np.zeros((2, 3, 16, 16), np.uint8)
    assert set(policy.act(frames, np.array([True, True]))) <= {0, 1, 2}


@pytest.mark.parametrize("algorithm", RESUMED)
def test_killed_anywhere_it_goes_on_to_the_same_numbers(
    config: TrainConfig,
    tmp_path: Path,
    algorithm: AlgorithmName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # DQN begins to learn before it is killed; recurrent PPO, which takes long, learns less often.
    changes = {
        "dqn": {"learning_starts": 20, "target_update_interval": 10},
        "recurrent-ppo": {"n_epochs": 1},
    }
    settings = LEARNED_BY[algorithm].settings | changes[algorithm]
    monkeypatch.setitem(LEARNED_BY, algorithm, replace(LEARNED_BY[algorithm], settings=settings))
    whole = replace(config, agent=algorithm)
    run(whole)
    assert learned(whole)[1]["_n_updates"] > 0
    for number, (owner, name, call) in enumerate(
        [
            (Experience, "_step", 30),  # at random, before there is an agent
            (Sb3Agent, "step", 2),  # after a checkpoint within the phase
            (Experience, "_step", 70),  # by the agent
            (Sb3Agent, "step", 3),
        ]
    ):
        killed = replace(whole, out=str(tmp_path / f"killed-{number}"))
        with pytest.raises(Killed):
            interrupt(partial(run, killed), owner, name, call, kill)
        run(killed, resume=True)
        assert_same_runs(whole, killed)


def test_its_chance_is_its_own(config: TrainConfig, tmp_path: Path) -> None:
    ppo = replace(config, agent="ppo")
    other = replace(ppo, out=str(tmp_path / "other"))
    run(ppo)
    np.random.rand(7)  # noqa: NPY002
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    run(other)
    assert_same_runs(ppo, other)
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"]
    assert (before["key"] == after["key"]).all()


def test_its_schedules_span_the_whole_run(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    train_ppo = PPO.train

    def recorded(self: PPO) -> None:
        left.append(self._current_progress_remaining)
        train_ppo(self)

    monkeypatch.setattr(PPO, "train", recorded)
    run(replace(config, agent="ppo"))
    assert left == pytest.approx([1 - number / 6 for number in range(1, 7)])


def test_each_epoch_dreams_begin_anew_in_the_world_as_it_is_by_then(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []
    reset = DreamVecEnv.reset
    agents: list[Sb3Agent] = []
    step = Sb3Agent.step

    def stepped(self: Sb3Agent) -> Any:
        agents.append(self)
        return step(self)

    def counted(self: DreamVecEnv) -> Any:
        resets.append(len(agents))
        return reset(self)

    monkeypatch.setattr(Sb3Agent, "step", stepped)
    monkeypatch.setattr(DreamVecEnv, "reset", counted)
    run(replace(config, agent="dqn"))
    # Once when it enters, and then with the first step of each of three epochs.
    assert resets == [0, 1, 3, 5]


def test_a_replay_buffer_holds_dreams_of_one_epoch_only(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[tuple[int, int]] = []
    end_dreams = Sb3Agent.end_dreams

    def recorded(self: Sb3Agent) -> None:
        before = self._entered.replay_buffer.pos  # type: ignore[attr-defined]
        end_dreams(self)
        filled.append((before, self._entered.replay_buffer.pos))  # type: ignore[attr-defined]

    monkeypatch.setattr(Sb3Agent, "end_dreams", recorded)
    run(replace(config, agent="dqn"))
    assert filled == [(16, 0)] * 3
