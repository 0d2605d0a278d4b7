from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    actor_critic_losses,
    lambda_returns,
)
from dreamenv.models.diamond import load_diamond_state_dict
from dreamenv.models.lstm import LSTMState

TINY = ActorCriticConfig(channels=(8, 16), downsample=(True, True), lstm_dim=12)


class TestReference:
    @torch.no_grad()
    def test_logits_value_and_state(
        self, load_reference: Callable[[str], Any], assert_close: Callable[..., None]
    ) -> None:
        reference = load_reference("actor_critic")
        config, size = reference.config, reference.config["img_size"]
        model = ActorCritic(
            ActorCriticConfig(
                channels=tuple(config["channels"]),
                downsample=tuple(bool(pools) for pools in config["down"]),
                lstm_dim=config["lstm_dim"],
            ),
            (config["img_channels"], size, size),
            config["num_actions"],
        )
        weights = {f"actor_critic.{key}": tensor for key, tensor in reference.weights.items()}
        load_diamond_state_dict(weights, actor_critic=model)
        output = model(reference["obs"], LSTMState(reference["hx"], reference["cx"]))
        assert_close(output.logits, reference["logits"], 1e-5)
        assert_close(output.value, reference["value"], 1e-5)
        assert_close(output.state.h, reference["next_hx"], 1e-5)
        assert_close(output.state.c, reference["next_cx"], 1e-5)

    def test_lambda_returns(
        self, load_reference: Callable[[str], Any], assert_close: Callable[..., None]
    ) -> None:
        reference = load_reference("lambda_returns")
        cases = reference.prefixes("returns")
        assert cases
        for case in cases:
            gamma, lambda_ = reference.config[case]
            returns = reference_returns(reference, gamma, lambda_)
            assert_close(returns, reference[f"{case}.returns"], 1e-6)

    def test_losses(
        self, load_reference: Callable[[str], Any], assert_close: Callable[..., None]
    ) -> None:
        reference = load_reference("lambda_returns")
        returns = reference_returns(reference, *reference.config["default"])
        losses = actor_critic_losses(
            reference["logits"], reference["value"], reference["act"], returns
        )
        assert_close(losses.policy, reference["loss_actions"], 1e-6)
        assert_close(losses.value, reference["loss_values"], 1e-6)
        assert_close(losses.entropy, reference["entropy"], 1e-6)
        total = losses.total(
            reference.config["weight_entropy_loss"], reference.config["weight_value_loss"]
        )
        assert_close(total, reference["loss_total"], 1e-6)


def reference_returns(reference: Any, gamma: float, lambda_: float) -> Tensor:
    return lambda_returns(
        reference["rew"],
        reference["end"],
        reference["trunc"],
        reference["value_bootstrap"],
        gamma=gamma,
        lambda_=lambda_,
    )


class TestLambdaReturns:
    nothing = torch.zeros(1, 3, dtype=torch.bool)

    def test_one_step_returns_by_hand(self) -> None:
        returns = lambda_returns(
            torch.tensor([[1.0, 0.0, -5.0]]),
            self.nothing,
            self.nothing,
            torch.tensor([[10.0, 20.0, 30.0]]),
            gamma=0.5,
            lambda_=0.0,
        )
        assert returns.tolist() == [[6.0, 10.0, 14.0]]

    def test_monte_carlo_returns_by_hand(self) -> None:
        returns = lambda_returns(
            torch.tensor([[1.0, 0.0, -5.0]]),
            self.nothing,
            self.nothing,
            torch.tensor([[10.0, 20.0, 30.0]]),
            gamma=0.5,
            lambda_=1.0,
        )
        assert returns.tolist() == [[4.5, 7.0, 14.0]]

    def test_nothing_counts_after_an_end(self) -> None:
        ends = torch.tensor([[False, True, False]])
        values = torch.tensor([[1.0, 2.0, 3.0]])
        returns = lambda_returns(torch.ones(1, 3), ends, self.nothing, values)
        assert returns[0, 1] == 1
        other = lambda_returns(torch.ones(1, 3), ends, self.nothing, values + 100 * ends)
        assert torch.equal(returns, other)

    def test_a_truncation_is_followed_by_the_value_of_its_own_frame(self) -> None:
        truncations = torch.tensor([[False, True, False]])
        values = torch.tensor([[1.0, 2.0, 3.0]])
        returns = lambda_returns(torch.ones(1, 3), self.nothing, truncations, values, gamma=0.5)
        assert returns[0, 1] == 1 + 0.5 * 2
        later = torch.tensor([[1.0, 1.0, -1.0]])
        changed = lambda_returns(later, self.nothing, truncations, values, gamma=0.5)
        assert torch.equal(returns[:, :2], changed[:, :2])


