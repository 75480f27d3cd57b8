"""Sparse layers: the experiment of Kepner et al. 2017 with several libraries, integers, the machine's own streams, the
Graph Challenge.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_sparse [--quick] [--plot FILE.svg] [--parts
    cross,threads,memory,integers,rnnt,machine,challenge]

``max(W Y + b, 0)`` in FP32, one thread: dense (the faster of torch and NumPy), torch CSR, scipy CSR, and GraphBLAS as
the paper writes the layer, as LAGraph does and fused (`nnac.graphblas.layers`).  All forms take turns in one process,
least of many turns of the thread's CPU time; every result is compared with scipy's.  A second process that takes its
turns with them computes the dense layer held to AVX2.  The crossover is the density at which a form is as fast as
dense, interpolated.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse

from benchmarks.dense_held import Held, dense_forms, seconds_of
from nnac.decode.recogniser import load_recogniser
from nnac.evaluate import Executor
from nnac.executors.graphblas import GraphBlas
from nnac.executors.reference import Reference
from nnac.executors.torch import Torch
from nnac.graphblas import challenge
from nnac.graphblas.kernel import Kernel
from nnac.graphblas.layers import diagonal, fused, fused_vector, lagraph, paper
from nnac.graphblas.library import Matrix, library
from nnac.graphblas.weights import Weights
from nnac.ir import QGraph
from nnac.model.sparse_dnn import BIAS, DEGREE, digest, topology
from nnac.policy import loads
from nnac.schedule.compile import Settings, compile_graph
from nnac.shipped import network
from nnac.train.policy import build_module
from nnac.train.schedule import Compression
from tests.graphs import random_graph, random_inputs
from tests.schedules import EDGE, LARGE
from tests.test_schedule import matrix_vector

SIZES, BATCHES, INVERSE = (512, 2048, 8192, 32768), (64, 8, 1), (1, 2, 4, 8, 16, 32, 64, 128, 256)
MOST = {"paper": 6e6, "lagraph": 6e6}                    # weights beyond which a form is not worth waiting for
MOST_WEIGHTS = 35e6
MOST_HELD = 8192                                         # two processes with a dense matrix of more would need 9 GB
UNEVEN = (4, 8, 16, 32, 64)                              # inverse densities where rows of different lengths are tried
FORMS = ("fused", "paper", "lagraph", "torch csr", "scipy csr", "fused uneven")     # in the colours of the picture
PARTS = ("cross", "threads", "memory", "integers", "rnnt", "machine", "challenge")
HUGE, HUGE_INVERSE, HUGE_BYTES = 32768, 64, 12 << 30    # bytes that must be free for the largest size to be timed


def least(forms: dict[str, Callable[[], Any]], budget: float, held: Held | None = None,
          clock: Callable[[], float] = time.thread_time) -> dict[str, float]:
    """Seconds of each: the forms take turns until the budget (seconds in all) is spent, three turns at least; with the
    forms of ``held`` among them, under the names "held torch" and "held numpy"."""
    best: dict[str, float] = dict.fromkeys(forms, np.inf)
    for form in forms.values():
        form()
    begun, turns = time.perf_counter(), 0
    while turns < 3 or (time.perf_counter() - begun < budget and turns < 400):
        for name, form in forms.items():
            best[name] = min(best[name], seconds_of(form, best[name], clock))
        if held is not None:
            best |= {f"held {k}": min(best.get(f"held {k}", np.inf), v) for k, v in held.turn().items()}
        turns += 1
    return best


def fastest(seconds: dict[str, float], *beginnings: str) -> float:
    """The least of the forms whose names begin so; infinite where there is none."""
    return min((v for k, v in seconds.items() if k.startswith(beginnings)), default=np.inf)


def random_csr(m: int, inverse: int, rng: np.random.Generator) -> sparse.csr_array:
    """[m, m] FP32 with m / inverse weights a row, one in each of as many equal parts of it."""
    k = max(1, m // inverse)
    cols = (np.arange(k) * (m // k))[None] + rng.integers(0, m // k, (m, k))
    data = rng.standard_normal((m, k), dtype=np.float32) / np.float32(np.sqrt(k))
    return sparse.csr_array((data.ravel(), cols.ravel(), np.arange(0, m * k + 1, k)), (m, m))


def uneven_csr(m: int, inverse: int, rng: np.random.Generator) -> sparse.csr_array:
    """[m, m] FP32, each weight there with probability 1 / inverse: rows of different lengths."""
    count = rng.binomial(m, 1 / inverse, m)
    cols = np.concatenate([np.sort(rng.choice(m, k, replace=False)) for k in count])
    data = rng.standard_normal(len(cols), dtype=np.float32) / np.float32(np.sqrt(m / inverse))
    return sparse.csr_array((data, cols, np.concatenate([[0], np.cumsum(count)])), (m, m))


def forms_of(w: sparse.csr_array, y: NDArray, b: NDArray, dense: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Every form of one layer.  y [m, n], b [m]; ``dense``: a matrix of the same size, whose values do not matter to
    its speed."""
    m, n = y.shape
    g = Weights(w.indptr, w.indices, w.data, m)
    ty, tb = torch.from_numpy(y), torch.from_numpy(b)
    csr = torch.sparse_csr_tensor(torch.from_numpy(w.indptr), torch.from_numpy(w.indices), torch.from_numpy(w.data),
                                  (m, m))
    forms: dict[str, Callable[[], Any]] = {f"dense {k}": f for k, f in dense_forms(dense, ty, tb).items()}
    if n == 1:
        y1, by, bb, t1 = y[:, 0].copy(), Matrix.full(y.T), Matrix.full(b[None]), ty[:, 0].contiguous()
        return forms | {"fused": lambda: fused_vector(g, by, bb),
                        "torch csr": lambda: torch.mv(csr, t1).add_(tb).clamp_(min=0),
                        "scipy csr": lambda: np.maximum(w @ y1 + b, 0)}
    column, wide = b[:, None], np.repeat(b[:, None], n, 1)
    gy, gb, zero, diag = Matrix.full(y), Matrix.full(wide), Matrix.full(np.zeros((m, n), np.float32)), diagonal(b)
    tw, whole = torch.from_numpy(wide), Matrix.sparse(w.indptr, w.indices, w.data, m)
    return forms | {"fused": lambda: fused(g, gy, gb), "paper": lambda: paper(whole, gy, gb, zero),
                    "lagraph": lambda: lagraph(whole, gy, diag),
                    "torch csr": lambda: torch.addmm(tw, csr, ty).clamp_(min=0),
                    "scipy csr": lambda: np.maximum(w @ y + column, 0)}


