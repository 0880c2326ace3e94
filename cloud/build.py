"""`edgesdk build`: from a model to one elastic artifact. Start here; every step is a paragraph of `build_model`."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgesdk.cloud.allocate import METHODS as ALLOCATE
from edgesdk.cloud.allocate import AllocateInputs
from edgesdk.cloud.calibrate import Calibration, collect_moments, text_windows, windows_for
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.checkpoint import Checkpoint, open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.evaluate import LevelQuality, evaluate_levels
from edgesdk.cloud.families import load_model
from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.pack import Allocation, BlockVectors, QuantizedWeight, block_bytes, write_artifact
from edgesdk.cloud.quantize import METHODS as QUANTIZE
from edgesdk.cloud.quantize.block import block_vectors, dequantized, quantize_rows_8bit
from edgesdk.cloud.quantize.tasks import codes_name, quantize_blocks
from edgesdk.cloud.rank import METHODS as RANK
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.repair import repaired_bias
from edgesdk.cloud.sample import sample_windows
from edgesdk.cloud.tokenizer import ArtifactTokenizer, import_tokenizer, to_tokenizers
from edgesdk.cloud.workdir import WorkDirectory, fingerprint
from edgesdk.errors import ModelError, UsageError
from edgesdk.formats.verify import verify_artifact

__all__ = ["build_model"]

_CHECK_TOKENS = 64
_EVALUATION_SEED = 7919  # added to the seed, so that evaluation text is never calibration text
_CODE_VERSION = "1"  # part of every cache key: raise it when a step's results change

Progress = Callable[[str, int, int], None]


def build_model(
    model: str,
    out: Path | str,
    config: BuildConfig | None = None,
    *,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Compiles a model and returns the path of the artifact, OUT/model.edge; every figure goes into OUT/build.json.

    model: a Hugging Face folder, `hf:org/name`, a GGUF file or `smollm2`
    work: where finished steps are kept so that a broken build resumes; OUT/work by default
    progress: called with (step, done, total)
    Raises ModelError (the model cannot be compiled), UsageError (unknown method) and EdgeError (nowhere to write).
    """
    config = config or BuildConfig()
    out = Path(out)
    _check_methods(config)
    out.mkdir(parents=True, exist_ok=True)
    root = work or out / "work"
    steps = _Steps(progress)

    with steps.timed("read"):
        checkpoint = open_checkpoint(model)
        model_config = load_model(checkpoint)
        tokenizer = import_tokenizer(checkpoint.tokenizer_files, chat_template=checkpoint.chat_template)
        source = Decoder.open(checkpoint, model_config)
        _check_vocabulary(tokenizer, model_config)
        given = [] if config.calibrate.text == "self" else [_file_sha256(Path(config.calibrate.text))]
        key = [_CODE_VERSION, checkpoint.source.sha256, config.calibrate, *given]
    with steps.timed("sample"):
        windows, evaluation = _texts(config, source, tokenizer, WorkDirectory(root, "text", fingerprint(key)), steps)
    with steps.timed("calibrate"):
        moments_work = WorkDirectory(root, "moments", fingerprint(key))
        calibration = collect_moments(source, windows, moments_work, steps.report("calibrate"))
    with steps.timed("sort"):
        ordered = SortedModel(source, calibration, config.rank.method)
        differences = check_unchanged(source, ordered.sort, evaluation[:1, :_CHECK_TOKENS])
    with steps.timed("allocate"):
        ladder = _ladder(config, model_config, ordered, calibration, windows, root, key, steps)
    with steps.timed("quantize"):
        quantize_work = WorkDirectory(root, "codes", fingerprint([*key, config.rank, config.quantize]))
        quantize_blocks(model, config, calibration, quantize_work, steps.report("quantize"))
    with steps.timed("pack"):
        draft = root / "draft.edge"
        tensors = _model_tensors(source, tokenizer, config.quantize.group)
        parts = _Parts(model_config, ladder, ordered, quantize_work, tensors)
        metadata = _metadata(checkpoint, tokenizer, config, evaluation)
        parts.write(draft, metadata, _levels(model_config, ladder, None, config))
    with steps.timed("evaluate"):
        quality, perplexity = evaluate_levels(draft, range(len(ladder)), evaluation, source, steps.report("evaluate"))
    with steps.timed("write"):
        metadata["evaluation"]["source_perplexity"] = perplexity
        artifact = out / "model.edge"
        levels = parts.write(artifact, metadata, _levels(model_config, ladder, quality, config))
        verify_artifact(artifact)
        draft.unlink()
    report = {
        "artifact": str(artifact),
        "config": asdict(config),
        "sort_difference": differences,
        "levels": [{**level, "top1": q.top1} for level, q in zip(levels, quality, strict=True)],
        "evaluation": metadata["evaluation"],
        "provenance": metadata["provenance"],
        "seconds": steps.seconds,
    }
    _write_json(out / "build.json", report)
    return artifact


