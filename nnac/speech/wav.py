"""WAV files, read as they come: what recorders, streaming tools and telephones write, block by block.

In:  a RIFF, RIFX, RF64 or BW64 file, or a pipe of one.   Out: blocks [samples, channels] of real numbers, full scale 1.
Integers of 8 (unsigned) to 32 bits, floating point, A-law, mu-law; plain or extensible headers.  Sizes that a writer
could not know (a stream's header says 0 or 2 GiB and more) mean: to the end of the file.  Chunks of other kinds are
passed by, those of odd length with or without the byte that should fill them up.  Whatever else is wrong is an
`AudioError`, in one line.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, NoReturn

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from nnac.errors import UserError

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
OTHERS = {2: "Microsoft ADPCM", 0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0x50: "MPEG", 0x55: "MP3", 0x64: "G.726",
          0x161: "WMA", 0xFF: "AAC"}
GUID_END = bytes.fromhex("000000001000800000aa00389b71")       # of the extensible formats that have a number
UNKNOWN_SIZE = 0x7FFF0000                                       # bytes; what streaming tools write lies above it
# Hz: beyond these a header is damaged, or no speech is meant
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
BLOCK = 1 << 17                                                 # bytes read at once: eight times that as numbers
IDS = frozenset(name.encode().ljust(4)
                for name in "data fmt LIST fact bext id3 ID3 cue JUNK junk PEAK smpl inst iXML cart axml chna acid PAD "
                                                   "FLLR afsp minf elm1 regn umid DISP ds64 levl link _PMX slnt plst "
                "labl note ltxt".split())


class AudioError(UserError):
    """What is wrong with an audio file or a manifest, in one line that begins with the file's name."""


