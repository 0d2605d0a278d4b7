"""Who plays while episodes are collected."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError

Frames = npt.NDArray[np.uint8]  # [N, C, H, W]
Actions = npt.NDArray[np.int64]  # [N]
Flags = npt.NDArray[np.bool_]  # [N]

RANDOM = "random"

# A saved agent does not say which algorithm trained it, only its policy's class. PPO, A2C and TRPO
# share theirs: to choose actions, PPO serves for all three.
_ALGORITHMS = {
    "stable_baselines3": ("PPO", "DQN"),
    "sb3_contrib": ("RecurrentPPO", "QRDQN"),
}


class Policy(Protocol):
    """Chooses actions for N games at once.

    To be collected exactly again after an interruption, what it does in one game may depend on
    that game alone, and not on chance: the collector adds chance by its ε.
    """

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """Chooses.

        Args:
            obs: uint8 [N, C, H, W], the frame each game shows.
            starts: bool [N], whether it is the first frame of an episode.

        Returns:
            int64 [N], from 0 to the number of actions - 1.
        """


class FunctionPolicy:
    """Plays what a Python function of the frames says.

    Args:
        function: Maps frames, uint8 [N, C, H, W], to N integers.
    """

    def __init__(self, function: Callable[[Frames], npt.ArrayLike]) -> None:
        self._function = function

    def act(self, obs: Frames, starts: Flags) -> Actions:  # noqa: ARG002
        """See `Policy`; the function is not told where episodes start."""
        actions = np.asarray(self._function(obs))
        if actions.shape != (len(obs),) or actions.dtype.kind not in "iu":
            raise InputError(
                f"the policy returned {actions.dtype} {list(actions.shape)}; it must return "
                f"{len(obs)} integers"
            )
        return actions.astype(np.int64)


class AgentPolicy:
    """Plays as a saved stable-baselines3 or sb3-contrib agent does, at its most likely actions.

    Args:
        agent: The agent, on frames with channels first: so SB3 turns those it is trained on.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._state: Any = None

    def act(self, obs: Frames, starts: Flags) -> Actions:
        """See `Policy`."""
        actions, self._state = self._agent.predict(
            obs, state=self._state, episode_start=starts, deterministic=True
        )
        return np.asarray(actions, np.int64)


def load_policy(name: str, environment: EnvironmentSpec) -> Policy | None:
    """Finds who plays.

    A saved agent can hold code that runs when it is loaded, as can a function's module: name
    only those that you trust.

    Args:
        name: `random`; the path of an agent saved by stable-baselines3 or sb3-contrib
            (`agent.zip`); or a Python function of the frames (`module:function`).
        environment: What is played.

    Returns:
        The policy; None for random play, which the collector's ε does by itself.

    Raises:
        InputError: There is no such player, or it plays something else.
    """
    if name == RANDOM:
        return None
    if name.endswith(".zip"):
        return AgentPolicy(_load_agent(Path(name), environment))
    if ":" in name:
        return FunctionPolicy(_load_function(name))
    raise InputError(
        f"policy is {name!r}; it must be 'random', the .zip of a saved agent, or module:function"
    )


def _load_function(name: str) -> Callable[[Frames], npt.ArrayLike]:
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # The module is the user's: importing it can raise anything.
        raise InputError(
            f"policy {name!r} cannot be imported ({type(error).__name__}: {error}); name a "
            f"function in a module that Python finds"
        ) from error
    if not callable(function):
        raise InputError(f"policy {name!r} is a {type(function).__name__}; it must be a function")
    return cast("Callable[[Frames], npt.ArrayLike]", function)


def _load_agent(path: Path, environment: EnvironmentSpec) -> Any:
    if not path.is_file():
        raise InputError(f"policy {str(path)!r} is not there; name the .zip of a saved agent")
    agent = _load_any_algorithm(path)
    actions = getattr(agent.action_space, "n", None)
    plays = (agent.observation_space.shape, actions)
    if plays != (environment.obs_shape, environment.num_actions):
        raise InputError(
            f"{path} plays {agent.observation_space} with {agent.action_space}; {environment.id} "
            f"has frames {list(environment.obs_shape)} and {environment.num_actions} actions"
        )
    return agent


def _load_any_algorithm(path: Path) -> Any:
    from stable_baselines3.common.save_util import load_from_zip_file

    try:
        data, _, _ = load_from_zip_file(path, device="cpu", load_data=True)
    except (ValueError, AssertionError, OSError) as error:
        raise InputError(f"{path} is no saved agent ({error}); name another") from error
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
