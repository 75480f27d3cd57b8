"""A user's own PyTorch model under a policy: read into a model graph (`nnac.capture`), then trained in exact integers
like ours.

    print(nnac.check(model, example))                        # what is supported, before anything is changed
    module = nnac.prepare(model, "policy.nnac", example)     # the policy says `model module`
    module.calibrate([batch, …])                             # the model's input, or tuples of several
    y = module(x)                                            # called as the model is: real numbers out, integers inside
    module.save("mine.nnc")
    # nnac compile mine.nnc --out mine.nnp; nnac run mine.nnp --tensors x.npz
    graph = module.bind()
    model.load_state_dict(module.original_state_dict())

Layers keep the names they have in the model, so policies address them by these (``encoder.rnn``; of several layers,
``encoder.rnn.layer[0]``).  Sequences are [T, B, C], or [B, T, C] where the recurrent layers say ``batch_first``.  Tied
weights stay tied, frozen ones frozen, and dropout acts in training.

**Read twice, or refused.**  `prepare` runs the example through the model and through its own reading in real numbers,
at two lengths, and refuses on any difference, naming the first layer that differs: what nnac trains is what the model
computes, or nothing.  What a model does in training alone, other than dropout, is not read: such a model is taken for
calibration, and refused in training (`in_training`).
"""

from __future__ import annotations

import inspect
import os
import random
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from nnac.capture import Captured, PrepareError, Problem, capture
from nnac.capture.captured import FORWARD
from nnac.capture.exported import as_it_was, begins, unwrapped
from nnac.capture.problems import problem
from nnac.capture.states import StateResult
from nnac.lower import lower_plan
from nnac.model.graph import ModelGraph, lent
from nnac.plan import Plan
from nnac.train.activation import learned
from nnac.train.families.module import Named
from nnac.train.format import Format
from nnac.train.integers import dequantise, quantise
from nnac.train.module import GraphModule
from nnac.train.ops._cell import Celled
from nnac.train.ops.recurrence import Recurrence

BUILDER = "module"             # what a policy for a user's own model calls it
# relative difference that rounding explains; 1e-4 for others (our choice)
ROOM = {torch.float16: 2e-2, torch.bfloat16: 6e-2}


class OfCaptured(GraphModule):
    """What all prepared models have of the model they were: its weights, what is tied and frozen in it, its dropout."""

    captured: Captured

    def weights_of(self, captured: Captured) -> dict[str, Tensor]:
        """By their names in this module."""
        return {f"{'.'.join(self.names_of(path))}.{name}": w for (path, name), w in captured.weights.items()}

    def keep_as_captured(self) -> None:
        """Dropout stays where it was, and what was frozen stays frozen; called once the layers are there."""
        self.dropouts = dict(self.captured.dropouts)
        for path, name in self.captured.frozen:
            self.layer(path).get_parameter(name).requires_grad_(False)

    def tie(self) -> None:
        for first, *others in self.captured.ties:
            for path, name in others:
                setattr(self.layer(path), name, self.layer(first[0]).get_parameter(first[1]))

    def load_float(self, weights: Mapping[str, Tensor]) -> None:
        """As `GraphModule.load_float`; a tied parameter may be given under each of its names."""
        super().load_float({n: w for n, w in weights.items() if n in self._float_names})


