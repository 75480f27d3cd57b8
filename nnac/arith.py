"""The integers.  Every operation that the machine performs on numbers is defined here, once.

The functions take NumPy arrays or torch tensors, integers in int64, and are written with operators that mean the same
on both; `evaluate`, the training module and the emulator call them, and fast kernels are tested against them for
equality. The steps of recurrent cells take a third carrier as well, integers with a gradient
(`nnac.train.ops._numbers`), which brings its own `round_shift` and `lookup`.
Nothing here rounds twice, wraps, or uses a float scale, except `quantise` and the table builders, which run once, at
the border between real numbers and integers.
The machine's manual prints these functions; a branch that begins with ``# the same`` is another way to the same result,
and left out there.

Number formats are written Qi.f: f fraction bits.  int16 pre-activations are Q3.12, sigmoid and tanh give Q0.15.
Source: docs/design.md §5; requantisation equals TOSA SINGLE_ROUND and TFLite single rounding; the LSTM step is TFLite's
integer LSTM with the sums of `acc32` (our choice) or `sum16` (TFLite's).
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from nnac import formats

Array = Any                    # numpy.ndarray or torch.Tensor of int64 (or, where a docstring says so, float64)

# a 28-bit accumulator times it is exact in float64 as well (our choice; the machine takes up to 31)
MULTIPLIER_BITS = 24
WIDE_MULTIPLIER_BITS = 15      # for 48-bit accumulators: the product stays below 2^63
PRE_FRACTION, UNIT_FRACTION = formats.PRE.fraction, formats.UNIT.fraction
SEGMENTS = 512                 # of |x|, in every table
SCORE_BITS = formats.SCORE.bits - 1                    # of attention scores: one less, for keys that are not there
_STEP_BITS = 6                 # 32768 / 512 = 64 inputs a segment


# ------------------------------------------------------------------------------------------ saturate, shift, requantise

def limits(bits: int) -> tuple[int, int]:
    """Smallest and largest value of a signed integer of ``bits`` bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def saturate(x: Array, bits: int) -> Array:
    """``x`` limited to what ``bits`` signed bits hold."""
    return x.clip(*limits(bits))


def within(x: Array, low: int, high: int) -> Array:
    """``x``, which lies between ``low`` and ``high`` as whoever calls has shown.  It changes nothing: who counts with
    bounds of numbers takes it for granted."""
    if (own := getattr(x, "within", None)) is not None:  # the same
        return own(low, high)
    return x


def round_shift(x: Array, n: Any) -> Array:
    """``x / 2^n`` rounded once to nearest, ties up: ``(x + 2^(n-1)) >> n``; ``n = 0`` changes nothing.

    The shift is arithmetic: a floor, not a truncation: the shifter drops bits towards minus infinity.  ``n`` an int or
    an array, 0..62.
    """
    if (own := getattr(x, "round_shift", None)) is not None:  # the same
        return own(n)
    if isinstance(n, int):  # the same
        return x if n == 0 else (x + (1 << (n - 1))) >> n
    return (x + ((n * 0 + 1) << n >> 1)) >> n


def requantise(acc: Array, multiplier: Any, shift: Any, zero_point: int, bits: int) -> Array:
    """``sat(zero_point + ((acc * multiplier + 2^(shift-1)) >> shift))``: an accumulator brought to a format of ``bits``
    bits.

    acc  [..., rows] int64      multiplier, shift  ints or [rows] (per channel)      |acc * multiplier| < 2^62
    Equals ``floor(acc * (multiplier * 2^-shift) + 0.5)`` computed in float64 wherever |acc * multiplier| < 2^53
    (tested).
    """
    return saturate(round_shift(acc * multiplier, shift) + zero_point, bits)


