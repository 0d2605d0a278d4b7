import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

import dreamenv
from dreamenv.errors import FormatError
from dreamenv.registration import ATARI_100K, find_world_model, home, register_ids


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty home, and a registry that forgets what a test registers."""
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    import ale_py  # noqa: F401  # so that its games, once registered, are not forgotten

    before = dict(gymnasium.registry)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def make_world(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_26_games_of_atari_100k_have_ids() -> None:
    assert len(set(ATARI_100K)) == 26
    for game in ATARI_100K:
        spec = gymnasium.spec(f"DreamEnv/{game}-v0")
        assert spec.entry_point == "dreamenv.dream.gymnasium:DreamEnv"
        assert spec.vector_entry_point == "dreamenv.dream.gymnasium:DreamVectorEnv"


def test_the_games_are_those_of_ale_py() -> None:
    import ale_py

    gymnasium.register_envs(ale_py)
    for game in ATARI_100K:
        assert f"ALE/{game}-v5" in gymnasium.registry


def test_every_world_model_at_home_has_an_id(tmp_path: Path) -> None:
    make_world(tmp_path / "home" / "My.own_world-2")
    (tmp_path / "home" / "no-world").mkdir()
    (tmp_path / "home" / ".hidden").mkdir()
    (tmp_path / "home" / "file").touch()
    before = set(gymnasium.registry)
    register_ids()
    assert set(gymnasium.registry) - before == {"DreamEnv/My.own_world-2-v0"}
    assert gymnasium.spec("DreamEnv/My.own_world-2-v0").kwargs == {"name": "My.own_world-2"}


def test_importing_registers_what_is_at_home_and_no_torch(tmp_path: Path) -> None:
    make_world(tmp_path / "home" / "Mine")
    code = (
        "import sys, dreamenv, gymnasium\n"
        "print('DreamEnv/Mine-v0' in gymnasium.registry, 'torch' in sys.modules)"
    )
    assert run(code) == "True False\n"


def test_a_home_that_is_no_folder_keeps_nothing_from_being_imported(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    assert run("import dreamenv, gymnasium; gymnasium.spec('DreamEnv/Pong-v0')") == ""


def test_what_someone_registered_under_an_id_stays(tmp_path: Path) -> None:
    make_world(tmp_path / "home" / "Mine")
    gymnasium.register("DreamEnv/Mine-v0", entry_point="somebody:else")
    register_ids()
    assert gymnasium.spec("DreamEnv/Mine-v0").entry_point == "somebody:else"


@pytest.mark.parametrize("name", ["Mine", "DreamEnv/Mine-v0"])
def test_a_world_model_is_found_at_home(name: str, tmp_path: Path) -> None:
    folder = make_world(tmp_path / "home" / "Mine")
    assert find_world_model(name) == folder


def test_a_name_that_looks_like_an_id_is_found_as_it_is(tmp_path: Path) -> None:
    folder = make_world(tmp_path / "home" / "Mine-v0")
    assert find_world_model("Mine-v0") == folder
    assert find_world_model("DreamEnv/Mine-v0-v0") == folder


def test_home_comes_before_what_is_bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dreamenv.registration._BUNDLED", tmp_path / "bundled")
    bundled = make_world(tmp_path / "bundled" / "Pong")
    assert find_world_model("Pong") == bundled
    own = make_world(tmp_path / "home" / "Pong")
    assert find_world_model("Pong") == own


def test_a_game_without_a_world_model_names_the_two_commands_that_get_one() -> None:
    with pytest.raises(FormatError) as error:
        gymnasium.make("DreamEnv/Boxing-v0")
    assert str(error.value) == (
        f"there is no world model 'Boxing' in {home()}; fit one with `dreamenv fit-model --env "
        f"ALE/Boxing-v5 --name Boxing`, or fetch one with `dreamenv pull OWNER/REPOSITORY --name "
        f"Boxing`"
    )
    with pytest.raises(FormatError, match="no world model 'Boxing'"):
        gymnasium.make_vec("DreamEnv/Boxing-v0", num_envs=2)


def test_home_is_where_the_variable_says_or_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMENV_HOME", "elsewhere")
    assert home() == Path("elsewhere")
    monkeypatch.delenv("DREAMENV_HOME")
    assert home() == Path.home() / ".cache" / "dreamenv"


def test_the_public_names_are_there() -> None:
    for name in dreamenv.__all__:
        assert getattr(dreamenv, name).__module__.startswith("dreamenv.")
        assert name in dir(dreamenv)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dreamenv.nothing


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DREAMENV_HOME", "~/worlds")
    assert home() == tmp_path / "worlds"


def test_who_has_no_home_can_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("DREAMENV_HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    register_ids()
    assert find_world_model("Pong").is_dir()


def test_what_may_not_be_read_has_no_id_and_takes_none_from_others(
    tmp_path: Path, locked: set[Path]
) -> None:
    make_world(tmp_path / "home" / "Another")
    locked.add(make_world(tmp_path / "home" / "Private"))
    register_ids()
    assert "DreamEnv/Another-v0" in gymnasium.registry
    assert "DreamEnv/Private-v0" not in gymnasium.registry
    with pytest.raises(FormatError, match=r"home/Private cannot be read \(Permission denied\)"):
        find_world_model("Private")


def test_a_home_that_may_not_be_read_is_named(tmp_path: Path, locked: set[Path]) -> None:
    locked.add(tmp_path / "home")
    register_ids()
    with pytest.raises(FormatError, match="name another place for world models in"):
        find_world_model("Pong")
