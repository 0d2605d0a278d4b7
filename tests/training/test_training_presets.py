import pytest

from dreamenv.models import presets as architectures
from dreamenv.training import presets
from dreamenv.training.presets import Preset, PresetName, preset


@pytest.mark.parametrize("name", ["small", "atari100k"])
def test_a_preset_has_the_architecture_of_its_name(name: PresetName) -> None:
    chosen, architecture = preset(name), getattr(architectures, name)(num_actions=1)
    assert chosen == getattr(presets, name)()
    assert chosen.denoiser == architecture.denoiser
    assert chosen.reward_end == architecture.reward_end
    assert chosen.sampler == architecture.sampler


def test_the_defaults_are_the_published_settings() -> None:
    assert preset("atari100k") == Preset()
    training = preset("atari100k").training
    assert (training.steps, training.batch_size, training.reward_end_batch_size) == (10_000, 32, 32)
    assert training.quarters == (0.1, 0.1, 0.1, 0.7)
    assert training.ema_decay == 0
    for optimiser, max_grad_norm in (
        (training.denoiser_optimiser, 1.0),
        (training.reward_end_optimiser, 100.0),
    ):
        assert (optimiser.learning_rate, optimiser.epsilon) == (1e-4, 1e-8)
        assert (optimiser.weight_decay, optimiser.warmup_steps) == (1e-2, 100)
        assert optimiser.max_grad_norm == max_grad_norm
        assert optimiser.schedule == "constant"


def test_the_small_preset_has_the_settings_it_was_measured_with() -> None:
    small = preset("small")
    assert small.denoiser.target == "change"
    assert small.denoiser.fold == 2
    assert small.training.ema_decay == 0.999
    assert small.training.batch_size == 16
    assert small.training.quarters is None
    denoiser, heads = small.training.denoiser_optimiser, small.training.reward_end_optimiser
    assert (denoiser.learning_rate, denoiser.schedule) == (5e-4, "cosine")
    assert (heads.learning_rate, heads.schedule) == (1e-3, "cosine")


@pytest.mark.parametrize("name", ["small", "atari100k"])
def test_a_preset_survives_the_way_to_json_and_back(name: PresetName) -> None:
    assert Preset.from_dict(preset(name).to_dict(), "config.json") == preset(name)
