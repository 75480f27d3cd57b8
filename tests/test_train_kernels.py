"""The fast LSTM gives the integers of ops.lstm, natively (on every instruction set) and in PyTorch, and the gradients
of the obvious spelling.
"""

import numpy as np
import pytest
import torch

from nnac import arith, bind
from nnac.compression.minmax import MinMax
from nnac.compression.percentile import Percentile
from nnac.errors import UserError
from nnac.evaluate import evaluate
from nnac.formats import unit_scale
from nnac.ir import Node, QGraph, State, Value
from nnac.ops.linear import LinearAttributes
from nnac.ops.lstm import LstmAttributes
from nnac.train import integers as exact
from nnac.train import kernels, lstm_parts, native, native_lstm
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.native_weights import weights
from nnac.train.ops.linear import Linear
from nnac.train.quantiser import Settings, WeightQuantiser


def force(monkeypatch, kind):
    """The native library of this kind from here on; the test is skipped where the processor or a compiler is
    missing.
    """
    if kind not in native.kinds():
        pytest.skip(f"this processor has no {kind}: it can do {', '.join(native.kinds())}")
    monkeypatch.setenv("NNAC_NATIVE", kind)
    if native.library() is None:
        pytest.skip("no C compiler, so no native library")


@pytest.fixture(params=list(native.KINDS))
def kind(request, monkeypatch):
    """Each way the native library can be compiled for this processor."""
    force(monkeypatch, request.param)
    return request.param


@pytest.fixture(params=[*native.KINDS, "int8", "float"])
def route(request, monkeypatch):
    """Each way the products can be computed: by the native library, by PyTorch in int8 (with VNNI only) and in
    floats.
    """
    if request.param in native.KINDS:
        force(monkeypatch, request.param)
    else:
        monkeypatch.setenv("NNAC_NATIVE", "0")
    if request.param == "int8" and not exact.int8_products("cpu"):
        pytest.skip("no VNNI, without which PyTorch's int8 products are not exact")
    if request.param == "float":
        monkeypatch.setattr(exact, "int8_products", lambda kind: False)
    return request.param


def problem(seed, variant, *, inputs=24, cells=20, steps=9, batch=5, fraction=11, clip=1.0, extreme=False, gain=1.0):
    """(bound one-layer graph, input integers, Direction, real operands)."""
    rng = np.random.default_rng(seed)
    draw = (lambda *s: rng.choice([-128, 127], s)) if extreme else (lambda *s: rng.integers(-127, 128, s))
    c_x, c_h = draw(4 * cells, inputs), draw(4 * cells, cells)
    if extreme:
        c_h = np.clip(c_h, -127, 127)
    in_scale, hidden_scale = 0.02, unit_scale(8, clip)
    s_x = rng.uniform(0.5, 2.0, 4 * cells) * gain / (127 * np.sqrt(inputs))
    s_h = rng.uniform(0.5, 2.0, 4 * cells) * gain / (127 * np.sqrt(cells))
    bias = rng.standard_normal(4 * cells) * gain
    states = (State("l.hidden", cells, 8, hidden_scale), State("l.cell", cells, 16, 2.0**-fraction))
    attributes = LstmAttributes(
        cells=cells,
        variant=variant,
        fraction=fraction,
        hidden_bits=8,
        bidirectional=False,
        project=0,
        cell_output_bits=8,
    )
    if variant == "acc32":
        scale_x = scale_h = s_x * in_scale
        c = bind.lstm_acc32(c_x, c_h, scale_x, bias, 0, hidden_scale)
        first = Rescale.of(c["multiplier"], c["shift"], c["bias"], (inputs + cells) << 14, 0, 16, torch.device("cpu"))
        second = None
    else:
        scale_x, scale_h = s_x * in_scale, s_h * hidden_scale
        c = bind.lstm_sum16(c_x, s_x, c_h, s_h, bias, in_scale, 0, hidden_scale)
        first = Rescale.of(c["input_multiplier"], c["input_shift"], c["bias"], inputs << 14, 0, 16, torch.device("cpu"))
        second = Rescale.of(c["recurrent_multiplier"], c["recurrent_shift"], 0, cells << 14, 0, 16, torch.device("cpu"))
    node = Node("l", "lstm", ("x",), "l", "encoder", attributes, c | bind.lstm_tables(fraction), states)
    graph = QGraph(
        "one",
        {"x": Value("x", inputs, 8, scale=in_scale), "l": Value("l", cells, 8, scale=hidden_scale)},
        (node,),
        {"encoder": ("x",)},
        {"encoder": ("l",)},
    )
    x = rng.choice([-128, 127], (steps, batch, inputs)) if extreme else rng.integers(-128, 128, (steps, batch, inputs))
    codes = [torch.as_tensor(v).float() for v in (c_x, c_h)]
    direction = lstm_parts.Direction.of(
        variant, *codes, 8, 8, first, second, kernels.hidden_rescale(c, 8, torch.device("cpu")), fraction, hidden_scale
    )
    reals = [torch.as_tensor(v, dtype=torch.float32) for v in (bias, scale_x, scale_h)]
    return graph, x, direction, (*codes, *reals), Format(hidden_scale, 0, 8)


