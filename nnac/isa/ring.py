"""VX, continued: rings of past vectors in A, and what is computed over them: depthwise convolution, attention.

A ring at A[ring]: int32 count, 12 bytes of nothing, then ``slots`` chunks of ``chunk`` rows of ``width`` int8 each (a
multiple of 4), one row after another.  The count says how many chunks were written: 0 before the first, counted on from
``slots`` where there were more, so that it stays below 2 slots.  KEEP writes the next chunk in the place of the oldest;
the others read the ring from the oldest row to the newest (`ring_order`), the newest chunk being the one just kept.
Time does not depend on the count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from nnac.isa import beats
from nnac.isa.base import Constants, Memory, Rule, instruction, operand
from nnac.isa.config import MachineConfig
from nnac.isa.operands import Integers, Operand
from nnac.isa.records import BadData, Record
from nnac.isa.vector import RQ_HEAD, RQ_ROW, VectorInstruction, array, check_bits, check_width

if TYPE_CHECKING:
    from numpy.typing import NDArray

RING_HEAD = 16                 # bytes of a ring before its rows


def _whole_words(i: RingInstruction, config: MachineConfig) -> str:
    return f"rows of {i.width} bytes" if i.width % 4 else ""


ROWS = Rule("KEEP, DOT, MIX, DWC: the rows of a ring are a multiple of 4 bytes long", _whole_words)


class RingInstruction(VectorInstruction):
    """Reads or writes a ring of ``slots`` chunks of ``chunk`` rows."""

    __slots__ = ()
    rules: ClassVar[tuple[Rule, ...]] = (ROWS,)
    in_place = False                                   # a row is read again for the next result
    ring: int
    dst: int
    chunk: int
    slots: int

    @property
    def width(self) -> int:
        """Elements of a row."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        return self.slots * self.chunk

    def ringed(self) -> tuple[Integers, Integers]:
        """Its count and its rows."""
        return (Integers(self.ring, 1, 4), Integers(self.ring + RING_HEAD, self.width, 1, self.rows, self.width))

    def vectors(self, address: int, n: int, size: int) -> Integers:
        """A vector for each row of a chunk, each beginning at a multiple of 4 bytes."""
        return Integers(address, n, size, self.chunk, -(-n * size // 4) * 4)


def in_order(ring: NDArray, count: NDArray, p: Constants) -> NDArray:
    """The rows [..., slots * chunk, width] from the oldest to the newest.  BadData: a count that no ring has."""
    import numpy as np

    from nnac import arith

    check_count(count, p["slots"])
    rows = arith.ring_order(np.arange(p["slots"] * p["chunk"]), count, p["slots"], p["chunk"])
    return np.take_along_axis(ring, rows[..., None], -2)


def check_count(count: NDArray, slots: int) -> None:
    """BadData unless counts are those of a ring of so many chunks."""
    if count.size and (count.min() < 0 or count.max() >= 2 * slots):
        worst = int(count.min()) if count.min() < 0 else int(count.max())
        raise BadData(f"the count of a ring is {worst}, not in 0 … {2 * slots - 1}")


def _keep_apart(i: KEEP, config: MachineConfig) -> str:
    apart = i.src + i.chunk * i.width <= i.ring or i.ring + RING_HEAD + i.rows * i.width <= i.src
    return "" if apart else "the rows to be kept lie in the ring"


@instruction("VX", 0x2D)
class KEEP(RingInstruction):
    """Write a chunk of rows into a ring, in the place of the oldest:

        row count mod slots * chunk + i of the ring = the row at A[src + i*bytes], i = 0 … chunk-1
        count = ring_counted(count, 1, slots)

    Cycles: vx_fill + 1 + chunk * ceil(bytes / L).
    """

    src: int = operand(18, "A address of the rows", times=4)
    ring: int = operand(18, "A address of the ring", times=4)
    bytes: int = operand(12, "length of a row", times=4, minus=1)
    chunk: int = operand(4, "rows of a chunk", minus=1)
    slots: int = operand(6, "chunks of the ring", minus=1)
    in_place = True                                    # of the ring itself
    rules = (ROWS, Rule("KEEP: the rows to be kept lie apart from the ring", _keep_apart))

    @property
    def width(self) -> int:
        return self.bytes

    def beats(self, config: MachineConfig) -> int:
        return beats.keep(config, self.chunk, self.bytes)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.src, self.bytes, 1), *self.ringed())

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return self.ringed()

    def constants(self, m: Memory) -> Constants:
        return dict(slots=self.slots, chunk=self.chunk)

    @staticmethod
    def compute(p: Constants, rows: NDArray, count: NDArray, ring: NDArray) -> tuple[NDArray, ...]:
        import numpy as np

        from nnac import arith

        check_count(count, p["slots"])
        made = ring.copy()
        at = arith.ring_order(np.arange(p["chunk"]), count, p["slots"], p["chunk"])
        np.put_along_axis(made, at[..., None], rows, -2)
        return arith.ring_counted(count, 1, p["slots"]), made


