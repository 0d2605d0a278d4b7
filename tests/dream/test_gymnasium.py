import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import (
    FrameStackObservation,
    RecordEpisodeStatistics,
    RecordVideo,
    TimeLimit,
)
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVectorStatistics

from dreamenv import Contexts, Dream, DreamEnv, DreamVectorEnv, WorldModel
from dreamenv.dream.gymnasium import ClonedState
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError, StateError
from dreamenv.models.world_model import Origin

ID = "DreamEnv/Breakout-v0"
MODES = pytest.mark.parametrize("mode", list(AutoresetMode))

Frames = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def world(world_model: WorldModel, contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream of a tiny network."""
    return {"world_model": world_model, "contexts": contexts}


@pytest.fixture
def endless(world: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a dream of a tiny network that never ends by itself."""
    torch.nn.init.zeros_(world["world_model"].reward_end.head[-1].weight)
    return {**world, "sample_outcomes": False}


@pytest.fixture
def script(scripted_world: WorldModel, scripted_contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream without chance, but where it begins."""
    return {"world_model": scripted_world, "contexts": scripted_contexts}


@pytest.fixture
def sure_script(scripted_world: WorldModel, scripted_contexts: Contexts) -> dict[str, Any]:
    """The arguments for a dream without any chance: it always begins at level 2."""
    first = Contexts(scripted_contexts.obs[:1], scripted_contexts.actions[:1])
    return {"world_model": scripted_world, "contexts": first}


def play(env: DreamVectorEnv, steps: int, seed: int = 0) -> list[Any]:
    """Everything that comes out of an environment; actions are drawn once more for each seed."""
    rng = np.random.default_rng(seed)
    results: list[Any] = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        results += env.step(rng.integers(3, size=env.num_envs))[:4]
    return results


# One environment.


@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_is_content(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(gymnasium.make(ID, **world).unwrapped)
    check_env(gymnasium.make(ID, **world, frame_stack=2, render_mode="rgb_array").unwrapped)


@pytest.mark.filterwarnings("error")
def test_the_checker_of_sb3_is_content(world: dict[str, Any]) -> None:
    from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

    check_env_for_sb3(DreamEnv(**world))
    check_env_for_sb3(DreamEnv(**world, frame_stack=2))


def test_the_spaces_and_metadata_of_one_dream(world: dict[str, Any]) -> None:
    env = DreamEnv(**world)
    assert env.observation_space == Box(0, 255, (40, 40, 3), np.uint8)
    assert env.action_space == Discrete(3)
    assert env.metadata == {"render_modes": ["human", "rgb_array"], "render_fps": 15}
    assert env.get_action_meanings() == ["NOOP", "LEFT", "RIGHT"]
    assert DreamEnv(**world, frame_stack=3).observation_space.shape == (40, 40, 9)


def test_the_types_of_what_one_dream_gives(world: dict[str, Any]) -> None:
    env = DreamEnv(**world)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space
    assert info == {}
    obs, reward, terminated, truncated, info = env.step(1)
    assert obs in env.observation_space
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info == {}


def test_a_script_is_followed_to_its_end(sure_script: dict[str, Any]) -> None:
    env = DreamEnv(**sure_script)
    obs, _ = env.reset(seed=0)
    assert (obs == 2).all()
    steps = [env.step(action) for action in (0, 1, 2, 2)]
    assert [obs[0, 0, 0] for obs, *_ in steps] == [3, 5, 8, 11]
    assert [reward for _, reward, *_ in steps] == [-1, 0, 1, 1]
    assert [terminated for _, _, terminated, _, _ in steps] == [False, False, False, True]
    assert not any(truncated for *_, truncated, _ in steps)


def test_the_horizon_truncates(sure_script: dict[str, Any]) -> None:
    env = DreamEnv(**sure_script, horizon=2)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_a_seed_repeats_a_dream_and_another_does_not(endless: dict[str, Any]) -> None:
    def course(seed: int) -> Frames:
        env = DreamEnv(**endless, horizon=None)
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(1)[0] for _ in range(3))])

    np.testing.assert_array_equal(course(3), course(3))
    assert (course(3) != course(4)).any()


def test_without_a_seed_chance_goes_on(world: dict[str, Any]) -> None:
    env = DreamEnv(**world)
    env.reset(seed=0)
    starts = [env.reset()[0].tobytes() for _ in range(6)]
    assert len(set(starts)) == 6


def test_dreams_that_nobody_seeds_differ(world: dict[str, Any]) -> None:
    starts = {DreamEnv(**world).reset()[0].tobytes() for _ in range(12)}
    assert len(starts) > 1


def test_a_context_can_be_chosen(script: dict[str, Any]) -> None:
    env = DreamEnv(**script)
    for context in (3, np.int64(1)):
        obs, _ = env.reset(options={"context": context})
        assert (obs == 20 * context + 2).all()


def test_stacked_frames_are_real_history_at_the_beginning(script: dict[str, Any]) -> None:
    env = DreamEnv(**script, frame_stack=3)
    obs, _ = env.reset(options={"context": 2})
    assert obs[5, 7].tolist() == [40, 40, 40, 41, 41, 41, 42, 42, 42]
    obs, *_ = env.step(2)
    assert obs[5, 7].tolist() == [41, 41, 41, 42, 42, 42, 45, 45, 45]


def test_what_was_returned_is_never_written_to_again(endless: dict[str, Any]) -> None:
    env = DreamEnv(**endless, horizon=None)
    first, _ = env.reset(seed=0)
    kept = first.copy()
    second = env.step(1)[0]
    np.testing.assert_array_equal(first, kept)
    second[:] = 0
    assert env.clone_state().dream.frames[0, -1].any()


def test_it_renders_its_newest_frame(script: dict[str, Any]) -> None:
    env = DreamEnv(**script, render_mode="rgb_array", frame_stack=2)
    env.reset(options={"context": 1})
    env.step(2)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (40, 40, 3)
    assert picture.dtype == np.uint8
    assert (picture == 25).all()


def test_for_people_it_shows_every_frame(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown: list[int] = []
    monkeypatch.setattr(
        "dreamenv.dream.rendering.Window.show", lambda _, picture: shown.append(picture[0, 0, 0])
    )
    env = DreamEnv(**script, render_mode="human")
    env.reset(options={"context": 0})
    env.step(0)
    assert shown == [2, 3]
    assert env.render() is None
    env.close()


def test_rendering_without_a_render_mode_warns(world: dict[str, Any]) -> None:
    env = DreamEnv(**world)
    env.reset()
    with pytest.warns(UserWarning, match="no render_mode"):
        assert env.render() is None


def test_a_state_can_be_restored(endless: dict[str, Any]) -> None:
    env = DreamEnv(**endless, horizon=None)
    env.reset(seed=0)
    env.step(1)
    state, sure = env.clone_state(), env.clone_state(include_rng=True)
    first = [env.step(action)[0] for action in (0, 2)]
    env.restore_state(sure)
    np.testing.assert_array_equal([env.step(action)[0] for action in (0, 2)], first)
    env.restore_state(state)
    other = [env.step(action)[0] for action in (0, 2)]
    assert (np.array(other) != np.array(first)).any()


def test_a_restored_state_has_ended_where_it_had(sure_script: dict[str, Any]) -> None:
    env = DreamEnv(**sure_script, horizon=1)
    env.reset()
    before = env.clone_state()
    env.step(0)
    after = env.clone_state()
    env.restore_state(before)
    assert env.step(2)[0][0, 0, 0] == 5
    env.reset()
    env.restore_state(after)
    with pytest.raises(StateError, match="has ended"):
        env.step(0)


def test_the_core_may_be_restored_beneath_it(sure_script: dict[str, Any]) -> None:
    env = DreamEnv(**sure_script, horizon=1)
    env.reset()
    before = env.dream.snapshot()
    env.step(0)
    after = env.dream.snapshot()
    env.dream.restore(before)
    assert env.step(2)[0][0, 0, 0] == 5
    env.reset()
    env.dream.restore(after)
    with pytest.raises(StateError, match="has ended"):
        env.step(0)


def test_what_is_no_state_is_refused(world: dict[str, Any], script: dict[str, Any]) -> None:
    env, other = DreamEnv(**world), DreamEnv(**{**script, "contexts": script["contexts"]})
    for each in (env, other):
        each.reset(seed=0)
    before = env.clone_state(include_rng=True)
    for state in (None, env.dream.snapshot()):
        with pytest.raises(InputError, match="it must be what clone_state gave"):
            env.restore_state(state)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="chance of another kind"):
        env.restore_state(ClonedState(before.dream, torch.zeros(3, dtype=torch.uint8)))
    wrong = dataclasses.replace(before.dream, frames=before.dream.frames.float())
    with pytest.raises(InputError, match=r"the state has frames torch\.float32"):
        env.restore_state(ClonedState(wrong, other.dream.generator.get_state()))
    _assert_unchanged(env, before)


def test_it_can_be_made_from_a_folder_and_by_its_name(
    world_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = gymnasium.make(ID, world_model=str(world_folder), horizon=7)
    assert isinstance(given.unwrapped, DreamEnv)
    assert given.unwrapped.dream.horizon == 7
    monkeypatch.setenv("DREAMENV_HOME", str(world_folder.parent))
    np.testing.assert_array_equal(DreamEnv("Tiny").reset(seed=0)[0], given.reset(seed=0)[0])


def test_it_can_be_made_again_from_its_spec(world_folder: Path) -> None:
    env = gymnasium.make(ID, world_model=str(world_folder), horizon=7, denoising_steps=2)
    assert env.spec is not None
    for spec in (env.spec, type(env.spec).from_json(env.spec.to_json())):
        again = gymnasium.make(spec)
        assert isinstance(again.unwrapped, DreamEnv)
        assert again.unwrapped.dream.horizon == 7
        assert again.unwrapped.dream.sampler.num_steps == 2
        np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_it_pickles_and_copies_by_its_arguments(
    copied: Callable[[Any], Any], world: dict[str, Any]
) -> None:
    env = gymnasium.make(ID, **world, horizon=7)
    env.reset(seed=0)
    again = copied(env)
    assert again.unwrapped.dream.horizon == 7
    np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
    np.testing.assert_array_equal(again.step(1)[0], env.step(1)[0])


def test_gymnasiums_wrappers_work_on_it(endless: dict[str, Any], tmp_path: Path) -> None:
    env: Any = gymnasium.make(ID, **endless, render_mode="rgb_array")
    env = RecordVideo(
        env, str(tmp_path / "videos"), episode_trigger=lambda _: True, disable_logger=True
    )
    env = FrameStackObservation(RecordEpisodeStatistics(TimeLimit(env, 4)), 3)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3, 40, 40, 3)
    steps = [env.step(1) for _ in range(4)]
    assert [truncated for *_, truncated, _ in steps] == [False, False, False, True]
    assert steps[-1][-1]["episode"]["l"] == 4
    env.close()
    assert [file.suffix for file in (tmp_path / "videos").iterdir()] == [".mp4"]


# Many environments.


@MODES
def test_the_spaces_and_metadata_of_many_dreams(mode: AutoresetMode, world: dict[str, Any]) -> None:
    env = gymnasium.make_vec(ID, num_envs=4, autoreset_mode=mode, **world)
    assert isinstance(env, DreamVectorEnv)
    assert env.num_envs == 4
    assert env.single_observation_space == DreamEnv(**world).observation_space
    assert env.single_action_space == Discrete(3)
    assert env.observation_space.shape == (4, 40, 40, 3)
    assert env.action_space.shape == (4,)
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is mode
    assert env.metadata["render_fps"] == 15
    assert env.get_action_meanings() == ["NOOP", "LEFT", "RIGHT"]


def test_dreams_begin_anew_within_the_step_by_default(world: dict[str, Any]) -> None:
    assert DreamVectorEnv(**world).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_contexts_are_those_of_a_folder_that_is_named(
    world: dict[str, Any], world_folder: Path
) -> None:
    elsewhere = DreamEnv(**{**world, "contexts": world_folder}).reset(seed=0)[0]
    np.testing.assert_array_equal(elsewhere, DreamEnv(**world).reset(seed=0)[0])


@pytest.mark.parametrize(("horizon", "limit", "length"), [(4, 3, 3), (2, 3, 2), (None, 3, 3)])
def test_a_limit_of_a_registration_holds_beside_the_horizon(
    horizon: int | None, limit: int, length: int, sure_script: dict[str, Any]
) -> None:
    arguments = {**sure_script, "horizon": horizon, "max_episode_steps": limit}
    single, vector = gymnasium.make(ID, **arguments), gymnasium.make_vec(ID, 2, **arguments)
    single.reset()
    vector.reset()
    cut = [bool(single.step(0)[3]) for _ in range(length)]
    assert [bool(vector.step(np.array([0, 0]))[3].any()) for _ in range(length)] == cut
    assert cut == [False] * (length - 1) + [True]


def test_minus_one_is_no_limit(sure_script: dict[str, Any]) -> None:
    vector = gymnasium.make_vec(ID, 2, **sure_script, horizon=6, max_episode_steps=-1)
    assert vector.unwrapped.dream.horizon == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize("horizon", [0, -3, "50", 2.5])
def test_a_limit_lets_no_wrong_horizon_through(horizon: Any, world: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"horizon is {horizon!r}; it must be"):
        DreamVectorEnv(num_envs=2, **{**world, "horizon": horizon}, max_episode_steps=7)


@MODES
def test_every_step_is_that_of_single_dreams(
    mode: AutoresetMode, sure_script: dict[str, Any]
) -> None:
    arguments = {**sure_script, "horizon": 6, "frame_stack": 2}
    ours = DreamVectorEnv(num_envs=4, autoreset_mode=mode, **arguments)
    theirs = SyncVectorEnv([lambda: DreamEnv(**arguments)] * 4, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    terminations = truncations = both = 0

    _assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    for _ in range(200):
        # Rarely moving dreams reach the horizon, others end by themselves, some do both at once.
        actions = rng.choice(3, size=4, p=(0.6, 0.2, 0.2))
        step = ours.step(actions)
        _assert_same(step, theirs.step(actions))
        _, _, terminated, truncated, _ = step
        ended = terminated | truncated
        if mode is AutoresetMode.DISABLED and ended.any():
            _assert_same(
                ours.reset(options={"reset_mask": ended}),
                theirs.reset(options={"reset_mask": ended}),
            )
        terminations += terminated.sum()
        truncations += truncated.sum()
        both += (terminated & truncated).sum()
    assert min(terminations, truncations, both) > 0


def _assert_same(ours: Any, theirs: Any) -> None:
    """Compares results of `reset` or `step`, types and infos and all."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    assert ours[-1].keys() == theirs[-1].keys()
    for key, other in theirs[-1].items():
        if key != "final_obs":
            np.testing.assert_equal(ours[-1][key], other)
            continue
        for last, expected in zip(ours[-1][key], other, strict=True):
            assert (last is None) == (expected is None)
            np.testing.assert_array_equal(last, expected)


@MODES
def test_a_face_dreams_what_the_core_dreams(mode: AutoresetMode, world: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=3, autoreset_mode=mode, horizon=4, **world)
    core = Dream(num_envs=3, autoreset=mode, horizon=4, **world)
    np.testing.assert_array_equal(
        env.reset(seed=5)[0], core.reset(seed=5).permute(0, 2, 3, 1).numpy()
    )
    for _ in range(12):
        obs, rewards, terminated, truncated, _ = env.step(np.array([0, 1, 2]))
        step = core.step(torch.tensor([0, 1, 2]))
        np.testing.assert_array_equal(obs, step.obs.permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(rewards, step.reward.numpy())
        np.testing.assert_array_equal(terminated, step.terminated.numpy())
        np.testing.assert_array_equal(truncated, step.truncated.numpy())
        if mode is AutoresetMode.DISABLED:
            ended = terminated | truncated
            if ended.any():
                env.reset(options={"reset_mask": ended})
                core.reset(mask=torch.from_numpy(ended))


def test_one_dream_is_a_vector_of_one(world: dict[str, Any]) -> None:
    single = DreamEnv(**world, horizon=4)
    vector = DreamVectorEnv(num_envs=1, horizon=4, **world)
    obs, _ = single.reset(seed=5)
    np.testing.assert_array_equal(vector.reset(seed=5)[0][0], obs)
    for _ in range(20):
        obs, reward, terminated, truncated, _ = single.step(1)
        ours = vector.step(np.array([1]))
        if terminated or truncated:
            np.testing.assert_array_equal(ours[4]["final_obs"][0], obs)
            obs, _ = single.reset()
        np.testing.assert_array_equal(ours[0][0], obs)
        assert (ours[1][0], ours[2][0], ours[3][0]) == (reward, terminated, truncated)


def test_a_seed_repeats_many_dreams_and_another_does_not(world: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=3, **world)
    for one, again in zip(play(env, 10), play(env, 10), strict=True):
        np.testing.assert_array_equal(one, again)
    assert (play(env, 10, seed=1)[0] != play(env, 10, seed=0)[0]).any()


def test_tensors_come_out_where_they_are_asked_for(world: dict[str, Any]) -> None:
    arrays = DreamVectorEnv(num_envs=3, horizon=4, **world)
    tensors = DreamVectorEnv(num_envs=3, horizon=4, output="torch", **world)
    obs, _ = tensors.reset(seed=0)
    assert isinstance(obs, torch.Tensor)
    np.testing.assert_array_equal(obs.numpy(), arrays.reset(seed=0)[0])
    for _ in range(10):
        step = tensors.step(torch.tensor([0, 1, 2]))
        obs, rewards, terminated, truncated, info = arrays.step(np.array([0, 1, 2]))
        assert [tensor.dtype for tensor in step[:4]] == [
            torch.uint8,
            torch.float32,
            torch.bool,
            torch.bool,
        ]
        for ours, theirs in zip(step[:4], (obs, rewards, terminated, truncated), strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs)
        ended = terminated | truncated
        np.testing.assert_array_equal(step[4]["_final_obs"].numpy(), ended)
        last = step[4]["final_obs"].numpy()
        np.testing.assert_array_equal(last[~ended], obs[~ended])
        for row in np.flatnonzero(ended):
            np.testing.assert_array_equal(last[row], info["final_obs"][row])


def test_some_dreams_begin_anew_from_contexts_that_are_named(script: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=3, autoreset_mode=AutoresetMode.DISABLED, **script)
    obs, _ = env.reset(options={"context": [0, 1, 2]})
    assert obs[:, 0, 0, 0].tolist() == [2, 22, 42]
    env.step(np.array([0, 0, 0]))
    mask = np.array([True, False, True])
    obs, _ = env.reset(options={"reset_mask": mask, "context": 4})
    assert obs[:, 0, 0, 0].tolist() == [82, 23, 82]


def test_many_dreams_render_side_by_side(script: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=2, render_mode="rgb_array", **script)
    env.reset(options={"context": [1, 3]})
    pictures = env.render()
    assert pictures is not None
    assert [picture[0, 0].tolist() for picture in pictures] == [[22] * 3, [62] * 3]


def test_many_dreams_can_be_made_again_from_their_spec(world_folder: Path) -> None:
    mode = AutoresetMode.NEXT_STEP
    env = gymnasium.make_vec(
        ID, num_envs=3, world_model=str(world_folder), horizon=7, autoreset_mode=mode
    )
    assert env.spec is not None
    again = gymnasium.make_vec(env.spec)
    assert again.num_envs == 3
    assert again.metadata["autoreset_mode"] is mode
    assert isinstance(again, DreamVectorEnv)
    assert again.dream.horizon == 7


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_many_dreams_pickle_and_copy_by_their_arguments(
    copied: Callable[[Any], Any], world: dict[str, Any]
) -> None:
    env = DreamVectorEnv(num_envs=3, horizon=7, **world)
    for one, again in zip(play(env, 5), play(copied(env), 5), strict=True):
        np.testing.assert_array_equal(one, again)


def test_gymnasiums_vector_wrappers_work_on_it(world: dict[str, Any], tmp_path: Path) -> None:
    recorder = getattr(gymnasium.wrappers.vector, "RecordVideo", None)
    if recorder is None:
        pytest.skip("Gymnasium records vectors since 1.3")
    mode = AutoresetMode.NEXT_STEP  # else the recorder misses last frames, and says so
    env: Any = gymnasium.make_vec(
        ID, num_envs=2, render_mode="rgb_array", horizon=3, autoreset_mode=mode, **world
    )
    env = recorder(
        env, str(tmp_path / "videos"), step_trigger=lambda step: step == 0, video_length=2
    )
    env = RecordVectorStatistics(env)
    env.reset(seed=0)
    lengths: list[int] = []
    for _ in range(4):
        *_, info = env.step(np.array([0, 1]))
        lengths.append(info["episode"]["l"].max() if "episode" in info else 0)
    env.close()
    assert 0 < max(lengths) <= 3
    assert [file.suffix for file in (tmp_path / "videos").iterdir()] == [".mp4"]


def test_a_loop_in_plain_gymnasium_learns_the_script(script: dict[str, Any]) -> None:
    """The action that is paid best, found by the mean reward of each over a few hundred steps."""
    env = gymnasium.make_vec(ID, num_envs=8, **script)
    rng = np.random.default_rng(0)
    paid, tried = np.zeros(3), np.zeros(3)
    env.reset(seed=0)
    for _ in range(50):
        actions = rng.integers(3, size=8)
        _, rewards, *_ = env.step(actions)
        np.add.at(paid, actions, rewards)
        np.add.at(tried, actions, 1)
    np.testing.assert_array_equal(paid / tried, [-1, 0, 1])


def test_torchrl_takes_it(world: dict[str, Any]) -> None:
    libs = pytest.importorskip("torchrl.envs.libs.gym", reason="torchrl is not installed")
    env = libs.GymEnv(ID, **world, horizon=3)
    rollout = env.rollout(6, break_when_any_done=False)
    (name,) = env.observation_spec.keys()  # it has been `pixels` and `observation`
    assert rollout["next", name].shape == (6, 40, 40, 3)
    assert rollout["next", "done"].any()


# Bad input.


def test_actions_outside_the_space_are_refused(world: dict[str, Any]) -> None:
    env = DreamEnv(**world, horizon=None)
    env.reset(seed=0)
    before = env.clone_state(include_rng=True)
    for action in (3, -1, 1.0, "left", np.array([1]), None):
        with pytest.raises(InputError, match=r"action is .*; it must be in Discrete\(3\)$"):
            env.step(action)  # type: ignore[arg-type]
    _assert_unchanged(env, before)


@pytest.mark.parametrize(
    ("actions", "problem"),
    [
        (np.array([0, 3]), "actions are from 0 to 3; they must be from 0 to 2"),
        (np.array([-1, 0]), "actions are from -1 to 0; they must be from 0 to 2"),
        (np.array([0]), r"actions is torch.int64 \[1\]; it must be torch.int64 \[2\]"),
        (np.array([[0, 1]]), r"actions is torch.int64 \[1, 2\]; it must be torch.int64 \[2\]"),
        (np.array([0.0, 1.0]), "actions are float64; they must be integers"),
        (np.array([True, False]), "actions are bool; they must be integers"),
        (torch.tensor([0.0, 1.0]), "actions are torch.float32; they must be integers"),
        (["left", "right"], "actions are <U5; they must be integers"),
    ],
)
def test_wrong_actions_of_many_dreams_are_refused(
    actions: Any, problem: str, world: dict[str, Any]
) -> None:
    env = DreamVectorEnv(num_envs=2, **world)
    env.reset(seed=0)
    before = env.dream.generator.get_state()
    with pytest.raises(InputError, match=f"^{problem}$"):
        env.step(actions)
    assert torch.equal(env.dream.generator.get_state(), before)
    env.step([0, 2])


def _assert_unchanged(env: DreamEnv, before: Any) -> None:
    after = env.clone_state(include_rng=True)
    assert torch.equal(after.rng, before.rng)  # type: ignore[arg-type]
    for one, other in zip(vars(after.dream).values(), vars(before.dream).values(), strict=True):
        assert torch.equal(one, other)


def test_a_step_before_a_reset_is_refused(world: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="call reset first"):
        DreamEnv(**world).step(0)
    with pytest.raises(StateError, match="call reset first"):
        DreamVectorEnv(num_envs=2, **world).step(np.array([0, 0]))
    with pytest.raises(StateError, match="call reset first"):
        DreamEnv(**world, render_mode="rgb_array").render()
    mask = np.array([True, False])
    with pytest.raises(StateError, match="call reset first"):
        DreamVectorEnv(num_envs=2, **world).reset(options={"reset_mask": mask})


def test_nothing_but_close_is_allowed_after_close(world: dict[str, Any]) -> None:
    env = DreamEnv(**world)
    env.reset()
    state = env.clone_state()
    env.close()
    env.close()
    calls: list[Callable[[], Any]] = [env.reset, env.render, env.clone_state]
    for call in calls:
        with pytest.raises(StateError, match="closed"):
            call()
    with pytest.raises(StateError, match="closed"):
        env.step(0)
    with pytest.raises(StateError, match="closed"):
        env.restore_state(state)
    vector = DreamVectorEnv(num_envs=2, **world)
    vector.reset()
    vector.close()
    vector.close()
    calls = [vector.reset, vector.render, lambda: vector.step(np.array([0, 0]))]
    for call in calls:
        with pytest.raises(StateError, match="closed"):
            call()


def test_a_dream_that_has_ended_must_be_reset(sure_script: dict[str, Any]) -> None:
    env = DreamEnv(**sure_script, horizon=1)
    env.reset()
    env.step(0)
    with pytest.raises(StateError, match="has ended; call reset"):
        env.step(0)
    env.reset()
    env.step(0)
    vector = DreamVectorEnv(num_envs=3, horizon=4, autoreset_mode="Disabled", **sure_script)
    vector.reset()
    for _ in range(3):
        vector.step(np.array([0, 2, 0]))
    with pytest.raises(StateError, match=r"dreams \[1\] have ended; reset them first"):
        vector.step(np.array([0, 0, 0]))
    vector.reset(options={"reset_mask": np.array([False, True, False])})
    vector.step(np.array([0, 0, 0]))


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.array([True]), r"mask is torch.bool \[1\]; it must be torch.bool \[2\]"),
        (np.array([1, 0]), r"mask is torch.int64 \[2\]; it must be torch.bool \[2\]"),
        (np.array([False, False]), "reset_mask chooses no dream"),
        ([True, False], "reset_mask is a list; it must be an array of bool"),
    ],
)
def test_wrong_masks_are_refused(mask: Any, problem: str, world: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=2, **world)
    env.reset(seed=0)
    before = env.dream.snapshot()
    with pytest.raises(InputError, match=f"^{problem}"):
        env.reset(options={"reset_mask": mask})
    assert torch.equal(env.dream.state.frames, before.frames)


