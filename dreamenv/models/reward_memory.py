"""What the denoiser remembers of rewards: the sign of the last one, and how long ago it was.

Some games stand still for a while after a point, longer than the past that is shown, and then go on
at a fixed time: Pong serves fifteen steps later. In frames alone nothing tells when.
"""

import torch
from torch import Tensor, nn


class RewardEmbedding(nn.Module):
    """Embeds the last reward; at first all embeddings are 0, and nothing is said.

    Args:
        memory: W, the steps after which a reward is forgotten.
        channels: The size of an embedding.
    """

    def __init__(self, memory: int, channels: int) -> None:
        super().__init__()
        self._memory = memory
        self.embedding = nn.Embedding(2 * memory + 1, channels)
        nn.init.zeros_(self.embedding.weight)

    def forward(self, since_reward: Tensor) -> Tensor:
        """Embeds int64 [N], as `later` counts, as float [N, channels]."""
        remembered = since_reward.abs() <= self._memory
        index = torch.where(remembered, since_reward, 0) + self._memory
        embedded: Tensor = self.embedding(index)
        return embedded


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
