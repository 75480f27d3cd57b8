"""What methods do while training goes on: first fits, refits, ramps, annealing, gradients, parts that change a shared
matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnac.compression._centroids import lloyd, lloyd_max
from nnac.compression._forms import Exponential, Flat, Linear, MuLaw
from nnac.train.clock import Clock
from nnac.train.quantiser import KernelQuantiser, Part, Settings, WeightQuantiser
from nnac.train.schedule import Compression, Slot
from nnac.units import Change, Moment, Span
from tests.methods import make, settings, weight_methods, weights


def squared_error(q: WeightQuantiser, w: torch.Tensor) -> float:
    codes, scale = q(w)
    return float((codes * scale[:, None] - w).detach().square().sum())


def two_kernels(w, left, right):
    half = w.shape[1] // 2
    return KernelQuantiser([(Part(0, w.shape[0], 0, half), WeightQuantiser(left, w[:, :half])),
                            (Part(0, w.shape[0], half, w.shape[1]), WeightQuantiser(right, w[:, half:]))],
                           tuple(w.shape))


# ------------------------------------------------------------------------------------------------ schedules

@pytest.mark.parametrize("form,middle", [(Exponential, 40.0), (Linear, 202.0)])
def test_annealing_goes_from_its_first_value_over_its_middle_to_an_end(form, middle):
    """4 -> 400 in 20 steps from step 10: half-way the geometric mean, or the arithmetic one; then it is over."""
    anneal = form(Change(4.0, 400.0), Moment(20.0), Moment(10.0))
    assert [anneal.value(Clock(step)) for step in (0, 10, 20, 30, 31)] == [4.0, 4.0, pytest.approx(middle), None, None]


@pytest.mark.parametrize("keyword,arguments,steps", [
    # its end, though no period ends there
    ("magnitude", {"from": Moment(4.0), "to": Moment(15.0), "every": Moment(5.0)}, [4, 9, 14, 15]),
    ("csp", {"to": Moment(0.0)}, [1]),                     # nothing happens at step 0
    ("n_m", {"from": Moment(3.0), "every": Moment(8.0)}, [3, 11, 19]),
    ("n_m", {"every": Moment(8.0)}, [1, 8, 16]),
    ("every", {"period": Moment(6.0), "from": Moment(4.0), "until": Moment(16.0)}, [4, 10, 16]),
    ("every", {"period": Moment(6.0)}, [6, 12, 18])])
def test_events_happen_at_their_steps(keyword, arguments, steps):
    m = make(keyword, **({"target": 0.5} if keyword in ("magnitude", "csp") else {}), **arguments)
    assert [step for step in range(21) if m.due(Clock(step))] == steps


@torch.no_grad()
def test_a_searched_clip_is_searched_again_every_hundred_steps():
    w = weights()
    q = WeightQuantiser(settings("percentile", "tensor"), w)
    q(w)
    clip = q.clip.clone()
    for step in (1, 50, 99, 101):
        q.on_step(step, w * 3)
        assert torch.equal(q.clip, clip)
    q.on_step(200, w * 3)
    assert torch.allclose(q.clip, clip * 3)


@pytest.mark.parametrize("keyword", ["acosr", "mracos"])
def test_the_strength_of_a_regulariser_ramps(keyword):
    m = make(keyword, strength=3.0, ramp=Span(Moment(4.0), Moment(8.0)))
    assert [m.strength_at(Clock(step)) for step in (0, 4, 5, 8, 99)] == [0.0, 0.0, 0.75, 3.0, 3.0]


@pytest.mark.parametrize("keyword", ["acosr", "mracos"])
def test_a_regulariser_adds_its_strength_times_the_mean_over_the_living(keyword):
    q = WeightQuantiser(settings("minmax", regularise=make(keyword, strength=3.0),
                                 sparsity=make("magnitude", target=0.5, to=Moment(1.0))), weights())
    w = weights()
    q.on_step(1, w)
    expected = (torch.pi * w / q.grid(w).step).sin().abs()[q.mask].mean()
    assert float(q.regulariser(w)) == pytest.approx(3.0 * float(expected), rel=1e-4) and q.regularises
    q.freeze(w)
    assert float(q.regulariser(w + 0.01)) == 0.0 and not q.regularises


def test_moments_in_epochs_need_no_more_than_the_length_of_an_epoch():
    model = torch.nn.Module()
    w = torch.nn.Parameter(weights())
    q = WeightQuantiser(settings("lloyd_max", "tensor", harden=make("every", period=Moment(1.0, "epochs"))), w)
    model.compressed_weights = lambda: [Slot.of_parameter("w", q, w)]
    compression = Compression(model, steps_per_epoch=3)
    few = []
    for step in range(1, 7):
        with torch.no_grad():
            w.add_(torch.randn(w.shape, generator=torch.Generator().manual_seed(step)) * 0.01)
        compression.on_step(step)
        few.append(len(w.unique()) <= 16)
    assert few == [False, False, True] * 2
    assert compression.step == 6 and Compression(torch.nn.Linear(2, 2)).step == 0


# ------------------------------------------------------------------------------------------------ weights of one method

@pytest.mark.parametrize("divide", [True, False])
def test_the_step_of_lsq_has_the_published_gradient(divide):
    """Esser et al.: ``round(v) - v`` inside, ``+-top`` outside, over sqrt(weights * top)."""
    w = weights(4, 50)
    q = WeightQuantiser(Settings(make("lsq", gradient_scale=divide), 3, "channel"), w)
    q(w)
    q.step.data *= 0.5                                     # some weights outside
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    codes, scale = q(w)
    (codes * scale[:, None] * g).sum().backward()
    v = w / scale[:, None]
    slope = torch.where(v.abs() <= 3, v.round() - v, 3 * v.sign())
    assert (v.abs() > 3).any() and torch.allclose(q.step.grad,
        (g * slope).sum(1) / ((50 * 3) ** 0.5 if divide else 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("cube", [1, 3])
def test_gq_starts_at_the_curvature_and_the_sizes_of_least_error(granularity, cube):
    """No curvature given does better than the one found, nor does any row by another size."""
    w = torch.randn(8, 300, generator=torch.Generator().manual_seed(0)) ** cube * torch.linspace(0.02, 0.2, 8)[:, None]

    def started(space):
        return WeightQuantiser(Settings(make("gq", space=space), 4, granularity), w).eval()

    def row_errors(q):
        codes, scale = q(w)
        return (codes * scale[:, None] -
                w).detach().square().sum(1) if granularity == "channel" else torch.tensor([squared_error(q, w)])

    best = started(MuLaw())
    errors = row_errors(best)
    for space in (*map(MuLaw, (0.5, 2.0, 8.0, 16.0, 32.0, 64.0, 255.0)), Flat()):
        assert squared_error(started(space), w) >= float(errors.sum()) * 0.98
    fitted = best.size.detach().clone()
    for factor in (0.5, 0.8, 1.25, 2.0):
        best.size.data = fitted * factor
        assert (row_errors(best) > errors).all()


@pytest.mark.parametrize("shape,granularity", [((100, 200), "tensor"), ((200, 50), "channel")])
def test_gq_starts_nearly_as_well_from_a_sample_of_a_large_matrix(shape, granularity):
    """Every second weight of 20,000 is looked at, and every third row of 200 has a say in the curvature."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0)) ** 3 * 0.1
    # a first row unlike the others
    w[0] = torch.randn(shape[1], generator=torch.Generator().manual_seed(1)).sign() * 0.1
    errors = [squared_error(WeightQuantiser(Settings(make("gq", space=MuLaw(mu)), 4, granularity), w).eval(), w)
              for mu in (None, 1.0, 4.0, 16.0, 64.0, 255.0)]
    assert errors[0] < 1.05 * min(errors)
    q = WeightQuantiser(Settings(make("gq"), 4, granularity), w).eval()
    assert squared_error(q, w) == errors[0]
    fitted = q.size.detach().clone()
    for factor in (0.7, 1.4):
        q.size.data = fitted * factor
        assert squared_error(q, w) > errors[0]


