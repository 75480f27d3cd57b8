"""What one event costs, in joules: stated by a target, or derived from its process and published figures.

Two published tables have the same rows: M. Horowitz, Computing's energy problem, ISSCC 2014 (45 nm, 0.9 V), and
N. Jouppi et al., Ten lessons from three generations shaped Google's TPUv4i, ISCA 2021, table 2 (7 nm, beside his 45).
Between the two a figure falls with the logarithm of the process: our interpolation, not theirs.  Beyond the two nothing
is derived.  What stands for what is ours as well:

mac     an int8 product and an int32 sum          vector   an int32 product and an int32 sum
sram    an eighth of 64 bits of a memory of 32 KB, as all memories are taken to be made of
dram    an eighth of 64 bits of DDR3 or DDR4, the same at both ends: no table of the two has low-power parts or flash

Nothing is said of what leaks, of clocks and wires, or of a processor beside the machine.
"""

from __future__ import annotations

import math
from fractions import Fraction

from attrs import frozen

OLDEST, NEWEST = 45, 7                                   # nm
SOURCE = "Horowitz, ISSCC 2014 (45 nm); Jouppi et al., ISCA 2021, table 2 (7 nm); between them by the logarithm"

# picojoules at 45 and at 7 nm
INT8_PRODUCT, INT32_PRODUCT, INT32_SUM = (0.2, 0.07), (3.1, 1.48), (0.1, 0.03)
SRAM_64, DRAM_64 = (20.0, 8.5), (1300.0, 1300.0)


@frozen
class Energy:
    """Energy of one event, in joules.  Exact fractions; never a measurement.  ``process``: the nanometres that it is
    derived for; 0 if it is stated."""

    mac: Fraction               # one int8 multiply-accumulate
    sram: Fraction              # one byte to or from SRAM
    dram: Fraction              # one byte from DRAM
    vector: Fraction            # one lane of one vector instruction
    process: int = 0

    def __str__(self) -> str:
        events = dict(MAC=self.mac, SRAM=self.sram, DRAM=self.dram, vector=self.vector)
        said = (f"{name} {float(10**12 * v):.4g} pJ" + " a byte" * ("RAM" in name) for name, v in events.items())
        where = f"{self.process} nm: {SOURCE}" if self.process else "stated by the target"
        return f"{', '.join(said)} ({where})"


def derived(process: int) -> Energy:
    """Of a process in nanometres, to the femtojoule.  ValueError: the tables say nothing of it."""
    if not NEWEST <= process <= OLDEST:
        raise ValueError(f"energies are derived for processes from {NEWEST} to {OLDEST} nm, not for {process}: state "
                         "them")
    share = math.log(OLDEST / process) / math.log(OLDEST / NEWEST)

    def of(*figures: tuple[float, float], parts: int = 1) -> Fraction:
        picojoules = (sum(f[0] for f in figures), sum(f[1] for f in figures))
        at = picojoules[0] ** (1 - share) * picojoules[1] ** share / parts
        return Fraction(round(1000 * at), 10**15)

    return Energy(mac=of(INT8_PRODUCT, INT32_SUM), sram=of(SRAM_64, parts=8), dram=of(DRAM_64, parts=8),
                  vector=of(INT32_PRODUCT, INT32_SUM), process=process)
