from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.blocks import (
    AdaptiveNorm,
    FourierFeatures,
    Levels,
    Norm,
    ResidualBlock,
    SelfAttention,
    UNet,
    check_channels,
    each_modulation,
    fold_frames,
    modulate,
    norms_of,
    unfold_frames,
)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 4),
    fold=st.sampled_from([1, 2, 4]),
)
def test_unfolding_undoes_folding(height: int, width: int, channels: int, fold: int) -> None:
    frames = torch.randn(2, channels, height, width)
    folded = fold_frames(frames, fold)
    assert folded.shape == (2, channels * fold**2, -(-height // fold), -(-width // fold))
    assert torch.equal(unfold_frames(folded, fold, (height, width)), frames)


def test_folding_keeps_a_square_of_pixels_in_one_place() -> None:
    frames = torch.zeros(1, 1, 4, 4)
    frames[0, 0, 2:, :2] = 1
    folded = fold_frames(frames, 2)
    assert folded[0, :, 1, 0].tolist() == [1, 1, 1, 1]
    assert folded.sum() == 4


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), levels=st.integers(1, 4))
@torch.no_grad()
def test_the_unet_keeps_any_size(height: int, width: int, levels: int) -> None:
    unet = UNet(
        Levels((8, 16, 8, 24)[:levels], (1, 2, 1, 1)[:levels], ((True, False) * 2)[:levels]),
        cond_channels=4,
    )
    modulation = unet.modulate(torch.randn(1, 4))
    assert unet(torch.randn(1, 8, height, width), modulation).shape == (1, 8, height, width)


@torch.no_grad()
def test_fresh_residual_blocks_and_attention_add_nothing() -> None:
    block = ResidualBlock(8, 8, cond_channels=4, attention=False)
    torch.nn.init.zeros_(block.get_parameter("conv2.bias"))
    x, condition = torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    norms = norms_of(block)
    assert torch.equal(block(x, each_modulation(norms, modulate(norms, condition))), x)
    attention = SelfAttention(8)
    assert torch.equal(attention(x), attention.norm(x))


@torch.no_grad()
def test_attention_carries_every_pixel_to_every_other() -> None:
    attention = SelfAttention(16)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    attention.norm = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.randn(1, 16, 5, 7)
    other = x.clone()
    other[0, :, 0, 0] += 1
    changed = (attention(other) - attention(x)).abs().amax(dim=1)
    assert (changed > 0).all()


@torch.no_grad()
def test_the_condition_scales_and_shifts_what_was_normalised() -> None:
    norm = AdaptiveNorm(8, cond_channels=2)
    y = norm(5 + 7 * torch.randn(4, 8, 16, 16), torch.tensor([[1.0] * 8 + [3.0] * 8] * 4))
    assert torch.allclose(y.mean(dim=(1, 2, 3)), torch.full((4,), 3.0), atol=1e-4)
    assert torch.allclose(y.std(dim=(1, 2, 3)), torch.full((4,), 2.0), atol=1e-2)


def test_every_norm_is_told_of_the_condition_in_its_turn() -> None:
    unet = UNet(Levels((8, 16), (1, 2), (False, False)), cond_channels=4)
    applied: list[AdaptiveNorm] = []
    told: list[Tensor] = []

    def note(norm: torch.nn.Module, given: tuple[Tensor, Tensor]) -> None:
        assert isinstance(norm, AdaptiveNorm)
        applied.append(norm)
        told.append(given[1])

    for norm in norms_of(unet):
        norm.register_forward_pre_hook(note)
    condition = torch.randn(2, 4)
    unet(torch.randn(2, 8, 8, 8), unet.modulate(condition))
    assert applied == norms_of(unet)
    assert len(applied) == 20
    for norm, modulation in zip(applied, told, strict=True):
        torch.testing.assert_close(modulation, norm.linear(condition))


