"""Rotary frequencies: what a configuration's scaling method makes of `theta`, one frequency per pair of a head.

Sources: RoPE (Su et al. 2021), position interpolation (Chen et al. 2023), YaRN (Peng et al. 2023), Llama 3.1's code.
Computed in torch float32 in the order that transformers uses, so that the reference agrees with it to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from edgesdk.errors import ModelError

__all__ = ["rope_frequencies"]

_DEFAULT_THETA = 10000.0
_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # rotations over the original context: above fast keep, below slow interpolate
_OWN_CONTEXT = ("llama3", "yarn")


def rope_frequencies(config: Mapping[str, Any], rotary_dim: int) -> tuple[tuple[float, ...], float]:
    """Inverse frequencies, (rotary_dim / 2,) in radians per token, and the factor on cos and sin (1 except for yarn).

    config: a Hugging Face configuration, with `rope_theta` and `rope_scaling` or with `rope_parameters`.
    Raises ModelError for a method that is not known or depends on the length of the text, and for missing parameters.
    """
    parameters = _parameters(config)
    kind = parameters["rope_type"]
    positions = torch.arange(0, rotary_dim, 2, dtype=torch.int64).to(torch.float32)
    powers = _number(parameters, "rope_theta") ** (positions / rotary_dim)
    inv_freq, rotary_scale = 1.0 / powers, 1.0
    if kind == "linear":
        inv_freq = inv_freq / _number(parameters, "factor")
    elif kind == "llama3":
        inv_freq = _llama3(inv_freq, parameters)
    elif kind == "yarn":
        inv_freq, rotary_scale = _yarn(powers, parameters)
    elif kind == "factors":
        inv_freq = inv_freq / _factors(parameters, rotary_dim // 2)
    elif kind in ("dynamic", "longrope", "su"):
        raise ModelError(
            f"rotary scaling `{kind}` changes with the length of the text, but an artifact has fixed frequencies",
            hint="remove `rope_scaling` from config.json to compile the model for its original context",
        )
    elif kind != "default":
        raise ModelError(f"rotary scaling `{kind}` is not known, expected default, linear, llama3 or yarn")
    return tuple(inv_freq.tolist()), rotary_scale


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """One flat mapping from the older fields (rope_theta, rope_scaling) or the newer one (rope_parameters)."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping) or any(isinstance(value, Mapping) for value in found.values()):
        raise ModelError("`rope_parameters` is not one set of rotary parameters for all layers")
    parameters = {key: value for key, value in found.items() if value is not None}
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    parameters.setdefault("rope_theta", config.get("rope_theta") or _DEFAULT_THETA)
    if parameters["rope_type"] in _OWN_CONTEXT:
        parameters.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
        if own := config.get("original_max_position_embeddings"):
            parameters["original_max_position_embeddings"] = own
    if parameters["rope_type"] == "yarn" and "factor" not in parameters:
        original = _number(parameters, "original_max_position_embeddings")
        parameters["factor"] = _number(config, "max_position_embeddings") / original
    return parameters


def _llama3(inv_freq: torch.Tensor, parameters: Mapping[str, Any]) -> torch.Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between blended by how often they turn."""
    factor = _number(parameters, "factor")
    low, high = _number(parameters, "low_freq_factor"), _number(parameters, "high_freq_factor")
    if low == high:
        raise ModelError(f"llama3 rotary scaling: low_freq_factor and high_freq_factor are both {low:g}")
    context = _number(parameters, "original_max_position_embeddings")
    wavelength = 2 * math.pi / inv_freq
    slowed = torch.where(wavelength > context / low, inv_freq / factor, inv_freq)
    smooth = (context / wavelength - low) / (high - low)
    blended = (1 - smooth) * slowed / factor + smooth * slowed
    between = ~(wavelength < context / high) & ~(wavelength > context / low)
    return torch.where(between, blended, slowed)


def _yarn(powers: torch.Tensor, parameters: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    """powers: (pairs,) theta^(2i/d). Fast pairs keep their frequency, slow ones are interpolated, between is a ramp."""
    factor, theta = _number(parameters, "factor"), _number(parameters, "rope_theta")
    context = _number(parameters, "original_max_position_embeddings")
    dim = 2 * len(powers)

    def pair_turning(rotations: float) -> float:
        """Index of the pair that turns so often over the original context."""
        return (dim * math.log(context / (rotations * 2 * math.pi))) / (2 * math.log(theta))

    first = pair_turning(_optional(parameters, "beta_fast", _BETA_FAST))
    last = pair_turning(_optional(parameters, "beta_slow", _BETA_SLOW))
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    width = (last - first) or 0.001
    ramp = torch.clamp((torch.arange(len(powers), dtype=torch.float32) - first) / width, 0, 1)
    kept = 1 - ramp
    inv_freq = 1.0 / (factor * powers) * (1 - kept) + 1.0 / powers * kept
    return inv_freq, _yarn_scale(factor, parameters)


def _yarn_scale(factor: float, parameters: Mapping[str, Any]) -> float:
    """Factor on cos and sin: given, or 0.1 ln(factor) + 1, or the quotient of the two `mscale` forms of that."""
    if "attention_factor" in parameters:
        return _number(parameters, "attention_factor")

    def scale(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return scale(_number(parameters, "mscale")) / scale(_number(parameters, "mscale_all_dim"))
    return scale(1.0)


def _factors(parameters: Mapping[str, Any], pairs: int) -> torch.Tensor:
    """Divisors read from a GGUF file (a type of our own: `rope_type` `factors`)."""
    factors = parameters.get("factors")
    if not isinstance(factors, list) or len(factors) != pairs or not all(f > 0 for f in factors):
        found = len(factors) if isinstance(factors, list) else 0
        raise ModelError(f"rotary scaling has {found} factors, expected {pairs} positive ones (half of the head size)")
    return torch.tensor(factors, dtype=torch.float32)


def _optional(parameters: Mapping[str, Any], name: str, default: float) -> float:
    return _number(parameters, name) if parameters.get(name) else default


def _number(parameters: Mapping[str, Any], name: str) -> float:
    value = parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ModelError(f"rotary parameter `{name}` is {value!r}, expected a positive number")
    return float(value)
