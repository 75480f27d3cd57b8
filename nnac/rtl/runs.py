"""DW, zero_run: a step takes as many pairs (zeros before a value, value) as fit into one word.

The first pair of a step may lead to any later word; a word is written when it has a weight that is not zero.
Formats: `nnac.codec`.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value

from nnac.codec import zero_run
from nnac.rtl.header import Entry
from nnac.rtl.matrix import W_BITS
from nnac.rtl.tile import COLUMNS, FIRST, VALUE

PAIRS = zero_run.PAIRS_PER_CYCLE


class Placed:
    """A word of zero_run: its bytes, whether one is not zero, where it goes; ``next``: where the last live word is."""

    def __init__(self, lanes: int) -> None:
        self.data, self.live, self.address, self.next = Signal(8 * lanes), Signal(), Signal(W_BITS), Signal(W_BITS)
        self.was_live = Signal()


class Runs:
    """``new_word``: the pairs of the last step begin a word."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def pairs(
        self,
        m: Module,
        here: Entry,
        phase: Signal,
        rows: Signal,
        cols: Signal,
        window: Signal,
        size: Signal,
        value_left: Signal,
    ) -> tuple[list[tuple[Signal, Signal, Signal]], Signal, Signal]:
        """([(lands, lane, value)] of this step's pairs, a cycle later; bits taken; number of the word they land in)."""
        lanes = self.lanes
        column, lane, left = Signal(range(2 * COLUMNS)), Signal(range(lanes + 1)), Signal(19)
        step, word_now = here.pair, Signal(range(2 * COLUMNS))
        where: Value = lane
        fits: Value = Const(1, 1)
        count, after = Signal(range(PAIRS + 1)), Signal(range(lanes + 1))
        out = []
        ahead = Signal(9)
        for k in range(PAIRS):
            pair, run = Signal(16, name=f"pair_{k}"), Signal(8, name=f"run_{k}")
            m.d.comb += [pair.eq(window[: 16 * (k + 1)] >> (step * k)), run.eq(pair & ((1 << here.run) - 1))]
            place, lands = Signal(range(lanes + 257), name=f"place_{k}"), Signal(name=f"lands_{k}")
            if k == 0:
                # the first pair may lead to any later word
                m.d.comb += [
                    ahead.eq(lane + run),
                    place.eq(ahead % Mux(rows == 0, 1, rows)),
                    word_now.eq(column + ahead // Mux(rows == 0, 1, rows)),
                ]
                m.d.comb += lands.eq((left >= step) & (word_now < cols))
            else:
                m.d.comb += [place.eq(where + 1 + run), lands.eq(fits & (place < rows) & (left >= step * (k + 1)))]
            value = Signal(8, name=f"pair_value_{k}")
            m.d.comb += value.eq(pair >> here.run)
            with m.If(lands):
                m.d.comb += [count.eq(k + 1), after.eq(place + 1)]
            held = (
                Signal(name=f"landed_{k}"),
                Signal(range(lanes), name=f"lane_{k}"),
                Signal(8, name=f"run_value_{k}"),
            )
            m.d.sync += [
                held[0].eq(lands & (phase == VALUE)),
                held[1].eq(place),
                held[2].eq(value & ((1 << (step - here.run)[:4]) - 1)),
            ]
            out.append(held)
            where, fits = place, lands
        taken = Signal(range(16 * PAIRS + 1))
        m.d.comb += taken.eq(count * step)
        self.new_word = Signal()
        with m.If(phase == FIRST):
            m.d.sync += [column.eq(0), lane.eq(0), left.eq(size << 3)]
        with m.Elif(phase == VALUE):
            m.d.sync += [column.eq(word_now), lane.eq(after), left.eq(left - taken)]
        fresh = Signal()
        with m.If(phase == FIRST):
            m.d.sync += fresh.eq(1)
        with m.Elif(phase == VALUE):
            m.d.sync += fresh.eq(0)
        m.d.sync += self.new_word.eq((phase == VALUE) & (fresh | (word_now != column)))
        return out, taken, word_now

    def placed(self, m: Module, there: Entry, pairs: list[tuple[Signal, Signal, Signal]], listed: Array) -> Placed:
        """The word that the pairs land in, with what earlier steps brought."""
        lanes = self.lanes
        out = Placed(lanes)
        kept, was_live = Signal(8 * lanes), out.was_live
        values = []
        for k, (_, _, value) in enumerate(pairs):
            v = Signal(8, name=f"placed_{k}")
            m.d.comb += v.eq(Mux(there.order != 0, listed[value[:6]], value))  # order: the values are listed
            values.append(v)
        bytes_now = []
        for r in range(lanes):
            byte = Signal(8, name=f"byte_{r}")
            m.d.comb += byte.eq(Mux(self.new_word, 0, kept[8 * r : 8 * r + 8]))
            for (lands, lane, _), v in zip(pairs, values, strict=True):
                with m.If(lands & (lane == r)):
                    m.d.comb += byte.eq(v)
            bytes_now.append(byte)
        m.d.comb += [out.data.eq(Cat(bytes_now)), out.live.eq(out.data.any()), out.address.eq(out.next)]
        # a word that was live before a new one begins has taken its place
        with m.If(self.new_word & was_live):
            m.d.comb += out.address.eq(out.next + 1)
        some = Signal()
        m.d.comb += some.eq(Cat(p[0] for p in pairs).any())
        with m.If(some):
            m.d.sync += [kept.eq(out.data), was_live.eq(out.live), out.next.eq(out.address)]
        return out
