"""What a step of dreams gives."""

from typing import NamedTuple

from torch import Tensor


class DreamStep(NamedTuple):
    """What a step of N dreams gives; tensors on their device.

    Attributes:
        obs: uint8 [N, k * C, H, W]. Where a dream began anew in this step, its first observation.
        reward: float32 [N]: -1, 0 or 1.
        terminated: bool [N], whether the world model ended the dream in this step.
        truncated: bool [N], whether it reached the horizon in this step.
        final_obs: As `obs`, but where a dream ended in this step its last observation.
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
