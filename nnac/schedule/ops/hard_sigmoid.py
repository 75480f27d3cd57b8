"""Hard sigmoid by table."""

from nnac.schedule.ops._table import TableEmission


class HardSigmoidEmission(TableEmission):
    """LUT."""
