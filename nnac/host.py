"""What a pruned model takes on the host: time of its encoder by several engines, their integers compared.

In: a trained module and a split of the corpus.   Out: milliseconds of an encoder step, by engine and batch.
The utterances are real, the first of the split, all of one length.  Engines take turns, one thread each; the least
time of each counts, and it is the thread's own, which is wall time where nobody else uses the machine.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import asdict, field, frozen
from numpy.typing import NDArray

from nnac import arith, compiler
from nnac.checked import Wrong, checked, parse_json
from nnac.errors import UserError
from nnac.evaluate import Executor
from nnac.executors import Subject, executor
from nnac.files import TEXT_LIMIT, FileError, atomic, read
from nnac.ir import QGraph
from nnac.report.outcomes import Outcome
from nnac.speech.corpus import load_split

ENGINES = ("reference", "graphblas", "torch")
BATCHES = (1, 8, 64)
SPLIT, ENTRY = "voice", "encoder"
VERSION = 1


class HostError(UserError):
    """Times that cannot be measured or read; one line."""


@frozen
class Times:
    """Of one module.

    row, seed   the run of the comparison      module  digest of its file      wer  of the run, per cent
    zeros       share of the weights of its sparse kernels that are zero
    ms          batch -> engine -> milliseconds of an encoder step of the whole batch
    compared, different   integers of every layer's output, engines against the first
    """

    row: str
    seed: int
    module: str
    wer: float
    zeros: float
    steps: int
    ms: dict[str, dict[str, float]]
    compared: int
    different: int
    processor: str = ""
    notes: dict[str, Any] = field(factory=dict)


def measure(path: Path, corpus: Path, row: str, seed: int, wer: float, module: str, steps: int = 16,
            budget: float = 4.0) -> Times:
    """Times of the module at ``path``; ``budget`` seconds a batch, three turns of each engine at least."""
    trained = compiler.trained(path)
    subject = Subject(trained=trained)
    graph = subject.graph
    engines: dict[str, Executor] = {name: executor(name, subject) for name in ENGINES}
    ms: dict[str, dict[str, float]] = {}
    compared = different = 0
    for batch in BATCHES:
        inputs = features(graph, trained.front.normalisation, corpus, steps, batch)
        states = {n: e.initial_state(ENTRY, batch) for n, e in engines.items()}
        made = {n: e.run(ENTRY, inputs, states[n])[0] for n, e in engines.items()}
        for name in ENGINES[1:]:
            compared += sum(v.size for v in made[name].values())
            different += sum(int((v != made[ENGINES[0]][k]).sum()) for k, v in made[name].items())
        least = dict.fromkeys(ENGINES, np.inf)
        begun, turns = time.perf_counter(), 0
        while turns < 3 or time.perf_counter() - begun < budget:
            for name, e in engines.items():
                start = time.thread_time()
                e.run(ENTRY, inputs, states[name])
                least[name] = min(least[name], time.thread_time() - start)
            turns += 1
        ms[str(batch)] = {n: round(1e3 * t / steps, 4) for n, t in least.items()}
    return Times(row, seed, module, round(wer, 3), zeros(graph), steps, ms, compared, different, processor())


def features(graph: QGraph, normalisation: Any, corpus: Path, steps: int, batch: int) -> dict[str, NDArray]:
    """The encoder's input as its integers, [frames, batch, bins].  HostError: too few utterances that are long
    enough."""
    name, = graph.inputs[ENTRY]
    v = graph.values[name]
    split = load_split(corpus, SPLIT)
    long = [i for i in range(len(split)) if len(split.features[i]) >= steps * v.rate][:batch]
    if len(long) < batch:
        raise HostError(f"{corpus}: {len(long)} utterances of `{SPLIT}` have {steps * v.rate} frames, {batch} are "
                        f"needed")
    x = np.stack([normalisation.apply(split.features[i][:steps * v.rate]) for i in long], 1)
    assert v.scale is not None
    return {name: arith.quantise(x.astype(np.float32), v.scale, v.zero_point, v.bits).astype(np.int64)}


def zeros(graph: QGraph) -> float:
    """Of the weights of kernels at least a fifth of which is zero: what was pruned."""
    kernels = [w for n in graph.nodes for w in n.constants.values() if w.ndim == 2 and (w == 0).mean() > 0.2]
    return round(1 - sum(map(np.count_nonzero, kernels)) / max(1, sum(w.size for w in kernels)), 4)


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{name}{', AVX-512 VNNI' if 'avx512_vnni' in text else ''}"


# ---------------------------------------------------------------------------------------------------------------- files

def path_of(folder: Path, row: str, seed: int) -> Path:
    return folder / f"host-{row}-s{seed}.json"


def save(folder: Path, times: Times) -> None:
    with atomic(path_of(folder, times.row, times.seed), "w") as out:
        json.dump({"nnac_host": VERSION} | asdict(times), out, indent=1)
        out.write("\n")


def load(path: Path) -> Times:
    """HostError: it is no such file."""
    try:
        data = parse_json(read(path, TEXT_LIMIT))
        if not isinstance(data, dict) or data.pop("nnac_host", None) != VERSION:
            raise ValueError(f"not times of version {VERSION}")
        times = checked(Times, data)
        if set(times.ms) != {str(b) for b in BATCHES} or any(set(t) != set(ENGINES) or min(t.values()) <= 0
                                                             for t in times.ms.values()):
            raise ValueError("times of other batches or engines")
        return times
    except (FileError, Wrong, ValueError) as error:
        raise HostError(f"{path}: {error}") from None


def of_results(times: Sequence[Times], found: Mapping[str, Sequence[Outcome]]) -> list[Times]:
    """Those of the models that made these results: a row that was trained again since has another model, and its old
    times say nothing about it."""
    made = {(o.row, o.seed, round(o.rate, 3)) for outcomes in found.values() for o in outcomes}
    return [t for t in times if (t.row, t.seed, t.wer) in made]


def load_all(folder: Path) -> list[Times]:
    """All that are there, by row."""
    return [load(p) for p in sorted(folder.glob("host-*.json"))]


def markdown(found: list[Times], labels: Mapping[str, str]) -> list[str]:
    """The table of the report; nothing where nothing was measured.  labels: row -> what people call it."""
    if not found:
        return []
    named = sorted((labels.get(t.row, t.row), t) for t in found)
    head = [f"{e}, batch {b}" for b in BATCHES for e in ENGINES]
    lines = ["## Pruned models on the host", "",
             f"Milliseconds of an encoder step of the whole batch (one thread's own time, least of many turns) on "
             f"{' and '.join(dict.fromkeys(t.processor for t in found))}: the reference evaluates the graph of "
             f"integers, graphblas multiplies its sparse kernels by SuiteSparse where density and batch make that "
             f"faster, torch is the training module's exact kernels.  "
             f"{sum(t.compared for t in found):,} integers compared between them, {sum(t.different for t in found)} "
             f"different.  Made by `nnac sweep … --host`.", "",
             f"| | WER | zeros | {' | '.join(head)} |", "|" + "---|" * (3 + len(head))]
    for label, t in named:
        cells = [f"{t.ms[str(b)][e]:.3g}" for b in BATCHES for e in ENGINES]
        lines.append(f"| {label} | {t.wer:.2f} | {t.zeros:.0%} | {' | '.join(cells)} |")
    return [*lines, ""]


def one_thread() -> None:
    """HostError unless OpenMP was told so: libraries read it when they are loaded."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise HostError("one thread is measured: set OMP_NUM_THREADS=1")
