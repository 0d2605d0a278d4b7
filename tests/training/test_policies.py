import base64
import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.base_class import BaseAlgorithm

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.actor_critic_file import load_actor_critic, write_actor_critic
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig
from dreamenv.real.policy import Policy, RandomPolicy
from dreamenv.training.actor_critic_policy import ActorCriticPolicy
from dreamenv.training.policies import StackingPolicy, load_policy

SaveAgent = Callable[..., tuple[BaseAlgorithm, str]]

HEIGHT, WIDTH = 36, 40  # stable-baselines3 convolves no less than 36
NUM_ACTIONS = 3
GAME = EnvironmentSpec(id="Noise-v0", obs_shape=(3, HEIGHT, WIDTH), action_meanings=("L", "-", "R"))
CHANNELS_LAST, CHANNELS_FIRST = (HEIGHT, WIDTH, 3), (3, HEIGHT, WIDTH)

TINY: dict[str, Any] = {"net_arch": [4]}
TINY_LSTM: dict[str, Any] = TINY | {"lstm_hidden_size": 8}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "PPO": (stable_baselines3.PPO, {"policy_kwargs": TINY}),
    "A2C": (stable_baselines3.A2C, {"policy_kwargs": TINY}),
    "DQN": (stable_baselines3.DQN, {"policy_kwargs": TINY, "buffer_size": 1}),
    "RecurrentPPO": (sb3_contrib.RecurrentPPO, {"policy_kwargs": TINY_LSTM}),
    "QRDQN": (sb3_contrib.QRDQN, {"policy_kwargs": TINY, "buffer_size": 1}),
    "TRPO": (sb3_contrib.TRPO, {"policy_kwargs": TINY}),
    "MaskablePPO": (sb3_contrib.MaskablePPO, {"policy_kwargs": TINY}),
}


class Noise(gymnasium.Env[npt.NDArray[np.uint8], np.int64]):
    """Random images of a shape; nothing else happens."""

    def __init__(self, shape: tuple[int, int, int], num_actions: int) -> None:
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = Discrete(num_actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed, options=options)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> Any:  # noqa: ARG002
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture
def save_agent(tmp_path: Path) -> SaveAgent:
    def save(
        algorithm: str,
        policy: str = "MlpPolicy",
        shape: tuple[int, int, int] = CHANNELS_FIRST,
        num_actions: int = NUM_ACTIONS,
    ) -> tuple[BaseAlgorithm, str]:
        agent_class, settings = AGENTS[algorithm]
        agent = agent_class(policy, Noise(shape, num_actions), seed=3, device="cpu", **settings)
        agent.save(tmp_path / "agent.zip")
        return agent, str(tmp_path / "agent.zip")

    return save


def some_frames(rows: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, *CHANNELS_FIRST), dtype=np.uint8)


def flags(*values: int) -> npt.NDArray[np.bool_]:
    return np.array(values, np.bool_)


def loaded(name: str) -> Policy:
    policy = load_policy(name, GAME)
    assert policy is not None
    return policy


