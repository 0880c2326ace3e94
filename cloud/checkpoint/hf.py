"""A Hugging Face directory: config.json, safetensors (one file, or shards and their index), tokenizer files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import safetensors
import torch

from edgesdk.cloud.checkpoint.checkpoint import Checkpoint, LazyTensor, Source, TokenizerFiles
from edgesdk.cloud.untrusted import malformed, read_json
from edgesdk.errors import ModelError

__all__ = ["open_directory"]

_FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def open_directory(path: Path) -> Checkpoint:
    """Open the model in `path`; headers are read and checked, weights are not. Raises ModelError."""
    try:
        with malformed(f"the model in {path}"):
            return _open(path)
    except OSError as error:  # a shard's name that no file can have, for one
        raise ModelError(f"the model in {path} cannot be read: {str(error)[:300]}") from error


def _open(path: Path) -> Checkpoint:
    config = read_json(_present(path / "config.json", "it describes the model"))
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        raise ModelError(
            f"{path} is already quantized with `{method}`, expected float weights",
            hint="use the checkpoint from which it was made; edgesdk quantizes for itself",
        )
    tensors, weight_files = _open_weights(path)
    return Checkpoint(
        source=Source("directory", path.resolve().name, path, str(path.resolve()), _licence(path), weight_files),
        config=config,
        tokenizer_files=TokenizerFiles(
            tokenizer_json=_existing(path / "tokenizer.json"),
            tokenizer_config=_existing(path / "tokenizer_config.json"),
            generation_config=_existing(path / "generation_config.json"),
        ),
        chat_template=_chat_template(path),
        tensors=tensors,
    )


def _open_weights(path: Path) -> tuple[dict[str, LazyTensor], tuple[Path, ...]]:
    if (path / _SINGLE).is_file():
        return _open_file(path / _SINGLE), (path / _SINGLE,)
    if (path / _INDEX).is_file():
        return _open_shards(path)
    found = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".bin", ".pth", ".pt"))
    listing = f"; found {', '.join(found)}" if found else ""
    raise ModelError(
        f"{path} holds neither {_SINGLE} nor {_INDEX}{listing}",
        hint="save the model with transformers' save_pretrained, which writes safetensors; pickled weights "
        "(.bin, .pt) can run code when they are opened and are not read",
    )


def _open_shards(path: Path) -> tuple[dict[str, LazyTensor], tuple[Path, ...]]:
    weight_map = read_json(path / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ModelError(f"{path / _INDEX} has no `weight_map` from tensor names to file names")
    shards = sorted(set(weight_map.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise ModelError(f"{path / _INDEX} names shards outside its directory: {', '.join(outside)}")
    if missing := [shard for shard in shards if not (path / shard).is_file()]:
        raise ModelError(
            f"{len(missing)} of the {len(shards)} shards that {path / _INDEX} names are missing: {', '.join(missing)}",
            hint="download them again, for example with `hf download`",
        )
    opened = {shard: _open_file(path / shard) for shard in shards}
    if absent := [f"`{name}` in {shard}" for name, shard in weight_map.items() if name not in opened[shard]]:
        raise ModelError(f"tensors that {path / _INDEX} names are not in their shards: {', '.join(absent)}")
    return {name: opened[shard][name] for name, shard in weight_map.items()}, tuple(path / s for s in shards)


def _open_file(path: Path) -> dict[str, LazyTensor]:
    """All tensors of one safetensors file. The library validates the header and the file's length when it opens it."""
    try:
        handle: Any = safetensors.safe_open(path, framework="pt")
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (a handle, not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}",
            hint="download it again; a file that begins with `version https://git-lfs` only points to the weights",
        ) from error
    tensors = {}
    for name, view in slices.items():
        stored_as = str(view.get_dtype())
        refusal = "" if stored_as in _FLOAT_TYPES else f"is stored as {stored_as}, expected one of F64, F32, F16, BF16"
        tensors[name] = LazyTensor(tuple(view.get_shape()), stored_as, _Reader(handle, name), refusal)
    return tensors


class _Reader:
    """Reads one tensor of an open file, which stays mapped as long as a reader of it lives."""

    def __init__(self, handle: Any, name: str) -> None:
        self._handle = handle
        self._name = name

    def __call__(self) -> torch.Tensor:
        with malformed(f"tensor `{self._name}`"):
            try:
                tensor: torch.Tensor = self._handle.get_tensor(self._name)
            except (safetensors.SafetensorError, OSError, RuntimeError) as error:  # the file was cut since
                raise ModelError(f"tensor `{self._name}` cannot be read: {error}") from error
            return tensor.to(torch.float32, copy=True)


def _chat_template(path: Path) -> str | None:
    """chat_template.jinja wins over tokenizer_config.json, as in transformers; of several templates, `default`."""
    if (jinja := path / "chat_template.jinja").is_file():
        return jinja.read_text(encoding="utf-8")
    if not (path / "tokenizer_config.json").is_file():
        return None
    template = read_json(path / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _licence(path: Path) -> str | None:
    """The `license:` line in the front matter of the model card, when there is one."""
    card = path / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    line = front and re.search(r"^license:[ \t]*['\"]?([\w.+-]+)", front.group(1), re.MULTILINE)
    return line.group(1) if line else None


def _present(path: Path, purpose: str) -> Path:
    if not path.is_file():
        raise ModelError(f"{path} is missing: {purpose}", hint="give a directory that save_pretrained wrote")
    return path


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