def requantise_double(acc: Array, multiplier: Any, shift: Any, zero_point: int, bits: int) -> Array:
    """TFLite's double rounding: a Q31 doubling high product, rounded, then a rounding shift, ties away from zero.

    ``multiplier`` is a 31-bit Q31 number in [2^30, 2^31), ``shift`` the right shift after the high product (>= 0).
    Source: gemmlowp SaturatingRoundingDoublingHighMul, RoundingDivideByPOT (background, high).
    """
    product = acc * multiplier
    # 2^30 if positive, 1 - 2^30 if negative
    nudge = (product >= 0) * ((1 << 30) + (1 << 30) - 1) + (1 - (1 << 30))
    total = product + nudge
    high = (total + (total < 0) * ((1 << 31) - 1)) >> 31                          # division by 2^31 towards zero
    mask = ((shift * 0 + 1) << shift) - 1
    remainder, threshold = high & mask, (mask >> 1) + (high < 0) * 1
    return saturate((high >> shift) + (remainder > threshold) * 1 + zero_point, bits)


def add(a: Array, b: Array, multipliers: Any, shifts: Any, bits: int) -> Array:
    """``sat(requantise(a) + requantise(b))``: two symmetric operands, each brought to the output's scale.  multipliers,
    shifts: pairs."""
    return saturate(requantise(a, multipliers[0], shifts[0], 0, bits) +
                    requantise(b, multipliers[1], shifts[1], 0, bits), bits)


