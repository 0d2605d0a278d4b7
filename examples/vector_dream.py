"""Many dreams at once, as torch tensors: on a GPU nothing leaves it."""

import argparse
import time

import gymnasium as gym
import torch

import dreamenv  # noqa: F401 - registers the ids

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="DreamEnv/Breakout-v0")
parser.add_argument("--num-envs", type=int, default=32)
parser.add_argument("--steps", type=int, default=100)
options = parser.parse_args()

env = gym.make_vec(options.env, num_envs=options.num_envs, output="torch")
obs, info = env.reset(seed=0)  # uint8 [N, H, W, C]
num_actions = gym.spaces.flatdim(env.single_action_space)
rewards = torch.zeros(options.num_envs, device=obs.device)
dreams = torch.zeros((), dtype=torch.int64, device=obs.device)

started = time.perf_counter()
for _ in range(options.steps):
    # Here an agent would look at obs.
    actions = torch.randint(num_actions, (options.num_envs,), device=obs.device)
    obs, reward, terminated, truncated, info = env.step(actions)
    rewards += reward
    dreams += (terminated | truncated).sum()
mean = float(rewards.mean()) / options.steps  # Reading it waits for the device.
speed = options.num_envs * options.steps / (time.perf_counter() - started)

print(f"{int(dreams)} dreams ended; {mean:+.4f} reward a step; {speed:.0f} steps a second")
env.close()
