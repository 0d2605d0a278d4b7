"""The parts the networks are built of: norms, attention, residual blocks, the U-Net.

The U-Net is the one of DIAMOND (Alonso et al., NeurIPS 2024), itself after Ho et al. (2020)
and Karras et al. (2022).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.errors import ConfigError

GROUP_SIZE = 32
HEAD_SIZE = 8
EPSILON = 1e-5

Norm = Literal["group", "none"]
"""What residual blocks do before they scale and shift by the condition.

`group`: GroupNorm, as published, over the whole frame. `none`: nothing, so that a frame is treated
as any square cut out of it is, whatever lies in the rest.
"""


@dataclass(frozen=True)
class Levels:
    """The levels of a U-Net, or of its way down, from the finest.

    Attributes:
        channels: Width of each level.
        depths: Residual blocks of each level on the way down.
        attention: Whether the blocks of a level attend.
        middle_attention: Whether the two blocks at the bottom do.
        norm: Of the blocks, on all levels.

    Raises:
        ConfigError: The three differ in length, or a number in them cannot work.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    attention: tuple[bool, ...]
    middle_attention: bool = True
    norm: Norm = "group"

    def __post_init__(self) -> None:
        if self.norm not in ("group", "none"):
            raise ConfigError(f"norm is {self.norm!r}; it must be 'group' or 'none'")
        lengths = len(self.channels), len(self.depths), len(self.attention)
        if not self.channels or len(set(lengths)) > 1:
            raise ConfigError(
                f"channels, depths and attention have {lengths[0]}, {lengths[1]} and {lengths[2]} "
                f"entries; give each one entry a level"
            )
        if min(self.depths) < 1:
            raise ConfigError(f"depths is {self.depths}; each level needs at least 1 block")
        check_channels(self.channels)


def check_channels(channels: Sequence[int]) -> None:
    """Checks that every width can be normalised in groups and attended to in heads.

    Raises:
        ConfigError: A width is not a positive multiple of 8 and of its number of groups.
    """
    for width in channels:
        groups = _num_groups(width)
        if width < 1 or width % HEAD_SIZE or width % groups:
            raise ConfigError(
                f"channels is {tuple(channels)}; {width} must be a multiple of {HEAD_SIZE} (a head "
                f"of attention) and of {groups} (groups of about {GROUP_SIZE} channels)"
            )


def check_fold(fold: int) -> None:
    """Checks how far frames are folded into channels.

    Raises:
        ConfigError: It is not 1, 2 or 4.
    """
    if fold not in (1, 2, 4):
        raise ConfigError(f"fold is {fold}; it must be 1, 2 or 4")


def fold_frames(frames: Tensor, fold: int) -> Tensor:
    """Folds squares of `fold` by `fold` pixels into channels.

    Args:
        frames: [N, C, H, W]. Sizes that `fold` does not divide are zero-padded right and below.
        fold: 1, 2 or 4.

    Returns:
        [N, C * fold**2, ceil(H / fold), ceil(W / fold)].
    """
    if fold == 1:
        return frames
    return F.pixel_unshuffle(pad_to_multiple(frames, fold), fold)


def unfold_frames(folded: Tensor, fold: int, size: tuple[int, int]) -> Tensor:
    """Undoes `fold_frames`: [N, C * fold**2, h, w] to [N, C, *size]."""
    if fold == 1:
        return folded
    return F.pixel_shuffle(folded, fold)[..., : size[0], : size[1]]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pads [..., H, W] right and below to multiples of `multiple`."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns a GroupNorm of groups of 32 channels, or of one group where there are fewer."""
    return nn.GroupNorm(_num_groups(channels), channels, eps=EPSILON)


