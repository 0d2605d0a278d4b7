"""Weights of the published DIAMOND agents, into these modules and back.

The published code: Alonso et al., "Diffusion for World Modeling: Visual Details Matter in
Atari", NeurIPS 2024. Its keys are those of `agent.state_dict()`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from dreamenv.errors import ConfigError, FormatError
from dreamenv.models.actor_critic import ActorCritic
from dreamenv.models.denoiser import Denoiser
from dreamenv.models.denoiser_config import DenoiserConfig
from dreamenv.models.reward_end import RewardEndConfig, RewardEndModel
from dreamenv.models.weights import check_shapes

_DENOISER, _REWARD_END, _ACTOR_CRITIC = "denoiser.", "rew_end_model.", "actor_critic."

# Attribute paths here, and what the published keys have in their place.
_BLOCK = {
    ".skip.": ".proj.",
    ".attention.norm.": ".attn.norm.norm.",
    ".attention.qkv.": ".attn.qkv_proj.",
    ".attention.out.": ".attn.out_proj.",
}


def load_diamond_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    denoiser: Denoiser | None = None,
    reward_end: RewardEndModel | None = None,
    actor_critic: ActorCritic | None = None,
) -> None:
    """Loads the weights of a published DIAMOND agent into the networks given.

    Args:
        state_dict: With the published keys, such as `denoiser.inner_model.conv_in.weight`.
            The parts of networks that are not given are left out.
        denoiser: Filled from `denoiser.*`.
        reward_end: Filled from `rew_end_model.*`.
        actor_critic: Filled from `actor_critic.*`.

    Raises:
        FormatError: A key is missing, unknown, or of another shape. No network was changed.
        ConfigError: A network has a setting that the published code has not.
    """
    networks = _named(denoiser, reward_end, actor_critic)
    parts = {prefix: _part(state_dict, prefix, network) for prefix, network in networks.items()}
    for prefix, network in networks.items():
        network.load_state_dict(parts[prefix])


def diamond_state_dict(
    *,
    denoiser: Denoiser | None = None,
    reward_end: RewardEndModel | None = None,
    actor_critic: ActorCritic | None = None,
) -> dict[str, Tensor]:
    """Returns the weights of the networks given under their published DIAMOND keys.

    Raises:
        ConfigError: A network has a setting that the published code has not.
    """
    return {
        prefix + published: network.state_dict()[own]
        for prefix, network in _named(denoiser, reward_end, actor_critic).items()
        for own, published in _published_keys(network).items()
    }


def _named(
    denoiser: Denoiser | None, reward_end: RewardEndModel | None, actor_critic: ActorCritic | None
) -> dict[str, nn.Module]:
    networks = {_DENOISER: denoiser, _REWARD_END: reward_end, _ACTOR_CRITIC: actor_critic}
    return {prefix: network for prefix, network in networks.items() if network is not None}


def _part(state_dict: Mapping[str, Tensor], prefix: str, network: nn.Module) -> dict[str, Tensor]:
    """Picks a network's part of the published weights, under the network's own keys."""
    if not any(key.startswith(prefix) for key in state_dict):
        raise FormatError(
            f"the weights have no key that begins with {prefix!r}; it is no DIAMOND agent"
        )
    published = _published_keys(network)
    found = {key.removeprefix(prefix): t for key, t in state_dict.items() if key.startswith(prefix)}
    check_shapes(
        f"the DIAMOND agent's {prefix}*",
        {key: tuple(tensor.shape) for key, tensor in found.items()},
        {published[own]: tuple(t.shape) for own, t in network.state_dict().items()},
    )
    return {own: found[key] for own, key in published.items()}


def _published_keys(network: nn.Module) -> dict[str, str]:
    """Maps the keys of a network's weights to the published ones, without their prefix."""
    if isinstance(network, Denoiser):
        renames = _denoiser_renames(network)
    elif isinstance(network, RewardEndModel):
        renames = _reward_end_renames(network)
    elif isinstance(network, ActorCritic):
        renames = _actor_critic_renames(network)
    else:
        raise TypeError(f"{type(network).__name__} has no published counterpart")
    return {key: _rename(key, renames) for key in network.state_dict()}


def _rename(key: str, renames: Mapping[str, str]) -> str:
    for own, published in renames.items():
        key = key.replace(own, published)
    return key


def _denoiser_renames(denoiser: Denoiser) -> dict[str, str]:
    names = "fold", "target", "past", "norm", "middle_attention", "choices"
    _check_published(denoiser.config, names)
    levels = range(len(denoiser.config.channels))
    return {
        "network.": "inner_model.",
        "noise_embedding.frequencies": "noise_emb.weight",
        "action_embedding.table.": "act_emb.0.",
        "condition.": "cond_proj.",
        "norm_out.": "norm_out.norm.",
        "unet.down.middle.": "unet.mid_blocks.resblocks.",
        **{f"unet.down.levels.{i}.": f"unet.d_blocks.{i}.resblocks." for i in levels},
        **{f"unet.up.levels.{i}.": f"unet.u_blocks.{i}.resblocks." for i in levels},
        **{f"unet.down.shrink.{i}.": f"unet.downsamples.{i}.conv." for i in levels},
        "unet.up.grow.": "unet.upsamples.",
        **_BLOCK,
    }


def _reward_end_renames(reward_end: RewardEndModel) -> dict[str, str]:
    _check_published(reward_end.config, ("fold", "next_obs"))
    levels = range(len(reward_end.config.channels))
    return {
        "action_embedding.table.": "act_emb.",
        "conv_in.": "encoder.conv_in.",
        "down.middle.": f"encoder.blocks.{len(levels)}.resblocks.",
        **{f"down.levels.{i}.": f"encoder.blocks.{i}.resblocks." for i in levels},
        **{f"down.shrink.{i}.": f"encoder.downsamples.{i}.conv." for i in levels},
        **_BLOCK,
    }


def _actor_critic_renames(actor_critic: ActorCritic) -> dict[str, str]:
    renames = {"conv_in.": "encoder.encoder.0.", "value.": "critic_linear."}
    renames["policy."] = "actor_linear."
    place = 1
    for index, pools in enumerate(actor_critic.config.downsample):
        block = f"encoder.encoder.{place}"
        renames[f"blocks.{index}.skip."] = f"{block}.skip_projection."
        renames[f"blocks.{index}.norm."] = f"{block}.f.0.norm."
        renames[f"blocks.{index}.conv."] = f"{block}.f.2."
        # The published encoder is one sequence in which a pooling has a place of its own.
        place += 2 if pools else 1
    return renames


def _check_published(config: DenoiserConfig | RewardEndConfig, names: tuple[str, ...]) -> None:
    published = type(config)()
    for name in names:
        given, only = getattr(config, name), getattr(published, name)
        if given != only:
            raise ConfigError(
                f"{name} {given!r} has no counterpart in the published DIAMOND code; use {only!r}"
            )
