import errno
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamenv.data import Episode, Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError
from dreamenv.real import describe
from dreamenv.training.collect import CollectConfig, Collections, collect, steps_collected

NewReplay = Callable[..., Replay]
AssertSameReplays = Callable[[Replay, Replay], None]

TOY = CollectConfig(steps=150, num_envs=3, seed=5)


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it, and nothing is written after it."""


def always_left(obs: Any) -> Any:
    return np.zeros(len(obs), np.int64)


def by_the_frame(obs: Any) -> Any:
    """Plays what the frame alone says, as a policy must: the sum of its bytes, modulo 3."""
    return obs.reshape(len(obs), -1).sum(axis=1, dtype=np.int64) % 3


def out_of_range(obs: Any) -> Any:
    return np.full(len(obs), 3)


class Half:
    """A player that presses a button by halves."""

    def act(self, obs: Any, starts: Any) -> Any:  # noqa: ARG002
        return np.full(len(obs), 0.5)


class ForOne:
    """A player of one game only."""

    def act(self, obs: Any, starts: Any) -> Any:  # noqa: ARG002
        return np.zeros(1, np.int64)


ALWAYS_LEFT, BY_THE_FRAME, OUT_OF_RANGE = (
    f"{__name__}:{function.__name__}" for function in (always_left, by_the_frame, out_of_range)
)


@pytest.fixture(scope="module")
def breakout() -> EnvironmentSpec:
    return describe("ALE/Breakout-v5", 16)


def collect_until_killed(replay: Replay, config: CollectConfig, episodes: int) -> None:
    """Collects until the next game is over, and is killed with `episodes` of it written."""
    extend = Replay.extend

    def extend_in_part(replay: Replay, whole: Iterable[Episode]) -> None:
        extend(replay, list(whole)[:episodes])
        raise Killed

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Replay, "extend", extend_in_part)
        with pytest.raises(Killed):
            collect(replay, config)


def stop_after(calls: int) -> Callable[[], bool]:
    countdown = iter(range(calls))
    return lambda: next(countdown, None) is None


@pytest.mark.parametrize("steps", [1, 9, 150])
@pytest.mark.parametrize("num_envs", [1, 5])
def test_exactly_the_steps_asked_for_are_collected(
    new_replay: NewReplay, steps: int, num_envs: int
) -> None:
    replay = new_replay()
    certain: list[int] = []
    config = CollectConfig(steps=steps, num_envs=num_envs)
    assert collect(replay, config, on_step=certain.append)
    assert replay.num_steps == steps
    assert certain == sorted(certain)
    assert (certain[0], certain[-1]) == (min(num_envs, steps), steps)
    assert steps_collected(replay, config) == steps


@pytest.mark.parametrize("policy", ["random", BY_THE_FRAME])
def test_a_seed_gives_one_replay_and_another_seed_another(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, policy: str
) -> None:
    config = replace(TOY, policy=policy, epsilon=0.5)
    replays = [new_replay(name) for name in ("one", "same", "other")]
    for replay, seed in zip(replays, (5, 5, 6), strict=True):
        collect(replay, replace(config, seed=seed))
    assert_same_replays(replays[0], replays[1])
    assert replays[0].infos != replays[2].infos


def test_games_differ_from_each_other(new_replay: NewReplay) -> None:
    replay = new_replay()
    collect(replay, TOY)
    courses = {episode.obs.tobytes() for episode in replay.episodes()}
    assert len(courses) == replay.num_episodes


@pytest.mark.parametrize("num_envs", [1, 2, 7])
def test_a_game_does_not_depend_on_how_many_are_played_beside_it(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, num_envs: int
) -> None:
    collect(new_replay("one"), TOY)
    collect(new_replay("other"), replace(TOY, num_envs=num_envs))
    assert_same_replays(new_replay("one"), new_replay("other"))


def test_an_atari_game_does_not_depend_on_how_many_are_played_beside_it(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, breakout: EnvironmentSpec
) -> None:
    one, other = new_replay("one", breakout), new_replay("other", breakout)
    collect(one, CollectConfig(steps=400, num_envs=1))
    collect(other, CollectConfig(steps=400, num_envs=3))
    assert_same_replays(one, other)


@pytest.mark.parametrize("policy", ["random", BY_THE_FRAME])
@pytest.mark.parametrize("calls", [0, 1, 11, 30])
def test_stopped_and_gone_on_with_it_is_as_if_it_had_not_been_stopped(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, calls: int, policy: str
) -> None:
    config = replace(TOY, policy=policy, epsilon=0.3)
    collect(new_replay("whole"), config)
    while not collect(new_replay("stopped"), config, should_stop=stop_after(calls)):
        stopped = new_replay("stopped")
        assert stopped.num_steps == steps_collected(stopped, config) < config.steps
        calls += 7
    assert_same_replays(new_replay("whole"), new_replay("stopped"))


@pytest.mark.parametrize("episodes", [0, 1])
def test_killed_before_a_game_was_recorded_it_is_as_if_it_had_not_been_killed(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays, episodes: int
) -> None:
    collect(new_replay("whole"), TOY)
    collect(new_replay("killed"), TOY, should_stop=stop_after(25))
    collect_until_killed(new_replay("killed"), TOY, episodes)
    collect(new_replay("killed"), TOY)
    assert_same_replays(new_replay("whole"), new_replay("killed"))


@pytest.mark.parametrize("episodes", [1, 4])
def test_killed_with_half_a_game_in_the_replay_it_is_as_if_it_had_not_been_killed(
    new_replay: NewReplay,
    assert_same_replays: AssertSameReplays,
    breakout: EnvironmentSpec,
    episodes: int,
) -> None:
    config = CollectConfig(steps=600, num_envs=2, seed=3)
    whole = new_replay("whole", breakout)
    collect(whole, config)
    replay = new_replay("killed", breakout)
    # Two whole games of five lives; the next is then begun again, in the other place.
    collect(replay, config, should_stop=lambda: replay.num_episodes > 0)
    assert replay.num_episodes == 10
    collect_until_killed(replay, config, episodes)
    killed = new_replay("killed", breakout)
    assert killed.num_episodes == 10 + episodes
    collect(killed, config)
    assert_same_replays(whole, killed)


def test_killed_within_the_first_game_it_is_as_if_it_had_not_been_killed(
    new_replay: NewReplay, assert_same_replays: AssertSameReplays
) -> None:
    collect(new_replay("whole"), TOY)
    collect_until_killed(new_replay("killed"), TOY, 1)
    assert new_replay("killed").num_episodes == 1
    collect(new_replay("killed"), TOY)
    assert_same_replays(new_replay("whole"), new_replay("killed"))


def test_a_complete_collection_is_not_collected_again(new_replay: NewReplay) -> None:
    collect(new_replay(), TOY)
    assert collect(new_replay(), TOY)
    assert new_replay().num_steps == TOY.steps


def test_another_collection_into_the_same_replay_plays_other_games(new_replay: NewReplay) -> None:
    replay = new_replay()
    for policy in ("random", ALWAYS_LEFT, "random"):
        collect(replay, replace(TOY, policy=policy))
    assert replay.num_steps == 3 * TOY.steps
    first_frames = {episode.obs[0].tobytes() for episode in replay.episodes()}
    # Two games may begin alike, but not one in five.
    assert len(first_frames) > 0.8 * replay.num_episodes
    assert len({episode.obs.tobytes() for episode in replay.episodes()}) > (
        0.95 * replay.num_episodes
    )


def test_another_collection_after_one_that_was_killed_plays_other_games(
    new_replay: NewReplay,
) -> None:
    collect_until_killed(new_replay(), TOY, 1)
    replay = new_replay()
    half = next(replay.episodes()).obs.tobytes()
    collect(replay, replace(TOY, steps=200))
    assert replay.num_steps == replay.lengths[0] + 200
    assert [episode.obs.tobytes() == half for episode in replay.episodes()].count(True) == 1


@pytest.mark.parametrize(("epsilon", "share"), [(0.0, 0.0), (0.4, 0.4), (1.0, 1.0)])
def test_epsilon_is_the_share_of_random_actions(
    new_replay: NewReplay, epsilon: float, share: float
) -> None:
    replay = new_replay()
    collect(replay, CollectConfig(steps=900, policy=ALWAYS_LEFT, epsilon=epsilon))
    actions = np.concatenate([episode.actions for episode in replay.episodes()])
    # A random action is one of three, of which two are not the policy's. 0.06 is 4 deviations.
    for action in (1, 2):
        assert (actions == action).mean() == pytest.approx(share / 3, abs=0.06)
    if share == 0:
        assert not actions.any()


def test_the_frames_are_those_the_actions_were_chosen_on(new_replay: NewReplay) -> None:
    replay = new_replay()
    collect(replay, replace(TOY, policy=BY_THE_FRAME))
    for episode in replay.episodes():
        np.testing.assert_array_equal(episode.actions, by_the_frame(episode.obs[:-1]))


def test_episodes_end_as_their_games_do_and_the_last_is_cut(new_replay: NewReplay) -> None:
    replay = new_replay()
    collect(replay, TOY)
    episodes = list(replay.episodes())
    for episode in episodes[:-1]:
        # The ball is the only red thing; in the last row it has landed.
        assert episode.terminated == episode.obs[-1, 0, -1].any()
        # The limit of ten steps.
        assert episode.truncated == (len(episode) == 10)
        assert episode.terminated or episode.truncated
    assert any(episode.terminated for episode in episodes)
    assert any(episode.truncated for episode in episodes)
    assert (episodes[-1].terminated, episodes[-1].truncated) == (False, False)


def test_the_last_frame_of_an_episode_is_not_the_first_of_the_next(new_replay: NewReplay) -> None:
    replay = new_replay()
    collect(replay, TOY)
    for episode in replay.episodes():
        # The ball falls by one row a step, to the very last frame.
        rows = episode.obs[:, 0].any(axis=2).argmax(axis=1)
        np.testing.assert_array_equal(np.diff(rows), 1)


def test_a_lost_life_ends_an_episode(new_replay: NewReplay, breakout: EnvironmentSpec) -> None:
    replay = new_replay("replay", breakout)
    collect(replay, CollectConfig(steps=500, num_envs=1))
    *others, last = replay.infos
    assert len(others) >= 5
    assert all(info.terminated and not info.truncated for info in others)
    assert not last.terminated
    assert not last.truncated
    episodes = list(replay.episodes())
    # The frame at which a life is lost ends one episode and begins the next, but for the fifth.
    continued = [
        np.array_equal(one.obs[-1], other.obs[0]) for one, other in itertools.pairwise(episodes[:6])
    ]
    assert continued == [True, True, True, True, False]


def test_a_full_disk_is_told_in_one_line_and_what_was_collected_is_kept(
    new_replay: NewReplay,
    assert_same_replays: AssertSameReplays,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = Episode.save

    def save_some(episode: Episode, path: Path) -> None:
        if path.stem == "000007":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(episode, path)

    with monkeypatch.context() as disk:
        disk.setattr(Episode, "save", save_some)
        with pytest.raises(DreamenvError, match="the disk is full") as error:
            collect(new_replay("full"), TOY)
    assert "\n" not in str(error.value)
    kept = new_replay("full")
    assert kept.damaged == ()
    assert kept.num_episodes == 7
    collect(kept, TOY)
    collect(new_replay("roomy"), TOY)
    assert_same_replays(kept, new_replay("roomy"))


def test_a_full_disk_for_the_record_is_told_in_one_line(
    new_replay: NewReplay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    collect(new_replay(), TOY, should_stop=stop_after(25))
    before = new_replay().infos
    monkeypatch.setattr("dreamenv.training.collect.atomic_file", no_space)
    with pytest.raises(DreamenvError, match="the disk is full"):
        collect(new_replay(), TOY)
    assert new_replay().infos[: len(before)] == before
    assert steps_collected(new_replay(), TOY) == sum(info.length for info in before)


def test_an_action_that_is_not_the_games_is_refused(new_replay: NewReplay) -> None:
    with pytest.raises(InputError, match="must be from 0 to 2"):
        collect(new_replay(), replace(TOY, policy=OUT_OF_RANGE))


@pytest.mark.parametrize(
    ("player", "returned"), [(Half, r"float64 \[3\]"), (ForOne, r"int64 \[1\]")]
)
def test_what_is_no_action_is_refused_and_not_rounded(
    new_replay: NewReplay, player: type, returned: str
) -> None:
    config = replace(TOY, policy=f"{__name__}:{player.__name__}")
    with pytest.raises(InputError, match=f"returned {returned}; it must return 3 integers"):
        collect(new_replay(), config)


@pytest.mark.parametrize("text", ["{", json.dumps({"collections": [{"games": -1}]}), "[]"])
def test_a_damaged_record_is_named(new_replay: NewReplay, text: str) -> None:
    replay = new_replay()
    collect(replay, TOY)
    (replay.folder / "collections.json").write_text(text)
    with pytest.raises(FormatError, match=r"collections\.json"):
        collect(replay, TOY)


def test_the_record_comes_back_as_it_was_written(new_replay: NewReplay) -> None:
    replay = new_replay()
    assert Collections.read(replay.folder) == Collections()
    collect(replay, TOY)
    collect(replay, replace(TOY, seed=9), should_stop=stop_after(20))
    first, second = Collections.read(replay.folder).collections
    assert (first.config, second.config) == (TOY, replace(TOY, seed=9))
    assert first.is_complete
    assert not second.is_complete
    assert second.first_episode == first.episodes
    assert second.first_game >= first.first_game + first.games
    assert first.steps + second.steps == replay.num_steps


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("num_envs", 0), ("epsilon", -0.1), ("epsilon", 1.1), ("seed", -1)],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        CollectConfig(**{name: value})  # type: ignore[arg-type]
