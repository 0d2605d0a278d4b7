import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dreamenv.models.actor_critic import ActorCritic, ActorCriticConfig
from dreamenv.models.presets import atari100k, small
from dreamenv.models.skeleton import skeleton
from dreamenv.models.world_model import WorldModel, WorldModelConfig

Preset = Callable[..., WorldModelConfig]


def shapes(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("preset", [small, atari100k])
def test_a_skeleton_has_the_shapes_of_the_network_and_no_memory(preset: Preset) -> None:
    config = preset(num_actions=4)
    with skeleton():
        bare = WorldModel(config)
    assert shapes(bare) == shapes(WorldModel(config))
    assert {tensor.device.type for tensor in bare.state_dict().values()} == {"meta"}


def test_outside_of_it_networks_are_initialised_as_ever() -> None:
    with skeleton():
        pass
    assert torch.randn(3).device.type == "cpu"
    assert nn.Linear(3, 3).weight.std() > 0


def test_random_numbers_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    with skeleton():
        ActorCritic(ActorCriticConfig(), (3, 64, 64), 4)
    assert torch.rand(1) == expected


def test_it_imports_no_compiler() -> None:
    code = (
        "import sys; from dreamenv.models import presets; "
        "from dreamenv.models.skeleton import skeleton; "
        "from dreamenv.models.world_model import WorldModel\n"
        "with skeleton(): WorldModel(presets.small(num_actions=4))\n"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended.stderr
