"""A run as a timeline that chrome://tracing and ui.perfetto.dev open: one track a unit, one for the DRAM bus, one for
the decoder.

Work carries the layer's name, the instruction's text and the policy line; waiting shows on the same track, with its
reason.  Times are microseconds of machine time, so that cycles / clock can be read off; exact cycles are in the
arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from nnac.emulator.analysis import EMPTY, END, RESOURCES, WORK, Analysis, Interval
from nnac.files import atomic

_COLOURS = {"DW": "thread_state_runnable", "DA": "rail_load", "MV": "good", "VX": "rail_response", "CT": "grey"}


def events(runs: Sequence[Analysis], *, waits: bool = True) -> Iterator[dict[str, Any]]:
    """Events of several entries, one run after the other.  ``waits``: also the cycles in which units waited."""
    clock = runs[0].config.clock
    yield dict(name="process_name", ph="M", pid=1,
               args=dict(name=f"machine {runs[0].config.name}, {clock / 1e6:g} MHz"))
    for tid, name in enumerate(RESOURCES, 1):
        yield dict(name="thread_name", ph="M", pid=1, tid=tid, args=dict(name=name))
        yield dict(name="thread_sort_index", ph="M", pid=1, tid=tid, args=dict(sort_index=tid))
    start = 0
    for run in runs:
        yield dict(name=run.entry.name, ph="i", s="p", pid=1, tid=1, ts=start * 1e6 / clock, args=dict(cycle=start))
        for tid, name in enumerate(RESOURCES, 1):
            for span in run.spans(name):
                if span.reason in (EMPTY, END, "nothing requested", "no tile complete") or (not waits
                    and not _works(span)):
                    continue
                yield _event(run, span, tid, start, clock)
        start += run.entry.timing.cycles


def _works(span: Interval) -> bool:
    return span.reason in (WORK, "DW", "DA")


def _event(run: Analysis, span: Interval, tid: int, start: int, clock: int) -> dict[str, Any]:
    e = run.entry
    arguments: dict[str, Any] = dict(cycles=span.cycles, first=start + span.first, last=start + span.end - 1)
    name = f"waits: {span.reason}"
    if span.instruction >= 0:
        layer, origin = e.origins[span.instruction]
        i = e.code[span.instruction]
        if _works(span):
            name = f"{'fetch ' if span.unit == 'CT' != i.unit else ''}{type(i).__name__} {layer}".strip()
        arguments |= dict(index=span.instruction, instruction=str(i), layer=layer, policy=origin)
    colour = _COLOURS.get(span.unit if span.unit in _COLOURS else "DW", "grey") if _works(span) else "terrible"
    return dict(name=name, ph="X", pid=1, tid=tid, ts=(start + span.first) * 1e6 / clock, dur=span.cycles * 1e6 / clock,
                cname=colour, args=arguments)


def write_trace(path: str | os.PathLike, runs: Sequence[Analysis], *, waits: bool = True) -> None:
    """Write the timeline of ``runs`` as trace JSON."""
    with atomic(path) as out:
        out.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
        for k, event in enumerate(events(runs, waits=waits)):
            out.write((b",\n" if k else b"") + json.dumps(event, separators=(",", ":")).encode())
        out.write(b"\n]}\n")