def conv3x3(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Conv2d:
    """Returns a 3x3 convolution that keeps the size (or halves it, rounding up)."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Returns a 1x1 convolution."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=1)


def zero(module: nn.Module) -> None:
    """Sets every parameter of the module to 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


class FourierFeatures(nn.Module):
    """Fourier features of a number, with fixed random frequencies.

    Args:
        size: How many features. Even.
    """

    frequencies: Tensor  # float32 [1, size / 2]

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(1, size // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N] to [N, size]: the cosines, then the sines, of 2π x frequencies."""
        angles = 2 * math.pi * x[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class ActionEmbedding(nn.Module):
    """A learned vector for each discrete action.

    The one place where an action becomes numbers: continuous actions would come in here.

    Args:
        num_actions: The number of actions.
        size: Values an action.
    """

    def __init__(self, num_actions: int, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_actions, size)

    def forward(self, actions: Tensor) -> Tensor:
        """Maps int64 [...] to [..., size]."""
        embedded: Tensor = self.table(actions)
        return embedded


class AdaptiveNorm(nn.Module):
    """A norm whose scale and shift are a linear function of the condition; see `modulate`."""

    def __init__(self, channels: int, cond_channels: int, norm: Norm = "group") -> None:
        super().__init__()
        self.num_groups = _num_groups(channels) if norm == "group" else None
        self.linear = nn.Linear(cond_channels, 2 * channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Maps [N, C, H, W], and the scales and shifts [N, 2 C], to [N, C, H, W]."""
        scale, shift = modulation.chunk(2, dim=1)
        if self.num_groups is not None and _folds_norms(x):
            return _folded_group_norm(x, self.num_groups, 1 + scale, shift)
        if self.num_groups is not None:
            x = F.group_norm(x, self.num_groups, eps=EPSILON)
        return torch.addcmul(shift[:, :, None, None], x, 1 + scale[:, :, None, None])


def modulate(norms: Sequence[AdaptiveNorm], condition: Tensor) -> Tensor:
    """Works out the scales and shifts of norms.

    Args:
        norms: In the order in which they are applied.
        condition: [N, cond_channels].

    Returns:
        Those of all norms side by side, [N, 2 C of the first + 2 C of the second + ...].
    """
    if not torch.compiler.is_compiling():
        return torch.cat([norm.linear(condition) for norm in norms], dim=1)
    # As one product: the weights are copied when they are cast, and might as well be side by side.
    weight = torch.cat([norm.linear.weight.to(condition.dtype) for norm in norms])
    bias = torch.cat([norm.linear.bias.to(condition.dtype) for norm in norms])
    return F.linear(condition, weight, bias)


def each_modulation(norms: Sequence[AdaptiveNorm], modulation: Tensor) -> Iterator[Tensor]:
    """Takes apart what `modulate` returned: yields the scales and shifts of each norm, [N, 2 C]."""
    return iter(modulation.split([norm.linear.out_features for norm in norms], dim=1))


def norms_of(module: nn.Module) -> list[AdaptiveNorm]:
    """Lists the adaptive norms of a module, in the order in which they are applied."""
    return [each for each in module.modules() if isinstance(each, AdaptiveNorm)]


class SelfAttention(nn.Module):
    """Self-attention over all pixels, in heads of 8 channels.

    As published, its output is added to the normalised input, not to the input itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = channels // HEAD_SIZE
        self.norm = group_norm(channels)
        self.qkv = conv1x1(channels, 3 * channels)
        self.out = conv1x1(channels, channels)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, H, W]."""
        batch, channels, height, width = x.shape
        x = self.norm(x)
        # [N, 3 * heads, 8, H * W] -> three of [N, heads, H * W, 8]
        heads = self.qkv(x).reshape(batch, 3 * self.num_heads, HEAD_SIZE, height * width)
        queries, keys, values = heads.transpose(2, 3).chunk(3, dim=1)
        # At 8 channels a head, plain products beat the fused kernel on a CPU: 4 times in bf16.
        weights = queries @ keys.transpose(2, 3) / math.sqrt(HEAD_SIZE)
        attended = weights.softmax(dim=3) @ values
        attended = attended.transpose(2, 3).reshape(batch, channels, height, width)
        added: Tensor = x + self.out(attended)
        return added


class ResidualBlock(nn.Module):
    """Two adaptively normalised 3x3 convolutions beside a shortcut, then attention if asked for."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        cond_channels: int,
        *,
        attention: bool,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else conv1x1(channels_in, channels_out)
        self.norm1 = AdaptiveNorm(channels_in, cond_channels, norm)
        self.conv1 = conv3x3(channels_in, channels_out)
        self.norm2 = AdaptiveNorm(channels_out, cond_channels, norm)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.attention = SelfAttention(channels_out) if attention else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, modulations: Iterator[Tensor]) -> Tensor:
        """Maps [N, channels_in, H, W] to [N, channels_out, H, W], by the next two modulations."""
        hidden = self.conv1(F.silu(self.norm1(x, next(modulations))))
        hidden = self.conv2(F.silu(self.norm2(hidden, next(modulations))))
        attended: Tensor = self.attention(self.skip(x) + hidden)
        return attended


class ResidualStack(nn.ModuleList):
    """Residual blocks one after the other, on one level."""

    def __init__(
        self,
        widths_in: Sequence[int],
        widths_out: Sequence[int],
        cond_channels: int,
        *,
        attention: bool,
        norm: Norm,
    ) -> None:
        super().__init__(
            ResidualBlock(channels_in, channels_out, cond_channels, attention=attention, norm=norm)
            for channels_in, channels_out in zip(widths_in, widths_out, strict=True)
        )

    def forward(
        self, x: Tensor, modulations: Iterator[Tensor], joined: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Runs the blocks.

        Args:
            x: [N, C, H, W].
            modulations: Of all norms to come, as `each_modulation` yields them.
            joined: Where given, what each block finds concatenated to its input.

        Returns:
            The output of every block.
        """
        outputs = []
        for index, block in enumerate(self):
            x = block(x if joined is None else torch.cat([x, joined[index]], dim=1), modulations)
            outputs.append(x)
        return outputs


class DownPath(nn.Module):
    """The way down: levels of residual blocks, halved in between, then two that may attend.

    Args:
        levels: Its levels. The input has the width of the first.
        cond_channels: Size of the condition.
    """

    def __init__(self, levels: Levels, cond_channels: int) -> None:
        super().__init__()
        channels = levels.channels
        self.shrink = nn.ModuleList([nn.Identity()])
        self.shrink.extend(conv3x3(width, width, stride=2) for width in channels[:-1])
        self.levels = nn.ModuleList()
        for level, (width, depth) in enumerate(zip(channels, levels.depths, strict=True)):
            above = channels[max(0, level - 1)]
            self.levels.append(
                ResidualStack(
                    [above] + [width] * (depth - 1),
                    [width] * depth,
                    cond_channels,
                    attention=levels.attention[level],
                    norm=levels.norm,
                )
            )
        last = [channels[-1]] * 2
        self.middle = ResidualStack(
            last, last, cond_channels, attention=levels.middle_attention, norm=levels.norm
        )

    def forward(
        self, x: Tensor, modulations: Iterator[Tensor]
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Runs the way down.

        Args:
            x: [N, channels[0], H, W].
            modulations: Of all norms to come, as `each_modulation` yields them.

        Returns:
            The bottom, [N, channels[-1], H / 2**(levels - 1), W / 2**(levels - 1)], each halving
            rounded up; and for each level its input, then the output of each of its blocks.
        """
        passed: list[list[Tensor]] = []
        for shrink, level in zip(self.shrink, self.levels, strict=True):
            x = shrink(x)
            passed.append([x, *level(x, modulations)])
            x = passed[-1][-1]
        return self.middle(x, modulations)[-1], passed


class UpPath(nn.Module):
    """The way up: mirrors `DownPath`, one block more a level, each fed what the way down left."""

    def __init__(self, levels: Levels, cond_channels: int) -> None:
        super().__init__()
        channels = levels.channels
        self.grow = nn.ModuleList([nn.Identity()])
        self.grow.extend(Upsample(width) for width in reversed(channels[:-1]))
        self.levels = nn.ModuleList()
        for level in reversed(range(len(channels))):
            width, above, depth = channels[level], channels[max(0, level - 1)], levels.depths[level]
            self.levels.append(
                ResidualStack(
                    [2 * width] * depth + [width + above],
                    [width] * depth + [above],
                    cond_channels,
                    attention=levels.attention[level],
                    norm=levels.norm,
                )
            )

    def forward(
        self, x: Tensor, modulations: Iterator[Tensor], passed: list[list[Tensor]]
    ) -> Tensor:
        """Maps the bottom, and what `DownPath` passed on, to [N, channels[0], H, W]."""
        for grow, level, joined in zip(self.grow, self.levels, reversed(passed), strict=True):
            x = level(grow(x), modulations, joined[::-1])[-1]
        return x


class Upsample(nn.Module):
    """Doubles the size: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, 2 H, 2 W]."""
        grown: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return grown


class UNet(nn.Module):
    """The U-Net: down, middle, up, each block conditioned.

    Args:
        levels: Its levels. The input has the width of the first.
        cond_channels: Size of the condition.
    """

    def __init__(self, levels: Levels, cond_channels: int) -> None:
        super().__init__()
        self.down = DownPath(levels, cond_channels)
        self.up = UpPath(levels, cond_channels)
        self._norms = norms_of(self)
        self.multiple = 2 ** (len(levels.channels) - 1)

    def modulate(self, condition: Tensor) -> Tensor:
        """Maps the condition, [N, cond_channels], to the scales and shifts of all norms, [N, M]."""
        return modulate(self._norms, condition)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Maps [N, channels[0], H, W] and what `modulate` returns to that shape, for any H and W.

        Sizes that the levels do not divide are zero-padded right and below, and cropped after.
        """
        height, width = x.shape[-2:]
        modulations = each_modulation(self._norms, modulation)
        bottom, passed = self.down(pad_to_multiple(x, self.multiple), modulations)
        grown: Tensor = self.up(bottom, modulations, passed)
        return grown[..., :height, :width]


def _folds_norms(x: Tensor) -> bool:
    # Where nothing is compiled torch's own is quicker; on a GPU, and in training, it was not timed.
    is_compiled = torch.compiler.is_compiling() and x.device.type == "cpu"
    return is_compiled and not torch.is_grad_enabled()


def _folded_group_norm(x: Tensor, num_groups: int, factor: Tensor, shift: Tensor) -> Tensor:
    """Normalises in groups, multiplies and shifts: two sums, then one multiply-add a value.

    Args:
        x: [N, C, H, W].
        num_groups: Groups of channels.
        factor: [N, C].
        shift: [N, C].
    """
    values = x.float()
    grouped = len(x), num_groups, -1
    size = values[0].numel() // num_groups
    # By the channel first: with the channels last, these sums are over whole vectors.
    mean, square = (
        each.sum(dim=(2, 3)).reshape(grouped).sum(dim=2, keepdim=True) / size
        for each in (values, values.square())
    )
    variance = (square - mean.square()).clamp(min=0)
    scale = (variance + EPSILON).rsqrt() * factor.float().reshape(grouped)
    offset = shift.float().reshape(grouped) - mean * scale
    # Stacked, the compiler keeps them; else it works them out anew for every pixel: 1.7 times.
    scale, offset = torch.stack((scale, offset)).reshape(2, *x.shape[:2], 1, 1)
    return torch.addcmul(offset, values, scale).to(x.dtype)


def _num_groups(channels: int) -> int:
    return max(1, channels // GROUP_SIZE)
