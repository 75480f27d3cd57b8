"""The hardware manual, printed from the code: state, rules, time, arithmetic, codecs, and every instruction from the
class that implements it.

An RTL core can be built from it alone: what it names, it defines (`tests/test_manual.py`).
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any

from attrs import fields

from nnac.isa import rules
from nnac.isa.base import Instruction, Rule, registry
from nnac.isa.config import FORMATS, SEMAPHORE_MAX, SEMAPHORES, UNITS, MachineConfig
from nnac.isa.records import Record
from nnac.words import doc

STATE = """\
L lanes and C columns: each cycle one weight word (L weights, of L outputs, for one input) meets up to C broadcast
activations.
V = {vector} elements a cycle go through the vector unit.  ceil rounds up, floor down.

A      activation SRAM, {a_bytes:,} bytes: activations, state, parameters.  Little-endian int8, int16, int32, two's
       complement.  Every unit has a port of its own, as wide as it needs (section 7): units never wait for A, whatever
       their addresses.
W      weight words, {words:,} x {lanes} int8, each with a 16-bit input index.  By convention the first {stream_words:,}
       carry the stream, the other {pinned_words:,} keep pinned weights.
RING   {ring_bytes:,} bytes between DRAM and decoder.      TABLE  {decoder_tables} decoder tables, each what an LDT
       loaded.
ACC    {banks} banks x C columns x L accumulators of 48 bits.      LUT  {luts} look-up tables of 513 int16.
DRAM   {size_dram} bytes at most, in bursts of {burst}.  Read-only but for one stretch that the program declares
       writable.
s0..s{last_semaphore} counting semaphores, 0..{semaphore_max}.      One instruction queue of {queue} entries in front of
each of DW, DA, MV, VX.

Before an entry starts: queues empty, semaphores zero, units, bus and decoder at rest, no burst held.  All memories keep
their contents from entry to entry.
"""

CLOCKED = """\
Everything is registered: what happens in cycle c is seen in c + 1.

Fetch  An entry's instructions are taken in order by CT, at most one a cycle, from a port of their own.  In cycle c the
       next instruction is pushed into its unit's queue if the queue held fewer than {queue} at the beginning of c;
       otherwise fetch waits, and the instructions behind it wait too.  A CT instruction is executed by fetch itself
       when the semaphores of its wait mask are above zero; the next fetch is in the cycle after it is done.
Start  A unit that is free in cycle c starts the head of its queue if every semaphore of the wait mask is above zero;
       each is then decremented.  In one cycle the order is DW, DA, MV, VX, CT: a unit sees the decrements of those
       before it.  The instruction leaves the queue (seen in c + 1).
Done   Each semaphore of the signal mask is incremented; seen in the cycle after done.
       VX and CT: done = start + cycles - 1, free from start + cycles.
       MV: free from start + busy; done = start + busy - 1 + mv_drain (the pipeline drains while the next instruction
       issues).
DW     Free again in the next cycle.  It starts only if fewer than {outstanding} streams are outstanding and its bytes,
       rounded up to 16, fit into what the ring has left.  Both are taken at start and given back when the stream is
       done (seen in the cycle after).
DA     One instruction at a time: free from the cycle after done.

Operands may be read and results written in any cycle from start to done: a program that keeps the rules of section 12
cannot tell.
The same rules as a program that evaluates them in every cycle: nnac/emulator/clocked.py of the source.
"""

BUS = """\
A read's data phase may begin {latency} cycles after its request is seen, which is one cycle after start (each
instruction says its own number; LDW and LDT: 1 + latency).  A data phase of n bursts lasts ceil(n x {burst_cycles})
cycles: a burst of {burst} bytes is {burst_cycles} cycles, exactly; the fraction is kept from burst to burst within a
data phase and dropped at its end.  (RTL: a counter that grows by {den} each cycle; a burst is over when it reaches
{num}, which is then subtracted.) Between bursts, and whenever the bus is idle, it is given: to DA if its request is
ready; else it goes on with the stream that it is in; else to DW's oldest request if that is ready.  DW's requests are
served in order.  DA, once it has the bus, keeps it to its end; a stream that was broken goes on with a fraction of
zero.
Bursts of a transfer: those that its bytes touch, of 0 bytes the one at its address.  A stream (LDW, LDT) that begins in
the burst in which the previous stream of the entry ended does not read that burst again, but every stream reads one
burst at least: one that lies wholly in the held burst reads it again.  Transfers of DA neither use nor change the held
burst.
A DA instruction is done in the last cycle of its data phase.  {burst_cycles} cycles stand for what the memory delivers
in the mean, refresh and row misses included; a write turns the bus round, which takes {turnaround} bursts (section 11,
STA); there is no other master.
"""

DECODER = """\
Streams that have arrived whole are decoded in order, one at a time, from the cycle after their last byte or after the
previous stream: steps x {decode_factor} + {decode_drain} cycles, for LDT as for LDW; the stream is done in the last of
them.  Section 10 says what a step is.
Decoding writes compact words: dead words take neither place nor time in MV.
"""

MEANING = """\
An entry means what its instructions do one after another in program order.  A program must make sure, with semaphores,
that an instruction starts only when every earlier instruction of another unit that touches the same place (one of them
writing) is done.  The emulator proves it for every entry that it runs.  Within a unit instructions keep their order by
themselves.
"""

PORTS = """\
Most that a unit reads and writes in A in one cycle (bytes; at addresses that need not follow each other):
DA     a burst's bytes over its cycles.
MV     C activations of 1 byte, or of 2 in each act16_factor cycles, at any byte address (also an int16 at an odd one).
       With a_banks all of them from one memory of so many banks, as fast as its fullest allows (MVM); VX and DA read
       copies of their own, so that units do not wait for each other, and no wait depends on data.
