"""CSP."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("sparsity")
@frozen
class Csp(Method):
    """CSP: which weights live is decided by compressed sensing, an l1 problem on random measurements of the weights.

    Source: Zhen et al., ICASSP 2021, arXiv 2102.04932 (seen: compressed sensing inside training, sparsity against compression error).
    Reconstruction: Gaussian measurements, ISTA or FISTA, target by bisection, blocks (METHODS §4).
    """

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of all lanes is skipped)")
    measurements: float = argument("fraction", default=0.5, low=0.01, high=1.0, doc="rows of the sensing matrix, as a share of its columns")
    columns: int = argument("integer", default=256, low=16, high=4096, doc="length of the vectors that are sensed")
    solver: str = argument("choice", default="fista", choices=("ista", "fista"), doc="iteration for the l1 problem")
    iterations: int = argument("integer", default=30, low=1, high=10000, doc="of the solver, at each event")
    seed: int = argument("integer", default=0, low=0, high=2**31 - 1, doc="of the sensing matrix")
