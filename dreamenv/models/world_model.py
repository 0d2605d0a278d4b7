"""The world model: denoiser, sampler and reward-and-termination model in one, and on disk."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from dreamenv.config import Config
from dreamenv.devices import computes_in_bf16
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError, InputError
from dreamenv.files import atomic_folder_update, committed_path
from dreamenv.models.actor_critic import ActorCriticConfig
from dreamenv.models.compiling import compile_network
from dreamenv.models.denoiser import Denoiser
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.frames import to_float, to_uint8
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndConfig, RewardEndModel, RewardEndOutput
from dreamenv.models.sampler import SamplerConfig, sample
from dreamenv.models.skeleton import skeleton
from dreamenv.models.weights import read_weights, write_weights
from dreamenv.share import WHOLE, Share

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "world_model.safetensors"

# Bytes of the widest activation that are faster to go through than more. Of atari100k, 32 dreams
# on two cores with 32 MiB of cache: 8 MiB 12.1 frames a second, 16 MiB 12.5, 32 MiB 10.3.
_CACHE = 8 * 2**20


@dataclass(frozen=True)
class WorldModelConfig(Config):
    """Architecture of a world model. The defaults are `atari100k`.

    Attributes:
        num_actions: The number of discrete actions.
        obs_shape: C, H, W of a frame.
        denoiser: The next frame.
        reward_end: Its reward, and whether it ends the episode.
        sampler: The noise levels it is drawn with where nothing else is asked for.
    """

    num_actions: int
    obs_shape: tuple[int, int, int] = (3, 64, 64)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if self.num_actions < 1:
            raise ConfigError(f"num_actions is {self.num_actions}; it must be at least 1")
        if len(self.obs_shape) != 3 or min(self.obs_shape) < 1:
            raise ConfigError(
                f"obs_shape is {self.obs_shape}; it must be channels, height and width, each at "
                f"least 1"
            )


@dataclass(frozen=True)
class Origin(Config):
    """Where a world model comes from.

    Attributes:
        environment: The real environment it dreams of.
        fit: How it was fit: settings, counts, figures. JSON values.
        licence: Of the weights, as an SPDX identifier.
        agent: Architecture of the actor-critic that is in its folder; None where none is.
    """

    environment: EnvironmentSpec | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    licence: str | None = None
    agent: ActorCriticConfig | None = None


@dataclass(frozen=True)
class _CompiledNetworks:
    """The networks of a world model as they are called where they are compiled."""

    denoiser: Callable[..., Tensor]
    modulate: Callable[..., Tensor]
    reward_end: Callable[..., RewardEndOutput]


class WorldModel(nn.Module):
    """A learned environment: the next frame, its reward and its end, from the past.

    Frames are uint8 here; the networks inside compute on floats in [-1, 1].

    Attributes:
        bf16: Whether `next_obs` and `reward_and_end` compute products in bf16. It is not saved.
        in_parts: Whether a CPU draws frames for a few dreams after the other, as many as its cache
            holds; but for rounding, the frames are the same. Nor is this saved.

    Args:
        config: The architecture.
        origin: Where it comes from.

    Raises:
        ConfigError: The environment it comes from has other frames or actions.
    """

    def __init__(self, config: WorldModelConfig, origin: Origin | None = None) -> None:
        super().__init__()
        self.config = config
        self.origin = origin or Origin()
        self.bf16 = False
        self.in_parts = True
        self._compiled: _CompiledNetworks | None = None
        _check_environment(config, self.origin.environment)
        channels, *size = config.obs_shape
        self.denoiser = Denoiser(config.denoiser, channels, config.num_actions, (size[0], size[1]))
        self.reward_end = RewardEndModel(config.reward_end, config.obs_shape, config.num_actions)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def is_compiled(self) -> bool:
        """Whether it comes from `compiled`."""
        return self._compiled is not None

    def compiled(self) -> Self:
        """Returns this world model with networks that are compiled when they are first asked.

        They are these very networks: what they learn, both know. It takes a minute or so for each
        number of dreams, and on a CPU a C++ compiler; without one the first frame raises
        ConfigError.
        """
        twin = copy.copy(self)
        twin._compiled = _CompiledNetworks(
            denoiser=compile_network(self.denoiser),
            modulate=compile_network(self.denoiser.modulate),
            reward_end=compile_network(self.reward_end),
        )
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # Of a copy the compiled networks would still be those of the original.
        return {**self.__dict__, "_compiled": None}

    @torch.no_grad()
    def next_obs(
        self,
        context: Tensor,
        actions: Tensor,
        *,
        since_reward: Tensor | None = None,
        sampler: SamplerConfig | None = None,
        generator: torch.Generator | None = None,
        share: Share = WHOLE,
    ) -> Tensor:
        """Draws the next frame of N dreams.

        Args:
            context: uint8 [N, L, C, H, W], the last L frames, oldest first.
            actions: int64 [N, L], the action taken at each of them; the last is the one whose
                outcome is drawn.
            since_reward: int64 [N], how many steps before the last frame the last reward came,
                with its sign (1 or -1 for the step that led to it); None where there was none.
                Only choices with a `reward_memory` look at it.
            sampler: The noise levels; the model's own if None.
            generator: Where the random numbers come from, on the model's device.
            share: Which dreams of a larger number these are.

        Returns:
            uint8 [N, C, H, W].

        Raises:
            InputError: A tensor has another type or shape.
        """
        rows, length = len(context), self.config.denoiser.context_length
        _check_frames("context", context, (rows, length, *self.config.obs_shape))
        _check_actions(actions, (rows, length))
        since = actions.new_zeros(rows) if since_reward is None else since_reward
        _check_since_reward(since, rows)
        past = to_float(context)
        sampler = sampler or self.config.sampler
        denoiser = self.denoiser if self._compiled is None else self._compiled.denoiser
        at_once = self._rows_at_once(rows)

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            told = past, actions, since, chance, *next(modulations)
            parts = (each.split(at_once) for each in (noisy, sigma, *told))
            return torch.cat([denoiser(*part) for part in zip(*parts, strict=True)])

        chance = self._draw_chance(rows, generator, share)
        draw_noise = self._noise_source(rows, generator, share)
        with self._autocast():
            modulations = self._modulations(sampler.evaluated_levels, actions)
            trajectory = sample(denoise, draw_noise(), sampler, draw_noise)
        return to_uint8(self.denoiser.to_frame(trajectory[-1], past[:, -1]))

    @torch.no_grad()
    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        """Predicts rewards and ends of T steps of N dreams.

        Args:
            obs: uint8 [N, T, C, H, W], the frames before each step.
            actions: int64 [N, T].
            next_obs: uint8 [N, T, C, H, W], the frames after each step.
            state: The LSTM's state before the first of them; zeros if None.

        Raises:
            InputError: A tensor has another type or shape.
        """
        rows_and_steps = tuple(obs.shape[:2])
        _check_frames("obs", obs, (*rows_and_steps, *self.config.obs_shape))
        _check_frames("next_obs", next_obs, (*rows_and_steps, *self.config.obs_shape))
        _check_actions(actions, rows_and_steps)
        heads = self.reward_end if self._compiled is None else self._compiled.reward_end
        with self._autocast():
            output: RewardEndOutput = heads(to_float(obs), actions, to_float(next_obs), state)
        return output

    def save(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        also: Callable[[Path], None] | None = None,
    ) -> None:
        """Writes the world model's folder; a save that is killed leaves the old one whole.

        Other files of the folder stay as they are.

        Args:
            folder: Made where it is not there.
            dtype: Type of the weights on disk; `load` turns them into float32.
            also: Writes further files, such as the model card, into the folder that it is given;
                they appear together with the model.
        """
        description = {
            "format_version": FORMAT_VERSION,
            "architecture": self.config.to_dict(),
            **self.origin.to_dict(),
        }
        with atomic_folder_update(Path(folder)) as staging:
            text = json.dumps(description, indent=2, allow_nan=False) + "\n"
            (staging / CONFIG_FILE).write_text(text)
            write_weights(self, staging / WEIGHTS_FILE, dtype)
            if also is not None:
                also(staging)

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", bf16: bool | None = None
    ) -> Self:
        """Reads a world model's folder. Nothing in it can run code.

        Every key and shape is checked against the configuration before memory is taken.

        Args:
            folder: As `save` left it.
            device: Where the weights go.
            bf16: Whether products are computed in bf16; None for where the device has instructions
                for it.

        Returns:
            The world model, in evaluation mode, its weights float32; on a CPU, and where products
            are computed in bf16, with their channels last.

        Raises:
            FormatError: The folder is missing, foreign, damaged, or of a later format version.
        """
        folder = Path(folder)
        config, origin = read_description(folder)
        try:
            with skeleton():
                model = cls(config, origin)
        except ConfigError as error:
            raise FormatError(f"{folder / CONFIG_FILE}: {error}") from None
        read_weights(model, committed_path(folder, WEIGHTS_FILE))
        model.to(device).eval()
        model.bf16 = computes_in_bf16(model.device) if bf16 is None else bf16
        if model.bf16 or model.device.type == "cpu":
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _modulations(
        self, levels: Sequence[float], actions: Tensor
    ) -> Iterator[tuple[()] | tuple[Tensor]]:
        """Yields, for each evaluation of a frame, what its noise level and the actions decide.

        It is worked out for all of them at once; for one alone there is nothing to gain from that,
        and it is left to the denoiser.
        """
        if len(levels) == 1:
            return iter([()])
        modulate = self.denoiser.modulate if self._compiled is None else self._compiled.modulate
        rows = actions.shape[:1]
        sigmas = [actions.new_full(rows, level, dtype=torch.float32) for level in levels]
        modulation = modulate(torch.cat(sigmas), actions.repeat(len(levels), 1))
        return ((each,) for each in modulation.chunk(len(levels)))

    def _rows_at_once(self, rows: int) -> int:
        """Returns for how many of so many dreams the denoiser is evaluated at once."""
        if not self.in_parts or self.device.type != "cpu":
            return rows
        denoiser, (_, height, width) = self.config.denoiser, self.config.obs_shape
        # The way up finds what the way down passed on beside its own channels.
        widest = 2 * denoiser.channels[0] * (2 if self.bf16 else 4)
        pixels = -(-height // denoiser.fold) * -(-width // denoiser.fold)
        return max(1, _CACHE // (widest * pixels))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def _draw_chance(self, rows: int, generator: torch.Generator | None, share: Share) -> Tensor:
        """Draws what decides where the past does not: float32 [N, K], standard Gumbel noise."""
        choices = self.config.denoiser.choices
        if choices == 0:
            return torch.zeros(rows, 0, device=self.device)
        draw = partial(torch.rand, generator=generator, device=self.device)
        return -(-share.drawn((rows, choices), draw).log()).log()

    def _noise_source(
        self, rows: int, generator: torch.Generator | None, share: Share
    ) -> Callable[[], Tensor]:
        draw = partial(torch.randn, generator=generator, device=self.device)
        return lambda: share.drawn((rows, *self.config.obs_shape), draw)


def read_description(folder: Path) -> tuple[WorldModelConfig, Origin]:
    """Reads what a world model's folder says of the world model, without its weights.

    Raises:
        FormatError: The folder is missing, foreign, damaged, or of a later format version.
    """
    path = committed_path(folder, CONFIG_FILE)
    if not path.is_file():
        raise FormatError(
            f"{folder} is not a world model: it has no {CONFIG_FILE}; name a folder that "
            f"`WorldModel.save` wrote"
        )
    try:
        description = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path} is not JSON ({error}); restore or fit the world model") from None
    if not isinstance(description, dict) or "format_version" not in description:
        raise FormatError(f"{path} has no format_version; it is not a world model's configuration")
    version = description.pop("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {version!r}; this dreamenv reads version "
            f"{FORMAT_VERSION}: upgrade dreamenv"
        )
    architecture = description.pop("architecture", None)
    if not isinstance(architecture, dict):
        raise FormatError(f"{path} has no architecture; it is not a world model's configuration")
    config = WorldModelConfig.from_dict(architecture, f"{path}: architecture")
    return config, Origin.from_dict(description, str(path))


def _check_environment(config: WorldModelConfig, environment: EnvironmentSpec | None) -> None:
    if environment is None:
        return
    if (environment.obs_shape, environment.num_actions) != (config.obs_shape, config.num_actions):
        raise ConfigError(
            f"{environment.id} has frames {environment.obs_shape} and {environment.num_actions} "
            f"actions, the world model {config.obs_shape} and {config.num_actions}; make them equal"
        )


def _check_frames(name: str, frames: Tensor, shape: tuple[int, ...]) -> None:
    if frames.dtype != torch.uint8 or frames.shape != shape:
        raise InputError(
            f"{name} is {frames.dtype} {list(frames.shape)}; it must be torch.uint8 {list(shape)}"
        )


def _check_actions(actions: Tensor, shape: tuple[int, ...]) -> None:
    if actions.dtype != torch.int64 or actions.shape != shape:
        raise InputError(
            f"actions is {actions.dtype} {list(actions.shape)}; it must be torch.int64 "
            f"{list(shape)}"
        )


def _check_since_reward(since_reward: Tensor, rows: int) -> None:
    if since_reward.dtype != torch.int64 or since_reward.shape != (rows,):
        raise InputError(
            f"since_reward is {since_reward.dtype} {list(since_reward.shape)}; it must be "
            f"torch.int64 [{rows}]"
        )
