"""The machine's memories, for a batch of utterances in lockstep: what instructions read and write.

Everything an utterance owns has a leading batch axis (A, ACC, the writable part of DRAM); weights, tables and the
read-only part of DRAM are the same for all.  Programs and data come from outside, so what only data can break is
checked here: streams, indices, overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac import arith
from nnac.codec import base
from nnac.codec.api import live_words  # importing the module registers the codecs
from nnac.codec.base import CodecError, Stream, read_header
from nnac.emulator.errors import AddressError, DataError
from nnac.isa import LDT, LDW, Instruction, MachineConfig
from nnac.isa.base import BadData
from nnac.isa.operands import Accumulators, Integers, Operand, Words

_KINDS = {size: np.dtype(f"<i{size}") for size in (1, 2, 4)}


class DecodedStreams:
    """Words of the weight tiles in one DRAM image, decoded once.  LDW can read only what STA cannot write, so a tile
    never changes."""

    def __init__(self, dram: NDArray, lanes: int) -> None:
        self.dram, self.lanes = dram, lanes
        self._tiles: dict[tuple, tuple[NDArray, NDArray, int]] = {}
        self._headers: dict[bytes, tuple[Any, Any, Any]] = {}
        self._numbers: dict[tuple, int] = {}

    def header(self, table: LDT) -> bytes:
        """The stream header that ``table`` loads.  DataError: it is none, or takes another number of steps than
        announced."""
        header = self.dram[table.dram: table.dram + table.bytes].tobytes()
        codec, _, contents = self._parse(header)
        if codec.table_steps(contents) != table.steps:
            raise DataError(f"the decoder table takes {codec.table_steps(contents)} steps to fill, the instruction "
                            f"says {table.steps}")
        return header

    def _parse(self, header: bytes) -> tuple[Any, Any, Any]:
        """(codec, blocks, table) of a stream header."""
        if header not in self._headers:
            try:
                self._headers[header] = read_header(header)
            except (CodecError, ValueError, IndexError) as error:
                raise DataError(f"weight stream: {error}") from None
        return self._headers[header]

    def tile(self, header: bytes, i: LDW) -> tuple[NDArray, NDArray]:
        """(live words int8 [live, lanes], input of each uint16 [live]) of the tile that ``i`` loads.  DataError:
        damaged, or not as announced."""
        key = (header, i.dram, i.bytes, i.rows, i.cols)
        if key not in self._tiles:
            self.decode(header, [i])
        words, index, steps = self._tiles[key]
        if len(words) != i.live:
            raise DataError(f"the stream has {len(words)} live words, the instruction says {i.live}")
        if steps != i.steps:
            raise DataError(f"the stream takes {steps} decoder steps, the instruction says {i.steps}")
        return words, index

    def decode(self, header: bytes, tiles: list[LDW]) -> None:
        """Decode several tiles of one tensor at once (much faster than one by one)."""
        codec, blocks, table = self._parse(header)
        streams = [Stream(self.dram[i.dram: i.dram + i.bytes].tobytes(), i.rows, i.cols) for i in tiles]
        try:
            found = codec.decode(table, blocks, streams, self.lanes)
        except (CodecError, ValueError, IndexError) as error:
            raise DataError(f"weight stream: {error}") from None
        for i, words in zip(tiles, found, strict=True):
            live = np.flatnonzero(live_words(codec, blocks, words))
            kept = words[live] if len(live) < i.cols else words
            _, steps = codec.cost(table, base.Words(words, i.rows, blocks))
            self._tiles[header, i.dram, i.bytes, i.rows, i.cols] = (kept, live.astype(np.uint16), steps)

    def known(self, header: bytes, i: LDW) -> bool:
        return (header, i.dram, i.bytes, i.rows, i.cols) in self._tiles

    def tag(self, header: bytes, i: LDW) -> NDArray:
        """Numbers that name the words of a tile, different for every word of every tile: int64 [live]."""
        number = self._numbers.setdefault((header, i.dram, i.bytes, i.rows, i.cols), len(self._numbers))
        return np.arange(i.live) + (number << 11)


class Memories:
    """All memories of one machine.  See the manual for what each is.

    a  uint8 [batch, a_bytes]    w  int8 [words, lanes]    index  uint16 [words]
    tag  int64 [words]: which load filled the word
    acc  int64 [batch, banks, columns, lanes]      luts  int64 [slots, 513]
    """

    def __init__(self, config: MachineConfig, dram: NDArray, batch: int = 1, scratch: tuple[int, int] | None = None,
                 streams: DecodedStreams | None = None) -> None:
        self.config, self.batch = config, batch
        self.dram = np.ascontiguousarray(dram, np.uint8)
        self.streams = streams or DecodedStreams(self.dram, config.lanes)
        first, last = scratch or (len(self.dram), len(self.dram))
        self.scratch_range = (first, last)
        # each utterance has its own, with what the image says to begin with
        part = np.zeros(last - first, np.uint8)
        part[: max(0, len(self.dram) - first)] = self.dram[first:last]
        self.scratch = np.repeat(part[None], batch, 0)
        self.a = np.zeros((batch, config.a_bytes), np.uint8)
        self.w = np.zeros((config.words, config.lanes), np.int8)
        self.index = np.zeros(config.words, np.uint16)
        self.tag = np.full(config.words, -1, np.int64)
        self.acc = np.zeros((batch, config.banks, config.columns, config.lanes), np.int64)
        self.luts = np.zeros((config.luts, arith.SEGMENTS + 1), np.int64)
        self.headers: list[bytes] = [b""] * config.decoder_tables
        self.host: Any = None
        self.matrices: dict[bytes, Any] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """First address beyond each memory."""
        c = self.config
        return dict(A=c.a_bytes, W=c.words, ACC=c.banks * c.columns, LUT=c.luts, TABLE=c.decoder_tables,
                    DRAM=self.scratch_range[1])

    # ---- all of them at one time

    @property
    def _arrays(self) -> tuple[NDArray, ...]:
        return self.a, self.w, self.index, self.tag, self.acc, self.luts, self.scratch

    def saved(self) -> tuple[list[NDArray], list[bytes]]:
        """A copy of everything that a program can change, for `restore`."""
        return [v.copy() for v in self._arrays], list(self.headers)

    def restore(self, saved: tuple[list[NDArray], list[bytes]]) -> None:
        for now, before in zip(self._arrays, saved[0], strict=True):
            now[:] = before
        self.headers[:] = saved[1]

    # ---- what instructions ask for (`nnac.isa.base.Memory`)

    def execute(self, i: Instruction) -> None:
        """Do one instruction.  MachineError without a place: what it cannot do."""
        try:
            i.execute(self)
        except BadData as error:
            raise DataError(str(error)) from None

    def apply(self, i: Instruction) -> None:
        """Fetch, compute, store: the plain meaning of an instruction that is a function of its operands."""
        results = i.compute(i.constants(self), *map(self.fetch, i.inputs(self.config)))
        for operand, values in zip(i.outputs(self.config), results, strict=True):
            self.store(operand, values)

    def fetch(self, operand: Operand) -> Any:
        """Integers int64 [batch, *shape]; accumulators int64 [batch, columns, lanes]; words: the pair (weights,
        inputs)."""
        if isinstance(operand, Integers):
            size, kind = operand.n * operand.size, _KINDS[operand.size]
            if not operand.rows:
                return np.ascontiguousarray(self.a[:, operand.address: operand.address +
                                                   size]).view(kind).astype(np.int64)
            raw = np.stack([self.a[:, first: first + size] for first in operand.places], 1)
            return raw.view(kind).astype(np.int64)
        if isinstance(operand, Accumulators):
            return self.acc[:, operand.bank, : operand.columns, : operand.lanes]
        assert isinstance(operand, Words), operand
        part = slice(operand.first, operand.first + operand.n)
        return self.w[part], self.index[part]

    def store(self, operand: Operand, values: NDArray) -> None:
        """Write what `fetch` would give; ``values`` may lack the batch axis."""
        if isinstance(operand, Accumulators):
            self.acc[:, operand.bank, : operand.columns, : operand.lanes] = values
            return
        assert isinstance(operand, Integers), operand
        data = np.ascontiguousarray(values.astype(_KINDS[operand.size])).view(np.uint8)
        if not operand.rows:
            self.a[:, operand.address: operand.address + operand.n * operand.size] = data
            return
        vectors = data.reshape(*data.shape[: data.ndim - len(operand.shape)], len(operand.places), -1)
        for k, first in enumerate(operand.places):
            self.a[:, first: first + operand.n * operand.size] = vectors[..., k, :]

    def parameters(self, address: int, size: int) -> NDArray:
        """Bytes of A that all utterances share: [size].  BadData: they differ, so they are no parameters."""
        raw = self.a[:, address: address + size]
        if self.batch > 1 and (raw != raw[0]).any():
            raise BadData(f"parameters at A[{address:#x}] differ between utterances of a batch")
        return raw[0]

    # ---- DRAM

    def dram_bytes(self, address: int, size: int, utterance: int | None = None) -> NDArray:
        """[batch, size], or [size] for one utterance.  AddressError: outside."""
        first, last = self.scratch_range
        end = address + size
        if not 0 <= address <= end <= max(len(self.dram), last):
            raise AddressError(f"DRAM {address:#x} … {end:#x} does not lie in the image of "
                               f"{max(len(self.dram), last):#x} bytes")
        part = self.dram[address:end]
        if end <= first or last <= address:
            return np.broadcast_to(part, (self.batch, size)) if utterance is None else part
        out = np.zeros((self.batch, size), np.uint8)
        out[:, : len(part)] = part
        low, high = max(first, address), min(last, end)
        out[:, low - address: high - address] = self.scratch[:, low - first: high - first]
        return out if utterance is None else out[utterance]

    def dram_rows(self, first: NDArray, size: int) -> NDArray:
        """[batch, size] bytes, from an address of each utterance's own, int64 [batch, 1].  AddressError."""
        return np.stack([self.dram_bytes(int(at), size, utterance) for utterance, at in enumerate(first[:, 0])])

    def write_dram(self, address: int, data: NDArray) -> None:
        first, last = self.scratch_range
        if not (first <= address and address + data.shape[-1] <= last):
            raise AddressError(f"DRAM {address:#x} … {address + data.shape[-1]:#x} is read-only (writable: {first:#x} "
                               f"… {last:#x})")
        self.scratch[:, address - first: address - first + data.shape[-1]] = data

    # ---- weights

    def load_decoder_table(self, i: LDT) -> None:
        self.check_stream(i)
        self.headers[i.table] = self.streams.header(i)

    def check_stream(self, i: LDT | LDW) -> None:
        """BadData: a stream in the writable part of DRAM, where it might change."""
        first, last = self.scratch_range
        if i.dram < last and first < i.dram + i.bytes:
            raise BadData(f"a weight stream lies in the writable part of DRAM, {first:#x} … {last:#x}")

    def load_tile(self, i: LDW) -> None:
        self.check_stream(i)
        header = self.headers[i.table]
        part = slice(i.word, i.word + i.live)
        self.w[part], self.index[part] = self.streams.tile(header, i)
        self.tag[part] = self.streams.tag(header, i)

    # ---- look-up tables, the host

    def load_lut(self, slot: int, entries: NDArray) -> None:
        self.luts[slot] = entries

    def lut(self, slot: int, symmetry: str) -> NDArray:
        """Entries of a look-up table.  BadData: there is no such slot, or they cannot have this symmetry."""
        if slot >= len(self.luts):
            raise BadData(f"there is no LUT slot {slot}")
        check_table(slot, symmetry, self.luts[slot])
        return self.luts[slot]

    def call_host(self, part: int) -> None:
        if self.host is None:
            raise DataError(f"the program calls part {part} of the host, and no host is there")
        self.host(part, self)


def check_table(slot: int, symmetry: str, entries: NDArray) -> None:
    """BadData unless a table's entries can have this symmetry: ``complement`` gives 0 … 32768; an ``exp`` is positive
    and not 0 at 0.

    ``odd`` takes any, and so do ``entries`` that are read as they are.
    """
    if symmetry in ("complement", "exp") and (least := int(entries.min())) < 0:
        raise BadData(f"LUT slot {slot} has an entry of {least}; a table of symmetry {symmetry} has none below 0")
    if symmetry == "exp" and entries[0] < 1:
        raise BadData(f"LUT slot {slot} is 0 at 0; an exponential is not")
