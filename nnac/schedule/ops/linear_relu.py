"""Matrix-vector product whose requantisation is the ReLU."""

from nnac.schedule.ops.linear import LinearEmission


class LinearReluEmission(LinearEmission):
    """MVM and RQ, as `linear`: the zero point does the rest."""