def as_array(made: Any, shape: tuple[int, int]) -> NDArray:
    found = made.dense() if isinstance(made, Matrix) else made.numpy() if isinstance(made, torch.Tensor) else made
    return found.reshape(shape)


def cross(sizes: Iterable[int], batches: Sequence[int], budget: float, say: Console) -> list[dict[str, Any]]:
    """Seconds and bytes of every form, size, batch and density.  AssertionError: a form computes something else."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(1)
    with Held("AVX2") as held:
        for m in sizes:
            dense = torch.empty(m, m).normal_().mul_(m**-0.5)
            other = held if m <= MOST_HELD else None
            for inverse in INVERSE:
                if m // inverse < 4 or m * (m // inverse) > MOST_WEIGHTS:
                    continue
                w = random_csr(m, inverse, rng)
                uneven = uneven_csr(m, inverse, rng) if inverse in UNEVEN and m <= MOST_HELD else None
                for n in batches:
                    if other is not None:
                        other.layer(m, m, n)
                    y = np.abs(rng.standard_normal((m, n), dtype=np.float32))
                    b = -0.3 * np.abs(rng.standard_normal(m, dtype=np.float32))
                    forms = {k: f for k, f in forms_of(w, y, b, dense).items() if w.nnz <= MOST.get(k, np.inf)}
                    expected = np.maximum(w @ y + b[:, None], 0)
                    for name, form in forms.items():
                        if not name.startswith("dense"):
                            error = float(np.abs(as_array(form(), y.shape) - expected).max())
                            assert error < 1e-4, f"{name} at {m}, 1/{inverse}, batch {n}: off by {error}"
                    if uneven is not None:
                        forms["fused uneven"] = forms_of(uneven, y, b, dense)["fused"]
                    rows.append(dict(m=m, inverse=inverse, batch=n, seconds=least(forms, budget, other),
                                     dense_bytes=4 * m * m, bytes=held_bytes(w, n)))
                say.print(f"m = {m}, density 1/{inverse}: " + ", ".join(
                    f"batch {r['batch']}: {dense_s(r) / r['seconds']['fused']:.2f}" for r in rows[-len(batches):]),
                    highlight=False)
    return rows


def held_bytes(w: sparse.csr_array, vectors: int) -> int:
    """What the library holds of a matrix that meets so many vectors at a time."""
    weights = Weights(w.indptr, w.indices, w.data, w.shape[1])
    return sum(s.size_bytes for s in ([weights.turned] if vectors == 1 else weights.strips(vectors)))


def dense_s(row: dict[str, Any], instructions: str = "") -> float:
    """Seconds of the best dense product: of all that the processor has, or (``AVX2``) of the process held to it."""
    return fastest(row["seconds"], "held" if instructions else "dense")


def crossover(rows: list[dict[str, Any]], form: str, instructions: str = "") -> float | None:
    """The density at which a form takes as long as dense, by interpolation of logarithms; None: it never does here."""
    points = sorted((1 / r["inverse"], dense_s(r, instructions) / r["seconds"][form]) for r in rows
                    if form in r["seconds"])
    for (d0, r0), (d1, r1) in pairwise(points):
        if r0 >= 1 > r1:
            at = np.log(r0) / (np.log(r0) - np.log(r1))
            return float(np.exp(np.log(d0) + at * (np.log(d1) - np.log(d0))))
    return points[-1][0] if points and points[-1][1] >= 1 else None


def show_cross(rows: list[dict[str, Any]], say: Console) -> dict[str, Any]:
    """A table a size and batch; the figures."""
    out: dict[str, dict[str, Any]] = {k: {} for k in ("fused_over_dense", "crossover_density", "fused_over_dense_avx2",
                                                      "crossover_density_avx2", "fused_uneven_over_dense",
                                                      "fused_over_paper")}
    for m, n in dict.fromkeys((r["m"], r["batch"]) for r in rows):
        own = [r for r in rows if (r["m"], r["batch"]) == (m, n)]
        names = [k for k in dict.fromkeys(k for r in own for k in r["seconds"]) if not k.startswith(("dense", "held"))]
        has = np.isfinite(dense_s(own[0], "AVX2"))
        table = Table("form", *(f"1/{r['inverse']}" for r in own), "crossover",
                      title=f"m = {m:,}, batch {n}: best dense {1e3 * min(dense_s(r) for r in own):.3g} ms"
                      + (f", held to AVX2 {1e3 * min(dense_s(r, 'AVX2') for r in own):.3g} ms" if has else "")
                      + "; dense over each form (above 1: sparse wins)")
        for name, instructions in [(k, "") for k in names] + ([("fused", "AVX2")] if has else []):
            at = crossover(own, name, instructions)
            table.add_row(name + (", dense held to AVX2" if instructions else ""),
                          *(f"{dense_s(r, instructions) / r['seconds'][name]:.2f}" if name in r["seconds"] else ""
                            for r in own), "" if at is None else f"{at:.1%}")
        say.print(table)

        def over(form: str, instructions: str = "", own: list[dict[str, Any]] = own) -> dict[str, float]:
            return {f"1/{r['inverse']}": round(dense_s(r, instructions) / r["seconds"][form], 3) for r in own
                    if form in r["seconds"]}

        key = f"{m}/{n}"
        out["fused_over_dense"][key], out["crossover_density"][key] = over("fused"), crossover(own, "fused")
        if has:
            out["fused_over_dense_avx2"][key] = over("fused", "AVX2")
            out["crossover_density_avx2"][key] = crossover(own, "fused", "AVX2")
        if uneven := over("fused uneven"):
            out["fused_uneven_over_dense"][key] = uneven
        out["fused_over_paper"] |= {f"{key}/1/{r['inverse']}": round(r["seconds"]["paper"] / r["seconds"]["fused"], 2)
                                    for r in own if "paper" in r["seconds"]}
    return out


def threads(say: Console) -> dict[str, float]:
    """Wall time of the fused layer with one thread over that with two.  1: the second is of no use (or has no core)."""
    figures, rng, g = {}, np.random.default_rng(2), library()
    try:
        for m, inverse in ((2048, 16), (8192, 16)):
            w = random_csr(m, inverse, rng)
            weights = Weights(w.indptr, w.indices, w.data, m)
            y, b = (Matrix.full(rng.standard_normal((m, 64), dtype=np.float32)) for _ in range(2))

            def with_threads(count: int, weights: Weights = weights, y: Matrix = y, b: Matrix = b) -> None:
                g.threads(count)
                fused(weights, y, b)

            took = least({"1": partial(with_threads, 1), "2": partial(with_threads, 2)}, 4.0, clock=time.perf_counter)
            figures[f"{m}/64/1/{inverse}"] = round(took["1"] / took["2"], 2)
            say.print(f"{m:,} wide, 1/{inverse}, batch 64: {1e3 * took['1']:.2f} ms with one thread, "
                      f"{1e3 * took['2']:.2f} with two (wall time; load {os.getloadavg()[0]:.1f})", highlight=False)
    finally:
        g.threads(1)
    return figures


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Time against inverse density, as the paper's figures: a panel a size, batch 64."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "nnac"
    import matplotlib.pyplot as plt

    own = [r for r in rows if r["batch"] == max(x["batch"] for x in rows)]
    sizes = list(dict.fromkeys(r["m"] for r in own))
    figure, panels = plt.subplots(1, len(sizes), figsize=(4 * len(sizes), 3.6), squeeze=False, layout="constrained")
    for m, panel in zip(sizes, panels[0], strict=True):
        here = [r for r in own if r["m"] == m]
        panel.plot([r["inverse"] for r in here], [1e3 * dense_s(r) for r in here], "k--", label="dense BLAS")
        if np.isfinite(dense_s(here[0], "AVX2")):
            panel.plot([r["inverse"] for r in here], [1e3 * dense_s(r, "AVX2") for r in here], "k:",
                       label="dense BLAS held to AVX2")
        for i, name in enumerate(FORMS):                   # not every form is in every panel
            with_it = [r for r in here if name in r["seconds"]]
            panel.plot([r["inverse"] for r in with_it], [1e3 * r["seconds"][name] for r in with_it], marker=".",
                       label=name, color=f"C{i}")
        panel.set(xscale="log", yscale="log", xlabel="inverse density", ylabel="ms",
                  title=f"m = {m:,}, batch {own[0]['batch']}")
    panels[0][0].legend(fontsize="small")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def memory(say: Console) -> float:
    """Bytes of a dense 32,768 x 32,768 over those of GraphBLAS at 1/64."""
    w = random_csr(HUGE, HUGE_INVERSE, np.random.default_rng(0))
    held = held_bytes(w, max(BATCHES))
    say.print(f"{HUGE:,} x {HUGE:,} at 1/{HUGE_INVERSE}: dense {4 * HUGE**2:,} bytes, GraphBLAS {held:,}",
              highlight=False)
    return 4 * HUGE**2 / held


def integers(size: str, say: Console) -> dict[str, Any]:
    """An encoder's integers by GraphBLAS against the reference's, and the time of both (one thread)."""
    compared = different = 0
    table = Table("zeros", "batch", "integers", "different", "reference ms", "sparse ms", "auto ms",
                  title=f"encoder of rnnt({size}), 8 steps")
    for zeros in (0.5, 0.75, 0.9, 0.99):
        graph = random_graph(0, size=size, sparsity=zeros)
        engines: dict[str, Executor] = {"reference": Reference(graph), "graphblas": GraphBlas.of(graph, "graphblas"),
                                        "auto": GraphBlas.of(graph)}
        for batch in (1, 8, 64):
            inputs = random_inputs(graph, "encoder", np.random.default_rng(1), 8, batch)
            seen: dict[str, dict[str, NDArray]] = {name: {} for name in engines}
            for name, e in engines.items():
                e.run("encoder", inputs, e.initial_state("encoder", batch), seen[name].__setitem__)
            own = sum(v.size for v in seen["reference"].values())
            wrong = sum(int((seen[n][k] != v).sum()) for n in ("graphblas", "auto")
                        for k, v in seen["reference"].items())
            took = least({n: partial(e.run, "encoder", inputs, e.initial_state("encoder", batch))
                          for n, e in engines.items()}, 0.3)
            table.add_row(f"{zeros:.0%}", str(batch), f"{2 * own:,}", str(wrong),
                          *(f"{1e3 * took[n]:.1f}" for n in engines))
            compared, different = compared + 2 * own, different + wrong
    say.print(table)
    return dict(compared_integers=compared, different_integers=different)


def kernels(say: Console) -> dict[str, float]:
    """One kernel of 2,560 x 640, int8: GraphBLAS, from int64 to int64, over the best dense FP32 product alone, over
    that held to AVX2, and over nnac's own dense integers."""
    rng, figures = np.random.default_rng(0), dict[str, float]()
    table = Table("zeros", "batch", "dense FP32 us", "held to AVX2 us", "dense integers us", "GraphBLAS us",
                  "over FP32", "over AVX2", "over integers", title="2,560 x 640")
    with Held("AVX2") as held:
        for zeros in (0.5, 0.75, 0.9, 0.95, 0.99):
            w = rng.integers(-127, 128, (2560, 640)).astype(np.int8)
            w[rng.random(w.shape) < zeros] = 0
            sparse_one, dense_one, real = Kernel(w, "graphblas"), Kernel(w, "dense"), torch.from_numpy(w).float()
            for batch in (1, 8, 64):
                x = rng.integers(-128, 128, (batch, 640))
                found = sparse_one.product(x)
                assert (found == x @ w.astype(np.int64).T).all() and (dense_one.product(x) == found).all()
                tx = torch.from_numpy(x).float()
                forms = {f"dense {k}": f for k, f in dense_forms(real, tx.T.contiguous(), torch.zeros(2560)).items()}
                held.layer(2560, 640, batch)
                took = least(forms | {"dense mm": partial(torch.mm, tx, real.T),
                                      "integers": partial(dense_one.product, x),
                                      "sparse": partial(sparse_one.product, x)}, 0.3, held)
                others = dict(real=fastest(took, "dense"), avx2=fastest(took, "held"), integers=took["integers"])
                every = (*others.values(), took["sparse"])
                table.add_row(f"{zeros:.0%}", str(batch), *(f"{1e6 * t:.0f}" for t in every),
                              *(f"{t / took['sparse']:.2f}" for t in others.values()))
                figures |= {f"{zeros:.0%}/{batch}/{k}": round(t / took["sparse"], 3) for k, t in others.items()}
    say.print(table)
    return figures


