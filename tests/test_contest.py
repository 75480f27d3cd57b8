"""The automatic codec is never slower than a named one on the same kernel: random kernels on random machines, every
codec."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from attrs import evolve

from nnac.codec import PAYLOADS
from nnac.codec.base import block_shapes
from nnac.ir import QGraph
from nnac.schedule import contest
from nnac.schedule.compile import CompileError, Settings, compile_graph
from nnac.target import Dram, Target
from tests.graphs import random_graph
from tests.schedules import EDGE, LARGE, TINY, compare
from tests.test_schedule import matrix_vector


def random_kernel(seed: int) -> tuple[QGraph, Target]:
    """One product: zeros anywhere, in words, in blocks, or none; values of few or of all kinds."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    rows, cols = int(rng.integers(8, 400)), int(rng.integers(8, 500))
    w = pick(rng.integers(-127, 128, (rows, cols)), np.clip(np.rint(rng.laplace(0, 12, (rows, cols))), -127, 127),
             rng.choice([-90, -40, -13, 5, 30, 77], (rows, cols)), rng.integers(-7, 8, (rows, cols))).astype(np.int8)
    high, wide = pick((1, 1), (1, 1), (64, 1), (16, 1), (1, 16), (128, 1))
    keep = rng.random((-(-rows // high), -(-cols // wide))) < pick(1.0, 0.5, 0.25, 0.1, 0.03)
    w[~np.repeat(np.repeat(keep, high, 0), wide, 1)[:rows, :cols]] = 0
    lanes = pick(16, 64, 128)
    odd = Target("odd", 5 * 10**8, lanes, 2, 1 << 18, 1 << 12, Dram(pick(10**9, 8 * 10**9), 120, pick(32, 128)),
                 dict(int8=Fraction(1)), decoder=pick(lanes, lanes // 2), stream_buffers=2, queue=pick(2, 8))
    graph = matrix_vector(rows, cols)
    node, = graph.nodes
    return graph.with_nodes((evolve(node, constants=dict(node.constants) | {"weight": w}),)), pick(EDGE, LARGE, TINY,
                                                                                                  odd)


def names(lanes: int) -> list[str]:
    return [*PAYLOADS, *(f"block_bitmap[{s.rows}x{s.cols}]+{p}" for s in block_shapes(lanes) for p in PAYLOADS)]


def cycles_of(graph: QGraph, target: Target, codec: str, pins: dict[str, str]) -> int | None:
    """None: the codec cannot carry these weights."""
    try:
        program = compile_graph(graph, target, Settings(codecs={"y.weight": codec}, pins=pins))
    except CompileError as error:
        assert "cannot carry" in str(error) or "none of" in str(error), error
        return None
    return program.entries["encoder.step"].cycles


# of the cycles: what the place of its bits in bursts can make of a bitmap that says nothing (of a kernel without a dead
# block): such a one is not encoded, for the header is all that it adds
ACCIDENT = 0.002


def behind(seed: int) -> dict[str, float]:
    """Every named codec that is faster than the automatic one -> by what share."""
    graph, target = random_kernel(seed)
    node, = graph.nodes
    idle = 0 if (node.constants["weight"] == 0).mean() > 0.1 else ACCIDENT
    pins = {"y.weight": "never"} if seed % 2 else {}
    auto = cycles_of(graph, target, "auto", pins)
    assert auto is not None
    named = {n: cycles_of(graph, target, n, pins) for n in names(target.lanes)}
    return {n: auto / c - 1 for n, c in named.items()
            if c is not None and c * (1 + (idle if n.startswith("block_bitmap") else 0)) < auto}


@pytest.mark.parametrize("seed", range(6))
def test_no_named_codec_is_faster_than_the_automatic_one(seed):
    assert behind(seed) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_no_named_codec_is_faster_on_a_hundred_more(seed):
    assert behind(seed) == {}


def test_the_contest_changes_cycles_and_no_integer():
    """A whole network with sparse kernels: every encoding is of the same weights."""
    graph = random_graph(3, size="tiny", sparsity=0.9, cells=40, layers=2)
    program = compile_graph(graph, EDGE)
    compared, different = compare(graph, program)
    assert compared > 1_000 and different == 0


def test_a_layer_alone_keeps_the_views_that_it_reads_through():
    graph = random_graph(0, size="tiny", stack=3)
    for node in graph.nodes:
        part = contest.alone(graph, node)
        assert node in part.nodes and {n.entry for n in part.nodes} == {node.entry}
        assert set(part.inputs[node.entry]) | {n.output for n in part.nodes} == set(part.values)


def test_a_layer_is_scheduled_once_with_each_choice():
    """Two kernels of one layer, three encodings each: five schedules, and the second kernel is judged beside the
    first's winner."""
    encodings = {p: tuple(SimpleNamespace(layer="l", name=f"{p}{k}") for k in range(3)) for p in ("a", "b")}
    asked = []

    def price(part, own, pinned):
        asked.append(tuple(k.name for k in own.values()))
        return {"a0b0": 9, "a1b0": 7, "a2b0": 8, "a1b1": 6, "a1b2": 7}["".join(asked[-1])]

    found = contest.settled(None, encodings, price)
    assert [k.name for k in found.values()] == ["a1", "b1"] and len(asked) == len(set(asked)) == 5
