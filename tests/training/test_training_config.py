from typing import Any

import pytest

from dreamenv.errors import ConfigError
from dreamenv.training.training_config import TrainingConfig


def test_what_is_favoured_is_said_in_one_way() -> None:
    TrainingConfig(favourites="module:function")
    with pytest.raises(ConfigError, match=r"^favour_at is \(2,\) and favourites 'module:function'"):
        TrainingConfig(favoured_share=0.5, favour_at=(2,), favourites="module:function")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("reward_end_batch_size", 0),
        ("predictions", 0),
        ("single_steps", -1),
        ("reward_end_favoured", 1.1),
        ("reward_end_dreamt", -0.1),
        ("reward_end_dreamt", 0.01),  # of no segment
        ("favoured_share", 1.5),
        ("favoured_share", 0.5),  # at no step
        ("favour_at", (5,)),  # of no share
        ("crop", 8),  # without single_steps
        ("single_batch_size", 8),  # likewise
        ("unrolled_crop", 0),
        ("unrolled_singles", -1),
        ("unrolled_singles", 4),  # without unrolled_crop
        ("dreamt_levels", (80.0,)),  # of nothing that is dreamt
        ("reward_end_every", 0),
        ("reward_end_length", 1),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("levels", [(), (20.0, 80.0), (80.0, 0.0)])
def test_levels_that_cannot_be_walked_down_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^dreamt_levels is"):
        TrainingConfig(unrolled_crop=8, dreamt_levels=levels)