SPARSE_POLICY = """
import "targets/edge.nnac"
policy sparse {{
  model rnnt(size="small")
  target edge
  layers ** {{ weights int8 per_channel; activations int8 minmax }}
  layers joint.{{encoder, prediction, combine, output}} {{ activations int16 }}
  layers **.lstm[*] {{ sparsity {how} }}
  training {{ steps 1k steps }}
}}
"""


def rnnt(say: Console, quick: bool) -> dict[str, Any]:
    """The float RNN-T that comes with nnac, its LSTMs pruned at once: wall time of an encoder's 32 steps, and the
    integers compared.

    Scales come from random features: time does not depend on them, and neither does equality.
    """
    recogniser = load_recogniser(network("demo"))
    rows: list[dict[str, Any]] = []
    compared = different = 0
    table = Table("zeros", "by", "batch", "reference ms", "GraphBLAS ms", "auto ms", "torch ms", "different",
                  title="encoder of the shipped RNN-T, 32 steps")
    for zeros in (0.5, 0.9) if quick else (0.5, 0.75, 0.9):
        for method in ("csp", "magnitude"):
            plan = loads(SPARSE_POLICY.format(how=f"{method}({100 * zeros:g}%, from=0 steps, to=1 steps)")).plan
            module = build_module(plan, recogniser)
            schedule = Compression(module, steps=1000)
            for step in (1, 2):
                schedule.on_step(step)
            x = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 4,
                recogniser.features.bins)).astype(np.float32))
            module.calibrate([(x, torch.full((4,), 60), torch.zeros(5, 4, dtype=torch.long))])
            graph = module.eval().bind()
            engines: dict[str, Executor] = {"reference": Reference(graph),
                                            "graphblas": GraphBlas.of(graph, "graphblas"),
                                            "auto": GraphBlas.of(graph), "torch": Torch(module)}
            for batch in (1, 8, 64):
                inputs = random_inputs(graph, "encoder", np.random.default_rng(1), 32, batch)
                runs = {n: partial(e.run, "encoder", inputs, e.initial_state("encoder", batch))
                        for n, e in engines.items()}
                made = {n: run()[0] for n, run in runs.items()}
                own = sum(v.size for v in made["reference"].values())
                wrong = sum(int((made[n][k] != v).sum()) for n in list(runs)[1:] for k, v in made["reference"].items())
                took = least(runs, 0.3 if quick else 1.0)
                compared, different = compared + 3 * own, different + wrong
                table.add_row(f"{zeros:.0%}", method, str(batch), *(f"{1e3 * t:.1f}" for t in took.values()),
                              str(wrong))
                rows.append(dict(zeros=zeros, method=method, batch=batch,
                                 **{f"{n}_ms": round(1e3 * t, 2) for n, t in took.items()}))
    say.print(table)
    return dict(rnnt=rows, rnnt_compared=compared, rnnt_different=different)


