"""Fitting a world model to a real environment, from nothing to a folder that dreams are made of."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import imageio.v3 as imageio
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter
from tyro.conf import arg

from dreamenv.config import Config
from dreamenv.data import Replay, from_minari
from dreamenv.data.disk import naming_a_full_disk
from dreamenv.devices import AUTO, resolve_device
from dreamenv.dream.contexts import CONTEXTS_FILE, Contexts
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import atomic_file
from dreamenv.models.denoiser import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig
from dreamenv.real import describe
from dreamenv.training.checkpoint import load_checkpoint, save_checkpoint
from dreamenv.training.collect import CollectConfig
from dreamenv.training.collect_run import collect_with_progress, print_damaged
from dreamenv.training.model_card import figures, model_card
from dreamenv.training.policies import RANDOM
from dreamenv.training.progress import ProgressBar, format_seconds
from dreamenv.training.run_folder import RunFolder, home
from dreamenv.training.stopping import Stopped, StopRequest, stop_on_signal
from dreamenv.training.validation import Validation, side_by_side, validate
from dreamenv.training.world_model import (
    Batches,
    Losses,
    TrainingConfig,
    WorldModelTrainer,
    measure_change,
)

_STEPS_A_LOG = 10
_NUM_CONTEXTS = 512


@dataclass(frozen=True)
class FitModelConfig(Config):
    """What a world model is fitted to, and how.

    Attributes:
        env: The id of the real environment, such as ALE/Pong-v5. With a dataset it may be left
            out.
        name: Of the world model, in $DREAMENV_HOME; by default the game's.
        out: Folder of the run; by default runs/NAME.
        dataset: Learn from these episodes and play none: the folder of a replay, or the id or
            folder of a Minari dataset.
        collect_steps: Steps to play.
        policy: Who plays: random, the .zip of a saved agent, or module:function.
        epsilon: Probability of a random action instead of the player's.
        num_envs: Games played at once.
        size: Height and width of a frame, or one number for both.
        seed: Of games, batches and noise.
        device: Where to fit: auto (CUDA, then MPS, then the CPU) or one that torch knows.
        validate_every: Training steps between validations.
        checkpoint_every: Training steps between checkpoints.
        training: How the networks are fitted. On the command line its settings stand by
            themselves, as in --steps.
        denoiser: Architecture and noise of the denoiser.
        reward_end: Architecture of the reward and termination heads.
        sampler: Noise levels that the next frame is drawn with.
    """

    env: str | None = None
    name: str | None = None
    out: str | None = None
    dataset: str | None = None
    collect_steps: int = 10_000
    policy: str = RANDOM
    epsilon: float = 0.0
    num_envs: int = 8
    size: tuple[int, ...] = (64,)
    seed: int = 0
    device: str = AUTO
    validate_every: int = 1000
    checkpoint_every: int = 250
    training: Annotated[TrainingConfig, arg(name="")] = field(default_factory=TrainingConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if len(self.size) not in (1, 2):
            raise ConfigError(f"size is {self.size}; give one number, or height and width")
        for name in ("validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        self.collection  # noqa: B018 - checks the settings of the collection

    @property
    def collection(self) -> CollectConfig:
        """What is collected."""
        return CollectConfig(
            steps=self.collect_steps,
            policy=self.policy,
            epsilon=self.epsilon,
            num_envs=self.num_envs,
            seed=self.seed,
        )

    @property
    def height_width(self) -> tuple[int, int]:
        """The size of a frame."""
        return self.size[0], self.size[-1]

    @property
    def world_name(self) -> str:
        """The name of the world model."""
        return self.name or short_name(self.env or str(self.dataset))

    @property
    def run_folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(Path(self.out or Path("runs") / self.world_name))


def check_source(config: FitModelConfig) -> None:
    """Checks that there is something to learn from.

    Raises:
        ConfigError: Neither an environment nor a dataset is named.
    """
    if config.env is None and config.dataset is None:
        raise ConfigError("there is nothing to learn from; give --env or --dataset")


def short_name(env_id: str) -> str:
    """Returns the game's name out of an id: `ALE/Pong-v5` gives `Pong`."""
    return Path(env_id).name.split("-v")[0]


