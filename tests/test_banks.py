"""A target whose columns share the banks of A: what meets waits, whatever the data."""

from __future__ import annotations

import pytest
from attrs import evolve

import nnac
from nnac.diagnostics import DiagnosticError
from nnac.emulator.listing import find_target
from nnac.isa import MVM, MachineConfig
from nnac.schedule.compile import Settings, compile_graph
from nnac.schedule.proof import prove_program
from nnac.target import Target
from tests.graphs import random_graph
from tests.schedules import EDGE, compare

BANKED = evolve(MachineConfig(), a_banks=16)


def test_columns_that_lie_in_one_bank_wait_for_each_other():
    def cycles(stride: int, columns: int = 4, **more: int) -> int:
        return MVM(words=10, span=4, columns=columns, stride=stride, **more).cycles(BANKED)[0]

    # words of 4 bytes: 16 apart, all in one bank; 8 apart, two and two; 4 apart, four banks; 17 apart, four banks
    assert [cycles(4 * words) for words in (16, 8, 4, 17, 32, 24)] == [40, 20, 10, 10, 40, 20]
    assert cycles(0) == 10 and cycles(64, columns=1) == 10                     # one activation
    assert cycles(64, columns=3) == 30 and cycles(4 * 17, columns=16) == 10
    assert cycles(4 * 8, act16=1) == 20 and cycles(64, act16=1) == 40          # an int16 takes two cycles anyway
    assert MVM(words=10, span=4, columns=4, stride=64).cycles(MachineConfig())[0] == 10


def target(setting: str, base: str = "edge") -> Target:
    return nnac.loads(f'import "targets/{base}.nnac"\ntarget mine extends {base} {{\n {setting}\n}}\npolicy p {{\n'
                      ' model rnnt(size="small")\n target mine\n}').plan.target


def test_a_target_says_its_banks_beside_its_sram():
    assert target("sram banks(16)").sram == find_target("edge").sram and target("sram banks(16)").banks == 16
    both = target("sram 1 MiB banks(8)")
    assert (both.sram, both.banks) == (1 << 20, 8) and MachineConfig.of(both).a_banks == 8
    assert Target.from_json(both.to_json()) == both and "banks" not in find_target("edge").to_json()
    for setting, said in (("sram banks(12)", "a power of two up to 1024, not 12"), ("sram banks", "."),
                          ("sram 1 MiB 2 MiB", "takes one value"), ("sram bank(16)", "`sram` has no `bank`")):
        with pytest.raises(DiagnosticError, match=said):
            target(setting)
    with pytest.raises(DiagnosticError, match="time would depend on weights"):
        target("sram banks(16)", "large")


def test_a_program_with_banks_computes_the_same_and_takes_the_time_of_its_waits():
    graph = random_graph(1, size="tiny", cells=32, features=16)

    def steps(target: Target) -> int:
        program = compile_graph(graph, target, Settings(frames=4))
        prove_program(program)
        compared, different = compare(graph, program, 0)
        assert compared and not different
        return program.entries["encoder.steps"].cycles

    times = [steps(evolve(EDGE, banks=banks)) for banks in (0, 16, 8, 1)]
    assert times == sorted(times) and times[0] < times[1] < times[3]
