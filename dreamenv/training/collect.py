"""Collecting episodes of a real environment, so that an interruption changes nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dreamenv.config import Config
from dreamenv.data import Episode, Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.data.replay import first_steps
from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import atomic_file
from dreamenv.real import RealVectorEnv, make_vector
from dreamenv.real.policy import Actions, Policy, as_actions, to_channels_first
from dreamenv.training.game import Game
from dreamenv.training.policies import RANDOM, load_policy

COLLECTIONS_FILE = "collections.json"


@dataclass(frozen=True)
class CollectConfig(Config):
    """What to collect.

    Attributes:
        steps: How many steps in all.
        policy: Who plays: `random`, the .zip of a saved agent, or module:function.
        epsilon: Probability of a random action instead.
        num_envs: How many games are played at once.
        seed: Of the games and of the random actions.
    """

    steps: int = 10_000
    policy: str = RANDOM
    epsilon: float = 0.0
    num_envs: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.num_envs < 1:
            raise ConfigError(
                f"steps is {self.steps} and num_envs {self.num_envs}; both must be at least 1"
            )
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"epsilon is {self.epsilon}; it must be in [0, 1]")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")


@dataclass(frozen=True)
class Collection(Config):
    """How far a collection has come: what its whole games amount to.

    Attributes:
        config: What is collected.
        first_game: The number of its first game; games are counted through a replay's collections.
        first_episode: The number in the replay of its first episode.
        games: Games that are wholly in the replay.
        episodes: Their episodes.
        steps: Their steps.
    """

    config: CollectConfig
    first_game: int = 0
    first_episode: int = 0
    games: int = 0
    episodes: int = 0
    steps: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all steps were collected."""
        return self.steps >= self.config.steps


