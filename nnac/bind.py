"""Binding: integer weights, real scales and real biases become the integer constants of a node.  One definition for all
who bind.

Everything is NumPy float64 in, int64 (or the storage type) out.  ``codes`` are integer weights; ``scale`` the real
value of one code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnac import arith, formats
from nnac.ops.mean import units

Constants = dict[str, NDArray]


def bias_limit(wide: bool) -> int:
    """The greatest bias, in accumulator units: half of what an accumulator of 32 bits (``wide``: 48) holds, so that it
    keeps its head room."""
    return 1 << (46 if wide else 30)


def _bias(bias: NDArray | None, scale: Any, rows: int, wide: bool = False) -> NDArray:
    """A real bias in accumulator units, rounded half up.  ValueError: one that is no number, or beyond `bias_limit`."""
    if bias is None:
        return np.zeros(rows, np.int64)
    units, limit = np.floor(np.asarray(bias, np.float64) / scale + 0.5), bias_limit(wide)
    if not units.size or -limit <= units.min() <= units.max() < limit:
        return units.astype(np.int64)
    if np.isnan(units).any():
        raise ValueError(f"the bias of row {int(np.isnan(units).argmax())} is not a number")
    row = int(np.argmax((units < -limit) | (units >= limit)))
    raise ValueError(f"the bias of row {row} is {abs(units.flat[row]):.3g} accumulator units, more than {limit:.3g}")


def storage(codes: NDArray, bits: int = 8) -> NDArray:
    """Integer weights in their container type; AssertionError if they do not fit."""
    low, high = arith.limits(bits)
    codes = np.asarray(codes)
    assert codes.min(initial=0) >= low and codes.max(initial=0) <= high, (f"codes {codes.min()}…{codes.max()} do not "
                                                                          f"fit int{bits}")
    return codes.astype(np.int8 if bits <= 8 else np.int16)


def linear_scales(rows: int, scale: Any, bias: NDArray | None, in_scale: float, in_zero: int, out_scale: float,
                  sums: NDArray | int = 0, *,
                  wide: bool = False) -> Constants:
    """What `linear` says about everything but the weights.  ``sums`` [rows] are the row sums of the codes, read only if
    ``in_zero`` is not 0.

    The training module calls this at every step, so it does not touch the weights.
    """
    acc_scale = np.broadcast_to(np.asarray(scale, np.float64) * in_scale, (rows,))
    m, s = arith.multiplier_and_shift(acc_scale / out_scale, arith.WIDE_MULTIPLIER_BITS if wide
                                      else arith.MULTIPLIER_BITS)
    return dict(bias=_bias(bias, acc_scale, rows, wide) - _folded(in_zero, sums), multiplier=m, shift=s)


def _folded(in_zero: int, sums: Any) -> NDArray | int:
    """The input's zero point, folded into the bias: ``in_zero * sum of the row's codes``."""
    return in_zero * np.asarray(sums).astype(np.int64) if in_zero else 0


def linear(codes: NDArray, scale: NDArray, bias: NDArray | None, in_scale: float, in_zero: int, out_scale: float, *,
           bits: int = 8, wide: bool = False) -> Constants:
    """Constants of a linear node.  codes [rows, cols], scale [rows] or scalar.  ``wide``: 48-bit accumulator, 15-bit
    multiplier."""
    return dict(weight=storage(codes, bits)) | linear_scales(codes.shape[0], scale, bias, in_scale, in_zero, out_scale,
                                                             _sums(codes), wide=wide)


def _sums(codes: NDArray) -> NDArray:
    return np.asarray(codes, np.int64).sum(1)


def hidden(hidden_scale: float) -> Constants:
    """Requantisation of ``o tanh(c')`` (Q0.30) to the hidden format."""
    m, s = arith.multiplier_and_shift(np.float64(2.0 ** (-2 * arith.UNIT_FRACTION) / hidden_scale))
    return dict(hidden_multiplier=np.asarray(m), hidden_shift=np.asarray(s))


def lstm_acc32_scales(rows: int, acc_scale: Any, bias: NDArray, in_zero: int, hidden_scale: float,
                      sums: NDArray | int = 0) -> Constants:
    """What `lstm_acc32` says about everything but the weights; ``sums`` as in `linear_scales`, of the input kernel."""
    acc_scale = np.broadcast_to(np.asarray(acc_scale, np.float64), (rows,))
    m, s = arith.multiplier_and_shift(acc_scale * (1 << arith.PRE_FRACTION))
    return dict(bias=_bias(bias, acc_scale, rows) - _folded(in_zero, sums), multiplier=m,
                shift=s) | hidden(hidden_scale)


def lstm_acc32(input_codes: NDArray, recurrent_codes: NDArray, acc_scale: NDArray, bias: NDArray, in_zero: int,
               hidden_scale: float) -> Constants:
    """Constants of an ``acc32`` direction; ``acc_scale`` [4H] is the real value of one accumulator unit, shared by both
    products."""
    return dict(input=storage(input_codes), recurrent=storage(recurrent_codes)) | lstm_acc32_scales(
        input_codes.shape[0], acc_scale, bias, in_zero, hidden_scale, _sums(input_codes))


def lstm_sum16_scales(rows: int, input_scale: Any, recurrent_scale: Any, bias: NDArray, in_scale: float, in_zero: int,
                      feedback_scale: float,
                      hidden_scale: float, sums: NDArray | int = 0) -> Constants:
    """What `lstm_sum16` says about everything but the weights.

    ``feedback_scale`` is that of the vector the recurrent kernel reads: the hidden state, or its projection.
    """
    x = np.broadcast_to(np.asarray(input_scale, np.float64) * in_scale, (rows,))
    h = np.broadcast_to(np.asarray(recurrent_scale, np.float64) * feedback_scale, (rows,))
    mx, sx = arith.multiplier_and_shift(x * (1 << arith.PRE_FRACTION))
    mh, sh = arith.multiplier_and_shift(h * (1 << arith.PRE_FRACTION))
    return dict(bias=_bias(bias, x, rows) - _folded(in_zero, sums), input_multiplier=mx, input_shift=sx,
                recurrent_multiplier=mh,
                recurrent_shift=sh) | hidden(hidden_scale)


def lstm_sum16(input_codes: NDArray, input_scale: NDArray, recurrent_codes: NDArray, recurrent_scale: NDArray,
               bias: NDArray,
               in_scale: float, in_zero: int, hidden_scale: float) -> Constants:
    """Constants of a ``sum16`` direction: each kernel has its own row scales ([4H] or scalar)."""
    return dict(input=storage(input_codes), recurrent=storage(recurrent_codes)) | lstm_sum16_scales(
        input_codes.shape[0], input_scale, recurrent_scale, bias, in_scale, in_zero, hidden_scale, hidden_scale,
        _sums(input_codes))


def separate_scales(rows: tuple[int, int], input_scale: Any, recurrent_scale: Any, bias: NDArray,
                    recurrent_bias: NDArray | None, in_scale: float, in_zero: int, hidden_scale: float,
                    sums: NDArray | int = 0,
                    fractions: tuple[int, int] = (arith.PRE_FRACTION, arith.PRE_FRACTION)) -> Constants:
    """Two products, of so many rows, each requantised by itself to so many fraction bits, the recurrent one with a bias
    of its own or none: GRU, variants of the LSTM."""
    x = np.broadcast_to(np.asarray(input_scale, np.float64) * in_scale, (rows[0],))
    h = np.broadcast_to(np.asarray(recurrent_scale, np.float64) * hidden_scale, (rows[1],))
    mx, sx = arith.multiplier_and_shift(x * (1 << fractions[0]))
    mh, sh = arith.multiplier_and_shift(h * (1 << fractions[1]))
    out = dict(bias=_bias(bias, x, rows[0]) - _folded(in_zero, sums), input_multiplier=mx, input_shift=sx,
               recurrent_multiplier=mh, recurrent_shift=sh)
    return out if recurrent_bias is None else out | dict(recurrent_bias=_bias(recurrent_bias, h, rows[1]))


def blend(hidden_scale: float) -> Constants:
    """Requantisation of a GRU's blend (Q0.15) to the hidden format."""
    m, s = arith.multiplier_and_shift(np.float64(2.0**-arith.UNIT_FRACTION / hidden_scale))
    return dict(hidden_multiplier=np.asarray(m), hidden_shift=np.asarray(s))


def gate_norm(gain: NDArray, bias: NDArray, epsilon: float) -> Constants:
    """Constants of layer norm inside the gates; gain and bias real [4, H]."""
    unit = 2.0**-arith.PRE_FRACTION
    gates = [layer_norm(g, b, epsilon, unit, unit) for g, b in zip(gain, bias, strict=True)]
    return dict(gate_gain=np.concatenate([g["gain"] for g in gates]),
                gate_bias=np.concatenate([g["bias"] for g in gates]),
                gate_multiplier=np.stack([g["multiplier"] for g in gates]),
                gate_shift=np.stack([g["shift"] for g in gates]),
                gate_epsilon=gates[0]["epsilon"], gate_root_width=gates[0]["root_width"], rsqrt=gates[0]["rsqrt"])


def log_softmax(in_scale: float) -> Constants:
    """Constants of a log-softmax node."""
    m, s = arith.multiplier_and_shift(np.float64(in_scale * (1 << arith.LOG_FRACTION)))
    return dict(exp=arith.exp_table().entries, log=arith.log_table().astype(np.int16), multiplier=np.asarray(m),
                shift=np.asarray(s))


def lstm_tables(fraction: int) -> Constants:
    """The three tables of an LSTM node whose cell has ``fraction`` fraction bits."""
    return dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries,
                tanh_cell=arith.tanh_table(fraction).entries)


