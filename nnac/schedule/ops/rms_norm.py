"""Norm by the root mean square, a vector at a time."""

from __future__ import annotations

from nnac.schedule.ops.layer_norm import LayerNormEmission


class RmsNormEmission(LayerNormEmission):
    """LN that takes no mean off, with biases of zero."""

    rms = 1
