"""The past as a dream has it: the world model's own frames, along the actions of real episodes.

In a dream every frame comes after frames that were dreamt, whose small errors no real past has.
A network that is to do well there learns from such pasts: what follows one is the real next frame,
reward and end (Ross et al., "DAgger", 2011; for frames, the unrolled training of DIAMOND).
"""

from dataclasses import replace

import torch
from torch import Tensor

from dreamenv.data import Segments
from dreamenv.models.world_model import WorldModel

_STRAYED = 0.3  # of the squared change of the real frame: a thing in a wrong place has about twice
_FLOOR = 0.05  # of what a frame changes on average: where nothing moves, not all is astray


class DreamtPast:
    """Dreams over the frames of segments.

    Args:
        world_model: What dreams, as far as it has come.
        usual_change: The mean squared change of a pixel from one frame to the next, in levels of
            a byte.
        device: Where the segments are.
        seed: Of the noise.
        levels: Noise levels that a frame is drawn with; None for those of the world model.
        compile: Whether to compile its networks.
    """

    def __init__(
        self,
        world_model: WorldModel,
        usual_change: float,
        device: torch.device,
        seed: int,
        *,
        levels: tuple[float, ...] | None = None,
        compile: bool = False,
    ) -> None:
        sampler = world_model.config.sampler
        self._sampler = sampler if levels is None else sampler.with_denoising(levels)
        self._model = world_model
        self._compile = compile
        self._compiled: WorldModel | None = None
        self._length = world_model.config.denoiser.context_length
        self._floor = _FLOOR * usual_change
        self._generator = torch.Generator(device).manual_seed(seed)

    def windows(self, segments: Segments) -> Segments:
        """Returns a window for each frame after the first L: its past dreamt, itself real.

        Args:
            segments: Real ones, T > L.

        Returns:
            B * (T - L) windows of L + 1 steps; of each segment, one after the other. A frame whose
            past has strayed from the episode is masked: it is not what follows.
        """
        length = self._length
        obs = self._dream(segments, segments.obs.shape[1] - 1)
        faithful = self._faithful(segments.obs, obs)
        windows = [
            Segments(
                obs=torch.cat([obs[:, k : k + length], segments.obs[:, k + length, None]], dim=1),
                actions=segments.actions[:, k : k + length + 1],
                rewards=segments.rewards[:, k : k + length + 1],
                ends=segments.ends[:, k : k + length + 1],
                mask=_and_last(segments.mask[:, k : k + length + 1], faithful[:, k + length - 1]),
                since_reward=segments.since_reward[:, k : k + length + 1],
                corner=segments.corner,
            )
            for k in range(obs.shape[1] - length)
        ]
        parts = zip(*(vars(window).values() for window in windows), strict=True)
        return Segments(*(torch.stack(part, dim=1).flatten(0, 1) for part in parts))

    def frames(self, segments: Segments, count: int) -> Segments:
        """Returns the segments, and in the first of them every frame after the first L dreamt.

        A step from a frame that has strayed from the episode is masked: what followed in the
        episode does not follow there.

        Args:
            segments: Real ones.
            count: How many are dreamt.
        """
        first = Segments(*(tensor[:count] for tensor in vars(segments).values()))
        obs = self._dream(first, first.obs.shape[1])
        mask = first.mask & self._faithful(first.obs, obs)
        return replace(
            segments,
            obs=torch.cat([obs, segments.obs[count:]]),
            mask=torch.cat([mask, segments.mask[count:]]),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what `load_state_dict` needs to go on with the very next noise."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken."""
        self._generator.set_state(state["generator"].cpu())

    def _dream(self, segments: Segments, end: int) -> Tensor:
        """Dreams the frames from the L-th to the end, uint8 [B, T, C, H, W]."""
        length, model = self._length, self._dreaming()
        frames = list(segments.obs.unbind(dim=1))
        for step in range(length, end):
            past = slice(step - length, step)
            dreamt = model.next_obs(
                torch.stack(frames[past], dim=1),
                segments.actions[:, past],
                since_reward=segments.since_reward[:, step - 1],
                sampler=self._sampler,
                generator=self._generator,
            )
            follows = segments.mask[:, step - 1, None, None, None]
            frames[step] = torch.where(follows, dreamt, frames[step])
        return torch.stack(frames, dim=1)

    def _dreaming(self) -> WorldModel:
        """Returns what dreams: the world model, or its compiled twin, made when it is first asked.

        Not before: until then the world model may have been told to compute in another type.
        """
        if not self._compile:
            return self._model
        if self._compiled is None:
            self._compiled = self._model.compiled()
        return self._compiled

    def _faithful(self, real: Tensor, dreamt: Tensor) -> Tensor:
        """Tells up to where dreamt frames [B, T, C, H, W] are the episode's: bool [B, T]."""
        errors = (dreamt.float() - real.float()).square().mean(dim=(2, 3, 4))
        changes = (real[:, 1:].float() - real[:, :-1].float()).square().mean(dim=(2, 3, 4))
        allowed = _STRAYED * torch.cat([changes[:, :1], changes], dim=1) + self._floor
        return (errors > allowed).cumsum(dim=1) == 0


def _and_last(mask: Tensor, last: Tensor) -> Tensor:
    """Narrows the last column of a mask [B, T] by [B]."""
    return torch.cat([mask[:, :-1], (mask[:, -1] & last)[:, None]], dim=1)
