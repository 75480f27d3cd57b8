"""The Conformer transducer: cycles of a frame, equal integers, stepping through rings, a training step, compile time.

    python -m benchmarks.bench_conformer [--float FILE] [--corpus DIR] [--utterances N] [--quick]

The module is the float network under ``specs/conformer_int8.nnac``, calibrated and not trained further; without one it
is a network of random weights, and cycles are those of random weights.  Utterances are of the corpus (`voice`, then
`sent`); without one they are noise.  The last line is one JSON object:

    cycles_per_frame       of the encoder on `edge`, of a frame of 60 ms        over_roofline  of a chunk
    compared_integers      of every layer: training module against emulator; evaluate, whole, in pieces and step by step
    different_integers     of those          stepped_equals_whole  whether states and outputs of all three are equal
    train_step_ratio       exact over float, CPU time, one thread               compile_s  of the large size, wall
    sizes                  of random int8 weights: cycles a frame; over the roofline, which counts weights alone, and
                           over that of all bytes that the program reads
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import asdict, frozen
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nnac.compare import compare
from nnac.decode.front_end import FrontEnd, recognise
from nnac.decode.integer import Pace
from nnac.decode.recogniser import Recogniser, load_recogniser
from nnac.emulator.analysis import analyse
from nnac.emulator.executor import Emulator
from nnac.emulator.image import image
from nnac.evaluate import evaluate, initial_state
from nnac.ir import QGraph
from nnac.model import build
from nnac.model.conformer_torch import Conformer
from nnac.plan import Plan
from nnac.policy import load
from nnac.program import Program
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.roofline import roofline
from nnac.speech.corpus import load_split
from nnac.speech.features import FeatureSpec, Normalisation
from nnac.speech.tokens import LETTERS, Tokens
from nnac.speech.wer import word_errors
from nnac.train.batches import Examples
from nnac.train.module import GraphModule
from nnac.train.policy import build_module, calibrate, front_end
from nnac.train.processes import keep_freed_memory
from nnac.train.rnnt_loss import rnnt_loss
from tests.graphs import random_graph

POLICY = Path(__file__).parent.parent / "specs" / "conformer_int8.nnac"


def recogniser(path: Path | None, corpus: Path | None) -> Recogniser:
    """The float network, or one of random weights."""
    if path is not None and path.exists():
        return load_recogniser(path)
    torch.manual_seed(0)
    noise = np.random.default_rng(0).standard_normal((400, 40)).astype(np.float32)
    normal = Normalisation.of(noise) if corpus is None else load_split(corpus, "train").first(64).normalisation()
    tokens = Tokens((*LETTERS.pieces, *(f"~{i}" for i in range(64 - LETTERS.count))))
    return Recogniser(Conformer().eval(), FeatureSpec(), normal, tokens)


def utterances(corpus: Path | None, front: FrontEnd, count: int) -> tuple[list[NDArray], list[str]]:
    """Normalised features of so many utterances, and what is said: of `voice` and `sent` alike."""
    if corpus is None:
        rng = np.random.default_rng(1)
        noise = [rng.standard_normal((int(rng.integers(60, 260)), 40)).astype(np.float32) for _ in range(count)]
        return noise, []
    splits = [load_split(corpus, name).first(-(-count // 2)) for name in ("voice", "sent")]
    found = [(f, t) for split in splits for f, t in zip(split.features, split.texts, strict=True)][:count]
    return [front.normalisation.apply(f) for f, _ in found], [t for _, t in found]


def against_evaluate(graph: QGraph, features: Sequence[NDArray], rng: np.random.Generator) -> tuple[int, int, bool]:
    """(integers compared, different, whether all is equal) of the encoder: whole, step by step, and in pieces."""
    (name,), v = graph.inputs["encoder"], graph.values["features"]
    (out,) = graph.outputs["encoder"]
    compared = different = 0
    for x in features:
        steps = -(-len(x) // v.rate)
        ints = np.zeros((steps * v.rate, 1, v.width), np.int64)
        ints[:len(x), 0] = np.floor(x / v.scale + 0.5).clip(-128, 127)
        whole, end = evaluate(graph, "encoder", {name: ints})
        for cuts in (range(1, steps), sorted(rng.choice(np.arange(1, max(2, steps)), min(3, steps), replace=False))):
            state, made = initial_state(graph, 1), []
            for piece in np.split(ints, [int(c) * v.rate for c in cuts if c < steps]):
                y, state = evaluate(graph, "encoder", {name: piece}, state)
                made.append(y[out])
            pairs = [(np.concatenate(made), whole[out]), *((state[k], end[k]) for k in end)]
            compared += sum(b.size for _, b in pairs)
            different += sum(int((a != b).sum()) for a, b in pairs)
    return compared, different, different == 0


def training_ratio(repeat: int, frames: int = 300, batch: int = 16, labels: int = 20) -> tuple[float, float]:
    """CPU seconds of a training step, float and exact, in turn: the least of each."""
    torch.manual_seed(0)
    network = Conformer()
    network.encoder.drawn = False
    plan = resolved()
    module = module_of(plan, network)
    x, lengths = torch.randn(frames, batch, 40), torch.full((batch,), frames)
    targets = torch.randint(1, 64, (labels, batch))
    module.calibrate([(x, lengths, targets)])

    def step_of(model: torch.nn.Module) -> Callable[[], float]:
        optimiser = torch.optim.Adam(model.parameters(), 1e-4)

        def step() -> float:
            start = time.process_time()
            logits, n = model.train()(x, lengths, targets)
            loss = rnnt_loss(logits, targets.t(), n, torch.full((batch,), labels))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            return time.process_time() - start

        return step

    steps = step_of(network), step_of(module)
    found = [[step() for step in steps] for _ in range(repeat)]
    return min(f for f, _ in found), min(e for _, e in found)


def resolved() -> Plan:
    """The plan of the policy."""
    plan = load(str(POLICY)).plan
    assert plan is not None
    return plan


def module_of(plan: Plan, network: Conformer) -> GraphModule:
    """The training module of a float network under the plan."""
    from nnac.lower import lower_plan
    from nnac.train.families import module_of as family

    return family(plan.model.builder)(lower_plan(plan), network.state_dict(), plan)


def calibrated(plan: Plan, r: Recogniser, corpus: Path | None) -> Any:
    """The training module, its scales found."""
    module = build_module(plan, r)
    if corpus is not None:
        calibrate(module, Examples(load_split(corpus, "train"), r.tokens, r.normalisation), 64)
    else:
        module.calibrate([(torch.randn(240, 8, 40), torch.full((8,), 240), torch.randint(1, 64, (10, 8)))])
    return module.eval()


@frozen
class Size:
    """What one size costs on `edge`, random int8 weights."""

    cycles_per_frame: float
    over_roofline: float
    over_all_bytes: float
    compile_s: float
    compile_cpu_s: float


def sizes(console: Console, quick: bool) -> dict[str, Size]:
    """By name; the last is the largest."""
    found: dict[str, Size] = {}
    table = Table("size", "weights", "cycles a frame", "over roofline", "over all bytes read", "seconds to compile",
                  "of CPU", title="random int8 weights")
    for size in ("small",) if quick else ("small", "medium", "large"):
        graph, plan = random_graph(0, model="conformer", size=size), resolved()
        begun, cpu = time.perf_counter(), time.process_time()
        program = compile_graph(graph, plan.target, Settings())
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        program = Program.from_bytes(program.to_bytes())
        cycles, over = cost(graph, program)
        everything = analyse(image(program), "encoder.step").roofline.ratio
        weights = build("conformer", size=size).weights
        table.add_row(size, f"{weights:,}", f"{cycles:,.0f}", f"{over:.4f}", f"{everything:.4f}", f"{seconds:.1f}",
                      f"{cpu:.1f}")
        found[size] = Size(round(cycles, 1), round(over, 4), round(everything, 4), round(seconds, 2), round(cpu, 2))
    console.print(table)
    return found


def cost(graph: QGraph, program: Program) -> tuple[float, float]:
    """(cycles of a frame, of a chunk over its roofline) of the encoder."""
    entry = program.entries["encoder.step"]
    chunk = graph.values[graph.outputs["encoder"][0]].rate
    bound = roofline(graph, program.target, program.report["layers"], "encoder")
    return entry.cycles / chunk, entry.cycles / float(bound.cycles)


def main() -> int:
    """Print what was found, then the JSON line; 1 if an integer differed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--float", type=Path, metavar="FILE")
    parser.add_argument("--corpus", type=Path, metavar="DIR")
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few utterances, one size: to see that it runs")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()                                # as training does
    console = Console(width=120)
    count = 4 if arguments.quick else arguments.utterances
    r = recogniser(arguments.float, arguments.corpus)
    plan = resolved()
    module = calibrated(plan, r, arguments.corpus)
    graph = module.bind()
    program = Program.from_bytes(compile_graph(graph, plan.target, Settings.of(plan), plan=plan.to_json()).to_bytes())
    cycles, over = cost(graph, program)
    console.print(f"encoder on `{plan.target.name}`: {cycles:,.0f} cycles a frame, {over:.4f} of the roofline; program "
                  f"{sum(k['bytes'] for k in program.report['layers'].values()):,} bytes of weights")
    front = front_end(r)
    features, said = utterances(arguments.corpus, front, count)
    executor = Emulator(program)
    done = compare(module, executor, front, features)
    console.print(f"{len(features)} utterances, {sum(map(len, features)) / 100:.0f} s: training module and emulator, "
                  f"{done.compared:,} integers compared, {done.different} different"
                  f"{f' ({done.first})' if done.first else ''}; chunks of {Pace.of(executor).frames} frames")
    rates: dict[str, float] = {}
    if said:
        real = recognise(r.model, front.text, features, carry=torch.from_numpy)
        rates = {k: round(word_errors(said, texts).rate, 2) for k, texts in (("float", real), ("int8", done.texts))}
        console.print(f"word errors: float {rates['float']} %, int8 on the emulator, only calibrated {rates['int8']} % "
                      f"of {sum(len(t.split()) for t in said):,} words")
    compared, different, equal = against_evaluate(graph, features[: 4 if arguments.quick else 32],
                                                  np.random.default_rng(0))
    console.print(f"evaluate, whole against step by step and pieces: {compared:,} outputs and states, {different} "
                  "different")
    plain, exact = training_ratio(2 if arguments.quick else arguments.repeat)
    console.print(f"training step, CPU time: float {plain:.3f} s, exact {exact:.3f} s, ratio {exact / plain:.2f}")
    by_size = sizes(console, arguments.quick)
    largest = list(by_size.values())[-1]
    print(json.dumps(dict(
        cycles_per_frame=round(cycles, 1), over_roofline=round(over, 5), compared_integers=done.compared + compared,
        different_integers=done.different + different, stepped_equals_whole=equal,
        train_step_ratio=round(exact / plain, 3), compile_s=largest.compile_s,
        compile_cpu_s=largest.compile_cpu_s, sizes={k: asdict(v) for k, v in by_size.items()}, utterances=len(features),
        trained=bool(arguments.float and arguments.float.exists()), word_error_rates=rates,
        weight_bytes=sum(k["bytes"] for k in program.report["layers"].values()))))
    return int(done.different + different > 0)


if __name__ == "__main__":
    sys.exit(main())
