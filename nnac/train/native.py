"""The native time loop: `native.c`, compiled at first use where there is a C compiler and a processor with VNNI; else nothing.

It computes the same integers as the PyTorch spelling in `kernels` (tests compare them bit for bit) in a third of the time.  The compiled
library is kept in the user's cache directory under the hash of its source, compiler and processor.  ``NNAC_NATIVE=0`` switches it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith

if TYPE_CHECKING:
    from nnac.train.integers import Rescale
    from nnac.train.kernels import Direction, Trace

_SOURCE = Path(__file__).with_name("native.c")
_FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_LANES = 16


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nnac"


def _processor() -> str:
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.processor()


def _compiled() -> Path | None:
    """The library's file, compiled if need be.  None without a compiler, or if the source does not compile here."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    key = "\0".join([_SOURCE.read_text(), compiler, *_FLAGS, _processor(), platform.machine()])
    folder = _cache_directory()
    target = folder / f"native-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if target.exists() and target.stat().st_uid == os.getuid():
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / "native.so"
        done = subprocess.run([compiler, *_FLAGS, str(_SOURCE), "-o", str(made)], capture_output=True, timeout=60)
        if done.returncode != 0:
            return None
        os.replace(made, target)                    # whole or not at all: several processes may compile at once
    return target


@cache
def library() -> ctypes.CDLL | None:
    """The loaded library, or None where the PyTorch spelling has to do."""
    if os.environ.get("NNAC_NATIVE", "1") == "0" or platform.machine() not in ("x86_64", "AMD64") or not hasattr(os, "getuid"):
        return None
    try:
        path = _compiled()
        return None if path is None else ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _native() -> ctypes.CDLL:
    """The library, where `library` has been seen to be there."""
    found = library()
    assert found is not None, "there is no native library here"
    return found


class _Forward(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("steps", "batch", "cells", "width", "separate", "fraction", "hidden_multiplier", "hidden_shift",
                                              "hidden_low", "hidden_high")] + [
        (n, ctypes.c_void_p) for n in ("input", "weights", "multiplier", "shift", "bias", "multiplier2", "shift2", "bias2", "sigmoid", "tanh",
                                       "tanh_cell", "hidden", "cell", "pre", "cs", "hs", "uncut", "cut_input", "cut_recurrent", "scratch")]


@cache
def _tables(fraction: int) -> tuple[Tensor, ...]:
    return tuple(words(torch.as_tensor(t.entries)) for t in (arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(fraction)))


