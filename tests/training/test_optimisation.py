import math
from typing import Any

import pytest
import torch
from torch import nn

from dreamenv.errors import ConfigError
from dreamenv.models.presets import small
from dreamenv.models.world_model import WorldModel
from dreamenv.training.optimisation import OptimiserConfig, make_optimiser, split_by_decay

MIXED = nn.ModuleDict(
    {
        "conv": nn.Conv2d(2, 2, 3),
        "linear": nn.Linear(2, 2),
        "lstm": nn.LSTM(2, 2),
        "cell": nn.LSTMCell(2, 2),
        "norm": nn.GroupNorm(1, 2),
        "embedding": nn.Embedding(2, 2),
        "nested": nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2)),
    }
)


def learning_rates(config: OptimiserConfig, total_steps: int) -> list[float]:
    """Returns the learning rate of each step, and the one after the last."""
    optimiser, schedule = make_optimiser(nn.Linear(1, 1), config, total_steps)
    rates = []
    for _ in range(total_steps + 1):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


def test_only_weights_of_convolutions_linears_and_lstms_decay() -> None:
    names = {parameter: name for name, parameter in MIXED.named_parameters()}
    decayed, plain = split_by_decay(MIXED)
    assert {names[parameter] for parameter in decayed} == {
        "conv.weight",
        "linear.weight",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "cell.weight_ih",
        "cell.weight_hh",
        "nested.0.weight",
    }
    assert {names[parameter] for parameter in plain} == {
        "conv.bias",
        "linear.bias",
        "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
        "cell.bias_ih",
        "cell.bias_hh",
        "norm.weight",
        "norm.bias",
        "embedding.weight",
        "nested.1.weight",
        "nested.1.bias",
    }


@pytest.mark.parametrize("name", ["denoiser", "reward_end"])
def test_every_parameter_of_a_world_model_is_optimised_exactly_once(name: str) -> None:
    with torch.device("meta"):
        network = WorldModel(small(num_actions=4)).get_submodule(name)
    decayed, plain = split_by_decay(network)
    ids = [id(parameter) for parameter in (*decayed, *plain)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in network.parameters()}
    assert {parameter.ndim for parameter in decayed} <= {2, 4}


def test_decay_moves_only_what_decays() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2))
    nn.init.ones_(network.get_parameter("0.bias"))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    config = OptimiserConfig(learning_rate=0.1, weight_decay=0.5, warmup_steps=0)
    optimiser, _ = make_optimiser(network, config, 10)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in network.named_parameters():
        factor = 0.95 if name == "0.weight" else 1.0
        torch.testing.assert_close(parameter, before[name] * factor)


def test_the_learning_rate_warms_up_linearly_and_stays() -> None:
    rates = learning_rates(OptimiserConfig(learning_rate=0.4, warmup_steps=4), 10)
    assert rates[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert rates[5:] == pytest.approx([0.4] * 6)


def test_without_warm_up_the_learning_rate_is_whole_from_the_first_step() -> None:
    assert learning_rates(OptimiserConfig(warmup_steps=0), 3) == pytest.approx([1e-4] * 4)


def test_a_cosine_falls_to_zero_at_the_last_step() -> None:
    config = OptimiserConfig(learning_rate=0.4, warmup_steps=10, schedule="cosine")
    rates = learning_rates(config, 100)
    assert rates[50] == pytest.approx(0.2)
    assert rates[25] == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] < 4e-4
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_a_linear_schedule_falls_by_as_much_at_every_step() -> None:
    config = OptimiserConfig(learning_rate=0.4, warmup_steps=10, schedule="linear")
    rates = learning_rates(config, 100)
    assert rates[5] == pytest.approx(0.4 * 6 / 11 * 0.95)
    assert [rates[step] for step in (25, 50, 75, 100)] == pytest.approx([0.3, 0.2, 0.1, 0.0])


def test_a_schedule_longer_than_planned_stays_at_zero() -> None:
    optimiser, schedule = make_optimiser(
        nn.Linear(1, 1), OptimiserConfig(warmup_steps=0, schedule="cosine"), 2
    )
    for _ in range(5):
        optimiser.step()
        schedule.step()
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("epsilon", -1e-8),
        ("max_grad_norm", 0.0),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
    ],
)
def test_settings_that_cannot_work_are_refused_when_they_are_made(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        OptimiserConfig(**{name: value})
