"""The hardware manual, printed from the code: state, rules, time, and every instruction from the class that implements it.

An RTL core can be built from it; `nnac.emulator.clocked` is the same in executable form.
"""

from __future__ import annotations

import inspect

from nnac.isa.base import Instruction, registry
from nnac.isa.config import SEMAPHORE_MAX, SEMAPHORES, MachineConfig

STATE = """\
1  State
--------
L lanes and C columns: each cycle one weight word (L weights, of L outputs, for one input) meets up to C broadcast activations.
V = {vector} elements a cycle go through the vector unit.

A      activation SRAM, {a_bytes:,} bytes: activations, state, parameters.  Little-endian int8, int16, int32.  Every unit has a port of
       its own.
W      weight words, {words:,} x {lanes} int8, each with a 16-bit input index.  By convention the first {stream_words:,} carry the stream,
       the other {pinned_words:,} keep pinned weights.
RING   {ring_bytes:,} bytes between DRAM and decoder.      TABLE  {decoder_tables} decoder tables.
ACC    {banks} banks x C columns x L accumulators of 48 bits.      LUT  {luts} look-up tables of 513 int16.
DRAM   {size_dram} bytes at most, in bursts of {burst}.  Weight streams, tables and parameters are read-only; a part may be writable.
s0..s{last_semaphore} counting semaphores, 0..{semaphore_max}.      One instruction queue of {queue} entries in front of each of DW, DA, MV, VX.

Before an entry starts: queues empty, semaphores zero, units, bus and decoder at rest, no burst held.  All memories keep their contents.
"""

RULES = """\
2  Clocked rules
----------------
Everything is registered: what happens in cycle c is seen in c + 1.

Fetch  An entry's instructions are taken in order by CT, at most one a cycle, from a port of their own.  In cycle c the next instruction is
       pushed into its unit's queue if the queue held fewer than {queue} at the beginning of c; otherwise fetch waits, and the instructions
       behind it wait too.  A CT instruction is executed by fetch itself when the semaphores of its wait mask are above zero; the next
       fetch is in the cycle after it is done.
Start  A unit that is free in cycle c starts the head of its queue if every semaphore of the wait mask is above zero; each is then
       decremented.  In one cycle the order is DW, DA, MV, VX, CT: a unit sees the decrements of those before it.  The instruction leaves
       the queue (seen in c + 1).
Done   Each semaphore of the signal mask is incremented; seen in the cycle after done.  Beyond {semaphore_max} is an error.
       VX and CT: done = start + cycles - 1, free from start + cycles.
       MV: free from start + busy; done = start + busy - 1 + {mv_drain} (the pipeline drains while the next instruction issues).
DW     Free again in the next cycle.  It starts only if fewer than {outstanding} streams are outstanding and its bytes, rounded up to 16, fit into
       what the ring has left.  Both are taken at start and given back when the stream is done (seen in the cycle after).
DA     One instruction at a time: free from the cycle after done.
"""

TIME = """\
3  DRAM
-------
A read's data phase may begin {latency} cycles after its request is seen, which is one cycle after start (each instruction says its own
number).  A data phase of n bursts lasts ceil(n x {burst_cycles}) cycles: a burst of {burst} bytes is {burst_cycles} cycles, exactly; the fraction is
kept from burst to burst within a data phase and dropped at its end.  (RTL: a counter that grows by {den} each cycle; a burst is over when
it reaches {num}, which is then subtracted.)
Between bursts, and whenever the bus is idle, it is given: to DA if its request is ready; else it goes on with the stream that it is in;
else to DW's oldest request if that is ready.  DW's requests are served in order.  DA, once it has the bus, keeps it to its end; a stream
that was broken goes on with a fraction of zero.
Bursts of a transfer: those that its bytes touch, one at least.  A stream (LDW, LDT) that begins in the burst in which the previous stream of
the entry ended does not read that burst again.
A DA instruction is done in the last cycle of its data phase.

4  Decoder
----------
Streams that have arrived whole are decoded in order, one at a time, from the cycle after their last byte or after the previous tile:
steps x {decode_factor} + {decode_drain} cycles; the stream is done in the last of them.  The formats, and what a
step is: nnac.codec.  Decoding writes compact words: dead words take neither place nor time in MV.

5  Meaning
----------
An entry means what its instructions do one after another in program order.  A program must make sure, with semaphores, that an
instruction starts only when every earlier instruction of another unit that touches the same place (one of them writing) is done.  The
emulator proves it for every entry that it runs.
"""

NUMBERS = ("vector", "a_bytes", "words", "lanes", "stream_words", "pinned_words", "ring_bytes", "decoder_tables", "banks", "luts", "burst",
           "queue", "mv_drain", "outstanding", "latency", "decode_factor", "decode_drain")


def manual(config: MachineConfig | None = None, name: str = "") -> str:
    """The whole manual for a machine, or the page of one instruction.  KeyError: there is no such instruction."""
    if name:
        return page(registry[name])
    c = config or MachineConfig()
    numbers = {a: getattr(c, a) for a in NUMBERS}
    numbers |= dict(last_semaphore=SEMAPHORES - 1, semaphore_max=SEMAPHORE_MAX, size_dram=f"{1 << 29:,}", burst_cycles=c.burst_cycles,
                    num=c.burst_cycles.numerator, den=c.burst_cycles.denominator)
    title = f"The machine `{c.name}`: {c.lanes} lanes x {c.columns} columns, {c.clock / 1e6:g} MHz"
    head = [title, "=" * len(title), "", STATE.format(**numbers), RULES.format(**numbers), TIME.format(**numbers), *encoding()]
    units: dict[str, list[type[Instruction]]] = {}
    for cls in registry.values():
        units.setdefault(cls.unit, []).append(cls)
    for number, unit in enumerate(("DW", "DA", "MV", "VX", "CT"), 7):
        module = inspect.getdoc(inspect.getmodule(units[unit][0])) or ""
        line = f"{number}  {module.splitlines()[0]}"
        head += ["", line, "-" * len(line)]
        for cls in units[unit]:
            head += ["", page(cls).rstrip()]
    return "\n".join(head) + "\n"


def encoding() -> list[str]:
    """What all instructions share."""
    return ["6  Encoding", "-----------", "An instruction is 128 bits, little-endian.  Bits 0-5 opcode, 6-17 wait mask, 18-29 signal mask (bit k is",
            "semaphore k), from bit 30 its own fields; the rest is reserved and zero, which is checked.  Opcode 0 is no instruction."]


def page(cls: type[Instruction]) -> str:
    """One instruction: name, what it does, fields."""
    text = inspect.getdoc(cls) or ""
    records = {**getattr(cls, "records", {})}
    if block := getattr(cls, "block", None):
        records["block"] = block
        text += "" if "{block}" in text else "\n\nParameters: {block}."
    for name, record in records.items():
        text = text.replace(f"{{{name}}}", str(record))
    lines = [f"{cls.__name__}   (unit {cls.unit}, opcode {cls.opcode:#04x})", ""]
    lines += [f"    {line}".rstrip() for line in text.splitlines()]
    if cls.fields:
        lines += ["", *(f"        {f}" for f in cls.fields)]
    return "\n".join(lines) + "\n"
