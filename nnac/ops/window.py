"""The last frames side by side: what a causal convolution reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from nnac.attributes import Attributes, record
from nnac.limits import MOST_ELEMENTS
from nnac.ops import Array, Operator, State, require
from nnac.ops._carriers import joined

if TYPE_CHECKING:
    from nnac.formats import Precision
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops import LayerShape
    from nnac.ops._work import Job, Work

MOST_BYTES = 16380             # that one copy moves


@frozen(eq=False, repr=False)
class WindowAttributes(Attributes):
    """``taps`` frames make a vector, each ``dilation`` behind the one before, a new one every ``frames`` of them."""

    taps: int
    frames: int = 1
    dilation: int = 1

    @property
    def kept(self) -> int:
        """Frames that are remembered."""
        return reach(self.taps, self.dilation) - self.frames


def reach(taps: int, dilation: int) -> int:
    """Frames from the first tap to the last, both counted."""
    return (taps - 1) * dilation + 1


class Window(Operator):
    """[T, B, C] -> [T / frames, B, taps * C], oldest first, requantised; zeros before the first frame.

    constants  multiplier, shift (scalars)      state  past: the last frames that are heard again, as they are given on
    """

    attributes_type = WindowAttributes
    constants = ("multiplier", "shift")
    in_one_piece = True
    remembers = True

    def attributes(self, layer: LayerShape, p: Precision) -> WindowAttributes:
        a = layer.attributes
        return WindowAttributes(a["taps"], a.get("frames", 1), a.get("dilation", 1))

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        from nnac.ir import State as StateVector

        a = self.attributes(layer, p)
        kept = layer.width // a.taps * a.kept
        return (StateVector(f"{layer.path}.past", kept, p.activations),) if kept else ()

    def heard(self, attributes: Mapping[str, Any]) -> int | None:
        return reach(attributes["taps"], attributes.get("dilation", 1)) - 1

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        return width // attributes["taps"] * reach(attributes["taps"], attributes.get("dilation", 1))  # of int8

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        return width % 4 == 0 and 2 * width * reach(attributes["taps"], attributes.get("dilation", 1)) <= MOST_BYTES

    def work(self, job: Job, m: MachineConfig) -> Work:
        from nnac.isa import beats
        from nnac.ops._work import Work, pieces

        a = job.attributes
        one, frames, dilation = job.width // a["taps"], a.get("frames", 1), a.get("dilation", 1)
        size = 1 if job.in_bits <= 8 else 2
        kept = (reach(a["taps"], dilation) - frames) * one * size
        copies = 2 * (m.vx_fill + -(-kept // m.lanes)) if kept else 0
        each = sum(m.vx_fill + beats.add(m, n) for n in pieces(one, MOST_ELEMENTS)) * frames
        if dilation == 1:
            return Work(vector=job.vectors * (copies + each))
        each += m.vx_fill + a["taps"] * -(-one * size // m.lanes)
        return Work(vector=copies + job.vectors * each, buffer_bytes=kept + job.vectors * one * size)

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        from nnac import arith

        x = arith.requantise(inputs[0], constants["multiplier"], constants["shift"], 0, graph.values[node.output].bits)
        a = record(node.attributes, WindowAttributes)
        made, past = windows(x, state.get(f"{node.path}.past"), a)
        if past is not None:
            state[f"{node.path}.past"] = past
        return made

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        a, (x,) = record(node.attributes, WindowAttributes), inputs
        require(output.width == a.taps * x.width and x.rate == a.frames * output.rate and a.taps >= a.frames, node,
                f"joins {a.taps} frames, {a.frames} of them new")
        require(a.dilation == 1 or a.frames == 1, node, "makes a vector of every frame where taps lie apart")
        require(x.zero_point == output.zero_point == 0, node, "symmetric formats")


def windows(x: Array, past: Array | None, a: WindowAttributes) -> tuple[Array, Array | None]:
    """x [T, B, C], past [B, kept * C], on either carrier -> (windows [T / frames, B, taps * C], past afterwards); a
    rest of T is dropped."""
    steps, batch, width = x.shape[0] // a.frames, x.shape[1], x.shape[2]
    x = x[: steps * a.frames]
    if a.kept:
        assert past is not None
        x = joined([past.reshape(batch, a.kept, width).swapaxes(0, 1), x], 0)
    columns = [x[i: i + steps * a.frames: a.frames] if steps else x[:0]
               for i in range(0, a.taps * a.dilation, a.dilation)]
    after = x[len(x) - a.kept:].swapaxes(0, 1).reshape(batch, a.kept * width) if a.kept else None
    return joined(columns, -1), after
