"""Rows of a table."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from nnac.attributes import record
from nnac.ir import Node, QGraph
from nnac.ops.embedding import EmbeddingAttributes
from nnac.train import integers as exact
from nnac.train.activation import learned
from nnac.train.format import Format
from nnac.train.ops import Constants, Layer, MakeQuantiser, Quantiser, State, real
from nnac.train.schedule import Slot


class Embedding(Layer):
    """See `nnac.ops.embedding`."""

    quantiser: Quantiser

    def __init__(self, node: Node, graph: QGraph) -> None:
        super().__init__(node, graph)
        self.weight = nn.Embedding(record(node.attributes, EmbeddingAttributes).rows, self.width).weight

    def make_quantisers(self, make: MakeQuantiser) -> None:
        self.quantiser = make(f"{self.node.path}.weight", self.weight, 8)

    def compressed_weights(self) -> Iterator[Slot]:
        yield Slot.of_parameter(f"{self.node.path}.weight", self.quantiser, self.weight)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        yield "weight", real(self.quantiser(self.weight))

    def constants(self, ins: list[Format], out: Format) -> Constants:
        """The quantised weight in the format of the output: the table holds the very integers that leave the layer."""
        codes, scale = self.quantiser(self.weight)
        real = codes * scale[:, None]
        return Constants({}, dict(weight=learned(exact.quantise(real, out), out, lambda: real / out.scale)))

    def integers(
        self, xs: list[Tensor], ins: list[Format], out: Format, state: State, lengths: Tensor | None
    ) -> Tensor:
        return nn.functional.embedding(xs[0][..., 0].long(), self.kept_constants(ins, out).codes["weight"])

    def reals(self, xs: list[Tensor], state: State, lengths: Tensor | None) -> Tensor:
        return nn.functional.embedding(xs[0][..., 0].long(), self.weight)
