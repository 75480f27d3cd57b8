"""The layers of the training module, one class for one operator of the QGraph, found through ``Layer.registry``.

Every layer can be read twice: ``integers`` (what the NNA computes, with gradients) and ``reals`` (the float network, for calibration
and for switching a layer off).  ``constants`` makes the integer constants with `nnac.bind`; ``integers`` computes with these very
constants and `GraphModule.bind` writes them into the graph, so there is nothing to keep in step.
Parameters have the names of torch.nn.LSTM, Linear, LayerNorm and Embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from nnac import bind
from nnac.formats import unit_scale
from nnac.ir import Node, QGraph
from nnac.ops._table import table_operator
from nnac.train import integers as exact
from nnac.train import kernels, lstm_parts
from nnac.train.activation import UncalibratedError, learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.quantiser import WeightQuantiser
from nnac.train.schedule import Slot

State = dict[str, Tensor]
MakeQuantiser = Callable[[str, Tensor, int], nn.Module]        # kernel path, float weight, container bits -> forward(w) = (codes, scale)


def numbers(x: Any) -> np.ndarray:
    """A tensor (or number) as float64 NumPy."""
    return x.detach().to("cpu", torch.float64).numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)


@frozen(eq=False)
class Constants:
    """What a layer computes with: NumPy constants for the graph, and what is ready for the kernels on the layer's device."""

    graph: dict[str, np.ndarray] = field(factory=dict)
    codes: dict[str, Tensor] = field(factory=dict)         # float32, differentiable; written into the graph in their storage type
    ready: dict[str, Any] = field(factory=dict)

    def bound(self) -> dict[str, np.ndarray]:
        """The constants of the bound node."""
        fits8 = lambda v: -128 <= float(v.min()) and float(v.max()) <= 127  # noqa: E731
        return {k: bind.storage(numbers(v), 8 if fits8(v) else 16) for k, v in self.codes.items()} | self.graph


class Formatted(Protocol):
    """What knows the format that a value has now."""

    def format(self, name: str) -> Format:
        """The format.  UncalibratedError if it is unset."""


class Layer(nn.Module):
    """Base.  A subclass names the operator ``kind`` it trains."""

    kind: ClassVar[str]
    registry: ClassVar[dict[str, type[Layer]]] = {}

    def __init_subclass__(cls) -> None:
        if "kind" in cls.__dict__:
            Layer.registry[cls.kind] = cls

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__()
        self.node = evolve(node, constants={})
        self.widths = [graph.values[n].width for n in node.inputs]
        self.width = graph.values[node.output].width
        self.quantised = True
        self.formats_of: tuple[tuple[Formatted, ...], Formatted] | None = None      # of its inputs and its output: they are asked, not kept
        self._kept: tuple[Any, Constants] | None = None

    def compressed_weights(self) -> Iterator[Slot]:
        """The weights that schedules act on, for `nnac.train.schedule.Compression`."""
        return iter(())

    def make_quantisers(self, make: MakeQuantiser) -> None:
        """Called once the float weights are in place."""

    @property
    def can_be_integer(self) -> bool:
        """Whether the plan gives every kernel integers."""
        return all(q.settings.method is not None for q in self.modules() if isinstance(q, WeightQuantiser))

    def constants(self, ins: list[Format], out: Format) -> Constants:
        """The integer constants for these formats."""
        return Constants()

    def kept_constants(self, ins: list[Format], out: Format) -> Constants:
        """`constants`, kept between calls in eval mode without gradients, until a tensor of the layer changes."""
        if self.training or torch.is_grad_enabled():
            self._kept = None
            return self.constants(ins, out)
        key = ([(id(t), t._version) for t in (*self.parameters(), *self.buffers())], ins, out)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.constants(ins, out)
        return self._kept[1]

    def integers(self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None) -> Tensor:
        raise NotImplementedError

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        raise NotImplementedError

    def lengths(self, lengths: Tensor) -> Tensor:
        """How many of its output's frames are a row's own, of a row of so many input frames."""
        return lengths

    def train(self, mode: bool = True) -> Layer:
        self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        return f"{self.node.op} {self.node.path}, {'+'.join(map(str, self.widths))} -> {self.width}{'' if self.quantised else ', NOT QUANTISED'}"


