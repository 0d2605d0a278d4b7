from dataclasses import replace

import pytest

from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import ConfigError, FormatError

PONG = EnvironmentSpec(
    id="ALE/Pong-v5",
    obs_shape=(3, 64, 64),
    action_meanings=("NOOP", "FIRE", "RIGHT", "LEFT"),
    preprocessing=Preprocessing(sticky_actions=0.25),
)


def test_a_configuration_survives_the_way_to_json_and_back() -> None:
    assert EnvironmentSpec.from_dict(PONG.to_dict(), "config.json") == PONG


def test_fields_left_out_take_their_defaults() -> None:
    data = PONG.to_dict()
    del data["preprocessing"]
    assert EnvironmentSpec.from_dict(data, "config.json").preprocessing == Preprocessing()


def test_the_first_difference_is_named_with_both_values() -> None:
    other = replace(PONG, preprocessing=replace(PONG.preprocessing, noop_max=0))
    assert PONG.first_difference(PONG) is None
    assert PONG.first_difference(other) == "preprocessing.noop_max 30, not 0"


def test_an_unknown_field_is_named_with_its_place() -> None:
    data = PONG.to_dict()
    data["preprocessing"]["frameskip"] = 4
    with pytest.raises(FormatError, match=r"config\.json: preprocessing\.frameskip: unknown field"):
        EnvironmentSpec.from_dict(data, "config.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [("obs_shape", [3, 64]), ("obs_shape", "64x64"), ("action_meanings", []), ("id", 7)],
)
def test_a_wrong_value_is_named_with_its_place(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=field):
        EnvironmentSpec.from_dict(PONG.to_dict() | {field: value}, "config.json")


def test_a_missing_field_is_named() -> None:
    data = PONG.to_dict()
    del data["id"]
    with pytest.raises(FormatError, match=r"config\.json: id: "):
        EnvironmentSpec.from_dict(data, "config.json")


@pytest.mark.parametrize("bad", [{"frame_skip": 0}, {"noop_max": -1}, {"sticky_actions": 1.0}])
def test_settings_that_cannot_work_are_refused_when_they_are_made(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Preprocessing(**bad)  # type: ignore[arg-type]
