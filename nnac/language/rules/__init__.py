"""Lint rules."""

from __future__ import annotations

from nnac.language.resolve import Resolution


def run_rules(r: Resolution) -> None:
    """Add what the lint rules find to ``r.problems``."""
