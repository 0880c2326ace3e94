"""The vocabulary in which a family is declared: blocks, their shared axes, and the weights that share them.

A block is one residual unit ``x += f(norm(x))``. Its axes can be cut; every weight says which axis its rows and columns
run along, so sorting, slicing, quantizing, packing and byte accounting follow from this one declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "NORMS",
    "TILE_ROWS",
    "Attention",
    "Axis",
    "Block",
    "Mlp",
    "ModelConfig",
    "Rows",
    "Source",
    "Ssm",
    "Weight",
    "choose_group",
    "expected_tensors",
    "head_quantum",
]

TILE_ROWS = 16

NORMS = ("norm", "post_norm", "q_norm", "k_norm")
"""Roles of the gains of RMSNorms; a block has the first, and those of the others that its `sources` name."""


@dataclass(frozen=True)
class Axis:
    """An internal axis that several weights share. A level keeps a prefix: a multiple of `quantum`, or all of it."""

    name: str
    size: int
    quantum: int


@dataclass(frozen=True)
class Weight:
    """One linear weight, (rows, columns). None: the residual axis d_model, which is never cut.

    rows, columns: (axis name, heads); the weight has heads * axis.size elements there.
    """

    role: str
    rows: tuple[str, int] | None
    columns: tuple[str, int] | None


@dataclass(frozen=True)
class Rows:
    """Rows begin to end - 1 of a checkpoint tensor that holds several weights, one behind the other."""

    name: str
    begin: int
    end: int


Source = str | Rows
"""Where a weight comes from: a checkpoint tensor, or rows of one."""


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention. inv_freq: (head_dim / 2,) rotary frequencies, 0 where a pair does not rotate."""

    name: str
    n_heads: int
    n_kv_heads: int
    head_dim: int
    softmax_scale: float
    inv_freq: tuple[float, ...]
    rotary_scale: float  # factor on cos and sin (yarn); folded into what makes q and k by the compiler
    sources: Mapping[str, Source] = field(repr=False)  # norm, q k v o; optional: q_bias .. o_bias, and norms: see below
    kind: str = "attention"
    rotary_dim: int = 0  # elements of a head that the checkpoint rotates, the first ones; 0: all of them
    window: int | None = None  # tokens that a token sees, itself among them; None: all before it
    softcap: float | None = None  # a score s becomes softcap * tanh(s / softcap)
    gain_offset: float = 0.0  # added to the gains of norms as they are read

    @property
    def qk_norm(self) -> bool:
        """Every query and key head is RMS-normed before its rotation; `sources` then has q_norm and k_norm."""
        return "q_norm" in self.sources

    @property
    def post_norm(self) -> bool:
        """The output is RMS-normed before it is added; `sources` then has post_norm."""
        return "post_norm" in self.sources

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that a level may cut, in the order of its allocation.

        With qk_norm the qk axis is all or nothing: the norm's denominator is made of every element.
        """
        quantum = head_quantum(self.n_heads, self.n_kv_heads, self.head_dim)
        return (
            Axis("qk", self.head_dim, self.head_dim if self.qk_norm else quantum),
            Axis("vo", self.head_dim, quantum),
        )

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The linear weights; `sources` names each role's tensor in the checkpoint."""
        return (
            Weight("q", ("qk", self.n_heads), None),
            Weight("k", ("qk", self.n_kv_heads), None),
            Weight("v", ("vo", self.n_kv_heads), None),
            Weight("o", None, ("vo", self.n_heads)),
        )


@dataclass(frozen=True)
class Mlp:
    """Gated MLP, down(activation(gate(x)) * up(x)), or one without a gate, down(activation(up(x))).

    activation: silu where there is a gate, relu2 (the square of what is above 0) where there is none
    """

    name: str
    width: int
    activation: str
    sources: Mapping[str, Source] = field(repr=False)  # norm, gate up down; optional: gate_bias .., post_norm
    kind: str = "mlp"
    gain_offset: float = 0.0  # as in Attention
    gated: bool = True  # else down(activation(up(x))), and there is no gate

    @property
    def post_norm(self) -> bool:
        """As in Attention."""
        return "post_norm" in self.sources

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that a level may cut, in the order of its allocation."""
        return (Axis("width", self.width, 32),)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The linear weights; `sources` names each role's tensor in the checkpoint."""
        gate = (Weight("gate", ("width", 1), None),) if self.gated else ()
        return (*gate, Weight("up", ("width", 1), None), Weight("down", None, ("width", 1)))


