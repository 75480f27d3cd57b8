"""Bound graphs with random weights, for tests and benchmarks: real shapes, real formats, no training."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from nnac import bind
from nnac.formats import unit_scale
from nnac.ir import QGraph
from nnac.lower import Precision, lower
from nnac.model import ModelGraph, build
from nnac.ops._table import table_operator
from nnac.verify import verify


def random_weights(rng: np.random.Generator, rows: int, cols: int, bits: int = 8, sparsity: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights quantised per row: (codes, scales [rows])."""
    w = rng.standard_normal((rows, cols)) / np.sqrt(cols)
    w[rng.random((rows, cols)) < sparsity] = 0
    scale = np.maximum(np.abs(w).max(1), 1e-3) / ((1 << (bits - 1)) - 1)
    return np.floor(w / scale[:, None] + 0.5).astype(np.int64), scale


def bind_randomly(graph: QGraph, rng: np.random.Generator, *, bits: int = 8, sparsity: float = 0.0) -> QGraph:
    """Every scale and constant, at random but plausible."""
    values = dict(graph.values)
    nodes = []
    for name in {n for names in graph.inputs.values() for n in names}:
        if values[name].scale is None:
            values[name] = evolve(values[name], scale=0.03)
    for node in graph.nodes:
        out = values[node.output]
        ins = [values[n] for n in node.inputs]
        if out.scale is None:
            scale = ins[0].scale if node.op == "stack" else unit_scale(out.bits, 4.0)
            out = values[node.output] = evolve(out, scale=scale)
        a, c, states = node.attributes, {}, node.states
        if node.op == "linear":
            codes, scale = random_weights(rng, out.width, ins[0].width, bits, sparsity)
            c = bind.linear(codes, scale, rng.standard_normal(out.width) * 0.1, ins[0].scale, ins[0].zero_point, out.scale)
        elif node.op == "lstm":
            for d in ("forward.", "backward.") if a["bidirectional"] else ("",):
                width = a["project"] or a["cells"]
                x, xs = random_weights(rng, 4 * a["cells"], ins[0].width, bits, sparsity)
                h, hs = random_weights(rng, 4 * a["cells"], width, bits, sparsity)
                b = rng.standard_normal(4 * a["cells"]) * 0.5
                raw = unit_scale(a["cell_output_bits"]) if a["project"] else out.scale
                if a["variant"] == "acc32":
                    part = bind.lstm_acc32(x, h, np.maximum(xs * ins[0].scale, hs * out.scale), b, ins[0].zero_point, raw)
                else:
                    part = bind.lstm_sum16(x, xs, h, hs, b, ins[0].scale, ins[0].zero_point, out.scale)
                    part |= bind.hidden(raw)
                if a["project"]:
                    codes, scale = random_weights(rng, width, a["cells"], bits, sparsity)
                    part |= {f"project_{k}".replace("project_weight", "project"): v
                             for k, v in bind.linear(codes, scale, None, raw, 0, out.scale).items()}
                c |= {d + k: v for k, v in part.items()}
            c |= bind.lstm_tables(a["fraction"])
            states = tuple(evolve(s, scale=out.scale) if s.scale is None else s for s in states)
        elif node.op == "layer_norm":
            c = bind.layer_norm(rng.uniform(0.5, 1.5, out.width), rng.standard_normal(out.width) * 0.2, 1e-5, ins[0].scale, out.scale)
        elif node.op == "embedding":
            rows = graph.metadata["vocabulary"]
            low, high = -(1 << (out.bits - 1)), (1 << (out.bits - 1)) - 1
            c = dict(weight=rng.integers(low, high + 1, (rows, out.width)).astype(np.int8 if out.bits <= 8 else np.int16))
        elif node.op == "add":
            c = bind.add((ins[0].scale, ins[1].scale), out.scale)
        elif node.op == "multiply":
            c = bind.multiply((ins[0].scale, ins[1].scale), out.scale)
        elif node.op in ("tanh", "sigmoid"):
            c = bind.lookup(table_operator(node.op).table(), out.scale)
        nodes.append(evolve(node, constants=c, states=states))
    return verify(evolve(graph, nodes=tuple(nodes), values=values))


def vocabulary(model: ModelGraph) -> int:
    return next((k.rows for layer in model for k in layer.kernels if layer.kind == "embedding"), 0)


def random_graph(seed: int = 0, *, precision=None, bits: int = 8, sparsity: float = 0.0, **arguments) -> QGraph:
    """A bound RNN-T of ``build("rnnt", **arguments)``; ``precision`` as for `lower` (default: int8, joint inner values int16)."""
    model = build("rnnt", **arguments)

    def default(path: str) -> Precision:
        inner = path in ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
        return Precision(activations=16 if inner else 8)

    graph = lower(model, precision or default)
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=vocabulary(model)))
    return bind_randomly(graph, np.random.default_rng(seed), bits=bits, sparsity=sparsity)


def random_inputs(graph: QGraph, entry: str, rng: np.random.Generator, steps: int = 1, batch: int = 1) -> dict[str, np.ndarray]:
    """Inputs over the whole range of their formats (labels within the vocabulary)."""
    out = {}
    for name in graph.inputs[entry]:
        v = graph.values[name]
        low, high = (0, graph.metadata["vocabulary"] - 1) if v.bits == 32 else (-(1 << (v.bits - 1)), (1 << (v.bits - 1)) - 1)
        out[name] = rng.integers(low, high + 1, (steps * v.rate, batch, v.width))
    return out


def with_codebook(graph: QGraph, bits: int) -> QGraph:
    """The same graph with every multiplied weight moved to the nearest of 2^bits int8 values (quantiles of the kernel's own weights)."""
    nodes = []
    for node in graph.nodes:
        constants = dict(node.constants)
        for name, v in constants.items():
            if v.ndim == 2 and node.op in ("linear", "lstm"):
                at = (np.arange(1 << bits) + 0.5) / (1 << bits)
                levels = np.unique(np.round(np.quantile(v[:256].ravel(), at))).astype(np.int64)
                nearest = levels[np.abs(np.arange(-128, 128)[:, None] - levels[None]).argmin(1)].astype(np.int8)
                constants[name] = nearest[v.astype(np.int16) + 128]
        nodes.append(evolve(node, constants=constants))
    return verify(graph.with_nodes(tuple(nodes)))
