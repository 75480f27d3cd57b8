"""A fixed clip."""

from __future__ import annotations

from attrs import frozen

from nnac.compression._weights import WeightRule
from nnac.compression.base import Method, argument, method


@method("weights", "activations", "hidden")
@frozen
class Fixed(WeightRule, Method):
    """A fixed clip: no statistics, no learning.  ``fixed(1)`` is exact for ``h = o * tanh(c)``, which never leaves [-1, 1].

    Source: FMS-MO's fixed clip (docs/methods.md §6).
    """

    clip: float = argument("number", low=1e-6, high=1e6, positional=True, doc="largest magnitude represented")

    def reach(self, x, live, bits):
        return x.new_full((x.shape[0],), self.clip)
