"""F, the U-Net that a denoiser runs between its preconditioners, and the choices after it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.models.blocks import (
    ActionEmbedding,
    FourierFeatures,
    UNet,
    conv3x3,
    fold_frames,
    group_norm,
    unfold_frames,
)
from dreamenv.models.choice_head import ChoiceHead
from dreamenv.models.denoiser_config import DenoiserConfig


class Futures(NamedTuple):
    """What the network draws instead of each other.

    Attributes:
        drawn: float [K, N, C, H, W]; one, where there are no choices.
        likelihood: float32 [N, K], log-likelihoods but for a constant; None where there are no
            choices, or squares cut out of frames, from which that is not to be told.
    """

    drawn: Tensor
    likelihood: Tensor | None


class DenoiserNetwork(nn.Module):
    """F, the U-Net between the preconditioners.

    Args:
        config: The architecture.
        obs_channels: C, channels of a frame.
        num_actions: The number of actions.
        size: H and W of whole frames.
    """

    def __init__(
        self, config: DenoiserConfig, obs_channels: int, num_actions: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        cond, length, first = config.cond_channels, config.context_length, config.channels[0]
        squares = config.fold**2
        self.fold, self.choices, self.size = config.fold, config.choices, size
        self.noise_embedding = FourierFeatures(cond)
        self.action_embedding = ActionEmbedding(num_actions, cond // length)
        self.condition = nn.Sequential(nn.Linear(cond, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.conv_in = conv3x3((length + 1) * obs_channels * squares, first)
        self.unet = UNet(config.levels, cond)
        self.norm_out = group_norm(first) if config.norm == "group" else nn.Identity()
        self.conv_out = conv3x3(first, obs_channels * squares)
        nn.init.zeros_(self.conv_out.weight)
        self.choice_head: ChoiceHead | None = None
        if config.choices > 0:
            folded = -(-size[0] // config.fold), -(-size[1] // config.fold)
            told = config.choices, config.reward_memory, config.place_maps
            self.choice_head = ChoiceHead(*told, first, obs_channels * squares, folded)

    def forward(
        self,
        noisy: Tensor,
        c_noise: Tensor,
        context: Tensor,
        actions: Tensor,
        since_reward: Tensor | None = None,
        chance: Tensor | None = None,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Runs the network on scaled inputs, and chooses one of the futures.

        Args:
            noisy: float [N, C, H, W], c_in times the noisy target.
            c_noise: float [N].
            context: float [N, L, C, H, W], the past as `DenoiserConfig.past` has it.
            actions: int64 [N, L], the action taken at each of them.
            since_reward: int64 [N], as `later` counts at the last of them; None where there was
                no reward.
            chance: float32 [N, K], standard Gumbel noise, with which each of the K choices is taken
                as often as it is likely; None for the likeliest.
            modulation: What `modulate` returns of `c_noise` and `actions`; None to work it out.

        Returns:
            float [N, C, H, W].
        """
        modulation = self.modulate(c_noise, actions) if modulation is None else modulation
        output, features = self._draw(noisy, context, modulation)
        if self.choice_head is not None:
            seen = self.choice_head.see(features, output, None)
            since = torch.zeros_like(actions[:, -1]) if since_reward is None else since_reward
            odds = self.choice_head.likelihood(seen, since)
            choice = (odds if chance is None else odds + chance).argmax(dim=1)
            output = self.choice_head(seen, output, since, choice)
        return unfold_frames(output, self.fold, (noisy.shape[-2], noisy.shape[-1]))

    def futures(
        self,
        noisy: Tensor,
        c_noise: Tensor,
        context: Tensor,
        actions: Tensor,
        since_reward: Tensor | None = None,
        corner: Tensor | None = None,
    ) -> Futures:
        """Draws all that may be chosen; what they share is computed once.

        Args:
            noisy: As `forward` takes it, and the rest.
            c_noise: Likewise.
            context: Likewise.
            actions: Likewise.
            since_reward: Likewise.
            corner: int64 [N, 2], row and column of the frame at which these squares were cut out;
                None where they are whole.
        """
        output, features = self._draw(noisy, context, self.modulate(c_noise, actions))
        head, size = self.choice_head, (noisy.shape[-2], noisy.shape[-1])
        if head is None:
            return Futures(unfold_frames(output, self.fold, size)[None], None)
        seen = head.see(features, output, None if corner is None else corner // self.fold)
        none = torch.zeros_like(actions[:, -1])
        since = none if since_reward is None else since_reward
        drawn = [head(seen, output, since, none + choice) for choice in range(1, self.choices)]
        drawn = [unfold_frames(each, self.fold, size) for each in (output, *drawn)]
        odds = head.likelihood(seen, since) if size == self.size else None
        return Futures(torch.stack(drawn), odds)

    def modulate(self, c_noise: Tensor, actions: Tensor) -> Tensor:
        """Works out how noise levels and actions scale and shift the features of the U-Net.

        Args:
            c_noise: float [N].
            actions: int64 [N, L].

        Returns:
            float [N, M].
        """
        noise = self.noise_embedding(c_noise)
        embedded = self.action_embedding(actions).flatten(1)
        # A context length that does not divide the condition leaves its last entries to the noise.
        embedded = F.pad(embedded, (0, noise.shape[1] - embedded.shape[1]))
        return self.unet.modulate(self.condition(noise + embedded))

    def _draw(self, noisy: Tensor, context: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the U-Net draws, folded, and its last features."""
        x = torch.cat([context.flatten(1, 2), noisy], dim=1)
        x = self.unet(self.conv_in(fold_frames(x, self.fold)), modulation)
        return self.conv_out(F.silu(self.norm_out(x))), x
