"""Energies of events, derived from published figures or stated."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from attrs import evolve

from nnac.cli import main
from nnac.emulator.listing import find_target
from nnac.energy import Energy, derived
from nnac.target import Target

FEMTO = 10**15


def femtojoules(e: Energy) -> tuple[Fraction, ...]:
    return tuple(FEMTO * v for v in (e.mac, e.sram, e.dram, e.vector))


def test_at_both_ends_energies_are_the_published_figures_and_between_them_they_fall():
    # int8 product + int32 sum; 64 bits of 32 KB of SRAM, of DRAM, an eighth of each; int32 product + int32 sum
    assert femtojoules(derived(45)) == (300, 2500, 162_500, 3200)
    assert femtojoules(derived(7)) == (100, 1062, 162_500, 1510)          # 8.5 pJ / 8 = 1062.5, the tie to even
    # 22 nm lies log(45 / 22) / log(45 / 7) = 0.3846 of the way: 0.3 pJ x (1 / 3)^0.3846 = 0.1966 pJ
    assert femtojoules(derived(22))[0] == 197
    sizes = [femtojoules(derived(nm)) for nm in (45, 40, 28, 22, 16, 12, 7)]
    assert all(a > b for k in (0, 1, 3) for a, b in zip([s[k] for s in sizes], [s[k] for s in sizes][1:], strict=False))


def test_no_energy_is_derived_beyond_the_two_tables():
    for nm in (5, 90):
        with pytest.raises(ValueError, match=f"from 7 to 45 nm, not for {nm}"):
            derived(nm)


@pytest.mark.parametrize("name", ["tiny", "edge", "large", "rapid", "rapid_chip"])
def test_shipped_targets_name_their_process_and_say_from_where_their_energies_are(name):
    energy = find_target(name).energy
    assert energy == derived(energy.process) and f"{energy.process} nm: Horowitz, ISSCC 2014 (45 nm)" in str(energy)


def test_the_manual_ends_with_the_energies_and_their_source(capsys):
    assert main(["isa", "--target", "tiny"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"machine: {derived(40)}")


def test_a_target_that_states_an_energy_is_no_longer_of_a_process_and_survives_json():
    edge = find_target("edge")
    assert Target.from_json(json.loads(json.dumps(edge.to_json()))) == edge
    stated = evolve(edge, energy=evolve(edge.energy, mac=Fraction(1, 10**12), process=0))
    assert "process" not in stated.to_json()["energy"] and Target.from_json(stated.to_json()) == stated
    assert str(stated.energy).startswith("MAC 1 pJ, SRAM 1.799 pJ a byte")
    assert "stated by the target" in str(stated.energy)


def test_reports_say_what_memory_a_chip_has_beside_the_budget(capsys):
    assert main(["isa", "--target", "edge"]) == 0
    line = capsys.readouterr().out.splitlines()[-2]
    # of A's 304 KiB 7 copies more; 4 tables of 2 x 1024 states of 25 bits, 25 KiB, 32 times for 64 lanes
    assert line.startswith("SRAM: 512 KiB as the target says; beside it, in KiB, for ports and decoder: A 2,128, TABLE")
