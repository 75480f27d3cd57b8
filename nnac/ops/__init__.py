"""Operators, one a file: what each computes on integers, and what a valid node of it looks like.

An operator is a class with a ``kind``; importing this package registers all of them.  `integers` is the meaning: evaluate calls it,
the training module calls it (or a fast kernel proved equal), the emulator's instructions are tested against it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from nnac.ir import Node, QGraph

Array = Any
registry: dict[str, Operator] = {}


class Operator:
    """Base of all operators.  Subclasses set ``kind`` and ``constants`` and define `integers` (and `verify_more`)."""

    kind: ClassVar[str]
    constants: ClassVar[tuple[str, ...]] = ()          # names every bound node must carry
    inputs: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        registry[cls.kind] = cls()

    def integers(self, node: Node, graph: QGraph, inputs: list[Array], state: dict[str, Array], constants: Mapping[str, Array]) -> Array:
        """The output, from ``inputs`` (each [T, B, width] int64), reading and replacing ``state`` ([B, width] by state name).

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
        return self.constants

    def verify_more(self, node: Node, graph: QGraph, inputs: list[Any], output: Any) -> None:
        """The operator's own rules."""


def require(condition: bool, node: Node, rule: str) -> None:
    """GraphError naming ``node`` unless ``condition``."""
    if not condition:
        from nnac.ir import GraphError

        raise GraphError(f"{node.path} ({node.op}): {rule}")


def operator(kind: str) -> Operator:
    """The operator called ``kind``.  GraphError if there is none."""
    if kind not in registry:
        from nnac.ir import GraphError

        raise GraphError(f"no operator is called {kind} (there are: {', '.join(sorted(registry))})")
    return registry[kind]


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
