"""Values with units.  Decides what may be added, multiplied and compared: ``4k steps``, ``1.2 MiB``, ``75%``, ``3.75
GB/s``.

A quantity is an exact rational and a dimension: exponents over the base units step, epoch, byte, second, cycle, joule,
nanometre, percent. ``500 MHz`` is cycles per second, so ``250 cycles / 500 MHz`` is a time; ``%`` is a dimension of its
own that multiplication absorbs (``25% * 6k steps`` is 1500 steps), so that a share and a plain number are never
mistaken for one another.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from attrs import frozen

BASES = ("step", "epoch", "byte", "second", "cycle", "joule", "nanometre", "percent")
Dimension = tuple[int, ...]

NUMBER: Dimension = (0,) * len(BASES)
LARGEST_BITS = 2048          # of numerator or denominator: arithmetic on what a user writes stays cheap


class UnitError(ValueError):
    """Quantities that do not go together, or a number out of all bounds.  The message is meant for the user."""


def _dimension(**exponents: int) -> Dimension:
    return tuple(exponents.get(b, 0) for b in BASES)


STEPS, EPOCHS, BYTES, TIME, CYCLES, ENERGY, LENGTH, PERCENT = (_dimension(**{b: 1}) for b in BASES)
FREQUENCY = _dimension(cycle=1, second=-1)
BANDWIDTH = _dimension(byte=1, second=-1)
PER_SECOND = _dimension(second=-1)

DIMENSION_NAMES: dict[Dimension, str] = {
    NUMBER: "a plain number", STEPS: "steps", EPOCHS: "epochs", BYTES: "bytes", TIME: "a time", CYCLES: "cycles",
                                         ENERGY: "an energy", LENGTH: "a length",
    PERCENT: "a percentage", FREQUENCY: "a frequency", BANDWIDTH: "bytes per second", PER_SECOND: "a rate per second",
}

UNITS: dict[str, tuple[Fraction, Dimension]] = {
    "steps": (Fraction(1), STEPS), "step": (Fraction(1), STEPS),
    "epochs": (Fraction(1), EPOCHS), "epoch": (Fraction(1), EPOCHS),
    "%": (Fraction(1, 100), PERCENT),
    "bytes": (Fraction(1), BYTES), "byte": (Fraction(1), BYTES), "B": (Fraction(1), BYTES),
                                                "bits": (Fraction(1, 8), BYTES),
    "kB": (Fraction(1000), BYTES), "MB": (Fraction(10**6), BYTES), "GB": (Fraction(10**9), BYTES),
    "KiB": (Fraction(1 << 10), BYTES), "MiB": (Fraction(1 << 20), BYTES), "GiB": (Fraction(1 << 30), BYTES),
    "s": (Fraction(1), TIME), "ms": (Fraction(1, 1000), TIME), "us": (Fraction(1, 10**6), TIME),
                                                "ns": (Fraction(1, 10**9), TIME),
    "cycles": (Fraction(1), CYCLES), "cycle": (Fraction(1), CYCLES),
    "Hz": (Fraction(1), FREQUENCY), "kHz": (Fraction(1000), FREQUENCY),
    "MHz": (Fraction(10**6), FREQUENCY), "GHz": (Fraction(10**9), FREQUENCY),
    "B/s": (Fraction(1), BANDWIDTH), "kB/s": (Fraction(1000), BANDWIDTH), "MB/s": (Fraction(10**6), BANDWIDTH),
    "GB/s": (Fraction(10**9), BANDWIDTH), "MiB/s": (Fraction(1 << 20), BANDWIDTH),
                                                "GiB/s": (Fraction(1 << 30), BANDWIDTH),
    "MAC/s": (Fraction(1), PER_SECOND), "MMAC/s": (Fraction(10**6), PER_SECOND),
                                                "GMAC/s": (Fraction(10**9), PER_SECOND),
    "fJ": (Fraction(1, 10**15), ENERGY), "pJ": (Fraction(1, 10**12), ENERGY), "nJ": (Fraction(1, 10**9), ENERGY),
    "nm": (Fraction(1), LENGTH),
}
MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9}


@frozen
class Quantity:
    """An exact number in base units, with its dimension.  ``Quantity(Fraction(6000), STEPS)`` is 6k steps."""

    value: Fraction
    dimension: Dimension = NUMBER

    def __add__(self, other: Quantity) -> Quantity:
        return _checked(self.value + other.value, self._same(other, "added"))

    def __sub__(self, other: Quantity) -> Quantity:
        return _checked(self.value - other.value, self._same(other, "subtracted"))

    def __neg__(self) -> Quantity:
        return Quantity(-self.value, self.dimension)

    def __mul__(self, other: Quantity) -> Quantity:
        return _checked(self.value * other.value, _absorb(tuple(a + b
            for a, b in zip(self.dimension, other.dimension, strict=True))))

    def __truediv__(self, other: Quantity) -> Quantity:
        if other.value == 0:
            raise UnitError("division by zero")
        return _checked(self.value / other.value, _absorb(tuple(a - b
            for a, b in zip(self.dimension, other.dimension, strict=True))))

    def _same(self, other: Quantity, verb: str) -> Dimension:
        if self.dimension != other.dimension:
            raise UnitError(f"{dimension_name(self.dimension)} and {dimension_name(other.dimension)} cannot be {verb}")
        return self.dimension

    def __str__(self) -> str:
        return show(self)


def _absorb(dimension: Dimension) -> Dimension:
    """A share of something is that something: percent disappears beside any other dimension and beside itself."""
    return (*dimension[:-1], 0) if any(dimension[:-1]) or dimension[-1] not in (0, 1) else dimension


def _checked(value: Fraction, dimension: Dimension) -> Quantity:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST_BITS:
        raise UnitError("the result is out of all bounds")
    return Quantity(value, dimension)


def number(text: str) -> Fraction:
    """The exact value of a number as written: ``0.75``, ``1e-4``, ``4k``, ``1_000``.  UnitError when it is out of all
    bounds."""
    text = text.replace("_", "")
    if text.isdigit() and len(text) < 100:
        return Fraction(int(text))
    scale = 1
    if text[-1:] in MULTIPLES:
        text, scale = text[:-1], MULTIPLES[text[-1]]
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 400 or len(exponent) > 4 or abs(int(exponent or 0)) > 300:
        raise UnitError("the number is out of all bounds")
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0) * scale


def dimension_name(dimension: Dimension) -> str:
    """``steps``, ``a plain number``, or for compounds ``byte/step``."""
    if dimension in DIMENSION_NAMES:
        return DIMENSION_NAMES[dimension]
    over = "·".join(b if n == 1 else f"{b}^{n}" for b, n in zip(BASES, dimension, strict=True) if n > 0)
    under = "·".join(b if n == -1 else f"{b}^{-n}" for b, n in zip(BASES, dimension, strict=True) if n < 0)
    return f"{over or 1}/{under}" if under else over


def decimal(value: Fraction) -> str:
    """The shortest plain spelling of a rational: ``0.75``, ``6000``, ``1/3`` as 0.333333."""
    return str(value.numerator) if value.denominator == 1 else format(float(value), ".6g")


def show(q: Quantity) -> str:
    """A quantity as a person would write it: ``4k steps``, ``1.2 MiB``, ``75%``, ``2 ms``."""
    v = q.value
    if q.dimension == PERCENT:
        return f"{decimal(v * 100)}%"
    if q.dimension in (NUMBER, STEPS, EPOCHS, CYCLES):
        text = next((f"{v / m}{k}" for k, m in (("M", 10**6), ("k", 1000)) if v and v % m == 0
                     and q.dimension != NUMBER), decimal(v))
        return text if q.dimension == NUMBER else f"{text} {dimension_name(q.dimension)}"
    ladder: dict[Dimension, tuple[str, ...]] = {
        BYTES: ("GiB", "MiB", "KiB", "bytes"), TIME: ("s", "ms", "us", "ns"), FREQUENCY: ("GHz", "MHz", "kHz", "Hz"),
        BANDWIDTH: ("GB/s", "MB/s", "kB/s", "B/s"), PER_SECOND: ("GMAC/s", "MMAC/s", "MAC/s"),
                                                ENERGY: ("nJ", "pJ", "fJ"), LENGTH: ("nm",)}
    units = ladder.get(q.dimension)
    if units is None:
        return f"{decimal(v)} {dimension_name(q.dimension)}"
    unit = next((u for u in units if abs(v) >= UNITS[u][0]), units[-1])
    return f"{format(float(v / UNITS[unit][0]), '.4g')} {unit}"


@frozen
class Moment:
    """A point in training or a length of it: ``amount`` of ``steps``, ``epochs``, or ``training`` (a fraction of all
    steps)."""

    amount: float
    unit: Literal["steps", "epochs", "training"] = "steps"

    def steps(self, total: int, per_epoch: int | None = None) -> int:
        """In whole steps, of a training of ``total`` steps, ``per_epoch`` of them an epoch.  UnitError if the epoch is
        not known."""
        if self.unit == "steps":
            return round(self.amount)
        if self.unit == "training":
            return round(self.amount * total)
        if per_epoch is None:
            raise UnitError("`epochs` needs `steps_per_epoch` in the `training` block")
        return round(self.amount * per_epoch)

    def __str__(self) -> str:
        if self.unit == "training":
            return f"{format(self.amount * 100, '.6g')}%"
        return show(Quantity(Fraction(self.amount), STEPS if self.unit == "steps" else EPOCHS))


@frozen
class Span:
    """From one moment of training to another: ``0..2k steps``."""

    start: Moment
    end: Moment

    def __str__(self) -> str:
        if self.start.unit == self.end.unit and self.start.unit != "training":
            return f"{str(self.start).split()[0]}..{self.end}"
        return f"{self.start}..{self.end}"


@frozen
class Change:
    """From one value to another: ``1 -> 300``."""

    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.start:g} -> {self.end:g}"
