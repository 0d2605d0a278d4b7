"""The figures of `dreamenv bench`: how fast things are, not how good agents become."""

from dataclasses import dataclass, field

from dreamenv.config import Config
from dreamenv.devices import AUTO
from dreamenv.errors import ConfigError
from dreamenv.evaluation.dream_speed import DreamSpeed, DreamSpeedConfig
from dreamenv.evaluation.face_speed import FaceSpeed
from dreamenv.evaluation.machine import Ceiling, Machine
from dreamenv.evaluation.world_folder import world_folder, world_name
from dreamenv.training.presets import PresetName
from dreamenv.training.training_speed import TrainingSpeed


@dataclass(frozen=True)
class SpeedConfig(Config):
    """What is timed.

    Attributes:
        preset: The architecture, with random weights, and the settings of training.
        world_model: A world model in the place of the preset's: its folder, or its name or id.
        dream: Its dreams.
        training: Whether steps of training are timed as well.
        faces: At how many dreams their faces are timed beside the core; None for not at all.
        device: Where to compute: auto (CUDA, then MPS, then the CPU) or one by its name.
    """

    preset: PresetName = "small"
    world_model: str | None = None
    dream: DreamSpeedConfig = field(default_factory=DreamSpeedConfig)
    training: bool = True
    faces: int | None = None
    device: str = AUTO

    def __post_init__(self) -> None:
        if self.faces is not None and self.faces < 1:
            raise ConfigError(f"faces is {self.faces}; it must be at least 1 dream")

    @property
    def name(self) -> str:
        """The name of the world model, or of the preset.

        Raises:
            FormatError: There is no such world model.
        """
        return (
            self.preset if self.world_model is None else world_name(world_folder(self.world_model))
        )


@dataclass(frozen=True)
class Speed(Config):
    """How fast a world model dreams and its networks train, and what that was measured on.

    Attributes:
        dreamenv: The version.
        command: The command line; empty where there was none.
        name: Of the world model, or of the preset.
        settings: What was timed, and how.
        machine: Where.
        dtype: Of products on the fast path. The reference path computes in float32, contiguous,
            eager, without a graph.
        obs_shape: C, H, W of a frame.
        num_actions: The number of actions.
        parameters: How many weights the world model has.
        denoiser_evaluations: How often the denoiser is evaluated for a frame.
        flops_per_frame: Of denoiser and heads: products and convolutions, two a multiplication
            with its addition.
        ceiling: What the machine reaches in products of matrices of that type.
        dream: One row for each number of dreams.
        training: One row for each network; none where they were not timed.
        faces: One row for each face of the dream; likewise.
    """

    dreamenv: str
    command: str
    name: str
    settings: SpeedConfig
    machine: Machine
    dtype: str
    obs_shape: tuple[int, int, int]
    num_actions: int
    parameters: int
    denoiser_evaluations: int
    flops_per_frame: int
    ceiling: Ceiling
    dream: tuple[DreamSpeed, ...]
    training: tuple[TrainingSpeed, ...]
    faces: tuple[FaceSpeed, ...] = ()