def run(x, direction, operands, form, cells, batch):
    c_x, c_h, bias, scale_x, scale_h = operands
    zero = torch.zeros(batch, cells)
    return kernels.lstm(torch.as_tensor(x).float(), c_x, c_h, bias, scale_x, scale_h, zero, zero, direction, 0, form)


@pytest.mark.parametrize("variant", ["acc32", "sum16"])
@pytest.mark.parametrize(
    "case",
    [
        dict(),
        dict(cells=16),
        dict(cells=33, inputs=7, batch=1),
        dict(gain=8.0),
        dict(extreme=True),
        dict(fraction=15),
        dict(fraction=8, gain=3.0),
        dict(clip=0.25),
        dict(steps=1, batch=17),
    ],
    ids=str,
)
def test_every_route_gives_the_integers_of_the_oracle(route, variant, case):
    for seed in range(3):
        graph, x, direction, operands, form = problem(seed, variant, **case)
        out, state = evaluate(graph, "encoder", dict(x=x))
        y, cell = run(x, direction, operands, form, graph.values["l"].width, x.shape[1])
        assert (y.numpy() == out["l"]).all() and (cell.numpy() == state["l.cell"]).all()


def test_every_table_entry_of_the_native_loop_is_that_of_arith(kind):
    """Through the cell: with i = f = o fixed, the table outputs are visible in the state; here all 65,536
    pre-activations of each gate.
    """
    cells, batch = 16, 4096
    everything = torch.arange(-32768, 32768).view(batch, cells)
    identity = Rescale.of(
        np.full(4 * cells, 2), np.full(4 * cells, 1), np.zeros(4 * cells), 1 << 20, 0, 16, torch.device("cpu")
    )
    hidden = kernels.hidden_rescale(bind.hidden(unit_scale(8)), 8, torch.device("cpu"))
    d = lstm_parts.Direction.of(
        "acc32",
        torch.zeros(4 * cells, 4),
        torch.zeros(4 * cells, cells),
        8,
        8,
        identity,
        None,
        hidden,
        11,
        unit_scale(8),
    )
    for gate in range(4):
        pre = torch.full((1, batch, 4, cells), 9000)
        pre[0, :, gate] = everything
        pre = pre.view(1, batch, -1)
        before = torch.randint(-32768, 32768, (batch, cells), generator=torch.Generator().manual_seed(gate))
        trace = lstm_parts.Trace.empty(pre, cells, d)
        native_lstm.forward(pre.to(torch.int32), torch.zeros(batch, cells), before, d, trace)
        tables = [
            torch.as_tensor(t.entries.astype(np.int64))
            for t in (arith.sigmoid_table(), arith.tanh_table(), arith.tanh_table(11))
        ]
        h, c = arith.lstm_cell(pre[0].long(), before, *tables, 11, int(hidden.multiplier), int(hidden.shift), 8)
        assert (
            torch.equal(trace.hidden[0].long(), h)
            and torch.equal(trace.cells[0].long(), c)
            and torch.equal(trace.pre[0].long(), pre[0])
        )


