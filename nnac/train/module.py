"""The training module: a QGraph read as a torch.nn.Module that computes the NNA's own integers, with gradients.

    module = GraphModule(lower(model, precision), float_state_dict)
    module.calibrate(batches, run)                  # scales of the values between layers, on real data
    values = module.run(entry, values, integer, state)
    graph = module.bind()                           # the bound QGraph: evaluate(graph, …) gives the same integers

`GraphModule` reads any graph, whatever its entries are called.  What a family of models adds, its calls and its loss,
is a subclass of it in `nnac.train.families`: the RNN-T's `Transducer`, `LanguageModel`.

One submodule for one node, under the name the float network gives it (``encoder.lstm[0]`` is
``module.encoder.lstm.0``), so a float checkpoint loads as it is.  It is an ordinary module: state_dict, deepcopy,
``.to``, torch.save, DistributedDataParallel. Source: accelerator-aware training, docs/methods.md §1.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, ClassVar, Self

import torch
from attrs import evolve
from torch import Tensor, nn

from nnac.compression._clips import ActivationRule
from nnac.compression.minmax import MinMax
from nnac.compression.percentile import Percentile
from nnac.errors import UserError
from nnac.ir import Node, QGraph
from nnac.ops import may_have_zero_point, operator
from nnac.train.activation import ActivationQuantiser, learned
from nnac.train.format import Format
from nnac.train.integers import dequantise, quantise
from nnac.train.ops import Formatted, Layer, layer_of, valid
from nnac.train.ops._cell import Cells, Looking
from nnac.train.quantiser import KernelQuantiser, Settings, WeightQuantiser, quantiser_for
from nnac.train.schedule import Slot
from nnac.units import UnitError
from nnac.verify import verify

Watch = Callable[[str, Tensor], None]


class CalibrationError(UserError, ValueError):
    """Calibration saw what no scale can be read from; one line that names the value."""


class CalibrationWarning(UserWarning):
    """Calibration found a scale that holds less than it was shown, or was shown nothing."""


class FloatWeightsError(ValueError):
    """The float checkpoint does not fit the model: what is missing, unknown or of another shape."""


class UnsuitableFormatError(ValueError):
    """A value was to have a format that the operators around it do not take."""


class NotQuantisedError(ValueError):
    """A layer that the plan leaves in real numbers was to be bound."""


class ScaleError(UserError):
    """Clips so far apart that no multiplier of the machine brings one layer's integers to the next one's:
    ``fixed(14336)`` for weights."""


class Group(nn.Module):
    """A name that contains layers: ``encoder``, ``encoder.lstm``."""


def attribute_path(path: str) -> list[str]:
    """``encoder.lstm[0]`` -> ["encoder", "lstm", "0"]: the names of the float network's modules."""
    return re.findall(r"[^.\[\]]+", path)