@pytest.mark.parametrize("keyword", ["gq", "lloyd_max"])
@pytest.mark.parametrize("bits,levels", [(1, 3), (2, 3), (3, 7)])
def test_a_pruned_codebook_has_zero_and_is_at_least_ternary(keyword, bits, levels):
    q = WeightQuantiser(Settings(make(keyword, bits=bits), bits, "tensor", sparsity=make("magnitude", target=0.5)),
                        weights()).eval()
    codes = q.grid(weights()).codes[0]
    assert 0 in codes and len(codes) == (levels if keyword == "gq" else max(3, 1 << bits))


def test_the_sign_of_a_size_of_gq_says_nothing():
    q = WeightQuantiser(settings("gq"), weights()).eval()
    codes, scale = (t.detach().clone() for t in q(weights()))
    q.size.data *= -1
    assert torch.equal(q(weights())[0], codes) and torch.equal(q(weights())[1], scale)


def test_gq_on_int16_uses_all_of_it():
    q = WeightQuantiser(Settings(make("gq", snap="int16"), 4, "tensor"), weights()).eval()
    assert q.grid(weights()).codes.abs().max() == 32767 and q.top == 32767


def test_wide_weights_in_groups_fill_int16():
    w = weights()
    codes, scale = WeightQuantiser(Settings(make("minmax"), 16, "group", 10), w).eval()(w)
    assert (codes.abs().amax(1) == 32767).all() and float((codes * scale[:, None] -
                                                           w).abs().max() / w.abs().max()) < 1e-4


