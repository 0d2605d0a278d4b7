import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dreamenv import Contexts, DreamVecEnv, WorldModel
from dreamenv.errors import ConfigError
from dreamenv.training.compiled_dreams import compile_where_it_pays

MANY, FEW = 30_000, 29_999
STILL = np.zeros(2, np.int64)

TinyModel = Callable[..., WorldModel]
OpenDreams = Callable[[bool], DreamVecEnv]


@pytest.fixture
def open_dreams(tiny_model: TinyModel) -> OpenDreams:
    model = tiny_model().eval()
    frames = torch.randint(0, 256, (4, 2, 3, 16, 16), dtype=torch.uint8)
    contexts = Contexts(frames, torch.zeros(4, 2, dtype=torch.int64))

    def open_(compile: bool) -> DreamVecEnv:
        return DreamVecEnv(
            num_envs=2, world_model=model, contexts=contexts, device="cpu", compile=compile
        )

    return open_


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Stands in for the compiler, and collects the noise that compiled networks were shown."""
    shown: list[torch.Tensor] = []

    def compile_(network: Any, **_: Any) -> Any:
        def call(*arguments: Any) -> Any:
            shown.append(arguments[0])
            return network(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    return shown


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", compile_)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_few_steps_are_dreamt_without_compiling(
    open_dreams: OpenDreams, compiled: list[torch.Tensor], console: Console
) -> None:
    dreams = compile_where_it_pays(open_dreams, FEW, console)
    dreams.reset()
    dreams.step(STILL)
    assert not compiled
    assert printed(console) == ""


@pytest.mark.parametrize(("steps", "compile"), [(MANY, None), (1, True)])
def test_they_are_compiled_before_the_first_step(
    open_dreams: OpenDreams,
    compiled: list[torch.Tensor],
    console: Console,
    steps: int,
    compile: bool | None,
) -> None:
    dreams = compile_where_it_pays(open_dreams, steps, console, compile=compile)
    at_once = len(compiled)
    assert at_once > 0
    assert "compiling took 0:00:" in printed(console)
    dreams.reset()
    dreams.step(STILL)
    assert len(compiled) > at_once


def test_compiling_can_be_left_out(
    open_dreams: OpenDreams, compiled: list[torch.Tensor], console: Console
) -> None:
    compile_where_it_pays(open_dreams, MANY, console, compile=False).reset()
    assert not compiled


@pytest.mark.usefixtures("no_compiler")
def test_where_there_is_no_compiler_it_says_so_and_does_without(
    open_dreams: OpenDreams, console: Console
) -> None:
    dreams = compile_where_it_pays(open_dreams, MANY, console)
    assert "going on uncompiled: the networks cannot be compiled here" in printed(console)
    dreams.reset()
    dreams.step(STILL)


@pytest.mark.usefixtures("no_compiler")
def test_what_was_asked_for_fails_where_there_is_no_compiler(
    open_dreams: OpenDreams, console: Console
) -> None:
    with pytest.raises(ConfigError, match="cannot be compiled here"):
        compile_where_it_pays(open_dreams, 1, console, compile=True)


@pytest.mark.usefixtures("compiled")
def test_the_step_that_compiles_leaves_no_trace(open_dreams: OpenDreams, console: Console) -> None:
    dreams = compile_where_it_pays(open_dreams, MANY, console)
    plain = open_dreams(False)
    for each in (dreams, plain):
        each.seed(3)
    np.testing.assert_array_equal(dreams.reset(), plain.reset())
    for _ in range(3):
        np.testing.assert_array_equal(dreams.step(STILL)[0], plain.step(STILL)[0])
