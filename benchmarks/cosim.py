"""Co-simulation: programs' bytes on the RTL core and on the emulator, every integer of memory and every cycle compared.

    python -m benchmarks.cosim [--short] [--programs N] [--program FILE.nnp [--audio FILE.wav]] [--jobs N]

1. Random legal programs on `tiny` and `edge`: all instructions, all codecs; A, W, indices, ACC, LUT, DRAM at HALT and
   first and last cycle of every instruction.  And programs that only stress time.
2. The demo's program (`nnac demo`; ``--program``: another), all entries, with its frames of speech (``--audio``).
3. Faults planted in the core, in the numbers of the emulator's machine, and in its rules of time: each must be found.
4. Lines of the core's Verilog that ran, by Verilator; those that did not are listed.

What has been compared is kept in ``--state``, piece by piece, and counted again while neither the core's Verilog nor
what makes and judges the programs has changed: a run that was stopped goes on.  A part that ``--minutes`` or
``--without`` leaves out has no figures.

``--short`` is what the test suite has time for.  Needs Verilator and a C++ compiler, or a core built elsewhere
(``--library tiny=core.so``).  The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from nnac.emulator.errors import MachineError
from nnac.emulator.listing import find_target
from nnac.emulator.machine import Machine
from nnac.emulator.timing import Timing, simulate
from nnac.isa import Instruction, MachineConfig
from nnac.program import INIT, Program
from nnac.rtl.build import Built, build, simulator, written
from nnac.rtl.core import countable, simulated
from nnac.rtl.cosim import differences, emulated, on_core
from nnac.rtl.machine import CoreFault, CoreMachine
from nnac.rtl.program import ProgramOnCore
from tests.machine_programs import compiled, full, stress
from tests.rtl_mutants import FAULTS, plant
from tests.rtl_programs import ALL, IMAGE, SCRATCH, Draw, roots
from tests.time_mutants import RULES, planted

ROOT = Path(__file__).parents[1]
LENGTH = dict(tiny=250, edge=120)  # instructions of a random program
TIME_DRAM = 5 << 20
# seeds, or faults, that are done at once
PIECE = dict(random_programs=20, timing_programs=100, core_faults=8, model_faults=17)
DEMO = Path("runs/demo")
# what makes and judges the programs: a change there, or in the core, and nothing of before counts
JUDGES = ("nnac/arith.py", "nnac/codec", "nnac/isa", "nnac/emulator", "nnac/rtl/cosim.py", "nnac/rtl/machine.py",
          "nnac/rtl/program.py", "tests/rtl_programs.py", "tests/machine_programs.py", "tests/rtl_mutants.py",
          "tests/time_mutants.py", "benchmarks/cosim.py")


def machine(target: str) -> MachineConfig:
    return MachineConfig.of(find_target(target))


# ---- random programs


def random_programs(target: str, library: str, seeds: range) -> dict[str, Any]:
    """Programs with data, by seed; figures of the comparison."""
    config = machine(target)
    core = CoreMachine(config, np.zeros(IMAGE + SCRATCH, np.uint8), made(library))
    found = dict(programs=0, instructions=0, mismatches=0, illegal=0, integers=0)
    first: list[str] = []
    for seed in seeds:
        case = Draw(seed, config, ALL).program(LENGTH[target])
        try:
            want = emulated(case)
        except MachineError:
            found["illegal"] += 1
            continue
        try:
            lines = differences(core, on_core(core, case), case, want)
        except CoreFault as error:
            lines = [str(error)]
        found["programs"] += 1
        found["instructions"] += len(case.code)
        m = want.memories
        found["integers"] += m.a.size + m.w.size + m.index.size + m.acc.size + m.luts.size + m.scratch.size
        if lines:
            found["mismatches"] += 1
            first = first or [f"{target} seed {seed}: {lines[0]}"]
    return found | dict(cycles=core.cycles, core_s=core.seconds, first=first)


def timing_programs(target: str, library: str, seeds: range) -> dict[str, Any]:
    """Programs of whose data nothing is expected: queues, semaphores and the bus under stress."""
    config = machine(target)
    core = CoreMachine(config, np.zeros(TIME_DRAM, np.uint8), made(library))
    found = dict(programs=0, instructions=0, mismatches=0)
    first: list[str] = []
    for seed in seeds:
        for make in (compiled, stress, full):
            code, _ = make(seed, config)
            try:
                want = simulate(code, config)
            except MachineError:
                continue
            found["programs"] += 1
            found["instructions"] += len(code)
            if not same_time(core, code, want):
                found["mismatches"] += 1
                first = first or [f"{target} {make.__name__} seed {seed}: times differ"]
    return found | dict(cycles=core.cycles, core_s=core.seconds, first=first)


def made(library: str) -> Built:
    return Built(Path(library))


def same_time(core: CoreMachine, code: Sequence[Instruction], want: Timing) -> bool:
    """Whether the core's times are those; a core that does not come to HALT has others."""
    core.reset()
    try:
        got = core.run(code, limit=2 * want.cycles + 1000, time_only=True)
    except CoreFault:
        return False
    return bool((got.start == want.start).all() and (got.done == want.done).all())


