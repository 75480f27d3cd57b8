"""Tanh by table."""

from nnac.schedule.ops._table import TableEmission


class TanhEmission(TableEmission):
    """LUT."""
