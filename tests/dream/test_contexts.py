import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.data import Episode, Replay
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import FormatError, InputError

GAME = EnvironmentSpec(id="Test/Count-v0", obs_shape=(1, 4, 5), action_meanings=("a", "b", "c"))
LENGTH = 6
GREY = 128


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    """Four episodes of 6 steps at levels 0, 10, 30, 20 and on; those at 10 and 30 are held out.

    At each frame the action is its level modulo 3.
    """
    replay = Replay.create(tmp_path / "replay", GAME, held_out_every=2)
    for first in (0, 10, 30, 20):
        levels = np.arange(first, first + LENGTH + 1)
        obs = np.broadcast_to(levels[:, None, None, None], (LENGTH + 1, 1, 4, 5)).astype(np.uint8)
        rewards = np.zeros(LENGTH, np.float32)
        replay.append(Episode(obs, levels[:-1] % 3, rewards, terminated=True, truncated=False))
    return replay


@pytest.fixture
def contexts() -> Contexts:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randint(0, 256, (5, 3, 1, 4, 5), dtype=torch.uint8, generator=generator)
    return Contexts(obs, torch.arange(15).view(5, 3))


def test_windows_are_of_real_frames_and_the_actions_taken_at_them(replay: Replay) -> None:
    contexts = Contexts.draw(replay, length=3, count=200)
    assert (contexts.obs.dtype, contexts.actions.dtype) == (torch.uint8, torch.int64)
    assert contexts.obs.shape == (200, 3, 1, 4, 5)
    assert contexts.actions.shape == (200, 3)
    levels = contexts.obs[:, :, 0, 0, 0].long()
    assert torch.equal(contexts.obs, levels[:, :, None, None, None].expand(-1, -1, 1, 4, 5).byte())
    real = levels != GREY
    assert torch.equal(contexts.actions, torch.where(real, levels % 3, 0))
    # Real frames follow each other, and grey ones stand before the first.
    following = real[:, 1:] & real[:, :-1]
    assert (levels.diff(dim=1) == 1)[following].all()
    assert (levels[:, 1:] % 10 == 0)[real[:, 1:] & ~real[:, :-1]].all()
    assert real[:, -1].all()
    assert not real[:, 0].all()


def test_windows_know_how_long_ago_the_last_reward_came(replay: Replay) -> None:
    levels = np.arange(40, 40 + LENGTH + 1)
    obs = np.broadcast_to(levels[:, None, None, None], (LENGTH + 1, 1, 4, 5)).astype(np.uint8)
    rewards = np.array([0, 0, -1, 0, 0, 0], np.float32)
    replay.append(Episode(obs, levels[:-1] % 3, rewards, terminated=True, truncated=False))
    contexts = Contexts.draw(replay, length=2, count=300)
    assert contexts.since_reward is not None
    counted = dict(
        zip(contexts.obs[:, -1, 0, 0, 0].tolist(), contexts.since_reward.tolist(), strict=True)
    )
    assert [counted[level] for level in range(40, 46)] == [0, 0, 0, -1, -2, -3]
    assert not any(since for level, since in counted.items() if level < 40)


def test_only_episodes_that_are_trained_on_are_dreamt_from(replay: Replay) -> None:
    levels = Contexts.draw(replay, length=3, count=300).obs.unique().tolist()
    # The final frame, 6 and 26, is one that no action follows.
    assert levels == [*range(0, 6), *range(20, 26), GREY]


def test_windows_end_at_the_rows_that_are_favoured(replay: Replay) -> None:
    rows = replay.tensors("cpu").rows
    last = rows.frames[:, 0, 0, 0].long()
    favoured = (last == 4).double() + 3 * (last == 21).double()
    contexts = Contexts.draw(replay, length=3, count=400, favoured=favoured / favoured.sum())
    levels = contexts.obs[:, :, 0, 0, 0].long()
    first, second = (levels == torch.tensor(window) for window in ([2, 3, 4], [GREY, 20, 21]))
    is_first, is_second = first.all(dim=1), second.all(dim=1)
    assert (is_first | is_second).all()
    assert is_second.float().mean().item() == pytest.approx(0.75, abs=0.08)


