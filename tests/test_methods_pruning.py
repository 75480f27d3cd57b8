"""Pruning: shares, blocks, monotone masks, the l1 problem and its oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from nnac.compression._feedback import output_error
from nnac.compression._masks import Event
from nnac.compression._pruning import (
    Blocks,
    fresh_seed,
    magnitudes,
    n_of_m,
    recovered,
    sense,
    sensing_matrix,
    shrink,
    sparse_code,
)
from nnac.train.clock import Clock
from nnac.train.quantiser import WeightQuantiser
from nnac.units import Moment
from tests.methods import make, settings, weights

RANDOM = {"measurements": "random", "columns": 16, "iterations": 9}
GRADUAL = ("csp", "csp at random", "magnitude", "narang", "obs", "wanda")


def gradual(keyword, target=0.75, to=20.0, **others):
    keyword, _, random = keyword.partition(" at ")
    extra = RANDOM if random else {}
    return make(keyword, target=target, **{"from": Moment(4.0), "to": Moment(to), "every": Moment(4.0), **extra,
                                           **others})


def gram(cols, seed=0, samples=400):
    """Of inputs that hang together."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, cols, generator=g) @ torch.randn(cols, cols, generator=g) * torch.rand(cols, generator=g)
    return x.T @ x / samples


def history(method, w, steps=24):
    """The masks of a training in which weights drift."""
    q = WeightQuantiser(settings("minmax", sparsity=method), w)
    if q.wants_inputs:
        q.meet(gram(w.shape[1]))
    masks = []
    for step in range(1, steps + 1):
        w.add_(torch.randn(w.shape, generator=torch.Generator().manual_seed(step)) * 0.01)
        q.on_step(step, w)
        masks.append(q.mask.clone())
    return masks


@pytest.mark.parametrize("keyword", GRADUAL)
@pytest.mark.parametrize("block,along", [(1, "inputs"), (16, "inputs"), (16, "outputs"), (5, "inputs"),
                                         (64, "outputs")])
@pytest.mark.parametrize("target", [0.5, 0.9])
def test_the_target_is_met_within_one_block(keyword, block, along, target):
    w = weights(64, 50)
    masks = history(gradual(keyword, target, block=block, along=along), w)
    dead = [int((~m).sum()) for m in masks]
    off = block if keyword != "obs" else 10 * block        # of every block of columns, each to within a run
    assert abs(dead[19] - target * w.numel()) <= off and dead[-1] == dead[19]
    assert dead[2] == 0 and 0 <= dead[7] < dead[19]
    alive = Blocks(64, 50, block, along, 4)
    whole = alive.sums(masks[-1].float())
    assert ((whole == 0) | (whole == alive.sizes(whole))).all()                    # blocks live or die together


@pytest.mark.parametrize("keyword", GRADUAL)
def test_masks_only_shrink_and_the_dead_are_zero(keyword):
    w = weights(32, 48)
    masks = history(gradual(keyword), w)
    for before, after in itertools.pairwise(masks):
        assert not (after & ~before).any()
    q = WeightQuantiser(settings("binary", sparsity=gradual(keyword)), w)
    q.on_step(20, w)
    codes, _ = q(w)
    assert (codes[~q.mask] == 0).all() and (codes[q.mask] != 0).all() and (w[~q.mask] == 0).all()


