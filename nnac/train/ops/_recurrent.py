"""What recurrent layers without a fast kernel have in common: slower than `nnac.train.kernels`, a few lines each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnac import arith, bind
from nnac.ir import Node, QGraph
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, Layer, MakeQuantiser, State, delayed, numbers, on_device, real, reverse, valid
from nnac.train.ops._numbers import Number, Put
from nnac.train.ops._room import Sums, roomy
from nnac.train.schedule import Slot


class Recurrent(Layer):
    """Base: two kernels of ``gates`` row blocks, quantised apart, each product requantised to Q3.12."""

    gates: ClassVar[int]
    recurrent_bias: ClassVar[bool] = False
    weight_ih_l0: Tensor

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.cells = node.attributes["cells"]
        self.directions = (("forward.", ""), ("backward.", "_reverse")) if node.attributes.get("bidirectional") else (
            ("", ""),)
        (rows, again), bound = self.rows, self.cells**-0.5
        for _, suffix in self.directions:
            for name, shape in (("weight_ih", (rows, self.widths[0])), ("weight_hh", (again, self.cells)),
                                ("bias_ih", (rows,)), ("bias_hh", (again,))):
                self.register_parameter(f"{name}_l0{suffix}",
                                        nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    @property
    def rows(self) -> tuple[int, int]:
        """Of both kernels."""
        return self.gates * self.cells, self.gates * self.cells

    @property
    def fractions(self) -> tuple[int, int]:
        """Fraction bits of the products with the input and with the hidden state."""
        return arith.PRE_FRACTION, arith.PRE_FRACTION

    def kernels(self) -> Iterator[tuple[str, str, Tensor]]:
        """(path, torch's name without the first word, weight) of every kernel."""
        for prefix, suffix in self.directions:
            for kernel, name in (("input", "ih"), ("recurrent", "hh")):
                yield (f"{self.node.path}.{prefix}{kernel}", f"{name}_l0{suffix}",
                       getattr(self, f"weight_{name}_l0{suffix}"))

    def make_quantisers(self, make: MakeQuantiser) -> None:
        self.quantisers: Any = nn.ModuleDict({name: make(path, weight.detach(), 8)
                                              for path, name, weight in self.kernels()})

    def compressed_weights(self) -> Iterator[Slot]:
        for path, name, weight in self.kernels():
            yield Slot.of_parameter(path, self.quantisers[name], weight)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        for _, name, weight in self.kernels():
            yield f"weight_{name}", real(self.quantisers[name](weight))

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        for (prefix, _), made in zip(self.directions, y.chunk(len(self.directions), -1), strict=True):
            base, backwards = f"{self.node.path}.{prefix}", prefix == "backward."
            x, made = (reverse(v, lengths) if backwards else v for v in (xs[0], made))
            first = before[f"{base}hidden"]
            yield f"{base}input", valid(x, lengths)
            yield f"{base}recurrent", valid(delayed(made, torch.zeros_like(first) if backwards else first), lengths)

    def _biases(self, suffix: str) -> tuple[Tensor, Tensor | None]:
        """What is added to the input product, and to the recurrent one."""
        x, h = (getattr(self, f"bias_{name}_l0{suffix}") for name in ("ih", "hh"))
        return (x, h) if self.recurrent_bias else (x + h, None)

    def after(self, out: Format) -> dict[str, Any]:
        """Constants of what follows the products."""
        raise NotImplementedError

    def constants(self, ins: list[Format], out: Format) -> Constants:
        device, after = self.weight_ih_l0.device, self.after(out)
        graph, codes = dict(after), dict[str, Tensor]()
        ready: dict[str, Any] = dict(others=on_device(after, device))
        for prefix, suffix in self.directions:
            c, made, kernels = self._direction(suffix, ins[0], out)
            graph |= {prefix + k: v for k, v in c.items()}
            codes |= {prefix + k: v for k, v in made.items()}
            ready |= {prefix + k: v for k, v in kernels.items()}
        return Constants(graph, codes, ready)

    def _direction(self, suffix: str, x: Format, out: Format) -> tuple[dict[str, Any], ...]:
        """(constants, codes, what kernels compute with) of one direction."""
        (rows, again), device = self.rows, self.weight_ih_l0.device
        q_x, q_h = (self.quantisers[f"{name}_l0{suffix}"] for name in ("ih", "hh"))
        w_x, w_h = (getattr(self, f"weight_{name}_l0{suffix}") for name in ("ih", "hh"))
        bias_x, bias_h = self._biases(suffix)
        (c_x, s_x), (c_h, s_h) = (roomy(q_x, w_x, [Sums(0, self.widths[0], x, bias_x)], 32),
                                  roomy(q_h, w_h, [Sums(0, self.cells, out, bias_h)], 32))
        c = bind.separate_scales((rows, again), numbers(s_x), numbers(s_h), numbers(bias_x),
                                 None if bias_h is None else numbers(bias_h), x.scale, x.zero_point, out.scale,
                                 numbers(c_x.sum(1)) if x.zero_point else 0, self.fractions)
        first = Rescale.of(c["input_multiplier"], c["input_shift"], c["bias"], self.widths[0] << (x.bits + 6), 0, 16,
                           device)
        second = Rescale.of(c["recurrent_multiplier"], c["recurrent_shift"], c.get("recurrent_bias", 0),
                            self.cells << (out.bits + 6), 0, 16, device)
        whole = q_x.exact and q_h.exact
        return c, dict(input=c_x, recurrent=c_h), dict(
            input=(exact.packed(c_x.detach(), x.bits, 8, whole), first, (s_x * x.scale).expand(rows).float()),
            recurrent=(exact.packed(c_h.detach(), out.bits, 8, whole), second, (s_h * out.scale).expand(again).float()))

    def _product(self, x: Tensor, kernel: str, c: Constants, bias: Tensor | None, zero_point: int = 0) -> Number:
        """A product in its `fractions`, saturated: x [..., cols] integers."""
        matrix, rescale, scale = c.ready[kernel]
        y, inside = rescale(exact.product(x.detach(), matrix))
        unit = 2.0 ** -self.fractions[kernel.endswith("recurrent")]
        return Number.put(
            nn.functional.linear(x - zero_point, c.codes[kernel] * scale[:, None], bias), y.long(), unit, inside
        )

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c, made = self.kept_constants(ins, out), []
        for prefix, suffix in self.directions:
            (hidden, kept), names = self._start(prefix, state)
            biases, memory, outputs = self._biases(suffix), Number(kept.detach().long(), kept * self.unit,
                                                                   self.unit), []
            x = reverse(xs[0], lengths) if prefix == "backward." else xs[0]
            from_input = self._product(x, f"{prefix}input", c, biases[0], ins[0].zero_point)
            for t in range(len(x)):
                from_hidden = self._product(hidden, f"{prefix}recurrent", c, biases[1])
                y, memory = self.step(from_input[t], from_hidden, memory, c.ready["others"], out.bits)
                assert y.before is not None, "a hidden state is saturated last"
                z = y.before / out.scale
                hidden = learned(Put.apply(z, y.integers, y.inside), out, z.detach)
                outputs.append(hidden)
            state[names[0]], state[names[1]] = hidden, memory.real / self.unit
            whole = torch.stack(outputs)
            made.append(reverse(whole, lengths) if prefix == "backward." else whole)
        return made[0] if len(made) == 1 else torch.cat(made, -1)

    def _start(self, prefix: str, state: State) -> tuple[tuple[Tensor, ...], list[str]]:
        """The states of a direction as it begins, and their names: hidden, then that of 16 bits."""
        names = [s.name for s in self.node.states if s.name.startswith(f"{self.node.path}.{prefix}")]
        given = tuple(state[n] for n in names)
        return (tuple(map(torch.zeros_like, given)) if prefix == "backward." else given), names

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
        made = []
        for prefix, suffix in self.directions:
            w_x, w_h, b_x, b_h = (getattr(self, f"{name}_l0{suffix}")
                                  for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            (hidden, memory), names = self._start(prefix, state)
            x = reverse(xs[0], lengths) if prefix == "backward." else xs[0]
            outputs = []
            for t, each in enumerate(nn.functional.linear(x, w_x, b_x)):
                hidden, memory = self.real_step(each, nn.functional.linear(hidden, w_h, b_h), memory)
                self.look(memory, None if lengths is None else t < lengths.to(x.device))
                outputs.append(hidden)
            state[names[0]], state[names[1]] = hidden, memory
            y = torch.stack(outputs)
            made.append(reverse(y, lengths) if prefix == "backward." else y)
        return made[0] if len(made) == 1 else torch.cat(made, -1)
