import pytest

from dreamenv.errors import GameError
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


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors("Foo-v0"):
        raise ZeroDivisionError
