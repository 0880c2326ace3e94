"""The greedy walk from the full level down: always the step with the least loss per byte, of all blocks and all axes.

A block's state is the sizes that it keeps and the bits of its weights. Losses of sizes and of bits add up, and each
block's steps follow the lower convex hull of (bytes, loss) among the states that nest below the present one. Where the
file may not grow as much as bits would like, a price on its bytes leaves room to those that need it most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgesdk.cloud.allocate.inputs import AllocateInputs
from edgesdk.cloud.sizes import LevelPlan, model_panels

__all__ = ["Descent"]


@dataclass(frozen=True)
class _Block:
    """All states of a block: sizes (n_states, n_axes), place in the chain of bits (n_states,), and losses.

    bits, weight_bytes: of each weight, (n_states, n_weights); n_bytes: their sums
    """

    chain: list[tuple[int, ...]]
    sizes: NDArray[np.int64]
    places: NDArray[np.int64]
    bits: NDArray[np.int64]
    weight_bytes: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    losses: NDArray[np.float64]

    def find(self, kept: Sequence[int], bits: tuple[int, ...]) -> int:
        """The state with these sizes and bits."""
        same = (self.sizes == np.asarray(kept)).all(1) & (self.places == self.chain.index(bits))
        return int(np.flatnonzero(same)[0])

    def next(self, state: int, may_change_bits: bool, price: float) -> tuple[float, int] | None:
        """Least loss per byte and the state that it leads to; None: nothing is left to give up.

        price: what a byte of the file adds to the loss: of weights in bits that `state` does not have
        """
        below = (self.sizes <= self.sizes[state]).all(1) & (self.n_bytes < self.n_bytes[state])
        below &= self.places >= self.places[state] if may_change_bits else self.places == self.places[state]
        if not below.any():
            return None
        found = np.flatnonzero(below)
        grown = (self.weight_bytes[found] * (self.bits[found] != self.bits[state])).sum(1)
        lost = self.losses[found] - self.losses[state] + price * grown
        slopes = lost / (self.n_bytes[state] - self.n_bytes[found])
        best = int(np.argmin(slopes))
        return float(slopes[best]), int(found[best])


class Descent:
    """plan: where the walk is. size_losses: per block, the loss of every combination of sizes.

    price: of a byte of the file, in the unit of losses (KL)
    """

    def __init__(
        self, inputs: AllocateInputs, size_losses: Sequence[Mapping[tuple[int, ...], float]], price: float = 0.0
    ) -> None:
        self._inputs, self._price = inputs, price
        self.plan = inputs.full
        self._model_panels = model_panels(inputs.sizes.config)
        full = inputs.full
        self._blocks = [_block(inputs, index, losses) for index, losses in enumerate(size_losses)]
        self._states = [block.find(full.kept[i], full.bits[i]) for i, block in enumerate(self._blocks)]
        self._frozen = [False] * len(self._blocks)
        self._next: dict[int, tuple[float, int]] = {}
        for index in range(len(self._blocks)):
            self._look(index)
        self._room = inputs.settings.max_file_growth * self.mapped_bytes
        self._level = full  # the smallest level so far: what the next one has in other bits is stored beside it

    @property
    def loss(self) -> float:
        """The estimated KL of the plan."""
        blocks = sum(float(b.losses[state]) for b, state in zip(self._blocks, self._states, strict=True))
        losses = self._inputs.bit_losses
        own = zip(self._model_panels, self.plan.model_bits, strict=True)
        return blocks + sum(losses.get((None, panel.name), {}).get(bits, 0.0) for panel, bits in own)

    @property
    def mapped_bytes(self) -> int:
        """Of the plan's weights."""
        sizes = self._inputs.sizes
        return sizes.level(self.plan.kept, self.plan.bits) + sizes.model(self.plan.model_bits)

    def step(self, *, only_blocks: bool = False) -> bool:
        """Takes the cheapest step, of all or of blocks; False: nothing is left to give up."""
        while True:
            moves = [(slope, index, state) for index, (slope, state) in self._next.items()]
            model = None if only_blocks else self._model_move()
            if model is not None and (not moves or model[0] < min(moves)[0]):
                self.plan = model[1]
                return True
            if not moves:
                return False
            _, index, state = min(moves)
            plan = self._moved(index, state)
            if plan.bits[index] == self.plan.bits[index] or self._growth(plan) <= self._room:
                self.plan, self._states[index] = plan, state
            else:
                self._frozen[index] = True
                self._look(index)
                continue
            self._look(index)
            return True

    def keep_level(self) -> None:
        """The plan becomes a level: its versions of weights are stored."""
        self._room -= self._growth(self.plan)
        self._level = self.plan

    def _look(self, index: int) -> None:
        """Finds the cheapest next step of a block."""
        found = self._blocks[index].next(self._states[index], not self._frozen[index], self._price)
        if found is None:
            self._next.pop(index, None)
        else:
            self._next[index] = found

    def _moved(self, index: int, state: int) -> LevelPlan:
        block = self._blocks[index]
        kept = tuple(int(n) for n in block.sizes[state])
        bits = block.chain[int(block.places[state])]
        return replace(
            self.plan,
            kept=(*self.plan.kept[:index], kept, *self.plan.kept[index + 1 :]),
            bits=(*self.plan.bits[:index], bits, *self.plan.bits[index + 1 :]),
        )

    def _model_move(self) -> tuple[float, LevelPlan] | None:
        """The cheapest step of a panel of embedding or head that fits into the file."""
        best: tuple[float, LevelPlan] | None = None
        sizes = self._inputs.sizes
        for position, panel in enumerate(self._model_panels):
            losses = self._inputs.bit_losses.get((None, panel.name), {})
            now = self.plan.model_bits[position]
            for bits in (b for b in losses if b < now):
                n_bytes = sizes.model_panel(panel, bits)
                lost = losses[bits] - losses[now] + self._price * n_bytes
                slope = lost / (sizes.model_panel(panel, now) - n_bytes)
                own = self.plan.model_bits
                plan = replace(self.plan, model_bits=(*own[:position], bits, *own[position + 1 :]))
                if (best is None or slope < best[0]) and self._growth(plan) <= self._room:
                    best = slope, plan
        return best

    def _growth(self, plan: LevelPlan) -> int:
        """Bytes of the versions that the last level does not hold."""
        sizes = self._inputs.sizes
        total = sum(
            sizes.model_panel(panel, b)
            for panel, b, a in zip(self._model_panels, plan.model_bits, self._level.model_bits, strict=True)
            if a != b
        )
        for index, (bits, above) in enumerate(zip(plan.bits, self._level.bits, strict=True)):
            if bits != above:
                n_bytes = sizes.weights(index, plan.kept[index], bits)
                total += sum(n for n, b, a in zip(n_bytes, bits, above, strict=True) if a != b)
        return total


