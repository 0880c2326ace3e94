"""Calibration: token windows, and one pass of them through the source model, block by block, that collects moments."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgesdk.cloud.config import CalibrateConfig
from edgesdk.cloud.moments import Moments, MomentsAccumulator
from edgesdk.cloud.reference import Decoder, run_block
from edgesdk.cloud.sample import sample_windows
from edgesdk.cloud.workdir import WorkDirectory, write_json
from edgesdk.errors import ModelError

__all__ = ["Calibration", "collect_moments", "moments_name", "save_windows", "text_windows", "windows_for"]

Progress = Callable[[int, int], None]

_BATCH_TOKENS = 4096
_HEAD = "moments-head.safetensors"


@dataclass(frozen=True)
class Calibration:
    """moments(i): of block i, read from the work directory. layer_similarity: mean cosine over a whole layer."""

    work: WorkDirectory
    n_blocks: int
    layer_similarity: tuple[float, ...]

    def moments(self, index: int) -> Moments:
        """Moments of one block."""
        tensors, fields = self.work.load(moments_name(index))
        return Moments(tensors, fields["similarity"])

    def head_moment(self) -> Tensor:
        """E[x x^T] of what the head reads, (d_model, d_model)."""
        return self.work.load(_HEAD)[0]["input"]


def moments_name(index: int) -> str:
    """Name of a block's moments in a work directory."""
    return f"moments-{index:03d}.safetensors"


def windows_for(
    config: CalibrateConfig,
    decoder: Decoder,
    starts: Sequence[int],
    tokenize: Callable[[str], Sequence[int]],
    progress: Progress | None = None,
) -> Tensor:
    """Calibration windows (n_windows, window_tokens), sampled from the model or read from a file."""
    if config.text == "self":
        return sample_windows(decoder, starts, config.n_windows, config.window_tokens, config.seed, progress)
    return text_windows(Path(config.text), tokenize, config.n_windows, config.window_tokens)


def text_windows(path: Path, tokenize: Callable[[str], Sequence[int]], n_windows: int, window_tokens: int) -> Tensor:
    """Full windows of real tokens from a .txt or .jsonl ("text" fields) file, never padded, spread over the whole text.

    A .json file is what a build wrote (`save_windows`) and gives those windows as they are. Raises ModelError when the
    file cannot be read or holds less than one window.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json":
            return _read_windows(json.loads(text))
        if path.suffix == ".jsonl":
            text = "\n\n".join(json.loads(line)["text"] for line in text.splitlines() if line.strip())
    except OSError as error:
        raise ModelError(f"cannot read the text `{path}`: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        wanted = 'JSON lines file with a "text" field' if path.suffix == ".jsonl" else "JSON file of token windows"
        raise ModelError(f"`{path}` is no {wanted}: {error}") from error
    tokens = list(tokenize(text))
    count = min(n_windows, len(tokens) // window_tokens)
    if count == 0:
        raise ModelError(
            f"`{path}` has {len(tokens)} tokens, one window needs {window_tokens}", hint="give a longer text"
        )
    whole = torch.tensor(tokens[: len(tokens) // window_tokens * window_tokens]).reshape(-1, window_tokens)
    return whole[torch.linspace(0, len(whole) - 1, count).round().long()]


def save_windows(path: Path, windows: Tensor) -> None:
    """Writes windows (n_windows, tokens) for `text_windows`."""
    write_json(path, {"windows": windows.tolist()})


def _read_windows(value: Any) -> Tensor:
    windows = torch.tensor(value["windows"])
    if windows.ndim != 2 or windows.numel() == 0 or windows.dtype != torch.int64:
        raise ValueError(f"`windows` has shape {tuple(windows.shape)}, expected rows of token ids")
    return windows


@torch.inference_mode()
def collect_moments(
    decoder: Decoder, windows: Tensor, work: WorkDirectory, progress: Progress | None = None
) -> Calibration:
    """Runs the windows through the model once and stores every block's moments; finished blocks are not redone.

    One block's weights and moments are in memory at a time, beside the residual stream of all windows: before the
    layer, and now.
    """
    blocks = decoder.config.blocks
    x = decoder.embed(windows)
    layer_input = x.clone()
    similarity: list[float] = []
    batch = max(1, _BATCH_TOKENS // windows.shape[1])
    for index, block in enumerate(blocks):
        weights = decoder.block_weights(index)
        name = moments_name(index)
        accumulator = None if work.has(name) else MomentsAccumulator()
        tap = accumulator.tap if accumulator else None
        for part in x.split(batch):
            out = run_block(block, weights, part, decoder.config.norm_eps, tap)
            if accumulator:
                accumulator.see_residual(part, out)
            part.copy_(out)
        del weights
        if not torch.isfinite(x).all():
            raise ModelError(
                f"{block.name} gives values that are not finite",
                hint="a weight of this block may be NaN or infinite, or the checkpoint is damaged; get it again",
            )
        if accumulator:
            moments = accumulator.finish()
            work.save(name, moments.tensors, {"similarity": moments.similarity})
            del moments, accumulator, tap
        if index + 1 == len(blocks) or _layer(blocks[index + 1].name) != _layer(block.name):
            similarity.append(float(torch.cosine_similarity(layer_input, x, dim=-1).mean()))
            layer_input.copy_(x)
        if progress:
            progress(index + 1, len(blocks))
    if not work.has(_HEAD):
        normed = decoder.normed(x).flatten(0, 1)
        work.save(_HEAD, {"input": normed.T @ normed / len(normed)})
    return Calibration(work, len(blocks), tuple(similarity))


def _layer(block_name: str) -> str:
    return block_name.rpartition(".")[0]
