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
from amaranth.lib.memory import Memory, WritePort

from nnac.codec import codebook, entropy, packed, raw, zero_run
from nnac.codec.ans import INCREASING, LISTED, MAX_TOKENS, ZIGZAG
from nnac.isa import LDT, LDW, MachineConfig
from nnac.rtl.ffs import lowest
from nnac.rtl.matrix import INDEX_BITS, W_BITS
from nnac.rtl.params import GRANULE, WORD, Fields, opcode, power

STATE_BITS = 13  # of the place of a state: decoder table, machine (weights or blocks), state
STATE = 10  # bits of a state, at most
COLUMNS = 1024  # of a tile, at most
VALUES = 64  # of a codebook or a list
TOKENS_A_CYCLE, PAIRS = 4, zero_run.PAIRS_PER_CYCLE
RAW, PACKED, CODEBOOK, ZERO_RUN, ENTROPY = (
    c.code for c in (raw.Raw, packed.Packed, codebook.Codebook, zero_run.ZeroRun, entropy.Entropy)
)
IDLE, FIRST, MASK, GAP, VALUE = range(5)

# what a decoder table holds beside the states: name -> bits
TABLE = dict(
    codec=3,
    blocked=1,
    block_rows=7,
    block_cols=8,
    width=4,
    run=4,
    pair=5,
    n=4,
    order=2,
    first_rank=8,
    rank_bits=4,
    tail=4,
    values=8 * VALUES,
)


