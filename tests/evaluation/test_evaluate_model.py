import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from rich.console import Console

from dreamenv.data import Replay
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import ConfigError, DreamenvError, FormatError, GameError, InputError
from dreamenv.evaluation import playing
from dreamenv.evaluation.evaluate_model import evaluate_model
from dreamenv.evaluation.fidelity import Fidelity, FidelityConfig
from dreamenv.models.world_model import Origin, WorldModel
from dreamenv.real.policy import RandomPolicy

from .conftest import MakeReplay
from .counting import CONFIG, ENVIRONMENT, LENGTH, SHAPE, CountingWorld, at_even_level, counting

Evaluate = Callable[..., Fidelity]

HORIZONS = (1, 4)
CONTEXTS = Contexts(
    torch.zeros(2, LENGTH, *SHAPE, dtype=torch.uint8), torch.zeros(2, LENGTH, dtype=torch.int64)
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))


@pytest.fixture
def world() -> WorldModel:
    """A world model of a few thousand weights, all random."""
    torch.manual_seed(0)
    model = WorldModel(CONFIG, Origin(environment=ENVIRONMENT))
    # Else its output layer is 0, and no frame would depend on what came before it.
    torch.nn.init.normal_(model.denoiser.network.conv_out.weight, std=0.1)
    return model.eval()


def evaluate(world_model: str, data: str = "replay", **options: Any) -> Fidelity:
    """Measures, without a word."""
    config = {"horizons": HORIZONS, "max_windows": 8}
    names = ("horizons", "max_windows", "denoising_steps", "denoising_levels", "pictured", "seed")
    config |= {name: options.pop(name) for name in names if name in options}
    console = Console(file=io.StringIO(), width=200)
    settings = FidelityConfig(**config)  # type: ignore[arg-type]
    return evaluate_model(world_model, Path(data), settings, console, device="cpu", **options)


