"""Scales are found on data, learned with the published gradients, and shared between processes."""

import math

import numpy as np
import pytest
import torch

from nnac.compression import find, methods
from nnac.compression.entropy import Entropy
from nnac.compression.lsq import Lsq
from nnac.compression.minmax import MinMax
from nnac.compression.mse import Mse
from nnac.compression.pact import Pact
from nnac.compression.pact_symmetric import PactSymmetric
from nnac.compression.pact_two_sided import PactTwoSided
from nnac.compression.percentile import Percentile
from nnac.compression.power_of_two import PowerOfTwo
from nnac.train.activation import ActivationQuantiser, Histogram, UncalibratedError, learned
from nnac.train.families.rnnt import Transducer
from nnac.train.integers import dequantise, quantise
from nnac.train.module import UnsuitableFormatError
from tests.test_train_module import data, differences, made


def heavy_tailed(n=40000, seed=0):
    return torch.distributions.StudentT(3.0).sample((n,)) if seed is None else torch.as_tensor(
        np.random.default_rng(seed).standard_t(3, n), dtype=torch.float32)


def seen(*parts):
    h = Histogram()
    for x in parts:
        h.add(x)
    return h


@pytest.mark.parametrize("p", [50.0, 90.0, 99.0, 99.9])
def test_a_percentile_clip_is_the_percentile(p):
    x = heavy_tailed()
    assert Percentile(p).clip_of(seen(x), 8) == pytest.approx(float(np.percentile(x.abs(), p)), rel=0.02)


def test_minmax_is_the_largest_magnitude_exactly():
    x = heavy_tailed()
    assert MinMax().clip_of(seen(x), 8) == float(x.abs().max())


def test_the_order_and_portions_of_the_data_do_not_matter():
    x = heavy_tailed()
    whole, parts = seen(x), seen(x[30000:], x[:10] * 1e-3, x[:30000])
    parts_of_whole = seen(x, x[:10] * 1e-3)
    assert torch.equal(parts.signed, parts_of_whole.signed) and parts.exponent == whole.exponent


@pytest.mark.parametrize("bits", [4, 8])
def test_the_mse_clip_is_the_best_of_a_direct_search(bits):
    x = heavy_tailed()
    top = (1 << (bits - 1)) - 1

    def error(clip):
        step = clip / top
        return float(((x / step).round().clamp(-top, top) * step - x).square().mean())

    found = Mse(candidates=128).clip_of(seen(x), bits)
    best = min(error(float(x.abs().max()) * k / 400) for k in range(1, 401))
    assert error(found) < 1.05 * best


def test_the_entropy_clip_cuts_a_long_tail_and_keeps_a_flat_range():
    flat = torch.rand(20000) * 2 - 1
    assert Entropy().clip_of(seen(flat), 8) > 0.9
    tail = torch.cat([torch.randn(20000), torch.tensor([50.0])])
    assert Entropy().clip_of(seen(tail), 8) < 25.0


@pytest.mark.parametrize("percent", [0.1, 25.0, 50.0, 99.9])
def test_signed_quantiles(percent):
    x = torch.as_tensor(np.random.default_rng(1).gamma(2.0, 1.0, 40000) - 1.0, dtype=torch.float32)
    assert float((x < seen(x).value_at(percent)).double().mean()) * 100 == pytest.approx(percent, abs=0.2
        if percent < 99 else 0.01)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("percent", [90.0, 100.0])
def test_a_power_of_two_scale_is_the_smallest_that_covers(bits, percent):
    x, levels = heavy_tailed(), (1 << (bits - 1)) - 1
    quantiser = ActivationQuantiser(bits, PowerOfTwo(percent))
    quantiser.observe(x)
    quantiser.settle()
    scale, covered = quantiser.format("x").scale, float(np.percentile(x.abs(), percent))
    assert math.log2(scale).is_integer()
    assert scale * levels >= 0.98 * covered and scale * levels / 2 < 1.02 * covered


def test_a_range_that_a_power_of_two_covers_exactly_stays():
    assert PowerOfTwo().clip_of(seen(torch.tensor([127 * 0.25, 1.0])), 8) == 127 * 0.25


def test_every_argument_of_a_calibration_is_used():
    x = heavy_tailed()
    coarse, fine = (Mse(candidates=n).clip_of(seen(x), 4) for n in (8, 100))
    assert coarse in [float(x.abs().max()) * k / 8 for k in range(1, 9)] and fine != coarse
    for bins in (256, 4096):
        quantiser = ActivationQuantiser(8, Entropy(bins))
        quantiser.observe(x)
        assert quantiser.histogram.counts.shape == (bins,) and quantiser.histogram.counts.sum() == len(x)


@pytest.mark.parametrize("keyword", sorted(methods("activations")))
def test_every_method_of_activations_finds_a_clip(keyword):
    made_ = find(keyword)(1.0) if keyword == "fixed" else find(keyword)()
    quantiser = ActivationQuantiser(4, made_)
    quantiser.observe(heavy_tailed())
    quantiser.settle()
    assert quantiser.format("x").scale > 0 and (made_ == ActivationQuantiser(4).method) == (keyword == "percentile")


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        Histogram().add(torch.tensor([1.0, float("nan")]))


def test_zeros_alone_give_a_usable_scale():
    q = ActivationQuantiser(8)
    q.observe(torch.zeros(10))
    q.settle()
    assert q.format("v").scale > 0


def test_an_unset_scale_is_named():
    with pytest.raises(UncalibratedError, match=r"joint\.encoder"):
        ActivationQuantiser(8).format("joint.encoder")