@instruction("VX", 0x2E)
class DOT(RingInstruction):
    """Scores of attention: each query of a chunk against all keys of a ring, head by head, int16 in Q6.9.

        k = the ring's rows in order, R = slots * chunk of them; head h has elements h*n … h*n+n-1 of every vector
        valid[r] = r >= (slots - min(count, slots)) * chunk
        int16 at A[dst + c*ceil(2*heads*R / 4)*4 + 2*(h*R + r)]
            = attention_scores(q[c][h], k[r][h], bias[h][r - c + chunk - 1], valid[r], multiplier, shift)

    q: int8, query c at A[src + c*heads*n].   Parameters: {block}, then i32 bias[heads][R + chunk - 1].
    Cycles: vx_fill + chunk * heads * slots * chunk * ceil(n / V).
    """

    src: int = operand(18, "A address of the queries", times=4)
    ring: int = operand(18, "A address of the ring of keys", times=4)
    dst: int = operand(18, "A address of the scores", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(8, "elements of a head", minus=1)
    heads: int = operand(5, "heads", minus=1)
    chunk: int = operand(4, "queries, and rows of a chunk", minus=1)
    slots: int = operand(6, "chunks of the ring", minus=1)
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 0, u16 0")

    @property
    def width(self) -> int:
        return self.heads * self.n

    def beats(self, config: MachineConfig) -> int:
        return beats.attention(config, self.chunk, self.rows, self.heads, self.n)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.src, self.width, 1), *self.ringed())

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.dst, self.heads * self.rows, 2),)

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.params, self.block.bytes + 4 * self.heads * (self.rows + self.chunk - 1)

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        bias = array(m, self.params + self.block.bytes, self.heads * (self.rows + self.chunk - 1), "<i4")
        return {**p, "bias": bias.reshape(self.heads, -1), "heads": self.heads, "chunk": self.chunk,
                "slots": self.slots}

    @staticmethod
    def compute(p: Constants, q: NDArray, count: NDArray, ring: NDArray) -> tuple[NDArray, ...]:
        import numpy as np

        from nnac import arith

        heads, chunk, slots = p["heads"], p["chunk"], p["slots"]
        k = split_heads(in_order(ring, count, p), heads)
        bias = np.stack([p["bias"][:, chunk - 1 - c: chunk - 1 - c + slots * chunk] for c in range(chunk)], -2)
        valid = (np.arange(slots * chunk) >= (slots - count.clip(0, slots)) * chunk) * 1
        y = arith.attention_scores(split_heads(q, heads), k, bias, valid[..., None, None, :], p["multiplier"],
                                   p["shift"])
        return (join_heads(y),)


@instruction("VX", 0x2F)
class MIX(RingInstruction):
    """The weighted sum of attention: for each query of a chunk the values of a ring, weighed by probabilities, head by
    head.

        v = the ring's rows in order; R = slots * chunk of them; p[h][r] of query c is element h*R + r of its vector
        element h*n + j at A[dst + …] = weighted_sum(p[h], v[…][h*n + j], multiplier, shift, bits)

    Vectors of probabilities (int8 or int16) and of results follow each other, each from a multiple of 4 bytes.  The sum
    must fit 32 bits.
    Cycles: vx_fill + chunk * heads * slots * chunk * ceil(n / V) * (2 if p16 else 1) + chunk * ceil(heads * n / V).
    """

    src: int = operand(18, "A address of the probabilities", times=4)
    ring: int = operand(18, "A address of the ring of values", times=4)
    dst: int = operand(18, "A address of the result", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(8, "elements of a head", minus=1)
    heads: int = operand(5, "heads", minus=1)
    chunk: int = operand(4, "queries, and rows of a chunk", minus=1)
    slots: int = operand(6, "chunks of the ring", minus=1)
    p16: int = operand(1, "probabilities are int16")
    out16: int = operand(1, "the result is int16")
    block = Record("u32 multiplier 0..2147483647, u8 shift 0..62, u8 bits, u16 0")

    @property
    def width(self) -> int:
        return self.heads * self.n

    def beats(self, config: MachineConfig) -> int:
        return (beats.attention(config, self.chunk, self.rows, self.heads, self.n) * (1 + self.p16)
                + beats.requantise(config, self.width, self.chunk))

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.src, self.heads * self.rows, 1 + self.p16), *self.ringed())

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.dst, self.width, 1 + self.out16),)

    def constants(self, m: Memory) -> Constants:
        p = self.block.read(m.parameters(self.params, self.block.bytes))
        check_width(p["bits"], self.out16)
        return {**p, "heads": self.heads, "chunk": self.chunk, "slots": self.slots}

    @staticmethod
    def compute(p: Constants, weights: NDArray, count: NDArray, ring: NDArray) -> tuple[NDArray, ...]:
        from nnac import arith

        v = split_heads(in_order(ring, count, p), p["heads"])
        w = split_heads(weights, p["heads"])
        check_bits(arith.inner(w, v.swapaxes(-1, -2)), 32)
        return (join_heads(arith.weighted_sum(w, v, p["multiplier"], p["shift"], p["bits"])),)


