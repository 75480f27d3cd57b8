"""Recurrent layers that have no fast kernel: GRU, coupled LSTM, normed LSTM; and log-softmax.

Integers come from the very functions of `nnac.arith`; gradients from autograd on the real equations, into which every integer is put
where it arises (`put`): exact going forward, straight-through going backward, masked where something saturated.  Slower than
`kernels`, a handful of lines each.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from nnac import arith, bind
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.layers import Constants, Layer, numbers
from nnac.train.schedule import Slot

_PRE = 2.0**-arith.PRE_FRACTION
_UNIT = 2.0**-arith.UNIT_FRACTION


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, real: Tensor, value: Tensor, inside: Tensor | None) -> Tensor:
        ctx.save_for_backward(inside)
        return value.to(real.dtype)

    @staticmethod
    def backward(ctx, g: Tensor):
        return exact.masked(g, ctx.saved_tensors[0]), None, None


@frozen(eq=False)
class Number:
    """Integers (int64) and the real numbers they stand for: ``real = unit * integers`` exactly, with a gradient history."""

    integers: Tensor
    real: Tensor

    @classmethod
    def put(cls, real: Tensor, integers: Tensor, unit: float, inside: Tensor | None = None) -> Number:
        """``integers`` in the place of ``real``, whose gradient passes where ``inside``."""
        return cls(integers, _Put.apply(real, integers * unit, inside))

    def __getitem__(self, at: Any) -> Number:
        return Number(self.integers[at], self.real[at])

    def blocks(self, count: int) -> list[Number]:
        """The last axis in equal parts."""
        return [Number(i, r) for i, r in zip(self.integers.chunk(count, -1), self.real.chunk(count, -1), strict=True)]


def saturated(real: Tensor, free: Tensor, unit: float, bits: int = 16) -> Number:
    """Saturation of the integers ``free``."""
    y = arith.saturate(free, bits)
    return Number.put(real, y, unit, y == free)


class Recurrent(Layer):
    """Base: two kernels of ``gates`` row blocks, quantised apart, each product requantised to Q3.12."""

    gates: ClassVar[int]
    recurrent_bias: ClassVar[bool] = False
    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, node, graph) -> None:
        super().__init__(node, graph)
        self.cells = node.attributes["cells"]
        rows, bound = self.gates * self.cells, self.cells**-0.5
        for name, shape in (("weight_ih_l0", (rows, self.widths[0])), ("weight_hh_l0", (rows, self.cells)), ("bias_ih_l0", (rows,)),
                            ("bias_hh_l0", (rows,))):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def make_quantisers(self, make):
        self.quantisers: Any = nn.ModuleDict({"ih_l0": make(f"{self.node.path}.input", self.weight_ih_l0.detach(), 8),
                                              "hh_l0": make(f"{self.node.path}.recurrent", self.weight_hh_l0.detach(), 8)})

    def compressed_weights(self):
        yield Slot.of_parameter(f"{self.node.path}.input", self.quantisers["ih_l0"], self.weight_ih_l0)
        yield Slot.of_parameter(f"{self.node.path}.recurrent", self.quantisers["hh_l0"], self.weight_hh_l0)

    @property
    def _biases(self) -> tuple[Tensor, Tensor | None]:
        """What is added to the input product, and to the recurrent one."""
        return (self.bias_ih_l0, self.bias_hh_l0) if self.recurrent_bias else (self.bias_ih_l0 + self.bias_hh_l0, None)

    def after(self, out: Format) -> dict[str, Any]:
        """Constants of what follows the products."""
        raise NotImplementedError

    def constants(self, ins, out):
        x, rows, device = ins[0], self.gates * self.cells, self.weight_ih_l0.device
        (c_x, s_x), (c_h, s_h) = self.quantisers["ih_l0"](self.weight_ih_l0), self.quantisers["hh_l0"](self.weight_hh_l0)
        bias_x, bias_h = self._biases
        c = bind.separate_scales(rows, numbers(s_x), numbers(s_h), numbers(bias_x), None if bias_h is None else numbers(bias_h), x.scale,
                                 x.zero_point, out.scale, numbers(c_x.sum(1)) if x.zero_point else 0)
        first = Rescale.of(c["input_multiplier"], c["input_shift"], c["bias"], self.widths[0] << (x.bits + 6), 0, 16, device)
        second = Rescale.of(c["recurrent_multiplier"], c["recurrent_shift"], c.get("recurrent_bias", 0), self.cells << (out.bits + 6), 0, 16, device)
        graph = c | self.after(out)
        whole = self.quantisers["ih_l0"].exact and self.quantisers["hh_l0"].exact
        ready = dict(input=(exact.packed(c_x.detach(), x.bits, 8, whole), first, (s_x * x.scale).expand(rows).float()),
                     recurrent=(exact.packed(c_h.detach(), out.bits, 8, whole), second, (s_h * out.scale).expand(rows).float()),
                     others={k: torch.as_tensor(np.asarray(v).astype(np.int64)).to(device) for k, v in graph.items() if k not in c})
        return Constants(graph, dict(input=c_x, recurrent=c_h), ready)

    def _product(self, x: Tensor, kernel: str, c: Constants, bias: Tensor | None, zero_point: int = 0) -> Number:
        """A product in Q3.12, saturated: x [..., cols] integers."""
        matrix, rescale, scale = c.ready[kernel]
        y, inside = rescale(exact.product(x.detach(), matrix))
        return Number.put(nn.functional.linear(x - zero_point, c.codes[kernel] * scale[:, None], bias), y.long(), _PRE, inside)

    def integers(self, xs, ins, out, state, lengths):
        c = self.kept_constants(ins, out)
        biases = self._biases
        names = [s.name for s in self.node.states]
        hidden, kept = state[names[0]], state[names[1]]
        memory = Number(kept.detach().long(), kept * self.unit)
        from_input, outputs = self._product(xs[0], "input", c, biases[0], ins[0].zero_point), []
        for t in range(len(xs[0])):
            from_hidden = self._product(hidden, "recurrent", c, biases[1])
            free, memory = self.step(from_input[t], from_hidden, memory, c.ready["others"], out)
            y = arith.saturate(free.integers, out.bits)
            z = free.real / out.scale
            hidden = learned(_Put.apply(z, y, y == free.integers), out, z.detach)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, memory.real / self.unit
        return torch.stack(outputs)

    @property
    def unit(self) -> float:
        """Real value of one unit of the 16-bit state."""
        raise NotImplementedError

    def step(self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], out: Format) -> tuple[Number, Number]:
        """(hidden: integers before saturation, real; the new 16-bit state)."""
        raise NotImplementedError

    @staticmethod
    def table(x: Number, name: str, c: dict[str, Tensor]) -> Number:
        """Sigmoid or tanh in Q0.15."""
        sigmoid = name == "sigmoid"
        y = arith.lookup(c[name], "complement" if sigmoid else "odd", x.integers)
        return Number.put(torch.sigmoid(x.real) if sigmoid else torch.tanh(x.real), y, _UNIT)

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden, new state) in real numbers."""
        raise NotImplementedError

    def reals(self, xs, state, lengths):
        names = [s.name for s in self.node.states]
        hidden, memory = state[names[0]], state[names[1]]
        from_input, outputs = nn.functional.linear(xs[0], self.weight_ih_l0, self.bias_ih_l0), []
        for x in from_input:
            hidden, memory = self.real_step(x, nn.functional.linear(hidden, self.weight_hh_l0, self.bias_hh_l0), memory)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, memory
        return torch.stack(outputs)


