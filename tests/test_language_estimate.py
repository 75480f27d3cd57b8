"""What lint says a policy costs: never refused where it compiles, and close for the shipped policies."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from nnac import isa
from nnac.isa import MachineConfig
from nnac.isa.base import decode_all
from nnac.language import cycles, estimate
from nnac.language.check import check_file, check_text
from nnac.language.coded import expected_bits
from nnac.language.machine import machine_of
from nnac.language.tables import data_file
from nnac.language.widths import value_bits
from nnac.limits import MOST_ELEMENTS, MOST_UNITS
from nnac.lower import lower_plan
from nnac.schedule.budget import measured
from nnac.schedule.compile import CompileError, Settings, compile_graph
from nnac.target import OPERATORS
from tests.graphs import bind_randomly, vocabulary, with_codebook

POLICY = 'import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="tiny")\n  target edge\n}\n'
QUANTITIES = ("weights", "bits_per_weight", "sram", "cycles", "latency")


def random_policy(seed: int) -> str:
    """A target and a policy, all drawn from the seed: shapes that are no multiples of anything, odd machines, every
    setting."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    lanes = pick(16, 32, 64, 128, 8, 20)
    codecs = pick("", "raw", "raw packed", "raw packed codebook", "raw packed entropy")
    operators = pick(*[""] * 3, " ".join(o for o in OPERATORS if o not in ("layer_norm", "tanh")))
    target = ["target odd {", f"  clock {pick(100, 500, 1600)} MHz", f"  lanes {lanes}",
              f"  columns {pick(1, 2, 4, 8)}",
              f"  sram {pick(256, 512)} KiB", f"  pinned {pick(0, 4, 32)} KiB",
              f"  dram bandwidth({pick('0.1 GB/s', '3.75 GB/s', '50 GB/s')}) latency({pick(3, 100, 250)} cycles) "
              f"burst({pick(32, 128)} bytes)",
              f"  multiply int8({pick(1, 2)}) {pick('', 'int4(2)', 'int4(8)')} int16({pick('1', '1 / 2')})",
              f"  decoder {pick(lanes, max(1, lanes // 2))}",
              f"  stream_buffers {pick(1, 2, 4)}", f"  queue {pick(1, 2, 8)}", f"  codecs {codecs}" if codecs else "",
              f"  operators {operators}" if operators else "", f"  cpu wake({pick('0 us', '5 us', '20 us')})", "}"]
    shape = dict(features=rng.integers(1, 20), stack=pick(1, 2, 3), reduce=pick(1, 1, 2), layers=pick(1, 2, 3),
                 cells=rng.integers(1, 90),
                 embedding=rng.integers(1, 24), prediction_cells=rng.integers(1, 50), joint=rng.integers(1, 70),
                 vocabulary=rng.integers(2, 90),
                 project=pick(0, 0, rng.integers(1, 40)), norm=pick("true", "false"),
                 bidirectional=pick("false", "false", "true"),
                 combine=pick('"add"', '"multiply"'))
    weights = pick("int8 per_channel", "int8 per_channel", "int4 per_channel", "int2 per_gate", "gq(4)", "lloyd_max(2)")
    rules = [f"  layers ** {{ weights {weights}; activations int8 }}",
             f"  layers joint.{{encoder, prediction, combine}} {{ activations int{pick(8, 16)} }}",
             f"  layers **.lstm[*] "
             f"{{ hidden int{pick(8, 8, 4)}; accumulate {pick('acc32', 'sum16')}; cell int16 fraction({pick(11, 9)}) "
             f"}}",
             f"  layers ** {{ frames {pick(1, 2, 4, 5)} }}"]
    if rng.random() < 0.3:
        rules.append(f"  layers {pick('joint.activation', 'joint.output', 'encoder.lstm[0]', 'prediction.embedding')} "
                     f"{{ place cpu }}")
    if rng.random() < 0.3 and (not codecs or "packed" in codecs):
        # others do not pack
        codec = pick("raw", "packed") if weights in ("int4 per_channel", "int2 per_gate") else "raw"
        rules.append(f"  layers **.{{input, recurrent}} {{ codec {codec} }}")
    arguments = ", ".join(f"{k}={v}" for k, v in shape.items())
    return "\n".join([*(line for line in target if line), "policy odd {", f'  model rnnt(size="tiny", {arguments})',
                      "  target odd",
                      "  training { steps 1k steps }", *rules, "}", ""])


def resolved(text: str):
    checked = check_text(text, "odd.nnac")
    assert not checked.errors, [f"{d.code} {d.message}" for d in checked.diagnostics if d.severity == "error"]
    return checked.resolutions[0]


def compiled(plan, seed: int):
    """The program of a plan with weights that nobody expects: dense, sparse, of two bits, all zero.  None where it does
    not fit."""
    rng = np.random.default_rng(seed)
    graph = lower_plan(plan)
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=vocabulary(plan.graph)))
    bits, sparse = [(8, 0.0), (4, 0.0), (2, 0.0), (8, 0.97), (8, 1.0)][seed % 5]
    graph = bind_randomly(graph, rng, bits=bits, sparsity=sparse)
    try:
        return compile_graph(graph, plan.target, evolve(Settings.of(plan), budgets=()))
    except CompileError:
        return None