class GraphModule(nn.Module):
    """See the module.

    graph     unbound, from `nnac.lower`          weights  float state dict (None: freshly initialised)
    plan      settings of each site (None: int8 min-max weights per row, 99.99 percentile activations)
    Between layers values are float32 tensors holding integers.
    """

    learns_from: ClassVar[str] = "corpus"      # what `nnac train` is given: corpus, text, alignments, images

    def __init__(self, graph: QGraph, weights: Mapping[str, Tensor] | None = None, plan: Any = None) -> None:
        super().__init__()
        self.graph, self.plan = graph, plan
        self.inputs = Group()
        self.dropouts: dict[tuple[str, int], float] = {}
        self._paths: dict[str, list[str]] = {}
        for node in graph.nodes:
            kind = layer_of(node.op)
            if kind is None:
                raise NotImplementedError(f"{node.path}: no training layer for the operator {node.op}")
            self._paths[node.path] = self.names_of(node.path)
            self._place(self._paths[node.path], kind(node, graph))
        self.tie()
        for name, value in graph.values.items():
            maker = graph.producers.get(name)              # None: an input
            recurrent = maker is not None and operator(maker.op).recurrent
            how = self._method(name, "hidden" if recurrent else "activations")
            if value.bits == 32 or (maker is not None and operator(maker.op).view) or (value.scale is not None
                and not how.learns):
                continue
            if how.sides != "both" and not self._may_have_zero_point(name):
                raise UnsuitableFormatError(f"`{name}` is read or made by operators that take symmetric formats only: "
                                            f"its clips cannot differ")
            quantiser = ActivationQuantiser(value.bits, how)
            if value.scale is not None:
                if not recurrent:
                    continue                               # fixed by the arithmetic: a table's input, a tanh's output
                quantiser.set(value.scale * quantiser.levels)
            if maker is not None:
                self.layer(maker.path).activation = quantiser
            else:
                self.inputs.add_module(name, quantiser)
        self._float_names = [name for name, _ in self.named_parameters() if ".activation." not in name
                             and not name.startswith("inputs.")]
        if weights is not None:
            self.load_float(weights)
        for node in graph.nodes:
            layer = self.layer(node.path)
            layer.make_quantisers(self._weight_quantiser)
            layer.quantised = layer.can_be_integer
            layer.formats_of = tuple(map(self._formatted, node.inputs)), self._formatted(node.output)
        self._ending = ending(graph)
        self._watch: Watch | None = None
        self._observe = False
        self._beyond: dict[str, tuple[int, int, float]] = {}
        self._met: dict[str, Met] = {}

    # ------------------------------------------------------------------------------------------------- construction

    def names_of(self, path: str) -> list[str]:
        """The names of the modules that lead to a layer."""
        return attribute_path(path)

    def group(self, name: str) -> Group:
        """What the outermost groups are; a family that calls one of them makes it here."""
        return Group()

    def tie(self) -> None:
        """Let layers share parameters; called once, before any has a value."""

    def forward(self, *inputs: Any) -> Any:
        """A family's own call."""
        raise TypeError(f"{self.graph.name} has no call of its own here: `run` its entries "
                        f"({', '.join(self.graph.inputs)})")

    def _place(self, names: list[str], layer: nn.Module) -> None:
        where: nn.Module = self
        for name in names[:-1]:
            if name not in where._modules:
                where.add_module(name, self.group(name) if where is self else Group())
            where = where._modules[name]            # type: ignore[assignment]
        where.add_module(names[-1], layer)

    def _method(self, name: str, setting: str = "activations") -> ActivationRule:
        """The method that the plan has for a value; that of an input is its first layer's.  Without a word of the plan,
        the percentile's."""
        if self.plan is None:
            return Percentile()
        node = self.graph.producers.get(name)
        path = node.path if node is not None else self.graph.consumers(name)[0].path
        found = getattr(self.plan.by_path.get(path), setting, None)
        return Percentile() if found is None or found.method is None else found.method

    def _may_have_zero_point(self, name: str) -> bool:
        """Whether maker and readers of a value fold a zero point in."""
        node = self.graph.producers.get(name)
        return may_have_zero_point(name, None if node is None else node.op,
                                   lambda value: [(n.op, n.output) for n in self.graph.consumers(value)])

    def _weight_quantiser(self, kernel: str, weight: Tensor, bits: int) -> WeightQuantiser | KernelQuantiser:
        """What a plan says of the kernel; without a plan, int8 by the row's largest weight."""
        if self.plan is None:
            return WeightQuantiser(Settings(MinMax(), bits), weight, name=kernel)
        return quantiser_for(self.plan, kernel, weight)

    def train(self, mode: bool = True) -> Self:
        """As every module; nothing is done where all of it is in this mode already, as at every step of training."""
        return self if _all_in(self, mode) else super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GraphModule:
        kind = fn(torch.zeros(1)).dtype
        if kind != torch.float32:
            raise TypeError(f"a training module computes its integers in float32; in "
                            f"{str(kind).removeprefix('torch.')} they would be rounded")
        return super()._apply(fn, recurse)

    def load_float(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a float network of the same names.  FloatWeightsError if they do not fit."""
        own = dict(self.named_parameters())
        problems = [f"lacks {n} {list(own[n].shape)}" for n in self._float_names if n not in weights]
        problems += [f"has {n}, which the model does not" for n in weights if n not in self._float_names]
        problems += [f"{n} is {list(weights[n].shape)}, not {list(own[n].shape)}" for n in self._float_names
                     if n in weights and weights[n].shape != own[n].shape]
        if problems:
            raise FloatWeightsError(f"the float weights do not fit {self.graph.name}: " + "; ".join(problems[:8]) +
                                    (" …" if problems[8:] else ""))
        with torch.no_grad():
            for n in self._float_names:
                own[n].copy_(weights[n])

    def float_state_dict(self) -> dict[str, Tensor]:
        """The float weights alone, under the float network's names."""
        own = dict(self.named_parameters())
        return {n: own[n].detach().clone() for n in self._float_names}

    # ----------------------------------------------------------------------------------------------------- looking in

    def layer(self, path: str) -> Layer:
        """The layer of a node's path.  KeyError if there is none."""
        where: Any = self
        for name in self._paths[path]:
            where = where._modules[name]
        return where

    def layers(self) -> Iterator[Layer]:
        """All layers, in the graph's order."""
        return (self.layer(n.path) for n in self.graph.nodes)

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Call ``watch(value name, integers)`` for every value a quantised layer makes, and for quantised inputs."""
        before, self._watch = self._watch, watch
        try:
            yield
        finally:
            self._watch = before

    def switch(self, pattern: str, quantised: bool) -> list[str]:
        """Quantise (or not) the layers whose path matches a shell pattern; returns their paths.  For debugging, at any
        time.

        KeyError if none matches.  A layer whose weights the plan leaves real stays so.
        """
        found = [n.path for n in self.graph.nodes if fnmatchcase(n.path, pattern.replace("[", "[[]"))]
        if not found:
            raise KeyError(f"no layer matches {pattern}")
        for path in found:
            layer = self.layer(path)
            layer.quantised = quantised and layer.can_be_integer
        return found

    def formats(self) -> dict[str, Format]:
        """The format of every value now.  UncalibratedError names the first that has none."""
        made = self.graph.producers
        names = [*(n for names in self.graph.inputs.values() for n in names if n not in made), *made]
        return {name: self.format_of(name) for name in names}

    def format_of(self, name: str) -> Format:
        """The format of a value now.  UncalibratedError if it has none."""
        return self._formatted(name).format(name)

    def _formatted(self, name: str) -> Formatted:
        """Who knows the format of a value."""
        value, node, quantiser = self.graph.values[name], self.graph.producers.get(name), self._activation(name)
        if quantiser is not None:
            return quantiser
        if node is not None and operator(node.op).view:
            return self._formatted(node.inputs[0])
        assert value.scale is not None, f"nothing gives {name} a scale"
        return Format(value.scale, value.zero_point, value.bits)

    def _activation(self, name: str) -> ActivationQuantiser | None:
        node = self.graph.producers.get(name)
        found = self.inputs._modules.get(name) if node is None else getattr(self.layer(node.path), "activation", None)
        assert found is None or isinstance(found, ActivationQuantiser)
        return found

    def activations(self) -> Iterator[tuple[str, ActivationQuantiser]]:
        """Value name and quantiser, of all values whose scale is data."""
        for name in self.graph.values:
            if (found := self._activation(name)) is not None:
                yield name, found

    # ------------------------------------------------------------------------------------------------------- running

    def run(self, entry: str, values: dict[str, Tensor], integer: dict[str, bool], state: dict[str, Tensor],
            lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Run one entry on ``values`` (name -> [T, B, width]; integers where ``integer`` says so, else real).

        Both dictionaries and ``state`` (name -> [B, width]) are completed in place; returns ``values``.
        """
        first = self.graph.inputs[entry][0]
        if len(values[first]) < self.graph.rate(entry, first):             # shorter than a step: nothing is computed
            for node in self.graph.entry(entry):
                values[node.output] = self._like().new_zeros(0, values[first].shape[1],
                                                             self.graph.values[node.output].width)
                integer[node.output] = self.layer(node.path).quantised
            return values
        # half-precision products would round the integers
        with torch.autocast(self._like().device.type, enabled=False):
            return self._run(entry, values, integer, state, lengths)

    def _run(self, entry: str, values: dict[str, Tensor], integer: dict[str, bool], state: dict[str, Tensor],
             lengths: Tensor | None) -> dict[str, Tensor]:
        forms = Formats(self)
        for name in self.graph.inputs[entry]:
            if integer[name]:
                continue
            if self._observe and (quantiser := self._activation(name)) is not None:
                self._see(name, quantiser, valid(values[name], lengths))
            if self._wants_integers(name):
                self._make_integers(name, values, integer, forms[name])
        for node in self.graph.entry(entry):
            layer = self.layer(node.path)
            if operator(node.op).view:
                values[node.output] = layer.reals([values[node.inputs[0]]], state, lengths)
                integer[node.output] = integer[node.inputs[0]]
                lengths = None if lengths is None else layer.lengths(lengths)
                if self._watch and integer[node.output]:
                    self._watch(node.output, values[node.output])
                continue
            if layer.quantised:
                for name in node.inputs:
                    if not integer[name]:
                        self._make_integers(name, values, integer, forms[name])
                xs = [self._dropped(node, i, values[n], forms[n]) for i, n in enumerate(node.inputs)]
                y = layer.integers(xs, [forms[n] for n in node.inputs], forms[node.output], state, lengths)
            else:
                before = dict(state)
                xs = [values[n] if not integer[n] or self.graph.values[n].bits == 32
                      else dequantise(values[n], forms[n])
                      for n in node.inputs]
                y = layer.reals([self._dropped(node, i, x) for i, x in enumerate(xs)], state, lengths)
                if self._observe:
                    self._look(node, layer, xs, y, before, lengths)
            values[node.output], integer[node.output] = y, layer.quantised
            if self._watch and layer.quantised:
                self._watch(node.output, y)
        return values

    def _dropped(self, node: Node, number: int, x: Tensor, form: Format | None = None) -> Tensor:
        """An input of a layer with dropout, in training: what is kept is scaled; integers are rounded and saturated
        again.

        ``dropouts`` maps (layer path, input number) to the probability that an element is kept.  Source: our choice for
        integers.
        """
        keeps = self.dropouts.get((node.path, number), 1.0)
        if keeps >= 1 or not self.training:
            return x
        mask = torch.empty_like(x).bernoulli_(keeps) / keeps
        if form is None:
            return x * mask
        return quantise(((x - form.zero_point) * mask) * form.scale, form)

    def _look(self, node: Node, layer: Layer, xs: list[Tensor], y: Tensor, before: dict[str, Tensor],
              lengths: Tensor | None) -> None:
        """Count what a layer was given and made, for scales and for weights that ask; at the ends of sequences alone
        where nothing else is meant."""
        seen = valid(y, lengths)
        if node.output in self._ending:
            xs, seen = [at_ends(x, lengths) for x in xs], at_ends(y, lengths)
            y, lengths = seen, None
        self._meet(layer, xs, y, before, lengths)
        self._fixed(node.output, seen)
        if (quantiser := self._activation(node.output)) is not None:
            self._see(node.output, quantiser, seen)

    def _fixed(self, name: str, x: Tensor) -> None:
        """Count the numbers of a value of fixed format (the input of a table, say) that lie beyond it."""
        v = self.graph.values[name]
        maker = self.graph.producers.get(name)
        if v.scale is None or v.bits > 16 or self._activation(name) is not None or (
                maker is not None and operator(maker.op).floored):
            return
        beyond = int((x.abs() > v.scale * (1 << (v.bits - 1))).sum())
        if beyond or name in self._beyond:
            before = self._beyond.get(name, (0, 0, 0.0))
            self._beyond[name] = (before[0] + beyond, before[1] + x.numel(), max(before[2], float(x.abs().max())))

    def _smaller(self, name: str) -> str:
        """What makes a value smaller, in words: there is no setting that holds more of a fixed format."""
        maker = self.graph.producers.get(name)
        if maker is None:
            return f"scale `{name}` before it enters the model"
        if any(True for _ in self.layer(maker.path).parameters()):
            return "bring the layer's weights down, or normalise before it"
        return f"bring down what `{maker.path}` is given: {', '.join(f'`{n}`' for n in maker.inputs)}"

    def _meet(self, layer: Layer, xs: list[Tensor], y: Tensor, before: dict[str, Tensor],
              lengths: Tensor | None) -> None:
        """Count what the weights of a layer are multiplied with, those that ask."""
        wanted = {s.name for s in layer.compressed_weights() if s.quantiser.wants_inputs}
        if wanted:
            for name, x in layer.meets(xs, y, before, lengths):
                if name in wanted:
                    self._met.setdefault(name, Met(x.shape[-1], x.device)).add(x)

    @staticmethod
    def _see(name: str, quantiser: ActivationQuantiser, x: Tensor) -> None:
        """Count ``x`` for the scale of the value ``name``.  CalibrationError: it has numbers that are none."""
        try:
            quantiser.observe(x)
        except ValueError as error:
            raise CalibrationError(f"calibration: `{name}`: {error}") from None

    def _make_integers(self, name: str, values: dict[str, Tensor], integer: dict[str, bool], form: Format) -> None:
        """Quantise a real value where it stands."""
        x = values[name]
        values[name], integer[name] = learned(quantise(x, form), form, lambda: x / form.scale), True
        if self._watch:
            self._watch(name, values[name])

    def _wants_integers(self, name: str) -> bool:
        """Whether a quantised layer reads the value, directly or through stacks."""
        return any(self._wants_integers(n.output) if operator(n.op).view else self.layer(n.path).quantised
                   for n in self.graph.consumers(name))

    def _state(self, entry: str, batch: int, like: Tensor) -> dict[str, Tensor]:
        return {s.name: like.new_zeros(batch, s.width) for n in self.graph.entry(entry) for s in n.states}

    def _like(self) -> Tensor:
        """Of the device and kind of this module's numbers; a model may be without weights."""
        known = chain(self.parameters(), (b for b in self.buffers() if b.is_floating_point()))
        return next(known, torch.zeros(()))

    # ---------------------------------------------------------------------------------------------------- calibration

    @contextmanager
    def real_numbers(self) -> Iterator[None]:
        """Within: every layer computes on real numbers, as the float network."""
        before = {n.path: self.layer(n.path).quantised for n in self.graph.nodes}
        self.switch("*", False)
        try:
            yield
        finally:
            for path, on in before.items():
                self.layer(path).quantised = on

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Any], run: Callable[[Any], Any] | None = None, *,
                  alike: bool = False) -> None:
        """Find the scales of the values that are data: run batches on real numbers, and look.

        ``run``  what is done with a batch (default: ``forward(*batch)``; a tensor alone is the one argument).
        Under torch.distributed every process sees its own batches and all end with the same scales; ``alike``: all see
        the same ones.
        CalibrationError: a value holds what is no number; nothing is changed.  CalibrationWarning: numbers saturate in
        a format that the policy or an operator fixed, or there was nothing but zeros.
        """
        self._observe, self._beyond, self._met = True, {}, {}
        celled = [layer for layer in self.layers() if isinstance(layer, Looking)]
        for layer in celled:
            layer.looked = Cells()
        try:
            with self.real_numbers():
                for batch in batches:
                    self.forward(*((batch,) if isinstance(batch, Tensor) else batch)) if run is None else run(batch)
        except BaseException:
            self._beyond, self._met = {}, {}
            for _, quantiser in self.activations():        # what was seen until now must not enter the next calibration
                quantiser.histogram = None
            for layer in celled:
                layer.looked = None
            raise
        finally:
            self._observe = False
        for layer in celled:
            seen = layer.settle_cell(alike)
            if seen is not None and (said := layer.saturation(seen)):
                warnings.warn(f"calibration: {said}", CalibrationWarning, stacklevel=2)
        for name, (beyond, total, largest) in self._beyond.items():
            v = self.graph.values[name]
            assert v.scale is not None
            warnings.warn(f"calibration: {100 * beyond / total:.2g} % of `{name}` ({beyond:,} of {total:,}, the "
                          f"largest {largest:.3g}) lie beyond {v.scale * (1 << (v.bits - 1)):g}, which is all that its "
                          f"fixed format holds, and saturate: {self._smaller(name)}", CalibrationWarning, stacklevel=2)
        self._beyond = {}
        for name, quantiser in self.activations():
            if quantiser.histogram is not None and quantiser.histogram.largest == 0.0 and quantiser.method.from_data:
                warnings.warn(f"calibration: `{name}` was zero in everything that it was shown: its scale says "
                              f"nothing; show it "
                              "real data", CalibrationWarning, stacklevel=2)
            quantiser.settle(alike)
        self._restart_quantisers(alike)
        self._met = {}

    def _restart_quantisers(self, alike: bool) -> None:
        """Fit what weight quantisers learn (centroids, sizes) anew: only now are the scales known that two kernels
        share.  Weights that are rounded by their products come to their levels."""
        forms = self.formats()
        for node in self.graph.nodes:
            layer = self.layer(node.path)
            self._constants(node, forms)                                              # tells the layer those scales
            for slot in layer.compressed_weights():
                slot.quantiser.restart(slot.read())
                self._fit(slot, layer, alike)

    def _fit(self, slot: Slot, layer: Layer, alike: bool) -> None:
        if not slot.quantiser.wants_inputs or operator(layer.node.op).by_index:
            return
        met = self._met.get(slot.name)
        gram = None if met is None else met.mean(alike)
        if gram is None or not gram.any():
            warnings.warn(f"calibration: nothing but zeros met `{slot.name}`: its weights are not fitted to their "
                          "inputs; show it real data", CalibrationWarning, stacklevel=4)
            return
        if slot.columns is not None:
            columns = slot.columns()
            gram = gram / (columns[:, None] * columns)
        slot.quantiser.meet(gram)
        slot.write(slot.quantiser.rounded(slot.read()))

    # -------------------------------------------------------------------------------------------------------- binding

    @torch.no_grad()
    def bind(self) -> QGraph:
        """The bound graph: scales and integer constants, those the forward pass computes with.

        UncalibratedError before calibration.  NotQuantisedError: the plan leaves a layer in real numbers.  ScaleError:
        clips too far apart.
        """
        forms = self.formats()
        values = {n: evolve(v, scale=forms[n].scale, zero_point=forms[n].zero_point) if n in forms else v
                  for n, v in self.graph.values.items()}
        nodes = []
        training = self.training
        self.eval()
        for node in self.graph.nodes:
            layer, out = self.layer(node.path), forms[node.output]
            if not layer.can_be_integer:
                raise NotQuantisedError(f"`{node.path}` has real weights in the plan: it cannot become integers")
            c = self._constants(node, forms)
            states = tuple(evolve(s, scale=out.scale) if s.name.endswith(".hidden") else s for s in node.states)
            nodes.append(layer.bound(evolve(node, constants=c.bound(), states=states)))
        self.train(training)
        return verify(evolve(self.graph, values=values, nodes=tuple(nodes)))

    def _constants(self, node: Node, forms: Mapping[str, Any]) -> Any:
        """The integer constants of a layer between these formats.  ScaleError if there are none."""
        try:
            return self.layer(node.path).constants([forms[n] for n in node.inputs], forms[node.output])
        except UnitError:                                  # of a schedule: it says itself what is missing
            raise
        except ValueError as error:
            raise ScaleError(f"`{node.path}`: {error}; look at the clips of its weights, inputs and output") from None

    def summary(self) -> str:
        """A table: layer, operator, parameters, formats, quantised or not."""
        forms = {n: str(q.extra_repr()) for n, q in self.activations()}
        rows = [(n.path, n.op, f"{sum(p.numel() for p in self.layer(n.path).parameters()):,}",
                 f"int{self.graph.values[n.output].bits}",
                 forms.get(n.output, "fixed" if self.graph.values[n.output].scale else "as its input") +
                 self.layer(n.path).described(),
                 "yes" if self.layer(n.path).quantised else "NO") for n in self.graph.nodes]
        head = ("layer", "operator", "parameters", "output", "scale", "quantised")
        widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [head, *rows])


