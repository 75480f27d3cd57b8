"""What memories the core asks for, and which of them the machine's SRAM budget counts; and what the core does that no
chip would.

Everything here is counted from `MachineConfig`; nothing needs the extra ``rtl``.
"""

from __future__ import annotations

from attrs import frozen

from nnac.isa import MachineConfig
from nnac.isa.config import LUT_ENTRIES
from nnac.isa.matrix import ACCUMULATOR_BITS
from nnac.rtl.tile import COLUMNS, INDEX_BITS, STATE, window_bytes

ENTRY_BITS = 25  # of a state: next state's base 10, bits 4, extra bits 3, rank 8


@frozen
class Macro:
    """A memory of ``words`` x ``bits``, read by ``reads`` and written by ``writes`` in one cycle (each: what, at which
    width).

    copies   of a memory with one read and one write port that give so many reads of any addresses
    budget   bits that the machine's ``sram`` counts for it (0: none)
    """

    name: str
    words: int
    bits: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    copies: int
    budget: int

    @property
    def size(self) -> int:
        """Bits of one copy."""
        return self.words * self.bits


def macros(c: MachineConfig) -> tuple[Macro, ...]:
    """The memories of the core, those inside it too."""
    a, w, ring = 8 * c.a_bytes, c.words * 8 * c.lanes, 8 * c.ring_bytes
    vx = 8 * c.lanes
    return (
        Macro(
            "A",
            c.a_bytes // 4,
            32,
            (f"MV {c.columns} x 16 at any byte", f"VX 3 x {vx}", f"DA {8 * c.burst}"),
            (f"VX {vx}", f"DA {8 * c.burst}"),
            (1 if c.a_banks else c.columns) + 4,
            a,
        ),
        Macro("W", c.words, 8 * c.lanes + INDEX_BITS, ("MV a word",), ("decoder a word",), 1, w),
        Macro(
            "RING",
            c.ring_bytes // 16,
            128,
            (f"decoder {8 * window_bytes(c)} at any byte",),
            (f"bus {8 * c.burst}",),
            1,
            ring,
        ),
        Macro(
            "LUT",
            c.luts * LUT_ENTRIES,
            16,
            (f"VX {2 * c.vector} pairs of entries",),
            (f"VX {2 * c.vector} entries",),
            c.vector,
            c.luts * LUT_ENTRIES * 16,
        ),
        Macro(
            "TABLE",
            c.decoder_tables * 2 << STATE,
            ENTRY_BITS,
            (f"decoder {c.lanes} states",),
            ("decoder 2 states of both machines",),
            -(-c.lanes // 2),
            0,
        ),
        Macro("MASK", COLUMNS + 2, c.lanes, ("decoder 2 rows",), ("decoder 2 rows",), 1, 0),
        Macro("ACC", c.banks * c.columns, ACCUMULATOR_BITS * c.lanes, ("MV, VX",), ("MV",), 1, 0),
        Macro("queues", 4 * c.queue + c.outstanding, 128, ("each its head",), ("fetch one",), 1, 0),
    )


def silicon(c: MachineConfig, sram: int) -> str:
    """In one line what memory a chip has beside the ``sram`` bytes that its target says and that programs address:
    copies for so many reads at once, and what no instruction names."""
    bits = {m.name: m.size * m.copies - m.budget for m in macros(c)}
    parts = (f"{name} {n / 8192:,.0f}" for name, n in sorted(bits.items(), key=lambda x: -x[1]) if n >= 4096)
    return (f"SRAM: {sram / 1024:,.0f} KiB as the target says; beside it, in KiB, for ports and decoder: "
            f"{', '.join(parts)} (all {sum(bits.values()) / 8192:,.0f}; `nnac rtl --memories`)")


# what the model and the core take for granted, and what it would cost: (what, in the core, on a chip)
IDEAL: tuple[tuple[str, str, str], ...] = (
    (
        "fetch",
        "an instruction of 128 bits a cycle from a macro, without latency or traffic",
        "a code memory, or DRAM bursts of 8 instructions",
    ),
    ("A", "every unit reads and writes in every cycle", "16 banks and stalls, or copies for each reader"),
    (
        "DRAM",
        "a burst every so many cycles, exactly; no refresh, rows, turnaround, other masters",
        "a controller that delivers less than its peak",
    ),
    (
        "look-up",
        "V pairs of entries of one table, and V of a second, in a cycle",
        "V copies with two ports, in even and odd banks",
    ),
    ("tANS", "all lanes' states, prefix sum, shifts and table in one cycle", "16 lanes, or two tiles in turns"),
    (
        "zero_run",
        "a pair may lead over any number of words in a cycle",
        "a division by the rows; with a bitmap no bound at all: refused",
    ),
    ("bitmap", "the next live strip of 1,024 is found in a cycle", "two levels of 32"),
    ("layer norm, softmax", "three wide products an element and cycle", "a second wide multiplier a lane (built here)"),
    (
        "host",
        "a program's part on the processor takes the cycles that the instruction says",
        "an interrupt and a handshake",
    ),
    ("errors", "a flag stops the simulation", "a status register and an interrupt"),
)