def test_compiled_the_norms_are_told_the_same_by_one_product() -> None:
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    norms = norms_of(UNet(Levels((8, 16), (1, 2), (False, False)), cond_channels=4))
    compiled = torch.compile(lambda condition: modulate(norms, condition), backend=keep)
    condition = torch.randn(2, 4)
    torch.testing.assert_close(compiled(condition), modulate(norms, condition))
    assert [code.count("linear(") for code in graphs] == [1]


@pytest.mark.parametrize("channels", [8, 96])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_the_same_from_two_sums(channels: int, dtype: torch.dtype) -> None:
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    norm = AdaptiveNorm(channels, cond_channels=2)
    compiled = torch.compile(norm, backend=keep, dynamic=False)
    spread = 0.1 + 5 * torch.rand(3, channels, 1, 1)
    x = (10 * torch.randn(3, channels, 1, 1) + spread * torch.randn(3, channels, 9, 7)).to(dtype)
    x[0] = 20.3  # a picture of one colour, whose variance rounding must not take below 0
    modulation = torch.randn(3, 2 * channels, dtype=dtype)
    with torch.no_grad():
        expected, found = norm(x, modulation), compiled(x, modulation)
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found[1:], expected[1:], atol=tolerance, rtol=tolerance)
    assert ((found[0] - expected[0]).abs() < 0.05).all()
    # What learns goes on through torch's own, of which the gradient is the one of old.
    assert torch.equal(compiled(x, modulation), norm(x, modulation))
    assert ["group_norm" in code for code in graphs] == [False, True]


@torch.no_grad()
def test_without_a_norm_the_condition_scales_and_shifts_what_it_is_given() -> None:
    norm = AdaptiveNorm(8, cond_channels=2, norm="none")
    x = 5 + 7 * torch.randn(4, 8, 16, 16)
    assert torch.allclose(norm(x, torch.tensor([[1.0] * 8 + [3.0] * 8] * 4)), 2 * x + 3)


@torch.no_grad()
@pytest.mark.parametrize(("norm", "the_same"), [("none", True), ("group", False)])
def test_without_norm_and_attention_a_square_is_treated_as_in_its_frame(
    norm: Norm, the_same: bool
) -> None:
    levels = Levels((8, 16), (1, 1), (False, False), middle_attention=False, norm=norm)
    unet = UNet(levels, cond_channels=4).double()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    frame = torch.randn(1, 8, 96, 96, dtype=torch.float64)
    modulation = unet.modulate(torch.randn(1, 4, dtype=torch.float64))
    in_frame = unet(frame, modulation)[..., 44:52, 44:52]
    alone = unet(frame[..., 16:80, 16:80], modulation)[..., 28:36, 28:36]
    assert torch.allclose(in_frame, alone) == the_same


@pytest.mark.parametrize("middle_attention", [True, False])
def test_the_middle_attends_where_it_is_to(middle_attention: bool) -> None:
    levels = Levels((8, 16), (1, 1), (False, False), middle_attention=middle_attention)
    attending = [
        module for module in UNet(levels, 4).modules() if isinstance(module, SelfAttention)
    ]
    assert len(attending) == 2 * middle_attention


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match="norm is 'batch'"):
        Levels((8,), (1,), (False,), norm="batch")  # type: ignore[arg-type]


def test_fourier_features_are_cosines_then_sines() -> None:
    features = FourierFeatures(6)
    x = torch.tensor([0.0, 0.3])
    values = features(x)
    assert values[0].tolist() == [1, 1, 1, 0, 0, 0]
    angles = 2 * torch.pi * 0.3 * features.frequencies[0]
    assert torch.allclose(values[1], torch.cat([angles.cos(), angles.sin()]), atol=1e-6)


@pytest.mark.parametrize("width", [8, 24, 32, 48, 56, 64, 96, 256])
def test_widths_in_groups_and_heads_are_taken(width: int) -> None:
    check_channels([width])
    ResidualBlock(width, width, cond_channels=2, attention=True)


@pytest.mark.parametrize("width", [0, -8, 4, 12, 100, 104])
def test_other_widths_are_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=str(width)):
        check_channels([32, width])
