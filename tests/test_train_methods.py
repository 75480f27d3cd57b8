"""Compression methods inside the training module: whatever a policy says of the weights, the integers are those of the
bound graph."""

import sys
from pathlib import Path

import pytest
import torch

import nnac
from nnac import compression
from nnac.compression import base, find, methods
from nnac.language.check import check_file, check_text
from nnac.lower import lower_plan
from nnac.train.families.rnnt import Transducer
from nnac.train.module import NotQuantisedError, ScaleError, UnsuitableFormatError
from nnac.train.quantiser import Settings, WeightQuantiser
from nnac.train.schedule import Compression
from tests.test_train_module import data, differences, train_step

POLICY = """
import "specs/targets/edge.nnac"
policy p {{
  model  rnnt(size="tiny")
  target edge
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
  layers joint.{{encoder, prediction, output}} {{ activations int16 }}
  {rules}
  training {{ steps 8 steps }}
}}
"""
RULES = {
    "gq": "layers encoder.lstm[*].{input, recurrent} { weights gq(4, anneal=exponential(1 -> 300, over=4 steps)) }",
    "lloyd_max": "layers encoder.** { weights lloyd_max(bits=4, snap=int8) }",
    "lsq": "layers encoder.lstm[*].{input, recurrent} { weights int4 per_channel lsq }",
    "gates apart": "layers encoder.lstm[0].input.gate.f { weights int4 per_channel }",
    "kernels apart": "layers encoder.lstm[*].recurrent { weights int4 per_channel }",
    "pruned": "layers encoder.lstm[*].{input, recurrent} { sparsity csp(50%, block=16, from=1 steps, to=6 steps, "
         "every=1 steps) }",
    "hardened": "layers encoder.lstm[*].{input, recurrent} { weights lloyd_max(bits=4, snap=int8); regularise "
         "mracos(strength=1e-3); "
                "harden every(3 steps) }",
    "sum16": "layers **.lstm[*] { accumulate sum16 }\n  layers encoder.lstm[*].{input, recurrent} { weights int4 "
         "per_channel }",
    "hidden 4 bits": "layers encoder.lstm[*] { hidden int4 pact_symmetric }",
    "rounded by products": "layers encoder.lstm[*].{input, recurrent} { weights int3 per_channel; round gptq }",
    "cell": "layers **.lstm[*] { cell int16 fraction(9) }",
    "cell auto": "layers **.lstm[*] { cell int16 auto }",
}


def module_of(rules):
    plan = nnac.loads(POLICY.format(rules=rules)).plan
    torch.manual_seed(0)
    module = Transducer(lower_plan(plan), None, plan)
    module.calibrate([data(module, 1)])
    return module


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_integers_agree_before_during_and_after_training(rules):
    module = module_of(rules)
    features, lengths, targets = data(module, 2)
    compression, optimiser = Compression(module, 8), torch.optim.Adam(module.parameters(), 1e-2)
    for step in range(1, 9):
        train_step(module, compression, optimiser, (features, lengths, targets), step)
        if step in (1, 5):
            module.eval()
            assert differences(module, features, targets)[1] == 0
            module.train()
    compression.finish()
    module.eval()
    assert differences(module, features, targets)[1] == 0


@pytest.mark.parametrize("accumulate", ["acc32", "sum16"])
@pytest.mark.parametrize("sparsity", ["magnitude(75%, from=1 steps, to=6 steps, every=1 steps)",
                                      "csp(75%, from=1 steps, to=6 steps, every=1 steps)",
                                      "narang(75%, from=1 steps, to=6 steps, every=1 steps)",
                                      "n_m(1, 4, from=1 steps, every=1 steps)"])
def test_every_kernel_is_pruned_by_the_share_that_the_policy_gives_it(accumulate, sparsity):
    """Features and layer norms have scales several times that of the hidden state: ranked together, the recurrent
    kernel would die."""
    module = module_of(f"layers **.lstm[*] {{ accumulate {accumulate} }}\n  layers "
                       f"encoder.lstm[*].{{input, recurrent}} {{ sparsity {sparsity} }}")
    compression = Compression(module, 8)
    for step in range(1, 7):
        compression.on_step(step)
    compression.finish()
    for path in ("encoder.lstm[0]", "encoder.lstm[1]"):
        for name in ("input", "recurrent"):
            codes = module.eval().bind().by_path[path].constants[name]
            dead = (codes == 0).mean()
            assert 0.74 < dead < 0.80, f"{path}.{name} is {dead:.0%} zero"


