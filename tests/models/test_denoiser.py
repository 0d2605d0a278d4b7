import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamenv.errors import ConfigError
from dreamenv.models.denoiser import Denoiser, DenoiserLosses, TrainingNoise
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.denoiser_network import Futures
from dreamenv.models.diamond import diamond_state_dict
from dreamenv.models.frames import to_float, to_uint8
from dreamenv.padding import PADDING_LEVEL
from dreamenv.share import WHOLE, Share

BYTE_LEVEL = 2 / 255
TINY = DenoiserConfig(
    context_length=2, cond_channels=16, channels=(8, 16), depths=(1, 1), attention=(False, True)
)
TINY_CHANGE = replace(TINY, fold=2, target="change", sigma_data=1.0, sigma_offset=0.0)
TINY_CHANGES = replace(TINY_CHANGE, past="changes")
TINY_CHOICES = replace(TINY_CHANGE, choices=3)
TINY_MEMORY = replace(TINY_CHOICES, reward_memory=3)
TINY_PLACES = replace(TINY_CHOICES, place_maps=3)
SIZE = (16, 16)
ONLY = 1e6 * torch.eye(3)  # chance that leaves no choice


def randomised(denoiser: Denoiser) -> Denoiser:
    """Gives the zero-initialised weights values, so that every path matters."""
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return denoiser


def of_steps(noise: TrainingNoise, steps: slice) -> TrainingNoise:
    assert noise.starts is not None
    return TrainingNoise(*(part[steps] for part in vars(noise).values() if part is not None))


def random_frames(*shape: int) -> Tensor:
    return to_float(torch.randint(0, 256, shape, dtype=torch.uint8))


class TestReference:
    def test_preconditioners(
        self,
        load_reference: Callable[[str], Any],
        denoiser_of: Callable[[Any], Denoiser],
        assert_close: Callable[..., None],
    ) -> None:
        reference = load_reference("denoiser")
        denoiser = denoiser_of(reference)
        cases = reference.prefixes("sigma")
        assert cases
        for case in cases:
            factors = denoiser.preconditioners(reference[f"{case}.sigma"])
            for name in ("c_in", "c_out", "c_skip", "c_noise"):
                assert_close(getattr(factors, name), reference[f"{case}.{name}"], 1e-5)

    @torch.no_grad()
    def test_network_and_denoised_frame(
        self,
        load_reference: Callable[[str], Any],
        denoiser_of: Callable[[Any], Denoiser],
        assert_close: Callable[..., None],
    ) -> None:
        reference = load_reference("denoiser")
        denoiser = denoiser_of(reference)
        for case in reference.prefixes("sigma"):
            noisy, sigma = reference[f"{case}.noisy"], reference[f"{case}.sigma"]
            obs, act = reference[f"{case}.obs"], reference[f"{case}.act"]
            output = denoiser.run_network(noisy, denoiser.preconditioners(sigma), obs, act)
            assert_close(output, reference[f"{case}.network_output"], 1e-5)
            error = (denoiser(noisy, sigma, obs, act) - reference[f"{case}.denoised"]).abs().max()
            assert error <= BYTE_LEVEL + 1e-6

    def test_loss_and_gradient(
        self,
        load_reference: Callable[[str], Any],
        denoiser_of: Callable[[Any], Denoiser],
        assert_close: Callable[..., None],
    ) -> None:
        reference = load_reference("denoiser_loss")
        denoiser = denoiser_of(reference)
        noise = TrainingNoise(reference["sigma"], reference["offset_noise"], reference["noise"])
        loss = denoiser.losses(reference["obs"], reference["act"], reference["mask"], noise).total
        loss.backward()
        assert_close(loss, reference["loss"], 1e-4)
        grads = [p.grad for p in denoiser.parameters() if p.grad is not None]
        assert_close(torch.nn.utils.get_total_norm(grads), reference["grad_norm"], 1e-4)
        published = gradients_by_published_key(denoiser)
        named = [name for name in reference.tensors if name.startswith("grad.")]
        assert named
        for name in named:
            key = f"denoiser.inner_model.{name.removeprefix('grad.')}.weight"
            assert_close(published[key], reference[name], 1e-4)


def gradients_by_published_key(denoiser: Denoiser) -> dict[str, Tensor]:
    twin = Denoiser(denoiser.config, denoiser_channels(denoiser), denoiser_actions(denoiser))
    twin.load_state_dict(denoiser.state_dict())
    for own, parameter in zip(twin.parameters(), denoiser.parameters(), strict=True):
        own.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return diamond_state_dict(denoiser=twin)


def denoiser_channels(denoiser: Denoiser) -> int:
    return denoiser.network.conv_out.out_channels


