import numpy as np
import pytest

from dreamenv.zoo.spots import brightest_spot


def test_finds_the_centre_of_light_between_pixels() -> None:
    light = np.zeros((1, 8, 9), np.int16)
    light[0, 4, 5], light[0, 4, 6] = 30.0, 10.0
    spots = brightest_spot(light)
    assert spots.light[0] == 40.0
    assert spots.peak[0] == 30.0
    assert spots.x[0] == pytest.approx(5.25)
    assert spots.y[0] == pytest.approx(4.0)


def test_the_light_is_that_of_nine_pixels() -> None:
    light = np.zeros((1, 8, 9), np.int16)
    light[0, 3:6, 4:7] = np.arange(1, 10).reshape(3, 3)
    light[0, 0, 0] = 44  # brighter than any of them, and less than all
    spots = brightest_spot(light)
    assert (spots.light[0], spots.peak[0]) == (45.0, 9.0)


def test_takes_the_brighter_of_two_in_each_picture() -> None:
    light = np.zeros((2, 8, 8), np.int16)
    light[0, 1, 1], light[0, 6, 6] = 1.0, 2.0
    light[1, 1, 1], light[1, 6, 6] = 2.0, 1.0
    assert brightest_spot(light).x.tolist() == [6.0, 1.0]


@pytest.mark.parametrize("corner", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_sees_to_the_corners(corner: tuple[int, int]) -> None:
    light = np.zeros((1, 8, 8), np.int16)
    light[(0, *corner)] = 5.0
    spots = brightest_spot(light)
    assert (spots.y[0], spots.x[0]) == corner


def test_dark_pictures_have_no_light() -> None:
    assert brightest_spot(np.zeros((3, 8, 8), np.int16)).light.tolist() == [0.0, 0.0, 0.0]
