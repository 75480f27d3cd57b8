"""Grids, centroids, clips and pulls: known answers, exact oracles, published coefficients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnac.compression import find
from nnac.compression._centroids import lloyd, lloyd_max, optimal, squared_error
from nnac.compression._grids import Codebook, Uniform, snapped
from nnac.compression._regularise import acosr, mracos
from nnac.compression._statistics import least_squares_clip, percentile
from nnac.compression.gq import bracketed, soft
from nnac.compression.sawb import COEFFICIENTS, coefficients
from tests.methods import make, weights

F64 = torch.float64


# ------------------------------------------------------------------------------------------------ grids

@settings(max_examples=80, deadline=None)
@given(bits=st.integers(1, 8), odd=st.booleans(), clip=st.floats(0.01, 100), seed=st.integers(0, 999))
def test_uniform_codes_are_the_nearest_levels(bits, odd, clip, seed):
    x = torch.randn(1, 50, generator=torch.Generator().manual_seed(seed)) * clip
    grid = Uniform.of_clip(torch.tensor([clip]), bits, odd)
    levels = grid.codes[0]
    assert len(levels) <= 1 << bits and levels.abs().max() == grid.top and torch.equal(levels, -levels.flip(0))
    best = (x[0][:, None] - levels * grid.step).abs().amin(1)
    assert torch.allclose((x - grid.nearest(x) * grid.unit).abs()[0], best, atol=clip * 1e-6)
    assert set(grid.nearest(x).unique().tolist()) <= set(levels.tolist())


@settings(max_examples=80, deadline=None)
@given(codes=st.lists(st.integers(-127, 127), min_size=1, max_size=40, unique=True), seed=st.integers(0, 999))
def test_codebook_codes_are_the_nearest_levels(codes, seed):
    levels = torch.tensor(sorted(codes), dtype=torch.float32)
    x = torch.randn(3, 60, generator=torch.Generator().manual_seed(seed)) * 60
    for rows in (1, 3):                                    # by table, and by search
        grid = Codebook(torch.ones(3, 1), levels[None].expand(rows, -1))
        assert torch.equal((x - grid.nearest(x)).abs(), (x[..., None] - levels).abs().amin(-1))


def test_a_weight_half_way_takes_the_upper_code():
    grid = Codebook(torch.ones(1, 1), torch.tensor([[-3.0, 0.0, 4.0]]))
    assert grid.nearest(torch.tensor([[-1.5, -1.5001, 2.0, 1.9999]])).tolist() == [[0.0, -3.0, 4.0, 0.0]]


def test_levels_on_a_common_unit_are_multiples_of_it():
    grid = Uniform.of_clip(torch.tensor([1.0]), 4)         # step 1/7; unit 1/127: 18 units (18.14)
    on = grid.on(torch.tensor([[1 / 127]]))
    assert on.codes[0].tolist() == [18.0 * q for q in range(-7, 8)] and float(on.unit) == pytest.approx(1 / 127)
    book = Codebook(torch.tensor([[0.5], [1.0]]), torch.tensor([[-127.0, 3.0, 127.0]])).on(torch.tensor([[1.0], [1.0]]))
    assert book.codes.tolist() == [[-64.0, 2.0, 64.0], [-127.0, 3.0, 127.0]]       # halves to even


# ------------------------------------------------------------------------------------------------ centroids

def brute_force(points, k):
    """Best squared error over all ways to cut sorted points into k runs."""
    n, best = len(points), math.inf
    for cuts in itertools.combinations(range(1, n), k - 1):
        ends = (0, *cuts, n)
        best = min(best, sum(float(np.square(points[a:b] - points[a:b].mean()).sum()) for a, b in itertools.pairwise(ends)))
    return best


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=11, unique=True), st.integers(1, 5))
def test_dynamic_programming_finds_the_optimum(values, k):
    points = np.sort(np.array(values))
    c = optimal(points, np.ones(len(points)), min(k, len(points)))
    assert squared_error(points, c) <= brute_force(points, min(k, len(points))) + 1e-6 * (1 + np.square(points).sum())


@pytest.mark.parametrize("k", [2, 4, 8, 16, 32])
def test_lloyd_max_is_within_a_hundredth_of_the_optimum(k):
    rng = np.random.default_rng(k)
    values = np.concatenate([rng.normal(size=900), rng.standard_t(2, size=900)])
    exact = squared_error(values, optimal(np.sort(values), np.ones(1800), k))
    near = squared_error(values, lloyd_max(values, k, bins=400))
    assert exact * (1 - 1e-9) <= near <= 1.01 * exact
    start = np.quantile(values, (np.arange(k) + 0.5) / k)
    assert squared_error(values, lloyd(values, start, 100)) <= squared_error(values, start)


def test_lloyd_max_knows_the_gaussian():
    """Lloyd's and Max's tables for N(0, 1): two centroids at +-0.798, four at +-0.453 and +-1.510."""
    half = np.random.default_rng(0).normal(size=200_000)
    values = np.concatenate([half, -half])                 # shifting all centroids costs next to nothing: keep the sample symmetric
    assert lloyd_max(values, 2) == pytest.approx([-0.798, 0.798], abs=0.01)
    assert lloyd_max(values, 4) == pytest.approx([-1.510, -0.453, 0.453, 1.510], abs=0.01)


def test_fewer_values_than_centroids_are_represented_exactly():
    assert squared_error(np.array([1.0, 5.0, 5.0]), lloyd_max(np.array([1.0, 5.0, 5.0]), 8)) == 0.0
    assert len(lloyd_max(np.zeros(0), 4)) == 4


def test_snapping_moves_no_centroid_by_more_than_half_a_step():
    c = torch.tensor([-0.9, -0.2, 0.01, 0.4], dtype=F64)
    codes, unit = snapped(c)
    assert codes.abs().max() == 127 and ((codes * unit - c).abs() <= unit / 2 + 1e-9).all()


# ------------------------------------------------------------------------------------------------ GQ's soft assignment

@pytest.mark.parametrize("alpha,limit", [(1.0, 0.4), (2.0, 0.12), (4.0, 0.06), (8.0, 0.01), (20.0, 1e-3), (80.0, 1e-6)])
def test_two_centroids_stand_for_all_the_better_the_colder(alpha, limit):
    codes = torch.tensor([-127.0, -70, -36, -16, -4, 4, 16, 36, 70, 127], dtype=F64)
    u = torch.linspace(-70, 70, 1401, dtype=F64)           # away from the ends, where all centroids lie to one side
    inner, _ = bracketed(u[None], Codebook(torch.ones(1, 1), codes[None]), alpha)
    at = (torch.searchsorted(codes, u, right=True) - 1).clamp(0, len(codes) - 2)
    assert ((inner[0] - soft(u, codes, alpha)).abs() / (codes[at + 1] - codes[at])).max() < limit


@pytest.mark.parametrize("alpha", [0.01, 1.0, 5.0, 60.0])
def test_soft_assignment_is_continuous_and_fixes_centroids(alpha):
    codes = torch.tensor([-127.0, -60, -25, 12, 50, 127], dtype=F64)
    u = torch.linspace(-140, 140, 28001, dtype=F64).requires_grad_()
    value, slope = bracketed(u[None], Codebook(torch.ones(1, 1), codes[None]), alpha)
    assert (value[0].diff() > -1e-9).all() and value[0].diff().max() <= 0.011 * max(1.0, alpha)
    kept, _ = bracketed(codes[None], Codebook(torch.ones(1, 1), codes[None]), alpha)
    assert torch.allclose(kept[0], codes)
    away = ((u[:, None] - codes).abs().amin(1) > 0.02).detach()
    numeric = (value[0].detach()[2:] - value[0].detach()[:-2]) / (u.detach()[2:] - u.detach()[:-2])
    assert torch.allclose(slope[0].detach()[1:-1][away[1:-1]], numeric[away[1:-1]], atol=2e-3 * max(1, alpha))
    if alpha == 0.01:
        assert torch.allclose(value[0].detach(), u.detach().clamp(-127, 127), atol=1e-2)       # the raw weights


def test_mu_law_space_is_the_inverse_of_the_companding_law():
    from nnac.compression.forms import MuLaw

    g, mu = torch.linspace(-1, 1, 41, dtype=F64), torch.tensor(17.0, dtype=F64)
    x = MuLaw().expand(g, mu)
    assert torch.allclose(x.sign() * (1 + mu * x.abs()).log() / (1 + mu).log(), g)
    h = 1e-6
    numeric = (MuLaw().expand(g, mu * math.exp(h)) - MuLaw().expand(g, mu * math.exp(-h))) / (2 * h)
    assert torch.allclose(MuLaw().slope(g, mu), numeric, atol=1e-8)


# ------------------------------------------------------------------------------------------------ regularisers

CENTROIDS = torch.tensor([[-100.0, -40, -10, 0, 15, 60, 127]], dtype=F64)


@pytest.mark.parametrize("normalised", [False, True])
def test_mracos_is_zero_on_centroids_and_highest_half_way(normalised):
    value, slope = mracos(CENTROIDS, CENTROIDS, normalised)
    assert value.abs().max() < 1e-6 and slope.abs()[:, :-1].max() == 0
    middle = (CENTROIDS[:, 1:] + CENTROIDS[:, :-1]) / 2
    value, slope = mracos(middle, CENTROIDS, normalised)
    width = CENTROIDS.diff(dim=1)
    assert torch.allclose(value, width / width.mean() if normalised else torch.ones_like(value)) and slope.abs().max() < 1e-9


@pytest.mark.parametrize("normalised", [False, True])
def test_mracos_pulls_to_the_nearest_centroid_from_both_sides(normalised):
    u = torch.linspace(-150, 170, 6401, dtype=F64)[None] + 0.003
    _, slope = mracos(u, CENTROIDS, normalised)
    nearest = CENTROIDS[0][(u[0][:, None] - CENTROIDS).abs().argmin(1)]
    far = (u[0] - nearest).abs() > 1e-4
    assert torch.equal((-slope[0][far]).sign(), (nearest - u[0]).sign()[far])
    value = lambda v: mracos(v, CENTROIDS, normalised)[0]  # noqa: E731
    h = 1e-6
    numeric = (value(u + h) - value(u - h)) / (2 * h)
    smooth = ((u[0][:, None] - CENTROIDS).abs() > 2e-3).all(1)
    assert torch.allclose(slope[0][smooth], numeric[0][smooth], atol=1e-5)
    assert value(u).diff().abs().max() < 0.05               # continuous across regions


@pytest.mark.parametrize("bits,odd", [(2, False), (3, False), (4, True), (5, False), (1, True)])
def test_mracos_on_a_uniform_grid_is_acosr(bits, odd):
    grid = Uniform.of_clip(torch.tensor([0.7]), bits, odd)
    u = torch.linspace(-1.3, 1.3, 3001, dtype=F64)[None] * grid.top
    expected, inside = acosr(u, grid.top, odd), u.abs() <= grid.top
    formula = (math.pi * u / 2).cos() if odd else (math.pi * u).sin()
    assert torch.allclose(expected[0][inside], formula.abs()[inside], atol=1e-9)
    for normalised in (False, True):
        value, slope = mracos(u, grid.codes.double(), normalised)
        assert torch.allclose(value, expected[0], atol=1e-9)
        assert torch.allclose(slope, expected[1], atol=1e-6) or ((slope - expected[1]).abs() > 1e-6).sum() <= len(grid.codes[0])


def test_penalties_have_the_gradient_they_promise():
    w = weights(6, 30).double().requires_grad_()
    grid = Codebook(torch.tensor([[0.004]], dtype=F64), CENTROIDS)
    live = (torch.arange(180).view(6, 30) % 3 > 0)
    assert torch.autograd.gradcheck(lambda v: make("mracos", strength=1.0).penalty(v, grid, live), (w,), atol=1e-4, eps=1e-7)
    uniform = Uniform(torch.full((6, 1), 0.05, dtype=F64), 7)
    assert torch.autograd.gradcheck(lambda v: make("acosr", strength=1.0).penalty(v, uniform, None), (w,), atol=1e-4, eps=1e-7)
    with pytest.raises(ValueError, match="mracos"):
        make("acosr", strength=1.0).penalty(w, grid, None)


def test_regularised_weights_settle_on_centroids():
    w = weights(4, 100).clamp(-1.3, 1.3).requires_grad_()
    grid = Codebook(torch.tensor([[0.01]]), CENTROIDS.float())

    def distance() -> float:
        return float((w.detach() - grid.nearest(w.detach()) * 0.01).abs().mean())

    before = distance()
    optimiser = torch.optim.Adam([w], 2e-3)
    for _ in range(300):
        optimiser.zero_grad()
        make("mracos", strength=1.0).penalty(w, grid, None).backward()
        optimiser.step()
    assert distance() < 0.1 * before


# ------------------------------------------------------------------------------------------------ clips

def test_sawb_reproduces_the_published_table():
    assert COEFFICIENTS[(4, True)] == (12.035, -12.03) and COEFFICIENTS[(2, False)] == (3.12, -2.064)
    assert COEFFICIENTS[(8, False)] == (31.76, -35.04)
    w = weights(1, 500)
    rms, mean = float(w.square().mean().sqrt()), float(w.abs().mean())
    for (bits, aligned), (c1, c2) in COEFFICIENTS.items():
        clip = float(make("sawb", zero_aligned=aligned).reach(w, None, bits))
        assert clip == pytest.approx(c1 * rms + c2 * mean, rel=1e-4) or clip == float(w.abs().max())
    with pytest.raises(ValueError, match="6 bits"):
        coefficients(6, True)


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize("bits,aligned", sorted(COEFFICIENTS))
def test_sawb_nearly_minimises_the_squared_error(name, bits, aligned):
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(1, 100_000)) if name == "gaussian" else rng.laplace(size=(1, 100_000)), dtype=torch.float32)

    def error(clip: float) -> float:
        grid = Uniform.of_clip(torch.tensor([clip]), bits, not aligned)
        return float((grid.nearest(x) * grid.unit - x).square().mean())

    clip = float(make("sawb", zero_aligned=aligned).reach(x, None, bits))
    best = min(error(clip * k / 20) for k in range(8, 45))
    assert error(clip) < 1.25 * best                       # two statistics for all distributions: not the optimum of each


def test_sawb_uses_its_moving_average_at_inference_only():
    from nnac.train.quantiser import Settings, WeightQuantiser

    w = weights(8, 64)
    q = WeightQuantiser(Settings(make("sawb"), 4, "tensor"), w)
    q(w)
    q.on_step(1, w * 2)
    scale = {mode: float(q.train(mode)(w * 2)[1][0]) for mode in (True, False)}
    assert scale[False] == pytest.approx(0.55 * scale[True], rel=1e-5)             # (1 + 0.1 (2 - 1)) / 2


def test_percentile_counts_live_weights_only():
    x = torch.arange(1.0, 101)[None] * torch.tensor([[-1.0]])
    assert percentile(x, 90).item() == 90 and percentile(x, 100).item() == 100 and percentile(x, 50.5).item() == 51
    live = (torch.arange(100) >= 50)[None]
    assert percentile(x * live, 50, live).item() == 75


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_least_squares_clip_beats_its_neighbours(bits):
    x = weights(3, 4000)
    clip = least_squares_clip(x, bits)

    def error(c):
        grid = Uniform.of_clip(c, bits)
        return (grid.nearest(x) * grid.unit - x).square().sum(1)

    assert all((error(clip) <= error(clip * f) * 1.02).all() for f in (0.5, 0.8, 0.95, 1.05, 1.3, 2.0))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(2, 8))
def test_a_power_of_two_step_is_the_smallest_that_covers(top, bits):
    step = float(make("power_of_two").reach(torch.tensor([[top, -top / 3]]), None, bits)) / ((1 << (bits - 1)) - 1)
    assert math.frexp(step)[0] == 0.5
    covered = step * ((1 << (bits - 1)) - 1) >= top * (1 - 1e-6)
    assert covered and (step * 0.5 * ((1 << (bits - 1)) - 1) < top * (1 + 1e-6) or step == 2.0**-18)


def test_ternary_follows_its_threshold_not_the_nearest_level():
    from nnac.train.quantiser import Settings, WeightQuantiser

    w = torch.tensor([[1.0, -1.0, 0.5, 0.4, -0.3, 0.02, 0.0, 0.0]])                 # 0.7 E|w| = 0.28; a = mean of the five above = 0.64
    codes, scale = WeightQuantiser(Settings(make("ternary"), 2, "tensor"), w).eval()(w)
    assert codes[0].tolist() == [1, -1, 1, 1, -1, 0, 0, 0] and float(scale[0]) == pytest.approx(0.64)


# ------------------------------------------------------------------------------------------------ PACT

def pact_cases():
    one = lambda plus: lambda x, a: make("pact", plus=plus).quantised(x, a, 4)  # noqa: E731
    sym = lambda aligned: lambda x, a: make("pact_symmetric", zero_aligned=aligned).quantised(x, a, 4)  # noqa: E731
    return {"pact": (one(False), 15, 0.0), "pact_plus": (one(True), 15, 0.0),
            "symmetric": (sym(True), 14, -1.0), "symmetric_16": (sym(False), 15, -1.0)}


@pytest.mark.parametrize("case", pact_cases())
def test_pact_gradients_are_the_published_formulas(case):
    function, n, side = pact_cases()[case]
    x = torch.linspace(-2.3, 2.3, 401, dtype=F64)[torch.randperm(401, generator=torch.Generator().manual_seed(0))].requires_grad_()
    a = torch.tensor(1.3, dtype=F64, requires_grad=True)
    low = float(side * a)
    g = torch.randn(401, dtype=F64, generator=torch.Generator().manual_seed(1))
    function(x, a).backward(g)
    inside = (x >= low) & (x <= a)
    assert torch.equal(x.grad, g * inside)
    z = (x.detach() - low) * n / (float(a.detach()) - low)
    rounding = ((z + 0.5).floor() - z) / n * inside * (0.0 if case == "pact" else 1.0 if side == 0 else 2.0)
    expected = (g * ((x > a).double() + (x < low) * side + rounding)).sum()
    assert float(a.grad) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("case", pact_cases())
def test_pact_outside_its_clip_is_smooth_and_its_gradient_numeric(case):
    function, _, side = pact_cases()[case]
    x = torch.tensor([1.9, 5.0, -4.0, -1.7], dtype=F64)
    h, a = 1e-6, torch.tensor(1.3, dtype=F64)
    numeric = (function(x, a + h) - function(x, a - h)) / (2 * h)
    b = a.clone().requires_grad_()
    function(x, b).sum().backward()
    assert float(b.grad) == pytest.approx(float(numeric.sum()), abs=1e-6)
    assert numeric.tolist() == pytest.approx([1, 1, side, side], abs=1e-6)


def test_two_sided_pact_learns_both_clips():
    x = torch.tensor([-3.0, -0.2, 0.1, 0.33, 4.0, 5.0], dtype=F64)
    low, high = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (-0.5, 1.0))
    make("pact_two_sided", plus=False).quantised(x, low, high, 4).sum().backward()
    assert low.grad == 1 and high.grad == 2
    y = make("pact_two_sided").quantised(x, low, high, 4)
    assert y.min() == low and float(y.max()) == pytest.approx(1.0) and len(y.unique()) <= 16


def test_zero_aligned_has_fifteen_levels_with_zero_and_the_other_sixteen_without():
    x, one = torch.linspace(-2, 2, 4001, dtype=F64), torch.tensor(1.0, dtype=F64)
    aligned, other = (make("pact_symmetric", zero_aligned=z).quantised(x, one, 4).unique() for z in (True, False))
    assert len(aligned) == 15 and aligned.abs().min() < 1e-12 and len(other) == 16 and other.abs().min() > 0.05


def test_widths_without_coefficients_are_declared():
    assert set(find("sawb").widths) == {b for b, _ in COEFFICIENTS}


def test_places_are_those_of_a_search():
    from nnac.compression._grids import places

    torch.manual_seed(0)
    for groups, n, k in ((1, 1000, 1), (4, 250, 15), (4, 250, 32), (100, 10, 40)):
        u = torch.randn(groups, n)
        bounds = torch.cat([torch.randn(groups, k - 1), u[:, :1]], 1).sort(1)[0]           # a weight exactly on a bound
        assert torch.equal(places(bounds, u), torch.searchsorted(bounds, u, right=True))
        assert torch.equal(places(bounds[:1], u), torch.searchsorted(bounds[:1].expand(groups, -1).contiguous(), u, right=True))