def test_blocks_of_a_gated_kernel_are_words_of_the_machine():
    """A word is 64 rows in the compiler's order: the same 16 cells of the four gates; a dead block is a dead word."""
    w = weights(4 * 40, 30)                                # 40 cells: two whole bands of 16 cells and one of 8
    q = WeightQuantiser(settings("minmax", sparsity=make("magnitude", target=0.5, to=Moment(1.0), block=64,
                                                         along="outputs")), w)
    assert q.settings.gates == 4
    q.on_step(1, w)
    words = q.mask.view(4, 40, 30).permute(1, 0, 2).float()                        # cells, gates, inputs
    for first in (0, 16, 32):
        share = words[first:first + 16].mean((0, 1))
        assert set(share.tolist()) <= {0.0, 1.0}
    assert abs(int((~q.mask).sum()) - w.numel() // 2) <= 64


def test_blocks_that_gates_cannot_share_are_plain_neighbours():
    # a block that is no multiple of four gates, rows that are none
    for rows, block in ((32, 6), (32, 2), (30, 8)):
        w = weights(rows, 5)
        assert torch.equal(Blocks(rows, 5, block, "outputs", 4).sums(w), Blocks(rows, 5, block, "outputs").sums(w))


def test_magnitude_follows_the_cubic_law():
    m = gradual("magnitude", 0.8, to=24.0, initial=0.1)
    shares = [m.share(Clock(step)) for step in (4, 8, 14, 24, 99)]
    assert shares == pytest.approx([0.1, 0.8 - 0.7 * (16 / 20) ** 3, 0.8 - 0.7 * 0.125, 0.8, 0.8])


def test_sensing_follows_the_cubic_law_from_nothing():
    m = gradual("csp", 0.8, to=24.0)
    assert [m.share(Clock(step)) for step in (4, 9, 14, 24, 99)] == pytest.approx([0.0, 0.8 * (1 - 0.75**3),
                                                                                   0.8 * 0.875, 0.8, 0.8])


def test_magnitude_kills_the_smallest():
    w = weights(16, 32)
    before = w.clone() + torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) * 0.01
    mask = history(make("magnitude", target=0.5, to=Moment(1.0)), w, steps=1)[0]
    assert (w[~mask].abs().max() == 0 and int((~mask).sum()) == 256
            and before[mask].abs().min() > before[~mask].abs().max())


def test_narang_steepens_half_way():
    n = gradual("narang", slope_ratio=2.0)
    assert n.threshold(0.0) == 0 and n.threshold(1.0) == pytest.approx(1.0)
    assert (n.threshold(0.9) - n.threshold(0.8)) == pytest.approx(2 * (n.threshold(0.2) - n.threshold(0.1)))


@pytest.mark.parametrize("progress,first", [(0.25, 0.2), (0.75, 0.7)])
@pytest.mark.parametrize("block", [1, 5])
def test_narang_kills_below_a_share_of_the_magnitude_that_would_meet_the_target(progress, first, block):
    """Slopes 0.8 and 1.2: after a quarter a fifth of the final threshold, after three quarters seven tenths."""
    w = weights(16, 20)
    means = w.abs().reshape(16, -1, block).mean(-1)
    final = means.flatten().sort().values[round(0.6 * means.numel())]
    m = make("narang", target=0.6, to=Moment(40.0), block=block)
    mask = m.choose(w, torch.ones(16, 20, dtype=torch.bool), Event(Clock(round(40 * progress)), torch.zeros(1)))
    assert torch.equal(mask[:, ::block], means >= first * final) and not mask.all()


def test_a_shorter_run_counts_by_its_own_mean():
    w = torch.tensor([[1.0, -3.0, 2.0, 2.0, -5.0]])
    assert magnitudes(w, Blocks(1, 5, 2)).tolist() == [[2.0, 2.0, 5.0]] and magnitudes(w.T,
        Blocks(5, 1, 2, "outputs")).tolist() == [[2.0, 2.0, 5.0]]
    assert Blocks(1, 5, 2).sizes(w).tolist() == [[2, 2, 1]]


@budget(max_examples=50, deadline=None)
@given(rows=st.integers(1, 8), cols=st.integers(1, 30), n=st.integers(1, 7), extra=st.integers(1, 8),
       seed=st.integers(0, 99))
def test_n_of_m_keeps_the_largest_of_each_run(rows, cols, n, extra, seed):
    m, w = n + extra, torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    mask = n_of_m(w, n, m)
    for start in range(0, cols, m):
        run, kept = w[:, start:start + m].abs(), mask[:, start:start + m]
        assert (kept.sum(1) == min(n, run.shape[1])).all()
        assert (run.masked_fill(~kept, 9).amin(1) >= run.masked_fill(kept, -1).amax(1)).all()


@pytest.mark.parametrize("n", [4, 5])
def test_n_of_m_leaves_something_out(n):
    with pytest.raises(ValueError, match="smaller than `m`"):
        make("n_m", n=n, m=4)