@dataclass(frozen=True)
class Ssm:
    """Mamba-2 mixer (Dao and Gu 2024, arXiv 2405.21060): out(norm(scan(conv(x), conv(b), conv(c), dt) * silu(z))).

    n_heads heads of head_dim channels; the n_heads / n_groups heads of a group share b and c, of state_size elements.
    conv_kernel: tokens that the causal convolution over x, b and c sees; step_limits: the least and the most dt
    norm_groups: groups of heads that the gated norm normalizes apart, each by its full width at every level
    """

    name: str
    n_heads: int
    n_groups: int
    head_dim: int
    state_size: int
    conv_kernel: int
    norm_groups: int
    step_limits: tuple[float, float]
    sources: Mapping[str, str] = field(repr=False)  # norm in conv conv_bias dt_bias a_log d gain out, in_bias out_bias
    kind: str = "ssm"

    @property
    def post_norm(self) -> bool:
        """Whether the output is normed before it is added: never."""
        return False

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that a level may cut, in the order of its allocation."""
        head = head_quantum(self.n_heads, self.n_heads, self.head_dim)
        steps = (q for q in range(8, self.state_size, 8) if self.state_size % q == 0)
        state = next((q for q in steps if q * self.n_groups % TILE_ROWS == 0), self.state_size)
        return (Axis("state", self.state_size, state), Axis("head", self.head_dim, head))

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The packed linear weights: the rows of `in` but those of dt, which stay in float, and `out`."""
        return (
            Weight("z", ("head", self.n_heads), None),
            Weight("x", ("head", self.n_heads), None),
            Weight("b", ("state", self.n_groups), None),
            Weight("c", ("state", self.n_groups), None),
            Weight("out", None, ("head", self.n_heads)),
        )

    @property
    def in_rows(self) -> tuple[int, ...]:
        """Rows of `in` that belong to z, x, b, c and dt."""
        inner, state = self.n_heads * self.head_dim, self.n_groups * self.state_size
        return (inner, inner, state, state, self.n_heads)

    def tensors(self, d_model: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of the checkpoint's tensors."""
        _, inner, *state, heads = self.in_rows
        channels = inner + sum(state)
        shapes: dict[str, tuple[int, ...]] = {
            "norm": (d_model,),
            "in": (sum(self.in_rows), d_model),
            "in_bias": (sum(self.in_rows),),
            "conv": (channels, 1, self.conv_kernel),
            "conv_bias": (channels,),
            "dt_bias": (heads,),
            "a_log": (heads,),
            "d": (heads,),
            "gain": (inner,),
            "out": (d_model, inner),
            "out_bias": (d_model,),
        }
        return {name: shapes[role] for role, name in self.sources.items()}


Block = Attention | Mlp | Ssm


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: what the artifact's `model` field and the reference decoder are made from."""

    family: str
    name: str
    d_model: int
    vocab_size: int
    max_context: int
    norm_eps: float
    embedding_scale: float
    tied_head: bool
    blocks: tuple[Block, ...]
    sources: Mapping[str, str] = field(repr=False)  # embed, norm, head
    logit_softcap: float | None = None  # as softcap in Attention, of the logits
    gain_offset: float = 0.0  # as in Attention, of the last norm


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every checkpoint tensor that the model needs: matrices (rows, columns), vectors (rows,)."""
    expected = {config.sources["embed"]: (config.vocab_size, config.d_model), config.sources["norm"]: (config.d_model,)}
    if not config.tied_head:
        expected[config.sources["head"]] = (config.vocab_size, config.d_model)

    def expect(source: Source, rows: int, *columns: int) -> None:
        name, end = (source, rows) if isinstance(source, str) else (source.name, source.end)
        expected[name] = (max(end, *expected.get(name, (0,))[:1]), *columns)

    for block in config.blocks:
        sizes = {axis.name: axis.size for axis in block.axes}
        if isinstance(block, Ssm):
            expected |= block.tensors(config.d_model)
            continue
        for norm, size in _norm_sizes(config, block).items():
            expect(block.sources[norm], size)
        for weight in block.weights:
            rows, columns = (
                config.d_model if run is None else sizes[run[0]] * run[1] for run in (weight.rows, weight.columns)
            )
            expect(block.sources[weight.role], rows, columns)
            if (bias := f"{weight.role}_bias") in block.sources:
                expect(block.sources[bias], rows)
    return expected


def _norm_sizes(config: ModelConfig, block: Block) -> dict[str, int]:
    sizes = {"norm": config.d_model}
    if block.post_norm:
        sizes["post_norm"] = config.d_model
    if isinstance(block, Attention) and block.qk_norm:
        sizes |= {"q_norm": block.head_dim, "k_norm": block.head_dim}
    return sizes


def head_quantum(n_heads: int, n_kv_heads: int, head_dim: int) -> int:
    """Smallest step of a head axis that keeps row panels in whole tiles and column panels in whole groups.

    A multiple of 8 that divides head_dim, with quantum * n_kv_heads a multiple of 16 and a legal group for
    quantum * n_heads columns; head_dim itself when there is none (the axis is then all or nothing).
    """
    for quantum in range(8, head_dim, 8):
        if head_dim % quantum == 0 and quantum * n_kv_heads % TILE_ROWS == 0 and choose_group(quantum * n_heads, 32):
            return quantum
    return head_dim


def choose_group(columns: int, preferred: int) -> int:
    """Largest group <= preferred, and at least 3/4 of it, that divides a step of `columns`; 0 when there is none."""
    return next((g for g in range(preferred, preferred * 3 // 4 - 1, -8) if columns % g == 0), 0)
