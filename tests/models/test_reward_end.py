import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.diamond import load_diamond_state_dict
from dreamenv.models.lstm import LSTMState
from dreamenv.models.reward_end import RewardEndConfig, RewardEndModel
from dreamenv.share import Share

TINY = RewardEndConfig(
    cond_channels=8, channels=(8, 16), depths=(1, 1), attention=(False, False), lstm_dim=12
)


def reference_model(config: dict[str, Any], weights: dict[str, Tensor]) -> RewardEndModel:
    size = config["img_size"]
    model = RewardEndModel(
        RewardEndConfig(
            cond_channels=config["cond_channels"],
            channels=tuple(config["channels"]),
            depths=tuple(config["depths"]),
            attention=tuple(bool(attends) for attends in config["attn_depths"]),
            lstm_dim=config["lstm_dim"],
        ),
        (config["img_channels"], size, size),
        config["num_actions"],
    )
    published = {f"rew_end_model.{key}": tensor for key, tensor in weights.items()}
    load_diamond_state_dict(published, reward_end=model)
    return model


def tiny(config: RewardEndConfig = TINY) -> RewardEndModel:
    model = RewardEndModel(config, (3, 16, 16), num_actions=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


class TestReference:
    @torch.no_grad()
    def test_logits_and_state(
        self, load_reference: Callable[[str], Any], assert_close: Callable[..., None]
    ) -> None:
        reference = load_reference("reward_end")
        model = reference_model(reference.config, reference.weights)
        obs, act, next_obs = reference["obs"], reference["act"], reference["next_obs"]
        output = model(obs, act, next_obs)
        assert_close(output.reward_logits, reference["logits_rew"], 1e-5)
        assert_close(output.end_logits, reference["logits_end"], 1e-5)
        assert_close(output.state.h, reference["hx"][0], 1e-5)
        assert_close(output.state.c, reference["cx"][0], 1e-5)

        again = model(obs[:, :1], act[:, :1], next_obs[:, :1], output.state)
        assert_close(again.reward_logits, reference["step2_logits_rew"], 1e-5)
        assert_close(again.end_logits, reference["step2_logits_end"], 1e-5)
        assert_close(again.state.h, reference["step2_hx"][0], 1e-5)
        assert_close(again.state.c, reference["step2_cx"][0], 1e-5)

    @torch.no_grad()
    def test_loss(
        self, load_reference: Callable[[str], Any], assert_close: Callable[..., None]
    ) -> None:
        reference = load_reference("reward_end")
        model = reference_model(reference.config, reference.weights)
        obs, ends = reference["loss.obs"].clone(), reference["loss.end"]
        for name, final_obs in reference.tensors.items():
            if match := re.fullmatch(r"loss\.final_obs_of_row(\d+)", name):
                row = int(match[1])
                obs[row, ends[row].argmax() + 1] = final_obs
        losses = model.losses(
            obs,
            reference["loss.act"],
            reference["loss.rew"],
            ends,
            reference["loss.mask"],
        )
        assert_close(losses.reward, reference["loss.rew_term"], 1e-5)
        assert_close(losses.end, reference["loss.end_term"], 1e-5)
        assert_close(losses.reward + losses.end, reference["loss.value"], 1e-5)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(16, 96),
    width=st.integers(16, 96),
    levels=st.integers(1, 5),
    fold=st.sampled_from([1, 2, 4]),
    channels=st.integers(1, 4),
    steps=st.integers(1, 4),
)
@torch.no_grad()
def test_any_size_and_count_of_levels(
    height: int, width: int, levels: int, fold: int, channels: int, steps: int
) -> None:
    config = RewardEndConfig(
        cond_channels=8,
        channels=(8, 16, 8, 16, 8)[:levels],
        depths=(1,) * levels,
        attention=(False,) * levels,
        lstm_dim=8,
        fold=fold,
    )
    # Without a middle that attends to every pixel of the finest level: that is slow, not wrong.
    if levels == 1 and fold == 1:
        height, width = min(height, 32), min(width, 32)
    model = RewardEndModel(config, (channels, height, width), num_actions=5)
    obs = torch.zeros(2, steps, channels, height, width)
    output = model(obs, torch.zeros(2, steps, dtype=torch.int64), obs)
    assert output.reward_logits.shape == (2, steps, 3)
    assert output.end_logits.shape == (2, steps, 2)
    assert output.state.h.shape == output.state.c.shape == (2, 8)


@torch.no_grad()
def test_steps_one_by_one_equal_steps_together() -> None:
    model = tiny()
    obs, actions = torch.randn(2, 5, 3, 16, 16), torch.randint(0, 4, (2, 4))
    together = model(obs[:, :-1], actions, obs[:, 1:])
    state = model.initial_state(2)
    for step in range(4):
        now, after = obs[:, step : step + 1], obs[:, step + 1 : step + 2]
        output = model(now, actions[:, step : step + 1], after, state)
        state = output.state
        assert torch.allclose(
            output.reward_logits[:, 0], together.reward_logits[:, step], atol=1e-5
        )
        assert torch.allclose(output.end_logits[:, 0], together.end_logits[:, step], atol=1e-5)
    assert torch.allclose(state.h, together.state.h, atol=1e-5)


