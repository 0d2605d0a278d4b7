"""Showing a dream: frames as pictures, and a window."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import InputError, StateError

Picture = npt.NDArray[np.uint8]  # [H, W, 3]

DEFAULT_FPS = 30
_EMULATOR_FPS = 60
_WINDOW_SIZE = 512  # pixels, of the longer side, at least


def to_picture(frame: Tensor) -> Picture:
    """Turns a frame, uint8 [C, H, W], into a picture: RGB as it is, one channel as grey."""
    colours = frame if len(frame) == 3 else frame[:1].expand(3, -1, -1)
    picture = colours.permute(1, 2, 0)
    return picture.clone(memory_format=torch.contiguous_format).cpu().numpy()


def frames_per_second(environment: EnvironmentSpec | None) -> int:
    """Returns the speed at which a dream of that environment looks like it."""
    if environment is None or environment.preprocessing.source != "atari":
        return DEFAULT_FPS
    return max(1, _EMULATOR_FPS // environment.preprocessing.frame_skip)


class Window:
    """A window on the screen.

    Args:
        title: Of the window.
        fps: At most so many pictures a second are shown.

    Raises:
        InputError: pygame is not installed.
    """

    def __init__(self, title: str, fps: int) -> None:
        self._pygame = _import_pygame()
        self._title = title
        self._fps = fps
        self._screen: Any = None
        self._clock = self._pygame.time.Clock()

    def show(self, picture: Picture) -> None:
        """Shows a picture, enlarged, and waits until it is time for the next one.

        Raises:
            StateError: There is no display.
        """
        pygame = self._pygame
        height, width, _ = picture.shape
        scale = -(-_WINDOW_SIZE // max(height, width))
        if not self._is_open:
            self._screen = self._open(width * scale, height * scale)
        surface = pygame.surfarray.make_surface(picture.transpose(1, 0, 2))
        self._screen.blit(pygame.transform.scale(surface, self._screen.get_size()), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    @property
    def _is_open(self) -> bool:
        """Whether it is on the screen: pygame has one window, and another may have taken it."""
        return self._screen is not None and self._pygame.display.get_surface() is self._screen

    def _open(self, width: int, height: int) -> Any:
        try:
            self._pygame.display.init()
            self._pygame.display.set_caption(self._title)
            return self._pygame.display.set_mode((width, height))
        except self._pygame.error as error:
            raise StateError(
                f"no window can be opened ({error}); use render_mode='rgb_array' without a display"
            ) from None

    def close(self) -> None:
        """Closes the window."""
        if self._is_open:
            self._pygame.display.quit()
        self._screen = None


def _import_pygame() -> Any:
    try:
        import pygame
    except ModuleNotFoundError:
        raise InputError("render_mode 'human' needs pygame; pip install 'dreamenv[play]'") from None
    return pygame