def test_runs_of_n_of_m_do_not_straddle_two_kernels():
    """50 inputs are no multiple of 4: in a joint matrix every run of the recurrent kernel would be shifted by two."""
    w = torch.cat([torch.randn(8, 50, generator=torch.Generator().manual_seed(0)),
                   torch.randn(8, 16, generator=torch.Generator().manual_seed(1))], 1)
    quantiser = WeightQuantiser(Settings(find("minmax")(), sparsity=find("n_m")(2, 4)), w, kernels=(50, 16))
    quantiser.on_step(1, w)
    assert (quantiser.mask[:, 50:].reshape(8, 4, 4).sum(-1) == 2).all()


def test_a_training_stopped_and_resumed_goes_on_bit_for_bit():
    runs = []
    for stop in (None, 4):
        module = module_of(RULES["gq"])
        compression, optimiser = Compression(module, 8), torch.optim.SGD(module.parameters(), 0.1)
        for step in range(1, 9):
            features, lengths, targets = data(module, step)
            (module(features, lengths, targets)[0].pow(2).mean()).backward()
            optimiser.step()
            optimiser.zero_grad()
            compression.on_step(step)
            if step == stop:
                kept = module.state_dict()
                module = module_of(RULES["gq"])
                module.load_state_dict(kept)
                compression, optimiser = Compression(module), torch.optim.SGD(module.parameters(), 0.1)
                assert compression.step == 4
        runs.append(module.state_dict())
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


def test_a_layer_with_real_weights_stays_real_and_cannot_be_bound():
    module = module_of("layers joint.output { weights float; place cpu }")
    assert not module.layer("joint.output").quantised
    module(*data(module, 1))
    with pytest.raises(NotQuantisedError, match=r"joint\.output"):
        module.bind()


# ----------------------------------------------------------------------------- what the linter promises, training keeps

def codes_of(rules):
    return {d.code for d in check_text(POLICY.format(rules=rules)).diagnostics if d.severity == "error"}


LAYERS = ["encoder.stack", "encoder.reduce", "encoder.norm[*]", "encoder.lstm[*]", "joint.encoder", "joint.combine",
          "joint.activation",
          "joint.output", "prediction.embedding", "prediction.lstm[0]"]
PLACES = [(setting, layer, method) for setting in ("activations", "hidden") for layer in LAYERS
          if setting == "activations" or "lstm" in layer
          for method in methods(setting)]


@pytest.mark.parametrize("setting,layer,method", PLACES)
def test_a_method_of_activations_is_refused_by_the_linter_where_training_cannot_hold_it(setting, layer, method):
    rules = f"layers {layer} {{ {setting} int8 {'fixed(1)' if method == 'fixed' else method} }}"
    plan = check_text(POLICY.format(rules=rules)).resolutions[0].plan
    refused = "unsuitable-method" in codes_of(rules)
    if refused:
        with pytest.raises(UnsuitableFormatError):
            Transducer(lower_plan(plan), None, plan)
    else:
        assert not codes_of(rules)
        Transducer(lower_plan(plan), None, plan)


# one file: a method of weights and of activations
TIMES_DEVIATION = '''
"""A clip of so many standard deviations."""
from attrs import frozen
from nnac.compression._clips import ActivationRule
from nnac.compression._weights import WeightRule, mean_square
from nnac.compression.base import Method, argument, method


@method("weights", "activations", "hidden")
@frozen
class TimesDeviation(WeightRule, ActivationRule, Method):
    """A clip of ``k`` standard deviations.  Source: our choice, for a test."""

    k: float = argument("number", default=3.0, low=1.0, high=10.0, positional=True, doc="standard deviations")

    def reach(self, x, live, bits):
        return self.k * mean_square(x, live).sqrt()

    def clip_of(self, seen, bits):
        return min(self.k * seen.percentile(68.3), seen.reach)
'''


@pytest.fixture
def times_deviation(tmp_path, monkeypatch):
    """The method, as if its file lay in nnac/compression."""
    (tmp_path / "times_deviation.py").write_text(TIMES_DEVIATION)
    monkeypatch.setattr(compression, "__path__", [*compression.__path__, str(tmp_path)])
    monkeypatch.setattr(base, "_METHODS", dict(base._METHODS))
    known = (*base.keywords(), "times_deviation")
    monkeypatch.setattr(base, "keywords", lambda: known)
    yield
    sys.modules.pop("nnac.compression.times_deviation", None)


