"""What recurrent operators have in common on the machine: which kernels are read how often, and the products of those
whose two kernels are requantised apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from nnac import isa
from nnac.ir import Node, QGraph
from nnac.ops import operator
from nnac.ops._recurrent import SeparateOperator
from nnac.schedule.emit import STRIDE, Emitter, Source
from nnac.schedule.forms import View
from nnac.schedule.kernels import Parameters, bands_of, requantise_blocks
from nnac.schedule.layout import EntryPlan
from nnac.schedule.ops import Emission, Made, Matrix
from nnac.schedule.tiling import Band
from nnac.vectors import Form, align, element_bytes


class RecurrentEmission(Emission):
    """Base: kernels ``input`` and ``recurrent``, and a hidden state that is the output of the frame before."""

    side_by_side = True
    # the hidden state is there before the input is: its products go under whatever makes the input
    streamed_together: ClassVar[tuple[str, ...]] = ("recurrent", "input")

    def read_at(self, node: Node, kernel: str, plan: EntryPlan) -> Sequence[int]:
        if kernel != "recurrent":
            return super().read_at(node, kernel, plan)
        view, hidden = plan.views[node.output], plan.slots[f"{node.path}.hidden"]
        places = [hidden.address + k * hidden.stride for k in range(plan.hypotheses)]
        return places if plan.hypotheses > 1 else [*(view.at(t) for t in range(view.vectors)), *places]

    def reads(self, kernel: str, vectors: int, batched: int, together: int) -> float:
        """Recurrent weights are read for every vector, the others at best once for all of them."""
        return vectors if kernel != "input" else vectors / min(batched, together)

    def again(self, kernel: str) -> bool:
        return kernel == "recurrent"

    def keep(self, node: Node, e: Emitter, y: View, last: int) -> None:
        """The hidden states are what vectors of the output are: ``last`` is that of the only one, or each hypothesis's
        its own."""
        hidden, count = e.plan.slots[f"{node.path}.hidden"], e.plan.hypotheses
        copied = count if max(y.form.stride, hidden.stride) <= STRIDE else 1
        for first in range(0, count, copied):
            e.put(isa.CPY(src=y.at(last + first), dst=hidden.address + first * hidden.stride,
                          bytes=hidden.width * hidden.size, count=copied, sstride=y.form.stride if copied > 1 else 0,
                          dstride=hidden.stride if copied > 1 else 0), "keep state")


@frozen
class Group:
    """Cells that are computed by one instruction, as soon as the rows of all their gates are there: ``units`` of them
    from ``first`` on, whose rows begin with row ``row`` of the kernels as they are ordered, at ``at`` bytes of a
    frame's pre-activations."""

    first: int
    units: int
    row: int
    rows: int
    at: int

    @property
    def span(self) -> range:
        """Its rows."""
        return range(self.row, self.row + self.rows)