def everything(kind, monkeypatch, variant, case):
    """All that a sequence and its backward pass leave behind, as bytes."""
    force(monkeypatch, kind)
    graph, x, direction, operands, _ = problem(7, variant, **case)
    cells, batch = graph.values["l"].width, x.shape[1]
    leaves = [torch.as_tensor(x).float().requires_grad_(), *(v.clone().requires_grad_() for v in operands)]
    zero = torch.zeros(batch, cells)
    trace = kernels.forward(leaves[0].detach(), zero, zero, direction)
    dz, dc = torch.zeros(len(x), batch, 4 * cells), torch.full((batch, cells), 0.25)
    dy = torch.randn(len(x), batch, cells, generator=torch.Generator().manual_seed(1))
    native_lstm.Backward(dy, dy[0], dc, dz, zero, trace, direction)(len(x) - 1)
    kept = [trace.cell_outputs, trace.cells, trace.pre, trace.uncut, trace.cut_input, trace.cut_recurrent, dc, dz]
    return [None if v is None else v.numpy().tobytes() for v in kept]


@pytest.mark.parametrize("variant", ["acc32", "sum16"])
@pytest.mark.parametrize(
    "case",
    [dict(), dict(cells=33, batch=7, gain=8.0), dict(cells=64, batch=13, clip=0.25), dict(extreme=True)],
    ids=str,
)
def test_all_instruction_sets_leave_the_same_bits_gradients_too(monkeypatch, variant, case):
    possible = native.kinds()
    if len(possible) < 2:
        pytest.skip(f"this processor can do {possible[0]} only")
    first, *others = (everything(kind, monkeypatch, variant, case) for kind in possible)
    assert all(other == first for other in others)


def test_tables_and_their_slopes_are_the_same_bits_on_all_instruction_sets(monkeypatch):
    x = torch.arange(-32768, 32768).float()
    g = torch.randn(len(x), generator=torch.Generator().manual_seed(0))
    seen = {}
    for kind in native.kinds():
        force(monkeypatch, kind)
        for name, t, odd in (("sigmoid", arith.sigmoid_table(), False), ("tanh", arith.tanh_table(), True)):
            entries = torch.as_tensor(t.entries)
            by = native.Lookup(native.words(entries), odd, 1 << 30, 38, -3, -100, 90, -20000, 25000, 0.7)
            y, kept = by.forward(x, True)
            made = (y.numpy().tobytes(), by.backward(*kept, g).numpy().tobytes())
            assert seen.setdefault(name, made) == made
            expected = arith.requantise(t.full().astype(np.int64), 1 << 30, 38, -3, 32).clip(-100, 90)
            assert (y.numpy() == expected).all() and (by.forward(x, False)[0].numpy() == expected).all()


@pytest.mark.parametrize("kind", [k for k in native.KINDS if k != "vnni"])                  # PyTorch multiplies there
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 1025, 33), (97, 64, 16), (100, 2049, 31), (5, 7, 200), (0, 4, 4)], ids=str
)
def test_native_products_are_those_of_int64(kind, shape, monkeypatch):
    force(monkeypatch, kind)
    count, cols, outputs = shape
    generator = torch.Generator().manual_seed(0)
    for high in (128, -127):  # anything; then the most negative alone
        x, w = (
            torch.randint(-128, high, s, generator=generator).to(torch.int8) for s in ((count, cols), (cols, outputs))
        )
        assert torch.equal(native.product(x, w).long(), x.long() @ w.long())


def test_an_instruction_set_that_is_not_there_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("NNAC_NATIVE", "sve9")
    with pytest.raises(UserError, match=r"NNAC_NATIVE=sve9: this processor can do .*plain"):
        native.library()


def saturating(x, low, high):
    """Slope one strictly inside (low, high), none at or beyond: the mask the kernels state for 16-bit pre-activations
    and cells.
    """
    return torch.where((x > low) & (x < high), x, x.detach().clamp(low, high))


