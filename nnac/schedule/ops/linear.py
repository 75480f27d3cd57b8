"""Matrix-vector product with bias and requantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnac.ir import Node, QGraph
from nnac.schedule.emit import Emitter, Source
from nnac.schedule.kernels import Kernel, Parameters, requantise_blocks
from nnac.schedule.ops import Emission, Made, Matrix
from nnac.vectors import Form


class LinearEmission(Emission):
    """MVM and RQ, band by band; as many vectors at a time as the banks hold."""

    def matrices(self, node: Node, graph: QGraph, forms: Mapping[str, Form], lanes: int) -> Sequence[Matrix]:
        source = node.inputs[0]
        return (Matrix("weight", node.constants["weight"], forms[source].segments, graph.values[source].bits),)

    def parameters(self, node: Node, graph: QGraph, made: Made) -> Sequence[Parameters]:
        c, out, kernel = node.constants, graph.values[node.output], made.kernels[f"{node.path}.weight"]
        blocks = requantise_blocks(kernel.bands, c["bias"], c["multiplier"], c["shift"], out.zero_point, out.bits,
                                   wide(kernel))
        return (Parameters(f"{node.path}.requantise", blocks, node.path),)

    def emit(self, node: Node, e: Emitter) -> None:
        x, y = e.views(node)
        kernel = e.kernel(node, "weight")
        for band in kernel.bands:
            for groups in e.passes(e.groups(y.vectors, (x.form.stride, y.form.stride))):
                banks = e.sums(band, [Source(kernel, x.address, x.form.stride)], groups)
                params = e.parameters(f"{node.path}.requantise", band.index)
                for (first, count), bank in zip(groups, banks, strict=True):
                    e.requantise(band, bank, count, y.at(first) + band.first * y.form.size, y.form.stride, params,
                                 int(y.form.size == 2), wide=wide(kernel))


def wide(kernel: Kernel) -> bool:
    """Whether the sums take 48 bits."""
    return kernel.act16 or kernel.int16
