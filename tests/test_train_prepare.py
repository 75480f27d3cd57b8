"""A user's own PyTorch model becomes a training module by one call."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import nnac
from nnac.evaluate import evaluate
from nnac.lower import lower_plan
from nnac.model import builders
from nnac.plan import Plan, PlanError, schema_text
from nnac.train.prepare import PrepareError

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))
POLICY = """
import "specs/targets/edge.nnac"
policy mine {
  model  module
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
  layers output { activations int16 }
}
"""


class Tagger(nn.Module):
    """Labels > embedding > two-layer LSTM > norm > dropout > GRU > sum > tanh > linear > log-softmax."""

    def __init__(self, batch_first=False):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([nn.LSTM(8, 12, num_layers=2, batch_first=batch_first)])
        self.norm = nn.LayerNorm(12)
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(12, 12, batch_first=batch_first)
        self.left, self.right = nn.Linear(12, 10), nn.Linear(12, 10, bias=False)
        self.output = nn.Linear(10, 5)

    def forward(self, labels):
        x, _ = self.blocks[0](self.embedding(labels))
        x = self.dropout(self.norm(x))
        y, (_) = self.gru(x)
        return torch.log_softmax(self.output(torch.tanh(self.left(x) + self.right(y))), -1)


class Filter(nn.Module):
    """Real frames > bidirectional LSTM with projection > gate (product with a sigmoid) > linear."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(6, 10, bidirectional=True, proj_size=4)
        self.gate, self.value, self.output = nn.Linear(8, 7), nn.Linear(8, 7), nn.Linear(7, 3)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        x = self.rnn(x)[0]
        return self.output(self.value(x) * self.sigmoid(self.gate(x)))


def prepared(model, example):
    module = nnac.prepare(model.eval(), POLICY, example)
    module.calibrate([(example,)])
    return module


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_tagger_runs_in_the_integers_of_its_bound_graph(batch_first):
    torch.manual_seed(0)
    model, labels = Tagger(batch_first), torch.randint(0, 11, (4, 9) if batch_first else (9, 4))
    module, seen = prepared(model, labels), {}
    with torch.no_grad(), module.watching(lambda name, v: seen.__setitem__(name, v.long().numpy())):
        got = module(labels)
    expected = {}
    time_first = (labels.t() if batch_first else labels)[:, :, None].numpy()
    evaluate(module.bind(), "encoder", dict(labels=time_first), watch=expected.__setitem__)
    assert {"blocks[0].layer[0]", "blocks[0].layer[1]", "norm", "gru", "output"} <= set(expected)
    assert all((seen[k] == v).all() for k, v in expected.items())
    real = model(labels)
    assert got.shape == real.shape and (got - real).abs().max() < 0.15


def test_a_bidirectional_projected_model_with_a_gate():
    torch.manual_seed(1)
    model, x = Filter(), torch.randn(12, 3, 6)
    module, expected, seen = prepared(model, x), {}, {}
    with torch.no_grad(), module.watching(lambda name, v: seen.__setitem__(name, v.long().numpy())):
        got = module(x)
    evaluate(module.bind(), "encoder", dict(x=seen["x"]), watch=expected.__setitem__)
    assert all((seen[k] == v).all() for k, v in expected.items())
    assert (got - model(x)).abs().max() < 0.1 * model(x).abs().max()


def test_with_every_layer_in_real_numbers_it_is_the_model_itself():
    for model, x in ((Tagger(), torch.randint(0, 11, (9, 4))), (Filter(), torch.randn(12, 3, 6))):
        module = prepared(model, x)
        with torch.no_grad(), module.real_numbers():
            assert torch.allclose(module(x), model(x), atol=1e-5)