def left(obs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    return np.zeros(len(obs), np.int32)


def brightness(obs: npt.NDArray[np.uint8]) -> list[int]:
    return [int(frame.mean() > 100) for frame in obs]


def too_few(obs: npt.NDArray[np.uint8]) -> list[int]:
    return [0] * (len(obs) - 1)


def probabilities(obs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.full(len(obs), 0.5)


NO_FUNCTION = 3


def of_a_missing_module() -> bytes:
    pickled = base64.b64encode(b"cno_such_module\nPolicy\n.").decode()
    return json.dumps({"policy_class": {":type:": "", ":serialized:": pickled}}).encode()


def of_no_layer() -> bytes:
    written = io.BytesIO()
    torch.save({}, written)
    return written.getvalue()


class TestNames:
    def test_random_play_needs_no_policy(self) -> None:
        assert load_policy("random", GAME) is None

    @pytest.mark.parametrize("name", ["", "Random", "agent", "agent.pt"])
    def test_a_name_that_is_none_of_the_three_is_refused(self, name: str) -> None:
        with pytest.raises(InputError, match=r"must be 'random', the \.zip .* or module:function"):
            load_policy(name, GAME)


class TestActorCritics:
    def test_the_actor_critic_of_a_world_model_plays(self, tmp_path: Path) -> None:
        folder = with_actor_critic(tmp_path, GAME.obs_shape)
        frames = np.random.default_rng(0).integers(0, 256, (3, *CHANNELS_FIRST), dtype=np.uint8)
        expected = ActorCriticPolicy(load_actor_critic(folder), sample=False)
        actions = loaded(str(folder)).act(frames, flags(1, 1, 1))
        assert actions.tolist() == expected.act(frames, flags(1, 1, 1)).tolist()

    def test_one_of_another_game_is_refused(self, tmp_path: Path) -> None:
        folder = with_actor_critic(tmp_path, (3, 16, 16))
        with pytest.raises(InputError, match=r"plays frames \[3, 16, 16\] with .* actions; "):
            load_policy(str(folder), GAME)

    def test_a_folder_without_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="the folder of an actor-critic, or module:function"):
            load_policy(str(tmp_path), GAME)


def with_actor_critic(folder: Path, obs_shape: tuple[int, int, int]) -> Path:
    """Saves a world model that has learned nothing, with an actor-critic that has opinions."""
    level: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,)}
    agent = ActorCriticConfig(channels=(8,), downsample=(True,), lstm_dim=8)
    config = WorldModelConfig(
        num_actions=GAME.num_actions,
        obs_shape=obs_shape,
        denoiser=DenoiserConfig(context_length=2, cond_channels=8, **level),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **level),
    )
    network = ActorCritic(agent, obs_shape, GAME.num_actions)
    torch.nn.init.normal_(network.policy.weight)
    model = WorldModel(config, Origin(agent=agent))
    model.save(folder, also=functools.partial(write_actor_critic, network))
    return folder


