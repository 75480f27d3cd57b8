"""The hybrid in one run: from texts and speech to word errors, integers compared, decoding options, the paper's size.

    python -m benchmarks.bench_hybrid --corpus DIR [--runs DIR] [--results DIR] [--only PART,…] [--json FILE]

    float     alignments, float network, alignments again, float network, trigram and graph, with the time of each
    wer       the rows `hybrid-…` of specs/comparison/all.toml, from their result files (what is missing is run by
              `nnac sweep`), with both 95 % intervals; bytes and cycles of the tailored policy on `rapid` and `edge`
    options   what the decoder's options do to the float network on `dev`: beam, acoustic scale, prior
    compared  training module against emulator on WAV files of `voice`: every integer, every sentence; the tailored
              policy, calibrated
    large     specs/papers/int4_dblstm.nnac, 43.1 M weights: lint, lower, compile; one utterance, module and emulator

Parts keep their files under --runs and are not done again.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from rich.console import Console
from rich.table import Table

from nnac import compiler
from nnac.cli import main as nnac
from nnac.compare import compare
from nnac.decode import acoustic
from nnac.decode.front_end import by_length, front_end_of, pad
from nnac.decode.search.graph import GraphSearch
from nnac.emulator.executor import Emulator
from nnac.executors.torch import Torch
from nnac.files import atomic
from nnac.hybrid import graph
from nnac.lower import lower_plan
from nnac.policy import load
from nnac.program import Program
from nnac.report import experiments, outcomes
from nnac.report.statistics import Estimate, difference, rate
from nnac.schedule.compile import Settings, compile_graph
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import load_split, manifest_path
from nnac.speech.wer import word_errors
from nnac.train.families.hybrid import Hybrid

COMPARISON, SMALL, LARGE = ("specs/comparison/all.toml", "specs/comparison/int4_dblstm.nnac",
                            "specs/papers/int4_dblstm.nnac")
ROWS = dict(float="hybrid-float", int8="hybrid-int8", int4="hybrid-int4", naive="hybrid-naive")
FIRST, SECOND = 300, 1500              # steps before and after the network has aligned its own corpus
FILES = 24                             # WAV files whose every integer is compared
DEV = 200                              # utterances of dev for the decoder's options


@frozen(eq=False)
class Stage:
    """What all parts need."""

    runs: Path
    corpus: Path
    results: Path
    say: Callable[[Any], None]

    def at(self, name: str) -> Path:
        return self.runs / name


def run(*words: str | Path) -> None:
    """One command of nnac.  SystemExit with its status if it fails."""
    if status := nnac([str(w) for w in words]):
        raise SystemExit(status)


def timed(stage: Stage, out: str, *words: str | Path) -> None:
    """A command that makes a file, unless it is there; its seconds are kept beside it."""
    path, clock = stage.at(out), stage.at("seconds.json")
    if path.is_file():
        return
    begun = time.monotonic()
    run(*words, "--out", path, "--json")
    known = json.loads(clock.read_text()) if clock.is_file() else {}
    with atomic(clock, "w") as file:
        json.dump(known | {out: round(time.monotonic() - begun, 1)}, file)


def from_nothing(stage: Stage) -> dict[str, Any]:
    """The float network and its graph, from texts and speech."""
    corpus = ("--corpus", stage.corpus)
    train = ("baseline", *corpus, "--alignments")
    timed(stage, "flat.ali", "align", *corpus)
    timed(stage, "first.nnc", *train, stage.at("flat.ali"), "--steps", str(FIRST))
    timed(stage, "second.ali", "align", *corpus, "--network", stage.at("first.nnc"))
    timed(stage, "float.nnc", *train, stage.at("second.ali"), "--start", stage.at("first.nnc"), "--steps", str(SECOND))
    timed(stage, "words.arpa", "ngram", "--tokens", stage.at("float.nnc"), *corpus, "--order", "3")
    timed(stage, "words.graph", "graph", stage.at("float.nnc"), "--lm", stage.at("words.arpa"))
    clock = stage.at("seconds.json")
    seconds = json.loads(clock.read_text()) if clock.is_file() else {}
    stage.say(f"from nothing, seconds of each step: {seconds}")
    stage.say(str(graph.load(stage.at("words.graph"))))
    return dict(trained_s=round(sum(seconds.values()), 1), trained_seconds=seconds,
                processor=_processor())


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def both(e: Estimate) -> dict[str, Any]:
    """A value with both intervals, over utterances and over speakers."""
    spans = dict(utterances=e.utterances) | ({} if e.speakers is None else dict(speakers=e.speakers))
    return dict(value=round(e.value, 3), **{k: [round(i.low, 3), round(i.high, 3)] for k, i in spans.items()})


def wer(stage: Stage) -> dict[str, Any]:
    """Word errors of the rows, and what the tailored policy costs on two machines."""
    known = experiments.load(COMPARISON)
    rows = {r.name: r for r in known.rows if r.name in ROWS.values()}
    if any(not outcomes.path_of(stage.results, r.name, s).is_file() for r in rows.values() for s in range(r.seeds)):
        run("sweep", COMPARISON, "--corpus", stage.corpus, "--float", f"hybrid={stage.at('float.nnc')}",
            "--alignments", stage.at("second.ali"), "--graph", stage.at("words.graph"), "--results", stage.results,
            "--runs", stage.at("sweep"), "--out", stage.at("RESULTS.md"), *(a for r in rows for a in ("--only", r)))
    found = outcomes.load_all(stage.results, [(r.name, r.seeds) for r in rows.values()])
    base = found[ROWS["float"]]
    table = Table("", "WER, 95 %", "against float32: utterances", "speakers", "KiB", "bits", "cycles a frame",
                  title="3,000 unheard sentences and voices")
    out: dict[str, Any] = {}
    for name, row in ROWS.items():
        own = found[row]
        e, d = rate(own), difference(base, own)
        out |= {f"wer_{name}": both(e)} | ({} if name == "float" else {f"{name}_minus_float": both(d)})
        kib = sum(o.bytes for o in own) / len(own) / 1024
        cycles = own[0].cycles_per_frame
        table.add_row(rows[row].shown, str(e.utterances), "" if name == "float" else str(d.utterances),
                      "" if name == "float" or d.speakers is None else str(d.speakers), f"{kib:,.0f}",
                      f"{8 * 1024 * kib / own[0].weights:.2f}", "" if cycles is None else f"{cycles:,.0f}")
    stage.say(table)
    out["naive_minus_int4"] = both(difference(found[ROWS["int4"]], found[ROWS["naive"]]))
    return out | dict(machines=_machines(stage))


def _machines(stage: Stage) -> dict[str, Any]:
    """Bytes and cycles of a step, all passes: on `rapid`, and on `edge`, whose activations have 8 bits at the least."""
    text = Path(SMALL).read_text("utf-8")
    made: dict[str, Any] = {}
    for target, policy in (("rapid", "int4_dblstm"), ("rapid", "int8"), ("edge", "int4_dblstm"), ("edge", "int8")):
        path, own = stage.at(f"{target}.nnac"), text.replace("../targets/rapid.nnac", f"targets/{target}.nnac")
        if target == "edge":
            own = own.replace("hidden int4", "hidden int8").replace("activations int4", "activations int8")
        with atomic(path, "w") as file:
            file.write(own.replace("target  rapid", f"target  {target}"))
        program = _random_program(load(path, policy).plan)
        cycles = {n: e.cycles for n, e in program.entries.items() if e.model_entry == "encoder" and e.steps == 1}
        kernels = program.report["layers"].values()
        made[f"{policy} on {target}"] = dict(cycles_a_frame=sum(cycles.values()), passes=len(cycles),
                                             bytes=sum(k["bytes"] for k in kernels))
    table = Table("policy and machine", "cycles a frame, all passes", "passes", "bytes of weights")
    for name, m in made.items():
        table.add_row(name, f"{m['cycles_a_frame']:,}", str(m["passes"]), f"{m['bytes']:,}")
    stage.say(table)
    return made


def _calibrated(plan: Any, frames: int = 40) -> Hybrid:
    """A module of random weights that has seen noise: sizes and times do not ask for more."""
    torch.manual_seed(0)
    module = Hybrid(lower_plan(plan), None, plan)
    x = torch.randn(frames, 1, plan.graph.inputs["features"])
    module.calibrate([(x, torch.tensor([frames]))])
    module.eval()
    return module


def _random_program(plan: Any) -> Program:
    return compile_graph(_calibrated(plan).bind(), plan.target, Settings.of(plan))


def options(stage: Stage) -> dict[str, Any]:
    """The decoder's options on dev, one at a time away from the defaults; the time of one core."""
    network, words = acoustic.load(stage.at("float.nnc")), graph.load(stage.at("words.graph"))
    dev = load_split(stage.corpus, "dev").first(DEV)
    hearing, scores = acoustic.RealHearing(network.model), [np.zeros(0)] * len(dev)
    for rows in by_length([len(f) for f in dev.features], 64):
        x, lengths = pad([network.normalisation.apply(dev.features[i]) for i in rows])
        made, ends = hearing.encode(torch.from_numpy(x), torch.from_numpy(lengths))
        for b, i in enumerate(rows):
            scores[i] = made[:ends[b], b]
    seconds = sum(dev.seconds)
    table = Table("option", "WER on dev", "seconds an utterance", "real-time factor", title="decoding, one core")
    out: dict[str, Any] = {}
    tried: list[dict[str, Any]] = [{}, *(dict(beam=v) for v in (8.0, 10.0, 14.0, 16.0)), dict(active=500),
                                   *(dict(acoustic=v) for v in (0.3, 0.8, 1.0)), *(dict(prior=v) for v in (0.5, 1.0)),
                                   dict(nbest=4)]
    for changed in tried:
        search = GraphSearch(words, network.hmm, **changed)
        search.sentences(scores[0])                                       # the graph is loaded once, not for each
        begun = time.process_time()
        texts = [network.front.text(search.sentences(s)[0].tokens) for s in scores]
        took = time.process_time() - begun
        name = ", ".join(f"{k} {v:g}" for k, v in changed.items()) or "defaults"
        errors = word_errors(dev.texts, texts).rate
        table.add_row(name, f"{errors:.2f}", f"{took / len(dev):.4f}", f"{took / seconds:.4f}")
        out[name] = dict(wer=round(errors, 3), rtf=round(took / seconds, 5))
    stage.say(table)
    return dict(decode_rtf=out["defaults"]["rtf"], options=out)


