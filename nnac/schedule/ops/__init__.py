"""How operators run on the machine, one a file: ``nnac/schedule/ops/<kind>.py`` says how the operator of that name is
laid out and emitted.

Whether the machine runs an operator is whether its file is here (`nnac.ops.emitted`); without one it runs on the CPU,
priced and warned of. The compiler asks each node's class in this order: `matrices` to encode, `parameters` to keep
beside them, `buffers` while it runs, then `emit`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from nnac.ops import declare_emitted, emitted, operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nnac.ir import Node, QGraph
    from nnac.schedule.emit import Emitter
    from nnac.schedule.kernels import Kernel, Parameters
    from nnac.schedule.layout import EntryPlan
    from nnac.vectors import Form

_EMISSIONS: dict[str, Emission] = {}


@frozen(eq=False)
class Matrix:
    """A weight matrix to be encoded.

    order     [rows]: reordered row -> row, None to keep it          segments
    pieces (byte offset, elements) of the vector that it multiplies
    act_bits  bits of that vector's elements
    """

    name: str
    weight: NDArray
    segments: Sequence[tuple[int, int]]
    act_bits: int
    order: NDArray | None = None


@frozen(eq=False)
class Made:
    """What is known of the machine and of the program when parameters are made."""

    lanes: int
    kernels: Mapping[str, Kernel]                      # by path
    slots: Mapping[bytes, int]                         # table -> LUT slot

    def slot(self, table: NDArray) -> int:
        """LUT slot of a table."""
        return self.slots[table.astype("<i2").tobytes()]


class Emission:
    """Base: an operator without kernels, tables or buffers.  ``kind`` is the file's name."""

    kind: ClassVar[str]
    tables: ClassVar[tuple[str, ...]] = ()             # constants that are look-up tables
    zero_block: ClassVar[bool] = False                 # needs parameters that change nothing
    side_by_side: ClassVar[bool] = False               # computes several hypotheses, each with a state in its own place
    streamed_together: ClassVar[tuple[str, ...]] = ()  # kernels whose bands are read in turn, unless frames are batched

    def __init_subclass__(cls) -> None:
        package, _, name = cls.__module__.rpartition(".")
        if package == __name__ and not name.startswith("_"):
            cls.kind = name
        if "kind" in cls.__dict__:
            _EMISSIONS[cls.kind] = cls()
            declare_emitted(cls.kind)

    def tables_of(self, node: Node) -> Sequence[str]:
        """The constants of a node that are look-up tables."""
        return self.tables

    def matrices(self, node: Node, graph: QGraph, forms: Mapping[str, Form], lanes: int) -> Sequence[Matrix]:
        """The weight matrices that the machine multiplies."""
        return ()

    def rows(self, node: Node, size: int) -> NDArray | None:
        """A table of rows that stays in DRAM, each of ``size`` bytes an element; None if there is none."""
        return None

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        """The constants that its vector instructions read."""
        return ()

    def weights(self, node: Node) -> Mapping[str, int]:
        """Kernels whose weights travel among the parameters, a byte each: name -> how many."""
        return {}

    def buffers(self, node: Node, vectors: int, hypotheses: int, lanes: int) -> Mapping[str, int]:
        """Name -> bytes of what lives in activation memory while the node computes ``vectors`` vectors that follow
        each other, or one of each of ``hypotheses``."""
        return {}

    def emit(self, node: Node, e: Emitter) -> None:
        """Its instructions, in program order."""
        raise NotImplementedError

    def read_at(self, node: Node, kernel: str, plan: EntryPlan) -> Sequence[int]:
        """Addresses of the vectors that a kernel multiplies in one call."""
        view = plan.views[node.inputs[0]]
        return [view.at(t) for t in range(view.vectors)]

    def reads(self, kernel: str, vectors: int, batched: int, together: int) -> float:
        """How often a kernel's weights are read for one step of ``vectors`` vectors, where a call computes ``batched``
        and ``together`` of them meet a weight at a time: what pinning weighs."""
        return 1.0

    def again(self, kernel: str) -> bool:
        """Whether a call reads a kernel once for each of its vectors, so that the second reading finds what W still
        holds of the first."""
        return False


def emission(kind: str) -> Emission:
    """How the operator called ``kind`` is emitted.  KeyError if the machine does not run it."""
    if kind not in _EMISSIONS and emitted(kind):
        importlib.import_module(f"{__name__}.{kind}")
    return _EMISSIONS[kind]


def of_view(node: Node) -> bool:
    """Whether a node is only a way to look at memory: it needs no instruction, wherever it stands."""
    return operator(node.op).view


__all__ = ["Any", "Emission", "Made", "Matrix", "emission", "of_view"]
