"""What the tests of compression methods share: one instance of each weight method, awkward matrices, a short
training."""

from __future__ import annotations

import torch

from nnac.compression import Method, find, methods
from nnac.train.quantiser import Settings, WeightQuantiser

ARGUMENTS = {"gq": {"bits": 4}, "lloyd_max": {"bits": 4}, "fixed": {"clip": 0.3}}
GRANULARITIES = ("tensor", "gate", "channel", "group")


def make(keyword: str, **arguments) -> Method:
    """A method by name, with what it requires."""
    found = find(keyword)
    assert found is not None
    if keyword == "codebook" and "values" not in arguments:               # its width follows from how many there are
        n = 1 << arguments.get("bits", 4)
        arguments["values"] = tuple(-1.0 + 2.0 * i / (n - 1) for i in range(n))
    return found.make(**{**ARGUMENTS.get(keyword, {}), **arguments})


def weight_methods() -> list[str]:
    return sorted(methods("weights"))


def width(method: Method, bits: int = 4) -> int:
    return type(method).fixed_bits or getattr(method, "bits", bits)


def settings(keyword: str, granularity: str = "channel", bits: int = 4, **others) -> Settings:
    m = make(keyword)
    return Settings(m, width(m, bits), granularity, 24, 4, **others)


def weights(rows: int = 32, cols: int = 40, seed: int = 0) -> torch.Tensor:
    """Rows of different size, heavy tails: what trained kernels look like."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=g) ** 3 * 0.05 + torch.randn(rows, cols, generator=g) * torch.rand(rows, 1,
        generator=g) * 0.1


def trained(q: WeightQuantiser, w: torch.nn.Parameter, first: int, last: int, total: int = 40) -> None:
    """Steps ``first``…``last`` of a training of ``total``: pull the quantised weights towards a fixed target with
    Adam."""
    q.set_length(total, 10)
    target = weights(*w.shape, seed=99)
    optimiser = torch.optim.Adam([w, *q.parameters()], 2e-2)
    if hasattr(q, "_optimiser"):
        optimiser.load_state_dict(q._optimiser)
    for step in range(first, last + 1):
        optimiser.zero_grad()
        codes, scale = q(w)
        loss = (codes * scale[:, None] - target).square().sum() + q.regulariser(w)
        loss.backward()
        optimiser.step()
        q.on_step(step, w)
    q._optimiser = optimiser.state_dict()