def layer_norm(gain: NDArray, bias: NDArray, epsilon: float, in_scale: float, out_scale: float) -> Constants:
    """Constants of a layer-norm node; gain and bias real [C].  The gain is int16 with the scale of its largest
    value."""
    width = len(gain)
    gain, bias = np.asarray(gain, np.float64), np.asarray(bias, np.float64)
    # a gain tiny beside its bias takes a coarser scale, so that the bias fits the sums uncut
    gain_scale = max(float(np.abs(gain).max()) / 32767, 1e-6 / 32767,
                     float(np.abs(bias).max()) * 2.0**arith.PRE_FRACTION / (bias_limit(False) - 1))
    unit = gain_scale * 2.0**-arith.PRE_FRACTION
    m, s = arith.multiplier_and_shift(np.float64(unit / out_scale), arith.MULTIPLIER_BITS)
    return dict(gain=np.floor(gain / gain_scale + 0.5).astype(np.int16), bias=_bias(bias, np.float64(unit), width),
                epsilon=np.asarray(norm_epsilon(epsilon, width, in_scale), np.int64),
                root_width=np.asarray(norm_root(width), np.int64),
                rsqrt=arith.rsqrt_table().astype(np.int32),
                multiplier=np.asarray(m), shift=np.asarray(s))


