"""Calibration keeps its resolution, says what saturates, and leaves no trace when it is stopped."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import nnac
from nnac import bind
from nnac.checkpoint import CheckpointError
from nnac.compression import entropy, percentile
from nnac.emulator.executor import Emulator
from nnac.evaluate import evaluate, initial_state
from nnac.formats import Precision
from nnac.lower import lower
from nnac.ops import kinds
from nnac.schedule.compile import compile_graph
from nnac.train.activation import ActivationQuantiser, Histogram, UncalibratedError
from nnac.train.module import CalibrationError, CalibrationWarning
from nnac.train.ops import layer_of
from nnac.train.ops._cell import Celled, Cells
from nnac.train.policy import load_module
from tests.test_train_recurrent import model as recurrent

HEAD = 'import "specs/targets/edge.nnac"\npolicy p {{ model module\n target edge\n' \
    ' layers ** {{ weights int8 per_channel; activations int{} {} }} }}\n'

RNNT = 'import "specs/targets/edge.nnac"\npolicy p {{ model rnnt(size="tiny")\n target edge\n' \
    ' layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}\n' \
    ' layers encoder.lstm[*] {{ cell int16 fraction({}) }} }}\n'


def seen(values, bins=4096):
    made = Histogram(bins)
    for part in np.array_split(np.asarray(values, np.float32), 3):
        made.add(torch.from_numpy(part))
    return made


@pytest.mark.parametrize("outlier", [10.0, 1e3, 1e6, 1e12, 3.4e38])
def test_one_outlier_does_not_blunt_the_percentile(outlier):
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    exact = float(np.quantile(np.abs(x), 0.9999))
    assert abs(seen([*x, outlier]).percentile(99.99) - exact) < 0.02 * exact


@pytest.mark.parametrize("outlier", [1e4, 1e6, 1e12])
def test_one_outlier_does_not_blunt_the_entropy(outlier):
    x = np.random.default_rng(0).standard_normal(100_000)
    assert 2.0 < entropy.Entropy().clip_of(seen([*x, outlier], 2048), 8) < 40.0


@pytest.mark.parametrize("values", [[0, 1] * 500, [-1, 1] * 500, [1.0] * 999, [0.3] * 999, [0] * 999 + [1],
                                    [2.0, 4.0] * 99, [1e-30] * 9, [3e38] * 9])
@pytest.mark.parametrize("method", [entropy.Entropy(), percentile.Percentile(99.99)], ids=str)
def test_flags_and_constants_are_held(values, method):
    clip = method.clip_of(seen(values, method.bins), 8)
    largest = max(map(abs, values))
    assert clip == pytest.approx(largest, rel=0.02)


def test_what_is_no_number_is_named_with_its_value_and_leaves_no_trace():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), torch.randn(12, 3, 6)
    module, clean = (nnac.prepare(model, HEAD.format(8, "percentile(99.99)"), x) for _ in range(2))
    bad = x.clone()
    bad[3, 1, 2] = math.nan
    with pytest.raises(CalibrationError,
                       match=r"`input.*nan|`x.*nan|`.*`: 1 of 216 numbers are not finite, the first nan"):
        module.calibrate([(100 * x,), (bad,)])
    module.calibrate([(x,)])
    clean.calibrate([(x,)])
    assert {k: v.tolist() for k, v in module.state_dict().items()} == {k: v.tolist()
                                                                       for k, v in clean.state_dict().items()}


def test_nothing_but_zeros_is_said():
    x = torch.zeros(12, 3, 6)
    module = nnac.prepare(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), HEAD.format(8, "percentile(99.99)"),
                          torch.randn(12, 3, 6))
    with pytest.warns(CalibrationWarning, match="was zero in everything"):
        module.calibrate([(x,)])


def test_a_bias_beside_tiny_weights_has_the_room_of_the_wide_accumulator():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), torch.randn(12, 3, 6)
    with torch.no_grad():
        model[1].weight[2] *= 1e-6
        model[1].bias[2] = -8.0
        module = nnac.prepare(model, HEAD.format(16, "percentile(99.99)"), x)
        module.calibrate([(x,)])
        assert torch.allclose(module(x)[..., 2], torch.full((12, 3), -8.0), atol=0.01)
        graph = module.eval().bind()
    (entry,) = graph.inputs
    name = graph.inputs[entry][0]
    given = {name: np.random.default_rng(1).integers(-32768, 32768, (5, 2, graph.values[name].width))}
    program = compile_graph(graph, module.plan.target)
    ours, _ = Emulator(program).run(entry, given, {})
    theirs, _ = evaluate(graph, entry, given, initial_state(graph, 2))
    assert all(np.array_equal(ours[k], theirs[k]) for k in theirs)


class OneLayer(nn.Module):
    def __init__(self, layer, recurrent):
        super().__init__()
        self.layer, self.recurrent = layer, recurrent

    def forward(self, x):
        return self.layer(x)[0] if self.recurrent else self.layer(x)


LAYERS = {
    "linear": (lambda: OneLayer(nn.Linear(320, 8), False), ""),
    "lstm": (lambda: OneLayer(nn.LSTM(320, 8), True), ""),
    "lstm, two sums": (lambda: OneLayer(nn.LSTM(320, 8), True), "layers layer { accumulate sum16 }"),
    "lstm, gates apart": (lambda: OneLayer(nn.LSTM(320, 8), True), "layers layer.input.gate.f { weights int4 sawb }"),
    "lstm, codebook": (lambda: OneLayer(nn.LSTM(320, 8), True),
                       "layers layer.{input, recurrent} { weights lloyd_max(4) }"),
    "lstm, per tensor": (lambda: OneLayer(nn.LSTM(320, 8), True),
                         "layers layer.{input, recurrent} { weights int8 per_tensor }"),
    "gru": (lambda: OneLayer(nn.GRU(320, 8), True), ""),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", LAYERS)
def test_biases_beside_tiny_weights_and_sums_of_wide_inputs_fit_every_accumulator(name, bits):
    """Whatever the layer sums in: the integers stand for what the float layer computes."""
    make, rules = LAYERS[name]
    torch.manual_seed(0)
    model, x = make(), torch.randn(12, 3, 320)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "weight" in key:
                parameter[2::8] *= 1e-9                    # all that these rows have is their bias
                parameter[5] = parameter[5].abs().amax()   # and this row's sums are as large as they get
            else:
                parameter[2::8] = 1.5
    module = nnac.prepare(model, HEAD.format(bits, "percentile(99.99)").replace(" } }", " }\n" + rules + " }"), x)
    silent_calibration(module, x)
    with torch.no_grad():
        ours, float_ = module.eval()(x), model(x)
    graph = module.bind()                                  # and verified: every sum fits
    assert float((ours[..., 2] - float_[..., 2]).abs().max()) < 0.02 * float(float_.abs().max())
    if "codebook" not in name and "apart" not in name:
        assert float((ours - float_).norm() / float_.norm()) < 0.05
    most = 1 << (bits - 1)
    given = {graph.inputs["encoder"][0]: np.random.default_rng(1).integers(-most, most, (4, 2, 320))}
    program = compile_graph(graph, module.plan.target)
    machine, _ = Emulator(program).run("encoder", given, {})
    theirs, _ = evaluate(graph, "encoder", given, initial_state(graph, 2))
    assert all(np.array_equal(machine[k], theirs[k]) for k in theirs)


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(16, 16, 5, groups=16)

    def forward(self, x):
        return self.layer(nn.functional.pad(x.permute(1, 2, 0), (4, 0))).permute(2, 0, 1)


def test_a_bias_beside_the_tiny_taps_of_a_channel_fits_its_sums():
    torch.manual_seed(0)
    model, x = Depthwise(), 1e-4 * torch.randn(12, 3, 16)
    with torch.no_grad():
        model.layer.weight[2::8] *= 1e-9
        model.layer.bias.fill_(0.0)
        model.layer.bias[2::8] = 2e-2                      # 2^32 units of the least weight and input
    module = nnac.prepare(model, HEAD.format(8, "percentile(99.99)"), x)
    silent_calibration(module, x)
    with torch.no_grad():
        assert float((module.eval()(x) - model(x)).abs().max()) < 2e-4
    graph = module.bind()                                  # and verified
    given = {graph.inputs["encoder"][0]: np.random.default_rng(1).integers(-128, 128, (7, 2, 16))}
    machine, _ = Emulator(compile_graph(graph, module.plan.target)).run("encoder", given, {})
    theirs, _ = evaluate(graph, "encoder", given, initial_state(graph, 2))
    assert all(np.array_equal(machine[k], theirs[k]) for k in theirs)


def test_an_input_of_the_model_that_is_too_wide_for_its_reader_is_a_line_of_the_policy():
    with pytest.raises(nnac.DiagnosticError) as error:
        nnac.prepare(Depthwise(), HEAD.format(16, "percentile(99.99)"), torch.randn(12, 3, 16))
    (problem,) = error.value.exceptions
    assert "wide-input" in str(problem) and "`layer` takes int8; `activations int8` there" in str(problem)


def test_a_layer_norm_whose_gain_is_tiny_beside_its_bias_keeps_the_bias():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)), torch.randn(12, 3, 6)
    with torch.no_grad():
        model[1].weight *= 1e-6
        model[1].bias[2] = -3.0
    module = nnac.prepare(model, HEAD.format(8, "percentile(99.99)"), x)
    silent_calibration(module, x)
    with torch.no_grad():
        assert float((module(x) - model(x)).norm() / model(x).norm()) < 0.02


def test_what_is_bound_by_hand_and_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"the bias of row 1 is 3e.15 accumulator units"):
        bind.linear(np.ones((2, 3)), np.full(2, 1e-9), np.array([0.0, -3.0]), 1e-6, 0, 1.0)


def test_a_bias_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="row 1"):
        bind.linear_scales(2, 1.0, np.array([0.0, np.nan]), 1.0, 0, 1.0)


def test_a_learned_clip_that_passes_through_zero_comes_back():
    from nnac.compression.pact_symmetric import PactSymmetric

    torch.manual_seed(0)
    x = torch.randn(1000)
    for start in (3.0, -3.0, 0.02, -0.02):
        quantiser = ActivationQuantiser(8, PactSymmetric())
        with torch.no_grad():
            quantiser.high.fill_(start)
        optimiser = torch.optim.SGD(quantiser.parameters(), lr=0.5)
        for _ in range(300):
            form = quantiser.format("x")
            z = x / form.scale
            y = quantiser.learn((z + 0.5).floor().clamp(-127, 127), form, lambda z=z: z) * form.scale
            ((y - x) ** 2).mean().backward()
            optimiser.step()
            optimiser.zero_grad()
        assert 1.5 < abs(float(quantiser.high)) < 6.0, start


def counting():
    """An LSTM whose cells count: up by tanh(3) a step, then down."""
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(1, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    made = Counter()
    with torch.no_grad():
        for p in made.rnn.parameters():
            p.zero_()
        made.rnn.bias_ih_l0[:8] = 8.0
        made.rnn.weight_ih_l0[8:12] = 3.0
    x = torch.ones(60, 2, 1)
    x[30:] = -1
    return made, x


def test_cells_that_saturate_are_counted_and_the_fraction_that_holds_them_is_named():
    model, x = counting()
    module = nnac.prepare(model, HEAD.format(8, "percentile(99.99)"), x)
    with pytest.warns(CalibrationWarning,
                      match=r"of the cells of `rnn` .* saturate under `cell int16 fraction\(11\)`: `fraction\(10\)`"):
        module.calibrate([(x,)])
    policy = HEAD.format(8, "percentile(99.99)").replace(" } }", " }\n layers rnn { cell int16 fraction(10) } }")
    held = nnac.prepare(model, policy, x)
    silent_calibration(held, x)
    with torch.no_grad():
        assert float((held(x) - model(x)).norm() / model(x).norm()) < 0.05


AUTO = HEAD.format(8, "percentile(99.99)").replace(" } }", " }\n layers rnn { cell int16 auto } }")


def silent_calibration(module, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CalibrationWarning)
        module.calibrate([(x,)])


@pytest.mark.parametrize(("make", "fraction"), [
    (lambda x: x, 9),                        # 30 steps of tanh(3) up: 29.8, a quarter more is 37: +-64
    (lambda x: 0.1 * x, 11),                 # of tanh(0.3): 8.7, and 10.9: +-16
    (lambda x: x.abs().repeat(5, 1, 1), 6),  # 300 of them: 298, and 373: +-512
])
def test_calibration_chooses_the_fraction_of_an_automatic_cell(make, fraction, tmp_path):
    """Against fractions worked out by hand; kept by a checkpoint; the integers are those of a policy that says it."""
    model, x = counting()
    x = make(x)
    module = nnac.prepare(model, AUTO, x)
    with pytest.raises(UncalibratedError):
        module.bind()
    assert "cell not calibrated" in module.summary()
    silent_calibration(module, x)
    assert f"cell fraction({fraction}): 0 % saturated" in module.summary()
    graph = module.eval().bind()
    node = next(n for n in graph.nodes if n.path == "rnn")
    assert node.attributes["fraction"] == fraction
    assert {s.name: s.scale for s in node.states}["rnn.cell"] == 2.0**-fraction
    module.save(tmp_path / "a.nnc")
    back = load_module(tmp_path / "a.nnc").module
    said = nnac.prepare(model, AUTO.replace("auto", f"fraction({fraction})"), x)
    silent_calibration(said, x)
    again = back.bind()
    assert str(again) == str(graph)
    assert all(np.array_equal(a.constants[k], b.constants[k]) for a, b in zip(graph.nodes, again.nodes, strict=True)
               for k in a.constants)
    with torch.no_grad():
        ints = module(x)
        assert torch.equal(ints, said.eval()(x))
        assert float((ints - model(x)).norm() / model(x).norm()) < 0.1


def test_cells_that_no_fraction_holds_are_counted():
    module = nnac.prepare(counting()[0], AUTO, counting()[1])
    layer = module.layer("rnn")
    layer.looked = Cells()
    layer.look(torch.tensor([[20000.0, 3.0, -17000.0, 1.0]]))
    assert layer.settle_cell(True).share == 0.5 and layer.fraction == 1
    assert "cell fraction(1): 50 % saturated" in module.summary()


@pytest.mark.parametrize("said", [11, 15, 1, 0])
@pytest.mark.parametrize("kind", [k for k in kinds() if (made := layer_of(k)) and issubclass(made, Celled)])
def test_a_suggested_fraction_is_one_that_the_language_takes_and_that_holds_the_cells(kind, said):
    """Over the registry of operators; 0: calibration chooses."""
    graph = lower(recurrent(kind), lambda path: Precision(cell_fraction=said))
    for largest in (3.0, 17.0, 255.0, 4097.0, 16384.0, 16385.0, 1e30):
        layer = layer_of(kind)(graph.by_path["net.rnn"], graph)
        layer.looked = Cells()
        layer.look(torch.tensor([[largest, 0.5]]))
        words = layer.saturation(layer.settle_cell(True))
        assert bool(words) == (largest > 2.0 ** (15 - layer.fraction))
        suggested = re.search(r"`fraction\((\d+)\)` would hold", words)
        assert (suggested is not None) == (bool(words) and largest <= 16384.0)
        if suggested is not None:
            assert 2.0 ** (15 - int(suggested[1])) >= largest
            nnac.loads(RNNT.format(suggested[1]))


def test_a_checkpoint_cannot_bring_an_absurd_fraction(tmp_path):
    model, x = counting()
    module = nnac.prepare(model, AUTO, x)
    module.calibrate([(x,)])
    module.layer("rnn").cell_fraction.fill_(99)
    module.save(tmp_path / "a.nnc")
    with pytest.raises(CheckpointError, match="cannot have 99 fraction bits"):
        load_module(tmp_path / "a.nnc")


def test_an_aborted_calibration_chooses_no_fraction():
    model, x = counting()
    module = nnac.prepare(model, AUTO, x)

    def batches():
        yield (x,)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.calibrate(batches())
    assert module.layer("rnn").looked is None and not int(module.layer("rnn").cell_fraction)


def test_inputs_of_tables_that_saturate_are_counted():
    class Swish(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x):
            y = self.a(x)
            return self.out(y * torch.sigmoid(y))

    torch.manual_seed(0)
    model, x = Swish(), torch.randn(12, 3, 6)
    with torch.no_grad():
        model.a.weight *= 30
    module = nnac.prepare(model, HEAD.format(8, "percentile(99.99)"), x)
    with pytest.warns(CalibrationWarning, match=r"lie beyond 8, which is all that its fixed format holds, and "
                                                 r"saturate: bring down what `sigmoid_input` is given: `a`"):
        module.calibrate([(x,)])


def test_an_input_that_saturates_in_a_model_without_weights_is_blamed_on_what_enters():
    x = 30 * torch.randn(12, 3, 6)
    policy = HEAD.format(8, "percentile(99.99)").replace("weights int8 per_channel; ", "")
    module = nnac.prepare(nn.SiLU(), policy, x)
    with pytest.warns(CalibrationWarning, match=r"saturate: bring down what `silu_input` is given: `input`"):
        module.calibrate([(x,)])
