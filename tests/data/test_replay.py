import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.data import Episode, Replay, RewardSigns
from dreamenv.data.index import ReplayIndex
from dreamenv.data.replay import first_steps
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError

SameEpisodes = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]


class Killed(BaseException):
    """What stands for SIGKILL: nothing catches it, and nothing is written after it."""


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def episode_file(replay: Replay, number: int) -> Path:
    return replay.folder / "episodes" / f"{number:06d}.npz"


def test_what_was_appended_is_there_after_opening_again(
    make_replay: MakeReplay, make_episode: MakeEpisode, same_episodes: SameEpisodes
) -> None:
    replay = make_replay(3, 1, 5)
    replay.append(make_episode(2, seed=3, terminated=False, truncated=True))
    again = Replay.open(replay.folder)
    assert again.infos == replay.infos
    assert again.environment == replay.environment
    assert again.damaged == ()
    for seed, (episode, info) in enumerate(zip(again.episodes(), again.infos, strict=True)):
        ended = {"terminated": info.terminated, "truncated": info.truncated}
        same_episodes(make_episode(info.length, seed, **ended), episode)


def test_it_knows_its_sizes_returns_and_reward_signs(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(30, 20)
    rewards = np.concatenate([make_episode(30, 0).rewards, make_episode(20, 1).rewards])
    assert replay.num_episodes == 2
    assert replay.num_steps == 50
    assert replay.lengths == (30, 20)
    assert replay.returns == (rewards[:30].sum(), rewards[30:].sum())
    assert replay.reward_signs == RewardSigns(
        negative=int((rewards < 0).sum()),
        zero=int((rewards == 0).sum()),
        positive=int((rewards > 0).sum()),
    )
    files = [file for file in replay.folder.rglob("*") if file.is_file()]
    assert replay.size_on_disk == sum(file.stat().st_size for file in files)


def test_an_empty_replay_opens_empty(make_replay: MakeReplay) -> None:
    replay = Replay.open(make_replay().folder)
    assert (replay.num_episodes, replay.num_steps) == (0, 0)
    assert replay.reward_signs == RewardSigns()


def test_one_of_every_ten_episodes_is_held_out_each_time_the_next(make_replay: MakeReplay) -> None:
    infos = make_replay(*[1] * 25).infos
    assert [info.number for info in infos if info.held_out] == [1, 12, 23]
    assert infos == Replay.open(make_replay(*[1] * 25, name="again").folder).infos


def test_the_sides_of_a_replay_from_before_they_turned_stay(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    folder = make_replay(*[1] * 15).folder
    data = ReplayIndex.read(folder / "index.json").to_dict()
    del data["held_out_turns"]
    (folder / "index.json").write_text(json.dumps(data))
    replay = Replay.open(folder)
    replay.extend(make_episode(1) for _ in range(10))
    assert [info.number for info in replay.infos if info.held_out] == [1, 11, 21]
    assert Replay.open(folder).infos == replay.infos


def test_two_episodes_give_one_to_train_on_and_one_to_validate_on(make_replay: MakeReplay) -> None:
    assert [info.held_out for info in make_replay(1, 1).infos] == [False, True]


def test_how_many_are_held_out_can_be_chosen(
    tmp_path: Path, environment: EnvironmentSpec, make_episode: MakeEpisode
) -> None:
    replay = Replay.create(tmp_path / "replay", environment, held_out_every=2)
    replay.extend(make_episode(1) for _ in range(4))
    assert [info.held_out for info in Replay.open(replay.folder).infos] == [
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(ConfigError, match="held_out_every"):
        Replay.create(tmp_path / "other", environment, held_out_every=1)


def test_a_replay_can_hold_out_no_episode(
    tmp_path: Path, environment: EnvironmentSpec, make_episode: MakeEpisode
) -> None:
    replay = Replay.create(tmp_path / "replay", environment, held_out_every=None)
    replay.extend(make_episode(1) for _ in range(12))
    again = Replay.open_or_create(replay.folder, environment, held_out_every=2)
    again.extend(make_episode(1) for _ in range(12))
    assert not any(info.held_out for info in again.infos)
    assert again.tensors("cpu").rows.episodes("train").tolist() == list(range(24))


def test_a_replay_is_not_made_over_another(
    make_replay: MakeReplay, environment: EnvironmentSpec
) -> None:
    replay = make_replay(3)
    with pytest.raises(FormatError, match=f"{replay.folder}: holds a replay already"):
        Replay.create(replay.folder, environment)
    (replay.folder / "index.json").unlink()
    with pytest.raises(FormatError, match=f"{replay.folder}: holds a replay already"):
        Replay.create(replay.folder, environment)


def test_going_on_opens_what_is_there_and_makes_what_is_not(
    tmp_path: Path, environment: EnvironmentSpec, make_episode: MakeEpisode
) -> None:
    Replay.open_or_create(tmp_path / "a" / "b", environment).append(make_episode(3))
    again = Replay.open_or_create(tmp_path / "a" / "b", environment)
    again.append(make_episode(4))
    assert Replay.open(again.folder).lengths == (3, 4)


def test_a_replay_of_another_environment_is_refused_and_both_are_named(
    make_replay: MakeReplay, environment: EnvironmentSpec
) -> None:
    other = replace(environment, id="ALE/Pong-v5")
    with pytest.raises(FormatError, match=r"another environment: .*Test/Grid-v0.*ALE/Pong-v5"):
        Replay.open_or_create(make_replay(3).folder, other)


def test_episodes_of_another_environment_are_refused_and_those_before_are_kept(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3)
    good = make_episode(2)
    wide = replace(good, obs=np.zeros((3, 2, 3, 5), np.uint8))
    unknown = replace(good, actions=np.array([0, 5]))
    with pytest.raises(InputError, match=r"frames are \[2, 3, 5\].*\[2, 3, 4\]"):
        replay.append(wide)
    with pytest.raises(InputError, match=r"action 5; .* are 0 to 4"):
        replay.extend([good, unknown, good])
    assert replay.lengths == (3, 2)
    assert Replay.open(replay.folder).infos == replay.infos


def test_an_episode_that_a_kill_left_unindexed_is_taken_in(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3)
    make_episode(4, seed=1).save(episode_file(replay, 1))
    again = Replay.open(replay.folder)
    assert again.lengths == (3, 4)
    assert [info.held_out for info in again.infos] == [False, True]
    again.append(make_episode(5))
    assert Replay.open(replay.folder).lengths == (3, 4, 5)


def test_files_that_a_kill_left_half_written_are_ignored_and_cleared_away(
    make_replay: MakeReplay, environment: EnvironmentSpec
) -> None:
    replay = make_replay(3)
    abandoned = [
        replay.folder / "episodes" / ".000001.npz-0a1b2c3d.partial",
        replay.folder / ".index.json-0a1b2c3d.partial",
    ]
    for file in abandoned:
        file.write_bytes(b"PK")
    assert Replay.open(replay.folder).damaged == ()
    Replay.open_or_create(replay.folder, environment)
    assert not any(file.exists() for file in abandoned)


def test_damaged_and_missing_episodes_are_skipped_and_named_and_the_rest_is_used(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 4, 5, 6)
    cut = episode_file(replay, 1)
    cut.write_bytes(cut.read_bytes()[:-30])
    episode_file(replay, 2).unlink()
    again = Replay.open(replay.folder)
    assert again.lengths == (3, 6)
    assert len(again.damaged) == 2
    assert "000001.npz: not a whole episode file" in again.damaged[0]
    assert "000002.npz: missing" in again.damaged[1]
    assert again.tensors("cpu").rows.lengths.tolist() == [3, 6]
    again.append(make_episode(7))
    assert [info.number for info in Replay.open(replay.folder).infos] == [0, 3, 4]


def test_an_episode_file_of_another_environment_is_skipped_and_named(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 4)
    foreign = replace(make_episode(2), actions=np.array([0, 9]))
    foreign.save(episode_file(replay, 0))
    again = Replay.open(replay.folder)
    assert again.lengths == (4,)
    assert "000000.npz: not of this replay's environment" in again.damaged[0]


def test_a_full_disk_is_one_line_and_loses_nothing(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = make_replay(3, 4)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", no_space)
        with pytest.raises(
            DreamenvError, match=rf"^{replay.folder}: the disk is full; free some space"
        ) as full:
            replay.append(make_episode(5))
    assert "\n" not in str(full.value)
    assert Replay.open(replay.folder).infos == replay.infos
    replay.append(make_episode(6))
    assert Replay.open(replay.folder).lengths == (3, 4, 6)


def test_a_disk_that_fills_up_between_episode_and_index_keeps_the_episode(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = make_replay(3)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", no_space)
        with pytest.raises(DreamenvError, match="the disk is full"):
            replay.append(make_episode(5))
    assert Replay.open(replay.folder).lengths == (3, 5)


def test_other_trouble_with_the_disk_is_not_called_a_full_one(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplugged(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    replay = make_replay(3)
    monkeypatch.setattr(np, "savez_compressed", unplugged)
    with pytest.raises(DreamenvError, match="Input/output error"):
        replay.append(make_episode(5))


def test_two_writers_do_not_overwrite_each_other(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    one = make_replay(3)
    other = Replay.open(one.folder)
    one.append(make_episode(4))
    with pytest.raises(
        FormatError, match=r"^\S*000001\.npz: another process .* one at a time"
    ) as e:
        other.append(make_episode(5))
    assert "\n" not in str(e.value)
    assert ReplayIndex.read(one.folder / "index.json").episodes == one.infos
    assert Replay.open(one.folder).lengths == (3, 4)
    one.append(make_episode(6))
    assert Replay.open(one.folder).infos == one.infos


@pytest.mark.parametrize("make", [Replay.create, Replay.open_or_create])
def test_a_folder_that_cannot_be_looked_into_is_named(
    environment: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Replay]
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(
        DreamenvError, match=r"^closed/index\.json: Permission denied; name another"
    ):
        make(Path("closed"), environment)


def test_one_device_has_one_set_of_tensors(make_replay: MakeReplay) -> None:
    replay = make_replay(3)
    assert replay.tensors("cpu") is replay.tensors("cpu")


COLLECT = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from dreamenv.data import Episode, Replay

replay = Replay.open(Path(sys.argv[1]))
print("ready", flush=True)
for number in count():
    obs = np.full((3, *replay.environment.obs_shape), number % 256, np.uint8)
    replay.append(Episode(obs, np.zeros(2, np.int64), np.zeros(2, np.float32), True, False))
    print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.05, 0.123])
def test_a_collector_that_is_killed_loses_no_episode_that_it_had_appended(
    make_replay: MakeReplay, environment: EnvironmentSpec, delay: float
) -> None:
    folder = make_replay().folder
    with subprocess.Popen(
        [sys.executable, "-c", COLLECT, str(folder)], stdout=subprocess.PIPE, text=True
    ) as collector:
        assert collector.stdout is not None
        assert collector.stdout.readline() == "ready\n"
        time.sleep(delay)
        collector.send_signal(signal.SIGKILL)
        reported = len(collector.stdout.readlines())
    replay = Replay.open_or_create(folder, environment)
    assert replay.damaged == ()
    assert replay.num_episodes in (reported, reported + 1)
    assert [int(episode.obs[0, 0, 0, 0]) for episode in replay.episodes()] == [
        number % 256 for number in range(replay.num_episodes)
    ]


# An episode that grows.


def test_an_episode_that_grew_is_as_one_that_was_appended_whole(
    make_replay: MakeReplay, make_episode: MakeEpisode, same_episodes: SameEpisodes
) -> None:
    whole = make_episode(20, seed=1)
    replay = make_replay(3)
    replay.append(first_steps(whole, 1))
    for steps in (2, 9, 19):
        replay.grow_last(first_steps(whole, steps))
        assert replay.lengths == (3, steps)
        assert not replay.infos[1].terminated
        assert Replay.open(replay.folder).infos == replay.infos
    replay.grow_last(whole)
    assert replay.infos == make_replay(3, 20, name="at once").infos
    assert replay.infos[1].held_out
    same_episodes(whole, Replay.open(replay.folder).load(1))
    replay.append(make_episode(4))
    assert Replay.open(replay.folder).lengths == (3, 20, 4)


def test_only_an_episode_that_goes_on_can_grow_and_only_by_itself(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    whole = make_episode(9, seed=1)
    replay = make_replay()
    with pytest.raises(InputError, match="no episode that could grow"):
        replay.grow_last(whole)
    replay.append(first_steps(whole, 5))
    for steps in (4, 5):
        with pytest.raises(InputError, match=f"has {steps} steps; .* more than 5"):
            replay.grow_last(first_steps(whole, steps))
    other = replace(whole, rewards=whole.rewards + 1)
    with pytest.raises(InputError, match="does not begin with the steps of episode 0"):
        replay.grow_last(other)
    with pytest.raises(InputError, match="has action 7"):
        replay.grow_last(replace(whole, actions=np.full(9, 7)))
    replay.grow_last(whole)
    with pytest.raises(InputError, match="episode 0, the last, has ended"):
        replay.grow_last(make_episode(12, seed=1))
    assert Replay.open(replay.folder).infos == replay.infos


def test_a_full_disk_leaves_an_episode_as_long_as_it_was(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_episode(9, seed=1)
    replay = make_replay(3)
    replay.append(first_steps(whole, 5))
    tensors = replay.tensors("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", no_space)
        with pytest.raises(DreamenvError, match="the disk is full"):
            replay.grow_last(whole)
    assert replay.lengths == (3, 5)
    assert tensors.rows.lengths.tolist() == [3, 5]
    assert Replay.open(replay.folder).infos == replay.infos
    replay.grow_last(whole)
    assert Replay.open(replay.folder).lengths == (3, 9)


def test_an_episode_that_grew_before_a_kill_could_index_it_is_there(
    make_replay: MakeReplay, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    replay = make_replay(3)
    replay.append(first_steps(make_episode(9, seed=1), 5))
    with monkeypatch.context() as patch:
        patch.setattr(ReplayIndex, "write", killed)
        with pytest.raises(Killed):
            replay.grow_last(make_episode(9, seed=1))
    again = Replay.open(replay.folder)
    assert again.damaged == ()
    assert again.infos == make_replay(3, 9, name="whole").infos


# Going back to its first steps.


@pytest.mark.parametrize("steps", range(13))
def test_what_is_left_is_the_first_steps(
    make_replay: MakeReplay,
    make_episode: MakeEpisode,
    same_episodes: SameEpisodes,
    steps: int,
) -> None:
    replay = make_replay(3, 4, 5)
    replay.truncate(steps)
    again = Replay.open(replay.folder)
    assert again.infos == replay.infos
    assert again.damaged == ()
    assert again.num_steps == steps
    assert again.next_number == replay.next_number == again.num_episodes
    firsts = (0, 3, 7)
    for number, episode in enumerate(again.episodes()):
        whole = make_episode((3, 4, 5)[number], number)
        left = min(len(whole), steps - firsts[number])
        same_episodes(whole if left == len(whole) else first_steps(whole, left), episode)
    replay.append(make_episode(2))
    assert Replay.open(replay.folder).infos == replay.infos


@pytest.mark.parametrize("steps", [0, 3, 5, 7])
@pytest.mark.parametrize("writes", range(5))
def test_killed_while_going_back_it_has_the_beginning_of_what_was_there(
    make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch, steps: int, writes: int
) -> None:
    countdown = iter(range(writes))

    def until_killed(change: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any, **kwargs: Any) -> None:
            if next(countdown, None) is None:
                raise Killed
            change(*args, **kwargs)

        return counted

    whole = make_replay(3, 4, 5)
    replay = make_replay(3, 4, 5, name="killed")
    with monkeypatch.context() as patch:
        for owner, name in ((ReplayIndex, "write"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, until_killed(getattr(owner, name)))
        with suppress(Killed):
            replay.truncate(steps)
    again = Replay.open(replay.folder)
    assert again.damaged == ()
    assert again.num_steps >= steps
    assert [info.number for info in again.infos] == list(range(again.num_episodes))
    assert again.lengths[:-1] == whole.lengths[: again.num_episodes][:-1]
    again.truncate(steps)
    whole.truncate(steps)
    assert Replay.open(replay.folder).infos == whole.infos


def test_going_back_removes_damaged_episodes_that_came_later_and_names_earlier_ones(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = make_replay(3, 4, 5, 6, 7)
    for number in (1, 3):
        episode_file(replay, number).write_bytes(b"PK")
    again = Replay.open(replay.folder)
    assert len(again.damaged) == 2
    again.truncate(8)
    assert [line for line in again.damaged if "000001" not in line] == []
    assert not episode_file(replay, 3).exists()
    again.append(make_episode(2))
    assert [info.number for info in Replay.open(replay.folder).infos] == [0, 2, 3]


@pytest.mark.parametrize("steps", [-1, 8])
def test_more_steps_than_there_are_cannot_be_left(make_replay: MakeReplay, steps: int) -> None:
    with pytest.raises(InputError, match=f"num_steps is {steps}; the replay has 7"):
        make_replay(3, 4).truncate(steps)


# Catching up with another process.


def test_it_catches_up_with_what_another_process_added(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    writer, whole = make_replay(3, 4), make_episode(9)
    writer.append(first_steps(whole, 5))
    reader = Replay.open(writer.folder)
    tensors, before = reader.tensors("cpu"), reader.tensors("cpu").rows
    reader.catch_up()
    assert tensors.rows is before  # there is nothing new
    writer.grow_last(first_steps(whole, 8))
    reader.catch_up()
    assert reader.infos == writer.infos
    writer.grow_last(whole)
    writer.extend([make_episode(2), make_episode(6)])
    reader.catch_up()
    assert reader.infos == writer.infos
    assert reader.next_number == writer.next_number
    expected = Replay.open(writer.folder).tensors("cpu").rows
    for name, tensor in vars(expected).items():
        assert torch.equal(getattr(tensors.rows, name), tensor), name


def test_it_catches_up_from_nothing(make_replay: MakeReplay, make_episode: MakeEpisode) -> None:
    writer = make_replay()
    reader = Replay.open(writer.folder)
    writer.append(make_episode(3))
    reader.catch_up()
    assert reader.infos == writer.infos
    assert len(reader.tensors("cpu").rows.lengths) == 1


def test_it_catches_up_from_nothing_with_several_at_once(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    writer = make_replay()
    reader = Replay.open(writer.folder)
    writer.extend([make_episode(3), make_episode(2)])
    reader.catch_up()
    assert reader.infos == writer.infos


def test_it_does_not_catch_up_with_a_replay_that_has_lost_episodes(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    writer = make_replay(3, 4, 5)
    reader = Replay.open(writer.folder)
    writer.truncate(7)
    with pytest.raises(FormatError, match="episodes that were there have changed; open it anew"):
        reader.catch_up()
    writer.truncate(3)
    writer.extend([make_episode(6), make_episode(5)])
    with pytest.raises(FormatError, match="episodes that were there have changed; open it anew"):
        reader.catch_up()
