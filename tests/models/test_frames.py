import torch

from dreamenv.models.frames import quantise, quantise_down, to_float, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_bytes_span_minus_one_to_one() -> None:
    frames = to_float(LEVELS)
    assert frames.dtype == torch.float32
    assert frames[0] == -1
    assert frames[-1] == 1
    assert torch.allclose(frames, LEVELS.double().div(255).mul(2).sub(1).float(), atol=1e-6)


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    assert torch.equal(to_uint8(to_float(LEVELS)), LEVELS)


def test_values_between_levels_go_to_the_nearest_and_those_outside_to_the_ends() -> None:
    level = 2 / 255
    values = torch.tensor([-5.0, -1 + 0.4 * level, -1 + 0.6 * level, 1 - 0.4 * level, 5.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]


def test_quantising_again_changes_nothing() -> None:
    values = torch.linspace(-1.2, 1.2, 1000)
    once = quantise(values)
    assert torch.equal(quantise(once), once)
    assert (once - values.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6


def test_quantising_down_truncates() -> None:
    level = 2 / 255
    values = torch.tensor([-5.0, -1 + 0.9 * level, -1 + 1.1 * level, 1 - 0.1 * level, 5.0])
    assert to_uint8(quantise_down(values)).tolist() == [0, 0, 1, 254, 255]


def test_frames_in_bf16_are_taken_in_float32() -> None:
    frame = to_float(LEVELS)
    assert quantise_down(frame.bfloat16()).dtype == torch.float32
