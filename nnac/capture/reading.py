"""One pass over a model's calls: each becomes a layer, a change of layout, or a problem.  `reads` registers what an
ATen call means."""

from __future__ import annotations

import importlib
import operator
import pkgutil
import re
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from fractions import Fraction
from typing import Any

import torch
from attrs import define, evolve, field
from torch import Tensor, fx

from nnac.capture.exported import BEGUN, Exported, mutates
from nnac.capture.loops import Loop, loops
from nnac.capture.problems import Problem, problem
from nnac.capture.states import CASTS, GIVEN, MOVES, Numbering, Place, place
from nnac.capture.values import (
    FEATURES,
    Axes,
    Axis,
    Image,
    Joined,
    Lost,
    Ordered,
    Parts,
    Sequence,
    StateIds,
    Unread,
    Weights,
    Zeros,
)
from nnac.decode.patches import Patches
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
    doubts    what may be in the way, which shows at another length than the example's
    entry, prefix  of its layers: the entry point, and what stands before their paths
    crossed   the model meets two sequences, each repeated along the other: a joint
    given     states that the model is given: where they lie in its arguments
    places    (layer path, parameter) -> which element of the user's each of its own is, -1 for none, where it lies
              otherwise
    lasts     (path, kind) -> the value of a hidden state after the last step
    absorbed  layers whose weights another one has
    hears     input -> the convolutions that read patches of it      ends  layer that one ends with -> (input, how many)
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
    doubts: list[Problem] = field(factory=list)
    made: dict[str, Layer] = field(factory=dict)
    returned: set[str] = field(factory=set)
    node: fx.Node | None = None
    entry: str = ENTRY
    prefix: str = ""
    crossed: bool = False
    numbering: Numbering = field(factory=Numbering)
    given: list[Place] = field(factory=list)
    places: dict[Own, Tensor] = field(factory=dict)
    lasts: dict[tuple[str, str], Sequence] = field(factory=dict)
    absorbed: set[str] = field(factory=set)
    hears: dict[str, list[Patches]] = field(factory=dict)
    ends: dict[str, tuple[str, int]] = field(factory=dict)

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
        return self.untaken(self.prefix + base)

    def untaken(self, base: str) -> str:
        """As `fresh`, of a whole path."""
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
        made = Layer(path, kind, tuple(s.name for s in sources), width, 1, self.entry, kernels, attributes)
        seen = made.operator.view                          # nothing is done with a value: what reads it drops
        for i, s in enumerate(sources):
            if s.keeps < 1 and not seen:
                self.dropouts[path, i] = s.keeps
        self.layers.append(made)
        self.made[path] = made
        sizes = tuple(width if a == (FEATURES,) else n for a, n in zip(first.axes, first.sizes, strict=True))
        return evolve(first, name=path, sizes=sizes, keeps=first.keeps if seen else 1.0)

    def aligned(self, sources: Many[Sequence]) -> Sequence:
        """The layout that values have in common.  Refusal: they have not."""
        first = max(sources, key=lambda s: len(s.axes))
        for s in sources:
            if s.last != first.last:
                raise Refusal("a whole sequence meets the last step of one", "take the last step of both, at the end")
            if s.axes == first.axes:
                continue
            if self.crossed and (met := self._crossed(s, first)) is not None:
                first = met
                continue
            if len(s.outer) != len(first.outer) or not self._match(s, first):
                raise Refusal(f"values of the axes {_shown(s)} and {_shown(first)} meet: one is repeated along the "
                              f"other's",
                              "values that are combined have the same time and batch")
        if first.last and len({self.pace(s.name) for s in sources}) > 1:
            raise Refusal("the last steps of sequences meet of which one has more steps than the other",
                          "stack the frames of both, or of neither")
        return first

    def pace(self, name: str) -> Fraction:
        """How many vectors a value has for each that the model hears."""
        made = Fraction(1)
        while name in self.made:
            made /= int(self.made[name].attributes.get("frames", 1))
            name = self.made[name].inputs[0]
        return made

    def _crossed(self, a: Sequence, b: Sequence) -> Sequence | None:
        """The layout of two values of which each is repeated along axes of the other; None where they have others."""
        if len(a.axes) != len(b.axes):
            return None
        axes, sizes = [], []
        for x, y, n, m in zip(a.axes, b.axes, a.sizes, b.sizes, strict=True):
            if x and y and x != y and (len(x) > 1 or len(y) > 1 or n != m or not self.axes.same(x[0], y[0])):
                return None
            axes.append(y or x)
            sizes.append(m if y else n)
        return b.arranged(axes, sizes)

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
                if value.name and value.index is not None:
                    self.places[key] = value.index
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
        known, wanted = readers(), self.exported.wanted()
        found = [x for x in loops(self.exported.nodes) if any(j in wanted for j in x.joins)]
        inside = {n: x for x in found for n in (*x.members, *x.joins)}
        states = self.exported.states(b for x in found for b in x.begins.values())
        for node in self.exported.nodes:
            self.node = node
            if (loop := inside.get(node)) is not None:
                if node is loop.first:
                    self._loop(loop, lambda n: self._call(n, known, wanted))
                continue
            if node not in wanted or self._only_for_loops(node, inside):
                continue
            if node in states and node.name in self.exported.inputs:
                name, example = self.exported.inputs[node.name]
                self.values[node] = StateIds(self.numbering.new(name, GIVEN, tuple(example.shape)))
                continue
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node, known, wanted)
        self.node = None

    def _loop(self, loop: Loop, call: Callable[[fx.Node], Any]) -> None:
        """A loop over time, all of it."""
        from nnac.capture.cells import read_loop

        try:
            read_loop(self, loop, call)
            return
        except Refusal as refusal:
            lost = self.refuse(refusal.what, refusal.instead)
        for node in (*loop.members, *loop.joins):
            self.values[node] = lost

    def _only_for_loops(self, node: fx.Node, inside: Mapping[fx.Node, Loop]) -> bool:
        """Whether a call takes a sequence apart for a loop alone."""
        return str(node.target) == "aten.unbind.int" and bool(node.users) and all(u in inside for u in node.users)

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
        if not 1 <= outer <= (3 if self.crossed else 2):
            return self.refuse(f"the input `{name}` has {example.ndim} axes",
                               "sequences are [T, B, C] or [B, T, C], labels [T, B]")
        axes: list[Axis] = [() if self.crossed and example.shape[i] == 1 else (f"{name}.{i}",) for i in range(outer)]
        if node.users:
            self.inputs[name] = 1 if label else example.shape[-1]
        return Sequence(name, tuple(axes) if label else (*axes, (FEATURES,)), tuple(example.shape))

    def _call(self, node: fx.Node, known: Mapping[str, Reader], wanted: set[fx.Node]) -> Any:
        from nnac.capture.readers.moments import Moment, waiting
        from nnac.capture.readers.patches import planes

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
        if any(isinstance(v, Weights) for v in flat) and not any(
                isinstance(v, (Sequence, Zeros, Parts, StateIds, Joined, Moment, Image, Ordered)) for v in flat):
            return self._folded(node, args, kwargs)
        if any(isinstance(v, StateIds) for v in flat):
            if not any(isinstance(v, (Sequence, Weights, Parts, Zeros, Joined, Moment)) for v in flat):
                return self._moved(node, args, kwargs)
            if target not in BEGUN:
                args, kwargs = self._lasts(args), self._lasts(kwargs)
                if any(isinstance(v, Lost) for v in _leaves((args, kwargs))):
                    return Lost()
        try:
            if any(isinstance(v, Moment) for v in flat):
                if (made := waiting(self, node, args, kwargs)) is not None:
                    return made
                args, kwargs = self._valued(args), self._valued(kwargs)
        except Refusal as refusal:
            return self._instead(node, flat, self.refuse(refusal.what, refusal.instead))
        if (image := next((v for v in flat if isinstance(v, Image)), None)) is not None:
            try:
                if not args or args[0] is not image:
                    raise Refusal("something is combined with channels over time and frequency", "of them, one by one")
                return planes(self, node, image, args, kwargs, known)
            except Refusal as refusal:
                return self._instead(node, flat, self.refuse(refusal.what, refusal.instead))
        if target not in known:
            if not node.users:
                return None                                       # an assertion, or something that nobody reads
            return self._instead(node, flat, self.refuse(f"`{_plain(target)}` has no integer operator", ""))
        try:
            if mutates(node) and self.exported.read_again(node, wanted):
                raise Refusal("a part or another view of a value is changed in place, and the value is read again",
                              "make a new value: `y = torch.cat([…], -1)`, `y = y * 2`")
            if known[target].__module__.endswith(NUMERIC) and target not in LABELLED and any(
                    isinstance(v, Sequence) and (FEATURES,) not in v.axes for v in flat):
                raise Refusal(f"`{_plain(target)}` of labels", "labels are read by `nn.Embedding`, as they are given")
            if target not in PADDED and any(isinstance(v, Sequence) and (v.before or v.behind) for v in flat):
                raise Refusal("frames before the first one, or after the last one, are read by something else than a "
                              "causal convolution", "pad, convolve, and cut to the length of the input")
            if target not in MATRICES:
                args, kwargs = self._in_order(args), {k: self._in_order(v) for k, v in kwargs.items()}
            if target not in PRODUCTS:
                args, kwargs = self._whole(args), self._whole(kwargs)
                if any(isinstance(v, Lost) for v in _leaves((args, kwargs))):
                    return Lost()
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
        if str(target) == "aten.detach_.default":
            return inside[0]
        if target._schema.is_mutable:
            return self.refuse(f"the forward changes {', '.join(f'`{s}`' for s in sources)}: the model keeps something "
                               f"between calls",
                               "take the state as an argument and return it")
        # whether it is trained follows from what it is made of
        with torch.enable_grad():
            made = target(*map(bare, args), **{k: bare(v) for k, v in kwargs.items()})
        if not isinstance(made, (Tensor, tuple, list)):
            return made                                               # `item`: a number
        if isinstance(made, (tuple, list)):
            return Parts(tuple(Weights(m, sources) for m in made))
        if made is inside[0].value or (str(node.target) in SAME and len(inside) == 1):
            return inside[0]
        return Weights(made, sources)

    def _moved(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call on states alone: what it does to their numbers.  What changes them reads the last step instead."""
        target: Any = node.target
        if str(target) in CASTS:
            return next(v for v in args if isinstance(v, StateIds))
        if (name := _plain(str(target))) not in MOVES:
            done = self._lasts(args)
            if any(isinstance(v, Lost) for v in _leaves(done)):
                return Lost()
            if str(target) in READERS:
                try:
                    return READERS[str(target)](self, node, done, kwargs)
                except Refusal as refusal:
                    return self.refuse(refusal.what, refusal.instead)
            return self.refuse(f"`{name}` of a state has no integer operator", "")
        made = target(*map(_bare_ids, args), **{k: _bare_ids(v) for k, v in kwargs.items()})
        return Parts(tuple(map(StateIds, made))) if isinstance(made, (tuple, list)) else StateIds(made)

    def _whole(self, value: Any, made: dict[Joined, Any] | None = None) -> Any:
        """A value with those side by side made one; what a call reads twice, once."""
        from nnac.capture.readers.join import joined

        made = {} if made is None else made
        if isinstance(value, (list, tuple)):
            return type(value)(self._whole(v, made) for v in value)
        if isinstance(value, Joined) and value not in made:
            made[value] = joined(self, value)
        return made[value] if isinstance(value, Joined) else value

    def _in_order(self, value: Any) -> Any:
        """A value with those in another order as the user has them."""
        from nnac.capture.readers.patches import in_order

        if isinstance(value, (list, tuple)):
            return type(value)(self._in_order(v) for v in value)
        return in_order(self, value) if isinstance(value, Ordered) else value

    def _valued(self, value: Any) -> Any:
        """A value with what waits to be a norm as a value of the graph.  Refusal: it cannot be one."""
        from nnac.capture.readers.moments import Moment

        if isinstance(value, (list, tuple)):
            return type(value)(map(self._valued, value))
        if isinstance(value, dict):
            return {k: self._valued(v) for k, v in value.items()}
        return value.whole(self) if isinstance(value, Moment) else value

    def _lasts(self, value: Any) -> Any:
        """A value with hidden states that are one layer's in their place as its last step.  Refusal: they are not."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._lasts(v) for v in value)
        if isinstance(value, dict):
            return {k: self._lasts(v) for k, v in value.items()}
        return self.last_step(value) if isinstance(value, StateIds) else value

    def last_step(self, state: StateIds) -> Any:
        """The hidden state of one layer as its last step; Lost, and a problem, where it is something else."""
        owners = self.numbering.owners(state.numbers)
        if any(v.kind == GIVEN for v in owners):
            return self.refuse("a given state is read as a value", "states are read by recurrent layers")
        if any(v.kind == "cell" for v in owners):
            return self.refuse("the cell state of an LSTM is read", "read its output sequence, or the last step of it: "
                               "`y[-1]`")
        value = self.lasts.get((owners[0].owner, owners[0].kind))
        whole = torch.arange(owners[0].first, owners[0].end).reshape(owners[0].sizes)
        found = None
        if len(owners) == 1 and value is not None and state.numbers.numel() == whole.numel():
            outer = value.axes[:-1]
            shape = tuple(state.numbers.shape)
            axes = _axes_like(shape, tuple(whole.shape), outer)
            if axes is not None and torch.equal(state.numbers.reshape(whole.shape), whole):
                found = value.arranged(axes, shape)
        if found is None:
            return self.refuse("the final state is cut across layers", "take one layer's: `h[-1]`")
        return found

    def start(self, path: str, kind: str, numbers: Tensor) -> None:
        """Remember that a layer is given its state [batch, width].  Refusal: it is no argument of the model."""
        owners = self.numbering.owners(numbers)
        if [v.kind for v in owners] != [GIVEN]:
            raise Refusal("a recurrent layer begins with the state of another",
                          "give the sequence to both, or name the state as an argument")
        owner, = owners
        at = list(self.exported.inputs).index(next(n for n, (a, _) in self.exported.inputs.items() if a == owner.owner))
        found = place(path, kind, at, owner.sizes, numbers - owner.first)
        if found is None:
            raise Refusal("a state lies in its argument along other axes than batch and features",
                          "give states as [layers, B, H]")
        self.given.append(found)

    def refuse(self, what: str, instead: str) -> Lost:
        """Remember a problem at the call that is being read."""
        self.problems.append(self.problem(what, instead))
        return Lost()

    def problem(self, what: str, instead: str) -> Problem:
        """One at the call that is being read."""
        assert self.node is not None
        name, _ = self.module()
        where = f"`{name}`: " if name and f"`{name}`" not in what else ""
        found = problem(where + what, instead, self.node.meta.get("stack_trace") or "")
        if not found.line:
            file, line, code = self.exported.begins
            found = evolve(found, file=file, line=line, code=code)
        return found


PADDED = ("aten.pad.default", "aten.constant_pad_nd.default", "aten.conv1d.default", "aten.convolution.default",
          "aten.transpose.int", "aten.permute.default", "aten.slice.Tensor", "aten.contiguous.default",
          "aten.clone.default")                                       # take sequences with frames around them
MATRICES = ("aten.linear.default", "aten.matmul.default", "aten.addmm.default", "aten.mm.default")
# take values side by side; matrices, values in another order as well
PRODUCTS = (*MATRICES, "aten.cat.default", "aten.dropout.default", "aten.contiguous.default", "aten.clone.default")
NUMERIC = (".arithmetic", ".fixed", ".moments")                       # readers of what is done with real numbers
LABELLED = ("aten.embedding.default", "aten.zeros.default", "aten.new_zeros.default", "aten.zeros_like.default",
            "aten.full.default", "aten.full_like.default", "aten.new_full.default", "aten.dropout.default")

def _bare_ids(x: Any) -> Any:
    return x.numbers if isinstance(x, StateIds) else [_bare_ids(y) for y in x] if isinstance(x, list) else x


def _axes_like(shape: tuple[int, ...], sizes: tuple[int, ...], outer: tuple[Axis, ...]) -> list[Axis] | None:
    """The axes of a tensor of ``shape`` that holds [batch, width] vectors in order, with axes of size one anywhere."""
    wanted = [*outer, (FEATURES,)]
    left = [n for n in shape if n != 1]
    if left != [n for n in sizes if n != 1] or len(shape) < len(wanted):
        return None
    out: list[Axis] = [()] * (len(shape) - len(wanted))
    return [*out, *wanted] if tuple(shape[len(out):]) == sizes else None


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
