"""The reference vectors: outputs of the published DIAMOND code on tiny architectures."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from dreamenv.models.denoiser import Denoiser
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.diamond import load_diamond_state_dict

BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "reference"


@dataclass(frozen=True)
class Reference:
    """One file of vectors: its architecture, weights under published keys, and tensors."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def prefixes(self, suffix: str) -> list[str]:
        """Names X of all tensors `X.suffix`."""
        ending = f".{suffix}"
        return [name.removesuffix(ending) for name in self.tensors if name.endswith(ending)]


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    folder = Path(os.environ.get("DREAMENV_REFERENCE", BESIDE_THE_CHECKOUT))
    if not folder.is_dir():
        pytest.skip(f"no reference vectors at {folder}; set DREAMENV_REFERENCE to their folder")
    return folder


@pytest.fixture(scope="session")
def load_reference(reference_folder: Path) -> Callable[[str], Reference]:
    def load(name: str) -> Reference:
        path = reference_folder / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"no reference vectors at {path}")
        with safe_open(path, framework="pt") as file:
            config = json.loads(file.metadata()["config"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        weights = {
            key.removeprefix("weights."): tensor
            for key, tensor in tensors.items()
            if key.startswith("weights.")
        }
        return Reference(config, weights, tensors)

    return load


@pytest.fixture(scope="session")
def denoiser_of() -> Callable[[Reference], Denoiser]:
    """Builds the denoiser that a file of vectors belongs to."""

    def build(reference: Reference) -> Denoiser:
        config = reference.config
        denoiser = Denoiser(
            DenoiserConfig(
                context_length=config["num_steps_conditioning"],
                cond_channels=config["cond_channels"],
                channels=tuple(config["channels"]),
                depths=tuple(config["depths"]),
                attention=tuple(bool(attends) for attends in config["attn_depths"]),
                sigma_data=config["sigma_data"],
                sigma_offset=config["sigma_offset_noise"],
            ),
            config["img_channels"],
            config["num_actions"],
        )
        weights = {f"denoiser.{key}": tensor for key, tensor in reference.weights.items()}
        load_diamond_state_dict(weights, denoiser=denoiser)
        return denoiser

    return build


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Tensor, Tensor, float], None]:
    """Compares two tensors; the tolerance is relative to the largest expected value."""

    def check(actual: Tensor, expected: Tensor, tolerance: float) -> None:
        assert actual.shape == expected.shape
        error = (actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        assert error <= tolerance, f"relative error {error:.2e} above {tolerance:.0e}"

    return check


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
