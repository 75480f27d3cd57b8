"""Random legal programs with data for the co-simulation: every instruction, every codec, operands drawn at random,
races excluded.

A program is drawn instruction by instruction.  What an instruction reads and writes says on which earlier ones of other
units it depends; each ordered pair of units has a semaphore of its own, so that a dependence is one signal and one
wait. A's first part holds parameter blocks that nobody writes.
"""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from nnac import arith, codec
from nnac.codec import ans
from nnac.emulator.hazards import overlap, ranges
from nnac.isa import (
    ADD,
    AMAX,
    CPY,
    DOT,
    DWC,
    FIL,
    GATE,
    GRU,
    GTH,
    HALT,
    HOST,
    KEEP,
    LDA,
    LDT,
    LDW,
    LN,
    LSM,
    LSTM,
    LUT,
    MIX,
    MUL,
    MVM,
    PROF,
    RQ,
    SMAX,
    STA,
    TAB,
    UNITS,
    Instruction,
    MachineConfig,
)
from nnac.isa.ring import RING_HEAD
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW
from nnac.rtl.cosim import Case

CODECS = (
    "raw",
    "packed",
    "codebook",
    "zero_run",
    "entropy",
    "block_bitmap+raw",
    "block_bitmap+packed",
    "block_bitmap+codebook",
    "block_bitmap+entropy",
)
QUEUED = UNITS[:4]
PAIRS = {(a, b): k for k, (a, b) in enumerate((a, b) for a in QUEUED for b in QUEUED if a != b)}
IMAGE, SCRATCH = 1 << 20, 1 << 16  # bytes of DRAM that are read, and after them those that are written


fewest = ans.split


def a_token_each(count: NDArray, state_bits: int, token_bits: float = 4) -> list[tuple[int, int]]:
    """In the place of `ans.split`, which makes few tokens: as many as a table may have, for the core has room for
    them."""
    each = count.size <= min(ans.MAX_TOKENS, 1 << state_bits)
    return [(k, 0) for k in range(count.size)] if each else fewest(count, state_bits, token_bits)


