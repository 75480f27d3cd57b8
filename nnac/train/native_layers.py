"""What a Conformer has besides products, by the native library: gates, gradients behind products and norms, sums that
broadcast, depthwise convolution, scores and weighted sums of attention (`native_layers.c`).

Everything here is a float32 tensor that holds integers, or a gradient.  The integers are those of `nnac.arith`; the
gradients those of the PyTorch spelling, added in one order: the same bits on every processor.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from nnac import arith
from nnac.train.native import Scaling, loaded


def _whole(n: int) -> ctypes.c_int64:
    return ctypes.c_int64(n)


def _at(t: Tensor | None) -> ctypes.c_void_p:
    assert t is None or t.is_contiguous()
    return ctypes.c_void_p(None if t is None else t.data_ptr())


def scaled(g: Tensor, inside: Tensor | None, inverse: float, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A gradient [..., cols] where nothing was cut, times ``inverse``: (times ``factor`` [cols] [count, cols], its own
    sum [cols])."""
    g = g.contiguous()
    cols = g.shape[-1]
    out, total = torch.empty(g.numel() // max(cols, 1), cols), torch.zeros(cols)
    loaded().nnac_scaled(_whole(len(out)), _whole(cols), _at(g), _at(inside), ctypes.c_float(inverse),
                         _at(None if factor is None else factor.contiguous()), _at(out), _at(total))
    return out, total


def passed(g: Tensor, pass_a: Tensor, pass_b: Tensor, slopes: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A gradient of sums, of both terms: where they pass, times their slopes."""
    g = g.contiguous()
    out_a, out_b = torch.empty_like(g), torch.empty_like(g)
    loaded().nnac_passed(_whole(g.numel()), _at(g), _at(pass_a), _at(pass_b), *map(ctypes.c_float, slopes), _at(out_a),
                         _at(out_b))
    return out_a, out_b


class _Broadcast(ctypes.Structure):
    _fields_ = [*((n, ctypes.c_int64 * 3) for n in ("sizes", "of_a", "of_b")), ("width", ctypes.c_int64)]

    @classmethod
    def of(cls, a: torch.Size, b: torch.Size) -> _Broadcast:
        """Of two contiguous tensors of these shapes, of at most four dimensions and one width."""
        def strides(shape: torch.Size) -> tuple[int, ...]:
            of, step = [0, 0, 0], shape[-1]
            for i, n in enumerate(reversed(shape[:-1])):
                of[2 - i], step = step if n > 1 else 0, step * n
            return tuple(of)

        whole, each = torch.broadcast_shapes(a, b), ctypes.c_int64 * 3
        return cls(each(*(1,) * (4 - len(whole)), *whole[:-1]), each(*strides(a)), each(*strides(b)), whole[-1])


def broadcasts(a: torch.Size, b: torch.Size) -> bool:
    """Whether `broadcast_sum` takes tensors of these shapes."""
    return 1 <= min(len(a), len(b)) <= max(len(a), len(b)) <= 4 and a[-1] == b[-1]


def broadcast_sum(a: Tensor, b: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """``sat(a + b)`` of floats that hold integers, below 2^23 each: (integers float32, where nothing was cut, or None
    if nothing was)."""
    a, b, shape = a.contiguous(), b.contiguous(), torch.broadcast_shapes(a.shape, b.shape)
    out, inside = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    n = loaded().nnac_broadcast(ctypes.byref(_Broadcast.of(a.shape, b.shape)), _at(a), _at(b),
                                *map(_whole, arith.limits(bits)), _at(out), _at(inside))
    return out, inside if n else None


def broadcast_backward(g: Tensor, inside: Tensor | None, a: torch.Size, b: torch.Size) -> tuple[Tensor, Tensor]:
    """A gradient of `broadcast_sum` -> those of a and b, of these shapes."""
    g, to_a, to_b = g.contiguous(), torch.zeros(a), torch.zeros(b)
    loaded().nnac_broadcast_backward(ctypes.byref(_Broadcast.of(a, b)), _at(g), _at(inside), _at(to_a), _at(to_b))
    return to_a, to_b


def layer_norm_backward(x: Tensor, g: Tensor, inside: Tensor | None, inverse: float, gain: Tensor,
                        epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the real layer norm of the integers x [..., width]: of x, gain and bias."""
    x, g, width = x.contiguous(), g.contiguous(), x.shape[-1]
    out, to_gain, to_bias = torch.empty_like(x), torch.zeros(width), torch.zeros(width)
    loaded().nnac_layer_norm_backward(_whole(x.numel() // width), _whole(width), _at(x), _at(g), _at(inside),
                                      ctypes.c_float(inverse), _at(gain.contiguous()), ctypes.c_double(epsilon),
                                      _at(out), _at(to_gain), _at(to_bias))
    return out, to_gain, to_bias


@frozen(eq=False)
class Gate:
    """``requantise(a f(b))``: the halves of one vector, or both the whole of it (``width`` is that of x).

    words  int32 [512], see native.c      slope  a's scale over the output's      unit  b's scale
    """

    words: Tensor
    multiplier: int
    shift: int
    zero_point: int
    bits: int
    width: int
    slope: float
    unit: float

    def _start(self, x: Tensor) -> list[Any]:
        """The arguments both functions begin with: shapes, and where a and b are."""
        pitch = x.shape[-1]
        second = ctypes.c_void_p(x.data_ptr() + 4 * (pitch - self.width))
        return [_whole(x.numel() // pitch), _whole(self.width), _whole(pitch), _at(x), second]

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """x [..., width or twice the width]: integers of 16 bits -> (integers [..., width]; for the gradient x, and
        f(b) in Q0.15, int16, 0 where the output was cut)."""
        x = x.contiguous()
        shape = (*x.shape[:-1], self.width)
        out, kept = torch.empty(shape), torch.empty(shape, dtype=torch.int16) if keep else None
        numbers = (self.multiplier, self.shift, self.zero_point, *arith.limits(self.bits))
        loaded().nnac_gate(*self._start(x), _at(self.words), *map(_whole, numbers), _at(out), _at(kept))
        return out, (x, kept)

    def backward(self, x: Tensor, kept: Tensor, g: Tensor) -> Tensor:
        """d loss / d x."""
        x, g = x.contiguous(), g.contiguous()
        out = torch.empty_like(x)
        loaded().nnac_gate_backward(*self._start(x)[:4], _at(kept), _at(g), ctypes.c_float(self.slope),
                                    ctypes.c_float(self.unit), _at(out))
        return out


def depthwise(past: Tensor, weight: Tensor, by: Scaling) -> tuple[Tensor, Tensor | None]:
    """past [taps - 1 + T, B, channels], weight [taps, channels], constants [channels] -> integers [T, B, channels], and
    which of them were not cut (None if none was)."""
    past, weight = past.contiguous(), weight.contiguous()
    taps, channels = weight.shape
    shape = (len(past) - taps + 1, past.shape[1], channels)
    out, inside = torch.empty(shape), torch.empty(shape, dtype=torch.bool)
    constants = [v.expand(channels).contiguous() for v in by.constants]
    n = loaded().nnac_depthwise(*map(_whole, (*shape, taps)), _at(past), _at(weight),
                                *map(_at, (None, None, *constants) if by.wide else (*constants, None, None, None)),
                                *map(_whole, (by.zero_point, *arith.limits(by.bits))), _at(out), _at(inside))
    return out, inside if n else None


def depthwise_backward(past: Tensor, weight: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients g [T, B, channels] of the sums -> of past and of weight [taps, channels]."""
    past, weight, g = past.contiguous(), weight.contiguous(), g.contiguous()
    to_past, to_weight = torch.zeros_like(past), torch.zeros_like(weight)
    loaded().nnac_depthwise_backward(*map(_whole, (*g.shape, len(weight))), _at(past), _at(weight), _at(g),
                                     _at(to_past), _at(to_weight))
    return to_past, to_weight


class _Shape(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("steps", "batch", "heads", "head", "chunk", "rows")]


@frozen
class Attention:
    """Shapes: queries [steps * chunk, B, heads * head], keys and values [rows + (steps - 1) * chunk, B, heads *
    head]."""

    heads: int
    head: int
    chunk: int
    rows: int

    def _shape(self, x: Tensor) -> tuple[_Shape, Tensor]:
        """Of x [steps * chunk, B, ·], and the scratch that is needed."""
        shape = _Shape(len(x) // self.chunk, x.shape[1], self.heads, self.head, self.chunk, self.rows)
        return shape, torch.empty(loaded().nnac_attention_scratch(ctypes.byref(shape)))

    def scores(self, q: Tensor, k: Tensor, bias: Tensor, first: Tensor, by: Scaling) -> tuple[Tensor, Tensor]:
        """bias int32 [heads, chunk, rows], first int64 [steps, B]: the oldest row that was written -> scores [T, B,
        heads * rows], and where their gradient passes."""
        q, k = q.contiguous(), k.contiguous()
        shape, scratch = self._shape(q)
        size = (*q.shape[:2], self.heads * self.rows)
        y, inside = torch.empty(size), torch.empty(size, dtype=torch.bool)
        absent = -float(1 << arith.SCORE_BITS)
        loaded().nnac_scores(ctypes.byref(shape), _at(q), _at(k), _at(bias.contiguous()), _at(first.contiguous()),
                             ctypes.c_double(0.0 if by.wide else float(by.factor)),
                             *map(_whole, (int(by.multiplier), int(by.shift), *arith.limits(arith.SCORE_BITS))),
                             ctypes.c_float(absent), _at(scratch), _at(y), _at(inside))
        return y, inside

    def scores_backward(self, q: Tensor, k: Tensor, g: Tensor, inside: Tensor,
                        unit: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients g of the scores -> of queries, of keys, and of the sums' bias [heads, chunk, rows]; ``unit``: of a
        product over that of a score."""
        q, k, g = q.contiguous(), k.contiguous(), g.contiguous()
        shape, scratch = self._shape(q)
        to_q, to_k, to_bias = torch.empty_like(q), torch.zeros_like(k), torch.zeros(self.heads, self.chunk, self.rows)
        loaded().nnac_scores_backward(ctypes.byref(shape), _at(q), _at(k), _at(g), _at(inside), ctypes.c_float(unit),
                                      _at(scratch), _at(to_q), _at(to_k), _at(to_bias))
        return to_q, to_k, to_bias

    def weighted_sum(self, p: Tensor, v: Tensor, by: Scaling) -> tuple[Tensor, Tensor | None]:
        """p [T, B, heads * rows] -> integers [T, B, heads * head], and which of them were not cut (None if none was);
        sums stay below 2^24, so no scaling is wide."""
        p, v = p.contiguous(), v.contiguous()
        shape, _ = self._shape(p)
        size = (*p.shape[:2], self.heads * self.head)
        y, inside = torch.empty(size), torch.empty(size, dtype=torch.bool)
        n = loaded().nnac_weighted_sum(ctypes.byref(shape), _at(p), _at(v), ctypes.c_double(float(by.factor)),
                                       *map(_whole, arith.limits(by.bits)), _at(y), _at(inside))
        return y, inside if n else None

    def weighted_sum_backward(self, p: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients g of the sums -> of p and of v."""
        p, v, g = p.contiguous(), v.contiguous(), g.contiguous()
        shape, scratch = self._shape(p)
        to_p, to_v = torch.empty_like(p), torch.zeros_like(v)
        loaded().nnac_weighted_sum_backward(ctypes.byref(shape), _at(p), _at(v), _at(g), _at(scratch), _at(to_p),
                                            _at(to_v))
        return to_p, to_v
