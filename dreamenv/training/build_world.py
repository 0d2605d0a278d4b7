"""Making a world model again from nothing, by the recipe in the zoo."""

import json
import math
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

from dreamenv.config import Config
from dreamenv.data import Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.devices import AUTO, resolve_device
from dreamenv.errors import ConfigError, FormatError, InputError
from dreamenv.evaluation.evaluate_model import evaluate_model
from dreamenv.evaluation.fidelity import FidelityConfig
from dreamenv.files import atomic_file
from dreamenv.progress import say
from dreamenv.real import describe
from dreamenv.training.collect import CollectConfig, Collections
from dreamenv.training.collect_run import collect_with_progress, print_damaged
from dreamenv.training.fit_config import FitModelConfig
from dreamenv.training.fit_model import check_plan, fit_model
from dreamenv.training.model_card import CARD_FILE, fidelity_section
from dreamenv.training.policies import load_player
from dreamenv.training.stopping import stop_on_signal
from dreamenv.training.training_config import TrainingConfig
from dreamenv.zoo import RECIPES

_TO_GO_ON = "run the same command to go on"
_BEGUN_ANEW = "run the same command without --overwrite to go on"


Kind = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class RecipeFit(Config):
    """One of the fits of a recipe.

    Attributes:
        settings: How it is done; where the episodes come from and where it goes is filled in.
        only_on: The kind of device that it is left to: what a GPU does in minutes would take a CPU
            a day, which does less instead. None for a fit that both do.
    """

    settings: FitModelConfig
    only_on: Kind | None = None


@dataclass(frozen=True)
class Recipe(Config):
    """How a world model is made.

    Attributes:
        environment: The id of the real environment, whose preprocessing is the default one.
        collections: Who plays, how much and with how much chance, one after the other.
        fits: How it is fitted, each time with the weights of the time before.
    """

    environment: str
    collections: tuple[CollectConfig, ...]
    fits: tuple[RecipeFit, ...]

    def __post_init__(self) -> None:
        for kind in get_args(Kind):
            if not self.fits_on(kind):
                raise ConfigError(
                    f"fits has none on a {kind}; a recipe must say at least once how it is fitted"
                )

    def fits_on(self, kind: Kind) -> list[FitModelConfig]:
        """Returns those that such a device does."""
        return [fit.settings for fit in self.fits if fit.only_on in (None, kind)]

    @classmethod
    def read(cls, name: str) -> "Recipe":
        """Reads the recipe of that name.

        Raises:
            InputError: There is none.
            FormatError: It is damaged.
        """
        path = RECIPES / f"{name}.json"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.json")))
            raise InputError(
                f"there is no recipe for {name!r}; there are those of {known or 'none'}"
            )
        try:
            data = json.loads(path.read_text())
        except ValueError as error:
            raise FormatError(f"{path} is not JSON ({error}); reinstall dreamenv") from None
        return cls.from_dict(data, str(path))


@dataclass(frozen=True)
class BuildConfig(Config):
    """What is made.

    Attributes:
        name: Of the recipe, and of the world model.
        out: Folder of the episodes and of the run; by default runs/zoo/NAME.
        steps: Training steps of each fit, where they are not to be the recipe's; the single steps
            among them keep their share.
        compile: Whether to compile the networks, where that is not to be as in the recipe.
        device: Where to fit: auto (CUDA, then MPS, then the CPU) or one by its name.
    """

    name: str
    out: str | None = None
    steps: int | None = None
    compile: bool | None = None
    device: str = AUTO

    @property
    def folder(self) -> Path:
        """The folder of the episodes and of the run."""
        return Path(self.out or Path("runs") / "zoo" / self.name)

    @property
    def kind(self) -> Kind:
        """What it is fitted on.

        Raises:
            InputError: There is no such device.
        """
        return "cpu" if resolve_device(self.device).type == "cpu" else "gpu"

    def fits(self, recipe: Recipe) -> list[FitModelConfig]:
        """Returns how the world model is fitted on this device, time after time."""
        fits: list[FitModelConfig] = []
        for number, fit in enumerate(recipe.fits_on(self.kind), start=1):
            settings = replace(
                fit,
                env=recipe.environment,
                name=self.name,
                begin_with=str(fits[-1].run_folder.world_model) if fits else None,
                dataset=str(self.folder / "replay"),
                out=str(self.folder / ("fit" if number == 1 else f"fit-{number}")),
                device=self.device,
                training=self._training(fit.training),
            )
            fits.append(settings)
        return fits

    def _training(self, training: TrainingConfig) -> TrainingConfig:
        if self.steps is not None:
            single_steps = math.ceil(training.single_steps * self.steps / training.steps)
            training = replace(training, steps=self.steps, single_steps=single_steps)
        if self.compile is not None:
            training = replace(training, compile=self.compile)
        return training


