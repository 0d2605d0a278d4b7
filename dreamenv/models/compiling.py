"""Compiling networks, with one line that says what to do where that fails."""

from collections.abc import Callable
from typing import Any

import torch

from dreamenv.errors import ConfigError

_LONGEST_REASON = 200  # characters
_NO_LIMIT = 10**6  # shapes


def compile_network(network: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a network as torch compiles it, once for each shape that it is called with.

    The first call of a shape takes a minute or so, and on a CPU a C++ compiler. Weights may go on
    changing.

    Args:
        network: A module, or a function of tensors.

    Returns:
        What is called in its place; it raises ConfigError where it cannot be compiled.
    """
    # The compiler: a second to import.
    from torch._dynamo.config import patch
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(network, dynamic=False)

    def call(*arguments: Any) -> Any:
        try:
            # With its own limit the ninth shape would silently not be compiled, nor any later one.
            with patch(cache_size_limit=_NO_LIMIT, accumulated_cache_size_limit=_NO_LIMIT):
                return compiled(*arguments)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise ConfigError(
                f"the networks cannot be compiled here; leave compile out ({reason})"
            ) from error

    return call
