"""Operators, one a file: what each computes on integers, and its facts: all that the rest of the house asks of it.

An operator is one class in one file, ``nnac/ops/<kind>.py``; the file's name is its name in model graphs, in targets
and in programs.  Its gradient is the class of the same name in ``nnac/train/ops``, its instructions in
``nnac/schedule/ops``.  `integers` is its meaning: evaluate calls it, the training module calls it (or a fast kernel
proved equal), the emulator's instructions are tested against it.

Nothing here imports NumPy or torch at import (functions import what they need): lint asks the facts.  An operator is
imported when it is named.  Code that compares a kind with a string lacks a fact here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nnac.attributes import Attributes
from nnac.formats import FixedPoint, Precision, Wide, unit_scale

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph, Value
    from nnac.ir import State as StateVector
    from nnac.isa.config import MachineConfig
    from nnac.ops._work import Job, Work

Array = Any                    # numpy.ndarray or torch.Tensor of int64
State = dict[str, Array]
_OPERATORS: dict[str, Operator] = {}
_EMITTED: set[str] = set()      # beside those with a file


class KernelShape(Protocol):
    """What an operator reads of a weight matrix of a layer (`nnac.model.graph.Kernel`)."""

    @property
    def rows(self) -> int: ...


class LayerShape(Protocol):
    """What an operator reads of a layer (`nnac.model.graph.Layer`)."""

    @property
    def path(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def rate(self) -> int: ...
    @property
    def kernels(self) -> Sequence[KernelShape]: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


class Operator:
    """Base of all operators.  Subclasses define `integers` (and `verify_more`) and say how they differ from these
    facts."""

    kind: ClassVar[str]                                # the file's name
    inputs: ClassVar[int] = 1
    constants: ClassVar[tuple[str, ...]] = ()          # names every bound node must carry

    # goes from frame to frame with a hidden state, which is its output
    recurrent: ClassVar[bool] = False
    # keeps a ring of what it was given (`nnac.ops._ring`)
    remembers: ClassVar[bool] = False
    # of its output the last vector is meant: calibration looks at nothing else, here and behind it
    at_end: ClassVar[bool] = False
    # no arithmetic: its output is its input, looked at in another shape
    view: ClassVar[bool] = False
    # its kernel travels among the parameters of its instructions, not as a stream of weights
    parametric: ClassVar[bool] = False
    # reads the row of its kernel that an index names, and multiplies nothing
    by_index: ClassVar[bool] = False
    # takes an input with a zero point (it goes into a bias, or is subtracted exactly)
    folds_zero_point: ClassVar[bool] = False
    # its output may have a zero point (a view's has what its input has)
    makes_zero_point: ClassVar[bool] = False
    takes: ClassVar[FixedPoint | Wide | None] = None   # the format that its input has, whatever the policy says
    gives: ClassVar[FixedPoint | None] = None          # the format that its output has, whatever the policy says
    # the least value of that format is a floor that belongs to its definition: numbers below it are no loss
    floored: ClassVar[bool] = False
    attributes_type: ClassVar[type[Attributes]] = Attributes  # of its nodes' attributes
    # its output ends at 0 and at its attribute ``cap``, the ends of its format
    capped: ClassVar[bool] = False
    weight_bits: ClassVar[int] = 16                    # the widest weights that it multiplies
    narrow: ClassVar[tuple[int, ...]] = ()             # inputs that are int8 at most
    # kernel -> what meets it: ``input``, or ``hidden``, the layer's own state
    meets: ClassVar[Mapping[str, str]] = {"weight": "input"}
    in_one_piece: ClassVar[bool] = False               # its instructions read and write vectors that lie in one piece
    # kernels whose products may meet in one sum, on one scale (`accumulate acc32`)
    shares_sum: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        package, _, name = cls.__module__.rpartition(".")
        if package == __name__ and not name.startswith("_"):
            cls.kind = name
        if "kind" in cls.__dict__:
            _OPERATORS[cls.kind] = cls()

    @property
    def matrices(self) -> tuple[str, ...]:
        """Kernels that are multiplied as matrices: streams of weights on the machine, matrix products elsewhere."""
        return () if self.by_index or self.parametric else tuple(self.meets)

    def bounded(self, attributes: Mapping[str, Any]) -> bool:
        """Whether arithmetic keeps its output within [-1, 1], so that the largest integer stands for 1, whatever
        calibration would find."""
        return False

    # ---- lowering: a layer and what a plan decides about its integers become a node

    def attributes(self, layer: LayerShape, p: Precision) -> Attributes:
        """What the node says about itself beside its inputs and constants."""
        return Attributes()

    def states(self, layer: LayerShape, p: Precision) -> tuple[StateVector, ...]:
        """What the node keeps from step to step."""
        return ()

    def state_bytes(self, attributes: Mapping[str, Any], width: int, hidden_bits: int) -> int:
        """Bytes of `states` in memory; ``width`` of the output."""
        return 0

    def output(self, layer: LayerShape, p: Precision, source: Value) -> Value:
        """The format of the output, given that of the (first) input; its scale where arithmetic decides it."""
        from nnac.ir import Value

        if self.gives is not None:
            return Value(layer.path, layer.width, self.gives.bits, layer.rate, self.gives.scale)
        scale = unit_scale(p.activations) if self.bounded(layer.attributes) else None
        return Value(layer.path, layer.width, p.activations, layer.rate, scale)

    def heard(self, attributes: Mapping[str, Any]) -> int | None:
        """Frames before its own that a step's output depends on; None: all there were, or this is not known."""
        return None if self.recurrent or self.remembers else 0

    def least_bits(self, attributes: Mapping[str, Any], width: int) -> int:
        """The fewest bits in which an output of ``width`` elements says enough (a warning where it has fewer)."""
        return 0

    def seen_bias(self, attributes: Mapping[str, Any]) -> tuple[int, int]:
        """(row, units) of a bias, and by how many units of what its products give it must move to be seen in the
        output: a planted fault."""
        return 0, 1

    # ---- the machine

    def fits(self, attributes: Mapping[str, Any], width: int, lanes: int) -> bool:
        """Whether the machine's instructions take inputs of ``width`` elements; ``lanes`` of the machine."""
        return True

    def work(self, job: Job, m: MachineConfig) -> Work:
        """What one call takes of the machine's units.  Exact for VX where all products are there; what weights could
        save is in `matrix_least`."""
        from nnac.ops._work import Work

        return Work()

    # ---- integers

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: State,
                 constants: Mapping[str, Array]) -> Array:
        """The output, from ``inputs`` (each [T, B, width] int64), reading and replacing ``state`` ([B, width] by state
        name).

        ``constants`` are the node's own, already on the carrier (NumPy or torch) and in int64.
        """
        raise NotImplementedError

    def verify(self, node: Node, graph: QGraph) -> None:
        """GraphError if ``node`` is not a valid use of this operator."""
        from nnac.ir import GraphError

        where = f"{node.path} ({self.kind})"
        if len(node.inputs) != self.inputs:
            raise GraphError(f"{where}: takes {self.inputs} inputs, not {len(node.inputs)}")
        if node.constants:
            missing = [c for c in self.constants_of(node) if c not in node.constants]
            if missing:
                raise GraphError(f"{where}: lacks {', '.join(missing)}")
        self.verify_more(node, graph, [graph.values[n] for n in node.inputs], graph.values[node.output])

    def constants_of(self, node: Node) -> tuple[str, ...]:
        """Names that the bound node must carry."""
        return self.constants

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Value], output: Value) -> None:
        """The operator's own rules."""


