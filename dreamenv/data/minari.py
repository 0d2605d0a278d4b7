"""Minari data sets in and out."""

import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dreamenv.data.disk import naming_disk_errors
from dreamenv.data.episode import Episode
from dreamenv.data.replay import Replay
from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import DreamenvError, FormatError, InputError
from dreamenv.files import atomic_folder_update

_METADATA_KEY = "dreamenv_environment"
_NEEDED = "needed are uint8 images [H, W], [H, W, C] or [C, H, W], and one discrete action"
# What Minari and HDF5 raise for a data set that is damaged or of another version.
_UNREADABLE = (AssertionError, LookupError, OSError, ValueError)

_Layout = Literal["HW", "HWC", "CHW"]


@contextmanager
def _needing_minari() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DreamenvError(
            f"Minari cannot be used ({error}); install it with pip install 'dreamenv[minari]'"
        ) from error


@_needing_minari()
def from_minari(
    dataset: str | Path,
    folder: Path,
    environment: EnvironmentSpec | None = None,
    held_out_every: int = 10,
) -> Replay:
    """Makes a replay of a Minari data set, whole or not at all.

    Frames, actions and ends are kept exactly; rewards become float32; seeds and infos are left
    out. Actions are counted from 0 where the data set counts from elsewhere.

    Args:
        dataset: The id of a data set on this machine (`namespace/name-v0`, looked up under
            `$MINARI_DATASETS_PATH`), or its folder: a `Path`, or a string that is absolute,
            starts with a dot, or names a folder that is there.
        folder: Where the replay is made. It must be empty, or not be there.
        environment: What the data set was played in. None takes what `to_minari` wrote, or else
            the id that the data set names, its images as they are, and its numbers for actions.
        held_out_every: Of so many episodes, one is held out.

    Raises:
        InputError: There is no such data set, or it has not images and discrete actions.
        FormatError: The data set cannot be read, or `folder` is not empty.
        DreamenvError: Minari is not installed, or the disk is full or not to be written to.
    """
    with naming_disk_errors(folder):
        if folder.exists() and any(folder.iterdir()):
            raise FormatError(f"{folder}: is not empty; name another folder for the replay")
        data = _open(dataset)
        environment = environment or _stored_environment(data)
        layout = _layout_of(data.observation_space, environment, dataset)
        actions = _discrete(data.action_space, dataset)
        if environment is None:
            environment = _described_environment(data, layout, actions)
        if environment.num_actions != len(actions):
            raise InputError(
                f"{dataset}: has {len(actions)} actions; "
                f"{environment.id} has {environment.num_actions}"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
            replay = Replay.create(Path(staging) / "replay", environment, held_out_every)
            replay.extend(_episodes(data, layout, actions.start, dataset))
            replay.folder.rename(folder)
    return Replay.open(folder)


@_needing_minari()
def to_minari(replay: Replay, dataset: str | Path) -> None:
    """Writes a replay as a Minari data set, whole or not at all.

    Images are stored as [H, W, C] and exactly, not as JPEG. The data set says which environment
    it is of, so that `from_minari` makes the same replay of it.

    Args:
        replay: The replay.
        dataset: The id of the new data set, or its folder, told apart as in `from_minari`. The
            name must end in a version, as in `pong-v0`.

    Raises:
        InputError: The name is not one for Minari, the data set exists, or the replay is empty.
        FormatError: An episode file was damaged or removed after the replay was opened.
        DreamenvError: Minari is not installed, or the disk is full or not to be written to.
    """
    with naming_disk_errors(Path(dataset)):
        target = _locate(dataset)
        if target.exists():
            raise InputError(f"{target}: exists already; give the data set another name")
        if replay.num_episodes == 0:
            raise InputError(f"{replay.folder}: has no episode to export; collect some first")
        dataset_id = target.name if _is_path(dataset) else str(dataset)
        _register(dataset_id, in_namespace=not _is_path(dataset))
        try:
            _write(replay, target, dataset_id)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


def _write(replay: Replay, target: Path, dataset_id: str) -> None:
    observation_space, action_space = _spaces(replay.environment)
    with atomic_folder_update(target / "data") as staging:
        storage = _module("minari.dataset.minari_storage").MinariStorage.new(
            staging,
            observation_space=observation_space,
            action_space=action_space,
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": _module("minari").__version__,
                _METADATA_KEY: replay.environment.to_dict(),
            }
        )
        storage.update_episodes(_buffer(episode) for episode in replay.episodes())


def _module(name: str) -> Any:
    """Imports a module of the optional extra, which comes without types."""
    return importlib.import_module(name)


def _is_path(dataset: str | Path) -> bool:
    if isinstance(dataset, Path):
        return True
    return dataset.startswith(".") or Path(dataset).is_absolute() or Path(dataset).is_dir()


def _locate(dataset: str | Path) -> Path:
    if _is_path(dataset):
        # Minari joins a relative path to itself.
        return Path(dataset).resolve()
    folder: Path = _module("minari.storage.datasets_root_dir").get_dataset_path(dataset)
    return folder


