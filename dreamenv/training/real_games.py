"""Real games side by side that are learned from as they are played, and can be brought back."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import GameError
from dreamenv.real import make_vector
from dreamenv.training.experience import FinishedGame
from dreamenv.training.game import Game

Frames = npt.NDArray[np.uint8]  # [N, H, W, C]
Flags = npt.NDArray[np.bool_]  # [N]


class GamesStep(NamedTuple):
    """What one step of N games came to.

    Attributes:
        rewards: float32 [N], the signs of the raw rewards.
        terminated: bool [N].
        truncated: bool [N].
        reached: uint8 [N, H, W, C], the frames that the step led to; where an episode ended there,
            that is its last one, not the first of the next.
    """

    rewards: npt.NDArray[np.float32]
    terminated: Flags
    truncated: Flags
    reached: Frames

    @property
    def ended(self) -> Flags:
        """Bool [N], whether an episode ended in the step."""
        return self.terminated | self.truncated


class RealGames:
    """N real games, each followed by another where it ends.

    The loss of a life ends an episode and rewards are signs, as in training everywhere; the scores
    of the finished games are of raw rewards.

    Games are seeded one by one, as those of `Experience` are. An emulator's state cannot be kept,
    so a game is brought back from its seed and the actions since.

    Args:
        environment: What is played.
        num_envs: N.
        seed: Of the games.

    Attributes:
        environment: What is played.
        num_envs: N.
        steps: Steps that were played, those of all games together.
        frames: uint8 [N, H, W, C], what the games show. Never written to again.

    Raises:
        GameError: The environment cannot be made.
    """

    def __init__(self, environment: EnvironmentSpec, num_envs: int, seed: int = 0) -> None:
        self.environment, self.num_envs = environment, num_envs
        self.steps = 0
        self._env = make_vector(environment, num_envs, training=True)
        self._finished: list[FinishedGame] = []
        self._numbers = [0] * num_envs
        self._actions: list[list[int]] = [[] for _ in range(num_envs)]
        # ale-py resets single games only once all were reset.
        self.frames, _ = self._env.reset(seed=0)
        self.restart(seed)

    def restart(self, seed: int | None = None) -> None:
        """Leaves the games that are played, and begins the next in their places.

        Args:
            seed: Of all games from now on, which begin with the first; None goes on with those
                that there are.
        """
        if seed is not None:
            self._seed, self._next_number = seed, 0
        for slot in range(self.num_envs):
            self._begin_next(slot)

    def step(self, actions: npt.NDArray[np.int64]) -> GamesStep:
        """Takes a step in every game.

        Args:
            actions: int64 [N].

        Raises:
            InputError: They are no actions of the environment.
        """
        step, info = self._advance(actions)
        self.steps += self.num_envs
        for played, action in zip(self._actions, actions.tolist(), strict=True):
            played.append(action)
        for slot in np.flatnonzero(info["game_over"]).tolist():
            score, length = float(info["score"][slot]), len(self._actions[slot])
            self._finished.append(FinishedGame(score, length))
            self._begin_next(slot)
        return step

    def take_finished(self) -> tuple[FinishedGame, ...]:
        """Hands over the games that were finished since the last time."""
        finished, self._finished = tuple(self._finished), []
        return finished

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for the finished games."""
        return {
            "seed": self._seed,
            "next_number": self._next_number,
            "steps": self.steps,
            "numbers": list(self._numbers),
            "actions": [torch.tensor(played, dtype=torch.int32) for played in self._actions],
            "frames": torch.tensor(self.frames),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken. The games are played again from their seeds.

        Raises:
            GameError: Played again, a game takes another course.
        """
        self._seed, self._next_number = state["seed"], state["next_number"]
        self.steps, self._numbers = state["steps"], list(state["numbers"])
        self._actions = [played.tolist() for played in state["actions"]]
        self._finished = []
        self._play_again()
        if not np.array_equal(self.frames, state["frames"].cpu().numpy()):
            raise GameError(
                f"{self.environment.id}: played again from their seeds, the games in progress are "
                f"not those that were kept; go on with the version of the environment that they "
                f"were begun with, or start over"
            )

    def _begin_next(self, slot: int) -> None:
        self._numbers[slot], self._actions[slot] = self._next_number, []
        self._next_number += 1
        self._begin(slot)

    def _begin(self, slot: int) -> None:
        """Begins the game of the slot's number."""
        only_this = np.arange(self.num_envs) == slot
        # Slot i is seeded with seed + i: what is taken off here makes the slot not matter.
        seed = Game.seeded(self._seed, self._numbers[slot]).seed - slot
        frames, _ = self._env.reset(seed=seed, options={"reset_mask": only_this})
        self.frames = np.where(only_this[:, None, None, None], frames, self.frames)

    def _advance(self, actions: npt.NDArray[np.int64]) -> tuple[GamesStep, dict[str, Any]]:
        frames, rewards, terminated, truncated, info = self._env.step(actions)
        self.frames = frames
        signs = np.sign(rewards).astype(np.float32)
        return GamesStep(signs, terminated, truncated, info.get("final_obs", frames)), info

    def _play_again(self) -> None:
        """Plays the actions of all games from their seeds, so that they come to their ends at once.

        Until a game begins, whatever is in its slot is played on.
        """
        longest = max(len(played) for played in self._actions)
        for left in range(longest, -1, -1):
            for slot, played in enumerate(self._actions):
                if len(played) == left:
                    self._begin(slot)
            if left > 0:
                due = [played[-left] if len(played) >= left else 0 for played in self._actions]
                self._advance(np.array(due))