def test_n_of_m_may_revive_a_weight():
    w = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    q = WeightQuantiser(settings("minmax", sparsity=make("n_m", every=Moment(1.0))), w)
    q.on_step(1, w)
    assert q.mask.tolist() == [[True, True, False, False]]
    w[0, 3] = 9.0
    q.on_step(2, w)
    assert q.mask.tolist() == [[True, False, False, True]]


@budget(max_examples=50, deadline=None)
@given(rows=st.integers(1, 9), cols=st.integers(1, 40), block=st.integers(1, 20),
       along=st.sampled_from(["inputs", "outputs"]),
       share=st.floats(0, 1), seed=st.integers(0, 99))
def test_lowest_blocks_die_first(rows, cols, block, along, share, seed):
    w = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    blocks = Blocks(rows, cols, block, along)
    scores = magnitudes(w, blocks)
    mask = blocks.lowest(scores, torch.ones(rows, cols, dtype=torch.bool), share)
    assert abs(int((~mask).sum()) - share * rows * cols) <= block + 1
    live = blocks.sums(mask.float()) > 0
    if live.any() and not live.all():
        assert scores[live].min() >= scores[~live].max()
    again = blocks.lowest(scores, mask, share)
    assert torch.equal(again, mask)


# ------------------------------------------------------------------------------------------------ compressed sensing

def test_an_orthonormal_sensing_matrix_is_soft_thresholding():
    w = weights(20, 32)
    phi, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))
    for accelerate in (True, False):
        x = sense(w, phi, 0.05, torch.zeros_like(w), 40, accelerate=accelerate)
        assert torch.allclose(x, shrink(w, 0.05), atol=1e-5)
    blocks = sense(w, phi, 0.05, torch.zeros_like(w), 40, block=8)
    assert torch.allclose(blocks, shrink(w, 0.05, 8), atol=1e-5)
    code, _ = sparse_code(w, phi, 0.5, 30)
    ranks = w.abs().reshape(-1).argsort(descending=True)[: int((code != 0).sum())]
    # the support is magnitude's
    assert torch.equal((code != 0).reshape(-1).nonzero()[:, 0], ranks.sort().values)


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("accelerate", [True, False])
def test_iterations_are_those_of_beck_and_teboulle(block, accelerate):
    """Their equations in NumPy, step by step: ``t' = (1 + sqrt(1 + 4 t^2)) / 2``, ``y = x + (t - 1) / t' (x -
    x_before)``."""
    w, phi, strength = weights(6, 16).double().numpy() * 10, sensing_matrix(8, 16, 1).double().numpy(), 0.05
    rate = 1 / np.linalg.norm(phi, 2) ** 2
    x = y = w * 0.5
    t = 1.0
    for _ in range(7):
        v = y + rate * (w - y) @ phi.T @ phi
        size = np.sqrt(np.square(v.reshape(6, -1, block)).mean(-1, keepdims=True)).repeat(block, -1).reshape(6, 16)
        before, x = x, v * np.maximum(1 - strength * rate / size, 0)
        t, last = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        y = x + (last - 1) / t * (x - before) if accelerate else x
    w, phi = torch.tensor(w), torch.tensor(phi)
    assert np.allclose(sense(w, phi, strength, w * 0.5, 7, block, accelerate).numpy(), x, atol=1e-9)


@pytest.mark.parametrize("block", [1, 8])
def test_the_l1_problem_is_solved(block):
    """At the optimum the gradient of the error is -strength * sign on the support, smaller elsewhere (for blocks: in
    root mean square)."""
    w, strength = weights(12, 48), 0.02
    phi = sensing_matrix(24, 48, 3)
    x = sense(w, phi, strength, w, 4000, block)
    gradient = ((x - w) @ phi.T @ phi).view(12, -1, block)
    size = x.view(12, -1, block).square().mean(-1).sqrt()
    if block == 1:
        pull = gradient[..., 0]
        on = size > 1e-4
        assert torch.allclose(pull[on], -strength * x[on].sign(), atol=2e-4)
        assert (pull[~on].abs() <= strength * 1.02).all()
    else:
        direction = x.view(12, -1, block) / size[..., None].clamp_min(1e-12)
        on = size > 1e-3
        assert torch.allclose(gradient[on], -strength * direction[on], atol=5e-4)
        assert (gradient[~on].square().mean(-1).sqrt() <= strength * 1.02).all()
    faster, slower = (sense(w, phi, strength, w, 60, block, accelerate=a) for a in (True, False))
    assert (faster - x).norm() < (slower - x).norm()


