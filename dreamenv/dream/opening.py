"""Opening a dream from what a face of it is made with: a name, a folder, or a world model."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from gymnasium.vector import AutoresetMode
from typing_extensions import Unpack

from dreamenv.devices import AUTO, computes_in_bf16, resolve_device
from dreamenv.dream.contexts import Contexts
from dreamenv.dream.core import DEFAULT_HORIZON, Dream
from dreamenv.errors import ArgumentError, InputError
from dreamenv.models.world_model import WorldModel
from dreamenv.registration import find_world_model


class DreamOptions(TypedDict, total=False):
    """The arguments that all faces of a dream share, those of `gymnasium.make` among them.

    Attributes:
        world_model: The folder of a world model, or one in memory, instead of the one that the
            name finds.
        contexts: Where dreams begin, or the folder of a world model that has contexts; by default
            those in the world model's own folder. One in memory needs them.
        horizon: Steps after which a dream is truncated; None for never. By default 50.
        denoising_steps: How many noise levels a frame is drawn with, or the levels themselves,
            falling; by default the world model's own.
        device: `auto` (CUDA, then MPS, then the CPU), or one by its name. A world model
            in memory is dreamt of where it is, unless a device is named; it is copied to another.
        frame_stack: k; observations are the last k frames, oldest first, one after the other along
            the channels. At the beginning they are real ones, those of the context. By default 1.
        sample_outcomes: Whether rewards and ends are drawn from their predicted distributions, as
            by default, or the likeliest are taken.
        compile: Whether to compile the networks: the first steps then take a minute or two, on a
            CPU with a C++ compiler, and the later ones less than without. By default they are not.
    """

    world_model: str | Path | WorldModel
    contexts: Contexts | str | Path | None
    horizon: int | None
    denoising_steps: int | Sequence[float] | None
    device: str
    frame_stack: int
    sample_outcomes: bool
    compile: bool


def open_dream(
    name: str | None,
    num_envs: int,
    autoreset: AutoresetMode | str,
    /,
    **options: Unpack[DreamOptions],
) -> Dream:
    """Opens a dream.

    Args:
        name: Of the world model, such as `Breakout`.
        num_envs: How many dreams at once.
        autoreset: When a dream that ended begins anew.
        **options: See `DreamOptions`.

    Raises:
        FormatError: There is no such world model, or it is damaged.
        ArgumentError: An option is unknown.
        InputError: Neither a name nor a world model is given, one in memory
            comes without contexts, or the device is not there.
        ConfigError: A number is out of range.
    """
    unknown = sorted(set(options) - set(DreamOptions.__annotations__))
    if unknown:
        # In Python's own words, since libraries try arguments and look for them.
        raise ArgumentError(
            f"got an unexpected keyword argument {unknown[0]!r}; a dream has "
            f"{', '.join(DreamOptions.__annotations__)}"
        )
    world_model, contexts = _find(name, options)
    return Dream(
        world_model,
        contexts,
        num_envs,
        horizon=options.get("horizon", DEFAULT_HORIZON),
        denoising_steps=options.get("denoising_steps"),
        autoreset=autoreset,
        frame_stack=options.get("frame_stack", 1),
        sample_outcomes=options.get("sample_outcomes", True),
        compile=options.get("compile", False),
    )


def _find(name: str | None, options: DreamOptions) -> tuple[WorldModel, Contexts]:
    device, contexts = options.get("device", AUTO), options.get("contexts")
    source = options.get("world_model")
    if isinstance(contexts, (str, Path)):
        contexts = Contexts.load(contexts)
    if isinstance(source, WorldModel):
        if contexts is None:
            raise InputError(
                "a world model in memory does not say where dreams begin; give contexts= as well"
            )
        return _on_device(source, device), contexts
    if source is None and name is None:
        raise InputError("no world model is named; give its name, or world_model=")
    if not isinstance(source, (str, Path, type(None))):
        raise InputError(
            f"world_model is a {type(source).__name__}; it must be a folder or a WorldModel"
        )
    folder = find_world_model(str(name)) if source is None else Path(source)
    world_model = WorldModel.load(folder, device=resolve_device(device))
    return world_model, Contexts.load(folder) if contexts is None else contexts


def _on_device(world_model: WorldModel, name: str) -> WorldModel:
    if name == AUTO:
        return world_model
    device, here = resolve_device(name), world_model.device
    if device.type == here.type and device.index in (None, here.index):
        return world_model
    moved = copy.deepcopy(world_model).to(device)
    # As `WorldModel.load` would there. Where bf16 could have been and is not, it was not wanted.
    is_wanted = world_model.bf16 or not computes_in_bf16(here)
    moved.bf16 = is_wanted and computes_in_bf16(device)
    return moved.compiled() if world_model.is_compiled else moved
