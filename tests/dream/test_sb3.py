import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
    VecVideoRecorder,
)

from dreamenv import Contexts, DreamEnv, DreamVecEnv, DreamVectorEnv, WorldModel
from dreamenv.errors import ConfigError, InputError, StateError


@pytest.fixture
def world(world_model: WorldModel, contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream of a tiny network."""
    return {"world_model": world_model, "contexts": contexts}


@pytest.fixture
def script(scripted_world: WorldModel, scripted_contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream without chance, but where it begins."""
    return {"world_model": scripted_world, "contexts": scripted_contexts}


@pytest.fixture
def sure_script(scripted_world: WorldModel, scripted_contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream without any chance: it always begins at level 2."""
    first = Contexts(scripted_contexts.obs[:1], scripted_contexts.actions[:1])
    return {"world_model": scripted_world, "contexts": first}


def test_the_spaces_are_those_of_one_dream(world: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=4, frame_stack=2, **world)
    assert env.num_envs == 4
    assert env.observation_space == Box(0, 255, (40, 40, 6), np.uint8)
    assert env.observation_space == DreamEnv(**world, frame_stack=2).observation_space
    assert env.action_space == Discrete(3)
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 15}
    assert env.get_action_meanings() == ["NOOP", "LEFT", "RIGHT"]


def test_the_types_of_what_comes_out(world: dict[str, Any]) -> None:
    env: Any = DreamVecEnv(num_envs=3, **world)
    obs = env.reset()
    assert (obs.dtype, obs.shape) == (np.uint8, (3, 40, 40, 3))
    obs, rewards, dones, infos = env.step(np.array([0, 1, 2]))
    assert (obs.dtype, obs.shape) == (np.uint8, (3, 40, 40, 3))
    assert (rewards.dtype, rewards.shape) == (np.float32, (3,))
    assert (dones.dtype, dones.shape) == (np.bool_, (3,))
    assert [type(info) for info in infos] == [dict] * 3


def test_every_step_is_that_of_sb3s_own_env_over_single_dreams(sure_script: dict[str, Any]) -> None:
    arguments = {**sure_script, "horizon": 6}
    ours: Any = DreamVecEnv(num_envs=4, **arguments)
    theirs: Any = DummyVecEnv([lambda: DreamEnv(**arguments)] * 4)
    rng = np.random.default_rng(0)
    ends = cuts = 0

    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    for _ in range(150):
        actions = rng.choice(3, size=4, p=(0.6, 0.2, 0.2))
        one, other = ours.step(actions), theirs.step(actions)
        for array, expected in zip(one[:3], other[:3], strict=True):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)
        for info, expected in zip(one[3], other[3], strict=True):
            assert info.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_array_equal(info[key], value)
        ends += one[2].sum()
        cuts += sum(info["TimeLimit.truncated"] for info in one[3])
    assert 0 < cuts < ends


def test_the_face_dreams_what_gymnasiums_does(world: dict[str, Any]) -> None:
    ours = DreamVecEnv(num_envs=3, horizon=4, **world)
    theirs = DreamVectorEnv(num_envs=3, horizon=4, **world)
    ours.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset(seed=5)[0])
    for _ in range(12):
        obs, rewards, dones, infos = ours.step(np.array([0, 1, 2]))
        step = theirs.step(np.array([0, 1, 2]))
        np.testing.assert_array_equal(obs, step[0])
        np.testing.assert_array_equal(rewards, step[1])
        np.testing.assert_array_equal(dones, step[2] | step[3])
        for row in np.flatnonzero(dones):
            last = step[4]["final_obs"][row]
            np.testing.assert_array_equal(infos[row]["terminal_observation"], last)


def test_a_seed_serves_one_reset(world: dict[str, Any]) -> None:
    env: Any = DreamVecEnv(num_envs=3, **world)
    env.seed(1)
    first, second = env.reset(), env.reset()
    assert (first != second).any()
    env.seed(1)
    np.testing.assert_array_equal(env.reset(), first)
    np.testing.assert_array_equal(env.reset(), second)


def test_contexts_can_be_chosen_once(script: dict[str, Any]) -> None:
    env: Any = DreamVecEnv(num_envs=3, **script)
    env.set_options([{"context": context} for context in (4, 0, 2)])
    assert env.reset()[:, 0, 0, 0].tolist() == [82, 2, 42]
    env.set_options({"context": 1})
    assert env.reset()[:, 0, 0, 0].tolist() == [22, 22, 22]
    env.set_options({"context": None})
    assert len({env.reset()[:, 0, 0, 0].tobytes() for _ in range(5)}) > 1


def test_what_was_returned_is_never_written_to_again(world: dict[str, Any]) -> None:
    env: Any = DreamVecEnv(num_envs=3, horizon=None, **world)
    first = env.reset()
    kept = first.copy()
    env.step(np.array([0, 1, 2]))
    np.testing.assert_array_equal(first, kept)


def test_it_renders_its_dreams_side_by_side(script: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=2, render_mode="rgb_array", **script)
    env.set_options([{"context": 1}, {"context": 3}])
    env.reset()
    images = [image for image in env.get_images() if image is not None]
    assert [image[0, 0].tolist() for image in images] == [[22] * 3, [62] * 3]
    tiled = env.render()
    assert tiled is not None
    assert tiled.shape == (80, 40, 3)


def test_rendering_without_a_render_mode_warns(world: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=2, **world)
    env.reset()
    with pytest.warns(UserWarning, match="no render_mode"):
        assert env.get_images() == [None, None]


def test_attributes_and_methods_are_shared(world: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=3, render_mode="rgb_array", **world)
    assert env.get_attr("render_mode") == ["rgb_array"] * 3
    assert env.get_attr("num_envs", indices=[0, 2]) == [3, 3]
    assert not env.has_attr("action_masks")
    assert env.env_is_wrapped(Monitor) == [False] * 3
    env.reset()
    assert len(env.env_method("get_images", indices=1)) == 1
    env.set_attr("render_mode", None)
    assert env.render_mode is None
    with pytest.raises(InputError, match="all environments share render_mode; set it for all"):
        env.set_attr("render_mode", None, indices=0)
    with pytest.raises(AttributeError):
        env.set_attr("nothing", 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_it_pickles_and_copies_by_its_arguments(
    copied: Callable[[Any], Any], world: dict[str, Any]
) -> None:
    env: Any = DreamVecEnv(num_envs=3, horizon=7, **world)
    again = copied(env)
    for each in (env, again):
        each.seed(1)
    np.testing.assert_array_equal(env.reset(), again.reset())
    actions = np.array([0, 1, 2])
    np.testing.assert_array_equal(env.step(actions)[0], again.step(actions)[0])


def test_it_is_found_by_its_name_or_its_id(
    world_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMENV_HOME", str(world_folder.parent))
    for name in ("Tiny", "DreamEnv/Tiny-v0"):
        assert DreamVecEnv(name, 2).reset().shape == (2, 40, 40, 3)


# SB3's wrappers.


def test_frames_are_stacked_over_restarts(sure_script: dict[str, Any]) -> None:
    env: Any = VecFrameStack(DreamVecEnv(num_envs=2, horizon=2, **sure_script), 2)
    assert env.reset().shape == (2, 40, 40, 6)
    env.step(np.array([0, 1]))
    obs, _, dones, infos = env.step(np.array([0, 1]))
    assert dones.all()
    assert infos[1]["terminal_observation"][0, 0].tolist() == [4] * 3 + [6] * 3
    assert obs[1, 0, 0].tolist() == [0] * 3 + [2] * 3


def test_its_own_stack_has_real_frames_where_sb3s_has_blanks(sure_script: dict[str, Any]) -> None:
    env: Any = DreamVecEnv(num_envs=2, horizon=2, frame_stack=2, **sure_script)
    env.reset()
    env.step(np.array([0, 1]))
    obs, _, _, infos = env.step(np.array([0, 1]))
    assert infos[1]["terminal_observation"][0, 0].tolist() == [4] * 3 + [6] * 3
    assert obs[1, 0, 0].tolist() == [1] * 3 + [2] * 3


def test_channels_are_moved_to_the_front(world: dict[str, Any]) -> None:
    env: Any = VecTransposeImage(DreamVecEnv(num_envs=2, horizon=1, **world))
    assert env.reset().shape == (2, 3, 40, 40)
    *_, infos = env.step(np.array([0, 1]))
    assert infos[0]["terminal_observation"].shape == (3, 40, 40)


def test_episodes_are_monitored(sure_script: dict[str, Any]) -> None:
    env: Any = VecMonitor(DreamVecEnv(num_envs=2, horizon=3, **sure_script))
    env.reset()
    steps = [env.step(np.array([0, 1])) for _ in range(3)]
    episodes = [info["episode"] for info in steps[-1][3]]
    assert [(episode["r"], episode["l"]) for episode in episodes] == [(-3, 3), (0, 3)]


def test_videos_are_recorded(world: dict[str, Any], tmp_path: Path) -> None:
    env: Any = VecVideoRecorder(
        DreamVecEnv(num_envs=2, render_mode="rgb_array", **world),
        str(tmp_path),
        record_video_trigger=lambda step: step == 0,
        video_length=3,
    )
    env.reset()
    for _ in range(4):
        env.step(np.array([0, 1]))
    env.close()
    assert env.frames_per_sec == 15
    assert [file.suffix for file in tmp_path.iterdir()] == [".mp4"]


# SB3's agents.

ON_POLICY = {"n_steps": 8, "device": "cpu", "seed": 0}
OFF_POLICY = {
    "buffer_size": 200,
    "learning_starts": 16,
    "batch_size": 8,
    "train_freq": 4,
    "device": "cpu",
    "seed": 0,
}
SMALL = {"features_extractor_kwargs": {"features_dim": 16}}


@pytest.mark.parametrize(
    ("algorithm", "policy", "arguments"),
    [
        (stable_baselines3.PPO, "CnnPolicy", {**ON_POLICY, "batch_size": 16, "n_epochs": 2}),
        (stable_baselines3.A2C, "CnnPolicy", ON_POLICY),
        (stable_baselines3.DQN, "CnnPolicy", OFF_POLICY),
        (sb3_contrib.RecurrentPPO, "CnnLstmPolicy", {**ON_POLICY, "batch_size": 16}),
        (sb3_contrib.QRDQN, "CnnPolicy", OFF_POLICY),
        (sb3_contrib.TRPO, "CnnPolicy", {**ON_POLICY, "batch_size": 16}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_agents_learn_in_a_dream(
    algorithm: Any, policy: str, arguments: dict[str, Any], world: dict[str, Any]
) -> None:
    env = DreamVecEnv(num_envs=4, horizon=5, **world)
    torch.manual_seed(0)
    agent = algorithm(policy, env, policy_kwargs=SMALL, **arguments)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.learn(total_timesteps=64)
    assert agent.num_timesteps >= 64
    after = agent.policy.state_dict()
    assert any((after[name] != value).any() for name, value in before.items())
    assert all(torch.isfinite(value).all() for value in after.values())


def test_an_agent_learns_in_gymnasiums_single_dream(world: dict[str, Any]) -> None:
    agent = stable_baselines3.PPO(
        "CnnPolicy", DreamEnv(**world), policy_kwargs=SMALL, n_steps=16, batch_size=16, device="cpu"
    )
    agent.learn(total_timesteps=16)
    assert agent.num_timesteps == 16


def test_an_agent_learns_which_action_is_paid(script: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=16, horizon=4, **script)
    agent = stable_baselines3.PPO(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": [8]},
        n_steps=16,
        batch_size=64,
        n_epochs=4,
        learning_rate=0.01,
        gamma=0.5,
        device="cpu",
        seed=0,
    )
    agent.learn(total_timesteps=4096)
    obs: Any = env.reset()
    assert (agent.predict(obs, deterministic=True)[0] == 2).all()


def test_sb3_evaluates_in_it(sure_script: dict[str, Any]) -> None:
    env = VecMonitor(DreamVecEnv(num_envs=2, horizon=3, **sure_script))
    agent = stable_baselines3.PPO(
        "CnnPolicy", env, policy_kwargs=SMALL, n_steps=8, batch_size=16, device="cpu"
    )
    _, lengths = evaluate_policy(agent, env, n_eval_episodes=4, return_episode_rewards=True)
    assert isinstance(lengths, list)
    assert len(lengths) == 4
    assert max(lengths) <= 3


# Bad input.


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (np.array([0, 3]), "actions are from 0 to 3; they must be from 0 to 2"),
        (np.array([0]), r"actions is torch.int64 \[1\]; it must be torch.int64 \[2\]"),
        (np.array([0.0, 1.0]), "actions are float64; they must be integers"),
    ],
)
def test_wrong_actions_are_refused(
    actions: np.ndarray[Any, Any], problem: str, world: dict[str, Any]
) -> None:
    env = DreamVecEnv(num_envs=2, **world)
    env.reset()
    before = env.dream.generator.get_state()
    with pytest.raises(InputError, match=f"^{problem}$"):
        env.step(actions)
    assert torch.equal(env.dream.generator.get_state(), before)
    env.step(np.array([0, 2]))


def test_steps_out_of_turn_are_refused(world: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=2, **world)
    actions = np.array([0, 1])
    with pytest.raises(StateError, match="call reset first"):
        env.step(actions)
    env.reset()
    with pytest.raises(StateError, match="call step_async first"):
        env.step_wait()
    env.step_async(actions)
    env.step_wait()
    with pytest.raises(StateError, match="call step_async first"):
        env.step_wait()
    env.step_async(actions)
    with pytest.raises(StateError, match="call step_wait first"):
        env.step_async(actions)
    env.reset()
    with pytest.raises(StateError, match="call step_async first"):
        env.step_wait()
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step(actions), env.get_images):
        with pytest.raises(StateError, match="closed"):
            call()


def test_wrong_options_are_refused(world: dict[str, Any]) -> None:
    env = DreamVecEnv(num_envs=2, **world)
    for options, problem in (
        ({"difficulty": 1}, "options has difficulty; a dream knows context"),
        ([{"context": 1}, {}], "name one for all, or none"),
        ({"context": 99}, "they must be from 0 to 15"),
    ):
        env.set_options(options)
        with pytest.raises(InputError, match=problem):
            env.reset()


def test_wrong_arguments_are_refused(world: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="num_envs is 0"):
        DreamVecEnv(num_envs=0, **world)
    with pytest.raises(InputError, match="render_mode is 'human'"):
        DreamVecEnv(render_mode="human", **world)
    with pytest.raises(InputError, match="no world model is named"):
        DreamVecEnv()
