from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from dreamenv.models.categorical import draw_categorical

PROBABILITIES = torch.tensor([0.1, 0.6, 0.3])


def draw(rows: int, seed: int) -> torch.Tensor:
    # Probabilities are the same whatever is added to all logits.
    logits = (PROBABILITIES.log() + 5).expand(rows, 3)
    return draw_categorical(logits, torch.Generator().manual_seed(seed))


def test_classes_are_drawn_as_often_as_their_probabilities_say() -> None:
    drawn = draw(20_000, seed=0)
    assert drawn.dtype == torch.int64
    share = torch.bincount(drawn, minlength=3) / 20_000
    # Standard deviations are at most 0.0035.
    assert (share - PROBABILITIES).abs().max() < 0.015


def test_a_class_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([0.0, -torch.inf, 0.0]).expand(10_000, 3)
    assert not (draw_categorical(logits, torch.Generator().manual_seed(0)) == 1).any()


def test_chance_is_the_generators_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(draw(100, seed=1), draw(100, seed=1))
    assert not torch.equal(draw(100, seed=1), draw(100, seed=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_drawing_does_not_wait_for_the_device(
    no_waiting: Callable[[], AbstractContextManager[object]],
) -> None:
    with no_waiting():
        draw(4, seed=0)
