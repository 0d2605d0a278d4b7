"""How faithful a world model is: the settings of its measurement, and the figures."""

from dataclasses import dataclass

from torch import Tensor

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.evaluation.detection import as_detections, count_outcomes
from dreamenv.evaluation.figures import FrameError, Outcomes, Places, Presence
from dreamenv.evaluation.open_loop import OpenLoop
from dreamenv.evaluation.playing import PlayerRates


@dataclass(frozen=True)
class FidelityConfig(Config):
    """How the fidelity of a world model is measured.

    Attributes:
        horizons: After how many dreamt steps figures are told, rising.
        max_windows: At most so many windows are dreamt.
        denoising_steps: Numbers of noise levels to compare with the world model's own levels.
        denoising_levels: Noise levels to compare with them, each list falling.
        pictured: How many windows are shown in the picture.
        seed: Of all chance.
    """

    horizons: tuple[int, ...] = (1, 5, 10, 20, 50)
    max_windows: int = 128
    denoising_steps: tuple[int, ...] = ()
    denoising_levels: tuple[tuple[float, ...], ...] = ()
    pictured: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.horizons, self.horizons[1:], strict=False))
        if not self.horizons or not rising or self.horizons[0] < 1:
            raise ConfigError(
                f"horizons is {self.horizons}; give at least one, at least 1, and rising"
            )
        for name in ("max_windows", "pictured"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")


@dataclass(frozen=True)
class DreamFidelity(Config):
    """The figures of dreams with one set of noise levels.

    Attributes:
        levels: The noise levels, falling, without the 0 at the end.
        is_own: Whether they are the world model's own.
        frames: By horizon.
        ball_at: How often the ball is there where the real frame has one, in the frames at each
            horizon; None where nothing tells whether there is one.
        ball_up_to: Likewise, in all frames up to each horizon.
        ball_near_up_to: How often it is there and near the real one, likewise: a ball in the wrong
            place is no part of the same game.
        false_ball_up_to: How often there is one where the real frame has none, likewise: noise
            and ghosts are taken for balls, and a dream of nothing else would always have one.
        outcomes: Rewards and ends at all dreamt steps, predicted from the dreamt frames.
    """

    levels: tuple[float, ...]
    is_own: bool
    frames: tuple[FrameError, ...]
    ball_at: tuple[Presence, ...] | None
    ball_up_to: tuple[Presence, ...] | None
    ball_near_up_to: tuple[Presence, ...] | None
    false_ball_up_to: tuple[Presence, ...] | None
    outcomes: Outcomes


@dataclass(frozen=True)
class PicturedWindow(Config):
    """A window in the picture.

    Attributes:
        episode: The number of its episode in the replay.
        first_frame: The place in the episode of its first dreamt frame.
    """

    episode: int
    first_frame: int


@dataclass(frozen=True)
class Fidelity(Config):
    """All figures of a world model on the held-out episodes of a replay.

    Attributes:
        dreamenv: The version that measured.
        command: The command line, where it was one.
        world_model: Its folder, name or id, as it was given.
        data: The folder of the replay.
        environment: The id of the environment.
        device: Where it was computed.
        settings: How.
        held_out_episodes: How many there are.
        held_out_steps: How many steps they have.
        windows: How many windows were dreamt.
        outcomes: Rewards and ends at every held-out step, predicted from the real frames.
        dreams: The figures of dreams, those with the world model's own noise levels first. Each
            has the rows of the picture below the real frames, in the same order.
        pictured: The windows in the picture, from above.
        pictured_steps: The dreamt steps in the picture, from the left.
        players: How players fare in dreams and in the real game; none where none was named.
    """

    dreamenv: str
    command: str
    world_model: str
    data: str
    environment: str
    device: str
    settings: FidelityConfig
    held_out_episodes: int
    held_out_steps: int
    windows: int
    outcomes: Outcomes
    dreams: tuple[DreamFidelity, ...]
    pictured: tuple[PicturedWindow, ...]
    pictured_steps: tuple[int, ...]
    players: tuple[PlayerRates, ...] = ()


def measure_dream(
    dreamt: OpenLoop,
    episodes: Tensor,
    horizons: tuple[int, ...],
    *,
    levels: tuple[float, ...],
    is_own: bool,
    has_detector: bool,
) -> DreamFidelity:
    """Works out the figures of dreamt windows.

    Args:
        dreamt: The windows.
        episodes: int64 [W], which episode each is of.
        horizons: After how many steps.
        levels: The noise levels it was dreamt with, falling, without the 0 at the end.
        is_own: Whether they are the world model's own.
        has_detector: Whether it is known where the balls are.
    """
    counts = count_outcomes(
        dreamt.dreamt_signs, dreamt.real_signs, dreamt.dreamt_ends, dreamt.real_ends, dreamt.within
    )
    with_ball = dreamt.within & dreamt.real_balls
    without = dreamt.within & ~dreamt.real_balls

    def presence(balls: Tensor, counted: Tensor, horizon: int, steps: slice) -> Presence:
        found = balls[:, steps][counted[:, steps]]
        places = _places(counted[:, steps], episodes)
        return Presence.of(horizon, found.double().numpy(), places)

    def up_to(balls: Tensor, counted: Tensor) -> tuple[Presence, ...]:
        return tuple(presence(balls, counted, h, slice(h)) for h in horizons)

    balls = dreamt.dreamt_balls
    at = tuple(presence(balls, with_ball, h, slice(h - 1, h)) for h in horizons)
    return DreamFidelity(
        levels=levels,
        is_own=is_own,
        frames=tuple(_frame_error(dreamt, episodes, horizon) for horizon in horizons),
        ball_at=at if has_detector else None,
        ball_up_to=up_to(balls, with_ball) if has_detector else None,
        ball_near_up_to=up_to(dreamt.near_balls, with_ball) if has_detector else None,
        false_ball_up_to=up_to(balls, without) if has_detector else None,
        outcomes=Outcomes.of(as_detections(counts)),
    )


def _frame_error(dreamt: OpenLoop, episodes: Tensor, horizon: int) -> FrameError:
    step = slice(horizon - 1, horizon)  # Nothing, where no window goes on so far.
    counted = dreamt.within[:, step]
    errors = dreamt.squared_errors[:, step][counted]
    return FrameError.of(horizon, errors.double().numpy(), _places(counted, episodes))


def _places(counted: Tensor, episodes: Tensor) -> Places:
    """Returns the episode of each place that is true in a mask [W, T], in its order."""
    places: Places = episodes[:, None].expand_as(counted)[counted].numpy()
    return places
