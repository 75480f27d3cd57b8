"""What a recurrent cell of the user's own does after its products, step by step, on vectors of int16: one text, of
which the integers, the gradient and the instructions are made.

    sum 0 1; norm 3 1e-05; part 4 0 8; sigmoid 5; …; hidden 14; keep 13

Values have numbers: 0 and 1 are the products with the input and with the hidden state, those after them what the cell
keeps (as many as `keep` names), then what each step makes.  `hidden` is what is given out and read by the products of
the next frame, `keep` what is kept in 16 bits, in order.

Every value has fraction bits of its own.  Some follow from the arithmetic (a sigmoid: Q0.15), or from who reads them
(tables alone: Q3.12); the others are chosen by calibration, by the largest number seen (`nnac.train.ops.recurrence`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from attrs import frozen

from nnac.formats import PRE, UNIT
from nnac.ops import Array

INPUT, RECURRENT, FIRST = 0, 1, 2      # numbers of the products, and of the first value that is kept
BITS = 16
TABLES = dict(sigmoid="complement", tanh="odd")        # steps that are look-ups, with their symmetry
OPERANDS = dict(sum=2, mul=2, neg=1, scale=1, sigmoid=1, tanh=1, relu=1, norm=1, part=1)
NUMBERS = dict(scale=1, norm=1, part=2)                # that stand behind: a factor, epsilon, the first and the end
NORM = ("gain", "bias", "epsilon", "root_width", "multiplier", "shift")        # constants of each norm
LIKE = ("neg", "relu", "part")                         # have the format of what they read


@frozen
class Step:
    """One operation.  ``of``: numbers of the values that it reads."""

    op: str
    of: tuple[int, ...]
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.op, *map(str, self.of), *(f"{n:g}" if n == int(n) else repr(n) for n in self.numbers)))


@frozen(slots=False)
class Steps:
    """All of them.  ``hidden``, ``keep``: numbers of values, as above."""

    steps: tuple[Step, ...]
    hidden: int
    keep: tuple[int, ...]

    def __str__(self) -> str:
        kept = " ".join(("keep", *map(str, self.keep)))
        return "; ".join((*map(str, self.steps), f"hidden {self.hidden}", kept))

    @property
    def made(self) -> int:
        """The number of the first value that a step makes."""
        return FIRST + len(self.keep)

    def numbered(self) -> Iterator[tuple[int, Step]]:
        return enumerate(self.steps, self.made)

    def widths(self, rows: tuple[int, int], cells: int) -> tuple[int, ...]:
        """Elements of every value; ``rows`` of the two kernels."""
        out = [*rows, *(cells for _ in self.keep)]
        for step in self.steps:
            out.append(int(step.numbers[1] - step.numbers[0]) if step.op == "part" else out[step.of[0]])
        return tuple(out)

    @cached_property
    def norms(self) -> Mapping[int, int]:
        """Numbers of the values that a norm makes -> which norm it is."""
        return {value: k for k, value in enumerate(v for v, s in self.numbered() if s.op == "norm")}

    @cached_property
    def formats(self) -> tuple[int, ...]:
        """Of every value the first one that has the same format."""
        out = list(range(self.made + len(self.steps)))

        def root(v: int) -> int:
            while out[v] != v:
                v = out[v]
            return v

        pairs = [(v, s.of[0]) for v, s in self.numbered() if s.op in LIKE]
        pairs += [(value, FIRST + k) for k, value in enumerate(self.keep)]
        for a, b in pairs:
            low, high = sorted((root(a), root(b)))
            out[high] = low
        return tuple(map(root, range(len(out))))

    @cached_property
    def unit(self) -> frozenset[int]:
        """Values that arithmetic keeps within [-1, 1]."""
        out: set[int] = set()
        for v, s in self.numbered():
            if s.op in TABLES or (s.op in ("mul", *LIKE) and all(i in out for i in s.of)):
                out.add(v)
        return frozenset(out)

    @cached_property
    def known(self) -> tuple[int, ...]:
        """Fraction bits of every value, 0 where data decide."""
        groups = self.formats
        fixed = {groups[v]: UNIT.fraction for v in self.unit}
        made_by = dict(self.numbered())
        # products, their sums and norms that tables alone read: all of them until something else is found
        seen = {groups[v] for v in range(len(groups)) if v < FIRST or (v in made_by and made_by[v].op in ("sum",
                                                                                                          "norm"))}
        seen -= {groups[v] for v in (self.hidden, *self.keep)}
        while True:
            lost = {groups[i] for v, s in self.numbered() for i in s.of
                    if not (s.op in TABLES or (s.op in ("sum", "neg", "part") and groups[v] in seen))}
            if not lost & seen:
                break
            seen -= lost
        fixed = {group: PRE.fraction for group in seen} | fixed
        return tuple(fixed.get(group, 0) for group in groups)

    def tidied(self) -> Steps:
        """Without what nothing reads."""
        wanted, body = {self.hidden, *self.keep}, dict(self.numbered())
        for v in reversed(body):
            if v in wanted:
                wanted |= set(body[v].of)
        stay = [*range(self.made), *(v for v in body if v in wanted)]
        new = {v: i for i, v in enumerate(stay)}
        return Steps(tuple(Step(body[v].op, tuple(new[i] for i in body[v].of), body[v].numbers)
                           for v in stay[self.made:]), new[self.hidden], tuple(new[v] for v in self.keep))

    def unread(self, rows: tuple[int, int], cells: int) -> bool:
        """Whether elements of a value are made that nothing reads."""
        widths = self.widths(rows, cells)
        read = [[False] * w for w in widths]
        for v in (self.hidden, *self.keep, *range(FIRST, self.made)):
            read[v] = [True] * widths[v]
        for v, s in reversed(dict(self.numbered()).items()):
            for i in s.of:
                first = int(s.numbers[0]) if s.op == "part" else 0
                for k, seen in enumerate(read[v]):
                    read[i][first + k] |= seen or s.op == "norm"
        return not all(map(all, read))

    def verified(self, rows: tuple[int, int], cells: int) -> str:
        """What is wrong with them for these sizes; "" where nothing is."""
        widths = self.widths(rows, cells)
        for v, s in self.numbered():
            if s.op not in OPERANDS or len(s.of) != OPERANDS[s.op] or len(s.numbers) != NUMBERS.get(s.op, 0):
                return f"`{s}` is no step"
            if not all(0 <= i < v for i in s.of):
                return f"`{s}` reads what is not there"
            if s.op == "part" and not 0 <= s.numbers[0] < s.numbers[1] <= widths[s.of[0]]:
                return f"`{s}` goes beyond {widths[s.of[0]]} elements"
            if len({widths[i] for i in s.of}) > 1:
                return f"`{s}` reads vectors of different widths"
        ends = {self.hidden, *self.keep}
        return "" if all(0 <= v < len(widths) and widths[v] == cells for v in ends) else f"{ends} are no {cells} cells"


@lru_cache(256)
def steps_of(text: str) -> Steps:
    """Of their text.  ValueError: it is none."""
    *body, hidden, keep = (part.split() for part in text.split(";"))
    if hidden[:1] != ["hidden"] or keep[:1] != ["keep"] or len(hidden) != 2:
        raise ValueError(f"no steps of a cell: {text!r}")
    steps = tuple(Step(op, tuple(map(int, rest[: OPERANDS.get(op, 0)])), tuple(map(float, rest[OPERANDS.get(op, 0):])))
                  for op, *rest in body)
    return Steps(steps, int(hidden[1]), tuple(map(int, keep[1:])))


def narrowed(width: int) -> int:
    """Bits that an int16 loses before a norm of so many elements, so that the sum of its squares has room: the
    machine's LN takes 1,290 of 16 bits."""
    k = 0
    while width**3 << 2 * (BITS - k) - 2 >= 1 << 61:
        k += 1
    return k