def compared(stage: Stage) -> dict[str, Any]:
    """Training module against emulator, every integer and every sentence with its times and score."""
    path = stage.at("calibrated.nnc")
    if not path.is_file():
        run("train", SMALL, "--policy", "int4_dblstm", "--float", stage.at("float.nnc"), "--corpus", stage.corpus,
            "--alignments", stage.at("second.ali"), "--steps", "0", "--out", path, "--json")
    trained = compiler.trained(path)
    program = compiler.program(trained)
    program.save(stage.at("calibrated.nnp"))
    program = Program.load(stage.at("calibrated.nnp"))
    front = front_end_of(program)
    assert front.hmm is not None
    listed = read_manifest(manifest_path(stage.corpus, "voice"))[:FILES]
    search = GraphSearch(graph.load(stage.at("words.graph")), front.hmm, nbest=4)
    done = compare(trained.module, Emulator(program), front, [front.hear(u.audio)[0] for u in listed], search=search)
    errors = word_errors([u.text for u in listed], done.texts)
    stage.say(f"{len(listed)} utterances, calibrated only: {done.compared:,} integers, {done.different:,} different; "
              f"sentences different {done.different_transcripts}, lists of 4 {done.different_nbest}; WER {errors}")
    return dict(compared_integers=done.compared, different_integers=done.different,
                different_transcripts=done.different_transcripts, different_nbest=done.different_nbest)


