"""Roofline: what no schedule can beat.  From the model's shapes and the bytes of its encoded weights; no instruction is
looked at.

    cycles >= max(DRAM bytes / bytes a cycle, multiply-accumulates / multipliers busy)

DRAM bytes of a call: every encoded weight that is not pinned, once; recurrent ones once a vector, for the hidden state
of one vector needs that of the last, less what the stream buffers could still hold from the vector before.  Parameter
blocks and decoder tables are overhead and not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from attrs import frozen

from nnac.ir import QGraph
from nnac.isa import MachineConfig
from nnac.ops import operator
from nnac.target import Target


@frozen
class Roofline:
    """Lower bounds of one call of an entry, in bytes, MACs and cycles."""

    dram_bytes: int
    macs: int
    dram_cycles: Fraction
    mac_cycles: Fraction

    @property
    def cycles(self) -> Fraction:
        return max(self.dram_cycles, self.mac_cycles)

    @property
    def bound(self) -> str:
        return "DRAM" if self.dram_cycles >= self.mac_cycles else "MACs"


def roofline(graph: QGraph, target: Target, kernels: Mapping[str, Mapping[str, Any]], entry: str,
             steps: int = 1) -> Roofline:
    """The bound of one call of ``entry`` that computes ``steps`` steps.

    kernels  kernel path -> ``bytes`` as encoded, ``pinned_bytes`` of those that stay on chip, ``weights``
    (a program's report["layers"])
    The multipliers count as lanes x columns where several vectors meet a weight (input products of several frames), as
    lanes alone where one does.
    """
    stream_words = MachineConfig.of(target).stream_words
    dram = macs = 0
    busy = Fraction(0)
    for node in graph.entry(entry):
        vectors = graph.values[node.output].rate * steps
        for path, k in kernels.items():
            if k["layer"] != node.path:
                continue
            alone = operator(node.op).meets[path.rpartition(".")[2]] == "hidden"
            free = k["bytes"] - k["pinned_bytes"]
            dram += free
            if alone:
                moving = k["live_words"] - k["pinned"] // target.lanes
                again = max(Fraction(0), 1 - Fraction(stream_words, max(1, moving)))
                dram += int(free * again) * (vectors - 1)
            macs += k["weights"] * vectors
            together = 1 if alone else min(vectors, target.columns)
            busy += Fraction(k["live_weights"] * vectors, target.lanes * together)
    per_cycle = Fraction(target.dram.bandwidth, target.clock)
    return Roofline(dram, macs, dram / per_cycle, busy)
