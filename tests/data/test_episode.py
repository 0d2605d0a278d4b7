import errno
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dreamenv.data import Episode
from dreamenv.errors import FormatError, InputError

SameEpisodes = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]


def arrays(length: int = 3, **changes: Any) -> dict[str, Any]:
    fields = {
        "obs": np.zeros((length + 1, 1, 2, 2), np.uint8),
        "actions": np.zeros(length, np.int64),
        "rewards": np.zeros(length, np.float32),
        "terminated": True,
        "truncated": False,
    }
    return fields | changes


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("length", [1, 7])
def test_an_episode_comes_back_from_its_file_as_it_was(
    tmp_path: Path,
    make_episode: MakeEpisode,
    same_episodes: SameEpisodes,
    length: int,
    terminated: bool,
    truncated: bool,
) -> None:
    episode = make_episode(length, terminated=terminated, truncated=truncated)
    episode.save(tmp_path / "episode.npz")
    same_episodes(episode, Episode.load(tmp_path / "episode.npz"))
    assert len(episode) == length


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": np.zeros((4, 1, 2, 2), np.float32)}, r"obs is float32 .* must be uint8"),
        ({"obs": np.zeros((4, 2, 2), np.uint8)}, r"obs is uint8 \[4, 2, 2\].*\[T \+ 1, C, H, W\]"),
        ({"obs": np.zeros((3, 1, 2, 2), np.uint8)}, "3 actions need 4 frames.*got 3"),
        ({"actions": np.zeros(3, np.int32)}, "actions is int32.*must be int64"),
        ({"actions": np.array([0, -1, 0])}, "actions has -1"),
        ({"rewards": np.zeros(3)}, "rewards is float64.*must be float32"),
        ({"rewards": np.zeros(2, np.float32)}, "3 actions need 3 rewards; got 2"),
        ({"rewards": np.array([0, np.nan, 0], np.float32)}, "rewards .* not finite"),
        (arrays(length=0), "no steps"),
    ],
)
def test_arrays_that_are_no_episode_are_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Episode(**arrays(**changes))


def test_the_total_reward_is_the_sum_of_the_rewards() -> None:
    assert Episode(**arrays(rewards=np.array([1, -3, 0.5], np.float32))).total_reward == -1.5


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, make_episode: MakeEpisode) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "episode.npz"
    make_episode(4).save(path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_named(
    tmp_path_factory: pytest.TempPathFactory, saved: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "000007.npz"
    path.write_bytes(saved[: data.draw(st.integers(0, len(saved) - 1))])
    with pytest.raises(FormatError, match=r"000007\.npz: not a whole episode file"):
        Episode.load(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_file_with_a_wrong_byte_is_refused_or_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    saved: bytes,
    make_episode: MakeEpisode,
    same_episodes: SameEpisodes,
    data: st.DataObject,
) -> None:
    damaged = bytearray(saved)
    damaged[data.draw(st.integers(0, len(saved) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flipped") / "episode.npz"
    path.write_bytes(damaged)
    with suppress(FormatError):
        same_episodes(make_episode(4), Episode.load(path))


def write_text(path: Path) -> None:
    path.write_text("a letter")


def write_single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_other_arrays(path: Path) -> None:
    np.savez(path, frames=np.zeros(3))


def write_objects(path: Path) -> None:
    np.savez(path, **arrays(obs=np.array([print], dtype=object)))


def write_no_episode(path: Path) -> None:
    np.savez(path, **arrays(rewards=np.zeros(9, np.float32)))


def write_archive_for_an_array(path: Path) -> None:
    inner = io.BytesIO()
    np.savez(inner, obs=np.zeros(3))
    np.savez(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"obs.npy": inner.getvalue()}).items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_single_array,
        write_other_arrays,
        write_objects,
        write_no_episode,
        write_archive_for_an_array,
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "foreign.npz"
    write(path)
    with pytest.raises(FormatError, match=r"foreign\.npz: not a whole episode file"):
        Episode.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.npz: missing"):
        Episode.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_file_that_the_disk_does_not_give_is_not_called_damaged(
    tmp_path: Path, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "episode.npz"
    make_episode(3).save(path)
    monkeypatch.setattr(Path, "read_bytes", refused)
    reason = rf"episode\.npz: cannot be read \({os.strerror(code)}\); make it readable"
    with pytest.raises(FormatError, match=reason) as raised:
        Episode.load(path)
    assert "delete" not in str(raised.value)


def test_a_write_that_fails_halfway_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    make_episode: MakeEpisode,
    same_episodes: SameEpisodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def half(file: Any, **_: Any) -> None:
        file.write(b"PK")
        raise OSError("unplugged")

    path = tmp_path / "episode.npz"
    make_episode(3, seed=1).save(path)
    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="unplugged"):
        make_episode(3, seed=2).save(path)
    assert list(tmp_path.iterdir()) == [path]
    same_episodes(make_episode(3, seed=1), Episode.load(path))


def play_atari(game: str, frames: int) -> NDArray[np.uint8]:
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setInt("frame_skip", 4)
    rom = roms.get_rom_path(game)
    assert rom is not None
    ale.loadROM(rom)
    actions = ale.getMinimalActionSet()
    rng = np.random.default_rng(0)
    screens = []
    for _ in range(frames):
        if ale.game_over():
            ale.reset_game()
        ale.act(actions[rng.integers(len(actions))])
        small = cv2.resize(ale.getScreenRGB(), (64, 64), interpolation=cv2.INTER_AREA)
        screens.append(np.moveaxis(small, -1, 0))
    return np.stack(screens)


@pytest.mark.parametrize("game", ["pong", "breakout"])
def test_a_hundred_thousand_atari_frames_take_less_than_50_megabytes(
    tmp_path: Path, game: str
) -> None:
    frames = 1000
    obs = play_atari(game, frames)
    steps = frames - 1
    Episode(obs, np.zeros(steps, np.int64), np.zeros(steps, np.float32), True, False).save(
        tmp_path / "episode.npz"
    )
    assert (tmp_path / "episode.npz").stat().st_size * 100_000 / frames < 50e6