@pytest.mark.parametrize("snap,top", [("int8", 127), ("int16", 32767)])
def test_between_hard_compressions_lloyd_max_rounds_to_the_nearest_integer_of_the_machine(snap, top):
    w = weights()
    q = WeightQuantiser(Settings(make("lloyd_max", forward="int8", snap=snap), 4, "tensor"), w)
    _, scale = q(w)
    codes, _ = q(w * 1.5)                                  # some beyond the outermost centroid
    assert torch.equal(codes.detach(), (w * 1.5 / scale[:, None]).round().clamp(-top, top)) and codes.abs().max() == top
    assert len(codes.unique()) > 16 and len(q.eval()(w)[0].unique()) <= 16


@torch.no_grad()
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_lloyd_max_refits_on_its_period_only_and_from_where_it_stands(granularity):
    w = weights()
    q = WeightQuantiser(Settings(make("lloyd_max", refresh=Moment(5.0), iterations=1), 4, granularity), w)
    q(w)
    table, unit = q.table.clone(), q.unit.clone()
    q.on_step(4, w * 3)
    assert torch.equal(q.table, table) and torch.equal(q.unit, unit)
    stale, moved = squared_error(q.eval(), w * 1.1), w * 1.1
    q.on_step(5, moved)
    assert not torch.equal(q.unit, unit) and squared_error(q, moved) < stale


@torch.no_grad()
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_centroids_of_a_pruned_matrix_are_those_of_the_living_and_zero(granularity):
    """Rows divided by the root mean square of what lives in them; the refit is one Lloyd iteration from where the
    centroids stand."""
    w = weights()
    q = WeightQuantiser(Settings(make("lloyd_max", refresh=Moment(2.0), iterations=1), 4, granularity,
                                 sparsity=make("magnitude", target=0.5, to=Moment(1.0))), w)

    def held_and_living():
        spread = (w.square().sum(1) / q.mask.sum(1)).sqrt()[:, None] if granularity == "channel" else torch.ones(32, 1)
        held = q.table * q.unit[:, None] / (spread if granularity == "channel" else 1.0)
        return held.double().numpy(), (w / spread)[q.mask].numpy()

    q.on_step(1, w)
    held, living = held_and_living()
    expected = np.sort(np.append(lloyd_max(living, 15, 1), 0.0))
    assert np.abs(held - expected).max() <= np.abs(expected).max() / 127 * 0.51 and (q.table == 0).sum() == 1
    w.mul_(1 + 0.3 * torch.rand(w.shape, generator=torch.Generator().manual_seed(0)))
    before, _ = held_and_living()
    q.on_step(2, w)
    held, living = held_and_living()
    expected = np.sort(np.append(lloyd(living, before[0][before[0] != 0], 1), 0.0))
    assert np.abs(held - expected).max() <= np.abs(expected).max() / 127 * 0.51 and (q.table == 0).sum() == 1


@pytest.mark.parametrize("keyword,arguments,outside", [("sawb", {"plus": True}, True), ("sawb", {"plus": False}, False),
                                                       ("lsq", {}, False),
                                                       ("percentile", {"p": 90.0}, True)])
def test_the_gradient_of_a_weight_beyond_its_clip_is_that_of_the_method(keyword, arguments, outside):
    w = weights().requires_grad_()
    q = WeightQuantiser(Settings(make(keyword, **arguments), 2, "tensor"), w.detach())
    codes, scale = q(w)
    codes.mul(scale[:, None]).sum().backward()
    beyond = w.detach().abs() > q.grid(w).reach
    assert beyond.any() and not beyond.all() and torch.allclose(w.grad, (outside | ~beyond).float())


@torch.no_grad()
@pytest.mark.parametrize("keyword", weight_methods())
def test_a_row_of_which_nothing_lives_is_zero_on_a_finite_scale(keyword):
    w = weights()
    w[3] *= 1e-4
    q = WeightQuantiser(settings(keyword, sparsity=make("magnitude", target=0.5, to=Moment(1.0))), w)
    q.on_step(1, w)
    codes, scale = q.eval()(w)
    assert (not q.mask[3].any() and (codes[3] == 0).all() and torch.isfinite(codes).all()
            and torch.isfinite(scale).all() and (scale > 0).all())


