"""Measuring the fidelity of a world model: from its folder and a replay to figures on disk."""

import itertools
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console
from torch import Tensor

from dreamenv.data import Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.data.segments import segments_at
from dreamenv.devices import AUTO, resolve_device
from dreamenv.dream.contexts import Contexts
from dreamenv.errors import FormatError, InputError
from dreamenv.evaluation.ball import BUNDLED, Detectors, ball_detector
from dreamenv.evaluation.detection import detect
from dreamenv.evaluation.fidelity import (
    DreamFidelity,
    Fidelity,
    FidelityConfig,
    PicturedWindow,
    measure_dream,
)
from dreamenv.evaluation.figures import Outcomes
from dreamenv.evaluation.open_loop import OpenLoop, count_steps, dream_windows
from dreamenv.evaluation.playing import (
    MakePolicy,
    PlayerRates,
    check_players,
    compare_play,
    count_play_steps,
)
from dreamenv.evaluation.report import tables
from dreamenv.evaluation.strip import save_picture, stack, strip
from dreamenv.evaluation.windows import spread_windows
from dreamenv.evaluation.world_folder import world_folder, world_name
from dreamenv.files import atomic_file
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.progress import ProgressBar, say

JSON_FILE = "fidelity.json"
PICTURE_FILE = "fidelity.png"

_MOST_COLUMNS = 20


def evaluate_model(
    world_model: str,
    data: Path,
    config: FidelityConfig,
    console: Console,
    *,
    out: Path | None = None,
    device: str = AUTO,
    detectors: Detectors = BUNDLED,
    players: Mapping[str, MakePolicy] = MappingProxyType({}),
    command: str = "",
) -> Fidelity:
    """Measures a world model on the held-out episodes of a replay.

    Leaves `fidelity.json`, every figure with the settings, and `fidelity.png`: for a few windows
    the real frames above those dreamt with each set of noise levels.

    Args:
        world_model: Its folder, or its name or id where it is in `$DREAMENV_HOME` or bundled.
        data: The folder of the replay.
        config: How.
        console: Where progress and tables are shown.
        out: Where the files go, replacing older ones; by default `evaluation/NAME`, where NAME is
            the world model's.
        device: Where to compute; a name that torch knows, or `auto`.
        detectors: Find the ball in frames, by environment.
        players: Who plays its dreams and the real game to be compared, by name.
        command: The command line, for the JSON.

    Raises:
        FormatError: There is no such world model or replay, or they are of different environments.
        InputError: No episode is held out, or none is long enough, or the device is not there.
        ConfigError: The noise levels do not fall.
        DreamenvError: The files cannot be written, or there is no such player or real game.
    """
    on_device = resolve_device(device)
    folder = world_folder(world_model)
    model = WorldModel.load(folder, device=on_device)
    replay = Replay.open(data)
    for problem in replay.damaged:
        say(console, f"skipped: {problem}")
    _check_fits(model, replay)
    # What is missing for the players is told now, not after minutes.
    check_players(replay.environment, players)
    contexts = Contexts.load(folder) if players else None
    out = Path("evaluation", world_name(folder)) if out is None else out
    measurement = _Measurement(model, replay, config, console, detectors)
    with naming_disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    outcomes, dreams = measurement.outcomes(), measurement.dream()
    rates = () if contexts is None else measurement.play(contexts, players)
    held_out = [info for info in replay.infos if info.held_out]
    fidelity = Fidelity(
        dreamenv=version("dreamenv"),
        command=command,
        world_model=world_model,
        data=str(replay.folder),
        environment=replay.environment.id,
        device=str(on_device),
        settings=config,
        held_out_episodes=len(held_out),
        held_out_steps=sum(info.length for info in held_out),
        windows=len(measurement.windows),
        outcomes=outcomes,
        dreams=measurement.figures(dreams),
        pictured=measurement.pictured,
        pictured_steps=tuple((measurement.columns + 1).tolist()),
        players=rates,
    )
    with naming_disk_errors(out):
        with atomic_file(out / JSON_FILE) as beside:
            beside.write_text(json.dumps(fidelity.to_dict(), indent=2, allow_nan=False) + "\n")
        save_picture(out / PICTURE_FILE, measurement.picture(dreams))
    for table in tables(fidelity):
        console.print(table)
    say(console, f"figures: {out / JSON_FILE}")
    say(console, f"picture, real frames above dreamt ones: {out / PICTURE_FILE}")
    return fidelity


