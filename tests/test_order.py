"""Order and verifier, on random items: whatever the timing, conflicting accesses keep program order; and damage is
seen."""

import numpy as np
import pytest
from attrs import evolve, frozen

from nnac.schedule.order import dependences, hoist, moved, synchronise
from nnac.schedule.verify import HazardError, Operation, prove

UNITS = ("DW", "DA", "MV", "VX")


@frozen
class Item:
    unit: str
    reads: tuple
    writes: tuple


def random_items(rng, n=60, size=64):
    def ranges():
        starts = rng.integers(0, size, rng.integers(0, 3))
        return tuple(("sram", int(s), int(min(size, s + rng.integers(1, 12)))) for s in starts)
    return [Item(UNITS[rng.integers(4)], ranges(), ranges()) for _ in range(n)]


def operations(items, sync):
    return [Operation(i.unit, i.reads, i.writes, w, s) for i, w, s in zip(items, sync.waits, sync.signals, strict=True)]


def touches(a, b):
    return any(s == t and x < v and u < y for s, x, y in a for t, u, v in b)


def conflict(a, b):
    return touches(a.writes, b.reads) or touches(a.reads, b.writes) or touches(a.writes, b.writes)


def run(ops, rng, queue, loose=()):
    """Start and end of every operation under random durations: queues of ``queue``, in-order fetch, starts and ends."""
    start, end = {}, {}
    tokens, queues, now, fetched = {}, {u: [] for u in UNITS}, 0, 0
    running = {u: [] for u in UNITS}
    while len(end) < len(ops):
        progress = False
        for u in UNITS:
            while running[u] and running[u][0][1] <= now:
                index, _ = running[u].pop(0)
                end[index] = now
                for k in range(16):
                    if ops[index].signals >> k & 1:
                        tokens[k] = tokens.get(k, 0) + 1
        while fetched < len(ops) and len(queues[ops[fetched].unit]) < queue:
            queues[ops[fetched].unit].append(fetched)
            fetched += 1
        for u in UNITS:
            if queues[u] and (not running[u] or (u in loose and len(running[u]) < 2)):
                index = queues[u][0]
                need = [k for k in range(16) if ops[index].waits >> k & 1]
                if all(tokens.get(k, 0) for k in need):
                    for k in need:
                        tokens[k] -= 1
                    queues[u].pop(0)
                    start[index] = now
                    over = max(now + int(rng.integers(1, 20)), max((t for _, t in running[u]), default=0))
                    running[u].append((index, over))
                    progress = True
        pending = [t for r in running.values() for _, t in r]
        assert pending or progress or fetched < len(ops) or len(end) == len(ops), "deadlock"
        now += 1
    assert not any(tokens.values())
    return start, end


@pytest.mark.parametrize("loose", [(), ("DW",)], ids=["strict", "overlapping"])
def test_conflicting_items_keep_program_order_under_any_timing(loose):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        items = random_items(rng)
        if loose:                              # an overlapping unit orders its own accesses by itself
            items = [i if i.unit not in loose else evolve(i, reads=()) for i in items]
        ops = operations(items, synchronise(items, 16, loose))
        prove(ops, sizes=dict(sram=64), holds=[("sram", 0, 64)], overlapping=loose)
        start, end = run(ops, rng, int(rng.integers(1, 9)), loose)
        for j, b in enumerate(items):
            for i, a in enumerate(items[:j]):
                if a.unit != b.unit and conflict(a, b):
                    assert end[i] <= start[j], (seed, i, j)