def build_world(
    config: BuildConfig, console: Console, *, overwrite: bool = False, command: str = ""
) -> Path:
    """Plays, fits, saves and measures as the recipe says, or goes on where that was stopped.

    The figures of `evaluate_model` on the held-out episodes go into the folder and onto the card.

    Args:
        config: What is made.
        console: Where progress is shown.
        overwrite: Fit anew where that was begun, and replace a world model of that name. Episodes
            that were collected are kept.
        command: The command line, for the model card.

    Returns:
        The folder of the world model.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    recipe = Recipe.read(config.name)
    fits = config.fits(recipe)
    with naming_disk_errors(config.folder):
        first, *others = fits if overwrite else _left(fits)
        resume = first.run_folder.config.exists() and not overwrite
        check_plan(first, resume=resume, overwrite=overwrite, to_keep_both="another $DREAMENV_HOME")
        _collect(recipe, config.folder / "replay", console)
        for fit in others:
            # One of a world model that was made before would be gone on with after a stop.
            fit.run_folder.remove()
    to_go_on = _BEGUN_ANEW if overwrite else _TO_GO_ON
    fit_on = partial(fit_model, console=console, command=command, to_go_on=to_go_on)
    tell = partial(_tell, console=console, config=config, fits=fits)
    tell(first)
    folder = fit_on(first, resume=resume, overwrite=overwrite)
    for fit in others:
        tell(fit)
        # What is at home by now is what the fit before has left there.
        folder = fit_on(fit, overwrite=True)
    _measure(config, recipe, folder, console)
    return folder


def _tell(
    fit: FitModelConfig, console: Console, config: BuildConfig, fits: list[FitModelConfig]
) -> None:
    number, kind = fits.index(fit) + 1, {"cpu": "CPU", "gpu": "GPU"}[config.kind]
    say(console, f"fit {number} of {len(fits)} on a {kind}, {fit.training.steps} steps:")


def _left(fits: list[FitModelConfig]) -> list[FitModelConfig]:
    """Leaves out the fits that are done and were followed by another; there is always one left."""
    followed = [number for number, fit in enumerate(fits) if fit.run_folder.config.exists()]
    return fits[max(followed, default=0) :]


def _measure(config: BuildConfig, recipe: Recipe, folder: Path, console: Console) -> None:
    data = config.folder / "replay"
    players = list(dict.fromkeys(collection.policy for collection in recipe.collections))
    command = ["dreamenv", "evaluate-model", config.name, "--data", str(data), "--players"]
    fidelity = evaluate_model(
        str(folder),  # a folder here of its name would be another
        data,
        FidelityConfig(),
        console,
        out=folder,
        device=config.device,
        players={name: partial(load_player, name) for name in players},
        command=shlex.join([*command, *players]),
    )
    card = folder / CARD_FILE
    with atomic_file(card) as beside:
        beside.write_text(card.read_text() + fidelity_section(fidelity))


def _collect(recipe: Recipe, folder: Path, console: Console) -> None:
    replay = Replay.open_or_create(folder, describe(recipe.environment))
    print_damaged(replay, console)
    with stop_on_signal() as stop:
        for collection in recipe.collections:
            if Collections.read(folder).has_complete(collection):
                continue
            say(console, f"{collection.policy}, ε = {collection.epsilon}:")
            collect_with_progress(replay, collection, console, stop, _TO_GO_ON)
