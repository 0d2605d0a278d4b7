import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dreamenv.data import Replay
from dreamenv.data.index import ReplayIndex
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, GameError, InputError
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.real import describe
from dreamenv.real.policy import Actions, Flags, Frames
from dreamenv.training import experience as experience_file
from dreamenv.training.actor_critic_policy import ActorCriticPolicy
from dreamenv.training.collect import CollectConfig, collect
from dreamenv.training.experience import Experience, FinishedGame

from .conftest import SIDE, Catch
from .levels import ACTOR_CRITIC

NewReplay = Callable[..., Replay]
AssertSameReplays = Callable[[Replay, Replay], None]

SEED = 5


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it, and nothing is written after it."""


def by_the_frame(obs: Frames) -> Actions:
    """Chooses the sum of a frame's bytes, modulo 3."""
    actions: Actions = obs.reshape(len(obs), -1).sum(axis=1, dtype=np.int64) % 3
    return actions


class ByTheFrame:
    """Plays what the frame alone says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.obs: list[Frames] = []
        self.starts: list[bool] = []

    def act(self, obs: Frames, starts: Flags) -> Actions:
        self.obs.append(obs[0].copy())
        self.starts.append(bool(starts[0]))
        return by_the_frame(obs)


class OutOfRange:
    def act(self, obs: Frames, starts: Flags) -> Actions:  # noqa: ARG002
        return np.full(len(obs), 3)


def drawing_policy(environment: EnvironmentSpec, seed: int = 0) -> ActorCriticPolicy:
    """Draws its actions, by all that it saw in the episode."""
    torch.manual_seed(0)
    network = ActorCritic(ACTOR_CRITIC, environment.obs_shape, environment.num_actions)
    torch.nn.init.normal_(network.policy.weight)
    with torch.no_grad():
        network.lstm.weight_hh.mul_(5)
    return ActorCriticPolicy(network, seed=seed)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    written = io.BytesIO()
    torch.save(state, written)
    written.seek(0)
    loaded: dict[str, Any] = torch.load(written, weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def breakout() -> EnvironmentSpec:
    return describe("ALE/Breakout-v5", 16)


@pytest.fixture(scope="module")
def pong() -> EnvironmentSpec:
    return describe("ALE/Pong-v5", 16)


@pytest.fixture
def environments(
    catch: EnvironmentSpec, breakout: EnvironmentSpec, pong: EnvironmentSpec
) -> dict[str, EnvironmentSpec]:
    return {"catch": catch, "breakout": breakout, "pong": pong}


every_game = pytest.mark.parametrize("game", ["catch", "breakout", "pong"])


# What is collected.


@every_game
@pytest.mark.parametrize("at_a_time", [13, 50])
def test_however_often_it_goes_on_the_episodes_are_those_of_one_collection(
    new_replay: NewReplay,
    assert_same_replays: AssertSameReplays,
    environments: dict[str, EnvironmentSpec],
    game: str,
    at_a_time: int,
) -> None:
    whole, replay = (new_replay(name, environments[game]) for name in ("whole", "growing"))
    collect(whole, CollectConfig(steps=180, num_envs=1, seed=SEED))
    experience = Experience(replay, seed=SEED)
    tensors = replay.tensors("cpu")
    for first in range(0, 180, at_a_time):
        experience.collect(ByTheFrame(), min(at_a_time, 180 - first), epsilon=1)
        assert replay.num_steps == experience.steps == min(first + at_a_time, 180)
    assert_same_replays(whole, replay)
    assert_same_replays(whole, Replay.open(replay.folder))
    assert torch.equal(tensors.rows.frames, whole.tensors("cpu").rows.frames)
    assert torch.equal(tensors.rows.is_step, whole.tensors("cpu").rows.is_step)


@pytest.mark.parametrize(("at_once", "times"), [(1_000, 1), (25, 3)])
def test_games_are_written_together_as_far_as_memory_allows(
    new_replay: NewReplay, monkeypatch: pytest.MonkeyPatch, at_once: int, times: int
) -> None:
    steps: list[int] = []
    write = ReplayIndex.write

    def counting(self: ReplayIndex, path: Path) -> None:
        steps.append(sum(info.length for info in self.episodes))
        write(self, path)

    replay = new_replay("replay")
    experience = Experience(replay, seed=SEED)
    monkeypatch.setattr(experience_file, "_AT_ONCE", at_once)
    monkeypatch.setattr(ReplayIndex, "write", counting)
    experience.collect(ByTheFrame(), 80, epsilon=1)
    assert len(replay.infos) > 5
    assert len(steps) == times
    assert steps[-1] == 80


def test_the_policy_is_shown_each_frame_it_acts_on_and_where_episodes_start(
    new_replay: NewReplay, breakout: EnvironmentSpec
) -> None:
    replay, policy = new_replay("replay", breakout), ByTheFrame()
    experience = Experience(replay, seed=SEED)
    for _ in range(20):
        experience.collect(policy, 15, epsilon=0.9)
    episodes = list(replay.episodes())
    assert len(episodes) > 5
    np.testing.assert_array_equal(policy.obs, np.concatenate([e.obs[:-1] for e in episodes]))
    assert policy.starts == [step == 0 for e in episodes for step in range(len(e))]


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_random_actions_are_as_many_as_asked(new_replay: NewReplay, epsilon: float) -> None:
    replay = new_replay()
    Experience(replay, seed=SEED).collect(ByTheFrame(), 1500, epsilon=epsilon)
    others = sum(
        np.count_nonzero(episode.actions != by_the_frame(episode.obs[:-1]))
        for episode in replay.episodes()
    )
    # One of three random actions is the one it would have played. 0.04 is four deviations.
    assert others / 1500 == pytest.approx(epsilon * 2 / 3, abs=0.04 if epsilon else 0)


def test_the_games_that_finished_are_told_over_all_their_lives(
    new_replay: NewReplay, breakout: EnvironmentSpec
) -> None:
    replay = new_replay("replay", breakout)
    experience = Experience(replay, seed=SEED)
    games: list[FinishedGame] = []
    while len(games) < 2:
        games += experience.collect(ByTheFrame(), 90, epsilon=1)
    lives = [replay.infos[first : first + 5] for first in (0, 5)]
    assert games[:2] == [
        FinishedGame(sum(life.total_reward for life in five), sum(life.length for life in five))
        for five in lives
    ]
    assert sum(game.score for game in games) > 0


def test_asked_to_stop_it_leaves_what_it_played_and_goes_on_from_there(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays
) -> None:
    whole, replay = new_replay("whole"), new_replay("stopped")
    Experience(whole, seed=SEED).collect(ByTheFrame(), 55, epsilon=0.5)
    experience = Experience(replay, seed=SEED)
    for steps in range(11):
        asked = iter([False] * steps)
        experience.collect(ByTheFrame(), 99, epsilon=0.5, should_stop=partial(next, asked, True))
        assert replay.num_steps == experience.steps == sum(range(steps + 1))
    assert_same_replays(whole, replay)


# Going on after an interruption.


@every_game
@pytest.mark.parametrize("taken_at", [0, 113])
def test_from_a_state_it_goes_on_as_if_it_had_not_been_interrupted(
    new_replay: NewReplay,
    assert_same_replays: AssertSameReplays,
    environments: dict[str, EnvironmentSpec],
    game: str,
    taken_at: int,
) -> None:
    environment = environments[game]
    whole = new_replay("whole", environment)
    policy = drawing_policy(environment)
    games = Experience(whole, seed=SEED).collect(policy, 160, epsilon=0.1)

    policy = drawing_policy(environment)
    interrupted = Experience(new_replay("replay", environment), seed=SEED)
    games_before = interrupted.collect(policy, taken_at, epsilon=0.1)
    state = through_a_file({"game": interrupted.state_dict(), "policy": policy.state_dict()})
    interrupted.collect(policy, 43, epsilon=0.1)

    replay, policy = new_replay("replay", environment), drawing_policy(environment, seed=9)
    experience = Experience(replay, seed=SEED)
    tensors = replay.tensors("cpu")
    policy.load_state_dict(state["policy"])
    experience.load_state_dict(state["game"])
    assert replay.num_steps == experience.steps == taken_at
    games_after = experience.collect(policy, 160 - taken_at, epsilon=0.1)
    assert games_before + games_after == games
    assert_same_replays(whole, replay)
    assert_same_replays(whole, Replay.open(replay.folder))
    assert torch.equal(tensors.rows.frames, whole.tensors("cpu").rows.frames)


def test_a_state_may_be_taken_at_any_step_and_loaded_by_whoever_has_played(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, breakout: EnvironmentSpec
) -> None:
    whole, replay = new_replay("whole", breakout), new_replay("replay", breakout)
    Experience(whole, seed=SEED).collect(ByTheFrame(), 260, epsilon=0.9)
    # At the beginning, where a life was lost, and where the game was over; and a step later.
    starts = np.cumsum((0, *whole.lengths[:5]))[[0, 2, 5]].tolist()
    points = [start + offset for start in starts for offset in (0, 1)]
    assert points[-1] < 260
    experience = Experience(replay, seed=SEED)
    states = {}
    for point in points:
        experience.collect(ByTheFrame(), point - experience.steps, epsilon=0.9)
        states[point] = experience.state_dict()
    for point in reversed(points):
        experience.load_state_dict(states[point])
        experience.collect(ByTheFrame(), points[-1] - point, epsilon=0.9)
    experience.collect(ByTheFrame(), 260 - points[-1], epsilon=0.9)
    assert_same_replays(whole, replay)


@pytest.mark.parametrize("writes", range(0, 24, 3))
def test_killed_between_any_two_writes_it_goes_on_from_its_last_state(
    new_replay: NewReplay,
    assert_same_replays: AssertSameReplays,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    Experience(new_replay("whole"), seed=SEED).collect(ByTheFrame(), 90, epsilon=0.5)
    experience = Experience(new_replay("killed"), seed=SEED)
    state = experience.state_dict()
    countdown = iter(range(writes))

    def until_killed(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            if next(countdown, None) is None:
                raise Killed
            return change(*args)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(ReplayIndex, "write", until_killed(ReplayIndex.write))
        patch.setattr(Path, "replace", until_killed(Path.replace))
        with suppress(Killed):
            for _ in range(9):
                experience.collect(ByTheFrame(), 10, epsilon=0.5)
                state = experience.state_dict()
    assert state["steps"] < 90
    killed = new_replay("killed")
    assert killed.damaged == ()
    experience = Experience(killed, seed=SEED)
    experience.load_state_dict(state)
    experience.collect(ByTheFrame(), 90 - state["steps"], epsilon=0.5)
    assert_same_replays(new_replay("whole"), killed)


class Fickle(Catch):
    """Begins one column further each time, whatever its seed."""

    begun = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed, options=options)
        self.begun += 1
        self._row, self._column = 0, self.begun % SIDE
        return self._frame(), {}


def test_a_game_that_takes_another_course_when_played_again_is_named(
    new_replay: NewReplay,
) -> None:
    gymnasium.register("Test/Fickle-v0", Fickle)
    try:
        replay = new_replay("replay", describe("Test/Fickle-v0", SIDE))
        experience = Experience(replay)
        experience.collect(ByTheFrame(), 5)
        with pytest.raises(GameError, match=r"^Test/Fickle-v0: played again .*replay") as error:
            experience.load_state_dict(experience.state_dict())
    finally:
        del gymnasium.registry["Test/Fickle-v0"]
    assert "\n" not in str(error.value)
    assert replay.num_steps == 5


@pytest.mark.parametrize("lost", ["an episode", "the last steps", "everything"])
def test_a_replay_that_lost_what_the_state_was_made_with_is_named_and_left_alone(
    new_replay: NewReplay, lost: str
) -> None:
    experience = Experience(new_replay(), seed=SEED)
    experience.collect(ByTheFrame(), 50, epsilon=1)
    state = experience.state_dict()
    experience.collect(ByTheFrame(), 50, epsilon=1)
    if lost == "an episode":
        (new_replay().folder / "episodes" / "000001.npz").unlink()
    else:
        new_replay().truncate(49 if lost == "the last steps" else 0)
    replay = new_replay()
    before = replay.infos
    with pytest.raises(FormatError, match=r"replay: not the \d+ episodes, 50 steps") as error:
        Experience(replay, seed=SEED).load_state_dict(state)
    assert "\n" not in str(error.value)
    assert ("000001.npz: missing" in str(error.value)) == (lost == "an episode")
    assert new_replay().infos == before


def test_what_the_replay_had_already_stays(new_replay: NewReplay) -> None:
    replay = new_replay()
    collect(replay, CollectConfig(steps=25, num_envs=1))
    before = replay.infos
    experience = Experience(replay, seed=SEED)
    for _ in range(3):
        experience.collect(ByTheFrame(), 4)
        state = experience.state_dict()
    experience.collect(ByTheFrame(), 4)
    experience.load_state_dict(state)
    assert replay.infos[: len(before)] == before
    assert experience.steps == 12
    assert replay.num_steps == 37


def test_another_seed_plays_other_games(new_replay: NewReplay) -> None:
    replays = [new_replay(name) for name in ("one", "other")]
    for seed, replay in enumerate(replays):
        Experience(replay, seed=seed).collect(ByTheFrame(), 60, epsilon=0.5)
    assert replays[0].infos != replays[1].infos


# Bad input.


def test_a_negative_seed_is_refused(new_replay: NewReplay) -> None:
    with pytest.raises(ConfigError, match=r"^seed is -1; it must be"):
        Experience(new_replay(), seed=-1)


@pytest.mark.parametrize(
    ("steps", "epsilon", "message"),
    [
        (-1, 0.0, "steps is -1"),
        (5, -0.1, "epsilon is -0.1"),
        (5, float("nan"), "epsilon is nan"),
    ],
)
def test_what_cannot_be_collected_is_refused(
    new_replay: NewReplay, steps: int, epsilon: float, message: str
) -> None:
    with pytest.raises(DreamenvError, match=f"^{message}; it must be"):
        Experience(new_replay()).collect(ByTheFrame(), steps, epsilon=epsilon)


def test_an_action_that_is_not_the_games_is_refused_and_no_step_is_lost(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays
) -> None:
    experience = Experience(new_replay(), seed=SEED)
    experience.collect(ByTheFrame(), 13)
    with pytest.raises(InputError, match="must be from 0 to 2"):
        experience.collect(OutOfRange(), 5)
    experience.collect(ByTheFrame(), 7)
    Experience(new_replay("whole"), seed=SEED).collect(ByTheFrame(), 20)
    assert_same_replays(new_replay("whole"), new_replay())


def test_a_state_after_a_refused_action_has_the_games_before_it(new_replay: NewReplay) -> None:
    class WrongAtLast(ByTheFrame):
        """Plays an action that is none when it has been asked forty times."""

        def act(self, obs: Frames, starts: Flags) -> Actions:
            return super().act(obs, starts) + 3 * (len(self.obs) > 40)

    experience = Experience(new_replay(), seed=SEED)
    with pytest.raises(InputError, match="must be from 0 to 2"):
        experience.collect(WrongAtLast(), 60)
    state = experience.state_dict()
    assert state["steps"] == state["replay_steps"] == 40
    assert state["game"] > 0
