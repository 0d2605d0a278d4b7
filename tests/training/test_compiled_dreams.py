from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dreamenv import Contexts, DreamVecEnv, WorldModel
from dreamenv.errors import ConfigError
from dreamenv.training.compiled_dreams import compile_where_it_pays

from .printing import printed

MANY, FEW = 60_000, 59_999
STILL = np.zeros(2, np.int64)

TinyModel = Callable[..., WorldModel]
OpenDreams = Callable[..., DreamVecEnv]
MakeDreams = Callable[..., DreamVecEnv]


@pytest.fixture
def open_dreams(tiny_model: TinyModel) -> OpenDreams:
    model = tiny_model().eval()
    frames = torch.randint(0, 256, (4, 2, 3, 16, 16), dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(4, 2, dtype=torch.int64))

    def open_(*, compile: bool = False) -> DreamVecEnv:
        return DreamVecEnv(
            num_envs=2, world_model=model, contexts=contexts, device="cpu", compile=compile
        )

    return open_


@pytest.fixture
def make_dreams(open_dreams: OpenDreams, console: Console) -> MakeDreams:
    def make(steps: int, compile: bool | None = None) -> DreamVecEnv:
        return compile_where_it_pays(
            open_dreams(), lambda: open_dreams(compile=True), steps, console, compile=compile
        )

    return make


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the compiler, and lists the compiled networks as they are called."""
    called: list[Any] = []

    def compile_(network: Any, **_: Any) -> Any:
        def call(*arguments: Any) -> Any:
            called.append(network)
            return network(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    return called


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", compile_)


def test_few_steps_are_dreamt_without_compiling(
    make_dreams: MakeDreams, compiled: list[Any], console: Console
) -> None:
    dreams = make_dreams(FEW)
    dreams.reset()
    dreams.step(STILL)
    assert not compiled
    assert printed(console) == ""


@pytest.mark.parametrize(("steps", "compile"), [(MANY, None), (1, True)])
def test_they_are_compiled_before_the_first_step(
    make_dreams: MakeDreams,
    compiled: list[Any],
    console: Console,
    steps: int,
    compile: bool | None,
) -> None:
    dreams = make_dreams(steps, compile)
    at_once = len(compiled)
    assert at_once > 0
    assert "compiling took 0:00:" in printed(console)
    dreams.reset()
    dreams.step(STILL)
    assert len(compiled) > at_once


def test_compiling_can_be_left_out(make_dreams: MakeDreams, compiled: list[Any]) -> None:
    dreams = make_dreams(MANY, False)
    dreams.reset()
    dreams.step(STILL)
    assert not compiled


def test_on_other_devices_it_waits_to_be_asked(
    open_dreams: OpenDreams, compiled: list[Any], console: Console
) -> None:
    dreams = open_dreams()
    dreams.dream.device = torch.device("cuda")
    assert compile_where_it_pays(dreams, open_dreams, MANY, console) is dreams
    assert not compiled


@pytest.mark.usefixtures("no_compiler")
def test_where_there_is_no_compiler_it_says_so_and_does_without(
    make_dreams: MakeDreams, console: Console
) -> None:
    dreams = make_dreams(MANY)
    assert "going on uncompiled: the networks cannot be compiled here" in printed(console)
    dreams.reset()
    dreams.step(STILL)


@pytest.mark.usefixtures("no_compiler")
def test_what_was_asked_for_fails_where_there_is_no_compiler(make_dreams: MakeDreams) -> None:
    with pytest.raises(ConfigError, match="cannot be compiled here"):
        make_dreams(1, True)


@pytest.mark.usefixtures("compiled")
def test_the_step_that_compiles_leaves_no_trace(
    make_dreams: MakeDreams, open_dreams: OpenDreams
) -> None:
    dreams, plain = make_dreams(MANY), open_dreams()
    for each in (dreams, plain):
        each.seed(3)
    np.testing.assert_array_equal(dreams.reset(), plain.reset())
    for _ in range(3):
        np.testing.assert_array_equal(dreams.step(STILL)[0], plain.step(STILL)[0])
