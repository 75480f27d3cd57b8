"""MV: weight words times broadcast activations."""

from __future__ import annotations

from nnac.isa.base import Instruction, instruction, operand
from nnac.isa.config import MachineConfig


@instruction("MV", 0x10)
class MVM(Instruction):
    """Multiply and accumulate ``words`` weight words with ``columns`` activation vectors:

        for k in 0 .. words-1, c in 0 .. columns-1:   ACC[bank][c][lane] += W[word+k][lane] * activation(c, index(k))

    where index(k) is stored beside the word and ``activation(c, j)`` is the int8 at A[act + c*stride + j], or with ``act16`` the int16 at
    A[act + c*stride + 2j].  ``clear`` first zeroes the accumulators of these columns.  Accumulators have 48 bits and never wrap: a program
    that could overflow them is wrong.
    ``weights`` says how words are read: 0 int8; 1 int16, two words a weight, the input being index >> 1: a word of even index holds the
    low bytes, unsigned, one of odd index the high bytes; 2 int4, 3 int2, 4 int1: the values must fit, and the multipliers take them at the
    machine's rate for that width.
    Busy ``ceil(words * (act16 ? act16_factor : 1) / rate)`` cycles; the last accumulator is written ``mv_drain`` cycles after the last word
    was taken.  The next MVM follows without a gap.
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

    def cycles(self, config: MachineConfig) -> tuple[int, int]:
        slow = config.act16_factor if self.act16 else 1
        rate = config.rates[self.weights]
        busy = max(1, -(-self.words * slow * rate.denominator // rate.numerator))
        return busy, busy + config.mv_drain

    def reads(self, config):
        yield "W", self.word, self.word + self.words
        for c in range(self.columns):
            first = self.act + c * self.stride
            yield "A", first, first + self.span * (2 if self.act16 else 1)
        if not self.clear:
            yield "ACC", self.bank * config.columns, self.bank * config.columns + self.columns

    def writes(self, config):
        yield "ACC", self.bank * config.columns, self.bank * config.columns + self.columns

    def execute(self, m):
        import numpy as np

        m.check_mvm(self)
        words, index = m.read_words(self.word, self.words)
        if self.weights == 1:
            high, index = (index & 1)[:, None], index >> 1
            words = np.where(high, words.astype(np.int64) << 8, words.view(np.uint8))
        m.check_index(self, int(index.max(initial=0)))
        kind = "<i2" if self.act16 else "i1"
        for c in range(self.columns):
            x = m.read(self.act + c * self.stride, self.span, kind)[:, index]
            # every product fits 31 bits and there are at most 1024: float64 carries the sum exactly
            product = (x.astype(np.float64) @ words.astype(np.float64)).astype(np.int64)
            m.accumulate(self.bank, c, product, bool(self.clear))
