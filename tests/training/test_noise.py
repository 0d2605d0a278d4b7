import torch

from dreamenv.dream.core import Dream
from dreamenv.models.presets import small
from dreamenv.models.world_model import WorldModel
from dreamenv.training.noise import noise_contexts, noise_segments

CONFIG = small(4, (3, 16, 24))
CPU = torch.device("cpu")


def test_segments_are_of_the_frames_of_the_world_model_or_of_squares() -> None:
    segments = noise_segments(CONFIG, 5, 7, CPU)
    assert segments.obs.shape == (5, 7, 3, 16, 24)
    assert segments.obs.float().std() > 50
    assert segments.mask.all()
    assert not segments.ends.any()
    assert noise_segments(CONFIG, 5, 7, CPU, size=(8, 8)).obs.shape == (5, 7, 3, 8, 8)


def test_contexts_can_be_dreamt_from() -> None:
    contexts = noise_contexts(CONFIG, 6)
    assert Dream(WorldModel(CONFIG).eval(), contexts, 2).reset(seed=0).shape == (2, 3, 16, 24)
    assert contexts.obs.shape == (6, CONFIG.denoiser.context_length, 3, 16, 24)
