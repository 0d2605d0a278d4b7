import io
import itertools
import json
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from rich.console import Console
from torch import Tensor

import dreamenv
from dreamenv.data import Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.actor_critic_file import load_actor_critic
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.real import RealVectorEnv
from dreamenv.training import checkpoint, loop_report
from dreamenv.training.actor_critic import ActorCriticTrainer, ActorCriticTrainingConfig
from dreamenv.training.completion import complete
from dreamenv.training.experience import Experience
from dreamenv.training.loop import train
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig
from dreamenv.training.loop_report import TrainResults
from dreamenv.training.stopping import Stopped
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import WorldModelTrainer

from .interrupting import Killed, interrupt, kill

LEVELS: dict[str, Any] = {"channels": (8, 8), "depths": (1, 1), "attention": (False, False)}
ONE_STEP = ActorCriticTrainingConfig(steps=3, num_envs=1, rollout_length=1)
SCHEDULE = ScheduleConfig(
    first_steps=60,
    first_steps_limit=80,
    first_rewards=1,
    epoch_steps=20,
    steps=110,
    epochs_after=1,
    world_model_steps=2,
    agent_steps=2,
    test_every=2,
    test_episodes=2,
    final_episodes=3,
)


@dataclass
class Finished:
    """A run from its beginning to its end."""

    config: TrainConfig
    results: TrainResults
    printed: str