class Stack(Layer):
    kind = "stack"

    def lengths(self, lengths: Tensor) -> Tensor:
        return lengths // self.node.attributes["frames"]

    def reals(self, xs, state, lengths):
        k, x = self.node.attributes["frames"], xs[0]
        steps = x.shape[0] // k
        return x[: steps * k].unflatten(0, (steps, k)).transpose(1, 2).flatten(2)

    def integers(self, xs, ins, out, state, lengths):
        return self.reals(xs, state, lengths)


class Linear(Layer):
    kind = "linear"

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        made = nn.Linear(self.widths[0], self.width, bias=node.attributes.get("bias", True))
        self.weight, self.bias = made.weight, made.bias
        self.weight_bits = node.attributes.get("weight_bits", 8)

    def make_quantisers(self, make):
        self.quantiser = make(f"{self.node.path}.weight", self.weight, self.weight_bits)

    def compressed_weights(self):
        yield Slot.of_parameter(f"{self.node.path}.weight", self.quantiser, self.weight)

    def constants(self, ins, out):
        codes, scale = self.quantiser(self.weight)
        x, rows = ins[0], self.width
        wide = max(x.bits, self.weight_bits) > 8
        acc_scale = (scale * x.scale).expand(rows)
        sums = numbers(codes.sum(1)) if x.zero_point else 0
        c = bind.linear_scales(rows, numbers(scale), None if self.bias is None else numbers(self.bias), x.scale, x.zero_point, out.scale, sums,
                               wide=wide)
        reach = self.widths[0] << (x.bits + self.weight_bits - 2)
        ready = dict(matrix=exact.packed(codes.detach(), x.bits, self.weight_bits, self.quantiser.exact), acc_scale=acc_scale.float(),
                     rescale=Rescale.of(c["multiplier"], c["shift"], c["bias"], reach, out.zero_point, out.bits, codes.device))
        return Constants(c, dict(weight=codes), ready)

    def integers(self, xs, ins, out, state, lengths):
        c = self.kept_constants(ins, out)
        y = exact.linear(xs[0], c.codes["weight"], self.bias, c.ready["acc_scale"], c.ready["matrix"], c.ready["rescale"], ins[0].zero_point, out)
        real = lambda: nn.functional.linear(xs[0] - ins[0].zero_point, c.codes["weight"] * c.ready["acc_scale"][:, None], self.bias)  # noqa: E731
        return learned(y, out, lambda: real() / out.scale)

    def reals(self, xs, state, lengths):
        return nn.functional.linear(xs[0], self.weight, self.bias)


class LayerNorm(Layer):
    kind = "layer_norm"

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.epsilon = node.attributes.get("epsilon", 1e-5)
        made = nn.LayerNorm(self.width)
        self.weight, self.bias = made.weight, made.bias

    def constants(self, ins, out):
        c = bind.layer_norm(numbers(self.weight), numbers(self.bias), self.epsilon, ins[0].scale, out.scale)
        return Constants(c, {}, {k: torch.as_tensor(v.astype(np.int64)).to(self.weight.device) for k, v in c.items()})

    def integers(self, xs, ins, out, state, lengths):
        c = self.kept_constants(ins, out)
        y = exact.layer_norm(xs[0], self.weight, self.bias, c.ready, self.epsilon / ins[0].scale**2, out)
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)

    def reals(self, xs, state, lengths):
        return nn.functional.layer_norm(xs[0], (self.width,), self.weight, self.bias, self.epsilon)


class Embedding(Layer):
    kind = "embedding"

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.weight = nn.Embedding(node.attributes["rows"], self.width).weight

    def make_quantisers(self, make):
        self.quantiser = make(f"{self.node.path}.weight", self.weight, 8)

    def compressed_weights(self):
        yield Slot.of_parameter(f"{self.node.path}.weight", self.quantiser, self.weight)

    def constants(self, ins, out):
        """The quantised weight, written in the format of the output: the table holds the very integers that leave the layer."""
        codes, scale = self.quantiser(self.weight)
        real = codes * scale[:, None]
        return Constants({}, dict(weight=learned(exact.quantise(real, out), out, lambda: real / out.scale)))

    def integers(self, xs, ins, out, state, lengths):
        return nn.functional.embedding(xs[0][..., 0].long(), self.kept_constants(ins, out).codes["weight"])

    def reals(self, xs, state, lengths):
        return nn.functional.embedding(xs[0][..., 0].long(), self.weight)