class Draw:
    """Draws one program.  ``kinds``: weights of the instructions; without LDW, W is random from the start."""

    def __init__(
        self, seed: int, config: MachineConfig, kinds: dict[type[Instruction], float], codecs: tuple[str, ...] = CODECS
    ) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.c, self.kinds, self.codecs = config, kinds, codecs
        self.image, self.code = bytearray(), list[Instruction]()
        self.a = a = rng.integers(0, 256, config.a_bytes, dtype=np.uint8)
        self.top = 64  # of the parameter blocks
        self.data = min(24576, config.a_bytes // 3 & ~63)  # where data begin
        self.span = min(config.a_bytes, self.data + int(rng.choice([2048, 8192, 32768])))
        if rng.random() < 0.3:  # small numbers: sums and products away from saturation
            a[self.data :] = np.where(
                rng.random(config.a_bytes - self.data) < 0.5, a[self.data :] & 7, 255 - (a[self.data :] & 3)
            )
        self.w = rng.integers(-128, 128, (config.words, config.lanes), dtype=np.int8)
        self.index = rng.integers(0, 64, config.words).astype(np.uint16)
        tables = [
            arith.sigmoid_table().entries,
            arith.tanh_table().entries,
            arith.tanh_table(11).entries,
            arith.exp_table().entries,
            arith.log_table(),
        ]
        self.luts = np.stack(
            [t.astype(np.int64) for t in tables]
            + [np.sort(rng.integers(0, 32768, 513)) for _ in range(config.luts - len(tables))]
        )
        self.tables = len(tables)  # that stay as they are
        self.filled: list[tuple[int, int, int]] = []  # (first word, words, inputs) that are in W
        self.headers: list[bytes | None] = [None] * config.decoder_tables
        self.touched: dict[str, list[tuple[str, int, int, int, bool]]] = {u: [] for u in QUEUED}
        self.waited: dict[tuple[str, str], int] = {}
        self.bound = [0] * config.banks  # of the magnitude of accumulators

    # ---- places

    def store(self, data: bytes) -> int:
        """Into the DRAM image, somewhere; streams that follow each other often share a burst."""
        gap = int(self.rng.choice([0, 0, 0, 16, 48, 400]))
        self.image += bytes(gap + -(len(self.image) + gap) % 16)
        at = len(self.image)
        self.image += data
        self.image += bytes(-len(self.image) % 16)
        assert len(self.image) <= IMAGE, "the program's streams outgrow the image"
        return at

    def block(self, data: bytes) -> int:
        """A parameter block in A."""
        size = -(-len(data) // 4) * 4
        if self.top + size > self.data:
            raise StopIteration
        at = self.top
        self.a[at : at + len(data)] = np.frombuffer(data, np.uint8)
        self.top += size + 4 * int(self.rng.integers(0, 3))
        return at

    def place(self, size: int) -> int:
        """An A address with room for ``size`` bytes."""
        room = self.span - self.data - size
        return self.data + 4 * int(self.rng.integers(0, max(1, room // 4)))

    def number(self, most: int) -> int:
        """1 … most, often small or at a boundary of a group."""
        v, lanes = self.c.vector, self.c.lanes
        some = [
            1,
            2,
            v - 1,
            v,
            v + 1,
            2 * v,
            lanes - 1,
            lanes,
            lanes + 1,
            int(self.rng.integers(1, 4 * lanes)),
            most if self.rng.random() < 0.05 else 3,
        ]
        return int(min(most, max(1, self.rng.choice(some))))

    def scale(self) -> tuple[int, int]:
        """A multiplier of up to 31 bits and its shift."""
        bits = int(self.rng.integers(1, 32))
        m = int(self.rng.integers(1 << bits - 1, 1 << bits))
        return m, int(np.clip(bits + self.rng.integers(-2, 16), 0, 62))

    def bits(self, out16: int) -> int:
        return int(
            self.rng.choice([16, 16, int(self.rng.integers(2, 17))] if out16 else [8, 8, int(self.rng.integers(2, 9))])
        )

    def zero(self) -> int:
        return int(self.rng.choice([0, 0, int(self.rng.integers(-128, 128)), int(self.rng.integers(-32768, 32768))]))

    # ---- one instruction of each kind

    def LDT(self) -> Instruction | None:
        return self.weights(header_only=True)

    def LDW(self) -> Instruction | None:
        return self.weights()

    def weights(self, header_only: bool = False) -> Instruction | None:
        rng, c = self.rng, self.c
        name = str(rng.choice(self.codecs))
        rows, cols = self.number(c.lanes), min(int(rng.integers(1, 80)), max(1, (c.words - 8)))
        if rng.random() < 0.03:
            cols = int(rng.integers(200, 1025 if c.words > 1100 else 300))
        matrix = self.matrix(name, rows, cols)
        if "bitmap" in name and rng.random() < 0.7:
            shape = rng.choice(
                [
                    "16x1",
                    "1x16",
                    f"{c.lanes}x1",
                    "3x5",
                    "1x1",
                    f"{int(rng.integers(1, c.lanes + 1))}x{int(rng.integers(1, 20))}",
                ]
            )
            name = name.replace("block_bitmap", f"block_bitmap[{shape}]")
        try:
            with patch.object(ans, "split", a_token_each) if rng.random() < 0.2 else nullcontext():
                encoded = codec.encode(matrix, name, c.lanes)
        except codec.CodecError:
            return None
        (tile,) = encoded.tiles
        if len(tile.data) > c.ring_bytes or len(encoded.header) > c.ring_bytes or tile.live_words == 0:
            return None
        table = int(rng.integers(c.decoder_tables))
        if len(self.image) + len(tile.data) + len(encoded.header) + 2048 > IMAGE:
            return None
        self.add(
            LDT(dram=self.store(encoded.header), bytes=len(encoded.header), steps=encoded.table_steps, table=table)
        )
        if header_only:
            return None
        word = int(rng.integers(0, c.words - tile.live_words + 1))
        self.filled = [(f, n, s) for f, n, s in self.filled if f + n <= word or word + tile.live_words <= f][-12:]
        self.filled.append((word, tile.live_words, cols))
        return LDW(
            dram=self.store(tile.data),
            bytes=len(tile.data),
            word=word,
            rows=rows,
            cols=cols,
            live=tile.live_words,
            steps=tile.steps,
            table=table,
        )

    def matrix(self, name: str, rows: int, cols: int) -> NDArray:
        rng = self.rng
        spread = float(rng.choice([0.5, 3, 20, 60]))
        matrix = np.clip(np.round(rng.laplace(0, spread, (rows, cols))), -128, 127).astype(np.int8)
        if "packed" in name:
            n = int(rng.integers(1, 8))
            matrix = np.clip(matrix, -(1 << n - 1), (1 << n - 1) - 1).astype(np.int8)
        if "codebook" in name or rng.random() < 0.2:
            values = rng.choice(np.arange(-128, 128), int(rng.integers(1, 65)), replace=False).astype(np.int8)
            matrix = rng.choice(values, (rows, cols))
        if "zero_run" in name or "bitmap" in name or rng.random() < 0.3:
            matrix[rng.random(matrix.shape) < rng.choice([0.3, 0.7, 0.95])] = 0
            if rng.random() < 0.5:
                matrix[:, rng.random(cols) < 0.6] = 0
            if rng.random() < 0.5:
                matrix = matrix * (
                    np.kron(rng.random((rows // 4 + 1, cols // 4 + 1)) < 0.4, np.ones((4, 4)))[:rows, :cols] > 0
                ).astype(np.int8)
        return np.ascontiguousarray(matrix, np.int8)

    def LDA(self) -> Instruction:
        size = 4 * int(self.rng.integers(0, 120))
        return LDA(dram=self.store(self.rng.bytes(size)), dst=self.place(size), bytes=size)

    def STA(self) -> Instruction:
        size = 4 * int(self.rng.integers(1, 120))
        return STA(
            src=self.place(size), dram=IMAGE + 16 * int(self.rng.integers(0, (SCRATCH - size) // 16)), bytes=size
        )

    def GTH(self) -> Instruction:
        rng = self.rng
        size = 4 * int(rng.integers(0, 60))
        pitch, rows = -(-max(size, 1) // 16) * 16 + 16 * int(rng.integers(0, 3)), int(rng.integers(1, 20))
        return GTH(
            index=self.block(int(rng.integers(rows)).to_bytes(4, "little")),
            dram=self.store(rng.bytes(pitch * rows)),
            pitch=pitch,
            dst=self.place(size),
            bytes=size,
        )

    def MVM(self) -> Instruction | None:
        rng, c = self.rng, self.c
        if LDW in self.kinds:
            if not self.filled:
                return None
            first, words, inputs = self.filled[int(rng.integers(len(self.filled)))]
            skip = int(rng.integers(words)) if rng.random() < 0.2 else 0
            word, words = first + skip, int(rng.integers(1, words - skip + 1)) if rng.random() < 0.3 else words - skip
        else:
            word, words, inputs = int(rng.integers(c.words - 70)), int(rng.integers(1, 70)), 64
        weights, act16 = int(rng.random() < 0.15), int(rng.random() < 0.3)
        columns = int(rng.integers(1, c.columns + 1))
        size = inputs << act16
        stride = 0 if columns == 1 else -(-size // 4) * 4 + 4 * int(rng.integers(0, 4))
        act = self.place(columns * stride + size) + int(rng.integers(0, 4))
        act -= 4 * (act + (columns - 1) * stride + size > self.span)
        return MVM(
            word=word,
            words=words,
            act=act,
            span=inputs,
            stride=stride,
            columns=columns,
            bank=int(rng.integers(c.banks)),
            clear=int(rng.random() < 0.6),
            weights=weights,
            act16=act16,
        )

    def RQ(self) -> Instruction:
        rng, c = self.rng, self.c
        rows, columns, out, add = (
            self.number(c.lanes),
            int(rng.integers(1, c.columns + 1)),
            int(rng.integers(3)),
            int(rng.integers(3)),
        )
        if out == 2 and add == 2:
            add = 1
        bank, wide, double = int(rng.integers(c.banks)), int(rng.random() < 0.3), int(rng.random() < 0.2)
        if self.bound[bank] + (1 << 31 if add == 1 else 0) + (1 << 21) >= 1 << 31:  # only 48 bits will do
            wide, double, out, add = 1, 0, out % 2, add
        head = RQ_HEAD.pack(zero_point=self.zero(), bits=self.bits(int(out == 1)))
        far = wide and not double and out != 2
        bias = rng.integers(-(1 << 40), 1 << 40, rows) if far else rng.integers(-(1 << 20), 1 << 20, rows)
        scales = np.array([self.scale() for _ in range(rows)])
        if double:
            scales = np.stack([rng.integers(1 << 30, 1 << 31, rows), rng.integers(0, 32, rows)], 1)
        limit = 0xFFFFFF if not wide else 0x7FFFFFFF if double else 0x7FFF
        table = (RQ_WIDE_ROW if wide else RQ_ROW).pack(bias=bias, multiplier=scales[:, 0] & limit, shift=scales[:, 1])
        size = rows << out
        stride = 0 if columns == 1 else -(-max(size, rows * 4) // 4) * 4 + 4 * int(rng.integers(0, 3))
        return RQ(
            dst=self.place(columns * stride + size),
            params=self.block(head + table),
            addend=self.place(columns * stride + 4 * rows),
            rows=rows,
            bank=bank,
            columns=columns,
            stride=stride,
            out=out,
            add=add,
            wide=wide,
            double=double,
        )

    def LSTM(self) -> Instruction:
        units, out16 = self.number(600), int(self.rng.random() < 0.5)
        m, s = self.scale()
        params = self.block(
            LSTM.block.pack(
                multiplier=m,
                shift=s,
                bits=self.bits(out16),
                fraction=int(self.rng.integers(0, 16)),
                sigmoid=0,
                tanh=1,
                tanh_cell=2,
            )
        )
        return LSTM(
            pre=self.place(8 * units),
            cell=self.place(2 * units),
            dst=self.place(units << out16),
            params=params,
            units=units,
            out16=out16,
        )

    def GRU(self) -> Instruction:
        units, out16 = self.number(600), int(self.rng.random() < 0.5)
        m, s = self.scale()
        params = self.block(
            GRU.block.pack(multiplier=m, shift=s, bits=self.bits(out16), sigmoid=0, tanh=1)
        )
        return GRU(
            pre=self.place(12 * units + 4),
            state=self.place(2 * units),
            dst=self.place(units << out16),
            params=params,
            units=units,
            out16=out16,
        )

    def binary(self, cls: type[ADD] | type[MUL], **more: int) -> Instruction:
        n, a16, b16, out16 = self.number(2000), *(int(v) for v in self.rng.integers(0, 2, 3))
        a = self.place(n << a16)
        dst = a if self.rng.random() < 0.2 and out16 <= a16 else self.place(n << out16)
        return cls(
            a=a,
            b=self.place(n << b16),
            dst=dst,
            params=self.block(cls.block.pack(bits=self.bits(out16), **more)),
            n=n,
            a16=a16,
            b16=b16,
            out16=out16,
        )

    def ADD(self) -> Instruction:
        (m0, s0), (m1, s1) = self.scale(), self.scale()
        return self.binary(ADD, m0=m0, m1=m1, s0=s0, s1=s1)

    def MUL(self) -> Instruction:
        m, s = self.scale()
        return self.binary(MUL, multiplier=m, shift=min(62, s + int(self.rng.integers(0, 14))), zero_point=self.zero())

    def LUT(self) -> Instruction:
        n, out16 = self.number(2000), int(self.rng.random() < 0.5)
        m, s = self.scale()
        src = self.place(2 * n)
        params = self.block(
            LUT.block.pack(
                multiplier=m,
                shift=s,
                bits=self.bits(out16),
                zero_point=self.zero(),
                slot=int(self.rng.integers(self.c.luts)),
                symmetry=int(self.rng.integers(2)),
            )
        )
        return LUT(
            src=src, dst=src if self.rng.random() < 0.2 else self.place(n << out16), params=params, n=n, out16=out16
        )

    def LN(self) -> Instruction:
        rng = self.rng
        a16, out16 = (int(v) for v in rng.integers(0, 2, 2))
        n = self.number(600)
        m, s = self.scale()
        head = LN.block.pack(
            epsilon=int(rng.integers(1, 1 << int(rng.integers(1, 40)))),
            root_width=round(n**0.5 * 256),
            multiplier=m,
            shift=s,
            bits=self.bits(out16),
            zero_point=self.zero(),
        )
        gain = rng.integers(-32768, 32768, n).astype("<i2").tobytes()
        bias = rng.integers(-(1 << 26), 1 << 26, n).astype("<i4").tobytes()
        return LN(
            src=self.place(n << a16),
            dst=self.place(n << out16),
            params=self.block(head + gain + bytes(-len(gain) % 4) + bias),
            roots=self.roots(),
            n=n,
            a16=a16,
            out16=out16,
            rms=int(rng.integers(2)),
        )

    def SMAX(self) -> Instruction:
        rng = self.rng
        a16, out16 = (int(v) for v in rng.integers(0, 2, 2))
        n, (m, s) = self.number(600), self.scale()
        groups = 1 if n > 100 else int(rng.choice([1, 2, 3, int(rng.integers(1, 65)) if n < 8 else 4]))
        head = SMAX.block.pack(
            multiplier=m,
            shift=s,
            out_multiplier=int(rng.integers(1 << 20, 1 << 24)),
            out_shift=int(rng.integers(20, 32)),
            bits=self.bits(out16),
            slot=3,
            zero_point=self.zero(),
        )
        params, roots = self.block(head), self.roots()
        src = self.place(groups * n << a16)
        dst = src if rng.random() < 0.2 and out16 <= a16 else self.place(groups * n << out16)
        return SMAX(src=src, dst=dst, params=params, roots=roots, n=n, a16=a16, out16=out16, groups=groups)

    def LSM(self) -> Instruction:
        a16, n, (m, s) = int(self.rng.integers(2)), self.number(600), self.scale()
        log = 4 if self.rng.random() < 0.8 else int(self.rng.integers(self.c.luts))
        exp = 3 if self.rng.random() < 0.8 else 5
        src = self.place(n << a16)
        dst = src if a16 and self.rng.random() < 0.2 else self.place(2 * n)
        params = self.block(LSM.block.pack(multiplier=m, shift=s, exp=exp, log=log))
        return LSM(src=src, dst=dst, params=params, n=n, a16=a16)

    def GATE(self) -> Instruction:
        n, (a16, out16) = self.number(2000), (int(v) for v in self.rng.integers(0, 2, 2))
        m, s = self.scale()
        params = self.block(
            GATE.block.pack(
                multiplier=m,
                shift=min(62, s + int(self.rng.integers(0, 14))),
                bits=self.bits(out16),
                zero_point=self.zero(),
                slot=int(self.rng.integers(self.c.luts)),
                symmetry=int(self.rng.integers(2)),
            )
        )
        a, b = self.place(n << a16), self.place(2 * n)
        dst = int(self.rng.choice([b, a if out16 <= a16 else b, self.place(n << out16), self.place(n << out16)]))
        return GATE(a=a, b=b, dst=dst, params=params, n=n, a16=a16, out16=out16)

    def ring(self, width: int) -> tuple[int, dict[str, int]]:
        """A ring with rows of ``width`` bytes: its address, its chunks.  Its count is filled in, and a chunk is kept at
        times.
        """
        rng = self.rng
        chunk = int(rng.choice([1, 2, 4, int(rng.integers(1, 17)) if width < 32 else 3]))
        most = max(1, min(64, 3000 // (chunk * width)))
        slots = int(rng.choice([1, min(3, most), int(rng.integers(1, most + 1))]))
        ring = self.place(RING_HEAD + slots * chunk * width)
        self.add(FIL(dst=ring, bytes=4, value=int(rng.integers(0, 2 * slots))))
        for _ in range(int(rng.integers(0, 3))):
            keep = KEEP(src=self.place(chunk * width), ring=ring, bytes=width, chunk=chunk, slots=slots)
            if not any(rule.broken(keep, self.c) for rule in keep.rules) and not overlap(keep, self.c):
                self.add(keep)
        return ring, dict(chunk=chunk, slots=slots)

    def KEEP(self) -> Instruction:
        width = 4 * int(self.rng.integers(1, 2 * self.c.lanes))
        ring, chunks = self.ring(width)
        return KEEP(src=self.place(chunks["chunk"] * width), ring=ring, bytes=width, **chunks)

    def heads(self) -> dict[str, int]:
        """Heads of a row whose length is a multiple of 4."""
        n = int(self.rng.choice([4, 8, self.c.vector, int(self.rng.integers(1, 3 * self.c.vector))]))
        some = [h for h in range(1, 9) if h * n % 4 == 0 and h * n <= 256]
        return dict(n=n, heads=int(self.rng.choice(some)))

    def DOT(self) -> Instruction:
        heads = self.heads()
        width = heads["n"] * heads["heads"]
        ring, chunks = self.ring(width)
        rows, chunk = chunks["slots"] * chunks["chunk"], chunks["chunk"]
        m, s = self.scale()
        bias = self.rng.integers(-(1 << 16), 1 << 16, heads["heads"] * (rows + chunk - 1))
        if self.rng.random() < 0.2:
            bias = self.rng.integers(-(1 << 31), 1 << 31, len(bias))
        return DOT(
            src=self.place(chunk * width),
            ring=ring,
            dst=self.place(chunk * (2 * heads["heads"] * rows + 2)),
            params=self.block(DOT.block.pack(multiplier=m, shift=s) + bias.astype("<i4").tobytes()),
            **heads,
            **chunks,
        )

    def MIX(self) -> Instruction:
        heads, (p16, out16) = self.heads(), (int(v) for v in self.rng.integers(0, 2, 2))
        width = heads["n"] * heads["heads"]
        ring, chunks = self.ring(width)
        rows, chunk = chunks["slots"] * chunks["chunk"], chunks["chunk"]
        m, s = self.scale()
        return MIX(
            src=self.place(chunk * (heads["heads"] * rows + 2) << p16),
            ring=ring,
            dst=self.place(chunk * (width + 2) << out16),
            params=self.block(MIX.block.pack(multiplier=m, shift=s, bits=self.bits(out16))),
            p16=p16,
            out16=out16,
            **heads,
            **chunks,
        )

    def DWC(self) -> Instruction | None:
        rng = self.rng
        n, out16 = 4 * int(rng.integers(1, self.c.lanes)), int(rng.integers(2))
        ring, chunks = self.ring(n)
        taps = chunks["slots"] * chunks["chunk"] - chunks["chunk"] + 1
        taps = int(rng.choice([1, min(32, taps), int(rng.integers(1, min(32, taps) + 1))]))
        scales = np.array([self.scale() for _ in range(n)])
        head = RQ_HEAD.pack(zero_point=self.zero(), bits=self.bits(out16))
        table = RQ_ROW.pack(
            bias=rng.integers(-(1 << 16), 1 << 16, n), multiplier=scales[:, 0] & 0xFFFFFF, shift=scales[:, 1]
        )
        return DWC(
            ring=ring,
            dst=self.place(chunks["chunk"] * (n << out16)),
            params=self.block(head + table + rng.bytes(taps * n)),
            n=n,
            taps=taps,
            out16=out16,
            **chunks,
        )

    def roots(self) -> int:
        """Address of a table of 1/sqrt."""
        return self.block(arith.rsqrt_table().astype("<u2").tobytes() + b"\0\0")

    def CPY(self) -> Instruction:
        size, count = int(self.rng.integers(0, 3 * self.c.lanes)), int(self.rng.integers(1, 6))
        step = -(-size // 4) * 4 + 4 * int(self.rng.integers(0, 3))
        return CPY(
            src=self.place(count * step),
            dst=self.place(count * step),
            bytes=size,
            count=count,
            sstride=step,
            dstride=step,
        )

    def FIL(self) -> Instruction:
        size = 4 * int(self.rng.integers(0, 60))
        return FIL(dst=self.place(size), bytes=size, value=int(self.rng.integers(1 << 32)))

    def TAB(self) -> Instruction:
        slot = int(self.rng.integers(self.tables, self.c.luts))
        return TAB(src=self.block(np.sort(self.rng.integers(0, 32768, 513)).astype("<i2").tobytes()), slot=slot)

    def AMAX(self) -> Instruction:
        n, a16 = self.number(2000), int(self.rng.integers(2))
        return AMAX(src=self.place(n << a16), dst=self.place(8), n=n, a16=a16)

    def PROF(self) -> Instruction:
        return PROF(id=int(self.rng.integers(1 << 16)))

    # ---- dependences

    def add(self, i: Instruction) -> None:
        """Append ``i``, waiting for what it depends on."""
        at = len(self.code)
        reads, writes = ranges(i, self.c)
        mine = [(*r, False) for r in reads if r[0] != "TABLE"] + [(*r, True) for r in writes]
        wait = 0
        for unit, before in self.touched.items():
            if unit == i.unit:
                continue
            known = self.waited.get((unit, i.unit), -1)
            latest = -1
            for space, f, e, k, wrote in reversed(before):  # latest first; the known is done
                if k <= known:
                    break
                for s, first, end, writing in mine:  # a plain loop: this is most of the time of a drawn program
                    if f < end and first < e and s == space and (writing or wrote):
                        latest = k
                        break
                if latest == k:
                    break
            if latest > known:
                self.waited[unit, i.unit] = latest
                bit = 1 << PAIRS[unit, i.unit]
                wait |= bit
                self.code[latest] = evolve(self.code[latest], signal=self.code[latest].signal | bit)
        self.code.append(evolve(i, wait=wait))
        if isinstance(i, MVM):
            most = i.words * (1 << (15 if i.weights else 7)) * (1 << (15 if i.act16 else 7))
            whole = i.clear and i.columns == self.c.columns
            self.bound[i.bank] = most if whole else self.bound[i.bank] + most
        for space, first, end, writing in mine:
            self.touched[i.unit].append((space, first, end, at, writing))

    def program(self, length: int) -> Case:
        names = list(self.kinds)
        odds = np.array([self.kinds[k] for k in names])
        while len(self.code) < length:
            cls = names[int(self.rng.choice(len(names), p=odds / odds.sum()))]
            try:
                i = getattr(self, cls.__name__)()
            except StopIteration:  # no room for another parameter block
                break
            if i is None:
                continue
            if any(
                end > size
                for group in ranges(i, self.c)
                for space, _, end in group
                for size in [dict(A=self.c.a_bytes, W=self.c.words).get(space, 1 << 40)]
            ) or (i.unit == "VX" and overlap(i, self.c)):
                continue
            if any(rule.broken(i, self.c) for rule in i.rules):
                continue
            if isinstance(i, (PROF, HOST)):
                self.code.append(i)
            else:
                self.add(i)
        return self.case()

    def case(self) -> Case:
        """What has been drawn so far, ended."""
        self.code.append(HALT())
        dram = np.zeros(IMAGE + SCRATCH, np.uint8)
        dram[: len(self.image)] = np.frombuffer(bytes(self.image), np.uint8)
        return Case(self.c, self.code, dram, self.a, self.w, self.index, self.luts, SCRATCH)


ALL: dict[type[Instruction], float] = {
    LDW: 4,
    MVM: 4,
    RQ: 3,
    LDA: 1,
    STA: 0.7,
    GTH: 0.5,
    LSTM: 1,
    GRU: 0.7,
    ADD: 1,
    MUL: 1,
    LUT: 1,
    LN: 0.5,
    SMAX: 0.5,
    LSM: 0.5,
    GATE: 0.7,
    KEEP: 0.3,
    DOT: 0.4,
    MIX: 0.4,
    DWC: 0.4,
    CPY: 1,
    FIL: 0.5,
    TAB: 0.2,
    AMAX: 0.5,
    PROF: 0.3,
}


def roots(config: MachineConfig, tries: int = 10) -> Case:
    """Layer norms whose result hangs on the last bit of an entry of the root's table.

    After the Newton step such a bit is worth 2^-30 of the root: one result in about 30,000 shows it, so epsilons are
    searched, with a table whose next entry is wrong by one, for those that do.
    """
    draw = Draw(0, config, {})
    rng, n, table = np.random.default_rng(0), 64, arith.rsqrt_table()
    gain, bias = np.full(n, 1 << 14), np.zeros(n, np.int64)
    for _ in range(tries):
        x = rng.integers(-32768, 32768, n)
        least = int(((n * x - x.sum()) ** 2).sum())
        first = int(rng.integers(least >> 3, least))
        epsilon = first + np.arange(20_000) * (least >> 25)
        u = least + epsilon
        exponent = arith.bit_length(u) - 30
        exponent = exponent + (exponent & 1)
        at = int(((int(u[0]) >> int(exponent[0])) - (1 << 28)) >> 21)
        wrong = table.copy()
        wrong[at + 1] ^= 1
        width = round(n**0.5 * 256)
        scale = (1 << 16, 30, 0, 16)
        right, other = (
            arith.layer_norm(np.broadcast_to(x, (len(epsilon), n)), gain, bias, epsilon, width, t, *scale)
            for t in (table, wrong)
        )
        shows = np.flatnonzero((right != other).any(1) & (exponent == exponent[0]))
        if not len(shows):
            continue
        params = draw.block(
            LN.block.pack(epsilon=int(epsilon[shows[0]]), root_width=width, multiplier=1 << 16, shift=30, bits=16,
                          zero_point=0)
            + gain.astype("<i2").tobytes() + bias.astype("<i4").tobytes()
        )
        src = draw.data
        draw.a[src : src + 2 * n] = np.frombuffer(x.astype("<i2").tobytes(), np.uint8)
        draw.data = src + 2 * n
        draw.add(LN(src=src, dst=src, params=params, roots=draw.roots(), n=n, a16=1, out16=1))
    return draw.case()


def extremes(config: MachineConfig) -> Case:
    """Rings, and vectors of a softmax, as many and as long as their fields and `tiny`'s A allow."""
    draw = Draw(2, config, {})
    at, rng = draw.data, draw.rng

    def ring(place: int, count: int) -> int:
        draw.add(FIL(dst=place, bytes=4, value=count))
        return place

    def numbers(n: int, most: int = 1 << 20) -> bytes:
        return rng.integers(-most, most, n).astype("<i4").tobytes()

    draw.add(KEEP(src=at, ring=ring(at + (1 << 14), 1), bytes=1 << 14, chunk=1, slots=2))
    for heads, n, chunk, slots in ((32, 8, 16, 2), (1, 256, 1, 64)):
        rows, width = chunk * slots, heads * n
        where = ring(at, slots + 1)
        other = at + RING_HEAD + rows * width
        params = draw.block(DOT.block.pack(multiplier=1 << 20, shift=30) + numbers(heads * (rows + chunk - 1)))
        result = other + 2 * chunk * width
        shape = dict(n=n, heads=heads, chunk=chunk, slots=slots)
        draw.add(DOT(src=other, ring=where, dst=result, params=params, **shape))
        params = draw.block(MIX.block.pack(multiplier=1 << 20, shift=34, bits=16))
        draw.add(MIX(src=result, ring=where, dst=other, params=params, p16=1, out16=1, **shape))
    n, taps = 384, 32
    table = RQ_ROW.pack(bias=rng.integers(-(1 << 16), 1 << 16, n), multiplier=1 << 20, shift=31)
    params = draw.block(RQ_HEAD.pack(zero_point=3, bits=8) + table + rng.bytes(taps * n))
    draw.add(DWC(ring=ring(at, 63), dst=at + RING_HEAD + taps * n, params=params, n=n, taps=taps, slots=taps))
    return draw.case()
