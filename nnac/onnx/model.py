"""One step of an entry as an ONNX model: values and states in, values and states out, as integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen
from onnx import ModelProto, NodeProto, TensorProto, helper

from nnac import arith
from nnac.errors import UserError
from nnac.ir import Node, QGraph, Value
from nnac.onnx.symbol import ANY, INT32, OPSET, Kernel, NotTraceable, Symbol, Tape, known
from nnac.ops import operator

PRODUCER = "nnac"
INDEX_BITS = 32                # of a value that is an index (`nnac.ir.Value`)
AFTER = ".next"                # a state's name as an output


class OnnxError(UserError):
    """A model that ONNX's integers cannot say; one line that names the layer."""


@frozen(eq=False)
class Step:
    """An entry traced: ``frames`` vectors of its first input a call (others in proportion).

    inputs, outputs  symbols by the names of values    states, after  symbols by the names of states
    made             every value made on the way, in order
    """

    tape: Tape
    inputs: Mapping[str, Symbol]
    states: Mapping[str, Symbol]
    outputs: Mapping[str, Symbol]
    after: Mapping[str, Symbol]
    made: Mapping[str, Symbol]


def trace(graph: QGraph, entry: str, steps: int = 1, inside: str = "") -> Step:
    """What ``entry`` does in so many steps, by its operators' own `integers`.  OnnxError names the layer that has no
    such form.

    inside  put before the names of inputs, where something else is called as they are
    """
    tape = Tape()
    inputs = {v.name: tape.input(inside + v.name, (steps * graph.rate(entry, v.name), ANY, v.width), *_ends(v))
              for v in map(graph.values.__getitem__, graph.inputs[entry])}
    states = {s.name: tape.input(s.name, (ANY, s.width), *arith.limits(s.bits))
              for n in graph.entry(entry) for s in n.states}
    state = dict(states)
    values = compute(graph, entry, inputs, state, tape)
    return Step(tape, inputs, states, {n: values[n] for n in graph.outputs[entry]}, state,
                {n.output: values[n.output] for n in graph.entry(entry)})


def compute(graph: QGraph, entry: str, inputs: Mapping[str, Symbol], state: dict[str, Symbol],
            tape: Tape) -> dict[str, Symbol]:
    """All values of ``entry`` by name, of these inputs; ``state`` is read and replaced.  OnnxError names the layer that
    has no form in ONNX."""
    values = dict(inputs)
    for node in graph.entry(entry):
        try:
            values[node.output] = operator(node.op).integers(node, graph, [values[n] for n in node.inputs], state,
                                                             constants(tape, node))
        except (NotTraceable, TypeError) as error:
            raise OnnxError(f"{node.path}: `{node.op}` has no form in ONNX's integers: {error}") from None
    return values


def _ends(v: Value) -> tuple[int, int]:
    return (0, (1 << 31) - 1) if v.bits == INDEX_BITS else arith.limits(v.bits)


def constants(tape: Tape, node: Node) -> dict[str, Any]:
    """The constants of a node: kernels that multiply symbols, and known symbols."""
    multiplied = operator(node.op).matrices
    return {k: Kernel(np.asarray(v)) if k.rpartition(".")[2] in multiplied else known(tape, v)
            for k, v in node.constants.items()}


def integers(step: Step, name: str, watched: bool = False) -> ModelProto:
    """The model of a traced step: everything int32.  ``watched``: every value made is an output."""
    given = {**step.inputs, **step.states}
    gives = {**(step.made if watched else {}), **step.outputs}
    taken = [info(n, s) for n, s in given.items()]
    made = [named(step.tape, s, n) for n, s in gives.items() if n not in given]
    made += [named(step.tape, s, n + AFTER) for n, s in step.after.items()]
    return model(step.tape, name, taken, made)


def info(name: str, symbol: Symbol, type: int = INT32) -> Any:
    """What an ONNX model says of an input or output."""
    return helper.make_tensor_value_info(name, type, ["N" if n == ANY else n for n in symbol.shape])


def named(tape: Tape, symbol: Symbol, name: str) -> Any:
    """The symbol as an output of that name, in int32."""
    tape.write("Identity", [symbol.as_type(INT32)], name)
    return info(name, symbol)


def model(tape: Tape, name: str, inputs: list[Any], outputs: list[Any],
          metadata: Mapping[str, str] | None = None) -> ModelProto:
    """The tape as a model."""
    nodes, constants = needed(tape, [o.name for o in outputs])
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    made = helper.make_model(graph, producer_name=PRODUCER, opset_imports=[helper.make_opsetid("", OPSET)],
                             ir_version=10)
    helper.set_model_props(made, dict(metadata or {}))
    return made


def needed(tape: Tape, outputs: list[str]) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes and initializers that outputs depend on."""
    wanted, nodes = set(outputs), []
    for node in reversed(tape.nodes):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    return nodes[::-1], [i for i in tape.initializers if i.name in wanted]
