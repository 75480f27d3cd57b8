"""Rows of a table in DRAM, fetched by index."""

from __future__ import annotations

from numpy.typing import NDArray

from nnac import isa
from nnac.ir import Node
from nnac.schedule.emit import Emitter
from nnac.schedule.ops import Emission
from nnac.vectors import align


class EmbeddingEmission(Emission):
    """GTH."""

    def rows(self, node: Node, size: int) -> NDArray:
        return node.constants["weight"].astype(f"<i{size}")

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        pitch, rows = e.layout.image.pitch[node.path], len(node.constants["weight"])
        table = e.layout.image.addresses[node.path]
        for t in range(y.vectors):
            e.put(isa.GTH(index=x.at(t), dram=table, pitch=pitch, dst=y.at(t), bytes=align(y.form.width * y.form.size)),
                  "embed",
                  reads=(("DRAM", table, table + pitch * rows),))