@dataclass
class _Steps:
    """Times the steps and passes their progress on."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)
    _name: str = ""
    _begin: float = 0.0

    def timed(self, name: str) -> _Steps:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._begin = time.perf_counter()
        if self.progress:
            self.progress(self._name, 0, 1)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.seconds[self._name] = round(time.perf_counter() - self._begin, 2)
        if self.progress and error is None:
            self.progress(self._name, 1, 1)

    def report(self, name: str) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            if self.progress:
                self.progress(name, done, total)

        return show


@dataclass(frozen=True)
class _Parts:
    """Everything that goes into the file but the quality of its levels."""

    config: ModelConfig
    ladder: Sequence[Allocation]
    ordered: SortedModel
    codes: WorkDirectory
    model_tensors: dict[str, Any]

    def write(self, path: Path, metadata: dict[str, Any], levels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Writes the artifact; one block is in memory at a time."""
        return write_artifact(
            path, self.config, self.ladder, self._weight, self._vectors, self.model_tensors, metadata, levels
        )

    def _weight(self, index: int, role: str) -> QuantizedWeight:
        tensors, fields = self.codes.load(codes_name(index), f"{role}.")
        group, codebook = fields[role]["group"], tuple(fields[role]["codebook"])
        return QuantizedWeight(tensors[f"{role}.codes"].numpy(), tensors[f"{role}.scales"].numpy(), 4, group, codebook)

    def _vectors(self, index: int) -> BlockVectors:
        """Norms, frequencies and the bias of each level, computed once and kept in the work directory."""
        block = self.config.blocks[index]
        source = self.ordered.decoder.block_weights(index)
        name = f"bias-{index:03d}-{fingerprint([level[index] for level in self.ladder])}.safetensors"
        if not self.codes.has(name):
            output = next(weight for weight in block.weights if weight.columns is not None)
            deployed = {output.role: dequantized(block, output, self._weight(index, output.role))}
            moments = self.ordered.moments(index)
            made = [repaired_bias(block, source, level[index], moments, deployed) for level in self.ladder]
            self.codes.save(name, {"bias": torch.stack(made)})
        biases = self.codes.load(name)[0]["bias"].numpy()
        return BlockVectors(block_vectors(block, source), tuple(biases))


def _check_methods(config: BuildConfig) -> None:
    chosen = (
        ("rank", list(RANK), config.rank.method),
        ("allocate", list(ALLOCATE), config.allocate.method),
        ("quantize", list(QUANTIZE), config.quantize.method),
    )
    for step, names, method in chosen:
        if method not in names:
            raise UsageError(f"unknown {step} method {method!r}", hint=f"choose one of {', '.join(names)}")


def _check_vocabulary(tokenizer: ArtifactTokenizer, config: ModelConfig) -> None:
    if tokenizer.n_tokens > config.vocab_size:
        raise ModelError(
            f"the tokenizer has {tokenizer.n_tokens} tokens, the embedding {config.vocab_size} rows",
            hint="tokenizer and weights seem to belong to different models",
        )


def _texts(
    config: BuildConfig, source: Decoder, tokenizer: ArtifactTokenizer, work: WorkDirectory, steps: _Steps
) -> tuple[Tensor, Tensor]:
    """Calibration windows and held-back evaluation windows."""
    header = tokenizer.header
    starts = [token for token in (header["bos_id"], *header["eos_ids"]) if token is not None][:2] or [0]
    library = to_tokenizers(tokenizer)

    def tokenize(text: str) -> list[int]:
        return list(library.encode(text, add_special_tokens=False).ids)

    if not work.has("windows.safetensors"):
        windows = windows_for(config.calibrate, source, starts, tokenize, steps.report("sample"))
        work.save("windows.safetensors", {"windows": windows})
    windows = work.load("windows.safetensors")[0]["windows"]
    settings = config.evaluate
    length = min(settings.window_tokens, source.config.max_context)
    if settings.text != "self":
        return windows, text_windows(Path(settings.text), tokenize, settings.n_windows, length)
    name = f"evaluation-{settings.n_windows}x{length}.safetensors"
    if not work.has(name):
        seed = config.calibrate.seed + _EVALUATION_SEED
        made = sample_windows(source, starts, settings.n_windows, length, seed, steps.report("sample"))
        work.save(name, {"windows": made})
    return windows, work.load(name)[0]["windows"]


