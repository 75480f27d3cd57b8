"""The training module computes the integers of evaluate, everywhere."""

import copy
import io

import numpy as np
import pytest
import torch
from attrs import evolve

from nnac.evaluate import evaluate
from nnac.formats import Precision
from nnac.lower import lower
from nnac.model import build
from nnac.ops import kinds
from nnac.train.activation import UncalibratedError
from nnac.train.families import module_of
from nnac.train.families.rnnt import Transducer
from nnac.train.module import FloatWeightsError, GraphModule
from nnac.train.ops import layer_of

SHAPES = [dict(), dict(combine="multiply"), dict(bidirectional=True), dict(project=8),
          dict(project=12, bidirectional=True),
          dict(norm=False, stack=1, reduce=1), dict(layers=3, cells=20)]


def precision(variant="acc32", inner=16, **kwargs):
    def of(path):
        return Precision(variant=variant, activations=inner if path.startswith("joint") and path != "joint.activation"
                         else 8, **kwargs)
    return of


def made(seed=0, *, variant="acc32", inner=16, gain=1.0, calibrated=True, **shape):
    torch.manual_seed(seed)
    module = Transducer(lower(build("rnnt", size="tiny", **shape), precision(variant, inner)))
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(gain)
    if calibrated:
        module.calibrate([data(module, seed)])
    return module


def data(module, seed=0, steps=24, batch=3, labels=5):
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.full((batch,), steps)
    lengths[1:] = torch.randint(6, steps + 1, (batch - 1,), generator=rng)
    return (torch.randn(steps, batch, module.graph.values["features"].width, generator=rng), lengths,
            torch.randint(1, 12, (labels, batch), generator=rng))


def train_step(module, compression, optimiser, batch, step):
    """A step that moves every weight, with what compression does after it; gradients are finite."""
    logits, _ = module(*batch)
    loss = logits.logsumexp(-1).mean() - logits[..., 0].mean() + compression.regulariser()
    optimiser.zero_grad()
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())
    optimiser.step()
    compression.on_step(step)


def differences(module, features, targets):
    """(values compared, values that differ) of encoder, prediction and joint, at every node, against evaluate of the
    bound graph."""
    graph, seen = module.bind(), {}
    with module.watching(lambda name, v: seen.setdefault(name, v.detach().double().numpy().astype(np.int64))):
        frames, _ = module.encode(features, torch.full((features.shape[1],), features.shape[0]))
        predictions = module.predictions(targets)
        n = min(len(frames), len(predictions))
        module.joint(frames[:n], predictions[:n])
    expected = {}
    watch = expected.__setitem__
    out, _ = evaluate(graph, "encoder", dict(features=seen["features"]), watch=watch)
    tokens = torch.cat([targets.new_zeros(1, targets.shape[1]), targets])
    out |= evaluate(graph, "prediction", dict(label=tokens[:, :, None].numpy()), watch=watch)[0]
    evaluate(graph, "joint", {k: v[:n] for k, v in out.items()}, watch=watch)
    assert set(expected) <= set(seen)
    return sum(v.size for v in expected.values()), sum(int((seen[k] != v).sum()) for k, v in expected.items())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("variant", ["acc32", "sum16"])
@pytest.mark.parametrize("gain", [1.0, 6.0], ids=["usual", "saturating"])
def test_every_value_equals_evaluate(shape, variant, gain):
    module = made(1, variant=variant, gain=gain, **shape)
    features, _, targets = data(module, 2)
    compared, different = differences(module, features * gain, targets)
    assert compared > 1000 and different == 0


@pytest.mark.parametrize("inner", [8, 16])
def test_joint_widths_of_8_and_16_bits_agree(inner):
    module = made(3, inner=inner)
    features, _, targets = data(module, 4)
    assert differences(module, features, targets)[1] == 0


def test_cells_that_saturate_for_500_steps_agree():
    module = made(5, norm=False, stack=1, reduce=1, layers=1)
    layer = module.layer("encoder.lstm[0]")
    # input, forget and cell gates open: the cell climbs to its limit and stays
    with torch.no_grad():
        h = layer.cells
        layer.bias_ih_l0[:2 * h] = 8.0
        layer.bias_ih_l0[2 * h:3 * h] = torch.where(torch.arange(h) % 2 == 0, 6.0, -6.0)
    features = torch.randn(500, 2, 8, generator=torch.Generator().manual_seed(0))
    cells = []
    state = module._state("encoder", 2, features)
    with torch.no_grad():
        module.run("encoder", dict(features=features), dict(features=False), state)
    cells = state["encoder.lstm[0].cell"]
    assert int(cells.max()) == 32767 and int(cells.min()) == -32768
    assert differences(module, features, torch.ones(1, 2, dtype=torch.long))[1] == 0


def test_equality_holds_while_training():
    module = made(6)
    optimiser = torch.optim.SGD(module.parameters(), 0.5)
    for step in range(6):
        features, lengths, targets = data(module, 10 + step)
        logits, _ = module(features, lengths, targets)
        torch.nn.functional.cross_entropy(logits.flatten(0, -2),
                                          torch.zeros(logits.shape[:-1].numel(), dtype=torch.long)).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
        optimiser.step()
        optimiser.zero_grad()
    features, _, targets = data(module, 30)
    assert differences(module, features, targets)[1] == 0


