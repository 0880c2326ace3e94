"""One frozen dataclass per step of the compiler; `BuildConfig` holds them all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgesdk.errors import UsageError

__all__ = [
    "PRESETS",
    "RECOVER_EPOCHS",
    "AllocateConfig",
    "BuildConfig",
    "CalibrateConfig",
    "EvaluateConfig",
    "QuantizeConfig",
    "RankConfig",
    "RecoverConfig",
    "TuneConfig",
    "preset",
]


@dataclass(frozen=True)
class CalibrateConfig:
    """text: "self" (sampled from the model) or a path to a .txt or .jsonl file; windows are never padded."""

    text: str = "self"
    n_windows: int = 180
    window_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True)
class RankConfig:
    """method: a name in rank.METHODS."""

    method: str = "outputs"


@dataclass(frozen=True)
class AllocateConfig:
    """method: a name in allocate.METHODS. The ladder goes from rate 0 to max_rate in steps of about `step`.

    A level's rate is the least that its block sizes allow at or above its target, so steps are not exact. "measured"
    adds levels where bytes fall by more than `step` in between, because embedding and head give up bits.
    axes: what "measured" may give up: a name in allocate.AXES.
    min_bits: the fewest that a block weight may have at small levels, 2 or 3
    max_file_growth: bytes of versions that only smaller levels use, as a share of the full level's.
    n_windows, window_tokens: calibration text on which losses are measured; cost_windows: on which gradients are.
    fractions: of an axis' present size, at which its loss is measured (beside 0).
    """

    method: str = "measured"
    axes: str = "all"
    max_rate: float = 0.6
    step: float = 0.025
    min_bits: int = 2
    max_file_growth: float = 0.6
    n_windows: int = 4
    window_tokens: int = 256
    cost_windows: int = 16
    fractions: tuple[float, ...] = (0.8, 0.5)


@dataclass(frozen=True)
class QuantizeConfig:
    """method: a name in quantize.METHODS; group: columns that share a scale; damping: share of the mean diagonal.

    max_bits: of block weights at the full level, 4 or 6; model_bits: of the embedding and the head there, 4, 6 or 8
    """

    method: str = "gptq"
    group: int = 32
    damping: float = 0.01
    max_bits: int = 4
    model_bits: int = 6


@dataclass(frozen=True)
class TuneConfig:
    """After quantization: which weights are held at 6 bits, and the distillation of scales and norm gains.

    wide_share: of all elements of block weights, chosen on wide_windows windows; 0: all stay at 4 bits
    n_epochs: times that the full level sees all calibration windows, batch_windows at once; 0: scales stay as they are
    rate: largest relative change of a scale or gain in one step
    """

    wide_share: float = 0.04
    wide_windows: int = 16
    n_epochs: int = 1
    batch_windows: int = 8
    rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class RecoverConfig:
    """Scales and biases of the levels below the full one, trained through levels drawn at random.

    n_epochs: times that they see all calibration windows, batch_windows at once; 0: no recovery
    rate: largest relative change of a scale in one step; bias_rate: of a bias, in units of its block's biases
    n_knots: places along the ladder between which changes of biases are linear
    """

    n_epochs: int = 0
    rate: float = 4e-3
    bias_rate: float = 2e-2
    n_knots: int = 5
    batch_windows: int = 2
    seed: int = 0


RECOVER_EPOCHS = 3
"""RecoverConfig.n_epochs of `edgesdk build --recover`."""


@dataclass(frozen=True)
class EvaluateConfig:
    """text: "self" (sampled, unseen by calibration) or a path to a text file."""

    text: str = "self"
    n_windows: int = 16
    window_tokens: int = 512


@dataclass(frozen=True)
class BuildConfig:
    """Everything that decides what a build makes."""

    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    allocate: AllocateConfig = field(default_factory=AllocateConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    recover: RecoverConfig = field(default_factory=RecoverConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    repair_bias: bool = True  # each level gets the bias that stands in for the mean of what it gave up


PRESETS = {
    "default": BuildConfig(),
    "fast": BuildConfig(
        calibrate=CalibrateConfig(n_windows=32, window_tokens=256),
        allocate=AllocateConfig(n_windows=2, cost_windows=8, min_bits=3, fractions=(0.6,)),
        tune=TuneConfig(wide_windows=8, n_epochs=0),
        evaluate=EvaluateConfig(n_windows=4, window_tokens=512),
    ),
    # Baseline: the whole recipe of UniQL (arXiv 2512.03383) within our format. Where a step of an axis is shorter than
    # 128 columns, the group is the step: 32 in `down`.
    "uniql": BuildConfig(
        rank=RankConfig("uniql"),
        allocate=AllocateConfig(method="block-influence"),
        quantize=QuantizeConfig("gptq-uniform", group=128),
        tune=TuneConfig(wide_share=0.0, n_epochs=0),
        repair_bias=False,
    ),
}


def preset(name: str, **steps: object) -> BuildConfig:
    """A preset with some steps replaced, for example ``preset("fast", allocate=AllocateConfig(method="uniform"))``."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", hint=f"choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **steps)  # type: ignore[arg-type]
