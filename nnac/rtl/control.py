"""CT: fetch, the four queues, the semaphores.  Decides when each instruction starts; units say when they can take one
and when they are done.

In cycle c the next instruction goes to its unit's queue or, if it is CT's own, is executed; units start in the order
DW, DA, MV, VX, CT, each seeing the semaphores that those before it took.  Source: `nnac.emulator.clocked`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib.memory import Memory

from nnac.isa import HALT, HOST, PROF, UNITS, MachineConfig
from nnac.isa.config import SEMAPHORE_MAX, SEMAPHORES
from nnac.rtl.params import WORD, Fields, is_one, of_unit, opcode, signal_mask, wait_mask

QUEUED = UNITS[:4]


class Control(Elaboratable):
    """Ports by unit (DW, DA, MV, VX): ``head`` the word at its queue's head, ``ready`` it can take it, ``start`` it
    takes it now,
    ``done`` with ``signal``, the mask of the instruction that is done, ``idle`` it has nothing left."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.go, self.halted, self.error = Signal(), Signal(), Signal()
        self.imem_addr, self.imem_data = Signal(16), Signal(WORD)
        self.head = {u: Signal(WORD, name=f"head_{u}") for u in QUEUED}
        self.ready = {u: Signal(name=f"ready_{u}") for u in QUEUED}
        self.start = {u: Signal(name=f"start_{u}") for u in UNITS}
        self.done = {u: Signal(name=f"done_{u}") for u in UNITS}
        self.signal = {u: Signal(SEMAPHORES, name=f"signal_{u}") for u in UNITS}
        self.idle = {u: Signal(name=f"idle_{u}") for u in QUEUED}
        self.mark, self.mark_id = Signal(), Signal(16)
        self.host, self.host_id = Signal(), Signal(16)

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        pc, running = Signal(16), Signal()
        word = self.imem_data
        left, ct_signal = Signal(32), Signal(SEMAPHORES)
        fetching = Signal()
        m.d.comb += fetching.eq(running & (left == 0))

        # ---- queues
        waiting, empty = {}, {}
        for u in QUEUED:
            m.submodules[f"queue_{u}"] = memory = Memory(shape=WORD, depth=c.queue, init=[])
            write, read = memory.write_port(), memory.read_port(domain="comb")
            n = Signal(range(c.queue + 1), name=f"queued_{u}")
            first, last = Signal(range(c.queue), name=f"first_{u}"), Signal(range(c.queue), name=f"last_{u}")
            push, pop = Signal(name=f"push_{u}"), self.start[u]
            m.d.comb += [
                push.eq(fetching & is_one(word, of_unit(u)) & (n < c.queue)),
                write.addr.eq(last),
                write.data.eq(word),
                write.en.eq(push),
                read.addr.eq(first),
                self.head[u].eq(read.data),
            ]
            m.d.sync += n.eq(n + push - pop)
            for pointer, moves in ((last, push), (first, pop)):
                with m.If(moves):
                    m.d.sync += pointer.eq(Mux(pointer == c.queue - 1, 0, pointer + 1))
            waiting[u], empty[u] = push, n == 0

        # ---- semaphores: each unit sees what those before it in this cycle have left
        sem = [Signal(range(SEMAPHORE_MAX + 1), name=f"s{k}") for k in range(SEMAPHORES)]
        left_of = list(sem)
        own = is_one(word, of_unit("CT"))
        for u in UNITS:
            mask = wait_mask(self.head[u] if u != "CT" else word)
            there = Signal(SEMAPHORES, name=f"there_{u}")
            m.d.comb += there.eq(Cat(*(v != 0 for v in left_of)))
            can = fetching & own if u == "CT" else ~empty[u] & self.ready[u]
            m.d.comb += self.start[u].eq(can & ~(mask & ~there).any())
            after = [Signal(range(SEMAPHORE_MAX + 1), name=f"s{k}_after_{u}") for k in range(SEMAPHORES)]
            m.d.comb += [
                a.eq(v - (self.start[u] & mask[k])) for k, (a, v) in enumerate(zip(after, left_of, strict=True))
            ]
            left_of = after
        over = Signal()
        for k in range(SEMAPHORES):
            total = Signal(range(SEMAPHORE_MAX + 6), name=f"s{k}_total")
            given = sum((self.done[u] & self.signal[u][k] for u in UNITS), start=left_of[k])
            m.d.comb += total.eq(given)
            m.d.sync += sem[k].eq(total)
            with m.If(total > SEMAPHORE_MAX):
                m.d.comb += over.eq(1)

        # ---- fetch
        advance, ct = Signal(), self.start["CT"]
        m.d.comb += advance.eq(ct | sum((waiting[u] for u in QUEUED), start=0))
        m.d.comb += self.imem_addr.eq(pc + advance)
        m.d.sync += pc.eq(self.imem_addr)
        host = Fields(HOST, word)
        time = Signal(32)
        m.d.comb += time.eq(Mux((opcode(word) == HOST.opcode) & (host.code("time") > 1), host.code("time"), 1))
        m.d.comb += [
            self.mark.eq(ct & (opcode(word) == PROF.opcode)),
            self.mark_id.eq(Fields(PROF, word).code("id")),
            self.host.eq(ct & (opcode(word) == HOST.opcode)),
            self.host_id.eq(host.code("id")),
        ]
        m.d.comb += [
            self.done["CT"].eq((ct & (time == 1)) | (left == 1)),
            self.signal["CT"].eq(Mux(left == 0, signal_mask(word), ct_signal)),
        ]
        with m.If(ct):
            m.d.sync += [left.eq(time - 1), ct_signal.eq(signal_mask(word))]
            with m.If(opcode(word) == HALT.opcode):
                m.d.sync += running.eq(0)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

        rest = Signal()
        m.d.comb += rest.eq(~running & (left == 0))
        for u in QUEUED:
            with m.If(~empty[u] | ~self.idle[u]):
                m.d.comb += rest.eq(0)
        m.d.comb += self.halted.eq(rest)
        with m.If(self.go):
            m.d.comb += self.imem_addr.eq(0)
            m.d.sync += [running.eq(1), pc.eq(0), *(s.eq(0) for s in sem)]
        undefined = fetching & ~own & ~is_one(word, [cls for u in QUEUED for cls in of_unit(u)])
        m.d.comb += self.error.eq(over | undefined)
        return m
