"""The index of a replay: which environment it is of, and what each episode amounts to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamenv.config import Config
from dreamenv.data.episode import Episode
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import atomic_file

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RewardSigns(Config):
    """How many steps had a reward of each sign."""

    negative: int = 0
    zero: int = 0
    positive: int = 0

    def __add__(self, other: "RewardSigns") -> "RewardSigns":
        return RewardSigns(
            negative=self.negative + other.negative,
            zero=self.zero + other.zero,
            positive=self.positive + other.positive,
        )


@dataclass(frozen=True)
class EpisodeInfo(Config):
    """What is known of an episode without its frames.

    Attributes:
        number: Its place in the order of collection, and the name of its file.
        length: The number of steps.
        total_reward: The sum of the rewards: the episode's return.
        terminated: Whether the game's own rules ended it.
        truncated: Whether a limit ended it.
        held_out: Whether it is kept for validation and never trained on.
        reward_signs: How many of its steps had a reward of each sign.
    """

    number: int
    length: int
    total_reward: float
    terminated: bool
    truncated: bool
    held_out: bool
    reward_signs: RewardSigns

    @classmethod
    def of(cls, episode: Episode, number: int, held_out: bool) -> "EpisodeInfo":
        """Returns what is known of `episode`."""
        return cls(
            number=number,
            length=len(episode),
            total_reward=episode.total_reward,
            terminated=episode.terminated,
            truncated=episode.truncated,
            held_out=held_out,
            reward_signs=RewardSigns(
                negative=int(np.count_nonzero(episode.rewards < 0)),
                zero=int(np.count_nonzero(episode.rewards == 0)),
                positive=int(np.count_nonzero(episode.rewards > 0)),
            ),
        )


@dataclass(frozen=True)
class ReplayIndex(Config):
    """What `index.json` holds.

    Attributes:
        environment: The environment that every episode was played in.
        held_out_every: Of so many episodes, one is held out; None holds out none.
        held_out_turns: Whether it is one place further on in each such block of episodes, and not
            always the second: where an episode ends with each life, that is the same life again
            and again. Replays of before there was a turn keep their sides: worlds were fitted.
        episodes: The episodes in the order of their numbers.
        format_version: The version of the folder's format.
    """

    environment: EnvironmentSpec
    held_out_every: int | None = 10
    held_out_turns: bool = False
    episodes: tuple[EpisodeInfo, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.held_out_every is not None and self.held_out_every < 2:
            raise ConfigError(
                f"held_out_every is {self.held_out_every}; it must be at least 2, "
                "or nothing is left to train on"
            )

    def holds_out(self, number: int) -> bool:
        """Whether the episode of that number is kept for validation and never trained on."""
        if self.held_out_every is None:
            return False
        block, place = divmod(number, self.held_out_every)
        turns = block if self.held_out_turns else 0
        return place == (1 + turns) % self.held_out_every

    def write(self, path: Path) -> None:
        """Writes the index to `path`, whole or not at all."""
        with atomic_file(path) as beside:
            beside.write_text(json.dumps(self.to_dict()) + "\n")

    @classmethod
    def read(cls, path: Path) -> "ReplayIndex":
        """Reads what `write` wrote.

        Raises:
            FormatError: The file is missing, damaged, or of another format version, or the disk
                does not let it be read.
        """
        try:
            data: Any = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise FormatError(
                f"{path.parent}: not a replay (it has no {path.name}); "
                "collect one, or name another folder"
            ) from None
        except OSError as error:
            raise FormatError(
                f"{path}: cannot be read ({error.strerror or error}); make it readable, or name "
                f"another folder"
            ) from error
        except ValueError as error:
            raise FormatError(f"{path}: not JSON ({error}); restore it from a copy") from None
        if not isinstance(data, dict) or "format_version" not in data:
            raise FormatError(f"{path}: not the index of a replay; name another folder")
        if data["format_version"] != FORMAT_VERSION:
            raise FormatError(
                f"{path}: format version {data['format_version']}, but this dreamenv reads "
                f"{FORMAT_VERSION}; use the dreamenv version that wrote it"
            )
        return cls.from_dict(data, str(path))