class TestFunctions:
    @pytest.mark.parametrize(("function", "expected"), [(left, [0, 0]), (brightness, [0, 1])])
    def test_a_function_plays(self, function: Callable[..., Any], expected: list[int]) -> None:
        frames = np.stack([np.full(CHANNELS_FIRST, level, np.uint8) for level in (0, 255)])
        actions = loaded(f"{__name__}:{function.__name__}").act(frames, flags(1, 0))
        assert actions.dtype == np.int64
        assert actions.tolist() == expected

    @pytest.mark.parametrize(
        ("function", "message"),
        [(too_few, r"int64 \[1\]; it must return 2 integers"), (probabilities, r"float64 \[2\]")],
    )
    def test_what_is_no_integer_a_game_is_refused(
        self, function: Callable[..., Any], message: str
    ) -> None:
        policy = loaded(f"{__name__}:{function.__name__}")
        with pytest.raises(InputError, match=message):
            policy.act(some_frames(2), flags(1, 1))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("no_such_module:act", "cannot be imported .*no_such_module"),
            ("math:no_such_function", "cannot be imported .*no_such_function"),
            (f"{__name__}:NO_FUNCTION", "is a int; it must be a function"),
            (":act", "cannot be imported"),
            ("math:", "cannot be imported"),
        ],
    )
    def test_a_function_that_is_not_there_is_named(self, name: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as error:
            load_policy(name, GAME)
        assert "\n" not in str(error.value)


class TestAgents:
    @pytest.mark.parametrize(
        ("algorithm", "policy", "shape"),
        [
            ("PPO", "MlpPolicy", CHANNELS_FIRST),
            ("PPO", "CnnPolicy", CHANNELS_LAST),
            ("A2C", "MlpPolicy", CHANNELS_LAST),
            ("DQN", "CnnPolicy", CHANNELS_FIRST),
            ("DQN", "MlpPolicy", CHANNELS_LAST),
            ("QRDQN", "MlpPolicy", CHANNELS_FIRST),
            ("TRPO", "MlpPolicy", CHANNELS_FIRST),
        ],
    )
    def test_a_saved_agent_plays_what_it_would_play(
        self, save_agent: SaveAgent, algorithm: str, policy: str, shape: tuple[int, int, int]
    ) -> None:
        agent, name = save_agent(algorithm, policy, shape)
        frames = some_frames(16)
        actions = loaded(name).act(frames, flags(*[1] * 16))
        assert actions.dtype == np.int64
        own = frames if shape == CHANNELS_FIRST else frames.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(actions, agent.predict(own, deterministic=True)[0])
        assert set(actions.tolist()) <= set(range(NUM_ACTIONS))

    def test_a_recurrent_agent_remembers_until_an_episode_starts(
        self, save_agent: SaveAgent
    ) -> None:
        agent, name = save_agent("RecurrentPPO", "MlpLstmPolicy")
        policy, state = loaded(name), None
        for step in range(8):
            # The second game starts anew at its fourth step, the first goes on.
            frames, starts = some_frames(2, seed=step), flags(step == 0, step in (0, 4))
            expected, state = agent.predict(
                frames,
                state=state,
                episode_start=starts,
                deterministic=True,
            )
            np.testing.assert_array_equal(policy.act(frames, starts), expected)

    @pytest.mark.parametrize("change", [{"num_actions": 4}, {"shape": (1, HEIGHT, WIDTH)}])
    def test_an_agent_of_another_game_is_refused_in_one_line(
        self, save_agent: SaveAgent, change: dict[str, Any]
    ) -> None:
        _, name = save_agent("DQN", **change)
        message = r"agent\.zip plays Box.*Noise-v0 has frames \[3, 36, 40\] and 3 actions"
        with pytest.raises(InputError, match=message) as error:
            load_policy(name, GAME)
        assert "\n" not in str(error.value)

    def test_an_agent_of_another_kind_is_refused(self, save_agent: SaveAgent) -> None:
        _, name = save_agent("MaskablePPO")
        with pytest.raises(InputError, match=r"agent\.zip was trained by none of PPO, A2C"):
            load_policy(name, GAME)

    def test_an_agent_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere\.zip' is not there; name the \.zip"):
            load_policy(str(tmp_path / "nowhere.zip"), GAME)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive"])
    def test_a_file_that_is_no_agent_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "agent.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"agent\.zip is no saved agent"):
            load_policy(str(tmp_path / "agent.zip"), GAME)

    def test_an_archive_of_something_else_is_refused(self, tmp_path: Path) -> None:
        with (tmp_path / "agent.zip").open("wb") as file:
            np.savez(file, frames=np.zeros(3))
        with pytest.raises(InputError, match=r"agent\.zip is no saved agent"):
            load_policy(str(tmp_path / "agent.zip"), GAME)

    def test_a_truncated_agent_is_refused(self, save_agent: SaveAgent) -> None:
        _, name = save_agent("DQN")
        whole = Path(name).read_bytes()
        Path(name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"agent\.zip is no saved agent") as error:
            load_policy(name, GAME)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("file", "content", "reason"),
        [
            (
                "data",
                of_a_missing_module(),
                "ModuleNotFoundError: No module named 'no_",
            ),
            ("policy.pth", b"no weights", "UnpicklingError: "),
            ("policy.pth", of_no_layer(), "RuntimeError: Error.* Missing key"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_whatever_loading_raises_is_told_in_one_line(
        self, save_agent: SaveAgent, file: str, content: bytes, reason: str
    ) -> None:
        _, name = save_agent("DQN")
        replace_in_archive(Path(name), file, content)
        with pytest.raises(InputError, match=rf"agent\.zip is no saved .* \({reason}") as error:
            load_policy(name, GAME)
        assert "\n" not in str(error.value)


def replace_in_archive(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    assert name in files
    with zipfile.ZipFile(path, "w") as archive:
        for each, kept in files.items():
            archive.writestr(each, content if each == name else kept)


class Recorder(RandomPolicy):
    """Remembers what it was shown; plays the only action there is."""

    def __init__(self) -> None:
        super().__init__(num_actions=1)
        self.seen: list[npt.NDArray[np.uint8]] = []

    def act(
        self,
        obs: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.int64]:
        self.seen.append(obs)
        return super().act(obs, starts)


class TestStacking:
    def test_the_last_frames_are_shown_oldest_first_and_grey_before_an_episode(self) -> None:
        recorder = Recorder()
        policy = StackingPolicy(recorder, 3)
        starts = [flags(1, 1), flags(0, 0), flags(0, 1), flags(0, 0)]
        for step in range(4):
            frames = np.stack([np.full((2, 4, 5), game + step, np.uint8) for game in (10, 20)])
            policy.act(frames, starts[step])
        assert {obs.shape for obs in recorder.seen} == {(2, 6, 4, 5)}
        shown = [obs[:, ::2, 0, 0].tolist() for obs in recorder.seen]
        assert shown == [
            [[128, 128, 10], [128, 128, 20]],
            [[128, 10, 11], [128, 20, 21]],
            [[10, 11, 12], [128, 128, 22]],
            [[11, 12, 13], [128, 22, 23]],
        ]

    def test_what_was_shown_is_never_written_to_again(self) -> None:
        recorder = Recorder()
        policy = StackingPolicy(recorder, 2)
        policy.act(some_frames(2), flags(1, 1))
        kept = recorder.seen[0].copy()
        policy.act(some_frames(2, seed=1), flags(1, 1))
        np.testing.assert_array_equal(recorder.seen[0], kept)

    def test_an_agent_of_stacked_frames_is_shown_single_ones(self, save_agent: SaveAgent) -> None:
        agent, name = save_agent("PPO", shape=(2 * CHANNELS_FIRST[0], HEIGHT, WIDTH))
        policy = loaded(name)
        first, second = some_frames(4), some_frames(4, seed=1)
        policy.act(first, flags(1, 1, 1, 1))
        stacked = np.concatenate([first, second], axis=1)
        expected, _ = agent.predict(stacked, deterministic=True)
        np.testing.assert_array_equal(policy.act(second, flags(0, 0, 0, 0)), expected)


class TestChance:
    def sampled(self, name: str, seed: int) -> npt.NDArray[np.int64]:
        policy = load_policy(name, GAME, sample=True, seed=seed)
        assert policy is not None
        frames = np.repeat(some_frames(1), 400, axis=0)
        return policy.act(frames, flags(*[1] * 400))

    def test_an_agent_with_a_distribution_draws_from_it(self, save_agent: SaveAgent) -> None:
        agent, name = save_agent("PPO")
        actions = self.sampled(name, 0)
        obs, _ = agent.policy.obs_to_tensor(some_frames(1))
        probabilities = agent.policy.get_distribution(obs).distribution.probs[0]  # type: ignore[operator]
        shares = np.bincount(actions, minlength=NUM_ACTIONS) / len(actions)
        np.testing.assert_allclose(shares, probabilities.detach().numpy(), atol=0.1)

    @pytest.mark.parametrize("algorithm", ["DQN", "QRDQN"])
    def test_an_agent_with_values_explores_in_each_game_by_itself(
        self, save_agent: SaveAgent, algorithm: str
    ) -> None:
        agent, name = save_agent(algorithm)
        epsilon = agent.exploration_final_eps  # type: ignore[attr-defined]
        best = agent.predict(some_frames(1), deterministic=True)[0][0]
        others = (self.sampled(name, 0) != best).mean()
        assert 0 < others < 3 * epsilon

    def test_a_seed_decides_and_nobody_else_is_disturbed(self, save_agent: SaveAgent) -> None:
        _, name = save_agent("PPO")
        before = torch.get_rng_state()
        first, again, other = (self.sampled(name, seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
