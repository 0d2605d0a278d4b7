import io
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import numpy.typing as npt
import pytest
import torch
from rich.console import Console

from dreamenv.data import Episode, Replay, Segments
from dreamenv.data.segments import segments_at
from dreamenv.dream.contexts import Contexts
from dreamenv.environment import EnvironmentSpec, Preprocessing
from dreamenv.errors import ConfigError, DreamenvError, FormatError, InputError
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.world_model import WorldModel
from dreamenv.training import favourites
from dreamenv.training.checkpoint import load_checkpoint
from dreamenv.training.fit_config import FitModelConfig, short_name
from dreamenv.training.fit_model import fit_model
from dreamenv.training.source import check_source, open_dataset
from dreamenv.training.stopping import Stopped
from dreamenv.training.training_config import TrainingConfig
from dreamenv.training.validation import Validation

MakeNoise = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMENV_HOME", str(tmp_path / "home"))


@pytest.fixture
def make_noise(tmp_path: Path) -> MakeNoise:
    """Replays of random frames."""

    def make(episodes: int = 3, channels: int = 1, *, still: bool = False) -> Path:
        environment = EnvironmentSpec(
            id="Test/Noise-v0",
            obs_shape=(channels, 16, 16),
            action_meanings=("left", "right"),
            preprocessing=Preprocessing(source="observation"),
        )
        random_numbers = np.random.default_rng(0)
        replay = Replay.create(tmp_path / "replay", environment)
        for _ in range(episodes):
            obs = random_numbers.integers(0, 256, (13, channels, 16, 16), dtype=np.uint8)
            replay.append(
                Episode(
                    obs=np.zeros_like(obs) if still else obs,
                    actions=random_numbers.integers(0, 2, 12),
                    rewards=np.ones(12, np.float32),
                    terminated=True,
                    truncated=False,
                )
            )
        return replay.folder

    return make


@pytest.fixture
def config(tmp_path: Path) -> FitModelConfig:
    tiny: dict[str, Any] = {"channels": (8,), "depths": (1,), "attention": (False,)}
    return FitModelConfig(
        dataset=str(tmp_path / "replay"),
        name="Noise",
        out=str(tmp_path / "run"),
        device="cpu",
        validate_every=2,
        checkpoint_every=1,
        training=TrainingConfig(
            steps=3, batch_size=2, reward_end_batch_size=2, reward_end_length=4
        ),
        denoiser=DenoiserConfig(cond_channels=8, **tiny),
        reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **tiny),
    )


def fit(config: FitModelConfig, **options: Any) -> str:
    printed = io.StringIO()
    fit_model(config, Console(file=printed, width=200), **options)
    return printed.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_frames_of_any_number_of_channels_are_learned_and_shown(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path, channels: int
) -> None:
    make_noise(channels=channels)
    fit(config)
    assert WorldModel.load(tmp_path / "home" / "Noise").config.obs_shape == (channels, 16, 16)
    picture = imageio.imread(tmp_path / "run" / "evaluation" / "step-000003.png")
    assert picture.shape[:2] == (2 * 16, 10 * 16)


def test_the_world_model_is_in_the_run_and_at_home(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config, command="dreamenv fit-model --dataset replay")
    for folder in (tmp_path / "run" / "world_model", tmp_path / "home" / "Noise"):
        model = WorldModel.load(folder)
        assert model.origin.fit["command"] == "dreamenv fit-model --dataset replay"
        assert (folder / "contexts.npz").is_file()
        assert "PSNR" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("by", "share"), [("step", 4 / 64), ("episode", 1 / 4), (f"{__name__}:weigh_the_dark", 1.0)]
)
def test_dreams_begin_in_steps_or_in_episodes_equally_often_or_by_a_function(
    config: FitModelConfig, tmp_path: Path, by: str, share: float
) -> None:
    """An episode of 4 steps is dark, three of 20 are bright, and a fifth is held out."""
    environment = EnvironmentSpec(
        id="Test/Light-v0",
        obs_shape=(1, 16, 16),
        action_meanings=("stay",),
        preprocessing=Preprocessing(source="observation"),
    )
    replay = Replay.create(tmp_path / "replay", environment)
    rng = np.random.default_rng(0)
    for length, low in ((4, 1), (20, 200), (20, 200), (20, 200), (20, 200)):
        replay.append(
            Episode(
                obs=rng.integers(low, low + 50, (length + 1, 1, 16, 16), dtype=np.uint8),
                actions=np.zeros(length, np.int64),
                rewards=np.zeros(length, np.float32),
                terminated=True,
                truncated=False,
            )
        )
    training = replace(config.training, steps=1, quarters=None)
    fit(replace(config, contexts=400, contexts_by=by, training=training))
    last = Contexts.load(tmp_path / "home" / "Noise").obs[:, -1, 0, 0, 0]
    assert (last < 100).float().mean().item() == pytest.approx(share, abs=0.05)


