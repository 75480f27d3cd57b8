"""Roofline: what no schedule can beat.  From the model's shapes and the bytes of its encoded weights; no instruction is
looked at.

    cycles >= max(DRAM bytes / bytes a cycle, multiply-accumulates / multipliers busy)

DRAM bytes of a call: every encoded weight that is not pinned, once; recurrent ones once a vector, for the hidden state
of one vector needs that of the last, less what the stream buffers could still hold from the vector before.  Parameter
blocks and decoder tables are overhead and not counted.

Both limits at once are reached only if DRAM and multipliers never wait for each other.  They must: a call is a chain of
*phases*, the products of one layer, or of one vector of a recurrence, each of which needs what the last one made; and
of the weights of later phases no more can be there than the stream's part of W holds.  With F(j) the end of phase j,

    F(j) >= F(k) + max(products of phases k+1 .. j, DRAM of what those read, less what W holds)      for every k < j

and from the start, where W holds nothing, no less than the latency of a read.  A recurrence whose words W cannot all
hold asks DRAM for more only when it has used some of those it kept, so a read's latency passes at each vector, or as
many words are read again.  After the last phase lie the drain of the
multipliers and the pipeline of one vector instruction; between two of them that may hide behind products with what is
there already.  Rows of an embedding are read one after the other, each with its latency, before what they are
multiplied with.  So `Roofline.paced` is a lower bound for every machine that computes layer after layer, and says why
the roofline is not reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from attrs import field, frozen

from nnac.ir import Node, QGraph
from nnac.isa import MachineConfig
from nnac.ops import operator
from nnac.target import Target


@frozen
class Roofline:
    """Lower bounds of one call of an entry, in bytes, MACs and cycles.  ``chain``: by its phases."""

    dram_bytes: int
    macs: int
    dram_cycles: Fraction
    mac_cycles: Fraction
    chain: Fraction = field(default=Fraction(0))

    @property
    def cycles(self) -> Fraction:
        return max(self.dram_cycles, self.mac_cycles)

    @property
    def paced(self) -> Fraction:
        """The chain's bound where it is the higher one."""
        return max(self.cycles, self.chain)

    @property
    def bound(self) -> str:
        return "DRAM" if self.dram_cycles >= self.mac_cycles else "MACs"


def roofline(graph: QGraph, target: Target, kernels: Mapping[str, Mapping[str, Any]], entry: str,
             steps: int = 1, hypotheses: int = 1) -> Roofline:
    """The bound of one call of ``entry`` that computes ``steps`` steps, or a step of each of ``hypotheses``.

    kernels  kernel path -> ``bytes`` as encoded, ``pinned_bytes`` of those that stay on chip, ``weights``
    (a program's report["layers"])
    The multipliers count as lanes x columns where several vectors meet a weight (input products of several frames), as
    lanes alone where one does.
    """
    config = MachineConfig.of(target)
    dram = macs = 0
    busy = Fraction(0)
    for node in graph.entry(entry):
        vectors = graph.values[node.output].rate * steps * hypotheses
        for k in _own(node, kernels):
            alone = hypotheses == 1 and k.alone
            dram += k.read(vectors if alone else 1, config.stream_words)
            macs += k.weights * vectors
            busy += k.cycles * Fraction(vectors, 1 if alone else min(vectors, target.columns))
    per_cycle = Fraction(target.dram.delivered) / target.clock
    chain = _chain(list(_phases(graph, kernels, entry, steps, hypotheses, config)), config, 1 / per_cycle)
    rows = _rows(graph, kernels, entry, steps, hypotheses, config)
    return Roofline(dram, macs, dram / per_cycle, busy, max(chain, rows))


