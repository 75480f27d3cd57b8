"""DW, a stream's header: LDT fills a decoder table.

The registers at once, in one cycle; for entropy the tokens follow, four a cycle, and then two states a cycle are filled
in, each with its entry: next state's base, bits to take, extra bits, rank.  Formats: `nnac.codec`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import WritePort
from attrs import frozen

from nnac.codec.ans import LISTED, MAX_TOKENS
from nnac.rtl.tile import CODEBOOK, ENTROPY, PACKED, RAW, STATE, VALUES, ZERO_RUN

TOKENS_A_CYCLE = 4

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


@frozen
class Header:
    """What the load says to the rest of the decoder.

    skip        bits of the header before the tokens        parsing   tokens are read now, ``token_bits`` of them
    write       two states of both machines (weights, blocks) are written now: ``states`` to ``address``
    too_long    the header lists more values than there is room for
    """

    skip: Value
    parsing: Value
    token_bits: Value
    write: Value
    address: Value
    states: Value
    too_long: Value


def load(m: Module, put: WritePort, number: Signal, begins: Value, window: Signal) -> Header:
    """Fill the decoder table ``number`` from the header that ``window`` begins with when ``begins``; registers go to
    ``put``.
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
    header_skip = Signal(10)
    m.d.comb += header_skip.eq(
        Mux(blocked, 32, 8) + 21 + Mux(body[4:6] == LISTED, 8 + ((body[21:29] + 1) << 3), 0)
    )
    each, tokens_window = n + 4, window[: TOKENS_A_CYCLE * (STATE + 4)]
    fields = []
    at: Value = Const(0, 1)
    total, top = sums, base
    for k in range(TOKENS_A_CYCLE):
        part = Signal(STATE + 4, name=f"token_{k}")
        m.d.comb += part.eq((tokens_window >> at)[: STATE + 4])
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
    token_bits = at
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
            live.eq(tokens_window[: STATE + 1] & ((Const(2, 12) << n) - 1)),
            live_next.eq(0),
            filling.eq(1),
        ]

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
        entries[0].append(_entry(m, f"weights_{j}", y, n, whole, extra, rank))
        is_live = i >= whole - live
        by = Signal(STATE + 1, name=f"block_y_{j}")
        again = (is_live == block_first) if j else Const(0, 1)
        m.d.comb += by.eq(Mux(is_live, Mux(begun, live_y, live), Mux(begun, dead_y, whole - live)) + again)
        block_first = is_live if block_first is None else block_first
        entries[1].append(_entry(m, f"blocks_{j}", by, n, whole, Const(0, 3), Cat(is_live, Const(0, 7))))
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
    states = Cat(Cat(e, Const(0, 32 - len(e))) for e in entries[0] + entries[1])

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
    too_long = parse & (body[4:6] == LISTED) & (body[21:29] >= VALUES)
    return Header(header_skip, parsing, token_bits, filling, Cat(x, table), states, too_long)


def _entry(m: Module, name: str, y: Signal, n: Signal, whole: Signal, extra: Value, rank: Value) -> Value:
    """The entry of a state whose y is given: next state's base 10, bits 4, extra 3, rank 8."""
    log = bit_length(m, f"log_{name}", y)
    bits, base = Signal(4, name=f"take_{name}"), Signal(STATE, name=f"base_{name}")
    m.d.comb += [bits.eq(n + 1 - log), base.eq((y << bits) - whole)]
    return Cat(base, bits, extra, rank)
