"""What compression and placement save a user: the papers' latency claims, on whole recognitions.

    python -m benchmarks.bench_latency --corpus DIR [--float FILE] [--runs DIR] [--steps N] [--utterances N] [--out DIR]

    gq      8 against 5 bits (GQ, arXiv 2210.09188: P90 of user-perceived latency -31.75 %): the scenario that
            docs/search.md fixed before this was run, and the whole plane around it
    aat     all on the machine against layer norms (and the joint's tanh) on the CPU (AAT, arXiv 2305.07778: 5 to 7 % of
            engine latency), for three sizes, each compiled
    s8bqat  a bigger 4-bit model against an 8-bit one of as many bytes (S8BQAT, arXiv 2206.15408: 5 % faster)

All hear the 400 utterances of `home`.  Only `gq`'s small programs have trained weights, and they decode their own
labels; the others have random weights of a trained model's distribution (cycles depend on no data but the entropy of
the codes) and take labels and their times from the trained 8-bit program.  Written to --out: RESULTS.md, a chapter of
the repository's, and pictures; trainings, programs and what each part found (--only) are kept under --runs and not done
again.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import field, frozen

from nnac import compiler
from nnac.cli import main as nnac
from nnac.commands.latency import draw as draw_utterance
from nnac.decode.front_end import front_end_of
from nnac.decode.search.greedy import Greedy
from nnac.files import atomic
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.latency import plane
from nnac.latency.measure import Heard, Latencies, borrowed, compared, costs_of, listen, measure
from nnac.latency.simulate import Scenario, change, steps_heard
from nnac.program import Program
from nnac.schedule.compile import Settings, compile_graph
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import manifest_path
from tests.graphs import random_graph, with_codebook
from tests.schedules import EDGE

POLICIES = {"int8": "specs/rnnt_int8.nnac", "gq5": "specs/comparison/gq.nnac"}
FIXED = (0.8, 0.7)             # docs/search.md: work over audio of the 8-bit program, seconds of audio that wait
SIZES: dict[str, dict[str, Any]] = {
    "small, 256 cells": dict(size="small"),
    "336 cells": dict(size="small", cells=336, prediction_cells=336, joint=336),
    "medium, 512 cells": dict(size="medium")}
# (bytes that are alike: 8 bits, 4 bits)
PAIRS = {"192 cells at 8 bits, 256 at 4": (192, 256), "256 cells at 8 bits, 336 at 4": (256, 336)}
QUANTITIES = {"upl_p50": "UPL P50", "upl_p90": "UPL P90", "engine_p50": "engine P50", "engine_p90": "engine P90"}


@frozen(eq=False, slots=False)
class Stage:
    """What all parts need."""

    runs: Path
    corpus: Path
    float_path: Path
    steps: int
    utterances: int | None
    out: Path

    def program(self, name: str) -> Program:
        """A trained one; its module lies beside it."""
        module, path = self.runs / f"{name}.nnc", self.runs / f"{name}.nnp"
        if not path.is_file():
            run("train", POLICIES[name], "--float", self.float_path, "--corpus", self.corpus, "--out", module,
                "--steps", self.steps, "--json")
            compiler.program(compiler.trained(module)).save(path)
        return Program.load(path)

    @cached_property
    def heard(self) -> list[Heard]:
        listed = read_manifest(manifest_path(self.corpus, "home"))[: self.utterances]
        return listen(front_end_of(self.program("int8")), listed, Scenario().hangover_s)

    def listened(self, name: str) -> Latencies:
        program = self.program(name)                       # made first, with the module beside it
        return measure(program, self.heard, Scenario(), Greedy(), batch=128, quiet=True, keep=True,
                       trained=compiler.trained(self.runs / f"{name}.nnc"))

    @cached_property
    def spoken(self) -> Latencies:
        """What the trained 8-bit program says, and when."""
        return self.listened("int8")

    def compiled(self, graph: QGraph, places: dict[str, str] | None = None) -> Latencies:
        """The same said by another program."""
        metadata = dict(front_end=front_end_of(self.program("int8")).to_json())
        program = compile_graph(graph, EDGE, Settings(frames=1, places=places or {}), metadata=metadata)
        return borrowed(self.spoken, costs_of(program, Greedy()))


def run(*words: object) -> None:
    """A command of nnac, its output on standard error.  SystemExit if it fails."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        if nnac([str(w) for w in words]) != 0:
            raise SystemExit(f"nnac {' '.join(map(str, words))} failed")
    finally:
        sys.stdout = kept


def percent(value: tuple[float, tuple[float, float]]) -> str:
    share, (low, high) = value
    return f"{100 * share:+.2f} % ({100 * low:+.2f} … {100 * high:+.2f})"


