"""Users' models: read right, to the integer, or refused with a reason; never wrong without a word, never changed."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nnac
from nnac.capture import PrepareError
from nnac.evaluate import evaluate
from nnac.train.families.module import Named
from nnac.train.prepare import PreparedModule, relative, results
from tests import constructs
from tests.constructs import LABELS, L, Of, X

POLICY = """
import "specs/targets/edge.nnac"
policy mine {
  model  module
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
}
"""
RIGHT, REFUSED = constructs.models(), constructs.refused()


def described(model: nn.Module) -> list[tuple[str, str]]:
    """Everything that a model holds, in words: to see that nothing was changed."""
    out = []
    for name, m in model.named_modules():
        for key, value in m.__dict__.items():
            if not key.startswith("_") or key in ("_parameters", "_buffers"):
                out.append((f"{name}.{key}", str(value)))
    return out


@pytest.mark.parametrize("name", RIGHT)
def test_a_construct_is_read_as_it_computes_to_the_integer(name):
    torch.manual_seed(0)
    make, example = RIGHT[name]
    model = make().eval()
    before = described(model)
    module = nnac.prepare(model, POLICY, example)
    assert described(model) == before
    module.calibrate([example])
    with torch.no_grad():
        y = model(*example)
        with module.real_numbers():
            real = module(*example)
        for ours, theirs in zip(results(real), results(y), strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            assert relative(ours, theirs) < (3e-2 if theirs.dtype == torch.bfloat16 else 1e-4)
        if module.captured.lengths is not None:            # the machine hears each utterance by itself, whole
            example = tuple(torch.full_like(v, 12) if v.ndim == 1 else v for v in example)
        seen: dict[str, Any] = {}
        module.reset()                                     # what keeps its state on itself begins anew
        with module.watching(lambda n, v: seen.__setitem__(n, v.long().numpy())):
            module(*example)
        module.reset()
    graph, expected = module.bind(), {}
    labels = {n: x.numpy() for n, x in module.sequences(*example).items() if graph.values[n].bits == 32}
    state = {n: v.detach().long().numpy() for n, v in module.given_states(*example).items()}
    evaluate(graph, "encoder", {n: seen[n] if n in seen else labels[n] for n in graph.inputs["encoder"]}, state,
             watch=expected.__setitem__)
    assert expected and all((seen[n] == v).all() for n, v in expected.items())


@pytest.mark.parametrize("name", REFUSED)
def test_a_construct_is_refused_with_its_reason(name):
    torch.manual_seed(0)
    make, example, words = REFUSED[name]
    model = make()
    before = described(model)
    with pytest.raises(PrepareError) as error:
        nnac.prepare(model, POLICY, example)
    assert words in str(error.value) and error.value.problems
    assert described(model) == before
    report = nnac.check(model, example)
    # what differs only when it is run is found by preparing alone
    if not report.supported:
        assert report.problems == error.value.problems


def test_a_state_kept_on_the_model_goes_on_from_call_to_call():
    """As the model's own does, until `reset`; the model given is left as it was."""
    torch.manual_seed(0)
    model = constructs.Ell().eval()
    module = nnac.prepare(model, POLICY, X)
    module.calibrate([X])
    assert model.state is None
    with torch.no_grad():
        whole = module(X)
        module.reset()
        parts = [module(x) for x in X.split([5, 1, 6])]
        assert torch.equal(torch.cat(parts), whole)
        with module.real_numbers():
            module.reset()
            for _ in range(3):
                assert relative(module(X), model(X)) < 1e-5


def test_packed_sequences_end_where_their_lengths_say():
    """At lengths other than the example's; with the last step of each, and backwards from its own end."""
    torch.manual_seed(0)
    for make in (constructs.packed_last, constructs.packed_both):
        model, lengths = make().eval(), torch.tensor([5, 12, 9])
        module = nnac.prepare(model, POLICY, (X, torch.tensor([12, 10, 4])))
        with torch.no_grad(), module.real_numbers():
            assert relative(module(X, lengths), model(X, lengths)) < 1e-5