def test_a_seed_for_some_dreams_is_refused(world: dict[str, Any]) -> None:
    env = DreamVectorEnv(num_envs=2, **world)
    env.reset(seed=0)
    with pytest.raises(InputError, match="a seed and a mask are given"):
        env.reset(seed=1, options={"reset_mask": np.array([True, False])})
    assert env.np_random_seed == 0


def test_a_seed_of_numpy_is_a_seed(world: dict[str, Any]) -> None:
    for env in (DreamEnv(**world), DreamVectorEnv(num_envs=2, **world)):
        np.testing.assert_array_equal(
            env.reset(seed=np.int64(3))[0],  # type: ignore[arg-type]
            env.reset(seed=3)[0],
        )


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, [1, 2]])
def test_wrong_seeds_are_refused(seed: Any, world: dict[str, Any]) -> None:
    for env in (DreamEnv(**world), DreamVectorEnv(num_envs=2, **world)):
        with pytest.raises(InputError, match=r"^seed is .*; it must be one integer from 0"):
            env.reset(seed=seed)
        env.reset(seed=2**63 - 1)


def test_wrong_options_are_refused(world: dict[str, Any]) -> None:
    env, vector = DreamEnv(**world), DreamVectorEnv(num_envs=2, **world)
    with pytest.raises(InputError, match=r"^options has difficulty; a dream knows context$"):
        env.reset(options={"difficulty": 1})
    with pytest.raises(InputError, match=r"a dream knows context, reset_mask$"):
        vector.reset(options={"difficulty": 1})
    for options in (5, ["context"]):
        with pytest.raises(InputError, match=r"^options is a \w+; it must be a dictionary$"):
            env.reset(options=options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^options has 1; a dream knows context$"):
        env.reset(options={1: 2})  # type: ignore[dict-item]
    for context in (16, -1):
        with pytest.raises(InputError, match="they must be from 0 to 15"):
            env.reset(options={"context": context})
    with pytest.raises(InputError, match=r"contexts is torch.int64 \[3\]"):
        vector.reset(options={"context": [1, 2, 3]})


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"horizon": 0}, ConfigError, "horizon is 0"),
        ({"denoising_steps": 0}, ConfigError, "num_steps is 0"),
        ({"denoising_steps": [1.0, 2.0]}, ConfigError, "sigmas is"),
        ({"frame_stack": 4}, ConfigError, "frame_stack is 4; it must be from 1 to 3"),
        ({"device": "cuda:99"}, InputError, "device 'cuda:99' is not there"),
        ({"device": "gpu"}, InputError, "device is 'gpu'"),
        ({"render_mode": "ansi"}, InputError, "render_mode is 'ansi'"),
        ({"horzion": 5}, TypeError, "got an unexpected keyword argument 'horzion'; a dream has wo"),
        ({"horizon": 2.5}, ConfigError, "horizon is 2.5; it must be an integer"),
        ({"horizon": "50"}, ConfigError, "horizon is '50'; it must be an integer"),
        ({"frame_stack": None}, ConfigError, "frame_stack is None; it must be an integer"),
        ({"denoising_steps": "21"}, ConfigError, "denoising_steps is '21'"),
        ({"denoising_steps": [float("nan")]}, ConfigError, "sigmas is"),
        ({"device": None}, InputError, "device is None"),
        ({"world_model": 5}, InputError, "world_model is a int; it must be a folder or"),
        ({"contexts": 5}, InputError, "contexts is a int; it must be a Contexts"),
        ({"contexts": "nowhere"}, FormatError, "nowhere/contexts.npz holds no contexts"),
        ({"contexts": None}, InputError, "does not say where dreams begin"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], problem: str, world: dict[str, Any]
) -> None:
    for face in (DreamEnv, DreamVectorEnv):
        with pytest.raises(error, match=f"^.*{problem}") as raised:
            face(**{**world, **arguments})
        assert isinstance(raised.value, DreamenvError)