def test_bisection_finds_the_share():
    w = weights(64, 64)
    phi = sensing_matrix(32, 64, 0)
    # half as many measurements as weights: at least half is zero anyway
    for share in (0.55, 0.7, 0.9):
        code, strength = sparse_code(w, phi, share, 60)
        assert float((code == 0).float().mean()) == pytest.approx(share, abs=0.05)
        again, _ = sparse_code(w, phi, share, 60, strength=strength)
        assert float((again == 0).float().mean()) == pytest.approx(share, abs=0.05)


def test_csp_keeps_more_of_the_weights_than_chance():
    w = weights(64, 64)
    kept = {}
    for keyword in ("csp at random", "magnitude"):
        v = w.clone()
        q = WeightQuantiser(settings("minmax", sparsity=gradual(keyword, 0.8, to=4.0)), v)
        q.on_step(4, v)
        kept[keyword] = float(v.norm() / w.norm())
    chance = 0.2**0.5
    assert chance + 0.2 < kept["csp at random"] <= kept["magnitude"]


@pytest.mark.parametrize("cols", [32, 40])                # pieces of 16: the last one of 40 is half empty
@pytest.mark.parametrize("first,last", [(0.1, 0.3), (0.6, 0.8)])
def test_what_the_sensing_finds_lives_then_the_largest(cols, first, last):
    """At the second event too, where some weights are dead: the answer's weights by size, then those it left out by
    |w|."""
    m = make("csp", target=1.0 - 1e-3, **RANDOM)
    w, phi = weights(24, cols), sensing_matrix(8, 16, fresh_seed(0, "k", 99))
    mask, memory, strength = torch.ones(24, cols, dtype=torch.bool), torch.zeros(1, dtype=torch.float64), None
    for share in (first, last):
        object.__setattr__(m, "target", share)
        chosen = m.choose(w, mask, Event(Clock(99, 100), memory, kernel="k"))
        pieces = torch.nn.functional.pad(w * mask, (0, -cols % 16)).reshape(-1, 16)
        wanted = 1 - (1 - share) * w.numel() / pieces.numel()
        code, strength = sparse_code(pieces, phi, wanted, 9, 1, True, strength)
        assert float(memory) == strength
        code = code.reshape(24, -1)[:, :cols].abs()
        key = torch.where(code > 0, 1e6 + code.double(), w.abs().double()).masked_fill(~mask, -1)
        dead = key.flatten().argsort()[: round(share * w.numel())]
        assert (code > 0).any() and not chosen.flatten()[dead].any() and int((~chosen).sum()) == len(dead)
        mask = chosen


def test_sensing_nothing_still_meets_the_share():
    w, mask = torch.zeros(8, 16), torch.ones(8, 16, dtype=torch.bool)
    for arguments in ({}, RANDOM):
        _, live = make("csp", target=0.5, **arguments).prune(w, mask, Event(Clock(99, 100), torch.zeros(1)))
        assert int(live.sum()) == 64


def test_the_sensing_matrix_is_fixed_by_its_seed_and_treats_all_columns_alike():
    assert torch.equal(sensing_matrix(8, 16, 5), sensing_matrix(8, 16, 5))
    assert not torch.equal(sensing_matrix(8, 16, 5), sensing_matrix(8, 16, 6))
    phi = sensing_matrix(256, 512, 0)
    assert float(phi.var()) == pytest.approx(1 / 256, rel=0.02)
    assert (phi.norm(dim=0) - 1).abs().max() < 1e-6


