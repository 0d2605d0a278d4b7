from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamenv.models.compiling import compile_network


def doubled(x: Tensor) -> Tensor:
    return 2 * x


def test_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compile_for_long = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, **more: compile_for_long(network, backend=keep, **more)
    )
    network = compile_network(doubled)
    for _ in range(2):
        for rows in range(1, 13):
            assert network(torch.ones(rows)).tolist() == [2] * rows
    assert len(graphs) == 12
