"""Model graphs: what a policy addresses.  Shapes only: no weights, no torch, and networkx only when the graph itself is
asked for."""

from nnac.entry import EntryPoint
from nnac.model.graph import Kernel, Layer, ModelError, ModelGraph, build, builder, builders

__all__ = ["EntryPoint", "Kernel", "Layer", "ModelError", "ModelGraph", "build", "builder", "builders"]