def naive(x, c_x, c_h, bias, scale_x, scale_h, c_p, scale_p, d, form, trace):
    """The same network by autograd, one obvious line an equation, with the integers of ``trace`` put in by
    `exactly`.
    """

    class Exactly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, value):
            return value.clone()

        @staticmethod
        def backward(ctx, g):
            return g, None

    unit, cells = 2.0**-d.fraction, len(c_h) // 4
    x = x.double()
    h, c = (
        torch.zeros(x.shape[1], c_h.shape[1], dtype=torch.float64),
        torch.zeros(x.shape[1], cells, dtype=torch.float64),
    )
    outputs = []
    for t in range(len(x)):
        a, b = scale_x * (x[t] @ c_x.t()) + bias, scale_h * (h @ c_h.t())
        if d.variant == "sum16":
            a, b = (torch.where(cut[t], v.detach(), v) for v, cut in ((a, trace.cut_input), (b, trace.cut_recurrent)))
        pre = saturating(Exactly.apply(a + b, trace.pre[t].double() / 4096), -8.0, 32767 / 4096)
        tables = kernels.tables(d.fraction, x.device)
        i, f, g, o = pre.view(-1, 4, cells).unbind(1)
        index = trace.pre[t].view(-1, 4, cells).long() + 32768
        i, f, o = (
            Exactly.apply(torch.sigmoid(v), tables.integers[index[:, k]].double() / 32768)
            for k, v in ((0, i), (1, f), (3, o))
        )
        g = Exactly.apply(torch.tanh(g), tables.integers[index[:, 2] + 65536].double() / 32768)
        c = saturating(Exactly.apply(f * c + i * g, trace.cells[t].double() * unit), -32768 * unit, 32767 * unit)
        u = Exactly.apply(torch.tanh(c), tables.cell[trace.cells[t].long() + 32768].double() / 32768)
        real = o * u / d.hidden_scale
        if trace.uncut is not None:
            real = torch.where(trace.uncut[t], real, real.detach())
        h = Exactly.apply(real, trace.cell_outputs[t].double())
        if c_p is not None:
            real = scale_p * (h @ c_p.t()) / form.scale
            h = Exactly.apply(torch.where(trace.projected_uncut[t], real, real.detach()), trace.projected[t].double())
        outputs.append(h)
    return torch.stack(outputs), c


@pytest.mark.parametrize("variant", ["acc32", "sum16"])
@pytest.mark.parametrize("case", [dict(), dict(cells=33, batch=2), dict(gain=8.0), dict(clip=0.25)], ids=str)
def test_gradients_are_those_of_naive_autograd(route, variant, case):
    graph, x, direction, operands, form = problem(5, variant, **case)
    cells, batch = graph.values["l"].width, x.shape[1]
    generator = torch.Generator().manual_seed(0)
    weight, weight_c = (
        torch.randn(len(x), batch, cells, generator=generator),
        torch.randn(batch, cells, generator=generator) * 1e-3,
    )
    leaves = [torch.as_tensor(x).float().requires_grad_(), *(v.clone().requires_grad_() for v in operands)]
    zero = torch.zeros(batch, cells)
    y, c = kernels.lstm(*leaves, zero, zero, direction, 0, form)
    ((y * weight).sum() + (c * weight_c).sum()).backward()
    trace = kernels.forward(torch.as_tensor(x).float(), zero, zero, direction)
    twins = [v.detach().double().requires_grad_() for v in leaves]
    y2, c2 = naive(*twins, None, None, direction, form, trace)
    assert torch.equal(y2.float(), y)
    ((y2 * weight).sum() + (c2 / 2.0**-direction.fraction * weight_c).sum()).backward()
    for name, got, expected in zip(("x", "input", "recurrent", "bias"), leaves[:4], twins[:4], strict=True):
        error = (got.grad.double() - expected.grad).norm() / expected.grad.norm()
        assert error < 2e-3, (name, float(error))          # slopes come from the table's own output: 2^-15 of one


