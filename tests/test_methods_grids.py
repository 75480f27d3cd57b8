"""Grids, centroids, clips and pulls: known answers, exact oracles, published coefficients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nnac.compression import find
from nnac.compression._centroids import lloyd, lloyd_max, optimal, squared_error, summary
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
    assert len(levels) <= 1 << bits and grid.top <= 127 and levels.abs().max() == grid.top and torch.equal(levels,
        -levels.flip(0))
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


def test_groups_with_codes_of_their_own_take_the_nearest_of_those():
    levels, x = torch.tensor([[-9.0, -1, 4, 7, 30], [-50.0, -20, 3, 3, 90]]), torch.linspace(-99, 99,
        500)[None].expand(2, -1)
    for k in (3, 5):                                       # by comparisons, and by search
        nearest = Codebook(torch.ones(2, 1), levels[:, :k]).nearest(x)
        assert torch.equal((x - nearest).abs(), (x[..., None] - levels[:, None, :k]).abs().amin(-1))


def test_a_weight_half_way_takes_the_upper_code():
    grid = Codebook(torch.ones(1, 1), torch.tensor([[-3.0, 0.0, 4.0]]))
    assert grid.nearest(torch.tensor([[-1.5, -1.5001, 2.0, 1.9999]])).tolist() == [[0.0, -3.0, 4.0, 0.0]]


@pytest.mark.parametrize("codes", [[5], [-9, 4], [-127, -30, 0, 0, 12, 127]])
@pytest.mark.parametrize("kind", ["table", "one for each group", "wide"])
def test_brackets_are_the_neighbours_on_both_sides(codes, kind):
    factor = 300 if kind == "wide" else 1
    levels = torch.tensor(codes, dtype=F64) * factor
    u = torch.linspace(-400, 400, 6401, dtype=F64)[None].expand(2, -1) * factor
    low, high = Codebook(torch.ones(2, 1), levels[None].expand(2 if kind == "one for each group" else 1, -1)).bracket(u)
    at = [max(0, min(int((levels <= v).sum()) - 1, len(codes) - 2)) for v in u[0]]
    assert low.tolist() == [levels[at].tolist()] * 2
    assert high.tolist() == [levels[[min(i + 1, len(codes) - 1) for i in at]].tolist()] * 2


def test_a_weight_on_the_outermost_level_is_inside():
    x = torch.tensor([[-1.5, -1.4999, 1.5, 1.5001, -1.5001]])
    for grid in (Uniform(torch.full((1, 1), 0.5), 3), Codebook(torch.full((1, 1), 0.5),
                                                               torch.tensor([[-3.0, 0.0, 3.0]]))):
        assert grid.inside(x).tolist() == [[True, True, True, False, False]] and float(grid.reach) == 1.5


def test_levels_on_a_common_unit_are_multiples_of_it():
    grid = Uniform.of_clip(torch.tensor([1.0]), 4)         # step 1/7; unit 1/127: 18 units (18.14)
    on = grid.on(torch.tensor([[1 / 127]]))
    assert on.codes[0].tolist() == [18.0 * q for q in range(-7, 8)] and float(on.unit) == pytest.approx(1 / 127)
    assert grid.on(torch.tensor([[1.0]])).codes[0].tolist() == list(range(-7, 8))              # a step never vanishes
    book = Codebook(torch.tensor([[0.5], [1.0]]), torch.tensor([[-127.0, 3.0, 127.0]])).on(torch.tensor([[1.0], [1.0]]))
    assert book.codes.tolist() == [[-64.0, 2.0, 64.0], [-127.0, 3.0, 127.0]]       # halves to even
    assert book.reach.tolist() == [[64.0], [127.0]]
    same = Codebook(torch.tensor([[0.5], [1.0]]), torch.tensor([[-127.0, 3.0, 127.0]]), torch.tensor([[-70.0, 9.0]]))
    same = same.on(torch.tensor([[0.25], [0.5]]))
    # one table stays one
    assert same.codes.tolist() == [[-254.0, 6.0, 254.0]] and same.bounds.tolist() == [[-140.0, 18.0]]


# ------------------------------------------------------------------------------------------------ centroids

def brute_force(points, k):
    """Best squared error over all ways to cut sorted points into k runs."""
    n, best = len(points), math.inf
    for cuts in itertools.combinations(range(1, n), k - 1):
        ends = (0, *cuts, n)
        best = min(best, sum(float(np.square(points[a:b] - points[a:b].mean()).sum())
                             for a, b in itertools.pairwise(ends)))
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
    # shifting all centroids costs next to nothing: keep the sample symmetric
    values = np.concatenate([half, -half])
    assert lloyd_max(values, 2) == pytest.approx([-0.798, 0.798], abs=0.01)
    assert lloyd_max(values, 4) == pytest.approx([-1.510, -0.453, 0.453, 1.510], abs=0.01)


def test_fewer_values_than_centroids_are_represented_exactly():
    assert squared_error(np.array([1.0, 5.0, 5.0]), lloyd_max(np.array([1.0, 5.0, 5.0]), 8)) == 0.0
    assert len(lloyd_max(np.zeros(0), 4)) == 4


@pytest.mark.parametrize("values", [np.random.default_rng(0).standard_t(2, 5000), np.random.default_rng(0).random(5000),
                                    np.arange(64.0), np.repeat(np.arange(64.0), 3)])
def test_a_summary_is_coarse_neither_in_the_tails_nor_in_the_middle(values):
    """Cells no wider than two shares of the range, and (with values all different) no fuller than two shares of the
    count; 64 values stay."""
    points, counts = summary(values, 64)
    assert len(points) <= 64 and counts.sum() == len(values) and (points * counts).sum() == pytest.approx(values.sum())
    if len(np.unique(values)) <= 64:
        assert np.array_equal(points, np.arange(64)) and set(counts) == {len(values) / 64}
    else:
        assert counts.max() <= len(values) * 2 / 64 + 1
        held = np.sort(values)
        ends = np.cumsum(counts).astype(int)
        assert max(np.ptp(held[a:b]) for a, b in itertools.pairwise([0, *ends])) <= np.ptp(values) * 2 / 64


def test_an_empty_cell_keeps_its_centroid():
    assert lloyd(np.array([0.0, 1.0, 9.0, 11.0]), np.array([0.0, 5.0, 12.0]), 10).tolist() == [0.5, 5.0, 10.0]


def test_snapping_moves_no_centroid_by_more_than_half_a_step():
    c = torch.tensor([-0.9, -0.2, 0.01, 0.4], dtype=F64)
    codes, unit = snapped(c)
    assert codes.abs().max() == 127 and ((codes * unit - c).abs() <= unit / 2 + 1e-9).all()
    # a unit never vanishes
    assert [v.tolist() for v in snapped(torch.tensor([-1e-9, 2.0**-18]))] == [[0.0, 1.0], [2.0**-18]]


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


def test_cold_assignment_to_all_centroids_is_the_nearest_also_beyond_the_ends():
    codes = torch.tensor([-90.0, -20, 3, 100], dtype=F64)
    u = torch.tensor([-500.0, -91, -90, -89, -56, -54, 3, 51, 52, 100, 300], dtype=F64)
    assert torch.allclose(soft(u, codes, 1e6), codes[(u[:, None] - codes).abs().argmin(1)])


def test_centroids_that_fall_together_stay_finite():
    """256 centroids of a curved space have fewer than 256 integers: neighbours may be equal, also at the ends."""
    u = torch.tensor([[-9.0, -7, -3, 0, 3, 7, 9]], dtype=F64)
    value, slope = bracketed(u, Codebook(torch.ones(1, 1), torch.tensor([[-7.0, -7, 0, 0, 7, 7]], dtype=F64)), 4.0)
    assert value[0, [0, 1, 3, 5, 6]].tolist() == pytest.approx([-7, -7, 0, 7, 7],
                                                               abs=1e-5) and torch.isfinite(slope).all()
    assert -7 < float(value[0, 2]) < 0 and float(value[0, 4]) == pytest.approx(-float(value[0, 2]))


def test_mu_law_space_is_the_inverse_of_the_companding_law():
    from nnac.compression._forms import MuLaw

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
    assert torch.allclose(value, width / width.mean() if normalised
                          else torch.ones_like(value)) and slope.abs().max() < 1e-9


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
    # on a level there is nothing to pull
    assert all(v.abs().max() < 1e-6 for v in acosr(grid.codes.double(), grid.top, odd))
    u = torch.linspace(-1.3, 1.3, 3001, dtype=F64)[None] * grid.top
    expected, inside = acosr(u, grid.top, odd), u.abs() <= grid.top
    formula = (math.pi * u / 2).cos() if odd else (math.pi * u).sin()
    assert torch.allclose(expected[0][inside], formula.abs()[inside], atol=1e-9)
    for normalised in (False, True):
        value, slope = mracos(u, grid.codes.double(), normalised)
        assert torch.allclose(value, expected[0], atol=1e-9)
        assert torch.allclose(slope, expected[1], atol=1e-6) or ((slope -
                                                                  expected[1]).abs() > 1e-6).sum() <= len(grid.codes[0])


@pytest.mark.parametrize("normalised,low,high", [(True, 227 / 6, 227 / 6), (False, 60.0, 67.0)])
def test_beyond_its_ends_mracos_is_the_distance_in_mean_widths_or_in_those_of_the_end(normalised, low, high):
    value, slope = mracos(torch.tensor([[-130.0, 137.0]], dtype=F64), CENTROIDS, normalised)
    assert value[0].tolist() == pytest.approx([30 / low, 10 / high]) and slope[0].tolist() == pytest.approx([-1 / low,
        1 / high])


def test_a_single_centroid_pulls_by_its_distance():
    value, slope = mracos(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[3.0]]))
    assert value.tolist() == [[2.0, 0.0, 4.0]] and slope.tolist() == [[-1.0, 0.0, 1.0]]


def test_penalties_have_the_gradient_they_promise():
    w = weights(6, 30).double().requires_grad_()
    grid = Codebook(torch.tensor([[0.004]], dtype=F64), CENTROIDS)
    live = (torch.arange(180).view(6, 30) % 3 > 0)
    assert torch.autograd.gradcheck(lambda v: make("mracos", strength=1.0).penalty(v, grid, live), (w,), atol=1e-4,
                                    eps=1e-7)
    uniform = Uniform(torch.full((6, 1), 0.05, dtype=F64), 7)
    assert torch.autograd.gradcheck(lambda v: make("acosr", strength=1.0).penalty(v, uniform, None), (w,), atol=1e-4,
                                    eps=1e-7)
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
    assert COEFFICIENTS == {                               # docs/methods.md §6, as seen in FMS-MO
        (2, False): (3.12, -2.064), (2, True): (2.6, -1.71), (3, False): (7.509, -6.892), (4, False): (12.68, -12.80),
        (4, True): (12.035, -12.03), (5, False): (17.74, -18.64), (7, True): (28.24, -30.81),
                            (8, False): (31.76, -35.04)}
    w = weights(1, 500)
    rms, mean = float(w.square().mean().sqrt()), float(w.abs().mean())
    for (bits, aligned), (c1, c2) in COEFFICIENTS.items():
        clip = float(make("sawb", zero_aligned=aligned).reach(w, None, bits))
        assert clip == pytest.approx(c1 * rms + c2 * mean, rel=1e-4) or clip == float(w.abs().max())
    with pytest.raises(ValueError, match="6 bits"):
        coefficients(6, True)


def test_sawb_takes_the_largest_magnitude_where_its_formula_is_not_positive():
    """Weights of nearly one magnitude: 12.68 - 12.80 < 0."""
    assert make("sawb", zero_aligned=False).reach(torch.tensor([[*[-0.3] * 8, -0.31]]), None,
                                                  4).tolist() == pytest.approx([0.31])


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
@pytest.mark.parametrize("bits,aligned", sorted(COEFFICIENTS))
def test_sawb_nearly_minimises_the_squared_error(name, bits, aligned):
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(1, 100_000)) if name == "gaussian" else rng.laplace(size=(1, 100_000)),
                     dtype=torch.float32)

    def error(clip: float) -> float:
        grid = Uniform.of_clip(torch.tensor([clip]), bits, not aligned)
        return float((grid.nearest(x) * grid.unit - x).square().mean())

    clip = float(make("sawb", zero_aligned=aligned).reach(x, None, bits))
    best = min(error(clip * k / 20) for k in range(8, 45))
    # two statistics for all distributions: not the optimum of each
    assert error(clip) < 1.25 * best


def test_sawb_uses_its_moving_average_at_inference_only():
    from nnac.train.quantiser import Settings, WeightQuantiser

    w = weights(8, 64)
    q = WeightQuantiser(Settings(make("sawb"), 4, "tensor"), w)
    q(w)
    q.on_step(1, w * 2)
    scale = {mode: float(q.train(mode)(w * 2)[1][0]) for mode in (True, False)}
    assert scale[False] == pytest.approx(0.55 * scale[True], rel=1e-5)             # (1 + 0.1 (2 - 1)) / 2


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 40), p=st.integers(50, 100), dead=st.integers(0, 40), seed=st.integers(0, 99))
@example(n=25, p=60, dead=0, seed=0)
def test_a_percentile_is_the_order_statistic_at_or_above_it(n, p, dead, seed):
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(seed))
    live = torch.ones(2, n, dtype=torch.bool)
    live[1, : min(dead, n - 1)] = False
    for mask in (None, live):
        y = x if mask is None else x * mask
        for got, row, kept in zip(percentile(y, p, mask), y, live if mask is not None else live.new_ones(2, n),
                                  strict=True):
            ordered = sorted(row[kept].abs().tolist())
            assert float(got) == ordered[-(-p * len(ordered) // 100) - 1]


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


def test_rows_are_clipped_each_for_itself():
    """A row of equal magnitudes keeps its maximum; one with an outlier gives it up."""
    flat, spiked = torch.ones(1, 500), torch.cat([torch.randn(1, 4999, generator=torch.Generator().manual_seed(0)),
                                                  torch.tensor([[30.0]])], 1)
    both = torch.cat([flat.repeat(1, 10), spiked])
    clips = least_squares_clip(both, 4)
    assert clips.tolist() == [float(least_squares_clip(row[None], 4))
                              for row in both] and clips[0] == 1.0 and clips[1] < 15


def test_clips_of_one_statistic_look_at_magnitudes():
    x = torch.tensor([[-3.0, 1.0, 0.0, 2.0], [0.5, -0.5, 0.25, 0.25]])
    live = torch.tensor([[True, True, False, True], [True, True, True, True]])
    assert make("minmax").reach(x, None, 4).tolist() == [3.0, 0.5]
    assert make("binary").reach(x, None, 1).tolist() == [1.5, 0.375] and make("binary").reach(x, live,
        1).tolist() == [2.0, 0.375]
    assert make("fixed", clip=0.75).reach(x, None, 4).tolist() == [0.75, 0.75]


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(2, 8))
def test_a_power_of_two_step_is_the_smallest_that_covers(top, bits):
    step = float(make("power_of_two").reach(torch.tensor([[top, -top / 3]]), None, bits)) / ((1 << (bits - 1)) - 1)
    assert math.frexp(step)[0] == 0.5
    covered = step * ((1 << (bits - 1)) - 1) >= top * (1 - 1e-6)
    assert covered and (step * 0.5 * ((1 << (bits - 1)) - 1) < top * (1 + 1e-6) or step == 2.0**-18)


def test_a_power_of_two_that_covers_exactly_stays():
    assert make("power_of_two").reach(torch.tensor([[7 / 8, 0.1], [-7 / 8 - 1e-3, 0.1]]), None, 4).tolist() == [7 / 8,
        7 / 4]


def test_ternary_follows_its_threshold_not_the_nearest_level():
    from nnac.train.quantiser import Settings, WeightQuantiser

    # 0.7 E|w| = 0.28; a = mean of the five above = 0.64
    w = torch.tensor([[1.0, -1.0, 0.5, 0.4, -0.3, 0.02, 0.0, 0.0]])
    codes, scale = WeightQuantiser(Settings(make("ternary"), 2, "tensor"), w).eval()(w)
    assert codes[0].tolist() == [1, -1, 1, 1, -1, 0, 0, 0] and float(scale[0]) == pytest.approx(0.64)


def test_ternary_takes_the_size_of_the_one_weight_that_stands_out_and_leaves_the_threshold_at_zero():
    """Mean |w| 1: at threshold 1 the four weights of 1 or -1 stay at zero."""
    grid = make("ternary", threshold=1.0).grid({}, torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0, 0.0]]), None, 2, True)
    assert float(grid.unit) == 2.0 and grid.nearest(torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0, 0.0]])).tolist() == [[0,
        0, 0, 0, 1, 0]]


# ------------------------------------------------------------------------------------------------ PACT

def pact_cases():
    one = lambda plus: lambda x, a: make("pact", plus=plus).quantised(x, a, 4)  # noqa: E731
    sym = lambda aligned: lambda x, a: make("pact_symmetric", zero_aligned=aligned).quantised(x, a, 4)  # noqa: E731
    return {"pact": (one(False), 15, 0.0), "pact_plus": (one(True), 15, 0.0),
            "symmetric": (sym(True), 14, -1.0), "symmetric_16": (sym(False), 15, -1.0)}


@pytest.mark.parametrize("case", pact_cases())
def test_pact_gradients_are_the_published_formulas(case):
    function, n, side = pact_cases()[case]
    x = torch.linspace(-2.3, 2.3, 401, dtype=F64)[torch.randperm(401,
        generator=torch.Generator().manual_seed(0))].requires_grad_()
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


@pytest.mark.parametrize("case", pact_cases())
def test_a_value_on_a_clip_is_inside_it(case):
    function, _, side = pact_cases()[case]
    a = torch.tensor(1.5, dtype=F64, requires_grad=True)
    x = torch.tensor([1.5, 1.5 * side], dtype=F64, requires_grad=True)
    function(x, a).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0] and float(a.grad) == pytest.approx(0.0, abs=1e-12)


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
        assert torch.equal(places(bounds[:1], u), torch.searchsorted(bounds[:1].expand(groups, -1).contiguous(), u,
                                                                     right=True))


# -------------------------------------------------------------------------------------------- codebooks of given values

def test_e2m1_is_exact_and_nf4_within_half_an_integer():
    from nnac.compression.e2m1 import E2m1
    from nnac.compression.nf4 import VALUES, Nf4

    assert E2m1().table(False) == (-120, -80, -60, -40, -30, -20, -10, 0, 10, 20, 30, 40, 60, 80, 120)
    assert len(VALUES) == 16 and all(abs(k - 127 * v) <= 0.5 for k, v in zip(Nf4().table(False), VALUES, strict=True))


def test_given_values_are_the_levels_scaled_to_the_greatest_weight():
    from nnac.compression.codebook import Codebook

    method = Codebook((1.0, -0.5, 0.0, 0.25))
    assert method.values == (-0.5, 0.0, 0.25, 1.0) and method.bits == 2
    x = torch.tensor([[0.9, -0.4, 0.1, 0.31, 1.2]])
    grid = method.grid({}, x, None, 2, False)
    levels = torch.tensor(method.values, dtype=torch.float64) * 1.2
    wanted = levels[(x.double()[..., None] - levels).abs().argmin(-1)]
    assert torch.allclose((grid.nearest(x) * grid.unit).double(), wanted, atol=0.02)


@pytest.mark.parametrize("values", [(1.0,), (), (1.0, 1.0), tuple(range(300))])
def test_values_that_make_no_codebook_are_refused(values):
    from nnac.compression.codebook import Codebook

    with pytest.raises(ValueError, match="different numbers"):
        Codebook(values)