@dataclass(frozen=True)
class Collections(Config):
    """What was collected into a replay, oldest first."""

    collections: tuple[Collection, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Collections":
        """Reads the record in a replay's folder; an empty one where there is none.

        Raises:
            FormatError: The record is damaged.
        """
        path = folder / COLLECTIONS_FILE
        if not path.exists():
            return cls()
        try:
            data = json.loads(path.read_text())
        except ValueError as error:
            raise FormatError(f"{path} is not JSON ({error}); delete it") from None
        return cls.from_dict(data, str(path))

    def write(self, folder: Path) -> None:
        """Writes the record into a replay's folder, whole or not at all."""
        with naming_disk_errors(folder), atomic_file(folder / COLLECTIONS_FILE) as beside:
            beside.write_text(json.dumps(self.to_dict()) + "\n")

    def has_complete(self, config: CollectConfig) -> bool:
        """Whether all that `config` asks for was collected, be it before other collections."""
        return any(each.config == config and each.is_complete for each in self.collections)

    def begin(self, config: CollectConfig, next_episode: int) -> "Collections":
        """Returns the record with a collection of `config` at its end, begun or to go on with."""
        last = self.collections[-1] if self.collections else None
        if last is not None and last.config == config:
            return self
        # A kill may have left half of the game after the last whole one: that number is not reused.
        first_game = 0 if last is None else last.first_game + last.games + 1
        begun = Collection(config, first_game=first_game, first_episode=next_episode)
        return Collections((*self.collections, begun))

    def with_last(self, last: Collection) -> "Collections":
        """Returns the record with its last collection replaced."""
        return Collections((*self.collections[:-1], last))


def collect(
    replay: Replay,
    config: CollectConfig,
    *,
    on_step: Callable[[int], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Collects steps into a replay, or goes on collecting them where it was stopped.

    Each game is played from a seed of its own and appended in the order of the games, so that a
    collection that was killed and gone on with leaves the same episodes as one that was not. At
    most the games that were being played are played again.

    Args:
        replay: Where the episodes go; its environment is played, lives ending episodes.
        config: What to collect. Where the last collection was the same, it is gone on with, and
            nothing is done if it was complete.
        on_step: Called at every step with the number of steps played that will be kept.
        should_stop: Asked at every step whether to stop before the end.

    Returns:
        Whether all steps were collected.

    Raises:
        GameError: The environment cannot be made.
        InputError: The policy cannot play it.
        DreamenvError: The disk is full; what was collected is kept.
    """
    record = Collections.read(replay.folder).begin(config, replay.next_number)
    if record.collections[-1].is_complete:
        return True
    policy = load_policy(config.policy, replay.environment)
    # Before the first episode, so that a kill never leaves one that is of no collection.
    record.write(replay.folder)
    env = make_vector(replay.environment, config.num_envs, training=True)
    try:
        collector = _Collector(env, policy, replay, record)
        while not collector.progress.is_complete:
            if should_stop():
                return False
            collector.step()
            on_step(collector.steps_sure)
    finally:
        env.close()
    return True


def steps_collected(replay: Replay, config: CollectConfig) -> int:
    """Returns how many steps of a collection are there to go on from; 0 where it is a new one."""
    return Collections.read(replay.folder).begin(config, replay.next_number).collections[-1].steps


class _Collector:
    """Plays games side by side and hands them to the replay in the order of their numbers."""

    def __init__(
        self, env: RealVectorEnv, policy: Policy | None, replay: Replay, record: Collections
    ) -> None:
        self._env = env
        self._policy = policy
        self._replay = replay
        self._record = record
        progress = record.collections[-1]
        self._config = progress.config
        # Episodes of a game that a kill left half in the replay. Played again, they are the same.
        self._already_there = replay.next_number - progress.first_episode - progress.episodes
        self._next_game = progress.first_game + progress.games
        self._finished: dict[int, Game] = {}
        self._obs = to_channels_first(env.reset(seed=0)[0])
        self._games: list[Game | None] = [self._start_game(slot) for slot in range(env.num_envs)]

    @property
    def progress(self) -> Collection:
        return self._record.collections[-1]

    @property
    def steps_sure(self) -> int:
        """How many of the steps played are, or will be, in the replay."""
        played = self.progress.steps + sum(game.steps for game in self._pending())
        return min(played, self._config.steps)

    def step(self) -> None:
        """Plays one step of every game, and hands over those that are finished."""
        actions = self._choose()
        obs, rewards, terminated, truncated, info = self._env.step(actions)
        self._obs = to_channels_first(obs)
        final_obs = to_channels_first(info["final_obs"]) if "final_obs" in info else self._obs
        ended = terminated | truncated
        for slot, game in enumerate(self._games):
            if game is None:
                continue
            game.add(int(actions[slot]), float(rewards[slot]), final_obs[slot].copy())
            if ended[slot]:
                game.end_episode(
                    terminated=bool(terminated[slot]),
                    truncated=bool(truncated[slot]),
                    next_frame=self._obs[slot].copy(),
                )
            if info["game_over"][slot]:
                self._finish(slot, game)
        self._finish_unneeded()
        self._flush()

    def _choose(self) -> Actions:
        """Asks the policy, and puts random actions in its place with probability ε.

        A game's random numbers are its own, so its course does not depend on its neighbours.
        """
        chosen: Actions | None = None
        if self._policy is not None:
            starts = np.array([game is None or game.starts_episode for game in self._games])
            chosen = as_actions(self._policy.act(self._obs, starts), len(self._games))
        actions = np.zeros(len(self._games), np.int64)
        for slot, game in enumerate(self._games):
            if game is None:
                continue
            wanted = None if chosen is None else int(chosen[slot])
            actions[slot] = game.choose(
                wanted, self._config.epsilon, self._env.environment.num_actions
            )
        return actions

    def _finish(self, slot: int, game: Game) -> None:
        """Takes a game's episodes, and starts the next where more steps are wanted."""
        self._finished[game.number] = game
        self._games[slot] = None
        if self.steps_sure < self._config.steps:
            self._games[slot] = self._start_game(slot)

    def _finish_unneeded(self) -> None:
        """Ends games that, with those before them, have all the steps that are wanted."""
        if self.steps_sure < self._config.steps:
            return
        for slot, game in enumerate(self._games):
            if game is None:
                continue
            so_far = sum(other.steps for other in self._pending() if other.number <= game.number)
            if self.progress.steps + so_far >= self._config.steps:
                game.end_episode(terminated=False, truncated=False, next_frame=game.frames[-1])
                self._finish(slot, game)

    def _pending(self) -> list[Game]:
        """Returns the games that are not in the replay yet, finished ones and others."""
        return [*self._finished.values(), *(game for game in self._games if game is not None)]

    def _start_game(self, slot: int) -> Game:
        number = self._next_game
        self._next_game += 1
        game = Game.seeded(self._config.seed, number)
        only_this = np.arange(self._env.num_envs) == slot
        # Slot i is seeded with seed + i: what is taken off here makes the slot not matter.
        frames, _ = self._env.reset(seed=game.seed - slot, options={"reset_mask": only_this})
        obs = to_channels_first(frames)
        self._obs = np.where(only_this[:, None, None, None], obs, self._obs)
        game.frames = [obs[slot].copy()]
        return game

    def _flush(self) -> None:
        """Hands finished games to the replay, as far as all before them are finished."""
        while not self.progress.is_complete:
            progress = self.progress
            game = self._finished.pop(progress.first_game + progress.games, None)
            if game is None:
                return
            kept = _first_steps(game.episodes, progress.config.steps - progress.steps)
            self._replay.extend(kept[self._already_there :])
            self._already_there = 0
            progress = replace(
                progress,
                games=progress.games + 1,
                episodes=progress.episodes + len(kept),
                steps=progress.steps + sum(len(episode) for episode in kept),
            )
            self._record = self._record.with_last(progress)
            self._record.write(self._replay.folder)


def _first_steps(episodes: list[Episode], steps: int) -> list[Episode]:
    """Keeps the first steps of a game; the episode at the limit is cut, neither end being real."""
    kept = []
    for episode in episodes:
        if steps == 0:
            break
        if len(episode) > steps:
            episode = first_steps(episode, steps)
        kept.append(episode)
        steps -= len(episode)
    return kept
