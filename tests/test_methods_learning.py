"""What training learns and by how much it is pulled: GQ's derivatives against finite differences at any temperature,
pulls relative to the task, periods in spacings, integers by least squares."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnac.compression._centroids import lloyd_max, squared_error, summary
from nnac.compression._forms import Exponential, Flat, MuLaw
from nnac.compression._grids import Codebook, fitted_integers, snapped
from nnac.compression.gq import GAIN, PLAY, Gq, moved_by
from nnac.train.quantiser import WEIGHED, ScheduleWarning, Settings, WeightQuantiser
from nnac.train.schedule import Compression, Slot
from nnac.units import Change, Moment, UnitError
from tests.methods import make, settings, trained, weights


def generator(seed):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------------- GQ

def smooth(w, size, curvature, offsets, alpha):
    """The soft weights, from the formulas alone, float64: nothing is rounded to integers here."""
    k, mu = len(offsets), np.exp(curvature)
    at = np.linspace(-1, 1, k) + PLAY * 2 / (k - 1) * np.tanh(GAIN * offsets)
    if k % 2:
        at[k // 2] = 0.0
    at = np.clip(at, -1, 1)
    c = size * np.sign(at) * ((1 + mu) ** np.abs(at) - 1) / mu
    j = np.clip(np.searchsorted(c, w, side="right") - 1, 0, k - 2)
    t = np.clip((w - c[j]) / (c[j + 1] - c[j]), 0, 1)
    return c[j] + (c[j + 1] - c[j]) * (0.5 + np.tanh(alpha / 2 * (2 * t - 1)) / np.tanh(alpha / 2) / 2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0, 8.0, 20.0])
@pytest.mark.parametrize("pruned", [False, True])
def test_every_derivative_of_gq_is_that_of_the_soft_assignment(alpha, pruned):
    """By weight, size, curvature and each centroid's offset; on int16, so that rounding hides nothing."""
    w = torch.randn(40, 60, generator=generator(0)) * 0.1
    m = make("gq", bits=3, snap="int16", space=MuLaw(4.0), anneal=Exponential(Change(alpha, alpha * 1.0001),
                                                                            Moment(100.0)))
    q = WeightQuantiser(Settings(m, 3, "tensor", sparsity=make("magnitude", target=0.2, to=Moment(1.0))
                                 if pruned else None), w)
    q.on_step(1, w)
    with torch.no_grad():
        q.size.mul_(0.93)                                  # no weight on an end centroid, where slopes jump
        q.offsets.add_(torch.randn(q.offsets.shape, generator=generator(1)) * 0.05)
    g = torch.randn(w.shape, generator=generator(2))
    live = torch.ones(w.shape, dtype=torch.bool) if q.mask is None else q.mask
    v = w.clone().requires_grad_()
    codes, scale = q(v)
    (codes * scale[:, None] * g).sum().backward()
    own = [p.detach().double().numpy() for p in (q.size, q.curvature, q.offsets)]
    x, weight = w[live].double().numpy(), g[live].double().numpy()

    def value(size=0.0, curvature=0.0, offsets=0.0, dx=0.0):
        s, c, o = own
        return float((weight * smooth(x + dx, float(s[0]) + size, float(c[0]) + curvature, o + offsets, alpha)).sum())

    h, factor = 1e-6, (w.numel() * len(q.offsets)) ** -0.5
    scale_of = float(np.abs(weight).sum())
    assert float(q.size.grad) / factor == pytest.approx((value(size=h) - value(size=-h)) / (2 * h), rel=0.02,
                                                        abs=1e-3 * scale_of)
    assert float(q.curvature.grad) / factor == pytest.approx((value(curvature=h) - value(curvature=-h)) / (2 * h),
                                                             rel=0.02, abs=1e-3 * scale_of * float(own[0][0]))
    middle = len(q.offsets) // 2
    for k, found in enumerate(q.offsets.grad.tolist()):
        step = np.zeros(len(q.offsets))
        step[k] = h
        expected = (value(offsets=step) - value(offsets=-step)) / (2 * h)
        assert found / factor == pytest.approx(expected, rel=0.02, abs=1e-3 * scale_of * float(own[0][0])), k
        assert not (pruned and k == middle and found)
    for i in (3, 500, len(x) - 1):
        step = np.zeros(len(x))
        step[i] = h
        expected = (value(dx=step) - value(dx=-step)) / (2 * h)
        assert float(v.grad[live][i]) == pytest.approx(expected, rel=0.02, abs=2e-3)


