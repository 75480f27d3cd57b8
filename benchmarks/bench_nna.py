"""The accelerator side in one run: schedules against the roofline, compile time, emulator speed, frame batching, and
the peers.

    python -m benchmarks.bench_nna [--quick] [--bounds] [--only TEXT] [--json FILE]

Weights are random (Gaussian, quantised per row; ``cb4`` moved to 16 int8 values): bytes and cycles depend on shapes and
on the spread of the values, not on what a model has learnt.  The roofline is computed from shapes and encoded bytes
alone (`nnac.schedule.roofline`). Peers run if NNAC_VELA_PYTHON and NNAC_SCALESIM_PYTHON name interpreters that have
`ethos-u-vela` 5.2.0 and `scalesim` 3.0.0; else their columns say so.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.bench_estimate import heard, module
from nnac import isa
from nnac.emulator.machine import Machine
from nnac.emulator.timing import simulate
from nnac.ir import QGraph
from nnac.language.check import check_file
from nnac.policy import loads
from nnac.program import INIT, Program
from nnac.schedule import bounds
from nnac.schedule.bounds import Bound
from nnac.schedule.compile import CompileError, Settings, compile_graph
from nnac.schedule.passes import split
from nnac.schedule.proof import decoded, prove_program
from nnac.schedule.roofline import roofline
from tests.graphs import random_graph, random_inputs, with_codebook
from tests.schedules import EDGE, LARGE, TINY
from tests.test_schedule import matrix_vector

HERE = Path(__file__).parent
RAPIDS = tuple(loads(f'import "targets/{name}.nnac"\npolicy p {{\n  model rnnt(size="tiny")\n  target {name}\n'
                     "  layers ** { weights int8 }\n}\n").plan.target for name in ("rapid", "rapid_chip"))
STEPS_PER_SECOND = 1000 / 30
# calls a frame of 60 ms, by the hypotheses of each: what searches ask for (measured: `make bench-search`, the shipped
# network on `home`; beam 8)
ASKED: dict[str, dict[str, dict[int, float]]] = {
    "greedy": dict(prediction={1: 0.67}, joint={1: 1.6}),
    "beam 8": dict(prediction={1: 0.61, 2: 0.16, 3: 0.09, 4: 0.09, 5: 0.05, 6: 0.05, 7: 0.04, 8: 0.03},
                   joint={1: 0.98, 2: 0.32, 3: 0.15, 4: 0.10, 5: 0.10, 6: 0.09, 7: 0.05, 8: 0.87})}
HELD = 1.05                    # whole recognitions over their roofline, or over the bound that says why not
MATVEC = (4096, 1024)          # outputs, inputs
POLICIES = ("int8", "cb4")
TARGETS = (EDGE, LARGE, TINY, *RAPIDS)
# recognisers of every size, but `tiny` of tests; frames of a call besides one, where a call can have several
SIZES = dict(rnnt=("small", "medium", "streaming57m", "saon57m"), conformer=("small", "medium", "large"))
FRAMES = dict(small=4, medium=4, large=4, streaming57m=4, saon57m=8)


Compiled = tuple[tuple[str, str, str], QGraph, Program]         # (model, policy, target), and what was made of them


def graphs(quick: bool) -> dict[tuple[str, str], tuple[QGraph, int]]:
    """(model, policy) -> graph and frames computed together."""
    sizes = ["small"] if quick else ["small", "medium", "streaming57m"]
    out = {(size, policy): (_graph("rnnt", size, policy), FRAMES[size]) for size in sizes for policy in POLICIES}
    if not quick:
        out["saon57m", "int8"] = (_graph("rnnt", "saon57m", "int8"), FRAMES["saon57m"])
    return out


def _graph(model: str, size: str, policy: str) -> QGraph:
    graph = random_graph(0, model=model, size=size)
    return graph if policy == "int8" else with_codebook(graph, 4)


def schedules(cases: dict[tuple[str, str], tuple[QGraph, int]], console: Console) -> tuple[dict[str, float],
        dict[Any, tuple[QGraph, Program]]]:
    """Cycles of every entry against the roofline; and the programs."""
    table = Table("model", "policy", "target", "entry", "cycles", "ms", "roofline", "bound", "over", "over chain",
                  "DRAM bytes", title="schedule over roofline, and over the chain of its phases")
    found: dict[str, float] = {}
    programs = {}
    jobs = [(m, p, g, f, t)
            for (m, p), (g, f) in cases.items() for t in (TARGETS if m == "small" else (EDGE,))]
    for model, policy, graph, frames, target in jobs:
        program = compile_graph(graph, target, Settings(frames=frames, hypotheses=8))
        programs[model, policy, target.name] = (graph, program)
        for name, entry in program.entries.items():
            if name == INIT:
                continue
            bound = roofline(split(graph).graph, target, program.report["layers"], entry.part, entry.steps,
                             entry.hypotheses)
            over = entry.cycles / float(bound.cycles) if bound.cycles else float("nan")
            chain = f"{entry.cycles / float(bound.paced):.4f}" if bound.paced else ""
            table.add_row(model, policy, target.name, name, f"{entry.cycles:,}",
                          f"{1e3 * entry.cycles / target.clock:.3f}",
                          f"{float(bound.cycles):,.0f}", bound.bound, f"{over:.4f}", chain,
                          f"{program.report['entries'][name]['dram_bytes']:,}")
            if entry.model_entry == "encoder":
                which = (*entry.part.split(".", 1)[1:], *(("frames",) if entry.steps > 1 else ()))
                found["/".join((model, policy, target.name, *which))] = round(over, 5)
    graph = matrix_vector(*MATVEC)
    for policy in ("raw", "entropy"):
        program = compile_graph(graph, EDGE, Settings(codecs={"y.weight": policy}, pins={"y.weight": "never"}))
        cycles = program.entries["encoder.step"].cycles
        bound = roofline(graph, EDGE, program.report["layers"], "encoder")
        found[f"matvec_1x1024x4096/{policy}/edge"] = round(cycles / float(bound.cycles), 5)
        programs["matvec", policy, "edge"] = (graph, program)
        table.add_row("1x1024x4096", policy, "edge", "encoder.step", f"{cycles:,}", f"{1e3 * cycles / EDGE.clock:.3f}",
                      f"{float(bound.cycles):,.0f}",
                      bound.bound, f"{cycles / float(bound.cycles):.4f}", f"{cycles / float(bound.paced):.4f}",
                      f"{program.report['entries']['encoder.step']['dram_bytes']:,}")
    console.print(table)
    return found, programs


def recognitions(programs: Iterable[Compiled], console: Console, title: str = "") -> dict[str, dict[str, Any]]:
    """Whole recognitions, search included, over the sum of the rooflines of all their calls, and over that of their
    bounds (`nnac.schedule.bounds`), by name: the shares of the resources that decide them.  The table comes at the end,
    a line of each in passing."""
    table = Table("model", "policy", "target", "frames a call", "search", "cycles a frame", "over roofline",
                  "over bound", "bound by", title=f"whole recognitions{title}; what a search asks for is measured")
    found = {}
    for (model, policy, name), graph, program in programs:
        part = cache(partial(limits, split(graph).graph, program))
        encoder = [e for e in program.entries.values() if e.model_entry == "encoder" and e.hypotheses == 1]
        searched = {s: a for s, a in ASKED.items() if "joint.step" in program.entries} or {"": {}}
        for steps in sorted({e.steps for e in encoder}):
            passes = [e.name for e in encoder if e.steps == steps]
            for how, asked in searched.items():
                cycles, least, bound = price(program, passes, asked, part)
                key = "/".join((model, policy, name, *(("frames",) if steps > 1 else ()), *((how,) if how else ())))
                found[key] = dict(roofline=round(cycles / least, 4), bound=round(cycles / bound.cycles, 4), by=bound.by)
                table.add_row(model, escape(policy), name, str(_frames(program, passes)), how, f"{cycles:,.0f}",
                              f"{cycles / least:.4f}", f"{cycles / bound.cycles:.4f}", bound.by)
                print(f"{key}: {cycles / bound.cycles:.4f}", file=sys.stderr, flush=True)
    if found:
        console.print(table)
    return found


def beyond(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Recognitions that are over `HELD` times both."""
    return {k: w for k, w in found.items() if min(w["roofline"], w["bound"]) > HELD}


