"""DW, second half: weight streams to weight words, one step a cycle, with every codec of `nnac.codec` but a bitmap
around zero_run.

A tile is taken in cycle d.  In d + 1 its first bytes are there (entropy: the lanes' first states); then come the mask
steps, one cycle of nothing, and the value steps, whose last is one cycle after the tile is done: a word is written one
cycle later still, before MV, which may start then, reads it.  So a tile's last steps overlap the first cycle of the
next. Each step says how many bits it took, and with them where the window of the next begins.

LDT reads a header in one cycle; for entropy the tokens follow, four a cycle, and then two states a cycle are filled in.
Formats: `nnac.codec`.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from nnac.codec.ans import INCREASING, LISTED, ZIGZAG
from nnac.isa import LDT, LDW, MachineConfig
from nnac.rtl.bitmap import Bitmap
from nnac.rtl.header import TABLE, Entry, load
from nnac.rtl.matrix import W_BITS
from nnac.rtl.params import GRANULE, WORD, Fields, opcode, power
from nnac.rtl.runs import Runs
from nnac.rtl.tile import (
    CODEBOOK,
    COLUMNS,
    ENTROPY,
    FIRST,
    GAP,
    IDLE,
    INDEX_BITS,
    MASK,
    PACKED,
    RAW,
    STATE,
    STATE_BITS,
    VALUE,
    VALUES,
    ZERO_RUN,
    window_bytes,
)


class Decoder(Elaboratable):
    """``whole``, ``word``, ``base``: the next stream and the granule of the ring it begins in.   ``ring_addr``: of the
    window's first byte.
    """

    def __init__(self, config: MachineConfig) -> None:
        self.config = c = config
        self.ring_bits = power(c.ring_bytes)
        self.whole, self.word, self.take, self.done, self.error, self.rest = (
            Signal(),
            Signal(WORD),
            Signal(),
            Signal(),
            Signal(),
            Signal(),
        )
        self.base = Signal(self.ring_bits - power(GRANULE))
        self.ring_addr, self.ring_data = Signal(self.ring_bits), Signal(8 * window_bytes(c))
        self.w_write, self.w_addr, self.w_data = Signal(), Signal(W_BITS), Signal(INDEX_BITS + 8 * c.lanes)
        self.table_addr, self.table_data = Signal(STATE_BITS * c.lanes), Signal(32 * c.lanes)
        self.table_write, self.table_waddr, self.table_wdata = Signal(), Signal(STATE_BITS - 1), Signal(128)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        lanes = c.lanes
        ldw, ldt = Fields(LDW, self.word), Fields(LDT, self.word)
        is_table = opcode(self.word) == LDT.opcode

        # ---- time: steps and two cycles more
        left, all_steps = Signal(range((1 << 12) + c.decode_drain)), Signal(12)
        m.d.comb += [
            all_steps.eq(Mux(is_table, ldt.code("steps"), ldw.code("steps"))),
            self.take.eq(self.whole & (left == 0)),
            self.done.eq(left == 1),
        ]
        with m.If(self.take):
            m.d.sync += left.eq(all_steps + c.decode_drain - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

        # ---- the tile at hand
        rows, cols, live, steps = (
            Signal(range(lanes + 1)),
            Signal(range(COLUMNS + 1)),
            Signal(range(COLUMNS + 1)),
            Signal(12),
        )
        number, to, size, header = Signal(2), Signal(W_BITS), Signal(16), Signal()
        phase, p = Signal(3), Signal(self.ring_bits + 3)
        ends = Signal(self.ring_bits)  # the byte after the tile's last
        with m.If(self.take):
            m.d.sync += [
                header.eq(is_table),
                rows.eq(ldw.count("rows")),
                cols.eq(ldw.count("cols")),
                live.eq(ldw.code("live")),
                steps.eq(all_steps),
                number.eq(Mux(is_table, ldt.code("table"), ldw.code("table"))),
                to.eq(ldw.code("word")),
                size.eq(Mux(is_table, ldt.code("bytes"), ldw.code("bytes"))),
                ends.eq((self.base << power(GRANULE)) + ldw.code("bytes")),
            ]

        # ---- decoder tables' registers: of the tile at hand, and of the word that is being written
        width_of_table = sum(TABLE.values())
        m.submodules.tables = tables = Memory(shape=width_of_table, depth=c.decoder_tables, init=[])
        put, here_port, there_port = (
            tables.write_port(),
            tables.read_port(domain="comb"),
            tables.read_port(domain="comb"),
        )
        written = Signal(2)
        m.d.comb += [here_port.addr.eq(number), there_port.addr.eq(written)]
        here, there = Entry(here_port.data), Entry(there_port.data)
        is_entropy, is_runs = here.codec == ENTROPY, here.codec == ZERO_RUN
        masked = Signal()
        m.d.comb += masked.eq(here.blocked & ~(is_entropy & (here.n == 0)))

        # ---- the window, from the first bit that has not been taken
        window = Signal(len(self.ring_data) - 7)
        m.d.comb += window.eq(self.ring_data >> p[:3])
        taken, next_p = Signal(range(max(17 * lanes, 8 * 76) + 1)), Signal(len(p))
        m.d.comb += next_p.eq(p + taken)
        with m.If(self.take):
            m.d.comb += next_p.eq(self.base << power(8 * GRANULE))
        m.d.sync += p.eq(next_p)
        m.d.comb += self.ring_addr.eq(next_p >> 3)

        # ---- phases
        mask_steps, mask_left, value_left = Signal(12), Signal(12), Signal(12)
        m.d.comb += mask_steps.eq(Mux(masked & ~is_runs, steps - live, 0))
        with m.If(self.take):
            m.d.sync += phase.eq(FIRST)
        with m.Else(), m.Switch(phase):
            with m.Case(FIRST):
                m.d.sync += phase.eq(Mux(header, IDLE, Mux(mask_steps != 0, MASK, GAP)))
            with m.Case(MASK), m.If(mask_left == 1):
                m.d.sync += phase.eq(GAP)
            with m.Case(GAP):
                m.d.sync += phase.eq(Mux(value_left != 0, VALUE, IDLE))
            with m.Case(VALUE), m.If(value_left == 1):
                m.d.sync += phase.eq(IDLE)
        first, masking, valuing = (phase == k for k in (FIRST, MASK, VALUE))
        with m.If(first):
            m.d.sync += [mask_left.eq(mask_steps), value_left.eq(Mux(is_runs, steps, live))]
        with m.Elif(masking):
            m.d.sync += mask_left.eq(mask_left - 1)
        with m.Elif(valuing):
            m.d.sync += value_left.eq(value_left - 1)

        bitmap, runs = Bitmap(lanes), Runs(lanes)
        coded = Cat(self.table_data[32 * k + 17] for k in range(lanes))
        active, mask_count = bitmap.mask(m, here, phase, rows, cols, window, coded)
        column, fault = bitmap.columns(m, here, phase, cols, masked)
        busy = Signal(lanes)
        m.d.comb += busy.eq(Mux(masking, (1 << mask_count) - 1, active))

        # ---- one field of each busy lane: a symbol, or the state bits that tANS asks for; then extra bits
        state = [Signal(STATE, name=f"state_{k}") for k in range(lanes)]
        entry = [self.table_data[32 * k : 32 * k + 32] for k in range(lanes)]
        tail, n = Signal(), here.n
        m.d.comb += tail.eq(is_entropy & valuing & (value_left <= here.tail))
        ask = Signal()
        m.d.comb += ask.eq(valuing | (masking & is_entropy))
        symbols = [Signal(STATE, name=f"symbol_{k}") for k in range(lanes)]
        extras, next_state = (
            [Signal(7, name=f"extra_{k}") for k in range(lanes)],
            [Signal(STATE, name=f"next_state_{k}") for k in range(lanes)],
        )
        at: Value = Const(0, 1)
        extra_at: Value = Const(0, 1)
        widths, extra_widths = [], []
        for k in range(lanes):
            bits, more = Signal(4, name=f"bits_{k}"), Signal(3, name=f"more_{k}")
            with m.If(first & ~header & is_entropy):
                m.d.comb += bits.eq(Mux(k < rows, n, 0))
            with m.Elif(ask & busy[k] & ~tail):
                m.d.comb += [
                    bits.eq(Mux(is_entropy, entry[k][10:14], here.width)),
                    more.eq(Mux(is_entropy & valuing, entry[k][14:17], 0)),
                ]
            widths.append(bits)
            extra_widths.append(more)
        total, extra_total = Signal(range(10 * lanes + 1)), Signal(range(7 * lanes + 1))
        for k in range(lanes):
            here_at = Signal(range(10 * k + 2), name=f"at_{k}")
            extra_here = Signal(range(7 * k + 2), name=f"extra_at_{k}")
            m.d.comb += [here_at.eq(at), extra_here.eq(extra_at)]
            got = (window[: 10 * (k + 1)] >> here_at)[:STATE]
            m.d.comb += symbols[k].eq(got & ((1 << widths[k]) - 1))
            at, extra_at = here_at + widths[k], extra_here + extra_widths[k]
        m.d.comb += [total.eq(at), extra_total.eq(extra_at)]
        behind = Signal(7 * lanes)
        m.d.comb += behind.eq(window >> total)
        extra_at = Const(0, 1)
        for k in range(lanes):
            place = Signal(range(7 * k + 2), name=f"behind_{k}")
            m.d.comb += [
                place.eq(extra_at),
                extras[k].eq((behind[: 7 * (k + 1)] >> place)[:7] & ((1 << extra_widths[k]) - 1)),
            ]
            extra_at = place + extra_widths[k]
            m.d.comb += next_state[k].eq(state[k])
            with m.If(first):
                m.d.comb += next_state[k].eq(symbols[k])
            with m.Elif(tail):
                m.d.comb += next_state[k].eq(state[k] >> here.rank_bits)
            with m.Elif(ask & busy[k]):
                m.d.comb += next_state[k].eq(entry[k][:10] + symbols[k])
        m.d.sync += [now.eq(after) for now, after in zip(state, next_state, strict=True)]
        machine = Mux(first, mask_steps != 0, masking & (mask_left != 1))
        m.d.comb += self.table_addr.eq(Cat(Cat(s, machine, number) for s in next_state))

        # ---- zero_run: pairs until the word is full
        loading = load(m, put, number, header & first, window)
        m.d.comb += [
            self.table_write.eq(loading.write),
            self.table_waddr.eq(loading.address),
            self.table_wdata.eq(loading.states),
        ]
        pairs, pairs_taken, pair_word = runs.pairs(m, here, phase, rows, cols, window, size, value_left)
        with m.If(first & header):
            m.d.comb += taken.eq(loading.skip)
        with m.Elif(loading.parsing):
            m.d.comb += taken.eq(loading.token_bits)
        with m.Elif(valuing & is_runs):
            m.d.comb += taken.eq(pairs_taken)
        with m.Elif(masking & ~is_entropy):
            # the uncoded bitmap is filled up to bytes
            to_byte = Signal(3)
            m.d.comb += [to_byte.eq(-(p[:3] + mask_count)), taken.eq(mask_count + Mux(mask_left == 1, to_byte, 0))]
        with m.Else():
            m.d.comb += taken.eq(total + extra_total)

        # ---- the word a cycle later: numbers to weights
        writes, index, word, last = Signal(), Signal(INDEX_BITS), Signal(W_BITS), Signal()
        values, alive = [Signal(8, name=f"value_{k}") for k in range(lanes)], Signal(lanes)
        m.d.sync += [
            writes.eq(valuing),
            written.eq(number),
            alive.eq(active),
            last.eq(valuing & (value_left == 1)),
            index.eq(Mux(is_runs, pair_word, column)),
        ]
        with m.If(valuing & ~self.take):  # which brings the next tile's place
            m.d.sync += to.eq(to + 1)
        with m.If(valuing):
            m.d.sync += word.eq(to)
        for k in range(lanes):
            held = state[k] & ((1 << here.rank_bits) - 1)
            rank = Mux(tail, here.first_rank + held, entry[k][17:25] + extras[k])
            m.d.sync += values[k].eq(Mux(is_entropy, rank, symbols[k]))
        listed = Array(there.values[8 * k : 8 * k + 8] for k in range(VALUES))
        run_word = runs.placed(m, there, pairs, listed)
        data = []
        for k in range(lanes):
            v = Signal(8, name=f"weight_{k}")
            from_list = Signal(8, name=f"from_list_{k}")
            m.d.comb += from_list.eq(listed[values[k][:6]])
            with m.Switch(there.codec):
                with m.Case(RAW):
                    m.d.comb += v.eq(values[k])
                with m.Case(PACKED):
                    extended = Signal(8, name=f"extended_{k}")
                    m.d.comb += extended.eq(values[k] << (8 - there.width)[:3])
                    m.d.comb += v.eq(extended.as_signed() >> (8 - there.width)[:3])
                with m.Case(CODEBOOK):
                    m.d.comb += v.eq(from_list)
                with m.Case(ENTROPY), m.Switch(there.order):
                    with m.Case(INCREASING):
                        m.d.comb += v.eq(values[k] ^ 0x80)
                    with m.Case(ZIGZAG):
                        half = Signal(8, name=f"half_{k}")
                        m.d.comb += [half.eq(values[k] >> 1), v.eq(Mux(values[k][0], ~half, half))]
                    with m.Case(LISTED):
                        m.d.comb += v.eq(from_list)
            data.append(Mux(there.codec == ZERO_RUN, run_word.data[8 * k : 8 * k + 8], Mux(alive[k], v, 0)))
        m.d.comb += [
            self.w_write.eq(writes & ((there.codec != ZERO_RUN) | run_word.live)),
            self.w_data.eq(Cat(index, *data)),
            self.w_addr.eq(Mux(there.codec == ZERO_RUN, run_word.address, word)),
        ]
        with m.If(first):
            m.d.sync += [run_word.next.eq(to), run_word.was_live.eq(0)]

        m.d.comb += self.rest.eq((phase == IDLE) & ~writes)

        # ---- what a damaged stream shows: its length, its bitmap, states that cannot be
        after_last = Signal(self.ring_bits + 3)
        m.d.comb += after_last.eq(p + taken + 7)
        wrong_end = valuing & (value_left == 1) & ~is_runs & ((after_last >> 3) != ends)
        wrong_state = valuing & (value_left == 1) & is_entropy & Cat(next_state).any()
        m.d.comb += self.error.eq(
            wrong_end | wrong_state | (fault & valuing) | (first & ~header & masked & is_runs) | loading.too_long
        )
        return m
