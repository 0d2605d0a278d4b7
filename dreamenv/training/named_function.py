"""Finding a Python function that a configuration names."""

import importlib
from collections.abc import Callable
from typing import Any

from dreamenv.errors import InputError


def load_function(name: str, setting: str) -> Callable[..., Any]:
    """Imports a function, or a class. The code of its module runs.

    Args:
        name: As `module:name`.
        setting: What names it, for errors.

    Raises:
        InputError: There is none of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # The module is the user's: importing it can raise anything.
        raise InputError(
            f"{setting} {name!r} cannot be imported ({type(error).__name__}: {error}); name a "
            f"function in a module that Python finds"
        ) from error
    if not callable(function):
        raise InputError(
            f"{setting} {name!r} is a {type(function).__name__}; it must be a function"
        )
    found: Callable[..., Any] = function
    return found
