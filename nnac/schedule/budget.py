"""Budgets, checked on the program itself: what is used, how much is allowed, and who uses most of it.

    weights            bytes of encoded weights, embeddings included
    bits_per_weight    of those
    sram               activation memory in use, stream buffers and pinned weights
    cycles, latency
    computing one encoder step (a batched call divided by its steps) and the prediction and joint steps that follow it

Steps that are computed together also wait for each other; that is no computing, and `latency` reports it beside the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nnac.program import Program

SHOWN = 3


def measured(program: Program) -> dict[str, float]:
    """Every quantity that a budget can bound."""
    kernels = program.report["layers"].values()
    size = sum(k["bytes"] for k in kernels)
    cycles = sum(_cycles(program).values())
    return dict(weights=size, bits_per_weight=8 * size / max(1, sum(k["weights"] for k in kernels)),
                sram=sum(_sram(program).values()),
                cycles=cycles, latency=cycles / program.target.clock)


def latency(program: Program, frame_ms: float) -> dict[str, float]:
    """Milliseconds: ``step`` of computing (what a budget bounds); ``call``: computing from the last frame of a call to
    its last step's result; ``wait``: how long the first step of a call waits for the others.  ``frame_ms``: of one
    encoder step."""
    steps = max((e.steps for e in program.entries.values() if e.model_entry == "encoder"), default=1)
    ms = 1e3 / program.target.clock
    encoder = sum(e.cycles for n, e in program.entries.items() if e.model_entry == "encoder" and n != "init"
                  and e.steps == steps)
    step = sum(_cycles(program).values())
    return dict(step_ms=ms * step, call_ms=ms * (step + encoder - encoder / steps), wait_ms=frame_ms * (steps - 1),
                steps=steps)


def contributors(program: Program, quantity: str) -> dict[str, float]:
    """The parts of a quantity, in its unit."""
    kernels = program.report["layers"]
    if quantity == "weights":
        return {path: k["bytes"] for path, k in kernels.items()}
    if quantity == "bits_per_weight":
        return {path: k["bits"] for path, k in kernels.items()}
    if quantity == "sram":
        return _sram(program)
    clock = program.target.clock if quantity == "latency" else 1
    return {path: c / clock for path, c in _cycles(program).items()}


def exceeded(program: Program, budgets: Iterable[Any], lines: Mapping[str, str]) -> list[str]:
    """One sentence for every budget that is not met: how much, and the largest contributors with their policy lines."""
    out = []
    have = measured(program)
    for b in budgets:
        if b.quantity in have and have[b.quantity] > b.limit:
            parts = sorted(contributors(program, b.quantity).items(), key=lambda kv: (-kv[1], kv[0]))[:SHOWN]
            named = ", ".join(f"{path} {shown(b.quantity, v)}" + (f" [{lines[path]}]" if path in lines else "")
                              for path, v in parts)
            computing = " of computing a step" if b.quantity == "latency" else ""
            out.append(f"budget `{b.text}` is exceeded: {shown(b.quantity, have[b.quantity])}{computing} (largest: "
                       f"{named})")
    return out


def shown(quantity: str, value: float) -> str:
    """``value`` with its unit."""
    if quantity in ("weights", "sram"):
        return f"{value / 1024:,.1f} KiB"
    if quantity == "latency":
        return f"{1e3 * value:.3f} ms"
    return f"{value:,.0f} cycles" if quantity == "cycles" else f"{value:.2f} bits"


def _cycles(program: Program) -> dict[str, float]:
    """Cycles of each layer in one step of every entry."""
    out: dict[str, float] = {}
    for name, entry in program.entries.items():
        batched = f"{entry.part}.steps" in program.entries
        if name == "init" or (batched and entry.steps == 1):
            continue
        for path, cycles in program.report["entries"][name]["layers"].items():
            out[path] = out.get(path, 0.0) + cycles / entry.steps
    return out


def _sram(program: Program) -> dict[str, float]:
    report, t = program.report, program.target
    pinned = report["pinned"]["words"] * t.lanes
    states = sum(s.width * s.size for s in program.states)
    return {"stream buffers": report["sram"]["stream"], "pinned weights": pinned, "scratch": report["sram"]["scratch"],
            "states": states,
            "parameters": max(0, report["sram"]["used"] - report["sram"]["scratch"] - states)}
