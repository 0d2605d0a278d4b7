"""Keeping apart the chance of libraries that draw from everybody's generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


class SharedChance:
    """The states that numpy's and torch's global generators have for one user of them.

    Inside `drawn_from` they go on where they were at the end of the last time; outside, everybody
    else finds them as if nobody had been there.

    Args:
        device: Where else than on the CPU numbers are drawn.
        seed: Where they begin.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        with self._left_alone():
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            self._numpy, self._torch = _numpy_state(), _torch_states(device)

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Whoever draws inside from a global generator draws from this chance."""
        with self._left_alone():
            np.random.set_state(self._numpy)  # noqa: NPY002
            _set_torch_states(self._device, self._torch)
            try:
                yield
            finally:
                self._numpy, self._torch = _numpy_state(), _torch_states(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly."""
        keys = torch.tensor(self._numpy["state"]["key"].astype(np.int64))
        numpy = self._numpy | {"state": self._numpy["state"] | {"key": keys}}
        return {"numpy": numpy, "torch": self._torch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        keys = state["numpy"]["state"]["key"].cpu().numpy().astype(np.uint32)
        self._numpy = state["numpy"] | {"state": state["numpy"]["state"] | {"key": keys}}
        self._torch = [each.cpu() for each in state["torch"]]

    @contextmanager
    def _left_alone(self) -> Iterator[None]:
        """Leaves the global generators as they were."""
        numpy, states = _numpy_state(), _torch_states(self._device)
        try:
            yield
        finally:
            np.random.set_state(numpy)  # noqa: NPY002
            _set_torch_states(self._device, states)


def _numpy_state() -> dict[str, Any]:
    return np.random.get_state(legacy=False)  # noqa: NPY002


def _torch_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_torch_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