def work(done: Latencies) -> list[float]:
    """Seconds of the accelerator for each utterance, all of it there: the whole recognition."""
    counts = [steps_heard(done.costs, t.speech_end + done.scenario.waiting_s + done.scenario.hangover_s)
              for t in done.timelines]
    return [done.costs.cycles(n, r) / done.costs.clock for n, r in zip(counts, done.rounds, strict=True)]


@frozen
class Against:
    """Two programs, the second against the first."""

    name: str
    cycles: tuple[float, float]        # a frame, whole recognition
    work: tuple[float, tuple[float, float]]
    changes: dict[str, tuple[float, tuple[float, float]]] = field(hash=False)

    @classmethod
    def of(cls, name: str, first: Latencies, second: Latencies) -> Against:
        frames = [sum(len(t.ready) for t in d.timelines) for d in (first, second)]
        before, after = work(first), work(second)
        cycles = [sum(w) * d.costs.clock / n
                  for w, d, n in zip((before, after), (first, second), frames, strict=True)]
        return cls(name, (cycles[0], cycles[1]), change(before, after, 0.9), compared(first, second))

    def row(self) -> str:
        cells = [f"{c:,.0f}" for c in self.cycles]
        cells += [percent(self.work), *(percent(self.changes[q]) for q in QUANTITIES)]
        return f"| {self.name} | {' | '.join(cells)} |"

    def plain(self) -> dict[str, Any]:
        every = {"work_p90": self.work} | self.changes
        return dict(name=self.name, cycles_per_frame=[round(c) for c in self.cycles],
                    **{k: dict(share=round(v, 5), interval=[round(x, 5) for x in i]) for k, (v, i) in every.items()})


def table(rows: Sequence[Against], first: str, second: str) -> list[str]:
    head = ["", f"cycles a frame: {first}", second, "whole recognition, P90", *QUANTITIES.values()]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(r.row() for r in rows), ""]


# ------------------------------------------------------------------------------------------------------------------ gq

