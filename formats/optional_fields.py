"""The fields that format 2 added to a model and its blocks (SPEC.md 3): what they hold, and which files need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesdk.errors import ArtifactError

__all__ = ["ACTIVATIONS", "check_optional_fields", "needs_format_2"]

ACTIVATIONS = ("silu", "gelu_tanh")
"""Of gated MLPs."""
_MODEL = (
    *("family", "name", "d_model", "vocab_size", "max_context", "norm_eps"),
    *("embedding_scale", "tied_head", "blocks", "logit_softcap"),
)
_BLOCK = ("name", "kind", "axes", "row_bias", "post_norm")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "attention": (*_BLOCK, "n_heads", "n_kv_heads", "softmax_scale", "window", "softcap", "qk_norm"),
    "mlp": (*_BLOCK, "activation", "gated"),
    "ssm": (*_BLOCK[:4], "n_heads", "n_groups", "norm_groups", "conv_kernel", "step_limits"),
}
_ADDED = ("post_norm", "window", "softcap", "qk_norm")


def needs_format_2(model: Mapping[str, Any]) -> bool:
    """Whether the header's `model` holds what a reader of format 1 would overlook."""
    return "logit_softcap" in model or any(
        any(name in block for name in _ADDED) or block.get("activation") == "gelu_tanh"
        for block in model.get("blocks", [])
    )


def check_optional_fields(model: Mapping[str, Any], major: int) -> None:
    """Checks a model whose blocks are known to be objects of known kinds; raises ArtifactError."""
    if major < 2 and needs_format_2(model):
        raise ArtifactError("`model` has fields of format 2 in a file of format 1 (rule 1.7)")
    if major >= 2:
        _refuse_unknown(model, _MODEL, "model")
    _check_positive(model, "logit_softcap", "model")
    for i, block in enumerate(model["blocks"]):
        where = f"model.blocks[{i}]"
        if major >= 2:
            _refuse_unknown(block, _FIELDS[block["kind"]], where)
        for name in ("post_norm", "qk_norm"):
            if not isinstance(block.get(name, False), bool):
                raise ArtifactError(f"{where}.{name} is {block[name]!r}, expected true or false (rule 3)")
        _check_positive(block, "softcap", where)
        window = block.get("window", 1)
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window < 1 << 30:
            raise ArtifactError(f"{where}.window is {window!r}, expected a number of tokens (rule 3)")
        if block.get("qk_norm") and block["axes"]["qk"][0] != block["axes"]["qk"][1]:
            raise ArtifactError(f"{where} has qk_norm and axes.qk {block['axes']['qk']}, expected one quantum (rule 3)")


def _refuse_unknown(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [name for name in entry if name not in known]
    if unknown:
        raise ArtifactError(f"{where} has the unknown field {unknown[0]!r} (rule 1.7)", hint="update edgesdk")


def _check_positive(entry: Mapping[str, Any], name: str, where: str) -> None:
    value = entry.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 <= value <= 1e6:
        raise ArtifactError(f"{where}.{name} is {value!r}, expected a number from 1e-6 to 1e6 (rule 3)")