def _open(dataset: str | Path) -> Any:
    folder = _locate(dataset)
    if not (folder / "data").is_dir():
        raise InputError(
            f"{dataset}: no Minari data set at {folder}; "
            f"give its folder, or fetch it with `minari download {folder.name}`"
        )
    try:
        return _module("minari").MinariDataset(folder / "data")
    except _UNREADABLE as error:
        raise FormatError(f"{folder}: Minari cannot read it ({error}); fetch it again") from error


def _register(dataset_id: str, in_namespace: bool) -> None:
    """Checks the id of a new data set, and makes its namespace known where it has one."""
    names = _module("minari.dataset.minari_dataset")
    namespaces = _module("minari.namespace")
    try:
        namespace = names.parse_dataset_id(dataset_id)[0]
    except (TypeError, ValueError):
        raise InputError(
            f"{dataset_id!r} is not a name for a Minari data set; give one like 'pong-v0'"
        ) from None
    if in_namespace and namespace and namespace not in namespaces.list_local_namespaces():
        namespaces.create_namespace(namespace)


def _spaces(environment: EnvironmentSpec) -> tuple[Any, Any]:
    # Minari describes its data in the spaces of Gymnasium, which it depends on: there is no other
    # way to tell it what an observation is.
    spaces = _module("gymnasium.spaces")
    channels, height, width = environment.obs_shape
    images = spaces.Box(0, 255, (height, width, channels), np.uint8)
    return images, spaces.Discrete(environment.num_actions)


def _buffer(episode: Episode) -> Any:
    steps = np.arange(len(episode))
    is_last = steps == steps[-1]
    return _module("minari.data_collector").EpisodeBuffer(
        observations=np.ascontiguousarray(episode.obs.transpose(0, 2, 3, 1)),
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=is_last & episode.terminated,
        truncations=is_last & episode.truncated,
    )


def _stored_environment(data: Any) -> EnvironmentSpec | None:
    metadata = data.storage.metadata
    if _METADATA_KEY not in metadata:
        return None
    return EnvironmentSpec.from_dict(metadata[_METADATA_KEY], str(data.storage.data_path))


def _described_environment(data: Any, layout: _Layout, actions: range) -> EnvironmentSpec:
    return EnvironmentSpec(
        id=data.env_spec.id if data.env_spec is not None else data.spec.dataset_id,
        obs_shape=_obs_shapes(data.observation_space.shape)[layout],
        action_meanings=tuple(str(action) for action in actions),
        preprocessing=Preprocessing(source="observation"),
    )


def _layout_of(space: Any, environment: EnvironmentSpec | None, dataset: str | Path) -> _Layout:
    is_image = space.dtype == np.uint8 and space.shape is not None and len(space.shape) in (2, 3)
    if type(space).__name__ != "Box" or not is_image:
        raise InputError(f"{dataset}: its observations are {_named(space)}; {_NEEDED}")
    shapes = _obs_shapes(space.shape)
    if environment is None:
        # An image has fewer channels than rows or columns.
        return min(shapes, key=lambda layout: shapes[layout][0])
    for layout, shape in shapes.items():
        if shape == environment.obs_shape:
            return layout
    raise InputError(
        f"{dataset}: its images are {list(space.shape)}; "
        f"those of {environment.id} are {list(environment.obs_shape)} as [C, H, W]"
    )


def _obs_shapes(shape: tuple[int, ...]) -> dict[_Layout, tuple[int, int, int]]:
    """Returns the [C, H, W] that images of that shape have in each layout they can be of."""
    if len(shape) == 2:
        return {"HW": (1, shape[0], shape[1])}
    return {"HWC": (shape[2], shape[0], shape[1]), "CHW": (shape[0], shape[1], shape[2])}


def _discrete(space: Any, dataset: str | Path) -> range:
    """Returns the data set's numbers for the actions."""
    if type(space).__name__ != "Discrete":
        raise InputError(f"{dataset}: its actions are {_named(space)}; {_NEEDED}")
    return range(int(space.start), int(space.start + space.n))


def _named(space: Any) -> str:
    """Names a space in one line: a Box prints its bounds, pixel by pixel."""
    if type(space).__name__ == "Box":
        return f"Box {space.dtype} {list(space.shape)}"
    return " ".join(str(space).split())


def _episodes(
    data: Any, layout: _Layout, first_action: int, dataset: str | Path
) -> Iterator[Episode]:
    try:
        for recorded in data.iterate_episodes():
            yield _episode(recorded, layout, first_action)
    except InputError as error:
        raise InputError(f"{dataset}: an episode cannot be used: {error}") from error
    except _UNREADABLE as error:
        raise FormatError(f"{dataset}: Minari cannot read it ({error}); fetch it again") from error


def _episode(recorded: Any, layout: _Layout, first_action: int) -> Episode:
    if recorded.terminations[:-1].any() or recorded.truncations[:-1].any():
        raise InputError(f"episode {recorded.id} goes on after its end; cut it there")
    return Episode(
        obs=_channels_first(recorded.observations, layout),
        actions=recorded.actions.astype(np.int64) - first_action,
        rewards=recorded.rewards.astype(np.float32),
        terminated=bool(recorded.terminations[-1:].any()),
        truncated=bool(recorded.truncations[-1:].any()),
    )


def _channels_first(images: NDArray[np.uint8], layout: _Layout) -> NDArray[np.uint8]:
    if layout == "HW":
        return images[:, None]
    if layout == "HWC":
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images
