"""Playing a real game a little at a time, while what was played is learned from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreamenv.data import Episode, Replay
from dreamenv.errors import ConfigError, FormatError, GameError, InputError
from dreamenv.real import make_vector
from dreamenv.real.policy import Policy, to_channels_first
from dreamenv.training.game import Game

_AT_ONCE = 1_000  # steps of finished games that are written together: of Atari 12 MB of frames


@dataclass(frozen=True)
class FinishedGame:
    """What a whole game came to, over all its lives.

    Attributes:
        score: The sum of its raw rewards.
        length: The number of its steps.
    """

    score: float
    length: int


class Experience:
    """Games of a replay's environment, one after the other, that go on from call to call.

    One is played at a time, as published: only the last episode of a replay can grow.

    Every step is in the replay when `collect` returns: the episode in progress is its last, and
    grows with the next call. The loss of a life ends an episode, as in training everywhere. What
    the replay has already stays and is not gone on with.

    Games are seeded one by one, as by `collect` of `dreamenv.training.collect`: one that plays at
    random in one environment with the same seed leaves the same episodes.

    Args:
        replay: Where the episodes go. Nobody else may add to it.
        seed: Of the games and of the random actions.

    Raises:
        ConfigError: `seed` is negative.
        GameError: The environment cannot be made.
    """

    def __init__(self, replay: Replay, *, seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed is {seed}; it must be at least 0")
        self._replay = replay
        self._env = make_vector(replay.environment, 1, training=True)
        self._seed = seed
        self._steps = 0
        self._number = 0
        self._game: Game | None = None
        self._first_episode = replay.next_number
        self._grows = False
        self._unrecorded = 0
        self._waiting: list[Episode] = []

    @property
    def steps(self) -> int:
        """The number of steps that were collected, over all calls."""
        return self._steps

    def collect(
        self,
        policy: Policy,
        steps: int,
        *,
        epsilon: float = 0.0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[FinishedGame, ...]:
        """Plays on, and leaves all that was played in the replay.

        Args:
            policy: Who plays. It may play with chance of its own, if its state is kept beside that
                of the experience.
            steps: How many more steps to play.
            epsilon: The probability of a random action instead; with 1 all are random.
            should_stop: Asked before every step whether to stop before the end.

        Returns:
            The games that were finished in these steps.

        Raises:
            InputError: `steps` is negative, or the policy plays an action that is none.
            ConfigError: `epsilon` is no probability.
            DreamenvError: The disk is full. Go on from a state in a new object.
        """
        if steps < 0:
            raise InputError(f"steps is {steps}; it must be at least 0")
        if not 0 <= epsilon <= 1:
            raise ConfigError(f"epsilon is {epsilon}; it must be in [0, 1]")
        finished = []
        for _ in range(steps):
            if should_stop():
                break
            try:
                game = self._step(policy, epsilon)
            except InputError:
                self._record()  # a state that is taken now is to have the games before
                raise
            if game is not None:
                finished.append(game)
        self._record()
        return tuple(finished)

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly, but for policy and episodes."""
        return {
            "seed": self._seed,
            "steps": self._steps,
            "game": self._number,
            "first_episode": self._first_episode,
            "next_number": self._replay.next_number,
            "episodes": self._replay.num_episodes,
            "replay_steps": self._replay.num_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, whatever was added to the replay since.

        The replay is cut back to what it had then. The game in progress is played again from its
        seed with the actions that were recorded.

        Raises:
            FormatError: The replay lacks episodes that it had then.
            GameError: Played again, the game takes another course.
        """
        _check_has_episodes(self._replay, state)
        self._replay.truncate(state["replay_steps"])
        self._seed, self._steps, self._number = state["seed"], state["steps"], state["game"]
        self._first_episode = state["first_episode"]
        self._game, self._grows, self._unrecorded, self._waiting = None, False, 0, []
        numbers = [info.number for info in self._replay.infos]
        recorded = [self._replay.load(n) for n in numbers if n >= self._first_episode]
        if recorded:
            self._play_again(recorded)

    def _step(self, policy: Policy, epsilon: float) -> FinishedGame | None:
        """Plays one step, and returns the game if it ended there."""
        if self._game is None:
            self._game = self._start_game()
        game = self._game
        chosen = policy.act(game.frames[-1][None], np.array([game.starts_episode]))
        num_actions = self._env.environment.num_actions
        score = self._advance(game, game.choose(int(chosen[0]), epsilon, num_actions))
        self._unrecorded += 1
        if score is None:
            return None
        self._take_episodes()
        self._game = None
        self._number += 1
        self._first_episode = self._replay.next_number + len(self._waiting)
        if self._unrecorded >= _AT_ONCE:
            self._record()
        return FinishedGame(score, game.steps)

    def _start_game(self) -> Game:
        game = Game.seeded(self._seed, self._number)
        frames, _ = self._env.reset(seed=game.seed)
        game.frames = [to_channels_first(frames)[0]]
        return game

    def _advance(self, game: Game, action: int) -> float | None:
        """Takes a step in the game, and returns its score if that ended it."""
        obs, rewards, terminated, truncated, info = self._env.step(np.array([action]))
        next_frame = to_channels_first(obs)[0]
        ended = bool(terminated[0] or truncated[0])
        frame = to_channels_first(info["final_obs"])[0] if ended else next_frame
        game.add(action, float(rewards[0]), frame)
        if ended:
            game.end_episode(
                terminated=bool(terminated[0]), truncated=bool(truncated[0]), next_frame=next_frame
            )
        return float(info["score"][0]) if info["game_over"][0] else None

    def _take_episodes(self) -> None:
        """Takes from the game in progress what was played since the last time."""
        if self._game is None:
            return
        episodes = self._game.take_episodes()
        if self._grows and episodes:
            self._replay.grow_last(episodes.pop(0))
        self._waiting += episodes
        self._grows = not self._game.starts_episode

    def _record(self) -> None:
        """Hands the replay what was played since the last time."""
        if self._unrecorded == 0:
            return
        self._take_episodes()
        self._replay.extend(self._waiting)
        self._steps += self._unrecorded
        self._unrecorded, self._waiting = 0, []

    def _play_again(self, recorded: list[Episode]) -> None:
        """Brings the game in progress to where its recorded episodes end."""
        game = self._start_game()
        for action in np.concatenate([episode.actions for episode in recorded]):
            # Its chance goes on as if the action had been chosen.
            game.choose(None, 1.0, self._env.environment.num_actions)
            self._advance(game, int(action))
        grows = not game.starts_episode
        if not _are_same(game.take_episodes(), recorded):
            raise GameError(
                f"{self._env.environment.id}: played again from its seed, the game in progress is "
                f"not the one recorded in {self._replay.folder}; go on with the version of the "
                f"environment that it was begun with, or start over in another folder"
            )
        self._game, self._grows = game, grows


def _check_has_episodes(replay: Replay, state: dict[str, Any]) -> None:
    """Refuses a replay of which episodes before the state were lost: others would be cut."""
    kept = [info.length for info in replay.infos if info.number < state["next_number"]]
    surplus = sum(kept) - state["replay_steps"]
    if len(kept) == state["episodes"] and 0 <= surplus < max(kept[-1:], default=1):
        return
    reason = replay.damaged[0] if replay.damaged else f"it has {sum(kept)} steps of them"
    raise FormatError(
        f"{replay.folder}: not the {state['episodes']} episodes, {state['replay_steps']} steps, "
        f"that were collected ({reason}); restore them from a copy, or start over in another folder"
    )


def _are_same(some: list[Episode], others: list[Episode]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(one.obs, other.obs)
        and np.array_equal(one.actions, other.actions)
        and np.array_equal(one.rewards, other.rewards)
        and (one.terminated, one.truncated) == (other.terminated, other.truncated)
        for one, other in zip(some, others, strict=True)
    )
