"""Pulling world models, from a server on this machine that speaks as the Hub does."""

import errno
import hashlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from dreamenv.cli.main import main
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig
from dreamenv.registration import find_world_model
from dreamenv.zoo.hub import pull as pull_from

pytest.importorskip("huggingface_hub")

Files = dict[str, bytes]

TINY = WorldModelConfig(
    num_actions=3,
    obs_shape=(3, 16, 16),
    denoiser=DenoiserConfig(
        context_length=2, cond_channels=16, channels=(8, 8), depths=(1, 1), attention=(False,) * 2
    ),
    reward_end=RewardEndConfig(
        cond_channels=8, channels=(8, 8), depths=(1, 1), attention=(False,) * 2, lstm_dim=8
    ),
)
CATCH = EnvironmentSpec(id="Catch-v0", obs_shape=(3, 16, 16), action_meanings=("L", "-", "R"))
NEEDED = ["config.json", "contexts.npz", "world_model.safetensors"]


class Hub(ThreadingHTTPServer):
    """As much of the Hub as huggingface_hub asks for.

    Attributes:
        repositories: Files by revision, by repository.
        gated: Repositories whose files are not for everybody.
        hidden: Repositories that strangers are told nothing of.
        sizes: Sizes that are told instead of the true ones, by path.
        broken: Paths whose body ends early.
        fetched: The paths that were asked for, in the order of asking.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Files]] = {}
        self.gated: set[str] = set()
        self.hidden: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.broken: set[str] = set()
        self.fetched: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repository: str, files: Files, revision: str = "main") -> None:
        self.repositories.setdefault(repository, {})[revision] = files


def commit_of(files: Files) -> str:
    return hashlib.sha1(pickle.dumps(sorted(files.items()))).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if parts[:2] == ["api", "models"]:
            self.tell(parts[2:])
        else:
            self.give(parts)

    def tell(self, parts: list[str]) -> None:
        """`/api/models/OWNER/REPOSITORY[/revision/REVISION]`: what there is."""
        files = self.find("/".join(parts[:2]), parts[3] if parts[2:] else "main")
        if files is None:
            return
        siblings = [
            {"rfilename": path, "size": self.server.sizes.get(path, len(content))}
            for path, content in files.items()
        ]
        info = {"id": "/".join(parts[:2]), "sha": commit_of(files), "siblings": siblings}
        self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def give(self, parts: list[str]) -> None:
        """`/OWNER/REPOSITORY/resolve/REVISION/PATH`: a file."""
        repository, path = "/".join(parts[:2]), "/".join(parts[4:])
        if repository in self.server.gated:
            self.refuse(403, "GatedRepo")
            return
        files = self.find(repository, parts[3])
        if files is None:
            return
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        if self.command == "GET":
            self.server.fetched.append(path)
        etag = hashlib.sha256(files[path]).hexdigest()
        self.answer(
            200,
            files[path],
            {"X-Repo-Commit": commit_of(files), "ETag": f'"{etag}"'},
            broken=path in self.server.broken,
        )

    def find(self, repository: str, revision: str) -> Files | None:
        if repository in self.server.hidden:
            self.answer(401, b'{"error": "Invalid username or password."}', {})
            return None
        revisions = self.server.repositories.get(repository)
        if revisions is None:
            self.refuse(404, "RepoNotFound")
            return None
        by_commit = {commit_of(files): files for files in revisions.values()}
        files = revisions.get(revision) or by_commit.get(revision)
        if files is None:
            self.refuse(404, "RevisionNotFound")
        return files

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(
        self, status: int, body: bytes, headers: dict[str, str], *, broken: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if broken else body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pull(hub: Hub, home: Path) -> Callable[..., Path]:  # noqa: ARG001
    return partial(pull_from, check_contexts=Contexts.load, endpoint=hub.address)


def world(folder: Path, number: int = 0) -> Files:
    """The files of a world model, other ones for another number."""
    torch.manual_seed(number)
    model = WorldModel(TINY, Origin(environment=CATCH, fit={"number": number}))
    model.save(folder)
    frames = torch.full((2, 2, 3, 16, 16), number, dtype=torch.uint8)
    Contexts(frames, torch.zeros(2, 2, dtype=torch.int64)).save(folder)
    (folder / "README.md").write_text(f"# World {number}\n")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return world(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return world(tmp_path_factory.mktemp("two"), 2)


def content(folder: Path) -> dict[str, bytes]:
    """All files under a folder, hidden ones too."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def within(subfolder: str, files: Files) -> Files:
    return {f"{subfolder}/{name}": content for name, content in files.items()}


