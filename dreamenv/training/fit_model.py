"""Fitting a world model to a real environment, from nothing to a folder that dreams are made of."""

import hashlib
import json
import math
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from dreamenv.data import Replay
from dreamenv.data.disk import naming_disk_errors
from dreamenv.devices import resolve_device
from dreamenv.dream.contexts import Contexts
from dreamenv.errors import ConfigError, FormatError
from dreamenv.evaluation.evaluate_model import JSON_FILE, PICTURE_FILE
from dreamenv.evaluation.world_folder import world_folder
from dreamenv.files import atomic_file
from dreamenv.models.actor_critic_file import AGENT_FILE
from dreamenv.models.world_model import Origin
from dreamenv.progress import ProgressBar, format_seconds, say
from dreamenv.registration import NAMESPACE, home, register_ids
from dreamenv.training.batches import Batches, check_dreamt_length
from dreamenv.training.beginning import check_beginning, first_model, how_it_was_fit_before
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.favourites import favour_by_weight, favour_the_hardest
from dreamenv.training.fit_config import BY_EPISODE, BY_STEP, FitModelConfig
from dreamenv.training.model_card import CARD_FILE, figures, format_psnr, model_card
from dreamenv.training.named_function import load_function
from dreamenv.training.source import check_source, obtain_replay
from dreamenv.training.stopping import Stopped, StopRequest, stop_on_signal
from dreamenv.training.validation import Validation, side_by_side, validate
from dreamenv.training.world_model import Losses, WorldModelTrainer, check_converges

_STEPS_A_LOG = 10
_FAVOURITES, _CONTEXTS_BY = "favourites", "contexts_by"  # the settings that name a function
_OF_ANOTHER = (AGENT_FILE, JSON_FILE, PICTURE_FILE)  # what no fit writes, of the world before
_EQUAL_QUARTERS = (0.25, 0.25, 0.25, 0.25)


