"""Exact integers on floating-point tensors: which carrier a product may use, and requantisation without a rounding
error.

Between the layers of the training module a value is a float32 tensor that holds integers, |x| < 2^24, so every one of
them is exact. Gradients are those of a function of these integers: d loss / d integer.  Scales are constants to them;
a learned clip gets its gradient where its value is made (`activation.learned`), since all that depends on it passes
there.

Straight-through, everywhere: rounding has slope one; saturation has slope zero outside the range.  Functions that
were tabulated have the slope of the smooth function at the quantised input.  Source: docs/methods.md §1; the masks
and carriers are our choice.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train import native, native_layers
from nnac.train.format import Format

EXACT_FLOAT32 = 1 << 24  # every integer up to here, and every partial sum of a product that stays below, is a float32
EXACT_FLOAT64 = 1 << 52        # one bit of head room below 2^53 for the half that rounding adds


# ------------------------------------------------------------------------------------------------------------ products

def int8_products(kind: str) -> bool:
    """Whether int8 x int8 -> int32 products are fast and exact on a device kind."""
    return kind == "cpu" and (native.multiplies() or _exact_in_torch())


@cache
def _exact_in_torch() -> bool:
    """Whether `torch._int_mm` is fast and exact on this processor.

    Only with the VNNI instructions: without them oneDNN goes through vpmaddubsw, which saturates the sum of two
    products at 16 bits.  That the processor has them is not enough (ONEDNN_MAX_CPU_ISA may forbid them): the largest
    products are tried.
    """
    capable = getattr(torch.cpu, "_is_vnni_supported", None) or getattr(
        torch._C._cpu, "_is_avx512_vnni_supported", None
    )
    if not hasattr(torch, "_int_mm") or not (capable and capable()):
        return False
    extremes = torch.tensor([-128, -127, 127], dtype=torch.int8)
    x = extremes[:, None].expand(3, 64).contiguous()
    # whichever way the matrix lies
    return all(torch.equal(torch._int_mm(x, w).double(), x.double() @ w.double())
               for w in (extremes[None].expand(64, 3).contiguous(), x.t()))


def int8_product(x: Tensor, matrix: Tensor, out: Tensor | None = None) -> Tensor:
    """``x @ matrix``, int8 [count, cols] and [cols, rows] -> int32, where `int8_products` says so."""
    if native.multiplies():
        return native.product(x.contiguous(), matrix, out)
    return torch._int_mm(plain(x), matrix) if out is None else torch._int_mm(plain(x), matrix, out=out)


def carrier(cols: int, x_bits: int, weight_bits: int, codes: Tensor) -> torch.dtype:
    """The narrowest type in which ``codes`` [rows, cols] times integers of ``x_bits`` bits are exact: int8, float32
    or float64.

    float32 by the width alone where cols * 2^(x_bits + weight_bits - 2) <= 2^24, else by the largest row's own sum of
    magnitudes. Where torch may round float32 operands to bfloat16 or TF32 (`torch.set_float32_matmul_precision`),
    only 8-bit integers stay exact.
    """
    if x_bits <= 8 and weight_bits <= 8 and int8_products(codes.device.type):
        return torch.int8
    if max(x_bits, weight_bits) > 8 and torch.get_float32_matmul_precision() != "highest":
        return torch.float64
    half = 1 << (x_bits - 1)
    if cols * (half << (weight_bits - 1)) <= EXACT_FLOAT32 or int(codes.abs().sum(1).max()) * half <= EXACT_FLOAT32:
        return torch.float32
    return torch.float64


def packed(codes: Tensor, x_bits: int, weight_bits: int, whole: bool = True) -> Tensor:
    """``codes`` [rows, cols] as the right-hand matrix [cols, rows] of `product`, in its carrier.

    ``whole`` False: the codes are between integers just now (GQ's soft phase), and only floats can carry them.
    """
    kind = carrier(codes.shape[1], x_bits, weight_bits, codes) if whole else torch.float32
    return plain(codes.to(torch.int8).t()) if kind == torch.int8 else codes.t().to(kind)


def plain(x: Tensor) -> Tensor:
    """A matrix with the strides (columns, 1) even where a dimension of one leaves them free: `torch._int_mm` on
    processors believes such strides and then returns uninitialised memory (pytorch issue 195066).
    """
    return x.contiguous().as_strided(x.shape, (x.shape[1], 1))


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix`` for integers; x [..., cols] of any type, matrix from `packed`.  int32, float32 or float64, exact
    in each.
    """
    flat = x.reshape(-1, x.shape[-1]).to(matrix.dtype)
    out = int8_product(flat, matrix) if matrix.dtype == torch.int8 else flat @ matrix
    return out.view(*x.shape[:-1], matrix.shape[1])


# ---------------------------------------------------------------------------------------------------- requantisation


def is_wide(reach: int, bias: int, multiplier: int) -> bool:
    """Whether accumulators up to ``reach`` with biases and multipliers up to these make products that no float64
    holds."""
    return (reach + bias) * multiplier >= EXACT_FLOAT64


@frozen(eq=False)
class Rescale(native.Scaling):
    """Requantisation of an accumulator, one multiplier and shift a row, with the bias inside: the constants of
    `arith.requantise`, those in float64 both exact; ``wide`` takes the int64 spelling.

    narrow           accumulators fit an int32, whatever carries them
    """

    narrow: bool = False

    @classmethod
    def of(
        cls, multiplier: Any, shift: Any, bias: Any, reach: int, zero_point: int, bits: int, device: torch.device
    ) -> Rescale:
        """From NumPy constants; ``reach`` is a bound of |accumulator| without the bias."""
        m, s, b = (np.asarray(v, np.int64) for v in (multiplier, shift, bias))
        wide = is_wide(reach, int(np.abs(b).max(initial=0)), int(m.max()))
        factor = arith.scale_of(m, s)

        def to(v: Any) -> Tensor:
            made = torch.from_numpy(np.ascontiguousarray(v))
            return made if device.type == "cpu" else made.to(device)

        return cls(to(factor), to(factor * b + 0.5), to(b), to(m), to(s), zero_point, bits, wide, reach < 1 << 31)

    def unlimited(self, acc: Tensor) -> Tensor:
        """The requantised integers before saturation, float64 (or int64)."""
        if self.wide:
            return arith.round_shift((acc.to(torch.int64) + self.bias) * self.multiplier, self.shift) + self.zero_point
        out = acc.to(torch.float64).mul_(self.factor).add_(self.offset).floor_()
        return out.add_(self.zero_point) if self.zero_point else out

    def __call__(self, acc: Tensor) -> tuple[Tensor, Tensor | None]:
        """(integers float32, which of them did not saturate, or None if none did)."""
        if (self.narrow or acc.dtype == torch.int32) and native.usable(acc):
            return native.requantise(acc.to(torch.int32), self)
        y, inside = limited(self.unlimited(acc), self.bits)
        return y.float(), inside


def limited(free: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """``free`` saturated, and which of it was not cut: None if nothing was, which spares the gradient a pass."""
    low, high = arith.limits(bits)
    if free.numel() == 0:
        return free, None
    least, most = torch.aminmax(free)
    if int(least) >= low and int(most) <= high:
        return free, None
    y = free.clamp(low, high)
    return y, y == free


def masked(g: Tensor, inside: Tensor | None) -> Tensor:
    """A gradient where nothing was cut."""
    return g if inside is None else g * inside


# -------------------------------------------------------------------------------------------- one layer, one function


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, form: Format) -> Tensor:
        free = (x.double() / form.scale + 0.5).floor_() + form.zero_point        # arith.quantise, in its own order
        y, inside = limited(free, form.bits)
        ctx.scale = form.scale
        ctx.save_for_backward(inside)
        return y.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return masked(g, ctx.saved_tensors[0]) / ctx.scale, None


def quantise(x: Tensor, form: Format) -> Tensor:
    """Real numbers to integers, as `arith.quantise`; the gradient passes where nothing saturated."""
    return _Quantise.apply(x, form)


def dequantise(x: Tensor, form: Format) -> Tensor:
    """Integers to real numbers, float32."""
    return (x - form.zero_point if form.zero_point else x) * form.scale


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codes: Tensor,
        bias: Tensor | None,
        acc_scale: Tensor,
        matrix: Tensor,
        rescale: Rescale,
        zero_point: int,
        scale: float,
        weight: Tensor | None,
        unit: Tensor | None,
    ) -> Tensor:
        y, inside = rescale(product(x, matrix))
        ctx.save_for_backward(x, codes, acc_scale, inside, unit)
        ctx.biased, ctx.zero_point, ctx.scale = bias is not None, zero_point, scale
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, codes, acc_scale, inside, unit = ctx.saved_tensors
        flat = x.flatten(0, -2)
        if native.usable(g, x, codes):
            scaled, total = native_layers.scaled(g, inside, 1.0 / ctx.scale, acc_scale)
            gx = (scaled @ codes).view_as(x) if ctx.needs_input_grad[0] else None
            slope = scaled.t() @ (flat - ctx.zero_point if ctx.zero_point else flat)
        else:
            g = (masked(g, inside) * (1.0 / ctx.scale)).flatten(0, -2)           # d loss / d real pre-activation
            gx = (g @ (codes * acc_scale[:, None])).view_as(x) if ctx.needs_input_grad[0] else None
            slope = (g.t() @ (flat - ctx.zero_point if ctx.zero_point else flat)).mul_(acc_scale[:, None])
            total = g.sum(0)
        by = (slope, None) if unit is None else (None, slope.div_(unit[:, None]))
        return gx, by[0], total if ctx.biased else None, None, None, None, None, None, by[1], None