@frozen
class _Kernel:
    """A kernel, as far as bounds are concerned: bytes and words that are not pinned; cycles of its products with as
    many vectors as meet a weight at once; ``alone``: with one vector after another."""

    path: str
    weights: int
    bytes: int
    words: int
    cycles: Fraction
    alone: bool

    def waits(self, times: int, held: int) -> int:
        """How often of so many readings DRAM has nothing that it could read before the first products."""
        return times - 1 if self.words > held else 0

    def read(self, times: int, held: int) -> int:
        """Bytes from DRAM of so many readings, with ``held`` words still there each time but the first."""
        again = max(Fraction(0), 1 - Fraction(held, max(1, self.words)))
        return self.bytes + int(self.bytes * again) * (times - 1)


def _own(node: Node, kernels: Mapping[str, Mapping[str, Any]]) -> Iterator[_Kernel]:
    for path, k in kernels.items():
        if k["layer"] == node.path:
            alone = operator(node.op).meets[path.rpartition(".")[2]] == "hidden"
            words = k["live_words"] - k["pinned_words"]
            # the header of a stream is read once and for all: of a kernel that is pinned as a whole nothing is left
            left = k["bytes"] - k["pinned_bytes"] if words or not k["pinned_words"] else 0
            yield _Kernel(path, k["weights"], left, words, Fraction(k["cycles"]), alone)


Phase = tuple[tuple[_Kernel, int], ...]        # kernels with the groups of vectors that meet each weight in turn


def _phases(graph: QGraph, kernels: Mapping[str, Mapping[str, Any]], entry: str, steps: int, hypotheses: int,
            config: MachineConfig) -> Iterator[Phase]:
    """The products of a call, in an order that no schedule can change."""
    for node in graph.entry(entry):
        own = [k for k in _own(node, kernels) if k.cycles]
        vectors = graph.values[node.output].rate * steps * hypotheses
        groups = -(-vectors // config.columns)
        one_by_one = [k for k in own if k.alone] if hypotheses == 1 and vectors > 1 else []
        together = tuple((k, groups) for k in own if k not in one_by_one)
        if together:
            yield together
        for _ in range(vectors if one_by_one else 0):
            yield tuple((k, 1) for k in one_by_one)


def _rows(graph: QGraph, kernels: Mapping[str, Mapping[str, Any]], entry: str, steps: int, hypotheses: int,
          config: MachineConfig) -> Fraction:
    """The least cycles of a call that begins with rows of an embedding: they are read from DRAM one after the other,
    and only the products with a hidden state that is there already need none of them."""
    first, *others = graph.entry(entry)
    if not operator(first.op).by_index:
        return Fraction(0)
    vectors = graph.values[first.output].rate * steps * hypotheses
    later = sum((k.cycles * -(-vectors // config.columns) for node in others for k in _own(node, kernels)
                 if not k.alone), Fraction(0))
    return vectors * config.latency + later + config.mv_drain + config.vx_fill


def _chain(phases: list[Phase], config: MachineConfig, per_byte: Fraction) -> Fraction:
    """The least cycles of a chain of phases.  See the module."""
    tail = config.mv_drain + config.vx_fill
    ends = [Fraction(0)]
    for j in range(1, len(phases) + 1):
        products, read, least = Fraction(0), dict[_Kernel, int](), Fraction(0)
        for k in reversed(range(j)):
            products += sum(kernel.cycles * groups for kernel, groups in phases[k])
            for kernel, _ in phases[k]:
                read[kernel] = read.get(kernel, 0) + 1
            data = sum(kernel.read(times, config.stream_words) for kernel, times in read.items())
            waits = max((kernel.waits(times, config.stream_words) for kernel, times in read.items()), default=0)
            if k:
                densest = max((Fraction(r.bytes, r.words) for r in read if r.words), default=Fraction(0))
                fetched = max(Fraction(0), data - densest * config.stream_words) * per_byte
            else:                                          # what is pinned asks DRAM for nothing
                fetched = data * per_byte + config.latency if data else Fraction(0)
            least = max(least, ends[k] + max(products, fetched + waits * config.latency))
        ends.append(least)
    return ends[-1] + tail
