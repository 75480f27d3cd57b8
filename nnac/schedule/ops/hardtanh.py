"""Hardtanh by table."""

from nnac.schedule.ops._table import TableEmission


class HardtanhEmission(TableEmission):
    """LUT."""
