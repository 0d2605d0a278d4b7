"""The actor-critic in a world model's folder: its weights; its architecture is in config.json."""

from pathlib import Path

import torch

from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import committed_path
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.models.skeleton import skeleton
from dreamenv.models.weights import read_weights, write_weights
from dreamenv.models.world_model import CONFIG_FILE, read_description

AGENT_FILE = "agent.safetensors"


def has_actor_critic(folder: Path) -> bool:
    """Whether a world model's folder has an actor-critic."""
    return committed_path(folder, AGENT_FILE).is_file()


def write_actor_critic(network: ActorCritic, folder: Path) -> None:
    """Writes the weights. `Origin.agent` of the world model that is saved with them says of what.

    Args:
        network: The actor-critic.
        folder: Where, as `WorldModel.save` gives it to `also`.
    """
    write_weights(network, folder / AGENT_FILE)


def load_actor_critic(folder: str | Path, *, device: str | torch.device = "cpu") -> ActorCritic:
    """Reads the actor-critic of a world model's folder. Nothing in it can run code.

    Args:
        folder: As `WorldModel.save` left it, with `write_actor_critic`.
        device: Where the weights go.

    Returns:
        The actor-critic, in evaluation mode, its weights float32.

    Raises:
        FormatError: The folder has none, or it is damaged or does not fit.
    """
    folder = Path(folder)
    config, origin = read_description(folder)
    if origin.agent is None or not has_actor_critic(folder):
        raise FormatError(f"{folder} has no actor-critic; name a folder that `train` left")
    try:
        with skeleton():
            network = ActorCritic(origin.agent, config.obs_shape, config.num_actions)
    except ConfigError as error:
        raise FormatError(f"{folder / CONFIG_FILE}: agent: {error}") from None
    read_weights(network, committed_path(folder, AGENT_FILE))
    return network.to(device).eval()
