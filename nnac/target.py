"""The machine that a policy is written for, as numbers: what it multiplies, how fast, how much it holds, what it cannot
do.

A ``target`` declaration (``specs/targets/*.nnac``) makes one; ``FIELDS`` is the table that the language reads, with a
sentence a field. All numbers are exact: integers in base units (Hz, bytes, bytes per second, cycles), rates as
fractions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from attrs import NOTHING, Factory, asdict, evolve, field, frozen
from attrs import fields as attrs_fields

from nnac.energy import OLDEST, Energy, derived
from nnac.limits import MOST
from nnac.ops import kinds

CODECS = ("raw", "packed", "codebook", "zero_run", "block_bitmap", "entropy")
OPERATORS = kinds()
# no machine has more; how much SRAM the instruction words reach is for `nnac.isa.MachineConfig` to say
LARGEST = MOST | dict(sram=1 << 40, decoder=1 << 16, queue=1 << 16, stream_buffers=1 << 16, burst=1 << 20, clock=10**12,
                      banks=1 << 10)


@frozen
class Dram:
    """The weight memory: DRAM or flash.  A read costs ``latency`` cycles once, then ``bandwidth``, in bursts of
    ``burst`` bytes.

    Without ``refresh`` the bandwidth is what is delivered in the mean; with it, what the pins could do at most.
    """

    bandwidth: int              # bytes per second
    latency: int                # cycles
    burst: int                  # bytes
    refresh: Fraction = Fraction(0)      # share of the time in which the memory refreshes itself
    turnaround: int = 0                  # cycles in which the bus turns from read to write and back, at every write

    @property
    def delivered(self) -> Fraction:
        """Bytes per second that arrive in the mean."""
        return self.bandwidth * (1 - self.refresh)


@frozen
class Cpu:
    """What an operator on the CPU costs: ``wake`` once, moving its values both ways at ``transfer``, then computing at
    ``macs``."""

    transfer: int               # bytes per second
    wake: Fraction              # seconds
    macs: int                   # multiply-accumulates per second


@frozen
class Target:
    """A neural network accelerator.  See docs/design.md §6 for the machine these numbers describe."""

    name: str
    clock: int                                     # Hz
    lanes: int                                     # outputs computed at a time
    # activation vectors that meet one weight word: frames, hypotheses, chunks
    columns: int
    sram: int                                      # bytes, pinned weights included
    pinned: int                                    # bytes of the SRAM for weights that stay
    dram: Dram
    # weight width (int8, int4, int16, fp16) -> MACs per multiplier and cycle
    multiply: dict[str, Fraction] = field(hash=False)
    activations: tuple[str, ...] = ("int8", "int16")        # widths that the multipliers take from the other side
    accumulators: tuple[int, ...] = (32, 48)                # bits
    decoder: int = 64                              # weights decoded per cycle
    stream_buffers: int = 2                        # weight tiles in flight
    queue: int = 8                                 # instructions waiting per unit
    semaphores: int = MOST["semaphores"]
    codecs: tuple[str, ...] = CODECS
    operators: tuple[str, ...] = Factory(kinds)    # what runs here; anything else goes to the CPU, at a price
    # of the activations' memory, which MV's columns share; 0: each column has a port of its own
    banks: int = 0
    cpu: Cpu = Cpu(transfer=10**9, wake=Fraction(20, 10**6), macs=2 * 10**9)
    energy: Energy = derived(OLDEST)

    def __attrs_post_init__(self) -> None:
        positive = dict(clock=self.clock, lanes=self.lanes, columns=self.columns, sram=self.sram, decoder=self.decoder,
                        queue=self.queue,
                        semaphores=self.semaphores, stream_buffers=self.stream_buffers, bandwidth=self.dram.bandwidth,
                        burst=self.dram.burst, transfer=self.cpu.transfer, macs=self.cpu.macs)
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"`{name}` of target `{self.name}` is at least 1, not {value}")
            if value > (most := LARGEST.get(name, 10**15)):
                raise ValueError(f"`{name}` of target `{self.name}` is at most {most:,}, not {value:,}")
        if not 0 <= self.dram.latency <= 10**9:
            raise ValueError(f"`latency` of target `{self.name}` is from 0 to 1,000,000,000 cycles, not "
                             f"{self.dram.latency:,}")
        if not 0 <= self.dram.refresh < 1:
            raise ValueError(f"`refresh` of target `{self.name}` is a share of the time below 1, not "
                             f"{self.dram.refresh}")
        if not 0 <= self.dram.turnaround <= 10**6:
            raise ValueError(f"`turnaround` of target `{self.name}` is from 0 to 1,000,000 cycles, not "
                             f"{self.dram.turnaround:,}")
        if not 0 <= self.pinned <= self.sram:
            raise ValueError(f"`pinned` of target `{self.name}` is part of its SRAM: from 0 to {self.sram} bytes, not "
                             f"{self.pinned}")
        if self.banks and (self.banks & self.banks - 1 or self.banks > LARGEST["banks"]):
            raise ValueError(f"`banks` of target `{self.name}` is a power of two up to {LARGEST['banks']}, not "
                             f"{self.banks}")
        if self.banks and any(rate > 1 for rate in self.multiply.values()):
            raise ValueError(f"target `{self.name}`: `banks` is for one weight word a cycle: several would meet in a "
                             "bank by the inputs that they belong to, and time would depend on weights")
        if not self.multiply:
            raise ValueError(f"target `{self.name}` multiplies nothing: say at least `multiply int8(1)`")

    @property
    def multipliers(self) -> int:
        """MACs per cycle at rate 1."""
        return self.lanes * self.columns

    def macs_per_cycle(self, width: str) -> Fraction | None:
        """MACs per cycle with weights of ``width`` and all columns busy; None if the machine does not multiply that
        width."""
        rate = self.multiply.get(width)
        return None if rate is None else rate * self.multipliers

    def multiply_width(self, bits: int, number: str = "int") -> str | None:
        """The width that weights of ``bits`` are multiplied as: the narrowest that holds them.  int5 runs as int8.
        None: it cannot."""
        widths = sorted((int(w[len(number):]), w) for w in self.multiply if w.startswith(number)
                        and w[len(number):].isdigit())
        return next((w for b, w in widths if b >= bits), None)

    def dram_cycles(self, count: int) -> int:
        """Cycles to stream ``count`` bytes: latency, then whole bursts at the bandwidth."""
        bursts = -(-count // self.dram.burst)
        return self.dram.latency + -(-bursts * self.dram.burst * self.clock // self.dram.delivered)

    def seconds(self, cycles: int | Fraction) -> Fraction:
        return Fraction(cycles) / self.clock

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; fractions as ``"1/2"``."""
        out = _plain(asdict(self, recurse=True))
        for name in ("refresh", "turnaround"):                # plans of before know no such words
            if not getattr(self.dram, name):
                del out["dram"][name]
        if not self.energy.process:
            del out["energy"]["process"]
        if not self.banks:
            del out["banks"]
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Target:
        """The target that ``to_json`` described.  ValueError if it is not one, with everything that is wrong."""
        from nnac.checked import checked

        return checked(cls, data, "target")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Fraction) else value