def _ladder(
    config: BuildConfig,
    model_config: ModelConfig,
    ordered: SortedModel,
    calibration: Calibration,
    windows: Tensor,
    root: Path,
    key: list[Any],
    steps: _Steps,
) -> list[Allocation]:
    settings = config.allocate
    work = WorkDirectory(root, "ladder", fingerprint([*key, config.rank, settings, config.quantize.group]))
    path = work.path("ladder.json")
    if not path.exists():
        inputs = AllocateInputs(
            model_config,
            settings,
            config.quantize.group,
            ordered.decoder,
            ordered.moments,
            calibration.layer_similarity,
            windows[: settings.n_windows, : settings.window_tokens],
            steps.report("allocate"),
        )
        _write_json(path, list(dict.fromkeys(ALLOCATE[settings.method](inputs))))  # coarse axes can make levels equal
    return [tuple(tuple(kept) for kept in allocation) for allocation in json.loads(path.read_text("utf-8"))]


def _model_tensors(source: Decoder, tokenizer: ArtifactTokenizer, group: int) -> dict[str, Any]:
    tensors: dict[str, Any] = {
        "embed": quantize_rows_8bit(source.embedding, group),
        "norm": source.final_norm.numpy(),
        **tokenizer.tensors,
    }
    if not source.config.tied_head:
        tensors["head"] = quantize_rows_8bit(source.head, group)
    return tensors


def _metadata(
    checkpoint: Checkpoint, tokenizer: ArtifactTokenizer, config: BuildConfig, evaluation: Tensor
) -> dict[str, Any]:
    import edgesdk

    own = config.evaluate.text == "self"
    return {
        "tokenizer": dict(tokenizer.header),
        "evaluation": {
            "text": "sampled from the model, not used for calibration" if own else Path(config.evaluate.text).name,
            "sha256": fingerprint(evaluation.tolist()) if own else _file_sha256(Path(config.evaluate.text)),
            "n_tokens": evaluation.numel(),
            "window_tokens": evaluation.shape[1],
            "source_perplexity": None,
        },
        "provenance": {
            "source": checkpoint.source.origin,
            "source_sha256": checkpoint.source.sha256,
            "licence": checkpoint.source.licence,
            "tool": f"edgesdk {edgesdk.__version__}",
            "settings": asdict(config),
        },
    }


def _file_sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the text `{path}`: {error.strerror}") from error


def _levels(
    model_config: ModelConfig,
    ladder: Sequence[Allocation],
    quality: Sequence[LevelQuality] | None,
    config: BuildConfig,
) -> list[dict[str, Any]]:
    """The header's level records, sizes in the file left to the writer."""
    sizes = [block_bytes(model_config, allocation, config.quantize.group) for allocation in ladder]
    records = []
    for k, allocation in enumerate(ladder):
        measured = quality[k] if quality else None
        records.append(
            {
                "rate": 1 - sizes[k] / sizes[-1],
                "block_bytes": sizes[k],
                "allocation": [list(kept) for kept in allocation],
                "perplexity": measured.perplexity if measured else None,
                "kl": measured.kl if measured else None,
                "gave_up": _gave_up(model_config, allocation),
            }
        )
    return records


def _gave_up(config: ModelConfig, allocation: Allocation) -> dict[str, Any]:
    """Shares of each axis that a level lacks, over all blocks, and the blocks it leaves out."""
    lost: dict[str, int] = {}
    whole: dict[str, int] = {}
    for block, kept in zip(config.blocks, allocation, strict=True):
        for axis, size in zip(block.axes, kept, strict=True):
            lost[axis.name] = lost.get(axis.name, 0) + axis.size - size
            whole[axis.name] = whole.get(axis.name, 0) + axis.size
    dropped = [block.name for block, kept in zip(config.blocks, allocation, strict=True) if not any(kept)]
    return {**{name: round(lost[name] / whole[name], 4) for name in whole}, "blocks": dropped}


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(temporary, path)
