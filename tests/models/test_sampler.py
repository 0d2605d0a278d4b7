import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.denoiser import Denoiser
from dreamenv.models.sampler import Denoise, SamplerConfig, sample, schedule, step

BYTE_LEVEL = 2 / 255


@pytest.fixture
def reference(load_reference: Callable[[str], Any]) -> Any:
    return load_reference("sampler")


@pytest.fixture
def denoise(reference: Any, denoiser_of: Callable[[Any], Denoiser]) -> Denoise:
    denoiser = denoiser_of(reference)
    return lambda noisy, sigma: denoiser(noisy, sigma, reference["obs"], reference["act"])


def sampler_cases(reference: Any) -> dict[str, SamplerConfig]:
    ours = {"num_steps_denoising": "num_steps"}
    cases = {
        case: SamplerConfig(**{ours.get(name, name): value for name, value in published.items()})
        for case, published in reference.config["cases"].items()
    }
    assert cases
    return cases


class TestReference:
    def test_schedules(self, reference: Any, assert_close: Callable[..., None]) -> None:
        for case, sampler in sampler_cases(reference).items():
            assert_close(torch.tensor(sampler.levels), reference[f"{case}.sigmas"], 1e-5)

    @torch.no_grad()
    def test_each_step_from_where_the_published_sampler_stood(
        self, reference: Any, denoise: Denoise
    ) -> None:
        for case, sampler in sampler_cases(reference).items():
            published = reference[f"{case}.trajectory"]
            recorded = iter(reference[f"{case}.noise"])
            assert torch.equal(next(recorded), published[0])
            for index, (sigma, next_sigma) in enumerate(itertools.pairwise(sampler.levels)):
                draw_noise = functools.partial(next, recorded)
                x = step(denoise, published[index], sigma, next_sigma, sampler, draw_noise)
                error = (x - published[index + 1]).abs().max()
                allowed = BYTE_LEVEL * levels_a_step(sampler, sigma, next_sigma) + 1e-5
                assert error <= allowed, f"{case}, step {index}"
            assert next(recorded, None) is None, f"{case}: the published sampler drew more noise"

    @torch.no_grad()
    def test_whole_samples(self, reference: Any, denoise: Denoise) -> None:
        for case, sampler in sampler_cases(reference).items():
            if sampler.order == 2:
                continue  # A level off is magnified past comparing: see `levels_a_step`.
            recorded = iter(reference[f"{case}.noise"])
            start = next(recorded)
            trajectory = sample(denoise, start, sampler, functools.partial(next, recorded))
            assert len(trajectory) == len(reference[f"{case}.trajectory"])
            error = (trajectory[-1] - reference[f"{case}.sample"]).abs().max()
            assert error <= BYTE_LEVEL * sampler.num_evaluations + 1e-5, case


def levels_a_step(sampler: SamplerConfig, sigma: float, next_sigma: float) -> float:
    """How far a step may be off, in byte levels, if each denoising may be off by one.

    Rounding decides which level a denoised value falls on. Euler's step passes on at most that
    level. Heun's divides by the next σ: a level at the second point weighs step / (2 σ_next).
    """
    if sampler.order == 1 or next_sigma == 0:
        return 1
    first = (sigma - next_sigma) / sigma
    return first / 2 + (sigma - next_sigma) / (2 * next_sigma) * (first + 1)


class TestSchedule:
    def test_one_step_is_the_largest_level(self) -> None:
        largest, last = schedule(1, 0.002, 5.0, 7.0)
        assert largest == pytest.approx(5.0, rel=1e-5)
        assert last == 0

    @pytest.mark.parametrize("steps", [2, 3, 10, 50])
    def test_it_falls_from_the_largest_to_the_least_and_ends_at_0(self, steps: int) -> None:
        levels = schedule(steps, 0.002, 5.0, 7.0)
        assert len(levels) == steps + 1
        assert levels[0] == pytest.approx(5.0, rel=1e-5)
        assert levels[-2] == pytest.approx(0.002, rel=1e-5)
        assert levels[-1] == 0
        assert list(levels) == sorted(levels, reverse=True)

    def test_explicit_levels_take_its_place(self) -> None:
        sampler = SamplerConfig(sigmas=(80.0, 20.0, 5.0))
        assert sampler.levels == (80.0, 20.0, 5.0, 0.0)
        assert sampler.with_denoising(2).levels == schedule(2, 0.002, 5.0, 7.0)
        assert sampler.with_denoising(np.int64(2)) == sampler.with_denoising(2)  # type: ignore[arg-type]
        for wrong in ("21", 3.0, ["a"], None):
            with pytest.raises(ConfigError, match=r"^denoising_steps is .*; give how many"):
                sampler.with_denoising(wrong)  # type: ignore[arg-type]
        for levels in ([], [1, 2], [math.nan], [math.inf, 1], [1, 0], [2, 2]):
            with pytest.raises(ConfigError, match=r"^sigmas is "):
                sampler.with_denoising(levels)
        assert SamplerConfig().with_denoising([9, 3]).levels == (9.0, 3.0, 0.0)


