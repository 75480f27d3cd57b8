"""Time: the wake-cycle model equals the clocked rules, in every start and done cycle of every instruction."""

from __future__ import annotations

from fractions import Fraction

import pytest
from attrs import evolve

from nnac.emulator import CodeError, DeadlockError, MachineError, SemaphoreError, clocked, simulate
from nnac.isa import FIL, HALT, HOST, LDA, LDT, LDW, MVM, PROF, STA, MachineConfig
from tests.machine_programs import compiled, stress

C = MachineConfig(lanes=16, vector=4, latency=10, burst=16, burst_cycles=Fraction(4), a_bytes=8192)


@pytest.mark.parametrize("make", [compiled, stress], ids=lambda f: f.__name__)
@pytest.mark.parametrize("block", range(4))
def test_every_start_and_done_cycle_equals_the_clocked_rules(make, block):
    for seed in range(1000 + 30 * block, 1030 + 30 * block):
        code, config = make(seed)
        start, done = clocked.run(code, config)
        if min(done) < 0:
            with pytest.raises(DeadlockError):
                simulate(code, config)
            continue
        timing = simulate(code, config)
        assert (timing.start.tolist(), timing.done.tolist()) == (start, done), f"{make.__name__} seed {seed}"


@pytest.mark.parametrize("seed", [1893, 2200])
def test_a_stream_that_is_ready_a_cycle_before_dma_goes_first(seed):
    """Found by 5,000 random programs: the wake cycle of a stream behind a later one of DA was lost."""
    code, config = stress(seed)
    timing = simulate(code, config)
    assert (timing.start.tolist(), timing.done.tolist()) == clocked.run(code, config)


@pytest.mark.parametrize("wrong", [dict(latency=11), dict(burst_cycles=Fraction(5)), dict(queue=1),
                                   dict(decode_drain=3), dict(mv_drain=5),
                                   dict(vx_fill=9), dict(outstanding=1), dict(ring_bytes=512)],
                         ids=lambda d: next(iter(d)))
def test_the_comparison_notices_every_number_of_the_machine(wrong):
    """A model with one number wrong differs from the rules on some program: the test above can fail."""
    for seed in range(40):
        for make in (compiled, stress):
            code, config = make(seed)
            config = evolve(config, latency=10, burst_cycles=Fraction(4), queue=8, outstanding=8, ring_bytes=8192)
            start, done = clocked.run(code, config)
            if min(done) < 0:
                continue
            try:
                timing = simulate(code, evolve(config, **wrong))
            except MachineError:
                return
            if (timing.start.tolist(), timing.done.tolist()) != (start, done):
                return
    pytest.fail("no program noticed")


def cycles(*code, config=C):
    t = simulate([*code, HALT()], config)
    return list(zip(t.start.tolist(), t.done.tolist(), strict=True))[: len(code)]


def test_a_vector_instruction_by_hand():
    # fetched in cycle 0, in the queue from 1, starts in 1; 64 bytes at 16 a cycle: 8 + 4 cycles, the last is 12
    assert cycles(FIL(bytes=64)) == [(1, 12)]


def test_a_weight_stream_by_hand():
    # start 1; request seen in 2, ready 10 later in 12; 2 bursts of 4 cycles: 12..19; decoder 20: 5 steps + 2: done in
    # 26
    assert cycles(LDW(dram=0, bytes=32, rows=4, cols=5, live=5, steps=5)) == [(1, 26)]


def test_a_burst_that_two_tiles_share_is_read_once():
    tiles = [LDW(dram=0, bytes=20, rows=4, cols=1, live=1, steps=1),
             LDW(dram=16, bytes=16, rows=4, cols=1, live=1, steps=1)]
    assert simulate([*tiles, HALT()], C).bursts.tolist() == [2, 1, 0]
    # bytes 0..19 touch bursts 0 and 1; bytes 16..31 lie in burst 1 alone, and a transfer is at least one burst
    tiles[1] = LDW(dram=16, bytes=32, rows=4, cols=1, live=1, steps=1)
    assert simulate([*tiles, HALT()], C).bursts.tolist() == [2, 1, 0]
    assert simulate([tiles[1], HALT()], C).bursts.tolist() == [2, 0]


