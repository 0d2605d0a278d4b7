"""The replay: a folder of episodes of one environment, and their tensors for training."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

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

    Of every `held_out_every` episodes one is held out and never trained on: of the first the
    second, of the next the third, and so on (of ten each, 1, 12, 23). Two episodes already give one
    to train on and one to validate on, and an episode's side never changes. A replay made with None
    holds out no episode.

    Only the last episode can grow, as that of a game that goes on (`grow_last`).

    The episode files are the truth and the index the summary. Opening reads every file: one that
    a kill left unindexed is taken in, and one that is damaged, missing, or not of this
    environment is skipped and named in `damaged`. A replay has one writer at a time.

    `Replay.open`, `Replay.create` and `Replay.open_or_create` make one.

    Args:
        folder: The folder.
        index: What is in it.
        damaged: One line for each episode that was skipped, by its number.
        next_number: The number of the next episode.
        max_memory: The bytes of each device that frames may take; None measures what is free.
    """

    def __init__(
        self,
        folder: Path,
        index: ReplayIndex,
        damaged: Mapping[int, str] = MappingProxyType({}),
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
        held_out_every: int | None = 10,
        max_memory: int | None = None,
    ) -> "Replay":
        """Makes an empty replay.

        Args:
            folder: Where. It is created, with its parents.
            environment: The environment whose episodes it will hold.
            held_out_every: Of so many episodes, one is held out, at least 2; None holds out none
                and trains on all.
            max_memory: The bytes of each device that frames may take; None measures what is free.

        Raises:
            FormatError: The folder holds a replay already, or episodes without an index.
            ConfigError: `held_out_every` is less than 2.
            DreamenvError: The disk is full, or does not let the folder be read or written.
        """
        if _has_index(folder) or _episode_files(folder):
            raise FormatError(f"{folder}: holds a replay already; open it, or name another folder")
        index = ReplayIndex(environment, held_out_every=held_out_every, held_out_turns=True)
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
        damaged: dict[int, str] = {}
        for number, path in sorted(paths.items()):
            try:
                episode = Episode.load(path)
                _check_belongs(episode, index.environment)
            except FormatError as error:
                damaged[number] = str(error)
            except InputError as error:
                damaged[number] = f"{path}: not of this replay's environment ({error}); delete it"
            else:
                infos.append(EpisodeInfo.of(episode, number, index.holds_out(number)))
        return cls(
            folder,
            replace(index, episodes=tuple(infos)),
            damaged=damaged,
            next_number=max(paths, default=-1) + 1,
            max_memory=max_memory,
        )

    @classmethod
    def open_or_create(
        cls,
        folder: Path,
        environment: EnvironmentSpec,
        held_out_every: int | None = 10,
        max_memory: int | None = None,
    ) -> "Replay":
        """Opens the replay in `folder` to go on with it, or makes it where there is none.

        Args:
            folder: Where.
            environment: The environment that the next episodes will be of.
            held_out_every: Of so many episodes, one is held out; None holds out none. For a new
                replay only.
            max_memory: The bytes of each device that frames may take; None measures what is free.

        Raises:
            FormatError: The replay there is of another environment, or cannot be read.
            ConfigError: `held_out_every` is less than 2.
            DreamenvError: The disk is full, or does not let the folder be read or written.
        """
        if not _has_index(folder):
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
        return tuple(self._damaged.values())

    @property
    def next_number(self) -> int:
        """The number that the next episode will have; only `truncate` gives numbers free again."""
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
            FormatError: Another process writes to this replay.
            DreamenvError: The disk is full. What was collected before is kept.
        """
        self.extend([episode])

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Adds episodes one after the other, and writes the index once at the end.

        Raises:
            InputError: The frames or actions of one are not those of the environment. Those before
                it are kept.
            FormatError: Another process writes to this replay. Those before are kept.
            DreamenvError: The disk is full. Those that were written are kept.
        """
        before = self._index
        try:
            for episode in episodes:
                self._add(episode)
        finally:
            # One who was refused at once would put another writer's index back to its own.
            if self._index is not before:
                with naming_disk_errors(self._folder):
                    self._index.write(self._folder / _INDEX)

    def grow_last(self, episode: Episode) -> None:
        """Puts a longer episode in the place of the last, which it begins with.

        Its file is written anew, whole or not at all; in memory only the new frames are added.

        Args:
            episode: The last episode with more steps: all that were there, and those that followed.

        Raises:
            InputError: There is no episode, the last has ended, or this one does not go on from it.
            DreamenvError: The disk is full. What was collected before is kept.
        """
        _check_belongs(episode, self.environment)
        if not self.infos:
            raise InputError("the replay has no episode that could grow; append one")
        last = self.infos[-1]
        _check_goes_on(episode, last)
        info = EpisodeInfo.of(episode, last.number, last.held_out)
        with naming_disk_errors(self._folder):
            episode.save(_episode_path(self._folder, info.number))
            self._index = replace(self._index, episodes=(*self.infos[:-1], info))
            for tensors in self._tensors.values():
                tensors.grow_last(episode)
            self._index.write(self._folder / _INDEX)

    def catch_up(self) -> None:
        """Takes in what another process, which is the one writer, has added since.

        Raises:
            FormatError: The index or an episode that it names is damaged or missing, or episodes
                that were there are not there any more.
            InputError: What was added does not go on from what was there.
            DreamenvError: The frames do not fit in memory, and the disk is full.
        """
        index = ReplayIndex.read(self._folder / _INDEX)
        known = len(self.infos)
        unchanged = max(0, known - 1)  # the last may have grown
        if len(index.episodes) < known or index.episodes[:unchanged] != self.infos[:unchanged]:
            raise FormatError(
                f"{self._folder}: episodes that were there have changed; open it anew"
            )
        for info in index.episodes[unchanged:]:
            self._take_in(info)

    def truncate(self, num_steps: int) -> None:
        """Leaves only the first steps that were collected, so as to go on from there.

        An episode that is cut has neither end. Files of damaged episodes after the last one left
        are removed too. Killed in the middle, it leaves a replay that has these steps, and perhaps
        some that followed: truncate it again. Rows handed out before it are of no use after it.

        Args:
            num_steps: How many steps are left, held out ones included.

        Raises:
            InputError: There are not as many.
            FormatError: The file of the episode to be cut was damaged after the replay was opened.
            DreamenvError: The disk does not let files be written or removed.
        """
        if not 0 <= num_steps <= self.num_steps:
            raise InputError(f"num_steps is {num_steps}; the replay has {self.num_steps}")
        starts = accumulate(self.lengths, initial=0)
        kept = [info for info, start in zip(self.infos, starts, strict=False) if start < num_steps]
        surplus = sum(info.length for info in kept) - num_steps
        cut: Episode | None = None
        if surplus > 0:
            cut = first_steps(self.load(kept[-1].number), kept[-1].length - surplus)
            kept[-1] = EpisodeInfo.of(cut, kept[-1].number, kept[-1].held_out)
        self._index = replace(self._index, episodes=tuple(kept))
        self._next_number = kept[-1].number + 1 if kept else 0
        self._damaged = {n: line for n, line in self._damaged.items() if n < self._next_number}
        with naming_disk_errors(self._folder):
            self._write_truncated(cut)
        for tensors in self._tensors.values():
            tensors.truncate(len(kept), kept[-1].length if kept else 0)

    def _write_truncated(self, cut: Episode | None) -> None:
        """Makes the files what the index says, whose last episode is `cut` where there is one."""
        # The index first, or it would miss files; and the newest file first, so that whenever a
        # kill comes, what is left is the beginning of what was there.
        self._index.write(self._folder / _INDEX)
        for number, path in sorted(_episode_files(self._folder).items(), reverse=True):
            if number >= self._next_number:
                path.unlink()
        if cut is not None:
            cut.save(_episode_path(self._folder, self._next_number - 1))

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

    def _take_in(self, info: EpisodeInfo) -> None:
        """Makes an episode that another process wrote the last, or puts it in the last's place."""
        last = self.infos[-1] if self.infos else None
        if info == last:
            return
        episode = self.load(info.number)
        grows = last is not None and info.number == last.number
        kept = self.infos[:-1] if grows else self.infos
        if grows and last is not None:
            _check_goes_on(episode, last)
        self._index = replace(self._index, episodes=(*kept, info))
        self._next_number = info.number + 1
        with naming_disk_errors(self._folder):
            for tensors in self._tensors.values():
                if grows:
                    tensors.grow_last(episode)
                else:
                    tensors.append(episode, info.held_out)

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
        number = self._next_number
        path = _episode_path(self._folder, number)
        info = EpisodeInfo.of(episode, number, self._index.holds_out(number))
        with naming_disk_errors(self._folder):
            if path.exists():
                raise FormatError(
                    f"{path}: another process writes to this replay; let one at a time write"
                )
            episode.save(path)
        self._next_number += 1
        self._index = replace(self._index, episodes=(*self.infos, info))
        with naming_disk_errors(self._folder):
            for tensors in self._tensors.values():
                tensors.append(episode, info.held_out)


def first_steps(episode: Episode, steps: int) -> Episode:
    """Returns the first steps of an episode that has more; neither end being real, it has none."""
    return Episode(
        obs=episode.obs[: steps + 1],
        actions=episode.actions[:steps],
        rewards=episode.rewards[:steps],
        terminated=False,
        truncated=False,
    )


def _has_index(folder: Path) -> bool:
    with naming_disk_errors(folder):
        return (folder / _INDEX).exists()


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


def _check_goes_on(episode: Episode, last: EpisodeInfo) -> None:
    if last.terminated or last.truncated:
        raise InputError(f"episode {last.number}, the last, has ended; append another")
    if len(episode) <= last.length:
        raise InputError(
            f"the episode has {len(episode)} steps; to grow episode {last.number} it must have "
            f"more than {last.length}"
        )
    # Of what was there, the index knows only sums, but those without reading a file.
    beginning = EpisodeInfo.of(first_steps(episode, last.length), last.number, last.held_out)
    if beginning != last:
        raise InputError(f"the episode does not begin with the steps of episode {last.number}")
