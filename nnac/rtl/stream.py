"""DW, first half: requests for weight streams, and the bytes on their way into the ring.

Streams are asked for, moved and decoded in order, at most ``outstanding`` at a time.  The ring is cut in granules of 16
bytes; a stream takes the next ones.  A stream that begins in the burst in which the one before it ended finds that
burst in a register (``held``): its granules go to the ring when the data phase begins, and the burst is not read again,
unless it is the only one.  Source: `nnac.emulator.clocked`, rules 1 and 3.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from nnac.isa import LDT, LDW, MachineConfig
from nnac.isa.config import SEMAPHORES
from nnac.rtl.params import DRAM_BITS, GRANULE, WORD, Fields, opcode, power, signal_mask


class Stream(Elaboratable):
    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.go = Signal()
        self.head, self.start, self.ready, self.idle = Signal(WORD), Signal(), Signal(), Signal()
        # the bus
        self.asks, self.last, self.moves, self.over, self.ended = Signal(), Signal(), Signal(), Signal(), Signal()
        self.burst = Signal(DRAM_BITS)  # number of the burst that is moved
        self.data = Signal(8 * config.burst)
        # the ring, written burst by burst: granule k of the data goes to granule address + k where its bit of the
        # mask is set
        granules = config.burst // GRANULE
        self.ring_bits = power(config.ring_bytes // GRANULE)
        self.ring_addr, self.ring_mask, self.ring_data = (
            Signal(self.ring_bits),
            Signal(granules),
            Signal(8 * config.burst),
        )
        # the decoder: the next stream that has arrived whole, and where it lies
        self.whole, self.word, self.base = Signal(), Signal(WORD), Signal(self.ring_bits)
        self.take, self.done, self.signal = Signal(), Signal(), Signal(SEMAPHORES)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        slots, per_burst = c.outstanding, c.burst // GRANULE
        total = c.ring_bytes // GRANULE
        head = {"LDW": Fields(LDW, self.head), "LDT": Fields(LDT, self.head)}

        def field(word_fields: dict[str, Fields], word: Signal, name: str) -> Value:
            a, b = word_fields["LDW"].code(name), word_fields["LDT"].code(name)
            return Mux(opcode(word) == LDT.opcode, b, a)

        # ---- a request starts
        dram, size = Signal(DRAM_BITS), Signal(16)
        need, used = Signal(range(total + 1)), Signal(range(total + 1))
        first, end = Signal(DRAM_BITS), Signal(DRAM_BITS + 1)
        held, known = Signal(DRAM_BITS + 1), Signal()
        shared = Signal()
        m.d.comb += [
            dram.eq(field(head, self.head, "dram")),
            size.eq(field(head, self.head, "bytes")),
            need.eq((size + (GRANULE - 1)) >> power(GRANULE)),
            first.eq(dram >> power(per_burst)),
            end.eq(((dram << power(GRANULE)) + Mux(size == 0, 0, size - 1)) >> power(c.burst)),
            shared.eq(known & (first == held) & (end != first)),
        ]
        n_bits = range((1 << 16) // c.burst + 3)
        bursts = Signal(n_bits)
        m.d.comb += bursts.eq(end - first + 1 - shared)
        outstanding = Signal(range(slots + 1))
        m.d.comb += self.ready.eq((outstanding < slots) & (used + need <= total))
        put, moving, decoding = Signal(range(slots)), Signal(range(slots)), Signal(range(slots))

        # ---- what is known of each request, by slot
        facts = Cat(self.head, bursts, first + shared, shared)
        m.submodules.requests = memory = Memory(shape=len(facts), depth=slots, init=[])
        write, at_bus, at_decoder = (
            memory.write_port(),
            memory.read_port(domain="comb"),
            memory.read_port(domain="comb"),
        )
        m.d.comb += [
            write.addr.eq(put),
            write.data.eq(facts),
            write.en.eq(self.start),
            at_bus.addr.eq(moving),
            at_decoder.addr.eq(decoding),
        ]
        latency = Array(Signal(range(c.latency + 2), name=f"latency_{k}") for k in range(slots))
        for k in range(slots):
            with m.If(self.start & (put == k)):
                m.d.sync += latency[k].eq(c.latency)
            with m.Elif(latency[k] != 0):
                m.d.sync += latency[k].eq(latency[k] - 1)

        def after(pointer: Signal) -> Signal:
            return Mux(pointer == slots - 1, 0, pointer + 1)

        with m.If(self.start):
            m.d.sync += [put.eq(after(put)), held.eq(end), known.eq(1)]

        # ---- the data phase of the oldest
        on_bus, moved, begun = Signal(range(slots + 1)), Signal(n_bits), Signal()
        word, n, start_burst, is_shared = Signal(WORD), Signal(len(bursts)), Signal(DRAM_BITS), Signal()
        m.d.comb += Cat(word, n, start_burst, is_shared).eq(
            Cat(at_bus.data[: WORD + len(bursts)], at_bus.data[WORD + len(bursts) : -1][:DRAM_BITS], at_bus.data[-1])
        )
        base, last_data = Signal(self.ring_bits), Signal(8 * c.burst)
        moved_fields = {"LDW": Fields(LDW, word), "LDT": Fields(LDT, word)}
        begins, length, granules = Signal(DRAM_BITS), Signal(16), Signal(range(total + 1))
        m.d.comb += [
            self.asks.eq((on_bus != 0) & (latency[moving] == 0)),
            self.burst.eq(start_burst + moved),
            self.last.eq(moved + 1 == n),
            begins.eq(field(moved_fields, word, "dram")),
            length.eq(field(moved_fields, word, "bytes")),
            granules.eq((length + (GRANULE - 1)) >> power(GRANULE)),
        ]
        from_held = Signal()
        m.d.comb += from_held.eq(self.moves & ~begun & is_shared)
        at = Signal(DRAM_BITS)  # granule of DRAM that the data begin with
        m.d.comb += [
            at.eq((self.burst - from_held) << power(per_burst)),
            self.ring_addr.eq(base + at - begins),
            self.ring_data.eq(Mux(from_held, last_data, self.data)),
        ]
        for k in range(per_burst):
            offset = Signal(DRAM_BITS + 1, name=f"offset_{k}")
            m.d.comb += [
                offset.eq(at + k - begins),
                self.ring_mask[k].eq((from_held | self.over) & (at + k >= begins) & (offset < granules)),
            ]
        with m.If(self.moves):
            m.d.sync += begun.eq(~self.ended)
            with m.If(self.over):
                m.d.sync += [moved.eq(Mux(self.ended, 0, moved + 1)), last_data.eq(self.data)]
            with m.If(self.ended):
                m.d.sync += [moving.eq(after(moving)), base.eq(base + granules)]
        m.d.sync += on_bus.eq(on_bus + self.start - self.ended)

        # ---- the decoder takes it
        fetched, to_free = Signal(range(slots + 1)), Signal(range(total + 1))
        taken = {"LDW": Fields(LDW, self.word), "LDT": Fields(LDT, self.word)}
        taken_need = Signal(range(total + 1))
        m.d.comb += [
            self.word.eq(at_decoder.data[:WORD]),
            self.whole.eq(fetched != 0),
            taken_need.eq((field(taken, self.word, "bytes") + (GRANULE - 1)) >> power(GRANULE)),
        ]
        m.d.sync += fetched.eq(fetched + self.ended - self.take)
        reading = Signal(self.ring_bits)
        m.d.comb += self.base.eq(reading)
        with m.If(self.take):
            m.d.sync += [
                decoding.eq(after(decoding)),
                to_free.eq(taken_need),
                self.signal.eq(signal_mask(self.word)),
                reading.eq(reading + taken_need),
            ]
        m.d.sync += [
            outstanding.eq(outstanding + self.start - self.done),
            used.eq(used + Mux(self.start, need, 0) - Mux(self.done, to_free, 0)),
        ]
        m.d.comb += self.idle.eq(outstanding == 0)
        with m.If(self.go):
            m.d.sync += known.eq(0)
        return m
