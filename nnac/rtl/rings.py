"""VX's rings of past vectors: what each beat of DOT, MIX and DWC addresses, and where KEEP writes.

A beat is up to V elements of a row of the ring (port 1) and what they are multiplied with (port 0).  Loops, from the
outside in:

    DOT   query · head · row from the oldest · V elements of it      a score after each row
    MIX   query · head · V elements · row from the oldest            V results after the last row
    DWC   result · V channels · tap, then their parameters           V results after the parameters

Cycles from the start: 1 the count is addressed · 2 it is there · 3 the first beat (of DWC: 4); KEEP writes the new
count, and its rows from cycle 4 on.  Source: `nnac.isa.ring`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value

from nnac.isa import DOT, DWC, KEEP, MIX, MachineConfig, VectorInstruction
from nnac.isa.ring import RING_HEAD
from nnac.isa.vector import RQ_HEAD, RQ_ROW
from nnac.rtl.params import A_BITS, UNIT, WORD, Fields, ceil_div, opcode, power, sample

WIDTH = 15  # bits of a row's length
ROWS = 11  # of a number of rows: 64 chunks of 16
KINDS: tuple[type[VectorInstruction], ...] = (KEEP, DOT, MIX, DWC)


def aligned(address: Value) -> Value:
    """A byte address rounded up to a word."""
    return ((address + (UNIT - 1)) >> power(UNIT)) << power(UNIT)


class Rings(Elaboratable):
    """``head`` the word at ``start``, ``word`` the same from then on.

    ``first``, ``second``  the cycles after the start      ``count``  of the ring, in the second
    ``ring``  word address of the ring      ``kept``  of the rows that KEEP writes, ``counted`` its new count
    ``valid``  a beat: ``other``, ``row`` byte addresses of its operands, ``elements``, ``fresh`` first of a sum,
               ``last`` its sum is whole, ``end`` of a vector of results, ``hidden`` the key is not there,
               ``bias`` word address of a score's
    ``holds``  from the first beat to the last cycle of them: VX's count of cycles stands still
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.head, self.word = Signal(WORD), Signal(WORD)
        self.start, self.first, self.second = Signal(), Signal(), Signal()
        self.count, self.ring, self.kept, self.counted = Signal(7), Signal(A_BITS - 2), Signal(A_BITS - 2), Signal(8)
        self.valid, self.holds, self.third = (Signal(name=name) for name in ("valid", "holds", "third"))
        self.other, self.row, self.bias = Signal(A_BITS), Signal(A_BITS), Signal(A_BITS - 2)
        self.elements = Signal(range(config.lanes + 1))
        self.fresh, self.last, self.end, self.hidden = (
            Signal(name=name) for name in ("fresh", "last", "end", "hidden")
        )

    def elaborate(self, platform: object) -> Module:
        m, v = Module(), self.config.vector
        f = {cls: Fields(cls, self.word) for cls in KINDS}
        is_dot, is_mix, is_dwc = (opcode(self.word) == cls.opcode for cls in (DOT, MIX, DWC))

        def of(name: str, *classes: type[VectorInstruction]) -> Value:
            """The field of whichever of these instructions it is; the first's, if it is none of the others."""
            out = f[classes[0]].count(name)
            for cls in classes[1:]:
                out = Mux(opcode(self.word) == cls.opcode, f[cls].count(name), out)
            return out

        m.d.sync += self.third.eq(self.second)

        # ---- the ring: a product a cycle, of the row's length, the chunk's, the place where the oldest begins
        width, chunk_bytes, total, begin = Signal(WIDTH), Signal(A_BITS), Signal(A_BITS), Signal(A_BITS)
        rows, seen, back, unseen = Signal(ROWS), Signal(6), Signal(A_BITS), Signal(ROWS)
        slots, chunk = of("slots", *KINDS), of("chunk", *KINDS)
        with m.If(self.start):
            heads = {cls: Fields(cls, self.head) for cls in KINDS}
            length: Value = heads[KEEP].bytes("bytes")
            for cls in (DOT, MIX):
                length = Mux(opcode(self.head) == cls.opcode, heads[cls].count("heads") * heads[cls].count("n"), length)
            m.d.sync += width.eq(Mux(opcode(self.head) == DWC.opcode, heads[DWC].count("n"), length))
        with m.If(self.first):
            m.d.sync += [chunk_bytes.eq(width * chunk), rows.eq(slots * chunk)]
            m.d.sync += seen.eq(chunk + f[DWC].count("taps") - 1)
        oldest = Signal(7)
        there = Signal(7)
        oldest_at = Signal(A_BITS)
        m.d.comb += [
            self.ring.eq(of("ring", *KINDS)),
            oldest.eq(Mux(self.count >= slots, self.count - slots, self.count)),
            there.eq(Mux(self.count >= slots, slots, self.count)),
            oldest_at.eq(oldest * chunk_bytes),
        ]
        more = Signal(8)
        m.d.comb += more.eq(self.count + 1)
        with m.If(self.second):
            m.d.sync += [
                begin.eq(oldest_at),
                total.eq(slots * chunk_bytes),
                back.eq(seen * width),
                unseen.eq((slots - there) * chunk),
                self.counted.eq(Mux(more == slots << 1, slots, more)),
            ]
        m.d.comb += self.kept.eq(self.ring + RING_HEAD // UNIT + (begin >> power(UNIT)))

        # ---- loops
        n = Signal(13)
        groups, inner_size, middle_size = Signal(ROWS), Signal(ROWS), Signal(ROWS)
        inner, middle, head, query = Signal(ROWS), Signal(ROWS), Signal(6), Signal(5)
        inner_ends, middle_ends, head_ends, query_ends = (
            Signal(name=f"{name}_ends") for name in ("inner", "middle", "head", "query")
        )
        m.d.comb += [
            n.eq(of("n", DOT, MIX, DWC)),
            groups.eq(ceil_div(n, v)),
            inner_size.eq(Mux(is_dot, groups, Mux(is_mix, rows, f[DWC].count("taps") + 1))),
            middle_size.eq(Mux(is_dot, rows, groups)),
            inner_ends.eq(inner == inner_size - 1),
            middle_ends.eq(inner_ends & (middle == middle_size - 1)),
            head_ends.eq(middle_ends & (is_dwc | (head == of("heads", DOT, MIX) - 1))),
            query_ends.eq(head_ends & (query == chunk - 1)),
        ]
        # how far into the ring, into a row its head, into the head these elements; the other operand and where it began
        row, in_row, in_head, other, home = (
            *(Signal(A_BITS, name=f"at_{name}") for name in ("row", "in_row", "in_head")),
            *(Signal(A_BITS, name=name) for name in ("at_other", "home")),
        )
        bias_of_query, pause, busy, finished = Signal(A_BITS - 2), Signal(WIDTH), Signal(), Signal()
        size = Signal(2)  # bytes of a probability
        m.d.comb += [size.eq(1 << f[MIX].code("p16")), self.valid.eq(busy & (pause == 0) & ~finished)]

        def further(place: Value) -> Value:
            """A row on; behind the last lies the first."""
            return Mux(place + width == total, 0, place + width)

        params = of("params", DOT, MIX, DWC) << power(UNIT)
        waits = Signal()
        first_tap = Signal(A_BITS)
        m.d.comb += [waits.eq(self.third & is_dwc), first_tap.eq(begin - back + Mux(begin >= back, 0, total))]
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        with m.If(self.second):
            source = of("src", DOT, MIX) << power(UNIT)
            after_rows = params + RQ_HEAD.bytes + f[DWC].count("n") * RQ_ROW.bytes
            first_bias = of("params", DOT) + DOT.block.bytes // UNIT + (chunk - 1)
            m.d.sync += [
                *(x.eq(0) for x in (inner, middle, head, query, in_row, in_head, finished)),
                busy.eq(is_dot | is_mix | is_dwc),
                pause.eq(is_dwc),
                row.eq(oldest_at),
                other.eq(Mux(is_dwc, after_rows, source)),
                home.eq(Mux(is_dwc, after_rows, source)),
                self.bias.eq(first_bias),
                bias_of_query.eq(first_bias),
            ]
        with m.Elif(waits):
            m.d.sync += [row.eq(first_tap), begin.eq(first_tap)]  # of the first result
        with m.Elif(self.valid):
            m.d.sync += [inner.eq(inner + 1), other.eq(other + Mux(is_dot, 0, Mux(is_mix, size, n)))]
            with m.If(~is_dot | inner_ends):
                m.d.sync += row.eq(further(row))
            with m.If(is_dot | inner_ends):
                m.d.sync += in_head.eq(in_head + v)
            with m.If(is_mix):
                m.d.sync += pause.eq(f[MIX].code("p16"))
            with m.If(inner_ends):
                m.d.sync += [inner.eq(0), middle.eq(middle + 1), self.bias.eq(self.bias + 1)]
                with m.If(is_dot):
                    m.d.sync += in_head.eq(0)
                with m.Else():
                    m.d.sync += other.eq(home)
                with m.If(is_dwc):
                    m.d.sync += row.eq(begin)
            with m.If(middle_ends):
                m.d.sync += [middle.eq(0), head.eq(head + 1), in_head.eq(0), in_row.eq(in_row + n)]
                m.d.sync += self.bias.eq(self.bias + chunk)
                with m.If(is_dot):
                    m.d.sync += other.eq(other + n)
                with m.If(is_mix):
                    m.d.sync += [other.eq(other + size), home.eq(other + size)]
            with m.If(head_ends):
                m.d.sync += [head.eq(0), query.eq(query + 1), in_row.eq(0)]
                m.d.sync += [self.bias.eq(bias_of_query - 1), bias_of_query.eq(bias_of_query - 1)]
                with m.If(is_mix):
                    m.d.sync += [other.eq(aligned(other + size)), home.eq(aligned(other + size))]
                    m.d.sync += pause.eq(f[MIX].code("p16") + ceil_div(width, v))  # the machine's requantisation
                with m.If(is_dwc):
                    m.d.sync += [begin.eq(further(begin)), row.eq(further(begin))]
            with m.If(query_ends):
                m.d.sync += finished.eq(1)
        # MIX's last beat is followed by those of the last requantisation
        m.d.comb += self.holds.eq(busy & ~waits)
        with m.If(Mux(is_mix, finished & (pause == 1), self.valid & query_ends)):
            m.d.sync += busy.eq(0)

        # ---- what the beat is
        rest = Signal(14)
        parameters = Signal()
        at = Signal(A_BITS)
        m.d.comb += [
            rest.eq(n - in_head),
            parameters.eq(is_dwc & inner_ends),
            at.eq(params + RQ_HEAD.bytes + in_head * RQ_ROW.bytes),
            self.other.eq(Mux(parameters, at, other + Mux(is_mix, 0, in_head))),
            self.row.eq(
                Mux(parameters, at + v * UNIT, (self.ring << power(UNIT)) + RING_HEAD + row + in_row + in_head)
            ),
            self.elements.eq(Mux(rest > v, v, rest)),
            self.fresh.eq(inner == 0),
            self.last.eq(inner_ends),
            self.end.eq(head_ends),
            self.hidden.eq(middle < unseen),
        ]
        return m


def check_times(c: MachineConfig) -> None:
    """The beats above are as many as the instructions say."""
    n, heads, chunk, slots, taps = 2 * c.vector + 1, 3, 2, 5, 4
    rows = slots * chunk
    ring = dict(chunk=chunk, slots=slots)
    products = chunk * heads * rows * 3
    wanted: dict[VectorInstruction, int] = {
        sample(DOT, n=n, heads=heads, **ring): products,
        sample(MIX, n=n, heads=heads, **ring): products + chunk * -(-heads * n // c.vector),
        sample(MIX, n=n, heads=heads, p16=1, **ring): 2 * products + chunk * -(-heads * n // c.vector),
        sample(DWC, n=n, taps=taps, **ring): chunk * 3 * (taps + 1),
    }
    for i, beats in wanted.items():
        assert i.cycles(c)[0] == c.vx_fill + beats, f"{i} takes {i.cycles(c)[0]} cycles, not {c.vx_fill} and {beats}"