# ---- pieces of work, kept


class Kept:
    """Figures of the pieces that are done, by name and digest of all that they depend on; a file of JSON lines."""

    def __init__(self, path: Path | None, libraries: dict[str, Path]) -> None:
        self.path, self.done = path, dict[str, dict[str, Any]]()
        text = hashlib.sha256()
        for name in JUDGES:
            for file in sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]:
                text.update(file.read_bytes())
        self.judges = text.hexdigest()[:12]
        self.cores = {k: v.parent.name[:12] for k, v in libraries.items()}
        if path and path.exists():
            for line in path.read_text().splitlines():
                try:
                    found = json.loads(line)
                    self.done[found["key"]] = found["figures"]
                except (ValueError, KeyError):
                    print(f"{path}: a line that is no piece is passed over")

    def key(self, work: str, core: str, part: str) -> str:
        return f"{work} {core}:{self.cores[core]} {part} {self.judges}"

    def put(self, key: str, figures: dict[str, Any]) -> None:
        self.done[key] = figures
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as out:
                out.write(json.dumps(dict(key=key, figures=figures)) + "\n")


def digest(*parts: bytes | str) -> str:
    return hashlib.sha256(b"\0".join(p.encode() if isinstance(p, str) else p for p in parts)).hexdigest()[:12]


def pieces(count: int, size: int) -> dict[str, tuple[Any, ...]]:
    """The numbers below ``count``, so many at a time, each piece by its name: what comes behind target and library."""
    ranges = (range(k, min(count, k + size)) for k in range(0, count, size))
    return {f"{r.start}-{r.stop}": (r,) for r in ranges}


@frozen
class Pieces:
    """How pieces of work are done: on ``jobs`` processes, those that are kept not again, none begun after ``until``."""

    kept: Kept
    jobs: int
    until: float

    def figures(
        self, work: Callable[..., dict[str, Any]], target: str, core: str, library: Path,
        parts: dict[str, tuple[Any, ...]],
    ) -> dict[str, Any]:
        """The figures of all pieces that are done, added up; empty, if none is."""
        kept = self.kept
        named = {kept.key(work.__name__, core, part): arguments for part, arguments in parts.items()}
        missing = [key for key in named if key not in kept.done]
        running: dict[Any, str] = {}
        with ProcessPoolExecutor(max(1, min(self.jobs, len(missing)))) as pool:
            while missing or running:
                while missing and len(running) < self.jobs and time.monotonic() < self.until:
                    key = missing.pop(0)
                    running[pool.submit(work, target, str(library), *named[key])] = key
                if not running:
                    break
                ended = next(as_completed(running))
                kept.put(running.pop(ended), ended.result())
        if missing:
            print(f"{work.__name__} on {target}: {len(missing)} of {len(named)} pieces are left for another run")
        done = [kept.done[key] for key in named if key in kept.done]
        if not done:
            return {}
        return {k: sum((d[k] for d in done), start=[] if isinstance(done[0][k], list) else 0) for k in done[0]}