def _frames(program: Program, passes: Sequence[str]) -> int:
    """Frames that a call of the encoder makes."""
    return program.entries[passes[-1]].outputs[-1].vectors


def sized(only: str = "") -> Iterator[Compiled]:
    """Recognisers of every size, at int8 and with codebooks, on every target that holds them; or those whose name has
    ``only`` in it."""
    for model, sizes in SIZES.items():
        for size, policy in itertools.product(sizes, POLICIES):
            label = f"{model} {size}"
            wanted = [t for t in TARGETS if only in f"{label}/{policy}/{t.name}"]
            if not wanted:
                continue
            graph = _graph(model, size, policy)
            for target in wanted:
                try:
                    program = compile_graph(graph, target, Settings(frames=FRAMES[size], hypotheses=8))
                except CompileError as error:
                    print(f"{label}/{policy}/{target.name}: {error}", file=sys.stderr, flush=True)
                    continue
                yield (label, policy, target.name), graph, program


def bundled(only: str = "") -> Iterator[Compiled]:
    """Every policy of specs/ for a recogniser, or those whose name has ``only`` in it: quantised, pruned and annealed
    as it says, on its own machine."""
    seen = set()
    specs = HERE.parent / "specs"
    for path in sorted(specs.rglob("*.nnac")):
        for name, checked in check_file(path).variants.items():
            plan = checked.plan
            if plan is None or not heard(plan) or plan.digest in seen:
                continue
            if only not in (label := f"{path.relative_to(specs).with_suffix('')}:{name}"):
                continue
            seen.add(plan.digest)
            graph = module(plan, 1).bind()
            settings = evolve(Settings.of(plan), budgets=(), hypotheses=8)
            yield (plan.model.builder, label, plan.target.name), graph, compile_graph(graph, plan.target, settings)


