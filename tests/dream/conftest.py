from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamenv import Contexts, WorldModel
from dreamenv.environment import EnvironmentSpec
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndConfig, RewardEndOutput
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModelConfig
from dreamenv.share import WHOLE, Share

LENGTH = 3
NUM_ACTIONS = 3
CERTAIN = 1e4


def config_of(obs_shape: tuple[int, int, int]) -> WorldModelConfig:
    return WorldModelConfig(
        num_actions=NUM_ACTIONS,
        obs_shape=obs_shape,
        denoiser=DenoiserConfig(
            context_length=LENGTH,
            cond_channels=8,
            channels=(8,),
            depths=(1,),
            attention=(False,),
            fold=4,
        ),
        reward_end=RewardEndConfig(
            cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8, fold=4
        ),
        sampler=SamplerConfig(num_steps=1),
    )


def origin_of(obs_shape: tuple[int, int, int]) -> Origin:
    names = ("NOOP", "LEFT", "RIGHT")
    return Origin(environment=EnvironmentSpec("Test/Dream-v0", obs_shape, names))


class ScriptedWorld(WorldModel):
    """A world with nothing left to chance: all pixels of a frame are of one level.

    The level grows by 1 and the action at every step. The reward is the action less 1. A dream
    ends at a level that 10 divides, or exceeds by less than the last growth. The heads remember,
    in the first cell of their state, the sum of the actions taken.
    """

    def __init__(self) -> None:
        super().__init__(config_of((3, 40, 40)), origin_of((3, 40, 40)))

    def next_obs(
        self,
        context: Tensor,
        actions: Tensor,
        *,
        since_reward: Tensor | None = None,  # noqa: ARG002
        sampler: SamplerConfig | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
        share: Share = WHOLE,  # noqa: ARG002
    ) -> Tensor:
        growth = (actions[:, -1] + 1).to(torch.uint8)
        return context[:, -1] + growth[:, None, None, None]

    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        state = self.reward_end.initial_state(len(actions)) if state is None else state
        ends = obs[:, :, 0, 0, 0].long() // 10 < next_obs[:, :, 0, 0, 0].long() // 10
        h = state.h.clone()
        h[:, 0] += actions.sum(dim=1)
        return RewardEndOutput(
            CERTAIN * torch.eye(3)[actions], CERTAIN * torch.eye(2)[ends.long()], LSTMState(h, h)
        )


class DiceWorld(WorldModel):
    """A world of chance alone, of 2x2 pixels, and cheap.

    Pixels of dreamt frames are at least 128, drawn anew at every step and added to those before;
    rewards and ends have the same probabilities always. The heads remember, in their hidden
    state, the actions and the frames that they saw, the more of them the later; in their cell
    state, how many.

    Args:
        rewards: The probabilities of -1, 0 and 1.
        end: That of an end.
    """

    def __init__(self, rewards: Sequence[float] = (0.2, 0.5, 0.3), end: float = 0.05) -> None:
        super().__init__(config_of((1, 2, 2)))
        self.register_buffer("reward_logits", torch.tensor(rewards).log())
        self.register_buffer("end_logits", torch.tensor([1 - end, end]).log())

    def next_obs(
        self,
        context: Tensor,
        actions: Tensor,
        *,
        since_reward: Tensor | None = None,  # noqa: ARG002
        sampler: SamplerConfig | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
        share: Share = WHOLE,  # noqa: ARG002
    ) -> Tensor:
        shape, device = context[:, -1].shape, context.device
        drawn = torch.randint(128, shape, generator=generator, device=device)
        levels = drawn + context[:, -1] + actions[:, -1, None, None, None]
        return (128 + levels % 128).to(torch.uint8)

    def reward_and_end(
        self, obs: Tensor, actions: Tensor, next_obs: Tensor, state: LSTMState | None = None
    ) -> RewardEndOutput:
        rows, steps = actions.shape
        h, c = self.reward_end.initial_state(rows) if state is None else state
        for step in range(steps):
            seen = obs[:, step].flatten(1).float() - next_obs[:, step].flatten(1).float()
            h = h / 2 + torch.cat([seen, seen * actions[:, step, None]], dim=1)
            c = c + 1
        reward_logits, end_logits = self.get_buffer("reward_logits"), self.get_buffer("end_logits")
        return RewardEndOutput(
            reward_logits.expand(rows, steps, 3), end_logits.expand(rows, steps, 2), LSTMState(h, c)
        )


