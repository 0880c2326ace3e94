"""One level of an artifact for another runtime: gives exporters what they need, and checks what they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.cloud.export_module import BufferedDecoder, FunctionalDecoder
from edgesdk.cloud.families.blocks import Attention, Block, Mlp, ModelConfig
from edgesdk.cloud.reference import BlockWeights, Decoder
from edgesdk.cloud.tokenizer import ArtifactTokenizer, to_tokenizers
from edgesdk.cloud.workdir import as_tensor
from edgesdk.errors import UsageError
from edgesdk.formats import Artifact
from edgesdk.formats.exports import (
    DEFAULT_OPSET,
    Agreement,
    ExportRequest,
    compare,
    find_format,
    new_folder,
    open_level_model,
)
from edgesdk.formats.exports.natural import Floats, natural_block

__all__ = [
    "Exported",
    "export_level",
    "level_decoder",
    "level_texts",
    "level_tokenizer",
    "reference_logits",
]

CHECK_PROMPT = "The capital of France is"
CHECK_TEXT = """The lighthouse keeper wrote down the weather every morning. On the third of March there was fog until
noon, then a light wind from the west; two ships passed, and one of them answered the lamp. He cleaned the lens, counted
the oil that was left, 14 cans, and walked to the village for bread. "You are late," said the baker, "the boats are back
already." In the evening he read a book about stars and how far away they are."""

CHECK_TOKENS = 32  # that follow greedily

_DEFAULT_CONTEXT = 2048
_ABSENT = {"normalizer": "none", "space_prefix": "none", "unk_id": None}
_ABSENT_FLAGS = ("strip_leading_space", "byte_fallback", "fuse_unk", "ignore_merges", "add_bos")


@dataclass(frozen=True)
class Exported:
    """folder and its size; weights: how they are stored; remarks: what the format could not express, and the like

    agreement: None where the export was not run
    """

    folder: Path
    format: str
    weights: str
    level: int
    n_bytes: int
    remarks: tuple[str, ...]
    agreement: Agreement | None


def export_level(
    path: Path | str,
    level: int,
    to: str,
    out: Path,
    *,
    weights: str | None = None,
    context: int | None = None,
    dynamic: bool = True,
    opset: int = DEFAULT_OPSET,
    check: bool = False,
    check_text: Sequence[int] | None = None,
) -> Exported:
    """Writes a level of an artifact as a folder for another runtime; nothing is left where anything fails.

    to, weights: names of formats.exports.FORMATS; context: tokens of the cache (default: the model's, at most 2048)
    dynamic: any number of tokens at once, else one; opset: of ONNX
    check: runs it there, on check_text (tokens; default: a short text) and greedily behind a prompt
    Raises UsageError (unknown names, a level that does not exist, `out` exists, a model that exporters do not know),
    MissingExtraError, and EdgeError where files cannot be written or the runtime is not found.
    """
    artifact = Artifact.open(path)
    found, weights = find_format(to, weights)
    model = open_level_model(artifact, level)
    context = min(model.max_context, _DEFAULT_CONTEXT) if context is None else context
    if not 1 <= context <= model.max_context:
        raise UsageError(
            f"a context of {context} tokens", hint=f"this model takes 1 to {model.max_context}: give it with --context"
        )
    tokenizer = level_tokenizer(artifact)
    request = ExportRequest(
        model,
        weights,
        context,
        dynamic,
        opset,
        None if tokenizer is None else to_tokenizers(tokenizer).to_str(),
        None if tokenizer is None else tokenizer.chat_template,
        lambda fused: BufferedDecoder(model, context, fused=fused).eval(),
        lambda place: FunctionalDecoder(model, context, place=place).eval(),
    )
    if check:
        found.require_runtime()
    with new_folder(out) as folder:
        remarks = found.write(request, folder)
        agreement = None
        if check:
            text, prompt = _check_tokens(tokenizer, model.vocab_size, context)
            with torch.inference_mode():
                runtime = found.open_runtime(request, folder)
                reference = reference_logits(artifact, level)
                agreement = compare(
                    reference, runtime, text if check_text is None else check_text, prompt, CHECK_TOKENS
                )
        n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Exported(out, to, weights, level, n_bytes, tuple(remarks), agreement)