def multiplier_and_shift(scale: Any, bits: int = MULTIPLIER_BITS) -> tuple[Any, Any]:
    """The pair (multiplier, shift) whose ``multiplier * 2^-shift`` is nearest to the positive real ``scale``.

    scale  float, array or tensor (float64)
    returns  int64 of the same kind, multiplier in [2^(bits-1), 2^bits), 1 <= shift <= 62
    A scale too small for a shift of 62 loses multiplier bits, down to 0.  ValueError if a scale needs a left shift or
    is not positive.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(scale, torch.Tensor):
        device = scale.device
        m, s = multiplier_and_shift(scale.detach().to("cpu", torch.float64).numpy(), bits)
        return torch.as_tensor(m, device=device), torch.as_tensor(s, device=device)
    array = np.asarray(scale, np.float64)
    # training asks at every step: few passes, and nothing that reads what they have said already
    least, most = (array.min(), array.max()) if array.size else (1.0, 1.0)
    if not 0 < least <= most < math.inf:                   # nor where one is no number
        raise ValueError(f"a scale must be positive and finite, not {least} … {most}")
    fraction, exponent = np.frexp(array)
    m = np.floor(fraction * (1 << bits) + 0.5).astype(np.int64)
    over = m == (1 << bits)
    m, s = m >> over, bits - exponent.astype(np.int64) - over
    if array.size and s.min() < 1:
        raise ValueError(f"a scale of {most} is too large: requantisation only shifts right (limit "
                         f"{2.0 ** (bits - 1):g})")
    if not array.size or s.max() <= 62:
        return m, s
    excess = np.clip(s - 62, 0, 63)
    return m >> excess, s - excess


def scale_of(multiplier: Any, shift: Any) -> Any:
    """The exact real value of a (multiplier, shift) pair, in float64 (exact: a 31-bit integer times a power of two)."""
    return np.ldexp(np.asarray(multiplier, np.float64), -np.asarray(shift, np.int64).astype(np.int32))


# ------------------------------------------------------------------------------------------------------------ products

def accumulator_bound(x_bits: int, weight: NDArray, bias: NDArray | int = 0) -> NDArray:
    """The largest |accumulator| each row can reach: ``2^(x_bits-1) * sum|w| + |bias|``.  weight [rows, cols]; exact,
    int64."""
    return (1 << (x_bits - 1)) * np.abs(weight.astype(np.int64)).sum(-1) + np.abs(np.asarray(bias, np.int64))


def matmul(x: Array, weight: Array) -> Array:
    """``x @ weight.T``, exact.  x [..., cols], weight [rows, cols], int64 in and out.

    Carried by a float64 GEMM, which is exact while cols * max|x| * max|w| < 2^53 (int8 x int16 with 2^30 inputs).  A
    weight may be a kernel that multiplies in its own exact way: ``weight.product(x)``.
    """
    product = getattr(weight, "product", None)
    if product is not None:
        return product(x)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return (x.to(torch.float64) @ weight.to(torch.float64).T).to(torch.int64)
    return (x.astype(np.float64) @ weight.astype(np.float64).T).astype(np.int64)


# -------------------------------------------------------------------------------------------------------------- tables

@frozen(eq=False)
class Table:
    """A function of an int16, tabulated on |x| in 512 segments with linear interpolation.

    entries    int16 [513], value at |x| = 64 k
    symmetry   ``odd``: f(-x) = -f(x) (tanh)   ``complement``: f(-x) = 1 - f(x) in Q0.15 (sigmoid)
    """

    name: str
    entries: NDArray = field()
    symmetry: str = "odd"

    @entries.validator
    def _check(self, _: Any, value: NDArray) -> None:
        if value.shape != (SEGMENTS + 1,) or value.dtype != np.int16:
            raise ValueError(f"table {self.name}: 513 entries of int16, not {value.shape} {value.dtype}")

    def full(self) -> NDArray:
        """All 65,536 outputs, int16, indexed by ``x + 32768``: the same function for kernels that prefer one gather."""
        return lookup(self.entries.astype(np.int64), self.symmetry, np.arange(-32768, 32768)).astype(np.int16)


def lookup(entries: Array, symmetry: str, x: Array) -> Array:
    """Interpolated table value.  entries int64 [513], x int64 in int16 range; returns int64 in Q0.15.

    ``y = e[s] + ((e[s+1] - e[s]) * r + 32 >> 6)`` with s = |x| >> 6, r = |x| & 63; |-32768| counts as 32767.
    """
    if (own := getattr(x, "lookup", None)) is not None:  # the same
        return own(entries, symmetry)
    # all 65,536 values of the table and symmetry already, those of negative x after the others
    if len(entries) > SEGMENTS + 1:  # the same
        return entries[x]
    magnitude = abs(x).clip(0, 32767)
    segment, rest = magnitude >> _STEP_BITS, magnitude & ((1 << _STEP_BITS) - 1)
    low = entries[segment]
    y = low + round_shift((entries[segment + 1] - low) * rest, _STEP_BITS)
    negative = (x < 0) * 1
    if symmetry == "odd":
        return y - 2 * negative * y
    return y + negative * ((1 << UNIT_FRACTION) - 2 * y)


def _table(name: str, function: Any, fraction: int, symmetry: str) -> Table:
    at = np.arange(SEGMENTS + 1, dtype=np.float64) * (1 << _STEP_BITS) / (1 << fraction)
    values = np.floor(np.array([function(v) for v in at]) * (1 << UNIT_FRACTION) + 0.5)
    return Table(name, np.clip(values, -32768, 32767).astype(np.int16), symmetry)


def sigmoid_table(fraction: int = PRE_FRACTION) -> Table:
    """Sigmoid of an int16 with ``fraction`` fraction bits, in Q0.15.

    Largest error 0.99 units of 2^-15 at Q3.12, output rounding included (tested).
    """
    return _table("sigmoid", lambda v: 1.0 / (1.0 + math.exp(-v)), fraction, "complement")


def tanh_table(fraction: int = PRE_FRACTION) -> Table:
    """Tanh of an int16 with ``fraction`` fraction bits, in Q0.15.

    Largest error 1.54 units of 2^-15 at Q3.12, output rounding included (tested).
    """
    return _table("tanh", math.tanh, fraction, "odd")


def normal_table(approximate: bool = False) -> Table:
    """The normal distribution's integral of Q3.12, in Q0.15: GELU weighs a value with it; ``approximate``: by tanh."""
    def phi(v: float) -> float:
        return (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)) if approximate
                else 1 + math.erf(v / math.sqrt(2))) / 2

    return _table("normal", phi, PRE_FRACTION, "complement")


def hard_sigmoid_table() -> Table:
    """``min(x / 6 + 1/2, 1)`` of Q3.12, in Q0.15: between entries, which 3 is one of, it is exact."""
    return _table("hard sigmoid", lambda v: min(v / 6 + 0.5, 1.0), PRE_FRACTION, "complement")


