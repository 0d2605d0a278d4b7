import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import GameError
from dreamenv.real import describe, make_single, make_vector
from dreamenv.real.images import image_layout

Frame = npt.NDArray[np.uint8]

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)  # [H, W, C]
BY_AREA = cv2.resize(PICTURE, (12, 8), interpolation=cv2.INTER_AREA)


class Gallery(gymnasium.Env[Frame, np.int64]):
    """Shows one picture; its actions are 5, 6 and 7, each its own reward, and 7 is the end."""

    def __init__(
        self,
        picture: Frame,
        actions: gymnasium.Space[Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.picture = picture
        self.observation_space = Box(0, 255, picture.shape, picture.dtype.type)
        self.action_space = actions or Discrete(3, start=5)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self.picture.copy(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return self.picture.copy(), float(action), bool(action == 7), False, {}


GALLERIES: dict[str, dict[str, Any]] = {
    "Test/ChannelsLast-v0": {"picture": PICTURE},
    "Test/ChannelsFirst-v0": {"picture": PICTURE.transpose(2, 0, 1)},
    "Test/Grey-v0": {"picture": PICTURE[..., 0]},
    "Test/OneChannel-v0": {"picture": PICTURE[..., :1]},
    "Test/NoImage-v0": {"picture": PICTURE.astype(np.float32)},
    "Test/ManyActions-v0": {"picture": PICTURE, "actions": MultiDiscrete([2, 2])},
}


@pytest.fixture(autouse=True)
def galleries() -> Iterator[None]:
    for env_id, kwargs in GALLERIES.items():
        gymnasium.register(env_id, lambda **given: Gallery(**given), kwargs=kwargs)
    yield
    for env_id in GALLERIES:
        del gymnasium.registry[env_id]


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("Test/ChannelsLast-v0", BY_AREA),
        ("Test/ChannelsFirst-v0", BY_AREA),
        ("Test/Grey-v0", BY_AREA[..., :1]),
        ("Test/OneChannel-v0", BY_AREA[..., :1]),
    ],
)
def test_image_observations_are_resized_by_area_whatever_their_layout(
    env_id: str, expected: Frame
) -> None:
    spec = describe(env_id, (8, 12))
    assert spec.obs_shape == (expected.shape[2], 8, 12)
    assert spec.preprocessing == Preprocessing(source="observation")

    single = make_single(spec, training=True)
    np.testing.assert_array_equal(single.reset(seed=0)[0], expected)
    np.testing.assert_array_equal(single.step(0)[0], expected)

    vector = make_vector(spec, 2, training=True)
    expected = np.stack([expected] * 2)
    np.testing.assert_array_equal(vector.reset(seed=0)[0], expected)
    np.testing.assert_array_equal(vector.step(np.array([0, 1]))[0], expected)


def test_an_image_of_the_wanted_size_is_left_as_it_is() -> None:
    env = make_single(describe("Test/ChannelsLast-v0", (16, 24)), training=True)
    np.testing.assert_array_equal(env.reset(seed=0)[0], PICTURE)


def test_actions_that_start_elsewhere_are_counted_from_zero() -> None:
    spec = describe("Test/ChannelsLast-v0")
    assert spec.action_meanings == ("5", "6", "7")

    single = make_single(spec, training=True)
    assert single.action_space == Discrete(3)
    single.reset(seed=0)
    assert single.step(1)[1:4] == (6.0, False, False)
    assert single.step(2)[1:4] == (7.0, True, False)

    vector = make_vector(spec, 3, training=True)
    vector.reset(seed=0)
    _, rewards, terminated, *_ = vector.step(np.array([0, 1, 2]))
    assert rewards.tolist() == [5.0, 6.0, 7.0]
    assert terminated.tolist() == [False, False, True]


def test_an_environment_without_images_is_rendered() -> None:
    spec = describe("CartPole-v1", (20, 30))
    assert spec == EnvironmentSpec(
        "CartPole-v1", (3, 20, 30), ("0", "1"), Preprocessing(source="render")
    )
    plain = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env = make_single(spec, training=True)
    plain.reset(seed=5)
    obs, _ = env.reset(seed=5)
    for action in [0, 1, 1, 1, 0]:
        screen = plain.render()
        assert isinstance(screen, np.ndarray)
        expected = cv2.resize(screen, (30, 20), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(obs, expected)
        plain.step(action)
        obs, *_ = env.step(action)


def test_rendering_needs_no_display() -> None:
    script = "from dreamenv.real import make_single; make_single('CartPole-v1', training=True)"
    displays = {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"}
    environment = {name: value for name, value in os.environ.items() if name not in displays}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize(
    ("space", "layout"),
    [
        (Box(0, 255, (5, 5), np.uint8), "HW"),
        (Box(0, 255, (5, 6, 3), np.uint8), "HWC"),
        (Box(0, 255, (3, 5, 3), np.uint8), "HWC"),
        (Box(0, 255, (3, 5, 6), np.uint8), "CHW"),
        (Box(0, 255, (5, 6, 7), np.uint8), None),
        (Box(0, 255, (128,), np.uint8), None),
        (Box(0, 10, (7, 7, 3), np.uint8), None),
        (Box(0, 255, (5, 6, 3), np.float32), None),
        (Dict(image=Box(0, 255, (5, 6, 3), np.uint8)), None),
    ],
)
def test_only_boxes_of_bytes_with_a_channel_axis_are_images(
    space: gymnasium.Space[Any], layout: str | None
) -> None:
    assert image_layout(space) == layout


def test_an_environment_without_frames_is_refused() -> None:
    with pytest.raises(GameError, match=r"^Test/NoImage-v0: it gives no frames; .*rgb_array$"):
        describe("Test/NoImage-v0")


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Test/ManyActions-v0"])
def test_actions_that_are_not_discrete_are_refused(env_id: str) -> None:
    with pytest.raises(GameError, match=rf"^{env_id}: its actions are .*; dreamenv needs Discrete"):
        describe(env_id)


@pytest.mark.skipif(importlib.util.find_spec("Box2D") is not None, reason="Box2D is installed")
def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(GameError, match=r'^LunarLander-v3: Box2D .*`pip install "gymnasium\[box2d'):
        describe("LunarLander-v3")


def test_an_environment_whose_observations_are_no_longer_images_is_refused() -> None:
    spec = EnvironmentSpec("CartPole-v1", (3, 8, 8), ("0", "1"), Preprocessing("observation"))
    with pytest.raises(GameError, match="CartPole-v1: its observations are not images"):
        make_single(spec, training=True)