@pytest.mark.parametrize("out_scale", [0.02, 0.002], ids=["usual", "saturating"])
def test_gradients_through_a_projection_are_those_of_naive_autograd(route, out_scale):
    _, x, d, (c_x, _, bias, scale_x, _), _ = problem(6, "acc32")
    cells, width, batch, rng = 20, 6, x.shape[1], np.random.default_rng(0)
    form, device = Format(out_scale, 0, 8), torch.device("cpu")
    c_h, c_p = (torch.as_tensor(rng.integers(-127, 128, s)).float() for s in ((4 * cells, width), (width, cells)))
    scale_p = torch.as_tensor(rng.uniform(0.5, 1.5, width) * unit_scale(8) / 200, dtype=torch.float32)
    c = bind.lstm_acc32(c_x.numpy(), c_h.numpy(), scale_x.double().numpy(), bias.double().numpy(), 0, unit_scale(8))
    p = bind.linear_scales(width, scale_p.double().numpy(), None, 1.0, 0, out_scale)
    first = Rescale.of(c["multiplier"], c["shift"], c["bias"], 1 << 24, 0, 16, device)
    project = lstm_parts.Projection(
        exact.packed(c_p, 8, 8), Rescale.of(p["multiplier"], p["shift"], p["bias"], 1 << 20, 0, 8, device), out_scale
    )
    d = lstm_parts.Direction.of(
        "acc32", c_x, c_h, 8, 8, first, None, kernels.hidden_rescale(c, 8, device), 11, unit_scale(8), True, project
    )
    leaves = [
        v.clone().requires_grad_() for v in (torch.as_tensor(x).float(), c_x, c_h, bias, scale_x, scale_x, c_p, scale_p)
    ]
    start = torch.zeros(batch, width), torch.zeros(batch, cells)
    weight = torch.randn(len(x), batch, width, generator=torch.Generator().manual_seed(0))
    y, _ = kernels.lstm(*leaves[:6], *start, d, 0, form, *leaves[6:])
    (y * weight).sum().backward()
    trace = kernels.forward(leaves[0].detach(), *start, d)
    assert (out_scale < 0.01) == bool((~trace.projected_uncut).any())
    twins = [v.detach().double().requires_grad_() for v in leaves]
    y2, _ = naive(*twins, d, form, trace)
    assert torch.equal(y2.float(), y)
    (y2 * weight).sum().backward()
    for got, expected in zip((*leaves[:4], leaves[6]), (*twins[:4], twins[6]), strict=True):
        assert (got.grad.double() - expected.grad).norm() / expected.grad.norm() < 2e-3


def test_the_carrier_is_proved_from_the_weights(monkeypatch):
    monkeypatch.setattr(exact, "int8_products", lambda kind: False)
    narrow, heavy = torch.full((2, 2048), 3.0), torch.full((2, 2048), 127.0)
    assert exact.carrier(1024, 8, 8, heavy) == torch.float32               # 1024 * 2^14 = 2^24: by width alone
    assert exact.carrier(2048, 8, 8, narrow) == torch.float32              # by the rows' own sums
    assert exact.carrier(2048, 8, 8, heavy) == torch.float64
    assert (
        exact.carrier(64, 16, 8, narrow[:, :64]) == torch.float32
        and exact.carrier(2048, 16, 16, heavy) == torch.float64
    )


def test_products_are_exact_at_their_extremes(route):
    for k in (1, 512, 1024, 3000):
        x, w = torch.full((3, k), -128.0), torch.full((5, k), -128.0)
        assert (exact.product(x, exact.packed(w, 8, 8)) == k << 14).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_rescale_equals_arith(route, bits):
    rng = np.random.default_rng(bits)
    for _ in range(50):
        scale = np.exp(rng.uniform(-30, 0, 7))
        m, s = arith.multiplier_and_shift(scale)
        reach = 1 << int(rng.integers(8, 31))
        acc = rng.integers(-reach, reach + 1, (40, 7))
        bias = rng.integers(-reach, reach + 1, 7)
        expected = arith.requantise(acc + bias, m, s, 3, bits)
        for carried in (acc, acc.astype(np.int32)):                        # int32: what the native library takes
            got, inside = Rescale.of(m, s, bias, reach, 3, bits, torch.device("cpu"))(torch.as_tensor(carried))
            assert (got.numpy() == expected).all()
            free = arith.requantise(acc + bias, m, s, 3, 32)
            assert (free == expected).all() if inside is None else (inside.numpy() == (free == expected)).all()


