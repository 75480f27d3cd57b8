"""A recogniser so small that it is made in seconds: float network, training module under a policy, program.  Untrained:
what it hears is noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attrs import frozen

from nnac import compiler
from nnac.decode.front_end import FrontEnd
from nnac.decode.recogniser import Recogniser, save_recogniser
from nnac.model.rnnt_torch import Rnnt, RnntConfig
from nnac.policy import loads
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import LETTERS
from nnac.train.policy import build_module, save_module

POLICY = """import "targets/edge.nnac"
policy small {
  model rnnt(size="tiny", vocabulary=29)
  target edge
  layers ** { weights int8 per_channel; activations int8 percentile(99.99) }
}
"""


@frozen
class Small:
    """Where everything lies."""

    policy: Path
    network: Path
    checkpoint: Path
    program: Path


def make(folder: Path, text: str = POLICY) -> Small:
    """Make all of it in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Small(folder / "small.nnac", folder / "float.nnc", folder / "small.nnc", folder / "small.nnp")
    made.policy.write_text(text, encoding="utf-8")
    plan = loads(text).plan
    bins = 8
    torch.manual_seed(5)
    config = RnntConfig(features=bins, stack=2, layers=2, hidden=16, reduce=2, embedding=8, prediction=16, joint=16,
                        vocabulary=LETTERS.count)
    model = Rnnt(config)
    with torch.no_grad():
        model.joint.output.weight *= 20                          # so that it has opinions
        model.joint.output.bias[0] += 2
    rng = np.random.default_rng(5)
    features = rng.standard_normal((60, 4, bins)).astype(np.float32)
    normalisation = Normalisation.of(features.reshape(-1, bins))
    recogniser = Recogniser(model.eval(), FeatureSpec(bins=bins), normalisation, LETTERS)
    save_recogniser(made.network, recogniser)
    module = build_module(plan, recogniser)
    module.calibrate([(torch.from_numpy(features), torch.tensor([60, 50, 40, 30]), torch.randint(1, 29, (5, 4)))])
    save_module(made.checkpoint, module, plan, FrontEnd(recogniser.features, normalisation, LETTERS),
                dict(steps=0, dev_wer=100.0))
    compiler.program(compiler.trained(made.checkpoint)).save(made.program)
    return made