def require(condition: bool, node: Node, rule: str) -> None:
    """GraphError naming ``node`` unless ``condition``."""
    if not condition:
        from nnac.ir import GraphError

        raise GraphError(f"{node.path} ({node.op}): {rule}")


@cache
def shipped() -> tuple[str, ...]:
    """The names of the operators that come with nnac, without importing any."""
    return tuple(sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_")))


def kinds() -> tuple[str, ...]:
    """The names of all operators, without importing any."""
    return tuple(dict.fromkeys((*shipped(), *_OPERATORS)))


def find(kind: str) -> Operator | None:
    """The operator of that name, importing its file only; None if there is none."""
    if kind not in _OPERATORS and kind in shipped():
        importlib.import_module(f"{__name__}.{kind}")
    return _OPERATORS.get(kind)


def operator(kind: str) -> Operator:
    """The operator called ``kind``.  GraphError if there is none."""
    found = find(kind)
    if found is None:
        from nnac.ir import GraphError

        raise GraphError(f"no operator is called {kind} (there are: {', '.join(kinds())})")
    return found


def declare_emitted(kind: str) -> None:
    """Say that the machine runs an operator that has no file in ``nnac/schedule/ops``."""
    _EMITTED.add(kind)


@cache
def _emissionshipped() -> frozenset[str]:
    folder = Path(__file__).parent.parent / "schedule" / "ops"
    return frozenset(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_"))


def emitted(kind: str) -> bool:
    """Whether the machine runs the operator: its instructions are in ``nnac/schedule/ops/<kind>.py``.  Imports
    nothing."""
    return kind in _EMITTED or kind in _emissionshipped()


def may_have_zero_point(value: str, made_by: str | None, readers: Callable[[str], Iterable[tuple[str, str]]]) -> bool:
    """Whether ``value`` may have a zero point: its maker can make one, and all its readers fold it in.

    made_by  the kind that makes it, None for what enters the model
    readers  value -> (kind, output) of everything that reads it
    """
    if made_by is not None:
        maker = operator(made_by)
        if not maker.makes_zero_point and not maker.view:
            return False
    return all(may_have_zero_point(output, None, readers) if operator(kind).view else operator(kind).folds_zero_point
               for kind, output in readers(value))