def linear(
    x: Tensor,
    codes: Tensor,
    bias: Tensor | None,
    acc_scale: Tensor,
    matrix: Tensor,
    rescale: Rescale,
    zero_point: int,
    out: Format,
    weight: Tensor | None = None,
    unit: Tensor | None = None,
) -> Tensor:
    """``y = requantise(codes x + b)``, integers in and out.

    x [..., cols]    codes [rows, cols]    bias real [rows]    acc_scale [rows] real value of one accumulator unit
    matrix  `packed` codes       rescale   multipliers, shifts and the bias in integers
    zero_point  of x             out       the output's format
    weight, unit [rows]  where the codes are ``weight / unit`` rounded and have no gradient of their own: it is the
    weight's
    """
    return _Linear.apply(x, codes, bias, acc_scale, matrix, rescale, zero_point, out.scale, weight, unit)


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, slopes: tuple[float, float],
                rescales: tuple[Rescale, Rescale]) -> Tensor:
        ctx.shapes, ctx.slopes = (a.shape, b.shape), slopes
        if a.shape == b.shape and not any(r.wide for r in rescales) and native.usable(a, b):
            y, inside_a, inside_b = native.add(a, b, rescales)
            ctx.save_for_backward(None, inside_a, inside_b)
            return y
        (a, inside_a), (b, inside_b) = (r(v) for r, v in zip(rescales, (a, b), strict=True))
        if native_layers.broadcasts(a.shape, b.shape) and native.usable(a, b):
            y, inside = native_layers.broadcast_sum(a, b, rescales[0].bits)
            ctx.save_for_backward(inside, inside_a, inside_b)
            return y
        shape = torch.broadcast_shapes(a.shape, b.shape)
        total = torch.empty(shape, dtype=a.dtype, device=a.device)                   # contiguous, whatever a and b are
        y, inside = limited(torch.add(a, b, out=total), rescales[0].bits)
        ctx.save_for_backward(inside, inside_a, inside_b)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inside, inside_a, inside_b = ctx.saved_tensors
        if ctx.shapes == (g.shape, g.shape) and inside is None and inside_a is not None and inside_b is not None and (
                native.usable(g)):
            return *native_layers.passed(g, inside_a, inside_b, ctx.slopes), None, None
        to_a, to_b = ctx.shapes
        if to_a != to_b and native_layers.broadcasts(to_a, to_b) and native.usable(g):
            each = native_layers.broadcast_backward(g, inside, to_a, to_b)
        else:
            g = masked(g, inside)
            each = g.sum_to_size(to_a), g.sum_to_size(to_b)
        return (*(masked(own, mask) * slope for own, slope, mask in zip(each, ctx.slopes, (inside_a, inside_b),
                                                                        strict=True)), None, None)