@instruction("VX", 0x32)
class DWC(RingInstruction):
    """Depthwise causal convolution over a ring: a channel at a time, ``taps`` rows of which the last is the newest.

        x = the ring's rows in order; R = slots * chunk of them, ``taps`` + chunk - 1 at least
        element j at A[dst + c*…] = depthwise(x[R - chunk + c - taps + 1 … R - chunk + c][j], weight[…][j], bias[j],
                                              multiplier[j], shift[j], zero_point, bits)

    Rows that were never written are what the ring held to begin with: zeros.  Results follow each other, each from a
    multiple of 4 bytes.
    Parameters: {head}, then per channel {row}, then i8 weight[taps][n], the oldest row's first.
    Cycles: vx_fill + chunk * (taps + 1) * ceil(n / V).
    """

    ring: int = operand(18, "A address of the ring", times=4)
    dst: int = operand(18, "A address of the result", times=4)
    params: int = operand(18, "A address of the parameters", times=4)
    n: int = operand(12, "channels", minus=1)
    taps: int = operand(5, "rows that a result is made of", minus=1)
    chunk: int = operand(4, "rows of a chunk, and results", minus=1)
    slots: int = operand(6, "chunks of the ring", minus=1)
    out16: int = operand(1, "the result is int16")
    records: ClassVar[dict[str, Record]] = dict(head=RQ_HEAD, row=RQ_ROW)
    rules = (ROWS, Rule("DWC: taps + chunk - 1 <= slots * chunk", lambda i, c: f"{i.taps} taps of {i.chunk} rows in a "
                        f"ring of {i.rows}" if i.taps + i.chunk - 1 > i.rows else ""))

    @property
    def width(self) -> int:
        return self.n

    def beats(self, config: MachineConfig) -> int:
        return beats.convolution(config, self.chunk, self.taps, self.n)

    def inputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return self.ringed()

    def outputs(self, config: MachineConfig) -> tuple[Operand, ...]:
        return (self.vectors(self.dst, self.n, 1 + self.out16),)

    def blocks(self) -> Iterator[tuple[int, int]]:
        yield self.params, RQ_HEAD.bytes + self.n * (RQ_ROW.bytes + self.taps)

    def constants(self, m: Memory) -> Constants:
        head = RQ_HEAD.read(m.parameters(self.params, RQ_HEAD.bytes))
        check_width(head["bits"], self.out16)
        at = self.params + RQ_HEAD.bytes
        rows = RQ_ROW.columns(m.parameters(at, self.n * RQ_ROW.bytes))
        weight = array(m, at + self.n * RQ_ROW.bytes, self.taps * self.n, "i1").reshape(self.taps, self.n)
        return {**head, **rows, "weight": weight, "chunk": self.chunk, "slots": self.slots}

    @staticmethod
    def compute(p: Constants, count: NDArray, ring: NDArray) -> tuple[NDArray, ...]:
        import numpy as np

        from nnac import arith

        x, (taps, _) = in_order(ring, count, p), p["weight"].shape
        first = x.shape[-2] - p["chunk"] - taps + 1
        seen = np.stack([x[..., first + c: first + c + taps, :] for c in range(p["chunk"])], -3)
        check_bits((seen * p["weight"]).sum(-2) + p["bias"], 32)
        return (arith.depthwise(seen, p["weight"], p["bias"], p["multiplier"], p["shift"], p["zero_point"],
                                p["bits"]),)


def split_heads(x: NDArray, heads: int) -> NDArray:
    """[..., rows, heads * n] -> [..., heads, rows, n]."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def join_heads(x: NDArray) -> NDArray:
    """[..., heads, rows, n] -> [..., rows, heads * n]."""
    x = x.swapaxes(-2, -3)
    return x.reshape(*x.shape[:-2], -1)
