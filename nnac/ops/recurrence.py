"""A recurrent cell as the user wrote it, frame after frame in a loop: two products, then steps of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.formats import unit_scale
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, State, require
from nnac.ops._carriers import stacked
from nnac.ops._recurrent import SeparateOperator, require_sums
from nnac.ops._steps import BITS, FIRST, NORM, narrowed, steps_of, table_name, taken

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class RecurrenceAttributes(Attributes):
    """Cells; rows of the kernel of the input, and of the recurrent one; the steps, as text (`nnac.ops._steps`); bits of
    the hidden state; fraction bits of every value of the steps, as text, 0 where calibration has not chosen them
    yet."""

    cells: int
    rows: int
    again: int
    steps: str
    hidden_bits: int = 8
    fractions: str = ""

    @property
    def every_fraction(self) -> tuple[int, ...]:
        return tuple(map(int, self.fractions.split()))


class Recurrence(SeparateOperator):
    """Any cell whose products read the input and the hidden state, and whose rest goes element by element, or by norms.

    State: hidden, and what the steps keep (`state_name`), int16.
    constants  as of `SeparateOperator` and recurrent_bias; hidden_multiplier, hidden_shift (of the value that `hidden`
               names); a table for each function and fraction that is looked up (``sigmoid.12``), ``step`` for ReLUs;
               norm<k>_gain, …, rsqrt
    Source: our choice; the arithmetic of each step is that of the operator of its name.
    """

    attributes_type = RecurrenceAttributes
    of_direction = (*SeparateOperator.of_direction, "recurrent_bias")

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        steps = steps_of(attributes["steps"])
        return steps.hidden in steps.unit

    def rows(self, attributes: Mapping[str, Any], kernel: str) -> int:
        return int(attributes["rows" if kernel == "input" else "again"])

    def attributes(self, layer: LayerShape, p: Precision) -> RecurrenceAttributes:
        a = layer.attributes
        known = " ".join(map(str, steps_of(a["steps"]).known))
        return RecurrenceAttributes(a["cells"], a["rows"], a["again"], a["steps"], p.hidden, known)

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        cells, steps = layer.attributes["cells"], steps_of(layer.attributes["steps"])
        scale = unit_scale(p.hidden, p.hidden_clip) if self.bounded(layer.attributes) else None
        hidden, *kept = state_names(layer.path, layer.attributes["steps"])
        return (StateVector(hidden, cells, p.hidden, scale),
                *(StateVector(name, cells, BITS, 2.0**-known if known else None)
                  for name, known in zip(kept, steps.known[FIRST:], strict=False)))

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        return 2 * attributes["cells"] * len(steps_of(attributes["steps"]).keep) + width * -(-hidden_bits // 8)

    def constants_of(self, node: Node) -> tuple[str, ...]:
        a = record(node.attributes, RecurrenceAttributes)
        steps = steps_of(a.steps)
        tables = dict.fromkeys(t for s in steps.steps if (t := table_name(s, a.every_fraction)))
        norms = [f"norm{k}_{n}" for k in steps.norms.values()
                 for n in NORM]
        return (*self.of_direction, "hidden_multiplier", "hidden_shift", *tables, *norms, *(["rsqrt"] if norms else []))

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        steps = steps_of(attributes["steps"])
        widths = sizes(attributes)
        # an operand begins at a multiple of 4 bytes
        return (max(widths) <= MOST_ELEMENTS
                and all(s.numbers[0] % 2 == 0 for s in steps.steps if s.op == "part")
                and not any(narrowed(widths[v]) for v in steps.norms))

    def pieces(self, cells: int, lanes: int) -> list[int]:
        return [cells]

    def update(self, m: MachineConfig, attributes: Mapping[str, Any], cells: int) -> int:
        from nnac.isa import beats

        steps = steps_of(attributes["steps"])
        widths = sizes(attributes)
        cost = dict(sum=beats.add, scale=beats.add, norm=beats.normalise,
                    relu=lambda m, n: 2 * beats.elementwise(m, n))
        made = [(s.op, widths[v]) for v, s in steps.numbered() if s.op != "part"]
        return sum(m.vx_fill + cost.get(op, beats.elementwise)(m, n) for op, n in (*made, ("scale", cells)))

    def work(self, job: Job, m: MachineConfig) -> Work:
        steps = steps_of(job.attributes["steps"])
        inner = sizes(job.attributes)[steps.made:]
        made = super().work(job, m)
        return made._replace(buffer_bytes=made.buffer_bytes + 2 * sum(inner))

    def direction(self, node: Node, x: Array, prefix: str, state: State, constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, c = record(node.attributes, RecurrenceAttributes), constants
        steps, fractions = steps_of(a.steps), a.every_fraction
        names = state_names(node.path, a.steps)
        hidden, *kept = (state[n] for n in names)
        from_input = arith.requantise(arith.matmul(x, c["input"]) + c["bias"], c["input_multiplier"], c["input_shift"],
                                      0, BITS)
        outputs = []
        for each in from_input:
            product = arith.requantise(arith.matmul(hidden, c["recurrent"]) + c["recurrent_bias"],
                                       c["recurrent_multiplier"], c["recurrent_shift"], 0, BITS)
            values = [each, product, *kept]
            for value, step in steps.numbered():
                values.append(taken(step, value, values, fractions, c, steps.norms.get(value, 0)))
            kept = [values[i] for i in steps.keep]
            hidden = arith.requantise(values[steps.hidden], c["hidden_multiplier"], c["hidden_shift"], 0, a.hidden_bits)
            outputs.append(hidden)
        for name, new in zip(names, (hidden, *kept), strict=True):
            state[name] = new
        return stacked(outputs, x)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, RecurrenceAttributes)
        steps = steps_of(a.steps)
        require(output.width == a.cells and output.rate == inputs[0].rate, node, f"makes {a.cells} values a frame")
        require(not (wrong := steps.verified((a.rows, a.again), a.cells)), node, wrong)
        fractions, known = a.every_fraction, steps.known
        require(len(fractions) == len(known) and all(0 < f < BITS or (f == 0 and not node.constants)
                                                     for f in fractions), node, "values have 1 to 15 fraction bits")
        require(all(fractions[v] == fractions[first] for v, first in enumerate(steps.formats)), node,
                "what only moves keeps its format")
        if node.constants:
            for kernel in self.meets:
                rows = self.rows(a, kernel)
                require(node.constants[kernel].shape[0] == rows, node, f"`{kernel}` has {rows} rows")
            require_sums(node, (("input", inputs[0].bits, "bias"), ("recurrent", a.hidden_bits, "recurrent_bias")), 32)


def sizes(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """Elements of every value of the steps of a layer with these attributes."""
    return steps_of(attributes["steps"]).widths((attributes["rows"], attributes["again"]), attributes["cells"])


def state_names(path: str, text: str) -> tuple[str, ...]:
    """Of all states of a layer: the hidden one, then those of 16 bits."""
    return f"{path}.hidden", *(f"{path}.{state_name(text, k)}" for k in range(len(steps_of(text).keep)))


def state_name(text: str, number: int) -> str:
    """What a value that is kept is called: ``blend`` where it is what is given out, before it is rounded, else
    ``cell``, numbered from the second on."""
    steps = steps_of(text)
    if steps.keep[number] == steps.hidden:
        return "blend"
    before = sum(v != steps.hidden for v in steps.keep[:number])
    return f"cell{before}" if before else "cell"
