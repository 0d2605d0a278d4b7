"""Finding who plays: random, a Python function, or a saved agent."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError
from dreamenv.models.actor_critic_file import has_actor_critic, load_actor_critic
from dreamenv.padding import PADDING_LEVEL
from dreamenv.real.policy import (
    Actions,
    Flags,
    Frames,
    Policy,
    RandomPolicy,
    StatefulPolicy,
    as_actions,
)
from dreamenv.training.actor_critic_policy import ActorCriticPolicy
from dreamenv.training.named_function import load_function

RANDOM = "random"

# A saved agent does not say which algorithm trained it, only its policy's class. PPO, A2C and TRPO
# share theirs: to choose actions, PPO serves for all three.
_ALGORITHMS = {
    "stable_baselines3": ("PPO", "DQN"),
    "sb3_contrib": ("RecurrentPPO", "QRDQN"),
}


class FunctionPolicy:
    """Plays what a Python function of the frames says.

    Args:
        function: Maps frames, uint8 [N, C, H, W], to N integers.
    """

    def __init__(self, function: Callable[[Frames], npt.ArrayLike]) -> None:
        self._function = function

    def act(self, obs: Frames, starts: Flags) -> Actions:  # noqa: ARG002
        """See `Policy`; the function is not told where episodes start."""
        return as_actions(self._function(obs), len(obs))


class AgentPolicy:
    """Plays as a stable-baselines3 or sb3-contrib agent does.

    Args:
        agent: The agent, on frames with channels first: so SB3 turns those it is trained on.
        sample: Whether it plays as it did at the end of its training: an agent with a
            distribution of actions draws from it, one with values of actions takes a random one
            with its final ε. Otherwise it plays its most likely actions.
        seed: Of its chance.
    """

    def __init__(self, agent: Any, *, sample: bool = False, seed: int = 0) -> None:
        self._agent = agent
        # A fresh agent's rate of exploration is 0, that of an interrupted one near 1.
        self._epsilon = getattr(agent, "exploration_final_eps", 0.0) if sample else 0.0
        self._draws = sample and not hasattr(agent, "exploration_final_eps")
        self._random = np.random.default_rng(seed)
        self._state: Any = None

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """See `Policy`."""
        # Agents draw from torch's own generator, which is everybody's.
        with torch.random.fork_rng(_cuda_devices(self._agent.device)):
            if self._draws:
                torch.manual_seed(int(self._random.integers(2**63)))
            actions, self._state = self._agent.predict(
                obs, state=self._state, episode_start=starts, deterministic=not self._draws
            )
        # Not left to the agent either: it would explore in all games at once, or in none.
        at_random = self._random.random(len(obs)) < self._epsilon
        random_actions = self._random.integers(self._agent.action_space.n, size=len(obs))
        return np.where(at_random, random_actions, actions).astype(np.int64)

    def state_dict(self) -> dict[str, Any]:
        """See `StatefulPolicy`."""
        memory = None if self._state is None else [torch.tensor(part) for part in self._state]
        return {"random": self._random.bit_generator.state, "memory": memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `StatefulPolicy`."""
        self._random.bit_generator.state = state["random"]
        memory = state["memory"]
        self._state = None if memory is None else tuple(part.cpu().numpy() for part in memory)