VX     reads 12 V of parameters (RQ with wide), 4 V of addends and 4 V of operands; writes 4 V.  CPY, FIL and TAB move L
       bytes a cycle.
W is read a word and its index in each cycle of MV (with a rate above 1: so many words, of so many inputs) and written a
word a step.
A rate above 1: in each cycle that many words of the MVM, one after another, are multiplied with the activations of
their own inputs, and each accumulator adds that many products.  The order of sums does not matter, for they are exact.
Such a machine is *time only*: no structure is defined for it, and no core is built.
"""

START = """\
Power-up   Memories hold anything (zero in the emulator); no program of nnac reads what was not written.  The host
           copies the image to DRAM from address 0, sets every state in A to its initial integers (zero where the
           program says none), and runs the entry "init", if there is one, once: constants, look-up tables, decoder
           tables, pinned words.
Calls      For each call of an entry, at rest: the host writes the inputs to their places in A; sets fetch to the
           entry's first instruction; waits until the machine has halted (HALT done and no unit with an instruction
           left, nothing in flight); reads the outputs.
           What an entry leaves in A, W, LUT, TABLE and DRAM stays for the next.  Reset: the states' initial integers
           again.
Columns and utterances   One machine runs one utterance; the emulator runs several in lockstep, each with its own A, ACC
                         and writable DRAM.
Code       Lies outside the core; fetch takes 16 bytes a cycle from a port of its own, without latency.  It takes no
           DRAM bandwidth.
HOST       The core raises a request with ``id`` and stops fetching; when it is done the host has answered.  For the
           core it takes ``time`` cycles, whatever the host takes.
PROF       (id, cycle) goes to the host when it is executed.
Errors     A core need not notice a broken rule of section 12: whoever loads a program has checked it (nnac does, and
           what only data can break while it runs in the emulator).  After a broken rule nothing is promised.
Program file  A safetensors file.  Tensors: "dram", u8, the image; for each entry E "words.E", u64 [n, 2], its
           instructions, low half first, and "lines.E", u32 [n], the line of each in the table "debug".  The metadata
           "nnac" is JSON of format, version, sha256 and content, which is JSON again: "entries" with inputs, outputs
           and taps as ports in A (value, address, segments [[offset, elements]], size: bytes of an integer, vectors,
           stride: bytes); "states" (name, address, width, size, initial); "writable" [first, end] of DRAM; target,
           plan, and more for people.
