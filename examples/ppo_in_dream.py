"""PPO in a dream: a script for the real game, but for one line."""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from dreamenv import DreamVecEnv

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="DreamEnv/Breakout-v0")
parser.add_argument("--num-envs", type=int, default=16)
parser.add_argument("--steps", type=int, default=20_000)
parser.add_argument("--out", default="ppo_in_dream.zip")
options = parser.parse_args()

# In the game: env = make_vec_env("ALE/Breakout-v5", n_envs=options.num_envs)
env = VecMonitor(DreamVecEnv(options.env, num_envs=options.num_envs))

agent = PPO("CnnPolicy", env, n_steps=32, batch_size=128, n_epochs=4, verbose=1)
agent.learn(options.steps)
agent.save(options.out)
