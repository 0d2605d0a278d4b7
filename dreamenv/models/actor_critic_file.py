"""The actor-critic on disk: its weights, and of what architecture they are.

In a world model's folder its config.json says that; in a folder of its own agent.json does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from dreamenv.config import Config
from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import committed_path
from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.skeleton import skeleton
from dreamenv.models.weights import read_weights, write_weights
from dreamenv.models.world_model import CONFIG_FILE, read_description

AGENT_FILE = "agent.safetensors"
DESCRIPTION_FILE = "agent.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ActorCriticDescription(Config):
    """What an actor-critic is, without its weights.

    Attributes:
        architecture: Of its network.
        obs_shape: C, H, W of a frame.
        num_actions: The number of actions.
        format_version: Of the file.
    """

    architecture: ActorCriticConfig
    obs_shape: tuple[int, int, int]
    num_actions: int
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"format version {self.format_version}; this dreamenv reads version "
                f"{FORMAT_VERSION}: upgrade dreamenv"
            )


def has_actor_critic(folder: Path) -> bool:
    """Whether a folder has an actor-critic."""
    return committed_path(folder, AGENT_FILE).is_file()


def write_actor_critic(network: ActorCritic, folder: Path) -> None:
    """Writes the weights. What they are of is said by what is saved with them.

    That is `Origin.agent` of a world model, or where there is none `write_description`.

    Args:
        network: The actor-critic.
        folder: Where, as `WorldModel.save` gives it to `also`.
    """
    write_weights(network, folder / AGENT_FILE)


def write_description(description: ActorCriticDescription, folder: Path) -> None:
    """Writes what weights are of that are in a folder without a world model.

    Args:
        description: Of the actor-critic.
        folder: Where.
    """
    text = json.dumps(description.to_dict(), indent=2)
    (folder / DESCRIPTION_FILE).write_text(text + "\n")


def load_actor_critic(folder: str | Path, *, device: str | torch.device = "cpu") -> ActorCritic:
    """Reads the actor-critic of a folder. Nothing in it can run code.

    Args:
        folder: As `WorldModel.save` left it, with `write_actor_critic`, or one with the files of
            `write_actor_critic` and `write_description`.
        device: Where the weights go.

    Returns:
        The actor-critic, in evaluation mode, its weights float32.

    Raises:
        FormatError: The folder has none, or it is damaged or does not fit.
    """
    folder = Path(folder)
    path = committed_path(folder, DESCRIPTION_FILE)
    described = path.is_file()
    description = _read_description(path) if described else _described_by_world_model(folder)
    if description is None or not has_actor_critic(folder):
        raise FormatError(f"{folder} has no actor-critic; name a folder that `train` left")
    try:
        with skeleton():
            network = ActorCritic(
                description.architecture, description.obs_shape, description.num_actions
            )
    except ConfigError as error:
        source = path if described else f"{folder / CONFIG_FILE}: agent"
        raise FormatError(f"{source}: {error}") from None
    read_weights(network, committed_path(folder, AGENT_FILE))
    return network.to(device).eval()


def _read_description(path: Path) -> ActorCriticDescription:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(f"{path} is not JSON ({error}); restore it, or train again") from None
    return ActorCriticDescription.from_dict(data, str(path))


def _described_by_world_model(folder: Path) -> ActorCriticDescription | None:
    config, origin = read_description(folder)
    if origin.agent is None:
        return None
    return ActorCriticDescription(origin.agent, config.obs_shape, config.num_actions)