def test_random_measurements_are_drawn_anew_for_every_kernel_and_event():
    seeds = {fresh_seed(0, kernel, step) for kernel in ("a 0", "a 1", "b 0") for step in (10, 20)}
    assert len(seeds) == 6 and fresh_seed(0, "a 0", 10) in seeds and fresh_seed(1, "a 0", 10) not in seeds
    w, mask = weights(32, 32), torch.ones(32, 32, dtype=torch.bool)
    m = make("csp", target=0.7, **RANDOM)

    def live(kernel, step):
        return m.choose(w, mask, Event(Clock(step, 100), torch.zeros(1, dtype=torch.float64), kernel=kernel))

    assert torch.equal(live("a", 99), live("a", 99))
    assert not torch.equal(live("a", 99), live("b", 99)) and not torch.equal(live("a", 99), live("a", 98))


# -------------------------------------------------------------------------------------------- by the kernel's inputs

def by_size(share):
    return lambda energy: energy >= energy.flatten().kthvalue(round(share * energy.numel())).values


def test_inputs_that_do_not_hang_together_leave_the_strongest_as_they_are():
    w, energies = weights(24, 40), torch.rand(40) + 0.1
    x, live = recovered(w, torch.diag(energies), by_size(0.6), 8, 6)
    assert torch.equal(live, by_size(0.6)(w.square() * energies))
    assert (x - w * live).abs().max() < 1e-6


def test_what_lives_is_the_least_squares_answer_of_its_row():
    """The slow definition: normal equations on each row's support."""
    w, g = weights(12, 24), gram(24)
    x, live = recovered(w, g, by_size(0.6), 8, 60)
    rms = g.diagonal().sqrt()
    h = (g / (rms[:, None] * rms)).double() + 0.01 * torch.eye(24, dtype=torch.float64)
    for r in range(12):
        on = live[r].nonzero()[:, 0]
        if len(on):
            answer = torch.linalg.solve(h[on][:, on], h[on] @ (w[r] * rms).double())
            assert (x[r, on] * rms[on] - answer).abs().max() < 1e-3
    assert not x[~live].any()


@pytest.mark.parametrize("keyword,least,most", [("csp", 0.0, 0.5), ("obs", 0.0, 0.5), ("wanda", 0.2, 1.0)])
def test_the_output_is_damaged_less_than_by_magnitude(keyword, least, most):
    w, g, errors = weights(64, 48), gram(48), {}
    for name in (keyword, "magnitude"):
        v = w.clone()
        q = WeightQuantiser(settings("minmax", sparsity=gradual(name, 0.75, to=4.0)), v)
        q.meet(g)
        q.on_step(4, v)
        assert float((v == 0).float().mean()) == pytest.approx(0.75, abs=1e-3)
        errors[name] = float(output_error(v - w, g))
    assert least < errors[keyword] / errors["magnitude"] < most


def test_wanda_takes_the_weight_times_the_size_of_its_input():
    w = torch.tensor([[3.0, 1.0], [-2.0, 1.5]])
    event = Event(Clock(9, 10), torch.zeros(1), gram=torch.diag(torch.tensor([1.0, 9.0])))
    x, live = make("wanda", target=0.5).prune(w, torch.ones(2, 2, dtype=torch.bool), event)
    assert live.tolist() == [[False, True], [False, True]] or live.tolist() == [[True, False], [False, True]]
    assert torch.equal(x, w)                               # 3, 3 | 2, 4.5: the first of the equals dies


@pytest.mark.parametrize("keyword", ["csp", "obs", "wanda"])
def test_a_share_of_every_run_is_n_of_m(keyword):
    w = weights(16, 40)
    q = WeightQuantiser(settings("minmax", sparsity=make(keyword, target=0.5, of=4, to=Moment(8.0), every=Moment(2.0))),
                        w)
    q.meet(gram(40))
    for step in range(1, 9):
        q.on_step(step, w)
    assert (q.mask.view(16, 10, 4).sum(-1) == 2).all() and torch.equal(w != 0, q.mask)


@pytest.mark.parametrize("arguments", [dict(columns=32), dict(measurements="random", refine=3),
                                       dict(measurements="random", of=4), dict(block=16, of=4), dict(of=2, target=0.9)])
def test_arguments_that_would_say_nothing_are_refused(arguments):
    with pytest.raises(ValueError, match="`csp`"):
        make("csp", **{"target": 0.5, **arguments})
