"""The reference with its products by SuiteSparse:GraphBLAS where weights are sparse (`nnac.graphblas`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from nnac.executors import Subject
from nnac.executors.reference import Reference
from nnac.graphblas.kernel import Choice, Kernel, carrier
from nnac.graphblas.library import library
from nnac.ir import Node, QGraph
from nnac.ops import operator


def executor(subject: Subject) -> GraphBlas:
    return GraphBlas.of(subject.graph)


@frozen(eq=False)
class GraphBlas(Reference):
    """The operators' own integers; each kernel multiplies in its own way (`nnac.graphblas.kernel.Kernel`)."""

    @classmethod
    def of(cls, graph: QGraph, choice: Choice = "auto") -> GraphBlas:
        """``choice``: what multiplies; auto: by density and batch.  GraphBlasError: the extra is not installed."""
        library()
        return cls(graph, {n.path: constants(n, choice) for n in graph.nodes})

    def kernels(self) -> Iterator[tuple[str, Kernel]]:
        """(layer and kernel, the kernel), in the graph's order."""
        assert self.constants is not None
        return ((f"{path}.{name}", k) for path, own in self.constants.items() for name, k in own.items()
                if isinstance(k, Kernel))

    def choices(self, batches: tuple[int, ...] = (1, 8, 64)) -> list[dict[str, Any]]:
        """For `nnac explain`: each kernel, its density, the type that is exact for 8-bit inputs, and what multiplies
        each batch."""
        return [dict(kernel=name, shape=f"{k.shape[0]} x {k.shape[1]}", density=round(k.density, 4),
                     type=str(carrier(k.bound(8))))
                | {f"batch {n}": k.engine(n) for n in batches} for name, k in self.kernels()]


def constants(node: Node, choice: Choice) -> Mapping[str, Any]:
    """The constants of a node in int64, its kernels as kernels."""
    multiplied = operator(node.op).matrices
    return {k: Kernel(v, choice) if k.rpartition(".")[2] in multiplied else v.astype(np.int64)
            for k, v in node.constants.items()}