def window_bytes(config: MachineConfig) -> int:
    """Bytes of the ring that the decoder sees in a cycle: the most that a step takes, or a whole header of fixed-width
    codecs.

    A step of every lane takes at most 10 state bits and 7 extra bits, from any bit of a byte on.
    """
    return -(-max(-(-(17 * config.lanes + 7) // 8), 76) // 4) * 4


class Entry:
    """A decoder table's registers as one word."""

    def __init__(self, word: Value) -> None:
        self.word = word

    def __getattr__(self, name: str) -> Value:
        at = 0
        for key, bits in TABLE.items():
            if key == name:
                return self.word[at : at + bits]
            at += bits
        raise AttributeError(name)


def bit_length(m: Module, name: str, value: Value) -> Signal:
    out = Signal(range(len(value) + 1), name=name)
    for k in range(len(value)):
        with m.If(value[k]):
            m.d.comb += out.eq(k + 1)
    return out


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

        active, mask_count = self._bitmap(m, here, phase, rows, cols, window, is_entropy)
        column, fault = self._columns(m, here, phase, cols, masked)
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
        too_long = self._load(m, put, number, header & first, window)
        pairs, pairs_taken, pair_word = self._pairs(m, here, phase, rows, cols, window, size, value_left)
        with m.If(first & header):
            m.d.comb += taken.eq(self.header_skip)
        with m.Elif(self.parsing):
            m.d.comb += taken.eq(self.token_bits)
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
        run_word = self._placed(m, there, pairs, listed)
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
            wrong_end | wrong_state | (fault & valuing) | (first & ~header & masked & is_runs) | too_long
        )
        return m

    # ---- the block bitmap

    def _bitmap(
        self, m: Module, here: Entry, phase: Signal, rows: Signal, cols: Signal, window: Signal, is_entropy: Value
    ) -> tuple[Signal, Signal]:
        """(lanes that are active in this value step, how many bits this mask step has)."""
        lanes = self.config.lanes
        masking = phase == MASK
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
        coded = Cat(self.table_data[32 * k + 17] for k in range(lanes))
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

    def _columns(self, m: Module, here: Entry, phase: Signal, cols: Signal, masked: Signal) -> tuple[Signal, Signal]:
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

    # ---- zero_run

    def _pairs(
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
        lanes = self.config.lanes
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

    def _placed(self, m: Module, there: Entry, pairs: list[tuple[Signal, Signal, Signal]], listed: Array) -> Placed:
        """The word that the pairs land in, with what earlier steps brought."""
        lanes = self.config.lanes
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

    # ---- decoder tables

    def _load(self, m: Module, put: WritePort, number: Signal, begins: Value, window: Signal) -> Value:
        """LDT: the header's registers at once; entropy's tokens four a cycle, then states two a cycle.

        Returns whether the header lists more values than there is room for.
        """
        made = {name: Signal(bits, name=f"new_{name}") for name, bits in TABLE.items()}
        kept = {name: Signal(bits, name=f"kept_{name}") for name, bits in TABLE.items()}
        blocked = window[7]
        body = Signal(8 * 76 - 40)
        m.d.comb += body.eq(Mux(blocked, window[32:], window[8:]))
        rows = window[8:24]
        m.d.comb += [
            made["codec"].eq(window[:4]),
            made["blocked"].eq(blocked),
            made["block_rows"].eq(Mux(rows > 64, 64, rows)),
            made["block_cols"].eq(window[24:32]),
        ]
        last_value, listed_values = body[:8], body[8:16]
        with m.Switch(window[:4]):
            with m.Case(RAW):
                m.d.comb += made["width"].eq(8)
            with m.Case(PACKED):
                m.d.comb += made["width"].eq(body[:4])
            with m.Case(CODEBOOK):
                m.d.comb += [made["width"].eq(bit_length(m, "codebook_bits", last_value)), made["values"].eq(body[8:])]
            with m.Case(ZERO_RUN):
                many = Signal(8)
                m.d.comb += [
                    made["run"].eq(body[:4]),
                    made["order"].eq(body[4]),
                    many.eq(listed_values + 1),
                    made["pair"].eq(body[:4] + Mux(body[4], bit_length(m, "listed_bits", many), 8)),
                    made["values"].eq(Cat(Const(0, 8), body[16:])),
                ]
            with m.Case(ENTROPY):
                m.d.comb += [
                    made["n"].eq(body[:4]),
                    made["order"].eq(body[4:6]),
                    made["first_rank"].eq(body[13:21]),
                    made["values"].eq(body[29:]),
                ]
        simple = begins & (window[:4] != ENTROPY)
        parse = begins & (window[:4] == ENTROPY)

        # ---- entropy: tokens
        n, count, base = kept["n"], Signal(range(MAX_TOKENS + 1)), Signal(9)
        parsing, live_next, filling = Signal(), Signal(), Signal()
        done, sums = Signal(range(MAX_TOKENS + TOKENS_A_CYCLE)), Signal(STATE + 1)
        table = Signal(2)
        starts = [Signal(STATE + 1, name=f"start_{k}") for k in range(MAX_TOKENS)]
        stops = [Signal(STATE + 1, name=f"stop_{k}") for k in range(MAX_TOKENS)]
        counters = [Signal(STATE + 1, name=f"y_{k}") for k in range(MAX_TOKENS)]
        ranks = [Signal(8, name=f"rank_{k}") for k in range(MAX_TOKENS)]
        extras = [Signal(3, name=f"token_extra_{k}") for k in range(MAX_TOKENS)]
        live = Signal(STATE + 1)
        with m.If(begins):
            m.d.sync += [kept[k].eq(made[k]) for k in TABLE]
            m.d.sync += table.eq(number)
        with m.If(parse):
            m.d.sync += [
                parsing.eq(1),
                live_next.eq(0),
                filling.eq(0),
                count.eq(body[7:13] + 1),
                base.eq(body[13:21]),
                done.eq(0),
                sums.eq(0),
                *(s.eq(0) for s in starts + stops),
            ]
        self.header_skip = Signal(10)
        m.d.comb += self.header_skip.eq(
            Mux(blocked, 32, 8) + 21 + Mux(body[4:6] == LISTED, 8 + ((body[21:29] + 1) << 3), 0)
        )
        each = n + 4
        fields = []
        at: Value = Const(0, 1)
        total, top = sums, base
        for k in range(TOKENS_A_CYCLE):
            part = Signal(STATE + 4, name=f"token_{k}")
            m.d.comb += part.eq((self._tokens_window(window) >> at)[: STATE + 4])
            valid = done + k < count
            extra, share = Signal(3, name=f"extra_of_{k}"), Signal(STATE + 1, name=f"share_of_{k}")
            m.d.comb += [extra.eq(part[:3]), share.eq(Mux(valid, (part >> 3) & ((Const(2, 12) << n) - 1), 0))]
            fields.append((valid, total, share, top, extra))
            new_total, new_top, new_at = (
                Signal(STATE + 1, name=f"sum_{k}"),
                Signal(9, name=f"top_{k}"),
                Signal(7, name=f"token_at_{k}"),
            )
            m.d.comb += [
                new_total.eq(total + share),
                new_top.eq(top + Mux(valid, 1 << extra, 0)),
                new_at.eq(at + Mux(valid, each, 0)),
            ]
            total, top, at = new_total, new_top, new_at
        self.token_bits = at
        with m.If(parsing):
            for t in range(MAX_TOKENS):
                k = t % TOKENS_A_CYCLE
                with m.If(done[2:] == t // TOKENS_A_CYCLE):
                    valid, start, share, first, extra = fields[k]
                    m.d.sync += [
                        starts[t].eq(start),
                        stops[t].eq(start + share),
                        counters[t].eq(share),
                        ranks[t].eq(first),
                        extras[t].eq(extra),
                    ]
            m.d.sync += [done.eq(done + TOKENS_A_CYCLE), sums.eq(total), base.eq(top)]
            with m.If(done + TOKENS_A_CYCLE >= count):
                m.d.sync += [
                    parsing.eq(0),
                    live_next.eq(kept["blocked"] & (n != 0)),
                    filling.eq(~(kept["blocked"] & (n != 0))),
                ]
        with m.If(live_next):
            m.d.sync += [
                live.eq(self._tokens_window(window)[: STATE + 1] & ((Const(2, 12) << n) - 1)),
                live_next.eq(0),
                filling.eq(1),
            ]
        self.parsing = parsing

        # ---- entropy: states
        x = Signal(STATE)
        dead_y, live_y = Signal(STATE + 1), Signal(STATE + 1)
        begun = Signal()
        whole = Signal(STATE + 1)
        m.d.comb += whole.eq(1 << n)
        entries: list[list[Value]] = [[], []]
        taken_by: list[Signal] = []
        block_first: Value | None = None
        lives: Value = Const(0, 1)
        for j in range(2):
            i = Signal(STATE, name=f"reversed_{j}")
            state = x | j
            with m.Switch(n):
                for bits in range(STATE + 1):
                    with m.Case(bits):
                        m.d.comb += i.eq(Cat(state[b] for b in reversed(range(bits))))
            hit = Signal(MAX_TOKENS, name=f"token_of_{j}")
            m.d.comb += hit.eq(Cat((i >= starts[t]) & (i < stops[t]) for t in range(MAX_TOKENS)))
            y, rank, extra = (
                Signal(STATE + 1, name=f"y_of_{j}"),
                Signal(8, name=f"rank_of_{j}"),
                Signal(3, name=f"extra_bits_{j}"),
            )
            for t in range(MAX_TOKENS):
                with m.If(hit[t]):
                    m.d.comb += [
                        y.eq(counters[t] + (taken_by[0][t] if j else 0)),
                        rank.eq(ranks[t]),
                        extra.eq(extras[t]),
                    ]
            taken_by.append(hit)
            entries[0].append(self._state(m, f"weights_{j}", y, n, whole, extra, rank))
            is_live = i >= whole - live
            by = Signal(STATE + 1, name=f"block_y_{j}")
            again = (is_live == block_first) if j else Const(0, 1)
            m.d.comb += by.eq(Mux(is_live, Mux(begun, live_y, live), Mux(begun, dead_y, whole - live)) + again)
            block_first = is_live if block_first is None else block_first
            entries[1].append(self._state(m, f"blocks_{j}", by, n, whole, Const(0, 3), Cat(is_live, Const(0, 7))))
            lives = lives + is_live
        with m.If(filling):
            m.d.sync += [begun.eq(1), x.eq(x + 2)]
            for t in range(MAX_TOKENS):
                m.d.sync += counters[t].eq(counters[t] + taken_by[0][t] + taken_by[1][t])
            m.d.sync += [
                live_y.eq(Mux(begun, live_y, live) + lives),
                dead_y.eq(Mux(begun, dead_y, whole - live) + 2 - lives),
            ]
            with m.If(x + 2 >= whole):
                m.d.sync += filling.eq(0)
        with m.If(parse):
            m.d.sync += [begun.eq(0), x.eq(0)]
        m.d.comb += [
            self.table_write.eq(filling),
            self.table_waddr.eq(Cat(x, table)),
            self.table_wdata.eq(Cat(Cat(e, Const(0, 32 - len(e))) for e in entries[0] + entries[1])),
        ]

        # ---- the registers
        rank_bits = bit_length(m, "rank_bits", Mux(base == kept["first_rank"], 0, base - kept["first_rank"] - 1)[:8])
        tail = Signal(4)
        with m.Switch(rank_bits):
            for k in range(1, 9):
                with m.Case(k):
                    m.d.comb += tail.eq(n // k)
        m.d.comb += [put.addr.eq(Mux(simple, number, table)), put.en.eq(simple | filling)]
        finished = dict(kept, rank_bits=rank_bits, tail=tail)
        m.d.comb += put.data.eq(Mux(simple, Cat(made.values()), Cat(finished.values())))
        return parse & (body[4:6] == LISTED) & (body[21:29] >= VALUES)

    def _tokens_window(self, window: Signal) -> Value:
        return window[: TOKENS_A_CYCLE * (STATE + 4)]

    def _state(self, m: Module, name: str, y: Signal, n: Signal, whole: Signal, extra: Value, rank: Value) -> Value:
        """The entry of a state whose y is given: next state's base 10, bits 4, extra 3, rank 8."""
        log = bit_length(m, f"log_{name}", y)
        bits, base = Signal(4, name=f"take_{name}"), Signal(STATE, name=f"base_{name}")
        m.d.comb += [bits.eq(n + 1 - log), base.eq((y << bits) - whole)]
        return Cat(base, bits, extra, rank)


class Placed:
    """A word of zero_run: its bytes, whether one is not zero, where it goes; ``next``: where the last live word is."""

    def __init__(self, lanes: int) -> None:
        self.data, self.live, self.address, self.next = Signal(8 * lanes), Signal(), Signal(W_BITS), Signal(W_BITS)
        self.was_live = Signal()
