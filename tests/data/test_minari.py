import errno
import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamenv.data import Episode, Replay, from_minari, to_minari
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import DreamenvError, FormatError, InputError

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
spaces = pytest.importorskip("gymnasium.spaces")
data_collector = pytest.importorskip("minari.data_collector")

SameEpisodes = Callable[[Episode, Episode], None]
MakeEpisode = Callable[..., Episode]
MakeReplay = Callable[..., Replay]

pytestmark = pytest.mark.filterwarnings("ignore:.*set to None", "ignore:env_spec is None")


@pytest.fixture(autouse=True)
def local_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def record(
    observations: Any, observation_space: Any, action_space: Any, **changes: Any
) -> dict[str, Any]:
    """Makes a Minari data set of one episode with Minari itself, and returns what it holds."""
    steps = len(observations) - 1
    fields = {
        "observations": observations,
        "actions": np.arange(steps) % 3,
        "rewards": np.linspace(-1, 1, steps),
        "terminations": np.arange(steps) == steps - 1,
        "truncations": np.zeros(steps, bool),
    } | changes
    minari.create_dataset_from_buffers(
        "made/images-v0",
        [data_collector.EpisodeBuffer(**fields)],
        observation_space=observation_space,
        action_space=action_space,
        jpeg_encoding=False,
    )
    return fields


def images(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)


def image_space(*shape: int) -> Any:
    return spaces.Box(0, 255, shape, np.uint8)


def varied(make_replay: MakeReplay, make_episode: MakeEpisode) -> Replay:
    replay = make_replay(3, 4)
    replay.append(make_episode(1, 2, terminated=False, truncated=True))
    replay.append(make_episode(5, 3, terminated=False, truncated=False))
    return replay


def as_id(_: Path) -> str:
    return "grids/small/test-v3"


def as_path(folder: Path) -> Path:
    return folder / "exported" / "test-v3"


@pytest.mark.parametrize("name", [as_id, as_path])
def test_a_replay_comes_back_from_minari_as_it_was(
    tmp_path: Path,
    make_replay: MakeReplay,
    make_episode: MakeEpisode,
    same_episodes: SameEpisodes,
    name: Callable[[Path], str | Path],
) -> None:
    replay = varied(make_replay, make_episode)
    to_minari(replay, name(tmp_path))
    again = from_minari(name(tmp_path), tmp_path / "again")
    assert again.environment == replay.environment
    assert again.infos == replay.infos
    for expected, episode in zip(replay.episodes(), again.episodes(), strict=True):
        same_episodes(expected, episode)


def test_a_relative_folder_is_one_from_here(
    tmp_path: Path,
    make_replay: MakeReplay,
    same_episodes: SameEpisodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay = make_replay(3, 2)
    monkeypatch.chdir(tmp_path)
    to_minari(replay, "./grid-v0")
    assert (tmp_path / "grid-v0" / "data").is_dir()
    again = from_minari(Path("grid-v0"), Path("again"))
    for expected, episode in zip(replay.episodes(), again.episodes(), strict=True):
        same_episodes(expected, episode)


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, make_replay: MakeReplay) -> None:
    replay = make_replay(3, 2)
    (replay.folder / "episodes" / "000001.npz").write_bytes(b"")
    with pytest.raises(FormatError, match=r"000001\.npz"):
        to_minari(replay, tmp_path / "grid-v0")
    assert not (tmp_path / "grid-v0").exists()