def denoiser_actions(denoiser: Denoiser) -> int:
    return denoiser.network.action_embedding.table.num_embeddings


class TestShapes:
    @settings(max_examples=30, deadline=None)
    @given(
        height=st.integers(16, 96),
        width=st.integers(16, 96),
        length=st.integers(1, 8),
        levels=st.integers(1, 5),
        fold=st.sampled_from([1, 2, 4]),
        channels=st.integers(1, 4),
        target=st.sampled_from(["frame", "change"]),
    )
    @torch.no_grad()
    def test_any_size_context_and_count_of_levels(
        self,
        height: int,
        width: int,
        length: int,
        levels: int,
        fold: int,
        channels: int,
        target: Any,
    ) -> None:
        config = DenoiserConfig(
            context_length=length,
            cond_channels=16,
            channels=(8, 16, 8, 16, 8)[:levels],
            depths=(1, 1, 2, 1, 1)[:levels],
            attention=(False,) * levels,
            fold=fold,
            target=target,
        )
        denoiser = Denoiser(config, channels, num_actions=5)
        noisy, sigma = torch.randn(2, channels, height, width), torch.tensor([0.1, 3.0])
        context = random_frames(2, length, channels, height, width)
        actions = torch.randint(0, 5, (2, length))
        denoised = denoiser(noisy, sigma, context, actions)
        assert denoised.shape == noisy.shape
        frame = denoiser.to_frame(denoised, context[:, -1])
        assert frame.min() >= -1 - 1e-5
        assert frame.max() <= 1 + 1e-5
        levels_apart = (frame - to_float(to_uint8(frame))).abs().max()
        assert levels_apart < 1e-5

    @torch.no_grad()
    def test_how_likely_choices_are_depends_on_the_last_reward_as_far_as_it_is_remembered(
        self,
    ) -> None:
        denoiser = randomised(Denoiser(TINY_MEMORY, 3, 4, SIZE))
        scaled, c_noise = torch.randn(1, 3, 16, 16), torch.ones(1)
        past = random_frames(1, 2, 3, 16, 16), torch.tensor([[0, 1]])

        def after(since: int | None) -> Tensor:
            counted = None if since is None else torch.tensor([since])
            odds = denoiser.network.futures(scaled, c_noise, *past, counted).likelihood
            assert odds is not None
            return odds

        told = [after(since) for since in range(-3, 4)]
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(told, 2))
        assert all(torch.equal(after(since), after(0)) for since in (None, 4, -4))

    @torch.no_grad()
    def test_the_last_reward_decides_what_is_drawn_where_choices_hang_on_it(self) -> None:
        denoiser = randomised(Denoiser(TINY_MEMORY, 3, 4, SIZE))
        head = denoiser.network.choice_head
        assert head is not None
        for parameter in (*head.found.parameters(), head.odds.weight, head.odds.bias):
            torch.nn.init.zeros_(parameter)
        head.odds.weight[2] = 1e3
        torch.nn.init.zeros_(head.moment.weight)
        head.moment.weight[3 + 2] = 1.0  # the third choice two steps after a reward
        noisy, sigma = torch.randn(1, 3, 16, 16), torch.ones(1)
        past = random_frames(1, 2, 3, 16, 16), torch.tensor([[0, 1]])
        for since in range(-3, 4):
            told = noisy, sigma, *past, torch.tensor([since])
            first, third = denoiser(*told, ONLY[0, None]), denoiser(*told, ONLY[2, None])
            assert not torch.equal(first, third)
            assert torch.equal(denoiser(*told), third if since == 2 else first)

    def test_without_a_memory_rewards_mean_nothing(self) -> None:
        denoiser = randomised(Denoiser(TINY, 3, 4))
        noisy, sigma = torch.randn(1, 3, 16, 16), torch.ones(1)
        past = random_frames(1, 2, 3, 16, 16), torch.tensor([[0, 1]])
        assert torch.equal(
            denoiser(noisy, sigma, *past), denoiser(noisy, sigma, *past, torch.tensor([1]))
        )

    def test_each_frame_is_learned_after_the_reward_before_it(self) -> None:
        denoiser = randomised(Denoiser(TINY_MEMORY, 3, 4, SIZE))
        obs, mask = random_frames(2, 4, 3, 16, 16), torch.ones(2, 4, dtype=torch.bool)
        actions, noise = torch.randint(0, 4, (2, 4)), denoiser.draw_noise(obs)

        def loss(*since: int) -> Tensor:
            counted = torch.tensor(since).repeat(2, 1)
            return denoiser.losses(obs, actions, mask, noise, since_reward=counted).total

        # Two frames are predicted, the third from the second, and the fourth from the third.
        told = loss(0, 1, 2, 0)
        assert torch.equal(loss(3, 1, 2, 3), told)
        assert not torch.equal(loss(0, 2, 2, 0), told)
        assert not torch.equal(loss(0, 1, 1, 0), told)
        assert torch.equal(denoiser.losses(obs, actions, mask, noise).total, loss(0, 0, 0, 0))

    @torch.no_grad()
    def test_a_square_is_learned_at_its_place(self) -> None:
        denoiser = randomised(Denoiser(TINY_PLACES, 3, 4))
        obs, mask = random_frames(2, 3, 3, 16, 16), torch.ones(2, 3, dtype=torch.bool)
        actions, noise = torch.randint(0, 4, (2, 3)), denoiser.draw_noise(obs)

        def loss(*corners: list[int]) -> Tensor:
            return denoiser.losses(obs, actions, mask, noise, corner=torch.tensor(corners)).total

        whole = denoiser.losses(obs, actions, mask, noise).total
        assert torch.equal(loss([0, 0], [0, 0]), whole)
        others = loss([0, 8], [0, 0]), loss([8, 0], [0, 0]), loss([0, 0], [0, 8])
        assert len({each.item() for each in (whole, *others)}) == 4

    @torch.no_grad()
    def test_the_maps_are_as_coarse_as_folded_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        denoiser = Denoiser(TINY_PLACES, 3, 4)  # folded by 2
        head, corners = denoiser.network.choice_head, []
        assert head is not None
        see = head.see

        def noting(features: Tensor, output: Tensor, corner: Tensor) -> Tensor:
            corners.append(corner.tolist())
            return see(features, output, corner)

        monkeypatch.setattr(head, "see", noting)
        obs, mask = random_frames(1, 3, 3, 8, 8), torch.ones(1, 3, dtype=torch.bool)
        noise, actions = denoiser.draw_noise(obs), torch.zeros(1, 3, dtype=torch.int64)
        denoiser.losses(obs, actions, mask, noise, corner=torch.tensor([[4, 8]]))
        assert corners == [[[2, 4]]]

    @torch.no_grad()
    def test_each_choice_is_another_future(self) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4, SIZE))
        noisy, sigma = torch.randn(1, 3, 16, 16), torch.ones(1)
        past = random_frames(1, 2, 3, 16, 16), torch.tensor([[0, 1]])

        def chosen(chance: Tensor | None) -> Tensor:
            denoised: Tensor = denoiser(noisy, sigma, *past, None, chance)
            return denoised

        futures = [chosen(ONLY[choice, None]) for choice in range(3)]
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(futures, 2))
        factors = denoiser.preconditioners(sigma)
        shown = denoiser._past(past[0])
        told = factors.c_in[:, None, None, None] * noisy, factors.c_noise, shown, past[1]
        _, odds = denoiser.network.futures(*told)
        assert odds is not None
        assert torch.equal(chosen(None), futures[int(odds.argmax())])

    @torch.no_grad()
    def test_every_choice_is_taken_as_often_as_it_is_likely(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4, SIZE))
        head = denoiser.network.choice_head
        assert head is not None
        shares = torch.tensor([0.7, 0.25, 0.05])
        monkeypatch.setattr(head, "likelihood", lambda *_: shares.log() + 3)
        noisy = torch.randn(1, 3, 16, 16).repeat(1000, 1, 1, 1)
        past = random_frames(1, 2, 3, 16, 16).repeat(1000, 1, 1, 1, 1)
        told = torch.ones(1000), past, torch.tensor([[0, 1]]).repeat(1000, 1)
        chance = -torch.empty(1000, 3).exponential_().log()
        drawn = denoiser(noisy, *told, None, chance)
        each = [denoiser(noisy[:1], *(x[:1] for x in told), None, only[None]) for only in ONLY]
        apart = torch.stack([(drawn - of).flatten(1).abs().mean(dim=1) for of in each])
        taken = apart.argmin(dim=0).bincount(minlength=3) / 1000
        assert torch.allclose(taken, shares, atol=0.05)

    def test_the_best_of_the_choices_learns_most_and_the_others_a_little(self) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4))  # of which these are squares
        best = torch.arange(9) % 3
        obs, actions, noise = self.what_comes_is(best, denoiser)
        each = self.errors_of_each(denoiser, obs, actions, noise)
        assert torch.equal(each.argmin(dim=0), best)
        learned = each.amin(dim=0)
        expected = 0.9 * learned + 0.05 * each[1:].amin(dim=0) + 0.05 * each.mean(dim=0)
        assert expected.mean() > 0
        mask = torch.ones(9, 3, dtype=torch.bool)
        assert torch.allclose(denoiser.losses(obs, actions, mask, noise).total, expected.mean())

    def test_another_choice_than_the_first_is_the_best_where_it_saves_what_it_costs(self) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4))
        obs, actions, noise = self.what_comes_is(torch.arange(9) % 3, denoiser)
        each = self.errors_of_each(denoiser, obs, actions, noise)
        saved = each[0] - each[1:].amin(dim=0)  # a pixel
        least = saved[saved > 0].median()
        dear = Denoiser(replace(TINY_CHOICES, choice_cost=least.item() * 3 * 16 * 16), 3, 4)
        dear.load_state_dict(denoiser.state_dict())
        pays = saved > least
        assert 0 < pays.sum() < (saved > 0).sum()
        learned = torch.where(pays, each.amin(dim=0), each[0])
        expected = 0.9 * learned + 0.05 * each[1:].amin(dim=0) + 0.05 * each.mean(dim=0)
        mask = torch.ones(9, 3, dtype=torch.bool)
        assert torch.allclose(dear.losses(obs, actions, mask, noise).total, expected.mean())

    def test_whole_frames_teach_how_likely_each_choice_is(self) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4, SIZE))
        of_squares = Denoiser(TINY_CHOICES, 3, 4)
        of_squares.load_state_dict(denoiser.state_dict())
        best, mask = torch.arange(9) % 3, torch.ones(9, 3, dtype=torch.bool)
        obs, actions, noise = self.what_comes_is(best, denoiser)
        with torch.no_grad():
            odds = self.futures_of(denoiser, obs, actions, noise).likelihood
            assert odds is not None
            surprise = -odds.log_softmax(dim=1)[torch.arange(9), best].mean()
            whole, squares = (of.losses(obs, actions, mask, noise) for of in (denoiser, of_squares))
        assert torch.allclose(whole.choosing, surprise)
        assert torch.equal(whole.total, whole.denoising + whole.choosing)
        assert torch.equal(whole.denoising, squares.denoising)
        assert squares.choosing == 0
        assert self.futures_of(of_squares, obs, actions, noise).likelihood is None

    @torch.no_grad()
    def what_comes_is(
        self, choice: Tensor, denoiser: Denoiser
    ) -> tuple[Tensor, Tensor, TrainingNoise]:
        """Makes segments whose last frame is what a choice [B] draws from the others and noise."""
        rows = len(choice)
        obs, actions = random_frames(rows, 3, 3, 16, 16), torch.randint(0, 4, (rows, 3))
        noise = denoiser.draw_noise(obs)
        noise = replace(noise, starts=torch.ones(1, rows, dtype=torch.bool))
        c_skip, c_out = self.skip_and_out(denoiser, noise)
        drawn = self.futures_of(denoiser, obs, actions, noise).drawn[choice, torch.arange(rows)]
        obs[:, 2] = denoiser.to_frame(c_skip * noise.pixel[0] + c_out * drawn, obs[:, 1])
        return obs, actions, noise

    def futures_of(
        self, denoiser: Denoiser, obs: Tensor, actions: Tensor, noise: TrainingNoise
    ) -> Futures:
        """Draws the first frames that are predicted, from noise alone."""
        factors = denoiser.preconditioners(noise.sigma[0])
        scaled = factors.c_in[:, None, None, None] * noise.pixel[0]
        past = denoiser._past(obs[:, :2])
        return denoiser.network.futures(scaled, factors.c_noise, past, actions[:, :2])

    def skip_and_out(self, denoiser: Denoiser, noise: TrainingNoise) -> tuple[Tensor, Tensor]:
        factors = denoiser.preconditioners(noise.sigma[0])
        return factors.c_skip[:, None, None, None], factors.c_out[:, None, None, None]

    @torch.no_grad()
    def errors_of_each(
        self, denoiser: Denoiser, obs: Tensor, actions: Tensor, noise: TrainingNoise
    ) -> Tensor:
        """Measures how wrong each choice is in the first frames that are predicted: [K, B]."""
        target = denoiser.to_target(obs[:, 2], obs[:, 1])
        c_skip, c_out = self.skip_and_out(denoiser, noise)
        drawn = self.futures_of(denoiser, obs, actions, noise).drawn
        return (drawn - (target - c_skip * noise.pixel[0]) / c_out).square().mean(dim=(2, 3, 4))

    def test_a_later_frame_is_learned_from_what_the_best_choice_has_drawn(self) -> None:
        denoiser = randomised(Denoiser(TINY_CHOICES, 3, 4, SIZE))
        obs, mask = random_frames(1, 4, 3, 16, 16), torch.ones(1, 4, dtype=torch.bool)
        actions, noise = torch.randint(0, 4, (1, 4)), denoiser.draw_noise(obs)
        pasts: list[Tensor] = []
        denoiser.network.unet.register_forward_pre_hook(lambda _, given: pasts.append(given[0]))
        context, last = obs[:, :2], obs[:, 1]
        with torch.no_grad():
            denoiser.losses(obs, actions, mask, noise)
            target = denoiser.to_target(obs[:, 2], last)
            noisy = target + noise.sigma[0][:, None, None, None] * noise.pixel[0]
            drawn = [
                denoiser(noisy, noise.sigma[0], context, actions[:, :2], None, only[None])
                for only in ONLY
            ]
            errors = torch.stack([(each - target).square().mean() for each in drawn])
            frame = denoiser.to_frame(drawn[int(errors.argmin())], last)
            sigma, pixel = noise.sigma[1], noise.pixel[1]
            target = denoiser.to_target(obs[:, 3], frame)
            noisy = target + sigma[:, None, None, None] * pixel
            denoiser(noisy, sigma, torch.stack([last, frame], dim=1), actions[:, 1:3])
        assert torch.allclose(pasts[1], pasts[-1], atol=1e-4)

    def test_the_loss_reaches_every_weight(self) -> None:
        for config in (TINY, TINY_CHANGE, TINY_MEMORY, TINY_PLACES, TINY_CHOICES):
            denoiser = randomised(Denoiser(config, 3, 4, SIZE))
            obs, mask = random_frames(2, 4, 3, 16, 16), torch.ones(2, 4, dtype=torch.bool)
            actions = torch.randint(0, 4, (2, 4))
            since = torch.tensor([[0, 1, 2, 3], [-3, -2, -1, -2]])
            noise = denoiser.draw_noise(obs)
            losses = denoiser.losses(obs, actions, mask, noise, since_reward=since)
            losses.total.backward()
            for name, parameter in denoiser.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
                assert parameter.grad.abs().sum() > 0, name