def reference_logits(artifact: Artifact, level: int) -> Any:
    """A function from tokens to the logits (n_tokens, vocab_size) of the dequantized level, in float32."""
    decoder = level_decoder(artifact, level)

    def logits(tokens: Sequence[int]) -> Floats:
        with torch.inference_mode():
            found: Floats = decoder.forward(torch.tensor([list(tokens)]))[0].numpy()
        return found

    return logits


def level_decoder(artifact: Artifact, level: int) -> Decoder:
    """A level as the reference decoder with dequantized weights: what the engine computes but for its integers.

    Raises UsageError for blocks that are neither attention nor MLP.
    """
    artifact.level(level)
    config = _config(artifact.edge["model"])

    @cache
    def load(index: int) -> BlockWeights:
        return {role: as_tensor(values) for role, values in natural_block(artifact, level, index).items()}

    embedding = as_tensor(artifact.weight("embed", level))
    head = embedding if config.tied_head else as_tensor(artifact.weight("head", level))
    return Decoder(config, embedding, as_tensor(artifact.vector("norm", level)), head, load)


def level_texts(path: Path | str, *texts: Sequence[int]) -> tuple[str, ...]:
    """What tokens say, each text on one line; the numbers themselves where the artifact has no tokenizer."""
    tokenizer = level_tokenizer(Artifact.open(path))
    if tokenizer is None:
        return tuple(" ".join(map(str, text)) for text in texts)
    decode = to_tokenizers(tokenizer).decode
    return tuple(json.dumps(decode(list(text), skip_special_tokens=False), ensure_ascii=False) for text in texts)


def level_tokenizer(artifact: Artifact) -> ArtifactTokenizer | None:
    """The tokenizer that the artifact holds, with what its header leaves out (SPEC.md section 7)."""
    header = artifact.edge.get("tokenizer")
    if header is None:
        return None
    absent = _ABSENT | dict.fromkeys(_ABSENT_FLAGS, False) | {"n_merges": 0, "chat": None, "bos_id": None}
    names = [name for name in artifact.tensors if name.startswith("tokenizer.") or name == "chat_template/0"]
    tensors = {name.removesuffix("/0"): np.asarray(artifact.tensor(name)) for name in names}
    return ArtifactTokenizer({**absent, **header}, tensors)


def _config(model: Mapping[str, Any]) -> ModelConfig:
    """The header's `model` as the reference decoder reads it; the weights bring their own sizes."""
    return ModelConfig(
        model["family"],
        model["name"],
        model["d_model"],
        model["vocab_size"],
        model["max_context"],
        model["norm_eps"],
        model["embedding_scale"],
        model["tied_head"],
        tuple(_block(block) for block in model["blocks"]),
        {},
        model.get("logit_softcap"),
    )


def _block(block: Mapping[str, Any]) -> Block:
    norms = {"norm": "", **({"post_norm": ""} if block.get("post_norm") else {})}
    if block["kind"] == "mlp":
        return Mlp(block["name"], block["axes"]["width"][0], block["activation"], norms, gated=block["gated"])
    if block["kind"] != "attention":
        raise UsageError(f"block `{block['name']}` is of kind {block['kind']}, expected attention or mlp")
    if block.get("qk_norm"):
        norms |= {"q_norm": "", "k_norm": ""}
    return Attention(
        block["name"],
        block["n_heads"],
        block["n_kv_heads"],
        block["axes"]["qk"][0],
        block["softmax_scale"],
        (),
        1.0,
        norms,
        window=block.get("window"),
        softcap=block.get("softcap"),
    )


def _check_tokens(tokenizer: ArtifactTokenizer | None, vocab_size: int, context: int) -> tuple[list[int], list[int]]:
    """Tokens of the text and of the prompt; random ones for a model without a tokenizer. They fit the context."""
    if tokenizer is None:
        text = np.random.default_rng(0).integers(0, vocab_size, 64).tolist()
        prompt = text[:6]
    else:
        encode = to_tokenizers(tokenizer).encode
        text, prompt = encode(CHECK_TEXT).ids, encode(CHECK_PROMPT).ids
    if len(prompt) + CHECK_TOKENS > context:
        raise UsageError(
            f"a context of {context} tokens is too short for the check",
            hint=f"give --context {2 * CHECK_TOKENS} or more",
        )
    return text[:context], prompt
