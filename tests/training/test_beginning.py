from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamenv.data import Replay
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError
from dreamenv.models.world_model import Origin, WorldModel
from dreamenv.training.beginning import (
    check_beginning,
    check_networks,
    first_model,
    how_it_was_fit_before,
)
from dreamenv.training.fit_config import FitModelConfig

TinyModel = Callable[..., WorldModel]

CPU = torch.device("cpu")


@pytest.fixture
def fitted(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """The folder of a world model of the toy game, of unit 0.5."""
    model = tiny_model("change", seed=3)
    model.denoiser.change_std.fill_(0.5)
    model.origin = Origin(fit={"command": "dreamenv fit-model"})
    model.save(tmp_path / "fitted")
    return tmp_path / "fitted"


@pytest.fixture
def config(tiny_model: TinyModel) -> FitModelConfig:
    networks = tiny_model("change").config
    return FitModelConfig(
        env="Test/Catch-v0", denoiser=networks.denoiser, reward_end=networks.reward_end
    )


def test_a_fit_begins_with_the_weights_and_the_units_of_a_world_model(
    config: FitModelConfig, fitted: Path, played: Replay
) -> None:
    model = first_model(replace(config, begin_with=str(fitted)), played, CPU)
    there = WorldModel.load(fitted).state_dict()
    assert all(torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items())
    assert model.denoiser.change_std == 0.5
    assert model.origin.environment == played.environment
    assert model.training


@pytest.mark.parametrize("memory", [0, 5])
def test_choices_can_be_added_and_change_nothing_at_first(
    config: FitModelConfig, fitted: Path, played: Replay, memory: int
) -> None:
    there = first_model(replace(config, begin_with=str(fitted)), played, CPU)
    denoiser = replace(config.denoiser, choices=4, reward_memory=memory, place_maps=2)
    asked = replace(config, begin_with=str(fitted), denoiser=denoiser)
    model = first_model(asked, played, CPU)
    actions = torch.zeros(2, 2, dtype=torch.int64)

    def dreamt(by: WorldModel) -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        target = torch.randn(2, *model.config.obs_shape, generator=noise)
        context = torch.randn(2, 2, *model.config.obs_shape, generator=noise)
        told = torch.tensor([3, -2]), 1e6 * torch.eye(4)[1:4:2]  # the second, and the last
        with torch.no_grad():
            drawn: torch.Tensor = by.denoiser(target, torch.ones(2), context, actions, *told)
        return drawn

    assert torch.equal(dreamt(model), dreamt(there))


@pytest.mark.parametrize(
    ("name", "others"), [("choices", [6, 0]), ("reward_memory", [0, 6]), ("place_maps", [0, 3])]
)
def test_choices_can_be_neither_dropped_nor_changed_but_in_what_they_cost(
    config: FitModelConfig,
    fitted: Path,
    played: Replay,
    tmp_path: Path,
    name: str,
    others: list[int],
) -> None:
    told: dict[str, Any] = {"choices": 5, "reward_memory": 5, "place_maps": 2}
    denoiser = replace(config.denoiser, **told)
    asked = replace(config, begin_with=str(fitted), denoiser=denoiser)
    first_model(asked, played, CPU).save(tmp_path / "told")
    for other in others:
        none: dict[str, Any] = {}
        if (name, other) == ("choices", 0):
            none = {"reward_memory": 0, "place_maps": 0}
        changed = replace(denoiser, **{**none, name: other})
        with pytest.raises(ConfigError, match=f"has a denoiser with {name} {told[name]}, not"):
            check_beginning(replace(config, begin_with=str(tmp_path / "told"), denoiser=changed))
    learned_otherwise = replace(denoiser, choice_cost=7.0, forget_share=0.5)
    check_beginning(replace(config, begin_with=str(tmp_path / "told"), denoiser=learned_otherwise))


@pytest.mark.parametrize(("begins", "choices"), [(False, 2), (True, 0)])
def test_choices_alone_are_learned_only_beside_what_is_there(
    config: FitModelConfig, fitted: Path, begins: bool, choices: int
) -> None:
    asked = replace(
        config,
        begin_with=str(fitted) if begins else None,
        only_choices=True,
        denoiser=replace(config.denoiser, choices=choices),
    )
    with pytest.raises(ConfigError, match=r"only_choices is on, .*; give a world model to begin"):
        check_beginning(asked)


def test_without_one_it_begins_with_weights_of_its_seed_and_units_of_the_data(
    config: FitModelConfig, played: Replay
) -> None:
    one, same, other = (
        first_model(replace(config, seed=seed), played, CPU).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(
        one["denoiser.network.conv_in.weight"], other["denoiser.network.conv_in.weight"]
    )
    assert 0 < one["denoiser.change_std"] != 0.5


def test_what_is_learned_from_may_change(config: FitModelConfig, fitted: Path) -> None:
    other_noise = replace(
        config.denoiser,
        log_sigma_mean=2.0,
        log_sigma_std=0.1,
        sigma_min=0.1,
        sigma_max=80.0,
        start_share=1.0,
    )
    check_beginning(replace(config, begin_with=str(fitted), denoiser=other_noise))


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("denoiser", {"cond_channels": 32}, "has a denoiser with cond_channels 16, not 32"),
        ("denoiser", {"past": "changes"}, "has a denoiser with past 'frames', not 'changes'"),
        ("denoiser", {"sigma_data": 0.7}, r"has a denoiser with sigma_data 1\.0, not 0\.7"),
        ("reward_end", {"next_obs": "change"}, "has a reward_end with next_obs 'frame', not"),
    ],
)
def test_other_networks_are_refused(
    config: FitModelConfig, fitted: Path, part: str, change: dict[str, Any], named: str
) -> None:
    changed = replace(getattr(config, part), **change)
    asked: dict[str, Any] = {part: changed}
    with pytest.raises(ConfigError, match=named):
        check_beginning(replace(config, begin_with=str(fitted), **asked))


def test_a_world_model_that_is_not_there_is_named(config: FitModelConfig, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nowhere"):
        check_beginning(replace(config, begin_with=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("other", [{"obs_shape": (3, 32, 32)}, {"action_meanings": ("stay",)}])
def test_a_world_model_of_another_game_is_refused(
    config: FitModelConfig, fitted: Path, catch: EnvironmentSpec, other: dict[str, Any]
) -> None:
    asked = replace(config, begin_with=str(fitted))
    check_networks(asked, catch)
    with pytest.raises(ConfigError, match=r"has frames \[3, 16, 16\] and 3 actions, Test/Catch-v0"):
        check_networks(asked, replace(catch, **other))


def test_how_the_one_before_was_fitted_is_known(config: FitModelConfig, fitted: Path) -> None:
    before = how_it_was_fit_before(replace(config, begin_with=str(fitted)))
    assert before == {"command": "dreamenv fit-model"}
    assert how_it_was_fit_before(config) is None
