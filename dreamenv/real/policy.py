"""Who plays: what chooses the actions of many games at once."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dreamenv.errors import InputError

Frames = npt.NDArray[np.uint8]  # [N, C, H, W]
Actions = npt.NDArray[np.int64]  # [N]
Flags = npt.NDArray[np.bool_]  # [N]


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


class StatefulPolicy(Policy, Protocol):
    """A policy with chance and memory of its own, which can be kept and brought back."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for what it learned."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""


class RandomPolicy:
    """Plays all actions equally often, whatever it sees.

    Args:
        num_actions: How many there are.
        seed: Of its chance.
    """

    def __init__(self, num_actions: int, seed: int = 0) -> None:
        self._num_actions = num_actions
        self._random = np.random.default_rng(seed)

    def act(self, obs: Frames, starts: Flags) -> Actions:  # noqa: ARG002
        """See `Policy`."""
        return self._random.integers(self._num_actions, size=len(obs))

    def state_dict(self) -> dict[str, Any]:
        """See `StatefulPolicy`."""
        return {"random": self._random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `StatefulPolicy`."""
        self._random.bit_generator.state = state["random"]


def as_actions(chosen: npt.ArrayLike, num_games: int) -> Actions:
    """Returns what a player chose as int64 [N].

    Args:
        chosen: What it returned.
        num_games: N.

    Raises:
        InputError: They are no N integers.
    """
    actions = np.asarray(chosen)
    if actions.shape != (num_games,) or actions.dtype.kind not in "iu":
        raise InputError(
            f"the policy returned {actions.dtype} {list(actions.shape)}; it must return "
            f"{num_games} integers"
        )
    return actions.astype(np.int64)


def to_channels_first(frames: npt.NDArray[np.uint8]) -> Frames:
    """Turns frames [N, H, W, C], as environments give them, into [N, C, H, W]."""
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
