"""Configurations: frozen dataclasses that go to JSON and come back checked."""

import json
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import Self

from dreamenv.errors import FormatError


class Config:
    """Base of the configuration dataclasses.

    A subclass is a `@dataclass(frozen=True)` whose `__post_init__` raises `ConfigError` for
    values that cannot work.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values: numbers, strings, lists, dictionaries."""
        data: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str) -> Self:
        """Builds the configuration from what `to_dict` gave.

        Args:
            data: The fields. Those left out take their defaults.
            source: Where the data came from, for the error message.

        Raises:
            FormatError: A field is unknown, missing, of the wrong type, or refused.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            raise FormatError(f"{source}: {_first_problem(error)}") from None

    def first_difference(self, other: Self) -> str | None:
        """Names the first field in which another configuration of the kind differs.

        Args:
            other: The other configuration.

        Returns:
            The field and both its values in words, or None where the two are equal.
        """
        return _first_difference(self.to_dict(), other.to_dict(), "")


def _first_difference(mine: Any, other: Any, name: str) -> str | None:
    if mine == other:
        return None
    if isinstance(mine, dict) and isinstance(other, dict):
        fields = {key: f"{name}.{key}" if name else key for key in mine}
        found = (_first_difference(mine[key], other.get(key), fields[key]) for key in fields)
        return next((difference for difference in found if difference), None)
    return f"{name} {mine!r}, not {other!r}"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"]) or "the configuration"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unexpected_keyword_argument":
        message = "unknown field; remove it, or use the dreamenv version that wrote it"
    return f"{field}: {message}"
