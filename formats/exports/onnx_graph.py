"""A graph of ONNX nodes that grows line by line, and how weights stand in it: float, or blocks of 4 and 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.formats.exports.blockwise import Blocks, eight_bits, four_bits
from edgesdk.formats.exports.natural import Floats

__all__ = ["Graph", "Table"]

BLOCK = 32  # columns that share a scale
_INT8_ACTIVATIONS = 4  # accuracy_level of MatMulNBits


@dataclass(frozen=True)
class Table:
    """A matrix that is looked up by row and multiplied with: names of its codes and scales; float: scales is empty."""

    codes: str
    scales: str
    shape: tuple[int, int]


class Graph:
    """Nodes, constants, inputs and outputs. Names of tensors are what its methods return and take."""

    CONTRIBUTED = "com.microsoft"

    def __init__(self, onnx: Any, opset: int, weights: str) -> None:
        self._onnx, self._opset, self._weights = onnx, opset, weights
        self._types = onnx.TensorProto
        self.FLOAT, self.INT64, self.INT32, self.BOOL = (
            self._types.FLOAT,
            self._types.INT64,
            self._types.INT32,
            self._types.BOOL,
        )
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._n_names = 0

    @property
    def contributed(self) -> bool:
        """Whether onnxruntime's own operators are used."""
        return self._weights in ("int4", "int8")

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        self._n_names += 1
        return f"{stem}_{self._n_names}"

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Adds an input; text in its shape names sizes that are not fixed."""
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Makes a tensor an output."""
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))

    def node(self, op: str, *inputs: str, names: Sequence[str] = (), domain: str = "", **attributes: Any) -> str:
        """Adds a node and returns its first output; names: of all its outputs, a fresh one by default."""
        outputs = list(names) or [self.fresh(op.lower())]
        made = self._onnx.helper.make_node(op, list(inputs), outputs, domain=domain, name=outputs[0], **attributes)
        self._nodes.append(made)
        return outputs[0]

    def split(self, x: str, sizes: Sequence[int]) -> list[str]:
        """Parts of the last axis."""
        names = [self.fresh("split") for _ in sizes]
        self.node("Split", x, self.ints(sizes), names=names, axis=-1)
        return names

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """A constant that no other has to equal."""
        name = self.fresh("constant")
        self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(values), name)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """int64 numbers, (n,); equal ones are stored once."""
        return self._once(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """One int64 number without axes."""
        return self._once(f"int_{value}", np.array(value, np.int64))

    def floats(self, value: float) -> str:
        """One float32 number without axes."""
        return self._once(f"float_{value:g}", np.array(value, np.float32))

    def matmul(self, x: str, weight: Floats, *, bias: Floats | None = None, bits: int = 4) -> str:
        """x (..., columns) times weight (rows, columns) transposed, plus bias (rows,)."""
        if self._weights == "float":
            y = self.node("MatMul", x, self.constant(np.ascontiguousarray(weight.T)))
        else:
            bits = 8 if self._weights == "int8" else bits
            blocks = four_bits(weight, BLOCK) if bits == 4 else eight_bits(weight, BLOCK)
            multiply = self._by_blocks if self.contributed else self._by_dequantizing
            y = multiply(x, blocks, bits, weight.shape[1])
        return y if bias is None else self.node("Add", y, self.constant(bias))

    def table(self, values: Floats) -> Table:
        """Embedding rows: in float, or as 8 bits in blocks."""
        if self._weights == "float":
            return Table(self.constant(values), "", values.shape)
        blocks = eight_bits(values, BLOCK)
        return Table(self.constant(blocks.codes), self.constant(blocks.scales), values.shape)

    def lookup(self, table: Table, rows: str, size: int) -> str:
        """Rows of a table, (batch, tokens, size)."""
        if not table.scales:
            return self.node("Gather", table.codes, rows)
        codes = self.node("Cast", self.node("Gather", table.codes, rows), to=self.FLOAT)
        scales = self.node("Unsqueeze", self.node("Gather", table.scales, rows), self.ints([-1]))
        values = self.node("Mul", self.node("Sub", codes, self.floats(128)), scales)
        flat = self.node("Reshape", values, self.ints([0, 0, -1]))
        return (
            flat if size % BLOCK == 0 else self.node("Slice", flat, self.ints([0]), self.ints([size]), self.ints([-1]))
        )

    def matmul_shared(self, x: str, table: Table) -> str:
        """x (..., columns) times the whole table, transposed; the table is stored once for both uses."""
        rows, columns = table.shape
        if not table.scales:
            return self.node("MatMul", x, self.node("Transpose", table.codes, perm=[1, 0]))
        if self.contributed:
            return self._matmul_n_bits(x, table.codes, table.scales, None, 8, rows, columns)
        codes = self.node("Sub", self.node("Cast", table.codes, to=self.FLOAT), self.floats(128))
        values = self.node("Mul", codes, self.node("Unsqueeze", table.scales, self.ints([-1])))
        flat = self.node("Reshape", values, self.ints([rows, -1]))
        if columns % BLOCK:
            flat = self.node("Slice", flat, self.ints([0]), self.ints([columns]), self.ints([-1]))
        return self.node("MatMul", x, self.node("Transpose", flat, perm=[1, 0]))

    def model(self, name: str) -> Any:
        """The graph as an ONNX model."""
        helper = self._onnx.helper
        constants = list(self._constants.values())
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, constants)
        opsets = [helper.make_opsetid("", self._opset)]
        if self.contributed:
            opsets.append(helper.make_opsetid(self.CONTRIBUTED, 1))
        version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
        return helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="edgesdk")

    def _once(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(values, name)
        return name

    def _by_blocks(self, x: str, blocks: Blocks, bits: int, columns: int) -> str:
        codes, zeros = (blocks.codes, None) if bits == 8 else (_nibbles(blocks.codes), _nibbles(blocks.zeros))
        named = None if zeros is None else self.constant(zeros)
        rows = len(blocks.codes)
        return self._matmul_n_bits(x, self.constant(codes), self.constant(blocks.scales), named, bits, rows, columns)

    def _matmul_n_bits(
        self, x: str, codes: str, scales: str, zeros: str | None, bits: int, rows: int, columns: int
    ) -> str:
        return self.node(
            "MatMulNBits",
            *(x, codes, scales, *(() if zeros is None else (zeros,))),
            domain=self.CONTRIBUTED,
            K=columns,
            N=rows,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=_INT8_ACTIVATIONS,
        )

    def _by_dequantizing(self, x: str, blocks: Blocks, bits: int, columns: int) -> str:
        """DequantizeLinear over (columns, rows); filled-up columns are cut off, where there are any."""
        rows = len(blocks.codes)
        codes = np.ascontiguousarray(blocks.codes.reshape(rows, -1)[:, :columns].T)
        scales, zeros = np.ascontiguousarray(blocks.scales.T), np.ascontiguousarray(blocks.zeros.T)
        if bits == 4:
            stored, zero = self._uint4(codes), self._uint4(zeros)
        else:
            stored, zero = self.constant(codes), self.constant(zeros)
        weight = self.node("DequantizeLinear", stored, self.constant(scales), zero, axis=0, block_size=BLOCK)
        return self.node("MatMul", x, weight)

    def _uint4(self, codes: NDArray[np.uint8]) -> str:
        name = self.fresh("uint4")
        packed = _nibbles(codes.reshape(1, -1)).tobytes()
        tensor = self._onnx.helper.make_tensor(name, self._types.UINT4, codes.shape, packed, raw=True)
        self._constants[name] = tensor
        return name


def _nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two codes a byte along the last axis, the first in the low half; an odd one stands alone."""
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return np.bitwise_or(even[..., ::2], np.left_shift(even[..., 1::2], np.uint8(4)))