class _Measurement:
    """What is measured of a world model.

    Attributes:
        windows: Which parts of held-out episodes are dreamt.
        columns: int64 [T], the dreamt steps in the picture, from 0.
    """

    def __init__(
        self,
        world_model: WorldModel,
        replay: Replay,
        config: FidelityConfig,
        console: Console,
        detectors: Detectors,
    ) -> None:
        self._samplers = _samplers(world_model.config.sampler, config)
        self._world_model = world_model
        self._replay = replay
        self._config = config
        self._console = console
        self._detector = ball_detector(replay.environment, detectors)
        self._rows = replay.tensors(world_model.device).rows
        self._length = world_model.config.denoiser.context_length
        self.windows = spread_windows(
            self._rows, self._length, config.horizons[-1], config.max_windows
        )
        self._shown = self.windows.spread(config.pictured)
        last = self.windows.horizon - 1
        self.columns = torch.linspace(0, last, min(last + 1, _MOST_COLUMNS)).round().long()

    def outcomes(self) -> Outcomes:
        """Judges rewards and ends from real frames, at every held-out step."""
        total = sum(info.length for info in self._replay.infos if info.held_out)
        with ProgressBar(self._console, "rewards and ends", total) as bar:
            device = self._world_model.device
            return Outcomes.of(detect(self._world_model, self._replay, device, bar.update))

    def dream(self) -> list[OpenLoop]:
        """Dreams the windows, once with each set of noise levels and the same chance."""
        total = len(self._samplers) * count_steps(self.windows)
        steps = itertools.count(1)
        with ProgressBar(self._console, "dream", total) as bar:
            return [
                dream_windows(
                    self._world_model,
                    self._rows,
                    self.windows,
                    sampler=sampler,
                    seed=self._config.seed,
                    shown=self._shown,
                    detector=self._detector,
                    on_step=lambda: bar.update(next(steps)),
                )
                for sampler in self._samplers
            ]

    def play(
        self, contexts: Contexts, players: Mapping[str, MakePolicy]
    ) -> tuple[PlayerRates, ...]:
        """Has players play dreams from contexts, and the real game."""
        horizon = self._config.horizons[-1]
        steps = itertools.count(1)
        total = len(players) * count_play_steps(horizon)
        with ProgressBar(self._console, "play", total) as bar:
            return tuple(
                compare_play(
                    self._world_model,
                    contexts,
                    self._replay.environment,
                    player,
                    make_policy,
                    horizon=horizon,
                    seed=self._config.seed,
                    on_step=lambda: bar.update(next(steps)),
                )
                for player, make_policy in players.items()
            )

    def figures(self, dreams: list[OpenLoop]) -> tuple[DreamFidelity, ...]:
        """Works out the figures of what `dream` gave."""
        return tuple(
            measure_dream(
                dreamt,
                self.windows.episodes,
                self._config.horizons,
                levels=sampler.levels[:-1],
                is_own=sampler is self._samplers[0],
                has_detector=self._detector is not None,
            )
            for sampler, dreamt in zip(self._samplers, dreams, strict=True)
        )

    def picture(self, dreams: list[OpenLoop]) -> Tensor:
        """Shows some of the windows of what `dream` gave: uint8 [C, H, W]."""
        shown = self.windows.rows(self._shown)
        length = self._length + self.windows.horizon
        real = segments_at(self._rows, shown.episodes, shown.starts, length).obs[:, self._length :]
        rows = [real.cpu(), *(dreamt.frames for dreamt in dreams)]  # uint8 [K, H, C, h, w] each
        return stack([strip([row[k, self.columns] for row in rows]) for k in range(len(shown))])

    @property
    def pictured(self) -> tuple[PicturedWindow, ...]:
        """The windows in the picture, from above."""
        shown = self.windows.rows(self._shown)
        return tuple(
            PicturedWindow(self._replay.infos[episode].number, start + self._length)
            for episode, start in zip(shown.episodes.tolist(), shown.starts.tolist(), strict=True)
        )


def _samplers(own: SamplerConfig, config: FidelityConfig) -> list[SamplerConfig]:
    """Returns how frames are drawn: the world model's own way first, and no way twice."""
    others = config.denoising_steps + config.denoising_levels
    samplers: dict[tuple[float, ...], SamplerConfig] = {own.levels: own}
    for sampler in map(own.with_denoising, others):
        samplers.setdefault(sampler.levels, sampler)
    return list(samplers.values())


def _check_fits(world_model: WorldModel, replay: Replay) -> None:
    own, theirs = world_model.origin.environment, replay.environment
    difference = theirs.first_difference(own) if own else None
    if difference is not None:
        raise FormatError(
            f"{replay.folder} is of another environment than the world model: it has {difference}; "
            f"name a replay of the same one"
        )
    config = world_model.config
    if (theirs.obs_shape, theirs.num_actions) != (config.obs_shape, config.num_actions):
        raise FormatError(
            f"{replay.folder} has frames {theirs.obs_shape} and {theirs.num_actions} actions, the "
            f"world model {config.obs_shape} and {config.num_actions}; name a replay of its "
            f"environment"
        )
    if not any(info.held_out for info in replay.infos):
        raise InputError(f"{replay.folder} has no held-out episode; collect more episodes")