def hardtanh_table(cap: float) -> Table:
    """``min(x, cap)`` of Q3.12 as a part of ``cap``, in Q0.15."""
    return _table("hardtanh", lambda v: min(v / cap, 1.0), PRE_FRACTION, "odd")


# ------------------------------------------------------------------------------------------------------------ LSTM, GRU

def lstm_cell(pre: Array, cell: Array, sigmoid: Array, tanh: Array, tanh_cell: Array, fraction: int,
              hidden_multiplier: Any, hidden_shift: Any, hidden_bits: int) -> tuple[Array, Array]:
    """One LSTM step after the products.

    pre   [..., 4H] int16 Q3.12, blocks i, f, g, o      cell  [..., H] int16 with ``fraction`` fraction bits
    sigmoid, tanh  tables for Q3.12      tanh_cell  table for the cell's format
    returns  hidden [..., H], new cell [..., H]
    ``c' = sat16(rs(f c, 15) + rs(i g, 30 - fraction))``, each product rounded once; ``h = requantise(o tanh(c'))`` from
    Q0.30.
    """
    h = cell.shape[-1]
    i = lookup(sigmoid, "complement", pre[..., :h])
    f = lookup(sigmoid, "complement", pre[..., h:2 * h])
    g = lookup(tanh, "odd", pre[..., 2 * h:3 * h])
    o = lookup(sigmoid, "complement", pre[..., 3 * h:])
    cell = saturate(round_shift(f * cell, UNIT_FRACTION) + round_shift(i * g, 2 * UNIT_FRACTION - fraction), 16)
    return requantise(o * lookup(tanh_cell, "odd", cell), hidden_multiplier, hidden_shift, 0, hidden_bits), cell


def coupled_cell(pre: Array, cell: Array, sigmoid: Array, tanh: Array, tanh_cell: Array, fraction: int,
                 hidden_multiplier: Any,
                 hidden_shift: Any, hidden_bits: int) -> tuple[Array, Array]:
    """`lstm_cell` with coupled input and forget gates (CIFG): i = 1 - f, exactly ``32768 - f``.  pre [..., 3H] Q3.12,
    blocks f, g, o.

    Source: Greff et al. 2017 for the coupling; our integers.
    """
    h = cell.shape[-1]
    f = lookup(sigmoid, "complement", pre[..., :h])
    g = lookup(tanh, "odd", pre[..., h:2 * h])
    o = lookup(sigmoid, "complement", pre[..., 2 * h:])
    new = round_shift(((1 << UNIT_FRACTION) - f) * g, 2 * UNIT_FRACTION - fraction)
    cell = saturate(round_shift(f * cell, UNIT_FRACTION) + new, 16)
    return requantise(o * lookup(tanh_cell, "odd", cell), hidden_multiplier, hidden_shift, 0, hidden_bits), cell


def gru_cell(from_input: Array, from_hidden: Array, state: Array, sigmoid: Array, tanh: Array) -> Array:
    """One GRU step after the products: the new state [..., H], int16 Q0.15.

    from_input, from_hidden  [..., 3H] int16 Q3.12, blocks r, z, n, each with its own bias
    state  [..., H] int16 Q0.15
    ``n = tanh(sat16(x_n + rs(r h_n, 15)))`` (the reset gate after the product, as in PyTorch), ``s' = sat16(rs(z s +
    (32768 - z) n, 15))``, one rounding.  The blend keeps 16 bits; the products read it requantised to the hidden
    format.  Source: Cho et al. 2014; our integers.
    """
    h = state.shape[-1]
    r = lookup(sigmoid, "complement", saturate(from_input[..., :h] + from_hidden[..., :h], 16))
    z = lookup(sigmoid, "complement", saturate(from_input[..., h:2 * h] + from_hidden[..., h:2 * h], 16))
    n = lookup(tanh, "odd", saturate(from_input[..., 2 * h:] + round_shift(r * from_hidden[..., 2 * h:], UNIT_FRACTION),
                                     16))
    return saturate(round_shift(z * state + ((1 << UNIT_FRACTION) - z) * n, UNIT_FRACTION), 16)