def machine(say: Console, quick: bool) -> dict[str, Any]:
    """Cycles of 1 x 1024 x 4096 on the accelerator: the raw stream over every codec, zeros anywhere and in whole
    words."""
    graph: QGraph = matrix_vector(4096, 1024)
    speedups: dict[str, dict[str, float]] = {}
    worse = 0.0
    inverses = (1, 4, 16, 64) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
    for target in (EDGE, LARGE):
        codecs = ("raw", "zero_run", "entropy", "block_bitmap[64x1]+raw", f"block_bitmap[{target.lanes}x1]+raw",
                  "block_bitmap+entropy", "auto")
        for kind in ("anywhere", "words"):
            table = Table("codec", *(f"1/{i}" for i in inverses),
                          title=f"{target.name}, zeros {kind}: raw cycles over codec's")
            found: dict[str, list[float]] = {c: [] for c in codecs}
            for inverse in inverses:
                pruned, raw = with_zeros(graph, inverse, kind), 0
                cycles: dict[str, int] = {}
                for codec in dict.fromkeys(codecs):
                    settings = Settings(codecs={"y.weight": codec}, pins={"y.weight": "never"})
                    cycles[codec] = compile_graph(pruned, target, settings).entries["encoder.step"].cycles
                raw = cycles["raw"]
                for codec in found:
                    found[codec].append(raw / cycles[codec])
                worse = max(worse, cycles["auto"] / min(cycles.values()) - 1)
            for codec, values in found.items():
                table.add_row(codec, *(f"{v:.2f}" for v in values))
            say.print(table)
            speedups[f"{target.name}/{kind}"] = {f"1/{i}": round(v, 3)
                                                 for i, v in zip(inverses, found["auto"], strict=True)}
    return dict(nna_speedup=speedups, auto_codec_behind_best=round(worse, 4))


