"""The denoiser: EDM preconditioning around a U-Net, and its training loss.

EDM: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.
As a world model: Alonso et al., "Diffusion for World Modeling" (DIAMOND), NeurIPS 2024.
The change as target: Price et al., "GenCast", 2024, who diffuse the normalised residual.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.config import Config
from dreamenv.errors import ConfigError
from dreamenv.models.blocks import (
    ActionEmbedding,
    FourierFeatures,
    Levels,
    Norm,
    UNet,
    check_fold,
    conv3x3,
    fold_frames,
    group_norm,
    unfold_frames,
)
from dreamenv.models.choice_head import ChoiceHead
from dreamenv.models.frames import quantise, quantise_down, to_float
from dreamenv.padding import PADDING_LEVEL
from dreamenv.share import Share

_GREY = to_float(torch.tensor(PADDING_LEVEL, dtype=torch.uint8)).item()
_LARGEST_CHANGE = 50.0  # standard deviations
# Share of each prediction that all choices learn, and not the best alone. Otherwise none would ever
# be told: at first none but the first is worth what it costs.
_BY_ALL = 0.1


@dataclass(frozen=True)
class DenoiserConfig(Config):
    """Architecture and training noise of the denoiser. The defaults are `atari100k`.

    Attributes:
        context_length: L, how many past frames and actions the next frame is drawn from.
        cond_channels: Size of the condition made of the noise level and the past actions. Even,
            and at least L.
        channels: Width of each level of the U-Net, from the finest.
        depths: Residual blocks of each level.
        attention: Whether the blocks of a level attend.
        middle_attention: Whether the two blocks at the bottom of the U-Net do.
        norm: Of the residual blocks: `group`, as published, or `none`, with which the network does
            to a square cut out of a frame what it does to the frame; see `TrainingConfig.crop`.
        fold: Squares of so many pixels a side become channels before the U-Net: 1, 2 or 4.
        target: What is denoised. `frame`: the next frame, in [-1, 1]. `change`: the difference
            of the next frame from the last, over its standard deviation in the data.
        past: What the network is shown of the past. `frames`: the frames, over σ_data. `changes`:
            the last frame, and the changes between the frames before it, in the unit of the
            target, which must be `change`. It says the same, and what moved stands out. Before an
            episode's first frame nothing does.
        choices: K, among how many possible futures a frame is chosen: the first is what the U-Net
            draws, the others a `ChoiceHead`, which also tells how likely each is. One evaluation of
            the denoiser returns the mean of what may come, which is no frame where a ball may come
            up in any of several places. What a choice stands for is learned: nine tenths of each
            prediction by the best, the one with the least error, the tenth by all alike
            (Guzman-Rivera et al., "Multiple Choice Learning", NIPS 2012; Rupprecht et al.,
            "Learning in an Uncertain World", ICCV 2017). From whole frames it is learned how likely
            each is to be the best; from squares that are cut out it is not. At least 2, or 0 for
            none.
        choice_cost: How much less the squared error of F, summed over a frame or a square cut out
            of it, must be for another choice than the first to be the best: what the past decides
            is not to be chosen.
        reward_memory: For how many steps choices are told how long ago the last reward came; how
            likely they are hangs on its sign, too. 0 for no memory.
        place_maps: How many learned maps of the frame tell choices where they are; 0 for none.
        sigma_data: σ_data, the standard deviation of the target in EDM's preconditioning.
        sigma_offset: σ_off, the noise added to whole channels in training.
        log_sigma_mean: Mean of log σ in training.
        log_sigma_std: Standard deviation of log σ in training.
        sigma_min: Least σ in training.
        sigma_max: Largest σ in training.
        start_share: Probability of training at the start of sampling instead: σ is `sigma_max`,
            and the input has nothing of the target, only the standard normal noise that a
            sampler without `scale_start` begins with.
    """

    context_length: int = 4
    cond_channels: int = 256
    channels: tuple[int, ...] = (64, 64, 64, 64)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[bool, ...] = (False, False, False, False)
    middle_attention: bool = True
    norm: Norm = "group"
    fold: int = 1
    target: Literal["frame", "change"] = "frame"
    past: Literal["frames", "changes"] = "frames"
    choices: int = 0
    choice_cost: float = 0.0
    reward_memory: int = 0
    place_maps: int = 0
    sigma_data: float = 0.5
    sigma_offset: float = 0.3
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.2
    sigma_min: float = 2e-3
    sigma_max: float = 20.0
    start_share: float = 0.0

    def __post_init__(self) -> None:
        _ = self.levels  # It checks itself.
        check_fold(self.fold)
        if self.context_length < 1:
            raise ConfigError(f"context_length is {self.context_length}; it must be at least 1")
        if self.cond_channels % 2 or self.cond_channels < max(2, self.context_length):
            raise ConfigError(
                f"cond_channels is {self.cond_channels}; it must be even, and at least "
                f"context_length ({self.context_length})"
            )
        if self.target not in ("frame", "change"):
            raise ConfigError(f"target is {self.target!r}; it must be 'frame' or 'change'")
        if self.past not in ("frames", "changes"):
            raise ConfigError(f"past is {self.past!r}; it must be 'frames' or 'changes'")
        if self.past == "changes" and self.target != "change":
            raise ConfigError("past is 'changes', which only a target of 'change' has a unit for")
        if self.choices < 0 or self.choices == 1:
            raise ConfigError(f"choices is {self.choices}; it must be 0, or at least 2")
        for name in "choice_cost", "reward_memory", "place_maps":
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
            if getattr(self, name) > 0 and self.choices == 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, and choices, whose it is, is 0; give at "
                    f"least 2"
                )
        if self.sigma_data <= 0 or self.sigma_offset < 0:
            raise ConfigError(
                f"sigma_data is {self.sigma_data} and sigma_offset {self.sigma_offset}; the "
                f"first must be above 0, the second at least 0"
            )
        if self.log_sigma_std < 0:
            raise ConfigError(f"log_sigma_std is {self.log_sigma_std}; it must be at least 0")
        if not 0 < self.sigma_min <= self.sigma_max:
            raise ConfigError(
                f"sigma_min is {self.sigma_min} and sigma_max {self.sigma_max}; they must be "
                f"above 0, the first not above the second"
            )
        if not 0 <= self.start_share <= 1:
            raise ConfigError(f"start_share is {self.start_share}; it must be in [0, 1]")

    @property
    def levels(self) -> Levels:
        """The levels of the network.

        Raises:
            ConfigError: They cannot work.
        """
        return Levels(self.channels, self.depths, self.attention, self.middle_attention, self.norm)

    @property
    def multiple(self) -> int:
        """How many pixels of the frame a side one of the coarsest level has."""
        halvings = len(self.channels) - 1
        return self.fold << halvings


@dataclass(frozen=True)
class Preconditioners:
    """The factors of EDM's preconditioning at a noise level; each float32 [N]."""

    c_in: Tensor
    c_out: Tensor
    c_skip: Tensor
    c_noise: Tensor