def budgets(real: dict[str, float]) -> str:
    """Budgets that a program just meets."""
    out = [f"weights <= {real['weights']} B", f"sram <= {real['sram']} B",
           f"cycles <= {-(-real['cycles'] // 1):.0f} cycles",
           f"bits_per_weight <= {real['bits_per_weight'] + 1e-6:.6f}", f"latency <= {real['latency'] * 1e9 + 1:.0f} ns"]
    return "  budget { " + "; ".join(out) + " }\n"


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_no_policy_that_compiles_within_its_budgets_is_refused(first):
    fitting = 0
    for seed in range(first, first + 10):
        text = random_policy(seed)
        r = resolved(text)
        program = compiled(r.plan, seed)
        if program is None:
            continue
        fitting += 1
        real, cost = measured(program), estimate.estimate(r.plan, r.plan.graph)
        for quantity in QUANTITIES:
            assert cost.least(quantity) <= real[quantity], (seed, quantity, cost.least(quantity), real[quantity], text)
        checked = check_text(text.removesuffix("}\n") + budgets(real) + "}\n", "odd.nnac")
        assert checked.errors == 0, (seed, [d.message for d in checked.diagnostics])
    assert fitting >= 5


def test_a_machine_that_only_reads_raw_weights_is_bounded_by_its_memory():
    text = ('import "targets/edge.nnac"\ntarget plain extends edge {\n  codecs raw\n}\npolicy p {\n  model '
            'rnnt(size="small")\n  target plain\n}\n')
    r = resolved(text)
    # all weights zero, and yet they are read
    cost, real = estimate.estimate(r.plan, r.plan.graph), measured(compiled(r.plan, 4))
    assert 0.85 * real["cycles"] < cost.least("cycles") <= real["cycles"]
    assert 0.99 * real["weights"] < cost.least("weights") <= real["weights"]


def test_what_cannot_be_met_is_an_error_and_what_is_unlikely_a_warning():
    text = ('import "targets/edge.nnac"\npolicy p {{\n  model rnnt(size="small")\n  target edge\n  budget {{ {} '
            '}}\n}}\n')
    said = {budget: [(d.code, d.severity) for d in check_text(text.format(budget), "p.nnac").diagnostics]
            for budget in ("latency <= 4 us", "latency <= 0.3 ms", "latency <= 0.6 ms", "weights <= 1 MiB",
                           "weights <= 2 KiB", "sram <= 60 KiB")}
    assert said == {"latency <= 4 us": [("budget-exceeded", "error")],
                    "latency <= 0.3 ms": [("budget-exceeded", "warning")], "latency <= 0.6 ms": [],
                    "weights <= 1 MiB": [("budget-exceeded", "warning")],
                    "weights <= 2 KiB": [("budget-exceeded", "error")],
                    "sram <= 60 KiB": [("budget-exceeded", "error")]}


@pytest.mark.parametrize("name, most", [("rnnt_int8", 0.04), ("papers/aat", 0.04), ("comparison/int4_lstm", 0.09),
                                        ("comparison/s8bqat", 0.06)])
def test_the_expected_step_is_close_to_the_compiled_one(name, most):
    from benchmarks.bench_estimate import compared

    for r in check_file(data_file("specs", f"{name}.nnac")).resolutions[:2]:
        row = compared(r.plan)
        assert (row["sound"] and abs(row["cycles_error"]) < most and abs(row["weights_error"]) < 0.04
                and abs(row["sram_error"]) < 0.05)


TARGETS = {name: machine_of(checked.scope, checked.scope.targets[name], [])
           for name in ("edge", "large", "rapid", "tiny") for checked in (check_file(data_file("specs", "targets",
               f"{name}.nnac")),)}


@pytest.mark.parametrize("name", TARGETS)
def test_the_estimate_asks_the_machine_as_it_is(name):
    target = TARGETS[name]
    config = MachineConfig.of(target)
    assert cycles.machine(target) == config
    cost = estimate.estimate(evolve(resolved(POLICY).plan, target=target), resolved(POLICY).plan.graph)
    assert cost.stream_bytes == config.ring_bytes + config.stream_words * config.lanes


def test_a_machine_that_cannot_be_built_has_cycles_all_the_same():
    small = evolve(TARGETS["edge"], sram=1 << 16, pinned=0)
    with pytest.raises(ValueError, match="leave"):
        MachineConfig.of(small)
    assert evolve(cycles.machine(small), a_bytes=64, pinned_words=0) == evolve(MachineConfig.of(TARGETS["edge"]),
                                                                               a_bytes=64, pinned_words=0)