@pytest.fixture(scope="module")
def finished(catch: EnvironmentSpec, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that nothing interrupted, of five epochs: 60, 20, 20, 10 and 0 real steps."""
    config = TrainConfig(
        env=catch.id,
        out=str(tmp_path_factory.mktemp("whole") / "run"),
        size=(16,),
        contexts=4,
        checkpoint_every=2,
        device="cpu",
        schedule=SCHEDULE,
        world_model=TrainingConfig(
            steps=5, batch_size=2, reward_end_batch_size=2, reward_end_length=3, ema_decay=0.9
        ),
        imagination=ActorCriticTrainingConfig(steps=3, num_envs=3, rollout_length=4),
        denoiser=DenoiserConfig(context_length=2, cond_channels=16, **LEVELS),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=16, **LEVELS),
        sampler=SamplerConfig(num_steps=1),
        actor_critic=ActorCriticConfig(channels=(8, 8), downsample=(True, True), lstm_dim=16),
    )
    return Finished(config, *run(config))


@pytest.fixture
def whole(finished: Finished) -> TrainConfig:
    """What a run that nothing interrupted was asked for; for looking at what it left only."""
    return finished.config


@pytest.fixture
def config(whole: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The same run, not begun yet."""
    return replace(whole, out=str(tmp_path / "run"))


def run(
    config: TrainConfig, *, resume: bool = False, overwrite: bool = False
) -> tuple[TrainResults, str]:
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    return train(config, console, resume=resume, overwrite=overwrite), printed.getvalue()


def weights(folder: Path) -> dict[str, Tensor]:
    networks = WorldModel.load(folder, bf16=False), load_actor_critic(folder)
    return {
        f"{number}.{name}": tensor
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def assert_same_runs(one: TrainConfig, other: TrainConfig) -> None:
    mine, yours = one.run_folder, other.run_folder
    for folder, twin in ((mine.world_model, yours.world_model), (mine.best, yours.best)):
        a, b = weights(folder), weights(twin)
        assert a.keys() == b.keys()
        for name, tensor in a.items():
            assert torch.equal(tensor, b[name]), name
    assert Replay.open(mine.replay).infos == Replay.open(yours.replay).infos
    for name in ("results.json", "evaluation/epoch-00002.json", "evaluation/epoch-00005.json"):
        a, b = (json.loads((run.path / name).read_text()) for run in (mine, yours))
        for data in (a, b):
            data.pop("settings", None)  # they name the folder
        assert a == b, name


def test_it_goes_through_the_epochs_of_the_schedule(finished: Finished) -> None:
    results, printed = finished.results, finished.printed
    assert results.real_steps == 110
    assert "epoch 2 of 5, 80 real steps: score" in printed
    assert "epoch 4 of 5, 110 real steps: score" in printed
    assert "epoch 5 of 5, 110 real steps: score" in printed
    assert "epoch 3" not in "".join(line for line in printed.splitlines() if "best" in line)
    assert len(results.agent.games) == len(results.random.games) == 3
    replay = Replay.open(finished.config.run_folder.replay)
    assert replay.num_steps == 110
    # As published, nothing is held out of so little.
    assert not any(info.held_out for info in replay.infos)


def test_each_epoch_trains_for_its_steps(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for trainer, name in ((WorldModelTrainer, "w"), (ActorCriticTrainer, "a")):
        step = trainer.step

        def count(self: Any, *batches: Any, step: Any = step, name: str = name) -> Any:
            done.append(name)
            return step(self, *batches)

        monkeypatch.setattr(trainer, "step", count)
    run(config)
    runs = [(name, len(list(some))) for name, some in itertools.groupby(done)]
    assert runs == [("w", 5), ("a", 3)] + [("w", 2), ("a", 2)] * 4


def test_the_first_epoch_collects_until_it_has_rewards_or_its_limit(config: TrainConfig) -> None:
    greedy = replace(config, schedule=replace(SCHEDULE, first_rewards=1000))
    _, printed = run(greedy)
    # 60, then 20 more to the limit; that leaves 30 of the 110, in two epochs, and one after.
    assert "epoch 4 of 4, 110 real steps" in printed


def test_what_it_leaves_can_be_dreamt_of_and_played(finished: Finished) -> None:
    left = finished.config.run_folder
    assert f'dreamenv.DreamEnv(world_model="{left.best}")' in finished.printed
    for folder in (left.best, left.world_model):
        env = gymnasium.make("DreamEnv/Pong-v0", world_model=str(folder))
        obs, _ = env.reset(seed=0)
        assert obs.shape == (16, 16, 3)
        network = load_actor_critic(folder)
        frame = torch.zeros(1, 3, 16, 16)
        assert network(frame, network.initial_state(1)).logits.shape == (1, 3)
        assert "dreamenv.DreamEnv" in (folder / "README.md").read_text()
    assert dreamenv.DreamEnv(world_model=str(left.best)).reset(seed=0)[0].any()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    config: TrainConfig, whole: TrainConfig, tmp_path: Path
) -> None:
    other = replace(config, out=str(tmp_path / "other"), seed=1)
    run(config)
    run(other)
    assert_same_runs(whole, config)
    one, two = (weights(each.run_folder.world_model) for each in (config, other))
    assert any(not torch.equal(tensor, two[name]) for name, tensor in one.items())


def ask_to_stop() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Experience, "_step", 25),  # collecting for the first epoch
        (Experience, "_step", 75),  # and for a later one
        (Replay, "extend", 3),
        (WorldModelTrainer, "step", 4),
        (WorldModelTrainer, "step", 8),
        (ActorCriticTrainer, "step", 3),
        (ActorCriticTrainer, "step", 5),
        (loop_report, "play_games", 2),  # a test
        (loop_report, "play_games", 4),  # the games at the end
        (checkpoint, "atomic_file", 1),  # writing a checkpoint
        (checkpoint, "atomic_file", 7),
        (WorldModel, "save", 2),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_numbers(
    config: TrainConfig, whole: TrainConfig, owner: Any, name: str, call: int
) -> None:
    with pytest.raises(Killed):
        interrupt(partial(run, config), owner, name, call, kill)
    run(config, resume=True)
    assert_same_runs(whole, config)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (Experience, "_step", 30),
        (WorldModelTrainer, "step", 3),
        (ActorCriticTrainer, "step", 4),
        (RealVectorEnv, "step", 150),  # a test
    ],
)
def test_asked_to_stop_it_goes_on_to_the_same_numbers(
    config: TrainConfig, whole: TrainConfig, owner: Any, name: str, call: int
) -> None:
    with pytest.raises(Stopped, match=r"stopped in epoch \d: add --resume to go on"):
        interrupt(partial(run, config), owner, name, call, ask_to_stop)
    run(config, resume=True)
    assert_same_runs(whole, config)