class TestSample:
    """The exact denoiser of a Gaussian gives trajectories that are known in closed form."""

    @staticmethod
    def gaussian(noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoises data ~ N(0, 1): the posterior mean is x / (1 + σ²)."""
        return noisy / (1 + sigma.square())[:, None, None, None]

    @pytest.mark.parametrize("order", [1, 2])
    def test_it_evaluates_the_denoiser_at_the_levels_that_it_says(self, order: int) -> None:
        sampler = SamplerConfig(num_steps=5, order=order)
        levels: list[float] = []

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            levels.append(sigma[0].item())
            return self.gaussian(noisy, sigma)

        sample(denoise, torch.randn(2, 1, 4, 4), sampler, self.no_noise)
        assert levels == pytest.approx(sampler.evaluated_levels)
        assert len(levels) == sampler.num_evaluations
        assert min(levels) > 0

    @pytest.mark.parametrize(("order", "error"), [(1, 0.05), (2, 0.002)])
    def test_many_steps_find_the_data_distribution(self, order: int, error: float) -> None:
        sampler = SamplerConfig(num_steps=200, sigma_max=80.0, scale_start=True, order=order)
        noise = torch.randn(20_000, 1, 1, 1)
        result = sample(self.gaussian, noise, sampler, self.no_noise)[-1]
        # The probability flow of a Gaussian scales the noise by σ_data = 1 exactly.
        assert (result / noise - 1).abs().max() < error

    def test_churn_keeps_the_data_distribution(self) -> None:
        sampler = SamplerConfig(num_steps=200, sigma_max=80.0, scale_start=True, s_churn=5.0)
        noise = torch.randn(20_000, 1, 1, 1)
        result = sample(self.gaussian, noise, sampler, lambda: torch.randn_like(noise))[-1]
        assert result.std() == pytest.approx(1, abs=0.1)
        assert not torch.allclose(result, noise, atol=0.1)

    def test_churn_draws_noise_only_between_its_bounds(self) -> None:
        sampler = SamplerConfig(sigmas=(8.0, 4.0, 2.0, 1.0), s_churn=1.0, s_tmin=1.5, s_tmax=5.0)
        drawn = []

        def draw_noise() -> Tensor:
            drawn.append(1)
            return torch.zeros(1, 1, 1, 1)

        sample(self.gaussian, torch.zeros(1, 1, 1, 1), sampler, draw_noise)
        assert len(drawn) == 2

    def test_fresh_noise_gives_the_variance_that_the_levels_say(self) -> None:
        levels = tuple(80 * 0.9**index for index in range(110))
        sampler = SamplerConfig(sigmas=levels, renoise=True)
        start = torch.zeros(20_000, 1, 1, 1)
        result = sample(self.gaussian, start, sampler, lambda: torch.randn_like(start))[-1]
        variance = 0.0  # of what a step leaves: the denoised, and the noise of the next level
        for sigma, next_sigma in itertools.pairwise((*levels, 0.0)):
            variance = variance / (1 + sigma**2) ** 2 + next_sigma**2
        assert result.var().item() == pytest.approx(variance, rel=0.05)

    def test_fresh_noise_is_drawn_between_the_levels_only(self) -> None:
        drawn = []

        def draw_noise() -> Tensor:
            drawn.append(1)
            return torch.full((1, 1, 1, 1), 3.0)

        def half(noisy: Tensor, _: Tensor) -> Tensor:
            return noisy / 2

        sampler = SamplerConfig(sigmas=(8.0, 4.0, 2.0), renoise=True)
        start = torch.ones(1, 1, 1, 1)
        trajectory = sample(half, start, sampler, draw_noise)
        # Half of 1, and 3 times the next level; half of it, and so on.
        assert [x.item() for x in trajectory] == [1.0, 12.5, 12.25, 6.125]
        assert len(drawn) == 2

    def test_the_start_is_scaled_only_where_asked(self) -> None:
        noise = torch.randn(1, 1, 2, 2)
        plain = SamplerConfig(sigmas=(5.0, 1.0))
        assert torch.equal(sample(self.gaussian, noise, plain, self.no_noise)[0], noise)
        scaled = replace(plain, scale_start=True)
        assert torch.equal(sample(self.gaussian, noise, scaled, self.no_noise)[0], 5 * noise)

    @staticmethod
    def no_noise() -> Tensor:
        raise AssertionError("a sampler without churn draws no noise on the way")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_max": 0.001}, "sigma_max"),
        ({"rho": 0.0}, "rho"),
        ({"order": 3}, "order"),
        ({"s_churn": -1.0}, "s_churn"),
        ({"renoise": True, "order": 2}, "renoise"),
        ({"renoise": True, "s_churn": 1.0}, "renoise"),
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (1.0, 2.0)}, "sigmas"),
        ({"sigmas": (2.0, 0.0)}, "sigmas"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SamplerConfig(**settings)
