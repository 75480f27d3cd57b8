"""The LSTM, by the fast kernels of `nnac.train.kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nnac import bind
from nnac.attributes import record
from nnac.formats import unit_scale
from nnac.ir import Node, QGraph
from nnac.ops.lstm import KERNEL_BITS, LstmAttributes
from nnac.train import integers as exact
from nnac.train import kernels, lstm_parts
from nnac.train.activation import UncalibratedError
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.ops import Constants, MakeQuantiser, State, delayed, numbers, real, reverse, valid
from nnac.train.ops._cell import Celled
from nnac.train.ops._room import Sums, roomy
from nnac.train.schedule import Slot


class Lstm(Celled):
    """One or two directions.  See `nnac.ops.lstm`.

    ``acc32`` quantises both kernels together, so that their rows share a scale: [W_x s_x / s_h | W_h].
    """

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        a = record(node.attributes, LstmAttributes)
        self.cells, self.project, self.variant = a.cells, a.project or 0, a.variant
        self.directions = (("forward.", ""), ("backward.", "_reverse")) if a.bidirectional else (("", ""),)
        made = nn.LSTM(self.widths[0], self.cells, bidirectional=bool(a.bidirectional), proj_size=self.project)
        for name, parameter in made.named_parameters():
            self.register_parameter(name, parameter)
        self.quantisers: Any = (
            nn.ModuleDict()
        )  # by torch's suffixes: l0 (both kernels, acc32), or ih_l0 and hh_l0; hr_l0

    @property
    def ratio(self) -> float:
        """Input scale over hidden scale (acc32), as both are now.

        Never remembered, so that nothing that computes in between changes it.
        """
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

    def make_quantisers(self, make: MakeQuantiser) -> None:
        for prefix, suffix in self.directions:
            w_x, w_h, _ = self._weights(suffix)
            base = f"{self.node.path}.{prefix}"
            if self.variant == "acc32":
                self.quantisers[f"l0{suffix}"] = make(f"{base}input", torch.cat([w_x, w_h], 1).detach(), 8)
            else:
                self.quantisers[f"ih_l0{suffix}"] = make(f"{base}input", w_x.detach(), 8)
                self.quantisers[f"hh_l0{suffix}"] = make(f"{base}recurrent", w_h.detach(), 8)

            if self.project:
                self.quantisers[f"hr_l0{suffix}"] = make(
                    f"{base}project", getattr(self, f"weight_hr_l0{suffix}").detach(), 8
                )

    def compressed_weights(self) -> Iterator[Slot]:
        for prefix, suffix in self.directions:
            base = f"{self.node.path}.{prefix}"
            if self.project:
                yield Slot.of_parameter(
                    f"{base}project", self.quantisers[f"hr_l0{suffix}"], getattr(self, f"weight_hr_l0{suffix}")
                )
            if self.variant == "acc32":
                yield Slot(
                    f"{base}input | recurrent",
                    self.quantisers[f"l0{suffix}"],
                    partial(self._shared, suffix),
                    partial(self._take, suffix),
                    partial(self._columns, suffix),
                    partial(self._slope, suffix),
                )
            else:
                for name, kernel in (("ih", "input"), ("hh", "recurrent")):
                    weight = getattr(self, f"weight_{name}_l0{suffix}")
                    yield Slot.of_parameter(base + kernel, self.quantisers[f"{name}_l0{suffix}"], weight)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        for _, suffix in self.directions:
            if self.project:
                yield f"weight_hr_l0{suffix}", real(self.quantisers[f"hr_l0{suffix}"](
                    getattr(self, f"weight_hr_l0{suffix}")))
            w_x, w_h, _ = self._weights(suffix)
            if self.variant == "acc32":
                both = real(self.quantisers[f"l0{suffix}"](self._shared(suffix)))
                yield f"weight_ih_l0{suffix}", both[:, : w_x.shape[1]] / self.ratio
                yield f"weight_hh_l0{suffix}", both[:, w_x.shape[1]:]
            else:
                yield f"weight_ih_l0{suffix}", real(self.quantisers[f"ih_l0{suffix}"](w_x))
                yield f"weight_hh_l0{suffix}", real(self.quantisers[f"hh_l0{suffix}"](w_h))

    def _shared(self, suffix: str, ratio: float | None = None) -> Tensor:
        """Both kernels side by side, in units of one accumulator: what the shared quantiser sees."""
        w_x, w_h, _ = self._weights(suffix)
        return torch.cat([w_x * (self.ratio if ratio is None else ratio), w_h], 1)

    def _slope(self, suffix: str) -> Tensor | None:
        """The gradient of the loss by `_shared`."""
        w_x, w_h, _ = self._weights(suffix)
        return None if w_x.grad is None or w_h.grad is None else torch.cat([w_x.grad / self.ratio, w_h.grad], 1)

    def _columns(self, suffix: str) -> Tensor:
        """What each column of `_shared` is its weight times."""
        w_x, w_h, _ = self._weights(suffix)
        return torch.cat([w_x.new_full((w_x.shape[1],), self.ratio), w_h.new_ones(w_h.shape[1])])

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        for (prefix, suffix), made in zip(self.directions, y.chunk(len(self.directions), -1), strict=True):
            base, backwards = f"{self.node.path}.{prefix}", prefix == "backward."
            x, made = (reverse(v, lengths) if backwards else v for v in (xs[0], made))
            first, cell = (before[base + s] for s in ("hidden", "cell"))
            if backwards:
                first, cell = torch.zeros_like(first), torch.zeros_like(cell)
            hidden = delayed(made, first)
            if self.variant == "acc32":
                yield f"{base}input | recurrent", valid(torch.cat([x, hidden], -1), lengths)
            else:
                yield f"{base}input", valid(x, lengths)
                yield f"{base}recurrent", valid(hidden, lengths)
            if self.project:
                yield f"{base}project", valid(self._cells(suffix, x, hidden, cell), lengths)

    def _cells(self, suffix: str, x: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        """What the cells give before the projection, [T, B, cells], from all inputs and the hidden states before."""
        w_x, w_h, bias = self._weights(suffix)
        outputs = []
        for gates in nn.functional.linear(x, w_x, bias) + nn.functional.linear(hidden, w_h):
            i, f, g, o = gates.chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            outputs.append(o.sigmoid() * cell.tanh())
        return torch.stack(outputs)

    def _take(self, suffix: str, both: Tensor) -> None:
        w_x, w_h, _ = self._weights(suffix)
        w_x.copy_(both[:, : w_x.shape[1]] / self.ratio)
        w_h.copy_(both[:, w_x.shape[1] :])

    def constants(self, ins: list[Format], out: Format) -> Constants:
        x, a = ins[0], record(self.node.attributes, LstmAttributes)
        graph: dict[str, Any] = dict(bind.lstm_tables(self.fraction))
        codes: dict[str, Tensor] = {}
        ready: dict[str, Any] = {}
        scales: list[Tensor]
        second: Rescale | None
        rows = 4 * self.cells
        for prefix, suffix in self.directions:
            w_x, w_h, bias = self._weights(suffix)
            real_bias, of_input = numbers(bias), Sums(0, w_x.shape[1], x, bias)
            reach_x, reach_h = w_x.shape[1] << (x.bits + 6), w_h.shape[1] << (out.bits + 6)
            if self.variant == "acc32":
                whole = self.quantisers[f"l0{suffix}"].exact
                both, scale = roomy(self.quantisers[f"l0{suffix}"], self._shared(suffix, x.scale / out.scale),
                                    [of_input, Sums(w_x.shape[1], w_x.shape[1] + w_h.shape[1], out)], KERNEL_BITS,
                                    unit=out.scale)
                c_x, c_h = both.split([w_x.shape[1], w_h.shape[1]], 1)
                acc = (scale.double() * out.scale).expand(rows)
                sums = numbers(c_x.sum(1)) if x.zero_point else 0
                c = bind.lstm_acc32_scales(rows, numbers(acc), real_bias, x.zero_point, out.scale, sums)
                first = Rescale.of(c["multiplier"], c["shift"], c["bias"], reach_x + reach_h, 0, 16, w_x.device)
                second, scales = None, [acc.float(), acc.float()]
            else:
                whole = self.quantisers[f"ih_l0{suffix}"].exact and self.quantisers[f"hh_l0{suffix}"].exact
                c_x, scale_x = roomy(self.quantisers[f"ih_l0{suffix}"], w_x, [of_input], KERNEL_BITS)
                of_hidden = Sums(0, w_h.shape[1], out)
                c_h, scale_h = roomy(self.quantisers[f"hh_l0{suffix}"], w_h, [of_hidden], KERNEL_BITS)
                sums = numbers(c_x.sum(1)) if x.zero_point else 0
                c = bind.lstm_sum16_scales(
                    rows,
                    numbers(scale_x),
                    numbers(scale_h),
                    real_bias,
                    x.scale,
                    x.zero_point,
                    out.scale,
                    out.scale,
                    sums,
                )
                first = Rescale.of(c["input_multiplier"], c["input_shift"], c["bias"], reach_x, 0, 16, w_x.device)
                second = Rescale.of(c["recurrent_multiplier"], c["recurrent_shift"], 0, reach_h, 0, 16, w_x.device)
                scales = [(s * f.scale).expand(rows).float() for s, f in ((scale_x, x), (scale_h, out))]
            graph |= {prefix + k: v for k, v in c.items()}
            codes |= {f"{prefix}input": c_x, f"{prefix}recurrent": c_h}
            projection = None
            if self.project:
                raw = unit_scale(a.cell_output_bits)
                graph |= {prefix + k: v for k, v in bind.hidden(raw).items()}
                quantiser = self.quantisers[f"hr_l0{suffix}"]
                c_p, scale_p = quantiser(getattr(self, f"weight_hr_l0{suffix}"))
                p = bind.linear_scales(self.project, numbers(scale_p), None, raw, 0, out.scale)
                graph |= {f"{prefix}project_{k}": v for k, v in p.items()}
                codes[f"{prefix}project"] = c_p
                projection = lstm_parts.Projection(
                    exact.packed(c_p.detach(), a.cell_output_bits, 8, quantiser.exact),
                    Rescale.of(
                        p["multiplier"],
                        p["shift"],
                        p["bias"],
                        self.cells << (a.cell_output_bits + 6),
                        0,
                        out.bits,
                        w_x.device,
                    ),
                    out.scale,
                )
                scales.append((scale_p * raw).expand(self.project).float())
            hidden_bits = a.cell_output_bits if self.project else a.hidden_bits
            direction = lstm_parts.Direction.of(
                self.variant,
                c_x.detach(),
                c_h.detach(),
                x.bits,
                out.bits,
                first,
                second,
                kernels.hidden_rescale(
                    {k: graph[prefix + k] for k in ("hidden_multiplier", "hidden_shift")}, hidden_bits, w_x.device
                ),
                self.fraction,
                raw if self.project else out.scale,
                whole,
                projection,
            )
            ready[prefix] = (direction, scales)
        return Constants(graph, codes, ready)

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c, x = self.kept_constants(ins, out), xs[0]
        outputs = []
        for prefix, suffix in self.directions:
            hidden, cell = (f"{self.node.path}.{prefix}{s}" for s in ("hidden", "cell"))
            direction, (scale_x, scale_h, *more) = c.ready[prefix]
            project, project_scale = (c.codes[f"{prefix}project"], more[0]) if self.project else (None, None)
            backwards = prefix == "backward."
            h, cells = (
                (torch.zeros_like(state[hidden]), torch.zeros_like(state[cell]))
                if backwards
                else (state[hidden], state[cell])
            )
            y, last = kernels.lstm(
                reverse(x, lengths) if backwards else x,
                c.codes[f"{prefix}input"],
                c.codes[f"{prefix}recurrent"],
                self._weights(suffix)[2],
                scale_x,
                scale_h,
                h,
                cells,
                direction,
                ins[0].zero_point,
                out,
                project,
                project_scale,
            )
            outputs.append(reverse(y, lengths) if backwards else y)
            state[hidden], state[cell] = y[-1], last
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)

    def _look(self, x: Tensor, start: tuple[Tensor, Tensor], weights: list[Tensor], lengths: Tensor | None) -> None:
        """Show the cells of every step; steps after a row's end do not count."""
        state = [s[None].contiguous() for s in start]
        for t in range(len(x)):
            _, h, c = torch.lstm(x[t: t + 1], state, weights, True, 1, 0.0, False, False, False)
            state = [h, c]
            self.look(c[0], None if lengths is None else t < lengths.to(c.device))

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        outputs, x = [], xs[0]
        for prefix, suffix in self.directions:
            hidden, cell = (f"{self.node.path}.{prefix}{s}" for s in ("hidden", "cell"))
            backwards = prefix == "backward."
            start = (
                (torch.zeros_like(state[hidden]), torch.zeros_like(state[cell]))
                if backwards
                else (state[hidden], state[cell])
            )
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(("weight_hr",) if self.project else ()))
            weights = [getattr(self, f"{n}_l0{suffix}") for n in names]
            y, h, cc = torch.lstm(
                reverse(x, lengths) if backwards else x,
                [s[None].contiguous() for s in start],
                weights,
                True,
                1,
                0.0,
                self.training,
                False,
                False,
            )
            outputs.append(reverse(y, lengths) if backwards else y)
            if self.looked is not None:
                self._look(reverse(x, lengths) if backwards else x, start, weights, lengths)
            state[hidden], state[cell] = h[0], cc[0]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
