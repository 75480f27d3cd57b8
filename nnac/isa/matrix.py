"""MV: weight words times broadcast activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnac.isa import beats
from nnac.isa.base import BadData, Constants, Instruction, Memory, Rule, instruction, operand
from nnac.isa.config import FORMATS, MachineConfig
from nnac.isa.operands import Accumulators, Integers, Operand, Words
from nnac.isa.vector import COLUMNS, check_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACCUMULATOR_BITS = 48


@instruction("MV", 0x10)
class MVM(Instruction):
    """Multiply and accumulate ``words`` weight words with ``columns`` activation vectors:

        for k in 0 .. words-1, c in 0 .. columns-1:   ACC[bank][c][lane] += W[word+k][lane] * activation(c, index(k))

    where index(k) is stored beside the word and ``activation(c, j)`` is the int8 at A[act + c*stride + j], or with
    ``act16`` the int16 at A[act + c*stride + 2j].  ``clear`` first zeroes the accumulators of these columns.
    Accumulators have 48 bits and never wrap: a program that could overflow them is wrong.
    ``weights`` says how words are read: 0 int8; 1 int16, two words a weight, the input being index >> 1: a word of even
    index holds the low bytes, unsigned, one of odd index the high bytes; 2 int4, 3 int2, 4 int1: the values must fit,
    and the multipliers take them at the machine's rate for that width.
    Cycles: ceil(words * (act16_factor if act16 else 1) / rate), in which it is busy, with the rate of ``weights``.
    With a_banks the columns share A: of an input's activations those of columns c and d lie in one bank if a_banks
    divides (c - d) * stride / 4, whatever the input.  Columns that meet wait for each other: a word takes
    max(act16_factor if act16 else 1, m) cycles, m = ceil(columns * gcd(stride / 4, a_banks) / a_banks), or 1 with
    stride 0.
    The last accumulator is written mv_drain cycles after the last word was taken.  The next MVM follows without a gap.
    """

    word: int = operand(14, "first word of W")
    words: int = operand(10, "words", minus=1)
    act: int = operand(20, "A address of the first activation of column 0")
    span: int = operand(11, "inputs that the indices may name: 0 .. span-1")
    stride: int = operand(14, "bytes from column to column", times=4)
    columns: int = operand(4, "activation vectors", minus=1)
    bank: int = operand(2, "accumulator bank")
    clear: int = operand(1, "zero the accumulators first")
    weights: int = operand(3, "0 int8, 1 int16, 2 int4, 3 int2, 4 int1")
    act16: int = operand(1, "activations are int16")
    rules = (COLUMNS, Rule("MVM: weights <= 4", lambda i, c: f"weight format {i.weights} is undefined"
                           if i.weights >= len(FORMATS) else ""))

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        busy = beats.multiply(config, self.words, self.weights, bool(self.act16),
                              beats.meeting(config, self.columns, self.stride))
        return busy, busy + config.mv_drain

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        size = 2 if self.act16 else 1
        operands = Integers(self.act, self.span, size, self.columns, self.stride), Words(self.word, self.words)
        return operands if self.clear else (*operands, *self.outputs(config))

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (Accumulators(self.bank, self.columns, config.lanes),)

    def constants(self, m: Memory) -> Constants:
        return dict(weights=self.weights, span=self.span)

    @staticmethod
    def values(p: Constants, words: tuple[NDArray, NDArray]) -> tuple[NDArray, NDArray]:
        """What the multipliers make of weight words: (int8 or int16 [words, lanes], the input of each).  BadData."""
        import numpy as np

        from nnac import arith

        values, index = words[0], words[1].astype(np.int64)
        if p["weights"] == 1:
            values = np.where((index & 1)[:, None] == 1, values.astype(np.int16) << 8,
                              values.view(np.uint8)).astype(np.int16)
            index = index >> 1
        elif p["weights"]:
            width = int(FORMATS[p["weights"]][3:])
            low, high = arith.limits(width)
            if values.min(initial=0) < low or values.max(initial=0) > high:
                raise BadData(f"weights {values.min()} … {values.max()} do not fit int{width}")
        if (greatest := int(index.max(initial=0))) >= p["span"]:
            raise BadData(f"a weight word belongs to input {greatest}, the span is {p['span']}")
        return values, index

    @staticmethod
    def compute(p: Constants, x: NDArray, words: tuple[NDArray, NDArray], sums: NDArray | int = 0) -> tuple[NDArray,
            ...]:
        import numpy as np

        values, index = MVM.values(p, words)
        # every product fits 31 bits and there are at most 1024: float64 carries the sum exactly
        total = sums + (x[..., index].astype(np.float64) @ values.astype(np.float64)).astype(np.int64)
        check_bits(total, ACCUMULATOR_BITS)
        return (total,)