def with_zeros(graph: QGraph, inverse: int, kind: str) -> QGraph:
    """The same product with a share of its weights kept: anywhere, or in words of 64 rows."""
    rng, nodes = np.random.default_rng(inverse), []
    for node in graph.nodes:
        w = node.constants["weight"].copy()
        keep = rng.random(w.shape) < 1 / inverse if kind == "anywhere" else np.repeat(rng.random((len(w) // 64,
            w.shape[1])) < 1 / inverse, 64, 0)
        w[~keep] = 0
        nodes.append(evolve(node, constants=dict(node.constants) | {"weight": w}))
    return graph.with_nodes(tuple(nodes))


def graph_challenge(images: int, say: Console) -> dict[str, Any]:
    """The 1,024-neuron network of 120 layers: its layers against the official digests, and its rate."""
    official = (Path(__file__).parent.parent / "tests" / "challenge_layers_1024.txt").read_text().split()
    layers = list(topology(1024, 120))
    equal = sum(digest(layer) == known for layer, known in zip(layers, official, strict=True))
    network = [challenge.matrix(layer) for layer in layers]
    inputs = challenge.digits(1024, images)
    done = min((challenge.infer(inputs, network, BIAS[1024]) for _ in range(3)), key=lambda p: p.seconds)
    edges = len(inputs) * 120 * 1024 * DEGREE
    say.print(f"challenge, 1,024 x 120: {equal} of 120 layers are the official ones; {len(inputs):,} digits in "
              f"{done.seconds:.2f} s: "
              f"{edges / done.seconds:.3g} edges/s as it counts, {done.touched / done.seconds:.3g} really touched",
              highlight=False)
    return dict(challenge_layers_equal=equal, challenge_edges_per_s=edges / done.seconds,
                challenge_edges_touched_per_s=done.touched / done.seconds)


