"""The integers against slow, obvious versions on Python's own unbounded integers, on both carriers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnac import arith

CARRIERS = [np.asarray, torch.as_tensor]
carriers = pytest.mark.parametrize("carry", CARRIERS, ids=["numpy", "torch"])
int32s = st.integers(-2**31, 2**31 - 1)


def ints(x):
    return [int(v) for v in x]


@carriers
@given(xs=st.lists(st.integers(-2**55, 2**55), min_size=1), n=st.integers(0, 40))
def test_round_shift_rounds_once_to_nearest_with_ties_up(carry, xs, n):
    expected = [math.floor(Fraction(x, 2**n) + Fraction(1, 2)) for x in xs]
    assert ints(arith.round_shift(carry(np.array(xs)), n)) == expected
    per_row = carry(np.full(len(xs), n))
    assert ints(arith.round_shift(carry(np.array(xs)), per_row)) == expected


@carriers
@given(acc=st.lists(int32s, min_size=1), m=st.integers(1, 2**31 - 1), s=st.integers(1, 62), zp=st.integers(-128, 127),
       bits=st.sampled_from([4, 8, 16]))
def test_requantise_is_the_exact_rational_rounded_once_and_saturated(carry, acc, m, s, zp, bits):
    if s > 61:
        s = 61                                     # acc*m + 2^(s-1) must stay below 2^63
    low, high = arith.limits(bits)
    expected = [min(max(zp + math.floor(Fraction(a * m, 2**s) + Fraction(1, 2)), low), high) for a in acc]
    assert ints(arith.requantise(carry(np.array(acc)), m, s, zp, bits)) == expected


@given(acc=st.integers(-2**28, 2**28), scale=st.floats(2.0**-30, 2.0**10))
def test_a_float64_product_gives_the_same_requantisation(acc, scale):
    m, s = arith.multiplier_and_shift(scale)
    real = float(arith.scale_of(m, s))
    expected = int(arith.requantise(np.array([acc]), int(m), int(s), 0, 16)[0])
    assert int(np.clip(np.floor(acc * real + 0.5), -32768, 32767)) == expected


@given(scale=st.floats(2.0**-38, 2.0**22))
def test_multiplier_and_shift_is_within_half_a_unit_of_24_bits(scale):
    m, s = arith.multiplier_and_shift(scale)
    assert 1 <= s <= 62 and abs(float(arith.scale_of(m, s)) / scale - 1) <= 2.0**-24


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 2.0**24])
def test_impossible_scales_are_refused(bad):
    with pytest.raises(ValueError):
        arith.multiplier_and_shift(bad)


def slow_double(a, m, s, zp, bits):
    """gemmlowp, in words: high = trunc((a m + nudge) / 2^31); then round half away from zero by 2^s."""
    p = a * m
    p += 2**30 if p >= 0 else 1 - 2**30
    high = abs(p) // 2**31 * (1 if p >= 0 else -1)
    mask, low, top = 2**s - 1, *arith.limits(bits)
    q = (high >> s) + ((high & mask) > (mask >> 1) + (high < 0))
    return min(max(zp + q, low), top)


@carriers
@given(acc=st.lists(int32s, min_size=1), m=st.integers(2**30, 2**31 - 1), s=st.integers(0, 30))
def test_double_rounding_is_gemmlowps(carry, acc, m, s):
    assert ints(arith.requantise_double(carry(np.array(acc)), m, s, 0, 16)) == [slow_double(a, m, s, 0, 16)
                                                                                for a in acc]


@carriers
def test_lookup_interpolates_within_the_published_error(carry):
    x = np.arange(-32768, 32768)
    for table, function, units in ((arith.sigmoid_table(), lambda v: 1 / (1 + np.exp(-v)), 0.99),
                                   (arith.tanh_table(), np.tanh, 1.54)):
        y = np.asarray(arith.lookup(carry(table.entries.astype(np.int64)), table.symmetry, carry(x)))
        inside = x != -32768
        assert np.abs(y - np.clip(function(x / 4096) * 32768, -32768, 32767))[inside].max() < units
        assert (table.full() == y).all()
        assert (np.diff(y) >= 0).all(), "a monotone function stays monotone"


@carriers
@given(data=st.data())
def test_lstm_cell_is_the_textbook_step_on_python_integers(carry, data):
    width, fraction = data.draw(st.integers(1, 3)), data.draw(st.integers(8, 14))
    pre = data.draw(st.lists(st.integers(-32768, 32767), min_size=4 * width, max_size=4 * width))
    cell = data.draw(st.lists(st.integers(-32768, 32767), min_size=width, max_size=width))
    tables = [arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(fraction)]
    full = [t.full().astype(int) for t in tables]
    hs, cs = [], []
    for k in range(width):
        i, f, g, o = (int(full[n][pre[b * width + k] + 32768]) for n, b in ((0, 0), (0, 1), (1, 2), (0, 3)))
        c = math.floor(Fraction(f * cell[k], 2**15) + Fraction(1, 2)) + math.floor(Fraction(i * g, 2**(30 - fraction)) +
                                                                                   Fraction(1, 2))
        c = min(max(c, -32768), 32767)
        cs.append(c)
        hs.append(min(max(math.floor(Fraction(o * int(full[2][c + 32768]), 2**23) + Fraction(1, 2)), -128), 127))
    entries = [carry(t.entries.astype(np.int64)) for t in tables]
    h, c = arith.lstm_cell(carry(np.array(pre)), carry(np.array(cell)), *entries, fraction, 1, 23, 8)
    assert ints(h) == hs and ints(c) == cs


@carriers
@given(st.lists(st.integers(0, 2**62 - 1), min_size=1))
def test_bit_length_is_pythons(carry, xs):
    assert ints(arith.bit_length(carry(np.array(xs)))) == [x.bit_length() for x in xs]


@carriers
@given(st.lists(st.integers(1, 2**62 - 1), min_size=1))
def test_rsqrt_is_right_to_26_bits(carry, xs):
    r, e = arith.rsqrt(carry(np.array(xs)), carry(arith.rsqrt_table()))
    for x, root, exponent in zip(xs, ints(r), ints(e), strict=True):
        assert abs(math.ldexp(root, -45 - exponent // 2) * math.sqrt(x) - 1) < 2.0**-26


@carriers
@pytest.mark.parametrize("width", [1, 16, 256, 1280])
def test_layer_norm_is_within_one_unit_of_the_real_one(carry, width):
    rng = np.random.default_rng(width)
    x = rng.integers(-128, 128, (5, width))
    gain, bias = rng.integers(8192, 24576, width), rng.integers(-2**24, 2**24, width)      # gain * 2^-14; bias in 2^-26
    m, s = arith.multiplier_and_shift(2.0**-26 * 16)                                      # output in 1/16
    root = round(math.sqrt(width) * 256)
    y = arith.layer_norm(carry(x), carry(gain), carry(bias), 1, root, carry(arith.rsqrt_table()), int(m), int(s), 0, 8)
    centred = x - x.mean(-1, keepdims=True)
    n = np.clip(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12), -8, 8)
    real = np.clip((n * gain / 2**14 + bias / 2**26) * 16, -128, 127)
    assert np.abs(np.asarray(y) - real).max() <= 0.5 + 16 * 2**-8


@carriers
def test_matmul_is_exact_at_the_extremes(carry):
    for cols in (1, 1024, 4096):
        x, w = np.full((2, cols), -32768), np.full((3, cols), -128)
        assert (np.asarray(arith.matmul(carry(x), carry(w))) == 32768 * 128 * cols).all()


def test_accumulator_bound_is_reached_and_never_passed():
    rng = np.random.default_rng(0)
    w = rng.integers(-128, 128, (8, 40)).astype(np.int8)
    # -128 is reachable, +128 is the bound's slack of one
    worst = (np.where(w < 0, -128, 128).astype(np.int64) * w).sum(1)
    assert (arith.accumulator_bound(8, w) == worst).all()
