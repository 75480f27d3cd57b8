"""LSTM of one direction, frame after frame; the input products of several frames are made before the recurrence
begins.  Or one step of several hypotheses, each with a state of its own: then all its products meet each weight
together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.lstm import LstmAttributes, interleaved
from nnac.schedule.emit import Emitter, Source
from nnac.schedule.forms import View
from nnac.schedule.kernels import Kernel, Parameters, bands_of, requantise_blocks
from nnac.schedule.layout import EntryPlan
from nnac.schedule.ops import Made, Matrix
from nnac.schedule.ops._recurrent import RecurrentEmission
from nnac.schedule.tiling import gate_order
from nnac.vectors import Form, align, element_bytes


class LstmEmission(RecurrentEmission):
    """MVM and RQ for the gates, LSTM for the cells: band by band where a band holds whole cells, else all at once."""

    tables = ("sigmoid", "tanh", "tanh_cell")
    zero_block = True

    def matrices(self, node: Node, graph: QGraph, forms: Mapping[str, Form], lanes: int) -> Sequence[Matrix]:
        c, a, order = node.constants, record(node.attributes, LstmAttributes), row_order(node, lanes)
        source = node.inputs[0]
        out = [Matrix("input", c["input"], forms[source].segments, graph.values[source].bits, order),
               Matrix("recurrent", c["recurrent"], ((0, c["recurrent"].shape[1]),), a.hidden_bits, order)]
        if a.project:
            out.append(Matrix("project", c["project"], ((0, a.cells),), a.cell_output_bits))
        return out

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        """``gates`` (acc32) or ``input``, ``recurrent`` (sum16); ``cell``, ``project``."""
        a, c, out = record(node.attributes, LstmAttributes), node.constants, {}
        order = row_order(node, made.lanes)
        bands = bands_of(len(order), made.lanes)
        zero = np.zeros(len(order), np.int64)
        if a.variant == "acc32":
            sets = dict(gates=(c["bias"], c["multiplier"], c["shift"]))
        else:
            sets = dict(input=(c["bias"], c["input_multiplier"], c["input_shift"]),
                        recurrent=(zero, c["recurrent_multiplier"], c["recurrent_shift"]))
        for role, (b, m, s) in sets.items():
            out[role] = requantise_blocks(bands, b[order], m[order], s[order], 0, 16, False)
        bits = a.cell_output_bits if a.project else a.hidden_bits
        slots = {t: made.slot(c[t]) for t in self.tables}
        out["cell"] = (isa.LSTM.block.pack(multiplier=c["hidden_multiplier"], shift=c["hidden_shift"], bits=bits,
                                           fraction=a.fraction, **slots),)
        if a.project:
            out["project"] = requantise_blocks(bands_of(len(c["project_bias"]), made.lanes), c["project_bias"],
                                               c["project_multiplier"],
                                               c["project_shift"], 0, a.hidden_bits, False)
        return [Parameters(f"{node.path}.{role}.parameters", blocks, node.path) for role, blocks in out.items()]

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        """``pre``: pre-activations that cells are computed from; ``raw``: cell outputs before their projection;
        ``parked``: input products."""
        a = record(node.attributes, LstmAttributes)
        out = dict(pre=hypotheses * pre_bytes(node, lanes))
        if a.project:
            out["raw"] = hypotheses * raw_bytes(node)
        if vectors > 1:
            out["parked"] = 4 * a.cells * vectors * parked_size(node)
        return out

    def read_at(self, node: Node, kernel: str, plan: EntryPlan) -> Sequence[int]:
        if kernel == "project":
            return [plan.buffers[f"{node.path}.raw"] + k * raw_bytes(node) for k in range(plan.hypotheses)]
        return super().read_at(node, kernel, plan)

    def emit(self, node: Node, e: Emitter) -> None:
        """Over all vectors of this call, from the last one where the node is reversed."""
        if e.plan.hypotheses > 1:
            self.of_hypotheses(node, e)
            return
        a = record(node.attributes, LstmAttributes)
        x, y = e.views(node)
        h_in, h_rec = e.kernel(node, "input"), e.kernel(node, "recurrent")
        separate = a.variant == "sum16"
        frames: Sequence[int] = range(y.vectors)[::-1] if a.reversed else range(y.vectors)
        state, cell = e.plan.states[f"{node.path}.hidden"], e.plan.states[f"{node.path}.cell"]
        previous = state
        parked = e.plan.buffers.get(f"{node.path}.parked")
        if parked is not None:
            self.park(node, e, h_in, x, y.vectors, parked)
        pre = e.plan.buffers[f"{node.path}.pre"]
        by_band = interleaved(e.config.lanes)
        key = f"{node.path}.{'recurrent' if separate else 'gates'}.parameters"
        for t in frames:
            hidden = Source(h_rec, previous)
            for band in e.in_turn(h_rec, key):
                dst = pre if by_band else pre + 2 * band.first
                from_x = Source(h_in, x.at(t))
                if parked is not None:
                    (bank,) = e.sums(band, [hidden], [(0, 1)])
                    at = parked + parked_size(node) * (band.first * y.vectors + t * band.count)
                    e.requantise(band, bank, 1, dst, 0, e.parameters(key, band.index), 1, add=2 if separate else 1,
                                 addend=at)
                elif separate:
                    (bank,) = e.sums(band, [from_x], [(0, 1)])
                    e.requantise(band, bank, 1, dst, 0, e.parameters(f"{node.path}.input.parameters", band.index), 1)
                    (bank,) = e.sums(band, [hidden], [(0, 1)])
                    e.requantise(band, bank, 1, dst, 0, e.parameters(key, band.index), 1, add=2, addend=dst)
                else:
                    (bank,) = e.sums(band, [hidden, from_x], [(0, 1)])
                    e.requantise(band, bank, 1, dst, 0, e.parameters(key, band.index), 1)
                if by_band:
                    self.cells(node, e, pre, band.first // 4, band.count // 4, cell, y.at(t))
            if not by_band:
                self.cells(node, e, pre, 0, a.cells, cell, y.at(t))
            if a.project:
                self.project(node, e, y, t, 1)
            previous = y.at(t)
        self.keep(node, e, y, frames[-1])

    def of_hypotheses(self, node: Node, e: Emitter) -> None:
        """One step of each hypothesis, whose states lie in their places."""
        a = record(node.attributes, LstmAttributes)
        x, y = e.views(node)
        h_in, h_rec, count = e.kernel(node, "input"), e.kernel(node, "recurrent"), e.plan.hypotheses
        hidden, cell = (e.plan.slots[f"{node.path}.{name}"] for name in ("hidden", "cell"))
        pre, width = e.plan.buffers[f"{node.path}.pre"], pre_bytes(node, e.config.lanes)
        from_x, from_h = Source(h_in, x.address, x.form.stride), Source(h_rec, hidden.address, hidden.stride)
        separate, by_band = a.variant == "sum16", interleaved(e.config.lanes)
        sums = [((from_x,), "input", 0), ((from_h,), "recurrent", 2)] if separate else [((from_h, from_x), "gates", 0)]
        groups = e.groups(count, (x.form.stride, hidden.stride, width, y.form.stride))
        for band in h_rec.bands:
            dst = pre if by_band else pre + 2 * band.first
            for together in e.passes(groups):
                for sources, role, add in sums:
                    banks = e.sums(band, sources, together)
                    params = e.parameters(f"{node.path}.{role}.parameters", band.index)
                    for (first, columns), bank in zip(together, banks, strict=True):
                        at = dst + first * width
                        e.requantise(band, bank, columns, at, width, params, 1, add=add, addend=at if add else 0)
            if by_band:
                for k in range(count):
                    self.cells(node, e, pre + k * width, band.first // 4, band.count // 4,
                               cell.address + k * cell.stride, y.at(k), k)
        if not by_band:
            for k in range(count):
                self.cells(node, e, pre + k * width, 0, a.cells, cell.address + k * cell.stride, y.at(k), k)
        if a.project:
            self.project(node, e, y, 0, count)
        self.keep(node, e, y, 0)

    def park(self, node: Node, e: Emitter, kernel: Kernel, x: View, vectors: int, parked: int) -> None:
        """The input products of all frames, before the recurrence begins: each weight is read once for as many frames
        as fit the banks.

        acc32 parks int32 sums (the bias joins later, with the multiplier); sum16 parks requantised int16 sums.
        """
        size = parked_size(node)
        separate = record(node.attributes, LstmAttributes).variant == "sum16"
        for band in kernel.bands:
            for groups in e.passes(e.groups(vectors, (x.form.stride,))):
                banks = e.sums(band, [Source(kernel, x.address, x.form.stride)], groups)
                params = e.parameters(f"{node.path}.input.parameters", band.index) if separate else e.parameters("zero")
                for (first, count), bank in zip(groups, banks, strict=True):
                    e.requantise(band, bank, count, parked + size * (band.first * vectors + first * band.count),
                                 size * band.count,
                                 params, 1 if separate else 2)

    def cells(self, node: Node, e: Emitter, pre: int, first: int, count: int, cell: int, dst: int,
              hypothesis: int = 0) -> None:
        """The step of ``count`` cells, the first being ``first``."""
        a = record(node.attributes, LstmAttributes)
        size = element_bytes(a.cell_output_bits if a.project else a.hidden_bits)
        base = e.plan.buffers[f"{node.path}.raw"] + hypothesis * raw_bytes(node) if a.project else dst
        e.put(isa.LSTM(pre=pre, cell=cell + 2 * first, dst=base + size * first,
                       params=e.parameters(f"{node.path}.cell.parameters"),
                       units=count, out16=int(size == 2)), "cells")

    def project(self, node: Node, e: Emitter, y: View, first: int, count: int) -> None:
        """``count`` hidden states, from ``first`` on, from the cells' outputs of as many hypotheses."""
        kernel, size = e.kernel(node, "project"), element_bytes(record(node.attributes, LstmAttributes).hidden_bits)
        raw = Source(kernel, e.plan.buffers[f"{node.path}.raw"], raw_bytes(node))
        for band in kernel.bands:
            for together in e.passes(e.groups(count, (raw.stride, y.form.stride))):
                banks = e.sums(band, [raw], together)
                params = e.parameters(f"{node.path}.project.parameters", band.index)
                for (k, columns), bank in zip(together, banks, strict=True):
                    e.requantise(band, bank, columns, y.at(first + k) + size * band.first, y.form.stride, params,
                                 int(size == 2))


def row_order(node: Node, lanes: int) -> NDArray:
    """Order of the gate rows of the kernels."""
    cells = record(node.attributes, LstmAttributes).cells
    return gate_order(cells, lanes) if interleaved(lanes) else np.arange(4 * cells)


def pre_bytes(node: Node, lanes: int) -> int:
    """Bytes of the pre-activations that are there at once: of a band that holds whole cells, else of all."""
    rows = 4 * record(node.attributes, LstmAttributes).cells
    return 2 * (bands_of(rows, lanes)[0].count if interleaved(lanes) else rows)


def raw_bytes(node: Node) -> int:
    """Bytes of the cells' outputs before their projection."""
    a = record(node.attributes, LstmAttributes)
    return align(a.cells * element_bytes(a.cell_output_bits))


def parked_size(node: Node) -> int:
    """Bytes of a parked sum."""
    return 2 if record(node.attributes, LstmAttributes).variant == "sum16" else 4
