"""The native library: `native.c`, compiled at first use for the processor that is found, where there is a C compiler;
else nothing.

Here: the library itself, int8 products, requantisation, norms and tables; the LSTM's time loop is in `native_lstm`,
what a Conformer has besides in `native_layers`, a matrix of weights in `native_weights`.  All give the same integers as
their PyTorch spelling (tests compare them bit for bit), in a third of the time.

One source, compiled in one of the ways of `KINDS`; all give the same bits.  The environment variable NNAC_NATIVE
forces one (so that a machine that can do several tests them all), and 0 switches the library off.  A compiled library
is kept in the user's cache directory under the hash of source, compiler, flags and processor.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith, bind
from nnac.errors import UserError

KINDS = {                                       # best first: how each is compiled
    "vnni": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2",),
    "plain": (),                                # NEON, where the processor is an ARM
}
_NEEDS = {"vnni": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}, "avx2": {"avx2"}, "plain": set[str]()}
_SOURCE = Path(__file__).with_name("native.c")
_PARTS = (_SOURCE, Path(__file__).with_name("native_layers.c"))                # the second is included by the first
_FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_X86 = ("x86_64", "AMD64")


def _cache_directory() -> Path:
    """OSError: there is none, as for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "nnac"
    except RuntimeError as error:
        raise OSError(str(error)) from None


@cache
def _features() -> frozenset[str]:
    """What the processor can do, in the words of /proc/cpuinfo."""
    try:
        line = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
        return frozenset(line.split(":")[1].split())
    except (OSError, StopIteration):
        return frozenset({"avx2"} if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else ())


def kinds() -> list[str]:
    """The ways in which the library can be compiled for this processor, best first."""
    return [
        kind
        for kind, needs in _NEEDS.items()
        if needs <= _features() and (kind == "plain" or platform.machine() in _X86)
    ]


def kind() -> str | None:
    """Which of `kinds` is used; None: none.  UserError: NNAC_NATIVE asks for what the processor cannot do.

    ``plain`` is taken by itself where it means NEON; an x86 without AVX2 is better served by PyTorch.
    """
    return _chosen(os.environ.get("NNAC_NATIVE", "1"))


@cache
def _chosen(wanted: str) -> str | None:
    if wanted == "0":
        return None
    if wanted not in ("", "1"):
        if wanted not in kinds():
            raise UserError(f"NNAC_NATIVE={wanted}: this processor can do {', '.join(kinds())} (or 0: none)")
        return wanted
    best = kinds()[0]
    return None if best == "plain" and platform.machine() in _X86 else best


def _compiled(kind: str) -> Path | None:
    """The library's file, compiled if need be.  None without a compiler, or if the source does not compile here."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    flags = (*_FLAGS, *KINDS[kind])
    key = "\0".join([*(part.read_text("utf-8") for part in _PARTS), compiler, *flags, *sorted(_features()),
                     platform.machine()])
    folder = _cache_directory()
    target = folder / f"native-{kind}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if target.exists() and target.stat().st_uid == os.getuid():
        return target
    # a compiler that could not is not asked again by every process
    failed = target.with_suffix(".failed")
    if failed.exists():
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".so")
        os.close(handle)
    except OSError:                                        # a read-only home: this process alone has the library
        handle, name = tempfile.mkstemp(suffix=".so")
        os.close(handle)
        atexit.register(Path(name).unlink, missing_ok=True)
        target = Path(name)
    made = Path(name)
    try:
        done = subprocess.run([compiler, *flags, str(_SOURCE), "-o", name], capture_output=True, timeout=60)
        if done.returncode != 0:
            with suppress(OSError):
                failed.write_bytes(done.stderr[-4000:])
            return None
        if target != made:
            os.replace(made, target)                       # whole or not at all: several processes may compile at once
    finally:
        if target != made:
            made.unlink(missing_ok=True)
    return target


@cache
def _loaded(kind: str) -> ctypes.CDLL | None:
    if not hasattr(os, "getuid"):
        return None
    try:
        path = _compiled(kind)
        found = None if path is None else ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    if found is not None:
        for name in ("nnac_packed", "nnac_scratch", "nnac_requantise", "nnac_requantise_wide", "nnac_layer_norm",
                     "nnac_add", "nnac_depthwise", "nnac_attention_scratch", "nnac_weighted_sum", "nnac_weights",
                     "nnac_broadcast", "nnac_norm_constants"):
            getattr(found, name).restype = ctypes.c_int64
    return found


def library() -> ctypes.CDLL | None:
    """The loaded library, or None where the PyTorch spelling has to do."""
    found = kind()
    return None if found is None else _loaded(found)


def loaded() -> ctypes.CDLL:
    """The library, where `library` has been seen to be there."""
    found = library()
    assert found is not None, "there is no native library here"
    return found


def multiplies() -> bool:
    """Whether `product` is here: not with VNNI, where PyTorch's own int8 products are exact, and faster."""
    return kind() != "vnni" and library() is not None


