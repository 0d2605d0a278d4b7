from collections.abc import Callable
from dataclasses import replace

import pytest

from dreamenv.data import Replay
from dreamenv.evaluation.detection import Detection
from dreamenv.models.world_model import WorldModel
from dreamenv.training.model_card import figures, model_card
from dreamenv.training.validation import Validation

VALIDATION = Validation(
    frames=100,
    losses=((0.5, 0.25), (20.0, 0.125), (80.0, None)),
    psnr=41.756,
    rewards=(Detection(0, 0, 3), Detection(90, 95, 91), Detection(3, 4, 6)),
    end=Detection(1, 2, 1),
)
COMMAND = "dreamenv fit-model --env Test/Catch-v0"


def test_figures_have_a_label_and_a_value_each() -> None:
    assert figures(VALIDATION) == [
        ("next frame, PSNR", "41.76 dB"),
        ("denoising loss at σ = 0.5", "0.2500"),
        ("denoising loss at σ = 20", "0.1250"),
        ("denoising loss at σ = 80", "-"),
        ("reward -1, precision / recall (times)", "- / 0.000 (3)"),
        ("reward 0, precision / recall (times)", "0.947 / 0.989 (91)"),
        ("reward 1, precision / recall (times)", "0.750 / 0.500 (6)"),
        ("end, precision / recall (times)", "0.500 / 1.000 (1)"),
    ]


def test_frames_that_were_all_right_are_exact() -> None:
    exact = replace(VALIDATION, psnr=None)
    assert dict(figures(exact))["next frame, PSNR"] == "exact"


def test_frames_that_were_not_judged_have_no_figure() -> None:
    nothing = dict(figures(replace(VALIDATION, frames=0, psnr=None)))
    assert nothing["next frame, PSNR"] == "-"
    assert nothing["denoising loss at σ = 20"] == "-"


def test_a_card_says_what_it_is_of_and_how_good(
    played: Replay, tiny_model: Callable[..., WorldModel]
) -> None:
    model = tiny_model()
    card = model_card("Catch", COMMAND, model, played, VALIDATION)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for line in (
        "# Catch",
        "A world model of `Test/Catch-v0`, fitted by dreamenv:",
        f"    {COMMAND}",
        '    env = gymnasium.make("DreamEnv/Catch-v0")',
        "- frames: 16x16 pixels, 3 channels",
        "- actions: 0, 1, 2",
        f"- parameters: {parameters:,}",
        "| next frame, PSNR | 41.76 dB |",
    ):
        assert line in card.splitlines()
    assert f"300 steps of {played.num_episodes} episodes" in card
    for label, value in figures(VALIDATION):
        assert f"| {label} | {value} |" in card
    assert card.endswith("\n")


@pytest.mark.parametrize("command", [COMMAND, ""])
def test_a_card_says_so_where_nothing_was_held_out(
    played: Replay, tiny_model: Callable[..., WorldModel], command: str
) -> None:
    card = model_card("Catch", command, tiny_model(), played, None)
    assert "Not measured" in card
    assert "|" not in card
