"""What the denoiser knows of places: learned maps of the whole frame, mixed by the condition.

On a large even ground nothing tells a convolution where it is, least of all in a square that is cut
out of the frame. A thing that comes out of nowhere at a fixed place, such as a ball that is served,
can only be drawn by a network that knows the place.
"""

import torch
from torch import Tensor, nn


class PlaceMaps(nn.Module):
    """Maps to be added to what a convolution sees; at first all of them are 0.

    Args:
        count: R, how many there are to mix.
        channels: C, of what they are added to.
        size: H and W, likewise, of a whole frame.
        cond_channels: The size of the condition.
    """

    def __init__(
        self, count: int, channels: int, size: tuple[int, int], cond_channels: int
    ) -> None:
        super().__init__()
        self.weights = nn.Linear(cond_channels, count)
        self.maps = nn.Parameter(torch.zeros(count, channels, *size))

    def forward(self, condition: Tensor, corner: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Mixes the maps.

        Args:
            condition: float [N, cond_channels].
            corner: int64 [N, 2], row and column at which squares were cut out; None for whole
                frames.
            size: h and w, of the squares.

        Returns:
            float [N, C, h, w].
        """
        mixed: Tensor = self.weights(condition) @ self.maps.flatten(1)  # [N, C * H * W]
        mixed = mixed.unflatten(1, self.maps.shape[1:])
        if corner is None:
            return mixed[..., : size[0], : size[1]]
        rows = corner[:, :1] + torch.arange(size[0], device=corner.device)  # [N, h]
        columns = corner[:, 1:] + torch.arange(size[1], device=corner.device)
        first = torch.arange(len(mixed), device=corner.device)[:, None, None]
        # Indices around slices put what they index in front: [N, h, w, C].
        return mixed[first, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
