"""Weight quantisers: what holds for every registered method, at every granularity, in every state."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from nnac.compression import find
from nnac.compression._grids import SMALLEST_UNIT
from nnac.train.quantiser import KernelQuantiser, Part, Settings, WeightQuantiser, quantiser_for
from nnac.train.schedule import Compression, Slot
from nnac.train.settings import Layout
from nnac.units import Change, Moment, Span, UnitError
from tests.methods import GRANULARITIES, make, settings, trained, weight_methods, weights, width

every_method = pytest.mark.parametrize("keyword", weight_methods())


def check_codes(codes: torch.Tensor, scale: torch.Tensor, w: torch.Tensor, allowed: int | None) -> None:
    assert codes.shape == w.shape and scale.shape == (w.shape[0],)
    assert torch.equal(codes, codes.round()) and codes.abs().max() <= 127
    assert torch.isfinite(scale).all() and (scale >= SMALLEST_UNIT).all()
    assert allowed is None or len(codes.unique()) <= allowed


@every_method
@pytest.mark.parametrize("granularity", GRANULARITIES)
@torch.no_grad()
def test_evaluation_gives_few_integers(keyword, granularity):
    w = weights()
    q = WeightQuantiser(settings(keyword, granularity), w).eval()
    codes, scale = q(w)
    # a group's own size is folded into its codes, so that a row still has one scale: more values, all of them int8
    check_codes(codes, scale, w, None if granularity == "group" else 1 << width(make(keyword)))
    assert q.exact and not scale.requires_grad
    assert float((codes * scale[:, None] - w).norm()) < float(w.norm())


@every_method
@pytest.mark.parametrize("bits", range(1, 9))
def test_a_width_of_n_bits_has_at_most_two_to_the_n_values(keyword, bits):
    cls, w = find(keyword), weights(64, 64)
    if cls.fixed_bits or (cls.widths and bits not in cls.widths):
        return
    m = make(keyword, bits=bits) if cls.takes_bits() else make(keyword)
    codes, scale = WeightQuantiser(Settings(m, bits, "tensor"), w).eval()(w)
    check_codes(codes, scale, w, 1 << bits)
    if bits == 8 and keyword != "fixed":                   # a clip as given
        assert float((codes * scale[:, None] - w).norm() / w.norm()) < 0.12


@every_method
@budget(max_examples=15, deadline=None)
@given(rows=st.integers(1, 9), cols=st.integers(1, 70), kind=st.sampled_from(["normal", "zero", "constant", "one",
                                                                              "huge", "tiny", "row"]),
       granularity=st.sampled_from(["tensor", "channel", "group"]), pruned=st.booleans(), seed=st.integers(0, 99))
def test_degenerate_weights_stay_finite(keyword, rows, cols, kind, granularity, pruned, seed):
    w = weights(rows, cols, seed)
    w = w * {"zero": 0.0, "constant": 0.0, "one": 0.0, "huge": 1e6, "tiny": 1e-9}.get(kind, 1.0)
    if kind == "constant":
        w += 0.25
    if kind == "one":
        w[0, 0] = 1.0
    if kind == "row":
        w[-1] = 0.0
    q = WeightQuantiser(settings(keyword, granularity, sparsity=make("magnitude", target=0.5, to=Moment(4.0),
                                                                     every=Moment(1.0))
                                 if pruned else None), w)
    p = torch.nn.Parameter(w.clone())
    trained(q, p, 1, 4)
    check_codes(*q.eval()(p), p, None)
    assert torch.isfinite(p).all() and all(torch.isfinite(v).all() for v in q.parameters())


@every_method
def test_the_hard_compressor_is_idempotent_once_frozen(keyword):
    w = torch.nn.Parameter(weights())
    q = WeightQuantiser(settings(keyword), w)
    trained(q, w, 1, 12)
    before, scale = (t.detach().clone() for t in q.eval()(w))
    q.freeze(w)
    assert torch.equal(w, before * scale[:, None])         # frozen at what evaluation said
    for mode in (True, False):
        codes, same = q.train(mode)(w)
        assert torch.equal(codes, before) and torch.equal(same, scale) and q.exact
    q.on_step(13, w)
    assert torch.equal(w, before * scale[:, None])


COMPOSITIONS = {
    "plain": {},
    "regularised": {"regularise": make("mracos", strength=0.5,
                                       ramp=Span(Moment(0.1, "training"), Moment(0.5, "training")))},
    "hardened": {"harden": make("every", period=Moment(5.0), **{"from": Moment(0.25, "training")})},
    "pruned": {"sparsity": make("magnitude", target=0.6, to=Moment(2.0, "epochs"), every=Moment(4.0))},
    "sensed": {"sparsity": make("csp", target=0.6, to=Moment(20.0), every=Moment(6.0), measurements="random",
                                 columns=16, iterations=9)},
}


@every_method
@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("stop", [3, 11, 20])
def test_training_resumed_from_a_state_dict_gives_the_same_weights_bit_for_bit(keyword, composition, stop):
    s = settings(keyword, "gate", **COMPOSITIONS[composition])
    w = torch.nn.Parameter(weights(16, 24))
    q = WeightQuantiser(s, w)
    trained(q, w, 1, 26)

    v = torch.nn.Parameter(weights(16, 24))
    first = WeightQuantiser(s, v)
    trained(first, v, 1, stop)
    saved = copy.deepcopy((first.state_dict(), v.detach(), first._optimiser))
    resumed = WeightQuantiser(s, weights(16, 24, seed=7))  # built on other weights: all must come from the state
    resumed.load_state_dict(saved[0])
    resumed._optimiser = saved[2]
    v = torch.nn.Parameter(saved[1].clone())
    trained(resumed, v, stop + 1, 26)
    assert torch.equal(v, w)
    for (name, a), b in zip(q.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for mode in (True, False):
        assert all(torch.equal(a, b) for a, b in zip(q.train(mode)(w), resumed.train(mode)(v), strict=True))


@every_method
def test_the_gradient_of_the_weights_is_that_of_the_rounded_weights(keyword):
    w = weights().requires_grad_()
    q = WeightQuantiser(settings(keyword), w)
    q.set_length(10)
    q.on_step(10, w.detach().clone())                      # GQ's soft phase is over
    codes, scale = q(w)
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    (codes * scale[:, None] * g).sum().backward()
    part = (w.grad != 0)
    assert torch.allclose(w.grad[part], g[part], rtol=1e-5) and part.float().mean() > 0.5


@pytest.mark.parametrize("keyword,name", [("lsq", "step"), ("gq", "size")])
def test_learned_sizes_find_their_way_back(keyword, name):
    """From 2.5 times a good size, training on the squared error comes within a fifth of the best error that any size
    has."""
    w = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)) * 0.1
    q = WeightQuantiser(settings(keyword, "tensor", bits=3), w)
    q.set_length(10)
    q(w)
    q.on_step(10, w.clone())
    good = getattr(q, name).detach().clone()

    def error() -> torch.Tensor:
        codes, scale = q(w)
        return (codes * scale[:, None] - w).square().sum()

    def at(factor: float) -> float:
        getattr(q, name).data = good * factor
        return float(error().detach())

    best, start = min(at(f / 20) for f in range(8, 50)), at(2.5)
    optimiser = torch.optim.Adam(q.parameters(), float(good) * 0.02)
    for _ in range(200):
        optimiser.zero_grad()
        loss = error()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1.2 * best < 0.5 * start


def test_the_size_gradient_is_homogeneous():
    """Where the assignment is smooth (soft phase), the gradient of GQ's size is the derivative, checked by finite
    differences."""
    w = weights(4, 64).double().float()
    q = WeightQuantiser(settings("gq", "tensor"), w)
    q.set_length(100)
    q.on_step(5, w.clone())
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(3))
    q(w)
    q.size.data *= 0.97                                    # no weight on an end centroid, where the slope jumps

    def value() -> torch.Tensor:
        codes, scale = q(w)
        return (codes.double() * scale.detach().double()[:, None] * g.double()).sum()

    codes, scale = q(w)
    (codes * scale[:, None] * g).sum().backward()
    size, h = q.size.detach().clone(), 1e-3
    ends = []
    for sign in (1, -1):
        q.size.data = size * (1 + sign * h)
        ends.append(float(value()))
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(
        float(q.size.grad * size) * (w.numel() * 16) ** 0.5, rel=0.02)


def test_gq_hardens_to_the_nearest_of_its_centroids():
    w = weights(16, 64)
    q = WeightQuantiser(Settings(make("gq", anneal=make_anneal(500)), 4, "tensor"), w)
    hard, scale = q.eval()(w)
    last = None
    for step in (0, 100, 250, 400, 480, 499):
        q.train().on_step(step, w.clone())
        assert not q.exact
        soft, _ = q(w)
        distance = (soft - hard).abs().mean()
        assert last is None or distance <= last
        last = distance
    assert last < 0.05
    q.on_step(500, w.clone())
    assert q.exact and torch.equal(q(w)[0], hard)
    levels = q.grid(w).codes[0]
    nearest = levels[(w[..., None] / scale[0] - levels).abs().argmin(-1)]
    ties = ((w[..., None] / scale[0] - levels).abs().sort(-1).values[..., :2].diff(dim=-1).abs() < 1e-4)[..., 0]
    assert torch.equal(nearest[~ties], hard[~ties])


def test_gq_quantises_on_every_nth_step_only():
    w = weights()
    q = WeightQuantiser(Settings(make("gq", frequency=3), 4, "tensor"), w)
    q.set_length(1000)
    for step in (1, 2, 3, 4):
        q.on_step(step, w.clone())
        codes, scale = q(w)
        assert torch.allclose(codes * scale[:, None], w, atol=1e-6) == bool(step % 3)


def test_gq_learns_its_curvature():
    w = torch.nn.Parameter(weights(16, 256))
    space = find("gq").arguments()["space"][1]
    space = type(space)(mu=255.0, learned=True)
    q = WeightQuantiser(Settings(make("gq", space=space, anneal=make_anneal(10)), 4, "tensor"), w)
    before = float(q.curvature)
    optimiser = torch.optim.Adam(q.parameters(), 0.05)
    error = []
    for step in range(1, 60):
        optimiser.zero_grad()
        codes, scale = q(w.detach())
        loss = (codes * scale[:, None] - w.detach()).square().sum()
        loss.backward()
        optimiser.step()
        q.on_step(step, w.detach().clone())
        error.append(float(loss.detach()))
    assert float(q.curvature) != before and min(error[20:]) < error[12]


def make_anneal(steps):
    from nnac.compression._forms import Exponential

    return Exponential(Change(2.0, 300.0), Moment(float(steps)))


def test_snapped_centroids_fill_int8():
    w = weights(32, 64)
    for keyword in ("gq", "lloyd_max"):
        codes = WeightQuantiser(settings(keyword, "tensor"), w).eval().grid(w).codes
        assert codes.abs().max() == 127 or keyword == "lloyd_max"      # whose unit is that of least squares
        assert codes.abs().max() <= 127 and torch.equal(codes, codes.sort().values)
    wide = WeightQuantiser(Settings(make("lloyd_max", snap="int16"), 4, "tensor"), w).eval()
    assert wide(w)[0].abs().max() == 32767


def test_codebook_with_pruning_keeps_its_index_width():
    w = torch.nn.Parameter(weights(32, 64))
    for keyword in ("gq", "lloyd_max"):
        q = WeightQuantiser(settings(keyword, "tensor", sparsity=make("magnitude", target=0.5, to=Moment(4.0),
                                                                      every=Moment(1.0))), w)
        trained(q, w, 1, 8)
        codes, _ = q.eval()(w)
        assert len(codes.unique()) <= 16 and (codes == 0).float().mean() >= 0.5


def test_lloyd_max_trains_on_int8_between_hard_compressions():
    w = torch.nn.Parameter(weights(16, 64))
    q = WeightQuantiser(Settings(make("lloyd_max", forward="int8"), 4, "tensor",
                                 harden=make("every", period=Moment(4.0))), w)
    assert len(q.train()(w)[0].unique()) > 16 and len(q.eval()(w)[0].unique()) <= 16
    q.train()
    assert not q.on_step(3, w) and q.on_step(4, w)
    assert len(w.unique()) <= 16


@torch.no_grad()
def test_lloyd_max_refreshes_its_centroids():
    w = torch.nn.Parameter(weights(16, 64))
    q = WeightQuantiser(Settings(make("lloyd_max", refresh=Moment(5.0)), 4, "tensor"), w)
    q(w)
    w.mul_(3.0)
    stale = (q.eval()(w)[0] * q(w)[1][:, None] - w).norm()
    q.on_step(5, w)
    assert (q(w)[0] * q(w)[1][:, None] - w).norm() < 0.5 * stale


def test_first_forward_pass_fits_to_the_matrix_it_is_given():
    """acc32 passes the input kernel times s_x / s_h, which nobody knows before calibration."""
    w = weights()
    q = WeightQuantiser(settings("lsq"), w)
    scaled = q(w * 50)
    fresh = WeightQuantiser(settings("lsq"), w * 50)(w * 50)
    assert torch.equal(scaled[0], fresh[0]) and torch.equal(scaled[1], fresh[1])


# -------------------------------------------------------------------------------------- parts that share an accumulator

def four_gates(w, per_gate, **others):
    rows = w.shape[0] // 4
    return KernelQuantiser([(Part(i * rows, (i + 1) * rows, 0, w.shape[1]),
                             WeightQuantiser(settings(k, "tensor", bits=b, **others), w[i * rows:(i + 1) * rows]))
                            for i, (k, b) in enumerate(per_gate)], tuple(w.shape))


def test_gates_may_each_have_a_method_of_their_own():
    w = weights(32, 40)
    q = four_gates(w, [("minmax", 8), ("lloyd_max", 4), ("sawb", 4), ("binary", 1)]).eval()
    codes, scale = q(w)
    for i, (part, inner) in enumerate(q.pairs):
        alone, s = inner(part.of(w))
        assert torch.equal(codes[part.top:part.bottom], alone) and torch.equal(scale[part.top:part.bottom], s), i
    assert [len(codes[i * 8:(i + 1) * 8].unique()) <= n for i, n in enumerate((256, 16, 16, 2))] == [True] * 4


@pytest.mark.parametrize("left", weight_methods())
@pytest.mark.parametrize("right", ["minmax", "lloyd_max"])
def test_two_kernels_of_one_accumulator_share_their_scales(left, right):
    w_x, w_h = weights(16, 40, 1), weights(16, 24, 2) * 0.7
    w = torch.cat([w_x, w_h], 1)
    q = KernelQuantiser([(Part(0, 16, 0, 40), WeightQuantiser(settings(left, "tensor"), w_x)),
                         (Part(0, 16, 40, 64), WeightQuantiser(settings(right, "channel", bits=8), w_h))],
                        (16, 64)).eval()
    codes, scale = q(w)
    check_codes(codes, scale, w, None)
    # a table for a tensor needs one unit for a tensor
    assert len(codes[:, :40].unique()) <= 16 and len(scale.unique()) == 1
    alone, s = q.quantisers[0](w_x)
    error, own = ((c * u[:, None] - w_x).norm().item() for c, u in ((codes[:, :40], scale), (alone, s)))
    # levels move a little, to multiples of the unit
    assert error <= 1.2 * own
    v = w.clone()
    q.freeze(v)
    again, same = q(v)
    assert torch.equal(again, codes) and torch.equal(same, scale) and torch.equal(v, codes * scale[:, None])


def test_parts_must_tile_the_matrix():
    w = weights(8, 8)
    with pytest.raises(ValueError, match="tile"):
        KernelQuantiser([(Part(0, 8, 0, 4), WeightQuantiser(settings("minmax"), w[:, :4]))], (8, 8))


# ------------------------------------------------------------------------------------------------ layouts, schedules

@budget(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), cols=st.integers(1, 50), size=st.integers(1, 60), gates=st.sampled_from([1, 4]),
       granularity=st.sampled_from(GRANULARITIES))
def test_grouping_is_undone(rows, cols, size, gates, granularity):
    layout = Layout(rows * gates, cols, granularity, size, gates)
    w = weights(rows * gates, cols)
    assert torch.equal(layout.ungrouped(layout.grouped(w)), w)
    x = layout.grouped(w)
    assert x.shape[0] == layout.groups and layout.rows_of(x.abs().amax(1, keepdim=True)).shape == (rows * gates,)
    if granularity == "group":                             # filling up changes no maximum
        assert torch.equal(x.abs().amax(1).view(rows * gates, -1).amax(1), w.abs().amax(1))


class Model(torch.nn.Module):
    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weights())
        self.quantiser = WeightQuantiser(s, self.weight)

    def compressed_weights(self):
        yield Slot.of_parameter("model.weight", self.quantiser, self.weight)


def test_one_object_runs_every_schedule_of_a_model():
    s = settings("lloyd_max", "tensor", regularise=make("mracos", strength=2.0, ramp=Span(Moment(2.0), Moment(4.0))),
                 harden=make("every", period=Moment(1.0, "epochs")),
                 sparsity=make("magnitude", target=0.5, to=Moment(0.5, "training"), every=Moment(2.0)))
    model = torch.nn.Sequential(Model(s), Model(settings("minmax")))
    compression = Compression(model, steps=12, steps_per_epoch=6)
    assert compression.step == 0 and float(compression.regulariser()) == 0.0
    terms, hardened, zeros = [], [], []
    for step in range(1, 13):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(32, 40, generator=torch.Generator().manual_seed(step)) * 0.01)
        compression.on_step(step)
        terms.append(float(compression.regulariser()))
        hardened.append(len(model[0].weight.unique()) <= 16)
        zeros.append(model[0].quantiser.sparsity())
    assert terms[1] == 0.0 and 0.0 < terms[2] < terms[3]
    assert [i + 1 for i, h in enumerate(hardened) if h] == [6, 12]
    assert zeros == sorted(zeros) and zeros[5] == pytest.approx(0.5, abs=1 / 1280) and zeros[-1] == zeros[5]
    again = torch.nn.Sequential(Model(s), Model(settings("minmax")))
    again.load_state_dict(model.state_dict())
    assert Compression(again).step == 12
    compression.finish()
    codes, scale = model[0].quantiser(model[0].weight)
    assert torch.equal(codes * scale[:, None], model[0].weight) and "frozen" in compression.describe()


def test_a_percentage_of_an_unknown_training_is_an_error_with_a_remedy():
    q = WeightQuantiser(settings("gq"), weights())
    with pytest.raises(UnitError, match="steps"):
        q(weights())


def test_copies_are_independent():
    w = torch.nn.Parameter(weights())
    q = WeightQuantiser(settings("lsq", sparsity=make("n_m")), w)
    twin = copy.deepcopy(q)
    trained(q, w, 1, 5)
    assert twin.clock.step == 0 and q.clock.step == 5 and not torch.equal(twin.mask, q.mask)


# ------------------------------------------------------------------------------------------------ from a plan

POLICY = '''import "edge.nnac"
policy p {
  model  rnnt(size="small", cells=16)
  target edge
  layers ** { weights int8 per_channel; activations int8 }
  layers encoder.lstm[0].{input, recurrent} { weights lloyd_max(4); regularise mracos(strength=0.1);
                                             harden every(5 steps) }
  layers encoder.lstm[1].input { weights int4 per_gate sawb; sparsity magnitude(50%, to=10 steps, every=3 steps) }
  layers encoder.lstm[1].input.gate.f { weights int8 per_channel }
  layers encoder.lstm[2].input { weights lloyd_max(3) }
  training { steps 400 steps }
}
'''


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    import shutil

    from nnac.compiler import resolve

    folder = tmp_path_factory.mktemp("plan")
    shutil.copy("specs/targets/edge.nnac", folder)
    (folder / "p.nnac").write_text(POLICY)
    return resolve(folder / "p.nnac")


def test_a_plan_gives_each_kernel_its_quantiser(plan):
    kernels = plan.graph.kernels

    def built(path, both=False):
        k = kernels[path]
        return quantiser_for(plan, path, weights(k.rows, k.cols + (k.gate_rows if both else 0)))

    # both kernels settled alike: one table, one scale
    shared = built("encoder.lstm[0].input", both=True)
    assert (isinstance(shared,
         WeightQuantiser) and str(shared.settings).startswith("per_tensor lloyd_max(4); mracos(")
                 and shared.clock.total == 400)
    gates = built("encoder.lstm[1].input")
    assert isinstance(gates, KernelQuantiser) and [p.top for p in gates.parts] == [0, 16, 32, 48]
    assert [str(q.settings).split(";")[0] for q in gates.quantisers] == ["int4 per_gate sawb",
        "int8 per_channel minmax", *["int4 per_gate sawb"] * 2]
    assert all(q.settings.sparsity is not None for q in gates.quantisers)
    # two kernels, two methods, one accumulator
    mixed = built("encoder.lstm[2].input", both=True)
    assert isinstance(mixed, KernelQuantiser) and [(p.left, p.right) for p in mixed.parts] == [(0, 16), (16, 32)]
    everything = built("encoder.lstm[1].input", both=True)                         # gates of one, all of the other
    assert len(everything.parts) == 8
    for q in (shared, gates, mixed, everything):
        w = torch.nn.Parameter(weights(*(q.shape if isinstance(q, KernelQuantiser)
                                         else (q.layout.rows, q.layout.cols))))
        q.on_step(20, w)
        codes, scale = q.eval()(w)
        check_codes(codes, scale, w, None)
    assert built("joint.output.weight").settings.gates == 1 and shared.settings.gates == 4
    with pytest.raises(ValueError, match=r"encoder\.lstm\[0\]\.input.*the model says 64 x"):
        quantiser_for(plan, "encoder.lstm[0].input", weights(64, 3))


def test_parts_resume_and_freeze_like_whole_matrices(plan):
    k = plan.graph.kernels["encoder.lstm[1].input"]

    def run(first, last, w, q, optimiser=None):
        optimiser = optimiser or torch.optim.Adam([w, *q.parameters()], 1e-2)
        for step in range(first, last + 1):
            optimiser.zero_grad()
            codes, scale = q(w)
            ((codes * scale[:, None] - weights(k.rows, k.cols, 5)).square().sum() + q.regulariser(w)).backward()
            optimiser.step()
            q.on_step(step, w)
        return optimiser

    w = torch.nn.Parameter(weights(k.rows, k.cols))
    q = quantiser_for(plan, k.path, w)
    run(1, 16, w, q)
    v = torch.nn.Parameter(weights(k.rows, k.cols))
    half = quantiser_for(plan, k.path, v)
    optimiser = run(1, 7, v, half)
    resumed = quantiser_for(plan, k.path, weights(k.rows, k.cols, 3))
    resumed.load_state_dict(half.state_dict())
    again = torch.optim.Adam([v, *resumed.parameters()], 1e-2)
    again.load_state_dict(optimiser.state_dict())
    run(8, 16, v, resumed, again)
    assert torch.equal(v, w) and q.sparsity() == pytest.approx(0.5, abs=0.01)
    codes, scale = q.eval()(w)
    q.freeze(w)
    assert torch.equal(q.train()(w)[0], codes) and torch.equal(w, codes * scale[:, None])