"""

LEGEND = """\
All numbers are whole and exact: 64 bits are enough everywhere, and nothing wraps.  In the bodies >> shifts
arithmetically, towards minus infinity; << multiplies; a condition counts as 1 or 0; x.clip(a, b) limits x to a … b; abs
is the magnitude; the last axis of an array runs over the elements of a vector: x[..., a:b] takes elements a to b - 1,
.sum(-1) adds them up, .max(-1) is the largest, .swapaxes(-1, -2) exchanges the last two axes, [..., None] uses one
number for all of them, .shape[-1] is how many there are; table[k] is entry k, and of many k at a time.  In the headings
sat is saturate, sat16 saturate to 16 bits, rs round_shift.
"""

RINGS = """\
A ring at A[ring] keeps the vectors of some time: int32 count, 12 bytes of nothing, then slots chunks of chunk rows, one
row after another, each a multiple of 4 bytes long.  The count says how many chunks were written: 0 before the first,
counted on from slots where there were more, so that it stays below 2 slots.  KEEP writes the next chunk in the place of
the oldest; DOT, MIX and DWC read the rows from the oldest to the newest (ring_order), the newest chunk being the one
just kept.  Which row that is depends on the count; time does not, and whoever looks for races takes all rows.
"""

CONSTANTS = ("PRE_FRACTION", "UNIT_FRACTION", "SEGMENTS", "_STEP_BITS", "RSQRT_SEGMENTS", "LOG_FRACTION", "LN2",
             "SCORE_BITS")
FUNCTIONS = ("limits", "saturate", "within", "round_shift", "requantise", "requantise_double", "add", "lookup",
             "lstm_cell", "gru_cell", "max_of", "bit_length", "rsqrt",
             "layer_norm", "softmax", "log_softmax", "gate", "inner", "attention_scores", "weighted_sum", "depthwise",
             "ring_order", "ring_counted")
TABLES = ("sigmoid_table", "tanh_table", "exp_table", "log_table", "rsqrt_table")
CODECS = ("base", "raw", "packed", "codebook", "zero_run", "entropy")
TITLES = dict(DW="DW: the weight stream", DA="DA: the DMA", MV="MV: weight words times activations",
              VX="VX: the vector unit", CT="CT: fetch")


def manual(config: MachineConfig | None = None, name: str = "") -> str:
    """The whole manual for a machine, or the page of one instruction.  KeyError: there is no such instruction."""
    if name:
        return page(registry[name])
    c = config or MachineConfig()
    numbers = {a.name: getattr(c, a.name) for a in fields(MachineConfig)}
    numbers |= dict(words=c.words, last_semaphore=c.semaphores - 1, semaphore_max=SEMAPHORE_MAX,
                    size_dram=f"{1 << 29:,}",
                    num=c.burst_cycles.numerator, den=c.burst_cycles.denominator)
    title = f"The machine `{c.name}`: {c.lanes} lanes x {c.columns} columns, {c.clock / 1e6:g} MHz"
    parts = [("State", STATE.format(**numbers) + "\n" + RINGS), ("Clocked rules", CLOCKED.format(**numbers)),
             ("DRAM", BUS.format(**numbers)),
             ("Decoder", DECODER.format(**numbers)), ("Meaning", MEANING), ("Numbers", numbers_of(c)),
             ("Ports and rates", PORTS),
             ("Encoding", encoding()), ("Arithmetic", arithmetic()), ("Weight streams", codecs()),
             ("Instructions", "\n".join(unit_pages(unit) for unit in UNITS)),
             ("What a program must not do", forbidden(c)),
             ("Start of day, the host, errors, the program file", START)]
    lines = [title, "=" * len(title)]
    for number, (heading, text) in enumerate(parts, 1):
        line = f"{number}  {heading}"
        lines += ["", line, "-" * len(line), text.rstrip()]
    return "\n".join(lines) + "\n"


def numbers_of(c: MachineConfig) -> str:
    """Every number of the machine, with what it is."""
    lines = []
    for a in fields(MachineConfig):
        if "doc" in a.metadata:
            value = getattr(c, a.name)
            text = ", ".join(f"{f} {r}" for f, r in zip(FORMATS, value,
                                                        strict=True)) if a.name == "rates" else str(value)
            lines.append(f"{a.name:<15} {text:>9}  {plain(a.metadata['doc'])}")
    return "\n".join(lines) + """

