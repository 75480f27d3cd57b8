"""Search and latency in one run: word errors by beam and fusion, n-best lists of three executors, what search costs,
when the text is there.

    python -m benchmarks.bench_search --float FILE --corpus DIR [--runs DIR] [--utterances N] [--compared N] [--only
    PART,…] [--json FILE]

    wer       what `make results-fusion` stored (--stored), by row, domain, fusion and beam; where nothing is stored,
              float network and int8 training module, on `home` and `sent`: greedy, and beams 1 to 16 without fusion
              and with each one, weights from `nnac tune-fusion` on `home_dev` (the float network's; every fusion on
              one grid); intervals are paired with beam search without fusion at the same beam
    compared  n-best lists (4 best of beam 4, density ratio with two LSTM language models) of training module,
              reference and emulator, label times and scores included
    cost      cycles a frame and host's share of the wall time on the emulator: greedy against beam 8, without language
              models, with n-grams on the host, with two LSTMs on the machine
    rapid     57 M weights and two language models on `rapid` and `rapid_chip`, INT4 against 16 bits: real-time factor
              and cycles of a recognition with beam and fusion, and the bytes and the unit that decide them
    latency   UPL and engine latency, int8 against 5-bit codebooks, from real time to much audio that waits; the
              machine is also slowed down, since only a backlog lets compression change what a user waits for: the
              whole curve is printed

Parts keep their results under --runs and are not done again.  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen
from rich.console import Console
from rich.table import Table

from nnac import compiler
from nnac.cli import main as nnac
from nnac.commands._network import Listener, listener
from nnac.companions import beside
from nnac.decode import tuning
from nnac.decode.front_end import front_end_of
from nnac.decode.fusion import Fusion
from nnac.decode.ngram import Automaton, automaton, read_arpa
from nnac.decode.search import Search
from nnac.decode.search.beam import Beam
from nnac.decode.search.greedy import Greedy
from nnac.emulator.executor import Emulator
from nnac.executors import Subject
from nnac.files import atomic
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.latency.measure import compared, listen, measure
from nnac.latency.plane import moved
from nnac.latency.simulate import Scenario
from nnac.lower import lower
from nnac.model import build
from nnac.ops import operator
from nnac.plan import Decode
from nnac.policy import loads
from nnac.program import Program
from nnac.report import experiments, outcomes
from nnac.runtime import recognise
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.passes import split
from nnac.speech.audio import read_manifest
from nnac.speech.corpus import load_split, manifest_path
from nnac.speech.wer import WordErrors, difference_interval, word_errors
from nnac.target import Target
from tests.graphs import bind_randomly, random_graph

BEAMS = (1, 2, 4, 8, 16)
FUSIONS = Path("specs/comparison/fusion.toml")
RAPID = ("rapid", "rapid_chip")
INNER = ("joint.encoder", "joint.prediction", "joint.combine", "joint.output", "lm.output", "lm.scores")
PARTS = ("wer", "compared", "cost", "rapid", "latency")
FUSION = ("density_ratio", 0.3, 0.2)   # near the optimum of every tuning so far, where none has been run here
POLICIES = {"int8": ("specs/rnnt_int8.nnac", {}), "gq5": ("specs/papers/gq5.nnac", {"bits": "5"})}
WAITING = (0.0, 0.5, 1.0, 1.5)         # seconds of audio that are there when the engine is woken
# the machine's clock is divided by these: the small model takes 1 % of real time at 1
SLOWER = (1, 8, 32, 64, 96, 112, 128)


@frozen(eq=False)
class Stage:
    """What all parts need."""

    runs: Path
    corpus: Path
    float_path: Path
    utterances: int | None
    compared: int
    stored: Path
    say: Callable[[Any], None]

    def arpa(self, name: str) -> Path:
        """An n-gram model of ``home`` or ``train``, counted once."""
        path = self.runs / f"{name}.arpa"
        if not path.is_file():
            run("ngram", "--tokens", self.float_path, "--text", self.corpus / f"{name}.txt", "--out", path)
        return path

    def trained(self, name: str) -> Path:
        """The training module of a policy, calibrated on real speech (no steps of training), and its program beside
        it."""
        path, (policy, define) = self.runs / f"{name}.nnc", POLICIES[name]
        if not path.is_file():
            defined = [a for k, v in define.items() for a in ("-D", f"{k}={v}")]
            run("train", policy, "--float", self.float_path, "--corpus", self.corpus, "--out", path, "--steps", "0",
                "--json", *defined)
        return path

    def language(self, name: str) -> Path:
        """An LSTM language model of ``home`` or ``train`` at int8: 400 steps of a float network, then calibrated."""
        path, start = self.runs / f"{name}-lm.nnc", self.runs / f"{name}-lm-float.nnc"
        text = self.corpus / f"{name}.txt"
        if not path.is_file():
            run("baseline", "--text", text, "--tokens", self.float_path, "--out", start, "--steps", "400", "--json")
            run("train", "specs/lm_int8.nnac", "--float", start, "--text", text, "--out", path, "--steps", "0",
                "--json")
        return path

    def whole_program(self) -> Path:
        """The int8 recogniser with both LSTM language models in one program."""
        path = self.runs / "int8-lms.nnp"
        if not path.is_file():
            target, source = (compiler.trained(self.language(n)) for n in ("home", "train"))
            languages = dict(lm=target, source_lm=source)
            compiler.program(compiler.trained(self.trained("int8")), languages).save(path)
        return path

    def program(self, name: str) -> Path:
        path = self.runs / f"{name}.nnp"
        if not path.is_file():
            compiler.program(compiler.trained(self.trained(name))).save(path)
        return path

    def models(self, heard: Listener) -> tuple[Automaton, Automaton]:
        """(the target's, the source's)."""
        target, source = (automaton(read_arpa(self.arpa(n), heard.front.tokens)) for n in ("home", "train"))
        return target, source

    def ratio(self) -> tuning.Point:
        """Weights of the density ratio: tuned, where that has been done."""
        return self.tuned()["density_ratio"] if (self.runs / "tune.jsonl").is_file() else tuning.Point(*FUSION)

    def tuned(self) -> dict[str, tuning.Point]:
        """The best point of each fusion on `home_dev`, with the float network."""
        path = self.runs / "tune.jsonl"
        run("tune-fusion", self.float_path, "--corpus", self.corpus, "--lm", self.arpa("home"), "--source-lm",
            self.arpa("train"), "--out", path, "--json")
        first = json.loads(path.read_text().splitlines()[0])["of"]
        return {f: r.point for f, r in tuning.best(list(tuning.load(path, first).values())).items()}


def run(*words: object) -> None:
    """A command of nnac, its output on standard error.  SystemExit if it fails."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        if nnac([str(w) for w in words]) != 0:
            raise SystemExit(f"nnac {' '.join(map(str, words))} failed")
    finally:
        sys.stdout = kept


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON of a file, made if it is absent."""
    if not path.is_file():
        made = make()
        with atomic(path, "w") as out:
            json.dump(made, out)
    return json.loads(path.read_text())


# --------------------------------------------------------------------------------------------------------- word errors

def stored(stage: Stage) -> dict[str, Any]:
    """Row -> domain -> fusion -> beam -> rate, the mean of its seeds; empty where nothing is stored."""
    made = experiments.load(FUSIONS)
    out: dict[str, Any] = {}
    for row, runs in outcomes.load_all(stage.stored, [(r.name, r.seeds) for r in made.rows]).items():
        for domain in (runs[0].heard if runs else ()):
            rates = out.setdefault(row, {}).setdefault(domain, {})
            rates["greedy"] = round(float(np.mean([_rate(o.heard[domain]) for o in runs])), 2)
            for s in runs[0].searched:
                found = [o.by(s.fusion, s.beam) for o in runs]
                heard = [o.heard[domain] for o in found if o is not None and domain in o.heard]
                if heard:
                    rates.setdefault(s.fusion, {})[str(s.beam)] = round(float(np.mean([_rate(h) for h in heard])), 2)
    return out


def _rate(heard: outcomes.Heard) -> float:
    return 100 * (heard.substitutions + heard.deletions + heard.insertions) / max(1, heard.words)


def wer(stage: Stage) -> dict[str, Any]:
    """network -> domain -> fusion -> beam -> rate; with intervals."""
    if found := stored(stage):
        stage.say(f"word errors as stored in {stage.stored}: {', '.join(found)}")
        return dict(wer=found)
    points = {"none": tuning.Point("none")} | {f: p for f, p in stage.tuned().items() if f != "none"}
    table = Table("network", "domain", "search", *(f"beam {k}" for k in BEAMS),
                  title="word errors, %, and the difference from no fusion at the same beam with its 95 % interval")
    out: dict[str, Any] = {}
    for name, path in (("float", stage.float_path), ("int8", stage.trained("int8"))):
        heard = listener(str(path))
        models = stage.models(heard)
        for domain in ("home", "sent"):
            split = load_split(stage.corpus, domain)
            split = split if stage.utterances is None else split.first(stage.utterances)
            encoded: list[tuning.Encoded] = []

            def errors(search: Search, label: str, name: str = name, domain: str = domain, heard: Listener = heard,
                       split: Any = split, encoded: list[tuning.Encoded] = encoded) -> WordErrors:
                def make() -> list[str]:
                    if not encoded:
                        features = [heard.front.normalisation.apply(np.asarray(f, np.float32)) for f in split.features]
                        encoded.append(tuning.Encoded.of(heard.model, features, carry=heard.carry))
                    return encoded[0].texts(heard.model, search, heard.front.text)
                path = stage.runs / "wer" / f"{name}-{domain}-{len(split)}-{label}.json"
                return word_errors(split.texts, kept(path, make))

            greedy = errors(Greedy(), "greedy")
            found: dict[str, Any] = {"greedy": round(greedy.rate, 2)}
            table.add_row(name, f"{domain} ({len(split)})", "greedy", f"{greedy.rate:.2f}")
            plain = {k: errors(Beam(k), f"none-{k}") for k in BEAMS}
            for fusion, point in points.items():
                cells, found[fusion] = [], {}
                weights = "" if fusion == "none" else f"-{point.weight:g}-{point.less:g}-{point.bonus:g}"
                for k in BEAMS:
                    e = errors(Beam(k, fusion=point.build(*models)), f"{fusion}{weights}-{k}")
                    low, high = difference_interval(plain[k], e)
                    less = e.rate - plain[k].rate
                    found[fusion][str(k)] = dict(rate=round(e.rate, 2), difference=round(less, 2),
                                                 interval=[round(low, 2), round(high, 2)])
                    cells.append(f"{e.rate:.2f}" + (f"\n{less:+.1f} ({low:+.1f} … {high:+.1f})" if weights else ""))
                options = point.options().removeprefix("--search beam ") if weights else ""
                table.add_row("", "", f"{fusion}\n{options}".strip(), *cells)
            out.setdefault(name, {})[domain] = found
    stage.say(table)
    return dict(wer=out, weights={f: p.options() for f, p in points.items()})


# -------------------------------------------------------------------------------------------------------- n-best lists

def nbest(stage: Stage) -> dict[str, Any]:
    """The same lists from three executors."""
    def make() -> dict[str, Any]:
        trained = compiler.trained(stage.trained("int8"))
        target, source = (compiler.trained(stage.language(n)) for n in ("home", "train"))
        languages = dict(lm=target, source_lm=source)
        point = stage.ratio()
        how = Beam(4, nbest=4, fusion=Fusion(("lm", "source_lm"), (point.weight, -point.less), bonus=point.bonus))
        features: list[Any] = []
        for name in ("home", "sent", "voice", "train"):
            split = load_split(stage.corpus, name)
            features += [trained.front.normalisation.apply(np.asarray(f, np.float32)) for f in split.features]
        features = features[: stage.compared]
        subject = Subject(trained, compiled=Program.load(stage.whole_program()), languages=languages)
        lists: dict[str, Any] = {}
        for engine in ("torch", "emulator", "reference"):
            begun = time.monotonic()
            lists[engine] = recognise(subject, features, 1.0, engine=engine, batch=64, quiet=False, search=how).nbest
            print(f"{engine}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
        different = sum(any(lists[e][i] != lists["torch"][i] for e in lists) for i in range(len(features)))
        return dict(compared_nbest=len(features) * len(lists), compared_utterances=len(features),
                    different_nbest=different)

    found = kept(stage.runs / f"nbest-{stage.compared}.json", make)
    stage.say(f"n-best lists of {found['compared_utterances']} utterances on training module, emulator and reference: "
              f"{found['different_nbest']} differ")
    return found


# --------------------------------------------------------------------------------------------------- cost of searching

@contextmanager
def timed(owner: type, name: str, spent: dict[str, float], inside: str = "") -> Iterator[None]:
    """Add up the seconds inside a method of a class, ``spent[name]``; ``inside``: only those within another method
    that is timed."""
    before = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        begun, counts = time.perf_counter(), not inside or spent.get(f"in {inside}")
        spent[f"in {name}"] = 1.0
        try:
            return before(*args, **kwargs)
        finally:
            spent[f"in {name}"] = 0.0
            spent[name] = spent.get(name, 0.0) + (time.perf_counter() - begun if counts else 0.0)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, before)


def cost(stage: Stage) -> dict[str, Any]:
    """Cycles a frame, an utterance alone as on a device; the share of wall time that searching takes outside the
    emulator, 16 in lockstep."""
    program = Program.load(stage.whole_program())
    front = front_end_of(program)
    split = load_split(stage.corpus, "home").first(60)
    features = [front.normalisation.apply(np.asarray(f, np.float32)) for f in split.features]
    point = stage.ratio()
    searches: dict[str, Search] = dict(greedy=Greedy(), beam4=Beam(4), beam8=Beam(8))
    pairs: dict[str, Any] = dict(beam8_two_ngrams=stage.models(listener(str(stage.program("int8")))),
                                 beam8_two_lms=("lm", "source_lm"))
    for name, pair in pairs.items():
        searches[name] = Beam(8, fusion=Fusion(pair, (point.weight, -point.less), bonus=point.bonus))
    table = Table("search", "cycles a frame", "joint a frame", "prediction a frame", "host's share of wall",
                  title="int8 on edge; hypotheses of a round share its calls, states moved are counted")
    found: dict[str, Any] = {}
    for name, how in searches.items():
        spent: dict[str, float] = {}
        recognise(Subject(compiled=program), features[:4], 1.0, quiet=True, search=how)      # plans are translated once
        with timed(Emulator, "run", spent, "over"), timed(type(how), "over", spent):
            done = recognise(Subject(compiled=program), features, sum(split.seconds), quiet=True, search=how)
        frames, cycles = done.steps["encoder"], done.cycles_per_frame or 0.0
        share = (spent["over"] - spent["run"]) / done.wall_s
        found[name] = dict(cycles=round(cycles), joint=round(done.steps["joint"] / frames, 2), share=round(share, 3),
                           prediction=round(done.steps["prediction"] / frames, 2))
        each = [f"{done.steps[e] / frames:.2f}" for e in ("joint", "prediction")]
        table.add_row(name, f"{cycles:,.0f}", *each, f"{share:.1%}")
    stage.say(table)
    over = found["beam8_two_lms"]["cycles"] / found["greedy"]["cycles"]
    return dict(cost=found, beam8_two_lms_over_greedy_cycles=round(over, 3),
                search_share_of_wall=found["beam8_two_lms"]["share"])


# --------------------------------------------------------------------------------------------------------------- rapid

def rapid(stage: Stage) -> dict[str, Any]:
    """Machines of the INT4 papers.  Weights are random: time depends on no data."""
    how = Decode("beam", 8, fusion="density_ratio", weight=0.3, less=0.2)
    table = Table("target", "weights", "cycles a frame", "RTF", "encoder", "prediction", "language models",
                  "DRAM bytes of a layer's call", "bus busy", "compiled, CPU s",
                  title="saon57m, two LSTM language models of its prediction network's size; beam 8, 16 frames")
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for bits in (4, 16):
        graph = spoken(bits)
        raw = {f"{n.path}.{k}": "raw" for n in split(graph).graph.nodes for k in ("weight", "input", "recurrent")}
        for target in (rapid_target(name) for name in RAPID):
            begun = time.process_time()
            settings = Settings(frames=16, hypotheses=8, decode=how, codecs=raw if bits == 16 else {})
            program = compile_graph(graph, target, settings)
            took, searched, report = time.process_time() - begun, program.report["search"], program.report["entries"]
            layer = report["encoder.lstm[1].forward.steps"]
            busy = layer["dram_bytes"] / target.dram.bandwidth * target.clock / layer["cycles"]
            each = searched["entries"]
            languages = each["lm"] + each["source_lm"]
            found.setdefault(bits, {})[target.name] = dict(
                rtf=round(searched["rtf"], 5), cycles=searched["cycles_per_frame"], bytes=layer["dram_bytes"],
                busy=round(busy, 3), compile_cpu_s=round(took, 1))
            table.add_row(target.name, "INT4" if bits == 4 else "16 bits", f"{searched['cycles_per_frame']:,}",
                          f"{searched['rtf']:.4f}", f"{each['encoder']:,}", f"{each['prediction']:,}", f"{languages:,}",
                          f"{layer['dram_bytes']:,}", f"{busy:.1%}", f"{took:.1f}")
    stage.say(table)
    four, wide = found[4], found[16]
    return dict(rapid_rtf={n: f["rtf"] for n, f in four.items()},
                rapid_fp16_over_int4={n: round(wide[n]["cycles"] / four[n]["cycles"], 3) for n in four},
                rapid_bytes_fp16_over_int4={n: round(wide[n]["bytes"] / four[n]["bytes"], 3) for n in four},
                rapid_bus_busy={n: [four[n]["busy"], wide[n]["busy"]] for n in four},
                rapid_compile_cpu_s={n: f["compile_cpu_s"] for n, f in four.items()})


def spoken(bits: int) -> QGraph:
    """The 57 M recogniser with ``lm`` and ``source_lm`` beside it, weights and activations of so many bits.

    16 bits stand in for FP16: as many bytes.  The machine sums in 32 bits, so the values are small; their streams are
    raw, 16 bits a weight.
    """
    recogniser = random_graph(0, size="saon57m", precision=lambda path: Precision(16 if path in INNER else bits,
                                                                                  hidden=bits), bits=4)
    model = build("lm", vocabulary=46, embedding=64, cells=768)
    unbound = lower(model, lambda path: Precision(16 if path in INNER else bits, hidden=bits))
    unbound = evolve(unbound, metadata=dict(unbound.metadata) | dict(vocabulary=46))
    language = bind_randomly(unbound, np.random.default_rng(1), bits=4)
    both = beside(beside(recogniser, "lm", language), "source_lm", language)
    return both if bits == 4 else both.with_nodes(tuple(evolve(n, constants={
        k: v.astype(np.int16) if v.ndim == 2 and not operator(n.op).by_index else v
        for k, v in n.constants.items()}) for n in both.nodes))


def rapid_target(name: str) -> Target:
    text = (f'import "targets/{name}.nnac"\npolicy p {{\n  model rnnt(size="tiny")\n  target {name}\n  layers ** '
            '{ weights int8 }\n}\n')
    return loads(text).plan.target


# ------------------------------------------------------------------------------------------------------------- latency

def latency(stage: Stage) -> dict[str, Any]:
    """UPL of two policies: as it is, and along the curve where a backlog grows."""
    listed = read_manifest(manifest_path(stage.corpus, "sent"))
    programs = {name: Program.load(stage.program(name)) for name in POLICIES}
    heard = listen(front_end_of(programs["int8"]), listed, Scenario().hangover_s)
    done = {name: measure(p, heard, Scenario(), Greedy(), quiet=True) for name, p in programs.items()}
    table = Table("clock", "audio waiting", "work/audio", "UPL P90 int8", "gq5", "change, 95 % interval",
                  title=f"{len(heard)} sentences, small model on edge, greedy, hangover 200 ms")
    curve = []
    for slower in SLOWER:
        for waiting in WAITING:
            now = {name: moved(d, slower, waiting) for name, d in done.items()}
            share, (low, high) = compared(now["int8"], now["gq5"])["upl_p90"]
            p90 = {n: 1e3 * m.quantiles()["upl"].p90 for n, m in now.items()}
            rtf = now["int8"].rtf
            point = dict(clock_divided_by=slower, waiting_s=waiting, rtf=round(rtf, 4), share=round(share, 4),
                         interval=[round(low, 4), round(high, 4)])
            curve.append(point | {f"{n}_ms": round(v, 2) for n, v in p90.items()})
            changed = f"{100 * share:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})"
            ms = [f"{p90[n]:.1f} ms" for n in ("int8", "gq5")]
            table.add_row(f"/ {slower}", f"{waiting:g} s", f"{rtf:.3f}", *ms, changed)
    stage.say(table)
    p90s = {name: {n: round(1e3 * d.quantiles()[name].p90, 3) for n, d in done.items()} for name in ("upl", "engine")}
    return dict(upl_p90_ms={"small": p90s["upl"]}, engine_p90_ms={"small": p90s["engine"]}, upl_curve=curve)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--float", dest="float_path", type=Path, default=Path("networks/demo.nnc"))
    p.add_argument("--corpus", type=Path, required=True)
    p.add_argument("--runs", type=Path, default=Path("runs/search"))
    p.add_argument("--utterances", type=int, help="of each domain, for the word errors (all)")
    p.add_argument("--compared", type=int, default=1000, help="utterances of which n-best lists are compared (1000)")
    p.add_argument("--stored", type=Path, default=Path("results/fusion"), help="what `make results-fusion` stored")
    p.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between ({','.join(PARTS)})")
    p.add_argument("--json", type=Path, help="also write the JSON object here")
    args = p.parse_args()
    console = Console(width=150)
    args.runs.mkdir(parents=True, exist_ok=True)
    stage = Stage(args.runs, args.corpus, args.float_path, args.utterances, args.compared, args.stored,
                  console.print)
    parts = dict(wer=wer, compared=nbest, cost=cost, rapid=rapid, latency=latency)
    found: dict[str, Any] = {}
    for name in args.only.split(","):
        found |= parts[name](stage)
    line = json.dumps(found)
    if args.json:
        args.json.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
