"""Co-simulation: programs' bytes on the RTL core and on the emulator, every integer of memory and every cycle compared.

    python -m benchmarks.cosim [--short] [--programs N] [--program FILE.nnp [--audio FILE.wav]] [--coverage] [--jobs N]

1. Random legal programs on `tiny` and `edge`: all instructions, all codecs; A, W, indices, ACC, LUT, DRAM at HALT and
   first and last cycle of every instruction.  And programs that only stress time.
2. A network of the demo's shape, compiled for `edge`, all entries, frame by frame (``--program``: a program of yours;
   ``--audio``: with its frames of speech).
3. Faults planted in the core, each of which must be found; and in the emulator's machine model, each of which must be
found. 4. ``--coverage``: lines of the core's Verilog that ran, by Verilator.

``--short`` is what the test suite has time for.  Needs a C++ compiler; Verilator if there is one.  The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from nnac.emulator.errors import MachineError
from nnac.emulator.listing import find_target
from nnac.emulator.machine import Machine
from nnac.emulator.timing import Timing, simulate
from nnac.isa import Instruction, MachineConfig
from nnac.program import INIT, Program
from nnac.rtl.build import Built, build, simulator
from nnac.rtl.cosim import differences, emulated, on_core
from nnac.rtl.machine import CoreFault, CoreMachine
from nnac.rtl.program import ProgramOnCore
from tests.machine_programs import compiled, stress
from tests.rtl_mutants import FAULTS, flat, plant
from tests.rtl_programs import ALL, IMAGE, SCRATCH, Draw

LENGTH = dict(tiny=250, edge=120)  # instructions of a random program
TIME_DRAM = 5 << 20


def machine(target: str) -> MachineConfig:
    return MachineConfig.of(find_target(target))


# ---- random programs


def random_programs(target: str, built: Built, seeds: range, until: float) -> dict[str, Any]:
    """Programs with data, by seed; figures of the comparison."""
    config = machine(target)
    core = CoreMachine(config, np.zeros(IMAGE + SCRATCH, np.uint8), built)
    found = dict(programs=0, instructions=0, mismatches=0, illegal=0, integers=0)
    first: list[str] = []
    for seed in seeds:
        if time.monotonic() > until:
            break
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


def timing_programs(target: str, built: Built, seeds: range, until: float) -> dict[str, Any]:
    """Programs of whose data nothing is expected: queues, semaphores and the bus under stress."""
    config = machine(target)
    core = CoreMachine(config, np.zeros(TIME_DRAM, np.uint8), built)
    found = dict(programs=0, instructions=0, mismatches=0)
    first: list[str] = []
    for seed in seeds:
        if time.monotonic() > until:
            break
        for make in (compiled, stress):
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


def same_time(core: CoreMachine, code: Sequence[Instruction], want: Timing) -> bool:
    """Whether the core's times are those; a core that does not come to HALT has others."""
    core.reset()
    try:
        got = core.run(code, limit=2 * want.cycles + 1000, time_only=True)
    except CoreFault:
        return False
    return bool((got.start == want.start).all() and (got.done == want.done).all())


def in_parts(
    jobs: int, work: Callable[..., dict[str, Any]], target: str, built: Built, seeds: range, until: float
) -> dict[str, Any]:
    """The work on ``jobs`` processes, its figures added up."""
    parts = [seeds[k::jobs] for k in range(jobs)]
    with ProcessPoolExecutor(jobs) as pool:
        done = list(pool.map(work, [target] * jobs, [built] * jobs, parts, [until] * jobs))
    return {k: sum((d[k] for d in done), start=[] if k == "first" else 0) for k in done[0]}


# ---- a network


def demo_program(path: str | None) -> Program:
    """The program of ``path``, or of a network of the demo's shape with random weights, for `edge`."""
    if path:
        return Program.load(path)
    from nnac.schedule.compile import Settings, compile_graph
    from tests.graphs import random_graph
    from tests.schedules import EDGE

    return compile_graph(random_graph(0, size="small"), EDGE, Settings(frames=4))


def network(program: Program, built: Built, frames: int, audio: str | None) -> dict[str, Any]:
    """Every entry, call by call: outputs, all of A, W, ACC, LUT beside the interpreting emulator's."""
    core, want = ProgramOnCore(program, built=built), Machine(program, fast=False)
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


def core_faults(config: MachineConfig, said: Callable[[str], None]) -> tuple[int, list[str], float]:
    """(faults found, those that were not, seconds to build): each fault's core on programs until one differs."""
    built = build(config, "verilator", source=plant(flat(config)), mutants=True, optimise="-O1", said=said)
    cases = []
    for seed in range(60):
        case = Draw(seed, config, ALL).program(100)
        try:
            cases.append((case, emulated(case)))
        except MachineError:
            continue
    times = []
    for seed in range(60):
        for make in (compiled, stress):
            code, _ = make(seed, config)
            try:
                times.append((code, simulate(code, config)))
            except MachineError:
                continue
    missed = []
    for k, (what, signal, _) in enumerate(FAULTS, start=1):
        core = CoreMachine(config, np.zeros(max(IMAGE + SCRATCH, TIME_DRAM), np.uint8), built, mutant=k)
        if not found_by(core, cases, times):
            missed.append(f"{what} ({signal})")
            said(f"  not found: {missed[-1]}")
    clean = CoreMachine(config, np.zeros(max(IMAGE + SCRATCH, TIME_DRAM), np.uint8), built, mutant=0)
    assert not found_by(clean, cases[:10], times[:20]), "the core without a fault differs"
    return len(FAULTS) - len(missed), missed, built.seconds


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


