"""Where an operator runs, and what it costs on the CPU.  Said once: the compiler and lint both ask here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from nnac.ops import Operator, emitted
from nnac.target import Cpu, Target

CPU_OPERATIONS = 8             # of a CPU per element of an operator without weights (our choice)


def on_cpu(op: Operator, attributes: Mapping[str, Any], place: str | None, target: Target, width: int,
           whole: bool) -> bool:
    """Whether an operator runs on the CPU: asked for, not in the target's list, without instructions, or in a form that
    none of them takes.

    place  what the policy says, ``nna`` or ``cpu``      width  elements of an input vector
    whole  all vectors lie in one piece
    """
    if op.view:
        return False                                   # nothing runs
    if place == "cpu" or op.kind not in target.operators or not emitted(op.kind):
        return True
    return (op.in_one_piece and not whole) or not op.fits(attributes, width, target.lanes)


def cpu_work(op: Operator, weights: int, width: int) -> int:
    """Operations of the CPU for one output vector of ``width`` elements: a multiply-accumulate a weight, or a few for
    each element."""
    return weights if weights and not op.by_index else CPU_OPERATIONS * width


def cpu_seconds(cpu: Cpu, moved: int, work: int) -> Fraction:
    """A call of the CPU: waking it, moving ``moved`` bytes, computing ``work`` operations."""
    return cpu.wake + Fraction(moved, cpu.transfer) + Fraction(work, cpu.macs)


def moved_bytes(values: Iterable[tuple[int, int, int]], states: Iterable[tuple[int, int]]) -> int:
    """Bytes that travel: values (vectors, width, bytes an element) one way, states (width, bytes an element) there and
    back."""
    return sum(vectors * width * size for vectors, width, size in values) + 2 * sum(width * size
                                                                                    for width, size in states)