def test_without_its_checkpoint_it_starts_over_to_the_same_numbers(
    config: TrainConfig, whole: TrainConfig
) -> None:
    with pytest.raises(Killed):
        interrupt(partial(run, config), WorldModelTrainer, "step", 8, kill)
    config.run_folder.checkpoint.unlink()
    run(config, resume=True)
    assert_same_runs(whole, config)


def test_what_is_to_be_completed_is_gone_on_with_by_the_same_command(config: TrainConfig) -> None:
    completing = partial(complete, config, Console(file=io.StringIO()))
    with pytest.raises(Stopped, match=r"stopped in epoch 1: run the same command to go on$"):
        interrupt(completing, Experience, "_step", 30, ask_to_stop)


def test_a_run_is_neither_lost_nor_mixed_up(config: TrainConfig) -> None:
    with pytest.raises(FormatError, match="leave out --resume"):
        run(config, resume=True)
    run(config)
    with pytest.raises(FormatError, match=r"holds a run already; add --resume .* --overwrite"):
        run(config)
    with pytest.raises(ConfigError, match=r"was begun with epsilon 0\.01, not 0\.5"):
        run(replace(config, epsilon=0.5), resume=True)
    first = (config.run_folder.results).read_text()
    run(config, resume=True)
    assert (config.run_folder.results).read_text() == first
    run(config, overwrite=True)
    assert (config.run_folder.results).read_text() == first


def test_a_world_model_that_diverges_ends_the_run_at_once(config: TrainConfig) -> None:
    wild = replace(config.world_model.denoiser_optimiser, learning_rate=1e30)
    with pytest.raises(ConfigError, match="diverged by step 2: the loss of the denoiser is"):
        run(replace(config, world_model=replace(config.world_model, denoiser_optimiser=wild)))
    state = checkpoint.load_checkpoint(config.run_folder.checkpoint)
    assert state is not None
    assert state["progress"]["done"] == 0


def test_what_cannot_be_made_removes_no_run(config: TrainConfig) -> None:
    run(config)
    first = (config.run_folder.results).read_text()
    too_short = replace(config.world_model, reward_end_dreamt=0.5, reward_end_length=2)
    for problem, settings in (
        ("frames of 2x2 pixels", {"size": (2,)}),
        ("nothing is left to dream", {"world_model": too_short}),
        ("rollouts of 1 step", {"agent": "ppo", "imagination": ONE_STEP, "frame_stack": 1}),
    ):
        with pytest.raises(ConfigError, match=problem):
            run(replace(config, **settings), overwrite=True)
    assert (config.run_folder.results).read_text() == first
    assert (config.run_folder.best / "world_model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("contexts", 0), ("checkpoint_every", 0), ("epsilon", 1.5), ("seed", -1)],
)
def test_settings_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainConfig("ALE/Pong-v5", **{name: value})  # type: ignore[arg-type]


def test_more_frames_than_a_dream_begins_with_are_not_stacked() -> None:
    TrainConfig("ALE/Pong-v5", agent="ppo", frame_stack=4)
    TrainConfig("ALE/Pong-v5", frame_stack=5)  # of no concern to the actor-critic
    with pytest.raises(ConfigError, match="frame_stack is 5, and dreams begin with 4 frames"):
        TrainConfig("ALE/Pong-v5", agent="ppo", frame_stack=5)


def test_what_is_hard_cannot_be_favoured_in_a_replay_that_grows() -> None:
    by_error = TrainingConfig(favoured_share=0.5, favour_at=(5,))
    by_weight = TrainingConfig(favourites="module:function")
    by_outcome = TrainingConfig(reward_end_favoured=0.5)
    for favouring in by_error, by_weight, by_outcome:
        with pytest.raises(ConfigError, match="leave them and favoured_share out"):
            TrainConfig("ALE/Pong-v5", world_model=favouring)
