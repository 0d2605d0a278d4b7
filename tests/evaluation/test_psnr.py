import pytest

from dreamenv.evaluation.psnr import psnr


@pytest.mark.parametrize(("error", "decibels"), [(1.0, 48.1308), (100.0, 28.1308), (255.0**2, 0.0)])
def test_errors_have_their_decibels(error: float, decibels: float) -> None:
    assert psnr(error) == pytest.approx(decibels, abs=1e-4)


def test_no_error_has_none() -> None:
    assert psnr(0.0) is None
