"""What a dream remembers of rewards: the sign of the last one, and how long ago it was.

Some games stand still for a while after a point, longer than the past that is shown, and then go on
at a fixed time: Pong serves fifteen steps later. In frames alone nothing tells when.
"""

import torch
from torch import Tensor


def later(since_reward: Tensor, reward: Tensor) -> Tensor:
    """Counts on by a step.

    Args:
        since_reward: int64 [N], how many steps ago the last reward came, with its sign; 0 for none.
        reward: float32 [N], what came with this step.

    Returns:
        int64 [N]; 1 or -1 where there was a reward.
    """
    older = since_reward + since_reward.sign()
    return torch.where(reward != 0, reward.sign().long(), older)