def frames_at(levels: Tensor, obs_shape: tuple[int, int, int] = (3, 40, 40)) -> Tensor:
    """Frames of one level each: uint8 [..., C, H, W] of levels [...]."""
    ones = [1] * len(obs_shape)
    return (
        levels.to(torch.uint8).view(*levels.shape, *ones).expand(*levels.shape, *obs_shape).clone()
    )


def fill_zeros(model: WorldModel) -> None:
    """Draws the weights that are initialised to 0.

    Else no frame would depend on what came before it, and neither frames nor the memory of the
    heads on the actions.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.fixture
def scripted_world() -> ScriptedWorld:
    return ScriptedWorld().eval()


@pytest.fixture
def scripted_contexts() -> Contexts:
    """Five windows: number k is of the levels 20k, 20k + 1, 20k + 2, its actions all 0."""
    levels = 20 * torch.arange(5)[:, None] + torch.arange(LENGTH)
    return Contexts(frames_at(levels), torch.zeros(5, LENGTH, dtype=torch.int64))


@pytest.fixture
def world_model() -> WorldModel:
    """A tiny world model of 40x40 pixels, its weights random."""
    torch.manual_seed(0)
    model = WorldModel(config_of((3, 40, 40)), origin_of((3, 40, 40)))
    fill_zeros(model)
    return model.eval()


@pytest.fixture
def contexts() -> Contexts:
    """Sixteen windows of noise."""
    generator = torch.Generator().manual_seed(1)
    obs = torch.randint(0, 256, (16, LENGTH, 3, 40, 40), dtype=torch.uint8, generator=generator)
    return Contexts(obs, torch.randint(0, NUM_ACTIONS, (16, LENGTH), generator=generator))


@pytest.fixture
def world_folder(tmp_path: Path, world_model: WorldModel, contexts: Contexts) -> Path:
    """The tiny world model with its contexts, on disk."""
    folder = tmp_path / "worlds" / "Tiny"
    world_model.save(folder, also=contexts.save)
    return folder


@pytest.fixture
def small_world() -> WorldModel:
    """A tiny world model of 8x8 pixels, its weights random, but an end is not likely."""
    torch.manual_seed(0)
    model = WorldModel(config_of((1, 8, 8)), origin_of((1, 8, 8)))
    fill_zeros(model)
    head = model.reward_end.head
    with torch.no_grad():
        head.get_parameter("0.bias").add_(1)
        head.get_parameter("2.weight")[-1].sub_(0.4)
    return model.eval()


@pytest.fixture
def small_contexts() -> Contexts:
    """Sixteen windows of noise, of 8x8 pixels."""
    generator = torch.Generator().manual_seed(2)
    obs = torch.randint(0, 256, (16, LENGTH, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Contexts(obs, torch.randint(0, NUM_ACTIONS, (16, LENGTH), generator=generator))


@pytest.fixture
def dice_world() -> type[DiceWorld]:
    """The class: what it is made with decides about rewards and ends."""
    return DiceWorld


@pytest.fixture
def dice_contexts() -> Contexts:
    """Twelve windows of 2x2 pixels, no two alike, below the levels of the frames dreamt of."""
    generator = torch.Generator().manual_seed(3)
    obs = torch.randint(0, 128, (12, LENGTH, 1, 2, 2), dtype=torch.uint8, generator=generator)
    return Contexts(obs, torch.randint(0, NUM_ACTIONS, (12, LENGTH), generator=generator))