def test_beyond_the_outermost_centroid_a_hard_weight_still_learns():
    """Soft, what lies there changes nothing; hard, the gradient passes straight through, and the size's stays exact:
    twice the weights and twice the size would be twice the result."""
    w = torch.randn(64, 64, generator=generator(0)) * 0.1
    q = WeightQuantiser(settings("gq", "tensor"), w)
    q.set_length(400)
    q.restart(w)
    for step, beyond in ((1, 0.0), (399, 1.0)):
        q.on_step(step, w.clone())
        v = w.clone().requires_grad_()
        q.size.grad = None
        codes, scale = q(v)
        (codes * scale[:, None]).sum().backward()
        inside = q.grid(w).inside(w)
        assert (~inside).any() and (v.grad[~inside] == beyond).all()
    alone = (codes * scale[:, None]).detach() - w * inside
    assert float(q.size.grad) == pytest.approx(float(alone.sum() / q.size) * (w.numel() * 16) ** -0.5, rel=1e-4)


def test_gq_never_freezes():
    """At a quarter, half and three quarters of training every weight within the centroids moves with its gradient, and
    none by more than 2.1 times."""
    w = torch.randn(64, 64, generator=generator(0)) * 0.1
    q = WeightQuantiser(settings("gq", "tensor"), w)
    q.set_length(400)
    q.restart(w)
    inside = q.grid(w).inside(w)
    for step in (1, 100, 199, 200, 300, 399):
        q.on_step(step, w.clone())
        v = w.clone().requires_grad_()
        codes, scale = q(v)
        (codes * scale[:, None]).sum().backward()
        assert (v.grad[inside] >= 0.1).all() and (v.grad <= 2.1).all()
    assert inside.float().mean() > 0.95 and q.exact


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("outlier", [1.0, 30.0])
def test_one_bit_starts_at_its_optimum(granularity, outlier):
    w = torch.randn(8, 500, generator=generator(0)) * 0.1
    w[:, 0] *= outlier
    q = WeightQuantiser(Settings(make("gq", bits=1), 1, granularity), w)
    best = w.abs().mean(1) if granularity == "channel" else w.abs().mean().reshape(1)
    assert torch.allclose(q.size.detach(), best, rtol=1e-5)