def test_wrong_arguments_of_many_dreams_are_refused(world: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="num_envs is 0"):
        DreamVectorEnv(num_envs=0, **world)
    with pytest.raises(InputError, match="autoreset_mode is 'never'; it must be one of"):
        DreamVectorEnv(autoreset_mode="never", **world)
    with pytest.raises(InputError, match="output is 'jax'"):
        DreamVectorEnv(output="jax", **world)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="render_mode is 'human'"):
        DreamVectorEnv(render_mode="human", **world)
    with pytest.raises(InputError, match="no world model is named"):
        DreamVectorEnv()


def test_a_world_model_that_says_nothing_of_its_origin_can_be_dreamt_of(
    world: dict[str, Any],
) -> None:
    world["world_model"].origin = Origin()
    env = DreamEnv(**world)
    assert env.environment is None
    assert env.get_action_meanings() == ["0", "1", "2"]
    assert env.metadata["render_fps"] == 30


def test_grey_frames_are_rendered_as_colours(scripted_world: WorldModel) -> None:
    spec = EnvironmentSpec("Test/Grey-v0", (1, 8, 8), ("0", "1", "2"))
    config = type(scripted_world.config)(
        num_actions=3,
        obs_shape=(1, 8, 8),
        denoiser=scripted_world.config.denoiser,
        reward_end=scripted_world.config.reward_end,
    )
    model = WorldModel(config, Origin(environment=spec)).eval()
    obs = torch.full((1, 3, 1, 8, 8), 7, dtype=torch.uint8)
    contexts = Contexts(obs, torch.zeros(1, 3, dtype=torch.int64))
    env = DreamEnv(world_model=model, contexts=contexts, render_mode="rgb_array")
    assert env.reset()[0].shape == (8, 8, 1)
    picture = env.render()
    assert picture is not None
    assert picture.shape == (8, 8, 3)
    assert (picture == 7).all()