class TestLosses:
    def test_no_gradient_reaches_the_returns_and_none_the_baseline_through_the_policy(self) -> None:
        logits = torch.randn(2, 3, 4, requires_grad=True)
        values = torch.randn(2, 3, requires_grad=True)
        returns = torch.randn(2, 3, requires_grad=True)
        actions = torch.randint(0, 4, (2, 3))
        losses = actor_critic_losses(logits, values, actions, returns)
        (policy_on_values,) = torch.autograd.grad(
            losses.policy, values, retain_graph=True, allow_unused=True
        ) or (None,)
        assert policy_on_values is None
        losses.total().backward()
        assert returns.grad is None
        assert logits.grad is not None
        assert values.grad is not None

    def test_a_better_action_than_expected_is_made_likelier(self) -> None:
        logits = torch.zeros(1, 1, 3, requires_grad=True)
        actions, values = torch.tensor([[1]]), torch.zeros(1, 1)
        actor_critic_losses(logits, values, actions, torch.ones(1, 1)).policy.backward()
        assert logits.grad is not None
        downhill = -logits.grad[0, 0]
        assert downhill[1] > 0
        assert downhill[0] < 0
        assert downhill[2] < 0


class TestActorCritic:
    @settings(max_examples=20, deadline=None)
    @given(
        height=st.integers(16, 96),
        width=st.integers(16, 96),
        levels=st.integers(1, 4),
        actions=st.integers(1, 18),
    )
    @torch.no_grad()
    def test_any_size_and_count_of_levels(
        self, height: int, width: int, levels: int, actions: int
    ) -> None:
        config = ActorCriticConfig(
            channels=(8, 16, 8, 16)[:levels], downsample=(True,) * levels, lstm_dim=8
        )
        output = ActorCritic(config, (3, height, width), actions)(torch.zeros(2, 3, height, width))
        assert output.logits.shape == (2, actions)
        assert output.value.shape == (2,)

    @torch.no_grad()
    def test_a_fresh_one_has_no_preference_and_expects_nothing(self) -> None:
        output = ActorCritic(TINY, (3, 16, 16), 4)(torch.randn(2, 3, 16, 16))
        assert output.logits.abs().max() == 0
        assert output.value.abs().max() == 0

    @torch.no_grad()
    def test_it_remembers(self) -> None:
        model = ActorCritic(TINY, (3, 16, 16), 4)
        torch.nn.init.normal_(model.policy.weight)
        first, second = torch.randn(2, 1, 3, 16, 16).unbind()
        after_first = model(second, model(first).state)
        after_itself = model(second, model(second).state)
        assert not torch.equal(after_first.logits, after_itself.logits)

    def test_frames_too_small_to_pool_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="3x16 pixels are too small for 2 poolings"):
            ActorCritic(TINY, (3, 3, 16), 4)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"channels": (8,)}, "channels"),
            ({"channels": (8, 9)}, "9"),
            ({"lstm_dim": 0}, "lstm_dim"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(
        self, change: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(ConfigError, match=named):
            replace(TINY, **change)
