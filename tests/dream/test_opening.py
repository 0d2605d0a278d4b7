import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from dreamenv import Contexts, Dream, WorldModel
from dreamenv.dream import opening
from dreamenv.dream.opening import open_dream
from dreamenv.errors import ArgumentError, ConfigError, DreamenvError, FormatError, InputError

SAME_STEP = AutoresetMode.SAME_STEP
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(autouse=True)
def home(world_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where names are looked up: there is a `Tiny` and nothing else."""
    monkeypatch.setenv("DREAMENV_HOME", str(world_folder.parent))
    return world_folder.parent


@pytest.fixture
def other_world(world_model: WorldModel) -> WorldModel:
    """One that differs from `Tiny` in its weights only."""
    torch.manual_seed(1)
    return WorldModel(world_model.config, world_model.origin).eval()


def open_cpu(name: str | None, **options: Any) -> Dream:
    return open_dream(name, 2, SAME_STEP, **{"device": "cpu", **options})


def assert_dreams_of(dream: Dream, world_model: WorldModel, contexts: Contexts) -> None:
    ours, theirs = dream.world_model.state_dict(), world_model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key].cpu(), theirs[key].cpu()) for key in ours)
    assert dream.world_model.config == world_model.config
    assert not dream.world_model.training
    begun = dream.bank.begin(torch.arange(dream.bank.size, device=dream.device))
    assert torch.equal(begun.frames.cpu(), contexts.obs)
    assert torch.equal(begun.actions.cpu(), contexts.actions)


def refused(error: type[DreamenvError], message: str, act: Callable[[], object]) -> None:
    with pytest.raises(error, match=message) as raised:
        act()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["Tiny", "DreamEnv/Tiny-v0"])
def test_a_name_is_found_at_home(world_model: WorldModel, contexts: Contexts, name: str) -> None:
    dream = open_cpu(name)
    assert_dreams_of(dream, world_model, contexts)
    dream.reset(seed=0)
    dream.step(torch.tensor([0, 1]))


@pytest.mark.parametrize("as_given", [str, Path])
def test_a_folder_comes_before_the_name(
    tmp_path: Path,
    other_world: WorldModel,
    contexts: Contexts,
    as_given: Callable[[Path], str | Path],
) -> None:
    other_world.save(tmp_path / "elsewhere", also=contexts.save)
    dream = open_cpu("Tiny", world_model=as_given(tmp_path / "elsewhere"))
    assert_dreams_of(dream, other_world, contexts)
    dream = open_cpu(None, world_model=as_given(tmp_path / "elsewhere"))
    assert_dreams_of(dream, other_world, contexts)


def test_a_world_model_in_memory_comes_before_the_name(
    other_world: WorldModel, contexts: Contexts
) -> None:
    for name in ("Tiny", None):
        dream = open_dream(name, 2, SAME_STEP, world_model=other_world, contexts=contexts)
        assert dream.world_model is other_world
        assert_dreams_of(dream, other_world, contexts)


def test_a_world_model_in_memory_is_not_copied_where_it_already_is(
    other_world: WorldModel, contexts: Contexts
) -> None:
    assert open_cpu(None, world_model=other_world, contexts=contexts).world_model is other_world


@NEEDS_CUDA
def test_a_world_model_in_memory_is_copied_to_another_device(
    other_world: WorldModel, contexts: Contexts
) -> None:
    dream = open_cpu(None, world_model=other_world, contexts=contexts, device="cuda")
    assert dream.device.type == "cuda"
    assert other_world.device.type == "cpu"
    assert_dreams_of(dream, other_world, contexts)
    # `auto` leaves it where it is.
    dream = open_cpu(None, world_model=other_world, contexts=contexts, device="auto")
    assert dream.world_model is other_world


@pytest.mark.parametrize(
    ("bf16", "pays_here", "pays_there", "expected"),
    [
        (False, False, True, True),
        (False, True, True, False),  # it was asked to compute in float32
        (True, True, False, False),
        (True, True, True, True),
    ],
)
def test_a_copy_computes_in_bf16_where_that_pays_and_is_wanted(
    other_world: WorldModel,
    monkeypatch: pytest.MonkeyPatch,
    bf16: bool,
    pays_here: bool,
    pays_there: bool,
    expected: bool,
) -> None:
    pays = {"cpu": pays_here, "meta": pays_there}
    monkeypatch.setattr(opening, "resolve_device", torch.device)
    monkeypatch.setattr(opening, "computes_in_bf16", lambda device: pays[device.type])
    other_world.bf16 = bf16
    moved = opening._on_device(other_world, "meta")
    assert (moved.device.type, moved.bf16, moved.is_compiled) == ("meta", expected, False)
    assert opening._on_device(other_world.compiled(), "meta").is_compiled


@NEEDS_CUDA
def test_a_folder_is_opened_on_the_best_device_there_is() -> None:
    assert open_dream("Tiny", 2, SAME_STEP).device.type == "cuda"


def test_without_an_accelerator_a_folder_is_opened_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert open_dream("Tiny", 2, SAME_STEP).device == torch.device("cpu")


def test_contexts_that_are_given_come_before_those_of_the_folder(
    world_model: WorldModel, contexts: Contexts
) -> None:
    given = Contexts(contexts.obs[:5] // 2, contexts.actions[:5])
    assert_dreams_of(open_cpu("Tiny", contexts=given), world_model, given)
    assert_dreams_of(open_cpu("Tiny", contexts=None), world_model, contexts)


def test_a_folder_without_contexts_is_enough_where_they_are_given(
    home: Path, world_model: WorldModel, contexts: Contexts
) -> None:
    (home / "Tiny" / "contexts.npz").unlink()
    assert_dreams_of(open_cpu("Tiny", contexts=contexts), world_model, contexts)


def test_the_other_arguments_reach_the_dream(
    world_model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    made = Dream.__init__

    def make(dream: Dream, *args: Any, **options: Any) -> None:
        asked.update(options)
        made(dream, *args, **options)

    monkeypatch.setattr(Dream, "__init__", make)
    dream = open_cpu(
        "Tiny",
        horizon=7,
        denoising_steps=[3.0, 1.0],
        frame_stack=2,
        sample_outcomes=False,
        compile=True,
    )
    assert (dream.num_envs, dream.horizon) == (2, 7)
    assert dream.obs_shape == (6, 40, 40)
    assert dream.sampler == replace(world_model.config.sampler, sigmas=(3.0, 1.0))
    assert asked["sample_outcomes"] is False
    assert asked["compile"] is True
    assert asked["autoreset"] is SAME_STEP


def test_by_default_the_dream_is_the_published_one(world_model: WorldModel) -> None:
    dream = open_cpu("Tiny")
    assert dream.horizon == 50
    assert dream.obs_shape == (3, 40, 40)
    assert dream.sampler == world_model.config.sampler
    assert open_cpu("Tiny", horizon=None).horizon is None


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_autoreset_mode_is_the_one_asked_for(mode: AutoresetMode) -> None:
    dream = open_dream("Tiny", 1, mode, horizon=1, device="cpu")
    dream.reset(seed=0)
    step = dream.step(torch.tensor([0]))
    assert torch.equal(step.obs, step.final_obs) == (mode is not AutoresetMode.SAME_STEP)
    dream.step(torch.tensor([0]))
    assert bool(dream.state.ended) == (mode is AutoresetMode.DISABLED)


@pytest.mark.parametrize("name", ["Tiny", None])
def test_a_world_model_in_memory_needs_contexts(world_model: WorldModel, name: str | None) -> None:
    message = r"^a world model in memory does not say where dreams begin; give contexts= as well$"
    refused(InputError, message, lambda: open_cpu(name, world_model=world_model))


def test_something_has_to_be_named() -> None:
    message = "^no world model is named; give its name, or world_model=$"
    refused(InputError, message, lambda: open_cpu(None))


@pytest.mark.parametrize("source", ["name", "memory"])
@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1"])
def test_a_device_that_is_not_there_is_refused(
    world_model: WorldModel, contexts: Contexts, source: str, device: str
) -> None:
    options: dict[str, Any] = {}
    if source == "memory":
        options = {"world_model": world_model, "contexts": contexts}
    message = f"^device (is )?'{device}'(;| is not there;) .*'auto'"
    refused(InputError, message, lambda: open_cpu("Tiny", device=device, **options))


@pytest.mark.parametrize("name", ["Boxing", "DreamEnv/Boxing-v0"])
def test_a_name_that_nothing_has_names_the_commands_that_get_one(home: Path, name: str) -> None:
    message = (
        f"^there is no world model 'Boxing' in {re.escape(str(home))}; .*"
        r"`dreamenv fit-model --env ALE/Boxing-v5 --name Boxing`.*`dreamenv pull .*--name Boxing`"
    )
    refused(FormatError, message, lambda: open_cpu(name))


@pytest.mark.parametrize("as_given", [str, Path])
def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, as_given: Callable[[Path], str | Path]
) -> None:
    folder = as_given(tmp_path / "nowhere")
    refused(
        FormatError,
        "nowhere is not a world model: it has no config.json",
        lambda: open_cpu("Tiny", world_model=folder),
    )


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def age_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))


def cut_weights(folder: Path) -> None:
    path = folder / "world_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def cut_contexts(folder: Path) -> None:
    path = folder / "contexts.npz"
    path.write_bytes(path.read_bytes()[:-7])


def remove_contexts(folder: Path) -> None:
    (folder / "contexts.npz").unlink()


def remove_weights(folder: Path) -> None:
    (folder / "world_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, r"config\.json is not JSON"),
        (age_config, r"config\.json has format version 99"),
        (cut_weights, r"world_model\.safetensors"),
        (remove_weights, r"world_model\.safetensors"),
        (cut_contexts, r"contexts\.npz holds no contexts of dreams"),
        (remove_contexts, r"contexts\.npz holds no contexts of dreams"),
    ],
)
def test_a_damaged_folder_is_named(
    world_folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(world_folder)
    refused(FormatError, message, lambda: open_cpu("Tiny"))


def test_contexts_of_another_world_are_refused(
    world_folder: Path, small_contexts: Contexts
) -> None:
    np.savez(
        world_folder / "contexts.npz",
        obs=small_contexts.obs.numpy(),
        actions=small_contexts.actions.numpy(),
    )
    refused(InputError, r"^contexts have frames \[1, 8, 8\], the", lambda: open_cpu("Tiny"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "^horizon is 0; it must be at least 1"),
        ({"frame_stack": 4}, "^frame_stack is 4; it must be from 1 to 3"),
        ({"denoising_steps": 0}, "^num_steps is 0; it must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    refused(ConfigError, message, lambda: open_cpu("Tiny", **options))


def test_no_dreams_at_all_are_refused() -> None:
    refused(ConfigError, "^num_envs is 0; it must", lambda: open_dream("Tiny", 0, SAME_STEP))


def test_an_argument_that_a_dream_does_not_have_is_refused() -> None:
    message = "^got an unexpected keyword argument 'horizont'; a dream has world_model, "
    refused(ArgumentError, message, lambda: open_cpu("Tiny", noise=1, horizont=2))
