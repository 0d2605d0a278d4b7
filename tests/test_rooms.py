"""Who may import whom: cli, play -> training -> evaluation -> dream, zoo -> models, data, real."""

import ast
from pathlib import Path

import dreamenv

PACKAGE = Path(dreamenv.__file__).parent
LEVELS = [
    {"cli", "play"},
    {"training"},  # which tells how good an agent has become, and so looks at evaluation
    {"evaluation"},
    {"dream", "zoo"},
    {"models", "data", "real"},
]
ROOMS = set().union(*LEVELS)


def imports(file: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(file: Path) -> set[str]:
    parts = (name.split(".") for name in imports(file))
    return {part[1] for part in parts if part[0] == "dreamenv" and len(part) > 1} & ROOMS


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_imports_go_downwards_only() -> None:
    for height, level in enumerate(LEVELS):
        below = set().union(*LEVELS[height + 1 :])
        for room in level:
            for file in files(room):
                wrong = rooms_imported(file) - below - {room}
                assert not wrong, f"{file.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_what_all_rooms_stand_on_imports_none_of_them() -> None:
    for file in PACKAGE.glob("*.py"):
        if file.name not in ("__init__.py", "__main__.py"):  # the front door opens to the rooms
            assert not rooms_imported(file), file.name


def test_models_and_data_know_nothing_of_gymnasium() -> None:
    for file in files("models") + files("data"):
        assert not any(name.split(".")[0] == "gymnasium" for name in imports(file)), file


def test_stable_baselines3_is_imported_only_for_agents() -> None:
    allowed = {PACKAGE / "dream" / "sb3.py", *files("training")}
    for room in ROOMS:
        for file in set(files(room)) - allowed:
            packages = {name.split(".")[0] for name in imports(file)}
            assert not packages & {"stable_baselines3", "sb3_contrib"}, file
