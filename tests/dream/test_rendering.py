import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dreamenv.dream.rendering import DEFAULT_FPS, Picture, Window, frames_per_second, to_picture
from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import InputError, StateError


def some_picture(height: int, width: int) -> Picture:
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Pygame, with a screen that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    module = pytest.importorskip("pygame")
    yield module
    module.quit()


def shown(pygame: Any) -> Picture:
    """What is on the screen."""
    surface = pygame.display.get_surface()
    picture: Picture = pygame.surfarray.array3d(surface).transpose(1, 0, 2)
    return picture


def test_a_frame_of_three_channels_is_shown_in_its_colours() -> None:
    frame = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    picture = to_picture(frame)
    assert picture.dtype == np.uint8
    assert picture.shape == (4, 5, 3)
    assert picture.flags.c_contiguous
    for channel in range(3):
        np.testing.assert_array_equal(picture[..., channel], frame[channel])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_another_frame_is_shown_in_grey(channels: int) -> None:
    frame = torch.randint(0, 256, (channels, 4, 5), dtype=torch.uint8)
    picture = to_picture(frame)
    assert picture.dtype == np.uint8
    assert picture.shape == (4, 5, 3)
    for channel in range(3):
        np.testing.assert_array_equal(picture[..., channel], frame[0])


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 1, 1), (1, 1, 1)])
def test_a_picture_is_a_copy(shape: tuple[int, int, int]) -> None:
    frame = torch.zeros(shape, dtype=torch.uint8)
    to_picture(frame)[:] = 1
    assert not frame.any()


@pytest.mark.parametrize(
    ("preprocessing", "fps"),
    [
        (Preprocessing(source="atari", frame_skip=4), 15),
        (Preprocessing(source="atari", frame_skip=1), 60),
        (Preprocessing(source="atari", frame_skip=1000), 1),
        (Preprocessing(source="observation"), DEFAULT_FPS),
        (Preprocessing(source="render"), DEFAULT_FPS),
    ],
)
def test_a_dream_runs_at_the_speed_of_its_game(preprocessing: Preprocessing, fps: int) -> None:
    spec = EnvironmentSpec("Test/Game-v0", (3, 8, 8), ("NOOP",), preprocessing)
    assert frames_per_second(spec) == fps


def test_where_the_game_is_not_recorded_the_speed_is_a_usual_one() -> None:
    assert frames_per_second(None) == DEFAULT_FPS


@pytest.mark.parametrize(("height", "width"), [(64, 64), (60, 40), (40, 60), (700, 10), (1, 1)])
def test_a_window_shows_the_picture_enlarged(pygame: Any, height: int, width: int) -> None:
    window = Window("a dream", 1000)
    picture = some_picture(height, width)
    window.show(picture)
    screen = shown(pygame)
    scale = screen.shape[0] // height
    assert scale >= 1
    assert max(screen.shape) >= 512
    # Not larger than it takes.
    assert scale == 1 or max(height, width) * (scale - 1) < 512
    np.testing.assert_array_equal(screen, picture.repeat(scale, axis=0).repeat(scale, axis=1))
    assert pygame.display.get_caption()[0] == "a dream"
    window.close()


def test_the_window_stays_one_and_shows_the_last_picture(pygame: Any) -> None:
    window = Window("a dream", 1000)
    first, second = some_picture(512, 512), 255 - some_picture(512, 512)
    window.show(first)
    surface = pygame.display.get_surface()
    window.show(second)
    assert pygame.display.get_surface() is surface
    np.testing.assert_array_equal(shown(pygame), second)
    window.close()


def test_pictures_are_shown_no_faster_than_asked_for(pygame: Any) -> None:
    window = Window("a dream", 50)
    picture = some_picture(8, 8)
    window.show(picture)
    start = pygame.time.get_ticks()
    for _ in range(5):
        window.show(picture)
    # Five waits of 20 ms, less what a clock of whole milliseconds may leave out of each.
    assert pygame.time.get_ticks() - start >= 90
    window.close()


def test_a_window_can_be_closed_twice_and_opened_again(pygame: Any) -> None:
    window = Window("a dream", 1000)
    window.close()
    window.show(some_picture(8, 8))
    assert pygame.display.get_init()
    window.close()
    assert not pygame.display.get_init()
    window.close()
    window.show(some_picture(8, 8))
    assert pygame.display.get_init()
    window.close()


def test_without_pygame_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    message = r"^render_mode 'human' needs pygame; pip install 'dreamenv\[play\]'$"
    with pytest.raises(InputError, match=message):
        Window("a dream", 30)


def test_without_a_display_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    window = Window("a dream", 30)
    with pytest.raises(StateError, match=r"^no window can be opened \(.*\); use render_mode="):
        window.show(some_picture(4, 4))


def test_windows_take_the_screen_from_each_other_and_live_on(pygame: Any) -> None:
    one, other = Window("one", 1000), Window("other", 1000)
    small, large = some_picture(60, 40), some_picture(40, 60)
    one.show(small)
    other.show(large)
    one.close()
    other.show(large)
    assert shown(pygame).shape[0] < shown(pygame).shape[1]
    one.show(small)
    assert shown(pygame).shape[0] > shown(pygame).shape[1]
    other.close()
    one.show(small)
    one.close()
    assert pygame.display.get_surface() is None