# --------------------------------------------------------------------------------------------------------- log-softmax

# logits below the largest, and log-probabilities: Q4.11, as `exp_table` takes them
LOG_FRACTION = formats.LOG.fraction
LN2 = 22713                    # ln 2 in Q0.15


def exp_table() -> Table:
    """``exp(-x)`` of x >= 0 in Q4.11, in Q0.15 (1 is 32767)."""
    return _table("exp", lambda v: math.exp(-v), LOG_FRACTION, "odd")


def log_table() -> NDArray:
    """``ln(1 + k / 512)`` for k = 0 … 512, in Q0.15: int64 [513]."""
    return np.floor(np.log1p(np.arange(SEGMENTS + 1) / SEGMENTS) * (1 << UNIT_FRACTION) + 0.5).astype(np.int64)


def log_softmax(x: Array, exp: Array, log: Array, multiplier: Any, shift: Any) -> Array:
    """Log-probabilities in int16 Q4.11 of logits x [..., V] (any integers): ``t - ln sum exp t`` with t = x - max x, at
    least -16.

    exp, log  int64 [513], `exp_table`, `log_table`      multiplier, shift  from the logits' scale to Q4.11
    The sum's logarithm: its leading bit times ln 2, and a table of the mantissa.  Error below 2^-9 where t > -16
    (tested).
    """
    t = requantise(x - max_of(x), multiplier, shift, 0, 16)
    total = lookup(exp, "odd", -t.clip(-32767, 0)).sum(-1)[..., None]
    bits = bit_length(total) - 1
    mantissa = (total << (30 - bits)) - (1 << 30)                                 # Q30, of [1, 2) less one; V < 2^15
    at, rest = (mantissa >> 21).clip(0, SEGMENTS - 1), mantissa & ((1 << 21) - 1)
    low = log[at]
    logarithm = (bits - UNIT_FRACTION) * LN2 + low + round_shift((log[at + 1] - low) * rest, 21)
    return saturate(t - round_shift(logarithm, UNIT_FRACTION - LOG_FRACTION), 16)


def log_add_table() -> Table:
    """``ln(1 + exp(-x))`` of x >= 0 in Q4.11, in Q0.15: what two probabilities weigh more than the greater of them."""
    return _table("log_add", lambda v: math.log1p(math.exp(-v)), LOG_FRACTION, "odd")


def log_add(a: Array, b: Array, entries: Array) -> Array:
    """``ln(exp a + exp b)`` of log-probabilities with 11 fraction bits, in the same: the greater, and a table of the
    difference.

    entries  int64 [513], `log_add_table`; from a difference of 16 on, the lesser counts for nothing.  Commutative, but
    not associative: whoever adds several says in which order.  Error below 0.65 units of 2^-11 (tested).
    """
    low, high = _ordered(a, b)
    return high + round_shift(lookup(entries, "odd", (high - low).clip(0, 32767)), UNIT_FRACTION - LOG_FRACTION)


def _ordered(a: Array, b: Array) -> tuple[Array, Array]:
    """(the lesser, the greater) of two, element by element, on either carrier."""
    lesser = a + (b - a).clip(-(1 << 62), 0)
    return lesser, a + b - lesser


def max_of(x: Array) -> Array:
    """The largest of the last axis, kept as an axis of one, on either carrier."""
    if hasattr(x, "amax"):  # the same
        return x.amax(-1)[..., None]
    return x.max(-1)[..., None]


# ----------------------------------------------------------------------------------------------------------- layer norm

RSQRT_SEGMENTS = 384           # of a mantissa in [1/4, 1), 2^21 each


def rsqrt_table() -> NDArray:
    """``1/sqrt(z)`` for z = 1/4 + k/512, in Q1.15 unsigned (65535 stands for 2): int64 [385]."""
    z = 0.25 + np.arange(RSQRT_SEGMENTS + 1) / 512
    return np.minimum(np.floor(32768 / np.sqrt(z) + 0.5), 65535).astype(np.int64)