class TestDenoising:
    @torch.no_grad()
    def test_a_fresh_network_returns_the_scaled_input(self) -> None:
        denoiser = Denoiser(TINY, 3, 4)
        torch.nn.init.zeros_(denoiser.get_parameter("network.conv_out.bias"))
        frame = random_frames(1, 3, 16, 16)
        sigma = torch.tensor([0.7])
        factors = denoiser.preconditioners(sigma)
        expected = to_float(
            (frame * factors.c_skip).clamp(-1, 1).add(1).div(2).mul(255).to(torch.uint8)
        )
        context, actions = random_frames(1, 2, 3, 16, 16), torch.zeros(1, 2, dtype=torch.int64)
        assert torch.equal(denoiser(frame, sigma, context, actions), expected)

    @torch.no_grad()
    def test_a_row_does_not_depend_on_its_neighbours(self) -> None:
        denoiser = randomised(Denoiser(TINY, 3, 4))
        noisy, sigma = torch.randn(3, 3, 16, 16), torch.tensor([0.1, 1.0, 5.0])
        context, actions = random_frames(3, 2, 3, 16, 16), torch.randint(0, 4, (3, 2))
        together = denoiser(noisy, sigma, context, actions)
        for row in range(3):
            one = slice(row, row + 1)
            alone = denoiser(noisy[one], sigma[one], context[one], actions[one])
            assert (alone - together[one]).abs().max() <= BYTE_LEVEL + 1e-6

    @pytest.mark.parametrize("config", [TINY, TINY_CHANGE])
    @torch.no_grad()
    def test_noise_level_context_and_actions_all_matter(self, config: DenoiserConfig) -> None:
        denoiser = randomised(Denoiser(config, 3, 4))
        noisy, sigma = torch.randn(1, 3, 16, 16), torch.tensor([1.0])
        context, actions = random_frames(1, 2, 3, 16, 16), torch.tensor([[0, 1]])
        factors = denoiser.preconditioners(sigma)

        def run(noisy: Tensor, context: Tensor, actions: Tensor) -> Tensor:
            return denoiser.run_network(noisy, factors, context, actions)

        output = run(noisy, context, actions)
        assert not torch.equal(output, run(noisy, context.flip(1), actions))
        assert not torch.equal(output, run(noisy, context, actions.flip(1)))
        assert not torch.equal(output, run(noisy + 1, context, actions))

    @torch.no_grad()
    def test_a_change_of_nothing_keeps_the_frame_to_the_byte(self) -> None:
        denoiser = Denoiser(TINY_CHANGE, 3, 4)
        torch.nn.init.zeros_(denoiser.get_parameter("network.conv_out.bias"))
        denoiser.change_std.fill_(0.05)
        context = random_frames(2, 2, 3, 16, 16)
        actions, still = torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 3, 16, 16)
        denoised = denoiser(still, torch.full((2,), 80.0), context, actions)
        frame = denoiser.to_frame(denoised, context[:, -1])
        assert torch.equal(to_uint8(frame), to_uint8(context[:, -1]))

    def test_targets_turn_back_into_frames(self) -> None:
        denoiser = Denoiser(TINY_CHANGE, 3, 4)
        denoiser.change_std.fill_(0.05)
        frame, last = random_frames(2, 3, 16, 16), random_frames(2, 3, 16, 16)
        target = denoiser.to_target(frame, last)
        assert torch.allclose(target, (frame - last) / 0.05)
        assert torch.allclose(denoiser.to_frame(target, last), frame, atol=1e-6)


