"""What a fit begins with: fresh weights, or those of a world model that was fitted before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamenv.data import Replay
from dreamenv.data.crops import check_crop
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError
from dreamenv.evaluation.world_folder import world_folder
from dreamenv.files import committed_path
from dreamenv.models.skeleton import skeleton
from dreamenv.models.weights import read_weights
from dreamenv.models.world_model import WEIGHTS_FILE, Origin, WorldModel, read_description
from dreamenv.training.fit_config import FitModelConfig, architecture
from dreamenv.training.world_model import measure_change

# Settings of the denoiser that weights do not depend on: what it learns from may change.
_FREE = (
    "log_sigma_mean",
    "log_sigma_std",
    "sigma_min",
    "sigma_max",
    "start_share",
    "choice_cost",
    "forget_share",
)
# And those of a part that has no effect at first, where the weights have none.
_OF_CHOICES = "choices", "reward_memory", "place_maps"


def first_model(config: FitModelConfig, replay: Replay, device: torch.device) -> WorldModel:
    """Returns the world model as it is before the first step of a fit.

    Its units are measured in the data, or come with the weights that it begins with.

    Args:
        config: What is fitted.
        replay: What it is fitted to.
        device: Where.

    Raises:
        DreamenvError: The world model to begin with is not there, or is of another architecture,
            or environment.
    """
    check_beginning(config)
    origin = Origin(environment=replay.environment)
    torch.manual_seed(config.seed)
    model = WorldModel(architecture(config, replay.environment), origin).to(device)
    if config.begin_with is None:
        measure_change(model, replay, device)
    else:
        _begin_with(model, world_folder(config.begin_with))
    return model


def _begin_with(model: WorldModel, folder: Path) -> None:
    """Fills a model with the weights of another; choices that are new have no effect yet."""
    known, _ = read_description(folder)
    with skeleton():
        earlier = WorldModel(replace(model.config, denoiser=known.denoiser))
    read_weights(earlier, committed_path(folder, WEIGHTS_FILE))
    weights = {**model.state_dict(), **earlier.state_dict()}
    model.load_state_dict(weights)


def check_networks(config: FitModelConfig, environment: EnvironmentSpec) -> None:
    """Checks that what is to be fitted goes with the frames and the actions.

    Raises:
        ConfigError: The networks, or the squares they learn from, are too large for them, or the
            world model to begin with has others.
    """
    if config.begin_with is not None:
        _check_same_game(config.begin_with, environment)
    with skeleton():
        WorldModel(architecture(config, environment))
    _, height, width = environment.obs_shape
    for size in (config.training.crop, config.training.unrolled_crop):
        if size is not None:
            check_crop(size, height, width)


def _check_same_game(begin_with: str, environment: EnvironmentSpec) -> None:
    known, _ = read_description(world_folder(begin_with))
    if (known.obs_shape, known.num_actions) != (environment.obs_shape, environment.num_actions):
        raise ConfigError(
            f"{begin_with} has frames {list(known.obs_shape)} and {known.num_actions} actions, "
            f"{environment.id} {list(environment.obs_shape)} and {environment.num_actions}; begin "
            f"with a world model of the same, or with fresh weights"
        )


def check_beginning(config: FitModelConfig) -> None:
    """Checks that the weights to begin with are there, and of these networks.

    Raises:
        FormatError: There is no such world model.
        ConfigError: It has other networks, or none is named and only choices are to be learned.
    """
    if config.only_choices and not (config.begin_with and config.denoiser.choices):
        raise ConfigError(
            f"only_choices is on, begin_with {config.begin_with} and choices "
            f"{config.denoiser.choices}; give a world model to begin with, and choices"
        )
    if config.begin_with is None:
        return
    known, _ = read_description(world_folder(config.begin_with))
    free = _FREE if known.denoiser.choices else (*_FREE, *_OF_CHOICES)
    denoiser = replace(config.denoiser, **{name: getattr(known.denoiser, name) for name in free})
    differences = {
        "denoiser": known.denoiser.first_difference(denoiser),
        "reward_end": known.reward_end.first_difference(config.reward_end),
    }
    for part, difference in differences.items():
        if difference is not None:
            raise ConfigError(
                f"{config.begin_with} has a {part} with {difference}; leave that as it is there, "
                f"or begin with fresh weights"
            )


def how_it_was_fit_before(config: FitModelConfig) -> dict[str, Any] | None:
    """Returns how the world model to begin with was fitted, or None where there is none."""
    if config.begin_with is None:
        return None
    return read_description(world_folder(config.begin_with))[1].fit