def add(a: Tensor, b: Tensor, scales: tuple[float, float], rescales: tuple[Rescale, Rescale], out: Format) -> Tensor:
    """``sat(requantise(a) + requantise(b))``; a and b may broadcast, and are requantised before they do."""
    return _Add.apply(a, b, tuple(s / out.scale for s in scales), rescales)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, slope: float, rescale: Rescale) -> Tensor:
        y, inside = rescale(a.double() * b)
        ctx.save_for_backward(a, b, inside)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b, inside = ctx.saved_tensors
        g = masked(g, inside) * ctx.slope
        return (g * b).sum_to_size(a.shape), (g * a).sum_to_size(b.shape), None, None


def multiply(a: Tensor, b: Tensor, scales: tuple[float, float], rescale: Rescale, out: Format) -> Tensor:
    """``requantise(a b)``; a and b may broadcast."""
    return _Multiply.apply(a, b, scales[0] * scales[1] / out.scale, rescale)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Table | native.Lookup | native_layers.Gate) -> Tensor:
        y, kept = table.forward(x, ctx.needs_input_grad[0])
        ctx.save_for_backward(*kept)
        ctx.table = table
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.table.backward(*ctx.saved_tensors, g), None


@frozen(eq=False)
class Table:
    """A table and the requantisation behind it as one gather: ``outputs`` and ``slopes`` float32 [65536], indexed by
    x + 32768.
    """

    outputs: Tensor
    slopes: Tensor

    def _at(self, x: Tensor) -> Tensor:
        return (x.contiguous() + 32768).to(torch.int32).view(-1)

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor]]:
        """(the integers; for the gradient x)."""
        if native.usable(x):
            return native.gather(x, self.outputs), (x,)
        return torch.index_select(self.outputs, 0, self._at(x)).view(x.shape), (x,)

    def backward(self, x: Tensor, g: Tensor) -> Tensor:
        if native.usable(x, g):
            return native.gather(x, self.slopes, g)
        return g * torch.index_select(self.slopes, 0, self._at(x)).view(x.shape)


