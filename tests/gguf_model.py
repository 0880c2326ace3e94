"""What llama.cpp computes of a GGUF file, in NumPy: its graphs `llama` and `deci`, from its own names and keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, quants
from numpy.typing import NDArray


class GgufModel:
    """Rows of q and k stand as pairs (2 j, 2 j + 1); sizes are lists where layers differ."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = self.fields["general.architecture"]
        self.tensors = {t.name: quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.types = {t.name: t.tensor_type.name for t in reader.tensors}
        self.n_layers = self.key("block_count")

    def key(self, name: str) -> Any:
        return self.fields[f"{self.architecture}.{name}"]

    def of_layer(self, name: str, layer: int) -> int:
        value = self.key(name)
        return int(value[layer] if isinstance(value, list) else value)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        x = self.tensors["token_embd.weight"][list(tokens)]
        for layer in range(self.n_layers):
            x = x + self._attention(layer, self._norm(x, f"blk.{layer}.attn_norm"))
            x = x + self._mlp(layer, self._norm(x, f"blk.{layer}.ffn_norm"))
        head = self.tensors.get("output.weight", self.tensors["token_embd.weight"])
        return self._norm(x, "output_norm") @ head.T

    def _norm(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        eps = self.key("attention.layer_norm_rms_epsilon")
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * self.tensors[f"{name}.weight"]

    def _linear(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        weight = self.tensors[f"{name}.weight"]
        return x @ weight.T + self.tensors.get(f"{name}.bias", np.zeros(len(weight), np.float32))

    def _mlp(self, layer: int, x: NDArray[Any]) -> NDArray[Any]:
        gate = self._linear(x, f"blk.{layer}.ffn_gate")
        assert gate.shape[-1] == self.of_layer("feed_forward_length", layer)
        hidden = gate / (1 + np.exp(-gate)) * self._linear(x, f"blk.{layer}.ffn_up")
        return self._linear(hidden, f"blk.{layer}.ffn_down")

    def _attention(self, layer: int, x: NDArray[Any]) -> NDArray[Any]:
        heads, kv_heads = self.of_layer("attention.head_count", layer), self.of_layer("attention.head_count_kv", layer)
        size = self.key("attention.key_length")
        assert size == self.key("attention.value_length") == self.key("rope.dimension_count")
        q = self._rotated(self._linear(x, f"blk.{layer}.attn_q").reshape(len(x), heads, size))
        k = self._rotated(self._linear(x, f"blk.{layer}.attn_k").reshape(len(x), kv_heads, size))
        v = self._linear(x, f"blk.{layer}.attn_v").reshape(len(x), kv_heads, size)
        k, v = (np.repeat(one, heads // kv_heads, axis=1) for one in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(size)
        scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        z = np.einsum("hts,shd->thd", shares / shares.sum(-1, keepdims=True), v)
        return self._linear(z.reshape(len(x), -1), f"blk.{layer}.attn_output")

    def _rotated(self, x: NDArray[Any]) -> NDArray[Any]:
        """x: (tokens, heads, size)"""
        size = x.shape[-1]
        frequencies = self.key("rope.freq_base") ** (-np.arange(0, size, 2) / size)
        frequencies = frequencies / self.tensors.get("rope_freqs.weight", np.ones(size // 2, np.float32))
        angle = np.arange(len(x))[:, None, None] * frequencies
        first, second = x[..., ::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., ::2] = first * np.cos(angle) - second * np.sin(angle)
        out[..., 1::2] = second * np.cos(angle) + first * np.sin(angle)
        return out