class PreparedModule(OfCaptured, Named):
    """A user's model in exact integers: called as the model is, real numbers in and out."""

    def __init__(self, captured: Captured, plan: Plan, signature: inspect.Signature) -> None:
        self.captured, self.signature = captured, signature
        self.untrainable: Problem | None = None            # what the model does in training alone
        self.kept: list[Tensor] | None = None              # what the model keeps on itself; None: as at first
        super().__init__(lower_plan(plan), self.weights_of(captured), plan)
        self.keep_as_captured()

    def train(self, mode: bool = True) -> Self:
        """As PyTorch's.  PrepareError: the model does in training what is not done here (`in_training`)."""
        if mode and self.untrainable is not None:
            raise PrepareError([self.untrainable])
        return super().train(mode)

    def reset(self) -> None:
        """Begin anew, where the model keeps states on itself: what it kept is forgotten."""
        self.kept = None

    def calibrate(self, batches: Iterable[Any], run: Callable[[Any], Any] | None = None, *,
                  alike: bool = False) -> None:
        """As `GraphModule.calibrate`; every batch begins anew."""
        def anew(batch: Any) -> Any:
            self.reset()
            return self(*((batch,) if isinstance(batch, Tensor) else batch)) if run is None else run(batch)

        super().calibrate(batches, anew, alike=alike)
        self.reset()

    def sequences(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The model's arguments as the graph's sequences.  TypeError: other arguments than the example's."""
        given = tensors(self.signature, args, kwargs)
        wanted = self.captured.end.arguments
        if len(given) != len(wanted):
            raise TypeError(f"the model was prepared with {len(wanted)} tensors, and is called with {len(given)}")
        return {a.name: a.sequence(x) if a.label else a.sequence(x.float())
                for a, x in zip(wanted, given, strict=True) if a is not None}

    def values(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, bool]]:
        """(every value of the graph [T, B, width], whether it is integers), for the model's arguments."""
        return self._values(*args, **kwargs)[:2]

    def _values(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, bool], dict[str, Tensor]]:
        """As `values`, and the states after the last step."""
        values = self.sequences(*args, **kwargs)
        labels = {n for n, v in self.graph.values.items() if v.bits == 32}
        integer = {n: n in labels for n in values}
        state = self.given_states(*args, **kwargs)
        self.run(FORWARD.name, values, integer, state, self.lengths(*args, **kwargs))
        return values, integer, state

    def lengths(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """Of the utterances of a call [B], where the model packs them; None where it does not."""
        if self.captured.lengths is None:
            return None
        return tensors(self.signature, args, kwargs)[self.captured.lengths].long().cpu()

    def given_states(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """What the layers begin with, as they hold it [B, width]: zero, and what the model's arguments say."""
        given = tensors(self.signature, args, kwargs)
        first = first_sequence(self.captured, given)
        state = self._state(FORWARD.name, first.shape[1], self._like())
        given += self._kept(first.shape[1])
        for place in self.captured.given:
            self.put_state(state, place.path, place.kind, place.view(given[place.tensor]).to(self._like()))
        return state

    def _kept(self, batch: int) -> list[Tensor]:
        """What the model keeps, of ``batch`` utterances."""
        if self.kept is not None:
            return self.kept
        begins = [x for k in self.captured.kept for x in k.zeros()]
        axes = [r.places[0].batch for r in self.captured.leaves]
        return [x if k.begins is not None else x.narrow(axis, 0, 1).repeat_interleave(batch, axis)
                for k, x, axis in zip((k for k in self.captured.kept for _ in k.shapes), begins, axes, strict=True)]

    def put_state(self, state: dict[str, Tensor], path: str, kind: str, x: Tensor) -> None:
        """Write real numbers [B, width] into the state of a layer, as it holds them."""
        layer, names = self.layer(path), self._state_names(path, kind)
        for name, form in names.items():
            real = x / form.scale
            state[name] = learned(quantise(x, form), form, real.detach) if layer.quantised else x

    def state_of(self, state: Mapping[str, Tensor], path: str, kind: str) -> Tensor:
        """The real numbers [B, width] of a layer's state."""
        (name, form), *_ = reversed(self._state_names(path, kind).items())
        return dequantise(state[name], form) if self.layer(path).quantised else state[name]

    def _state_names(self, path: str, kind: str) -> dict[str, Format]:
        """The state vectors of a layer that hold what PyTorch calls its hidden state or cell, and their formats; the
        most exact one last."""
        node, layer = self.graph.by_path[path], self.layer(path)
        own = {s.name.rpartition(".")[2]: s for s in node.states}
        if kind.startswith("cell"):
            cell = own[kind]
            assert isinstance(layer, (Celled, Recurrence))
            return {cell.name: Format(layer.state_scale(cell.name) if layer.quantised else 1.0, 0, cell.bits)}
        quantised = layer.quantised
        out = {own["hidden"].name: self.format_of(node.output) if quantised else Format(1.0, 0, 16)}
        if "blend" in own:                             # a GRU's own, of which its hidden state is the rounding
            blend = own["blend"]
            scale = layer.state_scale(blend.name) if isinstance(layer, Recurrence) and quantised else blend.scale
            scale = 1.0 if scale is None else scale
            out[blend.name] = Format(scale, 0, blend.bits)
        return out

    def real(self, name: str, values: Mapping[str, Tensor], integer: Mapping[str, bool]) -> Tensor:
        """A value in real numbers."""
        return dequantise(values[name], self.format_of(name)).float() if integer[name] else values[name]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's inputs -> its output, real, in the model's own type and layout."""
        values, integer, state = self._values(*args, **kwargs)
        lengths, steps = self.lengths(*args, **kwargs), len(next(iter(values.values())))
        made = []
        for r in self.captured.returned:
            if isinstance(r, StateResult):
                y = r.filled({(p.path, p.kind): self.state_of(state, p.path, p.kind) for p in r.places})
            else:
                y = r.arranged(ended(self.real(r.name, values, integer), r.last, lengths, steps))
            made.append(y.to(self.captured.dtype))
        if self.captured.kept:
            self.kept = [r.filled({(p.path, p.kind): self.state_of(state, p.path, p.kind).detach() for p in r.places})
                         for r in self.captured.leaves]
        return made[0] if self.captured.spec is None else _pytree.tree_unflatten(made, self.captured.spec)

    def save(self, path: str | os.PathLike[str]) -> None:
        """One checkpoint that `nnac compile`, `run` and `compare` take: the plan with its graph, weights, scales, and
        how the arrays lie."""
        from nnac.train.policy import save_module

        save_module(path, self, self.plan, self.captured.end, {})

    @property
    def original_names(self) -> dict[str, str]:
        """The model's parameter names -> ours; tied ones once, folded and divided ones not at all."""
        out: dict[str, str] = {}
        for (path, name), theirs in self.captured.sources.items():
            if theirs and (path, name) not in self.captured.places:
                out.setdefault(theirs, f"{'.'.join(self.names_of(path))}.{name}")
        return out

    def original_state_dict(self) -> dict[str, Tensor]:
        """The float weights under the names of the model that was prepared: ``model.load_state_dict(…)`` takes them
        back.

        Tied parameters stand under all their names; what no layer has (a buffer, a parameter that the forward does not
        read) is as it was. PrepareError where a parameter was folded from others (`nnac.check` names them): then there
        is no way back.
        """
        return original(self, self.captured)


def original(module: GraphModule, captured: Captured, back: Callable[[str, str, Tensor], Tensor] = lambda p, n, w: w
             ) -> dict[str, Tensor]:
    """The float weights under the user's names; ``back`` puts a parameter's rows as the user has them.  PrepareError as
    `PreparedModule.original_state_dict`."""
    if folded := [f"{path}.{name}" for (path, name), theirs in captured.sources.items()
                  if not theirs and (path, name) not in captured.frozen]:
        raise PrepareError([Problem(f"{', '.join(f'`{n}`' for n in folded)}: computed from other parameters of the "
                                    f"model, so that what was "
                                    "trained has no place there", "use the prepared module's own state")])
    own = dict(module.named_parameters(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    for (path, name), theirs in captured.sources.items():
        if not theirs:
            continue
        value = back(path, name, own[f"{'.'.join(module.names_of(path))}.{name}"].detach()).to(captured.dtype)
        index = captured.places.get((path, name))
        if index is None:
            found.setdefault(theirs, value.clone())
            continue
        whole = found.setdefault(theirs, torch.zeros(captured.shapes[theirs], dtype=captured.dtype))
        whole.view(-1)[index[index >= 0]] = value[index >= 0]
    return found | {n: found[first] for n, first in captured.aliases.items() if first in found} | dict(captured.others)


def tensors(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """All tensors of a call, in the order of the forward's arguments."""
    bound = signature.bind(*args, **kwargs)
    return [x for x in _pytree.tree_leaves((bound.args, bound.kwargs)) if isinstance(x, Tensor)]


# ------------------------------------------------------------------------------------------------------------- checking

def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||; infinite where shapes differ or one is not a number where the other is."""
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).norm() / b.norm().clamp_min(1e-30)) if b.norm() > 0 else float(a.norm())


def results(y: Any) -> list[Tensor]:
    """The tensors that a call returns."""
    return [x for x in _pytree.tree_leaves(y) if isinstance(x, Tensor)]


def first_sequence(captured: Captured, given: list[Tensor]) -> Tensor:
    """The first sequence [T, B, C] among a call's tensors."""
    return next(a.sequence(x) for a, x in zip(captured.end.arguments, given, strict=True) if a is not None)


def ended(y: Tensor, last: bool, lengths: Tensor | None, steps: int) -> Tensor:
    """A result [T, B, C] of utterances of so many of the ``steps`` of the input: zero behind their ends; or, of
    ``last`` ones, [1, B, C] at their ends."""
    if lengths is None:
        return y
    ends = (lengths * len(y) // steps).to(y.device)
    if last:
        return y[ends - 1, torch.arange(y.shape[1], device=y.device)][None]
    return y * (torch.arange(len(y), device=y.device)[:, None] < ends)[..., None]


@contextmanager
def listening(model: nn.Module, heard: dict[str, Tensor]) -> Iterator[None]:
    """Within, the output of every submodule is kept under the path that a policy has for it: the last call's."""
    from nnac.capture.reading import site_path

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            if found := results(y):
                heard[path] = found[0]
        return hook

    handles = [m.register_forward_hook(keep(site_path(name))) for name, m in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shorter(captured: Captured, given: list[Tensor], signature: inspect.Signature, args: tuple[Any, ...],
            kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The same example one step shorter and one utterance fewer, where it has more than two steps; None where it has
    not."""
    of = {id(x): i for x, i in zip(given, captured.end.arguments, strict=True) if i is not None}
    states = {id(given[p.tensor]): p for p in captured.given if p.tensor < len(given)}
    first = next(iter(captured.graph))
    pace = first.rate * int(first.attributes.get("frames", 1))
    cut = False
    steps = next(x.shape[a.roles.index("time")] if "time" in a.roles else 1
                 for x, a in zip(given, captured.end.arguments, strict=True) if a is not None)

    def part(x: Any) -> Any:
        nonlocal cut
        if captured.lengths is not None and x is given[captured.lengths]:
            return (x[:-1] if len(x) > 1 else x).clamp_max(steps - pace if steps > pace + 1 else steps)
        i = of.get(id(x)) if isinstance(x, Tensor) else None
        if isinstance(x, Tensor) and id(x) in states:
            axis = states[id(x)].batch
            return x.narrow(axis, 0, max(1, x.shape[axis] - 1)).contiguous()
        if i is None:
            return x
        for axis, role in enumerate(i.roles):
            less = i.hearing.frames(pace) if role == "time" else 1
            if x.shape[axis] > (less + 1 if role == "time" else 1):
                x, cut = x.narrow(axis, 0, x.shape[axis] - less), True
        return x.contiguous()

    bound = signature.bind(*args, **kwargs)
    made = _pytree.tree_map(part, (bound.args, bound.kwargs))
    return made if cut else None


def within(module: PreparedModule, result: Any, theirs: Tensor, ours: Tensor, args: tuple[Any, ...],
           kwargs: Mapping[str, Any]) -> Tensor:
    """A result of a model that packs, zero behind the ends of its utterances, and as long as ours."""
    if result.last:
        return theirs
    time = next(i for i, axis in enumerate(result.axes) if "time" in axis)
    if theirs.shape[time] < ours.shape[time]:
        more = list(theirs.shape)
        more[time] = ours.shape[time] - theirs.shape[time]
        theirs = torch.cat([theirs, theirs.new_zeros(more)], time)
    lengths = module.lengths(*args, **kwargs)
    assert lengths is not None
    first = first_sequence(module.captured, tensors(module.signature, args, kwargs))
    width = module.graph.values[result.name].width
    whole = first.new_ones(ours.numel() // (len(lengths) * width), len(lengths), width)
    return theirs * result.arranged(ended(whole, False, lengths, len(first)))


@torch.no_grad()
def agree(model: nn.Module, module: PreparedModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse (PrepareError) unless the model and its reading in real numbers give the same, twice, at two lengths."""
    room = ROOM.get(module.captured.dtype, 1e-4)
    given = tensors(module.signature, args, kwargs)
    examples = [("", args, dict(kwargs))]
    if (other := shorter(module.captured, given, module.signature, args, kwargs)) is not None:
        examples.append((" at another length than the example's", *other))
    for where, a, k in examples:
        heard: dict[str, Tensor] = {}
        with as_it_was(model):
            try:
                with listening(model, heard):
                    theirs = results(model(*a, **k))
                again = results(model(*a, **k))
            except Exception as error:
                if not where:
                    raise
                said = (str(error).splitlines() or [type(error).__name__])[0][:160]
                raise PrepareError([Problem(f"the model does not run{where}: {said}",
                                            "no lengths built in, and an example that is not the shortest",
                                            *begins(model))]) from error
        if any(relative(x, y) > room for x, y in zip(theirs, again, strict=True)) and not module.captured.kept:
            raise PrepareError([Problem("a second call of the model with the same inputs gives another answer: it "
                                        "keeps a state, or draws at random",
                                        "take the state as an argument and return it; draw in training alone",
                                        *begins(model))])
        with module.real_numbers():
            module.reset()
            ours = results(module(*a, **k))
            if module.captured.lengths is not None:
                theirs = [within(module, r, y, o, a, k) for r, y, o in zip(module.captured.end.results, theirs, ours,
                                                                           strict=True)]
            if module.captured.kept:                                           # and from where the first call ended
                ours, theirs = ours + results(module(*a, **k)), theirs + again
                module.reset()
            if len(ours) == len(theirs) and all(relative(x, y) <= room for x, y in zip(ours, theirs, strict=True)):
                continue
            values, integer = module.values(*a, **k)
            first = differing(module, {n: module.real(n, values, integer) for n in values if not integer[n]}, heard,
                              room)
        if where and module.captured.doubts:
            raise PrepareError(module.captured.doubts)
        worst = max((relative(x, y) for x, y in zip(ours, theirs, strict=False)), default=float("inf"))
        raise PrepareError([Problem(f"nnac reads this model otherwise than it computes{where}: the results differ by "
                                    f"{worst:.2g} of their size"
                                    + (f", first in `{first}`" if first else ""),
                                    "please report it; nothing was changed")])


class _Undropped(TorchFunctionMode):
    """Within, nothing is dropped; ``trace`` leads to the first call that draws at random all the same."""

    trace = ""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        if "dropout" in name:
            return args[0] if args else kwargs["input"]
        if name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):                    # their only real number is the dropout
            args = tuple(0.0 if isinstance(a, float) else a for a in args)
        kwargs |= {k: off for k, off in (("training", False), ("dropout_p", 0.0)) if k in kwargs}
        before = torch.get_rng_state()
        made = function(*args, **kwargs)
        if not self.trace and not torch.equal(before, torch.get_rng_state()):
            self.trace = "".join(traceback.format_stack()[:-1])
        return made


@torch.no_grad()
def in_training(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], room: float) -> Problem | None:
    """What the model does in training alone, dropout apart: it draws at random, gives something else, or does not run.
    None where it does the same."""
    modes = {m: m.training for m in model.modules()}
    here = modes if any(modes.values()) else dict.fromkeys(modes, True)
    instead = ("`.eval()` it before `prepare` if it is to be calibrated only; else let it do in training what it does "
               "in evaluation, and dropout")
    torch_before, python_before, numpy_before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        with as_it_was(model):
            theirs = results(model(*args, **kwargs))
        with as_it_was(model):
            for m, mode in here.items():
                m.training = mode
            with _Undropped() as seen:
                ours = results(model(*args, **kwargs))
        drew = random.getstate() != python_before or any(
            not np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_before, strict=True))
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        return Problem(f"in training the model does not run with this example: {said}", instead)
    finally:
        torch.set_rng_state(torch_before)
        random.setstate(python_before)
        np.random.set_state(numpy_before)
    if seen.trace or drew:
        return problem("in training the model draws at random, besides its dropout: that would be left out here",
                       instead, seen.trace)
    if len(ours) != len(theirs) or any(relative(x, y) > room for x, y in zip(ours, theirs, strict=True)):
        return Problem("in training the model gives something else than in evaluation, dropout apart: that would be "
                       "left out here", instead)
    return None


def differing(module: PreparedModule, values: Mapping[str, Tensor], heard: Mapping[str, Tensor], room: float) -> str:
    """The first layer, in the graph's order, whose output is another than the model's; "" if none that can be
    compared."""
    for node in module.graph.nodes:
        if node.output in values and node.path in heard:
            ours, theirs = values[node.output], heard[node.path]
            arranged = [ours, ours.transpose(0, 1), ours[-1:], ours[-1]]
            if not any(relative(x.reshape(theirs.shape), theirs) <= room for x in arranged
                       if x.numel() == theirs.numel()):
                return node.path
    return ""


# ------------------------------------------------------------------------------------------------------------ preparing

@frozen
class Report:
    """What `check` found: the layers, what is good to know, and what is in the way (then there are no layers)."""

    layers: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    graph: ModelGraph | None = None

    def policy(self, target: str = "edge") -> str:
        """A first policy for the model, commented, with every layer's path.  PrepareError: something is in the way."""
        from nnac.language.first import first_policy

        if self.graph is None:
            raise PrepareError(self.problems)
        return first_policy(self.graph, self.graph.name, target)

    @property
    def supported(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        if self.problems:
            return "\n".join([f"{len(self.problems)} in the way:", *(f"  {p}" for p in self.problems)])
        return "\n".join([f"{len(self.layers)} layers, all of which become integer operators",
                          *(f"  {x}" for x in self.layers),
                          *(f"note: {n}" for n in self.notes)])


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of an example: a tensor, a tuple or list of arguments, or a dictionary of them by name."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def read(model: nn.Module, example: Any) -> tuple[nn.Module, Captured, inspect.Signature, tuple[Any, ...],
                                                  dict[str, Any]]:
    """(the model itself, what was read of it, its signature, args, kwargs).  PrepareError with everything that is in
    the way."""
    model = unwrapped(model)
    args, kwargs = arguments(example)
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise PrepareError([Problem(f"the example does not fit the model's forward{signature}: {error}",
                                    "a tensor, a tuple of its arguments, or a dictionary by name")]) from None
    for x in _pytree.tree_leaves((bound.args, bound.kwargs)):
        if hasattr(x, "__array__") and not isinstance(x, Tensor):
            raise PrepareError([Problem(f"the example holds a {type(x).__name__}",
                                        "give tensors: `torch.as_tensor(…)`")])
        if isinstance(x, Tensor) and 0 in x.shape:
            raise PrepareError([Problem(f"the example holds a tensor of no elements {list(x.shape)}",
                                        "at least one step of one utterance")])
    return model, capture(model, bound.args, bound.kwargs, BUILDER), signature, bound.args, bound.kwargs


def check(model: nn.Module, example: Any) -> Report:
    """What of a model becomes integer operators, and everything that is in the way.  Changes nothing, raises nothing
    about the model."""
    try:
        _, captured, _, _, _ = read(model, example)
    except PrepareError as error:
        return Report((), (), error.problems)
    lines = tuple(f"{x.path}: {x.kind}, {x.width} wide" for x in captured.graph)
    return Report(lines, captured.notes, (), captured.graph)


def prepare(model: nn.Module, policy: Any, example: Any) -> PreparedModule:
    """See the module.

    policy   a file, the text of a policy, or an `nnac.Policy`; its model is ``model module``
    example  the model's inputs, one batch: a tensor, a tuple of arguments, or a dictionary of them by name
    PrepareError: parts without an integer operator, all of them, each with the user's line; or a model that is in
    training, where it does what is not done here.  DiagnosticError:
    everything that is wrong with the policy.
    """
    model, captured, signature, args, kwargs = read(model, example)
    plan = plan_of(policy, captured.graph)
    module = PreparedModule(captured, plan, signature)
    agree(model, module.eval(), args, kwargs)
    module.untrainable = in_training(model, args, kwargs, ROOM.get(captured.dtype, 1e-4))
    return module.train(model.training)


def prepare_streaming(model: nn.Module, policy: Any, example: Any, states: Mapping[str, int]) -> PreparedModule:
    """As `prepare`, of a model that takes its states and returns them: called chunk after chunk with what it returned,
    it gives the integers of the whole sequence.

    states  argument -> number of the result that it becomes (results counted flat); in the program they are resident
    PrepareError besides: an argument that no recurrent layer begins with, or a result that is not its state.
    """
    model, captured, signature, args, kwargs = read(model, example)
    names = list(captured.tensors)
    given = [p for p in captured.given if p.tensor < len(names)]             # the others the model keeps itself
    made = {i: r for i, r in enumerate(captured.returned) if isinstance(r, StateResult)}
    found: list[Problem] = []
    for name, result in states.items():
        own = {(p.path, p.kind) for p in given if names[p.tensor] == name}
        becomes = {(p.path, p.kind) for p in made[result].places} if result in made else set()
        if name not in names:
            found.append(Problem(f"no argument is called `{name}` (there are: {', '.join(names)})"))
        elif not own:
            found.append(Problem(f"no recurrent layer begins with `{name}`", "`lstm(x, (h, c))`"))
        elif own != becomes:
            found.append(Problem(f"result {result} is not the state that `{name}` begins with",
                                 "return the states of the same layers"))
    if missing := sorted({names[p.tensor] for p in given} - set(states)):
        found.append(Problem(f"{', '.join(f'`{n}`' for n in missing)}: a state that is not named in `states`"))
    if found:
        raise PrepareError(found)
    module = PreparedModule(captured, plan_of(policy, captured.graph), signature)
    agree(model, module.eval(), args, kwargs)
    return module.train(model.training)


def plan_of(policy: Any, graph: ModelGraph, builder: str = BUILDER) -> Plan:
    """The plan of a policy on a graph that was read; the policy calls its model ``builder``."""
    from nnac.policy import Policy, load, loads

    if isinstance(policy, Policy):
        plan = policy.plan
        if plan.model.builder == builder and plan.graph is not graph:
            raise PrepareError([Problem("this policy was resolved for another model", "give its file or its text")])
    else:
        text = isinstance(policy, str) and ("\n" in policy or "{" in policy)
        with lent(builder, graph):
            plan = (loads(policy) if text else load(os.fspath(policy))).plan
    if plan.model.builder != builder:
        raise PrepareError([Problem(f"the policy says `model {plan.model}`",
                                    f"`model {builder}`: the model is the one that is prepared")])
    # the plan carries it: the name is free for the next model
    assert plan.graph is graph
    return plan
