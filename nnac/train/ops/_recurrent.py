"""What recurrent layers without a fast kernel have in common: slower than `nnac.train.kernels`, a few lines each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nnac import bind
from nnac.ir import Node, QGraph
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, Layer, MakeQuantiser, State, delayed, numbers, valid
from nnac.train.ops._numbers import PRE_UNIT, Number, Put
from nnac.train.ops._room import Sums, roomy
from nnac.train.schedule import Slot


class Recurrent(Layer):
    """Base: two kernels of ``gates`` row blocks, quantised apart, each product requantised to Q3.12."""

    gates: ClassVar[int]
    recurrent_bias: ClassVar[bool] = False
    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.cells = node.attributes["cells"]
        rows, bound = self.gates * self.cells, self.cells**-0.5
        for name, shape in (
            ("weight_ih_l0", (rows, self.widths[0])),
            ("weight_hh_l0", (rows, self.cells)),
            ("bias_ih_l0", (rows,)),
            ("bias_hh_l0", (rows,)),
        ):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    def make_quantisers(self, make: MakeQuantiser) -> None:
        self.quantisers: Any = nn.ModuleDict(
            {
                "ih_l0": make(f"{self.node.path}.input", self.weight_ih_l0.detach(), 8),
                "hh_l0": make(f"{self.node.path}.recurrent", self.weight_hh_l0.detach(), 8),
            }
        )

    def compressed_weights(self) -> Iterator[Slot]:
        yield Slot.of_parameter(f"{self.node.path}.input", self.quantisers["ih_l0"], self.weight_ih_l0)
        yield Slot.of_parameter(f"{self.node.path}.recurrent", self.quantisers["hh_l0"], self.weight_hh_l0)

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        yield f"{self.node.path}.input", valid(xs[0], lengths)
        yield f"{self.node.path}.recurrent", valid(delayed(y, before[self.node.states[0].name]), lengths)

    @property
    def _biases(self) -> tuple[Tensor, Tensor | None]:
        """What is added to the input product, and to the recurrent one."""
        return (self.bias_ih_l0, self.bias_hh_l0) if self.recurrent_bias else (self.bias_ih_l0 + self.bias_hh_l0, None)

    def after(self, out: Format) -> dict[str, Any]:
        """Constants of what follows the products."""
        raise NotImplementedError

    def constants(self, ins: list[Format], out: Format) -> Constants:
        x, rows, device = ins[0], self.gates * self.cells, self.weight_ih_l0.device
        bias_x, bias_h = self._biases
        (c_x, s_x), (c_h, s_h) = (
            roomy(self.quantisers["ih_l0"], self.weight_ih_l0, [Sums(0, self.widths[0], x, bias_x)], 32),
            roomy(self.quantisers["hh_l0"], self.weight_hh_l0, [Sums(0, self.cells, out, bias_h)], 32),
        )
        c = bind.separate_scales(
            rows,
            numbers(s_x),
            numbers(s_h),
            numbers(bias_x),
            None if bias_h is None else numbers(bias_h),
            x.scale,
            x.zero_point,
            out.scale,
            numbers(c_x.sum(1)) if x.zero_point else 0,
        )
        first = Rescale.of(
            c["input_multiplier"], c["input_shift"], c["bias"], self.widths[0] << (x.bits + 6), 0, 16, device
        )
        second = Rescale.of(
            c["recurrent_multiplier"],
            c["recurrent_shift"],
            c.get("recurrent_bias", 0),
            self.cells << (out.bits + 6),
            0,
            16,
            device,
        )
        graph = c | self.after(out)
        whole = self.quantisers["ih_l0"].exact and self.quantisers["hh_l0"].exact
        ready = dict(
            input=(exact.packed(c_x.detach(), x.bits, 8, whole), first, (s_x * x.scale).expand(rows).float()),
            recurrent=(exact.packed(c_h.detach(), out.bits, 8, whole), second, (s_h * out.scale).expand(rows).float()),
            others={
                k: torch.as_tensor(np.asarray(v).astype(np.int64)).to(device) for k, v in graph.items() if k not in c
            },
        )
        return Constants(graph, dict(input=c_x, recurrent=c_h), ready)

    def _product(self, x: Tensor, kernel: str, c: Constants, bias: Tensor | None, zero_point: int = 0) -> Number:
        """A product in Q3.12, saturated: x [..., cols] integers."""
        matrix, rescale, scale = c.ready[kernel]
        y, inside = rescale(exact.product(x.detach(), matrix))
        return Number.put(
            nn.functional.linear(x - zero_point, c.codes[kernel] * scale[:, None], bias), y.long(), PRE_UNIT, inside
        )

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out)
        biases = self._biases
        names = [s.name for s in self.node.states]
        hidden, kept = state[names[0]], state[names[1]]
        memory = Number(kept.detach().long(), kept * self.unit, self.unit)
        from_input, outputs = self._product(xs[0], "input", c, biases[0], ins[0].zero_point), []
        for t in range(len(xs[0])):
            from_hidden = self._product(hidden, "recurrent", c, biases[1])
            y, memory = self.step(from_input[t], from_hidden, memory, c.ready["others"], out.bits)
            assert y.before is not None, "a hidden state is saturated last"
            z = y.before / out.scale
            hidden = learned(Put.apply(z, y.integers, y.inside), out, z.detach)
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, memory.real / self.unit
        return torch.stack(outputs)

    def look(self, cells: Tensor, live: Tensor | None = None) -> None:
        """Called with the memory [B, H] after each step on real numbers."""

    @property
    def unit(self) -> float:
        """Real value of one unit of the 16-bit state."""
        raise NotImplementedError

    def step(
        self, from_input: Number, from_hidden: Number, memory: Number, c: dict[str, Tensor], bits: int
    ) -> tuple[Number, Number]:
        """(hidden in ``bits`` bits, the new 16-bit state), by a function of `nnac.arith`."""
        raise NotImplementedError

    def real_step(self, from_input: Tensor, from_hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden, new state) in real numbers."""
        raise NotImplementedError

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        names = [s.name for s in self.node.states]
        hidden, memory = state[names[0]], state[names[1]]
        from_input, outputs = nn.functional.linear(xs[0], self.weight_ih_l0, self.bias_ih_l0), []
        for t, x in enumerate(from_input):
            hidden, memory = self.real_step(x, nn.functional.linear(hidden, self.weight_hh_l0, self.bias_hh_l0), memory)
            self.look(memory, None if lengths is None else t < lengths.to(x.device))
            outputs.append(hidden)
        state[names[0]], state[names[1]] = hidden, memory
        return torch.stack(outputs)
