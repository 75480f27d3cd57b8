"""A matrix and a bias, requantised."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from nnac import bind
from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.linear import LinearAttributes
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.integers import Rescale
from nnac.train.native_weights import weights
from nnac.train.ops import Constants, Layer, MakeQuantiser, Quantiser, State, numbers, real, valid
from nnac.train.ops._room import Sums, roomy
from nnac.train.schedule import Slot


class Linear(Layer):
    """See `nnac.ops.linear`."""

    quantiser: Quantiser

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        made = nn.Linear(self.widths[0], self.width, bias=record(node.attributes, LinearAttributes).bias)
        self.weight, self.bias = made.weight, made.bias
        self.weight_bits = record(node.attributes, LinearAttributes).weight_bits

    def make_quantisers(self, make: MakeQuantiser) -> None:
        self.quantiser = make(f"{self.node.path}.weight", self.weight, self.weight_bits)

    def compressed_weights(self) -> Iterator[Slot]:
        yield Slot.of_parameter(f"{self.node.path}.weight", self.quantiser, self.weight)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        yield "weight", real(self.quantiser(self.weight))

    def meets(
        self, xs: list[Tensor], y: Tensor, before: State, lengths: Tensor | None
    ) -> Iterator[tuple[str, Tensor]]:
        yield f"{self.node.path}.weight", valid(xs[0], lengths)

    def constants(self, ins: list[Format], out: Format) -> Constants:
        x, rows = ins[0], self.width
        wide = max(x.bits, self.weight_bits) > 8
        sums_ = [Sums(0, self.widths[0], x, self.bias)]
        codes, scale = roomy(self.quantiser, self.weight, sums_, 48 if wide else 32, weight_bits=self.weight_bits)
        acc_scale = (scale * x.scale).expand(rows)
        sums = numbers(codes.sum(1)) if x.zero_point else 0
        c = bind.linear_scales(
            rows,
            numbers(scale),
            None if self.bias is None else numbers(self.bias),
            x.scale,
            x.zero_point,
            out.scale,
            sums,
            wide=wide,
        )
        reach = self.widths[0] << (x.bits + self.weight_bits - 2)
        ready = dict(
            matrix=exact.packed(codes.detach(), x.bits, self.weight_bits, self.quantiser.exact),
            acc_scale=acc_scale.float(),
            rescale=Rescale.of(c["multiplier"], c["shift"], c["bias"], reach, out.zero_point, out.bits, codes.device),
        )
        return Constants(c, dict(weight=codes), ready)

    def constants_of_a_step(self, ins: list[Format], out: Format) -> Constants:
        made = weights(self.quantiser, self.weight, self.bias, ins[0], out, self.weight_bits)
        if made is None:
            return self.constants(ins, out)
        return Constants({}, dict(weight=made.codes), dict(matrix=made.matrix, acc_scale=made.acc_scale,
                                                           rescale=made.rescale, unit=made.unit))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        c = self.kept_constants(ins, out)
        y = exact.linear(
            xs[0],
            c.codes["weight"],
            self.bias,
            c.ready["acc_scale"],
            c.ready["matrix"],
            c.ready["rescale"],
            ins[0].zero_point,
            out,
            *((self.weight, c.ready["unit"]) if "unit" in c.ready else ()),
        )

        def unrounded() -> Tensor:
            weight = c.codes["weight"] * c.ready["acc_scale"][:, None]
            return nn.functional.linear(xs[0] - ins[0].zero_point, weight, self.bias) / out.scale

        return learned(y, out, unrounded)

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.linear(xs[0], self.weight, self.bias)