@dataclass(frozen=True)
class TrainingNoise:
    """The noise of one training step, for P predictions of a batch of B segments.

    Attributes:
        sigma: float32 [P, B], the noise levels σ.
        offset: float32 [P, B, C, 1, 1], standard normal: one number a channel.
        pixel: float32 [P, B, C, H, W], standard normal.
        starts: bool [P, B], where the input is `pixel` alone; None for nowhere.
    """

    sigma: Tensor
    offset: Tensor
    pixel: Tensor
    starts: Tensor | None = None

    def part(self, share: Share) -> "TrainingNoise":
        """Returns the noise of a share of the segments."""
        return TrainingNoise(
            sigma=share.of(self.sigma, 1),
            offset=share.of(self.offset, 1),
            pixel=share.of(self.pixel, 1),
            starts=None if self.starts is None else share.of(self.starts, 1),
        )


class DenoiserLosses(NamedTuple):
    """What a denoiser learns from, each float32 [].

    Attributes:
        denoising: How wrong its predictions are.
        choosing: How unlikely it took the best choices to be: their cross-entropy. 0 without
            choices, and for squares cut out of frames.
    """

    denoising: Tensor
    choosing: Tensor


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

        Returns:
            float [N, C, H, W].
        """
        output, features = self._draw(noisy, c_noise, context, actions)
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
        output, features = self._draw(noisy, c_noise, context, actions)
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

    def _draw(
        self, noisy: Tensor, c_noise: Tensor, context: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns what the U-Net draws, folded, and its last features."""
        condition = self._condition(c_noise, actions)
        x = torch.cat([context.flatten(1, 2), noisy], dim=1)
        x = self.unet(self.conv_in(fold_frames(x, self.fold)), condition)
        return self.conv_out(F.silu(self.norm_out(x))), x

    def _condition(self, c_noise: Tensor, actions: Tensor) -> Tensor:
        noise = self.noise_embedding(c_noise)
        embedded = self.action_embedding(actions).flatten(1)
        # A context length that does not divide the condition leaves its last entries to the noise.
        embedded = F.pad(embedded, (0, noise.shape[1] - embedded.shape[1]))
        condition: Tensor = self.condition(noise + embedded)
        return condition


