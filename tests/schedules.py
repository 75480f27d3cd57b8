"""Random compilation cases, and the comparison of a program with the reference: shared by tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from attrs import frozen

from nnac.emulator.machine import Machine
from nnac.evaluate import evaluate, initial_state
from nnac.formats import Precision
from nnac.ir import QGraph
from nnac.program import INIT, Entry, Program
from nnac.schedule.compile import Settings
from nnac.schedule.passes import split
from nnac.target import OPERATORS, Dram, Target
from tests.graphs import random_graph, random_inputs

EDGE = Target("edge", 500_000_000, 64, 4, 1 << 19, 1 << 17, Dram(3_750_000_000, 250, 128),
              dict(int8=Fraction(1), int16=Fraction(1, 2)))
TINY = Target("tiny", 200_000_000, 16, 1, 1 << 17, 1 << 15, Dram(500_000_000, 100, 64), dict(int8=Fraction(1)),
              decoder=16, queue=4)
LARGE = Target("large", 10**9, 128, 8, 1 << 21, 1 << 19, Dram(12 * 10**9, 200, 128),
               dict(int8=Fraction(1), int4=Fraction(2), int16=Fraction(1, 2)),
               decoder=128, stream_buffers=4, queue=16)


@frozen(eq=False)
class Case:
    """A graph, a target and settings, all drawn from one seed; ``text`` says which."""

    graph: QGraph
    target: Target
    settings: Settings
    text: str


def random_case(seed: int) -> Case:
    """Anything that the compiler should take: shapes that are no multiples of anything, every option, odd machines."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    shape = dict(size="tiny", features=int(rng.integers(1, 20)), stack=pick(1, 2, 3), reduce=pick(1, 1, 2),
                 layers=pick(1, 2, 3),
                 cells=int(rng.integers(1, 90)), embedding=int(rng.integers(1, 24)),
                 prediction_cells=int(rng.integers(1, 50)),
                 joint=int(rng.integers(1, 70)), vocabulary=int(rng.integers(2, 90)), norm=pick(True, False),
                 bidirectional=pick(False, False, True),
                 combine=pick("add", "multiply"), project=pick(0, 0, int(rng.integers(1, 40))))
    variant, hidden, narrow, inner = pick("acc32", "sum16"), pick(8, 8, 4, 6), pick(8, 8, 5), pick(8, 16)

    def precision(path: str) -> Precision:
        joint = path in ("joint.encoder", "joint.prediction", "joint.combine", "joint.output")
        return Precision(activations=inner if joint else narrow, hidden=hidden, variant=variant,
                         cell_fraction=pick(11, 11, 9))

    bits, sparsity = pick(8, 8, 4, 2), pick(0.0, 0.0, 0.7, 0.97)
    graph = random_graph(seed, precision=precision, bits=bits, sparsity=sparsity, **shape)
    lanes = pick(16, 32, 64, 128, 8, 20)
    target = Target("random", pick(10**8, 5 * 10**8), lanes, pick(1, 2, 4, 8), pick(1 << 18, 1 << 19),
                    pick(0, 1 << 12, 1 << 15),
                    Dram(pick(10**8, 3_750_000_000), pick(3, 100, 250), pick(32, 128)),
                    dict(int8=Fraction(1), int4=pick(Fraction(1), Fraction(2))),
                    decoder=pick(lanes, max(1, lanes // 2)), stream_buffers=pick(1, 2, 4), queue=pick(1, 2, 8),
                    operators=pick(OPERATORS, OPERATORS, tuple(o for o in OPERATORS
                                                               if o not in ("layer_norm", "tanh"))))
    paths = [n.path for n in graph.nodes if n.op != "stack"]
    places = {pick(*paths): "cpu"} if rng.random() < 0.2 else {}
    settings = Settings(frames=pick(1, 2, 4, 5), places=places, hypotheses=int(rng.integers(1, 12)))
    return Case(graph, target, settings,
        f"seed {seed}: {shape} {variant} hidden{hidden} act{narrow} w{bits} sparsity {sparsity} {target} {settings}")


def compare(graph: QGraph, program: Program, seed: int = 0, calls: int = 2, batch: int = 2,
            machine: Machine | None = None) -> tuple[int, int]:
    """(integers compared, integers that differ) between `evaluate` and the machine: every layer output and every state
    of every entry."""
    m = machine or Machine(program, fast=False, batch=batch, host=lambda part,
                           memories: program.host[part].run(memories.a))
    rng = np.random.default_rng(seed)
    compared = different = 0

    def note(a, b):
        nonlocal compared, different
        compared += b.size
        different += int((a != b).sum()) if a.shape == b.shape else b.size

    graph = split(graph).graph
    for name, entry in program.entries.items():
        if name == INIT:
            continue
        m.reset()
        if entry.hypotheses > 1:
            for got, want in of_several(graph, entry, m, rng):
                note(got, want)
            continue
        state = initial_state(graph, batch)
        own = {s.name for s in program.states if s.entry == entry.part}
        for _ in range(calls):
            x = random_inputs(graph, entry.part, rng, entry.steps, batch)
            want, got = {}, {}
            _, state = evaluate(graph, entry.part, x, state, lambda n, v, want=want: want.__setitem__(n, v))
            m.run(name, x, lambda n, v, got=got: got.__setitem__(n, v))
            assert want.keys() == got.keys()
            for value in want:
                note(got[value], want[value])
            held = m.state()
            for s in own:
                note(held[s], state[s])
    return compared, different


def of_several(graph: QGraph, entry: Entry, m: Machine, rng: np.random.Generator) -> Iterator[tuple]:
    """(the machine's integers, those of `evaluate`) of one step of as many hypotheses, each from a state of its own."""
    k, rows = entry.hypotheses, entry.hypotheses * m.batch
    state = {s.name: rng.integers(-(1 << s.bits - 1), 1 << s.bits - 1, (rows, s.width))
             for n in graph.entry(entry.part) for s in n.states}
    x = random_inputs(graph, entry.part, rng, 1, rows)
    want, got = {}, {}
    _, after = evaluate(graph, entry.part, x, state, lambda n, v: want.__setitem__(n, v[0]))

    def apart(v):
        return v.reshape(m.batch, k, -1).swapaxes(0, 1)

    m.load_state({name: apart(v) for name, v in state.items()})
    m.run(entry.name, {name: apart(v[0]) for name, v in x.items()}, lambda n, v: got.__setitem__(n, v))
    assert want.keys() == got.keys()
    yield from ((got[name], apart(want[name])) for name in want)
    held = m.states_of(k)
    yield from ((held[name], apart(after[name])) for name in state)
