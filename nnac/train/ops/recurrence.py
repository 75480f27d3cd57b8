"""A recurrent cell as the user wrote it."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from nnac import arith, bind
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops._steps import FIRST, NORM, Step, narrowed, steps_of, table_name, taken
from nnac.ops.recurrence import RecurrenceAttributes, sizes
from nnac.train.activation import UncalibratedError, learned
from nnac.train.format import Format
from nnac.train.ops import State, numbers
from nnac.train.ops._cell import ROOM, Cells, Looking, holding
from nnac.train.ops._numbers import Number, Put
from nnac.train.ops._recurrent import Recurrent


class Recurrence(Looking, Recurrent):
    """Two products, then steps; see `nnac.ops.recurrence`.  Parameters besides those of `Recurrent`:
    ``norm<k>_weight``, ``norm<k>_bias``.

    Buffer ``chosen`` int64 [values]: fraction bits of every value, 0 where calibration has not chosen them yet.
    """

    recurrent_bias = True
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor
    chosen: Tensor

    def __init__(self, node: Node, graph: QGraph) -> None:
        self.own = record(node.attributes, RecurrenceAttributes)
        self.steps = steps_of(self.own.steps)
        super().__init__(node, graph)
        self.all_widths = sizes(self.own)
        self.register_buffer("chosen", torch.tensor(self.own.every_fraction))
        for value, k in self.steps.norms.items():
            self.register_parameter(f"norm{k}_weight", nn.Parameter(torch.ones(self.all_widths[value])))
            self.register_parameter(f"norm{k}_bias", nn.Parameter(torch.zeros(self.all_widths[value])))
        self.largest: Tensor | None = None             # real magnitudes [values] seen while calibration looks

    @property
    def rows(self) -> tuple[int, int]:
        return self.own.rows, self.own.again

    @property
    def every(self) -> list[int]:
        """Fraction bits of every value.  UncalibratedError while there are none."""
        out: list[int] = self.chosen.tolist()
        if 0 in out:
            raise UncalibratedError(f"`{self.node.path}` has no formats for what its cell computes yet: run "
                                    "calibrate() on real data, or load a checkpoint that has them")
        return out

    @property
    def fractions(self) -> tuple[int, int]:
        first, second, *_ = self.every
        return first, second

    # ---------------------------------------------------------------------------------------------------- calibration

    def settle_cell(self, alike: bool) -> Cells | None:
        self.looked, largest, self.largest = None, self.largest, None
        if largest is None:
            return None
        if not alike and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        seen, groups = largest.tolist(), self.steps.formats
        for value, fixed in enumerate(self.steps.known):
            if not fixed:
                most = max(x for x, group in zip(seen, groups, strict=True) if group == groups[value])
                self.chosen[value] = holding(ROOM * most)
        return Cells(seen=1)

    def saturation(self, seen: Cells) -> str:
        return ""

    def see(self, values: list[Tensor], live: Tensor | None) -> None:
        """The values [B, width] of a step, real, of the rows that are ``live``."""
        if self.looked is None:
            return
        found = [float(v.abs().max()) if v.numel() else 0.0 for v in (x if live is None else x[live] for x in values)]
        now = torch.tensor(found, dtype=torch.float64)
        self.largest = now if self.largest is None else torch.maximum(self.largest, now)

    def bound(self, node: Node) -> Node:
        fractions = self.every
        states = (node.states[0], *(evolve(s, scale=2.0 ** -fractions[FIRST + k])
                                    for k, s in enumerate(node.states[1:])))
        return evolve(node, attributes=evolve(self.own, fractions=" ".join(map(str, fractions))), states=states)

    # ------------------------------------------------------------------------------------------------------- integers

    def _norm(self, k: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"norm{k}_weight"), getattr(self, f"norm{k}_bias")

    def after(self, out: Format) -> dict[str, Any]:
        fractions, c = self.every, dict[str, Any]()
        made = bind.scale(2.0 ** -fractions[self.steps.hidden], 1.0, out.scale)
        c |= dict(hidden_multiplier=made["multiplier"], hidden_shift=made["shift"])
        for value, step in self.steps.numbered():
            name = table_name(step, fractions)
            if step.op == "sigmoid":
                c[name] = arith.sigmoid_table(fractions[step.of[0]]).entries
            elif step.op == "tanh":
                c[name] = arith.tanh_table(fractions[step.of[0]]).entries
            elif step.op == "relu":
                c[name] = bind.relu(1.0, 0.0, 1.0)["table"]
            elif step.op == "norm":
                k = self.steps.norms[value]
                width = self.all_widths[value]
                gain, bias = map(numbers, self._norm(k))
                unit = 2.0 ** (narrowed(width) - fractions[step.of[0]])
                norm = bind.layer_norm(gain, bias, step.numbers[0], unit, 2.0 ** -fractions[value])
                c |= {f"norm{k}_{n}": norm[n] for n in NORM} | dict(rsqrt=norm["rsqrt"])
        return c

    def _made(self, step: Step, value: int, values: list[Number], c: dict[str, Tensor], fractions: list[int]) -> Number:
        """What a step makes, with its gradient: real numbers of its own where the integers' have no carrier for
        them."""
        if step.op not in ("relu", "norm", "scale"):
            return taken(step, value, values, fractions, c, 0)
        unit, k = 2.0 ** -fractions[value], self.steps.norms.get(value, 0)
        integers = taken(step, value, [v.integers for v in values], fractions, c, k)
        made = self._real(step, value, [v.real for v in values])
        inside = None if step.op == "relu" else integers.abs() < (1 << 15) - 1
        return Number.put(made, integers, unit, inside)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c, fractions = self.kept_constants(ins, out), self.every
        names = [s.name for s in self.node.states]
        hidden = state[names[0]]
        units = [2.0 ** -fractions[FIRST + k] for k in range(len(names) - 1)]
        kept = [Number(state[n].detach().long(), state[n] * unit, unit)
                for n, unit in zip(names[1:], units, strict=True)]
        from_input = self._product(xs[0], "input", c, self.bias_ih_l0, ins[0].zero_point)
        others, outputs = c.ready["others"], []
        for t in range(len(xs[0])):
            values = [from_input[t], self._product(hidden, "recurrent", c, self.bias_hh_l0), *kept]
            for value, step in self.steps.numbered():
                values.append(self._made(step, value, values, others, fractions))
            kept = [values[i] for i in self.steps.keep]
            y = arith.requantise(values[self.steps.hidden], others["hidden_multiplier"], others["hidden_shift"], 0,
                                 out.bits)
            assert y.before is not None, "a hidden state is saturated last"
            z = y.before / out.scale
            hidden = learned(Put.apply(z, y.integers, y.inside), out, z.detach)
            outputs.append(hidden)
        state[names[0]] = hidden
        for n, v, unit in zip(names[1:], kept, units, strict=True):
            state[n] = v.real / unit
        return torch.stack(outputs)

    # ----------------------------------------------------------------------------------------------------------- real

    def _real(self, step: Step, value: int, values: list[Tensor]) -> Tensor:
        of = [values[i] for i in step.of]
        if step.op == "norm":
            weight, bias = self._norm(self.steps.norms[value])
            return nn.functional.layer_norm(of[0], (self.all_widths[value],), weight, bias, step.numbers[0])
        if step.op == "part":
            return of[0][..., int(step.numbers[0]):int(step.numbers[1])]
        if step.op == "sum":
            return of[0] + of[1]
        if step.op == "mul":
            return of[0] * of[1]
        if step.op == "scale":
            return of[0] * step.numbers[0]
        return {"neg": torch.neg, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[step.op](of[0])

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        names = [s.name for s in self.node.states]
        hidden, *kept = (state[n] for n in names)
        outputs = []
        for t, each in enumerate(nn.functional.linear(xs[0], self.weight_ih_l0, self.bias_ih_l0)):
            values = [each, nn.functional.linear(hidden, self.weight_hh_l0, self.bias_hh_l0), *kept]
            for value, step in self.steps.numbered():
                values.append(self._real(step, value, values))
            self.see(values, None if lengths is None else t < lengths.to(each.device))
            kept = [values[i] for i in self.steps.keep]
            hidden = values[self.steps.hidden]
            outputs.append(hidden)
        for n, v in zip(names, (hidden, *kept), strict=True):
            state[n] = v
        return torch.stack(outputs)

    def state_scale(self, name: str) -> float:
        """The real value of one in a state that the steps keep."""
        at = next(k for k, s in enumerate(self.node.states[1:]) if s.name == name)
        return 2.0 ** -self.every[FIRST + at]


