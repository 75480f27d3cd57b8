"""One pass over a model's calls: each becomes a layer, a change of layout, or a problem.  `reads` registers what an
ATen call means."""

from __future__ import annotations

import importlib
import operator
import pkgutil
import re
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from typing import Any

import torch
from attrs import define, evolve, field
from torch import Tensor, fx

from nnac.capture.exported import Exported
from nnac.capture.problems import Problem, problem
from nnac.capture.values import FEATURES, Axes, Axis, Lost, Parts, Sequence, Unread, Weights, Zeros
from nnac.model.graph import Kernel, Layer

Own = tuple[str, str]          # a parameter of ours: layer path, its name in the layer
ENTRY = "encoder"              # the one entry of a model that is a single forward
Reader = Callable[["Reading", fx.Node, tuple[Any, ...], dict[str, Any]], Any]
READERS: dict[str, Reader] = {}
SAME = ("aten.detach.default", "aten.alias.default", "aten.contiguous.default", "aten.clone.default")


class Refusal(Exception):
    """A reader's way to say that a call cannot be read: what, and what to write instead."""

    def __init__(self, what: str, instead: str = "") -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def reads(*targets: str) -> Callable[[Reader], Reader]:
    """Register a reader for ATen calls: ``aten.linear.default``."""
    def keep(reader: Reader) -> Reader:
        for target in targets:
            assert target not in READERS, target
            READERS[target] = reader
        return reader
    return keep


def readers() -> Mapping[str, Reader]:
    """All readers by ATen call."""
    from nnac.capture import readers as room

    for module in pkgutil.iter_modules(room.__path__):
        importlib.import_module(f"{room.__name__}.{module.name}")
    return READERS


def site_path(name: str) -> str:
    """A module's name as a policy addresses it: ``blocks.0.rnn`` -> ``blocks[0].rnn``, ``0`` -> ``layer[0]``, ``3.0``
    -> ``layer[3].layer[0]``."""
    out: list[str] = []
    indexed = True                                                  # whether a number would stand alone
    for part in name.split("."):
        if not part.isdigit():
            out.append(part)
        elif indexed:
            out.append(f"layer[{part}]")
        else:
            out[-1] += f"[{part}]"
        indexed = part.isdigit()
    return ".".join(out)


