"""What recurrent operators have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nnac.formats import unit_scale
from nnac.limits import MOST_UNITS
from nnac.ops import Operator, require

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


class RecurrentOperator(Operator):
    """Two kernels, one for the input and one for the hidden state; int8 weights."""

    recurrent = True
    folds_zero_point = True
    weight_bits = 8
    meets = {"input": "input", "recurrent": "hidden"}  # noqa: RUF012 (a fact, never written to)

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        return not attributes.get("project")           # h = o tanh(c); a projection may be anything

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        """Bytes of `states`: an int16 for each cell, and the hidden state."""
        return 2 * attributes["cells"] * (2 if attributes.get("bidirectional") else 1) + width * -(-hidden_bits // 8)

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from nnac.ir import Value

        scale = unit_scale(p.hidden, p.hidden_clip) if self.bounded(layer.attributes) else None
        return Value(layer.path, layer.width, p.hidden, layer.rate, scale)


class SeparateOperator(RecurrentOperator):
    """One direction, whose two products are requantised to Q3.12 each by itself."""

    gates: ClassVar[int]

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return lanes % 4 == 0 or attributes["cells"] <= MOST_UNITS

    def update(self, m: MachineConfig, cells: int) -> int:
        """Cycles of VX for ``cells`` cells, once their pre-activations are there."""
        raise NotImplementedError

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, bands, groups, requantised, words

        (kernels,), cells, vectors = job.products, job.attributes["cells"], job.vectors
        rows, together = self.gates * cells, groups(vectors, m.columns)
        x, h = words(m, kernels["input"], job.in_bits), words(m, kernels["recurrent"], job.hidden_bits)
        update = sum(self.update(m, n) for n in self.pieces(cells, m.lanes))
        step, park = requantised(m, rows, [1]), requantised(m, rows, together)
        matrix, vector = len(together) * x[0] + vectors * h[0], park + vectors * (step + update)
        last = bands(rows, m.lanes)[-1]
        drain = m.mv_drain + m.vx_fill + beats.requantise(m, last) + self.update(m, self.pieces(cells, m.lanes)[-1])
        # frames follow each other: each waits for the hidden state of the one before
        each = max(h[0], step + update) + drain
        bound = max(len(together) * x[0], park) + vectors * each if vectors > 1 else max(matrix, vector) + drain
        return Work(vector, matrix, len(together) * x[1] + vectors * h[1], bound - max(matrix, vector),
                    4 * rows * vectors)

    def pieces(self, cells: int, lanes: int) -> list[int]:
        """Cells of each instruction that computes them."""
        from nnac.ops._work import bands

        return bands(cells, lanes) if lanes % 4 == 0 else [cells]


def cell_states(path: str, hidden: int, cells: int, p: Precision, scale: float | None) -> tuple[StateVector,
        StateVector]:
    """Hidden state and cell of one direction of an LSTM; a cell whose fraction calibration chooses has no scale yet."""
    from nnac.ir import State as StateVector

    return (StateVector(f"{path}.hidden", hidden, p.hidden, scale),
            StateVector(f"{path}.cell", cells, 16, 2.0**-p.cell_fraction if p.cell_fraction else None))


def require_fraction(node: Node, fraction: int) -> None:
    """GraphError unless a cell has 1 to 15 fraction bits, or 0 (calibration chooses them) in a graph that is not yet
    bound."""
    require(0 < fraction < 16 or (fraction == 0 and not node.constants), node, "the cell has 1 to 15 fraction bits")


def require_sums(node: Node, kernels: Iterable[tuple[str, int, str | None]], bits: int) -> None:
    """GraphError unless all sums of (kernel, bits of what meets it, bias or None) fit ``bits`` bits."""
    from nnac import arith

    for kernel, width, bias in kernels:
        bound = int(arith.accumulator_bound(width, node.constants[kernel], node.constants[bias] if bias else 0).max())
        require(bound < 1 << (bits - 1), node, f"the accumulator of {kernel} reaches {bound}, more than {bits} bits")