@pytest.mark.parametrize("tail", ["normal", "laplace"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_centroids_start_where_lloyd_and_max_would_have_them(bits, tail):
    """As near as the mu-law space lets them; without places of their own they are farther off."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(20_000) if tail == "normal" else random.laplace(size=20_000)) * 0.1
    w, best = torch.from_numpy(x).float().reshape(100, 200), squared_error(x, lloyd_max(x, 1 << bits))

    def error(space):
        q = WeightQuantiser(Settings(make("gq", bits=bits, space=space, snap="int16"), bits, "tensor"), w).eval()
        codes, scale = q(w)
        return float((codes * scale[:, None] - w).detach().double().square().sum())

    assert error(MuLaw()) < {2: 1.001, 3: 1.005, 4: 1.02, 5: 1.15}[bits] * best
    assert error(MuLaw()) < error(MuLaw(learned=False))


def test_centroids_adjust_themselves_to_what_is_asked():
    """A target with gaps that no curvature has: each centroid finds its own place."""
    table = torch.tensor([-0.9, -0.62, -0.2, -0.11, 0.07, 0.3, 0.5, 0.9])
    w = table[torch.randint(0, 8, (64, 64), generator=generator(0))]
    w += torch.randn(64, 64, generator=generator(1)) * 0.01
    errors = {}
    for learned in (False, True):
        q = WeightQuantiser(Settings(make("gq", bits=3, space=MuLaw(learned=learned)), 3, "tensor"), w)
        q.set_length(200)
        optimiser = torch.optim.Adam(q.parameters(), 1e-2)
        for step in range(1, 201):
            optimiser.zero_grad()
            codes, scale = q(w)
            loss = (codes * scale[:, None] - w).square().sum()
            loss.backward()
            optimiser.step()
            q.on_step(step, w.clone())
        errors[learned] = float(loss.detach())
        codes = q.eval().grid(w).codes[0]
        assert torch.equal(codes, codes.sort().values)
    assert errors[True] < 0.6 * errors[False]


def test_centroids_without_a_learned_space_stay():
    w = torch.nn.Parameter(weights())
    for space in (Flat(), MuLaw(4.0, learned=False)):
        q = WeightQuantiser(Settings(make("gq", space=space), 4, "tensor"), w.detach())
        before = q.grid(w.detach()).codes.clone()
        trained(q, w, 1, 5)
        assert torch.equal(q.grid(w.detach()).codes, before) and not q.offsets.any()
        assert isinstance(q.settings.method, Gq)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=32), st.integers(0, 999))
def test_a_hard_code_moves_as_the_level_that_it_is(levels, seed):
    """Level by level: what the soft assignment's formula says where it is hard, equal levels told apart by the side."""
    table = torch.tensor(sorted(levels), dtype=torch.float32)[None]
    grid = Codebook(torch.ones(3, 1), table)
    rng = torch.Generator().manual_seed(seed)
    u, g = torch.empty(3, 50).uniform_(-130, 130, generator=rng), torch.randn(3, 50, generator=rng)
    codes = grid.nearest(u)
    expected = torch.zeros(table.shape[1], dtype=torch.float64)
    for a, q, v in zip(u.flatten(), codes.flatten(), g.flatten(), strict=True):
        same = (table[0] == q).nonzero().flatten()
        expected[same[0] if a < q else same[-1]] += v.double()
    assert torch.allclose(moved_by(g, u, codes, None, grid), expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- pulls

@pytest.mark.parametrize("keyword,method", [("mracos", "lloyd_max"), ("acosr", "minmax")])
def test_a_pull_is_a_share_of_the_gradient_of_the_task(keyword, method):
    w = weights()
    q = WeightQuantiser(settings(method, "tensor", regularise=make(keyword, pull=0.5)), w)
    slopes = [torch.randn(w.shape, generator=generator(i)) * (i + 1) for i in range(WEIGHED)]
    for slope in slopes[:-1]:
        assert q.weigh(w, slope) == {} and q.weighs and float(q.regulariser(w)) == 0.0
    found = q.weigh(w, slopes[-1])
    assert list(found) == ["weight"] and not q.weighs and q.weigh(w, slopes[0]) == {}
    v = w.clone().requires_grad_()
    q.regulariser(v).backward()
    task = torch.stack(slopes).double().square().mean().sqrt()
    assert float(v.grad.double().square().mean().sqrt() / task) == pytest.approx(0.5, rel=1e-5)
    other = WeightQuantiser(q.settings, w)
    other.load_state_dict(q.state_dict())
    assert not other.weighs and torch.equal(other.regulariser(w), q.regulariser(w))


def test_a_strength_that_pulls_nothing_is_named_and_one_that_pulls_is_not():
    w = weights()
    for strength, weak in ((1e-4, True), (1e4, False)):
        q = WeightQuantiser(settings("lloyd_max", "tensor", regularise=make("mracos", strength=strength)), w)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for i in range(WEIGHED):
                own = torch.randn(w.shape, generator=generator(i))
                v = w.clone().requires_grad_()
                q.regulariser(v).backward()
                q.weigh(w, own + v.grad)
        assert [s.category for s in said] == ([ScheduleWarning] if weak else [])
        assert not weak or "pulls nothing; say `mracos(pull=30%)`" in str(said[0].message)


@pytest.mark.parametrize("arguments", [{}, dict(pull=0.3, strength=1.0)])
def test_a_pull_or_a_strength_is_said(arguments):
    with pytest.raises(ValueError, match="needs `pull` or `strength`"):
        make("mracos", **arguments)


def test_a_loop_of_ones_own_weighs_the_pull_as_its_steps_go_by():
    model = torch.nn.Linear(12, 8, bias=False)
    q = WeightQuantiser(settings("lloyd_max", "tensor", regularise=make("mracos", pull=0.25)), model.weight)
    from nnac.train.schedule import Slot

    model.compressed_weights = lambda: iter([Slot.of_parameter("w", q, model.weight)])
    compression, optimiser = Compression(model, 20), torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(1, WEIGHED + 3):
        optimiser.zero_grad()
        codes, scale = q(model.weight)
        ((codes * scale[:, None]).square().sum() + compression.regulariser()).backward()
        optimiser.step()
        compression.on_step(step)
        assert (float(compression.regulariser()) > 0) == (step >= WEIGHED)


# ------------------------------------------------------------------------------------------------- the hard compressor

def test_a_period_in_spacings_is_as_long_as_the_learning_rate_needs():
    w = weights()
    q = WeightQuantiser(settings("lloyd_max", "tensor", harden=make("every", spacings=1.5)), w)
    q.set_length(1000, None, 1e-3)
    codes = q.grid(w).codes
    period = math.ceil(1.5 * float((codes[0, -1] - codes[0, 0]) / 15 * q.grid(w).unit) / 1e-3)
    hardened = [step for step in range(1, 2 * period + 3) if q.on_step(step, w.clone())]
    assert hardened == [period, 2 * period]


def test_a_period_in_spacings_needs_a_learning_rate():
    q = WeightQuantiser(settings("lloyd_max", "tensor", harden=make("every", spacings=1.0)), weights())
    with pytest.raises(UnitError, match="needs the learning rate"):
        q.on_step(1, weights())


def test_a_period_in_spacings_without_a_learning_rate_is_refused_before_the_first_step():
    module, kernel = torch.nn.Module(), weights()
    quantiser = WeightQuantiser(settings("lloyd_max", "tensor", harden=make("every", spacings=1.0)), kernel)
    module.compressed_weights = lambda: [Slot.of_parameter("encoder.input", quantiser, kernel)]
    with pytest.raises(UnitError, match=r"of `encoder[.]input` needs the learning rate"):
        Compression(module)
    Compression(module, learning_rate=1e-3)


@pytest.mark.parametrize("period,undone", [(2.0, True), (500.0, False)])
def test_a_period_in_which_weights_cannot_leave_their_level_is_named(period, undone):
    q = WeightQuantiser(settings("lloyd_max", "tensor", harden=make("every", period=Moment(period))), weights())
    q.set_length(1000, None, 1e-3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        q.on_step(1, weights())
    assert [s.category for s in said] == ([ScheduleWarning] if undone else [])
    assert not undone or "what training does is undone; say `every(spacings=1)`" in str(said[0].message)


# --------------------------------------------------------------------------------------------- integers of a codebook

@pytest.mark.parametrize("k", [4, 16, 32])
@pytest.mark.parametrize("tail", [None, 3])
def test_integers_by_least_squares_are_never_worse_than_by_the_largest_centroid(k, tail):
    r = np.random.default_rng(k)
    x = r.standard_normal(20_000) if tail is None else r.standard_t(tail, 20_000)
    c = lloyd_max(x, k)
    exact = squared_error(x, c)
    plain, unit = snapped(torch.from_numpy(c))
    codes, step = fitted_integers(torch.from_numpy(c), *map(torch.from_numpy, summary(x)))
    assert codes.abs().max() <= 127 and torch.equal(codes, codes.round()) and torch.equal(codes, codes.sort().values)
    before, after = (squared_error(x, (q * u).double().numpy()) / exact - 1 for q, u in ((plain, unit), (codes, step)))
    assert after <= before + 1e-3
    if tail is None:
        assert after < 0.012
    elif k == 16:
        assert after < 0.9 * before                        # outliers took the range


# --------------------------------------------------------------------------------------------------------------- rate

def entropy(u, levels):
    """Of the levels, each value shared by the two around it: the definition, float64."""
    p = np.zeros(len(levels))
    j = np.clip(np.searchsorted(levels, u, side="right") - 1, 0, len(levels) - 2)
    t = np.clip((u - levels[j]) / (levels[j + 1] - levels[j]), 0, 1)
    np.add.at(p, j, 1 - t)
    np.add.at(p, j + 1, t)
    p = p[p > 0] / len(u)
    return float(-(p * np.log2(p)).sum())


@pytest.mark.parametrize("keyword,granularity", [("gq", "tensor"), ("lloyd_max", "tensor"), ("minmax", "tensor"),
                                                 ("minmax", "channel")])
def test_rate_is_the_entropy_of_the_codes_and_its_gradient_the_derivative(keyword, granularity):
    w = weights(24, 40)
    q = WeightQuantiser(settings(keyword, granularity, regularise=make("rate", strength=1.0)), w)
    q.set_length(10)
    q.restart(w)
    grid, v = q.grid(w), w.clone().requires_grad_()
    value = q.regulariser(v)
    value.backward()
    x = (q.layout.grouped(w) / grid.unit).double().numpy()
    levels = grid.codes[0].double().numpy()
    assert float(value) == pytest.approx(entropy(x.ravel(), levels), rel=1e-3)
    assert float(value) < 4.0
    slopes = (q.layout.grouped(v.grad) * grid.unit).double().numpy()
    for at in [(0, 5), (len(x) - 1, 17), (0, 30)]:
        step, h = np.zeros_like(x), 1e-4
        step[at] = h
        expected = (entropy((x + step).ravel(), levels) - entropy((x - step).ravel(), levels)) / (2 * h)
        assert slopes[at] == pytest.approx(expected, rel=0.05, abs=2e-5)


def test_weights_that_are_asked_for_fewer_bits_take_fewer_in_the_stream():
    """Bytes of the codec itself, at equal steps: the term is what it says."""
    from nnac import codec

    taken = {}
    for strength in (0.0, 60.0):
        w = torch.nn.Parameter(torch.randn(64, 64, generator=generator(0)) * 0.1)
        target = w.detach().clone()
        q = WeightQuantiser(settings("lloyd_max", "tensor", regularise=make("rate", strength=strength)), w.detach())
        optimiser = torch.optim.Adam([w], 2e-3)
        for step in range(1, 61):
            optimiser.zero_grad()
            codes, scale = q(w)
            ((codes * scale[:, None] - target).square().sum() + q.regulariser(w)).backward()
            optimiser.step()
            q.on_step(step, w)
        taken[strength] = codec.choose(
            q.eval()(w)[0].detach().numpy().astype(np.int8)).encoded.size_bytes
    assert taken[60.0] < 0.9 * taken[0.0]


def test_the_benchmark_of_the_methods_ends_with_one_line_of_json(capsys):
    import json

    import nnac
    from benchmarks import bench_methods

    for rules in ("", f"layers {bench_methods.LSTMS} {{ sparsity csp(75%, to=1 steps) }}"):
        assert nnac.loads(bench_methods.POLICY.format(rules=rules)).plan.name == "bench"
    assert bench_methods.main(["--parts", "snap"]) == 0
    excess = json.loads(capsys.readouterr().out.splitlines()[-1])["snap_excess"]
    assert all(v["int16"] < v["least_squares"] <= v["largest"] + 1e-4 for v in excess.values())
