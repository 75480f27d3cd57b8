"""The hard compressor, invoked periodically."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from nnac.compression.base import Method, argument, method
from nnac.units import Moment


@method("harden")
@frozen
class Every(Method):
    """The hard compressor, invoked periodically: set each weight to its nearest centroid in place, optimiser state
    kept.

    Source: S8BQAT, arXiv 2206.15408 (seen: periodic hard compressor).  The period is not recoverable.
    """

    period: Moment = argument("moment", positional=True, doc="how often")
    from_: Moment = argument("moment", default=Moment(0.0), doc="the first time")
    until: Moment | None = argument("moment", default=None, optional=True,
                                    doc="the last time; none: to the end of training")

    def due(self, clock: Any) -> bool:
        """Whether the hard compressor runs after this step."""
        return clock.every(self.period, self.from_, self.until)
