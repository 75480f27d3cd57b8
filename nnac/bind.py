"""Binding: integer weights, real scales and real biases become the integer constants of a node.  One definition for all who bind.

Everything is NumPy float64 in, int64 (or the storage type) out.  ``codes`` are integer weights; ``scale`` the real value of one code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac import arith

Constants = dict[str, NDArray]


def _bias(bias: NDArray | None, scale: NDArray, rows: int) -> NDArray:
    """A real bias in accumulator units, rounded half up and limited to 31 bits so that the accumulator keeps its head room."""
    if bias is None:
        return np.zeros(rows, np.int64)
    return np.clip(np.floor(np.asarray(bias, np.float64) / scale + 0.5), -(1 << 30), (1 << 30) - 1).astype(np.int64)


def storage(codes: NDArray, bits: int = 8) -> NDArray:
    """Integer weights in their container type; AssertionError if they do not fit."""
    low, high = arith.limits(bits)
    codes = np.asarray(codes)
    assert codes.min(initial=0) >= low and codes.max(initial=0) <= high, f"codes {codes.min()}…{codes.max()} do not fit int{bits}"
    return codes.astype(np.int8 if bits <= 8 else np.int16)


def linear(codes: NDArray, scale: NDArray, bias: NDArray | None, in_scale: float, in_zero: int, out_scale: float, *,
           bits: int = 8, wide: bool = False) -> Constants:
    """Constants of a linear node.  codes [rows, cols], scale [rows] or scalar.  ``wide``: 48-bit accumulator, 15-bit multiplier."""
    rows = codes.shape[0]
    acc_scale = np.broadcast_to(np.asarray(scale, np.float64) * in_scale, (rows,))
    m, s = arith.multiplier_and_shift(acc_scale / out_scale, arith.WIDE_MULTIPLIER_BITS if wide else arith.MULTIPLIER_BITS)
    b = _bias(bias, acc_scale, rows) - in_zero * np.asarray(codes, np.int64).sum(1)
    return dict(weight=storage(codes, bits), bias=b, multiplier=m, shift=s)


def hidden(hidden_scale: float) -> Constants:
    """Requantisation of ``o tanh(c')`` (Q0.30) to the hidden format."""
    m, s = arith.multiplier_and_shift(np.float64(2.0 ** (-2 * arith.UNIT_FRACTION) / hidden_scale))
    return dict(hidden_multiplier=np.asarray(m), hidden_shift=np.asarray(s))


def lstm_acc32(input_codes: NDArray, recurrent_codes: NDArray, acc_scale: NDArray, bias: NDArray, in_zero: int,
               hidden_scale: float) -> Constants:
    """Constants of an ``acc32`` direction; ``acc_scale`` [4H] is the real value of one accumulator unit, shared by both products."""
    rows = input_codes.shape[0]
    acc_scale = np.broadcast_to(np.asarray(acc_scale, np.float64), (rows,))
    m, s = arith.multiplier_and_shift(acc_scale * (1 << arith.PRE_FRACTION))
    b = _bias(bias, acc_scale, rows) - in_zero * np.asarray(input_codes, np.int64).sum(1)
    return dict(input=storage(input_codes), recurrent=storage(recurrent_codes), bias=b, multiplier=m, shift=s) | hidden(hidden_scale)


def lstm_sum16(input_codes: NDArray, input_scale: NDArray, recurrent_codes: NDArray, recurrent_scale: NDArray, bias: NDArray,
               in_scale: float, in_zero: int, hidden_scale: float) -> Constants:
    """Constants of a ``sum16`` direction: each kernel has its own row scales ([4H] or scalar)."""
    rows = input_codes.shape[0]
    x = np.broadcast_to(np.asarray(input_scale, np.float64) * in_scale, (rows,))
    h = np.broadcast_to(np.asarray(recurrent_scale, np.float64) * hidden_scale, (rows,))
    mx, sx = arith.multiplier_and_shift(x * (1 << arith.PRE_FRACTION))
    mh, sh = arith.multiplier_and_shift(h * (1 << arith.PRE_FRACTION))
    b = _bias(bias, x, rows) - in_zero * np.asarray(input_codes, np.int64).sum(1)
    return dict(input=storage(input_codes), recurrent=storage(recurrent_codes), bias=b, input_multiplier=mx, input_shift=sx,
                recurrent_multiplier=mh, recurrent_shift=sh) | hidden(hidden_scale)


def lstm_tables(fraction: int) -> Constants:
    """The three tables of an LSTM node whose cell has ``fraction`` fraction bits."""
    return dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries, tanh_cell=arith.tanh_table(fraction).entries)


def layer_norm(gain: NDArray, bias: NDArray, epsilon: float, in_scale: float, out_scale: float) -> Constants:
    """Constants of a layer-norm node; gain and bias real [C].  The gain is int16 with the scale of its largest value."""
    width = len(gain)
    gain, bias = np.asarray(gain, np.float64), np.asarray(bias, np.float64)
    gain_scale = max(float(np.abs(gain).max()), 1e-6) / 32767
    unit = gain_scale * 2.0**-arith.PRE_FRACTION
    m, s = arith.multiplier_and_shift(np.float64(unit / out_scale), arith.MULTIPLIER_BITS)
    return dict(gain=np.floor(gain / gain_scale + 0.5).astype(np.int16), bias=_bias(bias, np.float64(unit), width),
                epsilon=np.asarray(max(1, math.floor(epsilon * width**3 / in_scale**2 + 0.5)), np.int64),
                root_width=np.asarray(round(math.sqrt(width) * 256), np.int64), rsqrt=arith.rsqrt_table().astype(np.int32),
                multiplier=np.asarray(m), shift=np.asarray(s))


def add(scales: tuple[float, float], out_scale: float) -> Constants:
    """Constants of an add node."""
    m, s = arith.multiplier_and_shift(np.asarray(scales, np.float64) / out_scale)
    return dict(multiplier=m, shift=s)


def multiply(scales: tuple[float, float], out_scale: float) -> Constants:
    """Constants of a multiply node."""
    m, s = arith.multiplier_and_shift(np.float64(scales[0] * scales[1] / out_scale))
    return dict(multiplier=np.asarray(m), shift=np.asarray(s))


def lookup(function: str, out_scale: float) -> Constants:
    """Constants of a lookup node: the table, and Q0.15 to the output's scale."""
    m, s = arith.multiplier_and_shift(np.float64(2.0**-arith.UNIT_FRACTION / out_scale))
    table: Any = dict(tanh=arith.tanh_table, sigmoid=arith.sigmoid_table)[function]()
    return dict(table=table.entries, multiplier=np.asarray(m), shift=np.asarray(s))
