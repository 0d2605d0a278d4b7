from pathlib import Path

import pytest

from dreamenv.errors import GameError, InputError
from dreamenv.real.catalog import find, is_atari, one_line_errors


def test_a_known_id_is_found() -> None:
    assert is_atari(find("ALE/MsPacman-v5"))
    assert not is_atari(find("CartPole-v1"))


@pytest.mark.parametrize(
    "slip",
    ["ALE/pong-v5", "Pong-v5", "Pong", "pong", "PongNoFrameskip-v4", "Pong-v4", "ALE/Pomg-v5"],
)
def test_a_slip_leads_to_the_id_that_was_meant(slip: str) -> None:
    with pytest.raises(GameError, match=rf"^'{slip}' is not .*; did you mean ALE/Pong-v5\?$"):
        find(slip)


def test_another_version_or_spelling_leads_to_the_newest_version() -> None:
    with pytest.raises(GameError, match=r"did you mean CartPole-v1"):
        find("cart_pole-v7")
    with pytest.raises(GameError, match=r"did you mean ALE/MsPacman-v5\?"):
        find("ms_pacman")


def test_an_id_that_resembles_none_is_told_of_other_packages() -> None:
    with pytest.raises(GameError, match=r"^'Xyzzy-v0' is not .*; write package:Id-v0 if .*$"):
        find("Xyzzy-v0")


def test_the_package_in_front_of_an_id_is_imported() -> None:
    assert find("gymnasium:CartPole-v1").id == "CartPole-v1"
    with pytest.raises(GameError, match=r"^no_such_package:Foo-v0: No module named .*; install"):
        find("no_such_package:Foo-v0")


def test_the_reason_why_an_environment_does_not_open_becomes_one_line() -> None:
    expected = r"^Foo-v0: first line second line$"
    with pytest.raises(GameError, match=expected), one_line_errors("Foo-v0"):
        raise ImportError("first line\nsecond line")


@pytest.mark.parametrize("error", [ZeroDivisionError("in\ntwo lines"), AssertionError()])
def test_what_the_code_of_an_environment_raises_becomes_one_line(error: Exception) -> None:
    expected = rf"^Foo-v0: its own code fails \({type(error).__name__}( in two lines)?\); repair"
    with pytest.raises(GameError, match=expected), one_line_errors("Foo-v0"):
        raise error


def test_a_package_that_fails_as_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_games.py").write_text("{}['key']\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GameError, match=r"^failing_games:Foo-v0: its own code .*KeyError 'key'"):
        find("failing_games:Foo-v0")


@pytest.mark.parametrize("error", [InputError("as it was"), KeyboardInterrupt()])
def test_our_own_errors_and_interruptions_are_left_alone(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, one_line_errors("Foo-v0"):
        raise error
    assert raised.value is error
