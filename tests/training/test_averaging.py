import pytest
import torch
from torch import nn

from dreamenv.training.averaging import MovingAverage


def constant(value: float) -> nn.Module:
    """A module whose only weight is `value`."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def weight(module: nn.Module) -> float:
    return module.get_parameter("weight").item()


def test_it_begins_with_the_weights_of_the_module() -> None:
    average = MovingAverage(constant(3.0), decay=0.9)
    assert weight(average.module) == 3.0
    assert not average.module.training
    assert not average.module.get_parameter("weight").requires_grad


def test_it_is_a_copy_that_the_module_does_not_move() -> None:
    module = constant(3.0)
    average = MovingAverage(module, decay=0.9)
    nn.init.zeros_(module.get_parameter("weight"))
    assert weight(average.module) == 3.0


def test_its_first_steps_weigh_less_and_its_later_ones_the_decay() -> None:
    average = MovingAverage(constant(0.0), decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        average.update(constant(float(step)))
        assert weight(average.module) == pytest.approx(expected)
    # By then a step keeps half: the mean age is one step.
    assert weight(average.module) == pytest.approx(28, abs=0.01)


def test_buffers_are_copied_and_not_averaged() -> None:
    module = nn.BatchNorm1d(1)
    average = MovingAverage(module, decay=0.9)
    module(torch.tensor([[2.0], [4.0]]))
    average.update(module)
    mean = module.get_buffer("running_mean")
    assert torch.equal(average.module.get_buffer("running_mean"), mean)
    assert average.module.get_buffer("num_batches_tracked").item() == 1


def test_it_goes_on_where_its_state_was_taken() -> None:
    whole, first = (MovingAverage(constant(0.0), decay=0.99) for _ in range(2))
    for step in range(5):
        whole.update(constant(step))
        first.update(constant(step))
    second = MovingAverage(constant(7.0), decay=0.99)
    second.load_state_dict(first.state_dict())
    for step in range(5, 10):
        whole.update(constant(step))
        second.update(constant(step))
    assert weight(second.module) == weight(whole.module)