@frozen
class Word:
    """One word of a target field: ``bandwidth(3.75 GB/s)`` is Word("bandwidth", "bandwidth", …)."""

    name: str
    kind: str                   # what its argument is: a name of a dimension in ``units``, "integer", or "ratio"
    doc: str


@frozen
class Field:
    """One field of a ``target`` declaration.

    kind  integer | bytes | frequency: one value, beside it ``words`` if it has any     words: a list of plain words
    calls: ``word(value)`` for each word
    """

    kind: str
    doc: str
    words: tuple[Word, ...] = ()
    choices: tuple[str, ...] = ()
    required: bool = True


WIDTHS = ("int1", "int2", "int4", "int8", "int16", "fp16")
FIELDS: dict[str, Field] = {
    "clock": Field("frequency", "cycles per second"),
    "lanes": Field("integer", "outputs computed at a time"),
    "columns": Field("integer", "activation vectors that meet one weight word: frames, beam hypotheses, chunks"),
    "sram": Field("bytes", "on-chip memory, pinned weights included", (
        Word("banks", "integer", "that the activations of a product's columns share: those that meet wait"),)),
    "pinned": Field("bytes", "part of the SRAM for weights that are never read again from DRAM"),
    "dram": Field("calls", "the weight memory, DRAM or flash", (
        Word("bandwidth", "bandwidth", "bytes per second"), Word("latency", "cycles", "before the first byte"),
        Word("burst", "bytes", "smallest transfer"),
        Word("refresh", "ratio", "share of the time in which it refreshes itself: the bandwidth is then a peak"),
        Word("turnaround", "cycles", "in which the bus turns round at every write"))),
    "multiply": Field("calls", "weight widths it multiplies, each with its rate against int8", tuple(
        Word(w, "ratio", "multiply-accumulates per multiplier and cycle") for w in WIDTHS)),
    "activations": Field("words", "activation widths it multiplies", choices=("int4", "int8", "int16", "fp16"),
                         required=False),
    "accumulators": Field("words", "accumulator widths", choices=("int32", "int48"), required=False),
    "decoder": Field("integer", "weights decoded per cycle", required=False),
    "stream_buffers": Field("integer", "weight tiles in flight", required=False),
    "queue": Field("integer", "instructions that wait at each unit", required=False),
    "semaphores": Field("integer", "counting semaphores between units", required=False),
    "codecs": Field("words", "weight formats its decoder reads", choices=CODECS, required=False),
    "operators": Field("words", "operators that run on it; others go to the CPU, at a price", choices=OPERATORS,
                       required=False),
    "cpu": Field("calls", "what an operator costs on the CPU", (
        Word("transfer", "bandwidth", "bytes per second, each way"), Word("wake", "time", "once per operator"),
        Word("macs", "per_second", "multiply-accumulates per second")), required=False),
    "energy": Field("calls", "energy of one event, derived for a process or stated; not a measurement", (
        Word("process", "length", "from 7 to 45 nm: all four are derived from published figures (`nnac profile`)"),
        Word("mac", "energy", "one int8 multiply-accumulate"), Word("sram", "energy", "one byte to or from SRAM"),
        Word("dram", "energy", "one byte from DRAM"), Word("vector", "energy", "one lane of one vector instruction")),
                    required=False),
}


