"""A training step on a GPU: the exact module of a policy against the float network, small and 57 M weights.  The last
line is one JSON object."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

import nnac
from nnac.lower import lower_plan
from nnac.model.rnnt_torch import Rnnt, RnntConfig
from nnac.train.families.rnnt import Transducer
from nnac.train.rnnt_loss import rnnt_loss

POLICY = """
import "specs/targets/edge.nnac"
policy p {{
  model rnnt({model})
  target edge
  layers ** {{ weights int8 per_channel; activations int8 percentile(99.99) }}
}}
"""
FRAMES, BATCH, LABELS = 300, 32, 20


def timed(step: Callable[[], None], device: str, repeat: int) -> float:
    """Median seconds of a step, the device waited for."""
    times = []
    for i in range(repeat + 2):
        begun = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def step_of(model: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Callable[[], None]:
    """Forward, transducer loss, backward, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    features, lengths, targets = batch
    counts = torch.full((targets.shape[1],), targets.shape[0], device=targets.device)

    def step() -> None:
        logits, n = model(features, lengths, targets)
        loss = rnnt_loss(logits, targets.T, n, counts, reduction="sum") / targets.shape[1]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    out: dict[str, object] = {"device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu"}
    batch = tuple(x.to(args.device) for x in (torch.randn(FRAMES, BATCH, 40), torch.full((BATCH,), FRAMES),
                                              torch.randint(1, 64, (LABELS, BATCH))))
    for name, model in (("small", 'size="small"'), ("cells942", 'size="small", layers=5, cells=942')):
        plan = nnac.loads(POLICY.format(model=model)).plan
        module = Transducer(lower_plan(plan), None, plan).to(args.device)
        module.calibrate([batch])
        exact = timed(step_of(module.train(), batch), args.device, args.repeat)
        config = RnntConfig(hidden=256 if name == "small" else 942, layers=3 if name == "small" else 5)
        plain = timed(step_of(Rnnt(config).to(args.device).train(), batch), args.device, args.repeat)
        weights = sum(p.numel() for p in module.parameters() if p.ndim == 2)
        out[name] = {"weights": weights, "exact_s": round(exact, 4), "float_s": round(plain, 4),
                     "ratio": round(exact / plain, 3)}
        print(name, out[name], flush=True)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
