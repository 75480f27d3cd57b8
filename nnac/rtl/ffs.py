"""The lowest one of many bits, in two levels."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value

GROUP = 32


def lowest(m: Module, name: str, bits: Value) -> tuple[Signal, Signal]:
    """(whether any bit is set, the number of the lowest that is).  ``bits``: a multiple of 32 of them."""
    groups = [bits[k : k + GROUP] for k in range(0, len(bits), GROUP)]
    live, which = Signal(len(groups), name=f"{name}_groups"), Signal(range(len(groups)), name=f"{name}_group")
    chosen, place = Signal(GROUP, name=f"{name}_chosen"), Signal(range(GROUP), name=f"{name}_place")
    m.d.comb += live.eq(Cat(g.any() for g in groups))
    with m.Switch(which):
        for k, g in enumerate(groups):
            with m.Case(k):
                m.d.comb += chosen.eq(g)
    for source, target in ((live, which), (chosen, place)):
        for k in reversed(range(len(source))):
            with m.If(source[k]):
                m.d.comb += target.eq(k)
    some, found = Signal(name=f"{name}_any"), Signal(range(len(bits)), name=name)
    m.d.comb += [some.eq(live.any()), found.eq(Cat(place, which))]
    return some, found
