"""A model's forward as a list of ATen calls, by torch.export (non-strict: the user's Python runs once, on shapes
alone).

The model is left as it was: attributes that its forward sets are put back, also when exporting fails.  Wrappers around
the model (DataParallel, DistributedDataParallel, torch.compile, averaged models) are seen through.
"""

from __future__ import annotations

import inspect
import logging
import operator
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from nnac.capture.problems import PrepareError, Problem, place, problem
from nnac.capture.states import CASTS, MOVES

WRAPPERS: dict[str, str] = {  # class -> the attribute that holds the model
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction)


@frozen(eq=False)
class Exported:
    """The calls in order, and what their placeholders are.

    inputs     placeholder -> (name in the forward's signature, the example's tensor)
    tensors    placeholder -> (name of the parameter or buffer, "" for a constant; its value)
    outputs    the nodes that the forward returns, in order; ``several``: whether it returned a tuple
    aliases    every name of every parameter -> the first of its names: shared ones have several
    spec       how the results are nested; None for one alone
    begins     (file, line, code) of the forward: where a call has no line of its own
    packed     whether sequences were packed by their lengths
    """

    nodes: tuple[fx.Node, ...]
    inputs: Mapping[str, tuple[str, Tensor]]
    tensors: Mapping[str, tuple[str, Tensor]]
    outputs: tuple[Any, ...]
    several: bool
    aliases: Mapping[str, str]
    spec: Any
    begins: tuple[str, int, str]
    packed: bool = False

    def wanted(self) -> set[fx.Node]:
        """The nodes that what is returned depends on, and those that change something in place that outlives the call,
        or is read again."""
        out: set[fx.Node] = set()
        changes = [n for n in self.nodes if mutates(n)]
        todo = [n for n in self.outputs if isinstance(n, fx.Node)]
        todo += [n for n in self.nodes if n.op == "placeholder"]
        todo += [n for n in changes if root(n.args[0]).op == "placeholder"]
        while todo:
            while todo:
                node = todo.pop()
                if node not in out:
                    out.add(node)
                    todo += node.all_input_nodes
            todo = [n for n in changes if n not in out and self.read_again(n, out)]
        return out

    def read_again(self, change: fx.Node, wanted: set[fx.Node]) -> bool:
        """Whether what a call changes in place through a view is read later under another name, by one of ``wanted`` or
        as a result."""
        order = {n: i for i, n in enumerate(self.nodes)}
        family, first = [root(change.args[0])], root(change.args[0])
        later = order[change]
        while family:
            node = family.pop()
            if node in self.outputs and (node is first or order[node] < later) and node is not change:
                return True
            for user in node.users:
                if user is change or (mutates(user) and order[user] < later):
                    continue
                if views(user):
                    family.append(user)
                elif order[user] > later and user in wanted:
                    return True
        return False

    def states(self, more: Iterable[fx.Node] = ()) -> set[fx.Node]:
        """What recurrent layers are given to begin with, as it is or moved about; ``more``: what else is."""
        out: set[fx.Node] = set()
        todo = [a for n in self.nodes if str(n.target) in BEGUN for a in _nodes(n.args[1])]
        todo += more
        while todo:
            node = todo.pop()
            call = str(node.target)
            if node not in out and (node.op == "placeholder" or node.target is operator.getitem or call in CASTS
                                    or (call.startswith("aten.") and call.split(".")[1] in MOVES)):
                out.add(node)
                todo += node.all_input_nodes
        return out


# calls whose second argument is the state that they begin with
BEGUN = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")


def mutates(node: fx.Node) -> bool:
    """Whether a call changes one of its arguments in place."""
    target: Any = node.target
    return node.op == "call_function" and hasattr(target, "_schema") and target._schema.is_mutable


# calls that may give back what they are given
VIEWS = ("aten.reshape.default", "aten.contiguous.default", "aten.flatten.using_ints", "aten.to.dtype",
         "aten.dropout.default", "aten.reshape_as.default", "aten.type_as.default")


def views(node: fx.Node) -> bool:
    """Whether what a call makes is a view of its first argument, or may be."""
    target: Any = node.target
    if node.target is operator.getitem or str(target) in VIEWS:
        return True
    if not hasattr(target, "_schema") or target._schema.is_mutable:
        return False
    return any(r.alias_info is not None for r in target._schema.returns)


