"""Weights on disk: safetensors, checked key by key before anything is read."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from dreamenv.errors import FormatError

_FLOATS = ("F64", "F32", "F16", "BF16")


def write_weights(module: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes the parameters and buffers of a module.

    Args:
        module: All its parameters and persistent buffers are floating point.
        path: The file to write.
        dtype: What they become on disk.
    """
    weights = module.state_dict()
    # save_file would hide a full disk in an error of its own.
    path.write_bytes(save({key: tensor.to(dtype).contiguous() for key, tensor in weights.items()}))


def read_weights(module: nn.Module, path: Path) -> None:
    """Reads what `write_weights` wrote into a module, as float32, in place of its tensors.

    Args:
        module: Built like the one that was written; it may be on the meta device.
        path: The file to read.

    Raises:
        FormatError: The file is missing or damaged, or a key, a shape or a type is not the
            module's. The module is left as it was.
    """
    if not path.is_file():
        raise FormatError(f"{path} is missing; the folder is no whole world model")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            _check_types(path, {key: piece.get_dtype() for key, piece in slices.items()})
            check_shapes(
                str(path),
                {key: tuple(piece.get_shape()) for key, piece in slices.items()},
                {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()},
            )
            weights = {key: file.get_tensor(key).float() for key in slices}
    except SafetensorError as error:
        raise FormatError(
            f"{path} is not a whole safetensors file ({error}); restore or fit the world model"
        ) from None
    module.load_state_dict(weights, assign=True)


def check_shapes(
    source: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> None:
    """Checks that two sets of named tensors have the same keys and shapes.

    Raises:
        FormatError: They differ; it names the first difference and what would be right.
    """
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise FormatError(
            f"{source} lacks {_first_of(missing)}; the architecture in its configuration has it"
        )
    if unknown:
        raise FormatError(
            f"{source} has {_first_of(unknown)}, unknown to the architecture in its configuration"
        )
    for key, shape in wanted.items():
        if found[key] != shape:
            raise FormatError(
                f"{source}: {key} has shape {list(found[key])}; the architecture in its "
                f"configuration needs {list(shape)}"
            )


def _check_types(path: Path, types: dict[str, str]) -> None:
    for key, dtype in types.items():
        if dtype not in _FLOATS:
            raise FormatError(f"{path}: {key} has type {dtype}; it must be one of {_FLOATS}")


def _first_of(keys: list[str]) -> str:
    return f"{keys[0]!r}" if len(keys) == 1 else f"{keys[0]!r} and {len(keys) - 1} more keys"