@define(eq=False)
class Wav:
    """An open WAV file, its header read.  ``samples``: how many a channel has, None where the header does not know."""

    name: str
    file: BinaryIO
    length: int | None = None              # bytes of the file, where it is one
    order: str = "<"                       # of bytes
    kind: int = 0
    channels: int = 0
    rate: int = 0
    width: int = 0                         # bytes of a sample
    samples: int | None = None
    _read: int = field(default=0, init=False)
    _ahead: bytes = field(default=b"", init=False)             # read, and put back
    _content: bytes = field(default=b"", init=False)           # of the last chunk

    @classmethod
    def open(cls, name: str, file: BinaryIO, length: int | None = None) -> Wav:
        """Read the header.  AudioError: not WAV, damaged, or a format that is not read here (`UnknownFormat`)."""
        wav = cls(name, file, length)
        wav._header()
        return wav

    def blocks(self) -> Iterator[NDArray]:
        """[samples, channels] float64, full scale 1, some thousand samples at a time.

        AudioError: fewer samples than promised, or one that is no number.
        """
        frame = self.width * self.channels
        left = None if self.samples is None else self.samples * frame
        rest = b""
        while left is None or left > 0:
            piece = self._take(max(frame, BLOCK) if left is None else min(left, max(frame, BLOCK)))
            if not piece:
                break
            left = left if left is None else left - len(piece)
            data = rest + piece
            whole = len(data) // frame * frame
            rest = data[whole:]
            if whole:
                yield self._values(data[:whole])
        if left:
            self._bad(f"cut short: the header promises {self.samples} samples, {self._read} are there")

    # -- the header

    def _header(self) -> None:
        start = self._take(12)
        if not start:
            self._bad("the file is empty")
        if start[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or (len(start) == 12 and start[8:] != b"WAVE"):
            self._bad("not a WAV file" if len(start) == 12 or not b"RIFF".startswith(start[:4])
                      else "the WAV header is cut short")
        if len(start) < 12:
            self._bad("the WAV header is cut short")
        self.order = ">" if start[:4] == b"RIFX" else "<"
        (riff,) = struct.unpack(self.order + "I", start[4:8])
        long_size, at = None, 12
        while True:
            head = self._take(8)
            at += len(head)
            if len(head) < 8:
                self._bad("the WAV header is cut short" if not self.kind or head
                          else "has no samples: there is no `data` chunk")
            name, size = head[:4], struct.unpack(self.order + "I", head[4:])[0]
            if name == b"data":
                break
            odd = self._chunk(name, size)
            at += size + odd
            if name == b"ds64" and len(self._content) >= 16:
                long_size = int.from_bytes(self._content[8:16], "little")
        if not self.kind:
            self._bad("says nothing about its samples: there is no `fmt ` chunk before them")
        self._extent(size, long_size, at, riff + 8)

    def _chunk(self, name: bytes, size: int) -> int:
        """Read or pass by a chunk; 1 if a byte that fills it up came after it."""
        wanted = size if name in (b"fmt ", b"ds64") else 0
        if wanted > 1 << 16:
            self._bad(f"a broken WAV file (a `{name.decode('latin-1')}` chunk of {size:,} bytes)")
        self._content = self._take(wanted)
        left = size - len(self._content)
        while left and (piece := self._take(min(left, BLOCK))):
            left -= len(piece)
        if left:
            self._bad(f"cut short within its `{ascii(name.decode('latin-1'))[1:-1]}` chunk, or a broken WAV file")
        if name == b"fmt ":
            self._format(self._content)
        if size % 2 == 0:
            return 0
        self._ahead = self._take(5)
        if self._ahead[:4] in IDS and self._ahead[1:5] not in IDS:         # a writer that forgot to fill the chunk up
            return 0
        return len(self._take(1))

    def _take(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the end."""
        out, self._ahead = self._ahead[:count], self._ahead[count:]
        while len(out) < count and (piece := self.file.read(count - len(out))):
            out += piece
        return out

    def _format(self, data: bytes) -> None:
        if len(data) < 16:
            self._bad("a broken WAV file (its `fmt ` chunk is too short)")
        kind, channels, rate, _, block, bits = struct.unpack(self.order + "HHIIHH", data[:16])
        if kind == EXTENSIBLE:
            if len(data) < 40 or (data[26:40] != GUID_END
                                  and data[26:40] != bytes.fromhex("000010000000800000aa00389b71")):
                self._unknown("samples of an extended format without a number")
            (kind,) = struct.unpack(self.order + "H", data[24:26])
        if channels == 0:
            self._bad("a broken WAV file (it has no channels)")
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            self._bad(f"a sample rate of {rate} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz are read")
        width, rest = divmod(block, channels) if block else (-(-bits // 8), 0)
        if kind in (PCM, FLOAT) and (rest or not bits or width != -(-bits // 8)):
            # some writers leave `block` wrong; `bits` is what tools go by
            width = -(-bits // 8)
        known = {PCM: (1, 2, 3, 4), FLOAT: (4, 8), A_LAW: (1,), MU_LAW: (1,)}
        if kind not in known:
            self._unknown(f"{OTHERS.get(kind, f'samples of format {kind:#x}')}")
        if kind in (A_LAW, MU_LAW):
            width = 1
        if width not in known[kind]:
            self._bad(f"{'floating-point samples' if kind == FLOAT else 'samples'} of {bits} bits, which are not read")
        self.kind, self.channels, self.rate, self.width = kind, channels, rate, width

    def _extent(self, size: int, long_size: int | None, at: int, end: int) -> None:
        """How many samples there are, by the size of their chunk, which begins ``at``; ``end`` of the file, as its
        beginning says."""
        frame = self.width * self.channels
        if long_size is not None and size == 0xFFFFFFFF:
            size = long_size if long_size < 1 << 62 else 0xFFFFFFFF
        # nothing was to follow: a writer that never came back to say how much
        elif size == 0 and end <= at:
            size = 0xFFFFFFFF
        there = None if self.length is None else self.length - at
        unknown = size >= UNKNOWN_SIZE and (there is None or there < size)
        self.samples = None if unknown else size // frame

    # -- the samples

    def _values(self, data: bytes) -> NDArray:
        """Bytes of whole frames -> [samples, channels] float64."""
        if self.kind in (A_LAW, MU_LAW):
            values = _companded(self.kind)[np.frombuffer(data, np.uint8)]
        elif self.kind == FLOAT:
            values = np.frombuffer(data, f"{self.order}f{self.width}").astype(np.float64)
            wrong = ~(np.abs(values) <= 1e6)                   # NaN too
            if wrong.any():
                at = int(wrong.argmax())
                self._bad(f"sample {self._read + at // self.channels} is {values[at]:g}: floating-point samples lie "
                          f"between -1 and 1")
        elif self.width == 1:
            values = np.frombuffer(data, np.uint8).astype(np.float64) / 128 - 1
        elif self.width == 3:
            wide = np.zeros((len(data) // 3, 4), np.uint8)     # the three bytes are the upper ones of an int32
            wide[:, slice(1, 4) if self.order == "<" else slice(0, 3)] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = wide.view(f"{self.order}i4")[:, 0] / 2.0**31
        else:
            values = np.frombuffer(data, f"{self.order}i{self.width}") / 2.0 ** (8 * self.width - 1)
        self._read += len(values) // self.channels
        return values.reshape(-1, self.channels)

    def _bad(self, what: str) -> NoReturn:
        raise AudioError(f"{self.name}: {what}")

    def _unknown(self, what: str) -> NoReturn:
        raise UnknownFormat(f"{self.name}: {what}")


class UnknownFormat(AudioError):
    """A WAV file whose samples are coded in a way that is not read here; another library may."""


@cache
def _companded(kind: int) -> NDArray:
    """[256] the value of each byte, full scale 1.  Source: ITU-T G.711."""
    code = np.arange(256, dtype=np.int64)
    if kind == MU_LAW:
        code = ~code & 255
        magnitude = (((code & 15) << 3) + 132 << ((code >> 4) & 7)) - 132
        return np.where(code & 128, -magnitude, magnitude) / 32768.0
    code ^= 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return np.where(code & 128, magnitude, -magnitude) / 32768.0
