import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import gymnasium
import imageio.v3 as imageio
import pytest
import torch
from rich.console import Console

from dreamenv.data import Replay
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError
from dreamenv.evaluation import playing
from dreamenv.evaluation.fidelity import FidelityConfig
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.real import describe
from dreamenv.training.build_world import BuildConfig, Kind, Recipe, RecipeFit, build_world
from dreamenv.training.collect import CollectConfig
from dreamenv.training.fit_config import FitModelConfig
from dreamenv.training.fit_model import check_plan
from dreamenv.training.policies import load_policy
from dreamenv.training.stopping import Stopped
from dreamenv.training.training_config import TrainingConfig
from dreamenv.zoo import RECIPES

NAMES = sorted(file.stem for file in RECIPES.glob("*.json"))

TINY: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,), "fold": 4}
FIT = FitModelConfig(
    checkpoint_every=2,
    contexts=6,
    weights="bfloat16",
    training=TrainingConfig(steps=4, batch_size=2, reward_end_batch_size=2, reward_end_length=4),
    denoiser=DenoiserConfig(cond_channels=8, **TINY),
    reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **TINY),
    sampler=SamplerConfig(num_steps=1),
)
SHORT = replace(FIT, training=replace(FIT.training, steps=3))
RECIPE = Recipe(
    environment="Test/Catch-v0",
    collections=(
        CollectConfig(steps=60, num_envs=2),
        CollectConfig(steps=40, num_envs=2, epsilon=0.5, seed=1),
    ),
    fits=(RecipeFit(FIT),),
)
IN_TWO = replace(RECIPE, fits=(RecipeFit(FIT), RecipeFit(SHORT)))


@pytest.fixture(autouse=True)
def _recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, catch: EnvironmentSpec) -> None:
    """A zoo with a recipe of one fit and one of two, an empty home, and players soon done."""
    assert catch.id == RECIPE.environment
    for name, recipe in (("Catch", RECIPE), ("CatchTwice", IN_TWO)):
        (tmp_path / f"{name}.json").write_text(json.dumps(recipe.to_dict()))
    monkeypatch.setattr("dreamenv.training.build_world.RECIPES", tmp_path)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))
    measured = partial(FidelityConfig, horizons=(1, 5))
    monkeypatch.setattr("dreamenv.training.build_world.FidelityConfig", measured)
    monkeypatch.setattr(playing, "_DREAMS", 4)
    monkeypatch.setattr(playing, "_GAMES", 4)
    for name in ("Catch", "CatchTwice"):
        monkeypatch.delitem(gymnasium.registry, f"DreamEnv/{name}-v0", raising=False)


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    return BuildConfig("Catch", out=str(tmp_path / "out"), device="cpu")


def build(config: BuildConfig, **options: Any) -> str:
    printed = io.StringIO()
    build_world(config, Console(file=printed, width=200), **options)
    return printed.getvalue()


@contextmanager
def always_stopping() -> Iterator[Callable[[], bool]]:
    """Asks to stop at once."""
    yield lambda: True


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return WorldModel.load(folder).state_dict()


def test_a_world_model_is_made_from_nothing(config: BuildConfig, tmp_path: Path) -> None:
    build(config, command="dreamenv zoo build Catch")
    replay = Replay.open(config.folder / "replay")
    assert replay.num_steps == 100
    world = tmp_path / "home" / "Catch"
    assert len(Contexts.load(world).actions) == 6
    model = WorldModel.load(world)
    assert model.origin.environment == replay.environment
    assert model.origin.fit["settings"]["training"]["steps"] == 4
    assert "dreamenv zoo build Catch" in (world / "README.md").read_text()
    for value in model.state_dict().values():
        assert torch.equal(value, value.bfloat16().float())
    assert gymnasium.spec("DreamEnv/Catch-v0").kwargs == {"name": "Catch"}


@pytest.mark.parametrize(("asked", "compiled"), [(None, False), (False, False), (True, True)])
def test_compiling_is_left_to_the_recipe_unless_asked(
    config: BuildConfig, asked: bool | None, compiled: bool
) -> None:
    (fit,) = replace(config, compile=asked).fits(RECIPE)
    assert fit.training.compile is compiled
    compiling = replace(FIT, training=replace(FIT.training, compile=True))
    recipe = replace(RECIPE, fits=(RecipeFit(compiling),))
    (fit,) = replace(config, compile=asked).fits(recipe)
    assert fit.training.compile is (asked is not False)


