"""One real game being played: its seeds, its chance, and the episodes that it has come to."""

from dataclasses import dataclass, field

import numpy as np

from dreamenv.data import Episode
from dreamenv.real.policy import Frames


@dataclass
class Game:
    """A game being played: its finished episodes, and the one that goes on.

    Attributes:
        number: Its place in the order of the games.
        seed: What its environment is to be reset with.
        random: Its own chance, so that its course does not depend on other games.
        frames: uint8 [C, H, W] each, of the episode that goes on.
        actions: Of the episode that goes on.
        rewards: Of the episode that goes on.
        episodes: Those that are finished.
        steps: Taken in all its episodes.
    """

    number: int
    seed: int
    random: np.random.Generator
    frames: list[Frames] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    steps: int = 0

    @classmethod
    def seeded(cls, seed: int, number: int) -> "Game":
        """Returns the game of that number, still without a frame.

        Its `seed` is from 2**29 to 2**31 - 2**29: whatever number of environments is taken off or
        added, it stays within what `RealVectorEnv.reset` takes.

        Args:
            seed: Of all games.
            number: Of this game.
        """
        seeds = np.random.SeedSequence((seed, number))
        env_seed = int(seeds.generate_state(1)[0] >> 2) + 2**29
        return cls(number, env_seed, np.random.default_rng(seeds))

    @property
    def starts_episode(self) -> bool:
        """Whether no step was taken yet in the episode that goes on."""
        return not self.actions

    def choose(self, chosen: int | None, epsilon: float, num_actions: int) -> int:
        """Puts a random action in the place of one with probability ε.

        Each step takes as much chance, whatever comes of it.

        Args:
            chosen: The action; None always gives a random one.
            epsilon: ε.
            num_actions: How many actions there are.
        """
        at_random = self.random.random() < epsilon
        random_action = int(self.random.integers(num_actions))
        return random_action if chosen is None or at_random else chosen

    def add(self, action: int, reward: float, frame: Frames) -> None:
        """Takes a step to a frame, uint8 [C, H, W]."""
        self.actions.append(action)
        self.rewards.append(reward)
        self.frames.append(frame)
        self.steps += 1

    def end_episode(self, *, terminated: bool, truncated: bool, next_frame: Frames) -> None:
        """Finishes the episode that goes on, and begins the next with its first frame."""
        if self.actions:
            self.episodes.append(self._episode(terminated=terminated, truncated=truncated))
        self.frames, self.actions, self.rewards = [next_frame], [], []

    def take_episodes(self) -> list[Episode]:
        """Hands over the finished episodes, and the one that goes on if it has steps, as it is."""
        finished, self.episodes = self.episodes, []
        if self.starts_episode:
            return finished
        return [*finished, self._episode(terminated=False, truncated=False)]

    def _episode(self, *, terminated: bool, truncated: bool) -> Episode:
        return Episode(
            obs=np.stack(self.frames),
            actions=np.array(self.actions, np.int64),
            rewards=np.array(self.rewards, np.float32),
            terminated=terminated,
            truncated=truncated,
        )
