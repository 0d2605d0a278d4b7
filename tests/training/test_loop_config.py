from dataclasses import replace
from typing import Any

import pytest

from dreamenv.errors import ConfigError
from dreamenv.training.loop_config import ScheduleConfig, TrainConfig


def test_the_defaults_are_those_of_the_paper() -> None:
    schedule = ScheduleConfig()
    # 5,000 real steps, 950 times 100, and 50 epochs more.
    assert schedule.epochs(collected_first=5_000) == 1 + 950 + 50
    assert schedule.epochs(collected_first=10_000) == 1 + 900 + 50
    config = TrainConfig("ALE/Pong-v5")
    assert (config.world_model.steps, schedule.world_model_steps) == (10_000, 400)
    assert (config.imagination.steps, schedule.agent_steps) == (5_000, 400)
    assert config.epsilon == 0.01
    assert (config.imagination.num_envs, config.imagination.rollout_length) == (32, 15)


def test_every_real_step_is_collected_once() -> None:
    schedule = ScheduleConfig(first_steps=30, first_steps_limit=50, epoch_steps=40, steps=150)
    collected, epochs = 30, 1
    while schedule.real_steps(collected) > 0:
        collected += schedule.real_steps(collected)
        epochs += 1
    assert collected == 150
    assert schedule.epochs(collected_first=30) == epochs + schedule.epochs_after
    assert schedule.real_steps(150) == 0


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"first_steps": 0}, "first_steps"),
        ({"epoch_steps": 0}, "epoch_steps"),
        ({"test_every": 0}, "test_every"),
        ({"test_episodes": 0}, "test_episodes"),
        ({"epochs_after": -1}, "epochs_after"),
        ({"first_rewards": -1}, "first_rewards"),
    ],
)
def test_schedules_that_cannot_work_are_refused(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        ScheduleConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{"first_steps": 20_000}, {"first_steps_limit": 200_000}, {"steps": 5_000}]
)
def test_the_first_epoch_is_within_its_limit_and_the_limit_within_all_steps(
    settings: dict[str, Any],
) -> None:
    schedule = ScheduleConfig(**settings)
    with pytest.raises(ConfigError, match="none may be above the next"):
        TrainConfig("ALE/Pong-v5", schedule=schedule)
    # In the real game alone there is no first epoch.
    assert TrainConfig("ALE/Pong-v5", schedule=schedule, real=True).schedule == schedule


@pytest.mark.parametrize("seed", [-1, 2**30])
def test_seeds_that_a_test_could_not_add_its_epoch_to_are_refused(seed: int) -> None:
    assert TrainConfig("ALE/Pong-v5", seed=2**30 - 1).seed == 2**30 - 1
    with pytest.raises(ConfigError, match=rf"seed is {seed}; it must be from 0 to 1073741823"):
        TrainConfig("ALE/Pong-v5", seed=seed)


def test_a_run_is_named_after_its_game() -> None:
    assert str(TrainConfig("ALE/Pong-v5").run_folder.path) == "runs/Pong-train"
    assert str(TrainConfig("ALE/Pong-v5", out="a/b").run_folder.path) == "a/b"


def test_as_many_real_steps_are_made_in_the_real_game_alone() -> None:
    config = TrainConfig("ALE/Pong-v5", real=True)
    assert str(config.run_folder.path) == "runs/Pong-real"
    # 32 games of 15 steps: 100,320 real steps.
    assert (config.real_steps_a_training_step, config.real_training_steps) == (480, 209)
    whole = replace(config, schedule=ScheduleConfig(steps=480 * 50))
    assert whole.real_training_steps == 50


def test_a_command_that_plays_the_same_game_has_its_options() -> None:
    config = TrainConfig("ALE/Pong-v5", size=(32, 48), sticky_actions=0.25)
    assert config.real_game_options == "--env ALE/Pong-v5 --size 32 48 --sticky-actions 0.25"
    square = replace(config, size=(32,), sticky_actions=0.0)
    assert square.real_game_options == "--env ALE/Pong-v5 --size 32"


def test_more_frames_than_a_dream_begins_with_can_be_stacked_in_the_real_game() -> None:
    TrainConfig("ALE/Pong-v5", agent="ppo", frame_stack=5, real=True)