def bit_length(x: Array) -> Array:
    """Bits needed for each non-negative integer (0 for 0), exact for int64."""
    if (own := getattr(x, "bit_length", None)) is not None:  # the same
        return own()
    n = x * 0
    for k in (32, 16, 8, 4, 2, 1):
        big = (x >> k > 0) * k
        n, x = n + big, x >> big
    return n + x


def rsqrt(u: Array, table: Array) -> tuple[Array, Array]:
    """``1/sqrt(u) = r * 2^-(45 + e/2)`` for integers 1 <= u < 2^62: returns (r in Q30, e even).

    The mantissa z = u * 2^-e lies in [2^28, 2^30); table with linear interpolation, then one Newton step
    ``r (3 - z r^2) / 2``.  Relative error below 2^-26 (tested).
    """
    e = bit_length(u) - 30
    e = e + (e & 1)
    left, right = (-e).clip(0, 62), e.clip(0, 62)
    z = within((u << left) >> right, 1 << 28, (1 << 30) - 1)
    at, rest = (z - (1 << 28)) >> 21, z & ((1 << 21) - 1)
    at = at.clip(0, RSQRT_SEGMENTS - 1)
    low = table[at]
    r = within(low + round_shift((table[at + 1] - low) * rest, 21), 1 << 15, (1 << 16) - 1)        # Q1.15
    correction = within(3 * (1 << 30) - ((z * r * r) >> 30), 1 << 30, 3 << 30)    # Q30: z r^2 <= 2^62 / 2^30
    return (r * correction) >> 16, e


def layer_norm(x: Array, gain: Array, bias: Array, epsilon: int | Array, root_width: int | Array, table: Array,
               multiplier: Any, shift: Any,
               zero_point: int, bits: int, rms: int = 0) -> Array:
    """Layer norm over the last axis, in integers; ``rms``: by the root mean square in the place of the deviation.

    x  [..., C] ints      gain  int16 [C]      bias  int32 [C], in units of gain * 2^-12
    root_width = round(sqrt(C) * 2^8)
    epsilon  integer added to ``sum d^2`` (that is eps * C^3 / scale^2, at least 1); d = C x - sum x, with ``rms`` C x
    ``n = sat16(d / sqrt(sum d^2 / C))`` in Q3.12, then ``requantise(n gain + bias)``.
    C^3 4^(bits-1) + epsilon < 2^62 must hold.
    """
    width = x.shape[-1]
    d = width * x if rms else width * x - x.sum(-1)[..., None]
    u = (d * d).sum(-1) + epsilon
    r, e = rsqrt(u, table)
    q = round_shift(r * root_width, 16)                                           # sqrt(C)/sqrt(z), Q22
    shift_n = 25 + (e >> 1)
    n = saturate(round_shift(d * q[..., None], shift_n[..., None]), 16)
    return requantise(n * gain + bias, multiplier, shift, zero_point, bits)


# ------------------------------------------------------------------------------------------------------------- softmax

def softmax(x: Array, exp: Array, rsqrt_entries: Array, multiplier: Any, shift: Any, out_multiplier: Any,
            out_shift: Any, zero_point: int,
            bits: int) -> Array:
    """Softmax over the last axis, in integers.

    x  [..., C] ints      exp  `exp_table` entries      multiplier, shift  from x's scale to 2^-11
    out_*  from Q0.15 to the output
    ``t = min(32767, rs((max x - x) m, s))``, ``e = exp(t)``, ``p = e / sum e`` in Q0.15 by `rsqrt` squared.  C <= 2^15.
    """
    t = round_shift((max_of(x) - x) * multiplier, shift).clip(0, 32767)
    e = lookup(exp, "odd", t)
    r, k = rsqrt(e.sum(-1), rsqrt_entries)
    inverse = (r * r) >> 32                                                       # 1 / sum = inverse * 2^-(58 + k)
    p = round_shift(e * inverse[..., None], (43 + k)[..., None])
    return requantise(p, out_multiplier, out_shift, zero_point, bits)


