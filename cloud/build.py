"""`edgesdk build`: from a model to one elastic artifact. Start here; every step is a paragraph of `build_model`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edgesdk.cloud.allocate import AXES, AllocateInputs, BitLosses
from edgesdk.cloud.allocate import METHODS as ALLOCATE
from edgesdk.cloud.allocate.bits import bit_losses, lower_plans
from edgesdk.cloud.calibrate import Calibration, collect_moments, save_windows, text_windows, windows_for
from edgesdk.cloud.check import check_unchanged
from edgesdk.cloud.checkpoint import open_checkpoint
from edgesdk.cloud.config import BuildConfig
from edgesdk.cloud.evaluate import evaluate_levels
from edgesdk.cloud.families import load_model
from edgesdk.cloud.families.blocks import ModelConfig
from edgesdk.cloud.order import rank_blocks
from edgesdk.cloud.ordered import SortedModel
from edgesdk.cloud.pack import BlockVectors, write_artifact
from edgesdk.cloud.quantize import METHODS as QUANTIZE
from edgesdk.cloud.quantize.block import block_vectors
from edgesdk.cloud.quantize.rows import quantize_rows
from edgesdk.cloud.quantize.tasks import quantize_blocks
from edgesdk.cloud.rank import METHODS as RANK
from edgesdk.cloud.records import artifact_metadata, file_sha256, level_records
from edgesdk.cloud.reference import Decoder
from edgesdk.cloud.repair import level_biases
from edgesdk.cloud.sample import sample_windows
from edgesdk.cloud.sizes import LevelPlan, PackedSizes, full_allocation, model_panels
from edgesdk.cloud.stored import StoredWeights, codes_name, save_codes
from edgesdk.cloud.tasks import Executor, ModelFiles, open_executor
from edgesdk.cloud.tokenizer import ArtifactTokenizer, import_tokenizer, to_tokenizers
from edgesdk.cloud.tune import WIDE_BITS, Student, recover_levels, tune_scales, widen
from edgesdk.cloud.workdir import WorkDirectory, fingerprint, write_json
from edgesdk.errors import ModelError, UsageError
from edgesdk.formats.verify import verify_artifact

__all__ = ["CODE_VERSION", "build_model"]

_CHECK_TOKENS = 64
_EVALUATION_SEED = 7919  # added to the seed, so that evaluation text is never calibration text
CODE_VERSION = "5"  # part of every cache key: raise it when a step's results change

Progress = Callable[[str, int, int], None]


def build_model(
    model: str,
    out: Path | str,
    config: BuildConfig | None = None,
    *,
    work: Path | None = None,
    progress: Progress | None = None,
    ray: str | None = None,
) -> Path:
    """Compiles a model and returns the path of the artifact, OUT/model.edge; every figure goes into OUT/build.json.

    OUT/evaluation.json has the tokens on which levels were measured (`edgesdk eval --text` takes it).

    model: a Hugging Face folder, `hf:org/name`, a GGUF file or `smollm2`
    work: where finished steps are kept so that a broken build resumes; OUT/work by default
    progress: called with (step, done, total)
    ray: address of a Ray cluster on which blocks are ranked and quantized, `auto` for the one that runs on this
        machine; None: this machine does all. The artifact is the same.
    Raises ModelError (the model cannot be compiled), UsageError (unknown method) and EdgeError (nowhere to write, or
    no cluster).
    """
    config = config or BuildConfig()
    out = Path(out)
    _check_config(config)
    with open_executor(ray) as executor:
        out.mkdir(parents=True, exist_ok=True)
        return _build(model, out, config, work or out / "work", _Steps(progress), executor)


def _build(model: str, out: Path, config: BuildConfig, root: Path, steps: _Steps, executor: Executor) -> Path:
    """The steps, in their order."""

    with steps.timed("read"):
        checkpoint = open_checkpoint(model)
        model_config = load_model(checkpoint)
        tokenizer = import_tokenizer(checkpoint.tokenizer_files, chat_template=checkpoint.chat_template)
        _check_vocabulary(tokenizer, model_config)
        files = ModelFiles.of(model)
        whole = WorkDirectory(root, "model", fingerprint(CODE_VERSION, checkpoint.source.sha256))
        source = Decoder.open(checkpoint, model_config, whole)
        given = [] if config.calibrate.text == "self" else [file_sha256(Path(config.calibrate.text))]
        key = [CODE_VERSION, checkpoint.source.sha256, config.calibrate, *given]
    with steps.timed("sample"):
        windows, evaluation = _texts(config, source, tokenizer, WorkDirectory(root, "text", fingerprint(key)), steps)
    with steps.timed("calibrate"):
        moments_work = WorkDirectory(root, "moments", fingerprint(key))
        calibration = collect_moments(source, windows, moments_work, steps.report("calibrate"))
    with steps.timed("sort"):
        rank_blocks(files, model_config, calibration, config.rank.method, executor, steps.report("sort"))
        ordered = SortedModel(source, calibration, config.rank.method)
        differences = check_unchanged(source, ordered.sort, evaluation[:1, :_CHECK_TOKENS])
    key = [*key, config.rank, config.quantize.method, config.quantize.group, config.quantize.damping]
    weights = StoredWeights(WorkDirectory(root, "codes", fingerprint(key)))
    sizes = PackedSizes(model_config, config.quantize.group)

    def quantized(step: str, plans: Sequence[LevelPlan]) -> None:
        """Makes the codes of every weight that the plans use and that no earlier step made."""
        wanted = dict.fromkeys(version for plan in plans for version in _versions(model_config, plan))
        ordered.forget()
        quantize_blocks(files, model_config, config, calibration, weights.codes, wanted, executor, steps.report(step))
        _quantize_model(config, source, calibration, weights.codes, plans)

    with steps.timed("quantize"):
        full = LevelPlan.of(
            model_config, full_allocation(model_config), config.quantize.max_bits, config.quantize.model_bits
        )
        quantized("quantize", [full])
        if config.tune.wide_share and config.quantize.max_bits == 4:
            full = _widened(config, ordered, weights, full, windows, root, key, steps)
            quantized("quantize", [full])
    with steps.timed("allocate"):
        ladder = _ladder(config, sizes, ordered, calibration, weights, full, quantized, windows, root, key, steps)
    with steps.timed("tune"):
        if config.tune.n_epochs:
            key = [*key, config.tune, asdict(ladder[-1])]
            tuned = WorkDirectory(root, "tuned", fingerprint(key))
            student = Student.start(ordered, weights, ladder[-1:])
            tune_scales(source, student, windows, config.tune, tuned, steps.report("tune"))
            weights = replace(weights, tuned=tuned)
    with steps.timed("recover"):
        if config.recover.n_epochs and len(ladder) > 1:
            recovered = WorkDirectory(
                root, "recovered", fingerprint(key, config.recover, [asdict(plan) for plan in ladder])
            )
            student = Student.start(ordered, weights, ladder)
            recover_levels(source, student, windows, config.recover, recovered, steps.report("recover"))
            weights = replace(weights, recovered=recovered)
    with steps.timed("pack"):
        draft = root / "draft.edge"
        tensors = {"norm": source.final_norm.numpy(), **tokenizer.tensors}
        parts = _Parts(model_config, ladder, ordered, weights, tensors, config.repair_bias)
        metadata = artifact_metadata(checkpoint, tokenizer, config, evaluation)
        parts.write(draft, metadata, level_records(sizes, ladder, None))
    with steps.timed("evaluate"):
        ordered.forget()
        top = len(ladder) - 1
        measured, perplexity = evaluate_levels(
            draft, [*range(top + 1), top], evaluation, source, steps.report("evaluate"), [*[8] * (top + 1), 16]
        )
        *quality, wide_cache = measured
    with steps.timed("write"):
        metadata["evaluation"]["source_perplexity"] = perplexity
        metadata["evaluation"]["kv_16"] = {"perplexity": wide_cache.perplexity, "kl": wide_cache.kl}
        artifact = out / "model.edge"
        levels = parts.write(artifact, metadata, level_records(sizes, ladder, quality))
        verify_artifact(artifact)
        save_windows(out / "evaluation.json", evaluation)
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
    write_json(out / "build.json", report)
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
    ladder: Sequence[LevelPlan]
    ordered: SortedModel
    weights: StoredWeights
    model_tensors: dict[str, Any]
    repair_bias: bool

    def write(self, path: Path, metadata: dict[str, Any], levels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Writes the artifact; one block is in memory at a time."""
        return write_artifact(
            path, self.config, self.ladder, self.weights.weight, self._vectors, self.model_tensors, metadata, levels
        )

    def _vectors(self, index: int) -> BlockVectors:
        """Norms, frequencies and the bias of each level."""
        block = self.config.blocks[index]
        source = self.ordered.decoder.block_weights(index)
        vectors = block_vectors(block, source)
        norm = self.weights.norm(index)
        if norm is not None:
            vectors["norm"] = norm
        if not self.repair_bias:
            own = source["bias"].numpy() if "bias" in source else None
            return BlockVectors(vectors, (own,) * len(self.ladder))
        biases = level_biases(self.ordered, self.weights, self.ladder, index)
        return BlockVectors(vectors, tuple(biases.numpy()))


