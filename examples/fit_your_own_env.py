"""From an environment of your own to a dream of it: here CartPole, as it is rendered."""

import argparse
from dataclasses import replace

import gymnasium as gym
from rich.console import Console

from dreamenv.training.fit_config import FitModelConfig
from dreamenv.training.fit_model import fit_model
from dreamenv.training.presets import small

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="CartPole-v1", help="any with discrete actions and pictures")
parser.add_argument("--size", type=int, nargs="+", default=[48, 80], help="height and width")
parser.add_argument("--collect-steps", type=int, default=5_000)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--name", default="MyCartPole")
parser.add_argument("--overwrite", action="store_true")
options = parser.parse_args()

# A small network: there is little to see in CartPole.
preset = small()
config = FitModelConfig(
    env=options.env,
    name=options.name,
    size=(options.size[0], options.size[-1]),
    collect_steps=options.collect_steps,
    validate_every=options.steps,
    training=replace(preset.training, steps=options.steps, batch_size=16),
    denoiser=replace(preset.denoiser, channels=(32, 64), depths=(1, 1), attention=(False, False)),
    reward_end=replace(
        preset.reward_end, channels=(32, 64), depths=(1, 1), attention=(False, False)
    ),
    sampler=preset.sampler,
)
fit_model(config, Console(), overwrite=options.overwrite)

env = gym.make(f"DreamEnv/{options.name}-v0")
obs, info = env.reset(seed=0)
for step in range(1, 11):
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    print(f"step {step}: reward {reward:+.0f}{', the end' if terminated else ''}")
    if terminated or truncated:
        obs, info = env.reset()
env.close()