class TestPull:
    def test_a_world_is_there_as_it_was_published(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files
    ) -> None:
        hub.add("alice/Catch", one)
        folder = pull("alice/Catch")
        assert folder == home / "Catch"
        assert content(home) == {f"Catch/{name}": data for name, data in one.items()}
        assert find_world_model("Catch") == folder
        assert WorldModel.load(folder).origin.fit == {"number": 1}

    def test_nothing_else_is_fetched(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files
    ) -> None:
        evil = {
            "evil.py": b"raise SystemExit",
            "pytorch_model.bin": b"pickle",
            "config.json.py": b"",
            "agent.safetensors.pkl": b"",
            "sub/config.json": b"{}",
            "../escape": b"",
        }
        hub.add("alice/Catch", one | evil)
        pull("alice/Catch")
        assert sorted(hub.fetched) == sorted(one)
        assert sorted(content(home)) == sorted(f"Catch/{name}" for name in one)

    def test_an_agent_comes_with_it_and_a_card_may_be_missing(
        self, hub: Hub, pull: Callable[..., Path], one: Files
    ) -> None:
        files = {name: one[name] for name in NEEDED} | {"agent.safetensors": b"weights"}
        hub.add("alice/Catch", files)
        assert content(pull("alice/Catch")) == files

    def test_one_of_several_worlds(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files, two: Files
    ) -> None:
        hub.add("alice/worlds", within("Pong", one) | within("more/Catch", two))
        assert pull("alice/worlds/Pong") == home / "Pong"
        assert content(home / "Pong") == one
        assert pull("alice/worlds/more/Catch", name="Mine") == home / "Mine"
        assert content(home / "Mine") == two

    @pytest.mark.parametrize("name", [None, "Catch-v0", "DreamEnv/Catch-v0", "Catch"])
    def test_an_id_names_the_world_it_is_the_id_of(
        self, hub: Hub, pull: Callable[..., Path], one: Files, name: str | None
    ) -> None:
        hub.add("alice/Catch-v0", one)
        assert pull("alice/Catch-v0", name=name).name == "Catch"

    def test_a_revision_can_be_chosen(
        self, hub: Hub, pull: Callable[..., Path], one: Files, two: Files
    ) -> None:
        hub.add("alice/Catch", one)
        hub.add("alice/Catch", two, revision="refs/pr/1")
        assert content(pull("alice/Catch", revision="refs/pr/1")) == two
        assert content(pull("alice/Catch", revision=commit_of(one), overwrite=True)) == one

    def test_the_files_can_be_read_by_all_who_may(
        self, hub: Hub, pull: Callable[..., Path], one: Files, tmp_path: Path
    ) -> None:
        hub.add("alice/Catch", one)
        (tmp_path / "usual").touch()
        usual = (tmp_path / "usual").stat().st_mode
        assert {path.stat().st_mode for path in pull("alice/Catch").iterdir()} == {usual}


class TestExisting:
    def test_a_world_that_is_there_is_refused_before_anything_is_fetched(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files, two: Files
    ) -> None:
        hub.add("alice/Catch", one)
        hub.add("bob/Catch", two)
        pull("alice/Catch")
        hub.fetched.clear()
        with pytest.raises(FormatError, match=r"Catch is there already; add --overwrite"):
            pull("bob/Catch")
        assert hub.fetched == []
        assert content(home / "Catch") == one

    def test_it_is_replaced_with_its_agent_and_its_figures_and_other_files_stay(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files, two: Files
    ) -> None:
        hub.add("alice/Catch", one | {"agent.safetensors": b"plays world 1"})
        hub.add("bob/Catch", two)
        folder = pull("alice/Catch")
        for name in ("notes.txt", "fidelity.json", "fidelity.png"):
            (folder / name).write_text("mine")
        pull("bob/Catch", overwrite=True)
        assert content(home / "Catch") == two | {"notes.txt": b"mine"}

    def test_a_bad_world_replaces_nothing(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files, two: Files
    ) -> None:
        hub.add("alice/Catch", one)
        hub.add("bob/Catch", two | {"contexts.npz": b"\0" * 100})
        pull("alice/Catch")
        with pytest.raises(FormatError, match=r"bob/Catch/contexts\.npz holds no contexts"):
            pull("bob/Catch", overwrite=True)
        assert content(home) == {f"Catch/{name}": data for name, data in one.items()}

    def test_one_that_another_fetched_meanwhile_is_kept(
        self, hub: Hub, home: Path, pull: Callable[..., Path], one: Files
    ) -> None:
        hub.add("alice/Catch", one)

        def another_is_faster(_: Path) -> None:
            (home / "Catch").mkdir()
            (home / "Catch" / "config.json").write_text("theirs")

        with pytest.raises(FormatError, match="is there already"):
            pull("alice/Catch", check_contexts=another_is_faster)
        assert content(home) == {"Catch/config.json": b"theirs"}


