"""The neutralised source: the demo model as an F32 GGUF whose old 4-bit grid helps nobody.

    python benchmarks/neutral.py build/neutral/smollm2.gguf

The weights in `smollm2` lie on a 4-bit grid (groups of 32 along the input axis), so a quantizer that meets that grid by
luck would look perfect. Here residual channels, MLP channels and the value dims inside each KV head are permuted at
random: the function is the same, the groups are not. Norm gains are permuted, never folded.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from edgesdk.cloud.checkpoint import open_checkpoint

__all__ = ["write_neutral"]


def write_neutral(source: Path, out: Path, seed: int = 0) -> Path:
    """Writes the permuted model with the source's own metadata and tokenizer; an existing file is kept."""
    if out.exists():
        return out
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    if architecture != "llama":
        raise SystemExit(f"error: {source} is a {architecture} model, expected llama")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".partial")
    writer = gguf.GGUFWriter(temporary, architecture)
    _copy_metadata(reader, writer)
    rng = np.random.default_rng(seed)
    layout = _Layout(reader, rng)
    for tensor in reader.tensors:
        values = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        writer.add_tensor(tensor.name, layout.permuted(tensor.name, values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, out)
    return out


class _Layout:
    """Random permutations, one for the residual stream and some for every layer."""

    def __init__(self, reader: Any, rng: np.random.Generator) -> None:
        fields = reader.fields
        self._heads = int(fields["llama.attention.head_count"].contents())
        self._kv_heads = int(fields["llama.attention.head_count_kv"].contents())
        d_model = int(fields["llama.embedding_length"].contents())
        width = int(fields["llama.feed_forward_length"].contents())
        layers = int(fields["llama.block_count"].contents())
        size = d_model // self._heads
        self._residual = rng.permutation(d_model)
        self._channels = [rng.permutation(width) for _ in range(layers)]
        self._values = [np.stack([rng.permutation(size) for _ in range(self._kv_heads)]) for _ in range(layers)]

    def permuted(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """values: (rows, columns) or (d_model,), as the GGUF file names them."""
        role = name.split(".")[-2]
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        rows: NDArray[np.int64] | None = None
        columns: NDArray[np.int64] | None = self._residual
        if role in ("ffn_gate", "ffn_up"):
            rows = self._channels[layer]
        elif role == "ffn_down":
            rows, columns = self._residual, self._channels[layer]
        elif role == "attn_v":
            rows = self._flat(self._values[layer])
        elif role == "attn_output":
            rows = self._residual
            columns = self._flat(np.repeat(self._values[layer], self._heads // self._kv_heads, axis=0))
        if values.ndim == 1:
            return np.ascontiguousarray(values[self._residual])
        return np.ascontiguousarray((values if rows is None else values[rows])[:, columns])

    @staticmethod
    def _flat(orders: NDArray[np.int64]) -> NDArray[np.int64]:
        heads, size = orders.shape
        return (orders + size * np.arange(heads)[:, None]).reshape(-1)


def _copy_metadata(reader: Any, writer: gguf.GGUFWriter) -> None:
    skipped = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in reader.fields.items():
        if name in skipped or name.startswith("GGUF."):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=element)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def main() -> None:
    """Writes the file that is named."""
    parser = argparse.ArgumentParser(description="write the neutralised demo model as an F32 GGUF")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_neutral(open_checkpoint("smollm2").source.path, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