class TestPast:
    def seen(self, config: DenoiserConfig, context: Tensor, unit: float) -> Tensor:
        """What the network is given of a context."""
        denoiser = Denoiser(config, 3, 4)
        denoiser.change_std.fill_(unit)
        given: list[Tensor] = []
        denoiser.network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[2]))
        rows = len(context)
        actions = torch.zeros(rows, config.context_length, dtype=torch.int64)
        denoiser(torch.zeros_like(context[:, 0]), torch.ones(rows), context, actions)
        return given[0]

    def test_frames_are_shown_as_they_are(self) -> None:
        context = random_frames(2, 2, 3, 16, 16)
        assert torch.equal(self.seen(TINY_CHANGE, context, 0.1), context)

    def test_changes_are_shown_in_their_unit_before_the_last_frame(self) -> None:
        context = random_frames(2, 2, 3, 16, 16)
        past = self.seen(TINY_CHANGES, context, 0.1)
        assert torch.allclose(past[:, 0], (context[:, 1] - context[:, 0]) / 0.1)
        assert torch.equal(past[:, 1], context[:, 1])

    def test_changes_are_bounded(self) -> None:
        context = torch.stack([-torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16)], dim=1)
        assert self.seen(TINY_CHANGES, context, 1e-4)[:, 0].max() == 50

    def test_before_the_first_frame_of_an_episode_nothing_changes(self) -> None:
        context = random_frames(2, 2, 3, 16, 16)
        padding = torch.full((3, 16, 16), PADDING_LEVEL, dtype=torch.uint8)
        context[0, 0] = to_float(padding)
        past = self.seen(TINY_CHANGES, context, 0.1)
        assert (past[0, 0] == 0).all()
        assert torch.equal(past[0, 1], context[0, 1])
        # A frame that is grey but for one pixel is one of the game.
        assert (past[1, 0] != 0).any()
        context[0, 0, 0, 0, 0] = 1.0
        assert (self.seen(TINY_CHANGES, context, 0.1)[0, 0] != 0).any()