class Gru(Recurrent):
    """torch.nn.GRU's equations; see `arith.gru_cell`."""

    kind = "gru"
    gates = 3
    recurrent_bias = True
    unit = _UNIT

    def after(self, out):
        return bind.blend(out.scale) | dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries)

    def step(self, from_input, from_hidden, memory, c, out):
        (xr, xz, xn), (hr, hz, hn) = from_input.blocks(3), from_hidden.blocks(3)
        r = self.table(saturated(xr.real + hr.real, xr.integers + hr.integers, _PRE), "sigmoid", c)
        z = self.table(saturated(xz.real + hz.real, xz.integers + hz.integers, _PRE), "sigmoid", c)
        reset = arith.round_shift(r.integers * hn.integers, arith.UNIT_FRACTION)
        n = self.table(saturated(xn.real + r.real * hn.real, xn.integers + reset, _PRE), "tanh", c)
        blend = arith.round_shift(z.integers * memory.integers + ((1 << arith.UNIT_FRACTION) - z.integers) * n.integers, arith.UNIT_FRACTION)
        memory = saturated(z.real * memory.real + (1 - z.real) * n.real, blend, _UNIT)
        return Number(arith.round_shift(memory.integers * c["hidden_multiplier"], c["hidden_shift"]), memory.real), memory

    def real_step(self, from_input, from_hidden, memory):
        (xr, xz, xn), (hr, hz, hn) = from_input.chunk(3, -1), from_hidden.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        memory = z * memory + (1 - z) * n
        return memory, memory