def power(exponent: int) -> tuple[int, int]:
    """(multiplier, shift) of a power of two."""
    return (1 << exponent, 0) if exponent > 0 else (1, -exponent)


def scales(step: Step, value: int, fractions: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(multiplier, shift) of each term of a sum, or of the one product."""
    from nnac import arith

    out = fractions[value]
    if step.op == "sum":
        return tuple(power(out - fractions[i]) for i in step.of)
    if step.op == "scale":
        m, s = arith.multiplier_and_shift(step.numbers[0] * 2.0 ** (out - fractions[step.of[0]]))
        return ((int(m), int(s)),)
    return (power(out - sum(fractions[i] for i in step.of)),) if step.op == "mul" else ()


def table_name(step: Step, fractions: Sequence[int]) -> str:
    """The constant that a step looks up; "" if there is none."""
    return f"{step.op}.{fractions[step.of[0]]}" if step.op in TABLES else "step" if step.op == "relu" else ""


def taken(step: Step, value: int, values: Sequence[Array], fractions: Sequence[int], constants: Mapping[str, Any],
          norm: int) -> Array:
    """What a step makes of ``values``, each [..., width] int16 on any carrier; ``norm``: which norm it is."""
    from nnac import arith

    of, numbers = [values[i] for i in step.of], scales(step, value, fractions)
    if step.op == "part":
        return of[0][..., int(step.numbers[0]):int(step.numbers[1])]
    if step.op == "sum":
        (m0, s0), (m1, s1) = numbers
        return arith.add(of[0], of[1], (m0, m1), (s0, s1), BITS)
    if step.op == "neg":
        return arith.saturate(0 - of[0], BITS)
    if step.op in ("mul", "scale"):
        (m, s), = numbers
        return arith.requantise(of[0] * of[1] if step.op == "mul" else of[0], m, s, 0, BITS)
    if step.op in TABLES:
        return arith.lookup(constants[table_name(step, fractions)], TABLES[step.op], of[0])
    if step.op == "relu":
        return arith.gate(of[0], of[0], constants["step"], "complement", 1, UNIT.fraction, 0, BITS)
    c = {k: constants[f"norm{norm}_{k}"] for k in NORM}
    x = arith.round_shift(of[0], narrowed(of[0].shape[-1]))
    return arith.layer_norm(x, c["gain"], c["bias"], c["epsilon"], c["root_width"], constants["rsqrt"], c["multiplier"],
                            c["shift"], 0, BITS)