def root(node: Any) -> fx.Node:
    """What a node is a view of, in the end."""
    while views(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    assert isinstance(node, fx.Node)
    return node


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside its wrappers.  PrepareError for what holds no Python to read."""
    while True:
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        if kind in WRAPPERS:
            model = getattr(model, WRAPPERS[kind])
            continue
        if isinstance(model, SCRIPTED):
            raise PrepareError([Problem("a scripted or traced model (torch.jit) has no forward to read",
                                        "give the nn.Module that it was made from")])
        return model


class Padded(TorchFunctionMode):
    """Within, packed sequences are the padded ones: what recurrent layers make of an utterance does not depend on what
    follows its end, and in order of length or not.  ``lengths``: what was packed was told of them, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[Tensor] = []
        self.told: list[Tensor] = []
        self.shapes: list[tuple[int, int]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), dict(kwargs or {})
        if name == "_pack_padded_sequence":
            x, lengths, batch_first = args
            x = x.transpose(0, 1) if batch_first else x
            self.lengths.append(lengths)
            self.told.append(torch.tensor([x.shape[1]] * x.shape[0]))
            self.shapes.append((x.shape[0], x.shape[1]))
            return x.flatten(0, 1), self.told[-1]
        if name == "_pad_packed_sequence":
            x, told, batch_first = args[:3]
            at = next(i for i, t in enumerate(self.told) if t is told)
            x = x.unflatten(0, self.shapes[at])
            return x.transpose(0, 1) if batch_first else x, self.lengths[at]
        if name in ("lstm", "gru", "rnn_tanh", "rnn_relu") and len(args) > 2 and isinstance(args[3], (list, tuple)):
            x, told, *rest = args                                 # (data, sizes, states, weights, …)
            at = next(i for i, t in enumerate(self.told) if t is told)
            y, *states = function(x.unflatten(0, self.shapes[at]), *rest, False, **kwargs)
            return (y.flatten(0, 1), *states)
        if name == "__getitem__" and any(t is args[0] for t in self.told) and args[1] == 0:
            at = next(i for i, t in enumerate(self.told) if t is args[0])
            return self.shapes[at][1]                             # utterances in the first step: all
        if name in ORDERING and _called_from_packing():
            return (args[0], torch.arange(args[0].shape[0])) if name == "sort" else args[0]
        return function(*args, **kwargs)


ORDERING = ("sort", "index_select", "empty_like", "scatter_")     # what torch orders utterances by length with


def _called_from_packing() -> bool:
    """Whether torch's own code of packed sequences, or of what reads them, makes the call."""
    frame = sys._getframe(2)
    while frame is not None and "torch" in frame.f_code.co_filename:
        if frame.f_code.co_name in ("pack_padded_sequence", "pad_packed_sequence", "invert_permutation",
                                    "_apply_permutation", "permute_hidden"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def unchanging(model: nn.Module) -> None:
    """PrepareError for a model whose layers change their weights when they are called."""
    found = [n for n, m in model.named_modules() if getattr(m, "max_norm", None) is not None]
    if found:
        raise PrepareError([Problem(f"{', '.join(f'`{n}`' for n in found)}: an embedding of a largest norm changes its "
                                    "weights whenever it is called", "shorten its rows once: `max_norm=None` then",
                                    *begins(model))])


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode; afterwards every attribute, buffer and mode of every module in it is as
    before."""
    held: list[tuple[nn.Module, dict[str, Any], dict[str, dict[str, Any]]]] = []
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    for m in model.modules():
        held.append((m, dict(m.__dict__), {name: dict(m.__dict__[name])
                                           for name in ("_parameters", "_buffers", "_modules")}))
    try:
        model.eval()
        yield
    finally:
        for m, attributes, tables in held:
            for name, table in tables.items():
                attributes[name].clear()
                attributes[name].update(table)
            m.__dict__.clear()
            m.__dict__.update(attributes)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def exported(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, first: bool = False) -> Exported:
    """See the module.  PrepareError: the forward cannot be read, with the user's line.

    first   only the first of what it returns is wanted
    """
    unchanging(model)
    args, kwargs = _apart((args, dict(kwargs)))
    named = list(model.named_parameters(remove_duplicate=False))
    names = {id(p): n for n, p in reversed(named)}                 # the first name of what is shared
    log = logging.getLogger("torch._subclasses.fake_tensor")        # an error is said here, not there
    spoke, log.disabled = log.disabled, True
    try:
        with as_it_was(model), warnings.catch_warnings(), torch.no_grad(), Padded() as padded:
            warnings.simplefilter("ignore")
            program = torch.export.export(model, args, dict(kwargs), strict=False)
    except PrepareError:
        raise
    except Exception as error:
        raise PrepareError([_refused(error)]) from error
    finally:
        log.disabled = spoke
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        changed = ", ".join(f"`{b}`" for b in signature.buffers_to_mutate.values())
        raise PrepareError([Problem(f"the forward changes {changed}: a model that keeps something between calls has "
                                    f"states to be named",
                                    "take the state as an argument and return it")])
    given = dict(zip((s.arg.name for s in signature.input_specs
                      if s.kind == torch.export.graph_signature.InputKind.USER_INPUT),
                     _flat((args, dict(kwargs))), strict=True))
    nodes = tuple(program.graph.nodes)
    inputs: dict[str, tuple[str, Tensor]] = {}
    tensors: dict[str, tuple[str, Tensor]] = {}
    by_name = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for node in nodes:
        if node.op != "placeholder":
            continue
        owned = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(node.name)
        if owned is not None:
            value = by_name[owned] if owned in by_name else program.state_dict[owned]
            tensors[node.name] = (names.get(id(value), owned), value)
        elif node.name in signature.inputs_to_lifted_tensor_constants:
            tensors[node.name] = ("", program.constants[signature.inputs_to_lifted_tensor_constants[node.name]])
        elif isinstance(given.get(node.name), Tensor):
            inputs[node.name] = (node.name, given[node.name])
    result = next(n for n in nodes if n.op == "output").args[0]
    spec = program.call_spec.out_spec
    aliases = {n: names[id(p)] for n, p in named}
    several = spec is not None and not spec.is_leaf()
    return Exported(nodes, inputs, tensors, tuple(result)[: 1 if first else None], several,  # type: ignore[arg-type]
                    aliases, spec if several else None, begins(model), bool(padded.lengths))


def begins(model: nn.Module) -> tuple[str, int, str]:
    """Where the forward, or the method in its place, is written; ("", 0, "") where that is not known."""
    function = inspect.unwrap(getattr(model, "method", model.forward))
    try:
        lines, line = inspect.getsourcelines(function)
        return inspect.getsourcefile(function) or "", line, lines[0].strip()
    except (OSError, TypeError):
        return "", 0, ""


def _apart(value: Any) -> Any:
    """The example with a tensor that stands for several arguments copied: they are the same in the example alone."""
    from torch.utils import _pytree

    seen: set[int] = set()

    def own(x: Any) -> Any:
        if not isinstance(x, Tensor) or id(x) not in seen:
            seen.add(id(x))
            return x
        return x.clone()

    return _pytree.tree_map(own, value)


def _nodes(value: Any) -> list[fx.Node]:
    return [n for v in value for n in _nodes(v)] if isinstance(value, (list, tuple)) else (
        [value] if isinstance(value, fx.Node) else [])


def _flat(value: Any) -> list[Any]:
    from torch.utils import _pytree

    return _pytree.tree_leaves(value, is_leaf=lambda x: x is None)


def _refused(error: Exception) -> Problem:
    """An exporter's error as one line at the user's own."""
    trace = "".join(traceback.format_exception(error))
    said = str(error).strip().split("\n")[0] or type(error).__name__
    if "data-dependent" in said or "DataDependent" in type(error).__name__:
        return problem("the forward decides by the values of a tensor: an accelerator's program does the same work "
                       "whatever the values are",
                       "decide outside of the model, or compute both and select", trace)
    if "pack" in trace and ("PackedSequence" in trace or "pack_padded_sequence" in trace):
        return problem("packed sequences are taken apart by length: the machine goes step by step",
                       "give the padded sequence to the layer", trace)
    file, line, code = place(trace)
    return Problem(f"the forward cannot be read: {said[:200]}", "", file, line, code)
