"""What accelerator-aware training buys: three deployments of one network on one machine, after the same number of
training steps.

    python -m benchmarks.bench_aat --float FILE --corpus DIR [--runs DIR] [--steps N] [--utterances N] [--policies a,b]

    aat    trained with the machine's integers in the forward pass; all of it runs on the machine
    (a)    weight-only QAT: only the weights are quantised in training (activations, cells, tables stay real); then the
    scales are found on
           the trained network, and all of it runs on the machine
    (b)    the network of (a), with sensitive operators left on the CPU in floating point:
           b-norm  layer norms and the joint's tanh: programs compiled with `place cpu`, transfers priced by the
                   compiler
           b-cell  gates, cells and hidden states of the LSTMs.  The language places whole layers, so this one has no
                   program: its price is that of aat and, for every LSTM step, wake-up, transfer and arithmetic as
                   `nnac.schedule.compile.host_call` counts them

Word error rates: training module in evaluation mode on the first utterances of `sent` and `voice`; differences with
paired bootstrap intervals.  For aat and (a) a sample is also run on the emulator, every integer compared.  Cycles:
predicted, for one frame of 60 ms with the labels and joint calls of that sample.  The paper's claims (up to 10 % of the
word error rate saved against (a), 5-7 % of latency against (b)) rest on a recogniser and an accelerator that are not
known to us: docs/methods.md §1.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen
from rich.console import Console
from rich.table import Table

from nnac.compare import compare
from nnac.compiler import bind, resolve, trained
from nnac.decode.recogniser import Recogniser, load_recogniser
from nnac.emulator.executor import Emulator
from nnac.ir import QGraph
from nnac.placement import CPU_OPERATIONS, cpu_seconds
from nnac.plan import Plan
from nnac.program import Program
from nnac.schedule.compile import Settings, compile_graph
from nnac.speech.corpus import Split, load_split
from nnac.speech.wer import WordErrors, difference_interval, word_errors
from nnac.target import Target
from nnac.train import loop
from nnac.train.evaluate import transcripts
from nnac.train.families.rnnt import Transducer
from nnac.train.module import attribute_path
from nnac.train.pace import Run
from nnac.train.policy import PolicyConfig, PolicyTask, Trained
from nnac.train.weight_only import WeightOnlyTask, quantised_weights

POLICIES = ("aat_int8", "aat_int4", "aat_cell_2", "aat_cell")
SPLITS = ("sent", "voice")
SENSITIVE = ("layer_norm", "tanh", "sigmoid")                # operators of b-norm


def train(task: PolicyTask, title: str) -> Trained:
    """Do the task unless it is done; read the result back."""
    if not Path(task.out).exists():
        loop.train(task, title, processes=1, run=Run(every=20))
    return trained(task.out)


# ----------------------------------------------------------------------------------------------------- what is measured

def on_cpu(module: Transducer, kinds: tuple[str, ...]) -> Transducer:
    """The module with these operators in floating point, their weights as the machine holds them."""
    made = copy.deepcopy(module).eval()
    with torch.no_grad():
        weights = quantised_weights(made)
        own = dict(made.named_parameters())
        for node in made.graph.nodes:
            if node.op in kinds:
                made.layer(node.path).quantised = False
                for name in (n for n in weights if n.startswith(".".join(attribute_path(node.path)) + ".")):
                    own[name].copy_(weights[name])
    return made


def errors(module: Any, splits: list[Split], recogniser: Recogniser) -> WordErrors:
    """Word errors of greedy decoding on all splits, as one set."""
    texts = [t for s in splits for t in transcripts(module, s, recogniser.normalisation, recogniser.tokens, size=8000)]
    return word_errors([t for s in splits for t in s.texts], texts)


def cells_on_cpu(graph: QGraph, target: Target) -> dict[str, int]:
    """Cycles that each entry's step pays more with b-cell: gates as int16 to the CPU, hidden states back, at every LSTM
    step."""
    out = {entry: 0 for entry in graph.inputs}
    for node in graph.nodes:
        if node.op != "lstm":
            continue
        cells, hidden = node.attributes["cells"], graph.values[node.output]
        moved = 4 * cells * 2 + cells * (1 if hidden.bits <= 8 else 2)
        seconds = cpu_seconds(target.cpu, moved, CPU_OPERATIONS * cells)
        out[node.entry] += hidden.rate * math.ceil(seconds * target.clock)
    return out


def per_frame(cycles: dict[str, int], steps: dict[str, int]) -> float:
    """Cycles of all entries for one encoder frame, with the joint calls and labels of ``steps``."""
    return sum(cycles[e] * steps[e] for e in cycles) / steps["encoder"]


def entry_cycles(program: Program) -> dict[str, int]:
    return {e.model_entry: e.cycles for n, e in program.entries.items() if n.endswith(".step")}


@frozen
class System:
    """One deployment under one policy."""

    errors: WordErrors
    cycles: float                              # a frame
    compared: int = 0
    different: int = 0


@frozen
class Row:
    """The systems of one policy, by name."""

    policy: str
    seconds: float
    systems: dict[str, System] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        aat = self.systems["aat"]
        out: dict[str, Any] = dict(policy=self.policy, seconds=round(self.seconds))
        for name, s in self.systems.items():
            low, high = difference_interval(aat.errors, s.errors)
            out[name] = dict(wer=round(s.errors.rate, 3), cycles_per_frame=round(s.cycles),
                             wer_minus_aat=[round(low, 3), round(high, 3)],
                             wer_saved_by_aat_percent=round(100 * (s.errors.errors - aat.errors.errors) / max(1,
                                 s.errors.errors), 2),
                             latency_saved_by_aat_percent=round(100 * (1 - aat.cycles / s.cycles), 2),
                             compared_integers=s.compared, different_integers=s.different)
        return out


def measure(plan: Plan, args: argparse.Namespace, recogniser: Recogniser, splits: list[Split]) -> Row:
    """Train and measure everything of one policy."""
    begun = time.process_time()
    config = PolicyConfig.of(plan, steps=args.steps, learning_rate=args.learning_rate, warmup=max(1, args.steps // 8),
                             batch_frames=args.batch_frames,
                             shards=1, calibration=64)
    name = f"{plan.name}-{args.steps}"
    aat = train(PolicyTask(plan, config, args.float, args.corpus, f"{args.runs}/{name}-aat.nnc"), f"{plan.name}, aat")
    only = train(WeightOnlyTask(plan, config, args.float, args.corpus, f"{args.runs}/{name}-weights.nnc"),
                 f"{plan.name}, weight-only")
    graphs = {"aat": bind(aat), "a": bind(only)}
    settings = Settings.of(plan)
    programs = {n: compile_graph(g, plan.target, settings) for n, g in graphs.items()}
    places = {n.path: "cpu" for n in graphs["a"].nodes if n.op in SENSITIVE}
    norms = compile_graph(graphs["a"], plan.target, evolve(settings, places={**settings.places, **places}))
    sample = [recogniser.normalisation.apply(f) for s in splits for f in s.features[:args.emulated]]
    compared = {n: compare(t.module, Emulator(programs[n]), t.front, sample, batch=8)
                for n, t in (("aat", aat), ("a", only))}
    steps = dict(compared["aat"].steps)
    cycles = {n: per_frame(entry_cycles(p), steps) for n, p in programs.items()}
    extra = cells_on_cpu(graphs["aat"], plan.target)
    systems = {n: System(errors(t.module, splits, recogniser), cycles[n], compared[n].compared, compared[n].different)
               for n, t in (("aat", aat), ("a", only))}
    systems["b-norm"] = System(errors(on_cpu(only.module, SENSITIVE), splits, recogniser),
                               per_frame(entry_cycles(norms), steps))
    systems["b-cell"] = System(errors(on_cpu(only.module, ("lstm",)), splits, recogniser), cycles["aat"] +
                               per_frame(extra, steps))
    return Row(plan.name, time.process_time() - begun, systems)


def show(row: Row, float_errors: WordErrors) -> None:
    table = Table(title=f"{row.policy}: float network {float_errors.rate:.2f} %")
    for column in ("system", "WER %", "minus aat, 95 %", "WER saved by aat", "cycles a frame", "latency saved by aat",
                   "different integers"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, s in row.to_json().items():
        if isinstance(s, dict):
            low, high = s["wer_minus_aat"]
            checked = f"{s['different_integers']:,} of {s['compared_integers']:,}" if s["compared_integers"] else ""
            table.add_row(name, f"{s['wer']:.2f}", f"{low:+.2f} … {high:+.2f}" if name != "aat" else "",
                          f"{s['wer_saved_by_aat_percent']:.1f} %" if name != "aat" else "",
                          f"{s['cycles_per_frame']:,}",
                          f"{s['latency_saved_by_aat_percent']:.1f} %" if name != "aat" else "", checked)
    Console(file=sys.stdout, width=130).print(table)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--float", default="runs/demo/float.nnc", metavar="FILE")
    p.add_argument("--corpus", default="runs/demo/corpus", metavar="DIR")
    p.add_argument("--runs", default="runs/aat", metavar="DIR",
                   help="trained modules; what is there is not trained again")
    p.add_argument("--policies", default=",".join(POLICIES))
    p.add_argument("--steps", type=int, default=150)
    p.add_argument("--learning-rate", type=float, default=3e-4)
    p.add_argument("--batch-frames", type=int, default=4000)
    p.add_argument("--utterances", type=int, default=400, help="of each held-out split")
    p.add_argument("--emulated", type=int, default=4, help="of each held-out split, on the emulator")
    args = p.parse_args()
    torch.set_num_threads(1)
    recogniser = load_recogniser(args.float)
    splits = [load_split(args.corpus, s).first(args.utterances) for s in SPLITS]
    reference = errors(recogniser.model.eval(), splits, recogniser)
    rows = []
    for name in args.policies.split(","):
        rows.append(measure(resolve("specs/comparison/aat.nnac", name), args, recogniser, splits))
        show(rows[-1], reference)
    print(json.dumps(dict(steps=args.steps, learning_rate=args.learning_rate, utterances=len(SPLITS) * args.utterances,
                          words=reference.words,
                          wer_float=round(reference.rate, 3), rows=[r.to_json() for r in rows])))
    return 1 if any(s.different for r in rows for s in r.systems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
