"""Small programs put together by hand from a bound node: what a compiler would make, without the compiler."""

from __future__ import annotations

import numpy as np

from nnac import codec
from nnac.isa import HALT, LDA, LDT, LDW, LSTM, MVM, RQ, TAB, Instruction, MachineConfig
from nnac.isa.text import Assembly, Symbol
from nnac.isa.vector import RQ_HEAD, RQ_ROW, RQ_WIDE_ROW

FILLED, FREED, PARAMETERS, PRODUCTS, BANK, USED = (1 << k for k in range(6))


class Builder:
    """Grows a DRAM image and an A memory, in multiples of 16 bytes."""

    def __init__(self, config: MachineConfig) -> None:
        self.config, self.dram, self.top = config, bytearray(), 0
        self.code: list[Instruction] = []
        self.tiles = self.bands = 0
        self.free_by: list[int] = []

    def store(self, data: bytes) -> int:
        at = len(self.dram)
        self.dram += data + bytes(-len(data) % 16)
        return at

    def place(self, size: int) -> int:
        at = self.top
        self.top += -(-size // 16) * 16
        return at

    def load(self, data: bytes) -> int:
        """Bring constant bytes to A once."""
        data += bytes(-len(data) % 4)
        at = self.place(len(data))
        self.code.append(LDA(dram=self.store(data), dst=at, bytes=len(data), signal=PARAMETERS))
        self.code.append(RQ_WAIT(at))
        return at

    def band(self, matrix: np.ndarray, act: list[tuple[int, int]], name: str, words: int, wide: bool = False,
             columns: int = 1,
             stride: int = 0, act16: int = 0, tables: bool = True) -> int:
        """MVMs of rows ``matrix`` [rows <= lanes, cols]; ``act``: (A address, inputs) pieces that make up the columns.
        Returns the bank."""
        config, bank = self.config, self.bands % 2
        pieces, col = [], 0
        for address, n in act:
            pieces += [(col + k, address + k * (1 + act16), min(words, n - k)) for k in range(0, n, words)]
            col += n
        encoded = codec.encode(np.ascontiguousarray(matrix), name, config.lanes)
        self.code.append(LDT(dram=self.store(encoded.header), bytes=len(encoded.header), steps=encoded.table_steps))
        for k, (col, address, n) in enumerate(pieces):
            tile = codec.encode(np.ascontiguousarray(matrix[:, col:col + n]), name, config.lanes)
            self.code.append(LDT(dram=self.store(tile.header), bytes=len(tile.header), steps=tile.table_steps))
            (t,) = tile.tiles
            if not t.live_words and k:
                continue
            half = self.tiles % 2 * (config.stream_words // 2)
            self.code.append(LDW(dram=self.store(t.data), bytes=len(t.data), word=half, rows=t.rows, cols=t.cols,
                                 live=t.live_words,
                                 steps=t.steps, signal=FILLED, wait=FREED if self.tiles >= 2 else 0))
            self.code.append(MVM(word=half, words=max(1, t.live_words), act=address, span=n, columns=columns,
                                 stride=stride, bank=bank,
                                 clear=int(k == 0), act16=act16, signal=FREED |
                                 (PRODUCTS if k == len(pieces) - 1 else 0),
                                 wait=FILLED | (BANK if k == 0 and self.bands >= 2 else 0)))
            self.tiles += 1
        self.bands += 1
        return bank

    def parameters(self, bias, multiplier, shift, zero_point: int, bits: int, wide: bool = False) -> int:
        row = RQ_WIDE_ROW if wide else RQ_ROW
        return self.load(RQ_HEAD.pack(zero_point=zero_point, bits=bits) +
                         row.pack(bias=bias, multiplier=multiplier, shift=shift))


def RQ_WAIT(address: int) -> Instruction:
    """VX takes the token of a finished LDA: an empty copy, so that later VX instructions are ordered behind the
    load."""
    from nnac.isa import FIL

    return FIL(dst=address, bytes=0, wait=PARAMETERS)


def linear(node, graph, config: MachineConfig, *, name: str = "raw", words: int = 64, columns: int = 1) -> Assembly:
    """y = requantise(W x + b), one entry ``main``, ports by value name."""
    b, c = Builder(config), node.constants
    x, y = graph.values[node.inputs[0]], graph.values[node.output]
    wide, size, out = int(x.bits > 8), x.bits // 8 or 1, int(y.bits > 8)
    stride, ystride = -(-x.width * size // 4) * 4, -(-y.width << out) // 4 * 4 + 16
    if columns == 1:
        ystride = 4
    xa, ya = b.place(columns * stride), b.place(columns * max(ystride, y.width << out))
    blocks = []
    for r in range(0, y.width, config.lanes):
        rows = slice(r, min(r + config.lanes, y.width))
        blocks.append((rows, b.parameters(c["bias"][rows], c["multiplier"][rows], c["shift"][rows], y.zero_point,
                                          y.bits, bool(wide))))
    for rows, at in blocks:
        bank = b.band(c["weight"][rows], [(xa, x.width)], name, words, columns=columns, stride=stride, act16=wide)
        b.code.append(RQ(dst=ya + (rows.start << out), params=at, rows=rows.stop - rows.start, bank=bank,
                         columns=columns,
                         stride=ystride if columns > 1 else 0, out=out, wide=wide, wait=PRODUCTS, signal=BANK))
    b.code.append(HALT())
    symbols = [Symbol(x.name, "input", xa, x.bits, x.width)] if columns == 1 else [
        Symbol(f"x{k}", "input", xa + k * stride, x.bits, x.width) for k in range(columns)]
    symbols += [Symbol(y.name, "output", ya, y.bits, y.width)] if columns == 1 else [
        Symbol(f"y{k}", "output", ya + k * ystride, y.bits, y.width) for k in range(columns)]
    return Assembly({"main": b.code}, {"main": [(node.path, "by hand")] * len(b.code)}, tuple(symbols),
                    ((0, bytes(b.dram)),))


def lstm_acc32(node, graph, config: MachineConfig, *, name: str = "raw", words: int = 64) -> Assembly:
    """One step of an acc32 LSTM, gate-interleaved: each band of rows holds lanes / 4 units, whose LSTM runs under the
    next band's MVMs."""
    b, c, a = Builder(config), node.constants, node.attributes
    x, y, h = graph.values[node.inputs[0]], graph.values[node.output], a["cells"]
    xa, hidden, new, cell, pre = b.place(x.width), b.place(h), b.place(h + 4), b.place(2 * h), b.place(8 * config.lanes)
    entries = ("sigmoid", "tanh", "tanh_cell")
    for slot, table in enumerate(entries):
        at = b.load(c[table].astype("<i2").tobytes())
        b.code.append(TAB(src=at, slot=slot))
    fused = b.load(LSTM.block.pack(multiplier=c["hidden_multiplier"], shift=c["hidden_shift"], bits=a["hidden_bits"],
                                   fraction=a["fraction"],
                                   sigmoid=0, tanh=1, tanh_cell=2))
    units = config.lanes // 4
    both = np.concatenate([c["input"], c["recurrent"]], 1)
    bands = []
    for u in range(0, h, units):
        n = min(units, h - u)
        rows = np.concatenate([np.arange(u, u + n) + g * h for g in range(4)])
        bands.append((u, n, rows, b.parameters(c["bias"][rows], c["multiplier"][rows], c["shift"][rows], 0, 16)))
    for u, n, rows, at in bands:
        bank = b.band(both[rows], [(xa, x.width), (hidden, h)], name, words)
        b.code.append(RQ(dst=pre, params=at, rows=4 * n, bank=bank, out=1, wait=PRODUCTS, signal=BANK))
        b.code.append(LSTM(pre=pre, cell=cell + 2 * u, dst=new + u, params=fused, units=n))
    # the last band's MVMs have read the old hidden state by the time its RQ ran: VX may now replace it
    from nnac.isa import CPY

    b.code.append(CPY(src=new, dst=hidden, bytes=h))
    b.code.append(HALT())
    state = [Symbol(f"{node.path}.hidden", "state", hidden, 8, h), Symbol(f"{node.path}.cell", "state", cell, 16, h)]
    symbols = [Symbol(x.name, "input", xa, x.bits, x.width), Symbol(y.name, "output", hidden, 8, h), *state]
    return Assembly({"main": b.code}, {"main": [(node.path, "by hand")] * len(b.code)}, tuple(symbols),
                    ((0, bytes(b.dram)),))