class TestRefusal:
    @pytest.fixture(autouse=True)
    def _leaves_nothing_behind(self, home: Path) -> Iterator[None]:
        yield
        assert not home.exists() or list(home.iterdir()) == []

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda files: {"world_model.safetensors": files["world_model.safetensors"][:-1]},
                r"^bob/Catch/world_model\.safetensors is not a whole safetensors file",
            ),
            (lambda _: {"config.json": b"{}"}, r"^bob/Catch/config\.json has no format_version"),
            (lambda _: {"config.json": b'{"format_version": 2}'}, "upgrade dreamenv"),
            (lambda _: {"config.json": b"[" * 100_000}, "more memory"),
            (lambda _: {"config.json": b'{"format_version": "\x1b]0;x\x07"}'}, r"^[^\x1b\n]*$"),
            (lambda _: {"contexts.npz": b"PK"}, r"^bob/Catch/contexts\.npz holds no contexts"),
        ],
    )
    def test_damaged_files_are_named_by_where_they_are(
        self,
        hub: Hub,
        pull: Callable[..., Path],
        one: Files,
        damage: Callable[[Files], Files],
        message: str,
    ) -> None:
        hub.add("bob/Catch", one | damage(one))
        with pytest.raises(FormatError, match=message):
            pull("bob/Catch")

    @pytest.mark.parametrize("missing", NEEDED)
    def test_a_folder_that_is_no_whole_world_is_not_fetched(
        self, hub: Hub, pull: Callable[..., Path], one: Files, missing: str
    ) -> None:
        hub.add("bob/Catch", {name: data for name, data in one.items() if name != missing})
        message = f"bob/Catch is not a world model of dreamenv: it has no {missing}"
        with pytest.raises(FormatError, match=message):
            pull("bob/Catch")
        assert hub.fetched == []

    def test_a_foreign_repository(self, hub: Hub, pull: Callable[..., Path]) -> None:
        hub.add("bob/llama", {"config.json": b"{}", "model.safetensors": b""})
        with pytest.raises(FormatError, match="name a repository that holds one"):
            pull("bob/llama")

    def test_worlds_in_subfolders_are_listed(
        self, hub: Hub, pull: Callable[..., Path], one: Files
    ) -> None:
        hub.add("alice/worlds", within("Pong", one) | within("Catch", one))
        with pytest.raises(FormatError, match=r"name one of alice/worlds/Pong, alice/worlds/Catch"):
            pull("alice/worlds")

    def test_a_repository_that_is_not_there(self, pull: Callable[..., Path]) -> None:
        with pytest.raises(InputError, match=r"there is no bob/Nothing on the Hub"):
            pull("bob/Nothing")

    def test_a_repository_that_is_hidden_from_strangers(
        self, hub: Hub, pull: Callable[..., Path]
    ) -> None:
        hub.hidden.add("bob/Private")
        with pytest.raises(DreamenvError, match=r"not give bob/Private to strangers; .* log in"):
            pull("bob/Private")

    def test_a_revision_that_is_not_there(
        self, hub: Hub, pull: Callable[..., Path], one: Files
    ) -> None:
        hub.add("bob/Catch", one)
        with pytest.raises(InputError, match=r"bob/Catch has no revision 'v9'"):
            pull("bob/Catch", revision="v9")

    def test_a_gated_repository(self, hub: Hub, pull: Callable[..., Path], one: Files) -> None:
        hub.add("bob/Catch", one)
        hub.gated.add("bob/Catch")
        with pytest.raises(DreamenvError, match=r"bob/Catch is gated: ask for access"):
            pull("bob/Catch")

    @pytest.mark.parametrize("source", ["", "Catch", "a//b", "a/", "a/b/../c", "/a/b", "https://x"])
    def test_a_source_that_names_no_repository(
        self, hub: Hub, pull: Callable[..., Path], source: str
    ) -> None:
        with pytest.raises(InputError, match="OWNER/REPOSITORY"):
            pull(source, name="Catch")
        assert hub.fetched == []

    def test_a_repository_the_hub_cannot_have(self, pull: Callable[..., Path]) -> None:
        with pytest.raises(InputError, match=r"'a b/c\?' cannot be a repository"):
            pull("a b/c?", name="Catch")

    @pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "-v0", "/tmp/x"])
    def test_a_name_that_no_id_can_hold(self, pull: Callable[..., Path], name: str) -> None:
        with pytest.raises(ConfigError, match="it must be of letters"):
            pull("alice/Catch", name=name)

    def test_a_server_that_is_gone(self, hub: Hub, pull: Callable[..., Path]) -> None:
        hub.shutdown()
        hub.server_close()
        with pytest.raises(DreamenvError, match=r"bob/Catch cannot be fetched \(.+\); check the"):
            pull("bob/Catch")

    def test_a_server_that_breaks_off(
        self,
        hub: Hub,
        pull: Callable[..., Path],
        one: Files,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)  # between its retries
        hub.add("bob/Catch", one)
        hub.broken.add("world_model.safetensors")
        with pytest.raises(DreamenvError, match=r"bob/Catch cannot be fetched \(.+\); check the"):
            pull("bob/Catch")

    def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
        self, hub: Hub, pull: Callable[..., Path], one: Files
    ) -> None:
        hub.add("bob/Catch", one)
        hub.sizes["world_model.safetensors"] = 10**18
        with pytest.raises(DreamenvError, match=r"the disk is full: 1,000,000,000,000 MB are nee"):
            pull("bob/Catch")
        assert hub.fetched == []

    def test_a_disk_that_fills_up(
        self,
        hub: Hub,
        pull: Callable[..., Path],
        one: Files,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub.add("bob/Catch", one)

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
        with pytest.raises(DreamenvError, match="the disk is full"):
            pull("bob/Catch")

    def test_the_verbosity_of_huggingface_hub_is_given_back(
        self, pull: Callable[..., Path]
    ) -> None:
        before = logging.getLogger("huggingface_hub").level
        with pytest.raises(InputError):
            pull("bob/Nothing")
        assert logging.getLogger("huggingface_hub").level == before


class TestCommand:
    def test_it_says_where_the_world_is_and_what_comes_next(
        self, hub: Hub, home: Path, one: Files, tmp_path: Path
    ) -> None:
        hub.add("alice/Catch", one)
        done = subprocess.run(
            [sys.executable, *"-m dreamenv pull alice/Catch --name Mine".split()],
            cwd=tmp_path,
            env=os.environ
            | {
                "HF_ENDPOINT": hub.address,
                "HF_HOME": str(tmp_path / "huggingface"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f'world model: {home}/Mine\nnext: gym.make("DreamEnv/Mine-v0")\n'
        assert content(home / "Mine") == one

    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
        """Runs the command line in this process, and returns what it exits with."""
        monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the current folder

        def run(*arguments: str) -> object:
            with pytest.raises(SystemExit) as exit_:
                main(["pull", *arguments])
            return exit_.value.code

        return run

    def test_a_failure_is_one_line(
        self,
        hub: Hub,
        home: Path,
        run: Callable[..., object],
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        assert run("bob/Nothing") == 1
        told = capfd.readouterr()
        assert told.out == ""
        assert told.err.startswith("dreamenv: there is no bob/Nothing on the Hub")
        assert told.err.count("\n") == 1
        assert not home.exists()

    def test_without_huggingface_hub_it_says_how_to_get_it(
        self,
        home: Path,
        run: Callable[..., object],
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        assert run("alice/Catch") == 1
        told = capfd.readouterr().err
        assert told.endswith("install it with pip install 'dreamenv[hub]'\n")
        assert told.count("\n") == 1
        assert not home.exists()