def test_the_card_tells_how_its_dreams_were_measured(config: BuildConfig, tmp_path: Path) -> None:
    build(config, command="dreamenv zoo build Catch")
    build(config, command="dreamenv zoo build Catch")
    world = tmp_path / "home" / "Catch"
    card = (world / "README.md").read_text()
    assert card.count(f"dreamenv evaluate-model Catch --data {config.folder / 'replay'}") == 1
    fidelity = json.loads((world / "fidelity.json").read_text())
    psnr = fidelity["dreams"][0]["frames"][0]["psnr"]
    assert re.search(rf"^\| [^|]*\(own\) \| {psnr:.2f} ", card, re.MULTILINE)
    assert [each["player"] for each in fidelity["players"]] == ["random"]
    assert "| random | the real game |" in card
    assert "![real frames above dreamt ones](fidelity.png)" in card
    assert imageio.imread(world / "fidelity.png").ndim == 3


def test_what_was_made_is_measured_and_no_folder_of_its_name(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "Catch").mkdir(parents=True)
    (tmp_path / "here" / "Catch" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    build(config)
    measured = json.loads((tmp_path / "home" / "Catch" / "fidelity.json").read_text())
    assert measured["world_model"] == str(tmp_path / "home" / "Catch")


def test_every_fit_begins_where_the_one_before_ended(tmp_path: Path) -> None:
    config = BuildConfig("CatchTwice", out=str(tmp_path / "out"), device="cpu")
    printed = build(config)
    told = re.findall(r"^fit \d.*", printed, re.MULTILINE)
    assert told == ["fit 1 of 2 on a CPU, 4 steps:", "fit 2 of 2 on a CPU, 3 steps:"]
    first, second = (config.folder / name / "world_model" for name in ("fit", "fit-2"))
    fit = WorldModel.load(second).origin.fit
    assert fit["settings"]["begin_with"] == str(first)
    assert fit["settings"]["training"]["steps"] == 3
    assert fit["begun_with"]["settings"]["training"]["steps"] == 4
    home = tmp_path / "home" / "CatchTwice"
    begun, ended, at_home = weights(first), weights(second), weights(home)
    assert all(torch.equal(tensor, ended[name]) for name, tensor in at_home.items())
    # Three steps of the second fit do not lead far from where the first one ended.
    moved = [(tensor - begun[name]).abs().max().item() for name, tensor in at_home.items()]
    assert 0 < max(moved) < 1e-3
    build(config, overwrite=True)
    assert all(torch.equal(tensor, at_home[name]) for name, tensor in weights(home).items())


def test_making_it_anew_goes_on_from_the_first_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BuildConfig("CatchTwice", out=str(tmp_path / "out"), device="cpu")
    build(config)
    config = replace(config, steps=2)
    with monkeypatch.context() as patched:
        patched.setattr("dreamenv.training.fit_model.stop_on_signal", always_stopping)
        with pytest.raises(Stopped, match=r"stopped at step 1 of 2: run the same command without"):
            build(config, overwrite=True)
    build(config)
    fit = WorldModel.load(tmp_path / "home" / "CatchTwice").origin.fit
    assert fit["settings"]["training"]["steps"] == 2
    assert fit["begun_with"]["settings"]["training"]["steps"] == 2
    for name in ("fit", "fit-2"):
        validated = {path.stem for path in (config.folder / name / "evaluation").iterdir()}
        assert validated == {"step-000002"}


@pytest.mark.parametrize(
    ("fits", "missing"),
    [((), "cpu"), ((RecipeFit(FIT, "gpu"),), "cpu"), ((RecipeFit(FIT, "cpu"),), "gpu")],
)
def test_a_recipe_fits_at_least_once_on_either(fits: tuple[RecipeFit, ...], missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"^fits has none on a {missing}"):
        replace(RECIPE, fits=fits)


@pytest.mark.parametrize(("device", "steps"), [("cpu", [3, 4]), ("meta", [4, 4])])
def test_what_is_left_to_another_kind_of_device_is_not_done(
    device: str, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamenv.training.build_world.resolve_device", torch.device)
    fits = RecipeFit(SHORT, "cpu"), RecipeFit(FIT, "gpu"), RecipeFit(FIT)
    done = BuildConfig("X", device=device).fits(replace(RECIPE, fits=fits))
    assert [fit.training.steps for fit in done] == steps
    first, last = (fit.run_folder for fit in done)
    assert done[0].begin_with is None
    assert done[1].begin_with == str(first.world_model)
    assert first.path != last.path


@pytest.mark.parametrize("name", ["Catch", "CatchTwice"])
def test_stopped_anywhere_it_goes_on_with_the_same_command(
    name: str, config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, name=name)
    whole = replace(config, out=str(tmp_path / "whole"))
    build(whole)
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "other-home"))

    class Stopping:
        """Asks to stop at its n-th question, and never again."""

        def __init__(self, after: int) -> None:
            self.left = after

        def __call__(self) -> bool:
            self.left -= 1
            return self.left == 0

    stops = 0
    # In the first collection, in the second, and in the fit.
    fits = (("fit_model", 3),) if name == "Catch" else (("fit_model", 3), ("fit_model", 3))
    for module, after in (("build_world", 5), ("build_world", 40), *fits):
        stopping = Stopping(after)

        class Request:
            def __enter__(self, stopping: Stopping = stopping) -> Stopping:
                return stopping

            def __exit__(self, *_: object) -> None:
                pass

        with monkeypatch.context() as patched:
            patched.setattr(f"dreamenv.training.{module}.stop_on_signal", Request)
            with pytest.raises(Stopped, match=r"run the same command to go on$"):
                build(config)
            stops += 1
    assert stops == 2 + len(fits)
    build(config)
    one, other = (weights(tmp_path / home / name) for home in ("home", "other-home"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_there_is_not_collected_again(config: BuildConfig) -> None:
    build(config)
    again = build(replace(config, steps=5), overwrite=True)
    assert "collect" not in again.split("fit:")[0]
    assert Replay.open(config.folder / "replay").num_steps == 100


def test_of_fewer_steps_as_large_a_share_are_single() -> None:
    training = replace(FIT.training, steps=100, single_steps=75, crop=4, unrolled_crop=4)
    recipe = replace(RECIPE, fits=(RecipeFit(replace(FIT, training=training)),))
    shares = {
        steps: BuildConfig("X", steps=steps).fits(recipe)[0].training.single_steps
        for steps in (1, 2, 20, 200)
    }
    assert shares == {1: 1, 2: 2, 20: 15, 200: 150}


def test_fewer_steps_can_be_asked_for(config: BuildConfig, tmp_path: Path) -> None:
    build(replace(config, steps=2))
    fit = WorldModel.load(tmp_path / "home" / "Catch").origin.fit
    assert fit["settings"]["training"]["steps"] == 2


def test_a_world_model_that_is_there_is_not_replaced_unasked(
    config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "home" / "Catch").mkdir(parents=True)
    (tmp_path / "home" / "Catch" / "config.json").touch()
    with pytest.raises(FormatError, match=r"is there already; .*, or another \$DREAMENV_HOME to"):
        build(config)
    assert not config.folder.exists()


def test_a_run_that_may_not_be_read_is_told_in_one_line(
    config: BuildConfig, locked: set[Path]
) -> None:
    locked.add(config.folder)
    with pytest.raises(DreamenvError, match=r"config\.json: Permission denied; name another"):
        build(config)


def test_a_recipe_that_is_not_there_is_told_with_those_that_are(config: BuildConfig) -> None:
    with pytest.raises(
        InputError, match=r"^there is no recipe for 'Chess'; there are those of Catch,"
    ):
        build(replace(config, name="Chess"))


def test_a_damaged_recipe_is_named(config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "Catch.json").write_text("{")
    with pytest.raises(FormatError, match=r"Catch\.json is not JSON"):
        build(config)


def test_the_zoo_has_the_games_that_are_to_be_bundled() -> None:
    assert NAMES == ["Breakout", "Pong"]


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("name", NAMES)
def test_the_recipes_of_the_zoo_can_be_followed(
    name: str, kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dreamenv.training.build_world.RECIPES", RECIPES)
    monkeypatch.setattr(BuildConfig, "kind", kind)
    recipe = Recipe.read(name)
    environment = describe(recipe.environment)
    for collection in recipe.collections:
        load_policy(collection.policy, environment)
    assert len({collection.seed for collection in recipe.collections}) == len(recipe.collections)
    config = BuildConfig(name, out=str(tmp_path / "out"))
    for fit in config.fits(recipe):
        # What it begins with is made by the fit before.
        alone = replace(fit, begin_with=None, only_choices=False)
        check_plan(alone, resume=False, overwrite=False)
        assert fit.denoiser.choices or not fit.only_choices
        # A kill is to cost minutes; all of a fit on a GPU takes no more.
        assert kind == "gpu" or fit.checkpoint_every <= 1000
        assert fit.begin_with or not fit.only_choices