class StackingPolicy:
    """Shows a policy the last k frames of each game, oldest first, along the channels.

    Before the first frame of an episode there is mid grey, as in the contexts where dreams begin.

    Args:
        policy: Whose observations are uint8 [N, k * C, H, W].
        frame_stack: k.
    """

    def __init__(self, policy: StatefulPolicy, frame_stack: int) -> None:
        self._policy = policy
        self._frame_stack = frame_stack
        self._frames: Frames | None = None  # [N, k, C, H, W]

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """See `Policy`."""
        count, *frame = obs.shape
        if self._frames is None or len(self._frames) != count:
            self._frames = np.full((count, self._frame_stack, *frame), PADDING_LEVEL, np.uint8)
        past = self._frames[:, 1:].copy()  # what the policy was shown stays as it was
        past[starts] = PADDING_LEVEL
        self._frames = np.concatenate([past, obs[:, None]], axis=1)
        channels, height, width = frame
        stacked = self._frames.reshape(count, self._frame_stack * channels, height, width)
        return self._policy.act(stacked, starts)

    def state_dict(self) -> dict[str, Any]:
        """See `StatefulPolicy`."""
        frames = None if self._frames is None else torch.tensor(self._frames)
        return {"frames": frames, "policy": self._policy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `StatefulPolicy`."""
        frames = state["frames"]
        self._frames = None if frames is None else frames.cpu().numpy()
        self._policy.load_state_dict(state["policy"])


def agent_policy(
    agent: Any,
    environment: EnvironmentSpec,
    *,
    name: str = "the agent",
    sample: bool = False,
    seed: int = 0,
) -> StatefulPolicy:
    """Lets an agent play an environment, on as many stacked frames as it was trained on.

    Args:
        agent: Of stable-baselines3 or sb3-contrib.
        environment: What is played.
        name: What an error calls it.
        sample: Whether it draws its actions; see `AgentPolicy`.
        seed: Of its chance.

    Raises:
        InputError: It plays something else.
    """
    frame_stack = _frame_stack(agent, environment, name)
    policy = AgentPolicy(agent, sample=sample, seed=seed)
    return policy if frame_stack == 1 else StackingPolicy(policy, frame_stack)


def load_policy(
    name: str, environment: EnvironmentSpec, *, sample: bool = False, seed: int = 0
) -> Policy | None:
    """Finds who plays.

    A saved agent can hold code that runs when it is loaded, as can a function's module: name
    only those that you trust.

    Args:
        name: `random`; the path of an agent saved by stable-baselines3 or sb3-contrib
            (`agent.zip`); the folder of an actor-critic, by itself or with its world model; or,
            as `module:name`, a Python function of the frames, or a class whose instances are
            policies.
        environment: What is played.
        sample: Whether an agent draws its actions; see `AgentPolicy`.
        seed: Of an agent's chance.

    Returns:
        The policy; None for random play, which the collector's ε does by itself.

    Raises:
        InputError: There is no such player, or it plays something else.
    """
    if name == RANDOM:
        return None
    if name.endswith(".zip"):
        agent = _load_agent(Path(name))
        return agent_policy(agent, environment, name=name, sample=sample, seed=seed)
    if name and has_actor_critic(Path(name)):
        return _load_actor_critic(Path(name), environment, sample=sample, seed=seed)
    if ":" in name:
        player = load_function(name, "policy")
        return cast("Policy", player()) if isinstance(player, type) else FunctionPolicy(player)
    raise InputError(
        f"policy is {name!r}; it must be 'random', the .zip of a saved agent, the folder of an "
        f"actor-critic, or module:function"
    )


def load_player(
    name: str, environment: EnvironmentSpec, *, sample: bool = False, seed: int = 0
) -> Policy:
    """Finds who plays, random play too; see `load_policy`."""
    policy = load_policy(name, environment, sample=sample, seed=seed)
    return RandomPolicy(environment.num_actions, seed) if policy is None else policy


def _load_actor_critic(
    folder: Path, environment: EnvironmentSpec, *, sample: bool, seed: int
) -> Policy:
    network = load_actor_critic(folder)
    if (network.obs_shape, network.num_actions) != (environment.obs_shape, environment.num_actions):
        raise InputError(
            f"{folder} plays frames {list(network.obs_shape)} with {network.num_actions} actions; "
            f"{environment.id} has frames {list(environment.obs_shape)} and "
            f"{environment.num_actions} actions"
        )
    return ActorCriticPolicy(network, sample=sample, seed=seed)


def _load_agent(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"policy {str(path)!r} is not there; name the .zip of a saved agent")
    try:
        return _load_any_algorithm(path)
    except InputError:
        raise
    except Exception as error:  # what others have pickled can raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path} is no saved agent that can be loaded here ({reason}); name another"
        ) from error


def _frame_stack(agent: Any, environment: EnvironmentSpec, name: str) -> int:
    """Returns how many frames an agent looks at, if it can play the environment at all."""
    channels, *size = environment.obs_shape
    shape: tuple[int, ...] = agent.observation_space.shape or ()
    fits = len(shape) == 3 and list(shape[1:]) == size and shape[0] % channels == 0
    if not fits or getattr(agent.action_space, "n", None) != environment.num_actions:
        raise InputError(
            f"{name} plays {agent.observation_space} with {agent.action_space}; {environment.id} "
            f"has frames {list(environment.obs_shape)} and {environment.num_actions} actions"
        )
    return int(shape[0] // channels)


def _load_any_algorithm(path: Path) -> Any:
    from stable_baselines3.common.save_util import load_from_zip_file

    data, _, _ = load_from_zip_file(path, device="cpu", load_data=True)
    policy_class = (data or {}).get("policy_class")
    if policy_class is None:
        raise InputError(f"{path} is no saved agent (it has no policy); name another")
    for package, algorithms in _ALGORITHMS.items():
        for algorithm in algorithms:
            agent_class = getattr(importlib.import_module(package), algorithm)
            if policy_class in agent_class.policy_aliases.values():
                return agent_class.load(path, device="cpu")
    raise InputError(
        f"{path} was trained by none of PPO, A2C, TRPO, DQN, RecurrentPPO and QRDQN; name another "
        f"agent"
    )


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