# ---------------------------------------------------------------------------------------------- attention, convolution

def attention_scores(q: Array, k: Array, bias: Array, valid: Array, multiplier: Any, shift: Any) -> Array:
    """What each query says to each key: int16 in Q6.9, or -32768, which softmax makes nothing of, where ``valid`` is 0.

    q  [..., C, D] int8      k  [..., R, D] int8      bias  [..., C, R], in units of a product      valid  0 or 1
    multiplier, shift  from a product's scale to 2^-9, with 1/sqrt(D) inside
    ``saturate(rs((q . k + bias) m, s), 15)``: +-32, so that a key that is not there is 32 below the greatest at least.
    """
    y = saturate(round_shift((inner(q, k) + bias) * multiplier, shift), SCORE_BITS)
    return y * valid - (1 - valid) * (1 << SCORE_BITS)


def inner(x: Array, y: Array) -> Array:
    """Products of every x with every y: x [..., C, D], y [..., R, D] -> [..., C, R]."""
    if (own := getattr(x, "products", None)) is not None:  # the same
        return own(y)
    if (product := _float64_product(x, y)) is not None:  # the same
        return product
    return (x[..., None, :] * y[..., None, :, :]).sum(-1)


def _float64_product(x: Array, y: Array) -> Array | None:
    """`inner` by a float64 GEMM, exact while D * max|x| * max|y| < 2^53; None where that is not sure."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return (x.to(torch.float64) @ y.to(torch.float64).transpose(-1, -2)).to(torch.int64)
    if x.shape[-1] > 1 << 20:
        return None
    return (x.astype(np.float64) @ y.astype(np.float64).swapaxes(-1, -2)).astype(np.int64)


def weighted_sum(p: Array, v: Array, multiplier: Any, shift: Any, bits: int) -> Array:
    """``requantise(sum_r p[r] v[r])``: p [..., C, R] weighs v [..., R, D] -> [..., C, D]."""
    return requantise(inner(p, v.swapaxes(-1, -2)), multiplier, shift, 0, bits)


def depthwise(x: Array, weight: Array, bias: Array, multiplier: Any, shift: Any, zero_point: int, bits: int) -> Array:
    """``requantise(sum_k w[k] x[k] + bias)``, channel by channel.  x [..., taps, channels]; weight [taps, channels]."""
    return requantise((x * weight).sum(-2) + bias, multiplier, shift, zero_point, bits)


def gate(a: Array, b: Array, entries: Array, symmetry: str, multiplier: Any, shift: Any, zero_point: int,
         bits: int) -> Array:
    """``requantise(a f(b))``, f a table of int16: swish where b is a, GLU where they are the halves of one vector."""
    return requantise(a * lookup(entries, symmetry, b), multiplier, shift, zero_point, bits)


# ---------------------------------------------------------------------------------------------------------------- rings

def ring_order(age: Array, count: Array, slots: int, chunk: int) -> Array:
    """Which row of a ring comes at place ``age``, 0 being the oldest's.

    count  from 0 to 2 slots - 1: how many chunks were written, counted on from ``slots`` where there were more
    The next chunk's place is ``count mod slots``: what lies there is the oldest.
    """
    return (count + age // chunk) % slots * chunk + age % chunk


def ring_counted(count: Array, chunks: int, slots: int) -> Array:
    """The count after ``chunks`` more."""
    more = count + chunks
    return more - (more >= 2 * slots) * ((more - slots) // slots * slots)


# ------------------------------------------------------------------------------------------- the border to real numbers

def quantise(x: Array, scale: Any, zero_point: int, bits: int) -> Array:
    """Real to integer: ``sat(zero_point + floor(x / scale + 1/2))`` in float64.  Host side only: features into the
    first layer."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return saturate((x.to(torch.float64) / scale + 0.5).floor().to(torch.int64) + zero_point, bits)
    return saturate(np.floor(np.asarray(x, np.float64) / scale + 0.5).astype(np.int64) + zero_point, bits)