def ending(graph: QGraph) -> frozenset[str]:
    """The values of which the last vector of a sequence is meant: of operators that say so (``at_end``), and what is
    made of these."""
    out: set[str] = set()
    for node in graph.nodes:
        if operator(node.op).at_end or out.intersection(node.inputs):
            out.add(node.output)
    return frozenset(out)


def at_ends(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last vector of each row of [T, B, C], as [1, B, C]."""
    if lengths is None:
        return x[-1:]
    return x[lengths - 1, torch.arange(x.shape[1], device=x.device)][None]


def _all_in(module: nn.Module, mode: bool) -> bool:
    """Whether a module and all within it are in one mode."""
    return module.training == mode and all(_all_in(m, mode) for m in module._modules.values() if m is not None)


class Formats(dict[str, Format]):
    """The formats of a module's values, each looked up when it is first asked for: what a run of one entry wants."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Format:
        found = self[name] = self.module.format_of(name)
        return found


class Met:
    """What a matrix was multiplied with: the sum of ``x x^T`` over all inputs x, float64 [cols, cols], and their
    number."""

    def __init__(self, cols: int, device: torch.device) -> None:
        self.total = torch.zeros(cols, cols, dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """x [..., cols]."""
        x = x.reshape(-1, x.shape[-1])
        self.total += x.T @ x
        self.count += len(x)

    def mean(self, alike: bool = False) -> Tensor:
        """``E[x x^T]`` over what all processes saw; ``alike``: they have all seen the same."""
        if not alike and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.total)
            torch.distributed.all_reduce(self.count)
        return self.total / self.count.clamp_min(1)
