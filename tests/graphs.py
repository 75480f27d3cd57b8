"""Bound graphs with random weights, for tests and benchmarks: real shapes, real formats, no training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import evolve, frozen

from nnac import arith, bind
from nnac.formats import Precision, unit_scale
from nnac.ir import Node, QGraph, Value
from nnac.lower import lower
from nnac.model import ModelGraph, build
from nnac.ops import operator
from nnac.ops._recurrent import DIRECTIONS
from nnac.ops._steps import NORM, TABLES, steps_of, table_name
from nnac.ops._table import table_operator
from nnac.ops.recurrence import sizes
from nnac.verify import verify


def random_weights(rng: np.random.Generator, rows: int, cols: int, bits: int = 8,
                   sparsity: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian weights quantised per row: (codes, scales [rows])."""
    w = rng.standard_normal((rows, cols)) / np.sqrt(cols)
    w[rng.random((rows, cols)) < sparsity] = 0
    scale = np.maximum(np.abs(w).max(1), 1e-3) / ((1 << (bits - 1)) - 1)
    return np.floor(w / scale[:, None] + 0.5).astype(np.int64), scale


@frozen(eq=False)
class Random:
    """A node to be bound: formats of its inputs and of its output, and what random weights are to be like."""

    node: Node
    ins: list[Value]
    out: Value
    rng: np.random.Generator
    bits: int
    sparsity: float
    vocabulary: int

    def weights(self, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
        return random_weights(self.rng, rows, cols, self.bits, self.sparsity)

    def bias(self, rows: int) -> np.ndarray:
        return self.rng.standard_normal(rows) * 0.5


def random_linear(r: Random) -> dict[str, np.ndarray]:
    codes, scale = r.weights(r.out.width, r.ins[0].width)
    return bind.linear(codes, scale, r.rng.standard_normal(r.out.width) * 0.1, r.ins[0].scale, r.ins[0].zero_point,
                       r.out.scale)


def random_lstm(r: Random) -> dict[str, np.ndarray]:
    a, c, x_in = r.node.attributes, {}, r.ins[0]
    for d in ("forward.", "backward.") if a["bidirectional"] else ("",):
        width = a["project"] or a["cells"]
        x, xs = r.weights(4 * a["cells"], x_in.width)
        h, hs = r.weights(4 * a["cells"], width)
        b = r.bias(4 * a["cells"])
        raw = unit_scale(a["cell_output_bits"]) if a["project"] else r.out.scale
        if a["variant"] == "acc32":
            part = bind.lstm_acc32(x, h, np.maximum(xs * x_in.scale, hs * r.out.scale), b, x_in.zero_point, raw)
        else:
            part = bind.lstm_sum16(x, xs, h, hs, b, x_in.scale, x_in.zero_point, r.out.scale)
            part |= bind.hidden(raw)
        if a["project"]:
            codes, scale = r.weights(width, a["cells"])
            part |= {f"project_{k}".replace("project_weight", "project"): v
                     for k, v in bind.linear(codes, scale, None, raw, 0, r.out.scale).items()}
        c |= {d + k: v for k, v in part.items()}
    return c | bind.lstm_tables(a["fraction"])


def random_products(r: Random, gates: int, *, recurrent_bias: bool = False) -> dict[str, np.ndarray]:
    """Two products, each requantised by itself."""
    rows, x_in = gates * r.node.attributes["cells"], r.ins[0]
    (x, xs), (h, hs) = r.weights(rows, x_in.width), r.weights(rows, r.node.attributes["cells"])
    scales = bind.separate_scales((rows, rows), xs, hs, r.bias(rows), r.bias(rows) if recurrent_bias else None,
                                  x_in.scale, x_in.zero_point, r.out.scale, x.sum(1))
    return scales | dict(input=bind.storage(x), recurrent=bind.storage(h))


def random_gru(r: Random) -> dict[str, np.ndarray]:
    tables = dict(sigmoid=arith.sigmoid_table().entries, tanh=arith.tanh_table().entries)
    products = {d + k: v for d in DIRECTIONS[r.node.attributes["bidirectional"]]
                for k, v in random_products(r, 3, recurrent_bias=True).items()}
    return products | bind.blend(r.out.scale) | tables


def random_coupled(r: Random, gates: int = 3) -> dict[str, np.ndarray]:
    return random_products(r, gates) | bind.hidden(r.out.scale) | bind.lstm_tables(r.node.attributes["fraction"])


def random_normed(r: Random) -> dict[str, np.ndarray]:
    shape = 4, r.node.attributes["cells"]
    return random_coupled(r, 4) | bind.gate_norm(r.rng.uniform(0.5, 1.5, shape), r.rng.standard_normal(shape) * 0.2,
                                                 1e-5)


def normed_steps(cells: int) -> str:
    """A cell with layer norm over all gates, and of what is kept; its last sum has a format that data choose."""
    parts = "; ".join(f"part 4 {k * cells} {(k + 1) * cells}; {'tanh' if k == 2 else 'sigmoid'} {5 + 2 * k}"
                      for k in range(4))
    return f"sum 0 1; norm 3 1e-05; {parts}; mul 8 2; mul 6 10; sum 13 14; norm 15 1e-05; tanh 16; mul 12 17; " \
        "hidden 18; keep 16"


def random_recurrence(r: Random) -> dict[str, np.ndarray]:
    a = r.node.attributes
    steps, fractions = steps_of(a["steps"]), tuple(map(int, a["fractions"].split()))
    c = random_products(r, 4, recurrent_bias=True)
    last = bind.scale(2.0 ** -fractions[steps.hidden], 1.0, r.out.scale)
    c |= dict(hidden_multiplier=last["multiplier"], hidden_shift=last["shift"])
    for v, s in steps.numbered():
        if s.op in TABLES:
            make = arith.tanh_table if s.op == "tanh" else arith.sigmoid_table
            c[table_name(s, fractions)] = make(fractions[s.of[0]]).entries
        if s.op == "norm":
            n = sizes(a)[v]
            norm = bind.layer_norm(r.rng.uniform(0.5, 1.5, n), r.rng.standard_normal(n) * 0.2, s.numbers[0],
                                   2.0 ** -fractions[s.of[0]], 2.0 ** -fractions[v])
            c |= {f"norm{steps.norms[v]}_{k}": norm[k] for k in NORM} | dict(rsqrt=norm["rsqrt"])
    return c


def random_layer_norm(r: Random) -> dict[str, np.ndarray]:
    return bind.layer_norm(r.rng.uniform(0.5, 1.5, r.out.width), r.rng.standard_normal(r.out.width) * 0.2, 1e-5,
                           r.ins[0].scale, r.out.scale)


def random_rms_norm(r: Random) -> dict[str, np.ndarray]:
    return bind.rms_norm(r.rng.uniform(0.5, 1.5, r.out.width), 1e-5, r.ins[0].scale, r.out.scale)


def random_embedding(r: Random) -> dict[str, np.ndarray]:
    low, high = -(1 << (r.out.bits - 1)), (1 << (r.out.bits - 1)) - 1
    return dict(weight=r.rng.integers(low, high + 1, (r.vocabulary, r.out.width)).astype(np.int8 if r.out.bits <= 8
        else np.int16))


def random_table(r: Random) -> dict[str, np.ndarray]:
    return bind.lookup(table_operator(r.node.op).table(), r.out.scale)


def random_scores(r: Random) -> dict[str, np.ndarray]:
    a = r.node.attributes
    return bind.scores(r.rng.standard_normal((a["heads"], a["positions"])), (r.ins[0].scale, r.ins[1].scale), a["head"],
                       a["slots"] * a["chunk"], a["chunk"], a["ahead"])


def random_depthwise(r: Random) -> dict[str, np.ndarray]:
    codes, scale = r.weights(r.out.width, r.node.attributes["taps"])
    return bind.depthwise(codes, scale, r.bias(r.out.width), r.ins[0].scale, r.out.scale)


RANDOM: dict[str, Callable[[Random], dict[str, np.ndarray]]] = dict(
    stack=lambda r: {}, linear=random_linear, linear_relu=random_linear, grouped=random_linear,
    window=lambda r: bind.scale(r.ins[0].scale, 1.0, r.out.scale), lstm=random_lstm, gru=random_gru,
    lstm_coupled=random_coupled, lstm_normed=random_normed, recurrence=random_recurrence,
    layer_norm=random_layer_norm, rms_norm=random_rms_norm, embedding=random_embedding, tanh=random_table,
    sigmoid=random_table,
    add=lambda r: bind.add((r.ins[0].scale, r.ins[1].scale), r.out.scale, r.node.attributes["factor"]),
    scale=lambda r: bind.scale(r.ins[0].scale, r.node.attributes["factor"], r.out.scale),
    mean=lambda r: bind.mean(r.node.attributes["length"], r.ins[0].scale, r.out.scale),
    multiply=lambda r: bind.multiply((r.ins[0].scale, r.ins[1].scale), r.out.scale),
    log_softmax=lambda r: bind.log_softmax(r.ins[0].scale), scores=random_scores, depthwise=random_depthwise,
    softmax=lambda r: bind.softmax(r.ins[0].scale, r.out.scale),
    weighted_sum=lambda r: bind.multiply((r.ins[0].scale, r.ins[1].scale), r.out.scale),
    swish=lambda r: bind.gate(r.out.scale), hard_sigmoid=random_table, hardtanh=random_table,
    gelu=lambda r: bind.gate(r.out.scale, arith.normal_table(r.node.attributes["approximate"])),
    hard_swish=lambda r: bind.gate(r.out.scale, arith.hard_sigmoid_table()),
    relu=lambda r: bind.relu(r.ins[0].scale, r.node.attributes["slope"], r.out.scale),
    glu=lambda r: bind.gate(r.out.scale))


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
        if "fractions" in node.attributes:             # those that data choose
            chosen = node.attributes["fractions"].split()
            node = evolve(node, attributes=evolve(node.attributes, fractions=" ".join(
                "11" if f == "0" else f for f in chosen)))
        if out.scale is None:
            out = values[node.output] = evolve(out, scale=ins[0].scale if operator(node.op).view
                                               else unit_scale(out.bits, 4.0))
        constants = RANDOM[node.op](Random(node, ins, out, rng, bits, sparsity, graph.metadata.get("vocabulary", 0)))
        states = tuple(evolve(s, scale=out.scale) if s.scale is None else s for s in node.states)
        nodes.append(evolve(node, constants=constants, states=states))
    return verify(evolve(graph, nodes=tuple(nodes), values=values))


def vocabulary(model: ModelGraph) -> int:
    return next((k.rows for layer in model for k in layer.kernels if layer.kind == "embedding"), 0)


def random_graph(seed: int = 0, *, precision=None, bits: int = 8, sparsity: float = 0.0, model: str = "rnnt",
                 **arguments) -> QGraph:
    """A bound RNN-T (or another ``model``) of ``build("rnnt", **arguments)``; ``precision`` as for `lower` (default:
    int8, joint inner values int16)."""
    made = build(model, **arguments)

    def default(path: str) -> Precision:
        inner = path in ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
        return Precision(activations=16 if inner else 8)

    graph = lower(made, precision or default)
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=vocabulary(made)))
    return bind_randomly(graph, np.random.default_rng(seed), bits=bits, sparsity=sparsity)