def gq(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """8 against 5 bits: as the machine is, in the fixed scenario, and everywhere."""
    random = random_graph(0, size="streaming57m")
    kind = "trained" if stage.steps else "calibrated"
    small = f"small, {kind}"
    systems = {small: (stage.spoken, stage.listened("gq5")),
               "streaming57m, random weights": (stage.compiled(random), stage.compiled(with_codebook(random, 5)))}
    share, waiting = FIXED
    rows, fixed, planes, chapters = [], [], {}, []
    for name, (first, second) in systems.items():
        rows.append(Against.of(f"{name}: as it is, work/audio {first.rtf:.3f}", first, second))
        slower = plane.slowness(first, share)
        moved = [plane.moved(d, slower, waiting) for d in (first, second)]
        fixed.append(Against.of(f"{name}: {slower:.1f} times slower", *moved))
        planes[name] = points = list(plane.plane(first, second))
        picture = f"plane-{name.split(',')[0]}.svg"
        plane.draw(points, f"GQ at 5 bits against int8, {name}", stage.out / picture)
        chapters += [f"P90 of UPL on the whole plane, {name} (work over audio of the 8-bit program, and audio that "
                     "waits at the start):", "", *grid(points), f"![P90 of UPL, {name}]({picture})", ""]
    errors = {n: d.errors.rate for n, d in zip(("int8", "gq5"), systems[small], strict=True)}
    lines = ["## GQ: 5 bits against 8", "",
             "The paper: P90 of UPL −31.75 %. The scenario was fixed before it was run (docs/search.md): work over "
             f"audio {share:g} with the 8-bit program, {waiting:g} s of audio waiting, {len(stage.heard)} utterances "
             "of `home`, greedy, hangover 200 ms. The small programs, calibrated and "
             f"trained for {stage.steps} steps, decode their own labels (word errors of int8 "
             f"{errors['int8']:.2f} %, of 5 bits {errors['gq5']:.2f} %); the other pair takes the labels and their "
             "times from the small int8 program.", "",
             "In the fixed scenario:", "", *table(fixed, "8 bits", "5 bits"),
             "On the machine as it is, no audio waiting:", "", *table(rows, "8 bits", "5 bits"), *chapters]
    picture_of(stage, systems[small][0])
    lines += ["One utterance on the small int8 program, as it is: audio above, units below.", "",
              "![One utterance](utterance.svg)", ""]
    return lines, dict(gq_fixed=[r.plain() for r in fixed], gq_as_it_is=[r.plain() for r in rows],
                       gq_plane={n: [p.plain() for p in points] for n, points in planes.items()})


def grid(points: Sequence[plane.Point]) -> list[str]:
    starts = list(dict.fromkeys(p.waiting_s for p in points))
    head = " | ".join(f"{s:g} s waiting" for s in starts)
    lines = [f"| work/audio | {head} |", "|---" * (1 + len(starts)) + "|"]
    for share in dict.fromkeys(p.share for p in points):
        cells = [f"{1e3 * p.first:,.0f} → {1e3 * p.second:,.0f} ms; {percent(p.changes['upl_p90'])}"
                 for p in points if p.share == share]
        lines.append(f"| {share:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def picture_of(stage: Stage, done: Latencies) -> None:
    args = argparse.Namespace(utterance=1, picture=str(stage.out / "utterance.svg"), json=True)
    if draw_utterance(args, stage.heard, done):
        raise SystemExit("no such utterance")


# ----------------------------------------------------------------------------------------------------------------- aat

def aat(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """Layer norms on the CPU, and all on the machine: the second against the first."""
    rows = []
    for name, arguments in SIZES.items():
        graph = random_graph(0, **arguments)
        norms = {n.path: "cpu" for n in graph.nodes if ".norm[" in n.path}
        alone = stage.compiled(graph)
        for what, places in (("layer norms", norms), ("and the joint's tanh", norms | {"joint.activation": "cpu"})):
            rows.append(Against.of(f"{name}: {what}", stage.compiled(graph, places), alone))
    lines = ["## AAT: all on the machine, against operators on the CPU", "",
             "The paper: engine latency −5 to −7 %. int8 on `edge`, whose CPU takes 20 µs to wake; what is on the CPU "
             "is named, and the change is that of taking it back. Each size is compiled; labels and their times are "
             "those of the small int8 program; one call at a time.", "",
             *table(rows, "with the CPU", "all on the machine")]
    return lines, dict(aat=[r.plain() for r in rows])


# -------------------------------------------------------------------------------------------------------------- s8bqat

def s8bqat(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """As many bytes at 8 and at 4 bits: the bigger model against the smaller."""
    def graph(cells: int, variant: str) -> QGraph:
        def precision(path: str) -> Precision:
            inner = path in ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
            return Precision(activations=16 if inner else 8, variant=variant)
        return random_graph(0, size="small", cells=cells, prediction_cells=cells, joint=cells, precision=precision)

    rows = []
    for name, (eight, four) in PAIRS.items():
        bigger = with_codebook(graph(four, "sum16"), 4)
        rows.append(Against.of(name, stage.compiled(graph(eight, "acc32")), stage.compiled(bigger)))
    lines = ["## S8BQAT: a bigger 4-bit model, against 8 bits in as many bytes", "",
             "The paper: 5 % faster. On `edge`; the whole recognition with all its audio there, and both latencies in "
             "real time. Both say the same labels at the same times.", "", *table(rows, "8 bits", "4 bits")]
    return lines, dict(s8bqat=[r.plain() for r in rows])


PARTS: dict[str, Callable[[Stage], tuple[list[str], dict[str, Any]]]] = dict(gq=gq, aat=aat, s8bqat=s8bqat)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--float", dest="float_path", type=Path, default=Path("networks/demo.nnc"))
    p.add_argument("--corpus", type=Path, required=True)
    p.add_argument("--runs", type=Path, default=Path("runs/latency"))
    p.add_argument("--steps", type=int, default=400, help="of training, of the two trained programs (400)")
    p.add_argument("--utterances", type=int, help="of `home` (all)")
    p.add_argument("--out", type=Path, default=Path("results/latency"), help="report and pictures")
    p.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between ({','.join(PARTS)})")
    args = p.parse_args()
    for folder in (args.runs, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(args.runs, args.corpus, args.float_path, args.steps, args.utterances, args.out)
    utterances = len(read_manifest(manifest_path(args.corpus, "home"))[: args.utterances])
    found: dict[str, Any] = dict(utterances=utterances, steps=args.steps)
    lines = ["# Latency as a user feels it", "",
             "Made by `make bench-latency`: events in real time on the exact cycles of compiled programs; definitions "
             "and the host's constants: docs/search.md. Changes are of the second program against the first, paired "
             "over utterances, with 95 % bootstrap intervals. *Whole recognition*: the accelerator's time with all the "
             "audio there; *engine*: from the endpoint to the text; *UPL*: from the end of the last word.", ""]
    for name, part in PARTS.items():
        path = args.runs / f"{name}-{utterances}-{args.steps}.json"
        if not path.is_file() and name in args.only.split(","):
            with atomic(path, "w") as out:
                json.dump(part(stage), out)
        chapter, figures = json.loads(path.read_text()) if path.is_file() else ([], {})
        lines += chapter
        found |= figures
    with atomic(args.out / "RESULTS.md", "w") as out:
        out.write("\n".join(lines).rstrip() + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
