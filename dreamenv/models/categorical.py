"""Drawing from categorical distributions without waiting for the device."""

import torch
from torch import Tensor

from dreamenv.share import WHOLE, Share


def draw_categorical(logits: Tensor, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
    """Draws a class for each row.

    Dividing the probabilities by exponential noise and taking the largest draws from the
    distribution, as `torch.multinomial` does, without its checks, which wait for the device.

    Args:
        logits: float32 [N, K].
        generator: Where chance comes from, on their device.
        share: Which rows of a larger number these are.

    Returns:
        int64 [N].
    """
    noise = share.drawn(
        tuple(logits.shape), lambda shape: logits.new_empty(shape).exponential_(generator=generator)
    )
    return (logits.softmax(dim=1) / noise).argmax(dim=1)
