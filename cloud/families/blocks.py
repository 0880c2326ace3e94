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
    """Gated MLP: down(activation(gate(x)) * up(x))."""

    name: str
    width: int
    activation: str
    sources: Mapping[str, Source] = field(repr=False)  # norm, gate up down; optional: gate_bias .., post_norm
    kind: str = "mlp"
    gain_offset: float = 0.0  # as in Attention

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
        return (
            Weight("gate", ("width", 1), None),
            Weight("up", ("width", 1), None),
            Weight("down", None, ("width", 1)),
        )


Block = Attention | Mlp


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