def test_minari_lists_and_reads_what_was_exported(
    make_replay: MakeReplay, make_episode: MakeEpisode
) -> None:
    replay = varied(make_replay, make_episode)
    to_minari(replay, "grids/test-v0")
    assert list(minari.list_local_datasets()) == ["grids/test-v0"]
    dataset = minari.load_dataset("grids/test-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (4, replay.num_steps)
    assert dataset.observation_space == image_space(3, 4, 2)
    assert dataset.action_space == spaces.Discrete(5)
    np.testing.assert_array_equal(
        dataset[0].observations, np.moveaxis(make_episode(3, 0).obs, 1, -1)
    )


def test_frames_large_enough_for_minaris_jpeg_stay_exact(
    tmp_path: Path, environment: EnvironmentSpec, same_episodes: SameEpisodes
) -> None:
    spec = replace(environment, obs_shape=(3, 40, 48))
    episode = Episode(
        images(3, 40, 48), np.arange(5), np.ones(5, np.float32), terminated=True, truncated=False
    )
    replay = Replay.create(tmp_path / "replay", spec)
    replay.append(episode)
    to_minari(replay, "frames/large-v0")
    (again,) = from_minari("frames/large-v0", tmp_path / "again").episodes()
    same_episodes(episode, again)


@pytest.mark.parametrize(
    ("shape", "axes", "obs_shape"),
    [
        ((4, 6), None, (1, 4, 6)),
        ((4, 6, 3), (0, 3, 1, 2), (3, 4, 6)),
        ((2, 4, 6), (0, 1, 2, 3), (2, 4, 6)),
        ((40, 36, 3), (0, 3, 1, 2), (3, 40, 36)),
    ],
)
def test_a_data_set_made_with_minari_is_read_exactly(
    tmp_path: Path,
    same_episodes: SameEpisodes,
    shape: tuple[int, ...],
    axes: tuple[int, ...] | None,
    obs_shape: tuple[int, int, int],
) -> None:
    fields = record(images(*shape), image_space(*shape), spaces.Discrete(3))
    obs = fields["observations"][:, None] if axes is None else fields["observations"]
    expected = Episode(
        obs=obs if axes is None else obs.transpose(axes),
        actions=fields["actions"],
        rewards=fields["rewards"].astype(np.float32),
        terminated=True,
        truncated=False,
    )
    replay = from_minari("made/images-v0", tmp_path / "replay")
    (episode,) = replay.episodes()
    same_episodes(expected, episode)
    assert replay.environment.id == "made/images-v0"
    assert replay.environment.obs_shape == obs_shape
    assert replay.environment.action_meanings == ("0", "1", "2")
    assert replay.environment.preprocessing.source == "observation"


def test_actions_are_counted_from_0(tmp_path: Path) -> None:
    record(
        images(4, 6),
        image_space(4, 6),
        spaces.Discrete(3, start=7),
        actions=np.array([7] * 4 + [9]),
    )
    replay = from_minari("made/images-v0", tmp_path / "replay")
    (episode,) = replay.episodes()
    assert episode.actions.tolist() == [0, 0, 0, 0, 2]
    assert replay.environment.action_meanings == ("7", "8", "9")


def test_the_environment_can_be_given(tmp_path: Path, environment: EnvironmentSpec) -> None:
    record(images(3, 4, 2), image_space(3, 4, 2), spaces.Discrete(5))
    replay = from_minari("made/images-v0", tmp_path / "replay", environment, held_out_every=3)
    assert replay.environment == environment
    assert next(replay.episodes()).obs.shape[1:] == environment.obs_shape


@pytest.mark.parametrize(
    ("shape", "actions", "message"),
    [
        ((4, 6, 3), 5, r"images are \[4, 6, 3\]; those of .* \[2, 3, 4\]"),
        ((3, 4, 2), 4, "has 4 ac"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(
    tmp_path: Path,
    environment: EnvironmentSpec,
    shape: tuple[int, ...],
    actions: int,
    message: str,
) -> None:
    record(images(*shape), image_space(*shape), spaces.Discrete(actions))
    with pytest.raises(InputError, match=message):
        from_minari("made/images-v0", tmp_path / "replay", environment)


FLOATS = spaces.Box(-1, 1, (4,), np.float32)


@pytest.mark.parametrize(
    ("observations", "observation_space", "action_space", "message"),
    [
        (np.zeros((6, 4), np.float32), FLOATS, spaces.Discrete(3), r"Box float32 \[4\]; needed"),
        (
            {"image": images(4, 6)},
            spaces.Dict({"image": image_space(4, 6)}),
            spaces.Discrete(3),
            r"observations are Dict\(.*; needed are uint8 images",
        ),
        (images(4, 6), image_space(4, 6), FLOATS, r"actions are Box float32 \[4\]; needed"),
    ],
)
def test_other_observations_and_actions_are_refused_in_one_line(
    tmp_path: Path, observations: Any, observation_space: Any, action_space: Any, message: str
) -> None:
    record(
        observations,
        observation_space,
        action_space,
        actions=np.zeros((5, 4), np.float32),
        rewards=np.zeros(5),
        terminations=np.zeros(5, bool),
        truncations=np.zeros(5, bool),
    )
    with pytest.raises(InputError, match=f"made/images-v0: .*{message}") as refused:
        from_minari("made/images-v0", tmp_path / "replay")
    assert "\n" not in str(refused.value)


def test_an_episode_that_cannot_be_used_leaves_no_half_replay(tmp_path: Path) -> None:
    record(
        images(4, 6),
        image_space(4, 6),
        spaces.Discrete(3),
        terminations=np.array([False, True, False, False, True]),
    )
    target = tmp_path / "replays" / "replay"
    with pytest.raises(InputError, match="episode 0 goes on after its end"):
        from_minari("made/images-v0", target)
    assert list(target.parent.iterdir()) == []


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobody/nothing-v0: no Minari data set at .*download"):
        from_minari("nobody/nothing-v0", tmp_path / "replay")


def test_a_damaged_data_set_is_named(
    tmp_path: Path, make_replay: MakeReplay, local_datasets: Path
) -> None:
    to_minari(make_replay(3), "grids/test-v0")
    file = local_datasets / "grids" / "test-v0" / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FormatError, match="test-v0: Minari cannot read it"):
        from_minari("grids/test-v0", tmp_path / "again")


def test_nothing_is_written_over_what_is_there(make_replay: MakeReplay) -> None:
    replay = make_replay(3)
    to_minari(replay, "grids/test-v0")
    with pytest.raises(InputError, match="exists already"):
        to_minari(replay, "grids/test-v0")
    with pytest.raises(FormatError, match=f"{replay.folder}: is not empty"):
        from_minari("grids/test-v0", replay.folder)


@pytest.mark.parametrize("name", ["test", "grids/a b-v0"])
def test_a_name_that_minari_does_not_take_is_refused(make_replay: MakeReplay, name: str) -> None:
    with pytest.raises(InputError, match="not a name for a Minari data set"):
        to_minari(make_replay(3), name)


def test_a_full_disk_leaves_no_half_data_set(
    make_replay: MakeReplay, local_datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage = importlib.import_module("minari.dataset._storages.hdf5_storage")
    monkeypatch.setattr(storage.HDF5Storage, "update_episodes", no_space)
    with pytest.raises(DreamenvError, match="test-v0: the disk is full"):
        to_minari(make_replay(3), "grids/test-v0")
    assert not any(file.is_file() for file in (local_datasets / "grids" / "test-v0").rglob("*"))


def test_a_replay_is_not_made_where_a_file_is(tmp_path: Path, make_replay: MakeReplay) -> None:
    to_minari(make_replay(3), "grids/test-v0")
    file = tmp_path / "file"
    file.touch()
    for target in (file, file / "replay", file / "runs" / "replay"):
        with pytest.raises(
            DreamenvError, match=rf"^{file}\S*: \w.*; name another folder"
        ) as refused:
            from_minari("grids/test-v0", target)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("operation", ["mkdir", "rename"])
def test_a_disk_that_refuses_a_replay_is_told_in_one_line(
    tmp_path: Path, make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    to_minari(make_replay(3), "grids/test-v0")
    monkeypatch.setattr(Path, operation, refuse)
    with pytest.raises(DreamenvError, match=r"repl\w+: Permission denied; name another"):
        from_minari("grids/test-v0", tmp_path / "replays" / "replay")


@pytest.mark.parametrize("dataset", ["grids/test-v0", "test-v0"])
def test_a_data_set_is_not_written_where_a_file_is(
    tmp_path: Path, make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file"))
    with pytest.raises(DreamenvError, match=r"file: File exists; name another folder"):
        to_minari(make_replay(3), dataset)


def test_an_empty_replay_is_not_exported(make_replay: MakeReplay) -> None:
    with pytest.raises(InputError, match="no episode to export"):
        to_minari(make_replay(), "grids/test-v0")


@pytest.mark.parametrize("module", ["minari", "h5py"])
def test_without_minari_the_command_that_installs_it_is_named(
    tmp_path: Path, make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("minari", module)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DreamenvError, match=r"pip install 'dreamenv\[minari\]'"):
        to_minari(make_replay(3), tmp_path / "test-v0")
