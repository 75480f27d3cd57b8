"""Sigmoid by table."""

from nnac.schedule.ops._table import TableEmission


class SigmoidEmission(TableEmission):
    """LUT."""