def _versions(config: ModelConfig, plan: LevelPlan) -> list[tuple[int, str, int]]:
    return [(index, role, bits) for (index, role), bits in plan.weight_bits(config).items()]


def _check_config(config: BuildConfig) -> None:
    chosen = (
        ("rank", list(RANK), config.rank.method),
        ("allocate", list(ALLOCATE), config.allocate.method),
        ("quantize", list(QUANTIZE), config.quantize.method),
        ("axes", list(AXES), config.allocate.axes),
    )
    for step, names, method in chosen:
        if method not in names:
            raise UsageError(f"unknown {step} {method!r}", hint=f"choose one of {', '.join(names)}")
    if config.quantize.max_bits not in (4, 6):
        raise UsageError(
            f"max_bits is {config.quantize.max_bits}, expected 4 or 6", hint="lower levels have fewer bits"
        )
    if config.allocate.min_bits not in (2, 3):
        raise UsageError(f"min_bits is {config.allocate.min_bits}, expected 2 or 3")
    if config.recover.n_epochs and not config.repair_bias:
        raise UsageError("recovery trains the biases of levels, and this preset has none", hint="leave out --recover")
    if config.allocate.max_file_growth < 0:
        raise UsageError(f"max_file_growth is {config.allocate.max_file_growth}, expected 0 or more")


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


