"""The replay: a folder of episodes of one environment, and their tensors for training."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from dreamenv.data.disk import naming_disk_errors
from dreamenv.data.episode import Episode
from dreamenv.data.index import EpisodeInfo, ReplayIndex, RewardSigns
from dreamenv.data.tensors import ReplayTensors
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import FormatError, InputError
from dreamenv.files import remove_abandoned

_INDEX = "index.json"
_EPISODES = "episodes"


class Replay:
    """Episodes of one environment, one file each, and an index beside them.

        index.json           format version, environment, what each episode amounts to
        episodes/000000.npz  one episode; its number is its place in the order of collection

    Of every `held_out_every` episodes the second is held out (its number modulo `held_out_every`
    is 1) and never trained on: two episodes already give one to train on and one to validate on,
    and an episode's side never changes.

    The episode files are the truth and the index the summary. Opening reads every file: one that
    a kill left unindexed is taken in, and one that is damaged, missing, or not of this
    environment is skipped and named in `damaged`. A replay has one writer at a time.

    `Replay.open`, `Replay.create` and `Replay.open_or_create` make one.

    Args:
        folder: The folder.
        index: What is in it.
        damaged: One line for each episode that was skipped.
        next_number: The number of the next episode.
        max_memory: The bytes of each device that frames may take; None measures what is free.
    """

    def __init__(
        self,
        folder: Path,
        index: ReplayIndex,
        damaged: tuple[str, ...] = (),
        next_number: int = 0,
        max_memory: int | None = None,
    ):
        self._folder = folder
        self._index = index
        self._damaged = damaged
        self._next_number = next_number
        self._max_memory = max_memory
        self._tensors: dict[torch.device, ReplayTensors] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        environment: EnvironmentSpec,
        held_out_every: int = 10,
        max_memory: int | None = None,
    ) -> "Replay":
        """Makes an empty replay.

        Args:
            folder: Where. It is created, with its parents.
            environment: The environment whose episodes it will hold.
            held_out_every: Of so many episodes, one is held out. At least 2.
            max_memory: The bytes of each device that frames may take; None measures what is free.

        Raises:
            FormatError: The folder holds a replay already, or episodes without an index.
            ConfigError: `held_out_every` is less than 2.
            DreamenvError: The disk is full.
        """
        if (folder / _INDEX).exists() or _episode_files(folder):
            raise FormatError(f"{folder}: holds a replay already; open it, or name another folder")
        index = ReplayIndex(environment=environment, held_out_every=held_out_every)
        with naming_disk_errors(folder):
            (folder / _EPISODES).mkdir(parents=True, exist_ok=True)
            index.write(folder / _INDEX)
        return cls(folder, index, max_memory=max_memory)

    @classmethod
    def open(cls, folder: Path, max_memory: int | None = None) -> "Replay":
        """Opens a replay and checks every episode in it.

        Args:
            folder: Where `create` made it.
            max_memory: The bytes of each device that frames may take; None measures what is free.

        Raises:
            FormatError: The index is missing, damaged, or of another format version.
        """
        index = ReplayIndex.read(folder / _INDEX)
        indexed = {info.number: _episode_path(folder, info.number) for info in index.episodes}
        paths = indexed | _episode_files(folder)
        infos: list[EpisodeInfo] = []
        damaged: list[str] = []
        for number, path in sorted(paths.items()):
            try:
                episode = Episode.load(path)
                _check_belongs(episode, index.environment)
            except FormatError as error:
                damaged.append(str(error))
            except InputError as error:
                damaged.append(f"{path}: not of this replay's environment ({error}); delete it")
            else:
                infos.append(_info(episode, number, index.held_out_every))
        return cls(
            folder,
            replace(index, episodes=tuple(infos)),
            damaged=tuple(damaged),
            next_number=max(paths, default=-1) + 1,
            max_memory=max_memory,
        )

    @classmethod
    def open_or_create(
        cls,
        folder: Path,
        environment: EnvironmentSpec,
        held_out_every: int = 10,
        max_memory: int | None = None,
    ) -> "Replay":
        """Opens the replay in `folder` to go on with it, or makes it where there is none.

        Args:
            folder: Where.
            environment: The environment that the next episodes will be of.
            held_out_every: Of so many episodes, one is held out. For a new replay only.
            max_memory: The bytes of each device that frames may take; None measures what is free.

        Raises:
            FormatError: The replay there is of another environment, or cannot be read.
            ConfigError: `held_out_every` is less than 2.
            DreamenvError: The disk is full.
        """
        if not (folder / _INDEX).exists():
            return cls.create(folder, environment, held_out_every, max_memory)
        for written in (folder, folder / _EPISODES):
            remove_abandoned(written)
        replay = cls.open(folder, max_memory)
        difference = replay.environment.first_difference(environment)
        if difference is not None:
            raise FormatError(
                f"{folder} is a dataset of another environment: it has {difference}; "
                f"name another folder"
            )
        return replay

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder

    @property
    def environment(self) -> EnvironmentSpec:
        """The environment whose episodes these are."""
        return self._index.environment

    @property
    def infos(self) -> tuple[EpisodeInfo, ...]:
        """What each episode amounts to, oldest first."""
        return self._index.episodes

    @property
    def damaged(self) -> tuple[str, ...]:
        """One line for each episode that was skipped, naming its file and what is wrong."""
        return self._damaged

    @property
    def next_number(self) -> int:
        """The number that the next episode will have; no number is given twice."""
        return self._next_number

    @property
    def num_episodes(self) -> int:
        """The number of episodes, held out ones included."""
        return len(self.infos)

    @property
    def num_steps(self) -> int:
        """The number of steps, held out ones included."""
        return sum(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of steps of each episode, oldest first."""
        return tuple(info.length for info in self.infos)

    @property
    def returns(self) -> tuple[float, ...]:
        """The sum of rewards of each episode, oldest first."""
        return tuple(info.total_reward for info in self.infos)

    @property
    def reward_signs(self) -> RewardSigns:
        """How many steps had a reward of each sign, held out ones included."""
        return sum((info.reward_signs for info in self.infos), RewardSigns())

    @property
    def size_on_disk(self) -> int:
        """The bytes of the index and the episode files."""
        files = [self._folder / _INDEX, *_episode_files(self._folder).values()]
        return sum(file.stat().st_size for file in files)

    def append(self, episode: Episode) -> None:
        """Adds an episode, whole or not at all, and shows it to the samplers' next batch.

        Raises:
            InputError: Its frames or actions are not those of the environment.
            DreamenvError: The disk is full. What was collected before is kept.
        """
        self.extend([episode])

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Adds episodes one after the other, and writes the index once at the end.

        Raises:
            InputError: The frames or actions of one are not those of the environment. Those before
                it are kept.
            DreamenvError: The disk is full. Those that were written are kept.
        """
        try:
            for episode in episodes:
                self._add(episode)
        finally:
            with naming_disk_errors(self._folder):
                self._index.write(self._folder / _INDEX)

    def load(self, number: int) -> Episode:
        """Reads the episode of that number from the disk.

        Raises:
            FormatError: Its file is missing or damaged.
        """
        return Episode.load(_episode_path(self._folder, number))

    def episodes(self) -> Iterator[Episode]:
        """Reads the episodes from the disk, one at a time, oldest first.

        Raises:
            FormatError: A file was damaged or removed after the replay was opened.
        """
        return (self.load(info.number) for info in self.infos)

    def tensors(self, device: torch.device | str) -> ReplayTensors:
        """Returns the episodes as flat tensors for `device`, read from the disk at the first call.

        All samplers of a device share them, and they grow with every append.

        Raises:
            FormatError: A file was damaged or removed after the replay was opened.
            DreamenvError: The frames do not fit in memory, and the disk is full.
        """
        # An empty tensor knows its full device: "cuda" and "cuda:0" are one.
        device = torch.empty(0, device=device).device
        if device not in self._tensors:
            self._tensors[device] = self._load_tensors(device)
        return self._tensors[device]

    def _load_tensors(self, device: torch.device) -> ReplayTensors:
        shape = self.environment.obs_shape
        with naming_disk_errors(self._folder):
            tensors = ReplayTensors(shape, device, self._folder, self._max_memory)
            tensors.reserve(self.num_steps + self.num_episodes)
            for info, episode in zip(self.infos, self.episodes(), strict=True):
                tensors.append(episode, info.held_out)
        return tensors

    def _add(self, episode: Episode) -> None:
        _check_belongs(episode, self.environment)
        info = _info(episode, self._next_number, self._index.held_out_every)
        with naming_disk_errors(self._folder):
            episode.save(_episode_path(self._folder, info.number))
        self._next_number += 1
        self._index = replace(self._index, episodes=(*self.infos, info))
        with naming_disk_errors(self._folder):
            for tensors in self._tensors.values():
                tensors.append(episode, info.held_out)


def _info(episode: Episode, number: int, held_out_every: int) -> EpisodeInfo:
    return EpisodeInfo.of(episode, number, held_out=number % held_out_every == 1)


def _episode_path(folder: Path, number: int) -> Path:
    return folder / _EPISODES / f"{number:06d}.npz"


def _episode_files(folder: Path) -> dict[int, Path]:
    """Returns the episode files that are there, by number. Other files are none of ours."""
    files = (folder / _EPISODES).glob("*.npz")
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def _check_belongs(episode: Episode, environment: EnvironmentSpec) -> None:
    if episode.obs.shape[1:] != environment.obs_shape:
        raise InputError(
            f"the episode's frames are {list(episode.obs.shape[1:])}; "
            f"those of {environment.id} here are {list(environment.obs_shape)}"
        )
    if episode.actions.max() >= environment.num_actions:
        raise InputError(
            f"the episode has action {episode.actions.max()}; "
            f"those of {environment.id} here are 0 to {environment.num_actions - 1}"
        )