class Add(Layer):
    kind = "add"

    def constants(self, ins, out):
        c = bind.add((ins[0].scale, ins[1].scale), out.scale)
        rescales = tuple(Rescale.of(m, s, 0, 1 << (f.bits - 1), 0, out.bits, self.device)
                         for m, s, f in zip(c["multiplier"], c["shift"], ins, strict=True))
        return Constants(c, {}, dict(rescales=rescales))

    device = torch.device("cpu")

    def integers(self, xs, ins, out, state, lengths):
        self.device = xs[0].device
        y = exact.add(xs[0], xs[1], (ins[0].scale, ins[1].scale), self.kept_constants(ins, out).ready["rescales"], out)
        return learned(y, out, lambda: self.reals(self._reals(xs, ins), state, lengths) / out.scale)

    @staticmethod
    def _reals(xs: list[Tensor], ins: list[Format]) -> list[Tensor]:
        return [exact.dequantise(x, f) for x, f in zip(xs, ins, strict=True)]

    def reals(self, xs, state, lengths):
        return xs[0] + xs[1]


class Multiply(Add):
    kind = "multiply"

    def constants(self, ins, out):
        c = bind.multiply((ins[0].scale, ins[1].scale), out.scale)
        reach = 1 << (ins[0].bits + ins[1].bits - 2)
        return Constants(c, {}, dict(rescale=Rescale.of(c["multiplier"], c["shift"], 0, reach, 0, out.bits, self.device)))

    def integers(self, xs, ins, out, state, lengths):
        self.device = xs[0].device
        y = exact.multiply(xs[0], xs[1], (ins[0].scale, ins[1].scale), self.kept_constants(ins, out).ready["rescale"], out)
        return learned(y, out, lambda: self.reals(self._reals(xs, ins), state, lengths) / out.scale)

    def reals(self, xs, state, lengths):
        return xs[0] * xs[1]


class TableLayer(Layer):
    """Base of the functions that are read from a table."""

    device = torch.device("cpu")

    def constants(self, ins, out):
        c = bind.lookup(table_operator(self.node.op).table(), out.scale)
        return Constants(c, {}, dict(table=exact.table(c, table_operator(self.node.op).symmetry, ins[0], out, self.device)))

    def integers(self, xs, ins, out, state, lengths):
        self.device = xs[0].device
        key = (ins, out, self.device)                      # no parameters: only formats can change it
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.constants(ins, out)
        y = exact.lookup(xs[0], self._kept[1].ready["table"])
        return learned(y, out, lambda: self.reals([exact.dequantise(xs[0], ins[0])], state, lengths) / out.scale)

    def reals(self, xs, state, lengths):
        raise NotImplementedError


class Tanh(TableLayer):
    kind = "tanh"

    def reals(self, xs, state, lengths):
        return torch.tanh(xs[0])


class Sigmoid(TableLayer):
    kind = "sigmoid"

    def reals(self, xs, state, lengths):
        return torch.sigmoid(xs[0])


