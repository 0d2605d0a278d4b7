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
_UNIT = 10.0  # of strengths and likelihoods, which begin with 0 and are to grow soon


class ChoiceHead(nn.Module):
    """Draws K futures beside each other after a U-Net, and tells how likely each of them is.

    The first is what the U-Net has drawn; the others change it, and at first none does. The head
    sees the U-Net's last features and what is drawn from them, but does not look far: 3x3
    convolutions. What else is there to tell it are the choice and, where it has a memory, how long
    ago the last reward came: each pair of the two is learned by itself, and one that was never met
    changes nothing. How likely a future is it tells from all of the frame, and from the sign of
    that reward too.

    Args:
        choices: K, at least 2.
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
        self._others, self._memory = choices - 1, memory
        self.conv_in = conv3x3(features + outputs, features)
        self.conv = conv3x3(features, features)
        self.conv_out = conv3x3(features, outputs)
        pairs = (memory + 1) * (choices - 1)
        self.told = nn.Embedding(pairs, 2 * features)
        nn.init.normal_(self.told.weight, std=_FIRST_SPREAD)
        self.strength = nn.Embedding(pairs, 1)
        nn.init.zeros_(self.strength.weight)
        self.maps: nn.Parameter | None = None
        if place_maps > 0:
            self.maps = nn.Parameter(_FIRST_MAPS * torch.randn(place_maps, *size))
            self.mix = nn.Conv2d(place_maps, features, 1, bias=False)
        self.find = conv3x3(features, features)
        self.found = nn.Linear(features, features)
        self.moment = nn.Embedding(2 * memory + 1, features)
        self.odds = nn.Linear(features, choices)
        nn.init.zeros_(self.odds.weight)
        nn.init.zeros_(self.odds.bias)

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
            output: float [N, outputs, h, w], what the U-Net has drawn.
            since_reward: int64 [N], as `later` counts.
            choice: int64 [N], below K.

        Returns:
            float [N, outputs, h, w].
        """
        pair = self._remembered(since_reward).abs() * self._others + (choice - 1).clamp(min=0)
        scale, shift = self.told(pair)[:, :, None, None].chunk(2, dim=1)
        change: Tensor = self.conv_out(F.silu(self.conv(F.silu(seen * (1 + scale) + shift))))
        change = change * (_UNIT * self.strength(pair)[:, :, None, None])
        return torch.where((choice > 0)[:, None, None, None], output + change, output)

    def likelihood(self, seen: Tensor, since_reward: Tensor) -> Tensor:
        """Tells how likely each choice is in a whole frame.

        What it learns changes nothing of what is drawn.

        Args:
            seen: As `see` returns it.
            since_reward: int64 [N], as `later` counts.

        Returns:
            float32 [N, K], log-likelihoods but for a constant.
        """
        found = self.find(F.silu(seen.detach())).amax(dim=(2, 3))
        moment = self._remembered(since_reward) + self._memory
        told = self.found(F.silu(found)) + self.moment(moment)
        odds: Tensor = _UNIT * self.odds(F.silu(told))
        return odds.float()

    def _remembered(self, since_reward: Tensor) -> Tensor:
        """Forgets rewards that are longer ago: int64 [N], from -W to W."""
        return torch.where(since_reward.abs() <= self._memory, since_reward, 0)


def _squares(maps: Tensor, corner: Tensor | None, height: int, width: int) -> Tensor:
    """Cuts [R, H, W] as frames were cut: [N, R, h, w]; [1, R, h, w] for whole frames."""
    if corner is None:
        return maps[None, :, :height, :width]
    rows = corner[:, :1] + torch.arange(height, device=corner.device)  # [N, h]
    columns = corner[:, 1:] + torch.arange(width, device=corner.device)
    return maps[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