class SeparateEmission(RecurrentEmission):
    """Base: each product requantised to Q3.12 by itself (`nnac.ops._recurrent.SeparateOperator`), then the cells.

    A frame has its own place in the buffer ``pre``, where the products of all frames with the input are put before the
    recurrence begins; those of the hidden state join them, or come behind them, frame after frame.
    """

    tables: ClassVar[tuple[str, ...]] = ("sigmoid", "tanh")
    in_groups: ClassVar[bool] = True                   # cells may be computed before all pre-activations are there
    joined: ClassVar[bool] = True                      # the products of both kernels are added
    paired: ClassVar[bool] = True                      # both kernels have as many rows

    def group_bytes(self, node: Node, units: int) -> int:
        """Bytes of the pre-activations of so many cells, a multiple of 4."""
        raise NotImplementedError

    def offset(self, node: Node, units: int, kernel: str) -> int:
        """Where in them the rows of a kernel begin, a multiple of 4."""
        raise NotImplementedError

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        """Parameters of what follows the products: name -> a block."""
        raise NotImplementedError

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        """The step of a group of cells, of a hypothesis: pre-activations and hidden state at these addresses."""
        raise NotImplementedError

    def memory(self, node: Node, e: Emitter, group: Group, hypothesis: int, number: int = 0) -> int:
        """Where a state of 16 bits of a group lies, one of those after the hidden state."""
        slot = e.plan.slots[node.states[1 + number].name]
        return slot.address + hypothesis * slot.stride + 2 * group.first

    def groups(self, node: Node, lanes: int) -> Iterator[Group]:
        """All cells.  A group of as many as there are lanes begins with a band."""
        cells, rows = node.attributes["cells"], separate(node).rows(node.attributes, "recurrent")
        most = lanes if self.in_groups and lanes % 4 == 0 else cells
        row = at = 0
        for first in range(0, cells, most):
            units = min(most, cells - first)
            own = rows * units // cells
            yield Group(first, units, row, own, at)
            row, at = row + own, at + self.group_bytes(node, units)

    def group_of(self, node: Node, band: Band, lanes: int) -> Group:
        """Whose rows a band has."""
        return next(g for g in self.groups(node, lanes) if band.first in g.span)

    def order(self, node: Node, kernel: str, lanes: int) -> NDArray:
        """Order of the rows of a kernel."""
        cells, gates = node.attributes["cells"], separate(node).gates
        return np.concatenate([gate * cells + group.first + np.arange(group.units)
                               for group in self.groups(node, lanes) for gate in range(gates)])

    def frame_bytes(self, node: Node, lanes: int) -> int:
        """Bytes of the pre-activations of a frame."""
        return sum(self.group_bytes(node, group.units) for group in self.groups(node, lanes))

    def matrices(self, node: Node, graph: QGraph, forms: Mapping[str, Form], lanes: int) -> Sequence[Matrix]:
        c, source = node.constants, node.inputs[0]
        return (Matrix("input", c["input"], forms[source].segments, graph.values[source].bits,
                       self.order(node, "input", lanes)),
                Matrix("recurrent", c["recurrent"], ((0, node.attributes["cells"]),), node.attributes["hidden_bits"],
                       self.order(node, "recurrent", lanes)))

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c, sets = node.constants, dict[str, tuple[bytes, ...]]()
        biases = dict(input=c["bias"], recurrent=c.get("recurrent_bias", np.zeros(len(c["recurrent"]), np.int64)))
        for name, bias in biases.items():
            order = self.order(node, name, made.lanes)
            sets[name] = tuple(requantise_blocks(bands_of(len(order), made.lanes), bias[order],
                                                 c[f"{name}_multiplier"][order], c[f"{name}_shift"][order], 0, 16,
                                                 False))
        sets |= {name: (block,) for name, block in self.cell_parameters(node, made).items()}
        return [Parameters(key_of(node, name), blocks, node.path) for name, blocks in sets.items()]

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        return dict(pre=vectors * hypotheses * self.frame_bytes(node, lanes))

    def emit(self, node: Node, e: Emitter) -> None:
        """Over all vectors of this call, from the last one where the node is reversed; or one step of each hypothesis,
        whose states lie in their places."""
        x, y = e.views(node)
        from_x, from_h = e.kernel(node, "input"), e.kernel(node, "recurrent")
        hidden = e.plan.slots[node.states[0].name]
        pre, pitch = e.plan.buffers[f"{node.path}.pre"], self.frame_bytes(node, e.config.lanes)
        done: list[Band] = []
        if e.plan.hypotheses > 1:
            if not self.paired:
                self.ahead(node, e, Source(from_x, x.address, x.form.stride), y.vectors, pre)
            for band in from_h.bands:
                self.product(node, e, band, Source(from_h, hidden.address, hidden.stride), y.vectors, pre, False)
                if self.paired:
                    self.product(node, e, band, Source(from_x, x.address, x.form.stride), y.vectors, pre, self.joined)
                done.append(band)
                for k in range(y.vectors):
                    self.finish(node, e, done, pre + k * pitch, k, y.at(k))
            self.keep(node, e, y, 0)
            return
        if ahead := y.vectors > 1 or not self.paired:
            self.ahead(node, e, Source(from_x, x.address, x.form.stride), y.vectors, pre)
        frames = range(y.vectors)[::-1] if node.attributes.get("reversed") else range(y.vectors)
        previous = hidden.address
        for t in frames:
            at, done = pre + t * pitch, []
            for band in e.in_turn(from_h, key_of(node, "recurrent")):
                self.product(node, e, band, Source(from_h, previous), 1, at, ahead and self.joined)
                if not ahead:
                    self.product(node, e, band, Source(from_x, x.at(t)), 1, at, self.joined)
                done.append(band)
                self.finish(node, e, done, at, 0, y.at(t))
            previous = y.at(t)
        self.keep(node, e, y, frames[-1])

    def ahead(self, node: Node, e: Emitter, source: Source, vectors: int, pre: int) -> None:
        """All bands of a kernel with all vectors, before the recurrence begins."""
        for band in source.kernel.bands:
            self.product(node, e, band, source, vectors, pre, False)

    def product(self, node: Node, e: Emitter, band: Band, source: Source, vectors: int, pre: int, add: bool) -> None:
        """A band of a kernel with so many vectors, to their pre-activations; ``add``: to what is there."""
        name, pitch = source.kernel.name, self.frame_bytes(node, e.config.lanes)
        group = self.group_of(node, band, e.config.lanes)
        dst = pre + group.at + self.offset(node, group.units, name) + 2 * (band.first - group.row)
        for together in e.passes(e.groups(vectors, (source.stride, pitch))):
            banks = e.sums(band, [source], together)
            params = e.parameters(key_of(node, name), band.index)
            for (first, count), bank in zip(together, banks, strict=True):
                at = dst + first * pitch
                e.requantise(band, bank, count, at, pitch, params, 1, add=2 if add else 0, addend=at if add else 0)

    def finish(self, node: Node, e: Emitter, done: Sequence[Band], pre: int, hypothesis: int, y: int) -> None:
        """The cells whose rows are all there with the last of the bands that are done."""
        size = element_bytes(node.attributes["hidden_bits"])
        group = self.group_of(node, done[-1], e.config.lanes)
        if sum(b.count for b in done if b.first in group.span) == group.rows:
            self.cells(node, e, group, pre + group.at, hypothesis, y + size * group.first)


def separate(node: Node) -> SeparateOperator:
    """The operator of a node whose products are requantised apart."""
    return cast(SeparateOperator, operator(node.op))


def key_of(node: Node, name: str) -> str:
    """The key of a node's parameters."""
    return f"{node.path}.{name}.parameters"


def even(elements: int) -> int:
    """Bytes of so many int16, filled up."""
    return align(2 * elements, 4)
