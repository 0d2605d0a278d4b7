"""A film of an agent: what it does in a dream, and beside it in the real game."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch

from dreamenv.dream.rendering import Picture, frames_per_second, to_picture
from dreamenv.dream.sb3 import DreamVecEnv
from dreamenv.files import atomic_file
from dreamenv.real import RealVectorEnv
from dreamenv.real.policy import Policy, to_channels_first

_HEIGHT = 256  # pixels of the film, about
_GAP = 8  # pixels between dream and game
_LENGTH = 180  # frames: 12 seconds of an Atari game


def film_agent(
    path: Path,
    dream: DreamVecEnv,
    dream_policy: Policy,
    game: RealVectorEnv,
    game_policy: Policy,
    *,
    seed: int = 0,
) -> None:
    """Writes a GIF of a dream, left, and of the real game, right, at the speed of the game.

    Args:
        path: The file.
        dream: A single dream, with a render mode.
        dream_policy: Who plays it, on its own observations.
        game: A single real game.
        game_policy: Who plays it, on its frames.
        seed: Of both.
    """
    fps = frames_per_second(game.environment)
    dreamt = watch_dream(dream, dream_policy, seed)
    real = watch_game(game, game_policy, seed)
    pairs = itertools.islice(zip(dreamt, real, strict=False), _LENGTH)
    film = np.stack([_side_by_side(*pair) for pair in pairs])
    with atomic_file(path) as beside:
        # The duration is in milliseconds; 0 loops are endless ones.
        imageio.imwrite(beside, film, extension=".gif", duration=1000 / fps, loop=0)


def watch_dream(env: DreamVecEnv, policy: Policy, seed: int) -> Iterator[Picture]:
    """Plays a single dream, on through its restarts, and gives a picture of each frame."""
    env.seed(seed)
    obs, starts = env.reset(), np.ones(1, np.bool_)
    while True:
        yield from (picture for picture in env.get_images() if picture is not None)
        env.step_async(policy.act(to_channels_first(obs), starts))
        obs, _, starts, _ = env.step_wait()


def watch_game(env: RealVectorEnv, policy: Policy, seed: int) -> Iterator[Picture]:
    """Plays a single real game, and another after it, and gives a picture of each frame."""
    frames, _ = env.reset(seed=seed)
    starts = np.ones(1, np.bool_)
    while True:
        obs = to_channels_first(frames)
        yield to_picture(torch.from_numpy(obs[0]))
        frames, _, _, _, info = env.step(policy.act(obs, starts))
        starts = info["game_over"]


def _side_by_side(left: Picture, right: Picture) -> Picture:
    """Enlarges two pictures of one size, pixel by pixel, and sets them beside each other."""
    scale = max(1, _HEIGHT // len(left))
    large = [each.repeat(scale, axis=0).repeat(scale, axis=1) for each in (left, right)]
    gap = np.full((large[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([large[0], gap, large[1]], axis=1)
