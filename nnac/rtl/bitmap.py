"""DW, block bitmaps: which lanes are active in a word, and which input it is of.

Mask steps bring the bitmap, at most L bits each, block column by block column (a *strip*); strips with a live block
wait in ``pending``, the bits themselves in two banks of rows of L.  Value steps then take strip after strip.
Formats: `nnac.codec`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from nnac.rtl.ffs import lowest
from nnac.rtl.header import Entry
from nnac.rtl.params import power
from nnac.rtl.tile import COLUMNS, ENTROPY, FIRST, GAP, MASK, VALUE


class Bitmap:
    """``pending``: strips with a live block that have not had their turn.  ``high``: blocks a strip.  ``next_strip``:
    of the next step.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def mask(
        self, m: Module, here: Entry, phase: Signal, rows: Signal, cols: Signal, window: Signal, coded: Value
    ) -> tuple[Signal, Signal]:
        """(lanes that are active in this value step, how many bits this mask step has).

        coded   the states' bits, for a bitmap under entropy; otherwise the window begins with them
        """
        lanes = self.lanes
        masking, is_entropy = phase == MASK, here.codec == ENTROPY
        self.pending = Signal(COLUMNS)  # strips with a live block that have not had their turn
        self.high = Signal(range(lanes + 1))  # blocks a strip
        strips, count = Signal(range(COLUMNS + 1)), Signal(range(lanes * COLUMNS + 1))
        block_rows, block_cols = (
            Mux(here.block_rows == 0, 1, here.block_rows),
            Mux(here.block_cols == 0, 1, here.block_cols),
        )
        high_now = Signal(range(lanes + 1))
        m.d.comb += [
            high_now.eq((rows + block_rows - 1) // block_rows),
            strips.eq((cols + block_cols - 1) // block_cols),
        ]
        bits, number = Signal(lanes), Signal(range(lanes + 1))
        m.d.comb += number.eq(Mux(count < rows, count, rows))
        m.d.comb += bits.eq(Mux(is_entropy, coded, window[:lanes]) & ((1 << number) - 1))
        with m.If(phase == FIRST):
            m.d.sync += [self.high.eq(high_now), count.eq(high_now * strips)]
        with m.Elif(masking):
            m.d.sync += count.eq(count - number)

        # which strips have a live block: bits of this step from the beginning of a strip on, cut into strips
        inside, strip = Signal(range(lanes + 1)), Signal(range(2 * COLUMNS))
        spread, some, length = Signal(2 * lanes), Signal(2 * lanes), Signal(range(2 * lanes))
        m.d.comb += [spread.eq(bits << inside), length.eq(inside + number)]
        whole, rest = Signal(range(2 * lanes)), Signal(range(lanes + 1))
        with m.Switch(self.high):
            for h in range(1, lanes + 1):
                with m.Case(h):
                    m.d.comb += [
                        some.eq(Cat(spread[k : k + h].any() for k in range(0, 2 * lanes, h))),
                        whole.eq(length // h),
                        rest.eq(length % h),
                    ]
        with m.If(phase == FIRST):
            m.d.sync += [inside.eq(0), strip.eq(0), self.pending.eq(0)]
        with m.Elif(masking):
            m.d.sync += [
                inside.eq(rest),
                strip.eq(strip + whole),
                self.pending.eq(self.pending | (some << strip)[:COLUMNS]),
            ]

        # the bits themselves, in two banks of rows of L bits
        fill, row, kept, joined = Signal(range(lanes + 1)), Signal(range(COLUMNS + 2)), Signal(lanes), Signal(2 * lanes)
        m.d.comb += joined.eq(kept | (bits << fill))
        depth = COLUMNS // 2 + 1
        even, odd = Memory(shape=lanes, depth=depth, init=[]), Memory(shape=lanes, depth=depth, init=[])
        m.submodules.mask_even, m.submodules.mask_odd = even, odd
        for bank, first_half in ((even, ~row[0]), (odd, row[0])):
            write = bank.write_port()
            m.d.comb += [write.en.eq(masking), write.data.eq(Mux(first_half, joined[:lanes], joined[lanes:]))]
            m.d.comb += write.addr.eq((row + 1) >> 1 if bank is even else row >> 1)
        full = (fill + number) >= lanes
        with m.If(phase == FIRST):
            m.d.sync += [fill.eq(0), row.eq(0), kept.eq(0)]
        with m.Elif(masking):
            m.d.sync += [
                fill.eq(Mux(full, fill + number - lanes, fill + number)),
                kept.eq(Mux(full, joined[lanes:], joined[:lanes])),
                row.eq(row + full),
            ]

        # the strip of the next step: its bits are there in the next cycle
        self.next_strip = Signal(range(COLUMNS))
        begin = Signal(range(lanes * COLUMNS))
        m.d.comb += begin.eq(self.next_strip * self.high)
        from_row, offset, odd_row = begin >> power(lanes), Signal(range(lanes)), Signal()
        m.d.sync += [offset.eq(begin[: power(lanes)]), odd_row.eq(from_row[0])]
        read_even, read_odd = even.read_port(domain="sync"), odd.read_port(domain="sync")
        m.d.comb += [
            read_even.addr.eq((from_row + 1) >> 1),
            read_odd.addr.eq(from_row >> 1),
            read_even.en.eq(1),
            read_odd.en.eq(1),
        ]
        both = Mux(odd_row, Cat(read_odd.data, read_even.data), Cat(read_even.data, read_odd.data))
        strip_bits = Signal(lanes)
        m.d.comb += strip_bits.eq((both >> offset)[:lanes])
        active, in_use = Signal(lanes), Signal(lanes)
        m.d.comb += [in_use.eq((1 << rows) - 1), active.eq(in_use)]
        with m.If(here.blocked & ~(is_entropy & (here.n == 0))), m.Switch(here.block_rows):
            for h in range(1, lanes):
                with m.Case(h):
                    m.d.comb += active.eq(Cat(strip_bits[k // h] for k in range(lanes)) & in_use)
            with m.Default():
                m.d.comb += active.eq(Mux(strip_bits[0], in_use, 0))
        return active, number

    def columns(self, m: Module, here: Entry, phase: Signal, cols: Signal, masked: Signal) -> tuple[Signal, Signal]:
        """(input number of this value step's word, whether the bitmap has no such word)."""
        strip, column, within, missing = Signal(range(COLUMNS)), Signal(range(COLUMNS + 1)), Signal(8), Signal()
        some, found = lowest(m, "strip_found", self.pending)
        same = Signal()
        m.d.comb += [
            same.eq((phase == VALUE) & (within + 1 < here.block_cols) & (column + 1 < cols)),
            self.next_strip.eq(Mux(same, strip, found)),
        ]
        with m.If((phase == GAP) | (phase == VALUE)):
            with m.If(~masked):
                m.d.sync += column.eq(Mux(phase == GAP, 0, column + 1))
            with m.Elif(same):
                m.d.sync += [column.eq(column + 1), within.eq(within + 1)]
            with m.Else():
                m.d.sync += [
                    strip.eq(found),
                    column.eq(found * here.block_cols),
                    within.eq(0),
                    missing.eq(~some),
                    self.pending.eq(self.pending & ~(Const(1, COLUMNS) << found)[:COLUMNS]),
                ]
        fault = Signal()
        m.d.comb += fault.eq(masked & missing)
        return column, fault
