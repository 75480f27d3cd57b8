"""What recurrent operators have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nnac.formats import unit_scale
from nnac.limits import MOST_UNITS
from nnac.ops import Array, Operator, State, require
from nnac.ops._carriers import join, reverse, stacked

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Product, Work


DIRECTIONS = {False: ("",), True: ("forward.", "backward.")}


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

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        (x,) = inputs
        if not node.attributes.get("bidirectional"):
            backwards = bool(node.attributes.get("reversed"))
            made = self.direction(node, reverse(x) if backwards else x, "", state, constants)
            return reverse(made) if backwards else made
        forward = self.direction(node, x, "forward.", state, constants)
        backward = self.direction(node, reverse(x), "backward.", {k: v * 0 for k, v in state.items()}, constants)
        return join(forward, reverse(backward))

    def direction(self, node: Node, x: Array, prefix: str, state: State, constants: Mapping[str, Array]) -> Array:
        """One direction over [T, B, I]; replaces ``state`` and returns the hidden sequence [T, B, H]."""
        raise NotImplementedError

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        from nnac.ir import Value

        scale = unit_scale(p.hidden, p.hidden_clip) if self.bounded(layer.attributes) else None
        return Value(layer.path, layer.width, p.hidden, layer.rate, scale)


class SeparateOperator(RecurrentOperator):
    """Two products, each requantised to Q3.12 by itself, then the cells.  Constants of a direction and states carry the
    prefix ``forward.``/``backward.`` when bidirectional; the backward half has no streaming state: it starts at zero at
    the end of the sequence it is given.

    constants, of a direction  input int8 [G H, I]   recurrent int8 [G H, H]   bias int64 [G H]
               input_multiplier, input_shift, recurrent_multiplier, recurrent_shift [G H]   and, where it has one,
               recurrent_bias
    """

    gates: ClassVar[int]
    memory: ClassVar[str] = "cell"                     # the state of 16 bits
    of_direction: ClassVar[tuple[str, ...]] = ("input", "recurrent", "bias", "input_multiplier", "input_shift",
                                               "recurrent_multiplier", "recurrent_shift")

    def rows(self, attributes: Mapping[str, Any], kernel: str) -> int:
        """Of a kernel."""
        return self.gates * int(attributes["cells"])

    def constants_of(self, node: Node) -> tuple[str, ...]:
        prefixes = DIRECTIONS[bool(node.attributes.get("bidirectional"))]
        return (*(d + n for d in prefixes for n in self.of_direction), *self.constants)

    def step(self, from_input: Array, from_hidden: Array, memory: Array, c: Mapping[str, Array],
             node: Node) -> tuple[Array, Array]:
        """(hidden, memory) after one frame, from both products in Q3.12."""
        raise NotImplementedError

    def direction(self, node: Node, x: Array, prefix: str, state: State, constants: Mapping[str, Array]) -> Array:
        """One direction over [T, B, I]; replaces ``state`` and returns the hidden sequence [T, B, H]."""
        from nnac import arith

        c = dict(constants) | {n: constants[prefix + n] for n in self.of_direction}
        names = f"{node.path}.{prefix}hidden", f"{node.path}.{prefix}{self.memory}"
        hidden, memory = (state[n] for n in names)
        bias = c["recurrent_bias"] if "recurrent_bias" in self.of_direction else 0
        from_input = arith.requantise(arith.matmul(x, c["input"]) + c["bias"], c["input_multiplier"], c["input_shift"],
                                      0, 16)
        outputs = []
        for each in from_input:
            product = arith.requantise(arith.matmul(hidden, c["recurrent"]) + bias, c["recurrent_multiplier"],
                                       c["recurrent_shift"], 0, 16)
            hidden, memory = self.step(each, product, memory, c, node)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, memory
        return stacked(outputs, x)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = node.attributes
        prefixes = DIRECTIONS[bool(a.get("bidirectional"))]
        width = a["cells"] * len(prefixes)
        require(output.width == width and output.rate == inputs[0].rate, node, f"makes {width} values a frame")
        if not node.constants:
            return
        bias = "recurrent_bias" if "recurrent_bias" in self.of_direction else None
        for d in prefixes:
            for kernel in self.meets:
                rows = self.rows(a, kernel)
                require(node.constants[f"{d}{kernel}"].shape[0] == rows, node, f"`{kernel}` has {rows} rows")
            require_sums(node, ((f"{d}input", inputs[0].bits, f"{d}bias"),
                                (f"{d}recurrent", a["hidden_bits"], bias and d + bias)), 32)

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return lanes % 4 == 0 or attributes["cells"] <= MOST_UNITS

    def update(self, m: MachineConfig, attributes: Mapping[str, Any], cells: int) -> int:
        """Cycles of VX for ``cells`` cells of a layer with these attributes, once their pre-activations are there."""
        raise NotImplementedError

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.ops._work import Work

        parts = [self._direction_work(job, kernels, m) for kernels in job.products]
        return Work(*(sum(part[k] for part in parts) for k in range(5)))

    def _direction_work(self, job: Job, kernels: Mapping[str, Product], m: MachineConfig) -> Work:
        """Of one direction."""
        from nnac.isa import beats
        from nnac.ops._work import Work, bands, groups, requantised, words

        cells, vectors = job.attributes["cells"], job.vectors
        rows, again = (self.rows(job.attributes, kernel) for kernel in self.meets)
        together = groups(vectors, m.columns)
        x, h = words(m, kernels["input"], job.in_bits), words(m, kernels["recurrent"], job.hidden_bits)
        updates = [self.update(m, job.attributes, n) for n in self.pieces(cells, m.lanes)]
        step, park = requantised(m, again, [1]), requantised(m, rows, together)
        matrix, vector = len(together) * x[0] + vectors * h[0], park + vectors * (step + sum(updates))
        last = bands(again, m.lanes)[-1]
        # the last cells wait for the last product, and nothing is multiplied meanwhile
        drain = m.mv_drain + m.vx_fill + beats.requantise(m, last) + updates[-1]
        # frames follow each other: each waits for the hidden state of the one before
        each = max(h[0], step + sum(updates[:-1])) + drain
        bound = (max(len(together) * x[0], park) + vectors * each if vectors > 1
                 else max(matrix, vector - updates[-1]) + drain)
        return Work(vector, matrix, len(together) * x[1] + vectors * h[1], bound - max(matrix, vector),
                    2 * (rows + again) * vectors)

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
