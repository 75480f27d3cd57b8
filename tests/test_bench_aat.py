"""The comparison of benchmarks/bench_aat.py trains and deploys what it says."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench_aat import cells_on_cpu, on_cpu
from nnac.lower import lower_plan
from nnac.policy import loads
from nnac.train.batches import Batch
from nnac.train.families.rnnt import Transducer
from nnac.train.loop import TrainingError
from nnac.train.ops import Layer
from nnac.train.weight_only import WeightOnlyLearner, quantised_weights

POLICY = Path(__file__).parent / "tiny.nnac"


def calibrated(rules=""):
    torch.manual_seed(0)
    text = POLICY.read_text().replace("../specs/", "specs/")
    plan = loads(text.replace("  training {", f"  {rules}\n  training {{")).plan
    module = Transducer(lower_plan(plan), None, plan)
    x = torch.randn(48, 3, 40)
    module.calibrate([(x, torch.tensor([48, 42, 30]), torch.randint(1, 29, (5, 3)))])
    return plan, module, x


def test_weight_only_training_sees_exactly_the_weights_that_the_machine_holds():
    _, module, _ = calibrated()
    weights = quantised_weights(module.eval())
    bound = module.bind().by_path
    lstm, scales = bound["encoder.lstm[0]"], weights["encoder.lstm.0.weight_hh_l0"]
    codes = lstm.constants["recurrent"].astype(np.float64)
    ratio = scales.detach().numpy() / np.where(codes == 0, 1, codes)
    row = ratio[5][codes[5] != 0]
    assert np.allclose(row, row[0], rtol=1e-5) and np.all(scales.detach().numpy()[codes == 0] == 0)
    x_codes = lstm.constants["input"].astype(np.float64)[5]
    unit = row[0] / module.layer("encoder.lstm[0]").ratio
    assert np.allclose(weights["encoder.lstm.0.weight_ih_l0"].detach().numpy()[5], x_codes * unit, rtol=1e-4,
                       atol=1e-8), "rows share one scale"


def test_kernels_with_sums_of_their_own_are_held_by_scales_of_their_own():
    _, module, _ = calibrated("layers **.lstm[*] { accumulate sum16 }")
    weights, bound = quantised_weights(module.eval()), module.bind().by_path["encoder.lstm[1]"]
    for parameter, kernel in (("ih", "input"), ("hh", "recurrent")):
        w, codes = weights[f"encoder.lstm.1.weight_{parameter}_l0"].detach().numpy(), bound.constants[kernel]
        row = w[3] / np.where(codes[3] == 0, 1, codes[3])
        assert np.allclose(row[codes[3] != 0], row[codes[3] != 0][0], rtol=1e-5) and np.all(w[codes == 0] == 0)


def test_a_layer_that_does_not_say_what_it_holds_is_named():
    _, module, _ = calibrated()
    layer = module.layer("encoder.lstm[1]")
    layer.held = partial(Layer.held, layer)
    with pytest.raises(TrainingError, match=r"encoder\.lstm\[1\]: weight-only"):
        quantised_weights(module)


def test_weight_only_training_computes_on_real_numbers_and_reaches_every_weight():
    _, module, x = calibrated()
    learner = WeightOnlyLearner(module, 10, 1)
    targets = torch.randint(1, 29, (3, 4))
    batch = Batch(x, torch.tensor([48, 42, 30]), targets, torch.tensor([4, 3, 2]), targets, torch.tensor([4, 3, 2]))
    seen = []
    with module.watching(lambda name, v: seen.append(name)):
        loss, shown = learner.loss(batch)
    assert not seen and shown == loss.item(), "no value became integers"
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in learner.named.items() if "weight" in n)
    assert all(layer.quantised for layer in module.layers() if layer.node.op != "stack"), "afterwards all is as it was"


def test_an_operator_on_the_cpu_makes_real_numbers_and_the_next_layer_integers_again():
    _, module, x = calibrated()
    module.eval()
    moved = on_cpu(module, ("lstm",))
    seen = {}
    with torch.no_grad(), moved.watching(lambda name, v: seen.setdefault(name, v)):
        moved.encode(x, torch.tensor([48, 42, 30]))
    assert not moved.layer("encoder.lstm[1]").quantised and module.layer("encoder.lstm[1]").quantised
    norm = seen["encoder.norm[1]"]
    assert torch.equal(norm, norm.round()) and norm.abs().max() <= 128


def test_the_price_of_cells_on_the_cpu_is_wake_transfer_and_arithmetic_of_every_lstm_step():
    plan, module, _ = calibrated()
    graph = module.bind()
    prices = cells_on_cpu(graph, plan.target)
    # 500 MHz: wake 20 us = 10,000 cycles; encoder, 24 cells: 192 + 24 bytes at 1 GB/s = 108 cycles, 192 operations at 2
    # G/s = 48 cycles; prediction, 16 cells: 128 + 16 bytes = 72 cycles, 128 operations = 32 cycles
    steps = {e: sum(graph.values[n.output].rate for n in graph.entry(e) if n.op == "lstm") for e in graph.inputs}
    assert steps == {"encoder": 4, "prediction": 1, "joint": 0}
    assert prices == {"encoder": 4 * (10_000 + 108 + 48), "prediction": 10_000 + 72 + 32, "joint": 0}