def from_values(name: str, values: dict[str, Any], base: Target | None = None) -> Target:
    """A target from field values as ``FIELDS`` types them (numbers already in base units), over ``base`` if it extends
    one.

    values  ``{"clock": 500_000_000, "dram": {"bandwidth": …}, "codecs": ("raw", …)}``.  ValueError for a field missing
            or out of bounds.
    """
    built = dict(values)
    for beside in [f for f, spec in FIELDS.items() if spec.kind != "calls" and isinstance(values.get(f), dict)]:
        built |= built.pop(beside)           # a value with words of its own: fields of the target as well
    missing = [f for f, spec in FIELDS.items() if spec.required and f not in built and base is None]
    if missing:
        raise ValueError(f"target `{name}` does not say its {', '.join(f'`{m}`' for m in missing)}")
    for group, cls in (("dram", Dram), ("cpu", Cpu), ("energy", Energy)):
        if group in built:
            known = asdict(getattr(base, group)) if base else asdict(_DEFAULTS[group]) if group in _DEFAULTS else {}
            given = known | built[group]
            if group == "energy":
                given = _energies(known, built[group])
            if lacking := [a.name for a in attrs_fields(cls) if a.name not in given and a.default is NOTHING]:
                raise ValueError(f"`{group}` of target `{name}` does not say its "
                                 f"{', '.join(f'`{m}`' for m in lacking)}")
            built[group] = cls(**given)
    if "accumulators" in built:
        built["accumulators"] = tuple(int(w[3:]) if isinstance(w, str) else w for w in built["accumulators"])
    return evolve(base, name=name, **built) if base else Target(name=name, **built)


def _energies(known: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What is said over what a process says, or else what is known; what is stated is no process' any more."""
    if "process" in said:
        known = asdict(derived(said["process"]))
    return known | said | dict(process=0) if {*said} - {"process"} else known


_DEFAULTS: dict[str, Any] = {a.name: a.default for a in attrs_fields(Target) if a.name in ("cpu", "energy")}
