"""Budgets, checked on the program itself: what is used, how much is allowed, and who uses most of it.

    weights            bytes of encoded weights, embeddings included
    bits_per_weight    of those
    sram               activation memory in use, stream buffers and pinned weights
    cycles, latency
    computing one encoder step (a batched call divided by its steps) and the prediction and joint steps that follow it
    rtf                the machine's time over the audio's, with all that a search asks of each entry

Steps that are computed together also wait for each other; that is no computing, and `latency` reports it beside the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nnac.entry import FRAME_MS, LABELS_PER_SECOND, Calls
from nnac.program import INIT, Program

SHOWN = 3
COMPANIONS = ("lm", "source_lm")       # entries that only fusion asks (`nnac.companions.NAMES`)


def measured(program: Program) -> dict[str, float]:
    """Every quantity that a budget can bound."""
    kernels = program.report["layers"].values()
    size = sum(k["bytes"] for k in kernels)
    cycles = sum(_cycles(program).values())
    return dict(weights=size, bits_per_weight=8 * size / max(1, sum(k["weights"] for k in kernels)),
                sram=sum(_sram(program).values()),
                cycles=cycles, latency=cycles / program.target.clock, rtf=program.report["search"]["rtf"])


def searched(program: Program, frame_ms: float | None, decode: Any = None) -> dict[str, Any]:
    """What a whole recognition costs: cycles of each entry for one frame (a step of the model's first), their sum, and
    the real-time factor.

    decode  the search, `nnac.plan.Decode`; None: greedy.  Exact cycles of the program's calls, as often as is expected
            (`nnac.entry`); language models count where the program has them: n-grams are the host's.
    """
    frames, hypotheses = 1000 / (frame_ms or FRAME_MS), 1 if decode is None else decode.hypotheses
    asked = {} if decode is None else dict.fromkeys(decode.languages)
    parts = {}
    for e in program.model_entries:
        calls, each = e.calls_per_second(frames, LABELS_PER_SECOND, hypotheses)
        if e.name in COMPANIONS and e.name not in asked:
            continue
        prices = program.calls(e.name, moved=hypotheses > 1 and e.each_hypothesis)
        parts[e.name] = calls / frames * _expected(prices, each)
        own = [x for n, x in program.entries.items() if n != INIT and x.model_entry == e.name]
        if (steps := max((x.steps for x in own), default=1)) > 1:
            parts[e.name] = calls / frames * sum(x.cycles for x in own if x.steps == steps) / steps
    cycles = sum(parts.values())
    return dict(search=str(decode) if decode is not None else "greedy", entries={k: round(v) for k, v in parts.items()},
                cycles_per_frame=round(cycles), rtf=cycles * frames / program.target.clock)


def _expected(prices: Calls, each: float) -> float:
    """Cycles of the calls for a number of hypotheses that is a mean."""
    low = int(each)
    below, above = (sum(prices.several(n)) for n in (low, low + 1))
    return below + (each - low) * (above - below)


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
    if quantity == "rtf":
        found = program.report["search"]
        return {path: found["rtf"] * c / max(1, found["cycles_per_frame"]) for path, c in found["entries"].items()}
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
            computing = {"latency": " of computing a step",
                         "rtf": f", {program.report['search']['search']}"}.get(b.quantity, "")
            out.append(f"budget `{b.text}` is exceeded: {shown(b.quantity, have[b.quantity])}{computing} (largest: "
                       f"{named})")
    return out


def shown(quantity: str, value: float) -> str:
    """``value`` with its unit."""
    if quantity in ("weights", "sram"):
        return f"{value / 1024:,.1f} KiB"
    if quantity == "latency":
        return f"{1e3 * value:.3f} ms"
    if quantity == "rtf":
        return f"{value:.4f} of real time"
    return f"{value:,.0f} cycles" if quantity == "cycles" else f"{value:.2f} bits"


def _cycles(program: Program) -> dict[str, float]:
    """Cycles of each layer in one step of every entry."""
    out: dict[str, float] = {}
    for name, entry in program.entries.items():
        batched = f"{entry.part}.steps" in program.entries
        if name == "init" or (batched and entry.steps == 1) or entry.hypotheses > 1:
            continue
        for path, cycles in program.report["entries"][name]["layers"].items():
            out[path] = out.get(path, 0.0) + cycles / entry.steps
    return out


def _sram(program: Program) -> dict[str, float]:
    report, t = program.report, program.target
    pinned = report["pinned"]["words"] * t.lanes
    states = sum(s.bytes for s in program.states)
    return {"stream buffers": report["sram"]["stream"], "pinned weights": pinned, "scratch": report["sram"]["scratch"],
            "states": states,
            "parameters": max(0, report["sram"]["used"] - report["sram"]["scratch"] - states)}
