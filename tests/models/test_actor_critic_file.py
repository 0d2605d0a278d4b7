import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamenv.errors import FormatError
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.actor_critic_file import (
    AGENT_FILE,
    DESCRIPTION_FILE,
    ActorCriticDescription,
    has_actor_critic,
    load_actor_critic,
    write_actor_critic,
    write_description,
)
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.world_model import CONFIG_FILE, Origin, WorldModel, WorldModelConfig

LEVEL: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,)}
WORLD = WorldModelConfig(
    num_actions=3,
    obs_shape=(3, 8, 8),
    denoiser=DenoiserConfig(context_length=2, cond_channels=8, **LEVEL),
    reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **LEVEL),
)
AGENT = ActorCriticConfig(channels=(8, 16), downsample=(True, False), lstm_dim=8)


@pytest.fixture
def network() -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(AGENT, WORLD.obs_shape, WORLD.num_actions)


@pytest.fixture
def folder(tmp_path: Path, network: ActorCritic) -> Path:
    world_model = WorldModel(WORLD, Origin(agent=AGENT))
    world_model.save(tmp_path, also=functools.partial(write_actor_critic, network))
    return tmp_path


@pytest.fixture
def alone(tmp_path: Path, network: ActorCritic) -> Path:
    """A folder of an actor-critic without a world model."""
    write_actor_critic(network, tmp_path)
    write_description(ActorCriticDescription(AGENT, WORLD.obs_shape, WORLD.num_actions), tmp_path)
    return tmp_path


def test_it_comes_back_with_its_architecture(folder: Path, network: ActorCritic) -> None:
    assert has_actor_critic(folder)
    loaded = load_actor_critic(folder)
    assert loaded.config == AGENT
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert WorldModel.load(folder).origin.agent == AGENT


def test_a_world_model_may_have_none(tmp_path: Path) -> None:
    WorldModel(WORLD).save(tmp_path)
    assert not has_actor_critic(tmp_path)
    with pytest.raises(FormatError, match="has no actor-critic; name a folder that `train` left"):
        load_actor_critic(tmp_path)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["agent"]["lstm_dim"] = 16
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"lstm\.weight_ih has shape"):
        load_actor_critic(folder)


def test_an_architecture_that_cannot_be_is_refused(folder: Path) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["agent"] |= {"channels": [8] * 5, "downsample": [True] * 5}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"config\.json: agent: frames of 8x8 pixels are too"):
        load_actor_critic(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    file = folder / AGENT_FILE
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"agent\.safetensors is not a whole safetensors file"):
        load_actor_critic(folder)


def test_it_comes_back_without_a_world_model(alone: Path, network: ActorCritic) -> None:
    assert has_actor_critic(alone)
    loaded = load_actor_critic(alone)
    assert (loaded.config, loaded.obs_shape, loaded.num_actions) == (AGENT, (3, 8, 8), 3)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, r"agent\.json: .*format version 2; this dreamenv reads version 1"),
        ({"num_actions": 4}, r"policy\.\w+ has shape \[3.*needs \[4"),
        ({"frames": 3}, r"agent\.json: frames: unknown field"),
        (
            {"architecture": {"channels": [8] * 5, "downsample": [True] * 5}},
            r"agent\.json: frames of 8x8 pixels are too small",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    alone: Path, change: dict[str, Any], message: str
) -> None:
    file = alone / DESCRIPTION_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        load_actor_critic(alone)


def test_a_damaged_description_is_refused(alone: Path) -> None:
    file = alone / DESCRIPTION_FILE
    file.write_text(file.read_text()[:-5])
    with pytest.raises(FormatError, match=r"agent\.json is not JSON"):
        load_actor_critic(alone)
    (alone / AGENT_FILE).unlink()
    assert not has_actor_critic(alone)