@pytest.fixture
def evaluate_scripted(replay: Replay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluate:
    """Measures a scripted world on the replay, as if it had been loaded from a folder."""
    (tmp_path / "home" / "Count").mkdir(parents=True)
    (tmp_path / "home" / "Count" / "config.json").write_text("{}")

    def run(scripted: WorldModel, **options: Any) -> Fidelity:
        monkeypatch.setattr(WorldModel, "load", lambda *_, **__: scripted)
        return evaluate("Count", str(replay.folder), **options)

    return run


def test_a_perfect_dream_is_exact(evaluate_scripted: Evaluate, tmp_path: Path) -> None:
    fidelity = evaluate_scripted(CountingWorld(ends=[130]), max_windows=100)
    (dream,) = fidelity.dreams
    assert [frame.mean_squared_error for frame in dream.frames] == [0.0, 0.0]
    assert [frame.psnr for frame in dream.frames] == [None, None]
    assert fidelity.outcomes.end.precision == fidelity.outcomes.end.recall == 1.0
    assert dream.outcomes.zero.precision == dream.outcomes.zero.recall == 1.0
    assert "Infinity" not in (tmp_path / "evaluation" / "Count" / "fidelity.json").read_text()


def test_a_drift_has_known_decibels_that_fall(evaluate_scripted: Evaluate) -> None:
    (dream,) = evaluate_scripted(CountingWorld(drift=2), horizons=(1, 2, 3)).dreams
    for frame in dream.frames:
        assert frame.psnr == pytest.approx(20 * math.log10(255 / (2 * frame.horizon)))
        assert frame.psnr_low == pytest.approx(frame.psnr)
        assert frame.psnr_high == pytest.approx(frame.psnr)


def test_held_out_episodes_alone_are_measured(evaluate_scripted: Evaluate) -> None:
    scripted = CountingWorld()
    fidelity = evaluate_scripted(scripted, max_windows=1000)
    assert (fidelity.held_out_episodes, fidelity.held_out_steps) == (2, 25)
    assert fidelity.windows == 15 + 1
    assert min(scripted.context_levels) == 100
    counts = fidelity.outcomes.negative.counts.actual + fidelity.outcomes.zero.counts.actual
    assert counts == 25


def test_balls_are_found_by_a_detector_for_the_environment(evaluate_scripted: Evaluate) -> None:
    options = {"detectors": {("Test/Count-v0", SHAPE): at_even_level}, "max_windows": 1000}
    (perfect,) = evaluate_scripted(CountingWorld(), **options).dreams
    assert perfect.ball_at is not None
    assert [each.share for each in perfect.ball_at] == [1.0, 1.0]
    # Odd after one step where the real one is even, and even again after four.
    (drifted,) = evaluate_scripted(CountingWorld(drift=1), **options).dreams
    assert drifted.ball_at is not None
    assert [each.share for each in drifted.ball_at] == [0.0, 1.0]
    (unknown,) = evaluate_scripted(CountingWorld()).dreams
    assert unknown.ball_at is None


def test_a_ball_in_the_wrong_place_is_there_but_not_near(evaluate_scripted: Evaluate) -> None:
    options = {"detectors": {("Test/Count-v0", SHAPE): at_even_level}, "max_windows": 1000}
    (perfect,) = evaluate_scripted(CountingWorld(), **options).dreams
    assert perfect.ball_near_up_to == perfect.ball_up_to
    (drifted,) = evaluate_scripted(CountingWorld(drift=4), **options).dreams
    assert drifted.ball_up_to is not None
    assert drifted.ball_near_up_to is not None
    assert [each.share for each in drifted.ball_up_to] == [1.0, 1.0]
    assert [each.share for each in drifted.ball_near_up_to] == [0.0, 0.0]
    (unknown,) = evaluate_scripted(CountingWorld()).dreams
    assert unknown.ball_near_up_to is None


def test_the_picture_has_real_frames_above_dreamt_ones(
    evaluate_scripted: Evaluate, tmp_path: Path, replay: Replay
) -> None:
    options = {"denoising_steps": (3,), "pictured": 2, "out": tmp_path / "out"}
    fidelity = evaluate_scripted(CountingWorld(drift=5), **options)
    picture = imageio.imread(tmp_path / "out" / "fidelity.png").astype(int)
    # Two windows of three rows of four frames of 8 x 8, a white line between them.
    assert picture.shape == (2 * 3 * 8 + 4, 4 * 8, 3)
    assert fidelity.pictured_steps == (1, 2, 3, 4)
    assert (picture[24:28] == 255).all()
    for window, rows in zip(fidelity.pictured, (picture[:24], picture[28:]), strict=True):
        first = window.first_frame
        real = replay.load(window.episode).obs[first : first + 4, 0, 0, 0]
        levels = rows[::8, ::8, 0]
        assert levels[0].tolist() == real.tolist()
        assert (levels[1:] - levels[0] == 5 * np.arange(1, 5)).all()


def test_long_windows_are_shown_at_equal_distances(
    make_replay: MakeReplay, monkeypatch: pytest.MonkeyPatch, world: WorldModel
) -> None:
    make_replay(counting(0, [0] * 50), counting(100, [0] * 50))
    monkeypatch.setattr(WorldModel, "load", lambda *_, **__: CountingWorld())
    world.save("W")
    steps = evaluate("W", horizons=(40,)).pictured_steps
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (1, 40)
    assert {later - sooner for sooner, later in itertools.pairwise(steps)} <= {2, 3}


@pytest.mark.usefixtures("replay")
def test_a_folder_is_measured_to_figures_that_can_be_read_back(
    world: WorldModel, tmp_path: Path
) -> None:
    world.save("runs/Count/world_model")
    fidelity = evaluate(
        "runs/Count/world_model",
        denoising_steps=(2, 1, 2),
        denoising_levels=((5.0, 1.0), (5.0, 2.0, 1.0)),
        command="dreamenv evaluate-model",
    )
    own, *others = fidelity.dreams
    assert own.is_own
    assert own.levels == (5.0, 1.0)
    assert not any(dream.is_own for dream in others)
    # None twice: neither a number, nor levels that are the world model's own.
    two, one = (CONFIG.sampler.with_denoising(count).levels[:-1] for count in (2, 1))
    assert [dream.levels for dream in others] == [two, one, (5.0, 2.0, 1.0)]
    text = (tmp_path / "evaluation" / "Count" / "fidelity.json").read_text()
    assert Fidelity.from_dict(json.loads(text), "fidelity.json") == fidelity
    assert json.loads(text)["dreams"][0]["frames"][0]["psnr"] == own.frames[0].psnr
    assert json.loads(text)["settings"]["max_windows"] == 8
    assert fidelity.command == "dreamenv evaluate-model"


@pytest.mark.usefixtures("replay")
def test_the_same_seed_gives_the_same_figures(world: WorldModel) -> None:
    world.save("W")
    first = evaluate("W")
    assert evaluate("W") == first
    assert evaluate("W", seed=1).dreams != first.dreams
    # Nor does it matter what else is compared.
    assert evaluate("W", denoising_steps=(1,)).dreams[0] == first.dreams[0]


@pytest.mark.usefixtures("replay")
def test_a_name_or_an_id_will_do(world: WorldModel, tmp_path: Path) -> None:
    world.save(tmp_path / "home" / "Count")
    (tmp_path / "Count").mkdir()  # which is no world model
    by_folder = evaluate(str(tmp_path / "home" / "Count"))
    for name in ("Count", "DreamEnv/Count-v0"):
        by_name = evaluate(name)
        assert by_name.world_model == name
        assert by_name.dreams == by_folder.dreams
    assert (tmp_path / "evaluation" / "Count" / "fidelity.png").exists()


class TestBadInput:
    def assert_nothing_left(self) -> None:
        assert not Path("evaluation").exists()

    def test_no_world_model(self, replay: Replay) -> None:
        with pytest.raises(FormatError, match="no world model 'Nowhere'"):
            evaluate("Nowhere")
        with pytest.raises(FormatError, match="runs/nowhere is not a world model"):
            evaluate("runs/nowhere")
        with pytest.raises(FormatError, match="is not a world model"):
            evaluate(str(replay.folder))
        self.assert_nothing_left()

    def test_no_replay(self, world: WorldModel) -> None:
        world.save("W")
        with pytest.raises(FormatError, match="nowhere: not a replay"):
            evaluate("W", data="nowhere")
        self.assert_nothing_left()

    @pytest.mark.parametrize(
        ("environment", "named"),
        [
            (EnvironmentSpec("Test/Other-v0", SHAPE, ENVIRONMENT.action_meanings), "Other-v0"),
            (EnvironmentSpec("Test/Count-v0", (1, 8, 16), ENVIRONMENT.action_meanings), "16"),
            (
                EnvironmentSpec(
                    "Test/Count-v0", SHAPE, ENVIRONMENT.action_meanings, Preprocessing(frame_skip=2)
                ),
                "frame_skip 2, not 4",
            ),
        ],
    )
    def test_data_of_another_environment(
        self, world: WorldModel, make_replay: MakeReplay, environment: EnvironmentSpec, named: str
    ) -> None:
        world.save("W")
        make_replay(environment=environment)
        with pytest.raises(FormatError, match="another environment") as raised:
            evaluate("W")
        assert named in str(raised.value)
        self.assert_nothing_left()

    def test_data_of_another_shape_than_a_world_model_of_no_environment(
        self, world: WorldModel, make_replay: MakeReplay
    ) -> None:
        world.origin = Origin()
        world.save("W")
        make_replay(environment=EnvironmentSpec("Test/Count-v0", (1, 8, 16), ("NOOP",) * 3))
        with pytest.raises(FormatError, match=r"\(1, 8, 16\)"):
            evaluate("W")
        self.assert_nothing_left()

    def test_no_held_out_episode(self, world: WorldModel, make_replay: MakeReplay) -> None:
        world.save("W")
        make_replay(counting(0, [0] * 9))
        with pytest.raises(InputError, match="has no held-out episode"):
            evaluate("W")
        self.assert_nothing_left()

    @pytest.mark.usefixtures("replay")
    def test_levels_that_do_not_fall(self, world: WorldModel) -> None:
        world.save("W")
        with pytest.raises(ConfigError, match="falling"):
            evaluate("W", denoising_levels=((1.0, 5.0),))
        with pytest.raises(ConfigError, match="num_steps is 0"):
            evaluate("W", denoising_steps=(0,))
        self.assert_nothing_left()

    @pytest.mark.usefixtures("replay")
    def test_a_file_where_the_folder_goes(self, world: WorldModel) -> None:
        world.save("W")
        Path("out").write_text("")
        with pytest.raises(DreamenvError, match="out"):
            evaluate("W", out=Path("out"))

    @pytest.mark.usefixtures("replay")
    def test_a_game_that_cannot_be_played(self, world: WorldModel) -> None:
        world.save("W", also=CONTEXTS.save)
        with pytest.raises(GameError, match="Test/Count-v0"):
            evaluate("W", players={"random": lambda _: RandomPolicy(3)})
        self.assert_nothing_left()

    @pytest.mark.usefixtures("replay")
    def test_no_contexts_for_players(
        self, world: WorldModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(playing, "make_vector", lambda *_, **__: io.StringIO())
        world.save("W")
        with pytest.raises(FormatError, match=r"contexts\.npz holds no contexts"):
            evaluate("W", players={"random": lambda _: RandomPolicy(3)})
        self.assert_nothing_left()

    def test_a_damaged_episode_is_named_and_skipped(
        self, world: WorldModel, replay: Replay
    ) -> None:
        world.save("W")
        damaged = replay.folder / "episodes" / "000002.npz"
        damaged.write_bytes(b"")
        console = Console(file=io.StringIO(), width=200)
        settings = FidelityConfig(horizons=HORIZONS)
        fidelity = evaluate_model("W", replay.folder, settings, console, device="cpu")
        assert fidelity.held_out_episodes == 1
        assert isinstance(console.file, io.StringIO)
        assert f"skipped: {damaged}" in console.file.getvalue()
