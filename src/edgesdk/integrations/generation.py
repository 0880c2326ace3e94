"""lm-eval's `generation_kwargs` in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.device.session import Sampling
from edgesdk.errors import UsageError

__all__ = ["GenerationSettings"]

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the first that is given counts
_NEUTRAL = {"num_beams": 1}  # arguments that mean nothing here at this value, and are refused at any other
_DEFAULT_MAX_TOKENS = 256  # as lm-eval's own models


@dataclass(frozen=True)
class GenerationSettings:
    """max_tokens to generate at most; stops: texts before which it ends."""

    max_tokens: int
    stops: tuple[str, ...]
    sampling: Sampling

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> GenerationSettings:
        """Raises UsageError for an argument that would be ignored. Greedy unless a temperature is given.

        >>> GenerationSettings.parse({"until": "\\n", "max_gen_toks": 5}).max_tokens
        5
        """
        given = dict(arguments)
        limits = [given.pop(name, None) for name in _LIMITS]
        until = given.pop("until", None) or []
        stops = [until] if isinstance(until, str) else list(until)
        do_sample = given.pop("do_sample", None)
        temperature = given.pop("temperature", 1.0 if do_sample else 0.0)
        sampling = Sampling(
            temperature=0.0 if do_sample is False else float(temperature),
            top_k=given.pop("top_k", 0),
            top_p=given.pop("top_p", 1.0),
            min_p=given.pop("min_p", 0.0),
            repetition_penalty=given.pop("repetition_penalty", 1.0),
            seed=given.pop("seed", 0),
        )
        unknown = sorted(name for name, value in given.items() if _NEUTRAL.get(name) != value)
        if unknown:
            raise UsageError(
                f"the engine has no generation argument {', '.join(f'`{name}`' for name in unknown)}",
                hint="take it out of the task's generation_kwargs",
            )
        max_tokens = next((limit for limit in limits if limit is not None), _DEFAULT_MAX_TOKENS)
        return cls(int(max_tokens), tuple(stop for stop in stops if stop), sampling)