class TestLoss:
    def test_padding_has_no_say(self) -> None:
        denoiser = randomised(Denoiser(TINY, 3, 4))
        obs, actions = random_frames(2, 3, 3, 16, 16), torch.randint(0, 4, (2, 3))
        mask = torch.tensor([[True, True, True], [True, True, False]])
        noise = denoiser.draw_noise(obs)
        loss = denoiser.losses(obs, actions, mask, noise).total
        other = obs.clone()
        other[1, 2] = -other[1, 2]
        assert torch.equal(loss, denoiser.losses(other, actions, mask, noise).total)
        everywhere = torch.ones_like(mask)
        assert not torch.equal(loss, denoiser.losses(other, actions, everywhere, noise).total)

    def test_a_change_from_padding_is_not_learned(self) -> None:
        obs, actions = random_frames(1, 3, 3, 16, 16), torch.zeros(1, 3, dtype=torch.int64)
        first_frame = torch.tensor([[False, False, True]])
        for config, learned in ((TINY, True), (TINY_CHANGE, False)):
            denoiser = randomised(Denoiser(config, 3, 4))
            loss = denoiser.losses(obs, actions, first_frame, denoiser.draw_noise(obs)).total
            assert (loss > 0) == learned

    def test_a_first_frame_that_was_not_learned_stays_in_the_context(self) -> None:
        # Dreamt from grey it would be nothing like a frame, and the change from it immense.
        denoiser = randomised(Denoiser(TINY_CHANGE, 3, 4))
        obs, actions = random_frames(1, 4, 3, 16, 16), torch.zeros(1, 4, dtype=torch.int64)
        noise = denoiser.draw_noise(obs)
        loss = denoiser.losses(
            obs, actions, torch.tensor([[False, False, True, True]]), noise
        ).total
        second = TrainingNoise(noise.sigma[1:], noise.offset[1:], noise.pixel[1:])
        real = torch.tensor([[False, True, True]])
        expected = denoiser.losses(obs[:, 1:], actions[:, 1:], real, second).total
        assert torch.allclose(2 * loss, expected, rtol=1e-5)

    def test_the_losses_of_shares_add_up_to_that_of_the_batch(self) -> None:
        obs, actions = random_frames(4, 4, 3, 16, 16), torch.randint(0, 4, (4, 4))
        # As many to learn differ from half to half, and from prediction to prediction.
        mask = torch.tensor([[True] * 4, [True] * 4, [True, True, False, True], [False] * 4])
        for config in (TINY, replace(TINY_CHANGE, start_share=0.5)):
            denoiser = randomised(Denoiser(config, 3, 4))
            noise = denoiser.draw_noise(obs)
            whole = denoiser.losses(obs, actions, mask, noise).total
            one, other = (
                denoiser.losses(
                    share.of(obs), share.of(actions), share.of(mask), noise.part(share), mask
                ).total
                for share in (Share(0, 2), Share(1, 2))
            )
            assert torch.allclose(whole, one + other, rtol=1e-5)

    def test_a_batch_of_padding_costs_nothing(self) -> None:
        denoiser = randomised(Denoiser(TINY, 3, 4))
        obs, mask = random_frames(2, 3, 3, 16, 16), torch.zeros(2, 3, dtype=torch.bool)
        actions = torch.zeros(2, 3, dtype=torch.int64)
        assert denoiser.losses(obs, actions, mask, denoiser.draw_noise(obs)).total == 0

    def test_a_prediction_takes_the_place_of_the_real_frame(self) -> None:
        # With L = 2 and two predictions, the first predicted frame is the last of the second's
        # context: were the real one used, the loss would depend on it only as a target.
        denoiser = randomised(Denoiser(TINY, 3, 4))
        obs, actions = random_frames(2, 4, 3, 16, 16), torch.randint(0, 4, (2, 4))
        noise = denoiser.draw_noise(obs)
        only_second = torch.tensor([[True, True, False, True]] * 2)
        loss = denoiser.losses(obs, actions, only_second, noise).total
        one_step = TrainingNoise(noise.sigma[1:], noise.offset[1:], noise.pixel[1:])
        with torch.no_grad():
            noisy = obs[:, 2] + denoiser.config.sigma_offset * noise.offset[0]
            noisy = noisy + noise.sigma[0][:, None, None, None] * noise.pixel[0]
            dreamt = denoiser(noisy, noise.sigma[0], obs[:, :2], actions[:, :2])
        replaced = torch.stack([obs[:, 1], dreamt, obs[:, 3]], dim=1)
        expected = denoiser.losses(replaced, actions[:, 1:], only_second[:, 1:], one_step).total
        assert torch.allclose(2 * loss, expected, rtol=1e-5)

    def test_noise_is_drawn_as_configured_and_from_the_generator(self) -> None:
        denoiser = Denoiser(TINY, 3, 4)
        obs = torch.zeros(4000, 3, 3, 2, 2)
        noise = denoiser.draw_noise(obs, torch.Generator().manual_seed(1))
        again = denoiser.draw_noise(obs, torch.Generator().manual_seed(1))
        assert torch.equal(noise.sigma, again.sigma)
        assert torch.equal(noise.pixel, again.pixel)
        log_sigma = noise.sigma.log()
        assert log_sigma.mean() == pytest.approx(-0.4, abs=0.08)
        assert log_sigma.std() == pytest.approx(1.2, abs=0.08)
        assert noise.sigma.min() >= 2e-3
        assert noise.sigma.max() <= 20
        assert noise.offset.std() == pytest.approx(1, abs=0.05)
        assert noise.pixel.std() == pytest.approx(1, abs=0.05)
        assert noise.starts is None
        assert noise.forgets is None

    def test_a_share_of_the_noise_is_that_of_the_start(self) -> None:
        denoiser = Denoiser(replace(TINY, start_share=0.25), 3, 4)
        noise = denoiser.draw_noise(torch.zeros(4000, 3, 3, 2, 2))
        assert noise.starts is not None
        assert noise.starts.float().mean() == pytest.approx(0.25, abs=0.03)
        assert (noise.sigma[noise.starts] == 20).all()
        assert (noise.sigma[~noise.starts] < 20).any()

    @pytest.mark.parametrize("config", [TINY, TINY_CHANGE])
    def test_at_the_start_nothing_of_the_target_is_seen(self, config: DenoiserConfig) -> None:
        config = replace(config, start_share=1.0)
        denoiser = randomised(Denoiser(config, 3, 4))
        obs, actions = random_frames(2, 4, 3, 16, 16), torch.randint(0, 4, (2, 4))
        noise = denoiser.draw_noise(obs)
        # The first prediction is what a sampler of one level, which starts alike, gives.
        with torch.no_grad():
            first, past = obs[:, :2], actions[:, :2]
            target = denoiser(noise.pixel[0], noise.sigma[0], first, past)
        dreamt = denoiser.to_frame(target, first[:, -1])
        replaced = torch.stack([obs[:, 1], dreamt, obs[:, 3]], dim=1)
        second = of_steps(noise, slice(1, None))
        mask = torch.ones(2, 3, dtype=torch.bool)
        expected = denoiser.losses(replaced, actions[:, 1:], mask, second).total
        both = denoiser.losses(obs, actions, torch.ones(2, 4, dtype=torch.bool), noise).total
        alone = of_steps(noise, slice(1))
        one = denoiser.losses(obs[:, :3], actions[:, :3], mask, alone).total
        assert torch.allclose(both, (one + expected) / 2, rtol=1e-5)

    def test_a_share_of_the_segments_forgets_rewards(self) -> None:
        denoiser = Denoiser(replace(TINY_MEMORY, forget_share=0.25), 3, 4, SIZE)
        noise = denoiser.draw_noise(torch.zeros(4000, 3, 3, 2, 2))
        assert noise.forgets is not None
        assert noise.forgets.shape == (4000,)
        assert noise.forgets.float().mean() == pytest.approx(0.25, abs=0.03)

    @torch.no_grad()
    def test_what_is_forgotten_is_learned_as_if_it_had_not_been(self) -> None:
        denoiser = randomised(Denoiser(TINY_MEMORY, 3, 4, SIZE))
        obs, actions = random_frames(4, 3, 3, 16, 16), torch.randint(0, 4, (4, 3))
        mask, noise = torch.ones(4, 3, dtype=torch.bool), denoiser.draw_noise(obs)
        since = torch.tensor([[1, 2, 3]]).repeat(4, 1)
        forgets = torch.tensor([False, True, True, False])
        forgetting = replace(noise, forgets=forgets)

        def losses(noise: TrainingNoise, since: Tensor, share: Share = WHOLE) -> DenoiserLosses:
            mine = share.of(obs), share.of(actions), share.of(mask), noise.part(share)
            return denoiser.losses(*mine, mask, share.of(since))

        forgot = losses(forgetting, since)
        assert torch.equal(forgot.total, losses(noise, since * ~forgets[:, None]).total)
        assert not torch.equal(forgot.denoising, losses(noise, since).denoising)
        assert not torch.equal(forgot.choosing, losses(noise, since).choosing)
        one, other = (losses(forgetting, since, Share(rank, 2)).total for rank in (0, 1))
        assert torch.allclose(one + other, forgot.total, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": (8,)}, "channels, depths and attention"),
        ({"channels": (8, 12)}, "12"),
        ({"channels": (8, 100)}, "100"),
        ({"depths": (0, 1)}, "depths"),
        ({"fold": 3}, "fold"),
        ({"reward_memory": -1}, "reward_memory"),
        ({"choices": -1}, "choices"),
        ({"choices": 1}, "choices is 1; it must be 0, or at least 2"),
        ({"choices": 2, "choice_cost": -0.1}, "choice_cost is -0.1; it must be at least 0"),
        ({"choice_cost": 0.1}, "choice_cost is 0.1, and choices, whose it is, is 0"),
        ({"place_maps": -1}, "place_maps"),
        ({"reward_memory": 1}, "reward_memory is 1, and choices, whose it is, is 0"),
        ({"place_maps": 1}, "place_maps is 1, and choices, whose it is, is 0"),
        ({"target": "noise"}, "target"),
        ({"past": "noise"}, "past"),
        ({"past": "changes"}, "past"),
        ({"start_share": 1.5}, "start_share"),
        ({"choices": 2, "reward_memory": 1, "forget_share": 1.5}, "forget_share is 1.5; it must"),
        ({"choices": 2, "reward_memory": 1, "forget_share": -0.1}, "forget_share is -0.1; it"),
        ({"choices": 2, "forget_share": 0.1}, "forget_share is 0.1, and reward_memory"),
        ({"context_length": 0}, "context_length"),
        ({"context_length": 17}, "cond_channels"),
        ({"cond_channels": 15}, "cond_channels"),
        ({"sigma_data": 0.0}, "sigma_data"),
        ({"sigma_offset": -0.1}, "sigma_offset"),
        ({"log_sigma_std": -1.0}, "log_sigma_std"),
        ({"sigma_min": 30.0}, "sigma_min"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        replace(TINY, **change)
