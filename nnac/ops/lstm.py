"""LSTM over a sequence, one or both directions, with or without a recurrent projection.  State: hidden (and cell) per
direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import PRE, unit_scale
from nnac.limits import MOST_UNITS
from nnac.ops import Array, State, require
from nnac.ops._carriers import stacked
from nnac.ops._recurrent import DIRECTIONS, RecurrentOperator, cell_states, require_fraction, require_sums

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Product, Work

KERNEL_BITS = 31                       # of the sums of one kernel, bias included: two share an accumulator of 32


def interleaved(lanes: int) -> bool:
    """Whether a band of so many rows can hold whole cells whose results start at multiples of 4 elements."""
    return lanes % 16 == 0


@frozen(eq=False, repr=False)
class LstmAttributes(Attributes):
    """Cells; variant ``acc32`` or ``sum16``; fraction bits of the cell (0: calibration chooses them); bits of
    the hidden state and, before a projection, of the cells' outputs.

    project   width of the projection, 0 for none      reversed
    one direction that goes from the sequence's end (`nnac.schedule.passes`)
    """

    cells: int
    variant: str
    fraction: int
    hidden_bits: int = 8
    bidirectional: bool = False
    project: int = 0
    cell_output_bits: int = 8
    reversed: bool = False


class Lstm(RecurrentOperator):
    """The LSTM of docs/design.md §5.  Constants and states carry the prefix ``forward.``/``backward.`` when
    bidirectional.

    constants  input int8 [4H, I]   recurrent int8 [4H, R]   bias int64 [4H]   hidden_multiplier, hidden_shift (scalars)
               acc32: multiplier, shift [4H]: input and recurrent products share one accumulator and one scale a row
               sum16: input_multiplier, input_shift, recurrent_multiplier, recurrent_shift [4H]; the bias joins the
               input product project: project int8 [R, H], project_bias [R], project_multiplier, project_shift [R]; cell
               outputs are then int8 too sigmoid, tanh, tanh_cell int16 [513]
    attributes cells, variant (acc32|sum16), fraction (of the cell), bidirectional, project (width or 0), hidden_bits
               reversed: a single direction that goes through the sequence from its end (`nnac.schedule.passes`)
    The backward half of a bidirectional layer has no streaming state: it starts at zero at the end of the sequence it
    is given.
    """

    attributes_type = LstmAttributes
    meets = {**RecurrentOperator.meets, "project": "hidden"}  # noqa: RUF012
    shares_sum = ("input", "recurrent")

    def attributes(self, layer: LayerShape, p: Precision) -> LstmAttributes:
        a = layer.attributes
        return LstmAttributes(cells=a["cells"], variant=p.variant, fraction=p.cell_fraction, hidden_bits=p.hidden,
                              bidirectional=a["bidirectional"],
                    project=a["project"], cell_output_bits=8)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        a = layer.attributes
        scale = unit_scale(p.hidden, p.hidden_clip) if self.bounded(a) else None
        return tuple(s for d in DIRECTIONS[a["bidirectional"]]
                     for s in cell_states(f"{layer.path}.{d}".removesuffix("."), a["project"] or a["cells"], a["cells"],
                                          p, scale))

    def constants_of(self, node: Node) -> tuple[str, ...]:
        names = ["input", "recurrent", "bias", "hidden_multiplier", "hidden_shift"]
        names += ["multiplier", "shift"] if record(node.attributes, LstmAttributes).variant == "acc32" else [
            "input_multiplier", "input_shift", "recurrent_multiplier", "recurrent_shift"]
        if record(node.attributes, LstmAttributes).project:
            names += ["project", "project_bias", "project_multiplier", "project_shift"]
        directions = DIRECTIONS[bool(record(node.attributes, LstmAttributes).bidirectional)]
        return (*(d + n for d in directions for n in names), "sigmoid", "tanh", "tanh_cell")

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return interleaved(lanes) or attributes["cells"] <= MOST_UNITS

    def seen_bias(self, attributes: Mapping[str, Any]) -> tuple[int, int]:
        # of gates i, f, g, o the cell input, by 1/16
        return 2 * attributes["cells"], 1 << (PRE.fraction - 4)

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.ops._work import Work

        cells, directions = job.attributes["cells"], [self._direction_work(job, kernels, m) for kernels in job.products]
        vector, matrix, least, tail = (sum(d[k] for d in directions) for k in range(4))
        return Work(vector, matrix, least, tail, 16 * cells * job.vectors if job.vectors > 1 else 0)

    def _direction_work(self, job: Job, kernels: Mapping[str, Product], m: MachineConfig) -> tuple[int, int, int, int]:
        """(vector, matrix, matrix at the least, tail) of one direction."""
        from nnac.isa import beats
        from nnac.ops._work import bands, groups, requantised, words

        cells, vectors = job.attributes["cells"], job.vectors
        rows, by_band = bands(4 * cells, m.lanes), interleaved(m.lanes)
        updates = [n // 4 for n in rows] if by_band else [cells]
        update = sum(m.vx_fill + beats.lstm(m, n) for n in updates)
        parked = vectors > 1
        together = groups(vectors, m.columns)
        park = requantised(m, 4 * cells, together) if parked else 0
        x, h = words(m, kernels["input"], job.in_bits), words(m, kernels["recurrent"], job.hidden_bits)
        extra, project = 0, (0, 0)
        if "project" in kernels:
            project, extra = words(m, kernels["project"], 8), requantised(m, kernels["project"].rows, [1])
        step = requantised(m, 4 * cells, [1]) * (2 if job.separate and not parked else 1) + update + extra
        each, n = h[0] + project[0], len(together) if parked else 1
        drain = m.mv_drain + 2 * m.vx_fill + beats.requantise(m, rows[-1]) + beats.lstm(m, max(1, updates[-1])) + extra
        # frames follow each other: each waits for the hidden state of the one before
        matrix, vector = n * x[0] + vectors * each, park + vectors * step
        bound = max(n * x[0], park) + vectors * (max(each, step) + drain) if parked else max(matrix,
            vector) + vectors * drain
        return vector, matrix, n * x[1] + vectors * (h[1] + project[1]), bound - max(matrix, vector)

    def direction(self, node: Node, x: Array, prefix: str, state: State, constants: Mapping[str, Array]) -> Array:
        """One direction over [T, B, I]; replaces ``state`` and returns the hidden sequence [T, B, R]."""
        from nnac import arith

        c = {k[len(prefix):]: v for k, v in constants.items() if k.startswith(prefix)} | {
            k: constants[k] for k in ("sigmoid", "tanh", "tanh_cell")}
        a = record(node.attributes, LstmAttributes)
        hidden_name, cell_name = (f"{node.path}.{prefix}{s}" for s in ("hidden", "cell"))
        hidden, cell = state[hidden_name], state[cell_name]
        out_bits = a.cell_output_bits if a.project else a.hidden_bits
        from_input = arith.matmul(x, c["input"]) + c["bias"]
        if a.variant == "sum16":
            from_input = arith.requantise(from_input, c["input_multiplier"], c["input_shift"], 0, 16)
        outputs = []
        for step in from_input:
            product = arith.matmul(hidden, c["recurrent"])
            if a.variant == "sum16":
                pre = arith.saturate(step + arith.requantise(product, c["recurrent_multiplier"], c["recurrent_shift"],
                                                             0, 16), 16)
            else:
                pre = arith.requantise(step + product, c["multiplier"], c["shift"], 0, 16)
            hidden, cell = arith.lstm_cell(pre, cell, c["sigmoid"], c["tanh"], c["tanh_cell"], a.fraction,
                                           c["hidden_multiplier"], c["hidden_shift"], out_bits)
            if a.project:
                acc = arith.matmul(hidden, c["project"]) + c["project_bias"]
                hidden = arith.requantise(acc, c["project_multiplier"], c["project_shift"], 0, a.hidden_bits)
            outputs.append(hidden)
        state[hidden_name], state[cell_name] = hidden, cell
        return stacked(outputs, x)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, LstmAttributes)
        require(a.variant in ("acc32", "sum16"), node, f"variant {a.variant} is acc32 or sum16")
        require_fraction(node, a.fraction)
        width = (a.project or a.cells) * (2 if a.bidirectional else 1)
        require(output.width == width and output.rate == inputs[0].rate, node, f"makes {width} values a frame")
        if node.constants:
            for d in DIRECTIONS[bool(a.bidirectional)]:
                require_sums(node, ((d + "input", inputs[0].bits, d + "bias"), (d + "recurrent", a.hidden_bits, None)),
                             KERNEL_BITS)