def test_a_seed_gives_one_draw_and_another_seed_another(replay: Replay) -> None:
    one, same, other = (Contexts.draw(replay, 3, 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.obs, same.obs)
    assert torch.equal(one.actions, same.actions)
    assert not torch.equal(one.obs, other.obs)


def test_they_come_back_as_they_were(contexts: Contexts, tmp_path: Path) -> None:
    contexts.save(tmp_path)
    loaded = Contexts.load(tmp_path)
    for got, expected in ((loaded.obs, contexts.obs), (loaded.actions, contexts.actions)):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    assert loaded.since_reward is None


def test_their_last_rewards_come_back_with_them(contexts: Contexts, tmp_path: Path) -> None:
    since = torch.tensor([0, 1, -1, 30, -7])
    Contexts(contexts.obs, contexts.actions, since).save(tmp_path)
    loaded = Contexts.load(tmp_path).since_reward
    assert loaded is not None
    assert torch.equal(loaded, since)
    assert loaded.dtype == torch.int64


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"contexts\.npz holds no contexts of dreams"):
        Contexts.load(tmp_path)


def test_a_truncated_file_is_named(contexts: Contexts, tmp_path: Path) -> None:
    path = tmp_path / "contexts.npz"
    contexts.save(path.parent)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"contexts\.npz holds no contexts of dreams"):
            Contexts.load(path.parent)


def test_a_damaged_file_is_named_or_read_as_it_was(contexts: Contexts, tmp_path: Path) -> None:
    path = tmp_path / "contexts.npz"
    contexts.save(path.parent)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0b100
        path.write_bytes(damaged)
        try:
            loaded = Contexts.load(path.parent)
        except FormatError:
            refused += 1
        else:  # a byte that says nothing of the arrays, such as a date
            assert torch.equal(loaded.obs, contexts.obs)
    assert refused > 100


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    path = tmp_path / "contexts.npz"
    bomb = np.empty(1, object)
    bomb[0] = Malicious(tmp_path / "made")
    np.savez(path, obs=bomb, actions=bomb)
    with pytest.raises(FormatError, match="holds no contexts"):
        Contexts.load(path.parent)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"obs": np.zeros((2, 3, 1, 4, 5), np.uint8)},
        {"obs": np.zeros((2, 3, 1, 4, 5)), "actions": np.zeros((2, 3), np.int64)},
        {"obs": np.zeros((2, 3, 1, 4, 5), np.uint8), "actions": np.zeros((2, 4), np.int64)},
        {"obs": np.zeros((2, 3, 1, 4, 5), np.uint8), "actions": np.zeros((2, 3), np.int32)},
        {"obs": np.zeros((0, 3, 1, 4, 5), np.uint8), "actions": np.zeros((0, 3), np.int64)},
        {"obs": np.array(["frames"]), "actions": np.array(["actions"])},
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "contexts.npz", **arrays)
    with pytest.raises(FormatError, match=r"contexts\.npz holds no contexts of dreams"):
        Contexts.load(tmp_path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    (tmp_path / "contexts.npz").write_bytes(content.getvalue())
    with pytest.raises(FormatError, match=r"contexts\.npz holds no contexts of dreams"):
        Contexts.load(tmp_path)


def test_tensors_that_are_no_contexts_are_refused_when_they_are_made(contexts: Contexts) -> None:
    with pytest.raises(InputError, match=r"obs is torch\.float32 \[5, 3, 1, 4, 5\]"):
        Contexts(contexts.obs.float(), contexts.actions)
    with pytest.raises(InputError, match=r"actions is torch\.int64 \[5, 2\]; .* \[5, 3\]"):
        Contexts(contexts.obs, contexts.actions[:, :2])
    for since in (torch.zeros(5), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"since_reward is .* must be torch\.int64 \[5\]"):
            Contexts(contexts.obs, contexts.actions, since)
