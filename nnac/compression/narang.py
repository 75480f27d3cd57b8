"""Narang's ramp."""

from __future__ import annotations

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("sparsity")
@frozen
class Narang(Method):
    """Narang's ramp: weights below a threshold become zero; the threshold grows linearly, faster in the second half.

    Source: Narang et al. 2017, arXiv 1704.05119 (background); slopes are chosen so that the target is met.
    """

    target: float = argument("fraction", low=0.0, high=0.999, positional=True, doc="share of weights that become zero")
    from_: Moment = argument("moment", default=Moment(0.0), doc="first pruning event")
    to: Moment = argument("moment", default=Moment(0.5, "training"), doc="moment at which the target is reached")
    every: Moment = argument("moment", default=Moment(100.0), doc="how often weights are chosen again in between")
    block: int = argument("integer", default=1, low=1, high=256, doc="neighbouring weights that live or die together")
    along: str = argument("choice", default="inputs", choices=("inputs", "outputs"),
                          doc="neighbours: `inputs` of one output (fewer bytes), `outputs` of one input (a block of all lanes is skipped)")
    slope_ratio: float = argument("number", default=1.5, low=1.0, high=4.0, doc="second slope over the first")
