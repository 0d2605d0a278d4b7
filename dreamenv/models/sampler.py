"""The sampler: noise levels, and the walk down them from noise to a frame.

After Karras et al. 2022 (eq. 5 for the schedule, algorithm 2 for the steps), in the variant of
the published DIAMOND code, whose stochastic steps denoise at the level before the added noise.
Or by fresh noise, after Song et al., "Consistency Models", 2023, algorithm 1.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from dreamenv.config import Config
from dreamenv.errors import ConfigError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Maps a noisy target [N, C, H, W] and its noise level [N] to the denoised one."""


@dataclass(frozen=True)
class SamplerConfig(Config):
    """Which noise levels, and how to step between them. The defaults are `atari100k`.

    Attributes:
        num_steps: n, the number of levels of the published schedule.
        sigma_min: Its least level above 0.
        sigma_max: Its largest level.
        rho: ρ, how much it crowds near the least level.
        sigmas: Explicit falling levels, without the 0 at the end, instead of the schedule.
        scale_start: Whether the start is standard normal noise times the largest level (as in
            EDM) or alone (as published).
        renoise: Whether a step goes to the denoised target plus fresh noise of the next level,
            instead of along the slope. For a denoiser that is trained to start from noise alone
            (`DenoiserConfig.start_share`): its first target is a mean of all that may come, and
            the fresh noise makes the next level choose.
        order: 1 for Euler's method, 2 for Heun's.
        s_churn: How much noise is added along the way.
        s_tmin: Least level at which it is added.
        s_tmax: Largest level at which it is added; None for no bound.
        s_noise: Factor on its standard deviation.
    """

    num_steps: int = 3
    sigma_min: float = 2e-3
    sigma_max: float = 5.0
    rho: float = 7.0
    sigmas: tuple[float, ...] | None = None
    scale_start: bool = False
    renoise: bool = False
    order: int = 1
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float | None = None
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps is {self.num_steps}; it must be at least 1")
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ConfigError(
                f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; they must be "
                f"above 0, the first not above the second"
            )
        if self.rho <= 0:
            raise ConfigError(f"rho is {self.rho}; it must be above 0")
        if self.order not in (1, 2):
            raise ConfigError(f"order is {self.order}; it must be 1 (Euler) or 2 (Heun)")
        if self.s_churn < 0 or self.s_noise < 0:
            raise ConfigError(
                f"s_churn is {self.s_churn} and s_noise {self.s_noise}; both must be at least 0"
            )
        if self.renoise and (self.order == 2 or self.s_churn > 0):
            raise ConfigError(
                "renoise goes along no slope; leave order at 1 and s_churn at 0, or renoise out"
            )
        if self.sigmas is not None:
            check_levels(self.sigmas, "sigmas")

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels to walk down, largest first, 0 last."""
        if self.sigmas is not None:
            return (*self.sigmas, 0.0)
        return schedule(self.num_steps, self.sigma_min, self.sigma_max, self.rho)

    @property
    def evaluated_levels(self) -> tuple[float, ...]:
        """The level of each evaluation of the denoiser for one frame, in their order."""
        first, *others = self.levels[:-1]
        # Heun's method looks ahead to the level that it then steps from.
        times = 1 if self.order == 1 else 2
        return (first, *(level for level in others for _ in range(times)))

    @property
    def num_evaluations(self) -> int:
        """How often the denoiser is evaluated for one frame."""
        return len(self.evaluated_levels)

    def with_denoising(self, steps: int | Sequence[float]) -> "SamplerConfig":
        """Returns this configuration with other noise levels.

        Args:
            steps: The number of levels of the schedule, or the levels themselves, falling,
                without the 0 at the end.

        Raises:
            ConfigError: There are none, or they do not fall.
        """
        if isinstance(steps, (int, Integral)):  # numpy's are no int
            return replace(self, num_steps=int(steps), sigmas=None)
        try:
            levels = tuple(float(0.0 + level) for level in steps)  # the digits of a text are none
        except TypeError:
            raise ConfigError(
                f"denoising_steps is {steps!r}; give how many noise levels, or falling levels"
            ) from None
        return replace(self, sigmas=levels)


def schedule(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> tuple[float, ...]:
    """Computes the noise levels of Karras et al. 2022, eq. 5.

    Args:
        num_steps: n, how many levels there are before the 0 at the end.
        sigma_min: The least of them.
        sigma_max: The largest of them, and the only one where n is 1.
        rho: How much they crowd near the least.

    Returns:
        n + 1 levels, largest first, 0 last.
    """
    largest, least = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    # In float32, as published, so that samples agree with the published ones to the last bit.
    positions = torch.linspace(0, 1, num_steps, dtype=torch.float32, device="cpu")
    levels = (largest + positions * (least - largest)) ** rho
    return (*levels.tolist(), 0.0)


def sample(
    denoise: Denoise, noise: Tensor, config: SamplerConfig, draw_noise: Callable[[], Tensor]
) -> list[Tensor]:
    """Walks from noise down the levels to a sample.

    Args:
        denoise: The denoiser, its past bound.
        noise: float32 [N, C, H, W], standard normal: where to start.
        config: The levels and the steps between them.
        draw_noise: Draws further standard normal noise of that shape, once for each level at
            which noise is added.

    Returns:
        The start, and where each step led; the last is the sample. Each float32 [N, C, H, W].
    """
    levels = config.levels
    trajectory = [noise * levels[0] if config.scale_start else noise]
    for sigma, next_sigma in itertools.pairwise(levels):
        trajectory.append(step(denoise, trajectory[-1], sigma, next_sigma, config, draw_noise))
    return trajectory


def step(
    denoise: Denoise,
    x: Tensor,
    sigma: float,
    next_sigma: float,
    config: SamplerConfig,
    draw_noise: Callable[[], Tensor],
) -> Tensor:
    """Walks from one noise level to the next.

    Args:
        denoise: The denoiser, its past bound.
        x: float32 [N, C, H, W], the noisy target at level `sigma`.
        sigma: The level, above 0.
        next_sigma: The next one, at least 0.
        config: How to step.
        draw_noise: Draws standard normal noise of that shape where the level adds some.

    Returns:
        float32 [N, C, H, W], the target at level `next_sigma`.
    """
    if config.renoise:
        denoised = denoise(x, _each_row(sigma, x))
        return denoised if next_sigma == 0 else denoised + next_sigma * draw_noise()
    gamma = _churn(config, sigma)
    sigma_hat = sigma * (1 + gamma)
    if gamma > 0:
        x = x + config.s_noise * math.sqrt(sigma_hat**2 - sigma**2) * draw_noise()
    # As published: the noise has grown to sigma_hat, yet the denoiser is told sigma.
    slope = (x - denoise(x, _each_row(sigma, x))) / sigma_hat
    distance = next_sigma - sigma_hat
    if config.order == 2 and next_sigma > 0:
        ahead = x + distance * slope
        slope_ahead = (ahead - denoise(ahead, _each_row(next_sigma, x))) / next_sigma
        slope = (slope + slope_ahead) / 2
    return x + distance * slope


def _churn(config: SamplerConfig, sigma: float) -> float:
    """The relative growth γ of the noise at a level (Karras et al. 2022, algorithm 2)."""
    within = config.s_tmin <= sigma and (config.s_tmax is None or sigma <= config.s_tmax)
    steps = len(config.levels) - 1
    return min(config.s_churn / steps, math.sqrt(2) - 1) if within else 0.0


def _each_row(sigma: float, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), sigma, dtype=torch.float32, device=x.device)


def check_levels(sigmas: tuple[float, ...], name: str) -> None:
    """Checks that noise levels can be walked down.

    Raises:
        ConfigError: They cannot; it begins with the name.
    """
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if not sigmas or not falling or not all(0 < sigma < math.inf for sigma in sigmas):
        raise ConfigError(f"{name} is {sigmas}; give at least one level, falling, above 0")
