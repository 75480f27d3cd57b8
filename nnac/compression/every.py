"""The hard compressor, invoked periodically."""

from __future__ import annotations

import math
from typing import Any

from attrs import evolve, frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("harden")
@frozen
class Every(Method):
    """The hard compressor, invoked periodically: set each weight to its nearest centroid in place, optimiser state
    kept.

    Between two of its runs Adam moves a weight by at most ``period * learning_rate``: less than half a spacing of the
    levels, and what training did is undone.  `spacings` says the period in that measure.
    Source: S8BQAT, arXiv 2206.15408 (seen: periodic hard compressor).  The period is not recoverable.
    """

    period: Moment | None = argument("moment", default=None, positional=True, optional=True, doc="how often")
    from_: Moment = argument("moment", default=Moment(0.0), doc="the first time")
    until: Moment | None = argument("moment", default=None, optional=True,
                                    doc="the last time; none: to the end of training")
    spacings: float | None = argument("number", default=None, low=0.01, high=1e6, optional=True,
                                      doc="in place of `period`: as many steps as let the learning rate move a weight "
                                      "by so many mean spacings of its levels")

    def __attrs_post_init__(self) -> None:
        if (self.period is None) == (self.spacings is None):
            raise ValueError("`every` needs a period or `spacings`, one of them: for example `every(spacings=1)`")

    def settled(self, spacing: float, rate: float) -> Every:
        """The same with its period in steps, for levels ``spacing`` apart and a learning rate."""
        if self.spacings is None:
            return self
        return evolve(self, period=Moment(float(max(1, math.ceil(self.spacings * spacing / rate)))), spacings=None)

    def undoes(self, clock: Any, spacing: float, rate: float) -> bool:
        """Whether weights cannot leave their level between two runs."""
        return self.period is not None and clock.at(self.period) * rate < spacing / 2

    def due(self, clock: Any) -> bool:
        """Whether the hard compressor runs after this step."""
        return self.period is not None and clock.every(self.period, self.from_, self.until)