@frozen(eq=False)
class Tiles:
    """A recurrent kernel as the native loop reads it: tiles of 16 cells, their four gates side by side.  Row constants [tiles, 4, 16] int64."""

    weights: Tensor
    width: int
    multiplier: Tensor
    shift: Tensor
    bias: Tensor
    multiplier2: Tensor
    shift2: Tensor
    bias2: Tensor

    @classmethod
    def of(cls, codes: Tensor, first: Rescale, second: Rescale | None) -> Tiles:
        """codes [4H, R] integers of int8 range.  The hidden state enters as h + 128; 128 * row sum goes off the bias of its product."""
        rows, width = codes.shape
        tiles = -(-rows // (4 * _LANES))
        bytes_, packed = codes.to(torch.int8).contiguous(), torch.empty(tiles * -(-width // 4) * 4 * _LANES * 4, dtype=torch.int8)
        sums = torch.empty(rows, dtype=torch.int32)
        _native().nnac_pack(*(ctypes.c_void_p(t.data_ptr()) for t in (bytes_, packed, sums)), ctypes.c_int64(rows // 4), ctypes.c_int64(width))

        def tiled(v: Tensor, fill: int) -> Tensor:
            room = torch.full((4, tiles * _LANES), fill, dtype=torch.int64)
            room[:, : rows // 4] = v.expand(rows).view(4, -1)
            return room.view(4, tiles, _LANES).transpose(0, 1).contiguous()

        fold = -128 * sums.long()
        other = first if second is None else second
        return cls(packed, width, tiled(first.multiplier, 0), tiled(first.shift, 1), tiled(first.bias + (fold if second is None else 0), 0),
                   tiled(other.multiplier, 0), tiled(other.shift, 1), tiled(other.bias + fold, 0))


def usable(*tensors: Tensor) -> bool:
    """Whether the native functions can work on these."""
    return all(t.device.type == "cpu" for t in tensors) and library() is not None


def requantise(acc: Tensor, r: Rescale) -> tuple[Tensor, Tensor | None]:
    """`Rescale.__call__` of int32 accumulators [..., rows]; which were not cut is None if none was."""
    acc = acc.contiguous()
    rows = acc.shape[-1]
    out, inside = torch.empty(acc.shape), torch.empty(acc.shape, dtype=torch.bool)
    low, high = arith.limits(r.bits)
    constants = [v.expand(rows).contiguous() for v in (r.bias, r.multiplier, r.shift)]
    i, p = ctypes.c_int64, ctypes.c_void_p
    cut = _native().nnac_requantise
    cut.restype = i
    n = cut(i(acc.numel() // max(rows, 1)), i(rows), p(acc.data_ptr()), *(p(v.data_ptr()) for v in constants), i(r.zero_point), i(low), i(high),
            p(out.data_ptr()), p(inside.data_ptr()))
    return out, inside if n else None


@frozen(eq=False)
class Lookup:
    """A table and what follows it.  words  int32 [512], see native.c      least, most  of the table's outputs that are not cut, Q0.15
    ratio   input scale over output scale
    """

    words: Tensor
    odd: bool
    multiplier: int
    shift: int
    zero_point: int
    low: int
    high: int
    least: int
    most: int
    ratio: float

    def forward(self, x: Tensor) -> Tensor:
        """Integers of x [...], floats that hold 16-bit integers."""
        x = x.contiguous()
        out = torch.empty_like(x)
        i, p = ctypes.c_int64, ctypes.c_void_p
        _native().nnac_lookup(i(x.numel()), p(x.data_ptr()), p(self.words.data_ptr()), i(self.odd), i(self.multiplier), i(self.shift),
                              i(self.zero_point), i(self.low), i(self.high), p(out.data_ptr()))
        return out

    def backward(self, x: Tensor, g: Tensor) -> Tensor:
        """d loss / d x."""
        x, g = x.contiguous(), g.contiguous()
        out = torch.empty_like(x)
        i, p = ctypes.c_int64, ctypes.c_void_p
        _native().nnac_lookup_backward(i(x.numel()), p(x.data_ptr()), p(g.data_ptr()), p(self.words.data_ptr()), i(self.odd),
                                       ctypes.c_float(self.ratio), i(self.least), i(self.most), p(out.data_ptr()))
        return out


def words(entries: Tensor) -> Tensor:
    """A table's 513 entries as 512 words: each segment's value at its left end, and its rise in the upper half."""
    t = entries.to(torch.int32)
    return ((t[1:] - t[:-1]) << 16 | t[:-1]).contiguous()


def _pointer(t: Tensor | None) -> int | None:
    assert t is None or t.is_contiguous()
    return None if t is None else t.data_ptr()


def forward(at: Tensor, hidden: Tensor, cell: Tensor, d: Direction, trace: Trace) -> None:
    """The time loop: fills ``trace`` from the input product ``at`` int32 [T, B, 4H] and the state before."""
    (steps, batch, _), cells, tiles = at.shape, cell.shape[1], d.recurrent
    low, high = arith.limits(d.hidden.bits)
    tables = _tables(d.fraction)
    kept = [at.contiguous(), hidden.to(torch.int8).contiguous(), cell.to(torch.int16).contiguous(),
            torch.empty(batch * (-(-tiles.width // 4) * 4), dtype=torch.uint8)]
    _native().nnac_forward(ctypes.byref(_Forward(
        steps, batch, cells, tiles.width, d.variant == "sum16", d.fraction, int(d.hidden.multiplier), int(d.hidden.shift), low, high,
        *(_pointer(t) for t in (kept[0], tiles.weights, tiles.multiplier, tiles.shift, tiles.bias, tiles.multiplier2, tiles.shift2, tiles.bias2,
                                *tables, kept[1], kept[2], trace.pre, trace.cells, trace.cell_outputs, trace.uncut, trace.cut_input,
                                trace.cut_recurrent, kept[3])))))


class Backward:
    """The elementwise half of a backward step: reads dy[step] and dh, replaces dc, fills dz[step]."""

    def __init__(self, dy: Tensor, dh: Tensor, dc: Tensor, dz: Tensor, cell: Tensor, trace: Trace, d: Direction) -> None:
        self.batch, self.cells = dc.shape
        self.dy, self.dh, self.dc, self.dz, self.trace, self.d = dy, dh, dc, dz, trace, d
        self.cell = cell.to(torch.int16).contiguous()
        self.tables = [ctypes.c_void_p(_pointer(t)) for t in _tables(d.fraction)]
        self.function = _native().nnac_backward
        self.shape = (ctypes.c_int64(self.batch), ctypes.c_int64(self.cells), ctypes.c_float(1.0 / d.hidden_scale),
                      ctypes.c_float(2.0**-d.fraction))
        assert all(t.is_contiguous() and t.dtype == torch.float32 for t in (dy, dh, dc, dz))

    def __call__(self, step: int) -> None:
        p, n, t = ctypes.c_void_p, self.batch * self.cells, self.trace
        before = self.cell.data_ptr() if step == 0 else t.cells.data_ptr() + 2 * n * (step - 1)
        self.function(*self.shape, p(self.dy.data_ptr() + 4 * n * step), p(self.dh.data_ptr()), p(self.dc.data_ptr()),
                      p(self.dz.data_ptr() + 16 * n * step), p(t.pre.data_ptr() + 8 * n * step), p(t.cells.data_ptr() + 2 * n * step), p(before),
                      p(None if t.uncut is None else t.uncut.data_ptr() + n * step), *self.tables)
