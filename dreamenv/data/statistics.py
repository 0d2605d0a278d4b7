"""What the frames of a replay are like, for scaling what is learned of them."""

import torch
from torch import Tensor

from dreamenv.data.replay import Replay

# Steps at a time: few enough for the caches of a CPU, and for float32 to sum their squares exactly
# (64 * 255**2 is below 2**24).
_CHUNK = 64
_LEVEL = 2 / 255  # the size in [-1, 1] of one of the 256 levels of a byte


def change_std(replay: Replay, device: torch.device | str) -> float:
    """Returns the standard deviation of the change from one frame to the next, in [-1, 1] units.

    It is taken about the mean, over every pixel of every step of the episodes trained on, the one
    to the final frame included. It is 0 where no pixel ever changes. The sums are exact, so that
    it is the same on every device.

    Args:
        replay: Where the episodes are.
        device: Where to compute it.

    Raises:
        InputError: There is no episode to train on.
    """
    total, squares, count = _sums(replay, device)
    count *= squares.numel()
    mean = total.sum().item() / count
    return float((squares.sum().item() / count - mean**2) ** 0.5 * _LEVEL)


def mean_squared_change(replay: Replay, device: torch.device | str) -> Tensor:
    """Returns how much each pixel changes from one frame to the next on average.

    Args:
        replay: Where the episodes are.
        device: Where to compute it.

    Returns:
        float32 [H, W], on the device: the mean over the channels and the episodes trained on of
        the squared change, in levels of a byte.

    Raises:
        InputError: There is no episode to train on.
    """
    _, squares, count = _sums(replay, device)
    return (squares.cpu().double().mean(dim=0) / count).float().to(device)  # MPS has no float64


def _sums(replay: Replay, device: torch.device | str) -> tuple[Tensor, Tensor, int]:
    """Sums the changes and their squares, int64 [C, H, W] each, over so many steps."""
    rows = replay.tensors(device).rows
    episodes = rows.episodes("train")
    firsts, lengths = rows.first_rows[episodes], rows.lengths[episodes]
    total = torch.zeros(rows.frames.shape[1:], dtype=torch.int64, device=rows.frames.device)
    squares = torch.zeros_like(total)
    for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
        for start in range(first, first + length, _CHUNK):
            end = min(start + _CHUNK, first + length)
            frames = rows.frames[start : end + 1].float()
            change = frames[1:] - frames[:-1]
            total += change.sum(dim=0).long()
            squares += change.square_().sum(dim=0).long()
    return total, squares, int(lengths.sum())
