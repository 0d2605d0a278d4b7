"""What is drawn where the past does not decide: one of several futures, in its place and time.

One evaluation of a denoiser returns the mean of what may come. A ball that is served to one side or
the other, in this step or the next, is in no such mean.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.models.blocks import EPSILON, conv3x3

_FIRST_SPREAD = 0.5  # of what choices scale and shift at first
_FIRST_MAPS = 0.1
_UNIT = 10.0  # of strengths, which begin with 0 and are to grow soon


class ChoiceHead(nn.Module):
    """Changes what a U-Net has drawn by a choice; at first it changes nothing.

    It sees the U-Net's last features and what is drawn from them, but does not look far: 3x3
    convolutions. What else is there to tell it are the choice and, where it has a memory, the sign
    of the last reward and how long ago it came: each pair of the two is learned by itself, and one
    that was never met changes nothing. Nor does any while no reward is remembered.

    Args:
        choices: K, how many there are.
        memory: W, the steps after which a reward is forgotten; 0 for no memory.
        place_maps: R, learned maps of the frame that it sees beside; 0 for none. Nothing else tells
            it where it is.
        features: Channels of the U-Net's last features.
        outputs: Channels of what is drawn.
        size: H and W of both, of whole frames.
    """

    def __init__(
        self,
        choices: int,
        memory: int,
        place_maps: int,
        features: int,
        outputs: int,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self._choices, self._memory = choices, memory
        self.conv_in = conv3x3(features + outputs, features)
        self.conv = conv3x3(features, features)
        self.conv_out = conv3x3(features, outputs)
        self.told = nn.Embedding((2 * memory + 1) * choices, 2 * features)
        nn.init.normal_(self.told.weight, std=_FIRST_SPREAD)
        self.strength = nn.Embedding((2 * memory + 1) * choices, 1)
        nn.init.zeros_(self.strength.weight)
        self.maps: nn.Parameter | None = None
        if place_maps > 0:
            self.maps = nn.Parameter(_FIRST_MAPS * torch.randn(place_maps, *size))
            self.mix = nn.Conv2d(place_maps, features, 1, bias=False)

    def see(self, features: Tensor, output: Tensor, corner: Tensor | None) -> Tensor:
        """Looks at what there is, whatever is chosen then.

        Args:
            features: float [N, features, h, w], the U-Net's last.
            output: float [N, outputs, h, w], what is drawn from them.
            corner: int64 [N, 2], row and column at which these squares were cut out; None for
                whole frames.

        Returns:
            float [N, features, h, w].
        """
        # Each pixel by itself: a square is seen as the frame is that it was cut out of.
        size = features.square().mean(dim=1, keepdim=True)
        seen: Tensor = self.conv_in(torch.cat([features * (size + EPSILON).rsqrt(), output], dim=1))
        if self.maps is None:
            return seen
        height, width = seen.shape[-2:]
        maps: Tensor = self.mix(_squares(self.maps, corner, height, width))
        return seen + maps

    def forward(self, seen: Tensor, output: Tensor, since_reward: Tensor, choice: Tensor) -> Tensor:
        """Draws what a choice stands for.

        Args:
            seen: As `see` returns it.
            output: float [N, outputs, h, w], what is drawn without a choice.
            since_reward: int64 [N], as `later` counts.
            choice: int64 [N], below K.

        Returns:
            float [N, outputs, h, w].
        """
        remembered = (since_reward != 0) & (since_reward.abs() <= self._memory)
        step = torch.where(remembered, since_reward, 0) + self._memory
        pair = step * self._choices + choice
        scale, shift = self.told(pair)[:, :, None, None].chunk(2, dim=1)
        change: Tensor = self.conv_out(F.silu(self.conv(F.silu(seen * (1 + scale) + shift))))
        change = change * (_UNIT * self.strength(pair)[:, :, None, None])
        if self._memory == 0:
            return output + change
        return torch.where(remembered[:, None, None, None], output + change, output)


def _squares(maps: Tensor, corner: Tensor | None, height: int, width: int) -> Tensor:
    """Cuts [R, H, W] as frames were cut: [N, R, h, w]; [1, R, h, w] for whole frames."""
    if corner is None:
        return maps[None, :, :height, :width]
    rows = corner[:, :1] + torch.arange(height, device=corner.device)  # [N, h]
    columns = corner[:, 1:] + torch.arange(width, device=corner.device)
    return maps[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