@pytest.mark.parametrize("rows, cols, outputs", [(1, 1, 5), (3, 1, 5), (1, 7, 3), (4, 5, 1), (1, 1, 1), (1, 64, 64)])
def test_products_with_a_dimension_of_one_are_right_whatever_their_strides(route, rows, cols, outputs):
    """torch._int_mm alone fails here: it trusts the strides of dimensions of size one (pytorch issue 195066)."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randint(-128, 128, (rows, 3, cols), generator=generator).float()
    w = torch.randint(-128, 128, (outputs, cols), generator=generator).float()
    x = wide[:, 1].as_strided((rows, cols), (0, 1)) if rows == 1 else wide[:, 1]
    assert torch.equal(exact.product(x, exact.packed(w, 8, 8)).double(), x.double() @ w.double().t())


def linear_layer(rows, cols, bits=8, bias=True):
    """A trained layer by itself, its weights of rows of all sizes."""
    values = {"x": Value("x", cols, 8), "l": Value("l", rows, 8)}
    node = Node("l", "linear", ("x",), "l", "encoder", LinearAttributes(bias=bias, weight_bits=8))
    layer = Linear(node, QGraph("one", values, (node,), {"encoder": ("x",)}, {"encoder": ("l",)}))
    generator = torch.Generator().manual_seed(rows)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(rows, cols, generator=generator) *
                           torch.logspace(-9, 1, rows).view(-1, 1)[torch.randperm(rows, generator=generator)])
        layer.weight[0] = 0.0
        layer.weight[1, :3] = torch.tensor([127.0, 0.5, -2.5])               # half to even, on a unit of one
        if bias:
            layer.bias.copy_(torch.randn(rows, generator=generator) * 1e-3)
    layer.make_quantisers(lambda kernel, w, kept: WeightQuantiser(Settings(MinMax(), bits), w, name=kernel))
    layer.quantiser.restart(layer.weight)
    return layer


@pytest.mark.parametrize("zero_point", [0, -17])
@pytest.mark.parametrize("bits, bias", [(8, True), (8, False), (4, True), (2, True)])
@pytest.mark.parametrize("rows, cols", [(2, 3), (33, 7), (16, 64), (70, 129)])
def test_weights_of_a_step_are_those_that_are_bound(kind, rows, cols, bits, bias, zero_point):
    layer, x, out = linear_layer(rows, cols, bits, bias), Format(0.02, zero_point, 8), Format(30.0, 3, 8)
    quick, slow = layer.constants_of_a_step([x], out), layer.constants([x], out)
    assert not quick.graph and slow.graph, "the native function was left aside"
    assert torch.equal(quick.codes["weight"], slow.codes["weight"])
    assert torch.equal(quick.ready["matrix"], slow.ready["matrix"]) and quick.ready["matrix"].dtype == torch.int8
    assert torch.equal(quick.ready["acc_scale"], slow.ready["acc_scale"])
    a, b = quick.ready["rescale"], slow.ready["rescale"]
    for name in ("factor", "offset", "bias", "multiplier", "shift"):
        expected = getattr(b, name)
        assert torch.equal(getattr(a, name), expected) and getattr(a, name).dtype == expected.dtype, name
    assert (a.zero_point, a.bits, a.wide, a.narrow) == (b.zero_point, b.bits, b.wide, b.narrow)
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-128, 128, (3, 5, cols), generator=generator)
    g = torch.randn(3, 5, rows, generator=generator)
    made = []
    for c in (quick, slow):
        layer.kept_constants, given = (lambda ins, out, c=c: c), values.float().requires_grad_()
        y = layer.integers([given], [x], out, {}, None)
        made.append((y, *torch.autograd.grad(y, (given, layer.weight, *([layer.bias] if bias else [])), g)))
    assert all(map(torch.equal, *made)) and made[0][2].any()


@pytest.mark.parametrize("what", ["no number", "infinite", "bias is none", "bias has no room", "scale too large"])
def test_weights_that_do_not_fit_go_the_long_way_which_says_why(kind, what):
    layer, out = linear_layer(8, 6), Format(1e-9 if what == "scale too large" else 30.0, 0, 8)
    with torch.no_grad():
        if what in ("no number", "infinite"):
            layer.weight[5, 2] = float("nan" if what == "no number" else "inf")
        elif what != "scale too large":
            layer.bias[3] = float("nan") if what == "bias is none" else 1e4
    x = Format(0.02, 0, 8)
    assert weights(layer.quantiser, layer.weight, layer.bias, x, out) is None
    if what == "bias has no room":
        assert layer.constants_of_a_step([x], out).graph                       # a coarser unit for that row
    else:
        with pytest.raises(ValueError):
            layer.constants_of_a_step([x], out)


@pytest.mark.parametrize("settings", [Settings(MinMax(), 1), Settings(MinMax(), 8, "tensor"), Settings(Percentile(), 8),
                                      Settings(MinMax(), 8, "group", 4)], ids=str)
def test_other_ways_of_rounding_weights_are_not_the_native_functions(settings):
    layer = linear_layer(8, 8)
    quantiser = WeightQuantiser(settings, layer.weight)
    quantiser.restart(layer.weight)
    assert quantiser.outermost is None
    masked = WeightQuantiser(Settings(MinMax(), 8), layer.weight)
    assert masked.outermost is None                                            # not started: the first pass starts it
    masked.restart(layer.weight)
    masked.mask = torch.ones(8, 8, dtype=torch.bool)
    assert masked.outermost is None


@pytest.mark.parametrize("shapes", [((3, 4, 1, 33), (3, 1, 5, 33)), ((2, 1, 7), (6, 7)), ((4, 16), (1, 16)),
                                    ((5,), (3, 5)), ((2, 3, 1, 4), (2, 3, 6, 4)), ((0, 2, 4), (1, 2, 4))], ids=str)
@pytest.mark.parametrize("bits", [8, 16])
def test_sums_that_broadcast_are_those_of_the_arithmetic_and_so_are_their_slopes(kind, shapes, bits):
    rng = np.random.default_rng(bits)
    values = [rng.integers(-30000, 30000, s) for s in shapes]
    scales = (0.9, 0.7) if bits == 16 else (0.003, 0.0025)
    m, s = arith.multiplier_and_shift(np.asarray(scales))
    by = tuple(Rescale.of(m[k], s[k], 0, 1 << 15, 0, bits, torch.device("cpu")) for k in range(2))
    a, b = (torch.as_tensor(v).float().requires_grad_() for v in values)
    y = exact.add(a, b, scales, by, Format(1.0, 0, bits))
    assert np.array_equal(y.detach().numpy(), arith.add(*values, m, s, bits))
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    terms = [arith.round_shift(v * m[k], s[k]) for k, v in enumerate(values)]
    low, high = arith.limits(bits)
    whole = sum(t.clip(low, high) for t in terms)
    assert y.numel() < 50 or not (whole == whole.clip(low, high)).all()
    passes = g.double() * torch.as_tensor(whole == whole.clip(low, high))
    for v, t, scale, got in zip((a, b), terms, scales, torch.autograd.grad(y, (a, b), g), strict=True):
        expected = passes.sum_to_size(v.shape) * torch.as_tensor(t == t.clip(low, high)) * scale
        assert got.shape == v.shape and torch.allclose(got.double(), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("width", [1, 16, 33, 128])
@pytest.mark.parametrize("gain, bias", [(1.0, 0.1), (1e-3, 1e-3), (1e-4, 50.0), (30.0, 0.0), (0.0, 1.0)])
def test_a_norms_constants_of_a_step_are_those_that_are_bound(kind, width, gain, bias):
    generator = torch.Generator().manual_seed(width)
    g, b = gain * torch.randn(width, generator=generator), bias * torch.randn(width, generator=generator)
    bound = bind.layer_norm(g.double().numpy(), b.double().numpy(), 1e-5, 0.003, 0.02)
    expected = native.Norm.of({k: torch.as_tensor(np.asarray(v).astype(np.int64)) for k, v in bound.items()})
    made = native.Norm.of_a_step(g, b, 1e-5, 0.003, 0.02)
    assert made is not None and torch.equal(made.gain, expected.gain) and torch.equal(made.bias, expected.bias)
    assert (made.epsilon, made.root_width, made.multiplier, made.shift) == (
        expected.epsilon, expected.root_width, expected.multiplier, expected.shift)
    assert native.Norm.of_a_step(g, b.index_fill(0, torch.tensor(0), float("nan")), 1e-5, 0.003, 0.02) is None
    for other in (g + 1e30, g * 1e-12):                                     # no such shift: to the left, and beyond 62
        assert native.Norm.of_a_step(other, 0 * b, 1e-5, 0.003, 0.02) is None