class CoupledLstm(Recurrent):
    """LSTM with i = 1 - f; see `arith.coupled_cell`."""

    kind = "lstm_coupled"
    gates = 3

    @property
    def unit(self) -> float:
        return 2.0**-self.node.attributes["fraction"]

    def after(self, out):
        return bind.hidden(out.scale) | bind.lstm_tables(self.node.attributes["fraction"])

    def pre(self, from_input: Number, from_hidden: Number, c: dict[str, Tensor]) -> Number:
        return saturated(from_input.real + from_hidden.real, from_input.integers + from_hidden.integers, _PRE)

    def gates_of(self, pre: Number, c: dict[str, Tensor]) -> tuple[Number, Number, Number, Number]:
        """i, f, g, o."""
        f, g, o = pre.blocks(3)
        f = self.table(f, "sigmoid", c)
        return Number((1 << arith.UNIT_FRACTION) - f.integers, 1 - f.real), f, self.table(g, "tanh", c), self.table(o, "sigmoid", c)

    def step(self, from_input, from_hidden, memory, c, out):
        i, f, g, o = self.gates_of(self.pre(from_input, from_hidden, c), c)
        new = arith.round_shift(f.integers * memory.integers, arith.UNIT_FRACTION) + arith.round_shift(
            i.integers * g.integers, 2 * arith.UNIT_FRACTION - self.node.attributes["fraction"])
        cell = saturated(f.real * memory.real + i.real * g.real, new, self.unit)
        t = Number.put(torch.tanh(cell.real), arith.lookup(c["tanh_cell"], "odd", cell.integers), _UNIT)
        return Number(arith.round_shift(o.integers * t.integers * c["hidden_multiplier"], c["hidden_shift"]), o.real * t.real), cell

    def real_gates(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f, g, o = pre.chunk(3, -1)
        f = torch.sigmoid(f)
        return 1 - f, f, torch.tanh(g), torch.sigmoid(o)

    def real_step(self, from_input, from_hidden, memory):
        i, f, g, o = self.real_gates(from_input + from_hidden)
        memory = f * memory + i * g
        return o * torch.tanh(memory), memory


class NormedLstm(CoupledLstm):
    """LSTM with layer norm over each gate's pre-activations; parameters ``gate_norm.weight``, ``gate_norm.bias`` [4, H]."""

    kind = "lstm_normed"
    gates = 4
    epsilon = 1e-5

    def __init__(self, node, graph) -> None:
        super().__init__(node, graph)
        self.gate_norm: Any = nn.Module()
        self.gate_norm.weight = nn.Parameter(torch.ones(4, self.cells))
        self.gate_norm.bias = nn.Parameter(torch.zeros(4, self.cells))

    def after(self, out):
        return super().after(out) | bind.gate_norm(numbers(self.gate_norm.weight), numbers(self.gate_norm.bias), self.epsilon)

    def _normed(self, gate: Tensor, index: int) -> Tensor:
        return nn.functional.layer_norm(gate, (self.cells,), self.gate_norm.weight[index], self.gate_norm.bias[index], self.epsilon)

    def gates_of(self, pre, c):
        out = []
        for k, gate in enumerate(pre.blocks(4)):
            at = slice(k * self.cells, (k + 1) * self.cells)
            free = arith.layer_norm(gate.integers, c["gate_gain"][at], c["gate_bias"][at], c["gate_epsilon"], c["gate_root_width"], c["rsqrt"],
                                    c["gate_multiplier"][k], c["gate_shift"][k], 0, 32)
            out.append(self.table(saturated(self._normed(gate.real, k), free, _PRE), "tanh" if k == 2 else "sigmoid", c))
        return tuple(out)

    def real_gates(self, pre):
        i, f, g, o = (self._normed(gate, k) for k, gate in enumerate(pre.chunk(4, -1)))
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)


class LogSoftmax(Layer):
    """Log-probabilities; see `arith.log_softmax`."""

    kind = "log_softmax"
    device = torch.device("cpu")

    def constants(self, ins, out):
        c = bind.log_softmax(ins[0].scale)
        return Constants(c, {}, {k: torch.as_tensor(np.asarray(v).astype(np.int64)).to(self.device) for k, v in c.items()})

    def integers(self, xs, ins, out, state, lengths):
        self.device = xs[0].device
        c = self.constants(ins, out).ready
        y = arith.log_softmax(xs[0].detach().long(), c["exp"], c["log"], c["multiplier"], c["shift"])
        real = torch.log_softmax(xs[0] * ins[0].scale, -1)
        return _Put.apply(real / out.scale, y, y > out.limits[0])

    def reals(self, xs, state, lengths):
        return torch.log_softmax(xs[0], -1)
