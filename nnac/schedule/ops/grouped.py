"""A matrix of blocks: a matrix with zeros, which codecs take out."""

from nnac.schedule.ops.linear import LinearEmission


class GroupedEmission(LinearEmission):
    """MVM and RQ, as `linear`."""
