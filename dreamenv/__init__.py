"""dreamenv: learned world models as Gymnasium environments.

Importing it registers `DreamEnv/<Game>-v0` with Gymnasium, and imports no torch: the public names
are loaded when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dreamenv.registration import register_ids

if TYPE_CHECKING:
    from dreamenv.dream.contexts import Contexts
    from dreamenv.dream.core import Dream
    from dreamenv.dream.gymnasium import DreamEnv, DreamVectorEnv
    from dreamenv.dream.sb3 import DreamVecEnv
    from dreamenv.models.world_model import WorldModel

__all__ = [
    "Contexts",
    "Dream",
    "DreamEnv",
    "DreamVecEnv",
    "DreamVectorEnv",
    "WorldModel",
    "register_ids",
]

_HOMES = {
    "Contexts": "dreamenv.dream.contexts",
    "Dream": "dreamenv.dream.core",
    "DreamEnv": "dreamenv.dream.gymnasium",
    "DreamVecEnv": "dreamenv.dream.sb3",
    "DreamVectorEnv": "dreamenv.dream.gymnasium",
    "WorldModel": "dreamenv.models.world_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_ids()
