import pytest

from dreamenv.models.denoiser import Denoiser
from dreamenv.models.presets import atari100k, small


def test_atari100k_is_the_published_architecture() -> None:
    config = atari100k(num_actions=4)
    assert config.obs_shape == (3, 64, 64)
    denoiser, heads, sampler = config.denoiser, config.reward_end, config.sampler
    assert denoiser.channels == (64, 64, 64, 64)
    assert denoiser.depths == (2, 2, 2, 2)
    assert not any(denoiser.attention)
    assert (denoiser.cond_channels, denoiser.context_length) == (256, 4)
    assert (denoiser.sigma_data, denoiser.sigma_offset) == (0.5, 0.3)
    assert (denoiser.log_sigma_mean, denoiser.log_sigma_std) == (-0.4, 1.2)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (2e-3, 20)
    assert (denoiser.fold, denoiser.target) == (1, "frame")
    assert heads.channels == (32, 32, 32, 32)
    assert heads.depths == (2, 2, 2, 2)
    assert (heads.cond_channels, heads.lstm_dim, heads.fold) == (128, 512, 1)
    assert (sampler.num_steps, sampler.order, sampler.s_churn) == (3, 1, 0)
    assert (sampler.sigma_min, sampler.sigma_max, sampler.rho) == (2e-3, 5, 7)
    assert not sampler.scale_start


def test_small_sees_and_learns_changes_on_folded_frames() -> None:
    config = small(num_actions=4)
    assert (config.denoiser.target, config.denoiser.past) == ("change", "changes")
    assert config.reward_end.next_obs == "change"
    assert (config.denoiser.fold, config.reward_end.fold) == (2, 4)
    assert (config.denoiser.sigma_data, config.denoiser.sigma_offset) == (1, 0)
    size = sum(parameter.numel() for parameter in Denoiser(config.denoiser, 3, 4).parameters())
    assert size < 4.1e6


def test_small_samples_from_where_it_is_trained_to_start() -> None:
    config = small(num_actions=4)
    assert config.denoiser.start_share > 0.5
    assert not config.sampler.scale_start
    assert list(config.sampler.levels) == [config.denoiser.sigma_max, 0]
    more = config.sampler.with_denoising(3).levels
    assert (more[0], more[2]) == pytest.approx((80, 2))


def test_presets_take_any_frame_and_number_of_actions() -> None:
    for preset in (atari100k, small):
        config = preset(7, (1, 48, 80))
        assert (config.num_actions, config.obs_shape) == (7, (1, 48, 80))
