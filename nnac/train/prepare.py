"""A user's own PyTorch model under a policy: traced with torch.fx into a model graph, then trained in exact integers like ours.

    module = nnac.prepare(model, "policy.nnac", example)     # the policy says `model module`
    module.calibrate([batch, …])                             # tuples of the model's inputs
    y = module(x)                                            # real numbers out, integers inside
    graph = module.bind()

Understood: nn.LSTM and nn.GRU (one or more layers, LSTM also bidirectional or with projection), nn.Linear, nn.Embedding, nn.LayerNorm,
tanh, sigmoid, log_softmax, addition and multiplication of two values; dropout and identity are left out.  Layers keep the names
they have in the model, so policies address them by these (``encoder.rnn``; of several layers, ``encoder.rnn.layer[0]``).
Sequences are [T, B, C], or [B, T, C] where the recurrent layers say ``batch_first``.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, fx, nn

from nnac.entry import EntryPoint
from nnac.lower import lower_plan
from nnac.model.graph import GATES, GRU_GATES, Kernel, Layer, ModelGraph, lent
from nnac.plan import Plan
from nnac.train.integers import dequantise
from nnac.train.module import GraphModule

BUILDER = "module"             # what a policy for a user's own model calls it
FORWARD = EntryPoint("encoder", per_frame=1, frames=True)      # a call of the model: sequences, one step a frame
_TRANSPARENT = (nn.Dropout, nn.Identity)
_LEAVES = (nn.LSTM, nn.GRU, nn.Linear, nn.Embedding, nn.LayerNorm, nn.Tanh, nn.Sigmoid, nn.LogSoftmax, *_TRANSPARENT)
_ELEMENTWISE: dict[Any, str] = {operator.add: "add", torch.add: "add", operator.mul: "multiply", torch.mul: "multiply", torch.tanh: "tanh",
                                torch.sigmoid: "sigmoid", nn.functional.tanh: "tanh", nn.functional.sigmoid: "sigmoid",
                                torch.log_softmax: "log_softmax", nn.functional.log_softmax: "log_softmax"}
_METHODS = {"tanh": "tanh", "sigmoid": "sigmoid", "log_softmax": "log_softmax", "add": "add", "mul": "multiply"}


class PrepareError(ValueError):
    """The model has parts that cannot become integer operators: all of them, one a line."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def site_path(name: str) -> str:
    """``blocks.0.rnn`` -> ``blocks[0].rnn``."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", name)


@define
class _Reading:
    """What has been read of a traced model so far."""

    root: nn.Module
    layers: list[Layer] = field(factory=list)
    inputs: dict[str, int] = field(factory=dict)
    names: dict[fx.Node, str] = field(factory=dict)              # node -> value
    parameters: dict[str, str] = field(factory=dict)             # the user's parameter name -> ours
    problems: list[str] = field(factory=list)
    batch_first: set[bool] = field(factory=set)

    def width(self, value: str) -> int:
        return self.inputs[value] if value in self.inputs else next(x.width for x in self.layers if x.path == value)

    def put(self, path: str, kind: str, sources: tuple[str, ...], width: int, kernels: tuple[Kernel, ...] = (), **attributes: Any) -> str:
        """A layer; returns its value."""
        self.layers.append(Layer(path, kind, sources, width, 1, FORWARD.name, kernels, attributes))
        return path

    def problem(self, node: fx.Node, what: str) -> str:
        """Remember what cannot be done; a value of that name goes on, so that later problems are found too."""
        self.problems.append(f"{node.name}: {what}")
        self.inputs.setdefault(f"?{node.name}", 1)
        return f"?{node.name}"

    def name_parameters(self, user: str, path: str, names: Mapping[str, str]) -> None:
        own = re.sub(r"\[(\d+)\]", r".\1", path)
        self.parameters.update({f"{user}.{theirs}": f"{own}.{ours}" for theirs, ours in names.items()})

    # ------------------------------------------------------------------------------------------------------------ modules

    def module(self, node: fx.Node, user: str, m: nn.Module, sources: tuple[str, ...]) -> str:
        """The value that a leaf module makes."""
        path = site_path(user)
        if isinstance(m, _TRANSPARENT):
            return sources[0]
        if isinstance(m, nn.Linear):
            self.name_parameters(user, path, {k: k for k, _ in m.named_parameters()})
            return self.put(path, "linear", sources, m.out_features, (Kernel("weight", f"{path}.weight", m.out_features, m.in_features),),
                            bias=m.bias is not None)
        if isinstance(m, nn.Embedding):
            if sources[0] not in self.inputs:
                return self.problem(node, f"the embedding `{user}` reads something that is not an input of the model")
            self.inputs[sources[0]] = 1
            self.name_parameters(user, path, {"weight": "weight"})
            return self.put(path, "embedding", sources, m.embedding_dim, (Kernel("weight", f"{path}.weight", m.num_embeddings, m.embedding_dim),))
        if isinstance(m, nn.LayerNorm):
            if len(m.normalized_shape) != 1 or not m.elementwise_affine or m.bias is None:
                return self.problem(node, f"`{user}`: layer norm over one axis, with weight and bias, is what the operator does")
            self.name_parameters(user, path, {"weight": "weight", "bias": "bias"})
            return self.put(path, "layer_norm", sources, m.normalized_shape[0], epsilon=m.eps)
        if isinstance(m, (nn.LSTM, nn.GRU)):
            return self.recurrent(node, user, path, m, sources)
        kind = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.LogSoftmax: "log_softmax"}.get(type(m))  # type: ignore[call-overload]
        if kind is None:
            return self.problem(node, f"`{user}` is a {type(m).__name__}, for which there is no integer operator")
        return self.put(path, kind, sources, self.width(sources[0]))

    def recurrent(self, node: fx.Node, user: str, path: str, m: nn.LSTM | nn.GRU, sources: tuple[str, ...]) -> str:
        """One layer of the graph for each layer of the module."""
        if len(sources) > 1:
            return self.problem(node, f"`{user}` is given an initial state; sequences start from zero here")
        if not m.bias:
            return self.problem(node, f"`{user}` has no biases")
        lstm, project = isinstance(m, nn.LSTM), m.proj_size
        if not lstm and m.bidirectional:
            return self.problem(node, f"`{user}`: there is no bidirectional GRU")
        self.batch_first.add(m.batch_first)
        value, gates = sources[0], GATES if lstm else GRU_GATES
        for k in range(m.num_layers):
            own = path if m.num_layers == 1 else f"{path}.layer[{k}]"
            hidden, rows, kernels = project or m.hidden_size, len(gates) * m.hidden_size, []
            for direction in ("forward", "backward") if m.bidirectional else ("",):
                base = f"{own}.{direction}" if direction else own
                kernels += [Kernel("input", f"{base}.input", rows, self.width(value), gates),
                            Kernel("recurrent", f"{base}.recurrent", rows, hidden, gates)]
                if project:
                    kernels.append(Kernel("project", f"{base}.project", project, m.hidden_size))
            names = {f"{p}_l{k}{s}": f"{p}_l0{s}" for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(("weight_hr",) if project else ()))
                     for s in (("", "_reverse") if m.bidirectional else ("",))}
            self.name_parameters(user, own, names)
            value = self.put(own, "lstm" if lstm else "gru", (value,), hidden * (2 if m.bidirectional else 1), tuple(kernels),
                             cells=m.hidden_size, bidirectional=m.bidirectional, project=project)
        return value

    # -------------------------------------------------------------------------------------------------------------- nodes

    def elementwise(self, node: fx.Node, kind: str) -> str:
        """The value of an addition, a table, …"""
        arguments = [a for a in node.args if isinstance(a, fx.Node)]
        if kind in ("add", "multiply"):
            if len(arguments) != 2 or len(node.args) != 2:
                return self.problem(node, f"to {kind} means two values of the model here")
            return self.put(node.name, kind, tuple(self.names[a] for a in arguments), self.width(self.names[arguments[0]]))
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else -1)
        if kind == "log_softmax" and dim not in (-1, 2):
            return self.problem(node, "log_softmax goes over the last axis")
        return self.put(node.name, kind, (self.names[arguments[0]],), self.width(self.names[arguments[0]]))

    def read(self, node: fx.Node) -> str | None:
        """The value a node of the trace makes, None if it makes none."""
        if node.op == "placeholder":
            self.inputs[node.name] = 0                     # its width is that of the example
            return node.name
        if node.op == "call_module":
            m = self.root.get_submodule(str(node.target))
            return self.module(node, str(node.target), m, tuple(self.names[a] for a in node.args if isinstance(a, fx.Node)))
        if node.op == "call_function" and node.target is operator.getitem:
            source = node.args[0]
            recurrent = isinstance(source, fx.Node) and source.op == "call_module" and isinstance(
                self.root.get_submodule(str(source.target)), (nn.LSTM, nn.GRU))
            if recurrent and node.args[1] == 0:
                return self.names[source]                  # type: ignore[index]
            if recurrent and not node.users:
                return None
            return self.problem(node, "only the output sequence of a recurrent layer can be taken apart, not its state or other values")
        if node.op == "call_function" and node.target in _ELEMENTWISE:
            return self.elementwise(node, _ELEMENTWISE[node.target])
        if node.op == "call_function" and node.target in (nn.functional.dropout, torch.dropout):
            return self.names[node.args[0]]                # type: ignore[index]
        if node.op == "call_method" and node.target in _METHODS:
            return self.elementwise(node, _METHODS[str(node.target)])
        if node.op == "output":
            return None
        return self.problem(node, f"{node.op} {getattr(node.target, '__name__', node.target)}: there is no integer operator for it")


def trace(model: nn.Module, example: tuple[Tensor, ...], name: str = BUILDER) -> tuple[ModelGraph, dict[str, str], bool]:
    """(model graph, the model's parameter names -> ours, whether sequences are batch first).  PrepareError with everything that is in the way.

    example  the model's inputs: [T, B, C] real or [T, B] labels (or batch first)
    """
    reading = _Reading(model)
    try:
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        raise PrepareError(f"the model's forward cannot be traced: {error}") from error
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    if len(placeholders) != len(example):
        raise PrepareError(f"the model takes {len(placeholders)} inputs, the example has {len(example)}")
    widths = {n.name: x.shape[-1] if x.is_floating_point() else 1 for n, x in zip(placeholders, example, strict=True)}
    for node in graph.nodes:
        value = reading.read(node)
        if node.op == "placeholder":
            reading.inputs[node.name] = widths[node.name]
        if value is not None:
            reading.names[node] = value
    makers = {layer.path: layer for layer in reading.layers}
    for layer in reading.layers:
        source = makers.get(layer.inputs[0])
        if layer.kind in ("tanh", "sigmoid") and (source is None or source.kind not in ("linear", "layer_norm", "add", "multiply")):
            reading.problems.append(f"{layer.path}: a table reads a linear layer, a layer norm, a sum or a product, not `{layer.inputs[0]}`")
    result = next(n for n in graph.nodes if n.op == "output").args[0]
    if not isinstance(result, fx.Node):
        reading.problems.append("the model returns one tensor")
    elif reading.layers and reading.names.get(result) != reading.layers[-1].path:
        reading.problems.append("what the model returns is not what it computes last")
    if len(reading.batch_first) > 1:
        reading.problems.append("some recurrent layers are batch first, some are not")
    if reading.problems or not reading.layers:
        raise PrepareError("; ".join(reading.problems) or "the model has no layers")
    made = ModelGraph(name, {}, tuple(reading.layers), {k: v for k, v in reading.inputs.items() if not k.startswith("?")},
                      entries=(FORWARD,))
    return made, reading.parameters, reading.batch_first == {True}


class PreparedModule(GraphModule):
    """A user's model in exact integers: called as the model is, real numbers in and out."""

    def __init__(self, model: nn.Module, plan: Plan, parameters: Mapping[str, str], batch_first: bool) -> None:
        self.original_names = dict(parameters)
        super().__init__(lower_plan(plan), {ours: model.get_parameter(theirs) for theirs, ours in parameters.items()}, plan)
        self.batch_first = batch_first

    def forward(self, *inputs: Tensor) -> Tensor:
        """The model's inputs -> its output, real."""
        names, labels = self.graph.inputs[FORWARD.name], {n for n, v in self.graph.values.items() if v.bits == 32}
        xs = [x.transpose(0, 1) if self.batch_first else x for x in inputs]
        values = {n: x[..., None] if n in labels else x.float() for n, x in zip(names, xs, strict=True)}
        self.run(FORWARD.name, values, {n: n in labels for n in names}, self._state(FORWARD.name, xs[0].shape[1], self._like()))
        name, = self.graph.outputs[FORWARD.name]
        node = self.graph.producers[name]
        y = dequantise(values[name], self.formats()[name]).float() if self.layer(node.path).quantised else values[name]
        return y.transpose(0, 1) if self.batch_first else y

    def original_state_dict(self) -> dict[str, Tensor]:
        """The float weights under the names of the model that was prepared: ``model.load_state_dict(…)`` takes them back."""
        own = self.float_state_dict()
        return {theirs: own[ours] for theirs, ours in self.original_names.items()}


def prepare(model: nn.Module, policy: str | os.PathLike | Callable[[], Plan], example: Tensor | tuple[Tensor, ...]) -> PreparedModule:
    """See the module.

    policy   a file, or the text of a policy; its model is ``model module``      example  the model's inputs, one batch
    PrepareError: the model has parts without an integer operator.  DiagnosticError: everything that is wrong with the policy.
    """
    from nnac.policy import load, loads

    example = example if isinstance(example, tuple) else (example,)
    graph, parameters, batch_first = trace(model, example)

    text = isinstance(policy, str) and ("\n" in policy or "{" in policy)
    with lent(BUILDER, graph):
        plan = (loads(policy) if text else load(policy)).plan         # type: ignore[arg-type]
    assert plan.graph is graph                                         # the plan carries it: the name is free for the next model
    return PreparedModule(model, plan, parameters, batch_first).train(model.training)  # type: ignore[return-value]
