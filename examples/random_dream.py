"""Random play in a dream, as in any Gymnasium environment."""

import argparse

import gymnasium as gym

import dreamenv  # noqa: F401 - registers the ids

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--env", default="DreamEnv/Breakout-v0")
parser.add_argument("--dreams", type=int, default=3)
parser.add_argument("--horizon", type=int, default=200)
parser.add_argument("--watch", action="store_true", help="open a window; needs pygame")
options = parser.parse_args()

render_mode = "human" if options.watch else None
env = gym.make(options.env, horizon=options.horizon, render_mode=render_mode)
env.action_space.seed(0)
for number in range(options.dreams):
    obs, info = env.reset(seed=number)
    steps, total, ended = 0, 0.0, False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        steps, total, ended = steps + 1, total + float(reward), terminated or truncated
    how = "ended" if terminated else "reached the horizon"
    print(f"dream {number} {how} after {steps} steps; rewards: {total:+.0f}")
env.close()
