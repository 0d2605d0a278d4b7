"""What is known of a real environment: enough to make it again, and to dream of it."""

from dataclasses import dataclass
from typing import Literal

from dreamenv.config import Config
from dreamenv.errors import ConfigError


@dataclass(frozen=True)
class Preprocessing(Config):
    """How frames and steps of the real environment reach the agent.

    Attributes:
        source: `atari` (the emulator's screen), `observation` (the environment's own image) or
            `render` (what `render_mode="rgb_array"` gives).
        frame_skip: Steps of the emulator an action is held for. Only for `atari`.
        noop_max: At most so many no-ops at a reset, uniformly drawn. Only for `atari`.
        sticky_actions: Probability that the emulator repeats the last action. Only for `atari`.
    """

    source: Literal["atari", "observation", "render"] = "atari"
    frame_skip: int = 4
    noop_max: int = 30
    sticky_actions: float = 0.0

    def __post_init__(self) -> None:
        if self.frame_skip < 1:
            raise ConfigError(f"frame_skip is {self.frame_skip}; it must be at least 1")
        if self.noop_max < 0:
            raise ConfigError(f"noop_max is {self.noop_max}; it must be at least 0")
        if not 0 <= self.sticky_actions < 1:
            raise ConfigError(f"sticky_actions is {self.sticky_actions}; it must be in [0, 1)")


@dataclass(frozen=True)
class EnvironmentSpec(Config):
    """The identity and the spaces of a real environment.

    Attributes:
        id: The Gymnasium id, such as `ALE/Pong-v5`.
        obs_shape: Channels, height and width of a frame (uint8).
        action_meanings: One name for each action, in the order of their numbers.
        preprocessing: How its frames and steps are made.
    """

    id: str
    obs_shape: tuple[int, int, int]
    action_meanings: tuple[str, ...]
    preprocessing: Preprocessing = Preprocessing()

    def __post_init__(self) -> None:
        if min(self.obs_shape) < 1:
            raise ConfigError(f"obs_shape is {self.obs_shape}; each size must be at least 1")
        if not self.action_meanings:
            raise ConfigError("action_meanings is empty; name at least one action")

    @property
    def num_actions(self) -> int:
        """The number of discrete actions."""
        return len(self.action_meanings)