def test_dma_cuts_into_a_weight_stream_at_a_burst_boundary():
    # LDW: 8 bursts of 4 cycles from 12 on.  STA starts in 2, is ready in 3, takes the bus at once and leaves before.
    # A second STA that is ready in 18 (start 17) waits until burst 12..15, 16..19 is over, then holds 20..23; LDW goes
    # on at 24.
    code = [LDW(dram=0, bytes=128, rows=4, cols=1, live=1, steps=1), FIL(bytes=16 * 5, signal=1), STA(bytes=16, wait=1)]
    got = cycles(*code)
    assert got[1] == (2, 14)
    assert got[2] == (15, 19)            # ready in 16, a boundary: holds 16..19
    assert got[0] == (1, 12 + 32 + 4 - 1 + 3)


def test_products_follow_each_other_without_a_gap():
    first, second = cycles(MVM(words=10), MVM(words=10))
    assert first == (1, 1 + 10 - 1 + 4) and second == (11, 11 + 10 - 1 + 4)


def test_int16_activations_halve_and_narrow_weights_raise_the_rate():
    fast = evolve(C, rates=(Fraction(1), Fraction(1), Fraction(2), Fraction(4), Fraction(8)))
    assert [d - s + 1 - 4 for s, d in cycles(MVM(words=10), MVM(words=10, act16=1), MVM(words=10, weights=2),
                                             config=fast)] == [10, 20, 5]


def test_a_signal_is_seen_in_the_cycle_after_done():
    (_, done), (start, _) = cycles(FIL(bytes=0, signal=1), MVM(words=1, wait=1))
    assert start == done + 1


def test_the_host_and_marks_stall_fetch():
    got = cycles(PROF(id=1), HOST(id=2, time=20), FIL(bytes=0))
    assert got == [(0, 0), (1, 20), (22, 29)]


def test_a_deadlock_names_who_waits_for_what():
    with pytest.raises(DeadlockError, match=r"MV waits for s3 with \[0\] MVM; VX waits for s1 with \[1\] FIL"):
        simulate([MVM(wait=8), FIL(wait=2), HALT()], C)


def test_a_semaphore_that_counts_too_far_is_an_error():
    with pytest.raises(SemaphoreError, match="counts beyond 255"):
        simulate([*[FIL(signal=1) for _ in range(256)], HALT()], C)
    with pytest.raises(SemaphoreError, match="counts beyond 255"):
        clocked.run([*[FIL(signal=1) for _ in range(256)], HALT()], C)
    # a token that is taken as the 256th comes does not count
    code = [*[FIL(signal=1) for _ in range(255)], *[FIL(wait=1, signal=1) for _ in range(3)], HALT()]
    assert clocked.run(code, C)[1] == simulate(code, C).done.tolist()


@pytest.mark.parametrize("code, words", [
    ([FIL()], "ends in HALT"), ([HALT(), FIL(), HALT()], "HALT before the end"),
                                         ([MVM(columns=5), HALT()], "5 columns; the machine has 4"),
    ([LDW(rows=17), HALT()], "17 rows; the machine has 16 lanes"),
                                         ([LDT(bytes=40000), HALT()], "does not fit the ring"),
    ([MVM(weights=5), HALT()], "weight format 5 is undefined")])
def test_what_this_machine_cannot_do_is_an_error(code, words):
    with pytest.raises(CodeError, match=words):
        simulate(code, C)


def test_time_depends_on_no_data():
    code, config = compiled(5)
    moved = [evolve(i, dst=i.dst + 64) if isinstance(i, LDA) else i for i in code]
    assert (simulate(code, config).done == simulate(moved, config).done).all()
