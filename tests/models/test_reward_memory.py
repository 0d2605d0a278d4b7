import torch

from dreamenv.models.reward_memory import later


def test_steps_are_counted_from_the_last_reward_with_its_sign() -> None:
    since, counted = torch.zeros(2, dtype=torch.int64), []
    for reward in ([0, 0], [1, 0], [0, -1], [0, 0], [-0.5, 0], [0, 2]):
        since = later(since, torch.tensor(reward))
        counted.append(since.tolist())
    assert counted == [[0, 0], [1, 0], [2, -1], [3, -2], [-1, -3], [-2, 1]]
    assert since.dtype == torch.int64
