"""Rounding with error feedback: against the slow definition, on every grid, on every operator with products."""

import pytest
import torch
from torch import nn

import nnac
from nnac.compression._feedback import damped, fed_back, output_error
from nnac.formats import Precision
from nnac.lower import lower, lower_plan
from nnac.model import EntryPoint, Kernel, Layer, ModelGraph, build
from nnac.train.families import module_of
from nnac.train.families.rnnt import Transducer
from nnac.train.module import CalibrationWarning, GraphModule
from nnac.train.ops import valid
from nnac.train.quantiser import KernelQuantiser, Part, WeightQuantiser
from nnac.train.schedule import Compression
from tests.methods import GRANULARITIES, make, settings, weight_methods, weights
from tests.test_train_methods import POLICY
from tests.test_train_module import data, differences
from tests.test_train_recurrent import KINDS, made


def gram(cols, seed=0, samples=400):
    """Of inputs that hang together, as hidden states do."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, cols, generator=g) @ torch.randn(cols, cols, generator=g) * torch.rand(cols, generator=g)
    return x.T @ x / samples


def slowly(w, gram, damp, settle):
    """The definition: after each column, the rest moves to where the damped output error is least."""
    g, w, out = damped(gram, damp), w.double().clone(), torch.empty_like(w, dtype=torch.float64)
    free = gram.diagonal().argsort(descending=True, stable=True).tolist()
    while free:
        j, *free = free
        out[:, j] = settle(w[:, j].float(), j)
        if free:
            error = w[:, j] - out[:, j]
            w[:, free] += error[:, None] * torch.linalg.solve(g[free][:, free], g[free, j])
    return out


@pytest.mark.parametrize("cols", [1, 7, 70])
def test_error_feedback_is_the_best_move_of_the_columns_that_are_free(cols):
    w, g = weights(12, cols), gram(cols)
    for settle in (lambda x, j: (x / 0.07).round() * 0.07, lambda x, j: x * (j % 3 > 0)):
        fast, slow = fed_back(w, g, 0.01, settle), slowly(w, g, 0.01, settle)
        assert (fast - slow).abs().max() < 1e-4


def test_columns_that_do_not_hang_together_are_rounded_to_the_nearest():
    q = WeightQuantiser(settings("lloyd_max", round=make("gptq")), weights()).eval()
    q.meet(torch.diag(torch.rand(40) + 0.1))
    codes, scale = q(weights())
    assert torch.equal(q.rounded(weights()), codes * scale[:, None])


@pytest.mark.parametrize("keyword", weight_methods())
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rounding_by_products_stays_on_the_grid_and_damages_the_output_less(keyword, granularity):
    w, g = weights(48, 40), gram(40)
    q = WeightQuantiser(settings(keyword, granularity, bits=3, round=make("gptq")), w)
    q.set_length(10)
    q.restart(w)
    q.meet(g)
    codes, scale = q.eval()(w)
    rounded = q.rounded(w)
    for mode in (True, False):                             # what training starts from is what evaluation sees
        again, same = q.train(mode)(rounded)
        if q.exact:
            assert torch.equal(again * same[:, None], rounded) and torch.equal(same, scale)
    assert float(output_error(rounded - w, g)) < 0.9 * float(output_error(codes * scale[:, None] - w, g))
    v = nn.Parameter(rounded.clone())
    q.train().on_step(1, v)
    q.freeze(v)
    assert torch.equal(v, rounded) or keyword == "sawb"    # whose average moves
    assert q.inputs.numel() == 0                           # a finished module does not carry what it met


def test_parts_are_rounded_each_by_the_inputs_of_its_columns():
    w, g = weights(16, 40), gram(40)
    parts = [(Part(0, 16, 0, 24), WeightQuantiser(settings("minmax", bits=3, round=make("gptq")), w[:, :24])),
             (Part(0, 16, 24, 40), WeightQuantiser(settings("minmax", bits=8), w[:, 24:]))]
    q = KernelQuantiser(parts, (16, 40))
    assert q.wants_inputs and not parts[1][1].wants_inputs
    q.restart(w)
    q.meet(g)
    codes, scale = q.eval()(w)
    rounded = q.rounded(w)
    assert torch.equal(rounded[:, 24:], w[:, 24:])
    again, same = q(rounded)
    assert torch.equal((again * same[:, None])[:, :24], rounded[:, :24]) and torch.equal(same, scale)
    part = g[:24, :24]
    assert output_error(rounded[:, :24] - w[:, :24], part) < output_error((codes * scale[:, None] - w)[:, :24], part)


def frame_by_frame(module, path, x, lengths, bits=None):
    """``E[x x^T]`` of both kernels of a recurrent layer, from a pass over each sequence alone."""
    layer, grams, count = module.layer(path), [0.0, 0.0], 0
    for b in range(x.shape[1]):
        state = {s.name: torch.zeros(1, s.width) for s in layer.node.states}
        for t in range(int(lengths[b])):
            hidden = state[layer.node.states[0].name]
            for i, v in enumerate((x[t, b], hidden[0])):
                grams[i] = grams[i] + torch.outer(v.double(), v.double())
            layer.reals([x[t: t + 1, b: b + 1]], state, None)
            count += 1
    return [g / count for g in grams]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_recurrent_kernel_meets_the_hidden_states_of_the_step_before(kind):
    module, x, lengths = made(kind), torch.randn(9, 3, 10), torch.tensor([9, 4, 6])
    layer, state = module.layer("net.rnn"), module._state("encoder", 3, torch.zeros(1))
    before = dict(state)
    y = layer.reals([x], state, lengths)
    met = dict(layer.meets([x], y, before, lengths))
    for name, expected in zip(("net.rnn.input", "net.rnn.recurrent"), frame_by_frame(module, "net.rnn", x, lengths),
                              strict=True):
        v = met[name].double()
        assert torch.allclose(v.T @ v / len(v), expected, atol=1e-6)


@pytest.mark.parametrize("variant,both", [("sum16", False), ("acc32", True), ("sum16", True)])
@pytest.mark.parametrize("project", [None, 5])
@torch.no_grad()
def test_an_lstm_meets_its_inputs_its_hidden_states_and_its_cells(variant, both, project):
    torch.manual_seed(0)
    width, directions = project or 12, ("forward.", "backward.") if both else ("",)
    kernels = tuple(k for d in directions for k in (
        Kernel(f"{d}input", f"net.rnn.{d}input", 48, 10), Kernel(f"{d}recurrent", f"net.rnn.{d}recurrent", 48, width),
        *((Kernel(f"{d}project", f"net.rnn.{d}project", width, 12),) if project else ())))
    graph = ModelGraph("net", {}, (Layer("net.rnn", "lstm", ("features",), width * len(directions), 1, "encoder",
                                         kernels, dict(cells=12, bidirectional=both, project=project or 0)),),
                       dict(features=10), entries=(EntryPoint("encoder"),))
    module = GraphModule(lower(graph, lambda path: Precision(variant=variant)))
    layer, x, lengths = module.layer("net.rnn"), torch.randn(9, 3, 10), torch.tensor([9, 4, 6])
    state = module._state("encoder", 3, torch.zeros(1))
    before = dict(state)
    y = layer.reals([x], state, lengths)
    met = dict(layer.meets([x], y, before, lengths))
    for d, suffix, made_by in zip(directions, ("", "_reverse"), y.chunk(len(directions), -1), strict=False):
        for b in range(3):                                 # alone, in its own order of time
            n = int(lengths[b])
            alone = x[:n, b].flip(0) if suffix else x[:n, b]
            hidden = made_by[:n, b].flip(0) if suffix else made_by[:n, b]
            delayed = torch.cat([torch.zeros(1, width), hidden[:-1]])
            rows = [int((lengths > t)[:b].sum()) + sum(int((lengths > s).sum()) for s in range(t)) for t in range(n)]
            if variant == "acc32":
                assert torch.allclose(met[f"net.rnn.{d}input | recurrent"][rows], torch.cat([alone, delayed], 1),
                                      atol=1e-6)
            else:
                assert torch.allclose(met[f"net.rnn.{d}input"][rows], alone)
                assert torch.allclose(met[f"net.rnn.{d}recurrent"][rows], delayed, atol=1e-6)
            if project:
                cells = met[f"net.rnn.{d}project"][rows] @ getattr(layer, f"weight_hr_l0{suffix}").T
                assert torch.allclose(cells, hidden, atol=1e-5)


@pytest.mark.parametrize("accumulate,weights", [("acc32", "int3 per_channel minmax"), ("sum16", "lloyd_max(3)"),
                                                ("sum16", "gq(3)")])
def test_a_policy_that_rounds_by_products_loses_less_and_its_integers_agree(accumulate, weights):
    def made_for(how):
        rules = (f"layers **.lstm[*] {{ accumulate {accumulate} }}\n" + "".join(
            f"  layers {kernels} {{ weights {weights}; round {how} }}\n"
            for kernels in ("encoder.lstm[*].{input, recurrent}", "joint.encoder.weight")))
        plan = nnac.loads(POLICY.format(rules=rules)).plan
        assert nnac.plan.Plan.from_json(plan.to_json()) == plan
        torch.manual_seed(0)
        module = Transducer(lower_plan(plan), None, plan)
        before = module.float_state_dict()
        module.calibrate([data(module, seed) for seed in range(10, 26)])
        return module, before

    errors = {}
    for how in ("none", "gptq"):
        module, before = made_for(how)
        features, lengths, targets = data(module, 2)
        real = Transducer(module.graph, before, module.plan)
        real.switch("*", False)
        module.eval()
        assert differences(module, features, targets)[1] == 0
        if how == "gptq":
            for slot in Compression(module).slots:
                assert (slot.quantiser.wants_inputs and slot.quantiser.inputs.any()) == ("encoder.lstm" in slot.name
                                                                                        or "joint.enc" in slot.name)
        Compression(module, 0).finish()
        assert differences(module, features, targets)[1] == 0
        with torch.no_grad():
            errors[how] = float((module(features, lengths, targets)[0] - real(features, lengths, targets)[0]).norm())
    assert errors["gptq"] < errors["none"]


def test_weights_that_nothing_met_are_named():
    plan = nnac.loads(POLICY.format(rules="layers encoder.lstm[0].input { weights int4; round gptq }\n  "
                                          "layers encoder.lstm[0] { accumulate sum16 }")).plan
    module = Transducer(lower_plan(plan), None, plan)
    features, lengths, targets = data(module, 1)
    with pytest.warns(CalibrationWarning, match=r"nothing but zeros met `encoder.lstm\[0\].input`"):
        module.calibrate([(torch.zeros_like(features), lengths, targets)])


@torch.no_grad()
def test_a_depthwise_convolution_meets_the_taps_of_every_channel():
    """What it meets, times its kernels, is its output."""
    torch.manual_seed(0)
    module = module_of("conformer")(lower(build("conformer", size="tiny", blocks=1, kernel=3),
                                          lambda path: Precision()))
    layer = module.layer("encoder.block[0].convolution.depthwise")
    x, lengths = torch.randn(16, 2, layer.width), torch.tensor([16, 9])
    state = module._state("encoder", 2, torch.zeros(1))
    before = dict(state)
    y = layer.reals([x], state, lengths)
    (name, taps), = layer.meets([x], y, before, lengths)
    made = (taps.view(-1, layer.width, 3) * layer.weight).sum(-1) + (0 if layer.bias is None else layer.bias)
    assert name.endswith("depthwise.weight") and torch.allclose(made, valid(y, lengths), atol=1e-5)