@torch.no_grad()
@pytest.mark.parametrize("keyword", weight_methods())
@pytest.mark.parametrize("split", [False, True])
def test_what_dead_weights_hold_says_nothing(keyword, split):
    """The optimiser moves them between events; fits, scales, regularisers and the final freeze look at the living."""
    pruned = {"sparsity": make("magnitude", target=0.5, to=Moment(1.0)), "regularise": make("mracos", strength=1.0)}
    outcomes = []
    for junk in (0.0, 100.0):
        w = weights()
        q = (two_kernels(w, settings(keyword, "tensor", **pruned), settings("minmax", "tensor", **pruned)) if split
             else WeightQuantiser(settings(keyword, "tensor", **pruned), w))
        q.set_length(4)
        q.on_step(1, w)
        w[w == 0] = junk
        q.restart(w)
        first = [*q(w), q.regulariser(w)]
        q.on_step(2, w)
        w[w == 0] = junk
        second = q.eval()(w)
        q.freeze(w)
        outcomes.append([*first, *second, w, *q(w)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True)) and (w == 0).float().mean() >= 0.5


@torch.no_grad()
def test_n_of_m_masks_weights_without_touching_them():
    w = weights()
    q, v = WeightQuantiser(settings("minmax", sparsity=make("n_m")), w), w.clone()
    assert not q.on_step(1, v) and torch.equal(v, w) and q.sparsity() == 0.5


def test_a_clock_comes_back_with_its_lengths():
    for lengths in ((40, 10), (None, 10), (40, None), (None, None)):
        q = WeightQuantiser(settings("minmax"), weights())
        q.set_length(*lengths)
        q.on_step(7, weights())
        other = WeightQuantiser(settings("minmax"), weights())
        other.set_length(3, 3)
        other.load_state_dict(q.state_dict())
        assert other.clock == Clock(7, *lengths)
        other.load_state_dict(WeightQuantiser(settings("minmax"), weights()).state_dict())
        assert other.clock == Clock()


# ------------------------------------------------------------------------------------------------ parts

def test_parts_are_fitted_to_the_matrix_of_the_first_forward_pass():
    w, s = weights(), settings("lsq", "tensor")
    scaled = torch.cat([w[:, :20] * 50, w[:, 20:]], 1)
    late, fresh = two_kernels(w, s, settings("minmax", bits=8)), two_kernels(scaled, s, settings("minmax", bits=8))
    assert all(torch.equal(a, b) for a, b in zip(late(scaled), fresh(scaled), strict=True))


def test_a_part_with_real_weights_stays_real_beside_integers():
    w = weights()
    codes, scale = two_kernels(w, Settings(), settings("minmax", bits=8)).eval()(w)
    assert torch.allclose((codes * scale[:, None])[:, :20], w[:, :20]) and torch.equal(codes[:, 20:],
        codes[:, 20:].round())


def test_pruned_weights_of_no_method_are_real_and_zero_where_dead():
    w = weights()
    q = WeightQuantiser(Settings(sparsity=make("magnitude", target=0.5, to=Moment(1.0))), w.clone())
    q.on_step(1, w.clone())
    codes, scale = q(w)
    assert torch.equal(codes, w * q.mask) and (scale == 1).all() and q.sparsity() == 0.5 and not q.exact
    q.freeze(w)
    assert torch.equal(w, codes) and WeightQuantiser(Settings(), w).sparsity() == 0.0


@pytest.mark.parametrize("keyword", ["lsq", "lloyd_max"])
def test_freezing_what_was_never_used_fits_to_what_it_is_given(keyword):
    w, v = weights() * 50, weights() * 50
    q, fresh = (WeightQuantiser(settings(keyword), x) for x in (weights(), w))
    expected = fresh.eval()(w)[0] * fresh(w)[1][:, None]
    q.freeze(v)
    codes, scale = q(v)
    assert torch.equal(v, expected) and q.frozen and torch.equal(codes * scale[:, None], expected)


def test_parts_tell_when_one_of_them_is_pruned_or_hardened():
    w, plain = weights(), settings("minmax", bits=8)
    q = two_kernels(w, settings("minmax", sparsity=make("magnitude", target=0.5, to=Moment(2.0))),
                    settings("minmax", harden=make("every", period=Moment(3.0))))
    q.set_length(40, 10)
    assert [q.on_step(step, w) for step in (1, 2, 3, 4)] == [False, True, True, False]
    assert q.clock == Clock(4, 40, 10) == q.quantisers[0].clock and float((w == 0).float().mean()) >= 0.25
    assert not two_kernels(w, plain, plain).on_step(1, w)


def test_hard_compression_leaves_the_mode_as_it_was():
    w, s = weights(), settings("minmax", harden=make("every", period=Moment(1.0)))
    for q in (WeightQuantiser(s, w), two_kernels(w, s, s)):
        for mode in (True, False):
            q.train(mode).on_step(1, w)
            assert all(m.training == mode for m in q.modules())