def free_bytes() -> int:
    """Memory that a process could take now; 0 where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("MemAvailable")), 0)


def processor() -> str:
    """The processor's name, and whether it has AVX-512 VNNI."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")),
                platform.processor())
    return f"{name}, {'AVX-512 VNNI' if 'avx512_vnni' in text else 'no VNNI'}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, short measurements")
    parser.add_argument("--plot", metavar="FILE.svg", help="time against inverse density")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sizes", default=None, metavar="M,M",
                        help=f"{','.join(map(str, SIZES))}; the last by itself only where 12 GiB are free")
    args = parser.parse_args(argv)
    parts = args.parts.split(",")
    # libraries read it when they are loaded: now is too late
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("one thread is measured: set OMP_NUM_THREADS=1, as `make bench-sparse` does")
    warnings.filterwarnings("ignore", message=".*[Ss]parse.*", module=__name__)      # torch says that its CSR is new
    torch.set_num_threads(1)
    say = Console(file=sys.stdout, width=150)
    sizes = tuple(map(int, args.sizes.split(","))) if args.sizes else SIZES[:1] if args.quick else SIZES
    if not args.sizes and HUGE in sizes and free_bytes() < HUGE_BYTES:
        say.print(f"{HUGE:,} is left out: {free_bytes() / 2**30:.1f} GiB of memory are free, 12 are needed",
                  highlight=False)
        sizes = tuple(m for m in sizes if m != HUGE)
    out: dict[str, Any] = dict(processor=processor(), graphblas=library().version, torch=torch.__version__)
    say.print(f"{out['processor']}; SuiteSparse {out['graphblas']}, torch {out['torch']}; one thread", highlight=False)
    if "cross" in parts:
        rows = cross(sizes, BATCHES, 0.15 if args.quick else 1.0, say)
        out |= show_cross(rows, say)
        if args.plot:
            plot(rows, args.plot)
    if "threads" in parts:
        out["two_threads_over_one"] = threads(say)
    if "memory" in parts:
        out["memory_ratio"] = round(memory(say), 2)
    if "integers" in parts:
        out |= integers("tiny" if args.quick else "small", say)
        out["kernel_over_dense"] = kernels(say)
    if "rnnt" in parts:
        out |= rnnt(say, args.quick)
    if "machine" in parts:
        out |= machine(say, args.quick)
    if "challenge" in parts:
        out |= graph_challenge(500 if args.quick else 5000, say)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
