import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import GameError, InputError
from dreamenv.real import describe, make_single, make_vector


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "CartPole-v1"])
def test_an_environment_is_made_again_from_its_recorded_specification(env_id: str) -> None:
    spec = describe(env_id, (24, 32))
    recorded = EnvironmentSpec.from_dict(spec.to_dict(), "config.json")
    first, again = (make_vector(each, 2, training=True) for each in (spec, recorded))
    np.testing.assert_array_equal(first.reset(seed=0)[0], again.reset(seed=0)[0])
    for _ in range(5):
        actions = np.array([0, 1])
        np.testing.assert_array_equal(first.step(actions)[0], again.step(actions)[0])


def test_an_id_stands_for_its_description_with_the_defaults() -> None:
    assert make_vector("ALE/Pong-v5", 1, training=True).environment == describe("ALE/Pong-v5")
    assert make_single("CartPole-v1", training=True).environment == describe("CartPole-v1", 64)


def test_one_number_is_both_height_and_width() -> None:
    assert describe("ALE/Pong-v5", 32) == describe("ALE/Pong-v5", (32, 32))


def test_sticky_actions_are_recorded() -> None:
    assert describe("ALE/Pong-v5", sticky_actions=0.25).preprocessing.sticky_actions == 0.25


def test_sticky_actions_are_refused_where_there_are_none() -> None:
    with pytest.raises(InputError, match=r"sticky_actions is 0\.25; CartPole-v1 is not Atari"):
        describe("CartPole-v1", sticky_actions=0.25)


@pytest.mark.parametrize("size", [0, -3, (64, 0)])
def test_a_size_below_one_is_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"^size is .*; it must be at least 1$"):
        describe("ALE/Pong-v5", size)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="num_envs is 0; it must be at least 1"):
        make_vector("ALE/Pong-v5", 0, training=True)
    with pytest.raises(InputError, match="max_episode_steps is 0; it must be at least 1"):
        make_single("ALE/Pong-v5", training=True, max_episode_steps=0)


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "CartPole-v1"])
def test_an_environment_that_differs_from_its_specification_is_refused(env_id: str) -> None:
    spec = describe(env_id)
    renamed = dataclasses.replace(spec, action_meanings=("NOOP",))
    with pytest.raises(GameError, match=rf"{env_id}: its actions are .*, not 1 as recorded"):
        make_vector(renamed, 1, training=True)
    grey = dataclasses.replace(spec, obs_shape=(1, 64, 64))
    with pytest.raises(GameError, match=rf"{env_id}: its frames .* not \(64, 64, 1\) as recorded"):
        make_single(grey, training=True)


def test_importing_the_room_leaves_the_slow_packages_alone() -> None:
    script = (
        "import sys, dreamenv.real; print([m for m in ('cv2', 'ale_py', 'torch') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert result.stdout == "[]\n"