def _quantize_model(
    config: BuildConfig, source: Decoder, calibration: Calibration, work: WorkDirectory, plans: Sequence[LevelPlan]
) -> None:
    """Codes of the embedding and the head in the bits that the plans use."""
    for plan in plans:
        for panel, bits in zip(model_panels(source.config), plan.model_bits, strict=True):
            name = panel.weight
            if not work.has(codes_name(None, name, bits)):
                read_by_head = name == "head" or source.config.tied_head
                moment = calibration.head_moment() if read_by_head else None
                matrix = source.head if name == "head" else source.embedding
                save_codes(work, None, name, quantize_rows(matrix, config.quantize.group, bits, moment))


def _widened(
    config: BuildConfig,
    ordered: SortedModel,
    weights: StoredWeights,
    full: LevelPlan,
    windows: Tensor,
    root: Path,
    key: list[Any],
    steps: _Steps,
) -> LevelPlan:
    """The full level with those weights at 6 bits where 4 cost the most."""
    settings = config.tune
    work = WorkDirectory(root, "wide", fingerprint(key, settings.wide_share, settings.wide_windows))
    student = Student.start(ordered, weights, [full])
    text = windows[: settings.wide_windows]
    wide = set(widen(ordered, student, text, settings.wide_share, work, steps.report("quantize")))
    bits = tuple(
        tuple(WIDE_BITS if (index, weight.role) in wide else b for weight, b in zip(block.weights, own, strict=True))
        for index, (block, own) in enumerate(zip(student.source.config.blocks, full.bits, strict=True))
    )
    return replace(full, bits=bits)


def _ladder(
    config: BuildConfig,
    sizes: PackedSizes,
    ordered: SortedModel,
    calibration: Calibration,
    weights: StoredWeights,
    full: LevelPlan,
    quantized: Callable[[str, Sequence[LevelPlan]], None],
    windows: Tensor,
    root: Path,
    key: list[Any],
    steps: _Steps,
) -> list[LevelPlan]:
    settings = config.allocate
    work = WorkDirectory(root, "ladder", fingerprint(key, settings, asdict(full)))
    # Losses do not depend on how the ladder walks: its other settings can change without measuring again.
    measured = replace(settings, method="", axes="", max_rate=0.0, step=0.0, max_file_growth=0.0)
    kept = WorkDirectory(root, "losses", fingerprint(key, measured, asdict(full)))

    def costs() -> list[tuple[int | None, str, list[tuple[int, float]]]]:
        quantized("allocate", lower_plans(full, settings.min_bits))
        text = windows[: settings.cost_windows]
        found = bit_losses(ordered, weights, full, text, settings.min_bits, steps.report("allocate"))
        return [(*name, list(losses.items())) for name, losses in found.items()]

    def plans() -> list[dict[str, Any]]:
        losses: BitLosses = {}
        if settings.method == "measured" and settings.axes != "width":
            losses = {(index, role): dict(own) for index, role, own in kept.remember("bits.json", costs)}
        inputs = AllocateInputs(
            sizes,
            settings,
            ordered.decoder,
            ordered.moments,
            calibration.layer_similarity,
            windows[: settings.n_windows, : settings.window_tokens],
            full,
            losses,
            kept,
            steps.report("allocate"),
        )
        made = dict.fromkeys(ALLOCATE[settings.method](inputs))  # coarse axes can make levels equal
        return [asdict(plan) for plan in made]

    return [LevelPlan.from_json(plan) for plan in work.remember("ladder.json", plans)]
