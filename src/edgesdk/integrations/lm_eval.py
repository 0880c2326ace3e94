"""An `.edge` artifact as a model of lm-eval (EleutherAI's evaluation harness), registered as `edgesdk`.

    python -m edgesdk.integrations.lm_eval run --model edgesdk --model_args path=model.edge,rate=0.25 --tasks arc_easy

or, in Python, `lm_eval.simple_evaluate(EdgeLM("model.edge", budget="80MB"), tasks=["arc_easy"])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgesdk
from edgesdk.device import Model, isa
from edgesdk.errors import MissingExtraError, UsageError
from edgesdk.formats import Artifact
from edgesdk.integrations.generation import GenerationSettings

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    raise MissingExtraError(
        f"the lm-eval adapter needs `{missing.name}`, which is not installed", hint="pip install 'edgesdk[lm-eval]'"
    ) from missing

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from numpy.typing import NDArray

__all__ = ["EdgeLM"]

TokenPair = tuple[Any, list[int], list[int]]
"""What lm-eval knows a request by (None: it is part of another), tokens of the context, tokens to score."""


@register_model("edgesdk")
class EdgeLM(TemplateLM):
    """One level of an artifact, scored through the engine, one request after the other.

    path: the artifact; level, rate, budget, threads, context: as in `edgesdk.load`
    batch_size, max_batch_size, device: lm-eval passes them to every model ("cuda:0" unless told otherwise); nothing
    follows from them: the engine computes on the CPU, with all its threads on one request
    """

    def __init__(
        self,
        path: str,
        *,
        level: int | None = None,
        rate: float | None = None,
        budget: int | str | None = None,
        threads: int | None = None,
        context: int | None = None,
        batch_size: int | str = 1,  # noqa: ARG002
        max_batch_size: int | None = None,  # noqa: ARG002
        device: str | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.model: Model = edgesdk.load(
            self.path, level=level, rate=rate, budget=budget, threads=threads, context=context
        )
        self._session = self.model.session()

    @cached_property
    def _tokenizer(self) -> dict[str, Any]:
        """Section 7 of the artifact's header."""
        return dict(self.model.metadata["tokenizer"])

    @property
    def max_length(self) -> int:
        """Tokens that fit the context."""
        return self.model.context

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text; the one that begins it where the tokenizer has no end."""
        found = [*(self._tokenizer.get("eos_ids") or []), self._tokenizer.get("bos_id")]
        token = next((token for token in found if token is not None), None)
        if token is None:
            raise UsageError(f"the tokenizer of `{self.path}` has no first and no last token")
        return int(token)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: the first token, or else the last."""
        bos = self._tokenizer.get("bos_id")
        return self.eot_token_id if bos is None else int(bos)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text in which special tokens may be written out, as a chat template does.

        add_special_tokens: whether the tokenizer may put its first token before; None: unless the text begins with it
        """
        tokens = self.model.tokenize(string, special=True, add_bos=add_special_tokens is not False)
        doubled = self._tokenizer.get("add_bos") and tokens[:2] == [self._tokenizer["bos_id"]] * 2
        return tokens[1:] if add_special_tokens is None and doubled else tokens

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenPair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Log probability of each continuation, and whether greedy decoding would produce it.

        Continuations of one token behind the same context share one pass. A context that is too long loses its
        beginning; one without tokens is the first token.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (name, context, continuation) in enumerate(requests):
            if not continuation:
                raise UsageError(f"nothing to score in request {name!r}: the continuation has no tokens")
            if len(continuation) > self.max_length:
                raise UsageError(
                    f"a continuation has {len(continuation)} tokens, the context holds {self.max_length}",
                    hint="give a larger `context`",
                )
            fed = ((context or [self.prefix_token_id]) + continuation)[:-1][-self.max_length :]
            groups.setdefault(tuple(fed), []).append(i)
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with tqdm(total=len(requests), desc="Scoring", disable=disable_tqdm) as bar:
            for tokens, members in groups.items():
                logits = self._session.logits(tokens)
                for i in members:
                    name, continuation = requests[i][0], requests[i][2]
                    results[i] = _score(logits[-len(continuation) :], continuation)
                    if name is not None:
                        self.cache_hook.add_partial("loglikelihood", name, results[i])
                bar.update(len(members))
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log probability of whole texts behind the first token; a text longer than the context is cut into windows.

        Every token is scored once; a window after the first begins with one token of the window before.
        """
        totals = []
        for request in tqdm(requests, desc="Scoring texts", disable=disable_tqdm):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            total = sum(score for score, _ in self._loglikelihood_tokens(pairs, disable_tqdm=True))
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continues each context until a stop text, an end token or the limit; the stop text is not returned.

        A context that leaves no room for the limit loses its beginning.
        """
        texts = []
        for request in tqdm(requests, desc="Generating", disable=disable_tqdm):
            context, arguments = request.args
            settings = GenerationSettings.parse(arguments)
            room = self.max_length - settings.max_tokens
            if room < 1:
                raise UsageError(
                    f"{settings.max_tokens} tokens to generate leave no room for a prompt in {self.max_length}",
                    hint="give a larger `context`, or a smaller max_gen_toks",
                )
            tokens = self.tok_encode(context)[-room:] or [self.prefix_token_id]
            pieces = self._session.pieces(tokens, settings.max_tokens, settings.sampling, settings.stops)
            texts.append("".join(pieces))
            self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        return texts

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text. Without a generation prompt, the last message is an answer to be continued."""
        if add_generation_prompt:
            return self.model.render(chat_history)
        return self.model.render(chat_history[:-1]) + chat_history[-1]["content"]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Source of the artifact's chat template, for lm-eval's log; empty when there is none, or none is used."""
        artifact = Artifact.open(self.path)
        if not chat_template or "chat_template/0" not in artifact.tensors:
            return ""
        return artifact.tensor("chat_template/0").tobytes().decode("utf-8", "replace")

    @property
    def tokenizer_name(self) -> str:
        """Names prompts in lm-eval's cache of requests: the artifact they were made for."""
        return f"edgesdk-{self.model.metadata['model']['name']}-{self.path.resolve()}"

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside the results."""
        level = self.model.levels[self.model.level]
        return {
            "edgesdk_version": edgesdk.__version__,
            "level": level.index,
            "rate": level.rate,
            "mapped_bytes": level.mapped_bytes,
            "context": self.model.context,
            "isa": isa(),
        }


def _score(logits: NDArray[np.float32], tokens: Sequence[int]) -> tuple[float, bool]:
    """Sum of the tokens' log probabilities, and whether each is the likeliest: logits (n_tokens, vocab_size)."""
    peak = logits.max(-1)
    normalizer = peak + np.log(np.exp(logits - peak[:, None]).sum(-1, dtype=np.float64))
    chosen = logits[np.arange(len(tokens)), tokens]
    return float((chosen - normalizer).sum()), bool((logits.argmax(-1) == np.asarray(tokens)).all())


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
