"""Between the dream's tensors and what its faces take and give: arrays, channels last."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor

from dreamenv.dream.core import Dream
from dreamenv.dream.step import DreamStep
from dreamenv.errors import InputError


def observation_space(dream: Dream) -> Space[npt.NDArray[np.uint8]]:
    """Returns the space of one observation, uint8 [H, W, k * C]."""
    channels, height, width = dream.obs_shape
    space: Space[Any] = Box(0, 255, (height, width, channels), np.uint8)
    return space


def action_meanings(dream: Dream) -> list[str]:
    """Returns a name for each action: that of the real environment, or its number."""
    environment = dream.world_model.origin.environment
    if environment is None:
        return [str(action) for action in range(dream.world_model.config.num_actions)]
    return list(environment.action_meanings)


def to_channels_last(obs: Tensor) -> Tensor:
    """Turns observations [N, C, H, W] into [N, H, W, C], contiguous."""
    return obs.permute(0, 2, 3, 1).contiguous()


def outward(step: DreamStep) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns what every face gives of a step, on its device.

    Returns:
        Observations uint8 [N, H, W, k * C], rewards, terminated and truncated.
    """
    return to_channels_last(step.obs), step.reward, step.terminated, step.truncated


def to_actions(actions: Any) -> Tensor:
    """Turns integers [N], in an array, a sequence or a tensor, into int64 [N].

    Raises:
        InputError: They are no integers.
    """
    return _to_integers("actions", actions)


def to_mask(mask: Any) -> Tensor:
    """Turns a mask bool [N], an array or a tensor, into a tensor.

    Raises:
        InputError: It is neither, or chooses nothing.
    """
    if isinstance(mask, np.ndarray) and mask.dtype.kind in "biuf":
        # A copy: torch knows neither arrays that run backwards nor ones not to be written to.
        mask = torch.from_numpy(mask.copy())
    if not isinstance(mask, Tensor):
        raise InputError(f"reset_mask is a {type(mask).__name__}; it must be an array of bool")
    if mask.dtype == torch.bool and not mask.any():
        raise InputError("reset_mask chooses no dream; leave it out to reset all")
    return mask


def context_option(options: Mapping[str, Any] | None, num_envs: int) -> Tensor | None:
    """Returns the contexts of the bank that the options of a reset name, int64 [N].

    Raises:
        InputError: They are no integers.
    """
    context = (options or {}).get("context")
    if context is None:
        return None
    contexts = _to_integers("contexts", context)
    return contexts.repeat(num_envs) if contexts.ndim == 0 else contexts


def check_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> None:
    """Refuses options of a reset that nothing would look at.

    Raises:
        InputError: There is one, or the options are no dictionary.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InputError(f"options is a {type(options).__name__}; it must be a dictionary")
    unknown = sorted(str(key) for key in options or {} if key not in known)
    if unknown:
        raise InputError(f"options has {', '.join(unknown)}; a dream knows {', '.join(known)}")


def _to_integers(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        dtype = values.dtype
        if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
            raise InputError(f"{name} are {dtype}; they must be integers")
        return values.long()
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} are rows of unequal length; they must be integers") from None
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} are {array.dtype}; they must be integers")
    return torch.from_numpy(array.astype(np.int64))