class Denoiser(nn.Module):
    """D, the denoised target as a function of the noisy one, the noise level and the past.

    Targets are frames, or changes from the last frame of the context: see `DenoiserConfig`.

    Args:
        config: The architecture and the training noise.
        obs_channels: C, channels of a frame.
        num_actions: The number of actions.
        size: H and W of whole frames; only `DenoiserConfig.place_maps` depend on it.

    Attributes:
        change_std: float32 [], the unit of targets of kind `change`: the standard deviation over
            the data of the difference of neighbouring frames, these in [-1, 1].
    """

    change_std: Tensor

    def __init__(
        self,
        config: DenoiserConfig,
        obs_channels: int,
        num_actions: int,
        size: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__()
        self.config = config
        self.network = DenoiserNetwork(config, obs_channels, num_actions, size)
        if config.target == "change":
            self.register_buffer("change_std", torch.ones(()))

    def preconditioners(self, sigma: Tensor) -> Preconditioners:
        """Computes the factors of EDM's preconditioning (Karras et al. 2022, table 1).

        Args:
            sigma: float32 [N], the noise levels.
        """
        data = self.config.sigma_data
        total = (sigma.square() + self.config.sigma_offset**2).sqrt()
        variance = total.square() + data**2
        c_skip = data**2 / variance
        return Preconditioners(1 / variance.sqrt(), total * c_skip.sqrt(), c_skip, total.log() / 4)

    def run_network(
        self,
        noisy: Tensor,
        factors: Preconditioners,
        context: Tensor,
        actions: Tensor,
        since_reward: Tensor | None = None,
        chance: Tensor | None = None,
    ) -> Tensor:
        """Runs F on a noisy target.

        Args:
            noisy: float32 [N, C, H, W].
            factors: For the noise level of each.
            context: float32 [N, L, C, H, W] in [-1, 1], oldest first.
            actions: int64 [N, L].
            since_reward: int64 [N], as `later` counts; None where there was no reward.
            chance: float32 [N, K], standard Gumbel noise; None for the likeliest choice.

        Returns:
            float32 [N, C, H, W].
        """
        scaled, past = _each(factors.c_in) * noisy, self._past(context)
        output: Tensor = self.network(scaled, factors.c_noise, past, actions, since_reward, chance)
        return output.float()

    def forward(
        self,
        noisy: Tensor,
        sigma: Tensor,
        context: Tensor,
        actions: Tensor,
        since_reward: Tensor | None = None,
        chance: Tensor | None = None,
    ) -> Tensor:
        """Computes D, as sampling uses it: a target whose frame has the levels of a byte.

        Args:
            noisy: float32 [N, C, H, W].
            sigma: float32 [N], the noise levels.
            context: float32 [N, L, C, H, W] in [-1, 1], oldest first.
            actions: int64 [N, L].
            since_reward: int64 [N], as `later` counts; None where there was no reward.
            chance: float32 [N, K], standard Gumbel noise; None for the likeliest choice.

        Returns:
            float32 [N, C, H, W].
        """
        factors = self.preconditioners(sigma)
        output = self.run_network(noisy, factors, context, actions, since_reward, chance)
        return self._wrap(noisy, output, factors, context[:, -1])

    def to_target(self, frame: Tensor, last: Tensor) -> Tensor:
        """Expresses a frame as what is denoised.

        Args:
            frame: float32 [N, C, H, W] in [-1, 1].
            last: The frame before it, likewise.

        Returns:
            float32 [N, C, H, W].
        """
        if self.config.target == "frame":
            return frame
        return (frame - last) / self.change_std

    def to_frame(self, target: Tensor, last: Tensor) -> Tensor:
        """Undoes `to_target`. What leaves [-1, 1] is not clamped."""
        if self.config.target == "frame":
            return target
        return last + target * self.change_std

    def draw_noise(self, obs: Tensor, generator: torch.Generator | None = None) -> TrainingNoise:
        """Draws the noise of one training step.

        log σ ~ N(`log_sigma_mean`, `log_sigma_std`), σ clipped to [`sigma_min`, `sigma_max`];
        `sigma_max` with nothing of the target for a share of `start_share`.

        Args:
            obs: [B, T, C, H, W], the segments to train on; only their shape and device matter.
            generator: Where the random numbers come from, on the same device.
        """
        batch, length, channels, height, width = obs.shape
        config, predictions = self.config, length - self.config.context_length

        def normal(*shape: int) -> Tensor:
            return torch.randn(predictions, batch, *shape, generator=generator, device=obs.device)

        log_sigma = config.log_sigma_mean + config.log_sigma_std * normal()
        sigma = log_sigma.exp().clamp(config.sigma_min, config.sigma_max)
        noise = TrainingNoise(sigma, normal(channels, 1, 1), normal(channels, height, width))
        if config.start_share == 0:
            return noise
        starts = torch.rand(sigma.shape, generator=generator, device=obs.device)
        starts = starts < config.start_share
        sigma = torch.where(starts, config.sigma_max, sigma)
        return replace(noise, sigma=sigma, starts=starts)

    def losses(
        self,
        obs: Tensor,
        actions: Tensor,
        mask: Tensor,
        noise: TrainingNoise,
        whole: Tensor | None = None,
        since_reward: Tensor | None = None,
        corner: Tensor | None = None,
    ) -> DenoiserLosses:
        """Computes the training losses over the T - L predictions of each segment.

        The mean squared error of F to (target - c_skip * noisy) / c_out (Karras et al. 2022,
        eq. 8), over the predicted frames that are not padding, nor, for the target `change`,
        follow it. Each prediction, without its gradient, takes the place of the real
        frame in the context of the next. Where there are choices, nine tenths of an error are that
        of the best one, whose prediction it is, and one is the mean of all.

        Args:
            obs: float32 [B, T, C, H, W] in [-1, 1], with T > L.
            actions: int64 [B, T].
            mask: bool [B, T], False where a frame is padding.
            noise: As `draw_noise` gives it for `obs`.
            whole: Where the segments are a share of a batch, the mask of all of it. The losses of
                the shares then add up to that of the batch.
            since_reward: int64 [B, T], as `later` counts; None where there was no reward.
            corner: int64 [B, 2], where in the frame squares were cut out; None for whole frames.
        """
        length = self.config.context_length
        frames = list(obs.unbind(dim=1))
        denoising, choosing = [], []
        for step, sigma in enumerate(noise.sigma):
            context = torch.stack(frames[step : step + length], dim=1)
            past, last = actions[:, step : step + length], frames[step + length - 1]
            target = self.to_target(frames[step + length], last)
            noisy = target + self.config.sigma_offset * noise.offset[step]
            noisy = noisy + _each(sigma) * noise.pixel[step]
            if noise.starts is not None:
                noisy = torch.where(_each(noise.starts[step]), noise.pixel[step], noisy)
            factors = self.preconditioners(sigma)
            since = None if since_reward is None else since_reward[:, step + length - 1]
            wanted = (target - _each(factors.c_skip) * noisy) / _each(factors.c_out)
            scaled = _each(factors.c_in) * noisy
            told = factors.c_noise, self._past(context), past, since, corner
            futures = self.network.futures(scaled, *told)
            outputs = futures.drawn.float()
            errors = (outputs - wanted).square().mean(dim=(2, 3, 4))  # [K, B]
            best = self._best(errors, wanted[0].numel())
            real = self._real_targets(mask, step + length)
            counted = real if whole is None else self._real_targets(whole, step + length)
            denoising.append(_masked_mean(_learned(errors, best), real, counted))
            choosing.append(_masked_mean(_surprise(futures.likelihood, best), real, counted))
            output = outputs[best, torch.arange(len(best), device=best.device)]
            dreamt = self.to_frame(self._wrap(noisy, output.detach(), factors, last), last)
            if self.config.target == "change":
                # What was not to be learned is no past to learn from.
                dreamt = torch.where(_each(real), dreamt, frames[step + length])
            frames[step + length] = dreamt
        return DenoiserLosses(torch.stack(denoising).mean(), torch.stack(choosing).mean())

    def loss(
        self,
        obs: Tensor,
        actions: Tensor,
        mask: Tensor,
        noise: TrainingNoise,
        whole: Tensor | None = None,
        since_reward: Tensor | None = None,
        corner: Tensor | None = None,
    ) -> Tensor:
        """Adds up the training losses, float32 []; the arguments are those of `losses`."""
        losses = self.losses(obs, actions, mask, noise, whole, since_reward, corner)
        return losses.denoising + losses.choosing

    def _best(self, errors: Tensor, count: int) -> Tensor:
        """Tells which choice, of errors [K, B], means of so many, is the best: int64 [B]."""
        first, others = errors[:1], errors[1:] + self.config.choice_cost / count
        return torch.cat([first, others]).argmin(dim=0)

    def _past(self, context: Tensor) -> Tensor:
        """Turns the frames of the past into what the network is shown of them."""
        if self.config.past == "frames":
            return context / self.config.sigma_data
        changes = (context[:, 1:] - context[:, :-1]) / self.change_std
        changes = changes.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
        # The change from padding to an episode's first frame is none of the game's.
        is_padding = (context[:, :-1] == _GREY).flatten(2).all(dim=2)
        changes = changes.masked_fill(is_padding[:, :, None, None, None], 0)
        return torch.cat([changes, context[:, -1:]], dim=1)

    def _real_targets(self, mask: Tensor, step: int) -> Tensor:
        """Tells the rows, bool [B], whose target at a step is one to learn."""
        if self.config.target == "frame":
            return mask[:, step]
        # An episode's first frame differs from the grey before it by hundreds of units of change.
        return mask[:, step] & mask[:, step - 1]

    def _wrap(
        self, noisy: Tensor, output: Tensor, factors: Preconditioners, last: Tensor
    ) -> Tensor:
        """Turns the output of F into D: c_skip * noisy + c_out * F, its frame quantised."""
        target = _each(factors.c_skip) * noisy + _each(factors.c_out) * output
        if self.config.target == "frame":
            return quantise_down(target)
        # Truncation, as published for frames, would darken a frame that does not change by a
        # level a step.
        return self.to_target(quantise(self.to_frame(target, last)), last)


def _learned(errors: Tensor, best: Tensor) -> Tensor:
    """Weighs the errors of the choices, [K, B], of which `best`, int64 [B], has the least: [B]."""
    of_best = errors.gather(0, best[None])[0]
    if len(errors) == 1:
        return of_best
    return (1 - _BY_ALL) * of_best + _BY_ALL * errors.mean(dim=0)


def _surprise(likelihood: Tensor | None, best: Tensor) -> Tensor:
    """Tells how unlikely each of the best choices, [B], was taken to be: float32 [B]."""
    if likelihood is None:
        return torch.zeros(len(best), device=best.device)
    return F.cross_entropy(likelihood, best, reduction="none")


def _each(factor: Tensor) -> Tensor:
    """Shapes one number a row, [N], to multiply frames: [N, 1, 1, 1]."""
    return factor[:, None, None, None]


def _masked_mean(errors: Tensor, mask: Tensor, counted: Tensor) -> Tensor:
    """Sums errors [B] over the rows of the mask [B], divided by how many are counted."""
    return torch.where(mask, errors, 0).sum() / counted.sum().clamp(min=1)
