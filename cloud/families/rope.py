"""Rotary frequencies: what a configuration's scaling method makes of `theta`, one frequency per pair of a head.

Sources: RoPE (Su et al. 2021), position interpolation (Chen et al. 2023), YaRN (Peng et al. 2023), Llama 3.1's code;
the names of the parameters, and what they default to, are those of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgesdk.cloud.families.fields import MAX_HEAD
from edgesdk.errors import ModelError

__all__ = ["rope_frequencies"]

_DEFAULT_THETA = 10000.0
_BETA_FAST, _BETA_SLOW = (
    32.0,
    1.0,
)  # rotations over the original context: faster pairs are kept, slower ones interpolated
_NEEDS_CONTEXT = ("llama3", "yarn")


def rope_frequencies(config: Mapping[str, Any], rotary_dim: int) -> tuple[tuple[float, ...], float]:
    """Inverse frequencies, (rotary_dim / 2,) in radians per token, and the factor on cos and sin (1 except for yarn).

    config: a Hugging Face configuration, with `rope_theta` and `rope_scaling` or with `rope_parameters`.
    Raises ModelError for a method that is not known or depends on the length of the text, and for missing parameters.
    """
    if rotary_dim > MAX_HEAD:
        raise ModelError(f"{rotary_dim} elements of a head are rotated, expected at most {MAX_HEAD}")
    parameters = _parameters(config)
    kind = parameters["rope_type"]
    if (theta := _number(parameters, "rope_theta")) <= 1:
        raise ModelError(f"rope_theta is {theta:g}, expected more than 1")
    plain = [theta ** (-2 * pair / rotary_dim) for pair in range(rotary_dim // 2)]
    if kind == "default":
        return tuple(plain), 1.0
    if kind == "linear":
        factor = _number(parameters, "factor")
        return tuple(frequency / factor for frequency in plain), 1.0
    if kind == "llama3":
        return _llama3(plain, parameters), 1.0
    if kind == "yarn":
        return _yarn(plain, theta, parameters), _yarn_scale(parameters)
    if kind == "factors":
        return _divided(plain, parameters), 1.0
    if kind in ("dynamic", "longrope", "su"):
        raise ModelError(
            f"rotary scaling `{kind}` changes with the length of the text, but an artifact has fixed frequencies",
            hint="remove the scaling from config.json to compile the model for its original context",
        )
    raise ModelError(f"rotary scaling `{kind}` is not known, expected default, linear, llama3 or yarn")


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """One flat mapping from the older fields (rope_theta, rope_scaling) or the newer one (rope_parameters)."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(found, Mapping) or any(isinstance(value, Mapping) for value in found.values()):
        raise ModelError("`rope_parameters` is not one set of rotary parameters for all layers")
    parameters = {key: value for key, value in found.items() if value is not None}
    parameters.setdefault("rope_type", parameters.get("type", "default"))
    parameters.setdefault("rope_theta", config.get("rope_theta") or _DEFAULT_THETA)
    if parameters["rope_type"] in _NEEDS_CONTEXT:
        parameters.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
        if own := config.get("original_max_position_embeddings"):
            parameters["original_max_position_embeddings"] = own
    if parameters["rope_type"] == "yarn" and "factor" not in parameters:
        original = _number(parameters, "original_max_position_embeddings")
        parameters["factor"] = _number(config, "max_position_embeddings") / original
    return parameters


def _llama3(plain: Sequence[float], parameters: Mapping[str, Any]) -> tuple[float, ...]:
    """Slow pairs are divided by `factor`, fast ones kept, those between blended by how often they turn."""
    factor = _number(parameters, "factor")
    low, high = _number(parameters, "low_freq_factor"), _number(parameters, "high_freq_factor")
    if low >= high:
        raise ModelError(f"llama3 rotary scaling: low_freq_factor {low:g} is not below high_freq_factor {high:g}")
    context = _number(parameters, "original_max_position_embeddings")

    def scaled(frequency: float) -> float:
        turns = context * frequency / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return (1 - kept) * frequency / factor + kept * frequency

    return tuple(map(scaled, plain))


def _yarn(plain: Sequence[float], theta: float, parameters: Mapping[str, Any]) -> tuple[float, ...]:
    """Fast pairs keep their frequency, slow ones are divided by `factor`, between them lies a linear ramp."""
    factor = _number(parameters, "factor")
    context = _number(parameters, "original_max_position_embeddings")
    dim = 2 * len(plain)

    def pair_turning(rotations: float) -> float:
        """The (fractional) pair that turns so often over the original context."""
        return dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first = pair_turning(_optional(parameters, "beta_fast", _BETA_FAST))
    last = pair_turning(_optional(parameters, "beta_slow", _BETA_SLOW))
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    width = (last - first) or 0.001

    def scaled(pair: int, frequency: float) -> float:
        interpolated = min(max((pair - first) / width, 0.0), 1.0)
        return interpolated * frequency / factor + (1 - interpolated) * frequency

    return tuple(scaled(pair, frequency) for pair, frequency in enumerate(plain))


def _yarn_scale(parameters: Mapping[str, Any]) -> float:
    """Factor on cos and sin: given, or 0.1 ln(factor) + 1, or the quotient of the two `mscale` forms of that."""
    if "attention_factor" in parameters:
        return _number(parameters, "attention_factor")
    factor = _number(parameters, "factor")

    def scale(mscale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return scale(_number(parameters, "mscale")) / scale(_number(parameters, "mscale_all_dim"))
    return scale(1.0)


def _divided(plain: Sequence[float], parameters: Mapping[str, Any]) -> tuple[float, ...]:
    """Divisors that were read from a GGUF file (a type of our own: `rope_type` `factors`)."""
    factors = parameters.get("factors")
    if not isinstance(factors, list) or len(factors) != len(plain) or not all(f > 0 for f in factors):
        found = len(factors) if isinstance(factors, list) else 0
        raise ModelError(
            f"rotary scaling has {found} factors, expected {len(plain)} positive ones: half of the head size"
        )
    return tuple(frequency / factor for frequency, factor in zip(plain, factors, strict=True))


def _optional(parameters: Mapping[str, Any], name: str, default: float) -> float:
    return _number(parameters, name) if parameters.get(name) else default


def _number(parameters: Mapping[str, Any], name: str) -> float:
    value = parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ModelError(f"rotary parameter `{name}` is {value!r}, expected a positive number")
    return float(value)
