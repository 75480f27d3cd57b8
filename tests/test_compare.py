"""The comparison of executors: silent when they agree, and it names the layer where a planted fault begins."""

import numpy as np
import torch
from attrs import evolve, frozen

from nnac.compare import compare
from nnac.decode.front_end import FrontEnd
from nnac.decode.integer import Reference
from nnac.lower import Precision, lower
from nnac.model import build
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import LETTERS
from nnac.train.module import TrainingModule


def tiny():
    torch.manual_seed(3)
    model = build("rnnt", size="tiny", vocabulary=LETTERS.count)
    inner = ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
    module = TrainingModule(lower(model, lambda path: Precision(activations=16 if path in inner else 8)))
    with torch.no_grad():
        module.joint.output.bias[0] += 0.5                       # so that blanks end most frames
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 23, 31, 12, 36)]
    batch = torch.from_numpy(rng.standard_normal((40, 3, 8)).astype(np.float32))
    module.calibrate([(batch, torch.tensor([40, 33, 20]), torch.zeros(4, 3, dtype=torch.long))])
    front = FrontEnd(FeatureSpec(bins=8), Normalisation.of(np.concatenate(features)), LETTERS)
    return module.eval(), front, features


def test_the_reference_agrees_with_the_training_module_at_every_value():
    module, front, features = tiny()
    graph = module.bind()
    result = compare(module, Reference(graph), front, features, batch=3)
    assert result.equal and result.first is None and result.compared > 10_000
    assert set(result.by_value) >= {n.output for n in graph.nodes}
    assert any(result.texts), "nothing was transcribed: the test proves little"


@frozen(eq=False)
class Faulty(Reference):
    """One constant of one layer is off by one."""


def test_a_planted_fault_is_named():
    module, front, features = tiny()
    graph = module.bind()
    bad = tuple(evolve(n, constants=dict(n.constants) | {"bias": n.constants["bias"] + (1 << 22)}) if n.path == "encoder.norm[1]" else n for n in graph.nodes)
    result = compare(module, Faulty(graph.with_nodes(bad)), front, features)
    assert not result.equal and result.first is not None and result.first.value == "encoder.norm[1]"
    assert result.by_value["encoder.lstm[1]"][1] == 0, "what comes before the fault agrees"
