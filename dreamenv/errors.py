"""The project's own exceptions: one line that names the thing and says what to do."""


class DreamenvError(Exception):
    """Base of every error that dreamenv raises on purpose.

    Attributes:
        exit_code: What a command that ends with this error exits with.
    """

    exit_code = 1


class ConfigError(DreamenvError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class InputError(DreamenvError, ValueError):
    """A tensor, an action or an argument of the wrong shape, type or range."""


class ArgumentError(InputError, TypeError):
    """A keyword argument that is not known."""


class FormatError(DreamenvError):
    """A folder or a file that is missing, damaged, foreign, or of a later format version."""


class GameError(DreamenvError):
    """A real environment that cannot be made, or that dreamenv cannot learn from."""


class RankError(DreamenvError):
    """One of several processes that train together has ended, and the others cannot go on."""


class StateError(DreamenvError, RuntimeError):
    """A call that comes too early, as a step before a reset, or too late, as one after a close."""