def test_hoisting_keeps_every_dependence_and_each_units_order():
    for seed in range(60):
        items = random_items(np.random.default_rng(seed))
        order = hoist(items, ("DW", "DA"))
        assert sorted(order) == list(range(len(items)))
        place = {index: at for at, index in enumerate(order)}
        for index, needs in enumerate(dependences(items)):
            assert all(place[n] < place[index] for n in needs)
        for u in UNITS:
            own = [i for i in order if items[i].unit == u]
            assert own == sorted(own)
        needed = dependences(items)
        assert hoist(items, ("DW", "DA"), needed) == order
        ordered = [items[i] for i in order]
        assert moved(needed, order) == dependences(ordered), "they are found once for both orders"
        assert synchronise(ordered, 16, needed=moved(needed, order)) == synchronise(ordered, 16)
    assert hoist(items, ("DW", "DA")) != list(range(len(items)))


def test_items_that_pass_others_of_their_unit_pass_none_that_they_depend_on():
    passed = 0
    for seed in range(60):
        items = random_items(np.random.default_rng(seed))
        order = hoist(items, ("VX",), passing=True)
        assert sorted(order) == list(range(len(items)))
        place = {index: at for at, index in enumerate(order)}
        assert all(place[n] < place[index] for index, needs in enumerate(dependences(items)) for n in needs)
        others, own = ([i for i in order if (items[i].unit == "VX") is vx] for vx in (False, True))
        assert others == sorted(others)
        passed += own != sorted(own)
    assert passed > 20


def test_dependences_reach_every_conflicting_pair():
    """Directly, through other items, or through a later item of the same unit (units keep their order)."""
    for seed in range(20):
        items = random_items(np.random.default_rng(seed), 40)
        needs = dependences(items)
        reach: list[set[int]] = []
        for index, item in enumerate(items):
            direct = set(needs[index]) | {max((i for i in range(index) if items[i].unit == item.unit),
                                              default=-1)} - {-1}
            reach.append(direct.union(*(reach[n] for n in direct)) if direct else set())
            assert all(i in reach[index] for i in range(index) if conflict(items[i], item)), (seed, index)
            assert all(conflict(items[n], item) for n in needs[index])


def test_damage_is_seen_and_no_sound_program_is_refused():
    """Drop one wait with its signal: a race.  Drop a wait or a signal alone: tokens left over, or a deadlock.  Widen an
    access: a race or fine."""
    caught = {"pair": [0, 0], "wait": [0, 0], "signal": [0, 0]}
    for seed in range(30):
        items = random_items(np.random.default_rng(seed), 40)
        ops = operations(items, synchronise(items, 16))
        sent: dict[int, list[int]] = {}
        pairs = []
        for index, o in enumerate(ops):
            for k in range(16):
                if o.waits >> k & 1:
                    pairs.append((index, sent[k].pop(0), k))
            for k in range(16):
                if o.signals >> k & 1:
                    sent.setdefault(k, []).append(index)
        for waiter, signaller, k in pairs:
            for kind in caught:
                broken = list(ops)
                if kind != "signal":
                    broken[waiter] = evolve(broken[waiter], waits=broken[waiter].waits & ~(1 << k))
                if kind != "wait":
                    broken[signaller] = evolve(broken[signaller], signals=broken[signaller].signals & ~(1 << k))
                caught[kind][1] += 1
                try:
                    prove(broken, sizes=dict(sram=64), holds=[("sram", 0, 64)])
                except HazardError:
                    caught[kind][0] += 1
    print({k: f"{a} of {b}" for k, (a, b) in caught.items()})
    assert all(a == b for a, b in caught.values())


def test_bounds_and_unwritten_bytes_are_named():
    read = Operation("MV", (("sram", 0, 4),), ())
    with pytest.raises(HazardError, match="reads sram:0x2, which nothing has written"):
        prove([read], sizes=dict(sram=8), holds=[("sram", 0, 2)])
    with pytest.raises(HazardError, match="it has 0x2 bytes"):
        prove([read], sizes=dict(sram=2), holds=[("sram", 0, 2)])
    with pytest.raises(HazardError, match="may hold 4 tokens"):
        prove([Operation("MV", (), (), signals=1)] * 4 + [Operation("VX", (), (), waits=1)] * 4, sizes={}, capacity=3)