class Lstm(Layer):
    """One or two directions.  ``acc32`` quantises both kernels together, so that their rows share a scale: [W_x s_x / s_h | W_h]."""

    kind = "lstm"

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        a = node.attributes
        self.cells, self.project, self.variant = a["cells"], a.get("project") or 0, a["variant"]
        self.directions = (("forward.", ""), ("backward.", "_reverse")) if a.get("bidirectional") else (("", ""),)
        made = nn.LSTM(self.widths[0], self.cells, bidirectional=bool(a.get("bidirectional")), proj_size=self.project)
        for name, parameter in made.named_parameters():
            self.register_parameter(name, parameter)
        self.quantisers: Any = nn.ModuleDict()           # by torch's suffixes: l0 (both kernels, acc32), or ih_l0 and hh_l0; hr_l0

    @property
    def ratio(self) -> float:
        """Input scale over hidden scale (acc32), as both are now: never remembered, so that nothing that computes in between changes it."""
        if self.formats_of is None:
            return 1.0
        (x, *_), out = self.formats_of
        try:
            return x.format(self.node.inputs[0]).scale / out.format(self.node.output).scale
        except UncalibratedError:
            return 1.0

    def _weights(self, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        get = lambda name: getattr(self, f"{name}_l0{suffix}")  # noqa: E731
        return get("weight_ih"), get("weight_hh"), get("bias_ih") + get("bias_hh")

    def make_quantisers(self, make):
        for prefix, suffix in self.directions:
            w_x, w_h, _ = self._weights(suffix)
            base = f"{self.node.path}.{prefix}"
            if self.variant == "acc32":
                self.quantisers[f"l0{suffix}"] = make(f"{base}input", torch.cat([w_x, w_h], 1).detach(), 8)
            else:
                self.quantisers[f"ih_l0{suffix}"] = make(f"{base}input", w_x.detach(), 8)
                self.quantisers[f"hh_l0{suffix}"] = make(f"{base}recurrent", w_h.detach(), 8)

            if self.project:
                self.quantisers[f"hr_l0{suffix}"] = make(f"{base}project", getattr(self, f"weight_hr_l0{suffix}").detach(), 8)

    def compressed_weights(self):
        for prefix, suffix in self.directions:
            base = f"{self.node.path}.{prefix}"
            if self.project:
                yield Slot.of_parameter(f"{base}project", self.quantisers[f"hr_l0{suffix}"], getattr(self, f"weight_hr_l0{suffix}"))
            if self.variant == "acc32":
                yield Slot(f"{base}input | recurrent", self.quantisers[f"l0{suffix}"], partial(self._shared, suffix), partial(self._take, suffix))
            else:
                for name, kernel in (("ih", "input"), ("hh", "recurrent")):
                    weight = getattr(self, f"weight_{name}_l0{suffix}")
                    yield Slot.of_parameter(base + kernel, self.quantisers[f"{name}_l0{suffix}"], weight)

    def _shared(self, suffix: str, ratio: float | None = None) -> Tensor:
        """Both kernels side by side, in units of one accumulator: what the shared quantiser sees."""
        w_x, w_h, _ = self._weights(suffix)
        return torch.cat([w_x * (self.ratio if ratio is None else ratio), w_h], 1)

    def _take(self, suffix: str, both: Tensor) -> None:
        w_x, w_h, _ = self._weights(suffix)
        w_x.copy_(both[:, : w_x.shape[1]] / self.ratio)
        w_h.copy_(both[:, w_x.shape[1]:])

    def constants(self, ins, out):
        x, a = ins[0], self.node.attributes
        graph: dict[str, Any] = dict(bind.lstm_tables(a["fraction"]))
        codes: dict[str, Tensor] = {}
        ready: dict[str, Any] = {}
        scales: list[Tensor]
        second: Rescale | None
        rows = 4 * self.cells
        for prefix, suffix in self.directions:
            w_x, w_h, bias = self._weights(suffix)
            real_bias = numbers(bias)
            reach_x, reach_h = w_x.shape[1] << (x.bits + 6), w_h.shape[1] << (out.bits + 6)
            if self.variant == "acc32":
                whole = self.quantisers[f"l0{suffix}"].exact
                both, scale = self.quantisers[f"l0{suffix}"](self._shared(suffix, x.scale / out.scale))
                c_x, c_h = both.split([w_x.shape[1], w_h.shape[1]], 1)
                acc = (scale.double() * out.scale).expand(rows)
                sums = numbers(c_x.sum(1)) if x.zero_point else 0
                c = bind.lstm_acc32_scales(rows, numbers(acc), real_bias, x.zero_point, out.scale, sums)
                first = Rescale.of(c["multiplier"], c["shift"], c["bias"], reach_x + reach_h, 0, 16, w_x.device)
                second, scales = None, [acc.float(), acc.float()]
            else:
                whole = self.quantisers[f"ih_l0{suffix}"].exact and self.quantisers[f"hh_l0{suffix}"].exact
                c_x, scale_x = self.quantisers[f"ih_l0{suffix}"](w_x)
                c_h, scale_h = self.quantisers[f"hh_l0{suffix}"](w_h)
                sums = numbers(c_x.sum(1)) if x.zero_point else 0
                c = bind.lstm_sum16_scales(rows, numbers(scale_x), numbers(scale_h), real_bias, x.scale, x.zero_point, out.scale, out.scale, sums)
                first = Rescale.of(c["input_multiplier"], c["input_shift"], c["bias"], reach_x, 0, 16, w_x.device)
                second = Rescale.of(c["recurrent_multiplier"], c["recurrent_shift"], 0, reach_h, 0, 16, w_x.device)
                scales = [(s * f.scale).expand(rows).float() for s, f in ((scale_x, x), (scale_h, out))]
            graph |= {prefix + k: v for k, v in c.items()}
            codes |= {f"{prefix}input": c_x, f"{prefix}recurrent": c_h}
            projection = None
            if self.project:
                raw = unit_scale(a["cell_output_bits"])
                graph |= {prefix + k: v for k, v in bind.hidden(raw).items()}
                quantiser = self.quantisers[f"hr_l0{suffix}"]
                c_p, scale_p = quantiser(getattr(self, f"weight_hr_l0{suffix}"))
                p = bind.linear_scales(self.project, numbers(scale_p), None, raw, 0, out.scale)
                graph |= {f"{prefix}project_{k}": v for k, v in p.items()}
                codes[f"{prefix}project"] = c_p
                projection = lstm_parts.Projection(
                    exact.packed(c_p.detach(), a["cell_output_bits"], 8, quantiser.exact),
                    Rescale.of(p["multiplier"], p["shift"], p["bias"], self.cells << (a["cell_output_bits"] + 6), 0, out.bits, w_x.device), out.scale)
                scales.append((scale_p * raw).expand(self.project).float())
            hidden_bits = a["cell_output_bits"] if self.project else a["hidden_bits"]
            direction = lstm_parts.Direction.of(
                self.variant, c_x.detach(), c_h.detach(), x.bits, out.bits, first, second,
                kernels.hidden_rescale({k: graph[prefix + k] for k in ("hidden_multiplier", "hidden_shift")}, hidden_bits, w_x.device), a["fraction"],
                raw if self.project else out.scale, whole, projection)
            ready[prefix] = (direction, scales)
        return Constants(graph, codes, ready)

    def integers(self, xs, ins, out, state, lengths):
        c, x = self.kept_constants(ins, out), xs[0]
        outputs = []
        for prefix, suffix in self.directions:
            hidden, cell = (f"{self.node.path}.{prefix}{s}" for s in ("hidden", "cell"))
            direction, (scale_x, scale_h, *more) = c.ready[prefix]
            project, project_scale = (c.codes[f"{prefix}project"], more[0]) if self.project else (None, None)
            backwards = prefix == "backward."
            h, cells = (torch.zeros_like(state[hidden]), torch.zeros_like(state[cell])) if backwards else (state[hidden], state[cell])
            y, last = kernels.lstm(reverse(x, lengths) if backwards else x, c.codes[f"{prefix}input"], c.codes[f"{prefix}recurrent"],
                                   self._weights(suffix)[2], scale_x, scale_h, h, cells, direction, ins[0].zero_point, out, project, project_scale)
            outputs.append(reverse(y, lengths) if backwards else y)
            state[hidden], state[cell] = y[-1], last
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)

    def reals(self, xs, state, lengths):
        outputs, x = [], xs[0]
        for prefix, suffix in self.directions:
            hidden, cell = (f"{self.node.path}.{prefix}{s}" for s in ("hidden", "cell"))
            backwards = prefix == "backward."
            start = (torch.zeros_like(state[hidden]), torch.zeros_like(state[cell])) if backwards else (state[hidden], state[cell])
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(("weight_hr",) if self.project else ()))
            weights = [getattr(self, f"{n}_l0{suffix}") for n in names]
            y, h, cc = torch.lstm(reverse(x, lengths) if backwards else x, [s[None].contiguous() for s in start], weights, True, 1, 0.0,
                                  self.training, False, False)
            outputs.append(reverse(y, lengths) if backwards else y)
            state[hidden], state[cell] = h[0], cc[0]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[T, B, C] backwards in time, each row within its own length (all of T without lengths); what lies behind a row's end stays."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    at = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, at[:, :, None].expand_as(x))