def fit_model(
    config: FitModelConfig,
    console: Console,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
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

    Returns:
        The folder of the world model.

    Raises:
        Stopped: SIGINT or SIGTERM came; what is needed to go on was kept.
        DreamenvError: It cannot be done; what was collected is kept.
    """
    check_source(config)
    device = resolve_device(config.device)
    folder = home() / config.world_name
    if folder.exists() and not (resume or overwrite):
        raise FormatError(
            f"{folder} is there already; add --overwrite to replace it, or --name to keep both"
        )
    run = config.run_folder
    run.begin(config, resume=resume, overwrite=overwrite)
    with stop_on_signal() as stop, naming_a_full_disk(run.path):
        replay = _obtain_replay(config, run, console, stop)
        fit = _Fit(config, run, replay, device, console, command)
        fit.go(stop)
        fit.save(run.world_model)
        fit.save(folder)
    fit.show_results(folder)
    return folder


def architecture(config: FitModelConfig, environment: EnvironmentSpec) -> WorldModelConfig:
    """Returns the architecture of a world model of that environment."""
    return WorldModelConfig(
        num_actions=environment.num_actions,
        obs_shape=environment.obs_shape,
        denoiser=config.denoiser,
        reward_end=config.reward_end,
        sampler=config.sampler,
    )


def _obtain_replay(
    config: FitModelConfig, run: RunFolder, console: Console, stop: StopRequest
) -> Replay:
    if config.dataset is not None:
        replay = open_dataset(config, run.replay)
    else:
        assert config.env is not None
        replay = Replay.open_or_create(run.replay, describe(config.env, config.height_width))
        collect_with_progress(replay, config.collection, console, stop)
    print_damaged(replay, console)
    return replay


def open_dataset(config: FitModelConfig, imported: Path) -> Replay:
    """Opens the dataset to learn from.

    Args:
        config: Names it.
        imported: Where a Minari dataset is imported to, once. A replay is read where it is.

    Raises:
        InputError: There is no such dataset, or it has not images and discrete actions.
        FormatError: It cannot be read, or is of another environment.
    """
    assert config.dataset is not None
    folder = Path(config.dataset)
    if (folder / "index.json").exists():
        replay = Replay.open(folder)
    elif (imported / "index.json").exists():
        replay = Replay.open(imported)
    else:
        replay = from_minari(config.dataset, imported)
    if config.env is not None and config.env != replay.environment.id:
        raise FormatError(
            f"{config.dataset} is a dataset of another environment, {replay.environment.id}; name "
            f"one of {config.env}, or leave out --env"
        )
    return replay


class _Fit:
    """The fitting of one run: its trainer, its batches, and what it reports."""

    def __init__(
        self,
        config: FitModelConfig,
        run: RunFolder,
        replay: Replay,
        device: torch.device,
        console: Console,
        command: str,
    ) -> None:
        self._config = config
        self._run = run
        self._replay = replay
        self._device = device
        self._console = console
        self._command = command
        self._validation: Validation | None = None
        self._waited = self._spent = 0.0
        torch.manual_seed(config.seed)
        origin = Origin(environment=replay.environment, fit={"command": command})
        world_model = WorldModel(architecture(config, replay.environment), origin).to(device)
        measure_change(world_model, replay, device)
        self._batches = Batches(replay, world_model, config.training, device, config.seed)
        self._trainer = WorldModelTrainer(world_model, config.training, device, config.seed)
        state = load_checkpoint(run.checkpoint, device)
        if state is not None:
            self._trainer.load_state_dict(state["trainer"])
            self._batches.load_state_dict(state["batches"])
        self._has_held_out = any(info.held_out for info in replay.infos)
        if not self._has_held_out:
            console.print("one episode only: nothing is held out, and nothing will be validated")

    def go(self, stop: StopRequest) -> None:
        """Trains to the last step, and validates there if nowhere else."""
        total, trainer = self._config.training.steps, self._trainer
        first = trainer.step_count
        writer = SummaryWriter(str(self._run.path), purge_step=first + 1)
        recent: list[Losses] = []
        with writer, ProgressBar(self._console, "fit", total, first) as bar:
            if self._config.training.compile and first < total:
                self._console.print("compiling: the first steps take minutes")
            while trainer.step_count < total:
                recent.append(self._step())
                step = trainer.step_count
                if step % _STEPS_A_LOG == 0 or step == total:
                    bar.update(step, _log(writer, step, recent))
                    recent.clear()
                if step % self._config.checkpoint_every == 0 or step == total or stop():
                    self._save_checkpoint()
                if stop():
                    raise Stopped(f"stopped at step {step} of {total}: add --resume to go on")
                if step % self._config.validate_every == 0 and step < total:
                    self._validate(writer)
            self._validate(writer)

    def save(self, folder: Path) -> None:
        """Saves the world model with its card and its contexts."""
        model = self._trainer.fitted
        length = model.config.denoiser.context_length
        quarters = self._config.training.quarters
        contexts = Contexts.draw(
            self._replay, length, _NUM_CONTEXTS, weights=quarters, seed=self._config.seed
        )
        name = self._config.world_name
        card = model_card(name, self._command, model, self._replay, self._validation)

        def write_the_rest(staging: Path) -> None:
            contexts.save(staging / CONTEXTS_FILE)
            (staging / "README.md").write_text(card)

        model.save(folder, also=write_the_rest)

    def show_results(self, folder: Path) -> None:
        """Prints the closing table and what to type next."""
        table = Table("figure", "value", title=f"{self._config.world_name}, held-out episodes")
        for label, value in figures(self._validation) if self._validation else []:
            table.add_row(label, value)
        if self._spent > 0:
            table.add_row("fitting took", format_seconds(self._spent))
            table.add_row("of it, waiting for batches", f"{self._waited / self._spent:.2%}")
        self._console.print(table)
        self._console.print(f"world model: {folder}", highlight=False, soft_wrap=True)
        self._console.print(
            f"next: tensorboard --logdir {self._run.path}", highlight=False, soft_wrap=True
        )

    def _step(self) -> Losses:
        before = time.perf_counter()
        batches = self._batches.draw()
        drawn = time.perf_counter()
        losses = self._trainer.step(*batches)
        self._waited += drawn - before
        self._spent += time.perf_counter() - before
        return losses

    def _save_checkpoint(self) -> None:
        state: dict[str, Any] = {
            "trainer": self._trainer.state_dict(),
            "batches": self._batches.state_dict(),
        }
        save_checkpoint(self._run.checkpoint, state)

    def _validate(self, writer: SummaryWriter) -> None:
        if not self._has_held_out:
            return
        model, step = self._trainer.fitted.eval(), self._trainer.step_count
        self._validation = validate(model, self._replay, self._device)
        self._run.evaluation.mkdir(exist_ok=True)
        picture = side_by_side(model, self._replay, self._device)
        _write_picture(self._run.evaluation / f"step-{step:06d}.png", picture)
        with atomic_file(self._run.evaluation / f"step-{step:06d}.json") as beside:
            beside.write_text(json.dumps(self._validation.to_dict(), indent=2) + "\n")
        writer.add_image("validation/real_above_dreamt", picture, step)
        if self._validation.psnr is not None:
            writer.add_scalar("validation/psnr", self._validation.psnr, step)
        for level, loss in self._validation.losses:
            writer.add_scalar(f"validation/denoising_loss_at_{level:.3g}", loss, step)
        psnr = dict(figures(self._validation))["next frame, PSNR"]
        self._console.print(f"step {step}: next frame, PSNR {psnr}", highlight=False)


def _log(writer: SummaryWriter, step: int, recent: list[Losses]) -> str:
    """Writes the mean of recent losses to the curves, and returns them as text."""
    means = torch.stack([torch.stack(losses) for losses in recent]).mean(dim=0).tolist()
    for name, mean in zip(Losses._fields, means, strict=True):
        writer.add_scalar(f"loss/{name}", mean, step)
    return ", ".join(f"{name} {x:.4f}" for name, x in zip(Losses._fields, means, strict=True))


def _write_picture(path: Path, picture: torch.Tensor) -> None:
    """Writes uint8 [C, H, W] as PNG: one channel as grey, three or four as they are, else one."""
    channels = picture if len(picture) in (3, 4) else picture[:1].expand(3, -1, -1)
    with atomic_file(path) as beside:
        imageio.imwrite(beside, channels.permute(1, 2, 0).numpy(), extension=".png")
