"""The native library, `native.c`: compiled at first use where there is a C compiler and a processor with VNNI; else nothing.

Here: the library itself, requantisation and tables; the LSTM's time loop is in `native_lstm`.  All give the same integers as their PyTorch
spelling (tests compare them bit for bit), in a third of the time.  The compiled
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

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith

_SOURCE = Path(__file__).with_name("native.c")
_FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")


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


def loaded() -> ctypes.CDLL:
    """The library, where `library` has been seen to be there."""
    found = library()
    assert found is not None, "there is no native library here"
    return found


def usable(*tensors: Tensor) -> bool:
    """Whether the native functions can work on these."""
    return all(t.device.type == "cpu" for t in tensors) and library() is not None


def requantise(acc: Tensor, bias: Tensor, multiplier: Tensor, shift: Tensor, zero_point: int, bits: int) -> tuple[Tensor, Tensor | None]:
    """`arith.requantise` of int32 accumulators [..., rows] plus bias; constants int64 [rows] or one number.

    returns  (integers float32, which of them were not cut, or None if none was)
    """
    acc = acc.contiguous()
    rows = acc.shape[-1]
    out, inside = torch.empty(acc.shape), torch.empty(acc.shape, dtype=torch.bool)
    low, high = arith.limits(bits)
    constants = [v.expand(rows).contiguous() for v in (bias, multiplier, shift)]
    i, p = ctypes.c_int64, ctypes.c_void_p
    cut = loaded().nnac_requantise
    cut.restype = i
    n = cut(i(acc.numel() // max(rows, 1)), i(rows), p(acc.data_ptr()), *(p(v.data_ptr()) for v in constants), i(zero_point), i(low), i(high),
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
        loaded().nnac_lookup(i(x.numel()), p(x.data_ptr()), p(self.words.data_ptr()), i(self.odd), i(self.multiplier), i(self.shift),
                              i(self.zero_point), i(self.low), i(self.high), p(out.data_ptr()))
        return out

    def backward(self, x: Tensor, g: Tensor) -> Tensor:
        """d loss / d x."""
        x, g = x.contiguous(), g.contiguous()
        out = torch.empty_like(x)
        i, p = ctypes.c_int64, ctypes.c_void_p
        loaded().nnac_lookup_backward(i(x.numel()), p(x.data_ptr()), p(g.data_ptr()), p(self.words.data_ptr()), i(self.odd),
                                       ctypes.c_float(self.ratio), i(self.least), i(self.most), p(out.data_ptr()))
        return out


def words(entries: Tensor) -> Tensor:
    """A table's 513 entries as 512 words: each segment's value at its left end, and its rise in the upper half."""
    t = entries.to(torch.int32)
    return ((t[1:] - t[:-1]) << 16 | t[:-1]).contiguous()