@define
class Reading:
    """What has been read of a model so far.

    weights   (layer path, parameter) -> its value at the start
    sources  of these: the user's name ("" if folded or made)
    frozen    of these: not trained
    dropouts (layer path, input) -> probability that an element is kept
    notes     what the user should know, though nothing is in the way
    """

    exported: Exported
    layers: list[Layer] = field(factory=list)
    inputs: dict[str, int] = field(factory=dict)
    values: dict[fx.Node, Any] = field(factory=dict)
    axes: Axes = field(factory=Axes)
    weights: dict[Own, Tensor] = field(factory=dict)
    sources: dict[Own, str] = field(factory=dict)
    frozen: set[Own] = field(factory=set)
    dropouts: dict[tuple[str, int], float] = field(factory=dict)
    problems: list[Problem] = field(factory=list)
    notes: list[str] = field(factory=list)
    made: dict[str, Layer] = field(factory=dict)
    returned: set[str] = field(factory=set)
    node: fx.Node | None = None

    # ------------------------------------------------------------------------------------------------------------ names

    def module(self) -> tuple[str, str]:
        """(name, class) of the innermost module that makes the call that is being read; "" for the model itself."""
        assert self.node is not None
        stack = list(self.node.meta.get("nn_module_stack", {}).values())
        return (stack[-1][0], stack[-1][1]) if stack else ("", "")

    def path(self, *, own: bool = True) -> str:
        """A path for what the call makes: the module's, where the call is all that the module does (``own``), else its
        and the call's."""
        name, kind = self.module()
        assert self.node is not None
        call = re.sub(r"_default|_tensor", "", self.node.name)
        whole = own and name and kind.startswith("torch.nn.")
        inside = name and not kind.startswith("torch.nn.")          # of a module of the user's own
        base = site_path(name) if whole else f"{site_path(name)}.{call}" if inside else call
        return self.fresh(base)

    def fresh(self, base: str) -> str:
        """``base``, or ``base.call[1]`` … where it is taken: a module that is called again."""
        taken, n = base in self.made or base in self.inputs, 0
        path = base
        while taken:
            n += 1
            path = f"{base}.call[{n}]"
            taken = path in self.made
        return path

    # ----------------------------------------------------------------------------------------------------------- making

    def layer(self, path: str, kind: str, sources: Many[Sequence], width: int, kernels: tuple[Kernel, ...] = (),
              **attributes: Any) -> Sequence:
        """A layer that reads values of one layout; returns its value in the same layout."""
        first = self.aligned(sources)
        for i, s in enumerate(sources):
            if s.keeps < 1:
                self.dropouts[path, i] = s.keeps
        made = Layer(path, kind, tuple(s.name for s in sources), width, 1, ENTRY, kernels, attributes)
        self.layers.append(made)
        self.made[path] = made
        sizes = tuple(width if a == (FEATURES,) else n for a, n in zip(first.axes, first.sizes, strict=True))
        return evolve(first, name=path, sizes=sizes, keeps=1.0)

    def aligned(self, sources: Many[Sequence]) -> Sequence:
        """The layout that values have in common.  Refusal: they have not."""
        first = max(sources, key=lambda s: len(s.axes))
        for s in sources:
            if s.last != first.last:
                raise Refusal("a whole sequence meets the last step of one", "take the last step of both, at the end")
            if s.axes == first.axes:
                continue
            if len(s.outer) != len(first.outer) or not self._match(s, first):
                raise Refusal(f"values of the axes {_shown(s)} and {_shown(first)} meet: one is repeated along the "
                              f"other's",
                              "values that are combined have the same time and batch")
        return first

    def _match(self, a: Sequence, b: Sequence) -> bool:
        """Take the outer axes of two values for the same ones, in order."""
        if [n for n, x in zip(a.sizes, a.axes, strict=True) if x and x != (FEATURES,)] != [
                n for n, x in zip(b.sizes, b.axes, strict=True) if x and x != (FEATURES,)]:
            return False
        return all(self.axes.same(x, y) for x, y in zip(a.outer, b.outer, strict=True))

    def give(self, path: str, names: Mapping[str, Weights | Tensor | None]) -> None:
        """The parameters of a layer, by the names that its training layer has for them."""
        for name, value in names.items():
            if value is None:
                continue
            key = path, name
            if isinstance(value, Weights):
                self.weights[key], self.sources[key] = value.value.detach(), value.name
                if not value.name and value.sources:
                    self.notes.append(f"`{path}`: `{name}` is computed from "
                                      f"{', '.join(f'`{s}`' for s in value.sources)}: folded into one parameter, "
                                      "which is trained in its place")
                if value.sources and not value.value.requires_grad:
                    self.frozen.add(key)
            else:
                self.weights[key], self.sources[key] = value, ""
                self.frozen.add(key)

    # ---------------------------------------------------------------------------------------------------------- reading

    def value(self, argument: Any) -> Any:
        """What an argument of a call stands for."""
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, (list, tuple)):
            return [self.value(a) for a in argument]
        return argument

    def read(self) -> None:
        """All calls, in order."""
        known = readers()
        for node in self.exported.nodes:
            self.node = node
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node, known)
        self.node = None

    def _placeholder(self, node: fx.Node) -> Any:
        if node.name in self.exported.tensors:
            name, value = self.exported.tensors[node.name]
            return Weights(value, (name,) if name else (), name)
        if node.name not in self.exported.inputs:
            return None                                           # an optional argument that was left out, a number
        name, example = self.exported.inputs[node.name]
        label = not example.is_floating_point()
        outer = example.ndim if label else example.ndim - 1
        if not node.users:
            self.notes.append(f"the input `{name}` is not used")
        if outer < 1 or outer > 2:
            return self.refuse(f"the input `{name}` has {example.ndim} axes",
                               "sequences are [T, B, C] or [B, T, C], labels [T, B]")
        axes: list[Axis] = [(f"{name}.{i}",) for i in range(outer)]
        if node.users:
            self.inputs[name] = 1 if label else example.shape[-1]
        return Sequence(name, tuple(axes) if label else (*axes, (FEATURES,)), tuple(example.shape))

    def _call(self, node: fx.Node, known: Mapping[str, Reader]) -> Any:
        target = str(node.target)
        args = tuple(self.value(a) for a in node.args)
        kwargs = {k: self.value(v) for k, v in node.kwargs.items()}
        flat = _leaves((args, kwargs))
        if any(isinstance(v, Lost) for v in flat):
            return Lost()
        if unread := next((v for v in flat if isinstance(v, Unread)), None):
            return self._instead(node, flat, self.refuse(f"{unread.what} is read", unread.instead))
        if node.target is operator.getitem:
            return args[0].values[args[1]]
        if any(isinstance(v, Weights) for v in flat) and not any(isinstance(v, (Sequence, Zeros, Parts)) for v in flat):
            return self._folded(node, args, kwargs)
        if target not in known:
            if not node.users:
                return None                                       # an assertion, or something that nobody reads
            return self._instead(node, flat, self.refuse(f"`{_plain(target)}` has no integer operator", ""))
        try:
            return known[target](self, node, args, kwargs)
        except Refusal as refusal:
            return self._instead(node, flat, self.refuse(refusal.what, refusal.instead))

    def _instead(self, node: fx.Node, given: list[Any], lost: Lost) -> Any:
        """What stands for a result that could not be made: a value that it reads, of the same shape, so that later
        problems are found too."""
        made = node.meta.get("val")
        shape = tuple(made.shape) if isinstance(made, Tensor) else None
        return next((v for v in given if isinstance(v, Sequence) and v.sizes == shape), lost)

    def _folded(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call on parameters alone: done once, here."""
        inside = [v for v in _leaves((args, kwargs)) if isinstance(v, Weights)]
        sources = tuple(dict.fromkeys(s for w in inside for s in w.sources))
        target: Any = node.target
        if target._schema.is_mutable:
            return self.refuse(f"the forward changes {', '.join(f'`{s}`' for s in sources)}: the model keeps something "
                               f"between calls",
                               "take the state as an argument and return it")
        # whether it is trained follows from what it is made of
        with torch.enable_grad():
            made = target(*map(bare, args), **{k: bare(v) for k, v in kwargs.items()})
        if isinstance(made, (tuple, list)):
            return Parts(tuple(Weights(m, sources) for m in made))
        if made is inside[0].value or (str(node.target) in SAME and len(inside) == 1):
            return inside[0]
        return Weights(made, sources)

    def refuse(self, what: str, instead: str) -> Lost:
        """Remember a problem at the call that is being read."""
        assert self.node is not None
        name, _ = self.module()
        where = f"`{name}`: " if name and f"`{name}`" not in what else ""
        self.problems.append(problem(where + what, instead, self.node.meta.get("stack_trace") or ""))
        return Lost()


def bare(x: Any) -> Any:
    """An argument with the tensors of its parameters in place."""
    return x.value if isinstance(x, Weights) else [bare(y) for y in x] if isinstance(x, list) else x


def _leaves(x: Any) -> list[Any]:
    if isinstance(x, dict):
        x = list(x.values())
    return [leaf for y in x for leaf in _leaves(y)] if isinstance(x, (list, tuple)) else [x]


def _plain(target: str) -> str:
    """``aten.hardtanh.default`` -> ``hardtanh``."""
    parts = target.split(".")
    return parts[1] if len(parts) > 1 else target


def _shown(s: Sequence) -> str:
    return "[" + ", ".join(map(str, s.sizes)) + "]"