def product(x: Tensor, matrix: Tensor, out: Tensor | None = None) -> Tensor:
    """``x @ matrix``, int8 [count, cols] and [cols, outputs], both contiguous -> int32, exact."""
    (count, cols), outputs = x.shape, matrix.shape[1]
    out = torch.empty(count, outputs, dtype=torch.int32) if out is None else out
    i, p = ctypes.c_int64, ctypes.c_void_p
    loaded().nnac_product(i(count), i(cols), i(outputs), p(x.data_ptr()), p(matrix.data_ptr()), p(out.data_ptr()))
    return out


def usable(*tensors: Tensor) -> bool:
    """Whether the native functions can work on these."""
    return all(t.device.type == "cpu" for t in tensors) and library() is not None


@frozen(eq=False)
class Scaling:
    """A requantisation as the native functions take it: one number a row, or one for all.

    factor, offset  float64: m 2^-s, and bias m 2^-s + 1/2      bias, multiplier, shift  int64, the same
    wide            products may pass 2^52, where no float64 holds them
    """

    factor: Tensor
    offset: Tensor
    bias: Tensor
    multiplier: Tensor
    shift: Tensor
    zero_point: int
    bits: int
    wide: bool

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """What is computed with."""
        return (self.bias, self.multiplier, self.shift) if self.wide else (self.factor, self.offset)


