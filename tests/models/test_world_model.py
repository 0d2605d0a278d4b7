import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamenv.devices import computes_in_bf16
from dreamenv.environment import EnvironmentSpec
from dreamenv.errors import ConfigError, FormatError, InputError
from dreamenv.models import world_model
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig
from dreamenv.models.sampler import SamplerConfig
from dreamenv.models.world_model import Origin, WorldModel, WorldModelConfig

TINY = WorldModelConfig(
    num_actions=3,
    obs_shape=(3, 16, 16),
    denoiser=DenoiserConfig(
        context_length=2, cond_channels=16, channels=(8, 16), depths=(1, 1), attention=(False,) * 2
    ),
    reward_end=RewardEndConfig(
        cond_channels=8, channels=(8, 16), depths=(1, 1), attention=(False,) * 2, lstm_dim=8
    ),
)
TINY_CHANGE = replace(
    TINY,
    denoiser=replace(TINY.denoiser, target="change", fold=2, sigma_data=1.0, sigma_offset=0.0),
    sampler=SamplerConfig(sigmas=(20.0, 5.0), scale_start=True),
)
CATCH = EnvironmentSpec(id="Catch-v0", obs_shape=(3, 16, 16), action_meanings=("L", "-", "R"))


def randomised(config: WorldModelConfig, origin: Origin | None = None) -> WorldModel:
    model = WorldModel(config, origin)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if config.denoiser.target == "change":
        model.denoiser.change_std.fill_(0.07)
    return model.eval()


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def some_past(rows: int, config: WorldModelConfig) -> tuple[Tensor, Tensor]:
    shape = (rows, config.denoiser.context_length)
    frames = torch.randint(0, 256, (*shape, *config.obs_shape), dtype=torch.uint8)
    return frames, torch.randint(0, config.num_actions, shape)


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Has torch record graphs but not compile them, which takes a minute; returns what of."""
    compiled: list[Any] = []
    compile_for_long = torch.compile

    def compile_quickly(network: Any, **options: Any) -> Any:
        compiled.append(network)
        return compile_for_long(network, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    return compiled


class TestCompiling:
    def test_it_dreams_the_same_with_the_same_weights(self, quick_compiler: list[Any]) -> None:
        model, (frames, actions) = randomised(TINY), some_past(2, TINY)
        twin = model.compiled()
        assert quick_compiler == [model.denoiser, model.denoiser.modulate, model.reward_end]
        for _ in range(2):
            expected = model.next_obs(frames, actions, generator=seed(1))
            assert torch.equal(twin.next_obs(frames, actions, generator=seed(1)), expected)
            outcome = model.reward_and_end(frames, actions, frames.flip(1))
            twins = twin.reward_and_end(frames, actions, frames.flip(1))
            torch.testing.assert_close(twins.reward_logits, outcome.reward_logits)
            torch.testing.assert_close(twins.state, outcome.state)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.02)  # and what it learns later
        assert not torch.equal(expected, randomised(TINY).next_obs(frames, actions))

    def test_its_networks_are_asked_as_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def compile_(network: Any, **_: Any) -> Any:
            def call(*arguments: Any) -> Any:
                asked.append(network)
                return network(*arguments)

            return call

        monkeypatch.setattr(torch, "compile", compile_)
        model, (frames, actions) = randomised(TINY), some_past(2, TINY)
        twin = model.compiled()
        twin.next_obs(frames, actions)
        twin.reward_and_end(frames, actions, frames)
        denoiser = [model.denoiser] * TINY.sampler.num_evaluations
        assert asked == [model.denoiser.modulate, *denoiser, model.reward_end]
        assert twin.state_dict().keys() == model.state_dict().keys()
        asked.clear()
        model.next_obs(frames, actions)
        assert not asked

    def test_a_copy_of_it_has_networks_of_its_own(self, quick_compiler: list[Any]) -> None:
        twin, (frames, actions) = randomised(TINY).compiled(), some_past(2, TINY)
        expected = twin.next_obs(frames, actions, generator=seed(1))
        for copied in (copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
            assert not copied.is_compiled
            assert torch.equal(copied.next_obs(frames, actions, generator=seed(1)), expected)
            with torch.no_grad():
                for parameter in copied.parameters():
                    parameter.zero_()
            assert not torch.equal(copied.next_obs(frames, actions, generator=seed(1)), expected)
        assert twin.is_compiled
        assert len(quick_compiler) == 3

    def test_where_it_cannot_be_compiled_one_line_says_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_compiler(*_: Any) -> Any:
            raise RuntimeError("no C++ compiler\nwas found")

        compile_for_long = torch.compile
        monkeypatch.setattr(
            torch, "compile", lambda network, **_: compile_for_long(network, backend=no_compiler)
        )
        twin = randomised(TINY).compiled()
        with pytest.raises(ConfigError, match=r"cannot be compiled here; leave compile out") as no:
            twin.next_obs(*some_past(1, TINY))
        assert "no C++ compiler was found" in str(no.value)
        assert "\n" not in str(no.value)


class TestDreaming:
    @pytest.mark.parametrize("config", [TINY, TINY_CHANGE])
    def test_a_seed_gives_one_future_and_another_seed_another(
        self, config: WorldModelConfig
    ) -> None:
        model, past = randomised(config), some_past(2, config)
        frame = model.next_obs(*past, generator=seed(1))
        assert frame.dtype == torch.uint8
        assert frame.shape == (2, 3, 16, 16)
        assert torch.equal(frame, model.next_obs(*past, generator=seed(1)))
        assert not torch.equal(frame, model.next_obs(*past, generator=seed(2)))

    def test_the_noise_levels_can_be_chosen(self) -> None:
        model, past = randomised(TINY), some_past(1, TINY)
        default = model.next_obs(*past, generator=seed(1))
        three = TINY.sampler.with_denoising(3)
        assert torch.equal(default, model.next_obs(*past, sampler=three, generator=seed(1)))
        ten = TINY.sampler.with_denoising(10)
        assert not torch.equal(default, model.next_obs(*past, sampler=ten, generator=seed(1)))

    @pytest.mark.parametrize("bf16", [False, True])
    def test_a_cpu_draws_for_as_many_dreams_at_once_as_its_cache_holds(
        self, bf16: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, past = randomised(TINY), some_past(5, TINY)
        model.bf16 = bf16
        # The widest activation of a dream: two times 8 channels of 16 x 16 pixels.
        monkeypatch.setattr(world_model, "_CACHE", 2 * (2 * 8 * 16 * 16) * (2 if bf16 else 4) + 1)
        sizes: list[int] = []
        model.denoiser.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
        in_parts = model.next_obs(*past, generator=seed(1))
        assert sizes == [2, 2, 1] * TINY.sampler.num_evaluations
        sizes.clear()
        model.in_parts = False
        whole = model.next_obs(*past, generator=seed(1))
        assert sizes == [5] * TINY.sampler.num_evaluations
        assert (in_parts.float() - whole.float()).abs().max() <= (3 if bf16 else 1)
        monkeypatch.setattr(world_model, "_CACHE", 1)
        model.in_parts, sizes[:] = True, []
        model.next_obs(*past)
        assert sizes == [1] * 5 * TINY.sampler.num_evaluations

    @pytest.mark.parametrize("order", [1, 2])
    def test_what_levels_and_actions_decide_is_worked_out_once_a_frame(
        self, order: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, (frames, actions) = randomised(TINY), some_past(3, TINY)
        sampler = replace(TINY.sampler, num_steps=4, order=order)
        rows: list[int] = []
        condition = model.denoiser.network.condition
        condition.register_forward_hook(lambda _, __, output: rows.append(len(output)))
        frame = model.next_obs(frames, actions, sampler=sampler, generator=seed(1))
        assert rows == [3 * sampler.num_evaluations]
        rows.clear()
        monkeypatch.setattr(model, "_modulations", lambda levels, _: iter([()] * len(levels)))
        anew = model.next_obs(frames, actions, sampler=sampler, generator=seed(1))
        assert rows == [3] * sampler.num_evaluations
        assert (anew != frame).float().mean() < 0.01  # where rounding decides

    def test_a_change_is_added_to_the_last_frame(self) -> None:
        model, (frames, actions) = randomised(TINY_CHANGE), some_past(2, TINY_CHANGE)
        torch.nn.init.zeros_(model.denoiser.get_parameter("network.conv_out.weight"))
        torch.nn.init.zeros_(model.denoiser.get_parameter("network.conv_out.bias"))
        # Without the network D is c_skip * x: next to nothing at these noise levels.
        nothing = replace(TINY_CHANGE.sampler, sigmas=(1000.0, 500.0))
        model.denoiser.change_std.fill_(1e-4)
        frame = model.next_obs(frames, actions, sampler=nothing, generator=seed(1))
        assert torch.equal(frame, frames[:, -1])

    @torch.no_grad()
    def test_rewards_and_ends_take_bytes(self) -> None:
        model, (frames, actions) = randomised(TINY), some_past(2, TINY)
        output = model.reward_and_end(frames, actions, frames.flip(1))
        floats = [frame.float().div(255).mul(2).sub(1) for frame in (frames, frames.flip(1))]
        expected = model.reward_end(floats[0], actions, floats[1])
        assert torch.equal(output.reward_logits, expected.reward_logits)
        assert torch.equal(output.end_logits, expected.end_logits)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda f, a: (f.float(), a), "context is torch.float32"),
            (lambda f, a: (f[:, :1], a), r"must be torch.uint8 \[2, 2, 3, 16, 16\]"),
            (lambda f, a: (f[..., :8], a), r"must be torch.uint8 \[2, 2, 3, 16, 16\]"),
            (lambda f, a: (f, a.float()), "actions is torch.float32"),
            (lambda f, a: (f, a[:1]), r"must be torch.int64 \[2, 2\]"),
        ],
    )
    def test_a_wrong_tensor_is_named_with_what_would_be_right(
        self, spoil: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], message: str
    ) -> None:
        model = WorldModel(TINY)
        with pytest.raises(InputError, match=message):
            model.next_obs(*spoil(*some_past(2, TINY)))

    @pytest.mark.parametrize("since", [torch.zeros(2), torch.zeros(3, dtype=torch.int64)])
    def test_a_wrong_count_of_steps_since_a_reward_is_named(self, since: Tensor) -> None:
        with pytest.raises(InputError, match=r"since_reward is .* must be torch\.int64 \[2\]"):
            WorldModel(TINY).next_obs(*some_past(2, TINY), since_reward=since)

    @pytest.mark.parametrize("at_once", [1, 3])
    def test_each_frame_is_drawn_after_the_last_reward_of_its_own_dream(
        self, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(WorldModel, "_rows_at_once", lambda *_: at_once)
        memory = replace(TINY.denoiser, choices=2, reward_memory=2)
        model = randomised(replace(TINY, denoiser=memory))
        head = model.denoiser.network.choice_head
        assert head is not None

        def second_after_two_steps(_: Tensor, since: Tensor) -> Tensor:
            return (since[:, None] == 2) * torch.tensor([0.0, 1e6])

        monkeypatch.setattr(head, "likelihood", second_after_two_steps)
        frames, actions = some_past(1, TINY)
        past = frames.repeat(3, 1, 1, 1, 1), actions.repeat(3, 1)
        noise = torch.randn(1, 3, 16, 16).expand(3, -1, -1, -1)
        monkeypatch.setattr(WorldModel, "_noise_source", lambda *_: lambda: noise)
        monkeypatch.setattr(WorldModel, "_draw_chance", lambda *_: torch.zeros(3, 2))
        none, same, other = model.next_obs(*past, since_reward=torch.tensor([0, 9, 2]))
        assert torch.equal(none, same)
        assert not torch.equal(none, other)

    def test_every_dream_draws_one_of_the_choices_by_the_seed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = randomised(replace(TINY, denoiser=replace(TINY.denoiser, choices=4)))
        head = model.denoiser.network.choice_head
        assert head is not None
        torch.nn.init.zeros_(head.odds.weight)  # each as likely as the others
        torch.nn.init.zeros_(head.odds.bias)
        frames, actions = some_past(1, TINY)
        past = frames.repeat(64, 1, 1, 1, 1), actions.repeat(64, 1)
        noise = torch.randn(1, 3, 16, 16).expand(64, -1, -1, -1)
        monkeypatch.setattr(WorldModel, "_noise_source", lambda *_: lambda: noise)

        def drawn(seed: int) -> Tensor:
            return model.next_obs(*past, generator=torch.Generator().manual_seed(seed))

        first = drawn(0)
        futures, times = first.flatten(1).unique(dim=0, return_counts=True)
        assert len(futures) == 4
        assert times.min() >= 6
        assert torch.equal(drawn(0), first)
        assert not torch.equal(drawn(1), first)

    def test_wrong_tensors_for_rewards_are_named(self) -> None:
        model, (frames, actions) = WorldModel(TINY), some_past(2, TINY)
        with pytest.raises(InputError, match="next_obs is"):
            model.reward_and_end(frames, actions, frames[:, :1])
        with pytest.raises(InputError, match="actions is"):
            model.reward_and_end(frames, actions[:, :1], frames)

    def test_an_environment_with_other_actions_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"Catch-v0 has frames .* and 3 actions"):
            WorldModel(replace(TINY, num_actions=5), Origin(environment=CATCH))


class TestSaveAndLoad:
    @pytest.mark.parametrize("config", [TINY, TINY_CHANGE])
    def test_a_model_comes_back_as_it_was(self, config: WorldModelConfig, tmp_path: Path) -> None:
        origin = Origin(environment=CATCH, fit={"steps": 7, "loss": [0.5, 0.25]}, licence="MIT")
        model, past = randomised(config, origin), some_past(2, config)
        model.save(tmp_path / "world")
        loaded = WorldModel.load(tmp_path / "world", bf16=False)
        assert loaded.config == config
        assert loaded.origin == origin
        assert not loaded.training
        assert loaded.state_dict().keys() == model.state_dict().keys()
        for key, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key
        frame = model.next_obs(*past, generator=seed(3))
        assert torch.equal(loaded.next_obs(*past, generator=seed(3)), frame)

    @settings(max_examples=15, deadline=None)
    @given(
        height=st.integers(16, 40),
        width=st.integers(16, 40),
        channels=st.integers(1, 4),
        length=st.integers(1, 8),
        levels=st.integers(1, 4),
        num_actions=st.integers(1, 18),
    )
    def test_any_architecture_comes_back(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        height: int,
        width: int,
        channels: int,
        length: int,
        levels: int,
        num_actions: int,
    ) -> None:
        shape = {"channels": (8,) * levels, "depths": (1,) * levels, "attention": (False,) * levels}
        config = WorldModelConfig(
            num_actions=num_actions,
            obs_shape=(channels, height, width),
            denoiser=DenoiserConfig(context_length=length, cond_channels=16, **shape),  # type: ignore[arg-type]
            reward_end=RewardEndConfig(cond_channels=8, lstm_dim=8, **shape),  # type: ignore[arg-type]
        )
        folder = tmp_path_factory.mktemp("world")
        WorldModel(config).save(folder)
        loaded = WorldModel.load(folder)
        assert loaded.config == config
        frame = loaded.next_obs(*some_past(1, config))
        assert frame.shape == (1, channels, height, width)

    def test_a_loaded_model_learns_on(self, tmp_path: Path) -> None:
        randomised(TINY).save(tmp_path)
        model = WorldModel.load(tmp_path).train()
        obs, actions = torch.randn(1, 4, 3, 16, 16), torch.zeros(1, 4, dtype=torch.int64)
        mask = torch.ones(1, 4, dtype=torch.bool)
        losses = model.reward_end.losses(obs, actions, torch.ones(1, 4), ~mask, mask)
        denoising = model.denoiser.losses(obs, actions, mask, model.denoiser.draw_noise(obs)).total
        (losses.reward + losses.end + denoising).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_half_precision_on_disk_is_single_precision_in_memory(self, tmp_path: Path) -> None:
        model = randomised(TINY)
        model.save(tmp_path / "single")
        model.save(tmp_path / "half", dtype=torch.float16)
        single, half = (tmp_path / name / "world_model.safetensors" for name in ("single", "half"))
        assert half.stat().st_size < 0.7 * single.stat().st_size
        loaded = WorldModel.load(tmp_path / "half")
        for key, tensor in model.state_dict().items():
            assert loaded.state_dict()[key].dtype == torch.float32
            assert torch.equal(loaded.state_dict()[key], tensor.half().float()), key

    def test_where_bf16_is_asked_for_frames_stay_within_two_grey_levels(
        self, tmp_path: Path
    ) -> None:
        config = replace(TINY_CHANGE, sampler=SamplerConfig(sigmas=(80.0,)))
        randomised(config).save(tmp_path)
        exact, fast = (WorldModel.load(tmp_path, bf16=bf16) for bf16 in (False, True))
        past = some_past(16, config)
        frames = [model.next_obs(*past, generator=seed(3)).float() for model in (exact, fast)]
        assert 0 < (frames[0] - frames[1]).abs().mean() < 2

    def test_bf16_is_used_where_the_device_has_instructions_for_it(self, tmp_path: Path) -> None:
        randomised(TINY).save(tmp_path)
        assert WorldModel.load(tmp_path).bf16 == computes_in_bf16(torch.device("cpu"))

    def test_saving_again_replaces_the_model_and_leaves_other_files(self, tmp_path: Path) -> None:
        randomised(TINY).save(tmp_path)
        (tmp_path / "contexts.npz").write_bytes(b"frames")
        other = randomised(TINY_CHANGE)
        other.save(tmp_path)
        assert WorldModel.load(tmp_path).config == TINY_CHANGE
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["config.json", "contexts.npz", "world_model.safetensors"]

    def test_a_save_that_fails_leaves_the_old_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = randomised(TINY)
        model.save(tmp_path)

        def full_disk(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("dreamenv.models.world_model.write_weights", full_disk)
        with pytest.raises(OSError, match="No space"):
            randomised(TINY_CHANGE).save(tmp_path)
        loaded = WorldModel.load(tmp_path)
        assert loaded.config == TINY
        assert torch.equal(
            loaded.state_dict()["reward_end.conv_in.bias"],
            model.reward_end.get_parameter("conv_in.bias"),
        )
        assert len(list(tmp_path.iterdir())) == 2


class TestBadFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        WorldModel(TINY).save(tmp_path)
        return tmp_path

    @staticmethod
    def edit(folder: Path, **fields: Any) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=r"nowhere.* is not a world model"):
            WorldModel.load(tmp_path / "nowhere")

    def test_a_foreign_folder(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        with pytest.raises(FormatError, match="no format_version"):
            WorldModel.load(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\x01"])
    def test_a_configuration_that_is_no_json_object(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        with pytest.raises(FormatError, match=r"config\.json"):
            WorldModel.load(folder)

    def test_a_configuration_that_is_no_text(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(b"\xff\xfe\x80")
        with pytest.raises(FormatError, match=r"config\.json is not JSON"):
            WorldModel.load(folder)

    def test_a_later_format_version(self, folder: Path) -> None:
        self.edit(folder, format_version=2)
        with pytest.raises(FormatError, match=r"format version 2; .* reads version 1: upgrade"):
            WorldModel.load(folder)

    def test_an_unknown_field(self, folder: Path) -> None:
        self.edit(folder, colour="blue")
        with pytest.raises(FormatError, match=r"config\.json: colour: unknown field"):
            WorldModel.load(folder)

    def test_no_architecture(self, folder: Path) -> None:
        self.edit(folder, architecture=None)
        with pytest.raises(FormatError, match="no architecture"):
            WorldModel.load(folder)

    def test_a_setting_that_cannot_work(self, folder: Path) -> None:
        architecture = TINY.to_dict()
        architecture["denoiser"]["fold"] = 3
        self.edit(folder, architecture=architecture)
        with pytest.raises(FormatError, match=r"architecture: denoiser: fold is 3"):
            WorldModel.load(folder)

    def test_an_environment_that_is_not_the_architectures(self, folder: Path) -> None:
        environment = replace(CATCH, action_meanings=("L", "R")).to_dict()
        self.edit(folder, environment=environment)
        with pytest.raises(
            FormatError, match=r"config\.json.*Catch-v0 has frames .* and 2 actions"
        ):
            WorldModel.load(folder)

    def test_missing_weights(self, folder: Path) -> None:
        (folder / "world_model.safetensors").unlink()
        with pytest.raises(FormatError, match=r"world_model\.safetensors is missing"):
            WorldModel.load(folder)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_truncated_weights(self, folder: Path, share: float) -> None:
        path = folder / "world_model.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FormatError, match="not a whole safetensors file"):
            WorldModel.load(folder)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda w: w.pop("reward_end.lstm.bias_hh_l0"),
                r"lacks 'reward_end\.lstm\.bias_hh_l0'",
            ),
            (lambda w: w.update(extra=torch.zeros(1)), "has 'extra', unknown"),
            (
                lambda w: w.update({"denoiser.network.conv_out.bias": torch.zeros(7)}),
                r"conv_out\.bias has shape \[7\].* needs \[3\]",
            ),
            (
                lambda w: w.update({"denoiser.network.conv_out.bias": torch.zeros(3).long()}),
                r"conv_out\.bias has type I64",
            ),
        ],
    )
    def test_weights_that_do_not_fit(
        self, folder: Path, damage: Callable[[dict[str, Tensor]], object], message: str
    ) -> None:
        path = folder / "world_model.safetensors"
        weights = load_file(path)
        damage(weights)
        save_file(weights, path)
        with pytest.raises(FormatError, match=message):
            WorldModel.load(folder)

    def test_an_architecture_too_large_for_any_memory_is_refused_before_it_is_built(
        self, folder: Path
    ) -> None:
        architecture = TINY.to_dict()
        architecture["denoiser"]["channels"] = [2**20, 2**21]
        self.edit(folder, architecture=architecture)
        with pytest.raises(FormatError, match="needs"):
            WorldModel.load(folder)