# ---- a network


def network(target: str, library: str, frames: int, path: str, audio: str | None) -> dict[str, Any]:
    """Every entry, call by call: outputs, all of A, W, ACC, LUT beside the interpreting emulator's."""
    program = Program.load(path)
    core, want = ProgramOnCore(program, built=made(library)), Machine(program, fast=False)
    rng = np.random.default_rng(0)
    speech = spoken(program, audio) if audio else None
    out = dict(frames=0, bytes=0, different=0, entries=0)
    for name, entry in program.entries.items():
        if name == INIT:
            continue
        out["entries"] += 1
        calls = -(-frames // entry.steps) if entry.model_entry == "encoder" else frames
        at = 0
        for _ in range(calls):
            given = {}
            for port in entry.inputs:
                value = program.values[port.value]
                limit = 1 << value.bits - 1
                shape = (port.vectors, 1, port.width)
                if value.bits > 16:  # a label: a row of the embedding
                    given[port.value] = rng.integers(0, 16, shape)
                elif speech is not None and entry.model_entry == "encoder" and port.width == speech.shape[-1]:
                    given[port.value] = speech[at : at + port.vectors]
                    at += port.vectors
                else:
                    given[port.value] = rng.integers(-limit, limit, shape)
            a, b = core.run(name, given), want.run(name, given)
            out["frames"] += entry.steps * (entry.model_entry == "encoder")
            m = want.memories
            for got, expected in (
                *((a[k], b[k]) for k in b),
                (core.a[0], m.a[0]),
                (core.core.w, m.w),
                (core.core.index, m.index),
                (core.core.acc, m.acc[0]),
                (core.core.luts, m.luts),
            ):
                out["bytes"] += got.nbytes
                out["different"] += int((got != expected).sum())
    return out | dict(
        cycles=core.core.cycles, core_s=core.core.seconds, instructions=core.instructions, speech=bool(audio)
    )


def spoken(program: Program, audio: str) -> np.ndarray:
    """The integers [frames, 1, bins] that the program's front end makes of a file."""
    from nnac.decode.front_end import end_from_json
    from nnac.speech.audio import load_audio

    front = end_from_json(program.metadata["front_end"])
    name = next(p.value for e in program.entries.values() if e.model_entry == "encoder" for p in e.inputs)
    v = program.values[name]
    from nnac import arith

    features = front.prepare(load_audio(audio, front.features.rate))
    return arith.quantise(np.asarray(features)[:, None], v.scale, v.zero_point, v.bits)


# ---- faults


@cache
def fault_programs(target: str) -> tuple[list[Any], list[Any]]:
    """([(program with data, what the emulator says)], [(program of time, its times)])"""
    config = machine(target)
    cases, times = [(case := roots(config), emulated(case))], []
    for seed in range(60):
        case = Draw(seed, config, ALL).program(100)
        try:
            cases.append((case, emulated(case)))
        except MachineError:
            continue
    for seed in range(60):
        for make in (compiled, stress, full):
            code, _ = make(seed, config)
            try:
                times.append((code, simulate(code, config)))
            except MachineError:
                continue
    return cases, times


def core_faults(target: str, library: str, numbers: range) -> dict[str, Any]:
    """Each fault's core on programs until one differs; number 0 is the core without a fault, which must not."""
    config, (cases, times) = machine(target), fault_programs(target)
    missed = []
    for k in numbers:
        core = CoreMachine(config, np.zeros(max(IMAGE + SCRATCH, TIME_DRAM), np.uint8), made(library), mutant=k)
        if k == 0:
            assert not found_by(core, cases[:10], times[:20]), "the core without a fault differs"
        elif not found_by(core, cases, times):
            missed.append(f"{FAULTS[k - 1][0]} ({FAULTS[k - 1][1]})")
    return dict(faults=len([k for k in numbers if k]), missed=missed)


def found_by(core: CoreMachine, cases: list[Any], times: list[Any]) -> bool:
    """Whether the core differs from the emulator on one of the programs."""
    for (case, want), (code, timing) in zip(cases, times[: len(cases)], strict=False):
        try:
            if differences(core, on_core(core, case, limit=2 * want.timing.cycles + 1000), case, want):
                return True
        except CoreFault:
            return True
        if not same_time(core, code, timing):
            return True
    return any(not same_time(core, code, timing) for code, timing in times[len(cases) :])


def wrong_numbers(config: MachineConfig) -> list[dict[str, Any]]:
    """Changes of the emulator's machine, of which each is to be seen."""
    return [
        dict(latency=config.latency + 1),
        dict(burst_cycles=config.burst_cycles + Fraction(1, 7)),
        dict(queue=config.queue - 1),
        dict(queue=config.queue + 1),
        dict(outstanding=config.outstanding - 1),
        dict(ring_bytes=config.ring_bytes // 8),
        dict(decode_drain=config.decode_drain + 1),
        dict(mv_drain=config.mv_drain + 1),
        dict(vx_fill=config.vx_fill + 1),
        dict(vector=config.vector // 2),
        dict(act16_factor=1),
        dict(burst=2 * config.burst),
    ]


def model_faults(target: str, library: str, numbers: range) -> dict[str, Any]:
    """Faults in the emulator's idea of time, wrong numbers of the machine first, then wrong rules: how many, and those
    that no program showed."""
    config = machine(target)
    wrong: list[tuple[str, Callable[[Sequence[Instruction], MachineConfig], Timing], MachineConfig]] = [
        *((str(change), simulate, evolve(config, **change)) for change in wrong_numbers(config)),
        *((what, planted(old, new), config) for what, old, new in RULES),
    ]
    core = CoreMachine(config, np.zeros(TIME_DRAM, np.uint8), made(library))

    @cache
    def on_the_core(seed: int) -> tuple[Sequence[Instruction], Any] | None:
        code, _ = (compiled, stress, full)[seed % 3](seed, config)
        try:
            want = simulate(code, config)
        except MachineError:
            return None
        core.reset()
        got = core.run(code, limit=2 * want.cycles + 1000, time_only=True)
        assert (got.start == want.start).all() and (got.done == want.done).all(), "the emulator without a fault differs"
        return code, got

    def shown(rules: Callable[[Sequence[Instruction], MachineConfig], Timing], changed: MachineConfig) -> bool:
        for seed in range(300):
            if (ran := on_the_core(seed)) is None:
                continue
            code, got = ran
            try:
                want = rules(code, changed)
            except MachineError:  # a legal program is refused, or does not end
                return True
            if (got.start != want.start).any() or (got.done != want.done).any():
                return True
        return False

    mine = wrong[numbers.start : numbers.stop]
    return dict(faults=len(mine), missed=[what for what, rules, changed in mine if not shown(rules, changed)])


# ---- coverage


def coverage(target: str, library: str, programs: int) -> dict[str, Any]:
    """Lines of the core's Verilog that random programs ran, by Verilator, and those that never did, with their text."""
    config = machine(target)
    random_programs(target, library, range(programs))
    timing_programs(target, library, range(programs // 4))
    text = written(countable, config).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coverage.dat"
        CoreMachine(config, np.zeros(16, np.uint8), made(library)).write_coverage(data)
        counts = points(data.read_text(errors="replace"))
    module, modules = "", []
    for line in text:
        module = line.split()[1].split("(")[0].strip("\\") if line.startswith("module ") else module
        modules.append(module)
    never = sorted({line for (line, _), n in counts.items() if not n})
    return dict(
        points=len(counts), covered=sum(n > 0 for n in counts.values()),
        never=[f"{modules[line - 1]}:{line}: {text[line - 1].strip()}" for line in never],
    )


def points(text: str) -> dict[tuple[int, str], int]:
    """How often each point of Verilator's file of coverage ran, by its line and what else names it."""
    counts: dict[tuple[int, str], int] = {}
    for line in text.splitlines():
        if line.startswith("C '"):
            fields = dict(f.split("\x02", 1) for f in line[3 : line.rindex("'")].split("\x01") if "\x02" in f)
            key = (int(fields["l"]), fields.get("n", "") + fields.get("o", ""))
            counts[key] = counts.get(key, 0) + int(line.rsplit(" ", 1)[1])
    return counts


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = next(
            (x.split(":")[1].strip() for x in text.splitlines() if x.startswith("model name")), platform.machine()
        )
        return name + (", avx512_vnni" if "avx512_vnni" in text else "")
    except OSError:
        return platform.machine()


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--short", action="store_true", help="two minutes: random programs on `tiny` only; keeps nothing")
    p.add_argument(
        "--programs", type=int, default=5000, help="random programs on `tiny` (5,000; on `edge` a fifth of it)"
    )
    p.add_argument("--minutes", type=float, default=120, help="after which no further piece is begun (120)")
    p.add_argument("--program", type=Path, default=DEMO / "rnnt_int8.nnp", help="the program (the demo's)")
    p.add_argument("--audio", type=Path, help="speech for it: its front end makes frames of it (the demo's first file)")
    p.add_argument("--frames", type=int, default=8)
    p.add_argument("--jobs", type=int, default=max(1, min(2, os.cpu_count() or 1)))
    p.add_argument("--without", default="", help=f"parts to leave out: {', '.join(PARTS)}")
    p.add_argument("--state", type=Path, default=Path("runs/cosim.jsonl"), help="what is done (runs/cosim.jsonl)")
    p.add_argument(
        "--library", action="append", default=[], metavar="CORE=FILE.so",
        help="a core built elsewhere (tiny, edge, faults, coverage), in a folder named by its digest, as the cache has "
        "them; what has no core is left out",
    )
    args = p.parse_args(argv)
    begun = time.monotonic()
    wanted = {"random"} if args.short else set(PARTS) - set(args.without.replace(",", " ").split())
    given = {k: Path(v) for k, _, v in (x.partition("=") for x in args.library)}
    libraries, build_s = cores(wanted, args.short, given)
    work = Pieces(Kept(None if args.short else args.state, libraries), args.jobs, begun + 60 * args.minutes)
    print(f"Verilator, {processor()}")
    figures: dict[str, Any] = dict(processor=processor(), build_s=build_s, cycles_per_s={})
    for part, do in PARTS.items():
        if part in wanted:
            do(work, libraries, args, figures)
    figures["wall_s"] = round(time.monotonic() - begun)
    print(json.dumps(figures))
    bad = figures.get("mismatches", 0) + figures.get("demo_different_bytes", 0)
    pairs = (("mutants", "caught"), ("model_faults", "model_caught"))
    unseen = sum(figures.get(there, 0) - figures.get(seen, 0) for there, seen in pairs)
    return 1 if bad or unseen else 0


def cores(wanted: set[str], short: bool, given: dict[str, Path]) -> tuple[dict[str, Path], dict[str, float]]:
    """The simulators that the parts take, by name, and seconds of a processor that each took to build, once."""
    if given:
        return given, {}
    simulator()
    edge = {"edge": lambda: build(machine("edge"), said=print)} if wanted & {"random", "network"} and not short else {}
    makers: dict[str, Callable[[], Built]] = {"tiny": lambda: build(machine("tiny"), said=print), **edge}
    if "faults" in wanted:
        makers["faults"] = with_faults
    if "coverage" in wanted:
        makers["coverage"] = lambda: build(machine("tiny"), coverage=True, said=print)
    built = {name: make() for name, make in makers.items()}
    return {k: b.library for k, b in built.items()}, {k: round(b.cpu_s, 1) for k, b in built.items()}


def with_faults() -> Built:
    """`tiny` with all faults planted, in one build."""
    config = machine("tiny")
    return build(config, source=plant(simulated(config, flat=True)), mutants=True, said=print)


def random_part(work: Pieces, cores: dict[str, Path], args: argparse.Namespace, figures: dict[str, Any]) -> None:
    total = dict(programs=0, instructions=0, cycles=0, mismatches=0, integers=0)
    for target in ("tiny", "edge"):
        if target not in cores or (args.short and target == "edge"):
            continue
        n = 60 if args.short else args.programs if target == "tiny" else args.programs // 5
        for what, count in ((random_programs, n), (timing_programs, n // 4)):
            done = work.figures(what, target, target, cores[target], pieces(count, PIECE[what.__name__]))
            if not done:
                continue
            for k in total:
                total[k] += done.get(k, 0)
            if what is random_programs:
                figures["cycles_per_s"][target] = round(done["cycles"] / done["core_s"])
            print(
                f"{target}: {done['programs']} {what.__name__.replace('_', ' ')}, {done['instructions']:,} "
                f"instructions, {done['cycles']:,} cycles, {done['mismatches']} mismatches, "
                f"{done['cycles'] / done['core_s']:,.0f} cycles/s a process",
                flush=True,
            )
            for line in done["first"]:
                print(f"  {line}")
    figures |= total


def network_part(work: Pieces, cores: dict[str, Path], args: argparse.Namespace, figures: dict[str, Any]) -> None:
    if not args.program.exists():
        print(f"network: there is no {args.program}; `make demo` makes it")
        return
    target = MachineConfig.of(Program.load(args.program).target).name
    audio = args.audio or next(iter(sorted((DEMO / "corpus" / "wav").glob("voice-*.wav"))), None)
    said = digest(args.program.read_bytes(), audio.read_bytes() if audio else b"", str(args.frames))
    if target not in cores:
        return
    parts = {said: (args.frames, str(args.program), str(audio) if audio else None)}
    if not (done := work.figures(network, target, target, cores[target], parts)):
        return
    print(
        f"{args.program}: {done['entries']} entries, {done['frames']} frames{' of speech' if done['speech'] else ''}, "
        f"{done['instructions']:,} instructions, {done['cycles']:,} cycles, {done['bytes']:,} bytes compared, "
        f"{done['different']} different, {done['cycles'] / done['core_s']:,.0f} cycles/s",
        flush=True,
    )
    figures["cycles_per_s"]["demo"] = round(done["cycles"] / done["core_s"])
    figures |= dict(demo_frames=done["frames"], demo_different_bytes=done["different"], demo_bytes=done["bytes"],
                    demo_cycles=done["cycles"])


def faults_part(work: Pieces, cores: dict[str, Path], args: argparse.Namespace, figures: dict[str, Any]) -> None:
    count = len(wrong_numbers(machine("tiny"))) + len(RULES)
    for what, core, n, there, seen in (
        (model_faults, "tiny", count, "model_faults", "model_caught"),
        (core_faults, "faults", len(FAULTS) + 1, "mutants", "caught"),
    ):
        if core not in cores:
            continue
        done = work.figures(what, "tiny", core, cores[core], pieces(n, PIECE[what.__name__]))
        if not done:
            continue
        found = done["faults"] - len(done["missed"])
        print(f"{what.__name__.replace('_', ' ')}: {found} of {done['faults']} found, missed: "
              f"{', '.join(done['missed']) or 'none'}", flush=True)
        figures |= {there: done["faults"], seen: found}


def coverage_part(work: Pieces, cores: dict[str, Path], args: argparse.Namespace, figures: dict[str, Any]) -> None:
    if "coverage" not in cores or not (
        done := work.figures(coverage, "tiny", "coverage", cores["coverage"], {"300": (300,)})
    ):
        return
    for line in done["never"]:
        print(f"  never ran: {line}")
    share = done["covered"] / done["points"]
    print(f"coverage: {done['covered']:,} of {done['points']:,} lines and branches ran: {share:.2%}", flush=True)
    figures |= dict(coverage=round(share, 4), coverage_points=done["points"])


# what there is to do, in this order
PARTS: dict[str, Callable[[Pieces, dict[str, Path], argparse.Namespace, dict[str, Any]], None]] = dict(
    random=random_part, network=network_part, faults=faults_part, coverage=coverage_part
)


if __name__ == "__main__":
    sys.exit(main())
