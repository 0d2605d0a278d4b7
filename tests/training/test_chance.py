"""Where the past does not decide what comes, a dream draws one future, and not their mean."""

from dataclasses import replace

import torch
from torch import Tensor

from dreamenv.data import Segments
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel, WorldModelConfig
from dreamenv.training.optimisation import OptimiserConfig
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.world_model import WorldModelTrainer

SIDE, CONTEXT = 16, 2
PAUSE = 5  # steps from a reward to the frame in which a square is lit: more than are shown
PLACES = ((4, 4), (10, 10))

CHOOSES = DenoiserConfig(
    context_length=CONTEXT,
    cond_channels=32,
    channels=(16, 32),
    depths=(1, 1),
    attention=(False, False),
    middle_attention=False,
    norm="none",
    fold=2,
    target="change",
    past="changes",
    sigma_data=1.0,
    sigma_offset=0.0,
    sigma_max=80.0,
    start_share=1.0,
    choices=3,
    choice_cost=100.0,  # a lit square: 1600
    reward_memory=8,
    place_maps=4,
)


def windows(since_reward: Tensor, place: Tensor) -> Segments:
    """Cuts windows from a game that is dark, and lights a square at one of two places in time.

    Args:
        since_reward: int64 [B], how many steps before the last frame of the context the reward was.
        place: int64 [B], which place is lit, if it is time.
    """
    count = len(place)
    obs = torch.zeros(count, CONTEXT + 1, 1, SIDE, SIDE, dtype=torch.uint8)
    lit = since_reward == PAUSE - 1
    for index, (row, column) in enumerate(PLACES):
        obs[lit & (place == index), -1, :, row : row + 2, column : column + 2] = 255
    steps = torch.arange(CONTEXT + 1) - (CONTEXT - 1)
    return Segments(
        obs=obs,
        actions=torch.zeros(count, CONTEXT + 1, dtype=torch.int64),
        rewards=torch.zeros(count, CONTEXT + 1),
        ends=torch.zeros(count, CONTEXT + 1, dtype=torch.bool),
        mask=torch.ones(count, CONTEXT + 1, dtype=torch.bool),
        since_reward=since_reward[:, None] + steps,
        corner=torch.zeros(count, 2, dtype=torch.int64),
    )


def fitted(denoiser: DenoiserConfig, waited: range = range(2, 7), steps: int = 350) -> WorldModel:
    torch.manual_seed(0)
    heads = RewardEndConfig(
        cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8
    )
    sampler = SamplerConfig(sigmas=(80.0,), scale_start=False, renoise=True)
    model = WorldModel(WorldModelConfig(3, (1, SIDE, SIDE), denoiser, heads, sampler))
    model.denoiser.change_std.fill_(0.1)
    training = TrainingConfig(
        steps=steps,
        denoiser_optimiser=OptimiserConfig(learning_rate=3e-3, warmup_steps=20, schedule="linear"),
        ema_decay=0.0,
        bf16=False,
    )
    trainer = WorldModelTrainer(model, training, torch.device("cpu"))
    chance = torch.Generator().manual_seed(0)
    for _ in range(steps):
        since = torch.randint(waited.start, waited.stop, (32,), generator=chance)
        trainer.step(windows(since, torch.randint(0, len(PLACES), (32,), generator=chance)), None)
    return trainer.fitted.eval()


def lights(model: WorldModel, since: int) -> Tensor:
    """Dreams a frame of 256 dreams, and returns the light at each of the places: [256, 2]."""
    real = windows(torch.full((256,), since), torch.zeros(256, dtype=torch.int64))
    frame = model.next_obs(
        real.obs[:, :CONTEXT],
        real.actions[:, :CONTEXT],
        since_reward=real.since_reward[:, CONTEXT - 1],
        generator=torch.Generator().manual_seed(0),
    ).float()
    squares = [frame[:, 0, row : row + 2, column : column + 2] for row, column in PLACES]
    return torch.stack([square.mean(dim=(1, 2)) for square in squares], dim=1) / 255


def test_of_two_places_every_dream_chooses_one_when_it_is_time() -> None:
    model = fitted(CHOOSES)
    lit = lights(model, PAUSE - 1) > 0.8
    assert (lit.sum(dim=1) == 1).float().mean() > 0.9
    assert (lit.float().mean(dim=0) > 0.3).all()
    assert all(lights(model, since).max() < 0.2 for since in (2, 3, 5, 6))


def test_without_choices_the_mean_of_what_may_come_is_drawn() -> None:
    none = replace(CHOOSES, choices=0, choice_cost=0.0, reward_memory=0, place_maps=0)
    light = lights(fitted(none, range(PAUSE - 1, PAUSE)), PAUSE - 1)
    assert ((light > 0.3) & (light < 0.7)).all()