def model_faults(config: MachineConfig, built: Built) -> tuple[int, list[str]]:
    """(wrong numbers in the emulator's machine, those that no program showed)."""
    wrong = [
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
    core = CoreMachine(config, np.zeros(TIME_DRAM, np.uint8), built)
    missed = []
    for change in wrong:
        other = evolve(config, **change)
        for seed in range(300):
            code, _ = (compiled, stress)[seed % 2](seed, config)
            try:
                want = simulate(code, other)
                simulate(code, config)
            except MachineError:
                continue
            if not same_time(core, code, want):
                break
        else:
            missed.append(str(change))
    return len(wrong) - len(missed), missed


# ---- coverage


def coverage(config: MachineConfig, programs: int, said: Callable[[str], None]) -> dict[str, Any]:
    """Lines of the core's Verilog that random programs ran, by Verilator."""
    built = build(config, "verilator", coverage=True, optimise="-O1", said=said)
    random_programs(config.name, built, range(programs), time.monotonic() + 3600)
    timing_programs(config.name, built, range(40), time.monotonic() + 3600)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coverage.dat"
        CoreMachine(config, np.zeros(16, np.uint8), built).write_coverage(data)
        counts: dict[tuple[str, str], int] = {}
        for line in data.read_text(errors="replace").splitlines():
            if not line.startswith("C '"):
                continue
            fields = dict(f.split("\x02", 1) for f in line[3 : line.rindex("'")].split("\x01") if "\x02" in f)
            key = (fields.get("l", ""), fields.get("n", "") + fields.get("o", ""))
            counts[key] = counts.get(key, 0) + int(line.rsplit(" ", 1)[1])
    covered = sum(v > 0 for v in counts.values())
    return dict(points=len(counts), covered=covered, share=round(covered / max(1, len(counts)), 4))


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
    p.add_argument("--short", action="store_true", help="two minutes: `tiny` only, no faults")
    p.add_argument(
        "--programs", type=int, default=4200, help="random programs on `tiny` (4,200; on `edge` a fifth of it)"
    )
    p.add_argument("--minutes", type=float, default=120, help="for the random programs, at most: then fewer (120)")
    p.add_argument("--program", help="a program file instead of a network of random weights")
    p.add_argument("--audio", help="speech for it (its front end makes frames of it)")
    p.add_argument("--frames", type=int, default=8)
    p.add_argument("--coverage", action="store_true")
    p.add_argument("--jobs", type=int, default=max(1, min(2, os.cpu_count() or 1)))
    p.add_argument("--without", default="", help="parts to leave out: random, network, faults")
    args = p.parse_args(argv)
    kind, begun = simulator(), time.monotonic()
    print(f"{kind}, {processor()}")
    figures: dict[str, Any] = dict(simulator=kind, processor=processor())
    builds = {t: build(machine(t), kind, said=print) for t in (("tiny",) if args.short else ("tiny", "edge"))}
    figures["build_s"] = {t: round(b.seconds, 1) for t, b in builds.items()}
    total = dict(programs=0, instructions=0, cycles=0, mismatches=0)
    speed = {}
    if "random" not in args.without:
        for target, built in builds.items():
            n = 60 if args.short else args.programs if target == "tiny" else args.programs // 5
            for work, count in ((random_programs, n), (timing_programs, n // 4)):
                until = time.monotonic() + 60 * args.minutes * (2 if work is random_programs else 1) / 6
                done = in_parts(args.jobs, work, target, built, range(count), until)
                for k in total:
                    total[k] += done[k]
                if work is random_programs:
                    speed[target] = round(done["cycles"] / done["core_s"])
                print(
                    f"{target}: {done['programs']} {work.__name__.replace('_', ' ')}, "
                    f"{done['instructions']:,} instructions, "
                    f"{done['cycles']:,} cycles, {done['mismatches']} mismatches, "
                    f"{done['cycles'] / done['core_s']:,.0f} cycles/s a process"
                )
                for line in done["first"]:
                    print(f"  {line}")
    figures |= total | dict(cycles_per_s=speed)
    if not args.short and "network" not in args.without:
        program = demo_program(args.program)
        built = build(MachineConfig.of(program.target), kind, said=print)
        done = network(program, built, args.frames, args.audio)
        print(
            f"network: {done['entries']} entries, {done['frames']} frames{' of speech' if done['speech'] else ''}, "
            f"{done['instructions']:,} instructions, {done['cycles']:,} cycles, {done['bytes']:,} bytes compared, "
            f"{done['different']} different, {done['cycles'] / done['core_s']:,.0f} cycles/s"
        )
        speed["network"] = round(done["cycles"] / done["core_s"])
        figures |= dict(demo_frames=done["frames"], demo_different_bytes=done["different"], demo_bytes=done["bytes"])
    if not args.short and "faults" not in args.without:
        found, missed = model_faults(machine("tiny"), builds["tiny"])
        print(f"faults in the emulator's machine: {found} found, missed: {', '.join(missed) or 'none'}")
        figures |= dict(model_faults=found + len(missed), model_caught=found)
        if kind == "verilator":
            found, missed, seconds = core_faults(machine("tiny"), print)
            print(f"faults in the core: {found} of {len(FAULTS)} found; built in {seconds:.0f} s")
            figures |= dict(mutants=len(FAULTS), caught=found)
    if args.coverage and kind == "verilator":
        figures["coverage"] = coverage(machine("tiny"), 150, print)
        print(f"coverage: {figures['coverage']}")
    figures["wall_s"] = round(time.monotonic() - begun)
    print(json.dumps(figures))
    bad = figures["mismatches"] + figures.get("demo_different_bytes", 0)
    return 1 if bad or figures.get("caught", 0) != figures.get("mutants", 0) else 0


if __name__ == "__main__":
    sys.exit(main())