def requantise(acc: Tensor, by: Scaling) -> tuple[Tensor, Tensor | None]:
    """`arith.requantise` of int32 accumulators [..., rows] plus bias.

    returns  (integers float32, which of them were not cut, or None if none was)
    """
    acc = acc.contiguous()
    rows = acc.shape[-1]
    out, inside = torch.empty(acc.shape), torch.empty(acc.shape, dtype=torch.bool)
    low, high = arith.limits(by.bits)
    constants = [v if v.shape == (rows,) and v.is_contiguous() else v.expand(rows).contiguous() for v in by.constants]
    i, p = ctypes.c_int64, ctypes.c_void_p
    function = loaded().nnac_requantise_wide if by.wide else loaded().nnac_requantise
    n = function(
        i(acc.numel() // max(rows, 1)),
        i(rows),
        p(acc.data_ptr()),
        *(p(v.data_ptr()) for v in constants),
        i(by.zero_point),
        i(low),
        i(high),
        p(out.data_ptr()),
        p(inside.data_ptr()),
    )
    return out, inside if n else None


@frozen(eq=False)
class Norm:
    """The constants of `nnac.bind.layer_norm` as the native function takes them.

    gain, bias  int64, of whole vectors, zeros at the end
    """

    gain: Tensor
    bias: Tensor
    epsilon: int
    root_width: int
    multiplier: int
    shift: int

    @classmethod
    def of(cls, c: Mapping[str, Tensor]) -> Norm:
        """From those constants, int64."""
        spare = -c["gain"].shape[-1] % 16
        gain, bias = (torch.nn.functional.pad(c[k], (0, spare)) if spare else c[k].contiguous()
                      for k in ("gain", "bias"))
        return cls(gain, bias, *(int(c[k]) for k in ("epsilon", "root_width", "multiplier", "shift")))

    @classmethod
    def of_a_step(cls, gain: Tensor, bias: Tensor, epsilon: float, in_scale: float, out_scale: float) -> Norm | None:
        """What `bind.layer_norm` says of real gain and bias, float32 [width].  None where a number does not fit."""
        gain, bias, width = gain.detach().contiguous(), bias.detach().contiguous(), len(gain)
        ints, found = torch.empty(2, width + -width % 16, dtype=torch.int64), (ctypes.c_int64 * 2)()
        i, p, d = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
        at, second = ints.data_ptr(), ctypes.addressof(found) + 8
        if not loaded().nnac_norm_constants(
                i(width), p(gain.data_ptr()), p(bias.data_ptr()), d(out_scale), i(arith.MULTIPLIER_BITS),
                d(bind.bias_limit(False) - 1), p(at), p(at + 8 * ints.shape[1]), found, p(second)):
            return None
        return cls(ints[0], ints[1], bind.norm_epsilon(epsilon, width, in_scale), bind.norm_root(width), found[0],
                   found[1])


@cache
def _roots() -> Tensor:
    """The table of 1/sqrt, int64."""
    return torch.as_tensor(arith.rsqrt_table().astype("int64"))


def layer_norm(x: Tensor, c: Norm, zero_point: int, bits: int) -> tuple[Tensor, Tensor | None]:
    """`arith.layer_norm` of floats that hold integers [..., width].

    returns  (integers float32, which of them were not cut, or None if none was)
    """
    x = x.contiguous()
    out, inside = torch.empty(x.shape), torch.empty(x.shape, dtype=torch.bool)
    width = x.shape[-1]
    i, p = ctypes.c_int64, ctypes.c_void_p
    low, high = arith.limits(bits)
    n = loaded().nnac_layer_norm(
        i(x.numel() // width), i(width), p(x.data_ptr()), p(c.gain.data_ptr()), p(c.bias.data_ptr()), i(c.epsilon),
        i(c.root_width), p(_roots().data_ptr()), i(c.multiplier), i(c.shift), i(zero_point), i(low), i(high),
        p(out.data_ptr()), p(inside.data_ptr()))
    return out, inside if n else None


def softmax(x: Tensor, c: Mapping[str, Tensor], zero_point: int, bits: int) -> Tensor:
    """`arith.softmax` of floats that hold integers [..., width]; ``c``: the constants of `nnac.bind.softmax`, int64."""
    x = x.contiguous()
    width = x.shape[-1]
    out, scratch = torch.empty(x.shape), torch.empty(width, dtype=torch.int64)
    i, p = ctypes.c_int64, ctypes.c_void_p
    exp, roots = c["exp"].contiguous(), c["rsqrt"].contiguous()
    low, high = arith.limits(bits)
    loaded().nnac_softmax(
        i(x.numel() // width), i(width), p(x.data_ptr()), p(exp.data_ptr()), p(roots.data_ptr()),
        i(int(c["multiplier"])), i(int(c["shift"])), i(int(c["out_multiplier"])), i(int(c["out_shift"])),
        i(zero_point), i(low), i(high), p(scratch.data_ptr()), p(out.data_ptr()))
    return out


def gather(x: Tensor, table: Tensor, by: Tensor | None = None) -> Tensor:
    """``table`` float32 [65536] at x + 32768, x floats that hold 16-bit integers; times ``by``, of the same shape."""
    x, by = x.contiguous(), None if by is None else by.contiguous()
    out = torch.empty_like(x)
    p = ctypes.c_void_p
    loaded().nnac_gather(ctypes.c_int64(x.numel()), p(x.data_ptr()), p(None if by is None else by.data_ptr()),
                         p(table.data_ptr()), p(out.data_ptr()))
    return out


def add(a: Tensor, b: Tensor, by: Sequence[Scaling]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`arith.add` of floats of one shape that hold integers, neither scaling wide: (integers float32, where a's and b's
    gradients pass, or None for both where all do)."""
    a, b = a.contiguous(), b.contiguous()
    out, pass_a, pass_b = torch.empty_like(a), *(torch.empty(a.shape, dtype=torch.bool) for _ in range(2))
    i, p, d = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double * 2
    low, high = arith.limits(by[0].bits)
    n = loaded().nnac_add(i(a.numel()), p(a.data_ptr()), p(b.data_ptr()), d(*(float(r.factor) for r in by)),
                          d(*(float(r.offset) for r in by)), i(low), i(high), p(out.data_ptr()), p(pass_a.data_ptr()),
                          p(pass_b.data_ptr()))
    return (out, pass_a, pass_b) if n else (out, None, None)


@frozen(eq=False)
class Lookup:
    """A table and what follows it.

    words   int32 [512], see native.c      least, most  of the table's outputs that are not cut, Q0.15
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

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor | None]]:
        """(integers of x [...], floats that hold 16-bit integers; for the gradient the table's own outputs, int16)."""
        x = x.contiguous()
        out, kept = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int16) if keep else None
        i, p, d = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
        loaded().nnac_lookup(
            i(x.numel()),
            p(x.data_ptr()),
            p(self.words.data_ptr()),
            i(self.odd),
            d(float(arith.scale_of(self.multiplier, self.shift))),
            d(0.5),
            i(self.zero_point),
            i(self.low),
            i(self.high),
            p(out.data_ptr()),
            p(None if kept is None else kept.data_ptr()),
        )
        return out, (kept,)

    def backward(self, kept: Tensor, g: Tensor) -> Tensor:
        """d loss / d x."""
        g = g.contiguous()
        out = torch.empty_like(g)
        i, p = ctypes.c_int64, ctypes.c_void_p
        loaded().nnac_lookup_backward(
            i(g.numel()),
            p(kept.data_ptr()),
            p(g.data_ptr()),
            i(self.odd),
            ctypes.c_float(self.ratio),
            i(self.least),
            i(self.most),
            p(out.data_ptr()),
        )
        return out


def words(entries: Tensor) -> Tensor:
    """A table's 513 entries as 512 words: each segment's value at its left end, and its rise in the upper half."""
    t = entries.to(torch.int32)
    return ((t[1:] - t[:-1]) << 16 | t[:-1]).contiguous()
