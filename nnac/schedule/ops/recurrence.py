"""A recurrent cell as the user wrote it, frame after frame: MVM and RQ for both products, an instruction a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnac import isa
from nnac.attributes import record
from nnac.ir import Node
from nnac.isa import Instruction
from nnac.ops._steps import BITS, FIRST, INPUT, NORM, RECURRENT, TABLES, Step, Steps, scales, steps_of, table_name
from nnac.ops.recurrence import RecurrenceAttributes, sizes
from nnac.schedule.emit import Emitter
from nnac.schedule.layout import ROOTS
from nnac.schedule.ops import Made
from nnac.schedule.ops._recurrent import Group, SeparateEmission, even, key_of, separate
from nnac.schedule.ops._roots import WithRoots
from nnac.schedule.ops.layer_norm import parameters
from nnac.schedule.tiling import Band
from nnac.vectors import align, element_bytes

LAST = "last"                  # parameters of what brings the hidden state to its format


class RecurrenceEmission(WithRoots, SeparateEmission):
    """Values lie side by side in a buffer; one that is kept is made where it is kept, if nothing reads the old one
    behind it, and copied there otherwise."""

    in_groups = False
    joined = False
    paired = False
    streamed_together = ()

    def group_bytes(self, node: Node, units: int) -> int:
        a = record(node.attributes, RecurrenceAttributes)
        return even(a.rows) + even(a.again)

    def group_of(self, node: Node, band: Band, lanes: int) -> Group:
        return next(self.groups(node, lanes))          # the one there is

    def offset(self, node: Node, units: int, kernel: str) -> int:
        return 0 if kernel == "input" else even(record(node.attributes, RecurrenceAttributes).rows)

    def order(self, node: Node, kernel: str, lanes: int) -> NDArray:
        return np.arange(separate(node).rows(node.attributes, kernel))

    def tables_of(self, node: Node) -> Sequence[str]:
        a = record(node.attributes, RecurrenceAttributes)
        return list(dict.fromkeys(t for s in steps_of(a.steps).steps if (t := table_name(s, a.every_fraction))))

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        a = record(node.attributes, RecurrenceAttributes)
        steps = steps_of(a.steps)
        inner = sum(map(even, sizes(a)[steps.made:]))
        return {**super().buffers(node, vectors, hypotheses, lanes), "values": max(4, inner)}

    def cell_parameters(self, node: Node, made: Made) -> Mapping[str, bytes]:
        a, c = record(node.attributes, RecurrenceAttributes), node.constants
        steps, fractions = steps_of(a.steps), a.every_fraction
        widths, out = sizes(a), dict[str, bytes]()
        for value, step in steps.numbered():
            numbers = scales(step, value, fractions)
            if step.op in ("sum", "scale"):
                (m0, s0), (m1, s1) = numbers if step.op == "sum" else (*numbers, (0, 1))
                out[f"{value}"] = isa.ADD.block.pack(m0=m0, m1=m1, s0=s0, s1=s1, bits=BITS)
            elif step.op == "neg":
                out[f"{value}"] = isa.MUL.block.pack(multiplier=1, shift=0, bits=BITS, zero_point=0)
                out[f"{value}.minus"] = np.full(align(widths[value]), -1, np.int8).tobytes()
            elif step.op == "mul":
                (m, s), = numbers
                out[f"{value}"] = isa.MUL.block.pack(multiplier=m, shift=s, bits=BITS, zero_point=0)
            elif step.op in TABLES:
                out[f"{value}"] = isa.LUT.block.pack(multiplier=1, shift=0, bits=BITS, zero_point=0,
                                                     slot=made.slot(c[table_name(step, fractions)]),
                                                     symmetry=int(TABLES[step.op] == "complement"))
            elif step.op == "relu":
                out[f"{value}"] = isa.GATE.block.pack(multiplier=1, shift=BITS - 1, bits=BITS, zero_point=0,
                                                      slot=made.slot(c["step"]), symmetry=1)
            elif step.op == "norm":
                norm = {n: c[f"norm{steps.norms[value]}_{n}"] for n in NORM}
                out[f"{value}"] = parameters(norm.pop("gain"), norm.pop("bias"), **norm, bits=BITS, zero_point=0)
        out[LAST] = isa.ADD.block.pack(m0=int(c["hidden_multiplier"]), m1=0, s0=int(c["hidden_shift"]), s1=1,
                                       bits=a.hidden_bits)
        return out

    def cells(self, node: Node, e: Emitter, group: Group, pre: int, hypothesis: int, dst: int) -> None:
        a = record(node.attributes, RecurrenceAttributes)
        steps = steps_of(a.steps)
        widths = sizes(a)
        kept = [self.memory(node, e, group, hypothesis, k) for k in range(len(steps.keep))]
        at = {INPUT: pre, RECURRENT: pre + self.offset(node, group.units, "recurrent")}
        at |= {FIRST + k: address for k, address in enumerate(kept)}
        inside, free = in_place(steps), e.plan.buffers[f"{node.path}.values"]
        for value, step in steps.numbered():
            if step.op == "part":
                at[value] = at[step.of[0]] + 2 * int(step.numbers[0])
                continue
            at[value], free = (kept[inside[value]], free) if value in inside else (free, free + even(widths[value]))
            e.put(self.instruction(node, e, step, value, at, widths[value]), step.op)
        wide = element_bytes(a.hidden_bits) == 2
        y = at[steps.hidden]
        e.put(isa.ADD(a=y, b=y, dst=dst, params=e.parameters(key_of(node, LAST)), n=a.cells, a16=1, b16=1,
                      out16=int(wide)), "hidden")
        for k, value in enumerate(steps.keep):
            if inside.get(value) != k:
                e.put(isa.CPY(src=at[value], dst=kept[k], bytes=even(a.cells), count=1, sstride=0, dstride=0), "keep")

    def instruction(self, node: Node, e: Emitter, step: Step, value: int, at: Mapping[int, int],
                    width: int) -> Instruction:
        of, params, dst = [at[i] for i in step.of], e.parameters(key_of(node, f"{value}")), at[value]
        if step.op in ("sum", "scale"):
            return isa.ADD(a=of[0], b=of[-1], dst=dst, params=params, n=width, a16=1, b16=1, out16=1)
        if step.op == "neg":
            minus = e.parameters(key_of(node, f"{value}.minus"))
            return isa.MUL(a=of[0], b=minus, dst=dst, params=params, n=width, a16=1, b16=0, out16=1)
        if step.op == "mul":
            return isa.MUL(a=of[0], b=of[1], dst=dst, params=params, n=width, a16=1, b16=1, out16=1)
        if step.op in TABLES:
            return isa.LUT(src=of[0], dst=dst, params=params, n=width, out16=1)
        if step.op == "relu":
            return isa.GATE(a=of[0], b=of[0], dst=dst, params=params, n=width, a16=1, out16=1)
        return isa.LN(src=of[0], dst=dst, params=params, roots=e.parameters(ROOTS), n=width, a16=1, out16=1, rms=0)


def in_place(steps: Steps) -> dict[int, int]:
    """Values that are made where they are kept: number -> which of those that are kept.  Nothing behind them reads the
    old one."""
    out: dict[int, int] = {}
    last = {i: v for v, s in steps.numbered() for i in s.of}
    views = {v: s.of[0] for v, s in steps.numbered() if s.op == "part"}
    for view, source in reversed(views.items()):           # whoever reads a part reads the whole
        last[source] = max(last[source], last.get(view, 0))
    for k, value in enumerate(steps.keep):
        old = FIRST + k
        if value >= steps.made and value not in views and value not in out and value >= last.get(
                old, 0) and old not in (steps.hidden, *steps.keep) and old not in views.values():
            out[value] = k
    return out