def test_a_layer_may_be_called_as_anything_that_a_prepared_module_has():
    mine = [n for n in vars(PreparedModule) if not n.startswith("__")]
    mine += [n for c in PreparedModule.__mro__ if "prepare" in c.__module__ for n in vars(c) if not n.startswith("__")]
    assert all(Named.names_of(None, n) == [f"{n}_"] for n in mine)


def test_a_reading_that_differs_is_refused_and_names_the_layer(monkeypatch):
    """The general cure, with a fault planted in the reader itself: the bias of every linear layer is forgotten."""
    from nnac.capture.readers import arithmetic
    from nnac.capture.reading import READERS

    monkeypatch.setitem(READERS, "aten.linear.default", lambda r, node, args,
                        kwargs: arithmetic.product(r, args[0], args[1], None))
    model = Of(lambda s, x: s.b(s.rnn(torch.tanh(s.a(x)))[0]), a=L(6, 8), rnn=nn.LSTM(8, 8), b=L(8, 4))
    with pytest.raises(PrepareError, match="first in `a`"):
        nnac.prepare(model, POLICY, X)


def test_training_and_loading_back_keep_ties_and_frozen_weights():
    torch.manual_seed(0)
    model = constructs.tied()
    model.rnn.weight_hh_l0.requires_grad_(False)
    module = nnac.prepare(model, POLICY, LABELS).train()
    module.calibrate([(LABELS,)])
    kept = model.rnn.weight_hh_l0.detach().clone()
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 0.05)
    for _ in range(20):
        loss = nn.functional.cross_entropy(module(LABELS).flatten(0, 1), LABELS.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    state = module.original_state_dict()
    assert torch.equal(state["e.weight"], state["out.weight"]) and torch.equal(state["rnn.weight_hh_l0"], kept)
    assert not torch.equal(state["rnn.weight_ih_l0"], model.rnn.weight_ih_l0)
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    assert other.out.weight is other.e.weight
    with torch.no_grad(), module.eval().real_numbers():
        assert relative(module(LABELS), other.eval()(LABELS)) < 1e-5


def test_what_was_folded_does_not_go_back():
    model = Of(lambda s, x: s.a(x), a=nn.utils.parametrizations.weight_norm(L(6, 8)))
    module = nnac.prepare(model, POLICY, X)
    assert any("folded" in n for n in nnac.check(model, X).notes)
    with pytest.raises(PrepareError, match=r"a\.weight"):
        module.original_state_dict()


def test_dropout_acts_in_training_alone_on_integers_too():
    torch.manual_seed(0)
    model = Of(lambda s, x: s.out(s.d(s.a(x))), a=L(6, 200), out=L(200, 4), d=nn.Dropout(0.25))
    module = nnac.prepare(model, POLICY, X)
    module.calibrate([(X,)])
    module.eval()
    with torch.no_grad():
        assert torch.equal(module(X), module(X))
        module.train()
        assert not torch.equal(module(X), module(X))
        form = module.formats()["a"]
        node = module.graph.by_path["out"]
        x = torch.randint(-60, 60, (50, 20, 200)).float()
        y = module._dropped(node, 0, x, form)
        assert torch.equal(y, y.round()) and y.abs().max() <= 127
        away = (y == form.zero_point) & (x != form.zero_point)
        assert 0.24 < away.float().mean() < 0.26
        kept = ~away & (x != form.zero_point)
        assert (y[kept] - x[kept] / 0.75).abs().max() <= 0.5 + 1e-4
    x = torch.randint(-60, 60, (5, 2, 200)).float().requires_grad_()
    torch.manual_seed(1)
    y = module._dropped(node, 0, x, form)
    y.sum().backward()
    expected = torch.where((y == 0) & (x != 0), 0.0, 1 / 0.75)
    assert torch.allclose(x.grad[x != 0], expected[x != 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_integers_are_not_computed_in_another_type(dtype):
    module = nnac.prepare(nn.Sequential(L(6, 8)), POLICY, X)
    with pytest.raises(TypeError, match="float32"):
        module.to(dtype)
    assert all(p.dtype == torch.float32 for p in module.parameters())


@pytest.mark.parametrize("example, words", [([X], None), ({"input": X}, None), (X.numpy(), "torch.as_tensor"),
                                            (X[:0], "no elements"),
                                            ((X, X), "does not fit"), ({"y": X}, "does not fit"),
                                            (X[..., :5], "cannot be read")])
def test_examples_of_every_kind(example, words):
    model = nn.Sequential(L(6, 8))
    if words is None:
        assert nnac.check(model, example).supported
    else:
        with pytest.raises(PrepareError, match=words):
            nnac.prepare(model, POLICY, example)


def test_a_first_policy_of_a_model_lints_clean_and_prepares_it():
    model = Of(lambda s, x: s.out(s.rnn(x)[0]), rnn=nn.LSTM(6, 8, 2), out=L(8, 4))
    text = nnac.check(model, X).policy("edge")
    assert all(f"# layers {path} {{" in text for path in ("rnn.layer[0]", "rnn.layer[1]", "out"))
    module = nnac.prepare(model, text, X)
    assert module.plan["rnn.layer[0].input"].weights.bits == 8
    with pytest.raises(PrepareError, match="whole axes"):
        nnac.check(nn.MultiheadAttention(6, 2), (X, X, X)).policy()


def test_a_policy_for_another_model_is_one_line():
    with pytest.raises(PrepareError, match="model module"):
        nnac.prepare(nn.Sequential(L(6, 8)), POLICY.replace("module", 'rnnt(size="tiny")'), X)


def test_prepared_modules_copy_and_save():
    import io
    import pickle

    module = nnac.prepare(nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)), POLICY, X)
    module.calibrate([(X,)])
    y = module(X)
    assert torch.equal(copy.deepcopy(module)(X), y)
    fresh = nnac.prepare(nn.Sequential(L(6, 8), nn.Tanh(), L(8, 4)), POLICY, X)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(X), y)
    file = io.BytesIO()
    pickle.dump(module.state_dict(), file)


