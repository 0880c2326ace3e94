"""A level's blocks with dequantized weights in the natural order of heads and pairs, as other runtimes keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import UsageError
from edgesdk.formats.axes import frequency_order, head_order
from edgesdk.formats.reader import Artifact

__all__ = ["Floats", "natural_block"]

Floats = NDArray[np.float32]

_NORMS = ("norm", "post_norm", "q_norm", "k_norm")
_ROWS = {"attention": {"q": "n_heads", "k": "n_kv_heads", "v": "n_kv_heads"}, "mlp": {"gate": "", "up": ""}}
_COLUMNS = {"attention": "o", "mlp": "down"}


def natural_block(artifact: Artifact, level: int, index: int) -> dict[str, Floats]:
    """The tensors of one attention or MLP at a level, float32; sizes are those that the level keeps.

    attention: q (n_heads, qk, d_model), k and v (n_kv_heads, size, d_model), o (d_model, n_heads, vo) and inv_freq
    (n_kv_heads, qk / 2), with RoPE halves at j and j + qk / 2; mlp: gate, up (width, d_model), down (d_model, width)
    norm, post_norm, bias (d_model,), q_norm, k_norm (qk,); q_bias .. up_bias like their weights without d_model; all
    these only where the block has them, and of a block that is dropped no post_norm: its bias is added as it is
    Raises UsageError for blocks of another kind.
    """
    block = artifact.edge["model"]["blocks"][index]
    kind, name = str(block["kind"]), str(block["name"])
    if kind not in _ROWS:
        raise UsageError(f"block `{name}` is of kind {kind}, expected attention or mlp")
    kept = dict(
        zip(("qk", "vo") if kind == "attention" else ("width",), artifact.levels[level].allocation[index], strict=True)
    )

    def vector(role: str) -> Floats:
        return artifact.vector(f"{name}.{role}", level)

    dropped = 0 in kept.values()
    out = {role: vector(role) for role in _NORMS if not (role == "post_norm" and dropped)}
    for role, heads in _ROWS[kind].items():
        if role == "gate" and not block["gated"]:
            continue
        order = _order(block, kept, role, heads)
        out[role] = _placed(artifact.weight(f"{name}.{role}", level), order, artifact.edge["model"]["d_model"])
        if len(row_bias := vector(f"{role}.bias")):
            out[f"{role}_bias"] = _placed(row_bias, order)
        if heads:
            for one in {role, f"{role}_bias"} & out.keys():
                out[one] = out[one].reshape(block[heads], -1, *out[one].shape[1:])
    last = _COLUMNS[kind]
    order = _order(block, kept, last, "n_heads" if last == "o" else "")
    columns = artifact.weight(f"{name}.{last}", level)
    out[last] = _placed(columns.T, order, artifact.edge["model"]["d_model"]).T
    if kind == "attention":
        out["o"] = out["o"].reshape(len(out["o"]), block["n_heads"], kept["vo"])
        places = frequency_order(block["n_kv_heads"], kept["qk"], block["axes"]["qk"][1])
        out["inv_freq"] = _placed(vector("inv_freq"), places).reshape(block["n_kv_heads"], kept["qk"] // 2)
    out["bias"] = vector("bias")
    return {role: np.ascontiguousarray(values) for role, values in out.items() if values.size or values.ndim > 1}


def _order(block: Mapping[str, Any], kept: Mapping[str, int], role: str, heads: str) -> NDArray[np.int64]:
    """Where in the natural order each stored row (of `o` and `down`: column) stands."""
    if not heads:
        return np.arange(kept["width"])
    axis = "qk" if role in ("q", "k") else "vo"
    return head_order(block[heads], kept[axis], block["axes"][axis][1], paired=axis == "qk")


def _placed(stored: Floats, order: NDArray[np.int64], *columns: int) -> Floats:
    """The rows, brought to their places; a weight of which a level keeps nothing has no rows."""
    out = np.zeros((len(order), *columns), np.float32)
    if out.size:
        out[order] = stored
    return out