@pytest.mark.parametrize("inner", [8, 16])
def test_autocast_and_reduced_matmul_precision_change_no_integer(inner):
    module = made(6, inner=inner)
    features, lengths, targets = data(module, 1)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert differences(module, features, targets)[1] == 0
            module(features, lengths, targets)[0].pow(2).mean().backward()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_training_lowers_the_loss():
    module = made(7)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    features, lengths, targets = data(module, 8)
    wanted = torch.randint(0, 12, (3, 6, 6), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(40):
        logits, _ = module(features, lengths, targets)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_one_step_at_a_time_equals_the_whole_sequence():
    module = made(9).eval()
    targets = data(module, 1)[2]
    with torch.no_grad():
        whole = module.predictions(targets)
        y, state = module.start(3)
        parts = [y]
        for tokens in targets:
            y, state = module.predict(tokens.numpy(), state)
            parts.append(y)
    assert torch.equal(torch.stack(parts), whole)


def test_an_ordinary_module():
    module = made(10)
    batch = data(module, 3)
    logits = module(*batch)[0]
    twin = copy.deepcopy(module)
    assert torch.equal(twin(*batch)[0], logits)
    assert twin.joint._owner[0] is twin
    fresh = made(11, calibrated=False)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(*batch)[0], logits)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(*batch)[0], logits)


def test_a_part_that_is_in_another_mode_is_brought_into_the_one_that_is_asked_for():
    module = made()
    module.layer("joint.output").quantiser.eval()
    assert all(m.training for m in module.train().modules())
    module.layer("encoder.lstm[0]").train(module.eval().training).train()
    assert not any(m.training for m in module.eval().modules())


def test_a_float_checkpoint_loads_by_its_own_names():
    from nnac.model.rnnt_torch import Rnnt, RnntConfig
    torch.manual_seed(0)
    network = Rnnt(RnntConfig(features=8, stack=2, layers=2, hidden=16, reduce=2, embedding=8, prediction=16, joint=16,
                              vocabulary=12)).eval()
    module = Transducer(lower(build("rnnt", size="tiny"), precision()), network.state_dict()).eval()
    batch = data(module, 0)
    with module.real_numbers(), torch.no_grad():
        assert torch.allclose(module(*batch)[0], network(*batch)[0], atol=1e-5)
    module.calibrate([batch])
    with torch.no_grad():
        got, real = module(*batch)[0], network(*batch)[0]
    assert (got - real).abs().max() < 0.1 * real.abs().max()
    assert float(torch.corrcoef(torch.stack([got.flatten(), real.flatten()]))[0, 1]) > 0.99


def test_unfit_weights_are_named():
    weights = made(0, calibrated=False).float_state_dict()
    weights["joint.output.weight"] = weights["joint.output.weight"][:-1]
    weights["joint.outptu.bias"] = weights.pop("joint.output.bias")
    with pytest.raises(FloatWeightsError,
        match=r"lacks joint.output.bias.*has joint.outptu.bias.*joint.output.weight is \[11, 16\], not \[12, 16\]"):
        Transducer(lower(build("rnnt", size="tiny"), precision()), weights)


def test_without_calibration_the_missing_scale_is_named():
    module = made(0, calibrated=False)
    with pytest.raises(UncalibratedError, match="features"):
        module(*data(module))
    with pytest.raises(UncalibratedError, match="features"):
        module.bind()


def test_layers_switch_between_integers_and_reals():
    module = made(12).eval()
    batch = data(module, 0)
    with torch.no_grad():
        exact = module(*batch)[0]
        assert module.switch("encoder.lstm[1]", False) == ["encoder.lstm[1]"]
        assert not torch.equal(module(*batch)[0], exact)
        module.switch("*", True)
        assert torch.equal(module(*batch)[0], exact)


def test_padding_never_reaches_a_shorter_utterance():
    for shape in (dict(), dict(bidirectional=True)):
        module = made(13, **shape).eval()
        features, lengths, targets = data(module, 0)
        lengths[1] = 12
        other = features.clone()
        other[12:, 1] = 100.0
        with torch.no_grad():
            a, n = module(features, lengths, targets)
            b, _ = module(other, lengths, targets)
        for row in range(3):
            assert torch.equal(a[row, :n[row]], b[row, :n[row]])


def test_kept_constants_follow_the_weights():
    module = made(14).eval()
    batch = data(module, 0)
    with torch.no_grad():
        before = module(*batch)[0]
        module.get_parameter("joint.output.bias").add_(1.0)
        after = module(*batch)[0]
    assert not torch.equal(before, after)


def test_precision_is_data_of_the_graph():
    graph = lower(build("rnnt", size="tiny"), precision())
    assert not graph.bound and made(0).bind().bound
    assert evolve(graph).values["features"].scale is None


def test_a_graph_without_a_family_is_run_by_its_entries():
    model = build("rnnt", size="tiny")
    assert module_of("rnnt") is Transducer and module_of("no such family") is GraphModule
    module = GraphModule(lower(model, precision()))
    with pytest.raises(TypeError,
                       match=r"rnnt has no call of its own here: `run` its entries \(encoder, prediction, joint\)"):
        module(torch.zeros(8, 1, 8))
    x = torch.randn(16, 2, 8, generator=torch.Generator().manual_seed(0))
    family = Transducer(lower(model, precision()), module.float_state_dict())
    with module.real_numbers(), family.real_numbers():
        out = module.run("encoder", dict(features=x), dict(features=False), module._state("encoder", 2, x))
        assert torch.equal(out["joint.encoder"], family.encode(x, [16, 16])[0])


@pytest.mark.parametrize("kind", kinds())
def test_every_operator_is_trained_by_the_class_in_the_file_of_its_name(kind):
    layer = layer_of(kind)
    assert layer is not None and layer.kind == kind and layer.__module__ == f"nnac.train.ops.{kind}"
