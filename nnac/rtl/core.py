"""The core: all units and their wires.  Its ports are clock, reset, go, the traces, and the memories' macros.

Every memory is a macro with registered reads: what stands at an address port in cycle c is at the data port in c + 1,
before what is written in c. `ports` lists them; `macros` says what memories they belong to.
"""

from __future__ import annotations

import re

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.back import verilog as back
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from nnac.isa import UNITS, MachineConfig
from nnac.rtl.bus import Bus
from nnac.rtl.control import Control
from nnac.rtl.decoder import Decoder
from nnac.rtl.dma import Dma
from nnac.rtl.matrix import ACC_BITS, W_BITS, Matrix
from nnac.rtl.params import A_BITS, DRAM_BITS, GRANULE, UNIT, WORD, check, power
from nnac.rtl.stream import Stream
from nnac.rtl.tile import INDEX_BITS, STATE_BITS, window_bytes
from nnac.rtl.vector import LUT_BITS, Vector

ERRORS = (
    2  # bits of ``error``: a semaphore beyond 255 or an undefined opcode; a stream that is not as its instruction says
)


def ports(c: MachineConfig) -> dict[str, tuple[str, int]]:
    """Every port: name -> (``in`` or ``out``, bits)."""
    burst, word, v = 8 * c.burst, INDEX_BITS + 8 * c.lanes, c.vector
    ring = power(c.ring_bytes // GRANULE)
    out = dict(
        halted=1,
        error=ERRORS,
        started=5,
        finished=5,
        mark=1,
        mark_id=16,
        host=1,
        host_id=16,
        imem_addr=16,
        dram_addr=DRAM_BITS,
        dram_mask=c.burst // UNIT,
        dram_wdata=burst,
        ring_waddr=ring,
        ring_mask=c.burst // GRANULE,
        ring_wdata=burst,
        ring_addr=power(c.ring_bytes),
        w_addr=W_BITS,
        w_write=1,
        w_waddr=W_BITS,
        w_wdata=word,
        mv_addr=A_BITS * c.columns,
        da_raddr=A_BITS - 2,
        da_waddr=A_BITS - 2,
        da_mask=c.burst // UNIT,
        da_wdata=burst,
        acc_data=ACC_BITS * v,
        vx_raddr0=A_BITS - 2,
        vx_raddr1=A_BITS - 2,
        vx_raddr2=A_BITS - 2,
        vx_waddr=A_BITS - 2,
        vx_mask=c.lanes,
        vx_wdata=8 * c.lanes,
        lut_addr=2 * v * LUT_BITS,
        lut_waddr=LUT_BITS,
        lut_mask=2 * v,
        lut_wdata=32 * v,
        table_addr=STATE_BITS * c.lanes,
        table_write=1,
        table_waddr=STATE_BITS - 1,
        table_wdata=128,
    )
    into = dict(
        go=1,
        imem_data=WORD,
        dram_data=burst,
        w_data=word,
        mv_data=16 * c.columns,
        da_rdata=burst,
        ring_data=8 * window_bytes(c),
        vx_rdata0=8 * c.lanes,
        vx_rdata1=8 * c.lanes,
        vx_rdata2=8 * c.lanes,
        lut_data=64 * v,
        table_data=32 * c.lanes,
        debug=1,
        debug_acc=16,
    )
    return {k: ("in", n) for k, n in into.items()} | {k: ("out", n) for k, n in out.items()}


class Core(wiring.Component):
    """The machine ``config``.  CoreError if the core cannot be it.

    registers   the registers that hold what the macros read are in the core, not in the macros: their data ports then
                take, in the same cycle, what stands at the address.  A simulator has half the logic to evaluate
    """

    def __init__(self, config: MachineConfig, *, registers: bool = False) -> None:
        check(config)
        self.config, self.registers = config, registers
        super().__init__({name: (In if way == "in" else Out)(bits) for name, (way, bits) in ports(config).items()})

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self.config
        data = {name: getattr(self, name) for name, (way, _) in ports(c).items() if way == "in" and "data" in name}
        if self.registers:
            for name, port in data.items():
                data[name] = held = Signal(len(port), name=f"{name}_held")
                m.d.sync += held.eq(port)
        m.submodules.control = control = Control(c)
        m.submodules.bus = bus = Bus(c)
        m.submodules.stream = stream = Stream(c)
        m.submodules.decoder = decoder = Decoder(c)
        m.submodules.dma = dma = Dma(c)
        m.submodules.matrix = matrix = Matrix(c)
        m.submodules.vector = vector = Vector(c)

        # ---- control and units
        for name, unit in (("DW", stream), ("DA", dma), ("MV", matrix), ("VX", vector)):
            m.d.comb += [
                unit.head.eq(control.head[name]),
                unit.start.eq(control.start[name]),
                control.ready[name].eq(unit.ready),
                control.idle[name].eq((unit.idle & decoder.rest) if unit is stream else unit.idle),
                control.done[name].eq(unit.done),
                control.signal[name].eq(unit.signal),
            ]
        m.d.comb += [
            control.go.eq(self.go),
            stream.go.eq(self.go),
            control.imem_data.eq(data["imem_data"]),
            self.imem_addr.eq(control.imem_addr),
            self.halted.eq(control.halted),
            self.error[0].eq(control.error),
            self.started.eq(Cat(control.start[u] for u in UNITS)),
            self.finished.eq(Cat(control.done[u] for u in UNITS)),
            self.mark.eq(control.mark),
            self.mark_id.eq(control.mark_id),
            self.host.eq(control.host),
            self.host_id.eq(control.host_id),
        ]

        # ---- the bus and DRAM
        m.d.comb += [
            bus.dw_asks.eq(stream.asks),
            bus.da_asks.eq(dma.asks),
            bus.dw_last.eq(stream.last),
            bus.da_last.eq(dma.last),
            stream.moves.eq(bus.dw),
            dma.moves.eq(bus.da),
            stream.over.eq(bus.over & bus.dw),
            dma.over.eq(bus.over & bus.da),
            stream.ended.eq(bus.ended & bus.dw),
            dma.ended.eq(bus.ended & bus.da),
            self.dram_addr.eq(Mux(bus.da, dma.burst, stream.burst)),
            stream.data.eq(data["dram_data"]),
            dma.data.eq(data["dram_data"]),
            self.dram_mask.eq(dma.dram_mask),
            self.dram_wdata.eq(dma.dram_wdata),
        ]

        # ---- ring and decoder
        m.d.comb += [
            self.ring_waddr.eq(stream.ring_addr),
            self.ring_mask.eq(stream.ring_mask),
            self.ring_wdata.eq(stream.ring_data),
            decoder.whole.eq(stream.whole),
            decoder.word.eq(stream.word),
            stream.take.eq(decoder.take),
            stream.done.eq(decoder.done),
            decoder.base.eq(stream.base),
            self.ring_addr.eq(decoder.ring_addr),
            decoder.ring_data.eq(data["ring_data"]),
            self.w_write.eq(decoder.w_write),
            self.w_waddr.eq(decoder.w_addr),
            self.w_wdata.eq(decoder.w_data),
            self.table_addr.eq(decoder.table_addr),
            decoder.table_data.eq(data["table_data"]),
            self.table_write.eq(decoder.table_write),
            self.table_waddr.eq(decoder.table_waddr),
            self.table_wdata.eq(decoder.table_wdata),
            self.error[1].eq(decoder.error),
        ]

        # ---- A, W, accumulators
        m.d.comb += [
            self.da_raddr.eq(dma.a_raddr),
            dma.a_rdata.eq(data["da_rdata"]),
            self.da_waddr.eq(dma.a_waddr),
            self.da_mask.eq(dma.a_wmask),
            self.da_wdata.eq(dma.a_wdata),
            self.w_addr.eq(matrix.w_addr),
            matrix.w_data.eq(data["w_data"]),
            self.mv_addr.eq(Cat(matrix.a_addr)),
            matrix.a_data.eq(data["mv_data"]),
            self.acc_data.eq(matrix.acc_data),
        ]
        # what is shown of the accumulators is asked for a cycle before: an input that reached VX's sums within a cycle
        # would have a simulator evaluate them at every change of the clock
        shown, debug, debug_acc = Cat(matrix.acc_group, matrix.acc_column, matrix.acc_bank), Signal(), Signal(16)
        m.d.sync += [debug.eq(self.debug), debug_acc.eq(self.debug_acc)]
        m.d.comb += [
            shown.eq(Mux(debug, debug_acc, Cat(vector.acc_group, vector.acc_column, vector.acc_bank))),
            vector.acc_data.eq(matrix.acc_data),
        ]

        # ---- VX
        for k, address in enumerate((self.vx_raddr0, self.vx_raddr1, self.vx_raddr2)):
            m.d.comb += [address.eq(vector.raddr[k]), vector.rdata[k].eq(data[f"vx_rdata{k}"])]
        m.d.comb += [
            self.vx_waddr.eq(vector.waddr),
            self.vx_mask.eq(vector.mask),
            self.vx_wdata.eq(vector.wdata),
            self.lut_addr.eq(vector.lut_addr),
            vector.lut_data.eq(data["lut_data"]),
            self.lut_waddr.eq(vector.lut_waddr),
            self.lut_mask.eq(vector.lut_mask),
            self.lut_wdata.eq(vector.lut_wdata),
        ]
        return m


def tidied(text: str) -> str:
    """Verilog as Yosys writes it, without what slows other tools down or makes them complain.

    Memories are written out as one assignment a row, of memories that nobody reads before they are written.  Yosys lets
    the left side say how wide an expression is, and assigns a default before a case: Verilog defines both, but
    Verilator's lint would have them written out.
    """
    text = text.replace(
        "\nmodule", "\n/* verilator lint_off WIDTH */\n/* verilator lint_off CASEINCOMPLETE */\nmodule", 1
    )
    text = re.sub(r"^ *\(\* src = \"[^\"]*\" \*\)\n", "", text, flags=re.M)
    return re.sub(r"^ *initial begin\n(?: *\S+ ?\[\d+\] = \d+'[hd]0+;\n)+ *end\n", "", text, flags=re.M)


def verilog(config: MachineConfig, *, registers: bool = False) -> str:
    """The core as Verilog, module ``core``."""
    return tidied(back.convert(Core(config, registers=registers), name="core", strip_internal_attrs=True))


def simulated(config: MachineConfig, *, flat: bool = False) -> str:
    """The core with its registers as Verilog for a simulator, ``flat`` as one module with signals named by their place.

    Each register says by itself when it is reset and when it takes its next value.  As `verilog` writes them, reset is
    a term of every next value: an input that reaches them all within a cycle, so that Verilator evaluates them twice
    more.
    """
    text = rtlil.convert(Core(config, registers=True), name="core", emit_src=False)
    passes = ["proc", *(["flatten"] if flat else []), "opt_clean", "opt_dff", "opt_clean", "memory_collect"]
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", *passes, "write_verilog -noattr -norename"]
    return tidied(find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script)))


def countable(config: MachineConfig) -> str:
    """The core with its registers as `verilog` writes it, conditions as lines, for counting those that run.

    Left out are the empty conditions that have other simulators evaluate blocks of constants: Verilator does without,
    and would count each as a line that never runs.
    """
    idle = r"^ *(?:reg \\\$auto\$verilog_backend\S+  = 0;|if \(\\\$auto\$verilog_backend\S+ \) begin end)\n"
    return re.sub(idle, "", verilog(config, registers=True), flags=re.M)