METHODS = [PactSymmetric(), PactSymmetric(plus=False), Pact(), Pact(plus=False), PactTwoSided(),
           PactTwoSided(plus=False)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_learned_clips_have_the_published_values_and_gradients(method, bits):
    """Against `Method.quantised`, the formula on real numbers.  Two-sided clips are put where zero is a level, so both
    grids agree."""
    q = ActivationQuantiser(bits, method)
    levels = (1 << bits) - 1
    high, low = (levels - 4) * 0.1, -4 * 0.1
    q.set(high, low)
    form = q.format("v")
    x = (torch.randn(4000, generator=torch.Generator().manual_seed(0)) * high * 0.7).requires_grad_()
    # the formula has no level for the lowest code of a two's complement format
    if method.sides == "both":
        x = x.detach().clamp_min(-0.999 * high).requires_grad_()
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    got = dequantise(learned(quantise(x, form), form, lambda: x / form.scale), form)
    (got * weight).sum().backward()

    twin = x.detach().double().requires_grad_()
    clips = [torch.tensor(v, dtype=torch.float64, requires_grad=True)
             for v in ([low, high] if method.sides == "two" else [high])]
    expected = method.quantised(twin, *clips, bits)
    (expected * weight).sum().backward()
    assert torch.allclose(got.double(), expected, atol=1e-5 * high)
    # within half a step beyond a clip the integers still round to the last level without saturating, and pass the
    # gradient on
    edge = ((x - high).abs() < form.scale) | ((x - clips[0].detach() * (-1 if method.sides == "both"
                                                                        else method.sides == "two")).abs() < form.scale)
    assert torch.allclose(x.grad.double()[~edge], twin.grad[~edge], atol=1e-6)
    assert float(q.high.grad) == pytest.approx(float(clips[-1].grad), rel=0.05, abs=0.3)
    if method.sides == "two":
        assert float(q.low.grad) == pytest.approx(float(clips[0].grad), rel=0.05, abs=0.3)


def test_lsq_divides_its_gradient():
    grads = []
    for divide in (True, False):
        q = ActivationQuantiser(8, Lsq(gradient_scale=divide))
        q.set(2.0)
        form, x = q.format("v"), torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1.5
        dequantise(learned(quantise(x, form), form, lambda: x / form.scale), form).pow(3).sum().backward()  # noqa: B023
        grads.append(float(q.high.grad))
    assert grads[0] == pytest.approx(grads[1] / (1000 * 127) ** 0.5, rel=1e-4) and grads[1] != 0


def module_with(monkeypatch, methods, **shape):
    """A module whose plan would name these methods: value name -> method."""
    monkeypatch.setattr(Transducer, "_method", lambda self, name,
                        setting="activations": methods.get(name, Percentile()))
    return made(3, **shape)


@pytest.mark.parametrize("method", [PactTwoSided(), Pact(), PactSymmetric(clip=None), Lsq(), Mse()], ids=str)
def test_every_value_equals_evaluate_with_zero_points_and_learned_clips(monkeypatch, method):
    asymmetric = dict.fromkeys(("features", "encoder.norm[0]", "encoder.norm[1]", "prediction.embedding"), method)
    module = module_with(monkeypatch, asymmetric)
    features, lengths, targets = data(module, 4)
    assert differences(module, features + 0.5, targets)[1] == 0
    if method.sides != "both":
        assert module.bind().values["encoder.norm[0]"].zero_point != 0
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        logits, _ = module(features + 0.5, lengths, targets)
        optimiser.zero_grad()
        logits.pow(2).mean().backward()
        optimiser.step()
    for name, q in module.activations():
        if q.method.learns and name != "features":
            assert float(q.high.grad) != 0.0 and np.isfinite(float(q.high.grad)), name
    assert differences(module, features + 0.5, targets)[1] == 0


@pytest.mark.parametrize("shape", [dict(), dict(project=8)], ids=str)
def test_a_learned_hidden_clip_has_the_slope_of_the_loss(monkeypatch, shape):
    """Where nothing is rounded to speak of (a smooth mean over many values), the gradient is the derivative: wider
    clips, finite differences."""
    name = "encoder.lstm[0]"
    module = module_with(monkeypatch, {name: PactSymmetric(clip=None if shape else 0.3)}, norm=False, layers=1, stack=1,
                         reduce=1, cells=32, **shape)
    layer = module.layer(name)
    assert layer.activation.method.learns
    if not shape:
        layer.activation.set(0.3)
    else:
        layer.activation.set(float(layer.activation.high) * 0.5)
    x = torch.randn(40, 24, 8, generator=torch.Generator().manual_seed(0))
    x = x * 3

    def loss():
        forms = module.formats()
        values = module.run("encoder", {"features": x}, {"features": False}, module._state("encoder", 24, x))
        return dequantise(values[name], forms[name]).pow(2).mean()

    loss().backward()
    gradient, clip, step = float(layer.activation.high.grad), float(layer.activation.high), 0.02
    sides = []
    for sign in (1, -1):
        layer.activation.set(clip * (1 + sign * step))
        with torch.no_grad():
            sides.append(float(loss()))
    assert gradient == pytest.approx((sides[0] - sides[1]) / (2 * step * clip), rel=0.15)
    layer.activation.set(clip)
    assert differences(module, x, torch.ones(1, 24, dtype=torch.long))[1] == 0


def test_operators_that_take_symmetric_formats_refuse_others(monkeypatch):
    with pytest.raises(UnsuitableFormatError, match=r"joint\.encoder"):
        module_with(monkeypatch, {"joint.encoder": PactTwoSided()})
    with pytest.raises(UnsuitableFormatError, match=r"encoder\.lstm"):
        module_with(monkeypatch, {"encoder.lstm[0]": PactTwoSided()})