def large(stage: Stage) -> dict[str, Any]:
    """The paper's size: how long it takes, and one utterance of 2 seconds on the emulator."""
    begun = time.monotonic()
    plan = load(LARGE, "int4_dblstm").plan
    linted = time.monotonic()
    lower_plan(plan)
    lowered = time.monotonic()
    module = _calibrated(plan)
    bound = module.bind()
    binding = time.monotonic()
    program = compile_graph(bound, plan.target, Settings.of(plan))
    compiled = time.monotonic()
    emulator, frames = Emulator(program), 200
    name, = emulator.inputs["encoder"]
    x = np.random.default_rng(0).integers(-7, 8, (frames, 1, emulator.values[name].width))
    expected, _ = Torch(module).run("encoder", {name: x}, Torch(module).initial_state("encoder", 1))
    heard = time.monotonic()
    got, _ = emulator.run("encoder", {name: x}, emulator.initial_state("encoder", 1))
    wall = time.monotonic() - heard
    different = sum(int((expected[k] != got[k]).sum()) for k in expected)
    total = (lowered - begun) + (compiled - binding)
    kernels = program.report["layers"].values()
    size = sum(k["bytes"] for k in kernels)
    facts = dict(weights_43m=plan.graph.weights, compile_s_43m=round(total, 2), lint_s_43m=round(linted - begun, 3),
                 bits_43m=round(8 * size / plan.graph.weights, 3), cycles_43m=emulator.cycles("encoder"),
                 emulated_s_43m=round(wall, 1), compared_43m=int(sum(v.size for v in expected.values())),
                 different_43m=different)
    stage.say(f"{LARGE}: {plan.graph.weights:,} weights; lint, lower, compile {total:.1f} s; {size:,} bytes; "
              f"{frames} frames in {wall:.1f} s on the emulator, {facts['cycles_43m']:,} cycles a frame; "
              f"{different} of {facts['compared_43m']:,} outputs differ from the training module's")
    return facts


PARTS: dict[str, Callable[[Stage], dict[str, Any]]] = dict(float=from_nothing, wer=wer, options=options,
                                                           compared=compared, large=large)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", type=Path, required=True)
    p.add_argument("--runs", type=Path, default=Path("runs/hybrid"))
    p.add_argument("--results", type=Path, default=Path("results"))
    p.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between ({','.join(PARTS)})")
    p.add_argument("--json", type=Path, help="also write the JSON object here")
    args = p.parse_args()
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    stage = Stage(args.runs, args.corpus, args.results, Console(width=150).print)
    found: dict[str, Any] = {}
    for name in args.only.split(","):
        found |= PARTS[name](stage)
    line = json.dumps(found)
    if args.json:
        args.json.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
