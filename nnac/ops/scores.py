"""Scores of attention: what each frame of a chunk says to each frame that it hears, head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import record
from nnac.formats import SCORE
from nnac.ops import Array, State, require
from nnac.ops._ring import RingAttributes, RingOperator, counting

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work


@frozen(eq=False, repr=False)
class ScoresAttributes(RingAttributes):
    """``heads`` of ``head`` elements each.  ``slots`` chunks are heard: the frame's own and those before it.

    positions  of the learnt bias; a key of the frame itself is at position ``ahead``, older ones after it
    """

    heads: int = 1
    head: int = 1
    positions: int = 0
    ahead: int = 0


class Scores(RingOperator):
    """`arith.attention_scores` of queries and keys [chunk, heads * head]: [heads * slots * chunk] for each query,
    oldest key first.

    constants  bias int64 [heads, slots * chunk + chunk - 1]: that of the last query and the oldest key first
               multiplier, shift (scalars)
    state  count, keys
    """

    inputs = 2
    constants = ("bias", "multiplier", "shift")
    attributes_type = ScoresAttributes
    gives = SCORE
    ringed, ring, narrow = 1, "keys", (0, 1)

    def slots(self, layer: Mapping[str, Any]) -> int:
        return int(layer["left"] // layer["chunk"] + 1) if "left" in layer else int(layer["slots"])

    def width(self, layer: LayerShape) -> int:
        return int(layer.attributes["heads"] * layer.attributes["head"])

    def attributes(self, layer: LayerShape, p: Precision) -> ScoresAttributes:
        a = layer.attributes
        return ScoresAttributes(self.slots(a), a["chunk"], a["heads"], a["head"], a["positions"], a["ahead"])

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work

        a = job.attributes
        steps, rows = job.vectors // a["chunk"], self.slots(a) * a["chunk"]
        each = (2 * m.vx_fill + beats.keep(m, a["chunk"], a["heads"] * a["head"])
                + beats.attention(m, a["chunk"], rows, a["heads"], a["head"]))
        return Work(vector=steps * each)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        a, c, (q, k) = record(node.attributes, ScoresAttributes), constants, inputs
        keys, known = self.windows(node.path, k, state, a.slots, a.chunk)
        steps, batch, rows, _ = keys.shape
        queries = q.reshape(steps, a.chunk, batch, a.heads, a.head).swapaxes(1, 2).swapaxes(2, 3)
        keys = keys.reshape(steps, batch, rows, a.heads, a.head).swapaxes(2, 3)
        y = arith.attention_scores(queries, keys, shifted(c["bias"], rows, a.chunk), valid(known, a.slots, a.chunk),
                                   c["multiplier"], c["shift"])
        return y.swapaxes(2, 3).swapaxes(1, 2).reshape(steps * a.chunk, batch, a.heads * rows)

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a = record(node.attributes, ScoresAttributes)
        require(all(v.width == a.heads * a.head and v.bits <= 8 and v.zero_point == 0 for v in inputs), node,
                f"queries and keys are symmetric int8 of {a.heads} heads of {a.head}")
        require(output.width == a.heads * a.slots * a.chunk and output.rate % a.chunk == 0, node,
                "a score for every head and row of the ring")
        require(output.bits == SCORE.bits and output.scale in (None, SCORE.scale), node, f"makes {SCORE}")
        if node.constants:
            require(node.constants["bias"].shape == (a.heads, (a.slots + 1) * a.chunk - 1), node,
                    "a bias for every head and distance")


def shifted(bias: Array, rows: int, chunk: int) -> Array:
    """[heads, rows + chunk - 1] -> [heads, chunk, rows]: each query is one further from every key."""
    from nnac.ops._carriers import joined

    return joined([bias[:, None, chunk - 1 - c: chunk - 1 - c + rows] for c in range(chunk)], 1)


def valid(known: Array, slots: int, chunk: int) -> Array:
    """Which rows were written: int64 0 or 1 [steps, B, 1, 1, rows], of how many chunks were [steps, B, 1]."""
    return ((counting(known, slots * chunk) >= (slots - known) * chunk) * 1)[..., None, None, :]