def test_a_method_of_weights_and_activations_is_one_file(times_deviation):
    rules = ("layers encoder.lstm[*].** { weights int4 per_channel times_deviation(2) }\n"
             "  layers joint.encoder { activations int16 times_deviation(4) }")
    assert not codes_of(rules)
    assert codes_of(rules.replace("times_deviation(4)", "times_deviation(40)")) == {"out-of-range"}
    module = module_of(rules)
    assert str(module.layer("joint.encoder").activation.method) == "times_deviation(4)"
    assert module.layer("encoder.lstm[0]").quantisers["l0"].settings.method.keyword == "times_deviation"
    features, _, targets = data(module, 2)
    assert differences(module.eval(), features, targets)[1] == 0


@pytest.mark.parametrize("rules,code", [
    ("layers encoder.lstm[0].input { weights int16 }", "unsuitable-method"),
    ("layers encoder.lstm[0].{input, recurrent} { weights gq(4, snap=int16) }", "unsuitable-method"),
    ("layers encoder.lstm[0].{input, recurrent} { weights lloyd_max(4, snap=int16) }", "unsuitable-method"),
    ("layers encoder.lstm[0].input { weights int8 sawb(zero_aligned=false) }", "unsuitable-method"),
    ("layers encoder.norm[*] { activations int8 pact_symmetric(zero_aligned=false) }", "unsuitable-method"),
    ("layers encoder.lstm[*] { hidden int8 pact_symmetric(zero_aligned=false) }", "unsuitable-method"),
    ("layers encoder.lstm[*] { hidden int8 pact_two_sided }", "unsuitable-method"),
    ("layers encoder.lstm[0].input { weights int1; sparsity magnitude(75%, to=4 steps, every=1 steps) }",
     "contradictory-methods"),
    ("layers encoder.norm[*] { activations int8 entropy(bins=257) }", "out-of-range"),
    ("layers joint.output.weight { weights float; round gptq }", "contradictory-methods"),
    ("layers joint.output.weight { codec packed }", "contradictory-methods"),
    ("layers encoder.lstm[0].input { weights gq(2); codec packed }", "contradictory-methods"),
    ("layers encoder.lstm[0].input { weights int4 per_group(8); codec packed }", "contradictory-methods"),
], ids=lambda v: None if v.islower() and "-" in v else v[7:])
def test_what_integers_cannot_hold_is_refused(rules, code):
    assert code in codes_of(rules)


def test_a_clip_that_no_multiplier_reaches_names_its_layer():
    with pytest.raises(ScaleError, match=r"^`encoder\.lstm\[0\]`: a scale of .* is too large"):
        module_of("layers encoder.lstm[0].{input, recurrent} { weights int1 fixed(1000000) }")


def test_int16_weights_are_for_linear_layers():
    assert not codes_of("layers joint.{encoder, prediction, output}.weight { weights int16 }")


# ------------------------------------------------------------------------------------------------- the papers' policies

@pytest.mark.parametrize("name", ["gq5", "gq_mixed", "s8bqat", "int4_lstm", "int4_rnnt"])
def test_kernels_of_the_papers_policies_share_no_table_and_no_clip(name):
    """Two kernels that share an accumulator share one quantiser: four clips an LSTM instead of IBM's eight, one table
    instead of two."""
    for r in check_file(Path(__file__).parent.parent / "specs" / "papers" / f"{name}.nnac").resolutions:
        layers = [layer for layer in r.plan.graph if layer.kind == "lstm"]
        assert layers and all(r.plan[layer.path].accumulate == "sum16" for layer in layers), r.plan.name


@pytest.mark.parametrize("accumulate,clips", [("sum16", 8), ("acc32", 4)])
def test_a_gate_of_a_kernel_has_a_clip_of_its_own(accumulate, clips):
    module = module_of(f"layers **.lstm[*] {{ accumulate {accumulate} }}\n"
                       "layers encoder.lstm[*].{input, recurrent} { weights int4 per_gate sawb }")
    kept = [q.average for q in module.layer("encoder.lstm[0]").quantisers.values()]
    assert torch.cat(kept).unique().numel() == clips