def weigh_the_dark(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.array([(frame < 100).all() for frame in frames[1:]], np.float64)


@pytest.mark.parametrize(
    ("function", "message"),
    [("missing", "contexts_by .* cannot be imported"), ("weigh_nothing", "contexts_by gave every")],
)
def test_what_names_no_beginnings_is_told_before_the_first_step(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path, function: str, message: str
) -> None:
    make_noise()
    with pytest.raises(InputError, match=message):
        fit(replace(config, contexts_by=f"{__name__}:{function}"))
    assert not list((tmp_path / "run").rglob("*.pt"))


def weigh_nothing(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.zeros(len(frames) - 1)


def test_a_run_goes_on_only_with_the_settings_it_was_begun_with(
    make_noise: MakeNoise, config: FitModelConfig
) -> None:
    make_noise()
    fit(config)
    other = replace(config, training=replace(config.training, batch_size=5))
    with pytest.raises(ConfigError, match=r"begun with training\.batch_size 2, not 5"):
        fit(other, resume=True)
    assert "fit: 3/3" in fit(config, resume=True)


def test_there_must_be_a_run_to_go_on_with(config: FitModelConfig) -> None:
    with pytest.raises(FormatError, match="no run to go on with"):
        fit(config, resume=True)


def test_neither_a_run_nor_a_world_model_is_replaced_unasked(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config)
    before = (tmp_path / "home" / "Noise" / "world_model.safetensors").read_bytes()
    with pytest.raises(FormatError, match="--overwrite"):
        fit(replace(config, seed=1))
    with pytest.raises(FormatError, match="holds a run already"):
        fit(replace(config, seed=1, name="Other"))
    assert (tmp_path / "home" / "Noise" / "world_model.safetensors").read_bytes() == before
    fit(replace(config, seed=1), overwrite=True)
    assert (tmp_path / "home" / "Noise" / "world_model.safetensors").read_bytes() != before


def test_a_world_model_is_replaced_with_its_agent_and_its_figures_and_other_files_stay(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    home = tmp_path / "home" / "Noise"
    home.mkdir(parents=True)
    for name in ("notes.txt", "agent.safetensors", "fidelity.json", "fidelity.png"):
        (home / name).write_text("of another")
    fit(config, overwrite=True)
    written = {"config.json", "world_model.safetensors", "contexts.npz", "README.md"}
    assert {path.name for path in home.iterdir()} == {*written, "notes.txt"}


def test_what_cannot_be_fitted_removes_no_run(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config)
    fitted = config.run_folder.world_model
    before = (fitted / "world_model.safetensors").read_bytes()
    learning = partial(replace, config.training)
    stranger = str(tmp_path / "stranger")
    WorldModel(replace(WorldModel.load(fitted).config, num_actions=3)).save(stranger)
    for problem, other in (
        ("crop is 17; the frames are", replace(config, training=learning(crop=17, single_steps=1))),
        ("nothing is left to dream", replace(config, training=learning(reward_end_dreamt=0.5))),
        ("^favourites 'typo' cannot be", replace(config, training=learning(favourites="typo"))),
        ("^contexts_by 'typo:f' cannot be", replace(config, contexts_by="typo:f")),
        (r"stranger has frames .* and 3 actions", replace(config, begin_with=stranger)),
        ("is in the run that --overwrite would", replace(config, begin_with=str(fitted))),
    ):
        with pytest.raises(DreamenvError, match=problem):
            fit(other, overwrite=True)
        assert (fitted / "world_model.safetensors").read_bytes() == before


def test_choices_are_learned_beside_a_world_model_that_stays_as_it_is(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config)
    known = config.run_folder.world_model
    choosing = replace(
        config,
        name="Choosing",
        out=str(tmp_path / "on"),
        begin_with=str(known),
        only_choices=True,
        denoiser=replace(config.denoiser, choices=2),
    )
    fit(choosing)
    before, after = (
        WorldModel.load(folder).state_dict() for folder in (known, choosing.run_folder.world_model)
    )
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert after["denoiser.network.choice_head.strength.weight"].any()


def test_a_single_episode_is_trained_on_and_nothing_is_validated(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise(episodes=1)
    assert "nothing will be validated" in fit(config)
    assert "Not measured" in (tmp_path / "home" / "Noise" / "README.md").read_text()


def test_a_fit_that_diverges_ends_at_once_and_keeps_the_checkpoint_before(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    wild = replace(config.training.denoiser_optimiser, learning_rate=1e30)
    training = replace(config.training, denoiser_optimiser=wild)
    with pytest.raises(ConfigError, match=r"diverged by step 2: .* lower denoiser_optimiser\.lea"):
        fit(replace(config, training=training))
    state = load_checkpoint(config.run_folder.checkpoint)
    assert state is not None
    assert state["trainer"]["step_count"] == 1
    assert not (tmp_path / "home" / "Noise").exists()


def test_a_damaged_checkpoint_is_named(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config)
    checkpoint = tmp_path / "run" / "checkpoint" / "trainer.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"trainer\.pt is damaged"):
        fit(config, resume=True)


def test_episodes_in_which_nothing_moves_are_refused(
    make_noise: MakeNoise, config: FitModelConfig
) -> None:
    make_noise(still=True)
    change = replace(config.denoiser, target="change")
    with pytest.raises(InputError, match="no pixel ever changes"):
        fit(replace(config, denoiser=change))


@pytest.mark.parametrize("place", ["run", "home/Noise"])
def test_a_place_that_may_not_be_read_is_told_in_one_line(
    config: FitModelConfig, tmp_path: Path, locked: set[Path], place: str
) -> None:
    locked.add(tmp_path / place)
    with pytest.raises(
        DreamenvError, match=f"/{place}.*: Permission denied; name another"
    ) as error:
        fit(config)
    assert "\n" not in str(error.value)


def test_a_dataset_that_may_not_be_read_is_told_in_one_line(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path, locked: set[Path]
) -> None:
    locked.add(make_noise())
    with pytest.raises(DreamenvError, match=r"replay/index\.json: Permission denied; name"):
        open_dataset(config, tmp_path / "imported")


def test_a_failure_before_anything_is_kept_leaves_no_run(
    config: FitModelConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_stopped_while_it_measures_what_is_hard_it_goes_on_to_the_same_weights(
    make_noise: MakeNoise,
    config: FitModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_noise()
    training = replace(config.training, steps=4, favoured_share=0.5, favour_at=(2,))
    whole, stopped = (
        replace(config, training=training, name=name, out=str(tmp_path / name))
        for name in ("whole", "stopped")
    )
    assert "step 2: measuring what is hard to predict" in fit(whole)
    with monkeypatch.context() as patched:
        patched.setattr(favourites, "segments_at", _ask_to_stop_and_cut)
        with pytest.raises(Stopped, match="stopped at step 2 of 4"):
            fit(stopped)
    assert "step 2: measuring what is hard to predict" in fit(stopped, resume=True)
    one, other = (
        WorldModel.load(tmp_path / "home" / name).state_dict() for name in ("whole", "stopped")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_stopped_while_it_weighs_the_steps_it_goes_on_to_the_same_weights(
    make_noise: MakeNoise,
    config: FitModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_noise()
    name = f"{__name__}:weigh_the_first"
    weighing = replace(config.training, favourites=name)
    fit(replace(config, name="plain", out=str(tmp_path / "plain")))
    whole, stopped = (
        replace(config, training=weighing, name=name, out=str(tmp_path / name))
        for name in ("whole", "stopped")
    )
    assert f"weighing the steps by {name}" in fit(whole)
    with monkeypatch.context() as patched:
        patched.setattr(favourites, "_check_weights", _ask_to_stop)
        with pytest.raises(Stopped, match="stopped at step 0 of 3"):
            fit(stopped)
    fit(stopped, resume=True)
    one, other, plain = (
        WorldModel.load(tmp_path / "home" / name).state_dict()
        for name in ("whole", "stopped", "plain")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(one[key], plain[key]) for key in one)


def weigh_the_first(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return (np.arange(len(frames) - 1) < 2).astype(np.float64)


def _ask_to_stop_and_cut(*arguments: Any) -> Segments:
    _ask_to_stop()
    return segments_at(*arguments)


def _ask_to_stop(*_: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def test_there_must_be_something_to_learn_from() -> None:
    with pytest.raises(ConfigError, match="--env or --dataset"):
        check_source(FitModelConfig())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"validate_every": 0}, "validate_every"),
        ({"name": "../elsewhere"}, "name"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"epsilon": 1.5}, "epsilon"),
        ({"num_envs": 0}, "num_envs"),
        ({"contexts_by": "steps"}, "contexts_by is 'steps'"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        FitModelConfig(**change)


def test_a_world_model_is_named_after_its_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert short_name("ALE/Pong-v5") == "Pong"
    assert short_name("CartPole-v1") == "CartPole"
    assert short_name("package:Catch-v0") == "Catch"
    assert short_name("my-video-v0") == "my-video"
    assert short_name("atari/pong/expert-v0") == "atari-pong-expert"
    assert FitModelConfig(env="ALE/Breakout-v5").run_folder.path == Path("runs/Breakout")
    (tmp_path / "Pong" / "replay").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "Pong")
    for dataset in (".", "replay", "replay/", "../Pong/"):
        assert FitModelConfig(dataset=dataset).world_name == "Pong"
    with pytest.raises(ConfigError, match="add --name"):
        _ = FitModelConfig(dataset="/").world_name


def test_a_run_does_not_go_on_with_other_episodes(
    make_noise: MakeNoise, config: FitModelConfig
) -> None:
    folder = make_noise()
    fit(config)
    replay = Replay.open(folder)
    replay.append(replay.load(0))
    with pytest.raises(ConfigError, match="has changed since the run was begun"):
        fit(config, resume=True)


def test_how_it_was_fit_is_kept_with_the_model(
    make_noise: MakeNoise, config: FitModelConfig, tmp_path: Path
) -> None:
    make_noise()
    fit(config)
    how = WorldModel.load(tmp_path / "home" / "Noise").origin.fit
    assert FitModelConfig.from_dict(how["settings"], "origin") == config
    assert (how["steps_in_data"], how["episodes_in_data"]) == (36, 3)
    assert Validation.from_dict(how["validation"], "origin").frames == 8