def test_trained_weights_go_back_under_their_own_names():
    torch.manual_seed(0)
    model, labels = Tagger(), torch.randint(0, 11, (9, 4))
    module = prepared(model, labels).train()
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.nll_loss(module(labels).flatten(0, 1), torch.arange(36) % 5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
    model.load_state_dict(module.original_state_dict())
    assert all(torch.equal(model.get_parameter(theirs), module.get_parameter(ours))
               for theirs, ours in module.original_names.items())
    with torch.no_grad():
        assert nn.functional.nll_loss(model(labels).flatten(0, 1), torch.arange(36) % 5) < losses[0] - 0.2


def test_a_policy_that_names_no_layer_of_the_model_is_told_so():
    with pytest.raises(nnac.DiagnosticError) as error:
        nnac.prepare(Filter(), POLICY.replace("layers output", "layers outptu"), torch.randn(12, 3, 6))
    assert any("outptu" in str(d) for d in error.value.exceptions)


class Strange(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lstm, self.output = nn.Conv1d(4, 4, 3, padding=1), nn.LSTM(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        y, (_, c) = self.lstm(torch.nn.functional.softplus(x))
        z = self.conv(x.permute(1, 2, 0)).permute(2, 0, 1)
        return self.output(y + z) + self.output(c[0])


def test_everything_without_an_integer_operator_is_named_at_once_with_its_line():
    with pytest.raises(PrepareError) as error:
        nnac.prepare(Strange(), POLICY, torch.randn(5, 2, 4))
    problems = error.value.problems
    said = [p.what for p in problems]
    assert len(said) == 3 and "softplus" in said[0] and "cell state" in said[2]
    assert "convolution" in said[1] and "`conv`" in said[1]
    lines = Path(__file__).read_text("utf-8").splitlines()
    assert [lines[p.line - 1].strip() for p in problems] == [p.code for p in problems]
    assert all(p.file == __file__ for p in problems) and "self.conv(x.permute" in problems[1].code
    report = nnac.check(Strange(), torch.randn(5, 2, 4))
    assert not report.supported and report.problems == problems and "3 in the way" in str(report)


def test_the_number_of_inputs_is_checked():
    with pytest.raises(PrepareError, match="does not fit the model's forward"):
        nnac.prepare(Filter(), POLICY, (torch.randn(5, 2, 6), torch.randn(1)))


def test_prepared_gradients_reach_every_parameter():
    module = prepared(Tagger(), torch.randint(0, 11, (9, 4)))
    module(torch.randint(0, 11, (9, 4))).pow(2).sum().backward()
    assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in module.parameters())


def test_a_plan_from_json_has_its_own_model_whatever_was_prepared_since():
    x = torch.randn(8, 3, 6, generator=torch.Generator().manual_seed(0))
    first, second = prepared(Filter(), x), prepared(Tagger(), torch.arange(24).reshape(8, 3) % 11)
    for module in (first, second):
        written = json.loads(json.dumps(module.plan.to_json()))
        SCHEMA.validate(written)
        again = Plan.from_json(written)
        assert again == module.plan and again.digest == module.plan.digest and again.graph == module.plan.graph
        assert str(lower_plan(again)) == str(lower_plan(module.plan)) == str(module.graph)
    assert (first.plan.graph.by_path.keys() != second.plan.graph.by_path.keys()
            and first.plan.digest != second.plan.digest)
    assert "module" not in builders()


def test_plans_of_models_of_one_name_and_different_shape_differ():
    x = torch.randn(8, 3, 6, generator=torch.Generator().manual_seed(0))
    narrow, wide = Filter(), Filter()
    wide.output = nn.Linear(7, 5)
    assert prepared(narrow, x).plan != prepared(wide, x).plan


@pytest.mark.parametrize("path, value", [
    (("layers",), 3), (("layers", 0, "kernels"), None), (("layers", 0, "inputs"), ["nothing"]),
                                         (("layers", 0, "speed"), 2),
    (("entries",), []), (("entries", 0, "name"), 7), (("inputs",), 1), (("name",), KeyError)], ids=str)
def test_a_damaged_graph_in_a_plan_is_refused(path, value):
    data = prepared(Filter(), torch.randn(8, 3, 6)).plan.to_json()
    *way, last = path
    where = data["model"]["graph"]
    for step in way:
        where = where[step]
    if value is KeyError:
        del where[last]
    else:
        where[last] = value
    with pytest.raises(PlanError, match="not a valid nnac plan"):
        Plan.from_json(data)