def limits(passes: QGraph, program: Program, name: str) -> tuple[float, Bound]:
    """Roofline and bound of one call."""
    e = program.entries[name]
    line = roofline(passes, program.target, program.report["layers"], e.part, e.steps, e.hypotheses)
    own = bounds.bound(program, name)
    if line.paced > own.cycles:                        # what W holds of words that are read again, only this one counts
        own = Bound(float(line.paced), {"DRAM" if line.bound == "DRAM" else "multipliers": float(line.paced)})
    return float(line.cycles), own


def price(program: Program, encoder: Sequence[str], asked: dict[str, dict[int, float]],
          part: Callable[[str], tuple[float, Bound]]) -> tuple[float, float, Bound]:
    """(cycles, roofline, bound) of one frame; ``encoder``: the passes that make a call's frames; ``part``: `limits` of
    a call."""
    calls: dict[str, float] = dict.fromkeys(encoder, 1 / _frames(program, encoder))
    for entry, counts in asked.items():
        for n, often in counts.items():
            sizes = program.sizes(entry)
            fitting = [e.name for e in sizes if e.hypotheses >= n] if n > 1 else [f"{entry}.step"]
            name, times = (fitting[0], 1) if fitting else (sizes[-1].name, -(-n // sizes[-1].hypotheses))
            calls[name] = calls.get(name, 0.0) + often * times
    cycles = least = 0.0
    shares: dict[str, float] = {}
    for name, often in calls.items():
        line, own = part(name)
        cycles, least = cycles + often * program.entries[name].cycles, least + often * line
        for unit, share in own.shares.items():
            shares[unit] = shares.get(unit, 0.0) + often * share
    return cycles, least, Bound(sum(shares.values()), shares)


COMPILE = """
import json, resource, sys, time
from nnac.schedule.compile import Settings, compile_graph
from tests.graphs import random_graph
from tests.schedules import EDGE
graph = random_graph(0, size=sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter(); cpu = time.process_time()
compile_graph(graph, EDGE, Settings(frames=int(sys.argv[2]))).save(sys.argv[3])
print(json.dumps(dict(wall=time.perf_counter() - start, cpu=time.process_time() - cpu, before=before,
                      peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                      weights=sum(v.size for n in graph.nodes for v in n.constants.values() if v.ndim == 2))))
"""


def compile_cost(size: str, frames: int, repeat: int) -> dict[str, float]:
    """Median wall time and peak memory of QGraph -> proved program file, each in its own process."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            done = subprocess.run([sys.executable, "-c", COMPILE, size, str(frames), f"{folder}/p.nnap"],
                                  capture_output=True, text=True,
                                  cwd=HERE.parent, env={**os.environ, "PYTHONPATH": str(HERE.parent)}, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def traffic(graph: QGraph, frames: int) -> tuple[float, float]:
    """LSTM weight bytes read from DRAM with frame batching, over without: (layers as wide as their input, all).
    Counted on instructions."""
    never = {k: "never" for n in graph.nodes for k in (f"{n.path}.input", f"{n.path}.recurrent", f"{n.path}.weight")}
    program = compile_graph(graph, EDGE, Settings(frames=frames, pins=never))
    square = {n.path for n in graph.entry("encoder") if n.op == "lstm"
              and n.constants["input"].shape == n.constants["recurrent"].shape}
    lstm = {n.path for n in graph.entry("encoder") if n.op == "lstm"}
    config = isa.MachineConfig.of(EDGE)
    ratios = []
    for layers in (square or lstm, lstm):
        read = {}
        for name in ("encoder.step", "encoder.steps"):
            entry = program.entries[name]
            code = decoded(entry)
            bursts = simulate(code, config).bursts
            read[name] = sum(int(n) for i, n, line in zip(code, bursts, entry.lines, strict=True)
                             if isinstance(i, isa.LDW) and program.debug[line][0] in layers)
        ratios.append(read["encoder.steps"] / (frames * read["encoder.step"]))
    return ratios[0], ratios[1]


def emulator(graph: QGraph, program: Program, repeat: int) -> dict[str, float]:
    """Seconds of one encoder step with data, one utterance; simulated cycles a second of timing alone (from a cold
    start)."""
    machine = Machine(program)
    x = random_inputs(graph, "encoder", np.random.default_rng(0))
    machine.run("encoder.step", x)
    spent = []
    for _ in range(repeat):
        start = time.perf_counter()
        machine.run("encoder.step", x)
        spent.append(time.perf_counter() - start)
    code, config = decoded(program.entries["encoder.step"]), isa.MachineConfig.of(program.target)
    timed = []
    for _ in range(3):
        start = time.perf_counter()
        cycles = simulate(code, config).cycles
        timed.append(time.perf_counter() - start)
    start = time.perf_counter()
    prove_program(program)
    return dict(step_s=statistics.median(spent), rtf=statistics.median(spent) * STEPS_PER_SECOND, cycles=cycles,
                timing_s=statistics.median(timed),
                cycles_per_s=cycles / statistics.median(timed), prove_s=time.perf_counter() - start)


def peer(variable: str, script: str, *arguments: str) -> dict[str, Any] | None:
    """What a peer says, run by its own interpreter; None if it is not there."""
    interpreter = os.environ.get(variable)
    if not interpreter:
        return None
    done = subprocess.run([interpreter, str(HERE / script), *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def peers(programs: dict[Any, Any], console: Console) -> dict[str, Any]:
    """The 1 x 1024 x 4096 product in other people's tools.  Published: measured by us once, on a shared machine; cycles
    are exact."""
    ours = programs["matvec", "raw", "edge"][1].entries["encoder.step"].cycles
    code = decoded(programs["matvec", "raw", "edge"][1].entries["encoder.step"])
    start = time.perf_counter()
    simulate(code, isa.MachineConfig.of(EDGE))
    speed = ours / (time.perf_counter() - start)
    vela = peer("NNAC_VELA_PYTHON", "peer_vela.py", str(MATVEC[1]), str(MATVEC[0]), "int8")
    scale = peer("NNAC_SCALESIM_PYTHON", "peer_scalesim.py", str(MATVEC[1]), str(MATVEC[0]), "16", "ws")
    table = Table("who", "MACs", "memory", "cycles", "ms", "simulated cycles/s", "", title="1 x 1024 x 4096, int8")
    table.add_row("nnac edge (counted)", "256", "3.75 GB/s", f"{ours:,}", f"{1e3 * ours / EDGE.clock:.3f}",
                  f"{speed:,.0f}", "with weights from DRAM")
    if vela and "cycles" in vela:
        ms = 1e3 * vela["cycles"] / vela["clock"]
        table.add_row("Vela, Ethos-U65-512 (its estimate)", "512", "3.75 GB/s", f"{vela['cycles']:,.0f}", f"{ms:.3f}",
                      "", f"{vela['wall_s']} s")
    else:
        table.add_row("Vela, Ethos-U65-512 (its estimate)", "512", "3.75 GB/s", "1,048,840", "1.049", "",
                      _absent(vela, "NNAC_VELA_PYTHON"))
    if scale and "cycles" in scale:
        table.add_row("SCALE-Sim 16x16 WS", "256", "none", f"{scale['cycles']:,.0f}", "", f"{scale['cycles_per_s']:,}",
                      f"{scale['wall_s']} s, no data")
    else:
        table.add_row("SCALE-Sim 16x16, 32x32", "256", "none", "262,144 and more", "", "3,700 to 16,000",
                      _absent(scale, "NNAC_SCALESIM_PYTHON"))
    console.print(table)
    return dict(nnac_cycles=ours, vela=vela, scalesim=scale)


def _absent(found: dict[str, Any] | None, variable: str) -> str:
    return f"skipped: {found['error'][:60]}" if found else f"skipped, {variable} is not set; published figure"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small model only, half a minute")
    parser.add_argument("--bounds", action="store_true", help="whole recognitions against their bounds, and no more")
    parser.add_argument("--only", metavar="TEXT", default="",
                        help="with --bounds: sizes and policies whose name has it, as `rnnt medium/int8`, `gq:`")
    parser.add_argument("--json", metavar="FILE", help="write the result there too")
    args = parser.parse_args()
    console = Console(width=150)
    if args.bounds:
        whole = recognitions(sized(args.only), console, " of every size")
        whole |= recognitions(bundled(args.only), console, " of every bundled policy")
        print(json.dumps(dict(recognition_over=whole, recognitions=len(whole), beyond=beyond(whole))))
        return
    over, programs = schedules(graphs(args.quick), console)
    whole = recognitions(((k, *made) for k, made in programs.items() if "matvec" not in k), console)
    model = "small" if args.quick else "streaming57m"
    graph, program = programs[model, "int8", "edge"]
    ran = emulator(graph, program, 5 if args.quick else 9)
    del programs[model, "cb4", "edge"]
    cost = {frames: compile_cost(model, frames, 1 if args.quick else 3) for frames in (1, 4)}
    square, every = traffic(graph, 4)
    figures = Table("figure", "value", title=f"{model}, int8, edge")
    for name, value in (
            ("compile, graph to proved program file",
             f"{cost[1]['wall']:.1f} s wall, {cost[1]['cpu']:.1f} s CPU, peak {cost[1]['peak']:,.0f} MiB "
                                                      f"(of which {cost[1]['before']:,.0f} before), "
             f"{cost[1]['weights'] / 1e6:.1f} M weights"),
            ("the same with an entry for 4 frames", f"{cost[4]['wall']:.1f} s wall, peak {cost[4]['peak']:,.0f} MiB"),
            ("one encoder step on the emulator, with data",
             f"{1e3 * ran['step_s']:.2f} ms: real-time factor {ran['rtf']:.3f} at 33.3 steps/s"),
            ("timing alone",
                f"{ran['cycles']:,} cycles in {1e3 * ran['timing_s']:.1f} ms: {ran['cycles_per_s'] / 1e6:,.1f} M "
             f"cycles/s"),
            ("proof of all entries, from bytes", f"{ran['prove_s']:.1f} s"),
            ("LSTM weight traffic, 4 frames over 1",
             f"{square:.4f} where input and hidden are equally wide, {every:.4f} over all layers")):
        figures.add_row(name, value)
    console.print(figures)
    found = peers(programs, console)
    result = dict(schedule_over_roofline=over, recognition_over=whole, beyond=beyond(whole),
                  emulator_rtf=round(ran["rtf"], 4), timing_cycles_per_s=round(ran["cycles_per_s"]),
                  compile_s=round(cost[1]["wall"], 2), compile_peak_mib=round(cost[1]["peak"]),
                  frame_batch_traffic_ratio=round(square, 5),
                  frame_batch_traffic_ratio_all_layers=round(every, 5), model=model,
                  compile_frames4_s=round(cost[4]["wall"], 2),
                  prove_s=round(ran["prove_s"], 2), peers=found)
    if args.json:
        Path(args.json).write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