def random_inputs(graph: QGraph, entry: str, rng: np.random.Generator, steps: int = 1, batch: int = 1) -> dict[str,
        np.ndarray]:
    """Inputs over the whole range of their formats (labels within the vocabulary)."""
    out = {}
    for name in graph.inputs[entry]:
        v = graph.values[name]
        low, high = (0, graph.metadata["vocabulary"] - 1) if v.bits == 32 else (-(1 << (v.bits - 1)),
                                                                                (1 << (v.bits - 1)) - 1)
        out[name] = rng.integers(low, high + 1, (steps * graph.rate(entry, name), batch, v.width))
    return out


def with_codebook(graph: QGraph, bits: int) -> QGraph:
    """The same graph with every multiplied weight moved to the nearest of 2^bits int8 values (quantiles of the kernel's
    own weights)."""
    nodes = []
    for node in graph.nodes:
        constants = dict(node.constants)
        for name, v in constants.items():
            if v.ndim == 2 and v.dtype == np.int8 and not operator(node.op).by_index:
                at = (np.arange(1 << bits) + 0.5) / (1 << bits)
                levels = np.unique(np.round(np.quantile(v[:256].ravel(), at))).astype(np.int64)
                nearest = levels[np.abs(np.arange(-128, 128)[:, None] - levels[None]).argmin(1)].astype(np.int8)
                constants[name] = nearest[v.astype(np.int16) + 128]
        nodes.append(evolve(node, constants=constants))
    return verify(graph.with_nodes(tuple(nodes)))