def fit_model(
    config: FitModelConfig,
    console: Console,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    to_go_on: str = "add --resume to go on",
) -> Path:
    """Collects experience, fits the world model to it, and saves it.

    Killed at any moment, it goes on with `resume` from the last checkpoint; on a CPU, to the same
    weights, bit for bit, that it would have had.

    Args:
        config: What, and how.
        console: Where progress is shown.
        resume: Go on with the run that was begun in the folder.
        overwrite: Replace a run in the folder, and a world model of that name.
        command: The command line, for the model card.
        to_go_on: What is to be done where it was stopped, in words.

    Returns:
        The folder of the world model.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    check_plan(config, resume=resume, overwrite=overwrite)
    device = resolve_device(config.device)
    run, folder = config.run_folder, home() / config.world_name
    with naming_disk_errors(home()):
        # That nothing can be saved is better known before fitting than after.
        home().mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home()).close()
    with stop_on_signal() as stop, naming_disk_errors(run.path):
        replay = obtain_replay(config, console, stop, resume=resume)
        fit = _Fit(config, replay, device, console, command, to_go_on)
        # Before hours of fitting: what names the beginnings may be wrong.
        contexts = fit.draw_contexts(stop)
        fit.go(stop)
        fit.save(contexts, run.world_model, folder)
    register_ids()
    fit.show_results(folder)
    return folder


def check_plan(
    config: FitModelConfig, *, resume: bool, overwrite: bool, to_keep_both: str = "--name"
) -> None:
    """Checks, without changing anything, that a world model can be fitted as configured.

    Args:
        config: What, and how.
        resume: Go on with the run that was begun in the folder.
        overwrite: Replace a run in the folder, and a world model of that name.
        to_keep_both: What would name another place for the world model, in words.

    Raises:
        ConfigError: There is nothing to learn from, the run was begun with other settings, or
            some do not go together.
        InputError: There is no function of a name that is given.
        FormatError: What would be written is there already.
        DreamenvError: The disk does not let a file be read.
    """
    with naming_disk_errors(home()):
        check_source(config)
        check_beginning(config)
        check_dreamt_length(config.training, config.denoiser.context_length)
        _check_functions(config)
        config.run_folder.check(config, resume=resume, overwrite=overwrite)
        folder = home() / config.world_name
        is_taken = folder.exists() and any(folder.iterdir())
        if is_taken and not (resume or overwrite):
            raise FormatError(
                f"{folder} is there already; add --overwrite to replace it, or {to_keep_both} to "
                f"keep both"
            )
        if overwrite:
            _check_keeps_what_is_needed(config)


def _check_keeps_what_is_needed(config: FitModelConfig) -> None:
    needed = [] if config.dataset is None else [Path(config.dataset)]
    if config.begin_with is not None:
        needed.append(world_folder(config.begin_with))
    for path in needed:
        if config.run_folder.path.resolve() in path.resolve().parents:
            raise FormatError(f"{path} is in the run that --overwrite would remove; add --out")


def _check_functions(config: FitModelConfig) -> None:
    if config.training.favourites is not None:
        load_function(config.training.favourites, _FAVOURITES)
    if config.contexts_by not in (BY_STEP, BY_EPISODE):
        load_function(config.contexts_by, _CONTEXTS_BY)


class _Fit:
    """The fitting of one run: its trainer, its batches, and what it reports."""

    def __init__(
        self,
        config: FitModelConfig,
        replay: Replay,
        device: torch.device,
        console: Console,
        command: str,
        to_go_on: str,
    ) -> None:
        self._config = config
        self._run = config.run_folder
        self._replay = replay
        self._device = device
        self._console = console
        self._command = command
        self._to_go_on = to_go_on
        self._validation: Validation | None = None
        self._last_loss: torch.Tensor | None = None
        self._waited = self._spent = 0.0
        world_model = first_model(config, replay, device)
        self._batches = Batches(replay, world_model, config.training, device, config.seed)
        self._trainer = WorldModelTrainer(
            world_model,
            config.training,
            device,
            config.seed,
            only_choices=config.only_choices,
        )
        state = load_checkpoint(self._run.checkpoint)
        if state is not None:
            self._check_same_data(state["data"])
            self._trainer.load_state_dict(state["trainer"])
            self._batches.load_state_dict(state["batches"])
        self._has_held_out = any(info.held_out for info in replay.infos)
        if not self._has_held_out:
            say(console, "no episode is held out, so nothing will be validated: collect more")

    def draw_contexts(self, stop: StopRequest) -> Contexts:
        """Draws where dreams begin."""
        config, by = self._config, self._config.contexts_by
        favoured: torch.Tensor | None = None
        if by not in (BY_STEP, BY_EPISODE):
            say(self._console, f"looking for beginnings by {by}")
            favoured = self._favoured(by, _CONTEXTS_BY, stop)
        return Contexts.draw(
            self._replay,
            config.denoiser.context_length,
            config.contexts,
            device=self._device,
            weights=_EQUAL_QUARTERS if by == BY_EPISODE else config.training.quarters,
            favoured=favoured,
            seed=config.seed,
        )

    def go(self, stop: StopRequest) -> None:
        """Trains to the last step, and validates there if nowhere else."""
        total, trainer = self._config.training.steps, self._trainer
        first = trainer.step_count
        started = time.perf_counter()
        writer = SummaryWriter(str(self._run.path), purge_step=first + 1)
        recent: list[Losses] = []
        with writer, ProgressBar(self._console, "fit", total, first) as bar:
            if self._config.training.compile and first < total:
                say(self._console, "compiling: the first steps take minutes")
            if trainer.step_count == 0:
                self._favour_by_weight(stop)
            while trainer.step_count < total:
                if self._batches.wants_favourites:
                    self._favour_the_hardest(stop)
                recent.append(self._step())
                step = trainer.step_count
                if step % _STEPS_A_LOG == 0 or step == total:
                    # Reading the losses waits for the device: only then is the time known.
                    bar.update(step, _log(writer, step, recent))
                    check_converges(self._last_loss, step)
                    recent.clear()
                    self._spent += time.perf_counter() - started
                    started = time.perf_counter()
                self._leave_if_asked(stop)
                if step % self._config.checkpoint_every == 0 or step == total:
                    self._save_checkpoint()
                if step % self._config.validate_every == 0 and step < total:
                    before = time.perf_counter()
                    self._validate(writer)
                    started += time.perf_counter() - before
            self._validate(writer)

    def _favour_by_weight(self, stop: StopRequest) -> None:
        name = self._config.training.favourites
        if name is None:
            return
        say(self._console, f"weighing the steps by {name}")
        self._batches.favour(self._favoured(name, _FAVOURITES, stop))

    def _favoured(self, name: str, setting: str, stop: StopRequest) -> torch.Tensor:
        """Returns how often each step is to be drawn, as the function of that name says."""
        return favour_by_weight(
            self._replay,
            load_function(name, setting),
            setting,
            on_episode=lambda: self._leave_if_asked(stop),
        )

    def _favour_the_hardest(self, stop: StopRequest) -> None:
        config, step = self._config, self._trainer.step_count
        say(self._console, f"step {step}: measuring what is hard to predict")
        probabilities = favour_the_hardest(
            self._trainer.fitted.eval(),
            self._replay,
            config.training.favoured_share,
            seed=config.seed,
            on_batch=lambda: self._leave_if_asked(stop),
        )
        self._batches.favour(probabilities)

    def _leave_if_asked(self, stop: StopRequest) -> None:
        if not stop():
            return
        self._save_checkpoint()
        step, total = self._trainer.step_count, self._config.training.steps
        raise Stopped(f"stopped at step {step} of {total}: {self._to_go_on}")

    def save(self, contexts: Contexts, *folders: Path) -> None:
        """Saves the world model with its card and where its dreams begin."""
        model = self._trainer.fitted
        model.origin = Origin(environment=self._replay.environment, fit=self._how_it_was_fit())
        name = self._config.world_name
        card = model_card(name, self._command, model, self._replay, self._validation)

        def write_the_rest(staging: Path) -> None:
            contexts.save(staging)
            (staging / CARD_FILE).write_text(card)

        for folder in folders:
            with naming_disk_errors(folder):
                dtype = getattr(torch, self._config.weights)
                model.save(folder, dtype=dtype, also=write_the_rest)
                for name in _OF_ANOTHER:
                    (folder / name).unlink(missing_ok=True)

    def _check_same_data(self, begun_with: str) -> None:
        if begun_with != _fingerprint(self._replay):
            raise ConfigError(
                f"{self._replay.folder} has changed since the run was begun; restore its episodes, "
                f"or begin another run"
            )

    def _how_it_was_fit(self) -> dict[str, Any]:
        validation = None if self._validation is None else self._validation.to_dict()
        return {
            "dreamenv": version("dreamenv"),
            "command": self._command,
            "settings": self._config.to_dict(),
            "begun_with": how_it_was_fit_before(self._config),
            "steps_in_data": self._replay.num_steps,
            "episodes_in_data": self._replay.num_episodes,
            "validation": validation,
        }

    def show_results(self, folder: Path) -> None:
        """Prints the closing table and what to type next."""
        table = Table("figure", "value", title=f"{self._config.world_name}, held-out episodes")
        for label, value in figures(self._validation) if self._validation else []:
            table.add_row(label, value)
        if self._spent > 0:
            table.add_row("fitting took", format_seconds(self._spent))
            table.add_row("of it, waiting for batches", f"{self._waited / self._spent:.2%}")
        self._console.print(table)
        say(self._console, f"world model: {folder}")
        say(self._console, f"curves: tensorboard --logdir {self._run.path}")
        say(self._console, f'next: gym.make("{NAMESPACE}/{folder.name}-v0")')

    def _step(self) -> Losses:
        before = time.perf_counter()
        batches = self._batches.draw()
        self._waited += time.perf_counter() - before
        losses = self._trainer.step(*batches)
        self._last_loss = losses.denoiser
        return losses

    def _save_checkpoint(self) -> None:
        check_converges(self._last_loss, self._trainer.step_count)
        state: dict[str, Any] = {
            "trainer": self._trainer.state_dict(),
            "batches": self._batches.state_dict(),
            "data": _fingerprint(self._replay),
        }
        save_checkpoint(self._run.checkpoint, state)

    def _validate(self, writer: SummaryWriter) -> None:
        if not self._has_held_out:
            return
        model, step = self._trainer.fitted.eval(), self._trainer.step_count
        self._validation = validate(model, self._replay, self._device)
        self._run.evaluation.mkdir(exist_ok=True)
        picture = _displayable(side_by_side(model, self._replay, self._device))
        with atomic_file(self._run.evaluation / f"step-{step:06d}.png") as beside:
            imageio.imwrite(beside, picture.permute(1, 2, 0).numpy(), extension=".png")
        with atomic_file(self._run.evaluation / f"step-{step:06d}.json") as beside:
            text = json.dumps(self._validation.to_dict(), indent=2, allow_nan=False)
            beside.write_text(text + "\n")
        writer.add_image("validation/real_above_dreamt", picture, step)
        if self._validation.psnr is not None:
            writer.add_scalar("validation/psnr", self._validation.psnr, step)
        for level, loss in self._validation.losses:
            if loss is not None:
                writer.add_scalar(f"validation/denoising_loss_at_{level:.3g}", loss, step)
        say(self._console, f"step {step}: next frame, PSNR {format_psnr(self._validation)}")


def _log(writer: SummaryWriter, step: int, recent: list[Losses]) -> str:
    """Writes the mean of recent losses to the curves, and returns them as text."""
    means = torch.stack([torch.stack(losses) for losses in recent]).nanmean(dim=0).tolist()
    known = {name: x for name, x in zip(Losses._fields, means, strict=True) if not math.isnan(x)}
    for name, mean in known.items():
        writer.add_scalar(f"loss/{name}", mean, step)
    return ", ".join(f"{name} {mean:.4f}" for name, mean in known.items())


def _displayable(picture: torch.Tensor) -> torch.Tensor:
    """Makes a picture, uint8 [C, H, W], one of three or four channels: as it is, or its first."""
    return picture if len(picture) in (3, 4) else picture[:1].expand(3, -1, -1)


def _fingerprint(replay: Replay) -> str:
    """Says which episodes a replay has, so that a change is noticed."""
    episodes = [(info.number, info.length, info.total_reward) for info in replay.infos]
    return hashlib.sha256(repr(episodes).encode()).hexdigest()