def norm_epsilon(epsilon: float, width: int, in_scale: float) -> int:
    """What a layer norm adds to the sum of squares."""
    return max(1, math.floor(epsilon * width**3 / in_scale**2 + 0.5))


def norm_root(width: int) -> int:
    """The root of a layer norm's width, in 1/256."""
    return round(math.sqrt(width) * 256)


def rms_norm(gain: NDArray, epsilon: float, in_scale: float, out_scale: float) -> Constants:
    """Constants of a norm by the root mean square; gain real [C]."""
    made = layer_norm(gain, np.zeros(len(gain)), epsilon, in_scale, out_scale)
    del made["bias"]
    return made


def add(scales: tuple[float, float], out_scale: float, factor: float = 1.0) -> Constants:
    """Constants of an add node, of a value and ``factor`` times another."""
    m, s = arith.multiplier_and_shift(np.asarray((scales[0], scales[1] * factor), np.float64) / out_scale)
    return dict(multiplier=m, shift=s)


def scale(in_scale: float, factor: float, out_scale: float) -> Constants:
    """Constants of a scale node."""
    m, s = arith.multiplier_and_shift(np.float64(in_scale * factor / out_scale))
    return dict(multiplier=np.asarray(m), shift=np.asarray(s))


def multiply(scales: tuple[float, float], out_scale: float) -> Constants:
    """Constants of a multiply node."""
    m, s = arith.multiplier_and_shift(np.float64(scales[0] * scales[1] / out_scale))
    return dict(multiplier=np.asarray(m), shift=np.asarray(s))