def table(
    constants: dict[str, Any], symmetry: str, x: Format, out: Format, device: torch.device,
    derivative: np.ndarray | None = None,
) -> Table | native.Lookup:
    """The lookup of `bind.lookup`'s constants, for `lookup`.

    derivative  real [65536], of what stands for x + 32768; else that of a sigmoid or a tanh, y (1 - y) or 1 - y^2 of
                the table's own output y: none where the output is cut
    """
    full = torch.as_tensor(arith.Table("", constants["table"], symmetry).full().astype(np.int64))
    m, s = int(constants["multiplier"]), int(constants["shift"])
    free = arith.round_shift(full * m, s) + out.zero_point
    y = free.clamp(*out.limits)
    uncut, ratio = y == free, x.scale / out.scale
    if derivative is None and device.type == "cpu" and native.library() is not None and bool(uncut.any()):
        kept = full[uncut]
        return native.Lookup(
            native.words(torch.as_tensor(constants["table"])),
            symmetry == "odd",
            m,
            s,
            out.zero_point,
            *out.limits,
            int(kept.min()),
            int(kept.max()),
            ratio,
        )
    t = full.double() / (1 << arith.UNIT_FRACTION)
    own = 1 - t * t if symmetry == "odd" else t * (1 - t)
    slope = (own if derivative is None else torch.as_tensor(derivative)) * uncut * ratio
    return Table(y.float().to(device), slope.float().to(device))


def lookup(x: Tensor, by: Table | native.Lookup | native_layers.Gate) -> Tensor:
    """A table and requantisation, of x integers of 16 bits; or a gate."""
    return _Lookup.apply(x, by)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, c: dict[str, Tensor] | native.Norm, epsilon: float,
        form: Format,
    ) -> Tensor:
        if isinstance(c, native.Norm):
            y, inside = native.layer_norm(x, c, form.zero_point, form.bits)
        else:
            free = arith.layer_norm(
                x.to(torch.int64),
                c["gain"],
                c["bias"],
                c["epsilon"],
                c["root_width"],
                c["rsqrt"],
                c["multiplier"],
                c["shift"],
                form.zero_point,
                32,
            )
            y, inside = limited(free, form.bits)
        ctx.save_for_backward(x, gain, bias, inside)
        ctx.epsilon, ctx.scale = epsilon, form.scale
        return y.float()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, bias, inside = ctx.saved_tensors
        if native.usable(x, g, gain):
            found = native_layers.layer_norm_backward(x, g, inside, 1.0 / ctx.scale, gain, ctx.epsilon)
            return *found, None, None, None
        g = masked(g, inside) * (1.0 / ctx.scale)
        shape = (x.shape[-1],)
        _, mean, deviation = torch.native_layer_norm(x, shape, gain, bias, ctx.epsilon)
        gx, g_gain, g_bias = torch.ops.aten.native_layer_norm_backward(
            g, x, shape, mean, deviation, gain, bias, [True, True, True]
        )
        return gx, g_gain, g_bias, None, None, None


def layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, constants: dict[str, Tensor] | native.Norm, epsilon: float, out: Format
) -> Tensor:
    """`arith.layer_norm` forward; backward that of the real layer norm of the integers.  ``epsilon`` in units of x
    squared; constants int64, or as the native function takes them.
    """
    return _LayerNorm.apply(x, gain, bias, constants, epsilon, out)