def _block(inputs: AllocateInputs, index: int, size_losses: Mapping[tuple[int, ...], float]) -> _Block:
    """Every combination of sizes with every place in the block's chain of bits."""
    sizes = inputs.sizes
    chain = _chain(inputs, index)
    kept = list(size_losses)
    even = (4,) * len(chain[0][0])
    whole = np.array(sizes.weights(index, inputs.full.kept[index], even), np.float64)
    shares = np.array([sizes.weights(index, k, even) for k in kept], np.float64) / whole
    weight_bytes, losses = [], []
    for bits, bit_losses in chain:
        weight_bytes += [sizes.weights(index, k, bits) for k in kept]
        losses.append(np.array(list(size_losses.values())) + shares @ np.array(bit_losses))
    return _Block(
        [bits for bits, _ in chain],
        np.array(kept * len(chain), np.int64),
        np.repeat(np.arange(len(chain)), len(kept)),
        np.repeat(np.array([bits for bits, _ in chain], np.int64), len(kept), axis=0),
        np.array(weight_bytes, np.int64),
        np.array(weight_bytes, np.int64).sum(1),
        np.concatenate(losses),
    )


def _chain(inputs: AllocateInputs, index: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """The bits of a block's weights and the loss of each, from those of the full level down, cheapest byte first."""
    block, sizes = inputs.sizes.config.blocks[index], inputs.sizes
    bits = inputs.full.bits[index]
    whole = inputs.full.kept[index]
    found = [
        inputs.bit_losses.get((index, weight.role), {own: 0.0}) for weight, own in zip(block.weights, bits, strict=True)
    ]
    chain = [(bits, tuple(own[b] for own, b in zip(found, bits, strict=True)))]
    while True:
        best: tuple[float, tuple[int, ...]] | None = None
        for position, own in enumerate(found):
            for lower in (b for b in own if b < bits[position]):
                new = (*bits[:position], lower, *bits[position + 1 :])
                saved = sizes.weights(index, whole, bits)[position] - sizes.weights(index, whole, new)[position]
                slope = (own[lower] - own[bits[position]]) / saved
                if best is None or slope < best[0]:
                    best = slope, new
        if best is None:
            return chain
        bits = best[1]
        chain.append((bits, tuple(own[b] for own, b in zip(found, bits, strict=True))))