def test_limits_of_instructions_are_those_of_their_fields():
    def most(instruction, operand):
        return next(f.greatest for f in instruction.fields if f.name == operand)

    assert {most(i, "n") for i in (isa.ADD, isa.MUL, isa.LUT, isa.LN)} == {MOST_ELEMENTS} and most(isa.LSTM,
        "units") == MOST_UNITS


def test_vector_time_is_that_of_the_emitted_instructions():
    """Cycles of the vector unit by layer, against the instructions of compiled programs; copies and resets aside, which
    are not counted."""
    seen = 0
    for seed in range(16):
        r = resolved(random_policy(seed))
        program = compiled(r.plan, 5 * seed)                               # dense weights: no band without products
        if program is None or program.host:
            continue
        config = MachineConfig.of(r.plan.target)
        emitted: dict[str, int] = {}
        for name, entry in program.entries.items():
            if name != "init" and not (entry.steps == 1 and f"{entry.part}.steps" in program.entries):
                for i, line in zip(decode_all(entry.words.astype("<u8").tobytes()), entry.lines, strict=True):
                    if i.unit == "VX" and type(i).__name__ not in ("CPY", "FIL", "TAB"):
                        path = program.debug[line][0].removesuffix(".forward").removesuffix(".backward")
                        emitted[path] = emitted.get(path, 0) + i.cycles(config)[0]
        numbers, model = {layer.path: k for k, layer in enumerate(r.model)}, r.model
        sites = [r.plan[layer.path] for layer in model]
        values = {"activations": {k: s.activations for k, s in enumerate(sites)},
                  "hidden": {k: s.hidden for k, s in enumerate(sites)}}
        for layer in model:
            if layer.path in emitted:
                bits = value_bits(model, values, numbers, layer.inputs[0])
                expected = cycles.work(r.plan, layer, bits, config).vector
                # vectors that lie at odd addresses are not met together: then more instructions are filled
                assert expected <= emitted[layer.path] <= 1.35 * expected, (seed, layer.path)
                seen += expected == emitted[layer.path]
    assert seen > 30


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_codebooks_are_expected_to_take_what_they_take(bits):
    r = resolved(f'import "targets/edge.nnac"\npolicy p '
                 f'{{\n  model rnnt(size="tiny", cells=128, norm=true)\n  target edge\n'
                 f"  training {{ steps 1k steps }}\n  layers ** {{ weights lloyd_max({bits}) }}\n  layers **.lstm[*] "
                 f"{{ accumulate sum16 }}\n}}\n")
    graph = lower_plan(r.plan)
    graph = evolve(graph, metadata=dict(graph.metadata) | dict(vocabulary=vocabulary(r.plan.graph)))
    program = compile_graph(with_codebook(bind_randomly(graph, np.random.default_rng(0)), bits), r.plan.target)
    # quantiles: nearly all codes alike, so hardly less than the index
    kernel = "encoder.lstm[1].recurrent"
    assert bits - 0.8 < expected_bits(r.plan[kernel], 128, r.plan.target.codecs) <= bits
    assert program.report["layers"][kernel]["bits"] < bits + 0.6


def test_waiting_is_told_apart_from_computing():
    text = ('import "targets/edge.nnac"\npolicy p {{\n  model rnnt(size="small")\n  target edge\n  layers ** {{ frames '
            '{} }}\n'
            "  budget {{ latency <= {} }}\n}}\n")

    def said(frames, latency):
        return [(d.code, d.severity, d.message) for d in check_text(text.format(frames, latency), "p.nnac").diagnostics]

    assert said(1, "10 ms") == []
    (found,) = said(4, "10 ms")
    # three more steps of 60 ms
    assert found[:2] == ("frames-wait", "warning") and "waits 180 ms" in found[2]
    (found,) = said(4, "200 ms")
    assert found[:2] == ("frames-wait", "note")
    assert not check_text(text.format(4, "10 ms").replace("latency", "weights").replace("10 ms", "3 MiB"),
                          "p.nnac").diagnostics


def test_program_and_lint_agree_on_waiting():
    r = resolved('import "targets/edge.nnac"\npolicy p {\n  model rnnt(size="tiny")\n  target edge\n  layers ** { '
                 'frames 4 }\n}\n')
    cost, program = estimate.estimate(r.plan, r.plan.graph), compiled(r.plan, 0)
    told = program.report["latency"]
    assert told["wait_ms"] == pytest.approx(1e3 * cost.wait_seconds) == 3 * r.plan.graph.frame_ms and told["steps"] == 4
    assert told["step_ms"] == pytest.approx(1e3 * measured(program)["latency"])
    batched, others = program.entries["encoder.steps"].cycles, sum(program.entries[e].cycles
                                                                   for e in ("prediction.step", "joint.step"))
    assert told["call_ms"] == pytest.approx(1e3 * (batched + others) / r.plan.target.clock)
    assert told["call_ms"] > told["step_ms"] > 0
    # a tiny model is all pipeline filling
    assert 0.5 < cost.call_seconds * 1e3 / told["call_ms"] < 2