def _when_training(branch):
    def forward(s, x):
        y = s.a(x)
        return s.out(branch(y) if s.training else y)
    return forward


IN_TRAINING = {
    "bernoulli": (lambda y: y * torch.bernoulli(torch.full_like(y, 0.9)), r"test_capture\.py:\d+: .* draws at random"),
    "noise": (lambda y: y + 0.01 * torch.randn_like(y), r"test_capture\.py:\d+: .* draws at random"),
    "Python's generator": (lambda y: y * (random.random() < 2), "draws at random"),
    "NumPy's generator": (lambda y: y * bool(np.random.rand() < 2), "draws at random"),
    "another value": (lambda y: 2 * y, "gives something else"),
    "an error": (lambda y: y.nothing, "does not run with this example"),
    "another path to the same": (lambda y: (y + y) / 2, None),
    "dropout": (lambda y: nn.functional.dropout(y, 0.5), None),
}


@pytest.mark.parametrize("what", IN_TRAINING)
def test_what_a_model_does_in_training_alone_is_dropout_or_refused(what):
    """It was left out without a word.  In evaluation the model is taken, for calibration; it draws what it drew."""
    branch, why = IN_TRAINING[what]
    model = Of(_when_training(branch), a=L(6, 8), out=L(8, 4))
    before = random.getstate()
    module = nnac.prepare(model.eval(), POLICY, X)
    module.calibrate([(X,)])
    assert random.getstate() == before and not module.training
    if why is None:
        assert module.train().training and nnac.prepare(model.train(), POLICY, X).training
        return
    for call in (module.train, lambda: nnac.prepare(model.train(), POLICY, X)):
        with pytest.raises(PrepareError, match=why):
            call()
    assert model.training
