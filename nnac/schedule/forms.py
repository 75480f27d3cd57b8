"""The forms of a graph's values (`nnac.vectors`), and forms that have an address."""

from __future__ import annotations

from attrs import frozen

from nnac.ir import QGraph
from nnac.ops import operator
from nnac.program import Port
from nnac.vectors import Form, Vector, forms_of


@frozen
class View:
    """A form at an address."""

    form: Form
    address: int
    vectors: int

    def at(self, t: int) -> int:
        """Address of vector ``t``."""
        return self.address + t * self.form.stride

    def port(self, value: str) -> Port:
        """The same for the host."""
        return Port(value, self.address, self.form.segments, self.form.size, self.vectors, self.form.stride)


def forms(graph: QGraph) -> dict[str, Form]:
    """The form of every value."""
    given = [graph.values[name] for names in graph.inputs.values() for name in names]
    out = [Vector(v.name, v.width, v.bits, entering=True) for v in given]
    for node in graph.nodes:
        v = graph.values[node.output]
        joins = node.attributes["frames"] if operator(node.op).view else 0
        out.append(Vector(v.name, v.width, v.bits, node.inputs[0], joins))
    return forms_of(out)