rates: the target's rate for that width, or for the next wider one up to int8 that it has, and 1 at least; int16 is 1,
for its two words a weight
halve it already.  act16_factor: ceil(1 / the target's rate for int16), or 2 where it has none.
"""


def encoding() -> str:
    """What all instructions share."""
    by_number = sorted(registry.items(), key=lambda item: item[1].opcode)
    return ("An instruction is 128 bits, little-endian.  Bits 0-5 opcode, 6-17 wait mask, 18-29 signal mask (bit k is\n"
            f"semaphore k, k < {SEMAPHORES}), from bit 30 its own fields; the rest is reserved and zero, which is "
            f"checked.\n"
            "Opcode 0 is no instruction.\n"
            "A field \"in units of n\" holds the value over n; \"minus 1\", the value less 1.  Names that end in 16 "
            "are flags.\n"
            + textwrap.fill(f"Opcodes: {', '.join(f'{i.opcode:#04x} {name}' for name, i in by_number)}.", 120) + "\n"
            "Parameter blocks lie in A at a multiple of 4, little-endian, one field after another without gaps: u "
            "unsigned, i two's complement, the\n"
            "number its bits, a..b the values that mean something, 0 a field that is written as zero and ignored.\n")


def arithmetic() -> str:
    """The functions that instructions name, as they are computed."""
    arith = import_module("nnac.arith")
    lines = [LEGEND, "  ".join(f"{name.strip('_')} = {getattr(arith, name)}" for name in CONSTANTS)]
    for name in FUNCTIONS:
        lines += ["", *function(getattr(arith, name))]
    lines += ["", "Tables that nnac makes (the machine takes any):"]
    for name in TABLES:
        lines.append(f"    {name[: -len('_table')]:<8} " + " ".join(plain(doc(getattr(arith, name)) or "").split()))
    return "\n".join(lines) + "\n"


def function(f: Callable[..., Any]) -> list[str]:
    """A function of the arithmetic: its name and arguments, what it is, and its body."""
    source = textwrap.dedent(inspect.getsource(f))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef), f
    body = source.splitlines()[node.body[1].lineno -
                               1:] if ast.get_docstring(node) else source.splitlines()[node.body[0].lineno - 1:]
    kept: list[str] = []
    skip = -1                                                # inside a branch that gives the same by another way
    for line in body:
        indent = len(line) - len(line.lstrip())
        if skip >= 0 and indent > skip:
            continue
        skip = indent if line.rstrip().endswith("# the same") else -1
        if skip < 0 and not line.lstrip().startswith("#"):
            kept.append(line.split("  # ")[0].rstrip().replace("_STEP_BITS", "STEP_BITS"))
    text = plain(ast.get_docstring(node) or "")
    return [f"{f.__name__}({', '.join(a.arg for a in node.args.args)})",
            *(f"    {line}".rstrip() for line in text.splitlines()), "    exactly:",
            *(f"    {line}" for line in kept)]


def codecs() -> str:
    """The formats of weight streams."""
    return "\n\n".join(plain(doc(import_module(f"nnac.codec.{name}")) or "") for name in CODECS) + "\n"


def forbidden(c: MachineConfig) -> str:
    """What no program may do: what the emulator checks, from the tables that check it."""
    own: dict[str, Rule] = {rule.text: rule for cls in registry.values() for rule in cls.rules}
    lines = ["Of code (refused when a program is loaded):", *(f"  {r.text}" for r in rules.CODE),
             *(f"  {text}." for text in own),
             "Of addresses (refused when a program is loaded):", *(f"  {r.text}" for r in rules.ADDRESSES),
             "Of time (refused when an entry is timed, before it runs):",
             *(f"  {r.format(semaphore_max=SEMAPHORE_MAX)}" for r in rules.RUNNING),
             "Of data (an error of the emulator when it is met):", *(f"  {r}" for r in rules.DATA)]
    for name, cls in registry.items():
        limited = [str(f) for record in records(cls).values() for f in record.fields
                   if (f.least, f.greatest) != f.whole and f.name != "0"]
        if limited:
            lines.append(f"  {name:<5} {', '.join(dict.fromkeys(limited))}")
    return "\n".join(lines) + "\n"


def unit_pages(unit: str) -> str:
    """The pages of one unit's instructions."""
    classes = [cls for cls in registry.values() if cls.unit == unit]
    return "\n".join([TITLES[unit], "", *(page(cls) for cls in classes)])


def records(cls: type[Instruction]) -> dict[str, Record]:
    """The parameter records of an instruction, by the name in its page."""
    block = getattr(cls, "block", None)
    return {**getattr(cls, "records", {}), **({"block": block} if block else {})}


def page(cls: type[Instruction]) -> str:
    """One instruction: name, what it does, fields."""
    text = doc(cls) or ""
    if getattr(cls, "block", None) and "{block}" not in text:
        text += "\n\nParameters: {block}."
    for name, record in records(cls).items():
        text = text.replace(f"{{{name}}}", str(record))
    lines = [f"{cls.__name__}   (unit {cls.unit}, opcode {cls.opcode:#04x})", ""]
    lines += [f"    {line}".rstrip() for line in text.splitlines()]
    if cls.fields:
        lines += ["", *(f"        {f}" for f in cls.fields)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """A docstring for people: no marks of code or emphasis."""
    return re.sub(r"(?<![\w*])\*{1,2}(?=\S)([^*]+?)(?<=\S)\*{1,2}(?![\w*])", r"\1", text).replace("`", "")
