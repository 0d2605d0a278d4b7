"""The denoiser: EDM preconditioning around a U-Net, and its training loss.

EDM: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.
As a world model: Alonso et al., "Diffusion for World Modeling" (DIAMOND), NeurIPS 2024.
The change as target: Price et al., "GenCast", 2024, who diffuse the normalised residual.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.denoiser_network import DenoiserNetwork
from dreamenv.models.frames import quantise, quantise_down, to_float
from dreamenv.padding import PADDING_LEVEL
from dreamenv.share import Share

_GREY = to_float(torch.tensor(PADDING_LEVEL, dtype=torch.uint8)).item()
_LARGEST_CHANGE = 50.0  # standard deviations
# Shares of each prediction that the best of the choices after the first learns, and that all learn:
# at first none but the first is worth what it costs, and none would ever be told anything.
_BY_BEST_OTHER, _BY_ALL = 0.05, 0.05


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
        forgets: bool [B], in which segments no reward is told; None for none.
    """

    sigma: Tensor
    offset: Tensor
    pixel: Tensor
    starts: Tensor | None = None
    forgets: Tensor | None = None

    def part(self, share: Share) -> "TrainingNoise":
        """Returns the noise of a share of the segments."""
        return TrainingNoise(
            sigma=share.of(self.sigma, 1),
            offset=share.of(self.offset, 1),
            pixel=share.of(self.pixel, 1),
            starts=None if self.starts is None else share.of(self.starts, 1),
            forgets=None if self.forgets is None else share.of(self.forgets),
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

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.denoising + self.choosing


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
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Runs F on a noisy target.

        Args:
            noisy: float32 [N, C, H, W].
            factors: For the noise level of each.
            context: float32 [N, L, C, H, W] in [-1, 1], oldest first.
            actions: int64 [N, L].
            since_reward: int64 [N], as `later` counts; None where there was no reward.
            chance: float32 [N, K], standard Gumbel noise; None for the likeliest choice.
            modulation: As `modulate` returns it; None to work it out.

        Returns:
            float32 [N, C, H, W].
        """
        scaled, past = _each(factors.c_in) * noisy, self._past(context)
        told = past, actions, since_reward, chance, modulation
        output: Tensor = self.network(scaled, factors.c_noise, *told)
        return output.float()

    def modulate(self, sigma: Tensor, actions: Tensor) -> Tensor:
        """Works out what noise levels and actions alone decide, for several levels at once.

        Args:
            sigma: float32 [N], the noise levels.
            actions: int64 [N, L].

        Returns:
            float [N, M], for `forward`.
        """
        return self.network.modulate(self.preconditioners(sigma).c_noise, actions)

    def forward(
        self,
        noisy: Tensor,
        sigma: Tensor,
        context: Tensor,
        actions: Tensor,
        since_reward: Tensor | None = None,
        chance: Tensor | None = None,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Computes D, as sampling uses it: a target whose frame has the levels of a byte.

        Args:
            noisy: float32 [N, C, H, W].
            sigma: float32 [N], the noise levels.
            context: float32 [N, L, C, H, W] in [-1, 1], oldest first.
            actions: int64 [N, L].
            since_reward: int64 [N], as `later` counts; None where there was no reward.
            chance: float32 [N, K], standard Gumbel noise; None for the likeliest choice.
            modulation: What `modulate` returns of these levels and actions; None to work it out.

        Returns:
            float32 [N, C, H, W].
        """
        factors = self.preconditioners(sigma)
        told = context, actions, since_reward, chance, modulation
        output = self.run_network(noisy, factors, *told)
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
        `sigma_max` with nothing of the target for a share of `start_share`; no reward told for a
        share of `forget_share` of the segments.

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
        if config.start_share > 0:
            starts = torch.rand(sigma.shape, generator=generator, device=obs.device)
            starts = starts < config.start_share
            noise = replace(
                noise, sigma=torch.where(starts, config.sigma_max, sigma), starts=starts
            )
        if config.forget_share > 0:
            forgets = torch.rand(batch, generator=generator, device=obs.device)
            noise = replace(noise, forgets=forgets < config.forget_share)
        return noise

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
        of the best one, whose prediction it is, half a tenth is that of the best after the first,
        and half a tenth the mean of all.

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
        if since_reward is not None and noise.forgets is not None:
            since_reward = since_reward.masked_fill(noise.forgets[:, None], 0)
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
    learned = (1 - _BY_BEST_OTHER - _BY_ALL) * of_best
    return learned + _BY_BEST_OTHER * errors[1:].amin(dim=0) + _BY_ALL * errors.mean(dim=0)


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