@torch.no_grad()
def test_no_state_is_a_state_of_zeros() -> None:
    model = tiny()
    obs, actions = torch.randn(2, 1, 3, 16, 16), torch.zeros(2, 1, dtype=torch.int64)
    zeros = LSTMState(torch.zeros(2, 12), torch.zeros(2, 12))
    assert torch.equal(
        model(obs, actions, obs).reward_logits, model(obs, actions, obs, zeros).reward_logits
    )


@torch.no_grad()
def test_the_frame_after_a_step_can_be_shown_as_its_change() -> None:
    as_frame, as_change = tiny(), tiny(replace(TINY, next_obs="change"))
    as_change.load_state_dict({**as_frame.state_dict(), "change_std": torch.tensor(0.5)})
    obs, actions = torch.randn(2, 5, 3, 16, 16), torch.randint(0, 4, (2, 4))
    changes = 2 * (obs[:, 1:] - obs[:, :-1])
    ours = as_change(obs[:, :-1], actions, obs[:, 1:])
    theirs = as_frame(obs[:, :-1], actions, changes)
    assert torch.allclose(ours.reward_logits, theirs.reward_logits, atol=1e-5)
    assert torch.allclose(ours.state.h, theirs.state.h, atol=1e-5)


def test_the_published_heads_have_no_unit_of_change() -> None:
    assert "change_std" not in tiny().state_dict()


def test_rewards_of_any_size_are_learned_as_their_sign() -> None:
    model = tiny()
    obs, actions = torch.randn(2, 4, 3, 16, 16), torch.zeros(2, 4, dtype=torch.int64)
    ends, mask = torch.zeros(2, 4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
    rewards = torch.tensor([[7.0, -300.0, 0.0, 0.0], [0.5, 0.0, -0.1, 0.0]])
    large = model.losses(obs, actions, rewards, ends, mask)
    assert torch.equal(large.reward, model.losses(obs, actions, rewards.sign(), ends, mask).reward)
    assert not torch.equal(large.reward, model.losses(obs, actions, -rewards, ends, mask).reward)


def test_padding_has_no_say() -> None:
    model = tiny()
    obs, actions = torch.randn(1, 4, 3, 16, 16), torch.zeros(1, 4, dtype=torch.int64)
    ends, mask = torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, True, False, False]])
    losses = model.losses(obs, actions, torch.tensor([[1.0, 0, 0, 0]]), ends, mask)
    padded = model.losses(obs, actions, torch.tensor([[1.0, 0, 1, 1]]), ends, mask)
    assert torch.equal(losses.reward, padded.reward)
    everything = torch.ones_like(mask)
    counted = model.losses(obs, actions, torch.tensor([[1.0, 0, 1, 1]]), ends, everything)
    assert not torch.equal(losses.reward, counted.reward)


def test_the_losses_of_shares_add_up_to_that_of_the_batch() -> None:
    model = tiny()
    obs, actions = torch.randn(4, 4, 3, 16, 16), torch.randint(0, 4, (4, 4))
    rewards, ends = torch.randn(4, 4), torch.rand(4, 4) < 0.5
    # Four steps that count in the one half, one in the other.
    mask = torch.tensor([[True, True, True, False]] + [[True] + [False] * 3] * 2 + [[False] * 4])
    whole = model.losses(obs, actions, rewards, ends, mask)
    parts = [
        model.losses(of(obs), of(actions), of(rewards), of(ends), of(mask), mask)
        for of in (Share(0, 2).of, Share(1, 2).of)
    ]
    for loss, one, other in zip(whole, *parts, strict=True):
        assert torch.allclose(loss, one + other, rtol=1e-5)


def test_the_loss_reaches_every_weight() -> None:
    for config in (TINY, replace(TINY, fold=2)):
        model = tiny(config)
        obs, actions = torch.randn(2, 4, 3, 16, 16), torch.randint(0, 4, (2, 4))
        ends, mask = torch.zeros(2, 4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
        losses = model.losses(obs, actions, torch.randn(2, 4), ends, mask)
        (losses.reward + losses.end).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": (8,)}, "channels"),
        ({"depths": (1, 0)}, "depths"),
        ({"fold": 8}, "fold"),
        ({"next_obs": "future"}, "next_obs"),
        ({"lstm_dim": 0}, "lstm_dim"),
        ({"cond_channels": 0}, "cond_channels"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(TINY, **change)


@torch.no_grad()
def test_a_step_of_a_dream_does_not_round_memory_to_bfloat16() -> None:
    frames = torch.rand(2, 1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny()(frames, torch.zeros(2, 1, dtype=torch.int64), frames)
    for memory in output.state:
        assert (memory != memory.bfloat16().float()).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@torch.no_grad()
def test_on_a_gpu_memory_is_not_rounded_to_float16() -> None:
    model = tiny().cuda()
    frames = torch.rand(2, 3, 3, 16, 16, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = model(frames, torch.zeros(2, 3, dtype=torch.int64, device="cuda"), frames)
    assert (output.state.c != output.state.c.half().float()).any()