def mean(length: int, in_scale: float, out_scale: float) -> Constants:
    """Constants of a mean over time: one over each count, and the product's scale to the output's; see
    `nnac.ops.mean`."""
    of_one = units(length)
    counts = np.arange(arith.SEGMENTS + 1).clip(1)
    m, s = arith.multiplier_and_shift(np.float64(in_scale / of_one / out_scale))
    return dict(table=np.floor(of_one / counts + 0.5).astype(np.int16), multiplier=np.asarray(m), shift=np.asarray(s))


def lookup(table: arith.Table, out_scale: float) -> Constants:
    """Constants of a table's node: the table, and Q0.15 to the output's scale."""
    m, s = arith.multiplier_and_shift(np.float64(2.0**-arith.UNIT_FRACTION / out_scale))
    return dict(table=table.entries, multiplier=np.asarray(m), shift=np.asarray(s))


def gate(out_scale: float, table: arith.Table | None = None) -> Constants:
    """Constants of a node that weighs by a table, the sigmoid if none is given: Q3.12 times Q0.15 to the output's
    scale."""
    m, s = arith.multiplier_and_shift(np.float64(2.0**-(arith.PRE_FRACTION + arith.UNIT_FRACTION) / out_scale))
    return dict(table=(table or arith.sigmoid_table()).entries, multiplier=np.asarray(m), shift=np.asarray(s))


def relu(in_scale: float, slope: float, out_scale: float) -> Constants:
    """Constants of a ReLU node: the input's scale times Q0.15 to the output's; see `nnac.ops.relu`."""
    step = min(int(np.floor((1 << arith.UNIT_FRACTION) / (1.0 + slope) + 0.5)), (1 << arith.UNIT_FRACTION) - 1)
    m, s = arith.multiplier_and_shift(np.float64(in_scale * (1.0 + slope) * 2.0**-arith.UNIT_FRACTION / out_scale))
    return dict(table=np.full(arith.SEGMENTS + 1, step, np.int16), multiplier=np.asarray(m), shift=np.asarray(s))


def scores(position: NDArray, scales: tuple[float, float], head: int, rows: int, chunk: int,
           ahead: int) -> Constants:
    """Constants of a node of attention scores.

    position  real [heads, positions]: the bias of a key ``past`` frames before its query is at ``ahead + past``
    scales  of queries and keys      rows  that a query hears, its own chunk's included
    """
    unit = scales[0] * scales[1] / math.sqrt(head)
    m, s = arith.multiplier_and_shift(np.float64(unit / formats.SCORE.scale))
    # from the oldest key and the last query of a chunk to the newest key and the first query
    past = rows - 1 - np.arange(rows + chunk - 1)
    bias = np.floor(np.asarray(position, np.float64)[:, ahead + past] / unit + 0.5)
    limit = bias_limit(False)
    return dict(bias=np.clip(bias, -limit, limit - 1).astype(np.int64), multiplier=np.asarray(m), shift=np.asarray(s))


def softmax(in_scale: float, out_scale: float) -> Constants:
    """Constants of a softmax node."""
    m, s = arith.multiplier_and_shift(np.float64(in_scale * (1 << arith.LOG_FRACTION)))
    om, os = arith.multiplier_and_shift(np.float64(2.0**-arith.UNIT_FRACTION / out_scale))
    return dict(exp=arith.exp_table().entries, rsqrt=arith.rsqrt_table().astype(np.int32), multiplier=np.asarray(m),
                shift=np.asarray(s), out_multiplier=np.asarray(om), out_shift=np.asarray(os))


def depthwise(codes: NDArray, scale: NDArray, bias: NDArray | None, in_scale: float, out_scale: float) -> Constants:
    """Constants of a depthwise convolution; codes [channels, taps], scale [channels] or a scalar."""
    return dict(weight=storage(codes)) | linear_scales(codes.shape[0], scale, bias, in_scale, 0, out_scale)
