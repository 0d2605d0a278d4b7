import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamenv.errors import ConfigError, FormatError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.diamond import diamond_state_dict, load_diamond_state_dict
from dreamenv.models.presets import atari100k, small
from dreamenv.models.skeleton import skeleton
from dreamenv.models.world_model import WorldModel

NUM_ACTIONS = 4


@pytest.fixture(scope="module")
def world_model() -> WorldModel:
    return WorldModel(atari100k(NUM_ACTIONS))


@pytest.fixture(scope="module")
def actor_critic() -> ActorCritic:
    return ActorCritic(ActorCriticConfig(), (3, 64, 64), NUM_ACTIONS)


Weights = dict[str, Tensor]


@pytest.fixture
def published(world_model: WorldModel, actor_critic: ActorCritic) -> Weights:
    weights = diamond_state_dict(
        denoiser=world_model.denoiser,
        reward_end=world_model.reward_end,
        actor_critic=actor_critic,
    )
    return {key: torch.randn_like(tensor) for key, tensor in weights.items()}


def test_the_preset_has_the_published_keys_and_shapes(
    reference_folder: Path, published: Weights
) -> None:
    path = reference_folder / "diamond_checkpoint_keys.json"
    if not path.is_file():
        pytest.skip(f"no list of published keys at {path}")
    expected = json.loads(path.read_text())["keys"]
    assert {key: list(tensor.shape) for key, tensor in published.items()} == expected


def test_weights_come_back_under_the_keys_they_were_loaded_from(
    world_model: WorldModel, actor_critic: ActorCritic, published: Weights
) -> None:
    networks = {
        "denoiser": world_model.denoiser,
        "reward_end": world_model.reward_end,
        "actor_critic": actor_critic,
    }
    load_diamond_state_dict(published, **networks)  # type: ignore[arg-type]
    returned = diamond_state_dict(**networks)  # type: ignore[arg-type]
    assert returned.keys() == published.keys()
    assert all(torch.equal(returned[key], published[key]) for key in published)


def test_a_part_can_be_loaded_alone(actor_critic: ActorCritic, published: Weights) -> None:
    load_diamond_state_dict(published, actor_critic=actor_critic)
    assert torch.equal(actor_critic.policy.weight, published["actor_critic.actor_linear.weight"])


def test_levels_without_pooling_shift_the_published_places() -> None:
    config = ActorCriticConfig(channels=(8, 16, 16), downsample=(True, False, True), lstm_dim=8)
    keys = diamond_state_dict(actor_critic=ActorCritic(config, (3, 16, 16), 2))
    assert "actor_critic.encoder.encoder.3.f.2.weight" in keys
    assert "actor_critic.encoder.encoder.4.f.2.weight" in keys
    assert "actor_critic.encoder.encoder.3.skip_projection.weight" in keys


KEY = "denoiser.inner_model.conv_in.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop(KEY), r"lacks 'inner_model\.conv_in\.weight'"),
        (lambda w: w.update({"denoiser.extra": torch.zeros(1)}), "has 'extra', unknown"),
        (lambda w: w.update({KEY: torch.zeros(64, 3, 3, 3)}), r"\[64, 3, 3, 3\].*\[64, 15, 3, 3\]"),
        (lambda w: w.clear(), "no key that begins with 'denoiser.'"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_changes(
    world_model: WorldModel,
    published: Weights,
    damage: Callable[[Weights], object],
    message: str,
) -> None:
    before = {key: tensor.clone() for key, tensor in world_model.state_dict().items()}
    damage(published)
    with pytest.raises(FormatError, match=message):
        load_diamond_state_dict(
            published, reward_end=world_model.reward_end, denoiser=world_model.denoiser
        )
    after = world_model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_the_published_code_does_not_have_is_refused() -> None:
    world_model = WorldModel(small(NUM_ACTIONS))
    with pytest.raises(ConfigError, match="no counterpart in the published DIAMOND code"):
        diamond_state_dict(denoiser=world_model.denoiser)
    with pytest.raises(ConfigError, match="no counterpart in the published DIAMOND code"):
        diamond_state_dict(reward_end=world_model.reward_end)


@pytest.mark.parametrize(
    ("denoiser", "reward_end", "problem"),
    [
        ({"fold": 2}, {}, "fold 2 has no counterpart .*; use 1"),
        ({"target": "change"}, {}, "target 'change' has no counterpart .*; use 'frame'"),
        ({"norm": "none"}, {}, "norm 'none' has no counterpart .*; use 'group'"),
        ({"middle_attention": False}, {}, "middle_attention False has no counterpart"),
        ({"choices": 5}, {}, "choices 5 has no counterpart"),
        ({}, {"fold": 4}, "fold 4 has no counterpart"),
        ({}, {"next_obs": "change"}, "next_obs 'change' has no counterpart .*; use 'frame'"),
    ],
)
def test_each_setting_that_the_published_code_does_not_have_is_named(
    denoiser: dict[str, Any], reward_end: dict[str, Any], problem: str
) -> None:
    config = atari100k(NUM_ACTIONS)
    with skeleton():
        world_model = WorldModel(
            replace(
                config,
                denoiser=replace(config.denoiser, **denoiser),
                reward_end=replace(config.reward_end, **reward_end),
            )
        )
    name = "denoiser" if denoiser else "reward_end"
    part: dict[str, Any] = {name: world_model.get_submodule(name)}
    with pytest.raises(ConfigError, match=problem):
        diamond_state_dict(**part)
    with pytest.raises(ConfigError, match=problem):
        load_diamond_state_dict({"denoiser.": Tensor(), "rew_end_model.": Tensor()}, **part)
